"""What stays in fp32 whatever the activations are: routers, norms, states, the LM head (report §3.2, M1's code)."""

from contextlib import nullcontext

import torch
from torch import Tensor


def at_least_fp32(x: Tensor) -> Tensor:
    """x itself if fp32 or fp64, else in fp32. (`x.to(dtype)` costs as much as a small operation even when it does nothing.)"""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def without_autocast(x: Tensor):
    """A context without autocast on x's device, entered only if there is one to leave."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()
