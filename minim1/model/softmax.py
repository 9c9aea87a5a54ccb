"""Softmax attention of every eighth layer: causal, grouped-query, with rotary positions on part of each head.

B batch, T queries, S keys (the queries are the last T of them), H heads, KV key/value heads, D head dim.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def rotary(x: Tensor, positions: Tensor, *, rotary_dim: int, theta: float) -> Tensor:
    """Rotate the first `rotary_dim` dims of each head by position; the rest pass (M1's code; MiniMax-01 report §2.4).

    Pairs are (i, i + rotary_dim/2) with angle position * theta^(-2i/rotary_dim), computed in fp32 (or x's fp64).

    Args: x (B, T, H, D); positions (B, T) integers. Returns: (B, T, H, D) in x's dtype.

    >>> rotary(torch.ones(1, 1, 1, 4), torch.tensor([[0]]), rotary_dim=2, theta=1e4).flatten().tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    if rotary_dim == 0:
        return x
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    exponents = torch.arange(0, rotary_dim, 2, device=x.device, dtype=dtype) / rotary_dim
    angles = positions.unsqueeze(-1).to(dtype) * theta**-exponents  # (B, T, rotary_dim/2)
    cos, sin = angles.cos().unsqueeze(2), angles.sin().unsqueeze(2)
    first, second, rest = x.split([rotary_dim // 2, rotary_dim // 2, x.shape[-1] - rotary_dim], dim=-1)
    rotated = (first * cos - second * sin, second * cos + first * sin)
    return torch.cat([part.to(x.dtype) for part in (*rotated, rest)], dim=-1)


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Causal softmax attention with scale 1/sqrt(D) and grouped key/value heads: the contract of the part `attention`.

    Args:
        q: (B, T, H, D); k, v: (B, S, KV, D) with H a multiple of KV; query head h reads key head h // (H/KV).
        mask: (B, T, S) bool, True where a query may look, or None for plain causal order, the queries being
            the last T of the S positions.
    Returns:
        (B, T, H, D); a query that may look nowhere (padding) gets 0.
    """
    batch, queries, heads, dim = q.shape
    keys, group = k.shape[1], heads // k.shape[2]
    if queries == 1:  # decoding: heads that share a key head are so many queries to it, which needs no copy of keys
        q = q.reshape(batch, -1, group, dim).transpose(1, 2)
    elif group > 1:
        k, v = (x.repeat_interleave(group, dim=2) for x in (k, v))
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if mask is None and 1 < queries < keys:
        mask = torch.ones(1, queries, keys, dtype=torch.bool, device=q.device).tril(keys - queries)
    if mask is None:
        out = F.scaled_dot_product_attention(q, k, v, is_causal=queries > 1)
    else:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.unsqueeze(1))
        out = out.masked_fill(~mask.any(-1)[:, None, :, None], 0)  # SDPA leaves rows without keys undefined
    return out.reshape(batch, 1, heads, dim) if queries == 1 else out.transpose(1, 2)
