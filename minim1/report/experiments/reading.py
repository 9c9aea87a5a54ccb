"""How well do small networks read? Bits per byte of held-out text for the choices of M1's network, one at a time.

    python -m minim1.report.experiments.reading        # a quarter of an hour on two cores

Networks in three sizes, all with M1's groups of seven lightning layers and one with softmax attention unless the arm
says otherwise, read the text of Python's standard library; the loss on held-out text is asked for along the way.

Attention: hybrid, pure softmax and pure lightning, dense, as the scaling-law runs of the MiniMax-01 report (§2.2: its
12 l d^2 parameters have no room for experts and no grouped key heads; nor have ours). A softmax layer has fewer weights
here than a lightning layer, so softmax gets wider feed-forward networks and pure lightning narrower ones: of the width
whose number of parameters comes nearest to the hybrid's (within 0.2 %).
Experts: eight of width f, of which a token asks two, against the same hybrid with one of width 2f: equal FLOPs for each
token but for the router.
Norms: DeepNorm's post-norm (residual of the normalised input, alpha (2L)^(1/4), initial gain (8L)^(-1/4)) against
pre-norm (residual of the input, alpha and gain 1) in the small hybrid with experts, 4, 8 and 16 layers deep; with four
layers the last has softmax attention.

The settings follow from half an hour of one core for all, and from the time of a step alone (seed 100, six steps): 0.09
to 0.2 s for 4 rows of 256 tokens in 8 and 16 layers. A step has 4 rows, not the 8 of `scaling`, since the loss stays
where the noise scale is some thousand tokens. The rate is that of `scaling`, constant after the warm-up, as theirs was;
it was not tuned for any arm. Every seed gives all arms the same text in the same order. "gpu": wider, longer, and a
third of the rate, as wide networks need less.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache

import numpy as np

from minim1.config import LIGHTNING, SOFTMAX, M1Config, hybrid_pattern
from minim1.data.packing import heldout_windows, step_seed, text_rows
from minim1.evaluate import bits_per_byte
from minim1.model.count import count
from minim1.model.decoder import MiniM1
from minim1.report.experiments import Experiment, runner
from minim1.report.experiments.scaling import OPTIM, along, corpus, streams, tokenizer
from minim1.report.flops import curve_of


@dataclass(frozen=True)
class Plan:
    """What a scale means. widths: of the sizes; steps: after which the loss is asked for; every: of how many files one
    is read; windows: of held-out text."""

    widths: tuple[int, int, int] = (32, 48, 64)
    head_dim: int = 16
    rows: int = 4
    length: int = 256
    steps: tuple[int, ...] = (15, 30, 60, 120, 240)
    rate: float = OPTIM.learning_rate
    every: int = 1
    windows: int = 48


PLANS = {
    "smoke": Plan(widths=(16, 32, 48), rows=2, length=64, steps=(1, 2), every=64, windows=2),
    "cpu": Plan(),
    "gpu": Plan(widths=(128, 256, 512), head_dim=64, rows=16, length=1024, steps=(30, 60, 120, 240, 480), rate=1e-3),
}
SIZES = ("small", "medium", "large")
PATTERNS = ("hybrid", "softmax", "lightning")
DEPTHS = (4, 8, 16)
EXPERTS = 8


@dataclass(frozen=True)
class Arm:
    """A network: its size, the pattern of its layers, its experts (1: dense), depth and norms."""

    size: str = "small"
    pattern: str = "hybrid"
    experts: int = 1
    depth: int = 8
    postnorm: bool = True


def norm_arm(postnorm: bool, depth: int) -> str:
    """The arm with post-norm or pre-norm at a depth; post-norm with 8 layers is the small network with experts."""
    if (postnorm, depth) == (True, 8):
        return "experts, small"
    return f"{'post' if postnorm else 'pre'}-norm, {depth} layers"


ARMS = {
    **{f"{pattern}, {size}": Arm(size, pattern) for size in SIZES for pattern in PATTERNS},
    **{f"experts, {size}": Arm(size, experts=EXPERTS) for size in SIZES},
    **{norm_arm(postnorm, depth): Arm(experts=EXPERTS, depth=depth, postnorm=postnorm)
       for depth in DEPTHS for postnorm in (True, False)},
}


@cache
def config(arm: str, scale: str = "cpu") -> M1Config:
    """The network of an arm at a scale."""
    made, plan = ARMS[arm], PLANS[scale]
    width = plan.widths[SIZES.index(made.size)]
    patterns = {"hybrid": hybrid_pattern(made.depth, min(8, made.depth)), "softmax": (SOFTMAX,) * made.depth,
                "lightning": (LIGHTNING,) * made.depth}
    hybrid = M1Config(
        hidden_size=width, intermediate_size=width if made.experts > 1 else 2 * width, num_hidden_layers=made.depth,
        attn_type_list=patterns["hybrid"], num_attention_heads=width // plan.head_dim,
        num_key_value_heads=width // plan.head_dim, head_dim=plan.head_dim, num_local_experts=made.experts,
        num_experts_per_tok=min(2, made.experts), postnorm=made.postnorm)
    return matched(replace(hybrid, attn_type_list=patterns[made.pattern]), hybrid)


def matched(changed: M1Config, to: M1Config) -> M1Config:
    """`changed` with feed-forward networks of the width at which it has most nearly as many parameters as `to`."""
    parameters = lambda width: count(replace(changed, intermediate_size=width))["parameters"]
    narrow, wider = parameters(1), parameters(2)
    width = 1 + round((count(to)["parameters"] - narrow) / (wider - narrow))
    return replace(changed, intermediate_size=max(1, width))


def training_flops(config: M1Config, length: int) -> float:
    """FLOPs of training for one token, in documents of `length` tokens: three times those of the forward pass.

    Forward: `flops.curve_of`, and what lightning layers add in the block form, scores and values within a block. All
    attention is counted causally. Left out: embedding, norms, gates and other products of elements.
    """
    inner = config.num_attention_heads * config.head_dim
    in_block = config.attn_type_list.count(LIGHTNING) * 2 * inner * (config.block_size + 1)  # 2 products, half a block
    return 3 * (curve_of(config).total(length) / length + in_block)


def compute(arm: str, scale: str = "cpu") -> list[float]:
    """FLOPs that an arm has used for training each time the loss is asked for."""
    plan = PLANS[scale]
    return [step * plan.rows * plan.length * training_flops(config(arm, scale), plan.length) for step in plan.steps]


def at_flops(flops: float, spent: Sequence[float], losses: Sequence[float]) -> float:
    """The loss at so many FLOPs, on straight lines through the points (log FLOPs, loss)."""
    return float(np.interp(np.log(flops), np.log(spent), losses))


def run(arm: str, seed: int, scale: str) -> dict:
    """Train the network of an arm: {"bits_per_byte": of held-out text after each of the steps, "corpus": its hash}."""
    plan = PLANS[scale]
    train, heldout = streams(plan.every)
    model, windows = MiniM1(config(arm, scale), seed=seed), heldout_windows(heldout, plan.length, plan.windows)
    order = step_seed(seed, 0, "reading")
    found = along(
        model.to("cuda" if scale == "gpu" else "cpu"),
        lambda step: text_rows(train, seed=order, step=step, rows=plan.rows, length=plan.length),
        plan.steps, lambda step: bits_per_byte(model, tokenizer(), windows), total=plan.steps[-1],
        optim=replace(OPTIM, learning_rate=plan.rate))
    return {"bits_per_byte": found, "corpus": corpus().info["sha256"]}


def differences(result: Mapping, arm: str, other: str, *, equal: str = "tokens") -> list[float]:
    """Bits per byte of an arm less those of another, for each seed that both have.

    equal: "tokens": at the end; "flops": where the one that used less ended.
    """
    ours, theirs = (result["runs"].get(name, {}) for name in (arm, other))
    shared = sorted(ours.keys() & theirs.keys(), key=int)
    both = [(ours[seed]["bits_per_byte"], theirs[seed]["bits_per_byte"]) for seed in shared]
    if equal == "tokens":
        return [mine[-1] - its[-1] for mine, its in both]
    mine_spent, its_spent = compute(arm, result["scale"]), compute(other, result["scale"])
    flops = min(mine_spent[-1], its_spent[-1])
    return [at_flops(flops, mine_spent, mine) - at_flops(flops, its_spent, its) for mine, its in both]


EXPERIMENT = Experiment("reading", {arm: (10, 11, 12) for arm in ARMS}, run, asdict(PLANS["cpu"]))

if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
