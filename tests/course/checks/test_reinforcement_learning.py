"""The checks of chapter 11 accept what is right, whoever wrote it, and say what is wrong with what is not."""

import re

import pytest
import torch

import minim1.tasks.rewards
import minim1.train.losses as package
from minim1.course.checking import run_check
from minim1.course.checks import find
from minim1.course.checks import reinforcement_learning as checks
from minim1.course.figures import reinforcement_learning as figures
from minim1.learner import functions
from minim1.train.losses import LossOutput
from tests.mutants import SEEDS, run, solution_notebook
from tests.mutants.chapter_11 import MUTANTS

IDS = [exercise.id for exercise in checks.EXERCISES]


@pytest.fixture(scope="module")
def notebook():
    return solution_notebook("11.1")


def advantages_by_torch_std(rewards):
    flat = (rewards == rewards[:, :1]).all(1, keepdim=True)
    std = torch.std(rewards, dim=1, correction=0, keepdim=True)
    return ((rewards - rewards.mean(1, keepdim=True)) / (std + 1e-6)).masked_fill(flat, 0)


def ppo_by_loop(logprobs, old_logprobs, advantages, mask, *, total_tokens, total_sequences, eps_low=0.2, eps_high=0.2):
    terms = [logprobs.new_zeros(())]
    for b, t in mask.nonzero().tolist():
        ratio, a = (logprobs[b, t] - old_logprobs[b, t]).exp(), advantages[b, t]
        terms.append(ratio.clamp(max=1 + eps_high) * a if a > 0 else ratio.clamp(min=1 - eps_low) * a)
    return LossOutput(-torch.stack(terms).sum() / total_tokens)


def mask_by_where(ratio, advantages, eps_low, eps_high):
    bound = torch.where(advantages > 0, 1 + eps_high - ratio, ratio - (1 - eps_low))
    return (bound >= 0) | (advantages == 0)


def reward_by_symbols(prompts, completions, *, problem, **columns):
    return [float(_right(text, asked.data)) for text, asked in zip(completions, problem)]


def _right(text, data):
    values, parts = {f"⟨{n}⟩": n for n in range(12)}, text.split("\n</think>\n")
    if len(parts) != 2 or not parts[0].startswith("<think>\n") or not parts[1].endswith("<end_of_sentence>\n"):
        return False
    thinking, said = parts[0].removeprefix("<think>\n"), parts[1].removesuffix("<end_of_sentence>\n")
    pair = re.findall("⟨[^⟨⟩]*⟩", said)
    if any(tag in thinking for tag in checks.TAGS) or "".join(pair) != said or len(pair) != 2:
        return False
    a, b = (values.get(symbol) for symbol in pair)
    return a != b and {a, b} <= set(data["numbers"]) and (a + b) % 12 == data["target"]


@pytest.mark.parametrize("exercise_id, function", [
    ("11.1", reward_by_symbols), ("11.2", advantages_by_torch_std), ("11.3", ppo_by_loop), ("11.4", mask_by_where),
])
def test_other_right_solutions_pass(exercise_id, function):
    result = run_check(find(exercise_id), function, SEEDS)
    assert result.status == "passed", result


def test_a_broken_package_changes_no_verdict(notebook, monkeypatch):
    solutions = functions(notebook)
    for name in ("ppo_loss", "group_advantages", "_clipped_surrogate"):
        monkeypatch.setattr(package, name, lambda *a, **options: 1 / 0)
    monkeypatch.setattr(minim1.tasks.rewards, "verifier_reward", lambda *a, **options: 1 / 0)
    for exercise_id in IDS:
        result = run_check(find(exercise_id), solutions[find(exercise_id).name])
        assert result.status == "passed", result


def test_the_verifier_of_the_package_and_the_cases_of_the_check_agree():
    verify = minim1.tasks.rewards.verifier_reward
    for case in [*checks.form_cases(), *checks.plain_cases((2, 5, 11, 9), 4)]:
        problem = checks.problem_of(case.numbers, case.target)
        assert verify(None, [case.text], problem=[problem]) == [case.worth], case


@pytest.mark.parametrize("exercise_id", IDS)
def test_mutants_are_rejected_and_at_least_three_mistakes_have_their_own_sentence(exercise_id, notebook):
    results = {mutant.name: run(exercise_id, mutant, notebook) for mutant in MUTANTS[exercise_id]}
    assert [name for name, result in results.items() if result.status != "wrong"] == []
    general = ("is not as expected", "raised", "has shape", "No gradient", "returned", " is float")
    own = {r.sentence for r in results.values() if not any(words in r.sentence for words in general)}
    assert len(own) >= 3, own
    assert not any("\n" in result.sentence for result in results.values())


def test_the_published_curves_are_those_of_three_benchmarks():
    curves = figures.published()
    assert sorted(curves) == [f"{name} {what}" for name in ("AIME24", "AIME25", "LCB") for what in ("acc", "len")]
    assert curves["AIME24 acc"][0] == (0, 67.9) and len(curves["AIME24 acc"]) == 39
    for points in curves.values():
        steps = [step for step, _ in points]
        assert steps == sorted(set(steps)) and 0 <= steps[0] and steps[-1] <= 4304
