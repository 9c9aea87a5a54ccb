"""The counts of MiniMax-M1 to the digit, and those of small models against the models themselves."""

import json
import math
import time

import pytest
import torch

from minim1.config import PRESETS, M1Config, preset
from minim1.model.count import count, format_count
from minim1.model.decoder import MiniM1


def test_m1_to_the_digit():
    start = time.perf_counter()
    found = count(preset("m1-456b"), 1_000_000)
    assert time.perf_counter() - start < 20
    assert found["parameters"] == 456_089_655_296
    assert found["active_parameters"] == 45_944_920_064  # published as 45.9 B
    assert found["checkpoint_bytes"] == 912_210_767_872  # `total_size` of M1's index, to the byte
    assert found["by_group"] == {
        "experts": 434_865_438_720, "lightning attention": 17_616_650_240, "softmax attention": 1_132_462_080,
        "embedding": 1_229_193_216, "head": 1_229_193_216, "routers": 15_728_640, "norms": 989_184,
    }
    assert found["kv_cache_bytes_per_token"] == 40_960
    assert found["lightning_state_bytes"] == 293_601_280
    assert found["cache_bytes"] == 40_960_000_000 + 293_601_280
    assert (found["lightning_layers"], found["softmax_layers"]) == (70, 10)


@pytest.mark.parametrize("name", PRESETS)
def test_result_is_json_and_readable(name):
    found = count(preset(name))
    assert json.loads(json.dumps(found)) == found
    assert sum(found["by_group"].values()) == found["parameters"]
    assert found["context_length"] == preset(name).max_position_embeddings
    text = format_count(found)
    for key in ("parameters", "active_parameters", "checkpoint_bytes", "kv_cache_bytes_per_token", "cache_bytes"):
        assert f"{found[key]:,}" in text
    assert all(group in text for group in found["by_group"]) and len(text.splitlines()) < 20
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    "changes", [{}, dict(attn_type_list=(0, 0)), dict(attn_type_list=(1, 1)),
                dict(num_local_experts=1, num_experts_per_tok=1), dict(num_experts_per_tok=3)]
)
def test_small_models(changes):
    config = M1Config(**{
        **dict(vocab_size=37, hidden_size=24, intermediate_size=14, num_hidden_layers=2, num_attention_heads=4,
               head_dim=8, attn_type_list=(0, 1), num_local_experts=5), **changes,
    })
    model, found = MiniM1(config), count(config, 70)
    weights = dict(model.named_parameters())
    assert found["parameters"] == sum(p.numel() for p in weights.values())
    one_expert = 3 * 24 * 14
    idle = 2 * (config.num_local_experts - config.num_experts_per_tok) * one_expert
    assert found["active_parameters"] == found["parameters"] - 2 * 37 * 24 - idle
    assert found["checkpoint_bytes"] == sum(
        p.numel() * (4 if "block_sparse_moe.gate" in name else 2) for name, p in weights.items()
    )
    model = model.bfloat16()
    cache = model.new_cache()
    with torch.no_grad():
        model(torch.zeros(1, 70, dtype=torch.long), cache=cache)
    assert cache.nbytes() == found["cache_bytes"] == found["lightning_state_bytes"] + (
        70 * found["kv_cache_bytes_per_token"]
    )


def test_the_figures_of_the_table():
    assert "456.090 B" in format_count(count(preset("m1-456b"))) and "45.945 B" in format_count(count(preset("m1-456b")))
    assert math.isclose(count(preset("nano"))["parameters"], 1.5e6, rel_tol=0.3)  # trains in minutes on two cores
