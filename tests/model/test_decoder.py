"""The whole network against a second one, written here from the report and M1's code in textbook form.

The reference is Post-LN with DeepNorm as its paper prints it, x <- LN(alpha x + f(x)), not the shifted form in which
the package (like M1) writes it, and it works on one sequence, one head and one token at a time.
"""

import copy
import inspect
import math
import subprocess
import sys

import pytest
import torch

from minim1.config import M1Config
from minim1.errors import UserError
from minim1.model import lightning as lightning_module
from minim1.model.decoder import Context, MiniM1, RMSNorm
from minim1.model.lightning import lightning_attention
from minim1.model import moe
from minim1.model.moe import load_balancing_loss, top_k_router
from minim1.model.parts import ModelParts
from minim1.model.softmax import rotary, softmax_attention

SMALL = dict(
    vocab_size=37, hidden_size=24, intermediate_size=14, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, head_dim=8, attn_type_list=(0, 1, 0, 1), num_local_experts=5, num_experts_per_tok=2,
    rms_norm_eps=3e-3,  # large enough to tell it from that of the inner norm
)


def build(seed=0, parts=ModelParts(), **changes):
    """An fp64 model whose norm weights are not all 1 (so that no two can be exchanged)."""
    model = MiniM1(M1Config(**{**SMALL, **changes}), parts, seed=seed).double()
    generator = torch.Generator().manual_seed(99)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data.uniform_(0.5, 1.5, generator=generator)
    return model


def tokens(*shape, seed=0, vocab=37):
    return torch.randint(vocab, shape, generator=torch.Generator().manual_seed(seed))


def rms(x, weight, eps):
    return torch.stack([row / math.sqrt((row @ row).item() / len(row) + eps) for row in x]) * weight


def silu(x):
    return x / (1 + torch.exp(-x))


def textbook(config, weights, ids):
    """Logits (T, V) of one sequence of token ids."""
    heads, dim, layers = config.num_attention_heads, config.head_dim, config.num_hidden_layers

    def lightning(w, layer, x):
        base = config.slopes or [2 ** (-8 * (h + 1) / heads) for h in range(heads)]
        outputs = []
        for h in range(heads):
            q, k, v = (
                silu(x @ w["self_attn.qkv_proj.weight"][(3 * h + part) * dim : (3 * h + part + 1) * dim].T)
                for part in range(3)  # head-major: q, k, v of head 0, then of head 1, ...
            )
            slope = torch.tensor(base[h] * (1 - layer / (layers - 1) + 1e-5)).float().item()
            state, out = torch.zeros(dim, dim, dtype=x.dtype), []
            for t in range(len(x)):
                state = math.exp(-slope) * state + torch.outer(k[t], v[t])
                out.append(q[t] @ state)
            outputs.append(torch.stack(out))
        normed = rms(torch.cat(outputs, -1), w["self_attn.norm.weight"], 1e-6)
        gate = 1 / (1 + torch.exp(-x @ w["self_attn.output_gate.weight"].T))
        return (gate * normed) @ w["self_attn.out_proj.weight"].T

    def softmax(w, x):
        half = config.rotary_dim // 2

        def rotate(y):
            y = y.clone()
            for t in range(len(y)):
                for i in range(half):
                    angle = t * config.rope_theta ** (-2 * i / config.rotary_dim)
                    a, b = y[t, i].clone(), y[t, i + half].clone()
                    y[t, i] = a * math.cos(angle) - b * math.sin(angle)
                    y[t, i + half] = a * math.sin(angle) + b * math.cos(angle)
            return y

        outputs = []
        for h in range(heads):
            shared = h // (heads // config.num_key_value_heads)
            q = rotate(x @ w["self_attn.q_proj.weight"][h * dim : (h + 1) * dim].T)
            k = rotate(x @ w["self_attn.k_proj.weight"][shared * dim : (shared + 1) * dim].T)
            v = x @ w["self_attn.v_proj.weight"][shared * dim : (shared + 1) * dim].T
            scores = q @ k.T / math.sqrt(dim)
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -math.inf)
            outputs.append(scores.softmax(-1) @ v)
        return torch.cat(outputs, -1) @ w["self_attn.o_proj.weight"].T

    def experts(w, x):
        rows = []
        for token in x:
            probabilities = (w["block_sparse_moe.gate.weight"] @ token).softmax(-1)
            chosen = probabilities.argsort(descending=True)[: config.num_experts_per_tok]
            row = 0
            for e in chosen:
                w1, w2, w3 = (w[f"block_sparse_moe.experts.w{n}"][e] for n in (1, 2, 3))
                share = probabilities[e] / probabilities[chosen].sum()
                row = row + share * (w2 @ (silu(w1 @ token) * (w3 @ token)))
            rows.append(row)
        return torch.stack(rows)

    eps = config.rms_norm_eps
    block = [
        {name.split(".", 3)[3]: value for name, value in weights.items() if name.startswith(f"model.layers.{n}.")}
        for n in range(layers)
    ]
    x = weights["model.embed_tokens.weight"][ids]
    deepnorm = (2 * layers) ** 0.25
    # every sub-layer in order, with the norm that M1 puts before it, and last the final norm
    norms = [w[f"{name}.weight"] for w in block for name in ("input_layernorm", "post_attention_layernorm")]
    norms.append(weights["model.norm.weight"])
    functions = []
    for n, kind in enumerate(config.attn_type_list):
        functions.append(lambda y, n=n, kind=kind: softmax(block[n], y) if kind else lightning(block[n], n, y))
        functions.append(lambda y, n=n: experts(block[n], y))
    if config.postnorm:
        x = rms(x, norms[0], eps)
        for function, norm in zip(functions, norms[1:]):
            x = rms(deepnorm * x + function(x), norm, eps)  # DeepNet: LN(alpha x + f(x))
    else:
        for function, norm in zip(functions, norms):
            x = x + function(rms(x, norm, eps))
        x = rms(x, norms[-1], eps)
    return x @ weights["lm_head.weight"].T


ABLATIONS = {
    "M1": {},
    "pre-norm": dict(postnorm=False),
    "dense": dict(num_local_experts=1, num_experts_per_tok=1),
    "top-1": dict(num_experts_per_tok=1),
    "all experts": dict(num_experts_per_tok=5),
    "pure softmax": dict(attn_type_list=(1, 1, 1, 1)),
    "pure lightning": dict(attn_type_list=(0, 0, 0, 0)),
    "no rotary": dict(rotary_dim=0),
    "full rotary": dict(rotary_dim=8),
    "other theta": dict(rope_theta=100.0),
    "own slopes": dict(slopes=(0.0, 2.0, 0.5, 0.01)),
    "multi-query": dict(num_key_value_heads=1),
    "no grouping": dict(num_key_value_heads=4),
    "two layers": dict(num_hidden_layers=2, attn_type_list=(1, 0)),
    "one head": dict(num_attention_heads=1, num_key_value_heads=1),
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_equals_the_textbook(name):
    """Residual order, qkv layout, SiLU on q, k and v, gate, norms and their eps, routing, and every ablation field."""
    model = build(**ABLATIONS[name])
    ids = tokens(2, 11)
    logits = model(ids).logits
    for row in range(2):
        expected = textbook(model.config, dict(model.state_dict()), ids[row])
        torch.testing.assert_close(logits[row], expected, atol=1e-9, rtol=0)


def test_dense_is_one_swiglu():
    model = build(num_local_experts=1, num_experts_per_tok=1)
    x = torch.randn(1, 5, 24, dtype=torch.float64)
    moe = model.model.layers[0].block_sparse_moe
    w1, w2, w3 = (getattr(moe.experts, name)[0] for name in ("w1", "w2", "w3"))

    out, aux, _ = moe(x, Context(None, None, torch.arange(5)[None], None), None)
    torch.testing.assert_close(out, (silu(x @ w1.T) * (x @ w3.T)) @ w2.T)
    assert aux.item() == pytest.approx(1.0)  # one expert is always balanced


def test_alpha_and_beta_of_each_kind():
    """The six residual fields reach their own sub-layers: h' = alpha y + beta f(y)."""
    values = {
        f"layernorm_{kind}_{name}": 1.1 + 0.3 * i
        for i, (kind, name) in enumerate(
            (kind, name) for kind in ("full_attention", "linear_attention", "mlp") for name in ("alpha", "beta")
        )
    }
    model = build(**values)
    for kind, block in zip(model.config.attn_type_list, model.model.layers):
        name = "full_attention" if kind else "linear_attention"
        h = torch.randn(1, 6, 24, dtype=torch.float64)
        y, z = (rms(h[0], block.input_layernorm.weight, 3e-3)[None], None)
        seen = {}
        block.self_attn.register_forward_hook(lambda m, i, o: seen.update(attention=(i[0], o)))
        block.block_sparse_moe.register_forward_hook(lambda m, i, o: seen.update(mlp=(i[0], o[0])))

        out = block(h, Context(None, None, torch.arange(6)[None], None), None, None)[0]
        torch.testing.assert_close(seen["attention"][0], y)
        h = values[f"layernorm_{name}_alpha"] * y + values[f"layernorm_{name}_beta"] * seen["attention"][1]
        z = rms(h[0], block.post_attention_layernorm.weight, 3e-3)[None]
        torch.testing.assert_close(seen["mlp"][0], z)
        torch.testing.assert_close(out, values["layernorm_mlp_alpha"] * z + values["layernorm_mlp_beta"] * seen["mlp"][1])


def test_names_are_m1s():
    layer = {"input_layernorm.weight", "post_attention_layernorm.weight", "block_sparse_moe.gate.weight"}
    layer |= {f"block_sparse_moe.experts.w{n}" for n in (1, 2, 3)}  # stacked in memory
    lightning = {f"self_attn.{name}.weight" for name in ("qkv_proj", "output_gate", "norm", "out_proj")}
    softmax = {f"self_attn.{name}_proj.weight" for name in "qkvo"}
    expected = {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}
    for n, kind in enumerate(SMALL["attn_type_list"]):
        expected |= {f"model.layers.{n}.{name}" for name in layer | (softmax if kind else lightning)}
    model = build()
    assert set(model.state_dict()) == expected == {name for name, _ in model.named_parameters()}
    shapes = {name.removeprefix("model.layers."): tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes["0.self_attn.qkv_proj.weight"] == (3 * 4 * 8, 24)
    assert shapes["1.self_attn.k_proj.weight"] == (2 * 8, 24) and shapes["1.self_attn.o_proj.weight"] == (24, 32)
    assert shapes["0.block_sparse_moe.experts.w1"] == (5, 14, 24)
    assert shapes["0.block_sparse_moe.experts.w2"] == (5, 24, 14)


def test_initialisation():
    """Xavier, with DeepNorm's gain on value, output and expert matrices alone; norms are 1; slopes are M1's."""
    config = M1Config(
        vocab_size=300, hidden_size=96, intermediate_size=160, num_hidden_layers=2, attn_type_list=(0, 1),
        num_attention_heads=8, num_key_value_heads=4, head_dim=16, num_local_experts=4,
    )
    weights = dict(MiniM1(config, seed=3).state_dict())
    gain = (8 * 2) ** -0.25

    def spread(x, fan_in, fan_out, gain):
        expected = gain * math.sqrt(2 / (fan_in + fan_out))
        assert x.std().item() == pytest.approx(expected, rel=0.04), (x.std().item(), expected)
        assert abs(x.mean().item()) < 5 * expected / math.sqrt(x.numel())

    first, second = "model.layers.0.", "model.layers.1."
    q, k, v = weights[first + "self_attn.qkv_proj.weight"].view(8, 3, 16, 96).unbind(1)
    spread(q, 96, 128, 1)
    spread(k, 96, 128, 1)
    spread(v, 96, 128, gain)
    spread(weights[first + "self_attn.output_gate.weight"], 96, 128, 1)
    spread(weights[first + "self_attn.out_proj.weight"], 128, 96, gain)
    spread(weights[second + "self_attn.q_proj.weight"], 96, 128, 1)
    spread(weights[second + "self_attn.k_proj.weight"], 96, 64, 1)
    spread(weights[second + "self_attn.v_proj.weight"], 96, 64, gain)
    spread(weights[second + "self_attn.o_proj.weight"], 128, 96, gain)
    for layer in (first, second):
        for name, fans in (("w1", (96, 160)), ("w2", (160, 96)), ("w3", (96, 160))):
            spread(weights[f"{layer}block_sparse_moe.experts.{name}"], *fans, gain)
        assert weights[f"{layer}block_sparse_moe.gate.weight"].std().item() == pytest.approx(
            math.sqrt(2 / (96 + 4)), rel=0.15
        )
    spread(weights["model.embed_tokens.weight"], 96, 300, 1)
    spread(weights["lm_head.weight"], 96, 300, 1)
    assert all((value == 1).all() for name, value in weights.items() if "norm" in name)
    plain = dict(MiniM1(M1Config(**{**SMALL, "postnorm": False})).state_dict())
    assert plain["model.layers.0.block_sparse_moe.experts.w1"].std().item() == pytest.approx(
        math.sqrt(2 / (24 + 14)), rel=0.06
    )


def test_seed():
    a, b, other = (MiniM1(M1Config(**SMALL), seed=seed).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not any(torch.equal(a[name], other[name]) for name in a if a[name].ndim > 1)
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    MiniM1(M1Config(**SMALL))
    assert torch.equal(torch.random.get_rng_state(), before)  # building a model draws nothing from the global generator


def test_slopes_are_fixed_fp32_and_not_saved():
    model = MiniM1(M1Config(**SMALL))
    buffers = dict(model.named_buffers())
    assert set(buffers) == {"model.layers.0.self_attn.slopes", "model.layers.2.self_attn.slopes"}
    expected = torch.tensor([2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8]).double() * (1 - 2 / 3 + 1e-5)
    assert torch.equal(buffers["model.layers.2.self_attn.slopes"], expected.float())
    assert not any(b.requires_grad for b in buffers.values())
    for cast in ("bfloat16", "half", "double"):  # rounded to bf16 the slow heads would decay at another rate
        other = getattr(MiniM1(M1Config(**SMALL)), cast)()
        assert torch.equal(other.model.layers[2].self_attn.slopes, buffers["model.layers.2.self_attn.slopes"])
        assert other.model.layers[2].self_attn.qkv_proj.weight.dtype == getattr(torch, cast)
    clone = copy.deepcopy(model)  # e.g. for an average of the weights
    assert torch.equal(clone(tokens(1, 5)).logits, model(tokens(1, 5)).logits)


def test_meta_model_allocates_nothing():
    with torch.device("meta"):
        model = MiniM1(M1Config(**SMALL))
    assert all(x.is_meta for x in [*model.parameters(), *model.buffers()])
    assert not any(x.is_meta for x in [*build().parameters(), *build().buffers()])


def test_output():
    model = build()
    out = model(tokens(2, 7))
    assert out.logits.shape == (2, 7, 37) and out.expert_ids.shape == (4, 2, 7, 2) and out.aux_loss.shape == ()
    assert build().float()(tokens(2, 7)).logits.dtype == torch.float32
    last = model(tokens(2, 7), last_only=True)
    torch.testing.assert_close(last.logits, out.logits[:, -1:], atol=1e-12, rtol=0)
    assert last.expert_ids.shape == (4, 2, 7, 2)
    assert model(tokens(2, 7).int()).logits.equal(out.logits)


def test_aux_loss_is_the_mean_over_layers():
    model = build()
    seen = []
    for block in model.model.layers:
        block.block_sparse_moe.register_forward_hook(lambda m, i, o: seen.append((i[0].flatten(0, 1), m, o)))
    ids = torch.tensor([[0, 0, 0, -1, -1, 1, 1], [-1, 2, 2, 2, 2, 2, 2]])
    valid = (ids >= 0).flatten()
    out = model(tokens(2, 7), document_ids=ids)
    losses = [
        load_balancing_loss((x @ m.gate.weight.T)[valid], o[2].flatten(0, 1)[valid]) for x, m, o in seen
    ]
    torch.testing.assert_close(out.aux_loss, sum(losses) / 4)
    assert all(torch.equal(out.expert_ids[n], seen[n][2][2]) for n in range(4))


def test_padding_content_and_aux_loss():
    """What stands at padding changes neither the other tokens nor the balance loss."""
    model, ids = build(), tokens(2, 9)
    documents = torch.tensor([[-1, -1, 3, 3, 3, -1, 3, 3, -1], [0, 0, 0, 0, 5, 5, 5, -1, -1]])
    a = model(ids, document_ids=documents)
    b = model(torch.where(documents < 0, tokens(2, 9, seed=8), ids), document_ids=documents)
    real = documents >= 0
    torch.testing.assert_close(a.logits[real], b.logits[real], atol=1e-12, rtol=0)
    torch.testing.assert_close(a.aux_loss, b.aux_loss)


def test_replay():
    """Replaying the model's own choice changes nothing; another choice does, and routers keep their gradient."""
    model, ids = build(), tokens(2, 6)
    out = model(ids)
    again = model(ids, replay=out.expert_ids)
    assert torch.equal(again.logits, out.logits)
    other = (out.expert_ids + 1) % 5
    forced = model(ids, replay=other)
    assert torch.equal(forced.expert_ids, other) and not torch.allclose(forced.logits, out.logits)
    forced.logits.square().sum().backward()
    assert all((block.block_sparse_moe.gate.weight.grad != 0).any() for block in model.model.layers)


def test_every_parameter_gets_a_gradient():
    model = build()
    out = model(tokens(4, 16), document_ids=torch.arange(16).expand(4, 16) // 7)
    (out.logits.logsumexp(-1).sum() + out.aux_loss).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and (parameter.grad != 0).any(), name


def test_causal():
    """A later token changes no earlier logit."""
    model, ids = build(), tokens(1, 12)
    other = ids.clone()
    other[0, 7] = (other[0, 7] + 1) % 37
    a, b = model(ids).logits, model(other).logits
    torch.testing.assert_close(a[:, :7], b[:, :7], atol=1e-12, rtol=0)
    assert (a[:, 7:] - b[:, 7:]).abs().amax(-1).min() > 1e-9


def test_packed_documents_equal_separate_ones():
    model, ids = build(), tokens(1, 40)
    cuts = [0, 1, 9, 10, 33, 40]
    documents = torch.zeros(1, 40, dtype=torch.long)
    for n, (start, end) in enumerate(zip(cuts, cuts[1:])):
        documents[:, start:end] = [3, 90, 3, 0, 1][n]
    packed = model(ids, document_ids=documents).logits
    for start, end in zip(cuts, cuts[1:]):
        alone = model(ids[:, start:end]).logits
        torch.testing.assert_close(packed[:, start:end], alone, atol=1e-10, rtol=0)


def test_given_positions_reach_rotary():
    """Rotary is relative: one shift changes nothing, a stretch does; without softmax layers nothing does."""
    model, ids = build(), tokens(1, 8)
    base = model(ids).logits
    at = torch.arange(8)[None]
    torch.testing.assert_close(model(ids, positions=at + 100).logits, base, atol=1e-9, rtol=0)
    assert (model(ids, positions=3 * at).logits - base).abs().max() > 1e-6
    model = build(attn_type_list=(0, 0, 0, 0))
    assert torch.equal(model(ids, positions=3 * at).logits, model(ids).logits)


def test_autocast_keeps_what_must_be_fp32():
    """Router, lightning state and head are fp32 under bf16 autocast; `fp32_head=False` lets the head go."""
    seen = {}

    def router(logits, k, *, replay=None):
        seen["router"] = logits.dtype
        return top_k_router(logits, k, replay=replay)

    def lightning(q, k, v, slopes, *, state=None, document_ids=None):
        seen["slopes"], seen["q"] = slopes.dtype, q.dtype
        out, state = lightning_attention(q, k, v, slopes, state=state, document_ids=document_ids)
        seen["state"] = state.dtype
        return out, state

    model = build(parts=ModelParts(router=router, lightning=lightning)).float()
    loose = MiniM1(M1Config(**SMALL, fp32_head=False)).float()
    loose.load_state_dict(model.state_dict())
    ids = tokens(2, 9)
    exact = model(ids).logits
    with torch.autocast("cpu", torch.bfloat16):
        h = []
        model.model.norm.register_forward_hook(lambda m, i, o: h.append(o))
        logits, rough = model(ids).logits, loose(ids).logits
    assert seen == {"router": torch.float32, "slopes": torch.float32, "state": torch.float32, "q": torch.bfloat16}
    assert logits.dtype == rough.dtype == torch.float32
    torch.testing.assert_close(logits, h[0].float() @ model.lm_head.weight.T, atol=1e-5, rtol=0)
    assert torch.equal(rough, rough.bfloat16().float()) and not torch.equal(logits, logits.bfloat16().float())
    assert (logits - exact).abs().max() < 0.15 * exact.abs().max()


def recording(calls):
    """Parts with exactly the contract's signatures, which note their arguments and delegate."""

    def note(name, arguments, result):
        calls.append((name, arguments, result))
        return result

    def lightning(q, k, v, slopes, *, state=None, document_ids=None, backend="auto"):
        assert backend == "auto"
        result = lightning_attention(q, k, v, slopes, state=state, document_ids=document_ids)
        return note("lightning", dict(q=q, k=k, v=v, slopes=slopes, state=state, document_ids=document_ids), result)

    def attention(q, k, v, *, mask=None):
        return note("attention", dict(q=q, k=k, v=v, mask=mask), softmax_attention(q, k, v, mask=mask))

    def rope(x, positions, *, rotary_dim, theta):
        arguments = dict(x=x, positions=positions, rotary_dim=rotary_dim, theta=theta)
        return note("rope", arguments, rotary(x, positions, rotary_dim=rotary_dim, theta=theta))

    def router(logits, k, *, replay=None):
        return note("router", dict(logits=logits, k=k, replay=replay), top_k_router(logits, k, replay=replay))

    def dispatch(x, weights, expert_ids, w1, w2, w3):
        arguments = dict(x=x, weights=weights, expert_ids=expert_ids, w1=w1, w2=w2, w3=w3)
        return note("dispatch", arguments, moe.dispatch(x, weights, expert_ids, w1, w2, w3))

    def balance_loss(logits, expert_ids, valid=None):
        arguments = dict(logits=logits, expert_ids=expert_ids, valid=valid)
        return note("balance_loss", arguments, load_balancing_loss(logits, expert_ids, valid))

    return ModelParts(lightning, attention, rope, router, dispatch, balance_loss)


def test_parts_are_called_with_the_contracts_arguments():
    calls = []
    model = build(parts=recording(calls))
    ids, documents = tokens(2, 6), torch.tensor([[4, 4, 9, 9, 9, -1], [-1, 2, 2, 2, 2, 2]])
    out = model(ids, document_ids=documents)
    assert torch.equal(out.logits, build()(ids, document_ids=documents).logits)
    experts = ["router", "dispatch", "balance_loss"]
    assert [name for name, _, _ in calls] == (["lightning", *experts, "rope", "rope", "attention", *experts]) * 2
    by_name = {name: arguments for name, arguments, _ in calls[:8]}  # the first lightning and softmax layer
    shapes = {
        name: {key: tuple(value.shape) for key, value in arguments.items() if isinstance(value, torch.Tensor)}
        for name, arguments in by_name.items()
    }
    assert shapes["lightning"] == dict(
        q=(2, 6, 4, 8), k=(2, 6, 4, 8), v=(2, 6, 4, 8), slopes=(4,), document_ids=(2, 6)
    )
    assert shapes["attention"] == dict(q=(2, 6, 4, 8), k=(2, 6, 2, 8), v=(2, 6, 2, 8), mask=(2, 6, 6))
    assert shapes["router"] == dict(logits=(12, 5))
    assert shapes["dispatch"] == dict(
        x=(12, 24), weights=(12, 2), expert_ids=(12, 2), w1=(5, 14, 24), w2=(5, 24, 14), w3=(5, 14, 24)
    )
    assert shapes["balance_loss"] == dict(logits=(12, 5), expert_ids=(12, 2), valid=(12,))
    assert by_name["rope"]["positions"].tolist() == [[0, 1, 0, 1, 2, 0], [0, 0, 1, 2, 3, 4]]
    assert (by_name["rope"]["rotary_dim"], by_name["rope"]["theta"], by_name["router"]["k"]) == (4, 10_000.0, 2)
    assert by_name["lightning"]["state"] is None and by_name["router"]["replay"] is None
    assert torch.equal(by_name["lightning"]["document_ids"], documents)
    assert torch.equal(by_name["balance_loss"]["valid"], (documents >= 0).flatten())
    # the optional arguments, when a call has neither documents nor padding, and when it has a cache and a replay
    calls.clear()
    model(ids)
    assert calls[0][1]["document_ids"] is None and calls[6][1]["mask"] is None and calls[3][1]["valid"] is None
    calls.clear()
    cache = model.new_cache()
    first = model(ids, cache=cache)
    assert first.aux_loss == 0 and "balance_loss" not in [name for name, _, _ in calls]  # decoding does not train
    state = calls[0][2][1]
    calls.clear()
    model(ids[:, :1], cache=cache, replay=first.expert_ids[:, :, -1:])
    assert torch.equal(calls[0][1]["state"], state)
    assert torch.equal(calls[1][1]["replay"], first.expert_ids[0, :, -1])
    assert calls[3][1]["positions"].tolist() == [[6], [6]] and calls[5][1]["k"].shape == (2, 7, 2, 8)


def test_defaults_have_the_contracts_signatures():
    contract = {
        "lightning": "q, k, v, slopes, *, state=None, document_ids=None, backend",
        "attention": "q, k, v, *, mask=None",
        "rope": "x, positions, *, rotary_dim, theta",
        "router": "logits, k, *, replay=None",
        "dispatch": "x, weights, expert_ids, w1, w2, w3",
        "balance_loss": "logits, expert_ids, valid=None",
    }
    ours, theirs = ModelParts(), recording([])
    for name in contract:
        a, b = (inspect.signature(getattr(parts, name)).parameters for parts in (ours, theirs))
        for key in b:
            assert (a[key].kind, a[key].default) == (b[key].kind, b[key].default), (name, key)
        assert list(a)[: len(b)] == list(b)


def test_block_size_reaches_the_packages_own_form(monkeypatch):
    sizes, fast = [], lightning_module.lightning_fast

    def note(*args, block_size, **options):
        sizes.append(block_size)
        return fast(*args, block_size=block_size, **options)

    monkeypatch.setitem(lightning_module.FORMS, "fast", note)
    ids = tokens(1, 9)
    close = build(block_size=4)(ids).logits
    assert sizes == [4, 4]
    torch.testing.assert_close(build(block_size=256)(ids).logits, close, atol=1e-9, rtol=0)
    assert sizes[2:] == [256, 256]


def test_a_part_changes_the_result():
    """None of the six is decoration."""
    ids = tokens(1, 6)
    base = build()(ids)

    def halved(function):
        def part(*args, **options):
            result = function(*args, **options)
            return (result[0] / 2, *result[1:]) if isinstance(result, tuple) else result / 2
        return part

    for name in ("lightning", "attention", "rope", "router", "dispatch"):
        parts = ModelParts(**{name: halved(getattr(ModelParts(), name))})
        assert (build(parts=parts)(ids).logits - base.logits).abs().max() > 1e-9, name
    aux = build(parts=ModelParts(balance_loss=halved(load_balancing_loss)))(ids).aux_loss
    torch.testing.assert_close(aux, base.aux_loss / 2)


@pytest.mark.parametrize(
    "ids, words",
    [
        (torch.zeros(5, dtype=torch.long), ["(5,)", "expected (B, T) integers"]),
        (torch.zeros(1, 5), ["float32", "expected (B, T) integers"]),
        (torch.zeros(1, 0, dtype=torch.long), ["(1, 0)", "expected (B, T) integers"]),
        (torch.tensor([[0, 37]]), ["37", "vocab_size"]),
        (torch.tensor([[0, -1]]), ["-1", "vocab_size"]),
    ],
)
def test_bad_ids(ids, words):
    with pytest.raises(UserError) as error:
        build()(ids)
    assert all(word in str(error.value) for word in words), error.value


def test_rms_norm_is_torchs_forward_and_backward():
    """With gradients it has a backward of its own."""
    generator = torch.Generator().manual_seed(0)
    for shape in ((3, 5, 24), (7, 24)):
        x = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        norm = RMSNorm(24, 1e-3).double()
        with torch.no_grad():
            norm.weight.uniform_(0.5, 2, generator=generator)
        probe = torch.randn(shape, generator=generator, dtype=torch.float64)
        wanted = torch.nn.functional.rms_norm(x, (24,), norm.weight, 1e-3)
        found = norm(x)
        torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)
        gradients = (torch.autograd.grad((y * probe).sum(), (x, norm.weight)) for y in (found, wanted))
        for a, b in zip(*gradients):
            torch.testing.assert_close(a, b, atol=1e-12, rtol=0)
        with torch.no_grad():
            torch.testing.assert_close(norm(x), wanted, atol=1e-12, rtol=0)


def test_a_model_is_made_without_torchs_compiler():
    """Its import takes longer than all else that `load` does."""
    code = "import sys; from minim1 import load; load('shipped'); print('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
