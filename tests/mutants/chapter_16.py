"""Wrong solutions of chapter 16: properties that would let a fault pass, or cry wolf."""

from tests.mutants import Mutant

MOST = "((decoded - whole).abs().max() / whole.abs().max())"
DECODE = [
    Mutant("last token only", MOST, "((decoded - whole)[:, -1].abs().max() / whole.abs().max())"),
    Mutant("last token and its own largest", MOST, "((decoded - whole)[:, -1].abs().max() / whole[:, -1].abs().max())"),
    Mutant("first row only", MOST, "((decoded - whole)[0].abs().max() / whole.abs().max())"),
    Mutant("mean", MOST, "((decoded - whole).abs().mean() / whole.abs().max())"),
    Mutant("mean over mean", MOST, "((decoded - whole).abs().mean() / whole.abs().mean())"),
    Mutant("not relative", MOST, "(decoded - whole).abs().max()"),
    Mutant("relative to decoded", "/ whole.abs().max()", "/ decoded.abs().max()"),
    Mutant("relative to the signed largest", "/ whole.abs().max()", "/ whole.max()"),
    Mutant("relative to the norm", "/ whole.abs().max()", "/ whole.norm()"),
    Mutant("relative to the mean", "/ whole.abs().max()", "/ whole.abs().mean()"),
    Mutant("norms", MOST, "((decoded - whole).norm() / whole.norm())"),
    Mutant("signed", "(decoded - whole).abs().max()", "(decoded - whole).max()"),
    Mutant("signed the other way", "(decoded - whole).abs().max()", "(whole - decoded).max()"),
    Mutant("entry by entry", MOST, "((decoded - whole).abs() / whole.abs()).max()"),
    Mutant("squared", "(decoded - whole).abs().max()", "(decoded - whole).square().max()"),
    Mutant("a new cache for every token", "model(input_ids[:, at:at + 1], cache=cache)", "model(input_ids[:, at:at + 1], cache=model.new_cache())"),
    Mutant("a slice that grows", "input_ids[:, at:at + 1], cache", "input_ids[:, :at + 1], cache"),
    Mutant("no cache", "input_ids[:, at:at + 1], cache=cache", "input_ids[:, at:at + 1]"),
    Mutant("at once twice", "model(input_ids[:, at:at + 1], cache=cache).logits", "model(input_ids).logits[:, at:at + 1]"),
    Mutant("all at once on the cache", "steps = [model(input_ids[:, at:at + 1], cache=cache).logits for at in range(input_ids.shape[1])]",
           "steps = [model(input_ids, cache=cache).logits]"),
    Mutant("last token left out", "range(input_ids.shape[1])]\n        decoded = torch.cat(steps, dim=1)",
           "range(input_ids.shape[1] - 1)]\n        decoded = torch.cat([*steps, whole[:, -1:]], dim=1)"),
    Mutant("first token left out", "decoded = torch.cat(steps, dim=1)", "decoded = torch.cat([whole[:, :1], *steps[1:]], dim=1)"),
    Mutant("NaN passes", "    if not (whole.isfinite().all() and decoded.isfinite().all()):\n        return float(\"inf\")\n", ""),
    Mutant("NaN is no gap", 'return float("inf")', "return 0.0"),
    Mutant("NaN to zero", "    if not (whole.isfinite().all() and decoded.isfinite().all()):\n        return float(\"inf\")\n",
           "    decoded = torch.where(decoded.isfinite(), decoded, whole)\n"),
    Mutant("a tensor", ".max()).item()", ".max())"),
    Mutant("a verdict", f"return {MOST}.item()", f"return {MOST}.item() < 1e-4"),
    Mutant("rounded", f"return {MOST}.item()", f"return round({MOST}.item(), 2)"),
    Mutant("half", f"return {MOST}.item()", f"return {MOST}.item() / 2"),
    Mutant("probabilities", "    if not", "    whole, decoded = whole.softmax(-1), decoded.softmax(-1)\n    if not"),
    Mutant("largest ids", f"return {MOST}.item()", "return (whole.argmax(-1) != decoded.argmax(-1)).float().mean().item()"),
]

GAP = "((packed - alone).abs().max() / alone.abs().max())"
IDS = "torch.cat([torch.full((n,), number) for number, n in enumerate(lengths)]).expand_as(input_ids)"
ALONE = "torch.cat([model(piece).logits for piece in input_ids.split(lengths, dim=1)], dim=1)"
DOCUMENTS = [
    Mutant("first document only", GAP, "((packed - alone)[:, :lengths[0]].abs().max() / alone.abs().max())"),
    Mutant("last document only", GAP, "((packed - alone)[:, -lengths[-1]:].abs().max() / alone.abs().max())"),
    Mutant("first document left out", GAP, "((packed - alone)[:, lengths[0]:].abs().max() / alone.abs().max())"),
    Mutant("first row only", GAP, "((packed - alone)[0].abs().max() / alone.abs().max())"),
    Mutant("first tokens of documents only", GAP,
           "((packed - alone)[:, torch.tensor([0, *lengths[:-1]]).cumsum(0)].abs().max() / alone.abs().max())"),
    Mutant("mean", GAP, "((packed - alone).abs().mean() / alone.abs().max())"),
    Mutant("not relative", GAP, "(packed - alone).abs().max()"),
    Mutant("relative to packed", "/ alone.abs().max()", "/ packed.abs().max()"),
    Mutant("relative to the signed largest", "/ alone.abs().max()", "/ alone.max()"),
    Mutant("relative to the norm", "/ alone.abs().max()", "/ alone.norm()"),
    Mutant("signed", "(packed - alone).abs().max()", "(packed - alone).max()"),
    Mutant("signed the other way", "(packed - alone).abs().max()", "(alone - packed).max()"),
    Mutant("entry by entry", GAP, "((packed - alone).abs() / alone.abs()).max()"),
    Mutant("no document ids", "model(input_ids, document_ids=document_ids)", "model(input_ids)"),
    Mutant("every token a document", IDS, "torch.arange(input_ids.shape[1]).expand_as(input_ids)"),
    Mutant("one document", IDS, "torch.zeros_like(input_ids)"),
    Mutant("two documents only", IDS, "(torch.arange(input_ids.shape[1]) >= lengths[0]).long().expand_as(input_ids)"),
    Mutant("ids alternate wrongly", IDS, "torch.cat([torch.full((n,), n % 2) for n in lengths]).expand_as(input_ids)"),
    Mutant("padding", IDS, "torch.cat([torch.full((n,), number - 1) for number, n in enumerate(lengths)]).expand_as(input_ids)"),
    Mutant("lengths as borders", "input_ids.split(lengths, dim=1)", "input_ids.tensor_split(lengths[:-1], dim=1)"),
    Mutant("equal pieces", "input_ids.split(lengths, dim=1)", "input_ids.chunk(len(lengths), dim=1)"),
    Mutant("alone with what came before", ALONE,
           "torch.cat([model(input_ids[:, :sum(lengths[:i + 1])]).logits[:, sum(lengths[:i]):] for i in range(len(lengths))], dim=1)"),
    Mutant("alone is packed", ALONE, "model(input_ids, document_ids=document_ids).logits"),
    Mutant("alone is the whole row", ALONE, "model(input_ids).logits"),
    Mutant("one cache for all documents", ALONE,
           "(lambda c: torch.cat([model(piece, cache=c).logits for piece in input_ids.split(lengths, dim=1)], dim=1))(model.new_cache())"),
    Mutant("NaN passes", "    if not (packed.isfinite().all() and alone.isfinite().all()):\n        return float(\"inf\")\n", ""),
    Mutant("NaN is no gap", 'return float("inf")', "return 0.0"),
    Mutant("a tensor", ".max()).item()", ".max())"),
    Mutant("a verdict", f"return {GAP}.item()", f"return {GAP}.item() < 1e-4"),
    Mutant("largest ids", f"return {GAP}.item()", "return (packed.argmax(-1) != alone.argmax(-1)).float().mean().item()"),
]

SPLIT = "((split - whole).abs().max() / whole.abs().max())"
MICRO = [
    Mutant("total of the micro-batch", "total_tokens=total)", "total_tokens=mask[piece].sum().item())"),
    Mutant("total of all entries", "mask.sum().item()", "mask.numel()"),
    Mutant("total of rows", "mask.sum().item()", "len(mask)"),
    Mutant("gradients averaged", "return leaf.grad", "return leaf.grad / -(-len(leaf) // size)"),
    Mutant("only full micro-batches", "range(0, len(leaf), size)", "range(0, len(leaf) - size + 1, size)"),
    Mutant("first micro-batch only", "range(0, len(leaf), size)", "range(0, size, size)"),
    Mutant("rows as the number of micro-batches", "gradient(rows)", "gradient(-(-len(logits) // rows))"),
    Mutant("always one row", "gradient(rows)", "gradient(1)"),
    Mutant("always two rows", "gradient(rows)", "gradient(2)"),
    Mutant("never split", "gradient(rows)", "gradient(len(logits))"),
    Mutant("mask forgotten", "mask[piece], total", "torch.ones_like(mask[piece]), total"),
    Mutant("mask of the first rows", "mask[piece], total", "mask[:len(mask[piece])], total"),
    Mutant("ids of the first rows", "input_ids[piece]", "input_ids[:len(input_ids[piece])]"),
    Mutant("overlapping micro-batches", "slice(at, at + size)", "slice(at, at + size + 1)"),
    Mutant("mean", SPLIT, "((split - whole).abs().mean() / whole.abs().max())"),
    Mutant("not relative", SPLIT, "(split - whole).abs().max()"),
    Mutant("relative to split", "/ whole.abs().max()", "/ split.abs().max()"),
    Mutant("relative to the signed largest", "/ whole.abs().max()", "/ whole.max()"),
    Mutant("signed", "(split - whole).abs().max()", "(split - whole).max()"),
    Mutant("signed the other way", "(split - whole).abs().max()", "(whole - split).max()"),
    Mutant("first row only", SPLIT, "((split - whole)[0].abs().max() / whole.abs().max())"),
    Mutant("last row only", SPLIT, "((split - whole)[-1].abs().max() / whole.abs().max())"),
    Mutant("norms of the gradients", SPLIT, "(split.norm() - whole.norm()).abs() / whole.norm()"),
    Mutant("NaN passes", "    if not (split.isfinite().all() and whole.isfinite().all()):\n        return float(\"inf\")\n", ""),
    Mutant("NaN is no gap", 'return float("inf")', "return 0.0"),
    Mutant("a tensor", ".max()).item()", ".max())"),
    Mutant("works on what came in", "logits.detach().clone().requires_grad_()", "logits.requires_grad_()"),
    Mutant("gradient kept on what came in", "logits.detach().clone().requires_grad_()", "logits.detach().requires_grad_(); logits.grad = logits * 0"),
    Mutant("detached slice", "lm_loss(leaf[piece]", "lm_loss(leaf[piece].detach().requires_grad_()"),
    Mutant("losses", source='''
def split_gap(lm_loss, logits, input_ids, mask, rows):
    total = mask.sum().item()
    parts = [lm_loss(logits[i:i + rows], input_ids[i:i + rows], mask[i:i + rows], total_tokens=total).loss
             for i in range(0, len(logits), rows)]
    whole = lm_loss(logits, input_ids, mask, total_tokens=total).loss
    gap = abs(sum(parts) - whole) / abs(whole)
    return gap.item() if gap.isfinite() else float("inf")
'''),
]

MUTANTS = {"16.1": DECODE, "16.2": DOCUMENTS, "16.3": MICRO}
