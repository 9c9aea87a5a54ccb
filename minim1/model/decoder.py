"""The network: M1's block at any size, and `MiniM1` around it.

B batch, T time, H heads, D head dim, C hidden, E experts, K experts per token, V vocabulary, L layers.
Parameter names are those of M1's checkpoint, except that experts are stacked (`checkpoint.py` splits and joins).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from minim1.config import LIGHTNING, M1Config
from minim1.errors import UserError
from minim1.model.cache import DecodeCache, KVCache, LinearState
from minim1.model.documents import attention_mask, document_positions, document_runs
from minim1.model.lightning import decay_slopes, lightning_attention
from minim1.model.parts import ModelParts
from minim1.model.precision import at_least_fp32, without_autocast
from minim1.model.step import JoinedStep, can_join


@dataclass(frozen=True)
class Output:
    """logits (B, T, V) fp32; aux_loss scalar, mean over layers, 1.0 when balanced (0 with a cache); expert_ids (L, B, T, K)."""

    logits: Tensor
    aux_loss: Tensor
    expert_ids: Tensor


@dataclass(frozen=True)
class Context:
    """What every layer needs to know about the tokens of this call."""

    document_ids: Tensor | None  # (B, T), for lightning layers
    mask: Tensor | None  # (B, T, S), for softmax layers; None: plain causal
    positions: Tensor  # (B, T)
    valid: Tensor | None  # (B, T), False at padding; None: no padding
    decoding: bool = False  # with a cache: the balance loss, which only training needs, is left out


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dim, computed in fp32 (M1's code)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return _rms_norm(at_least_fp32(x), at_least_fp32(self.weight), self.eps).to(x.dtype)


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return _RMSNorm.apply(x, weight, eps) if torch.is_grad_enabled() else F.rms_norm(x, weight.shape, weight, eps)


class _RMSNorm(torch.autograd.Function):
    """F.rms_norm with a backward written out: on a CPU autograd takes it through twice as many passes over x."""

    @staticmethod
    def forward(ctx, x, weight, eps):
        scale = (torch.linalg.vecdot(x, x) / x.shape[-1] + eps).rsqrt_().unsqueeze(-1)
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight, scale = ctx.saved_tensors
        normed = x * scale
        grad_weight = torch.linalg.vecdot(grad.flatten(0, -2), normed.flatten(0, -2), dim=0)
        grad = grad * weight
        along = torch.linalg.vecdot(grad, normed).div_(x.shape[-1]).unsqueeze(-1)  # a longer x changes nothing
        return grad.sub_(normed.mul_(along)).mul_(scale), grad_weight, None


class LightningAttention(nn.Module):
    """Lightning layer: SiLU(qkv), decayed linear attention, one RMSNorm over all heads, sigmoid gate (M1's code)."""

    INNER_EPS = 1e-6  # M1's inner norm does not use rms_norm_eps

    def __init__(self, config: M1Config, parts: ModelParts) -> None:
        super().__init__()
        self.heads, self.head_dim = config.num_attention_heads, config.head_dim
        inner = self.heads * self.head_dim
        self.qkv_proj = nn.Linear(config.hidden_size, 3 * inner, bias=False)  # head-major: q, k, v of head 0, ...
        self.output_gate = nn.Linear(config.hidden_size, inner, bias=False)
        self.norm = RMSNorm(inner, self.INNER_EPS)
        self.out_proj = nn.Linear(inner, config.hidden_size, bias=False)
        self.register_buffer("slopes", torch.empty(self.heads), persistent=False)  # set by `initialise`; not in a checkpoint
        self.lightning = parts.lightning
        if parts.lightning is lightning_attention:  # the contract knows no blocks; our default does
            self.lightning = partial(lightning_attention, block_size=config.block_size, overwrite_state=True)

    def forward(self, x: Tensor, context: Context, memory: LinearState | None) -> Tensor:
        q, k, v = F.silu(self.qkv_proj(x)).view(*x.shape[:2], self.heads, 3 * self.head_dim).chunk(3, dim=-1)
        out, state = self.lightning(
            q, k, v, self.slopes, state=memory.state if memory else None, document_ids=context.document_ids
        )
        if memory is not None:
            memory.state = state
        return self.out_proj(torch.sigmoid(self.output_gate(x)) * self.norm(out.flatten(2)))

    def _apply(self, function, recurse=True):
        """What `.to()`, `.bfloat16()` and their like call: the slopes move, but stay fp32 (in bf16 slow heads drift)."""
        slopes = self.slopes
        super()._apply(function, recurse)
        if self.slopes.dtype != torch.float32:
            self.slopes = slopes.to(self.slopes.device)
        return self


class SoftmaxAttention(nn.Module):
    """Softmax layer: grouped-query causal attention with partial rotary positions; no bias, no gate (M1's code)."""

    def __init__(self, config: M1Config, parts: ModelParts) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = (
            config.num_attention_heads, config.num_key_value_heads, config.head_dim
        )
        self.rotary_dim, self.theta = config.rotary_dim, config.rope_theta
        self.q_proj = nn.Linear(config.hidden_size, self.heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, self.kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, self.kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.head_dim, config.hidden_size, bias=False)
        self.attention, self.rope = parts.attention, parts.rope

    def forward(self, x: Tensor, context: Context, memory: KVCache | None) -> Tensor:
        q, k, v = (
            project(x).view(*x.shape[:2], -1, self.head_dim) for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = (
            self.rope(y, context.positions, rotary_dim=self.rotary_dim, theta=self.theta) for y in (q, k)
        )
        if memory is not None:
            k, v = memory.append(k, v)
        return self.o_proj(self.attention(q, k, v, mask=context.mask).flatten(2))


class Experts(nn.Module):
    """Stacked SwiGLU experts: w1, w3 (E, F, C) and w2 (E, C, F)."""

    def __init__(self, config: M1Config) -> None:
        super().__init__()
        experts, width, hidden = config.num_local_experts, config.intermediate_size, config.hidden_size
        self.w1 = nn.Parameter(torch.empty(experts, width, hidden))
        self.w2 = nn.Parameter(torch.empty(experts, hidden, width))
        self.w3 = nn.Parameter(torch.empty(experts, width, hidden))


class SparseMoE(nn.Module):
    """fp32 router, top-k experts, weighted sum; also returns the balance loss and the chosen experts (MiniMax-01 report §2.1)."""

    def __init__(self, config: M1Config, parts: ModelParts) -> None:
        super().__init__()
        self.top_k = config.num_experts_per_tok
        self.gate = nn.Linear(config.hidden_size, config.num_local_experts, bias=False)
        self.experts = Experts(config)
        self.router, self.dispatch, self.balance_loss = parts.router, parts.dispatch, parts.balance_loss

    def forward(self, x: Tensor, context: Context, replay: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        flat = x.flatten(0, 1)
        with without_autocast(x):
            router_logits = F.linear(at_least_fp32(flat), at_least_fp32(self.gate.weight))
        weights, expert_ids = self.router(
            router_logits, self.top_k, replay=None if replay is None else replay.flatten(0, 1)
        )
        out = self.dispatch(flat, weights, expert_ids, self.experts.w1, self.experts.w2, self.experts.w3)
        valid = None if context.valid is None else context.valid.flatten()
        aux = router_logits.new_zeros(()) if context.decoding else self.balance_loss(router_logits, expert_ids, valid)
        return out.view_as(x), aux, expert_ids.view(*x.shape[:2], -1)


class Block(nn.Module):
    """One layer: attention, then experts, each in M1's residual order (M1's code; MiniMax-01 report §4.2).

    With `postnorm` the residual is the *normalised* input, y = norm(h), h' = alpha y + beta f(y): DeepNorm's
    post-norm, written shifted by one norm. Without it the residual is h itself: ordinary pre-norm.
    """

    def __init__(self, config: M1Config, layer: int, parts: ModelParts) -> None:
        super().__init__()
        lightning = config.attn_type_list[layer] == LIGHTNING
        self.self_attn = LightningAttention(config, parts) if lightning else SoftmaxAttention(config, parts)
        self.block_sparse_moe = SparseMoE(config, parts)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        kind = "linear_attention" if lightning else "full_attention"
        self.attention_scale = tuple(getattr(config, f"layernorm_{kind}_{name}") for name in ("alpha", "beta"))
        self.mlp_scale = (config.layernorm_mlp_alpha, config.layernorm_mlp_beta)
        self.postnorm = config.postnorm

    def forward(self, h: Tensor, context: Context, memory, replay: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        y = self.input_layernorm(h)
        h = self._residual(h, y, self.self_attn(y, context, memory), self.attention_scale)
        z = self.post_attention_layernorm(h)
        out, aux, expert_ids = self.block_sparse_moe(z, context, replay)
        return self._residual(h, z, out, self.mlp_scale), aux, expert_ids

    def _residual(self, h: Tensor, normed: Tensor, out: Tensor, scale: tuple[float, float]) -> Tensor:
        alpha, beta = scale
        return torch.add(out if beta == 1 else beta * out, normed if self.postnorm else h, alpha=alpha)


class Decoder(nn.Module):
    def __init__(self, config: M1Config, parts: ModelParts) -> None:
        super().__init__()
        # Not to be drawn here: on the meta device that alone would import torch._dynamo, for two seconds.
        self.embed_tokens = nn.Embedding.from_pretrained(torch.empty(config.vocab_size, config.hidden_size), freeze=False)
        self.layers = nn.ModuleList(Block(config, layer, parts) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class MiniM1(nn.Module):
    """A MiniMax-M1 of any size.

    Args:
        config: the architecture.
        parts: replaceable functions (`minim1.parts.Parts`, or `ModelParts`); defaults are the package's own.
        seed: of the initialisation; the same seed gives the same weights.
    """

    def __init__(self, config: M1Config, parts: ModelParts = ModelParts(), *, seed: int = 0) -> None:
        super().__init__()
        self.config, self.parts = config, parts
        with torch.device("meta"):  # every weight is set below, so allocate nothing twice
            self.model = Decoder(config, parts)
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if torch.get_default_device().type != "meta":
            self._materialise(seed)

    def _materialise(self, seed: int) -> None:
        self.to_empty(device="cpu")  # the same weights whatever the device
        initialise(self, torch.Generator().manual_seed(seed))
        self.to(torch.get_default_device())

    def new_cache(self) -> DecodeCache:
        """An empty decode cache for this model."""
        return DecodeCache(self.config)

    def new_step(self) -> Callable[[Tensor, DecodeCache], Tensor]:
        """The fastest way to feed one token a row to a cache: `step(ids (B,), cache)` -> logits (B, V), without gradient.

        Valid as long as the weights do not change. With the package's own parts it is `step.JoinedStep`.
        """
        if can_join(self):
            return JoinedStep(self)
        return lambda ids, cache: self(ids.unsqueeze(1), cache=cache, last_only=True).logits[:, -1]

    def forward(
        self,
        input_ids: Tensor,
        *,
        positions: Tensor | None = None,
        document_ids: Tensor | None = None,
        cache: DecodeCache | None = None,
        last_only: bool = False,
        replay: Tensor | None = None,
    ) -> Output:
        """Logits of the next token at every position.

        Args:
            input_ids: (B, T) int64.
            positions: (B, T), for rotary attention; default: counted within each document.
            document_ids: (B, T), -1 is padding; None: one document per row.
            cache: continues, and is extended by, the tokens of this call.
            last_only: logits of the last position alone, (B, 1, V).
            replay: (L, B, T, K) expert ids to use instead of the router's choice.
        Raises:
            UserError: input_ids that are not (B, T) integers, or ids outside the vocabulary.
        """
        self._check(input_ids)
        context = self._context(input_ids, positions, document_ids, cache)
        h = self.model.embed_tokens(input_ids)
        aux_losses, expert_ids = [], []
        for index, block in enumerate(self.model.layers):
            memory = None if cache is None else cache.layers[index]
            h, aux, ids = block(h, context, memory, None if replay is None else replay[index])
            aux_losses.append(aux)
            expert_ids.append(ids)
        h = self.model.norm(h[:, -1:] if last_only else h)
        return Output(self._head(h), torch.stack(aux_losses).mean(), torch.stack(expert_ids))

    def _head(self, h: Tensor) -> Tensor:
        with torch.autocast(h.device.type, enabled=torch.is_autocast_enabled(h.device.type) and not self.config.fp32_head):
            if self.config.fp32_head:
                return F.linear(at_least_fp32(h), at_least_fp32(self.lm_head.weight))
            return self.lm_head(h).float()

    def _context(self, input_ids, positions, document_ids, cache) -> Context:
        if cache is not None:
            runs, default = cache.extend(input_ids, document_ids)
            mask = cache.mask(runs)
        elif document_ids is not None:
            runs = document_runs(document_ids)
            mask, default = attention_mask(runs, runs), document_positions(runs)
        else:
            mask, default = None, torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        positions = default if positions is None else positions
        valid = None if document_ids is None else document_ids >= 0
        return Context(document_ids, mask, positions, valid, decoding=cache is not None)

    def _check(self, input_ids: Tensor) -> None:
        if input_ids.ndim != 2 or input_ids.dtype not in (torch.int64, torch.int32) or input_ids.shape[1] == 0:
            raise UserError(
                f"input_ids have shape {tuple(input_ids.shape)} and dtype {input_ids.dtype}; expected (B, T) integers"
            )
        if input_ids.device.type == "cpu":  # elsewhere the question would stall the device, which checks by itself
            low, high = (bound.item() for bound in input_ids.aminmax())
            if low < 0 or high >= self.config.vocab_size:
                raise UserError(
                    f"input_ids hold {low if low < 0 else high}; expected 0 to {self.config.vocab_size - 1}, "
                    f"as vocab_size is {self.config.vocab_size}: encode with this model's own tokenizer"
                )


def initialise(model: MiniM1, generator: torch.Generator) -> None:
    """Xavier initialisation with DeepNorm's gain (8L)^(-1/4) on value, output and expert matrices (MiniMax-01 report §4.2).

    Query, key, gate, router, embedding and head have gain 1. Norm weights are 1. In place, reproducible.
    """
    config, gain = model.config, model.config.init_gain
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            nn.init.ones_(parameter)
            continue
        fan_out, fan_in = parameter.shape[-2:]
        if name.endswith("qkv_proj.weight"):
            fan_out //= 3
        scaled = any(key in name for key in ("v_proj", "o_proj", "out_proj", "experts")) and "qkv" not in name
        std = (2.0 / (fan_in + fan_out)) ** 0.5 * (gain if scaled else 1.0)
        with torch.no_grad():
            parameter.normal_(0.0, std, generator=generator)
            if name.endswith("qkv_proj.weight"):  # v is the last third of each head
                parameter.view(config.num_attention_heads, 3, config.head_dim, -1)[:, 2].mul_(gain)
    for index, block in enumerate(model.model.layers):
        if isinstance(block.self_attn, LightningAttention):
            block.self_attn.slopes.copy_(
                decay_slopes(config.num_attention_heads, index, config.num_hidden_layers, config.slopes)
            )
