"""The adapter of reasoning-gym: with a stand-in for the package, and with it where installed."""

import sys
import types

import pytest

from minim1.errors import UserError
from minim1.tasks import TASKS, format_completion, held_out, reasoning_gym_task, verifier_reward


class FakeDataset:
    """Adds; gives partial credit, trips over letters, and gives no answer when `mute`."""

    def __init__(self, seed, size, top=1000, mute=False):
        if top < 1:
            raise AssertionError("top must be at least 1")
        self.seed, self.size, self.top, self.mute = seed, size, top, mute
        self.calls = 0

    def __getitem__(self, index):
        self.calls += 1  # the state that makes reuse of a dataset dangerous
        number = self.seed * 7919 % self.top + index + self.calls
        return {"question": f"{number} + 1 = ?", "answer": None if self.mute else str(number + 1), "metadata": {}}

    def score_answer(self, answer, entry):
        if answer == "x":
            raise ValueError("not a number")
        return 1.0 if answer == (entry["answer"] or "") else 0.25 * ((entry["answer"] or "?") in answer)


@pytest.fixture
def fake(monkeypatch):
    package, factory = types.ModuleType("reasoning_gym"), types.ModuleType("reasoning_gym.factory")
    package.create_dataset = lambda name, **config: FakeDataset(**config)
    factory.DATASETS = {"chain_sum": (), "leg_counting": (), "gcd": ()}
    monkeypatch.setitem(sys.modules, "reasoning_gym", package)
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", factory)


def test_a_dataset_becomes_a_task(fake):
    task = reasoning_gym_task("chain_sum")
    problems = [task.sample(seed) for seed in range(30)]
    assert problems == [task.sample(seed) for seed in range(30)]
    assert len({p.prompt for p in problems}) > 20 and not any(held_out(p.key) for p in problems)
    assert all(held_out(task.sample(seed, split="heldout").key) for seed in range(10))
    problem = problems[0]
    assert (problem.family, problem.trace) == ("reasoning-gym/chain_sum", "")
    assert task.symbols == ()
    shown = task.demonstrate(problem, 0)
    assert (shown.prompt, shown.thinking, shown.answer) == (problem.prompt, "", problem.answer)


def test_its_judge_decides(fake):
    task = reasoning_gym_task("chain_sum")
    problem = task.sample(0)

    def judge(answer, task=task):
        return task.verify(problem, format_completion("hm", answer))

    good = judge(problem.answer)
    assert good.reward == 1 and good.parts == {"format": 1, "correct": 1, "score": 1, "refused": 0}
    hedged = judge(f"perhaps {problem.answer}")
    assert hedged.reward == 0 and hedged.parts["score"] == 0.25
    assert judge("x").parts == {"format": 1, "correct": 0, "score": 0, "refused": 1}
    assert judge("").parts["format"] == 0
    assert task.verify(problem, problem.answer).reward == 0
    assert task.verify(problem, format_completion("hm", problem.answer) + "!").reward == 0
    generous = reasoning_gym_task("chain_sum", partial_credit=True)
    assert judge(f"perhaps {problem.answer}", generous).reward == 0.25
    texts = [format_completion("", problem.answer), format_completion("", "x")]
    tasks = {**TASKS, task.name: task}
    assert verifier_reward(["", ""], texts, problem=[problem] * 2, tasks=tasks) == [1.0, 0.0]


def test_a_dataset_without_answers_cannot_be_imitated(fake):
    task = reasoning_gym_task("chain_sum", mute=True)
    problem = task.sample(0)
    assert problem.answer == ""
    for text in ("", format_completion("", "")):  # this judge is content with nothing
        assert task.verify(problem, text).reward == 0
    with pytest.raises(UserError, match="no answer to imitate"):
        task.demonstrate(problem, 0)


@pytest.mark.parametrize("name, config, message", [
    ("chain_sums", {}, "no dataset 'chain_sums'; it has chain_sum"),
    ("zzz", {}, "it has chain_sum, gcd, leg_counting"),
    ("chain_sum", {"bogus": 1}, "refuses {'bogus': 1} for 'chain_sum'.*bogus"),
    ("chain_sum", {"top": 0}, "top must be at least 1"),
    ("chain_sum", {"seed": 1}, "seed cannot be configured"),
    ("chain_sum", {"seed": 1, "size": 2}, "seed and size cannot be configured"),
])
def test_bad_arguments_are_told_in_one_sentence(fake, name, config, message):
    with pytest.raises(UserError, match=message):
        reasoning_gym_task(name, **config)


def test_too_few_problems(fake):
    with pytest.raises(UserError, match="none of 1000"):
        task = reasoning_gym_task("chain_sum", top=1)
        task.sample(0, split="train" if held_out(task.sample(0, split="all").key) else "heldout")


def test_without_the_package_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(UserError, match=r"not installed; run: pip install 'minim1\[tasks\]'"):
        reasoning_gym_task("chain_sum")


@pytest.mark.parametrize("name", ["chain_sum", "leg_counting", "list_functions", "prime_factorization"])
def test_with_the_real_package(name):
    pytest.importorskip("reasoning_gym")
    task = reasoning_gym_task(name)
    for seed in range(5):
        problem = task.sample(seed)
        assert problem == task.sample(seed)
        assert task.verify(problem, format_completion("", problem.answer)).reward == 1
        assert task.verify(problem, format_completion("", "x")).reward == 0
