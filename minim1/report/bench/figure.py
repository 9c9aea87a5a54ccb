"""The picture of a stored result: time per token against the length, forward and forward + backward side by side.

A flat line is linear cost; a line that rises with slope 1 is quadratic cost. Ours and softmax
attention have their colours, the other implementations are grey; each line also has a marker and a dash of its own, and
its name at its end, so that the picture can be read in grey and needs no legend.
"""

import importlib.util
import math
from pathlib import Path

from minim1.report.bench.harness import Skip
from minim1.report.palette import COLOURS

STYLES = {  # colour, marker, dash
    "minim1": (COLOURS["lightning"], "circle", "solid"),
    "mine": (COLOURS["text"], "star", "solid"),
    "chunked": ("#4C4C4C", "square", "dot"),
    "HF loop": (COLOURS["grey"], "triangle-up", "dash"),
    "SDPA": (COLOURS["softmax"], "x", "dashdot"),
    "fla chunk": ("#8E8E8E", "diamond", "longdash"),
    "fla fused": ("#A6A6A6", "triangle-down", "longdashdot"),
}
PASSES = ("forward", "forward+backward")
TITLES = {"forward": "Forward", "forward+backward": "Forward + backward"}
LABELS = {"minim1": "minim1", "HF loop": "HF loop (block 256)", "SDPA": "softmax (SDPA)"}


def curves(result: dict) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """{pass: {who: [(length, microseconds per token)]}}, in order of length, of the attention in a stored result."""
    found = {which: {} for which in PASSES}
    for comparison in result["comparisons"]:
        if comparison["benchmark"] == "attention":
            case = comparison["case"]
            for name, timing in comparison["timings"].items():
                per_token = timing["median"] * 1e6 / (case["batch"] * case["length"])
                found[case["pass"]].setdefault(name, []).append((case["length"], per_token))
    return {which: {name: sorted(points) for name, points in lines.items()} for which, lines in found.items()}


def alt_text(result: dict) -> str:
    """What the picture shows, for those who do not see it."""
    place, settings = result["machine"], result["settings"]
    sentences = [
        "Time per token of causal attention against the sequence length, both axes logarithmic, on "
        f"{place['gpu'] or place['cpu']} ({settings['dtype']}, {settings['threads']} thread(s)).",
    ]
    for which, lines in curves(result).items():
        for name, points in lines.items():
            (first, start), (last, end) = points[0], points[-1]
            sentences.append(
                f"{TITLES[which]}, {name}: {start:.3g} µs per token at {first} tokens, {end:.3g} at {last}."
            )
    return " ".join(sentences)


def write_figure(result: dict, folder: Path) -> tuple[list[Path], str | None]:
    """Write attention.html (self-contained), attention.txt (alt text) and attention.svg, which needs kaleido.

    Returns the files and, without the SVG, why. Raises Skip where plotly is missing or nothing was measured.
    """
    drawn = figure(result)
    html, text, svg = (folder / f"attention.{kind}" for kind in ("html", "txt", "svg"))
    html.write_text(drawn.to_html(include_plotlyjs=True), encoding="utf-8")
    text.write_text(alt_text(result) + "\n", encoding="utf-8")
    if importlib.util.find_spec("kaleido") is None:
        return [html, text], "No attention.svg: kaleido is not installed"
    try:
        drawn.write_image(svg)
    except Exception as problem:  # kaleido draws with a browser, which may be missing
        return [html, text], f"No attention.svg: {problem}".partition("\n")[0]
    return [html, text, svg], None


def figure(result: dict):
    """The plotly figure of a stored result."""
    try:
        import plotly.graph_objects as go
        from plotly.subplots import make_subplots
    except ImportError:
        raise Skip("plotly is not installed") from None
    lines = curves(result)
    if not any(lines.values()):
        raise Skip("no attention was measured")
    panels = make_subplots(
        cols=2, shared_yaxes=True, horizontal_spacing=0.2, subplot_titles=[TITLES[which] for which in PASSES]
    )
    values = [value for by_name in lines.values() for points in by_name.values() for _, value in points]
    lengths = sorted({n for by_name in lines.values() for points in by_name.values() for n, _ in points})
    powers = [n for n in lengths if n & (n - 1) == 0]
    ticks = [n for n in powers if (powers[-1].bit_length() - n.bit_length()) % 2 == 0] if len(lengths) > 6 else lengths
    for column, which in enumerate(PASSES, start=1):
        for name, points in lines[which].items():
            colour, marker, dash = STYLES[name]
            panels.add_trace(
                go.Scatter(
                    x=[n for n, _ in points], y=[value for _, value in points], name=LABELS.get(name, name),
                    mode="lines+markers", line=dict(color=colour, dash=dash, width=3 if name == "minim1" else 1.75),
                    marker=dict(symbol=marker, size=8, color=colour),
                ),
                row=1, col=column,
            )
        for name, length, value, height in _labels(lines[which], values):
            panels.add_annotation(
                text=LABELS.get(name, name), x=_log(length), y=height, ax=0, ay=0, xanchor="left", xshift=9,
                showarrow=False, font=dict(color=COLOURS["text"], size=12), row=1, col=column,
            )
        panels.update_xaxes(
            type="log", title_text="tokens N", tickvals=ticks, ticktext=[_short(n) for n in ticks], row=1, col=column,
            range=[_log(lengths[0]) - 0.1, _log(lengths[-1]) + 0.1],
        )
        panels.update_yaxes(type="log", dtick=1, exponentformat="none", showticklabels=True, row=1, col=column)
    panels.update_yaxes(title_text="µs per token", row=1, col=1)
    place, settings = result["machine"], result["settings"]
    where = f"{place['gpu'] or place['cpu']}, {settings['dtype']}"
    where += "" if place["gpu"] else f", {settings['threads']} thread(s)"
    return panels.update_layout(
        template="plotly_white", width=1180, height=460, showlegend=False, margin=dict(l=70, r=150, t=70, b=60),
        title=dict(text=f"Causal attention, time per token: {where}", font=dict(size=15)),
    )


def _labels(lines: dict, values: list[float]):
    """(name, length, value, height) for the end of each line; heights are logarithms, moved apart where they meet."""
    gap = (_log(max(values)) - _log(min(values)) + 0.1) * 0.055
    ends = sorted((points[-1][1], points[-1][0], name) for name, points in lines.items())
    last = float("-inf")
    for value, length, name in ends:
        last = max(_log(value), last + gap)
        yield name, length, value, last


def _log(value: float) -> float:
    return math.log10(value)


def _short(length: int) -> str:
    """
    >>> _short(512), _short(2048), _short(1 << 20)
    ('512', '2k', '1M')
    """
    return f"{length >> 20}M" if length >= 1 << 20 else f"{length >> 10}k" if length >= 1024 else str(length)
