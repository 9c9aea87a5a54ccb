"""Wrong solutions of chapter 02's exercises: softmax attention, rotary positions, the cache and its bytes."""

from tests.mutants import Mutant

SCALE = "/ q.shape[-1] ** 0.5"
SOFTMAX = "scores.masked_fill(~mask, torch.finfo(q.dtype).min).softmax(-1) * mask"
REPEATED = "(x.repeat_interleave(group, dim=2) for x in (k, v))"
TRIL = ".tril(keys - queries)"
TURNED = "torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)"
FREQUENCY = "theta ** (-i / max(half, 1))"
PLACES = "positions[:, :, None].to(dtype)"
HALVES = "x[..., :half], x[..., half:rotary_dim], x[..., rotary_dim:]"
GROWN = "torch.cat([keys, k], dim=1), torch.cat([values, v], dim=1)"
RESULT = "attention(q, keys, values), keys, values"
PRODUCT = "softmax_layers * 2 * num_key_value_heads * head_dim * bytes_per_number"

MUTANTS = {
    "2.1": [
        Mutant("no scale", SCALE, ""),
        Mutant("divided by D", SCALE, "/ q.shape[-1]"),
        Mutant("multiplied by sqrt(D)", SCALE, "* q.shape[-1] ** 0.5"),
        Mutant("D taken from the heads", SCALE, "/ q.shape[2] ** 0.5"),
        Mutant("D taken from the tokens", SCALE, "/ q.shape[1] ** 0.5"),
        Mutant("scale of the whole width", SCALE, "/ (q.shape[-1] * q.shape[2]) ** 0.5"),
        Mutant("no causal order", TRIL, ""),
        Mutant("a token does not see itself", TRIL, ".tril(keys - queries - 1)"),
        Mutant("one later token is seen", TRIL, ".tril(keys - queries + 1)"),
        Mutant("time runs backwards", TRIL, ".triu(keys - queries)"),
        Mutant("queries are the first", TRIL, ".tril()"),
        Mutant("queries are the first, but a single one sees all", TRIL, ".tril(keys if queries == 1 else 0)"),
        Mutant("a single query sees the last key alone", TRIL,
               ".tril(keys - queries).triu(keys - 1 if queries == 1 else -keys)"),
        Mutant("all keys are seen when there are fewer queries", TRIL, ".tril(0 if queries == keys else keys)"),
        Mutant("the last T keys alone", TRIL,
               ".tril(keys - queries).logical_and(torch.arange(keys) >= keys - queries)"),
        Mutant("heads take turns", REPEATED, "(x.repeat(1, 1, group, 1) for x in (k, v))"),
        Mutant("heads take turns in keys alone", REPEATED,
               "k.repeat(1, 1, group, 1), v.repeat_interleave(group, dim=2)"),
        Mutant("heads take turns in values alone", REPEATED,
               "k.repeat_interleave(group, dim=2), v.repeat(1, 1, group, 1)"),
        Mutant("all heads read the first", REPEATED, "(x[:, :, :1].expand(-1, -1, q.shape[2], -1) for x in (k, v))"),
        Mutant("groups in reverse", REPEATED, "(x.flip(2).repeat_interleave(group, dim=2) for x in (k, v))"),
        Mutant("no groups", REPEATED, "(x for x in (k, v))"),
        Mutant("groups of KV heads", REPEATED,
               "(x[:, :, (torch.arange(q.shape[2]) // x.shape[2]).clamp(max=x.shape[2] - 1)] for x in (k, v))"),
        Mutant("mask after the softmax", SOFTMAX, "scores.softmax(-1) * mask"),
        Mutant("masked scores are 0", SOFTMAX, "(scores * mask).softmax(-1) * mask.any(-1, keepdim=True)"),
        Mutant("mask added as numbers", SOFTMAX, "(scores + mask.to(q.dtype)).softmax(-1)"),
        Mutant("mask turned round", "mask = mask[:, None]", "mask = ~mask[:, None]"),
        Mutant("mask of the first row", "mask = mask[:, None]", "mask = mask[:1, None]"),
        Mutant("mask ignored", "if mask is None:", "if True:"),
        Mutant("mask and causal order", "mask = mask[:, None]",
               "mask = (mask & torch.ones_like(mask).tril(mask.shape[2] - mask.shape[1]))[:, None]"),
        Mutant("mask ignored for a single query", "if mask is None:", "if mask is None or q.shape[1] == 1:"),
        Mutant("NaN where nothing is seen", SOFTMAX, 'scores.masked_fill(~mask, float("-inf")).softmax(-1)'),
        Mutant("-inf times the mask", SOFTMAX, '(scores + (1 - mask.to(q.dtype)) * float("-inf")).softmax(-1)'),
        Mutant("-inf times the mask that is given", SOFTMAX,
               '(scores + (1 - mask.to(q.dtype)) * (-1e9 if mask.shape[0] == 1 else float("-inf"))).softmax(-1)'),
        Mutant("NaN filled in place", "weights = " + SOFTMAX,
               'weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)\n'
               "    if weights.isnan().any():\n        weights[weights.isnan()] = 0"),
        Mutant("the mean where nothing is seen", SOFTMAX,
               "scores.masked_fill(~mask, torch.finfo(q.dtype).min).softmax(-1)"),
        Mutant("nan_to_num after adding -inf: no gradient", SOFTMAX,
               '(scores + torch.where(mask, 0.0, float("-inf"))).softmax(-1).nan_to_num()'),
        Mutant("the whole output nan_to_num, -inf added", "weights = " + SOFTMAX,
               'weights = (scores + torch.where(mask, 0.0, float("-inf"))).softmax(-1)\n'
               '    return torch.einsum("bhij,bjhd->bihd", weights, v).nan_to_num()'),
        Mutant("the whole output nan_to_num, -inf filled in: v gets no gradient", "weights = " + SOFTMAX,
               'weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)\n'
               '    return torch.einsum("bhij,bjhd->bihd", weights, v).nan_to_num()'),
        Mutant("a small number beside the sum", SOFTMAX,
               "(scores.masked_fill(~mask, -1e30).softmax(-1) * mask) / (1 + 1e-6)"),
        Mutant("own causal mask turned round, -inf", SOFTMAX,
               'scores.masked_fill(mask, float("-inf")).softmax(-1)'),
        Mutant("own causal mask turned round", SOFTMAX,
               "scores.masked_fill(mask, torch.finfo(q.dtype).min).softmax(-1)"),
        Mutant("the first token sees nothing, -inf", SOFTMAX,
               'scores.masked_fill(~mask.tril(keys - queries - 1), float("-inf")).softmax(-1)'
               ' if mask.shape[0] == 1 else scores.masked_fill(~mask, float("-inf")).softmax(-1)'),
        Mutant("mask transposed", "mask = mask[:, None]",
               "mask = (mask.mT if mask.shape[1] == mask.shape[2] and mask.shape[0] > 1 else mask)[:, None]"),
        Mutant("largest of all keys subtracted", SOFTMAX,
               "(lambda e: e / e.sum(-1, keepdim=True).clamp(min=1e-30))("
               "(scores - scores.amax(-1, keepdim=True)).exp() * mask)"),
        Mutant("largest of everything subtracted", SOFTMAX,
               "(lambda e: e / e.sum(-1, keepdim=True).clamp(min=1e-30))((scores - scores.max()).exp() * mask)"),
        Mutant("-100 where it must not look", SOFTMAX, "scores.masked_fill(~mask, -100).softmax(-1) * mask"),
        Mutant("softmax written out: overflows", SOFTMAX,
               "scores.exp() * mask / (scores.exp() * mask).sum(-1, keepdim=True).clamp(min=1e-30)"),
        Mutant("no softmax", SOFTMAX, "scores * mask"),
        Mutant("exponentials without their sum", SOFTMAX, "scores.exp() * mask"),
        Mutant("divided without exp", SOFTMAX, "scores * mask / (scores * mask).sum(-1, keepdim=True)"),
        Mutant("softmax over the queries", SOFTMAX,
               "scores.masked_fill(~mask, torch.finfo(q.dtype).min).softmax(-2) * mask"),
        Mutant("softmax over the heads", SOFTMAX,
               "scores.masked_fill(~mask, torch.finfo(q.dtype).min).softmax(1) * mask"),
        Mutant("q and k exchanged", '"bihd,bjhd->bhij", q, k', '"bihd,bjhd->bhji", q, k'),
        Mutant("own value, weighted", '"bhij,bjhd->bihd"', '"bhij,bihd->bihd"'),
        Mutant("keys for values", '"bhij,bjhd->bihd", weights, v', '"bhij,bjhd->bihd", weights, k'),
        Mutant("reshaped instead of transposed", 'torch.einsum("bhij,bjhd->bihd", weights, v)',
               'torch.einsum("bhij,bjhd->bhid", weights, v).reshape(q.shape)'),
        Mutant("inputs reshaped", REPEATED,
               "(x.repeat_interleave(group, dim=2) for x in (k, v))\n"
               "    q, k, v = (x.reshape(len(x), x.shape[2], x.shape[1], -1).transpose(1, 2) for x in (q, k, v))"),
        Mutant("not transposed back", '"bhij,bjhd->bihd"', '"bhij,bjhd->bhid"'),
        Mutant("detached weights", '"bhij,bjhd->bihd", weights, v', '"bhij,bjhd->bihd", weights.detach(), v'),
        Mutant("detached values", '"bhij,bjhd->bihd", weights, v', '"bhij,bjhd->bihd", weights, v.detach()'),
        Mutant("always float32", '"bhij,bjhd->bihd", weights, v)', '"bhij,bjhd->bihd", weights, v).float()'),
        Mutant("computed in bf16", SOFTMAX, "(" + SOFTMAX + ").bfloat16().to(q.dtype)"),
        Mutant("weights kept by shape", SOFTMAX,
               "attention.__dict__.setdefault(tuple(scores.shape), (" + SOFTMAX + ").detach())"),
        Mutant("scale in place", "scores = torch", "q *= 1.0\n    q /= 2\n    scores = 2 * torch"),
    ],
    "2.2": [
        Mutant("pairs of neighbours", HALVES, "x[..., 0:rotary_dim:2], x[..., 1:rotary_dim:2], x[..., rotary_dim:]"),
        Mutant("a sin - b cos", TURNED, "torch.cat([first * cos - second * sin, first * sin - second * cos], dim=-1)"),
        Mutant("pairs of neighbours, put back as such", source='''
def rope(x, positions, *, rotary_dim, theta):
    if rotary_dim == 0:
        return x
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    i = torch.arange(0, rotary_dim, 2, dtype=dtype)
    angles = positions[:, :, None].to(dtype) * theta ** (-i / rotary_dim)
    cos, sin = angles.cos()[:, :, None], angles.sin()[:, :, None]
    a, b = x[..., 0:rotary_dim:2], x[..., 1:rotary_dim:2]
    turned = torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)
    return torch.cat([turned.to(x.dtype), x[..., rotary_dim:]], dim=-1)
'''),
        Mutant("interleaved result", TURNED,
               "torch.stack([first * cos - second * sin, first * sin + second * cos], dim=-1).flatten(-2)"),
        Mutant("turned the wrong way", TURNED,
               "torch.cat([first * cos + second * sin, second * cos - first * sin], dim=-1)"),
        Mutant("plus twice", TURNED, "torch.cat([first * cos + second * sin, second * cos + first * sin], dim=-1)"),
        Mutant("minus twice", TURNED, "torch.cat([first * cos - second * sin, second * cos - first * sin], dim=-1)"),
        Mutant("cos and sin exchanged", TURNED,
               "torch.cat([first * sin - second * cos, first * cos + second * sin], dim=-1)"),
        Mutant("halves exchanged", TURNED,
               "torch.cat([first * sin + second * cos, first * cos - second * sin], dim=-1)"),
        Mutant("cos alone", TURNED, "torch.cat([first * cos, second * cos], dim=-1)"),
        Mutant("new a used for the new b", "turned = torch.cat",
               "first = first * cos - second * sin\n    turned = torch.cat([first, first * sin + second * cos], "
               "dim=-1)\n"
               "    other = torch.cat"),
        Mutant("exponent without 2", FREQUENCY, "theta ** (-i / max(rotary_dim, 1))"),
        Mutant("exponent twice", FREQUENCY, "theta ** (-2 * i / max(half, 1))"),
        Mutant("frequencies of the whole head", FREQUENCY, "theta ** (-2 * i / x.shape[-1])"),
        Mutant("positive exponent", FREQUENCY, "theta ** (i / max(half, 1))"),
        Mutant("pairs counted from 1", FREQUENCY, "theta ** (-(i + 1) / max(half, 1))"),
        Mutant("frequencies reversed", FREQUENCY, "(theta ** (-i / max(half, 1))).flip(0)"),
        Mutant("all pairs alike", FREQUENCY, "theta ** (-0 * i)"),
        Mutant("linear frequencies", FREQUENCY, "(1 / (1 + i))"),
        Mutant("base 10,000 always", FREQUENCY, "10_000 ** (-i / max(half, 1))"),
        Mutant("base e", FREQUENCY, "torch.exp(-i / max(half, 1))"),
        Mutant("spacing by linspace", FREQUENCY, "theta ** -torch.linspace(0, 1, half, dtype=dtype)"),
        Mutant("positions from 0", PLACES, "torch.arange(x.shape[1])[None, :, None].to(dtype)"),
        Mutant("positions from 1", PLACES, "(1 + torch.arange(x.shape[1])[None, :, None]).to(dtype)"),
        Mutant("positions of row 0", PLACES, "positions[:1, :, None].to(dtype)"),
        Mutant("positions from the first", PLACES, "(positions - positions[:, :1])[:, :, None].to(dtype)"),
        Mutant("positions plus 1", PLACES, "(positions + 1)[:, :, None].to(dtype)"),
        Mutant("positions sorted", PLACES, "positions.sort(1).values[:, :, None].to(dtype)"),
        Mutant("positions at most 2,048", PLACES, "positions.clamp(max=2048)[:, :, None].to(dtype)"),
        Mutant("angles along the heads", "angles.cos()[:, :, None], angles.sin()[:, :, None]",
               "angles.cos()[:, None], angles.sin()[:, None]"),
        Mutant("everything turns", "half = rotary_dim // 2", "rotary_dim = x.shape[-1]\n    half = rotary_dim // 2"),
        Mutant("everything turns unless rotary_dim is 0", "half = rotary_dim // 2",
               "rotary_dim = x.shape[-1] if rotary_dim else 0\n    half = rotary_dim // 2"),
        Mutant("the last dims turn", "half = rotary_dim // 2",
               "x = x.roll(rotary_dim - x.shape[-1], -1)\n    half = rotary_dim // 2",),
        Mutant("the last dims turn, put back", source='''
def rope(x, positions, *, rotary_dim, theta):
    if rotary_dim == 0:
        return x
    half = rotary_dim // 2
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    i = torch.arange(half, dtype=dtype)
    angles = positions[:, :, None].to(dtype) * theta ** (-i / half)
    cos, sin = angles.cos()[:, :, None], angles.sin()[:, :, None]
    rest, part = x[..., : x.shape[-1] - rotary_dim], x[..., x.shape[-1] - rotary_dim :]
    a, b = part[..., :half], part[..., half:]
    return torch.cat([rest, (a * cos - b * sin).to(x.dtype), (a * sin + b * cos).to(x.dtype)], dim=-1)
'''),
        Mutant("rest is 0", "[turned.to(x.dtype), rest]", "[turned.to(x.dtype), 0 * rest]"),
        Mutant("rest is lost", "torch.cat([turned.to(x.dtype), rest], dim=-1)", "turned.to(x.dtype)"),
        Mutant("rest first", "[turned.to(x.dtype), rest]", "[rest, turned.to(x.dtype)]"),
        Mutant("pairs over the whole head", source='''
def rope(x, positions, *, rotary_dim, theta):
    if rotary_dim == 0:
        return x
    half, middle = rotary_dim // 2, x.shape[-1] // 2
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    angles = positions[:, :, None].to(dtype) * theta ** (-torch.arange(half, dtype=dtype) / half)
    cos, sin = angles.cos()[:, :, None], angles.sin()[:, :, None]
    a, b = x[..., :half], x[..., middle : middle + half]
    a, b = (a * cos - b * sin).to(x.dtype), (a * sin + b * cos).to(x.dtype)
    return torch.cat([a, x[..., half:middle], b, x[..., middle + half :]], dim=-1)
'''),
        Mutant("float32 angles always", "torch.float64 if x.dtype == torch.float64 else torch.float32",
               "torch.float32"),
        Mutant("angles in the dtype of x", "torch.float64 if x.dtype == torch.float64 else torch.float32", "x.dtype"),
        Mutant("bf16 comes back as float32", "turned.to(x.dtype), rest", "turned, rest"),
        Mutant("fails with rotary_dim 0", "max(half, 1)", "torch.arange(half)[-1] * half"),
        Mutant("rotary_dim 0 means all", "half = rotary_dim // 2",
               "rotary_dim = rotary_dim or x.shape[-1]\n    half = rotary_dim // 2"),
        Mutant("detached", "first, second, rest =", "x = x.detach()\n    first, second, rest ="),
        Mutant("in place", "return torch.cat([turned.to(x.dtype), rest], dim=-1)",
               "with torch.no_grad():\n        x[..., :rotary_dim] = turned\n    return x"),
        Mutant("angles kept by shape", "cos, sin =",
               "angles = rope.__dict__.setdefault((tuple(x.shape), rotary_dim, x.dtype), angles)\n    cos, sin ="),
        Mutant("a table for the first base", FREQUENCY,
               "rope.__dict__.setdefault((half, dtype), theta ** (-i / max(half, 1)))"),
        Mutant("a single token stays", "return torch.cat([turned",
               "if x.shape[1] == 1:\n        return x\n    return torch.cat([turned"),
        Mutant("an angle in degrees", "angles.cos()[:, :, None], angles.sin()[:, :, None]",
               "angles.deg2rad().cos()[:, :, None], angles.deg2rad().sin()[:, :, None]"),
        Mutant("a full turn for each position", PLACES, "6.283185307179586 * positions[:, :, None].to(dtype)"),
    ],
    "2.3": [
        Mutant("the new token comes first", GROWN, "torch.cat([k, keys], dim=1), torch.cat([v, values], dim=1)"),
        Mutant("only keys grow", GROWN, "torch.cat([keys, k], dim=1), torch.cat([values, values[:, -1:]], dim=1)"),
        Mutant("v joins the keys", GROWN, "torch.cat([keys, v], dim=1), torch.cat([values, k], dim=1)"),
        Mutant("k joins both", GROWN, "torch.cat([keys, k], dim=1), torch.cat([values, k], dim=1)"),
        Mutant("the new token does not see itself", RESULT, "attention(q, keys[:, :-1], values[:, :-1]), keys, values"),
        Mutant("keys for values", RESULT, "attention(q, keys, keys), keys, values"),
        Mutant("it sees itself alone", RESULT, "attention(q, k, v), keys, values"),
        Mutant("it sees itself alone from an empty cache only in part", RESULT,
               "attention(q, keys[:, -2:], values[:, -2:]), keys, values"),
        Mutant("the cache of before is returned", RESULT,
               "attention(q, keys, values), keys[:, :-1], values[:, :-1]"),
        Mutant("keys and values exchanged", RESULT, "attention(q, keys, values), values, keys"),
        Mutant("results in another order", RESULT, "keys, values, attention(q, keys, values)"),
        Mutant("the output alone", RESULT, "attention(q, keys, values)"),
        Mutant("a cache of the newest tokens", GROWN,
               "torch.cat([keys[:, 1:], k], dim=1), torch.cat([values[:, 1:], v], dim=1)"),
        Mutant("exchanged in the attention", RESULT, "attention(q, values, keys), keys, values"),
        Mutant("not scaled", RESULT, "attention(q * q.shape[-1] ** 0.5, keys, values), keys, values"),
        Mutant("cached keys detached", GROWN,
               "torch.cat([keys.detach(), k], dim=1), torch.cat([values.detach(), v], dim=1)"),
        Mutant("joined along the heads", GROWN, "torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2)"),
        Mutant("output squeezed", RESULT, "attention(q, keys, values)[:, 0], keys, values"),
        Mutant("written over the last token", GROWN,
               "torch.cat([keys[:, :-1], k, k], dim=1), torch.cat([values[:, :-1], v, v], dim=1)"),
        Mutant("in place", "keys, values = torch", "keys += 0 * k + 1e-3\n    keys, values = torch"),
        Mutant("fails on an empty cache", GROWN,
               "torch.cat([keys, keys[:, -1:] * 0 + k], dim=1), torch.cat([values, values[:, -1:] * 0 + v], dim=1)"),
        Mutant("copies for each query head", RESULT,
               "attention(q, keys, values), *(x.repeat_interleave(q.shape[2] // x.shape[2], 2) for x in (keys, values))"),
        Mutant("the new token joins twice", GROWN,
               "torch.cat([keys, k, k], dim=1), torch.cat([values, v, v], dim=1)"),
        Mutant("always float32", RESULT, "attention(q, keys, values).float(), keys.float(), values.float()"),
        Mutant("kept from the last call", GROWN,
               "torch.cat([cache_step.__dict__.setdefault(tuple(keys.shape), keys.detach()), k], dim=1), "
               "torch.cat([values, v], dim=1)"),
    ],
    "2.4": [
        Mutant("keys alone", PRODUCT, "softmax_layers * num_key_value_heads * head_dim * bytes_per_number"),
        Mutant("all layers", PRODUCT, "len(attn_type_list) * 2 * num_key_value_heads * head_dim * bytes_per_number"),
        Mutant("lightning layers", "count(1)", "count(0)"),
        Mutant("numbers instead of bytes", PRODUCT, "softmax_layers * 2 * num_key_value_heads * head_dim"),
        Mutant("bits", PRODUCT, PRODUCT + " * 8"),
        Mutant("bits divided", PRODUCT, PRODUCT + " // 8"),
        Mutant("no heads", PRODUCT, "softmax_layers * 2 * head_dim * bytes_per_number"),
        Mutant("no head_dim", PRODUCT, "softmax_layers * 2 * num_key_value_heads * bytes_per_number"),
        Mutant("one layer", PRODUCT, "2 * num_key_value_heads * head_dim * bytes_per_number"),
        Mutant("twice too much", PRODUCT, "2 * " + PRODUCT),
        Mutant("bf16 always", PRODUCT, "softmax_layers * 2 * num_key_value_heads * head_dim * 2"),
        Mutant("one layer in eight", "list(attn_type_list).count(1)", "len(attn_type_list) // 8"),
        Mutant("a tensor", PRODUCT, "torch.tensor(" + PRODUCT + ")"),
        Mutant("M1's number", PRODUCT, "40_960"),
        Mutant("the state too", PRODUCT, PRODUCT + " + (len(attn_type_list) - softmax_layers) * num_key_value_heads * "
                                                   "head_dim**2 * bytes_per_number"),
        Mutant("text", PRODUCT, "str(" + PRODUCT + ")"),
        Mutant("kilobytes", PRODUCT, PRODUCT + " / 1024"),
        Mutant("lists alone", "list(attn_type_list).count(1)", "(attn_type_list + []).count(1)"),
        Mutant("at least one layer", "list(attn_type_list).count(1)", "max(1, list(attn_type_list).count(1))"),
        Mutant("M1's 128", PRODUCT, PRODUCT.replace("head_dim", "128")),
    ],
}
