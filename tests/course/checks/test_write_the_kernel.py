"""The checks of chapter 05 accept what is right, whoever wrote it, and say what is wrong with what is not."""

import inspect
import os
import subprocess
import sys

import pytest
import torch
from tests.course import hand_ins
from tests.mutants import Mutant, run

import minim1
from minim1.course import kernels, safe_kernel
from minim1.course.checking import _check_own, check, run_check
from minim1.course.checks import find
from minim1.course.checks import write_the_kernel as checks
from minim1.course.compile_kernel import compile_kernel
from minim1.learner import functions
from minim1.parts import find_part

pytest.importorskip("triton")
IDS = [exercise.id for exercise in checks.EXERCISES]
ATTENTION = ["5.3", "5.4", "5.5", "5.6"]
IMPORTS = "import torch\nfrom minim1.course.kernels import load_tile, product, store_tile\n" \
          "from minim1.course.triton_here import tl, triton\n\n\n"


def kernel(text, name):
    return functions({"cells": [{"cell_type": "code", "source": IMPORTS + text}]})[name]


@pytest.mark.parametrize("exercise_id", IDS)
def test_blank_none_and_no_kernel_get_what_they_deserve(exercise_id, tmp_path):
    exercise = find(exercise_id)
    path = hand_ins.hand_in(tmp_path / "blank.ipynb", "05", {}, solved=False)
    assert run_check(exercise, hand_ins.function(path, exercise_id)).status == "not started"
    for thing, words in ((None, "None"), (torch.zeros(3), "expected a function"), (max, "put @triton.jit above")):
        result = run_check(exercise, thing)
        assert result.status == "wrong" and words in result.sentence, result
    own = _check_own(exercise, exercise.reference(), (0,))
    assert own.status == "wrong" and "package's own" in own.sentence


@pytest.mark.parametrize("exercise_id", IDS)
def test_without_its_decorator_a_kernel_is_told_so_once_it_is_right(exercise_id, notebook):
    plain = Mutant("", "@triton.jit\n", "")
    result = run(exercise_id, plain, notebook)
    assert result.status == "wrong" and "is a plain function: put @triton.jit" in result.sentence


@pytest.mark.parametrize("name, text, words", [
    ("outside", "    i = tl.arange(0, 1024)\n    tl.store(out + i, tl.load(x + i))", "loads outside of x at"),
    ("endless", "    while M:\n        M = M + 1", "ran out of time"),
    ("PyTorch", "    out.copy_(x)", "raised AttributeError"),
    ("no access", "    row = tl.program_id(0)", "Nothing was stored to out"),
    ("an input", "    tl.store(x, 0.0)", "stores to x, which is an input"),
    ("a wrong name", "    tl.lode(x)", "lode"),
    ("another exercise", "    other()", "calls the function of exercise 5.2, which is not written yet"),
])
def test_a_wrong_kernel_gets_one_sentence(name, text, words, monkeypatch):
    monkeypatch.setattr(checks, "SECONDS", 2)
    arguments = "x, out, M, N, x_row, x_column, out_row, out_column, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr"
    other = '@triton.jit\ndef other():\n    raise NotImplementedError("exercise 5.2")\n\n\n'
    function = kernel(f"{other}@triton.jit\ndef copy_kernel({arguments}):\n{text}\n", "copy_kernel")
    result = run_check(find("5.1"), function)
    assert result.status == "wrong" and words in result.sentence, result
    assert "\n" not in result.sentence


@pytest.mark.parametrize("strict", [False, True])
def test_a_launch_can_be_interrupted(strict, notebook, monkeypatch):
    """Notebook, nbgrader and `go.py check` interrupt what takes too long; a check must not swallow that."""
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(safe_kernel, "safe_launch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        check("5.1", functions(notebook)["copy_kernel"], strict=strict)


def test_what_the_interpreter_accepts_and_no_gpu_does_is_found(notebook):
    changing = Mutant("", "total = tl.zeros((BLOCK, BLOCK), tl.float32)", "total = 0")
    sentence = run("5.2", changing, notebook).sentence
    assert sentence.startswith("The interpreter runs it, but it cannot be compiled for a GPU: matmul_kernel, line ")


@pytest.mark.parametrize("exercise_id", ATTENTION)
def test_addresses_by_hand_are_as_good_as_the_helpers(exercise_id, notebook):
    """Neither the helpers nor their names are asked for, nor the names of the arguments that are passed by place."""
    text = hand_ins.text(exercise_id)
    for helper in ("load_tile", "store_tile", "product"):
        text = text.replace(f"{helper}(", f"my_{helper}(")
    source = (hand_ins.root() / "minim1/course/kernels.py").read_text(encoding="utf-8")
    given = source[source.index("@triton.jit"):source.index("# What stands in")]
    for helper in ("load_tile", "store_tile", "product"):
        given = given.replace(f"def {helper}(", f"def my_{helper}(")
    result = run_check(find(exercise_id), kernel(given + text, find(exercise_id).name))
    assert result.status == "passed", result


@pytest.mark.parametrize("name, pointers", [("forward_kernel", 7), ("dq_kernel", 6), ("dkv_kernel", 9)])
def test_what_stands_in_for_the_learners_fits_into_registers(name, pointers):
    kernel = getattr(kernels, name)
    names = list(inspect.signature(kernel.fn).parameters)
    types = dict(zip(names, [checks.POINTER] * pointers + ["i32"]))
    compile_kernel(kernel, types, {"D": 32, "D_V": 32, "BLOCK": kernels.BLOCK}, num_warps=kernels.WARPS).check()


def test_the_three_kernels_are_the_part_lightning(notebook, tmp_path):
    """As on the command line: --part lightning=work/05_write_the_kernel.ipynb:lightning_by_kernel."""
    path = hand_ins.hand_in(tmp_path / "work" / "05_write_the_kernel.ipynb", "05", {})
    mine = find_part("lightning", f"{path}:lightning_by_kernel")
    torch.manual_seed(0)
    q, k = torch.randn(2, 2, 37, 3, 16)
    v, state = torch.randn(2, 37, 3, 32), torch.randn(2, 3, 16, 32)
    slopes = torch.tensor([0.7, 0.1, 0.0])
    ids = torch.tensor([[-1, 3, 3, -1] + [3] * 16 + [8] * 17, [-1] * 37])
    for document_ids in (None, ids):
        for start in (None, state):
            leaves = [x.clone().requires_grad_() for x in (q, k, v)]
            found = mine(*leaves, slopes, state=start, document_ids=document_ids)
            doubles = [x.double().requires_grad_() for x in (q, k, v)]
            expected = minim1.lightning_attention(
                *doubles, slopes.double(), state=None if start is None else start.double(), document_ids=document_ids)
            for x, y in zip(found, expected):
                torch.testing.assert_close(x.double(), y, rtol=1e-4, atol=1e-4)
            grads = [torch.autograd.grad(sum((x.sin()).sum() for x in pair), inputs)
                     for pair, inputs in ((found, leaves), (expected, doubles))]
            for x, y in zip(*grads):
                torch.testing.assert_close(x.double(), y, rtol=1e-3, atol=1e-3)


def test_without_triton_nothing_is_checked_and_everything_runs(tmp_path):
    """A machine on which `import triton` fails: chapter, blank and solved exercises run to their end."""
    (tmp_path / "triton.py").write_text("raise ImportError('not here')\n", encoding="utf-8")
    root, code = hand_ins.root(), """if True:
        import json, pathlib, sys
        from minim1 import learner
        from minim1.course import checking
        from minim1.course.checks import find
        import IPython.display
        IPython.display.display = lambda *a, **o: None
        names = {}
        for file in sys.argv[1:]:
            for cell in json.loads(pathlib.Path(file).read_text())["cells"]:
                if cell["cell_type"] == "code":
                    exec("".join(cell["source"]), names)
        for file in sys.argv[2:]:
            written = learner.functions(file)
            for exercise in map(find, ("5.1", "5.2", "5.3", "5.4", "5.5", "5.6")):
                print(checking.run_check(exercise, written[exercise.name]).status)
    """
    solved = hand_ins.hand_in(tmp_path / "05_write_the_kernel.ipynb", "05", {})
    files = [*(str(root / part / "05_write_the_kernel.ipynb") for part in ("chapters", "exercises")), str(solved)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(root)]), "MINIM1_SCALE": "smoke"}
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, env=environment,
                          cwd=root / "chapters")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "no Triton here: the twin of forward_kernel ran" in done.stdout
    assert done.stdout.splitlines()[-12:] == ["not started"] * 6 + ["not checked"] * 6
