"""Run a learner's Triton kernel anywhere, so that nothing it does can kill, hang or garble the notebook.

`safe_launch` runs the kernel on the CPU, in Triton's interpreter, in a worker process that stays alive between
launches, and checks every load, store and atomic against the tensors that were passed:

    notebook                                               worker (TRITON_INTERPRET=1)
    source of the kernel and its helpers, its tensors  ->  defines the kernel, runs one program after the other
    copies the results into place, or raises           <-  the tensors written, or one sentence on what is wrong

How an access is checked. In the worker a tensor has no real address: tensor n starts at the made-up address
(n + 1) * 2**48. So a pointer tells whose it is and how far it strayed, whatever lies beside that tensor in real
memory. If it points to an element of just that view (neither beyond its ends nor into the gaps of its strides)
it is translated to the real address; if not, the launch ends there. An access outside never happens.
What a load gives where its mask is off and `other` is not given is undefined on a GPU; here it is NaN (whole
numbers: 0), so that it shows.

The interpreter accepts some kernels that no GPU runs (a dot with K = 8, a variable that changes its type in a
loop): `compile_kernel` finds those.
"""

import ast
import atexit
import functools
import importlib
import inspect
import io
import linecache
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import traceback
import types
import zlib
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from minim1.errors import UserError

LAUNCH_OPTIONS = ("num_warps", "num_stages", "num_ctas", "maxnreg")  # for the compiler; nothing to the interpreter
SLOT_BITS = 48  # a pointer that strayed by less than 2**47 bytes is attributed to the right tensor
GRACE = 5.0  # seconds beyond the timeout until a worker that does not even say so is killed
MOST_PRINTED = 20_000  # characters that one launch may print: an endless loop should not fill the notebook
MADE_UP_FILE = "kernel "  # the file names of functions defined from source begin with this
TRAPS = {  # part of an exception's text -> what to do about it
    "must be Tensor, not tensor": "a kernel has what tl has, not PyTorch: tl.exp, for one",
    "'builtin_function_or_method' object has no attribute": "a kernel has what tl has, not PyTorch: tl.zeros, for one",
    "'int' object is not iterable": "an argument that is a tensor outside is an address in a kernel: tl.load(x + i)",
    "for ** or pow()": "a kernel has no **: take tl.exp",
    "for @:": "a kernel has no @: take tl.dot",
    "'int' object has no attribute": "the interpreter's loop variables are Python ints; write tl.cast(i, tl.int64)",
}


class KernelError(UserError):
    """What is wrong with a kernel or its launch, in one sentence."""


def safe_launch(kernel, grid, /, *args, timeout: float = 60.0, **meta) -> None:
    """`kernel[grid](*args, **meta)`, checked, on the CPU, in a process of its own.

    Args:
        kernel: a @triton.jit function of a notebook or a module (or the plain function in it).
        grid: tuple of 1 to 3 ints, or a function from the dict of arguments to one, as in Triton.
        args, meta: the kernel's arguments. Tensors: on CPU or GPU, any strides, any dtype but bfloat16; what the
            kernel writes appears in them in place. num_warps, num_stages and the like are accepted and ignored.
        timeout: seconds that the kernel may run.
    Raises:
        KernelError: one sentence, and no tensor has changed, if the kernel touches anything but elements of the
            tensors passed, raises, crashes its process, does not end, or cannot run here.

    >>> safe_launch(add_kernel, (4,), x, y, out, BLOCK=256)                         # doctest: +SKIP
    KernelError: add_kernel, line 4 `a = tl.load(x_ptr + i)`: program (3, 0, 0) loads outside of x_ptr at element
    offset 1000; x_ptr has shape (1000,), elements at offsets 0 to 999; 24 of 256 lanes are outside; mask ...
    """
    if reason := available():
        raise KernelError(reason)
    name, signature = kernel_signature(kernel)
    try:
        bound = signature.bind(*args, **{key: value for key, value in meta.items() if key not in LAUNCH_OPTIONS})
    except TypeError as error:
        raise KernelError(f"{name}({', '.join(signature.parameters)}): {error}") from None
    bound.apply_defaults()
    sizes = grid(bound.arguments) if callable(grid) else grid
    if not (isinstance(sizes, tuple) and 1 <= len(sizes) <= 3 and all(isinstance(n, int) and n > 0 for n in sizes)):
        raise KernelError(f"{name}: the grid is {sizes!r}; it must be a tuple of one to three positive ints")
    for key, value in bound.arguments.items():
        if getattr(value, "dtype", None) == torch.bfloat16:
            raise KernelError(
                f"{name}: {key} is bfloat16, which Triton's interpreter gets silently wrong (tl.dot multiplies the "
                f"raw bits); pass {key}.float() or {key}.half()"
            )
    tensors = []
    arguments = {key: pack(value, tensors) for key, value in bound.arguments.items()}
    written, results = _worker().ask(name, (pack(kernel), arguments, sizes, _save(tensors)), timeout)
    for number, result in zip(written, _load(results)):
        tensors[number].untyped_storage().copy_(result.untyped_storage())  # as checked, only elements differ


@functools.cache
def available() -> str:
    """Why no kernel can run here, in one sentence; "" where Triton is installed."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return "Triton is not installed here, so kernels can be read but not run; on Linux `pip install triton` brings it."
    return ""


def _save(tensors) -> bytes:  # unlike pickle, this keeps views of one storage views of one storage
    torch.save(tensors, buffer := io.BytesIO())
    return buffer.getvalue()


def _load(saved: bytes):
    return torch.load(io.BytesIO(saved), map_location="cpu", weights_only=True)


# ---- How a kernel travels: functions by their source, modules by their name, tensors by number, all else by pickle.


def undecorated(kernel):
    """What is inside of what @triton.jit (autotune, heuristics) made of it; anything else as it is."""
    while type(kernel).__module__.startswith("triton.") and hasattr(kernel, "fn"):
        kernel = kernel.fn
    return kernel


def python_function(kernel):
    """The Python function inside of a kernel; None if there is none."""
    kernel = undecorated(kernel)
    return kernel if isinstance(kernel, types.FunctionType) else None


def kernel_signature(kernel):
    function = python_function(kernel)
    if function is None:
        raise KernelError(f"{kernel!r} is not a kernel; pass the function that @triton.jit decorates")
    return function.__name__, inspect.signature(function)


def pack(value, tensors=None, inside=()) -> bytes:
    """`value` as bytes for a worker. Tensors are put into the list `tensors`; without it they are refused."""
    packer = _Packer(buffer := io.BytesIO())
    packer.tensors, packer.inside = tensors, inside
    packer.dump(value)
    return buffer.getvalue()


class _Packer(pickle.Pickler):
    def persistent_id(self, value):
        if isinstance(value, torch.Tensor):
            self.tensors.append(value.detach())
            return "tensor", len(self.tensors) - 1
        if isinstance(value, types.ModuleType):
            return "import", value.__name__
        function = python_function(value)
        if function is None:
            return None
        if str(function.__module__).startswith("triton."):
            return "import", function.__module__, function.__qualname__
        return "define", *_describe(value, function, self.inside)


def _describe(value, function, inside):
    """What a function is made of: what wraps it, its name, first line and source, the globals that it uses."""
    try:
        lines, first_line = inspect.getsourcelines(function)
        source = textwrap.dedent("".join(lines))
        tree = ast.parse(source).body[0]
        if not isinstance(tree, ast.FunctionDef):
            raise SyntaxError
    except (OSError, SyntaxError):
        raise KernelError(
            f"there is no source of {function.__name__}; define it with def, in a notebook cell or a file"
        ) from None
    decorators, tree.decorator_list = tree.lineno - 1, []
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    own = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    own |= {node.id for node in names if isinstance(node.ctx, ast.Store)}
    known = function.__globals__ | inspect.getclosurevars(function).nonlocals
    used = {}
    for name in sorted({node.id for node in names} & known.keys() - own):
        if python_function(known[name]) in (function, *inside):
            continue
        try:
            used[name] = pack(known[name], inside=(*inside, function))
        except KernelError:
            raise
        except Exception:  # pickle raises what it likes
            kind = type(known[name]).__name__
            raise KernelError(
                f"{function.__name__} uses {name}, a {kind} of the notebook, but a kernel can only use its arguments, "
                f"jit functions and constants; pass {name} as an argument"
            ) from None
    wrapper = None if function is value else "constexpr_function" if "Constexpr" in type(value).__name__ else "jit"
    source = "".join(source.splitlines(True)[decorators:])
    return wrapper, function.__name__, first_line + decorators, source, used


class _Unpacker(pickle.Unpickler):
    def persistent_load(self, reference):
        kind, first, *rest = reference
        if kind == "tensor":
            return self.view(first)
        if kind == "define":
            return _define(first, *rest)
        return functools.reduce(getattr, rest, importlib.import_module(first))


def unpack(packed: bytes, view=None):
    """What was packed; `view(n)` is put for tensor n."""
    unpacker = _Unpacker(io.BytesIO(packed))
    unpacker.view = view
    return unpacker.load()


unpack_kernel = functools.lru_cache(maxsize=64)(unpack)  # one that did not change is not defined again
first_lines = {}  # source of a function -> its first line in its cell or file


def _define(wrapper, name, first_line, source, used):
    """A function from its source, with the line numbers that it has in its cell or file."""
    import triton

    file = f"{MADE_UP_FILE}{name} {zlib.crc32(repr((first_line, source)).encode())}"
    linecache.cache[file] = len(source), None, ["\n"] * (first_line - 1) + source.splitlines(True), file
    first_lines[source.strip()] = first_line
    namespace = {key: unpack(packed) for key, packed in used.items()}
    namespace |= {"__name__": "kernel", "triton.language": triton.language}  # Triton looks for this value, by any name
    exec(compile(ast.increment_lineno(ast.parse(source), first_line - 1), file, "exec"), namespace)
    if wrapper is not None:
        namespace[name] = getattr(triton, wrapper)(namespace[name])
    return namespace[name]


# ---- The process in between.


class Worker:
    """A process that answers requests with `module.run`, one at a time; started when needed, replaced when dead."""

    def __init__(self, module: str, interpret: bool):
        self.module, self.interpret, self.process, self.lock = module, interpret, None, threading.Lock()
        atexit.register(self.stop)

    def ask(self, name: str, request, timeout: float):
        """`module.run(request)`, computed there. Raises KernelError if that raises, dies or takes too long."""
        with self.lock:
            try:
                if self.process is None or self.process.poll() is not None:
                    self._start()
                self.connection.send((name, timeout, request))
                if not self.connection.poll(timeout + GRACE):
                    raise KernelError(f"{name} was still running after {timeout:g} s; allow more with timeout=")
                succeeded, answer, printed = self.connection.recv()
            except (EOFError, ConnectionError):
                try:
                    code = self.process.wait(GRACE)
                finally:
                    self.stop()
                how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
                raise KernelError(
                    f"{name} crashed the process that it ran in ({how}); look for what in it is not Triton, or takes "
                    "too much memory; the next launch gets a new process"
                ) from None
            except BaseException:  # Ctrl-C, for one
                self.stop()
                raise
        print(printed, end="")
        if not succeeded:
            raise KernelError(answer)
        return answer

    def _start(self):
        self.stop()
        self.connection, theirs = Pipe()
        code = f"from minim1.course import safe_kernel; safe_kernel.serve({theirs.fileno()}, {self.module!r})"
        path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)])
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                # the notebook's environment, whatever it is, but for these two
                env=os.environ | {"TRITON_INTERPRET": str(int(self.interpret)), "PYTHONPATH": path},
                start_new_session=True,  # Ctrl-C is for the notebook, which then stops this process
            )
        self.connection.recv()  # it has imported what it needs: that is not the kernel's time

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.connection.close()
            self.process = None


@functools.cache
def _worker() -> Worker:
    return Worker(__name__, interpret=True)


def serve(descriptor: int, module: str) -> None:
    """The worker's life: answer requests until the notebook is gone."""
    import triton  # noqa: F401  now, not in the first kernel's time

    module, connection = importlib.import_module(module), Connection(descriptor)
    signal.signal(signal.SIGALRM, _time_is_up)
    connection.send("ready")
    while True:
        try:
            name, timeout, request = connection.recv()
        except EOFError:
            return
        sys.stdout = _Printed()
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, timeout)
                succeeded, answer = True, module.run(request)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except BaseException as error:
            succeeded, answer = False, module.explain(name, error)
        connection.send((succeeded, answer, sys.stdout.getvalue()))


class TimeIsUp(BaseException):
    """Not an Exception, which Triton would wrap."""


def _time_is_up(*_):
    raise TimeIsUp("ran out of time; look for an endless loop, or allow more with timeout=")


class _Printed(io.StringIO):
    def write(self, text):
        return super().write(text) if self.tell() < MOST_PRINTED else 0


# ---- In the worker: one launch.


class _View:
    """A tensor as the kernel gets it: a made-up address, and what may be touched from there."""

    def __init__(self, name, number, tensor):
        self.name, self.number, self.dtype, self.tensor = name, number, tensor.dtype, tensor
        self.address = (number + 1 << SLOT_BITS) + tensor.data_ptr() % 16  # as well aligned as the real one
        span = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride())) if tensor.numel() else 0
        self.elements = np.zeros(span, bool)  # from the first to the last: which offsets are elements, which are gaps
        np.lib.stride_tricks.as_strided(self.elements, tensor.shape, tensor.stride())[...] = True

    def data_ptr(self):  # Triton takes what has this method, and a dtype, for a pointer
        return self.address

    def holds(self, offset, width):
        """Whether the `width` bytes from each byte `offset` on belong to elements."""
        first, last = offset // self.dtype.itemsize, (offset + width - 1) // self.dtype.itemsize
        inside = (first >= 0) & (last < len(self.elements))
        inside[inside] = self.elements[first[inside]] & self.elements[last[inside]]
        return inside

    def __str__(self):
        gaps = "" if self.elements.all() else f", with gaps, as its strides are {self.tensor.stride()}"
        offsets = f"elements at offsets 0 to {len(self.elements) - 1}{gaps}" if len(self.elements) else "no elements"
        return f"{self.name} has shape {tuple(self.tensor.shape)}, {offsets}"


FLOATS = {"fp16": np.float16, "fp32": np.float32, "fp64": np.float64}  # Triton's names
OPERATIONS = (  # of the interpreter: name, what a program does by it, position of the pointers and of the mask
    ("create_masked_load", "loads", 0, 1), ("create_masked_store", "stores", 0, 2),  # other loads and stores call these
    ("create_atomic_cas", "does an atomic", 0, None), ("create_atomic_rmw", "does an atomic", 1, 3),
)


def _guard(builder, views, written):
    """Have the interpreter's `builder` check each pointer of the next launch, and note the tensors written."""

    def guarded(operation, does, pointers_at, mask_at):
        plain = getattr(type(builder), operation)

        def run(*handles, **options):
            handles = list(handles)
            mask = True
            if mask_at is not None:  # `&` can make ints of bools, and the interpreter reads one byte for each place
                given = handles[mask_at]
                mask = np.asarray(given.data)
                if mask.dtype != bool:
                    mask = mask.astype(bool)
                    handles[mask_at] = type(given)(mask, given.dtype)
            handles[pointers_at] = _real(handles[pointers_at], mask, does)
            if operation == "create_masked_load" and handles[2] is None:  # no `other`: the interpreter would take 0
                pointers, kind = handles[0], handles[0].get_element_ty()
                if kind.name in FLOATS:
                    handles[2] = type(pointers)(np.full(pointers.data.shape, np.nan, FLOATS[kind.name]), kind)
            return plain(builder, *handles, **options)

        setattr(builder, operation, run)

    def _real(pointers, mask, does):
        """The pointers with real addresses, where `mask` is set."""
        address, active = pointers.data, np.broadcast_to(mask, pointers.data.shape)
        width = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
        nearest = (address + np.uint64(1 << SLOT_BITS - 1) >> np.uint64(SLOT_BITS)).astype(np.int64) - 1
        nearest = nearest.clip(0, len(views) - 1)
        real = np.zeros_like(address)
        for number in np.unique(nearest[active]):
            view, lanes = views[number], active & (nearest == number)
            offset = (address - np.uint64(view.address)).view(np.int64)
            outside = lanes & ~view.holds(offset, width)
            if outside.any():
                raise KernelError(
                    f"program {builder.grid_idx} {does} outside of {view.name} at element offset "
                    f"{offset[outside][0] // view.dtype.itemsize}; {view}; {outside.sum()} of {active.sum()} lanes are "
                    "outside; mask them, or correct the offsets"
                )
            real[lanes] = np.uint64(view.tensor.data_ptr()) + offset[lanes].view(np.uint64)
            if does != "loads":
                written.add(int(number))
        return type(pointers)(real, pointers.dtype)

    def dot(a, b, *rest):
        if "bf16" in (a.dtype.scalar.name, b.dtype.scalar.name):
            raise KernelError("Triton's interpreter gets a tl.dot of bfloat16 silently wrong; use float16 or float32")
        return type(builder).create_dot(builder, a, b, *rest)

    for operation in OPERATIONS:
        guarded(*operation)
    builder.create_dot = dot


def _truth(tensor, plain) -> bool:
    """What `and` makes of a tensor. The interpreter would take every tile for true."""
    if tensor.handle.data.size > 1 and sys._getframe(1).f_code.co_filename.startswith(MADE_UP_FILE):
        raise KernelError(
            "`and`, `or`, `not`, `if`, and `a < b < c` ask for one answer, and a tile has many; put each comparison in "
            "brackets, and join them with & or |"
        )
    return plain(tensor)


@functools.cache
def _adapt(interpreter):
    """Once in a worker's life: what Triton's interpreter does otherwise than needed here."""
    # It would copy tensors to the host and back; ours are there, and look like tensors only to it.
    interpreter.GridExecutor._init_args_hst = lambda self, args, options: (args, options)
    interpreter.GridExecutor._restore_args_dev = lambda *_: None
    tl, plain = interpreter.tl, interpreter._patch_lang_tensor

    def patch(tensor, *scope):  # before 3.7 it calls int() on an array of one element: an error since NumPy 2.4
        plain(tensor, *scope)
        tensor.__index__ = lambda self: self.handle.data.item()
        tensor.__bool__ = functools.partialmethod(_truth, tensor.__bool__)

    interpreter._patch_lang_tensor = patch
    # It makes tl.load and so on its own during a launch; for good, functions imported one by one are its own as well.
    interpreter._patch_lang(types.SimpleNamespace(__globals__={"tl": tl, "core": tl.core}))


def run(request):
    """One launch: the numbers of the tensors written, and these tensors."""
    from triton.runtime import interpreter

    _adapt(interpreter)
    kernel, arguments, sizes, tensors = request
    tensors, views, written = _load(tensors), {}, set()
    interpreter.interpreter_builder.grid_idx = None  # no program runs yet
    np.seterr(all="ignore")  # a GPU does not warn either
    arguments = {
        name: unpack(value, lambda number: views.setdefault(number, _View(name, number, tensors[number])))
        for name, value in arguments.items()
    }
    _guard(interpreter.interpreter_builder, views, written)
    kernel = unpack_kernel(kernel)
    if isinstance(kernel, types.FunctionType):
        kernel = interpreter.InterpretedFunction(kernel)
    kernel[sizes](**arguments)
    return written, _save([tensors[number] for number in written])


def explain(name, error) -> str:
    """What went wrong, with the innermost line of a kernel that the exception came through, and who called it there."""
    from triton.runtime.interpreter import interpreter_builder

    lines = {}  # in the order of the calls; the exceptions of a chain see the outer ones again
    while True:
        for frame in traceback.extract_tb(error.__traceback__):
            if frame.filename.startswith(MADE_UP_FILE):
                lines[f"{frame.name}, line {frame.lineno} `{frame.line}`"] = None
        if type(error).__name__ != "InterpreterError" or error.__cause__ is None:
            break
        error = error.__cause__
    *outer, where = lines or [name]
    called = f"; called by {outer[0]}" if outer else ""
    if isinstance(error, KernelError):
        return f"{where}: {error}{called}"
    who = "it" if interpreter_builder.grid_idx is None else f"program {interpreter_builder.grid_idx}"
    if isinstance(error, TimeIsUp):
        return f"{where}: {who} {error}{called}"
    remedy = "".join(f"; {remedy}" for trap, remedy in TRAPS.items() if trap in str(error))
    return f"{where}: {who} raised {type(error).__name__}: {error}{remedy}{called}"
