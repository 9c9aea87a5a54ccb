"""The desk: the faithful agent reaches every goal without a violation, and each way of slipping is seen."""

import math
from itertools import combinations

import pytest

from minim1.agent import Dialogue, drive
from minim1.tasks.desk import POLICY, DeskAgent, forbidden, make_desk, pass_hat_k, violations
from minim1.tasks.tools import run_call


def episode(seed, requests=1, slip=0.0):
    desk = make_desk(seed, requests)
    goal = desk.goal()
    messages = [{"role": "system", "content": POLICY}, {"role": "user", "content": desk.opening()}]
    dialogue = drive(DeskAgent(desk.customer, slip, seed), Dialogue(messages, desk.tools(), user=desk.say))
    return desk, goal, dialogue


@pytest.mark.parametrize("requests", (1, 3, 6))
def test_the_faithful_agent_reaches_the_goal(requests):
    refused = 0
    for seed in range(60):
        desk, goal, dialogue = episode(seed, requests)
        assert desk.records == goal and violations(desk.trace, desk.customer) == []
        assert dialogue.finish == "answer" and dialogue.steps <= 40
        refused += sum(bool(forbidden(r.verb, goal[r.number], desk.customer)) for r in desk.requests)
    assert 0.3 < refused / (60 * requests) < 0.7


def test_the_same_seed_gives_the_same_desk():
    assert make_desk(5, 2) == make_desk(5, 2) != make_desk(6, 2)


def test_slips_cost_goals_and_break_rules():
    found = [episode(seed, 4, slip=0.3) for seed in range(40)]
    assert any(desk.records != goal for desk, goal, _ in found)
    rules = {rule for desk, _, _ in found for _, rule in violations(desk.trace, desk.customer)}
    assert rules == {"look", "owner", "shipped", "basic", "confirm"}


def test_the_tools_obey_whoever_may_not():
    """Like TAU-bench's: what is forbidden is in the policy, not in the code."""
    desk = make_desk(0)
    for number, record in desk.records.items():
        assert run_call(desk.tools(), {"name": "cancel", "arguments": {"number": number}}).text == "done"
        assert record["status"] == "cancelled"
    assert not run_call(desk.tools(), {"name": "cancel", "arguments": {"number": number}}).ok
    assert not run_call(desk.tools(), {"name": "find", "arguments": {"number": "X99"}}).ok
    assert [event["record"] for event in desk.trace[-2:]] == [None, None]


RECORD = {"number": "O17", "kind": "order", "owner": "ann", "status": "open"}


def event(name, record=RECORD):
    return {"who": "tool", "name": name, "arguments": {"number": "O17"}, "record": record}


def said(who, text):
    return {"who": who, "text": text}


FOUND, ASKED, YES = event("find"), said("agent", "Shall I cancel O17?"), said("customer", " Yes, please")


@pytest.mark.parametrize(
    "trace, found",
    [
        ([FOUND, ASKED, YES, event("cancel")], []),
        ([FOUND, ASKED, YES, said("agent", "One moment."), event("cancel")], []),
        ([FOUND, ASKED, YES, event("cancel", None), event("cancel")], []),
        ([event("find", None), ASKED, YES, event("cancel")], [(3, "look")]),
        ([ASKED, YES, FOUND, event("cancel")], []),
        ([FOUND, ASKED, YES, event("cancel"), event("change")], [(4, "confirm")]),
        ([FOUND, ASKED, said("customer", "no"), event("cancel")], [(3, "confirm")]),
        ([FOUND, ASKED, YES, said("customer", "wait"), event("cancel")], [(4, "confirm")]),
        ([FOUND, ASKED, said("customer", "well"), YES, event("cancel")], [(4, "confirm")]),
        ([FOUND, said("agent", "Shall I cancel O18?"), YES, event("cancel")], [(3, "confirm")]),
        ([FOUND, YES, event("cancel")], [(2, "confirm")]),
        ([], []),
    ],
)
def test_violations(trace, found):
    assert violations(trace, "ann") == found


def test_rules_about_records():
    assert forbidden("cancel", RECORD | {"status": "shipped"}, "bob") == ["owner", "shipped"]
    assert forbidden("cancel", RECORD | {"kind": "booking", "fare": "basic"}, "ann") == []
    assert forbidden("change", RECORD | {"kind": "booking", "fare": "flexible"}, "ann") == []


def test_pass_hat_k_counts_the_draws_that_all_succeed():
    outcomes = [1, 1, 1, 0, 1]
    for k in range(1, 6):
        draws = list(combinations(outcomes, k))
        assert math.isclose(pass_hat_k(4, 5, k), sum(map(all, draws)) / len(draws))
