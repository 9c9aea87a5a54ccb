"""Softmax attention and rotary positions against references of a few lines."""

import math

import pytest
import torch

from minim1.model.softmax import rotary, softmax_attention


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def turn(x, position, rotary_dim, theta):
    """The reference: pairs (i, i + r/2) as complex numbers, multiplied by exp(i * angle)."""
    half = rotary_dim // 2
    angle = position * theta ** -(2 * torch.arange(half, dtype=torch.float64) / rotary_dim)
    pair = torch.complex(x[..., :half], x[..., half:rotary_dim]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([pair.real, pair.imag, x[..., rotary_dim:]], -1)


@pytest.mark.parametrize("rotary_dim", [0, 2, 6, 8])
def test_rotary_reference(rotary_dim):
    x, positions = randn(2, 3, 4, 8), torch.tensor([[0, 1, 7], [100, 4096, 3]])
    found = rotary(x, positions, rotary_dim=rotary_dim, theta=1e4)
    for b in range(2):
        for t in range(3):
            expected = turn(x[b, t], positions[b, t].item(), rotary_dim, 1e4) if rotary_dim else x[b, t]
            torch.testing.assert_close(found[b, t], expected, atol=1e-11, rtol=0)
    assert torch.equal(found[..., rotary_dim:], x[..., rotary_dim:])  # the rest passes untouched


def test_rotary_depends_on_relative_position_only():
    q, k = randn(1, 1, 1, 8), randn(1, 1, 1, 8, seed=1)

    def score(at_q, at_k):
        rotated = [rotary(x, torch.tensor([[at]]), rotary_dim=6, theta=1e7) for x, at in ((q, at_q), (k, at_k))]
        return (rotated[0] * rotated[1]).sum().item()

    assert score(12, 5) == pytest.approx(score(1007, 1000), abs=1e-12)
    assert abs(score(12, 5) - score(12, 6)) > 1e-3
    assert rotary(q, torch.tensor([[9]]), rotary_dim=6, theta=1e7).norm() == pytest.approx(q.norm().item())


def test_rotary_is_computed_in_fp32_for_bf16():
    x = torch.ones(1, 1, 1, 8, dtype=torch.bfloat16)
    positions = torch.tensor([[4099]])  # bf16 would round this to 4096
    found = rotary(x, positions, rotary_dim=8, theta=1e4)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(
        found, rotary(x.double(), positions, rotary_dim=8, theta=1e4).bfloat16(), atol=1e-2, rtol=0
    )


def brute_force(q, k, v, mask):
    """One query and one head at a time."""
    out = torch.zeros_like(q)
    group = q.shape[2] // k.shape[2]
    for b, t, h in ((b, t, h) for b in range(q.shape[0]) for t in range(q.shape[1]) for h in range(q.shape[2])):
        seen = mask[b, t].nonzero().flatten()
        if len(seen):
            scores = k[b, seen, h // group] @ q[b, t, h] / math.sqrt(q.shape[-1])
            out[b, t, h] = scores.softmax(0) @ v[b, seen, h // group]
    return out


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("queries, keys", [(6, 6), (1, 6), (3, 6), (1, 1)])
def test_causal_order_and_groups(queries, keys, kv_heads):
    q, k, v = randn(2, queries, 4, 8), randn(2, keys, kv_heads, 8, seed=1), randn(2, keys, kv_heads, 8, seed=2)
    mask = (torch.arange(keys) <= keys - queries + torch.arange(queries)[:, None]).expand(2, -1, -1)
    expected = brute_force(q, k, v, mask)
    torch.testing.assert_close(softmax_attention(q, k, v), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(softmax_attention(q, k, v, mask=mask), expected, atol=1e-12, rtol=0)


def test_rows_that_see_nothing_whatever_torch_says(monkeypatch):
    """SDPA does not promise what a row without keys gets; older ones and other devices return NaN."""

    def plain(q, k, v, attn_mask):
        return (q @ k.transpose(-1, -2)).masked_fill(~attn_mask, -math.inf).softmax(-1) @ v

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", plain)
    q, mask = randn(1, 3, 2, 4), torch.tensor([[[True, False, False], [False] * 3, [True] * 3]])
    out = softmax_attention(q, q, q, mask=mask)
    assert (out[:, 1] == 0).all() and (out[:, ::2] != 0).all() and out.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_mask_and_rows_that_see_nothing(dtype):
    """A query without keys gives exactly 0, and no NaN reaches any gradient."""
    q, k, v = (randn(2, 5, n, 8, seed=n, dtype=dtype).requires_grad_() for n in (4, 2, 1))
    v = v.expand(2, 5, 2, 8)
    mask = torch.rand(2, 5, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    mask[0, 2], mask[1, :] = False, False
    mask[0, 0, 0] = True
    out = softmax_attention(q, k, v, mask=mask)
    blind = ~mask.any(-1)
    assert (out[blind] == 0).all() and out.isfinite().all() and out.dtype == dtype
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6 if dtype == torch.float32 else 2e-2
    expected = brute_force(*(x.detach().double() for x in (q, k, v)), mask)
    torch.testing.assert_close(out.double(), expected, atol=tolerance, rtol=0)
    gradients = torch.autograd.grad(out.sum(), (q, k, v))
    assert all(x.isfinite().all() for x in gradients)
    assert (gradients[0][blind] == 0).all()
    assert (gradients[1][1] == 0).all() and (gradients[2][1] == 0).all()  # nobody looked there
