"""Checks of chapter 02: the parts `attention` and `rope`, a step with a cache, and the bytes that a token costs.

B batch, T queries, S keys, H query heads, KV key/value heads, D head dim. What is right, and what a mistake would give,
is computed here in fp64.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from minim1.course.checking import Exercise, Probe
from minim1.course.checks.oracles import double
from minim1.model.softmax import rotary, softmax_attention

STALE = "A second call with inputs of the same shapes gives the result for those of the first: something was kept " \
        "between calls."
INVERTED = "`masked_fill` fills where its mask is True, so give it the keys that are NOT seen."


# Oracles


def causal(queries: int, keys: int, shift: int | None = None) -> Tensor:
    """(1, T, S) bool: query i sees the keys 0 to i + shift; by default the queries are the last T of S positions."""
    shift = keys - queries if shift is None else shift
    return torch.ones(1, queries, keys, dtype=torch.bool).tril(shift)


def shared(heads: int, kv_heads: int) -> list[int]:
    """The key/value head of each query head: h // (H/KV)."""
    return [head // (heads // kv_heads) for head in range(heads)]


def scores_of(q: Tensor, k: Tensor, reads: Sequence[int] | None = None) -> Tensor:
    """q . k / sqrt(D) in fp64, (B, H, T, S); `reads`: the key head of each query head."""
    q, k = double(q, k)
    reads = shared(q.shape[2], k.shape[2]) if reads is None else reads
    return torch.einsum("bihd,bjhd->bhij", q, k[:, :, reads]) / math.sqrt(q.shape[-1])


def softmax_where(scores: Tensor, seen: Tensor) -> Tensor:
    """Weights (B, H, T, S) that sum to 1 over the keys that are seen, (B or 1, T, S) bool; 0 in rows without any."""
    seen = seen.unsqueeze(1)
    scores = scores.masked_fill(~seen, -math.inf)
    top = scores.detach().amax(-1, keepdim=True).clamp(min=-1e300)
    exponentials = torch.exp(scores - top)
    total = exponentials.sum(-1, keepdim=True)
    return exponentials / torch.where(total > 0, total, 1.0)


def read(weights: Tensor, v: Tensor, reads: Sequence[int] | None = None) -> Tensor:
    """Sum of the values with these weights (B, H, T, S) -> (B, T, H, D)."""
    reads = shared(weights.shape[1], v.shape[2]) if reads is None else reads
    return torch.einsum("bhij,bjhd->bihd", weights, v.double()[:, :, reads])


def attended(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
    """Attention of q (B, T, H, D) to k, v (B, S, KV, D) in fp64, where `seen`; None: causal."""
    seen = causal(q.shape[1], k.shape[1]) if seen is None else seen
    return read(softmax_where(scores_of(q, k), seen), v)


def turned(x: Tensor, positions: Tensor, rotary_dim: int, theta: float) -> Tensor:
    """x (B, T, H, D) in fp64, each pair (i, i + r/2) turned by position * theta^(-2i/r)."""
    return turned_pairs(x, angles_of(positions, rotary_dim, theta), halves(rotary_dim))


def angles_of(positions: Tensor, rotary_dim: int, theta: float) -> Tensor:
    """(B, T, r/2): position times frequency."""
    return positions.double().unsqueeze(-1) * frequencies(rotary_dim, theta)


def frequencies(rotary_dim: int, theta: float) -> Tensor:
    """(r/2,): theta^(-2i/r)."""
    return torch.tensor([float(theta) ** (-2 * i / rotary_dim) for i in range(rotary_dim // 2)], dtype=torch.float64)


def halves(rotary_dim: int, start: int = 0) -> list[tuple[int, int]]:
    """The pairs (i, i + r/2)."""
    return [(start + i, start + i + rotary_dim // 2) for i in range(rotary_dim // 2)]


def turned_pairs(x: Tensor, angles: Tensor, pairs: Sequence[tuple[int, int]], matrix: Callable | None = None) -> Tensor:
    """x with each of the pairs turned by its angle (B, T, pairs); matrix(cos, sin): another one than a rotation's."""
    matrix = matrix or (lambda cos, sin: (cos, -sin, sin, cos))
    columns = list(x.double().unbind(-1))
    for number, (one, two) in enumerate(pairs):
        a, b, c, d = matrix(angles[..., number].cos().unsqueeze(-1), angles[..., number].sin().unsqueeze(-1))
        columns[one], columns[two] = a * columns[one] + b * columns[two], c * columns[one] + d * columns[two]
    return torch.stack(columns, -1)


# 2.1


def attention(probe: Probe) -> None:
    tokens = 2 * probe.size(3, 6) + 1
    q, k, v = probe.random(2, tokens, 6, 5), probe.random(2, tokens, 2, 5), probe.random(2, tokens, 2, 5)
    own = q[:, :, :3], k[:, :, :1].repeat(1, 1, 3, 1) + probe.random(2, tokens, 3, 5), probe.random(2, tokens, 3, 5)
    one_sees_nothing(probe, *own)
    compare(probe, f"{tokens} tokens, as many key heads", own, mistakes=plain_mistakes(*own) | group_mistakes(*own))
    compare(probe, f"{tokens} tokens, 6 heads share 2", (q, k, v), mistakes=group_mistakes(q, k, v))
    compare(probe, "all heads share one", (q, k[:, :, :1], v[:, :, :1]))
    probe.gradients(probe.call, {"q": q, "k": k, "v": v}, attended)
    in_float64(probe, q, k, v)
    later(probe, q, k, v)
    masked(probe, q, k, v)
    many(probe)
    nowhere(probe, q, k, v)
    large(probe)


def compare(probe: Probe, name: str, given: tuple, mask: Tensor | None = None, *, mistakes: dict | None = None,
            layer: str = "value", tolerance: float | None = None, why: str = "") -> None:
    """The function's output against the oracle's; `why`: what NaN most likely means here."""
    out = probe.call(*given) if mask is None else probe.call(*given, mask=mask)
    if why and isinstance(out, Tensor):
        probe.require(not out.isnan().any(), layer, why)
    probe.tensor(f"output ({name})", out, shape=given[0].shape, dtype=given[0].dtype, axes="BTHD")
    probe.close(f"output ({name})", out, attended(*given, mask), mistakes=mistakes, layer=layer, tolerance=tolerance)


def one_sees_nothing(probe: Probe, q: Tensor, k: Tensor, v: Tensor) -> None:
    """NaN for all queries, from 0 · (-inf), or for the last or the first alone, which a causal mask leaves no key."""
    out = probe.call(q, k, v)
    if not isinstance(out, Tensor) or out.shape != q.shape:
        return
    nan = out.isnan().transpose(0, 1).flatten(1).any(-1).nonzero().flatten().tolist()
    probe.require(len(nan) < q.shape[1], "value",
                  "Every query gives NaN, as when (1 - mask) is multiplied by -inf: 0 · (-inf) is NaN. Choose where "
                  "-inf goes with `masked_fill` or `torch.where`.")
    probe.require(nan != [q.shape[1] - 1], "value",
                  f"The last query alone gives NaN, as when each query sees the later keys only: {INVERTED}")
    probe.require(nan != [0], "value", "The first query alone gives NaN, as when it sees no key: a token sees itself, "
                                       "so the diagonal belongs to what it may see.")


def in_float64(probe: Probe, q: Tensor, k: Tensor, v: Tensor) -> None:
    given = tuple(double(q, k, v))
    out = probe.call(*given)
    probe.tensor("output (float64 inputs)", out, shape=q.shape, dtype=torch.float64, axes="BTHD")
    if rough(out, attended(*given), 1e-9):
        sums = probe.call(*given[:2], torch.ones_like(given[2]))
        probe.require((sums > 1 - 1e-12).any(), "property",
                      "The weights of each row sum to a little less than 1, as when a small number is added to what "
                      "they are divided by: divide by their sum alone, and treat rows whose sum is 0 apart.")
        probe.require(False, "property",
                      "For float64 inputs the result is right in its first digits only, as when something on the way "
                      "is float32: compute in the dtype of q.")
    probe.close("output (float64 inputs)", out, attended(*given), layer="property")


def rough(value: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Whether only the first digits are right."""
    return tolerance < (value.detach().double() - expected).abs().max() / expected.abs().max() < 1e-2


def plain_mistakes(q: Tensor, k: Tensor, v: Tensor) -> dict[str, Callable]:
    """As many key heads as query heads, causal."""
    tokens, heads, dim = q.shape[1:]
    seen, scores = causal(tokens, tokens), scores_of(q, k)
    late = "query i may look at the keys 0 to i: set the scores above the diagonal to -inf before the softmax."

    def weighted(weights: Callable | Tensor) -> Callable:
        return lambda: read(weights() if callable(weights) else weights, v)

    def scaled(factor: float) -> Callable:
        return lambda: read(softmax_where(scores * math.sqrt(dim) * factor, seen), v)

    sizes = {"the number of tokens": tokens, "the number of heads": heads, "H·D": heads * dim, "the batch": q.shape[0]}
    triangle = seen.unsqueeze(1)
    mixes = "which mixes tokens and heads: transpose (`.transpose(1, 2)`)."

    def regrouped() -> Tensor:
        reshaped = [x.reshape(len(x), heads, tokens, dim).transpose(1, 2) for x in (q, k, v)]
        return attended(*reshaped).transpose(1, 2)

    return {
        "The scores are not scaled: divide q·k by sqrt(D), D being q.shape[-1].": scaled(1.0),
        "The scores are divided by D: divide by its square root.": scaled(1 / dim),
        "The scores are multiplied by sqrt(D): divide by it.": scaled(math.sqrt(dim)),
        "The scores are divided by sqrt(D) twice, that is by D: once is enough.": scaled(1 / dim),
        **{f"The scores are divided by the square root of {name}: it is that of D, the size of a head, "
           f"q.shape[-1].": scaled(size**-0.5) for name, size in sizes.items()},
        f"Every query sees all keys, later ones too: {late}":
            weighted(lambda: softmax_where(scores, torch.ones_like(seen))),
        f"Every query sees one key too many: {late}":
            weighted(lambda: softmax_where(scores, causal(tokens, tokens, 1))),
        f"Time runs backwards, each query sees itself and the keys after it: {late}":
            weighted(lambda: softmax_where(scores, seen.mT)),
        "A token does not see itself: the diagonal belongs to what it may see.":
            weighted(lambda: softmax_where(scores, causal(tokens, tokens, -1))),
        "The weights of later keys are set to 0 after the softmax, so that the others do not sum to 1: set their "
        "scores to -inf before it.": weighted(lambda: scores.softmax(-1) * triangle),
        "The scores of later keys are set to 0, and exp(0) = 1 is a weight like any other: set them to -inf.":
            weighted(lambda: (scores * triangle).softmax(-1)),
        "The mask is added to the scores as 0 and 1: the scores of later keys must be -inf.":
            weighted(lambda: (scores + triangle).softmax(-1)),
        f"The mask is turned round, each query sees only what comes after it: {INVERTED}":
            weighted(lambda: softmax_where(scores, ~seen)),
        f"The causal mask is turned round, each query sees the later tokens only: {INVERTED}":
            weighted(lambda: scores.masked_fill(triangle, -1e300).softmax(-1)),
        "There is no softmax: a row's weights are exp(score) over the sum of exp(score).":
            weighted(lambda: scores * triangle),
        "The weights are exp(score), but not divided by their sum: a row's weights sum to 1.":
            weighted(lambda: scores.exp() * triangle),
        "The scores are divided by their sum without exp: a row's weights are exp(score) over the sum of exp(score).":
            weighted(lambda: scores * triangle / (scores * triangle).sum(-1, keepdim=True)),
        "The softmax runs over the queries: it belongs on the last axis of (B, H, T, S), the keys.":
            weighted(lambda: scores.masked_fill(~triangle, -math.inf).softmax(-2)),
        "The softmax runs over the heads: it belongs on the last axis of (B, H, T, S), the keys.":
            weighted(lambda: (scores.masked_fill(~triangle, -1e300)).softmax(1) * triangle),
        "Queries and keys have changed places: row i of the scores belongs to q_i, column j to k_j.":
            weighted(lambda: softmax_where(scores.mT, seen)),
        "Each token gets its own value, weighted: output i is the sum of v_j over j, with the weights of row i.":
            lambda: torch.einsum("bhij,bihd->bihd", softmax_where(scores, seen), v.double()),
        "The weights are applied transposed: output i is the sum of v_j with the weights of row i.":
            weighted(lambda: softmax_where(scores, seen).mT),
        "The keys are summed where the values should be: output i is the sum of v_j.":
            lambda: read(softmax_where(scores, seen), k),
        "The result was (B, H, T, D) and was reshaped to (B, T, H, D), which mixes tokens and heads: transpose it "
        "(`.transpose(1, 2)`).":
            lambda: attended(q, k, v).transpose(1, 2).reshape(q.shape),
        f"q, k and v were reshaped to (B, H, T, D), {mixes}": lambda: regrouped().transpose(1, 2),
        f"q, k and v were reshaped to (B, H, T, D), and the result back, {mixes}": lambda: regrouped().reshape(q.shape),
        "All queries get the mean of what they may see: the scores have no influence.":
            weighted(lambda: softmax_where(0 * scores, seen)),
        "Every query sees itself alone: the output is v.": lambda: v.double(),
    }


def group_mistakes(q: Tensor, k: Tensor, v: Tensor) -> dict[str, Callable]:
    """Fewer key heads than query heads."""
    heads, kv_heads = q.shape[2], k.shape[2]
    group, seen = heads // kv_heads, causal(q.shape[1], k.shape[1])
    rule = f"query head h reads key head h // (H/KV), here {shared(heads, kv_heads)}"

    def reading(keys: Sequence[int], values: Sequence[int] | None = None) -> Callable:
        values = keys if values is None else values
        return lambda: read(softmax_where(scores_of(q, k, keys), seen), v, values)

    turns = [head % kv_heads for head in range(heads)]
    right = shared(heads, kv_heads)
    return {
        f"The key heads take turns, {turns}: {rule}; `repeat` lines up copies of the whole, `repeat_interleave` "
        "repeats each head.": reading(turns),
        f"The keys are right but the value heads take turns, {turns}: {rule}, and the values the same.":
            reading(right, turns),
        f"The value heads are right but the key heads take turns, {turns}: {rule}.": reading(turns, right),
        f"Every query head reads key head 0: {rule}.": reading([0] * heads),
        f"Every query head reads the last key head: {rule}.": reading([kv_heads - 1] * heads),
        f"The key heads are in reverse: {rule}.": reading(right[::-1]),
        f"The group has the wrong size, KV = {kv_heads} where H/KV = {group} belongs: {rule}.":
            reading([min(head // kv_heads, kv_heads - 1) for head in range(heads)]),
    }


def later(probe: Probe, q: Tensor, k: Tensor, v: Tensor) -> None:
    """Fewer queries than keys: the queries are the last ones."""
    tokens = k.shape[1]
    queries = tokens // 2
    given, every = (q[:, -queries:], k, v), torch.ones(1, queries, tokens, dtype=torch.bool)
    rule = f"with T = {queries} queries and S = {tokens} keys query i sees the keys 0 to i + S - T"
    nothing = f"NaN where there are more keys than queries: {rule}, so that each sees at least one."
    compare(probe, f"the last {queries} of {tokens} positions", given, layer="property", why=nothing, mistakes={
        f"The queries are taken for the first T positions, not the last: {rule}; `tril(S - T)` moves the diagonal.":
            lambda: attended(*given, causal(queries, tokens, 0)),
        f"Each query sees every key, later ones too: {rule}.": lambda: attended(*given, every),
        f"Each query sees one key too many: {rule}.":
            lambda: attended(*given, causal(queries, tokens, tokens - queries + 1)),
        f"Each query sees one key too few: {rule}.":
            lambda: attended(*given, causal(queries, tokens, tokens - queries - 1)),
        f"Only the last T keys are read: {rule}.":
            lambda: attended(given[0], k[:, -queries:], v[:, -queries:]),
    })
    one = q[:, -1:], k, v
    blind = nothing.replace(str(queries), "1", 1)
    compare(probe, f"one query, {tokens} keys", one, layer="property", why=blind, mistakes={
        "A single query sees key 0 alone: it is the last of the S positions, and sees all of them.":
            lambda: attended(*one, causal(1, tokens, 0)),
        "A single query sees the last key alone: it is the last of the S positions, and sees all of them.":
            lambda: attended(one[0], k[:, -1:], v[:, -1:]),
        "A single query does not see the last key: it is the last of the S positions, and sees its own too.":
            lambda: attended(*one, causal(1, tokens, tokens - 2)),
    })
    compare(probe, "one query, one key", tuple(x[:, :1] for x in (q, k, v)), layer="property")


def masked(probe: Probe, q: Tensor, k: Tensor, v: Tensor) -> None:
    """Any mask, in which every query sees something."""
    tokens = q.shape[1]
    mask = some_mask(probe, 2, tokens, tokens)
    both = mask & causal(tokens, tokens)
    name = "with a mask"
    compare(probe, name, (q, k, v), mask, layer="property", mistakes=mask_mistakes(q, k, v, mask, both),
            why="NaN with a mask although each query may see a key: either later keys are masked as well (with a mask "
                "nothing else is), or the mask is multiplied by -inf, and 0 · (-inf) is NaN: use `masked_fill`.")
    other = mask.flip(0)
    compare(probe, "with another mask", (q, k, v), other, layer="property", mistakes={
        STALE: lambda: attended(q, k, v, mask)})
    compare(probe, "with a mask, fewer queries", (q[:, -3:], k, v), other[:, -3:], layer="property",
            mistakes=mask_mistakes(q[:, -3:], k, v, other[:, -3:], other[:, -3:] & causal(3, tokens)))
    compare(probe, "with a mask, one query", (q[:, -1:], k, v), mask[:, -1:], layer="property",
            mistakes=mask_mistakes(q[:, -1:], k, v, mask[:, -1:], mask[:, -1:]))
    probe.gradients(lambda q, k, v: probe.call(q, k, v, mask=mask), {"q": q, "k": k, "v": v},
                    lambda q, k, v: attended(q, k, v, mask))


def many(probe: Probe) -> None:
    """More tokens than any window or block that one might think of here."""
    q, k, v = probe.random(1, 150, 2, 4), probe.random(1, 150, 1, 4), probe.random(1, 150, 1, 4)
    narrow = {f"Each query reads the last {window} tokens alone: it may look at all before it.": (
        lambda window=window: attended(q, k, v, causal(150, 150) & causal(150, 150, -window).logical_not()))
        for window in (8, 16, 32, 64, 128)}
    compare(probe, "150 tokens", (q, k, v), layer="property", mistakes=narrow)


def some_mask(probe: Probe, rows: int, queries: int, keys: int) -> Tensor:
    """(B, T, S) bool, about half True, at least one in each row, and not the same for any two batch rows."""
    mask = probe.random(rows, queries, keys) > 0
    for row in range(rows):
        mask[row, :, row] |= ~mask[row].any(-1)
    mask[:, -1] = torch.arange(keys) % 2 == torch.arange(rows).view(-1, 1) % 2
    return mask


def mask_mistakes(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, both: Tensor) -> dict[str, Callable]:
    scores = scores_of(q, k)
    shown = mask.unsqueeze(1)
    return {
        "The mask is ignored where there is one: where it is False the weight must be 0.": lambda: attended(q, k, v),
        "The mask is ignored, and every key is seen: where it is False the weight must be 0.":
            lambda: attended(q, k, v, torch.ones_like(mask)),
        "The mask is turned round: True is where a query MAY look.": lambda: attended(q, k, v, ~mask),
        "The mask and the causal order are combined: with a mask nothing else is asked, the caller has thought of the "
        "order.": lambda: attended(q, k, v, both),
        **({"The mask is transposed: mask[b, i, j] is about query i and key j.": lambda: attended(q, k, v, mask.mT)}
           if mask.shape[1] == mask.shape[2] else {}),
        "All rows of the batch use the mask of row 0: mask[b] belongs to row b.":
            lambda: attended(q, k, v, mask[:1].expand_as(mask)),
        "The weights are set to 0 after the softmax, so that the others do not sum to 1: mask the scores, with -inf, "
        "before it.": lambda: read(scores.softmax(-1) * shown, v),
        "The scores are multiplied by the mask: where it is False they become 0, and exp(0) = 1 is a weight like any "
        "other; set them to -inf.": lambda: read((scores * shown).softmax(-1), v),
        "The mask is added to the scores as 0 and 1: where it is False the score must be -inf.":
            lambda: read((scores + shown.double()).softmax(-1), v),
    }


def nowhere(probe: Probe, q: Tensor, k: Tensor, v: Tensor) -> None:
    """Queries that may look nowhere."""
    mask = causal(q.shape[1], k.shape[1]).repeat(len(q), 1, 1)
    mask[0, :2], mask[1, -1] = False, False
    empty = ~mask.any(-1)
    means = v.double().mean(1, keepdim=True)[:, :, shared(q.shape[2], v.shape[2])].expand(q.shape)
    filled = torch.where(empty[:, :, None, None], means, attended(q, k, v, mask))
    compare(probe, "three queries see nothing", (q, k, v), mask, layer="edge case", why=(
        "A query that may look nowhere gives NaN, as the softmax of a row of -inf does, 0/0. Set the weights of such a "
        "row to 0 (the output is too late, the gradient of v meets the NaN in the weights), or mask with a large "
        "negative number and multiply the weights by the mask."
    ), mistakes={
        "A query that may look nowhere gets the mean of all values: with one large negative score everywhere the "
        "softmax is even; set the weights, or the output, of such a row to 0.": filled,
        "A query that may look nowhere gets the mean of the values in causal order: it must get 0.":
            lambda: torch.where(empty[:, :, None, None], attended(q, k, v), attended(q, k, v, mask)),
    })
    single = torch.zeros(2, 1, k.shape[1], dtype=torch.bool)
    single[1, 0, :2] = True
    compare(probe, "one query sees nothing", (q[:, -1:], k, v), single, layer="edge case",
            why="A single query (T = 1) that may look nowhere gives NaN: it must get 0.")
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    out = probe.call(*leaves, mask=mask)
    probe.require(isinstance(out, Tensor) and out.requires_grad, "gradient", "No gradient flows where a mask is given.")
    found = probe.backward(lambda: torch.autograd.grad(out.sum(), leaves, allow_unused=True))
    bad = [name for name, x in zip("qkv", found) if x is not None and not x.isfinite().all()]
    probe.require(bad != ["v"], "gradient", (
        "The output is right, but the gradient of v is NaN where a query may look nowhere: it is made of the weights, "
        "and those of such a row are NaN, as the softmax of a row of -inf is; set the weights to 0, not the output."
    ))
    probe.require(not bad, "gradient", (
        f"The output is right, but the gradient of {', '.join(bad)} is NaN where a query may look nowhere: "
        "something on the way is NaN there, such as 0/0 or the softmax of a row of -inf, and the way back still goes "
        "through it; make none, as with a large negative number instead of -inf, or fill the scores with "
        "`masked_fill`, whose gradient is 0 where it fills, and set the weights to 0."
    ))
    probe.gradients(lambda q, k, v: probe.call(q, k, v, mask=mask), {"q": q, "k": k, "v": v},
                    lambda q, k, v: attended(q, k, v, mask))


def large(probe: Probe) -> None:
    """Scores of several hundred."""
    q, k, v = probe.random(1, 6, 2, 4), probe.random(1, 6, 1, 4), probe.random(1, 6, 1, 4)
    why = "NaN where scores are {}: exp overflows beyond 88 and is 0 below -104; subtract first the largest score " \
          "that the query may see, as `torch.softmax` of masked scores does."
    big = 200 * q / scores_of(q, k).abs().max().float(), 2 * k, v
    compare(probe, "scores up to 400", big, layer="edge case", tolerance=1e-3, why=why.format("several hundred"),
            mistakes=another_largest(*big))
    q[..., 0], k[..., 0] = 40.0, -20.0  # each score falls by 400: the weights are as they were
    compare(probe, "scores near -400", (q, k, v), layer="edge case", tolerance=1e-3, why=why.format("near -400"),
            mistakes=not_low_enough(q, k, v, causal(6, 6)))
    last = q, torch.cat([k[:, :-1], -k[:, -1:]], 1), v
    compare(probe, "scores near -400, to the last key near 400", last, layer="edge case", tolerance=1e-3,
            why=why.format("near -400"), mistakes=another_largest(*last))
    mask = torch.ones(1, 6, 6, dtype=torch.bool).triu()
    compare(probe, "scores near -400, with a mask", (q, k, v), mask, layer="edge case", tolerance=1e-3,
            why=why.format("near -400"), mistakes=not_low_enough(q, k, v, mask))


def another_largest(q: Tensor, k: Tensor, v: Tensor) -> dict[str, Callable]:
    """What it gives in fp32 to subtract a score before exp that a query does not see."""
    scores, seen = scores_of(q, k).float(), causal(q.shape[1], k.shape[1])

    def after(largest: Tensor) -> Tensor:
        exponentials = (scores - largest).exp() * seen
        return read((exponentials / exponentials.sum(-1, keepdim=True).clamp(min=1e-30)).double(), v)

    return {f"The largest score of {which} is subtracted: beside it all that a query sees may be so low that each exp "
            "is 0; take the largest of the keys that the query may see.": lambda largest=largest: after(largest)
            for which, largest in (("all keys, seen or not,", scores.amax(-1, keepdim=True)),
                                   ("the whole tensor", scores.max()))}


def not_low_enough(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> dict[str, Callable]:
    """What a number such as -100 in the place of -inf would give, where other scores are lower still."""
    seen, scores = seen.unsqueeze(1), scores_of(q, k).masked_fill(~seen.unsqueeze(1), -100.0)
    sentence = "Where a query may not look, the score is not low enough: other scores fall to -400; use -inf, or " \
               "`torch.finfo(q.dtype).min`."
    return {sentence: lambda: read(scores.softmax(-1), v), sentence + " ": lambda: read(scores.softmax(-1) * seen, v)}


# 2.2


def rope(probe: Probe) -> None:
    tokens = probe.size(4, 7)
    x, positions = probe.random(2, tokens, 3, 10), some_positions(probe, 2, tokens)
    given = x, positions, 6, 10.0
    compare_turned(probe, "6 of 10 dims", *given, mistakes=rope_mistakes(*given))
    compare_turned(probe, "all 10 dims, base 10,000", x, positions, 10, 10_000)
    compare_turned(probe, "2 of 10 dims", x, positions, 2, 10_000.0)
    probe.gradients(lambda x: turn(probe, x, *given[1:]), {"x": x}, lambda x: turned(x, *given[1:]))
    others = positions.flip(0)
    compare_turned(probe, "other positions", x, others, 6, 10.0, layer="property",
                   mistakes={STALE: lambda: turned(*given)})
    compare_turned(probe, "another base", x, positions, 6, 1e7, layer="property", mistakes={
        "The base is always the same one: use `theta`.": lambda: turned(x, positions, 6, 10_000.0),
        STALE: lambda: turned(*given)})
    precise(probe, x)
    compare_turned(probe, "position 0", x, torch.zeros_like(positions), 6, 10.0, layer="edge case", mistakes={
        "At position 0 nothing turns: cos 0 = 1, sin 0 = 0.": lambda: turned(x, torch.ones_like(positions), 6, 10.0)})
    compare_turned(probe, "one token", x[:, :1], positions[:, -1:], 6, 100.0, layer="edge case", mistakes={
        "A single token is turned as if it stood at position 0: when decoding, its position is given by `positions`.":
            x[:, :1].double()})
    compare_turned(probe, "rotary_dim 0", x, positions, 0, 100.0, layer="edge case", mistakes={
        "With rotary_dim 0 nothing is turned: x comes back as it is.": lambda: turned(x, positions, 10, 100.0)})


def turn(probe: Probe, x: Tensor, positions: Tensor, rotary_dim: int, theta: float):
    return probe.call(x, positions, rotary_dim=rotary_dim, theta=theta)


def some_positions(probe: Probe, rows: int, tokens: int) -> Tensor:
    """(B, T) integers from 1 to about 40: each row its own, neither sorted nor evenly spaced."""
    steps = [torch.tensor([probe.size(1, 9) for _ in range(tokens)]).cumsum(0) for _ in range(rows)]
    return torch.stack([steps[0], *(s.flip(0) for s in steps[1:])])


def compare_turned(probe: Probe, name: str, x: Tensor, positions: Tensor, rotary_dim: int, theta: float, *,
                   mistakes: dict | None = None, layer: str = "value", tolerance: float | None = None) -> None:
    out = turn(probe, x, positions, rotary_dim, theta)
    probe.require(not lost_rest(out, x, rotary_dim), "shape",
                  f"Only the {rotary_dim} turned dims come back: put the rest, x[..., rotary_dim:], behind them.")
    probe.tensor(f"output ({name})", out, shape=x.shape, dtype=x.dtype, axes="BTHD")
    probe.close(f"output ({name})", out, turned(x, positions, rotary_dim, theta), mistakes=mistakes, layer=layer,
                tolerance=tolerance)


def lost_rest(out: object, x: Tensor, rotary_dim: int) -> bool:
    """Whether only the turned dims came back."""
    return isinstance(out, Tensor) and out.shape != x.shape and out.shape == x[..., :rotary_dim].shape


def precise(probe: Probe, x: Tensor) -> None:
    """Angles in fp64 for fp64, in fp32 for bf16."""
    far = torch.tensor([[3001 + 7 * t for t in range(x.shape[1])], [5 * t + 2048 for t in range(x.shape[1])]])
    for dtype, tolerance, sentence in (
        (torch.float64, 1e-8, "For float64 inputs the result is right in its first digits only, as when the angles are "
         "computed in float32, which at position 3,000 is wrong from the fourth decimal on: make positions and "
         "exponents float64 when x is."),
        (torch.bfloat16, 3e-2, "For bf16 inputs the result is off at position 3,000, as when angles are computed in "
         "bf16, which has 8 significant bits: compute positions times frequencies in float32, and go back to bf16 "
         "at the end."),
    ):
        given = x.to(dtype), far, 6, 100.0
        out, expected = turn(probe, *given), turned(*given)
        probe.tensor(f"output ({str(dtype).split('.')[1]})", out, shape=x.shape, dtype=dtype, axes="BTHD")
        off = not torch.allclose(out.detach().double(), expected, atol=tolerance * expected.abs().max(), rtol=0)
        told = off if dtype == torch.bfloat16 else rough(out, expected, tolerance)
        probe.require(not told, "property", sentence)
        probe.close(f"output ({str(dtype).split('.')[1]}, position 3,000)", out, expected, layer="property",
                    tolerance=tolerance)


def rope_mistakes(x: Tensor, positions: Tensor, rotary_dim: int, theta: float) -> dict[str, Callable]:
    dim, half, tokens = x.shape[-1], rotary_dim // 2, x.shape[1]
    angles, pairs = angles_of(positions, rotary_dim, theta), halves(rotary_dim)
    frequency = frequencies(rotary_dim, theta)
    i = torch.arange(half, dtype=torch.float64)
    neighbours = [(2 * n, 2 * n + 1) for n in range(half)]

    def made(angles: Tensor = angles, pairs: Sequence = pairs, matrix: Callable | None = None) -> Callable:
        return lambda: turned_pairs(x, angles, pairs, matrix)

    def at(places: Tensor) -> Callable:
        return made(places.double().unsqueeze(-1) * frequency)

    def with_frequencies(values: Tensor) -> Callable:
        return made(positions.double().unsqueeze(-1) * values)

    def laid_out(order: Sequence[int]) -> Callable:
        return lambda: turned(x, positions, rotary_dim, theta)[..., [*order, *range(rotary_dim, dim)]]

    def with_rest(rest: Tensor) -> Callable:
        return lambda: torch.cat([turned(x, positions, rotary_dim, theta)[..., :rotary_dim], rest.double()], -1)

    counted = torch.arange(tokens).expand_as(positions)
    right = f"the frequency of pair i is theta^(-2i/r) with r = rotary_dim, here {_list(frequency)}"
    turn_right = "(a, b) becomes (a cos - b sin, a sin + b cos)"
    return {
        f"The pairs are neighbours, {neighbours}: here they are (i, i + r/2), {pairs}.": made(pairs=neighbours),
        f"The pairs are neighbours, {neighbours}, and the result holds first the first of each: the pairs are (i, i + "
        f"r/2), {pairs}.": lambda: turned_pairs(x, angles, neighbours)[
            ..., [*range(0, rotary_dim, 2), *range(1, rotary_dim, 2), *range(rotary_dim, dim)]],
        f"The pairs are (i, i + D/2): they are (i, i + r/2), {pairs}.":
            made(pairs=[(n, n + dim // 2) for n in range(half)]),
        f"The pairs are mirrored, (i, r-1-i): they are (i, i + r/2), {pairs}.":
            made(pairs=[(n, rotary_dim - 1 - n) for n in range(half)]),
        f"The pairs are turned the wrong way round: {turn_right}.": made(-angles),
        f"A sign is wrong: {turn_right}; yours has (a cos + b sin, a sin + b cos).":
            made(matrix=lambda cos, sin: (cos, sin, sin, cos)),
        f"A sign is wrong: {turn_right}; yours has (a cos - b sin, b cos - a sin).":
            made(matrix=lambda cos, sin: (cos, -sin, -sin, cos)),
        f"A sign is wrong: {turn_right}; yours has (a cos - b sin, a sin - b cos).":
            made(matrix=lambda cos, sin: (cos, -sin, sin, -cos)),
        f"cos and sin have changed places: {turn_right}.": made(matrix=lambda cos, sin: (sin, -cos, cos, sin)),
        f"Only cos is applied: {turn_right}.": made(matrix=lambda cos, sin: (cos, 0 * sin, 0 * sin, cos)),
        f"The second half is made from the first one's new values: {turn_right}, both from the old a and b.":
            made(matrix=lambda cos, sin: (cos, -sin, sin * cos, cos - sin * sin)),
        f"The two halves of the result have changed places: {turn_right}.":
            laid_out([*range(half, rotary_dim), *range(half)]),
        "The turned numbers are interleaved: the first half of the result holds the first of each pair, the second "
        "half the second.": laid_out([n // 2 + half * (n % 2) for n in range(rotary_dim)]),
        f"The exponent lacks its 2: {right}.": with_frequencies(theta ** (-i / rotary_dim)),
        f"The exponent is twice too large: {right}.": with_frequencies(theta ** (-4 * i / rotary_dim)),
        f"The frequencies are those of all D dims: {right}.": with_frequencies(theta ** (-2 * i / dim)),
        f"The exponent is positive: {right}.": with_frequencies(theta ** (2 * i / rotary_dim)),
        f"The pairs are counted from 1: {right}, i from 0.": with_frequencies(theta ** (-2 * (i + 1) / rotary_dim)),
        f"The frequencies run backwards: {right}.": with_frequencies(frequency.flip(0)),
        f"All pairs turn alike: {right}.": with_frequencies(torch.ones_like(frequency)),
        f"The frequencies fall evenly: {right}.": with_frequencies(1 / (1 + i)),
        f"There is a factor 2π: {right}, and angles are in radians.": with_frequencies(2 * math.pi * frequency),
        f"The exponents run from 0 to 1 in even steps: the last is (r-2)/r; {right}.":
            with_frequencies(theta ** -torch.linspace(0, 1, half, dtype=torch.float64)),
        f"The angles are taken for degrees: {right}, and angles are in radians.":
            with_frequencies(frequency * math.pi / 180),
        f"The base is 10,000 whatever `theta` is: {right}.": with_frequencies(10_000.0 ** (-2 * i / rotary_dim)),
        f"The frequencies are exp(-2i/r): the base is theta, {right}.":
            with_frequencies(torch.exp(-2 * i / rotary_dim)),
        "Positions are counted from 0 here: use `positions`, which may begin anywhere and differ between rows.":
            at(counted),
        "Positions are counted from 1 here: use `positions`, which may begin anywhere and differ between rows.":
            at(counted + 1),
        "Each position is one too large: `positions` counts from 0, take it as it is.": at(positions + 1),
        "Each position is one too small: take `positions` as it is.": at(positions - 1),
        "Positions are counted from the first one of each row: take `positions` as it is.":
            at(positions - positions[:, :1]),
        "All rows of the batch use the positions of row 0: positions[b] belongs to row b.":
            at(positions[:1].expand_as(positions)),
        "The angle grows with the head instead of the token: all heads of a token are turned by its position.":
            lambda: _by_head(x, rotary_dim, theta),
        f"All dims are turned: only the first rotary_dim = {rotary_dim} are, the rest passes.":
            lambda: turned(x, positions, dim, theta),
        f"The last rotary_dim = {rotary_dim} dims are turned: it is the first ones.":
            made(pairs=halves(rotary_dim, dim - rotary_dim)),
        "The rest comes first in the result: it comes last, where it was.":
            lambda: turned(x, positions, rotary_dim, theta).roll(dim - rotary_dim, -1),
        "The rest is 0: dimensions from rotary_dim on pass as they are.":
            with_rest(torch.zeros_like(x[..., rotary_dim:])),
        "The rest is not the last dims of x: dimensions from rotary_dim on pass as they are.":
            with_rest(x[..., : dim - rotary_dim]),
        "Nothing is turned: the output is x.": x.double(),
        "The angles themselves are added to x: each pair is turned, as by a 2 × 2 matrix.":
            lambda: torch.cat([
                x[..., :rotary_dim] + angles.repeat(1, 1, 2).unsqueeze(2), x[..., rotary_dim:].double()], -1),
    }


def _by_head(x: Tensor, rotary_dim: int, theta: float) -> Tensor:
    heads = torch.arange(x.shape[2]).expand(x.shape[0], -1)
    return turned(x.transpose(1, 2), heads, rotary_dim, theta).transpose(1, 2)


def _list(numbers: Tensor) -> str:
    return "[" + ", ".join(f"{x:.4g}" for x in numbers.tolist()) + "]"


# 2.3


def cache_step(probe: Probe) -> None:
    tokens = probe.size(4, 8)
    q, k, v = probe.random(2, tokens, 6, 5), probe.random(2, tokens, 2, 5), probe.random(2, tokens, 2, 5)
    new, before = [x[:, -1:] for x in (q, k, v)], (k[:, :-1], v[:, :-1])
    stepped(probe, f"{tokens - 1} tokens so far", new, before, mistakes=True)
    probe.gradients(lambda q, k, v, keys, values: probe.call(q, k, v, keys, values),
                    dict(zip(("q", "k", "v", "keys", "values"), (*new, *before))), _step)
    stepped(probe, "from the same cache again", [x.flip(0) for x in new], before, layer="property")
    stepped(probe, "float64 inputs", double(*new), tuple(double(*before)), layer="property")
    stepped(probe, "one head of keys for each query head", [probe.random(1, 1, 3, 4) for _ in range(3)],
            (probe.random(1, 3, 3, 4), probe.random(1, 3, 3, 4)), layer="property")
    stepped(probe, "150 tokens so far", [probe.random(1, 1, n, 4) for n in (2, 1, 1)],
            (probe.random(1, 150, 1, 4), probe.random(1, 150, 1, 4)), layer="property")
    stepped(probe, "nothing so far", [x[:, :1] for x in (q, k, v)], (k[:, :0], v[:, :0]), layer="edge case")
    keys, values, outs = k[:, :0], v[:, :0], []
    for t in range(tokens):
        out, keys, values = _results(probe, [x[:, t : t + 1] for x in (q, k, v)], (keys, values))
        outs.append(out)
    probe.close(f"{tokens} steps in a row", torch.cat(outs, 1), attended(q, k, v), layer="property")


def _step(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    keys, values = torch.cat([keys.double(), k.double()], 1), torch.cat([values.double(), v.double()], 1)
    return attended(q, keys, values), keys, values


def _results(probe: Probe, new: Sequence[Tensor], before: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    (q, k, v), grown = new, (k_shape := new[1].shape)[:1] + (before[0].shape[1] + 1,) + k_shape[2:]
    found = probe.pair(probe.call(*new, *before), ("out", "keys", "values"), [q.shape, grown, grown])
    for name, x, old, token in zip(("keys", "values"), found[1:], before, (k, v)):
        short = isinstance(x, Tensor) and x.shape == old.shape
        probe.require(not (short and torch.equal(x, old)), "shape",
                      f"`{name}` comes back as it came in: return it with the new token at its end.")
        probe.require(not (short and torch.equal(x, torch.cat([old, token], 1)[:, 1:])), "shape",
                      f"The oldest token has left `{name}`: all of them stay.")
        copies = isinstance(x, Tensor) and x.shape == grown[:2] + q.shape[2:] != grown
        probe.require(not copies, "shape", f"`{name}` has {q.shape[2]} heads, expected {grown[2]}: the cache keeps the "
                                           "key/value heads, no copies for each query head.")
    cache = "B", "S + 1", "KV", "D"
    for name, x, shape, axes in zip(("output", "cache of keys", "cache of values"), found, (q.shape, grown, grown),
                                    (("B", "1", "H", "D"), cache, cache)):
        probe.tensor(name, x, shape=shape, dtype=q.dtype, axes=axes)
    return tuple(found)


def stepped(probe: Probe, name: str, new: Sequence[Tensor], before: tuple[Tensor, Tensor], *, mistakes: bool = False,
            layer: str = "value") -> None:
    out, keys, values = _results(probe, new, before)
    expected = _step(*new, *before)
    wrong = step_mistakes(*new, *before) if mistakes else ({}, {}, {})
    for what, x, right, told in zip(("cache of keys", "cache of values", "output"), (keys, values, out),
                                    (expected[1], expected[2], expected[0]), wrong):
        probe.close(f"{what} ({name})", x, right, mistakes=told, layer=layer)


def step_mistakes(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> tuple[dict, dict, dict]:
    """What mistakes would give for keys, values and output."""
    q, k, v, keys, values = double(q, k, v, keys, values)
    length, zero = keys.shape[1], torch.zeros_like(k)

    def grown(name: str, old: Tensor, new: Tensor, other: Tensor, other_new: Tensor) -> dict[str, Callable]:
        return {
            f"The new token stands first in `{name}`: the newest one comes last.": lambda: torch.cat([new, old], 1),
            "`keys` and `values` have changed places: end with `return out, keys, values`.":
                lambda: torch.cat([other, other_new], 1),
            f"The new token enters `{name}` with the other one's numbers: k belongs to keys, v to values.":
                lambda: torch.cat([old, other_new], 1),
            f"The last token of before was written over in `{name}`: all of them stay, the new one comes after them.":
                lambda: torch.cat([old[:, :-1], new, new], 1),
            f"`{name}` grew by a token of zeros: the new one has a key and a value.": lambda: torch.cat([old, zero], 1),
            f"The last token of before is repeated in `{name}`: the new one belongs there.":
                lambda: torch.cat([old, old[:, -1:]], 1),
            f"The new token is added to the others of `{name}`: it stands beside them, at the end.":
                lambda: torch.cat([old + new, new], 1),
        }

    full = torch.cat([keys, k], 1), torch.cat([values, v], 1)
    return grown("keys", keys, k, values, v), grown("values", values, v, keys, k), {
        "The new token does not see itself: its own key and value belong to what it reads.":
            lambda: attended(q, keys, values),
        "The new token sees itself alone: it reads all S + 1 tokens.": lambda: attended(q, k, v),
        "The new query sees key 0 alone: it is the last of the S + 1 positions, and sees all of them.":
            lambda: attended(q, *full, causal(1, length + 1, 0)),
        "The scores of the new query are not scaled: divide by sqrt(D).":
            lambda: attended(q * q.shape[-1] ** 0.5, *full),
        "The key heads take turns: query head h reads key head h // (H/KV).": lambda: read(
            softmax_where(scores_of(q, full[0], [h % k.shape[2] for h in range(q.shape[2])]), causal(1, length + 1)),
            full[1], [h % k.shape[2] for h in range(q.shape[2])]),
        "Keys and values have changed places in the attention: scores are made with keys, the sum with values.":
            lambda: attended(q, full[1], full[0]),
        "The keys are summed where the values should be: call attention(q, keys, values).":
            lambda: attended(q, full[0], full[0]),
        "The values are summed, not averaged by weights: the weights of the S + 1 tokens sum to 1.":
            lambda: read(scores_of(q, full[0]), full[1]),
    }


# 2.4


def bytes_per_token(probe: Probe) -> None:
    layers = [int(x > 0) for x in probe.random(12)] + [0, 0, 0, 0, 1, 1, 1]  # 19: no half, no eighth are softmax
    heads, dim = probe.size(4, 7), 2 * probe.size(3, 6) + 1
    compare_bytes(probe, "3 bytes a number", layers, heads, dim, 3)
    compare_bytes(probe, "M1 in bf16", ([0] * 7 + [1]) * 10, 8, 128, 2)
    compare_bytes(probe, "one byte a number", layers, 3, 16, 1)
    compare_bytes(probe, "layers in a tuple", tuple(layers), heads, dim, 4, layer="edge case")
    compare_bytes(probe, "softmax layers alone", [1] * 5, 3, 16, 2, layer="edge case")
    compare_bytes(probe, "lightning layers alone", [0] * 5, 3, 16, 2, layer="edge case")


def compare_bytes(probe: Probe, name: str, layers: Sequence[int], heads: int, dim: int, size: int, *,
                  layer: str = "value") -> None:
    softmax, every = sum(layers), len(layers)
    right = softmax * 2 * heads * dim * size
    before = list(layers)
    value = probe.call(layers, heads, dim, size)
    probe.require(list(layers) == before, "property", "bytes_per_token changed attn_type_list; whoever called it still "
                                                      "needs it: work on a copy.")
    kind = type(value)
    probe.require(not hasattr(value, "item"), "type", f"bytes_per_token returned a {kind.__module__}.{kind.__name__}, "
                                                      "expected a Python int: `int(...)` makes one of it.")
    empty = {} if softmax else {"Without a softmax layer a token leaves nothing: 0.": value}
    probe.equal(f"bytes ({name})", value, right, layer=layer, mistakes=empty | {
        "Half of it is missing: a token leaves a key and a value.": right // 2,
        "It is twice too much: a key and a value, each once.": 2 * right,
        f"All {every} layers are counted: only the {softmax} with a 1 keep keys and values.":
            every * 2 * heads * dim * size,
        f"All {every} layers are counted, and keys or values alone: only the {softmax} with a 1 keep both.":
            every * heads * dim * size,
        f"The lightning layers are counted: 1 marks softmax attention, here {softmax} layers.":
            (every - softmax) * 2 * heads * dim * size,
        f"An eighth of the layers is counted: here {softmax} of {every} have a 1, count those.":
            every // 8 * 2 * heads * dim * size,
        "One layer only is counted: each softmax layer has a cache of its own.": 2 * heads * dim * size,
        "The bytes of a number are missing: this counts numbers.": softmax * 2 * heads * dim,
        "The numbers have 2 bytes whatever is asked: use bytes_per_number.": softmax * 2 * heads * dim * 2,
        "These are bits: bytes_per_number is given in bytes already.": 8 * right,
        "This is divided by 8: bytes_per_number is given in bytes already.": right // 8,
        "The heads are missing: each key/value head keeps a key and a value of its own.": softmax * 2 * dim * size,
        "head_dim is missing: a key has head_dim numbers.": softmax * 2 * heads * size,
        "head_dim counts twice: a key has head_dim numbers.": softmax * 2 * heads * dim * dim * size,
        "The state of the lightning layers is counted: a token adds nothing to it.":
            right + (every - softmax) * heads * dim * dim * size,
    })
    whole = not isinstance(value, (float, bool))
    probe.require(whole, "type", f"bytes_per_token returned {value}, a {type(value).__name__}; expected an int.")


# What stands in for a learner's function


def _cache_step_reference(q, k, v, keys, values):
    keys, values = torch.cat([keys, k], dim=1), torch.cat([values, v], dim=1)
    return softmax_attention(q, keys, values), keys, values


def _bytes_reference(attn_type_list, num_key_value_heads, head_dim, bytes_per_number):
    return sum(attn_type_list) * 2 * num_key_value_heads * head_dim * bytes_per_number


EXERCISES = (
    Exercise("2.1", "attention", "Causal attention", attention, lambda: softmax_attention, points=(1, 2),
             part="attention"),
    Exercise("2.2", "rope", "Partial RoPE", rope, lambda: rotary, points=(1, 2), part="rope"),
    Exercise("2.3", "cache_step", "One step with a cache", cache_step, lambda: _cache_step_reference),
    Exercise("2.4", "bytes_per_token", "Bytes per token", bytes_per_token, lambda: _bytes_reference),
)
