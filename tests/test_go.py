"""go.py: which command each verb becomes, when .venv is made and filled, what it tells the user.

Each test loads a copy of go.py in a folder of its own. Nothing is installed: `machine` stands in
for every child process and remembers it.
"""

import ast
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

GO = Path(__file__).resolve().parent.parent / "go.py"
PYPROJECT = '[project]\nname = "x"\ndependencies = ["numpy", "torch>=2.11,<2.14"]\n'
CUDA_NEEDS = ['filelock', 'nvidia-cudnn-cu13==9.20.0; platform_system == "Linux"']
posix_only = pytest.mark.skipif(os.name != "posix", reason="the stand-in is a shell script")


def load(folder):
    spec = importlib.util.spec_from_file_location("go_under_test", folder / "go.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "the course"  # a path with a space, as on many a desktop
    folder.mkdir()
    shutil.copy(GO, folder)
    (folder / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return folder


class Machine:
    """Stands in for the child processes of one go.py: `codes` says how each kind ends."""

    def __init__(self, go):
        self.go, self.codes, self.calls = go, {}, []
        self.healthy = True  # whether .venv's Python starts, where there is one
        self.torch_needs = []  # what the torch that pip would fetch depends on; None: pip fails

    @property
    def kinds(self):
        return [kind for kind, *_ in self.calls]

    def call(self, command, **options):
        words = [str(word) for word in command]
        kind = words[2] if words[1] == "-m" else "check"
        self.calls.append((kind, words, options))
        if kind == "venv" and not self.codes.get("venv"):
            shutil.rmtree(self.go.VENV, ignore_errors=True)
            self.go.PYTHON.parent.mkdir(parents=True)
            self.go.PYTHON.touch()
            self.healthy = True
        return self.codes.get(kind, 0)

    def run(self, command, **options):
        if "--dry-run" in command:
            if self.torch_needs == "silence":
                raise subprocess.TimeoutExpired(command, options["timeout"])
            report = {"install": [{"metadata": {"name": "torch", "requires_dist": self.torch_needs}}]}
            code = 1 if self.torch_needs is None else 0
            return SimpleNamespace(returncode=code, stdout="" if code else json.dumps(report))
        if not self.go.PYTHON.exists():
            raise FileNotFoundError(self.go.PYTHON)
        return SimpleNamespace(returncode=0 if self.healthy else 1)


@pytest.fixture
def go(folder):
    return load(folder)


@pytest.fixture
def machine(go, monkeypatch):
    machine = Machine(go)
    monkeypatch.setattr(go, "call", machine.call)
    monkeypatch.setattr(go.subprocess, "run", machine.run)
    monkeypatch.setattr(go.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    return machine


def installed(go, machine):
    go.prepare()
    machine.calls.clear()


# ---------------------------------------------------------------- verbs


def test_usage_lists_the_verbs_and_installs_nothing(go, machine, capsys):
    for arguments in ([], ["--help"], ["-h"], ["help"]):
        assert go.main(arguments) == 0
        text = capsys.readouterr().out
        assert all(f"  {verb} " in text for verb in ("train", "test", "lab", "check", "progress", "mutants", "gpu"))
    assert machine.calls == []


def test_test_runs_pytest_in_the_root(go, machine):
    installed(go, machine)
    machine.codes["pytest"] = 1
    assert go.main(["test", "-k", "router"]) == 1
    [(_, command, options)] = machine.calls
    assert command == [str(go.PYTHON), "-m", "pytest", "-q", "-k", "router"]
    assert options["cwd"] == go.ROOT


@pytest.mark.parametrize("arguments", [["train"], ["count", "--preset", "nano", "--json"], ["frobnicate"]])
def test_other_verbs_go_to_minim1_in_the_users_folder(go, machine, arguments):
    installed(go, machine)
    machine.codes["minim1"] = 2
    assert go.main(arguments) == 2
    [(_, command, options)] = machine.calls
    assert command == [str(go.PYTHON), "-m", "minim1", *arguments]
    assert options.get("cwd") is None and "stdout" not in options


@pytest.mark.parametrize("given, passed_on", [
    ([], ["--"]),
    (["--no-browser", "work"], ["--", "--no-browser", "work"]),  # all of it is JupyterLab's
    (["--reset", "04"], ["--reset", "04"]),
    (["--reset=04"], ["--reset=04"]),
])
def test_lab_is_the_commands_verb_in_the_root(go, machine, given, passed_on):
    installed(go, machine)
    assert go.main(["lab", *given]) == 0
    [(_, command, options)] = machine.calls
    assert command == [str(go.PYTHON), "-m", "minim1", "lab", *passed_on]
    assert options["cwd"] == go.ROOT


def test_lab_hides_the_teachers_panels_and_keeps_the_users_settings(go, machine, monkeypatch):
    installed(go, machine)
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "/mine")
    go.main(["lab"])
    mine, ours = machine.calls[0][2]["env"]["JUPYTER_CONFIG_PATH"].split(os.pathsep)
    folder = Path(__file__).parents[1] / Path(ours).relative_to(go.ROOT)
    settings = json.loads((folder / "labconfig/page_config.json").read_text())
    assert mine == "/mine" and settings["disabledExtensions"]["@jupyter/nbgrader"]


def test_mutants_run_in_the_root_with_the_venvs_python(go, machine):
    installed(go, machine)
    machine.codes["tests.mutants"] = 2
    assert go.main(["mutants", "--json", "4.2"]) == 2
    [(_, command, options)] = machine.calls
    assert command == [str(go.PYTHON), "-m", "tests.mutants", "--json", "4.2"]
    assert options["cwd"] == go.ROOT and "stdout" not in options


def test_waiting_threads_sleep_unless_the_user_chose(go, machine, monkeypatch):
    installed(go, machine)
    for verb in ("test", "lab", "train", "mutants"):  # kernels inherit it from the lab
        go.main([verb])
    assert [options["env"]["OMP_WAIT_POLICY"] for *_, options in machine.calls] == ["PASSIVE"] * 4
    assert machine.calls[0][2]["env"]["PATH"] == os.environ["PATH"]
    assert "OMP_WAIT_POLICY" not in os.environ
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    go.main(["train"])
    assert machine.calls[-1][2]["env"]["OMP_WAIT_POLICY"] == "ACTIVE"


# ---------------------------------------------------------------- gpu


def test_gpu_uses_the_starting_python_and_installs_nothing(go, machine, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "mine")
    assert go.main(["gpu", "-x"]) == 0
    assert machine.kinds == ["check", "pytest"]
    _, command, options = machine.calls[1]
    assert command == [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests", "-x"]
    assert options["env"]["PYTHONPATH"] == str(go.ROOT) + os.pathsep + "mine"
    assert options["env"]["OMP_WAIT_POLICY"] == "PASSIVE" and options["cwd"] == go.ROOT
    assert not go.VENV.exists()


def test_gpu_without_cuda_says_so(go, machine, capsys):
    machine.codes["check"] = 1
    with pytest.raises(SystemExit) as end:
        go.main(["gpu"])
    assert end.value.code == 2 and machine.kinds == ["check"]
    assert "CUDA" in capsys.readouterr().err


def test_gpu_train_follows_passed_tests_only_on_request(go, machine):
    assert go.main(["gpu", "-x", "--train", "--seed", "3"]) == 0
    assert machine.calls[1][1][-2:] == ["tests", "-x"]
    assert machine.calls[2][1] == [sys.executable, "-m", "minim1", "train", "--preset", "small", "--seed", "3"]
    assert machine.calls[2][2]["env"]["PYTHONPATH"] == str(go.ROOT)
    machine.calls.clear()
    machine.codes["pytest"] = 1
    assert go.main(["gpu", "--train"]) == 1
    assert machine.kinds == ["check", "pytest"]


def test_gpu_bench_and_train_come_in_the_order_asked_for(go, machine):
    assert go.main(["gpu", "--bench", "attention", "--seconds", "5", "--train", "--seed", "3"]) == 0
    assert [words[3:] for kind, words, _ in machine.calls if kind == "minim1"] == [
        ["bench", "attention", "--seconds", "5"], ["train", "--preset", "small", "--seed", "3"]
    ]
    assert machine.kinds == ["check", "pytest", "minim1", "minim1"]
    record = Path(machine.calls[1][2]["env"]["MINIM1_RECORD_TRITON"])
    assert record.relative_to(go.ROOT) == Path("minim1/model/triton_tested.json")


def test_gpu_tolerates_that_there_are_no_tests(go, machine, capsys):
    machine.codes.update(pytest=5, minim1=3)
    assert go.main(["gpu"]) == 0
    assert "no GPU tests" in capsys.readouterr().err
    assert go.main(["gpu", "--train"]) == 3


# ---------------------------------------------------------------- .venv


def test_first_use_makes_venv_and_installs_and_the_next_does_not(go, machine):
    go.prepare()
    assert machine.kinds == ["venv", "pip"]
    _, command, options = machine.calls[1]
    assert command[0] == str(go.PYTHON) and command[-2:] == ["--editable", ".[test]"]
    assert options["cwd"] == go.ROOT
    machine.calls.clear()
    go.prepare()
    assert machine.calls == []


def test_changed_pyproject_installs_again_into_the_same_venv(go, machine):
    installed(go, machine)
    (go.ROOT / "pyproject.toml").write_text(PYPROJECT + "# changed\n", encoding="utf-8")
    go.prepare()
    assert machine.kinds == ["pip"]


@pytest.mark.parametrize("first", [True, False])
def test_failed_install_tells_pips_code_and_is_repeated(go, machine, capsys, first):
    if not first:
        installed(go, machine)
        go.PROJECT.write_text(PYPROJECT + "# changed\n", encoding="utf-8")
    machine.codes["pip"] = 23
    with pytest.raises(SystemExit) as end:
        go.main(["train"])
    assert end.value.code == 23 and "minim1" not in machine.kinds
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("go.py: pip could not install minim1 (exit code 23)") and "network" in last
    go.PROJECT.write_text(PYPROJECT, encoding="utf-8")  # what the old stamp was for
    machine.codes.clear()
    machine.calls.clear()
    go.prepare()
    assert machine.kinds == ["pip"]


def test_interrupted_install_leaves_no_stamp(go, machine, monkeypatch):
    installed(go, machine)
    go.PROJECT.write_text(PYPROJECT + "# changed\n", encoding="utf-8")

    def power_cut(command, **options):
        assert not go.STAMP.exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(go, "call", power_cut)
    with pytest.raises(KeyboardInterrupt):
        go.prepare()
    assert not go.STAMP.exists()


def test_a_venv_of_the_users_own_is_kept(go, machine):
    """The remedy against the CUDA build: make .venv, install a CPU torch into it, start go.py."""
    go.PYTHON.parent.mkdir(parents=True)
    go.PYTHON.touch()
    go.prepare()
    assert machine.kinds == ["pip"]


def test_broken_venv_is_made_anew(go, machine, capsys):
    installed(go, machine)
    go.PYTHON.unlink()  # where a link to a removed interpreter points
    go.prepare()
    assert machine.kinds == ["venv", "pip"] and "--clear" in machine.calls[0][1]
    assert "making .venv anew" in capsys.readouterr().err
    machine.calls.clear()
    go.STAMP.unlink()
    machine.healthy = False  # it is there, but does not start or has no pip
    go.prepare()
    assert machine.kinds == ["venv", "pip"]


def test_venv_of_another_python_is_made_anew(go, machine, monkeypatch):
    installed(go, machine)
    monkeypatch.setattr(go.sys, "version_info", (3, 99, 0))
    go.prepare()
    assert machine.kinds == ["venv", "pip"]


def test_moved_folder_makes_venv_anew(go, machine, folder, monkeypatch):
    installed(go, machine)
    moved = load(folder.rename(folder.with_name("moved")))
    there = Machine(moved)
    monkeypatch.setattr(moved, "call", there.call)
    monkeypatch.setattr(moved.subprocess, "run", there.run)
    moved.prepare()
    assert there.kinds == ["venv", "pip"]


def test_python_without_venv_gets_one_sentence(go, machine, capsys):
    machine.codes["venv"] = 1
    with pytest.raises(SystemExit) as end:
        go.prepare()
    assert end.value.code == 1 and machine.kinds == ["venv"]
    assert "python3-venv" in capsys.readouterr().err


def test_real_probe_tells_a_running_python_from_none(go, monkeypatch):
    monkeypatch.setattr(go, "PYTHON", Path(sys.executable))
    assert go.venv_runs()
    monkeypatch.setattr(go, "PYTHON", go.ROOT / "nothing")
    assert not go.venv_runs()
    monkeypatch.setattr(go, "PYTHON", Path(sys.executable))
    monkeypatch.setattr(go.sys, "version_info", (3, 99, 0))
    assert not go.venv_runs()


# ---------------------------------------------------------------- the warning before gigabytes


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has CUDA builds by default")
@pytest.mark.parametrize("needs, warned", [
    (CUDA_NEEDS, True),
    (["filelock", "jinja2"], False),  # a CPU build
    (None, False),  # no network: the install says so
    ("silence", True),
])
def test_warning_only_when_pip_would_fetch_cuda(go, machine, monkeypatch, capsys, needs, warned):
    monkeypatch.setattr(go.shutil, "which", lambda name: None)
    machine.torch_needs = needs
    go.prepare()
    text = capsys.readouterr().err
    assert ("several GB" in text) == warned
    assert machine.kinds == ["venv", "pip"], "the warning must not stop the install"
    if warned:
        assert "torch>=2.11,<2.14" in text and str(go.PYTHON) in text and "pytorch.org" in text


def test_no_question_to_pip_where_there_is_a_gpu_or_no_linux(go, machine, monkeypatch):
    machine.torch_needs = CUDA_NEEDS
    assert not go.would_fetch_cuda("torch")  # `machine` has nvidia-smi
    monkeypatch.setattr(go.shutil, "which", lambda name: None)
    monkeypatch.setattr(go.sys, "platform", "win32")
    assert not go.would_fetch_cuda("torch")


# ---------------------------------------------------------------- real children


@pytest.fixture
def stand_in(folder):
    """A folder whose .venv/bin/python is a script: pip chatters, minim1 prints JSON."""
    go = load(folder)
    go.PYTHON.parent.mkdir(parents=True)
    go.PYTHON.write_text(f"""#!/bin/sh
case "$*" in
  *--dry-run*) echo '{{"install": []}}' ;;
  *"-m pip"*) echo "Collecting noise" ;;
  *"minim1 sleep"*) exec "{sys.executable}" "{folder}/sleep.py" ;;
  *"minim1"*) echo '{{"policy": "'$OMP_WAIT_POLICY'"}}'; exit 7 ;;
esac
""", encoding="utf-8")
    go.PYTHON.chmod(0o755)
    return folder


@posix_only
def test_stdout_is_the_verbs_alone(stand_in):
    done = subprocess.run([sys.executable, "go.py", "count", "--json"], cwd=stand_in,
                          capture_output=True, text=True)
    assert done.returncode == 7
    assert json.loads(done.stdout) == {"policy": "PASSIVE"}
    assert "Collecting noise" in done.stderr and "installing minim1" in done.stderr


@posix_only
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_the_childs_to_handle(stand_in, number):
    """A child that needs longer than a moment to save is waited for, and there is no traceback."""
    (stand_in / "sleep.py").write_text(
        "import signal, sys, time\n"
        "def save(*_):\n    time.sleep(0.4); print('saved'); sys.exit(9)\n"
        "signal.signal(signal.SIGINT, save); signal.signal(signal.SIGTERM, save)\n"
        "print('ready', flush=True); time.sleep(20)\n", encoding="utf-8")
    process = subprocess.Popen([sys.executable, "go.py", "sleep"], cwd=stand_in, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    assert process.stdout.readline() == "ready\n"
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # a terminal sends Ctrl-C to the whole group
    else:
        process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert out == "saved\n" and process.returncode == 9
    assert "Traceback" not in err


@posix_only
def test_child_ended_by_a_signal_gives_a_shells_code(go):
    assert go.call([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]) == 137
    assert go.call([sys.executable, "-c", "raise SystemExit(3)"]) == 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# ---------------------------------------------------------------- old Pythons


def test_old_python_gets_one_sentence(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    monkeypatch.setitem(sys.modules, "tomllib", None)  # 3.9 has none
    with pytest.raises(SystemExit) as end:
        load(folder)
    assert end.value.code == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and "3.9" in text and "3.11" in text


def test_old_python_can_parse_the_file():
    ast.parse(GO.read_text(encoding="utf-8"), feature_version=(3, 6))


def test_standard_library_only():
    names = {name for node in ast.walk(ast.parse(GO.read_text(encoding="utf-8")))
             for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import)
                          else [node.module] if isinstance(node, ast.ImportFrom) else [])}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names
