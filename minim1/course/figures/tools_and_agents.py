"""The figures of chapter 14. Each function takes what it draws and returns a plotly figure, for `show`."""

from collections.abc import Mapping, Sequence

from minim1.course.figures.text_and_tokens import boxes
from minim1.course.look import COLOURS, style
from minim1.data.tokenizer import CONTROL


def conversation(tokens: Sequence[str], ids: Sequence[int], mask: Sequence[int]):
    """The tokens of a conversation as boxes, filled where they are trained on.

    Args: tokens: their texts; ids; mask: 1 where the token is to be learnt, all of one length.
    """
    looks = [
        ("trained on" if learnt else "read") + (", control token" if token < len(CONTROL) else "")
        for token, learnt in zip(ids, mask)
    ]
    return boxes(tokens, looks)


def compounding(
    measured: Mapping[str, Mapping[float, float]], turns: int = 40, rates: Mapping[str, float] | None = None
):
    """Success against the number of turns: what was measured, and p^n as a thin line of the same name.

    Args: measured: name -> {mean turns: share of successes}; rates: name -> p, the success of one turn.
    """
    import plotly.graph_objects as go

    fig = go.Figure()
    for (name, points), look in zip(measured.items(), ("lightning", "softmax", "expert", "clipped")):
        fig.add_scatter(
            x=[round(n, 2) for n in points],
            y=[round(y, 4) for y in points.values()],
            name=name,
            mode="lines+markers",
            **style(look),
        )
        if rates:
            n = list(range(turns + 1))
            fig.add_scatter(
                x=n,
                y=[round(rates[name] ** t, 4) for t in n],
                name=f"{rates[name]:.3g}^n",
                mode="lines",
                line=dict(color=style(look)["line"]["color"], width=1.2, dash="dot"),
            )
    fig.update_xaxes(title="turns of the agent", range=[0, turns + 0.5])
    fig.update_yaxes(title="share of successes", range=[0, 1.03])
    return fig.update_layout(height=420, legend=dict(orientation="h", y=1.15, x=0))


def power(rate: float, turns: int = 40):
    """rate^n up to so many turns, with the value at the end and the line of 60 %."""
    import plotly.graph_objects as go

    n = list(range(turns + 1))
    fig = go.Figure()
    fig.add_scatter(x=n, y=[round(rate**t, 4) for t in n], mode="lines", showlegend=False, **style("lightning"))
    fig.add_scatter(
        x=[turns],
        y=[round(rate**turns, 4)],
        mode="markers+text",
        text=[f"{rate**turns:.0%}"],
        textposition="top left",
        showlegend=False,
        **style("lightning"),
    )
    fig.add_hline(y=0.6, line=dict(color=COLOURS["grey"], dash="dot"), annotation_text="60 %")
    fig.update_xaxes(title="turns", range=[0, turns + 1])
    fig.update_yaxes(title="chance that every turn is right", range=[0, 1.03])
    return fig.update_layout(height=360, title=f"each turn is right with {rate:.1%}")


def hat(curves: Mapping[str, Sequence[float]]):
    """pass^k against k. Args: curves: name -> values for k = 1, 2, ..."""
    import plotly.graph_objects as go

    fig = go.Figure()
    for (name, values), look in zip(curves.items(), ("lightning", "softmax", "expert")):
        fig.add_scatter(
            x=list(range(1, len(values) + 1)),
            y=[round(v, 4) for v in values],
            name=name,
            mode="lines+markers",
            **style(look),
        )
    fig.update_xaxes(title="k", dtick=1)
    fig.update_yaxes(title="pass^k", range=[0, 1.03])
    return fig.update_layout(height=380, legend=dict(orientation="h", y=1.15, x=0))


def learning(runs: Sequence[Mapping[str, Sequence[float]]]):
    """RL with the tool in the loop: share of answers that are right, and share of conversations with a call, each run
    a thin line, the mean a thick one.

    Args: runs: for each seed {"reward": [...], "call_share": [...]}, an entry for each rollout.
    """
    import plotly.graph_objects as go

    fig = go.Figure()
    for key, name, look in (
        ("reward", "right answers", "reward"),
        ("call_share", "conversations with a call", "lightning"),
    ):
        ink = style(look)
        for run in runs:
            fig.add_scatter(
                x=list(range(1, len(run[key]) + 1)),
                y=list(run[key]),
                mode="lines",
                showlegend=False,
                opacity=0.45,
                line={**ink["line"], "width": 1},
            )
        means = [round(sum(values) / len(values), 4) for values in zip(*(run[key] for run in runs))]
        fig.add_scatter(x=list(range(1, len(means) + 1)), y=means, name=name, mode="lines+markers", **ink)
    fig.update_xaxes(title="rollout batch", dtick=1)
    fig.update_yaxes(title="share", range=[0, 1.03])
    return fig.update_layout(height=380, legend=dict(orientation="h", y=1.15, x=0))
