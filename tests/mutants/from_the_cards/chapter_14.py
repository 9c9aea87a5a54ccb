"""Chapter 14."""

from tests.mutants.from_the_cards import Cards

MUTANTS = Cards()
add, fam = MUTANTS.add, MUTANTS.family

# ------------------------------------------------------------ 14.1 parser
PARSE = r'''
import json
import re
def parse_calls(text):
    text = re.sub(r"<think>.*?(</think>|\Z)", "", text, flags=re.S)
    start = text.find("<tool_calls>")
    if start < 0:
        return []
    block = text[start + len("<tool_calls>"):]
    end = block.find("</tool_calls>")
    if end >= 0:
        block = block[:end]
    calls = []
    for line in block.split("\n"):
        try:
            call = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(call, dict):
            continue
        name, arguments = call.get("name"), call.get("arguments")
        if isinstance(name, str) and isinstance(arguments, dict):
            calls.append({"name": name, "arguments": arguments})
    return calls
'''
THINK = r'''text = re.sub(r"<think>.*?(</think>|\Z)", "", text, flags=re.S)'''
START = '''    start = text.find("<tool_calls>")
    if start < 0:
        return []
    block = text[start + len("<tool_calls>"):]
'''
END = '''    end = block.find("</tool_calls>")
    if end >= 0:
        block = block[:end]
'''
OK = "if isinstance(name, str) and isinstance(arguments, dict):"
PUSH = 'calls.append({"name": name, "arguments": arguments})'
EXC = "except (ValueError, RecursionError):\n            continue"
NODICT = "        if not isinstance(call, dict):\n            continue\n"
fam("14.1", PARSE, [
 ("base", "right"),
 ("except_exception", "right", "except (ValueError, RecursionError)", "except Exception"),
 ("partition_all", "right", START + END, '    block = text.partition("<tool_calls>")[2].partition("</tool_calls>")[0]\n'),
 ("regex_block", "right", START + END, '    found = re.search(r"<tool_calls>(.*?)(</tool_calls>|$)", text, re.S)\n    if not found:\n        return []\n    block = found[1]\n'),
 ("split_think", "right", THINK, 'first, *rest = text.split("<think>")\n    kept, inside = first, bool(rest)\n    for i, piece in enumerate(rest):\n        if "</think>" in piece:\n            kept += piece.split("</think>", 1)[1]\n            while False: pass\n        else:\n            rest[i] = ""\n    text = kept'),
 ("find_think", "right", THINK, 'out, at = [], 0\n    while (begin := text.find("<think>", at)) >= 0:\n        out.append(text[at:begin])\n        close = text.find("</think>", begin)\n        at = len(text) if close < 0 else close + len("</think>")\n    text = "".join(out) + text[at:]'),
 ("type_is", "right", NODICT, "        if type(call) is not dict:\n            continue\n", OK, "if type(name) is str and type(arguments) is dict:"),
 ("blank_skipped_first", "right", "        try:\n", "        if not line.strip():\n            continue\n        try:\n"),
 ("match_case", "right", NODICT, "", '        name, arguments = call.get("name"), call.get("arguments")\n        ' + OK + "\n            " + PUSH, '        match call:\n            case {"name": str(name), "arguments": dict(arguments)}:\n                ' + PUSH),
 ("no_think", "wrong", THINK, "pass"),
 ("open_think_kept", "wrong", r"(</think>|\Z)", "</think>"),
 ("greedy_think", "wrong", r"<think>.*?(</think>|\Z)", r"<think>.*(</think>|\Z)"),
 ("greedy_think_closed", "wrong", r"<think>.*?(</think>|\Z)", r"<think>.*</think>|<think>.*"),
 ("dot_no_newline", "wrong", ", flags=re.S", ""),
 ("first_think_only", "wrong", '"", text, flags=re.S', '"", text, count=1, flags=re.S'),
 ("last_close_think", "wrong", THINK, 'text = text.split("</think>")[-1]'),
 ("cut_at_think", "wrong", THINK, 'text = text.split("</think>")[-1].split("<think>")[0]'),
 ("think_at_start_only", "wrong", r'"<think>.*?(</think>|\Z)"', r'"^\\s*<think>.*?(</think>|\\Z)"'.replace("\\\\", "\\")),
 ("think_after_block", "wrong", THINK, "pass", END, END + "    " + THINK.replace("text", "block") + "\n"),
 ("stray_close_drops", "wrong", THINK, THINK + '\n    text = text.rpartition("</think>")[2]'),
 ("splitlines", "wrong", 'block.split("\\n")', "block.splitlines()"),
 ("split_white", "wrong", 'block.split("\\n")', "block.split()"),
 ("split_crlf", "wrong", 'block.split("\\n")', 're.split(r"[\\n\\r\\v\\f]|\\\\n", block)'.replace("\\\\\\\\", "\\\\")),
 ("recursion_out", "wrong", "except (ValueError, RecursionError)", "except ValueError"),
 ("value_out", "wrong", "except (ValueError, RecursionError)", "except (TypeError, RecursionError)"),
 ("break_at_bad", "wrong", EXC, EXC.replace("continue", "break")),
 ("bad_empties", "wrong", EXC, EXC.replace("continue", "return []")),
 ("stop_at_empty", "wrong", "        try:\n", "        if calls and not line.strip():\n            break\n        try:\n"),
 ("no_dict_check", "wrong", NODICT, ""),
 ("in_check", "wrong", NODICT, '        if "name" not in call or "arguments" not in call:\n            continue\n'),
 ("key_error", "wrong", 'call.get("name"), call.get("arguments")', 'call["name"], call["arguments"]'),
 ("arguments_any", "wrong", OK, 'if isinstance(name, str) and "arguments" in call:'),
 ("arguments_default", "wrong", 'call.get("arguments")', 'call.get("arguments", {})'),
 ("arguments_none_ok", "wrong", 'call.get("arguments")', '(call.get("arguments") or {})'),
 ("arguments_string", "wrong", 'call.get("arguments")', 'call.get("arguments")\n        if isinstance(arguments, str):\n            try:\n                arguments = json.loads(arguments)\n            except (ValueError, RecursionError):\n                continue'),
 ("name_any", "wrong", OK, "if name is not None and isinstance(arguments, dict):"),
 ("truthy", "wrong", OK, "if name and arguments and " + OK[3:]),
 ("empty_name_skipped", "wrong", OK, "if name and " + OK[3:]),
 ("extra_keys", "wrong", PUSH, "calls.append(call)"),
 ("extra_keys_skipped", "wrong", OK, "if len(call) == 2 and " + OK[3:]),
 ("unique", "wrong", PUSH, 'call = {"name": name, "arguments": arguments}\n            if call not in calls:\n                calls.append(call)'),
 ("by_name", "wrong", "    return calls", '    return list({c["name"]: c for c in calls}.values())'),
 ("sorted", "wrong", "    return calls", '    return sorted(calls, key=lambda c: c["name"])'),
 ("first_call_only", "wrong", "    return calls", "    return calls[:1]"),
 ("none_for_none", "wrong", "    return calls", "    return calls or None"),
 ("open_block_empty", "wrong", END, END + "    else:\n        return []\n"),
 ("open_block_last_line", "wrong", END, END + '    else:\n        block = block.rpartition("\\n")[0]\n'),
 ("end_minus_one", "wrong", "    if end >= 0:\n        block = block[:end]\n", "    block = block[:end]\n"),
 ("end_of_whole", "wrong", END, '    end = text.find("</tool_calls>")\n    block = text[start + len("<tool_calls>"):end] if end >= 0 else block\n'),
 ("last_end", "wrong", 'block.find("</tool_calls>")', 'block.rfind("</tool_calls>")'),
 ("last_block", "wrong", 'text.find("<tool_calls>")', 'text.rfind("<tool_calls>")'),
 ("all_blocks", "wrong", START + END, '    block = "\\n".join(m[1] for m in re.finditer(r"<tool_calls>(.*?)(</tool_calls>|\\Z)", text, re.S))\n'),
 ("no_block_index", "wrong", START, '    block = text.split("<tool_calls>")[1]\n'),
 ("no_block_all_lines", "wrong", "    if start < 0:\n        return []\n    block = text[start + len(\"<tool_calls>\"):]\n", "    block = text[start + len(\"<tool_calls>\"):] if start >= 0 else text\n"),
 ("tag_newline", "wrong", 'text.find("<tool_calls>")', 'text.find("<tool_calls>\\n")'),
 ("end_needs_newline", "wrong", 'block.find("</tool_calls>")', 'block.find("\\n</tool_calls>")'),
 ("first_line_dropped", "wrong", 'block.split("\\n")', 'block.split("\\n")[1:]'),
 ("last_line_dropped", "wrong", 'block.split("\\n")', 'block.split("\\n")[:-1]'),
 ("whole_block_json", "wrong", 'block.split("\\n")', "[block]"),
 ("finds_json_in_line", "wrong", "call = json.loads(line)", 'call = json.loads(line[line.index("{"):line.rindex("}") + 1])'),
 ("raw_decode", "wrong", "call = json.loads(line)", "call = json.JSONDecoder().raw_decode(line)[0]"),
 ("starts_with_brace", "wrong", "        try:\n", '        if not line.startswith("{"):\n            continue\n        try:\n'),
 ("ends_with_brace", "wrong", "        try:\n", '        if line[-1:] != "}":\n            continue\n        try:\n'),
 ("eval", "wrong", "call = json.loads(line)", "call = eval(line)", "except (ValueError, RecursionError)", "except Exception"),
 ("single_quotes", "wrong", "json.loads(line)", "json.loads(line.replace(\"'\", '\"'))"),
 ("lists_flattened", "wrong", NODICT, "        if isinstance(call, list):\n            call = call[0] if call else None\n" + NODICT),
 ("lower", "wrong", START, "    text = text.lower()\n" + START),
 ("kept_list", "wrong", "def parse_calls(text):", "def parse_calls(text, calls=[]):", "    calls = []\n", ""),
 ("kept_global", "wrong", "def parse_calls", "calls = []\ndef parse_calls", "    calls = []\n", ""),
])
# "split_think" above is only right if a piece without </think> is dropped while thinking is open: see below for two more.
add("14.1", "recursion", "right", r'''
import json
def outside(text):
    before, tag, after = text.partition("<think>")
    return before + (outside(after.partition("</think>")[2]) if tag else "")
def one(line):
    try:
        call = json.loads(line)
        return [{"name": call["name"], "arguments": call["arguments"]}] if type(call) is dict and type(call["name"]) is str and type(call["arguments"]) is dict else []
    except (KeyError, ValueError, RecursionError):
        return []
def parse_calls(text):
    _, tag, block = outside(text).partition("<tool_calls>")
    return sum((one(line) for line in block.partition("</tool_calls>")[0].split("\n")), [])
''')
add("14.1", "tokens", "right", r'''
import json
import re
def parse_calls(text):
    kept, thinking = [], False
    for piece in re.split(r"(</?think>)", text):
        if thinking:
            thinking = piece != "</think>"
        elif piece == "<think>":
            thinking = True
        else:
            kept.append(piece)
    parts = "".join(kept).split("<tool_calls>", 1)
    calls = []
    if len(parts) == 2:
        for line in parts[1].split("</tool_calls>", 1)[0].split("\n"):
            try:
                c = json.loads(line)
                assert isinstance(c["name"], str) and isinstance(c["arguments"], dict)
                calls.append(dict(name=c["name"], arguments=dict(c["arguments"])))
            except (ValueError, RecursionError, KeyError, TypeError, AssertionError):
                pass
    return calls
''')

# ------------------------------------------------------------ 14.2 tool loop
LOOP = '''
from minim1.tasks.tools import Tool, check_arguments
def tool_loop(respond, tools, messages, max_steps=40):
    messages = list(messages)
    for step in range(max_steps):
        reply = respond(messages)
        messages.append(reply)
        calls = reply.get("tool_calls")
        if not calls:
            return messages, "answer"
        results = []
        for call in calls:
            name, arguments = call["name"], call["arguments"]
            if name not in tools:
                text = f"error: there is no tool {name}"
            else:
                tool = tools[name]
                problem = check_arguments(tool.parameters, arguments)
                if problem is not None:
                    text = f"error: {problem}"
                else:
                    try:
                        text = tool.function(**arguments)
                    except Exception as error:
                        text = f"error: {error}"
            results.append({"name": name, "text": text})
        messages.append({"role": "tool", "content": results})
    return messages, "steps"
'''
COPY = "messages = list(messages)"
PUT = 'results.append({"name": name, "text": text})'
MSG = 'messages.append({"role": "tool", "content": results})'
RUN = "text = tool.function(**arguments)"
TRY = '''                    try:
                        text = tool.function(**arguments)
                    except Exception as error:
                        text = f"error: {error}"
'''
CHECK = "problem = check_arguments(tool.parameters, arguments)"
RANGE = "for step in range(max_steps):"
HAS = 'if not calls:\n            return messages, "answer"'
UNKNOWN = 'text = f"error: there is no tool {name}"'
fam("14.2", LOOP, [
 ("base", "right"),
 ("star_copy", "right", COPY, "messages = [*messages]"),
 ("slice_copy", "right", COPY, "messages = messages[:]"),
 ("deep_copy", "right", "from minim1", "import copy\nfrom minim1", COPY, "messages = copy.deepcopy(messages)"),
 ("respond_gets_copy", "right", "respond(messages)", "respond(list(messages))"),
 ("new_lists", "right", "messages.append(reply)", "messages = messages + [reply]", MSG, 'messages = messages + [{"role": "tool", "content": results}]'),
 ("str_error", "right", 'f"error: {error}"', '"error: " + str(error)'),
 ("get_tool", "right", "if name not in tools:", "tool = tools.get(name)\n            if tool is None:"),
 ("content_first", "right", MSG, 'messages += [dict(role="tool", content=list(results))]'),
 ("no_copy", "wrong", COPY, "pass"),
 ("append_to_given", "wrong", COPY, "given, messages = messages, list(messages)", "messages.append(reply)", "messages.append(reply); given.append(reply)"),
 ("reply_rebuilt", "wrong", "messages.append(reply)", 'messages.append({"role": "assistant", "content": reply["content"]})'),
 ("reply_always_calls", "wrong", 'calls = reply.get("tool_calls")', 'calls = reply.setdefault("tool_calls", [])'),
 ("reply_popped", "wrong", 'calls = reply.get("tool_calls")', 'calls = reply.pop("tool_calls", None)'),
 ("answer_not_appended", "wrong", "messages.append(reply)\n        calls", "calls", HAS, HAS + "\n        messages.append(reply)"),
 ("message_each", "wrong", PUT, 'messages.append({"role": "tool", "content": [{"name": name, "text": text}]})', MSG, "pass"),
 ("flat_message_each", "wrong", PUT, 'messages.append({"role": "tool", "name": name, "content": text})', MSG, "pass"),
 ("joined_text", "wrong", MSG, 'messages.append({"role": "tool", "content": "\\n".join(r["text"] for r in results)})'),
 ("role_user", "wrong", '"role": "tool"', '"role": "user"'),
 ("content_key", "wrong", '"text": text}', '"content": text}'),
 ("first_call_only", "wrong", "for call in calls:", "for call in calls[:1]:"),
 ("last_call_only", "wrong", "for call in calls:", "for call in calls[-1:]:"),
 ("reversed", "wrong", "for call in calls:", "for call in reversed(calls):"),
 ("results_sorted", "wrong", '"content": results', '"content": sorted(results, key=lambda r: r["name"])'),
 ("by_name", "wrong", '"content": results', '"content": list({r["name"]: r for r in results}.values())'),
 ("errors_last", "wrong", '"content": results', '"content": sorted(results, key=lambda r: r["text"].startswith("error"))'),
 ("break_at_error", "wrong", PUT, PUT + '\n            if text.startswith("error"):\n                break'),
 ("unknown_skipped", "wrong", UNKNOWN, "continue"),
 ("unknown_stops", "wrong", UNKNOWN, 'return messages, "error"'),
 ("unknown_raises", "wrong", "if name not in tools:", "if False:"),
 ("unknown_quoted", "wrong", "no tool {name}", "no tool {name!r}"),
 ("unknown_no_name", "wrong", "there is no tool {name}", "there is no such tool"),
 ("unknown_dot", "wrong", "no tool {name}", "no tool {name}."),
 ("key_error_unknown", "wrong", "except Exception as error:", 'except KeyError:\n                        text = f"error: there is no tool {name}"\n                    except Exception as error:'),
 ("not_checked", "wrong", CHECK, "problem = None"),
 ("check_swapped", "wrong", CHECK, "problem = check_arguments(arguments, tool.parameters)"),
 ("checked_after_run", "wrong", CHECK, "try:\n                    tool.function(**arguments)\n                except Exception:\n                    pass\n                " + CHECK),
 ("check_no_prefix", "wrong", 'f"error: {problem}"', "problem"),
 ("check_fixed_text", "wrong", 'f"error: {problem}"', '"error: wrong arguments"'),
 ("all_checked_first", "wrong", RANGE, RANGE + "\n        bad = False", "for call in calls:", 'bad = any(c["name"] in tools and check_arguments(tools[c["name"]].parameters, c["arguments"]) for c in calls)\n        for call in calls:', "if problem is not None:", "if bad:"),
 ("not_caught", "wrong", TRY, "                    text = tool.function(**arguments)\n"),
 ("value_error_only", "wrong", "except Exception as", "except (ValueError, TypeError) as"),
 ("runtime_error_only", "wrong", "except Exception as", "except (ValueError, KeyError, RuntimeError) as"),
 ("repr_error", "wrong", "{error}", "{error!r}"),
 ("type_in_error", "wrong", "{error}", "{type(error).__name__}: {error}"),
 ("args0", "wrong", "{error}", "{error.args[0]}"),
 ("error_no_prefix", "wrong", 'f"error: {error}"', "str(error)"),
 ("error_capital", "wrong", 'f"error: {error}"', 'f"Error: {error}"'),
 ("error_ends", "wrong", 'text = f"error: {error}"', 'return messages, "error"'),
 ("no_stars", "wrong", "(**arguments)", "(arguments)"),
 ("positional", "wrong", "(**arguments)", "(*arguments.values())"),
 ("empty_text", "wrong", RUN, RUN + ' or "ok"'),
 ("stripped", "wrong", RUN, RUN + ".strip()"),
 ("cut_text", "wrong", RUN, RUN + "[:500]"),
 ("cut_text_2000", "wrong", RUN, RUN + "[:2000]"),
 ("memo", "wrong", COPY, COPY + "\n    known = {}", RUN, "text = known[repr(call)] if repr(call) in known else known.setdefault(repr(call), tool.function(**arguments))"),
 ("memo_global", "wrong", "def tool_loop", "KNOWN = {}\ndef tool_loop", RUN, "key = name + repr(arguments)\n                        text = KNOWN[key] = KNOWN[key] if key in KNOWN else tool.function(**arguments)"),
 ("results_kept", "wrong", COPY, COPY + "\n    results = []", "        results = []\n        for", "        for"),
 ("last_step_not_run", "wrong", "        results = []\n", '        if step == max_steps - 1:\n            return messages, "steps"\n        results = []\n'),
 ("one_step_less", "wrong", RANGE, "for step in range(max_steps - 1):"),
 ("one_step_more", "wrong", RANGE, "for step in range(max_steps + 1):"),
 ("no_limit", "wrong", RANGE, "while True:"),
 ("always_40", "wrong", RANGE, "for step in range(40):"),
 ("calls_are_steps", "wrong", COPY, COPY + "\n    used = 0", "results = []\n", 'results = []\n        used += len(calls)\n        if used > max_steps:\n            return messages, "steps"\n'),
 ("one_more_answer", "wrong", '    return messages, "steps"', '    messages.append(respond(messages))\n    return messages, "steps"'),
 ("answer_at_limit", "wrong", 'messages, "steps"', 'messages, "answer"'),
 ("steps_at_limit_answer", "wrong", HAS, 'if not calls:\n            return messages, "answer" if step < max_steps - 1 else "steps"'),
 ("steps_counts_messages", "wrong", RANGE, "while sum(m['role'] == 'assistant' for m in messages) < max_steps:"),
 ("default_10", "wrong", "max_steps=40", "max_steps=10"),
 ("key_in", "wrong", "if not calls:", 'if "tool_calls" not in reply:'),
 ("key_needed", "wrong", 'reply.get("tool_calls")', 'reply["tool_calls"]'),
 ("content_is_answer", "wrong", "if not calls:", 'if reply["content"] or not calls:'),
 ("finish_first", "wrong", 'return messages, "answer"', 'return "answer", messages'),
 ("only_new", "wrong", COPY, "given, messages = len(messages), list(messages)", 'return messages, "answer"', 'return messages[given:], "answer"', 'return messages, "steps"', 'return messages[given:], "steps"'),
 ("only_list", "wrong", 'return messages, "answer"', "return messages"),
 ("last_message_only", "wrong", "respond(messages)", "respond(messages[-1:])"),
 ("given_to_respond", "wrong", COPY, "given, messages = messages, list(messages)", "respond(messages)", "respond(given)"),
 ("pops_arguments", "wrong", 'call["arguments"]', 'call.pop("arguments")'),
 ("written_into_last", "wrong", MSG, 'messages.append({**messages.pop(), "content": results})'),
 ("first_message_marked", "wrong", COPY, COPY + "\n    messages[0].setdefault('tools', list(tools))"),
])
add("14.2", "recursive", "right", '''
from minim1.tasks.tools import Tool, check_arguments
def run_one(tools, call):
    name = call["name"]
    try:
        if name not in tools:
            raise ValueError("there is no tool " + name)
        problem = check_arguments(tools[name].parameters, call["arguments"])
        if problem:
            raise ValueError(problem)
        return {"name": name, "text": tools[name].function(**call["arguments"])}
    except Exception as e:
        return {"name": name, "text": "error: " + str(e)}
def tool_loop(respond, tools, messages, max_steps=40):
    reply = respond(list(messages))
    messages = [*messages, reply]
    if not reply.get("tool_calls", []):
        return messages, "answer"
    messages.append({"role": "tool", "content": [run_one(tools, c) for c in reply["tool_calls"]]})
    return tool_loop(respond, tools, messages, max_steps - 1) if max_steps > 1 else (messages, "steps")
''')
add("14.2", "while", "right", '''
from minim1.tasks.tools import check_arguments
def tool_loop(respond, tools, messages, max_steps=40):
    history, finish, left = [m for m in messages], "steps", max_steps
    while left > 0 and finish == "steps":
        left -= 1
        history.append(respond(history))
        if "tool_calls" in history[-1] and len(history[-1]["tool_calls"]) > 0:
            texts = []
            for c in history[-1]["tool_calls"]:
                if c["name"] in tools:
                    text = check_arguments(tools[c["name"]].parameters, c["arguments"])
                    if text is None:
                        try:
                            text = tools[c["name"]].function(**c["arguments"])
                        except Exception as e:
                            text = "error: %s" % (e,)
                    else:
                        text = "error: " + text
                else:
                    text = "error: there is no tool " + c["name"]
                texts.append(text)
            history.append({"role": "tool", "content": [{"name": c["name"], "text": t} for c, t in zip(history[-1]["tool_calls"], texts)]})
        else:
            finish = "answer"
    return history, finish
''')

# ------------------------------------------------------------ 14.3 reward
REWARD = '''
def tool_reward(prompts, completions, *, episode, **columns):
    rewards = []
    for e in episode:
        if e["finish"] == "error":
            rewards.append(None)
            continue
        if e["violations"]:
            reward = -0.5
        elif e["finish"] == "answer" and e["state"] == e["goal"]:
            reward = 1.0
        else:
            reward = 0.0
        if e["calls"]:
            reward -= 0.2 * e["bad_calls"] / e["calls"]
        rewards.append(reward)
    return rewards
'''
ERR = '''        if e["finish"] == "error":
            rewards.append(None)
            continue
'''
GOAL = 'elif e["finish"] == "answer" and e["state"] == e["goal"]:'
FORMAT = '''        if e["calls"]:
            reward -= 0.2 * e["bad_calls"] / e["calls"]
'''
PEN = 'reward -= 0.2 * e["bad_calls"] / e["calls"]'
fam("14.3", REWARD, [
 ("base", "right"),
 ("len", "right", 'if e["violations"]:', 'if len(e["violations"]) > 0:'),
 ("max_one", "right", FORMAT, '        reward -= 0.2 * (e["bad_calls"] / max(e["calls"], 1))\n'),
 ("get", "right", 'if e["calls"]:', 'if e.get("calls", 0) > 0:'),
 ("nested", "right", GOAL, 'elif e["state"] == e["goal"] and not e["finish"] in ("steps", "length"):'),
 ("good_share", "right", PEN, 'reward += 0.2 * (1 - e["bad_calls"] / e["calls"]) - 0.2'),
 ("error_zero", "wrong", "rewards.append(None)", "rewards.append(0.0)"),
 ("error_left_out", "wrong", "rewards.append(None)", "pass"),
 ("error_nan", "wrong", "rewards.append(None)", "rewards.append(float('nan'))"),
 ("error_scored", "wrong", ERR, ""),
 ("violations_before_error", "wrong", 'if e["finish"] == "error":', 'if e["finish"] == "error" and not e["violations"]:'),
 ("cut_none", "wrong", 'if e["finish"] == "error":', 'if e["finish"] != "answer":'),
 ("length_none", "wrong", 'if e["finish"] == "error":', 'if e["finish"] in ("error", "length"):'),
 ("each_violation", "wrong", "reward = -0.5", 'reward = -0.5 * len(e["violations"])'),
 ("violation_minus_1", "wrong", "reward = -0.5", "reward = -1.0"),
 ("violation_plus", "wrong", "reward = -0.5", "reward = 0.5"),
 ("violation_zero", "wrong", "reward = -0.5", "reward = 0.0"),
 ("two_violations", "wrong", 'if e["violations"]:', 'if len(e["violations"]) > 1:'),
 ("violations_none_check", "wrong", 'if e["violations"]:', 'if e["violations"] is not None:'),
 ("goal_before_violations", "wrong", 'if e["violations"]:', 'if e["violations"] and not (e["finish"] == "answer" and e["state"] == e["goal"]):'),
 ("violation_added", "wrong", "        if e[\"calls\"]:", "        if e['violations'] and e['finish'] == 'answer' and e['state'] == e['goal']:\n            reward = 0.5\n        if e[\"calls\"]:"),
 ("violation_only_answer", "wrong", 'if e["violations"]:', 'if e["violations"] and e["finish"] == "answer":'),
 ("finish_ignored", "wrong", GOAL, 'elif e["state"] == e["goal"]:'),
 ("state_ignored", "wrong", GOAL, 'elif e["finish"] == "answer":'),
 ("or", "wrong", '"answer" and e["state"]', '"answer" or e["state"]'),
 ("length_ok", "wrong", 'e["finish"] == "answer" and', 'e["finish"] != "steps" and'),
 ("steps_ok", "wrong", 'e["finish"] == "answer" and', 'e["finish"] != "length" and'),
 ("is", "wrong", 'e["state"] == e["goal"]', 'e["state"] is e["goal"]'),
 ("repr", "wrong", 'e["state"] == e["goal"]', 'str(e["state"]) == str(e["goal"])'),
 ("dumps", "wrong", "def ", "import json\ndef ", 'e["state"] == e["goal"]', 'json.dumps(e["state"], sort_keys=True, default=str) == json.dumps(e["goal"], sort_keys=True, default=str)'),
 ("keys", "wrong", 'e["state"] == e["goal"]', 'e["state"].keys() == e["goal"].keys()'),
 ("goal_subset", "wrong", 'e["state"] == e["goal"]', 'all(e["state"].get(k) == v for k, v in e["goal"].items())'),
 ("state_subset", "wrong", 'e["state"] == e["goal"]', 'all(k in e["goal"] and e["goal"][k] == v for k, v in e["state"].items())'),
 ("empty_goal", "wrong", 'e["state"] == e["goal"]', 'e["goal"] and e["state"] == e["goal"]'),
 ("partial_credit", "wrong", "            reward = 0.0\n", '            reward = 0.0\n            if e["finish"] == "answer":\n                reward = sum(e["state"].get(k) == v for k, v in e["goal"].items()) / max(len(e["goal"]), 1)\n'),
 ("cut_minus", "wrong", "reward = 0.0", 'reward = 0.0 if e["finish"] == "answer" else -0.1'),
 ("zero_division", "wrong", '        if e["calls"]:\n            reward', "        reward"),
 ("format_off", "wrong", FORMAT, ""),
 ("format_added", "wrong", "reward -= ", "reward += "),
 ("format_0.1", "wrong", "0.2 *", "0.1 *"),
 ("format_unscaled", "wrong", "0.2 * ", ""),
 ("format_count", "wrong", PEN, 'reward -= 0.2 * e["bad_calls"]'),
 ("format_any", "wrong", PEN, 'reward -= 0.2 * (e["bad_calls"] > 0)'),
 ("format_int", "wrong", PEN, 'reward -= 0.2 * (e["bad_calls"] // e["calls"])'),
 ("format_good_share", "wrong", PEN, 'reward -= 0.2 * (1 - e["bad_calls"] / e["calls"])'),
 ("format_factor", "wrong", PEN, 'reward *= 1 - 0.2 * e["bad_calls"] / e["calls"]'),
 ("format_of_good_calls", "wrong", PEN, 'reward -= 0.2 * e["bad_calls"] / max(e["calls"] - e["bad_calls"], 1)'),
 ("format_calls_plus_1", "wrong", FORMAT, '        reward -= 0.2 * e["bad_calls"] / (e["calls"] + 1)\n'),
 ("format_only_success", "wrong", 'if e["calls"]:', 'if e["calls"] and reward > 0:'),
 ("format_not_violations", "wrong", 'if e["calls"]:', 'if e["calls"] and not e["violations"]:'),
 ("format_not_failures", "wrong", 'if e["calls"]:', 'if e["calls"] and reward != 0:'),
 ("no_calls_zero", "wrong", PEN, PEN + "\n        else:\n            reward = 0.0"),
 ("no_calls_penalised", "wrong", PEN, PEN + "\n        else:\n            reward -= 0.2"),
 ("clipped_at_0", "wrong", "rewards.append(reward)", "rewards.append(max(reward, 0.0))"),
 ("clipped_at_half", "wrong", "rewards.append(reward)", "rewards.append(max(reward, -0.5))"),
 ("rounded", "wrong", "rewards.append(reward)", "rewards.append(round(reward, 2))"),
 ("first_only", "wrong", "for e in episode:", "for e in episode[:1]:"),
 ("mean_shared", "wrong", "    return rewards", "    good = [r for r in rewards if r is not None]\n    return [None if r is None else sum(good) / len(good) for r in rewards]"),
 ("sorted", "wrong", "for e in episode:", 'for e in sorted(episode, key=lambda e: e["finish"] == "error"):'),
 ("pops", "wrong", 'e["bad_calls"] /', 'e.pop("bad_calls") /'),
 ("written", "wrong", "rewards.append(reward)", 'rewards.append(reward); e["reward"] = reward'),
 ("episode_emptied", "wrong", "for e in episode:", "episode.reverse()\n    while episode:\n        e = episode.pop()"),
 ("uses_prompts", "wrong", "for e in episode:", "for _, e in zip(prompts, episode):"),
 ("no_columns", "wrong", ", **columns", ""),
 ("kept", "wrong", "def ", "rewards = []\ndef ", "    rewards = []\n    for", "    for"),
])
add("14.3", "comprehension", "right", '''
def one(finish, state, goal, violations, calls, bad_calls, **more):
    if finish == "error":
        return None
    base = -0.5 if violations else float(finish == "answer" and state == goal)
    return base - (0.2 * bad_calls / calls if calls else 0.0)
def tool_reward(prompts, completions, *, episode, **columns):
    return [one(**e) for e in episode]
''')
add("14.3", "match", "right", '''
def tool_reward(prompts, completions, episode, **columns):
    def score(e):
        match e:
            case {"finish": "error"}:
                return None
            case {"violations": [_, *_]}:
                return -0.5
            case {"finish": "answer", "state": s, "goal": g} if not s != g:
                return 1.0
        return 0.0
    def share(e):
        try:
            return e["bad_calls"] / e["calls"]
        except ZeroDivisionError:
            return 0
    return [s if s is None else s - share(e) / 5 for e, s in zip(episode, map(score, episode))]
''')

# ------------------------------------------------------------ 14.4 violations
POLICY = '''
def violations(trace, customer):
    found, looked = [], set()
    last, asked, used = "", None, False
    said = None
    for i, e in enumerate(trace):
        if e["who"] == "customer":
            last, asked, used = e["text"], said, False
            said = e
        elif e["who"] == "agent":
            said = e
        elif e["record"] is not None:
            record = e["record"]
            number = record["number"]
            if e["name"] == "find":
                looked.add(number)
                continue
            if number not in looked:
                found.append((i, "look"))
            if record["owner"] != customer:
                found.append((i, "owner"))
            if record["kind"] == "order" and record["status"] == "shipped":
                found.append((i, "shipped"))
            if e["name"] == "change" and record.get("fare") == "basic":
                found.append((i, "basic"))
            yes = last.lstrip().lower().startswith("yes")
            about = asked is not None and asked["who"] == "agent" and number in asked["text"]
            if not (yes and about and not used):
                found.append((i, "confirm"))
            used = True
    return found
'''
YES = 'yes = last.lstrip().lower().startswith("yes")'
ABOUT = 'about = asked is not None and asked["who"] == "agent" and number in asked["text"]'
FIND = 'if e["name"] == "find":\n                looked.add(number)\n                continue\n'
CUST = 'last, asked, used = e["text"], said, False\n            said = e'
AGENT = 'elif e["who"] == "agent":\n            said = e'
SHIP = 'if record["kind"] == "order" and record["status"] == "shipped":'
BASIC = 'if e["name"] == "change" and record.get("fare") == "basic":'
CONF = "if not (yes and about and not used):"
REAL = 'elif e["record"] is not None:'
fam("14.4", POLICY, [
 ("base", "right"),
 ("regex_yes", "right", "def ", "import re\ndef ", YES, 'yes = re.match(r"\\s*yes", last, re.I) is not None'),
 ("strip_upper", "right", YES, 'yes = last.strip().upper()[:3] == "YES"'),
 ("number_of_arguments", "right", 'number = record["number"]', 'number = e["arguments"]["number"]'),
 ("not_booking", "right", SHIP, 'if record["kind"] != "booking" and record["status"] == "shipped":', BASIC, 'if record["kind"] == "booking" and e["name"] == "change" and record["fare"] == "basic":'),
 ("no_continue", "right", FIND, FIND.replace("looked.add(number)\n                continue", "looked = looked | {number}\n                continue")),
 ("failed_find_looks", "wrong", REAL, 'elif e["name"] == "find" and e["record"] is None:\n            looked.add(e["arguments"]["number"])\n        ' + REAL),
 ("any_find_looks", "wrong", "if number not in looked:", "if not looked:"),
 ("last_find_only", "wrong", "looked.add(number)", "looked = {number}"),
 ("look_later_ok", "wrong", "found, looked = [], set()", 'found, looked = [], {e["record"]["number"] for e in trace if e["who"] == "tool" and e["name"] == "find" and e["record"]}'),
 ("write_looks", "wrong", "            used = True", "            used = True\n            looked.add(number)"),
 ("look_used_up", "wrong", "            used = True", "            used = True\n            looked.discard(number)"),
 ("look_since_customer", "wrong", CUST, "looked = set()\n            " + CUST),
 ("look_owner_only", "wrong", "looked.add(number)", 'looked.update([number] if record["owner"] == customer else [])'),
 ("look_off", "wrong", "if number not in looked:", "if False:"),
 ("find_rules", "wrong", FIND, FIND.replace("continue", "")),
 ("find_owner", "wrong", "looked.add(number)\n", 'looked.add(number)\n                found += [(i, "owner")] if record["owner"] != customer else []\n'),
 ("failed_writes_held", "wrong", REAL, "elif True:", 'record = e["record"]', 'record = e["record"] or {"number": e["arguments"]["number"], "owner": customer, "kind": "", "status": ""}', "if e[\"name\"] == \"find\":\n                looked.add(number)", "if e[\"name\"] == \"find\":\n                looked.update([number] if e['record'] else [])"),
 ("failed_writes_use_yes", "wrong", REAL, 'elif e["record"] is None and e["name"] != "find":\n            used = True\n        ' + REAL),
 ("failed_calls_use_yes", "wrong", REAL, 'elif e["record"] is None:\n            used = True\n        ' + REAL),
 ("find_uses_yes", "wrong", "looked.add(number)", "looked.add(number); used = True"),
 ("owner_equal", "wrong", '["owner"] != customer', '["owner"] == customer'),
 ("owner_lower", "wrong", 'record["owner"] != customer', 'record["owner"].lower() != customer.lower()'),
 ("owner_in", "wrong", 'record["owner"] != customer', 'customer not in record["owner"]'),
 ("owner_off", "wrong", 'record["owner"] != customer', "False"),
 ("owner_cancel_only", "wrong", 'if record["owner"] != customer', 'if e["name"] == "change" and record["owner"] != customer'),
 ("shipped_bookings", "wrong", SHIP, 'if record["status"] == "shipped":'),
 ("shipped_cancelled", "wrong", 'record["status"] == "shipped":', 'record["status"] != "open":'),
 ("shipped_cancel_only", "wrong", SHIP, 'if e["name"] == "cancel" and ' + SHIP[3:]),
 ("shipped_change_only", "wrong", SHIP, 'if e["name"] == "change" and ' + SHIP[3:]),
 ("shipped_off", "wrong", SHIP, "if False:"),
 ("basic_cancel", "wrong", BASIC, 'if record.get("fare") == "basic":'),
 ("basic_cancel_only", "wrong", 'if e["name"] == "change" and record', 'if e["name"] == "cancel" and record'),
 ("basic_not_flexible", "wrong", 'record.get("fare") == "basic"', 'record.get("fare") != "flexible"'),
 ("basic_flexible", "wrong", '== "basic"', '== "flexible"'),
 ("basic_key_error", "wrong", BASIC, 'if e["name"] == "change" and record["fare"] == "basic":'),
 ("basic_all_bookings", "wrong", BASIC, 'if e["name"] == "change" and record["kind"] == "booking":'),
 ("basic_off", "wrong", BASIC, "if False:"),
 ("yes_case", "wrong", ".lower().", "."),
 ("yes_two_cases", "wrong", YES, 'yes = last.lstrip().startswith(("yes", "Yes"))'),
 ("yes_no_strip", "wrong", "last.lstrip()", "last"),
 ("yes_strip_spaces", "wrong", "last.lstrip()", 'last.lstrip(" ")'),
 ("yes_anywhere", "wrong", YES, 'yes = "yes" in last.lower()'),
 ("yes_equal", "wrong", YES, 'yes = last.strip().lower() == "yes"'),
 ("yes_word", "wrong", "def ", "import re\ndef ", YES, 'yes = re.match(r"\\s*yes\\b", last, re.I) is not None'),
 ("yes_y", "wrong", 'startswith("yes")', 'startswith("y")'),
 ("yes_first_word", "wrong", YES, 'yes = last.lower().split()[:1] == ["yes"]'),
 ("yes_multiline", "wrong", "def ", "import re\ndef ", YES, 'yes = re.search(r"^\\s*yes", last, re.I | re.M) is not None'),
 ("yes_not_needed", "wrong", YES, "yes = True"),
 ("earlier_yes", "wrong", CUST, 'if e["text"].lstrip().lower().startswith("yes"):\n                last, asked, used = e["text"], said, False\n            said = e'),
 ("yes_directly_before", "wrong", AGENT, AGENT + '\n            last = ""'),
 ("find_between_resets", "wrong", "looked.add(number)", 'looked.add(number); last = ""'),
 ("number_anywhere_before", "wrong", "    said = None\n", '    said = None\n    heard = ""\n', AGENT, AGENT + '\n            heard += e["text"]', ABOUT, "about = number in heard"),
 ("agent_last_before_yes", "wrong", CUST, 'last, asked, used = e["text"], said, False'),
 ("asked_after_yes", "wrong", AGENT, AGENT + "\n            asked = e"),
 ("customer_said_number", "wrong", 'asked["who"] == "agent" and ', ""),
 ("number_in_yes", "wrong", "number in asked[\"text\"]", "(number in asked[\"text\"] or number in last)"),
 ("number_in_yes_only", "wrong", ABOUT, "about = number in last"),
 ("number_not_needed", "wrong", ' and number in asked["text"]', ""),
 ("question_needed", "wrong", ' and number in asked["text"]', ' and number in asked["text"] and "?" in asked["text"]'),
 ("verb_needed", "wrong", ' and number in asked["text"]', ' and number in asked["text"] and e["name"] in asked["text"]'),
 ("number_as_word", "wrong", 'number in asked["text"]', 'number in asked["text"].split()'),
 ("number_lower", "wrong", 'number in asked["text"]', 'number.lower() in asked["text"].lower()'),
 ("asked_not_needed", "wrong", ABOUT, "about = True"),
 ("asked_none_raises", "wrong", "asked is not None and ", ""),
 ("asked_none_ok", "wrong", ABOUT, 'about = asked is None or asked["who"] == "agent" and number in asked["text"]'),
 ("event_before_yes", "wrong", "    for i, e in", "    last_event = None\n    for i, e in", CUST, CUST.replace("said, False", "trace[i - 1], False"), 'asked["who"] == "agent" and number in asked["text"]', 'asked["who"] == "agent" and number in asked.get("text", "")'),
 ("event_before_write", "wrong", YES, 'yes = i > 0 and trace[i - 1]["who"] == "customer" and trace[i - 1]["text"].lstrip().lower().startswith("yes")'),
 ("yes_for_many", "wrong", "            used = True\n", ""),
 ("yes_for_one_number", "wrong", "used = False\n    said".replace("used = False\n", "") if False else "            used = True", "            used = number", "and not used", "and used != number"),
 ("yes_for_each_number", "wrong", "            used = True", "            used = (used or set()) | {number}", "and not used", "and number not in (used or ())"),
 ("yes_for_same_number", "wrong", "            used = True", "            used = used or number", "and not used", "and used in (False, number)"),
 ("bad_write_keeps_yes", "wrong", 'found.append((i, "confirm"))\n            used = True', 'found.append((i, "confirm"))\n            else:\n                used = True'),
 ("violating_write_keeps_yes", "wrong", "            used = True", "            used = used or not any(j == i for j, _ in found)"),
 ("cancel_only_uses", "wrong", "            used = True", '            used = used or e["name"] == "cancel"'),
 ("yes_used_forever", "wrong", "last, asked, used = e[\"text\"], said, False", "last, asked = e[\"text\"], said"),
 ("confirm_cancel_only", "wrong", CONF, 'if e["name"] == "cancel" and not (yes and about and not used):'),
 ("confirm_off", "wrong", CONF, "if False:"),
 ("order_alphabet", "wrong", "return found", "return sorted(found)"),
 ("order_rules", "wrong", "return found", 'return sorted(found, key=lambda v: ["look", "owner", "shipped", "basic", "confirm"].index(v[1]))'),
 ("confirm_before_owner", "wrong", "return found", 'return sorted(found, key=lambda v: (v[0], ["confirm", "look", "owner", "shipped", "basic"].index(v[1])))'),
 ("basic_before_shipped", "wrong", "return found", 'return sorted(found, key=lambda v: (v[0], ["look", "owner", "basic", "shipped", "confirm"].index(v[1])))'),
 ("one_per_event", "wrong", "return found", "return [v for k, v in enumerate(found) if k == 0 or found[k - 1][0] != v[0]]"),
 ("first_event_only", "wrong", "return found", "return [v for v in found if v[0] == found[0][0]]"),
 ("rule_once", "wrong", "return found", "return [v for k, v in enumerate(found) if v[1] not in [w[1] for w in found[:k]]]"),
 ("from_1", "wrong", "enumerate(trace)", "enumerate(trace, 1)"),
 ("tool_index", "wrong", "return found", 'return [(sum(e["who"] == "tool" for e in trace[:i]), r) for i, r in found]'),
 ("swapped", "wrong", "return found", "return [(r, i) for i, r in found]"),
 ("rules_only", "wrong", "return found", "return [r for i, r in found]"),
 ("none", "wrong", "return found", "return found or None"),
 ("looked_kept", "wrong", "def violations", "looked = set()\ndef violations", "found, looked = [], set()", "found = []"),
 ("found_kept", "wrong", "def violations(trace, customer):", "def violations(trace, customer, found=[]):", "found, looked = [], set()", "looked = set()"),
 ("state_written", "wrong", "number = record[\"number\"]", "number = record[\"number\"]\n            if e['name'] == 'cancel':\n                record['status'] = 'cancelled'"),
 ("trace_popped", "wrong", "return found", "trace.clear(); return found"),
])
add("14.4", "backwards", "right", '''
def violations(trace, customer):
    def is_write(e):
        return e["who"] == "tool" and e["name"] != "find" and e["record"] is not None
    def confirmed(i, number):
        told = [j for j in range(i) if trace[j]["who"] == "customer"]
        if not told or trace[told[-1]]["text"].lstrip()[:3].lower() != "yes":
            return False
        before = [e for e in trace[:told[-1]] if e["who"] in ("customer", "agent")]
        return bool(before) and before[-1]["who"] == "agent" and before[-1]["text"].find(number) >= 0 and not any(map(is_write, trace[told[-1]:i]))
    def broken(i, e):
        r, number = e["record"], e["arguments"]["number"]
        yield "look", not any(f["who"] == "tool" and f["name"] == "find" and f["arguments"]["number"] == number and f["record"] is not None for f in trace[:i])
        yield "owner", not r["owner"] == customer
        yield "shipped", (r["kind"], r["status"]) == ("order", "shipped")
        yield "basic", (e["name"], r["kind"], r.get("fare")) == ("change", "booking", "basic")
        yield "confirm", not confirmed(i, number)
    return [(i, rule) for i, e in enumerate(trace) if is_write(e) for rule, bad in broken(i, e) if bad]
''')
add("14.4", "open_yes", "right", '''
def violations(trace, customer):
    out, seen, spoken, allowed = [], [], ("", ""), ""
    for i in range(len(trace)):
        e = trace[i]
        if e["who"] != "tool":
            if e["who"] == "customer":
                allowed = spoken[1] if spoken[0] == "agent" and e["text"].strip().lower().startswith("yes") else ""
            spoken = (e["who"], e["text"])
            continue
        r = e["record"]
        if r is None:
            continue
        if e["name"] == "find":
            seen.append(r["number"])
            continue
        rules = {"look": r["number"] not in seen, "owner": r["owner"] != customer,
                 "shipped": r["kind"] == "order" and r["status"] == "shipped",
                 "basic": e["name"] == "change" and r["kind"] == "booking" and r.get("fare") == "basic",
                 "confirm": r["number"] not in allowed}
        out.extend((i, rule) for rule, bad in rules.items() if bad)
        allowed = ""
    return out
''')
