"""Figures of chapter 16: which property sees which fault, what the loss says of faults, milestones and bands."""

from collections.abc import Mapping, Sequence
from statistics import median

from minim1.course.look import COLOURS, shades
from minim1.report.faults import FAULTS, PROPERTIES


def matrix(found: Mapping[str, Mapping[str, str | None]]):
    """Faults as rows, properties as columns; dark where the property answers. `found`: what `faults.matrix` gives."""
    import plotly.graph_objects as go

    names = list(PROPERTIES)
    rows = [f"{number}  {fault.part}" for number, fault in enumerate(FAULTS, 1)]
    seen = [[int(found[fault.story][name] is not None) for name in names] for fault in FAULTS]
    text = [["●" if cell else "" for cell in row] for row in seen]
    fig = go.Figure(go.Heatmap(
        z=seen, x=[name.replace("_", " ") for name in names], y=rows, text=text, texttemplate="%{text}", showscale=False,
        xgap=2, ygap=2, colorscale=[[0, "#F4F4F4"], [1, shades("expert", 3)[2]]], hoverinfo="skip",
        textfont=dict(color=COLOURS["text"], size=16),
    ))
    fig.update_xaxes(tickangle=-40, showgrid=False, ticks="")
    fig.update_yaxes(autorange="reversed", showgrid=False, ticks="")
    return fig.update_layout(height=480, margin=dict(l=120))


def losses(runs: Mapping[str, Sequence[Mapping]], arm: str):
    """Loss against step of one fault beside that of the right parts: what the run sees, and what its weights are worth.

    runs: part at fault ("none": no fault) -> for each seed {"loss": [(step, loss)], "right": loss with right parts}.
    """
    import plotly.graph_objects as go

    fig = go.Figure()
    for name, label, colour, dash in (("none", "no fault", "grey", "solid"), (arm, f"{arm} at fault", "clipped", "dash")):
        for number, run in enumerate(runs[name]):
            steps, values = zip(*run["loss"])
            shown = dict(name=label, legendgroup=label, showlegend=number == 0)
            fig.add_scatter(x=steps, y=values, mode="lines", line=dict(color=COLOURS[colour], dash=dash, width=1.8), **shown)
            fig.add_scatter(x=[steps[-1] + 6 + 2 * (name != "none")], y=[run["right"]], mode="markers", showlegend=False,
                            marker=dict(color=COLOURS[colour], size=11, symbol="circle" if name == "none" else "x"),
                            hovertemplate="read with the right parts: %{y:.2f}<extra></extra>")
    worth = {name: median(run["right"] for run in runs[name]) for name in ("none", arm)}
    fig.update_layout(title=f"with the right parts: {worth[arm]:.2f} nats, without the fault {worth['none']:.2f} "
                            f"(medians of {len(runs[arm])} seeds)", legend=dict(orientation="h", y=-0.2))
    fig.update_xaxes(title="step")
    fig.update_yaxes(title="loss, nats per token")
    return fig


def bands(rows: Sequence[tuple[str, float, tuple[float, float], bool]]):
    """Each figure of a run as a point on the band of ours, both measured in widths of that band: -1 and 1 are its ends."""
    import plotly.graph_objects as go

    fig, names = go.Figure(), [name for name, *_ in rows]
    places = [(2 * value - low - high) / (high - low) for _, value, (low, high), _ in rows]
    fig.add_bar(y=names, x=[2] * len(rows), base=-1, orientation="h", marker=dict(color="#E3E3E3"), hoverinfo="skip", width=0.5)
    fig.add_scatter(
        y=names, x=[max(-2.5, min(2.5, place)) for place in places], mode="markers+text", textposition="top center",
        text=[f"{value:.3g}" for _, value, *_ in rows],
        marker=dict(color=COLOURS["text"], size=12, symbol=["circle" if row[3] else "x" for row in rows]),
    )
    fig.update_xaxes(range=[-2.7, 2.7], tickvals=[-1, 0, 1], ticktext=["lower end", "middle", "upper end"], title="our band")
    fig.update_yaxes(autorange="reversed", showgrid=False)
    return fig.update_layout(showlegend=False, height=420, margin=dict(l=230))
