"""Chapter 12."""

from tests.mutants.from_the_cards import Cards

MUTANTS = Cards()
add, fam = MUTANTS.add, MUTANTS.family

# ------------------------------------------------------------ 12.1
CISPO = '''
import torch
from minim1.train.losses import LossOutput
def policy_loss(logprobs, old_logprobs, advantages, mask, *, total_tokens, total_sequences, max_weight=5.0):
    if max_weight < 1:
        raise ValueError("max_weight caps the ratio itself: at least 1")
    new, old, gain = logprobs[mask], old_logprobs[mask].detach(), advantages[mask].detach()
    weight = torch.exp(new.detach() - old).clamp(max=max_weight)
    loss = -(weight * gain * new).sum() / total_tokens
    return LossOutput(loss)
'''
IF, SEL = "if max_weight < 1:", "new, old, gain = logprobs[mask], old_logprobs[mask].detach(), advantages[mask].detach()"
WEIGHT, LOSS = "weight = torch.exp(new.detach() - old).clamp(max=max_weight)", "loss = -(weight * gain * new).sum() / total_tokens"
PLAIN = "new, old, gain = logprobs, old_logprobs.detach(), advantages.detach()"
FILL = "new, old, gain = (x.masked_fill(~mask, 0) for x in (logprobs, old_logprobs.detach(), advantages.detach()))"
fam("12.1", CISPO, [
    ("base", "right"),
    ("masked_fill", "right", SEL, FILL),
    ("where", "right", SEL, "zero = logprobs.new_zeros(()); new, old, gain = torch.where(mask, logprobs, zero), torch.where(mask, old_logprobs, zero).detach(), torch.where(mask, advantages, zero).detach()"),
    ("cap_the_log", "right", "import torch", "import math\nimport torch", WEIGHT, "weight = (new - old).clamp(max=math.log(max_weight)).exp().detach()"),
    ("dot", "right", LOSS, "loss = torch.dot(weight * gain / -total_tokens, new)"),
    ("minimum", "right", WEIGHT, "weight = torch.minimum((new - old).exp().detach(), torch.full_like(new, max_weight).detach())"),
    ("loss_subclass", "right", "    if max", "    class TooSmall(ValueError): pass\n    if max", 'ValueError("', 'TooSmall("'),
    ("not_detached", "wrong", "new.detach() - old", "new - old"),
    ("cap_plus_one", "wrong", "clamp(max=max_weight)", "clamp(max=1 + max_weight)"),
    ("lower_bound_0.8", "wrong", "clamp(max=max_weight)", "clamp(0.8, max_weight)"),
    ("lower_bound_0.1", "wrong", "clamp(max=max_weight)", "clamp(0.1, max_weight)"),
    ("cap_at_most_10", "wrong", "clamp(max=max_weight)", "clamp(max=min(max_weight, 10.0))"),
    ("cap_on_log", "wrong", WEIGHT, "weight = (new.detach() - old).clamp(max=max_weight).exp()"),
    ("cap_on_product", "wrong", WEIGHT, "weight = torch.exp(new.detach() - old)", LOSS, "loss = -((weight * gain).clamp(max=max_weight) * new).sum() / total_tokens"),
    ("capped_lose_gradient", "wrong", WEIGHT, "weight = torch.exp(new.detach() - old); weight = weight * (weight <= max_weight)"),
    ("inf_times_zero", "wrong", WEIGHT, "weight = torch.exp(new.detach() - old); over = (weight > max_weight).to(weight); weight = weight * (1 - over) + max_weight * over"),
    ("inf_becomes_zero", "wrong", WEIGHT, "weight = torch.exp(new.detach() - old).nan_to_num(0, 0, 0).clamp(max=max_weight)"),
    ("no_check", "wrong", IF, "if False:"),
    ("check_below_or_1", "wrong", IF, "if max_weight <= 1:"),
    ("check_below_half", "wrong", IF, "if max_weight < 0.5:"),
    ("check_1.28_refused", "wrong", IF, "if max_weight < 2:"),
    ("check_refuses_inf", "wrong", IF, "if not 1 <= max_weight < float('inf'):"),
    ("check_asserts", "wrong", IF, "assert max_weight >= 1\n    if False:"),
    ("check_adds_1", "wrong", 'raise ValueError("max_weight caps the ratio itself: at least 1")', "max_weight = 1 + max_weight"),
    ("no_log", "wrong", LOSS, "loss = -(torch.exp(new - old).clamp(max=max_weight) * gain).sum() / total_tokens"),
    ("ppo_min", "wrong", LOSS, "r = torch.exp(new - old); loss = -torch.minimum(r * gain, r.clamp(max=max_weight) * gain).sum() / total_tokens"),
    ("log_ratio_for_log", "wrong", "gain * new)", "gain * (new - old))"),
    ("old_not_constant", "wrong", "old_logprobs[mask].detach()", "old_logprobs[mask]"),
    ("own_tokens", "wrong", "/ total_tokens", "/ mask.sum().clamp(min=1)"),
    ("mask_times_nan_to_num", "wrong", SEL, PLAIN, "new).sum()", "new * mask).nan_to_num(0).sum()"),
    ("where_after", "wrong", SEL, PLAIN, "(weight * gain * new).sum()", "torch.where(mask, weight * gain * new, 0).sum()"),
    ("fill_weight_only", "wrong", SEL, PLAIN, WEIGHT, WEIGHT + ".masked_fill(~mask, 0)"),
    ("empty_nan", "wrong", LOSS, "loss = -(weight * gain * new).mean() * (len(new) / total_tokens)"),
    ("fp32_weight", "wrong", "torch.exp(new.detach() - old)", "torch.exp(new.detach().float() - old.float())"),
    ("in_place_old", "wrong", SEL, "old_logprobs.data.masked_fill_(~mask, 0); " + SEL),
    ("relative_1e-3", "wrong", LOSS, LOSS + " * 1.001"),
    ("cached_weight", "wrong", "def policy", "SEEN = {}\ndef policy", WEIGHT, WEIGHT + "\n    weight = SEEN.setdefault(len(weight), weight)"),
])
add("12.1", "token_loop", "right", '''
import math
import torch
from minim1.train.losses import LossOutput
def policy_loss(logprobs, old_logprobs, advantages, mask, *, total_tokens, total_sequences, max_weight=5.0):
    if not max_weight >= 1:
        raise ValueError(max_weight)
    loss = torch.zeros((), dtype=logprobs.dtype)
    for b in range(mask.shape[0]):
        for t in range(mask.shape[1]):
            if mask[b, t]:
                log_ratio = logprobs[b, t].item() - old_logprobs[b, t].item()
                weight = max_weight if log_ratio >= math.log(max_weight) else math.exp(log_ratio)
                loss = loss - weight * advantages[b, t].item() * logprobs[b, t] / total_tokens
    return LossOutput(loss)
''')
add("12.1", "no_grad_coefficients", "right", '''
import torch
from minim1.train.losses import LossOutput
def policy_loss(logprobs, old_logprobs, advantages, mask, *, total_tokens, total_sequences, max_weight=5.0):
    if max_weight < 1.0:
        raise ValueError("max_weight")
    with torch.no_grad():
        ratio = (logprobs - old_logprobs).exp()
        ratio[ratio > max_weight] = max_weight
        coefficient = torch.where(mask, ratio * advantages, torch.zeros_like(ratio))
    safe = torch.where(mask, logprobs, torch.zeros_like(logprobs))
    return LossOutput((coefficient * safe).sum().neg() / total_tokens, {})
''')
add("12.1", "by_hand_gradient", "right", '''
import torch
from minim1.train.losses import LossOutput
class Weighted(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logprobs, coefficient, mask):
        ctx.save_for_backward(coefficient)
        return (coefficient[mask] * logprobs[mask]).sum()
    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0], None, None
def policy_loss(logprobs, old_logprobs, advantages, mask, *, total_tokens, total_sequences, max_weight=5.0):
    if max_weight < 1:
        raise ValueError
    coefficient = torch.zeros_like(logprobs).detach()
    coefficient[mask] = -(logprobs.detach()[mask] - old_logprobs.detach()[mask]).exp().clamp_max(max_weight) * advantages.detach()[mask] / total_tokens
    return LossOutput(Weighted.apply(logprobs, coefficient, mask))
''')

# ------------------------------------------------------------ 12.2
UNIFIED = '''
import torch
def unified_loss(logprobs, old_logprobs, advantages, mask, *, total_tokens,
                 max_weight=float("inf"), eps_low=float("inf"), eps_high=float("inf")):
    new, old, gain = logprobs[mask], old_logprobs[mask].detach(), advantages[mask].detach()
    ratio = torch.exp(new.detach() - old)
    high = (gain > 0) & (ratio > 1 + eps_high)
    low = (gain < 0) & (ratio < 1 - eps_low)
    weight = ratio.clamp(max=max_weight)
    keep = ~(high | low)
    loss = -(keep * weight * gain * new).sum() / total_tokens
    return loss
'''
RATIO, KEEP, WGT, LOSS = "ratio = torch.exp(new.detach() - old)", "keep = ~(high | low)", "weight = ratio.clamp(max=max_weight)", "loss = -(keep * weight * gain * new).sum() / total_tokens"
fam("12.2", UNIFIED, [
    ("base", "right"),
    ("masked_fill", "right", SEL, FILL),
    ("fill_weight", "right", KEEP, "weight = weight.masked_fill(high, 0).masked_fill(low, 0)", "keep * ", ""),
    ("select_again", "right", LOSS, "loss = -(weight[keep] * gain[keep] * new[keep]).sum() / total_tokens"),
    ("where_terms", "right", LOSS, "loss = torch.where(keep, weight * gain * new, torch.zeros_like(new)).sum() / -total_tokens"),
    ("minimum", "right", WGT, "weight = torch.minimum(ratio, torch.tensor(max_weight, dtype=ratio.dtype))"),
    ("where_cases", "right", KEEP, "keep = torch.where(gain > 0, ratio <= 1 + eps_high, (ratio >= 1 - eps_low) | (gain == 0))"),
    ("mask_asks_capped", "wrong", "    high", "    ratio = ratio.clamp(max=max_weight)\n    high"),
    ("high_equal", "wrong", "ratio > 1", "ratio >= 1"),
    ("low_equal", "wrong", "ratio < 1", "ratio <= 1"),
    ("zero_is_off_high", "wrong", KEEP, "keep = ~(high | low) if eps_high else ~low"),
    ("zero_is_off_low", "wrong", KEEP, "keep = ~(high | low) if eps_low else ~high"),
    ("eps_swapped", "wrong", "1 + eps_high", "1 + eps_low", "1 - eps_low", "1 - eps_high"),
    ("eps_high_twice", "wrong", "1 - eps_low", "1 - eps_high"),
    ("both_sides_positive", "wrong", "(gain < 0) & ", ""),
    ("inverse_low", "wrong", "1 - eps_low", "1 / (1 + eps_low)"),
    ("low_at_least_0.1", "wrong", "1 - eps_low", "max(0.1, 1 - eps_low)"),
    ("low_abs", "wrong", "1 - eps_low", "abs(1 - eps_low)"),
    ("needs_both_eps", "wrong", KEEP, "keep = ~(high | low) if max(eps_low, eps_high) < float('inf') else torch.ones_like(high)"),
    ("cap_or_mask", "wrong", KEEP, "keep = ~(high | low) if max_weight == float('inf') else torch.ones_like(high)"),
    ("mask_turns_cap_off", "wrong", WGT, "weight = ratio.clamp(max=max_weight) if eps_low == eps_high == float('inf') else ratio"),
    ("cap_5_default", "wrong", 'max_weight=float("inf")', "max_weight=5.0"),
    ("cap_is_one_plus_eps", "wrong", WGT, "weight = ratio.clamp(max=min(max_weight, 1 + eps_high))"),
    ("clip_not_mask", "wrong", KEEP, "keep = 1; weight = weight.clamp(1 - eps_low, 1 + eps_high)"),
    ("cap_masks", "wrong", KEEP, "keep = ~(high | low | (ratio > max_weight))"),
    ("not_detached", "wrong", "new.detach() - old", "new - old"),
    ("surrogate", "wrong", "weight * gain * new", "weight * gain * torch.exp(new - new.detach())"),
    ("ppo_value", "wrong", LOSS, "r = torch.exp(new - old); loss = -torch.minimum(r * gain, r.clamp(1 - eps_low, 1 + eps_high) * gain).sum() / total_tokens"),
    ("old_not_constant", "wrong", "old_logprobs[mask].detach()", "old_logprobs[mask]"),
    ("kept_tokens", "wrong", "/ total_tokens", "/ keep.sum().clamp(min=1)"),
    ("where_after", "wrong", SEL, PLAIN, "(keep * weight * gain * new).sum()", "torch.where(mask & keep, weight * gain * new, 0).sum()"),
    ("loss_output", "wrong", "import torch", "import torch\nfrom minim1.train.losses import LossOutput", "return loss", "return LossOutput(loss)"),
    ("fp32_ratio", "wrong", RATIO, "ratio = torch.exp((new.detach() - old).float())"),
    ("ratio_at_most_100", "wrong", RATIO, RATIO + ".clamp(max=100)"),
    ("in_place", "wrong", SEL, "advantages.data.masked_fill_(~mask, 0); logprobs.data.masked_fill_(~mask, 0); " + SEL),
    ("empty_nan", "wrong", LOSS, "loss = -(keep * weight * gain * new).mean() * (len(new) / total_tokens)"),
    ("cached_keep", "wrong", "def unified", "SEEN = {}\ndef unified", KEEP, KEEP + "; keep = SEEN.setdefault(len(keep), keep)"),
])
add("12.2", "token_loop", "right", '''
import math
import torch
def unified_loss(logprobs, old_logprobs, advantages, mask, *, total_tokens, max_weight=math.inf, eps_low=math.inf, eps_high=math.inf):
    loss = logprobs.new_zeros(())
    for b, t in mask.nonzero().tolist():
        a = float(advantages[b, t])
        r = float(torch.exp(logprobs[b, t].detach() - old_logprobs[b, t].detach()))
        if (a > 0 and r > 1 + eps_high) or (a < 0 and r < 1 - eps_low):
            continue
        loss = loss - min(r, max_weight) * a * logprobs[b, t] / total_tokens
    return loss
''')
add("12.2", "no_grad_coefficients", "right", '''
import torch
def unified_loss(logprobs, old_logprobs, advantages, mask, *, total_tokens, max_weight=float("inf"), eps_low=float("inf"), eps_high=float("inf")):
    with torch.no_grad():
        r = torch.exp(logprobs - old_logprobs)
        kept = mask & torch.where(advantages > 0, r <= 1 + eps_high, torch.where(advantages < 0, r >= 1 - eps_low, mask))
        coefficient = torch.where(kept, torch.clip(r, max=max_weight) * advantages, torch.zeros_like(r)) / -total_tokens
    return torch.where(kept, logprobs, torch.zeros_like(logprobs)).flatten() @ coefficient.flatten()
''')

# ------------------------------------------------------------ 12.3
DYNAMIC = '''
def dynamic_sampling(stream, wanted, limit):
    kept, drawn = [], 0
    while len(kept) < wanted and drawn < limit:
        try:
            group = next(stream)
        except StopIteration:
            break
        drawn += 1
        prompt, rewards = group
        if any(reward != rewards[0] for reward in rewards):
            kept.append(group)
    return kept, drawn
'''
IF, WHILE = "if any(reward != rewards[0] for reward in rewards):", "while len(kept) < wanted and drawn < limit:"
fam("12.3", DYNAMIC, [
    ("base", "right"),
    ("set", "right", IF, "if len(set(rewards)) > 1:"),
    ("min_max", "right", IF, "if min(rewards) < max(rewards):"),
    ("count", "right", IF, "if rewards.count(rewards[-1]) < len(rewards):"),
    ("neighbours", "right", IF, "if any(a != b for a, b in zip(rewards, rewards[1:])):"),
    ("sorted", "right", IF, "ordered = sorted(rewards)\n        if ordered[0] != ordered[-1]:"),
    ("new_pairs", "right", "kept.append(group)", "kept += [(prompt, rewards)]"),
    ("one_too_many", "wrong", "len(kept) < wanted", "len(kept) <= wanted"),
    ("limit_plus_one", "wrong", "drawn < limit", "drawn <= limit"),
    ("limit_on_kept", "wrong", "drawn < limit", "len(kept) < limit and drawn < 10000"),
    ("limit_ignored", "wrong", "drawn < limit", "drawn < max(limit, 1000)"),
    ("draws_first_breaks_after", "wrong", WHILE, "while True:", "        drawn += 1", "        if len(kept) >= wanted or drawn >= limit:\n            break\n        drawn += 1"),
    ("counts_kept", "wrong", "        drawn += 1\n", "", "kept.append(group)", "kept.append(group)\n            drawn += 1"),
    ("drawn_before_end", "wrong", "        try", "        drawn += 1\n        try", "        drawn += 1\n        prompt", "        prompt"),
    ("stop_iteration", "wrong", "except StopIteration:\n            break", "except KeyError:\n            break"),
    ("end_returns_nothing", "wrong", "            break", "            return [], drawn"),
    ("too_few_is_empty", "wrong", "return kept, drawn", "return (kept if len(kept) == wanted else []), drawn"),
    ("first_and_last", "wrong", IF, "if rewards[0] != rewards[-1]:"),
    ("first_two", "wrong", IF, "if rewards[0] != rewards[1]:"),
    ("first_two_guarded", "wrong", IF, "if len(set(rewards[:2])) > 1:"),
    ("sum_not_extreme", "wrong", IF, "if sum(rewards) not in (0, len(rewards)):"),
    ("any_and_not_all", "wrong", IF, "if any(rewards) and not all(rewards):"),
    ("all_different", "wrong", IF, "if len(set(rewards)) == len(rewards) > 1:"),
    ("tolerance_1e-6", "wrong", IF, "if max(rewards) - min(rewards) > 1e-6:"),
    ("isclose", "wrong", "def dyn", "import math\ndef dyn", IF, "if not all(math.isclose(r, rewards[0]) for r in rewards):"),
    ("as_bools", "wrong", IF, "if len({r > 0 for r in rewards}) > 1:"),
    ("fp32", "wrong", "def dyn", "import torch\ndef dyn", IF, "if torch.tensor(rewards).std(correction=0) > 0:"),
    ("distance_from_mean", "wrong", IF, "if any(r != sum(rewards) / len(rewards) for r in rewards):"),
    ("abs", "wrong", IF, "if len({abs(r) for r in rewards}) > 1:"),
    ("same_prompt_once", "wrong", IF, "if len(set(rewards)) > 1 and prompt not in [p for p, _ in kept]:"),
    ("same_group_once", "wrong", IF, "if len(set(rewards)) > 1 and group not in kept:"),
    ("sorts_rewards", "wrong", IF, "rewards.sort()\n        " + IF),
    ("state", "wrong", "def dyn", "KEPT = []\ndef dyn", "kept, drawn = [], 0", "kept, drawn = KEPT, 0"),
])
add("12.3", "draws_the_limit", "wrong", '''
from itertools import islice
def dynamic_sampling(stream, wanted, limit):
    groups = list(islice(stream, min(limit, 10000)))
    kept = [g for g in groups if len(set(g[1])) > 1]
    return kept[:wanted], len(groups)
''')
add("12.3", "draws_batches", "wrong", '''
from itertools import islice
def dynamic_sampling(stream, wanted, limit):
    kept, drawn = [], 0
    while len(kept) < wanted and drawn < limit:
        groups = list(islice(stream, min(wanted, limit - drawn)))
        if not groups:
            break
        drawn += len(groups)
        kept += [g for g in groups if len(set(g[1])) > 1]
    return kept[:wanted], drawn
''')
add("12.3", "enumerate_stream", "wrong", '''
def dynamic_sampling(stream, wanted, limit):
    kept, drawn = [], 0
    for drawn, group in enumerate(stream):
        if len(kept) == wanted or drawn == limit:
            break
        if len(set(group[1])) > 1:
            kept.append(group)
    return kept, drawn
''')
add("12.3", "zip_stream_first", "wrong", '''
def dynamic_sampling(stream, wanted, limit):
    kept, drawn = [], 0
    for group, drawn in zip(stream, range(1, limit + 1)):
        if len(set(group[1])) > 1:
            kept.append(group)
        if len(kept) == wanted:
            break
    return kept, drawn
''')
add("12.3", "islice", "right", '''
from itertools import islice
def dynamic_sampling(stream, wanted, limit):
    kept, drawn = [], 0
    for drawn, (prompt, rewards) in enumerate(islice(stream, limit), 1):
        if max(rewards) != min(rewards):
            kept.append((prompt, rewards))
            if len(kept) == wanted:
                break
    return kept, drawn
''')
add("12.3", "zip_range_first", "right", '''
def dynamic_sampling(stream, wanted, limit):
    kept, drawn = [], 0
    for number, group in zip(range(limit), stream):
        drawn = number + 1
        if len(set(group[1])) != 1:
            kept.append(group)
        if len(kept) == wanted:
            return kept, drawn
    return kept, drawn
''')
add("12.3", "generator", "right", '''
def dynamic_sampling(stream, wanted, limit):
    drawn = 0
    def useful():
        nonlocal drawn
        while drawn < limit:
            for group in stream:
                drawn += 1
                if not all(r == group[1][0] for r in group[1]):
                    yield group
                break
            else:
                return
    groups = useful()
    kept = [group for _, group in zip(range(wanted), groups)]
    return kept, drawn
''')

# ------------------------------------------------------------ 12.4
OVER = '''
def overlong_penalty(length, max_length, buffer):
    start = max_length - buffer
    if length <= start:
        return 0.0
    if length >= max_length:
        return -1.0
    return (start - length) / buffer
'''
SLOPE = "return (start - length) / buffer"
fam("12.4", OVER, [
    ("base", "right"),
    ("fraction", "right", SLOPE, "return -((length - start) / buffer)"),
    ("plus_max", "right", SLOPE, "return (max_length - length) / buffer - 1"),
    ("start_exclusive", "right", "if length >= max_length", "if length - max_length >= 0"),
    ("no_lower_bound", "wrong", "    if length >= max_length:\n        return -1.0\n", ""),
    ("no_lower_bound_but_0", "wrong", "if length >= max_length:", "if buffer == 0:"),
    ("positive", "wrong", "(start - length)", "(length - start)", "-1.0", "1.0"),
    ("slope_positive", "wrong", "(start - length)", "(length - start)"),
    ("other_slope", "wrong", SLOPE, "return (length - max_length) / buffer"),
    ("over_max_length", "wrong", "/ buffer", "/ max_length"),
    ("over_buffer_plus_1", "wrong", "/ buffer", "/ (buffer + 1)"),
    ("floor_division", "wrong", "/ buffer", "// buffer"),
    ("start_plus_1", "wrong", "start = max_length - buffer", "start = max_length - buffer + 1"),
    ("start_minus_1", "wrong", "start = max_length - buffer", "start = max_length - buffer - 1"),
    ("start_is_buffer", "wrong", "start = max_length - buffer", "start = buffer"),
    ("slope_beyond", "wrong", "start = max_length - buffer", "start = max_length; max_length = max_length + buffer"),
    ("buffer_0_divides", "wrong", "    if length <= start:\n        return 0.0\n    if length >= max_length:\n        return -1.0\n", "    if length > max_length and buffer: return -1.0\n", SLOPE, "return max(-1.0, min(0.0, (start - length) / buffer))"),
    ("minus_one_first", "wrong", "    if length <= start:\n        return 0.0\n    if length >= max_length:\n        return -1.0\n", "    if length >= max_length:\n        return -1.0\n    if length <= start:\n        return 0.0\n"),
    ("buffer_0_never", "wrong", "    start", "    if buffer == 0: return 0.0\n    start"),
    ("buffer_0_at_max", "wrong", "    start", "    if buffer == 0: return -float(length >= max_length)\n    start"),
    ("buffer_0_is_1", "wrong", "    start", "    buffer = max(buffer, 1)\n    start"),
    ("step", "wrong", SLOPE, "return 0.0"),
    ("square", "wrong", SLOPE, "return -((start - length) / buffer) ** 2"),
    ("none_at_max", "wrong", "length >= max_length:\n        return -1.0", "length > max_length:\n        return -1.0\n    if length == max_length:\n        return 0.0"),
    ("tensor", "wrong", "def over", "import torch\ndef over", SLOPE, "return torch.tensor((start - length) / buffer)"),
    ("rounded_2", "wrong", SLOPE, "return round((start - length) / buffer, 2)"),
    ("fixed_buffer", "wrong", "/ buffer", "/ 20"),
    ("deepest_slope", "wrong", "length >= max_length", "length >= max_length - 1"),
    ("buffer_whole", "wrong", "    start", "    if buffer == max_length: return 0.0\n    start"),
])
add("12.4", "clamped", "right", '''
def overlong_penalty(length, max_length, buffer):
    over = length - (max_length - buffer)
    return float(-min(1.0, max(0.0, over / buffer))) if buffer else float(-(over > 0))
''')
add("12.4", "over_of", "right", '''
def overlong_penalty(length, max_length, buffer):
    over = min(max(length - max_length + buffer, 0), max(buffer, 1))
    return -over / max(buffer, 1)
''')
add("12.4", "numpy", "right", '''
import numpy as np
def overlong_penalty(length, max_length, buffer):
    if buffer == 0:
        return -1.0 if length > max_length else 0.0
    return float(np.interp(length, [max_length - buffer, max_length], [0.0, -1.0]))
''')
add("12.4", "torch_clamp", "right", '''
import torch
def overlong_penalty(length, max_length, buffer):
    if length <= max_length - buffer:
        return 0.0
    return torch.tensor(float(max_length - buffer - length) / max(buffer, 1), dtype=torch.float64).clamp(-1, 0).item()
''')
