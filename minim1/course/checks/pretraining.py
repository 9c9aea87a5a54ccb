"""Checks of chapter 08: the parts `pack`, `lm_loss` and `schedule`, and one step of AdamW.

B rows, T tokens, V vocabulary. What is expected is written here apart from the package: lists for packing, fp64 else.
"""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor

from minim1.course.checking import Exercise, Probe
from minim1.data.packing import Batch
from minim1.errors import UserError
from minim1.train.losses import LossOutput

STALE = "A second call with other inputs gives the result for those of the first: something was kept between calls."


def returned(probe: Probe, value, kind: type, how: str) -> None:
    """The value must be a `kind`; the sentence says what it is instead, and how to make one."""
    given = "NaN" if isinstance(value, float) and math.isnan(value) else type(value).__name__
    given = "None" if value is None else given
    probe.require(isinstance(value, kind), "type", f"{probe.exercise.name} returned {given}, expected a "
                                                   f"{kind.__name__}: end with `return {how}`.")


# 8.1


def best(rooms: list[int], size: int) -> int | None:
    """The row with the least room that is enough; the first of several."""
    fits = [row for row, room in enumerate(rooms) if room >= size]
    return min(fits, key=lambda row: rooms[row]) if fits else None


def place(documents: list, length: int, choose: Callable = best) -> list[list]:
    """Rows of documents, in the order in which they come."""
    rows, rooms = [], []
    for document in documents:
        row = choose(rooms, len(document[0]))
        if row is None:
            row = len(rows)
            rows.append([])
            rooms.append(length)
        rows[row].append(document)
        rooms[row] -= len(document[0])
    return rows


def longest_first(documents: list) -> list:
    return sorted(documents, key=lambda document: -len(document[0]))


def write(rows: list[list], length: int, pad_id: int) -> dict[str, Tensor]:
    """The four tensors of a batch, row by row, from lists."""
    lists: dict[str, list] = {"input_ids": [], "mask": [], "document_ids": [], "positions": []}
    for row in rows:
        free = length - sum(len(ids) for ids, _ in row)
        numbered = list(enumerate(row))
        lists["input_ids"].append([x for ids, _ in row for x in ids] + [pad_id] * free)
        lists["mask"].append([t > 0 and bool(x) for _, mask in row for t, x in enumerate(mask)] + [False] * free)
        lists["document_ids"].append([n for n, (ids, _) in numbered for _ in ids] + [-1] * free)
        lists["positions"].append([t for ids, _ in row for t in range(len(ids))] + [0] * free)
    return {name: torch.tensor(x, dtype=torch.bool if name == "mask" else torch.int64).view(len(rows), length)
            for name, x in lists.items()}


def wrong_layouts(documents: list, length: int) -> dict[str, list[list]]:
    """Sentence -> the rows that this mistake gives."""
    ordered = longest_first(documents)

    def fitting(pick: Callable, rule: Callable = lambda room, size: room >= size) -> Callable:
        def choose(rooms, size):
            fits = [row for row, room in enumerate(rooms) if rule(room, size)]
            return pick(fits, rooms) if fits else None
        return choose

    def last_only(rooms, size):
        return len(rooms) - 1 if rooms and rooms[-1] >= size else None

    first = fitting(lambda fits, rooms: fits[0])
    return {
        "The documents are placed in the order in which they were given: take them from the longest to the shortest.":
            place(documents, length),
        "The documents are placed from the shortest to the longest: begin with the longest.":
            place(sorted(documents, key=lambda document: len(document[0])), length),
        "Of documents that are equally long, the later one comes first: `sorted` with a negative length as its key "
        "keeps the order in which they were given.": place(longest_first(documents[::-1]), length),
        "Each document goes into the first row in which it fits: it belongs into the fullest one in which it fits.":
            place(ordered, length, first),
        "Only the last row is looked at: a document goes into the fullest of all rows in which it fits.":
            place(ordered, length, last_only),
        "Only the last row is looked at, and the documents come in the order in which they were given: sort them by "
        "length, and look at all rows.": place(documents, length, last_only),
        "The documents are placed in the order in which they were given, in the first row with room: sort them by "
        "length, and take the fullest row with room.": place(documents, length, first),
        "Each document goes into the emptiest row in which it fits: it belongs into the fullest.":
            place(ordered, length, fitting(lambda fits, rooms: max(fits, key=lambda row: rooms[row]))),
        "Of rows that are equally full, the later one is taken: take the one with the lower number.":
            place(ordered, length, fitting(lambda fits, rooms: min(fits, key=lambda row: (rooms[row], -row)))),
        "A document that would fill its row exactly is refused there: it fits if its tokens are at most those that "
        "are left.": place(ordered, length, fitting(lambda fits, rooms: min(fits, key=lambda row: rooms[row]),
                                                    lambda room, size: room > size)),
        "Each document has a row of its own: put it behind others where it fits.": [[x] for x in ordered],
        "Each document goes into the last row in which it fits: it belongs into the fullest one in which it fits.":
            place(ordered, length, fitting(lambda fits, rooms: fits[-1])),
        "Within a row the documents stand in the opposite order: each new one goes behind what is there.":
            [row[::-1] for row in place(ordered, length)],
    }


def draw_documents(probe: Probe, length: int, count: int) -> list:
    """Documents of all lengths up to a row's, such that each of `wrong_layouts` is another layout."""
    while True:
        sizes = [length, *(probe.size(1, length // 2 + 1) for _ in range(count - 1))]
        order = torch.randperm(count, generator=probe.generator).tolist()
        documents = [([probe.size(10, 9999) for _ in range(sizes[n])], [probe.size(0, 1) for _ in range(sizes[n])])
                     for n in order]
        for _, mask in documents:
            mask[0] = 1  # what the card takes away
        right = place(longest_first(documents), length)
        if all(rows != right for rows in wrong_layouts(documents, length).values()):
            return documents


def compare_batch(
    probe: Probe, documents: list, length: int, pad_id: int, name: str, layer: str = "value"
) -> None:
    """The four tensors that the function makes of some documents, against those of the card."""
    before = copy.deepcopy(documents)
    batch = probe.call(documents, length, pad_id=pad_id)
    returned(probe, batch, Batch, "Batch(input_ids, mask, document_ids, positions)")
    probe.require(documents == before, "property", "pack changed the documents that it was given; whoever called it "
                  "still needs them: make new lists, `sorted(documents)` rather than `documents.sort()`.")
    rows = place(longest_first(documents), length)
    expected = write(rows, length, pad_id)
    compare_layout(probe, batch.input_ids, expected["input_ids"], documents, (length, pad_id), layer)
    for tensor, mistakes in (("input_ids", ids_mistakes(expected, pad_id)),
                             ("document_ids", number_mistakes(expected, rows, documents)),
                             ("positions", position_mistakes(expected)),
                             ("mask", mask_mistakes(expected, rows, length))):
        probe.close(f"{tensor} of {name}", getattr(batch, tensor), expected[tensor], axes="BT", layer=layer,
                    mistakes=mistakes)


def compare_layout(probe: Probe, given, right: Tensor, documents: list, sizes: tuple[int, int], layer: str) -> None:
    """Whether the documents lie where a known mistake puts them, also where that makes another number of rows."""
    if not isinstance(given, Tensor) or given.ndim != 2 or torch.equal(given, right):
        return
    for sentence, rows in wrong_layouts(documents, sizes[0]).items() if documents else ():
        wrong = write(rows, *sizes)["input_ids"]
        same = given.shape == wrong.shape and bool((given == wrong).all())
        probe.require(not same or torch.equal(wrong, right), layer, sentence)
    probe.require(sorted(given.tolist()) != sorted(right.tolist()), layer, "The rows are the right ones, but in "
                  "another order: a new row is always the last one, and stays where it is.")


def ids_mistakes(expected: dict[str, Tensor], pad_id: int) -> dict[str, Tensor]:
    ids, padded = expected["input_ids"], expected["document_ids"] < 0
    return {f"Where there is no token, input_ids holds {other}: it should be pad_id, {pad_id} here.":
            torch.where(padded, other, ids) for other in (0, -1, -100)}


def number_mistakes(expected: dict[str, Tensor], rows: list, documents: list) -> dict[str, Tensor]:
    ids, padded = expected["document_ids"], expected["document_ids"] < 0
    before = torch.tensor([0, *(len(row) for row in rows)]).cumsum(0)[:-1].view(-1, 1) if rows else 0
    given = {id(document): number for number, document in enumerate(documents)}
    length = ids.shape[1] if rows else 0
    originals = [[given[id(document)] for document in row for _ in document[0]] for row in rows]
    originals = torch.tensor([row + [-1] * (length - len(row)) for row in originals]).view(ids.shape)
    count = ids.amax(dim=1, keepdim=True) + 1 if rows else 0
    return {
        "The documents of a row are numbered from 1: the first one is 0.": torch.where(padded, -1, ids + 1),
        "The documents of a row are numbered from 1, and padding is 0: the first document is 0, and padding is -1.":
            torch.where(padded, 0, ids + 1),
        "Padding has the number 0, that of the first document, so that the model would take it for its end: it is -1.":
            torch.where(padded, 0, ids),
        "Padding has the number of one document more: it is -1, which the model knows as padding.":
            torch.where(padded, count, ids),
        "Padding has the number of the last document: it is -1.": torch.where(padded, count - 1, ids),
        "The documents are numbered through all rows: the first document of each row is 0.":
            torch.where(padded, -1, ids + before),
        "The documents bear the numbers of the list that was given: number them 0, 1, 2, ... from left to right in "
        "each row.": originals,
        "All documents have the number 0: each has its own within its row, or they would be one long document.":
            torch.where(padded, -1, 0),
        "All documents of a row have the row's number: count the documents of each row, 0, 1, 2, ...":
            torch.where(padded, -1, torch.arange(len(ids)).view(-1, 1)),
        "document_ids and positions have changed places: the order is Batch(input_ids, mask, document_ids, positions).":
            expected["positions"],
        "Every row is one document, its padding too: count the documents of a row from 0, and padding is -1.":
            torch.zeros_like(ids),
    }


def position_mistakes(expected: dict[str, Tensor]) -> dict[str, Tensor]:
    positions, padded = expected["positions"], expected["document_ids"] < 0
    time = torch.arange(positions.shape[1]).expand_as(positions)
    last = (~padded).sum(dim=1, keepdim=True)
    first = torch.where(expected["document_ids"] == expected["document_ids"].amax(dim=1, keepdim=True), time, 10**6)
    return {
        "The positions run on through the row: they begin at 0 in each document.": torch.where(padded, 0, time),
        "The positions run on through the row and its padding: they begin at 0 in each document.": time,
        "The positions begin at 1: the first token of a document has position 0.":
            torch.where(padded, 0, positions + 1),
        "The positions of the last document go on in the padding: there they are 0.":
            torch.where(padded, time - first.amin(dim=1, keepdim=True), positions),
        "The padding is counted like a document of its own: its positions are 0.":
            torch.where(padded, time - last, positions),
        "The positions of the padding are -1: they are 0.": torch.where(padded, -1, positions),
        "The positions are 0 everywhere: they count the tokens of each document from 0.": torch.zeros_like(positions),
    } if len(positions) else {}


def mask_mistakes(expected: dict[str, Tensor], rows: list, length: int) -> dict[str, Tensor]:
    def masked(rule: Callable) -> Tensor:
        """rule(mask of a document, its number) -> booleans."""
        lists = [[x for number, (_, mask) in enumerate(row) for x in rule([bool(x) for x in mask], number)]
                 for row in rows]
        return torch.tensor([x + [False] * (length - len(x)) for x in lists]).view(len(rows), length)

    right, padded = expected["mask"], expected["document_ids"] < 0
    return {
        "The first token of a document is a target: it would be predicted from the document before it in the row, "
        "so its mask is False, whatever the document's own mask says.": masked(lambda mask, number: mask),
        "Only the first token of a row is never a target: that holds for the first token of each document.":
            masked(lambda mask, number: [number > 0 and mask[0], *mask[1:]]),
        "The first document of each row keeps its first token as a target: nothing stands before it either.":
            masked(lambda mask, number: [number == 0 and mask[0], *mask[1:]]),
        "The mask is shifted by one to the left: mask[:, t] belongs to token t, the shift is the loss's affair.":
            masked(lambda mask, number: [*mask[1:], False]),
        "The mask is shifted by one to the right: mask[:, t] belongs to token t; only the first token's is taken away.":
            masked(lambda mask, number: [False, *mask[:-1]]),
        "Every token but the first of each document is a target: the documents' own masks are left out.":
            masked(lambda mask, number: [False] + [True] * (len(mask) - 1)),
        "Every token is a target: the documents' own masks are left out.":
            masked(lambda mask, number: [True] * len(mask)),
        "The last token of a document is not a target: take away its first one, and no other.":
            masked(lambda mask, number: [*mask[:-1], False]),
        "The first and the last token of a document are no targets: take away its first one, and no other.":
            masked(lambda mask, number: [False, *mask[1:-1], False][: len(mask)]),
        "Padding is a target: its mask is False.": right | padded,
        "The mask is the wrong way round: 1 in a document's mask means that the token is a target.":
            masked(lambda mask, number: [False, *(not x for x in mask[1:])]),
        "The mask has no targets at all.": torch.zeros_like(right),
    } if rows else {}


def pack(probe: Probe) -> None:
    three = [([1, 2, 3, 4, 5], [1, 0, 1, 1, 1]), ([7, 8, 9], [0, 1, 1]), ([4], [1])]
    compare_batch(probe, three, 5, 0, "3 documents")
    length, pad_id = 2 * probe.size(5, 7) + 1, probe.size(3, 8)
    compare_batch(probe, draw_documents(probe, length, 13), length, pad_id, "13 documents")
    compare_batch(probe, draw_documents(probe, length + 2, 17), length + 2, pad_id, "17 documents", "property")
    ones = [([probe.size(10, 99)], [1]) for _ in range(length + 2)]
    compare_batch(probe, ones, length, -7, "documents of 1 token", "edge case")
    twice = 2 * [([pad_id, 7, pad_id], [1, 1, 1])]  # pad_id is a token like any other, and no row is full
    compare_batch(probe, twice, length, pad_id, "the same document twice", "edge case")
    compare_batch(probe, [], length, pad_id, "no documents", "edge case")
    happened = refused(probe, [*three[1:], (list(range(length + 1)), [0] + [1] * length)], length)
    probe.require(happened == "UserError", "edge case", f"A document of {length + 1} tokens for rows of {length} "
                  f"{happened}: raise UserError before it is placed.")


def refused(probe: Probe, documents: list, length: int) -> str:
    """What happens when a document is too long: "UserError", or in words what happens instead."""
    try:
        probe.function(documents, length, pad_id=0)
    except UserError:
        return "UserError"
    except Exception as error:
        return f"raises {type(error).__name__}"
    return "is accepted"


# 8.2


def expected_loss(logits: Tensor, input_ids: Tensor, mask: Tensor, total: float) -> Tensor:
    """The masked cross-entropy, token by token of the vocabulary, in fp64."""
    return -(picked(logits, input_ids) * mask[:, 1:].double()).sum() / total


def picked(logits: Tensor, input_ids: Tensor, ahead: int = 1) -> Tensor:
    """(B, T - 1): log p of each token but the first, from the logits `ahead` places before it."""
    x = logits.double()
    logprobs = x - torch.logsumexp(x, dim=-1, keepdim=True)
    if ahead == 1:
        return logprobs[:, :-1].gather(-1, input_ids[:, 1:, None]).squeeze(-1)
    if ahead == 0:
        return logprobs[:, 1:].gather(-1, input_ids[:, 1:, None]).squeeze(-1)
    return logprobs[:, 1:].gather(-1, input_ids[:, :-1, None]).squeeze(-1)  # backwards


def along(logits: Tensor, input_ids: Tensor, axis: int) -> Tensor:
    """As `picked`, with a softmax over the wrong axis."""
    return logits[:, :-1].double().log_softmax(axis).gather(-1, input_ids[:, 1:, None]).squeeze(-1)


def loss_mistakes(logits: Tensor, input_ids: Tensor, mask: Tensor, total: float) -> dict[str, Tensor]:
    def summed(terms: Tensor, weights: Tensor, by: float = total) -> Tensor:
        return -(terms * weights.double()).sum() / by

    targets, logp = mask[:, 1:].bool(), picked(logits, input_ids)
    each, rows, length = -logp * targets, *input_ids.shape
    bits, means = math.log(2), each.sum(1) / targets.sum(1).clamp(min=1)
    return {
        f"The sum is divided by the {int(targets.sum())} targets at hand: divide it by total_tokens, {total:g} here, "
        "which counts those of the whole step.": summed(logp, targets, targets.sum()),
        "The sum is divided by the number of tokens, B * T: divide it by total_tokens.":
            summed(logp, targets, rows * length),
        "The sum is divided by B * (T - 1): divide it by total_tokens.": summed(logp, targets, rows * (length - 1)),
        "The sum is divided by total_tokens and by the targets at hand: divide once, by total_tokens.":
            summed(logp, targets, total * targets.sum()),
        "The sum is not divided: divide it by total_tokens.": summed(logp, targets, 1),
        "The sum is divided by the number of rows: divide it by total_tokens.": summed(logp, targets, rows),
        "The loss is the mean of the rows' means, so that targets in short answers count more: sum over all targets "
        "and divide once.": means.mean(),
        "Each token is predicted from its own logits, which have seen it: token t is predicted by logits[:, t - 1].":
            summed(picked(logits, input_ids, 0), targets),
        "The shift goes backwards: token t is predicted by logits[:, t - 1], yours by logits[:, t + 1].":
            summed(picked(logits, input_ids, -1), mask[:, :-1]),
        "The shift goes backwards: token t is predicted by logits[:, t - 1], yours by logits[:, t + 1]; and the mask "
        "is one off.": summed(picked(logits, input_ids, -1), targets),
        "The mask is one token off: mask[:, t] belongs to token t, so cut it like the ids, not like the logits.":
            summed(logp, mask[:, :-1]),
        "The mask is left out: only its tokens are targets.": summed(logp, torch.ones_like(targets)),
        "The mask is left out, and the sum is divided by all tokens: only the mask's tokens are targets.":
            -logp.mean(),
        "The mask is the wrong way round: true means that the token is a target.": summed(logp, ~targets),
        "The sign is wrong: the loss is minus the log probability.": -summed(logp, targets),
        "The logarithm has base 2: the loss is in nats, log_softmax has base e.": summed(logp, targets) / bits,
        "It is minus the sum of the probabilities: take their logarithm.": summed(logp.exp(), targets),
        "The softmax runs over the tokens: it runs over the vocabulary, the last axis.":
            summed(along(logits, input_ids, 1), targets),
        "The softmax runs over the rows: it runs over the vocabulary, the last axis.":
            summed(along(logits, input_ids, 0), targets),
        "There is no softmax: a log probability is log_softmax of the logits.":
            summed(logits[:, :-1].double().gather(-1, input_ids[:, 1:, None]).squeeze(-1), targets),
        "The first row alone is counted.": summed(logp[:1], targets[:1]),
    }


def lm_loss(probe: Probe) -> None:
    shape = (3, probe.size(6, 9), probe.size(5, 11))
    logits, input_ids, mask = draw_tokens(probe, shape)
    total = input_ids.numel() + probe.size(10, 30)  # neither the targets nor the tokens at hand
    expected = expected_loss(logits, input_ids, mask, total)
    given = probe.call(logits, input_ids, mask, total_tokens=total)
    compare_loss(probe, given, expected, "loss", loss_mistakes(logits, input_ids, mask, total))
    other = total + 7.5
    compare_loss(probe, probe.call(logits, input_ids, mask.long(), total_tokens=other),
                 expected_loss(logits, input_ids, mask, other), f"loss, mask of 0 and 1, total_tokens {other:g}",
                 {STALE: expected} | {f"total_tokens, {other:g} here, is made a whole number: it may be a float.":
                                      expected * total / int(other)}
                 | loss_mistakes(logits, input_ids, mask, other))
    probe.gradients(lambda logits: probe.call(logits, input_ids, mask, total_tokens=total).loss, {"logits": logits},
                    lambda logits: expected_loss(logits, input_ids, mask, total))
    metric = probe.call(logits.clone().requires_grad_(), input_ids, mask, total_tokens=total).metrics["loss"]
    probe.require(not metric.requires_grad, "gradient", "metrics[\"loss\"] still hangs on the graph, and keeps all of "
                  "it in memory for as long as somebody keeps the number: store `loss.detach()`.")
    half = logits.bfloat16()
    compare_loss(probe, probe.call(half, input_ids, mask, total_tokens=total),
                 expected_loss(half, input_ids, mask, total), "loss of bfloat16 logits", layer="property")
    double = probe.call(logits.double(), input_ids, mask, total_tokens=total)
    compare_loss(probe, double, expected, "loss of float64 logits", layer="property", dtype=torch.float64)
    extreme = 1000 * logits.sign()
    extreme[0, 0, 0] = 0.0
    given = probe.call(extreme, input_ids, mask, total_tokens=total)
    probe.require(given.loss.isfinite().all(), "edge case", "With logits of ±1000 the loss is infinite or NaN: take "
                  "log_softmax, neither the logarithm of a softmax nor an exponential of your own.")
    compare_loss(probe, given, expected_loss(extreme, input_ids, mask, total), "loss of logits of ±1000",
                 layer="edge case")
    compare_loss(probe, probe.call(logits, input_ids, torch.zeros_like(mask), total_tokens=total),
                 expected.new_zeros(()), "loss without a target", layer="edge case")
    leaf = logits.clone().requires_grad_()
    alone = probe.call(leaf, input_ids, torch.zeros_like(mask), total_tokens=total).loss
    probe.require(alone.requires_grad, "edge case", "Without a target the loss is cut off from the logits, and "
                  "`backward()` fails: return the sum over no targets, which is 0 by itself.")
    probe.backward(alone.backward)
    probe.require(leaf.grad is not None and not leaf.grad.any(), "edge case",
                  "Without a target the gradient is not 0: nothing is to be learnt from such a row.")


def draw_tokens(probe: Probe, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """logits (B, T, V), input_ids (B, T) and a mask (B, T) with another number of targets in each row."""
    rows, length, vocabulary = shape
    input_ids = torch.randint(vocabulary, (rows, length), generator=probe.generator)
    mask = torch.zeros(rows, length, dtype=torch.bool)
    for row in range(rows):
        chosen = torch.randperm(length - 1, generator=probe.generator)[: row + 2] + 1
        mask[row, chosen] = True
    return 2 * probe.random(*shape), input_ids, mask


def compare_loss(probe: Probe, given, expected: Tensor, name: str, mistakes: dict | None = None, *,
                 layer: str = "value", dtype: torch.dtype = torch.float32) -> None:
    """A LossOutput whose loss and metric are both the expected number."""
    returned(probe, given, LossOutput, 'LossOutput(loss, {"loss": loss.detach()})')
    probe.tensor(name, given.loss, shape=(), dtype=dtype)
    probe.close(name, given.loss, expected, mistakes=mistakes, layer=layer, tolerance=2e-5)
    metrics = given.metrics if isinstance(given.metrics, dict) else {}
    probe.require(isinstance(metrics.get("loss"), Tensor), "type",
                  'The metrics have no tensor under the name "loss": return `LossOutput(loss, {"loss": '
                  'loss.detach()})`.')
    probe.require(metrics["loss"].shape == given.loss.shape and torch.equal(metrics["loss"], given.loss.detach()),
                  "value", 'metrics["loss"] is another number than the loss itself: it is the same one, detached.')


# 8.3


def factors(
    total: int, warmup: float, decay: float, final: float, *, warm: Callable | None = None,
    falling: Callable | None = None, whole: Callable = round, overlap: Callable | None = None, least: int = 1,
) -> Tensor:
    """(total,) the factor of every step. What is given in place of None is a mistake.

    warm(step, warmup_steps), falling(left, decay_steps), whole(number) -> int, overlap(up, down); least: steps of
    warm-up.
    """
    up_steps, down_steps = max(least, whole(warmup * total)), whole(decay * total)
    warm = warm or (lambda step, steps: (step + 1) / steps if step < steps else 1.0)
    falling = falling or (lambda left, steps: final + (1 - final) * left / steps if left < steps else 1.0)
    values = []
    for step in range(total):
        up, down = warm(step, up_steps), falling(total - 1 - step, down_steps)
        values.append(overlap(up, down) if overlap else up if step < up_steps else down)
    return torch.tensor(values, dtype=torch.float64)


def schedule_mistakes(total: int, warmup: float, decay: float, final: float) -> dict[str, Tensor]:
    def wrong(**rule) -> Tensor:
        return factors(total, warmup, decay, final, **rule)

    def shape(curve: Callable) -> Callable:
        return lambda left, steps: curve(left / steps) if left < steps else 1.0

    cosine = shape(lambda x: final + (1 - final) * (1 - math.cos(math.pi * x)) / 2)
    return {
        "The first step has the factor 0, and is wasted: the warm-up is (step + 1) / warmup_steps.":
            wrong(warm=lambda step, steps: min(1.0, step / steps)),
        "The warm-up ends one step late: its last step, warmup_steps - 1, has the factor 1 already.":
            wrong(warm=lambda step, steps: min(1.0, (step + 1) / (steps + 1))),
        "Where warmup * total_steps rounds to 0 there is no step of warm-up: there is at least 1.": wrong(least=0),
        "There is no warm-up.": wrong(warm=lambda step, steps: 1.0),
        "The warm-up grows in one jump, from a constant: it is (step + 1) / warmup_steps.":
            wrong(warm=lambda step, steps: 1 / steps if step < steps else 1.0),
        "There is no decay: in the last decay_steps the factor falls to `final`.":
            wrong(falling=lambda left, steps: 1.0),
        "The decay is one step late, and the last factor is above `final`: `left` is the number of steps that come "
        "after this one, total_steps - 1 - step.":
            wrong(falling=lambda left, steps: final + (1 - final) * (left + 1) / steps if left + 1 < steps else 1.0),
        "The decay runs over one step less: it takes round(decay * total_steps) steps, and the first of them is "
        "already one notch below 1.":
            wrong(falling=lambda left, steps: final + (1 - final) * left / max(1, steps - 1) if left < steps else 1.0),
        "The decay goes to 0: its last step has the factor `final`.": wrong(falling=shape(lambda x: x)),
        "The decay goes to 0 and is cut off at `final`: it is a straight line from 1 to `final`.":
            wrong(falling=shape(lambda x: max(final, x))),
        "The decay jumps to `final` at once: it is a straight line.": wrong(falling=shape(lambda x: final)),
        "The decay is a cosine: it is a straight line.": wrong(falling=cosine),
        "The decay is exponential: it is a straight line.":
            wrong(falling=shape(lambda x: final ** (1 - x) if final else 0.0)),
        "The factor falls from 1 to 1 - final: it falls to `final`.":
            wrong(falling=shape(lambda x: 1 - final + final * x)),
        "The factor rises in the decay: at its end few steps are left, and it is `final`.":
            wrong(falling=shape(lambda x: 1 - (1 - final) * x)),
        "The decay begins after the share `decay` of the run: it takes up that share at the end.":
            factors(total, warmup, 1 - decay, final),
        "The decay takes up all steps after the warm-up: only the last decay_steps are its own.":
            factors(total, warmup, 1 - max(1, round(warmup * total)) / total, final),
        "The shares are rounded down: the numbers of steps are round(share * total_steps).": wrong(whole=int),
        "The shares are rounded up: the numbers of steps are round(share * total_steps).": wrong(whole=math.ceil),
        "Halves are rounded up: Python's round(2.5) is 2, and the card asks for that one.":
            wrong(whole=lambda x: math.floor(x + 0.5)),
        "Where warm-up and decay overlap, the smaller factor is taken: there the warm-up counts.": wrong(overlap=min),
        "Where warm-up and decay overlap, the decay counts: there the warm-up does.":
            wrong(overlap=lambda up, down: down if down < 1 else up),
        "Where warm-up and decay overlap, the factors are multiplied: there the warm-up counts.":
            wrong(overlap=lambda up, down: up * down),
        "`warmup` is not used: it is 0.03 only where none is given.": factors(total, 0.03, decay, final),
        "`decay` is not used: it is 0.5 only where none is given.": factors(total, warmup, 0.5, final),
        "`final` is not used: it is 0.05 only where none is given.": factors(total, warmup, decay, 0.05),
        "The time runs backwards: step 0 is the first.": wrong().flip(0),
    }


CASES = {  # name -> total, warmup, decay, final
    "1 step": (1, 0.03, 0.5, 0.05), "no decay": (12, 0.25, 0.0, 0.1), "an overlap": (20, 0.6, 0.7, 0.2),
    "warmup=0": (11, 0.0, 0.5, 0.0), "warmup=0, decay=1": (9, 0.0, 1.0, 0.25), "halves": (10, 0.25, 0.65, 0.1),
    "no decay in a short run": (3, 0.5, 0.1, 0.1), "final=1": (8, 0.25, 0.5, 1.0),
}


def schedule(probe: Probe) -> None:
    for share in (0, 1):  # of warm-up and decay, the one whose steps are rounded up
        drawn = draw_schedule(probe, share)
        compare_factors(probe, drawn, f"factor at each of {drawn[0]} steps")
    total = 2 * probe.size(35, 65)
    values = torch.tensor([number(probe, probe.call(step, total)) for step in range(total)], dtype=torch.float64)
    sentence = ("The factors are right when all arguments are given, but not by default: warmup is 0.03 then, decay "
                "0.5, and final 0.05.")
    probe.close(f"factor at each of {total} steps, defaults", values, factors(total, 0.03, 0.5, 0.05), axes="S",
                tolerance=1e-9, mistakes={sentence: values})
    for name, case in CASES.items():
        compare_factors(probe, case, f"factor, {name}", layer="edge case")


def draw_schedule(probe: Probe, share: int) -> tuple:
    """total, warmup, decay, final; one share's number of steps is rounded up, the other's down."""
    while True:
        drawn = (probe.size(31, 60), probe.size(8, 20) / 100, probe.size(25, 45) / 100, probe.size(10, 30) / 100)
        parts = drawn[1] * drawn[0] % 1, drawn[2] * drawn[0] % 1
        if parts[share] > 0.55 and 0.05 < parts[1 - share] < 0.45:
            return drawn


def compare_factors(probe: Probe, case: tuple, name: str, layer: str = "value") -> None:
    total, warmup, decay, final = case
    values = [number(probe, probe.call(step, total, warmup=warmup, decay=decay, final=final)) for step in range(total)]
    probe.close(name, torch.tensor(values, dtype=torch.float64), factors(*case), axes="S", layer=layer, tolerance=1e-9,
                mistakes=schedule_mistakes(*case))


def number(probe: Probe, value) -> float:
    right = isinstance(value, (int, float)) and not isinstance(value, bool)
    shown = "None" if value is None else f"a {type(value).__name__}"
    end = ": does every way through the function end with `return`?" if value is None else \
        ": take it out with `.item()`." if isinstance(value, Tensor) else "."
    probe.require(right, "type", f"schedule returned {shown}, expected a number, the factor of one step{end}")
    return float(value)


# 8.4


def adamw_step(weight, gradient, exp_avg, exp_avg_sq, step, *, learning_rate, betas=(0.9, 0.95), eps=1e-15,
               weight_decay=0.1):
    """The card's formulas, in the dtype of what is given; returns the new (weight, exp_avg, exp_avg_sq)."""
    first = exp_avg.lerp(gradient, 1 - betas[0])
    second = torch.addcmul(betas[1] * exp_avg_sq, gradient, gradient, value=1 - betas[1])
    root = second.sqrt() / math.sqrt(1 - betas[1] ** step)
    rate = learning_rate / (1 - betas[0] ** step)
    return weight * (1 - learning_rate * weight_decay) - rate * first / (root + eps), first, second


def adamw_mistakes(given: tuple, options: dict) -> dict[str, Callable]:
    """Sentence -> the weight that this mistake gives."""
    weight, gradient, exp_avg, exp_avg_sq = (x.double() for x in given[:4])
    step, rate = given[4], options["learning_rate"]
    (b1, b2), eps, decay = options["betas"], options["eps"], options["weight_decay"]
    m, v = b1 * exp_avg + (1 - b1) * gradient, b2 * exp_avg_sq + (1 - b2) * gradient**2

    def moved(mean=m / (1 - b1**step), square=v / (1 - b2**step), denominator=None, shrunk=(1 - rate * decay) * weight):
        return lambda: shrunk - rate * mean / (square.sqrt() + eps if denominator is None else denominator)

    def repaired(number: int) -> Callable:
        return moved(m / max(1 - b1**number, 1e-30), v / max(1 - b2**number, 1e-30))

    mixed = gradient + decay * weight
    m_l2, v_l2 = b1 * exp_avg + (1 - b1) * mixed, b2 * exp_avg_sq + (1 - b2) * mixed**2
    hat = v / (1 - b2**step)
    right = moved()()
    return {
        "eps stands inside the root: PyTorch adds it to the root, outside.": moved(denominator=(hat + eps).sqrt()),
        "eps is added to the root before v is repaired, so that at the first steps it counts too much: repair v, take "
        "the root, then add eps.": moved(denominator=(v.sqrt() + eps) / (1 - b2**step) ** 0.5),
        "eps is left out: it is added to the root.": moved(denominator=hat.sqrt()),
        "eps is subtracted from the root: add it.": moved(denominator=hat.sqrt() - eps),
        "The root is at least eps, where eps should be added to it.": moved(denominator=hat.sqrt().clamp(min=eps)),
        "eps is squared before it is used: add eps itself to the root.": moved(denominator=hat.sqrt() + eps**2),
        "`eps` is not used: 1e-8 is added to the root, whatever is given.": moved(denominator=hat.sqrt() + 1e-8),
        "`eps` is not used: 1e-15 is added to the root, whatever is given.": moved(denominator=hat.sqrt() + 1e-15),
        "eps is multiplied by the learning rate.": moved(denominator=hat.sqrt() + rate * eps),
        "v is not repaired: divide it by 1 - beta2^step before the root.": moved(square=v),
        "m is not repaired: divide it by 1 - beta1^step.": moved(mean=m),
        "Neither m nor v is repaired: divide them by 1 - beta^step.": moved(mean=m, square=v),
        "The repair divides by 1 - beta at every step: it is 1 - beta^step.": repaired(1),
        "m's repair divides by 1 - beta1 at every step: it is 1 - beta1^step.": moved(mean=m / (1 - b1)),
        "v's repair divides by 1 - beta2 at every step: it is 1 - beta2^step.": moved(square=v / (1 - b2)),
        "The step is the learning rate times a sign, whatever the sizes of m and v: it is m / (root of v + eps), both "
        "repaired.": moved(mean=m.sign(), denominator=1),
        "The repair counts the steps from 0: step counts from 1, use it as it is.": repaired(step - 1),
        "The repair is one step ahead: step counts from 1, use it as it is.": repaired(step + 1),
        "m and v are repaired with each other's beta.": moved(m / (1 - b2**step), v / (1 - b1**step)),
        "The root is missing: the denominator is the root of the repaired v, plus eps.": moved(denominator=hat + eps),
        "The old m is used: first update it with the gradient.": moved(mean=exp_avg / (1 - b1**step)),
        "The old v is used: first update it with the gradient.": moved(square=exp_avg_sq / (1 - b2**step)),
        "The gradient itself is used where the repaired m belongs.": moved(mean=gradient),
        "The weight decay is added to the gradient, and so goes through m and v (Adam with an L2 penalty): shrink the "
        "weight by itself, by the factor 1 - learning_rate * weight_decay.":
            moved(m_l2 / (1 - b1**step), v_l2 / (1 - b2**step), shrunk=weight),
        "There is no weight decay: the weight shrinks by the factor 1 - learning_rate * weight_decay.":
            moved(shrunk=weight),
        "The weight decay is not multiplied by the learning rate: the factor is 1 - learning_rate * weight_decay.":
            moved(shrunk=(1 - decay) * weight),
        "The weight decay makes the weight grow: the factor is 1 - learning_rate * weight_decay.":
            moved(shrunk=(1 + rate * decay) * weight),
        "The weight is shrunk after the step, and the step with it: shrink the old weight, then step.":
            lambda: (1 - rate * decay) * (weight - rate * (m / (1 - b1**step)) / (hat.sqrt() + eps)),
        "The step goes uphill: subtract it.": lambda: 2 * (1 - rate * decay) * weight - right,
        "The learning rate is left out of the step.": lambda: (1 - rate * decay) * weight
            - (m / (1 - b1**step)) / (hat.sqrt() + eps),
    }


def average_mistakes(given: tuple, options: dict) -> tuple[dict, dict]:
    """Sentence -> m, and sentence -> v, that a mistake gives."""
    weight, gradient, exp_avg, exp_avg_sq = (x.double() for x in given[:4])
    (b1, b2), step = options["betas"], given[4]
    m, v, square = b1 * exp_avg + (1 - b1) * gradient, b2 * exp_avg_sq + (1 - b2) * gradient**2, gradient**2
    mixed = gradient + options["weight_decay"] * weight
    penalty = "The weight decay went into {}, as in Adam with an L2 penalty: AdamW shrinks the weight by itself."
    weight_after = adamw_step(weight, gradient, exp_avg, exp_avg_sq, step, **options)[0]
    places = "The results have changed places: end with `return weight, exp_avg, exp_avg_sq`."
    return {
        "m is averaged with the second beta: the first one belongs to m, the second to v.":
            b2 * exp_avg + (1 - b2) * gradient,
        places: v,
        f"{places} The weight stands second.": weight_after,
        penalty.format("m"): b1 * exp_avg + (1 - b1) * mixed,
        "The returned m is the repaired one: return the running average itself, or it is repaired again at the next "
        "step.": m / (1 - b1**step),
        "The new m takes beta1 of the gradient and 1 - beta1 of the old: it is the other way round.":
            b1 * gradient + (1 - b1) * exp_avg,
        "The gradient enters m whole: multiply it by 1 - beta1.": b1 * exp_avg + gradient,
        "The returned m is the old one.": exp_avg,
        "The returned m is the gradient.": gradient,
    }, {
        "v is averaged with the first beta: the first one belongs to m, the second to v.":
            b1 * exp_avg_sq + (1 - b1) * square,
        penalty.format("v"): b2 * exp_avg_sq + (1 - b2) * mixed**2,
        "The returned v is the repaired one: return the running average itself, or it is repaired again at the next "
        "step.": v / (1 - b2**step),
        "The new v takes beta2 of the squared gradient and 1 - beta2 of the old: it is the other way round.":
            b2 * square + (1 - b2) * exp_avg_sq,
        "The squared gradient enters v whole: multiply it by 1 - beta2.": b2 * exp_avg_sq + square,
        "v averages the gradient, not its square.": b2 * exp_avg_sq + (1 - b2) * gradient,
        "v averages the size of the gradient, not its square.": b2 * exp_avg_sq + (1 - b2) * gradient.abs(),
        "v averages the square of m: it is the square of the gradient.": b2 * exp_avg_sq + (1 - b2) * m**2,
        "(1 - beta2) is squared with the gradient: square the gradient alone.":
            b2 * exp_avg_sq + ((1 - b2) * gradient) ** 2,
        "The returned v is the root of v: return v itself.": v.sqrt(),
        "The returned v is the root of the repaired v: return v itself.": (v / (1 - b2**step)).sqrt(),
        "The returned v is the old one.": exp_avg_sq,
    }


def optimiser(probe: Probe) -> None:
    size = (probe.size(2, 4), 5)
    double = torch.float64
    for case, (unit, step, eps) in {"gradients of 1": (1.0, probe.size(2, 6), 1.0),
                                    "gradients of 1e-14": (1e-14, probe.size(2, 6), 1e-15),
                                    "gradients of 1e-14, eps 1e-8": (1e-14, 1, 1e-8)}.items():
        weight = probe.random(*size, dtype=double) * (1 if unit == 1 else 0.01)
        old, square = 0.5 * unit * probe.random(*size, dtype=double), unit**2 * probe.random(*size, dtype=double) ** 2
        given = (weight, unit * probe.random(*size, dtype=double), old, square, step)
        compare_step(probe, given, dict(learning_rate=0.3, betas=(0.8, 0.7), eps=eps, weight_decay=0.2), case)
    zero, gradient = torch.zeros(*size, dtype=double), 1e-14 * probe.random(*size, dtype=double)
    weight = probe.random(*size, dtype=double)
    first = probe.call(weight, gradient, zero, zero, 1, learning_rate=0.01)
    compare_step(probe, (weight, gradient, zero, zero, 1), dict(learning_rate=0.01), "first step, defaults", first)
    single = [x.float() for x in (zero, 1e-14 * probe.random(*size), zero, zero)]
    compare_step(probe, (*single, 1), dict(learning_rate=0.01), "first step in float32", layer="property")
    steps = [probe.random(3, dtype=double) for _ in range(4)]
    ours = theirs = (probe.random(3, dtype=double), *torch.zeros(2, 3, dtype=double))
    for number, gradient in enumerate(steps, 1):
        ours = probe.call(ours[0], gradient, *ours[1:], number, learning_rate=0.1)
        theirs = adamw_step(theirs[0], gradient, *theirs[1:], number, learning_rate=0.1)
    probe.close("weight after four steps", ours[0], theirs[0], axes="H", layer="property")


def compare_step(probe: Probe, given: tuple, options: dict, name: str, made=None, layer: str = "value") -> None:
    made = probe.call(*given, **options) if made is None else made
    names, shape, dtype = ("weight", "exp_avg", "exp_avg_sq"), given[0].shape, given[0].dtype
    made = probe.pair(made, names)
    expected = adamw_step(*(x.double() for x in given[:4]), given[4], **options)
    full = dict(betas=(0.9, 0.95), eps=1e-15, weight_decay=0.1) | options
    means, squares = average_mistakes(given, full)
    for which, value, right, mistakes in ((1, made[1], expected[1], means), (2, made[2], expected[2], squares),
                                          (0, made[0], expected[0], adamw_mistakes(given, full))):
        label = f"{names[which]}, {name}"
        probe.tensor(label, value, shape=shape, dtype=dtype, axes="BD")
        probe.close(label, value, right, axes="BD", layer=layer, mistakes=mistakes)


def reference_pack():
    from minim1.data.packing import pack_documents
    return pack_documents


def reference_loss():
    from minim1.train.losses import next_token_loss
    return next_token_loss


def reference_schedule():
    from minim1.train.schedule import warmup_stable_decay
    return warmup_stable_decay


EXERCISES: tuple[Exercise, ...] = (
    Exercise("8.1", "pack", "Packing", pack, reference_pack, part="pack"),
    Exercise("8.2", "lm_loss", "Masked loss", lm_loss, reference_loss, part="lm_loss"),
    Exercise("8.3", "schedule", "Schedule", schedule, reference_schedule, part="schedule"),
    Exercise("8.4", "adamw_step", "One step of AdamW", optimiser, lambda: adamw_step),
)
