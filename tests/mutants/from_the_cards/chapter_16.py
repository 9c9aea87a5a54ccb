"""Chapter 16."""

from tests.mutants.from_the_cards import Cards

MUTANTS = Cards()
add, fam = MUTANTS.add, MUTANTS.family

# What is done with a (tested) and b (right by definition) once they are there; the three exercises share it.
GAP = '''    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        return float("inf")
    return ((a - b).abs().max() / b.abs().max()).item()
'''
GF = "if not (torch.isfinite(a).all() and torch.isfinite(b).all()):"
GR = "return ((a - b).abs().max() / b.abs().max()).item()"
RIGHT_GAPS = [
 ("base", "right"),
 ("sum_is_finite", "right", GF, "if not torch.cat([a.flatten(), b.flatten()]).isfinite().all().item():"),
 ("norm_inf", "right", GR, "return float(torch.linalg.vector_norm(a - b, float('inf')) / torch.linalg.vector_norm(b, float('inf')))"),
 ("checked_at_the_end", "right", GF, "gap = float((b - a).abs().amax() / b.abs().amax()); bad = a.isnan().any() or a.isinf().any() or b.isnan().any() or b.isinf().any()\n    if bad:", GR, "return gap"),
 ("divided_first", "right", GR, "scale = b.abs().max(); return float((a.double() / scale - b.double() / scale).abs().max())"),
]
WRONG_GAPS = [
 ("divided_by_tested", "wrong", GR, "return ((a - b).abs().max() / a.abs().max()).item()"),
 ("absolute", "wrong", GR, "return (a - b).abs().max().item()"),
 ("mean", "wrong", GR, "return ((a - b).abs().mean() / b.abs().mean()).item()"),
 ("norms", "wrong", GR, "return ((a - b).norm() / b.norm()).item()"),
 ("signed", "wrong", GR, "return ((a - b).max() / b.abs().max()).item()"),
 ("largest_b_signed", "wrong", GR, "return ((a - b).abs().max() / b.max()).item()"),
 ("entry_by_entry", "wrong", GR, "return ((a - b).abs() / (b.abs() + 1e-9)).max().item()"),
 ("row_by_row", "wrong", GR, "return ((a - b).abs().amax((1, 2)) / b.abs().amax((1, 2))).max().item()"),
 ("difference_of_maxima", "wrong", GR, "return (abs(a.abs().max() - b.abs().max()) / b.abs().max()).item()"),
 ("divided_plus_one", "wrong", GR, "return ((a - b).abs().max() / (1 + b.abs().max())).item()"),
 ("tensor", "wrong", GR, "return (a - b).abs().max() / b.abs().max()"),
 ("yes_or_no", "wrong", GR, "return float(not torch.allclose(a, b, atol=1e-4))"),
 ("rounded", "wrong", GR, "return round(((a - b).abs().max() / b.abs().max()).item(), 3)"),
 ("first_row", "wrong", GR, "return ((a - b)[0].abs().max() / b.abs().max()).item()"),
 ("infinity_unseen", "wrong", GF, "if False:"),
 ("only_tested_looked_at", "wrong", GF, "if not torch.isfinite(a).all():"),
 ("only_right_looked_at", "wrong", GF, "if not torch.isfinite(b).all():"),
 ("both_must_be_bad", "wrong", GF, "if not (torch.isfinite(a).all() or torch.isfinite(b).all()):"),
 ("only_nan", "wrong", GF, "if a.isnan().any() or b.isnan().any():"),
 ("bad_as_zero", "wrong", GF, "a, b = a.nan_to_num(0, 0, 0), b.nan_to_num(0, 0, 0)\n    if False:"),
 ("bad_is_nan", "wrong", 'return float("inf")', 'return float("nan")'),
 ("bad_is_a_thousand", "wrong", 'return float("inf")', "return 1e3"),
 ("bad_raises", "wrong", 'return float("inf")', 'raise ValueError("not finite")'),
]

# ------------------------------------------------------------ 16.1
DECODE = '''
import torch
def decode_gap(model, input_ids):
    with torch.no_grad():
        b = model(input_ids).logits
        cache = model.new_cache()
        steps = [model(input_ids[:, t:t + 1], cache=cache).logits for t in range(input_ids.shape[1])]
        a = torch.cat(steps, dim=1)
''' + GAP
DB = "b = model(input_ids).logits"
DC = "cache = model.new_cache()"
DS = "steps = [model(input_ids[:, t:t + 1], cache=cache).logits for t in range(input_ids.shape[1])]"
DA = "a = torch.cat(steps, dim=1)"
fam("16.1", DECODE, RIGHT_GAPS + [
 ("split", "right", DS, "steps = [model(ids, cache=cache).logits for ids in input_ids.split(1, dim=1)]"),
 ("decoded_first", "right", DB, "pass", DA, DA + "\n        b = model(input_ids).logits"),
 ("gradients_on", "right", "with torch.no_grad():", "if True:"),
 ("filled_in", "right", DS, "a = torch.empty_like(b)\n        for t, ids in enumerate(input_ids.T): a[:, t] = model(ids.unsqueeze(1), cache=cache).logits[:, -1]", DA, "pass"),
] + WRONG_GAPS + [
 ("last_token", "wrong", GR, "return ((a - b)[:, -1].abs().max() / b.abs().max()).item()"),
 ("last_token_of_both", "wrong", GF, "a, b = a[:, -1:], b[:, -1:]\n    " + GF),
 ("last_row", "wrong", GR, "return ((a - b)[-1].abs().max() / b.abs().max()).item()"),
 ("first_token_left_out", "wrong", GF, "a, b = a[:, -(a.shape[1] - 1 or 1):], b[:, -(a.shape[1] - 1 or 1):]\n    " + GF),
 ("shifted", "wrong", GF, "if a.shape[1] > 1: a, b = a[:, 1:], b[:, :-1]\n    " + GF),
 ("prompt_then_tokens", "wrong", DS, "h = max(1, input_ids.shape[1] // 2); steps = [model(input_ids[:, :h], cache=cache).logits] + [model(input_ids[:, t:t + 1], cache=cache).logits for t in range(h, input_ids.shape[1])]"),
 ("at_once_on_cache", "wrong", DS, "steps = [model(input_ids, cache=cache).logits]"),
 ("pieces_of_two", "wrong", DS, "steps = [model(ids, cache=cache).logits for ids in input_ids.split(2, 1)]"),
 ("cache_each_token", "wrong", "cache=cache", "cache=model.new_cache()"),
 ("no_cache", "wrong", ", cache=cache", ""),
 ("prefixes_no_cache", "wrong", DS, "steps = [model(input_ids[:, :t + 1]).logits[:, -1:] for t in range(input_ids.shape[1])]"),
 ("both_on_cache", "wrong", DB, "b = model(input_ids, cache=model.new_cache()).logits"),
 ("against_itself", "wrong", DA, DA + "\n        b = a.clone()"),
 ("rows_share_a_cache", "wrong", DS, "steps = [torch.cat([model(row[None, t:t + 1], cache=cache).logits for row in input_ids]) for t in range(input_ids.shape[1])]"),
 ("first_row_read", "wrong", DB, "input_ids = input_ids[:1]; " + DB),
 ("backwards", "wrong", "range(input_ids.shape[1])]", "reversed(range(input_ids.shape[1]))]"),
 ("last_token_not_fed", "wrong", "range(input_ids.shape[1])]", "range(max(1, input_ids.shape[1] - 1))]", GF, "b = b[:, :a.shape[1]]\n    " + GF),
 ("stacked", "wrong", DA, "a = torch.stack(steps, dim=1).flatten(0, 1)"),
 ("probabilities", "wrong", GF, "a, b = a.softmax(-1), b.softmax(-1)\n    " + GF),
 ("choices", "wrong", GR, "return (a.argmax(-1) != b.argmax(-1)).float().mean().item()"),
 ("bf16", "wrong", GF, "a, b = a.bfloat16().float(), b.bfloat16().float()\n    " + GF),
])

# ------------------------------------------------------------ 16.2
PACKED = '''
import torch
def document_gap(model, input_ids, lengths):
    numbers = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    with torch.no_grad():
        a = model(input_ids, document_ids=numbers.expand(input_ids.shape)).logits
        alone, start = [], 0
        for n in lengths:
            alone.append(model(input_ids[:, start:start + n]).logits)
            start += n
        b = torch.cat(alone, dim=1)
''' + GAP
KN = "numbers = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))"
KA = "a = model(input_ids, document_ids=numbers.expand(input_ids.shape)).logits"
KL = "alone.append(model(input_ids[:, start:start + n]).logits)"
KB = "b = torch.cat(alone, dim=1)"
fam("16.2", PACKED, RIGHT_GAPS + [
 ("split", "right", KB, "b = torch.cat([model(ids).logits for ids in input_ids.split(lengths, dim=1)], 1)"),
 ("numbers_in_lists", "right", KN, "numbers = torch.tensor([d for d, n in enumerate(lengths) for _ in range(n)])"),
 ("numbers_by_cumsum", "right", KN, "first = torch.zeros(sum(lengths), dtype=torch.int64)\n    for d in range(1, len(lengths)): first[sum(lengths[:d])] = 1\n    numbers = first.cumsum(0)"),
 ("repeated_contiguous", "right", "numbers.expand(input_ids.shape)", "numbers[None].repeat(input_ids.shape[0], 1)"),
 ("gradients_on", "right", "with torch.no_grad():", "if True:"),
] + WRONG_GAPS + [
 ("no_numbers", "wrong", KA, "a = model(input_ids).logits"),
 ("numbers_all_zero", "wrong", KN, "numbers = torch.zeros(sum(lengths), dtype=torch.int64)"),
 ("numbers_by_length", "wrong", KN, "numbers = torch.tensor(lengths).repeat_interleave(torch.tensor(lengths))"),
 ("numbers_late", "wrong", KN, KN + ".roll(1)"),
 ("numbers_early", "wrong", KN, KN + "; numbers = torch.cat([numbers[1:], numbers[-1:]])"),
 ("numbers_in_equal_parts", "wrong", KN, "numbers = torch.arange(sum(lengths)) * len(lengths) // sum(lengths)"),
 ("first_is_padding", "wrong", KN, KN + " - 1"),
 ("numbers_for_first_row", "wrong", KA, "marks = torch.zeros_like(input_ids); marks[0] = numbers; a = model(input_ids, document_ids=marks).logits"),
 ("numbers_flat", "wrong", KA, "a = model(input_ids, document_ids=numbers).logits"),
 ("prefix_read", "wrong", KL, "alone.append(model(input_ids[:, :start + n]).logits[:, start:])"),
 ("marked_alone_in_row", "wrong", KL, "alone.append(model(input_ids, document_ids=numbers.expand(input_ids.shape)).logits[:, start:start + n])"),
 ("packed_twice", "wrong", KB, "b = a.clone()"),
 ("start_stays", "wrong", "start += n", "start += 0"),
 ("start_one_late", "wrong", "start += n", "start += n + 1 if start + n + 1 + n <= input_ids.shape[1] else n"),
 ("first_document", "wrong", GF, "a, b = a[:, :lengths[0]], b[:, :lengths[0]]\n    " + GF),
 ("last_document", "wrong", GF, "a, b = a[:, -lengths[-1]:], b[:, -lengths[-1]:]\n    " + GF),
 ("last_tokens", "wrong", GF, "at = torch.tensor(lengths).cumsum(0) - 1; a, b = a[:, at], b[:, at]\n    " + GF),
 ("first_tokens", "wrong", GF, "at = torch.tensor(lengths).cumsum(0) - torch.tensor(lengths); a, b = a[:, at], b[:, at]\n    " + GF),
 ("short_documents_left_out", "wrong", GF, "at = torch.tensor([n > 1 or len(lengths) == 1 for n in lengths]).repeat_interleave(torch.tensor(lengths)); at = at if at.any() else ~at; a, b = a[:, at], b[:, at]\n    " + GF),
 ("each_by_its_own", "wrong", GR, "return max(((x - y).abs().max() / y.abs().max()).item() for x, y in zip(a.split(lengths, 1), b.split(lengths, 1)))"),
 ("by_last_document", "wrong", GR, "return ((a - b).abs().max() / alone[-1].abs().max()).item()"),
 ("mean_of_documents", "wrong", GR, "return sum(((x - y).abs().max() / b.abs().max()).item() for x, y in zip(a.split(lengths, 1), b.split(lengths, 1))) / len(lengths)"),
 ("last_gap_kept", "wrong", GR, "for x, y in zip(a.split(lengths, 1), b.split(lengths, 1)): gap = ((x - y).abs().max() / b.abs().max()).item()\n    return gap"),
 ("order_reversed", "wrong", "dim=1)\n", "dim=1)\n        b = torch.cat(alone[::-1], dim=1)\n"),
 ("first_row_read", "wrong", KN, "input_ids = input_ids[:1]; " + KN),
 ("lengths_emptied", "wrong", "for n in lengths:", "while lengths:\n            n = lengths.pop(0)"),
 ("sorted_lengths", "wrong", "for n in lengths:", "for n in sorted(lengths):"),
])

# ------------------------------------------------------------ 16.3
MICRO = '''
import torch
def split_gap(lm_loss, logits, input_ids, mask, rows):
    total = int(mask.sum())
    def gradient(part):
        leaf = logits[part].clone().requires_grad_()
        loss = lm_loss(leaf, input_ids[part], mask[part], total_tokens=total).loss
        return torch.autograd.grad(loss, leaf)[0]
    b = gradient(slice(None))
    a = torch.cat([gradient(slice(s, s + rows)) for s in range(0, len(logits), rows)])
''' + GAP
ST = "total = int(mask.sum())"
SL = "leaf = logits[part].clone().requires_grad_()"
SS = "loss = lm_loss(leaf, input_ids[part], mask[part], total_tokens=total).loss"
SG = "return torch.autograd.grad(loss, leaf)[0]"
SB = "b = gradient(slice(None))"
SA = "a = torch.cat([gradient(slice(s, s + rows)) for s in range(0, len(logits), rows)])"
fam("16.3", MICRO, RIGHT_GAPS + [
 ("one_leaf_gathers", "right", SA, "leaf = logits.clone().requires_grad_()\n    for s in range(0, logits.shape[0], rows):\n        e = slice(s, min(s + rows, logits.shape[0]))\n        lm_loss(leaf[e], input_ids[e], mask[e], total_tokens=total).loss.backward()\n    a = leaf.grad"),
 ("split_together", "right", SA, "leaf = logits.detach().clone().requires_grad_(True)\n    sum(lm_loss(x, i, m, total_tokens=total).loss for x, i, m in zip(leaf.split(rows), input_ids.split(rows), mask.split(rows))).backward()\n    a = leaf.grad"),
 ("backward", "right", SG, "loss.backward()\n        return leaf.grad"),
 ("added_into_zeros", "right", SA, "a = torch.zeros_like(logits)\n    for s in range(0, len(logits), rows):\n        a[s:s + rows] += gradient(slice(s, s + rows))"),
 ("index_rows", "right", SA, "a = torch.cat([gradient(part) for part in torch.arange(len(logits)).split(rows)])"),
] + WRONG_GAPS + [
 ("own_count", "wrong", ST, "pass", "total_tokens=total", "total_tokens=max(1, int(mask[part].sum()))"),
 ("own_count_then_mean", "wrong", "total_tokens=total", "total_tokens=max(1, int(mask[part].sum()))", SA, SA + " / -(-len(logits) // rows)"),
 ("mean_of_micro", "wrong", SA, SA + " / -(-len(logits) // rows)"),
 ("count_without_first", "wrong", ST, "total = max(1, int(mask[:, 1:].sum()) - 1)"),
 ("count_of_micro_even", "wrong", "total_tokens=total", "total_tokens=total * leaf.shape[0] / len(logits)"),
 ("rest_left_out", "wrong", SA, "n = max(rows, len(logits) // rows * rows); a = torch.cat([gradient(slice(s, s + rows)) for s in range(0, n, rows)]); a = torch.cat([a, torch.zeros_like(logits[len(a):])])"),
 ("rest_not_compared", "wrong", SA, "n = max(rows, len(logits) // rows * rows); a = torch.cat([gradient(slice(s, s + rows)) for s in range(0, n, rows)]); b = b[:len(a)]"),
 ("first_micro_only", "wrong", SA, "a = gradient(slice(0, rows)); b = b[:rows]"),
 ("last_micro_only", "wrong", SA, "a = gradient(slice(-rows, None)); b = b[-rows:]"),
 ("that_many_micro", "wrong", SA, "a = torch.cat([gradient(part) for part in torch.arange(len(logits)).chunk(rows)])"),
 ("row_by_row_micro", "wrong", SA, "a = torch.cat([gradient(slice(s, s + 1)) for s in range(len(logits))])"),
 ("split_in_two", "wrong", SA, "h = (len(logits) + 1) // 2; a = torch.cat([gradient(slice(0, h)), gradient(slice(h, None))]) if h < len(logits) else gradient(slice(None))"),
 ("split_over_time", "wrong", SA, "leaf = logits.clone().requires_grad_()\n    sum(lm_loss(x, i, m, total_tokens=total).loss for x, i, m in zip(leaf.split(rows, 1), input_ids.split(rows, 1), mask.split(rows, 1))).backward()\n    a = leaf.grad"),
 ("not_cleared", "wrong", SB, "leaf = logits.clone().requires_grad_()\n    lm_loss(leaf, input_ids, mask, total_tokens=total).loss.backward(); b = leaf.grad.clone()", SA, "for s in range(0, len(logits), rows):\n        e = slice(s, s + rows); lm_loss(leaf[e], input_ids[e], mask[e], total_tokens=total).loss.backward()\n    a = leaf.grad"),
 ("same_tensor_twice", "wrong", SB, "leaf = logits.clone().requires_grad_()\n    lm_loss(leaf, input_ids, mask, total_tokens=total).loss.backward(); b = leaf.grad; b.zero_()", SA, "for s in range(0, len(logits), rows):\n        e = slice(s, s + rows); lm_loss(leaf[e], input_ids[e], mask[e], total_tokens=total).loss.backward()\n    a = leaf.grad"),
 ("losses_compared", "wrong", SG, "return loss.detach().reshape(1, 1, 1)", SA, SA + ".sum(0, keepdim=True)"),
 ("summed_over_rows", "wrong", GF, "a, b = a.sum(0, keepdim=True), b.sum(0, keepdim=True)\n    " + GF),
 ("rows_all_at_once_too", "wrong", SA, "a = gradient(slice(None))"),
 ("micro_for_both", "wrong", SB, "b = torch.cat([gradient(slice(s, s + rows)) for s in range(0, len(logits), rows)])"),
 ("whole_mask_by_front", "wrong", "mask[part], total", "mask[:len(leaf)], total"),
 ("whole_ids_by_front", "wrong", "input_ids[part]", "input_ids[:len(leaf)]"),
 ("input_requires_grad", "wrong", SB, "logits.requires_grad_()\n    lm_loss(logits, input_ids, mask, total_tokens=total).loss.backward(); b = logits.grad.clone()"),
 ("input_changed", "wrong", SL, "logits[part] -= logits[part].amax(-1, keepdim=True); " + SL),
 ("empty_micro_left_out", "wrong", SG, "return torch.autograd.grad(loss, leaf)[0] if mask[part].any() else torch.zeros_like(leaf)"),
 ("tiny_ignored", "wrong", GR, "return ((a - b).abs().max() / b.abs().max().clamp(min=1)).item()"),
 ("bf16", "wrong", SL, "leaf = logits[part].bfloat16().float().requires_grad_()", SG, "return torch.autograd.grad(loss, leaf)[0].bfloat16().float()"),
])
