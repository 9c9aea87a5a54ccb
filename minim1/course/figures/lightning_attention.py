"""The figures of chapter 04. Each function takes the numbers it draws and returns a plotly figure, for `show`."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import minim1
from minim1.course.look import COLOURS, shades, style

INSIDE, STATE = "pairs inside a block", "through the state"  # the two ways to a token's output, named alike everywhere


def weights(length: int, block: int, decay: float, documents: Sequence[int] | None = None):
    """Who reads whom: the (length, length) weights, squares inside blocks and circles through the state.

    The darker and larger, the heavier. documents: the document of each token; weights between documents are 0.
    """
    import plotly.graph_objects as go

    documents = [0] * length if documents is None else list(documents)
    fig = go.Figure()
    for name, symbol, largest in ((INSIDE, "square", 19), (STATE, "circle", 17)):
        pairs = [
            (i, j) for i in range(length) for j in range(i + 1)
            if (i // block == j // block) == (name == INSIDE) and documents[i] == documents[j]
        ]
        values = [decay ** (i - j) for i, j in pairs]
        fig.add_scatter(
            x=[j for _, j in pairs], y=[i for i, _ in pairs], name=name, mode="markers",
            customdata=[round(w, 4) for w in values],
            hovertemplate="token %{y} reads token %{x}: %{customdata}<extra></extra>",
            marker=dict(
                symbol=symbol, size=[round(largest * (0.35 + 0.65 * w), 1) for w in values],
                color=COLOURS["lightning"] if name == INSIDE else "white",
                opacity=[round(0.4 + 0.6 * w, 2) for w in values] if name == INSIDE else 1,
                line=dict(color=COLOURS["lightning"], width=0 if name == INSIDE else 2.5),
            ),
        )
    for edge in range(block, length, block):
        for line in (dict(x0=-0.5, x1=length - 0.5, y0=edge - 0.5, y1=edge - 0.5),
                     dict(x0=edge - 0.5, x1=edge - 0.5, y0=-0.5, y1=length - 0.5)):
            fig.add_shape(type="line", line=dict(color=COLOURS["grey"], width=1), **line)
    for edge in (t for t in range(1, length) if documents[t] != documents[t - 1]):
        fig.add_shape(
            type="line", x0=-0.5, x1=length - 0.5, y0=edge - 0.5, y1=edge - 0.5,
            line=dict(color=COLOURS["text"], width=3, dash="dash")
        )
    ticks = dict(range=[-0.6, length - 0.4], tickvals=list(range(length)), showgrid=False)
    fig.update_xaxes(title="token that is read", constrain="domain", **ticks)
    fig.update_yaxes(title="token that reads", scaleanchor="x", **ticks | dict(range=[length - 0.4, -0.6]))
    return fig.update_layout(height=560, legend=dict(orientation="h", y=1.08, x=0, itemsizing="constant"))


def reach(slope: float, block: int, dim: int = 128):
    """Left: of what a token at each place of a block can read in a long text, the share that comes through the state.
    Right: multiply-adds per token and head, of the pairs inside a block and of the state (see `cost`)."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    places = sorted({round(p * (block - 1) / 63) for p in range(64)})
    through = [math.exp(-slope * (i + 1)) for i in places]
    mean = sum(math.exp(-slope * (i + 1)) for i in range(block)) / block
    fig = make_subplots(
        rows=1, cols=2, column_widths=[0.64, 0.36], horizontal_spacing=0.14,
        subplot_titles=[f"share through the state, {mean:.0%} on average", "cost per token"],
    )
    fig.add_trace(go.Scatter(
        x=places, y=[round(x, 4) for x in through], fill="tozeroy", name=STATE, showlegend=False,
        line=dict(color=COLOURS["lightning"]),
        hovertemplate="token %{x} of its block: %{y:.1%}<extra></extra>",
    ), row=1, col=1)
    pairs, state = cost(block, dim)
    fig.add_trace(go.Bar(
        x=["pairs", "state"], y=[pairs, state], showlegend=False, text=[f"{pairs:,}", f"{state:,}"],
        textposition="outside",
        marker=dict(color=shades("lightning", 2), line=dict(color=COLOURS["text"], width=1)),
        hovertemplate="%{x}: %{y:,}<extra></extra>",
    ), row=1, col=2)
    fig.update_xaxes(title="place in the block", row=1, col=1)
    fig.update_yaxes(title="of all that the token reads", range=[0, 1.05], tickformat=".0%", row=1, col=1)
    fig.update_yaxes(title="multiply-adds", range=[0, 1.2 * max(pairs, state)], row=1, col=2)
    return fig.update_layout(height=380)


def cost(block: int, dim: int) -> tuple[int, int]:
    """Multiply-adds per token and head: scores and values of a block's pairs, reading and updating the state.

    >>> cost(256, 128)
    (65536, 32768)
    """
    return 2 * block * dim, 2 * dim * dim


def block_sizes(seconds: Mapping[int, float], length: int, dim: int):
    """Measured time per token against the block length, and the cost model, scaled to touch it from below."""
    import plotly.graph_objects as go

    blocks = list(seconds)
    measured = [1e6 * seconds[b] / length for b in blocks]
    model = [sum(cost(b, dim)) for b in blocks]
    scale = min(y / z for y, z in zip(measured, model))
    fig = go.Figure()
    fig.add_scatter(x=blocks, y=[float(f"{y:.4g}") for y in measured], name="measured", mode="lines+markers",
                    **style("lightning"))
    fig.add_scatter(
        x=blocks, y=[float(f"{scale * y:.4g}") for y in model], name="2 B d + 2 d², scaled to touch",
        mode="lines+markers", **style("grey")
    )
    fig.update_xaxes(title="block length", type="log", tickvals=blocks, ticktext=[str(b) for b in blocks])
    fig.update_yaxes(title="µs per token", type="log", **_plain(measured + [scale * y for y in model]))
    return fig.update_layout(legend=dict(orientation="h", y=1.1, x=0))


def committed(name: str = "bench-cpu-attention") -> dict:
    """The stored benchmark: {"machine", "threads", "crossover", pass: {entry: {length: seconds}}}."""
    folder = Path(minim1.__file__).parent / "report" / "results"
    stored = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    found = {"machine": stored["machine"], "threads": stored["settings"]["threads"], "crossover": stored["crossover"]}
    for row in stored["comparisons"]:
        for entry, timing in row["timings"].items():
            found.setdefault(row["case"]["pass"], {}).setdefault(entry, {})[row["case"]["length"]] = timing["median"]
    return found


def times(stored: Mapping[str, Mapping[int, float]], live: Mapping[str, Mapping[int, float]] | None = None):
    """Seconds against length, both logarithmic: stored medians as lines, those of this machine as open markers."""
    import plotly.graph_objects as go

    fig, looks = go.Figure(), {"lightning": style("lightning"), "softmax": style("softmax")}
    for name, values in stored.items():
        fig.add_scatter(
            x=list(values), y=[float(f"{1e3 * y:.4g}") for y in values.values()], name=f"{name}, stored",
            mode="lines+markers", **looks[name]
        )
    for name, values in (live or {}).items():
        look = looks[name]["marker"]
        fig.add_scatter(
            x=list(values), y=[float(f"{1e3 * y:.4g}") for y in values.values()], name=f"{name}, here", mode="markers",
            marker=dict(symbol=look["symbol"] + "-open", color=look["color"], size=14, line=dict(width=2)),
        )
    lengths = sorted(next(iter(stored.values())))
    chosen = [n for n in lengths if n in (64, 512, 2048, 8192, 32768, 131072)]
    fig.update_xaxes(title="tokens", type="log", tickvals=chosen, ticktext=[f"{n:,}" for n in chosen])
    ticks = _plain([1e3 * y for values in stored.values() for y in values.values()])
    fig.update_yaxes(title="milliseconds", type="log", **ticks)
    return fig.update_layout(legend=dict(orientation="h", y=1.14, x=0), height=440)


def timeline(ranks: int = 4):
    """Who waits for whom, in arbitrary units: own piece, exchange and mending of each rank, with LASP and LASP+."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    own, exchange, mend = 4, 1, 1
    names = [f"rank {rank}" for rank in range(ranks)]
    known = {1: [own + rank * exchange for rank in range(ranks)],
             2: [own + exchange] * ranks}  # row -> when a rank has its state
    fig = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.16, subplot_titles=[
        "LASP: each rank waits for the one before it", "LASP+: one exchange of all with all"])
    dark, light = shades("lightning", 2)
    for row, times in known.items():
        for name, colour, pattern, start, length in (
            ("its own piece", dark, "", [0] * ranks, [own] * ranks),
            ("exchange", COLOURS["grey"], "/", [max(t - exchange, own) for t in times],
             [exchange if t > own else 0 for t in times]),
            ("adds what the state gives", light, "", times, [mend if rank else 0 for rank in range(ranks)]),
        ):
            fig.add_trace(go.Bar(
                y=names, x=length, base=start, orientation="h", name=name, legendgroup=name, showlegend=row == 1,
                hoverinfo="skip",
                marker=dict(color=colour, pattern=dict(shape=pattern, bgcolor=colour, fgcolor="white", size=7),
                            line=dict(color=COLOURS["text"], width=1)),
            ), row=row, col=1)
    fig.update_yaxes(autorange="reversed", showgrid=False)
    fig.update_xaxes(range=[0, own + ranks + 0.5], showticklabels=False, ticks="")
    fig.update_xaxes(title="time", row=2, col=1)
    return fig.update_layout(barmode="overlay", height=460, legend=dict(orientation="h", y=1.16, x=0))


def _plain(values: Sequence[float]) -> dict:
    """Ticks of a logarithmic axis at 1, 2, 5 times powers of ten; powers alone where there would be many."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    factors = (1, 2, 5) if high - low <= 3 else (1,)
    ticks = [factor * 10.0**power for power in range(low, high + 1) for factor in factors]
    return dict(tickvals=ticks, ticktext=[f"{tick:,g}" for tick in ticks])
