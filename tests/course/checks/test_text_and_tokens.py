"""The checks of chapter 01 accept what is right, whoever wrote it, and say what is wrong with what is not."""

import random
import re
from collections import Counter

import pytest
import torch

import minim1.data.chat
from minim1.course.checking import run_check
from minim1.course.checks import find
from minim1.course.checks import text_and_tokens as checks
from minim1.data.chat import encode_chat, render_chat
from minim1.data.packing import pack_documents
from minim1.data.tokenizer import CONTROL, HEADER_IDS, Tokenizer
from tests.mutants import SEEDS, Mutant, run
from tests.mutants.chapter_01 import MUTANTS

IDS = [exercise.id for exercise in checks.EXERCISES]


def conversations(count, seed=0):
    """Messages drawn at random: with and without system, reasoning, and an end."""
    draw = random.Random(seed)
    for _ in range(count):
        words = lambda: " ".join(draw.choices(["seven", "5", "plus", " x\n", "ünï", "<think>"], k=draw.randrange(4)))
        messages = draw.choice([[], [{"role": "system", "content": draw.choice([None, "", " ", "Be brief."])}]])
        for _ in range(draw.randrange(1, 4)):
            messages += [{"role": "user", "content": words()}, {"role": "assistant", "content": words()}]
            if draw.random() < 0.5:
                messages[-1]["reasoning"] = draw.choice([None, "", words()])
        yield messages[: draw.choice([None, -1])]


def test_other_right_ways_pass(notebook):
    def merge_by_text(ids, new_id):
        """Ids as characters: str.replace goes from left to right without overlap."""
        text = "".join(map(chr, ids))
        counts = Counter(zip(text, text[1:]))
        if not counts:
            return [*ids], None
        best = max(counts.values())
        pair = next(p for p in zip(text, text[1:]) if counts[p] == best)
        return [ord(c) for c in text.replace("".join(pair), chr(new_id))], tuple(map(ord, pair))

    def render_by_package(messages, add_generation_prompt=False):
        return render_chat(messages, add_generation_prompt=add_generation_prompt)

    [text] = ["".join(c["source"]) for c in notebook["cells"] if "assistant_mask_fast" in "".join(c["source"])]
    [code] = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    space = {"torch": torch, "ASSISTANT": 6, "END_ID": 8}
    exec(code, space)
    for exercise_id, function in zip(IDS, (merge_by_text, render_by_package, space["assistant_mask_fast"])):
        result = run_check(find(exercise_id), function, SEEDS)
        assert result.status == "passed", result


def test_the_constants_are_the_packages():
    assert checks.BEGIN == CONTROL[Tokenizer.bod_id] and checks.END == CONTROL[Tokenizer.eos_id]
    assert checks.HEADERS == {role: CONTROL[HEADER_IDS[role]] for role in checks.HEADERS}
    assert (checks.THINK, checks.END_THINK) == (CONTROL[Tokenizer.think_id], CONTROL[Tokenizer.end_think_id])
    assert (checks.ASSISTANT, checks.END_ID) == (HEADER_IDS["assistant"], Tokenizer.eos_id)
    assert checks.DEFAULT_SYSTEM == minim1.data.chat.DEFAULT_SYSTEM


@pytest.mark.parametrize("prompt", [False, True])
def test_what_is_expected_of_the_template_is_what_the_package_does(prompt):
    for messages in conversations(100):
        assert checks.rendered(messages, prompt) == render_chat(messages, add_generation_prompt=prompt)


def test_what_is_expected_of_the_mask_is_what_the_package_does():
    tokenizer = Tokenizer.train(["seven plus five"] * 5, 300)
    documents = []
    for messages in conversations(40):
        ids, mask = encode_chat(tokenizer, messages)
        cut = random.Random(len(ids)).randrange(2, len(ids) + 1)
        documents.append((ids[:cut], mask[:cut]))
    rows = pack_documents(documents, 1 + max(len(ids) for ids, _ in documents), pad_id=0)
    assert torch.equal(checks.supervised(rows.input_ids, rows.document_ids), rows.mask)


def test_merging_again_and_again_gives_the_librarys_tokens(solutions):
    word = "barbarabarbararhabarberbar"  # without a tie in the first two steps
    library = Tokenizer.train([word], 15 + 256 + 2)
    ids, spelled = list(word.encode()), {i: chr(i) for i in range(256)}
    for new in (256, 257):
        ids, (left, right) = solutions["merge_step"](ids, new)
        spelled[new] = spelled[left] + spelled[right]
    assert [spelled[i] for i in ids] == [library.decode([i]) for i in library.encode(word)]


def test_a_broken_package_changes_no_verdict(solutions, monkeypatch):
    for name in ("render_chat", "encode_chat", "_pieces"):
        monkeypatch.setattr(minim1.data.chat, name, lambda *a, **options: 1 / 0)
    for exercise_id in IDS:
        assert run_check(find(exercise_id), solutions[find(exercise_id).name]).status == "passed"


@pytest.mark.parametrize("exercise_id", IDS)
def test_bad_answers_get_a_sentence(exercise_id):
    for function, words in ((lambda *a, **o: None, "None"), (None, "None"), ("text", "str"), (lambda: 1, "TypeError"),
                            (lambda *a, **o: 1 / 0, "ZeroDivisionError"), (lambda *a, **o: (1, 2), "int|tuple")):
        result = run_check(find(exercise_id), function, SEEDS)
        assert result.status == "wrong" and re.search(words, result.sentence), (words, result)
        assert "\n" not in result.sentence


@pytest.mark.parametrize("exercise_id", IDS)
def test_mutants_are_rejected_and_mistakes_have_their_own_sentences(exercise_id, notebook):
    results = {mutant.name: run(exercise_id, mutant, notebook) for mutant in MUTANTS[exercise_id]}
    assert [name for name, result in results.items() if result.status != "wrong"] == []
    general = ("is not as expected", "raised", "has shape", "returned")
    own = {r.sentence for r in results.values() if not any(words in r.sentence for words in general)}
    assert len(own) >= 12, own


@pytest.mark.parametrize("exercise_id, old, new, words", [
    ("1.1", "pair = counts.most_common(1)[0][0]", "pair = max((n, p) for p, n in counts.items())[1]",
     "yours is the largest pair"),
    ("1.1", "pair = counts.most_common(1)[0][0]", "pair = max(counts)", "without key=counts.get"),
    ("1.1", "i += 2", "i += 1", "the second id of the pair stays"),
    ("1.1", "merged.append(new_id)\n            i += 2", "merged += [new_id, ids[i]]\n            i += 1",
     "both ids of the pair stay"),
    ("1.2", 'if messages[0]["role"] != "system":', "if True:", "stands in only where the first message is no system"),
    ("1.2", 'message.get("reasoning") is not None', 'message.get("reasoning")', "An empty string is a reasoning too"),
    ("1.2", "content = THINK + message[\"reasoning\"] + END_THINK + content",
     "content += THINK + message[\"reasoning\"] + END_THINK", "The reasoning stands after the content"),
    ("1.2", '(message["content"] or "").strip()', '(message["content"] or "").strip(" ")', "Only spaces are stripped"),
    ("1.3", "mask[row, t] = speaking", "mask[row, t] = speaking and token != 0", "A token with id 0"),
    ("1.3", "token == END_ID", "token < 15", "The turn ends too soon"),
    ("1.3", "return mask", "mask[:, -1] = False\n    return mask", "The last token of a row is missing"),
    ("1.3", "mask[row, t] = speaking", "mask[row, t] = speaking and token != END_ID", "or it never stops"),
    ("1.3", "return mask", "return torch.nn.functional.pad(mask[:, :-1], (1, 0))", "The mask is one token late"),
    ("1.3", "mask[row, t] = speaking", "mask[row, t] = speaking and input_ids[row, t - 1].item() != ASSISTANT",
     "The first token after the assistant's header is missing"),
    ("1.3", "speaking = document >= 0", "speaking = True", "or an id in it looks like a header"),
    ("1.3", "speaking, previous = False, document", "previous = document", "runs on into the next conversation"),
])
def test_a_common_mistake_is_told(exercise_id, old, new, words, notebook):
    assert words in run(exercise_id, Mutant("", old, new), notebook).sentence
