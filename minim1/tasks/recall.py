"""Recall: find a record among several and read its value.

A record is *one* symbol that carries key and value (``⟨c:5⟩``). With key and value as two tokens
the task needs an induction circuit, which models of this size did not learn in the time given to them.
"""

import re

from minim1.tasks.base import Problem, Task, symbol

KEYS, VALUES = "abcdefgh", "12345678"
QUERIES = tuple(symbol(f"{k}?") for k in KEYS)


class RecallTask(Task):
    """`difficulty` is the count of records; their keys differ.

    prompt ``⟨recall⟩⟨c:5⟩⟨a:1⟩⟨h:1⟩⟨b:7⟩⟨e:2⟩⟨b?⟩``; trace: the record, ``⟨b:7⟩``; answer ``7``.

    >>> RecallTask().sample(0).trace.count("⟨")
    1
    """

    name = "recall"
    symbols = (symbol("recall"), *(symbol(f"{k}:{v}") for k in KEYS for v in VALUES), *QUERIES)
    difficulties = range(2, 9)
    default_difficulty = 5
    answer_grammar = re.compile("[1-8]")

    def _draw(self, rng, difficulty):
        records = {key: rng.choice(VALUES) for key in rng.sample(KEYS, difficulty)}
        query = rng.choice(list(records))
        written = [symbol(f"{k}:{v}") for k, v in records.items()]
        return Problem(
            family=self.name,
            prompt=symbol("recall") + "".join(written) + symbol(f"{query}?"),
            trace=symbol(f"{query}:{records[query]}"),
            answer=records[query],
            key=f"recall {''.join(sorted(written))}{query}",
            difficulty=difficulty,
            data={"records": records, "query": query},
        )
