"""The bytes of a notebook: reading, writing, and the one form that any two runs give.

A notebook is a `.ipynb` of nbformat 4.5, here a dict as `nbformat.read` gives it.
"""

import copy
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import minim1
from minim1.course.widgets import WIDGET
from minim1.errors import UserError

PIECES = ("card", "solution", "check", "hidden", "hints", "why")  # of an exercise, in this order
PIECE_ID = re.compile(rf"\d+-\d+-({'|'.join(PIECES)})")
RANDOM_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{8}|")  # of JupyterLab, of nbformat, none
SVG = "image/svg+xml"
WIDGET_TEXT = "Run this cell to use the interactive widget."
KEPT = ("tags", "nbgrader", "deletable", "editable", "jupyter")  # metadata of a cell
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def root() -> Path:
    """The folder of the repository: the one that holds the package."""
    return Path(minim1.__file__).resolve().parents[1]


def read(path: Path) -> dict:
    """The notebook in a file. Raises UserError if it is none."""
    import nbformat

    try:
        notebook = nbformat.reads(Path(path).read_text(encoding="utf-8"), as_version=4)
        nbformat.validate(notebook)  # ids, metadata and outputs of the right form; `reads` only logs it
        return notebook
    except Exception as error:  # what nbformat stumbles over, it raises as it comes
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} cannot be read as a notebook ({reason}); expected a valid .ipynb") from None


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


def all_outputs(notebook: dict) -> Iterator[tuple[dict, dict]]:
    return ((cell, output) for cell in notebook["cells"] for output in cell.get("outputs", ()))
