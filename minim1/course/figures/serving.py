"""The figures of chapter 15. Each function takes the numbers it draws and returns a plotly figure, for `show`."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

from minim1.config import SOFTMAX, preset
from minim1.course.look import COLOURS, style
from minim1.report import memory

# M1 report, Table 2: M1-40k and M1-80k
TABLE_2 = {
    "AIME 2024": (83.3, 86.0), "AIME 2025": (74.6, 76.9), "MATH-500": (96.0, 96.8), "LiveCodeBench": (62.3, 65.0),
    "FullStackBench": (67.6, 68.3), "GPQA Diamond": (69.2, 70.0), "HLE (text only)": (7.2, 8.4),
    "ZebraLogic": (80.1, 86.8), "MMLU-Pro": (80.6, 81.1), "SWE-bench Verified": (55.6, 56.0), "MRCR 128k": (76.1, 73.4),
    "MRCR 1M": (58.6, 56.2), "LongBench-v2": (61.0, 61.5), "TAU airline": (60.0, 62.0), "TAU retail": (67.8, 63.5),
    "SimpleQA": (17.9, 18.5), "MultiChallenge": (44.7, 44.7),
}
GB = 10**9
LEAST = 0.66  # of right answers, where the axis of `rounding` begins


def rounding(stored: Mapping[str, Mapping]):
    """What fewer bits cost: bits per byte added to fp32's (left, logarithmic), right answers to `pair` (right).

    0.00001 or less is drawn at the left edge.

    stored: arm -> {"bits_per_byte": one for each part of the text, "accuracy": {family: one for each seed}}.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    whole = stored["fp32"]["bits_per_byte"]
    fig = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.06,
                        subplot_titles=["bits per byte added", "right answers to pair"])
    names = [name for name in stored if name != "fp32"][::-1]
    for name in names:
        ours = name == "int8, M1's way"
        look = dict(color=COLOURS["lightning" if ours else "grey"], symbol="diamond" if ours else "circle", size=11)
        added = [max(x - y, 1e-5) for x, y in zip(stored[name]["bits_per_byte"], whole)]
        pair = stored[name]["accuracy"]["pair"]
        if max(pair) < LEAST:
            fig.add_annotation(x=LEAST, y=name, text=f"← {max(pair):.0%}", showarrow=False, xanchor="left", row=1,
                               col=2)
        for column, values in ((1, added), (2, [value for value in pair if value >= LEAST])):
            fig.add_trace(go.Scatter(
                x=[float(f"{x:.4g}") for x in values], y=[name] * len(values), mode="lines+markers", showlegend=False,
                marker=look, line=dict(color=look["color"], width=2), hovertemplate=name + ": %{x}<extra></extra>",
            ), row=1, col=column)
    low, high = min(stored["fp32"]["accuracy"]["pair"]), max(stored["fp32"]["accuracy"]["pair"])
    fig.add_vrect(x0=low, x1=high, fillcolor=COLOURS["highlight"], opacity=0.6, line_width=0, layer="below", row=1,
                  col=2)
    fig.add_annotation(x=high, y=len(names) - 0.55, text="fp32", showarrow=False, xanchor="right", row=1, col=2)
    ticks = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
    fig.update_xaxes(type="log", tickvals=ticks, ticktext=["≤10⁻⁵", *(f"{tick:g}" for tick in ticks[1:])],
                     row=1, col=1)
    fig.update_xaxes(tickformat=".0%", range=[LEAST, 0.93], row=1, col=2)
    fig.update_yaxes(range=[-0.6, len(names) - 0.3])
    return fig.update_layout(height=400)


def thinking(budgets: Mapping[str, Sequence[Sequence[Mapping]]], votes: Sequence[Mapping],
             live: Sequence[Mapping] = ()):
    """Right answers against the tokens of thought that a problem took in all: budgets as lines, votes as dotted ones.

    budgets: model -> for each seed a list of {budget, accuracy, thinking}; votes: {budget, samples, accuracy, thinking}
    with a list over seeds; live: like one seed's list, drawn as open stars.
    """
    import plotly.graph_objects as go

    fig = go.Figure()
    for name, meaning in zip(budgets, ("softmax", "lightning")):
        points = list(zip(*budgets[name]))
        middle = [[_mean([row[key] for row in point]) for point in points] for key in ("thinking", "accuracy")]
        spread = [[abs(end([row["accuracy"] for row in point]) - y) for point, y in zip(points, middle[1])]
                  for end in (max, min)]
        fig.add_scatter(
            x=middle[0], y=middle[1], name=f"one thought, {name}", mode="lines+markers", **style(meaning),
            customdata=[point[0]["budget"] for point in points],
            error_y=dict(type="data", array=spread[0], arrayminus=spread[1], width=3, thickness=1.2),
            hovertemplate="budget %{customdata}: %{x} tokens, %{y:.1%}<extra></extra>",
        )
    for budget, look in ((4, "expert"), (14, "reward"), (44, "clipped")):
        rows = [row for row in votes if row["budget"] == budget]
        fig.add_scatter(
            x=[_mean(row["thinking"]) for row in rows], y=[_mean(row["accuracy"]) for row in rows],
            name=f"vote of thoughts within {budget}", mode="lines+markers+text", **style(look),
            text=["" if row["samples"] == 1 else f"{row['samples']} answers" for row in rows],
            textposition="bottom center",
        )
    if live:
        fig.add_scatter(x=[row["thinking"] for row in live], y=[row["accuracy"] for row in live], mode="markers",
                        name="after RL, here", marker=dict(symbol="star-open", size=14, color=COLOURS["text"]))
    ticks = [4, 8, 16, 32, 64, 128]
    fig.update_xaxes(title="tokens of thought for one problem, all answers together", type="log", tickvals=ticks,
                     ticktext=[str(tick) for tick in ticks])
    fig.update_yaxes(title="right answers", range=[0, 1], tickformat=".0%")
    return fig.update_layout(height=460, legend=dict(orientation="h", y=1.2, x=0))


def table_2():
    """What M1-80k scores more (or less) than M1-40k on the 17 tasks of the M1 report's Table 2."""
    import plotly.graph_objects as go

    gains = sorted(((round(b - a, 1), name) for name, (a, b) in TABLE_2.items()))
    fig = go.Figure(go.Bar(
        x=[gain for gain, _ in gains], y=[name for _, name in gains], orientation="h",
        text=[f"{gain:+.1f}" for gain, _ in gains], textposition="outside", cliponaxis=False,
        marker=dict(color=[COLOURS["lightning" if gain >= 0 else "softmax"] for gain, _ in gains],
                    pattern=dict(shape=["" if gain >= 0 else "/" for gain, _ in gains])),
        customdata=[TABLE_2[name] for _, name in gains],
        hovertemplate="%{y}: %{customdata[0]} and %{customdata[1]}<extra></extra>",
    ))
    fig.update_xaxes(title="points of M1-80k above M1-40k", range=[-6, 8.5], zeroline=True,
                     zerolinecolor=COLOURS["text"])
    return fig.update_layout(height=500)


def fits(context: int, weights: str = "int8", sequences: int = 1):
    """What M1 and a softmax-only M1 hold for `sequences` sequences of `context` tokens, beside 8 x 80 GB."""
    import plotly.graph_objects as go

    models = _models()
    parts = {
        "weights": ([memory.weight_bytes(m, weights) for m in models.values()], COLOURS["grey"], ""),
        "KV cache": ([sequences * context * m["cache_per_token"] for m in models.values()], COLOURS["softmax"], "/"),
        "lightning state": ([sequences * m["state"] for m in models.values()], COLOURS["lightning"], "."),
    }
    fig = go.Figure()
    for name, (values, colour, shape) in parts.items():
        fig.add_bar(x=[round(v / GB, 2) for v in values], y=list(models), orientation="h", name=name,
                    marker=dict(color=colour, pattern=dict(shape=shape)),
                    hovertemplate=name + ": %{x:,.1f} GB<extra></extra>")
    whole = memory.NODE["gpus"] * memory.NODE["gpu_bytes"] / GB
    totals = [sum(values[i] for values, _, _ in parts.values()) / GB for i in range(len(models))]
    for name, total in zip(models, totals):
        verdict = "fits" if total <= whole else "does not fit"
        fig.add_annotation(x=total, y=name, text=f" {total:,.0f} GB: {verdict}", showarrow=False, xanchor="left")
    fig.add_vline(x=whole, line=dict(color=COLOURS["text"], width=2, dash="dash"))
    fig.add_annotation(x=whole, y=1.62, text="8 × 80 GB", showarrow=False, xanchor="left", xshift=4)
    fig.update_xaxes(title="GB", range=[0, 1.35 * max(whole, *totals)])
    fig.update_yaxes(range=[-0.6, 1.75])
    return fig.update_layout(barmode="stack", height=330,
                             legend=dict(orientation="h", y=1.18, x=0, traceorder="normal"))


def throughput(rates: Mapping[str, Mapping[int, float]]):
    """Tokens per second against the number of sequences decoded together, for each model."""
    import plotly.graph_objects as go

    fig = go.Figure()
    for name, meaning in zip(rates, ("lightning", "softmax")):
        fig.add_scatter(x=list(rates[name]), y=[float(f"{y:.3g}") for y in rates[name].values()], name=name,
                        mode="lines+markers", **style(meaning))
    batches = list(next(iter(rates.values())))
    for number, values in enumerate(rates.values()):
        proportional = [float(f"{values[batches[0]] * b / batches[0]:.3g}") for b in batches]
        fig.add_scatter(x=batches, y=proportional, mode="lines", name="in proportion", showlegend=number == 0,
                        **style("grey"))
    fig.update_xaxes(title="sequences decoded together", type="log", tickvals=batches,
                     ticktext=[str(b) for b in batches])
    ticks = [step * 10**power for power in range(1, 6) for step in (1, 2, 5)]
    fig.update_yaxes(title="tokens per second, all together", type="log", tickvals=ticks,
                     ticktext=[f"{tick:,}" for tick in ticks])
    return fig.update_layout(height=400, legend=dict(orientation="h", y=1.12, x=0))


@functools.cache
def _models() -> dict[str, dict[str, int]]:
    """Sizes of M1, and of the same network with softmax attention in all layers."""
    config = preset("m1-456b")
    full = dataclasses.replace(config, attn_type_list=(SOFTMAX,) * config.num_hidden_layers)
    return {"M1": memory.sizes(config), "all layers softmax": memory.sizes(full)}


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)
