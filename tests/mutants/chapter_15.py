"""Wrong solutions of chapter 15's exercises: int8 weights, the thinking budget, the cost model."""

from tests.mutants import Mutant

CODES = "codes = (weight / scales[:, None]).round().to(torch.int8)"
SCALES = "scales = torch.where(largest > 0, largest / 127, 1.0)"
OUT = "F.linear(x, codes.to(x.dtype)) * scales.to(x.dtype)"
LOOP = '''def generate_within(draw, prompt, budget, *, think_id, end_think_id, stop_id, max_new_tokens):
    def after(spent, token):
        {rule}

    new, drawn, spent = [], [], -1
    for token in {read}:
        spent = after(spent, token)
    while len(new) < max_new_tokens:
        token = draw({shown})
        forced = budget is not None and {when}
        {replace}
        new.append(token)
        drawn.append({flag})
        {end}
            break
        spent = after(spent, token)
    return new, drawn
'''
RIGHT = dict(
    rule="return -1 if token == end_think_id else spent + 1 if spent >= 0 or token == think_id else -1",
    read="prompt", shown="prompt + new", when="spent >= budget and spent >= 0 and token != end_think_id",
    replace="token = end_think_id if forced else token", flag="not forced", end="if token == stop_id:",
)


def loop(name: str, **changes: str) -> Mutant:
    return Mutant(name, source=LOOP.format(**RIGHT | changes))


MUTANTS = {
    "15.1": [
        Mutant("divided by 128", "largest / 127", "largest / 128"),
        Mutant("divided by 255", "largest / 127", "largest / 255"),
        Mutant("not divided", "largest / 127", "largest"),
        Mutant("scale upside down", SCALES, "scales = torch.where(largest > 0, 127 / largest, 1.0)"),
        Mutant("largest number instead of magnitude", "weight.abs().amax(1)", "weight.amax(1)"),
        Mutant("largest along the inputs", "weight.abs().amax(1)", "weight.abs().amax(0)"),
        Mutant("one scale for all", "weight.abs().amax(1)", "weight.abs().max().expand(len(weight))"),
        Mutant("one scale for all, one number", "weight.abs().amax(1)", "weight.abs().max().view(1)"),
        Mutant("mean magnitude", "weight.abs().amax(1)", "weight.abs().mean(1)"),
        Mutant("cut off instead of rounded", ".round()", ""),
        Mutant("rounded down", ".round()", ".floor()"),
        Mutant("halves away from zero", CODES, "codes = weight / scales[:, None]\n"
               "    codes = ((codes.abs() + 0.5).floor() * codes.sign()).to(torch.int8)"),
        Mutant("halves up", CODES, "codes = (weight / scales[:, None] + 0.5).floor().to(torch.int8)"),
        Mutant("row of zeros", SCALES, "scales = largest / 127"),
        Mutant("row of zeros has scale 0", "return out",
               "scales = torch.where(largest > 0, scales, 0.0)\n    return out"),
        Mutant("smallest scale allowed", SCALES, "scales = (largest / 127).clamp(min=1e-8)"),
        Mutant("smallest scale allowed, and 1 for zeros", SCALES,
               "scales = torch.where(largest > 0, (largest / 127).clamp(min=1e-8), 1.0)"),
        Mutant("epsilon added", SCALES, "scales = largest / 127 + 1e-6"),
        Mutant("output of the weight", OUT, "F.linear(x, weight.to(x.dtype))"),
        Mutant("no scale in the output", OUT, "F.linear(x, codes.to(x.dtype))"),
        Mutant("scale twice", OUT, OUT + " * scales.to(x.dtype)"),
        Mutant("x rounded to int8", OUT, OUT.replace("F.linear(x,", "F.linear((x / x.abs().amax(-1, keepdim=True)"
               " * 127).round() * x.abs().amax(-1, keepdim=True) / 127,")),
        Mutant("x cut off", OUT, "F.linear(x.long().to(x.dtype), codes.to(x.dtype)) * scales.to(x.dtype)"),
        Mutant("output in float32", OUT, "F.linear(x.float(), codes.float()) * scales"),
        Mutant("computed in float32, returned in x's dtype", OUT,
               "(F.linear(x.float(), codes.float()) * scales).to(x.dtype)"),
        Mutant("computed in bfloat16", OUT, "(F.linear(x.bfloat16(), codes.bfloat16()) * scales).to(x.dtype)"),
        Mutant("codes as floats", ".to(torch.int8)", ""),
        Mutant("codes as int32", ".to(torch.int8)", ".to(torch.int32)"),
        Mutant("unsigned codes", CODES, "codes = ((weight / scales[:, None]).round() + 128).to(torch.uint8)"),
        Mutant("scales of shape (O, 1)", "return out, codes, scales", "return out, codes, scales[:, None]"),
        Mutant("scales in the weight's dtype", "weight = weight.float()", "weight = weight"),
        Mutant("results exchanged", "return out, codes, scales", "return out, scales, codes"),
        Mutant("only the output", "return out, codes, scales", "return out"),
        Mutant("weight divided in place", CODES, "codes = weight.div_(scales[:, None]).round().to(torch.int8)"),
        Mutant("codes kept by shape", CODES,
               "codes = int8_linear.__dict__.setdefault(weight.shape, " + CODES.removeprefix("codes = ") + ")"),
        Mutant("x flattened", OUT, "(F.linear(x.reshape(-1, x.shape[-1]), codes.to(x.dtype)) * scales.to(x.dtype))"),
        Mutant("7 bits", "largest / 127", "largest / 63"),
    ],
    "15.2": [
        loop("one token too late", when="spent > budget and spent >= 0 and token != end_think_id"),
        loop("the tag counts", when="spent + 1 >= budget and spent >= 0 and token != end_think_id"),
        loop("prompt not read", read="[]"),
        loop("forced although drawn", when="spent >= budget and spent >= 0"),
        loop("flag at every closing", flag="token != end_think_id"),
        loop("flag upside down", flag="forced"),
        loop("flag always True", flag="True"),
        loop("new tokens counted instead", when="len(new) >= budget and spent >= 0 and token != end_think_id"),
        loop("new tokens counted, tag left out", when="len(new) > budget and spent >= 0 and token != end_think_id"),
        loop("inner think begins again",
             rule="return -1 if token == end_think_id else 0 if token == think_id else spent + (spent >= 0)"),
        loop("inner think is not counted", rule="return -1 if token == end_think_id else "
             "spent if token == think_id and spent >= 0 else spent + 1 if spent >= 0 or token == think_id else -1"),
        loop("forced outside of thinking, too", when="(spent >= budget or spent < 0 and budget == 0) and "
             "token != end_think_id"),
        loop("closing never ends the count",
             rule="return spent + 1 if spent >= 0 or token == think_id else -1"),
        loop("any closing opens", rule="return 0 if token == end_think_id else "
             "spent + 1 if spent >= 0 or token == think_id else -1"),
        loop("replaced stop ends", replace="stopped = token == stop_id; token = end_think_id if forced else token",
             end="if stopped:"),
        loop("stop asked before forcing", when="spent >= budget and spent >= 0 and token not in (end_think_id, stop_id)"),
        loop("stop only after thinking", end="if token == stop_id and spent < 0:"),
        loop("stop left out", replace="token = end_think_id if forced else token\n        if token == stop_id: break"),
        loop("never stops", end="if False:"),
        loop("inserted after the drawn token", replace="new += [token] if forced else []\n        "
             "drawn += [True] if forced else []\n        token = end_think_id if forced else token"),
        loop("not drawn where forced", shown="prompt + new) if not (budget is not None and 0 <= budget <= spent) else "
             "(end_think_id + 10**6"),
        loop("draw sees the answer only", shown="new"),
        loop("draw sees the prompt only", shown="prompt"),
        loop("draw sees a tuple", shown="tuple(prompt + new)"),
        loop("budget 0 means none", when="budget and spent >= budget and spent >= 0 and token != end_think_id"),
        Mutant("no budget is a budget of 0", source=LOOP.format(**RIGHT).replace(
            "budget is not None and spent >= budget", "spent >= (budget or 0)")),
        Mutant("one new token too many", source=LOOP.format(**RIGHT).replace("< max_new", "<= max_new")),
        Mutant("forced tokens are not counted", source=LOOP.format(**RIGHT).replace(
            "len(new) < max_new", "sum(drawn) < max_new")),
        Mutant("prompt in the answer", source=LOOP.format(**RIGHT).replace("return new", "return prompt + new")),
        Mutant("prompt extended", source=LOOP.format(**RIGHT).replace("new.append(token)",
               "new.append(token); prompt.append(token)").replace("prompt + new", "list(prompt)")),
        Mutant("only the first thinking", source=LOOP.format(**RIGHT).replace(
            "forced = budget is not None", "forced = all(drawn) and budget is not None")),
        Mutant("ids of the tags fixed", source=LOOP.format(**RIGHT).replace(
            "    new, drawn, spent", "    think_id, end_think_id, stop_id = 1, 2, 3\n    new, drawn, spent")),
        Mutant("exchanged", source=LOOP.format(**RIGHT).replace("return new, drawn", "return drawn, new")),
    ],
    "15.3": [
        Mutant("embedding forgotten", 'model["embedding"] + model["head"]', 'model["head"]'),
        Mutant("head forgotten", 'model["embedding"] + model["head"]', 'model["embedding"]'),
        Mutant("norms forgotten", ' + model["norms"]', ""),
        Mutant("routers forgotten", ' + 4 * model["routers"]', ""),
        Mutant("routers in bf16", '4 * model["routers"]', '2 * model["routers"]'),
        Mutant("routers in int8", '4 * model["routers"]', '(1 if weights == "int8" else 4) * model["routers"]'),
        Mutant("everything in int8", 'weight_bytes = 2 * (model["embedding"]',
               'weight_bytes = (1 if weights == "int8" else 2) * (model["embedding"]'),
        Mutant("rest in fp32", 'weight_bytes = 2 * (model["embedding"]', 'weight_bytes = 4 * (model["embedding"]'),
        Mutant("no scales", ' + 4 * model["channels"]', ""),
        Mutant("scales of 2 bytes", '4 * model["channels"]', '2 * model["channels"]'),
        Mutant("scales of 1 byte", '4 * model["channels"]', 'model["channels"]'),
        Mutant("scales in bf16 too", '2 * model["matrices"]', '2 * model["matrices"] + 4 * model["channels"]'),
        Mutant("always int8", 'if weights == "int8":', "if True:"),
        Mutant("always bf16", 'if weights == "int8":', "if False:"),
        Mutant("kinds exchanged", 'weights == "int8"', 'weights == "bf16"'),
        Mutant("default bf16", 'weights="int8"', 'weights="bf16"'),
        Mutant("state per token", 'context * model["cache_per_token"] + model["state"]',
               'context * (model["cache_per_token"] + model["state"])'),
        Mutant("no state", ' + model["state"]', ""),
        Mutant("no context", 'context * model["cache_per_token"]', 'model["cache_per_token"]'),
        Mutant("tokens for context", 'context * model["cache_per_token"]', 'tokens * model["cache_per_token"]'),
        Mutant("cache twice", 'context * model["cache_per_token"]', '2 * context * model["cache_per_token"]'),
        Mutant("one GPU's memory", 'machine["gpus"] * machine["gpu_bytes"] - weight_bytes',
               'machine["gpu_bytes"] - weight_bytes'),
        Mutant("weights on each GPU", '["gpu_bytes"] - weight_bytes', '["gpu_bytes"] - machine["gpus"] * weight_bytes'),
        Mutant("weights take no room", '["gpu_bytes"] - weight_bytes', '["gpu_bytes"]'),
        Mutant("negative", "max(room // sequence_bytes, 0)", "room // sequence_bytes"),
        Mutant("not rounded", "room // sequence_bytes", "room / sequence_bytes"),
        Mutant("rounded up", "room // sequence_bytes", "-(-room // sequence_bytes)"),
        Mutant("rounded to the nearest", "room // sequence_bytes", "round(room / sequence_bytes)"),
        Mutant("one missing", "room // sequence_bytes", "(room - 1) // sequence_bytes"),
        Mutant("at least one", "max(room // sequence_bytes, 0)", "max(room // sequence_bytes, 1)"),
        Mutant("FLOPs 1", "(6 if training else 2)", "(3 if training else 1)"),
        Mutant("training 4", "6 if training", "4 if training"),
        Mutant("training 8", "6 if training", "8 if training"),
        Mutant("always training", "(6 if training else 2)", "6"),
        Mutant("never training", "(6 if training else 2)", "2"),
        Mutant("all parameters", 'model["active"]', '(model["matrices"] + model["head"])'),
        Mutant("all parameters, embedding too", 'model["active"]',
               'sum(model[k] for k in ("matrices", "embedding", "head", "routers", "norms"))'),
        Mutant("utilisation multiplied", ' * machine["utilisation"])', ') * machine["utilisation"]'),
        Mutant("no utilisation", ' * machine["utilisation"]', ""),
        Mutant("one GPU computes", '(machine["gpus"] * machine["peak"]', '(machine["peak"]'),
        Mutant("seconds", " / 3600", ""),
        Mutant("minutes", "/ 3600", "/ 60"),
        Mutant("price of one GPU", ' * machine["gpus"] * machine["price"]', ' * machine["price"]'),
        Mutant("no price", ' * machine["gpus"] * machine["price"]', ' * machine["gpus"]'),
        Mutant("GPUs twice", ' * machine["price"]', ' * machine["gpus"] * machine["price"]'),
        Mutant("model changed", 'sequence_bytes = context', 'model["matrices"] = 0\n    sequence_bytes = context'),
        Mutant("one key missing", '"hours": hours, ', ""),
        Mutant("gigabytes", '"weight_bytes": weight_bytes', '"weight_bytes": weight_bytes / 1e9'),
    ],
}
