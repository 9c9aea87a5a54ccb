"""How long may it take? `scale()`: the one place that says what `MINIM1_SCALE` = smoke, cpu or gpu means."""

import os
from dataclasses import dataclass
from typing import TypeVar

from minim1.config import M1Config
from minim1.config import preset as named_preset
from minim1.errors import UserError

T = TypeVar("T")
TRAINING_SECONDS = 1200  # a whole run, in chapter 16 alone


@dataclass(frozen=True)
class Scale:
    """One scale: which model, where it runs, and what a notebook may cost on two cores (or one GPU)."""

    name: str
    preset: str
    device: str
    cell_seconds: int
    notebook_seconds: int

    def seconds_of(self, tags) -> int:
        """What a cell with these tags may take: one that is tagged `training` says so above it, and can be resumed."""
        return TRAINING_SECONDS if "training" in tags else self.cell_seconds

    def pick(self, *, smoke: T, cpu: T, gpu: T) -> T:
        """The value for this scale.

        >>> SCALES["cpu"].pick(smoke=64, cpu=2048, gpu=16384)
        2048
        """
        return {"smoke": smoke, "cpu": cpu, "gpu": gpu}[self.name]

    @property
    def config(self) -> M1Config:
        """The config of the preset."""
        return named_preset(self.preset)


SCALES = {made.name: made for made in (
    Scale("smoke", preset="nano", device="cpu", cell_seconds=15, notebook_seconds=15),  # tests: everything cut short
    Scale("cpu", preset="nano", device="cpu", cell_seconds=60, notebook_seconds=300),
    Scale("gpu", preset="small", device="cuda", cell_seconds=60, notebook_seconds=300),
)}


def scale() -> Scale:
    """The scale that `MINIM1_SCALE` names; without it, gpu where there is CUDA and cpu elsewhere.

    Raises `UserError` on another name, and on gpu where there is no CUDA.
    """
    name = os.environ.get("MINIM1_SCALE", "")
    if not name:
        return SCALES["gpu" if _has_cuda() else "cpu"]
    if name not in SCALES:
        raise UserError(f"MINIM1_SCALE is {name!r}; set it to one of {', '.join(SCALES)}, or leave it unset")
    if name == "gpu" and not _has_cuda():
        raise UserError("MINIM1_SCALE is 'gpu' but torch finds no CUDA here; set it to cpu, or leave it unset")
    return SCALES[name]


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()
