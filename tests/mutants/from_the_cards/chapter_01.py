"""Chapter 01."""

from tests.mutants.from_the_cards import Cards

MUTANTS = Cards()
add, fam = MUTANTS.add, MUTANTS.family

# ------------------------------------------------------------ 1.1
M = '''
from collections import Counter
def merge_step(ids, new_id):
    if len(ids) < 2:
        return list(ids), None
    counts = Counter(zip(ids, ids[1:]))
    pair = max(counts, key=counts.get)
    out, i = [], 0
    while i < len(ids):
        if tuple(ids[i:i + 2]) == pair:
            out.append(new_id)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out, pair
'''
G = "    if len(ids) < 2:\n        return list(ids), None\n"
C = "counts = Counter(zip(ids, ids[1:]))"
P = "pair = max(counts, key=counts.get)"
L = M[M.index("    out, i = []"):M.index("    return out, pair")]
WH = "while i < len(ids):"
IF = "if tuple(ids[i:i + 2]) == pair:"
R = "return out, pair"
fam("1.1", M, [
    ("base", "right"),
    ("most_common", "right", P, "pair = counts.most_common(1)[0][0]"),
    ("sorted_stable", "right", P, "pair = sorted(counts.items(), key=lambda item: -item[1])[0][0]"),
    ("count_in_list", "right", C, "pairs = [(a, b) for a, b in zip(ids, ids[1:])]", P, "pair = max(pairs, key=pairs.count)"),
    ("key_with_position", "right", P, "pairs = list(zip(ids, ids[1:])); i = max(range(len(pairs)), key=lambda i: (counts[pairs[i]], -i)); pair = (ids[i], ids[i + 1])"),
    ("stack", "right", L, "    out = []\n    for x in ids:\n        if out and (out[-1], x) == pair:\n            out[-1] = new_id\n        else:\n            out.append(x)\n"),
    ("splice_a_copy", "right", L, "    out, i = list(ids), 0\n    while i + 1 < len(out):\n        if (out[i], out[i + 1]) == pair:\n            out[i:i + 2] = [new_id]\n        i += 1\n"),
    ("copy_and_index", "right", L, "    out, i, n = ids[:], 0, len(ids)\n    for i in range(n - 1):\n        if out[i] == pair[0] and out[i + 1] == pair[1]:\n            out[i], out[i + 1] = new_id, None\n    out = [x for x in out if x is not None]\n"),
    ("tie_to_last", "wrong", P, "best = max(counts.values()); pair = [p for p, n in counts.items() if n == best][-1]"),
    ("tie_to_last_seen", "wrong", P, "pair = max(zip(ids[::-1][1:], ids[::-1]), key=counts.get)"),
    ("tie_to_largest", "wrong", P, "pair = max(counts, key=lambda p: (counts[p], p))"),
    ("tie_to_smallest", "wrong", P, "pair = min(counts, key=lambda p: (-counts[p], p))"),
    ("tie_by_set", "wrong", P, "pair = max(sorted(set(counts)), key=counts.get)"),
    ("greater_or_equal", "wrong", P, "pair = None\n    for p in counts:\n        if pair is None or counts[p] >= counts[pair]: pair = p"),
    ("first_to_reach_maximum", "wrong", C, "counts = Counter(); pair = None", P, "for p in zip(ids, ids[1:]):\n        counts[p] += 1\n        if pair is None or counts[p] > counts[pair]: pair = p"),
    ("rarest", "wrong", "max(", "min("),
    ("largest_pair", "wrong", "key=counts.get", "key=lambda p: p"),
    ("first_pair", "wrong", P, "pair = (ids[0], ids[1])"),
    ("counts_without_overlap", "wrong", C, "counts, last = Counter(), {}\n    for i, p in enumerate(zip(ids, ids[1:])):\n        if last.get(p, -2) < i - 1:\n            counts[p] += 1; last[p] = i"),
    ("even_positions_only", "wrong", C, "counts = Counter(zip(ids[::2], ids[1::2]))"),
    ("last_pair_not_counted", "wrong", C, "counts = Counter((ids[i], ids[i + 1]) for i in range(max(len(ids) - 2, 1)))"),
    ("first_pair_not_counted", "wrong", C, "counts = Counter((ids[i], ids[i + 1]) for i in range(min(1, len(ids) - 2), len(ids) - 1))"),
    ("wraps_around", "wrong", C, "counts = Counter((ids[i - 1], ids[i]) for i in range(len(ids)))"),
    ("unordered_pairs", "wrong", C, "counts = Counter(tuple(sorted(p)) for p in zip(ids, ids[1:]))"),
    ("either_order_replaced", "wrong", IF, "if sorted(ids[i:i + 2]) == sorted(pair):"),
    ("pair_swapped_in_return", "wrong", R, "return out, pair[::-1]"),
    ("pair_as_list", "wrong", R, "return out, list(pair)"),
    ("pair_first", "wrong", R, "return pair, out"),
    ("out_as_tuple", "wrong", R, "return tuple(out), pair"),
    ("with_the_count", "wrong", R, "return out, (pair, counts[pair])"),
    ("list_alone", "wrong", R, "return out"),
    ("right_to_left", "wrong", L, "    out, i = [], len(ids) - 1\n    while i >= 0:\n        if i and (ids[i - 1], ids[i]) == pair:\n            out.append(new_id); i -= 2\n        else:\n            out.append(ids[i]); i -= 1\n    out.reverse()\n"),
    ("overlapping_replacement", "wrong", "i += 2", "i += 1"),
    ("overlap_swallowed", "wrong", L, "    hits = [i for i in range(len(ids) - 1) if (ids[i], ids[i + 1]) == pair]\n    out = [new_id if i in hits else x for i, x in enumerate(ids) if i in hits or i - 1 not in hits]\n"),
    ("first_occurrence_only", "wrong", L, "    i = list(zip(ids, ids[1:])).index(pair)\n    out = ids[:i] + [new_id] + ids[i + 2:]\n"),
    ("last_id_lost", "wrong", WH, "while i < len(ids) - 1:"),
    ("last_id_twice", "wrong", R, "return (out + [ids[-1]] if (ids[-2], ids[-1]) != pair else out), pair"),
    ("skips_one_more", "wrong", "i += 2", "i += 3"),
    ("compares_first_only", "wrong", IF, "if i + 1 < len(ids) and ids[i] == pair[0]:"),
    ("is_not_equal", "wrong", IF, "if i + 1 < len(ids) and ids[i] is pair[0] and ids[i + 1] is pair[1]:"),
    ("zero_is_falsy", "wrong", L, "    out = []\n    for x in ids:\n        if out and out[-1] and (out[-1], x) == pair:\n            out[-1] = new_id\n        else:\n            out.append(x)\n"),
    ("text_replace", "wrong", L, "    out = [int(x) for x in ' '.join(map(str, ids)).replace(f'{pair[0]} {pair[1]}', str(new_id)).split()]\n"),
    ("bytes_replace", "wrong", L, "    out = [new_id if x == 255 else x for x in bytes(ids).replace(bytes(pair), bytes([255]))]\n"),
    ("pair_code_256", "wrong", C, "counts = Counter(a * 256 + b for a, b in zip(ids, ids[1:]))", P, "code = max(counts, key=counts.get); pair = divmod(code, 256)"),
    ("pair_code_sum", "wrong", C, "sums = Counter(a + b for a, b in zip(ids, ids[1:])); counts = {(a, b): sums[a + b] for a, b in zip(ids, ids[1:])}"),
    ("in_place", "wrong", L, "    out, i = ids, 0\n    while i + 1 < len(out):\n        if (out[i], out[i + 1]) == pair:\n            out[i:i + 2] = [new_id]\n        i += 1\n"),
    ("in_place_cleared", "wrong", R, "ids[:] = out\n    return out, pair"),
    ("in_place_pops", "wrong", L, "    out = []\n    while ids:\n        x = ids.pop(0)\n        if ids and (x, ids[0]) == pair:\n            x = new_id; ids.pop(0)\n        out.append(x)\n"),
    ("in_place_sentinel", "wrong", C, "ids.append(None); counts = Counter(zip(ids[:-1], ids[1:-1]))", WH, "while ids[i] is not None:"),
    ("short_list_not_copied", "wrong", "return list(ids), None", "return ids, None"),
    ("short_list_empty", "wrong", "return list(ids), None", "return [], None"),
    ("short_list_no_pair", "wrong", "return list(ids), None", "return list(ids)"),
    ("short_list_empty_tuple", "wrong", "return list(ids), None", "return list(ids), ()"),
    ("short_list_forgotten", "wrong", G, ""),
    ("empty_only", "wrong", G, "    if not ids:\n        return [], None\n"),
    ("one_only", "wrong", "len(ids) < 2", "len(ids) == 1"),
    ("fewer_than_three", "wrong", "len(ids) < 2", "len(ids) < 3"),
    ("once_is_not_merged", "wrong", "    out, i = []", "    if counts[pair] < 2: return list(ids), None\n    out, i = []"),
    ("once_keeps_the_list", "wrong", "    out, i = []", "    if counts[pair] < 2: return list(ids), pair\n    out, i = []"),
    ("until_nothing_repeats", "wrong", R, "return merge_step(out, new_id + 1) if len(out) > 2 and max(Counter(zip(out, out[1:])).values()) > 1 else (out, pair)"),
    ("merges_new_with_itself", "wrong", R, "return (merge_step(out, new_id)[0] if (new_id, new_id) in zip(out, out[1:]) else out), pair"),
    ("all_tied_pairs", "wrong", IF, "if counts.get(tuple(ids[i:i + 2])) == counts[pair]:"),
    ("new_id_made_up", "wrong", "out.append(new_id)", "out.append(max(ids) + 1)"),
    ("new_id_256", "wrong", "out.append(new_id)", "out.append(256)"),
    ("new_id_300", "wrong", "out.append(new_id)", "out.append(300)"),
    ("pair_in_the_list", "wrong", "out.append(new_id)", "out.append(pair)"),
    ("counts_kept", "wrong", "def merge_step", "COUNTS = {}\ndef merge_step", C, "counts = COUNTS\n    for p in zip(ids, ids[1:]): counts[p] = counts.get(p, 0) + 1"),
    ("out_kept", "wrong", "ids, new_id):", "ids, new_id, out=[]):", "out, i = [], 0", "i = 0"),
])
add("1.1", "regex_over_ranks", "right", '''
def merge_step(ids, new_id):
    pairs = [(ids[i], ids[i + 1]) for i in range(len(ids) - 1)]
    if not pairs:
        return ids.copy(), None
    best = None
    for p in dict.fromkeys(pairs):
        if best is None or pairs.count(p) > pairs.count(best):
            best = p
    table = {x: chr(65 + n) for n, x in enumerate(dict.fromkeys(ids + [new_id]))}
    back = {c: x for x, c in table.items()}
    text = "".join(table[x] for x in ids).replace(table[best[0]] + table[best[1]], table[new_id])
    return [back[c] for c in text], best
''')
add("1.1", "torch_unique", "right", '''
import torch
def merge_step(ids, new_id):
    if len(ids) < 2:
        return [*ids], None
    t = torch.tensor(ids)
    pairs = torch.stack([t[:-1], t[1:]], 1)
    same = (pairs[:, None] == pairs[None]).all(-1)
    a, b = pairs[int(same.sum(1).argmax())].tolist()
    first = int((same.sum(1) == same.sum(1).max()).nonzero()[0])
    a, b = ids[first], ids[first + 1]
    out, skip = [], False
    for i, x in enumerate(ids):
        if skip:
            skip = False
        elif i + 1 < len(ids) and x == a and ids[i + 1] == b:
            out += [new_id]
            skip = True
        else:
            out += [x]
    return out, (a, b)
''')
add("1.1", "deque_iterator", "right", '''
from collections import defaultdict, deque
from itertools import pairwise
def merge_step(ids, new_id):
    counts = defaultdict(int)
    for pair in pairwise(ids):
        counts[pair] += 1
    if not counts:
        return [x for x in ids], None
    top = max(counts.values())
    winner = next(pair for pair in pairwise(ids) if counts[pair] == top)
    rest, result = deque(ids), []
    while rest:
        x = rest.popleft()
        if rest and (x, rest[0]) == winner:
            rest.popleft()
            x = new_id
        result.append(x)
    return result, winner
''')
add("1.1", "slices_between_hits", "right", '''
def merge_step(ids, new_id):
    n, best, best_count = len(ids), None, 0
    for i in range(n - 1):
        count = sum(ids[j] == ids[i] and ids[j + 1] == ids[i + 1] for j in range(n - 1))
        if count > best_count:
            best, best_count = (ids[i], ids[i + 1]), count
    result, start, i = [], 0, 0
    while i < n - 1:
        if ids[i:i + 2] == list(best):
            result.extend(ids[start:i])
            result.append(new_id)
            start = i = i + 2
        else:
            i += 1
    return result + ids[start:], best
''')

# ------------------------------------------------------------ 1.2
CONST = r'''
BEGIN = "<begin_of_document>"
HEADERS = {
    "system": "<beginning_of_sentence>system ai_setting=MiniMax AI\n",
    "user": "<beginning_of_sentence>user name=user\n",
    "assistant": "<beginning_of_sentence>ai name=MiniMax AI\n",
}
END = "<end_of_sentence>\n"
THINK, END_THINK = "<think>\n", "\n</think>\n"
DEFAULT_SYSTEM = "You are a helpful assistant created by Minimax based on MiniMax-M1 model."
'''
B2 = CONST + '''
def render(messages, add_generation_prompt=False):
    text = BEGIN
    if messages[0]["role"] != "system":
        text += HEADERS["system"] + DEFAULT_SYSTEM + END
    for m in messages:
        content = (m["content"] or "").strip()
        if m["role"] == "system" and not content:
            continue
        text += HEADERS[m["role"]]
        if m.get("reasoning") is not None:
            text += THINK + m["reasoning"] + END_THINK
        text += content + END
    if add_generation_prompt:
        text += HEADERS["assistant"]
    return text
'''
DEF = "def render(messages, add_generation_prompt=False):\n"
T0 = "text = BEGIN\n"
D1 = 'if messages[0]["role"] != "system":'
D2 = 'text += HEADERS["system"] + DEFAULT_SYSTEM + END'
FOR = "for m in messages:"
CO = 'content = (m["content"] or "").strip()'
SK = 'if m["role"] == "system" and not content:'
HD = 'text += HEADERS[m["role"]]\n'
RC = 'if m.get("reasoning") is not None:'
RT = 'text += THINK + m["reasoning"] + END_THINK'
CE = "text += content + END"
AG = "if add_generation_prompt:"
GH = 'text += HEADERS["assistant"]\n'
RET = "return text"
fam("1.2", B2, [
    ("base", "right"),
    ("any_system", "right", D1, 'if all(m["role"] != "system" for m in messages):'),
    ("regex_strip", "right", CO, r'import re; content = re.sub(r"\A\s+|\s+\Z", "", m["content"] or "")'),
    ("deepcopy_then_change", "right", T0, T0 + "    import copy; messages = copy.deepcopy(messages)\n", CO, 'm["content"] = content = (m["content"] or "").strip()'),
    ("strip_by_hand", "right", CO, 'content = m["content"] or ""\n        while content and content[0].isspace(): content = content[1:]\n        while content and content[-1].isspace(): content = content[:-1]'),
    ("no_begin", "wrong", T0, 'text = ""\n'),
    ("begin_each_message", "wrong", HD, 'text += ("" if text == BEGIN else BEGIN) + HEADERS[m["role"]]\n'),
    ("begin_twice_with_default", "wrong", D2, 'text += BEGIN + HEADERS["system"] + DEFAULT_SYSTEM + END'),
    ("begin_newline", "wrong", T0, 'text = BEGIN + "\\n"\n'),
    ("begin_after_system", "wrong", T0, 'text = ""\n', FOR, 'text += BEGIN if text else ""\n    ' + FOR, RET, 'return text if text.startswith(HEADERS["system"]) else BEGIN + text.replace(BEGIN, "", 1)'),
    ("no_default", "wrong", D2, "pass"),
    ("default_always", "wrong", D1, "if True:"),
    ("default_for_none", "wrong", D1, 'if messages[0]["role"] != "system" or messages[0]["content"] is None:'),
    ("default_for_empty", "wrong", D1, 'if messages[0]["role"] != "system" or messages[0]["content"] is not None and not messages[0]["content"].strip():'),
    ("default_for_none_and_empty", "wrong", D1, 'if messages[0]["role"] != "system" or not (messages[0]["content"] or "").strip():'),
    ("default_for_falsy", "wrong", D1, 'if messages[0]["role"] != "system" or not messages[0]["content"]:'),
    ("default_as_user", "wrong", D2, 'text += HEADERS["user"] + DEFAULT_SYSTEM + END'),
    ("default_without_end", "wrong", D2, 'text += HEADERS["system"] + DEFAULT_SYSTEM'),
    ("default_without_header", "wrong", D2, "text += DEFAULT_SYSTEM + END"),
    ("default_last", "wrong", D2, "pass", AG, 'if messages[0]["role"] != "system":\n        ' + D2 + "\n    " + AG),
    ("default_only_before_user", "wrong", D1, 'if messages[0]["role"] == "user":'),
    ("default_only_one_message", "wrong", D1, 'if messages[0]["role"] != "system" and len(messages) == 1:'),
    ("default_needs_two", "wrong", D1, 'if messages[0]["role"] != "system" and len(messages) > 1:'),
    ("system_empty_sentence", "wrong", SK, "if False:"),
    ("system_only_none_dropped", "wrong", SK, 'if m["content"] is None:'),
    ("system_blank_kept", "wrong", SK, 'if m["role"] == "system" and not m["content"]:'),
    ("system_none_crashes", "wrong", CO, 'content = m["content"].strip()'),
    ("system_none_written", "wrong", CO, 'content = str(m["content"]).strip()'),
    ("empty_of_any_role_dropped", "wrong", SK, "if not content:"),
    ("empty_user_dropped", "wrong", SK, 'if m["role"] != "assistant" and not content:'),
    ("empty_first_dropped", "wrong", SK, "if m is messages[0] and not content:"),
    ("system_ignored", "wrong", SK, 'if m["role"] == "system":'),
    ("empty_system_ends_all", "wrong", "continue", "break"),
    ("empty_system_no_begin", "wrong", "continue", 'text = ""; continue'),
    ("not_stripped", "wrong", CO, 'content = m["content"] or ""\n        if m["role"] == "system": content = content if content.strip() else ""'),
    ("lstrip", "wrong", ".strip()", ".lstrip()"),
    ("rstrip", "wrong", ".strip()", ".rstrip()"),
    ("strip_spaces_only", "wrong", ".strip()", '.strip(" ")'),
    ("strip_newlines_only", "wrong", ".strip()", '.strip("\\n")'),
    ("strip_space_newline_only", "wrong", ".strip()", '.strip(" \\n")'),
    ("system_not_stripped", "wrong", CE, 'text += (m["content"] if m["role"] == "system" else content) + END'),
    ("assistant_not_stripped", "wrong", CE, 'text += (m["content"] if m["role"] == "assistant" else content) + END'),
    ("user_alone_stripped", "wrong", CE, 'text += (content if m["role"] == "user" else m["content"]) + END'),
    ("inner_space_collapsed", "wrong", CO, 'content = " ".join((m["content"] or "").split())'),
    ("line_ends_changed", "wrong", CO, 'content = "\\n".join((m["content"] or "").strip().splitlines())'),
    ("lines_stripped", "wrong", CO, 'content = "\\n".join(s.strip() for s in (m["content"] or "").strip().split("\\n"))'),
    ("reasoning_stripped", "wrong", RT, 'text += THINK + m["reasoning"].strip() + END_THINK'),
    ("reasoning_and_content_stripped", "wrong", RC, "if False:", CE, 'text += ((THINK + m["reasoning"] + END_THINK if m.get("reasoning") is not None else "") + content).strip() + END'),
    ("reasoning_trailing_newline_cut", "wrong", RT, 'text += THINK + m["reasoning"].rstrip("\\n") + END_THINK'),
    ("reasoning_truthy", "wrong", RC, 'if m.get("reasoning"):'),
    ("reasoning_blank_dropped", "wrong", RC, 'if (m.get("reasoning") or "").strip():'),
    ("reasoning_none_written", "wrong", RC, 'if "reasoning" in m:', RT, 'text += THINK + str(m["reasoning"]) + END_THINK'),
    ("reasoning_none_as_empty", "wrong", RC, 'if "reasoning" in m:', RT, 'text += THINK + (m["reasoning"] or "") + END_THINK'),
    ("reasoning_none_crashes", "wrong", RC, 'if "reasoning" in m:'),
    ("reasoning_key_needed", "wrong", RC, 'if m["role"] == "assistant" and m["reasoning"] is not None:'),
    ("reasoning_always", "wrong", RC, 'if m["role"] == "assistant":', RT, 'text += THINK + (m.get("reasoning") or "") + END_THINK'),
    ("reasoning_never", "wrong", RC, "if False:"),
    ("reasoning_last_message_only", "wrong", RC, 'if m.get("reasoning") is not None and m is messages[-1]:'),
    ("reasoning_after_last_user_only", "wrong", RC, 'if m.get("reasoning") is not None and all(x["role"] == "assistant" for x in messages[messages.index(m):]):'),
    ("reasoning_first_assistant_only", "wrong", RC, 'if m.get("reasoning") is not None and "<think>" not in text:'),
    ("reasoning_not_with_prompt", "wrong", RC, 'if m.get("reasoning") is not None and not add_generation_prompt:'),
    ("reasoning_after_content", "wrong", HD, HD + "        text += content\n", CE, "text += END"),
    ("reasoning_before_header", "wrong", HD, "pass\n", CE, 'text += HEADERS[m["role"]] + content + END'),
    ("reasoning_no_end_think", "wrong", RT, 'text += THINK + m["reasoning"]'),
    ("reasoning_instead_of_content", "wrong", CE, 'text += ("" if m.get("reasoning") is not None else content) + END'),
    ("reasoning_empty_one_newline", "wrong", RT, 'text += THINK + (m["reasoning"] + END_THINK if m["reasoning"] else END_THINK.lstrip())'),
    ("reasoning_extra_blank_line", "wrong", RT, RT + ' + "\\n"'),
    ("reasoning_newline_added", "wrong", RT, 'text += THINK + m["reasoning"] + "\\n" + END_THINK'),
    ("think_without_newlines", "wrong", RT, 'text += "<think>" + m["reasoning"] + "</think>"'),
    ("prompt_ignored", "wrong", GH, "pass\n"),
    ("prompt_always", "wrong", AG, "if True:"),
    ("prompt_inverted", "wrong", AG, "if not add_generation_prompt:"),
    ("prompt_default_true", "wrong", "add_generation_prompt=False", "add_generation_prompt=True"),
    ("prompt_only_after_user", "wrong", AG, 'if add_generation_prompt and messages[-1]["role"] == "user":'),
    ("prompt_not_after_assistant", "wrong", AG, 'if add_generation_prompt and messages[-1]["role"] != "assistant":'),
    ("prompt_with_think", "wrong", GH, 'text += HEADERS["assistant"] + THINK\n'),
    ("prompt_with_end", "wrong", GH, 'text += HEADERS["assistant"] + END\n'),
    ("prompt_without_newline", "wrong", GH, 'text += HEADERS["assistant"].rstrip()\n'),
    ("prompt_user_header", "wrong", GH, 'text += HEADERS["user"]\n'),
    ("prompt_in_the_loop", "wrong", CE, CE + '\n        if add_generation_prompt and m["role"] == "user": text += HEADERS["assistant"]', GH, 'text += HEADERS["assistant"] if messages[-1]["role"] != "user" else ""\n'),
    ("prompt_opens_last_turn", "wrong", RET, 'return text.removesuffix(HEADERS["assistant"]).removesuffix(END) if add_generation_prompt and messages[-1]["role"] == "assistant" else text'),
    ("end_missing", "wrong", CE, "text += content"),
    ("end_without_newline", "wrong", CE, "text += content + END.strip()"),
    ("end_missing_at_last", "wrong", CE, 'text += content + (END if m is not messages[-1] else "")'),
    ("end_not_after_assistant", "wrong", CE, 'text += content + (END if m["role"] != "assistant" else "")'),
    ("newline_before_end", "wrong", CE, 'text += content + "\\n" + END'),
    ("text_stripped", "wrong", RET, "return text.strip()"),
    ("text_rstripped_newline", "wrong", RET, 'return text.rstrip("\\n")'),
    ("joined_by_newline", "wrong", HD, 'text += "\\n" + HEADERS[m["role"]]\n'),
    ("header_by_role_name", "wrong", HD, 'text += "<beginning_of_sentence>" + m["role"] + "\\n"\n'),
    ("header_without_newline", "wrong", HD, 'text += HEADERS[m["role"]].strip()\n'),
    ("assistant_as_user", "wrong", HD, 'text += HEADERS["system" if m["role"] == "system" else "user"]\n'),
    ("roles_alternate", "wrong", HD, 'text += HEADERS["system" if m["role"] == "system" else "user" if (messages.index(m) - (messages[0]["role"] == "system")) % 2 == 0 else "assistant"]\n'),
    ("same_role_merged", "wrong", FOR, "last = None\n    " + FOR, HD, 'if m["role"] == last: text = text[:-len(END)] + "\\n"\n        else: text += HEADERS[m["role"]]\n        last = m["role"]\n'),
    ("last_lost", "wrong", FOR, "for m in messages[:-1] or messages:"),
    ("first_lost", "wrong", FOR, "for m in messages[1:]:"),
    ("two_turns_only", "wrong", FOR, "for m in messages[:3]:"),
    ("reversed", "wrong", FOR, "for m in messages[::-1]:"),
    ("ends_in_content_removed", "wrong", CO, CO + '.replace("<end_of_sentence>", "")'),
    ("think_in_content_removed", "wrong", CO, CO + '.split("</think>")[-1].strip()'),
    ("escaped", "wrong", CO, 'import html; content = html.escape((m["content"] or "").strip())'),
    ("format_on_content", "wrong", CE, "text += (content + END).format()"),
    ("percent_on_content", "wrong", CE, "text += (content + END) % ()"),
    ("ascii_only", "wrong", RET, 'return text.encode("ascii", "ignore").decode()'),
    ("list_returned", "wrong", RET, "return [text]"),
    ("inserts_default", "wrong", D2, 'messages.insert(0, {"role": "system", "content": DEFAULT_SYSTEM})'),
    ("strips_in_place", "wrong", CO, 'm["content"] = content = (m["content"] or "").strip()'),
    ("pops_reasoning", "wrong", RC, 'if (r := m.pop("reasoning", None)) is not None:', RT, "text += THINK + r + END_THINK"),
    ("setdefault_reasoning", "wrong", RC, 'if m.setdefault("reasoning", None) is not None:'),
    ("pops_system", "wrong", FOR, 'if messages[0]["role"] == "system":\n        m = messages.pop(0); s = (m["content"] or "").strip()\n        text += HEADERS["system"] + s + END if s else ""\n    ' + FOR),
    ("appends_prompt", "wrong", GH, 'messages.append({"role": "assistant", "content": ""}); text += HEADERS["assistant"]\n'),
    ("shallow_copy_changed", "wrong", T0, T0 + "    messages = list(messages)\n", CO, 'm["content"] = content = (m["content"] or "").strip()'),
    ("pieces_kept", "wrong", "add_generation_prompt=False):", "add_generation_prompt=False, pieces=[]):", RET, "pieces.append(text)\n    return pieces[-1] if len(pieces) == 1 else BEGIN + ''.join(p[len(BEGIN):] for p in pieces)"),
    ("remembers_system", "wrong", DEF, "LAST = {}\n" + DEF, FOR, 'if messages[0]["role"] == "system": LAST["s"] = 1\n    elif LAST: text = BEGIN\n    ' + FOR),
    ("cached_by_length", "wrong", DEF, "SEEN = {}\n" + DEF, RET, "return SEEN.setdefault((len(messages), add_generation_prompt), text)"),
    ("headers_changed", "wrong", HD, HD + '        HEADERS[m["role"]] = HEADERS[m["role"]].replace("MiniMax AI", "M1")\n'),
    ("consecutive_same_dropped", "wrong", FOR, "messages = [m for i, m in enumerate(messages) if m not in messages[:i]]\n    " + FOR),
])
add("1.2", "join_of_pieces", "right", CONST + '''
def render(messages, add_generation_prompt=False):
    pieces = [BEGIN]
    first = messages[0]
    rest = messages
    if first["role"] == "system":
        system, rest = first["content"], messages[1:]
    else:
        system = DEFAULT_SYSTEM
    if system is not None and system.strip() != "":
        pieces += [HEADERS["system"], system.strip(), END]
    for message in rest:
        reasoning = message.get("reasoning", None)
        thought = [] if reasoning is None else [THINK, reasoning, END_THINK]
        pieces += [HEADERS[message["role"]], *thought, message["content"].strip(), END]
    return "".join(pieces + [HEADERS["assistant"]] * bool(add_generation_prompt))
''')
add("1.2", "prepended_copy", "right", CONST + '''
def render(messages, add_generation_prompt=False):
    if messages[0]["role"] != "system":
        messages = [{"role": "system", "content": DEFAULT_SYSTEM}] + messages
    elif not (messages[0]["content"] and messages[0]["content"].strip()):
        messages = messages[1:]
    def sentence(role, content, reasoning=None, **rest):
        return f"{HEADERS[role]}{'' if reasoning is None else THINK + reasoning + END_THINK}{content.strip()}{END}"
    return BEGIN + "".join(sentence(**m) for m in messages) + (HEADERS["assistant"] if add_generation_prompt else "")
''')
add("1.2", "reduce", "right", CONST + '''
from functools import reduce
def render(messages, add_generation_prompt=False):
    def write(text, m):
        body = "" if m["content"] is None else m["content"].strip()
        if m["role"] == "system":
            return text + (HEADERS["system"] + body + END if body else "")
        if "reasoning" in m and m["reasoning"] is not None:
            body = THINK + m["reasoning"] + END_THINK + body
        return text + HEADERS[m["role"]] + body + END
    start = BEGIN
    if messages[0]["role"] in ("user", "assistant"):
        start = write(start, {"role": "system", "content": DEFAULT_SYSTEM})
    text = reduce(write, messages, start)
    return text + HEADERS["assistant"] if add_generation_prompt else text
''')
add("1.2", "string_io_match", "right", CONST + '''
import io
def render(messages, add_generation_prompt=False):
    out = io.StringIO()
    out.write(BEGIN)
    for i, m in enumerate(messages):
        match m["role"], m["content"]:
            case "system", None:
                continue
            case "system", text if not text.strip():
                continue
        if i == 0 and m["role"] != "system":
            print(HEADERS["system"], DEFAULT_SYSTEM, END, sep="", end="", file=out)
        out.write(HEADERS[m["role"]])
        try:
            out.write(THINK + m["reasoning"] + END_THINK)
        except (KeyError, TypeError):
            pass
        print(m["content"].strip(), end=END, file=out)
    if add_generation_prompt:
        out.write(HEADERS["assistant"])
    return out.getvalue()
''')
add("1.2", "built_backwards", "right", CONST + '''
def render(messages, add_generation_prompt=False):
    text = HEADERS["assistant"] if add_generation_prompt else ""
    for m in reversed(messages):
        content = m["content"]
        content = content.strip() if content is not None else ""
        if m["role"] != "system" or len(content) > 0:
            r = m.get("reasoning")
            text = HEADERS[m["role"]] + ("" if r is None else "".join((THINK, r, END_THINK))) + content + END + text
    if messages[0]["role"] != "system":
        text = HEADERS["system"] + DEFAULT_SYSTEM + END + text
    return BEGIN + text
''')

# ------------------------------------------------------------ 1.3
A3 = '''
import torch
ASSISTANT = 6
END_ID = 8
def assistant_mask(input_ids, document_ids):
    mask = torch.zeros_like(input_ids, dtype=torch.bool)
    for b in range(input_ids.shape[0]):
        is_open, document = False, -1
        for t in range(input_ids.shape[1]):
            x, d = int(input_ids[b, t]), int(document_ids[b, t])
            if d != document:
                is_open, document = False, d
            if d < 0:
                break
            mask[b, t] = is_open
            if x == END_ID:
                is_open = False
            elif x == ASSISTANT:
                is_open = True
    return mask
'''
N = "is_open, document = False, -1"
ND = "            if d != document:\n                is_open, document = False, d\n"
PD = "            if d < 0:\n                break\n"
SET = "mask[b, t] = is_open"
CL = "            if x == END_ID:\n                is_open = False\n"
OP = "elif x == ASSISTANT:\n                is_open = True"
E3 = "    return mask"
V3 = '''
import torch
ASSISTANT = 6
END_ID = 8
def assistant_mask(input_ids, document_ids):
    B, T = input_ids.shape
    time = torch.arange(T, device=input_ids.device).expand(B, T)
    event = (input_ids == ASSISTANT) | (input_ids == END_ID)
    last = torch.where(event, time, -1).cummax(1).values
    before = torch.cat([torch.full_like(last[:, :1], -1), last[:, :-1]], 1)
    there = before >= 0
    where = before.clamp(min=0)
    opened = input_ids.gather(1, where) == ASSISTANT
    same = document_ids.gather(1, where) == document_ids
    return opened & there & same & (document_ids >= 0)
'''
fam("1.3", A3, [
    ("base", "right"),
    ("header_included", "wrong", SET, "mask[b, t] = is_open or x == ASSISTANT"),
    ("end_excluded", "wrong", SET, "mask[b, t] = is_open and x != END_ID"),
    ("second_header_excluded", "wrong", SET, "mask[b, t] = is_open and x != ASSISTANT"),
    ("second_header_closes", "wrong", OP, "elif x == ASSISTANT:\n                is_open = not is_open"),
    ("control_tokens_excluded", "wrong", SET, "mask[b, t] = is_open and (x > 16 or x == END_ID)"),
    ("small_ids_excluded", "wrong", SET, "mask[b, t] = is_open and x >= 6"),
    ("first_token_of_turn_skipped", "wrong", SET, "mask[b, t] = is_open and int(input_ids[b, t - 1]) != ASSISTANT"),
    ("id_7_is_end", "wrong", CL, "            if x in (7, END_ID):\n                is_open = False\n"),
    ("any_control_token_closes", "wrong", CL, "            if x == END_ID or x < 9 and x != ASSISTANT:\n                is_open = False\n"),
    ("no_documents", "wrong", ND, ""),
    ("no_documents_even_id", "wrong", ND, "            if d != document and d >= 0 and d % 2 == 0:\n                is_open, document = False, d\n"),
    ("only_padding_closes", "wrong", ND, "            if d < 0:\n                is_open = False\n"),
    ("padding_runs_on", "wrong", ND, "            if d != document and d >= 0:\n                is_open, document = False, d\n", PD, ""),
    ("padding_a_document", "wrong", PD, ""),
    ("document_0_as_padding", "wrong", PD, "            if d <= 0:\n                continue\n"),
    ("first_document_only", "wrong", PD, "            if d != 0:\n                break\n"),
    ("last_document_lost", "wrong", E3, "    return mask & (document_ids < document_ids.max(1, keepdim=True).values)"),
    ("two_documents_only", "wrong", PD, "            if d < 0 or d > 1:\n                break\n"),
    ("document_off_by_one", "wrong", "d = int(input_ids[b, t]), int(document_ids[b, t])", "d = int(input_ids[b, t]), int(document_ids[b, max(t - 1, 0)])"),
    ("next_document_at_bos_5", "wrong", ND, "            if x == 5:\n                is_open = False\n"),
    ("state_kept_over_rows", "wrong", "    for b in", "    is_open, document = False, -1\n    for b in", "        " + N + "\n", ""),
    ("first_row_only", "wrong", "range(input_ids.shape[0])", "range(1)"),
    ("last_row_lost", "wrong", "range(input_ids.shape[0])", "range(max(1, input_ids.shape[0] - 1))"),
    ("row_0_ids", "wrong", "int(input_ids[b, t])", "int(input_ids[0, t])"),
    ("row_0_documents", "wrong", "int(document_ids[b, t])", "int(document_ids[0, t])"),
    ("last_token_lost", "wrong", "range(input_ids.shape[1])", "range(input_ids.shape[1] - 1)"),
    ("never_closed", "wrong", CL, "", "elif x == ASS", "if x == ASS"),
    ("first_turn_only", "wrong", CL, "            if x == END_ID and is_open:\n                break\n"),
    ("first_turn_of_document_only", "wrong", N, N + "; done = -1", OP, "elif x == ASSISTANT and done != d:\n                is_open = True", "is_open = False\n            elif", "done = d if is_open else done; is_open = False\n            elif"),
    ("last_turn_only", "wrong", OP, "elif x == ASSISTANT:\n                is_open = True; mask[b] = mask[b] & (document_ids[b] != d)"),
    ("last_turn_of_row_only", "wrong", OP, "elif x == ASSISTANT:\n                is_open = True; mask[b] = False"),
    ("opens_at_end_too", "wrong", CL, "            if x == END_ID:\n                is_open = not is_open\n"),
    ("every_sentence", "wrong", OP, "elif x in (5, ASSISTANT):\n                is_open = True"),
    ("users_ends_too", "wrong", SET, "mask[b, t] = is_open or x == END_ID"),
    ("the_others_inverted", "wrong", E3, "    return ~mask"),
    ("inverted_but_padding", "wrong", E3, "    return ~mask & (document_ids >= 0)"),
    ("cut_off_not_supervised", "wrong", N, N + "; start = 0", ND, "            if d != document:\n                if is_open: mask[b, start:t] = False\n                is_open, document = False, d\n", OP, OP + "; start = t + 1"),
    ("cut_off_at_row_end_lost", "wrong", E3, "    for b in range(len(mask)):\n        ends = (input_ids[b] == END_ID).nonzero()\n        last = int(ends[-1]) + 1 if len(ends) else 0\n        tail = document_ids[b, last:].unique()\n        if len(tail) == 1: mask[b, last:] = False\n    return mask"),
    ("cut_off_marks_last_token_only", "wrong", ND, "            if d != document:\n                if is_open and t > 1: mask[b, t - 2] = False\n                is_open, document = False, d\n"),
    ("cut_off_forgets_last_token", "wrong", ND, "            if d != document:\n                if is_open: mask[b, t - 1] = False\n                is_open, document = False, d\n"),
    ("row_end_forgets_last_token", "wrong", E3, "    mask[:, -1] = False\n    return mask"),
    ("first_column_true", "wrong", E3, "    mask[:, 0] = True\n    return mask"),
    ("header_at_end_marks_itself", "wrong", SET, "mask[b, t] = is_open or (x == ASSISTANT and t == input_ids.shape[1] - 1)"),
    ("header_at_end_of_document_marks_itself", "wrong", E3, "    nxt = torch.cat([document_ids[:, 1:], document_ids[:, -1:] * 0 - 2], 1)\n    return mask | ((input_ids == ASSISTANT) & (nxt != document_ids) & (document_ids >= 0))"),
    ("header_at_end_opens_next", "wrong", ND, "            if d != document:\n                is_open, document = is_open and int(input_ids[b, t - 1]) == ASSISTANT, d\n"),
    ("shifted_left", "wrong", E3, "    return torch.cat([mask[:, 1:], mask[:, :1] & False], 1)"),
    ("shifted_right", "wrong", E3, "    return torch.cat([mask[:, :1] & False, mask[:, :-1]], 1)"),
    ("rolled_left", "wrong", E3, "    return mask.roll(-1, 1)"),
    ("int_mask", "wrong", E3, "    return mask.long()"),
    ("float_mask", "wrong", E3, "    return mask.float()"),
    ("uint8_mask", "wrong", "dtype=torch.bool", "dtype=torch.uint8"),
    ("list_mask", "wrong", E3, "    return mask.tolist()"),
    ("flat_mask", "wrong", E3, "    return mask.flatten()"),
    ("squeezed", "wrong", E3, "    return mask.squeeze()"),
    ("transposed", "wrong", E3, "    return mask.T"),
    ("masked_ids", "wrong", E3, "    return torch.where(mask, input_ids, -100)"),
    ("padding_set_to_end", "wrong", "    mask =", "    input_ids[document_ids < 0] = END_ID\n    mask ="),
    ("padding_document_changed", "wrong", "    mask =", "    document_ids[document_ids < 0] = 10 ** 6\n    mask =", PD, "            if d == 10 ** 6:\n                break\n"),
    ("documents_changed", "wrong", E3, "    document_ids[~mask] = -1\n    return mask"),
    ("mask_kept", "wrong", "def assistant", "MASKS = {}\ndef assistant", "mask = torch.zeros_like(input_ids, dtype=torch.bool)", "mask = MASKS.setdefault(input_ids.shape, torch.zeros_like(input_ids, dtype=torch.bool))", SET, "mask[b, t] |= is_open"),
    ("at_most_64", "wrong", "range(input_ids.shape[1])", "range(min(64, input_ids.shape[1]))"),
    ("end_from_earlier_document_needed", "wrong", CL, "            if x == END_ID and t + 1 < input_ids.shape[1] and int(input_ids[b, t + 1]) in (5, END_ID):\n                is_open = False\n"),
    ("nested_headers", "wrong", N, N + "; depth = 0", ND, "            if d != document:\n                is_open, document, depth = False, d, 0\n", CL, "            if x == END_ID:\n                depth = max(depth - 1, 0); is_open = depth > 0\n", OP, "elif x == ASSISTANT:\n                depth += 1; is_open = True"),
    ("sentence_without_user_needed", "wrong", OP, "elif x == ASSISTANT and t and int(input_ids[b, t - 1]) == END_ID:\n                is_open = True"),
    ("header_at_position_0_lost", "wrong", OP, "elif x == ASSISTANT and t:\n                is_open = True"),
])
add("1.3", "cummax_of_events", "right", V3)
fam("1.3", V3, [
    ("events_by_index", "right", "input_ids.gather(1, where)", "input_ids[torch.arange(B)[:, None], where]"),
    ("wraps_to_last", "wrong", "where = before.clamp(min=0)", "where = before % T", " & there", ""),
    ("first_token_is_the_event", "wrong", " & there", ""),
    ("inclusive", "wrong", "where = before.clamp(min=0)", "where = last.clamp(min=0)", "there = before", "there = last"),
    ("no_same_document", "wrong", " & same", ""),
    ("padding_same_document", "wrong", " & (document_ids >= 0)", ""),
    ("event_index_over_batch", "wrong", "input_ids.gather(1, where)", "input_ids[0][where]"),
    ("document_gathered_over_batch", "wrong", "document_ids.gather(1, where)", "document_ids[0][where]"),
    ("flat_over_rows", "wrong", "B, T = input_ids.shape\n", "shape = input_ids.shape; input_ids, document_ids = input_ids.reshape(1, -1), document_ids.reshape(1, -1); B, T = input_ids.shape\n", "(document_ids >= 0)", "(document_ids >= 0)).view(shape)", "return opened", "return (opened"),
    ("cummax_over_batch", "wrong", ".cummax(1)", ".cummax(0)"),
    ("any_document_up_to", "wrong", "== document_ids\n", "<= document_ids\n"),
    ("cumsum_difference", "wrong", "    opened =", "    a, e = (input_ids == ASSISTANT).cumsum(1), (input_ids == END_ID).cumsum(1)\n    return (((a - (input_ids == ASSISTANT).long()) - (e - (input_ids == END_ID).long())) > 0) & (document_ids >= 0)\n    opened ="),
    ("cumsum_inside_document", "wrong", "    opened =", "    a, e = (input_ids == ASSISTANT).long(), (input_ids == END_ID).long()\n    same = (document_ids[:, :, None] == document_ids[:, None, :]).tril(-1).long()\n    return ((same @ (a - e)[..., None]).squeeze(-1) > 0) & (document_ids >= 0)\n    opened ="),
    ("last_header_only", "wrong", "event = (input_ids == ASSISTANT) | (input_ids == END_ID)", "event = input_ids == ASSISTANT"),
    ("events_in_8_bits", "wrong", "torch.where(event, time, -1).cummax(1).values", "torch.where(event, time, -1).to(torch.int8).cummax(1).values.long()"),
])
add("1.3", "scan_over_time", "right", '''
import torch
ASSISTANT = 6
END_ID = 8
def assistant_mask(input_ids, document_ids):
    columns, is_open = [], torch.zeros(len(input_ids), dtype=torch.bool)
    previous = document_ids[:, 0]
    for ids, document in zip(input_ids.T, document_ids.T):
        is_open = is_open & (document == previous) & (document != -1)
        columns.append(is_open)
        is_open = (is_open | (ids == ASSISTANT)) & (ids != END_ID)
        previous = document
    return torch.stack(columns, dim=1)
''')
add("1.3", "all_pairs", "right", '''
import torch
ASSISTANT = 6
END_ID = 8
def assistant_mask(input_ids, document_ids):
    ends = (input_ids == END_ID).long()
    before = ends.cumsum(1) - ends
    same_stretch = before[:, :, None] == before[:, None, :]
    same_document = document_ids[:, :, None] == document_ids[:, None, :]
    headers = (input_ids == ASSISTANT)[:, None, :]
    return (same_stretch & same_document & headers).tril(-1).any(-1) & document_ids.ge(0)
''')
add("1.3", "regex", "right", '''
import re
import torch
ASSISTANT = 6
END_ID = 8
def assistant_mask(input_ids, document_ids):
    rows = []
    for ids, documents in zip(input_ids.tolist(), document_ids.tolist()):
        text, last = "", 0
        for x, d in zip(ids, documents):
            text += "|" if d != last else ""
            text += " " if d < 0 else "a" if x == ASSISTANT else "e" if x == END_ID else "."
            last = d
        text = re.sub("(a)([^e|]*e?)", lambda m: "a" + "1" * len(m[2]), text).replace("|", "")
        rows.append([c == "1" for c in text])
    return torch.tensor(rows)
''')
add("1.3", "slices", "right", '''
import torch
ASSISTANT = 6
END_ID = 8
def assistant_mask(input_ids, document_ids):
    mask = torch.full(input_ids.shape, False)
    for b, t in (input_ids == ASSISTANT).nonzero().tolist():
        if document_ids[b, t] == -1:
            continue
        stop = int((document_ids[b] == document_ids[b, t]).nonzero().max()) + 1
        ends = (input_ids[b, t:stop] == END_ID).nonzero()
        if ends.numel():
            stop = t + int(ends.min()) + 1
        mask[b, t + 1:stop] = True
    return mask
''')
add("1.3", "segments_by_number", "right", '''
import torch
ASSISTANT = 6
END_ID = 8
def assistant_mask(input_ids, document_ids):
    end = input_ids == END_ID
    first = torch.ones_like(end)
    first[:, 1:] = end[:, :-1] | (document_ids[:, 1:] != document_ids[:, :-1])
    segment = first.long().cumsum(1)
    segment = segment + torch.arange(len(segment))[:, None] * (segment.shape[1] + 1)
    header = (input_ids == ASSISTANT).long()
    so_far = header.cumsum(1) - header
    base = torch.zeros(int(segment.max()) + 1, dtype=torch.long)
    base[segment[first]] = so_far[first]
    return (so_far > base[segment]) & (document_ids >= 0)
''')
add("1.3", "doubling", "right", '''
import torch
ASSISTANT = 6
END_ID = 8
def assistant_mask(input_ids, document_ids):
    sets = (input_ids == ASSISTANT) & (document_ids >= 0)
    keeps = ~(input_ids == END_ID)
    shift = lambda x, n: torch.cat([torch.zeros_like(x[:, :n]), x[:, :-n]], 1)
    same = shift(document_ids + 1, 1) == document_ids + 1
    sets, keeps = shift(sets, 1) & same, shift(keeps, 1) & same
    step, T = 1, input_ids.shape[1]
    while step < T:
        sets, keeps = sets | (keeps & shift(sets, step)), keeps & shift(keeps, step)
        step *= 2
    return sets & (document_ids != -1)
''')
add("1.3", "numpy_accumulate", "right", '''
import numpy as np
import torch
ASSISTANT = 6
END_ID = 8
def assistant_mask(input_ids, document_ids):
    ids, documents = input_ids.numpy(), document_ids.numpy()
    t = np.arange(ids.shape[1])[None]
    start = np.ones_like(ids, dtype=bool)
    start[:, 1:] = documents[:, 1:] != documents[:, :-1]
    begin = np.maximum.accumulate(np.where(start, t, 0), 1)
    header = np.maximum.accumulate(np.where(ids == ASSISTANT, t, -1), 1)
    end = np.maximum.accumulate(np.where(ids == END_ID, t, -1), 1)
    header, end = [np.concatenate([np.full_like(x[:, :1], -1), x[:, :-1]], 1) for x in (header, end)]
    return torch.from_numpy((header >= begin) & (header > end) & (documents >= 0))
''')
