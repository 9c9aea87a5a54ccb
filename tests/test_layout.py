"""The house: who may import whom, what is read from outside, and what works without the optional packages."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import minim1

ROOT = Path(minim1.__file__).parent
OPTIONAL = ("plotly", "ipywidgets", "anywidget", "jupyterlab", "triton", "transformers", "kaleido", "reasoning_gym", "nbformat",
            "trl", "datasets", "accelerate", "fla", "einops")
KERNELS = "model.triton_kernel"  # the one module that is nothing without Triton; imported inside functions only
STAND_IN = "course.triton_here"  # imports Triton at once, and does without where that fails

# Each line may import the lines above it and, between modules without a cycle, its own.
LEVELS = [
    {"errors"}, {"config"}, {"train.settings", "train.files"},  # without torch, for what the command says at once
    {"model"}, {"data", "tasks"},
    {"workers", "generation", "learner"},
    {"train.losses", "train.schedule"},  # pure functions, the defaults of parts
    {"evaluate", "chat", "parts", "agent"},
    {"train"}, {"interop"}, {"report", "doctor"}, {"course"}, {"cli"}, {"__main__"},
]
# Inside a function: the default reward looks its families up, `check` its exercise.
DEFERRED = {("tasks.rewards", "tasks"), ("course.checking", "course.checks")}
# They read what the user set: the command, MINIM1_SCALE; the others hand their environment to processes they start.
READ_THE_ENVIRONMENT = {"cli", "course.scale", "course.notebooks.chapters", "course.safe_kernel"}


def modules():
    """Name within the package ("model.moe", "train") -> syntax tree."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


MODULES = modules()


def imports(tree, everywhere=True):
    """(module, names) of every import; `everywhere=False`: only those that run when the module is imported."""
    pending = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module, tuple(alias.name for alias in node.names)
        elif everywhere or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            pending += ast.iter_child_nodes(node)


def inside(tree, everywhere=True):
    """Modules of the package that a module imports."""
    found = set()
    for module, names in imports(tree, everywhere):
        if module.split(".")[0] != "minim1":
            continue
        rest = module.removeprefix("minim1").removeprefix(".")
        for name in names:
            whole = f"{rest}.{name}".removeprefix(".")
            found.add(whole if whole in MODULES else rest)
        found |= set() if names else {rest}
    return found - {""}


def level(name):
    for depth, group in enumerate(LEVELS):
        if name in group:
            return depth
    for depth, group in enumerate(LEVELS):
        if name.split(".")[0] in group:
            return depth
    raise AssertionError(f"{name} has no place in LEVELS")


def test_imports_go_only_downwards():
    upwards = [
        f"{name} imports {other}"
        for name, tree in MODULES.items() if name
        for other in inside(tree) if level(other) > level(name)
    ]
    assert upwards == []


def test_parts_of_one_level_do_not_need_each_other():
    """Whole folders: data and tasks, report and doctor, ..."""
    sideways = [
        f"{name} imports {other}"
        for name, tree in MODULES.items() if name
        for other in inside(tree)
        if level(other) == level(name) and other.split(".")[0] != name.split(".")[0] and {name, other} != {"chat", "evaluate"}
    ]
    assert sideways == []


def test_there_are_no_cycles():
    order, state = [], {}

    def visit(name, path):
        if state.get(name) == "done":
            return
        assert state.get(name) != "open", " -> ".join([*path, name])
        state[name] = "open"
        for other in sorted(inside(MODULES[name]) & MODULES.keys()):  # imports inside functions count
            if other != name and (name, other) not in DEFERRED:
                visit(other, [*path, name])
        state[name] = "done"
        order.append(name)

    for name in MODULES:
        visit(name, [])
    assert order.index("errors") < order.index("config") < order.index("model.decoder") < order.index("train.rl")
    assert order.index("train.losses") < order.index("parts") < order.index("train.loop")


def reached(name, seen=None):
    """Everything imported, directly or not, when a module is imported."""
    seen = set() if seen is None else seen
    for other in inside(MODULES[name], everywhere=False) & MODULES.keys() - seen:
        seen.add(other)
        reached(other, seen)
    return seen


def test_the_model_knows_nothing_of_data_tasks_or_training():
    for name in MODULES:
        if name.startswith("model"):
            assert {other.split(".")[0] for other in reached(name)} <= {"errors", "config", "model"}


def test_losses_know_tensors_only():
    assert reached("train.losses") <= {"errors", "train", "train.settings"} and reached("train.schedule") <= {"train"}


def test_generation_knows_no_model_class():
    assert {other.split(".")[0] for other in reached("generation")} <= {"errors"}


def test_tasks_and_config_work_without_torch():
    for name in MODULES:
        if name == "config" or name.split(".")[0] == "tasks":
            for module in {name, *reached(name)}:
                outside = {m.split(".")[0] for m, _ in imports(MODULES[module])}
                assert not outside & {"torch", "numpy"}, f"{name} reaches {module}, which imports {outside}"


def test_the_core_does_not_know_the_course():
    """But for the command, which imports it inside a function."""
    know = {name for name in MODULES if name.split(".")[0] != "course"
            and any(other.split(".")[0] == "course" for other in inside(MODULES[name]))}
    assert know == {"cli"}
    assert "course.command" not in reached("cli")


def test_the_command_starts_without_torch_and_the_checks():
    code = "import sys; from minim1.cli import parser; parser(); print(sorted({'torch', 'numpy', 'nbformat'} & sys.modules.keys()))"
    assert in_a_new_interpreter(code).strip() == "[]"


def test_only_the_command_reads_the_environment_or_its_arguments():
    for name, tree in MODULES.items():
        if name in READ_THE_ENVIRONMENT:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                spelled = ast.unparse(node)
                assert spelled not in ("os.environ", "sys.argv", "os.getenv", "os.putenv"), f"{name} reads {spelled}"
        for module, names in imports(tree):
            assert not (module in ("os", "sys") and {"environ", "getenv", "argv"} & set(names)), name


def test_optional_packages_are_imported_only_inside_functions():
    for name, tree in MODULES.items():
        at_once = {module.split(".")[0] for module, _ in imports(tree, everywhere=False)} & set(OPTIONAL)
        assert at_once <= ({"triton"} if name in (KERNELS, STAND_IN) else set()), f"{name} imports {at_once} when it is imported"
        assert name == KERNELS or KERNELS not in reached(name), f"{name} imports {KERNELS} when it is imported"


BLOCK = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {OPTIONAL!r}:
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Block())
"""


def in_a_new_interpreter(code, *options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_everything_imports_without_the_optional_packages():
    """And importing is all that happens: no output, no file, no thread pool started, no random state touched."""
    names = [f"minim1.{name}" if name else "minim1" for name in MODULES if name not in ("__main__", KERNELS)]
    code = BLOCK + f"""
import importlib
import torch
before = torch.get_rng_state(), torch.get_num_threads(), torch.get_default_dtype()
for name in {names!r}:
    importlib.import_module(name)
assert torch.equal(before[0], torch.get_rng_state())
assert before[1:] == (torch.get_num_threads(), torch.get_default_dtype())
import minim1
for name in minim1.__all__:
    assert getattr(minim1, name) is not None
from minim1.report.card import figure
assert figure([]) is None
"""
    assert in_a_new_interpreter(code) == ""


def test_import_minim1_costs_nothing():
    code = "import sys, minim1; print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'numpy', 'tokenizers'}))"
    assert in_a_new_interpreter(code).strip() == "[]"


def test_public_names_are_documented_and_there():
    assert "MiniM1" in dir(minim1) and set(minim1.__all__) <= set(dir(minim1))
    for name in minim1.__all__:
        assert getattr(minim1, name).__doc__, name
    with pytest.raises(AttributeError, match="nothing"):
        minim1.nothing


def test_every_module_and_public_function_says_what_it_does():
    silent = []
    for name, tree in MODULES.items():
        if not ast.get_docstring(tree) and tree.body:
            silent.append(name)
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node):
                silent.append(f"{name}.{node.name}")
    assert set(silent) <= {"__main__", "model.decoder.Decoder", "chat.Settings"}


def test_test_modules_have_names_of_their_own():
    """They are imported without packages, so two of one name would be one."""
    names = [path.stem for path in Path(__file__).parent.rglob("test_*.py")]
    assert len(names) == len(set(names))
