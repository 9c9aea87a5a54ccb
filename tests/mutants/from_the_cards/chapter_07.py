"""Chapter 07."""

from tests.mutants.from_the_cards import Cards

MUTANTS = Cards()
add, fam = MUTANTS.add, MUTANTS.family

# ------------------------------------------------------------ 7.1
ROUTER = '''
import torch
def router(logits, k, *, replay=None):
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    logits = logits.to(dtype)
    ids = logits.topk(k, dim=-1).indices if replay is None else replay
    weights = torch.softmax(logits.gather(1, ids), dim=-1)
    return weights, ids
'''
RD = "dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32"
RL = "logits = logits.to(dtype)"
RI = "ids = logits.topk(k, dim=-1).indices if replay is None else replay"
RS = "weights = torch.softmax(logits.gather(1, ids), dim=-1)"
RR = "return weights, ids"
fam("7.1", ROUTER, [
 ("base", "right"),
 ("smallest_first", "right", RI, RI.replace(".indices", ".indices.flip(-1)")),
 ("argsort", "right", RI, "ids = logits.argsort(-1, descending=True)[:, :k] if replay is None else replay"),
 ("argsort_rising", "right", RI, "ids = logits.argsort(-1)[:, -k:] if replay is None else replay"),
 ("ids_sorted", "right", RI, "ids = logits.topk(k).indices.sort(-1).values if replay is None else replay"),
 ("argmax_repeated", "right", RI, "rest, ids = logits.detach().clone(), []\n    for _ in range(k):\n        ids.append(rest.argmax(-1, keepdim=True)); rest.scatter_(1, ids[-1], float('-inf'))\n    ids = torch.cat(ids, 1) if replay is None else replay"),
 ("rank_by_counting", "right", RI, "better = (logits[:, None, :] > logits[:, :, None]).sum(-1); ids = (better < k).nonzero()[:, 1].view(-1, k) if replay is None else replay"),
 ("rows_in_a_loop", "right", RS, "weights = torch.stack([row[i].softmax(0) for row, i in zip(logits, ids)])"),
 ("fp64_inside", "right", RL, "logits = logits.double()", RR, "return weights.to(dtype), ids"),
 ("exp_minus_max", "right", RS, "chosen = torch.take_along_dim(logits, ids, 1); e = (chosen - chosen.max(-1, keepdim=True).values).exp(); weights = e / e.sum(-1, keepdim=True)"),
 ("masked_softmax", "right", RS, "keep = torch.zeros_like(logits, dtype=torch.bool).scatter(1, ids, True); weights = logits.masked_fill(~keep, float('-inf')).softmax(-1).gather(1, ids)"),
 ("logaddexp_loop", "right", RS, "c = logits[torch.arange(len(ids))[:, None], ids].double(); lse = c[:, 0]\n    for j in range(1, c.shape[1]): lse = torch.logaddexp(lse, c[:, j])\n    weights = (c - lse[:, None]).exp().to(dtype)"),
 ("probabilities_if_not_replay", "right", RS, "if replay is None:\n        p = logits.softmax(-1).gather(1, ids); return p / p.sum(-1, keepdim=True), ids\n    " + RS),
 ("list_choice", "right", RI, "ids = torch.tensor([sorted(range(logits.shape[1]), key=row.__getitem__)[-k:] for row in logits.tolist()]) if replay is None else replay"),
 ("onehot_products", "right", RS, "hot = torch.nn.functional.one_hot(ids, logits.shape[1]).to(dtype); weights = torch.einsum('nke,ne->nk', hot, logits).softmax(1)"),
 ("not_renormalised", "wrong", RS, "weights = logits.softmax(-1).gather(1, ids)"),
 ("divided_by_k", "wrong", RS, "weights = logits.softmax(-1).gather(1, ids); weights = weights / k"),
 ("equal_weights", "wrong", RS, "weights = torch.full(ids.shape, 1 / k, dtype=dtype) + 0 * logits.gather(1, ids)"),
 ("sigmoid", "wrong", RS, "weights = logits.gather(1, ids).sigmoid(); weights = weights / weights.sum(-1, keepdim=True)"),
 ("sigmoid_each", "wrong", RS, "weights = logits.gather(1, ids).sigmoid()"),
 ("logits_as_weights", "wrong", RS, "weights = logits.gather(1, ids); weights = weights / weights.sum(-1, keepdim=True)"),
 ("softmax_tokens", "wrong", "ids), dim=-1)", "ids), dim=0)"),
 ("softmax_all_tokens", "wrong", RS, "p = logits.softmax(0).gather(1, ids); weights = p / p.sum(-1, keepdim=True)"),
 ("softmax_twice", "wrong", RS, "weights = logits.softmax(-1).gather(1, ids).softmax(-1)"),
 ("softmax_twice_chosen", "wrong", RS, RS + ".softmax(-1)"),
 ("l2_normalised", "wrong", RS, "weights = torch.nn.functional.normalize(logits.softmax(-1).gather(1, ids), dim=-1)"),
 ("divided_by_largest", "wrong", RS, RS + "; weights = weights / weights.amax(-1, keepdim=True)"),
 ("sum_of_all_tokens", "wrong", RS, "p = logits.softmax(-1).gather(1, ids); weights = p / p.sum()"),
 ("temperature_2", "wrong", "softmax(logits.gather(1, ids)", "softmax(logits.gather(1, ids) / 2"),
 ("scaled_sqrt_E", "wrong", "softmax(logits.gather(1, ids)", "softmax(logits.gather(1, ids) / logits.shape[1] ** 0.5"),
 ("base_2", "wrong", RS, RS.replace("logits.gather(1, ids)", "logits.gather(1, ids) * 0.6931472")),
 ("log_weights", "wrong", RS, RS.replace("softmax", "log_softmax")),
 ("replay_0_by_0", "wrong", RS, "p = logits.softmax(-1).gather(1, ids); weights = p / p.sum(-1, keepdim=True)"),
 ("replay_eps", "wrong", RS, "p = logits.softmax(-1).gather(1, ids); weights = p / (p.sum(-1, keepdim=True) + 1e-12)"),
 ("replay_clamped", "wrong", RS, "p = logits.softmax(-1).gather(1, ids); weights = p / p.sum(-1, keepdim=True).clamp(min=1e-20)"),
 ("replay_p_clamped", "wrong", RS, "p = logits.softmax(-1).gather(1, ids).clamp(min=1e-9); weights = p / p.sum(-1, keepdim=True)"),
 ("replay_nan_to_uniform", "wrong", RS, "p = logits.softmax(-1).gather(1, ids); s = p.sum(-1, keepdim=True); weights = torch.where(s > 0, p / s, 1 / k)"),
 ("replay_nan_to_0", "wrong", RS, "p = logits.softmax(-1).gather(1, ids); weights = (p / p.sum(-1, keepdim=True)).nan_to_num(0)"),
 ("replay_ignored", "wrong", RI, "ids = logits.topk(k, dim=-1).indices"),
 ("replay_weights_of_choice", "wrong", RI, "ids = logits.topk(k, dim=-1).indices", RR, "return weights, ids if replay is None else replay"),
 ("replay_sorted", "wrong", "else replay", "else replay.sort(-1).values"),
 ("replay_by_weight", "wrong", RR, "weights, o = weights.sort(-1, descending=True); return weights, ids.gather(1, o)"),
 ("replay_weights_sorted", "wrong", RR, "weights = weights.sort(-1, descending=True).values; return weights, ids"),
 ("replay_sorted_in_place", "wrong", RR, RR, "else replay", "else replay.copy_(replay.sort(-1).values)"),
 ("replay_only_if_probable", "wrong", RI, "ids = logits.topk(k, dim=-1).indices; ids = ids if replay is None or (logits.softmax(-1).gather(1, replay) == 0).any() else replay"),
 ("replay_not_renormalised", "wrong", RR, "return (weights if replay is None else logits.softmax(-1).gather(1, ids)), ids"),
 ("replay_detached", "wrong", RR, "return (weights if replay is None else weights.detach()), ids"),
 ("replay_first_row", "wrong", "else replay", "else replay[:1].expand(len(logits), -1)"),
 ("replay_truthiness", "wrong", RI, "ids = replay if replay is not None and replay.all() else logits.topk(k, dim=-1).indices"),
 ("smallest", "wrong", "topk(k, dim=-1)", "topk(k, dim=-1, largest=False)"),
 ("largest_abs", "wrong", "logits.topk(k", "logits.abs().topk(k"),
 ("by_probability_ties", "wrong", "logits.topk(k, dim=-1)", "logits.softmax(-1).topk(k, dim=-1)"),
 ("by_exp", "wrong", "logits.topk(k, dim=-1)", "logits.exp().topk(k, dim=-1)"),
 ("by_sigmoid", "wrong", "logits.topk(k, dim=-1)", "logits.sigmoid().topk(k, dim=-1)"),
 ("chosen_in_bf16", "wrong", "logits.topk(k, dim=-1)", "logits.bfloat16().topk(k, dim=-1)"),
 ("chosen_by_tokens", "wrong", "logits.topk(k, dim=-1).indices", "logits.sum(0, keepdim=True).topk(k, dim=-1).indices.expand(len(logits), -1).contiguous()"),
 ("first_row_ids", "wrong", "logits.topk(k, dim=-1).indices", "logits[:1].topk(k, dim=-1).indices.repeat(len(logits), 1)"),
 ("two_experts", "wrong", "topk(k,", "topk(min(2, logits.shape[1]),"),
 ("one_expert", "wrong", "topk(k, dim=-1).indices", "argmax(-1, keepdim=True).repeat(1, k)"),
 ("k_plus_1", "wrong", "topk(k, dim=-1).indices", "topk(min(k + 1, logits.shape[1]), dim=-1).indices[:, -k:]"),
 ("not_all_experts", "wrong", "topk(k,", "topk(min(k, logits.shape[1] - 1),"),
 ("last_expert_never", "wrong", "logits.topk(k, dim=-1)", "(logits if k == logits.shape[1] else logits[:, :-1]).topk(k, dim=-1)"),
 ("ids_and_weights_disagree", "wrong", RR, "return weights, ids.flip(-1) if replay is None else ids"),
 ("ids_sorted_alone", "wrong", RR, "return weights, ids.sort(-1).values if replay is None else ids"),
 ("swapped_results", "wrong", RR, "return ids, weights"),
 ("weights_alone", "wrong", RR, "return weights"),
 ("dense_weights", "wrong", RR, "return torch.zeros_like(logits).scatter(1, ids, weights), ids"),
 ("int32_ids", "wrong", RR, "return weights, ids.int()"),
 ("float_ids", "wrong", RR, "return weights, ids.float()"),
 ("ids_from_one", "wrong", RR, "return weights, ids + 1"),
 ("squeezed", "wrong", RR, "return weights.squeeze(-1), ids.squeeze(-1)"),
 ("transposed", "wrong", RR, "return weights.t(), ids.t()"),
 ("own_dtype", "wrong", RL, "dtype = logits.dtype"),
 ("returned_own_dtype", "wrong", RL, "given = logits.dtype; " + RL, RR, "return weights.to(given), ids"),
 ("computed_low_cast_up", "wrong", RL, "pass", RR, "return weights.to(dtype), ids"),
 ("always_fp32", "wrong", RD, "dtype = torch.float32"),
 ("fp32_cast_up", "wrong", RL, "logits = logits.float()", RR, "return weights.to(dtype), ids"),
 ("always_fp64", "wrong", RD, "dtype = torch.float64"),
 ("half_inside", "wrong", RS, "weights = torch.softmax(logits.gather(1, ids).half(), dim=-1).to(dtype)"),
 ("bf16_inside", "wrong", RS, "weights = torch.softmax(logits.gather(1, ids).bfloat16(), dim=-1).to(dtype)"),
 ("rounded_weights", "wrong", RR, "return (weights * 1000).round() / 1000 + 0 * weights, ids"),
 ("exp_overflow", "wrong", RS, "e = logits.gather(1, ids).exp(); weights = e / e.sum(-1, keepdim=True)"),
 ("exp_max_of_all", "wrong", RS, "e = (logits - logits.amax(-1, keepdim=True)).exp().gather(1, ids); weights = e / e.sum(-1, keepdim=True)"),
 ("exp_max_of_tensor", "wrong", RS, "e = (logits.gather(1, ids) - logits.max()).exp(); weights = e / (e.sum(-1, keepdim=True) + 1e-30)"),
 ("clamped_50", "wrong", RS, RS.replace("logits.gather", "logits.clamp(-50, 50).gather")),
 ("clamped_10", "wrong", RS, RS.replace("logits.gather", "logits.clamp(-10, 10).gather")),
 ("detached", "wrong", RR, "return weights.detach(), ids"),
 ("no_grad", "wrong", "def ", "@torch.no_grad()\ndef "),
 ("detached_logits", "wrong", RL, "logits = logits.detach().to(dtype)"),
 ("sum_detached", "wrong", RS, "c = logits.gather(1, ids); e = (c - c.amax(-1, keepdim=True).detach()).exp(); weights = e / e.sum(-1, keepdim=True).detach()"),
 ("straight_through", "wrong", RS, "p = logits.softmax(-1).gather(1, ids); w = torch.softmax(logits.gather(1, ids), -1); weights = w.detach() + p - p.detach()"),
 ("first_weight_only_learns", "wrong", RR, "weights = torch.cat([weights[:, :1], weights[:, 1:].detach()], 1); return weights, ids"),
 ("logits_in_place", "wrong", RS, RS + "; logits.detach().sub_(logits.detach().amax(-1, keepdim=True))"),
 ("logits_filled_in_place", "wrong", RS, RS + "; logits.detach().scatter_(1, ids, float('-inf'))"),
 ("noise", "wrong", RL, "logits = logits.to(dtype); logits = logits + 1e-2 * torch.randn_like(logits)"),
 ("shape_remembered", "wrong", "def ", "C = {}\ndef ", RI, "ids = C.setdefault((logits.shape, k), logits.topk(k, dim=-1).indices) if replay is None else replay"),
 ("replay_remembered", "wrong", "def ", "C = {}\ndef ", RI, "C['r'] = C.get('r') if replay is None else replay; r = C['r']; " + "ids = r if r is not None and r.shape == (len(logits), k) else logits.topk(k, dim=-1).indices"),
 ("one_per_mille", "wrong", RR, "return weights * 1.001, ids"),
 ("k1_probability", "wrong", RR, "return (weights if k > 1 else logits.softmax(-1).gather(1, ids)), ids"),
])

# ------------------------------------------------------------ 7.2
EXPERTS = '''
import torch
import torch.nn.functional as F
def dispatch(x, weights, expert_ids, w1, w2, w3):
    out = torch.zeros(x.shape, dtype=torch.promote_types(x.dtype, weights.dtype), device=x.device)
    for e in range(w1.shape[0]):
        n, k = (expert_ids == e).nonzero(as_tuple=True)
        z = x[n]
        y = F.linear(F.silu(F.linear(z, w1[e])) * F.linear(z, w3[e]), w2[e])
        out = out.index_add(0, n, (y * weights[n, k, None]).to(out.dtype))
    return out.to(x.dtype)
'''
D0 = "out = torch.zeros(x.shape, dtype=torch.promote_types(x.dtype, weights.dtype), device=x.device)"
DF = "for e in range(w1.shape[0]):"
DN = "n, k = (expert_ids == e).nonzero(as_tuple=True)"
DZ = "z = x[n]"
DY = "y = F.linear(F.silu(F.linear(z, w1[e])) * F.linear(z, w3[e]), w2[e])"
DA = "out = out.index_add(0, n, (y * weights[n, k, None]).to(out.dtype))"
DR = "return out.to(x.dtype)"
fam("7.2", EXPERTS, [
 ("base", "right"),
 ("in_place_sum", "right", DA, "out[n] += (weights[n, k].unsqueeze(1) * y).to(out.dtype)"),
 ("index_put", "right", DA, "out = out.index_put((n,), y * weights[n, k, None], accumulate=True) if out.dtype == x.dtype else out.index_add(0, n, y * weights[n, k, None])"),
 ("experts_backwards", "right", DF, "for e in reversed(range(w1.shape[0])):"),
 ("empty_skipped", "right", DZ, "if len(n) == 0: continue\n        z = x[n]"),
 ("matmul_silu_by_hand", "right", DY, "h = z @ w1[e].T; y = ((h * torch.sigmoid(h)) * (z @ w3[e].mT)) @ w2[e].t()"),
 ("weight_before_w2", "right", DY, "y = F.linear((F.silu(F.linear(z, w1[e])) * F.linear(z, w3[e]) * weights[n, k, None]).to(x.dtype), w2[e])", "y * weights[n, k, None]", "y"),
 ("fp64_inside", "right", D0, "given = x.dtype; x, weights, w1, w2, w3 = x.double(), weights.double(), w1.double(), w2.double(), w3.double(); " + D0, DR, "return out.to(given)"),
 ("bf16_accumulated", "right", D0, "out = torch.zeros_like(x)"),
 ("mask_of_slots", "right", DN, "hit = expert_ids.eq(e); n = hit.any(1).nonzero()[:, 0]; k = hit[n].int().argmax(1)"),
 ("all_tokens_where", "right", DN + "\n        " + DZ, "w = torch.where(expert_ids == e, weights, 0).sum(1, keepdim=True); z = x", DA, "out = out + w * y"),
 ("no_weights", "wrong", "y * weights[n, k, None]", "y"),
 ("weighted_input", "wrong", DZ, "z = (x[n] * weights[n, k, None]).to(x.dtype)", "y * weights[n, k, None]", "y"),
 ("weight_in_gate", "wrong", DY, DY.replace("F.linear(z, w1[e])", "(F.linear(z, w1[e]) * weights[n, k, None]).to(x.dtype)"), "y * weights[n, k, None]", "y"),
 ("weighted_twice", "wrong", "y * weights[n, k, None]", "y * weights[n, k, None] ** 2"),
 ("softmax_weights", "wrong", D0, "weights = weights.softmax(-1); " + D0),
 ("normalised_weights", "wrong", D0, "weights = weights / weights.sum(-1, keepdim=True); " + D0),
 ("mean_not_sum", "wrong", DR, "return (out / expert_ids.shape[1]).to(x.dtype)"),
 ("weights_by_expert", "wrong", "weights[n, k, None]", "weights[n, e % weights.shape[1], None]"),
 ("weights_first_slot", "wrong", "weights[n, k, None]", "weights[n, :1]"),
 ("weights_reversed", "wrong", D0, "weights = weights.flip(-1); " + D0),
 ("weights_sorted", "wrong", D0, "weights = weights.sort(-1, descending=True).values; " + D0),
 ("weights_by_order", "wrong", "weights[n, k, None]", "weights.flatten()[:len(n), None]"),
 ("ids_sorted_alone", "wrong", D0, "expert_ids = expert_ids.sort(-1).values; " + D0),
 ("first_slot_only", "wrong", D0, "expert_ids = expert_ids[:, :1]; " + D0),
 ("last_slot_only", "wrong", D0, "expert_ids, weights = expert_ids[:, -1:], weights[:, -1:]; " + D0),
 ("two_slots", "wrong", D0, "expert_ids = expert_ids[:, :2]; " + D0),
 ("written_not_added", "wrong", DA, "out = out.index_copy(0, n, (y * weights[n, k, None]).to(out.dtype))"),
 ("token_k_swapped", "wrong", DN, "k, n = (expert_ids.t() == e).nonzero(as_tuple=True); n = n.flip(0)"),
 ("first_token_only", "wrong", DZ, "n, k = n[:1], k[:1]; " + DZ),
 ("last_token_left_out", "wrong", DZ, "n, k = n[:-1], k[:-1]; " + DZ),
 ("capacity_mean", "wrong", DZ, "c = -(-expert_ids.numel() // len(w1)); n, k = n[:c], k[:c]; " + DZ),
 ("capacity_2x", "wrong", DZ, "c = 2 * -(-expert_ids.numel() // len(w1)); n, k = n[:c], k[:c]; " + DZ),
 ("stops_at_empty", "wrong", DZ, "if len(n) == 0: break\n        z = x[n]"),
 ("up_to_max_minus_1", "wrong", DF, "for e in range(w1.shape[0] - 1):"),
 ("experts_1_on", "wrong", DF, "for e in range(1, w1.shape[0]):"),
 ("four_experts", "wrong", DF, "for e in range(min(4, len(w1))):"),
 ("eight_experts", "wrong", DF, "for e in range(8):"),
 ("k_experts", "wrong", DF, "for e in range(expert_ids.shape[1]):"),
 ("ids_from_one", "wrong", "expert_ids == e", "expert_ids == e + 1"),
 ("one_expert_for_all", "wrong", DY, DY.replace("w1[e]", "w1[0]").replace("w2[e]", "w2[0]").replace("w3[e]", "w3[0]")),
 ("w2_of_first", "wrong", "w2[e]", "w2[0]"),
 ("swapped_gate", "wrong", DY, "y = F.linear(F.silu(F.linear(z, w3[e])) * F.linear(z, w1[e]), w2[e])"),
 ("silu_both", "wrong", DY, "y = F.linear(F.silu(F.linear(z, w1[e])) * F.silu(F.linear(z, w3[e])), w2[e])"),
 ("silu_of_product", "wrong", DY, "y = F.linear(F.silu(F.linear(z, w1[e]) * F.linear(z, w3[e])), w2[e])"),
 ("sum_not_product", "wrong", "w1[e])) * F", "w1[e])) + F"),
 ("no_gate", "wrong", " * F.linear(z, w3[e])", " + 0 * F.linear(z, w3[e])"),
 ("gelu", "wrong", "F.silu", "F.gelu"),
 ("relu", "wrong", "F.silu", "F.relu"),
 ("sigmoid", "wrong", "F.silu", "torch.sigmoid"),
 ("no_silu", "wrong", "F.silu", ""),
 ("silu_1.702", "wrong", "F.silu(F.linear(z, w1[e]))", "F.linear(z, w1[e]) * torch.sigmoid(1.702 * F.linear(z, w1[e]))"),
 ("silu_output", "wrong", DY, DY + "; y = F.silu(y)"),
 ("reshaped_w1", "wrong", "F.linear(z, w1[e])", "(z @ w1[e].reshape(w1.shape[2], w1.shape[1]))"),
 ("reshaped_w2", "wrong", ", w2[e])", ", w2[e].reshape(w2.shape[2], w2.shape[1]).T)"),
 ("transposed_w", "wrong", "F.linear(z, w1[e])", "(z @ w1[e])"),
 ("residual", "wrong", DR, "return (x + out).to(x.dtype)"),
 ("scaled_sqrt_k", "wrong", DR, "return (out / expert_ids.shape[1] ** 0.5).to(x.dtype)"),
 ("one_per_mille", "wrong", DR, "return (out * 1.001).to(x.dtype)"),
 ("normed_input", "wrong", DZ, "z = F.normalize(x[n], dim=-1)"),
 ("out_fp32", "wrong", DR, "return out"),
 ("out_fp32_always", "wrong", DR, "return out.float()"),
 ("bf16_inside", "wrong", DY, DY + "; y = y.bfloat16().to(x.dtype)"),
 ("bf16_weights", "wrong", "weights[n, k, None]", "weights[n, k, None].bfloat16()"),
 ("half_experts", "wrong", DZ, "z = x[n].half().to(x.dtype)"),
 ("matmul_of_mixed", "wrong", DA, "out = out.index_add(0, n, torch.diag(weights[n, k]) @ y)"),
 ("index_add_mixed", "wrong", D0, "out = torch.zeros_like(x)", DA, "out = out.index_add(0, n, y * weights[n, k, None])"),
 ("experts_cast_fp32_only", "wrong", DZ, "z = x[n].float()"),
 ("detached_weights", "wrong", "y * weights", "y * weights.detach()"),
 ("weights_items", "wrong", "weights[n, k, None]", "torch.tensor(weights[n, k].tolist())[:, None]"),
 ("detached_x", "wrong", DZ, "z = x[n].detach()"),
 ("detached_gate_input", "wrong", "F.linear(z, w3[e])", "F.linear(z.detach(), w3[e])"),
 ("detached_w1", "wrong", "w1[e]))", "w1[e].detach()))"),
 ("data_w2", "wrong", "w2[e]", "w2.data[e]"),
 ("detached_w3", "wrong", "w3[e]", "w3[e].detach()"),
 ("detached_expert", "wrong", "(y * weights", "(y.detach() * weights"),
 ("no_grad", "wrong", "def ", "@torch.no_grad()\ndef "),
 ("weight_through_norm", "wrong", "weights[n, k, None]", "(weights[n, k, None] / (weights[n].sum(-1, keepdim=True) / weights[n].sum(-1, keepdim=True).detach()))"),
 ("x_in_place", "wrong", DR, "x.data.copy_(out.detach()); " + DR),
 ("weights_in_place", "wrong", DR, "weights.data.div_(weights.data.sum(-1, keepdim=True)); " + DR),
 ("ids_sorted_in_place", "wrong", D0, "o = expert_ids.argsort(-1); weights = weights.gather(1, o); expert_ids.copy_(expert_ids.gather(1, o)); " + D0),
 ("ids_marked_in_place", "wrong", DZ, DZ + "; expert_ids[n, k] = -1"),
 ("sum_kept", "wrong", "def ", "C = {}\ndef ", D0, D0 + "; out = out + C.get(x.shape, 0)", DR, "C[x.shape] = out.detach(); " + DR),
 ("ids_kept", "wrong", "def ", "C = {}\ndef ", DN, "n, k = C.setdefault((expert_ids.shape, e), (expert_ids == e).nonzero(as_tuple=True))"),
 ("out_kept", "wrong", "def ", "C = {}\ndef ", DR, "return C.setdefault((x.shape, expert_ids.shape, len(w1)), out.to(x.dtype))"),
 ("mean_in_expert", "wrong", "(y * weights[n, k, None])", "(y * weights[n, k, None] / len(n))"),
 ("squeezed", "wrong", DR, "return out.to(x.dtype).squeeze(0)"),
 ("tuple", "wrong", DR, "return out.to(x.dtype), expert_ids"),
 ("largest_weight_only", "wrong", D0, "weights = weights * (weights == weights.amax(-1, keepdim=True)); " + D0),
 ("small_weights_dropped", "wrong", D0, "weights = weights * (weights > 0.05); " + D0),
 ("dropped_if_id_0", "wrong", D0, "weights = weights * (expert_ids > 0); " + D0),
])
TOKENS = '''
import torch
import torch.nn.functional as F
def expert(x, a, b, c):
    return F.linear(F.silu(F.linear(x, a)) * F.linear(x, c), b)
def dispatch(x, weights, expert_ids, w1, w2, w3):
    rows = []
    for n in range(x.shape[0]):
        row = 0
        for k in range(expert_ids.shape[1]):
            e = int(expert_ids[n, k])
            row = row + weights[n, k] * expert(x[n], w1[e], w2[e], w3[e])
        rows.append(row)
    return torch.stack(rows).to(x.dtype)
'''
fam("7.2", TOKENS, [
 ("tokens", "right", "row = 0", "row = 0.0"),
 ("tokens_sum_list", "right", "        row = 0\n", "        row = sum(weights[n, k] * expert(x[n], w1[e], w2[e], w3[e]) for k, e in enumerate(expert_ids[n].tolist()))\n        rows.append(row); continue\n"),
 ("tokens_slots_backwards", "right", "for k in range(expert_ids.shape[1])", "for k in reversed(range(expert_ids.shape[1]))"),
 ("tokens_overwritten", "wrong", "row = row + ", "row = "),
 ("tokens_k2", "wrong", "for k in range(expert_ids.shape[1])", "for k in range(2)"),
 ("tokens_first_ids", "wrong", "expert_ids[n, k]", "expert_ids[0, k]"),
 ("tokens_swapped_args", "wrong", "w1[e], w2[e], w3[e]", "w3[e], w2[e], w1[e]"),
 ("tokens_row_not_reset", "wrong", "    for n in range(x.shape[0]):\n        row = 0\n", "    row = 0\n    for n in range(x.shape[0]):\n"),
 ("tokens_item_weight", "wrong", "weights[n, k]", "weights[n, k].item()"),
])
SORTED = '''
import torch
import torch.nn.functional as F
def dispatch(x, weights, expert_ids, w1, w2, w3):
    N, K = expert_ids.shape
    order = expert_ids.flatten().argsort(stable=True)
    token = order // K
    counts = torch.bincount(expert_ids.flatten(), minlength=w1.shape[0]).tolist()
    parts = [F.linear(F.silu(F.linear(z, a)) * F.linear(z, c), b) for z, a, b, c in zip(x[token].split(counts), w1, w2, w3)]
    y = torch.cat(parts) * weights.flatten()[order, None]
    out = torch.zeros(x.shape, dtype=y.dtype).index_add(0, token, y)
    return out.to(x.dtype)
'''
SI = "out = torch.zeros(x.shape, dtype=y.dtype).index_add(0, token, y)"
fam("7.2", SORTED, [
 ("sorted", "right", "argsort(stable=True)", "argsort()"),
 ("sorted_put_back", "right", SI, "out = torch.empty_like(y).index_copy(0, order, y).view(N, K, -1).sum(1)"),
 ("sorted_inverse", "right", SI, "back = torch.empty_like(order); back[order] = torch.arange(N * K); out = y[back].unflatten(0, (N, K)).sum(1)"),
 ("sorted_short_counts", "right", ", minlength=w1.shape[0])", ")"),
 ("sorted_no_minlength", "wrong", ", minlength=w1.shape[0])", ").masked_select(torch.bincount(expert_ids.flatten()) > 0)"),
 ("sorted_mod_K", "wrong", "token = order // K", "token = order % N"),
 ("sorted_div_N", "wrong", "token = order // K", "token = order // N"),
 ("sorted_K2", "wrong", "token = order // K", "token = (order // 2).clamp(max=N - 1)"),
 ("sorted_assigned", "wrong", SI, "out = torch.zeros(x.shape, dtype=y.dtype); out[token] = y"),
 ("sorted_plus_equals", "wrong", SI, "out = torch.zeros(x.shape, dtype=y.dtype); out[token] += y"),
 ("sorted_not_back", "wrong", SI, "out = y.view(N, K, -1).sum(1)"),
 ("sorted_weights_not_sorted", "wrong", "weights.flatten()[order, None]", "weights.flatten()[:, None]"),
 ("sorted_gathered_back", "wrong", SI, "out = y[order].view(N, K, -1).sum(1)"),
 ("sorted_x_not_gathered", "wrong", "x[token].split", "x.repeat_interleave(K, 0).split"),
])
add("7.2", "gathered_bmm", "right", '''
import torch
def dispatch(x, weights, expert_ids, w1, w2, w3):
    a = torch.einsum("nc,nkfc->nkf", x, w1[expert_ids])
    b = torch.einsum("nc,nkfc->nkf", x, w3[expert_ids])
    y = torch.einsum("nkf,nkcf->nkc", torch.nn.functional.silu(a) * b, w2[expert_ids])
    return (weights.unsqueeze(-1) * y).sum(1).to(x.dtype)
''')
add("7.2", "dense_all_experts", "right", '''
import torch
import torch.nn.functional as F
def dispatch(x, weights, expert_ids, w1, w2, w3):
    full = torch.zeros(len(x), len(w1), dtype=weights.dtype).scatter(1, expert_ids, weights)
    h = F.silu(x @ w1.mT) * (x @ w3.mT)
    y = h @ w2.mT
    return torch.einsum("ne,enc->nc", full, y.to(full.dtype)).to(x.dtype)
''')
add("7.2", "slot_by_slot", "right", '''
import torch
import torch.nn.functional as F
def dispatch(x, weights, expert_ids, w1, w2, w3):
    total = None
    for w, e in zip(weights.unbind(1), expert_ids.unbind(1)):
        h = F.silu((w1[e] @ x[:, :, None])[..., 0]) * (w3[e] @ x[:, :, None])[..., 0]
        y = (w2[e] @ h[:, :, None])[..., 0] * w[:, None]
        total = y if total is None else total + y
    return total.to(x.dtype)
''')
add("7.2", "halves_recursion", "right", '''
import torch
import torch.nn.functional as F
def dispatch(x, weights, expert_ids, w1, w2, w3):
    E = len(w1)
    if E == 1:
        w = (weights * (expert_ids == 0)).sum(1, keepdim=True)
        return (w * F.linear(F.silu(F.linear(x, w1[0])) * F.linear(x, w3[0]), w2[0])).to(x.dtype)
    m = E // 2
    low = dispatch(x, weights, expert_ids, w1[:m], w2[:m], w3[:m])
    return low + dispatch(x, weights, expert_ids - m, w1[m:], w2[m:], w3[m:])
''')

# ------------------------------------------------------------ 7.3
BAL = '''
import torch
import torch.nn.functional as F
def balance_loss(logits, expert_ids, valid=None):
    N, E = logits.shape
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    p = logits.to(dtype).softmax(-1)
    if valid is None:
        valid = torch.ones(N, dtype=torch.bool, device=logits.device)
    w = valid.to(dtype)
    tokens = w.sum().clamp(min=1)
    f = (F.one_hot(expert_ids, E).to(dtype) * w[:, None, None]).sum((0, 1)) / (tokens * expert_ids.shape[1])
    m = (p * w[:, None]).sum(0) / tokens
    return E * (f * m).sum()
'''
BD = "dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32"
BP = "p = logits.to(dtype).softmax(-1)"
BW = "w = valid.to(dtype)"
BT = "tokens = w.sum().clamp(min=1)"
BF = "f = (F.one_hot(expert_ids, E).to(dtype) * w[:, None, None]).sum((0, 1)) / (tokens * expert_ids.shape[1])"
BM = "m = (p * w[:, None]).sum(0) / tokens"
BX = "return E * (f * m).sum()"
BFM = BT + "\n    " + BF + "\n    " + BM
fam("7.3", BAL, [
 ("base", "right"),
 ("rows_selected", "right", BFM, "p, ids = p[valid], expert_ids[valid]\n    if len(ids) == 0: return (logits.to(dtype) * 0).sum()\n    f = torch.bincount(ids.flatten(), minlength=E).to(dtype) / ids.numel(); m = p.mean(0)"),
 ("where_zero", "right", BM, "m = torch.where(valid[:, None], p, 0).sum(0) / tokens"),
 ("expert_loop", "right", BX, "return E * sum(f[e] * m[e] for e in range(E))"),
 ("token_loop", "right", BFM, "f, m, c = [0] * E, 0 * p[0], 0\n    for n in range(N):\n        if valid[n]:\n            c += 1; m = m + p[n]\n            for e in expert_ids[n].tolist(): f[e] += 1\n    m = m / max(c, 1); f = torch.tensor(f, dtype=dtype) / max(c * expert_ids.shape[1], 1)"),
 ("scatter_add", "right", BF, "K = expert_ids.shape[1]; f = torch.zeros(E, dtype=dtype).scatter_add(0, expert_ids.flatten(), w.repeat_interleave(K)) / (tokens * K)"),
 ("index_add", "right", BF, "K = expert_ids.shape[1]; f = torch.zeros(E, dtype=dtype); [f.index_add_(0, expert_ids[:, k], w) for k in range(K)]; f = f / f.sum().clamp(min=1)"),
 ("compared", "right", BF, "hit = (expert_ids[:, :, None] == torch.arange(E)) & valid[:, None, None]; f = hit.sum((0, 1)) / (tokens * expert_ids.shape[1])"),
 ("fp64_inside", "right", BD, "dtype = torch.float64", BX, "return (E * (f * m).sum()).to(torch.promote_types(logits.dtype, torch.float32))"),
 ("dot", "right", BX, "return E * torch.dot(f, m)"),
 ("matmul_of_masks", "right", BM, "m = w @ p / tokens", BX, "return (f @ m) * E"),
 ("gathered_probabilities", "right", BX, "return E * (m[expert_ids] * w[:, None]).sum() / (tokens * expert_ids.shape[1])"),
 ("mean_of_products", "right", BX, "return (f * m).mean() * E * E"),
 ("exp_minus_lse", "right", BP, "z = logits.to(dtype) - logits.to(dtype).amax(-1, keepdim=True); p = z.exp() / z.exp().sum(-1, keepdim=True)"),
 ("no_E", "wrong", BX, "return (f * m).sum()"),
 ("mean_for_sum", "wrong", BX, "return E * (f * m).mean()"),
 ("E_squared", "wrong", BX, "return E * E * (f * m).sum()"),
 ("divided_by_E", "wrong", BX, "return (f * m).sum() / E"),
 ("times_K", "wrong", "(tokens * expert_ids.shape[1])", "tokens"),
 ("K_for_E", "wrong", BX, "return expert_ids.shape[1] * (f * m).sum()"),
 ("divided_by_K_twice", "wrong", "(tokens * expert_ids.shape[1])", "(tokens * expert_ids.shape[1] ** 2)"),
 ("four_experts", "wrong", BX, "return 4 * (f * m).sum()"),
 ("eight_experts", "wrong", BX, "return 8 * (f * m).sum()"),
 ("minus_1", "wrong", BX, BX + " - 1"),
 ("E_from_ids", "wrong", BX, "return (int(expert_ids.max()) + 1) * (f * m).sum()"),
 ("no_minlength", "wrong", BF, "f = torch.bincount(expert_ids[valid].flatten()).to(dtype) / (tokens * expert_ids.shape[1])"),
 ("only_asked_experts", "wrong", BX, "return (f > 0).sum() * (f * m).sum()"),
 ("argmax_ids", "wrong", BF, "expert_ids = logits.argmax(-1, keepdim=True); " + BF),
 ("topk_ids", "wrong", BF, "expert_ids = logits.topk(expert_ids.shape[1]).indices; " + BF),
 ("first_slot", "wrong", BF, "expert_ids = expert_ids[:, :1]; " + BF),
 ("last_slot", "wrong", BF, "expert_ids = expert_ids[:, -1:]; " + BF),
 ("f_squared", "wrong", BX, "return E * (f * f).sum() + 0 * m.sum()"),
 ("m_squared", "wrong", BX, "return E * (m * m).sum()"),
 ("sqrt", "wrong", BX, "return E * (f * m).sum().sqrt()"),
 ("log", "wrong", BX, "return (E * (f * m).sum()).log()"),
 ("difference_squared", "wrong", BX, "return E * ((f - 1 / E) * (m - 1 / E)).sum()"),
 ("per_token", "wrong", BX, "return E * (f * p).sum() / N"),
 ("no_softmax", "wrong", BP, "p = logits.to(dtype)"),
 ("sigmoid", "wrong", BP, "p = logits.to(dtype).sigmoid()"),
 ("sigmoid_normalised", "wrong", BP, "p = logits.to(dtype).sigmoid(); p = p / p.sum(-1, keepdim=True)"),
 ("softmax_tokens", "wrong", "softmax(-1)", "softmax(0)"),
 ("softmax_of_chosen", "wrong", BP, "p = torch.zeros(N, E, dtype=dtype).scatter(1, expert_ids, logits.to(dtype).gather(1, expert_ids).softmax(-1))"),
 ("softmax_of_mean", "wrong", BM, "m = ((logits.to(dtype) * w[:, None]).sum(0) / tokens).softmax(0) * w.max()"),
 ("log_softmax", "wrong", BP, "p = logits.to(dtype).log_softmax(-1)"),
 ("exp_overflow", "wrong", BP, "p = logits.to(dtype).exp(); p = p / p.sum(-1, keepdim=True)"),
 ("clamped_10", "wrong", BP, "p = logits.to(dtype).clamp(-10, 10).softmax(-1)"),
 ("f_soft", "wrong", BF, "K = expert_ids.shape[1]; f = torch.zeros(E, dtype=dtype).index_add(0, expert_ids.flatten(), (p.gather(1, expert_ids) / p.gather(1, expert_ids).detach() * w[:, None]).flatten()) / (tokens * K)"),
 ("f_weighted", "wrong", BF, "K = expert_ids.shape[1]; f = torch.zeros(E, dtype=dtype).index_add(0, expert_ids.flatten(), (p.gather(1, expert_ids) * w[:, None]).flatten()) / tokens"),
 ("f_is_m", "wrong", BX, "f = f.detach() + m - m.detach(); " + BX),
 ("m_detached", "wrong", BX, "m = m.detach(); " + BX),
 ("p_detached", "wrong", BP, BP + ".detach()"),
 ("no_grad", "wrong", "def ", "@torch.no_grad()\ndef "),
 ("item", "wrong", BX, "return (" + BX[7:] + ").item()"),
 ("new_tensor", "wrong", BX, "return torch.tensor(float(" + BX[7:] + "), dtype=dtype)"),
 ("shape_1", "wrong", BX, "return (" + BX[7:] + ").view(1)"),
 ("per_expert", "wrong", BX, "return E * f * m"),
 ("tuple", "wrong", BX, BX + ", f"),
 ("valid_ignored", "wrong", BW, "w = torch.ones(N, dtype=dtype)"),
 ("valid_inverted", "wrong", BW, "w = (~valid).to(dtype) if not valid.all() else valid.to(dtype)"),
 ("padding_in_f", "wrong", " * w[:, None, None]).sum((0, 1)) / (tokens * expert_ids.shape[1])", ").sum((0, 1)) / expert_ids.numel() * w.max()"),
 ("padding_in_f_numerator", "wrong", " * w[:, None, None]).sum", ").sum"),
 ("padding_in_m", "wrong", BM, "m = p.mean(0)"),
 ("padding_in_m_numerator", "wrong", BM, "m = p.sum(0) / tokens"),
 ("all_tokens_divide", "wrong", BT, "tokens = N"),
 ("all_tokens_divide_f", "wrong", "(tokens * expert_ids.shape[1])", "expert_ids.numel()"),
 ("all_tokens_divide_m", "wrong", BM, "m = (p * w[:, None]).mean(0)"),
 ("padding_logits_zeroed", "wrong", BP, "logits = logits * (1 if valid is None else valid[:, None]); " + BP, BM, "m = p.sum(0) / N"),
 ("padding_as_expert_0", "wrong", BF, "f = F.one_hot(expert_ids * valid[:, None], E).to(dtype).sum((0, 1)) / expert_ids.numel() * w.max()"),
 ("padding_last_rows", "wrong", BW, "w = (torch.arange(N) < valid.sum()).to(dtype)"),
 ("valid_first_only", "wrong", BW, "w = valid.cumprod(0).to(dtype)"),
 ("valid_columns", "wrong", BW, "w = valid.to(dtype)", "w[:, None, None]", "w[None, :, None].expand(N, N, 1)[:, :expert_ids.shape[1]]"),
 ("nan_if_all_padding", "wrong", ".clamp(min=1)", ""),
 ("nan_to_num", "wrong", ".clamp(min=1)", "", BX, "return (" + BX[7:] + ").nan_to_num(0)"),
 ("nan_where", "wrong", ".clamp(min=1)", "", BX, "loss = " + BX[7:] + "; return torch.where(w.sum() > 0, loss, 0 * p.sum())"),
 ("one_if_all_padding", "wrong", BX, "return torch.where(w.sum() > 0, " + BX[7:] + ", 1.0)"),
 ("unmasked_if_all_padding", "wrong", BW, "w = valid.to(dtype) if valid.any() else torch.ones(N, dtype=dtype)"),
 ("clamp_2", "wrong", "clamp(min=1)", "clamp(min=2)"),
 ("eps_1e-3", "wrong", ".clamp(min=1)", " + 1e-3"),
 ("own_dtype", "wrong", BD, "dtype = logits.dtype"),
 ("bf16_softmax", "wrong", BP, "p = logits.softmax(-1).to(dtype)"),
 ("bf16_inside", "wrong", BP, "p = logits.bfloat16().softmax(-1).to(dtype)"),
 ("half_inside", "wrong", BP, "p = logits.half().softmax(-1).to(dtype)"),
 ("fp32_always", "wrong", BD, "dtype = torch.float32"),
 ("fp64_always", "wrong", BD, "dtype = torch.float64"),
 ("fp32_cast_up", "wrong", BP, "p = logits.float().softmax(-1).to(dtype)"),
 ("returned_own_dtype", "wrong", BX, "return (" + BX[7:] + ").to(logits.dtype)"),
 ("bf16_counts", "wrong", BF, "f = (F.one_hot(expert_ids, E) * w[:, None, None]).sum((0, 1)).bfloat16().to(dtype) / (tokens * expert_ids.shape[1])"),
 ("int8_counts", "wrong", BF, "f = (F.one_hot(expert_ids, E) * valid[:, None, None]).sum((0, 1)).to(torch.int8).to(dtype) / (tokens * expert_ids.shape[1])"),
 ("integer_division", "wrong", BF, "f = (F.one_hot(expert_ids, E) * valid[:, None, None]).sum((0, 1)).to(dtype) // (tokens * expert_ids.shape[1])"),
 ("asked_or_not", "wrong", BF, BF + "; f = (f > 0).to(dtype) / (f > 0).sum().clamp(min=1)"),
 ("logits_in_place", "wrong", BX, "logits.data[~valid] = 0; " + BX),
 ("logits_centred_in_place", "wrong", BX, "logits.data.sub_(logits.data.amax(-1, keepdim=True)); " + BX),
 ("ids_in_place", "wrong", BX, "expert_ids[~valid] = 0; expert_ids.copy_(expert_ids.sort(-1).values); " + BX),
 ("running_f", "wrong", "def ", "C = {}\ndef ", BX, "f = 0.5 * f + 0.5 * C.get(E, f).to(dtype); C[E] = f; " + BX),
 ("remembered_valid", "wrong", "def ", "C = {}\ndef ", BW, "w = C.setdefault(N, valid).to(dtype)"),
 ("one_per_mille", "wrong", BX, BX + " * 1.001"),
 ("coefficient", "wrong", BX, "return 0.01 * E * (f * m).sum()"),
 ("plus_z_loss", "wrong", BX, BX + " + 1e-3 * logits.to(dtype).logsumexp(-1).pow(2).mean()"),
 ("first_half_of_tokens", "wrong", BW, "w = valid.to(dtype) * (torch.arange(N) < max(N // 2, 1))"),
 ("max_for_sum", "wrong", BX, "return E * (f * m).max()"),
 ("probability_of_asked", "wrong", BX, "return E * (p.gather(1, expert_ids) * w[:, None]).sum() / (tokens * expert_ids.shape[1])"),
 ("m_renormalised_on_asked", "wrong", BX, "m = m * (f > 0); m = m / m.sum().clamp(min=1e-9); " + BX),
])

# ------------------------------------------------------------ 7.4
CAP = '''
import torch
import torch.nn.functional as F
def drop_tokens(expert_ids, num_experts, capacity):
    N, K = expert_ids.shape
    load = [0] * num_experts
    kept = torch.zeros(N, K, dtype=torch.bool)
    for n in range(N):
        for k in range(K):
            e = int(expert_ids[n, k])
            if load[e] < capacity:
                kept[n, k] = True
                load[e] += 1
    return kept
'''
KL = "load = [0] * num_experts"
K0 = "kept = torch.zeros(N, K, dtype=torch.bool)"
KN = "for n in range(N):"
KK = "for k in range(K):"
KI = "if load[e] < capacity:"
KT = "kept[n, k] = True"
KA = "load[e] += 1"
KR = "return kept"
KB = CAP[CAP.index(KL):].rstrip()
fam("7.4", CAP, [
 ("base", "right"),
 ("slots_backwards", "right", KK, "for k in reversed(range(K)):"),
 ("counts_dropped_too", "right", KI + "\n                " + KT + "\n                " + KA, KT.replace("True", "load[e] < capacity") + "\n            " + KA),
 ("room_left", "right", KL, "load = [capacity] * num_experts", KI, "if load[e]:", KA, "load[e] -= 1"),
 ("onehot_cumsum", "right", KB, "hot = F.one_hot(expert_ids.flatten(), num_experts); place = (hot.cumsum(0) * hot).sum(-1); return (place <= capacity).view(N, K)"),
 ("cumsum_exclusive", "right", KB, "hot = F.one_hot(expert_ids, num_experts).flatten(0, 1); before = (hot.cumsum(0) - hot).gather(1, expert_ids.reshape(-1, 1)); return before.lt(capacity).view_as(expert_ids)"),
 ("cumsum_of_tokens", "right", KB, "hot = F.one_hot(expert_ids, num_experts).sum(1); before = hot.cumsum(0) - hot; return before.gather(1, expert_ids) < capacity"),
 ("first_by_expert", "right", KB, "flat = expert_ids.reshape(-1); kept = torch.zeros_like(flat, dtype=torch.bool)\n    for e in range(num_experts): kept[(flat == e).nonzero()[:, 0][:capacity]] = True\n    return kept.reshape(N, K)"),
 ("stable_sort", "right", KB, "flat = expert_ids.flatten(); order = flat.argsort(stable=True); counts = flat.bincount(minlength=num_experts); start = counts.cumsum(0) - counts\n    place = torch.empty_like(flat); place[order] = torch.arange(N * K) - start[flat[order]]; return (place < capacity).view(N, K)"),
 ("pairs_compared", "right", KB, "flat = expert_ids.flatten(); same = flat[:, None] == flat[None, :]; return (same.tril(-1).sum(1) < capacity).view(N, K)"),
 ("lists", "right", KB, "seen, rows = [], []\n    for ids in expert_ids.tolist():\n        rows.append([seen.count(e) < capacity for e in ids]); seen += ids\n    return torch.tensor(rows, dtype=torch.bool).view(N, K)"),
 ("dict_of_counts", "right", KL, "load = {}", KI, "load.setdefault(e, 0)\n            if load[e] < capacity:"),
 ("recursion", "right", KB, "if N == 0: return expert_ids.bool()\n    head = drop_tokens(expert_ids[:-1], num_experts, capacity)\n    full = torch.stack([(expert_ids[:-1] == e).sum() < capacity for e in expert_ids[-1]]); return torch.cat([head, full[None]])"),
 ("masks_by_expert", "right", KB, "kept = torch.zeros_like(expert_ids).bool()\n    for e in range(num_experts):\n        hit = expert_ids == e; kept |= hit & (hit.flatten().cumsum(0).view(N, K) <= capacity)\n    return kept"),
 ("one_more", "wrong", KI, "if load[e] <= capacity:"),
 ("one_less", "wrong", KI, "if load[e] < capacity - 1:"),
 ("at_least_one", "wrong", KI, "if load[e] < max(capacity, 1):"),
 ("zero_is_unlimited", "wrong", KI, "if not capacity or load[e] < capacity:"),
 ("one_is_enough", "wrong", KI, "if load[e] < min(capacity, 1):"),
 ("capacity_2", "wrong", KI, "if load[e] < 2:"),
 ("capacity_at_most_N_over_E", "wrong", KI, "if load[e] < min(capacity, max(1, N * K // num_experts)):"),
 ("capacity_times_K", "wrong", KI, "if load[e] < capacity * K:"),
 ("capacity_over_K", "wrong", KI, "if load[e] < -(-capacity // K):"),
 ("capacity_of_all", "wrong", KI, "if sum(load) < capacity:"),
 ("capacity_all_experts", "wrong", KI, "if sum(load) < capacity * num_experts:"),
 ("slots_first", "wrong", KN + "\n        " + KK, "for k in range(K):\n        for n in range(N):"),
 ("tokens_backwards", "wrong", KN, "for n in reversed(range(N)):"),
 ("last_kept", "wrong", KB, "hot = F.one_hot(expert_ids.flatten(), num_experts); place = (hot.flip(0).cumsum(0).flip(0) * hot).sum(-1); return (place <= capacity).view(N, K)"),
 ("cumsum_in_token", "wrong", KB, "hot = F.one_hot(expert_ids, num_experts); place = (hot.cumsum(1) * hot).sum(-1); return place <= capacity"),
 ("cumsum_in_slot", "wrong", KB, "hot = F.one_hot(expert_ids, num_experts); place = (hot.cumsum(0) * hot).sum(-1); return place <= capacity"),
 ("cumsum_strict", "wrong", KB, "hot = F.one_hot(expert_ids.flatten(), num_experts); place = (hot.cumsum(0) * hot).sum(-1); return (place < capacity).view(N, K)"),
 ("cumsum_transposed", "wrong", KB, "hot = F.one_hot(expert_ids.t().flatten(), num_experts); place = (hot.cumsum(0) * hot).sum(-1); return (place <= capacity).view(K, N).t()"),
 ("cumsum_reshaped", "wrong", KB, "hot = F.one_hot(expert_ids.t().flatten(), num_experts); place = (hot.cumsum(0) * hot).sum(-1); return (place <= capacity).view(N, K)"),
 ("cumsum_not_own", "wrong", KB, "hot = F.one_hot(expert_ids.flatten(), num_experts); return (hot.cumsum(0).amax(-1) <= capacity).view(N, K)"),
 ("load_of_all", "wrong", KB, "counts = expert_ids.flatten().bincount(minlength=num_experts); return counts[expert_ids] <= capacity"),
 ("int8_places", "wrong", KB, "hot = F.one_hot(expert_ids.flatten(), num_experts).to(torch.int8); place = (hot.cumsum(0, dtype=torch.int8) * hot).sum(-1); return (place <= capacity).view(N, K)"),
 ("bool_places", "wrong", KB, "hot = F.one_hot(expert_ids.flatten(), num_experts).bool(); place = (hot.cumsum(0).bool() & hot).sum(-1); return (place <= capacity).view(N, K)"),
 ("sorted_not_back", "wrong", KB, "flat = expert_ids.flatten().sort().values; counts = flat.bincount(minlength=num_experts); start = counts.cumsum(0) - counts; return (torch.arange(N * K) - start[flat] < capacity).view(N, K)"),
 ("sorted_descending", "wrong", KB, "flat = expert_ids.flatten(); order = flat.argsort(stable=True).flip(0); counts = flat.bincount(minlength=num_experts).flip(0); start = (counts.cumsum(0) - counts).flip(0)\n    place = torch.empty_like(flat); place[order] = torch.arange(N * K) - start[flat[order]]; return (place < capacity).view(N, K)"),
 ("sorted_gathered", "wrong", KB, "flat = expert_ids.flatten(); order = flat.argsort(stable=True); counts = flat.bincount(minlength=num_experts); start = counts.cumsum(0) - counts\n    place = (torch.arange(N * K) - start[flat[order]])[order]; return (place < capacity).view(N, K)"),
 ("token_lost_if_one_full", "wrong", KR, "return kept & kept.all(1, keepdim=True)"),
 ("token_kept_if_one_free", "wrong", KR, "return kept | kept.any(1, keepdim=True)"),
 ("token_checked_first", "wrong", KK, "if any(load[int(e)] >= capacity for e in expert_ids[n]): continue\n        " + KK),
 ("stops_token", "wrong", KA, KA + "\n            else: break"),
 ("stops_all", "wrong", KA, KA + "\n            else: return kept"),
 ("sent_elsewhere", "wrong", KI, "if load[e] >= capacity and min(load) < capacity: e = load.index(min(load))\n            " + KI),
 ("at_least_one_copy", "wrong", KR, "kept[:, 0] |= ~kept.any(1); return kept"),
 ("first_slot_free", "wrong", KI, "if load[e] < capacity or k == 0:"),
 ("first_slot_only", "wrong", KK, "for k in range(1):"),
 ("two_slots", "wrong", KK, "for k in range(min(2, K)):"),
 ("two_slots_always", "wrong", KK, "for k in range(2):"),
 ("last_token_left_out", "wrong", KN, "for n in range(N - 1):"),
 ("load_by_slot", "wrong", KL, "load = [0] * (num_experts * K)", "e = int(expert_ids[n, k])", "e = int(expert_ids[n, k]) * K + k"),
 ("load_by_token", "wrong", KK, "load = [0] * num_experts\n        " + KK),
 ("not_counted", "wrong", KA, "pass"),
 ("counted_once_per_token", "wrong", KA, "load[e] += k == 0"),
 ("inverted", "wrong", KR, "return ~kept"),
 ("inverted_condition", "wrong", KI, "if load[e] >= capacity:"),
 ("integers", "wrong", KR, "return kept.long()"),
 ("floats", "wrong", KR, "return kept.float()"),
 ("marked_ids", "wrong", KR, "return torch.where(kept, expert_ids, -1)"),
 ("flat", "wrong", KR, "return kept.flatten()"),
 ("transposed", "wrong", KR, "return kept.t()"),
 ("by_expert", "wrong", KR, "return F.one_hot(expert_ids, num_experts).bool() & kept[..., None]"),
 ("by_token", "wrong", KR, "return kept.any(1)"),
 ("list", "wrong", KR, "return kept.tolist()"),
 ("kept_indices", "wrong", KR, "return kept.nonzero()"),
 ("with_load", "wrong", KR, "return kept, load"),
 ("squeezed", "wrong", KR, "return kept.squeeze(-1)"),
 ("ids_in_place", "wrong", KR, "expert_ids[~kept] = -1; return kept"),
 ("ids_sorted_in_place", "wrong", KB[:len(KL)], "expert_ids.copy_(expert_ids.sort(-1).values); " + KL),
 ("load_remembered", "wrong", "def ", "C = {}\ndef ", KL, "load = C.setdefault(num_experts, [0] * num_experts)"),
 ("result_remembered", "wrong", "def ", "C = {}\ndef ", KR, "return C.setdefault((N, K, num_experts, capacity), kept)"),
 ("eight_experts", "wrong", KL, "load = [0] * 8"),
 ("four_experts", "wrong", KL, "load = [0] * 4"),
 ("E_by_first_row", "wrong", KL, "load = [0] * (int(expert_ids[0].max()) + 1)"),
 ("ids_from_one", "wrong", "e = int(expert_ids[n, k])", "e = int(expert_ids[n, k]) - 1", KI, "if e < 0 or load[e] < capacity:"),
 ("expert_0_unlimited", "wrong", KI, "if not e or load[e] < capacity:"),
 ("last_expert_dropped", "wrong", KI, "if load[e] < capacity and e < num_experts - 1:"),
 ("same_expert_next_token_only", "wrong", KB, "kept = torch.ones(N, K, dtype=torch.bool); hit = (expert_ids[1:, :, None] == expert_ids[:-1, None, :]).any(-1); kept[1:] = ~hit | (capacity > 1); return kept & (capacity > 0)"),
 ("every_capacity_th", "wrong", KI, "if capacity and load[e] % (capacity + 1) < capacity:", KT + "\n                " + KA, KT + "\n            " + KA),
 ("random_kept", "wrong", KN, "for n in torch.randperm(N).tolist():"),
])
