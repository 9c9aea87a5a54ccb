"""Wrong solutions of chapter 05's exercises: Triton kernels, run in the interpreter."""

from tests.mutants import Mutant

REAL = "real = (row < M) & (column < N)"
WEIGHTS = "weights = tl.where(distance >= 0, tl.exp(-slope * distance), 0.0)"
K_DECAY = "tl.exp(-slope * tl.maximum(m - 1 - i, 0))"
M_IS = "m = tl.minimum(T - start, BLOCK)"
SLOPE = "tl.load(slopes + head)"
Q_DECAY = "q_decay = tl.exp(-slope * (i + 1))[:, None]"


def of_weights() -> list[Mutant]:
    return [
        Mutant("no mask of pairs", WEIGHTS, "weights = tl.exp(-slope * distance)"),
        Mutant("decay in both directions", WEIGHTS, "weights = tl.exp(-slope * tl.abs(distance))"),
        Mutant("no token sees itself", "distance >= 0", "distance > 0"),
        Mutant("triangle of the other side", "distance >= 0", "distance <= 0"),
        Mutant("no decay of pairs", WEIGHTS, "weights = tl.where(distance >= 0, 1.0, 0.0)"),
        Mutant("a mask that multiplies", WEIGHTS, "weights = tl.exp(-slope * distance) * (distance >= 0)"),
        Mutant("weights grow", WEIGHTS, "weights = tl.where(distance >= 0, tl.exp(slope * distance), 0.0)"),
        Mutant("slope of the first head", SLOPE, "tl.load(slopes)"),
        Mutant("powers of two", WEIGHTS, "weights = tl.where(distance >= 0, tl.exp2(-slope * distance), 0.0)"),
    ]


def of_walks(reading: str, update: str) -> list[Mutant]:
    """reading: what is multiplied by `q_decay`; update: the line of the carried tile."""
    tile = update.split(" = ")[0].strip()
    return [
        Mutant("state read one step too strong", Q_DECAY, "q_decay = tl.exp(-slope * i)[:, None]"),
        Mutant("state not decayed on reading", f"q_decay * {reading}", reading),
        Mutant("state is not read", f" + q_decay * {reading}", ""),
        Mutant("keys one step too old", K_DECAY, "tl.exp(-slope * tl.maximum(m - i, 0))"),
        Mutant("keys not decayed", "k_decay * V", "V"),
        Mutant("no clamp of exponents", K_DECAY, "tl.exp(-slope * (m - 1 - i))"),
        Mutant("last block as long as the others", M_IS, "m = BLOCK"),
        Mutant("state decays by BLOCK", f"{tile} = tl.exp(-slope * m) *", f"{tile} = tl.exp(-slope * BLOCK) *"),
        Mutant("state is not decayed", f"{tile} = tl.exp(-slope * m) * {tile}", f"{tile} = {tile}"),
        Mutant("state is forgotten in each block", f"{tile} = tl.exp(-slope * m) * {tile} + ", f"{tile} = "),
        Mutant("state grows", f"{tile} = tl.exp(-slope * m)", f"{tile} = tl.exp(slope * m)"),
        Mutant("state begins as zero", "load_tile(state, head, 0, D, D_V, D)", "tl.zeros((D, D_V), tl.float32)"),
        Mutant("state of the first head", "load_tile(state, head, 0, D, D_V, D)", "load_tile(state, 0, 0, D, D_V, D)"),
        Mutant("the last, shorter block is left out", "range(0, T, BLOCK)", "range(0, T - BLOCK + 1, BLOCK)"),
        Mutant("only the first block", "range(0, T, BLOCK)", "range(0, BLOCK, BLOCK)"),
        Mutant("one program too far", "head, i = tl.program_id(0), ", "head, i = tl.program_id(0) + 1, "),
        Mutant("grid axis 1", "tl.program_id(0)", "tl.program_id(1)"),
        Mutant("K is not transposed in the update", "product(tl.trans(K), k_decay * V)", "product(K, k_decay * V)"),
    ]


MUTANTS = {
    "5.1": [
        Mutant("no mask for columns", REAL, "real = row < M"),
        Mutant("no mask for rows", REAL, "real = column < N"),
        Mutant("no mask on loading", "x_column, mask=real)", "x_column)"),
        Mutant("no mask on storing", "tile, mask=real)", "tile)"),
        Mutant("edges exchanged", REAL, "real = (row < N) & (column < M)"),
        Mutant("edges one too far", REAL, "real = (row <= M) & (column <= N)"),
        Mutant("edges one too near", REAL, "real = (row < M - 1) & (column < N - 1)"),
        Mutant("conditions joined by or", "(row < M) & (column < N)", "(row < M) | (column < N)"),
        Mutant("strides of x exchanged", "x + row * x_row + column * x_column", "x + row * x_column + column * x_row"),
        Mutant("x taken for contiguous", "x + row * x_row + column * x_column", "x + row * N + column"),
        Mutant("out taken for contiguous", "out + row * out_row + column * out_column", "out + row * N + column"),
        Mutant("columns next to each other", "column * x_column", "column"),
        Mutant("strides of x for out", "out + row * out_row + column * out_column",
               "out + row * x_row + column * x_column"),
        Mutant("grid axes exchanged", source=(
            "@triton.jit\n"
            "def copy_kernel(x, out, M, N, x_row, x_column, out_row, out_column, BLOCK_M: tl.constexpr,"
            " BLOCK_N: tl.constexpr):\n"
            "    row = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]\n"
            "    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]\n"
            "    real = (row < M) & (column < N)\n"
            "    tile = tl.load(x + row * x_row + column * x_column, mask=real)\n"
            "    tl.store(out + row * out_row + column * out_column, tile, mask=real)\n")),
        Mutant("every program copies the first rows", "tl.program_id(0) * BLOCK_M + ", ""),
        Mutant("every program copies the first columns", "tl.program_id(1) * BLOCK_N + ", ""),
        Mutant("the first tile, everywhere", "x + row * x_row + column * x_column, mask=real",
               "x + (row % BLOCK_M) * x_row + (column % BLOCK_N) * x_column, mask=real"),
        Mutant("heights of tiles for their widths", "tl.program_id(1) * BLOCK_N", "tl.program_id(1) * BLOCK_M"),
        Mutant("added to what is there", "tile, mask=real)",
               "tile + tl.load(out + row * out_row + column * out_column, mask=real), mask=real)"),
        Mutant("stored into x", "tl.store(out + row * out_row + column * out_column",
               "tl.store(x + row * x_row + column * x_column"),
        Mutant("only whole tiles", REAL, "real = (row // BLOCK_M * BLOCK_M + BLOCK_M <= M) & (column < N)"),
        Mutant("nothing is stored", "tl.store(out + row * out_row + column * out_column, tile, mask=real)", "tile + 1"),
        Mutant("a tensor of PyTorch", "tl.arange(0, BLOCK_M)", "torch.arange(BLOCK_M)"),
        Mutant("no kernel", "@triton.jit\n", ""),
        Mutant("conditions joined by and", "(row < M) & (column < N)", "row < M and column < N"),
        Mutant("rows of a tile that is higher", "tl.arange(0, BLOCK_M)", "tl.arange(0, 16)"),
        Mutant("every program copies everything", source=(
            "@triton.jit\n"
            "def copy_kernel(x, out, M, N, x_row, x_column, out_row, out_column, BLOCK_M: tl.constexpr, "
            "BLOCK_N: tl.constexpr):\n"
            "    for first in range(0, M, BLOCK_M):\n"
            "        for left in range(0, N, BLOCK_N):\n"
            "            row, column = first + tl.arange(0, BLOCK_M)[:, None], left + tl.arange(0, BLOCK_N)[None, :]\n"
            "            real = (row < M) & (column < N)\n"
            "            tile = tl.load(x + row * x_row + column * x_column, mask=real)\n"
            "            tl.store(out + row * out_row + column * out_column, tile, mask=real)\n"
        )),
    ],
    "5.2": [
        Mutant("no loop", "range(0, K, BLOCK_K)", "range(0, 1)"),
        Mutant("the last, shorter step is left out", "range(0, K, BLOCK_K)", "range(0, K - BLOCK_K + 1, BLOCK_K)"),
        Mutant("accumulator made anew", "total += product(A, B)", "total = product(A, B)"),
        Mutant("fp16 accumulator", "total += product(A, B)",
               "total = (total + product(A, B)).to(tl.float16).to(tl.float32)"),
        Mutant("fp16 accumulator from the start", source=(
            "@triton.jit\n"
            "def matmul_kernel(a, b, out, M, N, K, BLOCK: tl.constexpr, BLOCK_K: tl.constexpr):\n"
            "    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None]\n"
            "    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]\n"
            "    total = tl.zeros((BLOCK, BLOCK), tl.float16)\n"
            "    for start in range(0, K, BLOCK_K):\n"
            "        n = start + tl.arange(0, BLOCK_K)\n"
            "        A = tl.load(a + row * K + n[None, :], mask=(row < M) & (n[None, :] < K), other=0.0)\n"
            "        B = tl.load(b + n[:, None] * N + column, mask=(n[:, None] < K) & (column < N), other=0.0)\n"
            "        total += product(A, B).to(tl.float16)\n"
            "    tl.store(out + row * N + column, total, mask=(row < M) & (column < N))\n")),
        Mutant("no mask along K in a", "mask=(row < M) & (across < K), other=0.0", "mask=row < M, other=0.0"),
        Mutant("no mask along K in b", "mask=(down < K) & (column < N), other=0.0", "mask=column < N, other=0.0"),
        Mutant("no mask along K", source=(
            "@triton.jit\n"
            "def matmul_kernel(a, b, out, M, N, K, BLOCK: tl.constexpr, BLOCK_K: tl.constexpr):\n"
            "    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None]\n"
            "    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]\n"
            "    total = tl.zeros((BLOCK, BLOCK), tl.float32)\n"
            "    for start in range(0, K, BLOCK_K):\n"
            "        n = start + tl.arange(0, BLOCK_K)\n"
            "        A = tl.load(a + row * K + n[None, :], mask=row * K + n[None, :] < M * K, other=0.0)\n"
            "        B = tl.load(b + n[:, None] * N + column, mask=n[:, None] * N + column < K * N, other=0.0)\n"
            "        total += product(A, B)\n"
            "    tl.store(out + row * N + column, total, mask=(row < M) & (column < N))\n")),
        Mutant("masked places are 1", "mask=(row < M) & (across < K), other=0.0",
               "mask=(row < M) & (across < K), other=1.0",
               argued="the other factor is 0 there, and rows from M on are not stored"),
        Mutant("no other in a", "mask=(row < M) & (across < K), other=0.0", "mask=(row < M) & (across < K)"),
        Mutant("no other in b", "mask=(down < K) & (column < N), other=0.0", "mask=(down < K) & (column < N)"),
        Mutant("TF32", "product(A, B)", "tl.dot(A, B)"),
        Mutant("without a last step of one", "range(0, K, BLOCK_K)", "range(0, K - 1, BLOCK_K)"),
        Mutant("no mask on storing", "total, mask=(row < M) & (column < N))", "total)"),
        Mutant("no mask for columns on storing", "total, mask=(row < M) & (column < N))", "total, mask=row < M)"),
        Mutant("width of b for a", "a + row * K", "a + row * N"),
        Mutant("width of a for b", "b + down * N", "b + down * K"),
        Mutant("width of a for out", "out + row * N", "out + row * K"),
        Mutant("the same tiles in each step",
               "across, down = start + tl.arange(0, BLOCK_K)[None, :], start + tl.arange(0, BLOCK_K)[:, None]",
               "across, down = tl.arange(0, BLOCK_K)[None, :], tl.arange(0, BLOCK_K)[:, None]"),
        Mutant("steps of BLOCK", "range(0, K, BLOCK_K)", "range(0, K, BLOCK)"),
        Mutant("first rows only", "tl.program_id(0) * BLOCK + ", ""),
        Mutant("same rows for all", "A = tl.load(a + row * K", "A = tl.load(a + (row % BLOCK) * K"),
        Mutant("same columns for all", "b + down * N + column", "b + down * N + column % BLOCK"),
        Mutant("factors exchanged", "product(A, B)", "product(B, A)"),
        Mutant("transposed", "product(A, B)", "tl.trans(product(A, B))"),
        Mutant("place by place", "product(A, B)", "A * B"),
        Mutant("type that changes in the loop", "total = tl.zeros((BLOCK, BLOCK), tl.float32)", "total = 0"),
        Mutant("added to what is there", "total, mask=(row < M) & (column < N))",
               "total + tl.load(out + row * N + column, mask=(row < M) & (column < N)), "
               "mask=(row < M) & (column < N))"),
    ],
    "5.3": [
        *of_weights(),
        Mutant("grid axes exchanged", "tl.program_id(0), tl.program_id(1) * BLOCK",
               "tl.program_id(1), tl.program_id(0) * BLOCK"),
        Mutant("only the first block", "tl.program_id(1) * BLOCK", "0"),
        Mutant("block number for its first token", "tl.program_id(1) * BLOCK", "tl.program_id(1)"),
        Mutant("loads without T", "load_tile(k, head, start, T, D, BLOCK)",
               "load_tile(k, head, start, start + BLOCK, D, BLOCK)"),
        Mutant("stores without T", "V), head, start, T, D_V, BLOCK)", "V), head, start, start + BLOCK, D_V, BLOCK)"),
        Mutant("width of q for v", "load_tile(v, head, start, T, D_V, BLOCK)",
               "load_tile(v, head, start, T, D, BLOCK)"),
        Mutant("TF32", "product(Q, tl.trans(K))", "tl.dot(Q, tl.trans(K))"),
        Mutant("first head's keys", "load_tile(k, head,", "load_tile(k, 0,"),
        Mutant("everything of the first head", "head, start = tl.program_id(0), ", "head, start = 0, "),
        Mutant("queries and keys exchanged", "product(Q, tl.trans(K))", "product(K, tl.trans(Q))"),
        Mutant("K is not transposed", "tl.trans(K)", "K"),
        Mutant("no weights", " * weights", ""),
        Mutant("weights transposed", "* weights", "* tl.trans(weights)"),
        Mutant("scale", "product(Q, tl.trans(K))", "product(Q, tl.trans(K)) / tl.sqrt(D * 1.0)"),
        Mutant("weights twice", "* weights", "* weights * weights"),
        Mutant("one step of decay more", "tl.exp(-slope * distance)", "tl.exp(-slope * (distance + 1))"),
        Mutant("stores the scores' sum", "product(Q, tl.trans(K)) * weights, V)",
               "product(Q, tl.trans(K)) * weights, V * 0 + 1)"),
    ],
    "5.4": [
        *of_weights(), *of_walks("product(Q, S)", "        S = "),
        Mutant("no pairs", "product(product(Q, tl.trans(K)) * weights, V) + ", ""),
        Mutant("state updated first", source=(
            "@triton.jit\n"
            "def forward_kernel(q, k, v, slopes, state, out, end, T, D: tl.constexpr, D_V: tl.constexpr,"
            " BLOCK: tl.constexpr):\n"
            "    head, i = tl.program_id(0), tl.arange(0, BLOCK)\n"
            "    slope, distance = tl.load(slopes + head), i[:, None] - i[None, :]\n"
            "    weights = tl.where(distance >= 0, tl.exp(-slope * distance), 0.0)\n"
            "    S = load_tile(state, head, 0, D, D_V, D)\n"
            "    for start in range(0, T, BLOCK):\n"
            "        Q, K = load_tile(q, head, start, T, D, BLOCK), load_tile(k, head, start, T, D, BLOCK)\n"
            "        V = load_tile(v, head, start, T, D_V, BLOCK)\n"
            "        m = tl.minimum(T - start, BLOCK)\n"
            "        S = tl.exp(-slope * m) * S"
            " + product(tl.trans(K), tl.exp(-slope * tl.maximum(m - 1 - i, 0))[:, None] * V)\n"
            "        O = product(product(Q, tl.trans(K)) * weights, V) + tl.exp(-slope * (i"
            " + 1))[:, None] * product(Q, S)\n"
            "        store_tile(out, O, head, start, T, D_V, BLOCK)\n"
            "    store_tile(end, S, head, 0, D, D_V, D)\n")),
        Mutant("end is not stored", "store_tile(end, S, head, 0, D, D_V, D)", "S + 1"),
        Mutant("end lacks the last block", "store_tile(end, S, head, 0, D, D_V, D)",
               "store_tile(end, (S - product(tl.trans(K), k_decay * V)) / tl.exp(-slope * m), head, 0, D, D_V, D)"),
        Mutant("end is what came in", "store_tile(end, S,", "store_tile(end, load_tile(state, head, 0, D, D_V, D),"),
        Mutant("end stored into state", "store_tile(end, S,", "store_tile(state, S,"),
        Mutant("queries not scaled right", "load_tile(q, head, start, T, D, BLOCK)",
               "load_tile(q, head, start, T, D, BLOCK) / tl.sqrt(D * 1.0)"),
        Mutant("decays in the wrong order", Q_DECAY, "q_decay = tl.exp(-slope * (BLOCK - i))[:, None]"),
    ],
    "5.5": [
        *of_weights(),  # of a walk's mistakes, those about the last block's end change nothing: S is not stored here
        *(mutant for mutant in of_walks("product(dO, tl.trans(S))", "        S = ") if mutant.name not in (
            "no clamp of exponents", "last block as long as the others", "state decays by BLOCK")),
        Mutant("keys and values exchanged in the pairs", "product(dO, tl.trans(V)) * weights, K)",
               "product(dO, tl.trans(K)) * weights, V)"),
        Mutant("state not transposed", "product(dO, tl.trans(S))", "product(dO, S)"),
        Mutant("weights transposed", "* weights", "* tl.trans(weights)"),
        Mutant("no pairs", "product(product(dO, tl.trans(V)) * weights, K) + ", ""),
        Mutant("state of v and dO", "product(tl.trans(K), k_decay * V)", "product(tl.trans(K), k_decay * dO)"),
        Mutant("sign", "store_tile(dq, dQ,", "store_tile(dq, -dQ,"),
        Mutant("state is read after the update", source=(
            "@triton.jit\n"
            "def dq_kernel(dout, k, v, slopes, state, dq, T, D: tl.constexpr, D_V: tl.constexpr,"
            " BLOCK: tl.constexpr):\n"
            "    head, i = tl.program_id(0), tl.arange(0, BLOCK)\n"
            "    slope, distance = tl.load(slopes + head), i[:, None] - i[None, :]\n"
            "    weights = tl.where(distance >= 0, tl.exp(-slope * distance), 0.0)\n"
            "    S = load_tile(state, head, 0, D, D_V, D)\n"
            "    for start in range(0, T, BLOCK):\n"
            "        dO, V = load_tile(dout, head, start, T, D_V, BLOCK), load_tile(v, head, start, T, D_V, BLOCK)\n"
            "        K = load_tile(k, head, start, T, D, BLOCK)\n"
            "        m = tl.minimum(T - start, BLOCK)\n"
            "        k_decay = tl.exp(-slope * tl.maximum(m - 1 - i, 0))[:, None]\n"
            "        S = tl.exp(-slope * m) * S + product(tl.trans(K), k_decay * V)\n"
            "        q_decay = tl.exp(-slope * (i + 1))[:, None]\n"
            "        dQ = product(product(dO, tl.trans(V)) * weights, K) + q_decay * product(dO, tl.trans(S))\n"
            "        store_tile(dq, dQ, head, start, T, D, BLOCK)\n")),
    ],
    "5.6": [
        Mutant("weights not transposed", "i[None, :] - i[:, None]", "i[:, None] - i[None, :]"),
        Mutant("no mask of pairs", WEIGHTS, "weights = tl.exp(-slope * tl.abs(distance))"),
        Mutant("a mask that multiplies", WEIGHTS, "weights = tl.exp(-slope * distance) * (distance >= 0)"),
        Mutant("no token is read by itself", "distance >= 0", "distance > 0"),
        Mutant("no decay of pairs", WEIGHTS, "weights = tl.where(distance >= 0, 1.0, 0.0)"),
        Mutant("slope of the first head", SLOPE, "tl.load(slopes)"),
        Mutant("dend is ignored", "load_tile(dend, head, 0, D, D_V, D)", "tl.zeros((D, D_V), tl.float32)"),
        Mutant("first block first", "start = (blocks - 1 - step) * BLOCK", "start = step * BLOCK"),
        Mutant("blocks cut from the end", "start = (blocks - 1 - step) * BLOCK", "start = T - (step + 1) * BLOCK"),
        Mutant("first block is left out", "range(blocks)", "range(blocks - 1)"),
        Mutant("last block is left out", "tl.cdiv(T, BLOCK)", "T // BLOCK"),
        Mutant("last block as long as the others", M_IS, "m = BLOCK"),
        Mutant("keys one step too old", K_DECAY, "tl.exp(-slope * tl.maximum(m - i, 0))"),
        Mutant("queries one step too young", Q_DECAY, "q_decay = tl.exp(-slope * i)[:, None]"),
        Mutant("dS decays by BLOCK", "dS = tl.exp(-slope * m)", "dS = tl.exp(-slope * BLOCK)"),
        Mutant("dS is not decayed", "dS = tl.exp(-slope * m) * dS", "dS = dS"),
        Mutant("dS is forgotten in each block", "dS = tl.exp(-slope * m) * dS + ", "dS = "),
        Mutant("dS is not read for k", " + k_decay * product(V, tl.trans(dS))", ""),
        Mutant("dS is not read for v", " + k_decay * product(K, dS)", ""),
        Mutant("dS read without decay for k", "k_decay * product(V", "product(V"),
        Mutant("dS read with the other decay", "k_decay * product(K, dS)", "q_decay * product(K, dS)"),
        Mutant("queries not decayed", "q_decay * dO", "dO"),
        Mutant("queries with the other decay", "q_decay * dO", "k_decay * dO"),
        Mutant("dS not transposed", "tl.trans(dS)", "dS"),
        Mutant("dS is read after the update", source=(
            "@triton.jit\n"
            "def dkv_kernel(q, k, v, dout, slopes, dend, dk, dv, dstate, T, D: tl.constexpr, D_V: tl.constexpr,"
            " BLOCK: tl.constexpr):\n"
            "    head, i = tl.program_id(0), tl.arange(0, BLOCK)\n"
            "    slope, distance = tl.load(slopes + head), i[None, :] - i[:, None]\n"
            "    weights = tl.where(distance >= 0, tl.exp(-slope * distance), 0.0)\n"
            "    q_decay = tl.exp(-slope * (i + 1))[:, None]\n"
            "    dS, blocks = load_tile(dend, head, 0, D, D_V, D), tl.cdiv(T, BLOCK)\n"
            "    for step in range(blocks):\n"
            "        start = (blocks - 1 - step) * BLOCK\n"
            "        Q, K = load_tile(q, head, start, T, D, BLOCK), load_tile(k, head, start, T, D, BLOCK)\n"
            "        V, dO = load_tile(v, head, start, T, D_V, BLOCK), load_tile(dout, head, start, T, D_V, BLOCK)\n"
            "        m = tl.minimum(T - start, BLOCK)\n"
            "        k_decay = tl.exp(-slope * tl.maximum(m - 1 - i, 0))[:, None]\n"
            "        dS = tl.exp(-slope * m) * dS + product(tl.trans(Q), q_decay * dO)\n"
            "        dK = product(product(V, tl.trans(dO)) * weights, Q) + k_decay * product(V, tl.trans(dS))\n"
            "        dV = product(product(K, tl.trans(Q)) * weights, dO) + k_decay * product(K, dS)\n"
            "        store_tile(dk, dK, head, start, T, D, BLOCK)\n"
            "        store_tile(dv, dV, head, start, T, D_V, BLOCK)\n"
            "    store_tile(dstate, dS, head, 0, D, D_V, D)\n")),
        Mutant("dk and dv exchanged", "store_tile(dk, dK, head, start, T, D, BLOCK)",
               "store_tile(dv, dK, head, start, T, D, BLOCK)"),
        Mutant("dstate is not stored", "store_tile(dstate, dS, head, 0, D, D_V, D)", "dS + 1"),
        Mutant("dstate is dend", "store_tile(dstate, dS,", "store_tile(dstate, load_tile(dend, head, 0, D, D_V, D),"),
        Mutant("scores of k with k", "product(K, tl.trans(Q)) * weights", "product(K, tl.trans(K)) * weights"),
        Mutant("pairs of dk lack the values", "product(V, tl.trans(dO)) * weights",
               "product(V, tl.trans(V)) * weights"),
    ],
}
