"""Sizes that do not fit are refused in one sentence that names value and remedy; what fits survives JSON."""

import dataclasses
import json
import math

import pytest

from minim1.config import LIGHTNING, PRESETS, SOFTMAX, M1Config, hybrid_pattern, preset
from minim1.errors import UserError

REFUSED = [
    (dict(num_hidden_layers=0), ["num_hidden_layers is 0", "at least 1"]),
    (dict(num_hidden_layers=2.5), ["num_hidden_layers is 2.5", "whole number"]),
    (dict(attn_type_list=(0, 1)), ["2 entries for 8 layers", "one entry for each layer"]),
    (dict(attn_type_list=(0,) * 7 + (2,)), ["[0, 0, 0, 0, 0, 0, 0, 2]", "0 (lightning) and 1 (softmax)"]),
    (dict(attn_type_list=3), ["attn_type_list is 3", "0 (lightning) or 1 (softmax)"]),
    (dict(attn_type_list=([0],) * 8), ["[0]", "0 (lightning) and 1 (softmax)"]),
    (dict(postnorm="false"), ["postnorm is 'false'", "true or false"]),
    (dict(fp32_head=None), ["fp32_head is None", "true or false"]),
    (dict(num_key_value_heads=3), ["8 query heads", "3 key/value heads", "divides num_attention_heads"]),
    (dict(num_key_value_heads=16), ["16 key/value heads", "divides num_attention_heads"]),
    (dict(num_experts_per_tok=5), ["num_experts_per_tok is 5", "4 experts", "at most num_local_experts"]),
    (dict(num_local_experts=1), ["num_experts_per_tok is 2", "1 experts"]),
    (dict(rotary_dim=3), ["rotary_dim is 3", "even"]),
    (dict(rotary_dim=18), ["rotary_dim is 18", "head_dim = 16"]),
    (dict(rotary_dim=-2), ["rotary_dim is -2", "between 0"]),
    (dict(rotary_dim=8.0), ["rotary_dim is 8.0", "even"]),
    (dict(slopes=(0.5, 0.1)), ["[0.5, 0.1]", "8 numbers"]),
    (dict(slopes=(-0.1,) * 8), ["-0.1", "at least 0"]),
    (dict(slopes=(math.nan,) * 8), ["nan", "at least 0"]),
    (dict(slopes=("a",) * 8), ["slopes", "8 numbers"]),
    (dict(slopes=0.5), ["slopes", "8 numbers"]),
    (dict(tie_word_embeddings=True), ["tie_word_embeddings is true", "false"]),
    (dict(hidden_act="gelu"), ["'gelu'", "'silu'"]),
    (dict(rms_norm_eps=0.0), ["rms_norm_eps is 0.0", "above 0"]),
    (dict(rope_theta=-1.0), ["rope_theta is -1.0", "above 0"]),
    (dict(layernorm_mlp_alpha="big"), ["layernorm_mlp_alpha is 'big'", "number"]),
    (dict(layernorm_linear_attention_beta=math.inf), ["layernorm_linear_attention_beta is inf", "number"]),
    (dict(layernorm_mlp_beta=None), ["layernorm_mlp_beta is None", "number"]),
    (dict(router_aux_loss_coef=math.nan), ["router_aux_loss_coef is nan", "number"]),
] + [
    (dict([(name, value)]), [f"{name} is {value!r}", "whole number of at least 1"])
    for name in ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads",
                 "head_dim", "num_local_experts", "num_experts_per_tok", "max_position_embeddings", "block_size")
    for value in (0, -1, 1.5, "16", None, True)
]


@pytest.mark.parametrize("changes, words", REFUSED, ids=lambda x: str(x)[:60] if isinstance(x, dict) else "")
def test_refused(changes, words):
    with pytest.raises(UserError) as error:
        M1Config(**changes)
    text = str(error.value)
    assert all(word in text for word in words), text
    assert "\n" not in text


def test_the_same_mistakes_in_a_file(tmp_path):
    for changes, words in REFUSED:
        values = {**M1Config().to_dict(), **changes}
        if "rotary_dim" not in changes:
            values["rotary_dim"] = None
        path = tmp_path / "config.json"
        path.write_text(json.dumps(values))
        with pytest.raises(UserError):
            M1Config.load(path)


def test_defaults_follow_m1():
    config = M1Config()
    assert config.attn_type_list == (0, 0, 0, 0, 0, 0, 0, 1) == hybrid_pattern(8)
    assert config.rotary_dim == config.head_dim // 2
    for kind in ("full_attention", "linear_attention", "mlp"):
        assert getattr(config, f"layernorm_{kind}_alpha") == pytest.approx(2.0)  # (2 * 8)^(1/4)
        assert getattr(config, f"layernorm_{kind}_beta") == 1.0
    assert config.init_gain == pytest.approx(8**-0.5)  # (8 * 8)^(-1/4)
    plain = M1Config(postnorm=False)
    assert plain.layernorm_mlp_alpha == plain.layernorm_full_attention_alpha == plain.init_gain == 1.0
    assert M1Config(layernorm_mlp_alpha=3).layernorm_mlp_alpha == 3
    assert M1Config(rotary_dim=0).rotary_dim == 0


def test_m1_preset_is_its_config_json():
    config = preset("m1-456b")
    softmax_layers = [n for n, kind in enumerate(config.attn_type_list) if kind == SOFTMAX]
    assert softmax_layers == [7, 15, 23, 31, 39, 47, 55, 63, 71, 79]
    assert config.attn_type_list.count(LIGHTNING) == 70
    published = dict(
        vocab_size=200064, hidden_size=6144, intermediate_size=9216, num_hidden_layers=80, num_attention_heads=64,
        num_key_value_heads=8, head_dim=128, num_local_experts=32, num_experts_per_tok=2, postnorm=True,
        rms_norm_eps=1e-5, rope_theta=1e7, rotary_dim=64, max_position_embeddings=10_240_000,
        layernorm_full_attention_alpha=3.5565588200778455, layernorm_full_attention_beta=1.0,
        layernorm_linear_attention_alpha=3.5565588200778455, layernorm_linear_attention_beta=1.0,
        layernorm_mlp_alpha=3.5565588200778455, layernorm_mlp_beta=1.0, tie_word_embeddings=False, hidden_act="silu",
    )
    assert {name: getattr(config, name) for name in published} == published


def test_presets():
    assert set(PRESETS) == {"nano", "small", "m1-456b"}
    with pytest.raises(UserError, match="unknown preset 'huge'; choose one of nano, small, m1-456b"):
        preset("huge")


@pytest.mark.parametrize(
    "config",
    [*(make() for make in PRESETS.values()),
     M1Config(postnorm=False, slopes=(0, 1, 2, 3, 4, 5, 6, 7), rotary_dim=0, attn_type_list=[0, 1] * 4,
              fp32_head=False, layernorm_mlp_beta=0.5)],
    ids=[*PRESETS, "ablated"],
)
def test_json_round_trip(config, tmp_path):
    config.save(tmp_path / "config.json")
    again = M1Config.load(tmp_path / "config.json")
    assert again == config and hash(again) == hash(config)
    assert M1Config.from_dict(config.to_dict()) == config
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["format"] == 1 and values["model_type"] == "minim1"


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        M1Config().hidden_size = 5


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", ["not readable JSON", "config.json"]),
        (b'{"format": 1, ', ["not readable JSON"]),
        (b"\xff\xfe\x00", ["not readable JSON"]),
        (b"[1, 2]", ["holds a list", "object"]),
        (b"{}", ["format is None", "reads format 1"]),
        (b'{"format": 2}', ["format is 2", "reads format 1"]),
        (b'{"format": 1, "n_layers": 3}', ["'n_layers'", "num_hidden_layers"]),
    ],
)
def test_bad_files(content, words, tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        M1Config.load(path)
    assert all(word in str(error.value) for word in words), error.value


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="does not exist; expected the config.json"):
        M1Config.load(tmp_path / "none.json")
