"""How does the loss fall with compute, and how well do small runs know it? A tiny scaling law, with its uncertainty.

Five widths of the hybrid network, three seeds each, trained on the text of Python's standard library at a learning rate
that stays constant after the warm-up (so did the runs of the MiniMax-01 report, §2.2), and asked for the loss on
held-out text at doubling numbers of tokens. Every such point costs C = 6 N D FLOPs; the best loss that any width
reaches at C is fitted with L = a C^-b, and the runs are drawn again, seed by seed, for the band.

    python -m minim1.report.experiments.scaling [--seeds 10 11 12] [--out FILE.json]
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch

import minim1
from minim1.config import M1Config, hybrid_pattern
from minim1.data.corpus import TokenStream, encode_corpus, stdlib_corpus
from minim1.data.packing import Batch, heldout_windows, step_seed, text_rows
from minim1.model.decoder import MiniM1
from minim1.report.experiments import RESULTS, write_result
from minim1.train.loop import StageConfig, Trainer
from minim1.train.losses import next_token_loss
from minim1.train.optim import OptimConfig

WIDTHS, LAYERS = (16, 24, 32, 48, 64), 4  # three lightning layers, then one with softmax attention
ROWS, LENGTH = 8, 256  # of a step
STEPS = (12, 25, 50, 100, 200)  # when the held-out loss is asked for
OPTIM = OptimConfig(learning_rate=3e-3, decay=0.0)
WINDOWS = 48  # of held-out text
OUT = RESULTS / "scaling.json"


def config(width: int) -> M1Config:
    """The network of a width: heads of 8, four experts of which a token asks two."""
    return M1Config(hidden_size=width, intermediate_size=width, num_hidden_layers=LAYERS,
                    attn_type_list=hybrid_pattern(LAYERS, 4), num_attention_heads=width // 8,
                    num_key_value_heads=1, head_dim=8)


def multiplied(model: MiniM1) -> int:
    """N: weights that a token is multiplied with. The embedding is looked up, and experts not asked do nothing."""
    share = model.config.num_experts_per_tok / model.config.num_local_experts
    sizes = {name: p.numel() for name, p in model.named_parameters() if "embed" not in name and p.ndim > 1}
    return round(sum(size * (share if "experts" in name else 1) for name, size in sizes.items()))


def streams() -> tuple[TokenStream, TokenStream]:
    """The standard library's text for training, and what is held out, in tokens of the shipped tokenizer."""
    corpus, tokenizer = stdlib_corpus(), minim1.load("shipped").tokenizer
    return encode_corpus(corpus.train, tokenizer), encode_corpus(corpus.heldout, tokenizer)


@torch.no_grad()
def heldout_loss(model: MiniM1, windows: Batch) -> float:
    """Nats per token."""
    total = sum(
        next_token_loss(model(w.input_ids, document_ids=w.document_ids, positions=w.positions).logits, w.input_ids,
                        w.mask, total_tokens=1).loss.item()
        for w in (windows.slice(slice(at, at + 16)) for at in range(0, len(windows.input_ids), 16)))
    return total / windows.num_targets


def run(width: int, seed: int, train: TokenStream, windows: Batch, steps: Sequence[int] = STEPS) -> list[float]:
    """Train one network; the held-out loss after each of `steps`."""
    model, losses = MiniM1(config(width), seed=seed), []
    trainer = Trainer(
        model, lambda step: text_rows(train, seed=step_seed(seed, 0, "scaling"), step=step, rows=ROWS, length=LENGTH),
        StageConfig(steps=STEPS[-1], optim=OPTIM, seed=seed), quiet=True)
    for step in range(max(steps)):
        trainer.advance(step)
        if step + 1 in steps:
            losses.append(heldout_loss(model, windows))
    return losses


# ---------------------------------------------------------------- the fit


def frontier(points: dict[float, float]) -> dict[float, float]:
    """Of points C -> L those that no cheaper one reaches or beats, from the cheapest on."""
    best, kept = math.inf, {}
    for compute in sorted(points):
        if points[compute] < best:
            best = kept[compute] = points[compute]
    return kept


def fit(points: dict[float, float]) -> tuple[float, float]:
    """(a, b) of L = a C^-b: a straight line through the logarithms, by least squares."""
    x, y = (torch.tensor(list(values), dtype=torch.float64).log() for values in (points.keys(), points.values()))
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    return math.exp((y.mean() - slope * x.mean()).item()), -slope.item()


def of_one_draw(result: dict, chosen: dict[str, list[int]], low: float = 0.0) -> dict[float, float]:
    """C -> mean loss over the chosen seeds of each width, for C of at least `low`."""
    points = {}
    for width, rows in result["losses"].items():
        for at, steps in enumerate(result["steps"]):
            compute = 6 * result["multiplied"][width] * steps * result["tokens_per_step"]
            if compute >= low:
                points[compute] = sum(rows[i][at] for i in chosen[width]) / len(chosen[width])
    return points


def bootstrap(result: dict, draws: int = 1000, seed: int = 0, low: float = 0.0) -> list[tuple[float, float]]:
    """(a, b) for each of many draws: of every width's seeds as many as there are, with replacement, and a new fit."""
    generator, fits = torch.Generator().manual_seed(seed), []
    for _ in range(draws):
        chosen = {width: torch.randint(len(rows), (len(rows),), generator=generator).tolist()
                  for width, rows in result["losses"].items()}
        fits.append(fit(frontier(of_one_draw(result, chosen, low))))
    return fits


def main() -> None:
    from minim1.report.bench.command import machine
    from minim1.train.checkpoint import versions

    parser = argparse.ArgumentParser(prog="python -m minim1.report.experiments.scaling", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train, heldout = streams()
    windows = heldout_windows(heldout, LENGTH, WINDOWS)
    result = {"format": 1, "machine": machine("cpu"), "versions": versions(), "threads": 1, "seeds": arguments.seeds,
              "corpus": stdlib_corpus().info["sha256"], "steps": STEPS, "tokens_per_step": ROWS * LENGTH,
              "multiplied": {}, "losses": {str(width): [] for width in WIDTHS}}
    for width in WIDTHS:
        result["multiplied"][str(width)] = multiplied(MiniM1(config(width)))
    for seed in arguments.seeds:
        for width in WIDTHS:
            losses = [round(loss, 4) for loss in run(width, seed, train, windows)]
            result["losses"][str(width)].append(losses)
            print(f"seed {seed}, width {width}: {losses}", flush=True)
            write_result(arguments.out, result)


if __name__ == "__main__":
    main()
