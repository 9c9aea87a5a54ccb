"""The same weights give the same logits and gradients as transformers' `MiniMaxForCausalLM`.

Theirs decodes rightly only with explicit positions, and its slopes agree with M1's for head counts that are powers of
two. What its config and weights are called is `minim1.interop`'s business.
"""

import pytest
import torch
import torch.nn.functional as F

from minim1.config import M1Config
from minim1.interop import hf_config, rotary_order
from minim1.model.decoder import MiniM1
from minim1.report.bench.models import hf_names

minimax = pytest.importorskip("transformers.models.minimax")

BLOCK = 16  # theirs; ours is 64
SIZES = dict(
    vocab_size=101, hidden_size=48, intermediate_size=40, num_hidden_layers=8, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16, num_local_experts=6, num_experts_per_tok=2, rms_norm_eps=1e-5,
)


def ours(rotary_dim=16, **changes):
    model = MiniM1(M1Config(**SIZES, rope_theta=1e7, rotary_dim=rotary_dim, **changes), seed=1)
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data.uniform_(0.5, 1.5, generator=generator)
    return model


def theirs(config):
    here = {"block_size": BLOCK, "pad_token_id": None}  # a padding token's embedding would get no gradient
    return minimax.MiniMaxForCausalLM(minimax.MiniMaxConfig(**hf_config(config) | here)).eval()


def load(model, tensors):
    missing, unexpected = model.load_state_dict(hf_names(tensors), strict=False)
    assert not unexpected and all(name.endswith(("slope_rate", "_decay")) for name in missing)
    return model


@pytest.fixture(scope="module")
def pair():
    model = ours()
    return model, load(theirs(model.config), model.state_dict())


def tokens(*shape, seed=0):
    return torch.randint(101, shape, generator=torch.Generator().manual_seed(seed))


def close(found, expected, tolerance=2e-5):  # rounding, and 4e-7 between their slopes and M1's
    scale = expected.abs().max().item()
    assert scale > 0.1  # a difference of nothings proves nothing
    torch.testing.assert_close(found, expected, atol=tolerance * max(scale, 1), rtol=0)


@pytest.mark.parametrize("length", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7, 64, 65, 133])
def test_logits(pair, length):
    model, reference = pair
    ids = tokens(2, length, seed=length)
    with torch.no_grad():
        close(model(ids).logits, reference(ids, use_cache=False).logits)


@pytest.mark.parametrize("length", [2 * BLOCK + 5, 71])
def test_gradients(pair, length):
    """Of every parameter, and the loss they belong to."""
    model, reference = pair
    ids = tokens(2, length, seed=length)
    losses = []
    for net, logits in ((model, model(ids).logits), (reference, reference(ids, use_cache=False).logits)):
        net.zero_grad()
        losses.append(F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()))
        losses[-1].backward()
    torch.testing.assert_close(*losses, atol=1e-5, rtol=0)
    found = hf_names({name: parameter.grad for name, parameter in model.named_parameters()})
    expected = {name: parameter.grad for name, parameter in reference.named_parameters()}
    assert found.keys() == expected.keys()
    for name in expected:
        scale = expected[name].abs().max().item()
        assert scale > 0, name
        assert (found[name] - expected[name]).abs().max().item() <= 1e-4 * scale, name


def test_decoding(pair):
    """Prefill, then one token at a time, theirs with explicit positions: both equal the full forward."""
    model, reference = pair
    ids = tokens(2, BLOCK + 12, seed=3)
    start = BLOCK + 3
    ours_cache, theirs_cache = model.new_cache(), None
    with torch.no_grad():
        full = reference(ids, use_cache=False).logits
        for at in range(start - 1, ids.shape[1]):
            piece = slice(0, start) if at == start - 1 else slice(at, at + 1)
            positions = torch.arange(ids.shape[1])[piece].expand(2, -1)
            output = reference(ids[:, piece], position_ids=positions, past_key_values=theirs_cache, use_cache=True)
            theirs_cache = output.past_key_values
            logits = model(ids[:, piece], cache=ours_cache).logits
            close(logits, output.logits)
            close(logits, full[:, piece])


def test_left_padding(pair):
    """Their 2D mask and our document ids mean the same."""
    model, reference = pair
    ids, mask = tokens(2, 2 * BLOCK + 3), torch.ones(2, 2 * BLOCK + 3, dtype=torch.long)
    mask[1, : BLOCK + 2] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        expected = reference(ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
        found = model(ids, document_ids=mask - 1).logits
    close(found[mask.bool()], expected[mask.bool()])


@pytest.mark.parametrize("rotary_dim", [8, 4, 0])
def test_partial_rotary(rotary_dim):
    """Their full rotary, made partial: rows of q and k permuted so that its pairs are ours, other frequencies 0."""
    model = ours(rotary_dim)
    weights, order = dict(model.state_dict()), rotary_order(model.config)
    for name in weights:
        if name.endswith(("self_attn.q_proj.weight", "self_attn.k_proj.weight")):
            weights[name] = weights[name].unflatten(0, (-1, 16))[:, order].flatten(0, 1)
    reference = load(theirs(model.config), weights)
    exponents = torch.arange(0, rotary_dim, 2) / max(rotary_dim, 1)
    torch.testing.assert_close(reference.model.rotary_emb.inv_freq[: rotary_dim // 2], 1e7**-exponents)
    assert (reference.model.rotary_emb.inv_freq[rotary_dim // 2 :] < 1e-29).all()
    ids = tokens(2, 75)
    with torch.no_grad():
        close(model(ids).logits, reference(ids, use_cache=False).logits)
        wrong = ours(16)
        wrong.load_state_dict(model.state_dict())
        assert (wrong(ids).logits - model(ids).logits).abs().max() > 1e-3  # the test can see rotary_dim


def test_residual_factors():
    """Every alpha and beta of its own value."""
    values = [1.3, 0.7, 1.9, 1.2, 2.3, 0.4]
    names = [
        f"layernorm_{kind}_{factor}"
        for kind in ("full_attention", "linear_attention", "mlp") for factor in ("alpha", "beta")
    ]
    model = ours(**dict(zip(names, values)))
    reference = load(theirs(model.config), model.state_dict())
    ids = tokens(1, 2 * BLOCK + 1)
    with torch.no_grad():
        close(model(ids).logits, reference(ids, use_cache=False).logits)
