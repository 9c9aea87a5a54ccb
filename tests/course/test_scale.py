"""One place says what a scale means."""

import pytest
import torch

from minim1.course.scale import SCALES, scale
from minim1.errors import UserError


@pytest.fixture
def machine(monkeypatch):
    def be(cuda, **environment):
        monkeypatch.delenv("MINIM1_SCALE", raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)

    return be


@pytest.mark.parametrize("cuda, name", [(False, "cpu"), (True, "gpu")])
@pytest.mark.parametrize("environment", [{}, {"MINIM1_SCALE": ""}])
def test_the_default_follows_the_machine(machine, cuda, name, environment):
    machine(cuda, **environment)
    assert scale().name == name


def test_the_environment_decides(machine):
    machine(True, MINIM1_SCALE="smoke")
    assert scale() is SCALES["smoke"] and scale().pick(smoke=1, cpu=2, gpu=3) == 1 and scale().device == "cpu"


def test_each_scale_picks_its_own_value_and_has_a_model():
    assert [made.pick(smoke="s", cpu="c", gpu="g") for made in SCALES.values()] == ["s", "c", "g"]
    assert SCALES["cpu"].config.num_hidden_layers == 8 and SCALES["gpu"].config.num_hidden_layers == 16
    assert SCALES["cpu"].device == "cpu" and SCALES["gpu"].device == "cuda"


@pytest.mark.parametrize("value", ["CPU", "tiny", "cpu "])
def test_an_unknown_scale_is_refused(machine, value):
    machine(False, MINIM1_SCALE=value)
    with pytest.raises(UserError, match=f"MINIM1_SCALE is '{value}'; set it to one of smoke, cpu, gpu"):
        scale()


def test_gpu_without_cuda_is_refused(machine):
    machine(False, MINIM1_SCALE="gpu")
    with pytest.raises(UserError, match="finds no CUDA"):
        scale()
