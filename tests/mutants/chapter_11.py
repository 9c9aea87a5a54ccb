"""Wrong solutions of the exercises of chapter 11, for `tests.mutants`."""

from tests.mutants import Mutant

WHOLE_TERM = "torch.minimum(ratio * advantages, clipped * advantages)"
SPLIT = '''def reward(prompts, completions, *, problem, **columns):
    rewards = []
    for text, asked in zip(completions, problem):
        thinking, closed, rest = text.partition("</think>")
        numbers = re.findall(r"⟨(\\d+)⟩", rest)
        a, b = (int(n) for n in numbers[-2:]) if len(numbers) >= 2 else (-1, -1)
        right = {a, b} <= set(asked.data["numbers"]) and a != b and (a + b) % 12 == asked.data["target"]
        rewards.append(float(right))
    return rewards
'''

MUTANTS = {
    "11.1": [
        Mutant("search", "form.fullmatch(text)", "form.search(text)"),
        Mutant("match", "form.fullmatch(text)", "form.match(text)"),
        Mutant("dollar", "form.fullmatch(text)", 're.match(form.pattern + "$", text, re.DOTALL)'),
        Mutant("stripped", "form.fullmatch(text)", 're.fullmatch(form.pattern.strip(), text.strip(), re.DOTALL)'),
        Mutant("no dotall", ", re.DOTALL)", ")"),
        Mutant("digits of every script", "([0-9]|10|11)", "(\\\\d|10|11)"),
        Mutant("any digits", "([0-9]|10|11)", "([0-9]+)"),
        Mutant("two digits of every script", "([0-9]|10|11)", "(\\\\d+)"),
        Mutant("blanks in brackets", "⟨([0-9]|10|11)⟩", "⟨ *([0-9]|10|11)⟩"),
        Mutant("blanks around numbers", "⟨([0-9]|10|11)⟩", "\\\\s*⟨([0-9]|10|11)⟩\\\\s*"),
        Mutant("more answers before", "{number}{number}", ".*{number}{number}"),
        Mutant("more answers after", "{number}{number}<", "{number}{number}.*<"),
        Mutant("tags in the thinking", "found and not re.search(tags, found[1])", "found"),
        Mutant("one tag forgotten", "|<begin_of_document>", ""),
        Mutant("another tag forgotten", "|<beginning_of_sentence>", ""),
        Mutant("end in the thinking", "|<end_of_sentence>|", "|"),
        Mutant("closing in the thinking", "<think>|</think>|", "<think>|"),
        Mutant("opening in the thinking", "<think>|</think>|", "</think>|"),
        Mutant("any sign of a tag", "re.search(tags, found[1])", '"<" in found[1]'),
        Mutant("thought must say something", "\\n(.*)\\n", "\\n(.+)\\n"),
        Mutant("thought is stripped", "\\n(.*)\\n", "\\n(\\\\S.*)\\n"),
        Mutant("no newlines asked for", "<think>\\n(.*)\\n</think>\\n", "<think>\\\\n?(.*)\\\\n?</think>\\\\n?"),
        Mutant("last newline optional", "{number}<end_of_sentence>\\n\"", "{number}<end_of_sentence>\\\\n?\""),
        Mutant("last newlines", "{number}<end_of_sentence>\\n\"", "{number}<end_of_sentence>\\\\n+\""),
        Mutant("without the last newline", "{number}<end_of_sentence>\\n\"", "{number}<end_of_sentence>\""),
        Mutant("end optional", "{number}<end_of_sentence>\\n\"", "{number}(?:<end_of_sentence>\\n)?\""),
        Mutant("case ignored", "re.DOTALL", "re.DOTALL | re.IGNORECASE"),
        Mutant("same number", "listed and a != b and", "listed and"),
        Mutant("not listed", "right = listed and", "right ="),
        Mutant("one listed", "{a, b} <= set(asked.data[\"numbers\"])", "bool({a, b} & set(asked.data[\"numbers\"]))"),
        Mutant("no modulo", "(a + b) % 12", "(a + b)"),
        Mutant("wrong modulo", "(a + b) % 12", "(a + b) % 10"),
        Mutant("difference", "(a + b) % 12", "(a - b) % 12"),
        Mutant("the problem's answer", "listed and a != b and (a + b) % 12 == asked.data[\"target\"]",
               "f\"⟨{a}⟩⟨{b}⟩\" == asked.answer"),
        Mutant("first smaller", "listed and a != b", "listed and a < b"),
        Mutant("always the first problem", "set(asked.data[\"numbers\"])", "set(problem[0].data[\"numbers\"])"),
        Mutant("target of the first problem", "== asked.data[\"target\"]", "== problem[0].data[\"target\"]"),
        Mutant("one reward", "    return rewards", "    return rewards[0]"),
        Mutant("mean reward", "    return rewards", "    return sum(rewards) / max(1, len(rewards))"),
        Mutant("partial credit for the form", "rewards.append(float(right))", "rewards.append(float(right) if right "
            "else 0.1 * bool(found))"),
        Mutant("minus one", "rewards.append(float(right))", "rewards.append(1.0 if right else -1.0)"),
        Mutant("None for the form", "rewards.append(float(right))", "rewards.append(float(right) if found else None)"),
        Mutant("a tensor", "    return rewards", "    return torch.tensor(rewards)"),
        Mutant("wrong ones left out", "rewards.append(float(right))", "rewards += [1.0] * right"),
        Mutant("reversed", "    return rewards", "    return rewards[::-1]"),
        Mutant("raises on other forms", "found, right = form.fullmatch(text), False",
               "found, right = form.fullmatch(text), False\n        found[1]"),
        Mutant("last two numbers after the thought", source=SPLIT),
        Mutant("any right pair in the answer", source='''def reward(prompts, completions, *, problem, **columns):
    rewards = []
    for text, asked in zip(completions, problem):
        pairs = [(a, b) for a in asked.data["numbers"] for b in asked.data["numbers"] if a != b]
        right = [f"⟨{a}⟩⟨{b}⟩" for a, b in pairs if (a + b) % 12 == asked.data["target"]]
        rewards.append(float(any(pair in text.partition("</think>")[2] for pair in right)))
    return rewards
'''),
        Mutant("split, and int", source='''def reward(prompts, completions, *, problem, **columns):
    rewards = []
    for text, asked in zip(completions, problem):
        try:
            thinking, rest = text.removeprefix("<think>\\n").split("\\n</think>\\n")
            a, b = (int(n) for n in rest.removesuffix("<end_of_sentence>\\n").strip("⟨⟩").split("⟩⟨"))
            right = {a, b} <= set(asked.data["numbers"]) and a != b and (a + b) % 12 == asked.data["target"]
        except ValueError:
            right = False
        rewards.append(float(right))
    return rewards
'''),
    ],
    "11.2": [
        Mutant("sample deviation", "centred.square().mean(dim=1, keepdim=True).sqrt()",
            "rewards.std(dim=1, keepdim=True).nan_to_num()"),
        Mutant("no division", "centred / (std + 1e-6)", "centred"),
        Mutant("no mean", "centred / (std + 1e-6)", "rewards / (std + 1e-6)"),
        Mutant("batch mean", "rewards.mean(dim=1, keepdim=True)", "rewards.mean()"),
        Mutant("batch deviation", "centred.square().mean(dim=1, keepdim=True).sqrt()",
               "centred.square().mean().sqrt()"),
        Mutant("whole batch", "    centred = rewards - rewards.mean(dim=1, keepdim=True)\n    std = "
                              "centred.square().mean(dim=1, keepdim=True)",
               "    centred = rewards - rewards.mean()\n    std = centred.square().mean()"),
        Mutant("columns", "rewards.mean(dim=1, keepdim=True)\n    std = centred.square().mean(dim=1,",
            "rewards.mean(dim=0, keepdim=True)\n    std = centred.square().mean(dim=0,"),
        Mutant("variance", ".mean(dim=1, keepdim=True).sqrt()", ".mean(dim=1, keepdim=True)"),
        Mutant("absolute deviation", "centred.square().mean(dim=1, keepdim=True).sqrt()", "centred.abs().mean(dim=1, "
            "keepdim=True)"),
        Mutant("no epsilon", "(std + 1e-6)", "std"),
        Mutant("epsilon 1e-8", "(std + 1e-6)", "(std + 1e-8)"),
        Mutant("epsilon 1e-4", "(std + 1e-6)", "(std + 1e-4)"),
        Mutant("epsilon 1e-5", "(std + 1e-6)", "(std + 1e-5)"),
        Mutant("epsilon under the root", "keepdim=True).sqrt()", "keepdim=True).add(1e-6).sqrt() - 1e-6"),
        Mutant("epsilon as a floor", "(std + 1e-6)", "std.clamp(min=1e-6)"),
        Mutant("flat groups by deviation", "rewards.amax(dim=1, keepdim=True) == rewards.amin(dim=1, keepdim=True)",
            "std == 0"),
        Mutant("flat groups by small deviation", "rewards.amax(dim=1, keepdim=True) == rewards.amin(dim=1, "
                                                 "keepdim=True)", "std < 1e-4"),
        Mutant("flat groups not seen", "torch.where(flat, 0.0, centred / (std + 1e-6))", "centred / (std + 1e-6)"),
        Mutant("flat groups get their reward", "torch.where(flat, 0.0,", "torch.where(flat, rewards,"),
        Mutant("flat: all of the batch", "rewards.amax(dim=1, keepdim=True) == rewards.amin(dim=1, keepdim=True)",
            "rewards.amax() == rewards.amin()"),
        Mutant("sign", "centred = rewards - rewards.mean(dim=1, keepdim=True)", "centred = rewards.mean(dim=1, "
            "keepdim=True) - rewards"),
        Mutant("median", "rewards.mean(dim=1, keepdim=True)", "rewards.median(dim=1, keepdim=True).values"),
        Mutant("others' mean", "centred / (std + 1e-6)", "centred * rewards.shape[1] / max(1, rewards.shape[1] - 1) / "
                                                         "(std + 1e-6)"),
        Mutant("zero to one", "centred / (std + 1e-6)",
               "(rewards - rewards.amin(1, keepdim=True)) / (rewards.amax(1, keepdim=True) - rewards.amin(1, "
               "keepdim=True))"),
        Mutant("squares of large numbers", "centred.square().mean(dim=1, keepdim=True).sqrt()",
               "(rewards.square().mean(1, keepdim=True) - rewards.mean(1, keepdim=True).square()).clamp(min=0).sqrt()"),
        Mutant("always float32", "    centred =", "    rewards = rewards.float()\n    centred ="),
        Mutant("in place", "centred = rewards - rewards.mean(dim=1, keepdim=True)",
            "centred = rewards.sub_(rewards.mean(dim=1, keepdim=True))"),
        Mutant("clamped", "centred / (std + 1e-6))", "(centred / (std + 1e-6)).clamp(-1, 1))"),
        Mutant("one row only", "torch.where(flat, 0.0, centred / (std + 1e-6))", "torch.where(flat, 0.0, centred / "
            "(std + 1e-6))[0]"),
    ],
    "11.3": [
        Mutant("no clip", WHOLE_TERM, "ratio * advantages"),
        Mutant("always clipped", WHOLE_TERM, "clipped * advantages"),
        Mutant("maximum", "torch.minimum(", "torch.maximum("),
        Mutant("minimum of the ratios", WHOLE_TERM, "torch.minimum(ratio, clipped) * advantages"),
        Mutant("maximum for negative advantages", WHOLE_TERM,
               "torch.where(advantages < 0, torch.maximum(ratio * advantages, clipped * advantages), "
               "torch.minimum(ratio * advantages, clipped * advantages))"),
        Mutant("ratio upside down", "(logprobs - old_logprobs).exp()", "(old_logprobs - logprobs).exp()"),
        Mutant("log ratio", "(logprobs - old_logprobs).exp()", "(logprobs - old_logprobs)"),
        Mutant("no old log-probs", "(logprobs - old_logprobs).exp()", "logprobs.exp()"),
        Mutant("reinforce", WHOLE_TERM, "advantages * logprobs"),
        Mutant("cispo", WHOLE_TERM, "clipped.detach() * advantages * logprobs"),
        Mutant("ratio detached", "(logprobs - old_logprobs).exp()", "(logprobs - old_logprobs).exp().detach() + 0 * "
                                                                    "logprobs"),
        Mutant("no lower bound", "ratio.clamp(1 - eps_low, 1 + eps_high)", "ratio.clamp(max=1 + eps_high)"),
        Mutant("no upper bound", "ratio.clamp(1 - eps_low, 1 + eps_high)", "ratio.clamp(min=1 - eps_low)"),
        Mutant("bounds exchanged", "1 - eps_low, 1 + eps_high", "1 - eps_high, 1 + eps_low"),
        Mutant("one bound for both", "1 - eps_low, 1 + eps_high", "1 - eps_low, 1 + eps_low"),
        Mutant("fixed bounds", "1 - eps_low, 1 + eps_high", "0.8, 1.2"),
        Mutant("bounds without one", "1 - eps_low, 1 + eps_high", "-eps_low, eps_high"),
        Mutant("lower bound by division", "1 - eps_low, 1 + eps_high", "1 / (1 + eps_low), 1 + eps_high"),
        Mutant("sign", "LossOutput(-surrogate.sum()", "LossOutput(surrogate.sum()"),
        Mutant("mean over the mask", "-surrogate.sum() / total_tokens", "-surrogate.sum() / mask.sum().clamp(min=1)"),
        Mutant("mean over everything", "-surrogate.sum() / total_tokens", "-surrogate.mean()"),
        Mutant("sum", "-surrogate.sum() / total_tokens", "-surrogate.sum()"),
        Mutant("by sequences", "/ total_tokens", "/ total_sequences"),
        Mutant("grpo", "-surrogate.sum() / total_tokens", "-(surrogate.sum(1) / mask.sum(1).clamp(min=1)).sum() / "
                                                          "total_sequences"),
        Mutant("mask by multiplication", "    logprobs, old_logprobs, advantages = (torch.where(mask, x, 0.0) for x "
                                         "in (logprobs, old_logprobs, advantages))\n",
               "    logprobs, old_logprobs, advantages = (x * mask for x in (logprobs, old_logprobs, advantages))\n"),
        Mutant("mask afterwards", source='''def ppo_loss(logprobs, old_logprobs, advantages, mask, *,
             total_tokens, total_sequences, eps_low=0.2, eps_high=0.2):
    ratio = (logprobs - old_logprobs).exp()
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(1 - eps_low, 1 + eps_high) * advantages)
    return LossOutput(-torch.where(mask, surrogate, 0.0).sum() / total_tokens)
'''),
        Mutant("no mask", "torch.where(mask, x, 0.0) for x", "x for x"),
        Mutant("mask turned round", "torch.where(mask, x, 0.0)", "torch.where(mask, 0.0, x)"),
        Mutant("advantages not masked", "    logprobs, old_logprobs, advantages = (torch.where(mask, x, 0.0) for x in "
                                        "(logprobs, old_logprobs, advantages))",
               "    logprobs, old_logprobs = (torch.where(mask, x, 0.0) for x in (logprobs, old_logprobs))"),
        Mutant("ratio per sequence", "(logprobs - old_logprobs).exp()", "(logprobs - old_logprobs).mean(1, "
            "keepdim=True).exp().expand_as(logprobs)"),
        Mutant("log ratio clamped", "(logprobs - old_logprobs).exp()", "(logprobs - old_logprobs).clamp(-5, 5).exp()"),
        Mutant("absolute advantages", WHOLE_TERM,
               "torch.minimum(ratio * advantages.abs(), clipped * advantages.abs())"),
        Mutant("a tensor", "return LossOutput(-surrogate.sum() / total_tokens)", "return -surrogate.sum() / "
            "total_tokens"),
        Mutant("a number", "LossOutput(-surrogate.sum() / total_tokens)", "LossOutput((-surrogate.sum() / "
            "total_tokens).item())"),
        Mutant("not summed", "LossOutput(-surrogate.sum() / total_tokens)", "LossOutput(-surrogate / total_tokens)"),
        Mutant("float32", "(logprobs - old_logprobs).exp()", "(logprobs - old_logprobs).float().exp()"),
        Mutant("dual clip", "    return LossOutput(", "    surrogate = torch.where(advantages < 0, "
                                                      "torch.maximum(surrogate, 3 * advantages), surrogate)\n    "
                                                      "return LossOutput("),
    ],
    "11.4": [
        Mutant("turned round", "~(too_high | too_low)", "too_high | too_low"),
        Mutant("signs ignored", "    too_high = (advantages > 0) & (ratio > 1 + eps_high)\n    too_low = (advantages "
                                "< 0) & (ratio < 1 - eps_low)",
               "    too_high = ratio > 1 + eps_high\n    too_low = ratio < 1 - eps_low"),
        Mutant("signs exchanged", "    too_high = (advantages > 0) & (ratio > 1 + eps_high)\n    too_low = "
                                  "(advantages < 0)",
               "    too_high = (advantages < 0) & (ratio > 1 + eps_high)\n    too_low = (advantages > 0)"),
        Mutant("no upper bound", "~(too_high | too_low)", "~too_low"),
        Mutant("no lower bound", "~(too_high | too_low)", "~too_high"),
        Mutant("bounds exchanged", "    too_high = (advantages > 0) & (ratio > 1 + eps_high)\n    too_low = "
                                   "(advantages < 0) & (ratio < 1 - eps_low)",
               "    too_high = (advantages > 0) & (ratio > 1 + eps_low)\n    too_low = (advantages < 0) & (ratio < 1 "
               "- eps_high)"),
        Mutant("upper bound uses eps_low", "1 + eps_high", "1 + eps_low"),
        Mutant("lower bound uses eps_high", "1 - eps_low", "1 - eps_high"),
        Mutant("upper bound included", "ratio > 1 + eps_high", "ratio >= 1 + eps_high"),
        Mutant("lower bound included", "ratio < 1 - eps_low", "ratio <= 1 - eps_low"),
        Mutant("zero as positive", "advantages > 0", "advantages >= 0"),
        Mutant("zero as negative", "advantages < 0", "advantages <= 0"),
        Mutant("high whatever the sign", "(advantages > 0) & (ratio > 1 + eps_high)", "ratio > 1 + eps_high"),
        Mutant("low whatever the sign", "(advantages < 0) & (ratio < 1 - eps_low)", "ratio < 1 - eps_low"),
        Mutant("negative always", "(advantages < 0) & (ratio < 1 - eps_low)", "advantages < 0"),
        Mutant("positive always", "(advantages > 0) & (ratio > 1 + eps_high)", "advantages > 0"),
        Mutant("without one", "1 + eps_high", "eps_high"),
        Mutant("lower without one", "1 - eps_low", "eps_low"),
        Mutant("lower by division", "1 - eps_low", "1 / (1 + eps_low)"),
        Mutant("and for or", "too_high | too_low", "too_high & too_low"),
        Mutant("a float mask", "~(too_high | too_low)", "(~(too_high | too_low)).float()"),
        Mutant("an int mask", "~(too_high | too_low)", "(~(too_high | too_low)).long()"),
        Mutant("lower bound at least 0.5", "1 - eps_low", "max(1 - eps_low, 0.5)"),
        Mutant("advantage 1e-6", "advantages > 0", "advantages > 1e-6"),
        Mutant("log ratio", "ratio > 1 + eps_high", "ratio.log() > eps_high"),
        Mutant("PPO on the product", "(advantages > 0) & (ratio > 1 + eps_high)",
               "ratio * advantages > (1 + eps_high)"),
        Mutant("whole sequences", "~(too_high | too_low)",
               "~(too_high | too_low).any(1, keepdim=True).expand_as(ratio)"),
    ],
}
