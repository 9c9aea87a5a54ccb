"""Wrong solutions of chapter 14's exercises: a parser, an agent's loop, a reward, and who kept to the policy."""

from tests.mutants import Mutant

SPOKEN = 'spoken = re.sub(r"<think>.*?(?:</think>|\\Z)", "", text, flags=re.DOTALL)'
BLOCK = 'block = re.search(r"<tool_calls>(.*?)(?:</tool_calls>|\\Z)", spoken, flags=re.DOTALL)'
LINES = 'for line in block[1].split("\\n") if block else []:'
READ = """\
        try:
            call = json.loads(line)
        except (ValueError, RecursionError):
            continue
"""
TYPED = "if isinstance(name, str) and isinstance(arguments, dict):"
FOUND = 'calls.append({"name": name, "arguments": arguments})'
UNKNOWN = """return f"error: there is no tool {call['name']}\""""
CHECKED = """\
        if problem := check_arguments(tool.parameters, call["arguments"]):
            return f"error: {problem}"
"""
TRIED = """\
        try:
            return tool.function(**call["arguments"])
        except Exception as error:
            return f"error: {error}"
"""
RESULTS = 'results = [{"name": call["name"], "text": run(call)} for call in calls]'
TOOL_TURN = 'messages.append({"role": "tool", "content": results})'
ERROR = """\
        if e["finish"] == "error":
            rewards.append(None)
            continue
"""
REACHED = 'reached = e["finish"] == "answer" and e["state"] == e["goal"]'
BROKEN = """\
        if e["violations"]:
            reward = -0.5
"""
FORMAT = """\
        if e["calls"]:
            reward -= 0.2 * e["bad_calls"] / e["calls"]
"""
AGREED = 'agreed = asked if event["text"].lstrip().lower().startswith("yes") else ""'
ASKED = """\
            asked = ""
        elif"""
USED = """\
            agreed = ""
    return found"""
WRITE = 'elif event["record"] is not None:'

MUTANTS = {
    "14.1": [
        Mutant("thinking counts", SPOKEN, "spoken = text"),
        Mutant("open thinking counts", SPOKEN, 'spoken = re.sub(r"<think>.*?</think>", "", text, flags=re.DOTALL)'),
        Mutant("greedy thinking", SPOKEN, 'spoken = re.sub(r"<think>.*(?:</think>|\\Z)", "", text, flags=re.DOTALL)'),
        Mutant("dot without lines in thinking", SPOKEN, 'spoken = re.sub(r"<think>.*?(?:</think>|\\Z)", "", text)'),
        Mutant(
            "first thinking only",
            SPOKEN,
            'spoken = re.sub(r"<think>.*?(?:</think>|\\Z)", "", text, count=1, flags=re.DOTALL)',
        ),
        Mutant("after the last </think>", SPOKEN, 'spoken = text.split("</think>")[-1]'),
        Mutant("after the first </think>", SPOKEN, 'spoken = text.split("</think>", 1)[-1]'),
        Mutant(
            "thinking at the beginning only",
            SPOKEN,
            'spoken = re.sub(r"\\A<think>.*?(?:</think>|\\Z)", "", text, flags=re.DOTALL)',
        ),
        Mutant(
            "closed blocks only", BLOCK, 'block = re.search(r"<tool_calls>(.*?)</tool_calls>", spoken, flags=re.DOTALL)'
        ),
        Mutant(
            "greedy block",
            BLOCK,
            'block = re.search(r"<tool_calls>(.*)(?:</tool_calls>|\\Z)", spoken, flags=re.DOTALL)',
        ),
        Mutant(
            "last block",
            BLOCK,
            'block = (list(re.finditer(r"<tool_calls>(.*?)(?:</tool_calls>|\\Z)", spoken, '
            "flags=re.DOTALL)) or [None])[-1]",
        ),
        Mutant(
            "all blocks",
            LINES,
            'for line in "\\n".join(re.findall(r"<tool_calls>(.*?)(?:</tool_calls>|\\Z)", spoken, '
            'flags=re.DOTALL)).split("\\n"):',
        ),
        Mutant(
            "line break demanded",
            BLOCK,
            'block = re.search(r"<tool_calls>\\n(.*?)(?:</tool_calls>|\\Z)", spoken, flags=re.DOTALL)',
        ),
        Mutant("splitlines", LINES, "for line in block[1].splitlines() if block else []:"),
        Mutant("no block raises", LINES, 'for line in block[1].split("\\n"):'),
        Mutant("one line only", LINES, 'for line in block[1].strip().split("\\n")[:1] if block else []:'),
        Mutant("last line lost", LINES, 'for line in block[1].split("\\n")[:-1] if block else []:'),
        Mutant(
            "the first bad line ends it", "            continue\n        if not", "            break\n        if not"
        ),
        Mutant(
            "one bad line spoils all", "            continue\n        if not", "            return []\n        if not"
        ),
        Mutant(
            "bad lines raise",
            READ,
            "        if not line.strip():\n            continue\n        call = json.loads(line)\n",
        ),
        Mutant("recursion raises", "(ValueError, RecursionError)", "ValueError"),
        Mutant("python literals", "json.loads(line)", "__import__('ast').literal_eval(line)"),
        Mutant("lists raise", "if not isinstance(call, dict):", "if call is None:"),
        Mutant("any name", TYPED, "if name is not None and isinstance(arguments, dict):"),
        Mutant("any arguments", TYPED, "if isinstance(name, str) and arguments is not None:"),
        Mutant(
            "arguments None", TYPED, "if isinstance(name, str) and (arguments is None or isinstance(arguments, dict)):"
        ),
        Mutant(
            "no arguments demanded", TYPED, "if isinstance(name, str) and arguments and isinstance(arguments, dict):"
        ),
        Mutant("missing arguments are empty", 'call.get("arguments")', 'call.get("arguments", {})'),
        Mutant("other keys stay", FOUND, "calls.append(call)"),
        Mutant(
            "equal calls joined",
            FOUND,
            'if {"name": name, "arguments": arguments} not in calls:\n'
            '                calls.append({"name": name, "arguments": arguments})',
        ),
        Mutant("arguments as text", FOUND, 'calls.append({"name": name, "arguments": json.dumps(arguments)})'),
        Mutant("pairs", FOUND, "calls.append((name, arguments))"),
        Mutant("backwards", "return calls", "return calls[::-1]"),
        Mutant("the first call", "return calls", "return calls[0] if calls else []"),
        Mutant("None without calls", "return calls", "return calls or None"),
        Mutant("a whole block as one JSON", LINES, "for line in [block[1]] if block else []:"),
    ],
    "14.2": [
        Mutant(
            "unknown tools raise",
            """\
        if call["name"] not in tools:
            return f"error: there is no tool {call['name']}"
""",
            "",
        ),
        Mutant("unknown tool without its name", UNKNOWN, 'return "error: there is no tool"'),
        Mutant("unknown tool in other words", UNKNOWN, """return f"there is no tool {call['name']}\""""),
        Mutant("unknown tool gives nothing", UNKNOWN, 'return ""'),
        Mutant("arguments unchecked", CHECKED, ""),
        Mutant("problem without error", 'return f"error: {problem}"', "return problem"),
        Mutant(
            "checked, and called all the same",
            CHECKED,
            """\
        problem = check_arguments(tool.parameters, call["arguments"])
        if problem:
            try:
                tool.function(**call["arguments"])
            except Exception:
                pass
            return f"error: {problem}"
""",
        ),
        Mutant("exceptions get out", TRIED, '        return tool.function(**call["arguments"])\n'),
        Mutant("only ValueError", "except Exception as error:", "except ValueError as error:"),
        Mutant("repr of the exception", 'return f"error: {error}"', 'return f"error: {error!r}"'),
        Mutant(
            "class of the exception", 'return f"error: {error}"', 'return f"error: {type(error).__name__}: {error}"'
        ),
        Mutant("arguments as one dict", 'tool.function(**call["arguments"])', 'tool.function(call["arguments"])'),
        Mutant(
            "arguments by position", 'tool.function(**call["arguments"])', 'tool.function(*call["arguments"].values())'
        ),
        Mutant(
            "called twice",
            'return tool.function(**call["arguments"])',
            'tool.function(**call["arguments"])\n            return tool.function(**call["arguments"])',
        ),
        Mutant(
            "results cached",
            "messages = list(messages)",
            """cached, inner = {}, run

    def run(call):
        return cached.setdefault(str(call), inner(call) if str(call) not in cached else None)

    messages = list(messages)""",
        ),
        Mutant("in place", "messages = list(messages)", "pass"),
        Mutant("the new messages only", "messages = list(messages)", "given, messages = messages, []"),
        Mutant("respond sees the first messages only", "turn = respond(messages)", "turn = respond(messages[:1])"),
        Mutant("respond sees the last message only", "turn = respond(messages)", "turn = respond(messages[-1:])"),
        Mutant("endless", "for _ in range(max_steps):", "while True:"),
        Mutant("one step more", "range(max_steps)", "range(max_steps + 1)"),
        Mutant("one step less", "range(max_steps)", "range(max_steps - 1)"),
        Mutant("always 40", "range(max_steps)", "range(40)"),
        Mutant("counts messages", "for _ in range(max_steps):", "while len(messages) < max_steps:"),
        Mutant(
            "answer not appended",
            """\
        messages.append(turn)
        calls = turn.get("tool_calls")
        if not calls:
            return messages, "answer"
""",
            """\
        calls = turn.get("tool_calls")
        if not calls:
            return messages, "answer"
        messages.append(turn)
""",
        ),
        Mutant(
            "turns not appended",
            "        messages.append(turn)\n",
            "        if not turn.get('tool_calls'):\n            messages.append(turn)\n",
        ),
        Mutant(
            "turns rewritten",
            "messages.append(turn)",
            'messages.append({"role": "assistant", "content": turn["content"]})',
        ),
        Mutant("key demanded", 'turn.get("tool_calls")', 'turn["tool_calls"]'),
        Mutant("an empty list is calls", "if not calls:", "if calls is None:"),
        Mutant("text is an answer", "if not calls:", 'if turn["content"]:'),
        Mutant(
            "first call only", RESULTS, 'results = [{"name": call["name"], "text": run(call)} for call in calls[:1]]'
        ),
        Mutant(
            "last call only", RESULTS, 'results = [{"name": call["name"], "text": run(call)} for call in calls[-1:]]'
        ),
        Mutant(
            "results backwards",
            RESULTS,
            'results = [{"name": call["name"], "text": run(call)} for call in calls][::-1]',
        ),
        Mutant("no names", RESULTS, 'results = [{"text": run(call)} for call in calls]'),
        Mutant("texts only", RESULTS, "results = [run(call) for call in calls]"),
        Mutant(
            "one message each", TOOL_TURN, 'messages += [{"role": "tool", "content": [result]} for result in results]'
        ),
        Mutant(
            "joined to a text",
            TOOL_TURN,
            'messages.append({"role": "tool", "content": "\\n".join(r["text"] for r in results)})',
        ),
        Mutant("as the user", TOOL_TURN, 'messages.append({"role": "user", "content": results})'),
        Mutant(
            "errors left out",
            TOOL_TURN,
            'messages.append({"role": "tool", "content": [r for r in results if not r["text"].startswith("error")]})',
        ),
        Mutant(
            "empty results left out",
            TOOL_TURN,
            'messages.append({"role": "tool", "content": [r for r in results if r["text"]]})',
        ),
        Mutant(
            "last calls not run",
            RESULTS,
            """if _ == max_steps - 1:
            break
        """
            + RESULTS,
        ),
        Mutant("no finish", 'return messages, "steps"', "return messages"),
        Mutant("finish as a bool", 'return messages, "steps"', "return messages, False"),
        Mutant("always answer", 'return messages, "steps"', 'return messages, "answer"'),
        Mutant("raises at the end", 'return messages, "steps"', 'raise RuntimeError("too many steps")'),
        Mutant("exchanged", 'return messages, "answer"', 'return "answer", messages'),
        Mutant(
            "stops at an error",
            TOOL_TURN,
            TOOL_TURN
            + """
        if any(r["text"].startswith("error") for r in results):
            return messages, "error\"""",
        ),
    ],
    "14.3": [
        Mutant("errors are 0", "rewards.append(None)", "rewards.append(0.0)"),
        Mutant("errors left out", "            rewards.append(None)\n", ""),
        Mutant("errors count", ERROR, ""),
        Mutant("errors are NaN", "rewards.append(None)", 'rewards.append(float("nan"))'),
        Mutant("every cut is None", 'if e["finish"] == "error":', 'if e["finish"] != "answer":'),
        Mutant("the end does not matter", REACHED, 'reached = e["state"] == e["goal"]'),
        Mutant("the state does not matter", REACHED, 'reached = e["finish"] == "answer"'),
        Mutant("only steps is cut", REACHED, 'reached = e["finish"] != "steps" and e["state"] == e["goal"]'),
        Mutant("or", REACHED, 'reached = e["finish"] == "answer" or e["state"] == e["goal"]'),
        Mutant(
            "goal within state",
            REACHED,
            'reached = e["finish"] == "answer" and all(e["state"].get(k) == v for k, v in e["goal"].items())',
        ),
        Mutant("keys only", REACHED, 'reached = e["finish"] == "answer" and e["state"].keys() == e["goal"].keys()'),
        Mutant(
            "an empty goal is none",
            REACHED,
            'reached = e["finish"] == "answer" and bool(e["goal"]) and e["state"] == e["goal"]',
        ),
        Mutant("violations ignored", BROKEN, ""),
        Mutant("violations give 0", "reward = -0.5", "reward = 0.0"),
        Mutant("violations taken off", "reward = -0.5", "reward -= 0.5"),
        Mutant("each violation", "reward = -0.5", 'reward = -0.5 * len(e["violations"])'),
        Mutant("exactly one", 'if e["violations"]:', 'if len(e["violations"]) == 1:'),
        Mutant("more than one", 'if e["violations"]:', 'if len(e["violations"]) > 1:'),
        Mutant("only where reached", 'if e["violations"]:', 'if e["violations"] and reached:'),
        Mutant("only where not reached", 'if e["violations"]:', 'if e["violations"] and not reached:'),
        Mutant("no format", FORMAT, ""),
        Mutant("format added", "reward -= 0.2", "reward += 0.2"),
        Mutant("format by number", '0.2 * e["bad_calls"] / e["calls"]', '0.2 * e["bad_calls"]'),
        Mutant("format by good calls", '0.2 * e["bad_calls"]', '0.2 * (e["calls"] - e["bad_calls"])'),
        Mutant("all or nothing", '0.2 * e["bad_calls"] / e["calls"]', '0.2 * (e["bad_calls"] > 0)'),
        Mutant("whole division", '0.2 * e["bad_calls"] / e["calls"]', '0.2 * (e["bad_calls"] // e["calls"])'),
        Mutant("weight 0.1", "0.2 *", "0.1 *"),
        Mutant("factor", "reward -= 0.2", "reward *= 1 - 0.2"),
        Mutant("division by 0", '        if e["calls"]:\n', "        if True:\n"),
        Mutant("plus one", '/ e["calls"]', '/ (e["calls"] + 1)'),
        Mutant("format only where reached", 'if e["calls"]:', 'if e["calls"] and reached:'),
        Mutant("format not where broken", 'if e["calls"]:', 'if e["calls"] and not e["violations"]:'),
        Mutant("never negative", "rewards.append(reward)", "rewards.append(max(reward, 0.0))"),
        Mutant("not below -0.5", "rewards.append(reward)", "rewards.append(max(reward, -0.5))"),
        Mutant("mean", "return rewards", "return sum(r for r in rewards if r is not None) / max(len(rewards), 1)"),
        Mutant("one number", "return rewards", "return rewards[0]"),
        Mutant("rounded", "rewards.append(reward)", "rewards.append(round(reward, 1))"),
        Mutant("texts", "rewards.append(reward)", "rewards.append(str(reward))"),
        Mutant("the first only", "return rewards", "return rewards[:1]"),
        Mutant(
            "in place",
            "reached = e",
            'e["violations"] = list(e.pop("violations"))\n        e["calls"] += 0\n'
            '        e["seen"] = True\n        reached = e',
        ),
    ],
    "14.4": [
        Mutant("no find needed", '"look": number not in seen', '"look": False'),
        Mutant("any find", '"look": number not in seen', '"look": not seen'),
        Mutant(
            "failed finds count",
            'found, seen, asked, agreed = [], set(), "", ""',
            'found, asked, agreed = [], "", ""\n    seen = {e["arguments"]["number"] for e in trace '
            'if e["who"] == "tool" and e["name"] == "find" and e["record"] is None}',
        ),
        Mutant(
            "later finds count",
            'found, seen, asked, agreed = [], set(), "", ""',
            'found, asked, agreed = [], "", ""\n    seen = {e["arguments"]["number"] for e in trace '
            'if e["who"] == "tool" and e["name"] == "find" and e["record"] is not None}',
        ),
        Mutant(
            "a look is good once",
            "found += [(index, rule) for rule in broken if broken[rule]]",
            "found += [(index, rule) for rule in broken if broken[rule]]\n            seen.discard(number)",
        ),
        Mutant("the last find only", "seen.add(number)", "seen = {number}"),
        Mutant(
            "a write is a look",
            '            agreed = ""\n    return',
            '            agreed = ""\n            seen.add(number)\n    return',
        ),
        Mutant("anybody's", '"owner": record["owner"] != customer', '"owner": False'),
        Mutant("owner turned", 'record["owner"] != customer', 'record["owner"] == customer'),
        Mutant(
            "shipped may be cancelled",
            '"shipped": record["kind"] == "order" and',
            '"shipped": event["name"] == "change" and record["kind"] == "order" and',
        ),
        Mutant(
            "shipped may be changed",
            '"shipped": record["kind"] == "order" and',
            '"shipped": event["name"] == "cancel" and record["kind"] == "order" and',
        ),
        Mutant("shipped never", 'record["status"] == "shipped"', "False"),
        Mutant("cancelled too", 'record["status"] == "shipped"', 'record["status"] != "open"'),
        Mutant("basic cannot be cancelled", '"basic": event["name"] == "change" and', '"basic":'),
        Mutant(
            "basic may be changed", '"basic": event["name"] == "change" and', '"basic": event["name"] == "cancel" and'
        ),
        Mutant("flexible", 'record.get("fare") == "basic"', 'record.get("fare") == "flexible"'),
        Mutant("fare demanded", 'record.get("fare")', 'record["fare"]'),
        Mutant("orders are basic", 'record.get("fare") == "basic"', 'record.get("fare", "basic") == "basic"'),
        Mutant("no yes needed", '"confirm": number not in agreed', '"confirm": False'),
        Mutant("any yes", '"confirm": number not in agreed', '"confirm": not agreed'),
        Mutant("a yes is good for ever", USED, "    return found"),
        Mutant(
            "a yes is good once per record", USED, '            agreed = agreed.replace(number, "")\n    return found'
        ),
        Mutant("a find uses it up", "seen.add(number)", 'seen.add(number)\n                agreed = ""'),
        Mutant(
            "failed calls use it up", WRITE, 'elif event["record"] is None:\n            agreed = ""\n        else:'
        ),
        Mutant("case matters", ".lower()", ""),
        Mutant("white space matters", ".lstrip()", ""),
        Mutant("yes anywhere", '.lstrip().lower().startswith("yes")', '.lower().count("yes")'),
        Mutant("exactly yes", '.lstrip().lower().startswith("yes")', '.strip().lower() == "yes"'),
        Mutant(
            "a no does not take it back",
            AGREED,
            'agreed = asked if event["text"].lstrip().lower().startswith("yes") else agreed',
        ),
        Mutant("the customer may go on", ASKED, "        elif"),
        Mutant("the customer asks", ASKED, '            asked = event["text"]\n        elif'),
        Mutant("every question counts", '            asked = event["text"]\n', '            asked += event["text"]\n'),
        Mutant(
            "the agent's words take it back",
            '            asked = event["text"]\n',
            '            asked, agreed = event["text"], ""\n',
        ),
        Mutant(
            "a call between takes the question back", WRITE, 'elif event["record"] is not None and not (asked := ""):'
        ),
        Mutant("failed writes count", WRITE, 'elif event["record"] is not None or event["name"] != "find":'),
        Mutant("from 1", "for index, event in enumerate(trace):", "for index, event in enumerate(trace, 1):"),
        Mutant(
            "index of the write",
            "for index, event in enumerate(trace):",
            'writes = [e for e in trace if e["who"] == "tool"]\n    for index, event in enumerate(trace):\n'
            "        index = next((i for i, e in enumerate(writes) if e is event), index)",
        ),
        Mutant("first rule only", "for rule in broken if broken[rule]]", "for rule in broken if broken[rule]][:1]"),
        Mutant(
            "first write only",
            '            agreed = ""\n    return',
            '            agreed = ""\n            break\n    return',
        ),
        Mutant("first violation only", "return found", "return found[:1]"),
        Mutant("rules alone", "[(index, rule) for rule", "[rule for rule"),
        Mutant("exchanged", "[(index, rule) for rule", "[(rule, index) for rule"),
        Mutant("sorted by rule", "return found", "return sorted(found, key=lambda pair: pair[1])"),
        Mutant(
            "rules backwards", "for rule in broken if broken[rule]]", "for rule in reversed(broken) if broken[rule]]"
        ),
        Mutant("a set", "return found", "return set(found)"),
        Mutant("a count", "return found", "return len(found)"),
        Mutant(
            "each rule once",
            "return found",
            "return [pair for i, pair in enumerate(found) if pair[1] not in [rule for _, rule in found[:i]]]",
        ),
        Mutant("in place", "return found", "trace.clear()\n    return found"),
    ],
}
