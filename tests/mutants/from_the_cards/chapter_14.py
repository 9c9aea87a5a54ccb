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
 ("split_think", "right", THINK, 'kept, *rest = text.split("<think>")\n    for piece in rest:\n        if "</think>" in piece:\n            kept += piece.split("</think>", 1)[1]\n    text = kept'),
 ("find_think", "right", THINK, 'out, at = [], 0\n    while (begin := text.find("<think>", at)) >= 0:\n        out.append(text[at:begin])\n        close = text.find("</think>", begin)\n        at = len(text) if close < 0 else close + len("</think>")\n    text = "".join(out) + text[at:]'),
 ("type_is", "right", NODICT, "        if type(call) is not dict:\n            continue\n", OK, "if type(name) is str and type(arguments) is dict:"),
 ("blank_skipped_first", "right", "        try:\n", "        if not line.strip():\n            continue\n        try:\n"),
 ("match_case", "right", NODICT, "", '        name, arguments = call.get("name"), call.get("arguments")\n        ' + OK + "\n            " + PUSH, '        match call:\n            case {"name": str(name), "arguments": dict(arguments)}:\n                ' + PUSH),
 ("open_think_kept", "wrong", r"(</think>|\Z)", "</think>"),
 ("greedy_think", "wrong", r"<think>.*?(</think>|\Z)", r"<think>.*(</think>|\Z)"),
 ("first_think_only", "wrong", '"", text, flags=re.S', '"", text, count=1, flags=re.S'),
 ("last_close_think", "wrong", THINK, 'text = text.split("</think>")[-1]'),
 ("think_at_start_only", "wrong", r'"<think>.*?(</think>|\Z)"', r'"^\s*<think>.*?(</think>|\Z)"'),
 ("think_after_block", "wrong", THINK, "pass", END, END + "    " + THINK.replace("text", "block") + "\n"),
 ("splitlines", "wrong", 'block.split("\\n")', "block.splitlines()"),
 ("split_crlf", "wrong", 'block.split("\\n")', r're.split(r"[\n\r]", block)'),
 ("recursion_out", "wrong", "except (ValueError, RecursionError)", "except ValueError"),
 ("break_at_bad", "wrong", EXC, EXC.replace("continue", "break")),
 ("stop_at_empty", "wrong", "        try:\n", "        if calls and not line.strip():\n            break\n        try:\n"),
 ("no_dict_check", "wrong", NODICT, ""),
 ("key_error", "wrong", 'call.get("name"), call.get("arguments")', 'call["name"], call["arguments"]'),
 ("arguments_any", "wrong", OK, 'if isinstance(name, str) and "arguments" in call:'),
 ("arguments_none_ok", "wrong", 'call.get("arguments")', '(call.get("arguments") or {})'),
 ("arguments_string", "wrong", 'call.get("arguments")', 'call.get("arguments")\n        if isinstance(arguments, str):\n            try:\n                arguments = json.loads(arguments)\n            except (ValueError, RecursionError):\n                continue'),
 ("name_any", "wrong", OK, "if name is not None and isinstance(arguments, dict):"),
 ("truthy", "wrong", OK, "if name and arguments and " + OK[3:]),
 ("empty_name_skipped", "wrong", OK, "if name and " + OK[3:]),
 ("extra_keys", "wrong", PUSH, "calls.append(call)"),
 ("extra_keys_skipped", "wrong", OK, "if len(call) == 2 and " + OK[3:]),
 ("unique", "wrong", PUSH, 'call = {"name": name, "arguments": arguments}\n            if call not in calls:\n                calls.append(call)'),
 ("open_block_empty", "wrong", END, END + "    else:\n        return []\n"),
 ("end_minus_one", "wrong", "    if end >= 0:\n        block = block[:end]\n", "    block = block[:end]\n"),
 ("end_of_whole", "wrong", END, '    end = text.find("</tool_calls>")\n    block = text[start + len("<tool_calls>"):end] if end >= 0 else block\n'),
 ("last_end", "wrong", 'block.find("</tool_calls>")', 'block.rfind("</tool_calls>")'),
 ("last_block", "wrong", 'text.find("<tool_calls>")', 'text.rfind("<tool_calls>")'),
 ("all_blocks", "wrong", START + END, '    block = "\\n".join(m[1] for m in re.finditer(r"<tool_calls>(.*?)(</tool_calls>|\\Z)", text, re.S))\n'),
 ("tag_newline", "wrong", 'text.find("<tool_calls>")', 'text.find("<tool_calls>\\n")'),
 ("finds_json_in_line", "wrong", "call = json.loads(line)", 'call = json.loads(line[line.index("{"):line.rindex("}") + 1])'),
])
add("14.1", "signs", "right", r'''
import json
def one(line):
    try:
        call = json.loads(line)
        return [{"name": call["name"], "arguments": call["arguments"]}] if type(call) is dict and type(call["name"]) is str and type(call["arguments"]) is dict else []
    except (KeyError, ValueError, RecursionError):
        return []
def parse_calls(text):
    kept, rest = "", text
    while rest:
        before, tag, after = rest.partition("<think>")
        kept += before
        rest = after.partition("</think>")[2]
    _, tag, block = kept.partition("<tool_calls>")
    return [call for line in block.partition("</tool_calls>")[0].split("\n") for call in one(line)]
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
CHECK = "problem = check_arguments(tool.parameters, arguments)"
RANGE = "for step in range(max_steps):"
HAS = 'if not calls:\n            return messages, "answer"'
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
 ("message_each", "wrong", PUT, 'messages.append({"role": "tool", "content": [{"name": name, "text": text}]})', MSG, "pass"),
 ("reversed", "wrong", "for call in calls:", "for call in reversed(calls):"),
 ("by_name", "wrong", '"content": results', '"content": list({r["name"]: r for r in results}.values())'),
 ("errors_last", "wrong", '"content": results', '"content": sorted(results, key=lambda r: r["text"].startswith("error"))'),
 ("break_at_error", "wrong", PUT, PUT + '\n            if text.startswith("error"):\n                break'),
 ("unknown_raises", "wrong", "if name not in tools:", "if False:"),
 ("unknown_quoted", "wrong", "no tool {name}", "no tool {name!r}"),
 ("key_error_unknown", "wrong", "except Exception as error:", 'except KeyError:\n                        text = f"error: there is no tool {name}"\n                    except Exception as error:'),
 ("not_checked", "wrong", CHECK, "problem = None"),
 ("checked_after_run", "wrong", CHECK, "try:\n                    tool.function(**arguments)\n                except Exception:\n                    pass\n                " + CHECK),
 ("check_no_prefix", "wrong", 'f"error: {problem}"', "problem"),
 ("all_checked_first", "wrong", RANGE, RANGE + "\n        bad = False", "for call in calls:", 'bad = any(c["name"] in tools and check_arguments(tools[c["name"]].parameters, c["arguments"]) for c in calls)\n        for call in calls:', "if problem is not None:", "if bad:"),
 ("runtime_error_only", "wrong", "except Exception as", "except (ValueError, KeyError, RuntimeError) as"),
 ("repr_error", "wrong", "{error}", "{error!r}"),
 ("args0", "wrong", "{error}", "{error.args[0]}"),
 ("empty_text", "wrong", RUN, RUN + ' or "ok"'),
 ("stripped", "wrong", RUN, RUN + ".strip()"),
 ("memo", "wrong", COPY, COPY + "\n    known = {}", RUN, "text = known[repr(call)] if repr(call) in known else known.setdefault(repr(call), tool.function(**arguments))"),
 ("last_step_not_run", "wrong", "        results = []\n", '        if step == max_steps - 1:\n            return messages, "steps"\n        results = []\n'),
 ("one_step_more", "wrong", RANGE, "for step in range(max_steps + 1):"),
 ("calls_are_steps", "wrong", COPY, COPY + "\n    used = 0", "results = []\n", 'results = []\n        used += len(calls)\n        if used > max_steps:\n            return messages, "steps"\n'),
 ("steps_at_limit_answer", "wrong", HAS, 'if not calls:\n            return messages, "answer" if step < max_steps - 1 else "steps"'),
 ("steps_counts_messages", "wrong", RANGE, "while sum(m['role'] == 'assistant' for m in messages) < max_steps:"),
 ("key_in", "wrong", "if not calls:", 'if "tool_calls" not in reply:'),
 ("content_is_answer", "wrong", "if not calls:", 'if reply["content"] or not calls:'),
 ("last_message_only", "wrong", "respond(messages)", "respond(messages[-1:])"),
])
add("14.2", "for_else", "right", '''
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
    messages = (*messages,)
    for _ in range(max_steps):
        messages += (respond(list(messages)),)
        if not messages[-1].get("tool_calls", []):
            break
        messages += ({"role": "tool", "content": [run_one(tools, c) for c in messages[-1]["tool_calls"]]},)
    else:
        return list(messages), "steps"
    return list(messages), "answer"
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
 ("error_left_out", "wrong", "rewards.append(None)", "pass"),
 ("error_nan", "wrong", "rewards.append(None)", "rewards.append(float('nan'))"),
 ("violations_before_error", "wrong", 'if e["finish"] == "error":', 'if e["finish"] == "error" and not e["violations"]:'),
 ("cut_none", "wrong", 'if e["finish"] == "error":', 'if e["finish"] != "answer":'),
 ("each_violation", "wrong", "reward = -0.5", 'reward = -0.5 * len(e["violations"])'),
 ("two_violations", "wrong", 'if e["violations"]:', 'if len(e["violations"]) > 1:'),
 ("goal_before_violations", "wrong", 'if e["violations"]:', 'if e["violations"] and not (e["finish"] == "answer" and e["state"] == e["goal"]):'),
 ("violation_added", "wrong", "        if e[\"calls\"]:", "        if e['violations'] and e['finish'] == 'answer' and e['state'] == e['goal']:\n            reward = 0.5\n        if e[\"calls\"]:"),
 ("violation_only_answer", "wrong", 'if e["violations"]:', 'if e["violations"] and e["finish"] == "answer":'),
 ("finish_ignored", "wrong", GOAL, 'elif e["state"] == e["goal"]:'),
 ("length_ok", "wrong", 'e["finish"] == "answer" and', 'e["finish"] != "steps" and'),
 ("steps_ok", "wrong", 'e["finish"] == "answer" and', 'e["finish"] != "length" and'),
 ("is", "wrong", 'e["state"] == e["goal"]', 'e["state"] is e["goal"]'),
 ("repr", "wrong", 'e["state"] == e["goal"]', 'str(e["state"]) == str(e["goal"])'),
 ("dumps", "wrong", "def ", "import json\ndef ", 'e["state"] == e["goal"]', 'json.dumps(e["state"], sort_keys=True, default=str) == json.dumps(e["goal"], sort_keys=True, default=str)'),
 ("goal_subset", "wrong", 'e["state"] == e["goal"]', 'all(e["state"].get(k) == v for k, v in e["goal"].items())'),
 ("state_subset", "wrong", 'e["state"] == e["goal"]', 'all(k in e["goal"] and e["goal"][k] == v for k, v in e["state"].items())'),
 ("empty_goal", "wrong", 'e["state"] == e["goal"]', 'e["goal"] and e["state"] == e["goal"]'),
 ("partial_credit", "wrong", "            reward = 0.0\n", '            reward = 0.0\n            if e["finish"] == "answer":\n                reward = sum(e["state"].get(k) == v for k, v in e["goal"].items()) / max(len(e["goal"]), 1)\n'),
 ("zero_division", "wrong", '        if e["calls"]:\n            reward', "        reward"),
 ("format_count", "wrong", PEN, 'reward -= 0.2 * e["bad_calls"]'),
 ("format_any", "wrong", PEN, 'reward -= 0.2 * (e["bad_calls"] > 0)'),
 ("format_factor", "wrong", PEN, 'reward *= 1 - 0.2 * e["bad_calls"] / e["calls"]'),
 ("format_calls_plus_1", "wrong", FORMAT, '        reward -= 0.2 * e["bad_calls"] / (e["calls"] + 1)\n'),
 ("format_not_violations", "wrong", 'if e["calls"]:', 'if e["calls"] and not e["violations"]:'),
 ("format_not_failures", "wrong", 'if e["calls"]:', 'if e["calls"] and reward != 0:'),
 ("clipped_at_0", "wrong", "rewards.append(reward)", "rewards.append(max(reward, 0.0))"),
 ("clipped_at_half", "wrong", "rewards.append(reward)", "rewards.append(max(reward, -0.5))"),
 ("pops", "wrong", 'e["bad_calls"] /', 'e.pop("bad_calls") /'),
 ("uses_prompts", "wrong", "for e in episode:", "for _, e in zip(prompts, episode):"),
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
 ("look_used_up", "wrong", "            used = True", "            used = True\n            looked.discard(number)"),
 ("failed_calls_use_yes", "wrong", REAL, 'elif e["record"] is None:\n            used = True\n        ' + REAL),
 ("find_uses_yes", "wrong", "looked.add(number)", "looked.add(number); used = True"),
 ("shipped_bookings", "wrong", SHIP, 'if record["status"] == "shipped":'),
 ("shipped_cancel_only", "wrong", SHIP, 'if e["name"] == "cancel" and ' + SHIP[3:]),
 ("basic_cancel", "wrong", BASIC, 'if record.get("fare") == "basic":'),
 ("basic_key_error", "wrong", BASIC, 'if e["name"] == "change" and record["fare"] == "basic":'),
 ("yes_two_cases", "wrong", YES, 'yes = last.lstrip().startswith(("yes", "Yes"))'),
 ("yes_strip_spaces", "wrong", "last.lstrip()", 'last.lstrip(" ")'),
 ("yes_anywhere", "wrong", YES, 'yes = "yes" in last.lower()'),
 ("yes_word", "wrong", "def ", "import re\ndef ", YES, 'yes = re.match(r"\\s*yes\\b", last, re.I) is not None'),
 ("yes_multiline", "wrong", "def ", "import re\ndef ", YES, 'yes = re.search(r"^\\s*yes", last, re.I | re.M) is not None'),
 ("earlier_yes", "wrong", CUST, 'if e["text"].lstrip().lower().startswith("yes"):\n                last, asked, used = e["text"], said, False\n            said = e'),
 ("yes_directly_before", "wrong", AGENT, AGENT + '\n            last = ""'),
 ("number_anywhere_before", "wrong", "    said = None\n", '    said = None\n    heard = ""\n', AGENT, AGENT + '\n            heard += e["text"]', ABOUT, "about = number in heard"),
 ("agent_last_before_yes", "wrong", CUST, 'last, asked, used = e["text"], said, False'),
 ("customer_said_number", "wrong", 'asked["who"] == "agent" and ', ""),
 ("number_in_yes", "wrong", "number in asked[\"text\"]", "(number in asked[\"text\"] or number in last)"),
 ("asked_none_ok", "wrong", ABOUT, 'about = asked is None or asked["who"] == "agent" and number in asked["text"]'),
 ("event_before_yes", "wrong", "    for i, e in", "    last_event = None\n    for i, e in", CUST, CUST.replace("said, False", "trace[i - 1], False"), 'asked["who"] == "agent" and number in asked["text"]', 'asked["who"] == "agent" and number in asked.get("text", "")'),
 ("event_before_write", "wrong", YES, 'yes = i > 0 and trace[i - 1]["who"] == "customer" and trace[i - 1]["text"].lstrip().lower().startswith("yes")'),
 ("yes_for_many", "wrong", "            used = True\n", ""),
 ("yes_for_each_number", "wrong", "            used = True", "            used = (used or set()) | {number}", "and not used", "and number not in (used or ())"),
 ("bad_write_keeps_yes", "wrong", 'found.append((i, "confirm"))\n            used = True', 'found.append((i, "confirm"))\n            else:\n                used = True'),
 ("order_rules", "wrong", "return found", 'return sorted(found, key=lambda v: ["look", "owner", "shipped", "basic", "confirm"].index(v[1]))'),
 ("confirm_before_owner", "wrong", "return found", 'return sorted(found, key=lambda v: (v[0], ["confirm", "look", "owner", "shipped", "basic"].index(v[1])))'),
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
