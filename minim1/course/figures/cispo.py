"""The figures of chapter 12. Each function takes the numbers it draws and returns a plotly figure, for `show`."""

import statistics
from collections.abc import Mapping, Sequence

from minim1.course.look import COLOURS, shades
from minim1.report.published import fig2 as published  # noqa: F401  what chapter 12 draws

LOOKS = {  # arm or loss -> colour, dashes, marker: what clips is purple, what does not is black or grey; the tight cap is brown
    "reinforce": (COLOURS["grey"], "dot", "circle-open"), "cispo": (COLOURS["text"], "solid", "circle"),
    "ppo": (shades("clipped", 3)[0], "dot", "diamond"), "grpo": (COLOURS["grey"], "dash", "square"),
    "dapo": (COLOURS["clipped"], "longdash", "x"),
    "cispo, large step": (COLOURS["text"], "solid", "circle"),
    "cispo, large step, cap 1.28": (shades("reward", 2)[0], "dot", "triangle-down"),
    "dapo, large step": (COLOURS["clipped"], "longdash", "x"),
}
TITLES = {"accuracy": "held-out accuracy", "wait": "⟨wait⟩ after a failed try", "entropy": "entropy, nats per token",
          "ratio_max": "largest ratio", "thinking": "thinking tokens"}
TICKS = (1, 1.5, 2, 3, 5, 10, 30, 100, 300, 1000, 3000)  # of ratios, on a logarithmic axis


def push(ratio: float, positive: bool, loss: str, *, cap: float = 5.0) -> float:
    """The factor of A times the gradient of log pi that a loss gives to a token with this ratio.

    >>> push(1.5, True, "dapo"), push(1.5, False, "dapo"), push(6.0, True, "cispo"), push(6.0, True, "reinforce")
    (0.0, 1.5, 5.0, 1.0)
    """
    if loss == "reinforce":
        return 1.0
    if loss == "cispo":
        return min(ratio, cap)
    upper = 1.28 if loss == "dapo" else 1.2
    return 0.0 if (ratio > upper if positive else ratio < 0.8) else ratio


def weights(cap: float = 5.0, largest: float = 7.0):
    """What a token weighs against its ratio, for each loss; left with a positive advantage, right a negative one."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    fig = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.05,
                        subplot_titles=["the answer was good, A > 0", "the answer was bad, A < 0"])
    ratios = sorted({*(largest * i / 700 for i in range(701)), 0.7999, 0.8, 1.2, 1.2001, 1.28, 1.2801})
    for column, positive in ((1, True), (2, False)):
        for loss, name in (("reinforce", "REINFORCE"), ("ppo", "PPO, GRPO"), ("dapo", "DAPO"), ("cispo", "CISPO")):
            colour, dash, _ = LOOKS[loss]
            fig.add_trace(go.Scatter(
                x=[round(r, 4) for r in ratios], y=[round(push(r, positive, loss, cap=cap), 4) for r in ratios],
                name=name, mode="lines", line=dict(color=colour, dash=dash, width=3.5 if loss == "cispo" else 2.5),
                legendgroup=loss, showlegend=positive, hovertemplate=name + ", ratio %{x}: %{y}<extra></extra>",
            ), row=1, col=column)
    fig.update_xaxes(title="ratio: new probability over old", range=[0, largest])
    fig.update_yaxes(title="weight on A ∇ log π", range=[-0.2, max(cap, 5) + 0.6], row=1, col=1)
    return fig.update_layout(height=420, margin_t=56, legend=dict(orientation="h", y=1.22, x=0))


def token_bars(tokens: Sequence[str], pushes: Mapping[str, Sequence[float]], gaps: Sequence[int] = ()):
    """How each loss pushes each token of a batch, a row for each loss; a cross where the gradient is 0.

    Args: tokens: their texts; pushes: name -> minus the gradient for each token; gaps: indices where an answer begins.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    fig = make_subplots(rows=len(pushes), cols=1, shared_xaxes=True, vertical_spacing=0.035)
    largest = 1.15 * max(abs(x) for values in pushes.values() for x in values)
    places = list(range(len(tokens)))
    for row, (name, values) in enumerate(pushes.items(), 1):
        dark, light = shades("reward", 2)
        fig.add_trace(go.Bar(
            x=places, y=[round(x, 3) for x in values], marker=dict(
                color=[light if x > 0 else dark for x in values], line=dict(color=COLOURS["text"], width=1)),
            customdata=list(tokens), hovertemplate=name + ", %{customdata}: %{y}<extra></extra>", showlegend=False,
        ), row=row, col=1)
        lost = [place for place, x in zip(places, values) if abs(x) < 1e-9]
        fig.add_trace(go.Scatter(
            x=lost, y=[0] * len(lost), mode="markers", name="no gradient", showlegend=False, hoverinfo="skip",
            marker=dict(symbol="x", size=11, color=COLOURS["clipped"], line=dict(color="white", width=1)),
        ), row=row, col=1)
        fig.update_yaxes(title=dict(text=name, font=dict(size=13)), range=[-largest, largest], row=row, col=1,
                         zeroline=True, zerolinecolor=COLOURS["text"], nticks=3)
        for edge in gaps:
            fig.add_vline(x=edge - 0.5, line=dict(color=COLOURS["grey"], dash="dot", width=1.5), row=row, col=1)
    fig.update_xaxes(tickvals=places, ticktext=list(tokens), tickangle=0, showgrid=False)
    return fig.update_layout(height=110 + 95 * len(pushes), margin_t=16)


def bias(rows: Sequence[tuple[float, float, float]], marks: Mapping[str, tuple[float, float]]):
    """Bias and spread of the gradient estimate against the cap; horizontal lines for other ways to weigh.

    Args: rows of (cap, bias, spread), both relative to the true gradient; marks: name -> (bias, spread).
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    fig = make_subplots(rows=1, cols=2, horizontal_spacing=0.12, subplot_titles=[
        "bias: what the mean is off by", "spread: what one token adds as noise"])
    caps = [row[0] for row in rows]
    for column in (1, 2):
        colour, dash, symbol = LOOKS["cispo"]
        fig.add_trace(go.Scatter(
            x=caps, y=[round(row[column], 4) for row in rows], name="CISPO", mode="lines+markers",
            showlegend=column == 1, legendgroup="cispo", line=dict(color=colour, dash=dash), marker=dict(symbol=symbol),
            hovertemplate="cap %{x}: %{y}<extra></extra>"), row=1, col=column)
        for name, values in marks.items():
            colour, dash, _ = LOOKS["dapo" if "DAPO" in name else "reinforce"]
            fig.add_trace(go.Scatter(
                x=[caps[0], caps[-1]], y=[round(values[column - 1], 4)] * 2, name=name, mode="lines", legendgroup=name,
                showlegend=column == 1, line=dict(color=colour, dash=dash),
                hovertemplate=name + ": %{y}<extra></extra>"), row=1, col=column)
    fig.update_xaxes(title="cap", type="log", tickvals=[1, 2, 4, 8, 16], ticktext=["1", "2", "4", "8", "16"])
    fig.update_yaxes(title="relative to the true gradient", rangemode="tozero", row=1, col=1)
    fig.update_yaxes(rangemode="tozero", row=1, col=2)
    return fig.update_layout(height=400, margin_t=56, legend=dict(orientation="h", y=1.24, x=0))


def runs(stored: Mapping, arms: Sequence[str], fields: Sequence[str] = ("accuracy", "wait"),
         live: Sequence[Mapping] | None = None):
    """Stored runs against rollout batches: the median over the seeds as a line, least to largest as a band.

    Args: stored: what `policies.stored()` gives; arms: which of them; fields of the records, a panel for each;
        live: records of one more run, drawn as stars.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    fig = make_subplots(rows=1, cols=len(fields), horizontal_spacing=0.12)
    for column, field in enumerate(fields, 1):
        for arm in arms:
            colour, dash, symbol = LOOKS[arm]
            at = spread(stored["runs"][arm].values(), field)
            low, middle, high = ([round(values[k], 4) for values in at.values()] for k in range(3))
            x = list(at)
            fig.add_trace(go.Scatter(
                x=x + x[::-1], y=high + low[::-1], fill="toself", fillcolor=_pale(colour), line=dict(width=0),
                mode="lines", showlegend=False, legendgroup=arm, hoverinfo="skip"), row=1, col=column)
            fig.add_trace(go.Scatter(
                x=x, y=middle, name=_name(arm), mode="lines+markers", line=dict(color=colour, dash=dash),
                marker=dict(symbol=symbol), legendgroup=arm, showlegend=column == 1,
                hovertemplate="rollout %{x}: %{y}<extra></extra>"), row=1, col=column)
        if live:
            shown = [(r["rollout"], round(r[field], 4)) for r in live if field in r]
            fig.add_trace(go.Scatter(
                x=[x for x, _ in shown], y=[y for _, y in shown], name="here", mode="markers", showlegend=column == 1,
                marker=dict(symbol="star", size=14, color=COLOURS["highlight"],
                            line=dict(color=COLOURS["text"], width=1.5)),
                hovertemplate="here, rollout %{x}: %{y}<extra></extra>"), row=1, col=column)
        fig.update_xaxes(title="rollout batches", row=1, col=column)
        axis = dict(type="log", tickvals=TICKS, ticktext=[f"{x:,}" for x in TICKS]) if field == "ratio_max" else dict(
            rangemode="tozero")
        fig.update_yaxes(title=TITLES[field], row=1, col=column, **axis)
    return fig.update_layout(height=420, legend=dict(orientation="h", y=1.18, x=0))


def spread(seeds, field: str) -> dict[int, tuple[float, float, float]]:
    """Rollout -> least, median and largest value of a field over the seeds, where there is one."""
    values: dict[int, list[float]] = {}
    for records in seeds:
        for record in records:
            if record.get(field, 0) > 0 or field in record and field != "ratio_max":  # 0: nothing was trained
                values.setdefault(record["rollout"], []).append(record[field])
    return {at: (min(v), statistics.median(v), max(v)) for at, v in sorted(values.items())}


def first_at(curve: Mapping[int, float], level: float) -> int | None:
    """The first step at which a curve is at least at a level; None if it never is.

    >>> first_at({0: 1.0, 64: 3.0, 128: 2.0}, 2.0), first_at({0: 1.0}, 2.0)
    (64, None)
    """
    return next((step for step, value in curve.items() if value >= level), None)


def report_runs(curves: Mapping[str, Mapping[int, float]], level: float | None = None):
    """The curves of the report's Figure 2; at `level` a line, with the first points of CISPO and DAPO that reach it."""
    import plotly.graph_objects as go

    fig = go.Figure()
    for arm in ("grpo", "dapo", "cispo"):
        colour, dash, symbol = LOOKS[arm]
        curve = curves[arm]
        fig.add_scatter(x=list(curve), y=list(curve.values()), name=arm.upper(), mode="lines+markers",
                        line=dict(color=colour, dash=dash, width=2), marker=dict(symbol=symbol, size=6),
                        hovertemplate=arm.upper() + ", step %{x}: %{y}<extra></extra>")
    if level is not None:
        fig.add_hline(y=level, line=dict(color=COLOURS["reward"], width=2, dash="dashdot"))
        for arm in ("cispo", "dapo"):
            if (step := first_at(curves[arm], level)) is not None:
                fig.add_scatter(x=[step], y=[curves[arm][step]], mode="markers+text", text=[f"{arm.upper()}: {step}"],
                                textposition="top left" if arm == "cispo" else "top center", showlegend=False,
                                hoverinfo="skip", marker=dict(symbol="star", size=15, color=COLOURS["reward"],
                                                              line=dict(color=COLOURS["text"], width=1)))
    fig.update_xaxes(title="training steps")
    fig.update_yaxes(title="AIME 2024, %", rangemode="tozero")
    return fig.update_layout(height=400, legend=dict(orientation="h", y=1.14, x=0))


def _name(arm: str) -> str:
    """ "CISPO, large step" for "cispo, large step"."""
    loss, *rest = arm.split(", ")
    return ", ".join([loss.upper(), *rest])


def _pale(colour: str) -> str:
    """A colour as it looks behind lines: a fifth of it."""
    red, green, blue = (int(colour[i:i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"
