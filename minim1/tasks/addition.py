"""Addition with a scratchpad: column by column, low digit first, with the carry written out."""

import re

from minim1.tasks.base import Problem, Task, symbol

PLACES = tuple(symbol(f"p{i}") for i in range(5))
CARRIES = (symbol("c0"), symbol("c1"))


class AdditionTask(Task):
    """`difficulty` is the count of digits of each number (one-digit numbers may be 0).

    prompt ``⟨add⟩358+467=``; trace: per column the place, the two digits, the digit of the sum
    and the carry, ``⟨p0⟩875⟨c1⟩⟨p1⟩562⟨c1⟩⟨p2⟩348⟨c0⟩``; answer ``825``, without leading zeros.

    >>> AdditionTask().sample(0).difficulty
    3
    """

    name = "add"
    symbols = (symbol("add"), *PLACES, *CARRIES)
    difficulties = range(1, 6)
    default_difficulty = 3
    answer_grammar = re.compile("0|[1-9][0-9]*")

    def _draw(self, rng, difficulty):
        low = 10 ** (difficulty - 1) if difficulty > 1 else 0
        a, b = rng.randrange(low, 10**difficulty), rng.randrange(low, 10**difficulty)
        columns, carry = [], 0
        for i in range(difficulty):
            x, y = a // 10**i % 10, b // 10**i % 10
            carry, digit = divmod(x + y + carry, 10)
            columns.append(f"{PLACES[i]}{x}{y}{digit}{CARRIES[carry]}")
        return Problem(
            family=self.name,
            prompt=f"{symbol('add')}{a}+{b}=",
            trace="".join(columns),
            answer=str(a + b),
            key=f"add {min(a, b)} {max(a, b)}",  # b + a would give a + b away
            difficulty=difficulty,
            data={"a": a, "b": b},
        )
