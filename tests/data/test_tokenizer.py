"""The tokenizer is lossless, keeps digits single, and no text can reach a control token."""

import json
import random

import pytest

from minim1.data.tokenizer import CONTROL, HEADER_IDS, Tokenizer
from minim1.errors import UserError

TEXT = ["def add(a, b):\n    return a + b  # the sum of a and b\n\n" * 3, "for i in range(1024): print(i)\n" * 4]
SYMBOLS = ("⟨3⟩", "⟨wait⟩", "⟨a:1⟩")


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXT, 340, SYMBOLS)


def random_strings(count, seed=0):
    """Strings of marker pieces, symbols and code points from all of Unicode."""
    rng = random.Random(seed)
    pieces = [*CONTROL, *SYMBOLS, "<", "</", "<thi", "nk>", ">", "\n", "\r\n", "  ", "\t", "0", "12", "é", "e\u0301",
              "👩‍👩‍👧", "\0", "\u2028", "\ufeff", "Ġ", "Ċ", "âŁ¨", "⟨", "⟩", "²", "٣", "'re"]  # fmt: skip
    planes = [(0, 128), (128, 0xD800), (0xE000, 0x110000)]
    for _ in range(count):
        yield "".join(
            rng.choice(pieces) if rng.random() < 0.6 else chr(rng.randrange(*rng.choice(planes)))
            for _ in range(rng.randrange(12))
        )


def test_lossless_and_no_text_reaches_a_control_token(tokenizer):
    texts = list(random_strings(3000))
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert tokenizer.decode(ids) == text
        assert all(type(i) is int and len(CONTROL) <= i < tokenizer.vocab_size for i in ids)
        assert tokenizer.byte_lengths[ids].sum() == len(text.encode())
        assert tokenizer.encode(text) == ids


def test_all_bytes_and_empty_text(tokenizer):
    assert tokenizer.encode("") == [] and tokenizer.decode([]) == ""
    assert {len(tokenizer.encode(chr(i))) for i in range(128)} == {1}
    assert (tokenizer.byte_lengths == 1).sum() >= 256


def test_control_tokens_are_whole_markers(tokenizer):
    ids = list(range(len(CONTROL)))
    assert tokenizer.decode(ids) == "".join(CONTROL)
    assert tokenizer.byte_lengths[: len(CONTROL)].sum() == 0
    named = {
        "pad_id": "<pad>", "bod_id": "<begin_of_document>", "eod_id": "<end_of_document>",
        "eos_id": "<end_of_sentence>\n", "think_id": "<think>\n", "end_think_id": "\n</think>\n",
        "tools_id": "<tools>\n", "end_tools_id": "</tools>\n",
        "tool_calls_id": "<tool_calls>\n", "end_tool_calls_id": "</tool_calls>",
    }  # fmt: skip
    assert {name: tokenizer.decode([getattr(tokenizer, name)]) for name in named} == named
    headers = {"system": "system ai_setting=MiniMax AI", "tool_setting": "system tool_setting=tools",
               "user": "user name=user", "assistant": "ai name=MiniMax AI", "tool": "tool name=tools"}  # fmt: skip
    assert headers.keys() == HEADER_IDS.keys()
    for role, text in headers.items():
        assert tokenizer.decode([tokenizer.header_id(role)]) == f"<beginning_of_sentence>{text}\n"
    assert len({*HEADER_IDS.values(), *(getattr(tokenizer, name) for name in named)}) == len(CONTROL)


def test_task_symbols_are_single_tokens_wherever_they_stand(tokenizer):
    ids = [tokenizer.encode(symbol) for symbol in SYMBOLS]
    assert ids == [[len(CONTROL)], [len(CONTROL) + 1], [len(CONTROL) + 2]]
    assert tokenizer.encode("x⟨3⟩⟨wait⟩ ⟨3⟩")[1:3] == [len(CONTROL), len(CONTROL) + 1]
    assert tokenizer.task_symbols == SYMBOLS


def test_digits_are_single(tokenizer):
    for text in ["1024", "range(1024)", " 10", "x12y", "3.14"]:
        for i in tokenizer.encode(text):
            piece = tokenizer.decode([i])
            assert not any(c.isdigit() for c in piece) or len(piece) == 1


def test_merges_are_learnt_and_deterministic(tokenizer):
    assert tokenizer.vocab_size > len(CONTROL) + len(SYMBOLS) + 256 + 10
    assert len(tokenizer.encode(TEXT[0])) < 0.6 * len(TEXT[0])
    again = Tokenizer.train(reversed(TEXT), 340, SYMBOLS)
    assert again._library.to_str() == tokenizer._library.to_str()


@pytest.mark.parametrize("spelled", [
    "</think>", "\n</think>\n", "a<end_of_sentence>", "<beginning_of_sentence>", "<pad>", "<tool_calls>x</tool_calls>",
    "<<think>", "<tools></tools>", "<begin_of_document><end_of_document>",
])  # fmt: skip
def test_decode_completion_escapes_spelled_markers(tokenizer, spelled):
    ids = tokenizer.encode(spelled)
    text = tokenizer.decode_completion(ids)
    assert not any(marker.strip() in text for marker in CONTROL)
    assert text.replace("&lt;", "<") == spelled == tokenizer.decode(ids)
    around = tokenizer.decode_completion([tokenizer.think_id, *ids, tokenizer.end_think_id])
    assert around == "<think>\n" + text + "\n</think>\n"


def test_decode_completion_sees_markers_spelled_byte_by_byte(tokenizer):
    ids = [i for character in "</think>" for i in tokenizer.encode(character)]
    assert len(ids) == 8
    assert tokenizer.decode_completion(ids) == "&lt;/think>"
    # A control token between the pieces separates them: nothing to escape, nothing to be fooled by.
    cut = tokenizer.decode_completion([*ids[:4], tokenizer.eos_id, *ids[4:]])
    assert cut == "</th<end_of_sentence>\nink>"


def test_decode_completion_leaves_the_rest_alone(tokenizer):
    text = "if a < b <b>think</b> &lt; <thinking> <|think|> <x> ⟨3⟩ ünïcode 👩‍👩‍👧"
    assert tokenizer.decode_completion(tokenizer.encode(text)) == text


def test_cut_characters_become_replacement_characters(tokenizer):
    ids = tokenizer.encode("é")
    assert len(ids) == 2
    assert tokenizer.decode(ids[:1]) == tokenizer.decode_completion(ids[:1]) == "\ufffd"
    split = [ids[0], tokenizer.eos_id, ids[1]]  # two halves around a marker are not a character
    assert tokenizer.decode_completion(split) == "\ufffd<end_of_sentence>\n\ufffd"


def test_save_and_load(tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    loaded = Tokenizer.from_file(path)
    assert loaded.vocab_size == tokenizer.vocab_size and loaded.task_symbols == SYMBOLS
    texts = list(random_strings(300, seed=1))
    assert loaded.encode_batch(texts) == tokenizer.encode_batch(texts)
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_transformers_reads_the_file(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path / "tokenizer.json")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    text = "def f(x): return ⟨3⟩ + 12  # ünïcode 👩‍👩‍👧\n"
    assert len(theirs) == tokenizer.vocab_size
    assert theirs.encode(text) == tokenizer.encode(text)
    ids = [tokenizer.bod_id, *tokenizer.encode(text), tokenizer.eod_id]
    assert theirs.decode(ids) == tokenizer.decode(ids)
    assert theirs.decode(ids, skip_special_tokens=True) == text  # task symbols are not special


@pytest.mark.parametrize("vocab_size, symbols, message", [
    (273, SYMBOLS, "at least 274"),
    (300, ["⟨3⟩", "⟨3⟩"], "repeated"),
    (300, [""], "empty"),
    (300, ["<pad>"], "control token"),
    (300, ["é"], "brackets"),
    (300, ["Ġ"], "brackets"),
])  # fmt: skip
def test_impossible_training_requests(vocab_size, symbols, message):
    with pytest.raises(UserError, match=message):
        Tokenizer.train(TEXT, vocab_size, symbols)


def test_smallest_vocabulary_is_lossless():
    tokenizer = Tokenizer.train(TEXT, 274, SYMBOLS)
    assert tokenizer.vocab_size == 274
    assert tokenizer.decode(tokenizer.encode(TEXT[0] + "⟨3⟩é")) == TEXT[0] + "⟨3⟩é"


def test_unusable_files(tokenizer, tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        Tokenizer.from_file(tmp_path / "missing.json")
    with pytest.raises(UserError, match="cannot be read"):
        Tokenizer.from_file(tmp_path)
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    whole = path.read_bytes()
    for broken in [b"", whole[: len(whole) // 2], b"\xff\xfe", b"[]", b"{}", b'{"version": "1.0"}']:
        path.write_bytes(broken)
        with pytest.raises(UserError, match="not a readable tokenizer.json"):
            Tokenizer.from_file(path)
    spec = json.loads(whole)
    spec["added_tokens"] = spec["added_tokens"][:3]
    path.write_text(json.dumps(spec), encoding="utf-8")
    with pytest.raises(UserError, match="not one of minim1"):
        Tokenizer.from_file(path)


def test_lone_surrogates_are_refused(tokenizer):
    with pytest.raises(UserError, match="surrogate.*character 2"):
        tokenizer.encode("ab\ud800")
    with pytest.raises(TypeError):
        tokenizer.encode(5)
