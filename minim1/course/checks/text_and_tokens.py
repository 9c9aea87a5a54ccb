"""Checks of chapter 01: one merge of byte-pair encoding, the chat template, and which tokens are trained on.

What is expected is computed here, apart from `minim1.data`. B batch, T time.
"""

import copy
import re
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from minim1.course.checking import Exercise, Probe

# 1.1


def merged(ids: Sequence[int], new_id: int) -> tuple[list[int], tuple[int, int] | None]:
    """What `merge_step` should give."""
    pair = most_frequent(ids)
    return (list(ids), None) if pair is None else (replaced(ids, pair, new_id), pair)


def most_frequent(ids: Sequence[int], *, last: bool = False, largest: bool = False, smallest: bool = False,
                  disjoint: bool = False, rarest: bool = False, stride: int = 1, ends: bool = False, leave: int = 0,
                  keyless: bool = False):
    """The pair to merge, or what is chosen by a mistake: a tie to the pair whose first place is last, or to the largest
    or smallest pair; runs counted without overlap; the rarest pair; only every second place; the first id joined to the
    last; the last places left out; the largest pair, however often it occurs."""
    ids = ids[: len(ids) - leave]
    neighbours = list(zip(ids, ids[1:]))[::stride] + ([(ids[-1], ids[0])] if ends and len(ids) > 1 else [])
    if not neighbours:
        return None
    if keyless:
        return max(neighbours)
    counts = Counter(neighbours)
    if disjoint:
        counts = {pair: replaced(ids, pair, None).count(None) for pair in counts}
    pairs = list(counts)
    pairs = sorted(pairs, reverse=largest) if largest or smallest else pairs[::-1] if last else pairs
    return (min if rarest else max)(pairs, key=counts.get)


def replaced(ids: Sequence[int], pair: tuple, new_id: int | None) -> list:
    """Every occurrence of the pair, from left to right without overlap."""
    out, i = [], 0
    while i < len(ids):
        hit = tuple(ids[i : i + 2]) == pair
        out.append(new_id if hit else ids[i])
        i += 2 if hit else 1
    return out


def overlapping(ids: Sequence[int], pair: tuple, new_id: int) -> list[int]:
    """The mistake of looking at every position: in a run of one id, a token is used twice."""
    hits = [tuple(ids[i : i + 2]) == pair for i in range(len(ids))]
    return [new_id if hit else token for i, (token, hit) in enumerate(zip(ids, hits)) if hit or not (i and hits[i - 1])]


def from_the_right(ids: Sequence[int], pair: tuple, new_id: int) -> list[int]:
    return replaced(ids[::-1], pair[::-1], new_id)[::-1]


def only_one(ids: Sequence[int], pair: tuple, new_id: int) -> list[int]:
    at = next(i for i in range(len(ids)) if tuple(ids[i : i + 2]) == pair)
    return [*ids[:at], new_id, *ids[at + 2 :]]


def _text(ids: Sequence[int]) -> str:
    return " ".join(map(str, ids))


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split()]


CHOICES = {  # sentence -> how the pair was chosen
    "The last id and the first are no neighbours: the list does not run in a circle.": dict(ends=True),
    "The last two ids are not counted: the pair at the end of the list is a pair too.": dict(leave=1),
    "In a tie the pair wins that comes first in the list; yours is the one that comes last.": dict(last=True),
    "In a tie the pair wins that comes first in the list; yours is the largest pair, as from max over (count, pair).":
        dict(largest=True),
    "In a tie the pair wins that comes first in the list; yours is the smallest pair.": dict(smallest=True),
    "Every position counts, also where places overlap: in [5, 5, 5] the pair (5, 5) occurs twice; you count it once.":
        dict(disjoint=True),
    "Your pair is the rarest one: merge the pair that occurs most often.": dict(rarest=True),
    "You count every second position only: the pair at position i is (ids[i], ids[i + 1]) for each i.": dict(stride=2),
    "Your pair is the first one of the list, however often it occurs: merge the pair that occurs most often.":
        dict(stride=10**6),
    "Your pair is the largest one, not the most frequent one, as from max(counts) without key=counts.get.":
        dict(keyless=True),
}
REPLACEMENTS = {  # sentence -> how the pair was replaced
    "In a run of one id an id is used twice: [5, 5, 5] must become [new_id, 5]; after a replacement go on two further.":
        overlapping,
    "The pairs are replaced from the right: [5, 5, 5] must become [new_id, 5], from left to right.": from_the_right,
    "Only the first occurrence of the pair is replaced: replace all of them.": only_one,
    "The new id is put in, but the second id of the pair stays: skip it too.":
        lambda ids, pair, new_id: [new_id if tuple(ids[i : i + 2]) == pair else token for i, token in enumerate(ids)],
    "The new id is put in, but both ids of the pair stay: skip them.":
        lambda ids, pair, new_id: [x for i, token in enumerate(ids)
                                   for x in [new_id][: tuple(ids[i : i + 2]) == pair] + [token]],
    "Ids that end or begin with the same digits are taken for each other: compare them as numbers, not as text.":
        lambda ids, pair, new_id: _numbers(_text(ids).replace(_text(pair), str(new_id))),
    "The pair itself is right, but the list is still the old one: put new_id wherever the pair stands.":
        lambda ids, pair, new_id: list(ids),
    "Where the pair was, nothing is left: put new_id there.":
        lambda ids, pair, new_id: [token for token in replaced(ids, pair, None) if token is not None],
    "The pair's ids are replaced also where they stand alone: only both together, in this order, become new_id.":
        lambda ids, pair, new_id: [new_id if token in pair else token for token in ids],
    "The pair is replaced in both orders: (b, a) is another pair than (a, b).":
        lambda ids, pair, new_id: replaced(replaced(ids, pair, new_id), pair[::-1], new_id),
}
LAST_IS_LOST = "The last id of the list is lost: it has no right neighbour, but it belongs to the result."


def merge_step(probe: Probe) -> None:
    base = probe.size(20, 90)
    a, b, c, d = (base + x for x in (7, 3, 11, 0))
    new = 256 + probe.size(0, 99)

    def case(name: str, ids: list[int], layer: str = "value", hint: str = "") -> None:
        given, (expected, wanted) = list(ids), merged(ids, new)
        result = probe.call(given, new)
        probe.require(isinstance(result, (tuple, list)) and len(result) == 2, "type",
                      f"merge_step returned {_kind(result)}, expected two results: end with `return merged, pair`.")
        found, pair = result
        probe.require(not (isinstance(pair, list) and isinstance(found, tuple) or (found is None and pair is not None)),
                      "type", "The results have changed places: end with `return merged, pair`.")
        probe.require(given == ids, "property", "merge_step changed the list that it was given: build a new one.")
        probe.require(found is not given, "property",
                      "merge_step returned the very list that it was given; return a copy, such as list(ids).")
        if wanted is None:
            probe.require(pair is None, layer, f"The list {ids} has no pair, so the second result must be None; yours "
                                               f"is {pair!r}.")
        else:
            probe.require(pair is not None, layer, f"The pair is None, but the list {ids} has one: {wanted}.")
            probe.require(isinstance(pair, tuple) and len(pair) == 2 and all(type(x) is int for x in pair), "type",
                          f"The pair is {pair!r}, expected a tuple of two whole numbers such as {wanted}.")
            probe.require(new not in pair, layer,
                          f"The pair {pair} contains new_id: merge one pair, once, and return it.")
            probe.equal(f"pair ({name})", pair, wanted, layer=layer, mistakes={
                sentence: most_frequent(ids, **choice) for sentence, choice in CHOICES.items()} | {
                "The pair's two ids have changed places: first the left one.": wanted[::-1]})
        if wanted is None:
            mistakes = {"A list without a pair comes back as it is, in a copy; yours is empty.": []}
        else:
            replacements = ({hint: only_one} if hint else {}) | REPLACEMENTS
            mistakes = {sentence: replace(ids, wanted, new) for sentence, replace in replacements.items()}
            mistakes[LAST_IS_LOST] = expected[:-1]
        probe.equal(f"list ({name})", found, expected, layer=layer, mistakes=mistakes)
        probe.require(isinstance(found, list) and all(type(x) is int for x in found), "type",
                      f"The first result is {_kind(found)} with entries such as {found[:1]}; expected a list of ints.")

    case("a pair three times", [d, a, b, c, b, a, b, c, b, a, b, d, a])
    case("the pair at the end", [b, d, c, d, a, b, c, d, b, a, b, a, b])
    tied = [[base + 3, base + 4], [base + 7, base + 8], [base + 1, base + 2], [base + 5, base + 6]]
    case("four pairs in a tie", [x for n, two in enumerate(tied * 2) for x in (*two, base + 20 + n)])
    case("another tie", [b, a, d, c, d, c, a, b, a])
    case("ends that might be a pair", [b, c, d, base, a, b, 0, c, d, 0, a, b, base, a])
    case("no pair twice", [c, a, b, d])
    case("a run of three", [a, a, a, b])
    case("a run of five", [b, c, a, a, a, a, a, b, c, b, c])
    case("runs that decide", [d, a, d, b, c, a, a, a, b, c, a, a, b, d])
    drawn = [base + probe.size(0, 3) for _ in range(probe.size(60, 90))]
    case("drawn ids", drawn, "property")
    case("large ids", [int(f"1000{x}") for x in drawn], "property", hint=(  # equal ones are not the same object
        "Only the first occurrence is replaced where ids are large: compare them with ==, not with `is`."))
    case("numbers that end alike", [7, 8, 17, 8, 7, 8, 7, 81, 17, 9, 7, 8], "property")
    case("id 0", [0, 1, 0, 1, 2, 0], "edge case")
    case("two ids", [a, b], "edge case")
    case("one id", [a], "edge case")
    case("no id", [], "edge case")


def _kind(value: object) -> str:
    if value is None:
        return "None"
    return f"{len(value)} results" if isinstance(value, tuple) else f"a {type(value).__name__}"


# 1.2

BEGIN, END = "<begin_of_document>", "<end_of_sentence>\n"
HEADERS = {
    "system": "<beginning_of_sentence>system ai_setting=MiniMax AI\n",
    "user": "<beginning_of_sentence>user name=user\n",
    "assistant": "<beginning_of_sentence>ai name=MiniMax AI\n",
}
THINK, END_THINK = "<think>\n", "\n</think>\n"
DEFAULT_SYSTEM = "You are a helpful assistant created by Minimax based on MiniMax-M1 model."


def rendered(messages: Sequence[dict], prompt: bool = False, *, default: str | None = DEFAULT_SYSTEM,
             strip: Callable[[str], str] = str.strip, strip_reasoning: bool = False, thinking: str = "all",
             empty_system: str = "left out", header: str = "assistant", tags: bool = True,
             drop_empty: bool = False) -> str:
    """What `render` should give; the options make the mistakes that the check knows.

    default: the system text where there is none (None: no sentence); thinking: of which turns, "all", "last", "none",
    "full" (where it is not empty), "always" or "after" the content; empty_system: "left out", "written", "default" or
    "none"; header: the prompt's role.
    """
    messages = list(messages)
    if messages[0]["role"] != "system" and default is not None:
        messages = [{"role": "system", "content": default}, *messages]
    text = BEGIN
    for i, message in enumerate(messages):
        role, content = message["role"], message["content"] or ""
        content = strip(content)
        if drop_empty and not content:
            continue
        if role == "system" and not content:
            if empty_system == "left out":
                continue
            content = DEFAULT_SYSTEM if empty_system == "default" else "" if empty_system == "written" else "None"
        reasoning = message.get("reasoning") if role == "assistant" else None
        if reasoning is not None:
            last = not any(m["role"] == "assistant" for m in messages[i + 1 :])
            reasoning = reasoning.strip() if strip_reasoning else reasoning
            if thinking == "all" or (thinking == "last" and last) or (thinking == "full" and reasoning):
                content = THINK + reasoning + END_THINK + content if tags else reasoning + content
            elif thinking == "after":
                content += THINK + reasoning + END_THINK
        elif role == "assistant" and thinking == "always":
            content = THINK + END_THINK + content
        text += HEADERS[role] + content + END
    return text + (HEADERS[header] if prompt else "")


def render(probe: Probe) -> None:
    words = [f"{word}{probe.size(0, 99)}" for word in ("seven", "plus", "five", "twelve", "and", "doubled")]
    one, two, three, four, five, six = words

    def case(name: str, messages: list[dict], prompt: bool = False, layer: str = "value") -> None:
        given, before = copy.deepcopy(messages), copy.deepcopy(messages)
        text = probe.call(given, True) if prompt else probe.call(given)
        expected = rendered(messages, prompt)
        probe.require(given == before, "property", "render changed the messages that it was given (the list, or a dict "
                                                   "in it): whoever called it still needs them; work on a new list.")
        probe.equal(f"text ({name})", text, expected, layer=layer, mistakes={
            sentence: rendered(messages, prompt, **options) for sentence, options in RENDERED_WRONG.items()
        } | text_mistakes(messages, prompt, expected))

    case("system and user", [say("system", f"{one} {two}"), say("user", f"{three}\n\n{four}")])
    case("two turns", [say("system", one), say("user", two), say("assistant", three), say("user", four),
                       say("assistant", five)])
    case("no system message", [say("user", one), say("assistant", two)])
    case("open header", [say("system", one), say("user", two)], True)
    case("white space at both ends", [say("system", f" {one}\n"), say("user", f"\n\t{two} {three}  "),
                                      say("assistant", f"  {four}\n{five}\n")], True)
    thought = say("assistant", four, reasoning=f" {one},\n{two} ")
    case("reasoning", [say("system", one), say("user", three), thought])
    case("reasoning in two turns", [say("user", three), thought, say("user", five),
                                    say("assistant", six, reasoning=two)])
    case("reasoning before the last turn", [say("user", three), thought, say("user", five)], True)
    case("markers in a content", [say("user", f"{one} {THINK}{two}{END_THINK}{three}"),
                                                 say("assistant", f"{END.strip()} {four}", reasoning=HEADERS["user"])])
    case("lines and signs in a content", [say("user", f"{one}\r\n  {two} \n\n{{{three}}} %s 5 % ü€"),
                                           say("assistant", f"{four}\r\n  {{}}", reasoning=f"{five} %d\r\n {{0}} é")])
    layer = "edge case"
    case("one message", [say("user", one)], False, layer)
    case("an assistant who begins", [say("assistant", one), say("user", two)], True, layer)
    case("the same message twice", [say("user", one), say("assistant", two), say("user", one), say("assistant", two)],
         False, layer)
    case("reasoning without content", [say("user", one), say("assistant", "", reasoning=f" {two}\n")], False, layer)
    case("system None", [say("system", None), say("user", one)], True, layer)
    case("empty system", [say("system", ""), say("user", one), say("assistant", two)], False, layer)
    case("system of white space", [say("system", " \n"), say("user", one)], False, layer)
    case("system alone", [say("system", one)], False, layer)
    case("empty reasoning", [say("user", one), say("assistant", two, reasoning="")], False, layer)
    case("reasoning None", [say("user", one), say("assistant", two, reasoning=None)], False, layer)
    case("empty contents", [say("user", ""), say("assistant", " "), say("user", one)], True, layer)
    case("user after user", [say("user", one), say("user", two)], True, layer)
    case("the first text again", [say("system", f"{one} {two}"), say("user", f"{three}\n\n{four}")], False, layer)


def say(role: str, content: str | None, **more) -> dict:
    return {"role": role, "content": content, **more}


RENDERED_WRONG = {  # sentence -> options of `rendered`
    "There is no system message, so the sentence with DEFAULT_SYSTEM must come first; yours has none.":
        dict(default=None),
    "Contents must be stripped of white space at both ends; yours are not stripped.": dict(strip=str),
    "Contents must be stripped of white space at both ends; yours are on the left only.": dict(strip=str.lstrip),
    "Contents must be stripped of white space at both ends; yours are on the right only.": dict(strip=str.rstrip),
    "Only spaces are stripped; line breaks and tabs are white space too: strip both ends of all of it.":
        dict(strip=lambda x: x.strip(" ")),
    "White space inside of a content stays as it is: strip only its two ends.":
        dict(strip=lambda x: " ".join(x.split())),
    "Only an empty system message is left out; other messages are written although they are empty.":
        dict(drop_empty=True),
    "An empty string is a reasoning too: it gives THINK + END_THINK; leave it out only where it is missing or None.":
        dict(thinking="full"),
    "Reasoning is not stripped: write it as it is.": dict(strip_reasoning=True),
    "Reasoning stands in every turn of the assistant, also in earlier ones; yours is only in the last.":
        dict(thinking="last"),
    "The reasoning is missing: before the content comes THINK, the reasoning, END_THINK.": dict(thinking="none"),
    "The reasoning stands after the content; it belongs before it.": dict(thinking="after"),
    "A turn without reasoning must have no THINK and no END_THINK.": dict(thinking="always"),
    "The reasoning lacks its marks: THINK before it, END_THINK after it.": dict(tags=False),
    "A system message without content gives no sentence at all; yours writes an empty one.":
        dict(empty_system="written"),
    "A system message whose content is None says that there shall be none; yours is given the default text.":
        dict(empty_system="default"),
    "A system message whose content is None gives no sentence; yours says 'None'.": dict(empty_system="none"),
    "The open header at the end is the assistant's, since it speaks next; yours is the user's.": dict(header="user"),
}


def text_mistakes(messages: Sequence[dict], prompt: bool, expected: str) -> dict[str, str]:
    """Sentence -> a text with one mistake that needs no second reading of the messages."""
    opened = HEADERS["assistant"]
    return {
        "The text must begin with BEGIN.": expected.removeprefix(BEGIN),
        "BEGIN stands before each message; it belongs only to the beginning of the text.":
            "".join(BEGIN + part for part in re.split("(?=<beginning_of_sentence>)", expected)[1:]),
        "The default stands in only where the first message is no system message; yours is there always.":
            BEGIN + HEADERS["system"] + DEFAULT_SYSTEM + END + expected.removeprefix(BEGIN),
        "The headers are missing: each sentence begins with the header of its role.":
            re.sub("<beginning_of_sentence>.*\n", "", expected),
        "The line break is missing after the end of a sentence: END contains it.": expected.replace(END, END.strip()),
        "The sentences have no END.": expected.replace(END, ""),
        "The last sentence has no END: every message has one, also the last.": expected.removesuffix(END),
        "An open header at the end was asked for (add_generation_prompt=True); yours has none.":
            expected.removesuffix(opened) if prompt else "",
        "There must be no open header at the end: none was asked for.": "" if prompt else expected + opened,
        "The open header at the end must not be closed: the model writes on from there.":
            expected + END if prompt else "",
        "The text ends with THINK: the template does not write it, the model itself does.": expected + THINK,
        "The text must not be stripped at its end: the last line break belongs to it.": expected.strip(),
    }


# 1.3

ASSISTANT, END_ID = 6, 8
BOD, USER, SYSTEM, THINK_ID, END_THINK_ID, PAD = 1, 5, 3, 9, 10, 0


def supervised(ids: Tensor, documents: Tensor, *, header: bool = False, end: bool = True, reset: bool = True,
               padding: bool = False, user_ends: bool = False, unfinished: bool = True, first_only: bool = False,
               last_only: bool = False, thinking: bool = True, rows: bool = True, late: int = 0,
               closers: Sequence[int] = (END_ID,), openers: Sequence[int] = (ASSISTANT,), without: Sequence[int] = (),
               one_row: bool = False) -> Tensor:
    """What `assistant_mask` should give; the options make the mistakes that the check knows."""
    mask, speaking, turns = torch.zeros_like(ids, dtype=torch.bool), False, {}
    for row in range(ids.shape[0]):
        speaking, previous, start = speaking and not rows, None, None
        for t, (token, document) in enumerate(zip(ids[row].tolist(), documents[row].tolist())):
            if document != previous and (reset if document >= 0 else not padding):
                speaking = False
            previous = document
            if speaking and (document >= 0 or padding):
                mask[row, t] = (end or token != END_ID) and token not in without
                turns.setdefault((row, document), {}).setdefault(start, []).append(t)
            if token in openers:
                speaking, start = True, t
                mask[row, t] |= header
            elif token in closers:
                mask[row, t] |= user_ends
                speaking = False
            elif not thinking and token == END_THINK_ID:
                mask[row, start : t + 1] = False
    for (row, _), found in turns.items():
        for number, places in enumerate(found.values()):
            open_ = ids[row, places[-1]] != END_ID
            if (first_only and number) or (last_only and number < len(found) - 1) or (open_ and not unfinished):
                mask[row, places] = False
    mask[1:] &= not one_row
    return mask.roll(late, 1) if late else mask


MASKED_WRONG = {  # sentence -> options of `supervised`
    "The assistant's header is trained on: the template writes it, so the mask begins one token later.":
        dict(header=True),
    "The end of the assistant's sentence is missing: the model has to write it, or it never stops.": dict(end=False),
    "The mask is one token early: it has the header, which the template writes, and lacks the end, which the model "
    "writes.":
        dict(header=True, end=False),
    "A turn goes on after its end: END_ID closes it.": dict(closers=()),
    "The turn ends too soon, at a control token such as <think>: only END_ID ends it.": dict(closers=range(15)),
    "The turn ends with </think>; what is said after it belongs to it too, up to END_ID.":
        dict(closers=(END_THINK_ID, END_ID)),
    "What the user says is trained on; it should be what follows the assistant's header.": dict(openers=(USER,)),
    "Every sentence is trained on; it should be the assistant's only.": dict(openers=(SYSTEM, USER, ASSISTANT)),
    "<think> and </think> are not trained on; the assistant writes them too.": dict(without=(THINK_ID, END_THINK_ID)),
    "Control tokens inside of the turn are not trained on; the assistant writes them too.": dict(without=range(15)),
    "A token with id 0 in a turn is left out: what padding is, document_ids alone decides (-1).": dict(without=(PAD,)),
    "Only the first row has targets; each row is looked at by itself.": dict(one_row=True),
    "The mask is one token late: it lacks the assistant's first token and has the one after the end.": dict(late=1),
    "The ends of other sentences are trained on too: only the end of the assistant's own is.": dict(user_ends=True),
    "An unfinished turn runs on into the next conversation: a change of document_ids ends it.": dict(reset=False),
    "Padding is trained on (a turn before it runs on, or an id in it looks like a header): where document_ids is -1 "
    "the mask is False.":
        dict(padding=True),
    "An unfinished turn runs on, into the next conversation and into padding: a change of document_ids ends it.":
        dict(reset=False, padding=True),
    "A turn without its end is not trained on; it should be, to the end of its conversation.": dict(unfinished=False),
    "Only the first turn of a conversation is trained on; all of the assistant's turns should be.":
        dict(first_only=True),
    "Only the last turn of a conversation is trained on; all of the assistant's turns should be.": dict(last_only=True),
    "The thinking is not trained on; the assistant writes it too.": dict(thinking=False),
    "An unfinished turn runs on into the next row: rows are independent of each other.": dict(rows=False, reset=False),
}


def turn(probe: Probe, header: int, *, thinking: bool = False, end: bool = True, words: int = 0) -> list[int]:
    """A sentence of random words, all ids from 50 up."""
    said = [probe.size(50, 999) for _ in range(words or probe.size(2, 5))]
    thought = [THINK_ID, probe.size(50, 999), probe.size(50, 999), END_THINK_ID] if thinking else []
    return [header, *thought, *said, *([END_ID] if end else [])]


def packed(rows: Sequence[Sequence[Sequence[int]]], padding: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of conversations -> input_ids, document_ids, padded to the longest row and `padding` more."""
    length = max(sum(map(len, row)) for row in rows) + padding
    ids, documents = torch.full((len(rows), length), PAD), torch.full((len(rows), length), -1)
    for row, conversations in enumerate(rows):
        at = 0
        for number, conversation in enumerate(conversations):
            ids[row, at : at + len(conversation)] = torch.tensor(conversation, dtype=torch.int64)
            documents[row, at : at + len(conversation)] = number
            at += len(conversation)
    return ids, documents


def assistant_mask(probe: Probe) -> None:
    def dialogue(turns: int = 1, **last) -> list[int]:
        ids = [BOD, *turn(probe, SYSTEM)]
        for number in range(turns):
            options = last if number == turns - 1 else {}
            ids += turn(probe, USER) + turn(probe, ASSISTANT, thinking=number % 2 == 0, **options)
        return ids

    def case(name: str, rows: list[list[list[int]]], padding: int = 0, layer: str = "value",
             fill: Sequence[int] = ()) -> None:
        ids, documents = packed(rows, padding)
        if fill:
            ids[:, -len(fill) :] = torch.tensor(fill)
        mask = probe.call(ids, documents)
        mask = probe.tensor(f"mask ({name})", mask, shape=ids.shape, dtype=torch.bool, axes="BT")
        expected = supervised(ids, documents)
        probe.close(f"mask ({name})", mask, expected, axes="BT", layer=layer, mistakes={
            sentence: supervised(ids, documents, **options) for sentence, options in MASKED_WRONG.items()
        } | {
            "The mask is turned around: True belongs to what is trained on, the assistant's tokens.": ~expected,
            "The first token after the assistant's header is missing: the mask begins right behind the header.":
                expected & torch.nn.functional.pad(expected[:, :-1], (1, 0)),
            "The last token of a row is missing: look at it too.":
                torch.nn.functional.pad(expected[:, :-1], (0, 1)),
            "Every token is trained on: only what the assistant writes should be.": torch.ones_like(expected),
            "No token is trained on: what the assistant writes should be.": torch.zeros_like(expected),
            "All tokens but padding are trained on: only what the assistant writes should be.": documents >= 0,
        })

    case("one conversation", [[dialogue() + turn(probe, USER)]])
    case("three turns", [[dialogue(3)]])
    case("two rows", [[dialogue(2)], [dialogue(1)]])
    case("packed conversations", [[dialogue(1), dialogue(2)], [dialogue(2), dialogue(1), dialogue(1)]], 3)
    case("cut off", [[dialogue(2, end=False)]], layer="property")
    case("cut off before a conversation", [[dialogue(1, end=False), dialogue(2)], [dialogue(2)]],
         layer="property")
    case("cut off before padding", [[dialogue(2)], [dialogue(1, end=False)]], 4, "property")
    longest = dialogue(4, end=False)  # no padding behind it
    case("cut off at a row's end", [[longest], [dialogue(1, end=False)], [dialogue(1)]], layer="property")
    bare = turn(probe, USER)  # conversations that begin in their middle, without a beginning of document
    case("no beginning", [[turn(probe, ASSISTANT, end=False), [77, 78, END_ID, *bare]]],
         layer="property")
    odd = [ASSISTANT, 11, 7, PAD, 2, 12, SYSTEM, USER, BOD, 13, 4, 14, 77, END_ID]
    case("control tokens in a turn", [[dialogue(1) + odd + bare]], layer="property")
    case("a long row", [[dialogue(2) for _ in range(12)], [dialogue(1) + turn(probe, ASSISTANT, words=300)]],
         layer="property")
    case("any ids as padding", [[dialogue(1)], [dialogue(1)]], 5, "property",
         fill=[ASSISTANT, 77, END_ID, ASSISTANT, 78])
    case("open header", [[[*dialogue(1), *turn(probe, USER), ASSISTANT]], [dialogue(2)]], 2, "edge case")
    case("header before a conversation", [[[*dialogue(1), ASSISTANT], dialogue(1)]], layer="edge case")
    case("an empty answer", [[[BOD, *bare, ASSISTANT, END_ID, *bare]]], layer="edge case")
    case("users only", [[[BOD, *bare, *bare]]], layer="edge case")
    case("a row of padding", [[dialogue(1)], []], layer="edge case")
    case("one token", [[[ASSISTANT]], [[END_ID]]], layer="edge case")


# What stands in for a learner's function: the package's own, behind the exercise's signature


def package_merge_step() -> Callable:
    return merged  # the package leaves merging to the library, which does not offer single steps


def package_render() -> Callable:
    from minim1.data.chat import render_chat

    return lambda messages, add_generation_prompt=False: render_chat(
        messages, add_generation_prompt=add_generation_prompt)


def reference_mask() -> Callable:
    return supervised  # the package masks before it packs, from the messages themselves


EXERCISES = (
    Exercise("1.1", "merge_step", "Merge step", merge_step, package_merge_step),
    Exercise("1.2", "render", "Chat template", render, package_render),
    Exercise("1.3", "assistant_mask", "Assistant mask", assistant_mask, reference_mask),
)
