"""The builder: stable bytes, exercises out of solutions, refusals, leaks, and what is said of a stored chapter."""

import copy
import json
from types import SimpleNamespace

import pytest

from minim1.course import notebooks
from minim1.course.notebooks.form import SVG, WIDGET, WIDGET_TEXT, _stable_svg
from minim1.errors import UserError

nbformat = pytest.importorskip("nbformat")
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output  # noqa: E402

EXERCISES = {"4.2": SimpleNamespace(id="4.2", name="inter_block", title="Inter block", points=(1, 3))}
CARD = "## Exercise 4.2 · Inter block\nWhat the past adds. Difficulty 2 of 5, 10 minutes."
SOLUTION = '''\
def inter_block(q, state, slopes):
    """The state's share of the output."""
    scale = 1
    ### BEGIN SOLUTION
    steps = torch.arange(1, q.shape[1] + 1)
    return torch.exp(-slopes * steps) * (q @ state)
    ### END SOLUTION'''
CHECK = '''\
check("4.2", inter_block)
### BEGIN HIDDEN TESTS
check("4.2", inter_block, strict=True)
### END HIDDEN TESTS'''
SAID = "# Exercise 4.2: the grader checks more cases here."
HIDDEN = f'{SAID}\n### BEGIN HIDDEN TESTS\ncheck("4.2", inter_block, strict=True, seeds=(1, 2))\n### END HIDDEN TESTS'
HINTS = "<details><summary>Hint 1</summary>\n\nThe first token already decays once.\n</details>"
WHY = "<!-- solution -->\nIt works, since the state was written one token before the block began."


def solution():
    """One exercise between ordinary cells, with the random ids that nbformat gives."""
    return new_notebook(cells=[
        new_markdown_cell("# Lightning\nWhat a state is for."),
        new_code_cell("import torch\n\nfrom minim1.course import check", outputs=[new_output("stream", text="old")]),
        new_markdown_cell(CARD), new_code_cell(SOLUTION), new_code_cell(CHECK), new_code_cell(HIDDEN),
        new_markdown_cell(HINTS), new_markdown_cell(WHY),
        new_code_cell('inter = yours_or_ours("4.2", inter_block)'),
    ])


def completed(notebook=None):
    return notebooks.normalise(notebooks.complete(notebook or solution(), "solutions/04_x.ipynb", EXERCISES))


def ids(notebook):
    return [cell["id"] for cell in notebook["cells"]]


# ---------------------------------------------------------------- bytes


def test_a_changed_word_changes_one_line_of_the_file():
    before = completed()
    after = copy.deepcopy(before)
    after["cells"][0]["source"] = after["cells"][0]["source"].replace("What", "Whatever")
    old, new = (notebooks.to_text(notebooks.normalise(n)).splitlines() for n in (before, after))
    assert len(old) == len(new) and sum(a != b for a, b in zip(old, new)) == 1


def test_a_new_cell_leaves_all_other_ids_alone():
    before = completed()
    after = copy.deepcopy(before)
    after["cells"].insert(1, new_code_cell("import torch"))
    after = notebooks.normalise(after)
    assert [id for id in ids(after) if id in ids(before)] == ids(before)
    assert len(set(ids(after))) == len(ids(after)) and ids(after)[1] == "import-torch-2"


def test_random_ids_give_way_and_chosen_ones_stay():
    texts = ("## The *recurrence*", "---", "deadbeef", "The recurrence", "x", "y", "z")
    cells = [new_markdown_cell(text) for text in texts]
    notebook = new_notebook(cells=cells)
    for cell, id in zip(cells[4:], ("mine", "mine", "3fa85f64-5717-4562-b3fc-2c963f66afa6")):
        cell["id"] = id
    made = notebooks.normalise(notebook)
    assert ids(made) == ["the-recurrence", "cell", "cell-deadbeef", "the-recurrence-2", "mine", "y", "z"]
    assert notebooks.normalise(made) == made


def noisy(seed):
    """A notebook as a run might leave it: everything that `seed` touches is noise."""
    uid = f"{seed:06x}"
    svg = (f'<svg class="main-svg"><defs id="defs-{uid}"><clipPath id="clip{uid}xy"/></defs>'
           f'<g clip-path="url(#clip{uid}xy)"/><use href="#g{uid}"/></svg>')
    widget = {"model_id": f"{seed:032x}", "version_major": 2}
    printed = ["one\ntwo\n"] if seed % 2 else ["one\n", "two\n"]
    outputs = [
        *(new_output("stream", name="stdout", text=part) for part in printed),
        new_output("stream", name="stderr", text=f"warning {seed}"),
        new_output("display_data", {WIDGET: widget, "text/plain": f"VBox({seed})"}),
        new_output("display_data", {SVG: svg, "text/plain": "A picture."}),
        new_output("execute_result", {"text/plain": "3"}, execution_count=seed),
    ]
    cell = new_code_cell("1 + 2", execution_count=seed, metadata={"execution": {"begun": str(seed)}})
    cell["outputs"] = outputs
    return new_notebook(
        cells=[new_markdown_cell("Text."), cell, new_code_cell("y = 1", execution_count=seed + 4)],
        metadata={"widgets": {"state": seed}, "language_info": {"name": "python", "version": f"3.{seed}"}},
    )


def test_what_differs_between_runs_is_gone():
    first, second = (notebooks.normalise(noisy(seed)) for seed in (0xABCDEF, 0x123456))
    assert notebooks.to_text(first) == notebooks.to_text(second)
    nbformat.validate(first)
    stream, widget, picture, result = first["cells"][1]["outputs"]
    assert stream["text"] == "one\ntwo\n"
    assert widget["data"] == {"text/plain": WIDGET_TEXT}
    assert picture["data"][SVG].count("abcdef") == 0 and "defs-" in picture["data"][SVG]
    assert result["execution_count"] == first["cells"][1]["execution_count"] == 1
    assert first["cells"][2]["execution_count"] == 2  # nbval refuses an executed notebook without counts
    assert notebooks.normalise(first) == first


def test_figures_on_one_page_do_not_share_ids():
    pictures = [f'<svg><defs id="defs-abcdef"><clipPath id="clipabcdef"/></defs><path d="{d}"/></svg>' for d in "MZ"]
    first, second = (_stable_svg(picture) for picture in pictures)
    assert first.split("defs-")[1][:6] != second.split("defs-")[1][:6]


def test_a_notebook_that_is_none_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "x.ipynb").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="x.ipynb cannot be read as a notebook"):
        notebooks.read(tmp_path / "x.ipynb")


# ---------------------------------------------------------------- exercises


def test_the_cells_of_an_exercise_get_readable_ids_and_points():
    made = completed()
    assert ids(made)[2:8] == ["4-2-card", "4-2-solution", "4-2-check", "4-2-hidden", "4-2-hints", "4-2-why"]
    marked = {cell["id"]: cell["metadata"]["nbgrader"] for cell in made["cells"] if "nbgrader" in cell["metadata"]}
    points = {id: data.get("points") for id, data in marked.items()}
    assert points == {"4-2-solution": None, "4-2-check": 1, "4-2-hidden": 3}
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in made["cells"] if "outputs" in cell)
    made["cells"].append(new_code_cell("1", id="4-9-check", metadata={"nbgrader": {"grade_id": "4-9-check"}}))
    again = completed(made)  # marks that a cell has no right to go, and a second time nothing else changes
    assert again["cells"][:-1] == made["cells"][:-1] and again["cells"][-1]["metadata"] == {}
    assert ids(again)[-1] == "1"


def test_the_exercise_notebook_is_what_nbgrader_would_make():
    preprocessors = pytest.importorskip("nbgrader.preprocessors")
    from nbgrader.nbgraderformat import MetadataValidator

    made = completed()
    theirs, resources = copy.deepcopy(made), {}
    MetadataValidator().validate_nb(theirs)
    clear = preprocessors.ClearSolutions(code_stub={"python": 'raise NotImplementedError("exercise 4.2")'})
    for step in (preprocessors.LockCells(), clear, preprocessors.ClearOutput(), preprocessors.CheckCellMetadata(),
                 preprocessors.ClearHiddenTests(), preprocessors.CheckCellMetadata()):
        theirs, resources = step.preprocess(theirs, resources)
    theirs["cells"] = [cell for cell in theirs["cells"] if not cell["source"].startswith("<!-- solution -->")]
    assert notebooks.to_text(notebooks.normalise(theirs)) == notebooks.to_text(notebooks.blank(made))


def test_the_exercise_notebook_keeps_the_signature_and_nothing_of_the_answer():
    made = completed()
    blank = notebooks.blank(made)
    by_id = {cell["id"]: cell for cell in blank["cells"]}
    assert by_id["4-2-solution"]["source"].endswith('    scale = 1\n    raise NotImplementedError("exercise 4.2")')
    assert by_id["4-2-check"]["source"] == 'check("4.2", inter_block)'
    assert by_id["4-2-hidden"]["source"] == SAID and "4-2-why" not in by_id
    assert by_id["4-2-check"]["metadata"]["editable"] is False and "editable" not in by_id["4-2-solution"]["metadata"]
    assert notebooks.leaks(made, blank) == []


@pytest.mark.parametrize("line", [
    "steps = torch.arange(1, q.shape[1] + 1)", "Think of `torch.exp(-slopes * steps)  * (q @ state)`? `return "
    "torch.exp(-slopes * steps) * (q @ state)`", 'check("4.2", inter_block, strict=True, seeds=(1, 2))',
    "(It works, since the state was written one token before the block began.)",
])
def test_an_answer_said_elsewhere_is_a_leak(line):
    made = solution()
    made["cells"][0]["source"] += f"\n{line}"
    made = completed(made)
    assert len(notebooks.leaks(made, notebooks.blank(made))) == 1


def test_a_line_that_tells_nothing_is_no_leak():
    made = solution()
    made["cells"][3]["source"] = SOLUTION.replace("    steps =", "    outcome_of_the_past = remembered\n    steps =")
    made["cells"][0]["source"] += "\noutcome_of_the_past = remembered"
    made = completed(made)
    assert notebooks.leaks(made, notebooks.blank(made)) == []


def refused(change):
    made = solution()
    change(made["cells"])
    with pytest.raises(UserError) as refusal:
        completed(made)
    assert "solutions/04_x.ipynb" in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize("index, what", [
    (2, "belongs to no exercise"), (3, "lacks the cell with a solution region"), (4, "lacks its visible check"),
    (5, "lacks the cell with hidden tests only"), (6, "lacks hints"), (7, "lacks the text after <!-- solution -->"),
])
def test_an_exercise_that_lacks_a_piece_is_refused(index, what):
    assert what in refused(lambda cells: cells.pop(index))


@pytest.mark.parametrize("index, old, new, what", [
    (2, "4.2", "4.9", "does not know; expected one of 4.2"),
    (2, "Inter", "Outer", "give both the same title"),
    (3, "inter_block", "outer_block", "does not define inter_block"),
    (3, "    ### END SOLUTION", "", "cell 4 has `### BEGIN SOLUTION` without `### END SOLUTION`"),
    (3, "### BEGIN SOLUTION", "### END SOLUTION", "without its other end before it"),
    (3, "### BEGIN SOLUTION", "# BEGIN SOLUTION", "expected `### BEGIN SOLUTION` alone"),
    (3, "    ### BEGIN SOLUTION", "        ### BEGIN SOLUTION", "is not Python without the solution region"),
    (3, SOLUTION, "### BEGIN SOLUTION\n" + SOLUTION.replace("    ### BEGIN SOLUTION\n", "").replace("    ###", "###"),
     "does not define inter_block with its solution region inside"),
    (4, '"4.2", inter_block)', '"4.2", inner)', "checks something else than exercise 4.2"),
    (4, CHECK, 'check("4.2", inter_block, strict=True)', "strict check in sight"),
    (4, CHECK, 'check("4.2", inter_block)', "no hidden tests"),
    (5, '"4.2"', '"4.1"', "checks something else than exercise 4.2"),
    (6, "The first", "### BEGIN HIDDEN TESTS\nThe first\n### END HIDDEN TESTS\n", "has a region in text"),
])
def test_an_exercise_that_contradicts_itself_is_refused(index, old, new, what):
    assert what in refused(lambda cells: cells[index].update(source=cells[index]["source"].replace(old, new, 1)))


def test_pieces_twice_or_out_of_order_are_refused():
    assert "a second cell of exercise 4.2" in refused(lambda cells: cells.insert(5, copy.deepcopy(cells[4])))
    assert "a second card" in refused(lambda cells: cells.append(copy.deepcopy(cells[2])))
    assert "comes too late" in refused(lambda cells: cells.insert(3, cells.pop(4)))


# ---------------------------------------------------------------- running and checking


CHAPTER = [
    new_markdown_cell("# Four\nSee [the exercises](../solutions/04_x.ipynb)."),
    new_code_cell("import os\nimport plotly.graph_objects as go\nfrom minim1.course.look import show"),
    new_code_cell("import sys\nfrom minim1.course.notebooks import root\nprint('!', file=sys.stderr)\n"
                  "print(os.environ['MINIM1_SCALE'], os.path.samefile(root(), '..'), os.listdir('.'))"),
    new_code_cell("show(go.Figure(go.Scatter(y=[1, 3])), 'A line that rises, 1 < 3.')"),
]


def repository(folder, chapter=CHAPTER):
    """A folder with one chapter and one solution notebook; the chapter has never been run."""
    for part, cells in (("chapters", chapter), ("solutions", solution()["cells"])):
        (folder / part).mkdir()
        (folder / part / "04_x.ipynb").write_text(notebooks.to_text(new_notebook(cells=copy.deepcopy(cells))))
    return folder


@pytest.fixture
def table(monkeypatch):
    """Let the builder know the exercise of these tests only."""
    from minim1.course import checks

    monkeypatch.setattr(checks, "EXERCISES", EXERCISES, raising=False)
    monkeypatch.setattr(checks, "of_chapter", lambda chapter: list(EXERCISES.values()))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A repository whose chapter has been run and stored, and the bytes of another run."""
    pytest.importorskip("nbclient")
    pytest.importorskip("kaleido")
    folder = repository(tmp_path_factory.mktemp("built"))
    path = folder / "chapters/04_x.ipynb"
    try:
        second = notebooks.to_text(notebooks.normalise(notebooks.execute(path)[0]))
    except UserError as error:
        if "Chromium" in str(error):
            pytest.skip(str(error))
        raise
    with pytest.MonkeyPatch.context() as patch:
        from minim1.course import checks

        patch.setattr(checks, "EXERCISES", EXERCISES, raising=False)
        patch.setattr(checks, "of_chapter", lambda chapter: list(EXERCISES.values()))
        assert notebooks.build(folder) == []
    return folder, second


def test_two_runs_of_a_chapter_give_the_same_file(built):
    folder, second = built
    assert (folder / "chapters/04_x.ipynb").read_text(encoding="utf-8") == second


def test_a_run_is_at_the_scale_cpu_and_sees_nothing_of_the_maintainers_folder(built):
    cell = notebooks.read(built[0] / "chapters/04_x.ipynb")["cells"][2]
    assert [output["text"] for output in cell["outputs"]] == ["cpu True []\n"]


def test_a_figure_is_stored_with_a_picture_and_its_alt_text(built):
    output = notebooks.read(built[0] / "chapters/04_x.ipynb")["cells"][3]["outputs"][0]
    picture = output["data"]["image/svg+xml"]
    assert "<title>A line that rises, 1 &lt; 3.</title>" in picture and picture.startswith("<svg")
    assert output["metadata"]["image/svg+xml"] == {"alt": "A line that rises, 1 < 3."}
    assert "http" not in picture.replace("http://www.w3.org/", "")


def test_timing_stands_beside_the_chapters(built):
    timing = json.loads((built[0] / "chapters/timing.json").read_text())
    assert timing["04_x"].keys() == {"code", "words", "seconds", "slowest_cell"} and timing["04_x"]["words"] == 4


@pytest.mark.parametrize("change, said", [
    (lambda n: n["cells"][3]["outputs"][0]["data"].pop(SVG), "without a static picture"),
    (lambda n: n["cells"][3]["outputs"][0].update(metadata={}) or n["cells"][3]["outputs"][0]["data"].update(
        {SVG: "<svg></svg>"}), "without alt text"),
    (lambda n: [cell.update(outputs=[], execution_count=None) for cell in n["cells"][1:]], "stored without outputs"),
    (lambda n: n["cells"][2].update(execution_count=9), "not as the builder leaves it"),
    (lambda n: n["cells"][1].update(source="import os"), "was not run since its code changed"),
    (lambda n: n["cells"][0].update(source="[x](nowhere.ipynb#part)"), "links to nowhere.ipynb"),
    (lambda n: n["cells"][0].update(source="![x](https://example.org/x.png)"), "needs the network"),
    (lambda n: n["cells"][0].update(source="x <img alt='x' src='//example.org/x.png'>"), "needs the network"),
    (lambda n: n["cells"][2]["outputs"].append(new_output("display_data", {"text/html": "<script src='http://x'>"})),
     "needs the network"),
    (lambda n: n["cells"][2]["outputs"].append(new_output("display_data", {"text/html": "<svg><path/></svg>"})),
     "without alt text"),
    (lambda n: n["cells"][2]["outputs"].append(new_output("error", ename="ValueError", evalue="no", traceback=[])),
     "stores the error ValueError"),
    (lambda n: n["cells"][2]["outputs"][0].update(text="x" * 1_500_000), "at most 1.5 MB"),
])
def test_a_stored_chapter_that_is_not_right_is_named(built, tmp_path, change, said):
    folder = tmp_path / "copy"
    for part in ("chapters", "solutions"):
        (folder / part).mkdir(parents=True)
        for path in (built[0] / part).iterdir():
            (folder / part / path.name).write_bytes(path.read_bytes())
    path = folder / "chapters/04_x.ipynb"
    assert notebooks.chapter_problems(path) == []
    notebook = notebooks.read(path)
    change(notebook)
    path.write_text(notebooks.to_text(notebook), encoding="utf-8")
    assert any(said in problem for problem in notebooks.chapter_problems(path))


@pytest.mark.parametrize("source, said", [
    ("1 / 0", r"04_x.ipynb, cell 5 \(bad\) raises ZeroDivisionError"),
    ("fig = go.Figure()\nfig.show()", "without alt text; use minim1.course.show"),
])
def test_a_chapter_that_fails_is_not_stored(tmp_path, table, source, said):
    pytest.importorskip("nbclient")
    folder = repository(tmp_path, [*CHAPTER[:3], new_markdown_cell("."), new_code_cell(source, id="bad")])
    before = (folder / "chapters/04_x.ipynb").read_bytes()
    with pytest.raises(UserError, match=said):
        notebooks.build(folder)
    assert (folder / "chapters/04_x.ipynb").read_bytes() == before


def test_exercises_are_built_alone_and_kept_in_step(tmp_path, table):
    folder = repository(tmp_path)
    assert any("exercises/04_x.ipynb is not what" in p for p in notebooks.build(folder, check=True))
    assert not (folder / "exercises").exists()
    assert notebooks.build(folder, ["04"], exercises_only=True) == []
    exercise = folder / "exercises/04_x.ipynb"
    exercise.write_text(exercise.read_text().replace("Token", "token").replace("check(", "check (", 1))
    (folder / "exercises/05_y.ipynb").write_text(exercise.read_text())
    problems = notebooks.build(folder, check=True, exercises_only=True)
    assert len(problems) == 2 and "05_y.ipynb comes from no notebook" in problems[1]
    exercise.write_text(exercise.read_text().replace("What a state is", "steps = torch.arange(1, q.shape[1] + 1)"))
    assert any("gives away 'steps" in problem for problem in notebooks.build(folder, ["04"], check=True))
    with pytest.raises(UserError, match="no notebook 07"):
        notebooks.build(folder, ["07"])


@pytest.mark.parametrize("text, said", [("[x](gone.md)", "links to gone.md"), ("![x](http://x/y.png)", "the network")])
def test_links_of_solutions_are_followed(tmp_path, table, text, said):
    made = solution()
    made["cells"][0]["source"] = text
    (tmp_path / "solutions").mkdir()
    (tmp_path / "solutions/04_x.ipynb").write_text(notebooks.to_text(made))
    problems = notebooks.build(tmp_path)
    assert len(problems) == 1 and said in problems[0]


def test_a_leak_stops_the_build(tmp_path, table):
    folder = repository(tmp_path)
    path = folder / "solutions/04_x.ipynb"
    path.write_text(path.read_text().replace("The first token", "Take steps = torch.arange(1, q.shape[1] + 1): it"))
    with pytest.raises(UserError, match=r"would give away 'steps = torch.arange"):
        notebooks.build(folder, exercises_only=True)
    assert not (folder / "exercises").exists()


def test_exercises_that_the_notebook_forgot_are_named(tmp_path, table, monkeypatch):
    from minim1.course import checks

    folder = repository(tmp_path)
    monkeypatch.setattr(checks, "of_chapter", lambda chapter: [SimpleNamespace(id="4.3"), *EXERCISES.values()])
    problems = notebooks.build(folder, exercises_only=True)
    assert problems == ["solutions/04_x.ipynb lacks exercise 4.3 of minim1.course.checks"]
