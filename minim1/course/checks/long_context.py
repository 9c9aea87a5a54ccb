"""Checks of chapter 09. Expected values are counted here by loops; the model of 9.2 is an input, and watched."""

import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from minim1.config import M1Config, preset
from minim1.course.checking import Exercise, Probe

# 9.1


def flops_per_token(probe: Probe) -> None:
    kinds = (0, 1, 0, 0, 1, 0, 0)
    config = some_config(probe, kinds)
    for context in (100 + probe.size(1, 99), 1000 + probe.size(1, 99)):
        flops(probe, f"7 layers, context {context}", config, context)
    flops(probe, "other sizes", some_config(probe, (1, 0, 1, 0, 0)), 77)
    flops(probe, "M1 at 100,000 tokens", preset("m1-456b"), 100_000)
    flops(probe, "context 1", config, 1, layer="edge case")
    flops(probe, "no softmax layer", some_config(probe, (0, 0, 0)), 5000, layer="edge case")
    flops(probe, "no lightning layer", some_config(probe, (1, 1)), 5000, layer="edge case")
    dense = replace(config, num_local_experts=1, num_experts_per_tok=1)
    flops(probe, "one expert", dense, 50, layer="edge case")


def some_config(probe: Probe, kinds: tuple[int, ...]) -> M1Config:
    """Sizes that have no common factors to confuse: no term of the sum is a multiple of another."""
    kv_heads = probe.size(2, 3)
    return M1Config(
        vocab_size=1009 + probe.size(0, 50), hidden_size=37 + 2 * probe.size(0, 5), num_hidden_layers=len(kinds),
        intermediate_size=53 + 2 * probe.size(0, 5), attn_type_list=kinds, num_attention_heads=7 * kv_heads,
        num_key_value_heads=kv_heads, head_dim=20 + 4 * probe.size(0, 3), num_local_experts=11 + probe.size(0, 3),
        num_experts_per_tok=3,
    )


def terms(config: M1Config, context: int) -> dict[str, int]:
    """Multiply-adds by what they are for, layer by layer."""
    c, h, d, g = config.hidden_size, config.num_attention_heads, config.head_dim, config.num_key_value_heads
    names = ("lightning matrices", "states", "softmax matrices", "attention", "routers", "experts", "head")
    found = dict.fromkeys(names, 0)
    for kind in config.attn_type_list:
        if kind == 0:
            found["lightning matrices"] += sum(c * h * d for _ in ("q", "k", "v", "gate", "out"))
            found["states"] += sum(h * d * d for _ in ("add", "read"))
        else:
            found["softmax matrices"] += c * h * d + c * g * d + c * g * d + h * d * c
            found["attention"] += sum(h * d * context for _ in ("scores", "values"))
        found["routers"] += c * config.num_local_experts
        found["experts"] += sum(3 * c * config.intermediate_size for _ in range(config.num_experts_per_tok))
    found["head"] = c * config.vocab_size
    return found


def flops(probe: Probe, name: str, config: M1Config, context: int, layer: str = "value") -> None:
    value = probe.call(config, context)
    found = terms(config, context)
    probe.equal(name, value, 2 * sum(found.values()), layer=layer, mistakes=flops_mistakes(config, context, found))
    probe.require(isinstance(value, int), "property",
                  f"The number is right, but it is a {type(value).__name__}: count in whole numbers, without / or 2.0.")


def flops_mistakes(config: M1Config, context: int, found: Mapping[str, int]) -> dict[str, int]:
    total, layers = sum(found.values()), config.num_hidden_layers
    c, h, d, g = config.hidden_size, config.num_attention_heads, config.head_dim, config.num_key_value_heads
    softmax = sum(config.attn_type_list)
    lightning = layers - softmax

    def but(**others: int) -> int:
        changed = {name.replace("_", " "): number for name, number in others.items()}
        return 2 * sum({**found, **changed}.values())

    missing = {f"The {name} are missing from the sum.": 2 * (total - number)
               for name, number in found.items() if name != "head" and number}
    return {
        "The number is half of what it should be: a multiply-add is 2 FLOPs.": total,
        "The number is twice what it should be: a multiply-add is 2 FLOPs, here each counts 4.": 4 * total,
        "The head is missing: C × V once, for the logits of the token.": but(head=0),
        **missing,
        "The embedding is counted: it is a look-up, no product.": 2 * (total + found["head"]),
        "The head is counted in every layer: there is one, at the end.": but(head=layers * found["head"]),
        "All E experts are counted: a token is worked on by K of them.":
            but(experts=found["experts"] // config.num_experts_per_tok * config.num_local_experts),
        "One expert is counted for each layer: K of them work on the token.":
            but(experts=found["experts"] // config.num_experts_per_tok),
        "An expert has three matrices (w1, w2, w3), two are counted.": but(experts=found["experts"] // 3 * 2),
        "An expert has three matrices (w1, w2, w3), one is counted.": but(experts=found["experts"] // 3),
        "The router's matrix is C × E; here it is counted with K columns.":
            but(routers=layers * c * config.num_experts_per_tok),
        "The router is counted in one layer only; every layer has one.": but(routers=c * config.num_local_experts),
        "The experts are counted in one layer only; every layer has them.": but(experts=found["experts"] // layers),
        "A lightning layer has five matrices of C × HD; the gate is missing (or the output), four are counted.":
            but(lightning_matrices=found["lightning matrices"] // 5 * 4),
        "A lightning layer has five matrices of C × HD; three are counted, without gate and output.":
            but(lightning_matrices=found["lightning matrices"] // 5 * 3),
        "k and v of a lightning layer have all H heads; they are counted with the G heads of softmax layers.":
            but(lightning_matrices=lightning * (3 * c * h * d + 2 * c * g * d)),
        "A state is touched twice, when k vᵀ is added and when q reads it; it is counted once.":
            but(states=found["states"] // 2),
        "Each of the H heads has a state of D × D numbers; one state is counted in each layer.":
            but(states=found["states"] // h),
        "A state is D × D numbers for each head, H D² in all; it is counted as (HD)² numbers, one big matrix. (The "
        "report's figure seems to do that too.)": but(states=found["states"] * h),
        "The states are counted as (HD)² once: they are D × D numbers for each head, touched twice.":
            but(states=found["states"] // 2 * h),
        "The states are counted for each token of the context: a state has one size however long the text.":
            but(states=found["states"] * context),
        "k and v of a softmax layer are counted with all H heads: they have G.":
            but(softmax_matrices=softmax * 4 * c * h * d),
        "The output matrix of the softmax layers is missing.":
            but(softmax_matrices=softmax * (c * h * d + 2 * c * g * d)),
        "q is counted with G heads: of a softmax layer only k and v have G.":
            but(softmax_matrices=softmax * (c * h * d + 3 * c * g * d)),
        "Attention is counted for the G key heads: each of the H query heads looks at every token, sharing saves "
        "memory only.": but(attention=softmax * g * 2 * d * context),
        "Attention takes two products for each token, one for the score, one for the value; one is counted.":
            but(attention=found["attention"] // 2),
        "Attention is counted in all layers: lightning layers do not look at the context.":
            but(attention=layers * h * 2 * d * context),
        "Attention is counted in the lightning layers (0), and not in the softmax layers (1).":
            but(attention=lightning * h * 2 * d * context),
        "One softmax layer's attention is counted; each of them looks at the context.":
            but(attention=h * 2 * d * context),
        "One token too few is looked at: `context` includes the new token already, so nothing is to be taken away.":
            but(attention=softmax * h * 2 * d * (context - 1)),
        "One token too many is looked at: `context` includes the new token already.":
            but(attention=softmax * h * 2 * d * (context + 1)),
        "The attention grows with the square of the context: that is the sum over all tokens; here it is one token.":
            but(attention=found["attention"] * context),
        "The kinds are exchanged: 0 is lightning, 1 is softmax.": 2 * sum(
            terms(replace(config, attn_type_list=tuple(1 - kind for kind in config.attn_type_list)), context).values()),
        "The products with weights are counted for every token of the context: the others were read before.":
            2 * (context * (total - found["attention"]) + found["attention"]),
    }


# 9.2


class Watched:
    """A model that notes how it is called."""

    def __init__(self, model: Callable) -> None:
        self.model, self.calls, self.logits, self.hoarded = model, [], [], 0

    def new_cache(self):
        return self.model.new_cache()

    def __call__(self, input_ids: Tensor, **options):
        alive = [logits for logits in self.logits[:-1] if logits() is not None]  # the newest may still have a name
        self.hoarded = max(self.hoarded, len(alive))
        self.calls.append((input_ids.clone(), dict(options), torch.is_grad_enabled()))
        out = self.model(input_ids, **options)
        self.logits.append(weakref.ref(out.logits))
        return out

    forward = __call__

    def __repr__(self) -> str:
        return "a small model"

    def __getattr__(self, name: str):
        return getattr(self.model, name)


def prefill(probe: Probe) -> None:
    model, piece = small_model(probe), probe.size(4, 6)
    length = 3 * piece + probe.size(1, piece - 1)
    ids = tokens(probe, 2, length)
    more = tokens(probe, 2, 3)
    logits, cache = one_prefill(probe, model, ids, piece, f"{length} tokens, {piece} at a time")
    continued(probe, model, cache, ids, more, "after the prompt")

    kept = model.new_cache()
    with torch.no_grad():
        model(more, cache=kept)
    one_prefill(probe, model, ids, piece, "after 3 tokens in a cache", cache=kept, before=more)

    pads = torch.tensor([[0], [piece + 2]])
    document_ids = torch.where(torch.arange(length) >= pads, 0, -1)
    _, cache = one_prefill(probe, model, ids, piece, "with padding in front", document_ids=document_ids)
    continued(probe, model, cache, ids, more, "after padding", document_ids)

    for name, size, step in (("no shorter piece", 3 * piece, piece), ("piece as long as the prompt", length, length),
                             ("piece longer than the prompt", length, 10 * length), ("one token at a time", 5, 1),
                             ("a single token", 1, piece)):
        one_prefill(probe, model, ids[:, :size], step, name, layer="edge case")
    one_prefill(probe, model, ids[:1], piece, "one row", layer="edge case")


def small_model(probe: Probe):
    """Lightning and softmax, fp64, so that equal means equal."""
    from minim1.model.decoder import MiniM1

    return MiniM1(M1Config(
        vocab_size=31, hidden_size=12, intermediate_size=12, num_hidden_layers=3, attn_type_list=(0, 1, 0),
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, num_local_experts=2,
    ), seed=probe.size(0, 10**6)).double().eval()


def tokens(probe: Probe, rows: int, length: int) -> Tensor:
    return torch.randint(31, (rows, length), generator=probe.generator)


@torch.no_grad()
def at_once(model: Callable, ids: Tensor, document_ids: Tensor | None = None, before: Tensor | None = None) -> Tensor:
    """Logits (B, T, V) of all positions, without a cache."""
    if before is None:
        return model(ids, document_ids=document_ids).logits
    return model(torch.cat([before, ids], dim=1)).logits[:, before.shape[1]:]


def one_prefill(probe: Probe, model: Callable, ids: Tensor, piece: int, name: str, *, cache=None, document_ids=None,
                before: Tensor | None = None, layer: str = "value"):
    watched = Watched(model)
    options = {} if cache is None else {"cache": cache}
    options |= {} if document_ids is None else {"document_ids": document_ids}
    recorded = layer == "value"  # called in both modes
    try:
        with torch.set_grad_enabled(recorded):
            value = probe.call(watched, ids, piece, **options)
            left = torch.is_grad_enabled()
    finally:
        cut_alike(probe, watched.calls, ids, piece)
    probe.require(left == recorded, "property", "The caller's gradient mode is another one after the call: use "
                  "torch.no_grad() as a `with` block or a decorator, which put it back.")
    logits, filled = probe.pair(value, ("logits", "cache"))
    watch(probe, watched, ids, piece, filled, cache, document_ids)
    expected = at_once(model, ids, document_ids, before)
    right, first = expected[:, -1], expected[:, min(piece, ids.shape[1]) - 1]
    if isinstance(logits, Tensor) and tuple(logits.shape) == (len(ids), 1, 31):
        probe.require(False, "shape", "The logits have shape (B, 1, V), expected (B, V): take position -1 of them.")
    probe.tensor(f"logits ({name})", logits, shape=right.shape, dtype=torch.float64, axes=("B", "V"))
    probe.close(f"logits ({name})", logits, right, axes="BV", layer=layer, mistakes={
        "The logits are those after the first piece: return those of the last call.": first,
        "The logits are probabilities: return them as the model gives them.": right.softmax(-1),
        "The logits are log-probabilities: return them as the model gives them.": right.log_softmax(-1),
        **({} if before is None else {
            "The cache that was given is not read: go on with it.": at_once(model, ids)[:, -1]}),
        **({} if document_ids is None else {
            "Padding is read like text: pass each piece's own columns of document_ids.": at_once(model, ids)[:, -1]}),
    })
    probe.require(not logits.requires_grad, "property",
                  "The logits carry a gradient graph: read under torch.no_grad().")
    return logits, filled


def cut_alike(probe: Probe, calls: list, ids: Tensor, piece: int) -> None:
    """Shapes that make the model itself stop, so said also when it has."""
    for part, options, _ in calls:
        shape = tuple(part.shape)
        probe.require(len(shape) == 2 and shape[0] == len(ids) and shape[1], "property",
                      f"A call got input_ids of shape {shape}: a piece is 1 to {piece} columns of all {len(ids)} rows.")
        documents = tuple(getattr(options.get("document_ids"), "shape", shape))
        probe.require(documents == shape, "property",
                      f"A call got input_ids of shape {shape} and document_ids of shape {documents}: cut both at the "
                      "same places.")


def watch(probe: Probe, watched: Watched, ids: Tensor, piece: int, filled, given, document_ids: Tensor | None) -> None:
    """What the calls were like, each mistake in words of its own."""
    calls = watched.calls
    probe.require(calls, "property", "The model was never called: feed it the pieces of input_ids.")
    sizes = [call[0].shape[1] for call in calls]
    wanted = [min(piece, ids.shape[1] - start) for start in range(0, ids.shape[1], piece)]
    probe.require(max(sizes) <= piece, "property",
                  f"A call had {max(sizes)} tokens, more than piece = {piece}: memory is bounded by the longest call.")
    probe.require(sizes != wanted[:-1], "property",
                  f"The last, shorter piece was never read: the calls had {sizes} tokens of {ids.shape[1]}.")
    probe.require(sizes == wanted, "property", f"The calls had {brief(sizes)} tokens, expected {brief(wanted)}.")
    probe.require(torch.equal(torch.cat([call[0] for call in calls], dim=1), ids), "property",
                  "The pieces put together are not input_ids: cut along axis 1, in order, without gap or overlap.")
    caches = [call[1].get("cache") for call in calls]
    probe.require(all(cache is not None for cache in caches), "property",
                  "A call got no cache: without it the model does not know what it has read. Pass cache=cache.")
    probe.require(all(cache is caches[0] for cache in caches), "property",
                  "The calls got different caches: make one before the loop, and pass the same to each call.")
    if given is not None:
        probe.require(caches[0] is given, "property",
                      "A cache was given, and the calls got another one: go on with the given one, and make a new one "
                      "only where it is None.")
    probe.require(filled is caches[0], "type", "The second result is not the cache that the calls filled: return it.")
    probe.require(all(call[1].get("last_only") for call in calls), "property",
                  "A call made the logits of every position of its piece: ask for last_only=True each time.")
    probe.require(not any(call[2] for call in calls), "property",
                  "The model was called while gradients were recorded: the graph keeps every piece's activations. Call it "
                  "under torch.no_grad().")
    probe.require(not any(tensor.is_inference() for layer in filled.layers for tensor in layer.tensors()), "property",
                  "The cache holds inference tensors, to which nobody may write outside of inference mode: use "
                  "torch.no_grad() instead.")
    probe.require(watched.hoarded == 0, "property",
                  "Logits of earlier pieces are kept while later ones are read: only the last ones are wanted, so let "
                  "one name hold them.")
    if document_ids is not None:
        parts = [call[1].get("document_ids") for call in calls]
        probe.require(all(part is not None for part in parts), "property",
                      "document_ids were given and a call did not get its piece: padding is then read like text.")
        probe.require(torch.equal(torch.cat(list(parts), dim=1), document_ids), "property",
                      "The pieces of document_ids are not those of input_ids: cut both at the same places.")


def brief(sizes: list[int]) -> str:
    return str(sizes) if len(sizes) <= 8 else f"{str(sizes[:6])[:-1]}, ...] ({len(sizes)} calls)"


def continued(probe: Probe, model: Callable, cache, ids: Tensor, more: Tensor, name: str,
              document_ids: Tensor | None = None) -> None:
    """The cache must be that of the whole prompt: what comes next has to fit."""
    whole = torch.cat([ids, more], dim=1)
    if document_ids is not None:
        document_ids = torch.cat([document_ids, torch.zeros_like(more)], dim=1)
    with torch.no_grad():
        value = model(more, cache=cache).logits
    probe.close(f"3 tokens more, {name}", value, at_once(model, whole, document_ids)[:, ids.shape[1]:], axes="BTV",
                layer="property", mistakes={
                    "The cache is empty, or another than the one that was filled.": at_once(model, more)})


# 9.3


KEYS = ("found", "order", "duplicates", "near", "invented")


def score_needles(probe: Probe) -> None:
    for name, answer, asked, layer, mistakes in CASES:
        scored(probe, name, answer, list(asked), mistakes, layer)
    for number in range(6):
        answer, asked = random_case(probe)
        scored(probe, f"random answer {number}", answer, asked, {}, "value")


def random_case(probe: Probe) -> tuple[str, list[str]]:
    """Short words over few letters: repeats, near misses and inventions happen by themselves."""
    def word() -> str:
        return "".join("abc"[probe.size(0, 2)] for _ in range(probe.size(2, 4)))

    asked = [word() for _ in range(probe.size(3, 7))]
    pool = asked + [word() for _ in range(5)]
    items = [pool[probe.size(0, len(pool) - 1)] for _ in range(probe.size(4, 10))]
    marks = (", ", "\n", ",", " ,\n")
    return "".join(item + marks[probe.size(0, 3)] for item in items), asked


def scored(probe: Probe, name: str, answer: str, asked: list[str], mistakes: Mapping, layer: str) -> None:
    handed = list(asked)
    try:
        value = probe.call(answer, handed)
    finally:  # before an error that the change has led to
        probe.require(handed == asked, "property", "score_needles changed the list `asked`; work on a copy.")
    kind = type(value).__name__
    probe.require(isinstance(value, dict), "type",
                  f"score_needles returned {'an' if kind[0] in 'aeiou' else 'a'} {kind}, "
                  f"expected a dict with the keys {', '.join(KEYS)}.")
    odd = sorted(map(str, set(value) ^ set(KEYS)))
    probe.require(not odd, "type", f"The dict's keys should be {', '.join(KEYS)}; it has {sorted(map(str, value))}.")
    expected = needle_scores(answer, asked)
    for key in KEYS:
        got, right = (round(x, 9) if type(x) is float else x for x in (value[key], expected[key]))
        wrong = {sentence: round(x, 9) for sentence, x in mistakes.get(key, {}).items()}
        if type(got) not in (int, float) or got != right:
            probe.equal(f"{key} ({name})", got, right, layer=layer, mistakes=wrong)
    probe.equal(name, list(expected.values()), list(expected.values()))  # one row for all five
    whole = all(isinstance(value[key], int) for key in KEYS[2:])
    probe.require(whole, "property", "The counts are right, but not all of them are int: count in whole numbers.")


def needle_scores(answer: str, asked: list[str]) -> dict[str, float | int]:
    """By the definitions on the card."""
    items = [item.strip() for line in answer.splitlines() for item in line.split(",")]
    items = [item for item in items if item]
    credited = sum(min(items.count(needle), asked.count(needle)) for needle in set(asked))
    exact = sum(item in asked for item in items)
    near = sum(item not in asked and any(one_apart(item, needle) for needle in asked) for item in items)
    lengths = [[0] * (len(asked) + 1) for _ in range(len(items) + 1)]
    for i, item in enumerate(items):
        for j, needle in enumerate(asked):
            lengths[i + 1][j + 1] = lengths[i][j] + 1 if item == needle else max(lengths[i][j + 1], lengths[i + 1][j])
    return {"found": credited / len(asked), "order": lengths[-1][-1] / len(asked), "duplicates": exact - credited,
            "near": near, "invented": len(items) - exact - near}


def one_apart(a: str, b: str) -> bool:
    return len(a) == len(b) and sum(x != y for x, y in zip(a, b)) == 1


STRIP = "Blanks around an item belong to it: strip each item before it is compared."
BREAKS = "Items are cut at commas only: cut at line breaks too."
COMMAS = "Items are cut at line breaks only: cut at commas too."
CASES = (  # name, answer, asked, layer, key -> sentence -> what the mistake gives
    ("all, in order", "12,47,99", ("12", "47", "99"), "value", {"found": {
        "The share is a count: divide by the number of asked needles.": 3,
        "Nothing is found although every item is a needle: are the items texts, cut at commas?": 0.0}, "order": {
        "The order is a count: divide by the number of asked needles.": 3.0}}),
    ("blanks and line breaks", " 12 , 47\n99 ", ("12", "47", "99"), "value", {
        "found": {STRIP: 0.0, BREAKS: 1 / 3, COMMAS: 1 / 3}}),
    ("one of four, and one that was not asked", "12, 500", ("12", "47", "99", "63"), "value", {"found": {
        "The share is that of the items: divide by the number of asked needles.": 0.5}, "order": {
        "The order is divided by the number of items: divide by the number of asked needles.": 0.5,
        "The order is 0 although one needle is there: the longest common subsequence has one entry, of four.": 0.0},
        "invented": {
        "Needles that are missing were counted: invented are items that equal no needle.": 3}}),
    ("another order", "99, 12, 47", ("12", "47", "99"), "value", {"order": {
        "The order is compared place by place: an item too many at the front would spoil all of it. Take the longest "
        "common subsequence.": 0.0,
        "The longest common subsequence is divided by the wrong number: divide by the number of asked needles.": 2.0,
        "The order is all or nothing: it is the length of the longest common subsequence, divided.": 0.0,
        "The order is not looked at: it is the longest common subsequence, not the number found.": 1.0}}),
    ("invented ones between", "12, 500, 47, 600, 99", ("12", "47", "99"), "value", {"order": {
        "What stands in between breaks the order: a subsequence may leave entries out.": 1 / 3,
        "The length is divided by the number of items: divide by the number of asked needles.": 0.6},
        "invented": {"Items that equal no needle are not counted.": 0,
                     "Not all inventions are counted: there are two of them.": 1}}),
    ("two of three in order", "99, 12, 47", ("12", "99", "47"), "value", {"order": {
        "The order counts what stands at its own place: a subsequence may leave entries out on both sides.": 1 / 3}}),
    ("a longer greedy trap", "d, a, b, c", ("a", "b", "c", "d"), "value", {"order": {
        "The order is matched greedily from the left: d first leaves nothing after it. The longest common subsequence "
        "is a, b, c.": 0.25}}),
    ("the trap turned round", "b, c, d, a", ("a", "b", "c", "d"), "value", {"order": {
        "The order is matched greedily along the asked needles: a first leaves nothing after it. The longest common "
        "subsequence is b, c, d.": 0.25}}),
    ("one needle three times", "47, 47, 47", ("47", "12"), "value", {"found": {
        "A needle is credited for every item that equals it: each is credited once.": 1.5,
        "The share is above what was returned: one of two needles was.": 1.0},
        "duplicates": {"Repeated items are not counted as duplicates.": 0,
                       "The first copy is counted as a duplicate too: the first is the credited one.": 3,
                       "A needle that is repeated counts once: count its items beyond the first.": 1}}),
    ("a needle asked twice", "47, 47, 47, 12", ("47", "12", "47"), "value", {"found": {
        "A needle that was asked twice is credited once: it has two places in the list.": 2 / 3},
        "duplicates": {
            "The second copy is a duplicate only if the needle was asked once: here it was asked twice.": 2}}),
    ("a needle asked twice, returned once", "47, 12", ("47", "12", "47"), "value", {"found": {
        "One item is credited for both copies of a needle: it takes two items.": 1.0}}),
    ("upper and lower case", "Ab, cd", ("ab", "cd"), "value", {"found": {
        "Case is ignored: an item has to equal the needle exactly.": 1.0}, "near": {
        "Ab differs from ab in one character, so it is near.": 0}, "invented": {
        "A near miss is counted as invented too: each item is counted once.": 1}}),
    ("near misses", "13, 48, 487, 4, 99", ("12", "47", "99"), "value", {"near": {
        "Near misses are not counted: equal length, one character differs.": 0,
        "An item of another length is counted as near: the lengths must be equal.": 4,
        "An item that equals a needle is counted as near.": 3},
        "invented": {"Near misses are counted as invented too: each item is counted once.": 4}}),
    ("near two needles at once", "22", ("12", "23"), "value", {"near": {
        "An item that is near two needles is counted twice: count items.": 2}}),
    ("near a needle that was found", "12, 13", ("12", "47"), "value", {"near": {
        "It does not matter whether the needle was found: 13 is near 12.": 0}}),
    ("two characters differ", "ab21", ("ab12",), "value", {"near": {
        "Two exchanged characters differ in two places: near is exactly one.": 1}}),
    ("a repeated invention", "500, 500", ("12", "47"), "value", {"invented": {
        "An invention that is repeated counts once: count items.": 1},
        "duplicates": {"Only items that equal a needle can be duplicates.": 1}}),
    ("a needle inside of an item", "120, 4712", ("12", "47"), "value", {"found": {
        "A needle is found inside of a longer item: items have to be equal.": 1.0}}),
    ("empty answer", "", ("12", "47"), "edge case", {"invented": {
        "An empty item is counted: drop empty items.": 1}}),
    ("only commas and blanks", " , ,\n ,", ("12", "47"), "edge case", {"invented": {
        "Empty items are counted: drop them, after stripping.": 4}}),
    ("blanks inside of an item", "two words, three", ("two words", "three"), "edge case", {"found": {
        "Items are cut at blanks: cut at commas and line breaks only.": 0.5}}),
    ("a comma at the end", "12,\n47,\n", ("12", "47"), "edge case", {"invented": {
        "Empty items are counted: drop them, after stripping.": 1}}),
    ("one needle", "12", ("12",), "edge case", {}),
)


def flops_reference(config, context):
    from minim1.report.flops import flops_per_token as reference

    return reference(config, context)


@torch.no_grad()
def prefill_reference(model, input_ids, piece, *, cache=None, document_ids=None):
    cache = model.new_cache() if cache is None else cache
    for start in range(0, input_ids.shape[1], piece):
        columns = slice(start, start + piece)
        documents = None if document_ids is None else document_ids[:, columns]
        logits = model(input_ids[:, columns], document_ids=documents, cache=cache, last_only=True).logits[:, -1]
    return logits, cache


EXERCISES = (
    Exercise("9.1", "flops_per_token", "FLOPs per token", flops_per_token, lambda: flops_reference),
    Exercise("9.2", "prefill", "Chunked prefill", prefill, lambda: prefill_reference),
    Exercise("9.3", "score_needles", "Multi-needle scorer", score_needles, lambda: needle_scores),
)
