"""The calculators: M1's published counts, the machine they are for, and hours and dollars."""

import dataclasses

import pytest

from minim1.config import M1Config, preset
from minim1.report import cost, memory

M1 = memory.sizes(preset("m1-456b"))
NODE = memory.NODE | dict(peak=1e15, utilisation=0.5, price=2.0)


def test_m1_in_bf16_is_as_large_as_its_published_index_says():
    assert memory.weight_bytes(M1, "bf16") == 912_210_767_872


def test_all_parameters_are_counted_once():
    assert sum(M1[name] for name in ("matrices", "embedding", "head", "routers", "norms")) == 456_089_655_296


def test_m1_fits_in_int8_with_a_million_tokens_and_not_in_bf16():
    assert memory.sequences(M1, 10**6) == 4 and memory.sequences(M1, 10**6, "bf16") == 0
    assert memory.longest(M1, "bf16") == 0


def test_with_softmax_in_all_layers_a_million_tokens_do_not_fit():
    config = dataclasses.replace(preset("m1-456b"), attn_type_list=(1,) * 80)
    assert 0 < memory.longest(memory.sizes(config)) < 10**6


@pytest.mark.parametrize("weights", memory.WEIGHTS)
def test_the_longest_sequence_just_fits(weights):
    sizes, machine = memory.sizes(M1Config()), {"gpus": 2, "gpu_bytes": 2 * 10**6}
    longest = memory.longest(sizes, weights, machine)
    assert memory.sequences(sizes, longest, weights, machine) == 1
    assert memory.sequences(sizes, longest + 1, weights, machine) == 0


def test_twice_the_gpus_halve_the_hours_and_leave_the_dollars():
    one = cost.cost_model(M1, NODE, context=1, tokens=1e9)
    two = cost.cost_model(M1, NODE | {"gpus": 16}, context=1, tokens=1e9)
    assert two["hours"] == pytest.approx(one["hours"] / 2) and two["dollars"] == pytest.approx(one["dollars"])
    assert one["dollars"] == pytest.approx(2 * 45_944_920_064 * 1e9 / (1e15 * 0.5) / 3600 * 2.0)


def test_training_takes_three_times_a_forward():
    forward, training = (cost.cost_model(M1, NODE, context=1, tokens=1e9, training=t)["hours"] for t in (False, True))
    assert training == pytest.approx(3 * forward)


def test_m1s_rl_comes_to_two_dollars_an_hour():
    hours = cost.gpu_hours(cost.M1_RL["days"], cost.M1_RL["gpus"])
    assert cost.M1_RL["dollars"] / hours == pytest.approx(2.07, abs=0.005)


def test_the_cost_of_a_run_is_that_of_its_seconds():
    stages = {"rl": {"tokens": 100, "training_seconds": 1800.0}}
    assert cost.run_cost(stages, 10, workers=2, price=0.5) == {
        "rl": {"flops": 8000, "flops_per_second": pytest.approx(8000 / 1800), "hours": 0.5, "dollars": 0.5}}
