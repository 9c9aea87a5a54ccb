"""The figures of chapter 07. Each function takes the numbers it draws and returns a plotly figure, for `show`."""

from collections.abc import Mapping, Sequence

from minim1.course.look import COLOURS, shades, style

FIRST, SECOND = "first choice", "second choice"
ABOVE = dict(orientation="h", y=1.03, yanchor="bottom", x=0)  # a legend, of two rows where the page is narrow
DASHES, SYMBOLS = ("solid", "dash", "dot", "dashdot"), ("circle", "square", "diamond", "triangle-up")


def sorting(expert_ids: Sequence[Sequence[int]], experts: int):
    """Token copies in the order of the tokens (left) and grouped by expert (right), a line for each copy.

    expert_ids: (N, K). Shade, dash and marker say which expert a line belongs to.
    """
    import plotly.graph_objects as go

    copies = [(expert, token) for token, row in enumerate(expert_ids) for expert in row]
    order = sorted(range(len(copies)), key=lambda c: copies[c][0])
    colours, fig, per_token = shades("expert", experts), go.Figure(), len(expert_ids[0])
    for place, copy in enumerate(order):
        expert, token = copies[copy]
        fig.add_scatter(
            x=[0, 1], y=[copy + 0.5 * token, place + 0.5 * expert], mode="lines+markers", showlegend=False,
            line=dict(color=colours[expert], width=2.5, dash=DASHES[expert % 4]),
            marker=dict(size=11, color=colours[expert], symbol=SYMBOLS[expert % 4]),
            hovertemplate=f"token {token} to expert {expert}<extra></extra>",
        )
    for token in range(len(expert_ids)):
        middle = token * per_token + (per_token - 1) / 2 + 0.5 * token
        fig.add_annotation(x=-0.03, y=middle, text=f"token {token}", xanchor="right", showarrow=False)
    for expert in range(experts):
        places = [place for place, copy in enumerate(order) if copies[copy][0] == expert]
        if places:
            middle = sum(places) / len(places) + 0.5 * expert
            text = f"expert {expert}: {len(places)}"
            fig.add_annotation(x=1.03, y=middle, text=text, xanchor="left", showarrow=False)
    fig.update_xaxes(visible=False, range=[-0.3, 1.35])
    fig.update_yaxes(visible=False, autorange="reversed")
    return fig.update_layout(height=430)


def loads(runs: Mapping[str, Sequence[Mapping]]):
    """Each expert's share of the token copies over the steps, a shaded row for each expert, one panel a run.

    runs: name -> records {"step", "load": (E,)}. The darker, the busier; half of all copies is the most that there is.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    fig = make_subplots(rows=len(runs), cols=1, shared_xaxes=True, vertical_spacing=0.1, subplot_titles=list(runs))
    for row, records in enumerate(runs.values(), start=1):
        steps, shares = [r["step"] for r in records], list(zip(*(r["load"] for r in records)))
        fig.add_trace(go.Heatmap(
            x=steps, z=[[round(x, 3) for x in share] for share in shares], y=list(range(len(shares))), zmin=0, zmax=0.5,
            coloraxis="coloraxis", ygap=2, hovertemplate="expert %{y}, step %{x}: %{z:.0%}<extra></extra>",
        ), row=row, col=1)
    fig.update_yaxes(tickvals=[0, len(shares) - 1], showgrid=False, autorange="reversed")
    fig.update_yaxes(title="expert", row=(len(runs) + 1) // 2, col=1)
    fig.update_xaxes(title="step", row=len(runs), col=1)
    bar = dict(title="share of copies", tickformat=".0%", outlinewidth=0, thickness=14)
    return fig.update_layout(coloraxis=dict(colorscale=[[0, "#FFFFFF"], [0.5, "#6FA8D6"], [1, "#00335A"]], cmin=0,
                                            cmax=0.5, colorbar=bar), height=150 * len(runs) + 80)


def dropped(factors: Sequence[float], shares: Mapping[str, Sequence[float]]):
    """Share of token copies that find no room against the capacity factor. Up to three curves: name -> shares."""
    import plotly.graph_objects as go

    fig = go.Figure()
    for (name, values), look in zip(shares.items(), ("expert", "text", "grey")):
        fig.add_scatter(x=list(factors), y=[round(y, 4) for y in values], name=name, mode="lines+markers",
                        **style(look))
    fig.update_xaxes(title="capacity factor (room for each expert, in units of an even load)")
    fig.update_yaxes(title="copies dropped", tickformat=".0%", rangemode="tozero")
    return fig.update_layout(legend=ABOVE, margin_t=80)


def routes(tokens: Sequence[str], expert_ids: Sequence[Sequence[int]], experts: int, title: str = ""):
    """Which two experts each token of a text asks: a filled mark for the first choice, an open one for the second.

    expert_ids: (T, 2), the one with the larger weight first. Tokens run from left to right.
    """
    import plotly.graph_objects as go

    places, fig = list(range(len(tokens))), go.Figure()
    for slot, (name, symbol) in enumerate(((FIRST, "square"), (SECOND, "square-open"))):
        fig.add_scatter(
            x=places, y=[row[slot] for row in expert_ids], mode="markers", name=name,
            marker=dict(symbol=symbol, size=15, color=COLOURS["expert"], line=dict(width=2.5, color=COLOURS["expert"])),
            customdata=list(tokens), hovertemplate="%{customdata}: expert %{y}, " + name + "<extra></extra>",
        )
    fig.update_xaxes(tickvals=places, ticktext=list(tokens), tickangle=-90, showgrid=False,
                     range=[-0.7, len(tokens) - 0.3])
    fig.update_yaxes(title="expert", tickvals=list(range(experts)), range=[experts - 0.5, -0.5])
    return fig.update_layout(height=360, legend=dict(orientation="h", y=1.14, x=0), title=title or None)


def information(bits: Mapping[str, Sequence[float]]):
    """Bits that a layer's first choice tells of the token's class: name -> one number a layer, for four models."""
    import plotly.graph_objects as go

    fig = go.Figure()
    looks = style("expert"), style("grey"), style("grey"), style("text")
    for (name, values), look, symbol in zip(bits.items(), looks, ("diamond", "circle-open", "square-open", "circle")):
        fig.add_scatter(x=list(range(len(values))), y=[round(y, 3) for y in values], name=name, mode="lines+markers",
                        line=look["line"], marker=dict(color=look["marker"]["color"], symbol=symbol, size=9))
    fig.update_xaxes(title="layer", dtick=1)
    fig.update_yaxes(title="bits about the class", rangemode="tozero")
    return fig.update_layout(legend=ABOVE, margin_t=80)
