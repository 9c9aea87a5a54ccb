"""The decay of each head and layer, against published numbers, the report's formula and transformers."""

import math
from types import SimpleNamespace

import pytest
import torch

from minim1.model.lightning import base_slopes, decay_slopes


@pytest.mark.parametrize(
    "layer, fastest, fastest_life, slowest, slowest_life",
    [
        (0, 0.3997, 0.76, 0.996101, 177),
        (38, 0.6213, 1.5, 0.997975, 342),
        (70, 0.9008, 6.6, 0.999555, 1557),
        (78, 0.9885, 60, 0.9999505, 14007),
    ],
)
def test_m1_table(layer, fastest, fastest_life, slowest, slowest_life):
    """Computed by hand from the formula in M1's code: decay per token and half-life of the first and last of 64 heads in 80 layers."""
    slopes = decay_slopes(64, layer, 80).double()
    assert slopes.shape == (64,)
    assert math.exp(-slopes[0]) == pytest.approx(fastest, abs=5e-5)
    assert math.exp(-slopes[-1]) == pytest.approx(slowest, abs=5e-7)
    assert math.log(2) / slopes[0] == pytest.approx(fastest_life, rel=0.035)  # two digits in the table
    assert math.log(2) / slopes[-1] == pytest.approx(slowest_life, abs=0.5)


def test_m1_extremes():
    base = base_slopes(64)
    assert base[0] == pytest.approx(0.917004, abs=1e-6) and base[-1] == 2**-8
    assert decay_slopes(64, 79, 80)[-1].item() == pytest.approx(2**-8 * 1e-5, rel=1e-5)
    assert decay_slopes(64, 0, 80).dtype == torch.float32
    ratios = torch.tensor(base)[1:] / torch.tensor(base)[:-1]
    torch.testing.assert_close(ratios, torch.full((63,), 2 ** (-8 / 64)))


@pytest.mark.parametrize("heads, layers", [(1, 2), (2, 3), (4, 8), (8, 8), (16, 24), (64, 80)])
def test_equals_transformers(heads, layers):
    modeling = pytest.importorskip("transformers.models.minimax.modeling_minimax")
    for layer in range(layers):
        settings = SimpleNamespace(num_attention_heads=heads, num_hidden_layers=layers, layer_idx=layer)
        theirs = modeling.MiniMaxLightningAttention.get_slope_rate(settings).flatten()
        torch.testing.assert_close(decay_slopes(heads, layer, layers), theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "heads, powers",  # exponents of 1/2: the ladder of the lower power of two, then every other one of twice that
    [
        (3, [4, 8, 2]),
        (6, [2, 4, 6, 8, 1, 3]),
        (12, [1, 2, 3, 4, 5, 6, 7, 8, 0.5, 1.5, 2.5, 3.5]),
    ],
)
def test_heads_that_are_no_power_of_two(heads, powers):
    assert base_slopes(heads) == pytest.approx([2.0**-power for power in powers], rel=1e-12)


def test_one_layer_does_not_divide_by_zero():
    expected = torch.tensor([0.25, 0.0625, 2**-6, 2**-8]) * (1 + 1e-5)
    torch.testing.assert_close(decay_slopes(4, 0, 1), expected, atol=0, rtol=1e-6)


def test_layers_and_own_base():
    """Early layers are the most local; a base of one's own is scaled by layer like M1's."""
    by_layer = torch.stack([decay_slopes(8, layer, 8) for layer in range(8)])
    assert (by_layer[1:] < by_layer[:-1]).all() and (by_layer > 0).all()
    torch.testing.assert_close(by_layer[6] / by_layer[0], torch.full((8,), (1 / 7 + 1e-5) / (1 + 1e-5)))
    torch.testing.assert_close(decay_slopes(2, 1, 3, (0.0, 3.0)), torch.tensor([0.0, 3 * (0.5 + 1e-5)]))
