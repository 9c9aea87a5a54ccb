"""What does a thinking budget buy, before and after RL? And what does rounding the weights cost the shipped model?

    python -m minim1.report.experiments.serving        # minutes on one core; writes minim1/report/results/serving.json

`budgets`: right answers to held-out `pair` problems whose thoughts are closed after so many tokens. `votes`: the same
tokens spent on several short thoughts and a vote. `rounded`: the model after its weights went through fewer bits.
"""

import argparse
import copy
import datetime
import math
import re
from collections.abc import Sequence
from pathlib import Path

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
from minim1.report.bench.command import machine, versions
from minim1.report.experiments import RESULTS, read_result, write_result
from minim1.tasks.base import parse_completion
from minim1.train.checkpoint import Loaded, load

RESULT = RESULTS / "serving.json"
SEEDS, PROBLEMS = (0, 1, 2), 256
PAIR_SEEDS = tuple(range(10))  # for `rounded`: three could not tell int8 from fp32
MODELS = {"after SFT": "shipped/sft", "after RL": "shipped"}
BUDGETS = (4, 9, 14, 19, 24, 34, 44, 64, 94)  # whole tries of five tokens, the last without its wait
VOTES = ((4, (1, 3, 9)), (14, (1, 3, 9)), (44, (1, 3)))  # budget, how many answers
ANSWER = 24  # tokens left for what follows the thought
ARMS = {  # name -> how the weights are rounded (see `rounded`)
    "fp32": None, "bf16": dict(bits=16), "int8, M1's way": dict(bits=8), "int8, nothing skipped": dict(bits=8, skip=()),
    "int8, one scale a matrix": dict(bits=8, per_channel=False), "4 bits": dict(bits=4), "3 bits": dict(bits=3),
    "2 bits": dict(bits=2),
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
        found.append({"budget": budget, "accuracy": round(result.accuracy, 4), "thinking": round(result.thinking, 2),
                      "format": round(result.parts["format"], 4)})
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


def experiment(write) -> dict:
    """Everything above, for each seed; `write(found)` is called after each piece."""
    torch.set_num_threads(1)
    found = {
        "format": 1, "date": datetime.date.today().isoformat(), "machine": machine("cpu"), "versions": versions(),
        "settings": {"seeds": SEEDS, "pair_seeds": PAIR_SEEDS, "problems": PROBLEMS, "threads": 1},
        "budgets": {}, "votes": [], "rounded": {},
    }
    runs = {name: load(path) for name, path in MODELS.items()}
    for name, run in runs.items():
        found["budgets"][name] = [budget_curve(run, seed) for seed in SEEDS]
        write(found)
    run = runs["after RL"]
    for budget, numbers in VOTES:
        for samples in numbers:
            row = {"budget": budget, "samples": samples, "accuracy": [], "thinking": []}
            for seed in SEEDS:
                answers = think(run, budget, seed, samples=samples)
                row["accuracy"].append(round(vote(answers, samples), 4))
                row["thinking"].append(round(samples * sum(a.thinking for a in answers) / len(answers), 2))
            found["votes"].append(row)
            write(found)
    windows = text_windows(run.tokenizer)
    for name, how in ARMS.items():
        made = run._replace(model=run.model if how is None else rounded(run.model, **how))
        found["rounded"][name] = {
            "bits_per_byte": [round(bits_per_byte(made.model, made.tokenizer, part), 5) for part in windows],
            "accuracy": {family: [round(score(family, think(made, None, seed, family=family)).accuracy, 4)
                                  for seed in (PAIR_SEEDS if family == "pair" else SEEDS)]
                         for family in FAMILIES},
        }
        write(found)
    return found


def stored() -> dict:
    """The committed result."""
    return read_result(RESULT)


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean and range.

    >>> spread([0.1, 0.2, 0.3], 1)
    '0.2 [0.1, 0.3]'
    """
    mean = math.fsum(values) / len(values)
    return f"{mean:.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=RESULT)
    out = parser.parse_args().out
    experiment(lambda found: write_result(out, found))
    print(f"written to {out}")


if __name__ == "__main__":
    main()
