"""What may a model call? Declared tools: a schema for the arguments, a function, and answers that never raise.

A model's call is untrusted text. It can reach the functions declared here and nothing else: no code that it wrote is
run, and no tool opens files, sockets or processes. Whatever is wrong with a call comes back as one sentence that the
model can read. Format: M1's function-call guide (JSON lines in `<tools>` and `<tool_calls>`).
"""

import json
import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from minim1.errors import UserError
from minim1.tasks.base import format_completion

BLOCK, END_BLOCK = "<tool_calls>\n", "</tool_calls>"
TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool}
LARGEST = 2**53  # of numbers: beyond it not every JSON reader knows whole numbers apart (RFC 8259, section 6)


class ToolMistake(Exception):
    """What a tool's function raises when it cannot do what it was asked: one sentence for the model."""


@dataclass(frozen=True)
class Tool:
    """A function on offer.

    `parameters`: JSON schema of an object, `{"type": "object", "properties": {name: {"type": ...}}, "required": []}`;
    types are those of `TYPES`, else UserError, and a property may have an `enum`. `function(**arguments) -> str`.
    """

    name: str
    description: str
    parameters: dict
    function: Callable[..., str]

    def __post_init__(self) -> None:
        for name, schema in self.parameters.get("properties", {}).items():
            if str(schema.get("type")) not in TYPES:  # JSON schema allows a list, too
                raise UserError(
                    f"The argument {name} of the tool {self.name} has the type {schema.get('type')!r}, which cannot be "
                    f"checked; choose one of {', '.join(TYPES)}."
                )

    def declare(self) -> dict:
        """The tool as `render_chat(tools=...)` and M1's `<tools>` block want it."""
        return {"name": self.name, "description": self.description, "parameters": self.parameters}


class ToolResult(NamedTuple):
    """What a call gave: the text that the model reads, and whether the tool ran."""

    name: str
    text: str
    ok: bool


def parameters(**types: str) -> dict:
    """The schema of required arguments of simple types.

    >>> parameters(key="string")
    {'properties': {'key': {'type': 'string'}}, 'required': ['key'], 'type': 'object'}
    """
    return {
        "properties": {name: {"type": kind} for name, kind in types.items()},
        "required": list(types),
        "type": "object",
    }


def check_arguments(schema: Mapping, arguments: Mapping) -> str | None:
    """What is wrong with arguments, in one sentence; None if they fit the schema.

    >>> check_arguments(parameters(key="string"), {"key": 7})
    'The argument key is 7, but must be of type string.'
    """
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in arguments:
            return f"The argument {name} is missing."
    for name, value in arguments.items():
        if name not in properties:
            return f"There is no argument {name!r:.40}; there are {', '.join(properties) or 'none'}."
        kind, choices = properties[name].get("type"), properties[name].get("enum")
        fits = isinstance(value, TYPES.get(str(kind), ())) and (kind == "boolean" or not isinstance(value, bool))
        if not fits:
            return f"The argument {name} is {value!r:.40}, but must be of type {kind}."
        if isinstance(value, int | float) and not abs(value) <= LARGEST:  # NaN too
            return f"The argument {name} is {value!r:.40}, but must be a number of at most {LARGEST} in size."
        if choices is not None and value not in choices:
            return f"The argument {name} is {value!r:.40}, but must be one of {', '.join(map(str, choices))}."
    return None


def run_call(tools: Sequence[Tool], call: Mapping) -> ToolResult:
    """Run one call as `parse_tool_calls` gives it if it fits one of `tools`; never raises for what a model wrote.

    The result of a tool that does not exist has no name: the model's own text would stand in the tool's sentence.
    """
    tool = next((tool for tool in tools if tool.name == call["name"]), None)
    if tool is None:
        there_are = ", ".join(tool.name for tool in tools) or "none"
        return ToolResult("", f"error: There is no tool {call['name']!r:.40}; there are {there_are}.", False)
    problem = check_arguments(tool.parameters, call["arguments"])
    if problem is None:
        try:
            return ToolResult(tool.name, tool.function(**call["arguments"]), True)
        except ToolMistake as mistake:
            problem = str(mistake)
    return ToolResult(tool.name, f"error: {problem}", False)


def format_turn(words: str = "", calls: Sequence[Mapping] = (), thinking: str = "") -> str:
    """An agent's turn as a completion: thinking, then words, then a block of calls if there are any.

    >>> format_turn(calls=[{"name": "now", "arguments": {}}])
    '<think>\\n\\n</think>\\n<tool_calls>\\n{"name": "now", "arguments": {}}\\n</tool_calls><end_of_sentence>\\n'
    """
    lines = "".join(json.dumps(call, ensure_ascii=False) + "\n" for call in calls)
    block = (words and "\n") + BLOCK + lines + END_BLOCK if calls else ""
    return format_completion(thinking, words + block)


# Calculator

LENGTH, DEPTH, DIGITS = (
    200,
    20,
    30,
)  # limits: characters and nested brackets of an expression, digits of any number in it
_TOKEN = re.compile(r"\s*(\d+(?:\.\d+)?|[-+*/()])", re.ASCII)


def calculate(expression: str) -> str:
    """The value of an expression of numbers, + - * / and brackets, read by the parser below: no text is run as code.

    Exact fractions inside; a value that is no whole number is given to 12 digits. Work is bounded by the limits above.
    Raises: ToolMistake, one sentence.

    >>> calculate("2*(3+4)/7")
    '2'
    """
    if len(expression) > LENGTH:
        raise ToolMistake(f"The expression has {len(expression)} characters, but at most {LENGTH} are read.")
    tokens, at, expression = [], 0, expression.rstrip(string.whitespace)
    while at < len(expression):
        found = _TOKEN.match(expression, at)
        if found is None:
            raise ToolMistake(f"The expression cannot be read from {expression[at:].strip()[:20]!r} on.")
        tokens.append(found[1])
        at = found.end()
    value, rest = _sum(tokens, 0)
    if rest:
        raise ToolMistake(f"The expression cannot be read from {rest[0]!r} on.")
    return str(value) if value.denominator == 1 else format(float(value), ".12g")


def _sum(tokens: list[str], depth: int) -> tuple[Fraction, list[str]]:
    """The value of the longest sum at the beginning of the tokens, and the tokens after it."""
    value, tokens = _product(tokens, depth)
    while tokens and tokens[0] in "+-":
        sign = 1 if tokens[0] == "+" else -1
        other, tokens = _product(tokens[1:], depth)
        value = _bounded(value + sign * other)
    return value, tokens


def _product(tokens: list[str], depth: int) -> tuple[Fraction, list[str]]:
    value, tokens = _factor(tokens, depth)
    while tokens and tokens[0] in "*/":
        sign = tokens[0]
        other, tokens = _factor(tokens[1:], depth)
        if sign == "/" and other == 0:
            raise ToolMistake("The expression divides by 0.")
        value = _bounded(value * other if sign == "*" else value / other)
    return value, tokens


def _factor(tokens: list[str], depth: int) -> tuple[Fraction, list[str]]:
    if depth > DEPTH:
        raise ToolMistake(f"The expression is nested more than {DEPTH} deep.")
    if not tokens:
        raise ToolMistake("The expression ends where a number should stand.")
    first, rest = tokens[0], tokens[1:]
    if first == "-":
        value, rest = _factor(rest, depth + 1)
        return -value, rest
    if first == "(":
        value, rest = _sum(rest, depth + 1)
        if not rest or rest[0] != ")":
            raise ToolMistake("The expression has a bracket that is not closed.")
        return value, rest[1:]
    if not first[0].isdigit():
        raise ToolMistake(f"The expression has {first!r} where a number should stand.")
    return _bounded(Fraction(first)), rest


def _bounded(value: Fraction) -> Fraction:
    if max(abs(value.numerator), value.denominator) >= 10**DIGITS:
        raise ToolMistake(f"The expression has a number of more than {DIGITS} digits.")
    return value


CALCULATOR = Tool(
    "calculator", "Works out numbers with + - * / and brackets.", parameters(expression="string"), calculate
)


def lookup_tool(table: Mapping[str, str]) -> Tool:
    """The tool `lookup`, which reads one value of a table."""

    def lookup(key: str) -> str:
        if key not in table:
            raise ToolMistake(f"There is no key {key!r:.40}.")
        return table[key]

    return Tool("lookup", "Reads the value of a key.", parameters(key="string"), lookup)
