"""What goes wrong around a run ends in one sentence and in a folder from which `--resume` goes on."""

import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch

from minim1 import cli
from minim1.errors import UserError
from minim1.parts import Parts
from minim1.train import pipeline
from minim1.train.checkpoint import RunFolder, load
from minim1.train.rl import RLTrainer
from minim1.train.settings import OptimConfig, RLConfig

posix = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")


@pytest.fixture
def options(corpus_folder, tiny_recipe, tmp_path):
    """Of a run of six steps that is saved after every third."""
    tiny_recipe.model.save(tmp_path / "config.json")
    return ["pretrain", "--preset", "smoke", "--config", str(tmp_path / "config.json"), "--corpus", str(corpus_folder),
            "--out", str(tmp_path / "run"), "--workers", "1", "--quiet"]


@pytest.fixture
def start(options):
    """start(*options, **of Popen): pretraining as a user starts it, in another process; all are ended afterwards."""
    begun = []

    def popen(*more, **how):
        command = [sys.executable, "-m", "minim1", *options, *more]
        begun.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how))
        return begun[-1]

    yield popen
    for process in begun:
        process.kill()
        process.communicate()


def ended(process, code: int) -> str:
    """The last line that minim1 said in a process, after it ended with this code."""
    said = process.communicate(timeout=120)[1]
    assert process.returncode == code, said[-2000:]
    assert code == 1 or "Traceback" not in said
    return "" if code == 0 else [line for line in re.split(r"[\n\r]", said) if line.startswith("minim1: ")][-1]


def wait_for_a_save(process, folder, step: int = 1) -> None:
    """Until the run has saved; its file is only ever replaced, so that reading it meanwhile is safe."""
    deadline = time.monotonic() + 90
    while (RunFolder(folder).saved_step() or 0) < step:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "nothing was saved in 90 seconds"
        time.sleep(0.05)


@posix
@pytest.mark.parametrize("limit", [120_000, 20_000])
def test_a_disk_that_is_full(start, tmp_path, limit):
    """The system itself refuses to write beyond a limit: to the tokenizer, or to the first save."""
    import resource

    def full() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    said = ended(start(preexec_fn=full), 2)
    assert said.startswith("minim1: could not write ") and "saved before is intact" in said
    assert not list((tmp_path / "run").rglob("*.part"))
    again = ["--resume"] if (tmp_path / "run" / "pretrain" / "run.json").exists() else []
    ended(start(*again), 0)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="a folder that nobody can write to")
def test_a_folder_that_cannot_be_written(start):
    assert "cannot create the run folder /proc/self/run" in ended(start("--out", "/proc/self/run"), 2)


@posix
def test_two_runs_in_one_folder_and_a_signal_from_the_machine(start, tmp_path):
    """The second is refused at once and changes nothing; SIGTERM, as from a cluster, saves like Ctrl-C."""
    first = start("--steps", "5000")
    wait_for_a_save(first, tmp_path / "run" / "pretrain")
    second = start("--steps", "5000", "--resume")
    assert f"another run is writing into {tmp_path / 'run'}" in ended(second, 2)
    assert first.poll() is None
    first.send_signal(signal.SIGTERM)
    assert "pretrain stopped after step" in ended(first, 130)
    folder = tmp_path / "run" / "pretrain"
    wait_for_a_save(start("--steps", "5000", "--resume"), folder, RunFolder(folder).saved_step() + 3)


@posix
@pytest.mark.parametrize("whom", ["the other worker", "the first worker"])
def test_a_worker_that_dies(start, tmp_path, whom):
    run = start("--steps", "5000", "--workers", "2")
    folder = tmp_path / "run" / "pretrain"
    wait_for_a_save(run, folder)
    others = [p for p in psutil.Process(run.pid).children(recursive=True) if "spawn_main" in " ".join(p.cmdline())]
    assert others
    if whom == "the other worker":
        others[0].kill()
        said = ended(run, 2)
        assert "worker 1 of 2 was ended from outside (signal 9)" in said and "--resume" in said
    else:
        run.kill()
    assert psutil.wait_procs(others, timeout=20)[1] == [], "nobody is left behind"
    wait_for_a_save(start("--steps", "5000", "--resume"), folder, RunFolder(folder).saved_step() + 3)


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")])
def test_memory_that_ends_at_the_evaluation(options, tmp_path, monkeypatch, capsys, error):
    """What was trained is saved before it is evaluated."""
    def failing(*_, **__):
        raise error

    monkeypatch.setattr(pipeline, "evaluate", failing)
    assert cli.main(options) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "memory of this machine is not enough" in said and "--resume" in said
    assert RunFolder(tmp_path / "run" / "pretrain").saved_step() == 6
    monkeypatch.undo()
    assert cli.main([*options, "--resume"]) == 0 and load(tmp_path / "run").run["stage"] == "pretrain"


def test_what_torch_says_when_there_is_no_memory_is_known():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**50)
    assert cli._out_of_memory(error.value) and not cli._out_of_memory(RuntimeError("shapes do not fit"))


def test_a_reward_that_raises_stops_the_run_with_its_traceback(make_model, tokenizer, tmp_path):
    """Only an answer that cannot be read scores 0: a mistake in the reward itself must not look like wrong answers."""
    calls = []

    def reward(prompts, completions, **columns):
        calls.append(len(completions))
        if len(calls) == 3:
            raise KeyError("a mistake in the reward")
        return [float(len(text) % 2) for text in completions]

    def trainer():
        config = RLConfig(
            steps=5, prompts_per_rollout=2, samples_per_prompt=3, updates_per_rollout=2, max_new_tokens=8, overlong_buffer=0,
            save_every=1, optim=OptimConfig(learning_rate=1e-3),
        )
        run = RunFolder(tmp_path)
        if run.saved_step() is None:
            run.create({"stage": "rl"}, tokenizer)
        return RLTrainer(make_model(), tokenizer, config, parts=Parts(rewards=(reward,)), run=run, quiet=True)

    with pytest.raises(KeyError, match="a mistake in the reward"):
        trainer().fit()
    assert RunFolder(tmp_path).saved_step() == 2
    trainer().fit()
    assert RunFolder(tmp_path).saved_step() == 5


def test_a_lock_is_let_go_of(tmp_path):
    run = RunFolder(tmp_path)
    with run.lock():
        with pytest.raises(UserError, match="another run"):
            run.lock()
    with run.lock():
        pass
