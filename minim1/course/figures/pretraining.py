"""The figures of chapter 08. Each function takes the numbers it draws and returns a plotly figure, for `show`."""

from collections.abc import Mapping, Sequence

from minim1.course.look import COLOURS, shades, style
from minim1.report.experiments import noise_scale
from minim1.report.experiments import scaling as scaling_law

LEAKS = {"softmax layer leaks": "softmax", "lightning layers leak": "lightning", "both leak": "text"}
SIZES = {"plain post-norm": "softmax", "only α": "reward", "only small start": "expert", "DeepNorm": "lightning"}


def committed(name: str) -> dict:
    """A stored experiment: "scaling" or "noise_scale"."""
    return {"scaling": scaling_law, "noise_scale": noise_scale}[name].stored()


def leaks(extra: Mapping[str, Sequence[float]]):
    """Additional loss, in nats, of a token without document ids, against its place in its document (from 0)."""
    import plotly.graph_objects as go

    fig = go.Figure()
    for name, values in extra.items():
        fig.add_scatter(x=list(range(1, len(values) + 1)), y=[round(x, 4) for x in values], name=name,
                        mode="lines+markers", **style(LEAKS[name]))
    fig.update_traces(selector={"name": "both leak"}, line_dash="dot", marker_symbol="diamond")
    fig.add_hline(y=0, line=dict(color=COLOURS["grey"], width=1))
    fig.update_xaxes(title="place of the token in its document, from 0")
    fig.update_yaxes(title="additional loss, nats")
    return fig.update_layout(legend=dict(orientation="h", y=1.12, x=0))


def rates(warmup: float, decay: float, final: float, total: float, peak: float, schedule):
    """The learning rate over a run of `total` (in trillions of tokens), with the given schedule in 1000 steps."""
    import plotly.graph_objects as go

    steps = sorted({*range(0, 1000, 10), 999})
    values = [peak * schedule(step, 1000, warmup=warmup, decay=decay, final=final) for step in steps]
    fig = go.Figure(go.Scatter(x=[round((step + 1) * total / 1000, 3) for step in steps], y=values, mode="lines",
                               line=style("lightning")["line"], showlegend=False))
    fig.update_xaxes(title="trillions of tokens read", range=[0, total])
    fig.update_yaxes(title="learning rate", exponentformat="power", range=[0, 1.08 * peak])
    return fig.update_layout(height=340)


def loss_curve(log: Sequence[Mapping], baselines: Mapping[str, float]):
    """The loss of a run against its tokens, both in the log, and what simpler predictors reach, as lines across."""
    import plotly.graph_objects as go

    fig = go.Figure(go.Scatter(
        x=[row["total_tokens"] for row in log], y=[row["loss"] for row in log], mode="lines+markers",
        line=style("lightning")["line"], marker=dict(size=5, color=COLOURS["lightning"]), showlegend=False))
    for (name, value), dash in zip(baselines.items(), ("dot", "dash", "longdash")):
        fig.add_hline(y=value, line=dict(color=COLOURS["grey"], dash=dash, width=1.5), annotation_text=name,
                      annotation_position="top right")
    fig.update_xaxes(title="tokens read", type="log")
    fig.update_yaxes(title="loss, nats per target", range=[1, 7.6])
    return fig


def noise(points: Mapping[int, Sequence[Mapping]], live: Sequence[Mapping] = ()):
    """Noise scale in tokens against the loss, one line for each seed: seed -> points; live: one more, open markers."""
    import plotly.graph_objects as go

    fig = go.Figure()
    for number, (seed, colour) in enumerate(zip(points, shades("lightning", len(points)))):
        fig.add_scatter(x=[p["loss"] for p in points[seed]], y=[p["tokens"] for p in points[seed]], name=f"seed {seed}",
                        mode="lines+markers", line=dict(color=colour), marker=dict(
                            color=colour, symbol=("circle", "square", "diamond")[number % 3]))
    if live:
        fig.add_scatter(x=[p["loss"] for p in live], y=[p["tokens"] for p in live], name="this machine, now",
                        mode="markers", marker=dict(symbol="circle-open", size=14, color=COLOURS["softmax"],
                                                    line=dict(width=3)))
    fig.update_xaxes(title="loss (falls to the right)", type="log", autorange="reversed",
                     tickvals=[2, 3, 4, 5, 6, 7], ticktext=["2", "3", "4", "5", "6", "7"])
    ticks = [10**n * k for n in range(1, 7) for k in (1, 2, 5)]
    fig.update_yaxes(title="noise scale, tokens", type="log", tickvals=ticks, ticktext=[f"{tick:,}" for tick in ticks])
    return fig.update_layout(legend=dict(orientation="h", y=1.12, x=0))


def scaling(result: Mapping, fits: Sequence[tuple[float, float]], best: tuple[float, float],
            live: Mapping[float, float] | None = None):
    """Held-out loss against compute: every width's mean over its seeds, the fitted law, and the band of the draws.

    fits: (a, b) of many draws; best: of all runs; live: compute -> loss of a run made now.
    """
    import plotly.graph_objects as go

    fig, widths = go.Figure(), list(result["losses"])
    every = []
    for width, colour, symbol in zip(widths, shades("lightning", len(widths)),
                                     ("circle", "square", "diamond", "triangle-up", "x")):
        x = [6 * result["multiplied"][width] * steps * result["tokens_per_step"] for steps in result["steps"]]
        rows = list(zip(*result["losses"][width]))
        fig.add_scatter(x=x, y=[sum(row) / len(row) for row in rows], name=f"width {width}", mode="lines+markers",
                        line=dict(color=colour, width=1.5), marker=dict(color=colour, symbol=symbol), error_y=dict(
                            type="data", symmetric=False, array=[max(row) - sum(row) / len(row) for row in rows],
                            arrayminus=[sum(row) / len(row) - min(row) for row in rows], thickness=1))
        every += x
    ends = [min(every), max(every)]
    grid = [ends[0] * (ends[1] / ends[0]) ** (n / 20) for n in range(21)]
    band = [sorted(a * c**-b for a, b in fits) for c in grid]
    low, high = ([row[int(share * (len(row) - 1))] for row in band] for share in (0.025, 0.975))
    fig.add_scatter(x=grid + grid[::-1], y=high + low[::-1], fill="toself", fillcolor="rgba(118,118,118,0.35)",
                    line=dict(width=0), name="95 % of the draws", hoverinfo="skip")
    fig.add_scatter(x=grid, y=[best[0] * c ** -best[1] for c in grid], name="fitted law", mode="lines",
                    line=dict(color=COLOURS["text"], dash="dash"))
    if live:
        fig.add_scatter(x=list(live), y=list(live.values()), name="this machine, now", mode="markers",
                        marker=dict(symbol="circle-open", size=14, color=COLOURS["softmax"], line=dict(width=3)))
    fig.update_xaxes(title="compute C = 6 N D, FLOPs", type="log", exponentformat="power", dtick=1)
    fig.update_yaxes(title="held-out loss, nats per token", type="log", tickvals=[3.5, 4, 4.5, 5, 5.5, 6, 6.5, 7],
                     ticktext=["3.5", "4", "4.5", "5", "5.5", "6", "6.5", "7"])
    return fig.update_layout(height=460, legend=dict(orientation="h", y=-0.22, x=0))


def first_step(moves: Mapping[str, Mapping[int, Sequence[float]]]):
    """How far one step of training moves the logits, against the depth: for each variant depth -> one number a seed."""
    import plotly.graph_objects as go

    fig = go.Figure()
    for name, found in moves.items():
        middle = [sorted(values)[len(values) // 2] for values in found.values()]
        fig.add_scatter(x=list(found), y=middle, name=name, mode="lines+markers", **style(SIZES[name]), error_y=dict(
            type="data", symmetric=False, thickness=1,
            array=[max(values) - m for values, m in zip(found.values(), middle)],
            arrayminus=[m - min(values) for values, m in zip(found.values(), middle)]))
    depths = list(next(iter(moves.values())))
    fig.update_xaxes(title="layers", type="log", tickvals=depths, ticktext=[str(depth) for depth in depths])
    ticks = [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2]
    fig.update_yaxes(title="change of the logits in one step", type="log", tickvals=ticks,
                     ticktext=[str(tick) for tick in ticks])
    return fig.update_layout(legend=dict(orientation="h", y=1.12, x=0))
