"""Claims about the network: what linear attention forgets, how experts share the work, how rows grow longer."""

from collections.abc import Mapping, Sequence
from itertools import accumulate

from minim1.report.claims import Finding, Measured, Results, Row, verdict
from minim1.report.claims.draw import lines
from minim1.report.experiments import balance, extension, partial_rope, recall, token_drop, values

SHARE = "{:.1%}"

# Recall against the pattern of layers

TIGHT, ROOMY = "tight, eight layers", "roomy, eight layers"
NETWORKS = {"none": "lightning alone", "1 in 8": "one softmax layer in eight", "1 in 4": "one softmax layer in four",
            "all": "softmax alone"}


def _recall(results: Results) -> Finding:
    """By the eight-layer networks of the tight setting. Holds: on every seed pure lightning stays below 0.8 and one
    softmax layer in eight reaches 0.95. Partly: on every seed the second is at least above the first."""
    found = recall.arranged(results["recall"])
    curves = found["curves"]

    def end(setting: str, network: str) -> Measured:
        what = f"right in the {setting.split(',')[0]} setting, {NETWORKS.get(network, network)}"
        return Measured(what, [curve[-1][1] for curve in curves[setting][network]], SHARE)

    hybrid, pure = end(TIGHT, "1 in 8"), end(TIGHT, "none")
    task, tight, roomy = (found["settings"][name][network] for name, network in
                          (("tight", "LL"), (TIGHT, "none"), (ROOMY, "none")))
    why = ""
    if "LL, 2000 steps" in curves["tight"]:  # run for chapter 06, not for this claim
        why = (f", where pure lightning comes to {end('tight', 'LL, 2000 steps')} with four times the steps and to "
               f"{end('tight', 'LL, D = 16')} with states of 16 × 16: it lacks time and room, not the ability")
    return Finding(
        verdict(max(pure.values) < 0.8 and min(hybrid.values) >= 0.95,
                all(h > p for h, p in zip(hybrid.values, pure.values))),
        [hybrid, pure, end(TIGHT, "1 in 4"), end(TIGHT, "all"), end(ROOMY, "1 in 8"), end(ROOMY, "none"),
         end("tight", "LS"), end("tight", "LL")],
        f"Where {task['pairs']} pairs meet states of {task['head_dim']} × {task['head_dim']}, eight lightning layers "
        f"are right in {pure} after {tight['steps']} steps and in {hybrid} if the last is a softmax layer"
        f"{', which has hardly begun to learn by then' if hybrid.median < 0.5 else ''}; with more room the two are at "
        f"{end(ROOMY, 'none')} and {end(ROOMY, '1 in 8')} after {roomy['steps']}; and two layers, in the tight setting "
        f"for {task['steps']} steps, are at {end('tight', 'LL')} and {end('tight', 'LS')}{why}.",
    )


def _recall_curves(results: Results):
    curves = recall.arranged(results["recall"])["curves"]
    panels = {setting: {
        name: ([step for step, _ in curves[setting][network][0]],
               [[accuracy for _, accuracy in curve] for curve in curves[setting][network]])
        for network, name in NETWORKS.items()} for setting in (TIGHT, ROOMY)}
    looks = dict(zip(NETWORKS.values(), ("lightning", "text", "grey", "softmax")))
    return lines(panels, looks, x="training step", y="answers that are right", shared_y=True)


# Balance of the experts

WITHOUT, WITH = "no balance loss", "coefficient 0.1"
ALIKE = ("random, skew 0.0", token_drop.DEALT)  # the arms in which groups differ by chance alone


def _entropy(record: Mapping) -> float:
    """Of the load, relative to an even one; mean over the layers."""
    return balance.entropy(record["load"]).mean().item()


def _balance(results: Results) -> Finding:
    """Both parts are constructed, the collapse in settings that were chosen for it, so that the best verdict is
    "mechanism shown by construction": on every seed the entropy of the load ends lower without the loss than with it,
    in the layer and in the model, and at factor 1 one capacity for all groups drops less than one for each, in every
    arm whose groups differ. Partly: one of the two."""
    trained, dropped = balance.arranged(results["balance"]), results["token_drop"]
    last = {(kind, arm): [run[-1] for run in trained[kind][arm]]
            for kind in ("layer", "model") for arm in (WITHOUT, WITH)}
    even = {each: [_entropy(record) for record in records] for each, records in last.items()}
    loss = {each: Measured("", [record["loss"] for record in records]) for each, records in last.items()}
    collapses = all(a < b for kind in ("layer", "model") for a, b in zip(even[kind, WITHOUT], even[kind, WITH]))

    def at_one(arm: str, how: str) -> list[float]:
        return [rates[how][0] for rates in values(dropped, arm)]

    pooled = all(a < b for arm in dropped["runs"] if arm not in ALIKE
                 for a, b in zip(at_one(arm, "global"), at_one(arm, "local")))
    names = {"layer": "one layer", "model": "small language model"}
    return Finding(
        "mechanism shown by construction" if collapses and pooled else verdict(False, collapses or pooled),
        [*(Measured(f"entropy of the load (1 is even), {names[kind]}, {arm}", even[kind, arm], "{:.2f}")
           for kind in names for arm in (WITHOUT, WITH)),
         *(Measured(f"dropped at capacity factor 1, shipped model, {says}", at_one(token_drop.OWN_TEXT, how), SHARE)
           for how, says in (("local", "each group by itself"), ("global", "all groups together")))],
        "In settings chosen so that a router collapses the balance loss evens the load; without it the layer's squared "
        f"error is {loss['layer', WITHOUT]} against {loss['layer', WITH]}, but the loss of the small language model "
        f"{loss['model', WITHOUT]} against {loss['model', WITH]}; one capacity for all groups can never drop more than "
        "one for each, and saves as much as groups differ: with tokens dealt at random, groups by themselves drop "
        f"{Measured('', at_one(token_drop.DEALT, 'local'), SHARE)}.",
    )


def _balance_curves(results: Results):
    trained, dropped = balance.arranged(results["balance"])["layer"], results["token_drop"]

    def rates(arm: str, how: str) -> tuple[Sequence[float], list]:
        return dropped["settings"]["factors"], [each[how] for each in values(dropped, arm)]

    panels = {"load of one layer": {
        arm: ([record["step"] for record in trained[arm][0]],
              [[_entropy(record) for record in run] for run in trained[arm]]) for arm in (WITHOUT, WITH)}}
    for title, arm in (("shipped model", token_drop.OWN_TEXT), ("random router, skew 1", "random, skew 1.0")):
        panels[title] = {"each group by itself": rates(arm, "local"), "all groups together": rates(arm, "global")}
    panels["shipped model"]["by itself, tokens dealt at random"] = rates(token_drop.DEALT, "local")
    looks = {WITHOUT: "grey", WITH: "expert", "each group by itself": "clipped", "all groups together": "lightning",
             "by itself, tokens dealt at random": "text"}
    return lines(panels, looks, x=("training step", "capacity factor", "capacity factor"),
                 y=("entropy (1 is even)", "share dropped", "share dropped"))


# Longer rows

HALF, WHOLE = "half of the dims", "all dims"


def extrapolates(accuracy: Mapping) -> bool:
    """Whether half-RoPE is, by content and on every seed, right in 0.8 of the longest rows and more often than full
    RoPE, and in rows of the trained length at most 0.01 less often."""
    pairs = zip(accuracy[HALF]["content"], accuracy[WHOLE]["content"])
    return all(half[-1] >= max(0.8, whole[-1]) and half[0] >= whole[0] - 0.01 for half, whole in pairs)


def _extension(results: Results) -> Finding:
    """Two parts. Extension: on every seed the abrupt one explodes (`extension.exploded`: a gradient over 10 times the
    usual and over all of the short stage) and the staged one does not. Half-RoPE: `extrapolates`. Both: holds; one:
    partly; none: not at this scale."""
    runs = {way: values(results["extension"], way) for way in extension.STAGES}
    grown = {way: [extension.growth(records) for records in found] for way, found in runs.items()}
    explode = {way: sum(extension.exploded(records) for records in found) for way, found in runs.items()}
    rope = partial_rope.arranged(results["partial_rope"])
    accuracy = rope["accuracy"]
    parts = explode["abrupt"] == len(runs["abrupt"]) and not explode["staged"], extrapolates(accuracy)

    outcome = ("stages avoid it" if parts[0] else "stages do not avoid it" if explode["staged"] else
               "there is little to avoid")

    def relative(way: str, what: str, says: str, form: str = "{:.0f}") -> Measured:
        return Measured(f"{says}, {way}", [each[what] for each in grown[way]], form)

    largest = {way: relative(way, "max", "largest gradient after a switch, in medians before it") for way in runs}
    learning = relative("abrupt", "learning", "largest gradient of the short stage, in the same medians")
    loss = {way: relative(way, "loss", "loss at the end", "{:.2f}") for way in runs}
    longest = len(accuracy[HALF]["content"][0]) - 1
    times = rope["lengths"][longest] // rope["trained"]
    right = {(arm, task): Measured(f"right by {task} at {times} times the trained length, {arm} turned",
                                   [each[longest] for each in accuracy[arm][task]], "{:.0%}")
             for arm in (HALF, WHOLE) for task in ("content", "place")}
    return Finding(
        verdict(all(parts), any(parts)),
        [largest["abrupt"], largest["staged"], learning, loss["abrupt"], loss["staged"],
         right[HALF, "content"], right[WHOLE, "content"]],
        f"From {extension.SHORT} to {extension.STAGES['abrupt'][-1]} tokens at once the gradient reaches "
        f"{largest['abrupt']} times what is usual for the short rows at the end, in stages {largest['staged']} times, "
        f"where learning them took {learning} times: by our bar {explode['abrupt']} abrupt and {explode['staged']} "
        f"staged of {len(runs['staged'])} runs explode, so that {outcome}, and the losses end at {loss['abrupt']} and "
        f"{loss['staged']}; at {times} times the trained length half-RoPE is right by content in "
        f"{right[HALF, 'content']} and full RoPE in {right[WHOLE, 'content']}, by place half-RoPE in "
        f"{right[HALF, 'place']}.",
    )


def _extension_curves(results: Results):
    rope = partial_rope.arranged(results["partial_rope"])
    panels = {"gradient norm": {}, "loss": {}, "half- and full RoPE": {
        name: (rope["lengths"], rope["accuracy"][arm]["content"])
        for name, arm in (("half-RoPE", HALF), ("full RoPE", WHOLE))}}
    for way in extension.STAGES:
        runs = [records[1:] for records in values(results["extension"], way)]  # the short stage left out
        tokens = list(accumulate(extension.ROWS * record["tokens"] for record in runs[0] for _ in record["norm"]))
        for panel, what in (("gradient norm", "norm"), ("loss", "loss")):
            panels[panel][way] = tokens, [[value for record in records for value in record[what]] for records in runs]
    looks = {"staged": "lightning", "abrupt": "softmax", "half-RoPE": "expert", "full RoPE": "grey"}
    return lines(panels, looks,
                 x=("tokens after the short stage", "tokens after the short stage", "tokens in the row"),
                 y=("norm before clipping", "nats", "right by content"))


ROWS = (
    Row(5, "recall", "pure linear attention cannot retrieve; with one softmax layer in eight it can",
        "needle in a haystack: hybrids 84.2 (410M), 95.7 (1B), 98.0 (3B), 97.7 (7B); pure lightning clearly fails",
        "MiniMax-01 report §2.2, Fig. 7", ("recall",), _recall, _recall_curves,
        "Right answers against the training step for eight layers, of which none, one, two or all are softmax layers: "
        "left with more pairs than the lightning states easily hold, right with more room."),
    Row(9, "balance", "without the balance loss experts collapse; a global router lowers token drop",
        "stated without numbers", "MiniMax-01 report §2.1", ("balance", "token_drop"), _balance, _balance_curves,
        "Left: entropy of the experts' load during training, with and without the balance loss. Middle and right: "
        "share of token copies dropped against the capacity factor, with a capacity for each group or one for all."),
    Row(10, "extension", "smooth length extension avoids gradient explosion; half-RoPE extrapolates",
        "32K to 1M tokens in four stages, since faster ones exploded; half-RoPE allows length extrapolation",
        "M1 report §2.1; MiniMax-01 report §2.4", ("extension", "partial_rope"), _extension, _extension_curves,
        "Left and middle: norm of the gradient and loss after the first switch to longer rows, in stages and at once. "
        "Right: right answers by content against the length of the row, half or all of each head turned."),
)
