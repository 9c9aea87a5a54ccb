"""Declared tools: arguments are checked, calls never raise, the calculator computes and stays within its limits."""

import random
from fractions import Fraction

import pytest

from minim1.data.chat import parse_tool_calls
from minim1.tasks.base import parse_completion
from minim1.tasks.errands import ERRANDS
from minim1.tasks.tools import (
    CALCULATOR,
    Tool,
    calculate,
    check_arguments,
    format_turn,
    lookup_tool,
    parameters,
    run_call,
)


@pytest.mark.parametrize(
    "expression, value",
    [
        ("1+2*3", "7"),
        ("(1+2)*3", "9"),
        ("2-3-4", "-5"),
        ("12/3/2", "2"),
        ("-2*-3", "6"),
        (" 7 ", "7"),
        ("1/3", "0.333333333333"),
        ("0.1+0.2", "0.3"),
        ("2*(3+(4-1))", "12"),
        ("--5", "5"),
        ("007", "7"),
    ],
)
def test_the_calculator_computes(expression, value):
    assert calculate(expression) == value


def test_the_calculator_agrees_with_python_on_random_expressions():
    rng = random.Random(0)

    def grow(depth):
        if depth == 0:
            return str(rng.randrange(1, 100))
        left, right = grow(depth - 1), grow(depth - 1)
        return f"({left}{rng.choice('+-*')}{right})"

    for _ in range(50):
        text = grow(3)
        assert Fraction(calculate(text)) == eval(text)


@pytest.mark.parametrize(
    "expression, words",
    [
        ("", "ends where a number"),
        ("2+", "ends where a number"),
        ("2**3", "'*' where a number"),
        ("2 3", "from '3' on"),
        ("(2", "not closed"),
        ("2)", "from ')' on"),
        ("1/0", "divides by 0"),
        ("1/(2-2)", "divides by 0"),
        ("__import__('os')", "cannot be read"),
        ("9" * 40, "more than 30 digits"),
        ("*".join(["99999"] * 30), "more than 30 digits"),
        ("1+" * 200 + "1", "characters"),
        ("(" * 60 + "1" + ")" * 60, "nested"),
        ("-" * 60 + "1", "nested"),
        ("1e9", "cannot be read"),
        ("²", "cannot be read"),
    ],
)
def test_what_it_cannot_compute_is_said_in_one_sentence(expression, words):
    result = run_call([CALCULATOR], {"name": "calculator", "arguments": {"expression": expression}})
    assert (
        not result.ok
        and words in result.text
        and result.text.startswith("error: The expression")
        and result.text.count(". ") == 0
    )


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({}, "missing"),
        ({"key": 1}, "of type string"),
        ({"key": "a", "more": 1}, "no argument 'more'"),
        ({"key": None}, "of type string"),
    ],
)
def test_arguments_are_held_against_the_schema(arguments, words):
    assert words in check_arguments(parameters(key="string"), arguments)


def test_true_is_no_integer_and_an_enum_is_a_choice():
    assert (
        check_arguments(parameters(n="integer"), {"n": 1}) is None
        and check_arguments(parameters(b="boolean"), {"b": True}) is None
    )
    assert "of type integer" in check_arguments(parameters(n="integer"), {"n": True})
    schema = {"properties": {"colour": {"type": "string", "enum": ["red", "blue"]}}}
    assert check_arguments(schema, {"colour": "red"}) is None and "one of red, blue" in check_arguments(
        schema, {"colour": "green"}
    )


def test_only_declared_tools_are_reached():
    reached = []
    tool = Tool("here", "", parameters(), lambda: reached.append(1) or "done")
    assert run_call([tool], {"name": "here", "arguments": {}}) == ("here", "done", True)
    assert run_call([tool], {"name": "eval", "arguments": {}}).text == "error: There is no tool 'eval'; there are here."
    assert run_call([tool], {"name": "here", "arguments": {"x": 1}}).ok is False and reached == [1]


def test_lookup_knows_its_table_only():
    tool = lookup_tool({"a": "1"})
    assert run_call([tool], {"name": "lookup", "arguments": {"key": "a"}}).text == "1"
    assert run_call([tool], {"name": "lookup", "arguments": {"key": "b"}}).text == "error: There is no key 'b'."


def test_a_turn_reads_back():
    call = {"name": "lookup", "arguments": {"key": "</tool_calls>\n ü"}}
    text = format_turn("One moment.", [call, call], thinking="hm")
    assert parse_completion(text).well_formed
    plain = {"name": "lookup", "arguments": {"key": "ü"}}
    assert parse_tool_calls(format_turn("One moment.", [plain, plain])) == [plain, plain]


@pytest.mark.parametrize("name", ERRANDS)
def test_the_demonstrators_calls_lead_to_the_answer(name):
    task = ERRANDS[name]
    for seed in range(5):
        problem = task.sample(seed)
        results = []
        while (call := task.next_call(problem, results)) is not None:
            results.append(run_call(task.tools(problem), call).text)
        assert results[-1].removeprefix("=") == problem.answer
        assert task.verify(problem, format_turn(problem.answer)).reward == 1
        assert task.verify(problem, format_turn(calls=[call or {"name": "x", "arguments": {}}])).reward == 0
