"""The figures of chapter 09. Each function takes the numbers it draws and returns a plotly figure, for `show`."""

from collections.abc import Mapping, Sequence

from minim1.course.look import COLOURS, style
from minim1.report.experiments import long_context as experiment
from minim1.report.flops import CONVENTIONS, MODELS, K, curves, published, ratio

MEANINGS = dict(zip(MODELS, ("lightning", "softmax", "expert")))  # of the three curves
LOOKS = {"pure lightning": "lightning", "hybrid": "softmax"}
ARMS = {"half turned": "lightning", "all turned": "softmax", "pure lightning": "grey"}


def committed() -> dict:
    """The stored experiment: "prefill", "needles" and "shipped"."""
    return experiment.stored()


def flops(convention: str = CONVENTIONS[0], tokens: int = 64):
    """FLOPs against the generated tokens under a convention, and the points of the report's figure 1 (right).

    tokens: in K = 1,024, where the ratios in the title are taken.
    """
    import plotly.graph_objects as go

    fig, lengths = go.Figure(), [K * n for n in range(0, 129, 4)]
    points = published()
    for name, curve in curves(convention).items():
        look = style(MEANINGS[name])
        fig.add_scatter(x=[n / K for n in lengths], y=[float(f"{curve.total(n) / 1e16:.4g}") for n in lengths],
                        name=name, mode="lines", line=look["line"],
                        hovertemplate="%{x}K tokens: %{y:.3g}e16<extra></extra>")
        shown = points[name][:: max(len(points[name]) // 12, 1)]
        fig.add_scatter(x=[n / K for n, _ in shown], y=[value / 1e16 for _, value in shown],
                        name=f"{name}, the report's", mode="markers",
                        marker=look["marker"] | dict(symbol=look["marker"]["symbol"] + "-open", size=9))
    fig.add_vline(x=tokens, line=dict(color=COLOURS["text"], width=1))
    mine, theirs = (ratio(convention, tokens * K, rival) for rival in ("DeepSeek-R1", "Qwen3-235B"))
    fig.update_layout(title=f"{tokens}K tokens: M1 needs {mine:.1%} of R1's FLOPs, {theirs:.0%} of Qwen3's")
    fig.update_xaxes(title="generated tokens, in K = 1,024", range=[0, 130])
    highest = max(curve.total(lengths[-1]) for curve in curves(convention).values()) / 1e16
    fig.update_yaxes(title="FLOPs in all, 1e16", range=[0, max(7.2, 1.05 * highest)])
    return fig.update_layout(height=480, legend=dict(orientation="h", y=-0.22, x=0))


def prefill(points: Mapping[str, Sequence], fits: Mapping[str, Sequence[float]],
            live: Mapping[str, Sequence] | None = None):
    """Left: seconds against tokens, with fits c n + d n^2 drawn on to 1M. Right: bytes of the cache.

    points: "pure lightning" and "hybrid" -> [(tokens, seconds, bytes)]; live: the same from this machine, drawn open.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    fig = make_subplots(rows=1, cols=2, horizontal_spacing=0.13, subplot_titles=["seconds", "bytes of the cache"])
    everything = [(name, name, found, False) for name, found in points.items()]
    everything += [(name, f"{name}, here", found, True) for name, found in (live or {}).items()]
    for kind, name, found, hollow in everything:
        look = style(LOOKS[kind])
        marker = look["marker"] | (dict(symbol=look["marker"]["symbol"] + "-open", size=12) if hollow else {})
        for column, entry in ((1, 1), (2, 2)):
            fig.add_trace(go.Scatter(
                x=[point[0] for point in found], y=[float(f"{point[entry]:.4g}") for point in found], name=name,
                legendgroup=name, showlegend=column == 1, mode="markers" if hollow or column == 1 else "lines+markers",
                line=look["line"], marker=marker), row=1, col=column)
    lengths = [2**power for power in range(10, 21)]
    for name, (c, d) in fits.items():
        fig.add_trace(go.Scatter(
            x=lengths, y=[float(f"{c * n + d * n * n:.4g}") for n in lengths], mode="lines", name=f"{name}, fitted",
            line=style(LOOKS[name])["line"], hoverinfo="skip"), row=1, col=1)
    ticks = [2**power for power in (10, 12, 14, 16, 18, 20)]
    fig.update_xaxes(title="tokens read", type="log", tickvals=ticks, ticktext=["1K", "4K", "16K", "64K", "256K", "1M"],
                     range=[2.95, 6.1])
    fig.update_yaxes(type="log", exponentformat="power", dtick=1)
    return fig.update_layout(height=440, legend=dict(orientation="h", y=-0.25, x=0))


def needles(panels: Mapping[str, Mapping[str, Sequence]], lengths: Sequence[int], trained: Mapping[str, int],
            live: Mapping[str, Sequence] | None = None):
    """Share of needles found against the length, a panel for each training: medians over seeds, bands of all seeds.

    panels: training -> network -> (seeds, lengths) shares; trained: training -> longest row in it; live: network ->
    shares of one seed, drawn open in the first panel.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    fig = make_subplots(rows=1, cols=len(panels), shared_yaxes=True, horizontal_spacing=0.05,
                        subplot_titles=list(panels))
    for column, (training, networks) in enumerate(panels.items(), 1):
        for name, seeds in networks.items():
            columns = [sorted(entry) for entry in zip(*seeds)]
            low, middle, high = ([entry[at] for entry in columns] for at in (0, len(seeds) // 2, -1))
            look = style(ARMS[name])
            channels = ",".join(str(int(look["line"]["color"][i:i + 2], 16)) for i in (1, 3, 5))
            fig.add_trace(go.Scatter(
                x=[*lengths, *reversed(lengths)], y=[*high, *reversed(low)], fill="toself", mode="lines",
                line=dict(width=0), fillcolor=f"rgba({channels},0.2)", hoverinfo="skip", showlegend=False,
            ), row=1, col=column)
            fig.add_trace(go.Scatter(x=list(lengths), y=middle, name=name, legendgroup=name, showlegend=column == 1,
                                     mode="lines+markers", **look), row=1, col=column)
        fig.add_vline(x=trained[training], line=dict(color=COLOURS["text"], width=1), row=1, col=column)
    for name, shares in (live or {}).items():
        look = style(ARMS[name])["marker"]
        fig.add_trace(go.Scatter(x=list(lengths)[: len(shares)], y=list(shares), name=f"{name}, here", mode="markers",
                                 marker=look | dict(symbol=look["symbol"] + "-open", size=14)), row=1, col=1)
    fig.add_hline(y=1 / 8, line=dict(color=COLOURS["grey"], width=1, dash="dot"))
    fig.update_xaxes(type="log", tickvals=list(lengths), range=[1.75, 3.4],
                     ticktext=[str(n) if n < K else f"{n // K}K" for n in lengths])
    fig.update_xaxes(title="tokens before the questions", row=1, col=(len(panels) + 1) // 2)
    fig.update_yaxes(title="needles found", tickformat=".0%", range=[0, 1.05], row=1, col=1)
    return fig.update_layout(height=420, legend=dict(orientation="h", y=-0.25, x=0), margin_t=56)


def filler(fillers: Sequence[int], shares: Mapping[str, Sequence[float]]):
    """Share of records that the shipped model returns, against tokens of filler, for two ways of asking."""
    import plotly.graph_objects as go

    fig, places = go.Figure(), [str(n) for n in fillers]
    for (name, values), meaning in zip(shares.items(), ("thinking", "lightning")):
        fig.add_scatter(x=places, y=[round(value, 4) for value in values], name=name, mode="lines+markers",
                        **style(meaning))
    fig.add_hline(y=1 / 8, line=dict(color=COLOURS["grey"], width=1, dash="dot"))
    fig.update_xaxes(title="tokens of Python code among the five records", type="category")
    fig.update_yaxes(title="records returned rightly", tickformat=".0%", range=[0, 1.05])
    return fig.update_layout(legend=dict(orientation="h", y=1.14, x=0))
