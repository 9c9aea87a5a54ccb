"""Wrong solutions of chapter 03: mistakes that learners make, or that published code has made."""

from tests.mutants import Mutant

QUADRATIC = [
    Mutant("no causal mask", ".tril()", ""),
    Mutant("no mask and no clamp", ".clamp(min=0)).tril()", ")"),
    Mutant("no mask, distance without direction", "distance.clamp(min=0)).tril()", "distance.abs())"),
    Mutant("mask on the wrong side", "distance.clamp(min=0)).tril()", "(-distance).clamp(min=0)).triu()"),
    Mutant("diagonal masked too", ".tril()", ".tril(-1)"),
    Mutant("one token of the future let in", "distance.clamp(min=0)).tril()", "distance.abs()).tril(1)"),
    Mutant("sign of the exponent", "-slopes", "slopes"),
    Mutant("no decay", "scores * weights", "scores.tril()"),
    Mutant("decay^(i-j+1)", "distance.clamp(min=0)", "(distance.clamp(min=0) + 1)"),
    Mutant("slope as decay", "torch.exp(-slopes[:, None, None] * distance.clamp(min=0))",
           "(slopes[:, None, None] ** distance.clamp(min=0))"),
    Mutant("1 - slope as decay", "torch.exp(-slopes[:, None, None] * distance.clamp(min=0))",
           "((1 - slopes[:, None, None]) ** distance.clamp(min=0))"),
    Mutant("all heads with the first slope", "-slopes[:, None, None]", "-slopes[:1, None, None]"),
    Mutant("heads in reverse", "-slopes[:, None, None]", "-slopes.flip(0)[:, None, None]"),
    Mutant("scale 1/sqrt(D)", "scores * weights", "scores * weights / q.shape[-1] ** 0.5"),
    Mutant("softmax of the scores", "scores * weights",
           "torch.softmax(scores.masked_fill(weights == 0, -torch.inf), -1) * weights"),
    Mutant("ALiBi", "scores * weights", "torch.softmax(scores + weights.log(), -1)"),
    Mutant("filled with minus infinity",
           "scores * weights", "(scores * weights).masked_fill(weights == 0, -torch.inf)"),
    Mutant("classic denominator", "scores * weights",
           "scores * weights / (scores * weights).sum(-1, keepdim=True)"),
    Mutant("average over the weights", "scores * weights", "scores * weights / weights.sum(-1, keepdim=True)"),
    Mutant("scores summed over the batch", '"bihd,bjhd->bhij", q, k)',
           '"bihd,bjhd->hij", q, k).expand(len(q), -1, -1, -1)'),
    Mutant("q and k exchanged", '"bihd,bjhd->bhij", q, k', '"bihd,bjhd->bhij", k, q'),
    Mutant("overflow above the diagonal", "distance.clamp(min=0)).tril()", "distance) * (distance >= 0)"),
    Mutant("heads before tokens in the result", "bhij,bjhe->bihe", "bhij,bjhe->bhie"),
    Mutant("detached scores", "scores * weights", "scores.detach() * weights"),
    Mutant("always fp32", "scores * weights, v)", "scores * weights, v).float()"),
    Mutant("nothing returned", "    return torch", "    out = torch"),
    Mutant("triu for tril", ".tril()", ".triu()"),
    Mutant("distance j - i, clamped away", "time[:, None] - time  #", "time - time[:, None]  #"),
    Mutant("weights transposed", ".tril()", ".tril().mT"),
    Mutant("weights transposed before the mask", ".tril()", ".mT.tril()"),
    Mutant("scores transposed in the last product", '"bhij,bjhe->bihe"', '"bhji,bjhe->bihe"'),
    Mutant("softmax, scaled, then mask and decay", "scores * weights",
           "torch.softmax(scores / q.shape[-1] ** 0.5, -1) * weights"),
    Mutant("softmax after mask and decay", "scores * weights", "torch.softmax(scores * weights, -1)"),
    Mutant("softmax after the decay", "scores * weights",
           "torch.softmax((scores * weights).masked_fill(distance < 0, -torch.inf), -1)"),
    Mutant("softmax, then the mask alone", "scores * weights", "torch.softmax(scores, -1).tril()"),
    Mutant("brackets moved", source="""
def masked_quadratic(q, k, v, slopes):
    return torch.einsum("bihd,bhde->bihe", q, torch.einsum("bjhd,bjhe->bhde", k, v))
"""),
    Mutant("reshape for transpose", source="""
def masked_quadratic(q, k, v, slopes):
    B, T, H, D = q.shape
    q, k, v = q.reshape(B, H, T, D), k.reshape(B, H, T, D), v.reshape(B, H, T, -1)
    time = torch.arange(T)
    weights = torch.exp(-slopes[:, None, None] * (time[:, None] - time).clamp(min=0)).tril().to(q.dtype)
    return ((q @ k.transpose(-1, -2)) * weights @ v).reshape(B, T, H, -1)
"""),
    Mutant("reshape for transpose on the way in", source="""
def masked_quadratic(q, k, v, slopes):
    B, T, H, D = q.shape
    q, k, v = q.reshape(B, H, T, D), k.reshape(B, H, T, D), v.reshape(B, H, T, -1)
    time = torch.arange(T)
    weights = torch.exp(-slopes[:, None, None] * (time[:, None] - time).clamp(min=0)).tril().to(q.dtype)
    return ((q @ k.transpose(-1, -2)) * weights @ v).transpose(1, 2)
"""),
    Mutant("reshape for transpose on the way out", '"bhij,bjhe->bihe", scores * weights, v)',
           '"bhij,bjhe->bhie", scores * weights, v).reshape(v.shape)'),
    Mutant("zeros", source="def masked_quadratic(q, k, v, slopes):\n    return torch.zeros_like(v)\n"),
]

RECURRENT = [
    Mutant("reads before it updates", source="""
def recurrent(q, k, v, slopes, state=None):
    decay = torch.exp(-slopes).view(-1, 1, 1)
    if state is None:
        state = q.new_zeros(q.shape[0], q.shape[2], q.shape[3], v.shape[3])
    outputs = []
    for t in range(q.shape[1]):
        outputs.append((q[:, t, :, None, :] @ state).squeeze(-2))
        state = decay * state + k[:, t, :, :, None] * v[:, t, :, None, :]
    return torch.stack(outputs, dim=1), state
"""),
    Mutant("decay after adding", "decay * state + k[:, t, :, :, None] * v[:, t, :, None, :]",
           "decay * (state + k[:, t, :, :, None] * v[:, t, :, None, :])"),
    Mutant("the new token is decayed", "decay * state + k", "state + decay * k"),
    Mutant("no decay", "decay * state", "state"),
    Mutant("decayed for reading only", source="""
def recurrent(q, k, v, slopes, state=None):
    decay = torch.exp(-slopes).view(-1, 1, 1)
    if state is None:
        state = q.new_zeros(q.shape[0], q.shape[2], q.shape[3], v.shape[3])
    outputs = []
    for t in range(q.shape[1]):
        new = k[:, t, :, :, None] * v[:, t, :, None, :]
        outputs.append((q[:, t, :, None, :] @ (decay * state + new)).squeeze(-2))
        state = state + new
    return torch.stack(outputs, dim=1), state
"""),
    Mutant("sign of the exponent", "-slopes", "slopes"),
    Mutant("slope as decay", "torch.exp(-slopes)", "slopes"),
    Mutant("1 - slope as decay", "torch.exp(-slopes)", "(1 - slopes)"),
    Mutant("moving average", "decay * state + k", "decay * state + (1 - decay) * k"),
    Mutant("state overwritten", "decay * state + k", "k"),
    Mutant("decay along the wrong axis", ".view(-1, 1, 1)", ".view(1, -1, 1)"),
    Mutant("all heads with the first slope", "-slopes", "-slopes[:1]"),
    Mutant("given state ignored", "if state is None:", "if True:"),
    Mutant("given state added at the end", source="""
def recurrent(q, k, v, slopes, state=None):
    decay = torch.exp(-slopes).view(-1, 1, 1)
    given, state = state, q.new_zeros(q.shape[0], q.shape[2], q.shape[3], v.shape[3])
    outputs = []
    for t in range(q.shape[1]):
        state = decay * state + k[:, t, :, :, None] * v[:, t, :, None, :]
        outputs.append((q[:, t, :, None, :] @ state).squeeze(-2))
    return torch.stack(outputs, dim=1), state if given is None else state + given
"""),
    Mutant("given state not decayed by the first token", "    for t in", "    state = state / decay\n    for t in"),
    Mutant("given state decayed before the loop", "    for t in", "    state = decay * state\n    for t in"),
    Mutant("reads with the key", "(q[:, t, :, None, :] @ state)", "(k[:, t, :, None, :] @ state)"),
    Mutant("returns the state before the last token", source="""
def recurrent(q, k, v, slopes, state=None):
    decay = torch.exp(-slopes).view(-1, 1, 1)
    if state is None:
        state = q.new_zeros(q.shape[0], q.shape[2], q.shape[3], v.shape[3])
    outputs = []
    for t in range(q.shape[1]):
        before = state
        state = decay * state + k[:, t, :, :, None] * v[:, t, :, None, :]
        outputs.append((q[:, t, :, None, :] @ state).squeeze(-2))
    return torch.stack(outputs, dim=1), before
"""),
    Mutant("state decayed once too often", "dim=1), state", "dim=1), decay * state"),
    Mutant("state transposed", "dim=1), state", "dim=1), state.transpose(-1, -2)"),
    Mutant("scale 1/sqrt(D)", "@ state)", "@ state / q.shape[-1] ** 0.5)"),
    Mutant("writes into the given state", "        state = decay * state + k",
           "        state *= decay\n        state += k"),
    Mutant("detached between tokens", "decay * state", "decay * state.detach()"),
    Mutant("only the output", "dim=1), state", "dim=1)"),
    Mutant("only the last output", "torch.stack(outputs, dim=1)", "outputs[-1]"),
    Mutant("stacked along the batch", "dim=1), state", "dim=0), state"),
    Mutant("state kept in fp32", "dim=1), state", "dim=1), state.float()"),
    Mutant("asks a tensor for its truth", "if state is None:", "if not state:"),
    Mutant("the last token left out", "range(q.shape[1])", "range(q.shape[1] - 1)"),
    Mutant("results exchanged", "torch.stack(outputs, dim=1), state", "state, torch.stack(outputs, dim=1)"),
    Mutant("no state returned", "dim=1), state", "dim=1), None"),
    Mutant("a list of outputs", "torch.stack(outputs, dim=1)", "outputs"),
    Mutant("decay exp(-s t)", "decay * state + k", "decay ** t * state + k"),
    Mutant("decay exp(-s (t + 1))", "decay * state + k", "decay ** (t + 1) * state + k"),
    Mutant("returns the plain sum", "dim=1), state", 'dim=1), torch.einsum("bthd,bthe->bhde", k, v)'),
    Mutant("returned state detached", "dim=1), state", "dim=1), state.detach()"),
    Mutant("reads a detached state", "@ state)", "@ state.detach())"),
    Mutant("backwards in time", "range(q.shape[1])", "reversed(range(q.shape[1]))"),
]

SLOPES = [
    Mutant("heads from 0", "torch.arange(1, num_heads + 1", "torch.arange(0, num_heads"),
    Mutant("layers divided by L", "layer / (num_layers - 1) if num_layers > 1 else 0.0", "layer / num_layers"),
    Mutant("no 1e-5", " + 1e-5", ""),
    Mutant("1e-5 in the wrong place", "(1 - depth + 1e-5)", "(1 - depth) + 1e-5"),
    Mutant("rises with the layer", "(1 - depth + 1e-5)", "(depth + 1e-5)"),
    Mutant("the same in every layer", " * (1 - depth + 1e-5)", ""),
    Mutant("decays instead of slopes", "    return (2", "    return torch.exp(-2"),
    Mutant("negative", "(2 **", "(-2.0 **"),
    Mutant("slowest first", ".float()", ".float().flip(0)"),
    Mutant("2^-h", "-8 * heads / num_heads", "-heads"),
    Mutant("-h/H, without the 8", "-8 * heads", "-heads"),
    Mutant("a single number", "torch.arange(1, num_heads + 1", "torch.tensor(num_heads"),
    Mutant("a single Python number", ".float()", ".mean().item()"),
    Mutant("even steps", "2 ** (-8 * heads / num_heads)", "8 / num_heads * heads"),
    Mutant("base e", "2 ** (-8 * heads / num_heads)", "torch.exp(-8 * heads / num_heads)"),
    Mutant("factor in the exponent", "2 ** (-8 * heads / num_heads) * (1 - depth + 1e-5)",
           "2 ** (-8 * heads / num_heads * (1 - depth + 1e-5))"),
    Mutant("one layer divides by zero", "layer / (num_layers - 1) if num_layers > 1 else 0.0",
           "layer / (num_layers - 1)"),
    Mutant("one layer has factor 1e-5", "else 0.0", "else 1.0"),
    Mutant("one layer has factor 1", "(1 - depth + 1e-5)", "(1 - depth + 1e-5 * (num_layers > 1))"),
    Mutant("1e-5 only where the factor would be 0", "(1 - depth + 1e-5)", "max(1 - depth, 1e-5)"),
    Mutant("10e-5", "1e-5", "10e-5"),
    Mutant("an integer base", "2 ** (-8 * heads / num_heads)", "2 ** (-8 * heads.long() // num_heads)"),
    Mutant("floored exponents", "-8 * heads / num_heads", "-8 * heads // num_heads"),
    Mutant("l / L - 1", "layer / (num_layers - 1)", "layer / num_layers - 1"),
    Mutant("l // (L - 1)", "layer / (num_layers - 1)", "layer // (num_layers - 1)"),
    Mutant("layers from 1", "depth = layer /", "depth = (layer + 1) /"),
    Mutant("fp64", ".float()", ""),
    Mutant("a list", ".float()", ".tolist()"),
]

LIVES = [
    Mutant("sign", "-math.log(fraction)", "math.log(fraction)"),
    Mutant("logarithm to base 2", "math.log(fraction)", "math.log2(fraction)"),
    Mutant("logarithm to base 10", "math.log(fraction)", "math.log10(fraction)"),
    Mutant("1/slope", "-math.log(fraction)", "1.0"),
    Mutant("fraction ignored", "math.log(fraction)", "math.log(0.5)"),
    Mutant("time until the fraction is lost", "math.log(fraction)", "math.log(1 - fraction)"),
    Mutant("slope as decay", "-math.log(fraction) / slopes", "math.log(fraction) / torch.log(slopes)"),
    Mutant("through exp and log", "-math.log(fraction) / slopes", "math.log(fraction) / torch.log(torch.exp(-slopes))"),
    Mutant("rounded", "-math.log(fraction) / slopes", "(-math.log(fraction) / slopes).round()"),
    Mutant("rounded up", "-math.log(fraction) / slopes", "(-math.log(fraction) / slopes).ceil()"),
    Mutant("multiplied", "/ slopes", "* slopes"),
    Mutant("1 / (s ln 2)", "-math.log(fraction) / slopes", "-1 / (slopes * math.log(fraction))"),
    Mutant("the weight after one token", "-math.log(fraction) / slopes", "torch.exp(-slopes)"),
    Mutant("an eps under the fraction bar", "/ slopes", "/ (slopes + 1e-6)"),
    Mutant("slope clamped", "/ slopes", "/ slopes.clamp(min=1e-12)"),
    Mutant("falls along a line", "-math.log(fraction)", "(1 - fraction)"),
    Mutant("a list", "-math.log(fraction) / slopes", "[-math.log(fraction) / max(s.item(), 1e-9) for s in slopes]"),
]

MUTANTS = {"3.1": QUADRATIC, "3.2": RECURRENT, "3.3": SLOPES, "3.4": LIVES}
