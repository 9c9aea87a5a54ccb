"""Plausible wrong solutions of every exercise, and how many of them each check rejects: `python3 go.py mutants`.

A mutant is a patch of the exercise's solution, or a function of its own. It stands in the solution notebook where the
solution stood, so that it sees the same imports and helpers.
"""

import contextlib
import copy
import importlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from minim1 import learner
from minim1.course.checking import Result, run_check
from minim1.course.checks import CHAPTERS, find
from minim1.errors import UserError

SOLUTIONS = Path(__file__).resolve().parents[2] / "solutions"
SEEDS = (0, 1, 2, 3)  # as graded: the visible case and the hidden ones


@dataclass(frozen=True)
class Mutant:
    """A mistake: `old` in the solution's cell becomes `new`; or `source` is the whole function.

    `argued` says, for a mutant that may survive, why it is no mistake that a check could see.
    """

    name: str
    old: str = ""
    new: str = ""
    source: str = ""
    argued: str = ""

    def apply(self, solution: str) -> str:
        if self.source:
            return self.source
        if solution.count(self.old) != 1 or not self.old:
            raise UserError(f"mutant {self.name!r}: its `old` text {self.old!r} occurs {solution.count(self.old)} times in the "
                            "solution; it must occur once")
        return solution.replace(self.old, self.new)


def mutants_of(exercise_id: str) -> list[Mutant]:
    """The mutants of an exercise; of one that has none, none."""
    module = importlib.import_module(f"tests.mutants.chapter_{find(exercise_id).chapter}")
    return module.MUTANTS.get(exercise_id, [])


def solution_notebook(exercise_id: str) -> dict:
    chapter = find(exercise_id).chapter
    return json.loads((SOLUTIONS / f"{chapter}_{CHAPTERS[chapter]}.ipynb").read_text(encoding="utf-8"))


def solution_cell(notebook: dict, exercise_id: str) -> dict:
    """The cell that holds the solution of an exercise."""
    wanted = f"{exercise_id.replace('.', '-')}-solution"  # as the builder names it
    return next(cell for cell in notebook["cells"] if cell["id"] == wanted)


def run(exercise_id: str, mutant: Mutant, notebook: dict) -> Result:
    """The check's verdict on a mutant."""
    notebook = copy.deepcopy(notebook)
    cell = solution_cell(notebook, exercise_id)
    cell["source"] = mutant.apply("".join(cell["source"]))
    function = learner.functions(notebook)[find(exercise_id).name]
    with contextlib.redirect_stdout(io.StringIO()):
        return run_check(find(exercise_id), function, SEEDS)


def verdicts(exercise_ids: list[str]) -> Iterator[tuple[str, list[tuple[Mutant, Result]]]]:
    torch.set_num_threads(1)
    for exercise_id in exercise_ids:
        find(exercise_id)
        notebook = solution_notebook(exercise_id)
        yield exercise_id, [(mutant, run(exercise_id, mutant, notebook)) for mutant in mutants_of(exercise_id)]


def summary(exercise_id: str, found: list[tuple[Mutant, Result]]) -> dict:
    """One exercise as `go.py mutants --json` gives it."""
    killed = [(mutant, result) for mutant, result in found if result.status == "wrong"]
    return {
        "id": exercise_id, "mutants": len(found), "killed": len(killed),
        "survivors": [{"name": m.name, "argued": m.argued} for m, result in found if result.status != "wrong"],
        "sentences": {m.name: result.sentence for m, result in killed},
    }


def on_the_cards(exercise_id: str) -> dict:
    """What became of the solutions that were written from the card alone, before the checks were known."""
    from tests.mutants.from_the_cards import written

    found = {"id": exercise_id, "mutants": 0, "killed": 0, "survivors": [], "right": 0, "right_rejected": []}
    for name, source, kind in written().get(exercise_id, []):
        function = learner.functions({"cells": [{"cell_type": "code", "source": source}]})[find(exercise_id).name]
        with contextlib.redirect_stdout(io.StringIO()):
            rejected = run_check(find(exercise_id), function, SEEDS).status != "passed"
        if kind == "right":
            found["right"] += 1
            found["right_rejected"] += [name] * rejected
        else:
            found["mutants"] += 1
            found["killed"] += rejected
            found["survivors"] += [] if rejected else [{"name": name, "argued": ""}]
    return found
