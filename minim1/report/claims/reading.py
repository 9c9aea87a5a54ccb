"""Claims about the network that are asked of reading alone: which attention, which norm, experts or none."""

import statistics
from collections.abc import Iterable, Mapping, Sequence

from minim1.model.count import count
from minim1.report.claims import Finding, Measured, Results, Row, verdict
from minim1.report.claims.draw import lines
from minim1.report.experiments import values
from minim1.report.experiments.reading import (
    DEPTHS,
    PATTERNS,
    PLANS,
    SIZES,
    compute,
    config,
    differences,
    norm_arm,
    training_flops,
)

LOOKS = {"hybrid": "expert", "softmax": "softmax", "lightning": "lightning", "post-norm (DeepNorm)": "lightning",
         "pre-norm": "softmax", "eight experts": "expert", "dense": "text"}
UNIT = "bits per byte of held-out text"


def judged(gaps: Sequence[Sequence[float]], tolerance: float = 0.0) -> str:
    """The verdict on losses less those of a rival, one list of seeds for each comparison.

    Holds: every one is below the tolerance; partly: the median over the seeds is, in more than half of the comparisons.
    """
    medians = [statistics.median(each) < tolerance for each in gaps]
    return verdict(all(gap < tolerance for each in gaps for gap in each), sum(medians) > len(medians) / 2)


# 6: the hybrid matches or beats softmax attention


def tolerance(result: Mapping) -> float:
    """What still counts as equal: the largest difference between two seeds of the same arm, hybrid or softmax."""
    found = [_ends(result, f"{pattern}, {size}") for pattern in ("hybrid", "softmax") for size in SIZES]
    return max(max(each) - min(each) for each in found)


def _hybrid(results: Results) -> Finding:
    """Hybrid less softmax in every size, at equal parameters and tokens and at equal parameters and FLOPs: `judged` by
    the `tolerance`, so that it may be worse by what two seeds differ by."""
    result = results["reading"]
    gaps = {equal: [differences(result, f"hybrid, {size}", f"softmax, {size}", equal=equal) for size in SIZES]
            for equal in ("tokens", "flops")}
    pure = [differences(result, f"lightning, {size}", f"softmax, {size}") for size in SIZES]
    allowed = tolerance(result)
    return Finding(
        judged([*gaps["tokens"], *gaps["flops"]], allowed),
        [Measured("hybrid less softmax, bits per byte, large, equal parameters", gaps["tokens"][-1], "{:+.3f}"),
         Measured("the same at equal FLOPs", gaps["flops"][-1], "{:+.3f}"),
         Measured("pure lightning less softmax, large, equal parameters", pure[-1], "{:+.3f}"),
         Measured("tolerance, between two seeds of an arm", [allowed], "{:.3f}")],
        f"{_after(result)} in rows of {PLANS[result['scale']].length} the hybrid differs from softmax by "
        f"{_medians(gaps['tokens'])} bits per byte ({_listed(SIZES)}) at equal parameters and by "
        f"{_medians(gaps['flops'])} at equal FLOPs, and pure lightning by {_medians(pure)} at equal parameters; so "
        f"early, on rows so short and at one rate for all, this says nothing of where the curves end.",
    )


def _hybrid_figure(results: Results):
    return _against_flops(results["reading"], {pattern: pattern for pattern in PATTERNS})


# 7: DeepNorm's post-norm beats pre-norm


def _deepnorm(results: Results) -> Finding:
    """Post-norm less pre-norm at every depth after equal tokens, `judged`; parameters and FLOPs are equal, too."""
    result = results["reading"]
    gaps = {depth: differences(result, norm_arm(True, depth), norm_arm(False, depth)) for depth in DEPTHS}
    return Finding(
        judged(list(gaps.values())),
        [Measured(f"post-norm less pre-norm, bits per byte, {depth} layers", gaps[depth], "{:+.3f}")
         for depth in reversed(DEPTHS)],
        f"{_after(result)} at one learning rate, tuned for neither, DeepNorm's post-norm differs from pre-norm by "
        f"{_medians(gaps.values())} bits per byte with {_listed(DEPTHS)} layers; the report's ablation had 48 layers, "
        f"500 billion tokens and benchmarks in the place of the loss.",
    )


def _deepnorm_figure(results: Results):
    ends = {name: (DEPTHS, list(zip(*(_ends(results["reading"], norm_arm(post, depth)) for depth in DEPTHS))))
            for name, post in (("post-norm (DeepNorm)", True), ("pre-norm", False))}
    return lines({"": ends}, LOOKS, x="layers", y=UNIT).update_xaxes(tickvals=DEPTHS)


# 8: experts beat a dense network at equal active FLOPs


def _experts(results: Results) -> Finding:
    """Experts less a dense network of the same active width, in each size, at equal FLOPs with the router, `judged`."""
    result = results["reading"]
    scale, gaps = result["scale"], {}
    for size in SIZES:
        gaps[size] = differences(result, f"experts, {size}", f"hybrid, {size}", equal="flops")
    mixed, dense = (config(f"{arm}, large", scale) for arm in ("experts", "hybrid"))
    router = training_flops(mixed, PLANS[scale].length) / training_flops(dense, PLANS[scale].length) - 1
    larger = count(mixed)["parameters"] / count(dense)["parameters"]
    return Finding(
        judged(list(gaps.values())),
        [Measured(f"experts less dense, bits per byte, {size}, equal FLOPs", gaps[size], "{:+.3f}")
         for size in reversed(SIZES)],
        f"{_after(result)}, {mixed.num_local_experts} experts of which a token asks {mixed.num_experts_per_tok} differ "
        f"from one network as wide as those it asks by {_medians(gaps.values())} bits per byte ({_listed(SIZES)}) at "
        f"equal FLOPs (the router adds {router:.1%} to each token) and with {larger:.1f} times the parameters, "
        f"most of which have seen only a part of these few tokens.",
    )


def _experts_figure(results: Results):
    return _against_flops(results["reading"], {"eight experts": "experts", "dense": "hybrid"})


def _against_flops(result: Mapping, arms: Mapping[str, str]):
    """Curves against FLOPs, a panel for each size; arms: name -> arm without its size."""
    panels = {size: {name: (compute(f"{arm}, {size}", result["scale"]),
                            [each["bits_per_byte"] for each in values(result, f"{arm}, {size}")])
                     for name, arm in arms.items()} for size in SIZES}
    return lines(panels, LOOKS, x="FLOPs of training", y=UNIT, log="x", shared_y=True)


def _ends(result: Mapping, arm: str) -> list[float]:
    """Bits per byte at the end, for each seed."""
    return [each["bits_per_byte"][-1] for each in values(result, arm)]


def _after(result: Mapping) -> str:
    plan = PLANS[result["scale"]]
    return f"After {plan.steps[-1] * plan.rows * plan.length:,} tokens"


def _medians(gaps: Iterable[Sequence[float]]) -> str:
    return _listed(f"{statistics.median(each):+.3f}" for each in gaps)


def _listed(names: Iterable) -> str:
    *first, last = map(str, names)
    return f"{', '.join(first)} and {last}"


ROWS = (
    Row(6, "hybrid", "a hybrid of lightning and softmax attention matches or beats pure softmax attention in the loss "
        "of language modelling",
        "loss 3.4797 C^−0.0763 (hybrid), 3.7087 C^−0.0798 (softmax), 3.5391 C^−0.0768 (lightning), C in PFLOP/s-days",
        "MiniMax-01 report §2.2, Table 2", ("reading",), _hybrid, _hybrid_figure,
        "Bits per byte of held-out text against FLOPs of training, for hybrid, pure softmax and pure lightning "
        "attention with equal parameters, a panel for each of three sizes."),
    Row(7, "deepnorm", "DeepNorm's post-norm beats pre-norm in this design",
        "post-norm ahead on 7 of 8 benchmarks (MMLU 50.2 against 43.9, GSM8k 16.8 against 12.2); WinoGrande 65.4 "
        "against 65.5",
        "MiniMax-01 report §2.3, Table 5", ("reading",), _deepnorm, _deepnorm_figure,
        "Bits per byte of held-out text at the end of training against the number of layers, one line for post-norm "
        "and one for pre-norm."),
    Row(8, "experts", "a mixture of experts beats a dense network at equal active FLOPs",
        "24B parameters, 2B of them active, ahead of 7B dense at equal FLOPs, 1T tokens each",
        "MiniMax-01 report §2.1, Fig. 4", ("reading",), _experts, _experts_figure,
        "Bits per byte of held-out text against FLOPs of training, for eight experts of which two are asked and for a "
        "dense network of the same active width, a panel for each of three sizes."),
)
