"""What the networks that read are, what they cost, and how their losses are judged."""

import math
from dataclasses import replace

import pytest
import torch

from minim1.config import M1Config
from minim1.data.corpus import TokenStream
from minim1.data.packing import heldout_windows, text_rows
from minim1.evaluate import bits_per_byte
from minim1.model.count import count
from minim1.model.decoder import MiniM1
from minim1.report.claims import reading as claims
from minim1.report.experiments import noise_scale, reading, scaling
from minim1.report.experiments.reading import (
    ARMS,
    PATTERNS,
    PLANS,
    SIZES,
    config,
    norm_arm,
)


def made_up(scale="cpu", seeds=(10, 11, 12), **ends):
    """A result in which every arm ends at 3 bits per byte, plus `ends[first word of the arm]`, plus 0.01 a seed."""
    steps = len(PLANS[scale].steps)
    end = {arm: 3 + ends.get(arm.split(",")[0].replace("-", "_"), 0.0) for arm in ARMS}
    curve = lambda arm, seed: [4.0] * (steps - 1) + [end[arm] + 0.01 * (seed - 10)]
    runs = {arm: {str(seed): {"bits_per_byte": curve(arm, seed), "corpus": ""} for seed in seeds} for arm in ARMS}
    return {"scale": scale, "runs": runs}


@pytest.mark.parametrize("scale", ["cpu", "gpu"])
@pytest.mark.parametrize("size", SIZES)
def test_patterns_have_equally_many_parameters(scale, size):
    sizes = [count(config(f"{pattern}, {size}", scale))["parameters"] for pattern in PATTERNS]
    assert max(sizes) / min(sizes) < 1.005


def test_matched_takes_the_nearest_width():
    softmax, hybrid = config("softmax, small"), config("hybrid, small")
    off = [abs(count(replace(softmax, intermediate_size=softmax.intermediate_size + by))["parameters"]
               - count(hybrid)["parameters"]) for by in (-1, 0, 1)]
    assert off[1] == min(off) and softmax.intermediate_size > hybrid.intermediate_size


def test_training_flops_by_hand():
    tiny = M1Config(hidden_size=16, intermediate_size=4, num_hidden_layers=2, attn_type_list=(0, 1),
                    num_attention_heads=1, num_key_value_heads=1, head_dim=16, num_local_experts=1,
                    num_experts_per_tok=1, block_size=32)
    lightning = 5 * 16 * 16 + 2 * 16 * 16 + 2 * 16 * 33 / 2  # weights, state, scores and values in half a block of 32
    softmax = 4 * 16 * 16 + 2 * 16 * (1 + 2 + 3 + 4) / 4
    feed_forward, head = 3 * 16 * 4 + 16, 16 * 1024
    assert reading.training_flops(tiny, 4) == 3 * 2 * (lightning + softmax + 2 * feed_forward + head)


@pytest.mark.parametrize("size", SIZES)
def test_experts_cost_what_the_dense_network_costs_but_for_the_router(size):
    mixed, dense = config(f"experts, {size}"), config(f"hybrid, {size}")
    router = (mixed.num_local_experts - 1) * mixed.hidden_size * mixed.num_hidden_layers
    assert reading.training_flops(mixed, 256) - reading.training_flops(dense, 256) == pytest.approx(6 * router)


def test_norms_differ_in_order_alpha_and_gain_alone():
    for depth in reading.DEPTHS:
        post, pre = (config(norm_arm(postnorm, depth)) for postnorm in (True, False))
        assert math.isclose(post.layernorm_mlp_alpha, (2 * depth) ** 0.25) and pre.layernorm_mlp_alpha == 1
        assert post.init_gain < 1 == pre.init_gain and post.attn_type_list == pre.attn_type_list
        assert count(post)["parameters"] == count(pre)["parameters"] and sum(post.attn_type_list) == max(1, depth // 8)


def test_loss_at_equal_flops_lies_on_the_line_of_the_dearer():
    assert reading.at_flops(1e6, [1e4, 1e8], [5.0, 3.0]) == pytest.approx(4.0)
    result = made_up(softmax=0.2)
    assert reading.differences(result, "hybrid, small", "softmax, small") == pytest.approx([-0.2] * 3)
    (first, *_), hybrid, softmax = (reading.differences(result, "hybrid, small", "softmax, small", equal="flops"),
                                    *(reading.compute(f"{name}, small") for name in ("hybrid", "softmax")))
    assert hybrid[-1] < softmax[-1]
    there = math.log(softmax[-1] / hybrid[-1]) / math.log(softmax[-1] / softmax[-2])  # of the way back from 3.2 to 4
    assert first == pytest.approx(3.0 - (3.2 + there * 0.8))


def test_verdict_by_seeds_and_medians():
    assert claims.judged([[-0.1, -0.2], [-0.1, -0.1]]) == "holds"
    assert claims.judged([[-0.1, -0.2, 0.1], [-0.1, -0.1, -0.1]]) == "partly"
    assert claims.judged([[-0.1, 0.2, 0.1], [-0.1, -0.1, -0.1]]) == "not at this scale"
    assert claims.judged([[0.01, 0.02]], tolerance=0.03) == "holds"


@pytest.mark.parametrize(("number", "ends", "expected"), [
    (6, {"softmax": 0.5}, "holds"), (6, {"hybrid": 0.01}, "holds"), (6, {"hybrid": 0.5}, "not at this scale"),
    (7, {"pre_norm": 0.1}, "holds"), (7, {"pre_norm": -0.1}, "not at this scale"),
    (8, {"experts": -0.1}, "holds"), (8, {"experts": 0.1}, "not at this scale"),
])
def test_rows_judge_made_up_results(number, ends, expected):
    row = next(row for row in claims.ROWS if row.number == number)
    found = row.assess({"reading": made_up(**ends)})
    assert found.verdict == expected and len(found.measured[0].values) == 3


def test_rows_work_on_one_seed_and_draw():
    results = {"reading": made_up("smoke", (10,))}
    assert claims.tolerance(results["reading"]) == 0
    for row in claims.ROWS:
        assert row.assess(results).sentence.endswith(".") and len(row.draw(results).data) >= 2


def test_along_asks_after_the_steps_and_both_losses_agree():
    ids = torch.randint(0, 1024, (2000,), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    stream = TokenStream(ids, torch.arange(2000, dtype=torch.int32) // 400)
    windows, model, tokenizer = heldout_windows(stream, 64, 4), MiniM1(scaling.config(16)), scaling.tokenizer()
    size = sum(tokenizer.byte_lengths[i] for i in windows.input_ids[windows.mask].tolist())

    def ask(step):
        nats = scaling.heldout_loss(model, windows) * windows.num_targets
        return step, nats / math.log(2) / size, bits_per_byte(model, tokenizer, windows)

    found = scaling.along(
        model, lambda step: text_rows(stream, seed=0, step=step, rows=2, length=64), (1, 3), ask, total=10)
    assert [step for step, *_ in found] == [1, 3] and found[0][1] > found[1][1]
    for _, ours, theirs in found:
        assert ours == pytest.approx(theirs, rel=1e-5)


def test_stored_laws_are_arranged_for_their_chapter():
    law, noise = scaling.stored(), noise_scale.stored()
    assert law["seeds"] == noise["seeds"] == [10, 11, 12] and law["multiplied"]["16"] == 27392
    assert {len(rows) for rows in law["losses"].values()} == {len(noise["points"])} == {3}
    assert {len(losses) for rows in law["losses"].values() for losses in rows} == {len(law["steps"])}
