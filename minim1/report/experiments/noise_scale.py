"""How many tokens should a step read? The gradient noise scale at a few points of training.

The gradient of a batch is the true one plus noise. With B tokens in a batch the noise's square is trace / B, the true
gradient's square is signal; at B = trace / signal, the *noise scale*, both are equal: much below it twice the tokens
are worth nearly twice as much, much above it nearly nothing (McCandlish et al., 2018, who call it B_simple).

Both numbers are estimated from the gradients of many equal groups of rows, at the same weights: their spread gives
the noise, their mean the signal, less the noise that is left in a mean.

    python -m minim1.report.experiments.noise_scale    # writes report/results/noise_scale.json
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from minim1.data.packing import Batch, step_seed, text_rows
from minim1.model.decoder import MiniM1
from minim1.report.experiments import Experiment, head, runner, seeds, values
from minim1.report.experiments import stored as stored_result
from minim1.report.experiments.scaling import LENGTH, ROWS, along, config, streams
from minim1.train.losses import next_token_loss

WIDTH = 32
STEPS = (10, 20, 40, 80)  # after so many steps of training the gradients of the groups are taken
GROUPS, GROUP_ROWS = 48, 2  # 512 tokens in a group


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
    model = MiniM1(config(WIDTH), seed=seed)

    def measure(step: int) -> dict:
        many = text(0, groups * GROUP_ROWS, f"gradients/{step}")
        pieces = [many.slice(slice(at, at + GROUP_ROWS)) for at in range(0, groups * GROUP_ROWS, GROUP_ROWS)]
        gradients, loss = group_gradients(model, pieces)
        scale, trace, signal = noise_scale(gradients, GROUP_ROWS * LENGTH)
        return {"step": step, "loss": loss, "tokens": scale, "trace": trace, "signal": signal}

    return along(model, lambda step: text(step, ROWS, "training"), steps, measure, total=STEPS[-1])


def from_stream(stream, seed: int) -> Callable[[int, int, str], Batch]:
    """Text for `run`: windows of a token stream, in an order that depends on the seed and on the purpose."""
    return lambda step, rows, purpose: text_rows(
        stream, seed=step_seed(seed, 0, f"noise scale/{purpose}"), step=step, rows=rows, length=LENGTH)


def unit(arm: str, seed: int, scale: str) -> list[dict]:
    """`run` at a scale, on the text of every fourth file: some 0.9M tokens."""
    if scale == "smoke":
        return run(seed, from_stream(streams(64)[0], seed), (1, 2), groups=2)
    return run(seed, from_stream(streams(4)[0], seed))


def arranged(result: Mapping) -> dict:
    """A result as the chapter reads it: {"seeds", "points": for each seed what `run` returns}, settings and where."""
    return {**head(result), **result["settings"], "seeds": seeds(result), "points": values(result, "hybrid")}


def stored() -> dict:
    """The committed result, `arranged`."""
    return arranged(stored_result("noise_scale"))


EXPERIMENT = Experiment(
    "noise_scale", {"hybrid": (10, 11, 12)}, unit,
    {"width": WIDTH, "groups": GROUPS, "tokens_per_group": GROUP_ROWS * LENGTH, "tokens_per_step": ROWS * LENGTH})

if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
