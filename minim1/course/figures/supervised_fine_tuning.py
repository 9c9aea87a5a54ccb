"""The figures of chapter 10. Each function takes the numbers it draws and returns a plotly figure, for `show`."""

from collections.abc import Mapping, Sequence

from minim1.course.figures.text_and_tokens import boxes, visible
from minim1.course.look import COLOURS, style

ABOVE = dict(orientation="h", y=1.03, yanchor="bottom", x=0)
SYMBOLS = ("circle", "diamond", "square")  # one for each seed


def supervision(tokens: Sequence[str], mask: Sequence[int], control: Sequence[bool]):
    """A conversation token by token: white boxes are only read, dark ones carry loss; control tokens have thick borders."""
    looks = [("trained on" if m else "read") + (", control token" if c else "") for m, c in zip(mask, control)]
    return boxes(tokens, looks)


def surprise(tokens: Sequence[str], before: Sequence[float], after: Sequence[float], mask: Sequence[int]):
    """-log p of each token under two models, in nats, one below the other in the order of the text.

    mask: 1 where the token carries loss; the others stand on grey.
    """
    import plotly.graph_objects as go

    places, fig = list(range(len(tokens))), go.Figure()
    for place in places:
        if not mask[place]:
            fig.add_vrect(x0=place - 0.5, x1=place + 0.5, fillcolor="#E4E4E4", line_width=0, layer="below")
    for name, values, look in (("after pretraining", before, "grey"), ("after SFT", after, "lightning")):
        ink = style(look)
        fig.add_scatter(x=places, y=[round(y, 3) for y in values], name=name, mode="lines+markers",
                        line=dict(width=1, dash=ink["line"]["dash"], color=ink["line"]["color"]),
                        marker=dict(size=9, **ink["marker"]),
                        customdata=[visible(t) for t in tokens], hovertemplate="%{customdata}: %{y:.2f}<extra></extra>")
    fig.update_xaxes(tickvals=places, ticktext=[visible(t) for t in tokens], tickangle=-90, showgrid=False,
                     range=[-0.6, len(tokens) - 0.4])
    fig.update_yaxes(title="surprise, nats", rangemode="tozero")
    return fig.update_layout(legend=ABOVE, margin_t=60, height=420)


def progress(runs: Sequence[Sequence[Mapping]], live: Sequence[Mapping]):
    """Held-out loss against the step: the band of the stored runs, and the live one."""
    import plotly.graph_objects as go

    steps = [record["step"] for record in runs[0]]
    losses = list(zip(*([record["heldout_loss"] for record in run] for run in runs)))
    fig = go.Figure()
    fig.add_scatter(x=steps + steps[::-1], y=[max(row) for row in losses] + [min(row) for row in losses[::-1]],
                    mode="lines", fill="toself", fillcolor="#D0D0D0", line=dict(width=0), hoverinfo="skip",
                    name=f"stored, {len(runs)} seeds")
    fig.add_scatter(x=[r["step"] for r in live], y=[r["heldout_loss"] for r in live], mode="lines+markers",
                    name="yours, just now", **style("lightning"))
    fig.update_xaxes(title="step")
    fig.update_yaxes(title="loss on held-out demonstrations, nats", rangemode="tozero")
    return fig.update_layout(legend=ABOVE, margin_t=60)


def waits(arms: Mapping[str, Sequence[float]]):
    """Probability of a wait after the first miss, a row for each kind of demonstration, a mark for each seed."""
    import plotly.graph_objects as go

    fig, names = go.Figure(), list(arms)
    for seed, symbol in zip(range(len(arms[names[0]])), SYMBOLS):
        fig.add_scatter(x=[arms[name][seed] for name in names], y=names, mode="markers", name=f"seed {seed}",
                        marker=dict(size=13, symbol=symbol, color=COLOURS["reward"],
                                    line=dict(width=1.5, color=COLOURS["text"])))
    fig.update_xaxes(title="probability of ⟨wait⟩ after a first try that failed", range=[0, 1], tickformat=".0%")
    fig.update_yaxes(autorange="reversed")
    return fig.update_layout(legend=ABOVE, margin_t=60, height=300)


def pass_curves(ks: Sequence[int], curves: Mapping[str, Sequence[float]], chosen: int, title: str):
    """pass@k against k, on a logarithmic axis. Up to three curves; a line at the `chosen` k."""
    import plotly.graph_objects as go

    fig = go.Figure()
    for (name, values), look in zip(curves.items(), ("lightning", "reward", "grey")):
        fig.add_scatter(x=list(ks), y=[round(y, 4) for y in values], name=name, mode="lines+markers", **style(look))
    fig.add_vline(x=chosen, line=dict(color=COLOURS["text"], width=1.5, dash="dot"))
    fig.update_xaxes(title="k, answers to each problem", type="log", tickvals=list(ks))
    fig.update_yaxes(title="pass@k", tickformat=".0%", range=[0, 1.03])
    return fig.update_layout(legend=ABOVE, margin_t=90, title=title)
