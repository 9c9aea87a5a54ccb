"""Budget, curriculum and turns: what the experiments count, and both sides of each rule."""

import pytest

from minim1.agent import Dialogue, drive
from minim1.report.claims import experiment, reasoning
from minim1.report.experiments import begin, curriculum, desk, missing, serving, tools
from minim1.report.experiments import stored as stored_result
from minim1.tasks.desk import DeskAgent


def result(**arms):
    """A made-up result: arm -> values of seeds 0, 1, ..."""
    runs = {arm: {str(seed): value for seed, value in enumerate(found)} for arm, found in arms.items()}
    units = {arm: {seed: {"seconds": 1, "place": 0} for seed in found} for arm, found in runs.items()}
    return {"places": [{"date": "", "machine": {}, "versions": {}, "threads": 1}], "settings": {}, "runs": runs,
            "units": units}


def budgets(after_sft, after_rl):
    """A result of `serving` with accuracies at budgets 4, 40 and 80."""
    def curve(accuracies):
        return [{"budget": b, "accuracy": a, "thinking": 4.0, "format": 1.0} for b, a in zip((4, 40, 80), accuracies)]

    return stored_result("serving") | {"runs": stored_result("serving")["runs"] | {
        "budget, after SFT": {str(i): curve(a) for i, a in enumerate(after_sft)},
        "budget, after RL": {str(i): curve(a) for i, a in enumerate(after_rl)}}}


@pytest.mark.parametrize(("after_rl", "expected"), [
    ([(0.2, 0.7, 0.8), (0.2, 0.6, 0.8)], "holds"),
    ([(0.2, 0.7, 0.8), (0.2, 0.7, 0.8), (0.2, 0.8, 0.7)], "partly"),
    ([(0.2, 0.8, 0.8), (0.2, 0.8, 0.7)], "not at this scale"),
])
def test_a_budget_pays_when_every_seed_gains_more_than_without_rl(after_rl, expected):
    flat = [(0.2, 0.2, 0.2), (0.2, 0.2, 0.21)]
    assert reasoning._budget({"serving": budgets(flat, after_rl)}).verdict == expected


def test_a_budget_that_pays_as_much_without_rl_does_not_hold():
    same = [(0.2, 0.7, 0.8), (0.2, 0.7, 0.8)]
    assert reasoning._budget({"serving": budgets(same, same)}).verdict == "not at this scale"


def test_the_half_of_the_largest_budget_is_the_nearest_one():
    half, large = reasoning.doubling([{"budget": b} for b in serving.BUDGETS])
    assert (half["budget"], large["budget"]) == (44, 94)


def test_arranged_serving_adds_what_rounding_costs_to_the_bits_of_fp32():
    made = stored_result("serving")
    bits, rounded = made["runs"]["text"]["0"], serving.arranged(made)["rounded"]
    found = rounded["int8, M1's way"]["bits_per_byte"]
    assert found == pytest.approx([w + a for w, a in zip(bits["fp32"], bits["int8, M1's way"])], abs=1e-9)
    assert [len(rounded["4 bits"]["accuracy"][family]) for family in serving.FAMILIES] == [10, 3, 3, 3]


def test_every_order_has_the_same_problems():
    """Those of the curriculum, in all rollouts together, are those of mixing from the start."""
    seen = {arm: [p.prompt for step in range(16) for p in curriculum.problems(plan, step, seed=0)]
            for arm, plan in curriculum.GENERAL.items()}
    mixed, later = seen[reasoning.MIXED], seen[reasoning.LATER]
    assert len(mixed) == 256 and sorted(mixed) == sorted(later) == sorted(seen[reasoning.ABRUPT])
    assert mixed[:16] != later[:16] == seen[reasoning.ALONE][:16]
    assert [p.family for p in curriculum.problems([0, 4], 1, 0, prompts=5)] == ["add", "sort", "recall", "add", "pair"]


def curricula(**ends):
    """A result of `curriculum`, two seeds: last word of an arm -> general at the start, reasoning before the end and at
    it, general at the end."""
    def record(reason, general):
        return {"rollout": 0, "accuracy": {"pair": reason, "add": general, "sort": general, "recall": general}}

    arms = {}
    for arm in curriculum.GENERAL:
        start, before, end, after = ends.get(arm.split()[-1], (0.6, 0.8, 0.8, 0.6))
        arms[arm] = [[record(0.2, start), record(before + d, start), record(end + d, after + d)] for d in (0, 0.01)]
    return {"curriculum": result(**arms)}


@pytest.mark.parametrize(("ends", "expected"), [
    ({}, "not at this scale"),  # nothing is forgotten
    ({"alone": (0.6, 0.8, 0.8, 0.4)}, "holds"),
    ({"general": (0.6, 0.8, 0.5, 0.6)}, "holds"),
    ({"alone": (0.6, 0.8, 0.8, 0.4), "mixed": (0.6, 0.8, 0.7, 0.6)}, "partly"),  # worse than from the start
    ({"alone": (0.6, 0.8, 0.8, 0.4), "mixed": (0.6, 0.8, 0.8, 0.5)}, "partly"),  # loses general tasks
    ({"alone": (0.6, 0.8, 0.8, 0.4), "mixed": (0.6, 0.8, 0.7, 0.5)}, "not at this scale"),
])
def test_a_curriculum_has_to_keep_what_a_control_forgets(ends, expected):
    assert reasoning._curriculum(curricula(**ends)).verdict == expected


def test_the_desk_counts_turns_until_the_script_would_do_another_thing():
    served, dialogue = desk.conversation(3, 2)
    goal = served.goal()
    messages = drive(DeskAgent(served.customer), dialogue).messages
    turns = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
    assert desk.right_turns(served.customer, messages) == (len(turns), False)
    changed = [*messages[: turns[2]], messages[turns[2]] | {"content": "hm"}, *messages[turns[2] + 1 :]]
    assert desk.right_turns(served.customer, changed) == (2, True)
    assert desk.succeeded(served, goal, dialogue)
    cut_off = Dialogue([], finish="steps")
    assert not desk.succeeded(served, goal, cut_off)


def test_an_agent_that_slips_only_fails_where_it_left_the_script():
    for seed in range(100):
        served, dialogue = desk.conversation(seed, 2)
        goal = served.goal()
        drive(DeskAgent(served.customer, 0.2, seed), dialogue)
        wrong = desk.right_turns(served.customer, dialogue.messages)[1]
        assert wrong or desk.succeeded(served, goal, dialogue)


def test_shares_of_a_length_by_hand():
    record = {"successes": [4, 2, 4], "trials": 4, "right": 18, "wrong": 2}
    assert reasoning.wrong_turns(record) == pytest.approx(0.1)
    assert reasoning.success(record) == pytest.approx(10 / 12)
    assert reasoning.every_time(record) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("successes", "wrong", "expected"), [
    (([3, 4], [4, 3]), (2, 30), "holds"),  # as often right as before
    (([3, 4], [1, 1]), (2, 2), "partly"),  # less often, from more turns of the same quality
    (([3, 4], [1, 1]), (2, 30), "not at this scale"),
    (([1, 1], [1, 1]), (2, 2), "not at this scale"),  # no more than by refusing always
])
def test_tool_use_holds_over_turns_if_success_or_at_least_the_turns_do(successes, wrong, expected):
    def seed(offset):
        return [{"requests": requests, "turns": 3.0 * requests, "refusals": 0.25, "trials": 4,
                 "successes": [count - offset for count in counts], "right": 100 + offset, "wrong": bad}
                for requests, counts, bad in zip((2, 6), successes, wrong)]

    made = {"desk": result(**{desk.ARM: [seed(0), seed(1)]}), "tools": stored_result("tools")}
    assert reasoning._turns(made).verdict == expected


def test_chains_have_a_turn_more_than_look_ups():
    first = reasoning.chain_lengths(stored_result("tools"))[0]
    chains = tools.stored()["runs"][0]["chains"]
    assert [record["turns"] for record in first] == [hops + 1 for hops in tools.CHAINS]
    assert [record["right"] + record["wrong"] for record in first] == chains["turns"]


@pytest.mark.parametrize("row", reasoning.ROWS, ids=lambda row: row.name)
def test_rows_can_be_drawn(row):
    planned = {name: experiment(name) for name in row.experiments}
    made = {name: begin(each, "cpu", each.path()) for name, each in planned.items()}
    if any(next(missing(each, made[name]), None) for name, each in planned.items()):
        pytest.skip("not measured yet")
    assert row.assess(made).measured[0].values and row.draw(made).data
