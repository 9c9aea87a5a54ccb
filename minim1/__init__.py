"""minim1: a compact, complete and exact scaled-down MiniMax-M1.

>>> from minim1 import MiniM1, preset
>>> model = MiniM1(preset("nano"))                                              # doctest: +SKIP
"""

import importlib

_HOMES = {  # public name -> module; imported on first use, so that `import minim1` costs nothing
    "M1Config": "config", "preset": "config",
    "MiniM1": "model.decoder",
    "lightning_attention": "model.lightning", "decay_slopes": "model.lightning",
    "softmax_attention": "model.softmax", "rotary": "model.softmax",
    "top_k_router": "model.moe", "load_balancing_loss": "model.moe",
    "Parts": "parts",
    "generate": "generation", "Sampling": "generation", "sample_token": "generation",
    "load": "train.checkpoint",
    "group_advantages": "train.losses", "cispo_loss": "train.losses", "grpo_loss": "train.losses",
    "dapo_loss": "train.losses", "ppo_loss": "train.losses", "reinforce_loss": "train.losses",
    "next_token_loss": "train.losses", "token_logprobs": "train.losses",
    "Trainer": "train.loop", "RLTrainer": "train.rl",
    "UserError": "errors",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'minim1' has no attribute {name!r}")
    return getattr(importlib.import_module(f"minim1.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
