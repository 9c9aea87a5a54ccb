"""Claims about what is done with a model that reasons: longer budgets, more kinds of tasks, many turns with tools."""

import statistics
from collections.abc import Mapping, Sequence

from minim1.report.claims import Finding, Measured, Results, Row, verdict
from minim1.report.claims.draw import lines
from minim1.report.experiments import curriculum, desk, serving, tools, values
from minim1.tasks.desk import pass_hat_k

SHARE, GAIN, ROUND = "{:.1%}", "{:+.1%}", "{:.0%}"


def below(these: Sequence[float], those: Sequence[float]) -> bool:
    """Whether all seeds of `these` lie below all of `those`: a loss beyond the range of the seeds."""
    return max(these) < min(those)


# A longer budget


def doubling(curve: Sequence[Mapping]) -> tuple[Mapping, Mapping]:
    """Of a budget curve: the budget nearest to half of the largest, and the largest, as M1's 40K and 80K."""
    largest = max(curve, key=lambda row: row["budget"])
    return min(curve, key=lambda row: abs(2 * row["budget"] - largest["budget"])), largest


def _budget(results: Results) -> Finding:
    """Holds: after RL every seed gains by doubling the budget, and more than any after SFT, where nothing but the
    budget is at work. Partly: the median of the seeds does."""
    curves = serving.arranged(results["serving"])["budgets"]
    ends = {name: [doubling(curve) for curve in seeds] for name, seeds in curves.items()}
    after, before = ([large["accuracy"] - half["accuracy"] for half, large in ends[name]]
                     for name in ("after RL", "after SFT"))
    (half, large), least = ends["after RL"][0], curves["after RL"][0][0]["budget"]
    used = Measured(f"tokens of thought used within {large['budget']}, after RL",
                    [large["thinking"] for _, large in ends["after RL"]], "{:.1f}")
    rises = [Measured(f"accuracy gained from budget {half['budget']} to {large['budget']}, {when}", found, GAIN)
             for when, found in (("after RL", after), ("after SFT", before))]
    return Finding(
        verdict(min(after) > 0 and below(before, after),
                statistics.median(after) > max(0, statistics.median(before))),
        [*rises,
         Measured(f"accuracy at budget {least}, after RL", [seed[0]["accuracy"] for seed in curves["after RL"]], SHARE),
         Measured(f"accuracy at budget {large['budget']}, after RL",
                  [large["accuracy"] for _, large in ends["after RL"]], SHARE),
         used],
        f"Doubling the longest budget gives {rises[0]} after RL and {rises[1]} after SFT, whose thoughts stay short: a "
        "budget is worth what RL has taught to do with it, and nothing beyond the end of the thoughts (of "
        f"{large['budget']} tokens {used.median:.0f} are used); ours is one model under two budgets, M1-40k and M1-80k "
        "are two stages of one training, and the longer one is worse on both MRCR rows and on TAU retail.",
    )


def _budget_curves(results: Results):
    curves = serving.arranged(results["serving"])["budgets"]
    found = {name: ([row["budget"] for row in seeds[0]], [[row["accuracy"] for row in curve] for curve in seeds])
             for name, seeds in curves.items()}
    return lines({"held-out pair problems": found}, {"after SFT": "softmax", "after RL": "lightning"},
                 x="thinking budget (tokens)", y="share of right answers")


# General tasks by a curriculum

ALONE, ABRUPT = "reasoning alone", "reasoning first, then general"
MIXED, LATER = "mixed from the start", "reasoning first, then mixed"


def reasoning(record: Mapping) -> float:
    """Accuracy on the reasoning tasks."""
    return record["accuracy"][curriculum.REASONING]


def general(record: Mapping) -> float:
    """Mean accuracy on the general families."""
    return statistics.mean(record["accuracy"][family] for family in curriculum.OTHERS)


def forgotten(runs: Mapping[str, Sequence]) -> dict[str, bool]:
    """What the controls lose beyond the range of the seeds: "general", reasoning alone from its start to its end;
    "reasoning", general tasks at the end from the last evaluation before to the last one."""
    alone, abrupt = runs[ALONE], runs[ABRUPT]
    return {"general": below([general(run[-1]) for run in alone], [general(run[0]) for run in alone]),
            "reasoning": below([reasoning(run[-1]) for run in abrupt], [reasoning(run[-2]) for run in abrupt])}


def _curriculum(results: Results) -> Finding:
    """By ranges of seeds that do not overlap (`below`). If neither control forgets, there is nothing to avoid: not at
    this scale. Else holds: the curriculum ends with reasoning not below that of mixing from the start, and with general
    accuracy not below its own start. Partly: one of the two."""
    runs = {arm: values(results["curriculum"], arm) for arm in curriculum.GENERAL}
    ends = {arm: [Measured(f"{what} at the end, {arm}", [of(run[-1]) for run in found], ROUND)
                  for what, of in (("reasoning", reasoning), ("general", general))] for arm, found in runs.items()}
    began = Measured("general at the start", [general(run[0]) for run in runs[LATER]], ROUND)
    kept = [not below(ends[LATER][0].values, ends[MIXED][0].values), not below(ends[LATER][1].values, began.values)]
    lost = forgotten(runs)
    controls = (
        f"reasoning alone {'loses' if lost['general'] else 'does not lose'} general accuracy ({ends[ALONE][1]}), "
        f"general tasks at the end {'cost' if lost['reasoning'] else 'do not cost'} reasoning ({ends[ABRUPT][0]})")
    avoidable = any(lost.values())
    order = (LATER, MIXED, ALONE, ABRUPT)
    return Finding(
        verdict(avoidable and all(kept), avoidable and any(kept)),
        [*(ends[arm][0] for arm in order), began, *(ends[arm][1] for arm in order)],
        f"The curriculum ends with reasoning at {ends[LATER][0]} and general tasks at {ends[LATER][1]}, the same "
        f"problems mixed from the start with {ends[MIXED][0]} and {ends[MIXED][1]}; general tasks began at {began}; "
        f"{controls}{'' if avoidable else ', so that there is nothing to avoid'}; the weights are ours, as M1's are "
        "unpublished, and rules judge our general tasks where a model judges M1's.",
    )


def _curriculum_curves(results: Results):
    runs = {arm: values(results["curriculum"], arm) for arm in curriculum.GENERAL}
    looks = dict(zip((ALONE, MIXED, LATER, ABRUPT), ("grey", "softmax", "lightning", "clipped")))
    panels = {title: {arm: ([record["rollout"] for record in found[0]], [[of(r) for r in run] for run in found])
                      for arm, found in runs.items()}
              for title, of in (("reasoning: pair", reasoning), ("general: add, sort, recall", general))}
    return lines(panels, looks, x="rollouts", y="share of right answers")


# Tools over many turns


def wrong_turns(record: Mapping) -> float:
    """Of the turns up to the first wrong one: the share that is wrong."""
    return record["wrong"] / (record["right"] + record["wrong"])


def success(record: Mapping) -> float:
    """Share of the conversations of a length that succeed."""
    return statistics.mean(record["successes"]) / record["trials"]


def every_time(record: Mapping) -> float:
    """pass^k with all trials as k: the share of the tasks of a length that succeed every time."""
    return statistics.mean(pass_hat_k(count, record["trials"], record["trials"]) for count in record["successes"])


def chain_lengths(result: Mapping) -> list[list[dict]]:
    """Chains of look-ups by length, for each seed: {"turns", "success", "right", "wrong"}, as `wrong_turns` wants."""
    made = tools.arranged(result)
    return [[{"turns": hops + 1, "success": share, "right": turns - wrong, "wrong": wrong}
             for hops, share, turns, wrong in zip(made["chains"], *(run["chains"][name]
                                                                    for name in ("right", "turns", "mistakes")))]
            for run in made["runs"]]


def _turns(results: Results) -> Finding:
    """Of the desk, from the longest conversations that were taught to the longest asked, by ranges of seeds that do
    not overlap (`below`). If those that were taught succeed no more often than one that always refuses would, there is
    nothing to hold: not at this scale. Holds: success does not fall. Partly: it falls, but the share of wrong turns
    does not rise, so that errors only add up. Else: not at this scale."""
    runs = values(results["desk"], desk.ARM)
    taught = [next(record for record in run if record["requests"] == max(desk.TAUGHT)) for run in runs]
    longest, chains = [run[-1] for run in runs], chain_lengths(results["tools"])

    def turns(found: list[Mapping]) -> float:
        return statistics.mean(record["turns"] for record in found)

    def measured(what: str, of, form: str = ROUND) -> list[Measured]:
        return [Measured(f"{what}, {found[0]['requests']} requests ({turns(found):.0f} turns)", [*map(of, found)], form)
                for found in (taught, longest)]

    short, long = measured("success", success)
    wrong = measured("share of wrong turns", wrong_turns, SHARE)
    far = Measured(f"success, chains of look-ups ({chains[0][-1]['turns']} turns)",
                   [run[-1]["success"] for run in chains], ROUND)
    refusals = [record["refusals"] for record in taught]
    serves, rises = below(refusals, short.values), below(wrong[0].values, wrong[1].values)
    return Finding(
        verdict(serves and not below(long.values, short.values), serves and not rises),
        [long, short, *reversed(wrong), *measured(f"pass^{taught[0]['trials']}", every_time), far,
         Measured(f"what always refusing would give, {taught[0]['requests']} requests", refusals, ROUND)],
        f"A model taught conversations with at most {taught[0]['requests']} requests succeeds in {short} of those and "
        f"in {long} with {longest[0]['requests']}, some {turns(longest):.0f} turns, and the share of wrong turns "
        f"{'rises' if rises else 'goes'} from {wrong[0]} to {wrong[1]}; M1's results are means within 40 steps, "
        "neither by length nor by repetition, and the 30 rounds and more of the press are in no report.",
    )


def _turn_curves(results: Results):
    runs, chains = values(results["desk"], desk.ARM), chain_lengths(results["tools"])
    at = [statistics.mean(each) for each in zip(*([record["turns"] for record in run] for run in runs))]
    hops = [record["turns"] for record in chains[0]]
    trials = f"desk, {runs[0][0]['trials']} times of {runs[0][0]['trials']}"
    successes = {"desk": (at, [[success(r) for r in run] for run in runs]),
                 trials: (at, [[every_time(r) for r in run] for run in runs]),
                 "chains of look-ups": (hops, [[r["success"] for r in run] for run in chains])}
    wrong = {name: (where, [[wrong_turns(r) for r in run] for run in found])
             for name, where, found in (("desk", at, runs), ("chains of look-ups", hops, chains))}
    return lines({"conversations": successes, "turns": wrong},
                 {"desk": "lightning", trials: "thinking", "chains of look-ups": "softmax"},
                 x="turns of a conversation", y=["share of successes", "share of wrong turns"])


ROWS = (
    Row(18, "budget", "longer thinking gives better answers",
        "from M1-40k to M1-80k 13 of 17 benchmarks rise, as AIME 2024 from 83.3 to 86.0; MRCR 128k (76.1 to 73.4), "
        "MRCR 1M (58.6 to 56.2) and TAU retail (67.8 to 63.5) fall",
        "M1 report Table 2", ("serving",), _budget, _budget_curves,
        "Right answers to pair problems against the thinking budget. After SFT the line stays near 20 percent at every "
        "budget; after RL it rises steeply and flattens."),
    Row(20, "curriculum", "mixing general tasks in later, by a curriculum, avoids forgetting", "no number",
        "M1 report §4.3", ("curriculum",), _curriculum, _curriculum_curves,
        "Right answers against rollouts for four orders of tasks. Left, reasoning: all rise alike to about 80 percent. "
        "Right, the mean of the three general families: flat with reasoning alone, rising wherever they are mixed in."),
    Row(24, "turns", "agentic tool use holds over many turns",
        "TAU-bench airline 62.0 and retail 63.5 (M1-80k), at most 40 steps", "M1 report Table 2", ("desk", "tools"),
        _turns, _turn_curves,
        "Against the turns of a conversation, at the desk and in chains of look-ups: left the share of successes, "
        "which falls; right the share of wrong turns up to the first of them, which rises."),
)
