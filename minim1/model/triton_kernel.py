"""The Triton kernel of lightning attention: one kernel, which is the forward pass and every gradient.

    o_i = sum over j <= i of exp(-s (i-j)) (q_i . k_j) v_j  +  exp(-s (i+1)) q_i S0

The GPU runs the function `lightning_kernel` many times at once; one such run is a *program*, and each is for another
row, head and block of columns of v. A program walks along the tokens of its row, CHUNK of them at a time, and keeps
in registers the state S: all that the chunks before left behind. Every token is read once.

               D             CHUNK (j)                       E, a block of its columns
             +-----+        +---------+                     +-----+
   CHUNK (i) |  Q  |  K^T = | x . . . |  times decay^(i-j), |  V  |         D    +-----+
             |     |        | x x . . |  upper half 0:      |     |              |  S  |
             |     |        | x x x . |  the pairs of       |     |              |     |
             |     |        | x x x x |  one chunk          |     |              +-----+
             +-----+        +---------+                     +-----+
   O  =  ((Q K^T) * decay^(i-j)) V  +  decay^(i+1) Q S
   S <-  decay^n S  +  K^T (decay^(n-1-j) V)                  n: the tokens of this chunk; i, j count within it

   S0 --> | chunk 0 | --S--> | chunk 1 | --S--> | chunk 2 | --> final S         REVERSE walks from right to left

The gradients are the same sum of other operands, with the state transposed where its sides change places:

   dq_i = sum over j <= i of exp(-s (i-j)) (do_i . v_j) k_j  +  exp(-s (i+1)) do_i S0^T        this kernel on do, v, k
   dk_j = sum over i >= j of exp(-s (i-j)) (v_j . do_i) q_i  +  exp(-s (T-1-j)) v_j dS^T       REVERSE on v, do, q
   dv_j = sum over i >= j of exp(-s (i-j)) (k_j . q_i) do_i  +  exp(-s (T-1-j)) k_j dS         REVERSE on k, q, do
   dS0  = sum over i of exp(-s (i+1)) q_i^T do_i  +  exp(-s T) dS                              left over by that for dv

So REVERSE mirrors time and shifts it by one: dS is the gradient of the state *after* the last token, so the token at
place i of n reads it with decay^(n-1-i), where the forward pass has i+1, and writes with decay^(i+1), where that has
n-1-i. No exponent is positive, so nothing overflows, whatever the slope.

Reading Triton: a tensor arrives as the address of its first element. `tl.load` reads a tile of addresses into
registers, where it behaves like a tensor in PyTorch ([:, None] and broadcasting too), and `tl.store` writes it back;
`mask` says where, and `other` is what masked places read as. Single capitals are such tiles, small letters addresses
and vectors. The sides of a tile are powers of two, at least 16 for the matrix product `tl.dot`, so a tile may stick
out over its tensor. This module imports Triton: import it only where it is used.
"""

import triton
import triton.language as tl


@triton.jit
def tile_at(x, strides, row, head, tokens, columns):
    """Addresses of x[row, tokens, head, columns]; with strides, a view into a larger tensor needs no copy."""
    return x + row * strides[0] + tokens[:, None] * strides[1] + head * strides[2] + columns[None, :] * strides[3]


@triton.jit
def decayed(S, x):
    """exp(x) S for x <= 0. Near 0 as S + (exp(x) - 1) S, the bracket by its series: exp(x) is rounded, there to nearly
    1, and a slow head, which multiplies by it in thousands of chunks, would add up that one error."""
    change = x * (1 + x / 2 * (1 + x / 3 * (1 + x / 4)))
    return tl.where(x > -0.05, S + change * S, tl.exp(x) * S)


@triton.jit(do_not_specialize=["length"])  # else Triton compiles anew for T = 1 and for T a multiple of 16
def lightning_kernel(
    q, k, v, out,  # in: (B, T, H, D), (B, T, H, D), (B, T, H, E); out: (B, T, H, E)
    slopes,  # (H,) fp32
    state, final,  # (B, H, D, E) fp32: carried in, handed on; either may be None
    order, starts, fresh, counts,  # the chunks of packed documents, see `document_chunks`; all None for one document
    q_strides, k_strides, v_strides, out_strides, state_strides, final_strides,  # tuples of four
    length,  # T
    D: tl.constexpr, E: tl.constexpr,  # constexpr: known when Triton compiles; another value compiles anew
    BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr, CHUNK: tl.constexpr,
    REVERSE: tl.constexpr,
):
    """One program: O for one row, one head and BLOCK_E columns of v, and the final S. Grid: (blocks, heads, rows)."""
    # Which program is this? In 64 bits, since with a million tokens row * stride exceeds 2^31.
    head = tl.cast(tl.program_id(1), tl.int64)
    row = tl.cast(tl.program_id(2), tl.int64)
    i = tl.arange(0, CHUNK)
    d = tl.arange(0, BLOCK_D)
    e = tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
    d_real, e_real = d < D, e < E

    slope = tl.load(slopes + head)
    decay = tl.exp(-slope * tl.abs(i[:, None] - i[None, :]))  # decay^|i-j| for every pair of a chunk
    causal = i[:, None] <= i[None, :] if REVERSE else i[:, None] >= i[None, :]

    if state is None:
        S = tl.zeros([BLOCK_D, BLOCK_E], tl.float32)
    else:  # addressed as the others are, with d in the place of the token
        S = tl.load(tile_at(state, state_strides, row, head, d, e), mask=d_real[:, None] & e_real[None, :], other=0.0)

    chunks = tl.cdiv(length, CHUNK) if counts is None else tl.load(counts + row)
    for step in range(chunks):
        chunk = chunks - 1 - step if REVERSE else step

        # Which tokens are in this chunk: n of them, `tokens` in the row.
        if order is None:
            start = chunk * CHUNK
            n = tl.minimum(length - start, CHUNK)
            tokens = start + i
        else:
            entry = row * (length + 1) + chunk
            start = tl.load(starts + entry)
            n = tl.load(starts + entry + 1) - start
            tokens = tl.load(order + row * length + start + i, mask=i < n, other=0)
            # A new document knows nothing of the last. tl.where and not * 0, which would let NaN through.
            restart = tl.load(fresh + entry + 1) if REVERSE else tl.load(fresh + entry)
            S = tl.where(restart != 0, 0.0, S)
        tokens = tl.cast(tokens, tl.int64)
        d_mask = (i < n)[:, None] & d_real[None, :]
        e_mask = (i < n)[:, None] & e_real[None, :]
        Q = tl.load(tile_at(q, q_strides, row, head, tokens, d), mask=d_mask, other=0.0)
        K = tl.load(tile_at(k, k_strides, row, head, tokens, d), mask=d_mask, other=0.0)
        V = tl.load(tile_at(v, v_strides, row, head, tokens, e), mask=e_mask, other=0.0)

        # Exponents of reading S and of writing to it. Places from n on are masked, yet their exponents must not be > 0.
        after_start = i + 1
        before_end = tl.maximum(n - 1 - i, 0)
        reading = tl.exp(-slope * (before_end if REVERSE else after_start))
        writing = tl.exp(-slope * (after_start if REVERSE else before_end))

        # Products take the dtype of the inputs (tensor cores for fp16 and bf16) and add up in fp32;
        # "ieee" keeps fp32 at full precision where the default would round its factors to 10 bits (TF32).
        pairs = tl.dot(Q, tl.trans(K), input_precision="ieee")
        pairs = tl.where(causal, pairs * decay, 0.0)
        O = tl.dot(Q, S.to(Q.dtype), input_precision="ieee") * reading[:, None]
        O = tl.dot(pairs.to(V.dtype), V, acc=O, input_precision="ieee")
        tl.store(tile_at(out, out_strides, row, head, tokens, e), O.to(out.dtype.element_ty), mask=e_mask)

        # What this chunk leaves behind for the next.
        V = (V * writing[:, None]).to(V.dtype)
        S = tl.dot(tl.trans(K), V, acc=decayed(S, -slope * n), input_precision="ieee")

    if final is not None:
        tl.store(tile_at(final, final_strides, row, head, d, e), S, mask=d_real[:, None] & e_real[None, :])
