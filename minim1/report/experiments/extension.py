"""Does a long jump in row length make the gradient explode, and does going there in stages avoid it?

    python -m minim1.report.experiments.extension      # five minutes on one core; writes report/results/extension.json

Seven lightning layers and one softmax layer (half of each head turned) learn to look records up in rows of 64 tokens,
then go on in rows of 512: "staged" by doubling the length three times, "abrupt" at once, with as many tokens in all.
M1 went from 32K to 1M tokens in four stages, whose lengths are not published (M1 report §2.1).

Fixed before any row was made longer, and why: rows, records and network are those of `long_context` (its heads of 16
numbers, learning rate, clipping and base) with M1's pattern of eight layers, since M1 explains the explosion by early
layers that cannot follow late ones. Every step has 8 rows with 8 answers that count, so that the noise of the gradient
is alike at all lengths. The learning rate is constant after a warm-up and Adam keeps its moments, so that nothing else
changes at a switch but the base of RoPE, which grows by 500^(1/4) for every doubling, as M1's did from 8K to 128K. The
steps follow from the time, less than a minute for a run; that 300 suffice for the short rows was seen on seed 100.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import mean, median

import torch
import torch.nn.functional as F
from torch import nn

from minim1.model.decoder import MiniM1, SoftmaxAttention
from minim1.report.experiments import Experiment, runner
from minim1.report.experiments.long_context import BASE, LEARNING_RATE, NEEDLES, needle_config, needle_rows

LAYERS, ROTARY_DIM, ROWS, WARMUP = "LLLLLLLS", 8, 8, 20
SHORT, SHORT_STEPS, STAGE_STEPS = 64, 300, 40
STAGES = {"staged": (128, 256, 512), "abrupt": (512,)}
GROWTH = 500**0.25  # of the base, for every doubling of the length
BEFORE = 50  # steps before the first switch whose median gradient is the measure of what comes after


def plan(way: str, short_steps: int = SHORT_STEPS, stage_steps: int = STAGE_STEPS) -> list[tuple[int, int]]:
    """(tokens of a row, steps) of the short stage and of those after it, which read as many tokens whatever the way.

    >>> plan("staged"), plan("abrupt")
    ([(64, 300), (128, 40), (256, 40), (512, 40)], [(64, 300), (512, 70)])
    """
    budget, lengths = stage_steps * sum(STAGES["staged"]), STAGES[way]
    return [(SHORT, short_steps)] + [(tokens, budget // sum(lengths)) for tokens in lengths]


def set_base(model: MiniM1, tokens: int) -> None:
    """Give every softmax layer the base of RoPE that belongs to rows of `tokens`."""
    for module in model.modules():
        if isinstance(module, SoftmaxAttention):
            module.theta = BASE * GROWTH ** math.log2(tokens / SHORT)


def train(stages: Sequence[tuple[int, int]], seed: int) -> list[dict]:
    """One network through all stages.

    Returns: for each stage {"tokens" of a row, "loss": [nats], "norm": [of the gradient before clipping]}, by step.
    """
    model, generator = MiniM1(needle_config(LAYERS, ROTARY_DIM), seed=seed), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) / WARMUP))
    records = []
    for tokens, steps in stages:
        set_base(model, tokens)
        records.append({"tokens": tokens, "loss": [], "norm": []})
        for _ in range(steps):
            input_ids, wanted = needle_rows(generator, tokens, ROWS)
            loss = F.cross_entropy(model(input_ids).logits[:, -NEEDLES:].flatten(0, 1), wanted.flatten())
            optimizer.zero_grad()
            loss.backward()
            records[-1]["norm"].append(nn.utils.clip_grad_norm_(model.parameters(), 1.0).item())
            records[-1]["loss"].append(loss.item())
            optimizer.step()
            schedule.step()
    return records


def growth(records: Sequence[Mapping]) -> dict[str, float]:
    """Gradients after the first switch, relative to the median before it, and the loss at the end.

    Returns: "max" and "median" of the relative norms; "learning": the largest relative norm of the short stage, which
        is what learning looks like where nothing explodes; "loss": mean of the last 20 steps.
    """
    short, later = records[0]["norm"], [norm for record in records[1:] for norm in record["norm"]]
    usual = median(short[-BEFORE:])
    return {"max": max(later) / usual, "median": median(later) / usual, "learning": max(short) / usual,
            "loss": mean(records[-1]["loss"][-20:])}


def exploded(records: Sequence[Mapping], times: float = 10.0) -> bool:
    """Is a gradient after a switch larger than `times` the usual one before, and than any while the rows were short?"""
    short, later = records[0]["norm"], [norm for record in records[1:] for norm in record["norm"]]
    bar = max(times * median(short[-BEFORE:]), *short)
    return any(not norm <= bar for norm in later)  # NaN is an explosion, too


def run(arm: str, seed: int, scale: str) -> list[dict]:
    """`train` at a scale."""
    return train(plan(arm, 4, 1) if scale == "smoke" else plan(arm), seed)


EXPERIMENT = Experiment(
    "extension", {way: range(3) for way in STAGES}, run,
    {"layers": LAYERS, "rows": ROWS, "plans": {way: plan(way) for way in STAGES}, "base": BASE, "growth": GROWTH,
     "learning_rate": LEARNING_RATE},
)

if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
