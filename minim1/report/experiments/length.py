"""How do time and memory grow with the number of tokens N? One network three times: all eight layers lightning, M1's
seven to one, all softmax.

    python -m minim1.report.experiments.length       # five minutes on one core; writes report/results/length.json

Nothing is trained: what a token costs does not depend on what it says. Width, heads and a dense feed-forward network as
wide as M1's two active experts (three times hidden) are the same for all; softmax layers share one key head among four,
as those of the course's models do. It is narrow, so that the quadratic part, which grows with N / width, stands out
from the linear one at lengths that one core reads in seconds. Three passes, processor time of one thread (the clock on
a GPU), each a median:

  prefill   N tokens read at once into an empty cache, logits of the last one
  training  forward and backward of the next-token loss on one row of N tokens
  decode    one more token behind N others. The cache is filled with random numbers instead of being read: a step costs
            the same, and contexts can be longer than what a softmax network prefills in seconds

and two counts: bytes of that cache, and the most bytes that a training step holds beside the weights (at lengths of a
second, since it repeats to the byte). Softmax attention is PyTorch's fused one, which writes no N x N scores; against
scores written out the memory of lightning attention would look better than it is. Slopes are taken over the upper three
octaves, where constant costs matter least. Seeds repeat the measurement with other weights and tokens. How long the
longest texts are was decided by what they cost, tried on seed 100 up to half of that.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from minim1.config import LIGHTNING, SOFTMAX, M1Config, hybrid_pattern
from minim1.model.cache import DecodeCache, KVCache
from minim1.model.decoder import MiniM1
from minim1.report.bench.harness import seconds_of
from minim1.report.bench.models import our_loss
from minim1.report.bench.peak import peak_bytes
from minim1.report.experiments import Experiment, runner

LAYERS, OCTAVES = 8, 3
NETWORKS = {"pure lightning": (LIGHTNING,) * LAYERS, "hybrid": hybrid_pattern(LAYERS),
            "pure softmax": (SOFTMAX,) * LAYERS}


def doublings(first: int, last: int) -> tuple[int, ...]:
    """
    >>> doublings(512, 2048)
    (512, 1024, 2048)
    """
    return tuple(first * 2**power for power in range((last // first).bit_length()))


@dataclass(frozen=True)
class Sizes:
    """hidden size and heads of the network, tokens of prefill and training, contexts of decode, tokens of the peak."""

    hidden: int
    heads: int
    lengths: tuple[int, ...]
    contexts: tuple[int, ...]
    held: tuple[int, ...]
    calls: int = 5  # at most, of a pass; fewer where they take long
    steps: int = 25


SIZES = {
    "smoke": Sizes(32, 4, doublings(64, 256), doublings(64, 512), doublings(64, 128), calls=1, steps=3),
    "cpu": Sizes(64, 4, doublings(512, 2**14), doublings(512, 2**17), doublings(512, 2**12)),
    "gpu": Sizes(512, 8, doublings(1024, 2**16), doublings(1024, 2**20), doublings(1024, 2**16)),
}
LONG = 0.5  # seconds, after which no further call of a pass begins


def config(network: str, sizes: Sizes) -> M1Config:
    return M1Config(
        vocab_size=256, hidden_size=sizes.hidden, intermediate_size=3 * sizes.hidden, num_hidden_layers=LAYERS,
        num_attention_heads=sizes.heads, num_key_value_heads=sizes.heads // 4, head_dim=sizes.hidden // sizes.heads,
        attn_type_list=NETWORKS[network], num_local_experts=1, num_experts_per_tok=1,
    )


@torch.no_grad()
def prefill(model: MiniM1, ids: Tensor) -> DecodeCache:
    """Read ids (1, N) at once."""
    cache = model.new_cache()
    model(ids, cache=cache, last_only=True)
    return cache


def train(model: MiniM1, ids: Tensor) -> None:
    """Gradients of the next-token loss on ids (1, N); those of the call before are dropped."""
    model.zero_grad()
    our_loss(model, ids).backward()


def filled_cache(model: MiniM1, tokens: int) -> DecodeCache:
    """A cache of as many bytes as after `tokens` tokens, with random numbers for keys and values."""
    cache = prefill(model, torch.zeros(1, 1, dtype=torch.long, device=model.lm_head.weight.device))
    for layer in cache.layers:
        if isinstance(layer, KVCache):
            shape = (1, tokens - 1, *layer.keys.shape[2:])
            layer.append(*(torch.randn(shape, device=layer.keys.device) for _ in range(2)))
    cache.length = tokens
    return cache


def seconds(call: Callable[[], object], clock: Callable[[], float], calls: int) -> float:
    """Median seconds of a call: of so many, or of as many as begin within `LONG` seconds."""
    found = []
    while not found or len(found) < calls and sum(found) < LONG:
        found.append(seconds_of(call, 1, clock))
    return statistics.median(found)


def measure(network: str, seed: int, sizes: Sizes, device: str = "cpu") -> dict[str, list[tuple[int, float]]]:
    """{"prefill", "training", "decode": [(N, seconds)], "cache", "peak": [(N, bytes)]}."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    torch.manual_seed(seed)
    model = MiniM1(config(network, sizes), seed=seed).to(device)
    found = {name: [] for name in ("prefill", "training", "decode", "cache", "peak")}
    prefill(model, torch.zeros(1, sizes.lengths[0], dtype=torch.long, device=device))  # first calls are slower
    train(model, torch.zeros(1, sizes.lengths[0], dtype=torch.long, device=device))
    for tokens in sizes.lengths:
        ids = torch.randint(model.config.vocab_size, (1, tokens)).to(device)
        found["prefill"].append((tokens, seconds(lambda ids=ids: prefill(model, ids), clock, sizes.calls)))
        found["training"].append((tokens, seconds(lambda ids=ids: train(model, ids), clock, sizes.calls)))
        if tokens in sizes.held:
            model.zero_grad()
            found["peak"].append((tokens, peak_bytes(lambda ids=ids: train(model, ids), device)))
    model.zero_grad()
    step, token = model.new_step(), torch.zeros(1, dtype=torch.long, device=device)
    for tokens in sizes.contexts:
        cache = filled_cache(model, tokens)
        found["cache"].append((tokens, cache.nbytes()))
        step(token, cache)  # here the buffer of the keys grows
        times = [seconds_of(lambda cache=cache: step(token, cache), 1, clock) for _ in range(sizes.steps)]
        found["decode"].append((tokens, statistics.median(times)))
    return found


def slope(points: Sequence[tuple[int, float]], octaves: int = OCTAVES) -> float:
    """Slope of log(value) against log(N) over the upper octaves, by least squares: 1 is linear, 2 quadratic.

    >>> round(slope([(1, 50.0), (2, 4.0), (4, 16.0), (8, 64.0), (16, 256.0)]), 6)
    2.0
    """
    upper = [(n, value) for n, value in points if n * 2**octaves >= points[-1][0]]
    x, y = ([math.log(point[at]) for point in upper] for at in (0, 1))
    return statistics.linear_regression(x, y).slope


def run(arm: str, seed: int, scale: str) -> dict:
    """`measure` at a scale."""
    return measure(arm, seed, SIZES[scale], "cuda" if scale == "gpu" else "cpu")


EXPERIMENT = Experiment("length", {network: range(3) for network in NETWORKS}, run,
                        {"layers": LAYERS, "octaves": OCTAVES,
                         "sizes": {scale: asdict(sizes) for scale, sizes in SIZES.items()}}, alone=True)

if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
