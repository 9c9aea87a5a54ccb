"""Will it fit? Bytes of weights and caches of any config, exact and without allocating them.

This is the arithmetic behind a rule of MiniMax-01: fewer than 500 billion parameters, so that 8-bit weights and a
million tokens fit into one machine of 8 x 80 GB (MiniMax-01 report §2.4).
"""

import torch

from minim1.config import M1Config
from minim1.model.count import BF16, FP32, count
from minim1.model.decoder import MiniM1

INT8 = 1  # bytes
NODE = {"gpus": 8, "gpu_bytes": 80 * 10**9}  # the machine of the rule; nothing is set aside for activations
WEIGHTS = ("int8", "bf16")


def sizes(config: M1Config) -> dict[str, int]:
    """What a model of this config is made of, as `weight_bytes`, `sequence_bytes` and `cost.cost_model` want it.

    Returns: matrices (numbers that int8 covers) and channels (their rows), embedding, head, routers, norms: numbers
        in each; cache_per_token (bf16) and state (fp32): bytes of a sequence; active: parameters multiplied per token.

    >>> sizes(M1Config())["channels"]
    13760
    """
    with torch.device("meta"):
        model = MiniM1(config)
    found, counted = count(config), dict.fromkeys(("matrices", "channels", "norms"), 0)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            counted["norms"] += parameter.numel()
        elif not name.startswith(("lm_head.", "model.embed_tokens.")) and ".block_sparse_moe.gate." not in name:
            counted["matrices"] += parameter.numel()
            counted["channels"] += parameter.numel() // parameter.shape[-1]
    return counted | {
        "embedding": found["by_group"]["embedding"], "head": found["by_group"]["head"],
        "routers": found["by_group"]["routers"], "cache_per_token": found["kv_cache_bytes_per_token"],
        "state": found["lightning_state_bytes"], "active": found["active_parameters"],
    }


def weight_bytes(model: dict[str, int], weights: str = "int8") -> int:
    """Bytes of the weights of `sizes`: bf16 with fp32 routers, or matrices in int8 with an fp32 scale per channel.

    >>> weight_bytes(sizes(M1Config()), "bf16")
    3101632
    """
    rest = BF16 * (model["embedding"] + model["head"] + model["norms"]) + FP32 * model["routers"]
    if weights == "int8":
        return INT8 * model["matrices"] + FP32 * model["channels"] + rest
    return BF16 * model["matrices"] + rest


def sequence_bytes(model: dict[str, int], context: int) -> int:
    """Bytes that one sequence of `context` tokens holds: KV cache and lightning state."""
    return context * model["cache_per_token"] + model["state"]


def sequences(model: dict[str, int], context: int, weights: str = "int8", machine: dict = NODE) -> int:
    """How many such sequences fit beside the weights; 0 also when not even the weights do."""
    room = machine["gpus"] * machine["gpu_bytes"] - weight_bytes(model, weights)
    return max(room // sequence_bytes(model, context), 0)


def longest(model: dict[str, int], weights: str = "int8", machine: dict = NODE) -> int:
    """How many tokens a single sequence may have; 0 when the weights alone do not fit."""
    room = machine["gpus"] * machine["gpu_bytes"] - weight_bytes(model, weights) - model["state"]
    return max(room // model["cache_per_token"], 0)
