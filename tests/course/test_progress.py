"""`check` and `progress`: verdicts on work/, whatever the learner's code does, and until when a kept one holds."""

import json

import pytest

from minim1 import cli
from minim1.course import notebooks, progress
from minim1.course.checking import Result
from minim1.course.checks import CHAPTERS, EXERCISES, find, of_chapter
from minim1.course.comparing import Row

STUB = 'def {}(*args, **options):\n    """Doc."""\n    raise NotImplementedError("exercise {}")'
QUADRATIC = """\
def masked_quadratic(q, k, v, slopes):
    print("noise"); warnings.warn("noise"); sys.stderr.write("noise"); os.write(1, b"noise")
    i = torch.arange(q.shape[1])
    decay = torch.exp(-slopes[:, None, None] * (i[:, None] - i).clamp(min=0)).tril()
    return torch.einsum("bthd,bshd,hts,bshe->bthe", q, k, decay.to(q.dtype), v)"""
HALF_LIFE = "def half_life(slopes, fraction=0.5):\n    return -math.log(fraction) / slopes"
IMPORTS = "import math, os, sys, warnings\nimport torch"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A repository whose work/ is empty."""
    monkeypatch.setattr(notebooks, "root", lambda: tmp_path)
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def write(folder, write_notebook):
    """write("03", IMPORTS, QUADRATIC, ...): a chapter's notebook; exercises that no cell defines are stubs."""

    def write(chapter, *cells):
        defined = "\n".join(cells)
        stubs = [STUB.format(e.name, e.id) for e in of_chapter(chapter) if f"def {e.name}(" not in defined]
        return write_notebook(folder / f"{chapter}_{CHAPTERS[chapter]}.ipynb", *cells, *stubs)

    return write


@pytest.fixture
def call(capfd):
    """call(*argv) -> (exit code, stdout, stderr), with what child processes write."""
    def run(*argv):
        code = cli.main([str(word) for word in argv])
        shown = capfd.readouterr()
        return code, shown.out, shown.err

    return run


class Counted:
    """Instead of the process: passes everything, and counts."""

    asked: list[str] = []
    layer = ""

    def __init__(self):
        self.process = self

    def is_alive(self):
        return True

    def check(self, exercise, notebook, seconds):
        self.asked.append(exercise.id)
        status = "wrong" if "wrong" in notebook.source(exercise.name) else "passed"
        rows = (Row("output", "exact", 7, 0.0), Row("gradient", "off", 0, float("inf")))
        return progress.to_json(Result(exercise, status, "why." if status == "wrong" else "", self.layer, rows))

    def stop(self):
        pass


@pytest.fixture
def asked(monkeypatch):
    """The exercises whose check was run since the list was last cleared."""
    monkeypatch.setattr(progress, "Child", Counted)
    Counted.asked.clear()
    return Counted.asked


# ---------------------------------------------------------------- in a process of their own


def test_whatever_the_learners_code_does_the_rest_goes_on(write, call, folder):
    """It prints, warns, calls sys.exit, never ends, ends the process; stdout is JSON and nothing else."""
    write("03", IMPORTS, QUADRATIC, "def recurrent(*args, **options):\n    while True: pass",
          "def decay_slopes(*args, **options):\n    sys.exit(0)", "def half_life(*args, **options):\n    os._exit(7)")
    code, out, err = call("check", "03", "--json", "--seconds", 3)
    found = json.loads(out)
    by_id = {entry["id"]: entry for entry in found["exercises"]}
    assert code == 1 and err == "" and (found["passed"], found["wrong"], found["not started"]) == (1, 3, 0)
    assert by_id["3.1"]["status"] == "passed" and by_id["3.1"]["said"] and by_id["3.1"]["rows"]
    assert "took longer than 3 s" in by_id["3.2"]["sentence"] and "SystemExit" in by_id["3.3"]["sentence"]
    assert "ended the process" in by_id["3.4"]["sentence"] and "exit code 7" in by_id["3.4"]["sentence"]
    assert by_id["3.4"]["where"] == "work/03_linear_attention.ipynb, cell 5, line 1"
    assert progress.known(folder).keys() == {"3.1", "3.3"}  # time and memory may suffice another time


def test_what_is_right_passes_and_a_computed_global_is_explained(write, call):
    write("03", IMPORTS, "limit = min(3, 4)", HALF_LIFE, QUADRATIC.replace("q.shape[1]", "limit"))
    code, out, _ = call("check", "3.4")
    assert code == 0 and "✓ 3.4 half_life: passed [work/03_linear_attention.ipynb, cell 3, line 1]" in out
    code, out, _ = call("check", "3.1", "3.4")
    assert code == 1 and "`limit` is computed in cell 2" in out and "make it an argument" in out
    assert out.endswith("1 of 2 passed, 1 wrong, 0 not started\n")


def test_a_definition_that_cannot_be_executed_is_wrong(write, call):
    write("03", "def half_life(slopes, fraction=absent): pass")
    assert "`half_life` is not there" in call("check", "3.4")[1]


def test_the_cases_are_the_graded_ones(write, monkeypatch):
    path = write("03", IMPORTS, HALF_LIFE)
    monkeypatch.setattr(progress, "run_check", lambda exercise, function, seeds: (function.__name__, seeds))
    assert progress._run(find("3.4"), str(path)) == ("half_life", (0, 1, 2, 3))


# ---------------------------------------------------------------- what takes no running


def test_a_blank_notebook_is_not_started_and_nothing_runs(write, call, asked):
    write("03"), write("04")
    code, out, err = call("check")
    assert code == 1 and err == "" and asked == [] and "0 of 10 passed, 0 wrong, 10 not started" in out
    assert "○ 4.2 inter_block: not started [work/04_lightning_attention.ipynb, cell 2, line 1]" in out


def test_a_cell_that_does_not_parse_and_one_that_is_gone(write, call, asked, folder, write_notebook):
    write_notebook(folder / "03_linear_attention.ipynb", "def recurrent(:", "def scratch(:")
    code, out, _ = call("check", "03", "--json")
    by_id = {entry["id"]: entry for entry in json.loads(out)["exercises"]}
    assert code == 1 and asked == [] and len(json.loads(out)["problems"]) == 2
    assert by_id["3.2"]["status"] == "wrong" and "cell 1 does not parse" in by_id["3.2"]["sentence"]
    assert by_id["3.1"]["status"] == "not started"
    assert "defines no function `masked_quadratic`" in by_id["3.1"]["sentence"]
    assert "cell 2 does not parse" in call("check", "03")[1]


@pytest.mark.parametrize("argv, says", [
    (["19"], ["'19'", "03, 04"]), (["chapter"], "'chapter'"), (["4.9"], "4.9"),
    (["nowhere/04_x.ipynb"], "nowhere/04_x.ipynb"),
    (["tests/19_x.ipynb"], "19_x.ipynb"), (["03"], ["03_linear_attention.ipynb", "go.py lab"]),
    (["04", "--seconds", "0"], "--seconds"), (["04", "--seconds", "inf"], "--seconds"),
])
def test_mistakes_get_one_sentence(argv, says, call, write):
    write("04")
    code, out, err = call("check", *argv)
    assert (code, out) == (2, "") and err.startswith("minim1: ") and err.count("\n") == 1
    for word in [says] if isinstance(says, str) else says:
        assert word in err


def test_without_words_it_is_what_is_there_that_is_checked(write, call):
    """New chapters must not stop those who have not copied them yet."""
    code, _, err = call("check")
    assert code == 2 and "go.py lab" in err
    write("04")
    code, out, _ = call("check")
    assert code == 1 and "0 of 6 passed" in out


def test_what_can_be_asked_for(write, folder, tmp_path, write_notebook):
    write("03"), write("04")
    ids = lambda *words: [exercise.id for exercise, _ in progress.select(list(words), folder)]  # noqa: E731
    assert ids("4") == ids("04") == ids("04_lightning_attention") == [f"4.{n}" for n in range(1, 7)]
    assert ids("4.2", "3.1", "04") == ["4.2", "3.1", "4.1", "4.3", "4.4", "4.5", "4.6"]
    assert ids() == list(EXERCISES)
    path = write_notebook(tmp_path / "solutions" / "04_lightning_attention.ipynb", "def combine(): pass")
    [*_, (exercise, notebook)] = progress.select([str(path)], folder)
    assert exercise.id == "4.6" and notebook.path == path


# ---------------------------------------------------------------- verdicts that are kept


def test_a_verdict_is_kept_until_what_it_depends_on_changes(write, call, asked, folder, monkeypatch):
    cells = [IMPORTS, "LN2 = 0.7", "def half_life(slopes, fraction=0.5):\n    return LN2 / slopes", QUADRATIC]
    for change, again in [
        (lambda: write("03", *cells), ["3.1", "3.4"]),
        (lambda: None, []),
        (lambda: write("03", "# A title", *cells, "def scratch(): pass"), []),  # where it stands does not matter
        (lambda: write("03", *cells[:3], QUADRATIC.replace("noise", "other")), ["3.1"]),
        (lambda: write("03", IMPORTS, "LN2 = 0.6", *cells[2:]), ["3.1", "3.4"]),  # 3.1: back again
        (lambda: monkeypatch.setattr(progress, "_checks", lambda: "others"), ["3.1", "3.4"]),
        (lambda: (folder / ".progress.json").write_text('{"3.1": 5, "3.4": {}}'), ["3.1", "3.4"]),
        (lambda: (folder / ".progress.json").write_text("{"), ["3.1", "3.4"]),
    ]:
        change()
        assert progress.known(folder).keys() == {"3.1", "3.4"} - set(again)
        asked.clear()
        code, out, _ = call("check", "03", "--json")
        assert asked == again and json.loads(out)["passed"] == 2
        assert progress.known(folder) == {"3.1": "passed", "3.4": "passed"}


def test_a_kept_verdict_is_told_as_the_first_time(write, call, asked):
    write("03", HALF_LIFE)
    first, again = call("check", "3.4"), call("check", "3.4")
    assert first == again and asked == ["3.4"] and "exact  max difference 0.0e+00" in first[1]
    moved = write("03", "# A title", HALF_LIFE)
    assert moved and "cell 2, line 1" in call("check", "3.4")[1] and asked == ["3.4"]
    json.loads(call("check", "3.4", "--json")[1], parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_what_is_wrong_is_run_again_when_its_cell_moves(write, call, asked, folder):
    wrong = HALF_LIFE.replace("return", "wrong = 1; return")
    write("03", wrong)
    call("check", "3.4"), call("check", "3.4")
    assert asked == ["3.4"] and progress.known(folder) == {"3.4": "wrong"}
    write("03", "# A title", wrong)  # its sentence may name a cell
    assert progress.known(folder) == {}
    call("check", "3.4")
    assert asked == ["3.4", "3.4"]


def test_verdicts_on_other_notebooks_are_not_kept(call, asked, folder, tmp_path, write_notebook):
    """Nor those on an old copy that `lab --reset` left in work/."""
    elsewhere = write_notebook(tmp_path / "solutions" / "03_linear_attention.ipynb", HALF_LIFE)
    old = write_notebook(folder / "03_linear_attention.2026-11-21-1.ipynb", HALF_LIFE)
    for _ in range(2):
        assert call("check", elsewhere, old)[0] == 1  # of each, the others are not there
    assert asked == ["3.4"] * 4 and list(elsewhere.parent.iterdir()) == [elsewhere] and list(folder.iterdir()) == [old]


def test_a_verdict_that_cannot_be_kept_is_given(write, call, asked, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(progress, "write_json", full)
    write("03", HALF_LIFE)
    assert call("check", "3.4")[0] == call("check", "3.4")[0] == 0 and asked == ["3.4", "3.4"]


def test_known_needs_no_folder(tmp_path):
    assert progress.known(tmp_path / "none") == {}


def test_every_source_of_a_check_counts(monkeypatch, tmp_path):
    """The hash covers the engine, what compares, and the bodies."""
    seen = []
    monkeypatch.setattr(progress, "_hash", lambda *pieces: seen.extend(pieces))
    progress._checks()
    text = b"".join(piece for piece in seen if isinstance(piece, bytes))
    for definition in (b"def run_check", b"def compare", b"def lightning(probe", b"def masked_quadratic(probe"):
        assert definition in text


# ---------------------------------------------------------------- progress


def test_progress_shows_exercises_and_parts(write, call, asked):
    write("03", HALF_LIFE)
    write("04", "def lightning(q, k, v, slopes, **options):\n    wrong = 1", "def router(x): return 1")
    code, out, err = call("progress")
    assert (code, err) == (0, "") and asked == ["3.4", "4.4"]
    assert "03 linear attention: 1 of 4 done" in out and "04 lightning attention: 0 of 6 done" in out
    assert "✓ 3.4 half_life          done\n" in out and "✗ 4.4 lightning          wrong: why.\n" in out
    assert "2 of 13 are yours" in out and "  attention     minim1        minim1.model.softmax\n" in out
    assert "  lightning     yours, wrong  work/04_lightning_attention.ipynb, cell 1, line 1\n" in out
    assert "  router        yours         work/04_lightning_attention.ipynb, cell 2, line 1\n" in out
    code, out, err = call("progress", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "") and len(found["exercises"]) == len(EXERCISES)
    assert found["parts"][0] == {
        "part": "lightning", "yours": True, "where": "work/04_lightning_attention.ipynb, cell 1, line 1",
        "exercise": "4.4", "status": "wrong",
    }


def test_progress_never_fails(call, asked, folder, write):
    write("04", "def lightning(:")
    code, out, _ = call("progress")
    assert code == 0 and out.count("cell 1 does not parse") >= 1 and "0 of 13 are yours" in out
    assert "○ 3.1 masked_quadratic   not started: " in out and "go.py lab" in out  # chapter 03 is not there
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    code, out, _ = call("progress")
    assert code == 0 and "0 of 6 done" in out and "0 of 13 are yours" in out


def test_every_part_with_an_exercise_is_a_field_of_parts():
    from dataclasses import fields

    from minim1.parts import Parts

    parts = {exercise.part: exercise.name for chapter in CHAPTERS for exercise in of_chapter(chapter) if exercise.part}
    assert parts.keys() <= {field.name for field in fields(Parts)}
    assert all(name == ("reward" if part == "rewards" else part) for part, name in parts.items())
    assert find("4.4").part == "lightning"
