"""The figures of chapter 06. Each function takes the numbers it draws and returns a plotly figure, for `show`."""

from collections.abc import Mapping, Sequence

from minim1.course.look import COLOURS, style
from minim1.report.experiments import recall as experiment

ORDERS = {"pre-norm": "grey", "plain post-norm": "softmax", "only α": "reward", "only small start": "expert",
          "DeepNorm": "lightning"}  # order -> its style


def _mixed() -> dict:
    """The style of a network of both kinds of layers: neither lightning's nor softmax's."""
    return {"line": {"color": COLOURS["text"], "dash": "dashdot"},
            "marker": {"color": COLOURS["text"], "symbol": "diamond"}}


def _look(layers: str) -> dict:
    """The style of a network by its layers, such as "LLLS"; what follows a comma says how it differs."""
    if "D = " in layers:
        return {"line": style("grey")["line"] | {"dash": "longdash"},
                "marker": style("grey")["marker"] | {"symbol": "triangle-up-open"}}
    if "," in layers:
        return style("grey")
    return {frozenset("L"): style("lightning"), frozenset("S"): style("softmax")}.get(frozenset(layers)) or _mixed()


def depth(changes: Mapping[str, Sequence], gradients: Mapping[str, Sequence]):
    """Through the layers of a network at initialisation, for each residual order: (seeds, layers) nested lists.

    Left: how much a layer changes what passes it. Right: how much the loss feels a change of what enters a layer.
    Lines are medians over the seeds, bands go from the smallest to the largest.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    fig = make_subplots(rows=1, cols=2, horizontal_spacing=0.14,
                        subplot_titles=["forwards: relative change by each layer", "backwards: gradient × size"])
    for column, found in enumerate((changes, gradients), start=1):
        for name, seeds in found.items():
            low, middle, high = _spread(seeds)
            layers = list(range(len(middle)))
            look = style(ORDERS[name])
            fig.add_trace(_band(go, layers, low, high, look["line"]["color"]), row=1, col=column)
            fig.add_trace(go.Scatter(
                x=layers, y=middle, name=name, legendgroup=name, showlegend=column == 1, line=look["line"],
                mode="lines+markers", marker=look["marker"] | dict(maxdisplayed=9),
                hovertemplate=f"{name}, layer %{{x}}: %{{y:.2g}}<extra></extra>",
            ), row=1, col=column)
    fig.update_xaxes(title="layer, from 0")
    fig.update_yaxes(type="log", exponentformat="power", dtick=1, row=1, col=1)
    fig.update_yaxes(type="log", exponentformat="power", dtick=2, row=1, col=2)
    return fig.update_layout(height=430, legend=dict(orientation="h", y=-0.25, x=-0.1))


def committed() -> dict:
    """The stored experiment, as `minim1.report.experiments.recall` wrote it."""
    return experiment.stored()


def recall(curves: Mapping[str, Sequence], live: Mapping[str, Sequence] | None = None):
    """Accuracy against training step: medians over the seeds as lines, all seeds within the bands.

    curves: network -> curves [[step, accuracy], ...] of its seeds; live: network -> one such curve, drawn open.
    """
    import plotly.graph_objects as go

    fig = go.Figure()
    for name, seeds in curves.items():
        steps = [step for step, _ in seeds[0]]
        low, middle, high = _spread([[accuracy for _, accuracy in curve] for curve in seeds])
        look = _look(name)
        fig.add_trace(_band(go, steps, low, high, look["line"]["color"]))
        fig.add_scatter(x=steps, y=middle, name=name, mode="lines+markers", **look)
    for name, curve in (live or {}).items():
        mark = _look(name)["marker"]
        symbol = mark["symbol"].removesuffix("-open") + "-open"
        fig.add_scatter(
            x=[step for step, _ in curve], y=[round(accuracy, 4) for _, accuracy in curve], name=f"{name}, here",
            mode="markers", marker=dict(symbol=symbol, color=mark["color"], size=14, line=dict(width=2)),
        )
    fig.add_hline(y=1 / 16, line=dict(color=COLOURS["grey"], width=1, dash="dot"))
    fig.update_xaxes(title="training step")
    fig.update_yaxes(title="answers that are right", tickformat=".0%", range=[0, 1.05])
    return fig.update_layout(legend=dict(orientation="h", y=1.14, x=0))


def cache(every: int, tokens: int, states: Mapping[int, int], per_token: Mapping[int, int]):
    """Bytes of the cache against the context, for one softmax layer in `every`; the marked context is `tokens`.

    states, per_token: every -> bytes of all states, and of keys and values for each token.
    """
    import plotly.graph_objects as go

    contexts = [2**power for power in range(8, 23)]
    fig = go.Figure()
    for n, name, meaning in ((1, "softmax in every layer", "softmax"),
                             (every, f"1 softmax layer in {every}", "lightning")):
        fig.add_scatter(
            x=contexts, y=[float(f"{(states[n] + per_token[n] * length) / 1e9:.4g}") for length in contexts], name=name,
            mode="lines+markers", **style(meaning), hovertemplate="%{x:,} tokens: %{y:.3g} GB<extra></extra>")
    fig.add_scatter(x=contexts, y=[states[every] / 1e9] * len(contexts), name="the states alone", mode="lines",
                    line=style("grey")["line"], hoverinfo="skip")
    whole, growing = states[every] + per_token[every] * tokens, per_token[every] * tokens
    fig.add_vline(x=tokens, line=dict(color=COLOURS["text"], width=1))
    fig.update_layout(title=f"{_short(tokens)} tokens: {_bytes(whole)} ({growing / whole:.1%} keys and values); "
                            f"softmax: {_bytes(states[1] + per_token[1] * tokens)}")
    ticks = [2**power for power in (8, 10, 12, 14, 16, 18, 20, 22)]
    fig.update_xaxes(title="tokens of context", type="log", tickvals=ticks, ticktext=[_short(n) for n in ticks])
    sizes = [10.0**power for power in range(-3, 4)]
    fig.update_yaxes(title="GB", type="log", range=[-3, 3.4], tickvals=sizes, ticktext=[f"{x:g}" for x in sizes])
    return fig.update_layout(height=440, legend=dict(orientation="h", y=-0.22, x=0))


def _spread(seeds: Sequence[Sequence[float]]) -> tuple[list, list, list]:
    """Smallest, median and largest over the seeds at each place."""
    columns = [sorted(column) for column in zip(*seeds)]
    return tuple([float(f"{column[at(len(column))]:.4g}") for column in columns]
                 for at in (lambda n: 0, lambda n: n // 2, lambda n: n - 1))


def _band(go, x: Sequence, low: Sequence, high: Sequence, colour: str):
    """The area between two lines, in a light shade of a colour."""
    channels = ",".join(str(int(colour[i:i + 2], 16)) for i in (1, 3, 5))
    return go.Scatter(x=[*x, *reversed(x)], y=[*high, *reversed(low)], fill="toself", mode="lines", line=dict(width=0),
                      fillcolor=f"rgba({channels},0.2)", hoverinfo="skip", showlegend=False)


def _bytes(number: float) -> str:
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"


def _short(number: int) -> str:
    return f"{number // 2**20}M" if number >= 2**20 else f"{number // 2**10}K" if number >= 2**10 else str(number)
