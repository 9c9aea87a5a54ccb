"""The checks of chapter 12 accept what is right and say what is wrong; what its figures draw is what the losses do."""

import math
from functools import partial

import pytest
import torch

import minim1.train.losses as package
from minim1.course.checking import run_check
from minim1.course.checks import cispo as checks
from minim1.course.checks import find
from minim1.course.figures import cispo as figures
from minim1.learner import functions
from tests.mutants import SEEDS, Mutant, run, solution_notebook

IDS = [exercise.id for exercise in checks.EXERCISES]


@pytest.fixture(scope="module")
def notebook():
    return solution_notebook("12.1")


@pytest.fixture(scope="module")
def solutions(notebook):
    return functions(notebook)


@pytest.mark.parametrize("exercise_id", IDS)
def test_the_solution_and_what_stands_in_for_it_pass(exercise_id, solutions):
    exercise = find(exercise_id)
    for function in (solutions[exercise.name], exercise.reference()):
        result = run_check(exercise, function, SEEDS)
        assert result.status == "passed", result


def test_other_policy_losses_of_the_package_are_not_cispo():
    for name in ("ppo", "dapo", "grpo", "reinforce"):
        loss = package.policy_loss(name)
        result = run_check(find("12.1"), lambda *a, max_weight=5.0, **o: loss(*a, **o), SEEDS)
        assert result.status == "wrong" and result.layer in ("value", "gradient"), result


def test_sampled_tokens_may_be_picked_instead_of_cleaned():
    def picked(logprobs, old_logprobs, advantages, mask, *, total_tokens, total_sequences, max_weight=5.0):
        if max_weight < 1:
            raise ValueError
        new, old, a = logprobs[mask], old_logprobs[mask], advantages[mask]
        weight = torch.minimum((new - old).exp(), torch.tensor(max_weight, dtype=new.dtype)).detach()
        return package.LossOutput(-torch.dot(weight * a, new) / total_tokens)

    assert run_check(find("12.1"), picked, SEEDS).status == "passed"


def test_a_broken_package_changes_no_verdict(solutions, notebook, monkeypatch):
    wrong = Mutant("", "ratio.clamp(max=max_weight)\n    return LossOutput", "ratio\n    return LossOutput")
    before = run("12.1", wrong, notebook)
    for name in ("cispo_loss", "ppo_loss", "dapo_loss", "_sampled"):
        monkeypatch.setattr(package, name, lambda *a, **options: 1 / 0)
    monkeypatch.setattr(checks, "cispo_loss", lambda *a, **options: 1 / 0)
    monkeypatch.setattr(checks, "package_penalty", lambda *a, **options: 1 / 0)
    assert all(run_check(find(i), solutions[find(i).name]).status == "passed" for i in IDS)
    after = run("12.1", wrong, notebook)
    assert (after.status, after.sentence) == ("wrong", before.sentence)


def test_a_lost_detach_is_told_although_the_value_is_right(notebook):
    result = run("12.1", Mutant("", ".exp().detach()\n    weight = ratio.clamp(max=max_weight)\n    return L",
                                ".exp()\n    weight = ratio.clamp(max=max_weight)\n    return L"), notebook)
    assert result.layer == "gradient" and "detach the ratio" in result.sentence


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("loss", ["ppo", "dapo", "cispo", "reinforce"])
def test_the_drawn_weights_are_the_packages_gradients(loss, positive):
    for ratio in (0.3, 0.79, 0.81, 1.0, 1.19, 1.21, 1.27, 1.29, 4.0, 6.0):
        logprobs = torch.tensor([[math.log(0.1 * ratio)]], dtype=torch.float64, requires_grad=True)
        old = torch.full_like(logprobs, math.log(0.1)).detach()
        advantage = torch.full_like(old, 1.0 if positive else -1.0)
        mask = torch.ones_like(old, dtype=torch.bool)
        package.policy_loss(loss)(logprobs, old, advantage, mask, total_tokens=1, total_sequences=1).loss.backward()
        push = -logprobs.grad.item() * advantage.item()
        assert push == pytest.approx(figures.push(ratio, positive, loss), abs=1e-9)


def test_the_reports_curves_are_complete():
    curves = figures.published()
    assert {name: max(curve.values()) for name, curve in curves.items()} == {"grpo": 24.2, "dapo": 34.4, "cispo": 44.6}
    assert figures.first_at(curves["cispo"], 34.4) == 448 and figures.first_at(curves["dapo"], 34.4) == 960


def test_a_stream_is_read_no_further_than_needed():
    def greedy(stream, wanted, limit):
        kept, drawn = checks._sampling_reference(stream, wanted, limit)
        next(stream, None)
        return kept, drawn

    result = run_check(find("12.3"), greedy, SEEDS)
    assert result.status == "wrong" and "were enough" in result.sentence


def test_a_partial_is_a_right_answer_too():
    assert run_check(find("12.1"), partial(package.cispo_loss), SEEDS).status == "passed"
