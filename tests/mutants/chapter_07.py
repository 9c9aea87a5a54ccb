"""Plausible wrong solutions of chapter 07: router, dispatch, balance loss, capacity."""

from tests.mutants import Mutant

WEIGHTS = "asked.softmax(-1), expert_ids"
CHOICE = "logits.topk(k, dim=-1).indices if replay is None else replay"
FULL = "(p := logits.softmax(-1)).gather(-1, expert_ids)"
UNSORT = "torch.cat(answers)[order.argsort()]"
SWIGLU = "F.linear(F.silu(F.linear(piece, a)) * F.linear(piece, c), b)"
SUM = "(answers * weights.unsqueeze(-1).to(x.dtype)).sum(1)"
COUNTS = "expert_ids.flatten().bincount(minlength=experts).to(probabilities.dtype)"
RESULT = "experts * (share * mean).sum()"
CUT = "probabilities, expert_ids = probabilities[valid], expert_ids[valid]"

MUTANTS = {
    "7.1": [
        Mutant("not renormalised", WEIGHTS, f"{FULL}, expert_ids"),
        Mutant("renormalised over all tokens", WEIGHTS, f"(w := {FULL}) / w.sum(), expert_ids"),
        Mutant("divided by k", WEIGHTS, f"{FULL} / k, expert_ids"),
        Mutant("softmax, then the sum: 0/0 with replay", WEIGHTS,
               f"(w := {FULL}) / w.sum(-1, keepdim=True), expert_ids"),
        Mutant("softmax, then the sum with an epsilon", WEIGHTS,
               f"(w := {FULL}) / (w.sum(-1, keepdim=True) + 1e-9), expert_ids"),
        Mutant("softmax twice", WEIGHTS, "logits.softmax(-1).gather(-1, expert_ids).softmax(-1), expert_ids"),
        Mutant("uniform weights", WEIGHTS, "torch.full_like(asked, 1 / k), expert_ids"),
        Mutant("weights are ones", WEIGHTS, "torch.ones_like(asked), expert_ids"),
        Mutant("sigmoid", WEIGHTS, "asked.sigmoid() / asked.sigmoid().sum(-1, keepdim=True), expert_ids"),
        Mutant("sigmoid, not renormalised", WEIGHTS, "asked.sigmoid(), expert_ids"),
        Mutant("logits as weights", WEIGHTS, "asked, expert_ids"),
        Mutant("logits divided by their sum", WEIGHTS, "asked / asked.sum(-1, keepdim=True), expert_ids"),
        Mutant("softmax over the tokens", WEIGHTS, "asked.softmax(0), expert_ids"),
        Mutant("softmax over the tokens first", WEIGHTS, "logits.softmax(0).gather(-1, expert_ids), expert_ids"),
        Mutant("exp by hand overflows", WEIGHTS, "asked.exp() / asked.exp().sum(-1, keepdim=True), expert_ids"),
        Mutant("detached", WEIGHTS, "asked.detach().softmax(-1), expert_ids"),
        Mutant("denominator detached", WEIGHTS,
               "(e := (asked - asked.amax(-1, keepdim=True).detach()).exp()) / e.sum(-1, keepdim=True).detach(), "
               "expert_ids"),
        Mutant("denominator detached, of probabilities", WEIGHTS,
               f"(w := {FULL}) / w.sum(-1, keepdim=True).detach(), expert_ids"),
        Mutant("swapped results", WEIGHTS, "expert_ids, asked.softmax(-1)"),
        Mutant("only weights", WEIGHTS, "asked.softmax(-1)"),
        Mutant("ids sorted, weights not", WEIGHTS, "asked.softmax(-1), expert_ids.sort(-1).values"),
        Mutant("weights sorted ascending, ids not", WEIGHTS, "asked.softmax(-1).sort(-1).values, expert_ids"),
        Mutant("ids reversed", WEIGHTS, "asked.softmax(-1), expert_ids.flip(-1)"),
        Mutant("smallest", CHOICE, "logits.topk(k, dim=-1, largest=False).indices if replay is None else replay"),
        Mutant("largest absolute", CHOICE, "logits.abs().topk(k, dim=-1).indices if replay is None else replay"),
        Mutant("k is two", CHOICE, "logits.topk(2, dim=-1).indices if replay is None else replay"),
        Mutant("over the tokens", CHOICE, "logits.topk(k, dim=0).indices.T if replay is None else replay"),
        Mutant("the first token's choice", CHOICE,
               "logits[:1].topk(k, dim=-1).indices.repeat(len(logits), 1) if replay is None else replay"),
        Mutant("argsort ascending", CHOICE, "logits.argsort(-1)[:, :k] if replay is None else replay"),
        Mutant("ranks instead of ids", CHOICE, "logits.argsort(-1).argsort(-1)[:, :k] if replay is None else replay"),
        Mutant("sampled", CHOICE, "logits.softmax(-1).multinomial(k) if replay is None else replay"),
        Mutant("replay ignored", CHOICE, "logits.topk(k, dim=-1).indices"),
        Mutant("replay sorted", CHOICE, "logits.topk(k, dim=-1).indices if replay is None else replay.sort(-1).values"),
        Mutant("replay returned, own weights", "asked = logits.gather(-1, expert_ids)",
               "asked = logits.topk(k, dim=-1).values"),
        Mutant("replay without gradient", WEIGHTS,
               "(asked if replay is None else asked.detach()).softmax(-1), expert_ids"),
        Mutant("replay without the router", WEIGHTS,
               "(asked.softmax(-1) if replay is None else torch.full_like(asked, 1 / k)), expert_ids"),
        Mutant("computed in the dtype of the logits", "logits.to(torch.promote_types(logits.dtype, torch.float32))",
               "logits + 0"),
        Mutant("softmax in bf16, then fp32", "logits = logits.to(torch.promote_types(logits.dtype, torch.float32))",
               "dtype = torch.promote_types(logits.dtype, torch.float32)\n"
               "    logits = logits.softmax(-1).to(dtype).log()"),
        Mutant("always float32", "torch.promote_types(logits.dtype, torch.float32)", "torch.float32"),
        Mutant("float32 and back", WEIGHTS, "asked.float().softmax(-1).to(logits.dtype), expert_ids"),
        Mutant("int32 ids", WEIGHTS, "asked.softmax(-1), expert_ids.int()"),
        Mutant("scaled by sqrt(E)", WEIGHTS, "(asked / logits.shape[-1] ** 0.5).softmax(-1), expert_ids"),
        Mutant("in place", "    asked =", "    logits -= logits.amax(-1, keepdim=True)\n    asked ="),
        Mutant("noise", "    asked =", "    logits = logits + 0.1 * torch.randn_like(logits)\n    asked ="),
        Mutant("keeps the choice", CHOICE,
               "router.__dict__.setdefault((k, logits.shape), logits.topk(k, dim=-1).indices) if replay is None "
               "else replay"),
        Mutant("all experts get a weight", WEIGHTS, "logits.softmax(-1), expert_ids"),
        Mutant("weights of two only", WEIGHTS, "asked[:, :2].softmax(-1), expert_ids[:, :2]"),
    ],
    "7.2": [
        Mutant("not unsorted", UNSORT, "torch.cat(answers)"),
        Mutant("unsorted by the order itself", UNSORT, "torch.cat(answers)[order]"),
        Mutant("weighted as sorted, not unsorted", source='''def dispatch(x, weights, expert_ids, w1, w2, w3):
    order = expert_ids.flatten().argsort()
    pieces = x[order // expert_ids.shape[1]].split(expert_ids.flatten().bincount(minlength=len(w1)).tolist())
    answers = torch.cat([F.linear(F.silu(F.linear(piece, a)) * F.linear(piece, c), b)
                         for piece, a, b, c in zip(pieces, w1, w2, w3)])
    answers = answers * weights.flatten()[order, None].to(x.dtype)
    return answers.view(*expert_ids.shape, -1).sum(1)
'''),
        Mutant("view turned round", source='''def dispatch(x, weights, expert_ids, w1, w2, w3):
    flat, (tokens, k) = expert_ids.flatten(), expert_ids.shape
    order = flat.argsort()
    pieces = x[order // k].split(flat.bincount(minlength=len(w1)).tolist())
    answers = torch.cat([F.linear(F.silu(F.linear(piece, a)) * F.linear(piece, c), b)
                         for piece, a, b, c in zip(pieces, w1, w2, w3)])[order.argsort()]
    return (answers.view(k, tokens, -1) * weights.T[..., None].to(x.dtype)).sum(0)
'''),
        Mutant("token is c // E", "order // per_token", "order // len(w1)"),
        Mutant("weight of the first slot for all", SUM, "(answers * weights[:, :1, None].to(x.dtype)).sum(1)"),
        Mutant("weights in the experts' order", SUM,
               "(answers * weights.flatten()[order].view(weights.shape).unsqueeze(-1).to(x.dtype)).sum(1)"),
        Mutant("weights unsorted once too often", SUM,
               "(answers * weights.flatten()[order.argsort()].view(weights.shape).unsqueeze(-1).to(x.dtype)).sum(1)"),
        Mutant("no weights", SUM, "answers.sum(1)"),
        Mutant("mean", SUM, "answers.mean(1)"),
        Mutant("weighted mean", SUM, "(answers * weights.unsqueeze(-1).to(x.dtype)).mean(1)"),
        Mutant("weights squared", SUM, "(answers * weights.square().unsqueeze(-1).to(x.dtype)).sum(1)"),
        Mutant("weights exchanged", SUM, "(answers * weights.flip(1).unsqueeze(-1).to(x.dtype)).sum(1)"),
        Mutant("first expert only", SUM, "answers[:, 0] * weights[:, :1].to(x.dtype)"),
        Mutant("two experts only", SUM, "(answers * weights.unsqueeze(-1).to(x.dtype))[:, :2].sum(1)"),
        Mutant("not back to x.dtype", SUM, "(answers * weights.unsqueeze(-1)).sum(1)"),
        Mutant("residual", SUM, f"x + {SUM}"),
        Mutant("detached weights", SUM, "(answers * weights.detach().unsqueeze(-1).to(x.dtype)).sum(1)"),
        Mutant("detached answers", SUM, "(answers.detach() * weights.unsqueeze(-1).to(x.dtype)).sum(1)"),
        Mutant("token is c % N", "order // per_token", "order % tokens"),
        Mutant("token is c % K", "order // per_token", "order % per_token"),
        Mutant("order not divided", "x[order // per_token]", "x.repeat(per_token, 1)[order]"),
        Mutant("counts of those that occur", "flat.bincount(minlength=len(w1))", "flat.unique(return_counts=True)[1]"),
        Mutant("ReLU", "F.silu(F.linear(piece", "F.relu(F.linear(piece"),
        Mutant("GELU", "F.silu(F.linear(piece", "F.gelu(F.linear(piece"),
        Mutant("sigmoid", "F.silu(F.linear(piece", "torch.sigmoid(F.linear(piece"),
        Mutant("no activation", "F.silu(F.linear(piece, a))", "F.linear(piece, a)"),
        Mutant("w1 and w3 exchanged", SWIGLU, "F.linear(F.silu(F.linear(piece, c)) * F.linear(piece, a), b)"),
        Mutant("SiLU of the product", SWIGLU, "F.linear(F.silu(F.linear(piece, a) * F.linear(piece, c)), b)"),
        Mutant("added, not multiplied", SWIGLU, "F.linear(F.silu(F.linear(piece, a)) + F.linear(piece, c), b)"),
        Mutant("without w3", SWIGLU, "F.linear(F.silu(F.linear(piece, a)), b)"),
        Mutant("matrices not transposed", SWIGLU, "(F.silu(piece @ a) * (piece @ c)) @ b"),
        Mutant("experts reversed", "zip(pieces, w1, w2, w3)", "zip(pieces, w1.flip(0), w2.flip(0), w3.flip(0))"),
        Mutant("first expert's w2 for all", SWIGLU, SWIGLU.replace(", b)", ", w2[0])")),
        Mutant("detached w3", "F.linear(piece, c)", "F.linear(piece, c.detach())"),
        Mutant("detached x", "x[order // per_token]", "x.detach()[order // per_token]"),
        Mutant("ids sorted first", "expert_ids.flatten()", "expert_ids.sort(1).values.flatten()"),
        Mutant("column-major ids", "expert_ids.flatten()", "expert_ids.T.flatten()"),
        Mutant("computed in half precision", UNSORT, "torch.cat(answers)[order.argsort()].bfloat16().to(x.dtype)"),
        Mutant("always float32", SUM, "(answers * weights.unsqueeze(-1)).sum(1).float()"),
        Mutant("overwrites", source='''def dispatch(x, weights, expert_ids, w1, w2, w3):
    out = torch.zeros_like(x)
    for e in range(len(w1)):
        token, slot = (expert_ids == e).nonzero(as_tuple=True)
        answer = F.linear(F.silu(F.linear(x[token], w1[e])) * F.linear(x[token], w3[e]), w2[e])
        out[token] = (answer * weights[token, slot].unsqueeze(-1)).to(x.dtype)
    return out
'''),
        Mutant("forgets the last expert", source='''def dispatch(x, weights, expert_ids, w1, w2, w3):
    out = torch.zeros_like(x)
    for e in range(len(w1) - 1):
        token, slot = (expert_ids == e).nonzero(as_tuple=True)
        answer = F.linear(F.silu(F.linear(x[token], w1[e])) * F.linear(x[token], w3[e]), w2[e])
        out = out.index_add(0, token, (answer * weights[token, slot].unsqueeze(-1)).to(x.dtype))
    return out
'''),
        Mutant("six experts, whatever there are", source='''def dispatch(x, weights, expert_ids, w1, w2, w3):
    out = torch.zeros_like(x)
    for e in range(6):
        token, slot = (expert_ids == e).nonzero(as_tuple=True)
        answer = F.linear(F.silu(F.linear(x[token], w1[e])) * F.linear(x[token], w3[e]), w2[e])
        out = out.index_add(0, token, (answer * weights[token, slot].unsqueeze(-1)).to(x.dtype))
    return out
'''),
        Mutant("by experts, dtypes not seen to", source='''def dispatch(x, weights, expert_ids, w1, w2, w3):
    out = torch.zeros_like(x)
    for e in range(len(w1)):
        token, slot = (expert_ids == e).nonzero(as_tuple=True)
        answer = F.linear(F.silu(F.linear(x[token], w1[e])) * F.linear(x[token], w3[e]), w2[e])
        out = out.index_add(0, token, answer * weights[token, slot, None])
    return out
'''),
        Mutant("returns inside the loop", source='''def dispatch(x, weights, expert_ids, w1, w2, w3):
    out = torch.zeros_like(x)
    for e in range(len(w1)):
        token, slot = (expert_ids == e).nonzero(as_tuple=True)
        answer = F.linear(F.silu(F.linear(x[token], w1[e])) * F.linear(x[token], w3[e]), w2[e])
        out = out.index_add(0, token, (answer * weights[token, slot].unsqueeze(-1)).to(x.dtype))
        return out
'''),
        Mutant("weighs the token", source='''def dispatch(x, weights, expert_ids, w1, w2, w3):
    out = torch.zeros_like(x)
    for e in range(len(w1)):
        token, slot = (expert_ids == e).nonzero(as_tuple=True)
        given = x[token] * weights[token, slot].unsqueeze(-1).to(x.dtype)
        answer = F.linear(F.silu(F.linear(given, w1[e])) * F.linear(given, w3[e]), w2[e])
        out = out.index_add(0, token, answer)
    return out
'''),
        Mutant("every expert on every token", source='''def dispatch(x, weights, expert_ids, w1, w2, w3):
    return sum(F.linear(F.silu(F.linear(x, a)) * F.linear(x, c), b) for a, b, c in zip(w1, w2, w3))
'''),
        Mutant("weights by expert id", source='''def dispatch(x, weights, expert_ids, w1, w2, w3):
    out = torch.zeros_like(x)
    for e in range(len(w1)):
        token, slot = (expert_ids == e).nonzero(as_tuple=True)
        answer = F.linear(F.silu(F.linear(x[token], w1[e])) * F.linear(x[token], w3[e]), w2[e])
        out = out.index_add(0, token, (answer * weights[token, e % weights.shape[1]].unsqueeze(-1)).to(x.dtype))
    return out
'''),
        Mutant("in place", "    tokens, per_token",
               "    weights /= weights.sum(1, keepdim=True) * 2\n    tokens, per_token"),
        Mutant("renormalises to the largest", "    tokens, per_token",
               "    weights = weights / weights.amax(1, keepdim=True)\n    tokens, per_token"),
        Mutant("keeps the order", "order = flat.argsort()",
               "order = dispatch.__dict__.setdefault(flat.shape, flat.argsort())"),
        Mutant("drops the least weight", "    tokens, per_token",
               "    weights = weights * (weights > weights.amin(1, keepdim=True))\n    tokens, per_token"),
    ],
    "7.3": [
        Mutant("shares sum to K", "max(expert_ids.numel(), 1)", "max(len(expert_ids), 1)"),
        Mutant("no factor E", RESULT, "(share * mean).sum()"),
        Mutant("divided by E", RESULT, "(share * mean).sum() / experts"),
        Mutant("mean instead of sum", RESULT, "(share * mean).mean()"),
        Mutant("times K", RESULT, f"expert_ids.shape[1] * {RESULT}"),
        Mutant("E squared", RESULT, f"experts * {RESULT}"),
        Mutant("minus one", RESULT, f"{RESULT} - 1"),
        Mutant("minus", RESULT, f"-{RESULT}"),
        Mutant("load squared", RESULT, "experts * (share * share).sum() + 0 * mean.sum()"),
        Mutant("mean squared", RESULT, "experts * (mean * mean).sum()"),
        Mutant("mean detached", RESULT, "experts * (share * mean.detach()).sum()"),
        Mutant("log of the mean", RESULT, "-(share * mean.log()).sum()"),
        Mutant("variation of the load", RESULT, "(share.var() / share.mean() ** 2) + 0 * mean.sum()"),
        Mutant("counts, no shares", "counts / max(expert_ids.numel(), 1)", "counts"),
        Mutant("sums, no means", "probabilities.sum(0) / max(len(probabilities), 1)", "probabilities.sum(0)"),
        Mutant("softmax over the tokens", ".softmax(-1)", ".softmax(0)"),
        Mutant("no softmax", ".softmax(-1)", ""),
        Mutant("sigmoid", ".softmax(-1)", ".sigmoid()"),
        Mutant("own choice, top K", COUNTS,
               "probabilities.topk(expert_ids.shape[1]).indices.flatten().bincount(minlength=experts)"
               ".to(probabilities.dtype)"),
        Mutant("own choice, top 1", COUNTS,
               "probabilities.argmax(-1).bincount(minlength=experts).to(probabilities.dtype) * expert_ids.shape[1]"),
        Mutant("first slot only", COUNTS,
               "expert_ids[:, 0].bincount(minlength=experts).to(probabilities.dtype) * expert_ids.shape[1]"),
        Mutant("first slot, not scaled", COUNTS,
               "expert_ids[:, 0].bincount(minlength=experts).to(probabilities.dtype)"),
        Mutant("no minlength", "minlength=experts", "minlength=0"),
        Mutant("renormalised weights", "    share =",
               "    probabilities = torch.zeros_like(probabilities).scatter(1, expert_ids, probabilities.gather(1, "
               "expert_ids) / probabilities.gather(1, expert_ids).sum(1, keepdim=True))\n    share ="),
        Mutant("probabilities of those chosen", "    share =",
               "    probabilities = torch.zeros_like(probabilities).scatter(1, expert_ids, probabilities.gather(1, "
               "expert_ids))\n    share ="),
        Mutant("valid ignored", CUT, "pass"),
        Mutant("padding counts in f", CUT, "probabilities = probabilities[valid]"),
        Mutant("padding counts in m", CUT, "expert_ids = expert_ids[valid]"),
        Mutant("valid turned round", CUT, "probabilities, expert_ids = probabilities[~valid], expert_ids[~valid]"),
        Mutant("divided by all N", "max(len(probabilities), 1)", "max(len(logits), 1)"),
        Mutant("multiplied by the share of valid", RESULT,
               f"(1.0 if valid is None else valid.float().mean()) * {RESULT}"),
        Mutant("ids of padding set to 0", CUT,
               "probabilities, expert_ids = probabilities[valid], expert_ids * valid[:, None]"),
        Mutant("all of padding set to 0", CUT, "probabilities, expert_ids = (logits * valid[:, None]).float()"
               ".softmax(-1), expert_ids * valid[:, None]"),
        Mutant("mean of the products", RESULT,
               "experts * probabilities.gather(1, expert_ids).sum() / max(expert_ids.numel(), 1)"),
        Mutant("probabilities in the place of counts", "    share =", "    counts = torch.zeros_like(probabilities)"
               ".scatter(1, expert_ids, probabilities.gather(1, expert_ids)).sum(0) * expert_ids.shape[1]\n"
               "    share ="),
        Mutant("exp by hand overflows", "probabilities = logits.to(torch.promote_types(logits.dtype, torch.float32))"
               ".softmax(-1)", "probabilities = logits.to(torch.promote_types(logits.dtype, torch.float32)).exp()\n"
               "    probabilities = probabilities / probabilities.sum(-1, keepdim=True)"),
        Mutant("a number where all is padding", "    counts =",
               "    if valid is not None and not valid.any():\n        return 0.0\n    counts ="),
        Mutant("NaN where all is padding", "max(len(probabilities), 1)", "len(probabilities)"),
        Mutant("NaN by mean", "probabilities.sum(0) / max(len(probabilities), 1)", "probabilities.mean(0)"),
        Mutant("NaN in the shares", "max(expert_ids.numel(), 1)",
               "torch.tensor(expert_ids.numel())"),
        Mutant("1 where all is padding", "    counts =",
               "    if valid is not None and not valid.any():\n"
               "        return logits.float().sum() * 0 + 1\n    counts ="),
        Mutant("in the dtype of the logits", "logits.to(torch.promote_types(logits.dtype, torch.float32))", "logits"),
        Mutant("always float32", "torch.promote_types(logits.dtype, torch.float32)", "torch.float32"),
        Mutant("python float", RESULT, f"({RESULT}).item()"),
        Mutant("one entry per expert", RESULT, "experts * share * mean"),
        Mutant("one dimension", RESULT, f"({RESULT}).view(1)"),
        Mutant("zeros at padding, softmax kept", CUT,
               "probabilities, expert_ids = (logits * valid[:, None]).float().softmax(-1), expert_ids[valid]"),
        Mutant("probabilities of padding set to 0", CUT, "probabilities = probabilities * valid[:, None]"),
        Mutant("kept between calls", RESULT, f"balance_loss.__dict__.setdefault(logits.shape, {RESULT})"),
        Mutant("counts kept between calls", "    share =",
               "    counts = balance_loss.__dict__.setdefault((logits.shape, expert_ids.shape), counts)\n    share ="),
    ],
    "7.4": [
        Mutant("one too many", "room[expert] > 0", "room[expert] >= 0"),
        Mutant("one too few", "room[expert] > 0", "room[expert] > 1"),
        Mutant("room for all together", "room[expert] > 0", "sum(room) > (num_experts - 1) * capacity"),
        Mutant("turned round", "return kept", "return ~kept"),
        Mutant("int", "return kept", "return kept.int()"),
        Mutant("whole tokens", "return kept", "return kept.all(1, keepdim=True).expand_as(kept)"),
        Mutant("any copy keeps all", "return kept", "return kept.any(1, keepdim=True).expand_as(kept)"),
        Mutant("one column", "return kept", "return kept.all(1)"),
        Mutant("everything", "return kept", "return torch.ones_like(kept)"),
        Mutant("nothing", "return kept", "return torch.zeros_like(kept)"),
        Mutant("list", "return kept", "return kept.tolist()"),
        Mutant("never full", "room[expert] -= 1", "pass"),
        Mutant("one expert too few", "[capacity] * num_experts", "[capacity] * (num_experts - 1)"),
        Mutant("slots first", source='''def drop_tokens(expert_ids, num_experts, capacity):
    kept = torch.zeros(expert_ids.shape, dtype=torch.bool)
    room = [capacity] * num_experts
    for slot in range(expert_ids.shape[1]):
        for token in range(expert_ids.shape[0]):
            if room[expert_ids[token, slot]] > 0:
                kept[token, slot] = True
                room[expert_ids[token, slot]] -= 1
    return kept
'''),
        Mutant("from the end", source='''def drop_tokens(expert_ids, num_experts, capacity):
    kept = torch.zeros(expert_ids.shape, dtype=torch.bool)
    room = [capacity] * num_experts
    for token in reversed(range(len(expert_ids))):
        for slot in range(expert_ids.shape[1]):
            if room[expert_ids[token, slot]] > 0:
                kept[token, slot] = True
                room[expert_ids[token, slot]] -= 1
    return kept
'''),
        Mutant("sorted, not stable", source='''def drop_tokens(expert_ids, num_experts, capacity):
    flat = expert_ids.flatten()
    order = flat.argsort()
    starts = flat.bincount(minlength=num_experts).cumsum(0) - flat.bincount(minlength=num_experts)
    place = torch.arange(len(flat)) - starts[flat[order]]
    return (place < capacity)[order.argsort()].view(expert_ids.shape)
'''),
        Mutant("sorted, not brought back", source='''def drop_tokens(expert_ids, num_experts, capacity):
    flat = expert_ids.flatten()
    order = flat.argsort(stable=True)
    starts = flat.bincount(minlength=num_experts).cumsum(0) - flat.bincount(minlength=num_experts)
    place = torch.arange(len(flat)) - starts[flat[order]]
    return (place < capacity).view(expert_ids.shape)
'''),
        Mutant("cumsum along the experts", source='''def drop_tokens(expert_ids, num_experts, capacity):
    named = F.one_hot(expert_ids.flatten(), num_experts)
    return ((named.cumsum(1) * named).sum(1) <= capacity).view(expert_ids.shape)
'''),
        Mutant("a capacity for each slot", source='''def drop_tokens(expert_ids, num_experts, capacity):
    named = F.one_hot(expert_ids, num_experts)
    return (named.cumsum(0) * named).sum(2) <= capacity
'''),
        Mutant("transposed", source='''def drop_tokens(expert_ids, num_experts, capacity):
    named = F.one_hot(expert_ids.T.flatten(), num_experts)
    return ((named.cumsum(0) * named).sum(1) <= capacity).view(expert_ids.shape)
'''),
        Mutant("strictly below", source='''def drop_tokens(expert_ids, num_experts, capacity):
    named = F.one_hot(expert_ids.flatten(), num_experts)
    return ((named.cumsum(0) * named).sum(1) < capacity).view(expert_ids.shape)
'''),
        Mutant("without the mask", source='''def drop_tokens(expert_ids, num_experts, capacity):
    named = F.one_hot(expert_ids.flatten(), num_experts)
    return (named.cumsum(0).amax(1) <= capacity).view(expert_ids.shape)
'''),
        Mutant("overfull experts lose everything", source='''def drop_tokens(expert_ids, num_experts, capacity):
    counts = expert_ids.flatten().bincount(minlength=num_experts)
    return (counts <= capacity)[expert_ids]
'''),
        Mutant("counts tokens", source='''def drop_tokens(expert_ids, num_experts, capacity):
    return (torch.arange(len(expert_ids)) < capacity)[:, None].expand_as(expert_ids)
'''),
        Mutant("sorted within a token", "    room =",
               "    expert_ids = expert_ids.sort(1).values\n    room ="),
        Mutant("in place", "return kept", "expert_ids[~kept] = -1\n    return kept"),
        Mutant("stops at the first full expert", "room[expert] -= 1",
               "room[expert] -= 1\n            else:\n                return kept"),
        Mutant("at least one", "[capacity] * num_experts", "[max(capacity, 1)] * num_experts"),
        Mutant("expert number as token's", "room[expert] > 0", "room[slot] > 0"),
    ],
}
