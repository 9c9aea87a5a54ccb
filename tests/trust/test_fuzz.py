"""Made-up inputs: tokenizer, chat template, reader of tool calls, config, packing, and the stop rules of `generate`."""

import json
import math
import random
import time
from dataclasses import fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from minim1.agent import read_turn
from minim1.config import LARGEST, PRESETS, M1Config
from minim1.data.chat import encode_chat, parse_tool_calls, render_chat
from minim1.data.corpus import TokenStream
from minim1.data.packing import Batch, pack_documents, text_rows
from minim1.data.tokenizer import CONTROL, Tokenizer
from minim1.errors import UserError
from minim1.generation import Sampling, generate, sample_token
from minim1.model.decoder import Output

MARKERS = [*CONTROL, *(text.strip() for text in CONTROL), "<beginning_of_sentence>"]
PIECES = st.sampled_from([*MARKERS, "<", ">", "\n", "{", "}", "⟨7⟩", "é"]) | st.text(max_size=3)
TEXTS = st.text() | st.lists(PIECES).map("".join)
NUMBERS = st.integers() | st.sampled_from([0, 1, 2, 16, 10**12, 2**63, 10**400]) | st.floats()
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)  # fmt: skip


def is_sentence(error: UserError) -> bool:
    return 0 < len(str(error)) < 2000


# ------------------------------------------------------------------------------------------- tokenizer


@given(st.lists(st.integers(0, 419)))
def test_ids_show_only_the_markers_that_they_hold(tokenizer, tally, ids):
    shown = tokenizer.decode_completion(ids)
    for marker in {text.strip().split(">")[0] + ">" for text in CONTROL}:
        assert shown.count(marker) == sum(CONTROL[i].count(marker) for i in ids if i < len(CONTROL))
    ordinary = [i for i in ids if i >= len(CONTROL)]
    text = tokenizer.decode(ordinary)
    assert text == b"".join(tokenizer._bytes[i] for i in ordinary).decode("utf-8", "replace")
    if "\ufffd" not in text:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    tally("fuzz cases")


@given(st.lists(st.integers(), min_size=1))
def test_ids_outside_the_vocabulary_are_refused(tokenizer, tally, ids):
    inside = all(0 <= i < tokenizer.vocab_size for i in ids)
    for decode in (tokenizer.decode, tokenizer.decode_completion):
        if inside:
            decode(ids)
        else:
            with pytest.raises(UserError, match="this tokenizer has only 0 to 419"):
                decode(ids)
    tally("fuzz cases")


SYMBOLS = st.lists(st.text("⟨⟩ab7<", min_size=1, max_size=4), max_size=3, unique=True)


@given(st.lists(TEXTS, max_size=4), SYMBOLS, st.integers(0, 60), TEXTS)
def test_every_trained_tokenizer_is_lossless(tally, tmp_path_factory, corpus, symbols, merges, text):
    tokenizer = Tokenizer.train(corpus * 3, len(CONTROL) + len(symbols) + 256 + merges, symbols)
    for piece in (*corpus, text, "".join(symbols) + text):
        ids = tokenizer.encode(piece)
        assert tokenizer.decode(ids) == piece and all(len(CONTROL) <= i < tokenizer.vocab_size for i in ids)
        assert tokenizer.byte_lengths[ids].sum() == len(piece.encode())
    path = tmp_path_factory.getbasetemp() / "fuzzed.json"
    tokenizer.save(path)
    assert Tokenizer.from_file(path).encode(text) == tokenizer.encode(text)
    tally("fuzz cases")


@pytest.fixture(scope="session")
def tokenizer_spec(tokenizer) -> dict:
    return json.loads(tokenizer._library.to_str())


PLACES = st.sampled_from([
    ("truncation",), ("padding",), ("normalizer",), ("post_processor",), ("pre_tokenizer",), ("decoder",), ("model",),
    ("added_tokens",), ("version",), ("pre_tokenizer", "pretokenizers"), ("pre_tokenizer", "pretokenizers", 0),
    ("pre_tokenizer", "pretokenizers", 1, "use_regex"), ("pre_tokenizer", "pretokenizers", 1, "add_prefix_space"),
    ("model", "dropout"), ("model", "unk_token"), ("model", "byte_fallback"), ("model", "ignore_merges"),
    ("model", "continuing_subword_prefix"), ("model", "vocab"), ("model", "merges"), ("model", "merges", 0),
    ("model", "vocab", "<think>\n"), ("model", "vocab", "a"), ("model", "vocab", "new"), ("model", "vocab", "日"),
    ("model", "end_of_word_suffix"), ("model", "type"),
    *(("added_tokens", i, name) for i in (0, 9, 15, 20)
      for name in ("content", "id", "lstrip", "rstrip", "single_word", "normalized", "special")),
])  # fmt: skip
VALUES = JSON | st.sampled_from([
    "<think>\n", "a", "", ["<th", "ink>"], ["<", "p"], [], {}, 0, 1, 15, 419, 420, 0.5, True, {"type": "Lowercase"},
    {"type": "NFKC"}, {"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
    {"type": "Whitespace"}, {"type": "ByteLevel"},
    {"type": "Replace", "pattern": {"String": "x"}, "content": "<think>"},
    {"type": "Strip", "strip_left": True, "strip_right": True},
])  # fmt: skip


@given(PLACES, VALUES | st.just(...), TEXTS)
def test_a_changed_tokenizer_file_is_refused_or_as_good(tokenizer_spec, tally, tmp_path_factory, place, value, text):
    spec = at = json.loads(json.dumps(tokenizer_spec))
    for key in place[:-1]:
        at = at[key]
    if value is not ...:
        at[place[-1]] = value
    elif place[-1] in at if isinstance(at, dict) else True:
        del at[place[-1]]
    path = tmp_path_factory.getbasetemp() / "changed.json"
    path.write_text(json.dumps(spec), encoding="utf-8")
    try:
        loaded = Tokenizer.from_file(path)
    except UserError as error:
        assert is_sentence(error)
    else:
        for piece in (text, "x <think>\n </think> a日 AB  "):
            ids = loaded.encode(piece)
            assert loaded.decode(ids) == piece and all(i >= len(CONTROL) for i in ids)
    tally("fuzz cases")


@pytest.mark.parametrize("place, value", [
    (("truncation",), {"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}),
    (("normalizer",), {"type": "Lowercase"}), (("normalizer",), {"type": "NFKC"}), (("pre_tokenizer",), None),
    (("model", "dropout"), 0.5), (("added_tokens", 15, "lstrip"), True), (("added_tokens", 9, "special"), False),
    (("added_tokens", 15, "normalized"), True),
    (("post_processor",), {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}),
])  # fmt: skip
def test_tokenizer_files_that_would_change_texts_are_refused(tokenizer_spec, tmp_path, place, value):
    spec = at = json.loads(json.dumps(tokenizer_spec))
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(spec), encoding="utf-8")
    with pytest.raises(UserError, match="tokenizer"):
        Tokenizer.from_file(path)


# ------------------------------------------------------------------------------------------- chat

ROLES = st.sampled_from(["system", "user", "assistant", "tool"])
CALLS = st.fixed_dictionaries({"name": TEXTS, "arguments": st.dictionaries(st.text(), JSON, max_size=2)})
JUNK = st.lists(JSON | st.fixed_dictionaries({}, optional={
    "role": ROLES | JSON,
    "content": TEXTS | st.lists(st.fixed_dictionaries({"text": TEXTS | JSON}), max_size=2) | JSON,
    "reasoning": TEXTS | st.lists(st.tuples(TEXTS, JSON), max_size=2) | JSON,
    "tool_calls": st.lists(CALLS | JSON, max_size=2) | JSON, "name": TEXTS | JSON,
}), max_size=4)  # fmt: skip


@given(JUNK, st.none() | JSON | st.lists(st.dictionaries(st.text(), JSON, max_size=2), max_size=2), st.booleans())
def test_junk_is_no_conversation_or_one_that_decodes_to_its_rendering(tokenizer, tally, messages, tools, prompt):
    try:
        text = render_chat(messages, tools=tools, add_generation_prompt=prompt)
        encoded = encode_chat(tokenizer, messages, tools=tools, add_generation_prompt=prompt)
    except UserError as error:
        assert is_sentence(error)
    else:
        assert tokenizer.decode(encoded.ids) == text
        assert len(encoded.ids) == len(encoded.mask) and set(encoded.mask) <= {0, 1}
    tally("fuzz cases")


TURNS = st.lists(CALLS.map(json.dumps) | st.text(max_size=4) | st.sampled_from([
    "<think>\n", "\n</think>\n", "<tool_calls>\n", "</tool_calls>", "<think>", "</think>", "<tool_calls>", "\n",
    '{"name": "f", "arguments": {"x": 1}}', '{"name"', "<end_of_sentence>\n",
])).map("".join)  # fmt: skip


@given(TURNS)
def test_any_text_has_well_typed_calls(tally, text):
    calls = parse_tool_calls(text)
    for call in calls:
        assert call.keys() == {"name", "arguments"} and type(call["name"]) is str and type(call["arguments"]) is dict
        assert json.loads(json.dumps(call, allow_nan=False)) == call
    turn, called = read_turn(text)
    assert called or "tool_calls" not in turn
    render_chat([{"role": "user", "content": "x"}, turn])
    tally("fuzz cases")


@given(st.lists(CALLS, max_size=3))
def test_calls_survive_text_and_ids(tokenizer, tally, calls):
    """A conversation's calls, read back from the ids that the assistant emits, are the same; a `<` of a spelled marker
    is escaped, and what is no strict JSON is left out."""
    block = "".join(json.dumps(call) + "\n" for call in calls)
    unmarked = (json.dumps(call).replace("<", "\\u003c") for call in calls)
    expected = [call for line in unmarked for call in parse_tool_calls(f"<tool_calls>\n{line}")]
    ids = [tokenizer.tool_calls_id, *tokenizer.encode(block), tokenizer.end_tool_calls_id]
    found = parse_tool_calls(tokenizer.decode_completion(ids))
    assert len(found) == len(expected)
    assert all(a == b or "&lt;" in str(a) for a, b in zip(found, expected))
    tally("fuzz cases")


@pytest.mark.parametrize("piece", [
    "<think>", "<think>\n</think>", "</think>", "<tool_calls>", "<tool_calls>\n", "</tool_calls>", "\n", "{", "[",
    '{"a":', '"', "\\", " ", "<", "<t", '{"name": "f", "arguments": {}}\n', "9", "-", "<think><tool_calls>", "\n{",
    "\\ud800", "\u2028",
])  # fmt: skip
def test_hostile_texts_are_read_in_linear_time(tally, piece):
    many = piece * (2 * 10**5 // len(piece))
    for text in (many, "<tool_calls>\n" + many, "<think>\n" + many, f"<think>\n\n</think>\n<tool_calls>\n{many}"):
        began = time.thread_time()
        parse_tool_calls(text), read_turn(text)
        assert time.thread_time() - began < 2  # it is a tenth of that or less; a second glance at each would be minutes
        tally("fuzz cases")


# ------------------------------------------------------------------------------------------- config

FIELDS = [field.name for field in fields(M1Config)]
LIKELY = st.sampled_from([1, 2, 3, 4, 8, 64, 0.5, True, False, None, [0, 1], [1], [0.5] * 8])
CHANGES = st.dictionaries(st.sampled_from(FIELDS), JSON | LIKELY, min_size=1, max_size=3)
WHOLE = {**M1Config().to_dict(), "attn_type_list": None, "rotary_dim": None}


@given(CHANGES.map(lambda changes: WHOLE | changes) | st.dictionaries(st.sampled_from(list(WHOLE)), JSON) | JSON)
def test_a_config_is_refused_or_survives_its_file(tally, tmp_path_factory, values):
    path = tmp_path_factory.getbasetemp() / "config.json"
    began = time.thread_time()
    try:
        config = M1Config.from_dict(values)
    except UserError as error:
        assert is_sentence(error) and "\n" not in str(error)
    else:
        config.save(path)
        assert M1Config.load(path) == config == M1Config.from_dict(config.to_dict())
        assert hash(M1Config.load(path)) == hash(config)
    assert time.thread_time() - began < 0.5
    tally("fuzz cases")


@given(st.binary() | TEXTS.map(str.encode) | JSON.map(json.dumps).map(str.encode))
def test_any_file_is_refused_as_a_config(tally, tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "config.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        M1Config.load(path)
    assert is_sentence(error.value)
    tally("fuzz cases")


@pytest.mark.parametrize("name", LARGEST)
@pytest.mark.parametrize("size", [10**12, 2**63, 10**400, 1e300, math.inf])
def test_huge_sizes_are_refused_at_once(name, size):
    if size <= LARGEST[name]:
        return
    began = time.thread_time()
    with pytest.raises(UserError, match=f"{name} is .*at most {LARGEST[name]}"):
        M1Config(**{name: size})
    assert time.thread_time() - began < 0.1


def test_the_largest_sizes_and_every_preset_are_configs():
    assert M1Config(**LARGEST).num_hidden_layers == len(M1Config(**LARGEST).attn_type_list)
    for make in PRESETS.values():
        assert all(getattr(make(), name) * 2 <= most for name, most in LARGEST.items())


@pytest.mark.parametrize("content", [
    b'{"format": 1, "vocab_size": ' + b"9" * 5000 + b"}", b"[" * 10**5, b'{"a": ' * 10**5, b'{"format": NaN}',
    b'{"format": 1, "rope_theta": 1e999}', b'{"format": 1, "num_hidden_layers": 1000000000000}',
    b'{"format": 1, "rms_norm_eps": 1' + b"0" * 400 + b"}", b'"' + b"x" * 10**6,
])  # fmt: skip
def test_files_that_would_break_a_json_reader_are_refused(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError) as error:
        M1Config.load(tmp_path / "config.json")
    assert is_sentence(error.value)
    with pytest.raises(UserError, match="cannot be read"):
        M1Config.load(tmp_path)


# ------------------------------------------------------------------------------------------- packing


@given(st.lists(st.integers(0, 12), max_size=20), st.integers(1, 24), st.integers(0, 2**32))
def test_packing_loses_nothing(tally, sizes, length, seed):
    rng, token = random.Random(seed), iter(range(1, 10**6))
    documents = [([next(token) for _ in range(n)], [rng.randint(0, 1) for _ in range(n)]) for n in sizes]
    tally("fuzz cases")
    if max(sizes, default=0) > length:
        with pytest.raises(UserError, match="raise the length or shorten"):
            pack_documents(documents, length, pad_id=0)
        return
    batch = pack_documents(documents, length, pad_id=0)
    real = batch.document_ids >= 0
    assert sorted(batch.input_ids[real].tolist()) == [i for ids, _ in documents for i in ids]  # every token once
    assert not batch.input_ids[~real].any() and not batch.mask[~real].any() and not batch.positions[~real].any()
    where = {int(batch.input_ids[row, t]): (row, t) for row, t in real.nonzero().tolist()}
    for ids, mask in documents:
        for k, (i, on) in enumerate(zip(ids, mask)):
            row, t = where[i]
            assert where[ids[0]] == (row, t - k) and batch.positions[row, t] == k  # in one piece, counted from 0
            assert batch.document_ids[row, t] == batch.document_ids[row, t - k]
            assert bool(batch.mask[row, t]) == bool(on and k)
    numbers = {(where[ids[0]][0], int(batch.document_ids[where[ids[0]]])) for ids, _ in documents if ids}
    assert len(numbers) == sum(map(bool, sizes))  # no two in a row have the same
    for row in range(len(real)):
        assert real[row].tolist() == sorted(real[row].tolist(), reverse=True)  # padding stands at the end
        kinds = batch.document_ids[row][real[row]].tolist()
        assert kinds == sorted(kinds)


SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=12)


@given(SIZES, st.integers(1, 40), st.integers(1, 5), st.integers(0, 2**40), st.integers(0, 3))
def test_text_rows_visit_every_window_once(tally, sizes, length, rows, seed, epoch):
    documents = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)).int()
    stream, total = TokenStream(torch.arange(len(documents), dtype=torch.int32), documents), len(documents)
    tally("fuzz cases")
    if total < length:
        with pytest.raises(UserError, match=f"{total} tokens.*{length}"):
            text_rows(stream, seed=seed, step=0, rows=rows, length=length)
        return
    windows = max(1, (total - length + 1) // length)
    first, last = epoch * windows // rows, ((epoch + 1) * windows - 1) // rows
    batch = Batch.cat(text_rows(stream, seed=seed, step=s, rows=rows, length=length) for s in range(first, last + 1))
    places = batch.input_ids[epoch * windows - first * rows:][:windows].flatten().sort().values
    assert (places.diff() == 1).all() and total - len(places) < 2 * length
    assert torch.equal(batch.document_ids, stream.documents[batch.input_ids].long())
    same = batch.document_ids[:, 1:] == batch.document_ids[:, :-1]
    assert torch.equal(batch.mask[:, 1:], same) and not batch.mask[:, 0].any() and not batch.positions[:, 0].any()
    assert torch.equal(batch.positions[:, 1:], torch.where(same, batch.positions[:, :-1] + 1, 0))


# ------------------------------------------------------------------------------------------- stop rules

V, OPEN, SHUT = 7, 5, 6


class Scripted(nn.Module):
    """Logits of the next token by the last one alone."""

    class Cache:
        repeat = select = lambda self, _: self

    def __init__(self, table):
        super().__init__()
        self.table = nn.Parameter(table)

    def new_cache(self):
        return self.Cache()

    def new_step(self):
        return lambda ids, cache: self.table[ids]

    def forward(self, ids, *, document_ids=None, cache=None, last_only=False):
        return Output(self.table[ids[:, -1:]], torch.zeros(()), torch.zeros(0))


TABLES = st.builds(
    lambda seed, scale: torch.randn(V, V, generator=torch.Generator().manual_seed(seed)) * scale,
    st.integers(0, 2**32), st.sampled_from([0.3, 3.0, 30.0]),
)  # fmt: skip
PROMPTS = st.lists(st.lists(st.integers(0, V - 1), min_size=1, max_size=6), min_size=1, max_size=5)
SETTINGS = st.builds(
    lambda **given: Sampling(**given, think_id=OPEN, end_think_id=SHUT), max_new_tokens=st.integers(1, 14),
    samples_per_prompt=st.integers(1, 3), stop_ids=st.lists(st.integers(0, V - 1), max_size=3).map(tuple),
    repetition_window=st.integers(0, 5), repetition_probability=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    thinking_budget=st.none() | st.integers(0, 6), temperature=st.sampled_from([0, 1.0, 0.7, 1e-6, 1e6]),
    top_p=st.sampled_from([1.0, 0.9, 1e-3]), seed=st.integers(0, 2**63 - 1),
)  # fmt: skip


def stopped_by_rule(prompt, answer, sure, settings) -> tuple[int, str, list[bool]]:
    """By the rules' own words: how long an answer is, why it ends, and which of its tokens were forced."""
    forced, run = [], 0
    for step, token in enumerate(answer):
        before = (list(prompt) + answer[:step])[::-1]
        before = before[: before.index(SHUT)] if SHUT in before else before  # newest first, back to the last close
        thinking = len(before) - 1 - before[::-1].index(OPEN) if OPEN in before else -1
        over = settings.thinking_budget is not None and thinking >= settings.thinking_budget
        assert token == SHUT or not over
        forced.append(over)
        run = run + 1 if sure[step] else 0
        if token in settings.stop_ids:
            return step + 1, "stop", forced
        if settings.repetition_window and run >= settings.repetition_window:
            return step + 1, "repetition", forced
    return len(answer), "length", forced


@given(TABLES, PROMPTS, SETTINGS)
def test_an_answer_ends_where_the_rules_say(tally, table, prompts, settings):
    streamed = []
    rollout = generate(Scripted(table), prompts, settings, on_token=streamed.append)
    rows, width = rollout.input_ids.shape
    assert rows == len(prompts) * settings.samples_per_prompt == len(rollout.completions) == len(rollout.finish)
    assert rollout.mask.shape == rollout.logprobs.shape == rollout.document_ids.shape == (rows, width)
    assert rollout.mask.dtype == torch.bool and rollout.logprobs.dtype == torch.float32
    assert ((-math.inf < rollout.logprobs) & (rollout.logprobs <= 1e-6)).all()
    assert not rollout.logprobs[~rollout.mask].any()
    assert streamed == rollout.completions[0]
    for row, (answer, finish) in enumerate(zip(rollout.completions, rollout.finish)):
        prompt = prompts[row // settings.samples_per_prompt]
        start, end = len(prompt), len(prompt) + len(answer)
        mask, logprobs = rollout.mask[row, start:end], rollout.logprobs[row, start:end]
        sure = (mask & (logprobs.exp() > settings.repetition_probability)).tolist()
        length, why, over = stopped_by_rule(prompt, answer, sure, settings)
        assert (length, why) == (len(answer), finish) and 1 <= length <= settings.max_new_tokens
        assert finish != "length" or length == settings.max_new_tokens
        assert all(on or late for on, late in zip(mask.tolist(), over))  # only forced tokens are unmasked
        assert rollout.input_ids[row].tolist() == [*prompt, *answer] + [0] * (width - end)
        assert rollout.document_ids[row].tolist() == [0] * end + [-1] * (width - end)
        assert not rollout.mask[row, :start].any() and not rollout.mask[row, end:].any()
        if settings.temperature == 0:
            drawn = [int(table[last].argmax()) for last in [*prompt, *answer][start - 1 : end - 1]]
            assert answer == [SHUT if late else token for token, late in zip(drawn, over)]
            assert mask.tolist() == [not late or token == SHUT for token, late in zip(drawn, over)]
    tally("fuzz cases")


POSITIVE = st.floats(min_value=0, exclude_min=True, allow_infinity=False)


SHARES = st.floats(min_value=0, exclude_min=True, max_value=1)
ROW = st.lists(st.floats(-1e4, 1e4, width=32) | st.just(-math.inf), min_size=5, max_size=5)


@given(st.lists(ROW, min_size=1, max_size=4), st.just(0) | POSITIVE, SHARES, st.integers(0, 2**32))
def test_only_possible_tokens_are_drawn(tally, rows, temperature, top_p, seed):
    logits = torch.tensor([[*row, 0.0] for row in rows])  # one token is always possible
    settings = Sampling(temperature=temperature, top_p=top_p)
    for p in (1.0, settings.top_p):
        generator = torch.Generator().manual_seed(seed)
        ids, logprobs = sample_token(logits, temperature=settings.temperature, top_p=p, generator=generator)
        assert ((0 <= ids) & (ids < 6)).all() and (logits.gather(1, ids.unsqueeze(1)) > -math.inf).all()
        assert logprobs.isfinite().all() and (logprobs <= 1e-5).all()
    tally("fuzz cases")
