"""Wrong solutions of chapter 09's exercises."""

from tests.mutants import Mutant

LIGHTNING = "total += 5 * c * wide + 2 * wide * config.head_dim"
SOFTMAX = "total += 2 * c * wide + 2 * c * narrow + 2 * wide * context"
EXPERTS = "total += config.num_experts_per_tok * 3 * c * config.intermediate_size"
ROUTER = "total += c * config.num_local_experts"
HEAD = "total = c * config.vocab_size"
CALL = "model(ids, document_ids=documents, cache=cache, last_only=True).logits[:, -1]"
NEW = "cache = model.new_cache() if cache is None else cache"
SPLIT = '[item.strip() for item in answer.replace("\\n", ",").split(",") if item.strip()]'
NEAR = "len(item) == len(needle) and sum(a != b for a, b in zip(item, needle)) == 1"
ORDER = '"order": longest[-1] / len(asked)'
FOUND = '"found": 1 - len(left) / len(asked)'
TABLE = "longest[j + 1] = before[j] + 1 if item == needle else max(before[j + 1], longest[j])"

MUTANTS = {
    "9.1": [
        Mutant("one FLOP for a multiply-add", "return 2 * total", "return total"),
        Mutant("no head", HEAD, "total = 0"),
        Mutant("embedding counted", HEAD, "total = 2 * c * config.vocab_size"),
        Mutant("four matrices in lightning layers", "5 * c * wide", "4 * c * wide"),
        Mutant("three matrices in lightning layers", "5 * c * wide", "3 * c * wide"),
        Mutant("state touched once", "2 * wide * config.head_dim", "wide * config.head_dim"),
        Mutant("state of one head", "2 * wide * config.head_dim", "2 * config.head_dim**2"),
        Mutant("state as one large matrix", "2 * wide * config.head_dim", "wide**2"),
        Mutant("no state", LIGHTNING, "total += 5 * c * wide"),
        Mutant("state times context", "2 * wide * config.head_dim", "2 * wide * config.head_dim * context"),
        Mutant("k and v of all heads", "2 * c * narrow", "2 * c * wide"),
        Mutant("no output matrix", "2 * c * wide + 2 * c * narrow", "c * wide + 2 * c * narrow"),
        Mutant("attention of key heads", "2 * wide * context", "2 * narrow * context"),
        Mutant("scores only", "2 * wide * context", "wide * context"),
        Mutant("context without itself", "2 * wide * context", "2 * wide * (context - 1)"),
        Mutant("context and one more", "2 * wide * context", "2 * wide * (context + 1)"),
        Mutant("context squared", "2 * wide * context", "2 * wide * context**2"),
        Mutant("kinds exchanged", "if kind == 0:", "if kind == 1:"),
        Mutant("all experts", "config.num_experts_per_tok * 3", "config.num_local_experts * 3"),
        Mutant("one expert", "config.num_experts_per_tok * 3", "3"),
        Mutant("two matrices in an expert", "* 3 * c *", "* 2 * c *"),
        Mutant("no router", ROUTER, "pass"),
        Mutant("router once", "        " + ROUTER, "    " + ROUTER.replace("total +=", "total +=") + "\n    for _ in "
               "config.attn_type_list:"),
        Mutant("floats", "return 2 * total", "return 2.0 * total"),
    ],
    "9.2": [
        Mutant("a new cache each time", CALL,
               "model(ids, document_ids=documents, cache=model.new_cache(), last_only=True).logits[:, -1]"),
        Mutant("the given cache is ignored", NEW, "cache = model.new_cache()"),
        Mutant("no cache", "cache=cache, last_only", "last_only"),
        Mutant("logits of all positions", ", last_only=True", ""),
        Mutant("gradients recorded", "with torch.no_grad():", "if True:"),
        Mutant("inference mode", "with torch.no_grad():", "with torch.inference_mode():"),
        Mutant("document_ids not passed", "document_ids=documents, ", ""),
        Mutant("the last piece is dropped", "range(0, input_ids.shape[1], piece)",
               "range(0, input_ids.shape[1] - piece + 1, piece)"),
        Mutant("at once", "range(0, input_ids.shape[1], piece)", "[0]"),
        Mutant("rows cut instead of columns", "ids = input_ids[:, start : start + piece]",
               "ids = input_ids[start : start + piece]"),
        Mutant("overlap of one", "ids = input_ids[:, start : start + piece]",
               "ids = input_ids[:, max(start - 1, 0) : start + piece]"),
        Mutant("token by token", "input_ids.shape[1], piece)", "input_ids.shape[1], 1 + 0 * piece)"),
        Mutant("logits with an axis too many", ".logits[:, -1]", ".logits"),
        Mutant("returns a new cache", "return logits, cache", "return logits, model.new_cache()"),
        Mutant("returns logits alone", "return logits, cache", "return logits"),
        Mutant("logits of the first piece", source='''
def prefill(model, input_ids, piece, *, cache=None, document_ids=None):
    cache = model.new_cache() if cache is None else cache
    with torch.no_grad():
        found = [model(ids, cache=cache, last_only=True,
                       document_ids=None if document_ids is None else document_ids.split(piece, 1)[number]).logits[:, -1]
                 for number, ids in enumerate(input_ids.split(piece, dim=1))]
    return found[0], cache
'''),
        Mutant("all logits kept", source='''
def prefill(model, input_ids, piece, *, cache=None, document_ids=None):
    cache = model.new_cache() if cache is None else cache
    with torch.no_grad():
        found = [model(ids, cache=cache, last_only=True,
                       document_ids=None if document_ids is None else document_ids.split(piece, 1)[number]).logits[:, -1]
                 for number, ids in enumerate(input_ids.split(piece, dim=1))]
    return found[-1], cache
'''),
        Mutant("only the first padding", "document_ids[:, start : start + piece]", "document_ids[:, : len(ids[0])]"),
        Mutant("probabilities", "return logits, cache", "return logits.softmax(-1), cache"),
    ],
    "9.3": [
        Mutant("commas only", SPLIT, '[item.strip() for item in answer.split(",") if item.strip()]'),
        Mutant("lines only", SPLIT, '[item.strip() for item in answer.split("\\n") if item.strip()]'),
        Mutant("blanks cut too", SPLIT, 'answer.replace(",", " ").split()'),
        Mutant("not stripped", SPLIT, '[item for item in answer.replace("\\n", ",").split(",") if item]'),
        Mutant("empty items stay", SPLIT, '[item.strip() for item in answer.replace("\\n", ",").split(",")]'),
        Mutant("case ignored", SPLIT, SPLIT.replace("answer.", "answer.lower().")),
        Mutant("share of the items", FOUND, '"found": (len(asked) - len(left)) / max(len(items), 1)'),
        Mutant("a count, no share", FOUND, '"found": float(len(asked) - len(left))'),
        Mutant("credited again and again", FOUND, '"found": sum(item in asked for item in items) / len(asked)'),
        Mutant("needles as a set", FOUND, '"found": len(set(items) & set(asked)) / len(asked)'),
        Mutant("one item for both copies", FOUND, '"found": sum(needle in items for needle in asked) / len(asked)'),
        Mutant("needle inside of the text", FOUND, '"found": sum(needle in answer for needle in asked) / len(asked)'),
        Mutant("asked is changed", "left, count = list(asked), ", "left, count = asked, "),
        Mutant("duplicates by set", 'count["duplicates"] += 1', 'count["duplicates"] = 1'),
        Mutant("no duplicates", "elif item in asked:", "elif False:"),
        Mutant("near by length alone", NEAR, "len(item) == len(needle)"),
        Mutant("near without equal length", NEAR, "sum(a != b for a, b in zip(item, needle)) == 1"),
        Mutant("near up to two characters", "== 1 for needle", "<= 2 for needle"),
        Mutant("near only where missing", "for needle in asked):", "for needle in left):"),
        Mutant("near counted per needle", 'count["near"] += 1',
               'count["near"] += sum(len(item) == len(n) and sum(a != b for a, b in zip(item, n)) == 1 for n in asked)'),
        Mutant("near is invented too", 'count["near"] += 1', 'count["near"] += 1\n            count["invented"] += 1'),
        Mutant("order of the items", ORDER, '"order": longest[-1] / max(len(items), 1)'),
        Mutant("order is all or nothing", ORDER, '"order": float(longest[-1] == len(asked))'),
        Mutant("order place by place", ORDER, '"order": sum(a == b for a, b in zip(items, asked)) / len(asked)'),
        Mutant("order as a count", ORDER, '"order": float(longest[-1])'),
        Mutant("longest common run", TABLE, "longest[j + 1] = before[j] + 1 if item == needle else 0"),
        Mutant("table overwritten while read", "before = longest[:]", "before = longest"),
        Mutant("order greedily", TABLE, "longest[j + 1] = max(longest[j + 1], before[j] + 1 if item == needle and "
               "before[j] == j else 0)"),
        Mutant("invented by set", 'count["invented"] += 1', 'count["invented"] = 1'),
    ],
}
