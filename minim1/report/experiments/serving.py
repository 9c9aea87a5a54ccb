"""What does a thinking budget buy, before and after RL? And what does rounding the weights cost the shipped model?

    python -m minim1.report.experiments.serving      # minutes on two cores; report/results/serving.json

"budget": right answers to held-out `pair` problems whose thoughts are closed after so many tokens. "votes": the same
tokens spent on several short thoughts and a vote. "rounded": the model after its weights went through fewer bits; there
`pair` has ten seeds, as three could not tell int8 from fp32, and the text is read once, as nothing in that is drawn.
Budgets are whole tries of five tokens, the last without its wait: a try that is cut in two says nothing.
"""

import copy
import math
import re
from collections.abc import Mapping, Sequence

import torch

from minim1.data.corpus import encode_corpus, load_corpus
from minim1.data.packing import heldout_windows
from minim1.evaluate import (
    Answer,
    answer,
    bits_per_byte,
    heldout_problems,
    score,
    task_sampling,
)
from minim1.model.decoder import MiniM1
from minim1.model.int8 import SKIPPED
from minim1.report.experiments import Experiment, head, runner, values
from minim1.report.experiments import stored as stored_result
from minim1.tasks.base import parse_completion
from minim1.train.checkpoint import Loaded, load

SEEDS, PAIR_SEEDS, PROBLEMS = range(3), range(10), 256  # PAIR_SEEDS: of `pair` with rounded weights
MODELS = {"after SFT": "shipped/sft", "after RL": "shipped"}
BUDGETS = (4, 9, 14, 19, 24, 34, 44, 64, 94)
VOTES = ((4, (1, 3, 9)), (14, (1, 3, 9)), (44, (1, 3)))  # budget, how many answers
ANSWER = 24  # tokens left for what follows the thought
ROUNDINGS = {  # name -> how the weights are rounded (see `rounded`)
    "fp32": None, "bf16": {"bits": 16}, "int8, M1's way": {"bits": 8}, "int8, nothing skipped": {"bits": 8, "skip": ()},
    "int8, one scale a matrix": {"bits": 8, "per_channel": False}, "4 bits": {"bits": 4}, "3 bits": {"bits": 3},
    "2 bits": {"bits": 2},
}
FAMILIES = ("pair", "add", "sort", "recall")
WINDOWS, PARTS = 64, 4  # windows of 256 tokens of held-out Python in each of so many parts


def think(run: Loaded, budget: int | None, seed: int, *, family: str = "pair", problems: int = PROBLEMS,
          samples: int = 1) -> list[Answer]:
    """Answers to held-out problems with thoughts of at most `budget` tokens (None: no budget, 72 tokens in all)."""
    length = 72 if budget is None else budget + ANSWER
    sampling = task_sampling(run.tokenizer, max_new_tokens=length, thinking_budget=budget, seed=seed,
                             samples_per_prompt=samples)
    return answer(run.model, run.tokenizer, heldout_problems(family, problems), sampling)


def budget_curve(run: Loaded, seed: int, budgets: Sequence[int] = BUDGETS, problems: int = PROBLEMS) -> list[dict]:
    """[{budget, accuracy, thinking, format}] for each budget."""
    found = []
    for budget in budgets:
        result = score("pair", think(run, budget, seed, problems=problems))
        found.append({"budget": budget, "accuracy": result.accuracy, "thinking": result.thinking,
                      "format": result.parts["format"]})
    return found


def vote(answers: Sequence[Answer], samples: int) -> float:
    """Share of problems whose most frequent answer (the first of several) is right; neighbours belong together.

    Two answers are the same when they name the same numbers in any order; one in no right form has no vote.
    """
    right = 0
    for start in range(0, len(answers), samples):
        said = {}
        for each in answers[start : start + samples]:
            if numbers := tuple(sorted(re.findall(r"\d+", parse_completion(each.completion).answer))):
                said.setdefault(numbers, []).append(each.verdict.reward)
        right += max(said.values(), key=len, default=[0])[0]
    return right * samples / len(answers)


def rounded(model: MiniM1, bits: int, *, skip: Sequence[str] = SKIPPED, per_channel: bool = True) -> MiniM1:
    """A copy in fp32 whose matrices hold only what `bits` can say: 16 is bfloat16, fewer are symmetric whole numbers.

    With 8 bits it computes what `to_int8` does, as fast as an ordinary model, in an ordinary model's memory.
    """
    made, largest = copy.deepcopy(model), 2 ** (bits - 1) - 1
    for name, weight in made.named_parameters():
        if weight.ndim < 2 or set(skip) & set(name.split(".")):
            continue
        if bits == 16:
            weight.data = weight.data.bfloat16().float()
            continue
        size = weight.data.abs().amax(-1 if per_channel else (-2, -1), keepdim=True)
        scale = torch.where(size > 0, size / largest, 1.0)
        weight.data = (weight.data / scale).round() * scale
    return made


def text_windows(tokenizer, parts: int = PARTS, windows: int = WINDOWS) -> list:
    """Held-out Python in `parts` pieces of so many windows each."""
    stream = encode_corpus(load_corpus("stdlib").heldout, tokenizer)
    whole = heldout_windows(stream, 256, parts * windows)
    return [whole.slice(slice(part, None, parts)) for part in range(parts)]


def votes(run: Loaded, seed: int, rows: Sequence = VOTES, problems: int = PROBLEMS) -> list[dict]:
    """[{budget, samples, accuracy, thinking}] for each number of answers; thinking: tokens of all of them together."""
    found = []
    for budget, numbers in rows:
        for samples in numbers:
            answers = think(run, budget, seed, problems=problems, samples=samples)
            found.append({"budget": budget, "samples": samples, "accuracy": vote(answers, samples),
                          "thinking": samples * sum(a.thinking for a in answers) / len(answers)})
    return found


def bits_added(loaded: Loaded, windows: Sequence) -> dict[str, list[float]]:
    """Bits per byte of each part of a text: of the weights as they are ("fp32"), and what each rounding adds."""
    whole = [bits_per_byte(loaded.model, loaded.tokenizer, part) for part in windows]
    found = {"fp32": whole}
    for name, how in ROUNDINGS.items():
        if how is not None:
            model = rounded(loaded.model, **how)
            found[name] = [bits_per_byte(model, loaded.tokenizer, part) - w for part, w in zip(windows, whole)]
    return found


def accuracies(loaded: Loaded, rounding: str, seed: int, problems: int = PROBLEMS) -> dict[str, float]:
    """Right answers by family, of the rounded model; only `pair` for the seeds that the others do not have."""
    how = ROUNDINGS[rounding]
    made = loaded if how is None else loaded._replace(model=rounded(loaded.model, **how))
    return {family: score(family, think(made, None, seed, family=family, problems=problems)).accuracy
            for family in (FAMILIES if seed in SEEDS else ("pair",))}


def run(arm: str, seed: int, scale: str) -> object:
    """One arm of `EXPERIMENT`, by the name before its comma."""
    part, _, name = arm.partition(", ")
    loaded, smoke = load(MODELS.get(name, "shipped")), scale == "smoke"
    problems = 4 if smoke else PROBLEMS
    if part == "budget":
        return budget_curve(loaded, seed, BUDGETS[::4] if smoke else BUDGETS, problems)
    if part == "votes":
        return votes(loaded, seed, VOTES[1:2] if smoke else VOTES, problems)
    if part == "text":
        return bits_added(loaded, text_windows(loaded.tokenizer, 2, 1) if smoke else text_windows(loaded.tokenizer))
    return accuracies(loaded, name, seed, problems)


def arranged(result: Mapping) -> dict:
    """A result by part: "budgets" {model: [a `budget_curve` for each seed]}; "votes" [{budget, samples, and for each
    seed accuracy, thinking}]; "rounded" {name: {"bits_per_byte": of each part of the text, "accuracy": {family: of each
    seed}}}; and `head`, "settings"."""
    added = values(result, "text")[0]
    by_seed = list(zip(*values(result, "votes")))
    kept = {}
    for name in ROUNDINGS:
        bits = added["fp32"] if name == "fp32" else [round(w + a, 8) for w, a in zip(added["fp32"], added[name])]
        runs = values(result, f"rounded, {name}")
        right = {family: [found[family] for found in runs if family in found] for family in FAMILIES}
        kept[name] = {"bits_per_byte": bits, "accuracy": right}
    return {
        **head(result), "settings": result["settings"],
        "budgets": {name: values(result, f"budget, {name}") for name in MODELS},
        "votes": [{"budget": rows[0]["budget"], "samples": rows[0]["samples"],
                   **{key: [row[key] for row in rows] for key in ("accuracy", "thinking")}} for rows in by_seed],
        "rounded": kept,
    }


def stored() -> dict:
    """The committed result, `arranged`."""
    return arranged(stored_result("serving"))


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean and range.

    >>> spread([0.1, 0.2, 0.3], 1)
    '0.2 [0.1, 0.3]'
    """
    mean = math.fsum(values) / len(values)
    return f"{mean:.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


EXPERIMENT = Experiment(
    "serving",
    {**{f"budget, {name}": SEEDS for name in MODELS}, "votes": SEEDS, "text": (0,),
     **{f"rounded, {name}": PAIR_SEEDS for name in ROUNDINGS}},
    run, {"problems": PROBLEMS, "budgets": BUDGETS, "votes": VOTES, "answer": ANSWER, "roundings": ROUNDINGS,
          "windows": WINDOWS, "parts": PARTS},
)

if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
