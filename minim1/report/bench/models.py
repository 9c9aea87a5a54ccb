"""Whole models: a training step, and generation.

  minim1       ours
  HF           transformers' MiniMaxForCausalLM with the same weights, as it comes: SDPA, grouped_mm, blocks of 256
  HF block 64  the same with shorter blocks: less to do inside each, more of them
  dense        a GPT like nanoGPT's with as many active parameters per token: what the architecture costs and saves

Rotary positions cover the whole head here, because theirs always do. All are checked in fp32 before they are timed in
the dtype asked for: ours and HF against our model in fp64 that runs other forms of attention and experts, the dense
one against itself in fp64.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minim1.config import LIGHTNING, M1Config, preset
from minim1.errors import UserError
from minim1.generation import Sampling, generate, sample_token
from minim1.model.count import count
from minim1.model.decoder import MiniM1
from minim1.model.lightning import lightning_chunked
from minim1.model.moe import dispatch_by_loop, load_balancing_loss
from minim1.model.parts import ModelParts
from minim1.report.bench.harness import (
    LIMITS, OURS, Comparison, Entry, Options, Skip, compare, gather, relative_error,
)

PRESETS = {"cpu": "nano", "cuda": "small"}
STEPS = ((4, 512), (1, 2048))  # batch, length: the same number of tokens
PROMPT, NEW = 32, 128  # tokens
BATCHES = (16, 64)
HF_BLOCK = 64  # beside its default of 256
QUICK = M1Config(
    vocab_size=256, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16, attn_type_list=(0, 0, 0, 1), num_local_experts=4, rotary_dim=16, block_size=16,
)


def model_config(options: Options) -> tuple[str, M1Config]:
    """The preset's name and config, with rotary positions on the whole head."""
    if options.quick:
        return "tiny", QUICK
    config = preset(PRESETS[options.device])
    return PRESETS[options.device], replace(config, rotary_dim=config.head_dim)


# ---------------------------------------------------------------- the same weights for all


def hf_model(model: MiniM1, block_size: int = 256) -> nn.Module:
    """transformers' MiniMax with copies of our weights. Raises Skip where transformers has none."""
    try:
        from transformers import MiniMaxConfig, MiniMaxForCausalLM
    except ImportError:
        raise Skip("transformers with MiniMax is not installed") from None
    config = model.config
    same = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "head_dim", "num_local_experts", "num_experts_per_tok", "rms_norm_eps",
        "max_position_embeddings",
    )
    residual = {
        f"{theirs}_{factor}_factor": getattr(config, f"layernorm_{ours}_{factor}")
        for ours, theirs in (("full_attention", "full_attn"), ("linear_attention", "linear_attn"), ("mlp", "mlp"))
        for factor in ("alpha", "beta")
    }
    made = MiniMaxForCausalLM(MiniMaxConfig(
        **{name: getattr(config, name) for name in same}, **residual, block_size=block_size, hidden_act="silu",
        layer_types=["linear_attention" if k == LIGHTNING else "full_attention" for k in config.attn_type_list],
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta}, sliding_window=None,
        attention_dropout=0.0, router_jitter_noise=0.0, tie_word_embeddings=False,
        router_aux_loss_coef=config.router_aux_loss_coef / config.num_experts_per_tok,  # their balance loss is ours x K
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    ))
    missing, unexpected = made.load_state_dict(hf_names(model.state_dict()), strict=False)
    wrong = [*unexpected, *(name for name in missing if not name.endswith(("slope_rate", "_decay")))]
    if wrong:
        raise Skip(f"this transformers names the weight {wrong[0]} otherwise")
    return made.to(next(model.parameters()).device)


def hf_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names to those of transformers, w1 and w3 joined; for weights and their gradients alike."""
    found = {}
    for name, tensor in tensors.items():
        theirs = name.replace(".block_sparse_moe.", ".mlp.")
        if name.endswith("experts.w1"):
            found[theirs.replace("w1", "gate_up_proj")] = torch.cat([tensor, tensors[name.replace("w1", "w3")]], 1)
        elif name.endswith("experts.w2"):
            found[theirs.replace("w2", "down_proj")] = tensor
        elif not name.endswith("experts.w3"):
            found[theirs] = tensor
    return found


def sizes(config: M1Config, dense: "DenseGPT") -> dict[str, int]:
    """Parameters of ours and of the dense model, all of them and those active for one token."""
    ours = count(config)
    return {
        "parameters": ours["parameters"], "active": ours["active_parameters"],
        "dense parameters": sum(p.numel() for p in dense.parameters()), "dense active": dense.active_parameters(),
    }


def random_ids(config: M1Config, batch: int, length: int, options: Options, seed: int = 0) -> Tensor:
    """Any token ids (B, T), the same on every machine."""
    random = torch.Generator().manual_seed(seed)
    return torch.randint(config.vocab_size, (batch, length), generator=random).to(options.device)


def in_fp64(model: MiniM1) -> MiniM1:
    """Our model in fp64, with the plain forms of attention and experts instead of the fast ones that are timed."""
    parts = ModelParts(lightning=lightning_chunked, dispatch=dispatch_by_loop)
    exact = MiniM1(model.config, parts)
    exact.load_state_dict(model.state_dict())
    return exact.double().to(next(model.parameters()).device)


# ---------------------------------------------------------------- the dense model


class DenseBlock(nn.Module):
    """Pre-norm: softmax attention, then a GELU network."""

    def __init__(self, hidden: int, heads: int, width: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(hidden, bias=False), nn.LayerNorm(hidden, bias=False)
        self.qkv, self.out = nn.Linear(hidden, 3 * hidden, bias=False), nn.Linear(hidden, hidden, bias=False)
        self.up, self.down = nn.Linear(hidden, width, bias=False), nn.Linear(width, hidden, bias=False)

    def forward(self, x: Tensor, memory: tuple[Tensor, Tensor] | None, start: int) -> Tensor:
        qkv = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, H, T, D)
        if memory is not None:
            end = start + x.shape[1]
            for buffer, new in zip(memory, (k, v)):
                buffer[:, :, start:end] = new
            k, v = (buffer[:, :, :end] for buffer in memory)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=start == 0)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class DenseGPT(nn.Module):
    """A GPT after nanoGPT: learned positions, pre-norm, fused qkv, SDPA, GELU, no biases; embedding and head untied."""

    def __init__(self, vocab: int, hidden: int, layers: int, heads: int, width: int, length: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab, hidden), nn.Embedding(length, hidden)
        self.blocks = nn.ModuleList(DenseBlock(hidden, heads, width) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden, bias=False)
        self.head = nn.Linear(hidden, vocab, bias=False)
        random = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02, generator=random)

    @classmethod
    def like(cls, config: M1Config, length: int) -> "DenseGPT":
        """Vocabulary, layers, hidden and head size of `config`; a network about 4 times as wide as hidden, such that
        the active parameters are as many."""
        hidden, layers = config.hidden_size, config.num_hidden_layers
        others = hidden + layers * (4 * hidden**2 + 2 * hidden)  # attention and norms
        width = round((count(config)["active_parameters"] - others) / (2 * hidden * layers))
        return cls(config.vocab_size, hidden, layers, hidden // config.head_dim, width, length)

    def active_parameters(self) -> int:
        """Those multiplied for one token, except embedding, positions and head: what `count` counts."""
        outside = (self.tokens, self.positions, self.head)
        return sum(p.numel() for p in self.parameters()) - sum(module.weight.numel() for module in outside)

    def new_cache(self, batch: int, room: int) -> list[tuple[Tensor, Tensor]]:
        """Keys and values (B, H, room, D) of each layer, to be filled."""
        weight, heads = self.tokens.weight, self.blocks[0].heads
        shape = (batch, heads, room, weight.shape[1] // heads)
        return [(weight.new_zeros(shape), weight.new_zeros(shape)) for _ in self.blocks]

    def forward(self, ids: Tensor, cache: list | None = None, start: int = 0, last_only: bool = False) -> Tensor:
        """(B, T) -> (B, T, V), or (B, 1, V) with `last_only`. `cache` holds `start` tokens; then T is 1, or start 0."""
        x = self.tokens(ids) + self.positions.weight[start : start + ids.shape[1]]
        for index, block in enumerate(self.blocks):
            x = block(x, None if cache is None else cache[index], start)
        return self.head(self.norm(x[:, -1:] if last_only else x))

    @torch.no_grad()
    def generate(self, prompts: Tensor, new_tokens: int, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """Ids (B, T + new_tokens), and the log-probabilities (B, new_tokens) of the new ones; same sampler as ours."""
        batch, length = prompts.shape
        cache = self.new_cache(batch, length + new_tokens)
        ids, logprobs = torch.empty(batch, length + new_tokens, dtype=torch.long, device=prompts.device), []
        ids[:, :length] = prompts
        random = torch.Generator(prompts.device).manual_seed(0)
        read = 0
        for end in range(length, length + new_tokens):
            logits = self(ids[:, read:end], cache, read, last_only=True)[:, -1]
            ids[:, end], logprob = sample_token(logits, temperature=temperature, generator=random)
            logprobs.append(logprob)
            read = end
        return ids, torch.stack(logprobs, 1)


# ---------------------------------------------------------------- the training step


@dataclass(frozen=True)
class Gradients:
    """A loss, and its gradient for each parameter by name."""

    loss: Tensor
    by_name: dict[str, Tensor]

    @classmethod
    def of(cls, loss: Tensor, model: nn.Module) -> "Gradients":
        names, parameters = zip(*model.named_parameters())
        return cls(loss.detach(), dict(zip(names, torch.autograd.grad(loss, parameters))))

    def as_hf(self) -> "Gradients":
        """The same under the names of transformers."""
        return Gradients(self.loss, hf_names(self.by_name))

    def error(self, exact: "Gradients") -> float:
        """The larger of the relative errors of the loss and of all gradients as one vector."""
        names = sorted(exact.by_name)
        if sorted(self.by_name) != names:
            raise UserError("the models do not have the same parameters")
        whole, exact_whole = (torch.cat([g.by_name[name].flatten() for name in names]) for g in (self, exact))
        return max(relative_error(self.loss, exact.loss), relative_error(whole, exact_whole))


class Training:
    """Training steps of a model on one batch, the same for all: loss, gradients, clipping, fused AdamW."""

    def __init__(self, model: nn.Module, loss: Callable[[nn.Module, Tensor], Tensor], ids: Tensor, options: Options):
        self.model, self.loss, self.ids = model.train(), loss, ids
        self.autocast = torch.autocast(ids.device.type, torch.bfloat16, enabled=options.dtype == torch.bfloat16)
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True
        )

    def gradients(self) -> "Gradients":
        """The loss and its gradients in the parameters' dtype; nothing changes."""
        return Gradients.of(self.loss(self.model, self.ids), self.model)

    def step(self) -> Tensor:
        """One step; returns the loss before it."""
        self.optimizer.zero_grad()
        with self.autocast:
            loss = self.loss(self.model, self.ids)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.detach()


def our_loss(model: MiniM1, ids: Tensor) -> Tensor:
    """Next-token loss plus balance loss."""
    out = model(ids)
    return _next_token_loss(out.logits, ids) + model.config.router_aux_loss_coef * out.aux_loss


def hf_loss(model: nn.Module, ids: Tensor) -> Tensor:
    """The same of transformers' model. Its own balance loss averages over layers before it multiplies: another number
    at the same cost; so ours is taken, on its router logits."""
    per_token = model.config.num_experts_per_tok
    out = model.model(ids, use_cache=False, output_router_logits=True)
    balance = torch.stack([
        load_balancing_loss(logits, logits.topk(per_token).indices) for logits in out.router_logits
    ]).mean()
    coefficient = model.config.router_aux_loss_coef * per_token
    return _next_token_loss(model.lm_head(out.last_hidden_state), ids) + coefficient * balance


def dense_loss(model: DenseGPT, ids: Tensor) -> Tensor:
    """Next-token loss."""
    return _next_token_loss(model(ids), ids)


def _next_token_loss(logits: Tensor, ids: Tensor) -> Tensor:
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())


def benchmark_train(options: Options) -> Iterator[Comparison]:
    """Training steps at two lengths and equal tokens per step."""
    if options.dtype == torch.float16:
        raise Skip("training in float16 would need loss scaling; use bfloat16")
    name, config = model_config(options)
    for batch, length in ((2, 80), (1, 160)) if options.quick else STEPS:
        ids = random_ids(config, batch, length, options)
        model = MiniM1(config, seed=1).to(options.device)
        dense = DenseGPT.like(config, length).to(options.device)
        entries, skipped = gather(training_entries(model, dense, ids, options))
        case = {"model": name, "batch": batch, "length": length, **sizes(config, dense)}
        yield compare(
            "train", case, entries, ours=OURS, options=options, limit=LIMITS[torch.float32], unit="tokens",
            amount=batch * length, skipped=skipped,
        )


def training_entries(
    model: MiniM1, dense: DenseGPT, ids: Tensor, options: Options
) -> dict[str, Callable[[], Entry]]:
    """By name what makes each entry: a training step, its error that of the loss and the gradients before it."""
    exact = Training(in_fp64(model), our_loss, ids, options).gradients()
    exact_dense = Training(deepcopy(dense).double(), dense_loss, ids, options).gradients()

    def hf(**settings) -> Entry:
        return _training_entry(Training(hf_model(model, **settings), hf_loss, ids, options), exact.as_hf())

    return {
        OURS: lambda: _training_entry(Training(model, our_loss, ids, options), exact),
        "HF": hf,
        f"HF block {HF_BLOCK}": lambda: hf(block_size=HF_BLOCK),
        "dense": lambda: _training_entry(Training(dense, dense_loss, ids, options), exact_dense),
    }


def _training_entry(training: Training, exact: Gradients) -> Entry:
    error = training.gradients().error(exact)

    def check(loss: Tensor) -> float:  # also of the step that is timed, perhaps in another dtype
        return error if abs(loss.item() / exact.loss.item() - 1) < 0.05 else float("inf")

    return Entry(training.step, check)


# ---------------------------------------------------------------- generation


def benchmark_generate(options: Options) -> Iterator[Comparison]:
    """Sampling at temperature 1 from prompts of one length (HF decodes padded rows wrongly), none stopping early.

    One comparison for each batch size. Checked on greedy answers, see `greedy_error`.
    """
    name, config = model_config(options)
    prompt, new = (8, 12) if options.quick else (PROMPT, NEW)
    model = MiniM1(config, seed=1).to(options.device).eval()
    dense = DenseGPT.like(config, prompt + new).to(options.device).eval()
    writers, skipped = gather(writer_makers(model, dense, random_ids(config, 4, prompt, options, seed=1), options))
    for batch in (2, 4) if options.quick else BATCHES:
        prompts = random_ids(config, batch, prompt, options)
        case = {"model": name, "batch": batch, "prompt": prompt, "new": new, **sizes(config, dense)}
        entries = {who: _sampling_entry(write, error, prompts, new) for who, (write, error) in writers.items()}
        yield compare(
            "generate", case, entries, ours=OURS, options=options, limit=LIMITS[torch.float32], unit="tokens",
            amount=batch * new, skipped=skipped,
        )


def writer_makers(model: MiniM1, dense: DenseGPT, few: Tensor, options: Options) -> dict[str, Callable]:
    """By name what makes (write, its error on the prompts `few`, measured in fp32); it writes in the dtype asked for.

    write(prompts (B, T), new_tokens, temperature) -> ids (B, T + new), log-probabilities (B, new) or None.
    """
    exact, exact_dense = in_fp64(model), deepcopy(dense).double()

    def checked(writer: Callable, net: nn.Module, logits: Callable[[Tensor], Tensor]) -> tuple[Callable, float]:
        return writer(deepcopy(net).to(options.dtype)), greedy_error(writer(net), logits, few)

    return {
        OURS: lambda: checked(our_writer, model, lambda ids: exact(ids).logits),
        "HF": lambda: checked(hf_writer, hf_model(model).eval(), lambda ids: exact(ids).logits),
        "dense": lambda: checked(dense_writer, dense, exact_dense),
    }


def our_writer(model: MiniM1) -> Callable:
    def write(prompts: Tensor, new_tokens: int, temperature: float):
        rollout = generate(model, prompts.tolist(), Sampling(max_new_tokens=new_tokens, temperature=temperature))
        return rollout.input_ids, rollout.logprobs[:, prompts.shape[1] :]

    return write


def hf_writer(model: nn.Module) -> Callable:
    def write(prompts: Tensor, new_tokens: int, temperature: float):
        common = dict(
            attention_mask=torch.ones_like(prompts), max_new_tokens=new_tokens, use_cache=True, pad_token_id=0
        )
        if temperature:  # top_k is 50 unless told
            return model.generate(prompts, do_sample=True, temperature=temperature, top_k=0, top_p=1.0, **common), None
        found = model.generate(prompts, do_sample=False, output_logits=True, return_dict_in_generate=True, **common)
        logprobs = torch.stack(found.logits, dim=1).float().log_softmax(-1)
        return found.sequences, logprobs.gather(-1, found.sequences[:, -new_tokens:, None]).squeeze(-1)

    return write


def dense_writer(model: DenseGPT) -> Callable:
    return model.generate


@torch.no_grad()
def greedy_error(write: Callable, logits: Callable[[Tensor], Tensor], prompts: Tensor, new_tokens: int = 12) -> float:
    """How wrong greedy answers are, with `logits` (B, T) -> (B, T, V) as the truth: the larger of the relative error of
    their log-probabilities, and of how much a chosen token's true log-probability lies below that of the best one."""
    ids, logprobs = write(prompts, new_tokens, 0.0)
    true = logits(ids)[:, -new_tokens - 1 : -1].log_softmax(-1)
    chosen = true.gather(-1, ids[:, -new_tokens:, None]).squeeze(-1)
    return max(relative_error(logprobs, chosen), (true.amax(-1) - chosen).max().item())


def _sampling_entry(write: Callable, error: float, prompts: Tensor, new_tokens: int) -> Entry:
    def check(ids: Tensor) -> float:  # the prompts, and answers of their full length
        return error if torch.equal(ids[:, :-new_tokens], prompts) else float("inf")

    return Entry(lambda: write(prompts, new_tokens, 1.0)[0], check)
