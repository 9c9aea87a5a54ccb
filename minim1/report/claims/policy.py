"""Claims about the policy loss: what a clip discards, how fast each loss learns, entropy, growth of length."""

import statistics
from collections.abc import Sequence

from minim1.report.claims import Finding, Measured, Results, Row, verdict
from minim1.report.claims.draw import lines
from minim1.report.experiments import policies, values
from minim1.report.published import fig2, fig4

LOSSES = {"cispo": "lightning", "dapo": "clipped", "grpo": "softmax"}  # and what colour each has
FIRST = 4  # rollout batches, in which <wait> is still rare
FAST = ", recipe's rate"
LEVEL = 0.6  # held-out accuracy, half-way between the SFT model's and the last


# 11: the clip discards reflection tokens


def _clipping(results: Results) -> Finding:
    """Holds if, for DAPO and for GRPO and with every seed, good first waits are clipped at least three times as often
    as good tokens in general; partly if the medians say so."""
    runs, times, waits = results["policies"], {}, {}
    for loss in ("dapo", "grpo"):
        waits[loss] = [_share(records, "positive first wait") for records in values(runs, loss)]
        every = [_share(records, "positive") for records in values(runs, loss)]
        times[loss] = [w / a if a else 0.0 for w, a in zip(waits[loss], every)]
    of_all = Measured("", [_share(records, "all") for records in values(runs, "dapo")], "{:.1%}")
    firsts = [_by_update(records, "positive first wait")[0] or 0.0 for records in values(runs, "dapo")]
    return Finding(
        verdict(all(min(found) >= 3 for found in times.values()),
                all(statistics.median(found) >= 3 for found in times.values())),
        [Measured("DAPO: good first waits clipped, times as often as all good tokens", times["dapo"], "{:.0f}"),
         Measured("GRPO: the same", times["grpo"], "{:.0f}"),
         Measured("DAPO: share of good first waits without gradient", waits["dapo"], "{:.0%}"),
         Measured("GRPO: the same", waits["grpo"], "{:.0%}")],
        f"In the first {FIRST} rollout batches DAPO's clip takes the gradient from "
        f"{Measured('', waits['dapo'], '{:.0%}')} of the first <wait>s of good answers and from {of_all} of all tokens; in "
        f"the first update of a batch, when the policy has not moved yet, from {max(firsts):.0%} of them; the task was built "
        "so that this token matters.",
    )


def _share(records: Sequence[dict], group: str) -> float:
    return policies.clipped_share(records, group, last=FIRST)


def _by_update(records: Sequence[dict], group: str) -> list[float | None]:
    """Share clipped in the 1st, 2nd, ... update of the first batches; None where there was no such token."""
    counts = [[update[group] for update in r["by_update"]] for r in records if 1 <= r["rollout"] <= FIRST]
    shares = []
    for updates in zip(*counts):
        tokens, clipped = (sum(column) for column in zip(*updates))
        shares.append(clipped / tokens if tokens else None)
    return shares or [None]


def _by_probability(records: Sequence[dict]) -> list[float | None]:
    counts = zip(*(r["by_old_probability"] for r in records if "by_old_probability" in r))
    sums = [[sum(column) for column in zip(*bins)] for bins in counts]
    return [clipped / tokens if tokens else None for tokens, clipped in sums]


def _draw_clipping(results: Results):
    runs = values(results["policies"], "dapo")
    bins = policies.OLD_PROBABILITY
    middles = [(low + high) / 2 for low, high in zip(bins, bins[1:])]
    numbers = list(range(1, 17))
    groups = {"first <wait> of good answers": "positive first wait", "all tokens of good answers": "positive"}
    return lines(
        {f"by update, batches 1 to {FIRST}": {name: (numbers, [_by_update(r, group) for r in runs])
                                              for name, group in groups.items()},
         "by old probability, all batches": {"all tokens of good answers": (middles, [_by_probability(r) for r in runs])}},
        dict(zip(groups, ("clipped", "text"))), x=["update of the batch", "old probability of the token"],
        y="share without gradient")


# 12: CISPO needs half of DAPO's steps


def _speed_up(runs: dict, how: str, loss: str = "dapo", level: float = LEVEL) -> list[float]:
    """Steps of a loss over CISPO's, for each seed with which both arrive."""
    reached = [[policies.steps_to(records, level) for records in values(runs, f"{name}{how}")] for name in (loss, "cispo")]
    return [theirs / ours for theirs, ours in zip(*reached) if theirs and ours]


def _final(runs: dict, arm: str) -> list[float]:
    """Mean accuracy after the last three batches, for each seed."""
    return [statistics.mean(r["accuracy"] for r in records[-3:]) for records in values(runs, arm)]


def _cispo(results: Results) -> Finding:
    """With 16 updates a batch. "Half the steps": DAPO / CISPO at least 1.8 in the median; "GRPO is worse": its final
    accuracy below CISPO's and DAPO's with every seed. Holds if both, partly if CISPO is faster with every seed."""
    runs = results["policies"]
    against, on_policy = _speed_up(runs, ""), _speed_up(runs, ", 1 update")
    grpo, final = _speed_up(runs, "", "grpo"), {loss: _final(runs, loss) for loss in LOSSES}
    grpo_worse = all(g < min(c, d) for g, c, d in zip(final["grpo"], final["cispo"], final["dapo"]))
    if not against:
        return Finding("not at this scale", [Measured("DAPO's steps over CISPO's", [])],
                       f"No run reached an accuracy of {LEVEL}.")
    twice = statistics.median(against) >= 1.8
    fast, fast_end = _speed_up(runs, FAST), {loss: _final(runs, f"{loss}{FAST}") for loss in LOSSES}
    measured = [
        Measured(f"DAPO's steps to {LEVEL} over CISPO's, 16 updates a batch", against, "{:.2f}"),
        Measured("the same, 1 update", on_policy, "{:.2f}"),
        Measured("the same, 4 updates", _speed_up(runs, ", 4 updates"), "{:.2f}"),
        Measured("the same, 16 updates at three times the rate", fast, "{:.2f}"),
        Measured("GRPO's over CISPO's, 16 updates", grpo, "{:.2f}"),
        *(Measured(f"{loss.upper()}: accuracy at the end", found, "{:.2f}") for loss, found in final.items()),
        *(Measured(f"{loss.upper()}: the same at three times the rate", found, "{:.2f}") for loss, found in fast_end.items()),
    ]
    return Finding(
        verdict(twice and grpo_worse, min(against) > 1),
        measured,
        f"To an accuracy of {LEVEL} DAPO takes {measured[0]} times CISPO's steps when a batch serves 16 updates, "
        f"{measured[1]} times when it serves one, and {measured[3]} times at three times the rate, where CISPO however ends at "
        f"{Measured('', fast_end['cispo'], '{:.2f}')} and DAPO at {Measured('', fast_end['dapo'], '{:.2f}')}; GRPO "
        f"{'ends worse' if grpo_worse else 'does not end worse'} than the others; the report's factor of {_TWICE:.1f} is read "
        "off one seed and one noisy peak.",
    )


def _draw_cispo(results: Results):
    runs = results["policies"]
    settings = {"16 updates a batch": "", "1 update": ", 1 update", "4 updates": ", 4 updates", "3 x the rate": ", recipe's rate"}
    return lines(
        {title: {loss.upper(): _curve(values(runs, f"{loss}{how}"), "accuracy") for loss in LOSSES}
         for title, how in settings.items()},
        {loss.upper(): look for loss, look in LOSSES.items()}, x="optimiser steps", y="held-out accuracy", shared_y=True)


def _curve(seeds: Sequence[Sequence[dict]], field: str) -> tuple[list, list]:
    """x, and y for each seed, of records: optimiser steps and a field of theirs."""
    return [16 * r["rollout"] for r in seeds[0]], [[r.get(field) for r in records] for records in seeds]


def published_speed_up() -> tuple[float, float]:
    """From the report's figure 2: how many times DAPO's steps to its own peak are CISPO's, and that peak (percent)."""
    curves = fig2()
    peak = max(curves["dapo"].values())
    at = {name: min(step for step, value in curves[name].items() if value >= peak) for name in ("dapo", "cispo")}
    return at["dapo"] / at["cispo"], peak


# 13: entropy


def _entropy(results: Results) -> Finding:
    """Holds if CISPO's entropy stays within a factor of two of its first value with every seed, at both learning rates;
    partly if at the lower one only."""
    runs = results["policies"]
    moved = {name: [_factor(records) for records in values(runs, arm)]
             for name, arm in (("base", "cispo"), ("recipe", "cispo, recipe's rate"), ("large", "cispo, large step"))}
    calm = {name: max(found, default=1.0) <= 2 for name, found in moved.items()}
    dapo = [_factor(records) for records in values(runs, "dapo")]
    shown = {name: Measured("", found, "{:.2f}") for name, found in moved.items()}
    return Finding(
        verdict(calm["base"] and calm["recipe"], calm["base"]),
        [Measured("CISPO: largest change of entropy from the first batch on, as a factor", moved["base"], "{:.2f}"),
         Measured("the same at three times the rate", moved["recipe"], "{:.2f}"),
         *([Measured("the same at fifteen times the rate", moved["large"], "{:.2f}")] if moved["large"] else []),
         Measured("DAPO, at CISPO's rate", dapo, "{:.2f}")],
        f"CISPO's entropy moves by a factor of {shown['base']} during the rise, DAPO's by "
        f"{Measured('', dapo, '{:.2f}')}; nothing in the loss guards it: at three times the rate the factor is "
        f"{shown['recipe']}{', at fifteen times ' + str(shown['large']) if moved['large'] else ''}.",
    )


def _factor(records: Sequence[dict]) -> float:
    """The largest entropy of a run over its first, or the first over the smallest, whichever is more."""
    found = [r["entropy"] for r in records if r.get("entropy")]
    return max(max(found) / found[0], found[0] / min(found)) if found else 1.0


def _draw_entropy(results: Results):
    runs = results["policies"]
    panels = {"16 updates": "", "three times the rate": ", recipe's rate"}
    drawn = {title: {loss.upper(): _trained(values(runs, f"{loss}{how}")) for loss in LOSSES} for title, how in panels.items()}
    if "cispo, large step" in runs["runs"]:  # run for chapter 12, not for this claim
        drawn["fifteen times"] = {loss.upper(): _trained(values(runs, f"{loss}, large step")) for loss in ("cispo", "dapo")}
    return lines(drawn, {loss.upper(): look for loss, look in LOSSES.items()}, x="optimiser steps", y="entropy, nats per token")


def _trained(seeds: Sequence[Sequence[dict]]) -> tuple[list, list]:
    return _curve([records[1:] for records in seeds], "entropy")  # the first record is of before any batch


# 19: length and accuracy grow together


def _growth(results: Results) -> Finding:
    """Holds if with every seed accuracy and length of thought both end higher than they began and correlate by more than
    0.5 over the batches; partly if both rise in the median."""
    runs = values(results["policies"], "cispo")
    tied = [_correlation([r["accuracy"] for r in records], [r["thinking"] for r in records]) for records in runs]
    longer, better = ([records[-1][field] - records[0][field] for records in runs] for field in ("thinking", "accuracy"))
    times = [records[-1]["thinking"] / records[0]["thinking"] for records in runs]
    theirs = _published_growth()
    return Finding(
        verdict(min(*longer, *better) > 0 and min(tied) > 0.5, statistics.median(longer) > 0 < statistics.median(better)),
        [Measured("correlation of accuracy and thinking tokens over a run", tied, "{:.2f}"),
         Measured("thinking tokens, times as many", times, "{:.1f}"),
         Measured("accuracy gained", better, "{:.2f}"),
         Measured("the report's figure 4, AIME 2024: correlation", [theirs[0]], "{:.2f}"),
         Measured("the same: length, times as long", [theirs[1]], "{:.1f}")],
        f"Over a run of ours accuracy and thinking tokens correlate by {Measured('', tied, '{:.2f}')}, over M1's RL by "
        f"{theirs[0]:.2f} on AIME 2024; ours rise within a few batches and stay, because the one habit to learn is to try "
        "again, while M1's rise for 4,000 steps with a plateau between 1,000 and 2,500.",
    )


def _correlation(a: Sequence[float], b: Sequence[float]) -> float:
    return statistics.correlation(a, b) if len(set(a)) > 1 and len(set(b)) > 1 else 0.0


def _published_growth(benchmark: str = "AIME24") -> tuple[float, float]:
    """Correlation of accuracy and length at the steps where both are drawn, and the last length over the first."""
    accuracy, length = (dict(fig4()[f"{benchmark} {what}"]) for what in ("acc", "len"))
    steps = sorted(set(accuracy) & set(length))
    lengths = [length[step] for step in steps]
    return _correlation([accuracy[step] for step in steps], lengths), lengths[-1] / lengths[0]


def _draw_growth(results: Results):
    runs, curves = values(results["policies"], "cispo"), fig4()
    theirs = {what: tuple(zip(*curves[f"AIME24 {what}"])) for what in ("acc", "len")}
    return lines(
        {"ours: accuracy": {"minim1": _curve(runs, "accuracy")}, "ours: thinking": {"minim1": _curve(runs, "thinking")},
         "M1: AIME 2024": {"M1, Fig. 4": (theirs["acc"][0], [theirs["acc"][1]])},
         "M1: length": {"M1, Fig. 4": (theirs["len"][0], [theirs["len"][1]])}},
        {"minim1": "lightning", "M1, Fig. 4": "text"}, x="optimiser steps", y=["right", "tokens", "percent", "tokens"])


_TWICE, _PEAK = published_speed_up()
ROWS = (
    Row(11, "clipping", "the clip of PPO and GRPO discards rare reflection tokens", "described, no figure",
        "M1 report §3.1", ("policies",), _clipping, _draw_clipping,
        "Share of tokens of good answers without gradient under DAPO's clip. Left: by update of a batch; first waits rise "
        "steeply after the first update, all tokens stay low. Right: by old probability; rare tokens are clipped most."),
    Row(12, "cispo", "CISPO needs half of DAPO's steps, and GRPO does worse", f"{_TWICE:.1f} times fewer steps to {_PEAK}%",
        "M1 report §3.1, Fig. 2", ("policies",), _cispo, _draw_cispo,
        "Held-out accuracy against optimiser steps for CISPO, DAPO and GRPO, bands over the seeds, in four settings: 16, 1 and 4 "
        "updates a batch, and three times the learning rate."),
    Row(13, "entropy", "CISPO keeps entropy in a reasonable range", "no figure", "M1 report §3.1", ("policies",), _entropy,
        _draw_entropy, "Entropy per token against optimiser steps for the three losses at three learning rates."),
    Row(19, "growth", "RL grows the length of reasoning and accuracy together",
        "AIME 2024: 67.9 to 84.6%, 12.5K to 21.4K tokens", "M1 report §5, Fig. 4", ("policies",), _growth, _draw_growth,
        "Accuracy and thinking tokens against optimiser steps, five seeds of ours; beside them M1's accuracy and length on "
        "AIME 2024 over 4,304 steps. All four rise."),
)
