"""How far is the learner? Runs the checks on the notebooks of work/, in a process of their own and with a time limit.

A verdict is kept in `work/.progress.json` as long as nothing that it depends on changes: the definitions in the
notebook, the checks, the version of the package.

The process bounds time and survives crashes; it is no cage: learners' code runs with the rights of who checks it, and may
also forge its own verdict. Each notebook that is not in work/ gets a process of its own, so that it forges no other's. What
comes back, from the process or from the file, is read as data and looked at before it is believed or printed.
"""

import contextlib
import hashlib
import json
import math
import multiprocessing
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from minim1.course import notebooks
from minim1.course.checking import MARKS, Exercise, Result, run_check
from minim1.course.checks import CHAPTERS, find, of_chapter
from minim1.course.comparing import DIGITS, Row
from minim1.course.work import read_json, write_json
from minim1.errors import UserError
from minim1.learner import Notebook, printable
from minim1.workers import start

SEEDS = (0, 1, 2, 3)
SECONDS = 60.0  # for one exercise
START_SECONDS = 300.0  # to import torch, on a slow and busy machine
MOST_BYTES = 1_000_000  # of a verdict, as the process sends it
LONGEST = 4000  # characters of a sentence
NO_VERDICT = (KeyError, TypeError, ValueError, OverflowError, RecursionError)  # of what is read as one
PROCESS = "process"  # layer of what is wrong where there is no verdict: too slow, or the process ended
Task = tuple[Exercise, Notebook | Path]  # the path where the notebook is not there


def known(folder: str | Path | None = None) -> dict[str, str]:
    """Exercise id -> "passed" or "wrong", as far as that was found out and still holds. Runs nothing.

    Args: folder: of the learner's notebooks; default: work/ of the repository.
    """
    store, opened, found = Store(folder or notebooks.root() / "work"), {}, {}
    for exercise_id in store.entries:
        with contextlib.suppress(UserError):  # the notebook is gone, or the exercise
            exercise = find(exercise_id)
            path = _notebook_of(exercise, store.folder)
            opened[path] = opened.get(path) or Notebook(path)
            if result := store.find(exercise, opened[path]):
                found[exercise_id] = result.status
    return found


def select(words: list[str], folder: Path) -> list[Task]:
    """The exercises of chapters ("04"), by their ids ("4.2"), or of a notebook (its path); of no words: all.

    Raises: UserError for what there is none of.
    """
    opened, tasks = {}, {}
    for word in words or CHAPTERS:
        own = Path(word) if word.endswith(".ipynb") else None
        chapter = (own.name if own else word).split("_")[0].zfill(2)
        wanted = [find(word)] if re.fullmatch(r"\d+\.\d+", word) else of_chapter(chapter)
        if not wanted or (own and not own.exists()):
            raise UserError(f"{word!r} is nothing to check: give a chapter ({', '.join(CHAPTERS)}), an exercise such "
                            "as 4.2, or the path of a chapter's notebook")
        path = own or _notebook_of(wanted[0], folder)
        opened[path] = opened.get(path) or (Notebook(path) if path.exists() else path)
        tasks |= {(exercise.id, path): (exercise, opened[path]) for exercise in wanted}
    return list(tasks.values())


def _notebook_of(exercise: Exercise, folder: Path) -> Path:
    return folder / f"{exercise.chapter}_{CHAPTERS[exercise.chapter]}.ipynb"


def verdicts(tasks: list[Task], folder: Path, seconds: float = SECONDS) -> Iterator[Result]:
    """The verdict on each exercise, in order: told by reading, known from before, or found by running its check.

    Args: folder: work/; of other notebooks no verdict is kept; seconds: what takes longer is wrong, the rest goes on.
    """
    store, child, owner = Store(folder), None, None
    try:
        for exercise, notebook in tasks:
            result = _read(exercise, notebook) or store.find(exercise, notebook)
            if result is None:
                before, owner = owner, store.folder if store.ours(exercise, notebook) else notebook.path
                if child is not None and owner != before:
                    child.stop()
                child = child if child is not None and child.process.is_alive() else Child()
                result = from_json(exercise, child.check(exercise, notebook, seconds), notebook)
                if result.layer != PROCESS:  # time and memory may suffice another time
                    store.keep(result, notebook)
            yield result
    finally:
        if child is not None:
            child.stop()


def _read(exercise: Exercise, notebook: Notebook | Path) -> Result | None:
    """The verdict where it takes no running: nothing there, a stub, or a cell that does not parse."""
    if isinstance(notebook, Path):
        place = f"{notebook.parent.name}/{notebook.name}"
        return Result(exercise, "not started", f"{place} is not there; `python3 go.py lab` copies it.")
    try:
        if notebook.written(exercise.name):
            return None
        if where := notebook.where(exercise.name):
            return Result(exercise, "not started", where=where)
    except UserError as error:
        return Result(exercise, "wrong", f"{error}.", "type")
    return Result(exercise, "not started", f"{notebook.label} defines no function `{exercise.name}`.")


# ---------------------------------------------------------------- verdicts that are kept


class Store:
    """`.progress.json` beside the notebooks: the last verdict on each exercise, and a key of what it depends on."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.path = self.folder / ".progress.json"
        self.entries = {}
        for exercise_id, entry in read_json(self.path).items():
            with contextlib.suppress(*NO_VERDICT):  # somebody has edited the file: it is found out again
                self.entries[exercise_id] = verdict(entry) | {"key": _line(entry["key"])}
        self.checks = _checks()

    def find(self, exercise: Exercise, notebook: Notebook) -> Result | None:
        entry = self.entries.get(exercise.id)
        if entry and self.ours(exercise, notebook) and entry["key"] == self._key(exercise, notebook, entry["status"]):
            return from_json(exercise, entry, notebook)
        return None

    def keep(self, result: Result, notebook: Notebook) -> None:
        if not self.ours(result.exercise, notebook):
            return
        key = self._key(result.exercise, notebook, result.status)
        self.entries[result.exercise.id] = verdict(to_json(result)) | {"key": key}
        with contextlib.suppress(OSError):  # nothing is lost where it cannot be written, but time
            write_json(self.path, self.entries)

    def _key(self, exercise: Exercise, notebook: Notebook, status: str) -> str:
        """Changes with what a verdict depends on; one that is not good also on where it stands, as its sentence says."""
        return _hash(self.checks, notebook.source(exercise.name) if status == "passed" else notebook.text)

    def ours(self, exercise: Exercise, notebook: Notebook) -> bool:
        """Not a copy beside it, nor a notebook elsewhere."""
        return notebook.path.resolve() == _notebook_of(exercise, self.folder).resolve()


def to_json(result: Result) -> dict:
    """A verdict as `--json` gives it; a difference that is no number is null."""
    exercise = result.exercise
    rows = [asdict(row) for row in result.rows]
    for row in rows:
        row["difference"] = row["difference"] if math.isfinite(row["difference"]) else None
    said = {name: getattr(result, name) for name in ("status", "layer", "sentence", "where", "said")}
    return {"id": exercise.id, "name": exercise.name, "title": exercise.title, **said, "rows": rows}


def from_json(exercise: Exercise, said: dict, notebook: Notebook) -> Result:
    """The inverse, for the function where it stands now."""
    unknown = {"difference": math.nan}
    rows = tuple(Row(**(row | unknown if row["difference"] is None else row)) for row in said["rows"])
    where = notebook.where(exercise.name)
    return Result(exercise, said["status"], said["sentence"], said["layer"], rows, where, said["said"])


def verdict(said: dict) -> dict:
    """What is to be believed of a verdict that learners can have written: texts on one line, rows that can be drawn.

    Raises: one of NO_VERDICT where it is none.
    """
    texts = {name: _line(said[name]) for name in ("status", "layer", "sentence", "said")}
    rows = [{"name": _line(row["name"]), "grade": _line(row["grade"]), "digits": min(max(int(row["digits"]), 0), DIGITS),
             "difference": None if row["difference"] is None else float(row["difference"])} for row in said["rows"]]
    if texts["status"] not in MARKS:
        raise ValueError(f"unknown status {texts['status']!r}")
    return texts | {"rows": rows}


def _line(text: str) -> str:
    if not isinstance(text, str):
        raise TypeError
    return printable(text[:LONGEST])


def _checks() -> str:
    """Hash of all that checks, and the version of what they check against."""
    course = Path(__file__).parent
    paths = [course / "checking.py", course / "comparing.py", *sorted(course.glob("checks/*.py"))]
    try:
        version = metadata.version("minim1")
    except metadata.PackageNotFoundError:
        version = "source"
    return _hash(version, *(path.read_bytes() for path in paths))


def _hash(*pieces: str | bytes) -> str:
    total = hashlib.sha256()
    for piece in pieces:
        piece = piece if isinstance(piece, bytes) else piece.encode("utf-8", "surrogatepass")
        total.update(len(piece).to_bytes(8, "big") + piece)
    return total.hexdigest()


# ---------------------------------------------------------------- the process in which learners' code runs


class Child:
    """A process that runs checks, one after the other; a check that never ends, or that ends it, ends it alone."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        start([self.process])
        theirs.close()
        if not self.pipe.poll(START_SECONDS):
            self.stop()
            raise RuntimeError(f"the process of the checks did not start within {START_SECONDS:g} s")
        self.pipe.recv()

    def check(self, exercise: Exercise, notebook: Notebook, seconds: float) -> dict:
        """The verdict as `to_json` gives it; its layer is PROCESS where there is none."""
        try:
            self.pipe.send((exercise.id, str(notebook.path)))
            if self.pipe.poll(seconds):
                return verdict(json.loads(self.pipe.recv_bytes(MOST_BYTES)))
            sentence = f"{exercise.name} took longer than {seconds:g} s: is there a loop that never ends?"
        except NO_VERDICT:
            sentence = f"{exercise.name} sent something else than a verdict from the process that it ran in."
        except (EOFError, OSError):
            self.process.join(timeout=5)
            sentence = f"{exercise.name} ended the process that it ran in (exit code {self.process.exitcode})."
        self.stop()
        return to_json(Result(exercise, "wrong", sentence, PROCESS))

    def stop(self) -> None:
        self.process.kill()
        self.process.join()


def _serve(pipe: Connection) -> None:
    """Answer (exercise id, notebook) with a verdict until nobody asks any more. What learners print goes nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (1, 2):
        os.dup2(nowhere, number)
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")
    torch.set_num_threads(1)
    pipe.send("ready")
    while True:
        try:
            exercise_id, path = pipe.recv()
        except EOFError:
            return
        pipe.send_bytes(json.dumps(to_json(_run(find(exercise_id), path))).encode())


def _run(exercise: Exercise, path: str) -> Result:
    try:
        return run_check(exercise, Notebook(path).function(exercise.name), SEEDS)
    except UserError as error:
        return Result(exercise, "wrong", f"{error}.", "type")
    except BaseException as error:  # whatever it is, the other exercises can still be checked
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        return Result(exercise, "wrong", f"the check of {exercise.name} could not go on ({said}).", "check")
