"""Wrong solutions of chapter 01's exercises: a merge, the chat template, and what is trained on."""

from tests.mutants import Mutant

PAIR = "pair = counts.most_common(1)[0][0]"
COUNTS = "counts = Counter(zip(ids, ids[1:]))"
WALK = """\
    while i < len(ids):
        if tuple(ids[i : i + 2]) == pair:
            merged.append(new_id)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
"""
INSERTED = 'messages = [{"role": "system", "content": DEFAULT_SYSTEM}, *messages]'
STRIPPED = '(message["content"] or "").strip()'
EMPTY = 'if role == "system" and not content:'
REASONING = 'if message.get("reasoning") is not None:'
THOUGHT = 'content = THINK + message["reasoning"] + END_THINK + content'
ADDED = "text += HEADERS[role] + content + END"
PROMPT = 'text += HEADERS["assistant"]'
MARK = "mask[row, t] = speaking"
RESET = "speaking, previous = False, document"
OPEN = "speaking = document >= 0"
CLOSE = """\
            elif token == END_ID:
                speaking = False
"""

MUTANTS = {
    "1.1": [
        Mutant("largest pair in a tie", PAIR, "pair = max((n, p) for p, n in counts.items())[1]"),
        Mutant("smallest pair in a tie", PAIR, "pair = min(counts, key=lambda p: (-counts[p], p))"),
        Mutant("last pair in a tie", PAIR, "pair = max(reversed(list(counts)), key=counts.get)"),
        Mutant("last occurrence in a tie", PAIR,
               "pair = max(counts, key=lambda p: (counts[p], max(i for i, q in enumerate(zip(ids, ids[1:])) "
               "if q == p)))"),
        Mutant("any pair of a set", COUNTS, "counts = Counter(sorted(zip(ids, ids[1:]), reverse=True))"),
        Mutant("rarest pair", PAIR, "pair = min(counts, key=counts.get)"),
        Mutant("largest pair", PAIR, "pair = max(counts)"),
        Mutant("first pair", PAIR, "pair = next(iter(counts))"),
        Mutant("pairs of every second position", COUNTS, "counts = Counter(zip(ids[::2], ids[1::2]))"),
        Mutant("runs counted once", COUNTS,
               "counts = Counter(p for i, p in enumerate(zip(ids, ids[1:])) if not i or p != (ids[i - 1], ids[i]))"),
        Mutant("runs counted without overlap", COUNTS, """counts, i = Counter(), 0
    while i < len(ids) - 1:
        counts[ids[i], ids[i + 1]] += 1
        i += 2 if ids[i : i + 1] * 3 == ids[i : i + 3] else 1"""),
        Mutant("last pair not counted", COUNTS, "counts = Counter(zip(ids[:-1], ids[1:-1]))"),
        Mutant("pairs in a circle", COUNTS, "counts = Counter(zip(ids, ids[1:] + ids[:1]))"),
        Mutant("pairs without order", COUNTS, "counts = Counter(tuple(sorted(p)) for p in zip(ids, ids[1:]))"),
        Mutant("pairs two apart", COUNTS, "counts = Counter(zip(ids, ids[2:]))"),
        Mutant("overlapping replacement", WALK, """\
    merged = [new_id if tuple(ids[j : j + 2]) == pair else t for j, t in enumerate(ids)
              if tuple(ids[j : j + 2]) == pair or tuple(ids[max(j - 1, 0) : j + 1]) != pair]
"""),
        Mutant("second id stays", "i += 2", "i += 1"),
        Mutant("from the right", WALK, """\
    i = len(ids)
    while i > 0:
        hit = tuple(ids[max(i - 2, 0) : i]) == pair
        merged.insert(0, new_id if hit else ids[i - 1])
        i -= 2 if hit else 1
"""),
        Mutant("only the first occurrence", "if tuple(ids[i : i + 2]) == pair:",
               "if tuple(ids[i : i + 2]) == pair and new_id not in merged:"),
        Mutant("last id lost", "while i < len(ids):", "while i < len(ids) - 1:"),
        Mutant("new id not written", "merged.append(new_id)", "pass"),
        Mutant("pair twice", "merged.append(new_id)", "merged += [new_id, new_id]"),
        Mutant("in place", WALK, """\
    while i < len(ids) - 1:
        if tuple(ids[i : i + 2]) == pair:
            ids[i : i + 2] = [new_id]
        i += 1
    merged = ids
"""),
        Mutant("the list itself where it is short", "return list(ids), None", "return ids, None"),
        Mutant("short lists raise", "if not counts:", "if False:"),
        Mutant("empty list only", "if not counts:", "if not ids:"),
        Mutant("short lists give an empty one", "return list(ids), None", "return [], None"),
        Mutant("short lists give an empty pair", "return list(ids), None", "return list(ids), ()"),
        Mutant("lists of two are short", "if not counts:", "if len(ids) <= 2:"),
        Mutant("merges only what occurs twice", "if not counts:", "if not counts or max(counts.values()) < 2:"),
        Mutant("results exchanged", "return merged, pair", "return pair, merged"),
        Mutant("pair left out", "return merged, pair", "return merged"),
        Mutant("pair turned", "return merged, pair", "return merged, pair[::-1]"),
        Mutant("pair with its count", "return merged, pair", "return merged, (pair, counts[pair])"),
        Mutant("count instead of the pair", "return merged, pair", "return merged, counts[pair]"),
        Mutant("a tensor", "return merged, pair", "return torch.tensor(merged), pair"),
        Mutant("id 0 is no id", COUNTS, "counts = Counter(p for p in zip(ids, ids[1:]) if all(p))"),
        Mutant("compared by identity", "if tuple(ids[i : i + 2]) == pair:",
               "if i + 1 < len(ids) and ids[i] is pair[0] and ids[i + 1] is pair[1]:"),
        Mutant("replaced in a text", WALK, """\
    text = " ".join(map(str, ids)).replace(f"{pair[0]} {pair[1]}", str(new_id))
    merged = [int(number) for number in text.split()]
"""),
        Mutant("new id fixed", "merged.append(new_id)", "merged.append(256)"),
        Mutant("merged until nothing occurs twice", "return merged, pair",
               "return (merge_step(merged, new_id + 1)[0] if max(Counter(zip(merged, merged[1:])).values(), default=0) "
               "> 1 else merged), pair"),
        Mutant("the pair spelled as text", "return merged, pair", 'return merged, f"{pair[0]} {pair[1]}"'),
    ],
    "1.2": [
        Mutant("no default system", INSERTED, "pass"),
        Mutant("default for None too", 'if messages[0]["role"] != "system":', 'if not messages[0]["content"]:'),
        Mutant("default replaces the first message", "*messages]", "*messages[1:]]"),
        Mutant("inserted in place", INSERTED, 'messages.insert(0, {"role": "system", "content": DEFAULT_SYSTEM})'),
        Mutant("content stripped in place", "role, content =",
               'message["content"] = (message["content"] or "").strip()\n'
               "        role, content ="),
        Mutant("reasoning removed from the message", 'message.get("reasoning") is not None:',
               'message.get("reasoning") is not None and (message := {**message}) and not message.update('
               'content=messages[-1].setdefault("seen", 1)):'),
        Mutant("not stripped", STRIPPED, '(message["content"] or "")'),
        Mutant("stripped on the left only", STRIPPED, '(message["content"] or "").lstrip()'),
        Mutant("stripped on the right only", STRIPPED, '(message["content"] or "").rstrip()'),
        Mutant("only spaces stripped", STRIPPED, '(message["content"] or "").strip(" ")'),
        Mutant("white space inside collapsed", STRIPPED, '" ".join((message["content"] or "").split())'),
        Mutant("only users stripped", STRIPPED,
               '(message["content"] or "").strip() if message["role"] == "user" else message["content"] or ""'),
        Mutant("None as a word", STRIPPED, 'str(message["content"]).strip()'),
        Mutant("empty system written", EMPTY, "if False:"),
        Mutant("white-space system written", EMPTY, 'if role == "system" and not message["content"]:'),
        Mutant("only None leaves the system out", EMPTY, 'if role == "system" and message["content"] is None:'),
        Mutant("every empty message left out", EMPTY, "if not content:"),
        Mutant("every system message left out", EMPTY, 'if role == "system":'),
        Mutant("empty reasoning left out", REASONING, 'if message.get("reasoning"):'),
        Mutant("None reasoning written", REASONING, 'if "reasoning" in message and not message.update('
                                                    'reasoning=message["reasoning"] or ""):'),
        Mutant("think in every turn", REASONING,
               'if role == "assistant" and not message.setdefault("reasoning", "") * 0:'),
        Mutant("no thinking", REASONING, "if False:"),
        Mutant("thinking in the last message only", REASONING,
               'if message.get("reasoning") is not None and message is messages[-1]:'),
        Mutant("thinking in the last turn only", REASONING,
               'if message.get("reasoning") is not None and message is [m for m in messages if '
               'm["role"] == "assistant"][-1]:'),
        Mutant("thinking in the first turn only", REASONING,
               'if message.get("reasoning") is not None and "assistant" not in [m["role"] for m in '
               'messages[: messages.index(message)]]:'),
        Mutant("reasoning stripped", 'message["reasoning"] +', 'message["reasoning"].strip() +'),
        Mutant("reasoning without marks", THOUGHT, 'content = message["reasoning"] + content'),
        Mutant("end of thinking missing", "+ END_THINK + content", "+ content"),
        Mutant("thinking after the content", THOUGHT, 'content = content + THINK + message["reasoning"] + END_THINK'),
        Mutant("content lost after thinking", THOUGHT, 'content = THINK + message["reasoning"] + END_THINK'),
        Mutant("thinking as a sentence", THOUGHT,
               'text += HEADERS[role] + THINK + message["reasoning"] + END_THINK + END'),
        Mutant("no BEGIN", "text = BEGIN", 'text = ""'),
        Mutant("BEGIN before each", ADDED, "text += BEGIN * (text != BEGIN) + HEADERS[role] + content + END"),
        Mutant("no END", "+ content + END\n", "+ content\n"),
        Mutant("END without line break", "+ content + END\n", "+ content + END.strip()\n"),
        Mutant("END twice for the assistant", ADDED, ADDED + ' + END * (role == "assistant")'),
        Mutant("no header", ADDED, "text += content + END"),
        Mutant("user's header for all", "HEADERS[role]", 'HEADERS["user"]'),
        Mutant("system as user", "HEADERS[role]", 'HEADERS[role if role != "system" else "user"]'),
        Mutant("last sentence open", ADDED, "text += HEADERS[role] + content + END * (message is not messages[-1])"),
        Mutant("no open header", "if add_generation_prompt:", "if False:"),
        Mutant("always an open header", "if add_generation_prompt:", "if True:"),
        Mutant("open header after a user only", "if add_generation_prompt:",
               'if add_generation_prompt or messages[-1]["role"] == "user":'),
        Mutant("user's header at the end", PROMPT, 'text += HEADERS["user"]'),
        Mutant("THINK at the end", PROMPT, 'text += HEADERS["assistant"] + THINK'),
        Mutant("open header closed", PROMPT, 'text += HEADERS["assistant"] + END'),
        Mutant("header stripped", PROMPT, 'text += HEADERS["assistant"].strip()'),
        Mutant("text stripped", "    return text\n", "    return text.strip()\n"),
        Mutant("a list of pieces", "    return text\n", "    return [text]\n"),
        Mutant("None", "    return text\n", "    text\n"),
        Mutant("messages reversed", "for message in messages:", "for message in messages[::-1]:"),
        Mutant("two messages only", "for message in messages:", "for message in messages[:3]:"),
        Mutant("neighbours of one role joined", ADDED,
               "text = text.removesuffix(END) + content + END if role == \"user\" and text.endswith(END) and "
               "HEADERS[\"user\"] in text and HEADERS[\"assistant\"] not in text else text + HEADERS[role] + "
               "content + END"),
        Mutant("markers in contents removed", STRIPPED, '(message["content"] or "").replace(THINK, "").strip()'),
        Mutant("content and reasoning stripped together", ADDED, "text += HEADERS[role] + content.strip() + END"),
        Mutant("default only before a user",
               'if messages[0]["role"] != "system":', 'if messages[0]["role"] == "user":'),
        Mutant("default for conversations only", 'if messages[0]["role"] != "system":',
               'if messages[0]["role"] != "system" and len(messages) > 1:'),
        Mutant("lines stripped", STRIPPED,
               '"\\n".join(line.strip() for line in (message["content"] or "").strip().split("\\n"))'),
        Mutant("line ends made alike", STRIPPED, '"\\n".join((message["content"] or "").strip().splitlines())'),
        Mutant("the same message only once", "for message in messages:",
               "for message in [m for i, m in enumerate(messages) if m not in messages[:i]]:"),
        Mutant("ASCII only", "    return text\n", '    return text.encode("ascii", "ignore").decode()\n'),
        Mutant("content as a format", ADDED, "text += HEADERS[role] + (content + END).format()"),
        Mutant("kept between calls", "    return text\n",
               "    return render.__dict__.setdefault(str(len(messages)), text)\n"),
    ],
    "1.3": [
        Mutant("header trained on", MARK, "mask[row, t] = speaking or token == ASSISTANT and document >= 0"),
        Mutant("end not trained on", MARK, "mask[row, t] = speaking and token != END_ID"),
        Mutant("header for end", MARK, "mask[row, t] = (speaking or token == ASSISTANT) and token != END_ID"),
        Mutant("every end", MARK, "mask[row, t] = speaking or token == END_ID"),
        Mutant("only ends and header", MARK, "mask[row, t] = speaking and token == END_ID"),
        Mutant("no reset between conversations", RESET, "speaking, previous = speaking and document >= 0, document"),
        Mutant("no reset at padding", RESET, "speaking, previous = speaking and document < 0, document"),
        Mutant("no reset at all", RESET, "previous = document"),
        Mutant("rows run on", "    for row in range(len(input_ids)):\n        speaking, previous = False, None",
               "    speaking = False\n    for row in range(len(input_ids)):\n        previous = "
               "document_ids[row, 0].item()"),
        Mutant("first row only", "for row in range(len(input_ids)):", "for row in range(1):"),
        Mutant("never closes", CLOSE, ""),
        Mutant("closes at a user's header only", "token == END_ID", "token == 5"),
        Mutant("closes at END or the end of thinking", "elif token == END_ID:", "elif token in (END_ID, 10):"),
        Mutant("thinking left out", MARK, "mask[row, t] = speaking and 10 not in input_ids[row, t:].tolist()"),
        Mutant("thinking tags left out", MARK, "mask[row, t] = speaking and token not in (9, 10)"),
        Mutant("only thinking", "if token == ASSISTANT:", "if token == 9:"),
        Mutant("control tokens left out", MARK, "mask[row, t] = speaking and token > 10"),
        Mutant("any control token ends the turn", "token == END_ID", "token < 15"),
        Mutant("padding told by its id", MARK, "mask[row, t] = speaking and token != 0"),
        Mutant("last token of the row lost", "    return mask", "    mask[:, -1] = False\n    return mask"),
        Mutant("opened by the user", "if token == ASSISTANT:", "if token == 5:"),
        Mutant("opened by every header", "if token == ASSISTANT:", "if token in (3, 5, ASSISTANT):"),
        Mutant("one early", "    return mask", "    return mask.roll(-1, 1)"),
        Mutant("one late", "    return mask", "    return mask.roll(1, 1)"),
        Mutant("first turn only", OPEN,
               "speaking = document >= 0 and not mask[row][document_ids[row] == document].any()"),
        Mutant("last turn only", OPEN, "speaking = document >= 0\n                "
                                       "mask[row][document_ids[row] == document] = False\n                "
                                       "mask[row] &= document_ids[row] != document"),
        Mutant("unfinished turns left out", OPEN,
               "speaking = document >= 0 and END_ID in input_ids[row][document_ids[row] == document].tolist()[t - "
               "document_ids[row].tolist().index(document):]"),
        Mutant("unfinished turns left out, whatever the document", OPEN,
               "speaking = END_ID in input_ids[row, t:].tolist()"),
        Mutant("any header ends the turn", "token == END_ID", "token in (END_ID, 1, 3, 4, 5, 7)"),
        Mutant("small ids are left out", MARK, "mask[row, t] = speaking and token >= 6"),
        Mutant("padding may begin to speak", OPEN, "speaking = True"),
        Mutant("rows of at most 128 tokens", MARK, "mask[row, t] = speaking and t < 128"),
        Mutant("integers", "    return mask", "    return mask.int()"),
        Mutant("a list", "    return mask", "    return mask.tolist()"),
        Mutant("one row", "    return mask", "    return mask[0]"),
        Mutant("inverted", "    return mask", "    return ~mask"),
        Mutant("everything", "    return mask", "    return document_ids >= 0"),
        Mutant("nothing", MARK, "mask[row, t] = False"),
        Mutant("float", "dtype=torch.bool", "dtype=torch.float32"),
        Mutant("ids changed in place", "    return mask", "    input_ids[document_ids < 0] = -100\n    return mask"),
        Mutant("documents from 1 on reset nothing", RESET, "speaking, previous = speaking and document > 0, document"),
        Mutant("reset at a beginning of document only", "if document != previous:", "if token == 1 or document < 0:"),
        Mutant("the first token after a reset is lost", RESET, RESET + "\n                continue"),
        Mutant("first token after the header is lost", MARK,
               "mask[row, t] = speaking and t > 0 and input_ids[row, t - 1].item() != ASSISTANT"),
        Mutant("END needs something before it", MARK,
               "mask[row, t] = speaking and not (token == END_ID and input_ids[row, t - 1].item() == ASSISTANT)"),
    ],
}
