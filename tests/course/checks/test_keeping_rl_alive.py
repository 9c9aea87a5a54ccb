"""The instruments of chapter 13: unusual right solutions pass, and the experiments measure what they say."""

import math

import numpy as np
import pytest
import torch

from minim1.course.checking import run_check
from minim1.course.checks import find
from minim1.report.experiments import judge, windows
from minim1.report.experiments import mismatch as measured
from minim1.train.checkpoint import load
from minim1.train.losses import cispo_loss


def numpy_mismatch(logprobs, old_logprobs, mask):
    pick = mask.numpy().astype(bool)
    x, y = (z.detach().to(torch.float64).numpy()[pick] for z in (logprobs, old_logprobs))
    p, q = np.exp(x), np.exp(y)
    pearson = float(np.corrcoef(p, q)[0, 1]) if np.ptp(p) > 0 and np.ptp(q) > 0 else float("nan")
    return dict(pearson=pearson, mean_dp=float(np.abs(p - q).mean()), max_dp=float(np.abs(p - q).max()),
                mean_dlogp=float(np.abs(x - y).mean()))


def stop_by_cumulative_sums(probabilities, lengths, *, window=3000, threshold=0.99):
    rows, tokens = probabilities.shape
    sure = (probabilities > threshold) & (torch.arange(tokens) < lengths[:, None])
    total = torch.cat([torch.zeros(rows, 1), sure.double().cumsum(1)], 1)
    if window > tokens:
        return lengths.clone()
    full = total[:, window:] - total[:, :-window] == window
    return torch.where(full.any(1), full.double().argmax(1) + window, lengths)


def gate_by_numpy(perplexities, lengths, window, *, patience=3, tolerance=0.02, closeness=0.9):
    p99, change = float(np.quantile(lengths.numpy(), 0.99)), math.inf
    if len(perplexities) >= 2 * patience:
        old, new = np.array(perplexities[-2 * patience :], dtype=float).reshape(2, patience).mean(1)
        change = float(abs(new / old - 1))
    return bool(change <= tolerance and p99 >= closeness * window), change, p99


def bias_by_polyfit(lengths, successes, *, window=6, min_growth=0.02, max_gain=0.01):
    n = len(lengths)
    growth, gain = (torch.zeros(n, dtype=torch.float64) for _ in range(2))
    for t in range(window - 1, n):
        for out, y in ((growth, lengths.double().log()), (gain, successes.double())):
            out[t] = float(np.polyfit(np.arange(window), y[t + 1 - window : t + 1].numpy(), 1)[0])
    ready = torch.arange(n) > window - 2
    return ready & (growth > min_growth) & (gain < max_gain), growth, gain


@pytest.mark.parametrize("exercise_id, function", [
    ("13.1", numpy_mismatch), ("13.2", stop_by_cumulative_sums), ("13.3", gate_by_numpy), ("13.4", bias_by_polyfit),
])
def test_unusual_right_solutions_pass(exercise_id, function):
    result = run_check(find(exercise_id), function, (0, 1, 2, 3))
    assert result.status == "passed", result


def test_a_common_mode_changes_nothing_in_fp32_and_is_repaired_by_an_fp32_head():
    run = load("shipped")
    rollout = measured.sample(run, 0, 8, tokens=16)
    plain = measured.read(run.model, rollout, at_once=True).logprobs
    measured.common_mode(run.model, rollout.input_ids, 180)
    gaps = {}
    for fp32 in (True, False):
        with measured.head(run.model, fp32):
            readings = [measured.read(run.model, rollout, at_once=x, bf16=True).logprobs for x in (True, False)]
        gaps[fp32] = measured.mismatch(*readings, rollout.mask)["mean_dp"]
    torch.testing.assert_close(measured.read(run.model, rollout, at_once=True).logprobs, plain, atol=1e-3, rtol=0)
    assert gaps[True] < gaps[False] / 5


def test_replay_uses_the_experts_of_the_rollout():
    run = load("shipped")
    rollout = measured.sample(run, 0, 4, tokens=8)
    chosen = measured.read(run.model, rollout, at_once=True)
    replayed = measured.read(run.model, rollout, at_once=True, replay=chosen.expert_ids.flip(-1))
    assert not measured.flips(chosen.expert_ids, replayed.expert_ids).any()
    torch.testing.assert_close(replayed.logprobs, chosen.logprobs, atol=1e-5, rtol=0)


def test_the_repetition_stop_of_generation_is_the_rule():
    from minim1.generation import Sampling, generate

    run = load("shipped")
    prompt = [run.tokenizer.encode("import os\nimport sys\n")]
    settings = dict(max_new_tokens=48, temperature=0.1)
    free = generate(run.model, prompt, Sampling(**settings))
    stopped = generate(run.model, prompt, Sampling(**settings, repetition_window=12, repetition_probability=0.9))
    probabilities = free.logprobs[free.mask].exp().unsqueeze(0)
    kept = windows.repetition_stop(probabilities, torch.tensor([48]), window=12, threshold=0.9)
    assert len(stopped.completions[0]) == kept.item()


def test_the_window_grows_only_through_the_gate(monkeypatch):
    monkeypatch.setattr(windows, "stage_gate", lambda *a, **options: (True, 0.0, 0.0))
    records = windows.train("plain", 0, 3, prompts=2, samples=2, updates=1, windows=(12, 16))
    assert [r["window"] for r in records] == [12, 16, 16]
    monkeypatch.setattr(windows, "stage_gate", lambda *a, **options: (False, math.inf, 0.0))
    records = windows.train("plain", 0, 2, prompts=2, samples=2, updates=1, windows=(12, 16))
    assert [r["window"] for r in records] == [12, 12]


def test_a_loss_per_answer_is_a_factor_on_the_advantages():
    torch.manual_seed(0)
    logprobs, mask = torch.randn(3, 6), torch.arange(6) < torch.tensor([[2], [4], [6]])
    advantages = torch.tensor([[1.0], [-1.0], [0.5]]).expand(3, 6)
    tokens, sequences = mask.sum().item(), 3
    factor = tokens / sequences / mask.sum(1, keepdim=True)
    totals = dict(total_tokens=tokens, total_sequences=sequences)
    loss = cispo_loss(logprobs, logprobs, advantages * factor, mask, **totals).loss
    expected = -torch.stack([(a * x)[m].mean() for a, x, m in zip(advantages, logprobs, mask)]).mean()
    torch.testing.assert_close(loss, expected)


def test_the_judge_is_recalibrated_after_the_first_alarm(monkeypatch):
    rings = iter([False, True, False])
    monkeypatch.setattr(judge, "length_bias", lambda *a, **options: [torch.tensor([next(rings)])] * 3)
    records = judge.train("watched", 0, 3, prompts=2, samples=2, updates=1)
    assert [r["bonus"] for r in records] == [3.0, 3.0, 0.0]
