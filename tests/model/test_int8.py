"""Weight-only int8: how far a weight and a product may be off, what is left out, and what it saves."""

import pytest
import torch
from torch import nn

from minim1 import Sampling, generate
from minim1.config import M1Config
from minim1.model.decoder import MiniM1
from minim1.model.int8 import SKIPPED, Int8Linear, int8_matmul, quantise, to_int8, weight_bytes
from minim1.report import memory
from minim1.report.experiments.serving import rounded

CONFIG = M1Config(vocab_size=50, hidden_size=24, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2,
                  num_key_value_heads=1, head_dim=8, attn_type_list=(0, 1), num_local_experts=3)


def draw(*shape, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (3, 4, 33)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_no_weight_moves_by_more_than_half_a_scale(shape, dtype):
    weight = draw(*shape).mul(torch.logspace(-3, 2, shape[-2], dtype=torch.float64).unsqueeze(1)).to(dtype)
    codes, scales = quantise(weight)
    assert codes.dtype == torch.int8 and scales.dtype == torch.float32 and scales.shape == (*shape[:-1], 1)
    assert codes.abs().max() == 127 and codes.min() >= -127
    off = (codes.double() * scales.double() - weight.double()).abs()
    assert (off <= scales * (0.5 + 1e-4)).all()


def test_halves_go_to_the_even_neighbour_and_zeros_have_scale_1():
    codes, scales = quantise(torch.tensor([[127.0, 0.5, 1.5, -2.5], [0, 0, 0, 0]]))
    assert codes.tolist() == [[127, 0, 2, -2], [0, 0, 0, 0]] and scales.flatten().tolist() == [1, 1]


def test_a_row_of_tiny_numbers_is_not_lost():
    codes, scales = quantise(torch.full((1, 3), -1e-30))
    assert codes.tolist() == [[-127] * 3] and torch.allclose(codes * scales, torch.full((1, 3), -1e-30), atol=0)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_the_product_is_that_of_the_codes_and_within_the_bound(dtype, tolerance):
    x, weight = draw(3, 2, 40).to(dtype), draw(6, 40)
    codes, scales = quantise(weight)
    out = int8_matmul(x, codes, scales)
    assert out.dtype == dtype and out.shape == (3, 2, 6)
    exact = x.double() @ (codes.double() * scales.double()).T
    assert (out - exact).abs().max() <= tolerance * exact.abs().max()
    bound = scales.squeeze(1).double() / 2 * x.double().abs().sum(-1, keepdim=True)
    assert ((exact - x.double() @ weight.T).abs() <= bound * (1 + 1e-4)).all()


def test_what_m1_leaves_out_stays_and_everything_else_is_coded():
    model = MiniM1(CONFIG)
    coded = to_int8(model)
    left = {name for name, parameter in coded.named_parameters() if parameter.ndim > 1}
    assert {name.split(".")[-2] for name in left} == set(SKIPPED)
    assert not any(isinstance(module, nn.Linear) and name.split(".")[-1] not in SKIPPED
                   for name, module in coded.named_modules())
    assert isinstance(coded.model.layers[0].self_attn.output_gate, Int8Linear)  # its name ends in "gate", too
    assert isinstance(model.model.layers[0].self_attn.output_gate, nn.Linear)  # the model itself is unchanged


def test_a_coded_model_computes_what_its_rounded_weights_say():
    model, ids = MiniM1(CONFIG), torch.arange(60).view(2, 30) % 50
    with torch.no_grad():
        got, expected, exact = to_int8(model)(ids).logits, rounded(model, 8)(ids).logits, model(ids).logits
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    assert (got - exact).abs().max() > 1e-4  # the test can see the rounding


def test_it_generates_without_copies_of_its_weights():
    coded = to_int8(MiniM1(CONFIG))
    prompt, sampling = [[1, 2, 3]], Sampling(max_new_tokens=8, temperature=0)
    step = coded.new_step()
    assert not hasattr(step, "layers")  # JoinedStep would hold what the codes stand for
    got = generate(coded, prompt, sampling).completions
    assert got == generate(rounded(coded_twin(), 8), prompt, sampling).completions


def coded_twin():
    return MiniM1(CONFIG)  # the same seed, the same weights


def test_its_bytes_are_the_calculators():
    model = MiniM1(CONFIG).bfloat16()
    for name, parameter in model.named_parameters():
        if name.endswith("moe.gate.weight"):
            parameter.data = parameter.data.float()  # as M1 is released
    sizes = memory.sizes(CONFIG)
    assert weight_bytes(model) == memory.weight_bytes(sizes, "bf16")
    assert weight_bytes(to_int8(model)) == memory.weight_bytes(sizes, "int8")
