"""Lightning attention against its peers: forward, and forward with the gradients of q, k and v.

All get the same q, k, v (B, T, H, D), views of one fused silu(qkv) tensor as in the model; only flash-linear-attention,
which would copy them in every call, gets contiguous ones. All are checked against the definition in fp64 before they
are timed; softmax attention, another function that is compared for its cost alone, against its own definition.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from minim1.model.lightning import decay_slopes, lightning_attention
from minim1.report.bench.harness import (
    LIMITS, OURS, Comparison, Entry, Options, Skip, compare, expected_seconds, gather, largest_error,
)

PASSES = ("forward", "forward+backward")
SHAPES = {"cpu": (8, 64), "cuda": (64, 128)}  # heads, head dim
SHORT = (64, 96, 128, 192, 256, 320, 384, 448, 512)  # where softmax attention is overtaken
LENGTHS = {
    "cpu": (*SHORT, 2048, 8192, 32768, 131072),
    "cuda": (*SHORT, 2048, 8192, 32768, 131072, 524288, 1048576),
}
CHECKED_ROWS = 64  # positions whose results are compared with fp64; up to 1024 all of them


@dataclass(frozen=True)
class Problem:
    """q, k, v, grad (B, T, H, D), grad being that of the output; slopes (H,) fp32."""

    q: Tensor
    k: Tensor
    v: Tensor
    grad: Tensor
    slopes: Tensor


def problem(length: int, options: Options, *, batch: int = 1, seed: int = 0) -> Problem:
    """Inputs as the model makes them: silu of one fused (B, T, H, 3D) projection, slopes of layer 0 of 8."""
    heads, dim = (2, 16) if options.quick else SHAPES[options.device]
    random = torch.Generator(options.device).manual_seed(seed)
    make = dict(device=options.device, dtype=options.dtype, generator=random)
    qkv = F.silu(torch.randn(batch, length, heads, 3 * dim, **make), inplace=True)
    grad = torch.randn(batch, length, heads, dim, **make)
    q, k, v = (x.requires_grad_() for x in qkv.split(dim, dim=-1))
    return Problem(q, k, v, grad, decay_slopes(heads, 0, 8).to(options.device))


def benchmark(options: Options, peers: tuple[str, ...] | None = None) -> Iterator[Comparison]:
    """One comparison for each length and pass, shortest first; `peers` None: all of `PEERS`, and `options.mine`."""
    makers = {OURS: _ours} | {name: make for name, make in PEERS.items() if peers is None or name in peers}
    if options.mine is not None:
        makers["mine"] = _mine(options)
    history = {}  # (name, pass) -> [(length, seconds)]
    for length in options.lengths or ((64, 160) if options.quick else LENGTHS[options.device]):
        given = problem(length, options)
        made, cannot = gather({name: partial(make, given, options) for name, make in makers.items()})
        functions = {name: f if isinstance(f, tuple) else (f, given) for name, f in made.items()}
        truth = {}
        for which in PASSES:
            entries, skipped = {}, dict(cannot)
            for name, (function, inputs) in functions.items():
                if expected_seconds(history.get((name, which), []), length) > options.call_limit:
                    skipped[name] = f"too slow: one call would last longer than {options.call_limit:.0f} s"
                else:
                    entries[name] = _entry(name, which, function, inputs, truth)
            heads, dim = given.q.shape[2:]
            case = {"pass": which, "batch": 1, "length": length, "heads": heads, "dim": dim}
            done = compare(
                "attention", case, entries, ours=OURS, options=options, limit=LIMITS[options.dtype], unit="tokens",
                amount=length, skipped=skipped,
            )
            for name, timing in done.timings.items():
                history.setdefault((name, which), []).append((length, timing.median))
            yield done


def _entry(name: str, which: str, function: Callable, given: Problem, truth: dict) -> Entry:
    def forward():
        with torch.no_grad():
            return (function(given.q, given.k, given.v),)

    def both():
        return torch.autograd.grad(function(given.q, given.k, given.v), (given.q, given.k, given.v), given.grad)

    def error(results: tuple[Tensor, ...]) -> float:
        kind = "softmax" if name == "SDPA" else "lightning"
        if kind not in truth:  # once for both passes and all entries
            truth[kind] = softmax_truth(given) if kind == "softmax" else lightning_truth(given)
        rows, expected = truth[kind]
        if not all(torch.isfinite(x.sum(dtype=torch.float32)) for x in results):  # also where no row is compared
            return float("inf")
        expected = expected[:1] if which == "forward" else expected[1:]
        return largest_error((x[:, rows] for x in results), expected)

    return Entry(forward if which == "forward" else both, error)


# ---------------------------------------------------------------- the truth


def lightning_truth(given: Problem) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Positions (R,), and out, dq, dk, dv (B, R, H, D) there in fp64, straight from the definition and its derivative:

        out_i = sum over j <= i of w_ij (q_i . k_j) v_j        w_ij = exp(-s (i - j)),  g the gradient of out
        dq_i  = sum over j <= i of w_ij (g_i . v_j) k_j
        dk_j  = sum over i >= j of w_ij (g_i . v_j) q_i
        dv_j  = sum over i >= j of w_ij (q_i . k_j) g_i

    O(R T D) for each head: possible at any length, and no form that is measured has a part in it.
    """
    length, device = given.q.shape[1], given.q.device
    if length <= 1024:
        rows = torch.arange(length, device=device)
    else:  # the ends, and others at random
        chosen = torch.randperm(length, generator=torch.Generator().manual_seed(1))[: CHECKED_ROWS - 2]
        rows = torch.cat([torch.tensor([0, length - 1]), chosen]).unique().to(device)
    offset = rows.view(-1, 1) - torch.arange(length, device=device)  # (R, T)
    results = []
    for q, k, v, g, slope in _heads(given):  # (B, T, D) each
        past = torch.exp(-slope * offset.clamp(min=0)) * (offset >= 0)
        out = ((q[:, rows] @ k.mT) * past) @ v
        dq = ((g[:, rows] @ v.mT) * past) @ k
        future = torch.exp(-slope * (-offset).clamp(min=0)) * (offset <= 0)
        dk = ((v[:, rows] @ g.mT) * future) @ q
        dv = ((k[:, rows] @ q.mT) * future) @ g
        results.append((out, dq, dk, dv))
    return rows, tuple(torch.stack(x, dim=2) for x in zip(*results))


def softmax_truth(given: Problem) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The same for causal softmax attention, at the last positions: only there do few queries give dk and dv."""
    length = given.q.shape[1]
    last = min(CHECKED_ROWS, length)
    rows = torch.arange(length - last, length, device=given.q.device)
    hidden = torch.arange(length, device=rows.device) > rows.view(-1, 1)
    results = []
    for q, k, v, g, _ in _heads(given):
        q, k, v = (x.requires_grad_() for x in (q[:, rows], k, v))
        scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(hidden, float("-inf"))
        out = scores.softmax(-1) @ v
        dq, dk, dv = torch.autograd.grad(out, (q, k, v), g[:, rows])
        results.append((out.detach(), dq, dk[:, rows], dv[:, rows]))
    return rows, tuple(torch.stack(x, dim=2) for x in zip(*results))


def _heads(given: Problem):
    """q, k, v, grad (B, T, D) in fp64 and the slope, head by head: all heads at once would not fit at 1M tokens."""
    for head, slope in enumerate(given.slopes.double()):
        yield (*(x.detach()[:, :, head].double() for x in (given.q, given.k, given.v, given.grad)), slope)


# ---------------------------------------------------------------- ours and the peers
# Each makes, for a problem, f(q, k, v) -> out, or (f, the inputs it prefers); Skip says why it cannot.


def _ours(given: Problem, options: Options) -> Callable:
    return lambda q, k, v: lightning_attention(q, k, v, given.slopes)[0]


def _chunked(given: Problem, options: Options) -> Callable:
    return lambda q, k, v: lightning_attention(q, k, v, given.slopes, backend="chunked")[0]


def _hf_loop(given: Problem, options: Options) -> Callable:
    return hf_loop(given.slopes, options.dtype)


def hf_loop(slopes: Tensor, dtype: torch.dtype, block_size: int = 256) -> Callable:
    """The loop over blocks of transformers' MiniMaxLightningAttention, without its projections, norm and gate.

    The same operations in the same order, with the decays made beforehand in the model's dtype as its buffers are,
    so that the results are equal bit for bit. Slicing in the loop is what makes its backward O(T^2).
    """
    slope = slopes.view(-1, 1, 1)
    position = torch.arange(1, block_size + 1, device=slopes.device)
    from_start = torch.exp(-slope * position[:, None]).to(dtype)
    to_end = torch.exp(-slope * (block_size - position[:, None])).to(dtype)
    distance = (position[:, None] - position)[None, None]
    between = torch.exp(torch.where(distance >= 0, -(slope * distance), float("-inf"))).to(dtype)
    slope = slope.to(dtype)

    def attention(q, k, v):
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, H, T, D)
        state = q.new_zeros(*q.shape[:2], q.shape[-1], v.shape[-1])
        outs = []
        for start in range(0, q.shape[2], block_size):
            end = min(start + block_size, q.shape[2])
            size = end - start
            q_block, k_block, v_block = q[:, :, start:end], k[:, :, start:end], v[:, :, start:end]
            whole_decay = torch.exp(-slope * size)
            scores = torch.matmul(q_block, k_block.transpose(-1, -2))
            inside = torch.matmul(scores * between[:, :, :size, :size], v_block)
            before = torch.matmul(q_block * from_start[:, :size], state)
            outs.append(before + inside)
            added = torch.matmul((k_block * to_end[:, -size:]).transpose(-1, -2), v_block)
            state = state * whole_decay + added
        return torch.cat(outs, dim=-2).transpose(1, 2)

    return attention


def _sdpa(given: Problem, options: Options) -> Callable:
    def attention(q, k, v):
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)

    return attention


def _fla(name: str) -> Callable:
    def make(given: Problem, options: Options):
        if options.device != "cuda":
            raise Skip("needs CUDA")
        try:
            from fla.ops import simple_gla
        except ImportError:
            raise Skip("flash-linear-attention is not installed") from None
        tensor = given.grad.numel() * given.grad.element_size()
        if 11 * tensor > 0.9 * torch.cuda.get_device_properties(0).total_memory:  # 8 are ours, 3 these copies
            raise Skip("no memory for its contiguous inputs beside ours")
        q, k, v = (x.detach().contiguous().requires_grad_() for x in (given.q, given.k, given.v))
        kernel = getattr(simple_gla, name)
        return (
            lambda q, k, v: kernel(q, k, v, g_gamma=-given.slopes, scale=1.0)[0],
            replace(given, q=q, k=k, v=v),
        )

    return make


def _mine(options: Options) -> Callable:
    """A learner's function. What it does wrong is a reason to leave it out, never a crash; as it could spoil the
    inputs of the others, it is tried once on its own."""
    sample = problem(160, options)
    tensors = (sample.q, sample.k, sample.v)
    before = [x._version for x in tensors]
    try:
        with torch.no_grad():
            options.mine(*tensors, sample.slopes)
    except Exception:
        pass  # it will be told when the comparison is made
    changed = [x._version for x in tensors] != before

    def make(given: Problem, options: Options) -> Callable:
        if changed:
            raise Skip("wrong: it changes its inputs in place")
        return lambda q, k, v: options.mine(q, k, v, given.slopes)[0]

    return make


PEERS = {
    "chunked": _chunked,
    "HF loop": _hf_loop,
    "SDPA": _sdpa,
    "fla chunk": _fla("chunk_simple_gla"),
    "fla fused": _fla("fused_chunk_simple_gla"),
}
