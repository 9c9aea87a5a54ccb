"""Checks that diagnose: a learner's function is called, compared, and told what is wrong in one sentence.

An exercise's check is one body, a straight line of calls on a `Probe`; its first failure ends it. The layers come in
this order: type, shape, finite, value, gradient, property, edge case; an exception is an error. The same body runs in
the visible cell, which prints and never raises, in graded cells and `go.py check` (`strict=True`), and in the tests of
the package's own functions. Nothing is written to stderr: nbgrader gives a cell that does so no points.
"""

import contextlib
import inspect
import io
import math
import os
import re
import tempfile
import textwrap
import traceback
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minim1.course.comparing import (
    DIGITS, Row, compare, describe_difference, describe_plain, describe_shape, plain, wrong_type,
)
from minim1.errors import UserError
from minim1.learner import is_stub

MARKS = {"passed": "✓", "wrong": "✗", "not started": "○", "not checked": "–"}  # of a result's status


class CheckFailed(AssertionError):
    """Raised by `check(..., strict=True)` unless the function passed; the message is the diagnosis."""


@dataclass(frozen=True)
class Exercise:
    """One row of the table of exercises.

    Fields: id such as "4.2"; name of the function that the learner writes; title; body of the check; reference: gives
        the function that stands in for the learner's; points of the visible and the hidden check; part: field of `Parts`.
    """

    id: str
    name: str
    title: str
    body: Callable[["Probe"], None]
    reference: Callable[[], Callable]
    points: tuple[int, int] = (1, 1)
    part: str | None = None

    @property
    def chapter(self) -> str:
        """ "04" for exercise 4.2."""
        return self.id.split(".")[0].zfill(2)


@dataclass(frozen=True)
class Result:
    """status: "passed", "not started", "wrong" or (no Triton here) "not checked"; sentence and layer say what is wrong; where the function stands."""

    exercise: Exercise
    status: str
    sentence: str = ""
    layer: str = ""
    rows: tuple[Row, ...] = ()
    where: str = ""
    said: str = ""

    @property
    def mark(self) -> str:
        """The status as one sign."""
        return MARKS[self.status]

    def __str__(self) -> str:
        head = f"{self.mark} {self.exercise.id} {self.exercise.name}: {self.status}"
        if self.status == "not started":
            return f"{head}. Write the function in its cell, run that cell, then run this one again."
        place = f" [{self.where}]" if self.where else ""
        lines = [head + (f" ({self.layer})" if self.layer else "") + place, *map(str, self.rows)]
        if self.said:
            lines.append(f"  Note: it wrote to stderr or warned: {self.said}")
        if self.sentence:
            lines.append(f"  {self.sentence}")
        return "\n".join(lines)


class _Stop(Exception):
    """Ends a body: what is wrong, and in which layer."""

    def __init__(self, layer: str, sentence: str, status: str = "wrong") -> None:
        super().__init__(sentence)
        self.layer, self.sentence, self.status = layer, sentence, status


@dataclass
class Probe:
    """What a check's body works with: inputs drawn from the seed, calls of the function, comparisons."""

    exercise: Exercise
    function: Callable
    seed: int = 0
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(zlib.crc32(f"{self.exercise.id}/{self.seed}".encode()))

    # Inputs. The same seed always gives the same ones, whatever else draws random numbers.

    def random(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, generator=self.generator, dtype=torch.float64).to(dtype)

    def size(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def slopes(self, heads: int, low: float = 0.05, high: float = 1.0) -> Tensor:
        """(H,) fp32, different for each head, falling as M1's do."""
        steps = torch.rand(heads, generator=self.generator, dtype=torch.float64).add(0.5).cumsum(0)
        return (high * torch.exp(-math.log(high / low) * steps / steps[-1])).float()

    # Calls

    def call(self, *arguments: Any, **options: Any) -> Any:
        """The function's value; its exceptions and any change it makes to its inputs end the check."""
        given = {**dict(zip(_parameters(self.function), arguments)), **options}
        before = {name: x.detach().clone() for name, x in given.items() if isinstance(x, Tensor)}
        try:
            value = self.function(*arguments, **options)
        except (Exception, SystemExit) as error:
            raise self._raised(error, given) from error
        for name, x in before.items():
            if not torch.equal(x.nan_to_num(), given[name].detach().nan_to_num()):
                raise _Stop("property", f"{self._name} changed its input `{name}` in place; whoever called it still "
                                        f"needs the old values: compute a new tensor instead.")
        return value

    def pair(self, value: Any, names: Sequence[str], shapes: Sequence[Sequence[int]] = ()) -> Sequence[Any]:
        """The value as a tuple with an entry for each name; with `shapes`, told when two have changed places."""
        wanted = ", ".join(names)
        if not isinstance(value, (tuple, list)) or len(value) != len(names):
            given = f"{self._name} returned {_kind(value)}; expected ({wanted})"
            raise _Stop("type", f"{given}: end with `return {wanted}`.")
        for name, entry in zip(names, value):
            if entry is None:
                raise _Stop("type", f"{self._name} returned None in the place of `{name}`; end with `return {wanted}`.")
        got, shapes = [tuple(getattr(entry, "shape", ())) for entry in value], [tuple(shape) for shape in shapes]
        if shapes and got != shapes and got == shapes[::-1]:
            raise _Stop("type", f"The results have changed places: end with `return {wanted}`.")
        return value

    def launch(self, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
        """Run the learner's Triton kernel with `safe_launch`; what it stores is then in the tensors passed."""
        from minim1.course.safe_kernel import KernelError, available, python_function, safe_launch

        if (kernel := python_function(self.function)) is None:
            raise _Stop("type", f"{self._name} is no kernel: put @triton.jit above its `def`.")
        if is_stub(kernel):
            raise _Stop("", "", status="not started")
        if reason := available():
            raise _Stop("", reason, status="not checked")
        try:
            safe_launch(self.function, grid, *arguments, **options)
        except KernelError as error:
            if blank := re.search(r"NotImplementedError: exercise (\d+\.\d+)", str(error)):
                raise self._calls_blank(blank[1]) from error
            known = {**dict(zip(_parameters(kernel), arguments)), **options}
            sizes = ", ".join(f"{name} = {x}" for name, x in known.items() if type(x) is int and name != "timeout")
            said = str(error).replace(", or allow more with timeout=", "")
            raise _Stop("kernel", f"{said}; launched with grid {grid}, {sizes}.") from error

    # Comparisons

    def tensor(self, name: str, value: Any, *, shape: Sequence[int], dtype: torch.dtype | None = None,
               axes: Sequence[str] | None = None) -> Tensor:
        """Type, shape, dtype and finiteness of a value; axes: a letter or name for each dimension, as on the card."""
        if not isinstance(value, Tensor):
            wanted = f"expected a tensor of shape {tuple(shape)}"
            raise _Stop("type", f"The {name} is {_kind(value)}, {wanted}: {_to_tensor(value)}")
        if tuple(value.shape) != tuple(shape):
            raise _Stop("shape", describe_shape(name, tuple(value.shape), tuple(shape), axes))
        if dtype is not None and value.dtype != dtype:
            raise _Stop("type", f"The {name} is {_dtype(value.dtype)}, expected {_dtype(dtype)}.")
        if value.device.type != "cpu":
            raise _Stop("type", f"The {name} is on {value.device}, expected it on the CPU, where the inputs are.")
        if not value.is_floating_point() and (dtype is None or dtype.is_floating_point):
            raise _Stop("type", f"The {name} is {_dtype(value.dtype)}, expected a floating-point tensor.")
        bad = ~value.detach().isfinite()
        if bad.any():
            first = tuple(bad.nonzero()[0].tolist())
            raise _Stop("finite", f"{int(bad.sum())} of {bad.numel()} entries of the {name} are NaN or infinite, the first "
                                  f"at index {first}: look for a division by zero, the exponential of a "
                                  "positive number or the root of a negative one.")
        return value

    def close(self, name: str, value: Any, expected: Tensor, *, mistakes: Mapping[str, Any] | None = None,
              axes: str | None = None, layer: str = "value", tolerance: float | None = None) -> None:
        """Compare with fp64 numbers (or whole numbers, or booleans, which must be equal), and record how well it agrees.

        Args: mistakes: sentence -> the value that this mistake would give, a tensor or a function without arguments;
            axes: a letter for each dimension (default "BTHD" for four), used to say where it differs;
            tolerance: relative to the largest expected value; default by dtype (fp32: 2e-5).
        """
        whole = None if expected.is_floating_point() else expected.dtype
        tolerance = 0.0 if whole else tolerance
        value = self.tensor(name, value, shape=expected.shape, dtype=whole, axes=axes).detach()
        expected = expected.detach()
        row = compare(name, value, expected, tolerance)
        self.rows.append(row)
        if row.grade != "off":
            return
        for sentence, wrong in (mistakes or {}).items():
            wrong = wrong() if callable(wrong) else wrong
            if wrong.shape == value.shape and compare(name, value, wrong.detach(), tolerance).grade != "off":
                raise _Stop(layer, sentence)
        raise _Stop(layer, f"The {name} is not as expected: {describe_difference(value, expected, axes, tolerance)}")

    def equal(self, name: str, value: Any, expected: Any, *, mistakes: Mapping[str, Any] | None = None,
              layer: str = "value") -> None:
        """Compare what is no tensor: a number, a text, a list (or tuple) of such. Records whether it is equal.

        Args: expected: its type is asked for; a tuple may stand for a list, 4.0 for 4. mistakes: sentence -> the value
            that this mistake would give, or a function without arguments.
        """
        if problem := wrong_type(value, expected):
            raise _Stop("type", f"The {name} is {_kind(value)}, {problem}")
        if isinstance(value, float) and not math.isfinite(value):
            raise _Stop("finite", f"The {name} is {'NaN' if math.isnan(value) else 'infinite'}, expected {expected}.")
        same = plain(value) == plain(expected)
        self.rows.append(Row(name, "exact" if same else "off", DIGITS if same else 0, math.nan))
        if same:
            return
        for sentence, wrong in (mistakes or {}).items():
            if plain(value) == plain(wrong() if callable(wrong) else wrong):
                raise _Stop(layer, sentence)
        raise _Stop(layer, f"The {name} is not as expected: {describe_plain(value, expected)}")

    def gradients(self, call: Callable, inputs: Mapping[str, Tensor], expected_call: Callable, *,
                  mistakes: Mapping[str, Any] | None = None) -> None:
        """Compare the gradients of a random projection of all outputs with regard to each of the inputs.

        Args: call(**inputs): the function's output, a tensor or several, usually through `Probe.call`; expected_call: the
            oracle's; mistakes: sentence -> a function like `expected_call` that makes the mistake.
        """
        wanted_outputs, doubles = _run_with_gradients(expected_call, {name: x.double() for name, x in inputs.items()})
        weights = [torch.randn(x.shape, generator=self.generator, dtype=torch.float64) for x in wanted_outputs]
        wanted = _project(wanted_outputs, doubles, weights)
        outputs, leaves = _run_with_gradients(call, inputs)
        outputs = self.pair(outputs, [f"output {n}" for n in range(len(wanted_outputs))])
        for number, (x, expected) in enumerate(zip(outputs, wanted_outputs)):
            self.tensor(f"output {number}" if len(outputs) > 1 else "output", x, shape=expected.shape)
        if not any(x.requires_grad for x in outputs):
            raise _Stop("gradient", f"No gradient flows through {self._name}: its result is cut off from its inputs, as by "
                                    "`.detach()`, `.data`, `.item()`, `torch.no_grad()`, or `torch.tensor(...)` of a tensor.")
        gradients = self.backward(lambda: _project(outputs, leaves, weights))
        for index, (name, gradient, expected) in enumerate(zip(leaves, gradients, wanted)):
            if expected is None:
                expected = torch.zeros_like(inputs[name], dtype=torch.float64)
                gradient = torch.zeros_like(inputs[name]) if gradient is None else gradient
            if gradient is None:
                raise _Stop("gradient", f"No gradient reaches `{name}`, although the output depends on it: somewhere on the "
                                        "way it is detached, or replaced by numbers.")
            wrong = {sentence: (lambda other=other, index=index: _expected_gradients(other, inputs, weights)[index])
                     for sentence, other in (mistakes or {}).items()}
            self.close(f"gradient of {name}", gradient, expected, layer="gradient", mistakes=wrong)

    def backward(self, call: Callable) -> Any:
        """What `call` returns, a backward pass through the function; if torch cannot make it, say why."""
        try:
            return call()
        except RuntimeError as error:
            why = _first_line(error)
            if "modified by an inplace operation" in why:
                why = ("a tensor that it needs was changed in place, as by `x[...] = 0` or `x += 1`: make a new one, as "
                       "`torch.where`, `x.masked_fill(...)` or `x + 1` do")
            raise _Stop("gradient", f"The backward pass through {self._name} fails: {why}.") from error

    def require(self, condition: Any, layer: str, sentence: str) -> None:
        """A property that must hold; the sentence says what does not, and why it should."""
        if not condition:
            raise _Stop(layer, sentence)

    @property
    def _name(self) -> str:
        return self.exercise.name

    def _raised(self, error: BaseException, given: Mapping[str, Any]) -> _Stop:
        """What to say of an exception that left the function."""
        blank = re.fullmatch(r"(?:exercise (\S+))?", str(error)) if isinstance(error, NotImplementedError) else None
        if blank and blank[1] in (None, self.exercise.id):
            return _Stop("", "", status="not started")
        if blank:
            return self._calls_blank(blank[1])
        called = ", when called with " + ", ".join(f"{name} {_shown(x)}" for name, x in given.items()) if given else ""
        raised = f"{type(error).__name__}: {_first_line(error)}{_line_of(error)}"
        return _Stop("error", f"{self._name} raised {raised}{called}.")


    def _calls_blank(self, other: str) -> _Stop:
        return _Stop("type", f"{self._name} calls the function of exercise {other}, which is not written yet: solve that first.")


def run_check(exercise: Exercise, function: Any, seeds: Sequence[int] = (0,)) -> Result:
    """The verdict on a function, whoever wrote it. Raises only what a mistake in the check itself raises."""
    where = place(function)
    if not callable(function):
        sentence = f"{exercise.name} is {_kind(function)}, expected a function."
        return Result(exercise, "wrong", sentence, "type", where=where)
    rows = []
    with _stderr() as said, warnings.catch_warnings(record=True) as caught, torch.enable_grad():
        warnings.simplefilter("always")
        try:
            for seed in seeds:
                rows = []
                exercise.body(Probe(exercise, function, seed, rows))
            verdict = {"status": "passed"}
        except _Stop as stop:
            verdict = {"status": stop.status, "sentence": stop.sentence, "layer": stop.layer}
    words = [str(entry.message) for entry in caught] + said.getvalue().splitlines()
    return Result(exercise, rows=tuple(rows), where=where, said=words[0][:200] if words else "", **verdict)


@contextlib.contextmanager
def _stderr():
    """Collect what goes to stderr, from Python or from beneath it: notebooks also watch descriptor 2."""
    with contextlib.redirect_stderr(io.StringIO()) as said, tempfile.TemporaryFile() as beneath:
        kept = os.dup(2)
        os.dup2(beneath.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            beneath.seek(0)
            said.write(beneath.read().decode(errors="replace"))


def check(exercise_id: str, function: Any = None, *, strict: bool = False, seeds: Sequence[int] = (0,)) -> None:
    """Check a learner's function and print the diagnosis.

    Args: exercise_id such as "4.2"; function: the learner's; seeds: each gives other inputs to the same tests.
    Raises: CheckFailed, with strict=True only, unless the function passed.
    """
    from minim1.course.checks import find

    try:
        result = _check_own(find(exercise_id), function, seeds)
    except UserError as error:
        if strict:
            raise
        print(error)
        return
    if strict:
        if result.status != "passed":
            raise CheckFailed(f"{exercise_id} {result.exercise.name}: {result.sentence or result.status}")
        print(f"✓ {exercise_id} {result.exercise.name}: passed with seeds {', '.join(map(str, seeds))}")
        return
    print(result)
    if result.status == "passed":
        print(f"  More cases: `python3 go.py check {exercise_id}`, once the notebook is saved.")


def yours_or_ours(exercise_id: str, function: Any) -> Callable:
    """The learner's function if it passes its check, else the package's own; says which."""
    from minim1.course.checks import find

    exercise = find(exercise_id)
    result = _check_own(exercise, function, (0,))
    if result.status == "passed":
        print(f"{exercise_id} {exercise.name}: yours [{result.where}]")
        return function
    print(f"{exercise_id} {exercise.name}: minim1's own, because yours is {result.status}")
    return exercise.reference()


def _check_own(exercise: Exercise, function: Any, seeds: Sequence[int]) -> Result:
    """`run_check` that refuses the package's own function under the learner's name."""
    home = getattr(_python(function), "__module__", None) or ""
    if home.split(".")[0] == "minim1":
        sentence = (f"This {exercise.name} is the package's own ({home}), not yours: write it in the cell above and run "
                    "that cell.")
        return Result(exercise, "wrong", sentence, "type", where=place(function))
    return run_check(exercise, function, seeds)


def place(function: Any) -> str:
    """File, or cell, and line where a function is defined; "" if that cannot be told."""
    code = getattr(_python(function), "__code__", None)
    if code is None:
        return ""
    return f"{_file_name(code.co_filename)}, line {code.co_firstlineno}"


def _python(function: Any) -> Any:
    """The Python function inside of what decorators, Triton's too, made of it."""
    from minim1.course.safe_kernel import undecorated

    function = undecorated(function)
    return inspect.unwrap(function) if callable(function) else function


def _file_name(name: str) -> str:
    """A code file as the reader knows it: a notebook cell by its number."""
    try:
        label = get_ipython().compile.format_code_name(name)  # noqa: F821  there in a notebook only
    except (NameError, AttributeError):
        label = None
    if label:
        return " ".join(label)
    path = Path(name)
    return str(path.relative_to(Path.cwd())) if path.is_absolute() and path.is_relative_to(Path.cwd()) else name


def _run_with_gradients(call: Callable, inputs: Mapping[str, Tensor]):
    leaves = {name: x.detach().clone().requires_grad_() for name, x in inputs.items()}
    outputs = call(**leaves)
    return outputs if isinstance(outputs, (tuple, list)) else [outputs], leaves


def _project(outputs, leaves, weights):
    """Gradient of the weighted sum of all outputs for each leaf; None where it does not depend on it."""
    total = sum((x.double() * weight).sum() for x, weight in zip(outputs, weights) if x.requires_grad)
    return torch.autograd.grad(total, list(leaves.values()), allow_unused=True)


def _expected_gradients(expected_call: Callable, inputs: Mapping[str, Tensor], weights):
    outputs, leaves = _run_with_gradients(expected_call, {name: x.double() for name, x in inputs.items()})
    return _project(outputs, leaves, weights)


def _parameters(function: Callable) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


def _to_tensor(value: Any) -> str:
    """What to do about a value that should be a tensor."""
    if value is None:
        return "does the function end with `return`?"
    if isinstance(value, (tuple, list)) and value and all(isinstance(entry, Tensor) for entry in value):
        return "return one tensor; torch.stack or torch.cat makes one of several."
    return "return a torch.Tensor."


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, Tensor):
        return f"one tensor of shape {tuple(value.shape)}"
    return f"{'an' if type(value).__name__[0] in 'aeiou' else 'a'} {type(value).__name__}"


def _shown(value: Any) -> str:
    """An argument in words: tensors, also inside tuples and lists, by shape, half dtypes and models by name, long texts cut."""
    if isinstance(value, (tuple, list)):
        inside = ", ".join(map(_shown, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    if isinstance(value, torch.nn.Module):
        return f"a {type(value).__name__}"
    if not isinstance(value, Tensor):
        return textwrap.shorten(str(value), 200, placeholder=" ...")
    half = value.dtype in (torch.bfloat16, torch.float16)
    return f"{tuple(value.shape)} {_dtype(value.dtype)}" if half else str(tuple(value.shape))


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _first_line(error: BaseException) -> str:
    line = (str(error).strip() or "no message").splitlines()[0]
    return textwrap.shorten(line, 200, placeholder=" …").rstrip(".") if len(line) > 200 else line.rstrip(".")


def _line_of(error: BaseException) -> str:
    """The innermost line of the learner's own code in a traceback: the last frame that is not a library's."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename
              and Path(f.filename).parent != Path(__file__).parent]
    if not frames or not frames[-1].line:
        return ""
    return f" in line {frames[-1].lineno} (`{frames[-1].line}`) of {_file_name(frames[-1].filename)}"
