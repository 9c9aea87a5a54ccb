"""Checks of chapter 12: the part `policy_loss`, the unified masked form, dynamic sampling and the overlong penalty.

B sequences, T time. What a loss should be is computed here in fp64, apart from `minim1.train.losses`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from minim1.course.checking import Exercise, Probe
from minim1.tasks.rewards import overlong_penalty as package_penalty
from minim1.train.losses import LossOutput, cispo_loss

INF = math.inf
NOT_SAMPLED = ("what stands where mask is False may be anything, and 0 * NaN is NaN; choose the sampled tokens, "
               "or put 0 in "
               "the place of the others with torch.where or masked_fill, before anything is computed from them.")


@dataclass(frozen=True)
class Batch:
    """logprobs, old_logprobs, advantages, mask, all (B, T), and the totals of a step of which this is a part."""

    logprobs: Tensor
    old_logprobs: Tensor
    advantages: Tensor
    mask: Tensor
    total_tokens: float
    total_sequences: float

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.logprobs, self.old_logprobs, self.advantages, self.mask

    @property
    def totals(self) -> dict[str, float]:
        return {"total_tokens": self.total_tokens, "total_sequences": self.total_sequences}


def batch(probe: Probe, *, dtype: torch.dtype = torch.float32, rows: int = 4) -> Batch:
    """Sequences of different length after prompts of different length; ratios from far below 1 to above 5, with
    advantages of both signs. The numbers where mask is False are finite, and matter to whoever forgets the mask."""
    time = probe.size(9, 14)
    starts, ends = [probe.size(1, 3) for _ in range(rows)], [probe.size(5, time) for _ in range(rows)]
    place = torch.arange(time)
    mask = (place >= torch.tensor(starts).view(-1, 1)) & (place < torch.tensor(ends).view(-1, 1))
    logprobs = -0.2 - probe.random(rows, time, dtype=torch.float64).abs()
    gap = 1.2 * probe.random(rows, time, dtype=torch.float64)
    advantages = probe.random(rows, time, dtype=torch.float64)
    first = torch.arange(rows), torch.tensor(starts)  # one token above each cap, one below, of either sign
    gap[first] = torch.tensor([2.0, 2.1, -2.0, -1.9])[:rows].double()
    advantages[first] = torch.tensor([1.0, -1.0, 1.5, -1.5])[:rows].double()
    tensors = (x.to(dtype) for x in (logprobs, logprobs - gap, advantages))
    return Batch(*tensors, mask, total_tokens=2.5 * float(mask.sum()), total_sequences=3.0 * rows)


def summed(given: Batch, weight: Callable, factor: Callable | None = None, total: float | None = None) -> Tensor:
    """- sum over mask of sg(weight(r, A)) * A * factor / total in fp64; factor of (log pi, r), default log pi."""
    new, old, advantages = (torch.where(given.mask, x.double(), 0.0) for x in given.tensors[:3])
    ratio = (new - old).exp()
    weights = weight(ratio.detach(), advantages)
    each = weights * advantages * (new if factor is None else factor(new, ratio))
    return -torch.where(given.mask, each, 0.0).sum() / (given.total_tokens if total is None else total)


def close_loss(probe: Probe, given: Batch, name: str, value: Tensor, expected: Tensor, **options) -> None:
    """`probe.close`, with a tolerance for sums whose terms nearly cancel: rounding goes with the terms, not the sum."""
    terms = summed(given, lambda r, a: -r * a.sign(), lambda new, r: -new.abs())
    near = 5e-6 * (terms.abs() / expected.detach().abs().clamp(min=1e-30)).item()
    probe.close(name, value, expected, tolerance=min(max(2e-5, near), 1e-2), **options)


def cispo(given: Batch, cap: float = 5.0) -> Tensor:
    return summed(given, lambda r, a: r.clamp(max=cap))


def clip_mask(r: Tensor, a: Tensor, eps_low: float, eps_high: float) -> Tensor:
    """1.0 where PPO's clip leaves the gradient, else 0.0 (report Eq. 7)."""
    return (~((a > 0) & (r > 1 + eps_high) | (a < 0) & (r < 1 - eps_low))).double()


def unified(given: Batch, max_weight: float = INF, eps_low: float = INF, eps_high: float = INF) -> Tensor:
    return summed(given, lambda r, a: clip_mask(r, a, eps_low, eps_high) * r.clamp(max=max_weight))


# 12.1


def policy_loss(probe: Probe) -> None:
    given = batch(probe)
    close_loss(probe, given, "loss", cispo_of(probe, given), cispo(given), mistakes=cispo_mistakes(given))
    gradient(probe, given, lambda x: cispo_of(probe, x), cispo, cispo_gradient_mistakes())
    with_padding(probe, batch(probe), lambda x: cispo_of(probe, x), cispo)
    overflow(probe)
    for cap in (1.28, 1.0, INF):
        other = batch(probe)
        loss = cispo_of(probe, other, max_weight=cap)
        close_loss(probe, other, f"loss with max_weight = {cap}", loss, cispo(other, cap), mistakes={
            "max_weight has no effect: the cap is 5 whatever is asked for.": lambda: cispo(other, 5.0),
            "The weights have a lower bound, 2 - max_weight, as if max_weight were 1 + eps: there is no lower bound.":
                lambda: summed(other, lambda r, a: r.clamp(min(2 - cap, cap), cap))})
    double = batch(probe, dtype=torch.float64)
    close_loss(probe, double, "loss in float64", cispo_of(probe, double), cispo(double), layer="property")
    parts_add_up(probe, given)
    probe.require(
        refused(probe, given, 0.2) and refused(probe, given, 0.99), "edge case",
        "A max_weight of 0.2 or 0.99 is accepted: somebody has mistaken eps for the cap, and every weight would "
        "shrink; "
        "raise a ValueError for a max_weight below 1.",
    )
    nothing_sampled(probe, given, lambda x: cispo_of(probe, x))


def cispo_of(probe: Probe, given: Batch, **options) -> Tensor:
    """The loss in what the learner's function returns."""
    value = probe.call(*given.tensors, **given.totals, **options)
    if not isinstance(value, LossOutput):
        kind = "None" if value is None else type(value).__name__
        kind = "NaN" if isinstance(value, float) and math.isnan(value) else kind
        probe.require(False, "type", f"{probe.exercise.name} returned {kind}, expected a LossOutput: end with "
                                     "`return LossOutput(loss)`.")
    return scalar(probe, value.loss, given.logprobs.dtype)


def scalar(probe: Probe, loss: Tensor, dtype: torch.dtype) -> Tensor:
    probe.tensor("loss", loss, shape=(), dtype=dtype)
    return loss


def gradient(probe: Probe, given: Batch, call: Callable, expected: Callable, mistakes: dict) -> None:
    """The gradient for logprobs, and that there is none for the constants."""
    with_logprobs = lambda f: lambda logprobs: f(Batch(logprobs, *given.tensors[1:], **given.totals))  # noqa: E731
    probe.gradients(with_logprobs(call), {"logprobs": given.logprobs}, with_logprobs(expected),
                    mistakes={sentence: with_logprobs(wrong) for sentence, wrong in mistakes.items()})


def cispo_mistakes(given: Batch, cap: float = 5.0) -> dict[str, Callable]:
    capped = lambda r, a: r.clamp(max=cap)  # noqa: E731
    sampled = given.mask.sum().double()
    every = Batch(*given.tensors[:3], torch.ones_like(given.mask), **given.totals)
    per_row = lambda: torch.stack([  # noqa: E731
        summed(Batch(*(x[i:i + 1] for x in given.tensors), **given.totals), capped, total=float(given.mask[i].sum()))
        for i in range(len(given.mask))])

    def sequence_weight(r: Tensor, a: Tensor) -> Tensor:
        mean = (torch.where(given.mask, r.log(), 0.0).sum(1, keepdim=True) / given.mask.sum(1, keepdim=True)).exp()
        return mean.clamp(max=cap).expand_as(r)

    upper = "max_weight is the cap itself, the report's 1 + eps_high"
    low = ("there should be none, so that a token that has become rarer weighs as "
           "little as its ratio says.")
    return {
        "The sign is wrong: what is minimised is minus the objective.": lambda: -cispo(given, cap),
        f"The cap is 1 + max_weight: {upper}.": lambda: cispo(given, 1 + cap),
        f"The cap is max_weight - 1: {upper}.": lambda: cispo(given, cap - 1),
        "The weights are not capped: where r is above max_weight, the weight is max_weight.": lambda: cispo(given, INF),
        "There are no importance weights: each token counts min(r, max_weight) times, yours counts once.":
            lambda: summed(given, lambda r, a: torch.ones_like(r)),
        "Every weight is max_weight: torch.max for torch.min, or clamp(min=...) for clamp(max=...).":
            lambda: summed(given, lambda r, a: torch.full_like(r, cap)),
        "The weights are at least max_weight: torch.max for torch.min, or clamp(min=...) for clamp(max=...).":
            lambda: summed(given, lambda r, a: r.clamp(min=cap)),
        **{f"Your weights have a lower bound of {name}: {low}":
            lambda x=x: summed(given, lambda r, a: r.clamp(min(x, cap), cap))
           for name, x in (("0.8", 0.8), ("1 / max_weight", 1 / cap), ("0.5", 0.5), ("0.1", 0.1), ("1", 1.0))},
        "Tokens above the cap are dropped: they weigh max_weight; that nobody loses the gradient is the point of "
        "CISPO.":
            lambda: summed(given, lambda r, a: torch.where(r > cap, 0.0, r)),
        "Tokens with positive advantage are dropped above the cap, as PPO's clip does: with CISPO they weigh "
        "max_weight.":
            lambda: summed(given, lambda r, a: torch.where((r > cap) & (a > 0), 0.0, r.clamp(max=cap))),
        "Only tokens with positive advantage are capped: the cap does not ask for the sign of A.":
            lambda: summed(given, lambda r, a: torch.where(a > 0, r.clamp(max=cap), r)),
        "Only tokens with negative advantage are capped: the cap does not ask for the sign of A.":
            lambda: summed(given, lambda r, a: torch.where(a < 0, r.clamp(max=cap), r)),
        "The ratio is upside down: it is new over old, exp(logprobs - old_logprobs).":
            lambda: summed(given, lambda r, a: (1 / r).clamp(max=cap)),
        "The ratio lacks its exp: logprobs - old_logprobs is the logarithm of r.":
            lambda: summed(given, lambda r, a: r.log().clamp(max=cap)),
        "The weight is the probability itself: it is the ratio to the old one, exp(logprobs - old_logprobs).":
            lambda: summed(given, lambda r, a: given.logprobs.double().exp().clamp(max=cap)),
        "log pi is missing: this is min(r, max_weight) * A, whose gradient is another (and none at all once the "
        "weight is "
        "detached).": lambda: summed(given, capped, lambda new, r: torch.ones_like(new)),
        "pi stands in the place of log pi: the sum has logprobs itself.":
            lambda: summed(given, capped, lambda new, r: new.exp()),
        "old_logprobs stands in the place of log pi: the gradient goes through the new ones, logprobs.":
            lambda: summed(given, capped, lambda new, r: new - r.log()),
        "The log of the ratio stands in the place of log pi: the sum has logprobs itself.":
            lambda: summed(given, capped, lambda new, r: r.log()),
        "The advantages are missing: each token counts by its advantage.":
            lambda: summed(given, lambda r, a: torch.where(a != 0, r.clamp(max=cap) / a, 0.0)),
        "The advantages have lost their sign.": lambda: summed(given, lambda r, a: r.clamp(max=cap) * a.sign()),
        "This is the sum of r * A over the tokens, with the cap inside PPO's min: CISPO has sg(min(r, "
        "max_weight)) * A * log pi.":
            lambda: summed(given, lambda r, a: torch.where((a > 0) & (r > cap), cap, r),
                           lambda new, r: torch.ones_like(new)),
        "There is one weight for each sequence: CISPO weighs every token by its own ratio.":
            lambda: summed(given, sequence_weight),
        "All tokens are summed, also those that were not sampled: mask says which count.": lambda: cispo(every, cap),
        "The sum is not divided by total_tokens.": lambda: cispo(given, cap) * given.total_tokens,
        "The sum is divided by the tokens of this call: total_tokens counts those of the whole step, of which "
        "this may be a "
        "part.": lambda: cispo(given, cap) * given.total_tokens / sampled,
        "The sum is divided by the number of all entries, padding included: divide by total_tokens.":
            lambda: cispo(given, cap) * given.total_tokens / given.mask.numel(),
        "The sum is divided by total_sequences: CISPO counts by tokens.":
            lambda: cispo(given, cap) * given.total_tokens / given.total_sequences,
        "The sum is divided by the number of rows: CISPO counts by tokens, total_tokens of them.":
            lambda: cispo(given, cap) * given.total_tokens / len(given.mask),
        "It is a mean within each sequence, and then over sequences, as in GRPO: in CISPO every token counts alike.":
            lambda: per_row().mean(),
        "It is a mean within each sequence, summed and divided by total_sequences, as in GRPO: in CISPO every "
        "token counts "
        "alike.": lambda: per_row().sum() / given.total_sequences,
        "It is a mean within each sequence, divided by total_tokens: in CISPO every token counts alike.":
            lambda: per_row().sum() / given.total_tokens,
    }


def cispo_gradient_mistakes() -> dict[str, Callable]:
    def attached(batch: Batch) -> Tensor:
        new, old, advantages = (torch.where(batch.mask, x.double(), 0.0) for x in batch.tensors[:3])
        weight = (new - old).exp().clamp(max=5.0)
        return -torch.where(batch.mask, weight * advantages * new, 0.0).sum() / batch.total_tokens

    def only_weight(batch: Batch) -> Tensor:
        new, old, advantages = (torch.where(batch.mask, x.double(), 0.0) for x in batch.tensors[:3])
        weight = (new - old).exp().clamp(max=5.0)
        return -torch.where(batch.mask, weight * advantages * new.detach(), 0.0).sum() / batch.total_tokens

    def all_capped(batch: Batch) -> Tensor:
        return summed(batch, lambda r, a: torch.where(r > 5.0, 0.0, r))

    return {
        "The value is right, but the gradient also flows through the weight: it is a constant, so detach the ratio.":
            attached,
        "log pi is detached and the weight is not: it must be the other way round, or capped tokens get no gradient.":
            only_weight,
        "The value is right, but tokens above the cap get no gradient: with CISPO they keep it, with weight "
        "max_weight.":
            all_capped,
    }


def overflow(probe: Probe) -> None:
    """Ratios that are infinite in fp32, and ratios that are 0."""
    given = batch(probe)
    old = given.old_logprobs.clone()
    rows = torch.arange(len(old))
    places = given.mask.double().argmax(1)
    old[rows, places] = given.logprobs[rows, places] - torch.tensor([100.0, 95.0, -110.0, 100.0])
    given = Batch(given.logprobs, old, given.advantages, given.mask, **given.totals)
    loss = cispo_of_raw(probe, given)
    probe.require(loss.isfinite().all(), "edge case",
                  "The loss is NaN or infinite where a ratio overflows: in float32 exp(100) is infinite, and "
                  "infinity times "
                  "0 is NaN; `ratio.clamp(max=max_weight)` gives max_weight there.")
    probe.close("loss where a ratio overflows", loss, cispo(given), layer="edge case", tolerance=1e-4)
    gradient(probe, given, lambda x: cispo_of(probe, x), cispo, {
        "Where the ratio overflows the gradient is that of another weight: it is max_weight there.":
            lambda x: summed(x, lambda r, a: torch.where(r > 1e30, 0.0, r.clamp(max=5.0)))})


def cispo_of_raw(probe: Probe, given: Batch) -> Tensor:
    """The loss, whose finiteness is asked for elsewhere."""
    return probe.call(*given.tensors, **given.totals).loss.detach()


def with_padding(probe: Probe, given: Batch, call: Callable, expected: Callable) -> None:
    """NaN and infinities where nothing was sampled reach neither the loss nor the gradient."""
    junk = torch.tensor([float("nan"), INF, -INF, 3.0])
    places = torch.arange(given.mask.numel()).view(given.mask.shape)
    spoilt = [torch.where(given.mask, x, junk[(places + shift) % 4]) for shift, x in enumerate(given.tensors[:3])]
    dirty = Batch(*spoilt, given.mask, **given.totals)
    leaf = dirty.logprobs.clone().requires_grad_()
    value = probe.call(leaf, *dirty.tensors[1:], **options_of(probe, dirty))
    loss = value.loss if isinstance(value, LossOutput) else value
    probe.require(loss.isfinite().all(), "property", f"The loss is NaN or infinite because of tokens that were "
                                                     f"not sampled: "
                                                     f"{NOT_SAMPLED}")
    close_loss(probe, given, "loss with NaN at padding", loss, expected(dirty), layer="property")
    probe.require(loss.requires_grad, "gradient", "No gradient flows through the loss.")
    slope = probe.backward(lambda: torch.autograd.grad(loss, leaf)[0])
    probe.require(slope.isfinite().all(), "gradient",
                  f"The loss is right, but its gradient is NaN at tokens that were not sampled: {NOT_SAMPLED}")
    probe.require(not slope[~given.mask].any(), "gradient", "Tokens that were not sampled get a gradient.")
    clean = given.logprobs.double().requires_grad_()
    want = torch.autograd.grad(expected(Batch(clean, *given.tensors[1:], **given.totals)), clean)[0]
    probe.close("gradient with NaN at padding", slope, want, layer="gradient")


def options_of(probe: Probe, given: Batch) -> dict:
    return given.totals if probe.exercise.id == "12.1" else {"total_tokens": given.total_tokens}


def parts_add_up(probe: Probe, given: Batch) -> None:
    """Rows in two calls, with the totals of the whole, give the loss of one call: so a step can be split."""
    halves = [Batch(*(x[rows] for x in given.tensors), **given.totals) for rows in (slice(0, 1), slice(1, None))]
    total = sum(cispo_of(probe, half).detach() for half in halves)
    close_loss(probe, given, "sum over two parts of the step", total, cispo(given), layer="property")


def refused(probe: Probe, given: Batch, cap: float) -> bool:
    try:
        probe.function(*given.tensors, **given.totals, max_weight=cap)
    except ValueError:
        return True
    except Exception as error:
        probe.require(False, "edge case", f"A max_weight of {cap} raises {type(error).__name__}, expected a "
                                          f"ValueError.")
    return False


def nothing_sampled(probe: Probe, given: Batch, call: Callable) -> None:
    """A mini-batch in which no token was sampled."""
    empty = Batch(*given.tensors[:3], torch.zeros_like(given.mask), **given.totals)
    leaf = empty.logprobs.clone().requires_grad_()
    loss = call(Batch(leaf, *empty.tensors[1:], **empty.totals))
    probe.close("loss where nothing was sampled", loss, torch.tensor(0.0, dtype=torch.float64), layer="edge case")
    if loss.requires_grad:
        [slope] = probe.backward(lambda: torch.autograd.grad(loss, leaf, allow_unused=True))
        probe.require(slope is None or not slope.nan_to_num(nan=1.0).any(), "edge case",
                      "Where nothing was sampled the gradient is not 0.")


# 12.2


def unified_loss(probe: Probe) -> None:
    bounds = ({}, {"max_weight": 5.0}, {"eps_low": 0.2, "eps_high": 0.28}, {"eps_high": 0.2}, {"eps_low": 0.5},
              {"max_weight": 1.5, "eps_low": 0.3, "eps_high": 2.0})
    for options in bounds:
        given = batch(probe)
        named = ", ".join(f"{name} = {value}" for name, value in options.items()) or "no bounds"
        mistakes = {f"With {named}: {sentence}" if options else sentence: wrong
                    for sentence, wrong in unified_mistakes(given, **options).items()}
        loss = scalar(probe, unified_of(probe, given, **options), torch.float32)
        close_loss(probe, given, f"loss ({named})", loss, unified(given, **options), mistakes=mistakes)
        gradient(probe, given, lambda x: unified_of(probe, x, **options), lambda x: unified(x, **options),
                 unified_gradient_mistakes(**options))
    same_as_ppo(probe, batch(probe))
    at_the_bounds(probe)
    given = batch(probe)
    with_padding(probe, given, None, unified)
    double = batch(probe, dtype=torch.float64)
    options = {"max_weight": 2.0, "eps_low": 0.2, "eps_high": 0.28}
    loss = scalar(probe, unified_of(probe, double, **options), torch.float64)
    close_loss(probe, double, "loss in float64", loss, unified(double, **options), layer="property")
    nothing_sampled(probe, given, lambda x: unified_of(probe, x))


def unified_of(probe: Probe, given: Batch, **options) -> Tensor:
    value = probe.call(*given.tensors, total_tokens=given.total_tokens, **options)
    if isinstance(value, LossOutput):
        probe.require(False, "type", "unified_loss returned a LossOutput, expected the loss itself: end with "
                                     "`return loss`.")
    return scalar(probe, value, given.logprobs.dtype)


def same_as_ppo(probe: Probe, given: Batch) -> None:
    """The gradient of PPO's min(r A, clip(r) A), by autograd."""
    def clipped(batch: Batch) -> Tensor:
        new, old, a = (torch.where(batch.mask, x.double(), 0.0) for x in batch.tensors[:3])
        r = (new - old).exp()
        return -torch.where(batch.mask, torch.minimum(r * a, r.clamp(0.8, 1.2) * a), 0.0).sum() / batch.total_tokens

    slopes = []
    for f, dtype in ((lambda x: unified_of(probe, x, eps_low=0.2, eps_high=0.2), given.logprobs.dtype),
                     (clipped, torch.float64)):
        leaf = given.logprobs.to(dtype).clone().requires_grad_()
        slopes.append(torch.autograd.grad(f(Batch(leaf, *given.tensors[1:], **given.totals)), leaf)[0])
    probe.close("gradient, against PPO's", *slopes, layer="property")


def at_the_bounds(probe: Probe) -> None:
    """With bounds of 0 a policy that has not moved stands exactly at both: r = 1, which exp gives exactly."""
    old = -probe.random(1, 8).abs() - 0.5
    given = Batch(old + torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.5, 0.5, -0.5, -0.5]]), old,
                  torch.tensor([[1.0, -1.0, 2.0, -0.5, 1.0, -1.0, 1.0, -1.0]]),
                  torch.ones(1, 8, dtype=torch.bool), 8.0, 1.0)
    strict = "the inequalities are strict, so a ratio of exactly 1 + eps_high or 1 - eps_low keeps its gradient."

    def masked(rule: Callable) -> Callable:
        return lambda: summed(given, lambda r, a: (~rule(r.round(decimals=3), a)).double() * r)

    close_loss(probe, given, "loss with r = 1 and bounds of 0", unified_of(probe, given, eps_low=0.0, eps_high=0.0),
                unified(given, eps_low=0.0, eps_high=0.0), layer="edge case", mistakes={
        f"Tokens exactly at a bound are masked: {strict}": masked(lambda r, a: (a > 0) & (r >= 1) | (a < 0) & (r <= 1)),
        f"Tokens exactly at the upper bound are masked: {strict}":
            masked(lambda r, a: (a > 0) & (r >= 1) | (a < 0) & (r < 1)),
        f"Tokens exactly at the lower bound are masked: {strict}":
            masked(lambda r, a: (a > 0) & (r > 1) | (a < 0) & (r <= 1)),
        **{f"{name} of 0 switches the mask off: only infinity does, 0 masks all that has moved beyond 1.": masked(rule)
           for name, rule in (("A bound", lambda r, a: torch.zeros_like(r, dtype=torch.bool)),
                              ("An eps_high", lambda r, a: (a < 0) & (r < 1)),
                              ("An eps_low", lambda r, a: (a > 0) & (r > 1)))},
    })


def unified_mistakes(given: Batch, max_weight: float = INF, eps_low: float = INF,
                     eps_high: float = INF) -> dict[str, Callable]:
    def weighted(mask: Callable, cap: float = max_weight, **options) -> Callable:
        return lambda: summed(given, lambda r, a: mask(r, a).double() * r.clamp(max=cap), **options)

    right = lambda r, a: clip_mask(r, a, eps_low, eps_high)  # noqa: E731
    every = Batch(*given.tensors[:3], torch.ones_like(given.mask), **given.totals)
    mistakes = {
        "The sign is wrong: what is minimised is minus the objective.":
            lambda: -unified(given, max_weight, eps_low, eps_high),
        "All tokens are summed, also those that were not sampled: mask says which count.":
            lambda: unified(every, max_weight, eps_low, eps_high),
        "The sum is divided by the tokens of this call: total_tokens counts those of the whole step.": weighted(
            right, total=float(given.mask.sum())),
        "The sum is divided by the number of all entries: divide by total_tokens.": weighted(
            right, total=float(given.mask.numel())),
        "The sum is not divided by total_tokens.": weighted(right, total=1.0),
        "log pi is missing: the sum has M * sg(min(r, max_weight)) * A * log pi.":
            weighted(right, factor=lambda new, r: torch.ones_like(new)),
        "There are no importance weights: each token counts min(r, max_weight) times.":
            lambda: summed(given, lambda r, a: right(r, a)),
        "The ratio is upside down: it is new over old, exp(logprobs - old_logprobs).": lambda: summed(
            given, lambda r, a: clip_mask(1 / r, a, eps_low, eps_high) * (1 / r).clamp(max=max_weight)),
        "The ratio lacks its exp: logprobs - old_logprobs is the logarithm of r.": lambda: summed(
            given, lambda r, a: clip_mask(r.log(), a, eps_low, eps_high) * r.log().clamp(max=max_weight)),
    }
    if eps_low == eps_high == INF:
        mistakes |= {
            "Nothing is left: with infinite bounds no token is masked.": weighted(lambda r, a: torch.zeros_like(r)),
            "All tokens with negative advantage are masked, although eps_low is infinite: the bound is 1 - "
            "eps_low, below "
            "every ratio.": weighted(lambda r, a: a >= 0),
            "All tokens with positive advantage are masked, although eps_high is infinite: the bound is 1 + "
            "eps_high, above "
            "every ratio.": weighted(lambda r, a: a <= 0),
        }
    if max_weight < INF:
        mistakes |= {
            "The weights are not capped: where r is above max_weight, the weight is max_weight.": weighted(right, INF),
            "The cap is 1 + max_weight: max_weight is the cap itself.": weighted(right, 1 + max_weight),
            "Tokens above max_weight are dropped: they weigh max_weight, only M drops tokens.":
                weighted(lambda r, a: right(r, a) * (r <= max_weight)),
            "The mask asks the capped ratio: it must ask r itself, or a token above the cap slips under 1 + eps_high.":
                weighted(lambda r, a: right(r.clamp(max=max_weight), a)),
        }
    if eps_low < INF or eps_high < INF:
        low = lambda r: r < 1 - eps_low  # noqa: E731
        high = lambda r: r > 1 + eps_high  # noqa: E731
        mistakes |= {
            "No token is masked: M is 0 where A > 0 and r > 1 + eps_high, and where A < 0 and r < 1 - eps_low.":
                weighted(lambda r, a: torch.ones_like(r)),
            "The mask is inverted: M is 1 where the gradient stays.": weighted(lambda r, a: 1 - right(r, a)),
            "The mask does not ask for the sign of A: r > 1 + eps_high is masked only where A > 0, r < 1 - "
            "eps_low only "
            "where A < 0.": weighted(lambda r, a: ~(low(r) | high(r))),
            "The signs of A are exchanged: r > 1 + eps_high is masked where A > 0, r < 1 - eps_low where A < 0.":
                weighted(lambda r, a: ~((a < 0) & high(r) | (a > 0) & low(r))),
            "The upper bound is asked where A < 0: r > 1 + eps_high is masked where A > 0.":
                weighted(lambda r, a: ~((a < 0) & (high(r) | low(r)))),
            "The lower bound is asked where A > 0: r < 1 - eps_low is masked where A < 0.":
                weighted(lambda r, a: ~((a > 0) & (high(r) | low(r)))),
            "eps_high stands in the place of eps_low: below, the bound is 1 - eps_low.":
                weighted(lambda r, a: clip_mask(r, a, eps_high, eps_high)),
            "eps_low stands in the place of eps_high: above, the bound is 1 + eps_high.":
                weighted(lambda r, a: clip_mask(r, a, eps_low, eps_low)),
            "eps_low and eps_high are exchanged.": weighted(lambda r, a: clip_mask(r, a, eps_high, eps_low)),
            "The upper bound is missing: M is 0 where A > 0 and r > 1 + eps_high.":
                weighted(lambda r, a: ~((a < 0) & low(r))),
            "The lower bound is missing: M is 0 where A < 0 and r < 1 - eps_low.":
                weighted(lambda r, a: ~((a > 0) & high(r))),
            "The bounds are taken for r itself: they are 1 + eps_high and 1 - eps_low.":
                weighted(lambda r, a: ~((a > 0) & (r > eps_high) | (a < 0) & (r < eps_low))),
            "The upper bound is taken for r itself: it is 1 + eps_high.":
                weighted(lambda r, a: ~((a > 0) & (r > eps_high) | (a < 0) & low(r))),
            "The lower bound is taken for r itself: it is 1 - eps_low.":
                weighted(lambda r, a: ~((a > 0) & high(r) | (a < 0) & (r < eps_low))),
            "The lower bound is 1 / (1 + eps_low): it is 1 - eps_low.":
                weighted(lambda r, a: ~((a > 0) & high(r) | (a < 0) & (r < 1 / (1 + eps_low)))),
            "The weight is clipped instead of masked: M takes such a token out altogether.": lambda: summed(
                given, lambda r, a: r.clamp(1 - eps_low, 1 + eps_high).clamp(max=max_weight)),
            "This is the value of PPO's loss, min(r A, clip(r) A): here the sum has M * sg(min(r, max_weight)) * "
            "A * log pi.":
                lambda: summed(given, lambda r, a: torch.minimum(r * a, r.clamp(1 - eps_low, 1 + eps_high) * a) / a,
                               lambda new, r: torch.ones_like(new)),
        }
    return mistakes


def unified_gradient_mistakes(**options) -> dict[str, Callable]:
    def attached(given: Batch) -> Tensor:
        new, old, a = (torch.where(given.mask, x.double(), 0.0) for x in given.tensors[:3])
        r = (new - old).exp()
        keep = clip_mask(r.detach(), a, options.get("eps_low", INF), options.get("eps_high", INF))
        each = keep * r.clamp(max=options.get("max_weight", INF)) * a * new
        return -torch.where(given.mask, each, 0.0).sum() / given.total_tokens

    return {"The value is right, but the gradient also flows through the weight: it is a constant, so detach the "
            "ratio.":
            attached}


# 12.3


class Stream:
    """Groups one at a time, and how many were taken."""

    def __init__(self, groups: list[tuple[str, list[float]]]) -> None:
        self.groups, self.taken = groups, 0

    def __iter__(self) -> "Stream":
        return self

    def __next__(self) -> tuple[str, list[float]]:
        if self.taken == len(self.groups):
            raise StopIteration
        self.taken += 1
        prompt, rewards = self.groups[self.taken - 1]
        return prompt, list(rewards)

    def __repr__(self) -> str:
        return f"<stream of {len(self.groups)} groups, at first {self.groups[0]}>"


def random_groups(probe: Probe, count: int, size: int = 4) -> list[tuple[str, list[float]]]:
    """About half of them flat: all right, all wrong, all alike in between; prompts come more than once."""
    groups = []
    for _ in range(count):
        kind, prompt = probe.size(0, 7), "pqrstu"[probe.size(0, 5)]
        mixed = [1.0] + [float(probe.size(0, 1)) for _ in range(size - 2)] + [0.0]
        fine = [1.0] * (size - 1) + [0.9375]
        far = [-1.0, 0.0] + [-0.5] * (size - 2)
        rewards = [mixed, [0.0] * size, [1.0] * size, fine, [0.5] * size, mixed[::-1], [-1.0] * size, far][kind]
        groups.append((prompt, rewards))
    return groups


def sampled(groups: list, wanted: int, limit: int) -> tuple[list, int]:
    """What should be kept, and how many drawn."""
    kept, drawn = [], 0
    while drawn < min(limit, len(groups)) and len(kept) < wanted:
        prompt, rewards = groups[drawn]
        drawn += 1
        if max(rewards) > min(rewards):
            kept.append((prompt, rewards))
    return kept, drawn


def dynamic_sampling(probe: Probe) -> None:
    start = [("a", [1.0, 1.0, 1.0, 1.0]), ("b", [0.0, 1.0, 0.0, 0.0]), ("c", [0.0] * 4)]
    cases = {
        "ten groups wanted": (start + random_groups(probe, 60), 10, 60),
        "one group wanted": (start + random_groups(probe, 20), 1, 20),
        "a limit that ends it": (start + random_groups(probe, 60), 30, 12 + probe.size(0, 5)),
        "a stream that ends": (start + random_groups(probe, 9), 20, 100),
        "rewards other than 0 and 1":
            ([("a", [0.5] * 3), ("a", [1.0, 0.9375, 1.0]), ("a", [-1.0] * 3), ("b", [2.0, 3.0, 2.0]),
                                        ("c", [0.25, 0.5, 0.75]), ("d", [-0.5, -1.0, -1.0]),
                                        ("e", [1.0, 0.0, 0.0])], 4, 7),
        "differences of a thousandth": ([("a", [0.1] * 7), ("a", [0.7, 0.701, 0.7]), ("b", [100.0, 100.001]),
                                         ("c", [0.3] * 3), ("d", [0.0, 1.0])], 3, 5),
        "a difference of sign, and one of half a millionth":
            ([("a", [0.5, -0.5]), ("b", [0.5, 0.5000005]), ("c", [0.25] * 3), ("d", [0.0, 1.0])], 3, 4),
        "groups of one": ([("a", [1.0]), ("b", [0.0]), ("c", [0.0, 1.0])], 1, 5),
        "nothing that varies": ([("a", [1.0, 1.0]), ("b", [0.0, 0.0])], 1, 5),
        "a limit below wanted": ([("a", [1.0, 0.0]), ("b", [1.0, 0.0]), ("c", [1.0, 0.0])], 3, 2),
    }
    for name, (groups, wanted, limit) in cases.items():
        may_end(probe, groups, wanted, limit)
        stream = Stream(groups)
        kept, drawn = probe.pair(probe.call(stream, wanted, limit), ("kept", "drawn"))
        if isinstance(kept, int) and isinstance(drawn, (list, tuple)):
            probe.require(False, "type", "The results have changed places: end with `return kept, drawn`.")
        if isinstance(drawn, float) and not drawn.is_integer():
            shown = "NaN" if math.isnan(drawn) else drawn
            probe.require(False, "finite", f"`drawn` is {shown}, expected a whole number.")
        expected, count = sampled(groups, wanted, limit)
        layer = "value" if name == "ten groups wanted" else "edge case"
        probe.equal(f"list kept ({name})", kept, expected, mistakes=OWN.get(name, kept_mistakes)(groups, wanted, limit),
                    layer=layer)
        probe.equal(f"number drawn ({name})", drawn, count, layer=layer, mistakes={
            "`drawn` counts the kept groups: it counts all that were taken from the stream.": len(expected),
            "`drawn` counts the groups that were left out: it counts all that were taken from the stream.":
                count - len(expected),
            "`drawn` is the index of the last group: indices count from 0, so it is one more.": count - 1,
            "`drawn` is one too large: it counts the groups that were taken from the stream, at most `limit`.":
                count + 1,
            "Groups were drawn `wanted` at a time: draw them one by one, and no more than needed.":
                math.ceil(count / wanted) * wanted,
        })
        probe.require(stream.taken <= count, "property",
                      f"{stream.taken} groups were taken from the stream where {count} were enough ({name}): each "
                      f"costs G "
                      "answers, so ask whether there are enough before drawing the next.")
        probe.require(stream.taken == count, "property",
                      f"`drawn` says {drawn}, but {stream.taken} groups were taken from the stream ({name}).")


def may_end(probe: Probe, groups: list, wanted: int, limit: int) -> None:
    """A stream that ends is told as what it is; whatever else is raised, the next call says."""
    try:
        probe.function(Stream(groups), wanted, limit)
    except StopIteration:
        probe.require(False, "edge case", "When the stream ends, next(stream) raises StopIteration, and nobody "
                                          "catches it: return "
                                          "what there is; `next(stream, None)` gives None instead, and a for "
                                          "loop ends.")
    except (Exception, SystemExit):
        pass


def kept_mistakes(groups: list, wanted: int, limit: int) -> dict[str, Callable]:
    def by(rule: Callable, wanted: int = wanted, limit: int = limit) -> Callable:
        def kept() -> list:
            found = [g for g in groups[:limit] if rule(g[1])]
            return found[:wanted]
        return kept

    varied = lambda r: max(r) > min(r)  # noqa: E731
    mean = lambda r: sum(r) / len(r)  # noqa: E731
    right = sampled(groups, wanted, limit)[0]
    return {
        "The groups that vary were left out, and the others kept: a group whose rewards are all equal teaches nothing.":
            by(lambda r: not varied(r)),
        "Every group was kept: those whose rewards are all equal have advantages of 0 and teach nothing.":
            by(lambda r: True),
        "Groups without a full success were left out: it is enough that rewards differ, whatever they are.":
            by(lambda r: varied(r) and max(r) >= 1.0),
        "Groups without a reward of 0 were left out: rewards need not be 0 and 1, it is enough that they differ.":
            by(lambda r: any(r) and not all(r)),
        "Groups were kept by their mean, between 0 and 1: rewards need not be 0 and 1; ask whether they differ.":
            by(lambda r: 0 < mean(r) < 1),
        "Groups were kept because not all rewards are 0: where all are right there is nothing to compare either.":
            by(any),
        "Groups were kept because not all rewards are 1: where all are wrong there is nothing to compare either.":
            by(lambda r: any(x != 1 for x in r)),
        "The first `wanted` groups were drawn and the flat ones left out, without refill: go on drawing until "
        "`wanted` are "
        "kept.": lambda: [g for g in groups[:min(wanted, limit)] if varied(g[1])],
        "One group too many was kept: stop as soon as there are `wanted`.": by(varied, wanted + 1),
        "One group too few was kept.": lambda: right[:-1],
        "All groups that vary were kept: stop as soon as there are `wanted`.": by(varied, len(groups)),
        "`limit` is ignored: draw no more than that.": by(varied, limit=len(groups)),
        "One group more than `limit` was drawn.": by(varied, limit=limit + 1),
        "The last group was drawn and not looked at: `limit` groups may be drawn.": by(varied, limit=limit - 1),
        "The prompts alone were kept: keep each group as it came, (prompt, rewards).": lambda: [p for p, _ in right],
        "The rewards alone were kept: keep each group as it came, (prompt, rewards).": lambda: [r for _, r in right],
        "The groups are in reverse order: keep them as they came.": lambda: right[::-1],
        "The groups were sorted: keep them in the order in which they came.": lambda: sorted(right),
        "Groups with the same prompt were kept only once: prompts play no role.":
            lambda: _first_of_each(groups, wanted, limit),
        "The first reward was compared with the last alone: a group varies if any two differ.":
            by(lambda r: r[0] != r[-1]),
        "`limit` counts the kept groups: it counts all that are drawn.": by(varied, min(wanted, limit), len(groups)),
    }


def _kept(groups: list, limit: int, rule: Callable) -> list:
    return [group for group in groups[:limit] if rule(group[1])]


OWN = {  # mistakes of cases that ask one thing only
    "differences of a thousandth": lambda groups, wanted, limit: {
        "A group whose rewards differ by a thousandth was left out: however small the difference, it is kept.":
            _kept(groups, limit, lambda r: max(r) - min(r) > 0.01)[:wanted],
        "A group of equal rewards was kept: compare the rewards themselves, since a mean, and what is computed "
        "from it, is "
        "rounded.": _kept(groups, limit, any)[:wanted],
    },
    "a difference of sign, and one of half a millionth": lambda groups, wanted, limit: {
        "Rewards of 0.5 and -0.5 were taken as equal: they differ.":
            _kept(groups, limit, lambda r: len({abs(x) for x in r}) > 1)[:wanted],
        "A group whose rewards differ by half a millionth was left out: however small the difference, it is kept.":
            _kept(groups, limit, lambda r: max(r) - min(r) > 1e-6)[:wanted],
    },
    "groups of one": lambda groups, wanted, limit: {
        "A group of one answer was kept: there is nothing to compare it with, all its rewards are equal.":
            _kept(groups, limit, lambda r: True)[:wanted],
    },
}


def _first_of_each(groups: list, wanted: int, limit: int) -> list:
    found = {}
    for prompt, rewards in groups[:limit]:
        if max(rewards) > min(rewards) and prompt not in found and len(found) < wanted:
            found[prompt] = (prompt, rewards)
    return list(found.values())


# 12.4


def overlong_penalty(probe: Probe) -> None:
    buffer = 2 ** probe.size(2, 4)
    cases = ((100, 20), (72, 16), (40 + probe.size(0, 20), buffer), (30, 1), (12, 12), (25, 0), (5, 0))
    for number, (longest, buffer) in enumerate(cases):
        divides(probe, longest, buffer)
        lengths = torch.arange(0, longest + 25)
        values = [_number(probe, probe.call(int(n), longest, buffer)) for n in lengths]
        name = f"penalty, max_length {longest} and buffer {buffer}"
        probe.close(name, torch.tensor(values, dtype=torch.float64), penalty(lengths, longest, buffer), axes="T",
                    mistakes=penalty_mistakes(lengths, longest, buffer), tolerance=1e-9,
                    layer="value" if number < 3 else "edge case")


def divides(probe: Probe, longest: int, buffer: int) -> None:
    """A division by a buffer of 0 is told as what it is; whatever else is raised, the next call says."""
    try:
        for length in (0, longest, longest + 1):
            probe.function(length, longest, buffer)
    except ZeroDivisionError:
        probe.require(buffer > 0, "edge case", "With buffer 0 you divide by it: there is no slope then. Ask for "
                                               "`length <= max_length - buffer`, 0, and for `length >= max_length`, "
                                               "-1, before you divide.")
    except (Exception, SystemExit):
        pass


def _number(probe: Probe, value) -> float:
    probe.require(not isinstance(value, Tensor), "type", "overlong_penalty returned a tensor, expected a Python "
                                                         "number: take it "
                                                         "out with `.item()`, or use Python's min and max.")
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        kind = "None" if value is None else type(value).__name__
        probe.require(False, "type", f"overlong_penalty returned {kind}, expected a number such as -0.5.")
    probe.require(math.isfinite(value), "finite", f"overlong_penalty returned {'NaN' if math.isnan(value) else value}.")
    return float(value)


def penalty(lengths: Tensor, longest: int, buffer: int) -> Tensor:
    start = longest - buffer
    slope = (start - lengths.double()) / max(buffer, 1)
    return torch.where(lengths <= start, 0.0, torch.where(lengths >= longest, -1.0, slope))


def penalty_mistakes(lengths: Tensor, longest: int, buffer: int) -> dict[str, Callable]:
    n, start = lengths.double(), longest - buffer
    right = penalty(lengths, longest, buffer)
    slope = (start - n) / max(buffer, 1)
    return {
        "The sign is wrong: the penalty is added to the reward, so it is negative.": -right,
        "With buffer 0 an answer of exactly max_length tokens is charged: `n <= max_length - buffer` comes first.":
            torch.where(lengths >= longest, -1.0, right),
        "There is no floor: beyond max_length it stays -1.": torch.where(n <= start, 0.0, slope),
        "Short answers are rewarded: up to max_length - buffer it is 0.": slope.clamp(min=-1.0),
        "There is no slope: between max_length - buffer and max_length it falls linearly (`//` would make whole "
        "numbers of it).":
            torch.where(n <= start, 0.0, -1.0).double(),
        "There is no slope: the penalty begins before max_length.": torch.where(n >= longest, -1.0, 0.0).double(),
        "There is no slope: the penalty begins before max_length, and at max_length it is -1.":
            torch.where(n > longest, -1.0, 0.0).double(),
        "Beyond max_length there is no penalty: it is -1 there.": torch.where(n > longest, 0.0, right),
        "At max_length itself the penalty is lost: it is -1 there.": torch.where(n == longest, 0.0, right),
        "The slope falls from -1 to 0: at the start of the buffer it is 0, at max_length it is -1.":
            torch.where((n > start) & (n < longest), -1 - slope, right),
        "The slope is divided by max_length: it falls to -1 over `buffer` tokens.":
            torch.where((n > start) & (n < longest), slope * buffer / longest, right),
        "The slope is divided by max_length - buffer: it falls to -1 over `buffer` tokens.":
            torch.where((n > start) & (n < longest), slope * buffer / max(start, 1), right),
        "The slope is not divided by `buffer`: it falls to -1 over that many tokens, not by 1 for each.":
            torch.where(n > start, (start - n).clamp(min=-1), 0.0),
        "The slope is cut to whole numbers: it falls linearly.":
            torch.where((n > start) & (n < longest), slope.ceil(), right),
        "The slope begins at max_length: it ends there, and begins `buffer` tokens earlier.":
            ((longest - n) / max(buffer, 1)).clamp(-1, 0),
        "The slope begins at `buffer` tokens: it begins at max_length - buffer.":
            ((buffer - n) / max(buffer, 1)).clamp(-1, 0),
        "The slope begins one token too early: at max_length - buffer it is still 0.":
            torch.where(n >= start, ((start - n - 1) / max(buffer, 1)).clamp(min=-1), 0.0),
        "The slope begins one token too late.": torch.where(n <= start, 0.0, torch.where(
            n >= longest, -1.0, (start - n + 1) / max(buffer, 1))),
        "The slope has the wrong sign: the penalty is added to the reward, so it is negative.":
            torch.where((n > start) & (n < longest), -slope, right),
        "The slope is not divided by `buffer`: it falls to -1 over that many tokens.":
            torch.where((n > start) & (n < longest), start - n, right),
        "The slope begins at `buffer` tokens, and ends at max_length: it begins at max_length - buffer.":
            torch.where(n <= buffer, 0.0, torch.where(n >= longest, -1.0, (buffer - n) / max(buffer, 1))),
        "The slope is one token too low: at max_length - buffer + 1 it is -1 / buffer.":
            torch.where((n > start) & (n < longest), (start - n - 1) / max(buffer, 1), right),
        "The slope is squared: it falls linearly.": torch.where((n > start) & (n < longest), -slope.square(), right),
    }


EXERCISES = (
    Exercise("12.1", "policy_loss", "The CISPO loss", policy_loss, lambda: cispo_loss, points=(1, 3),
             part="policy_loss"),
    Exercise("12.2", "unified_loss", "One formula for both", unified_loss, lambda: _unified_reference),
    Exercise("12.3", "dynamic_sampling", "Dynamic sampling", dynamic_sampling, lambda: _sampling_reference),
    Exercise("12.4", "overlong_penalty", "The overlong penalty", overlong_penalty, lambda: package_penalty),
)


# What stands in for a learner's function


def _unified_reference(logprobs, old_logprobs, advantages, mask, *, total_tokens,
                       max_weight=INF, eps_low=INF, eps_high=INF):
    new, old, a = (x.masked_fill(~mask, 0.0) for x in (logprobs, old_logprobs, advantages))
    ratio = (new - old).exp().detach()
    masked = (a > 0) & (ratio > 1 + eps_high) | (a < 0) & (ratio < 1 - eps_low)
    return -(ratio.clamp(max=max_weight) * a * new).masked_fill(masked, 0.0).sum() / total_tokens


def _sampling_reference(stream, wanted, limit):
    kept, drawn = [], 0
    while len(kept) < wanted and drawn < limit:
        group = next(stream, None)
        if group is None:
            break
        drawn += 1
        if len(set(group[1])) > 1:
            kept.append(group)
    return kept, drawn
