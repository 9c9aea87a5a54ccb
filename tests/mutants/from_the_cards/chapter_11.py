"""Chapter 11."""

from tests.mutants.from_the_cards import Cards

MUTANTS = Cards()
add, fam = MUTANTS.add, MUTANTS.family

# ------------------------------------------------------------ 11.1
REWARD = r'''
import re
def reward(prompts, completions, *, problem, **columns):
    tags = ("<think>", "</think>", "<end_of_sentence>", "<beginning_of_sentence>", "<begin_of_document>")
    symbol = r"⟨(0|[1-9]|1[01])⟩"
    scores = []
    for completion, one in zip(completions, problem):
        match = re.fullmatch(r"<think>\n(.*)\n</think>\n" + symbol + symbol + r"<end_of_sentence>\n", completion, re.DOTALL)
        score = 0.0
        if match and not any(tag in match[1] for tag in tags):
            a, b = int(match[2]), int(match[3])
            numbers, target = one.data["numbers"], one.data["target"]
            if a != b and a in numbers and b in numbers and (a + b) % 12 == target:
                score = 1.0
        scores.append(score)
    return scores
'''
SYM, FULL, END = r'''r"⟨(0|[1-9]|1[01])⟩"''', "re.fullmatch(", r'''r"<end_of_sentence>\n", completion'''
TEST = 'if a != b and a in numbers and b in numbers and (a + b) % 12 == target:'
fam("11.1", REWARD, [
    ("base", "right"),
    ("lazy_regex", "right", "(.*)", "(.*?)"),
    ("either_sum", "right", "(a + b) % 12 == target", "(a + b == target or a + b == target + 12)"),
    ("counts_on_the_whole", "right", "not any(tag in match[1] for tag in tags)", "[completion.count(tag) for tag in tags] == [1, 1, 1, 0, 0]"),
    ("lookahead", "right", "(.*)", "((?:(?!<think>|</think>|<end_of_sentence>|<beginning_of_sentence>|<begin_of_document>).)*)", " and not any(tag in match[1] for tag in tags)", ""),
    ("match_Z", "right", FULL, "re.match(", END, r'''r"<end_of_sentence>\n\Z", completion'''),
    ("prefix", "wrong", FULL, "re.match("),
    ("dollar", "wrong", FULL, "re.match(", END, r'''r"<end_of_sentence>\n$", completion'''),
    ("newline_optional", "wrong", END, r'''r"<end_of_sentence>\n?", completion'''),
    ("one_line", "wrong", ", re.DOTALL", ""),
    ("empty_thinking_refused", "wrong", "(.*)", "(.+)"),
    ("think_newlines_as_text", "wrong", r"<think>\n(.*)\n</think>", r"<think>(.*)</think>"),
    ("think_end_newline_optional", "wrong", r"(.*)\n</think>", r"(.*?)\n?</think>"),
    ("no_angle_in_thinking", "wrong", "(.*)", "([^<]*)"),
    ("tags_unchecked", "wrong", " and not any(tag in match[1] for tag in tags)", ""),
    ("no_bod", "wrong", "in tags)", "in tags[:4])"),
    ("tags_as_whole_lines", "wrong", "tag in match[1]", "tag in match[1].splitlines()"),
    ("leading_zeros", "wrong", SYM, r'r"⟨(\d+)⟩"'),
    ("unicode_digits", "wrong", SYM, r'r"⟨(\d|1[01])⟩"'),
    ("no_zero", "wrong", SYM, r'r"⟨([1-9]|1[01])⟩"'),
    ("int_of_anything", "wrong", SYM, r'r"⟨([ 0-9_+]+?)⟩"'),
    ("raises_on_symbol", "wrong", SYM, r'r"⟨([^⟩]*)⟩"'),
    ("same_twice", "wrong", "a != b and ", ""),
    ("str_in_str", "wrong", "a in numbers and b in numbers", "str(a) in str(numbers) and str(b) in str(numbers)"),
    ("no_modulo", "wrong", "(a + b) % 12", "(a + b)"),
    ("in_listed_order", "wrong", TEST, "if a in numbers and b in numbers and numbers.index(a) < numbers.index(b) and (a + b) % 12 == target:"),
    ("neighbours", "wrong", "a != b and a in numbers and b in numbers", "any({a, b} == {x, y} for x, y in zip(numbers, numbers[1:]))"),
    ("answer_either_way", "wrong", TEST, 'if one.answer in (f"⟨{a}⟩⟨{b}⟩", f"⟨{b}⟩⟨{a}⟩"):'),
    ("first_problem", "wrong", 'one.data["numbers"], one.data["target"]', 'problem[0].data["numbers"], problem[0].data["target"]'),
    ("mean_of_none", "wrong", "return scores", "best = max(scores); return scores"),
    ("wrong_sums_judged", "wrong", "a != b and", 'all((int(x) + int(y)) % 12 == int(z) for x, y, z in re.findall(r"⟨([0-9]+)⟩⟨([0-9]+)⟩⟨([0-9]+)⟩", match[1])) and a != b and'),
    ("cached", "wrong", "def reward", "SEEN = {}\ndef reward", "scores.append(score)", "scores.append(SEEN.setdefault(completion, score))"),
    ("length_limit", "wrong", "if match and", "if match and len(completion) < 500 and"),
])
add("11.1", "enumerate_pairs", "right", r'''
from itertools import permutations
def reward(prompts, completions, *, problem, **columns):
    def score(text, data):
        for a, b in permutations(data["numbers"], 2):
            end = f"\n</think>\n⟨{a}⟩⟨{b}⟩<end_of_sentence>\n"
            if (a + b) % 12 == data["target"] and text.startswith("<think>\n") and text.endswith(end) and len(text) >= 8 + len(end):
                inner = text[8:len(text) - len(end)]
                return float(all(inner.find(t) < 0 for t in ["<think>", "</think>", "<end_of_sentence>", "<beginning_of_sentence>", "<begin_of_document>"]))
        return 0.0
    return [score(text, p.data) for text, p in zip(completions, problem)]
''')
add("11.1", "partition", "right", r'''
def reward(prompts, completions, *, problem, **columns):
    out = []
    for text, p in zip(completions, problem):
        head, middle, tail = text.partition("\n</think>\n")
        pairs = [f"⟨{a}⟩⟨{b}⟩<end_of_sentence>\n" for a in p.data["numbers"] for b in p.data["numbers"] if a != b and (a + b - p.data["target"]) % 12 == 0]
        thinking = head[len("<think>\n"):]
        good = bool(middle) and head.startswith("<think>\n") and tail in pairs
        for tag in ("think", "/think", "end_of_sentence", "beginning_of_sentence", "begin_of_document"):
            good = good and f"<{tag}>" not in thinking
        out.append(1.0 if good else 0.0)
    return out
''')
add("11.1", "try_split", "right", r'''
def reward(prompts, completions, *, problem, **columns):
    names = {f"⟨{n}⟩": n for n in range(12)}
    def solve(text, p):
        try:
            thinking, answer = text.removeprefix("<think>\n").split("\n</think>\n")
            assert text[:8] == "<think>\n" and answer[-18:] == "<end_of_sentence>\n"
            cut = answer.index("⟩") + 1
            a, b = names[answer[:cut]], names[answer[cut:-18]]
            assert "<think>" not in thinking and "</think>" not in thinking and "<end_of_sentence>" not in thinking
            assert "<beginning_of_sentence>" not in thinking and "<begin_of_document>" not in thinking
            assert len({a, b} & set(p.data["numbers"])) == 2 and (a + b) % 12 == p.data["target"]
            return 1.0
        except (ValueError, KeyError, AssertionError, IndexError):
            return 0.0
    return list(map(solve, completions, problem))
''')
add("11.1", "split_raises", "wrong", r'''
import re
def reward(prompts, completions, *, problem, **columns):
    out = []
    for text, p in zip(completions, problem):
        thinking, answer = text.split("</think>\n")
        a, b = re.findall(r"⟨(\d+)⟩", answer)
        a, b = int(a), int(b)
        out.append(float(a != b and {a, b} <= set(p.data["numbers"]) and (a + b) % 12 == p.data["target"]))
    return out
''')
add("11.1", "splitlines", "wrong", r'''
import re
def reward(prompts, completions, *, problem, **columns):
    out = []
    for text, p in zip(completions, problem):
        lines = text.splitlines()
        found = len(lines) >= 4 and lines[0] == "<think>" and lines[-2] == "</think>" and re.fullmatch("⟨(0|[1-9]|1[01])⟩⟨(0|[1-9]|1[01])⟩<end_of_sentence>", lines[-1])
        inner = "\n".join(lines[1:-2])
        if found and not any(t in inner for t in ("<think>", "</think>", "<end_of_sentence>", "<beginning_of_sentence>", "<begin_of_document>")):
            a, b = int(found[1]), int(found[2])
            out.append(float(a != b and {a, b} <= set(p.data["numbers"]) and (a + b) % 12 == p.data["target"]))
        else:
            out.append(0.0)
    return out
''')
add("11.1", "last_pair_anywhere", "wrong", r'''
import re
def reward(prompts, completions, *, problem, **columns):
    out = []
    for text, p in zip(completions, problem):
        found = re.findall(r"⟨([0-9]|1[01])⟩⟨([0-9]|1[01])⟩<end_of_sentence>\n", text)
        a, b = map(int, found[-1]) if found else (0, 0)
        out.append(float(a != b and {a, b} <= set(p.data["numbers"]) and (a + b) % 12 == p.data["target"]))
    return out
''')

# ------------------------------------------------------------ 11.2
ADV = '''
import torch
def advantages(rewards):
    mean = rewards.mean(1, keepdim=True)
    centred = rewards - mean
    std = centred.square().mean(1, keepdim=True).sqrt()
    same = (rewards == rewards[:, :1]).all(1, keepdim=True)
    return torch.where(same, torch.zeros_like(rewards), centred / (std + 1e-6))
'''
STD, SAME, RET = "std = centred.square().mean(1, keepdim=True).sqrt()", "same = (rewards == rewards[:, :1]).all(1, keepdim=True)", "return torch.where(same, torch.zeros_like(rewards), centred / (std + 1e-6))"
fam("11.2", ADV, [
    ("base", "right"),
    ("torch_std", "right", STD, "std = rewards.std(1, keepdim=True, correction=0)"),
    ("var_unbiased_false", "right", STD, "std = torch.var(rewards, dim=1, unbiased=False, keepdim=True) ** 0.5"),
    ("min_max", "right", SAME, "same = rewards.amin(1, keepdim=True) == rewards.amax(1, keepdim=True)", RET, "return (centred / (std + 1e-6)).masked_fill(same, 0)"),
    ("index_assignment", "right", RET, "out = centred / (std + 1e-6); out[same[:, 0]] = 0; return out"),
    ("norm", "right", STD, "std = torch.linalg.vector_norm(centred, dim=1, keepdim=True) / rewards.shape[1] ** 0.5"),
    ("multiply_by_different", "right", RET, "return centred / (std + 1e-6) * ~same"),
    ("zero_the_centred", "right", STD, "centred = centred.masked_fill((rewards == rewards[:, :1]).all(1, keepdim=True), 0); " + STD),
    ("sample_std", "wrong", STD, "std = rewards.std(1, keepdim=True)"),
    ("sample_std_G1_guarded", "wrong", STD, "std = centred.square().sum(1, keepdim=True).div(max(rewards.shape[1] - 1, 1)).sqrt()"),
    ("eps_inside_root", "wrong", STD, "std = (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()", "(std + 1e-6)", "std"),
    ("no_eps", "wrong", "(std + 1e-6)", "std"),
    ("eps_1e-8", "wrong", "1e-6", "1e-8"),
    ("eps_1e-5", "wrong", "1e-6", "1e-5"),
    ("eps_as_clamp", "wrong", "(std + 1e-6)", "std.clamp(min=1e-6)"),
    ("nearly_zero", "wrong", RET, "return centred / (std + 1e-6)"),
    ("std_is_zero", "wrong", SAME, "same = std == 0"),
    ("std_below_1e-6", "wrong", SAME, "same = std < 1e-6"),
    ("std_below_1e-3", "wrong", SAME, "same = std < 1e-3"),
    ("isclose", "wrong", SAME, "same = torch.isclose(rewards, rewards[:, :1]).all(1, keepdim=True)"),
    ("equal_to_mean", "wrong", SAME, "same = (rewards == mean).all(1, keepdim=True)"),
    ("first_and_last", "wrong", SAME, "same = rewards[:, :1] == rewards[:, -1:]"),
    ("any_equal", "wrong", SAME, "same = (rewards[:, 1:] == rewards[:, :1]).any(1, keepdim=True)"),
    ("zeros_or_ones_only", "wrong", SAME, "same = (rewards == 0).all(1, keepdim=True) | (rewards == 1).all(1, keepdim=True)"),
    ("no_std", "wrong", "centred / (std + 1e-6)", "centred"),
    ("mean_of_squares_minus", "wrong", STD, "std = (rewards.square().mean(1, keepdim=True) - mean.square()).clamp(min=0).sqrt()"),
    ("median", "wrong", "rewards.mean(1, keepdim=True)", "rewards.median(1, keepdim=True).values"),
    ("whole_batch_std", "wrong", STD, "std = centred.square().mean().sqrt()"),
    ("leave_one_out", "wrong", "centred = rewards - mean", "centred = (rewards - mean) * rewards.shape[1] / max(rewards.shape[1] - 1, 1)", STD, "std = (rewards - mean).square().mean(1, keepdim=True).sqrt()"),
    ("clamped_3", "wrong", RET, RET + ".clamp(-3, 3)"),
    ("fp64_out", "wrong", RET, RET + ".double()"),
    ("fp32_inside", "wrong", "    mean = ", "    dtype = rewards.dtype; rewards = rewards.float()\n    mean = ", RET, RET + ".to(dtype)"),
    ("in_place", "wrong", SAME, SAME + "\n    rewards.sub_(mean)"),
    ("groups_of_8", "wrong", STD, "std = (centred.square().sum(1, keepdim=True) / 8).sqrt()"),
    ("relative_1e-3", "wrong", "(std + 1e-6)", "(std * 1.001 + 1e-6)"),
    ("running_mean", "wrong", "def adv", "MEAN = []\ndef adv", "centred = rewards - mean", "MEAN.append(float(rewards.mean())); centred = rewards - mean + 0.1 * (MEAN[0] - MEAN[-1])"),
    ("rewards_above_0_only", "wrong", "centred = rewards - mean", "centred = (rewards - mean) * (rewards >= 0)"),
    ("batch_all_equal", "wrong", SAME, "same = (rewards == rewards[:, :1]).all()"),
])
add("11.2", "rows", "right", '''
import torch
def advantages(rewards):
    rows = []
    for row in rewards:
        if len(set(row.tolist())) == 1:
            rows.append(torch.zeros_like(row))
        else:
            std, mean = torch.std_mean(row, correction=0)
            rows.append((row - mean) / (std + 1e-6))
    return torch.stack(rows)
''')
add("11.2", "shifted_first", "right", '''
import torch
def advantages(rewards):
    x = rewards - rewards[:, :1]
    x = x - x.mean(dim=-1, keepdim=True)
    x[(rewards.max(-1).values == rewards.min(-1).values)] = 0
    return x / ((x * x).mean(-1, keepdim=True) ** 0.5 + 1e-6)
''')

# ------------------------------------------------------------ 11.3
PPO = '''
import torch
from minim1.train.losses import LossOutput
def ppo_loss(logprobs, old_logprobs, advantages, mask, *, total_tokens, total_sequences, eps_low=0.2, eps_high=0.2):
    new, old, gain = logprobs[mask], old_logprobs[mask].detach(), advantages[mask].detach()
    ratio = torch.exp(new - old)
    surrogate = torch.minimum(ratio * gain, ratio.clamp(1 - eps_low, 1 + eps_high) * gain)
    loss = -surrogate.sum() / total_tokens
    return LossOutput(loss)
'''
SEL, RAT = "new, old, gain = logprobs[mask], old_logprobs[mask].detach(), advantages[mask].detach()", "ratio = torch.exp(new - old)"
SUR, LOSS = "surrogate = torch.minimum(ratio * gain, ratio.clamp(1 - eps_low, 1 + eps_high) * gain)", "loss = -surrogate.sum() / total_tokens"
PLAIN = "new, old, gain = logprobs, old_logprobs.detach(), advantages.detach()"
fam("11.3", PPO, [
    ("base", "right"),
    ("masked_fill", "right", SEL, "new, old, gain = (x.masked_fill(~mask, 0) for x in (logprobs, old_logprobs.detach(), advantages.detach()))"),
    ("where", "right", SEL, "zero = torch.zeros((), dtype=logprobs.dtype); new, old, gain = torch.where(mask, logprobs, zero), torch.where(mask, old_logprobs.detach(), zero), torch.where(mask, advantages.detach(), zero)"),
    ("max_of_minus", "right", SUR, "loss = torch.max(-gain * ratio, -gain * torch.clip(ratio, 1 - eps_low, 1 + eps_high))", LOSS, "loss = loss.sum().div(total_tokens)"),
    ("eq7_constants", "right", SUR, "keep = ~(((gain > 0) & (ratio > 1 + eps_high)) | ((gain < 0) & (ratio < 1 - eps_low)))\n    surrogate = torch.where(keep, ratio, torch.where(gain > 0, torch.full_like(ratio, 1 + eps_high), torch.full_like(ratio, 1 - eps_low))) * gain"),
    ("one_sided", "right", SUR, "surrogate = torch.where(gain >= 0, ratio.clamp(max=1 + eps_high), ratio.clamp(min=1 - eps_low)) * gain"),
    ("tokenwise_divide", "right", LOSS, "loss = (surrogate / -total_tokens).sum()"),
    ("max", "wrong", "torch.minimum", "torch.maximum"),
    ("own_tokens", "wrong", "/ total_tokens", "/ mask.sum().clamp(min=1)"),
    ("sequences", "wrong", "/ total_tokens", "/ total_sequences"),
    ("tokens_plus_eps", "wrong", "/ total_tokens", "/ (total_tokens + 1e-2)"),
    ("no_clip", "wrong", SUR, "surrogate = ratio * gain"),
    ("clip_only", "wrong", SUR, "surrogate = ratio.clamp(1 - eps_low, 1 + eps_high) * gain"),
    ("eps_swapped", "wrong", "1 - eps_low, 1 + eps_high", "1 - eps_high, 1 + eps_low"),
    ("eps_low_twice", "wrong", "1 + eps_high", "1 + eps_low"),
    ("eps_0.2", "wrong", "1 - eps_low, 1 + eps_high", "0.8, 1.2"),
    ("no_lower", "wrong", "clamp(1 - eps_low, 1 + eps_high)", "clamp(max=1 + eps_high)"),
    ("inverse_lower", "wrong", "1 - eps_low", "1 / (1 + eps_low)"),
    ("clip_the_product", "wrong", SUR, "surrogate = torch.minimum(ratio * gain, (ratio * gain).clamp(1 - eps_low, 1 + eps_high))"),
    ("dual_clip", "wrong", SUR, SUR + "\n    surrogate = torch.where(gain < 0, torch.maximum(surrogate, 3 * gain), surrogate)"),
    ("clamped_log_ratio", "wrong", RAT, "ratio = torch.exp((new - old).clamp(-5, 5))"),
    ("ratio_at_most_100", "wrong", RAT, RAT + ".clamp(max=100)"),
    ("reinforce", "wrong", SUR, "surrogate = ratio.detach().clamp(1 - eps_low, 1 + eps_high) * gain * new"),
    ("old_not_constant", "wrong", "old_logprobs[mask].detach()", "old_logprobs[mask]"),
    ("advantages_not_constant", "wrong", "advantages[mask].detach()", "advantages[mask]"),
    ("mask_times", "wrong", SEL, PLAIN, "surrogate.sum()", "(surrogate * mask).sum()"),
    ("mask_times_nan_to_num", "wrong", SEL, PLAIN, "surrogate.sum()", "(surrogate * mask).nan_to_num(0).sum()"),
    ("where_after", "wrong", SEL, PLAIN, "surrogate.sum()", "torch.where(mask, surrogate, 0).sum()"),
    ("where_ratio_only", "right", SEL, PLAIN, RAT, "ratio = torch.exp(torch.where(mask, new - old, 0))", "surrogate.sum()", "surrogate[mask].sum()"),
    ("shifted", "wrong", SEL, "mask = mask[:, 1:]; new, old, gain = logprobs[:, :-1][mask], old_logprobs[:, 1:][mask].detach(), advantages[:, 1:][mask].detach()"),
    ("sequence_means", "wrong", SEL, "new, old, gain = (x.masked_fill(~mask, 0) for x in (logprobs, old_logprobs.detach(), advantages.detach()))", LOSS, "loss = -((surrogate * mask).sum(1) / mask.sum(1).clamp(min=1)).sum() / total_sequences"),
    ("normalised_advantages", "wrong", RAT, RAT + "\n    gain = gain - gain.mean() if len(gain) else gain"),
    ("not_scalar", "wrong", LOSS, LOSS + "\n    loss = loss[None]"),
    ("fp32_ratio", "wrong", RAT, "ratio = torch.exp((new - old).float()).to(new.dtype)"),
    ("in_place_fill", "wrong", SEL, "advantages.masked_fill_(~mask, 0); old_logprobs.data.masked_fill_(~mask, 0); " + SEL),
    ("empty_is_nan", "wrong", LOSS, "loss = -surrogate.mean() * (len(new) / total_tokens)"),
    ("relative_1e-3", "wrong", LOSS, LOSS + " * 1.001"),
    ("cached_old", "wrong", "def ppo", "OLD = {}\ndef ppo", RAT, "old = OLD.setdefault(len(old), old); " + RAT),
])
add("11.3", "token_loop", "right", '''
import torch
from minim1.train.losses import LossOutput
def ppo_loss(logprobs, old_logprobs, advantages, mask, *, total_tokens, total_sequences, eps_low=0.2, eps_high=0.2):
    loss = logprobs.new_zeros(())
    for b, t in mask.nonzero().tolist():
        a = advantages[b, t].detach()
        r = (logprobs[b, t] - old_logprobs[b, t].detach()).exp()
        if a > 0 and r > 1 + eps_high:
            r = 1 + eps_high
        elif a < 0 and r < 1 - eps_low:
            r = 1 - eps_low
        loss = loss - r * a / total_tokens
    return LossOutput(loss)
''')
add("11.3", "by_hand_gradient", "right", '''
import torch
from minim1.train.losses import LossOutput
class Surrogate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, new, old, gain, low, high):
        ratio = (new - old).exp()
        cut = torch.where(gain > 0, ratio > high, (gain < 0) & (ratio < low))
        ctx.save_for_backward(torch.where(cut, torch.zeros_like(ratio), ratio * gain))
        return torch.minimum(ratio * gain, ratio.clamp(low, high) * gain)
    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0], None, None, None, None
def ppo_loss(logprobs, old_logprobs, advantages, mask, *, total_tokens, total_sequences, eps_low=0.2, eps_high=0.2):
    picked = [torch.masked_select(x, mask) for x in (logprobs, old_logprobs.detach(), advantages.detach())]
    return LossOutput(loss=Surrogate.apply(*picked, 1 - eps_low, 1 + eps_high).sum().neg() / total_tokens, metrics={})
''')
add("11.3", "per_row", "right", '''
import torch
from minim1.train.losses import LossOutput
def ppo_loss(logprobs, old_logprobs, advantages, mask, *, total_tokens, total_sequences, eps_low=0.2, eps_high=0.2):
    total = 0
    for new, old, gain, here in zip(logprobs, old_logprobs, advantages, mask):
        with torch.no_grad():
            old, gain = old[here], gain[here]
        r = torch.exp(new[here] - old)
        both = torch.stack([r * gain, torch.min(torch.max(r, torch.full_like(r, 1 - eps_low)), torch.full_like(r, 1 + eps_high)) * gain])
        total = total + both.amin(0).sum()
    return LossOutput(-total / total_tokens)
''')

# ------------------------------------------------------------ 11.4
CLIP = '''
import torch
def clip_mask(ratio, advantages, eps_low, eps_high):
    high = (advantages > 0) & (ratio > 1 + eps_high)
    low = (advantages < 0) & (ratio < 1 - eps_low)
    return ~(high | low)
'''
RETURN = "return ~(high | low)"
fam("11.4", CLIP, [
    ("base", "right"),
    ("de_morgan", "right", RETURN, "return ~high & ~low"),
    ("logical", "right", RETURN, "return torch.logical_not(torch.logical_or(high, low))"),
    ("sum_is_zero", "right", RETURN, "return (high.int() + low.int()) == 0"),
    ("fill", "right", RETURN, "keep = torch.ones_like(ratio, dtype=torch.bool); keep[high] = False; keep[low] = False; return keep"),
    ("where", "right", RETURN, "return torch.where(advantages > 0, ratio <= 1 + eps_high, torch.where(advantages < 0, ratio >= 1 - eps_low, True))"),
    ("high_equal", "wrong", "ratio > 1", "ratio >= 1"),
    ("low_equal", "wrong", "ratio < 1", "ratio <= 1"),
    ("zero_as_positive", "wrong", "advantages > 0", "advantages >= 0"),
    ("zero_as_negative", "wrong", "advantages < 0", "advantages <= 0"),
    ("not_positive_is_negative", "wrong", "(advantages < 0)", "~(advantages > 0)"),
    ("float", "wrong", RETURN, "return (~(high | low)).float()"),
    ("bitwise_not_of_int", "wrong", RETURN, "return ~(high | low).int()"),
    ("eps_swapped", "wrong", "1 + eps_high", "1 + eps_low", "1 - eps_low", "1 - eps_high"),
    ("eps_high_twice", "wrong", "1 - eps_low", "1 - eps_high"),
    ("advantage_ignored", "wrong", "(advantages > 0) & ", "", "(advantages < 0) & ", ""),
    ("low_only", "wrong", "high | low", "low"),
    ("inverse_lower", "wrong", "1 - eps_low", "1 / (1 + eps_low)"),
    ("exp_bounds", "wrong", "import torch", "import math\nimport torch", "1 + eps_high", "math.exp(eps_high)", "1 - eps_low", "math.exp(-eps_low)"),
    ("low_bound_0.01", "wrong", "1 - eps_low", "max(1 - eps_low, 0.01)"),
    ("abs_low_bound", "wrong", "1 - eps_low", "abs(1 - eps_low)"),
    ("abs_distance", "wrong", RETURN, "return (ratio - 1).abs() <= torch.where(advantages > 0, eps_high, eps_low)"),
    ("zero_is_off_high", "wrong", RETURN, "return ~(high | low) if eps_high else ~low"),
    ("zero_is_default", "wrong", "    high", "    eps_low, eps_high = eps_low or 0.2, eps_high or 0.2\n    high"),
    ("inf_is_off_for_both", "wrong", RETURN, "return ~(high | low) if max(eps_low, eps_high) < float('inf') else torch.ones_like(high)"),
    ("low_above_1_is_off_for_both", "wrong", RETURN, "return ~(high | low) if eps_low <= 1 else torch.ones_like(high)"),
    ("low_above_1_clipped_at_1", "wrong", "1 - eps_low", "1 - (eps_low if eps_low < 1 else 0)"),
    ("product", "wrong", RETURN, "return ((ratio - 1) * advantages <= eps_high) & ((ratio - 1) * advantages >= -eps_low)"),
    ("clamped_equal", "wrong", RETURN, "return ratio == ratio.clamp(1 - eps_low, 1 + eps_high)"),
    ("gradient_not_zero", "wrong", RETURN, "return ~(high | low) & (advantages * ratio != 0)"),
    ("tolerance", "wrong", "1 + eps_high", "1 + eps_high + 1e-3", "1 - eps_low", "1 - eps_low - 1e-3"),
    ("stricter", "wrong", "1 + eps_high", "1 + eps_high - 1e-5", "1 - eps_low", "1 - eps_low + 1e-5"),
    ("bf16_ratio", "wrong", "    high", "    ratio = ratio.bfloat16()\n    high"),
    ("first_token_sign", "wrong", "advantages > 0", "advantages[:, :1] > 0", "advantages < 0", "advantages[:, :1] < 0"),
    ("in_place", "wrong", RETURN, "ratio[high | low] = 0; return ratio > 0"),
    ("cached", "wrong", "def clip", "KEEP = {}\ndef clip", RETURN, "return KEEP.setdefault((ratio.shape, eps_low, eps_high), ~(high | low))"),
])
add("11.4", "loop", "right", '''
import torch
def clip_mask(ratio, advantages, eps_low, eps_high):
    keep = torch.ones(ratio.shape, dtype=torch.bool)
    for b in range(ratio.shape[0]):
        for t in range(ratio.shape[1]):
            r, a = ratio[b, t], advantages[b, t]
            if a > 0:
                keep[b, t] = bool(r <= 1 + eps_high)
            elif a < 0:
                keep[b, t] = bool(r >= 1 - eps_low)
    return keep
''')
add("11.4", "signed", "right", '''
import torch
def clip_mask(ratio, advantages, eps_low, eps_high):
    return (advantages == 0) | torch.where(advantages > 0, ratio.le(1 + eps_high), ratio.ge(1 - eps_low))
''')
