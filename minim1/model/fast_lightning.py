"""The chunked form again, arranged for a CPU's caches, with a backward pass of its own.

`lightning_chunked` lets autograd record every intermediate of a whole row: memory traffic then costs more than
arithmetic. Here a row is walked in pieces of a few blocks that stay in cache, nothing is recorded but the state
before each piece, and the backward pass walks the pieces from last to first and recomputes what it needs:

    P  = (Q K^T) * decay^(i-j)             O  = P V    + decay^(i+1) Q S          S: state before the block
    dP = (G V^T) * decay^(i-j)             dQ = dP K   + decay^(i+1) G S^T        G: gradient of O
                                           dK = dP^T Q + decay^(m-1-j) V R^T      R: gradient of the state after it
                                           dV = P^T G  + decay^(m-1-j) K R
    S <- decay^m S + (decay^(m-1-j) K)^T V          R <- decay^m R + Q^T (decay^(i+1) G)

B batch, T time, H heads, D head dim, C block length, N blocks of a piece, time-major: (N, B, H, C, D).
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from minim1.model.documents import finite, one_by_one

PIECE = 2**18  # numbers per tensor of a piece: small enough for the caches, large enough to hide the calls' overhead


class Weights(NamedTuple):
    """Decays of a piece, with zeros where documents forbid: all of them broadcast against (N B, H, C, ...)."""

    pairs: Tensor  # (1 or NB, H, C, C): decay^(i-j) below the diagonal
    since_start: Tensor  # (1 or NB, H, C, 1): decay^(i+1)
    to_end: Tensor  # (1 or NB, H, C, 1): decay^(m-1-j)
    carry: Tensor  # (1 or N, 1 or B, H, 1, 1): decay^m


def weights(slopes: Tensor, block: int, runs: Tensor | None = None, before: Tensor | None = None) -> Weights:
    """Decays of blocks of one length. slopes (H,); runs (N, B, C), padding last; before (B,): the state's document."""
    i = torch.arange(block, device=slopes.device, dtype=slopes.dtype)
    slope = slopes.view(-1, 1)
    pairs = torch.exp(-slope.unsqueeze(-1) * (i.view(-1, 1) - i).clamp(min=0)).tril()
    since_start = torch.exp(-slope * (i + 1))
    if runs is None:
        to_end, carry = torch.exp(-slope * (block - 1 - i)), torch.exp(-slopes * block)
        return Weights(pairs.unsqueeze(0), since_start[None, ..., None], to_end[None, ..., None], carry.view(1, 1, -1, 1, 1))
    newest = newest_document(runs, before)
    one_document = not ((runs != before.unsqueeze(-1)) & (runs >= 0)).any()
    before = torch.cat([before.unsqueeze(0), newest[:-1]]).unsqueeze(-1)  # (N, B, 1)
    newest = newest.unsqueeze(-1)
    size = (runs >= 0).sum(-1, keepdim=True)  # (N, B, 1)
    to_end = torch.exp(-slope * (size - 1 - i).clamp(min=0).unsqueeze(2)) * (runs == newest).unsqueeze(2)
    carry = torch.exp(-slope * size.unsqueeze(2)) * (before == newest).unsqueeze(2)  # (N, B, H, 1)
    if one_document:  # and padding, which is 0 and comes last
        pairs, since_start = pairs.unsqueeze(0), since_start.unsqueeze(0)
    else:
        pairs = (pairs * (runs.unsqueeze(-1) == runs.unsqueeze(-2)).unsqueeze(2)).flatten(0, 1)
        since_start = (since_start * (runs == before).unsqueeze(2)).flatten(0, 1)
    return Weights(pairs, since_start.unsqueeze(-1), to_end.flatten(0, 1).unsqueeze(-1), carry.unsqueeze(-1))


def newest_document(runs: Tensor, before: Tensor) -> Tensor:
    """The document that the state belongs to after each block. runs (N, B, C), before (B,) -> (N, B)."""
    return torch.maximum(runs.amax(-1), before).cummax(0).values


class FastLightning(torch.autograd.Function):
    """`apply(slopes, block_size, q, k, v, state, runs)` -> out (B, T, H, D_v) in q's dtype, state (B, H, D_k, D_v).

    state and slopes are in the accumulation dtype; runs (B, T) or None is non-decreasing, then -1 for padding, at
    which q, k and v must be 0.
    """

    @staticmethod
    def forward(ctx, slopes, block_size, q, k, v, state, runs):
        out = q.new_empty(*q.shape[:3], v.shape[3])
        pieces, states = _pieces(q, block_size), []
        room = state.new_empty(pieces[0][1] + 1, *state.shape)
        for weight, cut in _weighted(pieces, slopes, runs):
            states.append(state)
            q_, k_, v_ = (cut(x, state.dtype) for x in (q, k, v))
            product = _product(_product(q_, k_.mT).mul_(weight.pairs), v_)
            scan = _states(k_.mul_(weight.to_end), v_, weight.carry, state, room)
            _store(cut(out), _add_product(product, q_.mul_(weight.since_start), scan[:-1]))
            state = scan[-1].clone()
        ctx.save_for_backward(q, k, v, slopes, runs, *states)
        ctx.block_size, ctx.pieces = block_size, pieces
        return out, state

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, grad_state):
        q, k, v, slopes, runs, *states = ctx.saved_tensors
        dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
        grad_end = grad_state
        room, room_back = states[0].new_empty(2, ctx.pieces[0][1] + 1, *states[0].shape)
        pieces = list(_weighted(ctx.pieces, slopes, runs))
        for (weight, cut), state in zip(reversed(pieces), reversed(states)):
            q_, k_, v_, g_ = (cut(x, state.dtype) for x in (q, k, v, grad))
            k_end, g_start = k_ * weight.to_end, g_ * weight.since_start
            scan = _states(k_end, v_, weight.carry, state, room)[:-1]
            scan_back = _states(q_, g_start, weight.carry, grad_state, room_back, back=True)
            grad_state = scan_back[0].clone()

            pairs = _product(q_, k_.mT).mul_(weight.pairs)
            _store(cut(dv), _add_product(_product(pairs.mT, g_), k_end, scan_back[1:]))
            pairs = torch.bmm(g_.flatten(0, 1), v_.mT.flatten(0, 1), out=pairs.flatten(0, 1)).view_as(pairs)
            pairs.mul_(weight.pairs)
            _store(cut(dq), _add_product(_product(pairs, k_), g_start, scan.mT))
            _store(cut(dk), _add_product(_product(pairs.mT, q_), v_.mul_(weight.to_end), scan_back[1:].mT))
        if runs is not None and not finite(dq, dk, dv):
            dq, dk, dv, grad_state = _gradients_one_by_one(ctx, grad, grad_end)
        return None, None, dq, dk, dv, grad_state if ctx.needs_input_grad[5] else None, None


def _gradients_one_by_one(ctx, grad, grad_state):
    """What NaN or Inf in one document asks for, see `one_by_one`."""
    q, k, v, slopes, runs, state, *_ = ctx.saved_tensors
    with torch.enable_grad():
        inputs = [x.detach().requires_grad_() for x in (q, k, v, state)]
        outputs = one_by_one(partial(FastLightning.apply, slopes, ctx.block_size), *inputs, runs)
        return torch.autograd.grad(outputs, inputs, (grad, grad_state), materialize_grads=True)


def _pieces(q: Tensor, block_size: int) -> list[tuple[int, int, int]]:
    """(start, number of blocks, block length) of each piece; a remainder is a piece with one shorter block."""
    batch, length, heads, dim = q.shape
    block = min(block_size, length)
    most = max(1, PIECE // (batch * heads * max(dim, block) ** 2))  # the largest are states or pairs
    full = length // block
    pieces = [(n * block, min(most, full - n), block) for n in range(0, full, most)]
    return pieces + ([(full * block, 1, length - full * block)] if length > full * block else [])


def _weighted(pieces, slopes, runs):
    """For each piece its `Weights` and the function that cuts it, as blocks, out of a (B, T, ...) tensor."""
    before, known = None if runs is None else torch.zeros_like(runs[:, 0]), {}
    for start, number, block in pieces:
        def cut(x, dtype=None, start=start, number=number, block=block):
            x = x[:, start : start + number * block].unflatten(1, (number, block)).transpose(0, 1)
            if x.ndim == 5:
                x = x.transpose(2, 3)  # (N, B, H, C, D)
            if dtype is None:
                return x
            return x.to(dtype, copy=True, memory_format=torch.contiguous_format).flatten(0, 1)

        here = None if runs is None else cut(runs)
        if here is None or bool((here == before.unsqueeze(-1)).all()):  # one document, no padding
            if block not in known:
                known[block] = weights(slopes, block)
            yield known[block], cut
        else:
            yield weights(slopes, block, here, before), cut
            before = newest_document(here, before)[-1]


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Matrix products of (NB, H, ., .) tensors."""
    return torch.bmm(a.flatten(0, 1), b.flatten(0, 1)).unflatten(0, a.shape[:2])


def _add_product(total: Tensor, a: Tensor, states: Tensor) -> Tensor:
    """total += a @ states, in place; total, a (NB, H, C, .), states (N, B, H, ., .)."""
    total.flatten(0, 1).baddbmm_(a.flatten(0, 1), states.flatten(0, 2))
    return total


def _store(target: Tensor, blocks: Tensor) -> None:
    target.copy_(blocks.view_as(target))


def _states(a: Tensor, b: Tensor, carry: Tensor, state: Tensor, room: Tensor, *, back: bool = False) -> Tensor:
    """State before every block and after the last, (N+1, B, H, D, D): S <- carry S + a^T b; `back` runs from the end."""
    number = a.shape[0] // state.shape[0]
    scan = room[: number + 1]
    added = scan[:-1] if back else scan[1:]
    torch.bmm(a.mT.flatten(0, 1), b.flatten(0, 1), out=added.flatten(0, 2))
    carry = carry.expand(number, -1, -1, -1, -1)
    scan[number if back else 0] = state
    for n in reversed(range(number)) if back else range(number):
        new, old = (n, n + 1) if back else (n + 1, n)
        scan[new].addcmul_(scan[old], carry[n])
    return scan
