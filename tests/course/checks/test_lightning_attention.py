"""The checks of chapter 04 accept what is right, whoever wrote it, and say what is wrong with what is not."""

import re
from functools import partial

import pytest
import torch

import minim1.model.lightning as package
from minim1 import lightning_attention
from minim1.course.checking import run_check
from minim1.course.checks import find
from minim1.course.checks import lightning_attention as checks
from minim1.learner import functions
from tests.mutants import SEEDS, Mutant, run, solution_cell
from tests.mutants.chapter_04 import MUTANTS

IDS = [exercise.id for exercise in checks.EXERCISES]


@pytest.mark.parametrize("backend", ["recurrent", "quadratic", "chunked", "fast"])
def test_every_cpu_backend_of_the_package_passes_the_check_of_the_part(backend):
    result = run_check(find("4.4"), partial(lightning_attention, backend=backend), SEEDS)
    assert result.status == "passed", result


def test_the_masked_version_of_the_explanation_passes(notebook):
    [text] = ["".join(c["source"]) for c in notebook["cells"] if "lightning_masked" in "".join(c["source"])]
    [code] = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    space = {"torch": torch, "BLOCK": 64}
    exec(code, space)
    result = run_check(find("4.4"), space["lightning_masked"], SEEDS)
    assert result.status == "passed", result


def test_a_broken_package_changes_no_verdict(solutions, notebook, monkeypatch):
    wrong = Mutant("", "inter_block(q_block, state, slopes)", "0 * inter_block(q_block, state, slopes)")
    before = [run_check(find(i), solutions[find(i).name]) for i in IDS], run("4.4", wrong, notebook)
    for name in ("lightning_attention", "lightning_chunked", "lightning_fast", "lightning_recurrent", "lightning_step",
                 "decay_slopes"):
        monkeypatch.setattr(package, name, lambda *a, **options: 1 / 0)
    monkeypatch.setattr(checks, "lightning_attention", lambda *a, **options: 1 / 0)
    monkeypatch.setattr("minim1.lightning_attention", lambda *a, **options: 1 / 0, raising=False)
    after = [run_check(find(i), solutions[find(i).name]) for i in IDS], run("4.4", wrong, notebook)
    assert [r.status for r in after[0]] == ["passed"] * 6 == [r.status for r in before[0]]
    assert (after[1].status, after[1].sentence) == ("wrong", before[1].sentence)


@pytest.mark.parametrize("exercise_id", IDS)
def test_bad_answers_get_a_sentence(exercise_id, solutions):
    right = solutions[find(exercise_id).name]

    def spoilt(change):
        return lambda *a, **options: _each(change, right(*a, **options))

    for function, words in (
        (lambda *a, **options: None, "None"), (None, "None"), ("text", "str"), (lambda: 1, "TypeError"),
        (lambda *a, **options: "text", "str"), (lambda *a, **options: 1 / 0, "ZeroDivisionError"),
        (spoilt(lambda x: x * torch.nan), "NaN"), (spoilt(lambda x: x.long()), "int64"),
        (spoilt(lambda x: x[..., :1]), "shape"), (spoilt(lambda x: x.unsqueeze(0)), "shape"),
        (spoilt(lambda x: x.tolist()), "list"), (spoilt(lambda x: x.detach()), "cut off|changed|detached"),
    ):
        result = run_check(find(exercise_id), function, SEEDS)
        assert result.status == "wrong" and re.search(words, result.sentence), (words, result)
        assert "\n" not in result.sentence


def _each(change, value):
    return tuple(change(x) for x in value) if isinstance(value, tuple) else change(value)


@pytest.mark.parametrize("exercise_id", IDS)
def test_mutants_are_rejected_and_at_least_three_mistakes_have_their_own_sentence(exercise_id, notebook):
    results = {mutant.name: run(exercise_id, mutant, notebook) for mutant in MUTANTS[exercise_id]}
    assert [name for name, result in results.items() if result.status != "wrong"] == []
    general = ("is not as expected", "raised", "has shape", "No gradient", "returned", " is float")
    own = {r.sentence for r in results.values() if not any(words in r.sentence for words in general)}
    assert len(own) >= 3, own


@pytest.mark.parametrize("change, words", [
    (("state = update_state(k_block, v_block, state, slopes)",
      "state = state + update_state(k_block, v_block, torch.zeros_like(state), slopes)"),
     "The first 128 positions are right, and then the error jumps: the carried state was not decayed."),
    (("inter_block(q_block, state, slopes)", "torch.exp(slopes)[:, None] * inter_block(q_block, state, slopes)"),
     "The first 64 positions are right, and then the error jumps: the state is read one decay too strong."),
])
def test_a_mistake_at_a_block_edge_is_told_with_its_place(change, words, notebook):
    assert run("4.4", Mutant("", *change), notebook).sentence.startswith(words)


@pytest.mark.parametrize("exercise_id, words", [
    ("4.4", "return out, state"), ("4.5", "return out, end"), ("4.6", "return state, decay")
])
def test_exchanged_results_are_told(exercise_id, words, notebook):
    [mutant] = [mutant for mutant in MUTANTS[exercise_id] if mutant.name == "results exchanged"]
    sentence = run(exercise_id, mutant, notebook).sentence
    assert sentence == f"The results have changed places: end with `{words}`."


def test_other_block_lengths_than_the_one_proposed_are_right_too(notebook):
    for length in (1, 7, 64, 100, 1000):
        cells = [c | {"source": "".join(c["source"]).replace("BLOCK = 64",
            f"BLOCK = {length}")} for c in notebook["cells"]]
        result = run_check(find("4.4"), functions(notebook | {"cells": cells})["lightning"])
        assert result.status == "passed", (length, result)


def test_the_solution_of_the_part_has_ten_to_twenty_five_lines(notebook):
    text = "".join(solution_cell(notebook, "4.4")["source"])
    region = text.split("### BEGIN SOLUTION")[1].split("### END SOLUTION")[0]
    assert 10 <= sum(bool(line.strip()) for line in region.splitlines()) <= 25
