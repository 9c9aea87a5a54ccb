"""Chapter 08: the oracle of AdamW against PyTorch, and the experiments' arithmetic against what is known."""

import math

import pytest
import torch

from minim1.course.checks.pretraining import adamw_step
from minim1.report.experiments import noise_scale, scaling


@pytest.mark.parametrize("eps", [1e-15, 1e-8, 0.1])
def test_adamw_is_pytorchs(eps):
    torch.manual_seed(0)
    weight = torch.randn(3, 4, dtype=torch.float64)
    theirs = torch.nn.Parameter(weight.clone())
    optimizer = torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.95), eps=eps, weight_decay=0.1)
    ours = (weight, torch.zeros_like(weight), torch.zeros_like(weight))
    for step in range(1, 6):
        gradient = 1e-14 * torch.randn(3, 4, dtype=torch.float64)
        ours = adamw_step(ours[0], gradient, *ours[1:], step, learning_rate=0.01, eps=eps)
        theirs.grad = gradient
        optimizer.step()
    assert torch.allclose(ours[0], theirs.detach(), rtol=1e-12, atol=0)


def test_noise_scale_of_a_known_gradient():
    torch.manual_seed(0)
    gradients = 3 + 2 * torch.randn(4000, 50, dtype=torch.float64)
    tokens, trace, signal = noise_scale.noise_scale(gradients, 16)
    assert math.isclose(trace, 16 * 50 * 4, rel_tol=0.02) and math.isclose(signal, 50 * 9, rel_tol=0.02)
    assert math.isclose(tokens, trace / signal)


def test_fit_finds_a_power_law():
    a, b = scaling.fit({c: 7 * c**-0.08 for c in (1e9, 1e10, 1e12)})
    assert math.isclose(a, 7) and math.isclose(b, 0.08)


def test_frontier_keeps_what_no_cheaper_point_beats():
    assert scaling.frontier({3.0: 4.5, 1.0: 5.0, 2.0: 5.5, 4.0: 4.0}) == {1.0: 5.0, 3.0: 4.5, 4.0: 4.0}


def test_multiplied_leaves_out_the_embedding_and_half_of_the_experts():
    model = scaling.MiniM1(scaling.config(16))
    experts = sum(p.numel() for name, p in model.named_parameters() if "experts" in name)
    norms = sum(p.numel() for p in model.parameters() if p.ndim == 1)
    everything = sum(p.numel() for p in model.parameters())
    assert scaling.multiplied(model) == everything - 1024 * 16 - experts // 2 - norms


def test_draws_of_equal_seeds_have_no_spread():
    law = {"steps": [1, 2], "tokens_per_step": 10, "multiplied": {"8": 5}, "losses": {"8": [[6.0, 5.0], [6.0, 5.0]]}}
    fits = scaling.bootstrap(law, draws=20)
    assert len(fits) == 20 and len(set(fits)) == 1
