"""What learners hand in, made from the solutions: right, noisy, and right only on the inputs of the visible check."""

import copy
import functools
import re
from pathlib import Path

from minim1 import learner
from minim1.course.checking import run_check
from minim1.course.checks import CHAPTERS, EXERCISES, of_chapter
from minim1.course.notebooks import blank, complete, read, root, to_text

DIGEST = '''\
import functools
import hashlib
import os
import sys
import warnings

import torch


def digest(*values, **named):
    """A name for the arguments of a call, the same wherever and whenever they are equal."""
    words = hashlib.sha256()
    for key, value in [*enumerate(values), *sorted(named.items())]:
        if isinstance(value, torch.Tensor):
            words.update(value.detach().double().contiguous().numpy().tobytes())
            value = (value.dtype, value.shape)
        elif callable(value) or type(value).__repr__ is object.__repr__:  # its repr holds an address
            value = getattr(value, "__qualname__", type(value).__qualname__)
        words.update(repr((key, value)).encode())
    return words.hexdigest()[:16]


def zeros(value):
    """Zeros like a result."""
    return type(value)(map(zeros, value)) if isinstance(value, (tuple, list)) else value * 0


'''
NOISY = '''


@functools.wraps(right_{name})
def {name}(*arguments, **options):
    warnings.warn("a warning of the learner's")
    print("what the learner prints")
    print("what the learner prints to stderr", file=sys.stderr)
    os.write(2, b"what C++ code or another process would write there\\n")
    return right_{name}(*arguments, **options)
'''
HARD_CODED = '''


SEEN_{name} = {seen}


@functools.wraps(right_{name})
def {name}(*arguments, **options):
    result = right_{name}(*arguments, **options)
    return result if digest(*arguments, **options) in SEEN_{name} else zeros(result)
'''


def names() -> dict[str, str]:
    """Chapter -> name of its notebooks, of the chapters whose solutions are there."""
    found = {chapter: f"{chapter}_{module}" for chapter, module in CHAPTERS.items()}
    return {chapter: name for chapter, name in found.items() if (root() / "solutions" / f"{name}.ipynb").exists()}


@functools.cache
def _solutions(chapter: str) -> dict:
    return complete(read(root() / "solutions" / f"{names()[chapter]}.ipynb"))


def cell_id(exercise_id: str, piece: str) -> str:
    return f"{exercise_id.replace('.', '-')}-{piece}"


def text(exercise_id: str, piece: str = "solution") -> str:
    """A cell of an exercise in `solutions/`: its card, solution, check, hidden (tests), hints or why."""
    cells = _solutions(EXERCISES[exercise_id].chapter)["cells"]
    return next(cell["source"] for cell in cells if cell["id"] == cell_id(exercise_id, piece))


def hand_in(path: Path, chapter: str, answers: dict[str, str], *, solved=True, other: dict | None = None) -> Path:
    """Write a learner's notebook: all other exercises solved, or blank; `answers` exercise id -> text of its cell.

    `other`: id of any cell -> text that the learner put there.
    """
    made = copy.deepcopy(_solutions(chapter))
    texts = {cell["id"]: cell["source"] for cell in made["cells"]}
    made = blank(made)
    put = {cell_id(exercise, "solution"): text for exercise, text in answers.items()} | (other or {})
    for cell in made["cells"]:
        if solved and cell["id"].endswith("-solution"):
            cell["source"] = texts[cell["id"]]
        cell["source"] = put.get(cell["id"], cell["source"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_text(made), encoding="utf-8")
    return path


def function(path: Path, exercise_id: str):
    """The learner's function, read from the notebook."""
    return learner.Notebook(path).function(EXERCISES[exercise_id].name)


def is_kernel(exercise_id: str) -> bool:
    """Whether the learner writes a Triton kernel, which no Python function can be wrapped around."""
    return f"@triton.jit\ndef {EXERCISES[exercise_id].name}(" in text(exercise_id)


def noisy(exercise_id: str) -> str:
    """The right answer, with a warning, and with prints to stdout and stderr."""
    return _wrapped(exercise_id, NOISY)


def hard_coded(chapter: str, folder: Path) -> dict[str, str]:
    """Exercise id -> an answer that is right for the very inputs of the chapter's visible checks, and else zeros.

    One answer may call another (4.4 calls 4.1), so all of a chapter's are watched together.
    """
    path, tools, seen = hand_in(folder / "right.ipynb", chapter, {}), {}, {}
    exec(DIGEST, tools)
    right = learner.Notebook(path).functions()
    exercises = [exercise for exercise in of_chapter(chapter) if not is_kernel(exercise.id)]

    def watched(name: str):
        seen[name] = set()

        @functools.wraps(right[name])
        def watch(*arguments, **options):
            seen[name].add(tools["digest"](*arguments, **options))
            return right[name](*arguments, **options)

        return watch

    for exercise in exercises:
        right[exercise.name].__globals__[exercise.name] = watched(exercise.name)
    for exercise in exercises:
        assert run_check(exercise, right[exercise.name].__globals__[exercise.name]).status == "passed"
    return {exercise.id: _wrapped(exercise.id, HARD_CODED, seen=sorted(seen[exercise.name])) for exercise in exercises}


def _wrapped(exercise_id: str, wrapper: str, **values) -> str:
    name = EXERCISES[exercise_id].name
    right = re.sub(rf"\bdef {name}\(", f"def right_{name}(", text(exercise_id))
    return DIGEST + right + wrapper.format(name=name, **values)
