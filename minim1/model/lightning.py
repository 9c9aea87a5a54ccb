"""Lightning attention: the definition, two equivalent forms, and the choice between them.

    o_t = sum over j <= t of exp(-s (t - j)) (q_t . k_j) v_j          one slope s per head

No scale, no softmax, no denominator: position enters by the decay alone (MiniMax-01 report §2.2; M1's code).
B batch, T time, H heads, D head dim, C block length, N number of blocks.

  `lightning_recurrent`  the definition: one (D, D) state per head, one token at a time, O(T D^2)
  `lightning_quadratic`  all pairs at once: ((Q K^T) * decay) V, O(T^2 D)
  `lightning_chunked`    both at their best: quadratic inside blocks, recurrent between them, O(T D^2 + T C D)

All take and return a state, honour `document_ids` (see `documents.py`) and agree to rounding error.
Exponents are never positive, so nothing overflows whatever the slope.
"""

import math
import warnings
from functools import cache, partial

import torch
from torch import Tensor

from minim1.errors import UserError
from minim1.model.documents import document_runs, finite, one_by_one, real_first
from minim1.model.fast_lightning import FastLightning
from minim1.model.precision import at_least_fp32, without_autocast


def base_slopes(num_heads: int) -> list[float]:
    """ALiBi's ladder 2^(-8h/H), h = 1..H; for other than powers of two M1's (ALiBi's) interleaved fallback.

    >>> base_slopes(4)
    [0.25, 0.0625, 0.015625, 0.00390625]
    """
    if math.log2(num_heads).is_integer():
        return [2.0 ** (-8.0 * head / num_heads) for head in range(1, num_heads + 1)]
    lower = 2 ** math.floor(math.log2(num_heads))
    return base_slopes(lower) + base_slopes(2 * lower)[0::2][: num_heads - lower]


def decay_slopes(num_heads: int, layer: int, num_layers: int, base: tuple[float, ...] | None = None) -> Tensor:
    """Slopes s of a layer: decay per token is exp(-s). (H,) fp32, fixed, not learned (M1's code).

    s = base_h * (1 - l/(L-1) + 1e-5), with L counting all layers, softmax ones included: early layers are
    local, late ones nearly undecayed. A one-layer model has the factor 1 + 1e-5 (M1 would divide by zero).

    >>> decay_slopes(8, 0, 8)[0].item()
    0.5000050067901611
    """
    factor = 1 - layer / (num_layers - 1) + 1e-5 if num_layers > 1 else 1 + 1e-5
    return torch.tensor(base_slopes(num_heads) if base is None else base, dtype=torch.float64).mul(factor).float()


def lightning_recurrent(q, k, v, slopes, *, state=None, document_ids=None):
    """The definition, token by token:  S <- exp(-s) S + k^T v ;  o = q S.  Same contract as `lightning_attention`."""
    q, k, v, slopes, state = _prepare(q, k, v, slopes, state)
    runs = None if document_ids is None else document_runs(document_ids)
    if runs is not None:
        q, k, v = _hide(runs < 0, q, k, v)
    decay = torch.exp(-slopes).view(-1, 1, 1)
    newest = torch.zeros(q.shape[0], dtype=torch.long, device=q.device)  # document the state belongs to
    outputs = []
    for t in range(q.shape[1]):
        updated = decay * state + k[:, t].unsqueeze(-1) * v[:, t].unsqueeze(-2)
        if runs is not None:
            fresh = k[:, t].unsqueeze(-1) * v[:, t].unsqueeze(-2)
            run = runs[:, t]
            updated = torch.where((run > newest).view(-1, 1, 1, 1), fresh, updated)
            updated = torch.where((run >= 0).view(-1, 1, 1, 1), updated, state)
            newest = torch.maximum(newest, run)
        state = updated
        outputs.append((q[:, t].unsqueeze(-2) @ state).squeeze(-2))
    return torch.stack(outputs, dim=1), state


def lightning_quadratic(q, k, v, slopes, *, state=None, document_ids=None):
    """All pairs at once, as one block. Same contract as `lightning_attention`; O(T^2) time and memory."""
    return lightning_chunked(q, k, v, slopes, state=state, document_ids=document_ids, block_size=q.shape[1])


def lightning_chunked(q, k, v, slopes, *, state=None, document_ids=None, block_size: int = 64):
    """The block form (MiniMax-01 report Alg. 1, with the decays of M1's code). Same contract as `lightning_attention`.

    In a block of m tokens (i, j from 0), S the state before it:

        O = ((Q K^T) * decay^(i-j)) V  +  decay^(i+1) Q S
        S <- decay^m S + (decay^(m-1-j) K)^T V
    """
    no_state = state is None
    q, k, v, slopes, state = _prepare(q, k, v, slopes, state)
    blocks = partial(_blocks, slopes=slopes, block_size=block_size)
    return _padding_last(blocks, q, k, v, None if no_state and document_ids is None else state, document_ids)


def lightning_fast(q, k, v, slopes, *, state=None, document_ids=None, block_size: int = 32):
    """The block form with a hand-written backward, for CPUs: see `fast_lightning.py`. Same contract as `lightning_attention`."""
    dtype = accumulation_dtype(q)
    state = _zero_state(q, v) if state is None else state.to(dtype)
    blocks = partial(FastLightning.apply, slopes.to(q.device, dtype), block_size)
    return _padding_last(blocks, q, k, v, state, document_ids)


def _padding_last(form, q, k, v, state, document_ids):
    """Run `form(q, k, v, state, runs)`, which wants zeros at padding and all padding at the end of its row.

    The forms mix the documents of a block in one matrix product, masked with zeros, and 0 * NaN is NaN: where the
    result is not finite, the documents are therefore run one by one.
    """
    if document_ids is None:
        return form(q, k, v, state, None)
    runs = document_runs(document_ids)
    real, order = runs >= 0, None
    if not real.all():
        q, k, v = _hide(~real, q, k, v)
        if (real[:, 1:] & ~real[:, :-1]).any():
            order = real_first(real)  # padding is transparent
            index = order.view(*order.shape, 1, 1).expand(-1, -1, q.shape[2], -1)
            q, k, v = (x.gather(1, index.expand(-1, -1, -1, x.shape[-1])) for x in (q, k, v))
            runs = runs.gather(1, order)
    out, end = form(q, k, v, state, runs)
    if not finite(out, end):
        out, end = one_by_one(form, q, k, v, state, runs)
    if order is not None:
        out = torch.zeros_like(out).scatter(1, index.expand(-1, -1, -1, out.shape[-1]), out)
    return out, end


def _blocks(q, k, v, state, runs, *, slopes, block_size):
    """`lightning_chunked` on rows whose padding is at the end and zero; `runs` (B, T) or None, `state` or None (zero)."""
    batch, length, heads, _ = q.shape
    block = min(block_size, length)
    blocks = -(-length // block)
    fill = blocks * block - length
    if fill:
        q, k, v = (torch.nn.functional.pad(x, (0, 0, 0, 0, 0, fill)) for x in (q, k, v))
    # (B, H, N, C, D)
    q, k, v = (x.unflatten(1, (blocks, block)).permute(0, 3, 1, 2, 4) for x in (q, k, v))
    slope = slopes.view(heads, 1, 1)
    i = torch.arange(block, device=q.device, dtype=q.dtype)
    distance = i.view(-1, 1) - i
    decay = torch.exp(-slope * distance.clamp(min=0)).tril().unsqueeze(1)  # (H, 1, C, C)

    if runs is None:
        size = torch.full((blocks,), float(block), dtype=q.dtype, device=q.device)
        size[-1] = block - fill
        sizes, pairs, reads, writes, keeps = size.view(1, 1, blocks, 1), None, None, None, None
    else:
        runs = torch.nn.functional.pad(runs, (0, fill), value=-1).view(batch, 1, blocks, block)
        real = runs >= 0
        sizes = real.sum(-1, keepdim=True).to(q.dtype)  # (B, 1, N, 1)
        newest = runs.flatten(2).cummax(-1).values.clamp(min=0).view_as(runs)[..., -1:]  # last document of each block
        before = torch.cat([torch.zeros_like(newest[:, :, :1]), newest[:, :, :-1]], dim=2)
        pairs = runs.unsqueeze(-1) == runs.unsqueeze(-2)  # (B, 1, N, C, C)
        reads, writes, keeps = runs == before, runs == newest, newest == before

    scores = (q @ k.transpose(-1, -2)) * decay
    if pairs is not None:
        scores = scores * pairs
    out = scores @ v

    to_end = torch.exp(-slope * (sizes - 1 - i).clamp(min=0))  # (B or 1, H, N, C): decay^(m-1-j)
    added = ((k * _where(to_end, writes).unsqueeze(-1)).transpose(-1, -2) @ v).unbind(2)  # N x (B, H, D, D)
    if blocks > 1 or state is not None:
        carry = _where(torch.exp(-slope * sizes), keeps).unsqueeze(-1).unbind(2)  # N x (B or 1, H, 1, 1)
        state = torch.zeros_like(added[0]) if state is None else state
        states = []
        for block_added, block_carry in zip(added, carry):
            states.append(state)
            state = block_carry * state + block_added
        since_start = _where(torch.exp(-slope * (i + 1)), reads)  # decay^(i+1)
        out = out + (q * since_start.unsqueeze(-1)) @ torch.stack(states, dim=2)
    else:
        state = added[0]
    return out.permute(0, 2, 3, 1, 4).flatten(1, 2)[:, :length], state


def _where(weight: Tensor, condition: Tensor | None) -> Tensor:
    return weight if condition is None else weight * condition


def lightning_step(q, k, v, slopes, state, real=None, *, overwrite: bool = False):
    """One decoded token:  S <- exp(-s) S + k^T v ;  o = q S.

    Args: q, k, v (B, 1, H, D); slopes (H,); state (B, H, D, D); real (B,) bool, False leaves a row untouched;
        overwrite: update `state` in place, where nobody else holds it.
    """
    q, k, v, slopes, state = _prepare(q, k, v, slopes, state)
    decay = torch.exp(-slopes).view(-1, 1, 1)
    if real is not None:
        q, k, v = _hide(~real.unsqueeze(1), q, k, v)
        decay = torch.where(real.view(-1, 1, 1, 1), decay, 1.0)
    state = state.mul_(decay) if overwrite else state * decay
    q, k, v = q.squeeze(1).unsqueeze(-1), k.squeeze(1).unsqueeze(-1), v.squeeze(1).unsqueeze(-2)
    state = state.addcmul_(k, v) if overwrite else state.addcmul(k, v)
    return (q * state).sum(-2).unsqueeze(1), state  # a matrix product would be slower: B H tiny ones


def lightning_triton(q, k, v, slopes, *, state=None, document_ids=None):
    """The block form as a GPU kernel: see `triton_lightning.py`, which is imported only now."""
    from minim1.model import triton_lightning

    return triton_lightning.lightning_triton(q, k, v, slopes, state=state, document_ids=document_ids)


FORMS = {
    "recurrent": lightning_recurrent, "quadratic": lightning_quadratic, "chunked": lightning_chunked,
    "fast": lightning_fast, "triton": lightning_triton,
}
BLOCKED = ("chunked", "fast")  # the forms that take a block_size


def lightning_attention(q, k, v, slopes, *, state=None, document_ids=None, backend="auto", block_size: int = 32,
                        overwrite_state: bool = False):
    """Causal linear attention with a fixed decay per head: the contract of the part `lightning`.

    Args:
        q, k, v: (B, T, H, D), any float dtype; v may have another last size.
        slopes: (H,) at least 0; the decay per token is exp(-slope).
        state: (B, H, D_k, D_v) carried in, or None for zero. It belongs to the document at position 0.
        document_ids: (B, T) integers or None (one document). A document is a maximal run of equal ids, a
            change resets the state; -1 is padding: output 0, no part in any state, no decay.
        backend: "auto", or "fast", "chunked", "quadratic", "recurrent", "triton".
        block_size: block length of the forms "fast" and "chunked".
        overwrite_state: a single token may update `state` in place; not while gradients are recorded.
    Returns:
        out (B, T, H, D_v) in q's dtype, and the state after position T-1 in fp32 (fp64 when q is fp64).
    Raises:
        UserError: shapes that do not fit, an unknown backend, or one that cannot run here.

    >>> x = torch.ones(1, 3, 1, 1)
    >>> lightning_attention(x, x, x, torch.tensor([math.log(2)]))[0].flatten().tolist()
    [1.0, 1.5, 1.75]
    """
    _check(q, k, v, slopes, state, document_ids)
    if block_size < 1:
        raise UserError(f"block_size is {block_size}; it must be at least 1")
    if backend not in ("auto", *FORMS):
        raise UserError(f"unknown backend {backend!r}; choose one of auto, {', '.join(FORMS)}")
    single = backend == "auto" and q.shape[1] == 1 and state is not None
    backend = choose_backend(q, k, v) if backend == "auto" else backend
    with without_autocast(q):  # the state is fp32 whatever the activations are
        if single and backend != "triton":
            real = None if document_ids is None else document_ids[:, 0] >= 0
            overwrite = overwrite_state and not torch.is_grad_enabled()
            out, state = lightning_step(q, k, v, slopes, state, real, overwrite=overwrite)
        else:
            options = {"block_size": block_size} if backend in BLOCKED else {}
            out, state = FORMS[backend](q, k, v, slopes, state=state, document_ids=document_ids, **options)
    return out.to(q.dtype), state


def choose_backend(q: Tensor, k: Tensor, v: Tensor) -> str:
    """What backend="auto" stands for: "fast" on a CPU; on CUDA "triton" where its tests have passed, else "chunked"."""
    if not q.is_cuda:
        return "fast" if q.device.type == "cpu" else "chunked"
    from minim1.model.triton_lightning import tested_on_gpu, why_not

    capability = torch.cuda.get_device_capability(q.device)
    reason = why_not(q, k, v)
    if reason is None and not all(tested_on_gpu(q.dtype, x.shape[-1], capability) for x in (q, v)):
        reason = (
            f"its tests are not recorded as passed for {q.dtype}, head dim {q.shape[-1]}, on a GPU of compute capability "
            f"{capability[0]}.{capability[1]}; run `python3 go.py gpu`, or ask for backend='triton'"
        )
    if reason is None:
        return "triton"
    _say_once(f"lightning attention runs in PyTorch, not in Triton: {reason}")
    return "chunked"


@cache
def _say_once(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=4)


def accumulation_dtype(q: Tensor) -> torch.dtype:
    """fp64 for fp64 inputs, else fp32: what states are kept in."""
    return torch.float64 if q.dtype == torch.float64 else torch.float32


def _zero_state(q, v):
    return q.new_zeros(q.shape[0], q.shape[2], q.shape[3], v.shape[3], dtype=accumulation_dtype(q))


def _prepare(q, k, v, slopes, state):
    """q, k, v, slopes and state in the accumulation dtype; a zero state if None."""
    dtype = accumulation_dtype(q)
    state = _zero_state(q, v) if state is None else state
    return *(at_least_fp32(x) for x in (q, k, v)), slopes.to(q.device, dtype), state.to(dtype)


def _hide(padding: Tensor, *tensors: Tensor):
    """(B, T, H, D) tensors with 0 at padding (B, T), whatever stood there: NaN * 0 would be NaN."""
    padding = padding.unsqueeze(-1).unsqueeze(-1)
    return (x.masked_fill(padding, 0) for x in tensors)


def _check(q, k, v, slopes, state, document_ids) -> None:
    if q.ndim != 4 or q.shape != k.shape or q.shape[:3] != v.shape[:3]:
        raise UserError(
            f"q, k, v have shapes {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}; expected (B, T, H, D) for all"
        )
    if not q.dtype == k.dtype == v.dtype or not q.is_floating_point():
        raise UserError(f"q, k, v are {q.dtype}, {k.dtype}, {v.dtype}; expected one floating-point dtype: convert them")
    others = [x for x in (k, v, state, document_ids) if x is not None and x.device != q.device]
    if others:
        raise UserError(f"q is on {q.device} and another input on {others[0].device}; move all of them to one device")
    if q.shape[1] == 0:
        raise UserError(f"q has shape {tuple(q.shape)}; attention needs at least one token")
    if slopes.shape != (q.shape[2],):
        raise UserError(f"slopes have shape {tuple(slopes.shape)}; expected ({q.shape[2]},), one for each head")
    expected = (q.shape[0], q.shape[2], q.shape[3], v.shape[3])
    if state is not None and tuple(state.shape) != expected:
        raise UserError(f"state has shape {tuple(state.shape)}; expected (B, H, D_k, D_v) = {expected}")
    if document_ids is not None and document_ids.shape != q.shape[:2]:
        raise UserError(f"document_ids have shape {tuple(document_ids.shape)}; expected (B, T) = {tuple(q.shape[:2])}")
