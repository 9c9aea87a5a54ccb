"""Chapter 10."""

from tests.mutants.from_the_cards import Cards

MUTANTS = Cards()
add, fam = MUTANTS.add, MUTANTS.family

# ------------------------------------------------------------ 10.1
SUP = '''
ASSISTANT, END = 6, 8
def supervise(segments):
    ids, mask, speaking = [], [], False
    for part, supervised in segments:
        for token in part:
            ids.append(token)
            mask.append(1 if speaking and supervised else 0)
            if token == ASSISTANT:
                speaking = True
            elif token == END:
                speaking = False
    return ids, mask
'''
UM = "mask.append(1 if speaking and supervised else 0)"
UA = "if token == ASSISTANT:"
UE = "elif token == END:"
UI = "ids, mask, speaking = [], [], False"
UF = "for part, supervised in segments:"
fam("10.1", SUP, [
 ("base", "right"),
 ("list_returned", "right", "return ids, mask", "return [ids, mask]"),
 ("product", "right", UM, "mask.append(int(speaking) * int(supervised))"),
 ("next_speaking", "right", UA, "speaking = token == ASSISTANT or speaking and token != END\n            if False:"),
 ("previous_token", "right", UM, "speaking = ids[-2] == ASSISTANT or speaking and ids[-2] != END if len(ids) > 1 else False; mask.append(int(speaking and supervised))", UA, "if False:", UE, "elif False:"),
 ("others_carry", "wrong", UM, "mask.append(int(supervised))"),
 ("marks_ignored", "wrong", UM, "mask.append(int(speaking))"),
 ("either", "wrong", UM, "mask.append(int(speaking or supervised))"),
 ("flipped", "wrong", UM, "mask.append(0 if speaking and supervised else 1)"),
 ("header_carries", "wrong", UM, "mask.append(1 if (speaking or token == ASSISTANT) and supervised else 0)"),
 ("end_left_out", "wrong", UM, "mask.append(1 if speaking and supervised and token != END else 0)"),
 ("every_end", "wrong", UM, "mask.append(1 if (speaking or token == END) and supervised else 0)"),
 ("end_carries_unmarked", "wrong", UM, "mask.append(1 if speaking and (supervised or token == END) else 0)"),
 ("control_left_out", "wrong", UM, "mask.append(1 if speaking and supervised and (token > 10 or token == END) else 0)"),
 ("thinking_left_out", "wrong", UM, "mask.append(1 if speaking and supervised and token not in (9, 10) else 0)"),
 ("zero_left_out", "wrong", UM, "mask.append(1 if speaking and supervised and token else 0)"),
 ("think_closes", "wrong", UE, "elif token in (END, 10):"),
 ("think_opens", "wrong", UA, "if token in (ASSISTANT, 9):"),
 ("segment_starts_anew", "wrong", UF, UF + "\n        speaking = False"),
 ("header_unmarked_lost", "wrong", UA, "if token == ASSISTANT and supervised:"),
 ("end_unmarked_lost", "wrong", UE, "elif token == END and supervised:"),
 ("unmarked_skipped", "wrong", "        for token in part:", "        if not supervised:\n            ids += part; mask += [0] * len(part); continue\n        for token in part:"),
 ("unmarked_dropped", "wrong", UF, UF + "\n        if not supervised: continue"),
 ("mark_of_sentence_start", "wrong", UA, "if token == ASSISTANT:\n                latched = supervised\n            if token == ASSISTANT:", UM, "mask.append(1 if speaking and latched else 0)", UI, UI + "; latched = False"),
 ("header_opens_at_segment_start", "wrong", UA, "if token == ASSISTANT and token is part[0] and ids[-1 - 0] == part[0] and len(ids) >= 1 and part.index(token) == 0:"),
 ("end_closes_only_last_of_segment", "wrong", UE, "elif token == END and part[-1] == END:"),
 ("first_turn_only", "wrong", UA, "if token == ASSISTANT and ids.count(ASSISTANT) == 1:"),
 ("last_turn_only", "wrong", "return ids, mask", "last = max((i for i, t in enumerate(ids) if t == ASSISTANT), default=0)\n    return ids, [0] * last + mask[last:]"),
 ("never_closes", "wrong", UE, "elif False:"),
 ("any_header_opens", "wrong", UA, "if token in (3, 4, 5, 6, 7):"),
 ("other_header_opens", "wrong", "ASSISTANT, END = 6, 8", "ASSISTANT, END = 7, 8"),
 ("speaking_at_first", "wrong", UI, UI.replace("False", "True")),
 ("unfinished_dropped", "wrong", "return ids, mask", "if speaking:\n        last = len(ids) - ids[::-1].index(ASSISTANT)\n        mask[last:] = [0] * (len(ids) - last)\n    return ids, mask"),
 ("shifted_left", "wrong", "return ids, mask", "return ids, mask[1:] + [0] * bool(mask)"),
 ("shifted_right", "wrong", "return ids, mask", "return ids, ([0] + mask[:-1])[:len(mask)]"),
 ("whole_segments", "wrong", "        for token in part:", "        if supervised and ASSISTANT in part:\n            ids += part; mask += [1] * len(part); continue\n        for token in part:"),
 ("first_header_to_last_end", "wrong", "return ids, mask", "n = ids.index(ASSISTANT) + 1 if ASSISTANT in ids else len(ids)\n    marks = [s for p, s in segments for _ in p]\n    return ids, [int(i >= n and marks[i]) for i in range(len(ids))]"),
 ("first_list_extended", "wrong", UI, "ids, mask, speaking = (segments[0][0] if segments else []), [], False", "        for token in part:", "        for token in list(part):", "ids.append(token)", "ids.append(token) if part is not ids else None"),
 ("segments_emptied", "wrong", UF, "while segments:\n        part, supervised = segments.pop(0)"),
 ("nothing_is_none", "wrong", "return ids, mask", "if ids: return ids, mask"),
 ("no_segment_fails", "wrong", UI, "ids, mask, speaking = [], [], segments[0] is None"),
 ("empty_segment_fails", "wrong", UF, UF + "\n        first = part[0]"),
 ("empty_segment_ends", "wrong", UF, UF + "\n        if not part: break"),
 ("lists_of_segments", "wrong", "return ids, mask", "return [list(p) for p, _ in segments], mask"),
 ("mask_alone", "wrong", "return ids, mask", "return mask"),
 ("order_swapped", "wrong", "return ids, mask", "return mask, ids"),
 ("pairs", "wrong", "return ids, mask", "return list(zip(ids, mask))"),
 ("state_kept", "wrong", "def supervise", "STATE = [False]\ndef supervise", UI, "ids, mask, speaking = [], [], STATE[0]", "return ids, mask", "STATE[0] = speaking\n    return ids, mask"),
])
add("10.1", "searched_per_token", "right", '''
ASSISTANT, END = 6, 8
def supervise(segments):
    ids = [token for part, _ in segments for token in part]
    marks = [bool(mark) for part, mark in segments for _ in part]
    def speaks(t):
        for s in range(t - 1, -1, -1):
            if ids[s] in (ASSISTANT, END):
                return ids[s] == ASSISTANT
        return False
    return ids, [1 if marks[t] and speaks(t) else 0 for t in range(len(ids))]
''')
add("10.1", "torch_counts", "right", '''
import torch
ASSISTANT, END = 6, 8
def supervise(segments):
    ids = sum([list(part) for part, _ in segments], [])
    marks = torch.tensor(sum([[mark] * len(part) for part, mark in segments], []), dtype=torch.bool)
    tokens, time = torch.tensor(ids, dtype=torch.int64), torch.arange(1, len(ids) + 1)
    def last(token):
        if not ids:
            return time
        at = torch.where(tokens == token, time, 0).cummax(0).values
        return torch.cat([at.new_zeros(1), at[:-1]])
    return ids, (marks & (last(ASSISTANT) > last(END))).int().tolist()
''')
add("10.1", "sentences_by_index", "right", '''
ASSISTANT, END = 6, 8
def supervise(segments):
    ids, allowed = [], []
    for part, mark in segments:
        ids.extend(part)
        allowed.extend([int(mark)] * len(part))
    mask, start = [0] * len(ids), 0
    while ASSISTANT in ids[start:]:
        start = ids.index(ASSISTANT, start) + 1
        stop = ids.index(END, start) + 1 if END in ids[start:] else len(ids)
        mask[start:stop] = allowed[start:stop]
        start = stop
    return ids, mask
''')
add("10.1", "generator", "right", '''
from itertools import chain
ASSISTANT, END = 6, 8
def supervise(segments):
    def walk():
        speaking = False
        for token, mark in chain.from_iterable(((t, mark) for t in part) for part, mark in segments):
            yield token, int(speaking and mark)
            speaking = {ASSISTANT: True, END: False}.get(token, speaking)
    pairs = list(walk())
    return [t for t, _ in pairs], [m for _, m in pairs]
''')

# ------------------------------------------------------------ 10.2
BATCH = '''
import torch
END, PAD = 8, 0
def to_batch(conversations, length):
    kept = []
    for ids, mask in conversations:
        size = len(ids)
        if size > length:
            ends = [t + 1 for t in range(length) if ids[t] == END and mask[t]]
            if not ends:
                continue
            size = ends[-1]
        kept.append((ids[:size], mask[:size]))
    shape = (len(kept), length)
    input_ids = torch.full(shape, PAD)
    targets = torch.zeros(shape, dtype=torch.bool)
    document_ids = torch.full(shape, -1)
    positions = torch.zeros(shape, dtype=torch.int64)
    for row, (ids, mask) in enumerate(kept):
        n = len(ids)
        input_ids[row, :n] = torch.tensor(ids)
        targets[row, :n] = torch.tensor(mask, dtype=torch.bool)
        document_ids[row, :n] = 0
        positions[row, :n] = torch.arange(n)
    targets[:, :1] = False
    return input_ids, targets, document_ids, positions
'''
BE = "ends = [t + 1 for t in range(length) if ids[t] == END and mask[t]]"
BL = "if size > length:"
BN = "if not ends:\n                continue"
BS = "size = ends[-1]"
BK = "kept.append((ids[:size], mask[:size]))"
BF = "targets[:, :1] = False"
BR = "return input_ids, targets, document_ids, positions"
BM = "targets[row, :n] = torch.tensor(mask, dtype=torch.bool)"
fam("10.2", BATCH, [
 ("base", "right"),
 ("list_returned", "right", BR, "return [input_ids, targets, document_ids, positions]"),
 ("maximum", "right", BN, "if len(ends) == 0:\n                continue", BS, "size = max(ends)"),
 ("positions_masked", "right", BR, "positions = torch.arange(length).expand(shape) * (document_ids == 0); " + BR),
 ("backwards", "right", BE, "ends = [t for t in range(length, 0, -1) if ids[t - 1] == END and mask[t - 1] == 1][:1]"),
 ("first_not_target_by_position", "right", BF, "targets &= positions > 0"),
 ("cut_anywhere", "wrong", BE, "ends = [length]"),
 ("cut_at_any_end", "wrong", " and mask[t]]", "]"),
 ("cut_at_last_target", "wrong", "ids[t] == END and mask[t]", "mask[t]"),
 ("cut_at_first_end", "wrong", BS, "size = ends[0]"),
 ("end_itself_lost", "wrong", "[t + 1 for t", "[t for t"),
 ("one_after_end", "wrong", BS, "size = min(ends[-1] + 1, length)"),
 ("end_searched_in_all", "wrong", "for t in range(length)", "for t in range(size)", BS, "size = min(ends[-1], length)"),
 ("end_at_the_edge_missed", "wrong", "for t in range(length)", "for t in range(length - 1)"),
 ("end_beyond_the_edge", "wrong", "for t in range(length)", "for t in range(length + 1)", BS, "size = min(ends[-1], length)"),
 ("first_token_no_end", "wrong", "for t in range(length)", "for t in range(1, length)"),
 ("end_at_zero_is_false", "wrong", "[t + 1 for t", "[t for t", BN, "if not any(ends):\n                continue", BS, "size = ends[-1] + 1"),
 ("last_end_must_be_masked", "wrong", BE, "ends = [t + 1 for t in range(length) if ids[t] == END]\n            ends = ends if ends and mask[ends[-1] - 1] else []"),
 ("long_dropped", "wrong", BL, "if size > length:\n            continue\n        if False:"),
 ("full_ones_cut", "wrong", BL, "if size >= length:"),
 ("all_cut", "wrong", BL, "if True:", "for t in range(length)", "for t in range(min(size, length))"),
 ("unfinished_dropped", "wrong", BK, "if END not in ids: continue\n        " + BK),
 ("untrained_dropped", "wrong", BK, "if not any(mask[:size]): continue\n        " + BK),
 ("no_answer_cut_hard", "wrong", BN, "if not ends:\n                ends = [length]"),
 ("no_answer_empty_row", "wrong", BN, "if not ends:\n                ends = [0]"),
 ("no_answer_stops", "wrong", "continue", "break"),
 ("end_kept", "wrong", BE, "ends = [t + 1 - (size - length) for t in range(size - length, size) if ids[t] == END and mask[t]]", BS, "ids, mask = ids[size - length:], mask[size - length:]; size = ends[-1]"),
 ("rest_in_next_row", "wrong", BK, BK + "\n        if size < len(ids) <= size + length: kept.append((ids[size:], mask[size:]))"),
 ("packed", "wrong", BK, "if kept and len(kept[-1][0]) + size <= length: kept[-1] = (kept[-1][0] + ids[:size], kept[-1][1] + mask[:size])\n        else: " + BK),
 ("longest_first", "wrong", "    shape =", "    kept.sort(key=lambda pair: -len(pair[0]))\n    shape ="),
 ("first_stays_target", "wrong", BF, "pass"),
 ("first_row_only", "wrong", BF, "targets[:1, :1] = False"),
 ("first_two_false", "wrong", BF, "targets[:, :2] = False"),
 ("mask_shifted", "wrong", BR, "targets = targets.roll(-1, 1); " + BR),
 ("all_tokens_targets", "wrong", BM, "targets[row, :n] = True"),
 ("pad_ids_no_targets", "wrong", BF, BF + "\n    targets &= input_ids != PAD"),
 ("ends_no_targets", "wrong", BF, BF + "\n    targets &= input_ids != END"),
 ("mask_flipped", "wrong", BM, BM.replace("torch.tensor(mask, ", "~torch.tensor(mask, ")),
 ("mask_int", "wrong", "torch.zeros(shape, dtype=torch.bool)", "torch.zeros(shape, dtype=torch.int64)"),
 ("ids_int32", "wrong", "torch.full(shape, PAD)", "torch.full(shape, PAD, dtype=torch.int32)"),
 ("positions_float", "wrong", "torch.zeros(shape, dtype=torch.int64)", "torch.zeros(shape)"),
 ("documents_bool", "wrong", BR, "return input_ids, targets, (document_ids < 0), positions"),
 ("padding_by_id", "wrong", BR, "document_ids = torch.where(input_ids == PAD, -1, 0); " + BR),
 ("positions_by_id", "wrong", BR, "positions = positions * (input_ids != PAD); " + BR),
 ("documents_by_row", "wrong", "document_ids[row, :n] = 0", "document_ids[row, :n] = row"),
 ("documents_one", "wrong", "document_ids[row, :n] = 0", "document_ids[row, :n] = 1"),
 ("padding_document_zero", "wrong", "document_ids = torch.full(shape, -1)", "document_ids = torch.full(shape, 0)"),
 ("positions_run_on", "wrong", BR, "positions[:] = torch.arange(length); " + BR),
 ("positions_from_one", "wrong", "torch.arange(n)", "torch.arange(1, n + 1)"),
 ("positions_padding_minus", "wrong", "torch.zeros(shape, dtype=torch.int64)", "torch.full(shape, -1)"),
 ("padding_left", "wrong", BF, BF + "\n    for row, (ids, _) in enumerate(kept):\n        for table in (input_ids, targets, document_ids, positions): table[row] = table[row].roll(length - len(ids))"),
 ("pad_minus_one", "wrong", "torch.full(shape, PAD)", "torch.full(shape, -1)"),
 ("pad_is_end", "wrong", "torch.full(shape, PAD)", "torch.full(shape, END)"),
 ("as_wide_as_needed", "wrong", "    shape =", "    length = max((len(ids) for ids, _ in kept), default=length)\n    shape ="),
 ("none_left_flat", "wrong", BR, "if not kept: return tuple(torch.zeros(0) for _ in range(4))\n    " + BR),
 ("none_left_fails", "wrong", "    shape =", "    longest = max(len(ids) for ids, _ in kept)\n    shape ="),
 ("none_left_one_row", "wrong", "shape = (len(kept), length)", "shape = (max(1, len(kept)), length)"),
 ("fields_swapped", "wrong", BR, "return input_ids, targets, positions, document_ids"),
 ("given_mask_changed", "wrong", "size = len(ids)", "size = len(ids); mask[0] = 0"),
 ("given_ids_cut", "wrong", BK, "del ids[max(size, length):], mask[max(size, length):]; " + BK),
 ("given_padded", "wrong", BK, BK + "\n        ids += [PAD] * (length - len(ids)); mask += [0] * (length - len(mask))"),
 ("wrong_end", "wrong", "END, PAD = 8, 0", "END, PAD = 7, 0"),
])
add("10.2", "lists_to_tensors", "right", '''
import torch
END, PAD = 8, 0
def to_batch(conversations, length):
    table = []
    for ids, mask in conversations:
        n = len(ids)
        if n > length:
            n = length
            while n and not (ids[n - 1] == END and mask[n - 1]):
                n -= 1
        if n:
            pad = length - n
            table.append([list(ids[:n]) + [PAD] * pad, [0, *mask[1:n]] + [0] * pad, [0] * n + [-1] * pad, list(range(n)) + [0] * pad])
    whole = torch.tensor(table, dtype=torch.int64).reshape(len(table), 4, length)
    return whole[:, 0], whole[:, 1].bool(), whole[:, 2], whole[:, 3]
''')
add("10.2", "numpy", "right", '''
import numpy as np
import torch
END, PAD = 8, 0
def to_batch(conversations, length):
    rows = []
    for ids, mask in conversations:
        a, m = np.array(ids, dtype=np.int64), np.array(mask, dtype=bool)
        if a.size > length:
            good = np.flatnonzero((a[:length] == END) & m[:length])
            if good.size == 0:
                continue
            a, m = a[:good[-1] + 1], m[:good[-1] + 1]
        rows.append((a, m))
    sizes = np.array([a.size for a, _ in rows], dtype=np.int64).reshape(-1, 1)
    time = np.arange(length)[None]
    valid = time < sizes
    ids, mask = np.full(valid.shape, PAD, dtype=np.int64), np.zeros(valid.shape, dtype=bool)
    for r, (a, m) in enumerate(rows):
        ids[r, :a.size], mask[r, :m.size] = a, m
    mask[:, 0] = False
    return tuple(map(torch.from_numpy, (ids, mask, np.where(valid, 0, -1), np.where(valid, time, 0))))
''')
add("10.2", "pad_and_stack", "right", '''
import torch
import torch.nn.functional as F
END, PAD = 8, 0
def size_of(ids, mask, length):
    if len(ids) <= length:
        return len(ids)
    return next((t + 1 for t in reversed(range(length)) if ids[t] == END and mask[t]), 0)
def to_batch(conversations, length):
    rows = [(size_of(ids, mask, length), ids, mask) for ids, mask in conversations]
    rows = [row for row in rows if row[0]]
    if not rows:
        return (torch.zeros((0, length), dtype=torch.int64), torch.zeros((0, length), dtype=torch.bool),
                torch.zeros((0, length), dtype=torch.int64), torch.zeros((0, length), dtype=torch.int64))
    columns = zip(*[(F.pad(torch.tensor(ids[:n]), (0, length - n), value=PAD),
                     F.pad(torch.tensor(mask[:n]).bool(), (0, length - n), value=False) & (torch.arange(length) > 0),
                     F.pad(torch.zeros(n, dtype=torch.long), (0, length - n), value=-1),
                     F.pad(torch.arange(n), (0, length - n))) for n, ids, mask in rows])
    return tuple(torch.stack(column) for column in columns)
''')

# ------------------------------------------------------------ 10.3
PASS = '''
import math
import torch
def pass_at_k(right, samples, k):
    wrong = samples - right.double()
    failing = torch.ones_like(wrong)
    for i in range(k):
        failing = failing * (wrong - i).clamp(min=0) / (samples - i)
    return 1 - failing
'''
KW = "wrong = samples - right.double()"
KL = "for i in range(k):"
KF = "failing = failing * (wrong - i).clamp(min=0) / (samples - i)"
KR = "return 1 - failing"
KALL = '    wrong = samples - right.double()\n    failing = torch.ones_like(wrong)\n    for i in range(k):\n        failing = failing * (wrong - i).clamp(min=0) / (samples - i)\n    return 1 - failing\n'
fam("10.3", PASS, [
 ("base", "right"),
 ("factor_zero_does_it", "right", KF, "failing = failing * ((wrong - i) / (samples - i))"),
 ("prod", "right", KALL, "    i = torch.arange(k, dtype=torch.float64)\n    return 1 - (((samples - right.double())[:, None] - i).clamp(min=0) / (samples - i)).prod(1)\n"),
 ("whole_numbers", "right", KALL, "    n = samples\n    return torch.tensor([1 - math.comb(n - c, k) / math.comb(n, k) for c in right.tolist()], dtype=torch.float64)\n"),
 ("over_right_answers", "right", KALL, "    out = []\n    for c in right.tolist():\n        p = 1.0\n        for i in range(c): p *= max(0, samples - k - i) / (samples - i)\n        out.append(1 - p)\n    return torch.tensor(out, dtype=torch.float64)\n"),
 ("usual_product", "right", KALL, "    out = [1.0 if samples - c < k else 1 - math.prod(1 - k / i for i in range(samples - c + 1, samples + 1)) for c in right.tolist()]\n    return torch.tensor(out).double() if not out else torch.tensor(out, dtype=torch.float64)\n"),
 ("sum_of_logs", "right", KALL, "    i = torch.arange(k, dtype=torch.float64)\n    factor = ((samples - right.double())[:, None] - i).clamp(min=0) / (samples - i)\n    return -torch.expm1(factor.log().sum(1))\n"),
 ("table", "right", KALL, "    c = torch.arange(samples, dtype=torch.float64)\n    factor = (samples - k - c).clamp(min=0) / (samples - c)\n    table = torch.cat([torch.ones(1, dtype=torch.float64), factor.cumprod(0)])\n    return 1 - table[right]\n"),
 ("where_one", "right", KR, "return torch.where(samples - right < k, 1.0, 1 - failing)"),
 ("summed_by_first_right", "right", KALL, "    n, out = samples, []\n    for c in right.tolist():\n        total, miss = 0.0, 1.0\n        for i in range(k):\n            total += miss * min(1.0, c / (n - i)); miss *= max(0.0, 1 - c / (n - i))\n        out.append(total)\n    return torch.tensor(out, dtype=torch.float64)\n"),
 ("independent_draws", "wrong", KALL, "    return 1 - (1 - right.double() / samples) ** k\n"),
 ("mean_of_problems", "wrong", KR, "return (1 - failing).mean()"),
 ("mean_kept_shape", "wrong", KR, "return (1 - failing).mean().expand(len(right))"),
 ("failing", "wrong", KR, "return failing"),
 ("all_k_right", "wrong", KW, "wrong = right.double()", KR, "return failing"),
 ("not_all_right", "wrong", KW, "wrong = right.double()"),
 ("one_factor_more", "wrong", KL, "for i in range(min(k + 1, samples)):"),
 ("one_factor_less", "wrong", KL, "for i in range(k - 1):"),
 ("from_one", "wrong", KL, "for i in range(1, k):"),
 ("with_replacement_below", "wrong", "/ (samples - i)", "/ samples"),
 ("with_replacement_above", "wrong", "(wrong - i)", "wrong"),
 ("fp32", "wrong", "right.double()", "right.float()"),
 ("fp32_inside", "wrong", "right.double()", "right.float()", KR, "return (1 - failing).double()"),
 ("fp32_out", "wrong", KR, "return (1 - failing).float()"),
 ("whole_number_division", "wrong", "right.double()", "right", KF, "failing = failing * (wrong - i).clamp(min=0) // (samples - i)", KR, "return (1 - failing).double()"),
 ("numerators_first", "wrong", KF, "failing = failing * (wrong - i).clamp(min=0)", KR, "for i in range(k): failing = failing / (samples - i)\n    return 1 - failing"),
 ("factorials_as_floats", "wrong", KALL, "    n = samples\n    comb = lambda a, b: float(math.comb(a, b))\n    return torch.tensor([1 - comb(n - c, k) / comb(n, k) for c in right.tolist()], dtype=torch.float64)\n"),
 ("lgamma_fp32", "wrong", KALL, "    c = right.float(); n = torch.tensor(float(samples)); w = n - c\n    log = torch.lgamma(w + 1) - torch.lgamma((w - k).clamp(min=0) + 1) - torch.lgamma(n + 1) + torch.lgamma(n - k + 1)\n    return torch.where(w < k, 1.0, 1 - log.exp()).double()\n"),
 ("lgamma_off_by_one", "wrong", KALL, "    c, n = right.double(), torch.tensor(float(samples)).double(); w = n - c\n    log = torch.lgamma(w.clamp(min=1)) - torch.lgamma((w - k).clamp(min=1)) - torch.lgamma(n) + torch.lgamma((n - k).clamp(min=1))\n    return torch.where(w < k, 1.0, 1 - log.exp())\n"),
 ("as_many_wrong_as_k_is_one", "wrong", KR, "return torch.where(samples - right <= k, 1.0, 1 - failing)"),
 ("fewer_right_than_k_is_zero", "wrong", KR, "return torch.where(right < k, 0.0, 1 - failing)"),
 ("as_many_right_as_k_is_one", "wrong", KR, "return torch.where(right >= k, 1.0, 1 - failing)"),
 ("usual_product_uncased", "wrong", KALL, "    out = [1 - math.prod(abs(1 - k / i) for i in range(samples - c + 1, samples + 1) if i != k) for c in right.tolist()]\n    return torch.tensor(out, dtype=torch.float64)\n"),
 ("usual_product_short", "wrong", KALL, "    out = [1.0 if samples - c < k else 1 - math.prod(1 - k / i for i in range(samples - c + 1, samples)) for c in right.tolist()]\n    return torch.tensor(out, dtype=torch.float64)\n"),
 ("usual_product_early", "wrong", KALL, "    out = [1.0 if samples - c <= k else 1 - math.prod(1 - k / i for i in range(samples - c, samples)) for c in right.tolist()]\n    return torch.tensor(out, dtype=torch.float64)\n"),
 ("logs_nan", "wrong", KALL, "    i = torch.arange(k, dtype=torch.float64)\n    return 1 - (((samples - right.double())[:, None] - i) / (samples - i)).log().sum(1).exp()\n"),
 ("expected_right", "wrong", KALL, "    return (right.double() * k / samples).clamp(max=1)\n"),
 ("plain_share", "wrong", KALL, "    return right.double() / samples\n"),
 ("any_right", "wrong", KALL, "    return (right > 0).double()\n"),
 ("rounded", "wrong", KR, "return torch.round(1 - failing, decimals=4)"),
 ("drawn", "wrong", KALL, "    g = torch.Generator().manual_seed(0)\n    order = torch.rand(2000, samples, generator=g).argsort(1)[:, :k]\n    return torch.stack([(order < c).any(1).double().mean() for c in right]).to(torch.float64)\n"),
 ("list", "wrong", KR, "return (1 - failing).tolist()"),
 ("column", "wrong", KR, "return (1 - failing)[:, None]"),
 ("sorted", "wrong", KR, "return (1 - failing).sort().values"),
 ("first_only", "wrong", KR, "return (1 - failing[:1]).expand(len(right)).clone()"),
 ("right_changed", "wrong", KW, "right.neg_().add_(samples); wrong = right.double()"),
 ("distinct_problems", "wrong", KW, "right = right.unique(); " + KW),
 ("stirling", "wrong", KALL, "    n = float(samples)\n    def log(x): return x * math.log(x) - x + 0.5 * math.log(2 * math.pi * x) if x > 0 else 0.0\n    out = [1.0 if n - c < k else 1 - math.exp(log(n - c) - log(n - c - k) - log(n) + log(n - k)) for c in right.tolist()]\n    return torch.tensor(out, dtype=torch.float64)\n"),
 ("rational_exponent", "wrong", KALL, "    return 1 - ((samples - right.double()) / samples * (samples - right.double() - k + 1).clamp(min=0) / (samples - k + 1)) ** (k / 2)\n"),
])
