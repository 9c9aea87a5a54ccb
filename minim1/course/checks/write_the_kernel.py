"""Checks of chapter 05: six Triton kernels, run in the interpreter, compared with sums in fp64, and then compiled.

G heads of all batch rows together, T tokens, D head dim, so that q is (G, T, D), contiguous. A tensor to be stored is
handed over full of `UNWRITTEN`: what is still there afterwards was not stored, and whoever adds to it shows.
"""

import inspect
import types
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from minim1.course.checking import Exercise, Probe, compare
from minim1.course.checks import oracles

UNWRITTEN = -98765.5
SECONDS = 20  # for one launch: these take a tenth of a second
POINTER = "*fp32"
COMPILED = set()  # the kernels, as they are sent to the compiler, that have passed it
SAME_STRIDES = "x and out are addressed with the same strides: x has x_row and x_column, out out_row and out_column."
LN_2 = 0.6931471805599453
WILD = torch.tensor([8.0, 0.01, 0.0])  # slopes whose exponentials overflow, hardly decay, and do not


# Launching


def stored(probe: Probe, grid: tuple, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor],
           numbers: Mapping[str, int], **meta: int) -> list[Tensor]:
    """Launch on inputs, outputs and numbers, in this order; the outputs, if all is stored and no input has changed."""
    before = {name: x.clone() for name, x in inputs.items()}
    launched(probe, grid, inputs, outputs, numbers, **meta)
    for name, x in inputs.items():
        probe.require(torch.equal(x.nan_to_num(), before[name].nan_to_num()), "property",
                      f"It stores to {name}, which is an input; only {' and '.join(outputs)} may be stored to.")
    sizes = ", ".join(f"{name} = {value}" for name, value in {**numbers, **meta}.items())
    for name, x in outputs.items():
        probe.require(not (x == UNWRITTEN).all(), "value",
                      f"Nothing was stored to {name}, with grid {grid} and {sizes}.")
        probe.require(not (x == UNWRITTEN).any(), "value",
                      f"{unwritten(name, x == UNWRITTEN)}, with grid {grid} and {sizes}.")
    return list(outputs.values())


def launched(probe: Probe, grid: tuple, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor],
             numbers: Mapping[str, int], **meta: int) -> None:
    for x in outputs.values():
        x.fill_(UNWRITTEN)
    probe.launch(grid, *inputs.values(), *outputs.values(), *numbers.values(), timeout=SECONDS, **meta)


def alone(probe: Probe, inputs: Mapping[str, Tensor], out: Tensor, numbers: Mapping[str, int],
          own: tuple[slice, ...], **meta: int) -> None:
    """Program (0, 0), with no other beside it, stores its own tile and nothing else."""
    launched(probe, (1, 1), inputs, {"out": out}, numbers, **meta)
    out[own] = UNWRITTEN
    probe.require((out == UNWRITTEN).all(), "property",
                  "Every place of out has what it should, but program (0, 0) alone stores to tiles of other programs: "
                  "each program stores its own tile, or a GPU does the same work many times.")


def unwritten(name: str, missing: Tensor) -> str:
    """How many numbers are missing, and where: all of a box, or within it."""
    if not (count := int(missing.sum())):
        return ""
    places = missing.nonzero()
    low, high = places.amin(0).tolist(), places.amax(0).tolist()
    box = ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in zip(low, high))
    full = count == (places.amax(0) - places.amin(0) + 1).prod().item()
    where = f"all at [{box}]" if full else f"the first at {low if len(low) < 2 else places[0].tolist()}, within [{box}]"
    return f"{count} of the {missing.numel()} numbers of {name} were never stored, {where}"


def compiles(probe: Probe, kinds: tuple[str, ...], **constants: int) -> None:
    """The interpreter takes for a kernel what no GPU does: compile it, once."""
    from minim1.course.compile_kernel import compile_kernel
    from minim1.course.safe_kernel import KernelError, pack, python_function

    probe.require(not isinstance(probe.function, types.FunctionType), "type",
                  f"{probe.exercise.name} is a plain function: put @triton.jit above its `def`, or no GPU can run it.")
    key = pack(probe.function), repr(constants)
    if key in COMPILED:
        return
    names = list(inspect.signature(python_function(probe.function)).parameters)
    try:
        found = compile_kernel(probe.function, dict(zip(names, kinds)), constants)
        probe.require(not found.tensor_core_instructions, "property",
                      "The numbers are right in the interpreter, but on a GPU a product of fp32 tiles would run on "
                      "tensor cores, which round them: take product(A, B), or tl.dot with input_precision=\"ieee\".")
        COMPILED.add(key)
    except KernelError as error:
        if ", line " in str(error):  # about the kernel, and not about the compiler
            probe.require(False, "kernel", f"The interpreter runs it, but it cannot be compiled for a GPU: "
                                           f"{str(error).rstrip('.')}.")


# 5.1


def copy_kernel(probe: Probe) -> None:
    M, N = 8 + probe.size(1, 7), 16 + probe.size(1, 7)
    copied(probe, "copy of a matrix", probe.random(M, N), torch.empty(M, N), 4, 8)
    copied(probe, "copy of a transposed matrix", probe.random(N, M).T, torch.empty(M, N), 8, 4)
    copied(probe, "copy of every second column", probe.random(M, 2 * N)[:, ::2], torch.empty(M, N + 5)[:, :N], 8, 8)
    copied(probe, "copy into a transposed matrix", probe.random(M, N), torch.empty(N, M).T, 4, 8)
    copied(probe, "copy of full tiles", probe.random(8, 16), torch.empty(8, 16), 4, 8)
    copied(probe, "copy of a single number", probe.random(1, 1), torch.empty(1, 1), 4, 4)
    x, out = probe.random(M, N), torch.empty(M, N)
    sizes = dict(M=M, N=N, x_row=N, x_column=1, out_row=N, out_column=1)
    alone(probe, {"x": x}, out, sizes, (slice(8), slice(4)), BLOCK_M=8, BLOCK_N=4)
    compiles(probe, (POINTER, POINTER, *["i32"] * 6), BLOCK_M=16, BLOCK_N=32)


def copied(probe: Probe, name: str, x: Tensor, out: Tensor, block_m: int, block_n: int) -> None:
    (M, N), grid = x.shape, (-(-x.shape[0] // block_m), -(-x.shape[1] // block_n))
    strides = dict(zip(("x_row", "x_column", "out_row", "out_column"), (*x.stride(), *out.stride())))
    [out] = stored(probe, grid, {"x": x}, {"out": out}, {"M": M, "N": N} | strides, BLOCK_M=block_m, BLOCK_N=block_n)
    row, column = torch.arange(M)[:, None], torch.arange(N)
    inside = (row < M // block_m * block_m) & (column < N // block_n * block_n)
    probe.close(name, out, x.double(), axes="RC", tolerance=1e-7, mistakes={
        "The sum of the tile and what `out` held before was stored: store the tile alone.": x.double() + UNWRITTEN,
        "Every tile holds the numbers of the first one: where a tile begins depends on tl.program_id.":
            x[row % block_m, column % block_n].double(),
        "In the tiles that stick out there is 0: mask single places, not whole tiles.":
            torch.where(inside, x.double(), 0.0),
        "Everything that was stored is 0.": torch.zeros(M, N),
        SAME_STRIDES: lambda: in_memory(x, out.stride()),
        SAME_STRIDES + " Yours are those of x.": lambda: stored_with(x, out.stride(), x.stride()),
        "x is read as if its rows lay one behind the other: number [r, c] stands at x + r * x_row + c * x_column.":
            lambda: in_memory(x, (N, 1)),
        "x is read as if the columns were neighbours: number [r, c] stands at x + r * x_row + c * x_column.":
            lambda: in_memory(x, (x.stride(0), 1)),
        "x_row and x_column have changed places.": lambda: in_memory(x, x.stride()[::-1]),
        "out is stored as if its rows lay one behind the other: number [r, c] belongs to out + r * out_row + "
        "c * out_column.": lambda: stored_with(x, out.stride(), (N, 1)),
        "out_row and out_column have changed places.": lambda: stored_with(x, out.stride(), out.stride()[::-1]),
    })


def in_memory(x: Tensor, strides: tuple[int, int]) -> Tensor:
    """What stands in x's memory by other strides; nothing where they lead out of it."""
    (M, N), span = x.shape, x.untyped_storage().nbytes() // x.element_size()
    last = (M - 1) * strides[0] + (N - 1) * strides[1]
    return x.as_strided((M, N), strides).double() if last < span else torch.empty(0)


def stored_with(x: Tensor, right: tuple[int, int], wrong: tuple[int, int]) -> Tensor:
    """out, of strides `right`, if x was stored by the strides `wrong`."""
    (M, N), row, column = x.shape, torch.arange(x.shape[0])[:, None], torch.arange(x.shape[1])
    memory = torch.full((max(M, N) * sum(right + wrong) + 1,), UNWRITTEN, dtype=torch.float64)
    memory[row * wrong[0] + column * wrong[1]] = x.double()
    return memory[row * right[0] + column * right[1]]


# 5.2


def matmul_kernel(probe: Probe) -> None:
    M, N, K = 16 + probe.size(1, 15), 32 + probe.size(1, 15), 32 + probe.size(1, 15)
    multiplied(probe, probe.random(M, K), probe.random(K, N), 16, 16)
    multiplied(probe, probe.random(N, M), probe.random(M, M), 16, 32)
    multiplied(probe, probe.random(32, 64), probe.random(64, 16), 32, 16)
    multiplied(probe, probe.random(M, 1), probe.random(1, 5), 16, 16)
    half(probe, 16, N, 64 + K)
    apart(probe, M, 16, K)
    a, b, out = probe.random(M, K), probe.random(K, N), torch.empty(M, N)
    alone(probe, {"a": a, "b": b}, out, {"M": M, "N": N, "K": K}, (slice(16), slice(16)), BLOCK=16, BLOCK_K=16)
    compiles(probe, (POINTER,) * 3 + ("i32",) * 3, BLOCK=16, BLOCK_K=32)


def product_of(probe: Probe, a: Tensor, b: Tensor, block: int, block_k: int) -> Tensor:
    (M, K), N = a.shape, b.shape[1]
    grid = -(-M // block), -(-N // block)
    return stored(probe, grid, {"a": a, "b": b}, {"out": torch.empty(M, N)}, {"M": M, "N": N, "K": K},
                  BLOCK=block, BLOCK_K=block_k)[0]


def multiplied(probe: Probe, a: Tensor, b: Tensor, block: int, block_k: int) -> None:
    out, (A, B), K = product_of(probe, a, b, block, block_k), oracles.double(a, b), a.shape[1]
    last, full = -(-K // block_k) * block_k - block_k, K // block_k * block_k
    row, N = torch.arange(len(a)) % block, b.shape[1]
    probe.require(not out.isnan().any(), "finite",
                  "out has NaN, though a and b have none: where a mask is off and `other` is not given, a load gives "
                  "anything, here NaN; give other=0.0 to both loads.")
    probe.close(f"({len(a)} × {K}) @ ({K} × {b.shape[1]})", out, A @ B, axes="RC", mistakes={
        "Only the first BLOCK_K terms of each sum are there: walk along K to its end.":
            A[:, :block_k] @ B[:block_k],
        "Only the last step along K is there: add to the accumulator, and make it before the loop.":
            A[:, last:] @ B[last:],
        "The last step along K, which is shorter, is missing: take cdiv(K, BLOCK_K) steps.": A[:, :full] @ B[:full],
        "All rows of tiles hold the same: which rows of a are loaded depends on tl.program_id(0).": A[row] @ B,
        "All columns of tiles hold the same: which columns of b are loaded depends on tl.program_id(1).":
            lambda: A @ B[:, torch.arange(b.shape[1]) % block],
        "Each step loads the same tiles: `start` has to move both of them along K.": lambda: repeated(A, B, block_k),
        "The product was added to what `out` held before: store the accumulator alone.": A @ B + UNWRITTEN,
        "a is read as if its rows had N numbers: number [r, c] of a stands at a + r * K + c.":
            lambda: product_in_memory(in_memory(a, (N, 1)), B),
        "b is read as if its rows had K numbers: number [r, c] of b stands at b + r * N + c.":
            lambda: product_in_memory(A, in_memory(b, (K, 1))),
        "The absolute values were multiplied.": A.abs() @ B.abs(),
    })


def product_in_memory(A: Tensor, B: Tensor) -> Tensor:
    """Of what `in_memory` found; nothing where it found nothing."""
    return A @ B if A.ndim == B.ndim == 2 else torch.empty(0)


def repeated(A: Tensor, B: Tensor, block_k: int) -> Tensor:
    """The first tiles along K, taken for every step."""
    return A[:, :block_k] @ B[:block_k] * -(-A.shape[1] // block_k)


def half(probe: Probe, M: int, N: int, K: int) -> None:
    """fp16 factors, with sums that fp16 could not hold."""
    a, b = probe.random(M, K).mul(64).half(), probe.random(K, N).mul(64).half()
    out, expected = product_of(probe, a, b, 16, 16), a.double() @ b.double()
    limited = not out.isfinite().all() or 0 < (out - expected).abs().max() / expected.abs().max() < 1e-2
    probe.require(
        compare("", out.nan_to_num(), expected).grade != "off" or not limited, "property",
        "With fp16 factors the sums lose digits or become infinite: the accumulator must be fp32, "
        "tl.zeros((BLOCK, BLOCK), tl.float32), and no sum may be converted to fp16.",
    )
    name = f"product of fp16 factors, up to {expected.abs().max().item():,.0f}"
    probe.close(name, out, expected, axes="RC", layer="property")


def apart(probe: Probe, M: int, N: int, K: int) -> None:
    """A NaN in one row of a belongs to that row of out."""
    a, b = probe.random(M, K), probe.random(K, N)
    a[M // 2, 0] = torch.nan
    out = product_of(probe, a, b, 16, 16)
    others = torch.arange(M) != M // 2
    probe.require(
        out[others].isfinite().all(), "edge case",
        "A NaN in one row of a reaches another row of out: where a tile sticks out along K it reads the next row of a, "
        "and NaN times 0 is NaN; mask both factors at K.",
    )
    probe.close("product beside a row with NaN", out[others], a[others].double() @ b.double(), axes="RC",
                layer="edge case")


# 5.3 to 5.6: attention in the layout (G, T, D)


def inputs(probe: Probe, length: int, dim: int, value_dim: int, heads: int) -> list[Tensor]:
    """q, k (G, T, D), v (G, T, D_v), state (G, D, D_v)."""
    q, k = probe.random(heads, length, dim), probe.random(heads, length, dim)
    return [q, k, probe.random(heads, length, value_dim), probe.random(heads, dim, value_dim)]


def attention(q: Tensor, k: Tensor, v: Tensor, slopes: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """`oracles.attention` of (G, T, D): out (G, T, D_v) and end (G, D, D_v) in fp64."""
    out, end = oracles.attention(*(x.transpose(0, 1)[None] for x in (q, k, v)), slopes, state[None])
    return out[0].transpose(0, 1), end[0]


def gradients(q, k, v, slopes, state, dout, dend) -> tuple[Tensor, ...]:
    """Of q, k, v and state, in fp64."""
    leaves = [x.double().requires_grad_() for x in (q, k, v, state)]
    out, end = attention(*leaves[:3], slopes, leaves[3])
    return torch.autograd.grad((out * dout).sum() + (end * dend).sum(), leaves)


def decayed(distance: Tensor, slope: Tensor) -> Tensor:
    """exp(-s d), and 0 where the distance is negative."""
    return torch.where(distance >= 0, torch.exp(-slope * distance.clamp(min=0)), 0.0)


LATER = "M is 0 for pairs in which the token that is read is the later one."
PAIRS = {  # sentence -> wrong weights of the pairs of a block, by their distance (in reverse, that of its mirror image)
    f"Tokens read later tokens, with weights above 1: {LATER}": lambda d, s: torch.exp(-s * d),
    f"Tokens read later tokens, decayed like earlier ones: {LATER}": lambda d, s: torch.exp(-s * d.abs()),
    f"Tokens read later tokens, with weight 1: {LATER}": lambda d, s: torch.exp(-s * d.clamp(min=0)),
    f"Tokens read the next token too: {LATER}": lambda d, s: torch.where(d >= -1, torch.exp(-s * d), 0.0),
    "Tokens do not read themselves: the diagonal belongs to M, with weight 1.":
        lambda d, s: decayed(d, s) * (d > 0),
    "M has its numbers on the wrong side of the diagonal: it is 0 where the token that is read is the later one.":
        lambda d, s: decayed(-d, s),
    "M has its numbers on the wrong side of the diagonal, and they grow: it is 0 where the token that is read is the "
    "later one.": lambda d, s: torch.where(d <= 0, torch.exp(-s * d), 0.0),
    "The pairs do not decay: M holds decay^(i-j), yours 1.": lambda d, s: (d >= 0).double(),
    "There is neither decay nor mask: multiply the scores by M.": lambda d, s: torch.ones_like(d),
    "The weights grow with the distance: lambda is exp(-slope), with a minus.":
        lambda d, s: torch.where(d >= 0, torch.exp(s * d), 0.0),
    "The weights of pairs have the wrong base: lambda is exp(-slope), yours is 2^(-slope).":
        lambda d, s: decayed(d, s * LN_2),
    "The weights of pairs have one step of decay too many: a token's distance to itself is 0.":
        lambda d, s: decayed(d, s) * torch.exp(-s),
    "M was multiplied twice.": lambda d, s: decayed(d, s) ** 2,
    "The pairs inside of a block are missing.": lambda d, s: torch.zeros_like(d),
}


def walk(q: Tensor, k: Tensor, v: Tensor, slopes: Tensor, state: Tensor, block: int, *, reverse: bool = False,
         read: Callable | None = None, write: Callable | None = None, keep: Callable | None = None,
         weights: Callable | None = None, update_first: bool = False,
         first_block_first: bool = False) -> tuple[Tensor, Tensor]:
    """out and end, block by block in fp64, right or, by the options, wrong.

    read, write: (places i of a block, m) -> exponents of reading the state and of entering it; keep: m -> of passing
    the block; weights: (distance, slopes) -> those of the pairs; reverse: from the last block to the first, as the
    gradients for k and v run.
    """
    q, k, v, state = oracles.double(q, k, v, state)
    slope, outs = slopes.double().view(-1, 1, 1), []
    before, after = (lambda i, m: m - 1 - i), (lambda i, m: i + 1)
    read, write = read or (before if reverse else after), write or (after if reverse else before)
    starts = list(range(0, q.shape[1], block))
    backwards = reverse and not first_block_first
    for start in starts[::-1] if backwards else starts:
        Q, K, V = (x[:, start : start + block] for x in (q, k, v))
        m = Q.shape[1]
        i = torch.arange(m, dtype=torch.float64)
        distance = (i - i.view(-1, 1)) if reverse else (i.view(-1, 1) - i)
        into = (torch.exp(-slope * write(i, m).view(-1, 1)) * K).mT @ V
        new = torch.exp(-slope * (keep(m) if keep else m)) * state + into
        outs.append((Q @ K.mT * (weights or decayed)(distance, slope)) @ V
                    + torch.exp(-slope * read(i, m).view(-1, 1)) * (Q @ (new if update_first else state)))
        state = new
    return torch.cat(outs[::-1] if backwards else outs, 1), state


def walk_mistakes(which: int, given: tuple, block: int, *, reverse: bool = False,
                  the: str = "the state") -> dict[str, Callable]:
    """Sentence -> out (0) or end (1) of a walk that makes that mistake; `the` is what the carried tile is called."""
    q, k, v, slopes, start = given
    back, The, carried = dict(reverse=reverse), the[0].upper() + the[1:] if " " in the else the, the.split()[-1]
    reading = "decay^(m-1-j)" if reverse else "decay^(i+1)"
    writing = "decay^(i+1)" if reverse else "decay^(m-1-j)"

    def walked(slopes: Tensor = slopes, start: Tensor = start, q: Tensor = q, **options) -> Callable:
        return lambda: walk(q, k, v, slopes, start, block, **back, **options)[which]

    shift = (lambda by: lambda i, m: (m - 1 - i if reverse else i + 1) + by)
    enter = (lambda by: lambda i, m: (i + 1 if reverse else m - 1 - i) + by)
    mirror = (lambda i, m: i + 1 if reverse else m - 1 - i), (lambda i, m: m - 1 - i if reverse else i + 1)
    found = {
        f"{The} that came in is ignored: begin with it, not with zeros.": walked(start=torch.zeros_like(start)),
        f"{The} is read too strongly, one step of decay is missing: it is read with {reading}.":
            walked(read=shift(-1)),
        f"{The} is read with one step of decay too many: it is read with {reading}.": walked(read=shift(1)),
        f"{The} is read without decay: it is read with {reading}.": walked(read=lambda i, m: 0 * i),
        f"{The} is read with the same decay by every token: it is read with {reading}.":
            walked(read=lambda i, m: 0 * i + m),
        f"{The} is read with the decays in the wrong order: it is read with {reading}.": walked(read=mirror[0]),
        f"What a token adds to {the} has one step of decay too many: it enters with {writing}.":
            walked(write=enter(1)),
        f"What a token adds to {the} has one step of decay too few: it enters with {writing}.":
            walked(write=enter(-1)),
        f"What tokens add to {the} does not decay: they enter with {writing}.": walked(write=lambda i, m: 0 * i),
        f"Tokens enter {the} with the decays in the wrong order: they enter with {writing}.":
            walked(write=mirror[1]),
        f"The decays of reading {the} and of entering it have changed places: it is read with {reading}, and "
        f"entered with {writing}.": walked(read=mirror[0], write=mirror[1]),
        f"{The} passes a block without decay: a block of m tokens costs decay^m.": walked(keep=lambda m: 0),
        f"{The} decays by one token for a whole block: a block of m tokens costs decay^m.":
            walked(keep=lambda m: 1),
        f"{The} decays by m - 1 tokens for a block of m.": walked(keep=lambda m: m - 1),
        f"{The} decays by BLOCK tokens also where the block is shorter: it is decay^m, m the tokens of this "
        "block.": walked(keep=lambda m: block),
        f"{The} was updated before it was read: read first.": walked(update_first=True),
        f"{The} is not read: of a block there are only the pairs.": walked(read=lambda i, m: 0 * i + 1e9),
        f"{The} starts anew in each block: add to the old one, decayed by decay^m.": walked(keep=lambda m: 1e9),
        f"{The} grows on its way through a block: lambda is exp(-slope), with a minus.":
            walked(keep=lambda m: -m),
        f"All heads begin with the first head's {carried}.": walked(start=start[:1].expand_as(start)),
        **{sentence: walked(weights=weights) for sentence, weights in PAIRS.items()},
        "All heads decay with the first head's slope: head g has slopes[g].":
            walked(slopes=slopes[:1].expand_as(slopes)),
        "There is no decay: lambda is exp(-slope).": walked(slopes=torch.zeros_like(slopes)),
        "The decay has the wrong base: lambda is exp(-slope), yours is 2^(-slope).": walked(slopes=slopes * LN_2),
        "The result is divided by sqrt(D): lightning attention has no scale.": walked(q=q / q.shape[-1] ** 0.5),
    }
    if not reverse:
        found["Keys in a block that is not full enter with the decays of a full one: decay^(m-1-j), m the tokens of "
              "this block."] = walked(write=lambda i, m: block - 1 - i)
        found["A block that is not full is treated as a full one: m is the number of tokens of this block, in "
              "decay^(m-1-j) and in decay^m."] = walked(write=lambda i, m: block - 1 - i, keep=lambda m: block)
    else:
        found["Time runs backwards here: begin with the last block."] = walked(first_block_first=True)
        found[f"{The} in a block that is not full is read with the decays of a full one: decay^(m-1-j), m the "
              "tokens of this block."] = walked(read=lambda i, m: block - 1 - i)
        found["A block that is not full is treated as a full one: m is the number of tokens of this block, in "
              "decay^(m-1-j) and in decay^m."] = walked(read=lambda i, m: block - 1 - i, keep=lambda m: block)
    if which == 1:
        found[f"What was stored at the end is {the} that came in: store what is there after the last step."] = start.double()
        found[f"What was stored at the end lacks {the} that came in."] = walked(start=torch.zeros_like(start))
    return found


def lengths(probe: Probe) -> tuple[tuple[int, int, int, int], ...]:
    """T, D, D_v and BLOCK of the launches: a ragged end, full blocks with other sizes, less than a block, one token."""
    return (32 + probe.size(2, 14), 32, 16, 16), (32, 16, 32, 16), (16 + probe.size(2, 14), 16, 16, 32), (1, 16, 32, 32)


def case(name: str, length: int, block: int, slopes: Tensor) -> str:
    tokens = "1 token" if length == 1 else f"{length} tokens"
    return f"{name} for {tokens}" + (", slopes 8, 0.01 and 0" if slopes is WILD else f" in blocks of {block}")


def finite(probe: Probe, results: Mapping[str, Tensor]) -> None:
    """What fast heads make of an exponential that grows."""
    for name, x in results.items():
        probe.require(
            x.isfinite().all(), "edge case",
            f"With slopes 8, 0.01 and 0 and 19 tokens in a block of 32, {name} has NaN or infinite numbers: exp of a "
            "positive number overflows, at pairs outside of M or behind the last token, and infinity times 0 is NaN; "
            "cut the distance at 0 with tl.maximum(..., 0), or take tl.where after the exponential.",
        )


# 5.3


def intra_kernel(probe: Probe) -> None:
    for length, dim, value_dim, block in lengths(probe):
        compare_intra(probe, length, dim, value_dim, block, probe.slopes(2))
    compare_intra(probe, 19, 16, 16, 32, WILD)
    compiles(probe, (POINTER,) * 5 + ("i32",), D=16, D_V=32, BLOCK=16)


def compare_intra(probe: Probe, length: int, dim: int, value_dim: int, block: int, slopes: Tensor) -> None:
    q, k, v, _ = inputs(probe, length, dim, value_dim, len(slopes))
    given = {"q": q, "k": k, "v": v, "slopes": slopes}
    meta = dict(D=dim, D_V=value_dim, BLOCK=block)
    [out] = stored(probe, (len(slopes), -(-length // block)), given, {"out": torch.empty_like(v)}, {"T": length},
                   **meta)
    if slopes is WILD:
        finite(probe, {"out": out})
    layer = "edge case" if slopes is WILD or length == 1 else "value"

    nothing = torch.zeros(len(slopes), dim, value_dim)

    def blocks(q: Tensor = q, k: Tensor = k, v: Tensor = v, slopes: Tensor = slopes, **options) -> Tensor:
        """One block after the other, each from nothing: the pairs alone."""
        cut = [x.split(block, 1) for x in (q, k, v)]
        return torch.cat([walk(*piece, slopes, nothing, block, **options)[0] for piece in zip(*cut)], 1)

    first = [x[:1].expand_as(x) for x in (q, k, v)]
    probe.close(case("out", length, block, slopes), out, blocks(), axes="GTD", layer=layer, mistakes={
        "All heads decay with the first head's slope: head g has slopes[g].":
            lambda: blocks(slopes=slopes[:1].expand_as(slopes)),
        **{sentence: partial(blocks, weights=weights) for sentence, weights in PAIRS.items()},
        "The scores are divided by sqrt(D): lightning attention has no scale.": lambda: blocks() / dim**0.5,
        "All blocks hold the tokens of the first one: a block begins at tl.program_id(1) * BLOCK.":
            lambda: blocks()[:, torch.arange(length) % block],
        "Tokens of different blocks read each other: that comes with the state, in 5.4.":
            lambda: walk(q, k, v, slopes, nothing, block)[0],
        "Queries and keys have changed places: row i of the scores is q_i with all keys.": lambda: blocks(k, q),
        "All heads have the queries, keys and values of the first one: every address depends on tl.program_id(0).":
            lambda: blocks(*first),
        **{f"All heads have the {name} of the first one: every address depends on tl.program_id(0).":
            partial(blocks, **{letter: x}) for name, letter, x in zip(("queries", "keys", "values"), "qkv", first)},
    })
    if slopes is not WILD:
        alone(probe, given, torch.empty_like(v), {"T": length}, (0, slice(block)), **meta)


# 5.4


def forward_kernel(probe: Probe) -> None:
    for length, dim, value_dim, block in lengths(probe):
        compare_forward(probe, length, dim, value_dim, block, probe.slopes(2))
    compare_forward(probe, 19, 16, 16, 32, WILD)
    compiles(probe, (POINTER,) * 7 + ("i32",), D=16, D_V=32, BLOCK=16)


def compare_forward(probe: Probe, length: int, dim: int, value_dim: int, block: int, slopes: Tensor) -> None:
    q, k, v, state = inputs(probe, length, dim, value_dim, len(slopes))
    given = (q, k, v, slopes, state)
    out, end = stored(probe, (len(slopes),), dict(zip(("q", "k", "v", "slopes", "state"), given)),
                      {"out": torch.empty_like(v), "end": torch.empty_like(state)}, {"T": length}, D=dim,
                      D_V=value_dim, BLOCK=block)
    expected, expected_end = attention(*given)
    compare_walk(probe, {"out": (out, expected, 0, given, {}), "end": (end, expected_end, 1, given, {})}, block)


def compare_walk(probe: Probe, results: Mapping[str, tuple], block: int) -> None:
    """name -> (value, expected, which of a walk's results it is, what that walk is given, its options)."""
    slopes, length = next(iter(results.values()))[3][3], next(iter(results.values()))[3][0].shape[1]
    if slopes is WILD:
        finite(probe, {name: value for name, (value, *_) in results.items()})
    layer = "edge case" if slopes is WILD or length == 1 else "value"
    for name, (value, expected, which, given, options) in results.items():
        mistakes = walk_mistakes(which, given, block, **options)
        if given[4].shape[1] == given[4].shape[2]:  # D = D_v: only then does it run
            turned = (*given[:4], given[4].mT)
            mistakes["The carried tile is transposed where it came in."] = lambda turned=turned, which=which: walk(
                *turned, block, reverse=options.get("reverse", False))[which]
        probe.close(case(name, length, block, slopes), value, expected, layer=layer,
                    axes="GTD" if which == 0 else "GDE", mistakes=mistakes)


# 5.5


def dq_kernel(probe: Probe) -> None:
    for length, dim, value_dim, block in lengths(probe):
        compare_dq(probe, length, dim, value_dim, block, probe.slopes(2))
    compare_dq(probe, 19, 16, 16, 32, WILD)
    compiles(probe, (POINTER,) * 6 + ("i32",), D=16, D_V=32, BLOCK=16)


def compare_dq(probe: Probe, length: int, dim: int, value_dim: int, block: int, slopes: Tensor) -> None:
    q, k, v, state = inputs(probe, length, dim, value_dim, len(slopes))
    dout = probe.random(*v.shape)
    given = {"dout": dout, "k": k, "v": v, "slopes": slopes, "state": state}
    [dq] = stored(probe, (len(slopes),), given, {"dq": torch.empty_like(q)}, {"T": length}, D=dim, D_V=value_dim,
                  BLOCK=block)
    expected = gradients(q, k, v, slopes, state, dout, torch.zeros_like(state))[0]
    compare_walk(probe, {"dq": (dq, expected, 0, (dout, v, k, slopes, state.mT), {})}, block)


# 5.6


def dkv_kernel(probe: Probe) -> None:
    for length, dim, value_dim, block in lengths(probe):
        compare_dkv(probe, length, dim, value_dim, block, probe.slopes(2))
    compare_dkv(probe, 19, 16, 16, 32, WILD)
    compiles(probe, (POINTER,) * 9 + ("i32",), D=16, D_V=32, BLOCK=16)


def compare_dkv(probe: Probe, length: int, dim: int, value_dim: int, block: int, slopes: Tensor) -> None:
    q, k, v, dend = inputs(probe, length, dim, value_dim, len(slopes))
    dout, state = probe.random(*v.shape), torch.zeros_like(dend)
    given = {"q": q, "k": k, "v": v, "dout": dout, "slopes": slopes, "dend": dend}
    outputs = {"dk": torch.empty_like(k), "dv": torch.empty_like(v), "dstate": torch.empty_like(dend)}
    dk, dv, dstate = stored(probe, (len(slopes),), given, outputs, {"T": length}, D=dim, D_V=value_dim, BLOCK=block)
    _, *expected = gradients(q, k, v, slopes, state, dout, dend)
    options = dict(reverse=True, the="dS")
    for_v = (k, q, dout, slopes, dend)
    compare_walk(probe, {
        "dk": (dk, expected[0], 0, (v, dout, q, slopes, dend.mT), options),
        "dv": (dv, expected[1], 0, for_v, options), "dstate": (dstate, expected[2], 1, for_v, options),
    }, block)


def _reference(name: str) -> Callable:
    def import_it() -> Callable:
        from minim1.course import kernels

        return getattr(kernels, name)

    return import_it


EXERCISES = tuple(
    Exercise(f"5.{number}", body.__name__, title, body, _reference(body.__name__))
    for number, (body, title) in enumerate((
        (copy_kernel, "Tiled copy"), (matmul_kernel, "Tiled matrix product"), (intra_kernel, "Intra block tile"),
        (forward_kernel, "Forward"), (dq_kernel, "Gradient for q"), (dkv_kernel, "Gradients for k and v"),
    ), 1)
)
