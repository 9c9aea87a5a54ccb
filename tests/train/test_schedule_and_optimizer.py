"""The learning rate's shape, and one optimiser step: AdamW as M1 uses it, clipping, and the refusal of NaN."""

import math

import pytest
import torch
from torch import nn

from minim1.train.losses import LossOutput
from minim1.train.optim import Diverged, Optimizer
from minim1.train.schedule import warmup_stable_decay
from minim1.train.settings import OptimConfig

FLAT = dict(schedule=lambda step, total, **shape: 1.0)


# ------------------------------------------------------------------------------------------- schedule


def test_warm_up_then_constant_then_decay():
    rates = [warmup_stable_decay(step, 200, warmup=0.1, decay=0.4, final=0.05) for step in range(200)]
    assert rates[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert rates[20:120] == [1.0] * 100
    falls = [a - b for a, b in zip(rates[119:], rates[120:])]
    assert all(fall == pytest.approx(0.95 / 80) for fall in falls)
    assert rates[-1] == pytest.approx(0.05)


@pytest.mark.parametrize("total", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("shape", [{}, dict(decay=1.0), dict(decay=0.0), dict(warmup=0.0), dict(warmup=1.0), dict(final=0.0)])
def test_any_length_gives_a_factor_between_zero_and_one(total, shape):
    rates = [warmup_stable_decay(step, total, **shape) for step in range(total)]
    assert all(0 <= rate <= 1 for rate in rates)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1]) and rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[0] > 0 or total == 1


def test_decay_over_the_whole_run_ends_at_final():
    rates = [warmup_stable_decay(step, 40, decay=1.0, final=0.1) for step in range(40)]
    assert rates[-1] == pytest.approx(0.1) and len(set(rates)) > 30


# ------------------------------------------------------------------------------------------- optimiser


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.matrix = nn.Parameter(torch.randn(3, 4, generator=generator))
        self.stack = nn.Parameter(torch.randn(2, 3, 3, generator=generator))
        self.norm = nn.Parameter(torch.ones(3))


def make(config=OptimConfig(), total=100, net=None, **shared):
    net = net or Net()
    return net, Optimizer(net, config, total, **(FLAT | shared))


def linear_loss(net, scale=1.0):
    """A loss whose gradient is `scale` times a fixed pattern."""
    def loss(_):
        value = sum((p * torch.linspace(0.5, 1.5, p.numel()).view_as(p)).sum() for p in net.parameters())
        return LossOutput(scale * value, {"loss": (scale * value).detach()})
    return loss


def snapshot(net):
    return {name: p.detach().clone() for name, p in net.named_parameters()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_betas_eps_and_weight_decay_are_m1s():
    net, optimizer = make()
    matrices, vectors = optimizer.adamw.param_groups
    for group in (matrices, vectors):
        assert group["betas"] == (0.9, 0.95) and group["eps"] == 1e-15
    assert {id(p) for p in matrices["params"]} == {id(net.matrix), id(net.stack)} and matrices["weight_decay"] == 0.1
    assert [id(p) for p in vectors["params"]] == [id(net.norm)] and vectors["weight_decay"] == 0.0


def test_every_parameter_of_the_model_is_in_exactly_one_group(model):
    optimizer = Optimizer(model, OptimConfig(), 1, **FLAT)
    grouped = [id(p) for group in optimizer.adamw.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    decayed = {id(p) for p in optimizer.adamw.param_groups[0]["params"]}
    assert all((id(p) in decayed) == ("norm" not in name) for name, p in model.named_parameters())


def test_steps_equal_adamw_written_out():
    config = OptimConfig(learning_rate=0.01, clip=0.5, warmup=0.5, decay=0.5, final=0.1)
    net, optimizer = make(config, total=4, schedule=warmup_stable_decay)
    weights = {name: p.double() for name, p in snapshot(net).items()}
    first = {name: torch.zeros_like(p) for name, p in weights.items()}
    second = {name: torch.zeros_like(p) for name, p in weights.items()}
    for step in range(4):
        scale = [1.0, -3.0, 0.001, 2.0][step]
        metrics = optimizer.step(step, [None], linear_loss(net, scale))
        gradients = {name: scale * torch.linspace(0.5, 1.5, p.numel(), dtype=torch.float64).view_as(p)
                     for name, p in weights.items()}
        norm = math.sqrt(sum(g.square().sum().item() for g in gradients.values()))
        assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-5)
        rate = 0.01 * warmup_stable_decay(step, 4, warmup=0.5, decay=0.5, final=0.1)
        assert metrics["lr"] == pytest.approx(rate)
        for name, gradient in gradients.items():
            gradient = gradient * min(1.0, 0.5 / norm)
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.95 * second[name] + 0.05 * gradient**2
            corrected = first[name] / (1 - 0.9 ** (step + 1))
            spread = (second[name] / (1 - 0.95 ** (step + 1))).sqrt()
            decay = 0.1 if weights[name].ndim > 1 else 0.0
            weights[name] = weights[name] * (1 - rate * decay) - rate * corrected / (spread + 1e-15)
    for name, p in net.named_parameters():
        torch.testing.assert_close(p.detach().double(), weights[name], atol=1e-6, rtol=1e-5)


def test_m1s_eps_moves_weights_whose_gradients_are_tiny():
    """Report §3.2: gradients mostly below 1e-14; with the usual eps of 1e-8 AdamW hardly moves."""
    moved = {}
    for eps in (1e-15, 1e-8):
        net, optimizer = make(OptimConfig(learning_rate=0.01, eps=eps, weight_decay=0.0))
        before = snapshot(net)
        optimizer.step(0, [None], linear_loss(net, 1e-14))
        moved[eps] = (net.norm - before["norm"]).abs().max().item()
    assert moved[1e-15] == pytest.approx(0.01, rel=0.2) and moved[1e-8] < 1e-6


def test_a_small_gradient_is_not_touched_and_a_large_one_has_the_clipped_norm():
    net, optimizer = make(OptimConfig(clip=1.0))
    assert optimizer.step(0, [None], linear_loss(net, 0.01))["grad_norm"] < 1
    assert torch.equal(net.matrix.grad, 0.01 * torch.linspace(0.5, 1.5, 12).view(3, 4))
    norm = optimizer.step(1, [None], linear_loss(net, 100.0))["grad_norm"]
    assert norm > 100
    assert sum(p.grad.square().sum().item() for p in net.parameters()) == pytest.approx(1.0, rel=1e-4)


def test_gradients_add_up_over_micro_batches_and_start_from_zero():
    net, optimizer = make(OptimConfig(clip=1e9))
    for _ in range(2):
        optimizer.step(0, [1, 2, 3], linear_loss(net, 1.0))
        torch.testing.assert_close(net.norm.grad, 3 * torch.linspace(0.5, 1.5, 3))


def test_metrics_are_summed_and_those_called_max_maximised():
    net, optimizer = make()

    def loss(value):
        return LossOutput(net.norm.sum() * 0, {"share": torch.tensor(value), "ratio_max": torch.tensor(-value)})

    metrics = optimizer.step(0, [0.25, 0.5], loss)
    assert metrics["share"] == 0.75 and metrics["ratio_max"] == -0.25


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_nan_or_inf_stops_before_any_weight_changes(where, poison):
    net, optimizer = make()
    optimizer.step(0, [None], linear_loss(net))  # so that there are moments to lose
    weights, moments = snapshot(net), {name: t.clone() for name, t in optimizer.state().items()}

    def poisoned(_):
        if where == "loss":  # a constant: the gradient stays finite
            return LossOutput(net.matrix.sum() * 0.1 + poison, {"loss": torch.tensor(poison)})
        factor = torch.ones(3)
        factor[1] = poison
        return LossOutput((net.norm * factor).sum(), {"loss": torch.tensor(0.5)})

    with pytest.raises(Diverged, match="step 7") as stop:
        optimizer.step(7, [None], poisoned)
    assert "resume" in str(stop.value)
    assert same(snapshot(net), weights) and same(dict(optimizer.state()), moments)
    assert math.isfinite(optimizer.step(8, [None], linear_loss(net))["grad_norm"])  # the poison does not linger


def test_state_brings_an_optimiser_back_bitwise():
    net, optimizer = make()
    for step in range(3):
        optimizer.step(step, [None], linear_loss(net, 1.0 + step))
    saved, weights = {name: t.clone() for name, t in optimizer.state().items()}, snapshot(net)
    optimizer.step(3, [None], linear_loss(net, -2.0))
    other, resumed = make()
    other.load_state_dict(weights)
    resumed.load_state(saved)
    resumed.step(3, [None], linear_loss(other, -2.0))
    assert same(snapshot(net), snapshot(other)) and same(optimizer.state(), resumed.state())
    assert sorted(saved) == sorted(
        ["adamw_step", *(f"{key}.{name}" for name in weights for key in ("exp_avg", "exp_avg_sq"))]
    )


def test_a_fresh_optimiser_has_no_state_and_loads_none():
    _, optimizer = make()
    assert optimizer.state() == {}
    optimizer.load_state({})


def test_autocast_is_on_only_when_asked_for():
    for name, expected in ((None, False), ("bfloat16", True)):
        net, optimizer = make(OptimConfig(autocast=name))
        seen = []

        def loss(_):
            seen.append((torch.is_autocast_enabled("cpu"), (net.matrix @ net.matrix.T).dtype))
            return linear_loss(net)(None)

        optimizer.step(0, [None], loss)
        assert seen == [(expected, torch.bfloat16 if expected else torch.float32)]


def test_bf16_keeps_fp32_weights_and_an_fp32_head(model):
    optimizer = Optimizer(model, OptimConfig(autocast="bfloat16"), 1, **FLAT)
    dtypes = []

    def loss(ids):
        out = model(ids)
        dtypes.append(out.logits.dtype)
        return LossOutput(out.logits.square().mean() + out.aux_loss, {})

    assert math.isfinite(optimizer.step(0, [torch.randint(420, (2, 12))], loss)["grad_norm"])
    assert dtypes == [torch.float32] and {p.dtype for p in model.parameters()} == {torch.float32}
