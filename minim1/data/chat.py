"""Messages and tokens: M1's chat template with thinking and tools.

Sources: vLLM's template for M1 and M1's function-call guide; where the two differ on tool results, the
guide, since the template drops the tool's name. Tools are JSON lines in `<tools>`, calls JSON
lines in `<tool_calls>`, thinking stands in `<think>`. The rendered text is M1's to the character.
"""

import json
import re
from typing import NamedTuple

from minim1.data.tokenizer import CONTROL, HEADER_IDS, Tokenizer
from minim1.errors import UserError

DEFAULT_SYSTEM = "You are a helpful assistant created by Minimax based on MiniMax-M1 model."
_ROLES = ("system", "user", "assistant", "tool")
NESTED = 16  # lists and objects within each other in a call
_TOOLS_INTRO = "You are provided with these tools:\n"
_TOOLS_USE = (
    "\nIf you need to call tools, please respond with <tool_calls></tool_calls> XML tags, and provide "
    "tool-name and json-object of arguments, following the format below:\n"
)
_TOOLS_FORMAT = '{"name": <tool-name>, "arguments": <args-json-object>}\n...\n'


class Encoded(NamedTuple):
    """A document: `ids` and, of the same length, `mask`: 1 where the token is to be learnt."""

    ids: list[int]
    mask: list[int]


def render_chat(messages, *, tools=None, add_generation_prompt=False) -> str:
    """The text of a conversation in M1's template.

    A message is a dict with `role` and `content` (a string, or a list of ``{"text": ...}`` parts):

    - system: only as the first message. Without one, M1's default sentence is used; with content
      None or "" there is none.
    - user.
    - assistant: `content`, optional `reasoning` (a string, or a list of (text, supervised)) and
      optional `tool_calls`, a list of ``{"name": str, "arguments": dict}``. With content None and
      no calls the message stays open after its reasoning; it must be the last.
    - tool: the result, with an optional `name`; or a list of ``{"name", "text"}`` for several.

    `tools`: a list of JSON objects, the functions on offer. System, user and assistant contents
    are stripped of white space at both ends, as the template does. Raises `UserError` for unknown
    roles, missing fields and messages in impossible places.

    >>> print(render_chat([{"role": "system", "content": None}, {"role": "user", "content": "Hi"}],
    ...                   add_generation_prompt=True), end="")
    <begin_of_document><beginning_of_sentence>user name=user
    Hi<end_of_sentence>
    <beginning_of_sentence>ai name=MiniMax AI
    """
    pieces = _pieces(messages, tools, add_generation_prompt)
    return "".join(CONTROL[piece] if isinstance(piece, int) else piece for piece, _ in pieces)


def encode_chat(
    tokenizer: Tokenizer, messages, *, tools=None, add_generation_prompt=False
) -> Encoded:
    """The tokens of a conversation (arguments as for `render_chat`), each marker one control token.

    The mask is 1 for all that the assistant itself must emit, `<think>` to `<end_of_sentence>`,
    except reasoning segments marked as not supervised; 0 for everything else.
    `tokenizer.decode(ids)` equals `render_chat(...)`.
    """
    ids, mask = [], []
    for piece, supervised in _pieces(messages, tools, add_generation_prompt):
        tokens = [piece] if isinstance(piece, int) else tokenizer.encode(piece)
        ids += tokens
        mask += [int(supervised)] * len(tokens)
    return Encoded(ids, mask)


def parse_tool_calls(text: str) -> list[dict]:
    """The calls ``{"name", "arguments"}`` in a completion, from its first `<tool_calls>` block.

    Blocks inside `<think>` do not count; a block may lack its end; each non-empty line is one JSON
    object, and lines that are not a call are skipped: also those with a key given twice, a number that is not finite,
    half a character (a lone surrogate), or more than `NESTED` lists and objects within each other.

    >>> parse_tool_calls('<tool_calls>\\n{"name": "add", "arguments": {"a": 1}}\\noops\\n</tool_calls>')
    [{'name': 'add', 'arguments': {'a': 1}}]
    """
    spoken = re.sub(r"<think>.*?(?:</think>|\Z)", "", text, flags=re.DOTALL)
    block = re.search(r"<tool_calls>(.*?)(?:</tool_calls>|\Z)", spoken, flags=re.DOTALL)
    lines = block[1].split("\n") if block else ()  # not splitlines: JSON may hold U+2028
    calls = filter(_is_call, (_read_line(line) for line in lines if "{" in line))
    return [{"name": call["name"], "arguments": call["arguments"]} for call in calls]


def _read_line(line: str):
    """The JSON value of a line; None if it cannot be read, or could not be written into a conversation again."""
    try:
        value = _STRICT.decode(line)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        return value if _depth(value) <= NESTED else None
    except (ValueError, RecursionError):
        return None


def _each_key_once(pairs: list[tuple]) -> dict:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a key stands twice")
    return found


_STRICT = json.JSONDecoder(object_pairs_hook=_each_key_once)


def _depth(value) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inside is None else 1 + max(map(_depth, inside), default=0)


def _pieces(messages, tools, add_generation_prompt) -> list[tuple[int | str, bool]]:
    """The conversation as (piece, supervised): a piece is a control id or ordinary text."""
    messages, T = list(messages), Tokenizer
    if not messages:
        raise UserError("The conversation has 0 messages, but needs at least one; add a user message.")
    pieces = [(T.bod_id, False)]

    def sentence(header: str, *body: int | str) -> None:
        pieces.extend((piece, False) for piece in (HEADER_IDS[header], *body, T.eos_id))

    if not isinstance(messages[0], dict) or messages[0].get("role") != "system":
        messages.insert(0, {"role": "system", "content": DEFAULT_SYSTEM})
    for i, message in enumerate(messages):
        _need(isinstance(message, dict) and message.get("role") in _ROLES, message,
              f"a dict whose role is one of {', '.join(_ROLES)}")  # fmt: skip
        role = message["role"]
        _need("content" in message or (role == "assistant" and message.get("tool_calls")), message, "a field content")
        _need(role != "system" or i == 0, message, "another role, because only the first may be system")
        if role == "system":
            system = "" if message["content"] is None else _text(message)
            if system:
                sentence("system", system)
            if tools:
                _need(isinstance(tools, list | tuple) and all(isinstance(tool, dict) for tool in tools),
                      tools, "a list of dicts", "tools")  # fmt: skip
                sentence("tool_setting", _TOOLS_INTRO, T.tools_id, _json_lines(tools), T.end_tools_id, _TOOLS_USE,
                         T.tool_calls_id, _TOOLS_FORMAT, T.end_tool_calls_id)  # fmt: skip
        elif role == "user":
            sentence("user", _text(message))
        elif role == "tool":
            sentence("tool", _tool_results(message))
        else:
            pieces.append((HEADER_IDS["assistant"], False))
            pieces += _assistant_turn(message)
            _need(pieces[-1][0] == T.eos_id or (i == len(messages) - 1 and not add_generation_prompt), message,
                  "a content, because something follows it")  # fmt: skip
    if add_generation_prompt:
        pieces.append((HEADER_IDS["assistant"], False))
    return pieces


def _assistant_turn(message: dict) -> list[tuple[int | str, bool]]:
    """What the assistant emits after its header."""
    reasoning, calls, turn = message.get("reasoning"), message.get("tool_calls"), []
    stays_open = message.get("content") is None and not calls
    _need(reasoning is not None or not stays_open, message, "a content or a reasoning")
    if reasoning is not None:
        segments = [(reasoning, True)] if isinstance(reasoning, str) else reasoning
        _need(isinstance(segments, list | tuple) and all(map(_is_segment, segments)), message,
              "a reasoning that is a string or a list of (text, supervised)")  # fmt: skip
        turn += [(Tokenizer.think_id, True), *((text, bool(supervised)) for text, supervised in segments)]
        if stays_open:
            return turn
        turn.append((Tokenizer.end_think_id, True))
    spoken = "" if message.get("content") is None else _text(message)
    if calls:
        _need(isinstance(calls, list) and all(map(_is_call, calls)), message,
              "tool calls in a list, dicts with a name and a dict of arguments")  # fmt: skip
        lines = _json_lines({"name": call["name"], "arguments": call["arguments"]} for call in calls)
        spoken = spoken and spoken + "\n"
        turn += [(spoken, True), (Tokenizer.tool_calls_id, True), (lines, True), (Tokenizer.end_tool_calls_id, True)]
    else:
        turn.append((spoken, True))
    return [*turn, (Tokenizer.eos_id, True)]


def _tool_results(message: dict) -> str:
    content = message["content"]
    results = [{"name": message.get("name"), "text": content}] if isinstance(content, str) else content
    _need(_are_parts(results), message, "a string or a list of dicts with a text")
    names = [f"tool name: {result['name']}\n" if result.get("name") else "" for result in results]
    return "\n".join(f"{name}tool result: {result['text']}\n" for name, result in zip(names, results))


def _text(message: dict) -> str:
    """A content as one string, stripped as the template does: itself, or its parts one by one."""
    content = message["content"]
    _need(isinstance(content, str) or _are_parts(content), message, "a string or a list of text parts as content")
    return "".join(part.strip() for part in ([content] if isinstance(content, str) else [p["text"] for p in content]))


def _are_parts(content) -> bool:
    return isinstance(content, list) and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in content)


def _is_segment(segment) -> bool:
    return isinstance(segment, list | tuple) and len(segment) == 2 and isinstance(segment[0], str)


def _is_call(call) -> bool:
    return isinstance(call, dict) and isinstance(call.get("name"), str) and isinstance(call.get("arguments"), dict)


def _json_lines(values) -> str:
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


def _need(condition, value, expected: str, what: str = "message") -> None:
    if not condition:
        raise UserError(f"The {what} {value!r:.300} is not in the chat format, which needs {expected}; correct it.")
