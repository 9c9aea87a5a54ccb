"""Losses against independent references, and the traps that small trainers fall into."""

import math

import numpy as np
import pytest
import torch

from minim1.errors import UserError
from minim1.train.losses import (
    cispo_loss,
    dapo_loss,
    group_advantages,
    grpo_loss,
    next_token_loss,
    policy_loss,
    ppo_loss,
    reinforce_loss,
    token_logprobs,
    token_logprobs_and_entropy,
)
from minim1.train.settings import POLICY_LOSSES

LOSSES = sorted(POLICY_LOSSES)


def experience(drift=0.7, seed=0, dtype=torch.float64):
    """logprobs, old_logprobs, advantages, mask (5, 9): unequal lengths, a row without any sampled token."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=dtype)  # noqa: E731
    logprobs = -draw(5, 9).abs()
    old = logprobs - drift * draw(5, 9)
    advantages = draw(5, 1).expand(5, 9).clone()
    mask = torch.zeros(5, 9, dtype=torch.bool)
    for row, (start, end) in enumerate([(1, 9), (3, 5), (2, 8), (4, 4), (1, 2)]):
        mask[row, start:end] = True
    return logprobs.requires_grad_(), old, advantages, mask


def call(name, batch, **options):
    mask = batch[3]
    totals = dict(total_tokens=float(mask.sum()), total_sequences=float(len(mask)))
    return policy_loss(name)(*batch, **(totals | options))


def gradient(output, leaf):
    return torch.autograd.grad(output.loss, leaf)[0]


# ------------------------------------------------------------------------------------------- tokens


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0])
def test_entry_t_of_the_logprobs_belongs_to_token_t(temperature):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 6, 11, generator=generator)
    ids = torch.randint(11, (2, 6), generator=generator)
    got = token_logprobs(logits, ids, temperature)
    assert got.shape == (2, 6) and got[:, 0].tolist() == [0.0, 0.0]
    for row in range(2):
        for t in range(1, 6):
            z = logits[row, t - 1].double().numpy() / temperature
            expected = z[ids[row, t]] - np.log(np.exp(z - z.max()).sum()) - z.max()
            assert got[row, t].item() == pytest.approx(expected, abs=1e-5)


def test_logprobs_are_computed_in_fp32_at_least():
    ids = torch.tensor([[0, 1, 2]])
    assert token_logprobs(torch.randn(1, 3, 4).bfloat16(), ids).dtype == torch.float32
    assert token_logprobs(torch.randn(1, 3, 4).double(), ids).dtype == torch.float64


def test_entropy_belongs_to_the_distribution_the_token_was_drawn_from():
    logits = torch.zeros(1, 3, 8)
    logits[0, 1, 0] = 50.0  # token 2 is certain, token 1 uniform
    ids = torch.tensor([[1, 0, 0]])
    logprobs, entropy = token_logprobs_and_entropy(logits.requires_grad_(), ids)
    assert entropy[0].tolist() == pytest.approx([0.0, math.log(8), 0.0], abs=1e-6) and not entropy.requires_grad
    assert torch.equal(logprobs, token_logprobs(logits, ids))
    cold = token_logprobs_and_entropy(logits, ids, 0.02)  # at a temperature, both are those of the sharper distribution
    assert torch.equal(cold[1], token_logprobs_and_entropy(logits / 0.02, ids)[1])


def test_next_token_loss_counts_targets_only():
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 5, 7, generator=generator).requires_grad_()
    ids = torch.randint(7, (2, 5), generator=generator)
    mask = torch.tensor([[0, 1, 0, 1, 0], [0, 0, 0, 0, 1]]).bool()
    out = next_token_loss(logits, ids, mask, total_tokens=3)
    expected = sum(
        -torch.log_softmax(logits[row, t - 1].double(), -1)[ids[row, t]] for row, t in ((0, 1), (0, 3), (1, 4))
    ) / 3
    assert out.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert out.metrics["loss"].item() == out.loss.item() and not out.metrics["loss"].requires_grad
    touched = gradient(out, logits).abs().sum(-1) > 0
    assert touched.tolist() == [[True, False, True, False, False], [False, False, False, True, False]]


def test_next_token_loss_survives_minus_infinity_where_nothing_is_a_target():
    logits = torch.zeros(1, 4, 3)
    logits[0, 2] = torch.tensor([0.0, 0.0, -math.inf])
    logits.requires_grad_()
    mask = torch.tensor([[False, True, True, False]])
    out = next_token_loss(logits, torch.tensor([[0, 1, 1, 2]]), mask, total_tokens=2)
    assert out.loss.item() == pytest.approx(math.log(3))
    assert gradient(out, logits).isfinite().all()


# ------------------------------------------------------------------------------------------- CISPO


def test_on_policy_cispo_is_reinforce_and_caps_nothing():
    batch = experience(drift=0.0)
    ours, reference = call("cispo", batch), call("reinforce", batch)
    assert torch.equal(gradient(ours, batch[0]), gradient(reference, batch[0]))
    assert ours.metrics["clipped_share"] == 0 and ours.metrics["ratio"] == 1 and ours.metrics["ratio_max"] == 1


def test_gradient_is_capped_weight_times_advantage_and_the_weight_carries_none():
    logprobs, old, advantages, mask = batch = experience()
    ratio = (logprobs - old).exp().detach()
    cap = 1.5
    assert (ratio[mask] > cap).any() and (ratio[mask] < 0.5).any()
    expected = -torch.where(mask, ratio.clamp(max=cap) * advantages, 0.0) / mask.sum()
    torch.testing.assert_close(gradient(call("cispo", batch, max_weight=cap), logprobs), expected)


def test_the_cap_is_absolute_and_there_is_no_lower_bound():
    ratios = torch.tensor([[1.0, 0.01, 1.9, 2.1, 50.0]], dtype=torch.float64)
    old = torch.full_like(ratios, -3.0)
    logprobs = (old + ratios.log()).requires_grad_()
    mask = torch.tensor([[False, True, True, True, True]])
    out = cispo_loss(logprobs, old, torch.ones_like(old), mask, total_tokens=4, total_sequences=1, max_weight=2.0)
    weights = -gradient(out, logprobs) * 4
    assert weights[0].tolist() == pytest.approx([0.0, 0.01, 1.9, 2.0, 2.0])
    assert out.metrics["clipped_share"].item() == 0.5
    assert out.metrics["ratio_max"].item() == pytest.approx(50.0)


@pytest.mark.parametrize("cap", [0.2, 0.999, 0.0, -1.0, float("nan")])
def test_a_cap_below_one_is_refused(cap):
    """TRL's trap: `epsilon_high` unset caps every on-policy weight at 0.2."""
    with pytest.raises(UserError, match="max_weight"):
        call("cispo", experience(), max_weight=cap)


def test_a_cap_of_exactly_one_is_allowed():
    call("cispo", experience(), max_weight=1.0)


@pytest.mark.parametrize("seed", [0, 1, 2, 9, 11])
def test_uncapped_cispo_under_ppos_mask_is_ppo_clip(seed):
    """Report Eq. 6-7: PPO-clip is REINFORCE with importance weights and a hard mask."""
    logprobs, old, advantages, mask = experience(seed=seed)
    low, high = 0.2, 0.3
    ratio = (logprobs - old).exp().detach()
    lost = ((advantages > 0) & (ratio > 1 + high)) | ((advantages < 0) & (ratio < 1 - low))
    assert (lost & mask & (advantages > 0)).any() and (lost & mask & (advantages < 0)).any() and (~lost & mask).any()
    totals = dict(total_tokens=float(mask.sum()), total_sequences=5.0)
    ppo = ppo_loss(logprobs, old, advantages, mask, eps_low=low, eps_high=high, **totals)
    cispo = cispo_loss(logprobs, old, advantages, mask & ~lost, max_weight=math.inf, **totals)
    torch.testing.assert_close(gradient(cispo, logprobs), gradient(ppo, logprobs))
    assert ppo.metrics["clipped_share"].item() == pytest.approx((lost & mask).sum().item() / mask.sum().item())


def test_cispo_keeps_the_gradient_that_ppo_cuts():
    logprobs, old, advantages, mask = batch = experience(seed=1)
    ratio = (logprobs - old).exp().detach()
    fork = mask & (advantages > 0) & (ratio > 1.2)
    assert fork.any()
    assert (gradient(call("ppo", batch), logprobs)[fork] == 0).all()
    assert (gradient(call("cispo", batch), logprobs)[fork] != 0).all()


# ------------------------------------------------------------------------------------------- references


def reference_loss(name, batch, low, high, cap):
    """All objectives once more, token by token, in Python floats."""
    logprobs, old, advantages, mask = (tensor.tolist() for tensor in batch)
    sequences, tokens = [], 0
    for row in range(len(mask)):
        terms = []
        for t, sampled in enumerate(mask[row]):
            if not sampled:
                continue
            r, a = math.exp(logprobs[row][t] - old[row][t]), advantages[row][t]
            if name == "cispo":
                terms.append(min(r, cap) * a * logprobs[row][t])
            elif name == "reinforce":
                terms.append(a * logprobs[row][t])
            else:
                terms.append(min(r * a, min(max(r, 1 - low), 1 + high) * a))
        tokens += len(terms)
        sequences.append(terms)
    if name == "grpo":
        return -sum(sum(terms) / max(len(terms), 1) for terms in sequences) / len(sequences)
    return -sum(map(sum, sequences)) / tokens


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("seed", [0, 1])
def test_values_equal_a_reference_by_loops(name, seed):
    batch = experience(seed=seed)
    bounds = {"ppo": (0.2, 0.2), "grpo": (0.2, 0.2), "dapo": (0.2, 0.28)}.get(name, (0.0, 0.0))
    expected = reference_loss(name, [x.detach() for x in batch], *bounds, cap=5.0)
    assert call(name, batch).loss.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["cispo", "grpo", "dapo"])
def test_values_equal_the_documented_formulas_of_trl(name):
    """TRL's loss types (`grpo_trainer.py`; read, not installed): epsilon_high is the cap itself for cispo, an offset
    elsewhere; cispo and dapo divide by the active tokens, grpo averages within and then over sequences."""
    batch = experience(seed=5)
    logprobs, old, advantages, mask = (x.detach().numpy() for x in batch)
    ratio = np.exp(logprobs - old)
    if name == "cispo":
        per_token = -np.minimum(ratio, 4.0) * advantages * logprobs
        options = {"max_weight": 4.0}
    else:
        per_token = -np.minimum(ratio * advantages, np.clip(ratio, 0.9, 1.35) * advantages)
        options = {"eps_low": 0.1, "eps_high": 0.35}
    if name == "grpo":
        expected = ((per_token * mask).sum(-1) / np.maximum(mask.sum(-1), 1.0)).mean()
    else:
        expected = (per_token * mask).sum() / mask.sum()
    assert call(name, batch, **options).loss.item() == pytest.approx(expected, rel=1e-9)


def test_dapo_is_ppo_with_a_higher_upper_bound():
    batch = experience(seed=4)
    ppo, dapo = call("ppo", batch), call("dapo", batch)
    assert ppo.loss.item() != dapo.loss.item()
    assert call("ppo", batch, eps_high=0.28).loss.item() == dapo.loss.item()


# ------------------------------------------------------------------------------------------- sharing


SPLITS = [[[0], [1], [2], [3], [4]], [[0, 1, 2, 3], [4]], [[4, 2], [3], [1, 0]]]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("split", SPLITS)
def test_any_split_into_micro_batches_gives_the_gradient_of_the_whole(name, split):
    logprobs, old, advantages, mask = batch = experience(seed=6)
    whole = call(name, batch)
    expected = gradient(whole, logprobs)
    totals = dict(total_tokens=float(mask.sum()), total_sequences=float(len(mask)))
    added, sums = torch.zeros_like(expected), {}
    for rows in split:
        width = max(2, int(mask[rows].any(0).nonzero().max()) + 1 if mask[rows].any() else 2)  # cut to the longest
        piece = policy_loss(name)(*(x[rows, :width] for x in batch), **totals)
        added += gradient(piece, logprobs)
        for key, value in piece.metrics.items():
            sums[key] = max(sums[key], value.item()) if key.endswith("_max") and key in sums else (
                sums.get(key, 0.0) + value.item()
            )
    torch.testing.assert_close(added, expected)
    assert sums == pytest.approx({key: value.item() for key, value in whole.metrics.items()})


@pytest.mark.parametrize("split", SPLITS)
def test_any_split_of_a_supervised_batch_gives_the_gradient_of_the_whole(split):
    generator = torch.Generator().manual_seed(7)
    logits = torch.randn(5, 9, 6, generator=generator, dtype=torch.float64).requires_grad_()
    ids, mask = torch.randint(6, (5, 9), generator=generator), experience()[3]
    total = float(mask.sum())
    whole = next_token_loss(logits, ids, mask, total_tokens=total)
    pieces = [next_token_loss(logits[rows], ids[rows], mask[rows], total_tokens=total) for rows in split]
    torch.testing.assert_close(sum(gradient(p, logits) for p in pieces), gradient(whole, logits))
    assert sum(p.metrics["loss"].item() for p in pieces) == pytest.approx(whole.metrics["loss"].item())


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("garbage", [-math.inf, math.inf, math.nan, 1e30])
def test_garbage_at_padding_changes_nothing(name, garbage):
    logprobs, old, advantages, mask = batch = experience(seed=8)
    clean = call(name, batch)
    dirty_logprobs = logprobs.detach().masked_fill(~mask, garbage).requires_grad_()
    dirty = (dirty_logprobs, old.masked_fill(~mask, garbage), advantages.masked_fill(~mask, garbage), mask)
    out = call(name, dirty)
    assert out.loss.item() == clean.loss.item()
    assert torch.equal(gradient(out, dirty_logprobs), gradient(clean, logprobs))
    assert {k: v.item() for k, v in out.metrics.items()} == {k: v.item() for k, v in clean.metrics.items()}


@pytest.mark.parametrize("name", LOSSES)
def test_policy_losses_mutate_nothing(name):
    batch = experience()
    before = [(x.detach().clone(), x._version) for x in batch]
    call(name, batch).loss.backward()
    for tensor, (value, version) in zip(batch, before):
        assert torch.equal(tensor, value) and tensor._version == version


def test_token_functions_and_advantages_mutate_nothing():
    logits, ids, mask = torch.randn(2, 4, 5), torch.randint(5, (2, 4)), torch.ones(2, 4, dtype=torch.bool)
    rewards = torch.tensor([[0.0, 1.0], [0.5, 0.5]])
    tensors = (logits, ids, mask, rewards)
    before = [(x.clone(), x._version) for x in tensors]
    token_logprobs_and_entropy(logits, ids, 0.5), next_token_loss(logits, ids, mask, total_tokens=8)
    group_advantages(rewards)
    for tensor, (value, version) in zip(tensors, before):
        assert torch.equal(tensor, value) and tensor._version == version


@pytest.mark.parametrize("name", LOSSES)
def test_metrics_are_detached_and_mean_what_they_say(name):
    logprobs, old, advantages, mask = batch = experience(seed=9)
    metrics = call(name, batch).metrics
    assert set(metrics) == {"ratio", "ratio_max", "clipped_share", "kl"}
    assert not any(value.requires_grad for value in metrics.values())
    log_ratio = (logprobs - old).detach()[mask]
    assert metrics["ratio"].item() == pytest.approx(log_ratio.exp().mean().item())
    assert metrics["ratio_max"].item() == pytest.approx(log_ratio.exp().max().item())
    assert metrics["kl"].item() == pytest.approx((log_ratio.exp() - 1 - log_ratio).mean().item())


def test_losses_are_found_by_name():
    named = {"cispo": cispo_loss, "grpo": grpo_loss, "dapo": dapo_loss, "ppo": ppo_loss, "reinforce": reinforce_loss}
    assert all(policy_loss(name) is function for name, function in named.items())
    with pytest.raises(UserError) as mistake:
        policy_loss("cipso")
    assert all(name in str(mistake.value) for name in ["cipso", *named])


# ------------------------------------------------------------------------------------------- advantages


def test_advantages_use_the_population_std():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 0.0], [3.0, 1.0, 2.0, -2.0]], dtype=torch.float64)
    values = rewards.numpy()
    expected = (values - values.mean(1, keepdims=True)) / (values.std(1, ddof=0, keepdims=True) + 1e-6)
    np.testing.assert_allclose(group_advantages(rewards).numpy(), expected, rtol=1e-12)


def test_epsilon_is_added_outside_the_root():
    rewards = torch.tensor([[0.0, 2e-6]], dtype=torch.float64)  # std 1e-6: halved by 1e-6 beside it
    assert group_advantages(rewards)[0].tolist() == pytest.approx([-0.5, 0.5], rel=1e-6)


@pytest.mark.parametrize("size", [2, 3, 7, 16])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 0.3, 1 / 3, -0.7, 1e-3, 12345.678])
def test_equal_rewards_have_exactly_no_advantage(value, size):
    """The mean of sixteen 0.1 is not 0.1 in fp32, and rounding over 1e-6 would be a real advantage."""
    assert (group_advantages(torch.full((3, size), value)) == 0).all()


def test_groups_do_not_see_each_other():
    groups = torch.tensor([[1.0, 0.0, 1.0], [5.0, 5.0, 5.0], [0.0, -9.0, 2.0]])
    together = group_advantages(groups)
    for row in range(3):
        assert torch.equal(together[row : row + 1], group_advantages(groups[row : row + 1]))
    assert (together[1] == 0).all()
