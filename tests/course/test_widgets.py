"""`explore`: sliders redraw the figure, and where no widget can live the same output shows a picture."""

import json

import pytest

from minim1.course.look import PLOTLY
from minim1.course.widgets import WIDGET, explore
from minim1.errors import UserError

go = pytest.importorskip("plotly.graph_objects")
pytest.importorskip("ipywidgets")


def draw(slope=0.5, heads=2, kind="decay", log=False):
    figure = go.Figure()
    for head in range(heads):
        figure.add_scatter(y=[slope, slope * (head + 1)], name=kind)
    if heads == 4:
        raise ZeroDivisionError("no figure for <4>")
    if heads == 3:
        figure.add_hline(y=1)
    return figure.update_layout(title=f"{kind} {slope}", yaxis_type="log" if log else "linear")


@pytest.fixture
def shown(monkeypatch):
    found = []
    monkeypatch.setattr("IPython.display.display", lambda data, **options: found.append((data, options)))
    return found


@pytest.fixture
def explorer(shown):
    return explore(draw, alt="Two lines.", slope=(0.0, 1.0, 0.125), heads=(1, 5), kind=["decay", "state"], log=False)


def test_moving_a_slider_redraws_the_figure_in_place(explorer):
    ids = [trace.uid for trace in explorer.figure.data]
    explorer.controls["slope"].value = 0.75
    assert list(explorer.figure.data[1].y) == [0.75, 1.5] and explorer.figure.layout.title.text == "decay 0.75"
    assert [trace.uid for trace in explorer.figure.data] == ids
    explorer.controls["kind"].value = "state"
    assert explorer.figure.data[0].name == "state"
    explorer.controls["log"].value = True
    assert explorer.figure.layout.yaxis.type == "log"


def test_traces_and_shapes_come_and_go(explorer):
    explorer.controls["heads"].value = 3
    assert len(explorer.figure.data) == 3 and len(explorer.figure.layout.shapes) == 1
    explorer.controls["heads"].value = 1
    assert len(explorer.figure.data) == 1 and len(explorer.figure.layout.shapes) == 0
    assert explorer.figure.layout.template.layout.plot_bgcolor == "white" and explorer.figure.layout.height == 400


def test_an_error_becomes_a_sentence_and_goes_away(explorer):
    explorer.controls["heads"].value = 4
    assert "No figure for slope = 0.5, heads = 4" in explorer.message.value
    assert "ZeroDivisionError: no figure for &lt;4&gt;. Below is the one before." in explorer.message.value
    assert 'role="alert"' in explorer.message.value
    explorer.controls["heads"].value = 2
    assert explorer.message.value == "" and len(explorer.figure.data) == 2


def test_an_error_at_the_starting_values_is_raised(shown):
    with pytest.raises(ZeroDivisionError):
        explore(lambda heads=4: draw(heads=heads), alt="Four lines.", heads=(1, 5))


def test_one_output_holds_the_widget_and_the_picture(shown, explorer):
    (data, options), = shown
    assert options["raw"] and data[WIDGET]["model_id"] == explorer.box.model_id
    assert data[PLOTLY]["layout"]["title"]["text"] == "decay 0.5" and data["text/plain"] == "Two lines."
    assert options["metadata"]["image/svg+xml"] == {"alt": "Two lines."}
    json.dumps(data)


def test_it_is_not_displayed_twice_as_the_last_value_of_a_cell(explorer, capsys):
    explorer._ipython_display_()
    assert capsys.readouterr().out == ""


def test_controls_start_at_the_defaults_of_draw(shown):
    made = explore(lambda heads, slope=0.25: draw(slope), alt="x", heads=(2, 8, 2), slope=(0, 1.0, 0.25))
    assert made.values == {"heads": 2, "slope": 0.25}
    assert made.controls["heads"].step == 2 and made.controls["slope"].readout_format == ".2f"


def test_labels_are_words(shown):
    made = explore(lambda num_heads: draw(), alt="x", num_heads=[1, 2])
    assert made.controls["num_heads"].description == "num heads"


@pytest.mark.parametrize("choice", [(3, 1), (1,), [], 5, ("a", "b"), (0, 1, 0), (0, 1, -1), None])
def test_a_wrong_control_is_named(choice):
    with pytest.raises(UserError, match="the control heads is"):
        explore(lambda heads=1: draw(), alt="x", heads=choice)


@pytest.mark.parametrize("heads, choice", [(9, (1, 5)), (9, [1, 5])])
def test_a_start_outside_the_range_is_named(heads, choice):
    with pytest.raises(UserError, match="starts at 9, outside"):
        explore(lambda heads=9: draw(), alt="x", heads=choice)


def test_a_control_without_parameter_is_named():
    with pytest.raises(UserError, match="no parameter 'head'"):
        explore(draw, alt="x", head=(1, 2))


def test_an_empty_alt_text_is_refused():
    with pytest.raises(UserError, match="alt text"):
        explore(draw, alt="", heads=(1, 5))
