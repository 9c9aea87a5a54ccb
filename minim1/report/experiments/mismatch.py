"""How far apart are the probabilities of rollout and training, what widens the gap, and what closes it? (report §3.2)

    python -m minim1.report.experiments.mismatch       # two minutes on one core; writes report/results/mismatch.json

The shipped model answers held-out pair-sum problems in fp32. The same tokens are then read twice in each arm: token by
token with the decode cache, as a rollout does, and all at once, as training does. Arms: all of it in fp32; bf16 with a
bf16 head; bf16 with an fp32 head. bf16 is what the trainer calls so: weights in fp32, matrix products in bf16.

The natural head shows next to nothing, so a disturbance is *injected*: `common_mode` adds the same amount to all
logits, which no softmax can see, except through rounding. Also: which experts the two readings choose, and what
replaying the rollout's choice does.

The arms of the experiment are its three parts: "heads", "replay" and "kernels".
"""

from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from minim1.evaluate import heldout_problems, prompt_ids, task_sampling
from minim1.generation import Rollout, generate
from minim1.report import experiments
from minim1.report.experiments import Experiment, runner
from minim1.train.checkpoint import Loaded, load
from minim1.train.losses import token_logprobs

PROBLEMS = 64  # with up to 64 rows a decoding step runs all experts at once, with more it sorts tokens as training does
TOKENS = 48
SIZES = (0, 90, 180, 360)  # of the common mode: each in the middle of a stretch in which bf16 has one step
APART = "1 - pearson"
ARMS = {"fp32": (False, True), "bf16, bf16 head": (True, False), "bf16, fp32 head": (True, True)}  # bf16?, fp32 head?


@dataclass(frozen=True)
class Reading:
    """One pass over tokens: logprobs (R, T) as in `Rollout`, expert_ids (L, R, T, K) chosen when reading each token."""

    logprobs: Tensor
    expert_ids: Tensor


def mismatch(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> dict[str, float]:
    """How far training and rollout disagree about the tokens that were sampled; all of it in fp64.

    Args: logprobs, old_logprobs (B, T), any float dtype; mask (B, T) bool, True at sampled tokens.
    Returns: pearson, the correlation of the two probabilities, NaN where one of them is constant; mean_dp and max_dp,
        of their absolute difference; mean_dlogp, mean absolute difference of the log-probabilities.

    >>> found = mismatch(torch.tensor([[0.5, 0.2]]).log(), torch.tensor([[0.4, 0.2]]).log(), torch.ones(1, 2).bool())
    >>> round(found["max_dp"], 6)
    0.1
    """
    x, y = (values.detach()[mask].double() for values in (logprobs, old_logprobs))
    p, old = x.exp(), y.exp()
    constant = bool((p == p[0]).all() or (old == old[0]).all())
    a, b = p - p.mean(), old - old.mean()
    pearson = float("nan") if constant else (a @ b / (a.norm() * b.norm())).item()
    return {"pearson": pearson, "mean_dp": (p - old).abs().mean().item(), "max_dp": (p - old).abs().max().item(),
            "mean_dlogp": (x - y).abs().mean().item()}


def bf16_step(magnitude: float) -> float:
    """The distance from a bf16 number to the next larger one.

    >>> bf16_step(180.0)
    1.0
    """
    here = torch.tensor(magnitude, dtype=torch.bfloat16)
    return (torch.nextafter(here, torch.full_like(here, torch.inf)) - here).item()


def bands(magnitude: float, most: int = 1) -> list[float]:
    """The probabilities that a choice between two tokens can have when bf16 logits stand near `magnitude`.

    That is sigmoid(k * step) for k from -most to most.

    >>> [round(p, 2) for p in bands(180.0)]
    [0.27, 0.5, 0.73]
    """
    gaps = bf16_step(magnitude) * torch.arange(-most, most + 1, dtype=torch.float64)
    return gaps.sigmoid().tolist()


def sample(run: Loaded, seed: int, problems: int = PROBLEMS, *, tokens: int = TOKENS) -> Rollout:
    """One answer of the model, in fp32, to each of `problems` held-out problems; their prompts have one length."""
    prompts = [prompt_ids(run.tokenizer, p.prompt) for p in heldout_problems("pair", problems, seed=seed)]
    return generate(run.model, prompts, task_sampling(run.tokenizer, max_new_tokens=tokens, seed=seed))


@torch.no_grad()
def read(model, rollout: Rollout, *, at_once: bool, bf16: bool = False, replay: Tensor | None = None) -> Reading:
    """Log-probabilities of a rollout's tokens, read all at once as in training, or one by one as they were drawn.

    Args: bf16: matrix products in bf16; replay (L, R, T, K): expert ids to use instead of choosing.
    """
    ids, first = rollout.input_ids, int(rollout.mask[0].byte().argmax())
    pieces = [ids] if at_once else [ids[:, :first], *ids[:, first:].split(1, dim=1)]
    cache = None if at_once else model.new_cache()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        outputs = [model(piece, cache=cache, replay=replay) for piece in pieces]
    logits = torch.cat([out.logits for out in outputs], dim=1)
    return Reading(token_logprobs(logits, ids), torch.cat([out.expert_ids for out in outputs], dim=2))


@contextmanager
def head(model, fp32: bool):
    """The model with its head in fp32, or in whatever the rest is in."""
    config = model.config
    model.config = replace(config, fp32_head=fp32)
    try:
        yield
    finally:
        model.config = config


@torch.no_grad()
def common_mode(model, input_ids: Tensor, size: float) -> None:
    """Add about `size` to every logit, in place: a rank-1 part of the head, `size` times one direction in each row.

    The direction is the one along which the last hidden states of these tokens are most nearly 1 (least squares).
    It stands in for the large activations into the head that M1's engineers found (report §3.2).
    """
    hidden = hidden_states(model, input_ids).flatten(0, 1).double()
    direction = torch.linalg.lstsq(hidden, torch.ones(len(hidden), 1, dtype=torch.float64)).solution.squeeze(1)
    model.lm_head.weight.add_((size * direction).to(model.lm_head.weight.dtype))


@torch.no_grad()
def hidden_states(model, input_ids: Tensor) -> Tensor:
    """(R, T, C): what the head reads."""
    seen = []
    hook = model.model.norm.register_forward_hook(lambda module, given, out: seen.append(out))
    try:
        model(input_ids)
    finally:
        hook.remove()
    return seen[0]


def compare_heads(seed: int, problems: int = PROBLEMS, *, sizes=SIZES, tokens: int = TOKENS) -> list[dict]:
    """For each size of the common mode and each arm: `mismatch` of the same tokens."""
    rows = []
    for size in sizes:
        run = load("shipped")
        rollout = sample(run, seed, problems, tokens=tokens)
        common_mode(run.model, rollout.input_ids, size)
        for arm, (bf16, fp32_head) in ARMS.items():
            with head(run.model, fp32_head):
                readings = [read(run.model, rollout, at_once=at_once, bf16=bf16) for at_once in (True, False)]
            rows.append({"size": size, "arm": arm, **mismatch(*(x.logprobs for x in readings), rollout.mask)})
    return rows


def flips(a: Tensor, b: Tensor) -> Tensor:
    """(L, R, T) bool: where two readings sent a token to different sets of experts, whatever their order."""
    return (a.sort(-1).values != b.sort(-1).values).any(-1)


def compare_replay(seed: int, problems: int = PROBLEMS, *, tokens: int = TOKENS) -> dict[str, dict]:
    """How often the two readings choose other experts, and the mismatch without and with router replay, fp32 head.

    Two kinds of bf16: "products", the trainer's; "throughout", weights and activations between layers too.
    Returns: for each, "flipped": share of (layer, token) with another set of experts; "tokens_flipped": share of tokens
        with one in any layer; "chosen" and "replayed": `mismatch`; "where_flipped" and "elsewhere": mean abs dlogp of
        the tokens that are predicted from a flipped one, and of the others, without replay.
    """
    found, run = {}, load("shipped")
    rollout = sample(run, seed, problems, tokens=tokens)
    mask = rollout.mask
    for kind, bf16 in (("products", True), ("throughout", False)):
        if kind == "throughout":
            run.model.bfloat16()
        one_by_one = read(run.model, rollout, at_once=False, bf16=bf16)
        chosen = read(run.model, rollout, at_once=True, bf16=bf16)
        replayed = read(run.model, rollout, at_once=True, bf16=bf16, replay=one_by_one.expert_ids)
        flipped = F.pad(flips(chosen.expert_ids, one_by_one.expert_ids)[:, :, :-1], (1, 0))  # at the token they predict
        gap, somewhere = (chosen.logprobs - one_by_one.logprobs).abs(), flipped.any(0)
        found[kind] = {
            "flipped": flipped[:, mask].double().mean().item(),
            "tokens_flipped": somewhere[mask].double().mean().item(),
            "chosen": mismatch(chosen.logprobs, one_by_one.logprobs, mask),
            "replayed": mismatch(replayed.logprobs, one_by_one.logprobs, mask),
            "where_flipped": gap[mask & somewhere].mean().item(), "elsewhere": gap[mask & ~somewhere].mean().item(),
        }
    return found


def compare_kernels(seed: int, problems: int = PROBLEMS, *, tokens: int = TOKENS) -> dict[str, dict]:
    """bf16 with an fp32 head: `mismatch` for as many rows as decoding takes with its own kernel, and for 32 more."""
    run = load("shipped")
    rollouts = {rows: sample(run, seed, rows, tokens=tokens) for rows in (problems, problems + 32)}
    return {str(rows): _between(run.model, rollout) for rows, rollout in rollouts.items()}


def _between(model, rollout: Rollout) -> dict[str, float]:
    readings = [read(model, rollout, at_once=at_once, bf16=True) for at_once in (True, False)]
    return mismatch(*(x.logprobs for x in readings), rollout.mask)


PARTS: dict[str, Callable] = {"heads": compare_heads, "replay": compare_replay, "kernels": compare_kernels}


def run(arm: str, seed: int, scale: str) -> object:
    """A part of the experiment, with 1 - Pearson for Pearson, of which five digits would leave 1."""
    small = {"problems": 8, "tokens": 8} if scale == "smoke" else {}
    return swap(PARTS[arm](seed, **small), "pearson", APART)


def swap(value: object, old: str, new: str) -> object:
    """Nested dicts and lists with 1 - x under the key `new` for every x under `old`.

    >>> swap({"a": [{"pearson": 0.75}]}, "pearson", "1 - pearson")
    {'a': [{'1 - pearson': 0.25}]}
    """
    if isinstance(value, Mapping):
        return {new if name == old else name: 1 - x if name == old else swap(x, old, new) for name, x in value.items()}
    return [swap(x, old, new) for x in value] if isinstance(value, list) else value


def arranged(result: Mapping) -> dict:
    """A result by part: {"heads": {seed as text: rows}, "replay", "kernels", "settings", "machine", ...}."""
    parts = {arm: swap(runs, APART, "pearson") for arm, runs in result["runs"].items()}
    return experiments.head(result) | parts | {"settings": result["settings"]}


def stored() -> dict:
    """The committed result, as `arranged` gives it."""
    return arranged(experiments.stored("mismatch"))


EXPERIMENT = Experiment("mismatch", {part: range(3) for part in PARTS}, run, {"sizes": SIZES, "problems": PROBLEMS})

if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
