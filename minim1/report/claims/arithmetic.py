"""Claims that need no training: sizes, FLOPs, money, memory. Where nothing is drawn by chance, there is one value."""

from minim1.config import preset
from minim1.model.count import count
from minim1.report import cost, flops, memory
from minim1.report.claims import Finding, Measured, Results, Row, verdict
from minim1.report.claims.draw import lines, points
from minim1.report.experiments import serving
from minim1.report.experiments import stored as stored_result
from minim1.report.flops import K

INDEX_BYTES = 912_210_767_872  # metadata.total_size of the released model.safetensors.index.json
CORE_PRICE = 0.04  # dollars for one CPU core and one hour: our assumption
MILLION = 1_000_000  # tokens
MIXED = "clean M1, the figure's R1"  # the one convention that counts the two models differently

# 1: sizes


def _parameters(results: Results) -> Finding:
    """Exact if the total, the active parameters as published to one decimal, and the bytes are all met."""
    found = count(preset("m1-456b"))
    exact = (round(found["parameters"] / 1e9) == 456 and round(found["active_parameters"] / 1e8) == 459
             and found["checkpoint_bytes"] == INDEX_BYTES)
    return Finding(
        "exact" if exact else "partly",
        [Measured("parameters", [found["parameters"]], "{:,}"),
         Measured("multiplied for each token, embedding and head left out", [found["active_parameters"]], "{:,}"),
         Measured("bytes of the checkpoint", [found["checkpoint_bytes"]], "{:,}")],
        "The model that config.json describes has the published total and, if neither embedding nor head is counted (no "
        "source says how it was), the published active parameters; in bf16 with fp32 routers it has the bytes of the "
        "released checkpoint to the last one.",
    )


def _draw_parameters(results: Results):
    groups = count(preset("m1-456b"))["by_group"]
    return points({"MiniMax-M1": {name: [size] for name, size in groups.items()}}, {"MiniMax-M1": "expert"},
                  y="parameters", log=True)


# 3: FLOPs


def _flops(results: Results) -> Finding:
    """Below half at 64K under every convention, and 23.5 to 26.5 % at 100K under each of those that count both models
    alike: holds; the first alone: the other does not follow."""
    half = {name: flops.ratio(name, 64 * K) for name in flops.CONVENTIONS}
    quarter = {name: flops.ratio(name, 100 * K) for name in flops.CONVENTIONS}
    alike = [name for name in flops.CONVENTIONS if name != MIXED]
    ends = [quarter[name] for name in alike]
    follows = all(0.235 <= value <= 0.265 for value in ends)
    figure = {at: _published_ratio(at * K) for at in (64, 100)}
    last = {f"{name}, the 100K-th token alone": flops.ratio(name, 100 * K, marginal=True) for name in flops.CONVENTIONS[:2]}
    said = [Measured(f"at 100K tokens, {name}", [value], "{:.1%}") for name, value in (quarter | last).items()]
    said += [Measured(f"at 64K tokens, {name}", [value], "{:.1%}") for name, value in half.items()]
    said += [Measured(f"at {at}K tokens, read off the report's figure", [value], "{:.1%}") for at, value in figure.items()]
    return Finding(
        "holds" if follows and max(half.values()) < 0.5 else "does not follow from the published numbers",
        said,
        f"Less than half at 64K holds under every way of counting (at most {max(half.values()):.1%}); a quarter at 100K under "
        f"none that counts both models alike ({min(ends):.1%} to {max(ends):.1%}): the report's own figure shows "
        f"{figure[100]:.1%} there, and only a mixture of two conventions gives {quarter[MIXED]:.1%}.",
    )


def _published_ratio(tokens: int) -> float:
    """M1's FLOPs over R1's in the report's figure 1 (right), each curve interpolated between its points."""
    found = []
    for points_ in (flops.published()[name] for name in ("MiniMax-M1", "DeepSeek-R1")):
        (n0, y0), (n1, y1) = next(pair for pair in zip(points_, points_[1:]) if pair[0][0] <= tokens <= pair[1][0])
        found.append(y0 + (y1 - y0) * (tokens - n0) / (n1 - n0))
    return found[0] / found[1]


def _draw_flops(results: Results):
    lengths = range(4, 129, 4)
    looks = dict(zip(flops.CONVENTIONS, ("lightning", "softmax", "text", "expert", "grey")))
    read = range(8, 125, 4)
    fig = lines({"": {name: (list(lengths), [[flops.ratio(name, n * K) for n in lengths]]) for name in flops.CONVENTIONS}},
                looks, x="generated tokens, in K = 1,024", y="M1's FLOPs over R1's",
                published={"figure 1": (list(read), [[_published_ratio(n * K) for n in read]])})
    fig.add_scatter(x=[64, 100], y=[0.5, 0.25], mode="markers", name="the report's text",
                    marker=dict(symbol="star-open", size=14, color="black"))
    return fig.update_yaxes(tickformat=".0%", range=[0, 1.2])


# 22: money


def _cost(results: Results) -> Finding:
    """Holds if three weeks of 512 GPUs give the sum at a price between $1.5 and $2.5 an hour."""
    hours = cost.gpu_hours(cost.M1_RL["days"], cost.M1_RL["gpus"])
    price = cost.M1_RL["dollars"] / hours
    ours = _our_costs()
    cents = [100 * run["rl"]["dollars"] for run in ours]
    return Finding(
        verdict(1.5 <= price <= 2.5, otherwise="does not follow from the published numbers"),
        [Measured("dollars for an hour of one GPU, if three weeks are 21 days", [price], "{:.2f}"),
         Measured("days of 512 GPUs, if an hour costs $2", [cost.M1_RL["dollars"] / 2 / 24 / cost.M1_RL["gpus"]], "{:.2f}"),
         Measured(f"our RL stage in cents, at ${CORE_PRICE} for a core and an hour (our assumption)", cents, "{:.2f}"),
         Measured("our whole run in cents", [100 * sum(stage["dollars"] for stage in run.values()) for run in ours], "{:.2f}")],
        f"512 GPUs for 21 days and the published sum give ${price:.2f} an hour, a price the report does not print; it pays for "
        "one RL run, and neither for pretraining, nor for fine-tuning, nor for runs that failed.",
    )


def _our_costs() -> list[dict[str, dict]]:
    """`cost.run_cost` of each of our stored runs."""
    active = count(preset("nano"))["active_parameters"]
    return [cost.run_cost(card["stages"], active, workers=card["run"]["workers"], price=CORE_PRICE)
            for card in stored_result("nano")["cards"]]


def _draw_cost(results: Results):
    ours = _our_costs()
    stages = {"pretrain": "pretraining", "sft": "SFT", "rl": "RL"}
    return points({"minim1, nano": {title: [run[name]["dollars"] for run in ours] for name, title in stages.items()}},
                  {"minim1, nano": "lightning"}, y="dollars", log=True, published={"RL": cost.M1_RL["dollars"]})


# 23: int8


def _int8(results: Results) -> Finding:
    """Holds if a sequence of a million tokens fits beside the int8 weights in 8 x 80 GB, and int8 costs our model less than
    0.01 bits per byte on every part of the text."""
    sizes = memory.sizes(preset("m1-456b"))
    fitting = memory.sequences(sizes, MILLION)
    rounded = serving.arranged(results["serving"])["rounded"]
    whole, int8 = rounded["fp32"], rounded["int8, M1's way"]
    added = [b - a for a, b in zip(whole["bits_per_byte"], int8["bits_per_byte"])]
    lost = [a - b for a, b in zip(whole["accuracy"]["pair"], int8["accuracy"]["pair"])]
    used = memory.weight_bytes(sizes) + memory.sequence_bytes(sizes, MILLION)
    return Finding(
        verdict(fitting >= 1 and max(added) < 0.01, fitting >= 1),
        [Measured("sequences of 1M tokens that fit beside the weights", [fitting], "{:d}"),
         Measured("GB of weights and one such sequence", [used / 1e9], "{:.1f}"),
         Measured("our model: bits per byte that int8 adds (parts of the text)", added, "{:+.5f}"),
         Measured("our model: accuracy that int8 loses (seeds)", lost, "{:+.3f}")],
        f"Weights and one sequence take {used / 1e9:.0f} of 640 GB, nothing set aside for activations; on our small model "
        "rounding costs next to nothing, which says little about outliers in a large one.",
    )


def _draw_int8(results: Results):
    sizes = memory.sizes(preset("m1-456b"))
    lengths = [1 << power for power in range(13, 23)]
    fig = lines({"": {name: (lengths, [[(memory.weight_bytes(sizes, name) + memory.sequence_bytes(sizes, n)) / 1e9
                                        for n in lengths]]) for name in memory.WEIGHTS}},
                {"int8": "lightning", "bf16": "softmax"}, x="tokens of one sequence", y="GB", log="x")
    return fig.add_hline(y=640, line=dict(dash="dot", width=1), annotation_text="8 x 80 GB").update_yaxes(range=[0, 1200])


ROWS = (
    Row(1, "parameters", "456B parameters, 45.9B of them active", "456B, 45.9B", "M1 report, abstract", (), _parameters,
        _draw_parameters, "Parameters by group on a logarithmic axis: experts hold nearly all, attention a few percent."),
    Row(3, "flops", "under half of DeepSeek-R1's FLOPs at 64K generated tokens, about a quarter at 100K",
        "< 50% at 64K, ~25% at 100K", "M1 report §1, Fig. 1 right", (), _flops, _draw_flops,
        "M1's FLOPs over R1's against generated tokens under five conventions, with the report's curve and the two numbers of "
        "its text as stars; all curves fall, none but the mixed one meets the second star."),
    Row(22, "cost", "RL for $534,700", "$534,700; 512 H800, three weeks", "M1 report, abstract", (), _cost, _draw_cost,
        "Dollars of our three stages on a logarithmic axis, thousandths of a dollar to a cent, and M1's RL as a star far above."),
    Row(23, "int8", "int8 weights and a context of 1M tokens fit into 8 x 80 GB", "fewer than 500B parameters, 8-bit, 1M tokens",
        "MiniMax-01 report §2.4", ("serving",), _int8, _draw_int8,
        "Gigabytes of weights and one sequence against its length; with int8 weights the line stays below 640 GB up to millions "
        "of tokens, with bf16 it begins above."),
)
