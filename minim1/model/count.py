"""How many? Exact parameters and bytes of a config, read off the model itself on the meta device: nothing is allocated.

Active parameters are those multiplied for one token, except embedding and LM head: the count that gives
MiniMax-M1's published 45.9 B (report abstract).
"""

import torch

from minim1.config import LIGHTNING, M1Config
from minim1.model.decoder import MiniM1

BF16, FP32 = 2, 4  # bytes
GROUPS = ("experts", "lightning attention", "softmax attention", "embedding", "head", "routers", "norms")


def count(config: M1Config, context_length: int | None = None) -> dict:
    """Exact parameters and bytes of a model, ready for JSON.

    Args:
        context_length: tokens in the cache of one sequence; default: `max_position_embeddings`.
    Returns:
        parameters, active_parameters, by_group (their sum is `parameters`), checkpoint_bytes (bf16 with fp32
        routers, as M1 is released), kv_cache_bytes_per_token (bf16), lightning_state_bytes (fp32, whatever the
        length), context_length and cache_bytes (both kinds together at that length, one sequence).

    >>> count(M1Config())["parameters"] == sum(p.numel() for p in MiniM1(M1Config()).parameters())
    True
    """
    with torch.device("meta"):
        model = MiniM1(config)
    by_group = dict.fromkeys(GROUPS, 0)
    for name, parameter in model.named_parameters():
        by_group[_group(name, config)] += parameter.numel()
    parameters = sum(by_group.values())
    idle = by_group["experts"] // config.num_local_experts * (config.num_local_experts - config.num_experts_per_tok)

    lightning_layers = config.attn_type_list.count(LIGHTNING)
    softmax_layers = config.num_hidden_layers - lightning_layers
    per_token = softmax_layers * 2 * config.num_key_value_heads * config.head_dim * BF16
    state = lightning_layers * config.num_attention_heads * config.head_dim**2 * FP32
    length = config.max_position_embeddings if context_length is None else context_length
    return {
        "parameters": parameters,
        "active_parameters": parameters - by_group["embedding"] - by_group["head"] - idle,
        "by_group": by_group,
        "checkpoint_bytes": BF16 * parameters + (FP32 - BF16) * by_group["routers"],
        "kv_cache_bytes_per_token": per_token,
        "lightning_state_bytes": state,
        "context_length": length,
        "cache_bytes": length * per_token + state,
        "lightning_layers": lightning_layers,
        "softmax_layers": softmax_layers,
    }


def format_count(found: dict) -> str:
    """The result of `count` as a short table."""
    total = found["parameters"]
    lines = [
        f"{total:>21,}  parameters ({_short(total)}), {found['lightning_layers']} lightning "
        f"and {found['softmax_layers']} softmax layers",
        f"{found['active_parameters']:>21,}  active per token ({_short(found['active_parameters'])}), "
        "without embedding and head",
    ]
    lines += [f"{number:>21,}    {group} ({number / total:.1%})" for group, number in found["by_group"].items()]
    lines += [
        f"{found['checkpoint_bytes']:>21,}  bytes of checkpoint (bf16, routers fp32)",
        f"{found['kv_cache_bytes_per_token']:>21,}  bytes of KV cache for each token (bf16)",
        f"{found['lightning_state_bytes']:>21,}  bytes of lightning state at any length (fp32)",
        f"{found['cache_bytes']:>21,}  bytes of cache at {found['context_length']:,} tokens",
    ]
    return "\n".join(lines)


def _group(name: str, config: M1Config) -> str:
    """Group of a parameter by its name; the norm inside lightning attention counts with that attention."""
    if name.startswith("lm_head."):
        return "head"
    if name.startswith("model.embed_tokens."):
        return "embedding"
    if ".experts." in name:
        return "experts"
    if ".block_sparse_moe.gate." in name:
        return "routers"
    if ".self_attn." in name:
        layer = int(name.split(".")[2])
        return "lightning attention" if config.attn_type_list[layer] == LIGHTNING else "softmax attention"
    return "norms"


def _short(number: int) -> str:
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if number >= size:
            return f"{number / size:.3f} {unit}"
    return str(number)
