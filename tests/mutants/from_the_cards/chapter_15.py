"""Chapter 15."""

from tests.mutants.from_the_cards import Cards

MUTANTS = Cards()
add, fam = MUTANTS.add, MUTANTS.family

# ------------------------------------------------------------ 15.1 int8
INT8 = '''
import torch
import torch.nn.functional as F
def int8_linear(x, weight):
    w = weight.detach().float()
    scales = w.abs().amax(dim=1) / 127
    scales = torch.where(scales == 0, torch.ones_like(scales), scales)
    codes = torch.round(w / scales[:, None]).to(torch.int8)
    wide = x.dtype if x.dtype == torch.float64 else torch.float32
    out = (x.to(wide) @ codes.to(wide).T * scales.to(wide)).to(x.dtype)
    return out, codes, scales
'''
W = "w = weight.detach().float()"
SC = "scales = w.abs().amax(dim=1) / 127"
ONE = "scales = torch.where(scales == 0, torch.ones_like(scales), scales)"
CO = "codes = torch.round(w / scales[:, None]).to(torch.int8)"
OUT = "out = (x.to(wide) @ codes.to(wide).T * scales.to(wide)).to(x.dtype)"
RET = "return out, codes, scales"
fam("15.1", INT8, [
 ("base", "right"),
 ("fp64_product", "right", "wide = x.dtype if x.dtype == torch.float64 else torch.float32", "wide = torch.float64"),
 ("einsum", "right", OUT, 'out = torch.einsum("...i,oi,o->...o", x.to(wide), codes.to(wide), scales.to(wide)).to(x.dtype)'),
 ("dequantised_linear", "right", OUT, "out = F.linear(x.to(wide), codes.to(wide) * scales.to(wide)[:, None]).to(x.dtype)"),
 ("x_dtype_codes", "right", OUT, "out = F.linear(x, codes.to(x.dtype)) * scales.to(x.dtype)"),
 ("masked_fill_clamp", "right", ONE, "scales = scales.masked_fill(w.abs().sum(1) == 0, 1.0)", CO, "codes = torch.clamp((w / scales.unsqueeze(1)).round(), -127, 127).char()"),
 ("rows_loop", "right", OUT, "out = torch.stack([(x.to(wide) * codes[o].to(wide)).sum(-1) * scales[o].to(wide) for o in range(len(codes))], -1).to(x.dtype)"),
 ("max_min", "right", SC, "scales = torch.maximum(w.max(1).values, -w.min(1).values) / 127"),
 ("scale_per_input", "wrong", SC, "scales = w.abs().amax(dim=0) / 127", CO, "codes = torch.round(w / scales).to(torch.int8)", OUT, "out = (x.to(wide) * scales.to(wide) @ codes.to(wide).T).to(x.dtype)"),
 ("scale_per_tensor", "wrong", SC, "scales = (w.abs().amax() / 127).expand(len(w)).clone()"),
 ("by_128", "wrong", "/ 127", "/ 128", ".to(torch.int8)", ".clamp(-128, 127).to(torch.int8)"),
 ("by_128_wraps", "wrong", "/ 127", "/ 128"),
 ("by_127.5", "wrong", "/ 127", "/ 127.5", ".to(torch.int8)", ".clamp(-128, 127).to(torch.int8)"),
 ("max_not_abs", "wrong", "w.abs().amax(dim=1)", "w.amax(dim=1).abs()", ".to(torch.int8)", ".clamp(-127, 127).to(torch.int8)"),
 ("first_64", "wrong", "w.abs().amax(dim=1)", "w[:, :64].abs().amax(dim=1)", ".to(torch.int8)", ".clamp(-127, 127).to(torch.int8)"),
 ("truncated", "wrong", "torch.round(w / scales[:, None])", "(w / scales[:, None])"),
 ("half_up", "wrong", "torch.round(w / scales[:, None])", "torch.floor(w / scales[:, None] + 0.5)"),
 ("half_away", "wrong", "torch.round(w / scales[:, None])", "(w.sign() * torch.floor((w / scales[:, None]).abs() + 0.5))"),
 ("zero_row_nan", "wrong", ONE, "pass"),
 ("zero_row_scale_0", "wrong", ONE, "safe = torch.where(scales == 0, torch.ones_like(scales), scales)", "w / scales[", "w / safe["),
 ("zero_row_eps", "wrong", ONE, "scales = scales.clamp(min=1e-8)"),
 ("zero_matrix_only", "wrong", ONE, "scales = torch.ones_like(scales) if not w.any() else scales"),
 ("small_is_zero", "wrong", "scales == 0", "scales < 1e-4"),
 ("scale_clamp_1e-5", "wrong", ONE, "scales = torch.where(scales == 0, torch.ones_like(scales), scales.clamp(min=1e-5))"),
 ("scale_1e-3", "wrong", SC, SC + " * 1.001"),
 ("original_weight", "wrong", OUT, "out = (x.to(wide) @ w.to(wide).T).to(x.dtype)"),
 ("x_int8", "wrong", OUT, "xs = (x.to(wide).abs().amax(-1, keepdim=True) / 127).clamp(min=1e-12)\n    out = (torch.round(x.to(wide) / xs) @ codes.to(wide).T * scales.to(wide) * xs).to(x.dtype)"),
 ("fp32_out", "wrong", ".T * scales.to(wide)).to(x.dtype)", ".T * scales.to(wide)).float()"),
 ("fp32_for_fp64", "wrong", "x.dtype if x.dtype == torch.float64 else torch.float32", "torch.float32"),
 ("bf16_for_all", "wrong", OUT, "out = (x.bfloat16() @ codes.bfloat16().T * scales.bfloat16()).to(x.dtype)"),
 ("bf16_dequantised", "wrong", OUT, "out = (x.to(wide) @ (codes * scales[:, None]).bfloat16().to(wide).T).to(x.dtype)"),
 ("weight_dtype_kept", "wrong", W, "w = weight.detach()"),
 ("scales_weight_dtype", "wrong", RET, "return out, codes, scales.to(weight.dtype)"),
 ("weight_to_half", "wrong", ".float()", ".half().float()"),
 ("weight_to_x_dtype", "wrong", ".float()", ".to(x.dtype).float()"),
 ("weight_scaled_inplace", "wrong", "torch.round(w / scales[:, None])", "torch.round(w.div_(scales[:, None]))"),
 ("mm_2d_only", "wrong", OUT, "out = (torch.mm(x.to(wide), codes.to(wide).T) * scales.to(wide)).to(x.dtype)"),
 ("vector_unsqueezed", "wrong", OUT, "out = (torch.atleast_2d(x).to(wide) @ codes.to(wide).T * scales.to(wide)).to(x.dtype)"),
])
add("15.1", "plain", "right", '''
import torch
def int8_linear(x, weight):
    rows, codes, scales = weight.to(torch.float32), torch.zeros(weight.shape, dtype=torch.int8), torch.ones(len(weight))
    for o, row in enumerate(rows):
        if (row != 0).any():
            scales[o] = row.abs().max() / 127
            codes[o] = torch.round(row / scales[o])
    out = (x.double().unsqueeze(-2) * (codes.double() * scales.double()[:, None])).sum(-1)
    return out.to(x.dtype), codes, scales
''')
add("15.1", "inf_norm", "right", '''
import torch
def int8_linear(x, weight):
    w = weight.float()
    top = torch.linalg.vector_norm(w, float("inf"), dim=-1, keepdim=True)
    s = torch.where(top > 0, top / 127, 1.0)
    codes = (w / s).round().to(torch.int8)
    return torch.tensordot(x.double(), (s.double() * codes), dims=([-1], [1])).to(x.dtype), codes, s.squeeze(-1)
''')

# ------------------------------------------------------------ 15.2 thinking budget
BUDGET = '''
def generate_within(draw, prompt, budget, *, think_id, end_think_id, stop_id, max_new_tokens):
    thinking, spent = False, 0
    for token in prompt:
        if thinking and token == end_think_id:
            thinking = False
        elif thinking:
            spent += 1
        elif token == think_id:
            thinking, spent = True, 0
    new, drawn = [], []
    while len(new) < max_new_tokens:
        token = draw(prompt + new)
        forced = thinking and budget is not None and spent >= budget and token != end_think_id
        if forced:
            token = end_think_id
        new.append(token)
        drawn.append(not forced)
        if token == stop_id:
            break
        if thinking and token == end_think_id:
            thinking = False
        elif thinking:
            spent += 1
        elif token == think_id:
            thinking, spent = True, 0
    return new, drawn
'''
FORCED = "forced = thinking and budget is not None and spent >= budget and token != end_think_id"
SCAN = '''    for token in prompt:
        if thinking and token == end_think_id:
            thinking = False
        elif thinking:
            spent += 1
        elif token == think_id:
            thinking, spent = True, 0
'''
LATER = '''        if thinking and token == end_think_id:
            thinking = False
        elif thinking:
            spent += 1
        elif token == think_id:
            thinking, spent = True, 0
    return'''
STOP = "if token == stop_id:\n            break"
DRAW = "token = draw(prompt + new)"
fam("15.2", BUDGET, [
 ("base", "right"),
 ("star_list", "right", "draw(prompt + new)", "draw([*prompt, *new])"),
 ("for_range", "right", "while len(new) < max_new_tokens:", "for _ in range(max_new_tokens):"),
 ("infinite", "right", "    new, drawn = [], []", "    limit = float('inf') if budget is None else budget\n    new, drawn = [], []", "budget is not None and spent >= budget", "spent >= limit"),
 ("replaced_after", "right", "new.append(token)\n        drawn.append(not forced)", "new, drawn = new + [token], drawn + [forced is False]"),
 ("zero_is_none", "wrong", "budget is not None and", "budget and"),
 ("greater", "wrong", "spent >= budget", "spent > budget"),
 ("one_early", "wrong", "spent >= budget", "spent + 1 >= budget"),
 ("exactly", "wrong", "spent >= budget", "spent == budget"),
 ("tag_counts", "wrong", LATER, LATER.replace("True, 0", "True, 1")),
 ("close_not_drawn", "wrong", " and token != end_think_id\n", "\n"),
 ("close_never_drawn", "wrong", "drawn.append(not forced)", "drawn.append(token != end_think_id)"),
 ("draw_skipped", "wrong", DRAW, "token = None if thinking and budget is not None and spent >= budget else draw(prompt + new)"),
 ("draw_after_stop", "wrong", STOP, STOP.replace("break", "draw(prompt + new)\n            break")),
 ("draw_sees_drawn", "wrong", "    new, drawn = [], []", "    new, drawn, seen = [], [], list(prompt)", DRAW, "token = draw(list(seen))\n        seen.append(token)"),
 ("inner_think_resets", "wrong", LATER, LATER.replace("elif thinking:", "elif thinking and token != think_id:")),
 ("inner_think_free", "wrong", LATER, LATER.replace("spent += 1", "spent += token != think_id")),
 ("prompt_inner_resets", "wrong", SCAN, SCAN.replace("elif thinking:", "elif thinking and token != think_id:")),
 ("nesting_depth", "wrong", LATER, LATER.replace("thinking = False", "thinking = thinking - 1").replace("spent += 1", "spent += 1\n            thinking += token == think_id").replace("True, 0", "1, 0")),
 ("no_reset", "wrong", LATER, LATER.replace("thinking, spent = True, 0", "thinking = True")),
 ("first_thinking_only", "wrong", LATER, LATER.replace("elif token == think_id:", "elif token == think_id and new.count(think_id) == 1 and think_id not in prompt:")),
 ("one_thinking_forced", "wrong", "spent >= budget and", "spent >= budget and all(drawn) and"),
 ("prompt_ignored", "wrong", SCAN, ""),
 ("prompt_not_counted", "wrong", SCAN, SCAN + "    spent = 0\n"),
 ("prompt_think_in", "wrong", SCAN, "    thinking = think_id in prompt\n    spent = len(prompt) - prompt.index(think_id) - 1 if thinking else 0\n"),
 ("prompt_counts_compared", "wrong", SCAN, "    thinking = prompt.count(think_id) > prompt.count(end_think_id)\n    spent = prompt[::-1].index(think_id) if thinking else 0\n"),
 ("prompt_last_token_only", "wrong", SCAN, "    thinking = prompt[-1:] == [think_id]\n"),
 ("prompt_after_close_counts", "wrong", SCAN, SCAN.replace("True, 0", "True, spent")),
 ("stray_close_not_drawn", "wrong", "drawn.append(not forced)", "drawn.append(not forced and (thinking or token != end_think_id))"),
 ("stray_close_ends", "wrong", "if token == stop_id:", "if token == stop_id or (token == end_think_id and not thinking):"),
 ("drawn_stop_ends", "wrong", DRAW, DRAW + "\n        raw = token", "if token == stop_id:", "if raw == stop_id:"),
 ("stop_beats_budget", "wrong", "spent >= budget and", "spent >= budget and token != stop_id and"),
 ("stop_not_in_thinking", "wrong", "if token == stop_id:", "if token == stop_id and not thinking:"),
 ("forced_not_in_max", "wrong", "while len(new) <", "while sum(drawn) <"),
 ("closed_within_max", "wrong", FORCED, "forced = thinking and token != end_think_id and (budget is not None and spent >= budget or len(new) == max_new_tokens - 1)"),
])
add("15.2", "from_history", "right", '''
def spent_of(ids, think_id, end_think_id):
    at = None
    for i, t in enumerate(ids):
        if at is None and t == think_id:
            at = i
        elif at is not None and t == end_think_id:
            at = None
    return None if at is None else len(ids) - at - 1
def generate_within(draw, prompt, budget, *, think_id, end_think_id, stop_id, max_new_tokens):
    ids, drawn = list(prompt), []
    for _ in range(max_new_tokens):
        choice = draw(list(ids))
        spent = spent_of(ids, think_id, end_think_id)
        token = choice if budget is None or spent is None or spent < budget else end_think_id
        ids.append(token)
        drawn.append(choice == token)
        if token == stop_id:
            break
    return ids[len(prompt):], drawn
''')
add("15.2", "countdown", "right", '''
def generate_within(draw, prompt, budget, *, think_id, end_think_id, stop_id, max_new_tokens):
    left = None                                  # None: thinking is closed
    full = float("inf") if budget is None else budget
    pairs = []
    def after(left, token):
        if left is None:
            return full if token == think_id else None
        return None if token == end_think_id else left - 1
    for token in prompt:
        left = after(left, token)
    while len(pairs) != max_new_tokens and not (pairs and pairs[-1][0] == stop_id):
        asked = draw(prompt[:] + [t for t, _ in pairs])
        token = end_think_id if left is not None and left <= 0 else asked
        pairs.append((token, token == asked))
        left = after(left, token)
    return [t for t, _ in pairs], [d for _, d in pairs]
''')

# ------------------------------------------------------------ 15.3 costs
COST = '''
def cost_model(model, machine, *, context, tokens, weights="int8", training=False):
    rest = model["embedding"] + model["head"] + model["norms"]
    if weights == "bf16":
        weight_bytes = 2 * (model["matrices"] + rest) + 4 * model["routers"]
    else:
        weight_bytes = model["matrices"] + 4 * model["channels"] + 2 * rest + 4 * model["routers"]
    sequence_bytes = context * model["cache_per_token"] + model["state"]
    free = machine["gpus"] * machine["gpu_bytes"] - weight_bytes
    sequences = max(0, int(free // sequence_bytes))
    flops = (6 if training else 2) * model["active"]
    speed = machine["gpus"] * machine["peak"] * machine["utilisation"]
    hours = float(tokens * flops / speed / 3600)
    dollars = float(machine["gpus"] * machine["price"] * hours)
    return {"weight_bytes": weight_bytes, "sequence_bytes": sequence_bytes, "sequences": sequences, "hours": hours, "dollars": dollars}
'''
REST = 'rest = model["embedding"] + model["head"] + model["norms"]'
BF = 'weight_bytes = 2 * (model["matrices"] + rest) + 4 * model["routers"]'
I8 = 'weight_bytes = model["matrices"] + 4 * model["channels"] + 2 * rest + 4 * model["routers"]'
SEQ = 'sequence_bytes = context * model["cache_per_token"] + model["state"]'
FREE = 'free = machine["gpus"] * machine["gpu_bytes"] - weight_bytes'
NUM = "sequences = max(0, int(free // sequence_bytes))"
FL = 'flops = (6 if training else 2) * model["active"]'
SPEED = 'speed = machine["gpus"] * machine["peak"] * machine["utilisation"]'
HOURS = "hours = float(tokens * flops / speed / 3600)"
DOL = 'dollars = float(machine["gpus"] * machine["price"] * hours)'
fam("15.3", COST, [
 ("base", "right"),
 ("if_negative", "right", NUM, "sequences = int(free // sequence_bytes) if free > 0 else 0"),
 ("divmod", "right", NUM, "sequences = max(int(divmod(free, sequence_bytes)[0]), 0)"),
 ("order", "right", HOURS, "hours = (tokens / speed) * (flops / 3600.0)"),
 ("forward_plus_backward", "right", FL, 'flops = 2 * model["active"]\n    flops += 4 * model["active"] * bool(training)'),
 ("bytes_table", "right", BF, 'weight_bytes = sum(n * model[k] for k, n in {"matrices": 2, "embedding": 2, "head": 2, "norms": 2, "routers": 4}.items())'),
 ("dollars_direct", "right", DOL, 'dollars = tokens * flops / (machine["peak"] * machine["utilisation"]) / 3600 * machine["price"]'),
 ("bf16_routers_2", "wrong", BF, 'weight_bytes = 2 * (model["matrices"] + rest + model["routers"])'),
 ("bf16_scales", "wrong", BF, BF + ' + 4 * model["channels"]'),
 ("int8_routers_2", "wrong", I8, I8.replace('4 * model["routers"]', '2 * model["routers"]')),
 ("int8_routers_1", "wrong", I8, I8.replace('4 * model["routers"]', 'model["routers"]')),
 ("scales_2", "wrong", '4 * model["channels"]', '2 * model["channels"]'),
 ("scales_left_out", "wrong", ' + 4 * model["channels"]', ''),
 ("one_scale", "wrong", '4 * model["channels"]', '4'),
 ("int8_embedding_1", "wrong", "2 * rest", '2 * rest - model["embedding"]'),
 ("int8_head_1", "wrong", "2 * rest", '2 * rest - model["head"]'),
 ("int8_norms_4", "wrong", "2 * rest", '2 * rest + 2 * model["norms"]'),
 ("head_tied", "wrong", REST, 'rest = model["embedding"] + model["norms"]'),
 ("training_bf16", "wrong", 'weights == "bf16"', 'weights == "bf16" or training'),
 ("default_bf16", "wrong", 'weights="int8"', 'weights="bf16"'),
 ("state_each_token", "wrong", SEQ, 'sequence_bytes = context * (model["cache_per_token"] + model["state"])'),
 ("context_minus_1", "wrong", SEQ, 'sequence_bytes = (context - 1) * model["cache_per_token"] + model["state"]'),
 ("weights_each_gpu", "wrong", FREE, 'free = machine["gpus"] * (machine["gpu_bytes"] - weight_bytes)'),
 ("one_gpu", "wrong", FREE, 'free = machine["gpu_bytes"] - weight_bytes'),
 ("rounded_per_gpu", "wrong", NUM, 'sequences = max(0, machine["gpus"] * int(free / machine["gpus"] // sequence_bytes))'),
 ("negative", "wrong", NUM, "sequences = int(free // sequence_bytes)"),
 ("at_least_1", "wrong", "max(0, int", "max(1, int"),
 ("float_sequences", "wrong", NUM, "sequences = max(0.0, float(free // sequence_bytes))"),
 ("rounded_up", "wrong", NUM, "sequences = max(0, int(-(-free // sequence_bytes)))"),
 ("one_less", "wrong", "int(free // sequence_bytes)", "int((free - 1) // sequence_bytes)"),
 ("training_3", "wrong", "6 if training", "3 if training"),
 ("hours_one_gpu", "wrong", SPEED, 'speed = machine["peak"] * machine["utilisation"]'),
 ("no_utilisation", "wrong", SPEED, 'speed = machine["gpus"] * machine["peak"]'),
 ("hours_rounded", "wrong", HOURS, "hours = round(tokens * flops / speed / 3600, 2)"),
 ("hours_whole", "wrong", HOURS, "hours = float(tokens * flops // (speed * 3600))"),
 ("dollars_begun_hours", "wrong", DOL, 'dollars = float(machine["gpus"] * machine["price"] * -(-hours // 1))'),
 ("no_fit_no_hours", "wrong", HOURS, HOURS + " if sequences else 0.0"),
])
add("15.3", "table", "right", '''
def cost_model(model, machine, *, context, tokens, weights="int8", training=False):
    size = dict(matrices=2, embedding=2, head=2, norms=2, routers=4, channels=0)
    if weights == "int8":
        size |= dict(matrices=1, channels=4)
    out = dict(weight_bytes=sum(model[key] * each for key, each in size.items()), sequence_bytes=model["state"] + context * model["cache_per_token"])
    memory = machine["gpus"] * machine["gpu_bytes"]
    out["sequences"] = int((memory - out["weight_bytes"]) // out["sequence_bytes"]) if memory >= out["weight_bytes"] else 0
    out["hours"] = 2.0 * (1 + 2 * int(training)) * model["active"] * tokens / (machine["gpus"] * machine["peak"] * machine["utilisation"]) / 3600
    out["dollars"] = out["hours"] * machine["gpus"] * machine["price"]
    return out
''')
add("15.3", "fractions", "right", '''
from fractions import Fraction
from math import floor
def cost_model(model, machine, *, context, tokens, weights="int8", training=False):
    two = model["embedding"] + model["head"] + model["norms"] + (model["matrices"] if weights == "bf16" else 0)
    four = model["routers"] + (0 if weights == "bf16" else model["channels"])
    one = 0 if weights == "bf16" else model["matrices"]
    held = one + 2 * two + 4 * four
    each = context * model["cache_per_token"] + model["state"]
    fit = floor((Fraction(machine["gpus"]) * Fraction(machine["gpu_bytes"]) - held) / each)
    speed = Fraction(machine["peak"]) * Fraction(machine["utilisation"])
    work = Fraction(tokens) * (6 if training else 2) * model["active"] / speed / 3600
    return {"dollars": float(work * Fraction(machine["price"])), "hours": float(work / machine["gpus"]), "sequences": fit if fit > 0 else 0, "sequence_bytes": each, "weight_bytes": held}
''')
