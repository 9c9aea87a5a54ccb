"""Compile a Triton kernel for a GPU that is not here, and see what it would cost there.

Triton brings the whole tool chain (ptxas, cuobjdump, nvdisasm), so that a laptop without a GPU can tell whether a
kernel compiles for an A100 (sm_80) or an H100/H200 (sm_90), how many registers it takes, whether they spill to
slow memory, whether its tiles fit into shared memory, and whether its dots became tensor-core instructions. It
also finds what the interpreter lets pass, such as a dot with K = 8. It does not run anything: use `safe_launch`.
"""

import functools
import re
import subprocess
import tempfile
from dataclasses import dataclass, field

from minim1.course.safe_kernel import (
    KernelError, Worker, available, first_lines, kernel_signature, pack, unpack_kernel,
)

SHARED_LIMIT = {80: 166912, 90: 232448}  # bytes of shared memory that one program can have, by compute capability
QUOTED = re.compile(r"^\w+\((['\"])(.*)\1\)$")  # some of Triton's messages are the repr of an exception
TYPE = re.compile(r"\*?([iu](8|16|32|64)|i1|fp16|bf16|fp32|fp64|fp8e4nv|fp8e5)")


@dataclass(frozen=True)
class CompiledKernel:
    """What a kernel takes on a GPU of compute capability `arch`."""

    name: str
    arch: int
    registers: int  # per thread; 255 is the most there can be
    stack_bytes: int  # per thread
    spills: int  # instructions that move registers to and from the stack
    shared_bytes: int  # per program
    shared_limit: int
    tensor_core_instructions: int  # in the program's text, not how often they run
    ptx: str = field(repr=False)

    def __str__(self):
        return (
            f"sm_{self.arch}: {self.registers} registers, {self._spills()}, "
            f"{self.shared_bytes / 1024:.0f} KiB of {self.shared_limit / 1024:.0f} KiB shared memory, "
            f"{self.tensor_core_instructions} tensor-core instructions"
        )

    def _spills(self):
        if self.spills == 0 == self.stack_bytes:
            return "no spills"
        return f"{self.spills} spill instructions ({self.stack_bytes} bytes of stack)"

    def check(self) -> "CompiledKernel":
        """Itself, for chaining. Raises KernelError if it spills or needs more shared memory than there is."""
        if self.shared_bytes > self.shared_limit:
            raise KernelError(
                f"{self.name} needs {self.shared_bytes} bytes of shared memory, but sm_{self.arch} has "
                f"{self.shared_limit}; make its tiles smaller, or num_stages"
            )
        if self.spills or self.stack_bytes:
            raise KernelError(
                f"{self.name} has more values than registers on sm_{self.arch}: {self._spills()}; make its tiles "
                "smaller, or num_warps larger"
            )
        return self


def compile_kernel(
    kernel, signature: dict, constants: dict | None = None, *, arch: int = 90, num_warps: int = 4, num_stages: int = 2,
    divisible=(), timeout: float = 300.0,
) -> CompiledKernel:
    """Compile `kernel` as a launch with such arguments would, in a process of its own.

    Args:
        kernel: a @triton.jit function of a notebook or a module; it comes along as in `safe_launch`.
        signature: type of each argument that is known at launch only: "*fp32" (pointer), "i32", "fp32", ...; for a
            tuple a tuple of them, in which a constant stands for itself: ("i32", "i32", 1).
        constants: value of each other argument: the tl.constexpr ones, and those that Triton makes constants at a
            launch, which are None and the int 1 (a stride of 1!).
        arch: 80 or 90, the GPU's compute capability times ten.
        num_warps, num_stages: as at the launch.
        divisible: names of the int arguments that are multiples of 16: a launch looks at that too, as it allows
            wider loads. Pointers always count as such, since PyTorch aligns its tensors.
        timeout: seconds that the compiler may take.
    Raises:
        KernelError: one sentence, with the kernel's line, if it does not compile; also where there is no Triton.

    >>> types = {"x_ptr": "*fp32", "y_ptr": "*fp32", "out_ptr": "*fp32", "n": "i32"}
    >>> print(compile_kernel(add_kernel, types, {"BLOCK": 1024}))                   # doctest: +SKIP
    sm_90: 26 registers, no spills, 0 KiB of 227 KiB shared memory, 0 tensor-core instructions
    """
    if reason := available():
        raise KernelError(reason)
    name, call = kernel_signature(kernel)
    parameters = call.parameters
    if arch not in SHARED_LIMIT:
        raise KernelError(f"arch is {arch!r}; it must be one of {', '.join(map(str, SHARED_LIMIT))}")
    defaults = {key: p.default for key, p in parameters.items() if p.default is not p.empty and key not in signature}
    constants = defaults | (constants or {})
    misplaced = parameters.keys() ^ (signature.keys() | constants.keys()) | (signature.keys() & constants.keys())
    misplaced |= set(divisible) - signature.keys()
    if misplaced:
        raise KernelError(
            f"{name}: each of its arguments {', '.join(parameters)} must be in signature or in constants, and those in "
            f"divisible in signature; this is not so for {', '.join(sorted(misplaced))}"
        )
    types, values, attributes = {}, {}, {}  # two by place: (3,) is argument 3, (3, 0) the first in that tuple
    for at, key in enumerate(parameters):
        given = signature.get(key)
        places = {(at, n): x for n, x in enumerate(given)} if isinstance(given, tuple) else {(at,): given}
        for place, kind in places.items():
            if not isinstance(kind, str):
                values[place] = constants.get(key, kind)
            elif not TYPE.fullmatch(kind):
                raise KernelError(f"{name}: {key} has type {kind!r}; write 'fp32', 'i32', ..., '*fp32' for a pointer")
            elif kind.startswith("*") or key in divisible:
                attributes[place] = [["tt.divisibility", 16]]
        kinds = tuple(kind if isinstance(kind, str) else "constexpr" for kind in places.values())
        types[key] = kinds if isinstance(given, tuple) else kinds[0]
    request = pack(kernel), types, pack(values), attributes, arch, {"num_warps": num_warps, "num_stages": num_stages}
    return CompiledKernel(name, arch, shared_limit=SHARED_LIMIT[arch], **_worker().ask(name, request, timeout))


@functools.cache
def _worker() -> Worker:
    return Worker(__name__, interpret=False)


# ---- In the worker.


def run(request) -> dict:
    """Compile; returns the measured fields of `CompiledKernel`."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel, types, values, attributes, arch, options = request
    kernel = unpack_kernel(kernel)
    if not isinstance(kernel, triton.JITFunction):
        kernel = triton.jit(kernel)
    source = ASTSource(kernel, types, unpack_kernel(values), attributes)
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = _output(triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name)
        machine_code = _output(triton.knobs.nvidia.nvdisasm.path, "-c", file.name)
    return {
        "registers": max(map(int, re.findall(r"REG:(\d+)", usage))),
        "stack_bytes": max(map(int, re.findall(r"STACK:(\d+)", usage))),
        "spills": len(re.findall(r"\b(?:STL|LDL)\b", machine_code)),
        "shared_bytes": compiled.metadata.shared,
        "tensor_core_instructions": len(re.findall(r"\bwgmma\.mma_async|\bmma\.sync", compiled.asm["ptx"])),
        "ptx": compiled.asm["ptx"],
    }


def _output(*command) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def explain(name, error) -> str:
    """Why it does not compile, with the innermost line of the kernel, or of a helper, that Triton was at."""
    where = name
    while True:
        source, node = getattr(error, "src", None), getattr(error, "node", None)
        if source and source.strip() in first_lines and hasattr(node, "lineno"):
            function, line = re.match(r"def\s+(\w+)", source)[1], source.splitlines()[node.lineno - 1].strip()
            where = f"{function}, line {first_lines[source.strip()] + node.lineno - 1} `{line}`"
        if error.__cause__ is None:
            break
        error = error.__cause__
    reason = getattr(error, "error_message", None) or str(error) or type(error).__name__
    quoted = QUOTED.match(reason)
    reason = (quoted[2] if quoted else reason).partition(" Note that ")[0]
    return f"{where}: {reason}"
