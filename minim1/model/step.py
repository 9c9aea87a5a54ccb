"""One decoding step with few, large operations: the same network as `decoder.py`, its weights joined.

With one token a row, a step of `MiniM1` is bound by the number of operations, not by arithmetic. Here the
matrices that read the same vector are one matrix, residuals ride on matrix products, and states are updated in place.
It works on the cache of the model, so that the two can take turns. B rows, H heads, D head dim, C hidden, E experts.
"""

import math
from dataclasses import fields

import torch
import torch.nn.functional as F
from torch import Tensor

from minim1.config import LIGHTNING
from minim1.model.cache import DecodeCache, KVCache, LinearState
from minim1.model.moe import FEW, top_k_router
from minim1.model.parts import ModelParts
from minim1.model.softmax import rotary, softmax_attention


def can_join(model) -> bool:
    """Whether a `JoinedStep` computes what the model does: parts of the package's own, all of it fp32 or all fp64.

    Not with int8 codes: joined copies of what they stand for would hold the memory that they save.
    """
    names = {part.name for part in fields(ModelParts)} - {"balance_loss"}  # which decoding does not need
    own = all(getattr(model.parts, name) is getattr(ModelParts(), name) for name in names)
    dtypes, device = {p.dtype for p in model.parameters()}, next(model.parameters()).device.type
    coded = any(buffer.dtype == torch.int8 for buffer in model.buffers())
    return own and not coded and dtypes in ({torch.float32}, {torch.float64}) and not torch.is_autocast_enabled(device)


class JoinedStep:
    """`step(ids, cache)`: logits (B, V) of the next token, for ids (B,); extends a cache that has read something.

    The weights are copies of the model's at the time: make a new one when those have changed.
    """

    @torch.no_grad()
    def __init__(self, model) -> None:
        self.model = model
        self.layers = [
            ((_Lightning if kind == LIGHTNING else _Softmax)(block), _Experts(block))
            for kind, block in zip(model.config.attn_type_list, model.model.layers)
        ]
        self.norm = _Norm(model.model.norm)
        self.room: Tensor | None = None  # for q * state: so large a tensor would be fresh pages of memory every time

    @torch.no_grad()
    def __call__(self, ids: Tensor, cache: DecodeCache) -> Tensor:
        runs, positions = cache.extend(ids.unsqueeze(1), None)
        mask = cache.mask(runs)
        if self.room is None or len(self.room) != len(ids):
            self.room = next((torch.empty_like(layer.state) for layer in cache.layers if isinstance(layer, LinearState)), None)
        h = F.embedding(ids, self.model.model.embed_tokens.weight)
        for (attention, experts), memory in zip(self.layers, cache.layers):
            h = experts(attention(h, memory, self.room) if isinstance(memory, LinearState)
                        else attention(h, memory, positions, mask))
        return F.linear(self.norm(h), self.model.lm_head.weight)


class _Norm:
    """RMSNorm as x / |x| * weight * sqrt(C), with eps inside the length: half the operations."""

    def __init__(self, norm) -> None:
        size = norm.weight.numel()
        self.weight = norm.weight * math.sqrt(size)
        self.floor = norm.weight.new_tensor(math.sqrt(size * norm.eps))

    def __call__(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return torch.div(x, torch.hypot(length, self.floor)).mul_(self.weight)


class _Sublayer:
    """h -> alpha * y + beta * (f(y) @ out), with y = norm(h)."""

    def __init__(self, norm, out: Tensor, scale: tuple[float, float], postnorm: bool) -> None:
        self.norm, self.out, self.postnorm = _Norm(norm), out, postnorm
        self.alpha, self.beta = scale

    def residual(self, h: Tensor, y: Tensor, inner: Tensor) -> Tensor:
        return torch.addmm(y if self.postnorm else h, inner, self.out, beta=self.alpha, alpha=self.beta)


class _Lightning(_Sublayer):
    def __init__(self, block) -> None:
        attention = block.self_attn
        super().__init__(block.input_layernorm, attention.out_proj.weight.t(), block.attention_scale, block.postnorm)
        self.project = torch.cat([attention.qkv_proj.weight, attention.output_gate.weight])
        self.heads, self.inner = attention.heads, attention.heads * attention.head_dim
        self.inner_norm = _Norm(attention.norm)
        self.decay = torch.exp(-attention.slopes.to(self.project.dtype)).view(-1, 1, 1)

    def __call__(self, h: Tensor, memory: LinearState, room: Tensor) -> Tensor:
        y = self.norm(h)
        qkv, gate = F.linear(y, self.project).split([3 * self.inner, self.inner], dim=1)
        q, k, v = F.silu(qkv, inplace=True).view(len(y), self.heads, -1).chunk(3, dim=-1)  # (B, H, D)
        memory.state.mul_(self.decay).addcmul_(k.unsqueeze(-1), v.unsqueeze(-2))
        out = torch.mul(q.unsqueeze(-1), memory.state, out=room).sum(-2).view(len(y), -1)
        return self.residual(h, y, self.inner_norm(out).mul_(gate.sigmoid_()))


class _Softmax(_Sublayer):
    def __init__(self, block) -> None:
        attention = self.attention = block.self_attn
        super().__init__(block.input_layernorm, attention.o_proj.weight.t(), block.attention_scale, block.postnorm)
        self.project = torch.cat([getattr(attention, f"{name}_proj").weight for name in "qkv"])

    def __call__(self, h: Tensor, memory: KVCache, positions: Tensor, mask: Tensor | None) -> Tensor:
        y, a = self.norm(h), self.attention
        heads = F.linear(y, self.project).view(len(y), 1, -1, a.head_dim)
        turned = rotary(heads[:, :, : a.heads + a.kv_heads], positions, rotary_dim=a.rotary_dim, theta=a.theta)
        k, v = memory.append(turned[:, :, a.heads :], heads[:, :, a.heads + a.kv_heads :])
        out = softmax_attention(turned[:, :, : a.heads], k, v, mask=mask)
        return self.residual(h, y, out.view(len(y), -1))


class _Experts(_Sublayer):
    def __init__(self, block) -> None:
        moe, experts = block.block_sparse_moe, block.block_sparse_moe.experts
        number, width, hidden = experts.w1.shape
        out = experts.w2.transpose(1, 2).reshape(number * width, hidden)
        super().__init__(block.post_attention_layernorm, out, block.mlp_scale, block.postnorm)
        self.moe, self.shape = moe, (number, width)
        self.project = torch.cat([experts.w1.flatten(0, 1), experts.w3.flatten(0, 1), moe.gate.weight])

    def __call__(self, h: Tensor) -> Tensor:
        y, (number, width) = self.norm(h), self.shape
        if len(y) * number > FEW:
            return self._sorted(h, y)
        w1, w3, logits = F.linear(y, self.project).split([number * width, number * width, number], dim=1)
        weights, expert_ids = top_k_router(logits, self.moe.top_k)
        share = torch.zeros_like(logits).scatter_(1, expert_ids, weights)  # (B, E), 0 for experts not chosen
        hidden = F.silu(w1, inplace=True).mul_(w3).view(len(y), number, width).mul_(share.unsqueeze(-1))
        return self.residual(h, y, hidden.view(len(y), -1))

    def _sorted(self, h: Tensor, y: Tensor) -> Tensor:
        moe, experts = self.moe, self.moe.experts
        weights, expert_ids = top_k_router(F.linear(y, moe.gate.weight), moe.top_k)
        out = moe.dispatch(y, weights, expert_ids, experts.w1, experts.w2, experts.w3)
        return torch.add(out * self.beta, y if self.postnorm else h, alpha=self.alpha)
