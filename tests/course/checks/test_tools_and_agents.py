"""The checks of chapter 14 expect what the package does."""

import random

from minim1.agent import Dialogue, demonstrated, drive, errand_dialogue
from minim1.course.checks.tools_and_agents import broken_rules, found_calls
from minim1.data.chat import parse_tool_calls
from minim1.report.experiments.tools import first_mistake
from minim1.tasks import desk
from minim1.tasks.errands import ERRANDS
from minim1.tasks.tools import format_turn

PIECES = [
    "<think>\n", "\n</think>\n", "<tool_calls>\n", "</tool_calls>", "\n", "hm", '{"name": "a", "arguments": {}}\n',
    '{"name": "b", "arguments": {"k": 1}}', '{"name": 7, "arguments": {}}\n', "[1]\n", "null\n", '{"name": "c"}\n',
]  # fmt: skip


def test_the_oracle_reads_calls_as_the_package_does():
    rng = random.Random(0)
    some = 0
    for _ in range(3000):
        text = "".join(rng.choices(PIECES, k=rng.randrange(1, 12)))
        assert found_calls(text) == parse_tool_calls(text)
        some += bool(found_calls(text))
    assert some > 50


def test_the_oracle_finds_the_violations_that_the_package_finds():
    found = 0
    for seed in range(60):
        served = desk.make_desk(seed, 4)
        agent = desk.DeskAgent(served.customer, 0.3, seed)
        drive(agent, Dialogue([{"role": "user", "content": served.opening()}], served.tools(), user=served.say))
        expected = broken_rules(served.trace, served.customer)
        assert desk.violations(served.trace, served.customer) == expected
        found += len(expected)
    assert found > 50


def test_the_first_mistake_is_where_the_demonstrator_would_do_another_thing():
    problem = ERRANDS["chain"].sample(0, 3)
    turns = [m for m in demonstrated(problem) if m["role"] == "assistant"]

    def replay(changed: dict[int, str]):
        texts = [changed.get(i, format_turn(m["content"], m.get("tool_calls", ()))) for i, m in enumerate(turns)]
        dialogue, left = errand_dialogue(problem, max_steps=4), iter(texts)
        return drive(lambda messages: next(left, format_turn("0")), dialogue)

    assert first_mistake(problem, replay({})) is None
    assert first_mistake(problem, replay({3: format_turn("99x")})) == 3
    wrong = format_turn(calls=[{"name": "lookup", "arguments": {"key": "x"}}])
    assert first_mistake(problem, replay({1: wrong})) == 1
    assert first_mistake(problem, replay({0: format_turn(problem.answer)})) == 0
