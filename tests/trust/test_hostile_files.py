"""Files that strangers made, notebooks, hand-ins, records, quizzes and corpora: read as data, or refused in a sentence.

What a learner's cells define is run, since that is what they are for; nothing else in a file acts, is followed out of
its folder, is waited for, or stops what is not its own.
"""

import contextlib
import importlib
import json
import math
import os
import pickle
import re
import shutil
import signal
import socket
import threading
from dataclasses import replace
from html.parser import HTMLParser
from multiprocessing import Pipe
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minim1 import learner
from minim1.course import classroom, notebooks, progress, work
from minim1.course.checking import MARKS, Result
from minim1.course.checks import CHAPTERS, find, of_chapter
from minim1.course.quiz import load, to_html
from minim1.data import corpus as corpus_module
from minim1.data.corpus import encode_corpus, folder_corpus, load_corpus
from minim1.errors import UserError
from minim1.train import pipeline
from minim1.workers import Workers

DEEP = "[" * 100_000 + "]" * 100_000
GOOD = "def f():\n    return 1"
MARK = "alert(4711)"
JS = f"<script>{MARK}</script>"


@pytest.fixture(autouse=True)
def in_time(tries):
    """What is refused is refused at once; this ends a test that waits for a FIFO."""
    def stop(*_):
        pytest.fail(f"not refused within {seconds} s")

    before, seconds = signal.signal(signal.SIGALRM, stop), tries(60, 3600)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def refuses(tally):
    """refuses(words, call, *arguments): raises one sentence with the words in it."""

    def refuses(words, call, *arguments):
        with pytest.raises(UserError) as said:
            call(*arguments)
        assert words in str(said.value) and "\n" not in str(said.value)
        tally("hostile files refused")

    return refuses


def special(kind: str, path: Path) -> Path:
    """Something at `path` that is no file; "outside" and "device" are links."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(path.parent)  # the name of a socket must be short
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
        os.chdir(here)
    elif kind == "folder":
        path.mkdir()
    else:
        elsewhere = path.parent.parent / f"{path.parent.name}-elsewhere"
        elsewhere.mkdir(exist_ok=True)
        (elsewhere / path.name).write_text("secret")
        targets = {"device": "/dev/null", "loop": path.name, "nowhere": "none", "outside": elsewhere / path.name}
        path.symlink_to(targets[kind])
    return path


def content(*sources, **fields) -> dict:
    """A notebook of code cells."""
    code = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    cells = [code | {"source": source} for source in sources]
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4} | fields


# ---------------------------------------------------------------- notebooks: what is in the file


@pytest.mark.parametrize("text", [
    "", "null", "3", '"cells"', "[]", "{}", DEEP, '{"cells": ' + DEEP + "}", '{"cells": 3}', '{"cells": "abc"}',
    '{"cells": {"a": 1}}', '{"cells": [3]}', '{"cells": [[]]}', '{"cells": [{"cell_type": "code"}]}',
    '{"cells": [{"cell_type": "code", "source": 5}]}', '{"cells": [{"cell_type": "code", "source": [["a"]]}]}',
    '{"cells": [{"cell_type": "code", "source": null}]}', '{"cells": 1' + "0" * 5000 + "}",
    b"\xff\xfe{\0}\0", b"\xef\xbb\xbf{}", b"\x80\x04pickle", b"\0" * 99,
], ids=lambda text: str(text[:40]))
def test_what_is_no_notebook_is_refused(tmp_path, refuses, text):
    path = tmp_path / "04_x.ipynb"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    refuses("is not a notebook", learner.Notebook, path)
    if b"cell_type" not in path.read_bytes():  # nbformat takes these for notebooks of its first version
        refuses("cannot be read as a notebook", notebooks.read, path)


@pytest.mark.parametrize("kind, words", [
    ("fifo", "no file"), ("socket", "no file"), ("folder", "no file"), ("device", "no file"), ("loop", "links"),
    ("nowhere", "No such file"), ("outside", "out of its folder"),
])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, refuses, kind, words):
    path = special(kind, tmp_path / "work" / "04_x.ipynb")
    if kind == "outside":
        path.resolve().write_text(json.dumps(content(GOOD)))
    refuses(words, learner.Notebook, path)
    refuses(words, learner.notebooks, path.parent)


def test_a_link_within_the_folder_and_a_folder_that_is_a_link_are_what_was_meant(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.ipynb").write_text(json.dumps(content(GOOD)))
    (tmp_path / "real" / "b.ipynb").symlink_to("a.ipynb")
    (tmp_path / "work").symlink_to("real")
    assert learner.functions(tmp_path / "work" / "b.ipynb")["f"]() == 1


def test_sizes_have_bounds(tmp_path, refuses):
    path = tmp_path / "04_x.ipynb"
    with open(path, "wb") as file:
        file.truncate(learner.MOST_BYTES + 1)
    refuses("16,000,001 bytes", learner.Notebook, path)
    path.write_text(json.dumps(content("a = 1\n" * 90_000)))
    refuses("540,000 characters of code", learner.Notebook, path)


BEYOND = {  # source of a cell that nothing can be made of, or not in the time of a class
    "minus": "x = " + "-" * 90_000 + "1", "sum": "x = 1" + "+1" * 40_000, "attributes": "a" + ".b" * 40_000,
    "calls": "a" + "()" * 40_000, "lambda": "f = " + "lambda:" * 14_000 + "1", "parentheses": "(" * 90_000,
    "elif": "if 1: pass\n" + "elif 1: pass\n" * 9000, "subscripts": "x = " + "a[" * 190 + "1" + "]" * 190,
    "blanks": " " * 200_000 + ")", "magics": "%a\n" * 20_000, "surrogate": "x = '\ud800'", "null": "a\0b",
    "number": "x = " + "1" * 9000,
}


@pytest.mark.parametrize("source", BEYOND.values(), ids=BEYOND)
def test_a_cell_beyond_reading_is_a_sentence_and_the_others_count(source, tally):
    read = learner.Notebook(content(source, GOOD))
    [problem] = read.problems
    assert "cell 1 does not parse" in problem and problem.isprintable()
    assert read.function("f")() == 1 and read.written("f") and read.source("f") and read.unwritten("f") == []
    assert len(progress._hash(read.text)) == 64
    tally("hostile files refused")


def test_what_does_not_compile_hides_no_other_function(tally):
    read = learner.Notebook(content("def g():\n    nonlocal x", "def h(x=1 / 0): pass", GOOD))
    assert list(read.functions()) == ["f"]
    for name in "gh":
        with pytest.raises(UserError, match=f"`{name}` is not there"):
            read.function(name)
        tally("hostile files refused")


def test_ten_thousand_functions_are_read_in_time(tally):
    chain = "".join(f"def f{n}():f{n + 1}\n" for n in range(10_000))
    read = learner.Notebook(content(chain))
    assert len(read.unwritten("f0")) == 0 and read.source("f0").count("def ") == 10_000
    tally("hostile files refused")


ACTING = [  # beside the code of a cell
    {"metadata": [1]}, {"metadata": None}, {"metadata": {"tags": 5, "nbgrader": [], "jupyter": "x"}},
    {"metadata": {"nbgrader": {"grade_id": "../../../tmp/x", "points": 1e308}}},
    {"metadata": {"a": json.loads("[" * 500 + "]" * 500)}}, {"id": "../../etc/x"}, {"id": 5}, {"id": JS},
    {"attachments": {"../../x.png": {"image/png": "aaaa"}}}, {"outputs": 5},
    {"outputs": [{"output_type": "display_data", "data": {"text/html": JS}, "metadata": {}}]},
    {"outputs": [{"output_type": "stream", "name": "stdout", "text": "x" * 1_000_000}]},
]


@pytest.mark.parametrize("field", ACTING, ids=lambda field: str(field)[:40])
def test_only_the_code_of_a_notebook_is_looked_at(tmp_path, field, tally):
    metadata = {"kernelspec": {"name": "../../evil"}, "language_info": 5, "widgets": [], "title": JS}
    made = content(GOOD, metadata=metadata)
    made["cells"][0] |= field
    path = tmp_path / "work" / "04_x.ipynb"
    path.parent.mkdir()
    path.write_text(json.dumps(made))
    read = learner.Notebook(path)
    assert read.functions()["f"]() == 1 and read.text == f"# work/04_x.ipynb, cell 1\n{GOOD}"
    assert [file.name for file in tmp_path.rglob("*")] == ["work", "04_x.ipynb"]
    tally("hostile files refused")


@pytest.mark.parametrize("name", ["a\x1b[2J", "a\n✓ 3.1 half_life: passed", "a\u202eb", os.fsdecode(b"a\xff")])
def test_names_reach_no_terminal_as_they_are(tmp_path, name, tally):
    path = tmp_path / name / "04_x.ipynb"
    path.parent.mkdir()
    path.write_text(json.dumps(content(GOOD, "def g(:")))
    read = learner.Notebook(path)
    for text in (read.label, read.where("f"), *read.problems):
        assert text.isprintable()
    assert read.function("f")() == 1
    path.write_text("{")
    with pytest.raises(UserError) as said:
        learner.Notebook(path)
    assert str(said.value).isprintable()
    tally("hostile files refused", 2)


@pytest.mark.parametrize("field", [
    {"id": "../../etc/x"}, {"id": 5}, {"id": ""}, {"metadata": []}, {"metadata": {"tags": 5}}, {"source": 5},
    {"metadata": {"tags": ["a,b"]}}, {"outputs": 5}, {"outputs": [{"output_type": "x"}]}, {"execution_count": "x"},
    {"cell_type": "evil"},
], ids=str)
def test_the_builder_refuses_what_is_not_of_the_format(tmp_path, refuses, field):
    made = content(GOOD, nbformat_minor=5)
    made["cells"][0] |= {"id": "a"} | field
    path = tmp_path / "04_x.ipynb"
    path.write_text(json.dumps(made))
    refuses("cannot be read as a notebook", notebooks.read, path)


# ---------------------------------------------------------------- records: .progress.json, .copied.json, timing.json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4), max_leaves=9)
ROW = st.fixed_dictionaries(
    {"name": st.text(), "grade": JSON, "digits": st.integers() | JSON, "difference": st.none() | JSON})
ENTRY = st.fixed_dictionaries({
    "status": st.sampled_from(["passed", "wrong"]) | JSON, "layer": st.just("") | JSON, "key": st.just("right") | JSON,
    "sentence": st.text(max_size=9) | JSON, "said": st.text() | JSON, "rows": st.lists(ROW, max_size=2) | JSON})


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """A folder with one notebook, whose record is yet to be written."""
    folder = tmp_path_factory.mktemp("records") / "work"
    folder.mkdir()
    path = folder / f"03_{CHAPTERS['03']}.ipynb"
    path.write_text(json.dumps(content(*(f"def {exercise.name}(): return 1" for exercise in of_chapter("03")))))
    return folder


def opened(folder):
    store, exercise = progress.Store(folder), find("3.4")
    return store, exercise, learner.Notebook(progress._notebook_of(exercise, folder))


def keep(folder) -> dict[str, str]:
    """Store a verdict as if nothing were wrong with the record -> what is known then."""
    store, exercise, notebook = opened(folder)
    store.keep(Result(exercise, "passed"), notebook)
    assert str(progress.Store(folder).find(exercise, notebook)).startswith("✓ 3.4")
    return progress.known(folder)


@given(entry=ENTRY | JSON, rest=st.dictionaries(st.sampled_from(["3.1", "../x", ""]), ENTRY | JSON, max_size=3))
def test_a_record_that_somebody_wrote_is_a_fresh_start(records, entry, rest, tally):
    """Also one who has found out the key; what is told of it is short, on one line, and can be printed."""
    (records / ".progress.json").unlink(missing_ok=True)
    store, exercise, notebook = opened(records)
    if isinstance(entry, dict) and entry.get("key") == "right":
        entry["key"] = store._key(exercise, notebook, entry["status"])
    (records / ".progress.json").write_text(json.dumps(rest | {"3.4": entry}))
    if result := progress.Store(records).find(exercise, notebook):
        assert all(line.isprintable() for line in str(result).split("\n")) and result.status in MARKS
        assert len(str(result).split("\n")) == 1 + len(result.rows) + bool(result.said) + bool(result.sentence)
    assert progress.known(records) == ({"3.4": result.status} if result else {})
    assert keep(records)["3.4"] == "passed"
    tally("fuzz cases")


DAMAGED = [
    DEEP, '{"3.4": ' + "[" * 900 + "]" * 900 + "}", '{"3.4": {"rows": ' + "[" * 900 + "]" * 900 + "}}", "\udcff", "[]",
    '{"3.4": {"notebook": "../../../etc/passwd", "name": "x", "status": "passed", "key": "x"}}', '{"3.4": NaN}',
    "{" * 99, " " * 5_000_000 + "{}",
]


@pytest.mark.parametrize("text", DAMAGED, ids=lambda text: text[:30])
def test_a_damaged_record_is_a_fresh_start(tmp_path, records, write_notebook, text, tally):
    for path in (records / ".progress.json", tmp_path / "work" / work.COPIED):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert progress.known(records) == {} and keep(records) == {"3.4": "passed"}
    for name in ("03_linear", "04_lightning"):
        write_notebook(tmp_path / "exercises" / f"{name}.ipynb", GOOD)
    assert len(work.prepare(tmp_path)) == 2 and work.prepare(tmp_path) == []
    assert json.loads((tmp_path / "work" / work.COPIED).read_text()).keys() == {"03_linear.ipynb", "04_lightning.ipynb"}
    tally("hostile files refused", 2)


@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "loop", "nowhere", "outside"])
def test_a_record_that_is_no_file_is_a_fresh_start(tmp_path, records, kind, tally):
    folder = tmp_path / "work"
    shutil.copytree(records, folder, ignore=shutil.ignore_patterns(".*"))
    path = special(kind, folder / ".progress.json")
    secret = path.resolve() if kind == "outside" else None
    assert progress.known(folder) == {} and keep(folder) == {"3.4": "passed"}
    assert path.is_file() and not path.is_symlink() and (secret is None or secret.read_text() == "secret")
    tally("hostile files refused")


def test_nothing_is_written_through_a_link(tmp_path, write_notebook, tally):
    write_notebook(tmp_path / "exercises" / "03_linear.ipynb", GOOD)
    names = (".03_linear.ipynb.new", f"{work.COPIED}.new")
    secrets = [special("outside", tmp_path / "work" / name).resolve() for name in names]
    assert len(work.prepare(tmp_path)) == 1
    assert [path.read_text() for path in secrets] == ["secret"] * 2
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == [work.COPIED, "03_linear.ipynb"]
    tally("hostile files refused", 2)


@pytest.mark.parametrize("text", [
    "{", "[]", DEEP, '{"04_x": 5}', '{"../../x": {}}', '{"' + "x" * 5000 + '": {}}',
], ids=lambda text: text[:9])
def test_damaged_timings_are_a_fresh_start(tmp_path, text, tally):
    build = importlib.import_module("minim1.course.notebooks.build")
    (tmp_path / "timing.json").write_text(text)
    build._write_timing(tmp_path / "04_x.ipynb", {"code": "a"})
    assert build._timings(tmp_path / "04_x.ipynb") == {"04_x": {"code": "a"}}
    tally("hostile files refused")


# ---------------------------------------------------------------- verdicts, from the process that runs a learner's code


class Bomb:
    def __reduce__(self):
        return os.mkdir, (BOMB,)


BOMB = ""
ANY = {"name": "", "grade": "", "digits": 1, "difference": 0.0}  # row
SOUND = {"status": "passed", "layer": "", "sentence": "", "said": "", "rows": []}


@pytest.fixture
def answered(tmp_path, monkeypatch):
    """answered(bytes): what is made of an answer that the learner's code has sent."""
    monkeypatch.setitem(globals(), "BOMB", str(tmp_path / "bomb"))
    notebook = learner.Notebook(content("def half_life(): return 1"))

    def answered(sent: bytes) -> Result:
        child, exercise = object.__new__(progress.Child), find("3.4")
        child.pipe, theirs = Pipe()
        child.process = Counted()
        threading.Thread(target=send, args=(theirs, sent), daemon=True).start()  # a long one waits to be read
        return progress.from_json(exercise, child.check(exercise, notebook, 5.0), notebook)

    return answered


def send(pipe, sent: bytes) -> None:
    with contextlib.suppress(OSError):  # nobody reads on
        pipe.send_bytes(sent)


class Counted:
    """Stands in for a process, and for the child that has it; counts how many there were."""

    made: list = []
    exitcode = None

    def __init__(self):
        self.made.append(self)
        self.process, self.alive = self, True

    def is_alive(self):
        return self.alive

    def check(self, exercise, notebook, seconds):
        return progress.to_json(Result(exercise, "passed"))

    def kill(self):
        self.alive = False

    def join(self, timeout=None):
        pass

    stop = kill


@pytest.mark.parametrize("said", [
    pickle.dumps(SOUND), b"", b"{", b"5", b"null", b"[]", b"{}", DEEP.encode(), b"\xff",
    *(json.dumps(SOUND | wrong).encode() for wrong in (
        {"status": "best"}, {"status": []}, {"sentence": 5}, {"sentence": ["a"]}, {"sentence": "x" * 2_000_000},
        {"rows": 5}, {"rows": [5]}, {"rows": ["name"]}, {"rows": [ANY | {"digits": math.inf}]},
        {"rows": [ANY | {"difference": 10**400}]},
    )),
], ids=lambda said: str(said[:30]))
def test_what_is_no_verdict_is_wrong(answered, said, tally):
    result = answered(said)
    assert (result.status, result.layer) == ("wrong", progress.PROCESS) and result.sentence.startswith("half_life ")
    tally("hostile files refused")


def test_a_verdict_is_never_unpickled(answered, tally):
    assert answered(pickle.dumps(Bomb())).layer == progress.PROCESS and not Path(BOMB).exists()
    with pytest.raises(FileNotFoundError):  # the bomb works
        os.rmdir(BOMB)
    pickle.loads(pickle.dumps(Bomb()))
    os.rmdir(BOMB)
    tally("hostile files refused")


def test_a_verdict_is_one_line_that_no_terminal_obeys(answered, tally):
    row = {"name": "out\x1b[2J", "grade": "exact\n", "digits": 10**9, "difference": 0.5}
    sentence = "no\n✓ 3.1 masked_quadratic: passed\x1b]0;x\x07\ud800" + "x" * 9000
    said = SOUND | {"status": "wrong", "sentence": sentence, "said": "a\x9bb\x00", "rows": [row]}
    result = answered(json.dumps(said).encode())
    lines = str(result).split("\n")
    assert len(lines) == 4 and all(line.isprintable() for line in lines) and len(str(result)) < 5000
    assert not any(line.startswith("✓") for line in lines)
    tally("hostile files refused")


def test_each_hand_in_has_a_process_of_its_own(tmp_path, records, monkeypatch, tally):
    """Code of one could forge the verdicts on all that come after it; a learner's own chapters share one."""
    monkeypatch.setattr(progress, "Child", Counted)
    monkeypatch.setattr(Counted, "made", [])
    (records / ".progress.json").unlink(missing_ok=True)
    for who in ("ann", "bob"):
        shutil.copytree(records, tmp_path / who)
    paths = [str(next((tmp_path / who).glob("*.ipynb"))) for who in ("ann", "bob")]
    assert len(list(progress.verdicts(progress.select(paths, records), records))) == 8
    assert [child.alive for child in Counted.made] == [False, False]
    list(progress.verdicts(progress.select(["03"], records), records))
    assert len(Counted.made) == 3
    tally("hostile files refused")


# ---------------------------------------------------------------- a class: nbgrader's pages, metadata and file names


class Acting(HTMLParser):
    """What a browser would run or fetch."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found, self.inside = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.inside = tag
        for name, value in attributes:
            if MARK in (value or "") and not value.startswith(("#", "data:image/")):
                self.found.append((tag, name, value))
        if tag in ("iframe", "object", "embed", "form", "svg"):
            self.found.append((tag,))

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside in ("script", "style") and MARK in data:
            self.found.append((self.inside, data))


MARKDOWN = f"""# {JS}
{JS} <img src=x onerror={MARK}> [a](javascript:{MARK}) ![b](attachment:a.png) ![c](attachment:none.png)

<iframe srcdoc='{JS}'></iframe> <svg onload={MARK}> <a href='java\nscript:{MARK}'>b</a>

<div
onclick={MARK}>

    {JS}

```html
{JS}
```

```mermaid
{JS}
```

| {JS} |
| - |
| {JS} |"""
RICH = {kind: f"{JS}<img src=x onerror={MARK}>" for kind in (
    "text/html", "text/markdown", "text/latex", "text/plain", "image/svg+xml", "text/vnd.mermaid")}
RICH |= {kind: f'aaaa"onerror="{MARK}' for kind in ("image/png", "image/jpeg")}
RICH |= {"application/javascript": MARK, "application/vnd.jupyter.widget-view+json": {"model_id": f"</script>{JS}"}}
LOOK = {"width": f"1 onerror={MARK}", "height": f"1 onload={MARK}", "alt": f'"onload="{MARK}', "isolated": True}
OUTPUTS = [
    *({"output_type": "display_data", "data": {kind: data}, "metadata": {kind: LOOK}} for kind, data in RICH.items()),
    {"output_type": "stream", "name": "stdout", "text": f"\x1b[31m{JS}"},
    {"output_type": "error", "ename": JS, "evalue": JS, "traceback": [f"\x1b[31m{JS}"]},
]
CELLS = [
    {"cell_type": "markdown", "metadata": {"tags": [JS]}, "source": MARKDOWN,
     "attachments": {"a.png": {f'image/png"onerror="{MARK}': "aaaa"}}},
    {"cell_type": "raw", "metadata": {"raw_mimetype": "text/html"}, "source": f"{JS}<img src=x onerror={MARK}>"},
    {"cell_type": "code", "execution_count": 1, "source": f"# {JS}", "outputs": OUTPUTS, "metadata": {
        "nbgrader": {"grade": True, "solution": False, "grade_id": "a", "points": 1, "score": 0}}},
]


@pytest.mark.filterwarnings("ignore:Your element")
@pytest.mark.parametrize("template", ["feedback", "formgrade"])
def test_nothing_of_a_hand_in_runs_in_a_teachers_browser(template, tally):
    assert Acting(page(template)).found == [] and page(template).count("&lt;script&gt;") > 5
    found = {kind for kind, *_ in Acting(page(template, configured=False)).found}
    assert found >= {"script", "img", "a", "iframe"}  # this test can see what nbgrader lets through as it comes
    tally("hostile files refused", MARKDOWN.count(MARK) + len(OUTPUTS))


def page(template: str, configured: bool = True) -> str:
    """The hand-in as nbgrader's feedback, or its form for grading, shows it."""
    nbformat, config = pytest.importorskip("nbformat"), pytest.importorskip("traitlets.config")
    exporters, formgrader = (pytest.importorskip(name) for name in (
        "nbconvert.exporters", "nbgrader.server_extensions.formgrader.handlers"))
    c, cells = config.Config(), json.loads(json.dumps(CELLS))
    if configured:
        classroom.configure(c)
    else:  # nbconvert gives up on it
        cells[0]["source"] = MARKDOWN.replace("![c](attachment:none.png)", "")
    c.HTMLExporter.template_name, c.HTMLExporter.extra_template_basedirs = template, [formgrader.template_path]
    c.HTMLExporter.extra_template_paths = [
        str(Path(formgrader.static_path, "node_modules", "bootstrap", "dist", "css"))]
    widgets = {"application/vnd.jupyter.widget-state+json": {"state": {"a": f"</script>{JS}"}}}
    made = {"metadata": {"title": f"</title>{JS}", "widgets": widgets}, "nbformat": 4, "nbformat_minor": 5}
    made["cells"] = [cell | {"id": f"c{number}"} for number, cell in enumerate(cells)]
    known = {"notebook": "04_x", "score": 0, "max_score": 1, "late_penalty": 0}
    resources = {"nbgrader": known, "metadata": {"name": "x"}, "index": 0, "total": 1}
    return exporters.HTMLExporter(config=c).from_notebook_node(nbformat.from_dict(made), resources)[0]


SOUND_METADATA = {"schema_version": 3, "grade_id": "3-1-hidden", "grade": True, "solution": False, "locked": True,
                  "task": False, "points": 1}


@pytest.mark.parametrize("change", [
    None, 5, "x", [], {}, {"grade_id": "a"}, *(SOUND_METADATA | {"grade_id": "3-2-hidden"} | wrong for wrong in (
        {"schema_version": 99}, {"schema_version": 1}, {"schema_version": "x"}, {"schema_version": None},
        {"solution": []}, {"grade_id": ["a"]}, {"grade_id": "../../x"}, {"grade_id": f'">{JS}'}, {"grade": "yes"},
        {"points": "all"}, {"points": -5}, {"points": None},
    )),
], ids=str)
def test_metadata_of_a_hand_in_stop_neither_it_nor_the_class(change, tally):
    nbformat, config = pytest.importorskip("nbformat"), pytest.importorskip("traitlets.config")
    nbgraderformat = pytest.importorskip("nbgrader.nbgraderformat")
    classroom.configure(c := config.Config())
    [copies] = [step for step in c.Autograde.sanitize_preprocessors if step.__name__ == "Copies"]
    made = content("1", "2", nbformat_minor=5)
    for number, metadata in enumerate((change, SOUND_METADATA)):
        made["cells"][number] |= {"id": f"c{number}", "metadata": {"nbgrader": metadata}}
    cleaned, _ = copies().preprocess(nbformat.from_dict(made), {})
    nbgraderformat.MetadataValidator().validate_nb(cleaned)
    assert "nbgrader" not in cleaned.cells[0].metadata and cleaned.cells[1].metadata.nbgrader == SOUND_METADATA
    tally("hostile files refused")


@pytest.mark.parametrize("name", [
    "..", ".", ".hidden", "-rf", "a\nb", "a\x1b[2J", "<b>x", "a&b", 'a"b', "*", "a?b", "[ab]", "_", "", " ", "a\x00b",
])
def test_a_students_name_is_nothing_else(name, tally):
    file = "04_lightning_attention"
    for folder in ("/course/extracted/", "C:\\course\\extracted\\", "/course/../../"):
        found = re.match(classroom.FILE_NAMES, f"{folder}{name}_{file}.ipynb")
        assert found is None or found["student_id"] == "b" and name == "a\nb"
    for good in ("s-17.b", "Zoë Ångström", "O'Brien", "学生", "ann@x.org", "2024001"):
        found = re.match(classroom.FILE_NAMES, f"/x/{good}_{file}.ipynb").groupdict()
        assert found == {"student_id": good, "file_id": file}
    tally("hostile files refused")


# ---------------------------------------------------------------- quizzes

QUESTION = """
[[question]]
text = "a"
[[question.option]]
text = "b"
feedback = "c"
right = true
[[question.option]]
text = "d"
feedback = "e"
"""


@pytest.mark.parametrize("text", [
    "question = 5", "question = [1, 2, 3]", 'question = ["text", "option", "x"]', "question = [[], [], []]",
    QUESTION * 2 + '[[question]]\ntext = "a"\noption = 5', QUESTION * 2 + '[[question]]\ntext = "a"\noption = [5, 6]',
    QUESTION * 2 + '[[question]]\ntext = "a"\noption = ["", ""]', QUESTION * 2 + QUESTION.replace('"a"', "1979-05-27"),
    "a = " + "[" * 5000, "a" * 5_000_000, "\0", "\udcff", QUESTION * 3 + f'more = "{JS}"',
], ids=lambda text: text[-30:])
def test_quizzes_that_are_none_are_refused(tmp_path, refuses, text):
    path = tmp_path / "03.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    refuses("03.toml", load, path)


def test_a_quiz_is_text(tmp_path, refuses):
    path = tmp_path / "03.toml"
    hostile = f"{JS} `{JS}` <img src=x onerror={MARK}> &lt; [a](javascript:{MARK})"
    path.write_text(re.sub('"[a-e]"', f"'{hostile}'", QUESTION) * 3)
    assert Acting(to_html(load(path))).found == []
    path.unlink()
    refuses("cannot be read", load, special("folder", path))


# ---------------------------------------------------------------- corpora: what lies in a downloaded folder


@pytest.fixture
def folder(tmp_path):
    """A folder of eight texts."""
    made = tmp_path / "corpus"
    made.mkdir()
    for number in range(8):
        (made / f"{number}.txt").write_text(f"text {number}\n" * 9)
    return made


def texts(folder) -> list[str]:
    found = folder_corpus(folder)
    return sorted(found.train + found.heldout)


@pytest.mark.parametrize("kind, words", [
    ("outside", "leads out of"), ("device", "leads out of"), ("nowhere", "leads nowhere"), ("loop", "leads nowhere"),
])
def test_links_are_not_followed_out_of_a_corpus(folder, refuses, kind, words):
    path = special(kind, folder / "x.txt")
    refuses(words, folder_corpus, folder)
    path.unlink()
    (folder / "sub").mkdir()
    (folder / "sub" / "etc").symlink_to("/etc")
    refuses("out of", folder_corpus, folder)
    (folder / "sub" / "etc").unlink()
    (folder / "sub" / "up").symlink_to("../..")  # a name alike is not the folder
    refuses("out of", folder_corpus, folder)


def test_links_within_a_corpus_are_files_and_their_loops_end(folder, tally):
    before = texts(folder)
    (folder / "loop").symlink_to(".")
    (folder / "sub").mkdir()
    (folder / "sub" / "again").symlink_to("..")
    assert texts(folder) == before
    (folder / ".store").mkdir()  # as of git-annex
    (folder / ".store" / "blob").write_text("stored")
    (folder / "stored.txt").symlink_to(".store/blob")
    assert texts(folder) == sorted([*before, "stored"])
    (alias := folder.parent / "alias").symlink_to(folder)
    assert folder_corpus(alias).info["sha256"] == folder_corpus(folder).info["sha256"]
    tally("hostile files refused", 2)


@pytest.mark.parametrize("kind", ["fifo", "socket"])
def test_what_is_no_file_is_left_out_of_a_corpus_and_refused_as_one(folder, refuses, kind):
    before = texts(folder)
    path = special(kind, folder / "sub" / "x.txt")
    assert texts(folder) == before
    refuses("cannot be read", load_corpus, str(path))
    refuses("cannot be read", load_corpus, "/dev/null")


@pytest.mark.parametrize("path", ["", "nowhere", "x" * 5000, "a\0b"], ids=lambda path: repr(path[:9]))
def test_a_path_that_is_none_is_refused(refuses, path):
    refuses("does not exist", load_corpus, path)


def after_listing(monkeypatch, change):
    """Something happens between the listing of the files and their reading."""
    listed = corpus_module._files

    def files(root):
        found = list(listed(root))
        change()
        return found

    monkeypatch.setattr(corpus_module, "_files", files)


def fifo_for(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("change, words", [
    (Path.unlink, "No such file"), (lambda path: shutil.rmtree(path.parent), "No such file"),
    (fifo_for, "no file any more"), (lambda path: (path.unlink(), path.mkdir()), "no file any more"),
    (lambda path: path.write_bytes(b"\xff"), "is not UTF-8"),
], ids=["vanishes", "folder vanishes", "becomes a FIFO", "becomes a folder", "becomes binary"])
def test_a_file_that_vanishes_or_turns_while_a_corpus_is_read(folder, refuses, monkeypatch, change, words):
    after_listing(monkeypatch, lambda: change(folder / "3.txt"))
    refuses(words, folder_corpus, folder)


@pytest.mark.parametrize("change", [
    lambda path: path.write_text("other\n" * 99), lambda path: path.write_bytes(b""),
    lambda path: os.replace(path.with_name("4.txt"), path), Path.unlink,
], ids=["grows", "is cut", "is replaced", "vanishes"])
def test_a_file_that_changes_while_it_is_read(folder, refuses, monkeypatch, change):
    changed = folder / "3.txt"

    def opened(path, mode):
        file = open(path, mode)
        if path == changed:
            file.read(5)
            change(changed)
        return file

    monkeypatch.setattr(corpus_module, "open", opened, raising=False)
    refuses("3.txt c", folder_corpus, folder)  # changed while it was read, or cannot be read


@pytest.mark.parametrize("name", ["3.txt", "sub"])
def test_what_may_not_be_read_is_refused(folder, refuses, monkeypatch, name):
    (folder / "sub").mkdir()
    (folder / "sub" / "x.txt").write_text("x")

    def guarded(real):
        def call(path, *arguments):
            if Path(path).name == name:
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *arguments)

        return call

    monkeypatch.setattr(corpus_module, "open", guarded(open), raising=False)  # root may read everything
    monkeypatch.setattr(os, "scandir", guarded(os.scandir))
    refuses(f"{name} cannot be read (Permission denied)", folder_corpus, folder)


LINE = '{"text": "fine"}\n'


@pytest.mark.parametrize("text", [
    DEEP, '{"text": ' + DEEP + "}", '{"text": "a\0b"}', "\0" * 99, r'{"text": "\ud800"}', '{"text": NaN}',
    '{"text": ["a"]}', '{"text": 1' + "0" * 5000 + "}", '{"text": null}', "null", '"text"', '{"text": "a"',
    "{" * 1_000_000,
    b"\xff\xfe" + LINE.encode("utf-16-le"), b"\xef\xbb\xbf" + LINE.encode(), b"\x1f\x8b\x08\0",
], ids=lambda text: str(text[-30:]))
def test_lines_that_are_no_documents_are_refused(tmp_path, refuses, text):
    (tmp_path / "a.jsonl").write_bytes(text if isinstance(text, bytes) else (LINE + text).encode())
    refuses("a.jsonl", folder_corpus, tmp_path)


def test_odd_texts_are_texts(tmp_path, tokenizer, tally):
    """A line of megabytes, NUL spelled out, the spelling of special tokens, a key that comes twice."""
    odd = ["x" * 3_000_000, "a\0b", "<begin_of_document><think>", "\u202e\u2028\x85", "last"]
    lines = [json.dumps({"text": text}) for text in odd[:-1]] + ['{"text": 5, "text": "last"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    found = folder_corpus(tmp_path)
    assert sorted(found.train + found.heldout) == sorted(odd)
    stream = encode_corpus(odd[1:], tokenizer)
    assert int((stream.ids == tokenizer.bod_id).sum()) == len(odd) - 1
    tally("hostile files refused", len(odd))


@pytest.mark.parametrize("name", [
    b"\xff\xfe.txt", b"a\nb.txt", b"a\x1b[2J.txt", b"<script>.txt", b"-rf", b"a" * 250, "é\u202e.txt".encode(),
])
def test_names_of_any_bytes_are_names(folder, name, tally):
    path = folder / os.fsdecode(name)
    path.write_text("odd")
    found = folder_corpus(folder)
    assert "odd" in found.train + found.heldout and json.dumps(found.info)
    tally("hostile files refused")


def test_many_files_and_a_huge_one_that_is_no_text(folder, tally):
    for number in range(10_000):
        (folder / f"tiny{number}").write_text(str(number))
    with open(folder / "weights.bin", "wb") as file:
        file.truncate(2**42)  # takes no room; to read it would take four terabytes
    found = folder_corpus(folder).info
    assert (found["files"], found["skipped"]) == (10_008, 1)
    tally("hostile files refused")


# ---------------------------------------------------------------- a corpus that is another when a run goes on


def test_a_run_goes_on_with_its_own_text_only(tiny_recipe, corpus_folder, tmp_path, refuses, monkeypatch):
    """Refused as often as the text is another, and nothing is touched; with the old text back it goes on."""
    text, out, kept = tmp_path / "text", tmp_path / "run", tmp_path / "kept"
    shutil.copytree(corpus_folder, kept)
    shutil.copytree(kept, text)
    job = pipeline.Job(recipe=replace(tiny_recipe, corpus=str(text)), out=str(out), stages=("pretrain",), quiet=True)
    real = pipeline.encode_corpus

    def encode_and_lose(texts, tokenizer):
        shutil.rmtree(text, ignore_errors=True)
        return real(texts, tokenizer)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "encode_corpus", encode_and_lose)
        pipeline.run(Workers(), job)  # a run has read its text when it starts
    saved = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    job = replace(job, stages=("pretrain", "sft"), resume=True)
    refuses("does not exist", pipeline.check, job)
    refuses("does not exist", pipeline.run, Workers(), job)
    one = text / "module_3.txt"
    for change in (
        lambda: one.write_text(one.read_text() + " "), one.unlink, lambda: one.rename(text / "module_9.txt"),
        lambda: (text / "more.txt").write_text("more"), lambda: one.write_bytes(b"\0" + one.read_bytes()),
        lambda: os.replace(text / "module_4.txt", one), lambda: one.rename(text / ".module_3.txt"),
    ):
        shutil.rmtree(text, ignore_errors=True)
        shutil.copytree(kept, text)
        change()
        refuses("was started on other text", pipeline.run, Workers(), job)
    one.unlink(missing_ok=True)
    one.symlink_to(kept / "module_3.txt")
    refuses("leads out of", pipeline.run, Workers(), job)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == saved
    shutil.rmtree(text)
    shutil.copytree(kept, text)
    pipeline.check(job)
    pipeline.run(Workers(), job)
    assert (out / "sft" / "eval.json").exists()
