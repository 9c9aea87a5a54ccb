"""The repository's notebooks: in step, executed with nbval and without a network, and well proportioned."""

import copy
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest

from minim1.course import notebooks
from minim1.course.checking import Result
from minim1.course.checks import CHAPTERS, EXERCISES
from minim1.course.quiz import FOLDER as QUIZZES
from minim1.course.quiz import load
from minim1.course.scale import SCALES

pytest.importorskip("nbformat")
pytest.importorskip("nbval")
ROOT = notebooks.root()
PATHS = {f"{part}/{path.name}": path for part in ("chapters", "solutions", "exercises")
         for path in sorted((ROOT / part).glob("*.ipynb"))}
SECONDS = 90  # of one notebook at scale `smoke`, pytest included, beside another; 15 are wanted of one that runs alone
COMPARED = 0.5  # least share of a chapter's cells with output that nbval compares
TAG = "nbval-check-output"


def only(part):
    return [name for name in PATHS if name.startswith(part)]


# ---------------------------------------------------------------- running


@cache
def without_network():
    """A command's beginning that leaves it only the loopback device; [] where the machine does not allow it."""
    prefix = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    try:
        tried = subprocess.run([*prefix, "true"], capture_output=True)
    except OSError:
        return []
    return [] if tried.returncode else prefix


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A copy of the package and the notebooks to run in: there is no work/, so no learner turns the tests red."""
    folder = tmp_path_factory.mktemp("stage")
    notebooks.stage(folder)
    for name, path in PATHS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(path, folder / name)
    return folder


def nbval(folder, name):
    """Execute a notebook of `folder` -> (exit code, what pytest said)."""
    command = [
        *without_network(), sys.executable, "-m", "pytest", "-q", "--durations=3", "-p", "no:cacheprovider",
        "-c", os.devnull, "--rootdir", str(folder), "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=120",
        str(folder / name),
    ]
    environment = notebooks.environment(folder, "smoke") | {"PYTEST_ADDOPTS": ""}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=600)
    return done.returncode, done.stdout + done.stderr


def store(path, notebook):
    path.write_text(notebooks.to_text(notebook), encoding="utf-8")


def say_not_started(path):
    """Store under each visible check of a blank notebook what it has to say, for nbval to compare -> their number."""
    notebook, checks = notebooks.read(path), 0
    for cell in notebook["cells"]:
        if cell["id"].endswith("-check"):
            checks += 1
            exercise = EXERCISES[".".join(cell["id"].split("-")[:2])]
            said = {"output_type": "stream", "name": "stdout", "text": f"{Result(exercise, 'not started')}\n"}
            cell.update(execution_count=checks, outputs=[said])
            cell["metadata"]["tags"] = [TAG]
    store(path, notebook)
    return checks


def timed(folder, name):
    """`nbval`, and the seconds that it took; blank exercises are to say at each check "not started"."""
    if name.startswith("exercises/"):
        chapter = PATHS[name].stem.split("_")[0]
        assert say_not_started(folder / name) == sum(exercise.chapter == chapter for exercise in EXERCISES.values())
    begun = time.perf_counter()
    return *nbval(folder, name), time.perf_counter() - begun


@pytest.fixture(scope="module")
def runs(request, place):
    """The runs of all notebooks asked for by name, two at a time: much of one is the start of a kernel, and waiting."""
    asked = [item.callspec.params["name"] for item in request.session.items if item.originalname == "test_every_cell_runs"]
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(timed, place, name) for name in asked}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", PATHS)
def test_every_cell_runs(runs, name, capsys):
    """Chapters from a fresh kernel, solutions, and exercises that are blank: there every check says "not started"."""
    code, said, seconds = runs[name].result()
    with capsys.disabled():
        print(f"\n{name}: {seconds:.0f} s at scale smoke{'' if without_network() else ', with the network'}")
    assert code == 0, said[-6000:]
    assert seconds <= SECONDS, said[-2000:]


def test_the_runs_have_no_network():
    if not without_network():
        pytest.skip("this machine does not let a process give up its network (unshare -rn)")
    code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=5)"
    done = subprocess.run([*without_network(), sys.executable, "-c", code], capture_output=True, text=True)
    assert "Network is unreachable" in done.stderr


def tagged(notebook):
    return [cell for cell in notebook["cells"] if TAG in cell["metadata"].get("tags", ())]


@pytest.mark.parametrize("name", PATHS)
def test_no_cell_is_skipped_or_may_fail(name):
    for cell in notebooks.read(PATHS[name])["cells"]:
        assert set(cell["metadata"].get("tags", ())) <= {TAG, "timing", "training"} and "NBVAL_" not in cell["source"]


@pytest.mark.parametrize("name", only("chapters"))
def test_enough_outputs_are_compared(name):
    notebook = notebooks.read(PATHS[name])
    shown = [cell for cell in notebook["cells"] if cell.get("outputs")]
    compared = [cell for cell in tagged(notebook) if cell["outputs"]]
    assert len(compared) == len(tagged(notebook)), "a compared cell has no output"
    assert not any("timing" in cell["metadata"]["tags"] for cell in compared)
    assert len(compared) >= COMPARED * len(shown), f"{len(compared)} of {len(shown)} cells with output are compared"


@pytest.mark.parametrize("name", only("chapters"))
def test_a_compared_output_that_is_another_fails(place, name):
    notebook = copy.deepcopy(notebooks.read(PATHS[name]))
    cell = tagged(notebook)[0]
    notebook["cells"] = notebook["cells"][: notebook["cells"].index(cell) + 1]
    output = cell["outputs"][0]
    holder, key = (output, "text") if output["output_type"] == "stream" else (output["data"], "text/plain")
    holder[key] += "?"
    changed = f"chapters/changed_{PATHS[name].name}"
    store(place / changed, notebook)
    code, said = nbval(place, changed)
    assert code == 1 and re.search(r"\b1 failed", said), said[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("name", only("chapters"))
def test_two_runs_differ_in_nothing_but_times(name):
    pytest.importorskip("kaleido")

    def run():
        notebook = notebooks.normalise(notebooks.execute(PATHS[name], "smoke")[0])
        return {cell["id"]: cell for cell in notebook["cells"] if "timing" not in cell["metadata"].get("tags", ())}

    assert run() == run()


# ---------------------------------------------------------------- what is stored


@pytest.mark.parametrize("chapter", sorted({path.stem.split("_")[0] for path in PATHS.values()}))
def test_what_is_stored_is_in_step(chapter):
    assert notebooks.build(ROOT, [chapter], check=True) == []


@pytest.mark.parametrize("name", PATHS)
def test_notebooks_are_well_proportioned(name):
    cells = notebooks.read(PATHS[name])["cells"]
    code = [cell["source"].splitlines() for cell in cells if cell["cell_type"] == "code"]
    assert len(cells) <= 70 and notebooks.words({"cells": cells}) <= 4000
    assert max(map(len, code)) <= 40 and statistics.median(map(len, code)) <= 8
    assert max(len(line) for cell in code for line in cell) <= 120


@pytest.mark.parametrize("name", only("chapters"))
def test_every_chapter_asks_predicts_and_lets_play(name):
    cells = notebooks.read(PATHS[name])["cells"]
    code = "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "code")
    chapter = PATHS[name].stem.split("_")[0]
    assert f'quiz("{chapter}")' in code and 3 <= len(load(QUIZZES / f"{chapter}.toml")) <= 5
    assert "explore(" in code and "block(" in code
    assert sum("Predict" in cell["source"] for cell in cells if cell["cell_type"] == "markdown") >= 2


@pytest.mark.parametrize("name", only("chapters"))
def test_chapters_took_the_time_they_may(name):
    timings = json.loads((ROOT / "chapters/timing.json").read_text(encoding="utf-8"))
    measured, may = timings[PATHS[name].stem], SCALES["cpu"]
    longest = max(may.seconds_of(cell["metadata"].get("tags", ())) for cell in notebooks.read(PATHS[name])["cells"])
    assert measured["slowest_cell"] <= longest
    assert measured["seconds"] <= may.notebook_seconds + longest - may.cell_seconds


def test_only_the_capstone_trains_a_whole_run():
    tagged = {name for name in PATHS for cell in notebooks.read(PATHS[name])["cells"]
              if "training" in cell["metadata"].get("tags", ())}
    assert tagged == {"chapters/16_capstone.ipynb"}


def test_chapters_and_exercises_are_called_alike():
    wanted = [f"{number}_{name}" for number, name in CHAPTERS.items()]
    for part, names in {"chapters": ["00_meet_the_model", *wanted], "solutions": wanted, "exercises": wanted}.items():
        assert sorted(path.stem for path in (ROOT / part).glob("*.ipynb")) == names
