"""Chapters 03 and 04."""

from tests.mutants.from_the_cards import Cards

MUTANTS = Cards()
add, fam = MUTANTS.add, MUTANTS.family

# ------------------------------------------------------------ 3.1 / 4.1
QUAD = '''
import math
import torch
def NAME(q, k, v, slopes):
    T = q.shape[1]
    time = torch.arange(T, device=q.device)
    distance = time.view(-1, 1) - time
    weights = torch.exp(-slopes.view(-1, 1, 1) * distance.clamp(min=0)).tril().to(q.dtype)
    scores = q.transpose(1, 2) @ k.permute(0, 2, 3, 1)
    return ((scores * weights) @ v.transpose(1, 2)).transpose(1, 2)
'''
W = "weights = torch.exp(-slopes.view(-1, 1, 1) * distance.clamp(min=0)).tril().to(q.dtype)"
S = "scores = q.transpose(1, 2) @ k.permute(0, 2, 3, 1)"
R = "return ((scores * weights) @ v.transpose(1, 2)).transpose(1, 2)"
def quad(ex, NAME):
    b = QUAD.replace("NAME", NAME)
    fam(ex, b, [
     ("base", "right"),
     ("masked_fill_noclamp", "right", W, "weights = torch.exp(-slopes.view(-1, 1, 1) * distance).masked_fill(distance < 0, 0).to(q.dtype)"),
     ("neg_inf_mask", "right", W, "weights = torch.exp((-slopes.view(-1, 1, 1) * distance).masked_fill(distance < 0, float('-inf'))).to(q.dtype)"),
     ("fp64_inside", "right", W, "dtype = q.dtype; q, k, v, slopes = q.double(), k.double(), v.double(), slopes.double(); "+W, R, R + ".to(dtype)"),
     ("decay_power", "right", W, "weights = (torch.exp(-slopes).view(-1,1,1) ** distance.clamp(min=0)).tril().to(q.dtype)"),
     ("cumprod_weights", "right", W, "c = torch.exp(-slopes)[:, None].repeat(1, T).to(q.dtype); c[:, 0] = 1; c = c.cumprod(1); weights = c[:, distance.clamp(min=0)].tril()"),
     ("scale", "wrong", S, S + " / math.sqrt(q.shape[-1])"),
     ("softmax", "wrong", R, "return (torch.softmax(scores.masked_fill(distance < 0, float('-inf')), -1) * weights @ v.transpose(1, 2)).transpose(1, 2)"),
     ("denominator", "wrong", R, "a = scores * weights; return ((a / a.sum(-1, keepdim=True).abs().clamp(min=1)) @ v.transpose(1, 2)).transpose(1, 2)"),
     ("weights_normalised", "wrong", R, "weights = weights / weights.sum(-1, keepdim=True); " + R),
     ("strict_triangle", "wrong", ".tril()", ".tril(-1)"),
     ("tril_plus1", "wrong", ".tril()", ".tril(1)"),
     ("no_mask", "wrong", ".tril()", ""),
     ("bidirectional", "wrong", "distance.clamp(min=0)).tril()", "distance.abs())"),
     ("upper", "wrong", ".tril()", ".triu()"),
     ("reversed_distance", "wrong", "distance = time.view(-1, 1) - time", "distance = time - time.view(-1, 1)"),
     ("distance_plus1", "wrong", "distance.clamp(min=0)", "(distance + 1).clamp(min=0)"),
     ("distance_minus1", "wrong", "distance.clamp(min=0)", "(distance - 1).clamp(min=0)"),
     ("distance_mod64", "wrong", "distance.clamp(min=0)", "(distance.clamp(min=0) % 64)"),
     ("distance_max64", "wrong", "distance.clamp(min=0)", "distance.clamp(0, 64)"),
     ("distance_max32", "wrong", "distance.clamp(min=0)", "distance.clamp(0, 32)"),
     ("window64", "wrong", ".tril()", ".tril().triu(-64)"),
     ("window128", "wrong", ".tril()", ".tril().triu(-127)"),
     ("heads_flipped", "wrong", "-slopes.view", "-slopes.flip(0).view"),
     ("first_slope_all", "wrong", "-slopes.view", "-slopes[:1].view"),
     ("half_scores", "wrong", S, "scores = (q.half().transpose(1, 2) @ k.half().permute(0, 2, 3, 1)).to(q.dtype)"),
     ("bf16_scores", "wrong", S, "scores = (q.bfloat16().transpose(1, 2) @ k.bfloat16().permute(0, 2, 3, 1)).to(q.dtype)"),
     ("half_weights", "wrong", ".tril().to(q.dtype)", ".tril().half().to(q.dtype)"),
     ("bf16_weights", "wrong", ".tril().to(q.dtype)", ".tril().bfloat16().to(q.dtype)"),
     ("half_slopes", "wrong", "-slopes.view", "-slopes.half().to(slopes.dtype).view"),
     ("bf16_slopes", "wrong", "-slopes.view", "-slopes.bfloat16().to(slopes.dtype).view"),
     ("half_power_of_decay", "wrong", W, "weights = (torch.exp(-slopes).half().float().view(-1,1,1) ** distance.clamp(min=0)).tril().to(q.dtype)"),
     ("fp64_out", "wrong", R, R + ".double()"),
     ("fp32_out", "wrong", R, R + ".float()"),
     ("fp32_inside", "wrong", S, "scores = (q.float().transpose(1, 2) @ k.float().permute(0, 2, 3, 1)).to(q.dtype)"),
     ("detach_scores", "wrong", S, S + "\n    scores = scores.detach()"),
     ("detach_v", "wrong", "@ v.transpose", "@ v.detach().transpose"),
     ("detach_k", "wrong", "@ k.permute", "@ k.detach().permute"),
     ("no_grad", "wrong", "def ", "@torch.no_grad()\ndef "),
     ("item_numpy", "wrong", R, R.replace("return ", "return torch.tensor((").replace(".transpose(1, 2)).transpose(1, 2)", ".transpose(1, 2)).transpose(1, 2)).tolist(), dtype=q.dtype)")),
     ("inplace_q", "wrong", S, "q.mul_(2).mul_(3); " + S + " / 6"),
     ("inplace_v_scaled", "wrong", R, "out = " + R[7:] + "; v.zero_(); return out"),
     ("inplace_slopes", "wrong", "-slopes.view", "slopes.neg_().view"),
     ("overflow_mask_times", "wrong", W, "weights = (torch.exp(-slopes.view(-1, 1, 1) * distance) * (distance >= 0)).to(q.dtype)"),
     ("split_exp_overflow", "wrong", W, "weights = (torch.exp(-slopes.view(-1,1,1) * time.view(-1, 1)) * torch.exp(slopes.view(-1,1,1) * time)).tril().to(q.dtype)"),
     ("nan_to_num", "wrong", W, "weights = (torch.exp(-slopes.view(-1,1,1) * time.view(-1, 1)) * torch.exp(slopes.view(-1,1,1) * time)).tril().nan_to_num(0, 0, 0).to(q.dtype)"),
     ("clamp_exp_5", "wrong", W, "weights = torch.exp((-slopes.view(-1, 1, 1) * distance.clamp(min=0)).clamp(min=-5)).tril().to(q.dtype)"),
     ("clamp_exp_10", "wrong", W, "weights = torch.exp((-slopes.view(-1, 1, 1) * distance.clamp(min=0)).clamp(min=-10)).tril().to(q.dtype)"),
     ("clamp_exp_20", "wrong", W, "weights = torch.exp((-slopes.view(-1, 1, 1) * distance.clamp(min=0)).clamp(min=-20)).tril().to(q.dtype)"),
     ("batch0_keys", "wrong", "@ k.permute", "@ k[:1].permute"),
     ("batch0_values", "wrong", "@ v.transpose", "@ v[:1].transpose"),
     ("batch_last_q", "wrong", "scores = q.tr", "scores = q[-1:].tr"),
     ("cache_by_T", "wrong", "def ", "CACHE = {}\ndef ", W, W + "\n    weights = CACHE.setdefault(T, weights)"),
     ("cache_first", "wrong", "def ", "CACHE = []\ndef ", R, "CACHE.append(" + R[7:] + "); return CACHE[0]"),
     ("cache_T_H", "wrong", "def ", "CACHE = {}\ndef ", W, W + "\n    weights = CACHE.setdefault((T, len(slopes), q.dtype), weights)"),
     ("base2", "wrong", "torch.exp(-", "torch.exp2(-"),
     ("one_minus_slope", "wrong", "torch.exp(-slopes.view(-1, 1, 1) * distance.clamp(min=0))", "((1 - slopes).view(-1, 1, 1) ** distance.clamp(min=0))"),
     ("decay_once", "wrong", "distance.clamp(min=0)", "distance.clamp(0, 1)"),
     ("no_decay", "wrong", "-slopes.view(-1, 1, 1)", "-0 * slopes.view(-1, 1, 1)"),
     ("slope_squared", "wrong", "-slopes.view", "-slopes.pow(2).view"),
     ("decay_as_slope", "wrong", "-slopes.view", "-torch.exp(-slopes).view"),
     ("eps_weights_1e-6", "wrong", ".tril()", ".add(1e-6).tril()"),
     ("eps_weights_1e-4", "wrong", ".tril()", ".add(1e-4).tril()"),
     ("eps_slopes_1e-5", "wrong", "-slopes.view", "-(slopes + 1e-5).view"),
     ("one_percent", "wrong", R, R + " * 1.01"),
     ("wrong_1e-4", "wrong", R, R + " * 1.0001"),
     ("elu_map", "wrong", "T = ", "q, k = torch.nn.functional.elu(q) + 1, torch.nn.functional.elu(k) + 1; T = "),
     ("silu_map", "wrong", "T = ", "q, k = torch.nn.functional.silu(q), torch.nn.functional.silu(k); T = "),
     ("normalised_k", "wrong", "T = ", "k = torch.nn.functional.normalize(k, dim=-1); T = "),
     ("reshape_heads", "wrong", "q.transpose(1, 2) @", "q.reshape(q.shape[0], q.shape[2], T, -1) @"),
     ("not_transposed_back", "wrong", R, R[:-len(".transpose(1, 2)")]),
     ("reshaped_back", "wrong", R, R[:-len(".transpose(1, 2)")] + ".reshape(v.shape)"),
     ("tuple", "wrong", R, R + ", None"),
     ("zeros_like_q", "wrong", R, "out = torch.zeros_like(q); out[:] = " + R[7:] + "; return out"),
     ("dv_equals_d_slice", "wrong", R, R + "[..., :q.shape[-1]]"),
     ("T1_squeeze", "wrong", R, R + ".squeeze(1)"),
     ("B1_squeeze", "wrong", R, R + ".squeeze(0)"),
     ("T1_returns_v", "wrong", "T = q.shape[1]", "T = q.shape[1]\n    if T == 1: return v"),
     ("swapped_qk", "wrong", S, "scores = k.transpose(1, 2) @ q.permute(0, 2, 3, 1)"),
     ("slope0_skipped", "wrong", W, W + "\n    weights = torch.where(slopes.view(-1,1,1) > 0, weights, torch.zeros_like(weights))"),
     ("slope_min", "wrong", "-slopes.view", "-slopes.clamp(min=1e-3).view"),
     ("slope_max1", "wrong", "-slopes.view", "-slopes.clamp(max=1).view"),
     ("last_token_lost", "wrong", R, "out = " + R[7:] + ".clone(); out[:, -1] = 0; return out"),
     ("first_diag", "wrong", W, W + "\n    weights = weights.clone(); weights[:, 0, 0] = 0"),
     ("block64_only_diag", "wrong", W, W + "\n    weights = weights * (time.view(-1,1)//64 == time//64)"),
     ("block64_lag", "wrong", "distance = time.view(-1, 1) - time", "distance = time.view(-1, 1) - time + (time.view(-1,1)//64 - time//64)"),
     ("drop_small_scores", "wrong", R, "scores = scores * (weights > 1e-3)\n    " + R),
     ("round_out", "wrong", R, "out = " + R[7:] + "; return (out * 1e4).round() / 1e4"),
     ("clamp_nan_out", "wrong", R, R + ".clamp(-100, 100)"),
     ("contiguous_view", "wrong", "q.transpose(1, 2) @", "q.view(-1).view(q.shape).transpose(1, 2) @"),
     ("assert_pow2", "wrong", "T = q.shape[1]", "T = q.shape[1]\n    assert T > 1"),
    ])
    add(ex, "loop_python_cumulative", "right", '''
import torch
def NAME(q, k, v, slopes):
    out = []
    for i in range(q.shape[1]):
        o = 0
        for j in range(i + 1):
            w = torch.exp(-slopes * (i - j)).to(q.dtype)
            o = o + (w * (q[:, i] * k[:, j]).sum(-1))[..., None] * v[:, j]
        out.append(o)
    return torch.stack(out, 1)
'''.replace("NAME", NAME))
    add(ex, "einsum_recurrence", "right", '''
import torch
def NAME(q, k, v, slopes):
    lam = torch.exp(-slopes).to(q.dtype)[None, :, None, None]
    S, out = torch.zeros_like(torch.einsum("bhd,bhe->bhde", k[:, 0], v[:, 0])), []
    for t in range(q.shape[1]):
        S = lam * S + torch.einsum("bhd,bhe->bhde", k[:, t], v[:, t])
        out.append(torch.einsum("bhd,bhde->bhe", q[:, t], S))
    return torch.stack(out, 1)
'''.replace("NAME", NAME))
    add(ex, "per_batch_head_loops", "right", '''
import torch
def NAME(q, k, v, slopes):
    B, T, H, D = q.shape
    out = torch.empty(B, T, H, v.shape[-1], dtype=q.dtype)
    log = torch.tril(torch.ones(T, T)).cumsum(0).tril() - 1
    for b in range(B):
        for h in range(H):
            w = torch.tril(torch.exp(-slopes[h] * log)).to(q.dtype)
            out[b, :, h] = (q[b, :, h] @ k[b, :, h].T * w) @ v[b, :, h]
    return out
'''.replace("NAME", NAME))
quad("3.1", "masked_quadratic")
quad("4.1", "intra_block")

# ------------------------------------------------------------ 3.2
REC = '''
import math
import torch
def recurrent(q, k, v, slopes, state=None):
    B, T, H, D = q.shape
    decay = torch.exp(-slopes).to(q.dtype).view(H, 1, 1)
    if state is None:
        state = q.new_zeros(B, H, D, v.shape[-1])
    outs = []
    for t in range(T):
        state = decay * state + k[:, t].unsqueeze(-1) * v[:, t].unsqueeze(-2)
        outs.append((q[:, t].unsqueeze(-2) @ state).squeeze(-2))
    return torch.stack(outs, dim=1), state
'''
U = "state = decay * state + k[:, t].unsqueeze(-1) * v[:, t].unsqueeze(-2)"
KV = "k[:, t].unsqueeze(-1) * v[:, t].unsqueeze(-2)"
O = "outs.append((q[:, t].unsqueeze(-2) @ state).squeeze(-2))"
RR = "return torch.stack(outs, dim=1), state"
Z = "state = q.new_zeros(B, H, D, v.shape[-1])"
D0 = "decay = torch.exp(-slopes).to(q.dtype).view(H, 1, 1)"
fam("3.2", REC, [
 ("base", "right"),
 ("fp64_inside", "right", "B, T, H, D = q.shape", "dtype = q.dtype; q, k, v, slopes = (x.double() for x in (q, k, v, slopes)); state = None if state is None else state.double(); B, T, H, D = q.shape", RR, "return torch.stack(outs, dim=1).to(dtype), state.to(dtype)"),
 ("clone_then_fresh", "right", "    outs = []", "    else:\n        state = state.clone()\n    outs = []"),
 ("transposed_inside", "right", "    outs = []", "    state = state.mT\n    outs = []", U, "state = decay * state + v[:, t].unsqueeze(-1) * k[:, t].unsqueeze(-2)", O, "outs.append((state @ q[:, t].unsqueeze(-1)).squeeze(-1))", RR, "return torch.stack(outs, dim=1), state.mT"),
 ("read_before_update", "wrong", U + "\n        " + O, O + "\n        " + U),
 ("decay_after_add", "wrong", U, "state = decay * (state + " + KV + ")"),
 ("decay_after_read", "wrong", U, "state = state + " + KV, O, O + "; state = decay * state"),
 ("no_decay", "wrong", "decay * state + ", "state + "),
 ("swapped", "wrong", RR, "return state, torch.stack(outs, dim=1)"),
 ("only_out", "wrong", RR, "return torch.stack(outs, dim=1)"),
 ("state_transposed", "wrong", RR, RR + ".transpose(-1, -2)"),
 ("state_transposed_all", "wrong", "    outs = []", "    else:\n        state = state.mT\n    outs = []", RR, RR + ".mT"),
 ("ignores_state", "wrong", "if state is None:", "if True:"),
 ("returns_first_state", "wrong", "outs = []", "outs = []; first = state", RR, "return torch.stack(outs, dim=1), first"),
 ("state_before_last", "wrong", U, "before = state; " + U, RR, "return torch.stack(outs, dim=1), before"),
 ("state_decayed_once_more", "wrong", RR, "return torch.stack(outs, dim=1), decay * state"),
 ("incoming_not_decayed", "wrong", U, "state = (decay if t else 1) * state + " + KV),
 ("incoming_decayed_twice", "wrong", "    outs = []", "    else:\n        state = decay * state\n    outs = []"),
 ("inplace_state", "wrong", U, "state.mul_(decay).add_(" + KV + ")"),
 ("inplace_T1_only", "wrong", U, "if T == 1: state *= decay; state += " + KV + "\n        else: " + U),
 ("inplace_mul_first", "wrong", "    outs = []", "    else:\n        state.mul_(decay); state = state / decay\n    outs = []"),
 ("copy_into_state_at_end", "wrong", "outs = []", "outs = []; given = state", RR, "given.copy_(state); return torch.stack(outs, dim=1), given"),
 ("returns_same_buffer_copy_data", "wrong", "outs = []", "outs = []; given = state", RR, "given.data.copy_(state.data); return torch.stack(outs, dim=1), state"),
 ("decay_last_axis", "wrong", ".view(H, 1, 1)", ""),
 ("decay_key_axis", "wrong", ".view(H, 1, 1)", ".view(H, 1)"),
 ("decay_mean", "wrong", ".view(H, 1, 1)", ".mean()"),
 ("decay_first", "wrong", ".view(H, 1, 1)", "[0]"),
 ("decay_flipped", "wrong", ".view(H, 1, 1)", ".flip(0).view(H, 1, 1)"),
 ("mutable_global_state", "wrong", "def ", "SAVED = {}\ndef ", Z, "state = SAVED.get((B, H, D)); state = q.new_zeros(B, H, D, v.shape[-1]) if state is None else state", RR, "SAVED[B, H, D] = state.detach(); " + RR),
 ("cached_decay", "wrong", "def ", "SAVED = []\ndef ", D0, D0 + "\n    SAVED.append(decay); decay = SAVED[0]"),
 ("cached_decay_H", "wrong", "def ", "SAVED = {}\ndef ", D0, D0 + "\n    decay = SAVED.setdefault((H, q.dtype), decay)"),
 ("mutable_default", "wrong", "state=None", "state=[]", "if state is None:", "if isinstance(state, list) and not state:"),
 ("mutable_default_real", "wrong", "state=None", "state=None, store={}", Z, "state = store.setdefault((B, H, D, v.shape[-1], q.dtype), q.new_zeros(B, H, D, v.shape[-1]))", U, "state.data.mul_(decay).add_((" + KV + ").data)"),
 ("square_state", "wrong", Z, "state = q.new_zeros(B, H, D, D)"),
 ("fp32_zeros", "wrong", Z, "state = torch.zeros(B, H, D, v.shape[-1])"),
 ("fp32_inside", "wrong", U, "state = (decay.float() * state.float() + (" + KV + ").float()).to(q.dtype)"),
 ("half_state", "wrong", U, U + "; state = state.half().to(q.dtype)"),
 ("bf16_state", "wrong", U, U + "; state = state.bfloat16().to(q.dtype)"),
 ("half_state_returned", "wrong", RR, "return torch.stack(outs, dim=1), state.half().to(q.dtype)"),
 ("bf16_state_dtype", "wrong", RR, "return torch.stack(outs, dim=1), state.bfloat16()"),
 ("fp64_state_dtype", "wrong", RR, "return torch.stack(outs, dim=1), state.double()"),
 ("fp32_state_dtype", "wrong", RR, "return torch.stack(outs, dim=1), state.float()"),
 ("fp64_out", "wrong", RR, "return torch.stack(outs, dim=1).double(), state"),
 ("half_decay", "wrong", "torch.exp(-slopes)", "torch.exp(-slopes).half()"),
 ("bf16_decay", "wrong", "torch.exp(-slopes)", "torch.exp(-slopes).bfloat16()"),
 ("detach_state_tokens", "wrong", "decay * state +", "decay * state.detach() +"),
 ("detach_returned", "wrong", RR, RR + ".detach()"),
 ("detach_incoming", "wrong", "    outs = []", "    else:\n        state = state.detach()\n    outs = []"),
 ("detach_state_read", "wrong", "@ state)", "@ state.detach())"),
 ("no_grad", "wrong", "def ", "@torch.no_grad()\ndef "),
 ("T1_ignores_state", "wrong", "if state is None:", "if state is None or T == 1:"),
 ("T1_no_decay", "wrong", U, "state = (decay if T > 1 else 1) * state + " + KV),
 ("T1_squeezed", "wrong", RR, "return torch.stack(outs, dim=1).squeeze(1), state"),
 ("B1_squeezed", "wrong", RR, "return torch.stack(outs, dim=1), state.squeeze(0)"),
 ("state_only_row0", "wrong", "    outs = []", "    else:\n        state = state[:1].expand(B, -1, -1, -1)\n    outs = []"),
 ("state_only_row0_nonzero", "wrong", "    outs = []", "    else:\n        state = torch.cat([state[:1], torch.zeros_like(state[1:])])\n    outs = []"),
 ("state_batch_mean", "wrong", "    outs = []", "    state = state.mean(0, keepdim=True).expand(B, -1, -1, -1)\n    outs = []"),
 ("returned_state_row0", "wrong", RR, "return torch.stack(outs, dim=1), state[:1].expand(B, -1, -1, -1)"),
 ("slopes_as_decay", "wrong", "torch.exp(-slopes)", "slopes"),
 ("one_minus_slopes", "wrong", "torch.exp(-slopes)", "(1 - slopes)"),
 ("exp2", "wrong", "torch.exp(-slopes)", "torch.exp2(-slopes)"),
 ("exp_plus", "wrong", "torch.exp(-slopes)", "torch.exp(slopes)"),
 ("ema_1-decay", "wrong", U, "state = decay * state + (1 - decay) * " + KV),
 ("scale", "wrong", O, "outs.append((q[:, t].unsqueeze(-2) @ state).squeeze(-2) * D ** -0.5)"),
 ("denominator", "wrong", "outs = []", "outs = []; z = k.new_zeros(B, H, D)", O, "z = decay.view(H, 1) * z + k[:, t]; outs.append((q[:, t].unsqueeze(-2) @ state).squeeze(-2) / (q[:, t] * z).sum(-1, keepdim=True).abs().clamp(min=1))"),
 ("delta_rule", "wrong", U, "pred = k[:, t].unsqueeze(-2) @ state; state = decay * state + k[:, t].unsqueeze(-1) * (v[:, t].unsqueeze(-2) - pred)"),
 ("key_normalised", "wrong", KV, KV.replace("k[:, t]", "torch.nn.functional.normalize(k[:, t], dim=-1)")),
 ("silu", "wrong", "B, T, H, D = q.shape", "q = torch.nn.functional.silu(q); B, T, H, D = q.shape"),
 ("stack0", "wrong", "dim=1", "dim=0"),
 ("stack2", "wrong", "dim=1", "dim=2"),
 ("skip_last", "wrong", "range(T)", "range(max(T - 1, 1))"),
 ("skip_first_write", "wrong", U, "state = decay * state + (t > 0) * " + KV),
 ("reset_64", "wrong", U, "state = state * (t % 64 != 0 or t == 0); " + U),
 ("reset_256", "wrong", U, "state = state * (t % 256 != 0 or t == 0); " + U),
 ("state_if_any", "wrong", "if state is None:", "if state is None or state.abs().max() < 10:"),
 ("state_or", "wrong", "    if state is None:\n        " + Z, "    state = state or q.new_zeros(B, H, D, v.shape[-1])"),
 ("clamp_state", "wrong", U, U + ".clamp(-10, 10)"),
 ("eps_state", "wrong", U, U + " + 1e-6"),
 ("slope_min", "wrong", "exp(-slopes)", "exp(-slopes.clamp(min=1e-3))"),
 ("slope_zero_forgets", "wrong", "torch.exp(-slopes)", "(torch.exp(-slopes) * (slopes > 0))"),
 ("one_percent", "wrong", RR, "return torch.stack(outs, dim=1) * 1.01, state"),
 ("state_1e-4", "wrong", RR, RR + " * 1.0001"),
 ("list_out", "wrong", RR, "return outs, state"),
 ("list_return", "wrong", RR, "return [torch.stack(outs, dim=1), state]"),
 ("state_list", "wrong", RR, "return torch.stack(outs, dim=1), [state]"),
 ("k_v_swapped_outer", "wrong", KV, "(v[:, t].unsqueeze(-1) * k[:, t].unsqueeze(-2)).reshape(B, H, D, -1)"),
 ("reads_with_k", "wrong", "(q[:, t].unsq", "(k[:, t].unsq"),
 ("inplace_k", "wrong", "outs = []", "outs = []; k.mul_(1.0 + 1e-3)"),
 ("inplace_v_data", "wrong", RR, "v.data.mul_(0); " + RR),
 ("state_given_decay_pow_T", "wrong", "    outs = []", "    else:\n        state = state * decay ** (T - 1)\n    outs = []"),
 ("no_state_returned_when_none", "wrong", "outs = []", "outs = []", "if state is None:", "none = state is None\n    if none:", RR, "return torch.stack(outs, dim=1), (None if none else state)"),
 ("out_buffer_like_q", "wrong", RR, "out = torch.zeros_like(q); out[:] = torch.stack(outs, dim=1); return out, state"),
])
add("3.2", "quadratic_plus_state", "right", '''
import torch
def recurrent(q, k, v, slopes, state=None):
    T = q.shape[1]
    s = slopes.to(q.dtype)
    i = torch.arange(T)
    w = torch.exp(-s[:, None, None] * (i[:, None] - i).clamp(min=0)).tril()
    out = torch.einsum("bihd,bjhd,hij,bjhe->bihe", q, k, w, v)
    end = torch.einsum("bjhd,jh,bjhe->bhde", k, torch.exp(-s * (T - 1 - i)[:, None]), v)
    if state is not None:
        out = out + torch.einsum("bihd,ih,bhde->bihe", q, torch.exp(-s * (i + 1)[:, None]), state)
        end = end + torch.exp(-s * T)[None, :, None, None] * state
    return out, end
''')
add("3.2", "python_loops_heads", "right", '''
import torch
import math
def recurrent(q, k, v, slopes, state=None):
    B, T, H, D = q.shape
    rows_o, rows_s = [], []
    for b in range(B):
        ho, hs = [], []
        for h in range(H):
            S = torch.zeros(D, v.shape[-1], dtype=q.dtype) if state is None else state[b, h]
            o = []
            lam = math.exp(-float(slopes[h]))
            for t in range(T):
                S = lam * S + torch.outer(k[b, t, h], v[b, t, h])
                o.append(q[b, t, h] @ S)
            ho.append(torch.stack(o)); hs.append(S)
        rows_o.append(torch.stack(ho, 1)); rows_s.append(torch.stack(hs))
    return torch.stack(rows_o), torch.stack(rows_s)
''')

# ------------------------------------------------------------ 3.3
SL = '''
import math
import torch
def decay_slopes(num_heads, layer, num_layers):
    h = torch.arange(1, num_heads + 1, dtype=torch.float64)
    factor = 1 - layer / (num_layers - 1) + 1e-5 if num_layers > 1 else 1 + 1e-5
    return (2.0 ** (-8 * h / num_heads) * factor).float()
'''
F = "factor = 1 - layer / (num_layers - 1) + 1e-5 if num_layers > 1 else 1 + 1e-5"
P = "2.0 ** (-8 * h / num_heads)"
SR = "return (2.0 ** (-8 * h / num_heads) * factor).float()"
fam("3.3", SL, [
 ("base", "right"),
 ("max1", "right", F, "factor = 1 - layer / max(num_layers - 1, 1) + 1e-5"),
 ("fp32_all", "right", "float64", "float32"),
 ("exp_log", "right", P, "torch.exp(-8 * math.log(2) * h / num_heads)"),
 ("base_pow_h", "right", P, "(2 ** (-8 / num_heads)) ** h"),
 ("heads_from_0", "wrong", "arange(1, num_heads + 1,", "arange(num_heads,"),
 ("heads_from_2", "wrong", "arange(1, num_heads + 1,", "arange(2, num_heads + 2,"),
 ("layers_from_1", "wrong", "layer / (", "(layer + 1) / ("),
 ("l_over_L", "wrong", "layer / (num_layers - 1)", "layer / num_layers"),
 ("l+1_over_L", "wrong", "layer / (num_layers - 1)", "(layer + 1) / num_layers"),
 ("no_eps", "wrong", "+ 1e-5 if", "if"),
 ("eps_1e-6", "wrong", "+ 1e-5 if", "+ 1e-6 if"),
 ("eps_1e-4", "wrong", "+ 1e-5 if", "+ 1e-4 if"),
 ("eps_minus", "wrong", "+ 1e-5 if", "- 1e-5 if"),
 ("eps_outside", "wrong", F, "factor = 1 - layer / (num_layers - 1) if num_layers > 1 else 1", "* factor)", "* factor + 1e-5)"),
 ("eps_in_denominator", "wrong", F, "factor = 1 - layer / (num_layers - 1 + 1e-5)"),
 ("eps_multiplied", "wrong", F, "factor = (1 - layer / (num_layers - 1)) * (1 + 1e-5) if num_layers > 1 else 1 + 1e-5"),
 ("eps_only_last", "wrong", F, "factor = max(1 - layer / (num_layers - 1), 1e-5) if num_layers > 1 else 1 + 1e-5"),
 ("clamped_max_1", "wrong", F, F + "; factor = min(factor, 1.0)"),
 ("reversed", "wrong", "* factor)", "* factor).flip(0)"),
 ("int_division_8H", "wrong", P, "2.0 ** (-(8 // num_heads) * h)"),
 ("floor_exponent", "wrong", P, "2.0 ** (-(8 * h // num_heads))"),
 ("int_layer_division", "wrong", "layer / (num", "layer // (num"),
 ("hard_8_heads", "wrong", P, "2.0 ** -h"),
 ("inverse_H_over_8", "wrong", P, "2.0 ** (-h * num_heads / 8)"),
 ("four_over_H", "wrong", P, "2.0 ** (-4 * h / num_heads)"),
 ("exp_not_2", "wrong", P, "torch.exp(-8 * h / num_heads)"),
 ("no_minus", "wrong", P, "2.0 ** (8 * h / num_heads)"),
 ("decay_returned", "wrong", SR, SR.replace("return ", "return torch.exp(-") + ")"),
 ("negative_slopes", "wrong", SR, SR.replace("return ", "return -")),
 ("log_decay", "wrong", "(2.0 ** (-8 * h / num_heads) * factor)", "(-8 * h / num_heads * math.log(2) * factor)"),
 ("fp64", "wrong", ".float()", ""),
 ("half_compute", "wrong", SR, SR.replace(".float()", ".half().float()")),
 ("bf16_compute", "wrong", SR, SR.replace(".float()", ".bfloat16().float()")),
 ("half_factor", "wrong", F, F + "; factor = torch.tensor(factor).half()"),
 ("half_dtype", "wrong", ".float()", ".half()"),
 ("list", "wrong", SR, SR + ".tolist()"),
 ("shape_H11", "wrong", SR, SR + ".view(-1, 1, 1)"),
 ("shape_1H", "wrong", SR, SR + "[None]"),
 ("one_layer_1", "wrong", "else 1 + 1e-5", "else 1"),
 ("one_layer_eps", "wrong", "else 1 + 1e-5", "else 1e-5"),
 ("one_layer_crash", "wrong", " if num_layers > 1 else 1 + 1e-5", ""),
 ("one_layer_none", "wrong", "factor = ", "if num_layers == 1: return None\n    factor = "),
 ("ignores_layer", "wrong", F, "factor = 1 + 1e-5"),
 ("layer0_special", "wrong", F, "factor = 1 if layer == 0 else 1 - layer / (num_layers - 1) + 1e-5"),
 ("layer_mod", "wrong", "layer / (", "(layer % 8) / ("),
 ("last_zero", "wrong", F, F + "\n    if layer == num_layers - 1 and layer: factor = 0"),
 ("last_is_inf_life", "wrong", F, F + "\n    if layer == num_layers - 1 and layer: factor = 1"),
 ("precedence", "wrong", "layer / (num_layers - 1)", "layer / num_layers - 1"),
 ("growing", "wrong", "1 - layer / (num_layers - 1)", "layer / (num_layers - 1)"),
 ("fp32_cancellation", "wrong", F, "factor = torch.tensor(1 + 1e-5) - torch.tensor(layer / max(num_layers - 1, 1))"),
 ("linspace_log", "wrong", P, "torch.logspace(-1, -8, num_heads, base=2.0, dtype=torch.float64)"),
 ("linspace_linear", "wrong", P, "torch.linspace(2 ** (-8 / num_heads), 2 ** -8, num_heads)"),
 ("cached_first", "wrong", "def ", "C = {}\ndef ", SR, "return C.setdefault(0, (2.0 ** (-8 * h / num_heads) * factor).float())"),
 ("cached_by_heads", "wrong", "def ", "C = {}\ndef ", SR, "return C.setdefault(num_heads, (2.0 ** (-8 * h / num_heads) * factor).float())"),
 ("cached_no_L", "wrong", "def ", "C = {}\ndef ", SR, "return C.setdefault((num_heads, layer), (2.0 ** (-8 * h / num_heads) * factor).float())"),
 ("ratio_L8", "wrong", "(num_layers - 1)", "7"),
 ("heads_capped_16", "wrong", P, "2.0 ** (-8 * h / min(num_heads, 16))"),
 ("alibi_closest_64", "wrong", P, "2.0 ** (-8 * h / num_heads) * (h <= 64)"),
 ("three_digit", "wrong", SR, "return ((2.0 ** (-8 * h / num_heads) * factor) * 1e5).round().div(1e5).float()"),
 ("round_7", "wrong", SR, "return ((2.0 ** (-8 * h / num_heads) * factor) * 1e7).round().div(1e7).float()"),
 ("ratio_sqrt", "wrong", "* factor)", "* math.sqrt(factor))"),
 ("factor_on_exponent", "wrong", SR, "return (2.0 ** (-8 * h / num_heads * factor)).float()"),
 ("requires_grad", "wrong", SR, SR + ".requires_grad_()"),
 ("one_percent", "wrong", "* factor)", "* factor * 1.01)"),
 ("swap_layer_L", "wrong", "num_heads, layer, num_layers", "num_heads, num_layers, layer"),
 ("mul_2_for_H1", "wrong", "num_heads + 1, dtype", "num_heads + 1, dtype", "return (2", "if num_heads == 1: return torch.tensor([0.5 * factor])\n    return (2"),
])
add("3.3", "alibi_style_list", "right", '''
import math
import torch
def decay_slopes(num_heads, layer, num_layers):
    start = 2 ** (-(2 ** -(math.log2(num_heads) - 3)))
    slopes = [start * start ** i for i in range(num_heads)]
    if num_layers <= 1:
        return torch.tensor(slopes) * (1 + 1e-5)
    return torch.tensor(slopes, dtype=torch.float32) * (1 - layer / (num_layers - 1) + 1e-5)
''')
add("3.3", "cumprod", "right", '''
import torch
def decay_slopes(num_heads, layer, num_layers):
    step = torch.full((num_heads,), 0.5 ** (8 / num_heads), dtype=torch.float64).cumprod(0)
    left = (num_layers - 1 - layer) / (num_layers - 1) if num_layers != 1 else 1.0
    return (step * (left + 1e-5)).to(torch.float32)
''')
add("3.3", "python_fractions", "right", '''
from fractions import Fraction
import torch
def decay_slopes(num_heads, layer, num_layers):
    f = Fraction(1) - (Fraction(layer, num_layers - 1) if num_layers > 1 else 0) + Fraction(1, 100000)
    return torch.tensor([float(f) * 2.0 ** -(8 * h / num_heads) for h in range(1, num_heads + 1)])
''')

# ------------------------------------------------------------ 3.4
HL = '''
import math
import torch
def half_life(slopes, fraction=0.5):
    return -math.log(fraction) / slopes
'''
HR = "return -math.log(fraction) / slopes"
fam("3.4", HL, [
 ("base", "right"),
 ("torch_log", "right", HR, "return torch.log(torch.tensor(1 / fraction, dtype=slopes.dtype)) / slopes"),
 ("where_inf", "right", HR, "return torch.where(slopes == 0, torch.full_like(slopes, float('inf')), -math.log(fraction) / slopes.clamp(min=1e-30))"),
 ("double_decay", "right", HR, "return (math.log(fraction) / torch.log(torch.exp(-slopes.double()))).abs().to(slopes.dtype)"),
 ("python_list", "right", HR, "return torch.tensor([math.log(fraction) / -s if s else math.inf for s in slopes.tolist()], dtype=slopes.dtype)"),
 ("log2_times_halflife", "right", HR, "return -math.log2(fraction) * (math.log(2) / slopes)"),
 ("reciprocal", "right", HR, "return slopes.reciprocal() * math.log(1 / fraction)"),
 ("abs", "right", HR, "return (math.log(fraction) / slopes).abs()"),
 ("log2", "wrong", "math.log(", "math.log2("),
 ("log10", "wrong", "math.log(", "math.log10("),
 ("ignores_fraction", "wrong", HR, "return math.log(2) / slopes"),
 ("ignores_slopes_0.693", "wrong", HR, "return 0.693 / slopes * math.log(fraction) / math.log(0.5)"),
 ("approx_0.6931", "wrong", HR, "return 0.6931 / slopes * math.log(fraction) / math.log(0.5)"),
 ("sign", "wrong", "return -", "return "),
 ("ceil", "wrong", HR, "return (-math.log(fraction) / slopes).ceil()"),
 ("round", "wrong", HR, "return (-math.log(fraction) / slopes).round()"),
 ("int", "wrong", HR, "return (-math.log(fraction) / slopes).int()"),
 ("fp32_decay", "wrong", HR, "return math.log(fraction) / torch.log(torch.exp(-slopes))"),
 ("fp32_decay_abs", "wrong", HR, "return (math.log(fraction) / torch.log(torch.exp(-slopes))).abs()"),
 ("fp32_decay_float", "wrong", HR, "return (math.log(fraction) / torch.log(torch.exp(-slopes.float()))).abs().to(slopes.dtype)"),
 ("fp32_inside", "wrong", HR, "return (-math.log(fraction) / slopes.float()).to(slopes.dtype)"),
 ("multiplied", "wrong", " / slopes", " * slopes"),
 ("inverse", "wrong", HR, "return 1 / slopes"),
 ("default_e", "wrong", "fraction=0.5", "fraction=1 / 2.718281828"),
 ("default_0.1", "wrong", "fraction=0.5", "fraction=0.1"),
 ("no_default", "wrong", "fraction=0.5", "fraction"),
 ("one_minus_fraction", "wrong", "log(fraction)", "log(1 - fraction)"),
 ("min_fraction", "wrong", "log(fraction)", "log(min(fraction, 0.5))"),
 ("eps", "wrong", "/ slopes", "/ (slopes + 1e-6)"),
 ("eps_1e-9", "wrong", "/ slopes", "/ (slopes + 1e-9)"),
 ("eps_1e-12", "wrong", "/ slopes", "/ (slopes + 1e-12)"),
 ("clamp_slope", "wrong", "/ slopes", "/ slopes.clamp(min=1e-6)"),
 ("clamp_slope_1e-12", "wrong", "/ slopes", "/ slopes.clamp(min=1e-12)"),
 ("clamp_life", "wrong", HR, HR.replace("return ", "return (") + ").clamp(max=1e6)"),
 ("zero_where_slope0", "wrong", HR, HR.replace("return ", "return torch.nan_to_num(") + ", posinf=0.0)"),
 ("nan_to_num", "wrong", HR, HR.replace("return ", "return torch.nan_to_num(") + ")"),
 ("inf_below_1e-5", "wrong", HR, "return torch.where(slopes < 1e-5, torch.inf, -math.log(fraction) / slopes)"),
 ("inf_below_1e-3", "wrong", HR, "return torch.where(slopes < 1e-3, torch.inf, -math.log(fraction) / slopes)"),
 ("isclose_0", "wrong", HR, "return torch.where(torch.isclose(slopes, torch.zeros_like(slopes)), torch.inf, -math.log(fraction) / slopes)"),
 ("fp64", "wrong", HR, "return -math.log(fraction) / slopes.double()"),
 ("fp32_out", "wrong", HR, "return -math.log(fraction) / slopes.float()"),
 ("list", "wrong", HR, "return [-math.log(fraction) / s if s else math.inf for s in slopes.tolist()]"),
 ("numpy", "wrong", HR, "return (-math.log(fraction) / slopes).numpy()"),
 ("fp32_tensor_from_list", "wrong", HR, "return torch.tensor([-math.log(fraction) / s if s else math.inf for s in slopes.tolist()])"),
 ("mean", "wrong", HR, HR + ".mean()"),
 ("scalar_first", "wrong", HR, HR + "[0]"),
 ("column", "wrong", HR, HR.replace("slopes", "slopes[:, None]", 1)),
 ("inplace", "wrong", HR, "slopes.reciprocal_().mul_(-math.log(fraction)); return slopes"),
 ("halving", "wrong", HR, "return fraction / slopes"),
 ("linear", "wrong", HR, "return (1 - fraction) / slopes"),
 ("linear_decay_map", "wrong", HR, "return (1 - fraction) / (1 - torch.exp(-slopes))"),
 ("log_1minus", "wrong", HR, "return math.log(fraction) / torch.log(1 - slopes)"),
 ("log1p_minus", "wrong", HR, "return math.log(fraction) / torch.log1p(-slopes)"),
 ("input_is_decay", "wrong", HR, "return math.log(fraction) / torch.log(slopes)"),
 ("half_precision", "wrong", HR, "return (-math.log(fraction) / slopes.half()).to(slopes.dtype)"),
 ("bf16", "wrong", HR, "return (-math.log(fraction) / slopes.bfloat16()).to(slopes.dtype)"),
 ("tolog_fp16_fraction", "wrong", HR, "return -torch.tensor(fraction).half().log().to(slopes.dtype) / slopes"),
 ("log_squared", "wrong", HR, "return -math.log(fraction * fraction) / slopes"),
 ("powers_fraction_series", "wrong", HR, "return round(-math.log2(fraction)) * math.log(2) / slopes"),
 ("count_halvings_int", "wrong", HR, "return int(1 / fraction) / 2 * math.log(2) / slopes"),
 ("one_percent", "wrong", HR, HR + " * 1.01"),
 ("plus_one", "wrong", HR, HR + " + 1"),
 ("simulated", "wrong", HR, "return torch.tensor([next((t for t in range(5000) if math.exp(-s * t) <= fraction), math.inf) for s in slopes.tolist()], dtype=slopes.dtype)"),
 ("cached_first", "wrong", "def ", "C = []\ndef ", HR, "C.append(-math.log(fraction) / slopes); return C[0]"),
 ("cached_fraction", "wrong", "def ", "C = {}\ndef ", HR, "return C.setdefault(fraction, -math.log(fraction) / slopes)"),
 ("cached_log", "wrong", "def ", "C = []\ndef ", HR, "C.append(-math.log(fraction)); return C[0] / slopes"),
 ("crash_on_zero", "wrong", HR, "return torch.tensor([-math.log(fraction) / s for s in slopes.tolist()])"),
 ("drops_zero", "wrong", HR, "return -math.log(fraction) / slopes[slopes > 0]"),
 ("detach", "wrong", "/ slopes", "/ slopes.detach()"),
 ("sorted", "wrong", HR, HR + ".sort(descending=True)[0]"),
 ("neg_inf", "wrong", HR, "return math.log(fraction) / -slopes.clamp(min=0).add(0)"),
])

# ------------------------------------------------------------ 4.2
IB = '''
import torch
def inter_block(q, state, slopes):
    B, m, H, D = q.shape
    i = torch.arange(m, device=q.device)
    decay = torch.exp(-(i[:, None] + 1) * slopes).to(q.dtype)
    return torch.einsum("bihd,bhde->bihe", q * decay[:, :, None], state)
'''
ID = "decay = torch.exp(-(i[:, None] + 1) * slopes).to(q.dtype)"
IR = 'return torch.einsum("bihd,bhde->bihe", q * decay[:, :, None], state)'
IU = 'torch.einsum("bihd,bhde->bihe", q * decay[:, :, None], state)'
fam("4.2", IB, [
 ("base", "right"),
 ("on_result", "right", IR, 'return torch.einsum("bihd,bhde->bihe", q, state) * decay[None, :, :, None]'),
 ("matmul", "right", IR, "return ((q * decay[:, :, None]).transpose(1, 2) @ state).transpose(1, 2)"),
 ("fp64_inside", "right", ID, "decay = torch.exp(-(i[:, None] + 1) * slopes.double())", IR, 'return torch.einsum("bihd,bhde->bihe", q.double() * decay[:, :, None], state.double()).to(q.dtype)'),
 ("cumprod", "right", ID, "decay = torch.exp(-slopes).to(q.dtype).expand(m, H).cumprod(0)"),
 ("power", "right", ID, "decay = torch.exp(-slopes).to(q.dtype) ** (i[:, None] + 1)"),
 ("token_loop", "right", IR, "out = []\n    S = state\n    for t in range(m):\n        S = S * torch.exp(-slopes).to(q.dtype)[:, None, None]\n        out.append((q[:, t, :, None] @ S)[:, :, 0])\n    return torch.stack(out, 1)"),
 ("exponent_i", "wrong", "(i[:, None] + 1)", "i[:, None]"),
 ("exponent_i2", "wrong", "i[:, None] + 1", "i[:, None] + 2"),
 ("exponent_m-i", "wrong", "(i[:, None] + 1)", "(m - i[:, None])"),
 ("exponent_m-1-i", "wrong", "(i[:, None] + 1)", "(m - 1 - i[:, None])"),
 ("const_m", "wrong", "(i[:, None] + 1)", "(0 * i[:, None] + m)"),
 ("const_1", "wrong", "(i[:, None] + 1)", "(0 * i[:, None] + 1)"),
 ("no_decay", "wrong", "(i[:, None] + 1)", "(0 * i[:, None])"),
 ("mod64", "wrong", "(i[:, None] + 1)", "(i[:, None] % 64 + 1)"),
 ("max64", "wrong", "(i[:, None] + 1)", "(i[:, None] + 1).clamp(max=64)"),
 ("both", "wrong", IR, IR + " * decay[:, :, None]"),
 ("positive_exp", "wrong", "torch.exp(-", "torch.exp("),
 ("exp2", "wrong", "torch.exp(-", "torch.exp2(-"),
 ("slopes_as_decay", "wrong", "torch.exp(-(i[:, None] + 1) * slopes)", "(slopes ** (i[:, None] + 1))"),
 ("one_minus", "wrong", "torch.exp(-(i[:, None] + 1) * slopes)", "((1 - slopes) ** (i[:, None] + 1))"),
 ("linear", "wrong", "torch.exp(-(i[:, None] + 1) * slopes)", "(torch.exp(-slopes) * (i[:, None] + 1))"),
 ("state_transposed", "wrong", "bhde->bihe", "bhed->bihe"),
 ("state_transposed_reshape", "wrong", IR, IR.replace("state)", "state.mT.reshape(state.shape))")),
 ("state_row0", "wrong", IR, IR.replace("bhde->", "hde->").replace("state)", "state[0])")),
 ("state_row_mean", "wrong", IR, IR.replace("state)", "state.mean(0, keepdim=True).expand_as(state))")),
 ("state_head0", "wrong", IR, IR.replace("state)", "state[:, :1].expand_as(state))")),
 ("q_row0", "wrong", "q * decay", "q[:1].expand_as(q) * decay"),
 ("head_flip", "wrong", "* slopes)", "* slopes.flip(0))"),
 ("slope0", "wrong", "* slopes)", "* slopes[0]).expand(m, H)"),
 ("decay_axis_D", "wrong", ID, "decay = torch.exp(-(torch.arange(D)[None] + 1) * slopes[:, None]).to(q.dtype)", "q * decay[:, :, None]", "q * decay"),
 ("decay_hm_reshaped", "wrong", ID, "decay = torch.exp(-slopes[:, None] * (i + 1)).to(q.dtype).reshape(m, H)"),
 ("scale", "wrong", IR, IR + " * D ** -0.5"),
 ("half", "wrong", IR, IR.replace("q * decay[:, :, None], state", "(q * decay[:, :, None]).half().float().to(q.dtype), state.half().to(q.dtype)")),
 ("bf16_state", "wrong", "None], state)", "None], state.bfloat16().to(q.dtype))"),
 ("half_decay", "wrong", "slopes).to(", "slopes).half().to("),
 ("bf16_decay", "wrong", "slopes).to(", "slopes).bfloat16().to("),
 ("bf16_slopes", "wrong", "* slopes)", "* slopes.bfloat16().to(slopes.dtype))"),
 ("bf16_exponent", "wrong", "torch.exp(-(i[:, None] + 1) * slopes)", "torch.exp((-(i[:, None] + 1) * slopes).bfloat16())"),
 ("fp64_out", "wrong", IR, IR + ".double()"),
 ("fp32_out", "wrong", IR, IR + ".float()"),
 ("fp32_inside", "wrong", IR, "return " + IU.replace("q * decay[:, :, None], state", "(q * decay[:, :, None]).float(), state.float()") + ".to(q.dtype)"),
 ("detach_state", "wrong", "None], state)", "None], state.detach())"),
 ("detach_q", "wrong", "q * decay", "q.detach() * decay"),
 ("no_grad", "wrong", "def ", "@torch.no_grad()\ndef "),
 ("inplace_q", "wrong", IR, "q *= decay[:, :, None]; return torch.einsum('bihd,bhde->bihe', q, state)"),
 ("inplace_q_data", "wrong", IR, "q.data.mul_(decay[:, :, None]); return torch.einsum('bihd,bhde->bihe', q, state)"),
 ("inplace_state_loop", "wrong", IR, "out = []\n    for t in range(m):\n        state *= torch.exp(-slopes).to(q.dtype)[:, None, None]\n        out.append((q[:, t, :, None] @ state)[:, :, 0])\n    return torch.stack(out, 1)"),
 ("inplace_slopes", "wrong", ID, "slopes.neg_(); decay = torch.exp((i[:, None] + 1) * slopes).to(q.dtype)"),
 ("not_transposed_back", "wrong", "->bihe", "->bhie"),
 ("reshaped_back", "wrong", IR, "return " + IU.replace("->bihe", "->bhie") + ".reshape(B, m, H, -1)"),
 ("q_reshape_heads", "wrong", "q * decay", "q.reshape(B, H, m, D).transpose(1, 2) * decay"),
 ("tuple", "wrong", IR, IR + ", state"),
 ("zeros_like_q", "wrong", IR, "out = torch.zeros_like(q); out += " + IU + "; return out"),
 ("m1_no_decay", "wrong", ID, ID + "\n    if m == 1: decay = torch.ones_like(decay)"),
 ("m1_squeezed", "wrong", IR, IR + ".squeeze(1)"),
 ("m64_only", "wrong", ID, ID + "\n    if m % 64: decay = decay * torch.exp(-slopes).to(q.dtype)"),
 ("m64_wrong", "wrong", ID, ID + "\n    if m == 64: decay = decay * torch.exp(-slopes).to(q.dtype)"),
 ("last_token", "wrong", ID, ID + "\n    decay = decay.clone(); decay[-1] = 0"),
 ("cached_decay_m", "wrong", "def ", "C = {}\ndef ", ID, ID + "\n    decay = C.setdefault((m, H, q.dtype), decay)"),
 ("cached_first", "wrong", "def ", "C = []\ndef ", IR, "C.append(" + IU + "); return C[0]"),
 ("cached_state", "wrong", "def ", "C = {}\ndef ", IR, "state = C.setdefault(state.shape, state); " + IR),
 ("clamp_exp_10", "wrong", "torch.exp(-(i[:, None] + 1) * slopes)", "torch.exp((-(i[:, None] + 1) * slopes).clamp(min=-10))"),
 ("clamp_exp_20", "wrong", "torch.exp(-(i[:, None] + 1) * slopes)", "torch.exp((-(i[:, None] + 1) * slopes).clamp(min=-20))"),
 ("clamp_exp_5", "wrong", "torch.exp(-(i[:, None] + 1) * slopes)", "torch.exp((-(i[:, None] + 1) * slopes).clamp(min=-5))"),
 ("slope_min", "wrong", "* slopes)", "* slopes.clamp(min=1e-3))"),
 ("slope_max", "wrong", "* slopes)", "* slopes.clamp(max=1))"),
 ("slope0_forgets", "wrong", ID, ID + " * (slopes > 0)"),
 ("eps_1e-6", "wrong", IR, IR + " + 1e-6"),
 ("eps_1e-4", "wrong", IR, IR + " + 1e-4"),
 ("eps_slopes", "wrong", "* slopes)", "* (slopes + 1e-5))"),
 ("one_percent", "wrong", IR, IR + " * 1.01"),
 ("1e-4", "wrong", IR, IR + " * 1.0001"),
 ("float_pow_half", "wrong", ID, "decay = (torch.exp(-slopes).half().float() ** (i[:, None] + 1)).to(q.dtype)"),
 ("cumsum_heads", "wrong", ID, "decay = torch.exp(-slopes).to(q.dtype).expand(m, H).cumprod(1)"),
 ("cumprod_from_1", "wrong", ID, "decay = torch.cat([torch.ones(1, H, dtype=q.dtype), torch.exp(-slopes).to(q.dtype).expand(m, H)[1:]]).cumprod(0)"),
 ("m_gt_1_ok", "wrong", ID, ID.replace("+ 1", "+ int(m > 1)")),
 ("softmax_q", "wrong", "q * decay", "torch.softmax(q, -1) * decay"),
 ("state_normalised", "wrong", "None], state)", "None], state / state.norm(dim=-2, keepdim=True).clamp(min=1))"),
 ("sum_all_heads", "wrong", "bhde->bihe", "bgde->bihe"),
 ("v_reads", "wrong", IR, 'return torch.einsum("bihd,bhde->bihe", q, state * torch.exp(-slopes).to(q.dtype)[:, None, None])'),
])

# ------------------------------------------------------------ 4.3
US = '''
import torch
def update_state(k, v, state, slopes):
    B, m, H, D = k.shape
    j = torch.arange(m, device=k.device)
    old = torch.exp(-m * slopes).to(k.dtype)[:, None, None]
    weight = torch.exp(-(m - 1 - j)[:, None] * slopes).to(k.dtype)
    return old * state + torch.einsum("bjhd,bjhe->bhde", k * weight[:, :, None], v)
'''
UO = "old = torch.exp(-m * slopes).to(k.dtype)[:, None, None]"
UW = "weight = torch.exp(-(m - 1 - j)[:, None] * slopes).to(k.dtype)"
UR = 'return old * state + torch.einsum("bjhd,bjhe->bhde", k * weight[:, :, None], v)'
UE = 'torch.einsum("bjhd,bjhe->bhde", k * weight[:, :, None], v)'
fam("4.3", US, [
 ("base", "right"),
 ("on_v", "right", "k * weight[:, :, None], v", "k, v * weight[:, :, None]"),
 ("token_loop", "right", UR, "lam = torch.exp(-slopes).to(k.dtype)[:, None, None]\n    for t in range(m):\n        state = lam * state + k[:, t, :, :, None] * v[:, t, :, None]\n    return state"),
 ("fp64_inside", "right", UR, "return (torch.exp(-m * slopes.double())[:, None, None] * state.double() + torch.einsum('bjhd,jh,bjhe->bhde', k.double(), torch.exp(-(m - 1 - j)[:, None] * slopes.double()), v.double())).to(k.dtype)"),
 ("cumprod_flip", "right", UW, "c = torch.exp(-slopes).to(k.dtype).repeat(m, 1); c[0] = 1; weight = c.cumprod(0).flip(0)"),
 ("matmul", "right", UR, "return (k * weight[:, :, None]).permute(0, 2, 3, 1) @ v.transpose(1, 2) + state * old"),
 ("concat_horner", "right", UR, "out = state * old\n    for jj in reversed(range(m)):\n        out = out + weight[jj][:, None, None] * (k[:, jj].unsqueeze(-1) @ v[:, jj].unsqueeze(-2))\n    return out"),
 ("pow", "right", UO, "old = (torch.exp(-slopes).to(k.dtype) ** m).view(-1, 1, 1)", UW, "weight = torch.exp(-slopes).to(k.dtype) ** (m - 1 - j)[:, None]"),
 ("m-j", "wrong", "(m - 1 - j)", "(m - j)"),
 ("m-2-j", "wrong", "(m - 1 - j)", "(m - 2 - j).clamp(min=0)"),
 ("forward_j", "wrong", "(m - 1 - j)", "j"),
 ("forward_j1", "wrong", "(m - 1 - j)", "(j + 1)"),
 ("no_key_decay", "wrong", "(m - 1 - j)", "(0 * j)"),
 ("block64_keys", "wrong", "(m - 1 - j)", "(63 - j)"),
 ("old_m-1", "wrong", "torch.exp(-m * slopes)", "torch.exp(-(m - 1) * slopes)"),
 ("old_m+1", "wrong", "torch.exp(-m * slopes)", "torch.exp(-(m + 1) * slopes)"),
 ("old_1", "wrong", "torch.exp(-m * slopes)", "torch.exp(-slopes)"),
 ("old_none", "wrong", "old * state", "state"),
 ("old_64", "wrong", "torch.exp(-m * slopes)", "torch.exp(-64 * slopes)"),
 ("old_256", "wrong", "torch.exp(-m * slopes)", "torch.exp(-256 * slopes)"),
 ("old_min64", "wrong", "torch.exp(-m * slopes)", "torch.exp(-min(m, 64) * slopes)"),
 ("old_mod64", "wrong", "torch.exp(-m * slopes)", "torch.exp(-(m % 64) * slopes)"),
 ("old_times_m", "wrong", "torch.exp(-m * slopes)", "m * torch.exp(-slopes)"),
 ("ignores_state", "wrong", "old * state + ", ""),
 ("decay_sum", "wrong", UR, "return old * (state + torch.einsum('bjhd,bjhe->bhde', k * weight[:, :, None], v))"),
 ("both_kv", "wrong", "None], v)", "None], v * weight[:, :, None])"),
 ("sqrt_on_k_only", "wrong", "k * weight[", "k * weight.sqrt()["),
 ("old_last_axis", "wrong", "[:, None, None]", "", ),
 ("old_key_axis", "wrong", "[:, None, None]", "[:, None]"),
 ("old_mean", "wrong", "[:, None, None]", ".mean()"),
 ("head_flip", "wrong", "B, m, H", "slopes = slopes.flip(0); B, m, H"),
 ("head0", "wrong", "B, m, H", "slopes = slopes[:1].expand_as(slopes); B, m, H"),
 ("transposed", "wrong", "->bhde", "->bhed"),
 ("transposed_reshape", "wrong", UE, UE.replace("->bhde", "->bhed") + ".reshape(state.shape)"),
 ("returned_mT", "wrong", UR, "return (" + UR[7:] + ").mT"),
 ("row0_state", "wrong", "old * state", "old * state[:1]"),
 ("row0_keys", "wrong", "k * weight", "k[:1].expand_as(k) * weight"),
 ("batch_sum", "wrong", "bjhe->bhde", "cjhe->bhde"),
 ("inplace", "wrong", UR, "state *= old; state += " + UE + "; return state"),
 ("inplace_data", "wrong", UR, "state.data.mul_(old); return state + " + UE),
 ("inplace_add_", "wrong", UR, "new = " + UR[7:] + "; state.data.copy_(new.data); return new"),
 ("inplace_k", "wrong", UR, "k.data.mul_(weight[:, :, None]); return old * state + torch.einsum('bjhd,bjhe->bhde', k, v)"),
 ("inplace_m1", "wrong", UR, "if m == 1:\n        state.data.mul_(old); return state + " + UE + "\n    " + UR),
 ("scale", "wrong", UE, UE + " * D ** -0.5"),
 ("div_m", "wrong", UE, UE + " / m"),
 ("half_k", "wrong", "k * weight[:, :, None], v", "(k * weight[:, :, None]).half().to(k.dtype), v.half().to(k.dtype)"),
 ("bf16_state", "wrong", "old * state", "old * state.bfloat16().to(k.dtype)"),
 ("half_state", "wrong", "old * state", "old * state.half().to(k.dtype)"),
 ("half_weight", "wrong", "slopes).to(k.dtype)\n    return", "slopes).half().to(k.dtype)\n    return"),
 ("bf16_old", "wrong", "torch.exp(-m * slopes)", "torch.exp(-m * slopes).bfloat16()"),
 ("fp64_out", "wrong", UR, "return (" + UR[7:] + ").double()"),
 ("fp32_out", "wrong", UR, "return (" + UR[7:] + ").float()"),
 ("fp32_inside", "wrong", UR, "return (old.float() * state.float() + torch.einsum('bjhd,bjhe->bhde', (k * weight[:, :, None]).float(), v.float())).to(k.dtype)"),
 ("detach_state", "wrong", "old * state", "old * state.detach()"),
 ("detach_k", "wrong", "k * weight", "k.detach() * weight"),
 ("detach_v", "wrong", "None], v)", "None], v.detach())"),
 ("no_grad", "wrong", "def ", "@torch.no_grad()\ndef "),
 ("growing", "wrong", UW, "weight = (torch.exp(slopes * j[:, None]) * torch.exp(-(m - 1) * slopes)).to(k.dtype)"),
 ("divide_lam_j", "wrong", UW, "weight = (torch.exp(-(m - 1) * slopes) / torch.exp(-slopes * j[:, None])).to(k.dtype)"),
 ("growing_nan_to_num", "wrong", UW, "weight = (torch.exp(slopes * j[:, None]) * torch.exp(-(m - 1) * slopes)).to(k.dtype).nan_to_num(0, 0, 0)"),
 ("clamp_exp_10", "wrong", "torch.exp(-(m - 1 - j)[:, None] * slopes)", "torch.exp((-(m - 1 - j)[:, None] * slopes).clamp(min=-10))"),
 ("clamp_exp_20", "wrong", "torch.exp(-(m - 1 - j)[:, None] * slopes)", "torch.exp((-(m - 1 - j)[:, None] * slopes).clamp(min=-20))"),
 ("clamp_old_10", "wrong", "torch.exp(-m * slopes)", "torch.exp((-m * slopes).clamp(min=-10))"),
 ("clamp_old_5", "wrong", "torch.exp(-m * slopes)", "torch.exp((-m * slopes).clamp(min=-5))"),
 ("m1_no_old_decay", "wrong", UO, UO + "\n    if m == 1: old = torch.ones_like(old)"),
 ("m1_replaces", "wrong", "old * state", "(m > 1) * old * state"),
 ("m64_fixed", "wrong", UO, UO + "\n    if m % 64 == 0: old = torch.ones_like(old)"),
 ("m_not_64", "wrong", UO, UO + "\n    if m < 64: old = torch.exp(-64 * slopes).to(k.dtype)[:, None, None]"),
 ("m_gt64_last64", "wrong", "B, m, H, D = k.shape", "k, v = k[:, -64:], v[:, -64:]; B, m, H, D = k.shape"),
 ("m_gt128_last128", "wrong", "B, m, H, D = k.shape", "M = k.shape[1]; k, v = k[:, -128:], v[:, -128:]; B, m, H, D = k.shape", "-m * slopes", "-M * slopes"),
 ("cached_by_m", "wrong", "def ", "C = {}\ndef ", UR, "old, weight = C.setdefault((m, H, k.dtype), (old, weight)); " + UR),
 ("cached_first", "wrong", "def ", "C = []\ndef ", UR, "C.append(" + UR[7:] + "); return C[0]"),
 ("exp2", "wrong", "B, m, H", "slopes = slopes * 0.6931472; B, m, H"),
 ("one_minus", "wrong", "torch.exp(-m * slopes)", "(1 - slopes) ** m"),
 ("slope_min", "wrong", "B, m, H", "slopes = slopes.clamp(min=1e-3); B, m, H"),
 ("slope_max", "wrong", "B, m, H", "slopes = slopes.clamp(max=1); B, m, H"),
 ("eps_1e-6", "wrong", UR, UR + " + 1e-6"),
 ("eps_slopes", "wrong", "B, m, H", "slopes = slopes + 1e-5; B, m, H"),
 ("one_percent", "wrong", "k * weight", "1.01 * k * weight"),
 ("1e-4_old", "wrong", "old * state", "1.0001 * old * state"),
 ("tuple", "wrong", UR, UR + ", None"),
 ("last_token_missing", "wrong", UW, UW + "\n    weight = weight.clone(); weight[-1] = 0"),
 ("first_token_missing", "wrong", UW, UW + "\n    weight = weight.clone(); weight[0] = 0"),
 ("clamp_state", "wrong", UR, "return (" + UR[7:] + ").clamp(-10, 10)"),
 ("delta", "wrong", UE, 'torch.einsum("bjhd,bjhe->bhde", k * weight[:, :, None], v - torch.einsum("bjhd,bhde->bjhe", k, state))'),
 ("args_swapped", "wrong", "k, v, state, slopes", "v, k, state, slopes"),
 ("state_shape_square", "wrong", UR, "out = state.new_zeros(B, H, D, D); out += " + UR[7:] + "; return out"),
])

# ------------------------------------------------------------ 4.4
LA = '''
import torch
BLOCK = 64
def documents_of(ids):
    found, previous = [], None
    for position, number in enumerate(ids.tolist()):
        if number >= 0:
            if number != previous:
                found.append([])
            found[-1].append(position)
            previous = number
    return found
def intra_block(q, k, v, slopes):
    time = torch.arange(q.shape[1])
    distance = time[:, None] - time
    weights = torch.exp(-slopes[:, None, None] * distance.clamp(min=0)).tril().to(q.dtype)
    scores = torch.einsum("bihd,bjhd->bhij", q, k)
    return torch.einsum("bhij,bjhe->bihe", scores * weights, v)
def inter_block(q, state, slopes):
    i = torch.arange(q.shape[1])
    decay = torch.exp(-(i[:, None] + 1) * slopes).to(q.dtype)
    return torch.einsum("bihd,bhde->bihe", q * decay[:, :, None], state)
def update_state(k, v, state, slopes):
    m = k.shape[1]
    j = torch.arange(m)
    old = torch.exp(-m * slopes).to(k.dtype)[:, None, None]
    weight = torch.exp(-(m - 1 - j)[:, None] * slopes).to(k.dtype)
    return old * state + torch.einsum("bjhd,bjhe->bhde", k * weight[:, :, None], v)
def _blocks(q, k, v, slopes, state):
    outs = []
    for start in range(0, q.shape[1], BLOCK):
        qb, kb, vb = (x[:, start : start + BLOCK] for x in (q, k, v))
        outs.append(intra_block(qb, kb, vb, slopes) + inter_block(qb, state, slopes))
        state = update_state(kb, vb, state, slopes)
    return torch.cat(outs, dim=1), state
def lightning(q, k, v, slopes, *, state=None, document_ids=None):
    B, T, H, D = q.shape
    if state is None:
        state = q.new_zeros(B, H, D, v.shape[-1])
    if document_ids is None:
        return _blocks(q, k, v, slopes, state)
    out = q.new_zeros(B, T, H, v.shape[-1])
    ends = []
    for row in range(B):
        now = state[row : row + 1]
        for number, at in enumerate(documents_of(document_ids[row])):
            if number:
                now = torch.zeros_like(now)
            piece, now = _blocks(q[row : row + 1, at], k[row : row + 1, at], v[row : row + 1, at], slopes, now)
            out[row, at] = piece[0]
        ends.append(now)
    return out, torch.cat(ends)
'''
LN = "if number:\n                now = torch.zeros_like(now)"
LU = "state = update_state(kb, vb, state, slopes)"
LO = "outs.append(intra_block(qb, kb, vb, slopes) + inter_block(qb, state, slopes))"
LRET = "return torch.cat(outs, dim=1), state"
LE = "return out, torch.cat(ends)"
LB = "return _blocks(q, k, v, slopes, state)"
LP = "piece, now = _blocks(q[row : row + 1, at], k[row : row + 1, at], v[row : row + 1, at], slopes, now)"
fam("4.4", LA, [
 ("base", "right"),
 ("block_17", "right", "BLOCK = 64", "BLOCK = 17"),
 ("block_1", "right", "BLOCK = 64", "BLOCK = 1"),
 ("fp64_inside", "right", "B, T, H, D = q.shape", "if q.dtype != torch.float64:\n        o, s = lightning(q.double(), k.double(), v.double(), slopes.double(), state=None if state is None else state.double(), document_ids=document_ids)\n        return o.to(q.dtype), s.to(q.dtype)\n    B, T, H, D = q.shape"),
 ("block_128", "right", "BLOCK = 64", "BLOCK = 128"),
 # block walk
 ("update_before_read", "wrong", LO + "\n        " + LU, LU + "\n        " + LO),
 ("drops_last_block", "wrong", "range(0, q.shape[1], BLOCK)", "range(0, max(q.shape[1] // BLOCK, 1) * BLOCK, BLOCK)"),
 ("overlap_block", "wrong", "range(0, q.shape[1], BLOCK)", "range(0, q.shape[1], BLOCK - 1)"),
 ("pads_last_block", "wrong", "    outs = []\n    for start", "    T = q.shape[1]; pad = -T % BLOCK\n    q, k, v = (torch.nn.functional.pad(x, (0, 0, 0, 0, 0, pad)) for x in (q, k, v))\n    outs = []\n    for start", LRET, "return torch.cat(outs, dim=1)[:, :T], state"),
 ("state_never_updated", "wrong", "        " + LU + "\n", ""),
 ("state_restarts_each_block", "wrong", LU, "state = update_state(kb, vb, torch.zeros_like(state), slopes)"),
 ("old_decay_64", "wrong", "torch.exp(-m * slopes)", "torch.exp(-BLOCK * slopes)"),
 ("old_decay_m-1", "wrong", "torch.exp(-m * slopes)", "torch.exp(-(m - 1) * slopes)"),
 ("inter_i", "wrong", "(i[:, None] + 1)", "(i[:, None])"),
 ("keys_m-j", "wrong", "(m - 1 - j)", "(m - j)"),
 ("intra_only", "wrong", " + inter_block(qb, state, slopes)", ""),
 ("inter_only_after_first", "wrong", "inter_block(qb, state, slopes))", "(inter_block(qb, state, slopes) if start else 0))"),
 ("state_ignored_short", "wrong", "    outs = []\n    for start", "    if q.shape[1] <= BLOCK: state = torch.zeros_like(state)\n    outs = []\n    for start"),
 ("T1_fast_path_no_decay", "wrong", "    outs = []\n    for start", "    if q.shape[1] == 1:\n        state = state + torch.einsum('bhd,bhe->bhde', k[:, 0], v[:, 0])\n        return torch.einsum('bhd,bhde->bhe', q[:, 0], state)[:, None], state\n    outs = []\n    for start"),
 ("T1_squeezed", "wrong", LRET, "return torch.cat(outs, dim=1).squeeze(1), state"),
 ("T1_old_state", "wrong", LU, "state = update_state(kb, vb, state, slopes) if q.shape[1] > 1 else state"),
 ("last_block_no_update", "wrong", LU, "if start + BLOCK <= q.shape[1]: " + LU),
 ("exact_multiple_no_update", "wrong", LU, "if start + BLOCK != q.shape[1]: " + LU),
 ("state_detached_blocks", "wrong", LU, LU + ".detach()"),
 ("state_detached_return", "wrong", LRET, LRET + ".detach()"),
 ("state_in_detached", "wrong", "B, T, H, D = q.shape", "B, T, H, D = q.shape\n    state = None if state is None else state.detach()"),
 ("no_grad", "wrong", "def lightning", "@torch.no_grad()\ndef lightning"),
 ("half_state", "wrong", LU, LU + ".half().to(q.dtype)"),
 ("bf16_state", "wrong", LU, LU + ".bfloat16().to(q.dtype)"),
 ("bf16_scores", "wrong", '"bihd,bjhd->bhij", q, k)', '"bihd,bjhd->bhij", q.bfloat16(), k.bfloat16()).to(q.dtype)'),
 ("fp32_state", "wrong", LU, LU + ".float().to(q.dtype)"),
 ("fp32_zeros", "wrong", "state = q.new_zeros(B, H, D, v.shape[-1])", "state = torch.zeros(B, H, D, v.shape[-1])"),
 ("fp64_state_returned", "wrong", LRET, LRET + ".double()"),
 ("inplace_state", "wrong", LU, "state.mul_(torch.exp(-kb.shape[1] * slopes).to(q.dtype)[:, None, None]).add_(update_state(kb, vb, torch.zeros_like(state), slopes))"),
 ("inplace_state_T1", "wrong", LU, "if q.shape[1] == 1: state.data.copy_(update_state(kb, vb, state, slopes).data)\n        else: " + LU),
 ("copy_back_state", "wrong", "    if document_ids is None:\n        " + LB, "    if document_ids is None:\n        out, end = _blocks(q, k, v, slopes, state)\n        state.data.copy_(end.data)\n        return out, end"),
 ("swapped", "wrong", LRET, "return state, torch.cat(outs, dim=1)", LP, LP.replace("piece, now", "now, piece")),
 ("swapped_docs", "wrong", LE, "return torch.cat(ends), out"),
 ("only_out", "wrong", LB, LB + "[0]"),
 ("state_ignored_always", "wrong", "if state is None:", "if True:"),
 ("state_ignored_with_docs", "wrong", "if state is None:", "if state is None or document_ids is not None:"),
 ("docs_ignored", "wrong", "if document_ids is None:", "if True:"),
 ("docs_ignored_if_state", "wrong", "if document_ids is None:", "if document_ids is None or state.abs().sum() > 0:"),
 ("docs_ignored_T1", "wrong", "if document_ids is None:", "if document_ids is None or T == 1:"),
 ("all_docs_get_state", "wrong", LN, "now = state[row : row + 1]"),
 ("no_reset", "wrong", LN, "pass"),
 ("first_doc_from_zero", "wrong", LN, "now = torch.zeros_like(now)"),
 ("state_row0", "wrong", "now = state[row : row + 1]", "now = state[:1]"),
 ("last_row_end", "wrong", LE, "return out, ends[-1].expand(B, -1, -1, -1)"),
 ("first_doc_end", "wrong", "ends.append(now)", "ends.append(now)", LP, LP + "\n            if number == 0: first = now", "ends.append(now)", "ends.append(first)"),
 ("first_doc_end2", "wrong", LP, LP + "\n            first = now if number == 0 else first", "now = state[row : row + 1]\n", "now = first = state[row : row + 1]\n", "ends.append(now)", "ends.append(first)"),
 ("zero_end_if_padding_last", "wrong", "ends.append(now)", "ends.append(now if document_ids[row, -1] >= 0 else torch.zeros_like(now))"),
 ("all_pad_zero", "wrong", "ends.append(now)", "ends.append(now if (document_ids[row] >= 0).any() else torch.zeros_like(now))"),
 ("all_pad_decays", "wrong", "ends.append(now)", "ends.append(now if (document_ids[row] >= 0).any() else now * torch.exp(-slopes * T).to(q.dtype)[:, None, None])"),
 ("pad_end_decays", "wrong", "ends.append(now)", "n = 0\n        while n < T and document_ids[row, T - 1 - n] < 0: n += 1\n        ends.append(now * torch.exp(-slopes * n).to(q.dtype)[:, None, None])"),
 ("pad_begin_decays", "wrong", "now = state[row : row + 1]\n", "now = state[row : row + 1]\n        n = 0\n        while n < T and document_ids[row, n] < 0: n += 1\n        now = now * torch.exp(-slopes * (n if n < T else 0)).to(q.dtype)[:, None, None]\n"),
 ("pad_middle_breaks_doc", "wrong", "if number >= 0:", "if number < 0: previous = None\n        if number >= 0:"),
 ("pad_middle_decays", "wrong", LP, "full = list(range(at[0], at[-1] + 1)); m_ = torch.tensor([1.0 if x in at else 0.0 for x in full], dtype=q.dtype)[None, :, None, None]\n            piece, now = _blocks(q[row : row + 1, full] * m_, k[row : row + 1, full] * m_, v[row : row + 1, full] * m_, slopes, now); piece = piece[:, [x - at[0] for x in at]]"),
 ("set_of_ids", "wrong", "def intra_block", "def documents_of(ids):\n    return [(ids == n).nonzero().flatten().tolist() for n in ids.unique().tolist() if n >= 0]\ndef intra_block"),
 ("sorted_unique_consecutive_ok", "right", "def intra_block", "def documents_of(ids):\n    keep = (ids >= 0).nonzero().flatten()\n    if not len(keep): return []\n    _, n = ids[keep].unique_consecutive(return_counts=True)\n    return [x.tolist() for x in keep.split(n.tolist())]\ndef intra_block"),
 ("id0_is_padding", "wrong", "if number >= 0:", "if number > 0:"),
 ("pad_is_document", "wrong", "if number >= 0:", "if True:"),
 ("pad_output_v", "wrong", "out = q.new_zeros(B, T, H, v.shape[-1])", "out = v.clone()"),
 ("pad_output_q_shape", "wrong", "out = q.new_zeros(B, T, H, v.shape[-1])", "out = torch.zeros_like(q)"),
 ("pad_output_empty", "wrong", "out = q.new_zeros(B, T, H, v.shape[-1])", "out = q.new_full((B, T, H, v.shape[-1]), 1e-3)"),
 ("pad_reads_state", "wrong", LE, "pad = document_ids < 0; reads = torch.einsum('bthd,bhde->bthe', q, state); out = torch.where(pad[..., None, None], reads, out); " + LE),
 ("ids_row0_for_all", "wrong", "document_ids[row]", "document_ids[0]"),
 ("slices_first_last", "wrong", LP, "at = list(range(at[0], at[-1] + 1)); " + LP),
 ("out_concat_order", "wrong", "out[row, at] = piece[0]", "out[row, :len(at)] = piece[0]"),
 ("doc_restart_at_block_only", "wrong", LP, "at = [x for x in at]; piece, now = _blocks(q[row : row + 1, at], k[row : row + 1, at], v[row : row + 1, at], slopes, now if len(at) < 10**9 else now)", "BLOCK = 64", "BLOCK = 64 ", LN, "if number and at[0] % BLOCK == 0:\n                now = torch.zeros_like(now)"),
 ("long_doc_truncated", "wrong", LP, "at = at[-128:]; " + LP),
 ("single_token_doc", "wrong", "documents_of(document_ids[row])):", "documents_of(document_ids[row])):\n            if len(at) == 1 and number: continue"),
 ("doc_out_detached", "wrong", "out[row, at] = piece[0]", "out[row, at] = piece[0].detach()"),
 ("doc_out_data", "wrong", "out[row, at] = piece[0]", "out.data[row, at] = piece[0].data"),
 ("doc_state_detached", "wrong", "ends.append(now)", "ends.append(now.detach())"),
 ("doc_inplace_state", "wrong", "ends.append(now)", "ends.append(now)", LE, "state.data.copy_(torch.cat(ends).data); " + LE),
 ("doc_state_stack_dim", "wrong", "torch.cat(ends)", "torch.stack(ends)"),
 ("doc_scale", "wrong", "out[row, at] = piece[0]", "out[row, at] = piece[0] * D ** -0.5"),
 ("cached_docs", "wrong", "def _blocks", "C = {}\ndef _blocks", "enumerate(documents_of(document_ids[row]))", "enumerate(C.setdefault((row, T), documents_of(document_ids[row])))"),
 ("cached_weights_m", "wrong", "def intra_block", "C = {}\ndef intra_block", "    scores = torch", "    weights = C.setdefault((len(time), len(slopes), q.dtype), weights)\n    scores = torch"),
 ("cached_zero_state", "wrong", "def _blocks", "C = {}\ndef _blocks", "state = q.new_zeros(B, H, D, v.shape[-1])", "state = C.setdefault((B, H, D), q.new_zeros(B, H, D, v.shape[-1]))"),
 ("global_kv_cache", "wrong", "def _blocks", "C = {}\ndef _blocks", "state = q.new_zeros(B, H, D, v.shape[-1])", "state = C.get('s', q.new_zeros(B, H, D, v.shape[-1])) if T == 1 else q.new_zeros(B, H, D, v.shape[-1])"),
 ("unclamped_times_mask", "wrong", "torch.exp(-slopes[:, None, None] * distance.clamp(min=0)).tril()", "(torch.exp(-slopes[:, None, None] * distance) * (distance >= 0))"),
 ("growing_keys", "wrong", "torch.exp(-(m - 1 - j)[:, None] * slopes)", "(torch.exp(j[:, None] * slopes) * torch.exp(-(m - 1) * slopes))"),
 ("scale", "wrong", LRET, "return torch.cat(outs, dim=1) * q.shape[-1] ** -0.5, state"),
 ("quadratic_only", "right", "BLOCK = 64", "BLOCK = 1_000_000_000"),
 ("flipped_heads", "wrong", "B, T, H, D = q.shape", "B, T, H, D = q.shape; slopes = slopes.flip(0)"),
 ("mean_state_batch", "wrong", "state = update_state(kb, vb, state, slopes)", "state = update_state(kb, vb, state, slopes).mean(0, keepdim=True).expand(q.shape[0], -1, -1, -1)"),
 ("batch1_docs_only", "wrong", "if document_ids is None:", "if document_ids is not None: document_ids = document_ids[:1].expand(B, -1)\n    if document_ids is None:"),
 ("single_doc_shortcut_padding", "wrong", "if document_ids is None:", "if document_ids is None or len(document_ids.unique()) <= 1:"),
 ("shortcut_max0", "wrong", "if document_ids is None:", "if document_ids is None or document_ids.max() == 0:"),
 ("shortcut_first_equals_last", "wrong", "if document_ids is None:", "if document_ids is None or (document_ids[:, 0] == document_ids[:, -1]).all():"),
 ("reset_when_state_none_only", "wrong", "if number:\n", "if number and state.abs().sum() == 0:\n"),
 ("state_second_doc_if_first_short", "wrong", "if number:\n", "if number and at[0] > 1:\n"),
 ("one_percent", "wrong", LRET, "return torch.cat(outs, dim=1) * 1.01, state"),
 ("skip_64", "wrong", LU, LU + " * (1.0001)"),
 ("window_two_blocks", "wrong", LU, "state = update_state(kb, vb, update_state(*(x[:, max(start - BLOCK, 0):start] for x in (k, v)), torch.zeros_like(state), slopes) if start >= 2 * BLOCK else state, slopes)"),
 ("block_len_fixed_intra", "wrong", "time = torch.arange(q.shape[1])", "time = torch.arange(min(q.shape[1], 64))"),
 ("positional_state", "wrong", "slopes, *, state=None, document_ids=None", "slopes, state=None, document_ids=None"),
 ("doc_ids_first_positional", "wrong", "slopes, *, state=None, document_ids=None", "slopes, document_ids=None, *, state=None"),
 ("doc_ids_mutated", "wrong", LE, "document_ids[document_ids < 0] = 0; " + LE),
 ("docs_by_id_zero_restarts", "wrong", "found, previous = [], None", "found, previous = [], 0", "found.append([])\n            found[-1]", "found.append([])\n            if not found: found.append([])\n            found[-1]"),
 ("alias_state_returned", "wrong", "ends.append(now)", "ends.append(now)", LE, "return out, torch.cat(ends) if any(len(documents_of(r)) for r in document_ids) else state"),
 ("expects_contiguous_ids_sorted", "wrong", "if number != previous:", "if previous is None or number > previous:"),
 ("wrong_last_state_padded_batch", "wrong", LE, "if (document_ids < 0).any(): ends = [e * 0 for e in ends]\n    " + LE),
])
add("4.4", "token_loop_no_blocks", "right", '''
import torch
def lightning(q, k, v, slopes, *, state=None, document_ids=None):
    B, T, H, D = q.shape
    lam = torch.exp(-slopes).to(q.dtype)[:, None, None]
    S = q.new_zeros(B, H, D, v.shape[-1]) if state is None else state
    out = []
    if document_ids is None:
        document_ids = torch.zeros(B, T, dtype=torch.long)
    last = [None] * B
    for t in range(T):
        new_S, o = [], []
        for b in range(B):
            d = int(document_ids[b, t])
            s = S[b]
            if d < 0:
                new_S.append(s); o.append(torch.zeros_like(v[b, t])); continue
            if last[b] is not None and last[b] != d:
                s = torch.zeros_like(s)
            last[b] = d
            s = lam * s + k[b, t].unsqueeze(-1) * v[b, t].unsqueeze(-2)
            new_S.append(s); o.append((q[b, t].unsqueeze(-2) @ s).squeeze(-2))
        S = torch.stack(new_S); out.append(torch.stack(o))
    return torch.stack(out, 1), S
''')
add("4.4", "masked_packed_quadratic", "right", '''
import torch
def lightning(q, k, v, slopes, *, state=None, document_ids=None):
    B, T, H, D = q.shape
    dtype = q.dtype
    if state is None:
        state = torch.zeros(B, H, D, v.shape[-1], dtype=dtype)
    if document_ids is None:
        document_ids = torch.zeros(B, T, dtype=torch.long)
    real = document_ids >= 0
    count = real.long().cumsum(1)                     # tokens so far, itself included
    run = torch.full((B, T), -1)
    for b in range(B):
        n, prev = -1, None
        for t in range(T):
            d = int(document_ids[b, t])
            if d >= 0:
                if d != prev:
                    n += 1
                prev = d
                run[b, t] = n
    s = slopes.to(dtype)
    dist = count[:, :, None] - count[:, None, :]
    same = (run[:, :, None] == run[:, None, :]) & real[:, :, None] & real[:, None, :] & torch.ones(T, T).tril().bool()
    w = torch.where(same[:, None], torch.exp(-s[None, :, None, None] * dist.clamp(min=0)[:, None]), torch.zeros((), dtype=dtype))
    out = torch.einsum("bihd,bjhd,bhij,bjhe->bihe", q, k, w, v)
    first = (run == 0)
    out = out + torch.einsum("bihd,bih,bhde->bihe", q, torch.exp(-s * count[:, :, None]) * first[:, :, None], state)
    last = run.max(1).values
    mine = (run == last[:, None]) & real
    ew = torch.exp(-s * (count[:, -1:] - count).clamp(min=0)[:, :, None]) * mine[:, :, None]
    end = torch.einsum("bjhd,bjh,bjhe->bhde", k, ew, v)
    keep = (last <= 0)
    end = end + torch.exp(-s * count[:, -1:])[:, :, None, None] * state * keep[:, None, None, None]
    return out, end
''')

# ------------------------------------------------------------ 4.5
CF = '''
import torch
def continue_from(out, end, q, slopes, state):
    m = q.shape[1]
    i = torch.arange(m, device=q.device)
    decay = torch.exp(-(i[:, None] + 1) * slopes).to(q.dtype)
    reads = torch.einsum("bihd,bhde->bihe", q * decay[:, :, None], state)
    old = torch.exp(-m * slopes).to(q.dtype)[:, None, None]
    return out + reads, end + old * state
'''
CD = "decay = torch.exp(-(i[:, None] + 1) * slopes).to(q.dtype)"
CO = "old = torch.exp(-m * slopes).to(q.dtype)[:, None, None]"
CR = "return out + reads, end + old * state"
CE = 'reads = torch.einsum("bihd,bhde->bihe", q * decay[:, :, None], state)'
fam("4.5", CF, [
 ("base", "right"),
 ("loop", "right", CR, "lam = torch.exp(-slopes).to(q.dtype)[:, None, None]\n    S, pieces = state, []\n    for t in range(m):\n        S = S * lam\n        pieces.append(out[:, t] + (q[:, t, :, None] @ S).squeeze(2))\n    return torch.stack(pieces, 1), end + S"),
 ("fp64", "right", CR, "q2, s2 = q.double(), slopes.double()\n    reads = torch.einsum('bihd,ih,bhde->bihe', q2, torch.exp(-(i[:, None] + 1) * s2), state.double())\n    return (out.double() + reads).to(out.dtype), (end.double() + torch.exp(-m * s2).view(-1, 1, 1) * state.double()).to(end.dtype)"),
 ("cumprod_last", "right", CD, "decay = torch.exp(-slopes).to(q.dtype).expand(m, -1).cumprod(0)", CO, "old = decay[-1][:, None, None]"),
 ("matmul_clone", "right", CR, "o, e = out.clone(), end.clone()\n    o += ((q * decay[:, :, None]).transpose(1, 2) @ state).transpose(1, 2)\n    e += old * state\n    return o, e"),
 ("exponent_i", "wrong", "i[:, None] + 1", "i[:, None]"),
 ("exponent_i2", "wrong", "i[:, None] + 1", "i[:, None] + 2"),
 ("exponent_rev", "wrong", "(i[:, None] + 1)", "(m - i[:, None])"),
 ("no_decay_read", "wrong", "q * decay[:, :, None]", "q"),
 ("end_m-1", "wrong", "-m * slopes", "-(m - 1) * slopes"),
 ("end_m+1", "wrong", "-m * slopes", "-(m + 1) * slopes"),
 ("end_1", "wrong", "-m * slopes", "-slopes"),
 ("end_nodecay", "wrong", "old * state", "state"),
 ("end_unchanged", "wrong", "end + old * state", "end"),
 ("out_unchanged", "wrong", "out + reads", "out"),
 ("end_only_state", "wrong", "end + old * state", "old * state"),
 ("out_only_reads", "wrong", "out + reads", "reads"),
 ("end_also_decayed", "wrong", "end + old * state", "old * (end + state)"),
 ("end_decayed_state_not", "wrong", "end + old * state", "old * end + state"),
 ("end_64", "wrong", "-m * slopes", "-64 * slopes"),
 ("swapped", "wrong", CR, "return end + old * state, out + reads"),
 ("reads_from_end", "wrong", "None], state)", "None], end)"),
 ("reads_state_plus_end", "wrong", "None], state)", "None], state + end)"),
 ("reads_old_state", "wrong", "None], state)", "None], old * state)") if False else ("reads_mended", "wrong", CE + "\n    " + CO, CO + '\n    reads = torch.einsum("bihd,bhde->bihe", q * decay[:, :, None], end + old * state)'),
 ("m_from_batch", "wrong", "-m * slopes", "-q.shape[0] * slopes"),
 ("m_from_heads", "wrong", "-m * slopes", "-q.shape[2] * slopes"),
 ("axis_last", "wrong", "q.dtype)[:, None, None]", "q.dtype)"),
 ("axis_key", "wrong", "q.dtype)[:, None, None]", "q.dtype)[:, None]"),
 ("transposed", "wrong", "bhde->bihe", "bhed->bihe"),
 ("inplace_out", "wrong", CR, "out += reads; return out, end + old * state"),
 ("inplace_end", "wrong", CR, "end += old * state; return out + reads, end"),
 ("inplace_out_data", "wrong", CR, "out.data.add_(reads.data); return out, end + old * state"),
 ("inplace_end_data", "wrong", CR, "end.data.add_((old * state).data); return out + reads, end"),
 ("inplace_state", "wrong", CR, "state.data.mul_(old); return out + reads, end + state"),
 ("inplace_q", "wrong", CE, "q.data.mul_(decay[:, :, None]); reads = torch.einsum('bihd,bhde->bihe', q, state)"),
 ("detach_state", "wrong", "old * state", "old * state.detach()"),
 ("detach_state_read", "wrong", "None], state)", "None], state.detach())"),
 ("detach_out", "wrong", "out + reads", "out.detach() + reads"),
 ("detach_end", "wrong", "end + old", "end.detach() + old"),
 ("detach_q", "wrong", "q * decay", "q.detach() * decay"),
 ("no_grad", "wrong", "def ", "@torch.no_grad()\ndef "),
 ("row0", "wrong", "old * state", "old * state[:1]"),
 ("row0_read", "wrong", "None], state)", "None], state[:1].expand_as(state))"),
 ("head_flip", "wrong", "m = q.shape[1]", "m = q.shape[1]; slopes = slopes.flip(0)"),
 ("head_flip_end", "wrong", "-m * slopes", "-m * slopes.flip(0)"),
 ("scale", "wrong", "out + reads", "out + reads * q.shape[-1] ** -0.5"),
 ("half_read", "wrong", CE, CE + ".half().to(q.dtype)"),
 ("bf16_state", "wrong", "old * state", "old * state.bfloat16().to(q.dtype)"),
 ("bf16_old", "wrong", "-m * slopes)", "-m * slopes).bfloat16()"),
 ("half_decay", "wrong", "(i[:, None] + 1) * slopes)", "(i[:, None] + 1) * slopes).half()"),
 ("fp64", "wrong", CR, "return (out + reads).double(), end + old * state"),
 ("fp64_end", "wrong", CR, "return out + reads, (end + old * state).double()"),
 ("fp32_out", "wrong", CR, "return (out + reads).float(), (end + old * state).float()"),
 ("fp32_inside", "wrong", CE, CE + ".float().to(q.dtype)"),
 ("m1_no_decay", "wrong", CO, CO + "\n    if m == 1: old = torch.ones_like(old)"),
 ("m1_nothing", "wrong", "m = q.shape[1]", "m = q.shape[1]\n    if m == 1: return out, end"),
 ("m64_edge", "wrong", "-m * slopes", "-min(m, 64) * slopes"),
 ("m128_edge", "wrong", "-m * slopes", "-min(m, 128) * slopes"),
 ("cached", "wrong", "def ", "C = {}\ndef ", CE, "decay = C.setdefault((m, len(slopes), q.dtype), decay); " + CE),
 ("cached_old", "wrong", "def ", "C = {}\ndef ", CR, "old = C.setdefault((m, len(slopes), q.dtype), old); " + CR),
 ("exp2", "wrong", "m = q.shape[1]", "m = q.shape[1]; slopes = slopes * 0.69315"),
 ("one_minus", "wrong", "torch.exp(-m * slopes)", "(1 - slopes) ** m"),
 ("linear", "wrong", "torch.exp(-m * slopes)", "m * torch.exp(-slopes)"),
 ("clamp_10", "wrong", "torch.exp(-m * slopes)", "torch.exp((-m * slopes).clamp(min=-10))"),
 ("clamp_20", "wrong", "torch.exp(-m * slopes)", "torch.exp((-m * slopes).clamp(min=-20))"),
 ("clamp_5", "wrong", "torch.exp(-m * slopes)", "torch.exp((-m * slopes).clamp(min=-5))"),
 ("slope_min", "wrong", "m = q.shape[1]", "m = q.shape[1]; slopes = slopes.clamp(min=1e-3)"),
 ("eps", "wrong", "end + old", "1e-6 + end + old"),
 ("eps_slope", "wrong", "m = q.shape[1]", "m = q.shape[1]; slopes = slopes + 1e-5"),
 ("one_percent", "wrong", "old * state", "1.01 * old * state"),
 ("1e-4", "wrong", "out + reads", "out + 1.0001 * reads"),
 ("only_out", "wrong", CR, "return out + reads"),
 ("if_state_any", "wrong", "m = q.shape[1]", "m = q.shape[1]\n    if not out.any(): return out, end"),
 ("out_like_q", "wrong", CR, "new = torch.zeros_like(q); new += out + reads; return new, end + old * state"),
 ("end_from_last_read", "wrong", "end + old * state", "end + decay[-2 if m > 1 else -1][:, None, None] * state"),
 ("list", "wrong", CR, "return [out + reads, end + old * state]"),
 ("subtract", "wrong", "out + reads", "out - reads"),
])

# ------------------------------------------------------------ 4.6
CB = '''
import torch
def combine(first, second):
    (sa, da), (sb, db) = first, second
    return db[:, None, None] * sa + sb, da * db
'''
CBR = "return db[:, None, None] * sa + sb, da * db"
fam("4.6", CB, [
 ("base", "right"),
 ("einsum", "right", CBR, 'return torch.einsum("h,bhde->bhde", second[1], first[0]) + second[0], torch.stack([da, db]).prod(0)'),
 ("loop_heads", "right", CBR, "out = sb.clone()\n    for h in range(len(db)):\n        out[:, h] = out[:, h] + db[h] * sa[:, h]\n    return out, db * da"),
 ("fp64", "right", CBR, "return (db.double().view(1, -1, 1, 1) * sa.double() + sb.double()).to(sa.dtype), (da.double() * db.double()).to(da.dtype)"),
 ("addcmul", "right", CBR, "return torch.addcmul(sb, sa, db.reshape(-1, 1, 1).expand_as(sa)), da * db"),
 ("movedim", "right", CBR, "return (sa.movedim(1, -1) * db).movedim(-1, 1) + sb, da.mul(db)"),
 ("list_returned", "wrong", CBR, "return [db[:, None, None] * sa + sb, da * db]"),
 ("exp_sum_logs", "wrong", CBR, "return db[:, None, None] * sa + sb, torch.exp(da.log() + db.log())"),
 ("first_decay", "wrong", "db[:, None, None] * sa", "da[:, None, None] * sa"),
 ("decays_second", "wrong", "db[:, None, None] * sa + sb", "sa + da[:, None, None] * sb"),
 ("decays_second_db", "wrong", "db[:, None, None] * sa + sb", "sa + db[:, None, None] * sb"),
 ("decays_both", "wrong", "db[:, None, None] * sa + sb", "db[:, None, None] * (sa + sb)"),
 ("decays_product", "wrong", "db[:, None, None] * sa", "(da * db)[:, None, None] * sa"),
 ("each_own", "wrong", "db[:, None, None] * sa + sb", "da[:, None, None] * sa + db[:, None, None] * sb"),
 ("no_decay", "wrong", "db[:, None, None] * sa + sb", "sa + sb"),
 ("decay_sum", "wrong", "da * db", "da + db"),
 ("decay_first_only", "wrong", "da * db", "da"),
 ("decay_second_only", "wrong", "da * db", "db"),
 ("decay_mean", "wrong", "da * db", "(da + db) / 2"),
 ("decay_sqrt", "wrong", "da * db", "(da * db).sqrt()"),
 ("decay_square", "wrong", "da * db", "da * da"),
 ("axis_last", "wrong", "db[:, None, None] * sa", "db * sa"),
 ("axis_key", "wrong", "db[:, None, None] * sa", "db[:, None] * sa"),
 ("axis_batch", "wrong", "db[:, None, None] * sa", "db[:, None, None, None] * sa"),
 ("exp_of_decay", "wrong", "db[:, None, None] * sa", "torch.exp(-db)[:, None, None] * sa"),
 ("log_added", "wrong", "db[:, None, None] * sa", "torch.exp(db)[:, None, None] * sa"),
 ("swapped_pair", "wrong", CBR, "return da * db, db[:, None, None] * sa + sb"),
 ("swapped_args", "wrong", "= first, second", "= second, first"),
 ("second_lost", "wrong", " + sb", ""),
 ("first_lost", "wrong", "db[:, None, None] * sa + sb", "sb"),
 ("product_states", "wrong", "sa + sb", "sa @ sb.mT @ sb"),
 ("minus", "wrong", "sa + sb", "sa - sb"),
 ("inplace_second", "wrong", CBR, "sb += db[:, None, None] * sa; return sb, da * db"),
 ("inplace_first", "wrong", CBR, "sa *= db[:, None, None]; return sa + sb, da * db"),
 ("inplace_decay", "wrong", CBR, "new = db[:, None, None] * sa + sb; da *= db; return new, da"),
 ("inplace_decay_b", "wrong", CBR, "new = db[:, None, None] * sa + sb; db *= da; return new, db"),
 ("inplace_data", "wrong", CBR, "sb.data.add_((db[:, None, None] * sa).data); return sb, da * db"),
 ("detach_first", "wrong", "* sa", "* sa.detach()"),
 ("detach_second", "wrong", "+ sb", "+ sb.detach()"),
 ("detach_decay", "wrong", "da * db", "(da * db).detach()"),
 ("detach_db", "wrong", "db[:", "db.detach()[:"),
 ("no_grad", "wrong", "def ", "@torch.no_grad()\ndef "),
 ("row0", "wrong", "* sa", "* sa[:1]"),
 ("row0_second", "wrong", "+ sb", "+ sb[:1]"),
 ("head_flip", "wrong", "db[:, None", "db.flip(0)[:, None"),
 ("head0", "wrong", "db[:, None, None]", "db[0]"),
 ("head_mean", "wrong", "db[:, None, None]", "db.mean()"),
 ("transposed", "wrong", CBR, "return (db[:, None, None] * sa + sb).mT, da * db"),
 ("half", "wrong", "* sa", "* sa.half().to(sa.dtype)"),
 ("bf16", "wrong", "+ sb", "+ sb.bfloat16().to(sa.dtype)"),
 ("bf16_decay", "wrong", "da * db", "(da * db).bfloat16().to(da.dtype)"),
 ("bf16_db", "wrong", "db[:, None, None]", "db.bfloat16().to(db.dtype)[:, None, None]"),
 ("half_decay", "wrong", "da * db", "(da * db).half().to(da.dtype)"),
 ("fp64", "wrong", CBR, "return (db[:, None, None] * sa + sb).double(), da * db"),
 ("fp64_decay", "wrong", "da * db", "(da * db).double()"),
 ("fp32", "wrong", CBR, "return (db[:, None, None] * sa + sb).float(), (da * db).float()"),
 ("fp32_inside", "wrong", CBR, "return (db[:, None, None] * sa + sb).float().to(sa.dtype), da * db"),
 ("decay_clamp", "wrong", "da * db", "(da * db).clamp(min=1e-6)"),
 ("decay_clamp_1e-3", "wrong", "da * db", "(da * db).clamp(min=1e-3)"),
 ("db_clamp", "wrong", "db[:, None, None]", "db.clamp(min=1e-4)[:, None, None]"),
 ("decay_shape", "wrong", "da * db", "(da * db)[:, None, None]"),
 ("decay_prod_all", "wrong", "da * db", "torch.outer(da, db)"),
 ("decay_outer_diag_wrong", "wrong", "da * db", "da * db.prod()"),
 ("eps", "wrong", "sa + sb", "sa + sb + 1e-6"),
 ("eps_decay", "wrong", "da * db", "da * db + 1e-8"),
 ("one_percent", "wrong", "* sa", "* sa * 1.01"),
 ("1e-4", "wrong", "* sa", "* sa * 1.0001"),
 ("cached", "wrong", "def ", "C = {}\ndef ", CBR, "return C.setdefault(sa.shape, (db[:, None, None] * sa + sb, da * db))"),
 ("cached_decay", "wrong", "def ", "C = {}\ndef ", CBR, "return db[:, None, None] * sa + sb, C.setdefault(len(da), da * db)"),
 ("identity_if_zero_state", "wrong", "    return", "    if not sa.any(): return sb, db\n    return"),
 ("identity_if_zero_second", "wrong", "    return", "    if not sb.any(): return sa, da\n    return"),
 ("identity_one_decay", "wrong", "    return", "    if (db == 1).any(): return sa, da * db\n    return"),
 ("symmetrised", "wrong", "db[:, None, None] * sa + sb", "0.5 * (db[:, None, None] * sa + sb + sa + da[:, None, None] * sb)"),
 ("only_state", "wrong", CBR, "return db[:, None, None] * sa + sb"),
 ("normalised", "wrong", "db[:, None, None] * sa + sb", "(db[:, None, None] * sa + sb) / (1 + db[:, None, None])"),
 ("alias_second", "wrong", CBR, "sb = sb.clone(); sb.add_(db[:, None, None] * sa); second[1].mul_(da); return sb, second[1]"),
 ("ema", "wrong", "db[:, None, None] * sa + sb", "db[:, None, None] * sa + (1 - db[:, None, None]) * sb"),
])
