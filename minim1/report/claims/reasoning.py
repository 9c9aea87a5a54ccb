"""Claims about what is done with a model that reasons: longer budgets, more kinds of tasks, many turns with tools."""

import statistics
from collections.abc import Mapping, Sequence

from minim1.report.claims import Finding, Measured, Results, Row, verdict
from minim1.report.claims.draw import lines
from minim1.report.experiments import curriculum, serving, tools, values

SHARE = "{:.1%}"


def below(these: Sequence[float], those: Sequence[float]) -> bool:
    """Whether all seeds of `these` lie below all of `those`: a loss beyond the range of the seeds."""
    return max(these) < min(those)


# A longer budget


def doubling(curve: Sequence[Mapping]) -> tuple[Mapping, Mapping]:
    """Of a budget curve: the largest budget, and the one nearest to its half, as M1's 80K is to its 40K."""
    largest = max(curve, key=lambda row: row["budget"])
    return min(curve, key=lambda row: abs(2 * row["budget"] - largest["budget"])), largest


def _budget(results: Results) -> Finding:
    """Holds: after RL every seed gains by doubling the budget, and more than after SFT, where the budget alone is at
    work; partly: the median seed does."""
    curves = serving.arranged(results["serving"])["budgets"]
    ends = {name: [doubling(curve) for curve in seeds] for name, seeds in curves.items()}
    gains = {name: [large["accuracy"] - half["accuracy"] for half, large in found] for name, found in ends.items()}
    after, before = gains["after RL"], gains["after SFT"]
    half, large = ends["after RL"][0]
    first = [curve[0]["accuracy"] for curve in curves["after RL"]]
    whole = [large["accuracy"] for _, large in ends["after RL"]]
    used = statistics.median(large["thinking"] for _, large in ends["after RL"])
    rise, sft = (Measured("", found, "{:+.1%}") for found in (after, before))
    return Finding(
        verdict(min(after) > 0 and below(before, after),
                statistics.median(after) > max(0, statistics.median(before))),
        [Measured(f"accuracy gained from budget {half['budget']} to {large['budget']}, after RL", after, "{:+.1%}"),
         Measured("the same after SFT", before, "{:+.1%}"),
         Measured(f"accuracy at budget {curves['after RL'][0][0]['budget']}, after RL", first, SHARE),
         Measured(f"accuracy at budget {large['budget']}, after RL", whole, SHARE),
         Measured(f"tokens of thought used at budget {large['budget']}, after RL",
                  [large["thinking"] for _, large in ends["after RL"]], "{:.1f}")],
        f"Doubling the longest budget gives {rise} after RL and {sft} after SFT, whose thoughts stay short: a budget is "
        f"worth what RL has taught to do with it, and saturates once it exceeds the thoughts (at {large['budget']} tokens "
        f"{used:.0f} are used); ours is one model under two budgets, M1-40k and M1-80k are two stages of one training, and "
        "the longer one is worse on both MRCR rows and on TAU retail.",
    )


def _budget_curves(results: Results):
    curves = serving.arranged(results["serving"])["budgets"]
    found = {name: ([row["budget"] for row in seeds[0]], [[row["accuracy"] for row in curve] for curve in seeds])
             for name, seeds in curves.items()}
    return lines({"pair, held-out problems": found}, {"after SFT": "softmax", "after RL": "lightning"},
                 x="thinking budget (tokens)", y="share of right answers")


# General tasks by a curriculum

MIXED, LATER = "mixed from the start", "reasoning first, then mixed"
ALONE, ABRUPT = "reasoning alone", "reasoning first, then general"


def reasoning(record: Mapping) -> float:
    """Accuracy on the reasoning tasks."""
    return record["accuracy"][curriculum.REASONING]


def general(record: Mapping) -> float:
    """Mean accuracy on the general families."""
    return statistics.mean(record["accuracy"][family] for family in curriculum.OTHERS)


def forgotten(runs: Mapping[str, Sequence]) -> dict[str, bool]:
    """What the controls lose beyond the range of the seeds: "general" of reasoning alone, from the start to the end;
    "reasoning" of general tasks alone, from the last evaluation before them to the end."""
    alone, abrupt = runs[ALONE], runs[ABRUPT]
    return {"general": below([general(run[-1]) for run in alone], [general(run[0]) for run in alone]),
            "reasoning": below([reasoning(run[-1]) for run in abrupt], [reasoning(run[-2]) for run in abrupt])}


def _curriculum(results: Results) -> Finding:
    """By ranges of seeds that do not overlap (`below`). If neither control forgets, nothing can be avoided: not at this
    scale. Else holds: the curriculum ends with reasoning not below that of mixing from the start, and general accuracy
    not below its own start; partly: one of the two."""
    runs = {arm: values(results["curriculum"], arm) for arm in curriculum.GENERAL}
    lost = forgotten(runs)
    ends = {arm: [[of(run[-1]) for run in found] for of in (reasoning, general)] for arm, found in runs.items()}
    began = [general(run[0]) for run in runs[LATER]]
    kept = [not below(ends[LATER][0], ends[MIXED][0]), not below(ends[LATER][1], began)]
    what = {"general": "reasoning alone loses general accuracy", "reasoning": "general tasks at the end lose reasoning"}
    controls = " and ".join(what[kind] for kind, is_lost in lost.items() if is_lost)
    says = {arm: [str(Measured("", found, "{:.0%}")) for found in both] for arm, both in ends.items()}
    return Finding(
        verdict(bool(controls) and all(kept), bool(controls) and any(kept)),
        [Measured("reasoning at the end of the curriculum", ends[LATER][0], SHARE),
         *(Measured(f"reasoning at the end, {arm}", ends[arm][0], SHARE) for arm in (MIXED, ALONE, ABRUPT)),
         Measured("general at the start", began, SHARE),
         *(Measured(f"general at the end, {arm}", ends[arm][1], SHARE) for arm in (LATER, MIXED, ALONE, ABRUPT))],
        f"The curriculum ends with reasoning at {says[LATER][0]} and general tasks at {says[LATER][1]}, the same problems "
        f"mixed from the start at {says[MIXED][0]} and {says[MIXED][1]}, after {statistics.median(began):.0%} general; "
        f"{controls or 'neither control forgets beyond the range of the seeds, so that there is nothing to avoid'}; M1's "
        "weights are unpublished and its general tasks have a model as judge, ours rules.",
    )


def _curriculum_curves(results: Results):
    runs = {arm: values(results["curriculum"], arm) for arm in curriculum.GENERAL}
    looks = dict(zip((ALONE, MIXED, LATER, ABRUPT), ("grey", "softmax", "lightning", "clipped")))
    panels = {title: {arm: ([record["rollout"] for record in found[0]], [[of(r) for r in run] for run in found])
                      for arm, found in runs.items()}
              for title, of in (("reasoning: pair", reasoning), ("general: add, sort, recall", general))}
    return lines(panels, looks, x="rollouts of 256 answers", y="share of right answers")
