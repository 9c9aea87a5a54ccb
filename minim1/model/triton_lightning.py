"""Lightning attention by Triton: choice of tiles, chunks of packed documents and autograd around `triton_kernel.py`.

The forward pass is one run of that kernel, the backward pass three. Nothing is kept in between but the inputs, and
q, k, v may be any strided views, such as the parts of a fused projection: nothing is copied.
B batch, T time, H heads, D head dim of q and k, E head dim of v.
"""

import functools
import importlib.util
import json
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from minim1.errors import UserError
from minim1.model.documents import document_positions, document_runs, real_first

MAX_DIM = 128  # of a head: D x 64 numbers of the state are held in registers
DTYPES = {torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float32: "float32"}
TESTED = Path(__file__).with_name("triton_tested.json")


def lightning_triton(q, k, v, slopes, *, state=None, document_ids=None):
    """Lightning attention in Triton, with gradients for q, k, v and state. Contract of `lightning_attention`.

    Args: q, k (B, T, H, D), v (B, T, H, E), of one dtype: fp16, bf16 or fp32; D and E up to 128; the rest as there.
        Factors of products are in that dtype (fp32: in full, no TF32), sums and the state in fp32.
    Returns: out (B, T, H, E) in q's dtype, state (B, H, D, E) fp32.
    Raises: UserError with the reason if `why_not(q, k, v)` has one.
    """
    reason = why_not(q, k, v)
    if reason:
        raise UserError(f"backend 'triton' cannot run: {reason}")
    tiling = choose_tiling(q, v, torch.cuda.get_device_capability(q.device) if q.is_cuda else None)
    chunks = [None] * 4 if document_ids is None else document_chunks(document_ids.to(q.device), tiling.chunk)
    slopes, state = (None if x is None else x.to(q.device, torch.float32) for x in (slopes, state))
    return _Lightning.apply(q, k, v, slopes, state, tiling, *chunks)


def why_not(q: Tensor, k: Tensor, v: Tensor) -> str | None:
    """Why the kernel cannot run on these tensors, with the remedy; None if it can."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed; install minim1[triton], which needs Linux, or use backend='auto'"
    if not q.device == k.device == v.device:
        return f"q, k, v are on {q.device}, {k.device}, {v.device}; move them to one device"
    if not q.dtype == k.dtype == v.dtype:
        return f"q, k, v are {q.dtype}, {k.dtype}, {v.dtype}; convert them to one dtype"
    if q.dtype not in DTYPES:
        return f"q is {q.dtype}; convert q, k, v to float32, bfloat16 or float16, or use backend='auto'"
    dims = q.shape[-1], v.shape[-1]
    if min(dims) < 1 or max(dims) > MAX_DIM:
        return f"q and v have head dims {dims[0]} and {dims[1]}, expected 1 to {MAX_DIM}; use backend='auto'"
    if _interpreted():
        if q.dtype == torch.bfloat16:
            return "q is bfloat16, which Triton's interpreter multiplies wrongly; use float32, float16 or a GPU"
    elif not q.is_cuda:
        return (
            f"q is on {q.device}; move it to a CUDA device, use backend='auto', or set TRITON_INTERPRET=1 before "
            "Python starts, to have the kernel interpreted, slowly"
        )
    return None


def _interpreted() -> bool:
    """Whether TRITON_INTERPRET was set when Triton made the kernel; only Triton reads the environment."""
    import triton

    from minim1.model.triton_kernel import lightning_kernel

    return not isinstance(lightning_kernel, triton.JITFunction)


def tested_on_gpu(dtype: torch.dtype, head_dim: int, capability: tuple[int, int]) -> bool:
    """Whether the tests have passed on a GPU of this compute capability, by the record `triton_tested.json`."""
    return (DTYPES.get(dtype), head_dim, tuple(capability)) in _tested()


@functools.cache
def _tested() -> frozenset:
    rows = json.loads(TESTED.read_text(encoding="utf-8"))
    return frozenset((row["dtype"], row["head_dim"], tuple(row["capability"])) for row in rows)


class Tiling(NamedTuple):
    """How the work is cut up: it decides the speed and, by the order of sums, the last bits."""

    chunk: int  # tokens at a time
    columns: int  # of v, for one program
    warps: int  # groups of 32 threads that share the work of one program
    stages: int  # 2: the next chunk is loaded while this one is at work


def choose_tiling(q: Tensor, v: Tensor, capability: tuple[int, int] | None) -> Tiling:
    """Tiles as large as they can be with everything in registers, of which a thread has 255 (compiled and counted).

    `capability` of the GPU; None is the interpreter, where fewer and larger is always faster.
    """
    large = max(q.shape[-1], v.shape[-1]) > 64
    if capability is None:
        tiling = Tiling(64, 128, 1, 1)
    elif q.dtype == torch.float32:  # no tensor core multiplies fp32 in full: threads hold whole rows and columns
        tiling = Tiling(16, 16 if large else 32, 8, 1)
    elif capability[0] in (9, 10):  # Hopper's and the B200's tensor cores read tiles of 64 rows from shared memory
        tiling = Tiling(64, 64, 8, 2) if large else Tiling(64, 32, 4, 2)
    else:
        tiling = Tiling(32, 32, 8 if large else 4, 2)
    return tiling._replace(chunk=min(tiling.chunk, _power_of_two(q.shape[1])))


def _power_of_two(size: int) -> int:
    """The side of a tile that covers `size`: a power of two, at least 16."""
    return max(16, 1 << (size - 1).bit_length())


def launch(q, k, v, slopes, state, tiling, chunks, *, reverse=False, keep=True) -> tuple[tuple, dict]:
    """Grid and arguments of one run of the kernel, its outputs `out` and `final` (None unless `keep`) among them."""
    batch, length, heads, dim = q.shape
    value_dim = v.shape[-1]
    block_e = min(tiling.columns, _power_of_two(value_dim))
    out = v.new_empty(v.shape) if chunks[0] is None else v.new_zeros(v.shape)  # padding is in no chunk: it stays 0
    final = q.new_empty(batch, heads, dim, value_dim, dtype=torch.float32) if keep else None
    tensors, states = dict(q=q, k=k, v=v, out=out), dict(state=state, final=final)
    strides = {f"{name}_strides": x.stride() for name, x in tensors.items()}
    for name, x in states.items():  # (B, H, D, E), addressed as (B, D, H, E) is: d in the place of the token
        strides[f"{name}_strides"] = None if x is None else x.transpose(1, 2).stride()
    arguments = dict(
        **tensors, **states, **strides, **dict(zip(("order", "starts", "fresh", "counts"), chunks)),
        slopes=slopes, length=length, D=dim, E=value_dim, BLOCK_D=_power_of_two(dim), BLOCK_E=block_e,
        CHUNK=tiling.chunk, REVERSE=reverse, num_warps=tiling.warps, num_stages=tiling.stages,
    )
    return (-(-value_dim // block_e), heads, batch), arguments


def run_kernel(*inputs, **options) -> tuple[Tensor, Tensor | None]:
    """One run of the kernel, with the arguments of `launch`: (out, final)."""
    from minim1.model.triton_kernel import lightning_kernel

    grid, arguments = launch(*inputs, **options)
    with torch.cuda.device_of(arguments["q"]):  # Triton launches on the current device
        lightning_kernel[grid](**arguments)
    return arguments["out"], arguments["final"]


class _Lightning(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, slopes, state, tiling, *chunks):
        ctx.set_materialize_grads(False)  # an output that nobody used has None for its gradient, not zeros
        ctx.tiling = tiling
        ctx.save_for_backward(q, k, v, slopes, state, *chunks)
        return run_kernel(q, k, v, slopes, state, tiling, chunks)

    @staticmethod
    @once_differentiable
    def backward(ctx, d_out, d_final):
        q, k, v, slopes, state, *chunks = ctx.saved_tensors
        needs_q, needs_k, needs_v, _, needs_state, *_ = ctx.needs_input_grad
        dq = dk = dv = d_state = None
        if d_out is None:  # only the state was used: dq is None, and for dk and dv one row of zeros stands for all
            d_out = v.new_zeros(v.shape[-1]).expand(v.shape)
        elif needs_q:
            dq, _ = run_kernel(d_out, v, k, slopes, _transposed(state), ctx.tiling, chunks, keep=False)
        if needs_k:
            d_final_t = _transposed(d_final)
            dk, _ = run_kernel(v, d_out, q, slopes, d_final_t, ctx.tiling, chunks, reverse=True, keep=False)
        if needs_v or needs_state:
            dv, d_state = run_kernel(
                k, q, d_out, slopes, d_final, ctx.tiling, chunks, reverse=True, keep=needs_state
            )
        return dq, dk, dv, None, d_state, None, None, None, None, None


def _transposed(state: Tensor | None) -> Tensor | None:
    return None if state is None else state.transpose(-1, -2)


def document_chunks(document_ids: Tensor, chunk: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cut every row into chunks of at most `chunk` tokens of one document, as if padding were deleted.

    All of it happens on the device, in sizes that do not depend on the ids: the CPU never waits for the GPU.

    Args: document_ids (B, T) integers, -1 for padding.
    Returns, all int32, with n real tokens in a row:
        order (B, T): the places of the real tokens, one after the other; then those of the padding.
        starts (B, T + 1): chunk c is order[starts[c]], ..., order[starts[c+1] - 1]; n after the last chunk.
        fresh (B, T + 1): 1 if chunk c starts a document, except the row's first, which goes on from the state.
        counts (B,): the number of chunks.

    >>> [x.tolist() for x in document_chunks(torch.tensor([[5, 5, -1, 5, 8]]), 2)]
    [[[0, 1, 3, 4, 2]], [[0, 2, 3, 4, 4, 4]], [[0, 0, 1, 0, 0, 0]], [3]]
    """
    runs = document_runs(document_ids)
    order = real_first(runs >= 0)
    runs = runs.gather(1, order)  # from here on the padding of a row is at its end
    real, position = runs >= 0, document_positions(runs)
    begins = real & (position % chunk == 0)  # tokens with which a chunk begins
    first = real_first(begins)
    n, counts = real.sum(1, keepdim=True), begins.sum(1)
    exists = torch.arange(real.shape[1], device=real.device) < counts.unsqueeze(1)
    starts = torch.cat([torch.where(exists, first, n), n], dim=1)
    fresh = (real & (position == 0) & (runs > 0)).gather(1, first) & exists
    fresh = torch.nn.functional.pad(fresh, (0, 1))
    return tuple(x.int().contiguous() for x in (order, starts, fresh, counts))  # the kernel knows no strides of these
