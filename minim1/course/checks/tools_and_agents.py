"""Checks of chapter 14: calls in a text, the loop of an agent, the reward of a conversation, a policy and who broke it.

What is expected is computed here, apart from the package's own agent.
"""

import copy
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from minim1.course.checking import Exercise, Probe
from minim1.tasks.tools import Tool, check_arguments

# 14.1

THINK, END_THINK, OPEN, CLOSE = "<think>\n", "\n</think>\n", "<tool_calls>\n", "</tool_calls>"


def found_calls(
    text: str,
    *,
    thinking: str = "out",
    block: str = "first",
    closed: bool = False,
    lines: str = "each",
    typed: bool = True,
    default: bool = False,
    extra: bool = False,
    once: bool = False,
    backwards: bool = False,
    unread: bool = False,
) -> list[dict]:
    """What `parse_calls` should give; the options make the mistakes that the check knows.

    thinking: "out", "in" (it counts too), "closed" (only closed thinking is left out), "greedy" (up to the last end),
    "first" (only the first one); block: "first", "last", "all" or "long" (to the last end); closed: only closed blocks
    count; lines: "each", "splitlines", "until" (the first that is no call ends it) or "all" (one bad line spoils the
    block); typed: name and arguments must be a str and a dict; default: missing arguments are {}; extra: other keys
    stay; once: equal calls are one; unread: an entry None for a line that is no call.
    """
    if thinking == "first":
        text = re.sub(r"<think>.*?(?:</think>|\Z)", "", text, count=1, flags=re.DOTALL)
    elif thinking != "in":
        middle = ".*" if thinking == "greedy" else ".*?"
        end = "</think>" if thinking == "closed" else r"(?:</think>|\Z)"
        text = re.sub(f"<think>{middle}{end}", "", text, flags=re.DOTALL)
    middle = ".*" if block == "long" else ".*?"
    blocks = re.findall(
        f"<tool_calls>({middle}){CLOSE if closed else f'(?:{CLOSE}|' + chr(92) + 'Z)'}", text, flags=re.DOTALL
    )
    blocks = {"last": blocks[-1:], "all": blocks}.get(block, blocks[:1])
    calls = []
    for part in blocks:
        for line in part.splitlines() if lines == "splitlines" else part.split("\n"):
            try:
                call = json.loads(line)
            except (ValueError, RecursionError):
                call = None
            if default and isinstance(call, dict):
                call.setdefault("arguments", {})
            good = (
                isinstance(call, dict)
                and "name" in call
                and "arguments" in call
                and (not typed or (isinstance(call["name"], str) and isinstance(call["arguments"], dict)))
            )
            if good:
                calls.append(call if extra else {"name": call["name"], "arguments": call["arguments"]})
            elif line.strip() and lines == "until":
                break
            elif line.strip() and lines == "all":
                return []
            elif line.strip() and unread:
                calls.append(None)
    if once:
        calls = [call for i, call in enumerate(calls) if call not in calls[:i]]
    return calls[::-1] if backwards else calls


PARSED_WRONG = {  # sentence -> options of `found_calls`
    "A call inside of <think> is taken for one: leave the thinking out before you look for the block.": dict(
        thinking="in"
    ),
    "Thinking that is not closed reaches to the end of the text, and nothing in it counts.": dict(thinking="closed"),
    "The thinking is cut out up to the last </think>; it ends at the next one.": dict(thinking="greedy"),
    "Only the first <think> is left out: leave out all of them.": dict(thinking="first"),
    "A later block counts too; only the first block does.": dict(block="all"),
    "The last block is read; the first one counts.": dict(block="last"),
    "The block goes on to the last </tool_calls>; it ends at the next one.": dict(block="long"),
    "A block without </tool_calls> reaches to the end of the text, and its calls count: a turn may be cut off.": dict(
        closed=True
    ),
    "A line is cut at other signs than \\n, as splitlines does; JSON strings may hold such: split at \\n alone.": dict(
        lines="splitlines"
    ),
    "A line that is no call ends the reading; skip it and read on.": dict(lines="until"),
    "One line that is no call spoils the whole block; skip that line alone.": dict(lines="all"),
    "A line counts whose name is no str, or whose arguments are no dict: look at their types.": dict(typed=False),
    "A line without arguments counts: without a dict of arguments it is no call.": dict(default=True),
    "Other keys of a line stay in the call: make a new dict of name and arguments alone.": dict(extra=True),
    "Equal calls are joined: the model asked twice, so both stay.": dict(once=True),
    "The calls come in the opposite order; keep that of the lines.": dict(backwards=True),
    "A line that is no call leaves a None in the list; leave it out.": dict(unread=True),
}


NOTHING = "There is a call in the text, but the list is empty: "
FIRST_LINE = (
    "thinking ends at the next </think>, the block begins right after its tag (its first line may be empty), and "
    "lines that are no call are skipped."
)
NOT_CLOSED = "a block without </tool_calls> reaches to the end of the text, since a turn may be cut off."
THOUGHT = "thinking ends at the next </think>, and what follows it counts."


def parse_calls(probe: Probe) -> None:
    number = probe.size(10, 99)
    words = [f"{word}{probe.size(0, 99)}" for word in ("find", "cancel", "add", "lookup")]
    one, two, three, four = (
        {"name": word, "arguments": {"key": f"k{number + i}", "n": i}} for i, word in enumerate(words)
    )
    a, b, c, d = (json.dumps(call) + "\n" for call in (one, two, three, four))

    def case(name: str, text: str, layer: str = "value", empty: str = FIRST_LINE) -> None:
        calls = probe.call(text)
        probe.require(
            not isinstance(calls, dict),
            "type",
            "The result is one dict; a list of calls was asked for, also where there is only one.",
        )
        expected = found_calls(text)
        mistakes = {sentence: found_calls(text, **options) for sentence, options in PARSED_WRONG.items()}
        known = {sentence: found for sentence, found in mistakes.items() if found}  # an empty list has many causes
        known[NOTHING + empty if expected else "There is no call in this text that counts: the list must be empty."] = (
            [] if expected else [one]
        )
        probe.equal(f"calls ({name})", calls, expected, layer=layer, mistakes=known)
        probe.require(isinstance(calls, list), "type", f"The calls come as a {type(calls).__name__}; return a list.")

    case("one call", f"{THINK}hm {number}{END_THINK}{OPEN}{a}{CLOSE}<end_of_sentence>\n")
    case("three calls", f"{THINK}hm{END_THINK}Wait.\n{OPEN}{a}{c}{b}{CLOSE}")
    case("no block", f"{THINK}hm{END_THINK}It is {number}.")
    case("a line that is no JSON", f"{OPEN}{a}nonsense {number}\n{b}{CLOSE}")
    case("a call in thinking", f"{THINK}I could {OPEN}{a}{CLOSE} or not.{END_THINK}{OPEN}{b}{CLOSE}", empty=THOUGHT)
    case("thinking alone", f"{THINK}I could {OPEN}{a}{CLOSE} or not.{END_THINK}No.")
    case("not closed", f"{THINK}hm{END_THINK}{OPEN}{a}{b}", empty=NOT_CLOSED)
    case("cut within a line", f"{OPEN}{a}{b[: len(b) // 2]}", empty=NOT_CLOSED)
    case("two blocks", f"{OPEN}{a}{CLOSE}\n{OPEN}{b}{CLOSE}")
    case("thinking that is not closed", f"{THINK}hm {OPEN}{a}{CLOSE}", "property")
    case("thinking twice", f"{THINK}x{END_THINK}{OPEN}{a}{CLOSE}{THINK}{OPEN}{b}{CLOSE}{END_THINK}{number}", "property")
    case(
        "thinking before each block",
        f"{THINK}{OPEN}{c}{CLOSE}{END_THINK}{THINK}{OPEN}{d}{CLOSE}{END_THINK}{OPEN}{a}{CLOSE}",
        "property",
    )
    case("thinking within a block", f"{OPEN}{a}{THINK}{b}{END_THINK}\n{c}{CLOSE}", "property")
    case("other keys", f"{OPEN}{json.dumps({'id': number, **one})}\n{CLOSE}", "property")
    case("the same call twice", f"{OPEN}{a}{b}{a}{CLOSE}", "property")
    case("empty lines", f"{OPEN}\n  \n{a}\n\n{b}\n{CLOSE}", "property")
    case(
        "nested arguments",
        f"{OPEN}{json.dumps({'name': 'x', 'arguments': {'a': {'b': [1, {'c': number}]}}})}\n{CLOSE}",
        "property",
    )
    separated = json.dumps({"name": "say", "arguments": {"text": f"{number}\u2028x\x85y"}}, ensure_ascii=False)
    case("U+2028 in a string", f"{OPEN}{separated}\n{a}{CLOSE}", "property")
    for name, line in {"a list": "[1, 2]", "a number": str(number), "null": "null", "a string": '"name"'}.items():
        case(name, f"{OPEN}{line}\n{a}{CLOSE}", "edge case")
    for name, line in {
        "no name": {"arguments": {}},
        "no arguments": {"name": "x"},
        "name a number": {"name": 7, "arguments": {}},
        "arguments a list": {"name": "x", "arguments": [1]},
        "arguments a text": {"name": "x", "arguments": "{}"},
        "arguments null": {"name": "x", "arguments": None},
        "name null": {"name": None, "arguments": {}},
        "name a list": {"name": ["x"], "arguments": {}},
    }.items():
        case(name, f"{OPEN}{a}{json.dumps(line)}\n{b}{CLOSE}", "edge case")
    nothing = "an empty dict of arguments is one too: a tool may need none."
    case("no arguments needed", f'{OPEN}{{"name": "now", "arguments": {{}}}}\n{CLOSE}', "edge case", empty=nothing)
    capitals = json.dumps({"name": "Find", "arguments": {"Key": "A"}})
    unnamed = json.dumps({"name": "", "arguments": {}})
    case("capitals", f"{OPEN}{capitals}\n{CLOSE}", "edge case")
    case("an empty name", f"{OPEN}{a}{unnamed}\n{CLOSE}", "edge case")
    case("spaces around a line", f"{OPEN}  {a.strip()}  \n\t{b}{CLOSE}", "edge case")
    case("words before a call", f"{OPEN}{a}call: {b}{CLOSE}", "edge case")
    case("words after a call", f"{OPEN}{a}{b.strip()} please\n{CLOSE}", "edge case")
    case("two calls on a line", f"{OPEN}{a}{b.strip()} {c}{CLOSE}", "edge case")
    case("a list of calls on a line", f"{OPEN}{a}[{b.strip()}]\n{CLOSE}", "edge case")
    case("Python instead of JSON", f"{OPEN}{a}{{'name': 'x', 'arguments': {{}}}}\n{CLOSE}", "edge case")
    case("a carriage return", f"{OPEN}{a}{b.strip()}\r{c}{CLOSE}", "edge case")
    case("an open last line", f"{OPEN}{a}{b.strip()}", "edge case")
    case("an end before the block", f"{CLOSE} {OPEN}{a}{b}{CLOSE}{c}", "edge case")
    case("an empty block", f"{OPEN}{CLOSE}", "edge case")
    case(
        "without line breaks",
        f"<tool_calls>{a.strip()}{CLOSE}",
        "edge case",
        empty="the tags may stand on the line of the call itself, and the last line counts too.",
    )
    case("no text", "", "edge case")
    case("an end without a beginning", f"{a}{CLOSE}{number}", "edge case")
    case("the end of thinking alone", f"{OPEN}{a}{CLOSE}</think>", "edge case")
    case("a line of brackets", f"{OPEN}{'[' * 100_000}\n{a}{CLOSE}", "edge case")


# 14.2


class Spy:
    """A tool's function that remembers what it was called with; its repr says nothing of where it lies in memory."""

    def __init__(self, name: str, log: list, answer: Callable[..., str]) -> None:
        self.name, self.log, self.answer = name, log, answer

    def __repr__(self) -> str:
        return f"Spy({self.name})"

    def __call__(self, **arguments: Any) -> str:
        self.log.append((self.name, arguments))
        return self.answer(**arguments)


class Script:
    """A model that says its turns one after the other, and the last one again and again; `seen`: what it was shown."""

    def __init__(self, turns: Sequence[dict], seen: list, max_steps: int) -> None:
        self.turns, self.seen, self.max_steps = turns, seen, max_steps
        self.__qualname__ = "respond"  # as a function has one

    def __repr__(self) -> str:
        return "a function"

    def __call__(self, messages: list[dict]) -> dict:
        if len(self.seen) >= 60:
            raise RuntimeError(f"respond was called {len(self.seen)} times, although max_steps is {self.max_steps}")
        self.seen.append(copy.deepcopy(messages))
        return copy.deepcopy(self.turns[min(len(self.seen), len(self.turns)) - 1])


def looped(
    turns: Sequence[dict],
    tools: dict[str, Tool],
    messages: list[dict],
    max_steps: int,
    *,
    apart: bool = False,
    error: str = "error: ",
    late: bool = False,
    limit: int = 0,
    only_first: bool = False,
    backwards: bool = False,
    keep: bool = True,
    answered: bool = True,
    unchecked: bool = False,
    name: str = "there is no tool {}",
    quiet: bool = False,
    stop: bool = False,
) -> tuple[list[dict], str]:
    """What `tool_loop` should give, for turns that do not depend on what is seen; the options make known mistakes.

    apart: a message for each result; late: the calls of the last step are not run; limit: so many steps more;
    only_first: one call a turn; keep: turns with calls are appended; answered: so is the answer; unchecked: arguments
    are not looked at; quiet: calls that cannot be run leave no result; name: the words for an unknown tool; stop: a
    call that cannot be run ends the loop.
    """
    out = list(messages)
    for step in range(max_steps + limit):
        turn = turns[min(step, len(turns) - 1)]
        calls = turn.get("tool_calls") or []
        if keep if calls else answered:
            out.append(turn)
        if not calls:
            return out, "answer"
        if late and step == max_steps + limit - 1:
            break
        results = []
        for call in calls[:1] if only_first else calls:
            tool = tools.get(call["name"])
            problem = name.format(call["name"]) if tool is None else None
            if problem is None and not unchecked:
                problem = check_arguments(tool.parameters, call["arguments"])
            if problem is None:
                try:
                    text = tool.function(**call["arguments"])
                except Exception as raised:
                    problem = str(raised)
            if problem is not None:
                text = error + problem
            if not (quiet and problem is not None):
                results.append({"name": call["name"], "text": text})
        results = results[::-1] if backwards else results
        out += [{"role": "tool", "content": [r]} for r in results] if apart else [{"role": "tool", "content": results}]
        if stop and any(r["text"].startswith("error") for r in results):
            break
    return out, "steps"


LOOPED_WRONG = {  # sentence -> options of `looped`
    "Each result has a message of its own; all results of a turn belong into one message.": dict(apart=True),
    "The calls of the last step are not run: their results are appended, then the loop ends.": dict(late=True),
    "There is one step too many: respond may be called max_steps times.": dict(limit=1),
    "There is one step too few: respond may be called max_steps times.": dict(limit=-1),
    "Only the first call of a turn is run: run all of them.": dict(only_first=True),
    "The results come in the opposite order; keep that of the calls.": dict(backwards=True),
    "The assistant's turns with calls are missing from the messages: append every message of respond.": dict(
        keep=False
    ),
    "A call that cannot be run ends the loop; go on, the model reads the error and may do better.": dict(stop=True),
    "The answer is missing from the messages: append it before you return.": dict(answered=False),
    "Arguments that do not fit reach the function; ask check_arguments first.": dict(unchecked=True),
    "The text of a call that cannot be run must begin with 'error: '.": dict(error=""),
    "A call that cannot be run leaves no result; the model must read why: append the error text.": dict(quiet=True),
}


def tool_loop(probe: Probe) -> None:
    number = probe.size(100, 999)
    log: list[tuple] = []
    schema = {
        "type": "object",
        "properties": {"key": {"type": "string"}, "n": {"type": "integer"}},
        "required": ["key"],
    }

    def fail(key: str, n: int = 0) -> str:
        raise {0: ValueError, 1: KeyError, 2: ZeroDivisionError}[n % 3](f"this tool raises on purpose, for {key}")

    tools = {
        name: Tool(name, "", schema, Spy(name, log, answer))
        for name, answer in {
            "read": lambda key, n=0: f"{key} is {number + n}",
            "fail": fail,
            "blank": lambda key, n=0: "",
        }.items()
    }

    def says(text: str, *calls: dict, **fields: Any) -> dict:
        return {"role": "assistant", "content": text, **({"tool_calls": list(calls)} if calls else {}), **fields}

    def call(name: str, **arguments: Any) -> dict:
        return {"name": name, "arguments": arguments}

    question = {"role": "user", "content": f"What is {number}?"}
    done = says(f"It is {number}.")

    def case(
        name: str, turns: list[dict], max_steps: int | None = None, before: Sequence[dict] = (), layer: str = "value"
    ) -> None:
        start = [*before, question]
        steps = 40 if max_steps is None else max_steps
        wrong = {sentence: looped(turns, tools, start, steps, **options) for sentence, options in LOOPED_WRONG.items()}
        log.clear()
        expected, finish = looped(turns, tools, start, steps)
        ran, seen = list(log), []
        log.clear()

        respond = Script(turns, seen, steps)
        given, kept = copy.deepcopy(start), copy.deepcopy(start)
        result = probe.call(respond, dict(tools), given, *([] if max_steps is None else [max_steps]))
        probe.require(
            given == kept,
            "property",
            "tool_loop changed the messages that it was given: work on a new list, such as list(messages).",
        )
        messages, end = probe.pair(result, ["messages", "finish"])
        probe.require(
            not isinstance(messages, str),
            "type",
            "The results have changed places: end with `return messages, finish`.",
        )
        probe.equal(
            f"messages ({name})",
            messages,
            expected,
            layer=layer,
            mistakes={sentence: found for sentence, (found, _) in wrong.items()} | worded(expected),
        )
        probe.require(
            messages is not given, "property", "tool_loop returned the very list that it was given; return a new one."
        )
        probe.equal(
            f"finish ({name})",
            end,
            finish,
            layer=layer,
            mistakes={
                'The loop ended without an answer: the finish is "steps".': "answer" if finish == "steps" else "",
                'The loop ended with an answer: the finish is "answer".': "steps" if finish == "answer" else "",
            },
        )
        asked = [i for i, m in enumerate(expected) if m["role"] == "assistant" and i >= len(start)]
        for at, (view, until) in enumerate(zip(seen, asked)):
            probe.require(
                view == expected[:until],
                "property",
                f"At step {at}, counted from 0, respond was given {len(view)} messages, expected {until}: all "
                "messages so far, the results of the calls too.",
            )
        probe.require(
            len(seen) == len(asked),
            layer,
            f"respond was called {len(seen)} times, expected {len(asked)}: once for each step.",
        )
        probe.require(
            len(log) == len(ran),
            "property",
            f"The functions of the tools ran {len(log)} instead of {len(ran)} times: each call is run once, and none "
            "whose tool is unknown or whose arguments do not fit.",
        )
        probe.require(
            log == ran,
            "property",
            "The functions of the tools were called with other arguments or in another order than the model asked for.",
        )

    case("an answer at once", [done])
    case("one call", [says("", call("read", key="a")), done])
    case("two calls", [says("Wait.", call("read", key="a"), call("read", key="b", n=2)), done])
    case("two rounds", [says("", call("read", key="a")), says("", call("read", key="b"), call("read", key="c")), done])
    case(
        "a longer conversation",
        [says("", call("read", key="a")), done],
        before=[
            {"role": "user", "content": "Hi"},
            says("Hello."),
            {"role": "user", "content": "Go on"},
            says("", call("read", key="z")),
            {"role": "tool", "content": [{"name": "read", "text": "old"}]},
            says("So."),
        ],
    )
    case("an unknown tool", [says("", call("write", key="a")), done])
    case(
        "an unknown tool among others",
        [says("", call("read", key="a"), call("write", key="b"), call("read", key="c")), done],
    )
    case("an argument is missing", [says("", call("read", n=1)), done])
    case("arguments of the wrong type", [says("", call("read", key=7), call("read", key="a")), done])
    case("an argument too many", [says("", call("read", key="a", more=1)), done])
    case("a tool that raises", [says("", call("fail", key="a"), call("read", key="b")), done])
    case("other exceptions", [says("", call("fail", key="a", n=1), call("fail", key="b", n=2)), done], layer="property")
    case("the same call twice", [says("", call("read", key="a"), call("read", key="a")), done], layer="property")
    case("an empty text", [says("", call("blank", key="a")), done], layer="property")
    case(
        "more keys in a message",
        [says("", call("read", key="a"), reasoning="hm"), says("42", reasoning="so")],
        layer="property",
    )
    case("at most three steps", [says("", call("read", key="a"))], 3)
    case("an answer at the last step", [says("", call("read", key="a")), says("", call("read", key="b")), done], 3)
    case(
        "two calls a step, and a turn before",
        [says("", call("read", key="a"), call("read", key="b"))],
        2,
        before=[{"role": "user", "content": "Hi"}, says("Hello.")],
    )
    case("one step", [says("", call("read", key="a")), done], 1, layer="edge case")
    case("one step, an answer", [done], 1, layer="edge case")
    case("an empty list of calls", [says(f"{number}", tool_calls=[]), says("too late")], layer="edge case")
    case("an answer without text", [says(""), says("too late")], layer="edge case")
    case("40 steps by default", [says("", call("read", key="a"))], layer="edge case")


def worded(expected: list[dict]) -> dict[str, list[dict]]:
    """Sentence -> messages in which the results are told in another form."""

    def told(change: Callable[[dict], Any]) -> list[dict]:
        return [
            {**m, "content": [change(r) for r in m["content"]]}
            if m["role"] == "tool" and isinstance(m["content"], list)
            else m
            for m in expected
        ]

    texts = [
        {**m, "content": "\n".join(r["text"] for r in m["content"])} if m["role"] == "tool" else m for m in expected
    ]
    as_user = [{**m, "role": "user"} if m["role"] == "tool" else m for m in expected]
    rebuilt = [{"role": m["role"], "content": m["content"]} for m in expected]
    return {
        'The results stand in the message as one text; its content is a list of {"name", "text"}.': texts,
        'The results are texts; each is a dict {"name": ..., "text": ...}.': told(lambda r: r["text"]),
        "The results lack the names of the tools that were called.": told(lambda r: {"text": r["text"]}),
        'The results have another role; it is "tool".': as_user,
        "A message of respond has lost some of its keys, such as its tool_calls: append it as it is.": rebuilt,
        "The name of the unknown tool is missing from the text 'error: there is no tool NAME'.": told(
            lambda r: {**r, "text": re.sub("(there is no tool) .*", r"\1", r["text"])}
        ),
    }


# 14.3


def rewarded(
    episodes: Sequence[dict],
    *,
    skip: str = "none",
    penalty: float = -0.5,
    each: bool = False,
    added: bool = False,
    ended: bool = True,
    violated: bool = True,
    shared: bool = True,
    weight: float = 0.2,
    error: float | None = None,
    state: bool = True,
    floor: bool = False,
    sign: int = -1,
    only_right: bool = False,
    any_state: bool = False,
    free: bool = False,
) -> list:
    """What `tool_reward` should give; the options make the mistakes that the check knows.

    skip: "drop" leaves episodes with an error out; each: -0.5 for each violation; added: to the rest; ended: the agent
    must have ended; violated: violations count; shared: bad calls by their share, else by number; error: for None;
    only_right: format taken off only where the goal was reached; free: not where a rule was broken; floor: never < 0.
    """
    found = []
    for e in episodes:
        if e["finish"] == "error":
            if skip != "drop":
                found.append(error)
            continue
        reached = (not state or e["state"] == e["goal"]) and (not ended or e["finish"] == "answer")
        if any_state:
            reached = all(e["state"].get(k) == v for k, v in e["goal"].items()) and e["finish"] == "answer"
        value = float(reached)
        if violated and e["violations"]:
            cost = penalty * (len(e["violations"]) if each else 1)
            value = value + cost if added else cost
        bad = (e["bad_calls"] / e["calls"] if e["calls"] else 0) if shared else e["bad_calls"]
        if not (only_right and not reached) and not (free and e["violations"]):
            value += sign * weight * bad
        found.append(max(value, 0.0) if floor else value)
    return found


REWARDED_WRONG = {  # sentence -> options of `rewarded`
    'An episode with finish "error" gets a number; it says nothing about the agent: give None.': dict(error=0.0),
    'Episodes with finish "error" are left out of the list; there is one entry for each episode, None for these.': dict(
        skip="drop"
    ),
    'A conversation that was cut off is paid for its state; only with finish "answer" can there be a 1.0.': dict(
        ended=False
    ),
    "An episode with violations is not punished: with one or more the value is -0.5, whatever was reached.": dict(
        violated=False
    ),
    "Each violation costs 0.5; it is -0.5 once, however many there are.": dict(each=True),
    "The 0.5 is taken off what was reached; with a violation the value is -0.5 itself.": dict(added=True),
    "With a violation the value is 0; it is -0.5.": dict(penalty=0.0),
    "With a violation the value is +0.5; it is -0.5.": dict(penalty=0.5),
    "A bad call costs the whole 0.2; it is 0.2 times their share, bad_calls / calls.": dict(shared=False),
    "Bad calls are not taken off: 0.2 times their share.": dict(weight=0.0),
    "Bad calls are taken off in full; it is 0.2 times their share.": dict(weight=1.0),
    "Bad calls are added; they are taken off.": dict(sign=1),
    "Bad calls are taken off only where the goal was reached; they always are.": dict(only_right=True),
    "Bad calls are not taken off where a rule was broken; they always are.": dict(free=True),
    "No reward is below 0 in yours; a violation, or bad calls without success, make it negative.": dict(floor=True),
    "A conversation that ended in another state than the goal gets 1.0: the state must equal the goal.": dict(
        state=False
    ),
    "Only the goal's entries are looked for; what the state has beyond them makes it another one: use ==.": dict(
        any_state=True
    ),
}


def tool_reward(probe: Probe) -> None:
    number = probe.size(10, 99)
    goal = {f"O{number}": {"status": "cancelled"}, "B10": {"status": "open", "day": number}}
    other = {f"O{number}": {"status": "open"}, "B10": {"status": "open", "day": number}}

    def episode(
        finish: str = "answer",
        state: dict = goal,
        broken: Sequence = (),
        calls: int = 4,
        bad: int = 0,
        goal: dict = goal,
    ) -> dict:
        return {
            "finish": finish,
            "state": copy.deepcopy(state),
            "goal": copy.deepcopy(goal),
            "violations": list(broken),
            "calls": calls,
            "bad_calls": bad,
        }

    def case(name: str, *episodes: dict, layer: str = "value") -> None:
        given, before = list(episodes), copy.deepcopy(list(episodes))
        values = probe.call(None, None, episode=given)
        probe.require(given == before, "property", "tool_reward changed the episodes that it was given.")
        expected = rounded(rewarded(episodes))
        probe.equal(
            f"rewards ({name})",
            numbers(probe, values),
            expected,
            layer=layer,
            mistakes={sentence: rounded(rewarded(episodes, **options)) for sentence, options in REWARDED_WRONG.items()},
        )

    look, own = (3, "look"), (5, "owner")
    few, many = probe.size(1, 4), probe.size(5, 9)
    case("reached", episode())
    case("not reached", episode(state=other))
    case("several", episode(), episode(state=other), episode(bad=1))
    case("cut off in the goal", episode("steps"), episode("length"), episode("steps", other))
    case("a violation", episode(broken=[look]), episode(state=other, broken=[look]))
    case("two violations", episode(broken=[look, own]), episode("steps", broken=[own, own, look]))
    case("an error", episode("error"), episode(), episode("error", other, [look]))
    case("bad calls", episode(calls=many, bad=few), episode(state=other, calls=many, bad=few), episode(calls=3, bad=3))
    case("bad calls and a violation", episode(broken=[own], calls=many, bad=few), episode("steps", calls=many, bad=2))
    case(
        "no calls", episode(calls=0), episode(state=other, calls=0), episode(broken=[look], calls=0), layer="edge case"
    )
    case("more in the state", episode(state={**goal, "B99": {"status": "open"}}), layer="edge case")
    case("less in the state", episode(state={"B10": goal["B10"]}), layer="edge case")
    case("nothing to do", episode(state={}, goal={}), episode("steps", {}, goal={}), layer="edge case")
    case("no episodes", layer="edge case")
    drawn = [
        episode(
            ("answer", "steps", "length", "error")[probe.size(0, 3)],
            (goal, other)[probe.size(0, 1)],
            [look] * (probe.size(0, 3) // 2),
            calls,
            probe.size(0, calls),
        )
        for calls in (probe.size(1, 9) for _ in range(30))
    ]
    case("drawn episodes", *drawn, layer="property")
    values = probe.call(["a"], ["b"], episode=drawn[:1], problem=[number], more=None)
    probe.equal("rewards (with other columns)", numbers(probe, values), rounded(rewarded(drawn[:1])), layer="property")


def numbers(probe: Probe, values: Any) -> Any:
    """A list of rewards in 9 digits; tells what is no number."""
    if not isinstance(values, (list, tuple)):
        return values
    for value in values:
        probe.require(
            value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)),
            "type",
            f"A reward is {value!r:.60}, a {type(value).__name__}; expected a float, or None for an error.",
        )
    return rounded(values)


def rounded(values: Sequence) -> list:
    return [None if value is None else round(float(value), 9) for value in values]


# 14.4

RULES = ("look", "owner", "shipped", "basic", "confirm")


def broken_rules(
    trace: Sequence[dict],
    customer: str,
    *,
    rules: Sequence[str] = RULES,
    any_find: bool = False,
    failed_find: bool = False,
    later_find: bool = False,
    failed_writes: bool = False,
    first_only: bool = False,
    one_each: bool = False,
    shipped_any: bool = False,
    shipped_cancel: bool = False,
    basic_cancel: bool = False,
    yes_anywhere: bool = False,
    yes_case: bool = False,
    yes_strip: bool = True,
    yes_inside: bool = False,
    yes_exact: bool = False,
    no_number: bool = False,
    adjacent: bool = False,
    agent_any: bool = False,
    reuse: bool = False,
    spent_by_failed: bool = False,
    last_word: bool = False,
    ask_any: bool = False,
    finds_spend: bool = False,
    offset: int = 0,
    grouped: bool = False,
    all_calls: bool = False,
    per_number: bool = False,
) -> list[tuple[int, str]]:
    """What `violations` should give; the options make the mistakes that the check knows."""
    found: list[tuple[int, str]] = []
    for index, event in enumerate(trace):
        write = event["who"] == "tool" and event["name"] in ("cancel", "change")
        if all_calls:
            write = event["who"] == "tool"
        if not write or (event["record"] is None and not failed_writes):
            continue
        number, record = event["arguments"]["number"], event["record"] or {}
        finds = [
            e
            for e in (trace if later_find else trace[:index])
            if e["who"] == "tool"
            and e["name"] == "find"
            and (failed_find or e["record"] is not None)
            and (any_find or e["arguments"]["number"] == number)
        ]
        said = [(i, e) for i, e in enumerate(trace[:index]) if e["who"] != "tool"]
        answers = [(at, i, e) for at, (i, e) in enumerate(said) if e["who"] == "customer"]

        def is_yes(text: str) -> bool:
            text = text.lstrip() if yes_strip else text
            text = text if yes_case else text.lower()
            return text.strip() == "yes" if yes_exact else "yes" in text if yes_inside else text.startswith("yes")

        agreed = False
        for at, i, e in answers if yes_anywhere else answers[-1:]:
            before = [x for _, x in said[:at]]
            if adjacent:
                before = [x for x in trace[max(i - 1, 0) : i] if x["who"] != "tool"]
            if ask_any:
                before = [x for x in before if x["who"] == "agent" and number in x["text"]]
            if agent_any:
                before = [x for x in before if x["who"] == "agent"]
            asked = before and (before[-1]["who"] == "agent") and (no_number or number in before[-1]["text"])
            between = [
                x
                for x in trace[i:index]
                if x["who"] == "tool"
                and (x["name"] in ("cancel", "change") or finds_spend)
                and (spent_by_failed or x["record"] is not None)
                and (not per_number or x["arguments"]["number"] == number)
            ]
            agreed |= bool(is_yes(e["text"]) and asked and (reuse or not between))
        if last_word and said and said[-1][1]["who"] == "agent":
            agreed = False
        broken = {
            "look": not finds,
            "owner": record.get("owner") != customer,
            "shipped": record.get("status") == "shipped"
            and (shipped_any or record.get("kind") == "order")
            and (not shipped_cancel or event["name"] == "change"),
            "basic": record.get("fare") == "basic" and (basic_cancel or event["name"] == "change"),
            "confirm": not agreed,
        }
        names = [rule for rule in rules if broken[rule]]
        found += [(index + offset, rule) for rule in (names[:1] if one_each else names)]
        if first_only and found:
            break
    return sorted(found, key=lambda pair: (RULES.index(pair[1]), pair[0])) if grouped else found


VIOLATED_WRONG = {  # sentence -> options of `broken_rules`
    "A find of another record is taken for a look at this one: compare the numbers.": dict(any_find=True),
    "A find that failed (its record is None) is taken for a look.": dict(failed_find=True),
    "A find after the write is taken for a look: only earlier events count.": dict(later_find=True),
    "A write that failed (its record is None) is held against the rules; it changed nothing.": dict(failed_writes=True),
    "Only the first write with a violation is reported; look at every write.": dict(first_only=True),
    "Only one rule is reported for a write; name every rule that it breaks.": dict(one_each=True),
    "A shipped order was cancelled, and that is not reported: the rule forbids cancel and change.": dict(
        shipped_cancel=True
    ),
    "The rule 'shipped' is for orders; yours holds it against a booking.": dict(shipped_any=True),
    "A basic booking may be cancelled; only changing it is forbidden.": dict(basic_cancel=True),
    "A yes from earlier is taken: the customer's last words before the write must be the yes.": dict(yes_anywhere=True),
    "A yes in capitals counts too.": dict(yes_case=True),
    "White space before the yes does not count.": dict(yes_strip=False),
    "The customer's words must begin with yes; more may follow it.": dict(yes_exact=True),
    "The customer's words must begin with yes; yours may have it anywhere.": dict(yes_inside=True),
    "The agent's question must have the number of the record that is written.": dict(no_number=True),
    "A call between the agent's question and the yes does not matter: look for the last thing *said*.": dict(
        adjacent=True
    ),
    "The last thing said before the yes must be the agent's; yours skips what the customer said in between.": dict(
        agent_any=True
    ),
    "The question must be the last thing said before the yes; yours may be any earlier one.": dict(ask_any=True),
    "A yes is used twice: it is good for one write.": dict(reuse=True),
    "A yes is good for one write of any record; yours counts the writes of this record only.": dict(per_number=True),
    "A failed write uses up the yes; only writes that changed something do.": dict(spent_by_failed=True),
    "A find uses up the yes; only writes do.": dict(finds_spend=True),
    "What the agent says after the yes takes it back in yours; only the customer can.": dict(last_word=True),
    "The indices are counted from 1; count from 0.": dict(offset=1),
    "The violations are in the order of the rules; they come in the order of the events.": dict(grouped=True),
    "find is held against the rules; only cancel and change are.": dict(all_calls=True),
    **{f"A violation of the rule {rule!r} is missing.": dict(rules=[r for r in RULES if r != rule]) for rule in RULES},
    "For one event the rules come in the order of the table: look, owner, shipped, basic, confirm.": dict(
        rules=RULES[::-1]
    ),
}


def violations(probe: Probe) -> None:
    customer, stranger = (("ann", "bob"), ("eve", "ann"), ("bob", "eve"))[probe.size(0, 2)]
    numbers_ = [f"{kind}{probe.size(10, 54) + 45 * late}" for kind, late in (("O", 0), ("B", 0), ("O", 1), ("B", 1))]
    order, booking, second, other = numbers_

    def record(number: str, **fields: Any) -> dict:
        kind = {"kind": "order"} if number[0] == "O" else {"kind": "booking", "fare": "flexible"}
        return {"number": number, "owner": customer, "status": "open", **kind, **fields}

    def tool(name: str, number: str, **fields: Any) -> dict:
        return {"who": "tool", "name": name, "arguments": {"number": number}, "record": record(number, **fields)}

    def failed(name: str, number: str) -> dict:
        return {**tool(name, number), "record": None}

    def agent(text: str) -> dict:
        return {"who": "agent", "text": text}

    def says(text: str) -> dict:
        return {"who": "customer", "text": text}

    hello, yes = says(f"I am {customer}. Please cancel {order}."), says("yes")

    def ask(number: str) -> dict:
        return agent(f"Shall I do it with {number}?")

    def case(name: str, trace: list[dict], layer: str = "value") -> None:
        given, before = copy.deepcopy(trace), copy.deepcopy(trace)
        found = probe.call(given, customer)
        probe.require(given == before, "property", "violations changed the trace that it was given.")
        pairs = [entry for entry in found if isinstance(entry, (tuple, list))] if isinstance(found, list) else []
        probe.require(
            not any(isinstance(value, float) for pair in pairs for value in pair),
            "type",
            "A pair of the list has a float (or NaN); expected an index and the name of a rule, such as (3, 'look').",
        )
        probe.equal(
            f"violations ({name})",
            found,
            broken_rules(trace, customer),
            layer=layer,
            mistakes={
                sentence: broken_rules(trace, customer, **options) for sentence, options in VIOLATED_WRONG.items()
            }
            | {
                "The pairs have changed places: (index, rule).": [
                    (rule, index) for index, rule in broken_rules(trace, customer)
                ],
                "The list has the rules alone; give pairs (index, rule).": [
                    rule for _, rule in broken_rules(trace, customer)
                ],
            },
        )

    case("all in order", [hello, tool("find", order), ask(order), yes, tool("cancel", order), agent("Done.")])
    case("nothing looked at", [hello, ask(order), yes, tool("cancel", order)])
    case("another record looked at", [hello, tool("find", booking), ask(order), yes, tool("cancel", order)])
    case("looked at afterwards", [hello, ask(order), yes, tool("cancel", order), tool("find", order)])
    case("the find failed", [hello, failed("find", order), ask(order), yes, tool("cancel", order)])
    case("a stranger's", [hello, tool("find", order), ask(order), yes, tool("cancel", order, owner=stranger)])
    for verb in ("cancel", "change"):
        case(
            f"{verb} what is shipped",
            [hello, tool("find", order), ask(order), yes, tool(verb, order, status="shipped")],
        )
        case(
            f"{verb} a basic booking",
            [hello, tool("find", booking), ask(booking), yes, tool(verb, booking, fare="basic")],
        )
        case(f"{verb} a flexible booking", [hello, tool("find", booking), ask(booking), yes, tool(verb, booking)])
    case("nobody asked", [hello, tool("find", order), tool("cancel", order)])
    case("no", [hello, tool("find", order), ask(order), says("no, yes is what I said before"), tool("cancel", order)])
    case("another number", [hello, tool("find", order), ask(second), yes, tool("cancel", order)])
    case("a yes to nothing", [hello, tool("find", order), says("yes"), tool("cancel", order)])
    second_only = [
        hello,
        tool("find", order),
        tool("find", second),
        ask(order),
        yes,
        tool("cancel", order),
        ask(second),
        yes,
    ]
    case("the second of two writes", [*second_only, tool("cancel", second, owner=stranger)])
    case("cancelled already", [hello, tool("find", order), ask(order), yes, tool("change", order, status="cancelled")])
    case(
        "one yes, two writes",
        [hello, tool("find", order), ask(order), yes, tool("change", order), tool("cancel", order)],
    )
    case(
        "one yes, two records",
        [
            hello,
            tool("find", order),
            tool("find", second),
            ask(f"{order} and {second}"),
            yes,
            tool("cancel", order),
            tool("cancel", second),
        ],
    )
    case(
        "two times yes",
        [
            hello,
            tool("find", order),
            tool("find", second),
            ask(order),
            yes,
            tool("cancel", order),
            ask(second),
            yes,
            tool("cancel", second),
        ],
    )
    case(
        "the yes is taken back", [hello, tool("find", order), ask(order), yes, says("No, wait."), tool("cancel", order)]
    )
    case(
        "everything at once",
        [
            hello,
            tool("cancel", order, owner=stranger, status="shipped"),
            tool("change", booking, owner=stranger, fare="basic"),
        ],
    )
    case("more words", [hello, tool("find", order), ask(order), says("yes, please"), tool("cancel", order)], "property")
    case("capitals", [hello, tool("find", order), ask(order), says("YES, please"), tool("cancel", order)], "property")
    case("white space", [hello, tool("find", order), ask(order), says("\n  yes"), tool("cancel", order)], "property")
    between = [hello, tool("find", order), ask(order), tool("find", second), yes, tool("cancel", order)]
    case("a call before the yes", between, "property")
    after = [hello, tool("find", order), ask(order), yes, tool("find", order), tool("cancel", order)]
    case("a call after the yes", after, "property")
    case(
        "the customer speaks twice",
        [hello, tool("find", order), ask(order), says("Well."), yes, tool("cancel", order)],
        "property",
    )
    case(
        "the agent goes on",
        [hello, tool("find", order), ask(order), agent("Please say yes or no."), yes, tool("cancel", order)],
        "property",
    )
    case(
        "the agent speaks after the yes",
        [hello, tool("find", order), ask(order), yes, agent("One moment."), tool("cancel", order)],
        "property",
    )
    case(
        "the customer names the number",
        [tool("find", order), says(f"Please cancel {order}."), yes, tool("cancel", order)],
        "property",
    )
    case(
        "a failed write",
        [hello, tool("find", order), ask(order), yes, failed("cancel", order), tool("cancel", order)],
        "property",
    )
    case("only failed writes", [hello, failed("cancel", order), failed("change", booking)], "property")
    case(
        "finds alone",
        [hello, tool("find", order, owner=stranger, status="shipped"), tool("find", booking, fare="basic")],
        "property",
    )
    case(
        "a yes long ago",
        [
            hello,
            tool("find", order),
            tool("find", second),
            ask(second),
            yes,
            tool("cancel", second),
            ask(order),
            says("maybe"),
            tool("cancel", order),
        ],
        "property",
    )
    case(
        "looked at long ago",
        [tool("find", other), *[says("Hm."), agent("Yes?")] * 4, ask(other), yes, tool("change", other)],
        "property",
    )
    case("a write at the beginning", [tool("cancel", order)], "edge case")
    case("no events", [], "edge case")
    case("words alone", [hello, agent("No."), yes], "edge case")

    def agreed(answer: str, question: str = f"Shall I do it with {order}?", **fields: Any) -> list[dict]:
        return [hello, tool("find", order, **fields), agent(question), says(answer), tool("cancel", order, **fields)]

    case("an owner in capitals", agreed("yes", owner=customer.title()), "edge case")
    case("an owner with a longer name", agreed("yes", owner=customer + "a"), "edge case")
    case("an owner with a shorter name", agreed("yes", owner=customer[:-1]), "edge case")
    case("more letters after yes", agreed("yesssir"), "edge case")
    for answer in ("y", "yeah", "no\nyes", f"ok, {order}"):
        case(f"the answer {answer!r}", agreed(answer), "edge case")
    case("no question mark", agreed("yes", f"I will do it with {order}."), "edge case")
    case("the number in small letters", agreed("yes", f"Shall I do it with {order.lower()}?"), "edge case")
    case("the number in the yes alone", agreed(f"yes, {order}", "Shall I do it?"), "edge case")
    case("a yes before anything else", [yes, tool("find", order), tool("cancel", order)], "edge case")
    shipped = [hello, tool("find", booking), ask(booking), yes, tool("cancel", booking, status="shipped")]
    case("a booking that is shipped", shipped, "edge case")
    people, words = (customer, stranger), (yes, says("no"), ask(order), ask(booking), agent("Hm."))

    def drawn() -> dict:
        if probe.size(0, 1):
            return words[probe.size(0, len(words) - 1)]
        number = (order, booking)[probe.size(0, 1)]
        state = (
            {"status": ("open", "shipped")[probe.size(0, 1)]}
            if number == order
            else {"fare": ("basic", "flexible")[probe.size(0, 1)]}
        )
        event = tool(
            ("find", "cancel", "change")[probe.size(0, 2)], number, owner=people[probe.size(0, 3) // 3], **state
        )
        return event if probe.size(0, 4) else {**event, "record": None}

    case("a drawn trace", [drawn() for _ in range(60)], "property")


# What stands in for a learner's function: the package's own, behind the exercise's signature


def package_parser() -> Callable:
    from minim1.data.chat import parse_tool_calls

    return parse_tool_calls


def reference_loop() -> Callable:
    def tool_loop(respond, tools, messages, max_steps=40):
        messages = list(messages)
        for _ in range(max_steps):
            turn = respond(messages)
            messages.append(turn)
            if not turn.get("tool_calls"):
                return messages, "answer"
            # the package's Dialogue reads text and words its errors in its own way
            results = looped([turn], tools, [], 1)[0][1]
            messages.append(results)
        return messages, "steps"

    return tool_loop


def package_reward() -> Callable:
    from minim1.tasks.rewards import tool_reward

    return tool_reward


def package_violations() -> Callable:
    from minim1.tasks.desk import violations

    return violations


EXERCISES = (
    Exercise("14.1", "parse_calls", "Parser", parse_calls, package_parser),
    Exercise("14.2", "tool_loop", "Tool loop", tool_loop, reference_loop),
    Exercise("14.3", "tool_reward", "Reward of an episode", tool_reward, package_reward),
    Exercise("14.4", "violations", "Policy violations", violations, package_violations),
)
