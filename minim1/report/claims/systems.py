"""Claims about time, memory and communication: what grows with the length of a text, and who waits for whom."""

import statistics
from collections.abc import Mapping, Sequence

from minim1.report.claims import Finding, Measured, Results, Row, verdict
from minim1.report.claims.draw import lines
from minim1.report.experiments import lasp, length, long_context, values
from minim1.report.experiments.long_context import HYBRID, MILLION, PURE, TWIN

LOOKS = {"pure lightning": "lightning", "hybrid": "expert", "pure softmax": "softmax"}

# 2: lightning attention is linear

LINEAR, CONSTANT, APART = 1.15, 0.15, 0.3  # slopes in log-log: at most, at most, softmax above lightning by at least
COUNTED = {"prefill": "seconds to read N tokens", "training": "seconds of a training step on N tokens",
           "decode": "seconds of one token behind N", "cache": "bytes of the cache",
           "peak": "most bytes in a training step"}
PASSES = ("prefill", "training", "decode")


def _linear(results: Results) -> Finding:
    """By medians over the seeds of the slopes over the upper octaves. Holds if pure lightning has at most LINEAR for
    prefill and training, also for the memory of training, at most CONSTANT for decode, a cache of constant size, and
    softmax lies at least APART above it in all three passes; partly if at least prefill and training are linear."""
    result = results["length"]
    slopes = {(what, network): [length.slope(run[what]) for run in values(result, network)]
              for what in COUNTED for network in LOOKS}
    middle = {key: statistics.median(found) for key, found in slopes.items()}
    lightning, softmax, hybrid = ({what: middle[what, network] for what in COUNTED}
                                  for network in ("pure lightning", "pure softmax", "hybrid"))
    linear = max(lightning["prefill"], lightning["training"]) <= LINEAR
    rest = (lightning["peak"] <= LINEAR and lightning["decode"] <= CONSTANT and lightning["cache"] == 0
            and all(softmax[what] - lightning[what] >= APART for what in PASSES))
    furthest = {what: values(result, "hybrid")[0][what][-1][0] for what in PASSES}

    def three(found: Mapping[str, float]) -> str:
        return ", ".join(f"{found[what]:.2f}" for what in PASSES)

    return Finding(
        verdict(linear and rest, linear),
        [Measured(f"slope of {COUNTED[what]}, {network}", found, "{:.2f}")
         for (what, network), found in slopes.items()],
        f"Slopes in log-log up to {furthest['prefill']:,} tokens (decode: {furthest['decode']:,}) for prefill, "
        f"training and decode are {three(lightning)} with lightning alone, {three(softmax)} with softmax alone and "
        f"{three(hybrid)} in the hybrid, where {_bend(values(result, 'hybrid'))}; the memory of training grows with "
        f"slope {lightning['peak']:.2f} and, since PyTorch's fused softmax writes no N x N scores, with "
        f"{softmax['peak']:.2f}: what lightning alone keeps constant is the cache.",
    )


def _bend(runs: Sequence[dict]) -> str:
    """Where the quadratic part of a prefill overtakes the linear one: the median of the runs that show both."""
    fits = [long_context.fit_quadratic(run["prefill"]) for run in runs]
    crossings = [linear / quadratic for linear, quadratic in fits if linear > 0 < quadratic]
    if not crossings:
        return "the quadratic part of the one softmax layer is not visible here"
    return (f"by a fit a N + b N² the one softmax layer overtakes the rest of the prefill at "
            f"{statistics.median(crossings):,.0f} tokens")


def _draw_linear(results: Results):
    def panel(what: str) -> dict:
        runs = {network: values(results["length"], network) for network in LOOKS}
        return {network: ([n for n, _ in found[0][what]], [[value for _, value in run[what]] for run in found])
                for network, found in runs.items()}

    titles = {"prefill": "prefill, s", "training": "training step, s", "decode": "one more token, s",
              "cache": "cache, bytes"}
    return lines({title: panel(what) for what, title in titles.items()}, LOOKS, x="tokens N", y="", log="xy")


# 4: a million tokens

HOUR, FOUND, SMALLER = 3600.0, 0.9, 7.0  # seconds; share of needles; the twin's cache over the hybrid's
NEEDLES, STAGE = "half turned", "second stage, base raised"  # M1's RoPE, and its way to long rows
ASKED = {  # in the picture: network, what it was trained on, meaning of its colour
    f"pure lightning, trained on {long_context.TRAINED}": ("pure lightning", "trained short", "thinking"),
    f"hybrid, trained on {long_context.TRAINED}": (NEEDLES, "trained short", "reward"),
    f"hybrid, then on {long_context.STAGED}": (NEEDLES, STAGE, "clipped"),
}
PATTERNS = {"pure lightning": PURE, "hybrid": HYBRID, "pure softmax": TWIN}


def _million(results: Results) -> Finding:
    """Reading: pure lightning has read a million tokens within an hour of one core with a cache of constant size, and
    the hybrid's cache, by a formula that agrees with what was measured to the byte, is at most 1 / SMALLER of a softmax
    twin's. Using: the hybrid's median share of needles at the longest text asked is at least FOUND.
    Holds if both, partly if reading alone."""
    result = results["long_context"]
    pure, hybrid = (values(result, f"prefill {layers}")[0] for layers in (PURE, HYBRID))
    memory = {layers: values(result, f"memory {layers}")[0] for layers in PATTERNS.values()}
    exact = all(held == long_context.cache_bytes(layers, tokens)
                for layers, found in memory.items() for tokens, held, _ in found)
    million = {layers: long_context.cache_bytes(layers, MILLION) for layers in memory}
    ratio = million[TWIN] / million[HYBRID]
    (_, _, first), (read, seconds, last) = pure[0], pure[-1]
    reads = read >= MILLION and seconds <= HOUR and first == last and exact and ratio >= SMALLER
    hours = seconds_to(hybrid, MILLION) / HOUR
    lengths, staged = (result["settings"][name] for name in ("lengths", "staged"))
    near, far = ([run[STAGE][lengths.index(tokens)] for run in values(result, f"needles {NEEDLES}")]
                 for tokens in (staged, lengths[-1]))
    at_once = {layers: found[-1][2] for layers, found in memory.items()}
    return Finding(
        verdict(reads and statistics.median(far) >= FOUND, reads),
        [Measured(f"hybrid trained on up to {staged} tokens: needles found at {lengths[-1]:,}", far, "{:.0%}"),
         Measured(f"the same: needles found at {staged}", near, "{:.0%}"),
         Measured(f"pure lightning: seconds for {read:,} tokens", [seconds], "{:.1f}"),
         Measured(f"hybrid: seconds for {hybrid[-1][0]:,} tokens", [hybrid[-1][1]], "{:.0f}"),
         Measured(f"hybrid: hours for {MILLION:,} tokens, by a N + b N² fitted to those", [hours], "{:.1f}"),
         *(Measured(f"{name}: bytes of the cache at {MILLION:,} tokens", [million[layers]], "{:,}")
           for name, layers in PATTERNS.items()),
         Measured(f"most bytes at once, scores included, while reading {memory[TWIN][-1][0]:,} tokens: pure softmax "
                  "over hybrid", [at_once[TWIN] / at_once[HYBRID]], "{:.1f}")],
        f"A pure lightning network 16 numbers wide reads {read:,} tokens in {seconds:.1f} s of one core with {last:,} "
        f"bytes of cache; one softmax layer in eight makes that {hours:.1f} h for a million (fitted to "
        f"{hybrid[-1][0]:,}) with a cache {ratio:.1f} times smaller than that of softmax alone; and reading is not "
        f"finding: at {lengths[-1] / staged:.0f} times the trained length {statistics.median(far):.0%} of the needles "
        f"are found, at the trained length {statistics.median(near):.0%}.",
    )


def seconds_to(points: Sequence[Sequence[float]], tokens: int) -> float:
    """By a N + b N² through the points (N, seconds, ...) but the first, in which the start shows."""
    linear, quadratic = long_context.fit_quadratic(points[1:])
    return linear * tokens + quadratic * tokens**2


def _draw_million(results: Results):
    result, lengths = results["long_context"], [2**power for power in range(10, 21, 2)]
    found = {name: values(result, f"prefill {PATTERNS[name]}")[0] for name in ("pure lightning", "hybrid")}
    seconds = {name: ([n for n, *_ in points], [[spent for _, spent, _ in points]]) for name, points in found.items()}
    seconds["hybrid, fitted"] = (lengths, [[seconds_to(found["hybrid"], n) for n in lengths]])
    cache = {name: (lengths, [[long_context.cache_bytes(layers, n) for n in lengths]])
             for name, layers in PATTERNS.items()}
    needles = {
        name: (result["settings"]["lengths"], [run[stage] for run in values(result, f"needles {arm}")])
        for name, (arm, stage, _) in ASKED.items()
    }
    looks = LOOKS | {"hybrid, fitted": "grey"} | {name: look for name, (_, _, look) in ASKED.items()}
    fig = lines({"prefill, s": seconds, "cache, bytes": cache, "needles found": needles}, looks, x="tokens", y="",
                log="xy")
    return fig.update_yaxes(type="linear", dtick=0.2, range=[0, 1.05], tickformat=".0%", col=3)


# 25: one all-gather instead of a chain

ROUNDING = 1e-5  # relative difference that fp32 may leave


def _lasp(results: Results) -> Finding:
    """By construction if, with every number of ranks and every seed, output and final state of both forms equal those
    of one process to ROUNDING, and N ranks exchange N - 1 times in a row with LASP, once with LASP+; partly if they are
    equal only."""
    result = results["lasp"]
    runs = [(lasp.RANKS[arm], run) for arm in result["runs"] for run in values(result, arm)]
    errors = [max(run[form][kind] for form in ("LASP", "LASP+") for kind in ("error", "state_error"))
              for _, run in runs]
    equal = max(errors) <= ROUNDING
    counted = all(run["LASP"]["exchanges"] == ranks - 1 and run["LASP+"]["exchanges"] == 1 for ranks, run in runs)
    most = max(ranks for ranks, _ in runs)
    chained, gathered = ([run[form] for ranks, run in runs if ranks == most] for form in ("LASP", "LASP+"))
    more = [sum(theirs["received"]) / sum(ours["received"]) for theirs, ours in zip(gathered, chained)]
    steps = {form: [run["exchanges"] for run in found] for form, found in (("LASP+", gathered), ("LASP", chained))}
    return Finding(
        "mechanism shown by construction" if equal and counted else "partly" if equal else "not at this scale",
        [*(Measured(f"{form}: exchanges in a row, {most} ranks", found, "{:.0f}") for form, found in steps.items()),
         Measured(f"bytes received by all {most} ranks, LASP+ over LASP", more, "{:.2f}"),
         Measured("largest relative difference from one process", errors, "{:.1e}")],
        f"{most} real processes differ from one by at most {max(errors):.0e} in output and final state, with "
        f"{max(steps['LASP'])} exchanges in a row as a chain and {max(steps['LASP+'])} with the all-gather, which "
        f"moves {statistics.median(more):.1f} times the bytes; whether the time falls with it needs a network, which "
        "one machine has not.",
    )


def _draw_lasp(results: Results):
    result = results["lasp"]
    arms = sorted(result["runs"], key=lasp.RANKS.get)
    ranks, seeds = [lasp.RANKS[arm] for arm in arms], min(len(result["runs"][arm]) for arm in arms)

    def panel(number) -> dict:
        return {form: (ranks, [[number(values(result, arm)[at][form]) for arm in arms] for at in range(seeds)])
                for form in ("LASP", "LASP+")}

    fig = lines({"exchanges in a row": panel(lambda run: run["exchanges"]),
                 "bytes received, all ranks": panel(lambda run: sum(run["received"]))},
                {"LASP": "softmax", "LASP+": "lightning"}, x="ranks", y=["exchanges", "bytes"])
    return fig.update_xaxes(tickvals=ranks).update_yaxes(rangemode="tozero")


ROWS = (
    Row(2, "linear", "lightning attention is linear: time in the number of tokens N, memory of decoding constant",
        "O(N) for training and prefill, at the same speed per token from 1K to 64K (3B model), where softmax falls to "
        "less than half", "M1 report §2; MiniMax-01 report §2.2, Fig. 8", ("length",), _linear, _draw_linear,
        "Four panels against the number of tokens, all axes logarithmic. Prefill and training step: lightning rises "
        "with slope 1, softmax bends to slope 2, the hybrid lies between and bends late. One more token, and the "
        "cache: lightning is flat, softmax and hybrid rise."),
    Row(4, "million", "1M tokens of context on modest hardware",
        "a context of 1M tokens natively, 8 times DeepSeek-R1's; 8-bit weights and 1M tokens on one node of 8 x 80 GB",
        "M1 report abstract; MiniMax-01 report §2.4", ("long_context",), _million, _draw_million,
        "Three panels against tokens. Seconds of prefill: lightning on a straight line of slope 1 to a million, the "
        "hybrid bending to slope 2, fitted on to a million. Bytes of the cache: lightning flat, hybrid and softmax "
        "parallel lines. Needles found: near all at the trained length, then falling, least for the hybrid trained on "
        "longer rows too."),
    Row(25, "lasp", "LASP+ replaces the serial chain between ranks by one all-gather",
        "one all-gather instead of sends from rank to rank; computing time down to 1/N of LASP's with N ranks",
        "MiniMax-01 report §3", ("lasp",), _lasp, _draw_lasp,
        "Two panels against the number of ranks. Exchanges in a row: LASP rises as ranks less one, LASP+ stays at one. "
        "Bytes received: both rise, LASP+ faster."),
)
