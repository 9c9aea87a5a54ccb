"""The replaceable functions of the network. `minim1.parts.Parts` adds those of training."""

from collections.abc import Callable
from dataclasses import dataclass

from minim1.model.lightning import lightning_attention
from minim1.model.moe import dispatch, load_balancing_loss, top_k_router
from minim1.model.softmax import rotary, softmax_attention


@dataclass(frozen=True)
class ModelParts:
    """Functions the model calls; the contract of each is the docstring of its default."""

    lightning: Callable = lightning_attention
    attention: Callable = softmax_attention
    rope: Callable = rotary
    router: Callable = top_k_router
    dispatch: Callable = dispatch
    balance_loss: Callable = load_balancing_loss
