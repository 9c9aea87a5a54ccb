"""Checks of chapter 04: blocks, the carried state, the part `lightning`, and pieces that are joined afterwards.

B batch, T time, H heads, D head dim. What a mistake would give is computed in fp64, by the oracles and by `blocked`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from minim1.course.checking import Exercise, Probe, compare
from minim1.course.checks import oracles
from minim1.model.lightning import lightning_attention

BLOCKS = (64, 16, 32, 128, 256)  # block lengths that a learner is likely to have chosen
ALONG_HEADS = "The decay runs along the wrong axis: there is one slope for each head, so bring it to shape (H, 1, 1) " \
              "before it multiplies a state (B, H, D, D_v)."

OPPOSITE = "The heads have one another's slopes: slopes[h] belongs to head h."
SCALED = "The output is divided by sqrt(D): lightning attention has no scale."
STALE = "A second call with other slopes gives the result for those of the first: something was kept between calls."
EXTREME = torch.tensor([4.0, 0.01, 0.0])  # slopes that overflow, hardly decay, and do not


def decays(slopes: Tensor, exponents: Tensor) -> Tensor:
    """(T, H): exp(-s e) for each exponent e."""
    return torch.exp(-exponents.double().view(-1, 1) * slopes.double())


def other_decays(slopes: Tensor) -> dict[str, Tensor]:
    """Sentence -> (H,), what might be taken for the decay of one token."""
    slopes = slopes.double()
    return {f"The decay has the wrong base: per token it is exp(-slope), yours is {name}.": decay for name, decay in (
        ("2^(-slope)", 2**-slopes), ("1 - slope", 1 - slopes), ("the slope itself", slopes))}


def in_float64(probe: Probe, given: tuple, oracle: Callable, *, name: str = "output", axes: str | None = None) -> None:
    """The same inputs in fp64 must give fp64; its last digits are not asked for."""
    given, expected = [x.double() for x in given], oracle(*(x.double() for x in given))
    value = probe.tensor(f"{name} for float64 inputs", probe.call(*given), shape=expected.shape, dtype=torch.float64,
                         axes=axes)
    probe.close(f"{name} in float64", value, expected, axes=axes, layer="property", tolerance=2e-5)


# 4.1


def intra_block(probe: Probe) -> None:
    m = 2 * probe.size(2, 4) + 1
    q, k, v, slopes = probe.random(2, m, 3, 4), probe.random(2, m, 3, 4), probe.random(2, m, 3, 6), probe.slopes(3)
    out = probe.call(q, k, v, slopes)
    probe.tensor("output", out, shape=(2, m, 3, 6), dtype=q.dtype)
    probe.close(f"output of {m} tokens", out, oracles.intra(q, k, v, slopes), mistakes=intra_mistakes(q, k, v, slopes))
    one = [x[:, :1] for x in (q, k, v)]
    probe.close("output of 1 token", probe.call(*one, slopes), oracles.intra(*one, slopes))
    probe.gradients(
        lambda q, k, v: probe.call(q, k, v, slopes), {"q": q, "k": k, "v": v},
        lambda q, k, v: oracles.intra(q, k, v, slopes),
    )
    in_float64(probe, (q, k, v, slopes), oracles.intra)
    again(probe, (q, k, v), slopes, oracles.intra)
    long = [probe.random(1, 131, 3, 4) for _ in range(3)]
    fast = torch.tensor([4.0, 0.01, 0.0])
    out = probe.call(*long, fast)
    probe.require(
        out.isfinite().all(), "edge case",
        "A block of 131 tokens with slope 4 gives NaN or infinite numbers: exp(-s (i - j)) overflows where j > i, and "
        "0 times "
        "infinity is NaN; clamp i - j at 0 before the exponential, and mask afterwards.",
    )
    probe.close("output of 131 tokens (slope 4)", out, oracles.intra(*long, fast), layer="edge case")


def again(probe: Probe, given: tuple, slopes: Tensor, oracle: Callable, *, axes: str | None = None) -> None:
    """The same shapes with other slopes: nothing may be left over from the first call."""
    other = slopes.flip(0)
    probe.close(
        "result of a second call with other slopes", probe.call(*given, other), oracle(*given, other), axes=axes,
        layer="property", mistakes={STALE: lambda: oracle(*given, slopes)},
    )


def intra_mistakes(q: Tensor, k: Tensor, v: Tensor, slopes: Tensor) -> dict[str, Callable]:
    q, k, v = oracles.double(q, k, v)
    m, dim = q.shape[1], q.shape[-1]
    time = torch.arange(m)
    distance = time.view(-1, 1) - time
    slope = slopes.double().view(-1, 1, 1)
    causal = oracles.pair_weights(slopes, m)
    scores = torch.einsum("bihd,bjhd->bhij", q, k)

    def weighted(weights: Tensor, scores: Tensor = scores) -> Callable:
        return lambda: torch.einsum("bhij,bjhe->bihe", scores * weights, v)

    later = "the sum ends at j = i, where j > i the weight must be 0: cut off what is above the diagonal with tril."
    return {
        f"Tokens see later tokens too, with weights above 1: {later}": weighted(torch.exp(-slope * distance)),
        f"Tokens see later tokens too, with weight 1: {later}": weighted(torch.exp(-slope * distance.clamp(min=0))),
        f"Tokens see later tokens too, decayed like earlier ones: "
        f"{later}": weighted(torch.exp(-slope * distance.abs())),
        f"Each token sees the next one too: {later}": weighted(causal + (distance == -1)),
        "A token does not see itself: the diagonal belongs to the sum, its weight is decay^0 = 1.":
            weighted(causal * (distance > 0)),
        "Every weight has one factor of decay too many: the distance of a token to itself is 0, its weight is 1.":
            weighted(causal * torch.exp(-slope)),
        "There is no decay: the weight of token j at token i is exp(-s (i - j)), yours is 1.":
            weighted((distance >= 0).double()),
        "The weights grow with distance: the exponent is -s (i - j), with a minus.": weighted(
            torch.where(distance >= 0, torch.exp(slope * distance), 0)),
        "The scores are divided by sqrt(D): lightning attention has no scale.": weighted(causal / dim**0.5),
        "There is a softmax: lightning attention multiplies q.k by the decay and has neither softmax nor denominator.":
            weighted(1, scores.masked_fill(distance < 0, float("-inf")).softmax(-1)),
        "There is a softmax over the decayed scores: lightning attention has neither softmax nor denominator.":
            weighted(1, (scores * causal).softmax(-1)),
        "There is a softmax before the decay: lightning attention has neither softmax nor denominator.":
            weighted(causal, scores.masked_fill(distance < 0, float("-inf")).softmax(-1)),
        "There is a softmax over all tokens before the decay: lightning attention has no softmax.":
            weighted(causal, scores.softmax(-1)),
        "The output is divided by the sum of the weights: lightning attention has no denominator.":
            weighted(causal / causal.sum(-1, keepdim=True)),
        "The output is divided by the sum of the decayed scores: lightning attention has no denominator.":
            weighted(causal / torch.einsum("bhij,hij->bhi", scores, causal).unsqueeze(-1)),
        "Queries and keys have changed places: row i of the scores belongs to q_i, column j to k_j.":
            weighted(causal, scores.transpose(-1, -2)),
        "Your sum runs over i; it must run over j: output i is the sum of v_j with the weights of row i.":
            lambda: torch.einsum("bhij,bihe->bjhe", scores * causal, v),
        "The sum over j does not reach v: output i is the sum of v_j, yours is v_i times the sum of its weights.":
            lambda: torch.einsum("bhij,bihe->bihe", scores * causal, v),
        "Time runs backwards: token i must see the tokens before it, yours sees those after it.":
            weighted(causal.transpose(-1, -2)),
        "Time runs backwards: token i must see the tokens before it, yours sees those after it, all with weight 1.":
            weighted((distance <= 0).double()),
        "All heads decay with the first head's slope: head h has its own, slopes[h].": weighted(causal[:1]),
        OPPOSITE: weighted(causal.flip(0)),
        **{sentence: weighted(torch.where(distance >= 0, decay.view(-1, 1, 1) ** distance.clamp(min=0), 0))
           for sentence, decay in other_decays(slopes).items()},
    }


# 4.2


def inter_block(probe: Probe) -> None:
    m = 2 * probe.size(2, 4) + 1
    q, state, slopes = probe.random(2, m, 3, 4), probe.random(2, 3, 4, 6), probe.slopes(3)
    out = probe.call(q, state, slopes)
    probe.tensor("output", out, shape=(2, m, 3, 6), dtype=q.dtype)
    probe.close(f"output of {m} tokens", out, oracles.inter(q, state, slopes),
                mistakes=inter_mistakes(q, state, slopes))
    square = probe.random(2, 3, 4, 4)
    probe.close("output for D_v = D_k", probe.call(q, square, slopes), oracles.inter(q, square, slopes), mistakes={
        "The state is transposed: its rows belong to q and k, its columns to v, so the output is q @ state.":
            lambda: oracles.inter(q, square.transpose(-1, -2), slopes),
    })
    probe.gradients(
        lambda q, state: probe.call(q, state, slopes), {"q": q, "state": state},
        lambda q, state: oracles.inter(q, state, slopes),
    )
    in_float64(probe, (q, state, slopes), oracles.inter)
    one = q[:, :1]
    probe.close("output of 1 token", probe.call(one, state, slopes), oracles.inter(one, state, slopes),
                layer="edge case")
    again(probe, (q, state), slopes, oracles.inter)
    long = probe.random(2, 192, 3, 4)
    probe.close("output of 192 tokens (slopes 4, 0.01, 0)", probe.call(long, state, EXTREME),
                oracles.inter(long, state, EXTREME), layer="edge case")


def inter_mistakes(q: Tensor, state: Tensor, slopes: Tensor) -> dict[str, Callable]:
    time, m, dim = torch.arange(q.shape[1]), q.shape[1], q.shape[-1]

    def weighted(weights: Tensor) -> Callable:
        return lambda: torch.einsum("bihd,ih,bhde->bihe", q.double(), weights, state.double())

    right = oracles.since_start(slopes, m)
    return {
        "The state is read as if it belonged to the first token: its weight at token i, counted from 0, is "
        "decay^(i+1), yours is "
        "decay^i.": weighted(decays(slopes, time)),
        "The state decays once too often: its weight at token i, counted from 0, is decay^(i+1), yours is decay^(i+2).":
            weighted(decays(slopes, time + 2)),
        "The state does not decay while the block is read: its weight at token i is decay^(i+1), yours is 1.":
            weighted(torch.ones_like(right)),
        "Every token reads the state with the same weight: at token i it is decay^(i+1), yours is that of a whole "
        "block, decay^m.":
            weighted(decays(slopes, torch.full((m,), m))),
        "Every token reads the state with the same weight decay^1: at token i it is decay^(i+1).":
            weighted(decays(slopes, torch.ones(m))),
        "The decays run backwards: the first token is the nearest to the state and has the largest weight, decay^1; "
        "the last has "
        "decay^m.": weighted(right.flip(0)),
        "The decays run backwards, and are those of the keys, decay^(m-1-j): a query at token i needs decay^(i+1).":
            weighted(decays(slopes, m - 1 - time)),
        "The weights grow: the exponent is -s (i + 1), with a minus.": weighted(1 / right),
        SCALED: weighted(right / dim**0.5),
        "All heads decay with the first head's slope: head h has its own, "
        "slopes[h].": weighted(right[:, :1].expand_as(right)),
        OPPOSITE: weighted(right.flip(1)),
        "The decays were made as (H, m) and reshaped to (m, H), which mixes tokens and heads: transpose them instead.":
            weighted(right.T.reshape(right.shape)),
        "The state was reshaped where it should be transposed, or not be touched at all: its rows belong to q, its "
        "columns to v.":
            lambda: oracles.inter(q, state.mT.reshape(state.shape), slopes),
        **{sentence: weighted(decay ** (time.view(-1, 1) + 1)) for sentence, decay in other_decays(slopes).items()},
        "Every decay is applied twice: only q (or only the result) is multiplied by decay^(i+1), not both.":
            weighted(right**2),
    }


# 4.3


def update_state(probe: Probe) -> None:
    m = 2 * probe.size(2, 4) + 1
    k, v, slopes = probe.random(2, m, 3, 4), probe.random(2, m, 3, 3), probe.slopes(3, low=0.02)
    state = probe.random(2, 3, 4, 3)  # D_v = H: a decay along the wrong axis would broadcast without a word
    after = probe.call(k, v, state, slopes)
    probe.tensor("state", after, shape=(2, 3, 4, 3), dtype=k.dtype, axes="BHDE")
    probe.close(
        f"state after {m} tokens", after, oracles.carried(k, v, state, slopes), axes="BHDE",
        mistakes=state_mistakes(k, v, state, slopes),
    )
    one = k[:, :1], v[:, :1], state, slopes
    probe.close("state after 1 token", probe.call(*one), oracles.carried(*one), axes="BHDE")
    zero = torch.zeros_like(state)
    probe.close("state from zero", probe.call(k, v, zero, slopes), oracles.carried(k, v, zero, slopes), axes="BHDE")
    probe.gradients(
        lambda k, v, state: probe.call(k, v, state, slopes), {"k": k, "v": v, "state": state},
        lambda k, v, state: oracles.carried(k, v, state, slopes),
    )
    in_float64(probe, (k, v, state, slopes), oracles.carried, name="state", axes="BHDE")
    again(probe, (k, v, state), slopes, oracles.carried, axes="BHDE")
    long = probe.random(2, 192, 3, 4), probe.random(2, 192, 3, 3), state, EXTREME
    after = probe.call(*long)
    probe.require(
        after.isfinite().all(), "edge case",
        "After a block of 192 tokens with slope 4 the state has NaN or infinite numbers: exp(s j) overflows, and a "
        "quotient of two powers that are both 0 is NaN; take the exponential of the difference, -s (m - 1 - j), which "
        "is never above 0.",
    )
    probe.close("state after 192 tokens (slopes 4, 0.01, 0)", after, oracles.carried(*long), axes="BHDE",
                layer="edge case", mistakes=state_mistakes(*long))
    cut = m // 2
    halves = probe.call(k[:, cut:], v[:, cut:], probe.call(k[:, :cut], v[:, :cut], state, slopes), slopes)
    probe.close(f"state after {cut} + {m - cut} tokens", halves, oracles.carried(k, v, state, slopes), axes="BHDE",
                layer="property")


def state_mistakes(k: Tensor, v: Tensor, state: Tensor, slopes: Tensor) -> dict[str, Callable]:
    k, v, state = oracles.double(k, v, state)
    m, time = k.shape[1], torch.arange(k.shape[1])
    right = decays(slopes, m - 1 - time)

    def made(weights: Tensor = right, keep: Tensor | None = None, old: Tensor = state) -> Callable:
        kept = torch.exp(-slopes.double() * m).view(-1, 1, 1) if keep is None else keep
        return lambda: kept * old + torch.einsum("bjhd,jh,bjhe->bhde", k, weights, v)

    def power(exponent: float) -> Tensor:
        return torch.exp(-slopes.double() * exponent).view(-1, 1, 1)

    newest = "The newest key is already decayed: the weight of token j is decay^(m-1-j), which is 1 for the last " \
             "token, yours is decay^(m-j)."
    return {
        "The state is carried along without decay: m tokens later it is worth decay^m of what it was.":
            made(keep=power(0)),
        "The state decays by one token only: after a block of m tokens it is worth decay^m.": made(keep=power(1)),
        "The state decays by m - 1 tokens: a block of m tokens makes it decay^m.": made(keep=power(m - 1)),
        "The state decays by m + 1 tokens: a block of m tokens makes it decay^m.": made(keep=power(m + 1)),
        "The state of before is lost: the new state is decay^m times the old one, plus what this block adds.":
            made(keep=power(0) * 0),
        "The state is kept as it was: what this block adds, the sum of decay^(m-1-j) k_j v_j^T, is "
        "missing.": made(right * 0),
        newest: made(decays(slopes, m - time)),
        "The keys' decays run backwards: the last token of the block is the nearest and has weight 1, the first has "
        "decay^(m-1).":
            made(right.flip(0)),
        "The keys do not decay: by the end of the block token j is worth decay^(m-1-j), yours 1.": made(right**0),
        "The keys are weighted by decay^(j+1), which belongs to the queries: at the end of the block token j is worth "
        "decay^(m-1-j).":
            made(decays(slopes, time + 1)),
        "The decay is applied to k and to v: once is enough, k_j v_j^T must be worth decay^(m-1-j).": made(right**2),
        "Old state and new keys are decayed together by decay^m: what this block adds is not a whole block old.":
            made(right * decays(slopes, torch.full((m,), m))),
        "The weights grow: every exponent is -s times a number of tokens, with a minus.": made(1 / right, 1 / power(m)),
        "The keys' weights grow: the exponent is -s (m - 1 - j), with a minus.": made(1 / right),
        "The keys of all heads decay with the first head's slope: head h has its own, "
        "slopes[h].": made(right[:, :1].expand_as(right)),
        ALONG_HEADS: made(keep=torch.exp(-slopes.double() * m)),
        OPPOSITE: made(right.flip(1), power(m).flip(0)),
        "The keys decay with other heads' slopes: slopes[h] belongs to head h.": made(right.flip(1)),
        "The old state decays with other heads' slopes: slopes[h] belongs to head h.": made(keep=power(m).flip(0)),
        "What is added is divided by sqrt(D): lightning attention has no scale.": made(right / k.shape[-1] ** 0.5),
        "What is added is divided by m: the state is a sum, not a mean.": made(right / m),
        "All heads decay with the first head's slope: head h has its own, "
        "slopes[h].": made(right[:, :1].expand_as(right), power(m)[:1]),
        **{sentence: made(*weights) for axis, size in ((0, k.shape[0]), (2, k.shape[2])) for sentence, weights in {
            f"The number of tokens is taken from the wrong axis: m is k.shape[1], yours is k.shape[{axis}] = {size}.":
                (decays(slopes, size - 1 - time), power(size)),
            f"The state decays by k.shape[{axis}] = {size} tokens: m is the length of this block, k.shape[1].":
                (right, power(size)),
        }.items()},
        **{sentence: made(decay ** (m - 1 - time).view(-1, 1), decay.view(-1, 1, 1) ** m)
           for sentence, decay in other_decays(slopes).items()},
        **{sentence: made(*weights) for block in BLOCKS for sentence, weights in {
            f"The keys are decayed as in a block of {block} tokens: of a table for full blocks, a block of m tokens "
            f"needs the last m entries.": (decays(slopes, block - 1 - time),),
            f"The state decays by {block} tokens: m is the length of this block, k.shape[1].": (right, power(block)),
            f"Keys and state are decayed as in a block of {block} tokens: m is the length of this block, k.shape[1].":
                (decays(slopes, block - 1 - time), power(block)),
        }.items()},
    }


# 4.4


def blocked(
    q: Tensor, k: Tensor, v: Tensor, slopes: Tensor, state: Tensor | None, block: int, *,
    read: Callable | None = lambda i, m: i + 1, write: Callable = lambda j, m: m - 1 - j, keep: Callable = lambda m: m,
    early: bool = False, forget: bool = False, detach: str = "",
) -> tuple[Tensor, Tensor]:
    """The block form in fp64 with exponents of one's own: right with these defaults, a chosen mistake with others.

    read(i, m), write(j, m), keep(m): exponents of the decay for queries, keys and state in a block of m tokens;
    read None: the state is not read. early: it is read after the update. forget: it holds the newest block alone.
    detach: "read" or "carried", where gradients stop.
    """
    state = oracles.zero_state(k, v) if state is None else state.double()
    q, k, v = oracles.double(q, k, v)
    outs = []
    for start in range(0, q.shape[1], block):
        q_, k_, v_ = (x[:, start : start + block] for x in (q, k, v))
        m = q_.shape[1]
        time = torch.arange(m)
        after = torch.einsum("bjhd,jh,bjhe->bhde", k_, decays(slopes, write(time, m)), v_)
        if not forget:
            after = after + torch.exp(-slopes.double() * keep(m)).view(-1, 1, 1) * state
        out = oracles.intra(q_, k_, v_, slopes)
        if read is not None:
            seen = after if early else state
            out = out + torch.einsum("bihd,ih,bhde->bihe", q_, decays(slopes, read(time, m)),
                                     seen.detach() if detach == "read" else seen)
        outs.append(out)
        state = after.detach() if detach == "carried" else after
    return torch.cat(outs, 1), state


def block_mistakes(which: int, given: tuple, blocks: tuple[int, ...], head: str = "") -> dict[str, Callable]:
    """Sentence -> output (which = 0) or state (1) of the block form with that mistake, for some block lengths."""
    length, found = given[0].shape[1], {}
    for block in blocks:
        size, last = (block, block - 1) if block < length else ("m", "m-1")
        weight = f"At token i of a block of {size}, counted from 0, its weight is decay^(i+1), yours is"
        enters = f"At the end of a block of {size} tokens token j, counted from 0, is worth decay^({last}-j)."
        short = f"the last block, shorter than {block} tokens, is treated as if it were full: "
        kinds = {
            f"the carried state was not decayed. After a block of {size} tokens decay^{size} of it is left.":
                dict(keep=lambda m: 0),
            f"the carried state decays by one token per block. After a block of {size} tokens it is worth "
            f"decay^{size}.":
                dict(keep=lambda m: 1),
            f"the carried state decays by one token too few. After a block of {size} tokens it is worth decay^{size}.":
                dict(keep=lambda m: m - 1),
            f"the carried state decays by one token too many. After a block of {size} tokens it is worth "
            f"decay^{size}.":
                dict(keep=lambda m: m + 1),
            f"the blocks, of {size} tokens each, do not know of one another. Hand the state on from block to block, "
            f"and add what it says to each block's own output.":
                dict(read=None),
            f"the state holds the newest block of {size} tokens alone. Add decay^{size} times the state of "
            f"before.": dict(forget=True),
            f"the state is updated before it is read. A block of {size} tokens reads the state that the blocks before "
            f"it left.":
                dict(early=True),
            f"the state is read one decay too strong. {weight} decay^i.": dict(read=lambda i, m: i),
            f"the state is read without decay. {weight} 1.": dict(read=lambda i, m: 0 * i),
            f"keys enter the state with one decay too many. {enters}": dict(write=lambda j, m: m - j),
            f"keys enter the state without decay. {enters}": dict(write=lambda j, m: 0 * j),
            f"keys enter the state with their decays in reverse. {enters}": dict(write=lambda j, m: j),
            short + "its keys are decayed too much. Its m is its own "
                    "length.": dict(write=lambda j, m, block=block: block - 1 - j),
            short + "the old state is decayed too much. Its m is its own "
                    "length.": dict(keep=lambda m, block=block: block),
            short + "keys and old state are decayed too much. Its m is its own length.":
                dict(write=lambda j, m, block=block: block - 1 - j, keep=lambda m, block=block: block),
        }
        for what, options in kinds.items():
            sentence = head + what if head else what[0].upper() + what[1:]
            found[sentence] = lambda options=options, block=block: blocked(*given, block, **options)[which]
        if which == 1 and length % block and length > block:
            full = length // block * block
            found[f"The last {length - full} tokens do not fill a block of {block} and are missing from the state."] = \
                lambda block=block, full=full: blocked(*(x[:, :full] for x in given[:3]), *given[3:], block)[1]
    return found


def first_difference(value: Tensor, expected: Tensor) -> int:
    """The first position in time at which two (B, T, H, D) tensors differ by more than rounding; 0 if nowhere."""
    wrong = ((value.double() - expected).abs() > 2e-5 * expected.abs().max()).any(-1).any(-1).any(0)
    return int(wrong.to(torch.uint8).argmax())


def likely_blocks(length: int, first: int = 0) -> tuple[int, ...]:
    """Block lengths to explain a mistake with; `first`: where an output differs, since the state is first read, or
    first carried on, at the second or third block."""
    return tuple(dict.fromkeys(b for b in (first, first // 2, length, *BLOCKS) if b > 0))


def lightning(probe: Probe) -> None:
    slopes = probe.slopes(3, low=0.004)
    compare_rows(probe, "5 tokens", (*inputs(probe, 5), slopes, None))
    length = 130 + probe.size(3, 60)
    long = (*inputs(probe, length), slopes, None)
    compare_rows(probe, f"{length} tokens", long)
    compare_rows(probe, "768 tokens from a state", (*inputs(probe, 768, batch=1), slopes, probe.random(1, 3, 4, 6)))
    gradients(probe)
    pieces(probe, long)
    documents(probe, slopes)
    document_gradients(probe)
    edges(probe, slopes)


def inputs(probe: Probe, length: int, batch: int = 2, heads: int = 3) -> list[Tensor]:
    """q, k (B, T, H, 4) and v (B, T, H, 6)."""
    return [probe.random(batch, length, heads, size) for size in (4, 4, 6)]


def called(probe: Probe, given: tuple, document_ids: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The learner's out and state, with their types and shapes checked."""
    q, k, v, slopes, state = given
    documents = {} if document_ids is None else {"document_ids": document_ids}
    value = probe.call(q, k, v, slopes, **({} if state is None else {"state": state}), **documents)
    shapes = (*q.shape[:3], v.shape[3]), (q.shape[0], *q.shape[2:], v.shape[3])
    out, end = probe.pair(value, ("out", "state"), shapes)
    probe.tensor("output", out, shape=shapes[0], dtype=q.dtype)
    probe.tensor("state", end, shape=shapes[1], dtype=q.dtype, axes="BHDE")
    return out, end


def compare_rows(probe: Probe, name: str, given: tuple, *, layer: str = "value") -> None:
    """Output and state against the sum over pairs."""
    out, end = called(probe, given)
    expected, expected_end = oracles.attention(*given)
    state, length = given[4], out.shape[1]
    flipped = (*given[:3], given[3].flip(0), state)
    wrong_ends = {OPPOSITE: lambda: oracles.attention(*flipped)[1]}
    mistakes = {OPPOSITE: lambda: oracles.attention(*flipped)[0], SCALED: expected / given[0].shape[3] ** 0.5}
    if state is not None:
        nothing = oracles.attention(*given[:4], None)
        mistakes["The incoming state is ignored: the first block starts from `state`, not from zero."] = nothing[0]
        wrong_ends["The returned state lacks the incoming one: it enters with decay^T."] = nothing[1]
    first = first_difference(out, expected)
    head = f"The first {first} positions are right, and then the error jumps: " if first > 1 else ""
    if first:
        mistakes["The outputs are right up to the last full block, and then 0: the last block may be shorter than the "
                 "others."] = \
            torch.where(torch.arange(length).view(1, -1, 1, 1) < first, expected, 0.0)
    mistakes |= block_mistakes(0, given, likely_blocks(length, first), head)
    probe.close(f"output of {name}", out, expected, mistakes=mistakes, layer=layer)
    wrong_ends["The returned state is the incoming one: it must hold what the tokens of this call have added."] = \
        oracles.zero_state(given[1], given[2]) if state is None else state.double()
    wrong_ends |= block_mistakes(1, given, likely_blocks(length))
    probe.close(f"state after {name}", end, expected_end, mistakes=wrong_ends, axes="BHDE", layer=layer)


def gradients(probe: Probe) -> None:
    length, slopes = 128 + probe.size(1, 9), probe.slopes(2, low=0.004)
    q, k, v = inputs(probe, length, batch=1, heads=2)
    state = probe.random(1, 2, 4, 6)
    probe.gradients(
        lambda q, k, v, state: probe.call(q, k, v, slopes, state=state), {"q": q, "k": k, "v": v, "state": state},
        lambda q, k, v, state: oracles.attention(q, k, v, slopes, state),
        mistakes={
            f"The gradient does not pass from one block of {block} tokens to another: the state was detached where it "
            f"is {where}.":
                lambda q, k, v, state, block=block, where=where: blocked(q, k, v, slopes, state, block, detach=where)
            for block in (64, 32, 128) for where in ("read", "carried")
        },
    )


def document_gradients(probe: Probe) -> None:
    slopes, ids = probe.slopes(2), torch.tensor([[4] * 7 + [-1] + [2] * 5])
    q, k, v = inputs(probe, ids.shape[1], batch=1, heads=2)
    probe.gradients(
        lambda q, k, v, state: probe.call(q, k, v, slopes, state=state, document_ids=ids),
        {"q": q, "k": k, "v": v, "state": probe.random(1, 2, 4, 6)},
        lambda q, k, v, state: oracles.packed(q, k, v, slopes, state, ids),
    )


def pieces(probe: Probe, given: tuple) -> None:
    """A sequence read in two calls, the state handed over."""
    q, k, v, slopes, _ = given
    cut = probe.size(50, 100)
    first, middle = called(probe, (q[:, :cut], k[:, :cut], v[:, :cut], slopes, None))
    second, end = called(probe, (q[:, cut:], k[:, cut:], v[:, cut:], slopes, middle))
    expected, expected_end = oracles.attention(*given)
    probe.close(f"output of {cut} + {q.shape[1] - cut} tokens", torch.cat([first, second], 1), expected,
                layer="property")
    probe.close("state after both pieces", end, expected_end, axes="BHDE", layer="property")


def by_documents(
    given: tuple, document_ids: Tensor, *, positions: Callable = oracles.documents, starts: str = "first",
    ends: str = "last"
) -> tuple[Tensor, Tensor]:
    """Documents one by one in fp64. positions(ids) -> their positions; starts: which of them get the incoming state,
    "first", "every" or "none"; ends: whose state is returned, "first" or "last"."""
    q, k, v, slopes, state = given
    state = oracles.zero_state(k, v) if state is None else state.double()
    rows, returned = [], []
    for row, ids in enumerate(document_ids.tolist()):
        out, found = torch.zeros(len(ids), *v.shape[2:], dtype=torch.float64), []
        for number, at in enumerate(positions(ids)):
            own = starts == "every" or (starts == "first" and number == 0)
            start = state[row : row + 1] if own else torch.zeros_like(state[row : row + 1])
            piece, end = oracles.attention(*(x[row : row + 1, at] for x in (q, k, v)), slopes, start)
            out[at] = piece[0]
            found.append(end)
        rows.append(out)
        returned.append((found or [state[row : row + 1]])[0 if ends == "first" else -1])
    return torch.stack(rows), torch.cat(returned)


def runs_of(ids: list[int]) -> list[list[int]]:
    """Maximal runs of equal ids, padding like any other id: what is not meant."""
    found = []
    for position, number in enumerate(ids):
        if not found or number != ids[found[-1][-1]]:
            found.append([])
        found[-1].append(position)
    return found


def same_ids(ids: list[int]) -> list[list[int]]:
    """All positions of one id together, in order of first appearance: what is not meant."""
    return [[t for t, number in enumerate(ids) if number == one] for one in dict.fromkeys(ids) if one >= 0]


def document_mistakes(which: int, given: tuple, ids: Tensor) -> dict[str, Callable]:
    """Sentence -> output (0) or state (1) when documents are handled in that wrong way."""
    q, k, v, slopes, state = given

    def by(**options) -> Callable:
        return lambda: by_documents(given, ids, **options)[which]

    def whole() -> Tensor:
        return oracles.attention(*given)[which]

    def decaying(query: Tensor = q * (ids >= 0).view(*ids.shape, 1, 1), places: str = "bia") -> Tensor:
        """Padding has no keys, but time passes: it belongs to the document before it. places: whether so before the
        first real token, between two of them, after the last one."""
        filled = [list(row) for row in ids.tolist()]
        for row in filled:
            real = [t for t, number in enumerate(row) if number >= 0]
            for t, number in enumerate(row):
                place = "b" if t < real[0] else "a" if t > real[-1] else "i"
                if number < 0 and place in places:
                    row[t] = row[max(t - 1, 0)] if place != "b" else row[real[0]]
        hidden = [x * (ids >= 0).view(*ids.shape, 1, 1) for x in (k, v)]
        return by_documents((query, *hidden, slopes, state), torch.tensor(filled))[which]

    found = {
        "Documents leak into one another: the state must start from zero where `document_ids` changes, yours goes on.":
            whole,
        "The documents of the first row are used for all rows: every row of `document_ids` has its own.":
            lambda: by_documents(given, ids[:1].expand_as(ids))[which],
        "Every document starts from the incoming state: it belongs to the first document of a row, the others start "
        "from zero.":
            by(starts="every"),
        "The incoming state is ignored when there are documents: it belongs to the first document of each row.":
            by(starts="none"),
        "Two documents with the same id were joined: a document is a run of equal ids, and 3 3 8 3 are three of them.":
            by(positions=same_ids),
        "The documents were taken in the order of their ids: take them in the order in which they stand, the first one "
        "gets the "
        "incoming state, the last one leaves the returned "
        "state.": by(positions=lambda row: sorted(oracles.documents(row), key=lambda at: row[at[0]])),
        "A document of a single token is left out: it is a document like any other.":
            by(positions=lambda row: [at for n, at in enumerate(oracles.documents(row)) if n == 0 or len(at) > 1]),
        "Documents with id 0 are taken for padding: any id from 0 on is a document, only -1 is padding.":
            by(positions=lambda row: oracles.documents([n if n > 0 else -1 for n in row])),
        "Padding was run as a document of its own: where document_ids is -1 the output is 0 and nothing enters a "
        "state.":
            by(positions=runs_of),
        "Padding inside a document ends it: it is transparent, so that 3 -1 3 is one document of two tokens.":
            by(positions=lambda row: [at for at in runs_of(row) if row[at[0]] >= 0]),
        "Padding after the last token makes the state decay: it must be transparent, as if it were deleted.":
            lambda: decaying(places="a"),
        "Padding makes the state decay: it must be transparent, as if it were deleted.": decaying,
        "Padding before the first document makes the state decay: it must be transparent, as if it were deleted.":
            lambda: decaying(places="b"),
        "Padding inside a document makes the state decay: it must be transparent, as if it were deleted.":
            lambda: decaying(places="i"),
        "Padding reads the state and makes it decay: its output must be 0, and it must be transparent, as if it were "
        "deleted.": lambda: decaying(q),
        "All rows start from the first row's state: every row of `state` belongs to its own row.":
            lambda: by_documents((q, k, v, slopes, None if state is None else state[:1].expand_as(state)), ids)[which],
    }
    if which == 1:
        found["The returned state is that of the first document: it must be that of the last one."] = by(ends="first")
        found["The returned state is the sum over documents: it must be that of the last one alone."] = lambda: sum(
            by_documents(given, ids, positions=lambda row, n=n: oracles.documents(row)[n : n + 1],
                         starts="first" if n == 0 else "none")[1]
            for n in range(max(len(oracles.documents(row)) for row in ids.tolist()))
        ) if (ids >= 0).all() else torch.empty(0)
    return found


def documents(probe: Probe, slopes: Tensor) -> None:
    """Packed rows: without padding, with a state, with padding in every place."""
    cut = probe.size(70, 110)
    packed = torch.tensor([[8] * cut + [0] * (200 - cut), [0] * 30 + [8] * 150 + [0] * 20])
    padded = torch.tensor([[-1, -1, 3, 3, -1, 3, 8, 8, -1, -1, 3, 3, 3, -1],
                           [8, 3, 3, 3, -1, -1, 3, 3, 8, 8, 8, 8, -1, 3]])
    for name, ids, state in (
        ("packed documents", packed, None), ("packed documents from a state", packed, probe.random(2, 3, 4, 6)),
        ("rows with padding", padded, probe.random(2, 3, 4, 6)),
    ):
        given = (*inputs(probe, ids.shape[1]), slopes, state)
        out, end = called(probe, given, ids)
        expected, expected_end = oracles.packed(*given, ids)
        real = (ids >= 0).view(*ids.shape, 1, 1)
        probe.require(
            torch.equal(out.detach() * real, out.detach()) or compare(name, out.detach() * real,
                expected).grade == "off", "property",
            "At padding, where document_ids is -1, the output must be 0; yours is right everywhere else.",
        )
        probe.close(f"output of {name}", out, expected, mistakes=document_mistakes(0, given, ids), layer="property")
        probe.close(f"state after {name}", end, expected_end, mistakes=document_mistakes(1, given, ids), axes="BHDE",
                    layer="property")


def edges(probe: Probe, slopes: Tensor) -> None:
    """What a model does with it: one token at a time, a row that is all padding, fast heads, fp64."""
    state = probe.random(2, 3, 4, 6)
    compare_rows(probe, "1 token from a state", (*inputs(probe, 1), slopes, state), layer="edge case")
    ids = torch.tensor([[-1, -1, -1], [0, 0, 0]])
    given = (*inputs(probe, 3), slopes, state)
    out, end = called(probe, given, ids)
    expected, expected_end = oracles.packed(*given, ids)
    probe.require(
        compare("state", end[:1], expected_end[:1]).grade != "off", "edge case",
        "A row that is nothing but padding must return its state as it came: no token, no decay.",
    )
    probe.close("output of a row of padding", out, expected, layer="edge case")
    probe.close("state after a row of padding", end, expected_end, axes="BHDE", layer="edge case")
    given = (*(x[:, :1] for x in given[:3]), slopes, state)
    out, end = called(probe, given, ids[:, :1])
    expected, expected_end = oracles.packed(*given, ids[:, :1])
    ignored, read = "document_ids is ignored when a single token is read: it may be padding.", oracles.attention(*given)
    probe.close("output of 1 token (row 0 is padding)", out, expected, layer="edge case", mistakes={ignored: read[0]})
    probe.close("state after 1 token (row 0 is padding)", end, expected_end, axes="BHDE", layer="edge case",
                mistakes={ignored: read[1]})
    given = (*(x[:1] for x in given[:3]), slopes, state[:1])
    out, end = called(probe, given, ids[:1, :1])
    probe.require(
        not out.any() and torch.equal(end, state[:1]), "edge case",
        "A batch that is nothing but padding must give 0 and return its state as it came.",
    )
    fast = (*inputs(probe, 150), torch.tensor([0.0, 2.0, 6.0]), None)
    compare_rows(probe, "150 tokens (slopes 0, 2, 6)", fast, layer="edge case")
    doubles = tuple(x.double() for x in (*inputs(probe, 75), slopes, state))
    compare_rows(probe, "75 tokens in float64", doubles, layer="edge case")
    from_zero = (*doubles[:4], None)
    in_one_dtype(probe, from_zero, "The zero state is float32 while q is float64: make it with "
                 "q.new_zeros(B, H, D, D_v).")
    compare_rows(probe, "75 tokens in float64 from zero", from_zero, layer="edge case")
    ids = torch.tensor([[8] * 40 + [3] * 35, [-1] * 75])
    in_one_dtype(probe, from_zero, "With documents some zeros are float32 while q is float64: make the output with "
                 "q.new_zeros(B, T, H, D_v), and each document's state with torch.zeros_like(state).", document_ids=ids)
    out, end = called(probe, from_zero, ids)
    expected, expected_end = oracles.packed(*from_zero, ids)
    probe.close("output of documents in float64", out, expected, layer="edge case")
    probe.close("state after documents in float64", end, expected_end, axes="BHDE", layer="edge case")


def in_one_dtype(probe: Probe, given: tuple, sentence: str, **options) -> None:
    """What PyTorch says of float32 zeros among float64 inputs names neither; the sentence does."""
    try:
        probe.function(*given[:4], **options)
    except Exception as error:  # one that is not about dtypes is told by the next call
        message = str(error).lower()
        probe.require("float" not in message or "double" not in message, "edge case", sentence)


# 4.5


def continue_from(probe: Probe) -> None:
    m = 2 * probe.size(2, 4) + 1
    q, k, v, state = (probe.random(2, *sizes) for sizes in ((m, 3, 4), (m, 3, 4), (m, 3, 3), (3, 4, 3)))
    slopes = probe.slopes(3, low=0.02)
    out, end = (x.float() for x in oracles.attention(q, k, v, slopes))
    new_out, new_end = probe.pair(probe.call(out, end, q, slopes, state), ("out", "end"), (out.shape, end.shape))
    probe.tensor("output", new_out, shape=out.shape, dtype=q.dtype)
    probe.tensor("end", new_end, shape=end.shape, dtype=q.dtype, axes="BHDE")
    expected, expected_end = oracles.attention(q, k, v, slopes, state)
    read_wrongly = inter_mistakes(q, state, slopes)
    mistakes = {sentence: (lambda wrong=wrong: out.double() + wrong()) for sentence, wrong in read_wrongly.items()}
    probe.close(f"output of {m} tokens", new_out, expected, mistakes={
        "The outputs are those of a piece that starts at zero: add what each token reads from `state`.": out.double(),
        "The outputs hold only what is read from `state`: add it to those of the piece.":
            lambda: oracles.inter(q, state, slopes),
        "The outputs are read from `end`: what stood before the piece is `state`.":
            lambda: out.double() + oracles.inter(q, end, slopes),
        "The outputs are read from the sum of `state` and `end`: what stood before the piece is `state` alone.":
            lambda: out.double() + oracles.inter(q, state + end, slopes),
        "The outputs are read from the mended end: what stood before the piece is `state`.":
            lambda: out.double() + oracles.inter(q, expected_end, slopes),
        **mistakes,
    })
    probe.close(f"end after {m} tokens", new_end, expected_end, axes="BHDE",
                mistakes=end_mistakes(end, slopes, state, m))
    weights = {"out": out, "end": end, "q": q, "state": state}

    def continued(out: Tensor, end: Tensor, q: Tensor, state: Tensor, slopes: Tensor = slopes) -> tuple[Tensor, Tensor]:
        left = torch.exp(-slopes.double() * m).view(-1, 1, 1)
        return out.double() + oracles.inter(q, state, slopes), end.double() + left * state.double()

    probe.gradients(lambda out, end, q, state: probe.call(out, end, q, slopes, state), weights, continued, mistakes={
        "`state` is detached on its way to the end.": lambda out, end, q, state:
            (continued(out, end, q, state)[0], continued(out, end, q, state.detach())[1]),
        "`state` is detached where the outputs read it.": lambda out, end, q, state:
            (continued(out, end, q, state.detach())[0], continued(out, end, q, state)[1]),
    })

    other, results = slopes.flip(0), (("output", None, expected), ("end", "BHDE", expected_end))
    values, rights = probe.call(out, end, q, other, state), continued(out, end, q, state, other)
    for (name, axes, stale), value, right in zip(results, values, rights):
        probe.close(
            f"{name} of a second call with other slopes", value, right, axes=axes, layer="property",
            mistakes={STALE: stale},
        )
    long = probe.random(2, 192, 3, 4), probe.random(2, 192, 3, 4), probe.random(2, 192, 3, 3)
    piece = [x.float() for x in oracles.attention(*long, EXTREME)]
    whole = oracles.attention(*long, EXTREME, state)
    for (name, axes, _), value, right in zip(results, probe.call(*piece, long[0], EXTREME, state), whole):
        probe.close(f"{name} of 192 tokens (slopes 4, 0.01, 0)", value, right, axes=axes, layer="edge case")
    zero = torch.zeros_like(state)
    same, same_end = probe.call(out, end, q, slopes, zero)
    probe.close("output from a zero state", same, out.double(), layer="property")
    probe.close("end from a zero state", same_end, end.double(), axes="BHDE", layer="property")
    one = [x[:, :1].double() for x in (q, k, v)]
    state, slopes = state.double(), slopes.double()
    value = probe.pair(probe.call(*oracles.attention(*one, slopes), one[0], slopes, state), ("out", "end"))
    for name, x in zip(("output", "end"), value):
        probe.tensor(f"{name} for float64 inputs", x, shape=x.shape, dtype=torch.float64)
    expected, expected_end = oracles.attention(*one, slopes, state)
    probe.close("output of 1 token in float64", value[0], expected, layer="edge case")
    probe.close("end after 1 token in float64", value[1], expected_end, axes="BHDE", layer="edge case")


def end_mistakes(end: Tensor, slopes: Tensor, state: Tensor, m: int) -> dict[str, Callable]:
    end, state, slope = end.double(), state.double(), slopes.double()

    def plus(exponent: float, factor: float = 1) -> Tensor:
        return end + factor * torch.exp(-slope * exponent).view(-1, 1, 1) * state

    return {
        "The end is as it was: m tokens later the state is still worth decay^m of itself, and that is missing.": end,
        "The state reaches the end without decay: m tokens later it is worth decay^m.": plus(0),
        "The state decays by one token on its way to the end: it passes m tokens, so it is worth decay^m.": plus(1),
        "The state decays by m - 1 tokens on its way to the end: it passes m tokens.": plus(m - 1),
        "The state decays by m + 1 tokens on its way to the end: it passes m tokens.": plus(m + 1),
        f"`state` decays by B = {end.shape[0]} tokens, not by m = {m}: m is q.shape[1].": plus(end.shape[0]),
        f"`state` decays by H = {end.shape[1]} tokens, not by m = {m}: m is q.shape[1].": plus(end.shape[1]),
        **{f"`state` decays by {block} tokens, not by m = {m}: m is q.shape[1].": plus(block) for block in BLOCKS},
        "The wrong state decays: `end` is already at the end, `state` has to pass m tokens.":
            torch.exp(-slope * m).view(-1, 1, 1) * end + state,
        "The end has lost what the piece itself had gathered: add to it.": plus(m) - end,
        "The end of the piece was decayed too: it is already the state at the end, only `state` is older.":
            torch.exp(-slope * m).view(-1, 1, 1) * (end + state),
        "The decays grow: the exponent is -s m, with a minus.": plus(-m),
        ALONG_HEADS: end + torch.exp(-slope * m) * state,
        OPPOSITE: end + torch.exp(-slope.flip(0) * m).view(-1, 1, 1) * state,
        **{sentence: end + decay.view(-1, 1, 1) ** m * state for sentence, decay in other_decays(slopes).items()},
    }


# 4.6


def combine(probe: Probe) -> None:
    slopes, lengths = probe.slopes(3, low=0.02), [probe.size(2, 9) for _ in range(3)]
    summaries = [summary(probe, length, slopes) for length in lengths]
    (s1, d1), (s2, d2), third = summaries
    state, decay = combined(probe, (s1, d1), (s2, d2))
    probe.close("state", state, d2.double().view(-1, 1, 1) * s1.double() + s2.double(), axes="BHDE",
                mistakes=combine_mistakes(s1, d1, s2, d2))
    probe.close("decay", decay, d1.double() * d2.double(), axes="H", mistakes={
        "The decays were added: over both pieces a state decays by lambda^(m1 + m2), the "
        "product.": d1.double() + d2.double(),
        "The decays were averaged: over both pieces a state decays by their product.": (d1.double() + d2.double()) / 2,
        "The decay is that of the first piece alone: whoever stands before both passes both.": d1.double(),
        "The decay is that of the second piece alone: whoever stands before both passes both.": d2.double(),
    })
    weights = {"s1": s1, "d1": d1, "s2": s2, "d2": d2}
    probe.gradients(
        lambda s1, d1, s2, d2: probe.call((s1, d1), (s2, d2)), weights,
        lambda s1, d1, s2, d2: (d2.view(-1, 1, 1) * s1 + s2, d1 * d2),
    )
    left, right = combined(probe, (state, decay), third), combined(probe, (s1, d1), combined(probe, (s2, d2), third))
    for name, x, y, axes in (("state", left[0], right[0], "BHDE"), ("decay", left[1], right[1], "H")):
        probe.require(
            compare(name, x, y.double()).grade != "off", "property",
            f"It is not associative: the {name} of ((a, b), c) differs from that of (a, (b, c)), so the order of "
            f"combining would matter.",
        )
    silent = torch.zeros_like(s1), d1  # a piece whose keys are 0: no state, but time passes
    timeless = "A piece whose state is 0 takes time too: the other state passes it, and the decays multiply."
    for name, a, b in (("first", silent, (s2, d2)), ("second", (s2, d2), silent)):
        state, decay = combined(probe, a, b)
        probe.close(f"state where the {name} piece's is 0", state, mistakes={timeless: s2}, axes="BHDE",
                    expected=b[1].double().view(-1, 1, 1) * a[0].double() + b[0].double(), layer="edge case")
        probe.close(f"decay where the {name} piece's state is 0", decay, d1.double() * d2.double(), axes="H",
                    layer="edge case", mistakes={timeless: d2})
    fast = torch.exp(-EXTREME.double() * 20)
    state, decay = combined(probe, (s1.double(), fast), (s2.double(), fast))
    probe.close("state in float64 (slopes 4, 0.01, 0)", state, fast.view(-1, 1, 1) * s1.double() + s2.double(),
                axes="BHDE", layer="edge case")
    probe.close("decay in float64 (slopes 4, 0.01, 0)", decay, fast * fast, axes="H", layer="edge case")
    nothing = torch.zeros_like(s1), torch.ones_like(d1)
    for name, (state, decay) in (("after", combined(probe, nothing, (s1, d1))),
                                 ("before", combined(probe, (s1, d1), nothing))):
        probe.close(f"state with an empty piece {'before' if name == 'after' else 'after'}", state, s1.double(),
                    axes="BHDE", layer="edge case")
        probe.close(f"decay with an empty piece {'before' if name == 'after' else 'after'}", decay, d1.double(),
                    axes="H", layer="edge case")


def summary(probe: Probe, length: int, slopes: Tensor) -> tuple[Tensor, Tensor]:
    """state (2, 3, 4, 3) and decay (3,) of a random piece; D_v = H, so that a wrong axis broadcasts silently."""
    k, v = probe.random(2, length, 3, 4), probe.random(2, length, 3, 3)
    return oracles.carried(k, v, oracles.zero_state(k, v), slopes).float(), torch.exp(-slopes * length)


def combined(probe: Probe, first: tuple, second: tuple) -> tuple[Tensor, Tensor]:
    before = [x.clone() for x in (*first, *second)]
    state, decay = probe.pair(probe.call(first, second), ("state", "decay"), [x.shape for x in first])
    probe.tensor("state", state, shape=first[0].shape, dtype=first[0].dtype, axes="BHDE")
    probe.tensor("decay", decay, shape=first[1].shape, dtype=first[1].dtype, axes="H")
    probe.require(all(map(torch.equal, before, (*first, *second))), "property",
                  "combine changed a state or decay in place; whoever called it still needs the old values: compute "
                  "new tensors instead.")
    return state, decay


def combine_mistakes(s1: Tensor, d1: Tensor, s2: Tensor, d2: Tensor) -> dict[str, Callable]:
    s1, d1, s2, d2 = (x.double() for x in (s1, d1, s2, d2))
    one, two = d1.view(-1, 1, 1), d2.view(-1, 1, 1)
    return {
        "The states are added without decay: the first piece is older by the length of the second, so it is worth its "
        "decay.":
            s1 + s2,
        "The wrong state decays: it is the first one that has to pass the tokens of the second piece.": s1 + one * s2,
        "The wrong state decays: the second piece's decay belongs to the first state, which has to pass it.":
            s1 + two * s2,
        "Each state decays by its own piece: that has already happened, only the first one has to pass the second "
        "piece.": one * s1 + two * s2,
        "The states are averaged with the weights decay and 1 - decay: the second state counts in full.":
            two * s1 + (1 - two) * s2,
        "The second state decays too: it is already the state at the end, only the first one is "
        "older.": two * (s1 + s2),
        "The first state decays by its own piece: that has already happened, it has to pass the second piece.":
            one * s1 + s2,
        "The first state decays over both pieces: it is the state at the end of the first one, and has to pass only "
        "the second.":
            one * two * s1 + s2,
        "`decay` is already λ^m; do not take exp(-...) of it again.": torch.exp(-two) * s1 + s2,
        "The first piece is lost: the state holds both.": s2,
        "The second piece is lost: the state holds both.": two * s1,
        ALONG_HEADS: d2 * s1 + s2,
        "The heads have one another's decays: decay[h] belongs to head h.": two.flip(0) * s1 + s2,
    }


# What stands in for a learner's function


def _intra_reference(q, k, v, slopes):
    return lightning_attention(q, k, v, slopes)[0]


def _inter_reference(q, state, slopes):
    return lightning_attention(q, torch.zeros_like(q), q.new_zeros(*q.shape[:3], state.shape[3]), slopes,
                               state=state)[0]


def _state_reference(k, v, state, slopes):
    return lightning_attention(k, k, v, slopes, state=state)[1]


def _continue_reference(out, end, q, slopes, state):
    return out + _inter_reference(q, state, slopes), end + torch.exp(-slopes * q.shape[1]).view(-1, 1, 1) * state


def _combine_reference(first, second):
    return second[1].view(-1, 1, 1) * first[0] + second[0], first[1] * second[1]


EXERCISES = (
    Exercise("4.1", "intra_block", "Intra block", intra_block, lambda: _intra_reference),
    Exercise("4.2", "inter_block", "Inter block", inter_block, lambda: _inter_reference),
    Exercise("4.3", "update_state", "State update", update_state, lambda: _state_reference),
    Exercise("4.4", "lightning", "Lightning attention", lightning, lambda: lightning_attention, points=(1, 3),
             part="lightning"),
    Exercise("4.5", "continue_from", "Continue from a state", continue_from, lambda: _continue_reference),
    Exercise("4.6", "combine", "Combine two pieces", combine, lambda: _combine_reference),
)
