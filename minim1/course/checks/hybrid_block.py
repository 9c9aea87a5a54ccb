"""Checks of chapter 06: what stands around attention in a block, which layers have which, and what they remember.

B batch, T time, H heads, D head dim, C hidden. Expected values are computed in fp64, without `minim1.model`.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from minim1.config import hybrid_pattern
from minim1.course.checking import Exercise, Probe

# 6.1


def gated_output_reference(x, out, norm_weight, gate_weight, out_weight, eps=1e-6):
    """One RMSNorm over all heads, sigmoid gate of x, projection: what stands in for a learner's 6.1."""
    normed = F.rms_norm(out.flatten(2), norm_weight.shape, norm_weight, eps)
    return F.linear(torch.sigmoid(F.linear(x, gate_weight)) * normed, out_weight)


def rms(x: Tensor, eps: float, dims: Sequence[int] = (-1,)) -> Tensor:
    """x over its root mean square along `dims`."""
    return x / (x.square().mean(tuple(dims), keepdim=True) + eps).sqrt()


def gated(x: Tensor, out: Tensor, norm_weight: Tensor, gate_weight: Tensor, out_weight: Tensor, eps: float = 1e-6, *,
          join: Callable = lambda out: out.flatten(2), norm: Callable = rms, gate: Callable = torch.sigmoid,
          gate_of: Callable = lambda x, normed: x, early: bool = False, late: bool = False) -> Tensor:
    """Exercise 6.1 in fp64 with steps of one's own: right with these defaults, a chosen mistake with others.

    gate_of(x, normed): what the gate is made from; early: it multiplies before the norm; late: after the projection.
    """
    x, out, norm_weight, gate_weight, out_weight = (
        y.double() for y in (x, out, norm_weight, gate_weight, out_weight))
    joined = join(out)
    normed = norm(joined, eps) * norm_weight
    opened = gate(gate_of(x, normed) @ gate_weight.T)
    if early:
        normed, opened = norm(joined * opened, eps) * norm_weight, 1.0
    return normed @ out_weight.T * opened if late else (normed * opened) @ out_weight.T


def layer_norm(x: Tensor, eps: float) -> Tensor:
    return rms(x - x.mean(-1, keepdim=True), eps)


def output_mistakes(given: tuple, eps: float = 1e-6) -> dict[str, Callable]:
    """Sentence -> result of 6.1 with that mistake."""
    x, out, norm_weight, gate_weight, out_weight = given
    heads, dim = out.shape[2:]

    def made(**options) -> Callable:
        return lambda: gated(*given, eps, **options)

    def per_head(joined: Tensor, eps: float) -> Tensor:
        return rms(joined.unflatten(-1, (heads, dim)), eps).flatten(-2)

    one = f"the norm divides by one number for each token, the root mean square of all H*D = {heads * dim} of them"
    return {
        f"Each head is normed by itself: {one}.": made(norm=per_head),
        f"The output of the attention is not normed: {one}.": made(norm=lambda y, eps: y),
        "The norm subtracts the mean, as LayerNorm does: RMSNorm divides by the root mean square and subtracts "
        "nothing.": made(norm=layer_norm),
        "The norm divides by the length of the vector: the root *mean* square is that length over sqrt(H*D).":
            made(norm=lambda y, eps: y / (y.square().sum(-1, keepdim=True) + eps).sqrt()),
        "The norm divides by the standard deviation, which subtracts the mean first: divide by the root mean square.":
            made(norm=lambda y, eps: y / (y.var(-1, keepdim=True) + eps).sqrt()),
        "The norm divides by the root of the variance, which subtracts the mean first: divide by the root mean square.":
            made(norm=lambda y, eps: y / (y.var(-1, unbiased=False, keepdim=True) + eps).sqrt()),
        "The norm divides by the mean square: take its root.":
            made(norm=lambda y, eps: y / (y.square().mean(-1, keepdim=True) + eps)),
        "The norm divides by the mean of the absolute values: RMSNorm takes the root of the mean square.":
            made(norm=lambda y, eps: y / (y.abs().mean(-1, keepdim=True) + eps)),
        "The norm runs over all tokens of a text together: each token has a size of its own, so take the mean over the "
        "last axis alone.": made(norm=lambda y, eps: rms(y, eps, (1, 2))),
        "The mean of the norm runs over the tokens: it runs over the H*D numbers of each token, the last axis.":
            made(norm=lambda y, eps: rms(y, eps, (1,))),
        "norm_weight is missing: after the division each of the H*D numbers is multiplied by its own weight.":
            lambda: gated(x, out, torch.ones_like(norm_weight), gate_weight, out_weight, eps),
        "norm_weight is added as 1 + weight: multiply by the weight itself.":
            lambda: gated(x, out, 1 + norm_weight, gate_weight, out_weight, eps),
        "norm_weight multiplies before the norm, which partly divides it out again: norm first, then multiply.":
            lambda: gated(x, out.flatten(2) * norm_weight, torch.ones_like(norm_weight), gate_weight, out_weight, eps),
        "There is no gate: multiply the normed numbers by sigmoid(x @ gate_weight.T).": made(gate=torch.ones_like),
        "The gate is SiLU: M1's is the sigmoid alone, a number between 0 and 1.": made(gate=F.silu),
        "The gate is tanh: M1's is the sigmoid.": made(gate=torch.tanh),
        "The gate is ReLU: M1's is the sigmoid.": made(gate=torch.relu),
        "The gate is used as it is, without the sigmoid that brings it between 0 and 1.": made(gate=lambda y: y),
        "The gate is a softmax: each number has a sigmoid of its own, and the gates need not sum to 1.":
            made(gate=lambda y: y.softmax(-1)),
        "The gate is upside down: where sigmoid(x @ gate_weight.T) is near 1 the number passes, yours is 1 - sigmoid.":
            made(gate=lambda y: torch.sigmoid(-y)),
        "The gate is applied twice.": made(gate=lambda y: torch.sigmoid(y) ** 2),
        "The sigmoid is taken of the gate times the normed output: it is taken of the gate's numbers alone.":
            lambda: torch.sigmoid(x.double() @ gate_weight.double().T * rms(out.double().flatten(2), eps)
                                  * norm_weight.double()) @ out_weight.double().T,
        "The gate is applied before the norm, which then changes its effect: norm first, then gate.": made(early=True),
        "The heads are interleaved when they are joined: all D numbers of head 0 come first, then those of head 1.":
            made(join=lambda out: out.transpose(2, 3).flatten(2)),
        "Time and heads have changed places when the heads were joined: (B, T, H, D) becomes (B, T, H*D) by joining "
        "the last two axes.": made(join=lambda out: out.transpose(1, 2).reshape(*out.shape[:2], -1)),
        "The norm runs over the whole batch: each token has a size of its own, so take the mean over the last axis "
        "alone.": made(norm=lambda y, eps: rms(y, eps, (0, 1, 2))),
        "The result is divided by norm_weight: RMSNorm multiplies by it.":
            lambda: gated(x, out, 1 / norm_weight, gate_weight, out_weight, eps),
        "The gate is made from a normed x: x is normalised already, use it as it is.":
            made(gate_of=lambda x, normed: rms(x, 1e-6)),
        "The gate is added: it multiplies, so that 0 closes and 1 lets pass.":
            lambda: gated(*given, eps, gate=torch.ones_like) + torch.sigmoid(
                x.double() @ gate_weight.double().T) @ out_weight.double().T,
        "The result is the gated output plus x: the residual is added outside, by the block.":
            lambda: gated(*given, eps) + x.double(),
    }


def gated_output(probe: Probe) -> None:
    length = probe.size(3, 6)
    given = output_inputs(probe, 2, length, 3, 4, 7)
    value = probe.call(*given)
    probe.tensor("result", value, shape=(2, length, 7), dtype=torch.float32, axes="BTC")
    probe.close("result", value, gated(*given), mistakes=output_mistakes(given))
    square = output_inputs(probe, 1, 5, 2, 3, 6)
    x, out, norm_weight, gate_weight, out_weight = square
    probe.close("result for C = H*D", probe.call(*square), gated(*square), mistakes=output_mistakes(square) | {
        "gate_weight is transposed: it lies as in nn.Linear, (numbers out, numbers in), so the gate is x @ "
        "gate_weight.T.": lambda: gated(x, out, norm_weight, gate_weight.T, out_weight),
        "out_weight is transposed: it lies as in nn.Linear, (numbers out, numbers in), so the result is y @ "
        "out_weight.T.": lambda: gated(x, out, norm_weight, gate_weight, out_weight.T),
        "Both matrices are transposed: they lie as in nn.Linear, (numbers out, numbers in), so use weight.T.":
            lambda: gated(x, out, norm_weight, gate_weight.T, out_weight.T),
        "The gate is made from the attention's output: it is made from x.":
            lambda: gated(*square, gate_of=lambda x, normed: out.double().flatten(2)),
        "The gate is made from the normed output: it is made from x.":
            lambda: gated(*square, gate_of=lambda x, normed: normed),
        "The gate is applied after the projection: it multiplies the H*D normed numbers, before it.":
            lambda: gated(*square, late=True),
    })
    names = ("x", "out", "norm_weight", "gate_weight", "out_weight")
    probe.gradients(probe.call, dict(zip(names, given)), gated)
    doubles = [y.double() for y in given]
    value = probe.tensor("result for float64 inputs", probe.call(*doubles), shape=(2, length, 7), dtype=torch.float64)
    probe.close("result in float64", value, gated(*doubles), layer="property", tolerance=2e-5)
    other = [y.flip(0) for y in given]
    probe.close("result of a second call", probe.call(*other), gated(*other), layer="property", mistakes={
        "A second call with other inputs gives a result for those of the first: something was kept between calls.":
            lambda: gated(other[0], other[1], *given[2:]),
    })
    output_edges(probe, given)


def output_edges(probe: Probe, given: tuple) -> None:
    """Outputs as small as eps and very large ones, another eps, and none at all."""
    x, out, *weights = given
    small = (x, 1e-3 * out, *weights)
    outside = {
        "eps is added outside of the root: it belongs to the mean square, sqrt(mean + eps).":
            lambda: gated(*small, norm=lambda y, eps: y / (y.square().mean(-1, keepdim=True).sqrt() + eps)),
        "eps is missing: divide by sqrt(mean + eps).": lambda: gated(*small, 0.0),
        **{f"The result is that for eps = {wrong:.3g}: use the argument eps, and leave its default at 1e-6.":
           lambda wrong=wrong: gated(*small, wrong) for wrong in (1e-5, 1e-8, 1e-12)},
        "The result is that for eps = 1.19e-07, which F.rms_norm takes by itself: give it the argument eps.":
            lambda: gated(*small, torch.finfo(torch.float32).eps),
        "A mean square below eps is replaced by eps: eps is added to every mean square.":
            lambda: gated(*small, norm=lambda y, eps: y / y.square().mean(-1, keepdim=True).clamp(min=eps).sqrt()),
    }
    probe.close("result for outputs of size 0.001", probe.call(*small), gated(*small), layer="edge case",
                mistakes=outside)
    probe.close("result for eps = 0.5", probe.call(*given, 0.5), gated(*given, 0.5), layer="edge case", mistakes={
        "The argument eps is ignored: with eps = 0.5 the result is that for 1e-6.": lambda: gated(*given),
        "eps is added outside of the root: it belongs to the mean square, sqrt(mean + eps).":
            lambda: gated(*given, 0.5, norm=lambda y, eps: y / (y.square().mean(-1, keepdim=True).sqrt() + eps)),
        "eps is squared: sqrt(mean + eps).": lambda: gated(*given, 0.25),
    })
    probe.close("result for eps = 0.5, by name", probe.call(*given, eps=0.5), gated(*given, 0.5), layer="edge case")
    for size in (1e-5, 1e4):
        probe.close(f"result for outputs of size {size:g}", probe.call(x, size * out, *weights),
                    gated(x, size * out, *weights), layer="edge case")
    for name, other in (("result where one token's output is 0", (x, blank(out), *weights)),
                        ("result where one token's x is 0", (blank(x), out, *weights))):
        probe.close(name, probe.call(*other), gated(*other), layer="edge case")


def blank(x: Tensor) -> Tensor:
    """A copy with zeros at token 1."""
    x = x.clone()
    x[:, 1] = 0
    return x


def output_inputs(probe: Probe, batch: int, length: int, heads: int, dim: int, hidden: int) -> tuple:
    """x, out, norm_weight, gate_weight, out_weight; the heads differ in size, as slow and fast ones do."""
    inner, loud = heads * dim, torch.arange(1.0, heads + 1).view(-1, 1)
    return (
        probe.random(batch, length, hidden), loud * probe.random(batch, length, heads, dim) + 0.5,
        1 + 0.5 * probe.random(inner), probe.random(inner, hidden), probe.random(hidden, inner),
    )


# 6.2


def residual_reference(h, norm, sublayer, alpha, beta, postnorm=True):
    """alpha * (norm(h) or h) + beta * sublayer(norm(h)): what stands in for a learner's 6.2."""
    y = norm(h)
    return alpha * (y if postnorm else h) + beta * sublayer(y)


class Watched:
    """A function that counts its calls and notices when what it returned is changed afterwards."""

    def __init__(self, name: str, function: Callable) -> None:
        self.__name__ = self.__qualname__ = name
        self.function, self.returned = function, []

    def __call__(self, x: Tensor) -> Tensor:
        value = self.function(x)
        self.returned.append((value, value.detach().clone()))
        return value

    def __repr__(self) -> str:
        return f"a function {self.__name__}"

    def changed(self) -> bool:
        return any(not torch.equal(value.detach(), before) for value, before in self.returned)


def residual(probe: Probe) -> None:
    hidden, length = probe.size(3, 6), probe.size(2, 5)
    weight, matrix, bias = 1 + 0.5 * probe.random(hidden), probe.random(hidden, hidden), probe.random(hidden)

    def norm(h: Tensor) -> Tensor:
        return rms(h, 1e-5) * weight.to(h.dtype)

    def sublayer(y: Tensor) -> Tensor:
        return torch.tanh(y @ matrix.to(y.dtype) + bias.to(y.dtype))

    h = 3 * probe.random(2, length, hidden) + 1

    def compare(name: str, h: Tensor, norm: Callable, sublayer: Callable, alpha: float, beta: float,
                layer: str = "value", **options) -> None:
        functions = Watched("norm", norm), Watched("sublayer", sublayer)
        value = probe.call(h, *functions, alpha, beta, **options)
        probe.tensor(name, value, shape=h.shape, dtype=h.dtype, axes="BTC")
        for function in functions:
            probe.require(function.returned, "value", f"`{function.__name__}` was not called: the sublayer reads "
                                                      "norm(h), and its output is the second term of the sum.")
        given = h.double(), norm, sublayer, alpha, beta, options.get("postnorm", True)
        probe.close(name, value, residual_reference(*given), axes="BTC", layer=layer,
                    mistakes=residual_mistakes(*given))
        for function in functions:
            once(probe, function)

    for alpha, beta in ((2.5, 0.75), (160**0.25, 1.0), (0.5, 2.0), (0.0, 1.5), (1.5, 0.0)):
        case = f"with alpha {alpha:.4g}, beta {beta:g}"
        compare(f"result {case}", h, norm, sublayer, alpha, beta)
        compare(f"result {case}, postnorm=False", h, norm, sublayer, alpha, beta, postnorm=False)
    compare("result with postnorm=True, batch 1", h[:1], norm, sublayer, 2.5, 0.75, postnorm=True)
    for postnorm in (True, False):
        probe.gradients(lambda h: probe.call(h, norm, sublayer, 2.5, 0.75, postnorm), {"h": h},
                        lambda h: residual_reference(h, norm, sublayer, 2.5, 0.75, postnorm))
    compare("result for float64 inputs", h.double(), norm, sublayer, 2.5, 0.75, layer="property")
    compare("result with norm and sublayer exchanged", h, sublayer, norm, 2.5, 0.75, layer="property")


def once(probe: Probe, function: Watched) -> None:
    """Too many calls, and changes of what the function returned, end the check."""
    name, calls = function.__name__, len(function.returned)
    probe.require(calls == 1, "property", f"The result is right, but `{name}` was called {calls} times: call it "
                                          f"exactly once, and give its result a name.")
    probe.require(not function.changed(), "property",
                  f"What `{name}` returned was changed in place, and it may still be needed, in the backward pass for "
                  f"one: compute a new tensor instead.")


def residual_mistakes(h: Tensor, norm: Callable, f: Callable, alpha: float, beta: float, postnorm: bool) -> dict:
    """Sentence -> what 6.2 gives with that mistake; all right-looking ones of either order."""
    y = norm(h)
    if postnorm:
        kept, other, rule = y, h, "with postnorm the residual is the normalised tensor, y = norm(h)"
        wrong_kept = f"The residual is h itself: {rule}."
    else:
        kept, other, rule = h, y, "with postnorm=False the residual is h itself"
        wrong_kept = f"The residual is norm(h): {rule}."
    both = "the result is alpha times the residual plus beta times the sublayer's output"
    return {
        wrong_kept: lambda: alpha * other + beta * f(y),
        "The norm comes last, as in the textbook: M1 norms h first, and adds without a norm.":
            lambda: norm(alpha * h + beta * f(h)),
        "The norm comes last and first: M1 norms h, and adds without another norm.":
            lambda: norm(alpha * kept + beta * f(y)),
        "The sublayer reads h: it reads norm(h).": lambda: alpha * kept + beta * f(h),
        "The sublayer's output is normed: the norm belongs to its input, norm(h).":
            lambda: alpha * kept + beta * norm(f(h)),
        "The sublayer reads h, and the residual is the wrong one: it reads norm(h), and "
        f"{rule}.": lambda: alpha * other + beta * f(h),
        "There is no residual: alpha * y (or alpha * h) is missing.": lambda: beta * f(y),
        "There is no sublayer: beta * sublayer(norm(h)) is missing.": lambda: alpha * kept,
        f"alpha is missing: {both}.": lambda: kept + beta * f(y),
        f"beta is missing: {both}.": lambda: alpha * kept + f(y),
        f"alpha and beta are both missing: {both}.": lambda: kept + f(y),
        f"alpha and beta have changed places: {both}.": lambda: beta * kept + alpha * f(y),
        f"alpha multiplies both terms: {both}.": lambda: alpha * (kept + beta * f(y)),
        f"alpha multiplies the sublayer's output too, in the place of beta: {both}.": lambda: alpha * (kept + f(y)),
        f"beta multiplies both terms: {both}.": lambda: beta * (alpha * kept + f(y)),
        f"beta multiplies the residual too, in the place of alpha: {both}.": lambda: beta * (kept + f(y)),
        f"beta multiplies the sublayer's input: {both}.": lambda: alpha * kept + f(beta * y),
        f"alpha multiplies the sublayer's input too (`*=` changes y for the sublayer as well): {both}.":
            lambda: alpha * kept + beta * f(alpha * y),
        "Both residuals are added: it is norm(h) with postnorm, and h without, never their sum.":
            lambda: alpha * (h + y) + beta * f(y),
        f"The terms are subtracted: {both}.": lambda: alpha * kept - beta * f(y),
        "The two are multiplied: a residual is a sum.": lambda: alpha * kept * beta * f(y),
    }


# 6.3


def layer_pattern_reference(num_layers, every=8):
    """minim1's `hybrid_pattern` as a list."""
    return list(hybrid_pattern(num_layers, every))


def layer_pattern(probe: Probe) -> None:
    cases = [(19, 3), (12, 4), (80, 8), (8, 8), (16, 8), (100, 8)]  # a long one first: it tells mistakes apart
    cases += [(3 * every + probe.size(1, every - 1), every) for every in (probe.size(3, 5), probe.size(9, 12))]
    for layers, every in cases:
        value = probe.call(layers) if every == 8 else probe.call(layers, every)
        by_default = {f"`every` is {n} by default: M1's is 8.": pattern(layers, n) for n in (1, 2, 4, 7, 9, 10, 16)}
        probe.equal(f"pattern of {layers} layers" + (f", every {every}" if every != 8 else ""), value,
                    pattern(layers, every),
                    mistakes=(by_default if every == 8 else {}) | pattern_mistakes(layers, every))
    probe.equal("pattern with every=3 by name", probe.call(4, every=3), pattern(4, 3))
    for layers, every, why in ((5, 8, "fewer layers than `every`: all are lightning layers"), (0, 8, "no layers, []"),
                               (4, 1, "every=1: all are softmax layers"), (1, 1, "one softmax layer"),
                               (8, 8, "the default again")):
        probe.equal(f"pattern of {layers} layers, every {every}", probe.call(layers, every), pattern(layers, every),
                    layer="edge case", mistakes={
                        f"{layers} layers with every = {every} ({why}): your list is {wrong}, expected "
                        f"{pattern(layers, every)}.": wrong
                        for wrong in ([], [0] * layers, [1] * layers, [0] * every, pattern(every, every))
                        if wrong != pattern(layers, every)})


def pattern(layers: int, every: int) -> list[int]:
    found = [0] * layers
    for index in range(every - 1, layers, every):
        found[index] = 1
    return found


def pattern_mistakes(layers: int, every: int) -> dict[str, list[int]]:
    right = pattern(layers, every)
    count = "1 stands where i + 1 is a multiple of `every`, i counted from 0"
    whole = [*pattern(layers, every)[: layers // every * every]]
    return {
        f"There is no softmax layer in yours: {count}, so the first is layer {every - 1}.": [0] * layers,
        f"The pattern begins with a softmax layer: {count}, so the first is layer {every - 1}.":
            [int(i % every == 0) for i in range(layers)],
        f"The softmax layers come one too late: {count}.":
            [int(i % every == 0 and i > 0) for i in range(layers)],
        f"The softmax layers come one too early: {count}.": [int((i + 2) % every == 0) for i in range(layers)],
        "0 and 1 have changed places: 0 is lightning, 1 is softmax.": [1 - kind for kind in right],
        f"A softmax layer stands after {every} lightning layers: it is the last of every {every} layers, so "
        f"{every - 1} come before it.": [int((i + 1) % (every + 1) == 0) for i in range(layers)],
        f"In yours a softmax layer is the last of every {every - 1} layers: it is the last of every {every}.":
            [int((i + 1) % (every - 1) == 0) for i in range(layers)],
        "These are the numbers of the softmax layers: return one entry for each layer, 0 or 1.":
            [i for i in range(layers) if right[i]],
        f"The layers that do not fill a group of {every} are missing: there is one entry for each of the {layers} "
        f"layers.": whole,
        f"There are whole groups of {every} only: cut the list to {layers} entries.":
            pattern(-(-layers // every) * every, every),
        "Every group is M1's of 8: `every` is an argument.": pattern(layers, 8),
        "The last layer is always a softmax layer in yours: what is left over at the end is lightning.":
            [*right[:-1], 1],
        "The groups are counted from the end: count from the first layer, so that what is left over is at the end.":
            right[::-1],
        f"There is one softmax layer only: every group of {every} has one.":
            [int(i == every - 1) for i in range(layers)],
    }


# 6.4


def cache_bytes_reference(attn_type_list, length, *, num_attention_heads, num_key_value_heads, head_dim,
                          bytes_per_number=2):
    """Keys and values of softmax layers plus fp32 states of lightning layers."""
    return expected_bytes(list(attn_type_list), length, num_attention_heads, num_key_value_heads, head_dim,
                          bytes_per_number)


def expected_bytes(kinds: list[int], length: int, heads: int, kv_heads: int, dim: int, size: int, *,
                   growing: Callable | None = None, fixed: Callable | None = None) -> int:
    """softmax layers * growing() + lightning layers * fixed(), each the bytes of one layer."""
    growing = growing or (lambda: 2 * length * kv_heads * dim * size)
    fixed = fixed or (lambda: 4 * heads * dim * dim)
    return sum(growing() if kind == 1 else fixed() for kind in kinds)


M1 = ([0, 0, 0, 0, 0, 0, 0, 1] * 10, 1_000_000, 64, 8, 128, 2)


def cache_bytes(probe: Probe) -> None:
    kinds = [1, 0, 1, 0, 1, 0, 0][: 2 * probe.size(2, 3) + 1]  # never as many of one kind as of the other
    length, kv_heads, dim = 100 + probe.size(1, 99), 2 * probe.size(1, 3) + 1, 2 * probe.size(3, 8) + 1
    heads = 19 * kv_heads  # 19 query heads share a key: no number of kv_heads, nor of head_dim
    for size in (1, 2, 4, 8):  # with one byte a number, halves and quarters mean one thing only
        given = kinds, length + size, heads, kv_heads, dim, size
        count(probe, f"bytes with bytes_per_number {size}", given, default=size == 2)
    count(probe, "bytes of M1 at a million tokens", M1, default=True)
    count(probe, "bytes of 96 layers", (M1[0] + M1[0][:16], 1_000_003, heads, kv_heads, dim, 2))
    count(probe, "bytes for a tuple", (tuple(kinds), length, heads, kv_heads, dim, 2))
    zero = (kinds, 0, heads, kv_heads, dim, 2)
    count(probe, "bytes at 0 tokens", zero, layer="edge case", mistakes={
        "A text of 0 tokens needs the states: they are there from the start.": 0})
    count(probe, "bytes at 1 token", (kinds, 1, heads, kv_heads, dim, 2), layer="edge case")
    count(probe, "bytes without softmax layers", ([0] * 5, length, heads, kv_heads, dim, 2), layer="edge case")
    count(probe, "bytes without lightning layers", ([1] * 3, length, heads, kv_heads, dim, 2), layer="edge case")


def count(probe: Probe, name: str, given: tuple, *, default: bool = False, layer: str = "value",
          mistakes: dict | None = None) -> None:
    kinds, length, heads, kv_heads, dim, size = given
    options = {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": dim}
    handed = list(kinds) if isinstance(kinds, list) else kinds
    value = probe.call(handed, length, **options, **({} if default else {"bytes_per_number": size}))
    probe.require(handed == kinds, "property", "cache_bytes changed its input `attn_type_list`; leave it as it was.")
    probe.equal(f"number of {name}", value, expected_bytes(*given), layer=layer,
                mistakes={**(mistakes or {}), **byte_mistakes(given)})
    probe.require(isinstance(value, int), "property",
                  f"The number is right, but it is a {type(value).__name__}: bytes are counted in whole numbers (int), "
                  f"so divide with // if at all.")


def byte_mistakes(given: tuple) -> dict[str, Callable]:
    """Sentence -> bytes of 6.4 with that mistake."""
    kinds, length, heads, kv_heads, dim, size = given

    def made(growing: int | None = None, fixed: int | None = None, kinds=kinds) -> Callable:
        return lambda: expected_bytes(
            kinds, *given[1:], growing=None if growing is None else lambda: growing,
            fixed=None if fixed is None else lambda: fixed)

    pair, state, softmax = 2 * length * kv_heads * dim * size, 4 * heads * dim * dim, sum(kinds)
    return {
        "Keys and values are counted for every query head: a softmax layer keeps num_key_value_heads of them, which "
        "the query heads share.": made(2 * length * heads * dim * size),
        "Keys and values are counted for num_attention_heads // num_key_value_heads heads: that is how many query "
        "heads share one; a softmax layer keeps num_key_value_heads of each.":
            made(2 * length * (heads // kv_heads) * dim * size),
        "Keys or values are counted for every query head: a softmax layer keeps num_key_value_heads of each.":
            made(length * (heads + kv_heads) * dim * size),
        "Keys and values are counted for one head: a softmax layer keeps num_key_value_heads of each.":
            made(2 * length * dim * size),
        "Keys and values ignore bytes_per_number: they take as many bytes a number as it says, 2 by default.":
            made(2 * length * kv_heads * dim * 2),
        "Keys and values are counted as fp32: they take bytes_per_number bytes a number.":
            made(2 * length * kv_heads * dim * 4),
        "Keys and values are counted in numbers, not bytes.": made(2 * length * kv_heads * dim),
        "Softmax layers keep a key and a value of each token: yours counts one of the two.": made(pair // 2),
        "Keys and values grow with the square of the length: each token adds one of each.": made(pair * length),
        "Keys and values have head_dim squared numbers a head: they are vectors of head_dim.": made(pair * dim),
        **{f"The states are counted at {wrong} byte{'s' * (wrong > 1)} a number: they are fp32 always, 4 bytes, "
           f"whatever bytes_per_number is.": made(fixed=state // 4 * wrong) for wrong in (1, 2)},
        "The states take twice the bytes: one matrix for each head (no pair, as of key and value), 4 bytes a number.":
            made(fixed=2 * state),
        "Keys, values and states are all counted without bytes.": made(pair // size, state // 4),
        "The states grow with the length: a lightning layer keeps one matrix for each head, however long the text.":
            made(fixed=state * length),
        "The states have one matrix for each key/value head: lightning layers have num_attention_heads of them.":
            made(fixed=4 * kv_heads * dim * dim),
        "The states have one matrix for each layer: there is one for each of num_attention_heads heads.":
            made(fixed=4 * dim * dim),
        "The states have head_dim numbers a head: they are matrices, head_dim x head_dim.": made(fixed=4 * heads * dim),
        "The states are matrices of all heads together: each head has its own, head_dim x head_dim.":
            made(fixed=4 * (heads * dim) ** 2),
        "The states are missing: lightning layers keep one matrix for each head.": made(fixed=0),
        "Keys and values are missing: softmax layers keep those of every token.": made(0),
        "0 and 1 have changed places: 0 is a lightning layer, 1 a softmax layer.": made(kinds=[1 - k for k in kinds]),
        "Keys and values are counted in every layer: only softmax layers keep them.":
            lambda: len(kinds) * pair + (len(kinds) - softmax) * state,
        "States are counted in every layer: softmax layers have none.": lambda: softmax * pair + len(kinds) * state,
        "Both are counted in every layer: softmax layers keep keys and values, lightning layers states.":
            lambda: len(kinds) * (pair + state),
        "This is one layer of each kind: add up over the layers.": lambda: pair + state,
        "This is what one token takes in the softmax layers: multiply it by the length, and add the states.":
            lambda: softmax * 2 * kv_heads * dim * size,
        "Everything is multiplied by the length: the states do not grow.":
            lambda: softmax * pair + (len(kinds) - softmax) * state * length,
    }


EXERCISES = (
    Exercise("6.1", "gated_output", "Gated output", gated_output, lambda: gated_output_reference),
    Exercise("6.2", "residual", "Residual order", residual, lambda: residual_reference),
    Exercise("6.3", "layer_pattern", "Layer pattern", layer_pattern, lambda: layer_pattern_reference),
    Exercise("6.4", "cache_bytes", "Cache bytes", cache_bytes, lambda: cache_bytes_reference),
)
