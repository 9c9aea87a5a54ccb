"""Claims of what keeps RL alive: the head's precision, AdamW's settings, the stop of repetitions."""

import statistics
from collections.abc import Callable, Mapping, Sequence

from minim1.report.claims import Finding, Measured, Results, Row, verdict
from minim1.report.claims.draw import lines
from minim1.report.experiments import adam, mismatch, repetition, values

BEFORE, AFTER = 0.987319, 0.997135  # Pearson, printed in the report's Fig. 3
BANDS = (0.27, 0.50, 0.72)  # of the training probability in that figure, by our reading


def _pearson(results: Results, arm: str, size: float) -> list[float]:
    heads = mismatch.arranged(results["mismatch"])["heads"]
    return [row["pearson"] for rows in heads.values() for row in rows if (row["arm"], row["size"]) == (arm, size)]


def _fp32_head(results: Results) -> Finding:
    """"holds" if our own head shows it: on every seed Pearson at most the report's before with a bf16 head, at least
    the report's after with an fp32 head. "mechanism shown by construction" if that needs an injected common mode."""
    bf16, fp32 = "bf16, bf16 head", "bf16, fp32 head"
    dropped = [size for size in results["mismatch"]["settings"]["sizes"]
               if max(_pearson(results, bf16, size)) <= BEFORE and min(_pearson(results, fp32, size)) >= AFTER]
    told = 180  # the middle of 128 to 256, where the bands say that the report's logits were
    step, bands = mismatch.bf16_step(told), mismatch.bands(told)
    natural = Measured("", _pearson(results, bf16, 0)).median
    injected = " and ".join(f"{size:g}" for size in dropped if size)
    return Finding(
        verdict(0 in dropped, otherwise="mechanism shown by construction" if dropped else "not at this scale"),
        [Measured(f"Pearson with a bf16 head, {told} added to every logit", _pearson(results, bf16, told), "{:.4f}"),
         Measured("the same with an fp32 head", _pearson(results, fp32, told), "{:.6f}"),
         Measured("with a bf16 head, nothing added", _pearson(results, bf16, 0), "{:.6f}"),
         Measured("with an fp32 head, nothing added", _pearson(results, fp32, 0), "{:.6f}"),
         Measured(f"distance of neighbouring bf16 numbers near {told}", [step])],
        f"Our own head needs no repair ({natural:.5f} in bf16), but "
        + (f"with {injected} added to every logit a bf16 head falls to the report's number or below it, and an fp32 "
           "head does not" if injected else "nothing that we add makes a bf16 head fall as far as the report's")
        + f"; logits near {told} lie {step:g} apart in bf16, which leaves a choice of two tokens the probabilities "
        f"{_listed(bands, '{:.2f}')}, where the report's figure has bands ({_listed(BANDS, '{:.2f}')} by our reading).",
    )


def _common_modes(results: Results):
    import torch

    sizes = results["mismatch"]["settings"]["sizes"]
    heads = mismatch.arranged(results["mismatch"])["heads"].values()
    apart = {name: (sizes, [[1 - row["pearson"] for row in rows if row["arm"] == f"bf16, {name}"] for rows in heads])
             for name in ("bf16 head", "fp32 head")}
    gaps = torch.arange(-15, 16) / 5
    choice = {"bf16 head": ((180 + gaps).bfloat16().float() - 180).sigmoid(), "fp32 head": gaps.sigmoid()}
    fig = lines(
        {"tokens of the shipped model": apart,
         "two tokens, logits near 180": {name: (gaps.tolist(), [p.tolist()]) for name, p in choice.items()}},
        {"bf16 head": "clipped", "fp32 head": "lightning"}, log="y",
        x=("added to every logit", "difference of the logits"), y=("1 − Pearson", "probability of the first"),
        published={"before": (sizes, [[1 - BEFORE] * len(sizes)]), "after": (sizes, [[1 - AFTER] * len(sizes)])},
    )
    return fig.update_yaxes(type="linear", dtick=0.25, row=1, col=2)


NEEDED = 0.9  # a setting is needed if without it a run learns at most this share of what it learns with it
CHANGES = {"scaled": "of constant size", "between steps": "drawn anew for each step", "over time": "falling"}


def _learned(results: Results, scale: str, **other: float) -> list[float]:
    """What AdamW with other settings learned, as a share of what the recipe's did, for each seed."""
    arms = (adam.Arm(scale, **how).name for how in (other, {}))
    found = [[adam.learned(value) for value in values(results["adam"], arm)] for arm in arms]
    return [less / full if full else float("nan") for less, full in zip(*found)]


def _adam(results: Results) -> Finding:
    """A setting is needed where every seed without it learns at most NEEDED of what it learns with it. "holds" if eps
    1e-15 is needed for small gradients, and beta2 0.95 in all three settings; "partly" if some of this."""
    eps = _learned(results, "scaled", eps=1e-8)
    beta2 = {scale: _learned(results, scale, beta2=0.999) for scale in CHANGES}
    unscaled = _learned(results, "unscaled", eps=1e-8)
    eps_needed = max(eps) <= NEEDED
    beta2_needed = [scale for scale, shares in beta2.items() if max(shares) <= NEEDED]
    recipe, throttled = (values(results["adam"], adam.Arm("scaled", **how).name) for how in ({}, {"eps": 1e-8}))
    size, update, cosine = (statistics.median(found) for found in (
        [v["gradients"]["50%"] for v in recipe], [v["update"] for v in throttled], [v["cosine"] for v in recipe]))
    return Finding(
        verdict(eps_needed and len(beta2_needed) == len(beta2), eps_needed or bool(beta2_needed)),
        [Measured("learned with eps 1e-8, as a share of eps 1e-15, small gradients", eps, "{:.2%}"),
         Measured("the same, gradients as they are", unscaled, "{:.1%}"),
         *(Measured(f"learned with beta2 0.999, as a share of 0.95, small gradients {how}", beta2[scale], "{:.0%}")
           for scale, how in CHANGES.items()),
         Measured("update in learning rates, eps 1e-8", [v["update"] for v in throttled], "{:.1e}"),
         Measured("update in learning rates, eps 1e-15", [v["update"] for v in recipe], "{:.2f}"),
         Measured("cosine of neighbouring gradients", [v["cosine"] for v in recipe], "{:.2f}")],
        f"With gradients near {size:.0e} eps 1e-8 makes updates of {update:.0e} of the learning rate and learns "
        f"{statistics.median(eps):.2%} of what eps 1e-15 learns ({statistics.median(unscaled):.0%} where gradients "
        f"are of usual size), and beta2 0.999 learns "
        + ", ".join(f"{statistics.median(beta2[scale]):.0%} ({how})" for scale, how in CHANGES.items())
        + f" of what 0.95 does, although neighbouring gradients have a cosine of {cosine:.2f} only: 0.95 is needed "
        + (f"in {len(beta2_needed)} of {len(beta2)} settings." if beta2_needed else "in none of these settings."),
    )


def _losses(results: Results):
    others = {"eps 1e-15, beta2 0.95": {}, "eps 1e-8, beta2 0.95": {"eps": 1e-8},
              "eps 1e-15, beta2 0.999": {"beta2": 0.999}}
    panels = {}
    for scale, title in {"unscaled": "as they are", **CHANGES}.items():
        found = {name: values(results["adam"], adam.Arm(scale, **how).name) for name, how in others.items()}
        panels[title] = {name: (runs[0]["steps"], [run["heldout"] for run in runs])
                         for name, runs in found.items() if runs}
    return lines(panels, dict(zip(others, ("lightning", "clipped", "softmax"))), x="step", shared_y=True,
                 y="held-out loss, nats per token")


EQUAL = 0.04  # of mean rewards: two standard errors of the difference of two shares of 1,280 answers


def _pairs(results: Results, setting: str) -> list[tuple[list[dict], list[dict]]]:
    """(without, with) the rule for each seed that has both."""
    runs = results["repetition"]["runs"]
    without, ruled = (runs.get(f"{setting}, {how}", {}) for how in ("without", "with"))
    return [(without[seed], ruled[seed]) for seed in sorted(without.keys() & ruled.keys(), key=int)]


def _ratios(pairs: Sequence[tuple], measure: Callable[[list[dict]], float]) -> list[float]:
    return [measure(ruled) / measure(without) if measure(without) else 1.0 for without, ruled in pairs]


def _tokens(records: list[dict]) -> float:
    return sum(r["tokens"] for r in records)


def _first(records: list[dict]) -> float:
    return records[0]["tokens"]


def _seconds(records: list[dict]) -> float:
    return sum(r["seconds"] for r in records)


def _reward(records: list[dict]) -> float:
    return statistics.fmean(r["reward"] for r in records)


def _norm(records: list[dict], of: Callable = max) -> float:
    return of([norm for r in records for norm in r["grad_norms"]] or [0.0])


def _typical(records: list[dict]) -> float:
    return _norm(records, statistics.median)


def _effects(pairs: Sequence[tuple]) -> Mapping[str, bool]:
    """Whether, on every seed, the rule acted, and with it fewer tokens were generated ("faster") and neither the
    largest nor the median gradient norm grew ("calmer"); neither counts where the reward fell by more than EQUAL."""
    acted = bool(pairs) and all(any(r["stopped"] > 0 for r in ruled) for _, ruled in pairs)
    counts = acted and all(_reward(ruled) >= _reward(without) - EQUAL for without, ruled in pairs)
    return {"acted": acted, "faster": counts and max(_ratios(pairs, _tokens)) < 1,
            "calmer": counts and max(_ratios(pairs, _norm)) <= 1 and max(_ratios(pairs, _typical)) <= 1}


def _repetition(results: Results) -> Finding:
    """By `_effects` in "large step": "holds" if faster and calmer, "partly" if one of them; if neither, but both in
    "planted", where we put the loops in, "mechanism shown by construction"."""
    found = {setting: _pairs(results, setting) for setting in repetition.RATES}
    effects = {setting: _effects(pairs) for setting, pairs in found.items()}
    own, planted = effects["large step"], effects["planted"]
    shown = planted["faster"] and planted["calmer"]
    first, whole, worst, reward = (
        statistics.median(_ratios(found["planted"], of)) for of in (_first, _tokens, _norm, _reward))
    acted = sum(any(r["stopped"] > 0 for r in ruled) for _, ruled in found["large step"])
    left = [statistics.median(records[-1]["looping"] for records in runs) for runs in zip(*found["planted"])]
    return Finding(
        verdict(own["faster"] and own["calmer"], own["faster"] or own["calmer"],
                otherwise="mechanism shown by construction" if shown else "not at this scale"),
        [Measured(f"{name} with the rule, as a share of without, {setting}", _ratios(pairs, measure), "{:.2f}")
         for setting, pairs in found.items() for name, measure in (
             ("tokens", _tokens), ("processor time", _seconds), ("largest gradient norm", _norm),
             ("median gradient norm", _typical), ("reward", _reward), ("tokens of the first batch", _first))],
        f"Of runs that go wrong by themselves the rule stopped an answer in {acted} of {len(found['large step'])}; "
        f"with loops planted beforehand it leaves {first:.0%} of the tokens of the first batch, whose weights are the "
        f"same, and of all batches {whole:.0%} of the tokens, {worst:.0%} of the largest gradient norm and "
        f"{reward:.0%} of the reward: {_said(planted)}, beside a penalty on long answers that works against loops, too "
        f"({left[0]:.1%} of the last batch's answers loop without the rule, {left[1]:.1%} with it).",
    )


def _said(effects: Mapping[str, bool]) -> str:
    said = {"faster": "faster on every seed", "calmer": "calmer on every seed"}
    return " and ".join(text if effects[name] else f"not {text}" for name, text in said.items())


def _stopped(results: Results):
    panels = {}
    for title, measure in (("tokens", lambda r: r["tokens"]), ("gradient norm", lambda r: _norm([r]))):
        for setting in repetition.RATES:
            columns = zip(*_pairs(results, setting))
            panels[f"{setting}: {title}"] = {
                how: ([r["rollout"] for r in runs[0]], [[measure(r) for r in run] for run in runs])
                for how, runs in zip(("without", "with"), columns)}
    return lines(panels, {"without": "clipped", "with": "lightning"}, x="rollout batch", y="")


def _listed(numbers: Sequence[float], form: str) -> str:
    said = [form.format(number) for number in numbers]
    return f"{', '.join(said[:-1])} and {said[-1]}"


ROWS = (
    Row(14, "fp32-head", "an LM head in fp32 repairs the mismatch of training and rollout", "Pearson 0.987 → 0.997",
        "M1 report §3.2, Fig. 3", ("mismatch",), _fp32_head, _common_modes,
        "1 − Pearson against what is added to every logit, with a bf16 and an fp32 head; beside it the probability of "
        "the first of two tokens, a staircase in bf16."),
    Row(15, "adam", "AdamW needs an eps of 1e-15 and a beta2 of 0.95",
        "gradients of 1e-18 to 1e-5, most below 1e-14, and hardly correlated between steps", "M1 report §3.2",
        ("adam",), _adam, _losses,
        "Held-out loss against the step, for gradients of usual size and three kinds of small ones."),
    Row(16, "repetition", "stopping answers that repeat themselves stabilises RL and speeds it up",
        "stop after 3,000 tokens in a row with a probability above 0.99; no numbers for the gain", "M1 report §3.2",
        ("repetition",), _repetition, _stopped,
        "Tokens and the largest gradient norm of each rollout batch with and without the rule, where nothing is put in "
        "and where loops are planted."),
)
