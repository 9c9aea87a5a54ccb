"""The claims of the MiniMax-M1 report, a row each: what is published, what we measure, and what follows.

A `Row` names the experiments behind it; `assess` makes of their results a `Finding`, by a rule that was written before
the results were there, and `draw` a picture. Rows are grouped by what they speak of, one module for each group.
"""

import importlib
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from minim1.errors import UserError
from minim1.report.experiments import Experiment

VERDICTS = ("exact", "holds", "partly", "mechanism shown by construction", "not at this scale",
            "does not follow from the published numbers")
STRONGEST = ("parameters", "linear", "flops", "clipping", "cispo")  # what the page leads with
GROUPS = ("arithmetic", "systems", "network", "reading", "policy", "stability", "reasoning", "rewards")
Results = Mapping[str, Mapping]  # the result of each experiment by name


@dataclass(frozen=True)
class Measured:
    """A quantity: what it is, one value for each seed (none where no run came that far), and how to write one."""

    what: str
    values: Sequence[float]
    form: str = "{:.3g}"

    @property
    def median(self) -> float | None:
        return statistics.median(self.values) if self._known else None

    @property
    def range(self) -> tuple[float, float] | None:
        return (min(self.values), max(self.values)) if self._known else None

    @property
    def _known(self) -> bool:
        return bool(self.values) and all(map(math.isfinite, self.values))

    def __str__(self) -> str:
        """
        >>> str(Measured("share", [0.1, 0.3, 0.2], "{:.0%}")), str(Measured("parameters", [456], "{:,}"))
        ('20% [10%, 30%]', '456')
        """
        if not self._known:
            return "none"
        middle, ends = self.form.format(self.median), [self.form.format(end) for end in self.range]
        return middle if ends == [middle, middle] else f"{middle} [{', '.join(ends)}]"


@dataclass(frozen=True)
class Finding:
    """What the results of a row say: a verdict of VERDICTS, what we measured (the first is the headline), a sentence."""

    verdict: str
    measured: Sequence[Measured]
    sentence: str

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"there is no verdict {self.verdict!r}")


@dataclass(frozen=True)
class Row:
    """A claim. published: the value and where it stands; experiments: names of modules of `report.experiments`;
    assess, draw: functions of their results; draw gives a plotly figure; alt: what it shows, in a sentence or two."""

    number: int
    name: str
    claim: str
    published: str
    source: str
    experiments: tuple[str, ...]
    assess: Callable[[Results], Finding]
    draw: Callable[[Results], object]
    alt: str


def rows() -> list[Row]:
    """All rows, by number."""
    found = [row for group in GROUPS for row in importlib.import_module(f"{__name__}.{group}").ROWS]
    return sorted(found, key=lambda row: row.number)


def row(name: str) -> Row:
    """A row by its name or number.

    Raises UserError for another.
    """
    known = rows()
    for each in known:
        if name in (each.name, str(each.number)):
            return each
    raise UserError(f"there is no claim {name!r}; choose one of {', '.join(each.name for each in known)}, or 1 to {len(known)}")


def experiment(name: str) -> Experiment:
    """The experiment of a module, with the arms that claims rest on."""
    found = importlib.import_module(f"minim1.report.experiments.{name}").EXPERIMENT
    return replace(found, arms={arm: seeds for arm, seeds in found.arms.items() if arm not in found.beside})


def verdict(holds: bool, partly: bool = False, *, otherwise: str = "not at this scale") -> str:
    """The usual rule: one condition for "holds", a weaker one for "partly".

    >>> verdict(False, True)
    'partly'
    """
    return "holds" if holds else "partly" if partly else otherwise
