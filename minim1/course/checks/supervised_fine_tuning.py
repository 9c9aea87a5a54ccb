"""Checks of chapter 10: which tokens of a conversation carry loss, conversations in rows, and pass@k.

What is expected is computed here, apart from `minim1.data` and `minim1.evaluate`. P problems.
"""

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from minim1.course.checking import Exercise, Probe

BOD, SYSTEM, TOOLS, USER, ASSISTANT, TOOL, END, THINK, END_THINK, PAD = 1, 3, 4, 5, 6, 7, 8, 9, 10, 0

# 10.1

Segment = tuple[list[int], bool]


def marked(segments: Sequence[Segment], *, header: bool = False, end: bool = True, others_end: bool = False,
           reset: bool = False, heed_sign: bool = True, heed_role: bool = True, unseen: Sequence[int] = (),
           skip: Sequence[int] = (), closers: Sequence[int] = (END,), openers: Sequence[int] = (ASSISTANT,),
           first_only: bool = False, last_only: bool = False, unfinished: bool = True, late: int = 0,
           end_always: bool = False, whole_turn: bool = False) -> tuple[list[int], list[int]]:
    """What `supervise` should give; the options make the mistakes that the check knows.

    reset: a new segment begins with nobody speaking; unseen: ids that go unseen in segments that are not
    supervised; end_always: the assistant's end counts also where its segment does not; whole_turn: one
    segment that is not supervised takes the loss from its whole turn; late: the mask is shifted by so many.
    """
    ids, mask, turn_of, speaking, turn, ends = [], [], [], False, -1, {}
    silent = set()
    for tokens, supervised in segments:
        speaking = speaking and not reset
        for token in tokens:
            opens, closes = token in openers, token in closers
            inside = speaking and not opens
            sign = supervised or not heed_sign or (end_always and inside and token == END)
            kept = inside and token not in skip and (end or token != END)
            kept = kept or (header and opens) or (others_end and token == END) or not heed_role
            ids.append(token)
            mask.append(int(kept and sign))
            seen = supervised or token not in unseen
            if opens and seen:
                speaking, turn = True, turn + 1
            turn_of.append(turn if inside else None)
            if inside and not supervised:
                silent.add(turn)
            if closes and seen and not opens:
                if inside:
                    ends[turn] = True
                speaking = False
    for t, number in enumerate(turn_of):
        if number is None:
            continue
        dropped = (first_only and number > 0) or (last_only and number < turn) or (whole_turn and number in silent)
        if dropped or (not unfinished and number not in ends):
            mask[t] = 0
    if late > 0:
        mask = [0] * min(late, len(mask)) + mask[:-late]
    elif late < 0:
        mask = mask[-late:] + [0] * min(-late, len(mask))
    return ids, mask


MARKED_WRONG = {  # sentence -> options of `marked`
    "A turn without END carries no loss: what there is of it counts.": dict(unfinished=False),
    "The assistant's header carries loss: the template writes it, so the mask begins one token later.":
        dict(header=True),
    "The assistant's END carries no loss: the model has to write it, or it never stops.": dict(end=False),
    "The mask is one token early: it has the header, which the template writes, and lacks the END, which the model "
    "writes.": dict(header=True, end=False),
    "The END of other sentences carries loss too: only that of the assistant's own does.": dict(others_end=True),
    "An ASSISTANT in a segment that is not supervised goes unseen: it opens the sentence all the same; only the loss "
    "is withheld.": dict(unseen=(ASSISTANT,)),
    "An END in a segment that is not supervised goes unseen: it closes the sentence all the same; only the loss is "
    "withheld.": dict(unseen=(END,)),
    "ASSISTANT and END in a segment that is not supervised go unseen: they open and close the sentence all the same; "
    "only the loss is withheld.": dict(unseen=(ASSISTANT, END)),
    "The assistant's sentence ends with its segment: a sentence that is open at the end of a segment goes on in the "
    "next.": dict(reset=True),
    "Segments that are not supervised carry loss all the same: their sign must be heeded.": dict(heed_sign=False),
    "Whatever stands in a supervised segment carries loss, the prompt too: it must also be the assistant's.":
        dict(heed_role=False),
    "<think> and </think> carry no loss: the model has to write them too.": dict(skip=(THINK, END_THINK)),
    "Control tokens in the assistant's sentence carry no loss, END among them: the model has to write them all.":
        dict(skip=range(15)),
    "Control tokens in the assistant's sentence carry no loss, except END: the model has to write them all.":
        dict(skip=(*range(END), *range(THINK, 15))),
    "A token with id 0 in the assistant's sentence carries no loss: there is no padding here, it is a token as any "
    "other.": dict(skip=(PAD,)),
    "The assistant's sentence ends too early, with </think>: only END ends it.": dict(closers=(END, END_THINK)),
    "The assistant's sentence ends too early, at a control token: only END ends it.": dict(closers=range(15)),
    "The assistant's sentence begins too late, with <think>: whatever follows the header belongs to it.":
        dict(openers=(THINK,)),
    "The assistant's sentence never ends: END closes it, and what follows is not the assistant's.": dict(closers=()),
    "The user's sentences carry loss too: they are read, not written.": dict(openers=(USER, ASSISTANT)),
    "What tools answer carries loss too: it is read, not written.": dict(openers=(TOOL, ASSISTANT)),
    "Everybody's sentences carry loss: only what follows an ASSISTANT header does.":
        dict(openers=(SYSTEM, TOOLS, USER, ASSISTANT, TOOL)),
    "What the user writes carries loss instead of what the assistant does: look for ASSISTANT.": dict(openers=(USER,)),
    "Only the first turn of the assistant carries loss: all of them should.": dict(first_only=True),
    "Only the last turn of the assistant carries loss: all of them should.": dict(last_only=True),
    "The assistant's END carries loss also where its segment is not supervised: there nothing does.":
        dict(end_always=True),
    "One segment that is not supervised takes the loss from its whole turn: only its own tokens carry none.":
        dict(whole_turn=True),
    "The mask is one token late: entry t belongs to token t itself, shifting is the loss's business.": dict(late=1),
    "The mask is one token early: entry t belongs to token t itself, shifting is the loss's business.": dict(late=-1),
}


def words(probe: Probe, count: int = 0) -> list[int]:
    return [probe.size(50, 999) for _ in range(count or probe.size(2, 4))]


def asked(probe: Probe, header: int = USER) -> list[int]:
    return [header, *words(probe), END]


def supervise(probe: Probe) -> None:
    def case(name: str, segments: list[Segment], layer: str = "value") -> None:
        given = copy.deepcopy(segments)
        value = probe.call(given)
        probe.require(given == segments, "property", "supervise changed the segments that it was given, as `ids += ...`"
                                                     " does where ids is one of their lists: build new ones.")
        ids, mask = probe.pair(value, ("ids", "mask"))
        wanted, expected = marked(segments)
        probe.require(not (wanted != expected and plain_list(ids) == expected and plain_list(mask) == wanted), "type",
                      "The results have changed places: end with `return ids, mask`.")
        no_sign = [token for tokens, supervised in segments for token in tokens if supervised]
        probe.equal(f"ids ({name})", ids, wanted, layer=layer, mistakes={
            "The tokens of segments that are not supervised are missing: they are read, so they stay in ids.": no_sign,
            "The ids are still in segments: join them to one list.": [tokens for tokens, _ in segments],
        })
        mask = numbers(mask)
        probe.require(not isinstance(mask, list) or len(mask) == len(wanted), "shape",
                      f"The mask has {len(mask) if isinstance(mask, list) else 0} entries for {len(wanted)} tokens: "
                      "one for each token.")
        probe.equal(f"mask ({name})", mask, expected, layer=layer, mistakes={
            sentence: lambda options=options: marked(segments, **options)[1]
            for sentence, options in MARKED_WRONG.items()
        } | {
            "The mask is turned around: 1 is for what carries loss.": [1 - m for m in expected],
            "No token carries loss: those that the assistant writes in a supervised segment should.": [0] * len(wanted),
        })

    prompt, first = [BOD, *asked(probe, SYSTEM), *asked(probe)], words(probe)
    answer = [THINK, *words(probe), END_THINK, *words(probe), END]
    case("one segment", [(prompt + [ASSISTANT] + answer + asked(probe), True)])
    case("cut in the thinking", [(prompt + [ASSISTANT, THINK], True), (answer[1:], True), (asked(probe), True)])
    case("prompt and answer", [(prompt + [ASSISTANT], False), (answer, True)])
    thought = [(prompt + [ASSISTANT, THINK, *first], True), (words(probe), False),
               ([*words(probe), END_THINK, *words(probe), END], True)]
    case("a segment without loss", thought)
    case("two turns", [*thought, (asked(probe) + [ASSISTANT], True), ([*words(probe), END], True)])
    case("three turns in one segment", [(prompt + [ASSISTANT, *answer, *asked(probe), ASSISTANT, *words(probe), END,
                                                   *asked(probe), ASSISTANT, *answer], True)])
    case("cut in the middle of sentences", [
        (prompt[:-2], True), (prompt[-2:], True), ([ASSISTANT], True), (answer[:2], True), (answer[2:-1], True),
        ([END], True), ([USER], True), ([*words(probe), END, ASSISTANT, *words(probe)], True),
        ([*words(probe), END], True)])
    case("an end without loss", [(prompt + [ASSISTANT, *words(probe)], True), ([END], False), (asked(probe), True),
                                 ([ASSISTANT], False), ([*words(probe), END], True), (asked(probe), True)], "property")
    case("a header without loss", [(prompt + [ASSISTANT], False), (answer[:3], True), (answer[3:], False),
                                   (asked(probe), False), ([ASSISTANT], True), (answer, True)], "property")
    case("a turn without loss", [(prompt, True), ([ASSISTANT, *answer], False), (asked(probe), True),
                                 ([ASSISTANT, *answer], True)], "property")
    case("tools and other headers", [(prompt + [ASSISTANT, *words(probe), 13, *words(probe), 14, END], True),
                                     (asked(probe, TOOL) + asked(probe, TOOLS) + asked(probe, TOOL), True),
                                     ([ASSISTANT, *answer, *asked(probe)], True)], "property")
    case("control tokens and 0 in a turn", [(prompt + [ASSISTANT, 11, PAD, 12, 2, 9, 9, 10, 9, 10, PAD, 77, END], True),
                                            ([*asked(probe), ASSISTANT, PAD, END], True)], "property")
    for _ in range(2):
        drawn = prompt + [ASSISTANT, *answer, *asked(probe), *asked(probe, TOOL), ASSISTANT, *words(probe), END,
                          *asked(probe), ASSISTANT, THINK, *words(probe, 6)]
        segments, at = [], 0
        while at < len(drawn):
            size = probe.size(1, 5)
            segments.append((drawn[at : at + size], bool(probe.size(0, 2))))
            at += size
        case("cut at random", segments, "property")
    case("unfinished", [(prompt + [ASSISTANT, THINK], True), (words(probe), False), (words(probe), True)], "edge case")
    case("an open header", [(prompt + [ASSISTANT], True)], "edge case")
    case("an empty answer", [(prompt + [ASSISTANT, END], True), (asked(probe), True)], "edge case")
    case("nobody answers", [(prompt, True), (asked(probe), False)], "edge case")
    empty = [([], True), (prompt + [ASSISTANT], False), ([], False), (answer, True), ([], True)]
    case("empty segments", empty, "edge case")
    case("no segment", [], "edge case")
    case("the same again", [(prompt + [ASSISTANT], False), (answer, True)], "edge case")


def plain_list(value: object) -> object:
    return list(value) if isinstance(value, (list, tuple)) else value


def numbers(value: object) -> object:
    """A list with True and False as 1 and 0; whatever else it is, as it is."""
    return [int(x) if isinstance(x, bool) else x for x in value] if isinstance(value, (list, tuple)) else value


# 10.2

Conversation = tuple[list[int], list[int]]
NAMES = ("input_ids", "mask", "document_ids", "positions")


def kept(ids: Sequence[int], mask: Sequence[int], length: int, *, cut: str = "answer") -> int:
    """How many tokens of a conversation are written; `cut` names the rule, the right one "answer", or a mistake."""
    if len(ids) + (cut == "exact is too long") <= length and cut != "always":
        return len(ids)
    if cut in ("hard", "left out"):
        return length if cut == "hard" else 0
    reach = range(min(length + (cut == "one too far"), len(ids)) - (cut == "one too short"))
    ends = [t for t in reach if (ids[t] == END or cut == "any target") and (mask[t] or cut == "any end")]
    if cut == "first":
        ends = ends[:1]
    if cut == "or hard" and not ends:
        return length
    return ends[-1] + (cut != "before the end") if ends else 0


def rows_of(conversations: Sequence[Conversation], length: int, *, cut: str = "answer", first: bool = False,
            numbered: bool = False, padded_document: int = -1, padding_is_target: bool = False,
            positions_go_on: bool = False, one_based: bool = False, keep_rows: bool = False, right: bool = False,
            not_pad: bool = False, last_position: bool = False, need_target: bool = False, number: int = 0,
            all_targets: bool = False, early: bool = False) -> list[Tensor]:
    """What `to_batch` should give; the options make the mistakes that the check knows."""
    rows = []
    for ids, mask in conversations:
        size = min(kept(ids, mask, length, cut=cut), length)
        if (size or keep_rows) and not (need_target and not any(mask[1:size])):
            rows.append((ids[:size], mask[:size]))
    shape = (len(rows), length)
    input_ids, document_ids = torch.full(shape, PAD), torch.full(shape, padded_document)
    targets, positions = torch.full(shape, padding_is_target), torch.zeros(shape, dtype=torch.int64)
    if positions_go_on:
        positions += torch.arange(length)
    for row, (ids, mask) in enumerate(rows):
        size = len(ids)
        at = slice(length - size, length) if right else slice(0, size)
        input_ids[row, at] = torch.tensor(ids, dtype=torch.int64)
        targets[row, at] = torch.tensor(mask, dtype=torch.bool) | all_targets
        if not first and size:
            targets[row, at.start] = False
        targets[row] = targets[row].roll(-1) if early else targets[row]
        document_ids[row, at] = row if numbered else number
        positions[row, at] = torch.arange(size) + one_based
        if last_position and size:
            positions[row, size:] = size - 1
    if not_pad:
        document_ids[input_ids == PAD] = padded_document
    return [input_ids, targets, document_ids, positions]


ROWS_WRONG = {  # sentence -> options of `rows_of`; what is the same in a case stands after what is seen in it first
    "A conversation without a finished answer within `length` is cut hard: it must get no row.": dict(cut="or hard"),
    "A conversation is cut behind its last target, whatever that is: it must be an END.": dict(cut="any target"),
    "A conversation that is too long is cut hard, perhaps in the middle of a sentence: what is kept must end with the "
    "last END that carries loss within `length`.": dict(cut="hard"),
    "A conversation that is too long is left out although it holds a finished answer: cut it behind that.":
        dict(cut="left out"),
    "A conversation is cut behind an END that carries no loss, such as the user's: it must be one with mask 1.":
        dict(cut="any end"),
    "The END that is the last of the first `length` tokens is not found: look at all `length` of them.":
        dict(cut="one too short"),
    "A conversation is cut behind the first finished answer: keep as many as fit, so cut behind the last.":
        dict(cut="first"),
    "A conversation is cut before the END: it belongs to what is kept.": dict(cut="before the end"),
    "A conversation of exactly `length` tokens counts as too long: it fits.": dict(cut="exact is too long"),
    "A conversation that fits gets no row, because nothing in it is a target: it gets one all the same.":
        dict(need_target=True),
    "Conversations that fit are cut too: they are written whole, whatever they end with.": dict(cut="always"),
    "A conversation without a finished answer within `length` leaves an empty row: it must get none.":
        dict(keep_rows=True),
    "The first token of a row is a target: nothing stands before it to predict it from, so its mask is False.":
        dict(first=True),
    "document_ids counts rows: there is one conversation in each row, its number is 0.": dict(numbered=True),
    "document_ids is 0 at padding, so padding passes for text: it must be -1 there.": dict(padded_document=0),
    "document_ids is 1 at padding: it must be -1 there.": dict(padded_document=1),
    "document_ids is -100 at padding: it must be -1 there.": dict(padded_document=-100),
    "document_ids counts from 1: the one conversation of a row has the number 0.": dict(number=1),
    "All tokens are targets: the mask is True only where the conversation's is 1.": dict(all_targets=True),
    "The mask is one token early: entry t belongs to token t itself, shifting is the loss's business.":
        dict(early=True),
    "The mask is True at padding: padding is never a target.": dict(padding_is_target=True),
    "positions go on in the padding: they are 0 there.": dict(positions_go_on=True),
    "positions stay at the last one in the padding: they are 0 there.": dict(last_position=True),
    "positions begin with 1: they count from 0.": dict(one_based=True),
    "The tokens stand at the right end of the row: they begin at the left.": dict(right=True),
    "A token with id 0 inside of a conversation is taken for padding: only what lies behind its end is.":
        dict(not_pad=True),
}


def to_batch(probe: Probe) -> None:
    def talk(turns: int, *, size: int = 0, quiet: bool = False) -> Conversation:
        ids, mask = [BOD], [0]
        for _ in range(turns):
            said, answer = asked(probe), [THINK, *words(probe, size), END_THINK, *words(probe), END]
            ids += [*said, ASSISTANT, *answer]
            mask += [0] * (len(said) + 1) + [int(not quiet)] * len(answer)
        return ids, mask

    def case(name: str, conversations: list[Conversation], length: int, layer: str = "value") -> None:
        given = copy.deepcopy(conversations)
        value = probe.pair(probe.call(given, length), NAMES)
        probe.require(given == conversations, "property", "to_batch changed the conversations that it was given, as "
                                                          "`ids += ...` or `mask[0] = 0` do: work on copies.")
        expected = rows_of(conversations, length)
        rows = len(expected[0])
        for index, (entry, wanted) in enumerate(zip(value, expected)):
            known = {sentence: lambda index=index, options=options: rows_of(conversations, length, **options)[index]
                     for sentence, options in ROWS_WRONG.items()}
            if isinstance(entry, Tensor) and entry.ndim == 2 and entry.shape[1] == length and len(entry) != rows:
                for sentence, wrong in known.items():
                    same = wrong().shape == entry.shape and torch.equal(entry.double(), wrong().double())
                    probe.require(not same, layer, sentence)
                given_rows = f"There are {len(entry)} rows, expected {rows} ({name}, length {length})"
                probe.require(False, "shape", f"{given_rows}: one for each conversation that fits, or that has a "
                                              "finished answer within that length.")
            probe.require(not isinstance(entry, Tensor) or tuple(entry.shape) == tuple(wanted.shape), "shape",
                          f"{NAMES[index]} has the shape {tuple(getattr(entry, 'shape', ()))}, expected "
                          f"{tuple(wanted.shape)}: ({rows} rows, length {length}).")
            probe.close(f"{NAMES[index]} ({name})", entry, wanted, axes="BT", layer=layer, mistakes=known)

    short, two, three = talk(1), talk(2), talk(3)
    length = len(three[0]) + 3
    case("three that fit", [two, short, three], length)
    asks = (three[0] + asked(probe), three[1])
    asks = (asks[0], asks[1] + [0] * (len(asks[0]) - len(asks[1])))
    case("one that fits exactly", [short, asks], len(asks[0]))
    inside = len(three[0]) - probe.size(2, 4)  # in the last answer
    after = [t for t, (i, m) in enumerate(zip(*three)) if i == END and m]
    case("cut in a question", [three, short, three], after[1] + 4)
    case("cut in an answer", [short, three, two], inside)
    user_end = next(t for t in range(after[1] + 1, len(three[0])) if three[0][t] == END)
    case("cut behind a question", [three, short], user_end + 1)
    case("cut exactly behind an answer", [three, short, two], after[1] + 1)
    case("one token short of an answer", [three, short, two], after[1])
    endless = talk(1, size=3 * length)
    case("no answer that fits", [short, endless, two], len(two[0]) + 2)
    silent = talk(3, quiet=True)
    case("an answer without loss", [silent, short], len(silent[0]) - 2, "property")
    silent = (three[0], [m if t <= after[0] else 0 for t, m in enumerate(three[1])])
    case("a second answer without loss", [short, silent], after[1] + 3, "property")
    zeros = ([BOD, 0, 0, END, ASSISTANT, THINK, 0, END_THINK, 0, END], [0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    case("id 0 inside", [zeros, short, (zeros[0][:5] + [0, 0], zeros[1][:5] + [1, 1])], length, "property")
    case("the first token marked", [(two[0], [1] * len(two[0])), short], length, "property")
    case("equal conversations", [short, short, two, short], length, "property")
    case("no target", [(two[0], [0] * len(two[0])), short], length, "edge case")
    case("one token", [([ASSISTANT], [0]), ([END], [1])], 1, "edge case")
    case("nothing fits", [endless], length, "edge case")
    case("no conversation", [], length, "edge case")
    case("the same again", [two, short, three], length, "edge case")


# 10.3


def choices(right: Sequence[int], samples: int, k: int) -> Tensor:
    """What `pass_at_k` should give, in whole numbers up to the last division."""
    return torch.tensor([1 - math.comb(samples - c, k) / math.comb(samples, k) for c in right], dtype=torch.float64)


def pass_at_k(probe: Probe) -> None:
    def case(name: str, right: list[int], n: int, k: int, layer: str = "value") -> None:
        c = torch.tensor(right, dtype=torch.float64)
        expected, value = choices(right, n, k), probe.call(torch.tensor(right, dtype=torch.int64), n, k)
        if isinstance(value, Tensor) and value.ndim == 0 and len(right) > 1:
            probe.require(False, "shape", "One number came back: return one for each problem, (P,), not their mean.")
        value = probe.tensor("pass@k", value, shape=expected.shape, axes="P")
        probe.require(value.dtype == torch.float64, "type", f"The result is {str(value.dtype)[6:]}, expected float64: "
                                                            "convert `right` with `.double()` before you divide, or give "
                                                            "dtype=torch.float64 where you make a tensor of floats.")
        i = torch.arange(k, dtype=torch.float64)

        def product(first, total, steps=i):
            return 1 - ((first[:, None] - steps) / (total - steps)).prod(1)

        certain = n - c < k
        probe.require((value[certain] - 1).abs().max().item() < 1e-8 if certain.any() else True, layer,
                      "Where fewer than k answers are wrong, every choice of k holds a right one: pass@k is 1 there.")
        probe.close(f"pass@k ({name})", value, expected, axes="P", layer=layer, tolerance=1e-8, mistakes={
            "This is 1 - (1 - c/n)^k, which is too low on average: draw without putting back, so the fractions are "
            "(n-c)/n, (n-c-1)/(n-1), ...": 1 - (1 - c / n) ** k,
            "This is the probability that all k answers are right; pass@k asks for at least one.":
                1 - choices([n - x for x in right], n, k),
            "This is the probability that all k answers are wrong: take it from 1.": 1 - expected,
            "Right and wrong have changed places: n - c answers are wrong, and the product is over those.":
                lambda: choices([n - x for x in right], n, k),
            "This is the fraction c/n, which is pass@1 only.": c / n,
            "This is k·c/n, which counts answers instead of choices: several of the k may be right.": (k * c / n),
            "This is k·c/n cut off at 1: it counts choices with several right answers more than once.":
                (k * c / n).clamp(max=1),
            "The product has one factor too few: k answers are drawn, so i runs from 0 to k - 1.":
                product(n - c, n, i[:-1]),
            "The product has one factor too many: k answers are drawn, so i runs from 0 to k - 1.":
                lambda: product(n - c, n, torch.arange(min(k + 1, n), dtype=torch.float64)),
            "The first draw is left out: k answers are drawn, so i runs from 0 to k - 1.": product(n - c, n, i[1:]),
            "The product begins with i = 1: the first answer is drawn from all n, i runs from 0 to k - 1.":
                lambda: product(n - c, n, torch.arange(1, min(k + 1, n), dtype=torch.float64)),
            "The wrong answers become fewer with each draw, but the denominator stays n: it becomes smaller too.":
                1 - ((n - c[:, None] - i) / n).prod(1),
            "The denominator becomes smaller with each draw, but the number of wrong answers stays: it does too.":
                1 - ((n - c[:, None]) / (n - i)).prod(1),
            "The numbers agree in a few digits only: work in float64 from the first operation on.":
                value if (value - expected).abs().max() < 1e-3 else torch.zeros(0),
        })

    n = probe.size(9, 14)
    case("k = 4", [1, 2, n - 4, n - 5, 3], n, 4)
    case("k = 2", [probe.size(1, n - 2) for _ in range(5)], n, 2)
    case("k = 1", [probe.size(1, n - 1) for _ in range(5)], n, 1)
    case("few wrong ones", [0, 1, n // 2, n - 2, n - 1, n], n, 3)
    n = probe.size(60, 70)
    case("64 answers", [probe.size(0, n) for _ in range(17)], n, 16)
    case("one problem", [2], n, 8, "property")
    n = probe.size(900, 1100)
    case("many answers", [0, 1, 2, 40, n - 1], n, 400, "property")
    case("many more answers", [0, 1, 2, 3, 19_990], 20_000, 10_000, "property")
    case("k = n", [0, 1, 5, 8], 8, 8, "edge case")
    case("one answer", [0, 1], 1, 1, "edge case")
    case("all right, all wrong", [7, 0, 7], 7, 3, "edge case")


def package_supervise() -> Callable:
    return marked  # the package marks before it joins, from the messages themselves


def package_to_batch() -> Callable:
    return lambda conversations, length: tuple(rows_of(conversations, length))  # the package packs, and refuses


def package_pass_at_k() -> Callable:
    from minim1.evaluate import pass_at_k

    return pass_at_k


EXERCISES = (
    Exercise("10.1", "supervise", "What carries loss", supervise, package_supervise),
    Exercise("10.2", "to_batch", "Conversations to a batch", to_batch, package_to_batch),
    Exercise("10.3", "pass_at_k", "pass@k", pass_at_k, package_pass_at_k),
)
