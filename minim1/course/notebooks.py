"""The builder of the notebooks: what is derived from what, in which bytes it is stored, and whether all is in step.

    python3 go.py build               write exercises/ from solutions/, run chapters/ and store what they show
    python3 go.py build --exercises   only the exercises: seconds
    python3 go.py build 03            only what belongs to chapter 03
    python3 go.py build --check       change nothing, say what is not in step

A notebook is a `.ipynb` of nbformat 4.5, here a dict as `nbformat.read` gives it. solutions/ is the source of the
exercises: `complete` fills in what the builder can know, `blank` takes the answers out, and `leaks` looks for what
stayed. chapters/ is its own source: `execute` runs one, and `normalise` gives it the bytes that any run would give.
"""

import ast
import copy
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import minim1
from minim1.course.scale import SCALES
from minim1.errors import UserError

CARD = re.compile(r"## Exercise (\d+\.\d+) · (.+)")
SOLUTION, HIDDEN = "SOLUTION", "HIDDEN TESTS"  # regions: from `### BEGIN SOLUTION` to `### END SOLUTION`
ANSWER = "<!-- solution -->"  # first line of markdown that is not for the exercises
PIECES = ("card", "solution", "check", "hidden", "hints", "why")  # of an exercise, in this order
PIECE_ID = re.compile(rf"\d+-\d+-({'|'.join(PIECES)})")
RANDOM_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{8}|")  # of JupyterLab, of nbformat, none

PLOTLY, SVG = "application/vnd.plotly.v1+json", "image/svg+xml"
WIDGET = "application/vnd.jupyter.widget-view+json"
WIDGET_TEXT = "Run this cell to use the interactive widget."
KEPT = ("tags", "nbgrader", "deletable", "editable", "jupyter")  # metadata of a cell
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
MOST_BYTES = 1_500_000
REMOTE = re.compile(
    r"""<(?!a\b)[a-z:]+\b[^>]*?\b(?:src|href)=["']?(?:https?:)?//"""  # <img src=, <link href=, but not <a href=
    r"""|!\[[^\]]*\]\(\s*<?(?:https?:)?//|url\(["']?(?:https?:)?//""", re.IGNORECASE)
LINK = re.compile(r"""\]\(\s*<?([^)\s>]+)|\b(?:src|href)=["']([^"']+)""")


# ---------------------------------------------------------------- bytes


def read(path: Path) -> dict:
    """The notebook in a file. Raises UserError if it is none."""
    import nbformat

    try:
        return nbformat.reads(Path(path).read_text(encoding="utf-8"), as_version=4)
    except (OSError, ValueError, nbformat.ValidationError, nbformat.reader.NotJSONError) as error:
        raise UserError(f"{path} cannot be read as a notebook ({str(error).splitlines()[0]}); "
                        "expected a valid .ipynb") from None


def to_text(notebook: dict) -> str:
    """The file of a notebook: sorted keys, one space of indent, text as lists of lines."""
    import nbformat

    return nbformat.writes(nbformat.from_dict(notebook), version=4) + "\n"


def normalise(notebook: dict) -> dict:
    """The notebook without what differs between two runs: ids, counts, times, versions, widget state, stderr.

    Ids that people chose stay; random ones are replaced by the first words of the cell, once, so that neither a
    changed word nor a new cell changes the id of another. `normalise(normalise(n)) == normalise(n)`.
    """
    made = copy.deepcopy(notebook)
    made.update(nbformat=4, nbformat_minor=5, metadata=copy.deepcopy(METADATA))
    _identify(made["cells"])
    was_run = any(cell.get("outputs") for cell in made["cells"])  # nbval refuses outputs without a count
    code_cells = 0
    for cell in made["cells"]:
        cell["metadata"] = {key: value for key, value in cell["metadata"].items() if key in KEPT and value != []}
        if "tags" in cell["metadata"]:
            cell["metadata"]["tags"] = sorted(set(cell["metadata"]["tags"]))
        if cell["cell_type"] == "code":
            code_cells += 1
            cell["execution_count"] = code_cells if was_run else None
            cell["outputs"] = _outputs(cell["outputs"], cell["execution_count"])
    return made


def _identify(cells: list[dict]) -> None:
    """Give every cell an id of its own: the one it has, unless random or taken, or one made from its first words."""
    taken, nameless = set(), []
    for cell in cells:
        if RANDOM_ID.fullmatch(cell.get("id", "")) or cell["id"] in taken:
            nameless.append(cell)
        else:
            taken.add(cell["id"])
    for cell in nameless:
        words = re.findall(r"[a-z0-9]+", next(iter(cell["source"].strip().splitlines()), "").lower())
        name = chosen = "-".join(words[:5])[:40].strip("-") or "cell"
        if RANDOM_ID.fullmatch(name):
            name = chosen = f"cell-{name}"
        number = 1
        while chosen in taken:
            number += 1
            chosen = f"{name}-{number}"
        taken.add(chosen)
        cell["id"] = chosen


def _outputs(outputs: list[dict], count: int | None) -> list[dict]:
    kept = []
    for output in outputs:
        if output["output_type"] == "stream":
            if output["name"] == "stderr":
                continue
            if kept and kept[-1]["output_type"] == "stream":
                kept[-1]["text"] += output["text"]
                continue
        data = output.get("data", {})
        if data.pop(WIDGET, None) and data.keys() <= {"text/plain"}:
            data["text/plain"] = WIDGET_TEXT
        if SVG in data:
            data[SVG] = _stable_svg(data[SVG])
        if "execution_count" in output:
            output["execution_count"] = count
        kept.append(output)
    return kept


def _stable_svg(svg: str) -> str:
    """A picture by plotly with a hash in place of the random word in its ids: two figures on a page do not share it."""
    found = re.search(r'id="defs-([0-9a-f]{6})"', svg)
    if found is None:
        return svg
    references = re.compile(r"""((?:id|href)="|url\(['"]?)(#?[^"')]*)""")

    def put(word: str) -> str:
        return references.sub(lambda match: match[1] + match[2].replace(found[1], word), svg)

    return put(hashlib.sha256(put("").encode()).hexdigest()[:6])


# ---------------------------------------------------------------- exercises


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
    without_hidden, hidden = _cut(source, HIDDEN, where)
    _, answer = _cut(source, SOLUTION, where)
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
        stub = _cut(cell["source"], SOLUTION, where, _stub(number))[0]
        if name not in _functions(cell["source"], where) or name not in _functions(stub, where, _stub(number)):
            raise UserError(f"{where} does not define {name} with its solution region inside; "
                            f"minim1.course.checks expects {name} in exercise {number}")
    if piece in ("check", "hidden"):
        calls = re.findall(r'\bcheck\("([\d.]+)", *(\w+)', cell["source"])
        if not calls or set(calls) != {(number, name)}:
            raise UserError(f'{where} checks something else than exercise {number}; expected check("{number}", {name})')
        if "strict=True" in _cut(cell["source"], HIDDEN, where)[0]:
            raise UserError(f"{where} has a strict check in sight, which would stop Run All; put it among hidden tests")
        if not _cut(cell["source"], HIDDEN, where)[1]:
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


def _cut(source: str, region: str, where: str, instead: str | None = None) -> tuple[str, list[str]]:
    """What is left of a text without its regions, each replaced by a line if there is one, and the lines taken out.

    >>> _cut("a\\n  ### BEGIN SOLUTION\\n  b\\n  ### END SOLUTION", "SOLUTION", "here", "c")
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
            source = _cut(cell["source"], HIDDEN, marked["grade_id"])[0]
            cell["source"] = _cut(source, SOLUTION, marked["grade_id"], _stub(number))[0]
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
            lines = [line for region in (SOLUTION, HIDDEN) for line in _cut(cell["source"], region, cell["id"])[1]]
            taken += [line for line in lines if len(_dense(line)) >= 20 and re.search(r"[(\[@*+/-]|^\s*#", line)]
    shown = "\n".join(_dense(line) for cell in exercise["cells"] for line in cell["source"].split("\n"))
    return [line.strip() for line in dict.fromkeys(taken) if _dense(line) in shown]


def _dense(line: str) -> str:
    return "".join(line.split())


# ---------------------------------------------------------------- running a chapter


def execute(path: Path, scale: str = "cpu", say: Callable[[str], None] = lambda text: None) -> tuple[dict, dict]:
    """Run a chapter in a fresh kernel -> (notebook with outputs and static pictures, its timing).

    It runs on a `stage`, so that nobody's own solutions get into the stored outputs. The timing is {"code", "words",
    "seconds", "slowest_cell"}, where code is `code_hash`. Raises UserError with the cell when one fails or takes twice
    the time that the scale allows (the machine may be busy), when a figure has no alt text, and when what draws it is
    not installed.
    """
    try:
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
    except ImportError:
        raise UserError("nbclient is not installed; `python -m pip install -e .[test]` brings it") from None
    notebook, limit = normalise(read(path)), 2 * SCALES[scale].cell_seconds
    begun, current, cells = time.perf_counter(), {}, {}

    def start(cell, cell_index) -> None:
        current.update(cell=cell["id"], number=cell_index + 1, begun=time.perf_counter())

    def stop(cell, cell_index, **_) -> None:
        cells[cell["id"]] = time.perf_counter() - current["begun"]

    with tempfile.TemporaryDirectory() as folder:
        place = stage(Path(folder))
        client = NotebookClient(
            notebook, timeout=limit, kernel_name="python3", resources={"metadata": {"path": str(place)}},
            on_cell_execute=start, on_cell_executed=stop,
        )
        try:
            client.execute(env=environment(Path(folder), scale))
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            where = f"{Path(path).name}, cell {current['number']} ({current['cell']})"
            if isinstance(error, CellExecutionError):
                raise UserError(f"{where} raises {error.ename}: {error.evalue}".splitlines()[0]) from error
            raise UserError(f"{where} did not end within {limit} s, or ended the kernel") from error
    seconds = time.perf_counter() - begun
    slowest = Counter(cells).most_common(3)
    say(f"{Path(path).name}: {seconds:.0f} s; slowest: " + ", ".join(f"{id} {took:.1f} s" for id, took in slowest))
    for cell, output in _all_outputs(notebook):
        if PLOTLY in output.get("data", {}):
            _add_picture(output, f"{Path(path).name}, cell {cell['id']}")
    slowest_cell = max(cells.values(), default=0)
    timing = {"code": code_hash(notebook), "words": words(notebook)}
    return notebook, timing | {"seconds": round(seconds), "slowest_cell": round(slowest_cell)}


def stage(folder: Path) -> Path:
    """Make an empty folder a repository without work/: package and chapters/, which is returned, to run in."""
    shutil.copytree(root() / "minim1", folder / "minim1")
    (folder / "chapters").mkdir()
    return folder / "chapters"


def environment(folder: Path, scale: str) -> dict[str, str]:
    """What kernels on a stage find: its package, the scale, one thread, and no settings of whoever builds."""
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    return os.environ | {
        "MINIM1_SCALE": scale, "PYTHONPATH": path, "IPYTHONDIR": str(folder / "ipython"), "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE", "PLOTLY_RENDERER": "plotly_mimetype",
    }


def _all_outputs(notebook: dict) -> Iterator[tuple[dict, dict]]:
    return ((cell, output) for cell in notebook["cells"] for output in cell.get("outputs", ()))


def words(notebook: dict) -> int:
    """How many words there are to read in a notebook's text; HTML and addresses do not count."""
    text = " ".join(re.sub(r"<[^>]*>|\]\([^)]*\)", " ", cell["source"]) for cell in notebook["cells"]
                    if cell["cell_type"] == "markdown")
    return len(re.findall(r"\w[\w'’-]*", text))


def code_hash(notebook: dict) -> str:
    """What changes with any code cell and with nothing else."""
    code = [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()[:12]


def _add_picture(output: dict, where: str) -> None:
    """Add to a plotly figure its static picture, for readers that run no JavaScript; alt text in it and beside it."""
    alt = output["metadata"].get(SVG, {}).get("alt")
    if not alt:
        raise UserError(f"{where} shows a figure without alt text; use minim1.course.show(figure, alt)")
    title = alt.replace("&", "&amp;").replace("<", "&lt;")
    svg = _draw(output["data"][PLOTLY], where)
    output["data"][SVG] = re.sub(r"(<svg\b[^>]*)>", lambda match: f'{match[1]} role="img"><title>{title}</title>', svg,
                                 count=1)


def _draw(figure: dict, where: str) -> str:
    """A plotly figure as SVG, by the one kaleido server of this process; no network, since it asks for no MathJax."""
    try:
        import kaleido
        from kaleido.errors import ChromeNotFoundError
    except ImportError:
        raise UserError("kaleido, which draws the static pictures, is not installed; "
                        "`python -m pip install -e .[build]` brings it") from None
    named = copy.deepcopy({key: figure[key] for key in ("data", "layout")})
    for number, trace in enumerate(named["data"]):
        trace["uid"] = f"{number:06}"  # else plotly takes a random one, and shows it in the picture
    try:
        kaleido.start_sync_server(silence_warnings=True, page_generator=kaleido.PageGenerator(mathjax=False))
        return kaleido.calc_fig_sync(named, opts={"format": "svg"}).decode()
    except ChromeNotFoundError:
        raise UserError("kaleido finds no Chrome or Chromium to draw with; install one "
                        "(Debian: `apt install chromium`; elsewhere: `kaleido_get_chrome`)") from None


# ---------------------------------------------------------------- building and checking


def root() -> Path:
    """The folder of the repository: the one that holds the package."""
    return Path(minim1.__file__).resolve().parents[1]


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
    known = {stem: entry for stem, entry in _timings(path).items() if (path.parent / f"{stem}.ipynb").exists()}
    text = json.dumps(known | {path.stem: timing}, indent=1, sort_keys=True)
    (path.parent / "timing.json").write_text(text + "\n", encoding="utf-8", newline="\n")


def _timings(path: Path) -> dict[str, dict]:
    file = path.parent / "timing.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


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
    if not any(True for _ in _all_outputs(notebook)):
        problems.append(f"{where} is stored without outputs; {again}")
    for cell, output in _all_outputs(notebook):
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
            if target and not re.match(r"[a-z]+:", target) and not (path.parent / target).exists():
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


# ---------------------------------------------------------------- the verb


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
