"""Rewards with TRL's signature, and DAPO's penalty of length."""

import functools

import pytest

from minim1.errors import UserError
from minim1.tasks import TASKS, format_completion, format_reward, overlong_penalty, verifier_reward
from minim1.tasks.recall import RecallTask


def test_verifier_reward_judges_each_completion_on_its_own_problem():
    problems = [task.sample(3) for task in TASKS.values()]
    good = [format_completion(p.trace, p.answer) for p in problems]
    prompts = [p.prompt for p in problems]
    assert verifier_reward(prompts, good, problem=problems) == [1.0] * 4
    assert verifier_reward(prompts, good[::-1], problem=problems) == [0.0] * 4
    mixed = [good[0], "", good[2], good[3] + "!"]
    assert verifier_reward(prompts, mixed, problem=problems, split=["heldout"] * 4) == [1.0, 0.0, 1.0, 0.0]
    assert verifier_reward([], [], problem=[]) == []


def test_columns_of_different_length_are_a_bug_and_raise():
    problem = TASKS["add"].sample(0)
    with pytest.raises(ValueError):
        verifier_reward(["a", "b"], ["x", "y"], problem=[problem])


def test_an_error_inside_a_verifier_is_not_a_reward_of_zero():
    class Broken(RecallTask):
        def is_right(self, problem, answer):
            raise ZeroDivisionError

    problem = TASKS["recall"].sample(0)
    with pytest.raises(ZeroDivisionError):
        Broken().verify(problem, format_completion("", problem.answer))


def test_other_families_can_be_named():
    class Mine(RecallTask):
        name = "mine"

    mine = Mine()
    problem = mine.sample(0)
    reward = functools.partial(verifier_reward, tasks={**TASKS, "mine": mine})
    assert reward([""], [format_completion("", problem.answer)], problem=[problem]) == [1.0]
    with pytest.raises(UserError, match="mine"):
        verifier_reward([""], [""], problem=[problem])


def test_format_reward():
    assert format_reward(None, ["<think>\nhm\n</think>\n42"]) == [0]
    assert format_reward(None, [format_completion("a", "b"), "b", format_completion("", "")], k=[1, 2, 3]) == [1, 0, 1]


@pytest.mark.parametrize("length, penalty", [
    (0, 0), (79, 0), (80, 0), (81, -0.05), (85, -0.25), (90, -0.5), (99, -0.95), (100, -1), (101, -1), (10**9, -1),
])
def test_overlong_penalty(length, penalty):
    assert overlong_penalty(length, 100, 20) == pytest.approx(penalty)


def test_overlong_penalty_without_a_buffer_is_a_step():
    assert [overlong_penalty(n, 100, 0) for n in (99, 100, 101)] == [0, 0, -1]
    assert overlong_penalty(50, 100, 100) == -0.5


@pytest.mark.parametrize("buffer", [-1, 101])
def test_overlong_penalty_refuses_a_buffer_that_does_not_fit(buffer):
    with pytest.raises(UserError, match=f"buffer is {buffer}"):
        overlong_penalty(10, 100, buffer)
