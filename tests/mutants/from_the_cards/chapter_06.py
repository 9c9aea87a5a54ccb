"""Chapter 06."""

from tests.mutants.from_the_cards import Cards

MUTANTS = Cards()
add, fam = MUTANTS.add, MUTANTS.family

# ------------------------------------------------------------ 6.1
A = '''
import torch
import torch.nn.functional as F
def gated_output(x, out, norm_weight, gate_weight, out_weight, eps=1e-6):
    B, T, H, D = out.shape
    o = out.reshape(B, T, H * D)
    o = o * torch.rsqrt(o.pow(2).mean(-1, keepdim=True) + eps) * norm_weight
    gate = torch.sigmoid(x @ gate_weight.T)
    return (gate * o) @ out_weight.T
'''
D1 = "def gated_output"
J = "o = out.reshape(B, T, H * D)"
NO = "o = o * torch.rsqrt(o.pow(2).mean(-1, keepdim=True) + eps) * norm_weight"
GA = "gate = torch.sigmoid(x @ gate_weight.T)"
R = "return (gate * o) @ out_weight.T"
RES = R[7:]
fam("6.1", A, [
    ("base", "right"),
    ("functional", "right", NO, "o = F.rms_norm(o, (H * D,), norm_weight, eps)", GA, "gate = F.linear(x, gate_weight).sigmoid()", R, "return F.linear(gate * o, out_weight)"),
    ("flatten_mean_both_axes", "right", J, "o = out", NO, "o = (o / (o.square().mean((-2, -1), keepdim=True) + eps).sqrt()).flatten(2) * norm_weight"),
    ("fp64_inside", "right", J, "dtype = x.dtype; x, out, norm_weight, gate_weight, out_weight = [t.double() for t in (x, out, norm_weight, gate_weight, out_weight)]\n    " + J, R, "return (" + RES + ").to(dtype)"),
    ("vector_norm", "right", NO, "n = H * D; o = o / (torch.linalg.vector_norm(o, dim=-1, keepdim=True) ** 2 / n + eps).sqrt() * norm_weight"),
    ("log_sigmoid", "right", GA, "gate = F.logsigmoid(torch.einsum('btc,nc->btn', x, gate_weight)).exp()", R, "return torch.einsum('btn,cn->btc', gate * o, out_weight)"),
    ("weight_folded_in", "right", NO, NO.replace(" * norm_weight", ""), R, "return (gate * o) @ (out_weight * norm_weight).T"),
    ("norm_each_head", "wrong", NO, "o = (out * torch.rsqrt(out.pow(2).mean(-1, keepdim=True) + eps)).reshape(B, T, H * D) * norm_weight"),
    ("norm_over_heads_axis", "wrong", NO, "o = (out * torch.rsqrt(out.pow(2).mean(2, keepdim=True) + eps)).reshape(B, T, H * D) * norm_weight"),
    ("norm_over_time", "wrong", "mean(-1, keepdim", "mean(1, keepdim"),
    ("norm_over_time_and_all", "wrong", "mean(-1, keepdim", "mean((1, 2), keepdim"),
    ("norm_over_batch_too", "wrong", "mean(-1, keepdim=True)", "mean()"),
    ("sum_not_mean", "wrong", ".mean(-1, keep", ".sum(-1, keep"),
    ("divided_by_head_size", "wrong", "o.pow(2).mean(-1, keepdim=True)", "o.pow(2).sum(-1, keepdim=True) / D"),
    ("divided_by_heads", "wrong", "o.pow(2).mean(-1, keepdim=True)", "o.pow(2).sum(-1, keepdim=True) / H"),
    ("divided_by_width", "wrong", "o.pow(2).mean(-1, keepdim=True)", "o.pow(2).sum(-1, keepdim=True) / x.shape[-1]"),
    ("divided_by_n_minus_1", "wrong", "o.pow(2).mean(-1, keepdim=True)", "o.pow(2).sum(-1, keepdim=True) / (H * D - 1)"),
    ("layer_norm", "wrong", NO, "o = F.layer_norm(o, (H * D,), norm_weight, None, eps)"),
    ("variance", "wrong", "o.pow(2).mean(-1, keepdim=True)", "o.var(-1, keepdim=True, unbiased=False)"),
    ("mean_of_abs", "wrong", "torch.rsqrt(o.pow(2).mean(-1, keepdim=True) + eps)", "1 / (o.abs().mean(-1, keepdim=True) + eps)"),
    ("root_missing", "wrong", "torch.rsqrt(o.pow(2).mean(-1, keepdim=True) + eps)", "1 / (o.pow(2).mean(-1, keepdim=True) + eps)"),
    ("eps_outside_root", "wrong", "torch.rsqrt(o.pow(2).mean(-1, keepdim=True) + eps)", "1 / (o.pow(2).mean(-1, keepdim=True).sqrt() + eps)"),
    ("eps_missing", "wrong", " + eps)", ")"),
    ("eps_missing_nan_to_num", "wrong", " + eps)", ").nan_to_num(0, 0, 0)"),
    ("eps_ignored_1e-6", "wrong", " + eps)", " + 1e-6)"),
    ("eps_1e-5", "wrong", "eps=1e-6", "eps=1e-5"),
    ("eps_clamp", "wrong", "(o.pow(2).mean(-1, keepdim=True) + eps)", "(o.pow(2).mean(-1, keepdim=True).clamp(min=eps))"),
    ("eps_squared", "wrong", " + eps)", " + eps ** 2)"),
    ("eps_before_mean", "wrong", "o.pow(2).mean(-1, keepdim=True) + eps)", "(o + eps).pow(2).mean(-1, keepdim=True))"),
    ("eps_added_to_sum", "wrong", "(o.pow(2).mean(-1, keepdim=True) + eps)", "((o.pow(2).sum(-1, keepdim=True) + eps) / (H * D))"),
    ("eps_twice", "wrong", " + eps)", " + 2 * eps)"),
    ("normalize_function", "wrong", NO, "o = F.normalize(o, dim=-1) * norm_weight"),
    ("normalize_times_root", "wrong", NO, "o = F.normalize(o, dim=-1) * (H * D) ** 0.5 * norm_weight"),
    ("weight_missing", "wrong", " * norm_weight", ""),
    ("weight_plus_one", "wrong", " * norm_weight", " * (1 + norm_weight)"),
    ("weight_first_head", "wrong", " * norm_weight", " * norm_weight[:D].repeat(H)"),
    ("weight_before_norm", "wrong", NO, "o = o * norm_weight; " + NO.replace(" * norm_weight", "")),
    ("weight_flipped", "wrong", " * norm_weight", " * norm_weight.flip(0)"),
    ("weight_interleaved", "wrong", " * norm_weight", " * norm_weight.view(D, H).T.reshape(-1)"),
    ("weight_divides", "wrong", " * norm_weight", " / norm_weight"),
    ("norm_missing", "wrong", NO, "o = o * norm_weight"),
    ("norm_of_the_rms_detached", "wrong", "o.pow(2)", "o.detach().pow(2)"),
    ("norm_twice", "wrong", NO, NO + "\n    " + NO.replace(" * norm_weight", "")),
    ("heads_interleaved", "wrong", J, "o = out.transpose(2, 3).reshape(B, T, H * D)"),
    ("heads_reversed", "wrong", J, "o = out.flip(2).reshape(B, T, H * D)"),
    ("heads_before_time", "wrong", J, "o = out.transpose(1, 2).reshape(B, T, H * D)"),
    ("gate_missing", "wrong", R, "return o @ out_weight.T"),
    ("gate_before_norm", "wrong", J, GA + "\n    o = gate * out.reshape(B, T, H * D)", R, "return o @ out_weight.T"),
    ("gate_after_projection", "wrong", R, "return torch.sigmoid(x) * (o @ out_weight.T)"),
    ("gate_silu", "wrong", GA, "gate = F.silu(x @ gate_weight.T)"),
    ("gate_tanh", "wrong", GA, "gate = torch.tanh(x @ gate_weight.T)"),
    ("gate_linear", "wrong", GA, "gate = x @ gate_weight.T"),
    ("gate_softmax", "wrong", GA, "gate = torch.softmax(x @ gate_weight.T, -1)"),
    ("gate_hard", "wrong", GA, "gate = F.hardsigmoid(x @ gate_weight.T)"),
    ("gate_swish_gelu", "wrong", GA, "gate = torch.sigmoid(1.702 * (x @ gate_weight.T))"),
    ("gate_negated", "wrong", GA, "gate = torch.sigmoid(-(x @ gate_weight.T))"),
    ("gate_one_plus", "wrong", "(gate * o)", "(o + gate * o)"),
    ("gate_twice", "wrong", "(gate * o)", "(2 * gate * o)"),
    ("gate_added", "wrong", "(gate * o)", "(gate + o)"),
    ("gate_of_projected_o", "wrong", GA, "gate = torch.sigmoid(o)"),
    ("gate_of_normed_x", "wrong", "x @ gate", "F.rms_norm(x, (x.shape[-1],), None, eps) @ gate"),
    ("gate_mean_of_head", "wrong", GA, "gate = torch.sigmoid((x @ gate_weight.T).view(B, T, H, D).mean(-1, keepdim=True)).expand(B, T, H, D).reshape(B, T, H * D)"),
    ("gate_one_per_head", "wrong", GA, "gate = torch.sigmoid(x @ gate_weight[:H].T).repeat_interleave(D, -1)"),
    ("gate_last_token", "wrong", "x @ gate", "x[:, -1:] @ gate"),
    ("gate_previous_token", "wrong", "x @ gate", "x.roll(1, 1) @ gate"),
    ("gate_mean_token", "wrong", "x @ gate", "x.mean(1, keepdim=True) @ gate"),
    ("gate_batch_0", "wrong", "x @ gate", "x[:1] @ gate"),
    ("gate_scaled", "wrong", "x @ gate_weight.T", "x @ gate_weight.T / x.shape[-1] ** 0.5"),
    ("gate_clamped", "wrong", "x @ gate_weight.T", "(x @ gate_weight.T).clamp(-3, 3)"),
    ("gate_transposed_reshape", "wrong", "gate_weight.T", "gate_weight.reshape(x.shape[-1], -1)"),
    ("projection_transposed_reshape", "wrong", "out_weight.T", "out_weight.reshape(-1, x.shape[-1])"),
    ("gate_not_transposed", "wrong", "gate_weight.T", "gate_weight"),
    ("projection_not_transposed", "wrong", "out_weight.T", "out_weight"),
    ("projection_missing", "wrong", R, "return gate * o"),
    ("projection_by_gate_weight", "wrong", "out_weight.T", "gate_weight"),
    ("residual_added", "wrong", R, R + " + x"),
    ("norm_at_the_end", "wrong", NO, "", R, "y = " + RES + "; return y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + eps)"),
    ("norm_after_gate", "wrong", NO, "", R, "o = gate * o; " + NO + "; return o @ out_weight.T"),
    ("half_inside", "wrong", R, "return ((gate * o).half() @ out_weight.half().T).to(x.dtype)"),
    ("bf16_inside", "wrong", R, "return ((gate * o).bfloat16() @ out_weight.bfloat16().T).to(x.dtype)"),
    ("gate_in_half", "wrong", GA, "gate = torch.sigmoid(x @ gate_weight.T).half().to(x.dtype)"),
    ("norm_in_bf16", "wrong", NO, "dtype = o.dtype; o = o.bfloat16(); o = (o * torch.rsqrt(o.pow(2).mean(-1, keepdim=True) + eps)).to(dtype) * norm_weight"),
    ("mean_square_in_half", "wrong", "o.pow(2).mean(-1, keepdim=True)", "o.pow(2).mean(-1, keepdim=True).half().to(o.dtype)"),
    ("fp32_returned", "wrong", R, "return (" + RES + ").float()"),
    ("fp64_returned", "wrong", R, "return (" + RES + ").double()"),
    ("one_per_mille", "wrong", R, R + " * 1.001"),
    ("no_grad", "wrong", D1, "@torch.no_grad()\n" + D1),
    ("gate_detached", "wrong", "(gate * o)", "(gate.detach() * o)"),
    ("o_detached", "wrong", J, "o = out.detach().reshape(B, T, H * D)"),
    ("weights_as_data", "wrong", "out_weight.T", "out_weight.data.T"),
    ("norm_weight_as_data", "wrong", "* norm_weight", "* norm_weight.data"),
    ("in_place_out", "wrong", NO, "o *= torch.rsqrt(o.detach().pow(2).mean(-1, keepdim=True) + eps); o = o * norm_weight"),
    ("in_place_out_data", "wrong", NO, "r = " + NO[4:] + "; out.data.copy_(r.data.view_as(out)); o = r"),
    ("in_place_norm_weight", "wrong", D1, "@torch.no_grad()\n" + D1, R, "norm_weight.add_(eps); " + R),
    ("in_place_gate_weight", "wrong", GA, GA + "\n    gate_weight.data.neg_()"),
    ("in_place_x", "wrong", R, "y = " + RES + "; x.data.zero_(); return y"),
    ("first_batch_row", "wrong", R, R + "[:1].expand(B, -1, -1)"),
    ("batch_0_out", "wrong", J, "o = out[:1].expand_as(out).reshape(B, T, H * D)"),
    ("last_token_zero", "wrong", R, "y = (" + RES + ").clone(); y[:, -1] = 0; return y"),
    ("squeezed", "wrong", R, "return (" + RES + ").squeeze(0)"),
    ("flat_tokens", "wrong", R, "return (" + RES + ").flatten(0, 1)"),
    ("with_gate", "wrong", R, R + ", gate"),
    ("hard_coded_heads_2", "wrong", J, J + "\n    H = 2; D = o.shape[-1] // 2; o = o.view(B, T, -1)", NO, "n = H * D; o = o[..., :n]; o = o * torch.rsqrt(o.view(B, T, 2, D).pow(2).sum((-2, -1)).unsqueeze(-1) / 64 + eps) * norm_weight"),
    ("padding_skipped_by_x", "wrong", R, R + " * (x != 0).any(-1, keepdim=True)"),
    ("small_tokens_dropped", "wrong", R, R + " * (out.abs().amax((-2, -1))[..., None] > 1e-3)"),
    ("rms_at_least_1", "wrong", "o.pow(2).mean(-1, keepdim=True)", "o.pow(2).mean(-1, keepdim=True).clamp(min=1)"),
    ("rms_at_most_100", "wrong", "o.pow(2).mean(-1, keepdim=True)", "o.pow(2).mean(-1, keepdim=True).clamp(max=1e4)"),
    ("cached_gate", "wrong", D1, "GATE = {}\n" + D1, GA, "gate = GATE.setdefault(x.shape, torch.sigmoid(x @ gate_weight.T).detach())"),
    ("cached_weights", "wrong", D1, "W = []\n" + D1, R, "W.append(out_weight); return (gate * o) @ W[0].T if W[0].shape == out_weight.shape else (gate * o) @ out_weight.T"),
])
add("6.1", "loop_over_tokens", "right", '''
import torch
def gated_output(x, out, norm_weight, gate_weight, out_weight, eps=1e-6):
    rows = []
    for b in range(x.shape[0]):
        row = []
        for t in range(x.shape[1]):
            o = torch.cat([out[b, t, h] for h in range(out.shape[2])])
            rms = (torch.dot(o, o) / len(o) + eps) ** 0.5
            row.append(out_weight @ (torch.sigmoid(gate_weight @ x[b, t]) * (o / rms * norm_weight)))
        rows.append(torch.stack(row))
    return torch.stack(rows)
''')
add("6.1", "head_by_head", "right", '''
import torch
def gated_output(x, out, norm_weight, gate_weight, out_weight, eps=1e-6):
    H, D = out.shape[2:]
    square = sum((out[:, :, h] ** 2).sum(-1, keepdim=True) for h in range(H))
    scale = 1 / torch.sqrt(square / (H * D) + eps)
    y = 0
    for h in reversed(range(H)):
        part = slice(h * D, h * D + D)
        gate = (x @ gate_weight[part].mT).sigmoid()
        y = y + (gate * out[:, :, h] * scale * norm_weight[part]) @ out_weight[:, part].mT
    return y
''')
add("6.1", "einsum_four_axes", "right", '''
import torch
def gated_output(x, out, norm_weight, gate_weight, out_weight, eps=1e-6):
    B, T, H, D = out.shape
    gate = torch.einsum("btc,hdc->bthd", x, gate_weight.view(H, D, -1)).sigmoid()
    mean_square = torch.einsum("bthd,bthd->bt", out, out) / (H * D)
    normed = out / (mean_square + eps).sqrt()[:, :, None, None] * norm_weight.view(H, D)
    return torch.einsum("bthd,chd->btc", gate * normed, out_weight.view(-1, H, D))
''')
add("6.1", "modules", "right", '''
import torch
from torch import nn
def gated_output(x, out, norm_weight, gate_weight, out_weight, eps=1e-6):
    n, c = gate_weight.shape
    gate = nn.Linear(c, n, bias=False, device="meta")
    back = nn.Linear(n, c, bias=False, device="meta")
    norm = nn.RMSNorm(n, eps=eps, device="meta")
    call = torch.func.functional_call
    g = call(gate, {"weight": gate_weight}, (x,)).sigmoid()
    o = call(norm, {"weight": norm_weight}, (out.flatten(-2),))
    return call(back, {"weight": out_weight}, (g * o,))
''')
add("6.1", "flat_rows", "right", '''
import torch
def gated_output(x, out, norm_weight, gate_weight, out_weight, eps=1e-6):
    rows = x.reshape(-1, x.shape[-1])
    o = out.reshape(len(rows), -1)
    power = torch.full((o.shape[1], 1), 1 / o.shape[1], dtype=o.dtype, device=o.device)
    o = o.mul((o * o @ power).add(eps).pow(-0.5)).mul(norm_weight)
    return torch.mm(torch.mm(rows, gate_weight.t()).sigmoid().mul(o), out_weight.t()).reshape(x.shape)
''')

# ------------------------------------------------------------ 6.2
B = '''
import torch
def residual(h, norm, sublayer, alpha, beta, postnorm=True):
    y = norm(h)
    f = sublayer(y)
    r = y if postnorm else h
    return alpha * r + beta * f
'''
D2 = "def residual"
Y, FY, RR, RET = "y = norm(h)", "f = sublayer(y)", "r = y if postnorm else h", "return alpha * r + beta * f"
fam("6.2", B, [
    ("base", "right"),
    ("if_else", "right", RET, "if postnorm:\n        return beta * f + alpha * y\n    else:\n        return beta * f + alpha * h"),
    ("torch_add", "right", RET, "return torch.add(r * alpha, f, alpha=beta)"),
    ("stack_and_sum", "right", RET, "return torch.stack([alpha * r, beta * f]).sum(0)"),
    ("where", "right", RR, "r = torch.where(torch.tensor(bool(postnorm)), y, h)"),
    ("einsum_weights", "right", RET, "return torch.einsum('nbtc,n->btc', torch.stack([r, f]), torch.tensor([alpha, beta], dtype=h.dtype))"),
    ("tuple_index", "right", RR, "r = (h, y)[bool(postnorm)]"),
    ("scaled_input_first", "right", FY, "scaled = alpha * (y if postnorm else h)\n    f = sublayer(y)", RET, "return scaled.add(f.mul(beta))"),
    ("clone_in_place", "right", RET, "out = r.clone()\n    out *= alpha\n    out += beta * f\n    return out"),
    ("fp64_inside", "right", RET, "return (alpha * r.double() + beta * f.double()).to(h.dtype)"),
    ("postnorm_ignored", "wrong", RR, "r = y"),
    ("prenorm_always", "wrong", RR, "r = h"),
    ("postnorm_inverted", "wrong", RR, "r = h if postnorm else y"),
    ("postnorm_default_false", "wrong", "postnorm=True", "postnorm=False"),
    ("sublayer_of_h", "wrong", FY, "f = sublayer(h)"),
    ("sublayer_of_h_without_postnorm", "wrong", FY, "f = sublayer(y if postnorm else h)"),
    ("sublayer_of_h_with_postnorm", "wrong", FY, "f = sublayer(h if postnorm else y)"),
    ("sublayer_of_scaled", "wrong", FY, "f = sublayer(alpha * y)"),
    ("sublayer_of_beta_y", "wrong", RET, "return alpha * r + f", FY, "f = sublayer(beta * y)"),
    ("sublayer_of_double_norm", "wrong", FY, "f = sublayer(norm(y))"),
    ("norm_twice", "wrong", FY, "f = sublayer(norm(h))"),
    ("norm_twice_for_the_residual", "wrong", RR, "r = norm(h) if postnorm else h"),
    ("sublayer_twice", "wrong", RET, "return alpha * r + beta * sublayer(y)"),
    ("sublayer_twice_without_postnorm", "wrong", RET, "if not postnorm: f = sublayer(y)\n    " + RET),
    ("sublayer_not_called_beta_0", "wrong", FY, "f = sublayer(y) if beta else torch.zeros_like(h)"),
    ("norm_per_batch_row", "wrong", Y, "y = torch.cat([norm(row[None]) for row in h])"),
    ("sublayer_per_token", "wrong", FY, "f = torch.cat([sublayer(y[:, t:t + 1]) for t in range(h.shape[1])], 1)"),
    ("sublayer_per_batch_row", "wrong", FY, "f = torch.cat([sublayer(row[None]) for row in y])"),
    ("alpha_beta_swapped", "wrong", RET, "return beta * r + alpha * f"),
    ("alpha_missing", "wrong", RET, "return r + beta * f"),
    ("beta_missing", "wrong", RET, "return alpha * r + f"),
    ("alpha_for_both", "wrong", RET, "return alpha * (r + f)"),
    ("beta_for_both", "wrong", RET, "return beta * (r + f)"),
    ("alpha_only_with_postnorm", "wrong", RET, "return (alpha if postnorm else 1) * r + beta * f"),
    ("both_only_with_postnorm", "wrong", RET, "return alpha * r + beta * f if postnorm else r + f"),
    ("beta_only_with_postnorm", "wrong", RET, "return alpha * r + (beta if postnorm else 1) * f"),
    ("alpha_squared", "wrong", RET, "return alpha * alpha * r + beta * f"),
    ("normalised_weights", "wrong", RET, "return (alpha * r + beta * f) / (alpha + beta)"),
    ("alpha_beta_product", "wrong", RET, "return alpha * (r + beta * f)"),
    ("whole_numbers", "wrong", RET, "return int(alpha) * r + int(beta) * f"),
    ("rounded_scales", "wrong", RET, "return round(alpha, 2) * r + round(beta, 2) * f"),
    ("minus", "wrong", RET, "return alpha * r - beta * f"),
    ("residual_missing", "wrong", RET, "return beta * f"),
    ("branch_missing", "wrong", RET, "return alpha * r"),
    ("product", "wrong", RET, "return alpha * r * beta * f"),
    ("lerp", "wrong", RET, "return torch.lerp(f, r, alpha)"),
    ("h_and_y", "wrong", RET, "return alpha * (h + y) / (1 + (not postnorm)) + beta * f"),
    ("norm_after_the_sum", "wrong", Y, "y = h", RET, "return norm(alpha * h + beta * f)"),
    ("norm_of_the_branch", "wrong", Y, "y = h", RET, "return alpha * h + beta * norm(f)"),
    ("own_rms_norm", "wrong", Y, "y = h / (h.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()"),
    ("norm_not_called_without_postnorm", "wrong", Y, "y = norm(h) if postnorm else h"),
    ("in_place_y", "wrong", RET, "with torch.no_grad():\n        r.mul_(alpha).add_(beta * f)\n    return r"),
    ("in_place_y_times_alpha", "wrong", RET, "if postnorm:\n        y *= alpha\n        return y + beta * f\n    return alpha * h + beta * f"),
    ("in_place_f", "wrong", RET, "f *= beta\n    return alpha * r + f"),
    ("in_place_f_sum", "wrong", RET, "f.mul_(beta).add_(alpha * r)\n    return f"),
    ("in_place_h", "wrong", RET, "h.data.mul_(alpha); return (alpha * y if postnorm else h) + beta * f"),
    ("h_overwritten", "wrong", RET, "out = alpha * r + beta * f; h.data.copy_(out.data); return out"),
    ("h_overwritten_without_postnorm", "wrong", RET, "out = alpha * r + beta * f\n    if not postnorm: h.data.copy_(out.data)\n    return out"),
    ("y_scaled_before_the_sublayer", "wrong", FY, "r = alpha * y; f = sublayer(r)", RR, "r = r if postnorm else alpha * h", RET, "return r + beta * f"),
    ("residual_detached", "wrong", RET, "return alpha * r.detach() + beta * f"),
    ("branch_detached", "wrong", RET, "return alpha * r + beta * f.detach()"),
    ("norm_detached", "wrong", FY, "f = sublayer(y.detach())"),
    ("no_grad", "wrong", D2, "@torch.no_grad()\n" + D2),
    ("half", "wrong", RET, "return (alpha * r.half() + beta * f.half()).to(h.dtype)"),
    ("bf16_branch", "wrong", RET, "return alpha * r + (beta * f.bfloat16()).to(h.dtype)"),
    ("one_per_mille", "wrong", RET, "return (alpha * r + beta * f) * 1.001"),
    ("tuple_returned", "wrong", RET, "return alpha * r + beta * f, y"),
    ("squeezed", "wrong", RET, "return (alpha * r + beta * f).squeeze(0)"),
    ("last_token_only", "wrong", RET, "return (alpha * r + beta * f)[:, -1:]"),
    ("first_batch_row", "wrong", RET, "return (alpha * r[:1] + beta * f).expand_as(h)"),
    ("branch_of_batch_0", "wrong", RET, "return alpha * r + beta * f[:1]"),
    ("shifted_branch", "wrong", RET, "return alpha * r + beta * f.roll(1, 1)"),
    ("branch_mean_over_time", "wrong", RET, "return alpha * r + beta * f.mean(1, keepdim=True)"),
    ("scales_kept", "wrong", D2, "SCALES = []\n" + D2, RET, "SCALES.append((alpha, beta)); alpha, beta = SCALES[0]; " + RET),
    ("norm_kept", "wrong", D2, "NORMS = []\n" + D2, Y, "NORMS.append(norm); y = NORMS[0](h)"),
    ("m1_scales", "wrong", RET, "alpha = 3.5565588200778455; beta = 1; " + RET),
    ("alpha_1_if_falsy", "wrong", RET, "return (alpha or 1) * r + (beta or 1) * f"),
])
add("6.2", "one_line", "right", '''
def residual(h, norm, sublayer, alpha, beta, postnorm=True):
    return alpha * ((y := norm(h)) if postnorm else [h, y := norm(h)][0]) + beta * sublayer(y)
''')
add("6.2", "lists_of_terms", "right", '''
def residual(h, norm, sublayer, alpha, beta, postnorm=True):
    normed = norm(h)
    terms = [(beta, sublayer(normed)), (alpha, {True: normed, False: h}[bool(postnorm)])]
    total = 0
    for scale, term in terms:
        total = total + scale * term
    return total
''')

# ------------------------------------------------------------ 6.3
P = '''
def layer_pattern(num_layers, every=8):
    return [1 if (i + 1) % every == 0 else 0 for i in range(num_layers)]
'''
DEF3 = "def layer_pattern(num_layers, every=8):"
EX = "[1 if (i + 1) % every == 0 else 0 for i in range(num_layers)]"
CO = "(i + 1) % every == 0"
fam("6.3", P, [
    ("base", "right"),
    ("repeat_and_cut", "right", EX, "(([0] * (every - 1) + [1]) * (num_layers // every + 1))[:num_layers]"),
    ("whole_and_rest", "right", EX, "([0] * (every - 1) + [1]) * (num_layers // every) + [0] * (num_layers % every)"),
    ("int_of_bool", "right", EX, "[int(not i % every) for i in range(1, num_layers + 1)]"),
    ("membership", "right", EX, "[int(i in range(every - 1, num_layers, every)) for i in range(num_layers)]"),
    ("other_remainder", "right", CO, "i % every == every - 1"),
    ("difference_of_quotients", "right", EX, "[(i + 1) // every - i // every for i in range(num_layers)]"),
    ("i_multiple", "wrong", CO, "i % every == 0"),
    ("i_multiple_not_0", "wrong", CO, "i and i % every == 0"),
    ("i_minus_1", "wrong", CO, "(i - 1) % every == 0"),
    ("i_plus_2", "wrong", CO, "(i + 2) % every == 0"),
    ("from_1", "wrong", "range(num_layers)", "range(1, num_layers + 1)"),
    ("one_too_few", "wrong", "range(num_layers)", "range(num_layers - 1)"),
    ("one_too_many", "wrong", "range(num_layers)", "range(num_layers + 1)"),
    ("inverted", "wrong", "[1 if", "[0 if", "else 0", "else 1"),
    ("not_inverted_condition", "wrong", "== 0", "!= 0"),
    ("every_8_always", "wrong", "% every", "% 8"),
    ("every_default_7", "wrong", "every=8", "every=7"),
    ("eighty_always", "wrong", "range(num_layers)", "range(80)"),
    ("at_most_eighty", "wrong", "range(num_layers)", "range(min(num_layers, 80))"),
    ("period_longer", "wrong", "% every", "% (every + 1)"),
    ("period_shorter", "wrong", "% every", "% max(every - 1, 1)"),
    ("power_of_two_only", "wrong", CO, "(i + 1) & (every - 1) == 0"),
    ("last_layer_softmax", "wrong", CO, CO + " or i == num_layers - 1"),
    ("last_if_none", "wrong", CO, CO + " or (i == num_layers - 1 and num_layers < every)"),
    ("counted_from_the_end", "wrong", CO, "(num_layers - 1 - i) % every == 0"),
    ("rest_at_the_front", "wrong", CO, "(num_layers - i - 1) % every == 0 and i + 1 >= every"),
    ("rest_lost", "wrong", "range(num_layers)", "range(num_layers // every * every)"),
    ("rest_filled_up", "wrong", "range(num_layers)", "range(-(-num_layers // every) * every)"),
    ("rest_softmax", "wrong", CO, CO + " or i >= num_layers // every * every"),
    ("first_one_only", "wrong", CO, "i + 1 == every"),
    ("fraction_of_depth", "wrong", CO, "(i + 1) % max(num_layers // every, 1) == 0"),
    ("number_of_softmax", "wrong", EX, "[0] * (num_layers - num_layers // every) + [1] * (num_layers // every)"),
    ("softmax_first", "wrong", EX, "(([1] + [0] * (every - 1)) * (num_layers // every + 1))[:num_layers]"),
    ("multiples_of_every_layers", "wrong", CO, "every % (i + 1) == 0"),
    ("two_before_the_end", "wrong", EX, "(([0] * (every - 2) + [1, 0]) * (num_layers // every + 2))[:num_layers]"),
    ("at_least_two", "wrong", "% every", "% max(every, 2)"),
    ("every_1_as_none", "wrong", CO, "every > 1 and " + CO),
    ("tuple", "wrong", EX, "tuple(" + EX[1:-1] + ")"),
    ("generator", "wrong", EX, "(" + EX[1:-1] + ")"),
    ("positions", "wrong", EX, "[i for i in range(num_layers) if (i + 1) % every == 0]"),
    ("count", "wrong", EX, "sum(" + EX + ")"),
    ("names", "wrong", "[1 if", "['softmax' if", "else 0", "else 'lightning'"),
    ("text_digits", "wrong", "[1 if", "['1' if", "else 0", "else '0'"),
    ("joined_text", "wrong", EX, "''.join(map(str, " + EX + "))"),
    ("remainder_itself", "wrong", EX, "[(i + 1) % every for i in range(num_layers)]"),
    ("quotient_itself", "wrong", EX, "[(i + 1) // every for i in range(num_layers)]"),
    ("nested", "wrong", EX, "[([0] * (every - 1) + [1]) for i in range(num_layers // every)] + [[0] * (num_layers % every)]"),
    ("tensor", "wrong", "def layer", "import torch\ndef layer", EX, "torch.tensor(" + EX + ")"),
    ("zero_layers_one_entry", "wrong", EX, EX + " or [0]"),
    ("zero_layers_none", "wrong", EX, EX + " or None"),
    ("list_kept", "wrong", "every=8):", "every=8, out=[]):", "return " + EX, "out += " + EX + "\n    return out"),
    ("cached_by_depth", "wrong", "def layer", "SEEN = {}\ndef layer", EX, "SEEN.setdefault(num_layers, " + EX + ")"),
    ("same_list_shared", "wrong", "def layer", "SEEN = {}\ndef layer", EX, "SEEN.setdefault((num_layers, every), []) or SEEN[num_layers, every].extend(" + EX + ") or SEEN[num_layers, every]"),
])
add("6.3", "marks_in_a_list", "right", '''
def layer_pattern(num_layers, every=8):
    pattern = [0] * num_layers
    for i in range(every - 1, num_layers, every):
        pattern[i] = 1
    return pattern
''')
add("6.3", "slice_assignment", "right", '''
def layer_pattern(num_layers, every=8):
    pattern = [0] * num_layers
    pattern[every - 1::every] = [1] * (num_layers // every)
    return pattern
''')
add("6.3", "counter", "right", '''
def layer_pattern(num_layers, every=8):
    out, left = [], every
    while len(out) < num_layers:
        left -= 1
        out.append(0 if left else 1)
        left = left or every
    return out
''')
add("6.3", "cycle", "right", '''
from itertools import chain, cycle, islice, repeat
def layer_pattern(num_layers, every=8):
    return list(islice(cycle(chain(repeat(0, every - 1), [1])), num_layers))
''')
add("6.3", "torch_tolist", "right", '''
import torch
def layer_pattern(num_layers, every=8):
    return (torch.arange(1, num_layers + 1) % every).eq(0).long().tolist()
''')

# ------------------------------------------------------------ 6.4
K = '''
def cache_bytes(attn_type_list, length, *, num_attention_heads, num_key_value_heads, head_dim, bytes_per_number=2):
    total = 0
    for kind in attn_type_list:
        if kind == 1:
            total += 2 * length * num_key_value_heads * head_dim * bytes_per_number
        else:
            total += num_attention_heads * head_dim * head_dim * 4
    return total
'''
DEF4 = "def cache_bytes"
FO, IF = "for kind in attn_type_list:", "if kind == 1:"
SM = "total += 2 * length * num_key_value_heads * head_dim * bytes_per_number"
LI = "total += num_attention_heads * head_dim * head_dim * 4"
RE = "return total"
T0 = "total = 0\n"
fam("6.4", K, [
    ("base", "right"),
    ("truthy", "right", IF, "if kind:"),
    ("keys_then_values", "right", SM, "for part in ('keys', 'values'):\n                total += bytes_per_number * head_dim * num_key_value_heads * length"),
    ("power", "right", LI, "total += 4 * num_attention_heads * head_dim ** 2"),
    ("reversed_shift", "right", FO, "for kind in reversed(attn_type_list):", LI, "total += (num_attention_heads * head_dim * head_dim) << 2"),
    ("query_heads", "wrong", SM, SM.replace("num_key_value_heads", "num_attention_heads")),
    ("keys_only", "wrong", SM, SM.replace("2 * ", "")),
    ("keys_and_values_4", "wrong", SM, SM.replace("2 * ", "4 * ")),
    ("kv_and_query", "wrong", SM, SM + "; total += length * num_attention_heads * head_dim * bytes_per_number"),
    ("two_bytes_always", "wrong", SM, SM.replace("bytes_per_number", "2")),
    ("four_bytes_always", "wrong", SM, SM.replace("bytes_per_number", "4")),
    ("default_4", "wrong", "bytes_per_number=2", "bytes_per_number=4"),
    ("numbers_not_bytes", "wrong", SM, SM.replace(" * bytes_per_number", "")),
    ("kv_one_head", "wrong", SM, SM.replace("num_key_value_heads * ", "")),
    ("kv_group", "wrong", SM, SM.replace("num_key_value_heads", "(num_attention_heads // num_key_value_heads)")),
    ("kv_no_head_dim", "wrong", SM, SM.replace("head_dim * ", "")),
    ("kv_head_dim_per_head", "wrong", SM, SM.replace("head_dim * ", "(head_dim // num_attention_heads) * ")),
    ("kv_length_minus_1", "wrong", SM, SM.replace("length", "max(length - 1, 0)")),
    ("kv_length_plus_1", "wrong", SM, SM.replace("length", "(length + 1)")),
    ("kv_length_at_least_1", "wrong", SM, SM.replace("length", "max(length, 1)")),
    ("kv_length_squared", "wrong", SM, SM.replace("length", "length ** 2")),
    ("kv_window", "wrong", SM, SM.replace("length", "min(length, 4096)")),
    ("kv_blocks_of_16", "wrong", SM, SM.replace("length", "(-(-length // 16) * 16)")),
    ("kv_no_length", "wrong", SM, SM.replace("length * ", "")),
    ("state_of_kv_heads", "wrong", LI, LI.replace("num_attention_heads", "num_key_value_heads")),
    ("state_bytes_per_number", "wrong", LI, LI.replace(" * 4", " * bytes_per_number")),
    ("state_2_bytes", "wrong", LI, LI.replace(" * 4", " * 2")),
    ("state_8_bytes", "wrong", LI, LI.replace(" * 4", " * 8")),
    ("state_twice_the_bytes", "wrong", LI, LI.replace(" * 4", " * 2 * bytes_per_number")),
    ("state_at_least_4", "wrong", LI, LI.replace(" * 4", " * max(4, bytes_per_number)")),
    ("state_numbers", "wrong", LI, LI.replace(" * 4", "")),
    ("state_head_dim_once", "wrong", LI, LI.replace("head_dim * head_dim", "head_dim")),
    ("state_one_head", "wrong", LI, LI.replace("num_attention_heads * ", "")),
    ("state_of_joined_heads", "wrong", LI, "total += (num_attention_heads * head_dim) ** 2 * 4"),
    ("state_double", "wrong", LI, LI.replace("* 4", "* 4 * 2")),
    ("state_with_denominator", "wrong", LI, LI + "; total += num_attention_heads * head_dim * 4"),
    ("state_times_length", "wrong", LI, LI + " * length"),
    ("state_only_with_text", "wrong", LI, LI + " * min(length, 1)"),
    ("state_capped_by_length", "wrong", LI, LI.replace("head_dim * head_dim", "head_dim * min(head_dim, length)")),
    ("no_text_no_bytes", "wrong", T0, T0 + "    if length == 0: return 0\n"),
    ("no_text_crashes", "wrong", SM, SM.replace("2 * length", "2 * length * length // length")),
    ("state_forgotten", "wrong", LI, "pass"),
    ("softmax_forgotten", "wrong", SM, "pass"),
    ("lightning_keeps_kv_too", "wrong", LI, LI + "; " + SM),
    ("softmax_keeps_state_too", "wrong", SM, SM + "; " + LI),
    ("kinds_swapped", "wrong", IF, "if kind == 0:"),
    ("all_softmax", "wrong", IF, "if True:"),
    ("all_lightning", "wrong", IF, "if False:"),
    ("kind_is_text", "wrong", IF, "if kind == '1':"),
    ("every_eighth", "wrong", FO, "for i, kind in enumerate(attn_type_list):", IF, "if (i + 1) % 8 == 0:"),
    ("last_is_softmax", "wrong", FO, "for i, kind in enumerate(attn_type_list):", IF, "if i == len(attn_type_list) - 1:"),
    ("layer_number_times", "wrong", FO, "for i, kind in enumerate(attn_type_list):", SM, SM + " * i"),
    ("each_kind_once", "wrong", FO, "for kind in set(attn_type_list):"),
    ("first_layer_only", "wrong", FO, "for kind in attn_type_list[:1]:"),
    ("last_layer_only", "wrong", FO, "for kind in attn_type_list[-1:]:"),
    ("last_layer_lost", "wrong", FO, "for kind in attn_type_list[:-1]:"),
    ("first_layer_lost", "wrong", FO, "for kind in attn_type_list[1:]:"),
    ("overwritten", "wrong", "total += 2", "total = 2"),
    ("state_overwrites", "wrong", "total += num", "total = num"),
    ("returned_too_early", "wrong", "        else:\n", "            return total\n        else:\n"),
    ("largest_layer", "wrong", SM, "total = max(total, 2 * length * num_key_value_heads * head_dim * bytes_per_number)", LI, "total = max(total, num_attention_heads * head_dim * head_dim * 4)"),
    ("mean_layer", "wrong", RE, "return total // max(len(attn_type_list), 1)"),
    ("at_most_eighty", "wrong", FO, "for kind in attn_type_list[:80]:"),
    ("float_result", "wrong", RE, "return float(total)"),
    ("divided_by_one", "wrong", RE, "return total / 1"),
    ("kib", "wrong", RE, "return total // 1024"),
    ("bits", "wrong", RE, "return total * 8"),
    ("text", "wrong", RE, "return str(total)"),
    ("pair", "wrong", RE, "return total, length"),
    ("fp32_sum", "wrong", "def cache", "import torch\ndef cache", RE, "return int(torch.tensor(float(total)))"),
    ("int32_sum", "wrong", "def cache", "import torch\ndef cache", RE, "return int(torch.tensor(total).to(torch.int32))"),
    ("tensor_result", "wrong", "def cache", "import torch\ndef cache", RE, "return torch.tensor(total)"),
    ("list_popped", "wrong", FO, "while attn_type_list:", IF, "kind = attn_type_list.pop()\n        " + IF),
    ("list_sorted", "wrong", T0, T0 + "    attn_type_list.sort()\n"),
    ("list_concatenated", "wrong", FO, "for kind in attn_type_list + []:"),
    ("list_copied_by_method", "wrong", FO, "for kind in attn_type_list.copy():"),
    ("total_kept", "wrong", "def cache", "TOTAL = {}\ndef cache", T0, "total = TOTAL.get('n', 0)\n", RE, "TOTAL['n'] = total; return total"),
    ("cached_by_length", "wrong", "def cache", "SEEN = {}\ndef cache", RE, "return SEEN.setdefault((len(attn_type_list), length), total)"),
    ("head_dim_128", "wrong", LI, LI.replace("head_dim * head_dim", "128 * 128")),
    ("kv_head_dim_128", "wrong", SM, SM.replace("head_dim", "128")),
    ("heads_64", "wrong", LI, LI.replace("num_attention_heads", "64")),
    ("kv_heads_8", "wrong", SM, SM.replace("num_key_value_heads", "8")),
])
add("6.4", "counts", "right", '''
def cache_bytes(attn_type_list, length, *, num_attention_heads, num_key_value_heads, head_dim, bytes_per_number=2):
    softmax = sum(attn_type_list)
    lightning = len(attn_type_list) - softmax
    per_token = 2 * num_key_value_heads * head_dim * bytes_per_number
    return softmax * per_token * length + lightning * 4 * num_attention_heads * head_dim**2
''')
add("6.4", "count_method", "right", '''
def cache_bytes(attn_type_list, length, *, num_attention_heads, num_key_value_heads, head_dim, bytes_per_number=2):
    state = num_attention_heads * head_dim * head_dim * 4
    kv = num_key_value_heads * head_dim * length * bytes_per_number
    return attn_type_list.count(0) * state + attn_type_list.count(1) * (kv + kv)
''')
add("6.4", "table", "right", '''
def cache_bytes(attn_type_list, length, *, num_attention_heads, num_key_value_heads, head_dim, bytes_per_number=2):
    size = {
        0: num_attention_heads * head_dim * head_dim * 4,
        1: (length * num_key_value_heads * head_dim * 2) * bytes_per_number,
    }
    return sum(size[kind] for kind in attn_type_list)
''')
add("6.4", "counter_prod", "right", '''
from collections import Counter
from math import prod
def cache_bytes(attn_type_list, length, *, num_attention_heads, num_key_value_heads, head_dim, bytes_per_number=2):
    kinds = Counter(attn_type_list)
    keys_and_values = prod([kinds[1], 2, length, num_key_value_heads, head_dim, bytes_per_number])
    states = prod([kinds[0], num_attention_heads, head_dim, head_dim, 4])
    return keys_and_values + states
''')
add("6.4", "meta_tensors", "right", '''
import torch
def cache_bytes(attn_type_list, length, *, num_attention_heads, num_key_value_heads, head_dim, bytes_per_number=2):
    numbers = lambda *shape: torch.Size(shape).numel()
    kv = numbers(2, length, num_key_value_heads, head_dim, bytes_per_number)
    state = numbers(num_attention_heads, head_dim, head_dim) * torch.float32.itemsize
    return sum((state, kv)[kind] for kind in attn_type_list)
''')
