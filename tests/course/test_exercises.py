"""What holds for every exercise: blank, right, noisy, hard-coded and plainly wrong answers get what they deserve."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest
import torch
from tests import mutants
from tests.course import hand_ins

from minim1.course.checking import CheckFailed, check, run_check
from minim1.course.checks import CHAPTERS, EXERCISES
from minim1.course.notebooks import SOLUTION, cut, root
from minim1.learner import Notebook
from minim1.parts import Parts

IDS = [id for id, exercise in EXERCISES.items() if exercise.chapter in hand_ins.names()]
HIDDEN_SEEDS = (1, 2, 3)
every_exercise = pytest.mark.parametrize("exercise_id", IDS)
every_function = pytest.mark.parametrize("exercise_id", [id for id in IDS if not hand_ins.is_kernel(id)])


@pytest.fixture
def learners(tmp_path, exercise_id):
    """learners(text of the exercise's cell) -> the learner's function; without text, the solution's."""

    def read(text: str | None = None, **options):
        answers = {} if text is None else {exercise_id: text}
        path = hand_ins.hand_in(tmp_path / "work" / "hand_in.ipynb", EXERCISES[exercise_id].chapter, answers, **options)
        return hand_ins.function(path, exercise_id)

    return read


def test_every_exercise_of_the_table_is_in_the_solutions():
    assert IDS == list(EXERCISES)
    for exercise_id in IDS:
        assert f"def {EXERCISES[exercise_id].name}(" in hand_ins.text(exercise_id)
        assert f"strict=True, seeds={HIDDEN_SEEDS})" in hand_ins.text(exercise_id, "hidden")


@every_exercise
def test_blank_is_not_started_and_scores_nothing(exercise_id, learners, capsys):
    stub = learners(solved=False)
    check(exercise_id, stub)
    assert "not started" in capsys.readouterr().out
    for seeds in ((0,), HIDDEN_SEEDS):
        with pytest.raises(CheckFailed):
            check(exercise_id, stub, strict=True, seeds=seeds)


@every_exercise
def test_solved_passes_and_is_shown_its_place(exercise_id, learners, capsys):
    function = learners()
    check(exercise_id, function)
    said = capsys.readouterr().out
    assert said.startswith(f"✓ {exercise_id}") and "work/hand_in.ipynb, cell " in said
    for seeds in ((0,), HIDDEN_SEEDS):
        check(exercise_id, function, strict=True, seeds=seeds)


@every_function
def test_what_stands_in_for_the_learners_function_passes(exercise_id):
    result = run_check(EXERCISES[exercise_id], EXERCISES[exercise_id].reference(), (0, *HIDDEN_SEEDS))
    assert result.status == "passed", result


@every_function
def test_noise_costs_no_points(exercise_id, learners, capfd):
    """nbgrader gives zero for anything on stderr, whoever wrote it and however."""
    function = learners(hand_ins.noisy(exercise_id))
    for options in ({}, {"strict": True}, {"strict": True, "seeds": HIDDEN_SEEDS}):
        check(exercise_id, function, **options)
        said = capfd.readouterr()
        assert said.err == "" and f"✓ {exercise_id}" in said.out


@every_function
def test_hard_coded_passes_only_what_is_in_sight(exercise_id, learners, tmp_path):
    chapter = EXERCISES[exercise_id].chapter
    function = learners(hand_ins.hard_coded(chapter, tmp_path)[exercise_id])
    check(exercise_id, function, strict=True)
    with pytest.raises(CheckFailed):
        check(exercise_id, function, strict=True, seeds=HIDDEN_SEEDS)


def _nan(value):
    """NaN in the place of every number."""
    if isinstance(value, (tuple, list)):
        return type(value)(map(_nan, value))
    return value * float("nan") if isinstance(value, (float, torch.Tensor)) else float("nan")


def _first(value):
    return _first(value[0]) if isinstance(value, (tuple, list)) else value


WRONG = {  # the right function -> a function that is plainly wrong
    "None": lambda right: lambda *a, **o: None,
    "text": lambda right: lambda *a, **o: "done",
    "a number": lambda right: lambda *a, **o: 1.5,
    "NaN": lambda right: lambda *a, **o: _nan(right(*a, **o)),
    "one axis more": lambda right: lambda *a, **o: _first(right(*a, **o)).unsqueeze(0),
    "an array": lambda right: lambda *a, **o: _first(right(*a, **o)).detach().numpy(),
    "whole numbers": lambda right: lambda *a, **o: _first(right(*a, **o)).int(),
    "too many results": lambda right: lambda *a, **o: (_first(right(*a, **o)),) * 4,
    "nothing accepted": lambda right: lambda: None,
    "raises": lambda right: _raising(ValueError("what the learner says")),
    "raises without words": lambda right: _raising(KeyError()),
    "exits": lambda right: _raising(SystemExit(1)),
    "calls itself": lambda right: _recursing,
    "no function": lambda right: torch.zeros(3),
    "a missing name": lambda right: None,
}

SAYS = {"None": "None", "NaN": "NaN", "raises": "what the learner says", "no function": "expected a function"}


def _raising(error):
    def function(*arguments, **options):
        raise error

    return function


def _recursing(*arguments, **options):
    return _recursing(*arguments, **options)


@every_function
@pytest.mark.parametrize("kind", WRONG)
def test_plainly_wrong_gets_a_sentence(exercise_id, kind, learners, capfd):
    function = WRONG[kind](learners())
    check(exercise_id, function)
    said = capfd.readouterr()
    assert said.err == "" and said.out.startswith(f"✗ {exercise_id}") and "Traceback" not in said.out
    assert len(said.out.strip().splitlines()[-1].strip()) > 20
    told_its_type = kind == "NaN" and ": wrong (type)" in said.out  # as texts, ids and masks are
    assert told_its_type or SAYS.get(kind, "").lower() in said.out.lower()
    with pytest.raises(CheckFailed) as failure:
        check(exercise_id, function, strict=True)
    assert "Traceback" not in str(failure.value)


@every_function
def test_an_endless_loop_can_be_ended(exercise_id):
    """Notebook, nbgrader and `go.py check` interrupt what takes too long; a check must not swallow that."""
    for strict in (False, True):
        with pytest.raises(KeyboardInterrupt):
            check(exercise_id, _raising(KeyboardInterrupt()), strict=strict)


@every_exercise
def test_the_packages_own_is_refused_under_the_learners_name(exercise_id, capsys):
    own = EXERCISES[exercise_id].reference()
    assert run_check(EXERCISES[exercise_id], own, HIDDEN_SEEDS).status == "passed"
    check(exercise_id, own)
    assert "package's own" in capsys.readouterr().out
    with pytest.raises(CheckFailed, match="package's own"):
        check(exercise_id, own, strict=True)


@pytest.fixture(scope="module")
def mutation():
    """Exercise id -> what its check says to each of the mutants."""
    return {exercise_id: mutants.summary(exercise_id, found) for exercise_id, found in mutants.verdicts(IDS)}


@every_exercise
def test_mistakes_are_rejected_and_told_apart(exercise_id, mutation):
    found = mutation[exercise_id]
    assert found["mutants"] >= (8 if EXERCISES[exercise_id].part else 5)
    assert len(found["survivors"]) <= 1 and all(survivor["argued"] for survivor in found["survivors"])
    diagnoses = {sentence for sentence in found["sentences"].values() if "is not as expected" not in sentence}
    assert len(diagnoses) >= 3


def test_the_mutation_score_is_high(mutation):
    assert sum(row["killed"] for row in mutation.values()) >= 0.95 * sum(row["mutants"] for row in mutation.values())


@pytest.mark.slow
@every_exercise
def test_unusual_right_answers_pass_and_mistakes_made_from_the_card_do_not(exercise_id):
    """Both written from the exercise cards, before the checks were known; counted by `go.py mutants --cards`."""
    found = mutants.on_the_cards(exercise_id)
    assert found["right"] >= 5 and found["right_rejected"] == []
    assert found["mutants"] >= 20 and found["killed"] >= 0.9 * found["mutants"], found["survivors"]


@every_exercise
def test_solutions_are_of_a_size_to_write(exercise_id):
    _, lines = cut(hand_ins.text(exercise_id), SOLUTION, exercise_id)
    assert 1 <= len([line for line in lines if line.strip() and not line.strip().startswith("#")]) <= 20


@every_exercise
def test_points_are_worth_having(exercise_id):
    assert min(EXERCISES[exercise_id].points) >= 1


@pytest.mark.parametrize("chapter", list(CHAPTERS))
def test_the_command_fails_on_blank_and_passes_on_solved(chapter):
    """As a user types it: `python3 go.py check FILE.ipynb`."""
    name = f"{chapter}_{CHAPTERS[chapter]}.ipynb"
    for folder, code, status in (("exercises", 1, "not started"), ("solutions", 0, "passed")):
        done = subprocess.run([sys.executable, "-m", "minim1", "check", "--json", str(root() / folder / name)],
                              capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert done.returncode == code, done.stderr
        found = {row["status"] for row in json.loads(done.stdout)["exercises"]}
        assert found == {status}


@pytest.mark.parametrize("chapter", list(CHAPTERS))
def test_no_helper_is_taken_for_a_part_of_the_learners(chapter):
    """`Parts.from_learner` takes functions by their names, so only an exercise's answer may bear a part's."""
    notebook = Notebook(root() / "exercises" / f"{chapter}_{CHAPTERS[chapter]}.ipynb")
    names = {"reward" if field.name == "rewards" else field.name for field in dataclasses.fields(Parts)}
    defined = {name for statement in notebook.statements if statement.function for name in statement.names}
    exercises = {exercise.name: exercise.part for exercise in EXERCISES.values() if exercise.chapter == chapter}
    for name in defined & names:
        assert exercises[name] in (name, "rewards")
    assert {part for part in exercises.values() if part} <= defined | {"rewards"}
