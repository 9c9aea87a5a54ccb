"""What a task is: problems, demonstrations and verdicts, and the strict reading of a completion.

Everything here is text. A *task symbol* is a short readable string such as ``⟨7⟩`` that the
tokenizer keeps as one token; nothing stands between two symbols, because a space would cost a
token too. A completion is the assistant's turn from its first tag on::

    <think>\\n THINKING \\n</think>\\n ANSWER <end_of_sentence>\\n          (without the blanks)

The tags in such a string are control tokens: text that merely *spells* a tag reaches a verifier
escaped (``&lt;think>``) and is ordinary text.
"""

import hashlib
import random
from dataclasses import dataclass, field
from typing import NamedTuple

from minim1.errors import UserError

THINK, ANSWER, END = "<think>\n", "\n</think>\n", "<end_of_sentence>\n"
_TAGS = {"<think>": 1, "</think>": 1, "<end_of_sentence>": 1,
         "<beginning_of_sentence>": 0, "<begin_of_document>": 0}
_MAX_DRAWS = 1000
SPLITS = ("train", "heldout", "all")


@dataclass(frozen=True)
class Problem:
    """One problem: `prompt` is the user's message, `trace` a worked way to the `answer`.

    `key` is the identity that decides the split: problems that could give each other away (the
    same numbers in another order) share it. `data` is what the verifier needs.
    """

    family: str
    prompt: str
    trace: str
    answer: str
    key: str
    difficulty: int
    data: dict = field(hash=False)


@dataclass(frozen=True)
class Verdict:
    """`reward` in [0, 1]; `parts` has the named pieces. A part that does not apply is absent."""

    reward: float
    parts: dict[str, float] = field(hash=False)


@dataclass(frozen=True)
class Demonstration:
    """A document to imitate: `reasoning` in segments (text, supervised); a segment that is not
    supervised is read but carries no loss. `answer` None leaves the document open."""

    prompt: str
    reasoning: list[tuple[str, bool]] = field(hash=False)
    answer: str | None

    @property
    def thinking(self) -> str:
        """The reasoning as one string."""
        return "".join(text for text, _ in self.reasoning)


class Completion(NamedTuple):
    """A completion taken apart. `answer` is empty unless `well_formed`; `thinking` is as much as
    there is, so that a completion cut short can still be reported on."""

    thinking: str
    answer: str
    well_formed: bool


def parse_completion(text: str) -> Completion:
    """Take a completion apart, strictly.

    Well formed means: ``<think>\\n`` at the very start, ``\\n</think>\\n`` once,
    ``<end_of_sentence>\\n`` at the very end, and no further tag of these kinds anywhere.

    >>> parse_completion("<think>\\nhm\\n</think>\\n42<end_of_sentence>\\n")
    Completion(thinking='hm', answer='42', well_formed=True)
    >>> parse_completion("<think>\\nhm\\n</think>\\n42")       # cut before the end
    Completion(thinking='hm', answer='', well_formed=False)
    """
    if not text.startswith(THINK):
        return Completion("", "", False)
    thinking, closed, rest = text[len(THINK):].partition(ANSWER)
    if not (closed and rest.endswith(END) and all(text.count(t) == n for t, n in _TAGS.items())):
        return Completion(thinking, "", False)
    return Completion(thinking, rest[:-len(END)], True)


def format_completion(thinking: str, answer: str) -> str:
    """The inverse of `parse_completion`.

    >>> format_completion("hm", "42")
    '<think>\\nhm\\n</think>\\n42<end_of_sentence>\\n'
    """
    return THINK + thinking + ANSWER + answer + END


def held_out(key: str) -> bool:
    """Whether the problems with this key are kept for evaluation: about 20 % of all keys, by
    hash, the same on every machine and in every run.

    >>> sum(held_out(str(i)) for i in range(10_000)) / 10_000
    0.1962
    """
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:8], "big") % 5 == 0


def symbol(value: object) -> str:
    """The task symbol that reads as `value`.

    >>> symbol(7), symbol("wait")
    ('⟨7⟩', '⟨wait⟩')
    """
    return f"⟨{value}⟩"


class Task:
    """A family of verifiable problems. A subclass sets the four attributes and writes `_draw`;
    one with several right answers also overrides `is_right`; `_measure` adds parts for reports.

    `symbols`: every task symbol of the family; `difficulties`: the allowed values of the knob;
    `answer_grammar`: a compiled pattern that a legal answer matches from end to end.
    """

    name: str = ""
    symbols: tuple[str, ...] = ()
    difficulties: range = range(1)
    default_difficulty: int = 0
    answer_grammar = None

    def sample(self, seed: int, difficulty: int | None = None, *, split: str = "train") -> Problem:
        """The problem number `seed` of a split: a pure function of its arguments.

        `split` is "train", "heldout" or "all"; the first two share no key. Raises `UserError`
        for an unknown split, for a difficulty outside `difficulties`, and when a family has so few
        problems that none of them belongs to the split.
        """
        if split not in SPLITS:
            raise UserError(f"split is {split!r}, but must be one of {', '.join(SPLITS)}.")
        difficulty = self.check_difficulty(difficulty)
        rng = self._rng("sample", seed, difficulty, split)
        for _ in range(_MAX_DRAWS):
            problem = self._draw(rng, difficulty)
            if split == "all" or held_out(problem.key) == (split == "heldout"):
                return problem
        raise UserError(
            f"{self.name}: none of {_MAX_DRAWS} problems drawn belongs to the split {split!r}; "
            "there are too few different ones: choose settings that give more."
        )

    def verify(self, problem: Problem, completion: str) -> Verdict:
        """Judge a completion. The reward is 1 for the exact format with a right answer, else 0:
        nothing that is wrong with the completion raises. `parts` has `format` (the frame and
        the grammar of the answer), `correct`, and what the family measures in the thinking."""
        parsed = parse_completion(completion)
        legal = parsed.well_formed and self.answer_grammar.fullmatch(parsed.answer) is not None
        right = legal and self.is_right(problem, parsed.answer)
        parts = {"format": float(legal), "correct": float(right), **self._measure(problem, parsed)}
        return Verdict(float(right), parts)

    def is_right(self, problem: Problem, answer: str) -> bool:
        """Whether an answer that matches the grammar solves the problem."""
        return answer == problem.answer

    def demonstrate(self, problem: Problem, seed: int) -> Demonstration:
        """What supervised fine-tuning imitates: here the worked trace and the answer."""
        return Demonstration(problem.prompt, [(problem.trace, True)], problem.answer)

    def practice(self, seed: int, difficulty: int | None = None) -> Demonstration:
        """A pretraining document about a problem of the train split; here a worked problem."""
        return self.demonstrate(self.sample(seed, difficulty, split="train"), seed)

    def check_difficulty(self, difficulty: int | None) -> int:
        """The difficulty to use: the default for None. Raises `UserError` when out of range."""
        if difficulty is None:
            return self.default_difficulty
        if difficulty not in self.difficulties:
            raise UserError(
                f"{self.name}: difficulty is {difficulty!r}, but must be a whole number from "
                f"{self.difficulties[0]} to {self.difficulties[-1]}."
            )
        return difficulty

    def _draw(self, rng: random.Random, difficulty: int) -> Problem:
        raise NotImplementedError

    def _measure(self, problem: Problem, parsed: Completion) -> dict[str, float]:
        return {"working": float(parsed.well_formed and parsed.thinking == problem.trace)}

    def _rng(self, *purpose) -> random.Random:
        # A string seed keeps the streams of different families, purposes and signs apart.
        return random.Random(" ".join(map(str, (self.name, *purpose))))
