"""Checks of chapter 15: int8 weights, a thinking budget, and what serving costs.

O output channels, I input channels. The oracles work in fp64, or on plain numbers; none uses the package's functions.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from minim1.course.checking import Exercise, Probe
from minim1.course.comparing import plain, wrong_type

# 15.1


def rows_of(weight: Tensor) -> Tensor:
    """(O,) fp64: the scale of each row, 1 where it holds zeros only."""
    largest = weight.double().abs().amax(1)
    return torch.where(largest > 0, largest / 127, 1.0)


def product(x: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
    return (x.double() @ codes.double().T) * scales.double()


def int8_linear(probe: Probe) -> None:
    outputs, inputs = probe.size(5, 8), 2 * probe.size(5, 8) + 1
    weight = probe.random(outputs, inputs) * torch.logspace(-2, 1, outputs).unsqueeze(1)
    weight[1, 0] = -1.5 * weight[1].abs().max()  # a row whose largest number is negative
    x = probe.random(3, 2, inputs)
    out, codes, scales = coded(probe, x, weight)
    probe.close("tensor of scales", scales, rows_of(weight), axes="O", mistakes=scale_mistakes(weight))
    judge_codes(probe, weight, codes)
    judge_output(probe, x, weight, out, codes, scales)
    second_call(probe, x[:, 0], weight, codes, scales)
    ties(probe)
    zeros(probe)
    other_dtypes(probe, x, weight)
    single = coded(probe, x[0, 0], weight)
    probe.close("output for a single vector x (I,)", single[0], product(x[0, 0], *single[1:]), axes="O",
                layer="edge case")
    wide = probe.random(2, 300)
    wide[:, -1] = 9.0  # the largest of each row
    long = coded(probe, probe.random(3, 300), wide, " (300 input channels)")
    probe.close("tensor of scales (300 input channels)", long[2], rows_of(wide), axes="O", layer="property")


def second_call(probe: Probe, x: Tensor, weight: Tensor, *first: Tensor) -> None:
    """Another weight of the same shape: nothing may be left over from the first."""
    other = weight.flip(0)
    found = coded(probe, x, other)
    for name, new, old in zip(("codes", "scales"), found[1:], first):
        probe.require(not torch.equal(new, old), "property",
                      f"A second call with another weight gives the {name} of the first: something was kept between "
                      "calls.")
    probe.close("tensor of scales in a second call", found[2], rows_of(other), axes="O", layer="property")
    judge_codes(probe, other, found[1])
    judge_output(probe, x, other, *found, layer="property")


def coded(probe: Probe, x: Tensor, weight: Tensor, label: str = "") -> tuple[Tensor, Tensor, Tensor]:
    """Call, and look at types and shapes."""
    found = probe.pair(probe.call(x, weight), ("out", "codes", "scales"))
    out, codes, scales = found
    if all(isinstance(value, Tensor) for value in found):
        kinds = [value.dtype == torch.int8 for value in found]
        probe.require(kinds[1] or not any(kinds), "type",
                      "The results have changed places: end with `return out, codes, scales`.")
    probe.tensor(f"output{label}", out, shape=(*x.shape[:-1], len(weight)), dtype=x.dtype, axes="BTO"[-x.ndim:])
    if isinstance(codes, Tensor) and codes.dtype != torch.int8:
        name = str(codes.dtype).removeprefix("torch.")
        probe.require(False, "type", f"The codes are {name}, expected int8: convert them after rounding, with "
                                     "`.to(torch.int8)`; they are what is stored.")
    probe.tensor(f"tensor of codes{label}", codes, shape=weight.shape, dtype=torch.int8, axes="OI")
    if isinstance(scales, Tensor):
        probe.require(tuple(scales.shape) != (len(weight), 1), "shape",
                      f"The scales have shape {tuple(scales.shape)}, expected {(len(weight),)}: take the last "
                      "dimension away, as with `squeeze(1)`, before you return them.")
        probe.require(scales.numel() != 1 or len(weight) == 1, "shape",
                      "There is one scale for the whole matrix: each output channel, that is each row of the weight, "
                      "has its own.")
        probe.require(tuple(scales.shape) != (weight.shape[1],) or weight.shape[0] == weight.shape[1], "shape",
                      f"There is a scale for each of the {weight.shape[1]} input channels, expected one for each of "
                      f"the {len(weight)} output channels: take the maximum along each row, over dimension 1.")
        probe.require(scales.dtype == torch.float32, "type",
                      f"The scales are {str(scales.dtype).removeprefix('torch.')}, expected float32 whatever the "
                      "dtype of the weight: take the weight to float32 first.")
        probe.require(scales.isfinite().all(), "finite", "Some scale is NaN or infinite.")
    probe.tensor(f"tensor of scales{label}", scales, shape=(len(weight),), dtype=torch.float32, axes="O")
    return out, codes, scales


def scale_mistakes(weight: Tensor) -> dict[str, Tensor]:
    double, right = weight.double(), rows_of(weight)
    return {
        "The scale is the largest magnitude / 128: codes run from -127 to 127, divide by 127.": right * 127 / 128,
        "The scale is the largest magnitude / 255: that is the whole range of 8 bits; symmetric codes run from -127 to "
        "127 and need 127.": right * 127 / 255,
        "The scale is the spread (largest minus smallest number) / 255: symmetric codes have no zero point, the scale "
        "is the largest magnitude / 127.": (double.amax(1) - double.amin(1)) / 255,
        "The scale is the largest magnitude itself: divide by 127.": right * 127,
        "The scales are upside down: yours is 127 / largest magnitude, a code times its scale must be near the weight.":
            1 / right,
        "The scale is that of the largest number, not of the largest magnitude: in a row of -3 and 1 it is 3 / 127.":
            double.amax(1) / 127,
        "All rows have the same scale, that of the whole matrix: each row has its own.":
            right.amax().expand_as(right),
        "The scale comes from the mean magnitude of a row: it is the largest one that must become 127.":
            double.abs().mean(1) / 127,
        "The scale comes from the length of a row (the root of its sum of squares): it is the largest magnitude that "
        "must become 127.": double.norm(dim=1) / 127,
        "The scale has a small number added: only a row of zeros is treated differently, its scale is 1.":
            right + 1e-5,
        "The scale has a small number added: only a row of zeros is treated differently, its scale is 1. ":
            right + 1e-6,
    }


def judge_codes(probe: Probe, weight: Tensor, codes: Tensor) -> None:
    """Each code is the whole number next to weight / scale; where two are equally near, `ties` decides."""
    exact = weight.double() / rows_of(weight).unsqueeze(1)
    off = (codes.double() - exact).abs()
    if (off <= 0.5 + 1e-3).all():
        probe.close("tensor of codes", codes, codes.clone(), axes="OI")
        return
    for sentence, wrong in {
        "The codes are cut off toward 0 instead of rounded: `.to(torch.int8)` drops what is behind the point, so call "
        "`.round()` before it.": exact.trunc(),
        "The codes are rounded down: take the nearest whole number, with `.round()`.": exact.floor(),
        "The codes are rounded up: take the nearest whole number, with `.round()`.": exact.ceil(),
        "The codes are the rounded weights themselves: divide by the scale before rounding.": weight.double().round(),
        "The codes have no sign: round weight / scale, not its magnitude.": exact.abs().round(),
        "The codes do not belong to the scales: they are one for the whole matrix, the scales one for each row.":
            exact * (rows_of(weight) / rows_of(weight).max()).unsqueeze(1),
        "The codes use only the range up to 63 or 64: divide by the scale once, and round.": exact / 2,
        "The codes were multiplied by the scale instead of divided by it.":
            (weight.double() * rows_of(weight).unsqueeze(1)).round(),
    }.items():
        others = (codes.double() - wrong).abs() > 0.5 + 1e-3  # the largest of a row may fall on either side of 127
        probe.require(others.sum() > len(weight), "value", sentence)
    row, column = divmod(int(off.argmax()), weight.shape[1])
    probe.require(False, "value", f"The code of weight[{row}, {column}] is {int(codes[row, column])}, expected "
                                  f"{exact[row, column]:.2f} rounded: the weight over the scale of its row.")


def judge_output(probe: Probe, x: Tensor, weight: Tensor, out: Tensor, codes: Tensor, scales: Tensor, *,
                 layer: str = "value") -> None:
    right, double = product(x, codes, scales), x.double()
    size = double.abs().amax(-1, keepdim=True) / 127
    probe.close("output", out, right, layer=layer, mistakes={
        "The output is that of the original weight: multiply with the codes, as the weight itself would no longer be "
        "there.": double @ weight.double().T,
        "The output lacks the scales: multiply each output channel by its own.": double @ codes.double().T,
        "The output is divided by the scales: a code times its scale is the weight, so multiply.":
            (double @ codes.double().T) / scales.double(),
        "The scales are applied twice.": right * scales.double(),
        "x was rounded to int8 as well: only weights are, x is multiplied as it is.":
            product((double / size).round() * size, codes, scales),
        "x was cut off to whole numbers on the way: convert the codes to x's dtype, not x to theirs.":
            product(double.trunc(), codes, scales),
        "x was rounded to whole numbers on the way: convert the codes to x's dtype, not x to theirs.":
            product(double.round(), codes, scales),
    })
    bound = scales.double() / 2 * double.abs().sum(-1, keepdim=True) * (1 + 1e-4) + 1e-5
    probe.require(((out.double() - double @ weight.double().T).abs() <= bound).all(), "property",
                  "Some output is further from x @ weight.T than scale / 2 times the sum of |x|: no rounding to the "
                  "nearest code can do that.")


def ties(probe: Probe) -> None:
    """Rows with scale 1 and numbers half-way between two codes; -128 must not appear."""
    weight = torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5], [-127.0, 126.5, 125.5, -126.5, 3.5, 4.5, 126.4]])
    x = probe.random(2, 7)
    out, codes, scales = coded(probe, x, weight, " (halves)")
    right = weight.round().to(torch.int8)
    away = (weight.abs() + 0.5).floor() * weight.sign()
    probe.close("tensor of codes of halves", codes, right, axes="OI", layer="edge case", mistakes={
        "Halves are rounded away from 0: the card asks for the even neighbour, 2.5 becomes 2, as torch.round does.":
            away.to(torch.int8),
        "Halves are rounded up: the card asks for the even neighbour, 2.5 becomes 2, as torch.round does.":
            (weight + 0.5).floor().to(torch.int8),
        "Halves are rounded down: the card asks for the even neighbour, 1.5 becomes 2, as torch.round does.":
            (weight - 0.5).ceil().to(torch.int8),
    })
    probe.close("output of halves", out, product(x, right, scales), layer="edge case")


def zeros(probe: Probe) -> None:
    weight = torch.stack([torch.zeros(5), torch.full((5,), 1e-12), probe.random(5)])
    x = probe.random(2, 5)
    found = probe.pair(probe.call(x, weight), ("out", "codes", "scales"))
    tensors = [value for value in found if isinstance(value, Tensor)]
    nan = any(not value.isfinite().all() for value in tensors)
    probe.require(not nan, "edge case",
                  "A row of zeros gives NaN or infinity: its scale would be 0; give it the scale 1.")
    out, codes, scales = coded(probe, x, weight, " (a row of zeros)")
    probe.require(scales[0] == 1, "edge case", f"A row of zeros has the scale {scales[0].item():.3g}, expected 1.")
    probe.require((codes[0] == 0).all(), "edge case", f"A row of zeros has the code {int(codes[0, 0])}, expected 0.")
    probe.require((codes[1] == 127).all(), "edge case",
                  f"A row of numbers 1e-12 has the codes {codes[1].tolist()}, expected 127 for each: its scale is "
                  "1e-12 / 127; a smallest allowed scale, or a number added to it, loses such rows.")
    probe.close("output beside a row of zeros", out, product(x, codes, scales), layer="edge case")


def other_dtypes(probe: Probe, x: Tensor, weight: Tensor) -> None:
    half, single, double = torch.bfloat16, torch.float32, torch.float64
    for dtype, given in ((double, double), (half, half), (single, half), (half, single), (double, single)):
        name = str(dtype).removeprefix("torch."), str(given).removeprefix("torch.")
        x_, weight_ = x.to(dtype), weight.to(given)
        out, codes, scales = coded(probe, x_, weight_, f" for x in {name[0]}, weight in {name[1]}")
        off = (codes.double() - weight_.double() / rows_of(weight_).unsqueeze(1)).abs().max()
        probe.require(off <= 0.5 + 1e-3, "property",
                      f"For a weight in {name[1]} a code is {off:.2f} away from weight / scale, at most half is "
                      "possible: divide and round in float32, not in the weight's own dtype.")
        probe.close(f"tensor of scales, weight in {name[1]}", scales, rows_of(weight_), axes="O", layer="property")
        probe.close(f"output, x in {name[0]}", out, product(x_, codes, scales), layer="property",
                    tolerance={half: 2e-2, single: 2e-5, double: 1e-9}[dtype])


# 15.2

THINK, END, STOP = 1, 2, 3
TAGS = dict(think_id=THINK, end_think_id=END, stop_id=STOP)


def spent_in(ids: list[int], counts_tag: bool = False) -> int:
    """Tokens since a `<think>` that is open, -1 if none is."""
    spent = -1
    for token in ids:
        if spent < 0:
            spent = int(counts_tag) if token == THINK else -1
        else:
            spent = -1 if token == END else spent + 1
    return spent


def follow(draw: Callable, prompt: list[int], budget: int | None, limit: int, *, late: int = 0, tag: bool = False,
           fresh: bool = False, once: bool = False, always: bool = False, ends: bool = False, inner: bool = False,
           stop: bool = True, whole: bool = False, skip: bool = False, on: str = "",
           insert: bool = False, undrawn: bool = False) -> tuple[list[int], list[bool]]:
    """The right answer, or with an option a wrong one.

    late: so many tokens more; tag: `<think>` counts; fresh: the prompt is not looked at; once: only the first thinking
    is limited; always: forced is False also where `</think>` was drawn; ends: a drawn stop that is replaced still ends;
    inner: a `<think>` inside begins to count again; skip: it does not count; stop: not included; whole: all new tokens
    count; on: goes on after a stop, "always" or while "thinking"; insert: `</think>` follows what was drawn;
    undrawn: draw is not called where `</think>` is forced.
    """
    new, drawn, closed = [], [], False
    while len(new) < limit:
        seen = new if fresh else prompt + new
        spent = spent_in(seen, tag)
        if inner and spent >= 0:
            spent = len(seen) - 1 - max(i for i, each in enumerate(seen) if each == THINK)
        if skip and spent >= 0:
            spent -= seen[len(seen) - spent :].count(THINK)
        if whole:
            spent = len(new)
        forced = budget is not None and spent >= budget + late and not (once and closed)
        token = proposed = END if forced and undrawn else draw(prompt + new)
        if forced:
            token, closed = END, True
        if insert and forced and proposed != END:
            new.append(proposed)
            drawn.append(True)
        new.append(token)
        drawn.append(not forced or (proposed == END and not always))
        goes_on = on == "always" or on == "thinking" and spent >= 0
        if token == STOP and not goes_on or ends and proposed == STOP:
            return (new, drawn) if stop else (new[:-1], drawn[:-1])
    return new, drawn


def script(moves: list[int]) -> Callable:
    """`draw` that plays moves one after another, and says what it was shown."""
    left = list(moves)

    def draw(ids: list[int]) -> int:
        draw.seen.append((list(ids), type(ids)))
        return left.pop(0) if left else STOP

    draw.seen = []
    return draw


def budgeted(probe: Probe, name: str, prompt: list[int], moves: list[int], budget: int | None, *, limit: int = 30,
             layer: str = "value", flaws: dict | None = None) -> None:
    """One scripted generation against the oracle."""
    draw, kept = script(moves), list(prompt)
    value = probe.call(draw, prompt, budget, **TAGS, max_new_tokens=limit)
    probe.require(prompt == kept, "property", "generate_within changed the list `prompt`: make a list of your own, "
                                              "such as `list(prompt)`.")
    new, drawn = probe.pair(value, ("new", "drawn"))
    swapped = isinstance(new, (list, tuple)) and isinstance(drawn, (list, tuple)) and len(new) > 0 and \
        all(isinstance(x, bool) for x in new) and not any(isinstance(x, bool) for x in drawn)
    probe.require(not swapped, "type", "The results have changed places: end with `return new, drawn`.")
    right = follow(script(moves), prompt, budget, limit)
    same = not wrong_type(new, right[0]) and plain(new) == plain(right[0])
    what = f"list of new ids ({name}{'' if same else f'; draw {moves}, prompt {prompt}, budget {budget}'})"
    wrong = {sentence: (lambda how=how: follow(script(moves), prompt, **dict(budget=budget, limit=limit) | how)[0])
             for sentence, how in {**(flaws or {}), **FLAWS}.items()}
    probe.equal(what, new, right[0], layer=layer,
                mistakes={"The prompt is part of `new`: return the new ids only.": lambda: prompt + right[0],
                          **wrong})
    probe.require(isinstance(drawn, (list, tuple)) and len(drawn) == len(new), "type",
                  f"`drawn` must hold one bool for each of the {len(new)} new ids.")
    given = [bool(flag) for flag in drawn]
    if given != right[1]:
        probe.equal(f"`drawn` ({name}; new ids {new})", given, right[1], layer=layer, mistakes={
            "`drawn` is upside down: True means that draw chose the token, False that it was forced.":
                [not flag for flag in right[1]],
            "`drawn` is False at every `</think>`: where draw itself returned it, nothing was forced.":
                [token != END for token in new],
            "`drawn` is False where draw itself returned `</think>` just when the budget was spent: nothing had to be "
            "forced upon it.": lambda: follow(script(moves), prompt, budget, limit, always=True)[1],
            "`drawn` is True everywhere: a `</think>` that replaced what was drawn is not drawn.": [True] * len(new),
        })
    probe.require(all(type(flag) is bool for flag in drawn), "type", "`drawn` must hold True and False.")
    shown = [seen for seen, _ in draw.seen]
    probe.require(len(shown) == len(right[0]), "property",
                  f"draw was called {len(shown)} times for {len(right[0])} new tokens: once for each, also where the "
                  "token is then forced.")
    probe.require(shown == [prompt + right[0][:n] for n in range(len(shown))], "property",
                  "draw must be shown all ids so far: the prompt and the new ones, forced tokens included.")
    probe.require(all(kind is list for _, kind in draw.seen), "property", "draw must be shown a list of ids.")


FLAWS = {
    "The thinking is closed one token too late: once `budget` tokens stand after `<think>`, the next is `</think>`.":
        dict(late=1),
    "The thinking is closed one token too early: `<think>` itself is not among the tokens that count.": dict(tag=True),
    "A thinking that the prompt leaves open is overlooked: the prompt's tokens after its `<think>` count.":
        dict(fresh=True),
    "Only the first thinking is limited: a later `<think>` has the whole budget again, and must be closed as well.":
        dict(once=True),
    "A stop id that was drawn but replaced by `</think>` has ended the answer: only a token of the answer can.":
        dict(ends=True),
    "A `<think>` inside an open thinking begins the count again: it is a token like any other there.":
        dict(inner=True),
    "The stop id is missing: it belongs to the answer.": dict(stop=False),
    "`</think>` is forced where no thinking is open: only tokens after an open `<think>` belong to the thinking.":
        dict(whole=True),
    "What was drawn stands before the forced `</think>`: it is replaced, not followed.": dict(insert=True),
    "draw is not called where `</think>` is forced: call it once for each new token, also where what it returns is "
    "then replaced.": dict(undrawn=True),
    "The answer goes on after the stop id.": dict(on="always"),
    "The answer goes on after a stop id that was drawn while thinking: it ends there, the budget is not spent.":
        dict(on="thinking"),
}


def generate_within(probe: Probe) -> None:
    words = [int(5 + word) for word in torch.randint(0, 90, (40,), generator=probe.generator)]
    prompt, budget = words[:3], probe.size(2, 5)
    short = [THINK, *words[3 : 3 + budget - 1], END, words[9], STOP]
    budgeted(probe, "thinking ends by itself", prompt, short, budget)
    long = [THINK, *words[3 : 3 + budget + 1], words[9], words[10], STOP]
    budgeted(probe, "thinking too long", prompt, long, budget)
    budgeted(probe, "no thinking at all", prompt, [*words[3:12], STOP], budget)
    budgeted(probe, "no budget", prompt, [THINK, *words[3:20], END, words[21], STOP], None,
             flaws={"A budget of None is taken for 0: it means that there is no limit.": dict(budget=0)})
    budgeted(probe, "</think> drawn when the budget is spent", prompt,
             [THINK, *words[3 : 3 + budget], END, words[9], STOP], budget)
    budgeted(probe, "prompt leaves its thinking open", [*prompt, THINK, words[4]],
             [*words[5 : 5 + budget], words[12], STOP], budget)
    budgeted(probe, "a <think> inside the prompt's second thinking",
             [END, THINK, *words[:2], END, THINK, words[2], THINK, words[4]], [*words[5 : 5 + budget], words[12], STOP],
             budget + 2)
    budgeted(probe, "prompt closed its thinking", [words[0], THINK, *words[1:9], END, words[9]],
             [words[10], THINK, *words[11 : 11 + budget + 1], words[20], STOP], budget)
    twice = [THINK, *words[3 : 3 + budget + 1], words[9], THINK, *words[10 : 10 + budget + 1], words[20], STOP]
    budgeted(probe, "thinking twice", prompt, twice, budget)
    inside = [THINK, words[3], THINK, *words[4 : 4 + budget], words[20], STOP]
    budgeted(probe, "a <think> inside", prompt, inside, budget,
             flaws={"A `<think>` inside an open thinking is not counted: it is a token like any other there.":
                    dict(skip=True)})
    budgeted(probe, "stop drawn when the budget is spent", prompt,
             [THINK, *words[3 : 3 + budget], STOP, words[20], words[21], STOP], budget,
             flaws={"The answer ends with the stop id that was drawn where `</think>` is due: force first, then ask "
                    "whether the token that was appended is the stop.": dict(late=1)})
    budgeted(probe, "stop while thinking", prompt, [THINK, words[3], STOP, words[4]], budget + 2)
    unopened = [END, words[3], THINK, *words[4 : 4 + budget + 1], STOP]
    budgeted(probe, "a </think> with none open", prompt, unopened, budget)
    budgeted(probe, "at most 1 new token", prompt, [words[3], words[4], STOP], budget, limit=1, layer="edge case",
             flaws={"There is one new token too many: at most `max_new_tokens` are made.": dict(limit=2)})
    budgeted(probe, "the limit comes first", prompt, [THINK, *words[3:20]], 10, limit=6, layer="edge case")
    budgeted(probe, "the limit falls on the forced token", prompt, [THINK, *words[3:20]], 3, limit=5,
             layer="edge case", flaws={"A forced token is not counted among the new ones: it counts towards "
                                       "`max_new_tokens`.": dict(limit=6)})
    budgeted(probe, "a budget of 0", prompt, [THINK, words[3], words[4], STOP], 0, layer="edge case",
             flaws={"A budget of 0 is taken for none: ask whether the budget `is None`, as 0 is false as well.":
                    dict(budget=None)})
    budgeted(probe, "a budget that the prompt has used up", [*prompt, THINK, *words[3:9]],
             [words[10], words[11], STOP], 2, layer="edge case")
    budgeted(probe, "an empty prompt", [], [THINK, *words[3 : 3 + budget + 1], STOP], budget, layer="edge case")
    other_tags(probe, words)


def other_tags(probe: Probe, words: list[int]) -> None:
    """The ids of the tags are arguments."""
    tags, moves = dict(think_id=31, end_think_id=30, stop_id=0), [31, 101, 102, 103, 104, 0]
    value = probe.call(script(moves), [THINK, 7], 2, **tags, max_new_tokens=9)
    new, _ = probe.pair(value, ("new", "drawn"))
    probe.equal("list of new ids (think_id 31, end_think_id 30, stop_id 0)", new, [31, 101, 102, 30, 104, 0],
                layer="property", mistakes={"With think_id 31 the thinking is not closed: the ids of the tags are "
                                            "arguments, they differ between tokenizers.": moves})


# 15.3


def cost_of(model: dict, machine: dict, context: int, tokens: float, weights: str, training: bool) -> dict:
    whole = weight_sum(model, 1 if weights == "int8" else 2, 4 if weights == "int8" else 0)
    sequence = context * model["cache_per_token"] + model["state"]
    room = machine["gpus"] * machine["gpu_bytes"] - whole
    hours = hours_of(model, machine, tokens, 6 if training else 2)
    return {"weight_bytes": whole, "sequence_bytes": sequence, "sequences": max(room // sequence, 0), "hours": hours,
            "dollars": hours * machine["gpus"] * machine["price"]}


def weight_sum(model: dict, matrix: int = 1, channel: int = 4, *, rest: int = 2, routers: int = 4,
               without: str = "") -> int:
    """Bytes of the weights with so many for each kind of number."""
    kinds = dict(matrices=matrix, channels=channel, embedding=rest, head=rest, norms=rest, routers=routers)
    return sum(size * model[name] for name, size in kinds.items() if name != without)


def hours_of(model: dict, machine: dict, tokens: float, factor: float) -> float:
    return factor * model["active"] * tokens / (machine["gpus"] * machine["peak"] * machine["utilisation"]) / 3600


def drawn_model(probe: Probe) -> tuple[dict, dict]:
    size = lambda low, high: probe.size(low, high)  # noqa: E731
    model = dict(matrices=1000 * size(400, 900), channels=size(3000, 5000), embedding=size(20_000, 30_000),
                 head=size(31_000, 40_000), routers=size(1000, 2000), norms=size(300, 900),
                 cache_per_token=size(100, 200), state=size(7000, 9000), active=size(100_000, 200_000))
    machine = dict(gpus=5 + 2 * size(0, 1), gpu_bytes=size(1_200_000, 1_400_000), peak=float(size(1000, 2000)) * 1e6,
                   utilisation=size(20, 60) / 100, price=size(100, 300) / 100)
    return model, machine


def cost_model(probe: Probe) -> None:
    model, machine = drawn_model(probe)
    context, tokens = probe.size(500, 900), 1000 * probe.size(1000, 9000)
    for name, options in (("int8", dict(weights="int8")), ("bf16", dict(weights="bf16")),
                          ("int8, training", dict(weights="int8", training=True)),
                          ("bf16, training", dict(weights="bf16", training=True)), ("defaults", {})):
        costed(probe, name, model, machine, context, tokens, **options)
    big = model | {"matrices": 10 * machine["gpus"] * machine["gpu_bytes"]}
    costed(probe, "weights that do not fit", big, machine, context, tokens, layer="edge case")
    tight = machine | {"gpu_bytes": (cost_of(model, machine, context, tokens, "int8", False)["weight_bytes"] + 2 *
                                     (context * model["cache_per_token"] + model["state"])), "gpus": 1}
    costed(probe, "two sequences that just fit", model, tight, context, tokens, layer="edge case")
    costed(probe, "one byte too little for two", model, tight | {"gpu_bytes": tight["gpu_bytes"] - 1}, context, tokens,
           layer="edge case")
    costed(probe, "a softmax model, without state", model | {"state": 0}, machine, 1, tokens, layer="edge case")
    costed(probe, "a pure lightning model, without KV cache", model | {"cache_per_token": 0}, machine, context, tokens,
           layer="edge case")
    m1 = dict(matrices=453_613_977_600, channels=65_802_240, embedding=1_229_193_216, head=1_229_193_216,
              routers=15_728_640, norms=1_562_624, cache_per_token=40_960, state=293_601_280, active=45_944_920_064)
    node = dict(gpus=8, gpu_bytes=80 * 10**9, peak=989e12, utilisation=0.4, price=2.0)
    costed(probe, "M1 on 8 x 80 GB", m1, node, 1_000_000, 1_000_000, layer="edge case")


def costed(probe: Probe, name: str, model: dict, machine: dict, context: int, tokens: int, *, layer: str = "value",
           **options) -> None:
    before = dict(model), dict(machine)
    value = probe.call(model, machine, context=context, tokens=tokens, **options)
    probe.require((model, machine) == before, "property",
                  "cost_model changed one of its dicts: compute in variables of your own.")
    right = cost_of(model, machine, context, tokens, options.get("weights", "int8"), options.get("training", False))
    given = f"the number {value:g}".replace("nan", "NaN") if isinstance(value, (int, float)) else type(value).__name__
    probe.require(isinstance(value, dict), "type",
                  f"cost_model returned {given}, expected a dict with the keys {', '.join(right)}.")
    missing = [key for key in right if key not in value]
    probe.require(not missing, "type", f"The result lacks {', '.join(missing)}: it needs the keys {', '.join(right)}.")
    extra = [str(key) for key in value if key not in right]
    probe.require(not extra, "type", f"The result has keys that nobody asked for: {', '.join(extra)}.")
    mistakes = cost_mistakes(model, machine, context, tokens, right, **options)
    for key in ("weight_bytes", "sequence_bytes", "sequences"):
        number = value[key]
        why = "`//` between ints rounds down" if key == "sequences" else "all that it is made of are ints"
        probe.require(isinstance(number, int) and not isinstance(number, bool), "type",
                      f"{key} is {number!r}, expected an int: {why}.")
        if number != right[key]:
            probe.equal(f"number under {key} ({name})", number, right[key], mistakes=mistakes[key], layer=layer)
    for key in ("hours", "dollars"):
        number = value[key]
        probe.require(isinstance(number, float), "type", f"{key} is {number!r}, expected a float.")
        probe.require(math.isfinite(number), "finite", f"{key} is {number}.")
        for sentence, wrong in ({} if near(number, right[key]) else mistakes[key]).items():
            probe.require(not near(number, wrong), layer, sentence)
        probe.require(near(number, right[key]), layer, f"{key} is {number:.6g} ({name}), expected {right[key]:.6g}.")
    probe.equal(f"all five results ({name})", True, True)


def near(value: float, expected: float) -> bool:
    return math.isclose(value, expected, rel_tol=1e-6)


def cost_mistakes(model: dict, machine: dict, context: int, tokens: int, right: dict, weights: str = "int8",
                  training: bool = False) -> dict[str, dict]:
    int8, factor = weights == "int8", 6 if training else 2
    matrix, channel = (1, 4) if int8 else (2, 0)
    other = (2, 0) if int8 else (1, 4)
    held = "embedding, head and norms stay at 2 bytes, routers at 4"
    weight = {
        f"The bytes of the weights are those of {'bf16' if int8 else 'int8'}: look at the argument `weights`, whose "
        "default is \"int8\".": weight_sum(model, *other),
        f"All numbers take {matrix} byte{'s' * (matrix > 1)}: {held}.":
            weight_sum(model, matrix, 0, rest=matrix, routers=matrix),
        f"All numbers but the scales take {matrix} byte{'s' * (matrix > 1)}: {held}.":
            weight_sum(model, matrix, channel, rest=matrix, routers=matrix),
        "The routers take 2 bytes: like M1's they stay in fp32, 4 bytes, with either kind of weights.":
            weight_sum(model, matrix, channel, routers=2),
        "The routers take 1 byte: they are not quantised, and stay in fp32, 4 bytes.":
            weight_sum(model, matrix, channel, routers=1),
    }
    if int8:
        weight |= {
            "The scales are missing: each channel has one, of 4 bytes.": weight_sum(model, 1, 0),
            "A scale takes 4 bytes, not 1: it is a float32.": weight_sum(model, 1, 1),
            "A scale takes 4 bytes, not 2: it is a float32.": weight_sum(model, 1, 2),
            "Embedding, head and norms take 4 bytes: they stay in bf16, 2 bytes.": weight_sum(model, rest=4),
        }
    else:
        weight["There are scales in bf16 too: only int8 has them."] = weight_sum(model, 2, 4)
        weight["There are scales in bf16 too: only int8 has them. "] = weight_sum(model, 2, 2)
    for name in ("matrices", "embedding", "head", "norms", "routers"):
        weight[f"The bytes of `{name}` are missing."] = weight_sum(model, matrix, channel, without=name)
    cache, state = model["cache_per_token"], model["state"]
    sequence = {
        "The state is counted once for each token: a sequence has one, whatever its length.": context * (cache + state),
        "The state is missing: context * cache_per_token + state.": context * cache,
        "The cache does not depend on the context: each token of it has cache_per_token bytes.": cache + state,
        "tokens is taken for context: a sequence holds `context` tokens.": tokens * cache + state,
    }
    whole, each = right["weight_bytes"], right["sequence_bytes"]
    total, one = machine["gpus"] * machine["gpu_bytes"], machine["gpu_bytes"]
    sequences = {
        "A negative number of sequences fits: where the weights alone are too large it is 0.": (total - whole) // each,
        "The weights take no room: take their bytes off the memory first.": total // each,
        "Only the memory of one GPU is used: there are `gpus` of them, and the weights are spread over all.":
            max((one - whole) // each, 0),
        "Every GPU holds all the weights: they are spread over all GPUs, and stand there once.":
            max((total - machine["gpus"] * whole) // each, 0),
        "The number of sequences is rounded up: the last one does not fit.": max(-((whole - total) // each), 0),
        "The number of sequences is rounded to the nearest: one that fits only in part does not fit.":
            max(round((total - whole) / each), 0),
        "One sequence is missing: what fits exactly fits.": max((total - whole - 1) // each, 0),
    }
    factors = {
        f"FLOPs per token are {factor} x active here, yours are {wrong} x: a forward pass has 2 for each parameter, a "
        "multiplication and an addition, forward and backward together 6.": wrong for wrong in (1, 2, 3, 4, 6, 8)
        if wrong != factor}
    hours, gpus, u = right["hours"], machine["gpus"], machine["utilisation"]
    hour = {sentence: hours * wrong / factor for sentence, wrong in factors.items()} | {
        "These are seconds: divide by 3600.": hours * 3600,
        "These are minutes: divide by 3600.": hours * 60,
        "The utilisation is missing: only peak x utilisation is reached.": hours * u,
        "The utilisation is on the wrong side: the less of the peak is reached, the longer it takes.": hours * u * u,
        "Only one GPU computes: their FLOP/s add up.": hours * gpus,
        "The parameters of all experts are counted: only `active` ones are multiplied for a token.":
            hours_of(model | {"active": sum(model[k] for k in ("matrices", "embedding", "head", "routers", "norms"))},
                     machine, tokens, factor),
        "The tokens of all sequences are counted: `tokens` are all there are.": hours * right["sequences"],
        "context is counted as well: `tokens` are all there are.": hours * context,
    }
    dollar = {
        "The price is that of one GPU: multiply by `gpus`, as `price` is for one.": hours * machine["price"],
        "The GPUs are counted twice: hours are those that all of them work together.":
            hours * gpus * gpus * machine["price"],
        "The price is for an hour, and is multiplied by seconds.": hours * 3600 * gpus * machine["price"],
        "The price is missing.": hours * gpus,
        "The hours are divided by the price: multiply.": hours * gpus / machine["price"],
    }
    return dict(weight_bytes=weight, sequence_bytes=sequence, sequences=sequences, hours=hour, dollars=dollar)


def _int8_linear() -> Callable:
    from minim1.model.int8 import int8_matmul, quantise

    def int8_linear(x, weight):
        codes, scales = quantise(weight)
        return int8_matmul(x, codes, scales), codes, scales.squeeze(-1)

    return int8_linear


def _generate_within() -> Callable:
    def generate_within(draw, prompt, budget, *, think_id, end_think_id, stop_id, max_new_tokens):
        def after(spent, token):  # tokens since an open `<think>`, -1 when none is open: as in minim1.generation
            if token == end_think_id:
                return -1
            return spent + 1 if spent >= 0 or token == think_id else -1

        spent, new, drawn = -1, [], []
        for token in prompt:
            spent = after(spent, token)
        while len(new) < max_new_tokens and stop_id not in new[-1:]:
            token = draw([*prompt, *new])
            forced = budget is not None and spent >= budget and token != end_think_id
            new.append(end_think_id if forced else token)
            drawn.append(not forced)
            spent = after(spent, new[-1])
        return new, drawn

    return generate_within


def _cost_model() -> Callable:
    from minim1.report.cost import cost_model

    return cost_model


EXERCISES = (
    Exercise("15.1", "int8_linear", "Multiply with int8 weights", int8_linear, _int8_linear),
    Exercise("15.2", "generate_within", "A thinking budget", generate_within, _generate_within),
    Exercise("15.3", "cost_model", "What it costs", cost_model, _cost_model),
)
