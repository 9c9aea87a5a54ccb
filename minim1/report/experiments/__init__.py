"""Experiments, one module each: what the chapters show and `minim1 claims` measures, all run and stored in one way.

An `Experiment` has arms and seeds; a *unit* is one arm with one seed and gives one value, ready for JSON. Finished units
are stored at once, so that a run that was interrupted goes on with what is missing. `runner` runs them.
"""

import datetime
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from minim1.errors import UserError

RESULTS = Path(__file__).resolve().parents[1] / "results"
FORMAT = 2


@dataclass(frozen=True)
class Experiment:
    """What is run, with which seeds, and the settings that its numbers depend on.

    name: of the stored file; arms: arm -> the seeds of its committed result; run: `run(arm, seed, scale)` -> value, a
    function of a module (other processes call it), scale "smoke", "cpu" or "gpu"; settings: stored beside the values,
    which are only ever put beside others with the same settings; alone: units are timed, so nothing else may run
    meanwhile; chance: False where a seed changes nothing; beside: arms that a chapter shows and no claim rests on.
    """

    name: str
    arms: Mapping[str, Sequence[int]]
    run: Callable[[str, int, str], object]
    settings: Mapping = field(default_factory=dict)
    alone: bool = False
    chance: bool = True
    beside: Sequence[str] = ()

    def path(self, folder: Path = RESULTS, scale: str = "cpu") -> Path:
        """Where its result is: NAME.json at `cpu`, NAME-SCALE.json at others."""
        return folder / (f"{self.name}.json" if scale == "cpu" else f"{self.name}-{scale}.json")


def values(result: Mapping, arm: str) -> list:
    """The values of an arm, in the order of its seeds."""
    runs = result["runs"].get(arm, {})
    return [runs[seed] for seed in sorted(runs, key=int)]


def seeds(result: Mapping) -> list[int]:
    """Every seed that any arm has, in order."""
    return sorted({int(seed) for runs in result["runs"].values() for seed in runs})


def head(result: Mapping) -> dict:
    """Where a result was first measured: {"date", "machine", "versions", "threads"}."""
    return dict(result["places"][0])


def provenance(threads: int = 1, device: str = "cpu") -> dict:
    """When, where and with what an experiment runs: {"date", "machine", "versions", "threads"}."""
    from minim1.report.bench.command import machine
    from minim1.train.checkpoint import versions

    return {"date": datetime.date.today().isoformat(), "machine": machine(device), "versions": versions(),
            "threads": threads}


def read_result(path: Path) -> dict:
    """A result as `write_result` left it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:  # not there, not text, no JSON
        raise UserError(f"{path} cannot be read ({problem}); move it away, or restore the committed one") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds a {type(found).__name__}, not a result; move it away, or restore the committed one")
    return found


def stored(name: str) -> dict:
    """The committed result of an experiment."""
    return read_result(RESULTS / f"{name}.json")


def begin(experiment: Experiment, scale: str, path: Path) -> dict:
    """What is at `path` if it may be added to, or an empty result.

    Raises UserError for the result of another format, experiment, scale or other settings.
    """
    made = {"format": FORMAT, "experiment": experiment.name, "scale": scale,
            "settings": json.loads(json.dumps(dict(experiment.settings)))}
    if not path.exists():
        return made | {"places": [], "runs": {}, "units": {}}
    found = read_result(path)
    for name, value in made.items():
        if found.get(name) != value:
            raise UserError(f"{path} was written by another version: its {name} is {_short(found.get(name))}, here it is "
                            f"{_short(value)}; move the file away, or choose another folder with --results")
    return found


def missing(experiment: Experiment, result: Mapping, chosen: Sequence[int] | None = None) -> Iterator[tuple[str, int]]:
    """The units (arm, seed) that `result` lacks, all arms of a seed together; chosen: seeds other than its own."""
    plan = {arm: chosen if chosen is not None and experiment.chance else own for arm, own in experiment.arms.items()}
    for seed in sorted({seed for wanted in plan.values() for seed in wanted}):
        for arm, wanted in plan.items():
            if seed in wanted and str(seed) not in result["runs"].get(arm, {}):
                yield arm, seed


def add(result: dict, arm: str, seed: int, value: object, seconds: float, place: dict) -> None:
    """Put the value of a unit into a result, with what it cost and where it ran."""
    if place not in result["places"]:
        result["places"].append(place)
    result["runs"].setdefault(arm, {})[str(seed)] = rounded(value)
    unit = {"seconds": round(seconds, 1), "place": result["places"].index(place)}
    result["units"].setdefault(arm, {})[str(seed)] = unit


def rounded(value: object) -> object:
    """The value with five significant digits in every fraction, at any depth, ready for JSON.

    >>> rounded({"loss": [1.23456789, 2, 1234567.0]})
    {'loss': [1.2346, 2, 1234567.0]}
    """
    if isinstance(value, float):
        return value if value.is_integer() else float(f"{value:.5g}")
    if isinstance(value, Mapping):
        return {str(name): rounded(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(inner) for inner in value]
    return value


def write_result(path: Path, result: dict) -> None:
    """Write a result whole: an interrupted run leaves the one before it."""
    from minim1.train.files import write_whole

    text = json.dumps(result) + "\n"
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
