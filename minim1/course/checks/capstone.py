"""Checks of chapter 16: three properties that the learner writes, tried on right models and on those with planted faults.

Each gives a gap: the largest difference between two ways to the same numbers, relative to the largest of them.
B batch, T time, V vocabulary.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from minim1.report import faults
from minim1.course.checking import Exercise, Probe
from minim1.model.decoder import MiniM1
from minim1.parts import Parts
from minim1.train.losses import next_token_loss

STALE = "A second call with another model gives the gap of the first: something was kept between calls."
NUMBER = "a single float: `float(...)` or `.item()` makes one of a tensor"


def model_of(seed: int, parts: Parts = Parts(), **changes) -> MiniM1:
    """A small model in evaluation mode; `changes` are fields of its config."""
    return MiniM1(replace(faults.CONFIG, **changes), parts, seed=seed).eval()


def fault(part: str, number: int = 0) -> Parts:
    """The package's parts with the first, second, ... fault of a part."""
    return [found.parts for found in faults.FAULTS if found.part == part][number]


def relative(found: Tensor, expected: Tensor) -> float:
    """The gap as the cards define it, in fp64; infinite where a number of either is not finite."""
    found, expected = found.detach().double(), expected.detach().double()
    if not (torch.isfinite(found).all() and torch.isfinite(expected).all()):
        return math.inf
    return float((found - expected).abs().max() / expected.abs().max())


def ids_of(probe: Probe, rows: int, length: int, vocabulary: int = 64) -> Tensor:
    return torch.randint(vocabulary, (rows, length), generator=probe.generator)


def close(probe: Probe, name: str, value, expected: float, mistakes: dict | None = None) -> None:
    """Compare gaps: rounding for right models (below 1e-5), else to three digits; infinite is infinite."""
    probe.require(isinstance(value, float), "type", f"The gap is a {type(value).__name__}, expected {NUMBER}.")
    probe.require(not math.isnan(value), "finite", f"{name}: the gap is NaN; a logit or gradient that is not finite "
                  "makes the gap infinite, so look before you subtract.")
    if same(value, expected):
        probe.equal(name, _shown(expected), _shown(expected))
        return
    probe.require(not math.isinf(expected), "edge case", f"{name}: the gap is {_shown(value)}; it is infinite where a "
                  "number of either way is not finite.")
    probe.require(value >= 1e-5, "value", f"{name}: your two ways agree, where they differ by {_shown(expected)}. Either both "
                  "are computed in the same way, or not all of it is compared.")
    fitting = [sentence[0].lower() + sentence[1:] for sentence, made in (mistakes or {}).items() if same(value, made())]
    told = " Or: ".join(fitting) or f"the gap is {_shown(value)}, expected {_shown(expected)}."
    probe.require(False, "value", f"{name}: {told}")


def same(value: float, expected: float) -> bool:
    if math.isinf(expected) or math.isinf(value) or math.isnan(value):
        return value == expected
    return abs(value - expected) <= 1e-5 + 1e-3 * expected


def _shown(gap: float) -> str:
    return "infinite" if math.isinf(gap) else "rounding" if gap < 1e-5 else f"{gap:.3g}"


# 16.1


@torch.no_grad()
def one_by_one(model: MiniM1, ids: Tensor, start: int = 1) -> Tensor:
    """Logits (B, T, V) read through a cache: `start` tokens at once, then one by one."""
    cache, logits = model.new_cache(), []
    logits.append(model(ids[:, :start], cache=cache).logits)
    logits += [model(ids[:, at:at + 1], cache=cache).logits for at in range(start, ids.shape[1])]
    return torch.cat(logits, 1)


def decode_gap_reference(model: MiniM1, input_ids: Tensor) -> float:
    with torch.no_grad():
        return relative(one_by_one(model, input_ids), model(input_ids).logits)


class Shifted(torch.nn.Module):
    """A model that adds `by` to one logit of one token, when it reads on a cache or (`cached` False) at once."""

    def __init__(self, model: MiniM1, by: float, row: int, at: int, *, cached: bool = True) -> None:
        super().__init__()
        self.inner, self.by, self.row, self.at, self.cached = model, by, row, at, cached

    def new_cache(self):
        return self.inner.new_cache()

    def forward(self, input_ids, *, cache=None, **options):
        start = 0 if cache is None else cache.length
        out = self.inner(input_ids, cache=cache, **options)
        if (cache is not None) != self.cached or not start <= self.at < start + input_ids.shape[1]:
            return out
        logits = out.logits.clone()
        logits[self.row, self.at - start, 5] += self.by
        return type(out)(logits, out.aux_loss, out.expert_ids)


def decode_gap(probe: Probe) -> None:
    rows, length = probe.size(2, 3), probe.size(9, 13)
    ids, model = ids_of(probe, rows, length), model_of(probe.seed)
    probe.equal("a right model: rounding only", _rounds(probe, probe.call(model, ids)), True,
                mistakes={"A right model has a gap that is far from rounding: is each token read once, in order, by the "
                          "same cache, and compared with the logits at its own place?": lambda: False})
    for name, parts in (("positions rounded to pairs", fault("rope")), ("a state that comes in without decay", fault("lightning", 1)),
                        ("a token that sees the next one", fault("attention"))):
        sick = model_of(probe.seed + 7, parts)
        expected = decode_gap_reference(sick, ids)
        close(probe, name, probe.call(sick, ids), expected, _decode_mistakes(sick, ids))
    for row, at, by in ((0, 0, 0.3), (rows - 1, length - 1, -0.4), (rows - 1, length // 2, 0.2), (0, 1, 50.0), (0, 2, math.nan)):
        sick = Shifted(model, by, row, at)
        where = f"one logit off by {by:g} at token {at} of row {row}"
        close(probe, where, probe.call(sick, ids), decode_gap_reference(sick, ids), _decode_mistakes(sick, ids))
    for by, cached, way in ((math.inf, True, "on the cache"), (math.nan, False, "at once"), (-math.inf, False, "at once")):
        sick = Shifted(model, by, rows - 1, 3, cached=cached)
        close(probe, f"one logit {by:g} {way}", probe.call(sick, ids), math.inf)
    again = model_of(probe.seed + 1, fault("lightning", 1))
    close(probe, "another model", probe.call(again, ids), decode_gap_reference(again, ids), {
        STALE: lambda: decode_gap_reference(Shifted(model, math.nan, 0, 2), ids)})
    one = Shifted(model, 0.25, 0, 0)
    close(probe, "a row of one token", probe.call(one, ids[:1, :1]), decode_gap_reference(one, ids[:1, :1]))


def _rounds(probe: Probe, value) -> bool:
    probe.require(isinstance(value, float), "type", f"The gap is a {type(value).__name__}, expected {NUMBER}.")
    probe.require(not math.isnan(value), "finite", "A right model has a gap of NaN, expected a number near 0.")
    return value < 1e-5


@torch.no_grad()
def _decode_mistakes(model, ids: Tensor) -> dict[str, Callable]:
    whole, steps = model(ids).logits.double(), one_by_one(model, ids).double()
    gap, most = (steps - whole).abs(), whole.abs().max()
    return {
        "Only the last token is compared: a fault may show at any.": lambda: float(gap[:, -1].max() / most),
        "The last token is never read: go to the end of the row.": lambda: float(gap[:, :-1].max() / most),
        "The first token is left out: it is read through the cache too.": lambda: float(gap[:, 1:].max() / most),
        "Only row 0 is compared: a fault may show in any row.": lambda: float(gap[0].max() / whole[0].abs().max()),
        "This is the mean of the differences, not the largest: one wrong logit drowns in it.": lambda: float(gap.mean() / most),
        "The difference is not divided by the largest logit.": lambda: float(gap.max()),
        "It is divided by the logits that came through the cache: those at once are what is right.":
            lambda: float(gap.max() / steps.abs().max()),
        "It is divided by the largest logit with its sign: take absolute values, some logits are negative.":
            lambda: float(gap.max() / whole.max()),
        "Signed differences: a logit that is too small does not count. Take absolute values.":
            lambda: float((steps - whole).max() / most),
        "The difference has the other sign: take absolute values.": lambda: float((whole - steps).max() / most),
        "Each difference is divided by its own logit: one near 0 decides then. Divide by the largest of all.":
            lambda: float((gap / whole.abs()).max()),
    }


# 16.2


@torch.no_grad()
def packed_and_alone(model: MiniM1, ids: Tensor, lengths: list[int]) -> tuple[Tensor, Tensor]:
    documents = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).expand(len(ids), -1)
    alone = [model(piece).logits for piece in ids.split(lengths, dim=1)]
    return model(ids, document_ids=documents).logits, torch.cat(alone, 1)


def document_gap_reference(model: MiniM1, input_ids: Tensor, lengths: list[int]) -> float:
    return relative(*packed_and_alone(model, input_ids, list(lengths)))


def document_gap(probe: Probe) -> None:
    last = probe.size(4, 6)
    lengths = [probe.size(2, 3), 1, last, last]
    rows = probe.size(2, 3)
    ids, model = ids_of(probe, rows, sum(lengths)), model_of(probe.seed)
    probe.equal("a right model: rounding only", _rounds(probe, probe.call(model, ids, lengths)), True, mistakes={
        "A right model has a gap that is far from rounding: does each document have an id of its own (a change of id is a "
        "border), and is it read alone from its own first token?": lambda: False})
    for name, parts in (("a state that crosses borders", fault("lightning")), ("a token that sees the next one", fault("attention")),
                        ("experts with seats", fault("dispatch"))):
        sick = model_of(probe.seed + 7, parts)
        close(probe, name, probe.call(sick, ids, lengths), document_gap_reference(sick, ids, lengths),
              _document_mistakes(sick, ids, lengths))
    for document, by in ((0, 0.3), (3, -0.4), (1, 0.2), (2, math.nan)):
        sick = Packed(model, by, rows - 1, sum(lengths[:document + 1]) - 1)
        close(probe, f"one logit off by {by:g} in document {document}", probe.call(sick, ids, lengths),
              document_gap_reference(sick, ids, lengths), _document_mistakes(sick, ids, lengths))
    for by, packed, way in ((math.inf, True, "packed"), (math.nan, False, "alone"), (-math.inf, False, "alone")):
        sick = Packed(model, by, rows - 1, 0, packed=packed)
        close(probe, f"one logit {by:g} {way}", probe.call(sick, ids, lengths), math.inf)
    sick = model_of(probe.seed + 3, fault("lightning"))
    close(probe, "another model", probe.call(sick, ids, lengths), document_gap_reference(sick, ids, lengths),
          {STALE: lambda: document_gap_reference(Packed(model, math.nan, rows - 1, sum(lengths[:3]) - 1), ids, lengths)})
    two = [sum(lengths) - 2, 2]
    close(probe, "two documents", probe.call(sick, ids, two), document_gap_reference(sick, ids, two),
          {"This is the gap of the documents of an earlier call: `lengths` is another list now.":
               lambda: document_gap_reference(sick, ids, lengths)})
    whole = [sum(lengths)]
    probe.equal("one document: rounding only", _rounds(probe, probe.call(sick, ids, whole)), True,
                mistakes={"One document alone in its row has no border, so its gap is 0 for any model.": lambda: False})


class Packed(torch.nn.Module):
    """A model that adds `by` to one logit when it is given several documents or (`packed` False) one alone."""

    def __init__(self, model: MiniM1, by: float, row: int, at: int, *, packed: bool = True) -> None:
        super().__init__()
        self.inner, self.by, self.row, self.at, self.packed = model, by, row, at, packed

    def new_cache(self):
        return self.inner.new_cache()

    def forward(self, input_ids, *, document_ids=None, **options):
        out = self.inner(input_ids, document_ids=document_ids, **options)
        several = document_ids is not None and bool((document_ids != document_ids[:, :1]).any())
        if several != self.packed:
            return out
        logits = out.logits.clone()
        logits[self.row, self.at, 5] += self.by
        return type(out)(logits, out.aux_loss, out.expert_ids)


@torch.no_grad()
def _document_mistakes(model, ids: Tensor, lengths: list[int]) -> dict[str, Callable]:
    packed, alone = (x.double() for x in packed_and_alone(model, ids, lengths))
    gap, most, first = (packed - alone).abs(), alone.abs().max(), lengths[0]
    last = sum(lengths[:-1])
    return {
        "Only the first document is compared: a leak shows in those after it.": lambda: float(gap[:, :first].max() / most),
        "Only the second document is compared: there may be more.":
            lambda: float(gap[:, first:first + lengths[1]].max() / most),
        "Only the last document is compared: a fault may show in any.": lambda: float(gap[:, last:].max() / most),
        "The last document is left out.": lambda: float(gap[:, :last].max() / most),
        "The first document is left out: it can differ too.": lambda: float(gap[:, first:].max() / most),
        "Only row 0 is compared: a fault may show in any row.": lambda: float(gap[0].max() / alone[0].abs().max()),
        "This is the mean of the differences, not the largest: one wrong logit drowns in it.": lambda: float(gap.mean() / most),
        "The difference is not divided by the largest logit.": lambda: float(gap.max()),
        "It is divided by the packed logits: those of the documents alone are what is right.":
            lambda: float(gap.max() / packed.abs().max()),
        "It is divided by the largest logit with its sign: take absolute values, some logits are negative.":
            lambda: float(gap.max() / alone.max()),
        "Signed differences: a logit that is too small does not count. Take absolute values.":
            lambda: float((packed - alone).max() / most),
        "The difference has the other sign: take absolute values.": lambda: float((alone - packed).max() / most),
        "Each document is divided by its own largest logit: divide by the largest of all documents.":
            lambda: max(float(g.max() / a.abs().max()) for g, a in zip(gap.split(lengths, 1), alone.split(lengths, 1))),
    }


# 16.3


def gradients_of(lm_loss: Callable, logits: Tensor, ids: Tensor, mask: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Gradients (B, T, V) in micro-batches of `rows` rows, and at once."""
    total, found = float(mask.sum()), []
    for size in (rows, len(ids)):
        leaf = logits.detach().clone().requires_grad_()
        for at in range(0, len(ids), size):
            piece = slice(at, at + size)
            lm_loss(leaf[piece], ids[piece], mask[piece], total_tokens=total).loss.backward()
        found.append(leaf.grad)
    return tuple(found)


def split_gap_reference(lm_loss: Callable, logits: Tensor, input_ids: Tensor, mask: Tensor, rows: int) -> float:
    return relative(*gradients_of(lm_loss, logits, input_ids, mask, rows))


def _noisy(kind: str) -> Callable:
    """Losses with a fault that only a split shows; the whole batch has five rows."""
    def loss(logits, input_ids, mask, *, total_tokens):
        out = next_token_loss(logits, input_ids, mask, total_tokens=total_tokens)
        whole, alone = len(logits) == 5, len(logits) == 1
        scale = {"rows": 1 / len(logits), "times rows": len(logits) / 5, "double": 1.0 + alone, "slightly": 1 + 0.0047 * alone,
                 "nan": math.nan, "split nan": 1.0 if whole else math.nan, "split inf": 1.0 if whole else math.inf,
                 "whole nan": math.nan if whole else 1.0, "unguarded": 1 / mask.sum()}[kind]
        return type(out)(out.loss * scale, out.metrics)
    return loss


def split_gap(probe: Probe) -> None:
    batch, length, vocabulary = 5, probe.size(6, 9), probe.size(7, 12)
    logits, ids = probe.random(batch, length, vocabulary), ids_of(probe, batch, length, vocabulary)
    mask = torch.arange(length) < torch.tensor([[length], [2], [length - 2], [0], [3]])
    mask = mask & (torch.arange(length) > 0)
    given = logits, ids, mask
    totals = []

    def spy(logits, input_ids, mask, *, total_tokens):
        totals.append(float(total_tokens))
        return next_token_loss(logits, input_ids, mask, total_tokens=total_tokens)

    probe.call(spy, *given, 2)
    wrong = sorted({total for total in totals if total != float(mask.sum())})
    probe.require(not wrong, "value", f"The loss was called with total_tokens = {wrong}, expected {int(mask.sum())} each time: "
                  "the number of True in the mask of the whole batch.")
    probe.require(logits.grad is None and not logits.requires_grad, "property",
                  "The logits that came in have a gradient afterwards: work on a copy, `logits.detach().clone()`, whoever "
                  "called did not ask for one.")
    for rows in (2, 1, 5):
        probe.equal(f"the package's loss in micro-batches of {rows}: rounding only",
                    _rounds(probe, probe.call(next_token_loss, *given, rows)), True, mistakes={
                        "The package's loss has a gap that is far from rounding: does every call get the total of the whole "
                        "batch, mask.sum(), and are the gradients of all micro-batches summed?": lambda: False})
    for rows in (2, 1, 3):
        for name, loss in (
            ("the mean of each micro-batch", fault("lm_loss").lm_loss), ("divided by the rows", _noisy("rows")),
            ("times the rows", _noisy("times rows")), ("one row counts double", _noisy("double")),
            ("one row counts a little more", _noisy("slightly")), ("NaN", _noisy("nan")), ("NaN in micro-batches", _noisy("split nan")),
            ("infinite in micro-batches", _noisy("split inf")), ("NaN at once", _noisy("whole nan")),
            ("divided by no targets", _noisy("unguarded")),
        ):
            close(probe, f"{name}, micro-batches of {rows}", probe.call(loss, *given, rows),
                  split_gap_reference(loss, *given, rows), _split_mistakes(loss, *given, rows))
    other = probe.random(batch, length, vocabulary) * 2
    close(probe, "other logits", probe.call(_noisy("rows"), other, ids, mask, 2), split_gap_reference(_noisy("rows"), other, ids, mask, 2),
          {STALE: lambda: split_gap_reference(_noisy("rows"), *given, 2)})


def _split_mistakes(loss: Callable, logits: Tensor, ids: Tensor, mask: Tensor, rows: int) -> dict[str, Callable]:
    split, whole = (x.double() for x in gradients_of(loss, logits, ids, mask, rows))
    gap, most = (split - whole).abs(), whole.abs().max()
    total = float(mask.sum())
    at_once = float(loss(logits, ids, mask, total_tokens=total).loss)
    parts = [loss(logits[at:at + rows], ids[at:at + rows], mask[at:at + rows], total_tokens=total).loss
             for at in range(0, len(ids), rows)]
    full = [at for at in range(0, len(ids), rows) if at + rows <= len(ids)]
    return {
        "The losses are compared, not their gradients: two losses may agree by chance, and training uses the gradient.":
            lambda: abs(float(sum(parts)) - at_once) / abs(at_once),
        "The gradients are averaged over micro-batches: they are summed, since every loss is divided by the total already.":
            lambda: relative(split / len(parts), whole),
        "Only the first micro-batch is compared.": lambda: float(gap[:rows].max() / most),
        "A last micro-batch that is smaller is left out: the batch need not divide evenly.":
            lambda: float((_without(split, full[-1] + rows) - whole).abs().max() / most) if full else math.nan,
        "This is the mean of the differences, not the largest.": lambda: float(gap.mean() / most),
        "The difference is not divided by the largest gradient.": lambda: float(gap.max()),
        "It is divided by the gradient of the micro-batches: that at once is what is right.":
            lambda: float(gap.max() / split.abs().max()),
        "It is divided by the largest gradient with its sign: take absolute values.": lambda: float(gap.max() / whole.max()),
        "Signed differences: take absolute values.": lambda: float((split - whole).max() / most),
        "The difference has the other sign: take absolute values.": lambda: float((whole - split).max() / most),
        "`rows` is not used: this is the gap in micro-batches of one row.":
            lambda: split_gap_reference(loss, logits, ids, mask, 1),
        "`rows` is not used: this is the gap in micro-batches of two rows.":
            lambda: split_gap_reference(loss, logits, ids, mask, 2),
        "`rows` is the number of rows in a micro-batch, not the number of micro-batches.":
            lambda: split_gap_reference(loss, logits, ids, mask, -(-len(ids) // rows)),
    }


def _without(gradient: Tensor, end: int) -> Tensor:
    return torch.where(torch.arange(len(gradient)).view(-1, 1, 1) < end, gradient, 0.0)


EXERCISES = (
    Exercise("16.1", "decode_gap", "Decoding against reading at once", decode_gap, lambda: decode_gap_reference),
    Exercise("16.2", "document_gap", "Packed against alone", document_gap, lambda: document_gap_reference),
    Exercise("16.3", "split_gap", "In micro-batches against at once", split_gap, lambda: split_gap_reference),
)
