"""Pair-sum search: the family in which reinforcement learning discovers reflection.

Given M distinct numbers modulo 12 and a target, name two of the numbers whose sum modulo 12 is
the target. Nothing in one forward pass finds the pair, so guess, check and *try again* is what
works. The demonstrator whom fine-tuning imitates is lazy: after a first miss it nearly always
hands the wrong pair in, and only rarely writes ``⟨wait⟩`` and goes on. So the fine-tuned model
knows how to reflect and hardly ever does, and the reward alone makes ``⟨wait⟩`` common.

Three choices carry this; without any one of them it failed when tried:
each try ends in a verdict, else ``⟨wait⟩`` cannot depend on failure; targets have symbols of
their own, else the verdict is learnt late; who has gone on once keeps going on.
"""

import re
from dataclasses import dataclass
from itertools import combinations

from minim1.errors import UserError
from minim1.tasks.base import Demonstration, Problem, Task, symbol

MODULUS = 12
WAIT, YES, NO, NEXT = symbol("wait"), symbol("yes"), symbol("no"), symbol(";")
NUMBERS = tuple(symbol(n) for n in range(MODULUS))
TARGETS = tuple(symbol(f"={n}") for n in range(MODULUS))
_VALUE = {s: n for n, s in enumerate(NUMBERS)}
_NUMBER = f"({'|'.join(NUMBERS)})"
_TRY = re.compile(f"{_NUMBER}{_NUMBER}{_NUMBER}({YES}|{NO})")


@dataclass(frozen=True)
class PairDemonstrator:
    """The habits of the demonstrator. Raises `UserError` for a value outside [0, 1].

    `p_wait`: writes ``⟨wait⟩`` after the *first* miss; `p_continue`: after each later one.
    `long_share`: share of demonstrations that never give up. Their first ``⟨wait⟩`` carries no
    loss: the model sees long searches without learning to start them, and the fork stays rare.
    `p_good`: how often the first pair is a hit on purpose (otherwise by luck).
    """

    p_wait: float = 0.05
    p_continue: float = 0.9
    long_share: float = 0.5
    p_good: float = 0.0

    def __post_init__(self):
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise UserError(f"{name} is {value!r}, but a probability lies between 0 and 1.")


class PairTask(Task):
    """`difficulty` is M, the count of numbers. At M = 4 a random pair is right about 1 in 5.

    prompt ``⟨pair⟩⟨3⟩⟨8⟩⟨10⟩⟨1⟩⟨=9⟩``; trace: tries ``a b sum verdict`` with ``⟨wait⟩`` between
    them, ``⟨3⟩⟨10⟩⟨1⟩⟨no⟩⟨wait⟩⟨8⟩⟨1⟩⟨9⟩⟨yes⟩``; answer ``⟨8⟩⟨1⟩``. Every pair that hits is right.

    >>> problem = PairTask().sample(0)
    >>> PairTask().verify(problem, f"<think>\\n\\n</think>\\n{problem.answer}<end_of_sentence>\\n").reward
    1.0
    """

    name = "pair"
    symbols = (symbol("pair"), *NUMBERS, *TARGETS, YES, NO, WAIT, NEXT)
    difficulties = range(3, 7)
    default_difficulty = 4
    answer_grammar = re.compile(_NUMBER + _NUMBER)

    def _draw(self, rng, difficulty):
        numbers = rng.sample(range(MODULUS), difficulty)
        target = sum(rng.sample(numbers, 2)) % MODULUS
        pairs = _shuffled_pairs(rng, numbers)
        stop = 1 + next(i for i, pair in enumerate(pairs) if _hits(pair, target))
        return Problem(
            family=self.name,
            prompt=symbol("pair") + "".join(NUMBERS[n] for n in numbers) + TARGETS[target],
            trace=WAIT.join(_line(pair, target) for pair in pairs[:stop]),
            answer=_written(pairs[stop - 1]),
            key="pair " + " ".join(map(str, sorted(numbers))),
            difficulty=difficulty,
            data={"numbers": tuple(numbers), "target": target},
        )

    def is_right(self, problem, answer):
        a, b = (_VALUE[s] for s in self.answer_grammar.fullmatch(answer).groups())
        return _listed((a, b), problem) and _hits((a, b), problem.data["target"])

    def demonstrate(self, problem, seed, demonstrator: PairDemonstrator = PairDemonstrator()):
        """The lazy search described at the top of this file; the answer is the last pair tried,
        right or wrong. Every pair is tried at most once."""
        rng, target = self._rng("demonstrate", problem.prompt, seed), problem.data["target"]
        pairs = _shuffled_pairs(rng, problem.data["numbers"])
        never_gives_up = rng.random() < demonstrator.long_share
        if rng.random() < demonstrator.p_good:
            pairs.sort(key=lambda pair: not _hits(pair, target))
        tried = 1
        while not _hits(pairs[tried - 1], target):
            go_on = demonstrator.p_wait if tried == 1 else demonstrator.p_continue
            if not never_gives_up and rng.random() >= go_on:
                break
            tried += 1
        first, *later = (_line(pair, target) for pair in pairs[:tried])
        reasoning = [(first, True)]
        if later and never_gives_up:
            reasoning += [(WAIT, False), (WAIT.join(later), True)]
        elif later:
            reasoning = [(WAIT.join([first, *later]), True)]
        return Demonstration(problem.prompt, reasoning, _written(pairs[tried - 1]))

    def practice(self, seed, difficulty=None, *, lines: int = 7, hit_share: float = 0.35):
        """Arithmetic and verdicts, without search: a prompt and random worked lines, left open.
        With the natural share of hits (1 in 5) the verdict is learnt last, hence `hit_share`."""
        problem = self.sample(seed, difficulty, split="train")
        rng, target = self._rng("practice", problem.prompt, seed), problem.data["target"]
        groups = {True: [], False: []}
        for pair in combinations(problem.data["numbers"], 2):  # never all hit: a+b != a+c
            groups[_hits(pair, target)].append(pair)
        worked = []
        for _ in range(lines):
            pair = rng.choice(groups[rng.random() < hit_share])
            worked.append(_line(rng.sample(pair, 2), target))
        return Demonstration(problem.prompt, [(NEXT.join(worked), True)], None)

    def _measure(self, problem, parsed):
        """`tries` (complete ones) and `repeats` (pairs tried before) are counts, as is `waits`;
        `valid` (two different listed numbers), `sums` and `verdicts` (given the written sum)
        are shares of the tries; `wait_after_first_no` is 1 or 0 once a try has failed."""
        tries = [m.groups() for m in map(_TRY.fullmatch, parsed.thinking.split(WAIT)) if m]
        rows = [(_VALUE[a], _VALUE[b], _VALUE[s], verdict == YES) for a, b, s, verdict in tries]
        parts = {
            "tries": float(len(rows)),
            "repeats": float(len(rows) - len({frozenset(row[:2]) for row in rows})),
            "waits": float(parsed.thinking.count(WAIT)),
        }
        if rows:
            target, n = problem.data["target"], len(rows)
            parts["valid"] = sum(_listed((a, b), problem) for a, b, _, _ in rows) / n
            parts["sums"] = sum((a + b) % MODULUS == s for a, b, s, _ in rows) / n
            parts["verdicts"] = sum((s == target) == yes for _, _, s, yes in rows) / n
        _, failed, after = parsed.thinking.partition(NO)
        if failed and (after or parsed.well_formed):  # cut right after the verdict: unknown
            parts["wait_after_first_no"] = float(after.startswith(WAIT))
        return parts


def _hits(pair, target) -> bool:
    return sum(pair) % MODULUS == target


def _listed(pair, problem) -> bool:
    a, b = pair
    return a != b and a in problem.data["numbers"] and b in problem.data["numbers"]


def _written(pair) -> str:
    return NUMBERS[pair[0]] + NUMBERS[pair[1]]


def _line(pair, target) -> str:
    return _written(pair) + NUMBERS[sum(pair) % MODULUS] + (YES if _hits(pair, target) else NO)


def _shuffled_pairs(rng, numbers) -> list:
    """Every pair once, in random order, each in a random order of its two numbers."""
    pairs = [rng.sample(pair, 2) for pair in combinations(numbers, 2)]
    rng.shuffle(pairs)
    return pairs
