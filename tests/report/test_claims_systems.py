"""Time, memory and communication: what the experiments count, and what the rules make of numbers on either side."""

import pytest
import torch

from minim1.model.decoder import MiniM1
from minim1.report.bench.models import our_loss
from minim1.report.claims import systems
from minim1.report.experiments import lasp, length, long_context

TINY = length.Sizes(32, 4, (16, 32), (16, 32), (16,), calls=1, steps=1)


# Linear in the length


def test_a_slope_is_that_of_the_upper_octaves():
    points = [(n, 7.0 * n**1.5) for n in (8, 16, 32, 64)]
    assert length.slope(points) == pytest.approx(1.5)
    assert length.slope([(2, 1000.0), (4, 1000.0), *points], octaves=3) == pytest.approx(1.5)
    assert length.slope([(1, 3.0), (2, 6.0), (4, 24.0)], octaves=1) == pytest.approx(2)


@pytest.mark.parametrize("network", length.NETWORKS)
def test_a_filled_cache_is_as_large_as_one_that_has_read_and_can_be_read_from(network):
    model = MiniM1(length.config(network, TINY))
    filled, read = length.filled_cache(model, 40), length.prefill(model, torch.zeros(1, 40, dtype=torch.long))
    assert filled.nbytes() == read.nbytes() and filled.length == read.length == 40
    assert model.new_step()(torch.zeros(1, dtype=torch.long), filled).isfinite().all() and filled.length == 41


def test_a_cache_grows_with_softmax_layers_only():
    found = {network: length.measure(network, 0, TINY) for network in length.NETWORKS}
    state, pair = 4 * 4 * 8 * 8, 4 * 2 * 8  # bytes: a state of 4 heads; a token's key and value, one head for four
    assert found["pure lightning"]["cache"] == [(16, 8 * state), (32, 8 * state)]
    assert found["hybrid"]["cache"] == [(16, 7 * state + 16 * pair), (32, 7 * state + 32 * pair)]
    assert found["pure softmax"]["cache"] == [(16, 8 * 16 * pair), (32, 8 * 32 * pair)]
    for passes in found.values():
        assert all(value > 0 for points in passes.values() for _, value in points)


def test_training_is_that_of_the_next_token_loss():
    model, ids = MiniM1(length.config("hybrid", TINY)), torch.arange(20).view(1, 20)
    length.train(model, ids)
    length.train(model, ids)  # the gradients of the first call are gone
    gradients = torch.autograd.grad(our_loss(model, ids), list(model.parameters()))
    for parameter, gradient in zip(model.parameters(), gradients):
        torch.testing.assert_close(parameter.grad, gradient)


def made_length(lightning=1.0, softmax=1.9, decode=0.0, hybrid=1.6):
    """A result whose slopes are these."""
    def points(power):
        return [[n, float(n) ** power] for n in (512, 1024, 2048, 4096)]

    def passes(power, decode, cache):
        return {"prefill": points(power), "training": points(power), "decode": points(decode), "cache": points(cache),
                "peak": points(1)}

    runs = {"pure lightning": passes(lightning, decode, 0), "hybrid": passes(hybrid, 0.4, 0.9),
            "pure softmax": passes(softmax, 0.9, 1)}
    return {"length": {"runs": {network: {str(seed): run for seed in range(3)} for network, run in runs.items()}}}


@pytest.mark.parametrize("slopes, verdict", [
    ({}, "holds"), ({"lightning": 1.14}, "holds"), ({"lightning": 1.16}, "not at this scale"),
    ({"decode": 0.16}, "partly"), ({"softmax": 1.2}, "partly"), ({"hybrid": 2.0}, "holds"),
])
def test_the_rule_for_linear(slopes, verdict):
    found = systems._linear(made_length(**slopes))
    assert found.verdict == verdict
    headline = found.measured[0]
    assert len(headline.values) == 3 and headline.median == pytest.approx(slopes.get("lightning", 1.0))


# A million tokens


@pytest.mark.parametrize("layers", [long_context.PURE, long_context.HYBRID, long_context.TWIN])
def test_the_arithmetic_of_the_cache_is_what_a_short_text_fills(layers):
    tokens, held, peak = long_context.measure_memory(long_context.narrow_model(layers), 96)
    assert (tokens, held) == (96, long_context.cache_bytes(layers, 96)) and peak > held
    state, pair = 4 * 16 * 16, 4 * 2 * 16
    assert long_context.cache_bytes(layers, 1000) == layers.count("L") * state + layers.count("S") * 1000 * pair


def made_long_context(seconds=7.0, far=0.95, read=long_context.MILLION, held=None):
    run = {stage: [1.0, 1.0, 0.97, 0.9, 0.9, far] for stage in ("trained short", "second stage", systems.STAGE)}
    memory = {layers: [[512, held or long_context.cache_bytes(layers, 512), 10**6]]
              for layers in ("LLLLLLLL", "LLLLLLLS", "SSSSSSSS")}
    prefills = {"LLLLLLLL": [[8192, 0.06, 8192], [read // 2, seconds / 2, 8192], [read, seconds, 8192]],
                "LLLLLLLS": [[n, 1e-5 * n + 1e-9 * n * n, n] for n in (512, 1024, 2048, 4096)]}
    return {"long_context": {
        "settings": {"lengths": [64, 128, 256, 512, 1024, 2048], "staged": 256},
        "runs": {**{f"prefill {layers}": {"0": points} for layers, points in prefills.items()},
                 **{f"memory {layers}": {"0": points} for layers, points in memory.items()},
                 **{f"needles {arm}": {"10": run, "11": run} for arm in long_context.ARMS}},
    }}


@pytest.mark.parametrize("numbers, verdict", [
    ({}, "holds"), ({"far": 0.89}, "partly"), ({"seconds": 3601.0}, "not at this scale"),
    ({"read": 2**19}, "not at this scale"), ({"held": 1}, "not at this scale"),
])
def test_the_rule_for_a_million(numbers, verdict):
    assert systems._million(made_long_context(**numbers)).verdict == verdict


def test_hours_for_a_million_follow_the_fit():
    found = {each.what: each.values for each in systems._million(made_long_context()).measured}
    hours = next(values[0] for what, values in found.items() if "hours" in what)
    assert hours == pytest.approx((1e-5 * 2**20 + 1e-9 * 4**20) / 3600, rel=1e-6)


def test_a_result_arranged_by_part_is_what_the_arms_hold():
    arranged = long_context.stored()
    assert arranged["prefill"]["points"][long_context.PURE][-1][0] == 2**20
    assert arranged["needles"]["seeds"] == list(long_context.SEEDS)
    assert len(arranged["needles"]["runs"]["half turned"]) == 3
    assert set(arranged["shipped"]["right"]) == {str(filler) for filler in long_context.FILLERS}
    assert all({"machine", "versions", "threads"} <= part.keys() for part in arranged.values())


# One all-gather


def test_ranks_receive_states_and_decays_and_nothing_else_is_counted():
    found = lasp.run("2 ranks", 0, "smoke")
    state, decays = 4 * lasp.BATCH * lasp.HEADS * lasp.HEAD_DIM**2, 4 * lasp.HEADS
    assert found["LASP"]["received"] == [0, state] and found["LASP+"]["received"] == [state + decays] * 2
    assert found["LASP"]["exchanges"] == found["LASP+"]["exchanges"] == 1 and found["lengths"] == [31, 30]
    assert all(found[form][kind] < systems.ROUNDING for form in ("LASP", "LASP+") for kind in ("error", "state_error"))


def made_lasp(error=1e-7, chained=3, gathered=1):
    forms = {"LASP": (chained, [0, 8, 8, 8]), "LASP+": (gathered, [24] * 4)}
    run = {form: {"error": error, "state_error": 0.0, "exchanges": exchanges, "received": received}
           for form, (exchanges, received) in forms.items()}
    return {"lasp": {"runs": {"4 ranks": {"0": run, "1": run}}}}


@pytest.mark.parametrize("numbers, verdict", [
    ({}, "mechanism shown by construction"), ({"error": 2e-5}, "not at this scale"), ({"gathered": 2}, "partly"),
    ({"chained": 1}, "partly"),
])
def test_the_rule_for_lasp(numbers, verdict):
    found = systems._lasp(made_lasp(**numbers))
    assert found.verdict == verdict and found.measured[2].values == [4.0, 4.0]


def test_every_row_draws_what_it_is_given():
    pytest.importorskip("plotly")
    results = made_length() | made_long_context() | made_lasp()
    for row in systems.ROWS:
        assert len(row.draw(results).data) > 0
