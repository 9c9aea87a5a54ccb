"""What if? `explore(draw, ...)`: sliders above a figure that is redrawn as they move.

Where no widget can live (a stored notebook, GitHub, a fresh clone), the same output shows the figure at its
starting values: one output, two forms, and the viewer picks.
"""

import html
import inspect
import math
from collections.abc import Callable

from minim1.course.look import bundle, dress
from minim1.errors import UserError

WIDGET = "application/vnd.jupyter.widget-view+json"


def explore(draw: Callable, *, alt: str, **controls) -> "Explorer":
    """Display sliders and the figure `draw(**values)`, redrawn whenever one moves.

    draw      returns a plotly figure; its defaults are the starting values (without one: the first of the range).
    alt       what the figure shows at the starting values, in a sentence or two.
    controls  (low, high) or (low, high, step) for a slider, a list for a choice, True or False for a box to tick.

    An exception of `draw` at the starting values is raised; a later one becomes a sentence below the sliders.

    >>> explore(draw, alt="How fast four heads forget.", layer=(0, 7), slope=[0.5, 0.25])    # doctest: +SKIP
    """
    from IPython.display import display

    explorer = Explorer(draw, alt, controls)
    display(explorer.data, metadata=explorer.metadata, raw=True)
    return explorer


class Explorer:
    """What `explore` displayed: `controls` (name -> widget), `figure` (a FigureWidget) and `message`."""

    def __init__(self, draw: Callable, alt: str, controls: dict) -> None:
        import ipywidgets
        import plotly.graph_objects as go

        self.draw = draw
        self.controls = {name: _control(name, choice, _start(draw, name)) for name, choice in controls.items()}
        first = draw(**self.values)
        static, self.metadata = bundle(first, alt)
        self.figure = go.FigureWidget(first)
        self.message = ipywidgets.HTML()
        self.box = ipywidgets.VBox([*self.controls.values(), self.message, self.figure])
        for control in self.controls.values():
            control.observe(self._redraw, names="value")
        view = {WIDGET: {"version_major": 2, "version_minor": 0, "model_id": self.box.model_id}}
        self.data = view | static

    @property
    def values(self) -> dict:
        return {name: control.value for name, control in self.controls.items()}

    def _redraw(self, _change) -> None:
        values = ", ".join(f"{name} = {value}" for name, value in self.values.items())
        try:
            _replace(self.figure, self.draw(**self.values))
        except Exception as error:  # said on the page: a traceback in a callback is seen by nobody
            text = html.escape(f"No figure for {values}: {type(error).__name__}: {error}. Below is the one before.")
            self.message.value = f'<p role="alert"><strong>{text}</strong></p>'
        else:
            self.message.value = ""

    def _ipython_display_(self) -> None:
        """Nothing: `explore` has displayed it, and as the last value of a cell it would be there twice."""


def _replace(figure, new) -> None:
    """Give a FigureWidget the traces and layout of another figure; in place where its traces are of the same kinds."""
    with figure.batch_update():
        if [trace.type for trace in figure.data] == [trace.type for trace in new.data]:
            for old, trace in zip(figure.data, new.data):
                _overwrite(old, trace)
        else:
            figure.data = ()
            figure.add_traces(new.data)
        _overwrite(figure.layout, dress(new).layout)


def _overwrite(old, new) -> None:
    """Properties that the new one lacks go too; those that tell a trace from others stay."""
    values = new.to_plotly_json()
    names = {*old.to_plotly_json(), *values} - {"type", "uid", "template"}
    old.update({name: values.get(name) for name in names}, overwrite=True)


def _start(draw: Callable, name: str):
    """The default of `draw` for a control; None without one."""
    parameters = inspect.signature(draw).parameters
    if name not in parameters:
        known = ", ".join(parameters) or "nothing"
        raise UserError(f"draw has no parameter {name!r} for the control of that name; it takes {known}")
    default = parameters[name].default
    return None if default is inspect.Parameter.empty else default


def _control(name: str, choice, start):
    """The widget for one control. Raises `UserError` on a choice or start that fits none."""
    import ipywidgets

    look = dict(description=name.replace("_", " "), style={"description_width": "8em"}, layout={"width": "32em"})
    if isinstance(choice, bool):
        return ipywidgets.Checkbox(value=choice if start is None else start, **look)
    if not _is_range(choice) and not (isinstance(choice, list) and choice):
        raise UserError(f"the control {name} is {choice!r}; give (low, high) or (low, high, step) with low < high and "
                        "step > 0, a list of choices, or True or False")
    start = choice[0] if start is None else start
    if not (start in choice if isinstance(choice, list) else choice[0] <= start <= choice[1]):
        raise UserError(f"the control {name} starts at {start!r}, outside of {choice!r}; change the default of draw")
    if isinstance(choice, list):
        kind = ipywidgets.Dropdown if any(isinstance(item, str) for item in choice) else ipywidgets.SelectionSlider
        return kind(options=choice, value=start, **look)
    low, high, step = choice if len(choice) == 3 else (*choice, None)
    if all(isinstance(number, int) for number in choice):
        return ipywidgets.IntSlider(min=low, max=high, step=step or 1, value=start, **look)
    step = step or (high - low) / 100
    digits = next((digits for digits in range(6) if math.isclose(round(step, digits), step)), 6)
    return ipywidgets.FloatSlider(min=low, max=high, step=step, value=start, readout_format=f".{digits}f", **look)


def _is_range(choice) -> bool:
    """(low, high) or (low, high, step)."""
    if not isinstance(choice, tuple) or len(choice) not in (2, 3):
        return False
    numbers = all(isinstance(number, int | float) for number in choice)
    return numbers and choice[0] < choice[1] and (len(choice) == 2 or choice[2] > 0)
