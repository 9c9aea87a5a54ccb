"""How many tokens should a step read? The gradient noise scale at a few points of training.

The gradient of a batch is the true one plus noise. With B tokens in a batch the noise's square is trace / B, the true
gradient's square is signal; at B = trace / signal, the *noise scale*, both are equal: much below it twice the tokens
are worth nearly twice as much, much above it nearly nothing (McCandlish et al., 2018, who call it B_simple).

Both numbers are estimated from the gradients of many equal groups of rows, at the same weights: their spread gives
the noise, their mean the signal, less the noise that is left in a mean.

    python -m minim1.report.experiments.noise_scale [--seeds 10 11 12] [--out FILE.json]
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

import minim1
from minim1.data.corpus import encode_corpus, stdlib_corpus
from minim1.data.packing import Batch, step_seed, text_rows
from minim1.model.decoder import MiniM1
from minim1.report.experiments import RESULTS, write_result
from minim1.report.experiments.scaling import LENGTH, OPTIM, ROWS, config
from minim1.train.loop import StageConfig, Trainer
from minim1.train.losses import next_token_loss

WIDTH = 32
STEPS = (10, 20, 40, 80)  # after so many steps of training the gradients of the groups are taken
GROUPS, GROUP_ROWS = 48, 2  # 512 tokens in a group
OUT = RESULTS / "noise_scale.json"


def group_gradients(model: MiniM1, groups: Sequence[Batch]) -> tuple[Tensor, float]:
    """(G, P) gradients of the groups' mean losses, one row for each group, and the mean of the losses."""
    parameters, rows, losses = [p for p in model.parameters() if p.requires_grad], [], []
    for group in groups:
        logits = model(group.input_ids, document_ids=group.document_ids, positions=group.positions).logits
        loss = next_token_loss(logits, group.input_ids, group.mask, total_tokens=group.num_targets).loss
        rows.append(torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, parameters)]))
        losses.append(loss.item())
    return torch.stack(rows), sum(losses) / len(losses)


def noise_scale(gradients: Tensor, tokens: int) -> tuple[float, float, float]:
    """(noise scale in tokens, trace in tokens, signal) of gradients (G, P), each the mean over a group of `tokens`.

    An estimate of the signal may come out below 0; then the groups are too few, and the scale is negative, too.
    """
    groups = len(gradients)
    spread = gradients.var(dim=0, correction=1).sum().item()
    signal = gradients.mean(dim=0).square().sum().item() - spread / groups
    return tokens * spread / signal, tokens * spread, signal


def run(seed: int, text: Callable[[int, int, str], Batch], steps: Sequence[int] = STEPS,
        groups: int = GROUPS) -> list[dict]:
    """Train one network and measure: the step, the mean loss of the groups, and their noise scale.

    text(step, rows, purpose) gives rows of text; other purposes, other rows.
    """
    model, found = MiniM1(config(WIDTH), seed=seed), []
    trainer = Trainer(model, lambda step: text(step, ROWS, "training"),
                      StageConfig(steps=STEPS[-1], optim=OPTIM, seed=seed), quiet=True)
    for step in range(max(steps)):
        trainer.advance(step)
        if step + 1 in steps:
            many = text(0, groups * GROUP_ROWS, f"gradients/{step + 1}")
            pieces = [many.slice(slice(at, at + GROUP_ROWS)) for at in range(0, groups * GROUP_ROWS, GROUP_ROWS)]
            gradients, loss = group_gradients(model, pieces)
            scale, trace, signal = noise_scale(gradients, GROUP_ROWS * LENGTH)
            found.append({"step": step + 1, "loss": loss, "tokens": scale, "trace": trace, "signal": signal})
    return found


def from_stream(stream, seed: int) -> Callable[[int, int, str], Batch]:
    """Text for `run`: windows of a token stream, in an order that depends on the seed and on the purpose."""
    return lambda step, rows, purpose: text_rows(
        stream, seed=step_seed(seed, 0, f"noise scale/{purpose}"), step=step, rows=rows, length=LENGTH)


def main() -> None:
    from minim1.report.bench.command import machine
    from minim1.train.checkpoint import versions

    parser = argparse.ArgumentParser(prog="python -m minim1.report.experiments.noise_scale", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train = encode_corpus(stdlib_corpus().train[::4], minim1.load("shipped").tokenizer)  # some 0.9M tokens
    result = {"format": 1, "machine": machine("cpu"), "versions": versions(), "threads": 1, "seeds": arguments.seeds,
              "width": WIDTH, "groups": GROUPS, "tokens_per_group": GROUP_ROWS * LENGTH,
              "tokens_per_step": ROWS * LENGTH, "points": []}
    for seed in arguments.seeds:
        points = run(seed, from_stream(train, seed))
        result["points"].append([{key: float(f"{value:.5g}") for key, value in point.items()} for point in points])
        print(f"seed {seed}: {result['points'][-1]}", flush=True)
        write_result(arguments.out, result)


if __name__ == "__main__":
    main()
