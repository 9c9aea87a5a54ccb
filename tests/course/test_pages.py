"""What the pages about the course say of it is what was measured and what is there."""

import json
import math
import re

import pytest

from minim1.course import notebooks
from minim1.course.checks import of_chapter

ROOT = notebooks.root()
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
FIRST = "00_meet_the_model"  # has no exercises
TIMING = json.loads((ROOT / "chapters/timing.json").read_text(encoding="utf-8"))


def exercise_minutes(path) -> int:
    """The sum over the cards of a chapter's exercises."""
    cells = notebooks.read(ROOT / "solutions" / path.name)["cells"]
    return sum(int(n) for cell in cells for n in re.findall(r"^Difficulty .*about (\d+) minutes", cell["source"], re.MULTILINE))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_head_and_readme_say_what_a_chapter_takes(path):
    notebook = notebooks.read(path)
    reading, running = round(notebooks.words(notebook) / 200), math.ceil(TIMING[path.stem]["seconds"] / 60)
    exercises = of_chapter(path.stem[:2])
    head = notebook["cells"][0]["source"]
    assert f"Reading takes about {reading} minutes" in head
    assert ("about a minute on two cores" in head) == (running == 1)
    row = next(line for line in README.splitlines() if f"chapters/{path.name})" in line)
    title = head.splitlines()[0].split("·")[1].strip()
    assert f"[{title}]" in row and row.endswith(f"| {reading} min | {running} min |")
    if exercises:
        assert f"our estimate, {exercise_minutes(path)} minutes" in head
        assert f"{exercises[0].id} to {exercises[-1].id}, about {exercise_minutes(path)} min" in row
    assert bool(exercises) == (path.stem != FIRST)


def test_every_chapter_but_the_first_has_its_three_notebooks():
    names = {path.name for path in CHAPTERS if path.stem != FIRST}
    for folder in ("solutions", "exercises"):
        assert {path.name for path in (ROOT / folder).glob("*.ipynb")} == names


def test_links_of_the_pages_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "solutions/README.md", ROOT / "chapters/glossary.md"):
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name} links to {target}"
