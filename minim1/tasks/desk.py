"""A service desk in the manner of TAU-bench: a policy, a customer, a small database, tools, and a goal.

The tools do what they are told; whether they may is in the policy, and that the agent has to know. An episode is judged
by the state of the database at its end, compared with the goal, and by its trace (`violations`). The customer is a
script here; TAU-bench, as the M1 report ran it (Table 2), has a language model in that role and at most 40 steps.
"""

import copy
import json
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from minim1.tasks.tools import Tool, ToolMistake, format_turn, parameters

POLICY = """\
You serve one customer at a desk for orders and bookings. The rules:
look: find a record before you cancel or change it.
owner: cancel or change only records that the customer owns.
shipped: an order that is shipped can be neither cancelled nor changed.
basic: a booking with the fare basic can be cancelled, but not changed.
confirm: say what you will do, with the record's number, and do it only if the customer says yes; a yes is good once.
What the rules forbid you refuse, in words."""
CUSTOMERS = ("ann", "bob", "eve")
WRITES = ("cancel", "change")


@dataclass(frozen=True)
class Request:
    """What a customer wants: `verb` is "cancel" or "change" (to `day`)."""

    verb: str
    number: str
    day: int

    def __str__(self) -> str:
        return f"{self.verb} {self.number}" + (f" to day {self.day}" if self.verb == "change" else "")


@dataclass
class Desk:
    """One conversation's world. `records`: number -> record, changed by the tools; `trace`: events for `violations`.

    `say(words)` is the customer: yes to a question that has the wanted number in it, else no; after anything that is no
    question the next request, and None after the last.
    """

    customer: str
    records: dict[str, dict]
    requests: list[Request]
    trace: list[dict] = field(default_factory=list)
    done: int = 0

    def opening(self) -> str:
        """The customer's first words."""
        return self._said(f"I am {self.customer}. Please {self.requests[0]}.")

    def say(self, words: str) -> str | None:
        self.trace.append({"who": "agent", "text": words})
        if words.endswith("?"):
            return self._said("yes" if self.requests[self.done].number in words else "no")
        self.done += 1
        return self._said(f"Please {self.requests[self.done]}.") if self.done < len(self.requests) else None

    def tools(self) -> list[Tool]:
        """find, cancel and change."""

        def act(name: str, number: str, **arguments) -> str:
            record = self.records.get(number)
            refused = record is None or (name in WRITES and record["status"] == "cancelled")
            event = {"who": "tool", "name": name, "arguments": {"number": number, **arguments}}
            self.trace.append({**event, "record": None if refused else dict(record)})
            if refused:
                raise ToolMistake(f"There is no open record {number!r:.20}.")
            if name == "find":
                return json.dumps(record)
            apply(record, Request(name, number, arguments.get("day", 0)))
            return "done"

        def tool(name: str, description: str, **types: str) -> Tool:
            return Tool(name, description, parameters(number="string", **types), lambda **given: act(name, **given))

        return [tool("find", "Reads a record."), tool("cancel", "Cancels a record."),
                tool("change", "Moves a record to another day.", day="integer")]  # fmt: skip

    def goal(self) -> dict[str, dict]:
        """The records as they should be at the end, if called before anything is changed."""
        records = copy.deepcopy(self.records)
        for request in self.requests:
            record = records[request.number]
            if record["status"] != "cancelled" and not forbidden(request.verb, record, self.customer):
                apply(record, request)
        return records

    def _said(self, text: str) -> str:
        self.trace.append({"who": "customer", "text": text})
        return text


def apply(record: dict, request: Request) -> None:
    """Carry a request out, in place."""
    record |= {"status": "cancelled"} if request.verb == "cancel" else {"day": request.day}


def make_desk(seed: int, requests: int = 1) -> Desk:
    """A desk of six records and a customer with some requests, each for another record; depends on nothing else.

    About half of the requests have to be refused.
    """
    rng = random.Random(f"desk {seed} {requests}")
    customer, records = rng.choice(CUSTOMERS), {}
    while len(records) < 6:
        kind = rng.choice(("order", "booking"))
        number = f"{kind[0].upper()}{rng.randrange(10, 100)}"
        owner = customer if rng.random() < 0.85 else rng.choice([c for c in CUSTOMERS if c != customer])
        own = (
            {"status": rng.choice(("open", "shipped"))}
            if kind == "order"
            else {"status": "open", "fare": rng.choice(("basic", "flexible"))}
        )
        records[number] = {"number": number, "kind": kind, "owner": owner, **own, "day": rng.randrange(1, 29)}
    wanted = [
        Request(rng.choice(WRITES), number, rng.randrange(1, 29)) for number in rng.sample(list(records), requests)
    ]
    return Desk(customer, records, wanted)


def forbidden(verb: str, record: dict, customer: str) -> list[str]:
    """The rules about records that a write would break.

    >>> forbidden("change", {"kind": "booking", "owner": "ann", "status": "open", "fare": "basic"}, "bob")
    ['owner', 'basic']
    """
    rules = {
        "owner": record["owner"] != customer,
        "shipped": record["kind"] == "order" and record["status"] == "shipped",
        "basic": verb == "change" and record.get("fare") == "basic",
    }
    return [rule for rule, broken in rules.items() if broken]


def violations(trace: Sequence[dict], customer: str) -> list[tuple[int, str]]:
    """What an agent did against the policy: (index of the event, rule), in order.

    Events: {"who": "customer" or "agent", "text"}, or {"who": "tool", "name", "arguments", "record"} with the record
    as it was before the call, None if the call failed.

    >>> record = {"number": "O17", "kind": "order", "owner": "ann", "status": "open"}
    >>> violations([{"who": "tool", "name": "cancel", "arguments": {"number": "O17"}, "record": record}], "bob")
    [(0, 'look'), (0, 'owner'), (0, 'confirm')]
    """
    found, seen, asked, agreed = [], set(), "", ""  # agreed: the agent's words that the customer's yes is good for
    for index, event in enumerate(trace):
        if event["who"] == "agent":
            asked = event["text"]
        elif event["who"] == "customer":
            agreed = asked if event["text"].lstrip().lower().startswith("yes") else ""
            asked = ""
        elif event["record"] is not None:
            number = event["arguments"]["number"]
            if event["name"] == "find":
                seen.add(number)
            else:
                rules = ["look"] if number not in seen else []
                rules += forbidden(event["name"], event["record"], customer)
                rules += ["confirm"] if number not in agreed else []
                found += [(index, rule) for rule in rules]
                agreed = ""
    return found


class DeskAgent:
    """`respond(messages) -> completion`: an agent that keeps to the policy, but at each turn slips with a probability.

    A slip leaves a step out: it asks before it looks, does without asking, asks for what it should refuse, or says that
    something is done which is not.
    """

    def __init__(self, customer: str, slip: float = 0.0, seed: int = 0) -> None:
        self.customer, self.slip, self.rng = customer, slip, random.Random(seed)

    def __call__(self, messages: list[dict]) -> str:
        last, slips = messages[-1], self.rng.random() < self.slip
        if last["role"] == "user":
            wanted = re.search(r"Please (cancel|change) (\w+)(?: to day (\d+))?", last["content"])
            if wanted:
                self.request = Request(wanted[1], wanted[2], int(wanted[3] or 0))
                return self._ask() if slips else self._call("find")
            if last["content"] == "yes":
                return self._done() if slips else self._call(self.request.verb)
            return format_turn(f"Then {self.request.number} stays as it is.")
        text = last["content"][0]["text"]
        if not text.startswith("{"):
            return self._done() if text == "done" else format_turn(f"I cannot {self.request}.")
        record = json.loads(text)
        refuse = record["status"] == "cancelled" or forbidden(self.request.verb, record, self.customer)
        if refuse:
            return self._ask() if slips else format_turn(f"I may not {self.request}.")
        return self._call(self.request.verb) if slips else self._ask()

    def _ask(self) -> str:
        return format_turn(f"Shall I {self.request}?")

    def _done(self) -> str:
        return format_turn(f"Done: {self.request}.")

    def _call(self, name: str) -> str:
        arguments = {"number": self.request.number} | ({"day": self.request.day} if name == "change" else {})
        return format_turn(calls=[{"name": name, "arguments": arguments}])


def pass_hat_k(successes: int, trials: int, k: int) -> float:
    """pass^k of one task: the chance that k of its trials, drawn without replacement, all succeed; C(c, k) / C(n, k).

    >>> [round(pass_hat_k(6, 8, k), 3) for k in (1, 2, 4, 8)]
    [0.75, 0.536, 0.214, 0.0]
    """
    return math.comb(successes, k) / math.comb(trials, k)
