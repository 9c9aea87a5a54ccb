"""Figure 1 (right) of the report, from formulas."""

import pytest

from minim1.config import M1Config, preset
from minim1.model.count import count
from minim1.report.flops import CONVENTIONS, K, MODELS, Curve, curves, flops_per_token, published, ratio

RATIOS = {  # convention -> marginal?, per cent at 32K, 64K, 100K, 128K
    ("clean, naive MLA", False): (64.5, 44.5, 33.9, 29.0),
    ("clean, naive MLA", True): (44.5, 29.0, 21.9, 18.9),
    ("clean, absorbed MLA", False): (28.4, 16.7, 11.8, 9.8),
    ("clean, absorbed MLA", True): (16.7, 9.8, 7.1, 6.0),
    ("the figure's own", False): (58.4, 38.5, 28.8, 24.4),
    ("the figure's, M1 mended", False): (None, 36.3, 27.6, 23.8),
    ("clean M1, the figure's R1", False): (None, 34.6, 25.7, 21.7),
}


@pytest.mark.parametrize("convention, marginal", RATIOS)
def test_ratios_to_r1_by_convention(convention, marginal):
    for length, expected in zip((32, 64, 100, 128), RATIOS[convention, marginal]):
        if expected is not None:
            assert round(100 * ratio(convention, length * K, marginal=marginal), 1) == expected


def test_ratios_to_qwen_cleanly_counted():
    found = [round(100 * ratio("clean, naive MLA", n * K, "Qwen3-235B")) for n in (32, 64, 100, 128)]
    assert found == [107, 73, 55, 47]


def test_the_published_points_lie_on_the_figures_own_curves():
    for model, points in published().items():
        assert len(points) > 10
        for tokens, flops in points:
            assert abs(curves("the figure's own")[model].total(tokens) - flops) < 6e11  # the last digit of the reading


def test_the_figures_coefficients_in_multiply_adds():
    linear = {model: round(curve.linear / 2e9, 4) for model, curve in curves("the figure's own").items()}
    assert linear == {"MiniMax-M1": 52.2655, "DeepSeek-R1": 37.7073, "Qwen3-235B": 21.5184}
    assert [curves("the figure's own")[model].quadratic for model in MODELS] == [196608, 3497984, 2310144]


def test_a_clean_total_is_the_sum_over_its_tokens():
    for curve in curves("clean, naive MLA").values():
        assert curve.total(50) == sum(curve.token(position) for position in range(1, 51))
        assert curve.token(9) - curve.token(8) == 2 * curve.quadratic


def test_m1_costs_its_active_weights_its_states_and_its_context():
    config = preset("m1-456b")
    found = count(config)
    weights = found["active_parameters"] + found["by_group"]["head"] - found["by_group"]["norms"]
    inner_norms = 70 * 8192  # counted with lightning attention there; norms are not counted here
    states, context = 70 * 64 * 128 * 128 * 2, 10 * 64 * 256
    assert flops_per_token(config, 1000) == 2 * (weights - inner_norms + states + 1000 * context)


def test_without_softmax_layers_no_context_is_looked_at():
    config = M1Config(num_hidden_layers=2, attn_type_list=(0, 0))
    assert flops_per_token(config, 1) == flops_per_token(config, 10**6)


def test_every_convention_keeps_m1_below_half_of_r1_at_64k_and_none_that_is_clean_gives_a_quarter_at_100k():
    assert all(ratio(convention, 64 * K) < 0.5 for convention in CONVENTIONS)
    clean = [ratio(name, 100 * K, marginal=marginal) for name in CONVENTIONS[:2] for marginal in (False, True)]
    assert all(abs(value - 0.25) > 0.03 for value in clean)


def test_a_curve_counts_two_flops_for_a_multiply_add():
    assert Curve.of(fixed=10, context=3).total(2) == 2 * (10 + 3) + 2 * (10 + 6)
