"""The curves of the M1 report (arXiv 2506.13585), read from the vector drawings of its figures."""

import csv
from collections.abc import Iterator
from pathlib import Path


def fig2() -> dict[str, dict[int, float]]:
    """Figure 2: algorithm -> {step: AIME 2024 accuracy in percent}."""
    found: dict[str, dict[int, float]] = {}
    for row in _rows("fig2"):
        found.setdefault(row["algo"].lower(), {})[int(row["step"])] = float(row["aime24_avg32"])
    return found


def fig4() -> dict[str, list[tuple[int, float]]]:
    """Figure 4: series, such as "AIME24 acc" (percent) and "AIME24 len" (tokens), -> (step, value)."""
    found: dict[str, list[tuple[int, float]]] = {}
    for row in _rows("fig4"):
        found.setdefault(row["series"], []).append((int(row["step"]), float(row["value"])))
    return found


def fig1_right() -> dict[str, list[tuple[int, float]]]:
    """Figure 1, right: model -> [(generated tokens in K = 1,024, FLOPs in 1e16)]."""
    found: dict[str, list[tuple[int, float]]] = {}
    for row in _rows("fig1_right"):
        found.setdefault(row["model"], []).append((int(row["gen_len_K"]), float(row["flops_1e16"])))
    return found


def _rows(name: str) -> Iterator[dict[str, str]]:
    with (Path(__file__).parent / f"{name}.csv").open(encoding="utf-8") as file:
        yield from csv.DictReader(line for line in file if not line.startswith("#"))
