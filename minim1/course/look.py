"""How does it look? One plotly template, a style for every meaning, and `show(fig, alt)`."""

import functools
import json

from minim1.errors import UserError
from minim1.report.palette import COLOURS, INKS

_FONT = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif"
HEIGHT = 400  # pixels, unless a figure says otherwise; its width is that of the page
PLOTLY = "application/vnd.plotly.v1+json"


def style(meaning: str) -> dict:
    """Colour, dashes and marker of a meaning, for a plotly line.

    >>> style("softmax")
    {'line': {'color': '#D55E00', 'dash': 'dash'}, 'marker': {'color': '#D55E00', 'symbol': 'square'}}
    """
    colour, dash, symbol = _ink(meaning)
    return {"line": {"color": colour, "dash": dash}, "marker": {"color": colour, "symbol": symbol}}


def shades(meaning: str, count: int) -> list[str]:
    """`count` shades of a colour from dark to light, for things in order (heads, layers, steps).

    >>> shades("lightning", 2)
    ['#004972', '#99c7e0']
    """
    channels = [int(_ink(meaning)[0][i:i + 2], 16) for i in (1, 3, 5)]
    dark, light = [0.64 * c for c in channels], [c + 0.6 * (255 - c) for c in channels]  # 36 % black, 60 % white
    steps = [index / max(count - 1, 1) for index in range(count)]
    return ["#" + "".join(f"{round(d + step * (l - d)):02x}" for d, l in zip(dark, light)) for step in steps]


@functools.cache
def template():
    """The course's plotly template; about 1 kB where plotly's own takes 7."""
    import plotly.graph_objects as go

    line, ink = COLOURS["grey"], COLOURS["text"]
    axis = dict(automargin=True, showgrid=True, gridcolor="#E4E4E4", zeroline=False, showline=True, linecolor=line,
                ticks="outside", tickcolor=line, title=dict(standoff=8, font=dict(size=14)))
    # No automargin for titles: in static pictures it moves the curves, but not the ticks, by a line's height.
    title = dict(font=dict(size=16), x=0, xref="paper", xanchor="left", y=1, yanchor="top", pad=dict(t=10, b=10))
    blues = [[0, "#FFFFFF"], [0.5, "#6FA8D6"], [1, "#00335A"]]  # one hue, ever darker: the same order in grey
    diverging = [[0, COLOURS["softmax"]], [0.5, "#FFFFFF"], [1, COLOURS["lightning"]]]
    return go.layout.Template(
        layout=dict(
            font=dict(family=_FONT, size=14, color=ink), title=title, margin=dict(l=64, r=24, t=32, b=56),
            paper_bgcolor="white", plot_bgcolor="white", hovermode="closest", xaxis=axis, yaxis=axis,
            colorway=[colour for name, colour in COLOURS.items() if name not in ("highlight", "grey")],
            colorscale=dict(sequential=blues, sequentialminus=blues[::-1], diverging=diverging),
            legend=dict(bgcolor="rgba(255,255,255,0.8)"),
        ),
        data=dict(
            heatmap=[dict(colorscale=blues, colorbar=dict(outlinewidth=0, thickness=14))],
            scatter=[dict(line=dict(width=2.5), marker=dict(size=8))],
        ),
    )


def dress(fig):
    """Give a plotly figure the course's look, and room for its title if it has one; returns it."""
    if fig.layout.title.text and fig.layout.margin.t is None:
        fig.update_layout(margin_t=64)
    return fig.update_layout(template=template(), height=fig.layout.height or HEIGHT)


def bundle(fig, alt: str) -> tuple[dict, dict]:
    """A plotly figure as a mime bundle and its metadata, which carries the alt text.

    Raises `UserError` on an empty alt text.
    """
    if not alt.strip():
        raise UserError("the alt text of a figure is empty; say in a sentence what the figure shows")
    drawing = {**json.loads(dress(fig).to_json()), "config": {"displaylogo": False, "responsive": True}}
    return {PLOTLY: drawing, "text/plain": alt}, {kind: {"alt": alt} for kind in ("image/svg+xml", "image/png")}


def show(fig, alt: str) -> None:
    """Display a plotly figure in the course's look; `alt` says in a sentence or two what it shows."""
    from IPython.display import display

    data, metadata = bundle(fig, alt)
    display(data, metadata=metadata, raw=True)


def _ink(meaning: str) -> tuple[str, str, str]:
    if meaning not in INKS:
        raise UserError(f"{meaning!r} has no colour; choose one of {', '.join(INKS)}")
    return INKS[meaning]
