"""Exercises from solutions: `complete` fills in what can be known, `blank` takes the answers out, `leaks` finds what stayed."""

import ast
import copy
import re

from minim1.course.notebooks.form import PIECE_ID, PIECES, normalise
from minim1.errors import UserError

CARD = re.compile(r"## Exercise (\d+\.\d+) · (.+)")
SOLUTION, HIDDEN = "SOLUTION", "HIDDEN TESTS"  # regions: from `### BEGIN SOLUTION` to `### END SOLUTION`
ANSWER = "<!-- solution -->"  # first line of markdown that is not for the exercises


def complete(solution: dict, where: str = "notebook", exercises: dict | None = None) -> dict:
    """The solution notebook with the ids and nbgrader's metadata on the cells of its exercises, and without outputs.

    The cells are known by how they begin or what they call (`_piece`); the points come from `exercises` (id ->
    Exercise; default: `minim1.course.checks.EXERCISES`). Raises UserError, with file and cell, for an exercise that
    lacks a piece or has one too many, an unknown id, a wrong name, and a region without its other end.
    """
    if exercises is None:
        from minim1.course.checks import EXERCISES as exercises
    made, number = copy.deepcopy(solution), None
    found: dict[str, dict[str, dict]] = {}
    for index, cell in enumerate(made["cells"]):
        place = f"{where}, cell {index + 1}"
        cell["metadata"].pop("nbgrader", None)
        if PIECE_ID.fullmatch(cell.get("id", "")):
            cell["id"] = ""
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
        card = CARD.match(cell["source"]) if cell["cell_type"] == "markdown" else None
        if card:
            number = card[1]
            _known(number, card[2].strip(), exercises, place)
            if number in found:
                raise UserError(f"{place} is a second card of exercise {number}; an exercise has one")
            found[number] = {"card": cell}
        elif piece := _piece(cell, number, place):
            _add(piece, cell, number, found, exercises, place)
    for number, pieces in found.items():
        if lacking := [piece for piece in PIECES if piece not in pieces]:
            raise UserError(f"{where}: exercise {number} lacks {_named(lacking[0])}; see README, Working on the course")
        for piece, cell in pieces.items():
            cell["id"] = f"{number.replace('.', '-')}-{piece}"
            if piece in ("solution", "check", "hidden"):
                cell["metadata"]["nbgrader"] = _nbgrader(cell["id"], piece, exercises[number].points)
    return made


def _piece(cell: dict, number: str | None, where: str) -> str | None:
    """Which piece of exercise `number` a cell is; None: it goes unchanged into the exercises."""
    source = cell["source"]
    without_hidden, hidden = cut(source, HIDDEN, where)
    _, answer = cut(source, SOLUTION, where)
    if cell["cell_type"] == "code":
        call = f'check("{number}",'
        if answer:
            return "solution"
        return "check" if call in without_hidden else "hidden" if hidden else None
    if answer or hidden:
        raise UserError(f"{where} has a region in text; begin the text with {ANSWER} instead")
    if source.startswith(ANSWER):
        return "why"
    return "hints" if number and "<details>" in source else None


def _named(piece: str) -> str:
    return {
        "card": "its card", "solution": "the cell with a solution region", "check": "its visible check",
        "hidden": "the cell with hidden tests only", "hints": "hints in <details>", "why": f"the text after {ANSWER}",
    }[piece]


def _known(number: str, title: str, exercises: dict, where: str) -> None:
    if number not in exercises:
        raise UserError(f"{where} is the card of exercise {number}, which minim1.course.checks does not know; "
                        f"expected one of {', '.join(exercises)}")
    if title != exercises[number].title:
        raise UserError(f"{where} calls exercise {number} {title!r}, minim1.course.checks {exercises[number].title!r}; "
                        "give both the same title")


def _add(piece: str, cell: dict, number: str | None, found: dict, exercises: dict, where: str) -> None:
    """Note a piece of the current exercise, after looking at its place and at the function it names."""
    if number is None:
        raise UserError(f"{where} belongs to no exercise; begin one with `## Exercise 4.2 · Title` above it")
    pieces, name = found[number], exercises[number].name
    if piece in pieces:
        if piece in ("hints", "why"):
            return
        raise UserError(f"{where} is a second cell of exercise {number} for {_named(piece)}; an exercise has one")
    if any(PIECES.index(other) > PIECES.index(piece) for other in pieces):
        raise UserError(f"{where}: {_named(piece)} of exercise {number} comes too late; the order is "
                        "card, solution, check, hidden tests, hints, why")
    if piece == "solution":
        stub = cut(cell["source"], SOLUTION, where, _stub(number))[0]
        if name not in _functions(cell["source"], where) or name not in _functions(stub, where, _stub(number)):
            raise UserError(f"{where} does not define {name} with its solution region inside; "
                            f"minim1.course.checks expects {name} in exercise {number}")
    if piece in ("check", "hidden"):
        calls = re.findall(r'\bcheck\("([\d.]+)", *(\w+)', cell["source"])
        if not calls or set(calls) != {(number, name)}:
            raise UserError(f'{where} checks something else than exercise {number}; expected check("{number}", {name})')
        if "strict=True" in cut(cell["source"], HIDDEN, where)[0]:
            raise UserError(f"{where} has a strict check in sight, which would stop Run All; put it among hidden tests")
        if not cut(cell["source"], HIDDEN, where)[1]:
            raise UserError(f"{where} has no hidden tests, so that nbgrader would give its points to anything; "
                            f'add check("{number}", {name}, strict=True) in a region of HIDDEN TESTS')
    pieces[piece] = cell


def _functions(source: str, where: str, statement: str = "") -> set[str]:
    """Names of the functions of a cell whose text has `statement` in it."""
    try:
        body = ast.parse(source).body
    except SyntaxError as error:
        raise UserError(f"{where} is not Python without the solution region ({error}); check its indent") from None
    return {node.name for node in body if isinstance(node, ast.FunctionDef)
            and statement in ast.get_source_segment(source, node)}


def _stub(number: str) -> str:
    return f'raise NotImplementedError("exercise {number}")'


def _nbgrader(id: str, piece: str, points: tuple[int, int]) -> dict:
    made = {"schema_version": 3, "grade_id": id, "task": False}
    if piece == "solution":
        return made | {"grade": False, "solution": True, "locked": False}
    return made | {"grade": True, "solution": False, "locked": True, "points": points[piece == "hidden"]}


def cut(source: str, region: str, where: str, instead: str | None = None) -> tuple[str, list[str]]:
    """What is left of a text without its regions, each replaced by a line if there is one, and the lines taken out.

    >>> cut("a\\n  ### BEGIN SOLUTION\\n  b\\n  ### END SOLUTION", "SOLUTION", "here", "c")
    ('a\\n  c', ['  b'])
    """
    kept, taken, inside = [], [], False
    for line in source.split("\n"):
        edge = re.search(rf"(BEGIN|END) {region}", line)
        if edge is None:
            (taken if inside else kept).append(line)
            continue
        if line.strip() != f"### {edge[0]}":
            raise UserError(f"{where} has the line {line.strip()!r}; expected `### {edge[0]}` alone")
        if inside == (edge[1] == "BEGIN"):
            raise UserError(f"{where} has `### {edge[0]}` without its other end before it; regions do not nest")
        inside = not inside
        if inside and instead is not None:
            kept.append(line[: line.index("#")] + instead)
    if inside:
        raise UserError(f"{where} has `### BEGIN {region}` without `### END {region}`")
    return "\n".join(kept), taken


def blank(solution: dict) -> dict:
    """The exercise notebook of a solution notebook that is `complete`: what nbgrader's generate_assignment would make.

    Solution regions become `raise NotImplementedError("exercise 4.2")`, hidden tests go, text after `<!-- solution -->`
    goes, and the cells that nbgrader grades cannot be edited or deleted.
    """
    made = copy.deepcopy(solution)
    made["cells"] = [cell for cell in made["cells"] if not cell["source"].startswith(ANSWER)]
    for cell in made["cells"]:
        if marked := cell["metadata"].get("nbgrader"):
            number = ".".join(marked["grade_id"].split("-")[:2])
            source = cut(cell["source"], HIDDEN, marked["grade_id"])[0]
            cell["source"] = cut(source, SOLUTION, marked["grade_id"], _stub(number))[0]
            cell["metadata"]["deletable"] = False
            if marked["grade"]:
                cell["metadata"]["editable"] = False
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
    return normalise(made)


def leaks(solution: dict, exercise: dict) -> list[str]:
    """Lines that `blank` takes out of `solution` and that can nevertheless be read in `exercise`.

    Only lines that tell something count: of code and hidden tests those with a call or arithmetic, and at least 20
    characters besides blanks (`return out` does not give an answer away); of text those with at least 40.
    """
    taken = []
    for cell in solution["cells"]:
        if cell["source"].startswith(ANSWER):
            taken += [line for line in cell["source"].split("\n")[1:] if len(_dense(line)) >= 40]
        else:
            lines = [line for region in (SOLUTION, HIDDEN) for line in cut(cell["source"], region, cell["id"])[1]]
            taken += [line for line in lines if len(_dense(line)) >= 20 and re.search(r"[(\[@*+/-]|^\s*#", line)]
    shown = "\n".join(_dense(line) for cell in exercise["cells"] for line in cell["source"].split("\n"))
    return [line.strip() for line in dict.fromkeys(taken) if _dense(line) in shown]


def _dense(line: str) -> str:
    return "".join(line.split())
