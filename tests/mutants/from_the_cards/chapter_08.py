"""Chapter 08."""

from tests.mutants.from_the_cards import Cards

MUTANTS = Cards()
add, fam = MUTANTS.add, MUTANTS.family

# ------------------------------------------------------------ 8.1
PACK = '''
import torch
from minim1.data.packing import Batch
from minim1.errors import UserError
def pack(documents, length, *, pad_id):
    rows = []
    for ids, mask in sorted(documents, key=lambda document: -len(document[0])):
        if len(ids) > length:
            raise UserError(f"A document has {len(ids)} tokens, but a row holds only {length}.")
        used = [sum(len(i) for i, _ in row) for row in rows]
        fitting = [n for n in range(len(rows)) if used[n] + len(ids) <= length]
        if not fitting:
            rows.append([])
            used.append(0)
            fitting = [len(rows) - 1]
        rows[max(fitting, key=lambda n: (used[n], -n))].append((ids, mask))
    shape = (len(rows), length)
    input_ids = torch.full(shape, pad_id)
    targets = torch.zeros(shape, dtype=torch.bool)
    document_ids = torch.full(shape, -1)
    positions = torch.zeros(shape, dtype=torch.int64)
    for r, row in enumerate(rows):
        start = 0
        for number, (ids, mask) in enumerate(row):
            end = start + len(ids)
            input_ids[r, start:end] = torch.tensor(ids)
            targets[r, start:end] = torch.tensor(mask, dtype=torch.bool)
            targets[r, start] = False
            document_ids[r, start:end] = number
            positions[r, start:end] = torch.arange(len(ids))
            start = end
    return Batch(input_ids, targets, document_ids, positions)
'''
SORT = "sorted(documents, key=lambda document: -len(document[0]))"
RAISE = 'raise UserError(f"A document has {len(ids)} tokens, but a row holds only {length}.")'
FIT = "if used[n] + len(ids) <= length"
BEST = "max(fitting, key=lambda n: (used[n], -n))"
OUT = "return Batch(input_ids, targets, document_ids, positions)"
FIRST = "targets[r, start] = False"
SHAPE = "shape = (len(rows), length)"
fam("8.1", PACK, [
 ("base", "right"),
 ("reverse_true_is_stable", "right", SORT, "sorted(documents, key=lambda document: len(document[0]), reverse=True)"),
 ("max_takes_the_first", "right", BEST, "max(fitting, key=used.__getitem__)"),
 ("min_of_what_is_left", "right", BEST, "min(fitting, key=lambda n: length - used[n])"),
 ("checked_before", "right", "    rows = []\n", "    rows = []\n    longest = max((len(ids) for ids, _ in documents), default=0)\n    if longest > length:\n        raise UserError(f'{longest} tokens do not fit into a row of {length}')\n"),
 ("by_name_other_order", "right", OUT, "return Batch(positions=positions, document_ids=document_ids, mask=targets, input_ids=input_ids)"),
 ("indices_sorted", "right", SORT, "[documents[i] for i in sorted(range(len(documents)), key=lambda i: (-len(documents[i][0]), i))]"),
 ("sorted_ascending_reversed_twice", "right", SORT, "sorted(documents[::-1], key=lambda document: len(document[0]))[::-1]"),
 ("first_of_masks_before", "right", "torch.tensor(mask, dtype=torch.bool)", "torch.tensor([0, *mask[1:]], dtype=torch.bool)"),
 ("mask_from_positions", "right", OUT, "return Batch(input_ids, targets & (positions > 0), document_ids, positions)", FIRST, "pass"),
 ("order_given", "wrong", SORT, "documents"),
 ("shortest_first", "wrong", SORT, "sorted(documents, key=lambda document: len(document[0]))"),
 ("ties_last_first", "wrong", SORT, "sorted(documents, key=lambda document: len(document[0]))[::-1]"),
 ("ties_by_content", "wrong", SORT, "sorted(documents, key=lambda document: (-len(document[0]), document[0]))"),
 ("by_targets", "wrong", SORT, "sorted(documents, key=lambda document: -sum(document[1]))"),
 ("sorted_in_place", "wrong", "    rows = []\n", "    rows = []\n    documents.sort(key=lambda document: -len(document[0]))\n"),
 ("copies_dropped", "wrong", SORT, "sorted({tuple(ids): (ids, mask) for ids, mask in documents}.values(), key=lambda document: -len(document[0]))"),
 ("first_fit", "wrong", BEST, "fitting[0]"),
 ("last_fit", "wrong", BEST, "fitting[-1]"),
 ("worst_fit", "wrong", BEST, "min(fitting, key=lambda n: (used[n], n))"),
 ("next_fit", "wrong", "for n in range(len(rows))", "for n in range(len(rows))[-1:]"),
 ("tie_highest_row", "wrong", BEST, "max(fitting, key=lambda n: (used[n], n))"),
 ("fewest_documents", "wrong", BEST, "min(fitting, key=lambda n: (len(rows[n]), n))"),
 ("most_documents", "wrong", BEST, "max(fitting, key=lambda n: (len(rows[n]), used[n], -n))"),
 ("never_full", "wrong", FIT, "if used[n] + len(ids) < length"),
 ("one_too_many_then_cut", "wrong", FIT, "if used[n] < length and used[n] + len(ids) <= length + 1", "input_ids[r, start:end] = torch.tensor(ids)", "ids, mask, end = ids[:length - start], mask[:length - start], min(end, length)\n            input_ids[r, start:end] = torch.tensor(ids)"),
 ("one_document_a_row", "wrong", FIT, "if False"),
 ("two_documents_a_row", "wrong", FIT, "if used[n] + len(ids) <= length and len(rows[n]) < 2"),
 ("new_row_in_front", "wrong", "rows.append([])\n            used.append(0)\n            fitting = [len(rows) - 1]", "rows.insert(0, [])\n            used.insert(0, 0)\n            fitting = [0]"),
 ("in_front_of_the_row", "wrong", ".append((ids, mask))", ".insert(0, (ids, mask))"),
 ("value_error", "wrong", "raise UserError(", "raise ValueError("),
 ("assertion", "wrong", RAISE, 'raise AssertionError("too long")'),
 ("no_sentence", "wrong", RAISE, "raise UserError"),
 ("error_returned", "wrong", "raise UserError(", "return UserError("),
 ("at_length_too", "wrong", "if len(ids) > length:", "if len(ids) >= length:"),
 ("one_longer_passes", "wrong", "if len(ids) > length:", "if len(ids) > length + 1:"),
 ("long_cut", "wrong", RAISE, "ids, mask = ids[:length], mask[:length]"),
 ("long_left_out", "wrong", RAISE, "continue"),
 ("long_split", "wrong", SORT, "sorted([(ids[i:i + length], mask[i:i + length]) for ids, mask in documents for i in range(0, len(ids), length)], key=lambda document: -len(document[0]))"),
 ("only_first_checked", "wrong", "if len(ids) > length:", "if ids is documents[0][0] and len(ids) > length:"),
 ("error_by_targets", "wrong", "if len(ids) > length:", "if sum(mask) > length:"),
 ("first_stays_target", "wrong", FIRST, "pass"),
 ("only_first_of_row", "wrong", FIRST, "targets[r, 0] = False"),
 ("last_is_no_target", "wrong", FIRST, "targets[r, end - 1] = False"),
 ("second_too", "wrong", FIRST, "targets[r, start:start + 2] = False"),
 ("all_are_targets", "wrong", "torch.tensor(mask, dtype=torch.bool)", "True"),
 ("mask_shifted", "wrong", "torch.tensor(mask, dtype=torch.bool)", "torch.tensor([*mask[1:], 0], dtype=torch.bool)"),
 ("mask_shifted_right", "wrong", "torch.tensor(mask, dtype=torch.bool)", "torch.tensor([0, *mask[:-1]], dtype=torch.bool)"),
 ("mask_flipped", "wrong", "torch.tensor(mask, dtype=torch.bool)", "~torch.tensor(mask, dtype=torch.bool)"),
 ("padding_is_target", "wrong", "torch.zeros(shape, dtype=torch.bool)", "torch.ones(shape, dtype=torch.bool)"),
 ("pad_ids_no_target", "wrong", OUT, "return Batch(input_ids, targets & (input_ids != pad_id), document_ids, positions)"),
 ("mask_int", "wrong", "torch.zeros(shape, dtype=torch.bool)", "torch.zeros(shape, dtype=torch.int64)"),
 ("mask_given_changed", "wrong", "input_ids[r, start:end] =", "mask[0] = 0\n            input_ids[r, start:end] ="),
 ("pad_zero", "wrong", "torch.full(shape, pad_id)", "torch.zeros(shape, dtype=torch.int64)"),
 ("pad_minus_one", "wrong", "torch.full(shape, pad_id)", "torch.full(shape, -1)"),
 ("ids_int32", "wrong", "torch.full(shape, pad_id)", "torch.full(shape, pad_id, dtype=torch.int32)"),
 ("ids_float", "wrong", "torch.full(shape, pad_id)", "torch.full(shape, float(pad_id))"),
 ("documents_from_one", "wrong", "enumerate(row):", "enumerate(row, 1):"),
 ("documents_through_batch", "wrong", "= number\n", "= number + sum(len(other) for other in rows[:r])\n"),
 ("documents_all_zero", "wrong", "= number\n", "= 0\n"),
 ("documents_two", "wrong", "= number\n", "= number % 2\n"),
 ("padding_document_zero", "wrong", "torch.full(shape, -1)", "torch.full(shape, 0)"),
 ("padding_document_own", "wrong", "positions[r, start:end] = torch.arange(len(ids))\n            start = end", "positions[r, start:end] = torch.arange(len(ids))\n            start = end\n        document_ids[r, start:] = len(row)"),
 ("documents_int32", "wrong", "torch.full(shape, -1)", "torch.full(shape, -1, dtype=torch.int32)"),
 ("documents_by_id", "wrong", OUT, "document_ids[input_ids == pad_id] = -1; " + OUT),
 ("positions_of_row", "wrong", "torch.arange(len(ids))", "torch.arange(start, end)"),
 ("positions_from_one", "wrong", "torch.arange(len(ids))", "torch.arange(len(ids)) + 1"),
 ("positions_in_padding_run_on", "wrong", OUT, "for r, row in enumerate(rows):\n        n = sum(len(i) for i, _ in row)\n        positions[r, n:] = torch.arange(length - n)\n    " + OUT),
 ("positions_padding_minus", "wrong", "positions = torch.zeros(shape, dtype=torch.int64)", "positions = torch.full(shape, -1)"),
 ("positions_float", "wrong", "positions = torch.zeros(shape, dtype=torch.int64)", "positions = torch.zeros(shape)"),
 ("fields_swapped", "wrong", OUT, "return Batch(input_ids, targets, positions, document_ids)"),
 ("tuple", "wrong", OUT, "return input_ids, targets, document_ids, positions"),
 ("as_wide_as_needed", "wrong", SHAPE, "length = max(sum(len(i) for i, _ in row) for row in rows) if rows else length\n    " + SHAPE),
 ("one_row_for_nothing", "wrong", SHAPE, "shape = (max(1, len(rows)), length)"),
 ("nothing_fails", "wrong", SHAPE, "length = max(length, max(len(ids) for ids, _ in documents))\n    " + SHAPE),
 ("nothing_is_flat", "wrong", SHAPE, "shape = (len(rows), length) if rows else (0,)"),
 ("last_row_lost", "wrong", SHAPE, "rows = rows[:-1] or rows\n    " + SHAPE),
 ("rows_sorted", "wrong", SHAPE, "rows.sort(key=lambda row: -sum(len(i) for i, _ in row))\n    " + SHAPE),
 ("row_in_order_given", "wrong", SHAPE, "rows = [[d for d in documents if any(d[0] is i for i, _ in row)] for row in rows]\n    " + SHAPE),
 ("rows_stay", "wrong", "def pack", "ROWS = []\ndef pack", "    rows = []\n", "    rows = ROWS\n"),
 ("padding_left", "wrong", "start = 0\n", "start = length - sum(len(i) for i, _ in row)\n"),
])
add("8.1", "sorted_room", "right", '''
import bisect
import torch
from minim1.data.packing import Batch
from minim1.errors import UserError
def pack(documents, length, *, pad_id):
    room, rows = [], []
    for i in sorted(range(len(documents)), key=lambda i: (-len(documents[i][0]), i)):
        n = len(documents[i][0])
        if n > length:
            raise UserError(f"document {i} has {n} tokens, more than the {length} of a row")
        at = bisect.bisect_left(room, (n, -1))
        free, row = room.pop(at) if at < len(room) else (length, len(rows))
        if row == len(rows):
            rows.append(([], [], [], []))
        ids, mask = documents[i]
        a, b, c, d = rows[row]
        a += ids
        b += [False] + [bool(x) for x in mask[1:]]
        c += [max(c, default=-1) + 1] * n
        d += range(n)
        bisect.insort(room, (free - n, row))
    columns = []
    for which, (fill, dtype) in enumerate([(pad_id, torch.int64), (False, torch.bool), (-1, torch.int64), (0, torch.int64)]):
        table = [row[which] + [fill] * (length - len(row[which])) for row in rows]
        columns.append(torch.tensor(table, dtype=dtype).reshape(len(rows), length))
    return Batch(*columns)
''')
add("8.1", "numpy_argmax", "right", '''
import numpy as np
import torch
from minim1.data.packing import Batch
from minim1.errors import UserError
def pack(documents, length, *, pad_id):
    n = len(documents)
    sizes = np.array([len(ids) for ids, _ in documents], dtype=np.int64)
    if n and sizes.max() > length:
        raise UserError("A document is longer than a row.")
    used, count, place = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64), []
    rows = 0
    for i in np.argsort(-sizes, kind="stable"):
        key = np.where(used[:rows] + sizes[i] <= length, used[:rows], -1)
        r = int(key.argmax()) if rows and key.max() >= 0 else rows
        rows = max(rows, r + 1)
        place.append((i, r, int(used[r]), int(count[r])))
        used[r] += sizes[i]
        count[r] += 1
    input_ids, mask = np.full((rows, length), pad_id, dtype=np.int64), np.zeros((rows, length), dtype=bool)
    document_ids, positions = np.full((rows, length), -1, dtype=np.int64), np.zeros((rows, length), dtype=np.int64)
    for i, r, start, number in place:
        stop = start + sizes[i]
        input_ids[r, start:stop], mask[r, start:stop] = documents[i]
        mask[r, start], document_ids[r, start:stop], positions[r, start:stop] = False, number, np.arange(sizes[i])
    return Batch(*map(torch.from_numpy, (input_ids, mask, document_ids, positions)))
''')
add("8.1", "buckets_and_rows_stacked", "right", '''
import torch
from minim1.data.packing import Batch
from minim1.errors import UserError
def pack(documents, length, *, pad_id):
    buckets = {}
    for document in documents:
        buckets.setdefault(len(document[0]), []).append(document)
    rows = []
    for size in range(max(buckets, default=0), 0, -1):
        for document in buckets.get(size, ()):
            if size > length:
                raise UserError(f"{size} tokens are more than {length}")
            place = None
            for row in rows:
                if len(row[0]) + size <= length and (place is None or len(row[0]) > len(place[0])):
                    place = row
            if place is None:
                place = [[], [], [], []]
                rows.append(place)
            number = place[2][-1] + 1 if place[2] else 0
            for t in range(size):
                for column, value in zip(place, (document[0][t], t > 0 and document[1][t] == 1, number, t)):
                    column.append(value)
    batch = Batch(torch.full((len(rows), length), pad_id), torch.zeros(len(rows), length).bool(),
                  torch.zeros(len(rows), length).long() - 1, torch.zeros(len(rows), length).long())
    for r, row in enumerate(rows):
        for tensor, values in zip((batch.input_ids, batch.mask, batch.document_ids, batch.positions), row):
            tensor[r, :len(values)] = torch.tensor(values, dtype=tensor.dtype)
    return batch
''')
add("8.1", "recursive", "right", '''
import torch
from minim1.data.packing import Batch
from minim1.errors import UserError
def place(rows, documents, length):
    if not documents:
        return rows
    (ids, mask), *rest = documents
    if len(ids) > length:
        raise UserError("too long for a row: %d tokens of %d" % (len(ids), length))
    sizes = [sum(len(i) for i, _ in row) for row in rows]
    fits = sorted((-size, n) for n, size in enumerate(sizes) if size <= length - len(ids))
    n = fits[0][1] if fits else len(rows)
    rows = rows + [()] if n == len(rows) else rows
    return place(rows[:n] + [rows[n] + ((ids, mask),)] + rows[n + 1:], rest, length)
def pack(documents, length, *, pad_id):
    rows = place([], sorted(documents, key=lambda d: len(d[0]), reverse=True), length)
    def table(fill, of, dtype):
        flat = []
        for row in rows:
            values = [x for number, (ids, mask) in enumerate(row) for x in of(number, ids, mask)]
            flat += values + [fill] * (length - len(values))
        return torch.tensor(flat, dtype=dtype).view(len(rows), length)
    return Batch(table(pad_id, lambda n, i, m: i, torch.int64), table(False, lambda n, i, m: [False] + [x != 0 for x in m[1:]], torch.bool),
                 table(-1, lambda n, i, m: [n] * len(i), torch.int64), table(0, lambda n, i, m: range(len(i)), torch.int64))
''')

# ------------------------------------------------------------ 8.2
LOSS = '''
import torch
import torch.nn.functional as F
from minim1.train.losses import LossOutput
def lm_loss(logits, input_ids, mask, *, total_tokens):
    logits = logits.float() if logits.dtype == torch.bfloat16 else logits
    logprobs = logits[:, :-1].log_softmax(-1)
    chosen = logprobs.gather(-1, input_ids[:, 1:, None])[..., 0]
    loss = -(chosen * mask[:, 1:]).sum() / total_tokens
    return LossOutput(loss, {"loss": loss.detach()})
'''
LD = "logits = logits.float() if logits.dtype == torch.bfloat16 else logits"
LP = "logprobs = logits[:, :-1].log_softmax(-1)"
LC = "chosen = logprobs.gather(-1, input_ids[:, 1:, None])[..., 0]"
LL = "loss = -(chosen * mask[:, 1:]).sum() / total_tokens"
LR = 'return LossOutput(loss, {"loss": loss.detach()})'
fam("8.2", LOSS, [
 ("base", "right"),
 ("cross_entropy_none", "right", LP, "targets = input_ids[:, 1:]", LC, "chosen = -F.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten(), reduction='none').view_as(targets)"),
 ("ignore_index", "right", LP, "targets = input_ids[:, 1:].masked_fill(mask[:, 1:] == 0, -100)", LC, "pass", LL, "loss = F.cross_entropy(logits[:, :-1].transpose(1, 2), targets, reduction='sum') / total_tokens"),
 ("selected_first", "right", LP, "keep = mask[:, 1:].bool()", LC, "rows, targets = logits[:, :-1][keep], input_ids[:, 1:][keep]", LL, "loss = F.cross_entropy(rows, targets, reduction='sum') / total_tokens"),
 ("logsumexp", "right", LP, "z = logits[:, :-1]", LC, "chosen = torch.take_along_dim(z, input_ids[:, 1:].unsqueeze(-1), 2).squeeze(-1) - z.logsumexp(-1)"),
 ("max_subtracted", "right", LP, "z = logits[:, :-1]; z = z - z.detach().amax(-1, keepdim=True); logprobs = z - z.exp().sum(-1, keepdim=True).log()"),
 ("one_hot", "right", LC, "chosen = torch.einsum('btv,btv->bt', logprobs, F.one_hot(input_ids[:, 1:], logits.shape[-1]).to(logprobs.dtype))"),
 ("rolled", "right", LP, "logprobs = logits.log_softmax(-1)", LC, "chosen = logprobs.gather(-1, input_ids.roll(-1, 1)[..., None])[..., 0].roll(1, 1)", LL, "loss = torch.where(mask.bool(), -chosen, 0).sum() / total_tokens"),
 ("fp64_inside", "right", LD, "dtype = torch.promote_types(logits.dtype, torch.float32); logits = logits.double()", LL, LL.replace("loss = ", "loss = (") + ").to(dtype)"),
 ("loop", "right", LL, "loss = logits[..., :0].sum() + sum(-chosen[b, t] for b in range(chosen.shape[0]) for t in range(chosen.shape[1]) if mask[b, t + 1]) / total_tokens"),
 ("divided_before", "right", LL, "loss = (chosen * (mask[:, 1:].to(chosen.dtype) / -total_tokens)).sum()"),
 ("nll", "right", LC, "chosen = -F.nll_loss(logprobs.transpose(1, 2), input_ids[:, 1:], reduction='none')"),
 ("clone_detached", "right", LR, 'return LossOutput(loss=loss, metrics={"loss": loss.detach().clone()})'),
 ("shift_missing", "wrong", LP, "logprobs = logits.log_softmax(-1)", LC, LC.replace("[:, 1:, None]", "[..., None]"), LL, LL.replace("mask[:, 1:]", "mask")),
 ("shift_wrong_way", "wrong", LP, "logprobs = logits[:, 1:].log_softmax(-1)", LC, LC.replace("[:, 1:, None]", "[:, :-1, None]"), LL, LL),
 ("mask_not_shifted", "wrong", LL, LL.replace("mask[:, 1:]", "mask[:, :-1]")),
 ("shift_two", "wrong", LP, "logprobs = logits[:, :-2].log_softmax(-1)", LC, LC.replace("[:, 1:, None]", "[:, 2:, None]"), LL, LL.replace("mask[:, 1:]", "mask[:, 2:]")),
 ("roll_wrong_way", "wrong", LP, "logprobs = logits.log_softmax(-1)", LC, LC.replace("input_ids[:, 1:, None]", "input_ids.roll(1, 1)[..., None]"), LL, LL.replace("mask[:, 1:]", "mask")),
 ("first_target_lost", "wrong", LL, LL.replace("(chosen * mask[:, 1:])", "(chosen * mask[:, 1:])[:, 1:]")),
 ("last_target_lost", "wrong", LL, LL.replace("(chosen * mask[:, 1:])", "(chosen * mask[:, 1:])[:, :-1]")),
 ("mean_of_targets", "wrong", LL, LL.replace("total_tokens", "mask.sum()")),
 ("mean_of_targets_clamped", "wrong", LL, LL.replace("total_tokens", "mask.sum().clamp(min=1)")),
 ("mean_over_all", "wrong", LL, LL.replace(".sum() / total_tokens", ".mean()")),
 ("mean_then_divided", "wrong", LL, LL.replace(".sum()", ".mean()")),
 ("not_divided", "wrong", LL, LL.replace(" / total_tokens", "")),
 ("divided_by_all", "wrong", LL, LL.replace("total_tokens", "mask.numel()")),
 ("divided_twice", "wrong", LL, LL + " / logits.shape[0]"),
 ("total_plus_eps", "wrong", LL, LL.replace("total_tokens", "(total_tokens + 1e-3)")),
 ("mean_per_row", "wrong", LL, "loss = -((chosen * mask[:, 1:]).sum(1) / mask[:, 1:].sum(1).clamp(min=1)).sum() / total_tokens"),
 ("sign", "wrong", LL, LL.replace("-(", "(")),
 ("bits", "wrong", LL, LL + " / 0.6931471805599453"),
 ("softmax_then_log", "wrong", LP, "logprobs = logits[:, :-1].softmax(-1).log()"),
 ("log_plus_eps", "wrong", LP, "logprobs = (logits[:, :-1].softmax(-1) + 1e-8).log()"),
 ("exp_overflows", "wrong", LP, "z = logits[:, :-1]; logprobs = z - z.exp().sum(-1, keepdim=True).log()"),
 ("logits_clamped", "wrong", LP, "logprobs = logits[:, :-1].clamp(-100, 100).log_softmax(-1)"),
 ("loss_clamped", "wrong", LC, LC + ".clamp(min=-100)"),
 ("softmax_over_time", "wrong", LP, LP.replace("(-1)", "(1)")),
 ("softmax_over_batch", "wrong", LP, LP.replace("(-1)", "(0)")),
 ("softmax_over_everything", "wrong", LP, "z = logits[:, :-1]; logprobs = z - z.logsumexp((0, 1, 2))"),
 ("no_softmax", "wrong", LP, "logprobs = logits[:, :-1]"),
 ("probability_not_log", "wrong", LP, "logprobs = logits[:, :-1].softmax(-1)"),
 ("softmax_twice", "wrong", LP, "logprobs = logits[:, :-1].softmax(-1).log_softmax(-1)"),
 ("mask_on_logits", "wrong", LP, "logprobs = (logits[:, :-1] * mask[:, 1:, None]).log_softmax(-1)", LL, LL.replace(" * mask[:, 1:]", "")),
 ("mask_unused", "wrong", LL, LL.replace(" * mask[:, 1:]", "")),
 ("mask_flipped", "wrong", LL, LL.replace("mask[:, 1:]", "(mask[:, 1:] == 0)")),
 ("max_for_chosen", "wrong", LC, "chosen = logprobs.amax(-1)"),
 ("id_zero_ignored", "wrong", LL, LL.replace("mask[:, 1:]", "mask[:, 1:] * (input_ids[:, 1:] != 0)")),
 ("smoothed", "wrong", LC, "chosen = 0.99 * logprobs.gather(-1, input_ids[:, 1:, None])[..., 0] + 0.01 * logprobs.mean(-1)"),
 ("first_row", "wrong", LL, LL.replace("(chosen * mask[:, 1:])", "(chosen * mask[:, 1:])[:1]")),
 ("bf16_kept", "wrong", LD, "pass"),
 ("bf16_late", "wrong", LD, "pass", LP, "logprobs = logits[:, :-1].log_softmax(-1); logprobs = logprobs.float() if logprobs.dtype == torch.bfloat16 else logprobs"),
 ("always_fp32", "wrong", LD, "logits = logits.float()"),
 ("fp32_then_fp64", "wrong", LD, "dtype = logits.dtype; logits = logits.float()", LL, LL + "; loss = loss.double() if dtype == torch.float64 else loss"),
 ("always_fp64", "wrong", LD, "logits = logits.double()"),
 ("bf16_inside", "wrong", LD, "logits = logits.bfloat16().float() if logits.dtype != torch.float64 else logits"),
 ("int_mask_as_index", "wrong", LL, "loss = -chosen[mask[:, 1:]].sum() / total_tokens"),
 ("where_needs_bool", "wrong", LL, "loss = -torch.where(mask[:, 1:], chosen, 0.0).sum() / total_tokens"),
 ("invert_needs_bool", "wrong", LL, "loss = -chosen.masked_fill(~mask[:, 1:], 0.0).sum() / total_tokens"),
 ("empty_without_graph", "wrong", LL, LL + "\n    if not mask.any(): loss = torch.zeros((), dtype=logits.dtype)"),
 ("empty_nan", "wrong", LL, "loss = -chosen[mask[:, 1:].bool()].mean() * (mask.sum() / total_tokens)"),
 ("empty_none", "wrong", LL, LL + "\n    if not mask.any(): return None"),
 ("loss_detached", "wrong", LR, "loss = loss.detach(); " + LR),
 ("detached_chosen", "wrong", LC, LC + ".detach()"),
 ("logsumexp_detached", "wrong", LP, "z = logits[:, :-1]; logprobs = z - z.logsumexp(-1, keepdim=True).detach()"),
 ("no_grad", "wrong", "def lm_loss", "@torch.no_grad()\ndef lm_loss"),
 ("metric_has_graph", "wrong", LR, 'return LossOutput(loss, {"loss": loss})'),
 ("metric_missing", "wrong", LR, "return LossOutput(loss)"),
 ("metric_other_name", "wrong", LR, 'return LossOutput(loss, {"lm_loss": loss.detach()})'),
 ("metric_sum", "wrong", LR, 'return LossOutput(loss, {"loss": loss.detach() * total_tokens})'),
 ("metric_zero", "wrong", LR, 'return LossOutput(loss, {"loss": torch.zeros(())})'),
 ("loss_alone", "wrong", LR, "return loss"),
 ("tuple", "wrong", LR, 'return loss, {"loss": loss.detach()}'),
 ("not_scalar", "wrong", LR, 'return LossOutput(loss[None], {"loss": loss.detach()[None]})'),
 ("row_losses", "wrong", LL, LL.replace(".sum()", ".sum(1)")),
 ("ids_changed", "wrong", LP, "input_ids[mask == 0] = 0; " + LP),
 ("logits_changed", "wrong", LP, "logits.data -= logits.data.amax(-1, keepdim=True); " + LP),
 ("gradient_twice", "wrong", LL, LL + "; loss = 2 * loss - loss.detach()"),
])

# ------------------------------------------------------------ 8.3
SCHED = '''
import math
def schedule(step, total_steps, *, warmup=0.03, decay=0.5, final=0.05):
    warmup_steps = max(1, round(warmup * total_steps))
    decay_steps = round(decay * total_steps)
    left = total_steps - 1 - step
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if left < decay_steps:
        return final + (1 - final) * left / decay_steps
    return 1.0
'''
SW = "max(1, round(warmup * total_steps))"
SD = "decay_steps = round(decay * total_steps)"
SU = "return (step + 1) / warmup_steps"
SF = "return final + (1 - final) * left / decay_steps"
SL = "left = total_steps - 1 - step"
fam("8.3", SCHED, [
 ("base", "right"),
 ("minimum_with_one", "right", "if left < decay_steps:", "if decay_steps > 0:", SF, "return final + (1 - final) * min(1.0, left / decay_steps)"),
 ("counted_from_one", "right", "if step < warmup_steps:", "n = step + 1\n    if n <= warmup_steps:", SU, "return n / warmup_steps"),
 ("progress_of_decay", "right", SF, "done = (decay_steps - left) / decay_steps; return (1 - done) + done * final"),
 ("first_decay_step", "right", "if left < decay_steps:", "start = total_steps - decay_steps\n    if step >= start:", SF, "return 1 - (1 - final) * (step - start + 1) / decay_steps"),
 ("or_one", "right", SW, "round(warmup * total_steps) or 1"),
 ("whole_list", "right", "if step < warmup_steps:", "factors = [1.0] * total_steps\n    for i in range(decay_steps): factors[total_steps - 1 - i] = final + (1 - final) * i / decay_steps\n    for i in range(min(warmup_steps, total_steps)): factors[i] = (i + 1) / warmup_steps\n    return factors[step]\n    if False:"),
 ("conditional_at_end", "right", "if left < decay_steps:", "return 1.0 if left >= decay_steps else final + (1 - final) * left / decay_steps\n    if False:"),
 ("at_most_one_at_boundary", "right", "if left < decay_steps:", "if decay_steps and left <= decay_steps:"),
 ("from_zero", "wrong", SU, "return step / warmup_steps"),
 ("warmup_plus_one", "wrong", SU, "return (step + 1) / (warmup_steps + 1)"),
 ("warmup_one_longer", "wrong", "if step < warmup_steps:", "if step <= warmup_steps:"),
 ("warmup_one_shorter", "wrong", "if step < warmup_steps:", "if step < warmup_steps - 1:"),
 ("warmup_truncated", "wrong", SW, "max(1, int(warmup * total_steps))"),
 ("warmup_ceil", "wrong", SW, "max(1, math.ceil(warmup * total_steps))"),
 ("warmup_half_up", "wrong", SW, "max(1, int(warmup * total_steps + 0.5))"),
 ("warmup_not_rounded", "wrong", SW, "max(1, warmup * total_steps)"),
 ("warmup_may_be_zero", "wrong", SW, "round(warmup * total_steps)"),
 ("warmup_at_least_two", "wrong", SW, "max(2, round(warmup * total_steps))"),
 ("warmup_of_steps_less_one", "wrong", SW, "max(1, round(warmup * (total_steps - 1)))"),
 ("warmup_of_what_is_not_decay", "wrong", SW, "max(1, round(warmup * (total_steps - round(decay * total_steps))))"),
 ("warmup_missing", "wrong", SU, "return 1.0"),
 ("warmup_from_final", "wrong", SU, "return final + (1 - final) * (step + 1) / warmup_steps"),
 ("warmup_squared", "wrong", SU, "return ((step + 1) / warmup_steps) ** 2"),
 ("warmup_cosine", "wrong", SU, "return 0.5 - 0.5 * math.cos(math.pi * (step + 1) / warmup_steps)"),
 ("decay_truncated", "wrong", SD, "decay_steps = int(decay * total_steps)"),
 ("decay_ceil", "wrong", SD, "decay_steps = math.ceil(decay * total_steps)"),
 ("decay_half_up", "wrong", SD, "decay_steps = math.floor(decay * total_steps + 0.5)"),
 ("decay_not_rounded", "wrong", SD, "decay_steps = decay * total_steps"),
 ("decay_at_least_one", "wrong", SD, "decay_steps = max(1, round(decay * total_steps))"),
 ("decay_zero_fails", "wrong", SF, SF, "if left < decay_steps:", "notch = (1 - final) / decay_steps\n    if left < decay_steps:"),
 ("decay_of_rest", "wrong", SD, "decay_steps = round(decay * (total_steps - warmup_steps))"),
 ("decay_shortened_by_warmup", "wrong", SD, "decay_steps = min(round(decay * total_steps), total_steps - warmup_steps)"),
 ("decay_of_steps_less_one", "wrong", SD, "decay_steps = round(decay * (total_steps - 1))"),
 ("decay_first_step_one", "wrong", SF, "return final + (1 - final) * left / max(1, decay_steps - 1)"),
 ("final_after_the_end", "wrong", SL, "left = total_steps - step"),
 ("final_one_early", "wrong", SL, "left = max(0, total_steps - 2 - step)"),
 ("decay_one_earlier", "wrong", "if left < decay_steps:", "if left <= decay_steps:", SF, "return final + (1 - final) * left / (decay_steps + 1)"),
 ("final_missing", "wrong", SF, "return left / decay_steps"),
 ("final_as_floor", "wrong", SF, "return max(final, left / decay_steps)"),
 ("final_added", "wrong", SF, "return final + left / decay_steps"),
 ("scaled_by_final", "wrong", SF, "return (1 - final) * left / decay_steps"),
 ("final_constant", "wrong", SF, "return 0.05 + 0.95 * left / decay_steps"),
 ("drops_at_once", "wrong", SF, "return final"),
 ("rises", "wrong", SF, "return final + (1 - final) * (1 - left / decay_steps)"),
 ("cosine", "wrong", SF, "return final + (1 - final) * (0.5 - 0.5 * math.cos(math.pi * left / decay_steps))"),
 ("square_root", "wrong", SF, "return final + (1 - final) * (1 - math.sqrt(1 - left / decay_steps))"),
 ("exponential", "wrong", SF, "return max(final, 1e-9) ** (1 - left / decay_steps)"),
 ("never_decays", "wrong", "if left < decay_steps:", "if False:"),
 ("decay_counts_in_overlap", "wrong", "if step < warmup_steps:", "if left >= decay_steps and step < warmup_steps:"),
 ("smaller_in_overlap", "wrong", SU, "up = (step + 1) / warmup_steps; return min(up, final + (1 - final) * left / decay_steps) if left < decay_steps else up"),
 ("product_in_overlap", "wrong", SU, "up = (step + 1) / warmup_steps; return up * (final + (1 - final) * left / decay_steps) if left < decay_steps else up"),
 ("decay_from_warmup_on", "wrong", "if left < decay_steps:", "if decay_steps:", SF, "return final + (1 - final) * left / (total_steps - warmup_steps)"),
 ("decay_from_overlap_end", "wrong", SF, "return final + (1 - final) * left / min(decay_steps, total_steps - warmup_steps)"),
 ("default_warmup", "wrong", "warmup=0.03", "warmup=0.05"),
 ("default_decay", "wrong", "decay=0.5", "decay=0.2"),
 ("default_final", "wrong", "final=0.05", "final=0.0"),
 ("single_step_final", "wrong", "if step < warmup_steps:", "if total_steps == 1: return final\n    if step < warmup_steps:"),
 ("rounded_to_three", "wrong", SU, "return round((step + 1) / warmup_steps, 2)", SF, SF.replace("return ", "return round(") + ", 2)"),
 ("whole_numbers", "wrong", SU, "return float((step + 1) // warmup_steps)"),
 ("tensor", "wrong", "def schedule", "import torch\ndef schedule", SU, "return torch.tensor((step + 1) / warmup_steps)", SF, SF.replace("return ", "return torch.tensor(") + ")", "return 1.0", "return torch.tensor(1.0)"),
 ("stable_is_zero", "wrong", "return 1.0", "return 0.0"),
 ("remembers_first_run", "wrong", "def schedule", "STEPS = {}\ndef schedule", "decay_steps = round(decay * total_steps)", "decay_steps = STEPS.setdefault('decay', round(decay * total_steps))"),
])
add("8.3", "interpolated", "right", '''
import numpy as np
def schedule(step, total_steps, *, warmup=0.03, decay=0.5, final=0.05):
    up, down = max(round(warmup * total_steps), 1), round(decay * total_steps)
    if step < up:
        return float(np.interp(step, [-1, up - 1], [0, 1]))
    last = total_steps - 1
    return float(np.interp(step, [last - down, last], [1, final])) if down else 1.0
''')
add("8.3", "exact_fractions", "right", '''
from fractions import Fraction
def schedule(step, total_steps, *, warmup=0.03, decay=0.5, final=0.05):
    w = round(warmup * total_steps)
    w = w if w > 1 else 1
    d, left = round(decay * total_steps), total_steps - step - 1
    match (step < w, left < d):
        case (True, _):
            return float(Fraction(step + 1, w))
        case (_, True):
            return float(Fraction(final) + (1 - Fraction(final)) * Fraction(left, d))
    return 1.0
''')
add("8.3", "recursive", "right", '''
def schedule(step, total_steps, *, warmup=0.03, decay=0.5, final=0.05):
    w, d = max(1, round(warmup * total_steps)), round(decay * total_steps)
    if step == w - 1:
        return 1.0
    if step < w:
        return sum(1 / w for _ in range(step + 1))
    factor, at = 1.0, total_steps - d
    while at <= step:
        factor, at = factor - (1 - final) / d, at + 1
    return max(0.0, factor)
''')

# ------------------------------------------------------------ 8.4
ADAM = '''
import math
import torch
def adamw_step(weight, gradient, exp_avg, exp_avg_sq, step, *, learning_rate, betas=(0.9, 0.95), eps=1e-15,
               weight_decay=0.1):
    beta1, beta2 = betas
    m = beta1 * exp_avg + (1 - beta1) * gradient
    v = beta2 * exp_avg_sq + (1 - beta2) * gradient.square()
    m_hat = m / (1 - beta1 ** step)
    v_hat = v / (1 - beta2 ** step)
    new = (1 - learning_rate * weight_decay) * weight - learning_rate * m_hat / (v_hat.sqrt() + eps)
    return new, m, v
'''
AM = "m = beta1 * exp_avg + (1 - beta1) * gradient"
AV = "v = beta2 * exp_avg_sq + (1 - beta2) * gradient.square()"
AMH = "m_hat = m / (1 - beta1 ** step)"
AVH = "v_hat = v / (1 - beta2 ** step)"
AN = "new = (1 - learning_rate * weight_decay) * weight - learning_rate * m_hat / (v_hat.sqrt() + eps)"
AR = "return new, m, v"
fam("8.4", ADAM, [
 ("base", "right"),
 ("lerp_addcmul_addcdiv", "right", AM, "m = torch.lerp(exp_avg, gradient, 1 - beta1)", AV, "v = torch.addcmul(exp_avg_sq * beta2, gradient, gradient, value=1 - beta2)", AN, "new = torch.addcdiv(weight * (1 - learning_rate * weight_decay), m_hat, v_hat.sqrt().add(eps), value=-learning_rate)"),
 ("pytorchs_order", "right", AMH, "size = learning_rate / (1 - beta1 ** step)", AVH, "root = v.sqrt() / math.sqrt(1 - beta2 ** step)", AN, "new = weight * (1 - learning_rate * weight_decay) - size * (m / (root + eps))"),
 ("decay_in_the_update", "right", AN, "new = weight - learning_rate * (m_hat / (v_hat.sqrt() + eps) + weight_decay * weight)"),
 ("fp64_inside", "right", "beta1, beta2 = betas", "beta1, beta2 = betas; dtype = weight.dtype; weight, gradient, exp_avg, exp_avg_sq = (t.double() for t in (weight, gradient, exp_avg, exp_avg_sq))", AR, "return new.to(dtype), m.to(dtype), v.to(dtype)"),
 ("clone_then_in_place", "right", AM, "m = exp_avg.clone().mul_(beta1).add_(gradient, alpha=1 - beta1)", AV, "v = exp_avg_sq.clone().mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)", AN, "new = weight.clone(); new.mul_(1 - learning_rate * weight_decay); new.sub_(learning_rate * m_hat / (v_hat.sqrt() + eps))"),
 ("no_grad_list", "right", "def adamw", "@torch.no_grad()\ndef adamw", AR, "return [new, m, v]"),
 ("difference_form", "right", AM, "m = exp_avg + (1 - beta1) * (gradient - exp_avg)", AV, "v = gradient * gradient * (1 - beta2) + exp_avg_sq * beta2"),
 ("power_half", "right", "v_hat.sqrt()", "v_hat ** 0.5"),
 ("eps_in_root", "wrong", "(v_hat.sqrt() + eps)", "(v_hat + eps).sqrt()"),
 ("eps_squared_in_root", "wrong", "(v_hat.sqrt() + eps)", "(v_hat + eps ** 2).sqrt()"),
 ("eps_before_repair", "wrong", "(v_hat.sqrt() + eps)", "((v.sqrt() + eps) / math.sqrt(1 - beta2 ** step))"),
 ("eps_in_root_before_repair", "wrong", AVH, "v_hat = (v + eps) / (1 - beta2 ** step)", "(v_hat.sqrt() + eps)", "v_hat.sqrt()"),
 ("eps_missing", "wrong", "(v_hat.sqrt() + eps)", "v_hat.sqrt()"),
 ("eps_fixed", "wrong", "v_hat.sqrt() + eps", "v_hat.sqrt() + 1e-8"),
 ("eps_fixed_small", "wrong", "v_hat.sqrt() + eps", "v_hat.sqrt() + 1e-15"),
 ("eps_as_floor", "wrong", "(v_hat.sqrt() + eps)", "v_hat.sqrt().clamp(min=eps)"),
 ("eps_at_least", "wrong", "v_hat.sqrt() + eps", "v_hat.sqrt() + max(eps, 1e-12)"),
 ("eps_twice", "wrong", "(v_hat.sqrt() + eps)", "((v_hat + eps).sqrt() + eps)"),
 ("eps_subtracted", "wrong", "v_hat.sqrt() + eps", "v_hat.sqrt() - eps"),
 ("eps_scaled_by_repair", "wrong", "v_hat.sqrt() + eps", "v_hat.sqrt() + eps * (1 - beta1 ** step)"),
 ("default_eps", "wrong", "eps=1e-15", "eps=1e-8"),
 ("default_betas", "wrong", "betas=(0.9, 0.95)", "betas=(0.9, 0.999)"),
 ("default_decay", "wrong", "weight_decay=0.1", "weight_decay=0.01"),
 ("no_repair", "wrong", AMH, "m_hat = m", AVH, "v_hat = v"),
 ("m_not_repaired", "wrong", AMH, "m_hat = m"),
 ("v_not_repaired", "wrong", AVH, "v_hat = v"),
 ("repaired_with_swapped", "wrong", AMH, AMH.replace("beta1", "beta2"), AVH, AVH.replace("beta2", "beta1")),
 ("repaired_for_step_one", "wrong", AMH, AMH.replace("step", "1"), AVH, AVH.replace("step", "1")),
 ("steps_from_zero", "wrong", AMH, AMH.replace("step", "(step + 1)"), AVH, AVH.replace("step", "(step + 1)")),
 ("steps_one_less", "wrong", AMH, AMH.replace("step", "max(1, step - 1)"), AVH, AVH.replace("step", "max(1, step - 1)")),
 ("times_step", "wrong", AMH, "m_hat = m / (1 - beta1) / step", AVH, "v_hat = v / (1 - beta2) / step"),
 ("multiplied_by_repair", "wrong", AMH, AMH.replace("/", "*"), AVH, AVH.replace("/", "*")),
 ("repaired_are_kept", "wrong", AR, "return new, m_hat, v_hat"),
 ("betas_swapped", "wrong", "beta1, beta2 = betas", "beta2, beta1 = betas"),
 ("beta1_for_both", "wrong", "beta1, beta2 = betas", "beta1 = beta2 = betas[0]"),
 ("betas_fixed", "wrong", "beta1, beta2 = betas", "beta1, beta2 = 0.9, 0.95"),
 ("beta_sides_swapped", "wrong", AM, "m = (1 - beta1) * exp_avg + beta1 * gradient"),
 ("beta2_sides_swapped", "wrong", AV, "v = (1 - beta2) * exp_avg_sq + beta2 * gradient.square()"),
 ("momentum", "wrong", AM, "m = beta1 * exp_avg + gradient"),
 ("v_sum", "wrong", AV, "v = exp_avg_sq + (1 - beta2) * gradient.square()"),
 ("v_no_square", "wrong", "gradient.square()", "gradient.abs()"),
 ("v_factor_squared", "wrong", "(1 - beta2) * gradient.square()", "((1 - beta2) * gradient).square()"),
 ("v_scalar", "wrong", "gradient.square()", "gradient.square().mean()"),
 ("v_of_m", "wrong", "gradient.square()", "m.square()"),
 ("v_around_m", "wrong", "gradient.square()", "(gradient - m).square()"),
 ("v_never_falls", "wrong", AV, "v = torch.maximum(exp_avg_sq, beta2 * exp_avg_sq + (1 - beta2) * gradient.square())"),
 ("no_root", "wrong", "v_hat.sqrt()", "v_hat"),
 ("old_m_used", "wrong", AMH, AMH.replace("m /", "exp_avg /")),
 ("old_v_used", "wrong", AVH, AVH.replace("= v /", "= exp_avg_sq /")),
 ("gradient_for_m", "wrong", "learning_rate * m_hat /", "learning_rate * gradient /"),
 ("nesterov", "wrong", AMH, "m_hat = (beta1 * m + (1 - beta1) * gradient) / (1 - beta1 ** step)"),
 ("sign", "wrong", "- learning_rate * m_hat", "+ learning_rate * m_hat"),
 ("sign_of_m", "wrong", "m_hat / (v_hat.sqrt() + eps)", "m_hat.sign()"),
 ("l2_through_gradient", "wrong", AM, "gradient = gradient + weight_decay * weight; " + AM, "(1 - learning_rate * weight_decay) * weight", "weight"),
 ("decay_without_rate", "wrong", "(1 - learning_rate * weight_decay)", "(1 - weight_decay)"),
 ("decay_of_new", "wrong", AN, "new = (weight - learning_rate * m_hat / (v_hat.sqrt() + eps)) * (1 - learning_rate * weight_decay)"),
 ("decay_missing", "wrong", "(1 - learning_rate * weight_decay) * weight", "weight"),
 ("decay_grows", "wrong", "(1 - learning_rate", "(1 + learning_rate"),
 ("decay_over_root", "wrong", AN, "new = weight - learning_rate * (m_hat + weight_decay * weight) / (v_hat.sqrt() + eps)"),
 ("decay_rate_squared", "wrong", "learning_rate * weight_decay)", "learning_rate ** 2 * weight_decay)"),
 ("decay_only_matrices", "wrong", "(1 - learning_rate * weight_decay)", "(1 - learning_rate * weight_decay * (weight.ndim > 1))"),
 ("decay_fixed", "wrong", "learning_rate * weight_decay)", "learning_rate * 0.1)"),
 ("rate_divided_by_step", "wrong", "- learning_rate * m_hat", "- learning_rate / step * m_hat"),
 ("rate_missing", "wrong", "- learning_rate * m_hat", "- m_hat"),
 ("m_and_v_swapped", "wrong", AR, "return new, v, m"),
 ("weight_alone", "wrong", AR, "return new"),
 ("old_averages_returned", "wrong", AR, "return new, exp_avg, exp_avg_sq"),
 ("update_returned", "wrong", AR, "return new - weight, m, v"),
 ("weight_in_place", "wrong", AN, AN + "; weight.copy_(new)"),
 ("weight_mul_in_place", "wrong", AN, "new = weight.mul_(1 - learning_rate * weight_decay).sub_(learning_rate * m_hat / (v_hat.sqrt() + eps))"),
 ("m_in_place", "wrong", AM, "m = exp_avg.mul_(beta1).add_(gradient, alpha=1 - beta1)"),
 ("v_in_place", "wrong", AV, "v = exp_avg_sq.mul_(beta2).add_((1 - beta2) * gradient.square())"),
 ("gradient_in_place", "wrong", AV, AV.replace("gradient.square()", "gradient.square_()")),
 ("fp32_inside", "wrong", "beta1, beta2 = betas", "beta1, beta2 = betas; dtype = weight.dtype; weight, gradient, exp_avg, exp_avg_sq = (t.float() for t in (weight, gradient, exp_avg, exp_avg_sq))", AR, "return new.to(dtype), m.to(dtype), v.to(dtype)"),
 ("fp32_out", "wrong", AR, "return new.float(), m.float(), v.float()"),
 ("fp64_out", "wrong", AR, "return new.double(), m.double(), v.double()"),
 ("bf16_averages", "wrong", AM, AM + "; m = m.bfloat16().to(weight.dtype)"),
 ("small_gradients_zero", "wrong", AM, "gradient = torch.where(gradient.abs() < 1e-12, 0.0, gradient); " + AM),
 ("gradient_clipped", "wrong", AM, "gradient = gradient.clamp(-1, 1); " + AM),
 ("gradient_normed", "wrong", AM, "gradient = gradient / gradient.norm().clamp(min=1); " + AM),
 ("flattened", "wrong", AR, "return new.flatten(), m.flatten(), v.flatten()"),
 ("rows_in_a_loop", "wrong", AR, "return tuple(torch.stack([row for row in t]) for t in (new, m, v))"),
 ("state_kept", "wrong", "def adamw_step", "STATE = {}\ndef adamw_step", "beta1, beta2 = betas", "beta1, beta2 = betas; exp_avg = STATE.get('m', exp_avg) if STATE.get('m', exp_avg).shape == exp_avg.shape else exp_avg", AR, "STATE['m'] = m; " + AR),
])
add("8.4", "torchs_own", "right", '''
import torch
def adamw_step(weight, gradient, exp_avg, exp_avg_sq, step, *, learning_rate, betas=(0.9, 0.95), eps=1e-15, weight_decay=0.1):
    parameter = torch.nn.Parameter(weight.detach().clone())
    parameter.grad = gradient.detach().clone()
    optimizer = torch.optim.AdamW([parameter], lr=learning_rate, betas=betas, eps=eps, weight_decay=weight_decay)
    state = {"step": torch.tensor(float(step - 1)), "exp_avg": exp_avg.clone(), "exp_avg_sq": exp_avg_sq.clone()}
    optimizer.state[parameter] = state
    optimizer.step()
    return parameter.detach(), state["exp_avg"], state["exp_avg_sq"]
''')
add("8.4", "number_by_number", "right", '''
import math
import torch
def adamw_step(weight, gradient, exp_avg, exp_avg_sq, step, *, learning_rate, betas=(0.9, 0.95), eps=1e-15, weight_decay=0.1):
    out = ([], [], [])
    for w, g, m, v in zip(*(t.flatten().tolist() for t in (weight, gradient, exp_avg, exp_avg_sq))):
        m = betas[0] * m + g - betas[0] * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        w -= learning_rate * weight_decay * w
        w -= learning_rate * (m / (1 - betas[0] ** step)) / (math.sqrt(v / (1 - betas[1] ** step)) + eps)
        for numbers, number in zip(out, (w, m, v)):
            numbers.append(number)
    return tuple(torch.tensor(numbers, dtype=weight.dtype).reshape(weight.shape) for numbers in out)
''')
