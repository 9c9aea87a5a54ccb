"""The figures of chapter 01. Each function takes what it draws and returns a plotly figure, for `show`."""

from collections.abc import Mapping, Sequence

from minim1.course.look import COLOURS, style

_LINE = "#333333"  # borders
LOOKS = {  # what a box of text means -> fill, letters, border: told apart by lightness and border, so also in grey
    "1 byte": ("#FFFFFF", COLOURS["text"], 1),
    "2 bytes": ("#DCE9F3", COLOURS["text"], 1),
    "3 or 4 bytes": ("#A8CBE5", COLOURS["text"], 1),
    "5 bytes or more": ("#1F5C8B", "#FFFFFF", 1),
    "read": ("#FFFFFF", COLOURS["text"], 1),
    "read, control token": ("#FFFFFF", COLOURS["text"], 3),
    "trained on": ("#2F6B96", "#FFFFFF", 1),
    "trained on, control token": ("#2F6B96", "#FFFFFF", 3),
}
COLUMNS = 76  # letters in a line


def visible(text: str) -> str:
    """A token's text with its white space made visible.

    >>> visible(" a\\n")
    '·a↵'
    """
    return text.replace(" ", "·").replace("\n", "↵").replace("\t", "→")


def by_length(tokens: Sequence[str]) -> list[str]:
    """The look of each token by its length in bytes.

    >>> by_length(["a", "€"])
    ['1 byte', '3 or 4 bytes']
    """
    names = list(LOOKS)
    return [names[(n > 1) + (n > 2) + (n > 4)] for n in (len(token.encode()) for token in tokens)]


def boxes(tokens: Sequence[str], looks: Sequence[str], notes: Sequence[str] | None = None, title: str = ""):
    """A text as a row of boxes, one for each token, broken into lines.

    Args: tokens: their texts; looks: a key of LOOKS for each; notes: what to say of each under the pointer.
    A line ends where it is full, after a token that ends with a line break, and before one that goes on behind it.
    """
    import plotly.graph_objects as go

    labels, places, line, column = [visible(token) for token in tokens], [], 0, 0
    for token, label in zip(tokens, labels):
        opens = token.startswith("\n") and not token.endswith("\n")
        if column and (opens or column + len(label) + 1 > COLUMNS):
            line, column = line + 1, 0
        places.append((line, column, column + len(label) + 0.8))
        line, column = (line + 1, 0) if token.endswith("\n") else (line, column + len(label) + 1)
    lines = max((row for row, _, _ in places), default=0) + 1
    fig = go.Figure()
    for look in [name for name in LOOKS if name in looks]:
        fill, _, border = LOOKS[look]
        corners = [
            [(left, row - 0.38), (right, row - 0.38), (right, row + 0.38), (left, row + 0.38), (left, row - 0.38),
             (None, None)]
            for (row, left, right), own in zip(places, looks) if own == look
        ]
        fig.add_scatter(
            x=[x for box in corners for x, _ in box], y=[y for box in corners for _, y in box], mode="lines",
            fill="toself", fillcolor=fill, hoverinfo="skip", showlegend=False, line=dict(color=_LINE, width=border),
        )
        fig.add_scatter(x=[None], y=[None], name=look, mode="markers",
                        marker=dict(symbol="square", size=14, color=fill, line=dict(color=_LINE, width=border)))
    fig.add_scatter(
        x=[round((left + right) / 2, 1) for _, left, right in places], y=[row for row, _, _ in places], text=labels,
        mode="text", showlegend=False, hoverinfo="text" if notes else "skip", hovertext=notes,
        textfont=dict(family="monospace", size=12, color=[LOOKS[look][1] for look in looks]),
    )
    fig.update_xaxes(visible=False, range=[-0.5, COLUMNS + 1])
    fig.update_yaxes(visible=False, range=[lines - 0.4, -0.6])
    return fig.update_layout(
        title=title, height=96 + 29 * lines, margin=dict(l=8, r=8, t=80 if title else 52, b=8),
        legend=dict(orientation="h", x=0, y=1, yanchor="bottom"),
    )


def lengths(curves: Mapping[str, Mapping[int, float]], tables: Mapping[int, float]):
    """What merges bring and cost. Left: bytes per token against merges; right: numbers in the two tables of the
    vocabulary, in millions.

    Args: curves: name of a text -> {merges: bytes per token}; tables: {merges: millions}.
    """
    from plotly.subplots import make_subplots

    fig = make_subplots(rows=1, cols=2, horizontal_spacing=0.14,
                        subplot_titles=["what they bring: longer tokens", "what they cost: larger tables"])
    for (name, values), look in zip(curves.items(), ("text", "grey")):
        fig.add_scatter(x=[f"{m:,}" for m in values], y=[round(y, 3) for y in values.values()], name=name,
                        mode="lines+markers", row=1, col=1, **style(look))
    fig.add_bar(x=[f"{m:,}" for m in tables], y=[round(y, 4) for y in tables.values()], showlegend=False,
                text=[f"{y:.2f}" for y in tables.values()], textposition="outside",
                marker=dict(color=COLOURS["grey"], line=dict(color=COLOURS["text"], width=1)), row=1, col=2)
    fig.update_xaxes(title="merges", type="category")
    fig.update_yaxes(title="bytes per token", rangemode="tozero", row=1, col=1)
    fig.update_yaxes(title="million numbers", range=[0, 1.15 * max(tables.values())], row=1, col=2)
    return fig.update_layout(height=400, margin=dict(t=80), legend=dict(orientation="h", y=1.22, x=0))


def bits(rows: Mapping[str, Mapping[int, Sequence[tuple[float, float]]]]):
    """The same predictions counted twice: bits per token (left) and bits per byte (right), against the vocabulary.

    Args: rows: name of a model -> {vocabulary size: [(bits per token, bits per byte) of each training text]}. Lines are
        means, bars reach from the lowest to the highest.
    """
    from plotly.subplots import make_subplots

    fig = make_subplots(rows=1, cols=2, horizontal_spacing=0.12, subplot_titles=["bits per token", "bits per byte"])
    for (name, found), look in zip(rows.items(), ("grey", "text")):
        for column in (0, 1):
            values = [[pair[column] for pair in pairs] for pairs in found.values()]
            means = [sum(v) / len(v) for v in values]
            fig.add_scatter(
                x=[f"{n:,}" for n in found], y=[round(m, 3) for m in means], name=name, showlegend=column == 0,
                mode="lines+markers",
                error_y=dict(array=[round(max(v) - m, 4) for v, m in zip(values, means)],
                             arrayminus=[round(m - min(v), 4) for v, m in zip(values, means)], width=5),
                row=1, col=column + 1, **style(look),
            )
    fig.update_xaxes(title="tokens in the vocabulary", type="category")
    fig.update_yaxes(rangemode="tozero")
    return fig.update_layout(height=420, margin=dict(t=80), legend=dict(orientation="h", y=1.22, x=0))
