"""The verb `build`: what is derived from what, and whether all is in step.

    python3 go.py build               write exercises/ from solutions/, run chapters/ and store what they show
    python3 go.py build --exercises   only the exercises: seconds
    python3 go.py build 03            only what belongs to chapter 03
    python3 go.py build --check       change nothing, say what is not in step

solutions/ is the source of the exercises; chapters/ is its own source.
"""

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from minim1.course.look import PLOTLY
from minim1.course.notebooks.chapters import code_hash, execute
from minim1.course.notebooks.exercises import CARD, blank, complete, leaks
from minim1.course.notebooks.form import SVG, all_outputs, normalise, read, root, to_text
from minim1.course.work import read_json
from minim1.errors import UserError

MOST_BYTES = 1_500_000
REMOTE = re.compile(
    r"""<(?!a\b)[a-z:]+\b[^>]*?\b(?:src|href)=["']?(?:https?:)?//"""  # <img src=, <link href=, but not <a href=
    r"""|!\[[^\]]*\]\(\s*<?(?:https?:)?//|url\(["']?(?:https?:)?//""", re.IGNORECASE)
LINK = re.compile(r"""\]\(\s*<?([^)\s>]+)|\b(?:src|href)=["']([^"']+)""")


def build(folder: Path, chapters: list[str] | None = None, *, check: bool = False, exercises_only: bool = False,
          say: Callable[[str], None] = lambda text: None) -> list[str]:
    """Write what is derived, then say what is wrong with what is there; with `check` write nothing.

    `chapters` are numbers ("03") or names; default: all. Returns one sentence for each problem; [] is good.
    """
    chosen = {part: _notebooks(folder, part, chapters) for part in ("solutions", "chapters")}
    if chapters and not any(chosen.values()):
        raise UserError(f"there is no notebook {' or '.join(chapters)} in {folder}; give numbers such as 03")
    if not check:
        for path in chosen["solutions"]:
            _write_exercise(path, say)
        for path in [] if exercises_only else chosen["chapters"]:
            notebook, timing = execute(path, say=say)
            _write(path, normalise(notebook), say)
            _write_timing(path, timing)
    problems = []
    for path in chosen["solutions"]:
        problems += solution_problems(path)
    for path in _notebooks(folder, "exercises", chapters):
        if not (folder / "solutions" / path.name).exists():
            problems.append(f"exercises/{path.name} comes from no notebook in solutions/; delete it or add its source")
    for path in [] if exercises_only else chosen["chapters"]:
        problems += chapter_problems(path)
    return problems


def _notebooks(folder: Path, part: str, chapters: list[str] | None) -> list[Path]:
    return [path for path in sorted((folder / part).glob("*.ipynb"))
            if not chapters or path.stem in chapters or path.stem.split("_")[0] in chapters]


def _write(path: Path, notebook: dict, say: Callable[[str], None]) -> None:
    text = to_text(notebook)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
        say(f"{path.parent.name}/{path.name} written")


def _write_exercise(path: Path, say: Callable[[str], None]) -> None:
    solution = normalise(complete(read(path), f"solutions/{path.name}"))
    exercise = blank(solution)
    if found := leaks(solution, exercise):
        raise UserError(f"exercises/{path.name} would give away {' and '.join(map(repr, found))}; "
                        f"reword it in solutions/{path.name}")
    _write(path, solution, say)
    _write(_exercise(path), exercise, say)


def _exercise(solution: Path) -> Path:
    return solution.parents[1] / "exercises" / solution.name


def _write_timing(path: Path, timing: dict) -> None:
    """Keep what was measured beside the chapters: in them it would make two runs differ."""
    known = {stem: entry for stem, entry in _timings(path).items() if os.path.exists(path.parent / f"{stem}.ipynb")}
    text = json.dumps(known | {path.stem: timing}, indent=1, sort_keys=True)
    (path.parent / "timing.json").write_text(text + "\n", encoding="utf-8", newline="\n")


def _timings(path: Path) -> dict[str, dict]:
    """By the name of the notebook; {} where the file is not there, or somebody has damaged it."""
    return {stem: entry for stem, entry in read_json(path.parent / "timing.json").items() if isinstance(entry, dict)}


def solution_problems(path: Path) -> list[str]:
    """What is wrong with a solution notebook and with the exercise notebook beside it."""
    from minim1.course.checks import of_chapter

    where, blanked = f"solutions/{path.name}", _exercise(path)
    try:
        made = normalise(complete(read(path), where))
    except UserError as error:
        return [str(error)]
    problems = []
    if to_text(made) != path.read_text(encoding="utf-8"):
        problems.append(f"{where} is not as the builder leaves it; run `python3 go.py build --exercises`")
    if not blanked.exists() or to_text(blank(made)) != blanked.read_text(encoding="utf-8"):
        problems.append(f"exercises/{path.name} is not what {where} gives; run `python3 go.py build --exercises`")
    if blanked.exists():
        problems += [f"exercises/{path.name} gives away {line!r}" for line in leaks(made, read(blanked))]
    there = {card[1] for cell in made["cells"] if (card := CARD.match(cell["source"]))}
    problems += [f"{where} lacks exercise {exercise.id} of minim1.course.checks"
                 for exercise in of_chapter(path.stem.split("_")[0]) if exercise.id not in there]
    return problems + _dead_links(path) + _remote(path)


def chapter_problems(path: Path) -> list[str]:
    """What is wrong with a chapter as it is stored."""
    where = f"chapters/{path.name}"
    try:
        notebook = read(path)
    except UserError as error:
        return [str(error)]
    problems, text = [], path.read_text(encoding="utf-8")
    again = f"run `python3 go.py build {path.stem.split('_')[0]}`"
    if to_text(normalise(notebook)) != text:
        problems.append(f"{where} is not as the builder leaves it; {again}")
    if not any(True for _ in all_outputs(notebook)):
        problems.append(f"{where} is stored without outputs; {again}")
    for cell, output in all_outputs(notebook):
        if output["output_type"] == "error":
            problems.append(f"{where}, cell {cell['id']}, stores the error {output['ename']}: {output['evalue']}")
        if PLOTLY in output.get("data", {}) and SVG not in output["data"]:
            problems.append(f"{where}, cell {cell['id']}, has a figure without a static picture; {again}")
        if not _has_alt(output):
            problems.append(f"{where}, cell {cell['id']}, has a picture without alt text; use minim1.course.show")
    if len(text.encode()) > MOST_BYTES:
        problems.append(f"{where} has {len(text.encode()) / 1e6:.1f} MB; at most {MOST_BYTES / 1e6} MB is wanted")
    if _timings(path).get(path.stem, {}).get("code") != code_hash(notebook):
        problems.append(f"{where} was not run since its code changed; {again}")
    return problems + _dead_links(path) + _remote(path)


def _has_alt(output: dict) -> bool:
    """Whether every picture of an output can be read aloud."""
    for kind, content in output.get("data", {}).items():
        if kind.startswith("image/"):
            if not output["metadata"].get(kind, {}).get("alt") and "<title>" not in content:
                return False
        elif kind == "text/html":
            if any(not re.search(r'\balt="[^"]', tag) for tag in re.findall(r"<img\b[^>]*>", content)):
                return False
            if any(not re.search(r"<title|aria-label=|aria-hidden=", svg)
                   for svg in re.findall(r"<svg\b.*?</svg>", content, re.DOTALL)):
                return False
    return True


def _dead_links(path: Path) -> list[str]:
    """Relative links of a notebook's text that lead nowhere."""
    found = []
    for cell in read(path)["cells"]:
        if cell["cell_type"] != "markdown":
            continue
        for match in LINK.finditer(re.sub(r"```.*?```|`[^`\n]*`", "", cell["source"], flags=re.DOTALL)):
            target = (match[1] or match[2]).split("#")[0]
            if target and not re.match(r"[a-z]+:", target) and not os.path.exists(path.parent / target):
                found.append(f"{path.parent.name}/{path.name}, cell {cell['id']}, links to {target}, which is nowhere")
    return found


def _remote(path: Path) -> list[str]:
    """Pictures, scripts and styles that a reader of the notebook would fetch from elsewhere."""
    found = []
    for cell in read(path)["cells"]:
        texts = [cell["source"]] if cell["cell_type"] == "markdown" else []
        for output in cell.get("outputs", ()):
            texts += [content for content in output.get("data", {}).values() if isinstance(content, str)]
        found += [f"{path.parent.name}/{path.name}, cell {cell['id']}, needs the network for {match[0]!r}"
                  for text in texts for match in REMOTE.finditer(text)]
    return found


def add_arguments(parser) -> None:
    """The options of the verb `build`, for an `argparse` parser; `run` takes what it parses."""
    parser.add_argument("chapters", nargs="*", metavar="NN", help="chapters, such as 03; default: all")
    parser.add_argument("--exercises", action="store_true", help="only exercises/ from solutions/: seconds")
    parser.add_argument("--check", action="store_true", help="change nothing; say what is not in step")


def run(arguments) -> None:
    """Do what the command line asks for. Raises UserError when something is not as it should be."""
    problems = build(root(), arguments.chapters, check=arguments.check, exercises_only=arguments.exercises,
                     say=lambda text: print(text, file=sys.stderr, flush=True))
    for problem in problems:
        print(problem)
    if problems:
        raise UserError(f"the notebooks have {len(problems)} problem(s), named above; mend them and build again")
