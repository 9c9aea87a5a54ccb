"""Wrong solutions of chapter 12's exercises: CISPO, the unified form, dynamic sampling, the overlong penalty."""

from tests.mutants import Mutant

HEAD = ("def policy_loss(logprobs, old_logprobs, advantages, mask, *, total_tokens, total_sequences, max_weight=5.0):\n"
        "    if not max_weight >= 1:\n        raise ValueError('max_weight')\n")
CLEAN = "    logprobs, old_logprobs, advantages = (torch.where(mask, x, 0.0) for x in (logprobs, old_logprobs, advantages))\n"
RATIO, WEIGHT = "(logprobs - old_logprobs).exp().detach()", "ratio.clamp(max=max_weight)"
SUM = "-(weight * advantages * logprobs).sum() / total_tokens"
RETURN = f"return LossOutput({SUM})"


def loss(name: str, body: str, clean: str = CLEAN) -> Mutant:
    """A `policy_loss` of its own, after the refusal and the cleaning."""
    return Mutant(name, source=HEAD + clean + "".join(f"    {line}\n" for line in body.splitlines()))


def draw(name: str, body: str) -> Mutant:
    return Mutant(name, source="def dynamic_sampling(stream, wanted, limit):\n" + "".join(
        f"    {line}\n" for line in body.splitlines()))


MUTANTS = {
    "12.1": [
        Mutant("the weight is not detached", RATIO, "(logprobs - old_logprobs).exp()"),
        Mutant("log pi detached instead of the weight", "advantages * logprobs)", "advantages * logprobs.detach())"),
        loss("log pi detached, weight in the graph",
             f"ratio = (logprobs - old_logprobs).exp()\nweight = {WEIGHT}\n"
             "return LossOutput(-(weight * advantages * logprobs.detach()).sum() / total_tokens)"),
        Mutant("no gradient at all", f"LossOutput({SUM})", f"LossOutput(({SUM}).detach())"),
        Mutant("a number instead of a tensor", f"LossOutput({SUM})", f"LossOutput(({SUM}).item())"),
        Mutant("the loss, not a LossOutput", RETURN, f"return {SUM}"),
        Mutant("a tuple", RETURN, f"return {SUM}, {{}}"),
        Mutant("nothing returned", RETURN, f"LossOutput({SUM})"),
        Mutant("cap is 1 + max_weight", WEIGHT, "ratio.clamp(max=1 + max_weight)"),
        Mutant("cap is fixed at 5", WEIGHT, "ratio.clamp(max=5.0)"),
        Mutant("no cap", WEIGHT, "ratio"),
        Mutant("lower bound 1 / cap", WEIGHT, "ratio.clamp(1 / max_weight, max_weight)"),
        Mutant("lower bound 0.8", WEIGHT, "ratio.clamp(0.8, max_weight)"),
        Mutant("lower bound 0.1", WEIGHT, "ratio.clamp(0.1, max_weight)"),
        Mutant("lower bound 2 - cap, as 1 - eps", WEIGHT, "ratio.clamp(2 - max_weight, max_weight)"),
        Mutant("lower bound 1", WEIGHT, "ratio.clamp(1, max_weight)"),
        Mutant("min for max in the clamp", WEIGHT, "ratio.clamp(min=max_weight)"),
        Mutant("above the cap dropped", WEIGHT, "torch.where(ratio > max_weight, 0.0, ratio)"),
        Mutant("above the cap dropped where A > 0",
               WEIGHT, "torch.where((ratio > max_weight) & (advantages > 0), 0.0, ratio.clamp(max=max_weight))"),
        Mutant("capped where A > 0 only", WEIGHT, "torch.where(advantages > 0, ratio.clamp(max=max_weight), ratio)"),
        Mutant("above the cap the weight is 1", WEIGHT, "torch.where(ratio > max_weight, 1.0, ratio)"),
        Mutant("the product is capped instead of the ratio", "-(weight * advantages * logprobs)",
               "-((ratio * advantages).clamp(max=max_weight) * logprobs)"),
        Mutant("cap on the log-ratio", f"{RATIO}\n    weight = {WEIGHT}",
               "(logprobs - old_logprobs).clamp(max=max_weight).exp().detach()\n    weight = ratio"),
        loss("cap by two products: infinity times 0",
             f"ratio = {RATIO}\nhigh = (ratio > max_weight).float()\nweight = max_weight * high + ratio * (1 - high)\n{RETURN}"),
        Mutant("ratio upside down", RATIO, "(old_logprobs - logprobs).exp().detach()"),
        Mutant("ratio without exp", RATIO, "(logprobs - old_logprobs).detach()"),
        Mutant("quotient of log-probabilities", RATIO, "(logprobs / old_logprobs).nan_to_num().detach()"),
        Mutant("probability instead of ratio", RATIO, "logprobs.exp().detach()"),
        Mutant("no importance weight", "-(weight * advantages * logprobs)", "-(advantages * logprobs)"),
        Mutant("no log pi", "-(weight * advantages * logprobs)", "-(weight * advantages + 0 * logprobs)"),
        Mutant("no log pi, weight in the graph", f"{RATIO}\n    weight = {WEIGHT}\n    {RETURN}",
               f"(logprobs - old_logprobs).exp()\n    weight = {WEIGHT}\n"
               "    return LossOutput(-(weight * advantages).sum() / total_tokens)"),
        Mutant("pi for log pi", "advantages * logprobs).sum", "advantages * logprobs.exp()).sum"),
        Mutant("log ratio for log pi", "advantages * logprobs).sum", "advantages * (logprobs - old_logprobs)).sum"),
        Mutant("old log pi for log pi", "advantages * logprobs).sum", "advantages * old_logprobs).sum"),
        loss("PPO's loss with the cap as its upper bound",
             "ratio = (logprobs - old_logprobs).exp()\n"
             "each = torch.minimum(ratio * advantages, ratio.clamp(max=max_weight) * advantages)\n"
             "return LossOutput(-each.sum() / total_tokens)"),
        Mutant("no advantages", "weight * advantages * logprobs", "weight * logprobs"),
        Mutant("sign of the advantages only", "weight * advantages", "weight * advantages.sign()"),
        Mutant("positive advantages only", "weight * advantages", "weight * advantages.clamp(min=0)"),
        Mutant("advantage of the first token for the row", "weight * advantages", "weight * advantages[:, :1]"),
        Mutant("wrong sign", SUM, SUM[1:]),
        Mutant("divided by the tokens of this call", "/ total_tokens", "/ mask.sum().clamp(min=1)"),
        Mutant("divided by all entries", ".sum() / total_tokens", ".mean()"),
        Mutant("divided by total_sequences", "/ total_tokens", "/ total_sequences"),
        Mutant("not divided", ".sum() / total_tokens", ".sum()"),
        Mutant("divided by both", "/ total_tokens", "/ total_tokens / total_sequences"),
        loss("mean within each sequence",
             f"ratio = {RATIO}\nweight = {WEIGHT}\neach = (weight * advantages * logprobs).sum(1) / "
             f"mask.sum(1).clamp(min=1)\n"
             "return LossOutput(-each.sum() / total_sequences)"),
        loss("mean within each sequence, mean of these",
             f"ratio = {RATIO}\nweight = {WEIGHT}\neach = (weight * advantages * logprobs).sum(1) / "
             f"mask.sum(1).clamp(min=1)\n"
             "return LossOutput(-each.mean())"),
        loss("one ratio per sequence",
             "length = mask.sum(1, keepdim=True).clamp(min=1)\n"
             f"ratio = ((logprobs - old_logprobs).sum(1, keepdim=True) / length).exp().detach()\nweight = {WEIGHT}\n{RETURN}"),
        Mutant("the mask is forgotten", "torch.where(mask, x, 0.0)", "x.nan_to_num(0, 0, 0)"),
        Mutant("the mask is turned round", "torch.where(mask, x, 0.0)", "torch.where(mask, 0.0, x)"),
        loss("mask multiplied at the end",
             f"ratio = {RATIO}\nweight = {WEIGHT}\n"
             "return LossOutput(-(weight * advantages * logprobs * mask).sum() / total_tokens)", clean=""),
        loss("where around the product only: NaN in the gradient",
             f"ratio = {RATIO}\nweight = {WEIGHT}\n"
             "return LossOutput(-torch.where(mask, weight * advantages * logprobs, 0.0).sum() / total_tokens)", clean=""),
        loss("nansum", f"ratio = {RATIO}\nweight = {WEIGHT}\n"
             "return LossOutput(-(weight * advantages * logprobs * mask).nansum() / total_tokens)", clean=""),
        loss("padding changed in place",
             f"for x in (logprobs, old_logprobs, advantages):\n    x.data[~mask] = 0.0\nratio = {RATIO}\nweight = "
             f"{WEIGHT}\n{RETURN}",
             clean=""),
        loss("advantages cleaned, the others not",
             f"advantages = torch.where(mask, advantages, 0.0)\nratio = {RATIO}\nweight = {WEIGHT}\n{RETURN}", clean=""),
        Mutant("mean of no tokens", ".sum() / total_tokens", "[mask].mean() * (mask.sum() / total_tokens)"),
        Mutant("float64 becomes float32", f"LossOutput({SUM})", f"LossOutput(({SUM}).float())"),
        Mutant("a cap below 1 is accepted", "if not max_weight >= 1:", "if not max_weight > 0:"),
        Mutant("any cap but the default is refused", "if not max_weight >= 1:", "if max_weight < 5:"),
        Mutant("a cap of exactly 1 is refused", "if not max_weight >= 1:", "if not max_weight > 1:"),
        Mutant("a cap below 1 is asserted", source=HEAD.replace(
            "if not max_weight >= 1:\n        raise ValueError('max_weight')", "assert max_weight >= 1") + CLEAN
            + f"    ratio = {RATIO}\n    weight = {WEIGHT}\n    {RETURN}\n"),
        Mutant("the shape stays (1,)", f"LossOutput({SUM})", f"LossOutput(({SUM}).view(1))"),
    ],
    "12.2": [
        Mutant("no mask", " * ~(too_high | too_low)", ""),
        Mutant("mask inverted", "~(too_high | too_low)", "(too_high | too_low)"),
        Mutant("sign of A forgotten", source="""
def unified_loss(logprobs, old_logprobs, advantages, mask, *, total_tokens,
                 max_weight=float("inf"), eps_low=float("inf"), eps_high=float("inf")):
    logprobs, old_logprobs, advantages = (torch.where(mask, x, 0.0) for x in (logprobs, old_logprobs, advantages))
    ratio = (logprobs - old_logprobs).exp().detach()
    weight = ratio.clamp(max=max_weight) * ((ratio <= 1 + eps_high) & (ratio >= 1 - eps_low))
    return -(weight * advantages * logprobs).sum() / total_tokens
"""),
        Mutant("signs exchanged", "(advantages > 0) & (ratio > 1 + eps_high)", "(advantages < 0) & (ratio > 1 + "
                                                                               "eps_high)"),
        Mutant("upper side only", "(too_high | too_low)", "too_high"),
        Mutant("lower side only", "(too_high | too_low)", "too_low"),
        Mutant("and for or", "(too_high | too_low)", "(too_high & too_low)"),
        Mutant("eps_high is the bound itself", "ratio > 1 + eps_high", "ratio > eps_high"),
        Mutant("eps_low is the bound itself", "ratio < 1 - eps_low", "ratio < eps_low"),
        Mutant("lower bound is a quotient", "ratio < 1 - eps_low", "ratio < 1 / (1 + eps_low)"),
        Mutant("one eps for both", "ratio < 1 - eps_low", "ratio < 1 - eps_high"),
        Mutant("bounds not strict", "ratio > 1 + eps_high", "ratio >= 1 + eps_high"),
        Mutant("lower bound not strict", "ratio < 1 - eps_low", "ratio <= 1 - eps_low"),
        Mutant("no cap", "ratio.clamp(max=max_weight) *", "ratio *"),
        Mutant("cap is 1 + max_weight", "clamp(max=max_weight)", "clamp(max=1 + max_weight)"),
        Mutant("mask asks the capped ratio", "(logprobs - old_logprobs).exp().detach()",
               "(logprobs - old_logprobs).exp().clamp(max=max_weight).detach()"),
        Mutant("clipped instead of masked", "ratio.clamp(max=max_weight) * ~(too_high | too_low)",
               "ratio.clamp(1 - eps_low, 1 + eps_high).clamp(max=max_weight)"),
        Mutant("above the cap dropped", "~(too_high | too_low)", "~(too_high | too_low | (ratio > max_weight))"),
        Mutant("weight not detached", ".exp().detach()", ".exp()"),
        Mutant("PPO's value", source="""
def unified_loss(logprobs, old_logprobs, advantages, mask, *, total_tokens,
                 max_weight=float("inf"), eps_low=float("inf"), eps_high=float("inf")):
    logprobs, old_logprobs, advantages = (torch.where(mask, x, 0.0) for x in (logprobs, old_logprobs, advantages))
    ratio = (logprobs - old_logprobs).exp()
    if max_weight < float("inf"):
        return -(ratio.clamp(max=max_weight).detach() * advantages * logprobs).sum() / total_tokens
    each = torch.minimum(ratio * advantages, ratio.clamp(1 - eps_low, 1 + eps_high) * advantages)
    return -each.sum() / total_tokens
"""),
        Mutant("either cap or mask, not both", source="""
def unified_loss(logprobs, old_logprobs, advantages, mask, *, total_tokens,
                 max_weight=float("inf"), eps_low=float("inf"), eps_high=float("inf")):
    logprobs, old_logprobs, advantages = (torch.where(mask, x, 0.0) for x in (logprobs, old_logprobs, advantages))
    ratio = (logprobs - old_logprobs).exp().detach()
    if max_weight < float("inf"):
        weight = ratio.clamp(max=max_weight)
    else:
        weight = ratio * ~((advantages > 0) & (ratio > 1 + eps_high) | (advantages < 0) & (ratio < 1 - eps_low))
    return -(weight * advantages * logprobs).sum() / total_tokens
"""),
        Mutant("a bound of 0 switches the mask off", "(advantages > 0) & (ratio > 1 + eps_high)",
               "(advantages > 0) & (ratio > 1 + (eps_high or float('inf')))"),
        Mutant("wrong sign", "return -(weight", "return (weight"),
        Mutant("divided by the tokens of this call", "/ total_tokens", "/ mask.sum().clamp(min=1)"),
        Mutant("no log pi", "advantages * logprobs).sum", "advantages + 0 * logprobs).sum"),
        Mutant("ratio upside down", "(logprobs - old_logprobs).exp()", "(old_logprobs - logprobs).exp()"),
        Mutant("mask forgotten", "torch.where(mask, x, 0.0)", "x.nan_to_num(0, 0, 0)"),
        Mutant("mask multiplied at the end", source="""
def unified_loss(logprobs, old_logprobs, advantages, mask, *, total_tokens,
                 max_weight=float("inf"), eps_low=float("inf"), eps_high=float("inf")):
    ratio = (logprobs - old_logprobs).exp().detach()
    keep = ~((advantages > 0) & (ratio > 1 + eps_high) | (advantages < 0) & (ratio < 1 - eps_low))
    return -(ratio.clamp(max=max_weight) * keep * mask * advantages * logprobs).sum() / total_tokens
"""),
        Mutant("where around the product: NaN in the gradient", source="""
def unified_loss(logprobs, old_logprobs, advantages, mask, *, total_tokens,
                 max_weight=float("inf"), eps_low=float("inf"), eps_high=float("inf")):
    ratio = (logprobs - old_logprobs).exp().detach()
    keep = ~((advantages > 0) & (ratio > 1 + eps_high) | (advantages < 0) & (ratio < 1 - eps_low))
    each = ratio.clamp(max=max_weight) * keep * advantages * logprobs
    return -torch.where(mask, each, 0.0).sum() / total_tokens
"""),
        Mutant("a LossOutput", "return -(weight * advantages * logprobs).sum() / total_tokens",
               "return LossOutput(-(weight * advantages * logprobs).sum() / total_tokens)"),
        Mutant("averaged over what the mask leaves", "/ total_tokens", "/ total_tokens * mask.sum() / (weight != "
                                                                       "0).sum()"),
    ],
    "12.3": [
        Mutant("flat groups kept", "if min(group[1]) != max(group[1]):", "if True:"),
        Mutant("flat groups alone kept", "!=", "=="),
        Mutant("zeros and ones only", "min(group[1]) != max(group[1])", "any(group[1]) and not all(group[1])"),
        Mutant("mean between 0 and 1", "min(group[1]) != max(group[1])", "0 < sum(group[1]) / len(group[1]) < 1"),
        Mutant("some success", "min(group[1]) != max(group[1])", "any(group[1])"),
        Mutant("not all right", "min(group[1]) != max(group[1])", "not all(x == 1 for x in group[1])"),
        Mutant("first differs from last", "min(group[1]) != max(group[1])", "group[1][0] != group[1][-1]"),
        Mutant("large differences only", "min(group[1]) != max(group[1])", "max(group[1]) - min(group[1]) > 0.01"),
        Mutant("rounded", "min(group[1]) != max(group[1])", "len({round(x, 2) for x in group[1]}) > 1"),
        Mutant("a standard deviation in float32", "min(group[1]) != max(group[1])",
               "torch.tensor(group[1]).std(correction=0) > 0"),
        Mutant("an unbiased standard deviation: NaN for groups of one", "min(group[1]) != max(group[1])",
               "not torch.tensor(group[1]).std() == 0"),
        Mutant("distance from a rounded mean", "min(group[1]) != max(group[1])",
               "any(x != sum(group[1]) / len(group[1]) for x in group[1])"),
        Mutant("one more than wanted", "len(kept) < wanted", "len(kept) <= wanted"),
        Mutant("limit ignored", " and drawn < limit", ""),
        Mutant("one more than the limit", "drawn < limit", "drawn <= limit"),
        Mutant("the limit counts kept groups", "drawn < limit", "len(kept) < limit"),
        Mutant("wanted ignored", "len(kept) < wanted and ", ""),
        Mutant("drawn counts the kept", "return kept, drawn", "return kept, len(kept)"),
        Mutant("drawn counts those left out", "return kept, drawn", "return kept, drawn - len(kept)"),
        Mutant("results exchanged", "return kept, drawn", "return drawn, kept"),
        Mutant("only the list", "return kept, drawn", "return kept"),
        Mutant("rewards alone", "kept.append(group)", "kept.append(group[1])"),
        Mutant("prompts alone", "kept.append(group)", "kept.append(group[0])"),
        Mutant("each prompt once", "min(group[1]) != max(group[1])",
               "min(group[1]) != max(group[1]) and group[0] not in [p for p, _ in kept]"),
        draw("no refill", "groups = [g for _, g in zip(range(min(wanted, limit)), stream)]\n"
             "return [g for g in groups if len(set(g[1])) > 1], len(groups)"),
        draw("the whole stream is read", "groups = list(stream)[:limit]\nkept = [g for g in groups if len(set(g[1])) > 1]\n"
             "drawn = groups.index(kept[wanted - 1]) + 1 if len(kept) >= wanted else len(groups)\nreturn kept[:wanted], drawn"),
        draw("a batch of `wanted` groups at a time", "kept, drawn = [], 0\nwhile len(kept) < wanted and drawn < limit:\n"
             "    groups = [g for _, g in zip(range(min(wanted, limit - drawn)), stream)]\n    if not groups:\n  "
             "      break\n"
             "    drawn += len(groups)\n    kept += [g for g in groups if len(set(g[1])) > 1]\nreturn kept[:wanted], drawn"),
        draw("asked after the next draw", "kept, drawn = [], 0\nfor group in stream:\n"
             "    if len(kept) == wanted or drawn == limit:\n        break\n    drawn += 1\n"
             "    if len(set(group[1])) > 1:\n        kept.append(group)\nreturn kept, drawn"),
        draw("the end of the stream raises", "kept, drawn = [], 0\nwhile len(kept) < wanted and drawn < limit:\n"
             "    group = next(stream)\n    drawn += 1\n    if len(set(group[1])) > 1:\n        kept.append(group)\n"
             "return kept, drawn"),
        draw("zip takes one too many", "kept, drawn = [], 0\nfor group, drawn in zip(stream, range(1, limit + 1)):\n"
             "    if len(set(group[1])) > 1:\n        kept.append(group)\n    if len(kept) == wanted:\n        break\n"
             "return kept, drawn"),
    ],
    "12.4": [
        Mutant("wrong sign", "return (free - length) / buffer", "return (length - free) / buffer"),
        Mutant("reward for length", source="def overlong_penalty(length, max_length, buffer):\n"
               "    return 0.0 if length <= max_length - buffer else min(1.0, (length - max_length + buffer) / buffer)\n"),
        Mutant("no floor", "    if length >= max_length:\n        return -1.0\n", ""),
        Mutant("no slope", "return (free - length) / buffer", "return -1.0"),
        Mutant("no slope, 0", "return (free - length) / buffer", "return 0.0"),
        Mutant("short answers rewarded", source="def overlong_penalty(length, max_length, buffer):\n"
               "    return max(-1.0, (max_length - buffer - length) / buffer) if buffer else -float(length > max_length)\n"),
        Mutant("beyond max_length nothing", "    if length >= max_length:\n        return -1.0\n",
               "    if length >= max_length:\n        return -1.0 if length == max_length else 0.0\n"),
        Mutant("divided by max_length", "/ buffer", "/ max_length"),
        Mutant("divided by the rest", "/ buffer", "/ max(free, 1)"),
        Mutant("not divided", "(free - length) / buffer", "float(free - length)"),
        Mutant("whole division", "/ buffer", "// buffer"),
        Mutant("slope turned round", "(free - length) / buffer", "(length - max_length) / buffer"),
        Mutant("slope from max_length on", source="def overlong_penalty(length, max_length, buffer):\n"
               "    return float(max(-1.0, min(0.0, (max_length - length) / max(buffer, 1))))\n"),
        Mutant("slope from `buffer` on", "free = max_length - buffer", "free = buffer"),
        Mutant("one token early", "(free - length) / buffer", "(free - length - 1) / buffer"),
        Mutant("one token late", "(free - length) / buffer", "(free - length + 1) / buffer"),
        Mutant("squared", "(free - length) / buffer", "-((length - free) / buffer) ** 2"),
        Mutant("max_length asked first", source="def overlong_penalty(length, max_length, buffer):\n"
               "    if length >= max_length:\n        return -1.0\n    if length <= max_length - buffer:\n       "
               " return 0.0\n"
               "    return (max_length - buffer - length) / buffer\n"),
        Mutant("divides by a buffer of 0", source="def overlong_penalty(length, max_length, buffer):\n"
               "    return max(-1.0, min(0.0, (max_length - buffer - length) / buffer))\n"),
        Mutant("without buffer never a charge", "    if length <= free:", "    if length <= free or not buffer:"),
        Mutant("a tensor", "return (free - length) / buffer", "return torch.tensor((free - length) / buffer)"),
        Mutant("nothing returned in the slope", "    return (free - length) / buffer", "    (free - length) / buffer"),
    ],
}
