"""The template is M1's to the character, the mask covers what the assistant emits, calls parse."""

import pytest

from minim1.data.chat import encode_chat, parse_tool_calls, render_chat
from minim1.data.tokenizer import CONTROL, Tokenizer
from minim1.errors import UserError

BARE = {"role": "system", "content": None}
USER = {"role": "user", "content": "2 + 2?"}
TOOL = {"name": "add", "description": "Addiert zwei Zahlen, größer 0.", "parameters": {"type": "object"}}
CALLS = [{"name": "add", "arguments": {"a": 2, "b": 2}}, {"name": "add", "arguments": {"a": 1, "note": "ü \"</think>\n"}}]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["system user assistant tool result name think 0123456789 " * 4], 320, ["⟨4⟩"])


def test_plain_conversation():
    messages = [{"role": "system", "content": "Be brief."}, USER, {"role": "assistant", "content": "4"}]
    assert render_chat(messages) == (
        "<begin_of_document><beginning_of_sentence>system ai_setting=MiniMax AI\n"
        "Be brief.<end_of_sentence>\n"
        "<beginning_of_sentence>user name=user\n"
        "2 + 2?<end_of_sentence>\n"
        "<beginning_of_sentence>ai name=MiniMax AI\n"
        "4<end_of_sentence>\n"
    )


def test_default_system_sentence_and_generation_prompt():
    assert render_chat([USER], add_generation_prompt=True) == (
        "<begin_of_document><beginning_of_sentence>system ai_setting=MiniMax AI\n"
        "You are a helpful assistant created by Minimax based on MiniMax-M1 model.<end_of_sentence>\n"
        "<beginning_of_sentence>user name=user\n"
        "2 + 2?<end_of_sentence>\n"
        "<beginning_of_sentence>ai name=MiniMax AI\n"
    )


@pytest.mark.parametrize("nothing", [None, "", " \n"])
def test_no_system_sentence(nothing):
    assert render_chat([{"role": "system", "content": nothing}, USER]) == (
        "<begin_of_document><beginning_of_sentence>user name=user\n2 + 2?<end_of_sentence>\n"
    )


def test_contents_are_stripped_and_parts_joined():
    messages = [BARE, {"role": "user", "content": [{"type": "text", "text": " a "}, {"type": "text", "text": "b\n"}]},
                {"role": "assistant", "content": "\n4 "}]  # fmt: skip
    text = render_chat(messages)
    assert "user name=user\nab<end_of_sentence>" in text and "MiniMax AI\n4<end_of_sentence>" in text


def test_tools_thinking_calls_and_results():
    messages = [
        {"role": "system", "content": "S"},
        USER,
        {"role": "assistant", "reasoning": "I add.", "content": None, "tool_calls": CALLS},
        {"role": "tool", "name": "add", "content": "4"},
        {"role": "tool", "content": [{"name": "add", "type": "text", "text": "4"}, {"name": "sub", "text": "0"}]},
        {"role": "tool", "content": "free text\n"},
        {"role": "assistant", "reasoning": "Good.", "content": "4"},
    ]
    assert render_chat(messages, tools=[TOOL, {"name": "sub"}]) == (
        "<begin_of_document><beginning_of_sentence>system ai_setting=MiniMax AI\n"
        "S<end_of_sentence>\n"
        "<beginning_of_sentence>system tool_setting=tools\n"
        "You are provided with these tools:\n"
        "<tools>\n"
        '{"name": "add", "description": "Addiert zwei Zahlen, größer 0.", "parameters": {"type": "object"}}\n'
        '{"name": "sub"}\n'
        "</tools>\n"
        "\n"
        "If you need to call tools, please respond with <tool_calls></tool_calls> XML tags, and provide "
        "tool-name and json-object of arguments, following the format below:\n"
        "<tool_calls>\n"
        '{"name": <tool-name>, "arguments": <args-json-object>}\n'
        "...\n"
        "</tool_calls><end_of_sentence>\n"
        "<beginning_of_sentence>user name=user\n"
        "2 + 2?<end_of_sentence>\n"
        "<beginning_of_sentence>ai name=MiniMax AI\n"
        "<think>\n"
        "I add.\n"
        "</think>\n"
        "<tool_calls>\n"
        '{"name": "add", "arguments": {"a": 2, "b": 2}}\n'
        '{"name": "add", "arguments": {"a": 1, "note": "ü \\"</think>\\n"}}\n'
        "</tool_calls><end_of_sentence>\n"
        "<beginning_of_sentence>tool name=tools\n"
        "tool name: add\n"
        "tool result: 4\n"
        "<end_of_sentence>\n"
        "<beginning_of_sentence>tool name=tools\n"
        "tool name: add\n"
        "tool result: 4\n"
        "\n"
        "tool name: sub\n"
        "tool result: 0\n"
        "<end_of_sentence>\n"
        "<beginning_of_sentence>tool name=tools\n"
        "tool result: free text\n"
        "\n"
        "<end_of_sentence>\n"
        "<beginning_of_sentence>ai name=MiniMax AI\n"
        "<think>\n"
        "Good.\n"
        "</think>\n"
        "4<end_of_sentence>\n"
    )


CONVERSATIONS = [
    ([USER], {}),
    ([BARE, USER], {"add_generation_prompt": True}),
    ([BARE, {"role": "user", "content": "<think>\n</think><end_of_sentence>\n⟨4⟩ ü"}], {"tools": [TOOL]}),
    ([BARE, USER, {"role": "assistant", "reasoning": "", "content": ""}, USER], {"add_generation_prompt": True}),
    ([BARE, USER, {"role": "assistant", "content": "I call.", "tool_calls": CALLS}, {"role": "tool", "content": "4"}], {}),
    ([BARE, USER, {"role": "assistant", "reasoning": [("⟨4⟩", True), ("", True), ("é", False)], "content": None}], {}),
]  # fmt: skip


@pytest.mark.parametrize("messages, options", CONVERSATIONS)
def test_tokens_decode_to_the_rendered_text(tokenizer, messages, options):
    encoded = encode_chat(tokenizer, messages, **options)
    assert tokenizer.decode(encoded.ids) == render_chat(messages, **options)
    assert len(encoded.ids) == len(encoded.mask) and set(encoded.mask) <= {0, 1}


def supervised_text(tokenizer, messages, **options):
    """The runs of supervised tokens, decoded."""
    ids, mask = encode_chat(tokenizer, messages, **options)
    text = "".join(tokenizer.decode([i]) if on else "\0" for i, on in zip(ids, mask, strict=True))
    return [run for run in text.split("\0") if run]


def test_mask_covers_exactly_what_the_assistant_emits(tokenizer):
    turn = {"role": "assistant", "reasoning": "two and two", "content": "4"}
    messages = [USER, turn, {"role": "user", "content": "Sure?"}, turn | {"content": None, "tool_calls": CALLS},
                {"role": "tool", "content": "4"}, {"role": "assistant", "content": "yes"}]  # fmt: skip
    calls = '{"name": "add", "arguments": {"a": 2, "b": 2}}\n{"name": "add", "arguments": {"a": 1, "note": "ü \\"</think>\\n"}}\n'
    runs = supervised_text(tokenizer, messages, tools=[TOOL], add_generation_prompt=True)
    # "ü" is two tokens, which decode one by one to replacement characters
    assert [run.replace("\ufffd\ufffd", "ü") for run in runs] == [
        "<think>\ntwo and two\n</think>\n4<end_of_sentence>\n",
        f"<think>\ntwo and two\n</think>\n<tool_calls>\n{calls}</tool_calls><end_of_sentence>\n",
        "yes<end_of_sentence>\n",
    ]


def test_unsupervised_segments_and_open_documents(tokenizer):
    reasoning = [("one ", True), ("two ", False), ("three", True)]
    closed = [BARE, USER, {"role": "assistant", "reasoning": reasoning, "content": "4"}]
    assert supervised_text(tokenizer, closed) == ["<think>\none ", "three\n</think>\n4<end_of_sentence>\n"]
    left_open = [BARE, USER, {"role": "assistant", "reasoning": reasoning, "content": None}]
    assert supervised_text(tokenizer, left_open) == ["<think>\none ", "three"]
    assert render_chat(left_open).endswith("<think>\none two three")


def test_markers_are_control_tokens_and_contents_never_are(tokenizer):
    spelled = {"role": "user", "content": "</think>\n<end_of_sentence>\n"}
    ids, _ = encode_chat(tokenizer, [BARE, spelled, {"role": "assistant", "reasoning": "<think>\n", "content": "<pad>"}])
    assert [CONTROL[i] for i in ids if i < len(CONTROL)] == [
        "<begin_of_document>", "<beginning_of_sentence>user name=user\n", "<end_of_sentence>\n",
        "<beginning_of_sentence>ai name=MiniMax AI\n", "<think>\n", "\n</think>\n", "<end_of_sentence>\n",
    ]  # fmt: skip


@pytest.mark.parametrize("messages, options, message", [
    ([], {}, "0 messages"),
    (["hello"], {}, "role"),
    ([{"content": "x"}], {}, "role"),
    ([{"role": "robot", "content": "x"}], {}, "robot.*system, user, assistant, tool"),
    ([{"role": "user"}], {}, "content"),
    ([{"role": "user", "content": None}], {}, "string"),
    ([{"role": "user", "content": [{"image": 1}]}], {}, "text parts"),
    ([USER, {"role": "system", "content": "late"}], {}, "only the first"),
    ([USER, {"role": "assistant"}], {}, "content"),
    ([USER, {"role": "assistant", "content": None}], {}, "a content or a reasoning"),
    ([USER, {"role": "assistant", "content": "x", "reasoning": ["text"]}], {}, "supervised"),
    ([USER, {"role": "assistant", "content": "x", "reasoning": 5}], {}, "supervised"),
    ([USER, {"role": "assistant", "content": "x", "reasoning": [5]}], {}, "supervised"),
    ([{"role": "user", "tool_calls": CALLS}], {}, "content"),
    ([USER, {"role": "assistant", "tool_calls": 5}], {}, "tool calls"),
    ([USER], {"tools": 5}, "list of dicts"),
    ([USER, {"role": "assistant", "content": None, "reasoning": "x"}, USER], {}, "something follows"),
    ([USER, {"role": "assistant", "content": None, "reasoning": "x"}], {"add_generation_prompt": True}, "something follows"),
    ([USER, {"role": "assistant", "content": "", "tool_calls": [{"name": "add", "arguments": "{}"}]}], {}, "tool calls"),
    ([USER, {"role": "assistant", "content": "", "tool_calls": [{"arguments": {}}]}], {}, "tool calls"),
    ([USER, {"role": "tool", "content": [{"name": "add"}]}], {}, "text"),
    ([USER, {"role": "tool", "content": 4}], {}, "text"),
    ([USER], {"tools": ["add"]}, "dicts"),
])  # fmt: skip
def test_wrong_messages_get_one_sentence(messages, options, message):
    with pytest.raises(UserError, match=message):
        render_chat(messages, **options)


def test_the_callers_messages_are_not_changed():
    messages = [USER]
    render_chat(messages, tools=[TOOL])
    assert messages == [USER]


def test_calls_survive_the_round_trip(tokenizer):
    ids, mask = encode_chat(tokenizer, [USER, {"role": "assistant", "reasoning": "", "content": None, "tool_calls": CALLS[:1]}])
    completion = tokenizer.decode_completion([i for i, on in zip(ids, mask, strict=True) if on])
    assert parse_tool_calls(completion) == CALLS[:1]


CALL = '{"name": "f", "arguments": {"x": 1}}'
PARSED = {"name": "f", "arguments": {"x": 1}}


@pytest.mark.parametrize("text, calls", [
    (f"<tool_calls>\n{CALL}\n{CALL}\n</tool_calls>", [PARSED, PARSED]),
    (f"<tool_calls>{CALL}</tool_calls>", [PARSED]),
    (f"<tool_calls>\n\n  {CALL}\r\n\n</tool_calls>", [PARSED]),
    (f"<tool_calls>\n{CALL}\nnot json\n{{'name': 1}}\n[1]\n\"f\"\n{CALL}", [PARSED, PARSED]),  # no end, bad lines
    (f"<tool_calls>\n{CALL[:-3]}", []),  # cut in the middle of a call
    ('<tool_calls>\n{"name": 3, "arguments": {}}\n{"name": "f"}\n{"name": "f", "arguments": "{}"}\n{"arguments": {}}', []),
    (f"<tool_calls>\n{CALL}\n</tool_calls>\n<tool_calls>\n{CALL}\n</tool_calls>", [PARSED]),  # the first block only
    (f"<think>\n<tool_calls>\n{CALL}\n</tool_calls>\n</think>\nno call", []),
    (f"<think>\n<tool_calls>\n</think>\n<tool_calls>\n{CALL}\n</tool_calls>", [PARSED]),
    (f"<think>\nstill thinking <tool_calls>\n{CALL}\n</tool_calls>", []),
    ('<tool_calls>\n{"name": "f", "arguments": {"x": "a\u2028b"}}\n</tool_calls>', [{"name": "f", "arguments": {"x": "a\u2028b"}}]),
    ("<tool_calls>\n" + "[" * 100_000 + f"\n{CALL}", [PARSED]),  # deeper than the JSON reader goes
    (CALL, []),
    ("", []),
])  # fmt: skip
def test_parse_tool_calls(text, calls):
    assert parse_tool_calls(text) == calls
