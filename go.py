"""The one command: `python3 go.py train`, `test`, `lab`, `gpu`, or any verb of the minim1 command.

Standard library only. It makes `.venv` when there is none, installs into it again when
pyproject.toml has changed, and hands over. What it has to say goes to stderr, so that stdout is
the verb's alone: `python3 go.py count --preset m1-456b --json` prints JSON and nothing else.
"""

import sys

# Before any import that an older Python does not have; Python 3.6 can still parse this file.
if sys.version_info < (3, 11):
    sys.stderr.write("go.py: this is Python %d.%d, and minim1 needs 3.11 or newer: start go.py "
                     "with one, such as `python3.12 go.py test`.\n" % tuple(sys.version_info[:2]))
    sys.exit(2)

import hashlib
import json
import os
import shutil
import signal
import subprocess
import tomllib
from pathlib import Path

USAGE = """\
usage: python3 go.py VERB [arguments]        (on Windows: py go.py VERB)

  train    train a small MiniMax-M1 from nothing to a reasoning model
  test     run the tests; arguments go to pytest
  lab      copy missing exercises to work/ and open JupyterLab; arguments go to it; `lab --reset 04`
           instead makes a fresh copy of chapter 04's and keeps yours beside it
  check    check your exercises in work/, all or `04` or `4.2`
  progress what is done, and which parts of the model are yours
  mutants  how many wrong solutions the checks reject
  gpu      run the GPU tests with the Python that started go.py, installing nothing; arguments go
           to pytest; then, after `--bench [arguments]`, `minim1 bench`; after `--train
           [arguments]`, train the preset small

Any other verb is the minim1 command's: pretrain, sft, rl, eval, chat, count, bench, claims, doctor, ...
The first use makes .venv and installs into it.
"""
ROOT = Path(__file__).resolve().parent
PROJECT = ROOT / "pyproject.toml"
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "minim1-installed.txt"


def say(sentence):
    print(f"go.py: {sentence}", file=sys.stderr, flush=True)


def stop(sentence, code=2):
    say(sentence)
    raise SystemExit(code)


def call(command, **options):
    """Run a command to its end and return its exit code; signals are the child's to handle.

    Ctrl-C reaches the child by itself and must only not end the wait: the child may be saving a
    checkpoint, and subprocess.run would kill it after a quarter of a second.
    """
    child = subprocess.Popen([str(part) for part in command], **options)
    before = {signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),
              signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: child.terminate())}
    try:
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code  # ended by signal n: 128 + n, as in a shell


def environment(**extra):
    """The child's environment: ours, but waiting OpenMP threads sleep unless the user chose.

    By default they spin, which costs a factor of 20 when a neighbour needs one of the cores.
    """
    return {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, **extra}


def stamp():
    """What a finished install is known by: interpreter and folder, hash of pyproject.toml."""
    return [f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]} in {ROOT}",
            hashlib.sha256(PROJECT.read_bytes()).hexdigest()]


def venv_runs():
    """Whether .venv, ours or the user's, starts, is of this Python version and has pip."""
    probe = f"import sys, pip; sys.exit(sys.version_info[:2] != {tuple(sys.version_info[:2])})"
    try:
        return subprocess.run([PYTHON, "-c", probe], capture_output=True).returncode == 0
    except OSError:
        return False


def would_fetch_cuda(torch):
    """Whether pip would fetch a CUDA build of `torch` onto a Linux without an NVIDIA GPU.

    pip is asked, without downloading: the user's index may well offer a CPU build, and a suitable
    torch may already be there. No answer in time counts as yes.
    """
    if (not sys.platform.startswith("linux") or shutil.which("nvidia-smi")
            or Path("/proc/driver/nvidia").exists()):
        return False
    try:
        answer = subprocess.run(
            [PYTHON, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps", "--retries", "1",
             "--report", "-", torch], capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired:
        return True
    if answer.returncode:
        return False  # the install that follows will say why
    needs = [need for package in json.loads(answer.stdout)["install"]
             for need in package["metadata"].get("requires_dist", [])]
    return any(need.startswith("nvidia-") for need in needs)


def prepare():
    """Leave a .venv of this Python that holds what pyproject.toml asks for."""
    wanted = stamp()
    found = STAMP.read_text(encoding="utf-8").splitlines() if STAMP.exists() else []
    if found == wanted and PYTHON.exists():
        return
    if (found and found[0] != wanted[0]) or not venv_runs():
        say("making .venv anew, since it is another Python's or folder's, or does not run."
            if VENV.exists() else "making .venv.")
        base = getattr(sys, "_base_executable", sys.executable)  # outside of .venv
        code = call([base, "-m", "venv", "--clear", VENV], stdout=sys.stderr)
        if code:
            stop(f"could not make .venv (exit code {code}), see above: Debian and Ubuntu need "
                 "`apt install python3-venv` first.", code)
    STAMP.unlink(missing_ok=True)  # an interrupted install must not look finished
    needs = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    torch = next(need for need in needs if need.startswith("torch"))
    if would_fetch_cuda(torch):
        say("this machine shows no NVIDIA GPU, yet pip may now fetch a CUDA build of torch, "
            "several GB: to avoid it press Ctrl-C, install a CPU build as PyTorch's install page "
            f"says (https://pytorch.org/get-started/locally/) with `{PYTHON} -m pip install "
            f"\"{torch}\"` and its --index-url, and start again.")
    say("installing minim1 into .venv.")
    code = call([PYTHON, "-m", "pip", "install", "--disable-pip-version-check",
                 "--editable", ".[test]"], cwd=ROOT, stdout=sys.stderr)
    if code:
        stop(f"pip could not install minim1 (exit code {code}), see above: it needs a network and "
             f"a platform that has {torch}; the same command goes on from here.", code)
    STAMP.write_text("\n".join(wanted), encoding="utf-8")


def gpu(arguments):
    """The GPU tests, then on request bench and training, with the Python that started go.py."""
    check = "import pytest, torch, sys; sys.exit(not torch.cuda.is_available())"
    if call([sys.executable, "-c", check], stderr=subprocess.DEVNULL):
        stop(f"{sys.executable} has no pytest or no torch that sees a CUDA device: start "
             "`go.py gpu` with a Python where torch.cuda.is_available() is True.")
    marks = [n for n, word in enumerate(arguments) if word in ("--bench", "--train")] + [len(arguments)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    # What passes is recorded where backend="auto" looks it up.
    record = os.environ.get("MINIM1_RECORD_TRITON", str(ROOT / "minim1/model/triton_tested.json"))
    options = {"cwd": ROOT, "env": environment(PYTHONPATH=path, MINIM1_RECORD_TRITON=record)}
    tests = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests"]
    code = call(tests + arguments[:marks[0]], **options)
    if code == 5:  # pytest's "no tests collected"
        say("there are no GPU tests.")
        code = 0
    verbs = {"--bench": ["bench"], "--train": ["train", "--preset", "small"]}
    for start, end in zip(marks, marks[1:]):
        if code == 0:
            verb = verbs[arguments[start]] + arguments[start + 1 : end]
            code = call([sys.executable, "-m", "minim1", *verb], **options)
    return code


def main(arguments):
    verb, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if verb in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if verb == "gpu":
        return gpu(rest)
    prepare()
    if verb == "test":
        return call([PYTHON, "-m", "pytest", "-q", *rest], cwd=ROOT, env=environment())
    if verb == "mutants":
        return call([PYTHON, "-m", "tests.mutants", *rest], cwd=ROOT, env=environment())
    if verb == "lab":
        ours = any(word.startswith("--reset") for word in rest)  # else all of it is JupyterLab's
        command = [PYTHON, "-m", "minim1", "lab", *([] if ours else ["--"]), *rest]
        # page_config.json there hides nbgrader's panels, which the tests bring along, and the question about news
        folders = [os.environ.get("JUPYTER_CONFIG_PATH"), str(ROOT / "minim1/course/jupyter")]
        return call(command, cwd=ROOT, env=environment(JUPYTER_CONFIG_PATH=os.pathsep.join(filter(None, folders))))
    # in the user's folder, since the paths among the arguments are relative to it
    return call([PYTHON, "-m", "minim1", verb, *rest], env=environment())


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
