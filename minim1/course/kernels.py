"""Chapter 05's kernels: what is given to the learner, what stands in for a learner's, and attention made of the three.

A head's rows lie one after the other: q, k (G, T, D) and v (G, T, D_v), contiguous, G = B * H heads of all batch rows
together. One program works on one head and carries its state. It is `minim1.model.triton_kernel` for reading: fp32
only, head dims that are powers of two from 16 on, and no documents, so that little is left but the mathematics.
"""

import torch
from torch import Tensor

from minim1.course.triton_here import launch, tl, triton
from minim1.model.documents import document_runs

BLOCK, WARPS = 16, 8  # tokens of a block; longer ones, or fewer warps, need more registers than a thread has


# What is given


@triton.jit
def load_tile(x, head, start, length, columns: tl.constexpr, BLOCK: tl.constexpr):
    """Rows start, start + 1, ... of a head of x (G, length, columns): a tile (BLOCK, columns). From `length` on 0."""
    row, column = start + tl.arange(0, BLOCK)[:, None], tl.arange(0, columns)[None, :]
    offset = (tl.cast(head, tl.int64) * length + row) * columns + column
    return tl.load(x + offset, mask=row < length, other=0.0)


@triton.jit
def store_tile(x, tile, head, start, length, columns: tl.constexpr, BLOCK: tl.constexpr):
    """Store what `load_tile` with the same arguments would load; rows from `length` on are left out."""
    row, column = start + tl.arange(0, BLOCK)[:, None], tl.arange(0, columns)[None, :]
    offset = (tl.cast(head, tl.int64) * length + row) * columns + column
    tl.store(x + offset, tile, mask=row < length)


@triton.jit
def product(a, b):
    """The matrix product in full fp32; Triton's default on a GPU, TF32, rounds fp32 factors to 11 significant bits."""
    return tl.dot(a, b, input_precision="ieee")


# What stands in for a learner's kernel


@triton.jit
def copy_kernel(
    x, out, M, N, x_row, x_column, out_row, out_column, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    real = (row < M) & (column < N)
    tile = tl.load(x + row * x_row + column * x_column, mask=real)
    tl.store(out + row * out_row + column * out_column, tile, mask=real)


@triton.jit
def matmul_kernel(a, b, out, M, N, K, BLOCK: tl.constexpr, BLOCK_K: tl.constexpr):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None]
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, K, BLOCK_K):
        across, down = start + tl.arange(0, BLOCK_K)[None, :], start + tl.arange(0, BLOCK_K)[:, None]
        A = tl.load(a + row * K + across, mask=(row < M) & (across < K), other=0.0)
        B = tl.load(b + down * N + column, mask=(down < K) & (column < N), other=0.0)
        total += product(A, B)
    tl.store(out + row * N + column, total, mask=(row < M) & (column < N))


@triton.jit
def intra_kernel(q, k, v, slopes, out, T, D: tl.constexpr, D_V: tl.constexpr, BLOCK: tl.constexpr):
    head, start = tl.program_id(0), tl.program_id(1) * BLOCK
    slope, i = tl.load(slopes + head), tl.arange(0, BLOCK)
    distance = i[:, None] - i[None, :]
    weights = tl.where(distance >= 0, tl.exp(-slope * distance), 0.0)
    Q, K = load_tile(q, head, start, T, D, BLOCK), load_tile(k, head, start, T, D, BLOCK)
    V = load_tile(v, head, start, T, D_V, BLOCK)
    store_tile(out, product(product(Q, tl.trans(K)) * weights, V), head, start, T, D_V, BLOCK)


@triton.jit
def forward_kernel(
    q, k, v, slopes, state, out, end, T, D: tl.constexpr, D_V: tl.constexpr, BLOCK: tl.constexpr
):
    head, i = tl.program_id(0), tl.arange(0, BLOCK)
    slope, distance = tl.load(slopes + head), i[:, None] - i[None, :]
    weights = tl.where(distance >= 0, tl.exp(-slope * distance), 0.0)
    q_decay = tl.exp(-slope * (i + 1))[:, None]
    S = load_tile(state, head, 0, D, D_V, D)
    for start in range(0, T, BLOCK):
        Q, K = load_tile(q, head, start, T, D, BLOCK), load_tile(k, head, start, T, D, BLOCK)
        V = load_tile(v, head, start, T, D_V, BLOCK)
        O = product(product(Q, tl.trans(K)) * weights, V) + q_decay * product(Q, S)
        store_tile(out, O, head, start, T, D_V, BLOCK)
        m = tl.minimum(T - start, BLOCK)
        k_decay = tl.exp(-slope * tl.maximum(m - 1 - i, 0))[:, None]
        S = tl.exp(-slope * m) * S + product(tl.trans(K), k_decay * V)
    store_tile(end, S, head, 0, D, D_V, D)


@triton.jit
def dq_kernel(
    dout, k, v, slopes, state, dq, T, D: tl.constexpr, D_V: tl.constexpr, BLOCK: tl.constexpr
):
    head, i = tl.program_id(0), tl.arange(0, BLOCK)
    slope, distance = tl.load(slopes + head), i[:, None] - i[None, :]
    weights = tl.where(distance >= 0, tl.exp(-slope * distance), 0.0)
    q_decay = tl.exp(-slope * (i + 1))[:, None]
    S = load_tile(state, head, 0, D, D_V, D)
    for start in range(0, T, BLOCK):
        dO, V = load_tile(dout, head, start, T, D_V, BLOCK), load_tile(v, head, start, T, D_V, BLOCK)
        K = load_tile(k, head, start, T, D, BLOCK)
        dQ = product(product(dO, tl.trans(V)) * weights, K) + q_decay * product(dO, tl.trans(S))
        store_tile(dq, dQ, head, start, T, D, BLOCK)
        m = tl.minimum(T - start, BLOCK)
        k_decay = tl.exp(-slope * tl.maximum(m - 1 - i, 0))[:, None]
        S = tl.exp(-slope * m) * S + product(tl.trans(K), k_decay * V)


@triton.jit
def dkv_kernel(
    q, k, v, dout, slopes, dend, dk, dv, dstate, T, D: tl.constexpr, D_V: tl.constexpr, BLOCK: tl.constexpr
):
    head, i = tl.program_id(0), tl.arange(0, BLOCK)
    slope, distance = tl.load(slopes + head), i[None, :] - i[:, None]
    weights = tl.where(distance >= 0, tl.exp(-slope * distance), 0.0)
    q_decay = tl.exp(-slope * (i + 1))[:, None]
    dS, blocks = load_tile(dend, head, 0, D, D_V, D), tl.cdiv(T, BLOCK)
    for step in range(blocks):
        start = (blocks - 1 - step) * BLOCK
        Q, K = load_tile(q, head, start, T, D, BLOCK), load_tile(k, head, start, T, D, BLOCK)
        V, dO = load_tile(v, head, start, T, D_V, BLOCK), load_tile(dout, head, start, T, D_V, BLOCK)
        m = tl.minimum(T - start, BLOCK)
        k_decay = tl.exp(-slope * tl.maximum(m - 1 - i, 0))[:, None]
        dK = product(product(V, tl.trans(dO)) * weights, Q) + k_decay * product(V, tl.trans(dS))
        dV = product(product(K, tl.trans(Q)) * weights, dO) + k_decay * product(K, dS)
        store_tile(dk, dK, head, start, T, D, BLOCK)
        store_tile(dv, dV, head, start, T, D_V, BLOCK)
        dS = tl.exp(-slope * m) * dS + product(tl.trans(Q), q_decay * dO)
    store_tile(dstate, dS, head, 0, D, D_V, D)


# Lightning attention made of three kernels, yours or these


class Attention(torch.autograd.Function):
    """q, k (G, T, D), v (G, T, D_v), slopes (G,), state (G, D, D_v) -> out, end; all fp32 and contiguous."""

    @staticmethod
    def forward(ctx, kernels, q, k, v, slopes, state):
        ctx.kernels = kernels
        ctx.save_for_backward(q, k, v, slopes, state)
        out, end = torch.empty_like(v), torch.empty_like(state)
        _run(kernels[0], q, k, v, slopes, state, out, end)
        return out, end

    @staticmethod
    def backward(ctx, dout, dend):
        q, k, v, slopes, state = ctx.saved_tensors
        dout, dend = dout.contiguous(), dend.contiguous()
        dq, dk, dv, dstate = map(torch.empty_like, (q, k, v, state))
        _run(ctx.kernels[1], dout, k, v, slopes, state, dq)
        _run(ctx.kernels[2], q, k, v, dout, slopes, dend, dk, dv, dstate)
        return None, dq, dk, dv, None, dstate


def _run(kernel, *tensors: Tensor) -> None:
    k, v = tensors[1:3]  # in all three signatures
    heads, length, dim = k.shape
    launch(kernel, (heads,), *tensors, length, D=dim, D_V=v.shape[2], BLOCK=BLOCK, num_warps=WARPS)


def lightning_by(kernels, q, k, v, slopes, *, state=None, document_ids=None):
    """Lightning attention by a forward, a dQ and a dK/dV kernel: contract of `minim1.lightning_attention`, in fp32.

    Args: kernels: the three, of the signatures above; the rest as there, D and D_v powers of two from 16 on.
    Returns: out (B, T, H, D_v) in q's dtype, state (B, H, D, D_v) fp32. Documents are run one by one.
    """
    batch, _, heads, dim = q.shape
    if state is None:
        state = torch.zeros(batch, heads, dim, v.shape[3], device=q.device)
    if document_ids is None:
        inputs = (x.float().transpose(1, 2).flatten(0, 1).contiguous() for x in (q, k, v))  # (B * H, T, D)
        slopes = slopes.float().repeat(batch)  # head g is head g % H of its row
        out, end = Attention.apply(kernels, *inputs, slopes, state.float().flatten(0, 1).contiguous())
        return out.unflatten(0, (batch, heads)).transpose(1, 2).to(q.dtype), end.unflatten(0, (batch, heads))
    out, ends = torch.zeros_like(v), []
    for row, runs in enumerate(document_runs(document_ids)):
        end = state[row : row + 1]
        for number in range(int(runs.max()) + 1):
            at = runs == number
            start = end if number == 0 else torch.zeros_like(end)
            piece, end = lightning_by(kernels, *(x[row : row + 1, at] for x in (q, k, v)), slopes, state=start)
            out[row, at] = piece[0]
        ends.append(end)
    return out, torch.cat(ends)


def lightning_by_kernel(q, k, v, slopes, *, state=None, document_ids=None):
    """`lightning_by` with this module's kernels; `bench attention --mine minim1.course.kernels:lightning_by_kernel`."""
    kernels = forward_kernel, dq_kernel, dkv_kernel
    return lightning_by(kernels, q, k, v, slopes, state=state, document_ids=document_ids)
