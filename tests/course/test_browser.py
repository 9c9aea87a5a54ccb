"""In a real JupyterLab: notebooks run, sliders and quizzes work by keyboard, pictures show, nothing leaves the machine.

Opt-in, `python -m pytest -m browser`: needs playwright (the extra `browser`) and a Chromium of the machine.
Screenshots, also of a failure, are in pytest's temporary folder.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import minim1

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("jupyterlab")
sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")]

ROOT = Path(minim1.__file__).parents[1]
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
TOKEN, DONE = secrets.token_hex(), "every cell has run"
PATIENCE = 300_000  # ms, for all cells of a notebook
SAMPLE = (
    "from minim1.course import block, explore, show, style\nfrom minim1.course.quiz import to_html, to_text\n"
    "import plotly.graph_objects as go",
    'block(lit=("lightning", "policy_loss"))',
    'show(go.Figure(go.Scatter(y=[3, 1, 2], **style("softmax"))), alt="Down and up again.")',
    "def draw(slope=0.5, layer=0):\n"
    "    if layer == 7:\n        raise ValueError('seven')\n"
    '    return go.Figure(go.Scatter(y=[2.718 ** (-slope * t) for t in range(9)], **style("lightning")))',
    'explorer = explore(draw, alt="A falling curve.", slope=(0.0, 2.0, 0.25), layer=[0, 3, 7])\nexplorer',
    'from IPython.display import display\n'
    'asked = [{"text": "Is `2` even?", "options": [{"text": "yes", "feedback": "It is.", "right": True},'
    ' {"text": "no", "feedback": "Halve it.", "right": False}]}] * 3\n'
    'display({"text/html": to_html(asked), "text/plain": to_text(asked)}, raw=True)',
)
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}  # else JupyterLab asks which
ERROR = '.jp-OutputArea-output[data-mime-type*="application/vnd.jupyter."]:has-text("Traceback")'
DRAWING = 'img[alt*="Lit up: lightning attention"]'
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # else cells out of sight are not in the page
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab on this machine alone, without anybody's settings: (its address, the folder it shows)."""
    home = tmp_path_factory.mktemp("lab")
    folder = home / "chapters"
    folder.mkdir()
    for name, value in SETTINGS.items():
        path = home / "settings/@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value), encoding="utf-8")
    places = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime",
              "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces", "IPYTHONDIR": "ipython"}
    environment = os.environ | {name: str(home / place) for name, place in places.items()} | {
        "MINIM1_SCALE": "smoke", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "JUPYTER_PREFER_ENV_PATH": "1",
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0",
               f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}", "--LabApp.news_url=None"]
    with open(home / "log", "w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    try:
        yield address(server, home), folder
    finally:
        server.terminate()
        server.wait(30)


def address(server, home):
    """Where the server listens; it writes that into its runtime folder."""
    for _ in range(240):
        for path in (home / "runtime").glob("jpserver-*.json"):
            try:
                return json.loads(path.read_text(encoding="utf-8"))["url"]
            except ValueError:
                pass  # not written to its end yet
        assert server.poll() is None, (home / "log").read_text()
        time.sleep(0.25)
    raise AssertionError((home / "log").read_text())


@contextmanager
def opened(lab, name, screenshots):
    """The page of a notebook, and what went wrong on it: errors on the console, requests to other machines."""
    url, _ = lab
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        page.set_default_timeout(30_000)
        wrong = []
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: None if is_local(request.url) else wrong.append(request.url))
        page.goto(f"{url}lab/tree/{name}?token={TOKEN}&reset")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        try:
            yield page, wrong
        except BaseException:
            page.screenshot(path=screenshots / "failed.png")
            raise
        finally:
            browser.close()


def is_local(url):
    parts = urlsplit(url)
    return parts.scheme in ("data", "blob") or parts.hostname == "127.0.0.1"


def run_all(page):
    page.wait_for_selector('#jp-main-statusbar :text("| Idle")')  # before that, running asks for a kernel
    page.click('.lm-MenuBar-item:has-text("Run")')
    page.click('.lm-Menu-itemLabel:text-is("Run All Cells")')
    page.wait_for_selector(f'.jp-OutputArea-output:has-text("{DONE}"), {ERROR}', timeout=PATIENCE)
    assert [error.text_content() for error in page.locator(ERROR).all()] == []
    page.wait_for_timeout(1000)  # the last figures are still being drawn


def write(path, sources):
    cells = [nbformat.v4.new_code_cell(source) for source in [*sources, f'print("{DONE[:5]}" "{DONE[5:]}")']]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=KERNEL), path)


def drawn(page):
    """The first live figure, as the browser draws it: curves, marks, pictures and words."""
    figure = page.locator(".jupyter-widgets .js-plotly-plot").first
    return [layer.inner_html() for layer in figure.locator(".cartesianlayer, .infolayer").all()]


def wait_until(page, holds, seconds=30):
    for _ in range(4 * seconds):
        if holds():
            return
        page.wait_for_timeout(250)
    raise AssertionError("it did not happen")


def move_first_slider(page, key="ArrowRight", times=2):
    before = drawn(page)
    assert before
    page.locator(".jupyter-widgets .noUi-handle").first.focus()
    for _ in range(times):
        page.keyboard.press(key)
    wait_until(page, lambda: drawn(page) != before)


def test_figures_sliders_and_quizzes_work_by_keyboard(lab, tmp_path):
    write(lab[1] / "sample.ipynb", SAMPLE)
    with opened(lab, "sample.ipynb", tmp_path) as (page, wrong):
        run_all(page)
        move_first_slider(page)
        assert page.locator(".widget-readout").first.text_content() == "1.00"
        assert page.locator(".js-plotly-plot").count() == 2, "a figure is there twice"

        page.locator(".jupyter-widgets .noUi-handle").nth(1).focus()
        page.keyboard.press("End")
        alert = page.locator('[role="alert"]:has-text("No figure for slope = 1.0, layer = 7: ValueError: seven.")')
        alert.wait_for()
        page.locator(".jupyter-widgets .js-plotly-plot").scroll_into_view_if_needed()
        page.screenshot(path=tmp_path / "widget.png")

        answer = page.locator("details:has(summary)", has_text="Halve it.").first
        assert not answer.locator("blockquote").is_visible()
        answer.locator("summary").focus()
        page.keyboard.press("Enter")
        assert answer.locator("blockquote").is_visible()
        page.screenshot(path=tmp_path / "quiz.png")

        page.locator(DRAWING).scroll_into_view_if_needed()
        page.screenshot(path=tmp_path / "block.png")
        assert wrong == []


def test_a_stored_notebook_shows_its_outputs_before_a_kernel_runs(lab, tmp_path):
    """As after `git clone`, not trusted: no widgets, but their figures, the drawing and the quiz."""
    from nbclient import NotebookClient

    from minim1.course.notebooks import normalise

    path = lab[1] / "stored.ipynb"
    write(path, SAMPLE)
    made = nbformat.read(path, as_version=4)
    NotebookClient(made).execute(cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)})
    nbformat.write(nbformat.from_dict(normalise(made)), path)
    with opened(lab, path.name, tmp_path) as (page, wrong):
        page.wait_for_selector(".js-plotly-plot path.js-line", state="attached")
        assert page.locator(".js-plotly-plot").count() == 2
        boxes = [page.locator(found).bounding_box() for found in (DRAWING, f".jp-Cell:has({DRAWING})")]
        assert 500 < boxes[0]["width"] < boxes[1]["width"], "the drawing does not fit"
        page.screenshot(path=tmp_path / "stored.png")
        page.locator("details:has(blockquote) summary").first.focus()
        page.keyboard.press("Enter")
        assert page.locator("details:has(blockquote) blockquote").first.is_visible()
        page.screenshot(path=tmp_path / "stored_quiz.png")
        assert wrong == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_runs_and_its_first_widget_moves(lab, tmp_path, path):
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.update({"outputs": [], "execution_count": None} if cell.cell_type == "code" else {})
    notebook.metadata = KERNEL
    notebook.cells.append(nbformat.v4.new_code_cell(f'print("{DONE[:5]}" "{DONE[5:]}")'))
    nbformat.write(notebook, lab[1] / path.name)
    with opened(lab, path.name, tmp_path) as (page, wrong):
        run_all(page)
        move_first_slider(page)
        page.locator(".jupyter-widgets .js-plotly-plot").first.scroll_into_view_if_needed()
        page.screenshot(path=tmp_path / "widget.png")
        if (summary := page.locator("details:has(blockquote) summary").first).count():
            summary.focus()
            page.keyboard.press("Enter")
            assert page.locator("details:has(blockquote) blockquote").first.is_visible()
            page.screenshot(path=tmp_path / "quiz.png")
        page.locator(".jp-Notebook .jp-Cell").first.scroll_into_view_if_needed()
        page.screenshot(path=tmp_path / "top.png")
        assert wrong == []
