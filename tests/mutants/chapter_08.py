"""Wrong solutions of chapter 08's exercises: packing, the loss, the schedule and AdamW."""

from tests.mutants import Mutant

SORTED = "sorted(documents, key=lambda document: -len(document[0]))"
FULLEST = "max(fits, key=used).append(document)"
IDS = "batch.input_ids[row, start:end] = torch.tensor(ids)"
MASK = "batch.mask[row, start + 1 : end] = torch.tensor(mask[1:], dtype=torch.bool)"
NUMBER = "batch.document_ids[row, start:end] = number"
POSITIONS = "batch.positions[row, start:end] = torch.arange(len(ids))"
FITS = "used(row) + used([document]) <= length"
BATCH = "return batch"
CHOSEN = "chosen = logprobs.gather(-1, input_ids[:, 1:, None])[:, :, 0]  # (B, T - 1)"
SUM = "torch.where(mask[:, 1:].bool(), chosen, 0.0).sum() / total_tokens"
LOGPROBS = "logits[:, :-1].log_softmax(-1)"
OUT = 'return LossOutput(loss, {"loss": loss.detach()})'
WARM = "(step + 1) / warmup_steps"
FALL = "final + (1 - final) * left / decay_steps"
LEFT = "total_steps - 1 - step"
DENOMINATOR = "(root + eps)"
WEIGHT = "weight = (1 - learning_rate * weight_decay) * weight - learning_rate * mean / (root + eps)"

MUTANTS = {
    "8.1": [
        Mutant("in the order given", SORTED, "documents"),
        Mutant("shortest first", "-len(document[0])", "len(document[0])"),
        Mutant("ties the other way", SORTED, "sorted(documents, key=lambda document: len(document[0]))[::-1]"),
        Mutant("sorted by targets", "-len(document[0])", "-sum(document[1])"),
        Mutant("first fit", FULLEST, "fits[0].append(document)"),
        Mutant("last fit", FULLEST, "fits[-1].append(document)"),
        Mutant("worst fit", FULLEST, "min(fits, key=used).append(document)"),
        Mutant("fullest by documents", "max(fits, key=used)", "max(fits, key=len)"),
        Mutant("ties to the later row", "max(fits, key=used)", "max(reversed(fits), key=used)"),
        Mutant("must leave a token free", FITS, "used(row) + used([document]) < length"),
        Mutant("one document too many", FITS, "used(row) < length - 1 and used(row) + used([document]) <= length"),
        Mutant("a row each", "fits = [row for row in rows if used(row) + used([document]) <= length]", "fits = []"),
        Mutant("last row only", "for row in rows if", "for row in rows[-1:] if"),
        Mutant("too long is cut", 'raise UserError(f"a document has {len(document[0])} tokens, a row only {length}; '
               'raise the length")', "document = (document[0][:length], document[1][:length])"),
        Mutant("too long is left out", 'raise UserError(f"a document has {len(document[0])} tokens, a row only '
               '{length}; raise the length")', "continue"),
        Mutant("too long is an AssertionError",
               'raise UserError(f"a document has {len(document[0])} tokens, a row only '
               '{length}; raise the length")', "raise AssertionError"),
        Mutant("a full row is refused as too long", "if len(document[0]) > length", "if len(document[0]) >= length"),
        Mutant("pads with 0", "padding(len(rows), length, pad_id)", "padding(len(rows), length, 0)"),
        Mutant("mask as it is", MASK, "batch.mask[row, start:end] = torch.tensor(mask, dtype=torch.bool)"),
        Mutant("mask of the first document only", MASK, "batch.mask[row, start:end] = torch.tensor(mask, dtype="
               "torch.bool)\n            batch.mask[row, 0] = False"),
        Mutant("mask one to the left",
               MASK, "batch.mask[row, start : end - 1] = torch.tensor(mask[1:], dtype=torch.bool)"),
        Mutant("mask one to the right",
               MASK, "batch.mask[row, start + 1 : end] = torch.tensor(mask[:-1], dtype=torch.bool)"),
        Mutant("all are targets", MASK, "batch.mask[row, start + 1 : end] = True"),
        Mutant("mask turned round",
               "torch.tensor(mask[1:], dtype=torch.bool)", "~torch.tensor(mask[1:], dtype=torch.bool)"),
        Mutant("last token taken away",
               MASK, "batch.mask[row, start : end - 1] = torch.tensor(mask[:-1], dtype=torch.bool)"),
        Mutant("no mask", MASK, "pass"),
        Mutant("padding is a target", BATCH, "batch.mask[batch.document_ids < 0] = True\n    return batch"),
        Mutant("numbers from 1", NUMBER, "batch.document_ids[row, start:end] = number + 1"),
        Mutant("one number for the row", NUMBER, "batch.document_ids[row, start:end] = row"),
        Mutant("all one document", NUMBER, "batch.document_ids[row, start:end] = 0"),
        Mutant("numbers through all rows", NUMBER,
               "batch.document_ids[row, start:end] = number + sum(map(len, rows[:row]))"),
        Mutant("numbers of the list",
               NUMBER, "batch.document_ids[row, start:end] = [x is ids for x, _ in documents].index(True)"),
        Mutant("padding belongs to document 0", BATCH, "batch.document_ids.clamp_(min=0)\n    return batch"),
        Mutant("positions run on", POSITIONS, "batch.positions[row, start:end] = torch.arange(start, end)"),
        Mutant("positions from 1", POSITIONS, "batch.positions[row, start:end] = torch.arange(len(ids)) + 1"),
        Mutant("no positions", POSITIONS, "pass"),
        Mutant("positions of padding go on", POSITIONS, "batch.positions[row, start:] = torch.arange(length - start)"),
        Mutant("documents backwards", "enumerate(packed)", "enumerate(packed[::-1])"),
        Mutant("ids as int32",
               BATCH, "return Batch(batch.input_ids.int(), batch.mask, batch.document_ids, batch.positions)"),
        Mutant("mask of whole numbers", BATCH,
               "return Batch(batch.input_ids, batch.mask.long(), batch.document_ids, batch.positions)"),
        Mutant("a tuple", BATCH, "return batch.input_ids, batch.mask, batch.document_ids, batch.positions"),
        Mutant("changed places",
               BATCH, "return Batch(batch.input_ids, batch.mask, batch.positions, batch.document_ids)"),
        Mutant("sorted in place",
               "rows = []\n", "rows = []\n    documents.sort(key=lambda document: -len(document[0]))\n"),
        Mutant("kept", "rows = []\n", "rows = pack.__dict__.setdefault('rows', [])\n"),
        Mutant("no documents fail",
               "rows = []\n", "rows = []\n    length = length or max(len(x) for x, _ in documents)\n"
               "    assert documents\n"),
        Mutant("rows are sorted", "batch = padding(", "rows.sort(key=used)\n    batch = padding("),
    ],
    "8.2": [
        Mutant("mean over the targets", SUM, "torch.where(mask[:, 1:].bool(), chosen, 0.0).sum() / mask.sum()"),
        Mutant("mean over all", SUM, "torch.where(mask[:, 1:].bool(), chosen, 0.0).mean()"),
        Mutant("not divided", " / total_tokens", ""),
        Mutant("divided by rows", " / total_tokens", " / len(logits)"),
        Mutant("divided twice", "/ total_tokens", "/ total_tokens / mask.sum().clamp(min=1)"),
        Mutant("mean of rows",
               SUM, "(torch.where(mask[:, 1:].bool(), chosen, 0.0).sum(1) / mask.sum(1).clamp(min=1)).mean()"),
        Mutant("no shift",
               CHOSEN, "chosen = logits[:, 1:].log_softmax(-1).gather(-1, input_ids[:, 1:, None])[:, :, 0]"),
        Mutant("shift backwards", CHOSEN,
               "chosen = logits[:, 1:].log_softmax(-1).gather(-1, input_ids[:, :-1, None])[:, :, 0]"),
        Mutant("mask like the logits", "mask[:, 1:]", "mask[:, :-1]"),
        Mutant("no mask", "torch.where(mask[:, 1:].bool(), chosen, 0.0)", "chosen"),
        Mutant("mask turned round", "mask[:, 1:].bool(), chosen, 0.0", "mask[:, 1:].bool(), 0.0, chosen"),
        Mutant("sign", "-torch.where", "torch.where"),
        Mutant("log of softmax", LOGPROBS, "logits[:, :-1].softmax(-1).log()"),
        Mutant("log of softmax plus a little", LOGPROBS, "(logits[:, :-1].softmax(-1) + 1e-9).log()"),
        Mutant("exp overflows", LOGPROBS, "logits[:, :-1] - logits[:, :-1].exp().sum(-1, keepdim=True).log()"),
        Mutant("base 2", LOGPROBS, "logits[:, :-1].log_softmax(-1) / 0.6931471805599453"),
        Mutant("softmax over time", LOGPROBS, "logits[:, :-1].log_softmax(1)"),
        Mutant("softmax over rows", LOGPROBS, "logits[:, :-1].log_softmax(0)"),
        Mutant("no softmax", LOGPROBS, "logits[:, :-1]"),
        Mutant("probabilities", LOGPROBS, "logits[:, :-1].softmax(-1)"),
        Mutant("computed in bf16", "logits = logits.float()", "pass"),
        Mutant("always fp32",
               "if logits.dtype != torch.float64:\n        logits = logits.float()", "logits = logits.float()"),
        Mutant("rounded to bf16", LOGPROBS, "logits[:, :-1].bfloat16().to(logits.dtype).log_softmax(-1)"),
        Mutant("always fp64", "logits = logits.float()", "logits = logits.double()"),
        Mutant("metric not detached", OUT, 'return LossOutput(loss, {"loss": loss})'),
        Mutant("metric a number", OUT, 'return LossOutput(loss, {"loss": loss.item()})'),
        Mutant("metric is the sum", OUT,
               'return LossOutput(loss, {"loss": loss.detach() * total_tokens})'),
        Mutant("no metric", OUT, "return LossOutput(loss)"),
        Mutant("metric under another name", OUT, 'return LossOutput(loss, {"lm_loss": loss.detach()})'),
        Mutant("loss detached", OUT, 'return LossOutput(loss.detach(), {"loss": loss.detach()})'),
        Mutant("a tensor", OUT, "return loss"),
        Mutant("a tuple", OUT, 'return loss, {"loss": loss.detach()}'),
        Mutant("one number in a list", "loss = -torch", "loss = -torch.ones(1) * torch"),
        Mutant("bool masks only", "mask[:, 1:].bool()", "mask[:, 1:]"),
        Mutant("mask of ones picks by index", SUM, "chosen[mask[:, 1:]].sum() / total_tokens"),
        Mutant("no targets gives None", "loss = -torch", "if not mask.any():\n        return None\n    loss = -torch"),
        Mutant("no targets is cut off", "loss = -torch", "if not mask.any():\n        zero = torch.zeros(())\n"
               '        return LossOutput(zero, {"loss": zero})\n    loss = -torch'),
        Mutant("first row only", "torch.where(mask[:, 1:].bool(), chosen, 0.0).sum()",
               "torch.where(mask[:, 1:].bool(), chosen, 0.0)[0].sum()"),
        Mutant("total kept", "loss = -torch", "total_tokens = lm_loss.__dict__.setdefault('total', total_tokens)\n"
               "    loss = -torch"),
        Mutant("logits changed", "logprobs = logits", "logits -= logits.amax(-1, keepdim=True)\n    logprobs = logits"),
        Mutant("total made an int", "/ total_tokens", "/ int(total_tokens)"),
        Mutant("label smoothing",
               LOGPROBS, "(0.9 * logits[:, :-1].log_softmax(-1) + 0.1 * logits[:, :-1].log_softmax(-1)."
               "mean(-1, keepdim=True))"),
    ],
    "8.3": [
        Mutant("first step 0", WARM, "step / warmup_steps"),
        Mutant("one step late", WARM, "(step + 1) / (warmup_steps + 1)"),
        Mutant("warm-up one step longer", "step < warmup_steps", "step <= warmup_steps"),
        Mutant("warm-up one step shorter", "step < warmup_steps", "step < warmup_steps - 1"),
        Mutant("no warm-up", "step < warmup_steps", "step < 0"),
        Mutant("warm-up constant", WARM, "1 / warmup_steps"),
        Mutant("warm-up squared", WARM, "((step + 1) / warmup_steps) ** 2"),
        Mutant("warmup rounded down", "round(warmup * total_steps)", "int(warmup * total_steps)"),
        Mutant("decay rounded down", "round(decay * total_steps)", "int(decay * total_steps)"),
        Mutant("decay rounded up", "round(decay * total_steps)", "-int(-decay * total_steps // 1)"),
        Mutant("half rounded up", "round(decay * total_steps)", "int(decay * total_steps + 0.5)"),
        Mutant("warmup may be 0", "max(1, round(warmup * total_steps))", "round(warmup * total_steps)"),
        Mutant("left one too large", LEFT, "total_steps - step"),
        Mutant("left one too small", LEFT, "total_steps - 2 - step"),
        Mutant("decay over one step less", "left / decay_steps", "left / (decay_steps - 1)"),
        Mutant("decay over one step more", "left / decay_steps", "(left + 1) / (decay_steps + 1)"),
        Mutant("decay one step shorter", "left >= decay_steps", "left >= decay_steps - 1"),
        Mutant("no decay", "left >= decay_steps", "left >= 0"),
        Mutant("decay to 0", FALL, "left / decay_steps"),
        Mutant("decay cut at final", FALL, "max(final, left / decay_steps)"),
        Mutant("decay at once", FALL, "final"),
        Mutant("decay by final", FALL, "1 - final * (1 - left / decay_steps)"),
        Mutant("decay rises", FALL, "1 - (1 - final) * left / decay_steps"),
        Mutant("cosine", FALL, "final + (1 - final) * (1 - torch.cos(torch.tensor(3.141592653589793 * left / "
               "decay_steps)).item()) / 2"),
        Mutant("exponential", FALL, "final ** (1 - left / decay_steps)"),
        Mutant("after the share", "left >= decay_steps", "step < decay_steps"),
        Mutant("decay after the warm-up", "decay_steps = round(decay * total_steps)",
               "decay_steps = total_steps - warmup_steps"),
        Mutant("decay a share of what is left", "decay_steps = round(decay * total_steps)",
               "decay_steps = round(decay * (total_steps - warmup_steps))"),
        Mutant("smaller of the two", f"if step < warmup_steps:\n        return {WARM}",
               f"if step < warmup_steps:\n        return min({WARM}, 1.0 if left >= decay_steps else {FALL})"),
        Mutant("product of the two", f"if step < warmup_steps:\n        return {WARM}",
               f"if step < warmup_steps:\n        return {WARM} * (1.0 if left >= decay_steps else {FALL})"),
        Mutant("decay first", f"if step < warmup_steps:\n        return {WARM}\n    if left >= decay_steps:\n"
               f"        return 1.0\n    return {FALL}", f"if left < decay_steps:\n        return {FALL}\n"
               f"    return min(1.0, {WARM})"),
        Mutant("always final 0.05", "    warmup_steps =", "    final = 0.05\n    warmup_steps ="),
        Mutant("other default of warmup",
               source='''def schedule(step, total_steps, *, warmup=0.1, decay=0.5, final=0.05):
    warmup_steps, decay_steps = max(1, round(warmup * total_steps)), round(decay * total_steps)
    left = total_steps - 1 - step
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 1.0 if left >= decay_steps else final + (1 - final) * left / decay_steps
'''),
        Mutant("a tensor", f"return {FALL}", f"return torch.tensor({FALL})"),
        Mutant("divides by zero", "if left >= decay_steps:", "if left / decay_steps >= 1:"),
        Mutant("nothing in the middle", "        return 1.0\n", "        return\n"),
        Mutant("whole division", WARM, "(step + 1) // warmup_steps"),
        Mutant("rounded", f"return {FALL}", f"return round({FALL}, 2)"),
        Mutant("kept",
               "warmup_steps =", "total_steps = schedule.__dict__.setdefault('total', total_steps)\n"
               "    warmup_steps ="),
    ],
    "8.4": [
        Mutant("eps in the root", DENOMINATOR, "(exp_avg_sq / (1 - beta2**step) + eps).sqrt()"),
        Mutant("eps before the repair", DENOMINATOR, "((exp_avg_sq.sqrt() + eps) / (1 - beta2**step) ** 0.5)"),
        Mutant("no eps", DENOMINATOR, "root"),
        Mutant("largest of both", DENOMINATOR, "root.clamp(min=eps)"),
        Mutant("eps subtracted", DENOMINATOR, "(root - eps)"),
        Mutant("always 1e-8", DENOMINATOR, "(root + 1e-8)"),
        Mutant("at least 1e-8", DENOMINATOR, "(root + max(eps, 1e-8))"),
        Mutant("v not repaired", "(exp_avg_sq / (1 - beta2**step)).sqrt()", "exp_avg_sq.sqrt()"),
        Mutant("m not repaired", "exp_avg / (1 - beta1**step)", "exp_avg"),
        Mutant("nothing repaired",
               "mean = exp_avg / (1 - beta1**step)\n    root = (exp_avg_sq / (1 - beta2**step)).sqrt()",
               "mean, root = exp_avg, exp_avg_sq.sqrt()"),
        Mutant("repaired without the power", "(1 - beta1**step)", "(1 - beta1)"),
        Mutant("steps from 0", "mean = ", "step = step - 1 + 1e-9\n    mean = "),
        Mutant("steps from 2", "mean = ", "step = step + 1\n    mean = "),
        Mutant("no root", "(exp_avg_sq / (1 - beta2**step)).sqrt()", "exp_avg_sq / (1 - beta2**step)"),
        Mutant("betas exchanged", "beta1, beta2 = betas", "beta2, beta1 = betas"),
        Mutant("beta1 for both", "beta1, beta2 = betas", "beta1 = beta2 = betas[0]"),
        Mutant("old m", "mean = exp_avg /", "mean = ((exp_avg - (1 - beta1) * gradient) / beta1) /"),
        Mutant("m the other way round",
               "beta1 * exp_avg + (1 - beta1) * gradient", "beta1 * gradient + (1 - beta1) * exp_avg"),
        Mutant("gradient whole", "beta1 * exp_avg + (1 - beta1) * gradient", "beta1 * exp_avg + gradient"),
        Mutant("v of the gradient", "gradient**2", "gradient.abs()"),
        Mutant("v of m", "gradient**2", "exp_avg**2"),
        Mutant("decay in the gradient", "beta1, beta2 = betas", "beta1, beta2 = betas\n    gradient = gradient + "
               "weight_decay * weight\n    weight_decay = 0"),
        Mutant("no decay", "(1 - learning_rate * weight_decay) * weight", "weight"),
        Mutant("decay without the rate", "(1 - learning_rate * weight_decay)", "(1 - weight_decay)"),
        Mutant("decay grows", "(1 - learning_rate * weight_decay)", "(1 + learning_rate * weight_decay)"),
        Mutant("decay after the step",
               WEIGHT, "weight = (1 - learning_rate * weight_decay) * (weight - learning_rate * mean / "
               "(root + eps))"),
        Mutant("uphill", "* weight - learning_rate * mean", "* weight + learning_rate * mean"),
        Mutant("returns the repaired", "return weight, exp_avg, exp_avg_sq",
               "return weight, mean, exp_avg_sq"),
        Mutant("returns the root", "return weight, exp_avg, exp_avg_sq", "return weight, exp_avg, root"),
        Mutant("returns the weight only", "return weight, exp_avg, exp_avg_sq", "return weight"),
        Mutant("returns in another order", "return weight, exp_avg, exp_avg_sq", "return exp_avg, exp_avg_sq, weight"),
        Mutant("in place", "exp_avg = beta1 * exp_avg + (1 - beta1) * gradient",
               "exp_avg.mul_(beta1).add_((1 - beta1) * gradient)"),
        Mutant("weight in place",
               WEIGHT, "weight *= 1 - learning_rate * weight_decay\n    weight -= learning_rate * mean / "
               "(root + eps)"),
        Mutant("the sign only", "learning_rate * mean / (root + eps)", "learning_rate * mean.sign()"),
        Mutant("always fp32", "return weight, exp_avg, exp_avg_sq",
               "return weight.float(), exp_avg.float(), exp_avg_sq.float()"),
        Mutant("through fp16", "gradient**2", "gradient.half().to(gradient.dtype) ** 2"),
        Mutant("amsgrad", "root = (exp_avg_sq /", "root = (exp_avg_sq.maximum(gradient**2) /"),
        Mutant("gradient clipped", "beta1, beta2 = betas", "beta1, beta2 = betas\n    gradient = gradient / "
               "gradient.norm().clamp(min=1)"),
    ],
}
