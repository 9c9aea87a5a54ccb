"""Rows 5, 9 and 10: what the experiments compute, against hand-made numbers, and the verdicts beside each bar."""

import json
import math
from pathlib import Path

import pytest
import torch

from minim1.config import hybrid_pattern
from minim1.course.checks.mixture_of_experts import kept_copies
from minim1.model.decoder import MiniM1, SoftmaxAttention
from minim1.report.claims import network
from minim1.report.experiments import balance, extension, partial_rope, recall, token_drop
from minim1.report.experiments.long_context import needle_config

CHAPTER = Path(__file__).resolve().parents[2] / "chapters" / "07_mixture_of_experts.ipynb"


def result(experiment, runs):
    """A result with the experiment's settings; runs: arm -> values of seeds 0, 1, ..."""
    return {experiment.name: {
        "settings": json.loads(json.dumps(dict(experiment.settings))), "places": [{}],
        "runs": {arm: {str(seed): value for seed, value in enumerate(found)} for arm, found in runs.items()},
    }}


# ---------------------------------------------------------------- recall


def test_patterns_are_those_of_the_package():
    for every, name in ((8, "1 in 8"), (4, "1 in 4"), (1, "all")):
        assert tuple(int(kind == "S") for kind in recall.PATTERNS[name]) == hybrid_pattern(8, every)
    assert set(recall.PATTERNS["none"]) == {"L"} and len(recall.PATTERNS["none"]) == 8


def test_the_networks_of_a_setting_differ_in_their_layers_alone():
    for name, like in (("tight, eight layers", "LL"), ("roomy, eight layers", "LLLL")):
        kept = {(s.pairs, s.hidden_size, s.head_dim, s.postnorm, s.learning_rate, s.batch, s.steps)
                for s in recall.SETTINGS[name].values()}
        old = recall.SETTINGS[name.split(",")[0]][like]
        assert [each[:-2] for each in kept] == [  # rows and steps follow from the time
            (old.pairs, old.hidden_size, old.head_dim, old.postnorm, old.learning_rate)]


def recalled(pure, hybrid):
    def unit(arm, accuracy):
        name, rival = arm.split(": ")
        setting = vars(recall.SETTINGS[name][rival])
        return {"setting": setting, "curve": [[0, 0.06], [setting["steps"], accuracy]]}

    ends = {"tight, eight layers: none": pure, "tight, eight layers: 1 in 8": hybrid}
    return result(recall.EXPERIMENT, {
        arm: [unit(arm, accuracy) for accuracy in ends.get(arm, [0.9] * len(pure))] for arm in recall.EXPERIMENT.arms})


@pytest.mark.parametrize("pure, hybrid, said", [
    ([0.5, 0.79, 0.6], [0.95, 1.0, 1.0], "holds"), ([0.5, 0.8, 0.6], [0.95, 1.0, 1.0], "partly"),
    ([0.5, 0.7, 0.6], [0.94, 1.0, 1.0], "partly"), ([0.5, 0.99, 0.6], [0.95, 0.99, 1.0], "not at this scale"),
])
def test_recall_holds_only_if_every_seed_is_on_its_side_of_the_bars(pure, hybrid, said):
    found = network._recall(recalled(pure, hybrid))
    assert found.verdict == said and list(found.measured[0].values) == hybrid
    assert "500 steps" in found.sentence and str(found.measured[1]) in found.sentence


# ---------------------------------------------------------------- balance and capacity


def chapters_dropped_share():
    cells = json.loads(CHAPTER.read_text(encoding="utf-8"))["cells"]
    [source] = ["".join(c["source"]) for c in cells if "".join(c["source"]).startswith("def dropped_share(")]
    space = {}
    exec(source, space)
    return space["dropped_share"]


def test_dropped_copies_are_counted_as_the_chapter_and_exercise_do():
    expert_ids = token_drop.random_routing(0, 1.0, tokens=64)
    counts = token_drop.copies(expert_ids, token_drop.EXPERTS)
    even = expert_ids[0].numel() // token_drop.EXPERTS
    assert counts.sum().item() == expert_ids.numel() and even * token_drop.EXPERTS == expert_ids[0].numel()
    for factor in (1.0, 1.5, 2.0):
        found = token_drop.drop_rates(counts, [factor])
        served = [kept_copies(group, int(factor * even)) for group in expert_ids]
        together = kept_copies(expert_ids.flatten(0, 1), int(factor * even) * len(expert_ids))
        assert found["local"] == pytest.approx([1 - torch.stack(served).double().mean().item()])
        assert found["global"] == pytest.approx([1 - together.double().mean().item()])
        assert found["local"] == [chapters_dropped_share()(counts, factor)]


def test_pooling_never_drops_more_and_saves_all_where_groups_complement_each_other():
    assert token_drop.drop_rates(torch.tensor([[6, 2], [2, 6]]), (1.0, 1.25, 1.5)) == {
        "local": [0.25, 0.125, 0.0], "global": [0.0, 0.0, 0.0]}
    alike = token_drop.drop_rates(torch.tensor([[6, 2], [6, 2]]), (1.0,))
    assert alike["local"] == alike["global"] == [0.25]
    for counts in torch.randint(0, 50, (20, 8, 32)):  # groups of unlike size, too
        rates = token_drop.drop_rates(counts)
        assert all(g <= own + 1e-6 for own, g in zip(rates["local"], rates["global"]))


def test_skewed_groups_differ_more_and_dealing_moves_tokens_whole():
    spread = {skew: token_drop.copies(token_drop.random_routing(0, skew), 32).double().std(0).mean()
              for skew in (0, 1)}
    assert spread[1] > 3 * spread[0]
    routed = torch.arange(2 * 3 * 4 * 2).view(2, 3, 4, 2)
    dealt = token_drop.dealt(routed, 0)
    assert dealt.shape == routed.shape and not torch.equal(dealt, routed)
    assert sorted(dealt[1].flatten(0, 1).tolist()) == routed[1].flatten(0, 1).tolist()
    assert torch.equal(dealt[1] - dealt[0], torch.full((3, 4, 2), 24))  # all layers in one way


COLLAPSED, EVEN = [0.5, 0.5] + [0.0] * 6, [0.125] * 8


def balanced(without=COLLAPSED, with_it=EVEN, local=0.2, together=0.1):
    def records(arm):
        load = {"no balance loss": without}.get(arm.split(", ")[1], with_it)
        return [{"step": 1, "loss": 1.0, "load": [load, load] if arm.startswith("model") else load}]

    drops = {"local": [local] * 11, "global": [together] * 11}
    chance = {"local": [0.05] * 11, "global": [0.05] * 11}
    return {**result(balance.EXPERIMENT, {arm: [records(arm)] * 3 for arm in balance.EXPERIMENT.arms}),
            **result(token_drop.EXPERIMENT, {arm: [chance if arm in network.ALIKE else drops] * 3
                                             for arm in token_drop.EXPERIMENT.arms})}


@pytest.mark.parametrize("changed, said", [
    ({}, "mechanism shown by construction"), ({"without": EVEN}, "partly"), ({"together": 0.2}, "partly"),
    ({"without": EVEN, "together": 0.2}, "not at this scale"),
])
def test_balance_needs_collapse_and_a_lower_drop(changed, said):
    found = network._balance(balanced(**changed))
    assert found.verdict == said and "5.0%" in found.sentence
    if not changed:
        assert found.measured[0].values == pytest.approx([1 / 3] * 3)


# ---------------------------------------------------------------- longer rows


def test_both_ways_read_as_many_tokens():
    staged, abrupt = (extension.plan(way) for way in ("staged", "abrupt"))
    assert staged[0] == abrupt[0] == (64, 300)
    assert [sum(tokens * steps for tokens, steps in way[1:]) for way in (staged, abrupt)] == [40 * 896] * 2
    assert staged[-1][0] == abrupt[-1][0] == 512


def test_the_base_grows_with_the_length_as_published():
    model = MiniM1(needle_config("LS", 8))
    [softmax] = [module for module in model.modules() if isinstance(module, SoftmaxAttention)]
    for tokens, base in ((64, extension.BASE), (64 * 16, 500 * extension.BASE)):
        extension.set_base(model, tokens)
        assert softmax.theta == pytest.approx(base)


def test_training_is_repeatable_and_alike_until_the_switch():
    plans = [(16, 2), (32, 1)], [(16, 2), (32, 1)], [(16, 2), (64, 1)]
    first, again, other = (extension.train(plan, 0) for plan in plans)
    assert first == again and first[0] == other[0] and first[1] != other[1]
    assert [len(record["norm"]) for record in first] == [2, 1] and first[0]["norm"][0] > 0


def lengthened(short, later, loss=1.0):
    return [{"tokens": 64, "norm": short, "loss": [loss] * len(short)},
            {"tokens": 512, "norm": later, "loss": [2 * loss] * len(later)}]


def test_growth_is_relative_to_the_last_short_steps():
    found = extension.growth(lengthened([9.0] * 10 + [2.0] * 50, [4.0, 1.0, 8.0]))
    assert found == {"max": 4.0, "median": 2.0, "learning": 4.5, "loss": 2.0}


@pytest.mark.parametrize("learning, largest, said", [(2.0, 10.1, True), (2.0, 9.9, False), (20.0, 19.0, False)])
def test_an_explosion_exceeds_ten_times_the_usual_and_all_of_learning(learning, largest, said):
    assert extension.exploded(lengthened([learning] + [1.0] * 50, [largest])) is said
    assert extension.exploded(lengthened([1.0] * 50, [1.0, math.nan]))


def extended(abrupt=30.0, staged=2.0, half=0.9, whole=0.2):
    runs = {"abrupt": abrupt, "staged": staged}
    grown = result(extension.EXPERIMENT, {
        way: [lengthened([3.0] + [1.0] * 50, [largest, 1.0]) for _ in range(3)] for way, largest in runs.items()})
    shares = {"half of the dims": half, "all dims": whole}
    return grown | result(partial_rope.EXPERIMENT, {
        arm: [{task: [1.0, 0.9, 0.9, 0.9, shares.get(arm, 0.5)] for task in ("content", "place")}] * 5
        for arm in partial_rope.ARMS})


@pytest.mark.parametrize("changed, said", [
    ({}, "holds"), ({"abrupt": 9.0}, "partly"), ({"staged": 11.0}, "partly"), ({"half": 0.79}, "partly"),
    ({"abrupt": 9.0, "half": 0.79}, "not at this scale"), ({"abrupt": 9.0, "whole": 0.95}, "not at this scale"),
])
def test_extension_needs_an_explosion_that_stages_avoid_and_half_rope_that_extrapolates(changed, said):
    found = network._extension(extended(**changed))
    assert found.verdict == said and found.measured[0].values[0] == changed.get("abrupt", 30.0)
    assert "16 times" in found.sentence


# ---------------------------------------------------------------- pictures and smoke


def test_pictures_have_the_seeds_of_each_line():
    made = (recalled([0.5] * 3, [1.0] * 3), balanced(), extended())
    for row, results, count in zip(network.ROWS, made, (8, 7, 6)):
        traces = [trace for trace in row.draw(results).data if trace.mode == "lines+markers"]
        assert len(traces) == count and all(len(trace.x) == len(trace.y) > 0 for trace in traces), row.name


@pytest.mark.parametrize("experiment, arm", [
    (recall, "tight, eight layers: 1 in 8"), (balance, "layer, nothing shared"), (partial_rope, "all dims"),
    (token_drop, "random, skew 1.0"), (extension, "staged"),
], ids=lambda each: each if isinstance(each, str) else each.EXPERIMENT.name)
def test_a_unit_runs_at_smoke_and_is_ready_for_json(experiment, arm):
    assert arm in experiment.EXPERIMENT.arms
    json.dumps(experiment.run(arm, 0, "smoke"), allow_nan=False)
