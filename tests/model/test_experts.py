"""Router, dispatch and balance: each against its definition, and where gradients must and must not go."""

import math

import pytest
import torch
import torch.nn.functional as F

from minim1.model import moe
from minim1.model.moe import (
    dispatch, dispatch_by_loop, dispatch_by_sort, dispatch_dense, expert_load, load_balancing_loss, top_k_router,
)

TOKENS, EXPERTS, HIDDEN, WIDTH = 11, 5, 6, 4


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_router(k):
    """The k largest of the softmax over all experts, renormalised: the same as the softmax over the top-k logits."""
    logits = randn(TOKENS, EXPERTS) * 3
    weights, ids = top_k_router(logits, k)
    probabilities = logits.softmax(-1)
    kept, expected_ids = probabilities.topk(k)
    torch.testing.assert_close(weights, kept / kept.sum(-1, keepdim=True), atol=1e-12, rtol=0)
    masked = torch.full_like(logits, -math.inf).scatter(1, ids, logits.gather(1, ids))  # report Eq. 1
    torch.testing.assert_close(weights, masked.softmax(-1).gather(1, ids), atol=1e-12, rtol=0)
    assert torch.equal(ids, expected_ids) and ids.dtype == torch.int64
    torch.testing.assert_close(weights.sum(-1), torch.ones(TOKENS, dtype=torch.float64))


def test_router_computes_in_fp32():
    logits = torch.tensor([[200.0, 198.0, -300.0]], dtype=torch.bfloat16)
    weights, _ = top_k_router(logits, 2)
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights, torch.tensor([[2.0, 0.0]]).softmax(-1))


def test_replay_uses_the_given_experts_and_keeps_the_gradient():
    logits = randn(TOKENS, EXPERTS).requires_grad_()
    replay = torch.stack([torch.randperm(EXPERTS, generator=torch.Generator().manual_seed(t))[:2] for t in range(TOKENS)])
    weights, ids = top_k_router(logits, 2, replay=replay)
    assert torch.equal(ids, replay)
    torch.testing.assert_close(weights, logits.gather(1, replay).softmax(-1))
    (gradient,) = torch.autograd.grad((weights * randn(TOKENS, 2, seed=1)).sum(), logits)
    chosen = torch.zeros(TOKENS, EXPERTS, dtype=torch.bool).scatter(1, replay, True)
    assert (gradient[chosen] != 0).all() and (gradient[~chosen] == 0).all()
    own, own_ids = top_k_router(logits, 2)  # replaying one's own choice changes nothing
    assert torch.equal(top_k_router(logits, 2, replay=own_ids)[0], own)


def choices(kind):
    free = randn(TOKENS, EXPERTS).topk(2).indices
    return {
        "free": free,
        "one expert idle": torch.where(free == 3, torch.where((free == 4).any(1, keepdim=True), 0, 4), free),
        "all on one expert": torch.full((TOKENS, 2), 2),
        "one token": free[:1],
        "K = 1": free[:, :1],
        "K = E": torch.arange(EXPERTS).expand(TOKENS, EXPERTS),
    }[kind]


@pytest.mark.parametrize("dispatch", [dispatch_by_sort, dispatch_by_loop, dispatch_dense])
@pytest.mark.parametrize("kind", ["free", "one expert idle", "all on one expert", "one token", "K = 1", "K = E"])
def test_dispatch(kind, dispatch):
    """Equal to asking each token's experts one by one, forward and in every gradient: so loop and sort are equal."""
    ids = choices(kind)
    x, weights = randn(len(ids), HIDDEN), randn(*ids.shape, seed=1)
    w1, w3, w2 = randn(EXPERTS, WIDTH, HIDDEN, seed=2), randn(EXPERTS, WIDTH, HIDDEN, seed=3), randn(
        EXPERTS, HIDDEN, WIDTH, seed=4
    )
    tensors = [t.requires_grad_() for t in (x, weights, w1, w2, w3)]
    rows = []
    for t in range(len(ids)):
        row = 0
        for slot, e in enumerate(ids[t].tolist()):
            inner = (w1[e] @ x[t]) * torch.sigmoid(w1[e] @ x[t]) * (w3[e] @ x[t])
            row = row + weights[t, slot] * (w2[e] @ inner)
        rows.append(row)
    expected = torch.stack(rows)
    out = dispatch(x, weights, ids, w1, w2, w3)
    torch.testing.assert_close(out, expected, atol=1e-11, rtol=0)
    probe = randn(*out.shape, seed=5)
    found = torch.autograd.grad((out * probe).sum(), tensors)
    wanted = torch.autograd.grad((expected * probe).sum(), tensors)
    for a, b in zip(found, wanted):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=0)
    idle = [e for e in range(EXPERTS) if not (ids == e).any()]
    assert all((g[idle] == 0).all() for g in found[2:])
    assert idle or kind in ("free", "K = 1", "K = E")


def test_few_tokens_go_to_every_expert_and_many_are_sorted(monkeypatch):
    called = []
    for form in (dispatch_dense, dispatch_by_sort):
        monkeypatch.setattr(moe, form.__name__, lambda *a, form=form: called.append(form) or form(*a))
    weights = [torch.zeros(EXPERTS, WIDTH, HIDDEN), torch.zeros(EXPERTS, HIDDEN, WIDTH), torch.zeros(EXPERTS, WIDTH, HIDDEN)]
    for tokens in (moe.FEW // EXPERTS, moe.FEW // EXPERTS + 1):
        dispatch(torch.zeros(tokens, HIDDEN), torch.ones(tokens, 1), torch.zeros(tokens, 1, dtype=torch.long), *weights)
    assert called == [dispatch_dense, dispatch_by_sort]


@pytest.mark.parametrize("k", [1, 2, 4])
def test_balance_loss_is_one_when_balanced(k):
    """A uniform router spreads its copies evenly: 1.0 for every K. Collapse costs up to E / K."""
    experts, tokens = 8, 16
    uniform = torch.zeros(tokens, experts)
    spread = (torch.arange(tokens)[:, None] * k + torch.arange(k)) % experts
    assert load_balancing_loss(uniform, spread).item() == pytest.approx(1.0, abs=1e-6)
    skewed = torch.full((tokens, experts), -50.0)
    skewed[:, :k] = 0
    collapsed = torch.arange(k).expand(tokens, k)
    assert load_balancing_loss(skewed, collapsed).item() == pytest.approx(experts / k, rel=1e-6)


def test_balance_loss_formula_and_gradient():
    logits = randn(TOKENS, EXPERTS).requires_grad_()
    ids = choices("free")
    share = torch.tensor([(ids == e).sum().item() for e in range(EXPERTS)]) / ids.numel()
    mean = logits.softmax(-1).mean(0)
    loss = load_balancing_loss(logits, ids)
    torch.testing.assert_close(loss, EXPERTS * (share.double() * mean).sum())
    (gradient,) = torch.autograd.grad(loss, logits)
    (expected,) = torch.autograd.grad(EXPERTS * (share.double() * logits.softmax(-1).mean(0)).sum(), logits)
    torch.testing.assert_close(gradient, expected)
    with torch.no_grad():  # a step down the gradient evens the router out
        assert load_balancing_loss(logits - 5 * gradient, ids) < loss


def test_padding_does_not_count():
    logits, ids = randn(TOKENS, EXPERTS), choices("free")
    valid = torch.arange(TOKENS) % 3 != 0
    expected = load_balancing_loss(logits[valid], ids[valid])
    torch.testing.assert_close(load_balancing_loss(logits, ids, valid), expected)
    logits[~valid], ids[~valid] = 99.0, 0
    torch.testing.assert_close(load_balancing_loss(logits, ids, valid), expected)
    assert load_balancing_loss(logits, ids, torch.zeros(TOKENS, dtype=torch.bool)) == 0  # no token: no loss, no NaN
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(load_balancing_loss(logits, ids, valid), logits)
    assert (gradient[~valid] == 0).all() and (gradient[valid] != 0).any()


def test_balance_loss_equals_transformers():
    """Theirs is K times ours on one layer."""
    modeling = pytest.importorskip("transformers.models.minimax.modeling_minimax")
    logits = randn(40, EXPERTS).float()
    for k in (1, 2, 4):
        theirs = modeling.load_balancing_loss_func((logits,), EXPERTS, k)
        ours = load_balancing_loss(logits, top_k_router(logits, k)[1])
        torch.testing.assert_close(theirs, k * ours)


def test_expert_load():
    ids = torch.tensor([[[[0, 1], [2, 3]], [[0, 1], [2, 3]]], [[[0, 0], [0, 0]], [[0, 0], [0, 1]]]])  # (L=2, 2, 2, 2)
    load, entropy = expert_load(ids, 4)
    torch.testing.assert_close(load, torch.tensor([[0.25] * 4, [0.875, 0.125, 0, 0]]))
    assert load.dtype == entropy.dtype == torch.float32
    expected = -(0.875 * math.log(0.875) + 0.125 * math.log(0.125)) / math.log(4)
    torch.testing.assert_close(entropy, torch.tensor([1.0, expected]))
    load, entropy = expert_load(ids, 4, torch.tensor([[True, False], [True, False]]))
    torch.testing.assert_close(load, torch.tensor([[0.5, 0.5, 0, 0], [1.0, 0, 0, 0]]))
    torch.testing.assert_close(entropy, torch.tensor([0.5, 0.0]))
    load, entropy = expert_load(ids, 4, torch.zeros(2, 2, dtype=torch.bool))
    assert (load == 0).all() and (entropy == 0).all()
    assert expert_load(torch.zeros(1, 2, 3, 1, dtype=torch.long), 1)[1].isfinite().all()


def test_swiglu_is_w2_of_silu_w1_times_w3():
    x = randn(1, HIDDEN)
    w1, w2, w3 = (randn(1, *shape, seed=i) for i, shape in enumerate([(WIDTH, HIDDEN), (HIDDEN, WIDTH), (WIDTH, HIDDEN)]))
    one = torch.zeros(1, 1, dtype=torch.long)
    expected = (F.silu(x @ w1[0].T) * (x @ w3[0].T)) @ w2[0].T
    torch.testing.assert_close(dispatch_by_sort(x, torch.ones(1, 1), one, w1, w2, w3), expected)
