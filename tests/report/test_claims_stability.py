"""Rows 14 to 16: what the experiments compute against hand-made numbers, and the verdicts on both sides of each bar."""

import math

import pytest
import torch

from minim1.data.tokenizer import Tokenizer
from minim1.generation import Rollout
from minim1.report.claims import stability
from minim1.report.experiments import adam, mismatch, repetition, rounded, sft
from minim1.tasks import get_task
from minim1.tasks.pair import WAIT
from minim1.train.files import SHIPPED


def result(experiment, runs):
    """A result with the experiment's settings; runs: arm -> values of seeds 0, 1, ..."""
    return {experiment.name: {
        "settings": dict(experiment.settings), "places": [{}],
        "runs": {arm: {str(seed): value for seed, value in enumerate(found)} for arm, found in runs.items()},
    }}


@pytest.mark.parametrize("magnitude", [0.7, 1.0, 100.0, 128.0, 180.0, 255.0, 360.0])
def test_the_bf16_step_is_that_of_eight_significant_bits(magnitude):
    assert mismatch.bf16_step(magnitude) == 2.0 ** (math.floor(math.log2(magnitude)) - 7)


def test_logits_of_the_size_told_leave_the_bands_of_the_figure():
    for magnitude in (128.0, 180.0, 255.0):
        assert mismatch.bands(magnitude) == pytest.approx(stability.BANDS, abs=0.02)
    assert mismatch.bands(90.0) != pytest.approx(stability.BANDS, abs=0.02)
    assert mismatch.bands(360.0) != pytest.approx(stability.BANDS, abs=0.02)


def test_five_digits_keep_a_pearson_near_one():
    runs = {"0": [{"size": 0, "arm": "fp32", "pearson": 0.99999612345}]}
    kept = rounded(mismatch.swap(runs, "pearson", mismatch.APART))
    found = mismatch.arranged({"runs": {"heads": kept}, "places": [{}], "settings": {}})["heads"]
    assert found["0"][0]["pearson"] == pytest.approx(0.99999612345, abs=1e-10)


def heads(bf16, fp32):
    """A seed's rows; bf16, fp32: Pearson at each of the sizes."""
    return [{"size": size, "arm": arm, mismatch.APART: 1 - p}
            for arm, found in (("bf16, bf16 head", bf16), ("bf16, fp32 head", fp32))
            for size, p in zip(mismatch.SIZES, found)]


@pytest.mark.parametrize("bf16, fp32, verdict", [
    ([0.98, 0.98, 0.98, 0.98], [0.999] * 4, "holds"),
    ([0.9999, 0.995, 0.987, 0.95], [0.999] * 4, "mechanism shown by construction"),
    ([0.9999, 0.999, 0.998, 0.988], [0.999] * 4, "not at this scale"),
    ([0.9999, 0.995, 0.987, 0.95], [0.999, 0.99, 0.99, 0.96], "not at this scale"),
])
def test_the_rule_of_the_fp32_head(bf16, fp32, verdict):
    one_seed_agrees = heads([0.98] * 4, [0.9999] * 4)
    finding = stability._fp32_head(result(mismatch.EXPERIMENT, {"heads": [heads(bf16, fp32), one_seed_agrees]}))
    assert finding.verdict == verdict
    assert len(finding.measured[0].values) == 2


@pytest.mark.parametrize("scale, eps", [("unscaled", 1e-8), ("scaled", 1e-8), ("scaled", 1e-15)])
def test_the_first_update_is_the_gradient_over_its_size_plus_eps(scale, eps):
    tokenizer = Tokenizer.from_file(SHIPPED / "tokenizer.json")
    watched = adam.Watched(adam.make_model(tokenizer.vocab_size, 0), adam.Arm(scale, eps), 0, 10)
    watched.step(0, adam.make_batch(tokenizer, 0, 0))
    g = watched.optimizer.gradient.double()
    expected = (g / (g.abs() + eps)).square().mean().sqrt().item()
    assert watched.updates[0] == pytest.approx(expected, rel=0.02)  # small changes are rounded to the last digit
    assert (expected < 1e-5) == (scale == "scaled" and eps == 1e-8)
    assert watched.below[0] == (0.0 if scale == "unscaled" else pytest.approx(0.95, abs=0.05))


def test_the_constants_stay_in_their_range():
    over_time, between = adam.SCALES["over time"], adam.SCALES["between steps"]
    assert [over_time(step, 101, 0) for step in (0, 50, 100)] == pytest.approx([1e-10, 1e-11, 1e-12])
    drawn = [between(step, 200, 3) for step in range(200)]
    assert 1e-13 <= min(drawn) < 3e-13 and 3e-10 < max(drawn) <= 1e-9
    assert drawn == [between(step, 200, 3) for step in range(200)]


def losses(**learned):
    """What each arm learned, on two seeds; those that are not named: 2 nats. Keys: scale_eps or scale_beta2."""
    runs = {}
    for name, arm in adam.ARMS.items():
        kind = "eps" if arm.eps == 1e-8 else "beta2" if arm.beta2 == 0.999 else "recipe"
        fall = learned.get(f"{arm.scale.replace(' ', '_')}_{kind}", 2.0)
        value = {"steps": [0, 9], "heldout": [6.0, 6.0 - fall], "update": 0.1, "cosine": 0.1,
                 "gradients": {"50%": 1e-15}}
        runs[name] = [value, value]
    return result(adam.EXPERIMENT, runs)


@pytest.mark.parametrize("learned, verdict", [
    ({"scaled_eps": 0.01, "scaled_beta2": 1.0, "between_steps_beta2": 1.0, "over_time_beta2": 1.0}, "holds"),
    ({"scaled_eps": 0.01, "scaled_beta2": 1.0, "between_steps_beta2": 1.9, "over_time_beta2": 1.0}, "partly"),
    ({"scaled_eps": 0.01}, "partly"),
    ({"scaled_eps": 1.9}, "not at this scale"),
])
def test_the_rule_of_adam(learned, verdict):
    finding = stability._adam(losses(**learned))
    assert finding.verdict == verdict
    assert finding.measured[0].values == pytest.approx([learned["scaled_eps"] / 2] * 2)


def test_one_seed_that_learns_is_enough_against_a_setting():
    results = losses(scaled_eps=0.01)
    name = adam.Arm("scaled", 1e-8).name
    results["adam"]["runs"][name]["1"] = results["adam"]["runs"][adam.Arm("scaled").name]["1"]
    assert stability._adam(results).verdict == "not at this scale"


def test_runaway_answers_are_counted_by_the_rule():
    """Three answers with a window of 3: sure for 5 tokens, stopped already after 3, never sure for more than 2."""
    sure = [[1.0] * 5, [1.0] * 3 + [0.0] * 2, [1.0, 1.0, 0.5, 1.0, 1.0]]
    logprobs = torch.nn.functional.pad(torch.tensor(sure).clamp(min=1e-9).log(), (2, 0))  # prompts of two tokens
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1, 1]]).bool()
    rollout = Rollout(mask.long(), mask, logprobs, mask.long(), [[1] * 5, [1] * 3, [1] * 5],
                      ["length", "repetition", "stop"])
    assert repetition.runaway(rollout, 3) == pytest.approx({"looping": 2 / 3, "after_stop": 2 / 13})


def test_planted_loops_begin_where_a_first_try_failed():
    tokenizer, loops = Tokenizer.from_file(SHIPPED / "tokenizer.json"), 0
    (wait,) = tokenizer.encode(WAIT)
    for number in range(24):
        ids, _ = repetition.looping(tokenizer, number)
        usual = sft.document(tokenizer, sft.Arm(), get_task("pair").sample(number), number)[0]
        if ids == usual:
            continue
        assert number % 4 == 0 and ids.count(wait) == 120 and ids[-1] == wait
        assert ids[: ids.index(wait)] == usual[: ids.index(wait)]
        loops += 1
    assert 2 <= loops <= 6


def test_two_arms_are_one_run_until_the_rule_acts():
    small = dict(rollouts=1, prompts=2, samples=4, tokens=16, updates=2, window=17)
    without, ruled = (repetition.train(f"large step, {how}", 0, **small)[0] for how in ("without", "with"))
    timed = ("seconds", "rollout_seconds")
    assert {k: v for k, v in without.items() if k not in timed} == {k: v for k, v in ruled.items() if k not in timed}
    assert ruled["stopped"] == ruled["looping"] == 0 and len(ruled["grad_norms"]) in (0, 1, 2)


def rl(tokens, norm=1.0, reward=0.5, stopped=0.0):
    return [{"rollout": 1, "tokens": tokens, "seconds": 1.0, "reward": reward, "stopped": stopped, "looping": stopped,
             "grad_norms": [norm / 2, norm / 2, norm]}]


@pytest.mark.parametrize("own, planted, verdict", [
    (rl(80, 0.9, stopped=0.1), rl(100), "holds"),
    (rl(80, 1.1, stopped=0.1), rl(100), "partly"),
    (rl(120, 0.9, stopped=0.1), rl(100), "partly"),
    (rl(80, 0.9, reward=0.4, stopped=0.1), rl(100), "not at this scale"),
    (rl(100), rl(80, 0.9, stopped=0.1), "mechanism shown by construction"),
    (rl(100), rl(80, 1.1, stopped=0.1), "not at this scale"),
    (rl(80, 0.9), rl(100), "not at this scale"),  # the rule did nothing
])
def test_the_rule_of_the_repetition_stop(own, planted, verdict):
    runs = {"large step, without": [rl(100)] * 2, "large step, with": [own] * 2,
            "planted, without": [rl(100)] * 2, "planted, with": [planted] * 2}
    assert stability._repetition(result(repetition.EXPERIMENT, runs)).verdict == verdict


def test_one_seed_without_a_stop_is_enough_against_the_rule():
    better = rl(80, 0.9, stopped=0.1)
    runs = {"large step, without": [rl(100)] * 2, "large step, with": [better, rl(100)],
            "planted, without": [rl(100)] * 2, "planted, with": [rl(100)] * 2}
    assert stability._repetition(result(repetition.EXPERIMENT, runs)).verdict == "not at this scale"


def test_every_row_draws_its_numbers():
    pytest.importorskip("plotly")
    fig = stability._losses(losses(scaled_eps=0.01))
    assert min(y for trace in fig.data for y in trace.y) == 4.0 and len(fig.layout.annotations) == 4
    runs = {arm: [rl(100), rl(90, 3.0)] for arm in repetition.ARMS}
    assert max(y for trace in stability._stopped(result(repetition.EXPERIMENT, runs)).data for y in trace.y) == 100
    rows = heads([0.99] * 4, [0.999] * 4)
    fig = stability._common_modes(result(mismatch.EXPERIMENT, {"heads": [rows, rows]}))
    stairs = next(trace for trace in fig.data if trace.xaxis == "x2" and trace.name == "bf16 head")
    assert {round(y, 2) for y in stairs.y} == {0.05, 0.12, 0.27, 0.5, 0.73, 0.88, 0.95}
