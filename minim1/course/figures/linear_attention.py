"""The figures of chapter 03: functions that take numbers and return a plotly figure, which `show` gives its look."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from minim1.course.look import COLOURS, shades


def half_lives(lives: Tensor, softmax_layers: Sequence[int] = ()):
    """A map of half-lives (layers, heads) in tokens, on a logarithmic scale, with a line at each power of ten.

    Heads are counted from 1 as in the slopes' formula, layers from 0; softmax layers, which have none, stay blank.
    """
    import plotly.graph_objects as go

    logs = lives.double().log10()
    logs[list(softmax_layers)] = torch.nan
    low, high = (bound.item() for bound in logs[logs.isfinite()].aminmax())
    powers = range(math.ceil(low), math.floor(high) + 1)
    fig = go.Figure(go.Heatmap(
        z=_numbers(logs), customdata=_numbers(lives), x=list(range(1, lives.shape[1] + 1)), hoverongaps=False,
        hovertemplate="layer %{y}, head %{x}: %{customdata:.1f} tokens<extra></extra>", zmin=low, zmax=high,
        colorbar=dict(
            title="half-life<br>in tokens", tickvals=list(powers), ticktext=[f"{10**power:,}" for power in powers]
        ),
    ))
    for power in powers:
        heads, layers = _level(logs, power)
        if len(layers) < 2:
            continue
        fig.add_scatter(
            x=heads, y=layers, mode="lines", line=dict(color=COLOURS["text"], width=1.5), hoverinfo="skip", showlegend=False
        )
        middle = len(layers) // 2
        fig.add_annotation(
            x=heads[middle], y=layers[middle], text=f"{10**power:,}", showarrow=False, bgcolor="rgba(255,255,255,0.85)"
        )
    fig.update_xaxes(title="head", range=[0.5, lives.shape[1] + 0.5], showgrid=False)
    fig.update_yaxes(title="layer", range=[-0.5, len(lives) - 0.5], showgrid=False)
    return fig.update_layout(height=480 if len(lives) > 20 else 340, margin_t=24)


def _level(logs: Tensor, power: float) -> tuple[list, list]:
    """Heads and layers at which the half-life is 10^power; logs (layers, heads) rise in even steps from head to head."""
    heads = 1 + (power - logs[:, 0]) / (logs[:, -1] - logs[:, 0]) * (logs.shape[1] - 1)
    layers = [layer for layer, head in enumerate(heads) if 1 <= head <= logs.shape[1]]
    return _numbers(heads[layers]), layers


def weights_over(tokens: Sequence[str], slope: float, title: str):
    """What the last token sees: the weight exp(-slope * distance) of each token, as bars over the tokens' texts."""
    import plotly.graph_objects as go

    weights = [float(torch.exp(torch.tensor(-slope * (len(tokens) - 1 - j)))) for j in range(len(tokens))]
    fig = go.Figure(go.Bar(
        x=list(range(len(tokens))), y=[round(weight, 4) for weight in weights], marker_color=COLOURS["lightning"],
        customdata=list(range(len(tokens) - 1, -1, -1)),
        hovertemplate="%{y:.3f} at distance %{customdata}<extra></extra>",
    ))
    names = [visible(text) for text in tokens]
    fig.update_xaxes(tickvals=list(range(len(tokens))), ticktext=names, tickangle=-60, showgrid=False)
    fig.update_yaxes(title="weight", range=[0, 1.05])
    return fig.update_layout(title=title, height=380, bargap=0.15)


def visible(token: str) -> str:
    """A token's text with its blanks to be seen.

    >>> visible(" is")
    '␣is'
    """
    return token.replace(" ", "␣").replace("\n", "⏎")


def memory(lengths: Sequence[int], similarity: Mapping[str, Tensor], title: str):
    """Similarity of what is recalled to what was stored, (seeds, lengths) for each name."""
    fig = _lines(lengths, similarity)
    fig.update_xaxes(title="pairs stored", type="log", tickvals=list(lengths), ticktext=[str(n) for n in lengths])
    fig.update_yaxes(title="similarity of the answer", range=[-0.35, 1.05])
    return fig.update_layout(title=title)


def sizes(sizes_of: Mapping[str, Tensor]):
    """Size of the output at each token, (T,) for each name, both axes logarithmic."""
    length = len(next(iter(sizes_of.values())))
    chosen = sorted({min(length, round(2 ** (power / 2))) for power in range(0, 2 * length.bit_length() + 1)})
    picked = {name: values[[t - 1 for t in chosen]].view(1, -1) for name, values in sizes_of.items()}
    fig = _lines(chosen, picked)
    fig.update_xaxes(title="token", type="log", dtick=1)
    fig.update_yaxes(title="size of the output (rms)", type="log", dtick=1)
    return fig


def seconds(lengths: Sequence[int], measured: Mapping[str, Sequence[float]]):
    """Seconds against sequence length for each form, both axes logarithmic."""
    fig = _lines(lengths, {name: torch.tensor([list(values)]) for name, values in measured.items()})
    fig.update_xaxes(title="tokens", type="log", tickvals=list(lengths), ticktext=[f"{n:,}" for n in lengths])
    fig.update_yaxes(title="seconds", type="log", dtick=1, tickformat=".0e")
    return fig


def _lines(x: Sequence[float], values_of: Mapping[str, Tensor]):
    """A line for each name: the median over the rows of (rows, points), and the middle half of them as a band."""
    import plotly.graph_objects as go

    fig = go.Figure()
    colours = shades("lightning", len(values_of))
    dashes, markers = ("solid", "dash", "dot", "dashdot"), ("circle", "square", "diamond", "triangle-up")
    for index, (name, values) in enumerate(values_of.items()):
        colour = colours[index]
        low, middle, high = values.float().quantile(torch.tensor([0.25, 0.5, 0.75]), dim=0)
        if len(values) > 1:
            fig.add_scatter(
                x=[*x, *reversed(list(x))], y=_numbers(torch.cat([high, low.flip(0)])), fill="toself", mode="lines",
                line_width=0, fillcolor=colour, opacity=0.15, hoverinfo="skip", showlegend=False,
            )
        fig.add_scatter(
            x=list(x), y=_numbers(middle), name=name, mode="lines+markers", line=dict(color=colour, dash=dashes[index]),
            marker=dict(color=colour, symbol=markers[index]),
        )
    return fig


def _numbers(values: Tensor) -> list:
    """Plain numbers of four digits, None where there is none: a stored figure stays small and the same everywhere."""
    if values.ndim > 1:
        return [_numbers(row) for row in values]
    return [None if value != value else float(f"{value:.4g}") for value in values.tolist()]
