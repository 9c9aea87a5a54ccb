"""Errands: problems that a small model solves only through a tool, and how a demonstrator solves them."""

import re

from minim1.tasks.base import Problem, Task
from minim1.tasks.tools import CALCULATOR, Tool, lookup_tool


class Errand(Task):
    """A family with tools: `tools(problem)` are on offer, `next_call(problem, results)` is what the demonstrator does.

    The last turn of a conversation is judged by `verify` as any completion is.
    """

    answer_grammar = re.compile("[0-9]+")

    def tools(self, problem: Problem) -> list[Tool]:
        """The tools of one conversation."""
        raise NotImplementedError

    def next_call(self, problem: Problem, results: list[str]) -> dict | None:
        """The demonstrator's next call, given the results so far; None when it is time to answer."""
        raise NotImplementedError


class ProductTask(Errand):
    """Multiplication, which no model here learns: the calculator's errand. `difficulty`: digits of each factor.

    prompt ``47*86=``; call ``{"name": "calculator", "arguments": {"expression": "47*86"}}``; answer ``4042``.

    >>> ProductTask().sample(0).prompt
    '80*43='
    """

    name = "product"
    difficulties = range(1, 4)
    default_difficulty = 2

    def tools(self, problem):
        return [CALCULATOR]

    def next_call(self, problem, results):
        call = {"name": "calculator", "arguments": {"expression": problem.prompt.removesuffix("=")}}
        return None if results else call

    def _draw(self, rng, difficulty):
        a, b = (rng.randrange(10 ** (difficulty - 1), 10**difficulty) for _ in range(2))
        return Problem(self.name, f"{a}*{b}=", "", str(a * b), f"product {min(a, b)} {max(a, b)}", difficulty, {})


class ChainTask(Errand):
    """A chain of keys, each found under the one before; `difficulty` is the number of look-ups, one turn each.

    prompt ``follow 37``; results ``52``, ``19``, ``=83``; answer ``83``. What a turn asks for does not depend on the
    length of the chain, so that success against length shows how errors compound.
    """

    name = "chain"
    difficulties = range(1, 33)
    default_difficulty = 2

    def tools(self, problem):
        return [lookup_tool(problem.data["table"])]

    def next_call(self, problem, results):
        key = results[-1] if results else problem.data["first"]
        return None if key.startswith("=") else {"name": "lookup", "arguments": {"key": key}}

    def _draw(self, rng, difficulty):
        *keys, answer = map(str, rng.sample(range(10, 100), difficulty + 1))
        table = dict(zip(keys, [*keys[1:], f"={answer}"]))
        return Problem(
            self.name,
            f"follow {keys[0]}",
            "",
            answer,
            f"chain {' '.join(keys)} {answer}",
            difficulty,
            {"table": table, "first": keys[0]},
        )


ERRANDS: dict[str, Errand] = {task.name: task for task in (ProductTask(), ChainTask())}
