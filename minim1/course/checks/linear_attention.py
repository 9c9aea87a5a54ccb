"""Checks of chapter 03: the masked quadratic form, the recurrence, M1's slopes and half-lives."""

import math
from functools import partial

import torch
from torch import Tensor

from minim1.course.checking import Exercise, Probe
from minim1.course.checks import oracles

# 3.1


def masked_quadratic(probe: Probe) -> None:
    """((Q K^T) * decay^(i-j), j <= i) V; lengths that are no powers of two, D_v other than D_k."""
    for length in (5, probe.size(7, 9), 29):
        q, k, v = probe.random(2, length, 3, 4), probe.random(2, length, 3, 4), probe.random(2, length, 3, 6)
        slopes = probe.slopes(3)
        out = probe.call(q, k, v, slopes)
        probe.require(not _only_last_is_finite(out), "finite", (
            "Only the last token's output is finite: the scores of later tokens were set to minus infinity, as one "
            "does before a softmax. No softmax follows here, so a pair that must not count needs the weight 0."
        ))
        probe.tensor("output", out, shape=v.shape, dtype=q.dtype)
        probe.close(f"output ({length} tokens)", out, oracles.intra(q, k, v, slopes),
                    mistakes=_quadratic_mistakes(q, k, v, slopes))
    q, k, v = (x[:, :5] for x in (q, k, v))
    call = lambda q, k, v: probe.call(q, k, v, slopes)  # noqa: E731
    probe.gradients(call, {"q": q, "k": k, "v": v}, lambda q, k, v: oracles.intra(q, k, v, slopes))
    _double_in_double_out(probe, "output", lambda *qkv: [probe.call(*qkv, slopes)], q, k, v)
    one = [x[:, :1] for x in (q, k, v)]
    probe.close("output (1 token)", probe.call(*one, slopes), oracles.intra(*one, slopes), layer="edge case")
    q, k, v = probe.random(1, 150, 3, 2), probe.random(1, 150, 3, 2), probe.random(1, 150, 3, 3)
    fast = torch.tensor([2.0, 0.01, 0.0])
    out = probe.call(q, k, v, fast)
    probe.require(not isinstance(out, Tensor) or out.isfinite().all(), "edge case", (
        "With 150 tokens and slope 2 the output has NaN or infinite entries: exp(slope * 149) for a pair with j > i is "
        "infinite in fp32, and infinity times a mask of 0 is NaN. Make the distance 0 there before exp, then mask."
    ))
    probe.close("output (150 tokens, slopes 2, 0.01, 0)", out, oracles.intra(q, k, v, fast), layer="edge case")


def _quadratic_mistakes(q: Tensor, k: Tensor, v: Tensor, slopes: Tensor) -> dict:
    time = torch.arange(q.shape[1], dtype=torch.float64)
    distance = time.view(-1, 1) - time
    causal = (distance >= 0).double()
    s = slopes.double().view(-1, 1, 1)
    right = oracles.pair_weights(slopes, q.shape[1])
    scores = torch.einsum("bihd,bjhd->bhij", *oracles.double(q, k))
    hidden = torch.where(causal.bool(), 0.0, -torch.inf)
    give = lambda weights: lambda: oracles.pairs(q, k, v, weights)  # noqa: E731
    mix = lambda weights: lambda: torch.einsum("bhij,bjhe->bihe", weights(), v.double())  # noqa: E731
    return {
        "Every token also reads the tokens after it, and those weigh the more the later they come: the weight of a "
        "pair with j > i must be 0.": give(torch.exp(-s * distance)),
        "Every token also reads the tokens after it, with weights as if distance had no direction: the weight of a "
        "pair with j > i must be 0.": give(torch.exp(-s * distance.abs())),
        "Every token also reads the tokens after it, in full: the exponent is 0 there and exp(0) = 1. The weight of a "
        "pair with j > i must be 0.": give(torch.exp(-s * distance.clamp(min=0))),
        "Every token also reads the one right after it: the triangle starts one diagonal too high, the weight of a "
        "pair with j > i must be 0.": give(torch.exp(-s * distance.abs()) * (distance >= -1)),
        "The mask is on the wrong side: each token reads itself and what comes after it, instead of what came before. "
        "Rows are the reading token i, columns the token j that is read.": give(torch.exp(s * distance) * causal.T),
        "The mask is on the wrong side: each token reads itself and, in full, what comes after it, instead of what "
        "came before. `.tril()` keeps the pairs with j <= i.": give(causal.T.expand(len(slopes), -1, -1)),
        "Every token reads all tokens in full, also those after it, as with moved brackets, Q (K^T V): each pair has a "
        "weight of its own, so the scores have to come first.": give(torch.ones_like(right)),
        "No token reads itself: the diagonal of the weights is 0, and token 0 reads nothing at all. The weight at "
        "distance 0 is decay^0 = 1.": give(right * (distance > 0)),
        "The past is not forgotten: every earlier token counts in full, as if all slopes were 0 (or the distance is "
        "j - i, clamped away). Multiply the score of each pair by decay^(i-j).":
            give(causal.expand(len(slopes), -1, -1)),
        "The weights grow with distance, so the oldest token counts most: the exponent has the wrong sign, the "
        "decay is exp(-slope).": give(torch.exp(s * distance) * causal),
        "All weights are decayed once too often: a token reads itself with weight decay instead of 1, so the exponent "
        "is i - j + 1 where it should be i - j.": give(right * torch.exp(-s)),
        "The slopes are used as if they were the decay: the weights are slope^(i-j). The decay is exp(-slope).":
            give(s ** distance.clamp(min=0) * causal),
        "The decay is 1 - slope, which is close to exp(-slope) for slow heads only: use exp(-slope).":
            give((1 - s) ** distance.clamp(min=0) * causal),
        "All heads forget at the pace of head 0: each head has a slope of its own, so the weights are (H, T, T).":
            give(right[:1].expand_as(right)),
        "The slopes are taken in the opposite order: head h forgets at the pace of slopes[h].":
            give(oracles.pair_weights(slopes.flip(0), q.shape[1])),
        "The scores are scaled by 1/sqrt(D), as in softmax attention: lightning attention has no scale, the norm after "
        "it takes the size out.": give(right / math.sqrt(q.shape[-1])),
        "The decay was made part of a softmax (that is ALiBi): here it multiplies the bare scores.":
            mix(lambda: torch.softmax(scores - s * distance.clamp(min=0) + hidden, -1)),
        "Each output is divided by the sum of its scores, the denominator of classic linear attention: M1 has none.":
            mix(lambda: scores * right / (scores * right).sum(-1, keepdim=True)),
        "Each output is divided by the sum of its decay weights, which makes it an average: M1 has no denominator.":
            mix(lambda: scores * right / right.sum(-1, keepdim=True)),
        "The scores of all batch rows are added up: each row has scores of its own, (B, H, T, T), so `b` must stay on "
        "the right of the arrow of an einsum.": mix(lambda: (scores.sum(0, keepdim=True) * right).expand_as(scores)),
        "Queries and keys are exchanged: the score of token i reading token j is q_i . k_j, yours is k_i . q_j.":
            mix(lambda: scores.transpose(-1, -2) * right),
        "The weighted scores are transposed in the last product: token i collects the values with row i of them, not "
        "with column i.": mix(lambda: (scores * right).transpose(-1, -2)),
        **_softmaxes(scores, q.shape[-1], right, hidden, mix),
        **_reshaped(q, k, v, slopes),
    }


def _softmaxes(scores: Tensor, width: int, weights: Tensor, hidden: Tensor, mix) -> dict:
    """A softmax left in, at the places where it can be, with and without its scale."""
    causal, found = (hidden == 0).double(), {}
    for scaled, x in (("", scores), (", scaled by 1/sqrt(D),", scores / math.sqrt(width))):
        for where, inside, after in (
            ("", x + hidden, 1), (" before the mask", x, causal), (" before mask and decay", x, weights),
            (" before the decay", x + hidden, weights), (" after the decay", x * weights + hidden, 1),
            (" after mask and decay", x * weights, 1),
        ):
            found[f"The scores{scaled} go through a softmax{where}: here they are used as they are."] = mix(
                lambda inside=inside, after=after: torch.softmax(inside, -1) * after)
    return found


def _reshaped(q: Tensor, k: Tensor, v: Tensor, slopes: Tensor) -> dict:
    """(B, T, H, D) turned into (B, H, T, D), or back, by reading the same numbers in other rows."""
    exchanged = lambda x: x.reshape(x.shape[0], x.shape[2], x.shape[1], x.shape[3])  # noqa: E731
    mixed = lambda: oracles.intra(*(exchanged(x).transpose(1, 2) for x in (q, k, v)), slopes)  # noqa: E731
    said = ("{} were brought from (B, {}) to (B, {}) by `reshape` or `view`, which mixes heads and tokens: use "
            "transpose(1, 2).")
    return {
        said.format("q, k and v", "T, H, D", "H, T, D"): mixed,
        said.format("q, k, v and the result", "T, H, D", "H, T, D"): lambda: exchanged(mixed().transpose(1, 2)),
        said.format("The outputs", "H, T, D_v", "T, H, D_v"):
            lambda: exchanged(oracles.intra(q, k, v, slopes).transpose(1, 2)),
    }


def _only_last_is_finite(out) -> bool:
    if not isinstance(out, Tensor) or out.ndim != 4 or out.shape[1] < 2:
        return False
    return bool(out[:, -1].isfinite().all() and not out[:, :-1].isfinite().any())


# 3.2


def recurrent(probe: Probe) -> None:
    """The outputs and the last state, from zero and from a given state; and two halves are the whole."""
    for length in (5, probe.size(7, 9), 29):
        q, k, v = probe.random(2, length, 3, 4), probe.random(2, length, 3, 4), probe.random(2, length, 3, 6)
        slopes = probe.slopes(3)
        _recurrence(probe, q, k, v, slopes, None, f"({length} tokens)")
    given = probe.random(2, 3, 4, 6)
    q, k, v = (x[:, :5] for x in (q, k, v))
    _recurrence(probe, q, k, v, slopes, given, "(from a state)")
    call = lambda q, k, v, state: probe.call(q, k, v, slopes, state)  # noqa: E731
    probe.gradients(call, {"q": q, "k": k, "v": v, "state": given},
                    lambda q, k, v, state: oracles.attention(q, k, v, slopes, state), mistakes={
        "The gradient knows nothing of later tokens: the state was detached from token to token, so training "
        "could not tell a token what to write for those after it.":
            lambda q, k, v, state: _loop(q, k, v, slopes, state, _detached),
        "No gradient flows through the returned state: return it without `.detach()`, or nothing is learned from what "
        "comes after this piece.": lambda q, k, v, state: _end_detached(*oracles.attention(q, k, v, slopes, state)),
        "The outputs read a detached state, so training could not tell a token what to write: read the state "
        "itself.": lambda q, k, v, state: _loop(q, k, v, slopes, state, _read_detached),
    })
    _double_in_double_out(probe, "output and the state", lambda *qkv: probe.call(*qkv, slopes), q, k, v)
    first, state = probe.call(q[:, :2], k[:, :2], v[:, :2], slopes)
    second, _ = probe.call(q[:, 2:], k[:, 2:], v[:, 2:], slopes, state=state)
    whole = oracles.attention(q, k, v, slopes)[0]
    probe.close("two pieces, one after the other", torch.cat([first, second], dim=1), whole, layer="property")
    _recurrence(probe, *(x[:1, :1] for x in (q, k, v)), slopes, given[:1], "(1 token, from a state)")
    long = probe.random(1, 150, 3, 4), probe.random(1, 150, 3, 4), probe.random(1, 150, 3, 6)
    _recurrence(probe, *long, torch.tensor([2.0, 0.01, 0.0]), given[:1], "(150 tokens, slopes 2, 0.01, 0)")


def _recurrence(probe: Probe, q, k, v, slopes, state, case: str) -> None:
    arguments = (q, k, v, slopes) if state is None else (q, k, v, slopes, state)
    out, end = probe.pair(probe.call(*arguments), ("out", "state"), (v.shape, (len(q), 3, 4, 6)))
    probe.tensor("output", out, shape=v.shape, dtype=q.dtype)
    probe.tensor("state", end, shape=(len(q), 3, 4, 6), dtype=q.dtype, axes="BHDE")
    expected, expected_end = oracles.attention(q, k, v, slopes, state)
    start = oracles.zero_state(k, v) if state is None else state.double()
    special = _growing_decays(q, k, v, slopes) if state is None else {
        "The outputs are those of a sequence that starts from nothing: the state that was passed in has to be there "
        "before token 0 is read.":
            lambda: oracles.attention(q, k, v, slopes)[0],
        "The state that was passed in is read by token 0 as it is: before token 0 is added, it decays once, as at "
        "every other token.": lambda: oracles.attention(q, k, v, slopes, start * _per_token(slopes, -1))[0],
        "The state that was passed in decays once too often: it decays when token 0 is added, as at every other token, "
        "and not before that.": lambda: oracles.attention(q, k, v, slopes, start * _per_token(slopes, 1))[0],
    }
    wrong = {sentence: partial(_outputs, q, k, v, slopes, start, step) for sentence, step in _WRONG_STEPS.items()}
    wrong["The state is read with the key instead of the query: the output of token t is q_t S_t."] = (
        lambda: oracles.attention(k, k, v, slopes, state)[0])
    probe.close(f"output {case}", out, expected, mistakes=special | wrong)
    before = oracles.attention(*(x[:, :-1] for x in (q, k, v)), slopes, state)[1]
    probe.close(f"state {case}", end, expected_end, axes="BHDE", mistakes={
        "The outputs are right, but the state is the one before the last token: return it after the last update.":
            before,
        "The outputs are right, but the state was decayed once more after the last token: the next token does that.":
            lambda: expected_end * _per_token(slopes, 1),
        "The outputs are right, but the state is the one that came in: return the updated one.": start,
        "The outputs are right, but the state is the plain sum of all k v^T: there too, older tokens have decayed.":
            lambda: oracles.carried(k, v, start, torch.zeros_like(slopes)),
    })


def _growing_decays(q, k, v, slopes) -> dict:
    """The state multiplied by exp(-slope * t) at token t, counted from 0 or from 1."""
    def outputs(first: int) -> Tensor:
        since = torch.arange(first, first + q.shape[1], dtype=torch.float64).cumsum(0)
        return oracles.pairs(q, k, v, torch.exp(-slopes.double().view(-1, 1, 1) * (since.view(-1, 1) - since)).tril())

    return {
        f"The state decays by exp(-slope * t) at token t, counted from {first}, so by more and more: at each token it "
        "decays by exp(-slope), no more.": partial(outputs, first) for first in (0, 1)
    }


def _per_token(slopes: Tensor, tokens: int) -> Tensor:
    return torch.exp(-slopes.double() * tokens).view(-1, 1, 1)


def _loop(q, k, v, slopes, state, step):
    """Token by token with `step(q, kv, decay, state) -> (out, state)`: a mistake as a program, in fp64."""
    q, k, v = oracles.double(q, k, v)
    outputs = []
    for t in range(q.shape[1]):
        kv = k[:, t, :, :, None] * v[:, t, :, None, :]
        out, state = step(q[:, t, :, None], kv, _per_token(slopes, 1), state)
        outputs.append(out.squeeze(-2))
    return torch.stack(outputs, dim=1), state


def _outputs(q, k, v, slopes, state, step) -> Tensor:
    return _loop(q, k, v, slopes, state, step)[0]


def _then_read(update):
    def step(q, kv, decay, state):
        state = update(kv, decay, state)
        return q @ state, state

    return step


def _end_detached(out: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    return out, state.detach()


def _read_detached(q, kv, decay, state):
    state = decay * state + kv
    return q @ state.detach(), state


_detached = _then_read(lambda kv, decay, state: decay * state.detach() + kv)
_WRONG_STEPS = {
    "Each token reads the state before it was itself added: the output of token 0 lacks its own part. First update the "
    "state, then read it.": lambda q, kv, decay, state: (q @ state, decay * state + kv),
    "Each token reads the state before it was itself added, though already decayed: first update the state, then "
    "read it.": lambda q, kv, decay, state: (q @ (decay * state), decay * state + kv),
    "The new token is decayed together with the old state, so it reads itself with weight decay instead of 1: the "
    "decay belongs to the old state alone.": _then_read(lambda kv, decay, state: decay * (state + kv)),
    "Only the new token is decayed and the old state never: the other way round, state = decay * state + k v^T.":
        _then_read(lambda kv, decay, state: state + decay * kv),
    "The state never decays: every earlier token counts in full, as if all slopes were 0.":
        _then_read(lambda kv, decay, state: state + kv),
    "The decayed state is read but not kept: what is carried to the next token has to be decayed too.":
        lambda q, kv, decay, state: (q @ (decay * state + kv), state + kv),
    "The state grows instead of decaying: the exponent has the wrong sign, the decay is exp(-slope).":
        _then_read(lambda kv, decay, state: state / decay + kv),
    "The slope is used as if it were the decay: the decay is exp(-slope).":
        _then_read(lambda kv, decay, state: -decay.log() * state + kv),
    "The decay is 1 - slope, which is close to exp(-slope) for slow heads only: use exp(-slope).":
        _then_read(lambda kv, decay, state: (1 + decay.log()) * state + kv),
    "The new token is weighted by 1 - decay, as in a moving average: here it is added in full.":
        _then_read(lambda kv, decay, state: decay * state + (1 - decay) * kv),
    "The state holds the newest token alone: what was there is overwritten instead of decayed and added to.":
        _then_read(lambda kv, decay, state: kv),
    "All heads forget at the pace of head 0: each head has a slope of its own.":
        _then_read(lambda kv, decay, state: decay[:1] * state + kv),
    "The outputs are scaled by 1/sqrt(D), as in softmax attention: lightning attention has no scale.":
        lambda q, kv, decay, state: (q @ (decay * state + kv) / math.sqrt(q.shape[-1]), decay * state + kv),
}


# 3.3


def decay_slopes(probe: Probe) -> None:
    """M1's slopes for several numbers of heads and layers; the last layer; a model of one layer."""
    cases = [(4, 1, 6), (8, 0, 8), (16, 3, 8), (2 ** probe.size(1, 5), probe.size(1, 9), 11), (64, 0, 80), (64, 78, 80)]
    for heads, layer, layers in cases:
        _slopes_case(probe, heads, layer, layers, "value")
    for heads, layer, layers in ((4, 7, 8), (8, 0, 1), (1, 1, 3)):  # the last layer; the only one; one head
        _slopes_case(probe, heads, layer, layers, "edge case")


def _slopes_case(probe: Probe, heads: int, layer: int, layers: int, kind: str) -> None:
    slopes = probe.call(heads, layer, layers)
    alone = isinstance(slopes, (int, float)) or isinstance(slopes, Tensor) and slopes.ndim == 0
    probe.require(not alone, "shape", (
        f"The result is a single number: one number for each head is expected, a tensor of shape ({heads},) that holds "
        "the slopes of the heads h = 1..H."
    ))
    case = f"result ({heads} head{'s' * (heads > 1)}, layer {layer} of {layers})"
    probe.tensor(case, slopes, shape=(heads,), dtype=torch.float32)
    probe.close(case, slopes, oracles.slopes(heads, layer, layers), layer=kind, tolerance=5e-6,
                mistakes=_slope_mistakes(heads, layer, layers))


def _slope_mistakes(heads: int, layer: int, layers: int) -> dict:
    h = torch.arange(1, heads + 1, dtype=torch.float64)
    base, depth = 2 ** (-8 * h / heads), layer / max(layers - 1, 1)
    right = base * (1 - depth + 1e-5)
    if layers == 1:
        return {
            "A model of one layer has the factor 1 + 1e-5, as the first of many; yours has 1e-5, as the last of many.":
                base * 1e-5,
            "A model of one layer has the factor 1 + 1e-5: yours lacks the 1e-5.": base,
        }
    return {
        "The first slope is too large: the heads are counted from 0. M1 counts h = 1..H, so the fastest head has "
        "2^(-8/H) and the slowest 2^-8.": 2 ** (-8 * (h - 1) / heads) * (1 - depth + 1e-5),
        "The 1e-5 is missing from the factor: it is added in every layer, not only where the factor would be 0.":
            base * (1 - depth),
        "The factor has 10e-5, which is 1e-4: 10^-5 is written 1e-5.": base * (1 - depth + 10e-5),
        "The 1e-5 is subtracted from the factor: it is added.": base * (1 - depth - 1e-5),
        "The layers are divided by their number L: counted from 0 the last one is L - 1, and l / (L - 1) is 1 there.":
            base * (1 - layer / layers + 1e-5),
        "`layer / num_layers - 1` divides first and then subtracts: the division is by (L - 1), in brackets.":
            base * (1 - (layer / layers - 1) + 1e-5),
        "The layers are counted from 1: the first is layer 0, whose factor is 1 + 1e-5.":
            base * (1 - (layer + 1) / (layers - 1) + 1e-5),
        "The 1e-5 is added to the slopes: it belongs to the factor, which then multiplies the slopes.":
            base * (1 - depth) + 1e-5,
        "The slopes rise with the layer; M1's fall: layer 0 forgets fastest and the last layers hardly at all.":
            base * (depth + 1e-5),
        "The slopes are the same in every layer: they must shrink by the factor 1 - l/(L-1) + 1e-5.": base,
        "The slopes are the same in every layer but the last: l / (L - 1) was rounded down, `//` should be `/`.":
            base * (1 + 1e-5),
        "The slopes are 0: a whole number to a negative whole power was rounded to 0. Write the base as 2.0.":
            torch.zeros(heads),
        "The exponents are rounded to whole numbers: -8h/H is a fraction for most heads, `//` should be `/`.":
            2 ** (-8 * h // heads) * (1 - depth + 1e-5),
        "These are the decays exp(-slope): return the slopes themselves.": torch.exp(-right),
        "The slopes are negative: the sign belongs to the decay exp(-slope), where the slope is used.": -right,
        "The heads are in the opposite order: head 0 is the fastest, with the largest slope.": right.flip(0),
        "The slopes are 2^-h whatever the number of heads: the exponent -8 h / H spreads any number of heads over the "
        "same range.": 2 ** -h * (1 - depth + 1e-5),
        "The layer's factor is in the exponent: it multiplies the slope 2^(-8h/H).":
            2 ** (-8 * h / heads * (1 - depth + 1e-5)),
        "The slopes fall in even steps from head to head; M1's fall by the same factor, 2^(-8/H), from head to head.":
            8 / heads * h * (1 - depth + 1e-5),
        "The exponent is -h/H, without the 8: the slope of head h is 2^(-8h/H), times the layer's factor.":
            2 ** (-h / heads) * (1 - depth + 1e-5),
        "The base is e instead of 2: the slope of head h is 2^(-8h/H).": torch.exp(-8 * h / heads) * (1 - depth + 1e-5),
    }


# 3.4


def half_life(probe: Probe) -> None:
    """-ln(fraction) / slope, with digits to spare for M1's slowest head, and infinity for a head that never forgets."""
    slopes = probe.slopes(probe.size(4, 7))
    lives = probe.call(slopes)
    probe.tensor("result", lives, shape=slopes.shape, dtype=slopes.dtype)
    probe.close("result", lives, oracles.half_life(slopes), mistakes=_life_mistakes(slopes, 0.5))
    for fraction in (0.1, 0.9):
        lives = probe.call(slopes, fraction)
        probe.tensor("result", lives, shape=slopes.shape, dtype=slopes.dtype)
        probe.close(f"result (fraction {fraction})", lives, oracles.half_life(slopes, fraction), mistakes={
            f"With fraction={fraction} it is still the half-life: use `fraction` where 0.5 would stand.":
                oracles.half_life(slopes),
            f"With fraction={fraction} it is the time until that part is lost, not until that part is left: use "
            "`fraction`, not 1 - fraction.": oracles.half_life(slopes, 1 - fraction),
            **_life_mistakes(slopes, fraction),
        })
    # M1's slowest lightning head, and the unused last layer's: each by itself, or the larger life hides the other
    for slope in (4.947e-5, 3.90625e-8):
        slow = torch.tensor([slope])
        lives = probe.call(slow)
        probe.require(isinstance(lives, Tensor) and lives.isfinite().all(), "edge case", (
            "For a slope as small as 4e-8 the half-life is not finite: exp(-4e-8) is 1 in fp32, so a way through exp "
            "and log forgets the slope. Divide by the slope itself."
        ))
        probe.close(f"result (slope {slope:g})", lives, oracles.half_life(slow), layer="edge case", mistakes={
            "The half-lives of slow heads are off although those of fast heads are right: exp(-slope) is so close to 1 "
            "that fp32 keeps few digits of the slope. Divide by the slope itself.":
                torch.tensor(0.5).log() / torch.exp(-slow).log(),
            **_padded_slopes(slow, 0.5),
        })
    lives = probe.call(torch.tensor([0.0, 0.25]))
    probe.require(isinstance(lives, Tensor) and lives.shape == (2,) and lives[0] == torch.inf, "edge case", (
        f"A head with slope 0 never forgets: its half-life is infinity, yours is {_first(lives)}."
    ))


def _first(value) -> str:
    return f"{value.flatten()[0].item():g}" if isinstance(value, Tensor) and value.numel() else str(value)


def _life_mistakes(slopes: Tensor, fraction: float) -> dict:
    s, gone = slopes.double(), -math.log(fraction)
    right = gone / s
    return {
        "The times are negative: the logarithm of a fraction is negative, so it takes a minus sign.": -right,
        "The times are too long by 1/ln 2, as with a logarithm to base 2, or with 1/slope for a half-life: solve "
        "exp(-slope t) = fraction with the natural logarithm.": right / math.log(2),
        "The times are too short by ln 10: the decay is exp(-slope), so the logarithm is the natural one.":
            right / math.log(10),
        "These are 1/slope, the times after which a weight is 1/e: solve exp(-slope t) = fraction for t.": 1 / s,
        "The slope is used as if it were the decay: solve exp(-slope t) = fraction, not slope^t = fraction.":
            math.log(fraction) / torch.log(s),
        "The times are rounded to whole tokens: return them as they are.": right.round(),
        "The times are rounded up to whole tokens: return them as they are.": right.ceil(),
        "The times are rounded down to whole tokens: return them as they are.": right.floor(),
        "These are the weights after one token: return the number of tokens after which the weight is `fraction`.":
            torch.exp(-s),
        "The logarithm stands below the fraction bar: solve exp(-slope t) = fraction for t, and it stands above, over "
        "the slope.": 1 / (s * gone),
        "The logarithm multiplies the slope: solve exp(-slope t) = fraction for t.": gone * s,
        "The times assume that a weight falls along a line: it falls by the same factor at each token, "
        "exp(-slope t) = fraction.": (1 - fraction) / s,
        **_padded_slopes(slopes, fraction),
    }


def _padded_slopes(slopes: Tensor, fraction: float) -> dict:
    return {
        f"The slopes were enlarged by {small:g} before the division, which shortens every life, most that of slow "
        "heads: a slope of 0 needs no protection, the division gives infinity as it should.":
            -math.log(fraction) / (slopes.double() + small)
        for small in (1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10)
    }


# Shared


def _double_in_double_out(probe: Probe, what: str, call, *tensors: Tensor) -> None:
    """fp64 inputs keep their dtype; slopes stay fp32, so fp64 digits are not asked for."""
    results = call(*(x.double() for x in tensors))
    single = [x.dtype for x in results if isinstance(x, Tensor) and x.dtype != torch.float64]
    probe.require(not single, "property", (
        f"With fp64 inputs the {what} should be fp64 too, but {'are' if ' and ' in what else 'is'} "
        f"{str(single[0]).removeprefix('torch.') if single else ''}: make new tensors in q's dtype, and do not convert."
    ))


def _quadratic():
    from minim1 import lightning_attention

    return lambda q, k, v, slopes: lightning_attention(q, k, v, slopes, backend="quadratic")[0]


def _recurrent():
    from minim1 import lightning_attention

    return lambda q, k, v, slopes, state=None: lightning_attention(q, k, v, slopes, state=state, backend="recurrent")


def _slopes():
    from minim1 import decay_slopes

    return decay_slopes


def _half_life():
    return lambda slopes, fraction=0.5: -math.log(fraction) / slopes


EXERCISES = (
    Exercise("3.1", "masked_quadratic", "All pairs, masked and decayed", masked_quadratic, _quadratic),
    Exercise("3.2", "recurrent", "One token at a time", recurrent, _recurrent),
    Exercise("3.3", "decay_slopes", "M1's slopes", decay_slopes, _slopes),
    Exercise("3.4", "half_life", "How long a head remembers", half_life, _half_life),
)
