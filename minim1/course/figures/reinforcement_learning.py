"""The figures of chapter 11. Each function takes the numbers it draws and returns a plotly figure, for `show`."""

from collections.abc import Mapping, Sequence

from minim1.course.look import COLOURS, shades, style
from minim1.report.published import fig4 as published  # noqa: F401  what chapter 11 draws

ABOVE = dict(orientation="h", y=1.06, yanchor="bottom", x=0)


def leash(old: float, eps_low: float, eps_high: float):
    """The factor of a token's gradient under PPO's clip, against its new probability: for A = 1 and for A = -1."""
    import plotly.graph_objects as go

    upper, lower = (1 + eps_high) * old, (1 - eps_low) * old
    reach = min(1, max(2 * old, 1.2 * upper))  # where the bounds can be told apart
    places = [reach * n / 400 for n in range(1, 401)]
    fig = go.Figure()
    for name, meaning, kept, sign in (("A = 1", "reward", lambda p: p <= upper, 1),
                                      ("A = −1", "text", lambda p: p >= lower, -1)):
        values = [round(sign * p / old, 4) if kept(p) else 0 for p in places]
        fig.add_scatter(x=places, y=values, name=name, mode="lines", line=style(meaning)["line"],
                        hovertemplate="new probability %{x:.3f}: factor %{y:.2f}<extra></extra>")
    top = 1.15 * max(min(1 / old, 1 + eps_high), 1)
    fig.add_vline(x=old, line=dict(color=COLOURS["grey"], dash="dot", width=2), annotation_text="old",
                  annotation_position="top")
    fig.update_xaxes(title="new probability of the token", range=[0, reach])
    fig.update_yaxes(title="factor of its gradient", range=[-max(top, reach / old), top])
    return fig.update_layout(legend=ABOVE, margin_t=70)


def fates(answers: Sequence[str], tokens: Sequence[Sequence[str]], ratio: Sequence[Sequence[float]],
          weights: Mapping[str, Sequence[Sequence[float]]]):
    """A panel for each loss: every token of a batch with its ratio; shade: size of its gradient; a cross: it has none.

    answers: their names; tokens: a list for each answer, of any lengths; ratio, weights[name]: numbers of the same form.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    names, width = list(weights), max(map(len, tokens))
    fig = make_subplots(rows=len(names), cols=1, subplot_titles=names, vertical_spacing=0.07)
    largest = max(abs(x) for table in weights.values() for row in table for x in row)
    for place, name in enumerate(names, start=1):
        shown = [[abs(w) / largest for w in row[: len(own)]] + [None] * (width - len(own))
                 for row, own in zip(weights[name], tokens)]
        words = [[f"{word}<br>r = {r:.2f}" for word, r in zip(*row)] + [""] * (width - len(row[0]))
                 for row in zip(tokens, ratio)]
        fig.add_trace(go.Heatmap(
            z=shown, text=words, texttemplate="%{text}", textfont=dict(size=12, color=COLOURS["text"]), zmin=0,
            zmax=1.6, xgap=3, ygap=3, showscale=False, hoverinfo="skip", y=list(answers),
        ), row=place, col=1)
        struck = [(t, who) for who, own, row in zip(answers, tokens, weights[name])
                  for t in range(len(own)) if row[t] == 0]
        fig.add_trace(go.Scatter(
            x=[t + 0.4 for t, _ in struck], y=[who for _, who in struck], mode="markers", showlegend=False,
            marker=dict(symbol="x", size=13, color=COLOURS["clipped"], line=dict(width=1, color=COLOURS["text"])),
            hoverinfo="skip",
        ), row=place, col=1)
    fig.update_xaxes(visible=False, range=[-0.5, width - 0.4])
    fig.update_yaxes(autorange="reversed", showgrid=False, ticks="", showline=False)
    return fig.update_layout(height=215 * len(names) + 30, margin=dict(l=80, r=8, t=30, b=10))


def curves(runs: Mapping[str, Mapping[str, Sequence[Mapping]]], live: Sequence[Mapping] = ()):
    """Accuracy, reflection and length of thought against the rollout batch: a band from lowest to highest seed for each
    arm, its median as a line; open markers: the run made here.

    runs: arm -> seed -> records, as `policies.stored()["runs"]`.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    panels = {"accuracy": "right, of held-out problems", "wait": "wait after a first miss", "thinking":
        "tokens of thought"}
    fig = make_subplots(rows=1, cols=3, subplot_titles=list(panels.values()), horizontal_spacing=0.08)
    for (arm, seeds), meaning in zip(runs.items(), ("clipped", "lightning")):
        for column, field in enumerate(panels, start=1):
            low, middle, high = band([[r[field] for r in records] for records in seeds.values()])
            x, look = list(range(len(low))), style(meaning)
            fig.add_trace(go.Scatter(
                x=x + x[::-1], y=high + low[::-1], fill="toself", mode="lines", line=dict(width=0), opacity=0.3,
                fillcolor=look["line"]["color"], hoverinfo="skip", showlegend=False), row=1, col=column)
            fig.add_trace(go.Scatter(x=x, y=middle, mode="lines", name=f"{arm}, {len(seeds)} seeds", legendgroup=arm,
                                     showlegend=column == 1, line=look["line"]), row=1, col=column)
    for column, field in enumerate(panels, start=1):
        if live:
            fig.add_trace(go.Scatter(
                x=[r["rollout"] for r in live], y=[round(r[field], 4) for r in live], mode="markers",
                    name="this machine",
                showlegend=column == 1,
                marker=dict(symbol="circle-open", size=11, color=COLOURS["text"], line=dict(width=2.5))), row=1,
                col=column)
        fig.update_yaxes(rangemode="tozero", tickformat=".0%" if field != "thinking" else None, row=1, col=column)
    fig.update_xaxes(title="rollout batch", row=1, col=2)
    return fig.update_layout(height=400, legend=dict(orientation="h", y=1.12, yanchor="bottom", x=0),
                             margin=dict(t=90, r=8))


def band(values: Sequence[Sequence[float]]) -> tuple[list[float], list[float], list[float]]:
    """Lowest, median and highest of several curves of equal length, point by point."""
    columns = [sorted(column) for column in zip(*values)]
    return [c[0] for c in columns], [c[len(c) // 2] for c in columns], [c[-1] for c in columns]


def clipped(shares: Mapping[str, Sequence[Sequence[float]]], by_probability: Sequence[tuple[str, int, int]]):
    """Left: share of tokens without gradient over the rollout batches, a band of seeds for each kind of token; right:
    the same share by the token's old probability.

    shares: name -> a curve for each seed; by_probability: (name of the bin, tokens, clipped ones).
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    fig = make_subplots(rows=1, cols=2, column_widths=[0.55, 0.45], horizontal_spacing=0.12, subplot_titles=[
        "by rollout batch", "by old probability"])
    for (name, curves_), meaning in zip(shares.items(), ("clipped", "text")):
        low, middle, high = band(curves_)
        x, look = list(range(1, len(low) + 1)), style(meaning)
        fig.add_trace(go.Scatter(x=x + x[::-1], y=high + low[::-1], fill="toself", mode="lines", line=dict(width=0),
                                 opacity=0.3,
                                 fillcolor=look["line"]["color"], hoverinfo="skip", showlegend=False), row=1, col=1)
        fig.add_trace(go.Scatter(x=x, y=middle, name=name, mode="lines+markers", **look), row=1, col=1)
    names, totals, counts = zip(*by_probability)
    fig.add_trace(go.Bar(
        x=list(names), y=[c / max(n, 1) for n, c in zip(totals, counts)], showlegend=False,
        marker=dict(color=shades("clipped", 2)[1], line=dict(color=COLOURS["text"], width=1)),
        text=[f"of {n:,}" for n in totals], textposition="outside", textfont_size=11,
        hovertemplate="%{x}: %{y:.1%}<extra></extra>"), row=1, col=2)
    highest = max(c / max(n, 1) for n, c in zip(totals, counts))
    fig.update_yaxes(title="clipped, of tokens with A > 0", rangemode="tozero", tickformat=".0%", row=1, col=1)
    fig.update_yaxes(range=[0, 1.2 * highest], tickformat=".0%", row=1, col=2)
    fig.update_xaxes(title="rollout batch", dtick=2, row=1, col=1)
    fig.update_xaxes(title="old probability of the token", type="category", tickfont_size=11, row=1, col=2)
    return fig.update_layout(legend=dict(orientation="h", y=1.12, yanchor="bottom", x=0), margin=dict(t=90, r=8),
                             height=420)


def growth(theirs: Mapping[str, Sequence[tuple[int, float]]], ours: Mapping[str, Sequence[Mapping]]):
    """Accuracy above, length below; left M1's (the report's Fig. 4, three benchmarks), right ours (a line a seed)."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    fig = make_subplots(rows=2, cols=2, shared_xaxes=True, vertical_spacing=0.08, horizontal_spacing=0.12,
                        subplot_titles=["M1 (report, Fig. 4)", "minim1, pair"])
    looks = {"AIME24": ("lightning", "solid"), "AIME25": ("softmax", "dash"), "LCB": ("expert", "dot")}
    for series, points in theirs.items():
        name, what = series.split()
        colour, dash = COLOURS[looks[name][0]], looks[name][1]
        values = [y if what == "acc" else y / 1000 for _, y in points]
        fig.add_trace(go.Scatter(x=[x for x, _ in points], y=values, name=name, mode="lines", legendgroup=name,
                                 showlegend=what == "acc", line=dict(color=colour, dash=dash)),
                                 row=1 if what == "acc" else 2, col=1)
    for seed, records in ours.items():
        dash = ("solid", "dash", "dot")[int(seed) % 3]
        for row, values in ((1, [round(100 * r["accuracy"], 2) for r in records]),
                            (2, [r["thinking"] for r in records])):
            fig.add_trace(go.Scatter(x=[r["rollout"] for r in records], y=values, name=f"ours, seed {seed}",
                mode="lines",
                                     legendgroup=f"ours {seed}", showlegend=row == 1,
                                     line=dict(color=COLOURS["text"], dash=dash)),
                          row=row, col=2)
    fig.update_yaxes(title="right, %", row=1, col=1)
    fig.update_yaxes(title="length, K tokens", row=2, col=1)
    fig.update_yaxes(title="length, tokens", rangemode="tozero", row=2, col=2)
    fig.update_yaxes(rangemode="tozero", row=1, col=2)
    fig.update_xaxes(title="step", row=2, col=1)
    fig.update_xaxes(title="rollout batch", row=2, col=2)
    return fig.update_layout(height=520, legend=dict(orientation="h", y=1.08, yanchor="bottom", x=0),
                             margin=dict(t=90, r=8))
