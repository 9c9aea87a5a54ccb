"""Chapter 05."""

from tests.mutants.from_the_cards import Cards

MUTANTS = Cards()
add, fam = MUTANTS.add, MUTANTS.family

TOP = """
import triton
import triton.language as tl
"""



def pick(family, names):
    by_name = {item[0]: item for item in family}
    return [by_name[name] for name in names.split()]


# ------------------------------------------------------------ 5.1
DEF1 = """@triton.jit
def copy_kernel(
    x, out, M, N, x_row, x_column, out_row, out_column, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):
"""
C = TOP + DEF1 + """    a = tl.program_id(0)
    b = tl.program_id(1)
    r = a * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    c = b * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    there = (r < M) & (c < N)
    tile = tl.load(x + r * x_row + c * x_column, mask=there, other=0.0)
    tl.store(out + r * out_row + c * out_column, tile, mask=there)
"""
RR, CC = "r = a * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]", "c = b * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]"
TH = "there = (r < M) & (c < N)"
LO = "tile = tl.load(x + r * x_row + c * x_column, mask=there, other=0.0)"
ST = "tl.store(out + r * out_row + c * out_column, tile, mask=there)"
fam("5.1", C, [
    ("base", "right"),
    ("tile_transposed", "right", RR, RR.replace("[:, None]", "[None, :]"), CC, CC.replace("[None, :]", "[:, None]")),
    ("no_other", "right", ", other=0.0", ""),
    ("pointers_in_steps", "right", LO, "rows = x + r * x_row\n    tile = tl.load(rows + c * x_column, there)", ST, "target = out + c * out_column\n    tl.store(target + r * out_row, tile, there)"),
    ("flat_tile", "right", RR, "n = tl.arange(0, BLOCK_M * BLOCK_N)\n    r = a * BLOCK_M + n // BLOCK_N", CC, "c = b * BLOCK_N + n % BLOCK_N"),
    ("row_by_row", "right", RR, "", CC, "c = b * BLOCK_N + tl.arange(0, BLOCK_N)", TH, "for n in range(BLOCK_M):\n        r = a * BLOCK_M + n\n        there = (c < N) & (r < M)", LO, "    " + LO, ST, "    " + ST),
    ("column_by_column", "right", CC, "", RR, "r = a * BLOCK_M + tl.arange(0, BLOCK_M)", TH, "for c in range(b * BLOCK_N, tl.minimum(b * BLOCK_N + BLOCK_N, N)):\n        there = r < M", LO, "    " + LO, ST, "    " + ST),
    ("rows_backwards", "right", RR, "r = a * BLOCK_M + BLOCK_M - 1 - tl.arange(0, BLOCK_M)[:, None]"),
    ("program_ids_swapped", "wrong", "program_id(0)", "program_id(9)", "program_id(1)", "program_id(0)", "program_id(9)", "program_id(1)"),
    ("block_m_for_columns_start", "wrong", "b * BLOCK_N", "b * BLOCK_M"),
    ("blocks_swapped", "wrong", RR, RR.replace("BLOCK_M", "BLOCK_N"), CC, CC.replace("BLOCK_N", "BLOCK_M")),
    ("column_start_missing", "wrong", "b * BLOCK_N + ", ""),
    ("store_not_masked", "wrong", "tile, mask=there", "tile"),
    ("load_not_masked", "wrong", ", mask=there, other=0.0", ""),
    ("only_rows_masked", "wrong", TH, "there = (r < M) & (c >= 0)"),
    ("only_columns_masked", "wrong", TH, "there = (c < N) & (r >= 0)"),
    ("mask_or", "wrong", " & (c", " | (c"),
    ("row_bound_inclusive", "wrong", "r < M", "r <= M"),
    ("column_bound_inclusive", "wrong", "c < N", "c <= N"),
    ("last_row_lost", "wrong", "r < M", "r < M - 1"),
    ("bounds_swapped", "wrong", TH, "there = (r < N) & (c < M)"),
    ("mask_by_number_of_elements", "wrong", TH, "there = r * N + c < M * N"),
    ("whole_tiles_only", "wrong", TH, "there = (a * BLOCK_M + BLOCK_M <= M) & (b * BLOCK_N + BLOCK_N <= N) & (r >= 0) & (c >= 0)"),
    ("stores_zeros_at_the_edge", "wrong", ST, "tl.store(out + r * out_row + c * out_column, tile, mask=r < M + 0 * c)"),
    ("x_strides_swapped", "wrong", "r * x_row + c * x_column", "r * x_column + c * x_row"),
    ("x_strides_for_out", "wrong", "r * out_row + c * out_column", "r * x_row + c * x_column"),
    ("out_strides_for_x", "wrong", "r * x_row + c * x_column", "r * out_row + c * out_column"),
    ("x_column_1", "wrong", "c * x_column", "c"),
    ("out_column_1", "wrong", "c * out_column", "c"),
    ("x_contiguous", "wrong", "r * x_row + c * x_column", "r * N + c"),
    ("out_contiguous", "wrong", "r * out_row + c * out_column", "r * N + c"),
    ("transposed", "wrong", ST, ST.replace("r * out_row + c * out_column", "c * out_row + r * out_column")),
    ("half_between", "wrong", "tile, mask", "tile.to(tl.float16).to(tl.float32), mask"),
    ("added_to_out", "wrong", "tl.store(", "tl.atomic_add("),
    ("tile_of_16", "wrong", RR, RR.replace("tl.arange(0, BLOCK_M)", "tl.arange(0, 16)")),
])

# ------------------------------------------------------------ 5.2
DEF2 = """@triton.jit
def matmul_kernel(a, b, out, M, N, K, BLOCK: tl.constexpr, BLOCK_K: tl.constexpr):
"""
P = TOP + DEF2 + """    r = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
    for start in range(0, K, BLOCK_K):
        n = start + tl.arange(0, BLOCK_K)
        A = tl.load(a + r[:, None] * K + n[None, :], mask=(r[:, None] < M) & (n[None, :] < K), other=0.0)
        B = tl.load(b + n[:, None] * N + c[None, :], mask=(n[:, None] < K) & (c[None, :] < N), other=0.0)
        total += tl.dot(A, B, input_precision="ieee")
    tl.store(out + r[:, None] * N + c[None, :], total, mask=(r[:, None] < M) & (c[None, :] < N))
"""
ZE, LP = "total = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)", "for start in range(0, K, BLOCK_K):"
NN, DO = "n = start + tl.arange(0, BLOCK_K)", 'total += tl.dot(A, B, input_precision="ieee")'
AM, BM, OM = "mask=(r[:, None] < M) & (n[None, :] < K), other=0.0", "mask=(n[:, None] < K) & (c[None, :] < N), other=0.0", "total, mask=(r[:, None] < M) & (c[None, :] < N)"
AL, BL = f"A = tl.load(a + r[:, None] * K + n[None, :], {AM})", f"B = tl.load(b + n[:, None] * N + c[None, :], {BM})"
OS = f"tl.store(out + r[:, None] * N + c[None, :], {OM})"
fam("5.2", P, [
    ("base", "right"),
    ("accumulator_in_dot", "right", DO, 'total = tl.dot(A, B, total, input_precision="ieee")'),
    ("fp32_factors", "right", DO, 'total += tl.dot(A.to(tl.float32), B.to(tl.float32), input_precision="ieee")'),
    ("while_loop", "right", LP, "start = 0\n    while start < K:", DO, DO + "\n        start += BLOCK_K"),
    ("counted_tiles", "right", LP, "for step in range(tl.cdiv(K, BLOCK_K)):\n        start = step * BLOCK_K"),
    ("tiles_from_the_end", "right", LP, "for step in range(tl.cdiv(K, BLOCK_K)):\n        start = (tl.cdiv(K, BLOCK_K) - 1 - step) * BLOCK_K"),
    ("transposed_product", "right", DO, 'total += tl.trans(tl.dot(tl.trans(B), tl.trans(A), input_precision="ieee"))'),
    ("rows_wrapped_around", "right", AL, "A = tl.load(a + (r % M)[:, None] * K + n[None, :], mask=n[None, :] < K, other=0.0)", BL, "B = tl.load(b + n[:, None] * N + (c % N)[None, :], mask=n[:, None] < K, other=0.0)"),
    ("outer_products", "right", LP, "for n in range(K):", "        " + NN + "\n", "", AL, "A = tl.load(a + r * K + n, mask=r < M, other=0.0).to(tl.float32)", BL, "B = tl.load(b + n * N + c, mask=c < N, other=0.0).to(tl.float32)", DO, "total += A[:, None] * B[None, :]"),
    ("moving_pointers", "right", LP, "n = tl.arange(0, BLOCK_K)\n    a_at = a + r[:, None] * K + n[None, :]\n    b_at = b + n[:, None] * N + c[None, :]\n    " + LP, "        " + NN + "\n", "", AL, "A = tl.load(a_at, mask=(r[:, None] < M) & (n[None, :] < K - start), other=0.0)", BL, "B = tl.load(b_at, mask=(n[:, None] + start < K) & (c[None, :] < N), other=0.0)", DO, DO + "\n        a_at += BLOCK_K\n        b_at += BLOCK_K * N"),
    ("tile_zeroed_by_where", "right", AL, AL.replace(", other=0.0", "") + "\n        A = tl.where((r[:, None] < M) & (n[None, :] < K), A, 0.0).to(A.dtype)"),
    ("accumulator_fp16", "wrong", DO, 'total = (total + tl.dot(A, B, input_precision="ieee")).to(tl.float16).to(tl.float32)'),
    ("accumulator_of_the_factors", "wrong", DO, 'total = (total + tl.dot(A, B, input_precision="ieee")).to(A.dtype).to(tl.float32)'),
    ("sum_in_fp16_at_the_end", "wrong", OM, OM.replace("total,", "total.to(tl.float16),")),
    ("factors_fp16", "wrong", DO, 'total += tl.dot(A.to(tl.float16), B.to(tl.float16), input_precision="ieee")'),
    ("factors_bf16", "wrong", DO, 'total += tl.dot(A.to(tl.bfloat16).to(tl.float32), B.to(tl.bfloat16).to(tl.float32), input_precision="ieee")'),
    ("tf32", "wrong", '"ieee"', '"tf32"'),
    ("precision_not_said", "wrong", ', input_precision="ieee"', ""),
    ("overwritten", "wrong", "total += tl", "total = tl"),
    ("whole_tiles_only", "wrong", "range(0, K, BLOCK_K)", "range(0, K // BLOCK_K * BLOCK_K, BLOCK_K)"),
    ("k_minus_1", "wrong", "range(0, K, BLOCK_K)", "range(0, K - 1, BLOCK_K)"),
    ("steps_of_block", "wrong", "range(0, K, BLOCK_K)", "range(0, K, BLOCK)"),
    ("loop_over_n", "wrong", "range(0, K, BLOCK_K)", "range(0, N, BLOCK_K)"),
    ("start_not_added", "wrong", "n = start + ", "n = "),
    ("a_k_edge_not_masked", "wrong", AM, "mask=(r[:, None] < M) & (n[None, :] >= 0), other=0.0"),
    ("b_k_edge_not_masked", "wrong", BM, "mask=(n[:, None] >= 0) & (c[None, :] < N), other=0.0"),
    ("a_k_edge_times_0", "wrong", AL, AL.replace(AM, "mask=(r[:, None] < M) & (n[None, :] >= 0), other=0.0") + "\n        A *= (n[None, :] < K).to(A.dtype)"),
    ("k_edge_not_masked", "wrong", AM, "mask=(r[:, None] < M) & (n[None, :] >= 0), other=0.0", BM, "mask=(n[:, None] >= 0) & (c[None, :] < N), other=0.0"),
    ("a_k_bound_inclusive", "wrong", "n[None, :] < K", "n[None, :] <= K", "n[:, None] < K", "n[:, None] <= K"),
    ("k_edge_loaded_as_1", "wrong", AM, AM.replace("0.0", "1.0"), BM, BM.replace("0.0", "1.0")),
    ("store_not_masked", "wrong", OM, "total"),
    ("store_rows_only_masked", "wrong", OM, "total, mask=(r[:, None] < M) & (c[None, :] >= 0)"),
    ("store_stride_m", "wrong", "out + r[:, None] * N", "out + r[:, None] * M"),
    ("a_stride_n", "wrong", "a + r[:, None] * K", "a + r[:, None] * N"),
    ("b_stride_k", "wrong", "b + n[:, None] * N", "b + n[:, None] * K"),
    ("b_transposed", "wrong", "b + n[:, None] * N + c[None, :]", "b + c[None, :] * K + n[:, None]"),
    ("program_ids_swapped", "wrong", "program_id(0)", "program_id(9)", "program_id(1)", "program_id(0)", "program_id(9)", "program_id(1)"),
    ("added_to_out", "wrong", "tl.store(", "tl.atomic_add("),
    ("one_per_mille", "wrong", OM, OM.replace("total,", "total * 1.001,")),
    ("clamped_at_65504", "wrong", OM, OM.replace("total,", "tl.minimum(total, 65504.0),")),
    ("program_at_edge_returns", "wrong", ZE, "if tl.program_id(0) * BLOCK + BLOCK > M:\n        return\n    " + ZE),
])

# ------------------------------------------------------------ 5.3
DEF3 = """@triton.jit
def intra_kernel(q, k, v, slopes, out, T, D: tl.constexpr, D_V: tl.constexpr, BLOCK: tl.constexpr):
"""
I = TOP + DEF3 + """    g = tl.program_id(0)
    n = tl.program_id(1)
    i = tl.arange(0, BLOCK)
    d = tl.arange(0, D)[None, :]
    e = tl.arange(0, D_V)[None, :]
    t = n * BLOCK + i
    there = (t < T)[:, None]
    row = (g * T + t)[:, None]
    Q = tl.load(q + row * D + d, mask=there, other=0.0)
    K = tl.load(k + row * D + d, mask=there, other=0.0)
    V = tl.load(v + row * D_V + e, mask=there, other=0.0)
    s = tl.load(slopes + g)
    distance = i[:, None] - i[None, :]
    M = tl.where(distance >= 0, tl.exp(-s * tl.maximum(distance, 0)), 0.0)
    scores = tl.dot(Q, tl.trans(K), input_precision="ieee")
    tl.store(out + row * D_V + e, tl.dot(scores * M, V, input_precision="ieee"), mask=there)
"""
MM = "M = tl.where(distance >= 0, tl.exp(-s * tl.maximum(distance, 0)), 0.0)"
SC = 'scores = tl.dot(Q, tl.trans(K), input_precision="ieee")'
DOT = 'tl.dot(scores * M, V, input_precision="ieee")'
STO = "tl.store(out + row * D_V + e, " + DOT + ", mask=there)"
MASKS = [  # what can go wrong with M, in any of the kernels
    ("above_diagonal_infinite_times_0", "wrong", MM, "M = tl.exp(-s * distance) * (distance >= 0)"),
    ("no_mask", "wrong", MM, "M = tl.exp(-s * tl.maximum(distance, 0))"),
    ("both_sides", "wrong", MM, "M = tl.exp(-s * tl.abs(distance))"),
    ("diagonal_left_out", "wrong", "distance >= 0", "distance > 0"),
    ("one_above_diagonal", "wrong", "distance >= 0", "distance >= -1"),
    ("distance_plus_1", "wrong", "-s * tl.maximum(distance, 0)", "-s * tl.maximum(distance + 1, 0)"),
    ("distance_minus_1", "wrong", "-s * tl.maximum(distance, 0)", "-s * tl.maximum(distance - 1, 0)"),
    ("decay_grows", "wrong", "-s * tl.maximum(distance, 0)", "s * tl.maximum(distance, 0)"),
    ("no_decay_in_M", "wrong", MM, "M = tl.where(distance >= 0, 1.0, 0.0)"),
    ("masked_with_1", "wrong", "distance, 0)), 0.0)", "distance, 0)), 1.0)"),
    ("window_16", "wrong", "distance >= 0", "(distance >= 0) & (distance < 16)"),
    ("slope_of_head_0", "wrong", "tl.load(slopes + g)", "tl.load(slopes)"),
    ("slope_as_decay", "wrong", "tl.load(slopes + g)", "-tl.log(tl.load(slopes + g))"),
    ("slope_at_most_1", "wrong", "tl.load(slopes + g)", "tl.minimum(tl.load(slopes + g), 1.0)"),
    ("slope_base_2", "wrong", "tl.load(slopes + g)", "tl.load(slopes + g) * 0.6931471805599453"),
]
INTRA = [
    ("base", "right"),
    ("minus_infinity_before_exp", "right", MM, 'M = tl.exp(tl.where(distance >= 0, -s * distance, float("-inf")))'),
    ("where_around_infinite", "right", "tl.maximum(distance, 0)", "distance"),
    ("base_2", "right", "tl.exp(-s *", "tl.exp2(-s * 1.4426950408889634 *"),
    ("scores_masked", "right", DOT, 'tl.dot(tl.where(distance >= 0, scores * tl.exp(-s * tl.abs(distance)), 0.0), V, input_precision="ieee")'),
    ("transposed_scores", "right", SC, 'scores = tl.trans(tl.dot(K, tl.trans(Q), input_precision="ieee"))'),
    ("keys_loaded_transposed", "right", "K = tl.load(k + row * D + d, mask=there, other=0.0)", "K = tl.load(k + tl.trans(row) * D + tl.trans(d), mask=tl.trans(there), other=0.0)", "tl.trans(K)", "K"),
    ("values_decayed_in_a_sum", "right", "tl.store", "O = tl.zeros((BLOCK, D_V), dtype=tl.float32)\n    for j in range(BLOCK):\n        column = tl.sum(tl.where(i[None, :] == j, scores * M, 0.0), 1)\n        O += column[:, None] * tl.sum(tl.where(i[:, None] == j, V, 0.0), 0)[None, :]\n    tl.store", DOT, "O"),
]
fam("5.3", I, INTRA + pick(MASKS, "above_diagonal_infinite_times_0 no_mask both_sides diagonal_left_out one_above_diagonal distance_plus_1 decay_grows masked_with_1 window_16 slope_of_head_0 slope_as_decay slope_at_most_1") + [
    ("split_exponentials", "wrong", MM, "M = tl.where(distance >= 0, tl.exp(-s * i)[:, None] * tl.exp(s * i)[None, :], 0.0)"),
    ("decay_over_the_head", "wrong", "distance = i[:, None]", "distance = n * BLOCK + i[:, None]"),
    ("scaled", "wrong", SC, SC + " * (1.0 / D) ** 0.5"),
    ("softmax", "wrong", SC, SC + "\n    scores = tl.exp(scores - tl.max(scores, 1)[:, None])\n    scores = scores / tl.sum(scores, 1)[:, None]"),
    ("scores_transposed", "wrong", "tl.dot(Q, tl.trans(K)", "tl.dot(K, tl.trans(Q)"),
    ("weights_transposed", "wrong", "tl.dot(scores * M, V", "tl.dot(tl.trans(scores * M), V"),
    ("store_not_masked", "wrong", STO, STO.replace(", mask=there", "")),
    ("store_mask_inclusive", "wrong", "(t < T)", "(t <= T)"),
    ("mask_over_all_heads", "wrong", "(t < T)", "(g * T + t < tl.num_programs(0) * T)"),
    ("last_block_left_out", "wrong", STO, STO.replace("mask=there", "mask=there & (n * BLOCK + BLOCK <= T)")),
    ("heads_without_T", "wrong", "(g * T + t)", "(g * tl.num_programs(1) * BLOCK + t)"),
    ("head_0_only", "wrong", "(g * T + t)", "t"),
    ("block_not_multiplied", "wrong", "t = n * BLOCK + i", "t = n + i"),
    ("program_ids_swapped", "wrong", "program_id(0)", "program_id(9)", "program_id(1)", "program_id(0)", "program_id(9)", "program_id(1)"),
    ("v_stride_D", "wrong", "v + row * D_V", "v + row * D"),
    ("out_stride_D", "wrong", "out + row * D_V", "out + row * D"),
    ("half_weights", "wrong", DOT, DOT.replace("scores * M, V", "(scores * M).to(tl.float16), V.to(tl.float16)")),
])
add("5.3", "token_by_token", "right", TOP + DEF3 + """    g, n = tl.program_id(0), tl.program_id(1)
    d, e = tl.arange(0, D), tl.arange(0, D_V)
    decay = tl.exp(-tl.load(slopes + g))
    S = tl.zeros((D, D_V), dtype=tl.float32)
    for t in range(n * BLOCK, tl.minimum(n * BLOCK + BLOCK, T)):
        row = g * T + t
        S = decay * S + tl.load(k + row * D + d)[:, None] * tl.load(v + row * D_V + e)[None, :]
        tl.store(out + row * D_V + e, tl.sum(tl.load(q + row * D + d)[:, None] * S, axis=0))
""")
add("5.3", "key_by_key", "right", TOP + DEF3 + """    first = tl.program_id(1) * BLOCK
    head = tl.program_id(0).to(tl.int64)
    t = first + tl.arange(0, BLOCK)
    inside = t[:, None] < T
    Q = tl.load(q + (head * T + t)[:, None] * D + tl.arange(0, D)[None, :], inside, 0.0)
    O = tl.zeros((BLOCK, D_V), tl.float32)
    s = tl.load(slopes + head)
    for j in range(first, tl.minimum(first + BLOCK, T)):
        key = tl.load(k + (head * T + j) * D + tl.arange(0, D))
        value = tl.load(v + (head * T + j) * D_V + tl.arange(0, D_V))
        weight = tl.sum(Q * key[None, :], 1) * tl.where(t >= j, tl.exp(-s * tl.abs(t - j)), 0.0)
        O += weight[:, None] * value[None, :]
    tl.store(out + (head * T + t)[:, None] * D_V + tl.arange(0, D_V)[None, :], O, inside)
""")

# ------------------------------------------------------------ 5.4
DEF4 = """@triton.jit
def forward_kernel(
    q, k, v, slopes, state, out, end, T, D: tl.constexpr, D_V: tl.constexpr, BLOCK: tl.constexpr
):
"""
HEAD = """    g = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    d = tl.arange(0, D)[None, :]
    e = tl.arange(0, D_V)[None, :]
    s = tl.load(slopes + g)
    square = g * D * D_V + tl.arange(0, D)[:, None] * D_V + e
"""
F = TOP + DEF4 + HEAD + """    S = tl.load(state + square)
    distance = i[:, None] - i[None, :]
    M = tl.where(distance >= 0, tl.exp(-s * tl.maximum(distance, 0)), 0.0)
    for start in range(0, T, BLOCK):
        t = start + i
        there = (t < T)[:, None]
        row = (g * T + t)[:, None]
        Q = tl.load(q + row * D + d, mask=there, other=0.0)
        K = tl.load(k + row * D + d, mask=there, other=0.0)
        V = tl.load(v + row * D_V + e, mask=there, other=0.0)
        scores = tl.dot(Q, tl.trans(K), input_precision="ieee")
        O = tl.dot(scores * M, V, input_precision="ieee")
        O += tl.exp(-s * (i + 1))[:, None] * tl.dot(Q, S, input_precision="ieee")
        tl.store(out + row * D_V + e, O, mask=there)
        m = tl.minimum(T - start, BLOCK)
        left = tl.exp(-s * tl.maximum(m - 1 - i, 0))
        S = tl.exp(-s * m) * S + tl.dot(tl.trans(K * left[:, None]), V, input_precision="ieee")
    tl.store(end + square, S)
"""
SL, FOR = "S = tl.load(state + square)", "for start in range(0, T, BLOCK):"
KL, VL = "K = tl.load(k + row * D + d, mask=there, other=0.0)", "V = tl.load(v + row * D_V + e, mask=there, other=0.0)"
INTER = 'O += tl.exp(-s * (i + 1))[:, None] * tl.dot(Q, S, input_precision="ieee")'
OST = "tl.store(out + row * D_V + e, O, mask=there)"
MI, LE = "m = tl.minimum(T - start, BLOCK)", "left = tl.exp(-s * tl.maximum(m - 1 - i, 0))"
UP = 'S = tl.exp(-s * m) * S + tl.dot(tl.trans(K * left[:, None]), V, input_precision="ieee")'
END = "tl.store(end + square, S)"
UPDATE = [  # what can go wrong with S, in 5.4 and 5.5
    ("m_is_block", "wrong", MI, "m = BLOCK"),
    ("m_is_block_for_the_keys", "wrong", "m - 1 - i", "BLOCK - 1 - i"),
    ("m_is_T_rest", "wrong", MI, "m = T % BLOCK"),
    ("exponential_infinite", "wrong", "tl.maximum(m - 1 - i, 0)", "(m - 1 - i)"),
    ("keys_m_minus_j", "wrong", "m - 1 - i", "m - i"),
    ("keys_m_minus_2", "wrong", "m - 1 - i", "m - 2 - i"),
    ("keys_not_decayed", "wrong", "K * left[:, None]", "K"),
    ("keys_decayed_from_start", "wrong", LE, "left = tl.exp(-s * i)"),
    ("keys_decayed_as_queries", "wrong", LE, "left = tl.exp(-s * (i + 1))"),
    ("state_not_decayed", "wrong", "tl.exp(-s * m) * S", "S"),
    ("state_decayed_once", "wrong", "tl.exp(-s * m) * S", "tl.exp(-s) * S"),
    ("state_decayed_m_minus_1", "wrong", "tl.exp(-s * m) * S", "tl.exp(-s * (m - 1)) * S"),
    ("state_replaced", "wrong", "S = tl.exp(-s * m) * S + tl.dot", "S = tl.dot"),
    ("state_constant", "wrong", UP, "S = tl.exp(-s * m) * S"),
    ("new_keys_decayed_too", "wrong", "tl.exp(-s * m) * S + tl.dot(tl.trans(K * left[:, None]), V, input_precision=\"ieee\")", "tl.exp(-s * m) * (S + tl.dot(tl.trans(K * left[:, None]), V, input_precision=\"ieee\"))"),
    ("begins_with_zeros", "wrong", SL, "S = tl.zeros((D, D_V), dtype=tl.float32)"),
    ("begins_with_state_of_head_0", "wrong", SL, "S = tl.load(state + square - g * D * D_V)"),
    ("begins_with_transposed_state", "wrong", SL, "S = tl.load(state + g * D * D_V + tl.arange(0, D)[:, None] + e * D)"),
    ("state_stored_back", "wrong", UP, UP + "\n        tl.store(state + square, S)"),
    ("state_in_half", "wrong", UP, UP + "\n        S = S.to(tl.float16).to(tl.float32)"),
    ("state_in_bf16", "wrong", UP, UP + "\n        S = S.to(tl.bfloat16).to(tl.float32)"),
    ("keys_of_next_head_seen", "wrong", KL, "K = tl.load(k + row * D + d, mask=row < tl.num_programs(0) * T, other=0.0)", VL, "V = tl.load(v + row * D_V + e, mask=row < tl.num_programs(0) * T, other=0.0)"),
]
WALK = [  # what can go wrong with the walk over blocks, in 5.4 and 5.5
    ("first_block_only", "wrong", "range(0, T, BLOCK)", "range(0, 1, BLOCK)"),
    ("whole_blocks_only", "wrong", "range(0, T, BLOCK)", "range(0, T // BLOCK * BLOCK, BLOCK)"),
    ("one_block_too_many_state", "wrong", "range(0, T, BLOCK)", "range(0, T + BLOCK, BLOCK)"),
    ("blocks_backwards", "wrong", "t = start + i\n", "start = (T - 1) // BLOCK * BLOCK - start\n        t = start + i\n"),
    ("mask_inside_block", "wrong", "(t < T)", "(i < T)"),
    ("last_token_lost", "wrong", "(t < T)", "(t < T - 1)"),
    ("time_before_head", "wrong", "(g * T + t)", "(t * tl.num_programs(0) + g)"),
]
fam("5.4", F, [
    ("base", "right"),
    ("minus_infinity_before_exp", "right", MM, 'M = tl.exp(tl.where(distance >= 0, -s * distance, float("-inf")))', LE, 'left = tl.exp(tl.where(i < m, -s * (m - 1 - i), float("-inf")))'),
    ("where_around_infinite", "right", MM, "M = tl.where(distance >= 0, tl.exp(-s * distance), 0.0)", LE, "left = tl.where(t < T, tl.exp(-s * (m - 1 - i)), 0.0)"),
    ("while_loop", "right", FOR, "start = 0\n    while start < T:", UP, UP + "\n        start += BLOCK"),
    ("values_decayed", "right", UP, 'S = tl.exp(-s * m) * S + tl.dot(tl.trans(K), V * left[:, None], input_precision="ieee")'),
    ("queries_decayed", "right", INTER, 'O += tl.dot(Q * tl.exp(-s * (i + 1))[:, None], S, input_precision="ieee")'),
    ("state_decayed_before_reading", "right", INTER, 'O += tl.exp(-s * i)[:, None] * tl.dot(Q, tl.exp(-s) * S, input_precision="ieee")'),
    ("state_transposed_in_registers", "right", SL, "S = tl.trans(tl.load(state + square))", "tl.dot(Q, S,", "tl.dot(Q, tl.trans(S),", UP, 'S = tl.exp(-s * m) * S + tl.dot(tl.trans(V), K * left[:, None], input_precision="ieee")', END, "tl.store(end + square, tl.trans(S))"),
    ("short_block_first", "right", "range(0, T, BLOCK)", "range((T + BLOCK - 1) // BLOCK * BLOCK * 0, (T + BLOCK - 1) // BLOCK * BLOCK, BLOCK)", "t = start + i\n", "first = T - (T - 1) // BLOCK * BLOCK\n        begin = tl.maximum(start - BLOCK + first, 0)\n        m = tl.where(start == 0, first, BLOCK)\n        t = begin + i\n", "(t < T)", "(i < m)", "        " + MI + "\n", ""),
    ("base_2", "right", "s = tl.load(slopes + g)", "s = tl.load(slopes + g) * 1.4426950408889634", "tl.exp(-s * tl.maximum(d", "tl.exp2(-s * tl.maximum(d", "tl.exp(-s * (i", "tl.exp2(-s * (i", "tl.exp(-s * tl.maximum(m", "tl.exp2(-s * tl.maximum(m", "tl.exp(-s * m", "tl.exp2(-s * m"),
    ("lengths_from_the_mask", "right", MI, "m = tl.sum((t < T).to(tl.int32))"),
] + pick(MASKS, "above_diagonal_infinite_times_0 diagonal_left_out no_mask slope_of_head_0 slope_at_most_1") + pick(UPDATE, "m_is_block m_is_block_for_the_keys m_is_T_rest exponential_infinite keys_m_minus_j keys_not_decayed keys_decayed_from_start state_not_decayed state_decayed_once state_replaced begins_with_zeros state_stored_back state_in_half keys_of_next_head_seen") + pick(WALK, "whole_blocks_only first_block_only one_block_too_many_state") + [
    ("queries_not_decayed", "wrong", "tl.exp(-s * (i + 1))[:, None] * ", ""),
    ("queries_decayed_i", "wrong", "-s * (i + 1)", "-s * i"),
    ("queries_decayed_over_the_text", "wrong", "-s * (i + 1)", "-s * (t + 1)"),
    ("state_read_after_the_update", "wrong", "        " + INTER + "\n        " + OST + "\n", "", UP, UP + "\n        " + INTER + "\n        " + OST),
    ("end_not_stored", "wrong", "    " + END + "\n", ""),
    ("end_stored_before_the_last_block", "wrong", "    " + END + "\n", "", UP, END + "\n        " + UP),
    ("end_and_state_stored", "wrong", END, END + "\n    tl.store(state + square, S)"),
    ("end_stored_transposed", "wrong", END, "tl.store(end + g * D * D_V + tl.arange(0, D)[:, None] + e * D, S)"),
    ("store_not_masked", "wrong", OST, OST.replace(", mask=there", "")),
    ("out_stride_D", "wrong", "out + row * D_V", "out + row * D"),
    ("one_per_mille", "wrong", OST, OST.replace(" O,", " O * 1.001,")),
])
add("5.4", "token_by_token", "right", TOP + DEF4 + """    g = tl.program_id(0)
    d, e = tl.arange(0, D), tl.arange(0, D_V)
    decay = tl.exp(-tl.load(slopes + g))
    at = (g * D + d[:, None]) * D_V + e[None, :]
    S = tl.load(state + at)
    for row in range(g * T, g * T + T):
        key, value = tl.load(k + row * D + d), tl.load(v + row * D_V + e)
        S = S * decay + key[:, None] * value[None, :]
        query = tl.load(q + row * D + d)
        tl.store(out + row * D_V + e, tl.sum(S * query[:, None], 0))
    tl.store(end + at, S)
""")
add("5.4", "helpers_and_block_sums", "right", TOP + """
@triton.jit
def tile(address, rows, inside, W: tl.constexpr):
    return tl.load(address + rows[:, None] * W + tl.arange(0, W)[None, :], mask=inside[:, None], other=0.0)

@triton.jit
def times(A, B):
    return tl.dot(A, B, input_precision="ieee")

""" + DEF4 + """    g = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    s = tl.load(slopes + g)
    S = tile(state, g * D + tl.arange(0, D), tl.arange(0, D) < D, D_V)
    for n in range(tl.cdiv(T, BLOCK)):
        m = min(T - n * BLOCK, BLOCK)
        inside = i < m
        rows = g * T + n * BLOCK + i
        Q, K, V = tile(q, rows, inside, D), tile(k, rows, inside, D), tile(v, rows, inside, D_V)
        age = i[:, None] - i[None, :]
        W = tl.where(age < 0, 0.0, times(Q, tl.trans(K)) * tl.exp(-s * tl.where(age < 0, 0, age)))
        O = times(W, V) + times(Q, S) * tl.exp(-s * (1 + i))[:, None]
        tl.store(out + rows[:, None] * D_V + tl.arange(0, D_V)[None, :], O, mask=inside[:, None])
        rest = tl.exp(-s * tl.where(inside, m - 1 - i, 0))
        S = times(tl.trans(K), V * rest[:, None]) + S * tl.exp(-s * m)
    tl.store(end + (g * D + tl.arange(0, D))[:, None] * D_V + tl.arange(0, D_V)[None, :], S)
""")

# ------------------------------------------------------------ 5.5
DEF5 = """@triton.jit
def dq_kernel(
    dout, k, v, slopes, state, dq, T, D: tl.constexpr, D_V: tl.constexpr, BLOCK: tl.constexpr
):
"""
Q5 = TOP + DEF5 + HEAD + """    S = tl.load(state + square)
    distance = i[:, None] - i[None, :]
    M = tl.where(distance >= 0, tl.exp(-s * tl.maximum(distance, 0)), 0.0)
    for start in range(0, T, BLOCK):
        t = start + i
        there = (t < T)[:, None]
        row = (g * T + t)[:, None]
        dO = tl.load(dout + row * D_V + e, mask=there, other=0.0)
        K = tl.load(k + row * D + d, mask=there, other=0.0)
        V = tl.load(v + row * D_V + e, mask=there, other=0.0)
        scores = tl.dot(dO, tl.trans(V), input_precision="ieee")
        dQ = tl.dot(scores * M, K, input_precision="ieee")
        dQ += tl.exp(-s * (i + 1))[:, None] * tl.dot(dO, tl.trans(S), input_precision="ieee")
        tl.store(dq + row * D + d, dQ, mask=there)
        m = tl.minimum(T - start, BLOCK)
        left = tl.exp(-s * tl.maximum(m - 1 - i, 0))
        S = tl.exp(-s * m) * S + tl.dot(tl.trans(K * left[:, None]), V, input_precision="ieee")
"""
SC5 = 'scores = tl.dot(dO, tl.trans(V), input_precision="ieee")'
IN5 = 'dQ += tl.exp(-s * (i + 1))[:, None] * tl.dot(dO, tl.trans(S), input_precision="ieee")'
ST5 = "tl.store(dq + row * D + d, dQ, mask=there)"
fam("5.5", Q5, [
    ("base", "right"),
    ("minus_infinity_before_exp", "right", MM, 'M = tl.exp(tl.where(distance >= 0, -s * distance, float("-inf")))', LE, 'left = tl.exp(tl.where(i < m, -s * (m - 1 - i), float("-inf")))'),
    ("where_around_infinite", "right", MM, "M = tl.where(distance >= 0, tl.exp(-s * distance), 0.0)", LE, "left = tl.where(t < T, tl.exp(-s * (m - 1 - i)), 0.0)"),
    ("state_transposed_in_registers", "right", SL, "S = tl.trans(tl.load(state + square))", "tl.trans(S)", "S", UP, 'S = tl.exp(-s * m) * S + tl.dot(tl.trans(V), K * left[:, None], input_precision="ieee")'),
    ("dout_decayed", "right", IN5, 'dQ += tl.dot(dO * tl.exp(-s * (i + 1))[:, None], tl.trans(S), input_precision="ieee")'),
    ("transposed_all", "right", SC5, 'scores = tl.trans(tl.dot(V, tl.trans(dO), input_precision="ieee"))', IN5, 'dQ += tl.trans(tl.dot(S, tl.trans(dO), input_precision="ieee") * tl.exp(-s * (i + 1))[None, :])'),
    ("while_loop", "right", FOR, "start = 0\n    while start < T:", UP, UP + "\n        start += BLOCK"),
    ("m_not_looked_at_last_state_unused", "right", MI, "m = BLOCK", LE, "left = tl.exp(-s * (BLOCK - 1 - i))"),
] + pick(MASKS, "above_diagonal_infinite_times_0 both_sides one_above_diagonal no_decay_in_M slope_base_2") + pick(UPDATE, "m_is_T_rest keys_m_minus_2 keys_decayed_as_queries state_decayed_m_minus_1 state_constant begins_with_state_of_head_0 begins_with_transposed_state state_in_bf16 new_keys_decayed_too state_stored_back") + pick(WALK, "blocks_backwards mask_inside_block last_token_lost time_before_head") + [
    ("state_not_transposed_reshaped", "wrong", "tl.trans(S)", "tl.reshape(S, (D_V, D))"),
    ("state_part_missing", "wrong", "        " + IN5 + "\n", ""),
    ("state_part_not_decayed", "wrong", "tl.exp(-s * (i + 1))[:, None] * ", ""),
    ("state_part_over_the_text", "wrong", "-s * (i + 1)", "-s * (t + 1)"),
    ("state_part_remaining_distance", "wrong", "-s * (i + 1)", "-s * tl.maximum(tl.minimum(T - start, BLOCK) - 1 - i, 0)"),
    ("state_read_after_the_update", "wrong", "        " + IN5 + "\n        " + ST5 + "\n", "", UP, UP + "\n        " + IN5 + "\n        " + ST5),
    ("M_transposed", "wrong", "scores * M", "scores * tl.trans(M)"),
    ("products_transposed", "wrong", "tl.dot(scores * M, K", "tl.dot(tl.trans(scores * M), K"),
    ("scores_of_v_and_dout", "wrong", "tl.dot(dO, tl.trans(V)", "tl.dot(V, tl.trans(dO)"),
    ("store_not_masked", "wrong", ST5, ST5.replace(", mask=there", "")),
    ("store_stride_D_v", "wrong", "dq + row * D +", "dq + row * D_V +"),
    ("added_to_dq", "wrong", "tl.store(", "tl.atomic_add("),
])
add("5.5", "token_by_token", "right", TOP + DEF5 + """    g = tl.program_id(0)
    d, e = tl.arange(0, D), tl.arange(0, D_V)
    decay = tl.exp(-tl.load(slopes + g))
    S = tl.load(state + g * D * D_V + d[:, None] * D_V + e[None, :])
    for t in range(T):
        row = g * T + t
        S = S * decay + tl.load(k + row * D + d)[:, None] * tl.load(v + row * D_V + e)[None, :]
        tl.store(dq + row * D + d, tl.sum(S * tl.load(dout + row * D_V + e)[None, :], 1))
""")

# ------------------------------------------------------------ 5.6
DEF6 = """@triton.jit
def dkv_kernel(
    q, k, v, dout, slopes, dend, dk, dv, dstate, T, D: tl.constexpr, D_V: tl.constexpr, BLOCK: tl.constexpr
):
"""
B6 = TOP + DEF6 + HEAD + """    dS = tl.load(dend + square)
    distance = i[None, :] - i[:, None]
    M = tl.where(distance >= 0, tl.exp(-s * tl.maximum(distance, 0)), 0.0)
    last = (T - 1) // BLOCK * BLOCK
    for back in range(0, T, BLOCK):
        start = last - back
        t = start + i
        there = (t < T)[:, None]
        row = (g * T + t)[:, None]
        Q = tl.load(q + row * D + d, mask=there, other=0.0)
        K = tl.load(k + row * D + d, mask=there, other=0.0)
        V = tl.load(v + row * D_V + e, mask=there, other=0.0)
        dO = tl.load(dout + row * D_V + e, mask=there, other=0.0)
        m = tl.minimum(T - start, BLOCK)
        left = tl.exp(-s * tl.maximum(m - 1 - i, 0))[:, None]
        vdo = tl.dot(V, tl.trans(dO), input_precision="ieee") * M
        kq = tl.dot(K, tl.trans(Q), input_precision="ieee") * M
        dK = tl.dot(vdo, Q, input_precision="ieee") + left * tl.dot(V, tl.trans(dS), input_precision="ieee")
        dV = tl.dot(kq, dO, input_precision="ieee") + left * tl.dot(K, dS, input_precision="ieee")
        tl.store(dk + row * D + d, dK, mask=there)
        tl.store(dv + row * D_V + e, dV, mask=there)
        since = tl.exp(-s * (i + 1))[:, None]
        dS = tl.exp(-s * m) * dS + tl.dot(tl.trans(Q * since), dO, input_precision="ieee")
    tl.store(dstate + square, dS)
"""
DS, LA, BK = "dS = tl.load(dend + square)", "last = (T - 1) // BLOCK * BLOCK", "start = last - back\n"
VDO, KQ = 'vdo = tl.dot(V, tl.trans(dO), input_precision="ieee") * M', 'kq = tl.dot(K, tl.trans(Q), input_precision="ieee") * M'
DK = 'dK = tl.dot(vdo, Q, input_precision="ieee") + left * tl.dot(V, tl.trans(dS), input_precision="ieee")'
DV = 'dV = tl.dot(kq, dO, input_precision="ieee") + left * tl.dot(K, dS, input_precision="ieee")'
SK, SV = "tl.store(dk + row * D + d, dK, mask=there)", "tl.store(dv + row * D_V + e, dV, mask=there)"
SI = "since = tl.exp(-s * (i + 1))[:, None]"
U6 = 'dS = tl.exp(-s * m) * dS + tl.dot(tl.trans(Q * since), dO, input_precision="ieee")'
E6 = "tl.store(dstate + square, dS)"
BLOCK6 = B6[B6.index("        vdo ="):B6.index("        since =")]
fam("5.6", B6, [
    ("base", "right"),
    ("minus_infinity_before_exp", "right", MM, 'M = tl.exp(tl.where(distance >= 0, -s * distance, float("-inf")))', "left = tl.exp(-s * tl.maximum(m - 1 - i, 0))", 'left = tl.exp(tl.where(i < m, -s * (m - 1 - i), float("-inf")))'),
    ("where_around_infinite", "right", MM, "M = tl.where(distance >= 0, tl.exp(-s * distance), 0.0)", "left = tl.exp(-s * tl.maximum(m - 1 - i, 0))", "left = tl.where(t < T, tl.exp(-s * (m - 1 - i)), 0.0)"),
    ("negative_steps", "right", "    " + LA + "\n", "", "for back in range(0, T, BLOCK):", "for start in range((T - 1) // BLOCK * BLOCK, -1, -BLOCK):", "        " + BK, ""),
    ("counted_blocks", "right", LA, "blocks = tl.cdiv(T, BLOCK)", "range(0, T, BLOCK)", "range(blocks)", BK, "start = (blocks - 1 - back) * BLOCK\n"),
    ("while_loop", "right", LA, "start = (T - 1) // BLOCK * BLOCK", "for back in range(0, T, BLOCK):", "while start >= 0:", "        " + BK, "", U6, U6 + "\n        start -= BLOCK"),
    ("forward_mask_transposed", "right", "distance = i[None, :] - i[:, None]", "distance = i[:, None] - i[None, :]", VDO, 'vdo = tl.trans(tl.dot(dO, tl.trans(V), input_precision="ieee") * M)', KQ, 'kq = tl.trans(tl.dot(Q, tl.trans(K), input_precision="ieee") * M)'),
    ("gradient_transposed_in_registers", "right", DS, "dS = tl.trans(tl.load(dend + square))", "tl.trans(dS)", "dS", "left * tl.dot(K, dS,", "left * tl.dot(K, tl.trans(dS),", U6, 'dS = tl.exp(-s * m) * dS + tl.dot(tl.trans(dO), Q * since, input_precision="ieee")', E6, "tl.store(dstate + square, tl.trans(dS))"),
    ("factors_decayed_first", "right", DK, 'dK = tl.dot(vdo, Q, input_precision="ieee") + tl.dot(left * V, tl.trans(dS), input_precision="ieee")', DV, 'dV = tl.dot(left * K, dS, input_precision="ieee") + tl.dot(kq, dO, input_precision="ieee")', U6, 'dS = tl.exp(-s * m) * dS + tl.dot(tl.trans(Q), since * dO, input_precision="ieee")'),
] + pick(MASKS, "above_diagonal_infinite_times_0 diagonal_left_out distance_minus_1 window_16 slope_of_head_0") + [
    ("m_is_block", "wrong", "m = tl.minimum(T - start, BLOCK)", "m = BLOCK"),
    ("m_is_block_for_the_tokens", "wrong", "m - 1 - i", "BLOCK - 1 - i"),
    ("m_is_block_for_the_gradient", "wrong", "tl.exp(-s * m)", "tl.exp(-s * BLOCK)"),
    ("m_is_rest", "wrong", "m = tl.minimum(T - start, BLOCK)", "m = T % BLOCK"),
    ("left_m_minus_j", "wrong", "m - 1 - i", "m - i"),
    ("left_by_position", "wrong", "left = tl.exp(-s * tl.maximum(m - 1 - i, 0))", "left = tl.exp(-s * (i + 1))"),
    ("left_missing_in_dk", "wrong", "+ left * tl.dot(V", "+ tl.dot(V"),
    ("since_i", "wrong", SI, "since = tl.exp(-s * i)[:, None]"),
    ("since_distance_to_end", "wrong", SI, "since = left"),
    ("gradient_not_decayed", "wrong", "tl.exp(-s * m) * dS", "dS"),
    ("gradient_replaced", "wrong", "dS = tl.exp(-s * m) * dS + ", "dS = "),
    ("gradient_from_k", "wrong", U6, 'dS = tl.exp(-s * m) * dS + tl.dot(tl.trans(K * since), dO, input_precision="ieee")'),
    ("begins_with_zeros", "wrong", DS, "dS = tl.zeros((D, D_V), dtype=tl.float32)"),
    ("updated_before_reading", "wrong", BLOCK6, "", U6, U6 + "\n" + BLOCK6.rstrip("\n")),
    ("state_part_of_dv_missing", "wrong", ' + left * tl.dot(K, dS, input_precision="ieee")', ""),
    ("dk_from_k", "wrong", "tl.dot(vdo, Q", "tl.dot(vdo, K"),
    ("vdo_and_kq_swapped", "wrong", "tl.dot(vdo, Q", "tl.dot(XX, Q", "tl.dot(kq, dO", "tl.dot(vdo, dO", "tl.dot(XX, Q", "tl.dot(kq, Q"),
    ("kq_not_transposed_order", "wrong", "tl.dot(K, tl.trans(Q)", "tl.dot(Q, tl.trans(K)"),
    ("mask_of_the_forward_pass", "wrong", "distance = i[None, :] - i[:, None]", "distance = i[:, None] - i[None, :]"),
    ("vdo_not_masked", "wrong", VDO, VDO.replace(" * M", "")),
    ("time_forwards", "wrong", BK, "start = back\n"),
    ("cut_from_the_end", "wrong", LA, "last = T - BLOCK", "there = (t < T)[:, None]", "there = ((t < T) & (t >= 0))[:, None]", "range(0, T, BLOCK)", "range(0, T // BLOCK * BLOCK, BLOCK)"),
    ("first_block_left_out", "wrong", "range(0, T, BLOCK)", "range(0, T - BLOCK, BLOCK)"),
    ("dstate_not_stored", "wrong", "    " + E6 + "\n", ""),
    ("dstate_before_first_block", "wrong", "    " + E6 + "\n", "", U6, E6 + "\n        " + U6),
    ("dstate_and_dend", "wrong", E6, E6 + "\n    tl.store(dend + square, dS)"),
    ("dstate_transposed", "wrong", E6, "tl.store(dstate + g * D * D_V + tl.arange(0, D)[:, None] + e * D, dS)"),
    ("dk_store_not_masked", "wrong", SK, SK.replace(", mask=there", "")),
    ("dv_stride_D", "wrong", "dv + row * D_V", "dv + row * D"),
    ("gradient_in_half", "wrong", U6, U6 + "\n        dS = dS.to(tl.float16).to(tl.float32)"),
])
add("5.6", "token_by_token", "right", TOP + DEF6 + """    g = tl.program_id(0)
    d, e = tl.arange(0, D), tl.arange(0, D_V)
    decay = tl.exp(-tl.load(slopes + g))
    at = g * D * D_V + d[:, None] * D_V + e[None, :]
    dS = tl.load(dend + at)
    for back in range(T):
        row = g * T + (T - 1 - back)
        query, do = tl.load(q + row * D + d), tl.load(dout + row * D_V + e)
        key, value = tl.load(k + row * D + d), tl.load(v + row * D_V + e)
        dS += query[:, None] * do[None, :]
        tl.store(dk + row * D + d, tl.sum(dS * value[None, :], 1))
        tl.store(dv + row * D_V + e, tl.sum(dS * key[:, None], 0))
        dS *= decay
    tl.store(dstate + at, dS)
""")
