"""The pictures of the claims: lines with the range of the seeds as a band, and points by category. Needs plotly."""

import statistics
from collections.abc import Mapping, Sequence
from itertools import zip_longest

from minim1.report.palette import INKS

Lines = Mapping[str, tuple[Sequence[float], Sequence[Sequence[float]]]]  # name -> x, and y for each seed


def lines(panels: Mapping[str, Lines], looks: Mapping[str, str], *, x: str | Sequence[str], y: str | Sequence[str],
          log: str = "", published: Lines | None = None, shared_y: bool = False):
    """Medians over the seeds as lines, all seeds within the bands, a panel for each entry of `panels`.

    Args: panels: title -> name -> (x, one list of y for each seed; None where there is none); looks: name -> a meaning
        of the palette; x, y: titles of the axes, one for all panels or one for each; log: axes that are logarithmic,
        "x", "y" or "xy"; published: more lines, of the report, in the first panel, drawn thin and grey.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    spacing = 0.3 / max(len(panels), 2) if not shared_y else 0.06
    fig = make_subplots(rows=1, cols=len(panels), subplot_titles=list(panels), horizontal_spacing=spacing,
                        shared_yaxes=shared_y)
    named = set()
    for column, entries in enumerate(panels.values(), 1):
        for name, (places, seeds) in entries.items():
            colour, dash, symbol = INKS[looks[name]]
            points = [(at, [v for v in each if v is not None]) for at, each in zip(places, zip_longest(*seeds))]
            points = [(at, each) for at, each in points if each]
            where, low, high = [at for at, _ in points], [min(v) for _, v in points], [max(v) for _, v in points]
            if len(seeds) > 1:
                fig.add_trace(go.Scatter(
                    x=[*where, *reversed(where)], y=[*high, *reversed(low)], fill="toself", line=dict(width=0),
                    mode="lines", fillcolor=_pale(colour), hoverinfo="skip", showlegend=False, legendgroup=name),
                    row=1, col=column)
            fig.add_trace(go.Scatter(
                x=where, y=[statistics.median(v) for _, v in points], name=name, legendgroup=name,
                showlegend=name not in named, mode="lines+markers", line=dict(color=colour, dash=dash),
                marker=dict(symbol=symbol, size=7)), row=1, col=column)
            named.add(name)
        fig.update_xaxes(title=x if isinstance(x, str) else x[column - 1], row=1, col=column)
        if column == 1 or not shared_y:
            fig.update_yaxes(title=y if isinstance(y, str) else y[column - 1], row=1, col=column)
    for name, (places, seeds) in (published or {}).items():
        fig.add_trace(go.Scatter(x=list(places), y=list(seeds[0]), name=f"{name}, the report's", mode="lines",
                                 line=dict(color=INKS["grey"][0], width=1, dash="dot")), row=1, col=1)
    if "x" in log:
        fig.update_xaxes(type="log", tickformat="~s", dtick=1)
    if "y" in log:
        fig.update_yaxes(type="log", exponentformat="power", dtick=1)
    return _laid_out(fig)


def points(groups: Mapping[str, Mapping[str, Sequence[float]]], looks: Mapping[str, str], *, y: str, log: bool = False,
           published: Mapping[str, float] | None = None, tickformat: str | None = None):
    """Every seed as a point, by category along x; a short line at the median.

    Args: groups: name (a colour each) -> category -> values of the seeds; published: a category's value in the report,
        drawn as a star; log: of the y axis.
    """
    import plotly.graph_objects as go

    fig = go.Figure()
    for name, categories in groups.items():
        colour, _, symbol = INKS[looks[name]]
        flat = [(category, value) for category, found in categories.items() for value in found]
        fig.add_scatter(x=[c for c, _ in flat], y=[v for _, v in flat], name=name, mode="markers",
                        marker=dict(color=colour, symbol=symbol, size=10, opacity=0.75))
        fig.add_scatter(x=list(categories), y=[statistics.median(found) for found in categories.values()], name=name,
                        mode="markers", showlegend=False, hoverinfo="skip",
                        marker=dict(symbol="line-ew", size=26, line=dict(color=colour, width=2)))
    if published:
        fig.add_scatter(x=list(published), y=list(published.values()), name="the report's", mode="markers",
                        marker=dict(symbol="star-open", size=15, color=INKS["text"][0], line=dict(width=1.5)))
    fig.update_yaxes(title=y, type="log" if log else "linear", tickformat=tickformat)
    if log:
        fig.update_yaxes(exponentformat="power", dtick=1)
    return _laid_out(fig)


def _laid_out(fig):
    fig.update_xaxes(automargin=True)
    fig.update_yaxes(automargin=True)
    return fig.update_layout(template="plotly_white", width=900, height=400, font=dict(size=13),
                             margin=dict(l=70, r=20, t=50, b=60), legend=dict(orientation="h", y=-0.25, x=0))


def _pale(colour: str) -> str:
    channels = ",".join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))
    return f"rgba({channels},0.2)"
