"""Checks of chapter 11: a verifier, group advantages, PPO's clipped loss, and the mask that it hides.

P prompts, G samples for each, B sequences, T time. What is expected is computed here in fp64, apart from the package.
"""

import random
from collections.abc import Callable
from itertools import permutations
from typing import NamedTuple

import torch
from torch import Tensor

from minim1.course.checking import Exercise, Probe
from minim1.tasks.base import Problem

# 11.1

TAGS = ("<think>", "</think>", "<end_of_sentence>", "<beginning_of_sentence>", "<begin_of_document>")


class Case(NamedTuple):
    """A completion of a problem, what it is worth, and what a verifier that says otherwise did not look at."""

    name: str
    numbers: tuple[int, ...]
    target: int
    text: str
    worth: float
    sentence: str


def written(answer: str, thinking: str = "⟨3⟩⟨1⟩⟨4⟩⟨no⟩") -> str:
    return f"<think>\n{thinking}\n</think>\n{answer}<end_of_sentence>\n"


def pair(a: int, b: int) -> str:
    return f"⟨{a}⟩⟨{b}⟩"


def problem_of(numbers: tuple[int, ...], target: int) -> Problem:
    """A problem whose `answer` is the first pair that hits, in the order of the numbers."""
    a, b = next((a, b) for a, b in permutations(numbers, 2) if (a + b) % 12 == target)
    prompt = "⟨pair⟩" + "".join(f"⟨{n}⟩" for n in numbers) + f"⟨={target}⟩"
    return Problem("pair", prompt, "", pair(a, b), f"pair {sorted(numbers)}", len(numbers), {"numbers": numbers,
        "target": target})


def drawn(rng: random.Random) -> tuple[tuple[int, ...], int]:
    """Four to six different numbers and a target that two pairs hit at least, two-digit numbers among them."""
    while True:
        numbers = tuple(rng.sample(range(12), rng.randint(4, 6)))
        target = sum(numbers[:2]) % 12
        hits = {frozenset(p) for p in permutations(numbers, 2) if sum(p) % 12 == target}
        if len(hits) > 1 and max(numbers) > 9:
            return numbers, target


def plain_cases(numbers: tuple[int, ...], target: int) -> list[Case]:
    """Every pair of the clock as the answer to one problem, in the right form."""
    first = tuple(int(n) for n in problem_of(numbers, target).answer.strip("⟨⟩").split("⟩⟨"))
    cases = []
    for a in range(12):
        for b in range(12):
            hit, listed, shown = (a + b) % 12 == target, {a, b} <= set(numbers), pair(a, b)
            where = f"numbers {numbers}, target {target}, answer {shown}"
            if hit and listed and a != b:
                if (a, b) == first:
                    remedy = "its sum modulo 12 is the target, both numbers are listed, and the thought is not judged."
                elif {a, b} == set(first):
                    remedy = "it is problem.answer in the other order, and either order is right."
                else:
                    remedy = "every listed pair that hits is right, not only that of problem.answer."
                if a + b >= 12:
                    remedy = "the sum is taken modulo 12, and every listed pair that hits is right, in either order."
                sentence = f"A right answer in the right form gets no reward ({where}): {remedy}"
            elif not hit:
                if abs(a - b) == target or a + b == target + 12:
                    sentence = f"A wrong sum is paid for ({where}): (A + B) mod 12 must be the target."
                else:
                    sentence = f"A pair that misses the target is paid for ({where})."
            elif a == b:
                sentence = f"The same number twice is paid for ({where}): A and B must be different."
            elif a in numbers or b in numbers:
                sentence = f"A pair with a number that is not listed is paid for ({where}): look at both."
            else:
                sentence = f"A pair of numbers that are both not listed is paid for ({where})."
            cases.append(Case("right pair" if hit and listed and a != b else "wrong pair", numbers, target,
                              written(shown),
                              float(hit and listed and a != b), sentence))
    return sorted(cases, key=lambda case: (-case.worth, case.text != written(pair(*first))))


def form_cases() -> list[Case]:
    """One problem, right answers in forms that are right or nearly right."""
    numbers, target = (3, 8, 10, 1), 9
    good, right = "⟨8⟩⟨1⟩", written("⟨8⟩⟨1⟩")
    cases = [
        ("empty thinking", written(good, ""), 1.0, "An answer after an empty thought gets no reward: THINKING may be "
                                                   "empty."),
        ("thinking of several lines", written(good, "one\n\ntwo"), 1.0,
         "A thought of several lines gets no reward: THINKING is any text; a dot in a regular expression stops at "
         "newlines unless "
         "re.DOTALL is given."),
        ("a thought of 4,000 characters", written(good, "hm, " * 1000), 1.0,
         "A long thought costs a right answer its reward: THINKING is any text, of any length."),
        ("wrong sums in the thinking", written(good, "⟨8⟩⟨1⟩⟨5⟩⟨no⟩⟨wait⟩⟨9⟩⟨9⟩⟨0⟩⟨yes⟩"), 1.0,
         "A right answer after a thought with wrong sums gets no reward: what the thought says is not judged."),
        ("signs of other markup in the thinking", written(good, "a < b > c </b> & <wait> 8 1 \\n"), 1.0,
         "A right answer gets no reward because of signs such as < in the thought: only the five tags are forbidden "
         "there."),
        ("blanks at the ends of the thinking", written(good, " \n hm \n"), 1.0,
         "A right answer gets no reward because of blanks at the ends of the thought: THINKING is any text."),
        ("answer in the thinking only", f"<think>\n{good}\n</think>\n<end_of_sentence>\n", 0.0,
         "A right pair in the thought is paid for although no answer follows: only what stands after </think> is the "
         "answer."),
        ("right pair in the thinking, wrong answer", written("⟨3⟩⟨1⟩", "⟨8⟩⟨1⟩⟨9⟩⟨yes⟩"), 0.0,
         "A wrong answer is paid for because the right pair stands in the thought: only what stands after </think> "
         "counts."),
        ("two answers", written("⟨3⟩⟨1⟩" + good), 0.0,
         "Two answers one after the other are paid for, the last of them right: between </think> and the end stand "
         "two symbols, no more."),
        ("two answers, the first right", written(good + "⟨3⟩⟨1⟩"), 0.0,
         "Two answers one after the other are paid for, the first of them right: between </think> and the end stand "
         "two symbols, no more."),
        ("two answers in two lines", written("⟨3⟩⟨1⟩\n" + good), 0.0,
         "Two answers in two lines are paid for: between </think> and the end stand two symbols and nothing else."),
        ("answer of one number", written("⟨8⟩"), 0.0, "An answer of a single number is paid for."),
        ("answer of three numbers", written("⟨8⟩⟨1⟩⟨0⟩"), 0.0, "An answer of three numbers is paid for: it has two."),
        ("no tag at all", good, 0.0, "The bare pair is paid for: the form is part of the task, from <think> to the "
                                     "last newline."),
        ("empty", "", 0.0, "The empty text is paid for."),
        ("unopened thinking", right.removeprefix("<think>\n"), 0.0, "A completion that does not begin with <think> is "
                                                                    "paid for."),
        ("unclosed thinking", f"<think>\n⟨3⟩⟨1⟩⟨4⟩⟨no⟩\n{good}<end_of_sentence>\n", 0.0,
            "A thought that is never closed is paid for."),
        ("cut before the end", right.removesuffix("<end_of_sentence>\n"), 0.0,
         "A completion without <end_of_sentence> is paid for: it was cut off."),
        ("without the last newline", right[:-1], 0.0, "A completion without its last newline is paid for: the form "
                                                      "ends with it."),
        ("something after the end", right + "and more", 0.0, "Text after <end_of_sentence> and its newline is paid "
                                                             "for: the form ends there."),
        ("a newline after the end", right + "\n", 0.0,
         "A second newline at the end is paid for: the form ends after one ($ in a regular expression also matches "
         "before a last "
         "newline; fullmatch and \\Z do not)."),
        ("something before the beginning", "well: " + right, 0.0,
         "Text before <think> is paid for: the form begins with the first character (re.search looks anywhere, "
         "re.fullmatch does not)."),
        ("a newline before the beginning", "\n" + right, 0.0, "A newline before <think> is paid for: do not strip the "
                                                              "completion."),
        ("blank before the answer", written(" " + good), 0.0, "A blank before the answer is paid for: nothing stands "
                                                              "between the pieces."),
        ("blank after the answer", written(good + " "), 0.0, "A blank after the answer is paid for: nothing stands "
                                                             "between the pieces."),
        ("newline after the answer", written(good + "\n"), 0.0,
         "A newline after the answer is paid for: nothing stands between the pieces (do not strip; $ also matches "
         "before a last newline)."),
        ("blank between the numbers", written("⟨8⟩ ⟨1⟩"), 0.0, "A blank between the two numbers is paid for."),
        ("blank in a number", written("⟨ 8⟩⟨1⟩"), 0.0, "A blank inside the brackets is paid for: ⟨8⟩ is the symbol "
                                                       "(int() ignores blanks)."),
        ("leading zero", written("⟨08⟩⟨1⟩"), 0.0, "⟨08⟩ is paid for: the symbols have no leading zeros."),
        ("sign", written("⟨+8⟩⟨1⟩"), 0.0, "⟨+8⟩ is paid for: the symbols are ⟨0⟩ to ⟨11⟩ (int() reads signs too)."),
        ("negative number", written("⟨8⟩⟨-11⟩"), 0.0, "⟨-11⟩ is paid for: the symbols are ⟨0⟩ to ⟨11⟩."),
        ("unicode digits", written("⟨٨⟩⟨١⟩"), 0.0,
         "Arabic-Indic digits are paid for: int() and \\d read digits of every script; write [0-9], or look the "
         "symbol up."),
        ("full-width digits", written("⟨８⟩⟨１⟩"), 0.0, "Full-width digits are paid for: int() and \\d read digits of "
                                                      "every script; write [0-9]."),
        ("superscript digits", written("⟨8⟩⟨¹⟩"), 0.0, "A superscript digit is paid for: only ASCII digits make a "
                                                       "symbol."),
        ("underscore", written("⟨0_8⟩⟨1⟩"), 0.0, "⟨0_8⟩ is paid for: int() reads underscores too; look the symbol up "
                                                 "instead."),
        ("a number above 11", written("⟨20⟩⟨13⟩"), 0.0, "⟨20⟩⟨13⟩ is paid for: the symbols end at ⟨11⟩."),
        ("other brackets", written("<8><1>"), 0.0, "Numbers in other brackets are paid for: ⟨ is U+27E8 and ⟩ U+27E9."),
        ("no brackets", written("81"), 0.0, "Numbers without brackets are paid for."),
        ("a symbol that is no number", written("⟨8⟩⟨wait⟩"), 0.0, "An answer with ⟨wait⟩ in it is paid for."),
        ("target symbol", written("⟨=8⟩⟨1⟩"), 0.0, "⟨=8⟩, the symbol of a target, is paid for as a number."),
        ("no newline after <think>", right.replace("<think>\n", "<think>"), 0.0, "A missing newline after <think> is "
            "paid for."),
        ("no newline before </think>", right.replace("\n</think>", "</think>"), 0.0,
            "A missing newline before </think> is paid for."),
        ("no newline after </think>", right.replace("</think>\n", "</think>"), 0.0, "A missing newline after </think> "
            "is paid for."),
        ("one newline for two", f"<think>\n</think>\n{good}<end_of_sentence>\n", 0.0,
         "One newline between <think> and </think> is paid for: an empty thought leaves both, one after <think> and "
         "one before </think>."),
        ("capital tags", right.replace("think>", "THINK>"), 0.0, "Tags in capitals are paid for."),
    ]
    for tag in TAGS:
        cases.append((f"{tag} in the thinking", written(good, f"hm {tag} hm"), 0.0,
                      f"A completion with {tag} in its thought is paid for: THINKING contains none of the five tags."))
    cases += [
        ("two closings", written(good, "⟨3⟩⟨1⟩\n</think>\n⟨3⟩⟨1⟩"), 0.0,
         "A completion that closes its thought twice is paid for: which of the two answers is it? THINKING contains "
         "no tag."),
        ("two whole completions", written("⟨3⟩⟨1⟩") + right, 0.0, "Two completions one after the other are paid for, "
                                                                  "the last of them right."),
        ("two whole completions, the first right", right + written("⟨3⟩⟨1⟩"), 0.0,
         "Two completions one after the other are paid for, the first of them right: the form ends after the first "
         "newline behind its end."),
        ("every pair", written("".join(pair(*p) for p in permutations(numbers, 2))), 0.0,
         "A list of all pairs is paid for: between </think> and the end stand two symbols, no more."),
    ]
    return [Case(name, numbers, target, text, worth, sentence) for name, text, worth, sentence in cases]


def reward(probe: Probe) -> None:
    none = probe.call([], [], problem=[])
    probe.equal("result for no completions", none, [])
    rng = random.Random(int(torch.randint(2**31, (), generator=probe.generator)))
    cases = [*plain_cases((3, 8, 10, 1), 9)[:2], *form_cases(), *plain_cases((2, 5, 11, 9), 4),
             *plain_cases(*drawn(rng))]
    for case in cases:
        alone(probe, case)
    mixed = list(cases)
    rng.shuffle(mixed)
    problems = [problem_of(case.numbers, case.target) for case in mixed]
    prompts, texts, column = [p.prompt for p in problems], [case.text for case in mixed], list(range(len(mixed)))
    found = probe.call(prompts, texts, problem=problems, step=column, note="ignored")
    probe.require(isinstance(found, (list, tuple)) and len(found) == len(mixed), "shape",
                  f"For {len(mixed)} completions reward returned {_count(found)}: one float for each, in their order.")
    worth = [case.worth for case in mixed]
    probe.equal(f"list of rewards of {len(mixed)} completions", list(map(float, found)), worth, layer="property",
                mistakes={
        **{f"All completions are judged by the {what} of the {name} problem: each has its own, problem[i].":
           (lambda of=of, other=other: [_worth(case, *of(case, other)) for case in mixed])
           for name, other in (("first", mixed[0]), ("last", mixed[-1])) for what, of in (
               ("numbers and target", lambda case, other: (other.numbers, other.target)),
               ("numbers", lambda case, other: (other.numbers, case.target)),
               ("target", lambda case, other: (case.numbers, other.target)))},
        "The rewards come in the opposite order: reward i belongs to completion i.": lambda: worth[::-1],
        "The rewards are sorted: reward i belongs to completion i.": lambda: sorted(worth),
    })
    unchanged = texts == [case.text for case in mixed] and prompts == [p.prompt for p in problems]
    probe.require(unchanged, "property", "reward changed the lists that it was given.")


def alone(probe: Probe, case: Case) -> None:
    """One completion; what the function raises is said with the completion in words."""
    problem = problem_of(case.numbers, case.target)
    try:
        found = probe.function([problem.prompt], [case.text], problem=[problem])
    except (Exception, SystemExit) as error:
        said = " ".join(str(error).split())[:120].rstrip(".")
        probe.require(False, "error", f"reward raised {type(error).__name__} ({said}) for a completion with "
                                      f"{case.name}: {_inline(case.text)}; whatever the text, it is worth 0.0 or 1.0.")
    probe.require(isinstance(found, (list, tuple)), "type",
                  f"reward returned {_count(found)}, expected a list with one float for each completion.")
    probe.require(len(found) == 1, "shape",
                  f"For one completion reward returned {_count(found)}: one float for each, no more.")
    probe.require(isinstance(found[0], (int, float)), "type",
                  f"The reward is {found[0]!r}, a {type(found[0]).__name__}; expected a float, 0.0 or 1.0.")
    text = _inline(case.text)
    probe.require(found[0] in (0, 1), "value",
                  f"The reward of {text} is {found[0]}, expected {case.worth}: it is 0.0 or 1.0.")
    probe.require(found[0] == case.worth, "value", f"{case.sentence} The completion: {text}")


def _worth(case: Case, numbers: tuple[int, ...], target: int) -> float:
    """What a case would be worth if its problem were another one."""
    if case.worth == 0 and case.name != "wrong pair":
        return 0.0
    a, b = (int(n) for n in case.text.partition("</think>\n")[2].partition("<")[0].strip("⟨⟩").split("⟩⟨"))
    return float({a, b} <= set(numbers) and a != b and (a + b) % 12 == target)


def _inline(text: str) -> str:
    shown = text.replace("\n", "\\n")
    return f'"{shown}"' if len(shown) < 110 else f'"{shown[:70]} … {shown[-35:]}"'


def _count(found) -> str:
    return f"{len(found)} values" if isinstance(found, (list, tuple)) else _kind(found)


# 11.2


def expected_advantages(rewards: Tensor, *, eps: float = 1e-6) -> Tensor:
    """(P, G) in fp64; exactly 0 in groups whose rewards are all equal."""
    centred = rewards.double() - rewards.double().mean(1, keepdim=True)
    flat = rewards.amax(1, keepdim=True) == rewards.amin(1, keepdim=True)
    return torch.where(flat, 0.0, centred / (centred.square().mean(1, keepdim=True).sqrt() + eps))


def advantage_mistakes(rewards: Tensor) -> dict[str, Callable]:
    r = rewards.double()
    mean, size = r.mean(1, keepdim=True), r.shape[1]
    centred = r - mean
    std = centred.square().mean(1, keepdim=True).sqrt()
    whole = r - r.mean()
    by_prompt, from_median = r - r.mean(0, keepdim=True), r - r.median(1, keepdim=True).values
    return {
        "The standard deviation divides by G - 1: the population's divides by G (torch.std needs correction=0).":
            lambda: centred / (std * (size / (size - 1)) ** 0.5 + 1e-6),
        "Only the mean is taken away: divide by the group's standard deviation, too.": lambda: centred,
        "The rewards are divided by the standard deviation, but the mean is not taken away.": lambda: r / (std + 1e-6),
        "Mean and standard deviation are those of the whole batch: each row is a group of its own.":
            lambda: whole / (whole.square().mean().sqrt() + 1e-6),
        "The mean is that of the whole batch, the standard deviation the group's: both belong to the group.":
            lambda: whole / (std + 1e-6),
        "The mean is that of the whole batch: it belongs to the group, as the standard deviation does.":
            lambda: whole / (whole.square().mean(1, keepdim=True).sqrt() + 1e-6),
        "The mean is the group's, the standard deviation that of the whole batch: both belong to the group.":
            lambda: centred / (whole.square().mean().sqrt() + 1e-6),
        "One standard deviation is taken over all groups together: each group has its own.":
            lambda: centred / (centred.square().mean().sqrt() + 1e-6),
        "Groups are columns for you: rewards[p] is the group of prompt p, so mean and standard deviation run along "
        "dim 1.":
            lambda: by_prompt / (by_prompt.square().mean(0, keepdim=True).sqrt() + 1e-6),
        "You divide by the variance: take its root first.": lambda: centred / (std**2 + 1e-6),
        "You divide by the mean absolute distance, not by the root of the mean squared distance.":
            lambda: centred / (centred.abs().mean(1, keepdim=True) + 1e-6),
        "The sign is turned round: better than the group's mean is positive.": lambda: -centred / (std + 1e-6),
        "Your baseline is the mean of the other answers: take that of the whole group, the answer itself included.":
            lambda: centred * size / (size - 1) / (std + 1e-6),
        "The median is taken away: take the mean.":
            lambda: from_median / (from_median.square().mean(1, keepdim=True).sqrt() + 1e-6),
        "The median is taken away, then divided by the right deviation: take the mean away.":
            lambda: from_median / (std + 1e-6),
        "Nothing is added to the standard deviation, or it is only kept above 1e-6: add 1e-6 to it.":
            lambda: expected_advantages(rewards, eps=0.0),
        **{f"The constant added to the standard deviation is {eps:.0e}, expected 1e-06.":
           (lambda eps=eps: expected_advantages(rewards, eps=eps)) for eps in (1e-8, 1e-5, 1e-4, 1e-3)},
        "The 1e-6 is added under the root: add it to the root.": lambda: centred / (std**2 + 1e-6).sqrt(),
        "The rewards are brought to 0 ... 1, by smallest and largest: divide the distance from the mean by the "
        "standard deviation.":
            lambda: (r - r.amin(1, keepdim=True)) / (r.amax(1, keepdim=True) - r.amin(1, keepdim=True)),
    }


def advantages(probe: Probe) -> None:
    prompts, size = probe.size(2, 3), probe.size(4, 6)
    rewards = probe.random(prompts, size) + 0.5

    def compare(name: str, rewards: Tensor, layer: str = "value", **more: Callable) -> None:
        found, expected = probe.call(rewards), expected_advantages(rewards)
        probe.tensor(name, found, shape=rewards.shape, dtype=rewards.dtype, axes="PG")
        if rewards.dtype == torch.float64:
            in_float64(probe, name, found, expected)
        probe.close(name, found, expected, axes="PG", layer=layer, mistakes={**more, **advantage_mistakes(rewards)})

    compare("result", rewards)
    other = probe.random(prompts, size)
    compare("result of a second call", other, "property", **{
        "A second call gives the result of the first: something was kept between calls.":
            lambda: expected_advantages(rewards)})
    near = torch.tensor([[0.0, 1e-6, 2e-6, 3e-6]])
    compare("result for rewards that differ by millionths", near, "edge case", **{
        "A group with small differences is treated as flat: only equal rewards get 0.":
            lambda: torch.zeros(1, 4).double(),
    })
    compare("result for float64 rewards", rewards.double(), "property")
    compare("result for 4 groups of 4", probe.random(4, 4))
    compare("result for zeros and ones", torch.tensor([[1.0, 0, 0, 0, 0, 0, 0, 0], [1.0, 1, 1, 1, 1, 1, 1, 0],
                                                       [0.0] * 8, [1.0] * 8]))
    lone = torch.tensor([[1.0] + [0.0] * 15, [1.0, 1.0] + [0.0] * 13 + [1.0]])
    compare("result for one and three successes of 16", lone, "property", **{
        "Large advantages are limited: a lone success among 16 gets 3.87.":
            lambda: expected_advantages(lone).clamp(-3, 3),
        "A group whose first and last rewards are equal is treated as flat: all of its rewards must be.":
            lambda: expected_advantages(lone) * torch.tensor([[1.0], [0.0]])})
    for value in (0.1, 0.7, 1 / 3, -2.3, 1000.1):
        for count in (3, 7, 16):
            flat = torch.full((2, count), value)
            flat[1] = torch.arange(count)
            found = probe.tensor("result for a flat group", probe.call(flat), shape=flat.shape, axes="PG")
            largest = found[0].abs().max().item()
            probe.require(largest == 0, "edge case",
                          f"{count} equal rewards of {value:.4g} get advantages up to {largest:.2g}, expected exactly "
                          f"0: their mean is "
                          "rounded to another number; compare the group's largest reward with its smallest.")
            probe.require(torch.allclose(found[1:].double(), expected_advantages(flat[1:]), atol=1e-5), "edge case",
                          "Beside a group of equal rewards another group gets wrong advantages: each row is a group of "
                          "its own.")
    one = probe.tensor("result for groups of one", probe.call(probe.random(3, 1)), shape=(3, 1))
    probe.require((one == 0).all(), "edge case", "A group of one has nobody to compare with: its advantage is exactly "
                                                 "0.")
    close_by = 1024 + torch.tensor([[0.0, 1, 2, 5]]) / 1024
    compare("result for 1024, 1024 + 1/1024, ...", close_by, "edge case", **{
        "A group with small differences is treated as flat: only equal rewards get 0.":
            lambda: torch.zeros(1, 4).double()})
    large = 3000 + torch.tensor([[0.0, 1, 1, 3, 0, 0, 5, 1]]) / 8
    compare("result for 3000.0, 3000.125, ...", large, "edge case", **{
        "Rewards that share a large constant lose their digits: square the distances from the mean, not the rewards "
        "(the difference "
        "of two large squares is rounded away).": lambda: _by_squares(large)})


def in_float64(probe: Probe, name: str, value: Tensor, expected: Tensor) -> None:
    """For float64 inputs the digits must be those of float64."""
    error = ((value - expected).abs().max() / expected.abs().max()).item()
    probe.require(not 1e-9 < error < 1e-5, "property",
                  f"The {name} agrees in the digits of float32 only: compute in the dtype of the inputs, without "
                  f".float().")


def _by_squares(rewards: Tensor) -> Tensor:
    mean = rewards.mean(1, keepdim=True)
    std = (rewards.square().mean(1, keepdim=True) - mean.square()).clamp(min=0).sqrt()
    return ((rewards - mean) / (std + 1e-6)).double()


# 11.3


def surrogate(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, *, low: float = 0.2,
              high: float = 0.2,
              total: float, term: Callable | None = None) -> Tensor:
    """PPO's loss in fp64, or that of another `term(ratio, advantages, clipped ratio, log-probs)` for each token."""
    new, old, a = (torch.where(mask, x, 0.0).double() for x in (logprobs, old_logprobs, advantages))
    ratio = (new - old).exp()
    clipped = ratio.clamp(1 - low, 1 + high)
    terms = torch.minimum(ratio * a, clipped * a) if term is None else term(ratio, a, clipped, new)
    return -torch.where(mask, terms, 0.0).sum() / total


def ppo_terms() -> dict[str, Callable]:
    """Sentence -> what the mistake sums up for each token."""
    return {
        "Nothing is clipped: take the smaller of r A and clip(r) A.": lambda r, a, c, new: r * a,
        "The ratio is clipped always: of r A and clip(r) A take the smaller one, so that a token on the wrong side "
        "keeps its gradient.":
            lambda r, a, c, new: c * a,
        "The larger of r A and clip(r) A is taken; it is the smaller one (the minus comes afterwards).":
            lambda r, a, c, new: torch.maximum(r * a, c * a),
        "For negative A the larger of the two products is taken, as when r and clip(r) are compared before they meet "
        "A: take the "
        "smaller product for both signs.": lambda r, a, c, new: torch.minimum(r, c) * a,
        "The ratio is upside down: it is new over old, exp(logprobs - old_logprobs).":
            lambda r, a, c, new: torch.minimum(a / r, (1 / r).clamp(0.8, 1.2) * a),
        "The ratio is the difference of the log-probabilities: take its exponential.":
            lambda r, a, c, new: torch.minimum(r.log() * a, r.log().clamp(0.8, 1.2) * a),
        "There is no ratio: this is REINFORCE, A log pi.": lambda r, a, c, new: a * new,
        "The ratio is the new probability alone: divide it by the old one, exp(logprobs - old_logprobs).":
            lambda r, a, c, new: torch.minimum(new.exp() * a, new.exp().clamp(0.8, 1.2) * a),
        "The lower bound is 1 / (1 + eps_low): it is 1 - eps_low.":
            lambda r, a, c, new: torch.minimum(r * a, r.clamp(1 / 1.2, 1.2) * a),
        "The lower bound is missing: clip(r) is at least 1 - eps_low.":
            lambda r, a, c, new: torch.minimum(r * a, r.clamp(max=1.2) * a),
        "The upper bound is missing: clip(r) is at most 1 + eps_high.":
            lambda r, a, c, new: torch.minimum(r * a, r.clamp(min=0.8) * a),
        "The ratio is clipped to -eps_low ... eps_high: its bounds are 1 - eps_low and 1 + eps_high.":
            lambda r, a, c, new: torch.minimum(r * a, r.clamp(-0.2, 0.2) * a),
        "The ratio is multiplied by log pi as well: that is CISPO's form; PPO's surrogate is r A, and its gradient "
        "goes through r.":
            lambda r, a, c, new: torch.minimum(r * a, c * a) * new,
        "A clipped weight multiplies A log pi: that is CISPO's form; PPO's surrogate is r A, and its gradient goes "
        "through r.":
            lambda r, a, c, new: c * a * new,
        "The logarithm of the ratio is clipped: clip the ratio.":
            lambda r, a, c, new: torch.minimum(r * a, r.log().clamp(-0.2, 0.2).exp() * a),
        "The advantages are used without their sign.": lambda r, a, c, new: torch.minimum(r * a.abs(), c * a.abs()),
    }


def batch(probe: Probe, rows: int, length: int, dtype: torch.dtype = torch.float32):
    """Log-probs, old ones, advantages, mask: ratios between 0.3 and 3, none within 1 % of the usual bounds."""
    old = -probe.random(rows, length).abs().double() - 0.1
    shift = torch.tensor([-1.1, -0.5, -0.1, 0.05, 0.12, 0.6, 1.0], dtype=torch.float64)
    picked = shift[torch.randint(len(shift), (rows, length), generator=probe.generator)] + 0.02 * probe.random(rows,
        length).double().tanh()
    advantages = probe.random(rows, length).double()
    advantages = torch.where(advantages < 0, advantages - 0.2, advantages + 0.2)
    mask = torch.rand(rows, length, generator=probe.generator) < 0.7
    mask[0, :3], mask[:, -1] = True, False
    return (old + picked).to(dtype), old.to(dtype), advantages.to(dtype), mask


def ppo_loss(probe: Probe) -> None:
    rows, length = probe.size(2, 3), 2 * probe.size(4, 6) + 1
    new, old, a, mask = batch(probe, rows, length)
    total, sequences = float(mask.sum() + 5), float(rows + 2)

    def loss_of(*given: Tensor, tokens: float = total, **options) -> Tensor:
        out = probe.call(*given, total_tokens=tokens, total_sequences=sequences, **options)
        probe.require(hasattr(out, "loss"), "type", f"ppo_loss returned {_kind(out)}, expected a LossOutput: end with "
                                                    f"`return LossOutput(loss)`.")
        return out.loss

    def expected(*given: Tensor, **options) -> Tensor:
        return surrogate(*given, **{"total": total, **options})

    everywhere = torch.ones_like(mask)
    sign = "The sign is turned round: the optimiser minimises, so the loss is minus the objective."
    mistakes = {
        sign: lambda: -expected(new, old, a, mask),
        "The mean over the masked tokens is taken: divide the sum by total_tokens, the count of the whole step.":
            lambda: expected(new, old, a, mask, total=float(mask.sum())),
        "You divide by total_sequences: divide by total_tokens.": lambda: expected(new, old, a, mask, total=sequences),
        "Nothing divides the sum: divide it by total_tokens.": lambda: expected(new, old, a, mask, total=1.0),
        "The mean over all tokens is taken, padding included: divide the sum by total_tokens.":
            lambda: expected(new, old, a, mask, total=float(mask.numel())),
        "The mask is not used: sum over the tokens where it is True.": lambda: expected(new, old, a, everywhere),
        "The mask is turned round: it is True at the tokens that count.": lambda: expected(new, old, a, ~mask),
        "Where mask is False the ratio is 1 and A still counts: mask the advantages, too.":
            lambda: expected(new, old, a, mask)
            - torch.where(mask, 0.0, a).double().sum() / total,
        "The surrogate is averaged within each sequence and then over sequences: that is GRPO's normaliser; sum all "
        "tokens and divide "
        "by total_tokens.": lambda: _per_sequence(new, old, a, mask) / sequences,
        **{sentence: (lambda term=term: expected(new, old, a, mask, term=term)) for sentence,
           term in ppo_terms().items()},
    }
    loss = loss_of(new, old, a, mask)
    probe.tensor("loss", loss, shape=(), dtype=torch.float32)
    probe.close("loss", loss, expected(new, old, a, mask), mistakes=mistakes)
    for low, high in ((0.1, 0.3), (0.5, 1.2), (0.2, 0.28)):
        other = expected(new, old, a, mask, low=low, high=high)
        probe.close(f"loss with eps_low {low}, eps_high {high}",
                    loss_of(new, old, a, mask, eps_low=low, eps_high=high), other, mistakes={
            "eps_low and eps_high are not used: yours clips at 0.2 whatever they are.":
                lambda: expected(new, old, a, mask),
            "eps_low and eps_high have changed places.": lambda: expected(new, old, a, mask, low=high, high=low),
            "Both bounds use eps_low.": lambda: expected(new, old, a, mask, low=low, high=low),
            "Both bounds use eps_high.": lambda: expected(new, old, a, mask, low=high, high=high),
        })
    gradient = {sentence: (lambda logprobs, term=term: expected(logprobs, old, a, mask, term=term))
                for sentence, term in {
                    "The ratio is detached: PPO's gradient goes through it.":
                        lambda r, a, c, new: torch.minimum(r * a, c * a).detach() + 0 * new,
                    "The ratio is detached and multiplied by log pi, with the same value as before but another "
                    "gradient.":
                        lambda r, a, c, new: torch.minimum(r * a, c * a).detach() * new,
                    "The tokens that the clip takes out still have a gradient.": lambda r, a, c, new: r * a,
                    "Tokens outside the bounds lose their gradient whatever the sign of A: r > 1 + eps_high does so "
                    "only for A > 0, "
                    "r < 1 - eps_low only for A < 0.": lambda r, a, c, new: c * a,
                }.items()}
    probe.gradients(lambda logprobs: loss_of(logprobs, old, a, mask), {"logprobs": new},
                    lambda logprobs: expected(logprobs, old, a, mask), mistakes=gradient)
    doubles = [x.double() for x in (new, old, a)]
    double = probe.tensor("loss for float64 inputs", loss_of(*doubles, mask), shape=(), dtype=torch.float64)
    in_float64(probe, "loss for float64 inputs", double.detach(), expected(*doubles, mask))
    probe.close("loss in float64", double, expected(*doubles, mask), layer="property", tolerance=2e-5)
    later = expected(new, old, -a, mask)
    probe.close("loss of a second call", loss_of(new, old, -a, mask), later, layer="property", mistakes={
        "A second call with other advantages gives the loss of the first: something was kept between calls.":
            lambda: expected(new, old, a, mask)})
    first_update(probe, loss_of, old, a, mask, total)
    padding(probe, loss_of, new, old, a, mask, expected)
    nothing = loss_of(new, old, a, torch.zeros_like(mask))
    probe.close("loss without any masked token", nothing, torch.zeros(()).double(), layer="edge case")
    steps = torch.tensor([-10.0, 10.0]).repeat(length)[:length].expand(rows, length)
    far, near = (steps - 10).contiguous(), torch.full((rows, length), -10.0)
    loss = probe.tensor("loss with log-ratios of 10", loss_of(far, near, a, mask), shape=())
    truth = expected(far, near, a, mask)
    probe.require(loss.detach().double().abs() > 0.5 * truth.abs(), "edge case",
                  f"With log-ratios of 10 the loss is {loss.item():.4g}, expected {truth.item():.4g}: r A is not "
                  f"limited where the clip does "
                  "not act, so limit neither the ratio nor its logarithm in another way.")
    probe.close("loss with log-ratios of 10", loss, truth, layer="edge case")


def first_update(probe: Probe, loss_of: Callable, old: Tensor, a: Tensor, mask: Tensor, total: float) -> None:
    """On the policy itself r = 1: the gradient is that of REINFORCE, -A / total."""
    leaf = old.clone().requires_grad_()
    [gradient] = torch.autograd.grad(loss_of(leaf, old, a, mask), leaf)
    expected = torch.where(mask, -a.double() / total, 0.0)
    probe.close("gradient where r = 1", gradient, expected, axes="BT", layer="property", mistakes={
        "Where r = 1 only half of the gradient arrives: the minimum of two equal products passes it on to one or both.":
            lambda: expected / 2,
        "Where r = 1 there is no gradient: the clip must not act inside its bounds.": lambda: 0 * expected,
    })


def padding(probe: Probe, loss_of: Callable, new: Tensor, old: Tensor, a: Tensor, mask: Tensor,
            expected: Callable) -> None:
    """What stands where nothing was sampled reaches neither the loss nor the gradient."""
    truth = expected(new, old, a, mask)
    for name, junk in (("NaN", torch.nan), ("infinity", torch.inf), ("minus infinity", -torch.inf), ("1e30", 1e30)):
        for spoilt in range(3):
            given = [torch.where(mask, x, junk) if n == spoilt else x for n, x in enumerate((new, old, a))]
            which = ("logprobs", "old_logprobs", "advantages")[spoilt]
            leaf = given[0].detach().clone().requires_grad_()
            loss = loss_of(leaf, given[1], given[2], mask)
            told = f"With {name} in {which} where mask is False"
            probe.require(bool(loss.isfinite()), "edge case",
                          f"{told} the loss is {loss.item():.3g}: multiplying by 0 does not remove it; use "
                          f"torch.where(mask, x, 0.0).")
            probe.require(torch.allclose(loss.double(), truth, rtol=1e-4, atol=1e-6), "edge case",
                          f"{told} the loss is {loss.item():.5g}, expected {truth.item():.5g}: "
                          "nothing of it may count.")
            [gradient] = torch.autograd.grad(loss, leaf)
            bad = ~gradient.isfinite()
            probe.require(not bad.any(), "edge case",
                          f"{told} the loss is right, but {int(bad.sum())} entries of the gradient are NaN or "
                          f"infinite: put 0 there "
                          "*before* the exponential, in logprobs, old_logprobs and advantages.")
            probe.require((gradient[~mask] == 0).all(), "edge case", f"{told} tokens that were not sampled get a "
                                                                     f"gradient.")


def _per_sequence(new: Tensor, old: Tensor, a: Tensor, mask: Tensor) -> Tensor:
    rows = [surrogate(*(x[i : i + 1] for x in (new, old, a, mask)),
                      total=max(1.0, float(mask[i].sum()))) for i in range(len(mask))]
    return torch.stack(rows).sum()


def _kind(value) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return "None" if value is None else f"a {type(value).__name__}"


# 11.4


def expected_mask(ratio: Tensor, a: Tensor, low: float, high: float) -> Tensor:
    return ~(((a > 0) & (ratio > 1 + high)) | ((a < 0) & (ratio < 1 - low)))


def mask_mistakes(ratio: Tensor, a: Tensor, low: float, high: float) -> dict[str, Callable]:
    up, down = ratio > 1 + high, ratio < 1 - low
    return {
        "The mask is turned round: True where the token keeps its gradient.":
            lambda: ~expected_mask(ratio, a, low, high),
        "The sign of A is not looked at: r above the upper bound loses its gradient only for A > 0, below the lower "
        "one only for A < 0.":
            lambda: ~(up | down),
        "The signs are exchanged: the upper bound concerns A > 0, the lower one A < 0.":
            lambda: ~(((a < 0) & up) | ((a > 0) & down)),
        "The upper bound is missing: A > 0 with r > 1 + eps_high gives False.": lambda: ~((a < 0) & down),
        "The lower bound is missing: A < 0 with r < 1 - eps_low gives False.": lambda: ~((a > 0) & up),
        "eps_low and eps_high have changed places.": lambda: expected_mask(ratio, a, high, low),
        "Both bounds use eps_low.": lambda: expected_mask(ratio, a, low, low),
        "Both bounds use eps_high.": lambda: expected_mask(ratio, a, high, high),
        "The ratio is compared with eps itself: the bounds are 1 + eps_high and 1 - eps_low.":
            lambda: ~(((a > 0) & (ratio > high)) | ((a < 0) & (ratio < low))),
        "The bounds are eps_high and -eps_low away from 0, not from 1.":
            lambda: ~(((a > 0) & (ratio > high)) | ((a < 0) & (ratio < -low))),
        "The lower bound is 1 / (1 + eps_low): it is 1 - eps_low.":
            lambda: ~(((a > 0) & up) | ((a < 0) & (ratio < 1 / (1 + low)))),
        "A token with A < 0 loses its gradient always: only where r < 1 - eps_low.":
            lambda: ~(((a > 0) & up) | (a < 0)),
        "A token with A < 0 and r above the upper bound loses its gradient: there the clip does not act.":
            lambda: ~(up | ((a < 0) & down)),
        "A token with A > 0 and r below the lower bound loses its gradient: there the clip does not act.":
            lambda: ~(((a > 0) & up) | down),
        "A token with advantage 0 is treated like a positive one: it keeps its gradient, M = 1.":
            lambda: ~(((a >= 0) & up) | ((a < 0) & down)),
        "A token with advantage 0 is treated like a negative one: it keeps its gradient, M = 1.":
            lambda: ~(((a > 0) & up) | ((a <= 0) & down)),
        "Only tokens with A > 0 and r inside the bounds are kept.": lambda: (a > 0) & ~up & ~down,
        "A token with A > 0 loses its gradient always: only where r > 1 + eps_high.":
            lambda: ~((a > 0) | ((a < 0) & down)),
        "The upper bound is eps_high: it is 1 + eps_high.": lambda: ~(((a > 0) & (ratio > high)) | ((a < 0) & down)),
        "The lower bound is eps_low: it is 1 - eps_low.": lambda: ~(((a > 0) & up) | ((a < 0) & (ratio < low))),
        "Every token keeps its gradient: r > 1 + eps_high with A > 0 gives False, and so does r < 1 - eps_low with A "
        "< 0.":
            lambda: torch.ones_like(up),
        "The logarithm of the ratio is compared with eps: compare the ratio with 1 + eps_high and 1 - eps_low.":
            lambda: ~(((a > 0) & (ratio.log() > high)) | ((a < 0) & (ratio.log() < -low))),
        "The logarithm of the ratio is compared with eps_high: compare the ratio with 1 + eps_high.":
            lambda: ~(((a > 0) & (ratio.log() > high)) | ((a < 0) & down)),
    }


def clip_mask(probe: Probe) -> None:
    rows, length = probe.size(3, 4), probe.size(20, 30)
    ratio = probe.random(rows, length).exp()
    a = probe.random(rows, length)

    def compare(name: str, ratio: Tensor, a: Tensor, low: float, high: float, layer: str = "value",
                **more: Callable) -> None:
        found = probe.call(ratio, a, low, high)
        probe.require(not isinstance(found, Tensor) or found.dtype == torch.bool, "type",
                      f"The mask is {str(getattr(found, 'dtype', '')).removeprefix('torch.')}, expected bool: True "
                      f"where the token keeps its "
                      "gradient.")
        probe.close(name, found, expected_mask(ratio, a, low, high), axes="BT", layer=layer,
                    mistakes={**more, **mask_mistakes(ratio, a, low, high)})

    compare("mask, eps 0.2 and 0.28", ratio, a, 0.2, 0.28)
    compare("mask, eps 0.4 and 0.1", ratio, a, 0.4, 0.1)
    compare("mask of float64 inputs", ratio.double(), a.double(), 0.3, 0.5, "property")
    compare("mask of a second call", ratio, -a, 0.2, 0.28, "property", **{
        "A second call with other advantages gives the mask of the first: something was kept between calls.":
            lambda: expected_mask(ratio, a, 0.2, 0.28)})
    zero = torch.zeros_like(a)
    compare("mask of tokens with advantage 0", ratio, zero, 0.2, 0.2, "edge case", **{
        "A token with advantage 0 is treated like a positive one: it keeps its gradient, M = 1.":
            lambda: ~(ratio > 1.2),
        "A token with advantage 0 is treated like a negative one: it keeps its gradient, M = 1.":
            lambda: ~(ratio < 0.8),
        "A token with advantage 0 loses its gradient where r is outside of the bounds: M = 1 there, too.":
            lambda: ~((ratio > 1.2) | (ratio < 0.8)),
        "A token with advantage 0 has M = 0 with you: it is 1.": lambda: torch.zeros_like(a, dtype=torch.bool)})
    signs = torch.tensor([1.0, -1.0, 0.0]).view(3, 1)
    for low, high in ((0.25, 0.25), (0.25, 0.5), (0.5, 0.25)):
        edges = torch.tensor([1 - low, 1.0, 1 + high]).expand(3, 3)
        compare(f"mask at the bounds, eps {low} and {high}", edges.contiguous(), signs.expand(3, 3).contiguous(), low,
                high,
            "edge case", **{
            "At the bounds themselves the gradient is kept: both inequalities are strict.":
                lambda: ~(((signs > 0) & (edges >= 1 + high)) | ((signs < 0) & (edges <= 1 - low))),
            "At the upper bound itself the gradient is kept: the inequality is strict.":
                lambda: ~(((signs > 0) & (edges >= 1 + high)) | ((signs < 0) & (edges < 1 - low))),
            "At the lower bound itself the gradient is kept: the inequality is strict.":
                lambda: ~(((signs > 0) & (edges > 1 + high)) | ((signs < 0) & (edges <= 1 - low))),
        })
    tiny = 1e-30 * a.sign()
    compare("mask of tiny advantages", ratio, tiny, 0.2, 0.2, "edge case", **{
        "Tiny advantages are taken for 0: their sign counts, not their size.":
            lambda: torch.ones_like(a, dtype=torch.bool),
        "Tiny positive advantages are taken for 0: their sign counts, not their size.":
            lambda: ~((a < 0) & (ratio < 0.8)),
        "Tiny negative advantages are taken for 0: their sign counts, not their size.":
            lambda: ~((a > 0) & (ratio > 1.2))})
    for low, high in ((float("inf"), 0.2), (0.2, float("inf")), (float("inf"), float("inf")), (2.0, 0.2), (0.0, 0.0)):
        compare(f"mask, eps {low} and {high}", ratio, a, low, high, "edge case")
    small = ratio / 1000
    compare("mask of ratios near 0, eps_low 1", small, a, 1.0, 0.2, "edge case", **{
        "With eps_low 1 a small ratio loses its gradient: the lower bound is 0 then, and no ratio is below it.":
            lambda: torch.where(a < 0, small >= 0.01, True)})
    near = torch.tensor([0.7495, 0.7505, 1.2495, 1.2505]).expand(2, 4)
    both = torch.tensor([[1.0], [-1.0]]).expand(2, 4)
    compare("mask 0.0005 from the bounds, eps 0.25", near.contiguous(), both.contiguous(), 0.25, 0.25, "edge case", **{
        "Ratios just outside of the bounds keep their gradient: the bounds have no tolerance.":
            lambda: torch.ones(2, 4, dtype=torch.bool)})
    one = ratio[:1, :1], a[:1, :1]
    compare("mask of one token", *one, 0.2, 0.2, "edge case")


def _package(name: str) -> Callable[[], Callable]:
    def reference() -> Callable:
        import minim1.tasks.rewards
        import minim1.train.losses

        return getattr(minim1.train.losses, name, None) or getattr(minim1.tasks.rewards, name)

    return reference


EXERCISES = (
    Exercise("11.1", "reward", "A verifier that cannot be talked round", reward, _package("verifier_reward"), (1, 2),
             part="rewards"),
    Exercise("11.2", "advantages", "Group advantages", advantages, _package("group_advantages"), (1, 2),
             part="advantages"),
    Exercise("11.3", "ppo_loss", "PPO's clipped loss", ppo_loss, _package("ppo_loss"), (1, 2)),
    Exercise("11.4", "clip_mask", "The mask it hides", clip_mask, lambda: expected_mask),
)
