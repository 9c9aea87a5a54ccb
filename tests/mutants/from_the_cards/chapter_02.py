"""Chapter 02."""

from tests.mutants.from_the_cards import Cards

MUTANTS = Cards()
add, fam = MUTANTS.add, MUTANTS.family

# ------------------------------------------------------------ 2.1
ATT = '''
import math
import torch
import torch.nn.functional as F
def attention(q, k, v, *, mask=None):
    B, T, H, D = q.shape
    S, KV = k.shape[1], k.shape[2]
    keys = k.repeat_interleave(H // KV, dim=2)
    values = v.repeat_interleave(H // KV, dim=2)
    scores = torch.einsum("bthd,bshd->bhts", q, keys) / math.sqrt(D)
    if mask is None:
        mask = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T).expand(B, T, S)
    see = mask[:, None]
    some = see.any(-1, keepdim=True)
    scores = scores.masked_fill(~see & some, float("-inf"))
    weights = torch.softmax(scores, dim=-1) * some
    return torch.einsum("bhts,bshd->bthd", weights, values)
'''
KEYS = "keys = k.repeat_interleave(H // KV, dim=2)"
VALS = "values = v.repeat_interleave(H // KV, dim=2)"
SC = 'scores = torch.einsum("bthd,bshd->bhts", q, keys) / math.sqrt(D)'
CAUS = "mask = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T).expand(B, T, S)"
SOME = "some = see.any(-1, keepdim=True)"
FILL = 'scores = scores.masked_fill(~see & some, float("-inf"))'
SOFT = "weights = torch.softmax(scores, dim=-1) * some"
RET = 'return torch.einsum("bhts,bshd->bthd", weights, values)'
ALL = FILL + "\n    " + SOFT + "\n    " + RET
NINF = 'scores.masked_fill(~see, float("-inf"))'
fam("2.1", ATT, [
 ("base", "right"),
 ("where_inf", "right", FILL, "scores = torch.where(see | ~some, scores, torch.full_like(scores, -math.inf))"),
 ("finfo_min_times_mask", "right", FILL, "scores = scores.masked_fill(~see, torch.finfo(q.dtype).min)", SOFT, "weights = torch.softmax(scores, dim=-1) * see"),
 ("1e9_times_mask", "right", FILL, "scores = scores.masked_fill(~see, -1e9)", SOFT, "weights = torch.softmax(scores, dim=-1) * see"),
 ("nan_weights_filled", "right", FILL, "scores = " + NINF, SOFT, "weights = torch.softmax(scores, dim=-1).masked_fill(~see, 0)"),
 ("nan_to_num_weights", "right", FILL, "scores = " + NINF, SOFT, "weights = torch.softmax(scores, dim=-1).nan_to_num(0)"),
 ("fp64_inside", "right", "    B, T, H, D", "    dtype = q.dtype; q, k, v = q.double(), k.double(), v.double()\n    B, T, H, D", RET, RET + ".to(dtype)"),
 ("exp_max", "right", ALL, "scores = scores.masked_fill(~see, -math.inf); m = scores.amax(-1, keepdim=True).clamp(min=-1e30).detach()\n    e = (scores - m).exp(); return torch.einsum('bhts,bshd->bthd', e / e.sum(-1, keepdim=True).clamp(min=0.5), values)"),
 ("divide_after_sum", "right", ALL, "scores = scores.masked_fill(~see, -1e30); e = (scores - scores.detach().amax(-1, keepdim=True)).exp() * see\n    return torch.einsum('bhts,bshd->bthd', e, values) / (e.sum(-1).transpose(1, 2)[..., None] + (~some).transpose(1, 2))"),
 ("logsumexp", "right", ALL, "scores = scores.masked_fill(~see, -1e9); scores = scores - scores.detach().amax(-1, keepdim=True); return torch.einsum('bhts,bshd->bthd', (scores - scores.logsumexp(-1, keepdim=True)).exp() * some, values)"),
 ("where_after_division", "right", ALL, "z = scores.masked_fill(~see, -1e9); e = (z - z.detach().amax(-1, keepdim=True)).exp() * see; s = e.sum(-1, keepdim=True)\n    weights = torch.where(s > 0, e / s, 0.0); " + RET),
 ("scaled_q", "right", SC, 'scores = torch.einsum("bthd,bshd->bhts", q * D ** -0.5, keys)'),
 ("list_of_heads", "right", KEYS, "keys = torch.stack([k[:, :, h * KV // H] for h in range(H)], 2)", VALS, "values = v[:, :, torch.arange(H) // (H // KV)]"),
 ("contiguous_view_transposed", "right", RET, 'return torch.einsum("bhts,bshd->bhtd", weights, values).transpose(1, 2)'),
 ("no_scale", "wrong", " / math.sqrt(D)", ""),
 ("scale_D", "wrong", "/ math.sqrt(D)", "/ D"),
 ("times_sqrt", "wrong", "/ math.sqrt(D)", "* math.sqrt(D)"),
 ("scale_D4", "wrong", "/ math.sqrt(D)", "/ 2"),
 ("scale_D8", "wrong", "/ math.sqrt(D)", "/ math.sqrt(8)"),
 ("scale_D16", "wrong", "/ math.sqrt(D)", "/ math.sqrt(16)"),
 ("scale_all_heads", "wrong", "/ math.sqrt(D)", "/ math.sqrt(H * D)"),
 ("scale_keys", "wrong", "/ math.sqrt(D)", "/ math.sqrt(S)"),
 ("scale_twice", "wrong", SC, SC + "; scores = scores / math.sqrt(D)"),
 ("tiled_heads", "wrong", KEYS, "keys = k.repeat(1, 1, H // KV, 1)", VALS, "values = v.repeat(1, 1, H // KV, 1)"),
 ("modulo_heads", "wrong", KEYS, "keys = k[:, :, torch.arange(H) % KV]", VALS, "values = v[:, :, torch.arange(H) % KV]"),
 ("values_tiled", "wrong", VALS, "values = v.repeat(1, 1, H // KV, 1)"),
 ("divided_by_KV", "wrong", KEYS, "ids = (torch.arange(H) // KV).clamp(max=KV - 1); keys = k[:, :, ids]", VALS, "values = v[:, :, ids]"),
 ("first_head_only", "wrong", KEYS, "keys = k[:, :, :1].expand(B, S, H, D)", VALS, "values = v[:, :, :1].expand(B, S, H, D)"),
 ("group_of_2", "wrong", KEYS, "keys = k.repeat_interleave(2, dim=2) if H > KV else k", VALS, "values = v.repeat_interleave(2, dim=2) if H > KV else v"),
 ("repeated_rows", "wrong", KEYS, "keys = k.repeat_interleave(H // KV, dim=3).reshape(B, S, H, D)", VALS, "values = v.repeat_interleave(H // KV, dim=3).reshape(B, S, H, D)"),
 ("no_groups", "wrong", KEYS, "keys = k", VALS, "values = v"),
 ("first_T_of_S", "wrong", ".tril(S - T)", ".tril()"),
 ("sees_next", "wrong", ".tril(S - T)", ".tril(S - T + 1)"),
 ("not_itself", "wrong", ".tril(S - T)", ".tril(S - T - 1)"),
 ("sign_of_offset", "wrong", ".tril(S - T)", ".tril(T - S)"),
 ("upper", "wrong", ".tril(S - T)", ".triu(S - T)"),
 ("not_causal", "wrong", ".tril(S - T)", ""),
 ("causal_only_if_square", "wrong", CAUS, "mask = (torch.ones(T, S, dtype=torch.bool).tril() if T == S else torch.ones(T, S, dtype=torch.bool)).expand(B, T, S)"),
 ("single_sees_first", "wrong", CAUS, CAUS + "\n        if T == 1: mask = torch.arange(S).expand(B, 1, S) == 0"),
 ("single_sees_self", "wrong", CAUS, CAUS + "\n        if T == 1: mask = torch.arange(S).expand(B, 1, S) == S - 1"),
 ("window8", "wrong", ".tril(S - T)", ".tril(S - T).triu(S - T - 7)"),
 ("window16", "wrong", ".tril(S - T)", ".tril(S - T).triu(S - T - 15)"),
 ("mask_and_causal", "wrong", "see = mask[:, None]", "see = mask[:, None] & torch.ones(T, S, dtype=torch.bool).tril(S - T)"),
 ("mask_and_causal_if_square", "wrong", "see = mask[:, None]", "see = mask[:, None] & (torch.ones(T, S, dtype=torch.bool).tril() if T == S else True)"),
 ("mask_ignored", "wrong", "if mask is None:", "if True:"),
 ("mask_inverted", "wrong", "see = mask[:, None]", "see = ~mask[:, None]"),
 ("given_mask_inverted", "wrong", "see = mask[:, None]", "see = mask[:, None]", "    if mask is None:", "    if mask is not None: mask = ~mask\n    else:"),
 ("mask_first_batch", "wrong", "see = mask[:, None]", "see = mask[:1, None]"),
 ("mask_first_query", "wrong", "see = mask[:, None]", "see = mask[:, None] if mask.stride(0) == 0 else mask[:, None, :1]"),
 ("mask_of_keys", "wrong", "see = mask[:, None]", "see = mask.any(1)[:, None, None].expand(B, 1, T, S) if mask.stride(0) else mask[:, None]"),
 ("mask_by_head", "wrong", "see = mask[:, None]", "see = mask[None]"),
 ("mask_transposed", "wrong", "see = mask[:, None]", "see = mask[:, None].mT if T == S and mask.stride(0) else mask[:, None]"),
 ("mask_plus_self", "wrong", "see = mask[:, None]", "see = mask[:, None] | torch.eye(S, dtype=torch.bool)[S - T:]"),
 ("nan_rows", "wrong", FILL, "scores = " + NINF, SOFT, "weights = torch.softmax(scores, dim=-1)"),
 ("empty_row_mean", "wrong", FILL, "scores = scores.masked_fill(~see, -1e9)", " * some", ""),
 ("empty_row_soft", "wrong", " * some", ""),
 ("empty_row_own_value", "wrong", " * some", " + ~some * torch.eye(S)[S - T:].to(q)", SOFT[:10], SOFT[:10], "dim=-1)", "dim=-1) * some"),
 ("nan_to_num_output", "wrong", ALL, "scores = " + NINF + "\n    weights = torch.softmax(scores, dim=-1)\n    " + RET + ".nan_to_num(0)"),
 ("nan_where_output", "wrong", ALL, "scores = " + NINF + "\n    weights = torch.softmax(scores, dim=-1)\n    out = " + RET[7:] + "; return torch.where(out.isnan(), 0.0, out)"),
 ("added_bias_nan_grad", "wrong", FILL, "scores = scores + torch.zeros(see.shape).masked_fill(~see, -math.inf).to(q)", SOFT, "weights = torch.softmax(scores, dim=-1).nan_to_num(0)"),
 ("all_zero_if_one_empty", "wrong", SOME, "some = see.any(-1).all().expand(B, 1, T, 1)"),
 ("batch_zero_if_one_empty", "wrong", SOME, "some = see.any(-1, keepdim=True).all(2, keepdim=True)"),
 ("empty_by_first_key", "wrong", SOME, "some = see[..., :1]"),
 ("empty_by_last_key", "wrong", SOME, "some = see[..., -1:] if mask.stride(0) else see.any(-1, keepdim=True)"),
 ("exp_overflow", "wrong", ALL, "e = scores.exp() * see; weights = e / (e.sum(-1, keepdim=True) + ~some); " + RET),
 ("exp_clamped_80", "wrong", ALL, "e = scores.clamp(-80, 80).exp() * see; weights = e / (e.sum(-1, keepdim=True) + ~some); " + RET),
 ("clamped_50", "wrong", FILL, "scores = scores.clamp(-50, 50); " + FILL),
 ("clamped_100", "wrong", FILL, "scores = scores.clamp(-100, 100); " + FILL),
 ("max_of_all_keys", "wrong", ALL, "e = (scores - scores.amax(-1, keepdim=True)).exp() * see; weights = e / (e.sum(-1, keepdim=True) + ~some); " + RET),
 ("max_of_all_eps", "wrong", ALL, "e = (scores - scores.amax(-1, keepdim=True)).exp() * see; weights = e / (e.sum(-1, keepdim=True) + 1e-20); " + RET),
 ("max_of_tensor", "wrong", ALL, "e = (scores - scores.max()).exp() * see; weights = e / (e.sum(-1, keepdim=True) + 1e-30); " + RET),
 ("max_abs", "wrong", ALL, "e = (scores - scores.abs().amax(-1, keepdim=True)).exp() * see; weights = e / (e.sum(-1, keepdim=True) + 1e-30); " + RET),
 ("softmax_queries", "wrong", "dim=-1) * some", "dim=-2).nan_to_num(0) * some"),
 ("softmax_heads", "wrong", "torch.softmax(scores, dim=-1)", "torch.softmax(scores, dim=1).nan_to_num(0)"),
 ("masked_after", "wrong", ALL, "weights = torch.softmax(scores, dim=-1) * see; " + RET),
 ("scores_times_mask", "wrong", FILL, "scores = scores * see"),
 ("filled_0", "wrong", '~see & some, float("-inf")', "~see, 0"),
 ("filled_-100", "wrong", '~see & some, float("-inf")', "~see, -100"),
 ("filled_1e-9", "wrong", '~see & some, float("-inf")', "~see, 1e-9"),
 ("softmax_one", "wrong", "torch.softmax(scores, dim=-1)", "torch.softmax(torch.cat([scores, 0 * scores[..., :1]], -1), dim=-1)[..., :-1]"),
 ("eps_1e-3", "wrong", SOFT, "e = (scores - scores.amax(-1, keepdim=True)).exp(); weights = e / (e.sum(-1, keepdim=True) + 1e-3) * some"),
 ("one_per_mille", "wrong", RET, RET + " * 1.001"),
 ("mean", "wrong", "torch.softmax(scores, dim=-1)", "(see / see.sum(-1, keepdim=True).clamp(min=1)).to(q.dtype).expand(B, H, T, S)"),
 ("hard_max", "wrong", "torch.softmax(scores, dim=-1)", "F.one_hot(scores.argmax(-1), S).to(q.dtype)"),
 ("unnormalised", "wrong", "torch.softmax(scores, dim=-1)", "scores.nan_to_num(neginf=0)"),
 ("cosine", "wrong", KEYS, "q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1); " + KEYS),
 ("swapped_kv", "wrong", KEYS, "k, v = v, k; " + KEYS),
 ("own_dtype_fp32", "wrong", RET, RET + ".float()"),
 ("fp32_inside", "wrong", KEYS, "dtype = q.dtype; q, k, v = q.float(), k.float(), v.float(); " + KEYS, RET, RET + ".to(dtype)"),
 ("fp64_out", "wrong", RET, RET + ".double()"),
 ("bf16_scores", "wrong", SC, SC + "; scores = scores.bfloat16().to(q.dtype)"),
 ("bf16_weights", "wrong", SOFT, SOFT + "; weights = weights.bfloat16().to(q.dtype)"),
 ("half_qk", "wrong", '"bthd,bshd->bhts", q, keys)', '"bthd,bshd->bhts", q.half().to(q.dtype), keys.half().to(q.dtype))'),
 ("detach_weights", "wrong", SOFT, SOFT + "; weights = weights.detach()"),
 ("detach_v", "wrong", VALS, "values = v.detach().repeat_interleave(H // KV, dim=2)"),
 ("detach_k", "wrong", KEYS, "keys = k.detach().repeat_interleave(H // KV, dim=2)"),
 ("detach_q", "wrong", '->bhts", q,', '->bhts", q.detach(),'),
 ("no_grad", "wrong", "def ", "@torch.no_grad()\ndef "),
 ("detach_denominator", "wrong", ALL, "e = (" + NINF + " - scores.amax(-1, keepdim=True).detach()).exp(); weights = e / (e.sum(-1, keepdim=True).detach() + ~some); " + RET),
 ("q_scaled_in_place", "wrong", SC, 'q.data.div_(math.sqrt(D)); scores = torch.einsum("bthd,bshd->bhts", q, keys)'),
 ("mask_in_place", "wrong", SOME, SOME + "; mask = mask.logical_or_(~some[:, 0]) if mask.stride(0) else mask"),
 ("values_zeroed_in_place", "wrong", RET, "out = " + RET[7:] + "; v.data[~mask.any(1)] = 0; return out"),
 ("mask_cached_T", "wrong", "def ", "C = {}\ndef ", CAUS, CAUS[:7] + "C.setdefault(T, " + CAUS[7:] + ")[:1, :, :S].expand(B, T, -1)"),
 ("mask_cached_first", "wrong", "def ", "C = {}\ndef ", "see = mask[:, None]", "mask = C.setdefault((B, T, S), mask); see = mask[:, None]"),
 ("out_cached", "wrong", "def ", "C = {}\ndef ", RET, "return C.setdefault((q.shape, k.shape), " + RET[7:] + ")"),
 ("first_batch", "wrong", KEYS, "k, v = k[:1].expand_as(k), v[:1].expand_as(v); " + KEYS),
 ("first_batch_values", "wrong", VALS, "values = v[:1].expand_as(v).repeat_interleave(H // KV, dim=2)"),
 ("last_query_only", "wrong", RET, RET + "[:, -1:]"),
 ("heads_joined", "wrong", RET, RET + ".flatten(2)"),
 ("not_transposed", "wrong", RET, 'return torch.einsum("bhts,bshd->bhtd", weights, values)'),
 ("reshaped", "wrong", RET, 'return torch.einsum("bhts,bshd->bhtd", weights, values).reshape(B, T, H, D)'),
 ("reads_as_B_H_T_D", "wrong", SC, 'scores = (q.reshape(B, H, T, D) @ keys.reshape(B, H, S, D).mT) / math.sqrt(D)'),
 ("tuple", "wrong", RET, RET + ", weights"),
 ("squeezed", "wrong", RET, RET + ".squeeze(0)"),
 ("dropout", "wrong", SOFT, SOFT + "; weights = F.dropout(weights, 0.1)"),
 ("alibi", "wrong", FILL, "scores = scores - 0.01 * (torch.arange(T)[:, None] + S - T - torch.arange(S)).abs(); " + FILL),
 ("residual", "wrong", RET, RET + " + q"),
 ("transposed_scores", "wrong", SC, SC + "; scores = scores.mT if T == S else scores"),
])
add("2.1", "loops", "right", '''
import torch
def attention(q, k, v, *, mask=None):
    B, T, H, D = q.shape
    S, group = k.shape[1], H // k.shape[2]
    rows = []
    for b in range(B):
        for t in range(T):
            for h in range(H):
                ids = torch.arange(S - T + t + 1) if mask is None else mask[b, t].nonzero()[:, 0]
                if len(ids) == 0:
                    rows.append(0 * q[b, t, h])
                    continue
                w = torch.softmax(k[b, ids, h // group] @ q[b, t, h] * D ** -0.5, 0)
                rows.append(w @ v[b, ids, h // group])
    return torch.stack(rows).view(B, T, H, D)
''')
SDPA = '''
import torch
import torch.nn.functional as F
def attention(q, k, v, *, mask=None):
    T, S, g = q.shape[1], k.shape[1], q.shape[2] // k.shape[2]
    if mask is None:
        mask = (torch.arange(S) <= torch.arange(S - T, S)[:, None])[None]
    some = mask.any(-1)[:, :, None, None]
    q, k, v = q.transpose(1, 2), k.repeat_interleave(g, 2).transpose(1, 2), v.repeat_interleave(g, 2).transpose(1, 2)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=(mask | ~mask.any(-1, keepdim=True))[:, None])
    return out.transpose(1, 2) * some
'''
SDC = "(mask | ~mask.any(-1, keepdim=True))[:, None]"
fam("2.1", SDPA, [
 ("sdpa", "right", " * some", ".masked_fill(~some, 0)"),
 ("sdpa_gqa", "right", "k.repeat_interleave(g, 2)", "k", "v.repeat_interleave(g, 2)", "v", "[:, None])\n", "[:, None], enable_gqa=True)\n"),
 ("sdpa_math_where", "right", " * some", ".where(some, 0)"),
 ("sdpa_is_causal", "wrong", "    if mask is None:", "    if mask is None:\n        return F.scaled_dot_product_attention(q.transpose(1, 2), k.repeat_interleave(g, 2).transpose(1, 2), v.repeat_interleave(g, 2).transpose(1, 2), is_causal=True).transpose(1, 2)"),
 ("sdpa_no_empty", "wrong", " * some", ""),
 ("sdpa_float_mask", "wrong", SDC, "mask[:, None].to(q.dtype)"),
 ("sdpa_inverted", "wrong", SDC, "(~mask | mask.all(-1, keepdim=True))[:, None]"),
 ("sdpa_tiled", "wrong", "k.repeat_interleave(g, 2)", "k.repeat(1, 1, g, 1)", "v.repeat_interleave(g, 2)", "v.repeat(1, 1, g, 1)"),
 ("sdpa_not_transposed", "wrong", "q.transpose(1, 2), k.", "q, k.", "(g, 2).transpose(1, 2)", "(g, 2)", "v.repeat_interleave(g, 2).transpose(1, 2)", "v.repeat_interleave(g, 2)", "[:, None])\n", ".any(1)[:, None, None])\n", "out.transpose(1, 2)", "out"),
 ("sdpa_scale_twice", "wrong", "q, k, v = q.transpose(1, 2)", "q, k, v = q.transpose(1, 2) / q.shape[-1] ** 0.5"),
] )
add("2.1", "grouped_matmul", "right", '''
import torch
def attention(q, k, v, *, mask=None):
    B, T, H, D = q.shape
    _, S, KV, _ = k.shape
    q = q.view(B, T, KV, H // KV, D).permute(0, 2, 3, 1, 4) if q.is_contiguous() else q.reshape(B, T, KV, H // KV, D).permute(0, 2, 3, 1, 4)
    s = (q @ k.permute(0, 2, 3, 1)[:, :, None]) * D ** -0.5
    if mask is None:
        hide = torch.triu(torch.ones(T, S, dtype=torch.bool), diagonal=S - T + 1)[None, None, None]
    else:
        hide = mask.logical_not()[:, None, None]
    w = torch.where(hide, 0.0, s.masked_fill(hide, -1e30).softmax(-1))
    o = w @ v.transpose(1, 2)[:, :, None]
    return o.permute(0, 3, 1, 2, 4).flatten(2, 3)
''')
add("2.1", "online_softmax", "right", '''
import torch
def attention(q, k, v, *, mask=None):
    B, T, H, D = q.shape
    S, g = k.shape[1], H // k.shape[2]
    top = q.new_full((B, T, H, 1), -1e30)
    total, out = torch.zeros_like(top), torch.zeros_like(q)
    for j in range(S):
        see = (torch.arange(T) + S - T >= j).expand(B, T) if mask is None else mask[:, :, j]
        see = see[:, :, None, None]
        kj, vj = k[:, j].repeat_interleave(g, 1)[:, None], v[:, j].repeat_interleave(g, 1)[:, None]
        s = (q * kj).sum(-1, keepdim=True) / D ** 0.5
        new = torch.where(see, torch.maximum(top, s), top).detach()
        old, e = (top - new).exp(), torch.where(see, s - new, -1e30).exp()
        top, total, out = new, total * old + e, out * old + e * vj
    return out / torch.where(total > 0, total, 1)
''')
add("2.1", "halves_of_keys", "right", '''
import torch
def part(q, k, v, see):
    if k.shape[1] == 1:
        s = (q * k).sum(-1) / q.shape[-1] ** 0.5
        return torch.where(see[:, :, :1], s, -1e30), v * see[:, :, :1, None]
    n = k.shape[1] // 2
    a, x = part(q, k[:, :n], v[:, :n], see[:, :, :n])
    b, y = part(q, k[:, n:], v[:, n:], see[:, :, n:])
    lse = torch.logaddexp(a, b)
    return lse, (a - lse).exp()[..., None] * x + (b - lse).exp()[..., None] * y
def attention(q, k, v, *, mask=None):
    B, T, H, D = q.shape
    S, KV = k.shape[1:3]
    if mask is None:
        mask = torch.ones(B, T, S, dtype=torch.bool).tril(S - T)
    dtype, q, k, v = q.dtype, q.double(), k.double(), v.double()
    heads = [part(q[:, :, h:h + 1], k[:, :, h * KV // H][:, :, None], v[:, :, h * KV // H][:, :, None], mask)[1] for h in range(H)]
    return torch.cat(heads, 2).to(dtype)
''')
add("2.1", "by_query_cut_keys", "right", '''
import torch
def attention(q, k, v, *, mask=None):
    B, T, H, D = q.shape
    S, KV = k.shape[1], k.shape[2]
    out = []
    for t in range(T):
        n = S - T + t + 1 if mask is None else S
        s = torch.einsum("bkgd,bskd->bkgs", q[:, t].unflatten(1, (KV, H // KV)), k[:, :n]) / D ** 0.5
        if mask is not None:
            m = mask[:, t, None, None]
            s = torch.where(m, s, -torch.inf)
            s = torch.where(m.any(-1, keepdim=True), s, 0)
            w = s.softmax(-1) * m
        else:
            w = s.softmax(-1)
        out.append(torch.einsum("bkgs,bskd->bkgd", w, v[:, :n]).flatten(1, 2))
    return torch.stack(out, 1)
''')

# ------------------------------------------------------------ 2.2
ROPE = '''
import math
import torch
def rope(x, positions, *, rotary_dim, theta):
    B, T, H, D = x.shape
    r = rotary_dim
    if r == 0:
        return x
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    i = torch.arange(r // 2, dtype=dtype, device=x.device)
    freq = theta ** (-2 * i / r)
    angle = positions.to(dtype)[:, :, None, None] * freq
    cos, sin = angle.cos(), angle.sin()
    y = x.to(dtype)
    a, b = y[..., :r // 2], y[..., r // 2:r]
    rest = x[..., r:]
    return torch.cat([(a * cos - b * sin).to(x.dtype), (a * sin + b * cos).to(x.dtype), rest], dim=-1)
'''
DT = "dtype = torch.float64 if x.dtype == torch.float64 else torch.float32"
AR = "i = torch.arange(r // 2, dtype=dtype, device=x.device)"
FR = "freq = theta ** (-2 * i / r)"
AN = "angle = positions.to(dtype)[:, :, None, None] * freq"
CS = "cos, sin = angle.cos(), angle.sin()"
AB = "a, b = y[..., :r // 2], y[..., r // 2:r]"
RO = "return torch.cat([(a * cos - b * sin).to(x.dtype), (a * sin + b * cos).to(x.dtype), rest], dim=-1)"
fam("2.2", ROPE, [
 ("base", "right"),
 ("r0_not_special", "right", "    if r == 0:\n        return x\n", ""),
 ("fp64_inside", "right", DT, "dtype = torch.float64"),
 ("exp_log", "right", FR, "freq = torch.exp(-math.log(theta) * 2 * i / r)"),
 ("one_over", "right", AR, "i = torch.arange(0, r, 2, dtype=dtype)", FR, "freq = 1 / theta ** (i / r)"),
 ("polar", "right", RO, "z = torch.complex(a, b) * torch.polar(torch.ones_like(angle), angle); return torch.cat([z.real.to(x.dtype), z.imag.to(x.dtype), rest], -1)"),
 ("complex_exp", "right", RO, "z = (a + 1j * b) * (1j * angle).exp(); return torch.cat([z.real, z.imag, rest.to(dtype)], -1).to(x.dtype)"),
 ("rotate_half", "right", RO, "y = y[..., :r]; c, s = torch.cat([cos, cos], -1), torch.cat([sin, sin], -1)\n    return torch.cat([(y * c + torch.cat([-b, a], -1) * s).to(x.dtype), rest], -1)"),
 ("rolled", "right", RO, "y = y[..., :r]; sign = torch.cat([-torch.ones_like(i), torch.ones_like(i)]); return torch.cat([(y * cos.repeat(1, 1, 1, 2) + y.roll(r // 2, -1) * sign * sin.tile(2)).to(x.dtype), rest], -1)"),
 ("cloned_slices", "right", RO, "out = x.clone(); out[..., :r // 2] = (a * cos - b * sin).to(x.dtype); out[..., r // 2:r] = (a * sin + b * cos).to(x.dtype); return out"),
 ("unfolded_einsum", "right", RO, "m = torch.stack([torch.stack([cos, -sin]), torch.stack([sin, cos])]).squeeze(4); y = y[..., :r].unflatten(-1, (2, r // 2))\n    return torch.cat([torch.einsum('xybti,bthyi->bthxi', m, y).flatten(-2).to(x.dtype), rest], -1)"),
 ("products_in_own_dtype", "right", CS, CS + "; cos, sin = cos.to(x.dtype), sin.to(x.dtype)", "y = x.to(dtype)", "y = x"),
 ("interleaved", "wrong", AB, "a, b = y[..., 0:r:2], y[..., 1:r:2]", RO, "o = torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2); return torch.cat([o.to(x.dtype), rest], -1)"),
 ("interleaved_in", "wrong", AB, "a, b = y[..., 0:r:2], y[..., 1:r:2]"),
 ("interleaved_out", "wrong", RO, "o = torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2); return torch.cat([o.to(x.dtype), rest], -1)"),
 ("interleaved_freq", "wrong", RO, "y = y[..., :r]; c, s = cos.repeat_interleave(2, -1), sin.repeat_interleave(2, -1)\n    return torch.cat([(y * c + torch.cat([-b, a], -1) * s).to(x.dtype), rest], -1)"),
 ("other_way", "wrong", CS, "cos, sin = angle.cos(), -angle.sin()"),
 ("reflected", "wrong", "a * sin + b * cos", "a * sin - b * cos"),
 ("plus_plus", "wrong", "a * cos - b * sin", "a * cos + b * sin"),
 ("swapped_cos_sin", "wrong", CS, "sin, cos = angle.cos(), angle.sin()"),
 ("swapped_halves", "wrong", AB, "b, a = y[..., :r // 2], y[..., r // 2:r]"),
 ("swapped_output", "wrong", RO, "return torch.cat([(a * sin + b * cos).to(x.dtype), (a * cos - b * sin).to(x.dtype), rest], dim=-1)"),
 ("used_new_a", "wrong", RO, "a = a * cos - b * sin; b = a * sin + b * cos; return torch.cat([a.to(x.dtype), b.to(x.dtype), rest], -1)"),
 ("pairs_of_D", "wrong", AB, "a, b = y[..., :r // 2], y[..., D // 2:D // 2 + r // 2]"),
 ("neighbours_from_end", "wrong", AB, "a, b = y[..., :r // 2], y[..., r // 2:r].flip(-1)"),
 ("exponent_i", "wrong", "-2 * i / r", "-i / r"),
 ("exponent_D", "wrong", "-2 * i / r", "-2 * i / D"),
 ("exponent_4", "wrong", "-2 * i / r", "-4 * i / r"),
 ("exponent_positive", "wrong", "-2 * i / r", "2 * i / r"),
 ("exponent_integer", "wrong", "-2 * i / r", "-(2 * i // r)"),
 ("from_one", "wrong", "-2 * i / r", "-2 * (i + 1) / r"),
 ("half_step", "wrong", "-2 * i / r", "-(2 * i + 1) / r"),
 ("linspace", "wrong", AR, "i = torch.linspace(0, r / 2, r // 2, dtype=dtype)"),
 ("frequencies_reversed", "wrong", FR, FR + ".flip(-1)"),
 ("one_frequency", "wrong", FR, "freq = theta ** (-0 * i)"),
 ("theta_10000", "wrong", FR, "freq = 10000 ** (-2 * i / r)"),
 ("theta_10m", "wrong", FR, "freq = 1e7 ** (-2 * i / r)"),
 ("two_pi", "wrong", AN, AN + " * 2 * math.pi"),
 ("divided_by_frequency", "wrong", "None] * freq", "None] / freq"),
 ("arange_positions", "wrong", AN, "angle = torch.arange(T, dtype=dtype)[None, :, None, None] * freq"),
 ("first_row_positions", "wrong", "positions.to(dtype)", "positions[:1].to(dtype)"),
 ("last_row_positions", "wrong", "positions.to(dtype)", "positions[-1:].to(dtype)"),
 ("from_first_position", "wrong", "positions.to(dtype)", "(positions[:, :1] + torch.arange(T)).to(dtype)"),
 ("minus_first", "wrong", "positions.to(dtype)", "(positions - positions[:, :1]).to(dtype)"),
 ("minus_min", "wrong", "positions.to(dtype)", "(positions - positions.min()).to(dtype)"),
 ("plus_one", "wrong", "positions.to(dtype)", "(positions + 1).to(dtype)"),
 ("sorted", "wrong", "positions.to(dtype)", "positions.sort(-1).values.to(dtype)"),
 ("ranks", "wrong", "positions.to(dtype)", "positions.argsort(-1).argsort(-1).to(dtype)"),
 ("transposed_positions", "wrong", "positions.to(dtype)", "positions.t().reshape(B, T).to(dtype)"),
 ("mod_1024", "wrong", "positions.to(dtype)", "(positions % 1024).to(dtype)"),
 ("max_2047", "wrong", "positions.to(dtype)", "positions.clamp(max=2047).to(dtype)"),
 ("table_512", "wrong", AN, "angle = (torch.arange(512, dtype=dtype)[:, None] * freq)[positions][:, :, None]"),
 ("table_of_T", "wrong", AN, "angle = (torch.arange(T, dtype=dtype)[:, None] * freq)[positions.clamp(max=T - 1)][:, :, None]"),
 ("int8_positions", "wrong", "positions.to(dtype)", "positions.to(torch.int8).to(dtype)"),
 ("table_fixed_once", "wrong", "def ", "C = {}\ndef ", AN, "n = int(positions.max()) + 1; table = C.setdefault('t', torch.arange(n, dtype=dtype)[:, None] * freq); angle = table[positions][:, :, None]"),
 ("head_by_head", "wrong", AN, AN + " * torch.arange(1, H + 1)[:, None]"),
 ("angle_by_head", "wrong", AN, "angle = positions.to(dtype)[:, None, :, None] * freq"),
 ("first_head", "wrong", RO, "out = " + RO[7:] + "; return torch.cat([out[:, :, :1], x[:, :, 1:]], 2)"),
 ("heads_reversed", "wrong", "y = x.to(dtype)", "y = x.flip(2).to(dtype)"),
 ("rest_dropped", "wrong", ", rest], dim", "], dim"),
 ("rest_zero", "wrong", "rest = x[..., r:]", "rest = torch.zeros_like(x[..., r:])"),
 ("rest_first", "wrong", "return torch.cat([", "return torch.cat([rest, ", ", rest], dim", "], dim"),
 ("last_r", "wrong", AB, "y = y[..., D - r:]; " + AB, "rest = x[..., r:]", "rest = x[..., :D - r]", "return torch.cat([", "return torch.cat([rest, ", ", rest], dim", "], dim"),
 ("turns_all", "wrong", "r = rotary_dim", "r = D if rotary_dim and D % 2 == 0 else rotary_dim"),
 ("turns_half", "wrong", "r = rotary_dim", "r = min(rotary_dim, D // 2 // 2 * 2)"),
 ("r_D_from_end", "wrong", "rest = x[..., r:]", "rest = x[..., -(D - r):]"),
 ("r0_divides", "wrong", "    if r == 0:\n        return x\n", "", FR, "freq = theta ** (-2 * i * (1 / r))"),
 ("r0_none", "wrong", "        return x\n", "        return None\n"),
 ("r0_zeros", "wrong", "        return x\n", "        return torch.zeros_like(x)\n"),
 ("r0_turns_all", "wrong", "    if r == 0:\n        return x\n", "    r = r or D // 2 * 2\n"),
 ("own_dtype_angles", "wrong", DT, "dtype = x.dtype"),
 ("bf16_positions", "wrong", "positions.to(dtype)", "positions.to(x.dtype).to(dtype)"),
 ("bf16_frequencies", "wrong", FR, FR + ".to(x.dtype).to(dtype)"),
 ("bf16_angle", "wrong", CS, "angle = angle.to(x.dtype).to(dtype); " + CS),
 ("always_fp32", "wrong", DT, "dtype = torch.float32"),
 ("fp32_frequencies", "wrong", AR, "i = torch.arange(r // 2, dtype=torch.float32)"),
 ("fp32_angle", "wrong", AN, AN + ".float()"),
 ("half_frequencies", "wrong", FR, FR + ".half().to(dtype)"),
 ("half_cos", "wrong", CS, CS + "; cos, sin = cos.half().to(dtype), sin.half().to(dtype)"),
 ("bf16_cos", "wrong", CS, CS + "; cos, sin = cos.bfloat16().to(dtype), sin.bfloat16().to(dtype)"),
 ("returns_fp32", "wrong", RO, RO.replace(".to(x.dtype)", "").replace("rest]", "rest.to(dtype)]")),
 ("returns_float", "wrong", RO, RO + ".float()"),
 ("in_place", "wrong", RO, "out = (" + RO[7:] + ").detach(); x.data.copy_(out); return x"),
 ("in_place_rest", "wrong", RO, "out = " + RO[7:] + "; x.data[..., r:] = 0; return out"),
 ("positions_in_place", "wrong", RO, "positions.add_(1); " + RO),
 ("detached", "wrong", "y = x.to(dtype)", "y = x.detach().to(dtype)"),
 ("rest_detached", "wrong", "rest = x[..., r:]", "rest = x[..., r:].detach()"),
 ("no_grad", "wrong", "def ", "@torch.no_grad()\ndef "),
 ("sin_detached", "wrong", "a, b = y[..., :r // 2], y[..., r // 2:r]", AB + "; c = b.detach()", "a * cos - b * sin", "a * cos - c * sin"),
 ("angles_cached", "wrong", "def ", "C = {}\ndef ", CS, "angle = C.setdefault((B, T, r, theta, dtype), angle); " + CS),
 ("frequencies_cached", "wrong", "def ", "C = {}\ndef ", FR, "freq = C.setdefault((r, dtype), theta ** (-2 * i / r))"),
 ("cached_by_theta", "wrong", "def ", "C = {}\ndef ", FR, "freq = C.setdefault((theta, dtype), theta ** (-2 * i / r))"),
 ("scaled", "wrong", "a * cos - b * sin", "(a * cos - b * sin) * 1.001"),
 ("position_0_skipped", "wrong", RO, "out = " + RO[7:] + "; return torch.cat([x[:, :1], out[:, 1:]], 1)"),
 ("normalised", "wrong", "y = x.to(dtype)", "y = torch.nn.functional.normalize(x.to(dtype), dim=-1)"),
 ("r_64", "wrong", FR, "freq = theta ** (-2 * i / 64)"),
 ("r_4", "wrong", FR, "freq = theta ** (-2 * i / 4)"),
 ("small_angle", "wrong", CS, "cos, sin = 1 - angle ** 2 / 2, angle"),
 ("cos_only", "wrong", RO, "return torch.cat([(a * cos).to(x.dtype), (b * cos).to(x.dtype), rest], -1)"),
])
add("2.2", "pair_by_pair", "right", '''
import torch
def rope(x, positions, *, rotary_dim, theta):
    up = torch.float64 if x.dtype == torch.float64 else torch.float32
    columns = list(x.unbind(-1))
    for i in range(rotary_dim // 2):
        j = i + rotary_dim // 2
        phi = positions.to(up).unsqueeze(-1) * float(theta) ** (-2 * i / rotary_dim)
        a, b = x[..., i].to(up), x[..., j].to(up)
        columns[i] = (torch.cos(phi) * a - torch.sin(phi) * b).to(x.dtype)
        columns[j] = (torch.sin(phi) * a + torch.cos(phi) * b).to(x.dtype)
    return torch.stack(columns, -1)
''')
add("2.2", "matrix_per_token", "right", '''
import torch
def rope(x, positions, *, rotary_dim, theta):
    B, T, H, D = x.shape
    up = torch.promote_types(x.dtype, torch.float32)
    n = rotary_dim // 2
    phi = positions[..., None] * torch.tensor([theta ** (-i / n) for i in range(n)], dtype=up)
    m = torch.eye(D, dtype=up).repeat(B, T, 1, 1)
    i = torch.arange(n)
    m[:, :, i, i] = phi.cos()
    m[:, :, i + n, i + n] = phi.cos()
    m[:, :, i, i + n] = -phi.sin()
    m[:, :, i + n, i] = phi.sin()
    return (x.to(up) @ m.mT).to(x.dtype)
''')
add("2.2", "token_loop_table", "right", '''
import torch
def rope(x, positions, *, rotary_dim, theta):
    half = rotary_dim // 2
    dtype = torch.float64 if x.dtype is torch.float64 else torch.float32
    inv = torch.pow(torch.tensor(theta, dtype=dtype), -torch.arange(half, dtype=dtype) * 2 / max(rotary_dim, 1))
    out = torch.empty_like(x)
    out[..., rotary_dim:] = x[..., rotary_dim:]
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            angle = int(positions[b, t]) * inv
            left, right = x[b, t, :, :rotary_dim].to(dtype).split(half, -1) if half else (x[b, t, :, :0], x[b, t, :, :0])
            out[b, t, :, :half] = (left * angle.cos() - right * angle.sin()).to(x.dtype)
            out[b, t, :, half:rotary_dim] = (right * angle.cos() + left * angle.sin()).to(x.dtype)
    return out
''')

# ------------------------------------------------------------ 2.3
CACHE = '''
import math
import torch
import torch.nn.functional as F
def attention(q, k, v, *, mask=None):
    B, T, H, D = q.shape
    S, KV = k.shape[1], k.shape[2]
    scores = torch.einsum("bthd,bshd->bhts", q, k.repeat_interleave(H // KV, 2)) / math.sqrt(D)
    if mask is None:
        mask = torch.ones(T, S, dtype=torch.bool).tril(S - T).expand(B, T, S)
    see = mask[:, None]
    weights = torch.softmax(scores.masked_fill(~see, -1e30), -1) * see
    return torch.einsum("bhts,bshd->bthd", weights, v.repeat_interleave(H // KV, 2))
def cache_step(q, k, v, keys, values):
    keys = torch.cat([keys, k], dim=1)
    values = torch.cat([values, v], dim=1)
    out = attention(q, keys, values)
    return out, keys, values
'''
CK = "keys = torch.cat([keys, k], dim=1)"
CV = "values = torch.cat([values, v], dim=1)"
CO = "out = attention(q, keys, values)"
CR = "return out, keys, values"
CALL = "\n    ".join([CK, CV, CO, CR])
fam("2.3", CACHE, [
 ("base", "right"),
 ("mask_all_true", "right", CO, "out = attention(q, keys, values, mask=torch.ones(q.shape[0], 1, keys.shape[1], dtype=torch.bool))"),
 ("one_by_one", "right", CALL, "keys, values = torch.cat((keys, k), 1), torch.cat((values, v), 1)\n    return attention(q, keys, values), keys, values"),
 ("new_empty", "right", CK, "S = keys.shape[1]; a = k.new_empty(k.shape[0], S + 1, *k.shape[2:]); a[:, :S] = keys; a[:, S:] = k", CV, "b = torch.zeros_like(a); b[:, :-1], b[:, -1:] = values, v", CO, "keys, values = a, b; " + CO),
 ("padded", "right", CK, "keys = F.pad(keys, (0, 0, 0, 0, 0, 1)); keys[:, -1] += k[:, 0]", CV, "values = F.pad(values, (0, 0, 0, 0, 0, 1)) + F.pad(v, (0, 0, 0, 0, values.shape[1], 0))"),
 ("stacked", "right", CK, "keys = torch.stack([*keys.unbind(1), k[:, 0]], 1)", CV, "values = torch.stack([*values.unbind(1), v.squeeze(1)], dim=1)"),
 ("einsum_own", "right", CO, "KV = k.shape[2]; w = torch.einsum('bkgd,bskd->bkgs', q[:, 0].unflatten(1, (KV, -1)), keys).div(q.shape[-1] ** 0.5).softmax(-1); out = torch.einsum('bkgs,bskd->bkgd', w, values).flatten(1, 2)[:, None]"),
 ("sdpa", "right", CO, "g = q.shape[2] // k.shape[2]; out = F.scaled_dot_product_attention(q.transpose(1, 2), keys.repeat_interleave(g, 2).transpose(1, 2), values.repeat_interleave(g, 2).transpose(1, 2)).transpose(1, 2)"),
 ("head_loop", "right", CO, "g = q.shape[2] // k.shape[2]; out = torch.cat([attention(q[:, :, h:h + 1], keys[:, :, h // g][:, :, None], values[:, :, h // g][:, :, None]) for h in range(q.shape[2])], 2)"),
 ("merged_by_sums", "right", CO, "g = q.shape[2] // k.shape[2]; s = torch.stack([(q[:, 0] * keys[:, j].repeat_interleave(g, 1)).sum(-1) for j in range(keys.shape[1])], -1) / q.shape[-1] ** 0.5; s = s - s.detach().amax(-1, keepdim=True); e = (s - s.logsumexp(-1, keepdim=True)).exp(); out = sum(e[:, :, j, None] * values[:, j].repeat_interleave(g, 1) for j in range(keys.shape[1]))[:, None]"),
 ("views", "right", CALL, "both = torch.stack([torch.cat([keys, k], 1), torch.cat([values, v], 1)]); return attention(q, *both), both[0], both[1]"),
 ("new_first", "wrong", CK, "keys = torch.cat([k, keys], dim=1)", CV, "values = torch.cat([v, values], dim=1)"),
 ("new_key_first", "wrong", CK, "keys = torch.cat([k, keys], dim=1)"),
 ("new_value_first", "wrong", CV, "values = torch.cat([v, values], dim=1)"),
 ("returned_new_first", "wrong", CR, "return out, keys.roll(1, 1), values.roll(1, 1)"),
 ("without_itself", "wrong", CALL, "out = attention(q, keys, values); return out, torch.cat([keys, k], 1), torch.cat([values, v], 1)"),
 ("without_itself_by_mask", "wrong", CO, "out = attention(q, keys, values, mask=(torch.arange(keys.shape[1]) < keys.shape[1] - 1).expand(len(q), 1, -1))"),
 ("without_first", "wrong", CO, "out = attention(q, keys, values, mask=(torch.arange(keys.shape[1]) > 0).expand(len(q), 1, -1))"),
 ("itself_only", "wrong", CO, "out = attention(q, k, v)"),
 ("causal_from_zero", "wrong", CO, "out = attention(q, keys, values, mask=(torch.arange(keys.shape[1]) == 0).expand(len(q), 1, -1))"),
 ("mask_ones_old", "wrong", CO, "out = attention(q, keys[:, :-1], values[:, :-1], mask=torch.ones(len(q), 1, keys.shape[1] - 1, dtype=torch.bool))"),
 ("returns_old", "wrong", CALL, "out = attention(q, torch.cat([keys, k], 1), torch.cat([values, v], 1)); return out, keys, values"),
 ("returns_new_alone", "wrong", CR, "return out, k, v"),
 ("returns_out", "wrong", CR, "return out"),
 ("returns_out_and_pair", "wrong", CR, "return out, (keys, values)"),
 ("order_out_last", "wrong", CR, "return keys, values, out"),
 ("order_values_first", "wrong", CR, "return out, values, keys"),
 ("swapped_in_attention", "wrong", CO, "out = attention(q, values, keys)"),
 ("key_as_value", "wrong", CV, "values = torch.cat([values, k], dim=1)"),
 ("value_as_key", "wrong", CK, "keys = torch.cat([keys, v], dim=1)"),
 ("keys_in_values", "wrong", CV, "values = torch.cat([keys[:, :-1], v], dim=1)"),
 ("twice", "wrong", "[keys, k]", "[keys, k, k]", "[values, v]", "[values, v, v]"),
 ("oldest_dropped", "wrong", CR, "return out, keys[:, 1:] if keys.shape[1] > 1 else keys, values[:, 1:] if keys.shape[1] > 1 else values"),
 ("last_overwritten", "wrong", CK, "keys = torch.cat([keys[:, :-1], k], 1)", CV, "values = torch.cat([values[:, :-1], v], 1)"),
 ("last_16", "wrong", CK, "keys = torch.cat([keys, k], dim=1)[:, -16:]", CV, "values = torch.cat([values, v], dim=1)[:, -16:]"),
 ("reads_last_8", "wrong", CO, "out = attention(q, keys[:, -8:], values[:, -8:])"),
 ("cat_heads", "wrong", CK, "keys = torch.cat([keys, k.expand_as(keys)], dim=2)", CV, "values = torch.cat([values, v.expand_as(values)], dim=2)"),
 ("cat_batch", "wrong", "dim=1", "dim=0", "[values, v], dim=1", "[values, v], dim=0"),
 ("added", "wrong", CK, "keys = keys + k", CV, "values = values + v"),
 ("query_cached", "wrong", CK, "keys = torch.cat([keys, q[:, :, ::q.shape[2] // k.shape[2]]], dim=1)"),
 ("keys_data_replaced", "wrong", CALL, "keys.data = torch.cat([keys, k], 1).detach(); values.data = torch.cat([values, v], 1).detach(); return attention(q, keys, values), keys, values"),
 ("last_written_in_place", "wrong", CR, "if keys.shape[1] > 1: OLD[0].data[:, -1:] = k.detach()\n    " + CR, CK, "OLD = [keys]; " + CK),
 ("old_scaled_in_place", "wrong", CK, "keys.data.mul_(1.01); " + CK),
 ("old_zeroed", "wrong", CR, "o[0].data.zero_(); o[1].data.zero_(); " + CR, CK, "o = keys, values; " + CK),
 ("query_scaled_in_place", "wrong", CR, "q.data.div_(2); " + CR),
 ("one_buffer", "wrong", "def cache", "C = {}\ndef cache", CR, "S = keys.shape[1]; C.setdefault(k.dtype, torch.zeros(2, 64, 256, 16, 64, dtype=k.dtype)); a, b = C[k.dtype][:, :len(k), :S, :k.shape[2], :k.shape[3]]; a.copy_(keys.detach()); b.copy_(values.detach()); return out, a, b"),
 ("own_memory", "wrong", "def cache", "C = {}\ndef cache", CK, "keys = torch.cat([C.get((k.shape, keys.shape[1]), keys).to(k.dtype), k], 1); C[k.shape, keys.shape[1]] = keys.detach()"),
 ("cached_out", "wrong", "def cache", "C = {}\ndef cache", CR, "return C.setdefault((q.shape, keys.shape), (out, keys, values))"),
 ("detached_past", "wrong", "[keys, k]", "[keys.detach(), k]", "[values, v]", "[values.detach(), v]"),
 ("detached_past_keys", "wrong", "[keys, k]", "[keys.detach(), k]"),
 ("detached_new", "wrong", "[keys, k]", "[keys, k.detach()]", "[values, v]", "[values, v.detach()]"),
 ("returned_detached", "wrong", CR, "return out, keys.detach(), values.detach()"),
 ("out_detached", "wrong", CO, "out = attention(q, keys, values).detach()"),
 ("no_grad", "wrong", "def cache", "@torch.no_grad()\ndef cache"),
 ("query_detached", "wrong", CO, "out = attention(q.detach(), keys, values)"),
 ("empty_returns_v", "wrong", CALL, "if keys.shape[1] == 0: return v, k, v\n    " + CALL),
 ("empty_returns_q", "wrong", CO, "out = attention(q, keys, values) if keys.shape[1] > 1 else q"),
 ("empty_returns_zero", "wrong", CO, "out = attention(q, keys, values) if keys.shape[1] > 1 else torch.zeros_like(q)"),
 ("empty_tiled_heads", "wrong", CO, "out = attention(q, keys, values) if keys.shape[1] > 1 else v.repeat(1, 1, q.shape[2] // v.shape[2], 1)"),
 ("empty_not_stored", "wrong", CR, "return (out, keys, values) if keys.shape[1] > 1 else (out, keys[:, :0], values[:, :0])"),
 ("heads_repeated_in_cache", "wrong", CR, "g = q.shape[2] // k.shape[2]; return out, keys.repeat_interleave(g, 2), values.repeat_interleave(g, 2)"),
 ("tiled_heads", "wrong", CO, "g = q.shape[2] // k.shape[2]; out = attention(q, keys.repeat(1, 1, g, 1), values.repeat(1, 1, g, 1))"),
 ("first_head", "wrong", CO, "out = attention(q, keys[:, :, :1], values[:, :, :1])"),
 ("first_batch", "wrong", CO, "out = attention(q, keys[:1].expand_as(keys), values[:1].expand_as(values))"),
 ("first_batch_new", "wrong", "[keys, k]", "[keys, k[:1].expand_as(k)]"),
 ("scaled_again", "wrong", CO, "out = attention(q / math.sqrt(q.shape[-1]), keys, values)"),
 ("fp32", "wrong", CR, "return out.float(), keys.float(), values.float()"),
 ("fp32_inside", "wrong", CO, "out = attention(q.float(), keys.float(), values.float()).to(q.dtype)"),
 ("bf16_cache", "wrong", CR, "return out, keys.bfloat16(), values.bfloat16()"),
 ("bf16_rounded_cache", "wrong", CK, "keys = torch.cat([keys, k], dim=1).bfloat16().to(k.dtype)"),
 ("half_rounded_new", "wrong", "[values, v]", "[values, v.half().to(v.dtype)]"),
 ("squeezed_out", "wrong", CR, "return out[:, 0], keys, values"),
 ("heads_joined", "wrong", CR, "return out.flatten(2), keys, values"),
 ("one_per_mille", "wrong", CO, CO + " * 1.001"),
 ("out_of_all_queries", "wrong", CO, "out = attention(q.expand(-1, keys.shape[1], -1, -1), keys, values)"),
 ("turned_again", "wrong", CK, "n = keys.shape[1]; h = k.shape[-1] // 2; a, b = k[..., :h], k[..., h:2 * h]; c, s = math.cos(n), math.sin(n); keys = torch.cat([keys, torch.cat([a * c - b * s, a * s + b * c, k[..., 2 * h:]], -1)], 1)"),
])

# ------------------------------------------------------------ 2.4
BPT = '''
import math
import torch
def bytes_per_token(attn_type_list, num_key_value_heads, head_dim, bytes_per_number):
    layers = sum(attn_type_list)
    return 2 * layers * num_key_value_heads * head_dim * bytes_per_number
'''
BL = "layers = sum(attn_type_list)"
BR = "return 2 * layers * num_key_value_heads * head_dim * bytes_per_number"
fam("2.4", BPT, [
 ("base", "right"),
 ("count", "right", BL, "layers = attn_type_list.count(1)"),
 ("generator", "right", BL, "layers = sum(1 for kind in attn_type_list if kind == 1)"),
 ("filtered", "right", BL, "layers = len([*filter(None, attn_type_list)])"),
 ("loop", "right", BL + "\n    " + BR, "total = 0\n    for kind in attn_type_list:\n        if kind == 1:\n            for _ in ('key', 'value'):\n                total += num_key_value_heads * head_dim * bytes_per_number\n    return total"),
 ("recursion", "right", BL + "\n    " + BR, "if len(attn_type_list) == 0: return 0\n    own = attn_type_list[0] * 2 * num_key_value_heads * head_dim * bytes_per_number\n    return own + bytes_per_token(attn_type_list[1:], num_key_value_heads, head_dim, bytes_per_number)"),
 ("tensor_item", "right", BL, "layers = int(torch.tensor(attn_type_list).sum().item())"),
 ("prod", "right", BR, "return math.prod((2, layers, num_key_value_heads, head_dim, bytes_per_number))"),
 ("len_minus_zeros", "right", BL, "layers = len(attn_type_list) - list(attn_type_list).count(0)"),
 ("sum_twice", "right", BR, "one = num_key_value_heads * head_dim * bytes_per_number; return layers * one + layers * one"),
 ("keys_only", "wrong", "return 2 * ", "return "),
 ("times_4", "wrong", "return 2 * ", "return 4 * "),
 ("times_3", "wrong", "return 2 * ", "return 3 * "),
 ("all_layers", "wrong", BL, "layers = len(attn_type_list)"),
 ("lightning_layers", "wrong", BL, "layers = attn_type_list.count(0)"),
 ("len_minus_ones", "wrong", BL, "layers = len(attn_type_list) - sum(attn_type_list)"),
 ("one_layer", "wrong", BL, "layers = max(attn_type_list)"),
 ("any", "wrong", BL, "layers = int(any(attn_type_list))"),
 ("distinct", "wrong", BL, "layers = len(set(attn_type_list)) - 1"),
 ("every_eighth", "wrong", BL, "layers = len(attn_type_list) // 8"),
 ("every_eighth_slice", "wrong", BL, "layers = len(attn_type_list[7::8])"),
 ("ten_of_80", "wrong", BL, "layers = 10"),
 ("last_left_out", "wrong", BL, "layers = sum(attn_type_list[:-1])"),
 ("first_left_out", "wrong", BL, "layers = sum(attn_type_list[1:])"),
 ("indices", "wrong", BL, "layers = sum(i for i, kind in enumerate(attn_type_list) if kind)"),
 ("until_first_zero", "wrong", BL, "layers = 0\n    for kind in attn_type_list:\n        if not kind: break\n        layers += 1"),
 ("runs", "wrong", BL, "layers = sum(1 for a, b in zip((0, *attn_type_list), attn_type_list) if b and not a)"),
 ("no_heads", "wrong", " * num_key_value_heads", ""),
 ("no_head_dim", "wrong", " * head_dim", ""),
 ("no_bytes", "wrong", " * bytes_per_number", ""),
 ("two_bytes", "wrong", "* bytes_per_number", "* 2"),
 ("four_bytes", "wrong", "* bytes_per_number", "* 4"),
 ("head_dim_128", "wrong", "* head_dim", "* 128"),
 ("eight_heads", "wrong", "* num_key_value_heads", "* 8"),
 ("bits", "wrong", "* bytes_per_number", "* bytes_per_number * 8"),
 ("squared_dim", "wrong", "* head_dim", "* head_dim ** 2"),
 ("with_states", "wrong", BR, BR + " + (len(attn_type_list) - layers) * num_key_value_heads * head_dim * head_dim * bytes_per_number"),
 ("lightning_one_number", "wrong", BR, BR + " + (len(attn_type_list) - layers) * num_key_value_heads * head_dim * bytes_per_number"),
 ("with_query", "wrong", "return 2 * layers *", "return 2 * layers * head_dim * bytes_per_number + 2 * layers *"),
 ("sum_of_sizes", "wrong", "num_key_value_heads * head_dim", "(num_key_value_heads + head_dim)"),
 ("mean_per_layer", "wrong", BR, BR + " // max(len(attn_type_list), 1)"),
 ("per_softmax_layer", "wrong", "2 * layers * ", "2 * "),
 ("kilobytes", "wrong", BR, BR + " // 1024"),
 ("kilobytes_float", "wrong", BR, BR + " / 1024"),
 ("float", "wrong", BR, "return float(" + BR[7:] + ")"),
 ("division_float", "wrong", BR, BR + " / 1"),
 ("tensor", "wrong", BR, "return torch.tensor(" + BR[7:] + ")"),
 ("string", "wrong", BR, "return f'{" + BR[7:] + "} bytes'"),
 ("printed", "wrong", BR, "print(" + BR[7:] + ")"),
 ("list_per_layer", "wrong", BR, "return [2 * kind * num_key_value_heads * head_dim * bytes_per_number for kind in attn_type_list]"),
 ("two_results", "wrong", BR, "half = " + BR[7:].replace("2 * ", "") + "; return half, half"),
 ("returns_early", "wrong", BL + "\n    " + BR, "total = 0\n    for kind in attn_type_list:\n        total += 2 * kind * num_key_value_heads * head_dim * bytes_per_number\n        return total"),
 ("assigned_not_added", "wrong", BL + "\n    " + BR, "total = 0\n    for kind in attn_type_list:\n        total = 2 * kind * num_key_value_heads * head_dim * bytes_per_number\n    return total"),
 ("list_emptied", "wrong", BL, "layers = 0\n    if isinstance(attn_type_list, list):\n        while attn_type_list: layers += attn_type_list.pop()\n    else: layers = sum(attn_type_list)"),
 ("list_sorted", "wrong", BL, "layers = sum(attn_type_list)\n    if isinstance(attn_type_list, list): attn_type_list.sort()"),
 ("only_lists", "wrong", BL, "layers = len(attn_type_list.copy()) - attn_type_list.count(0)"),
 ("list_plus", "wrong", BL, "layers = sum([0] + attn_type_list)"),
 ("at_least_one", "wrong", BL, "layers = max(sum(attn_type_list), 1)"),
 ("running_total", "wrong", "def ", "C = {}\ndef ", BR, "C['n'] = C.get('n', 0) + " + BR[7:] + "; return C['n']"),
 ("remembered", "wrong", "def ", "C = {}\ndef ", BR, "return C.setdefault(len(attn_type_list), " + BR[7:] + ")"),
 ("off_by_one", "wrong", BL, BL + " + 1"),
 ("product_of_list", "wrong", BL, "layers = math.prod(attn_type_list)"),
])
