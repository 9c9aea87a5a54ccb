"""Weight-only int8: matrices held as 8-bit codes with one scale per output channel, activations left as they are.

M1's recipe (its `main.py`) keeps LM head, embedding and routers out of it; norms are no matrices. O output channels,
I input channels. This saves memory. Whether it saves time depends on the device: here the codes are converted before
each product, which costs time on a CPU.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minim1.model.decoder import Experts, MiniM1

SKIPPED = ("lm_head", "embed_tokens", "gate")  # names of the modules that stay as they are; `output_gate` does not
LARGEST = 127  # symmetric: -128 is not used


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight (..., O, I) to codes (..., O, I) int8 and scales (..., O, 1) fp32; codes * scales is near the weight.

    A scale is its row's largest magnitude / 127, and 1 for a row of zeros; codes are rounded, halves to even.

    >>> quantise(torch.tensor([[127.0, -2.5]]))
    (tensor([[127,  -2]], dtype=torch.int8), tensor([[1.]]))
    """
    weight = weight.detach().float()
    scales = weight.abs().amax(-1, keepdim=True) / LARGEST
    scales = torch.where(scales > 0, scales, 1.0)
    return (weight / scales).round().clamp(-LARGEST, LARGEST).to(torch.int8), scales


def int8_matmul(x: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
    """x (..., I) times the matrix that codes (O, I) and scales (O, 1) stand for -> (..., O) in x's dtype.

    Whole numbers up to 127 are exact in bfloat16 too, so that only the product and the scales are rounded.
    """
    return F.linear(x, codes.to(x.dtype)) * scales.squeeze(-1).to(x.dtype)


class Int8Linear(nn.Module):
    """In the place of an `nn.Linear` without bias."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        codes, scales = quantise(weight)
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)

    def forward(self, x: Tensor) -> Tensor:
        return int8_matmul(x, self.codes, self.scales)


class Int8Experts(nn.Module):
    """In the place of `Experts`: w1, w2, w3 are made anew from the codes whenever they are read."""

    def __init__(self, experts: Experts) -> None:
        super().__init__()
        self.dtype = experts.w1.dtype
        for name in ("w1", "w2", "w3"):
            codes, scales = quantise(getattr(experts, name))
            self.register_buffer(f"{name}_codes", codes)
            self.register_buffer(f"{name}_scales", scales)

    def _weight(self, name: str) -> Tensor:
        return (getattr(self, f"{name}_codes") * getattr(self, f"{name}_scales")).to(self.dtype)

    w1 = property(lambda self: self._weight("w1"))
    w2 = property(lambda self: self._weight("w2"))
    w3 = property(lambda self: self._weight("w3"))


def to_int8(model: MiniM1) -> MiniM1:
    """A copy of the model for inference, in eval mode, its matrices in int8 except those in `SKIPPED`.

    Convert dtype and device before, not after. It answers and is measured like any other model, but cannot be trained
    or saved: `save_model` writes parameters, and codes are none.
    """
    made = copy.deepcopy(model).eval().requires_grad_(False)
    for module in list(made.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and name not in SKIPPED:
                setattr(module, name, Int8Linear(child.weight))
            elif isinstance(child, Experts):
                setattr(module, name, Int8Experts(child))
    return made


def weight_bytes(model: nn.Module) -> int:
    """Bytes of everything that the model holds of its weights, codes and scales (slopes, which are fixed, left out).

    >>> weight_bytes(nn.Linear(4, 2, bias=False))
    32
    """
    held = [*model.named_parameters(), *model.named_buffers()]
    return sum(tensor.numel() * tensor.element_size() for name, tensor in held if not name.endswith("slopes"))
