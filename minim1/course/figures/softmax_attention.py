"""The figures of chapter 02. Each function takes the numbers it draws and returns a plotly figure, for `show`."""

import math
from collections.abc import Mapping, Sequence

import torch

from minim1.course.look import COLOURS, style
from minim1.report.experiments import partial_rope

CARD = 80e9  # bytes of memory of one large GPU
VARIANTS = {  # name -> softmax layers, key/value heads
    "M1": (10, 8), "M1 with 64 key heads": (10, 64), "M1 with 80 softmax layers": (80, 8), "both": (80, 64),
}


def angles(bases: Sequence[float], rotary_dim: int = 64, tokens: int = 256):
    """The cosine of each pair's angle at each position, a panel for each base."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    places, pairs = torch.arange(0, tokens + 1, 2), torch.arange(rotary_dim // 2)
    fig = make_subplots(rows=1, cols=len(bases), shared_yaxes=True, horizontal_spacing=0.04,
                        subplot_titles=[f"base {base:,.0f}" for base in bases])
    for column, base in enumerate(bases, 1):
        cosines = (places * base ** (-2 * pairs[:, None] / rotary_dim)).cos()
        fig.add_trace(go.Heatmap(
            z=[[round(x, 2) for x in row] for row in cosines.tolist()], x=places.tolist(), y=pairs.tolist(),
            zmin=-1, zmax=1, showscale=column == len(bases), colorbar=dict(title="cosine"),
            hovertemplate="pair %{y}, position %{x}: cosine %{z}<extra></extra>",
        ), row=1, col=column)
    fig.update_xaxes(title="position", showgrid=False)
    fig.update_yaxes(showgrid=False, autorange="reversed")
    fig.update_yaxes(title="pair", row=1, col=1)
    return fig.update_layout(height=420, margin_t=56)


def turns(bases: Sequence[float], rotary_dim: int = 64, marks: Mapping[str, float] | None = None):
    """Tokens that each pair needs for a full turn, for each base; horizontal lines at `marks` (name -> tokens)."""
    import plotly.graph_objects as go

    fig, pairs = go.Figure(), list(range(rotary_dim // 2))
    for base, meaning, colour in zip(bases, ("grey", "softmax"), (COLOURS["text"], COLOURS["softmax"])):
        fig.add_scatter(
            x=pairs, y=[float(f"{2 * math.pi * base ** (2 * i / rotary_dim):.4g}") for i in pairs],
            name=f"base {base:,.0f}", mode="lines+markers",
            line=style(meaning)["line"] | dict(color=colour),
            marker=style(meaning)["marker"] | dict(color=colour, size=6),
            hovertemplate="pair %{x}: a turn in %{y:,.0f} tokens<extra></extra>",
        )
    for name, tokens in (marks or {}).items():
        fig.add_hline(y=tokens, line=dict(color=COLOURS["grey"], width=1.5))
        fig.add_annotation(x=0.01, xref="paper", y=math.log10(tokens), yanchor="bottom", text=name, showarrow=False)
    fig.update_xaxes(title="pair", range=[-0.7, rotary_dim // 2 - 0.3])
    fig.update_yaxes(title="tokens for a full turn", type="log", tickvals=[10**n for n in range(1, 8)],
                     ticktext=[f"{10**n:,}" for n in range(1, 8)])
    return fig.update_layout(legend=dict(orientation="h", y=1.12, x=0))


def committed() -> dict:
    """The stored results of `python -m minim1.report.experiments.partial_rope`."""
    return partial_rope.stored()


def extrapolation(stored: Mapping):
    """Accuracy against the length of the row, by content and by place: medians over seeds, and their range."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    looks = {
        "no dims turn":
            (COLOURS["grey"], "dot", "circle-open"), "half of the dims": (COLOURS["softmax"], "solid", "square"),
        "all dims": (COLOURS["text"], "dash", "diamond"),
        "all dims, base 10,000": (COLOURS["text"], "dot", "triangle-up-open"),
    }
    fig = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.05,
                        subplot_titles=["by content: what had this name?", "by place: what came before?"])
    for column, task in enumerate(("content", "place"), 1):
        for name, (colour, dash, symbol) in looks.items():
            by_length = [sorted(values) for values in zip(*stored["accuracy"][name][task])]
            middle = [values[len(values) // 2] for values in by_length]
            fig.add_trace(go.Scatter(
                x=list(stored["lengths"]), y=middle, name=name, legendgroup=name, showlegend=column == 1,
                mode="lines+markers", line=dict(color=colour, dash=dash),
                marker=dict(symbol=symbol, color=colour, size=9),
                error_y=dict(type="data", symmetric=False, thickness=1.2, width=4, color=colour,
                             array=[round(v[-1] - m, 4) for v, m in zip(by_length, middle)],
                             arrayminus=[round(m - v[0], 4) for v, m in zip(by_length, middle)]),
                hovertemplate="%{x} tokens: %{y:.2f}<extra>" + name + "</extra>",
            ), row=1, col=column)
        fig.add_hline(y=1 / 8, line=dict(color=COLOURS["grey"], width=1, dash="dot"), row=1, col=column,
                      annotation_text="chance", annotation_position="bottom left")
    fig.update_xaxes(title="tokens in the row", type="log", tickvals=list(stored["lengths"]),
                     ticktext=[str(n) for n in stored["lengths"]])
    fig.update_yaxes(range=[0, 1.05])
    fig.update_yaxes(title="share of right answers", row=1, col=1)
    return fig.update_layout(height=420, margin_t=90, legend=dict(orientation="h", y=1.28, x=0))


def slope(seconds: Mapping[int, float]) -> float:
    """Slope of a line through log seconds over log length: 1 is proportional, 2 is quadratic.

    >>> slope({10: 1.0, 100: 100.0})
    2.0
    """
    xs, ys = [math.log(n) for n in seconds], [math.log(s) for s in seconds.values()]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return round(sum((a - x) * (b - y) for a, b in zip(xs, ys)) / sum((a - x) ** 2 for a in xs), 10)


def growth(values: Mapping[str, Mapping[int, float]], x: str = "tokens", y: str = "milliseconds", factor: float = 1e3):
    """Seconds (or bytes) times a factor against length, both axes logarithmic, with each line's slope in its name."""
    import plotly.graph_objects as go

    looks = [(COLOURS["softmax"], "dash", "square"), (COLOURS["text"], "solid", "circle")]
    fig = go.Figure()
    for (name, line), (colour, dash, symbol) in zip(values.items(), looks):
        fig.add_scatter(
            x=list(line), y=[float(f"{factor * value:.4g}") for value in line.values()], mode="lines+markers",
            name=f"{name}, slope {slope(line):.1f}", line=dict(color=colour, dash=dash),
            marker=dict(color=colour, symbol=symbol),
        )
    lengths = sorted({n for line in values.values() for n in line})
    every = [factor * value for line in values.values() for value in line.values()]
    ticks = [10.0**n for n in range(math.floor(math.log10(min(every))), math.ceil(math.log10(max(every))) + 1)]
    fig.update_xaxes(title=x, type="log", tickvals=lengths, ticktext=[f"{n:,}" for n in lengths])
    fig.update_yaxes(title=y, type="log", tickvals=ticks, ticktext=[f"{tick:,g}" for tick in ticks])
    return fig.update_layout(height=360, legend=dict(orientation="h", y=1.14, x=0))


def cache_bytes(layers: int, heads: int, tokens: int, head_dim: int = 128, bytes_per_number: int = 2) -> int:
    """Keys and values of so many tokens.

    >>> cache_bytes(*VARIANTS["M1"], tokens=1)
    40960
    """
    return tokens * layers * 2 * heads * head_dim * bytes_per_number


def cards(context: int, conversations: int = 1):
    """The cache of some conversations of `context` tokens, for M1 and three variants, beside one card's memory."""
    import plotly.graph_objects as go

    fig, names = go.Figure(), list(VARIANTS)
    sizes = {name: conversations * cache_bytes(*VARIANTS[name], tokens=context) / 1e9 for name in names}
    for name, size in sizes.items():
        fits, own = size <= CARD / 1e9, name == "M1"
        fig.add_scatter(
            x=[float(f"{size:.4g}")], y=[name], mode="markers", showlegend=False,
            marker=dict(symbol="square" if own else "circle", size=18, line=dict(width=3, color=COLOURS["softmax"]),
                        color=COLOURS["softmax"] if fits else "white"),
            hovertemplate=f"{name}: %{{x:,}} GB, {1e9 * size / CARD:,.2f} cards<extra></extra>",
        )
    fig.add_vline(x=CARD / 1e9, line=dict(color=COLOURS["text"], width=2, dash="dash"))
    fig.add_annotation(x=math.log10(CARD / 1e9), y=1.12, yref="paper", text="one card, 80 GB", showarrow=False)
    ticks = [10.0**n for n in range(-1, 6)]
    fig.update_xaxes(title="cache, GB", type="log", range=[-1.4, 5.9], tickvals=ticks,
                     ticktext=["0.1", *(f"{tick:,.0f}" for tick in ticks[1:])])
    fig.update_yaxes(range=[-0.5, 3.5], categoryorder="array", categoryarray=names[::-1], tickvals=names, ticktext=[
        f"{name}<br><b>{size:,.{0 if size >= 10 else 2}f} GB</b>" for name, size in sizes.items()])
    return fig.update_layout(height=340, margin_t=48)
