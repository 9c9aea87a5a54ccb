"""The figures of chapter 13. Each function takes the numbers it draws and returns a plotly figure, for `show`."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from minim1.course.look import COLOURS, style
from minim1.report.experiments.mismatch import bf16_step

ABOVE = dict(orientation="h", y=1.06, yanchor="bottom", x=0)
BANDS = {"1/4": 1 / 4, "1/3": 1 / 3, "1/(2 + 1/e)": 1 / (2 + math.exp(-1))}  # of four, of three, of two and one behind


def agreement(panels: Mapping[str, tuple[Tensor, Tensor]], most: int = 1500):
    """Each token's probability in training against that in the rollout; dotted: BANDS.

    panels: title -> probabilities in training and in the rollout, each (N,); at most `most` of them are drawn.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    fig = make_subplots(
        rows=1, cols=len(panels), subplot_titles=list(panels), shared_yaxes=True, horizontal_spacing=0.03)
    for column, (training, rollout) in enumerate(panels.values(), start=1):
        fig.add_trace(go.Scattergl(
            x=[round(p, 4) for p in rollout[:most].tolist()], y=[round(p, 4) for p in training[:most].tolist()],
            mode="markers", showlegend=False, hovertemplate="rollout %{x:.3f}, training %{y:.3f}<extra></extra>",
            marker=dict(size=4, color=COLOURS["lightning"], opacity=0.5),
        ), row=1, col=column)
        for name, place in BANDS.items():
            said = dict(annotation_text=name, annotation_position="top right") if column == len(panels) else {}
            fig.add_hline(y=place, line=dict(color=COLOURS["grey"], dash="dot", width=1.2), row=1, col=column, **said)
        fig.update_xaxes(title="in the rollout", range=[-0.02, 1.02], tickvals=[0, 0.5, 1], row=1, col=column)
    fig.update_yaxes(range=[-0.02, 1.02], tickvals=[0, 0.25, 0.5, 0.75, 1])
    fig.update_yaxes(title="probability in training", row=1, col=1)
    return fig.update_layout(height=390, margin_t=48)


def grid(magnitude: float = 180.0):
    """A choice between two tokens, one with the logit `magnitude`: its probability, exact and with bf16 logits."""
    import plotly.graph_objects as go

    gaps = torch.linspace(-4, 4, 321, dtype=torch.float64)
    exact, rounded = torch.sigmoid(gaps), torch.sigmoid((magnitude + gaps).bfloat16().double() - magnitude)
    step = bf16_step(magnitude)
    fig = go.Figure()
    for name, values, meaning in (("fp32", exact, "grey"), ("bf16", rounded, "clipped")):
        fig.add_scatter(x=gaps.tolist(), y=[round(p, 4) for p in values.tolist()], name=name, mode="lines",
                        line=style(meaning)["line"])
    fig.update_xaxes(title="difference of the two logits")
    fig.update_yaxes(title="probability of the first token", range=[0, 1])
    worst = (rounded - exact).abs().max().item()
    return fig.update_layout(
        legend=ABOVE, title=f"logits near {magnitude:g}: steps of {step:g}, up to {worst:.2f} wrong", margin_t=80)


def heads(rows: Mapping[str, Sequence[Mapping]]):
    """1 − Pearson against the size of the common mode, logarithmic: a line for each seed, a style for each arm."""
    import plotly.graph_objects as go

    fig, looks = go.Figure(), {"bf16, bf16 head": "clipped", "bf16, fp32 head": "lightning", "fp32": "grey"}
    for arm, meaning in looks.items():
        for number, entries in enumerate(rows.values()):
            mine = [r for r in entries if r["arm"] == arm]
            fig.add_scatter(
                x=[str(r["size"]) for r in mine], name=arm,
                y=[float(f"{max(1 - r['pearson'], 1e-14):.3g}") for r in mine],
                legendgroup=arm, showlegend=number == 0, mode="lines+markers", opacity=0.8, **style(meaning),
                hovertemplate="common mode %{x}: %{y:.1e}<extra></extra>",
            )
    for name, value, side in (("report, before", 0.987319, "bottom"), ("report, after", 0.997135, "top")):
        fig.add_hline(y=1 - value, line=dict(color=COLOURS["text"], dash="dot", width=1.5))
        fig.add_annotation(text=name, x=0.01, xref="paper", xanchor="left", y=math.log10(1 - value), yanchor=side,
                           showarrow=False)
    fig.update_xaxes(title="common mode: about the size of every logit", type="category")
    fig.update_yaxes(title="1 − Pearson", type="log", exponentformat="power", dtick=2)
    return fig.update_layout(legend=ABOVE, margin_t=60)


def stages(runs: Mapping[str, Sequence[Mapping]]):
    """Left: window, 99th percentile and mean lengths of right and wrong answers. Right: perplexity at the window's end.

    runs: seed -> records of `minim1.report.experiments.windows`; thin lines are seeds, thick ones their mean.
    """
    from plotly.subplots import make_subplots

    titles = ["tokens", "perplexity of cut-off answers"]
    fig = make_subplots(rows=1, cols=2, horizontal_spacing=0.1, subplot_titles=titles)
    left = (("window", "window", "text"), ("99th percentile", "p99", "grey"),
            ("wrong answers", "length_wrong", "clipped"), ("right answers", "length_right", "reward"))
    right = (("first quarter", "head_perplexity", "lightning"), ("last quarter", "tail_perplexity", "softmax"))
    for column, lines in ((1, left), (2, right)):
        for name, key, meaning in lines:
            for line in _lines(runs, key, name, meaning):
                fig.add_trace(line, row=1, col=column)
    fig.update_xaxes(title="rollout batch")
    fig.update_yaxes(rangemode="tozero")
    return fig.update_layout(height=440, legend=dict(orientation="h", y=1.14, yanchor="bottom", x=0), margin_t=110)


def judged(runs: Mapping[str, Mapping[str, Sequence[Mapping]]]):
    """Mean length and verified success of three arms; thin lines are seeds, thick ones their mean, stars are alarms."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    titles = ["mean length, tokens", "verified success"]
    fig = make_subplots(rows=1, cols=2, horizontal_spacing=0.1, subplot_titles=titles)
    for arm, meaning in (("fair", "lightning"), ("biased", "softmax"), ("watched", "expert")):
        for column, key in ((1, "length"), (2, "success")):
            for line in _lines(runs[arm], key, arm, meaning, legend=column == 1):
                fig.add_trace(line, row=1, col=column)
    first = [next((r for r in records if r["alarm"]), None) for records in runs["watched"].values()]
    for column, key in ((1, "length"), (2, "success")):
        fig.add_trace(go.Scatter(
            x=[r["rollout"] for r in first if r], y=[r[key] for r in first if r], mode="markers", name="first alarm",
            showlegend=column == 1, cliponaxis=False, marker=dict(symbol="star", size=15, color=COLOURS["reward"],
                                                line=dict(width=1, color=COLOURS["text"])),
        ), row=1, col=column)
    fig.update_xaxes(title="rollout batch")
    fig.update_yaxes(rangemode="tozero")
    fig.update_yaxes(range=[0, 1], row=1, col=2)
    return fig.update_layout(height=420, legend=dict(orientation="h", y=1.14, yanchor="bottom", x=0), margin_t=90)


def _lines(runs: Mapping[str, Sequence[Mapping]], key: str, name: str, meaning: str, *, legend: bool = True):
    """One thin line for each seed and a thick one for their mean."""
    import plotly.graph_objects as go

    look = style(meaning)

    def mean(values):  # a perplexity of 0 stands for no such answer
        there = [v for v in values if v or "perplexity" not in key]
        return round(sum(there) / len(there), 4) if there else None

    for records in runs.values():
        yield go.Scatter(
            x=[r["rollout"] for r in records], y=[mean([r[key]]) for r in records], mode="lines", opacity=0.35,
            line={**look["line"], "width": 1.2}, showlegend=False, legendgroup=name, hoverinfo="skip")
    together = list(zip(*runs.values()))
    yield go.Scatter(
        x=[entry[0]["rollout"] for entry in together],
        y=[mean([r[key] for r in entry]) for entry in together],
        mode="lines", line={**look["line"], "width": 3.5}, name=name, legendgroup=name, showlegend=legend,
        hovertemplate=f"{name}: %{{y:.3g}}<extra></extra>")
