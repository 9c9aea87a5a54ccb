"""One look: the palette survives colour blindness and grey, and every figure carries its alt text."""

import json
from itertools import combinations

import pytest

from minim1.course.look import COLOURS, PLOTLY, bundle, dress, shades, show, style, template
from minim1.errors import UserError

go = pytest.importorskip("plotly.graph_objects")
LINES = [name for name in COLOURS if name not in ("highlight", "text", "grey")]
BLINDNESS = {  # linear RGB as seen without one kind of cone (Viénot, Brettel and Mollon 1999)
    "all cones": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "no red cone": ((0.11238, 0.88762, 0), (0.11238, 0.88762, 0), (0.00401, -0.00401, 1)),
    "no green cone": ((0.29275, 0.70725, 0), (0.29275, 0.70725, 0), (-0.02234, 0.02234, 1)),
}


def linear(colour):
    channels = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]


def lab(rgb):
    """CIE L*a*b* of linear RGB: distances are about what the eye sees."""
    to_xyz = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    x, y, z = (sum(m * max(c, 0) for m, c in zip(row, rgb)) / white for row, white in zip(to_xyz, (0.9505, 1, 1.089)))
    x, y, z = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x, y, z))
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("eye", BLINDNESS)
def test_any_two_line_colours_differ_to_every_eye(eye):
    seen = {
        name: lab([sum(m * c for m, c in zip(row, linear(COLOURS[name]))) for row in BLINDNESS[eye]]) for name in LINES
    }
    for one, other in combinations(LINES, 2):
        distance = sum((a - b) ** 2 for a, b in zip(seen[one], seen[other])) ** 0.5
        assert distance > 14, f"{one} and {other}: {distance:.1f}"


def test_lines_can_be_told_apart_without_colour():
    looks = [(style(name)["line"]["dash"], style(name)["marker"]["symbol"]) for name in LINES]
    assert len({dash for dash, _ in looks}) == len({symbol for _, symbol in looks}) == len(LINES)


def contrast_with_white(colour):
    return 1.05 / (lab_y(linear(colour)) + 0.05)


def lab_y(rgb):
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), rgb))


def test_text_and_grey_are_readable_on_white():
    assert contrast_with_white(COLOURS["text"]) > 7 and contrast_with_white(COLOURS["grey"]) >= 4.5


def test_shades_are_ordered_in_grey_and_stay_visible():
    brightness = [lab(linear(shade))[0] for shade in shades("lightning", 8)]
    assert brightness == sorted(brightness) and len(set(brightness)) == 8 and brightness[-1] < 85
    assert shades("softmax", 1) == shades("softmax", 3)[:1]


def test_an_unknown_meaning_is_refused():
    with pytest.raises(UserError, match="'linear' has no colour; choose one of lightning"):
        style("linear")


def test_the_template_is_a_fraction_of_plotlys():
    assert len(json.dumps(template().to_plotly_json())) < 1500
    data, _ = bundle(go.Figure(go.Scatter(y=[1, 2])), "A line.")
    assert len(json.dumps(data)) < 2200


def test_heatmaps_grow_darker():
    scale = template().layout.colorscale.sequential
    brightness = [lab(linear(colour))[0] for _, colour in scale]
    assert brightness == sorted(brightness, reverse=True)


def test_show_displays_the_figure_with_its_alt_text_and_nothing_remote(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **options: shown.append((data, options)))
    show(go.Figure(go.Scatter(y=[1, 2]), layout=dict(height=250)), "A line from 1 to 2.")
    (data, options), = shown
    assert options["raw"] and data["text/plain"] == "A line from 1 to 2."
    assert options["metadata"] == {kind: {"alt": "A line from 1 to 2."} for kind in ("image/svg+xml", "image/png")}
    assert data[PLOTLY]["data"][0]["y"] == [1, 2] and data[PLOTLY]["layout"]["height"] == 250
    assert "http" not in json.dumps(data)


@pytest.mark.parametrize("alt", ["", "  \n"])
def test_an_empty_alt_text_is_refused(alt):
    with pytest.raises(UserError, match="alt text of a figure is empty"):
        show(go.Figure(), alt)


def test_a_title_gets_room_and_moves_no_curve():
    """plotly's automargin of titles draws curves against the wrong ticks in static pictures."""
    import plotly.graph_objects as go

    titled = dress(go.Figure(layout=dict(title="what it shows")))
    assert titled.layout.margin.t == 64 and dress(go.Figure()).layout.margin.t is None
    assert not template().layout.title.automargin
    assert dress(go.Figure(layout=dict(title="two<br>lines", margin=dict(t=100)))).layout.margin.t == 100
