"""Checks of chapter 13: mismatch statistics, the repetition stop, the stage gate, the length-bias detector.

B batch, T time, R outputs, N rollout batches. What is right, and what mistakes would give, is computed in fp64.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from minim1.course.checking import Exercise, Probe

NO_AXES = "?"  # a list of rollout batches has no letter of its own


def number(probe: Probe, name: str, value: Any, expected: float, *, mistakes: Mapping[str, Any] | None = None,
           layer: str = "value", tolerance: float = 1e-9, coarse: str = "") -> None:
    """`Probe.close` for a Python number. coarse: what to say when only its first digits are right."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        probe.equal(name, value, expected)  # ends the check: the type is wrong
    nan = f"The {name} is NaN, expected {expected:.6g}: look for 0 / 0, or for NaN that should not count."
    probe.require(not math.isnan(value), "finite", nan)
    if math.isinf(value) or math.isinf(expected):
        return probe.equal(name, value, expected, layer=layer) if value == expected else probe.require(
            False, layer, f"The {name} is {value:.6g}, expected {expected:.6g}.")
    value, expected = _double(value), _double(expected)
    wrong = {sentence: lambda other=other: _double(other() if callable(other) else other)
             for sentence, other in (mistakes or {}).items()}
    if coarse:
        near = (value - expected).abs() < 1e-3 * expected.abs()
        wrong[f"The {name} is right in its first digits only: {coarse}"] = value if near else expected + math.inf
    probe.close(name, value, expected, mistakes=wrong, layer=layer, tolerance=tolerance)


def _double(value: float) -> Tensor:
    return torch.tensor(float(value), dtype=torch.float64)


# 13.1

KEYS = ("pearson", "mean_dp", "max_dp", "mean_dlogp")
SIGN = "pearson has lost its sign: probabilities that run against each other have a negative correlation."
IN_FP64 = "it was computed in fp32 or bf16; convert with .double() before the exponential and before any difference."


def correlation(x: Tensor, y: Tensor) -> float:
    """Pearson's; NaN for a constant."""
    if (x == x[0]).all() or (y == y[0]).all():
        return math.nan
    a, b = x - x.mean(), y - y.mean()
    return ((a * b).sum() / ((a * a).sum() * (b * b).sum()).sqrt()).item()


def expected_mismatch(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> dict[str, float]:
    x, y = logprobs.detach().double()[mask], old_logprobs.double()[mask]
    gap = (x.exp() - y.exp()).abs()
    return {"pearson": correlation(x.exp(), y.exp()), "mean_dp": gap.mean().item(), "max_dp": gap.max().item(),
            "mean_dlogp": (x - y).abs().mean().item()}


def mismatch(probe: Probe) -> None:
    given = token_pair(probe, 3, 2 * probe.size(5, 9) + 1)
    statistics(probe, given, mistakes=mismatch_mistakes(*given))
    statistics(probe, token_pair(probe, 2, 2 * probe.size(5, 9)), "a second call", layer="property")
    double = [x.double() if x.is_floating_point() else x for x in token_pair(probe, 2, 13)]
    statistics(probe, double, "float64 inputs", layer="property")
    x, y, mask = token_pair(probe, 2, 15)
    statistics(probe, (x, y.bfloat16(), mask), "bf16 old_logprobs", layer="property")
    statistics(probe, (x.bfloat16(), y, mask), "bf16 logprobs", layer="property")
    near = (1e-3 * torch.sigmoid(probe.random(2, 4, 9))).neg()
    statistics(probe, (*near, torch.ones(4, 9, dtype=torch.bool)), "probabilities near 1", layer="property")
    statistics(probe, (x.clone().requires_grad_(), y, mask), "logprobs with a gradient", layer="property")
    swapped = torch.log(torch.tensor([[0.1, 0.3, 0.2, 0.7]])), torch.log(torch.tensor([[0.8, 0.3, 0.5, 0.2]]))
    statistics(probe, (*swapped, torch.ones(1, 4, dtype=torch.bool)), "probabilities that run against each other",
               layer="property")
    edges(probe)


def edges(probe: Probe) -> None:
    x, y, mask = token_pair(probe, 2, 15)
    for what, junk in (("NaN", math.nan), ("infinity", math.inf), ("minus infinity", -math.inf)):
        spoilt = [torch.where(mask, values, junk) for values in (x, y)]
        for name, pair in (("logprobs", (spoilt[0], y)), ("old_logprobs", (x, spoilt[1]))):
            value, expected = probe.call(*pair, mask), expected_mismatch(*pair, mask)
            checked = all(isinstance(value.get(key), float) and math.isclose(value[key], expected[key], rel_tol=1e-9)
                          for key in KEYS)
            probe.require(
                checked, "edge case", f"With {what} in {name} where mask is False the result changes: choose the "
                                      f"masked tokens first, as x[mask] does; 0 times {what} is not 0.")
    tenth = torch.full_like(x, 0.1).log()
    alone = torch.zeros_like(mask).index_put((torch.tensor([1]), torch.tensor([3])), torch.tensor(True))
    cases = (("all masked logprobs equal", (torch.where(mask, tenth, x), y, mask)),
             ("all masked old_logprobs equal", (x, torch.where(mask, tenth, y), mask)),
             ("all of both equal", (torch.where(mask, tenth, x), torch.where(mask, tenth, y), mask)),
             ("one token alone", (x, y, alone)))
    for what, given in cases:
        value, expected = probe.call(*given), expected_mismatch(*given)
        probe.require(
            isinstance(value["pearson"], float) and math.isnan(value["pearson"]), "edge case",
            f"With {what} pearson is {value['pearson']}: a constant has no correlation with anything, the result must "
            "be float(\"nan\"). Compare the probabilities with one another; a variance may be 1e-33 by rounding.")
        for key in KEYS[1:]:
            number(probe, f"{key}, {what}", value[key], expected[key], layer="edge case")


def token_pair(probe: Probe, rows: int, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    """logprobs, old_logprobs, mask: rows of different length, padding that would show, the largest gap negative."""
    old = -(probe.random(rows, tokens).abs() + 0.2)
    new = (old + 0.3 * probe.random(rows, tokens)).clamp(max=-0.01)
    place = torch.arange(tokens)
    ends = torch.tensor([tokens - 1 - 3 * row for row in range(rows)]).unsqueeze(1)
    mask = (place >= 2) & (place < ends)
    old[0, 3], new[0, 3] = math.log(0.9), math.log(0.15)
    old[~mask], new[~mask] = math.log(0.99), math.log(0.011)
    return new, old, mask


def statistics(probe: Probe, given: Sequence[Tensor], what: str = "", *, layer: str = "value",
               mistakes: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    value, expected = probe.call(*given), expected_mismatch(*given)
    kind = "None" if value is None else f"a {type(value).__name__}"
    wanted = f"mismatch returned {kind}, expected a dict with the keys {', '.join(KEYS)}."
    probe.require(isinstance(value, dict), "type", wanted)
    missing, keys = [key for key in KEYS if key not in value], ", ".join(map(str, value))
    probe.require(not missing, "type", f"The dict has no key {' and no '.join(missing)}; its keys are {keys}.")
    sign = {"pearson": {SIGN: abs(expected["pearson"])}} if expected["pearson"] < 0 else {}
    for key in KEYS:
        number(probe, f"{key}, {what}" if what else key, value[key], expected[key], layer=layer, coarse=IN_FP64,
               mistakes=(mistakes or sign).get(key))


def mismatch_mistakes(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> dict[str, dict[str, Any]]:
    """Key -> sentence -> number."""
    every = torch.ones_like(mask)
    x, y = logprobs.double()[mask], old_logprobs.double()[mask]
    p, old, count = x.exp(), y.exp(), len(x)
    share, ratio = count / mask.numel(), (x - y).exp()
    right, padded = expected_mismatch(logprobs, old_logprobs, mask), expected_mismatch(logprobs, old_logprobs, every)
    rows = [expected_mismatch(*(z[r : r + 1] for z in (logprobs, old_logprobs, mask))) for r in range(len(mask))]
    zeroed = (logprobs.double() * mask, old_logprobs.double() * mask)
    numbers = [z.double().exp() * mask for z in (logprobs, old_logprobs)]
    average = "divide by the number of masked tokens, not by B * T."
    counted = "{} counts tokens where mask is False: only sampled tokens belong to it."
    by_row = "{} is the average of the rows' values: take all masked tokens together, a long row counts for more."
    signed = "The differences cancel: take the absolute value of each before the mean."

    def squares(values: Tensor) -> float:
        return (values - values.mean()).square().sum().item()

    found = {
        "pearson": {
            counted.format("pearson"): padded["pearson"],
            "pearson counts a pair of zeros for each token where mask is False: choose the masked tokens first.":
                correlation(*(z.flatten() for z in numbers)),
            "pearson counts a pair of ones for each token where mask is False: choose the masked tokens first.":
                correlation(*(z.exp().flatten() for z in zeroed)),
            "pearson is the correlation of the log-probabilities: take the exponential first.": correlation(x, y),
            "pearson is not centred: subtract each mean before multiplying (yours is the cosine).":
                (p @ old / (p.norm() * old.norm())).item(),
            "pearson is squared: it is r itself, not r².": right["pearson"] ** 2,
            "pearson is 1 - r: 1 means that both agree.": 1 - right["pearson"],
            "pearson is the covariance: divide by both standard deviations.":
                ((p - p.mean()) * (old - old.mean())).mean().item(),
            "pearson mixes n and n - 1: yours is r times (n - 1) / n.": right["pearson"] * (count - 1) / count,
            "pearson mixes n and n - 1: yours is r times n / (n - 1).": right["pearson"] * count / (count - 1),
            "pearson lacks a root: divide by the root of the product of both sums of squares.":
                right["pearson"] / (squares(p) * squares(old)) ** 0.5,
            by_row.format("pearson"): sum(r["pearson"] for r in rows) / len(rows),
            "pearson is the slope of a line, not the correlation: divide by both standard deviations.":
                right["pearson"] * (squares(p) / squares(old)) ** 0.5,
            "pearson is the correlation of the ranks (Spearman's): it is that of the probabilities.":
                correlation(p.argsort().argsort().double(), old.argsort().argsort().double()),
        },
        "mean_dp": {
            counted.format("mean_dp"): padded["mean_dp"],
            f"mean_dp is too small: {average}": right["mean_dp"] * share,
            signed: (p - old).mean().item(),
            "mean_dp is the absolute value of a mean: take the absolute value of each difference.":
                abs((p - old).mean().item()),
            "mean_dp is that of the log-probabilities: take the exponential first.": right["mean_dlogp"],
            "mean_dp is relative: it is abs(p - p_old), divided by nothing.": ((p - old).abs() / old).mean().item(),
            "mean_dp is relative: it is abs(p - p_old), divided by neither probability.":
                ((p - old).abs() / p).mean().item(),
            "mean_dp is a root of a mean square: take the mean of the absolute values.":
                (p - old).square().mean().sqrt().item(),
            "mean_dp is a mean square: take the mean of the absolute values.": (p - old).square().mean().item(),
            "mean_dp is a sum: divide by the number of masked tokens.": right["mean_dp"] * count,
            "mean_dp is a median, expected the mean.": (p - old).abs().median().item(),
            by_row.format("mean_dp"): sum(r["mean_dp"] for r in rows) / len(rows),
        },
        "max_dp": {
            counted.format("max_dp"): padded["max_dp"],
            "max_dp is the largest p - p_old with its sign: a token whose probability fell counts as much.":
                (p - old).max().item(),
            "max_dp is the largest p_old - p with its sign: a token whose probability rose counts as much.":
                (old - p).max().item(),
            "max_dp is that of the log-probabilities: take the exponential first.": (x - y).abs().max().item(),
            "max_dp is the difference of the two largest probabilities: take the largest difference of the same token.":
                abs(p.max() - old.max()).item(),
            "max_dp is relative: it is abs(p - p_old), divided by nothing.": ((p - old).abs() / old).max().item(),
            "max_dp is the smallest difference, expected the largest.": (p - old).abs().min().item(),
            "max_dp is that of the ratio p / p_old from 1, expected that of the probabilities.":
                (ratio - 1).abs().max().item(),
        },
        "mean_dlogp": {
            counted.format("mean_dlogp"): padded["mean_dlogp"],
            f"mean_dlogp is too small: {average}": right["mean_dlogp"] * share,
            signed.replace("The differences", "The differences of the log-probabilities"): (x - y).mean().item(),
            "The differences of the log-probabilities, old minus new, cancel: take the absolute value of each.":
                (y - x).mean().item(),
            "mean_dlogp is that of the probabilities: the inputs are log-probabilities already, leave them so.":
                right["mean_dp"],
            "mean_dlogp is that of the ratio from 1: take abs(logprobs - old_logprobs).":
                (ratio - 1).abs().mean().item(),
            "mean_dlogp is an estimate of a KL divergence (r - 1 - log r): take abs(logprobs - old_logprobs).":
                (ratio - 1 - (x - y)).mean().item(),
            "mean_dlogp is a mean square: take the mean of the absolute values.": (x - y).square().mean().item(),
            "mean_dlogp is a root of a mean square: take the mean of the absolute values.":
                (x - y).square().mean().sqrt().item(),
            "mean_dlogp is the difference of the logarithms of mean probabilities: take each token's difference first.":
                (p.mean().log() - old.mean().log()).abs().item(),
            "mean_dlogp is a sum: divide by the number of masked tokens.": right["mean_dlogp"] * count,
            "mean_dlogp is the largest difference, expected the mean.": (x - y).abs().max().item(),
            by_row.format("mean_dlogp"): sum(r["mean_dlogp"] for r in rows) / len(rows),
        },
    }
    return found


# 13.2


def stops(probabilities: Tensor, lengths: Tensor, window: int = 3000, threshold: float = 0.99, *,
          above: Callable | None = None, early: int = 0, consecutive: bool = True, padding: bool = False,
          last: str = "") -> Tensor:
    """The rule row by row, and with the mistakes that one might make; last: "window" or "run" of a row decides."""
    above, kept = above or (lambda p: p > threshold), []
    for row, length in zip(probabilities.tolist(), lengths.tolist()):
        run, found = 0, length
        for t in range(len(row) if padding else length):
            run = run + 1 if above(row[t]) else run if not consecutive else 0
            if run == window + early or last == "run" and run >= window:
                found = t + 1
                if not last:
                    break
        kept.append(found)
    return torch.tensor(kept)


def repetition_stop(probe: Probe) -> None:
    threshold, window = 0.75, probe.size(3, 5)
    for given in (runs(probe, window), [x.flip(0) for x in runs(probe, window, rows=5)]):
        value = probe.call(*given, window=window, threshold=threshold)
        probe.close("number of tokens kept", value, stops(*given, window, threshold), axes="B",
                    mistakes=stop_mistakes(*given, window, threshold))
    one = [x[1:2] for x in given]
    probe.close("number of tokens kept of one row alone", probe.call(*one, window=window, threshold=threshold),
                stops(*one, window, threshold), axes="B", layer="property")
    double = given[0].double(), given[1]
    probe.close("number of tokens kept, float64 inputs", probe.call(*double, window=window, threshold=threshold),
                stops(*double, window, threshold), axes="B", layer="property")
    for other in (1, 2, given[0].shape[1], given[0].shape[1] + 5):
        probe.close(f"number of tokens kept, window {other}", probe.call(*given, window=other, threshold=threshold),
                    stops(*given, other, threshold), axes="B", layer="edge case",
                    mistakes=stop_mistakes(*given, other, threshold))
    junk = torch.where(torch.arange(given[0].shape[1]) < given[1].unsqueeze(1), given[0], math.nan)
    value = probe.call(junk, given[1], window=window, threshold=threshold)
    probe.close("number of tokens kept with NaN in the padding", value,
                stops(*given, window, threshold), axes="B", layer="edge case")
    none = given[0], torch.zeros_like(given[1])
    value = probe.call(*none, window=window, threshold=threshold)
    probe.close("number of tokens kept of rows of length 0", value, none[1], axes="B", layer="edge case")
    exact(probe)
    long = torch.ones(2, 3010)
    long[1, 7], long[0, 3005:] = 0.99 - 1e-4, 0.0
    lengths = torch.tensor([3010, 3007])
    probe.close("number of tokens kept with the defaults, window 3000 and threshold 0.99", probe.call(long, lengths),
                stops(long, lengths), axes="B", layer="edge case")


def exact(probe: Probe) -> None:
    """Rows that stand on the boundaries of the card."""
    p = torch.tensor([[0.9, 0.9, 0.1, 0.9, 0.9, 0.9], [0.9, 0.9, 0.1, 0.9, 0.9, 0.9], [0.9, 0.9, 0.9, 0.1, 0.1, 0.1],
                      [0.1, 0.1, 0.1, 0.9, 0.9, 0.9], [0.1, 0.1, 0.9, 0.9, 0.9, 0.1], [0.9, 0.9, 0.75, 0.9, 0.9, 0.1],
                      [0.1, 0.1, 0.750001, 0.750001, 0.750001, 0.1]])
    lengths = torch.tensor([4, 5, 6, 6, 6, 6, 6])
    probe.close("number of tokens kept at the boundaries", probe.call(p, lengths, window=3, threshold=0.75),
                stops(p, lengths, 3, 0.75), axes="B", layer="edge case", mistakes=stop_mistakes(p, lengths, 3, 0.75))


def runs(probe: Probe, window: int, rows: int = 3) -> tuple[Tensor, Tensor]:
    """Probabilities in runs above and below 0.75, some equal to it; sure padding; a second full window."""
    tokens = 4 * window + 9
    p = torch.where(probe.random(rows, tokens) > -0.6, 0.95, 0.5)
    p = torch.where(probe.random(rows, tokens) > 1.2, 0.75, p)
    start = window + 2
    p[0, :start], p[0, start : start + window] = 0.5, 0.9  # one window, closed by a miss, and later one more
    p[0, start + window], p[0, -window - 2 :] = 0.5, 0.99
    p[1] = torch.where(torch.arange(tokens) % window == 0, 0.6, 0.9)  # never a whole window
    lengths = torch.tensor([tokens, tokens - 2] + [tokens - 3 * window + row for row in range(rows - 2)])
    p = torch.where(torch.arange(tokens) < lengths.unsqueeze(1), p, 1.0)
    return p, lengths


def stop_mistakes(p: Tensor, lengths: Tensor, window: int, threshold: float) -> dict[str, Callable]:
    right = stops(p, lengths, window, threshold)
    stopped = torch.zeros_like(lengths, dtype=torch.bool)
    for row in range(len(p)):
        length = int(lengths[row])
        sure = [x > threshold for x in p[row, :length].tolist()]
        stopped[row] = any(all(sure[t : t + window]) for t in range(length - window + 1))
    means = [[sum(row[t : t + window]) / window for t in range(n - window + 1)]
             for row, n in zip(p.tolist(), lengths.tolist())]

    def where(value: Tensor) -> Callable:
        return lambda: torch.where(stopped, value, lengths)

    return {
        "A token whose probability equals the threshold counts, but only those above it do: > and not >=.":
            lambda: stops(p, lengths, window, threshold, above=lambda x: x >= threshold),
        "The count never starts again: tokens must be consecutive, one at or below the threshold sets it to 0.":
            lambda: stops(p, lengths, window, threshold, consecutive=False),
        "Padding counts: tokens from lengths[row] on are not there.":
            lambda: stops(p, lengths, window, threshold, padding=True),
        "Padding counts, and a row may end up longer than it is: tokens from lengths[row] on are not there.":
            lambda: stops(p, torch.full_like(lengths, p.shape[1]), window, threshold),
        "A row that is never stopped keeps its lengths[row] tokens; yours keeps all T.":
            lambda: torch.where(stopped, right, p.shape[1]),
        "A row that is never stopped keeps its lengths[row] tokens; yours keeps none.":
            lambda: torch.where(stopped, right, 0),
        "A row that is never stopped keeps its lengths[row] tokens; yours gives -1.":
            lambda: torch.where(stopped, right, -1),
        "Rows stop one token too late: `window` tokens in a row are enough.":
            lambda: stops(p, lengths, window, threshold, early=1),
        "Rows stop one token too early: it takes `window` tokens in a row.":
            lambda: stops(p, lengths, window, threshold, early=-1),
        "The result is the index of the last token kept, counted from 0: one more is their number.": where(right - 1),
        "The token that completes the window is left out, and rows that are never stopped lose one too.":
            lambda: right - 1,
        "The result is where the window begins: those tokens are written before anybody knows, so they are kept.":
            where(right - window),
        "The last full window of a row counts; the first one stops it.":
            lambda: stops(p, lengths, window, threshold, last="window"),
        "The end of the last run of sure tokens counts; the first full window stops the row.":
            lambda: stops(p, lengths, window, threshold, last="run"),
        "The mean of a window is compared with the threshold; every one of its tokens must be above it.":
            lambda: torch.tensor([next((t + window for t, x in enumerate(row) if x > threshold), n)
                                  for row, n in zip(means, lengths.tolist())]),
        "All rows stop where the first of them does: each has a count of its own.":
            lambda: torch.minimum(lengths, right[stopped].min() if stopped.any() else lengths.max()),
        "The tokens below the threshold are counted; degenerate text is what the model is too sure of.":
            lambda: stops(p, lengths, window, threshold, above=lambda x: x < threshold),
        "Your window is full one token late, and the index counts from 0: `window` tokens, and their number.":
            lambda: torch.where(stopped, stops(p, lengths, window, threshold, early=1), lengths),
    }


# 13.3


def percentile(lengths: Sequence[int], share: float) -> float:
    """By linear interpolation."""
    ordered, place = sorted(lengths), share * (len(lengths) - 1)
    low = math.floor(place)
    return ordered[low] + (place - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


def drift(perplexities: Sequence[float], patience: int) -> float:
    if len(perplexities) < 2 * patience:
        return math.inf
    old, new = (sum(part) / patience for part in (perplexities[-2 * patience : -patience], perplexities[-patience:]))
    return abs(new - old) / old


def stage_gate(probe: Probe) -> None:
    patience = probe.size(2, 4)
    lengths = torch.randint(5, 4000, (2 * probe.size(60, 80),), generator=probe.generator)
    near, far = round(percentile(lengths.tolist(), 0.99) / 0.95), round(2 * percentile(lengths.tolist(), 0.99))
    noise = probe.random(2 * patience + 1).abs().tolist()
    falling = [9.0, 7.5, *(3 + 2 / (1 + t) + 0.1 * x for t, x in enumerate(noise))]
    rising = [2.0, *(3 + 0.2 * t for t in range(2 * patience))]
    for what, series in (("falling perplexity", falling), ("rising perplexity", rising)):
        gate(probe, what, series, lengths, near, patience=patience)
    flat = [8.0, *(4 + 0.01 * x for x in probe.random(2 * patience).tolist())]
    gate(probe, "converged and near the window", flat, lengths, near, patience=patience)
    gate(probe, "converged, far from the window", flat, lengths, far, patience=patience)
    gate(probe, "not converged, near the window", falling, lengths, near, patience=patience)
    gate(probe, "not converged, far from the window", rising, lengths, far, patience=patience)
    change = drift(rising, patience)
    for factor in (0.97, 1.03):  # of what decides
        gate(probe, f"a tolerance of {factor} times the change", rising, lengths, 40, patience=patience,
             tolerance=factor * change, closeness=0.5)
        gate(probe, f"a closeness of {factor} times p99 / window", flat, lengths, 80, patience=patience,
             closeness=factor * percentile(lengths.tolist(), 0.99) / 80)
    gate(probe, "the defaults", [4.0, 4.1, 3.9, 4.05, 3.95, 4.02], lengths, near)
    gate(probe, "the defaults and a change of 3 %", [4.0, 4.0, 4.0, 4.12, 4.12, 4.12], lengths, near)
    edge = dict(layer="edge case", patience=patience)
    for count in (0, 1, patience, 2 * patience - 1):
        gate(probe, f"{count} perplexities, patience {patience}", flat[:count], lengths, near, **edge)
    gate(probe, "exactly 2 * patience perplexities", flat[1:], lengths, near, **edge)
    gate(probe, "patience 1", [5.0, 4.0, 4.01], lengths, near, layer="edge case", patience=1)
    gate(probe, "no change at all and tolerance 0", [4.0] * 8, lengths, near, tolerance=0.0, **edge)
    gate(probe, "one output, as long as closeness * window", flat, torch.tensor([20]), 40, closeness=0.5, **edge)
    gate(probe, "one output, shorter than closeness * window", flat, torch.tensor([19]), 40, closeness=0.5, **edge)


SWAPPED = "change and p99 have changed places: end with `return move_on, change, p99`."


def gate(probe: Probe, what: str, perplexities: list[float], lengths: Tensor, window: int, *, layer: str = "value",
         **options) -> None:
    given = list(perplexities)
    value = probe.pair(probe.call(given, lengths, window, **options), ("move_on", "change", "p99"))
    probe.require(given == list(perplexities), "property",
                  "stage_gate changed the list of perplexities in place; whoever called it still needs it.")
    move_on, change, p99 = value
    patience, tolerance, closeness = (options.get(name, default) for name, default in
                                      (("patience", 3), ("tolerance", 0.02), ("closeness", 0.9)))
    expected, nearest = drift(perplexities, patience), percentile(lengths.tolist(), 0.99)
    number(probe, f"p99, {what}", p99, nearest, layer=layer, tolerance=1e-6,
           mistakes=percentile_mistakes(lengths, window) | {SWAPPED: expected})
    if math.isinf(expected):
        probe.require(isinstance(change, float) and change == math.inf, layer,
                      f"With {what} the change is {change}, expected math.inf: there are fewer than 2 * patience, and "
                      "nothing can be said yet.")
    else:
        number(probe, f"change, {what}", change, expected, layer=layer, tolerance=1e-9 if expected else 1e-12,
               mistakes=drift_mistakes(perplexities, patience))
    converged, close = expected <= tolerance, nearest >= closeness * window
    probe.require(not isinstance(move_on, Tensor), "type",
                  "move_on is a tensor, expected True or False of Python: `bool(...)` makes one of it.")
    probe.equal(f"move_on, {what}", move_on, converged and close, layer=layer, mistakes=move_mistakes(
        converged, close, expected == tolerance, nearest == closeness * window, what))


def percentile_mistakes(lengths: Tensor, window: int) -> dict[str, Any]:
    ordered = sorted(lengths.tolist())
    n = len(ordered)
    right = percentile(ordered, 0.99)
    at = lambda index: float(ordered[max(0, min(n - 1, index))])  # noqa: E731
    return {
        "p99 is the longest output: take the 99th percentile, which one runaway cannot move alone.": at(n - 1),
        "p99 is the mean length: take the 99th percentile.": sum(ordered) / n,
        "p99 is the median length: take the 99th percentile.": percentile(ordered, 0.5),
        "p99 is the 90th percentile, not the 99th.": percentile(ordered, 0.9),
        "p99 is the 95th percentile, not the 99th.": percentile(ordered, 0.95),
        "p99 is the 1st percentile: the sorting runs backwards.": percentile(ordered, 0.01),
        "p99 is an entry of the list: interpolate between the two nearest, as torch.quantile does.":
            lambda: at(math.floor(0.99 * (n - 1))),
        "p99 is an entry of the list, int(0.99 * R): interpolate between the two nearest, as torch.quantile does.":
            lambda: at(int(0.99 * n)),
        "p99 is an entry of the list, the one above: interpolate between the two nearest, as torch.quantile does.":
            lambda: at(math.ceil(0.99 * (n - 1))),
        "p99 is the entry before: interpolate between the two nearest, as torch.quantile does.":
            lambda: at(math.ceil(0.99 * n) - 2),
        "p99 is the mean of the two nearest entries: interpolate linearly, as torch.quantile does.":
            lambda: (at(math.floor(0.99 * (n - 1))) + at(math.ceil(0.99 * (n - 1)))) / 2,
        "p99 is not interpolated from the sorted lengths: sort them first.":
            lambda: float(lengths.tolist()[int(0.99 * (n - 1))]),
        "p99 is divided by the window: return the length itself, in tokens.": right / window,
    }


def drift_mistakes(perplexities: Sequence[float], patience: int) -> dict[str, Any]:
    new, old = perplexities[-patience:], perplexities[-2 * patience : -patience]
    a, b, rest = sum(new) / patience, sum(old) / patience, perplexities[:-patience]
    return {
        "The change has its sign: take the absolute value, since rising perplexity has not converged either.":
            (a - b) / b,
        "The change has its sign, old minus new: take the absolute value.": (b - a) / b,
        "The change is relative to the newer mean: divide by the older one.": abs(a - b) / a,
        "The change is not relative: divide by the older mean.": abs(a - b),
        "The change is that of two single perplexities: compare the means of `patience` of them, which are less noisy.":
            abs(perplexities[-1] - perplexities[-2]) / perplexities[-2],
        "The change is that of the last perplexity against the one `patience` before it: compare means.":
            abs(perplexities[-1] - perplexities[-1 - patience]) / perplexities[-1 - patience],
        "The change compares with all that came before: only the `patience` before the last `patience` count.":
            abs(a - sum(rest) / len(rest)) / (sum(rest) / len(rest)),
        "The change compares with the first perplexities: older ones than the last 2 * patience do not count.":
            abs(a - sum(perplexities[:patience]) / patience) / (sum(perplexities[:patience]) / patience),
        "The change compares the first `patience` with the second: the newest stand at the end of the list.":
            lambda: _drift_of(perplexities[:patience], perplexities[patience : 2 * patience]),
        "The change is the spread of the last perplexities: compare two means.": (max(new) - min(new)) / b,
        "The change is the spread of the last 2 * patience: compare two means.":
            (max([*old, *new]) - min([*old, *new])) / b,
        "The two means overlap: the older one ends where the last `patience` begin.":
            lambda: _drift_of(perplexities[-2 * patience + 1 : -patience + 1 or None], new),
        "The change is that of the logarithm: divide the difference by the older mean.": abs(math.log(a / b)),
        "The change is in percent: leave it a share, 0.02 for 2 %.": 100 * abs(a - b) / b,
    }


def _drift_of(old: Sequence[float], new: Sequence[float]) -> float:
    a, b = sum(new) / len(new), sum(old) / len(old)
    return abs(a - b) / b


def move_mistakes(converged: bool, close: bool, at_tolerance: bool, at_window: bool, what: str) -> dict[str, bool]:
    both = "move_on needs both, a converged perplexity and outputs near the window"
    if at_tolerance:
        return {"A change equal to the tolerance is still converged: <= and not <.": False}
    if at_window:
        return {"A p99 equal to closeness * window is near enough: >= and not >.": False}
    if converged and close:
        return {f"With {what} move_on is False: {both}, and here both hold.": False}
    lacking = ["perplexity has not converged"] * (not converged) + ["the outputs are far from the window"] * (not close)
    lacking = " and ".join(lacking)
    return {f"With {what} move_on is True: {both}, and here {lacking}.": True}


# 13.4


def slope(values: Sequence[float]) -> float:
    n = len(values)
    middle, mean = (n - 1) / 2, sum(values) / n
    return sum((i - middle) * (y - mean) for i, y in enumerate(values)) / sum((i - middle) ** 2 for i in range(n))


def rolling(values: Sequence[float], window: int, *, shift: int = 0, grow: bool = False,
            of: Callable = slope) -> Tensor:
    """`of` the last `window` values at each place; shift: so many places later; grow: of fewer at the beginning."""
    found = []
    for t in range(len(values)):
        low, high = t - window + 1 + shift, t + 1 + shift
        part = values[max(0, low) : max(0, high)]
        whole = low >= 0 and high <= len(values)
        found.append(of(part) if whole or grow and len(part) > 1 else 0.0)
    return torch.tensor(found, dtype=torch.float64)


def expected_bias(lengths: Tensor, successes: Tensor, window: int = 6, min_growth: float = 0.02,
                  max_gain: float = 0.01) -> tuple[Tensor, Tensor, Tensor]:
    growth = rolling([math.log(x) for x in lengths.tolist()], window)
    gain = rolling(successes.tolist(), window)
    full = torch.arange(len(growth)) >= window - 1
    return full & (growth > min_growth) & (gain < max_gain), growth, gain


def length_bias(probe: Probe) -> None:
    window = probe.size(3, 5)
    given = history(probe, 5 * window + 4, window)
    bias(probe, "", given, window=window, min_growth=0.03, max_gain=0.012)
    bias(probe, "a second history", history(probe, 4 * window + 3, window), layer="property", window=window)
    bias(probe, "the default window", history(probe, 31, 6), layer="property")
    batch = torch.arange(9.0)
    for growth, gain in ((0.03, 0.007), (0.012, 0.007), (0.03, 0.013)):
        bias(probe, f"the defaults, growth {growth}, gain {gain}", (40 * torch.exp(growth * batch), 0.2 + gain * batch))
    double = [x.double() for x in given]
    bias(probe, "float64 inputs", double, layer="property", window=window)
    earlier = probe.pair(probe.call(*(x[: 3 * window] for x in given), window=window), ("alarm", "growth", "gain"))
    later = probe.pair(probe.call(*given, window=window), ("alarm", "growth", "gain"))
    same = all(torch.allclose(a.double(), b[: 3 * window].double(), atol=1e-12) for a, b in zip(earlier, later))
    probe.require(same, "property", "Entries change when later batches are added: the detector runs online, entry t "
                                    "may only use batches up to t.")
    for what, options in (("window 2", {"window": 2}), ("a window of all batches", {"window": len(given[0])}),
                          ("a window larger than N", {"window": len(given[0]) + 3}),
                          ("growth forbidden from -1 on", {"window": window, "min_growth": -1.0, "max_gain": 1.0})):
        bias(probe, what, given, layer="edge case", **options)
    zeros, twice = torch.zeros(8), 2.0 ** torch.arange(8)  # their slopes, and those of logarithms of 1, are exactly 0
    ties = dict(layer="edge case", window=3)
    bias(probe, "growth equal to min_growth", (torch.ones(8), twice.flip(0) / 128), min_growth=0.0, **ties)
    bias(probe, "gain equal to max_gain", (twice, zeros), max_gain=0.0, **ties)


def history(probe: Probe, batches: int, window: int) -> tuple[Tensor, Tensor]:
    """Phases in which length, success, both or none of them grow, with noise."""
    length, success, lengths, successes = 40.0, 0.3, [], []
    noise = probe.random(2, batches).tolist()
    for t in range(batches):
        phase = t * 4 // batches
        length *= (1.12, 1.15, 1.0, 0.93)[phase]
        success += (0.05, 0.0, 0.03, -0.02)[phase] * 5 / window
        lengths.append(length * (1 + 0.01 * noise[0][t]))
        successes.append(success + 0.004 * noise[1][t])
    return torch.tensor(lengths), torch.tensor(successes)


def bias(probe: Probe, what: str, given: Sequence[Tensor], *, layer: str = "value", **options) -> None:
    alarm, growth, gain = probe.pair(probe.call(*given, **options), ("alarm", "growth", "gain"))
    expected = expected_bias(*given, **options)
    window = options.get("window", 6)
    label = f", {what}" if what else ""
    logs, values = [math.log(x) for x in given[0].tolist()], given[1].tolist()
    for name, value, wanted, series in (("growth", growth, expected[1], logs), ("gain", gain, expected[2], values)):
        probe.tensor(name + label, value, shape=wanted.shape, axes=("N",))
        probe.require(value.dtype == torch.float64, "type", f"The {name} is {str(value.dtype)[6:]}, expected float64: "
                                                           "convert the inputs with .double() first.")
        probe.close(name + label, value, wanted, axes=NO_AXES, layer=layer, tolerance=1e-8,
                    mistakes=slope_mistakes(name, series, window, given[0].tolist()) | {
                        "growth and gain have changed places: end with `return alarm, growth, gain`.":
                            expected[2 if name == "growth" else 1]})
    mistakes = alarm_mistakes(*expected, options.get("min_growth", 0.02), options.get("max_gain", 0.01), window)
    if "defaults" in what:  # where all batches are alike, many mistakes look alike
        full = torch.arange(len(alarm)) >= window - 1
        sentence = f"The alarm is wrong with {what}: min_growth is 0.02 and max_gain 0.01, and each of them counts."
        mistakes = {sentence: full & ~expected[0]} | mistakes
    probe.close("alarm" + label, alarm, expected[0], axes=NO_AXES, layer=layer, mistakes=mistakes)


def slope_mistakes(name: str, series: Sequence[float], window: int, lengths: Sequence[float]) -> dict[str, Callable]:
    n = window
    spread, uncentred = sum((i - (n - 1) / 2) ** 2 for i in range(n)), sum(i * i for i in range(n))
    right = rolling(series, window)
    found = {
        f"The {name} looks ahead: entry t belongs to the batches t - window + 1 to t.":
            lambda: rolling(series, window, shift=window - 1),
        f"The {name} looks one batch ahead: the window ends with batch t.": lambda: rolling(series, window, shift=1),
        f"The {name} looks at both sides of t: an online detector has no batches after t.":
            lambda: rolling(series, window, shift=window // 2),
        f"The {name} leaves out the newest batch: the window ends with batch t.":
            lambda: rolling(series, window, shift=-1),
        f"The window of the {name} is one batch too long.": lambda: rolling(series, window + 1),
        f"The window of the {name} is one batch too short.": lambda: rolling(series, max(2, window - 1)),
        f"The {name} has values before the first full window: where t < window - 1 it is 0.":
            lambda: rolling(series, window, grow=True),
        f"The {name} uses the whole history: only the last `window` batches count.":
            lambda: rolling(series, len(series), grow=True),
        f"The {name} is the last value minus the first: take the least-squares slope, in which every batch has a say.":
            lambda: rolling(series, window, of=lambda part: part[-1] - part[0]),
        f"The {name} is (last - first) / (window - 1): take the least-squares slope, in which every batch has a say.":
            lambda: rolling(series, window, of=lambda part: (part[-1] - part[0]) / (len(part) - 1)),
        f"The {name} is (last - first) / window: take the least-squares slope, in which every batch has a say.":
            lambda: rolling(series, window, of=lambda part: (part[-1] - part[0]) / len(part)),
        f"The {name} has the wrong sign: time runs from the oldest batch to the newest.": lambda: -right,
        f"The {name} is not divided by sum (i - mean i)².": lambda: right * spread,
        f"The {name} is divided by window instead of sum (i - mean i)².": lambda: right * spread / n,
        f"The {name} is not centred: subtract the mean of i.":
            lambda: rolling(series, window, of=lambda part: sum(i * y for i, y in enumerate(part)) / uncentred),
        f"The {name} is divided by sum i², which is not centred: subtract the mean of i first.":
            lambda: right * spread / uncentred,
        f"The {name} is divided by the wrong sum: i runs from 0 to window - 1, less its mean.":
            lambda: rolling(series, window, of=lambda part: sum((i + 1) * y for i, y in enumerate(part)) / spread),
        f"The {name} is a correlation: divide by sum (i - mean i)² alone.":
            lambda: rolling(series, window, of=lambda part: correlation(torch.arange(n).double(), torch.tensor(part))),
    }
    if name == "gain":
        return found | {
            "The gain is that of the logarithm of success: take success as it is.":
                lambda: rolling([math.log(abs(y)) for y in series], window)}
    mean = lambda part: slope(part) / (sum(part) / len(part))  # noqa: E731
    return found | {
        "The growth is that of the length: take the logarithm first, so that it is relative.":
            lambda: rolling(lengths, window),
        "The growth is relative to the mean length: take the slope of log(length).":
            lambda: rolling(lengths, window, of=mean),
        "The growth is relative to the first length: take the slope of log(length).":
            lambda: rolling(lengths, window, of=lambda part: slope(part) / part[0]),
        "The logarithm has base 2: take the natural one.": lambda: right / math.log(2),
        "The logarithm has base 10: take the natural one.": lambda: right / math.log(10),
        "The growth is exp(slope) - 1: return the slope itself.": lambda: torch.where(right == 0, 0, right.exp() - 1),
        "The logarithm is log(1 + length): take log(length).":
            lambda: rolling([math.log1p(x) for x in lengths], window),
    }


def alarm_mistakes(right: Tensor, growth: Tensor, gain: Tensor, min_growth: float, max_gain: float,
                   window: int) -> dict[str, Any]:
    grows, stalls, full = growth > min_growth, gain < max_gain, torch.arange(len(growth)) >= window - 1
    return {
        "A growth equal to min_growth rings: it must be above it, > and not >=.":
            (growth >= min_growth) & stalls & full,
        "A gain equal to max_gain rings: it must be below it, < and not <=.": grows & (gain <= max_gain) & full,
        "The alarm also rings before the first full window (t < window - 1), where nothing is known yet.":
            (grows & stalls) | ~full,
        "The first full window, t = window - 1, never rings: its batches are enough.":
            right & (torch.arange(len(growth)) >= window),
        "The alarm rings when either holds: it needs both, growing length and stalling success.":
            (grows | stalls) & full,
        "The alarm rings when either holds, also before the first full window: it needs both.": grows | stalls,
        "The alarm looks at length alone: growth that comes with success is no bias.": grows,
        "The alarm looks at success alone: length must grow too.": stalls & full,
        "The alarm looks at success alone, also before the first full window: length must grow too.": stalls,
        "The alarm rings when success grows: it should ring when it does not (gain < max_gain).": grows & ~stalls,
        "The alarm is the wrong way round: True where it should ring.": ~right,
        "The thresholds have changed places: growth against min_growth, gain against max_gain.":
            (growth > max_gain) & (gain < min_growth) & full,
        "The alarm does not use min_growth: growth > min_growth, not > 0.": (growth > 0) & stalls,
        "The alarm does not use max_gain: gain < max_gain, not < 0.": grows & (gain < 0),
        "The alarm does not use max_gain: gain < max_gain, not <= 0.": grows & (gain <= 0) & full,
        "The alarm stays on once it rang: each batch is judged by its own window.":
            right.long().cummax(0).values.bool(),
        "The alarm rings at the first batch only: each batch is judged by its own window.":
            right & (right.long().cumsum(0) == 1),
        "The alarm compares growth with gain: each has a threshold of its own.": (growth > gain) & full,
    }


def _mismatch() -> Callable:
    from minim1.report.experiments.mismatch import mismatch

    return mismatch


def _repetition_stop() -> Callable:
    from minim1.report.experiments.windows import repetition_stop

    return repetition_stop


def _stage_gate() -> Callable:
    from minim1.report.experiments.windows import stage_gate

    return stage_gate


def _length_bias() -> Callable:
    from minim1.report.experiments.judge import length_bias

    return length_bias


EXERCISES: tuple[Exercise, ...] = (
    Exercise("13.1", "mismatch", "Mismatch statistics", mismatch, _mismatch),
    Exercise("13.2", "repetition_stop", "Repetition stop", repetition_stop, _repetition_stop),
    Exercise("13.3", "stage_gate", "Stage gate", stage_gate, _stage_gate),
    Exercise("13.4", "length_bias", "Length-bias detector", length_bias, _length_bias),
)
