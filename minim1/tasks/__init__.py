"""Verifiable problems: each family has a generator, a worked solution and a strict verifier."""

from functools import lru_cache

from minim1.errors import UserError
from minim1.tasks.adapter import ADAPTED, reasoning_gym_task
from minim1.tasks.addition import AdditionTask
from minim1.tasks.base import (
    Completion,
    Demonstration,
    Problem,
    Task,
    Verdict,
    format_completion,
    held_out,
    parse_completion,
)
from minim1.tasks.errands import ERRANDS
from minim1.tasks.pair import PairDemonstrator, PairTask
from minim1.tasks.recall import RecallTask
from minim1.tasks.rewards import format_reward, overlong_penalty, tool_reward, verifier_reward
from minim1.tasks.sorting import SortTask

TASKS: dict[str, Task] = {
    task.name: task for task in (PairTask(), AdditionTask(), SortTask(), RecallTask())
}
SYMBOLS: tuple[str, ...] = tuple(
    dict.fromkeys(symbol for task in TASKS.values() for symbol in task.symbols)
)


def get_task(name: str) -> Task:
    """The task of this name, an errand (`minim1.tasks.errands`) too; ``reasoning-gym/NAME`` is that package's
    dataset NAME. Raises `UserError` with the names there are.

    >>> get_task("pair").default_difficulty
    4
    """
    if name.startswith(ADAPTED):
        return _adapted(name.removeprefix(ADAPTED))
    if name in ERRANDS:
        return ERRANDS[name]
    if name not in TASKS:
        raise UserError(f"There is no task family {name!r}; choose from {', '.join(TASKS)}.")
    return TASKS[name]


_adapted = lru_cache(reasoning_gym_task)


__all__ = [
    "AdditionTask", "Completion", "Demonstration", "PairDemonstrator", "PairTask", "Problem",
    "RecallTask", "SYMBOLS", "SortTask", "TASKS", "Task", "Verdict", "format_completion",
    "format_reward", "get_task", "held_out", "overlong_penalty", "parse_completion",
    "reasoning_gym_task", "tool_reward", "verifier_reward",
]
