"""How does the loss fall with compute, and how well do small runs know it? A tiny scaling law, with its uncertainty.

    python -m minim1.report.experiments.scaling        # some minutes on two cores; writes report/results/scaling.json

Five widths of the hybrid network, three seeds each, trained on the text of Python's standard library at a learning rate
that stays constant after the warm-up (so did the runs of the MiniMax-01 report, §2.2), and asked for the loss on
held-out text at doubling numbers of tokens. Every such point costs C = 6 N D FLOPs; the best loss that any width
reaches at C is fitted with L = a C^-b, and the runs are drawn again, seed by seed, for the band.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import torch

import minim1
from minim1.config import M1Config, hybrid_pattern
from minim1.data.corpus import Corpus, TokenStream, encode_corpus, stdlib_corpus
from minim1.data.packing import Batch, heldout_windows, step_seed, text_rows
from minim1.data.tokenizer import Tokenizer
from minim1.model.decoder import MiniM1
from minim1.report.experiments import Experiment, head, runner, seeds, values
from minim1.report.experiments import stored as stored_result
from minim1.train.loop import Trainer
from minim1.train.losses import next_token_loss
from minim1.train.settings import OptimConfig, StageConfig

WIDTHS, LAYERS = (16, 24, 32, 48, 64), 4  # three lightning layers, then one with softmax attention
ROWS, LENGTH = 8, 256  # of a step
STEPS = (12, 25, 50, 100, 200)  # when the held-out loss is asked for
OPTIM = OptimConfig(learning_rate=3e-3, decay=0.0)
WINDOWS = 48  # of held-out text


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


@cache
def tokenizer() -> Tokenizer:
    """The shipped one."""
    return minim1.load("shipped").tokenizer


@cache
def corpus() -> Corpus:
    """The standard library's text, read once in a process."""
    return stdlib_corpus()


@cache
def streams(every: int = 1) -> tuple[TokenStream, TokenStream]:
    """Text for training, of every so-manieth file, and all that is held out, in tokens."""
    text = corpus()
    return encode_corpus(text.train[::every], tokenizer()), encode_corpus(text.heldout, tokenizer())


def along(model: MiniM1, batch_at: Callable[[int], Batch], steps: Sequence[int], ask: Callable[[int], object], *,
          total: int, optim: OptimConfig = OPTIM) -> list:
    """Train on `batch_at(step)`, as the beginning of a run of `total` steps; `ask(step)` after each of `steps`."""
    trainer, found = Trainer(model, batch_at, StageConfig(steps=total, optim=optim), quiet=True), []
    for step in range(max(steps)):
        trainer.advance(step)
        if step + 1 in steps:
            found.append(ask(step + 1))
    return found


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
    model = MiniM1(config(width), seed=seed)
    return along(
        model, lambda step: text_rows(train, seed=step_seed(seed, 0, "scaling"), step=step, rows=ROWS, length=LENGTH),
        steps, lambda step: heldout_loss(model, windows), total=STEPS[-1])


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


# ---------------------------------------------------------------- the runs


def unit(arm: str, seed: int, scale: str) -> dict:
    """`run` at a scale; arm: the width as text. Returns {"losses": for each of STEPS, "corpus": hash of the text}."""
    smoke = scale == "smoke"
    train, heldout = streams(64 if smoke else 1)
    windows = heldout_windows(heldout, LENGTH, 2 if smoke else WINDOWS)
    losses = run(int(arm), seed, train, windows, (1, 2) if smoke else STEPS)
    return {"losses": losses, "corpus": corpus().info["sha256"]}


def arranged(result: Mapping) -> dict:
    """A result as `of_one_draw` and the figures read it.

    {"seeds", "steps", "tokens_per_step", "multiplied": {width: N}, "losses": {width: [for each seed: after each of the
    steps]}, "corpus", "machine", "versions", "threads", "date"}
    """
    with torch.device("meta"):
        sizes = {arm: multiplied(MiniM1(config(int(arm)))) for arm in result["runs"]}
    found = {arm: values(result, arm) for arm in result["runs"]}
    return {**head(result), "seeds": seeds(result), "corpus": next(iter(found.values()))[0]["corpus"],
            "steps": result["settings"]["steps"], "tokens_per_step": result["settings"]["tokens_per_step"],
            "multiplied": sizes, "losses": {arm: [each["losses"] for each in rows] for arm, rows in found.items()}}


def stored() -> dict:
    """The committed result, `arranged`."""
    return arranged(stored_result("scaling"))


EXPERIMENT = Experiment("scaling", {str(width): (10, 11, 12) for width in WIDTHS}, unit,
                        {"steps": STEPS, "tokens_per_step": ROWS * LENGTH})

if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
