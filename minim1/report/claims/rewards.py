"""Claims about what is rewarded and how far it may run: staged output windows, and a judge that likes length."""

import statistics
from collections.abc import Callable, Sequence

from minim1.report.claims import Finding, Measured, Results, Row, verdict
from minim1.report.claims.draw import lines
from minim1.report.experiments import judge, values, windows
from minim1.report.palette import COLOURS

STAGE = 2 * windows.PATIENCE  # batches that a window stays at least
END = 3  # batches, at the end of a run, whose success counts


# 17: the window grows in stages, wrong answers fill it first, and the tails collapse


def _windows(results: Results) -> Finding:
    """Three parts, each with every seed: the window grows at least once in both arms; in plain runs wrong answers fill
    it first, that is to say more of them than of the right ones are cut, and those that are not lengthen more than right
    ones (an answer without its end is wrong by construction, so that being cut says nothing alone); in the last stage the
    tails of cut answers are worse than their heads without the fixes, and less so with them. Holds: all, partly: two."""
    runs = {arm: values(results["windows"], arm) for arm in windows.ARMS}
    plain = runs["plain"]

    def both(what: str, of: Callable[[Sequence[dict]], float], form: str) -> list[Measured]:
        return [Measured(says, [of(records) for records in runs[arm]], form)
                for arm, says in (("plain", f"{what}, plain"), ("with the fixes", "the same, with the fixes"))]

    tails = both("tail over head perplexity of cut answers", lambda records: tail(records[-STAGE:]), "{:.2f}")
    reached = both("last window in tokens", lambda records: records[-1]["window"], "{:.0f}")
    success = both("success", lambda records: _success(records, STAGE), "{:.2f}")
    cut = [Measured(f"{kind} answers cut at the window, plain",
                    [statistics.mean(r[f"cut_{kind}"] for r in records[-STAGE:]) for records in plain], "{:.0%}")
           for kind in ("wrong", "right")]
    longer = [Measured(f"tokens by which {says} lengthen, plain", [growth(records, kind) for records in plain], "{:.1f}")
              for kind, says in (("wrong", "wrong answers"), ("ended", "wrong answers not cut"), ("right", "right answers"))]
    _, ended, right = longer
    grew = all(records[-1]["window"] > records[0]["window"] for found in runs.values() for records in found)
    first = _above(*cut) and _above(ended, right)
    worse = min(tails[0].values) > 1 and _above(*tails)
    return Finding(
        verdict(grew and first and worse, grew + first + worse == 2), [*tails, *reached, *cut, *longer, *success],
        f"In {len(plain[0])} batches, at least {STAGE} to a stage, windows grew from {plain[0][0]['window']} to {reached[0]} "
        f"tokens ({reached[1]} with the fixes); {cut[0]} of the late wrong answers were cut there, which alone makes an answer "
        f"wrong, and those that were not had grown by {ended} tokens where right ones had by {right}; cut answers had tails "
        f"of {tails[0]} times the perplexity of their heads, {tails[1]} with the fixes, at a success of {success[0]} and "
        f"{success[1]}.",
    )


def _above(these: Measured, those: Measured) -> bool:
    """Whether the values are larger with every seed."""
    return all(this > that for this, that in zip(these.values, those.values))


def growth(records: Sequence[dict], kind: str) -> float:
    """Tokens by which answers lengthen from the first stage's time to the last's; 0 where either has none of them.

    kind: "right", "wrong", or "ended": the wrong ones that were not cut at the window."""
    first, last = (_length(part, kind) for part in (records[:STAGE], records[-STAGE:]))
    return last - first if first and last else 0.0


def _length(records: Sequence[dict], kind: str) -> float:
    """Mean length over all answers of a kind in some batches of equal size; 0 without any."""
    tokens = count = 0.0
    for r in records:
        share = r["success"] if kind == "right" else 1 - r["success"]
        cut = r["cut_wrong"] if kind == "ended" else 0.0
        length = r["length_right"] if kind == "right" else r["length_wrong"]
        tokens, count = tokens + share * (length - cut * r["window"]), count + share * (1 - cut)
    return tokens / count if count > 1e-9 else 0.0


def tail(records: Sequence[dict]) -> float:
    """Perplexity of the last quarter of cut answers over that of the first: mean of the batches with any; 1 without.

    >>> tail([{"head_perplexity": 2.0, "tail_perplexity": 3.0}, {"head_perplexity": 0.0, "tail_perplexity": 0.0}])
    1.5
    """
    ratios = [r["tail_perplexity"] / r["head_perplexity"] for r in records if r["head_perplexity"]]
    return statistics.mean(ratios) if ratios else 1.0


def _success(records: Sequence[dict], batches: int) -> float:
    return statistics.mean(r["success"] for r in records[-batches:])


def _draw_windows(results: Results):
    runs = {arm: values(results["windows"], arm) for arm in windows.ARMS}
    panels = {
        "output window": lambda r: r["window"],
        "wrong answers cut at it": lambda r: r["cut_wrong"],
        "tail over head, cut answers": lambda r: tail([r]) if r["head_perplexity"] else None,
    }
    return lines(
        {title: {arm: _series(found, of) for arm, found in runs.items()} for title, of in panels.items()},
        {"plain": "clipped", "with the fixes": "lightning"}, x="rollout batch", y=["tokens", "share", "ratio of perplexities"])


def _series(runs: Sequence[Sequence[dict]], of: Callable[[dict], float | None]) -> tuple[list, list]:
    """Batch numbers, and for each seed a number of every record."""
    return [r["rollout"] for r in runs[0]], [[of(r) for r in records] for records in runs]


# 21: a generative judge is biased towards length; a detector and recalibration help


def _judge(results: Results) -> Finding:
    """The bias is planted, so at best a mechanism is shown: the biased judge makes answers longer and success worse than
    the fair one, the alarm rings in every watched run and in fewer fair ones, and watched runs end with more success
    than biased ones, all with every seed. Partly if the harm and the alarms in watched runs are there."""
    runs = {arm: values(results["judge"], arm) for arm in judge.BONUS}
    success = {arm: Measured(f"success at the end, {arm} judge", [_success(records, END) for records in found], "{:.2f}")
               for arm, found in runs.items()}
    length = {arm: Measured(f"tokens at the end, {arm} judge",
                            [statistics.mean(r["length"] for r in records[-END:]) for records in found], "{:.0f}")
              for arm, found in runs.items()}
    repaired = Measured("success that recalibration gives back",
                        [w - b for w, b in zip(success["watched"].values, success["biased"].values)], "{:+.2f}")
    alarms, false = ([r for records in runs[arm] if (r := first_alarm(records))] for arm in ("watched", "fair"))
    heard = [Measured("batch of the first alarm", [r["rollout"] for r in alarms], "{:.0f}"),
             Measured("success at the first alarm", [r["success"] for r in alarms], "{:.2f}")] if alarms else []
    harm = _above(success["fair"], success["biased"]) and _above(length["biased"], length["fair"])
    rings = len(alarms) == len(runs["watched"])
    shown = harm and rings and len(false) < len(alarms) and min(repaired.values) > 0
    when = f"the alarm came in batch {heard[0]}, at a success of {heard[1]}" if heard else "no alarm came"
    return Finding(
        "mechanism shown by construction" if shown else verdict(False, harm and rings),
        [repaired, *success.values(), *length.values(), *heard],
        f"Under a judge that we made to like length, success ended at {success['biased']} where a fair one left "
        f"{success['fair']}; {when} (and in {len(false)} of {len(runs['fair'])} runs under the fair judge), and taking the "
        f"bias away after it gave back {repaired}.",
    )


def first_alarm(records: Sequence[dict]) -> dict | None:
    """The record of the batch after which the detector first rings."""
    return next((r for r in records if r["alarm"]), None)


def _draw_judge(results: Results):
    runs = {arm: values(results["judge"], arm) for arm in judge.BONUS}
    panels = {"mean length": "length", "verified success": "success"}
    fig = lines({title: {arm: _series(found, lambda r, key=key: r[key]) for arm, found in runs.items()}
                 for title, key in panels.items()},
                {"biased": "softmax", "watched": "expert", "fair": "lightning"}, x="rollout batch", y=["tokens", "share"])
    alarms = [found for records in runs["watched"] if (found := first_alarm(records))]
    for column, key in enumerate(panels.values(), 1):
        fig.add_scatter(
            x=[r["rollout"] for r in alarms], y=[r[key] for r in alarms], mode="markers", name="first alarm",
            showlegend=column == 1, marker={"symbol": "star", "size": 14, "color": COLOURS["reward"]}, row=1, col=column)
    return fig


ROWS = (
    Row(17, "windows", "the output window grows in stages through two gates; negative samples fill it first and collapse the "
        "tails, which three fixes prevent", "40K, 48K, 56K, 64K, 72K, 80K; neither thresholds nor curves", "M1 report §5",
        ("windows",), _windows, _draw_windows,
        "Three panels against the rollout batch, bands over the seeds. The output window grows from 40 tokens by one or two "
        "steps of 8. The share of wrong answers cut at it rises to more than half, with the fixes too. The perplexity of the "
        "last quarter of cut answers over that of the first rises from below 1 to about 1.5, highest in a plain run."),
    Row(21, "judge", "generative rewards are biased towards length; watching for it online and recalibrating helps",
        "described, no figure", "M1 report §4.2.2", ("judge",), _judge, _draw_judge,
        "Mean length and verified success against the rollout batch under three judges, bands over the seeds; stars mark the "
        "first alarms. Biased: length goes to the window of 56 and success to 0. Fair: length stays at half of that. Watched: "
        "as biased up to the stars, where success is nearly 0; then some of it comes back."),
)
