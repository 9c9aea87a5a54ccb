"""Wrong solutions of chapter 10's exercises: what carries loss, rows of conversations, pass@k."""

from tests.mutants import Mutant

MARK = "mask.append(int(speaking and supervised))"
START = "ids, mask, speaking = [], [], False\n"
LOOP = "    for tokens, supervised in segments:\n"
OPEN = "if token == ASSISTANT:"
CLOSE = "elif token == END:"
CUT = "ends = [t for t in range(length) if ids[t] == END and mask[t]]"
SIZE = "size = ends[-1] + 1 if ends else 0"
LONG = "if size > length:"
KEPT = """\
        if size:
            rows.append((ids[:size], mask[:size]))"""
TARGETS = "targets[row, 1 : len(ids)] = torch.tensor(mask[1:], dtype=torch.bool)"
DOCUMENT = "document_ids[row, : len(ids)] = 0"
PLACES = "positions[row, : len(ids)] = torch.arange(len(ids))"
DRAWN = "drawn = torch.arange(k, dtype=torch.float64)"
LEFT = "wrong_left = samples - right.double()[:, None] - drawn"
RESULT = "return 1 - (wrong_left / (samples - drawn)).prod(dim=1)"

MUTANTS = {
    "10.1": [
        Mutant("header carries loss", MARK, "mask.append(int((speaking or token == ASSISTANT) and supervised))"),
        Mutant("end carries none", MARK, "mask.append(int(speaking and supervised and token != END))"),
        Mutant("every end carries loss", MARK, "mask.append(int((speaking or token == END) and supervised))"),
        Mutant("sign not heeded", MARK, "mask.append(int(speaking))"),
        Mutant("role not heeded", MARK, "mask.append(int(supervised))"),
        Mutant("either is enough", MARK, "mask.append(int(speaking or supervised))"),
        Mutant("sign turned around", MARK, "mask.append(int(speaking and not supervised))"),
        Mutant("turned around", MARK, "mask.append(int(not (speaking and supervised)))"),
        Mutant("forgotten at each segment", LOOP, LOOP + "        speaking = False\n"),
        Mutant("segments without loss unseen", OPEN,
               "if not supervised:\n                continue\n            " + OPEN),
        Mutant("headers without loss unseen", OPEN, "if token == ASSISTANT and supervised:"),
        Mutant("ends without loss unseen", CLOSE, "elif token == END and supervised:"),
        Mutant("segments without loss left out", LOOP, LOOP + "        if not supervised:\n            continue\n"),
        Mutant("tags carry none", MARK, "mask.append(int(speaking and supervised and token not in (9, 10)))"),
        Mutant("control tokens carry none", MARK, "mask.append(int(speaking and supervised and token > 14))"),
        Mutant("id 0 carries none", MARK, "mask.append(int(speaking and supervised and token != 0))"),
        Mutant("closed by </think>", CLOSE, "elif token in (END, 10):"),
        Mutant("closed by any control token", CLOSE, "elif token < 15:"),
        Mutant("opened by <think>", OPEN, "if token == 9:"),
        Mutant("never closed", CLOSE, "elif token == -1:"),
        Mutant("user's sentence", OPEN, "if token == 5:"),
        Mutant("every header opens", OPEN, "if token in (3, 4, 5, 6, 7):"),
        Mutant("user opens too", OPEN, "if token in (5, 6):"),
        Mutant("tool results too", OPEN, "if token in (6, 7):"),
        Mutant("closed by a user's header only", CLOSE, "elif token == 5:"),
        Mutant("end opens, header closes", source='''\
def supervise(segments):
    ids, mask, speaking = [], [], True
    for tokens, supervised in segments:
        for token in tokens:
            ids.append(token)
            mask.append(int(speaking and supervised))
            speaking = token == END if token in (ASSISTANT, END) else speaking
    return ids, mask
'''),
        Mutant("only the first turn", source='''\
def supervise(segments):
    ids = [t for tokens, _ in segments for t in tokens]
    signs = [s for tokens, s in segments for _ in tokens]
    mask = [0] * len(ids)
    if ASSISTANT in ids:
        start = ids.index(ASSISTANT) + 1
        end = ids.index(END, start) + 1 if END in ids[start:] else len(ids)
        mask[start:end] = [int(s) for s in signs[start:end]]
    return ids, mask
'''),
        Mutant("only the last turn", source='''\
def supervise(segments):
    ids = [t for tokens, _ in segments for t in tokens]
    signs = [s for tokens, s in segments for _ in tokens]
    mask = [0] * len(ids)
    if ASSISTANT in ids:
        start = len(ids) - ids[::-1].index(ASSISTANT)
        end = ids.index(END, start) + 1 if END in ids[start:] else len(ids)
        mask[start:end] = [int(s) for s in signs[start:end]]
    return ids, mask
'''),
        Mutant("unfinished turns carry none", source='''\
def supervise(segments):
    ids = [t for tokens, _ in segments for t in tokens]
    signs = [int(s) for tokens, s in segments for _ in tokens]
    mask, start = [0] * len(ids), None
    for t, token in enumerate(ids):
        if token == ASSISTANT:
            start = t + 1
        elif token == END and start is not None:
            mask[start : t + 1], start = signs[start : t + 1], None
    return ids, mask
'''),
        Mutant("whole segments only", source='''\
def supervise(segments):
    ids, mask, speaking = [], [], False
    for tokens, supervised in segments:
        ids += tokens
        mask += [int(speaking and supervised)] * len(tokens)
        for token in tokens:
            speaking = token == ASSISTANT or (speaking and token != END)
    return ids, mask
'''),
        Mutant("one token late", "return ids, mask", "return ids, ([0] + mask)[: len(ids)]"),
        Mutant("one token early", "return ids, mask", "return ids, mask[1:] + [0] * bool(mask)"),
        Mutant("changes the first segment", source='''\
def supervise(segments):
    ids, mask, speaking = segments[0][0] if segments else [], [], False
    for n, (tokens, supervised) in enumerate(segments):
        for token in list(tokens):
            if n:
                ids.append(token)
            mask.append(int(speaking and supervised))
            speaking = token == ASSISTANT or (speaking and token != END)
    return ids, mask
'''),
        Mutant("mask alone", "return ids, mask", "return mask"),
        Mutant("changed places", "return ids, mask", "return mask, ids"),
    ],
    "10.2": [
        Mutant("cut hard", SIZE, "size = length"),
        Mutant("cut hard if there is no answer", SIZE, "size = ends[-1] + 1 if ends else length"),
        Mutant("left out", SIZE, "size = 0"),
        Mutant("behind any end", CUT, "ends = [t for t in range(length) if ids[t] == END]"),
        Mutant("behind any target", CUT, "ends = [t for t in range(length) if mask[t]]"),
        Mutant("behind the first answer", SIZE, "size = ends[0] + 1 if ends else 0"),
        Mutant("before the end", SIZE, "size = ends[-1] if ends else 0"),
        Mutant("one token more", SIZE, "size = min(ends[-1] + 2, length) if ends else 0"),
        Mutant("the last place not looked at", CUT,
               "ends = [t for t in range(length - 1) if ids[t] == END and mask[t]]"),
        Mutant("one place too many", CUT, "ends = [t for t in range(length + 1) if ids[t] == END and mask[t]]"),
        Mutant("the last end, if it carries loss", CUT,
               "ends = [max([t for t in range(length) if ids[t] == END], default=0)]\n"
               "            ends = [t for t in ends if mask[t]]"),
        Mutant("exact is too long", LONG, "if size >= length:"),
        Mutant("all are cut", LONG, "if True:\n            ids, mask = ids[:length], mask[:length]\n"
               "            length_, length = length, len(ids)\n        if size:",),
        Mutant("an empty row stays", KEPT, "        rows.append((ids[:size], mask[:size]))"),
        Mutant("first token a target", TARGETS, "targets[row, : len(ids)] = torch.tensor(mask, dtype=torch.bool)"),
        Mutant("last token no target", TARGETS,
               "targets[row, 1 : len(ids) - 1] = torch.tensor(mask[1:-1], dtype=torch.bool)"),
        Mutant("shifted to the left", TARGETS,
               "targets[row, : len(ids) - 1] = torch.tensor(mask[1:], dtype=torch.bool)"),
        Mutant("all tokens targets", TARGETS, "targets[row, 1 : len(ids)] = True"),
        Mutant("padding a target", "torch.zeros(shape, dtype=torch.bool)", "torch.ones(shape, dtype=torch.bool)"),
        Mutant("mask of int64", "torch.zeros(shape, dtype=torch.bool)", "torch.zeros(shape, dtype=torch.int64)"),
        Mutant("padding is document 0", "torch.full(shape, -1)", "torch.full(shape, 0)"),
        Mutant("padding is -100", "torch.full(shape, -1)", "torch.full(shape, -100)"),
        Mutant("input padded with -1", "torch.full(shape, PAD)", "torch.full(shape, -1)"),
        Mutant("input padded with the end", "torch.full(shape, PAD)", "torch.full(shape, END)"),
        Mutant("documents counted over rows", DOCUMENT, "document_ids[row, : len(ids)] = row"),
        Mutant("documents from 1", DOCUMENT, "document_ids[row, : len(ids)] = 1"),
        Mutant("padding told by id 0", DOCUMENT,
               "document_ids[row, : len(ids)] = 0\n        document_ids[row][input_ids[row] == PAD] = -1"),
        Mutant("positions from 1", PLACES, "positions[row, : len(ids)] = torch.arange(len(ids)) + 1"),
        Mutant("positions go on", PLACES, "positions[row] = torch.arange(length)"),
        Mutant("positions stay", PLACES, "positions[row] = torch.arange(length).clamp(max=len(ids) - 1)"),
        Mutant("padding on the left", "    return input_ids, targets",
               "        shift = length - len(ids)\n        for x in (input_ids, targets, document_ids, positions):\n"
               "            x[row] = x[row].roll(shift)\n    return input_ids, targets"),
        Mutant("sorted by length", "for ids, mask in conversations:",
               "for ids, mask in sorted(conversations, key=lambda c: -len(c[0])):"),
        Mutant("the first mask entry cleared in place", "size = len(ids)\n", "size = len(ids)\n        mask[0] = 0\n"),
        Mutant("rows without target left out", "if size:", "if size and any(mask[1:size]):"),
        Mutant("equal conversations once", "if size:", "if size and (ids[:size], mask[:size]) not in rows:"),
        Mutant("no rows, no length", "shape = (len(rows), length)",
               "shape = (len(rows), length if rows else 0)"),
        Mutant("as long as the longest", "shape = (len(rows), length)",
               "length = max((len(ids) for ids, _ in rows), default=length)\n    shape = (len(rows), length)"),
        Mutant("mask and ids changed places", "return input_ids, targets", "return targets, input_ids"),
        Mutant("positions before documents", "document_ids, positions\n", "positions, document_ids\n"),
    ],
    "10.3": [
        Mutant("with putting back", source='''\
def pass_at_k(right, samples, k):
    return 1 - (1 - right.double() / samples) ** k
'''),
        Mutant("all right", source='''\
def pass_at_k(right, samples, k):
    drawn = torch.arange(k, dtype=torch.float64)
    return ((right.double()[:, None] - drawn).clamp(min=0) / (samples - drawn)).prod(dim=1)
'''),
        Mutant("all wrong", RESULT, "return (wrong_left / (samples - drawn)).prod(dim=1)"),
        Mutant("right and wrong exchanged", LEFT, "wrong_left = (right.double()[:, None] - drawn).clamp(min=0)"),
        Mutant("one factor too few", DRAWN, "drawn = torch.arange(k - 1, dtype=torch.float64)"),
        Mutant("one factor too many", DRAWN, "drawn = torch.arange(min(k + 1, samples), dtype=torch.float64)"),
        Mutant("first draw left out", DRAWN, "drawn = torch.arange(1, k, dtype=torch.float64)"),
        Mutant("from 1 to k", DRAWN, "drawn = torch.arange(1, min(k + 1, samples), dtype=torch.float64)"),
        Mutant("denominator stays", RESULT, "return 1 - (wrong_left / samples).prod(dim=1)"),
        Mutant("numerator stays", LEFT, "wrong_left = (samples - right.double()[:, None] - 0 * drawn).clamp(min=0)"),
        Mutant("never less than one wrong", LEFT,
               "wrong_left = (samples - right.double()[:, None] - drawn).clamp(min=1)"),
        Mutant("a mean", ".prod(dim=1)", ".prod(dim=1).mean()"),
        Mutant("sum of the fractions", ".prod(dim=1)", ".sum(dim=1)"),
        Mutant("product over problems", ".prod(dim=1)", ".prod(dim=0)"),
        Mutant("fp32", source='''\
def pass_at_k(right, samples, k):
    drawn = torch.arange(k)
    wrong_left = (samples - right[:, None] - drawn).clamp(min=0)
    return 1 - (wrong_left / (samples - drawn)).prod(dim=1)
'''),
        Mutant("fp32, then fp64", source='''\
def pass_at_k(right, samples, k):
    drawn = torch.arange(k)
    wrong_left = (samples - right[:, None] - drawn).clamp(min=0)
    return (1 - (wrong_left / (samples - drawn)).prod(dim=1)).double()
'''),
        Mutant("lgamma in fp32", source='''\
def pass_at_k(right, samples, k):
    def log_choose(n, k):
        return torch.lgamma(n + 1.0) - torch.lgamma(k + 1.0) - torch.lgamma(n - k + 1.0)
    k, n = torch.tensor(k), torch.tensor(samples)
    wrong = n - right
    value = 1 - (log_choose(wrong, k) - log_choose(n, k)).exp()
    return torch.where(wrong < k, 1.0, value).double()
'''),
        Mutant("factorials in floats", source='''\
def pass_at_k(right, samples, k):
    def choose(n, k):
        return torch.lgamma(n + 1).exp() / torch.lgamma(k + 1).exp() / torch.lgamma(n - k + 1).exp()
    k, n = torch.tensor(k).double(), torch.tensor(samples).double()
    return torch.where(n - right < k, 1.0, 1 - choose(n - right, k) / choose(n, k))
'''),
        Mutant("floor division", source='''\
def pass_at_k(right, samples, k):
    import math
    return torch.tensor([1.0 - math.comb(samples - c, k) // math.comb(samples, k) for c in right.tolist()]).double()
'''),
        Mutant("union bound", source='''\
def pass_at_k(right, samples, k):
    return (k * right.double() / samples).clamp(max=1)
'''),
        Mutant("pass@1", source='''\
def pass_at_k(right, samples, k):
    return right.double() / samples
'''),
        Mutant("any right at all", source='''\
def pass_at_k(right, samples, k):
    return (right > 0).double()
'''),
        Mutant("the first k are drawn", source='''\
def pass_at_k(right, samples, k):
    return (right >= samples - k + 1).double()
'''),
        Mutant("changes right", LEFT, "right[:] = samples - right\n    wrong_left = right.double()[:, None] - drawn"),
        Mutant("a list", RESULT, "return (1 - (wrong_left / (samples - drawn)).prod(dim=1)).tolist()"),
        Mutant("a column", ".prod(dim=1)", ".prod(dim=1, keepdim=True)"),
    ],
}
