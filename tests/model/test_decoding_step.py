"""The joined step against the model it was made from: same logits, same cache, whatever the rows look like."""

import pytest
import torch

from minim1.config import M1Config, preset
from minim1.model.decoder import MiniM1
from minim1.model.moe import FEW, dispatch_by_sort
from minim1.model.parts import ModelParts
from minim1.model.step import JoinedStep, can_join

SIZES = dict(
    vocab_size=50, hidden_size=24, intermediate_size=20, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, head_dim=8, attn_type_list=(0, 1, 0, 0), num_local_experts=5, num_experts_per_tok=2,
)
LEFT_PADDED = torch.tensor([[-1, -1, -1, 0, 0, 0], [0] * 6, [-1, 0, 0, 0, 0, 0]])
VARIANTS = {
    "m1": {}, "pre-norm": dict(postnorm=False), "one expert": dict(num_local_experts=1, num_experts_per_tok=1),
    "beta": dict(layernorm_linear_attention_beta=0.5, layernorm_full_attention_beta=1.5, layernorm_mlp_beta=0.3),
    "no grouping, full rotary": dict(num_key_value_heads=4, rotary_dim=8),
    "slopes": dict(slopes=(0.0, 0.5, 2.0, 200.0)), "all softmax": dict(attn_type_list=(1,) * 4),
    "all lightning": dict(attn_type_list=(0,) * 4), "many experts": dict(num_local_experts=FEW),
}


def build(**fields):
    """A model in fp64 whose norm weights are not all 1."""
    model = MiniM1(M1Config(**(SIZES | fields)), seed=3).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(5))
    return model


def read(model, ids, documents=None):
    cache = model.new_cache()
    with torch.no_grad():
        model(ids, document_ids=documents, cache=cache)
    return cache


def tokens(rows, length, seed=0):
    return torch.randint(50, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("documents", [None, LEFT_PADDED], ids=["even", "left-padded"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_step_is_the_model(variant, documents):
    """Token by token, with rows dropped, doubled and reordered on the way; at the end both caches continue alike."""
    model = build(**VARIANTS[variant])
    assert can_join(model) and isinstance(step := model.new_step(), JoinedStep)
    ids = tokens(3, 6)
    cache, other = read(model, ids, documents), read(model, ids, documents)
    for number in range(7):
        if number in (2, 4):
            rows = torch.tensor([2, 0, 0, 1]) if number == 2 else torch.tensor([True, False, True, True])
            cache.select(rows), other.select(rows)
        new = tokens(cache.rows, 1, seed=number)
        with torch.no_grad():
            expected = model(new, cache=other).logits[:, -1]
        found = step(new[:, 0], cache)
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
        assert cache.length == other.length == 7 + number
    more = tokens(3, 4, seed=9)
    with torch.no_grad():  # the two take turns on one cache
        torch.testing.assert_close(model(more, cache=cache).logits, model(more, cache=other).logits, atol=1e-10, rtol=0)
    for a, b in zip(cache.layers, other.layers):
        for x, y in zip(a.tensors(), b.tensors(), strict=True):
            torch.testing.assert_close(x, y, atol=1e-10, rtol=0)


def test_both_ways_of_asking_experts_are_the_same(monkeypatch):
    model, ids = build(), tokens(2, 5)
    first = JoinedStep(model)(ids[:, 0], read(model, ids))
    monkeypatch.setattr("minim1.model.step.FEW", 0)
    torch.testing.assert_close(JoinedStep(model)(ids[:, 0], read(model, ids)), first, atol=1e-12, rtol=0)


def test_it_allocates_no_new_state():
    model, ids = build(), tokens(2, 5)
    cache, step = read(model, ids), JoinedStep(model)
    places = [layer.state.data_ptr() for layer in cache.layers if hasattr(layer, "state")]
    step(ids[:, 0], cache), step(ids[:, 1], cache)
    assert places == [layer.state.data_ptr() for layer in cache.layers if hasattr(layer, "state")]


def test_own_parts_mixed_dtypes_and_autocast_take_the_plain_way():
    def mine(*arguments):
        return dispatch_by_sort(*arguments)

    model = MiniM1(M1Config(**SIZES), ModelParts(dispatch=mine), seed=3).double()
    assert not can_join(model) and not isinstance(model.new_step(), JoinedStep)
    ids = tokens(2, 5)
    expected = MiniM1(M1Config(**SIZES), seed=3).double()
    with torch.no_grad():
        found = model.new_step()(ids[:, 0], read(model, ids))
    torch.testing.assert_close(found, expected.new_step()(ids[:, 0], read(expected, ids)), atol=1e-10, rtol=0)
    assert not can_join(build().bfloat16())
    mixed = build().float()
    mixed.model.layers[0].self_attn.out_proj.bfloat16()
    assert not can_join(mixed) and can_join(build().float())
    with torch.autocast("cpu", torch.bfloat16):
        assert not can_join(build().float())
    assert can_join(MiniM1(M1Config(**SIZES), ModelParts(balance_loss=mine)))  # plays no part in decoding


def test_the_preset_in_fp32():
    model = MiniM1(preset("nano"), seed=1).eval()
    ids = torch.randint(1024, (4, 40), generator=torch.Generator().manual_seed(2))
    cache, other = read(model, ids), read(model, ids)
    step = model.new_step()
    for number in range(20):
        new = torch.randint(1024, (4, 1), generator=torch.Generator().manual_seed(number))
        with torch.no_grad():
            expected = model(new, cache=other).logits[:, -1]
        torch.testing.assert_close(step(new[:, 0], cache), expected, atol=2e-5, rtol=0)
