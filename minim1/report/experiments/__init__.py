"""Experiments whose results the chapters show; each is run by `python -m minim1.report.experiments.NAME`."""

import datetime
import json
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "results"


def provenance() -> dict:
    """When, where and with what an experiment runs: {"format", "date", "machine", "versions", "threads"}."""
    import torch

    from minim1.report.bench.command import machine
    from minim1.train.checkpoint import versions

    return {
        "format": 1, "date": datetime.date.today().isoformat(), "machine": machine("cpu"), "versions": versions(),
        "threads": torch.get_num_threads(),
    }


def read_result(path: Path) -> dict:
    """A result as `write_result` left it."""
    return json.loads(path.read_text(encoding="utf-8"))


def stored(name: str) -> dict:
    """The committed result of an experiment."""
    return read_result(RESULTS / f"{name}.json")


def write_result(path: Path, result: dict) -> None:
    """Write a result whole: an interrupted run leaves the one before it."""
    from minim1.train.checkpoint import write_whole

    text = json.dumps(result) + "\n"
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))
