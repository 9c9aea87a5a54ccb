"""Learners' functions: what is read from a notebook and what is not, what is said of it, and that `Parts` uses it."""

import inspect
import traceback

import pytest

import minim1
from minim1 import learner
from minim1.errors import UserError
from minim1.parts import Parts, find_part, learners_own


@pytest.fixture
def notebook(tmp_path, write_notebook):
    """notebook(*cells) -> path of work/04_x.ipynb."""
    return lambda *cells: write_notebook(tmp_path / "work" / "04_x.ipynb", *cells)


@pytest.fixture
def functions(notebook):
    return lambda *cells: learner.functions(notebook(*cells))


# ------------------------------------------------------------------------------------------- what is read


def test_imports_definitions_and_constants_are_read_and_nothing_else(functions, capsys):
    found = functions(
        "# Title", "import math\nfrom math import pi as PI\nprint('no')\nraise SystemExit",
        "A, B = 2, (3, [4])\nC: float = -1e-3\nD: int\nclass Box:\n    value = 5\n1 / 0\nhalf = lambda x: x / 2",
        "def f():\n    return math.sqrt(A), PI, B, C, Box.value, half(3)",
    )
    assert sorted(found) == ["f", "half"] and capsys.readouterr().out == ""
    assert found["f"]() == (2**0.5, 3.141592653589793, (3, [4]), -1e-3, 5, 1.5)


def test_the_last_definition_counts(functions):
    found = functions("def f():\n    return 1\nX = 1", "def g():\n    return f(), X", "def f():\n    return 2\nX = 3")
    assert found["g"]() == (2, 3)


def test_a_stub_that_is_written_further_down_is_written(notebook):
    stub, good = "def f():\n    raise NotImplementedError", "def f():\n    return 1"
    read = learner.Notebook(notebook(stub, good))
    assert read.written("f") and read.where("f") == "work/04_x.ipynb, cell 2, line 1"
    assert not learner.Notebook(notebook(good, stub)).written("f")


def test_imported_functions_are_not_the_learners(functions):
    assert functions("from minim1 import lightning_attention as lightning\nfrom math import *\nimport os.path") == {}


@pytest.mark.parametrize("cell", [
    "%matplotlib inline\n%time f()\n!ls 'it\nf?\nx = !ls\ny = %timeit -o f()\ndef f():\n    %time\n    return 1",
    "%%time\ndef f():\n    return 1",
    "def f():\n    return (5\n        % 2)\n%load_ext x",
])
def test_lines_of_ipython_are_passed_over(functions, cell):
    assert functions(cell)["f"]() == 1


def test_a_magic_costs_no_line_number(notebook):
    read = learner.Notebook(notebook("%pwd\n\n@staticmethod\ndef f(): pass"))
    assert read.where("f") == "work/04_x.ipynb, cell 1, line 3"


def test_a_cell_that_does_not_parse_is_named_and_the_others_count(notebook):
    broken = "def f():\n    return ("
    read = learner.Notebook(notebook("# Title", broken, "def g(): return 2", "%%html\n<b>no Python</b>"))
    assert list(read.functions()) == ["g"]
    [problem] = read.problems
    assert "work/04_x.ipynb, cell 2" in problem and "line 2" in problem and "never closed" in problem
    with pytest.raises(UserError, match="cell 2 does not parse"):
        read.written("f")
    assert not read.written("h") and read.where("h") == ""


def test_a_later_broken_cell_hides_an_earlier_definition_but_not_the_reverse(notebook):
    good, bad = "def f():\n    return 1", "def f(:\n    return 2"
    assert learner.Notebook(notebook(bad, good)).written("f")
    for ask in ("written", "where", "function"):
        with pytest.raises(UserError, match="cell 2"):
            getattr(learner.Notebook(notebook(good, bad)), ask)("f")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cells": 3}', '{"cells": [{"cell_type": "code"}]}', "\udcff"])
def test_what_is_no_notebook_gets_a_sentence(tmp_path, text):
    path = tmp_path / "x.ipynb"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match="x.ipynb is not a notebook"):
        learner.functions(path)
    with pytest.raises(UserError, match="y.ipynb cannot be read"):
        learner.functions(tmp_path / "y.ipynb")


def test_a_notebook_may_be_a_dict_with_sources_as_text():
    assert learner.functions({"cells": [{"cell_type": "code", "source": "def f():\n    return 1"}]})["f"]() == 1


# ------------------------------------------------------------------------------------------- what is said


def test_a_computed_global_gets_a_helpful_sentence(functions):
    found = functions("scale = abs(-2)\nlimit = 1\nfor i in range(3): pass", "limit = max(2, 3)",
                      "def f(): return scale\ndef g(): return limit\ndef h(): return i\ndef p(): return nothing, len")
    for name, cell in (("f", "`scale` is computed in cell 1"), ("g", "`limit` is computed in cell 2"), ("h", "`i` is")):
        with pytest.raises(NameError, match=f"{cell}.*literal constants.*argument") as caught:
            found[name]()
        assert len(str(caught.value)) <= 200  # all of it fits into a check's sentence
    with pytest.raises(NameError, match="name 'nothing' is not defined"):
        found["p"]()


def test_what_a_comprehension_or_a_function_binds_is_no_global(functions):
    assert functions("n = 4\nx = [n for n in range(9)]\ndef f(): return n")["f"]() == 4


def test_a_rebound_function_stays(functions):
    assert functions("def f(): return 1\nf = str(f)")["f"]() == 1


def test_a_failing_statement_says_so_where_it_is_used(notebook):
    read = learner.Notebook(notebook(
        "import no_such_package as nsp",
        "def f(): return nsp.x\ndef g(x=nsp.y): return x\ndef h(): return 1\ndef k(x=exit('bye')): return x",
    ))
    found = read.functions()
    assert sorted(found) == ["f", "h"] and found["h"]() == 1
    with pytest.raises(NameError, match="`nsp` is not there, since work/04_x.ipynb, cell 1 failed.*no_such_package"):
        found["f"]()
    with pytest.raises(UserError, match="`g` is not there, since work/04_x.ipynb, cell 2 failed"):
        read.function("g")
    with pytest.raises(UserError, match="`k` is not there.*SystemExit: bye"):
        read.function("k")
    with pytest.raises(UserError, match="defines no function 'm'"):
        read.function("m")


def test_tracebacks_and_inspect_show_the_cell(functions):
    source = "def f(x):\n    # why\n    return 1 / x"
    found = functions("# Title", "%pwd\n" + source)["f"]
    assert inspect.getsource(found).strip() == source
    try:
        found(0)
    except ZeroDivisionError as error:
        shown = "".join(traceback.format_exception(error))
    assert 'File "work/04_x.ipynb, cell 2", line 4' in shown and "return 1 / x" in shown


@pytest.mark.parametrize("body, stub", [
    ('"""Doc."""\n    raise NotImplementedError("exercise 4.2")', True),
    ("raise NotImplementedError", True),
    ("x = 1\n    raise NotImplementedError('exercise 4.2')", True),
    ("if x: return x\n    raise NotImplementedError('exercise 4.2')", True),
    ("return x\n    raise NotImplementedError('exercise 4.2')", False),  # written above the line that was there
    ("if x is None:\n        raise NotImplementedError\n    return x", False),
    ("raise ValueError", False), ("return x", False), ("...", False),
])
def test_stubs(functions, notebook, body, stub):
    source = f"def f(x=None):\n    {body}"
    assert learner.is_stub(source) == learner.is_stub(functions(source)["f"]) == stub
    assert learner.Notebook(notebook(source)).written("f") == (not stub)


def test_functions_without_source_are_no_stubs():
    assert not learner.is_stub(len) and not learner.is_stub("f(")


# ------------------------------------------------------------------------------------------- what results depend on


def test_source_holds_what_a_function_uses_and_nothing_else(notebook):
    cells = ["import torch as t\nimport math\nEPS = 1e-6", "def helper(x): return t.exp(x + EPS)",
             "def f(x): return helper(x)", "def other(): return math.pi"]
    before = learner.Notebook(notebook(*cells)).source("f")
    assert all(word in before for word in ("helper", "torch", "EPS")) and "math" not in before and "other" not in before
    commented = [cells[0], "# Title", *cells[1:3], "print(1)", "def other(): return 0"]
    assert learner.Notebook(notebook(*commented)).source("f") == before
    for changed in (["EPS = 1", *cells], [*cells, "EPS = math.exp(1)"], [*cells, "from torch import *"]):
        assert learner.Notebook(notebook(*changed)).source("f") != before


# ------------------------------------------------------------------------------------------- Parts


def test_parts_take_what_is_written_and_leave_the_rest(tmp_path, write_notebook):
    work = tmp_path / "work"
    stub = "def {}(*a):\n    raise NotImplementedError('exercise 9.9')"
    write_notebook(work / "04_a.ipynb", "def lightning(q, k, v, slopes, **_):\n    return 4", stub.format("router"))
    write_notebook(work / "05_b.ipynb", stub.format("lightning"), "def reward(): return 5", "def rewards(): return 6",
                   "rope = 7")
    write_notebook(work / "06_c.ipynb", "def lightning(): return 6", stub.format("attention"))
    for copy in ("04_a.2026-11-21-1.ipynb", "04_a-Copy1.ipynb", ".hidden.ipynb"):
        write_notebook(work / copy, "def router(): return 0")
    parts = Parts.from_learner(work)
    assert parts.lightning(0, 0, 0, 0) == 4 and [reward() for reward in parts.rewards] == [5]
    theirs = Parts()
    assert all(getattr(parts, name) is getattr(theirs, name) for name in ("router", "attention", "rope", "policy_loss"))
    where = parts.describe()
    assert where["lightning"] == "work/04_a.ipynb, cell 1" and where["rewards"] == "work/05_b.ipynb, cell 2"
    assert where["router"] == "minim1.model.moe" and list(where)[:2] == ["lightning", "attention"]


def test_a_folder_without_notebooks_gives_the_packages_parts(tmp_path):
    assert Parts.from_learner(tmp_path) == Parts()
    with pytest.raises(UserError, match="none is not a folder; .*go.py lab"):
        Parts.from_learner(tmp_path / "none")


def test_a_part_that_cannot_be_read_is_never_replaced_in_silence(tmp_path, write_notebook):
    work = tmp_path / "work"
    write_notebook(work / "04_a.ipynb", "def lightning(:", "def scratch(:")
    with pytest.raises(UserError, match="cell 1 does not parse"):
        Parts.from_learner(work)
    assert learners_own(work, strict=False) == {}
    write_notebook(work / "04_a.ipynb", "def lightning(x=absent): pass")
    with pytest.raises(UserError, match="`lightning` is not there.*absent"):
        Parts.from_learner(work)
    write_notebook(work / "04_a.ipynb", "def scratch(:")
    assert Parts.from_learner(work) == Parts()


def test_a_part_that_calls_a_stub_is_refused_before_it_runs(tmp_path, write_notebook):
    stub = "def inter_block(q):\n    raise NotImplementedError('exercise 4.2')"
    part = "def helper(q): return inter_block(q)\ndef lightning(q, k, v, slopes): return helper(q)"
    work = tmp_path / "work"
    write_notebook(work / "04_a.ipynb", stub, part)
    with pytest.raises(UserError, match="your lightning .*cell 2, line 2.* calls inter_block, .*cell 1, line 1"):
        Parts.from_learner(work)
    assert learners_own(work, strict=False).keys() == {"lightning"}
    for fine in (part.replace("inter_block(q)", "q"), "def lightning(q, inter_block): return inter_block",
                 "def lightning(q):\n    inter_block = q\n    return inter_block"):
        write_notebook(work / "04_a.ipynb", stub, fine)
        assert Parts.from_learner(work).lightning


def test_a_path_may_hold_a_colon(tmp_path, write_notebook):
    path = write_notebook(tmp_path / "a:b" / "04_a.ipynb", "def lightning(): return 1")
    assert find_part("lightning", f"{path}:lightning")() == 1


def test_the_model_runs_on_the_learners_function(tmp_path, write_notebook, make_model):
    import torch

    write_notebook(tmp_path / "work" / "04_a.ipynb", "import minim1\ncalls = []", (
        "def lightning(q, k, v, slopes, *, state=None, document_ids=None):\n    calls.append(1)\n"
        "    return minim1.lightning_attention(q, k, v, slopes, state=state, document_ids=document_ids)"))
    parts, ids = minim1.Parts.from_learner(tmp_path / "work"), torch.arange(10)[None]
    mine = make_model(parts=parts)(ids).logits
    assert len(parts.lightning.__globals__["calls"]) == 1
    torch.testing.assert_close(mine, make_model()(ids).logits)
