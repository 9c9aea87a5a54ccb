"""The command: every mistake gets one sentence and exit code 2, reports go to stdout alone, Ctrl-C loses nothing."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from minim1 import cli
from minim1.errors import Interrupted
from minim1.train import recipes
from minim1.train.checkpoint import RunFolder


@pytest.fixture(autouse=True)
def tiny_preset(tiny_recipe, monkeypatch):
    """`--preset tiny`: the recipe of `tiny_run`."""
    monkeypatch.setitem(recipes.RECIPES, "tiny", lambda seed=0: replace(tiny_recipe, seed=seed))


@pytest.fixture
def call(capsys):
    """call(*argv) -> (exit code, stdout, stderr)."""
    def run(*argv):
        code = cli.main([str(word) for word in argv])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


@pytest.fixture
def refused(call):
    """refused(*argv, says=...): exit code 2, nothing on stdout, one line on stderr that holds the words."""
    def run(*argv, says):
        code, out, err = call(*argv)
        assert (code, out) == (2, "")
        assert err.startswith("minim1: ") and err.endswith("\n") and err.count("\n") == 1
        for word in [says] if isinstance(says, str) else says:
            assert word in err
        return err

    return run


@pytest.fixture
def a_run(tiny_run, tmp_path):
    """A copy of a finished run, to be damaged."""
    return Path(shutil.copytree(tiny_run, tmp_path / "a run"))


def tiny(corpus, out, *more):
    return ["train", "--preset", "tiny", "--corpus", corpus, "--out", out, "--workers", 1, *more]


# ------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize("argv, says", [
    (["train", "--preset", "nanno"], ["nanno", "nano", "small"]),
    (["train", "--preset", "m1-456b"], "m1-456b"),
    (["train", "--families", "pear"], ["pear", "pair"]),
    (["train", "--loss", "cipso"], ["cipso", "cispo"]),
    (["train", "--device", "gpu"], ["gpu", "cuda"]),
    (["train", "--device", "mps"], "mps"),
    (["train", "--workers", "0"], "--workers"),
    (["train", "--pretrain-steps", "0"], ["pretrain", "0"]),
    (["train", "--rl-steps", "-3"], ["rl", "-3"]),
    (["pretrain", "--steps", "0"], ["pretrain", "0"]),
    (["train", "--part", "policy_los=math:sin"], ["policy_los", "policy_loss"]),
    (["train", "--part", "policy_loss"], "NAME=MODULE:FUNCTION"),
    (["train", "--part", "policy_loss=math"], "NAME=MODULE:FUNCTION"),
    (["train", "--part", "policy_loss=no_such_module:f"], "no_such_module"),
    (["train", "--part", "policy_loss=math:no_such_function"], "no_such_function"),
    (["train", "--part", "policy_loss=.relative:f"], ".relative:f"),
    (["train", "--part", "policy_loss=:f"], "policy_loss"),
    (["train", "--part", "policy_loss=math:pi"], ["math:pi", "function"]),
    (["train", "--part", "lightning=nowhere.ipynb:lightning"], "nowhere.ipynb"),
    (["train", "--parts", "/nowhere/work"], ["/nowhere/work", "go.py lab"]),
    (["eval", "--parts", "/nowhere/work"], ["/nowhere/work", "go.py lab"]),
    (["chat", "--parts", "/nowhere/work"], ["/nowhere/work", "go.py lab"]),
    (["train", "--config", "/nowhere/config.json"], "/nowhere/config.json"),
    (["train", "--corpus", "/nowhere/text"], "/nowhere/text"),
    (["sft", "--from", "/nowhere/run"], "/nowhere/run"),
    (["eval", "/nowhere/run"], "/nowhere/run"),
    (["chat", "/nowhere/run"], "/nowhere/run"),
    (["report", "/nowhere/run"], "/nowhere/run"),
    (["count", "--preset", "nanno"], "nanno"),
    (["count", "--preset", "nano", "--config", "x.json"], "--config"),
    (["count", "--config", "/nowhere/config.json"], "/nowhere/config.json"),
    # what argparse finds
    ([], "--help"), (["trian"], "trian"), (["sft"], "--from"), (["train", "--steps", "9"], "--steps"),
    (["train", "--seed", "one"], ["--seed", "one"]), (["train", "--nonsense"], "--nonsense"),
])
def test_mistakes_get_one_sentence(argv, says, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("minim1.workers.run", None)  # or a mistake that is not noticed would train for minutes
    refused(*argv, says=says)
    assert list(tmp_path.iterdir()) == []  # nothing was begun


@pytest.mark.parametrize("argv, says", [
    (["--families", "pair", "pear"], "pear"), (["--problems", 0], "--problems"), (["--difficulty", 99], "99"),
    (["--temperature", -1], "temperature"), (["--max-new-tokens", 0], "max_new_tokens"), (["--budget", -1], "thinking_budget"),
])
def test_mistakes_of_an_evaluation(argv, says, refused, tiny_run):
    refused("eval", tiny_run, *argv, says=says)


@pytest.mark.parametrize("name, data, says", [
    (None, b"", "0 files"), ("a.txt", b"", "text"), ("image.png", b"\x89PNG\0\0\1\2", "binary"),
    ("latin.txt", b"caf\xe9 au lait", ["latin.txt", "UTF-8"]), ("bad.jsonl", b'{"text": "a"}\n{"texd": 1}\n', ["bad.jsonl", "line 2"]),
])
def test_text_that_does_not_do(name, data, says, refused, tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    if name:
        (folder / name).write_bytes(data)
    refused(*tiny(folder, tmp_path / "out"), says=says)
    assert not (tmp_path / "out").exists()


def test_a_config_that_does_not_fit(refused, tmp_path):
    file = tmp_path / "config.json"
    for text, says in ((b"{", "config.json"), (b"\xff", "config.json"), (b'{"format": 1, "num_attention_heads": 3}', "num_key_value_heads"),
                       (b'{"format": 7}', "7"), (b'{"format": 1, "hidden_size": -5}', "-5"), (b'{"format": 1, "widht": 5}', "widht")):
        file.write_bytes(text)
        refused("count", "--config", file, says=says)
        refused("train", "--config", file, "--out", tmp_path / "out", says=says)
    assert not (tmp_path / "out").exists()


def test_a_run_is_never_overwritten_by_accident(refused, a_run, corpus_folder):
    before = {path: path.stat().st_mtime_ns for path in a_run.rglob("*")}
    refused(*tiny(corpus_folder, a_run), says=["--resume", str(a_run)])
    refused("pretrain", "--preset", "tiny", "--out", a_run, says="--resume")
    assert before == {path: path.stat().st_mtime_ns for path in a_run.rglob("*")}


def test_nothing_to_resume(refused, tmp_path, corpus_folder):
    refused(*tiny(corpus_folder, tmp_path / "none", "--resume"), says=["--resume", "none"])
    assert not (tmp_path / "none").exists()


def test_resuming_with_other_settings_is_refused(refused, a_run, corpus_folder):
    refused(*tiny(corpus_folder, a_run, "--resume", "--seed", 5), says="seed")
    refused(*tiny(corpus_folder, a_run, "--resume", "--loss", "grpo"), says=["cispo", "grpo"])


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1}', ""])
def test_resuming_a_run_with_a_broken_run_json(refused, a_run, corpus_folder, text):
    (a_run / "pretrain" / "run.json").write_text(text)
    refused(*tiny(corpus_folder, a_run, "--resume"), says="pretrain")


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 something else", "half"])
def test_a_damaged_state_cannot_be_resumed(refused, a_run, corpus_folder, data):
    for name in ("state.safetensors", "previous.safetensors"):
        path = a_run / "rl" / name
        path.write_bytes(path.read_bytes()[:5000] if data == "half" else data)
    refused(*tiny(corpus_folder, a_run, "--resume", "--quiet"), says="state.safetensors")


def test_a_damaged_state_costs_the_steps_since_the_save_before(call, a_run, corpus_folder):
    model, state = (a_run / "rl" / f"{name}.safetensors" for name in ("model", "state"))
    before = model.read_bytes()  # the same weights are the same bytes
    state.write_bytes(state.read_bytes()[:5000])
    code, _, said = call(*tiny(corpus_folder, a_run, "--resume", "--quiet"))
    assert code == 0 and "the save before it is whole: step 1" in said and model.read_bytes() == before


@pytest.mark.parametrize("verb", [["eval"], ["chat", "--prompt", "hi"], ["rl", "--workers", "1", "--quiet", "--from"]])
@pytest.mark.parametrize("damage", ["empty", "half", "foreign", "config", "tokenizer", "format"])
def test_damaged_models_are_refused(verb, damage, refused, a_run, corpus_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, says = a_run / "rl" / "model.safetensors", "model.safetensors"
    if damage in ("empty", "half"):
        model.write_bytes(b"" if damage == "empty" else model.read_bytes()[:20000])
    elif damage == "foreign":
        model.write_bytes(b"\x80\x04\x95 pickled")
    elif damage == "config":
        says = "config.json"
        (a_run / "rl" / says).write_text("{")
    elif damage == "tokenizer":
        says = "tokenizer.json"
        (a_run / "rl" / says).write_text("{}")
    else:
        says = "config"
        config = a_run / "rl" / "config.json"
        config.write_text(config.read_text().replace('"format": 1', '"format": 2'))
    if verb[0] == "rl":
        refused(*verb, a_run, "--corpus", corpus_folder, says=says)
    else:
        refused(verb[0], a_run, *verb[1:], says=says)


def test_an_out_folder_that_cannot_be_made(refused, tmp_path, corpus_folder):
    (tmp_path / "file").write_text("in the way")
    refused(*tiny(corpus_folder, tmp_path / "file" / "run", "--quiet"), says=["file", "--out"])


def test_a_full_disk(refused, tmp_path, corpus_folder, monkeypatch):
    from minim1.train import checkpoint

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    refused(*tiny(corpus_folder, tmp_path / "run", "--quiet"), says="disk is full")


def test_nan_in_the_loss(refused, tmp_path, corpus_folder, monkeypatch):
    (tmp_path / "poison.py").write_text(
        "from minim1.train.losses import LossOutput, next_token_loss\n"
        "def lm_loss(*args, **totals):\n"
        "    return LossOutput(next_token_loss(*args, **totals).loss * float('nan'))\n"
    )
    monkeypatch.chdir(tmp_path)
    refused(*tiny(corpus_folder, tmp_path / "run", "--quiet", "--part", "lm_loss=poison:lm_loss"), says=["step", "finite"])


def test_a_verb_may_choose_its_exit_code(monkeypatch):
    monkeypatch.setattr(cli, "_doctor", lambda arguments: 1)
    assert cli.main(["doctor"]) == 1


def test_programming_errors_keep_their_traceback(monkeypatch):
    monkeypatch.setattr(cli, "_doctor", lambda arguments: {}["a bug"])
    with pytest.raises(KeyError, match="a bug"):
        cli.main(["doctor"])


# ------------------------------------------------------------------------------------------- Ctrl-C


def test_an_interrupted_run_says_how_to_go_on(call, monkeypatch):
    def stopped(arguments):
        raise Interrupted("sft stopped after step 3 of 9, saved in runs/x/sft")

    monkeypatch.setattr(cli, "_train", stopped)
    code, out, err = call("train", "--out", "my runs/x", "--preset", "nano")
    assert (code, out) == (130, "") and err.count("\n") == 1
    assert "saved in runs/x/sft" in err and "train --out 'my runs/x' --preset nano --resume" in err
    assert call("train", "--resume")[2].count("--resume") == 1


@pytest.mark.parametrize("argv", [["doctor"], ["eval", "x"], ["chat", "x"]])
def test_ctrl_c_elsewhere_is_no_traceback(argv, call, monkeypatch):
    def stopped(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, f"_{argv[0]}", stopped)
    code, out, err = call(*argv)
    assert (code, out) == (130, "") and err.count("\n") == 1
    assert "--resume" not in err  # there is nothing to resume


def environment():
    return {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


@pytest.mark.skipif(os.name != "posix", reason="sends signals to a process group")
def test_ctrl_c_in_a_terminal(tmp_path):
    """Two workers, the signal to both as a terminal sends it: one sentence, exit code 130, and --resume finishes."""
    text = tmp_path / "text"
    text.mkdir()
    for module in ("argparse", "ast", "inspect", "typing", "tarfile", "datetime", "doctest", "optparse"):
        shutil.copy(Path(os.__file__).parent / f"{module}.py", text / f"{module}.txt")
    out = tmp_path / "run"
    command = [sys.executable, "-m", "minim1", "pretrain", "--preset", "smoke", "--corpus", str(text), "--out", str(out),
               "--workers", "2", "--steps", "40", "--json"]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    process = subprocess.Popen(command, start_new_session=True, **pipes)
    log = out / "pretrain" / "metrics.jsonl"
    deadline = time.time() + 120
    while not (log.exists() and log.stat().st_size) and process.poll() is None and time.time() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    last = stderr.strip().splitlines()[-1]
    assert process.returncode == 130 and stdout == "" and "Traceback" not in stderr
    assert "stopped after step" in last and last.endswith("--resume") and str(out) in last
    done = RunFolder(out / "pretrain").saved_step()
    assert 1 <= done < 40
    again = subprocess.run([*command, "--resume"], timeout=120, **pipes)
    assert again.returncode == 0 and "Traceback" not in again.stderr
    assert json.loads(again.stdout)["stages"]["pretrain"]["families"].keys() == {"pair", "add", "sort", "recall"}
    steps = [record["step"] for record in RunFolder(out / "pretrain").metrics()]
    assert steps == list(range(1, 41))


# ------------------------------------------------------------------------------------------- reports


def test_train_prints_json_alone(call, tmp_path, tiny_recipe, corpus_folder, monkeypatch):
    monkeypatch.setitem(recipes.RECIPES, "tiny", lambda seed=0: replace(tiny_recipe, sample_every=1))
    code, out, err = call(*tiny(corpus_folder, tmp_path / "run", "--json"))
    card = json.loads(out)  # samples and progress went elsewhere
    assert code == 0 and list(card["stages"]) == ["pretrain", "sft", "rl"]
    assert "pretrain 1:" in err and "rl 1:" in err
    for stage in card["stages"].values():
        assert set(stage["families"]) == {"pair", "add", "sort", "recall"} and stage["bits_per_byte"] > 0
        assert all({"accuracy", "thinking"} <= score.keys() for score in stage["families"].values())
    assert {"report.json", "report.md"} <= {path.name for path in (tmp_path / "run").iterdir()}
    assert json.loads((tmp_path / "run" / "report.json").read_text()) == card


def test_resuming_a_finished_run_reports_it_again(call, a_run, corpus_folder):
    code, out, err = call(*tiny(corpus_folder, a_run, "--resume", "--quiet"))
    assert code == 0 and err == "" and out.startswith("# Report card: tiny")
    assert "| pair (2 problems) |" in out and "held-out text" in out


def test_stages_one_by_one(call, tiny_run, tmp_path, corpus_folder):
    code, out, err = call("sft", "--from", tiny_run / "pretrain", "--preset", "tiny", "--corpus", corpus_folder,
                          "--out", tmp_path / "run", "--workers", 1, "--steps", 2, "--quiet", "--json")
    assert code == 0 and err == "" and list(json.loads(out)["stages"]) == ["sft"]
    assert RunFolder(tmp_path / "run" / "sft").saved_step() == 2


def test_own_parts_from_the_current_folder(call, tmp_path, corpus_folder, monkeypatch):
    """Also for the installed command, whose sys.path lacks the current folder."""
    (tmp_path / "my_loss.py").write_text(
        "from minim1.train.losses import next_token_loss\ncalls = []\n"
        "def mine(*args, **totals):\n    calls.append(1)\n    return next_token_loss(*args, **totals)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", os.getcwd())])
    code, _, _ = call("pretrain", "--preset", "tiny", "--corpus", corpus_folder, "--out", "run", "--workers", 1, "--steps", 2,
                      "--quiet", "--part", "lm_loss=my_loss:mine")
    assert code == 0 and len(sys.modules["my_loss"].calls) == 2
    assert RunFolder(tmp_path / "run" / "pretrain").settings["parts"] == {"lm_loss": "my_loss:mine"}


LIGHTNING = """\
import os
import minim1
used = []
def lightning(q, k, v, slopes, *, state=None, document_ids=None):
    used.append(os.getpid())
    return minim1.lightning_attention(q, k, v, slopes, state=state, document_ids=document_ids)"""


@pytest.fixture
def work(write_notebook, tmp_path, monkeypatch):
    """We are in a folder whose work/ defines two parts; router is still a stub."""
    monkeypatch.chdir(tmp_path)
    loss = "from minim1 import next_token_loss\ndef lm_loss(*args, **totals):\n    return next_token_loss(*args, **totals)"
    write_notebook(tmp_path / "work" / "04_x.ipynb", LIGHTNING, loss, "def router(*args):\n    raise NotImplementedError('exercise 6.1')")
    return tmp_path / "work"


def test_parts_of_the_learners_notebooks(call, refused, work, corpus_folder, write_notebook):
    """They are said, recorded and resumed with; what the notebooks say no more is refused."""
    first = ["pretrain", "--preset", "tiny", "--corpus", corpus_folder, "--out", "run", "--workers", 1, "--steps", 2]
    code, _, err = call(*first, "--parts", "work/")
    assert code == 0 and "yours in work/: lightning from work/04_x.ipynb, lm_loss from work/04_x.ipynb; all other parts" in err
    recorded = {"lightning": "work/04_x.ipynb:lightning", "lm_loss": "work/04_x.ipynb:lm_loss"}
    assert RunFolder(work.parent / "run" / "pretrain").settings["parts"] == recorded
    code, _, err = call(*first, "--parts", "work", "--resume", "--quiet")
    assert (code, err) == (0, "")
    refused(*first, "--resume", "--quiet", says=["parts.lightning", "work/04_x.ipynb"])
    write_notebook(work / "04_x.ipynb", LIGHTNING.replace("used.append", "used.append("))
    refused(*first, "--parts", "work", "--resume", says="cell 1 does not parse")


def test_a_single_part_goes_before_the_folders(work):
    arguments = cli.parser().parse_args(["train", "--preset", "tiny", "--parts", "work", "--part", "lm_loss=minim1:next_token_loss"])
    assert dict(cli._job(arguments, "cpu").parts) == {"lightning": "work/04_x.ipynb:lightning", "lm_loss": "minim1:next_token_loss"}


def test_the_learners_parts_reach_the_other_workers(tmp_path, work, tiny_recipe):
    """The job carries names, since functions of a notebook cannot be pickled."""
    from minim1 import workers
    from minim1.parts import learners_own
    from minim1.train import pipeline

    job = pipeline.Job(recipe=tiny_recipe, out=str(tmp_path / "run"), stages=("pretrain",), quiet=True,
                       parts=tuple(learners_own("work").items()))
    path = work / "04_x.ipynb"
    path.write_text(path.read_text().replace("used.append(os.getpid())", "open(f'worker-{os.getpid()}', 'w').close()"))
    workers.run(2, pipeline.run, job)
    assert len(list(tmp_path.glob("worker-*"))) == 2


@pytest.mark.parametrize("argv", [["chat", "--prompt", "⟨add⟩1+2=", "--max-new-tokens", 4, "--seed", 1],
                                  ["eval", "--families", "add", "--problems", 2, "--max-new-tokens", 4]])
def test_a_model_talks_with_the_learners_parts(argv, call, work, tiny_run):
    """Only those of the network are named: nothing else is used here."""
    path = work / "04_x.ipynb"
    path.write_text(path.read_text().replace("used.append(os.getpid())", "open('was used', 'w').close()"))
    code, out, err = call(argv[0], tiny_run, *argv[1:], "--parts", "work/")
    assert code == 0 and err == "minim1: yours in work/: lightning from work/04_x.ipynb; all other parts are the package's.\n"
    assert (work.parent / "was used").exists() and call(argv[0], tiny_run, *argv[1:]) == (0, out, "")
    path.unlink()
    assert "yours in work/: none yet" in call(argv[0], tiny_run, *argv[1:], "--parts", "work/")[2]


def test_eval(call, tiny_run):
    code, out, err = call("eval", tiny_run, "--problems", 3, "--max-new-tokens", 6, "--families", "pair", "add", "--json")
    result = json.loads(out)
    assert (code, err) == (0, "") and list(result["families"]) == ["pair", "add"]
    assert result["families"]["pair"]["problems"] == 3 and 0 <= result["families"]["pair"]["accuracy"] <= 1
    code, out, _ = call("eval", tiny_run, "--problems", 3, "--max-new-tokens", 6, "--difficulty", 3, "--budget", 2)
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == ["pair", "add", "sort", "recall"]


def test_chat_with_a_prompt(call, tiny_run):
    first = call("chat", tiny_run, "--prompt", "⟨add⟩1+2=", "--max-new-tokens", 6, "--seed", 3)
    assert first[0] == 0 and first[2] == "" and first[1].endswith("\n") and len(first[1]) > 3
    assert call("chat", tiny_run, "--prompt", "⟨add⟩1+2=", "--max-new-tokens", 6, "--seed", 3) == first
    direct = call("chat", tiny_run, "--prompt", "hello", "--no-think", "--temperature", 0, "--max-new-tokens", 4)
    assert direct[0] == 0 and "[thinking]" not in direct[1]


def test_the_shipped_model_is_there_at_once(call):
    code, out, err = call("chat", "--prompt", "⟨add⟩358+467=", "--temperature", 0)
    assert (code, err) == (0, "") and out.startswith("[thinking] ") and "\n[answer] " in out
    folder = Path(cli.__file__).parent / "shipped"
    assert {"config.json", "model.safetensors", "tokenizer.json", "run.json"} <= {path.name for path in folder.iterdir()}
    for model in (folder, folder / "sft", folder / "pretrain"):
        assert sum(path.stat().st_size for path in model.iterdir() if path.is_file()) <= 5_000_000


def test_a_conversation_ends_with_its_input(call, tiny_run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("/help\n/nonsense\n⟨add⟩1+2=\n"))
    code, out, err = call("chat", tiny_run, "--max-new-tokens", 3)
    assert code == 0 and err == "" and out.count("/quit") == 2 and "/nonsense" in out


def test_output_that_cannot_show_a_character(tiny_run, monkeypatch):
    """A Windows console, or LANG=C: ⟨ and ± must not end in a traceback."""
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", screen)
    assert cli.main(["eval", str(tiny_run), "--problems", "1", "--max-new-tokens", "2", "--families", "add"]) == 0
    screen.flush()
    assert b"of 1 problems" in screen.buffer.getvalue()


@pytest.mark.skipif(os.name != "posix", reason="closes a pipe")
def test_a_closed_pipe_is_no_error():
    command = [sys.executable, "-m", "minim1", "count"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait(60) == 0


def test_count_of_the_real_m1_is_exact(call):
    code, out, err = call("count", "--preset", "m1-456b", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert found["parameters"] == 456089655296 and found["checkpoint_bytes"] == 912210767872
    assert round(found["active_parameters"] / 1e9, 3) == 45.945


def test_count_in_words(call, tiny_run):
    code, out, _ = call("count")
    assert code == 0 and "parameters" in out
    code, own, _ = call("count", "--config", tiny_run / "rl" / "config.json")
    assert code == 0 and own != out


def test_doctor(call, monkeypatch):
    from minim1 import doctor

    monkeypatch.setattr(doctor, "MATMUL_SECONDS", 0.01)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    code, out, err = call("doctor", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "") and found["omp_wait_policy"] == "PASSIVE" and found["versions"]["torch"]
    code, out, _ = call("doctor")
    assert code == 0 and "torch" in out


def test_report(call, a_run):
    (a_run / "report.json").unlink()
    code, out, _ = call("report", a_run, "--json")
    assert code == 0 and json.loads(out) == json.loads((a_run / "report.json").read_text())


@pytest.mark.parametrize("verb", [[], ["train"], ["pretrain"], ["sft"], ["rl"], ["eval"], ["chat"], ["count"], ["doctor"], ["report"],
                                  ["check"], ["progress"], ["lab"], ["build"], ["classroom"]])
def test_every_verb_has_help(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*verb, "--help"])
    assert stop.value.code == 0 and "usage: minim1" in capsys.readouterr().out
