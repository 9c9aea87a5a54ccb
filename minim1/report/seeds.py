"""Several runs of one recipe side by side: median and range over seeds, for the README and for later comparison.

    minim1 report runs/nano-0 runs/nano-1 runs/nano-2 --out minim1/report/results/nano.json
"""

import datetime
import statistics
from pathlib import Path

from minim1.errors import UserError
from minim1.report.card import TITLES, curves, report_card
from minim1.train.checkpoint import RunFolder


def gather(folders: list[Path]) -> dict:
    """Report cards and curves of finished runs that differ in nothing but the seed."""
    cards = [report_card(folder) for folder in folders]
    recipes = [{**RunFolder(folder / "pretrain").settings["recipe"], "seed": None} for folder in folders]
    for recipe in recipes:
        for stage in ("pretrain", "sft", "rl"):
            recipe[stage].pop("seed")
    if any(recipe != recipes[0] for recipe in recipes):
        raise UserError(f"{folders[0]} and another run have different recipes; give runs that differ in the seed alone")
    return {
        "date": datetime.date.today().isoformat(), "recipe": recipes[0],
        "seeds": [card["run"]["seed"] for card in cards], "cards": cards, "curves": [curves(f) for f in folders],
    }


def spread(values: list[float], digits: int) -> str:
    """Median and range: "0.90 [0.88, 0.91]"."""
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def to_markdown(result: dict) -> str:
    """One table: accuracy per family, thinking length of the search, bits per byte."""
    cards, stages = result["cards"], list(TITLES)
    lines = ["| | " + " | ".join(TITLES[s] for s in stages) + " |", "| --- |" + " ---: |" * len(stages)]

    def row(title: str, pick, digits: int) -> None:
        lines.append(f"| {title} | " + " | ".join(spread([pick(c["stages"][s]) for c in cards], digits) for s in stages) + " |")

    for family in cards[0]["stages"]["rl"]["families"]:
        row(f"`{family}`, accuracy", lambda stage: stage["families"][family]["accuracy"], 3)
    row("`pair`, thinking tokens", lambda stage: stage["families"]["pair"]["thinking"], 1)
    row("held-out text, bits per byte", lambda stage: stage["bits_per_byte"], 3)
    return "\n".join(lines)
