"""work/: what is missing is copied, nothing is ever overwritten, and JupyterLab opens on the repository."""

import json
import os
import re
import sys
from types import ModuleType

import pytest

from minim1 import cli, learner
from minim1.course import notebooks, work
from minim1.errors import UserError


@pytest.fixture
def folder(tmp_path, write_notebook, monkeypatch):
    """A repository with two chapters."""
    for name in ("03_linear", "04_lightning"):
        write_notebook(tmp_path / "exercises" / f"{name}.ipynb", f"def f(): return '{name}'")
        write_notebook(tmp_path / "chapters" / f"{name}.ipynb", "1 + 1")
    monkeypatch.setattr(notebooks, "root", lambda: tmp_path)
    monkeypatch.chdir(tmp_path / "chapters")
    return tmp_path


def everything(folder):
    return {path.name: path.read_bytes() for path in (folder / "work").iterdir() if path.name != work.COPIED}


def test_what_is_missing_is_copied_and_said(folder):
    said = work.prepare(folder)
    assert len(said) == 2 and "work/03_linear.ipynb is your copy" in said[0]
    assert everything(folder) == {path.name: path.read_bytes() for path in (folder / "exercises").iterdir()}
    assert work.prepare(folder) == []


def test_nothing_is_overwritten(folder, write_notebook):
    write_notebook(folder / "work" / "03_linear.ipynb", "mine")
    (folder / "work" / "notes.txt").write_text("mine too")
    before = everything(folder)
    work.prepare(folder)
    assert before.items() <= everything(folder).items() and len(everything(folder)) == 3


def test_newer_exercises_are_announced_and_not_applied(folder, write_notebook):
    work.prepare(folder)
    write_notebook(folder / "work" / "04_lightning.ipynb", "mine")
    assert work.prepare(folder) == []  # what the learner changes is no news
    before = everything(folder)
    write_notebook(folder / "exercises" / "04_lightning.ipynb", "newer")
    [said] = work.prepare(folder)
    assert "exercises/04_lightning.ipynb has changed" in said and "lab --reset 04" in said
    assert everything(folder) == before
    work.reset(folder, "04")
    assert work.prepare(folder) == []
    write_notebook(folder / "exercises" / "03_linear.ipynb", "newer")
    assert "exercises/03_linear.ipynb has changed" in work.prepare(folder)[0]


@pytest.mark.parametrize("text", ["", "{", "[1]"])
def test_a_damaged_record_loses_nothing(folder, text):
    work.prepare(folder)
    (folder / "work" / work.COPIED).write_text(text)
    before = everything(folder)
    assert work.prepare(folder) == [] and everything(folder) == before


@pytest.mark.parametrize("chapter", ["04", "4", "04_lightning", "work/04_lightning.ipynb"])
def test_reset_keeps_the_old_copy_beside_the_new_one(folder, write_notebook, chapter):
    work.prepare(folder)
    for text in ("first", "second"):
        write_notebook(folder / "work" / "04_lightning.ipynb", text)
        said = work.reset(folder, chapter)
        old = re.search(r"work/(04_lightning\.\d{4}-\d\d-\d\d-\d+\.ipynb)", said)[1]
        assert text in (folder / "work" / old).read_text()
        fresh = (folder / "work" / "04_lightning.ipynb").read_bytes()
        assert fresh == (folder / "exercises" / "04_lightning.ipynb").read_bytes()
    assert len(everything(folder)) == 4  # nothing was lost
    counted = [notebook.path.name for notebook in learner.notebooks(folder / "work")]
    assert counted == ["03_linear.ipynb", "04_lightning.ipynb"]


def test_a_folder_that_cannot_be_made_gets_a_sentence(folder):
    (folder / "work").write_text("in the way")
    with pytest.raises(UserError, match="work/03_linear.ipynb could not be written"):
        work.prepare(folder)


def test_reset_without_an_old_copy(folder):
    assert "there was none before" in work.reset(folder, "03") and list(everything(folder)) == ["03_linear.ipynb"]


def test_mistakes_get_a_sentence(folder, tmp_path):
    with pytest.raises(UserError, match="'7'; choose one of 03, 04"):
        work.reset(folder, "7")
    with pytest.raises(UserError, match="holds no notebooks"):
        work.prepare(tmp_path / "elsewhere")


# ---------------------------------------------------------------- the verb


@pytest.fixture
def lab(folder, monkeypatch):
    """lab(*arguments) -> exit code; `lab.started` holds what JupyterLab was started with."""
    started = []
    module = ModuleType("jupyterlab.labapp")
    module.main = lambda argv: started.append((argv, os.getcwd()))
    monkeypatch.setitem(sys.modules, "jupyterlab.labapp", module)
    run = lambda *arguments: cli.main(["lab", *arguments])  # noqa: E731
    run.started = started
    return run


def test_lab_copies_and_opens_the_first_chapter(lab, folder, capsys):
    assert lab("--") == 0
    assert len(everything(folder)) == 2 and "work/04_lightning.ipynb is your copy" in capsys.readouterr().err
    assert lab.started == [(["--LabApp.default_url=/lab/tree/chapters/03_linear.ipynb"], str(folder))]


def test_labs_arguments_go_to_jupyterlab(lab, folder):
    assert lab("--", "--no-browser", "--port=9", "work") == 0
    assert lab.started == [(["--no-browser", "--port=9", "work"], str(folder))]


def test_lab_reset_opens_nothing(lab, folder, capsys):
    assert lab("--reset", "04") == 0 and lab.started == []
    assert list(everything(folder)) == ["04_lightning.ipynb"]
    assert lab("--reset", "nine") == 2 and "'nine'" in capsys.readouterr().err


def test_without_jupyterlab_there_is_a_sentence_and_the_copies(lab, folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jupyterlab.labapp", None)
    assert lab() == 2 and "go.py lab" in capsys.readouterr().err
    assert len(everything(folder)) == 2


def test_the_real_jupyterlab_knows_the_setting():
    labapp = pytest.importorskip("jupyterlab.labapp")
    assert "default_url" in labapp.LabApp.class_trait_names(config=True) and callable(labapp.main)


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.json"
    work.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        work.write_json(path, {"a": object()})
    assert work.read_json(path) == {"a": 1} == json.loads(path.read_text())
