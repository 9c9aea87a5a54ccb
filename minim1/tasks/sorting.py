"""Sorting letters, worked as a merge sort: every pass is easier than the whole."""

import re

from minim1.tasks.base import Problem, Task, symbol

LETTERS = tuple(symbol(c) for c in "abcdefghijklmnop")


class SortTask(Task):
    """`difficulty` is the count of distinct letters.

    prompt ``⟨sort⟩⟨f⟩⟨b⟩⟨p⟩⟨c⟩⟨d⟩``; trace: the passes of a merge sort but the last one: first
    every two neighbours in order (``bf cp d``), then every four (``bcfp d``); the answer
    ``bcdfp`` is the last pass. Three or four letters need one pass before it, five to eight two.

    >>> SortTask().sample(0).prompt.count("⟨")
    6
    """

    name = "sort"
    symbols = (symbol("sort"), *LETTERS)
    difficulties = range(3, 9)
    default_difficulty = 5
    answer_grammar = re.compile("(?:⟨[a-p]⟩)+")

    def _draw(self, rng, difficulty):
        letters = rng.sample(LETTERS, difficulty)
        trace, run = [], 2
        while run < difficulty:
            for start in range(0, difficulty, run):
                trace += sorted(letters[start:start + run])
            run *= 2
        return Problem(
            family=self.name,
            prompt=symbol("sort") + "".join(letters),
            trace="".join(trace),
            answer="".join(sorted(letters)),
            key="sort " + "".join(sorted(letters)),
            difficulty=difficulty,
            data={"letters": tuple(letters)},
        )
