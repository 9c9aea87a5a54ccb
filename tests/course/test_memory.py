"""The peak is that of the call: what it holds at once, not all that it ever made."""

import torch

from minim1.course.memory import peak_bytes


def test_only_what_is_held_at_once_counts():
    def in_turn():
        for _ in range(5):
            torch.zeros(1000)

    assert peak_bytes(in_turn) == 4000
    assert peak_bytes(lambda: [torch.zeros(1000) for _ in range(5)]) == 20_000
    assert peak_bytes(lambda: None) == 0


def test_what_a_fused_function_uses_inside_counts():
    x = torch.randn(1, 1, 64, 16)
    held = peak_bytes(lambda: torch.nn.functional.scaled_dot_product_attention(x, x, x))
    assert held >= x.nbytes


def test_nothing_is_written_to_stderr(capfd):
    peak_bytes(lambda: torch.zeros(1000))
    assert capfd.readouterr().err == ""
