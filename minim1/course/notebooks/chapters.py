"""Running a chapter: a fresh kernel on a copy of the package, its outputs, static pictures and times."""

import copy
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from minim1.course.look import PLOTLY
from minim1.course.notebooks.form import SVG, all_outputs, normalise, read, root
from minim1.course.scale import SCALES
from minim1.errors import UserError


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
    notebook = normalise(read(path))
    limit = lambda cell: 2 * SCALES[scale].seconds_of(cell["metadata"].get("tags", ()))  # noqa: E731
    begun, current, cells = time.perf_counter(), {}, {}

    def start(cell, cell_index) -> None:
        current.update(cell=cell["id"], number=cell_index + 1, begun=time.perf_counter(), limit=limit(cell))

    def stop(cell, cell_index, **_) -> None:
        cells[cell["id"]] = time.perf_counter() - current["begun"]

    with tempfile.TemporaryDirectory() as folder:
        place = stage(Path(folder))
        if (trained := root() / "runs" / "capstone").is_dir():  # it takes a quarter of an hour: its chapter resumes it
            shutil.copytree(trained, Path(folder) / "runs" / "capstone")
        client = NotebookClient(
            notebook, timeout_func=limit, kernel_name="python3", resources={"metadata": {"path": str(place)}},
            on_cell_execute=start, on_cell_executed=stop,
        )
        try:
            client.execute(env=environment(Path(folder), scale))
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            where = f"{Path(path).name}, cell {current['number']} ({current['cell']})"
            if isinstance(error, CellExecutionError):
                raise UserError(f"{where} raises {error.ename}: {error.evalue}".splitlines()[0]) from error
            raise UserError(f"{where} did not end within {current['limit']} s, or ended the kernel") from error
    seconds = time.perf_counter() - begun
    slowest = Counter(cells).most_common(3)
    say(f"{Path(path).name}: {seconds:.0f} s; slowest: " + ", ".join(f"{id} {took:.1f} s" for id, took in slowest))
    for cell, output in all_outputs(notebook):
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
