"""`compile_kernel` tells what a GPU's compiler makes of a kernel, on a machine that has no GPU."""

import re
import subprocess

import pytest

pytest.importorskip("triton")
import triton
import triton.language as tl

from minim1.course import compile_kernel as module
from minim1.course.compile_kernel import CompiledKernel, compile_kernel
from minim1.course.safe_kernel import KernelError

SCALE = tl.constexpr(2.0)
PLAIN = 3


@triton.jit
def scaled(x):
    return x * SCALE


@triton.jit
def scale_kernel(x_ptr, out_ptr, n, stride, BLOCK: tl.constexpr = 1024):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + i, scaled(tl.load(x_ptr + i * stride, mask=i < n)), mask=i < n)


@triton.jit
def matmul_kernel(a_ptr, b_ptr, out_ptr, M, N, K, BLOCK: tl.constexpr, BLOCK_K: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None]
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        a = tl.load(a_ptr + i * K + k[None, :])
        b = tl.load(b_ptr + k[:, None] * N + j)
        total += tl.dot(a, b)
    tl.store(out_ptr + i * N + j, total)


SCALE_TYPES = {"x_ptr": "*fp32", "out_ptr": "*fp32", "n": "i32"}
MATMUL_TYPES = {"a_ptr": "*fp16", "b_ptr": "*fp16", "out_ptr": "*fp16", "M": "i32", "N": "i32", "K": "i32"}


def matmul(block, block_k, **options) -> CompiledKernel:
    constants = {"BLOCK": block, "BLOCK_K": block_k}
    return compile_kernel(matmul_kernel, MATMUL_TYPES, constants, divisible=["M", "N", "K"], **options)


def assembled(kernel: CompiledKernel) -> str:
    """What ptxas, asked directly, says about the kernel's PTX."""
    arch = re.search(r"\.target (sm_\w+)", kernel.ptx)[1]
    command = [triton.knobs.nvidia.ptxas.path, "-v", f"-arch={arch}", "-", "-o", "/dev/null"]
    return subprocess.run(command, input=kernel.ptx, text=True, capture_output=True, check=True).stderr


@pytest.mark.parametrize("arch, limit", [(90, 227), (80, 163)])
def test_small_kernel_fits(arch, limit):
    kernel = compile_kernel(scale_kernel, SCALE_TYPES, {"stride": 1}, arch=arch)
    assert kernel.check() is kernel
    assert str(kernel) == (
        f"sm_{arch}: {kernel.registers} registers, no spills, 0 KiB of {limit} KiB shared memory, "
        "0 tensor-core instructions"
    )
    assert kernel.shared_limit == limit * 1024 and f".target sm_{arch}" in kernel.ptx
    said = assembled(kernel)
    assert f"Used {kernel.registers} registers" in said and "0 bytes stack frame" in said


def test_constants_and_divisibility_are_those_of_a_launch():
    def loads(constants, **options):
        return re.findall(r"ld\.global\S*", compile_kernel(scale_kernel, SCALE_TYPES, constants, **options).ptx)

    assert loads({"stride": 1}, divisible=["n"]) == ["ld.global.v4.b32"] * 2  # 1024 floats, 128 threads: 8 each
    assert loads({"stride": 1}) == ["ld.global.b32"] * 8  # n may end within four floats
    assert loads({"stride": 2}, divisible=["n"]) == ["ld.global.b32"] * 8
    assert loads({"stride": 1, "BLOCK": 256}, divisible=["n"], num_warps=2) == ["ld.global.v4.b32"]


@triton.constexpr_function
def next_power_of_two(n):
    return 2 ** len(bin(n - 1)[2:])


def test_functions_of_constants():
    @triton.jit
    def kernel(x_ptr, n: tl.constexpr):
        i = tl.arange(0, next_power_of_two(n))
        tl.store(x_ptr + i, i, mask=i < n)

    compile_kernel(kernel, {"x_ptr": "*i32"}, {"n": 100})


def test_tuples_of_types_and_constants():
    @triton.jit
    def kernel(x_ptr, strides, BLOCK: tl.constexpr):
        i, j = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
        x = x_ptr + i * strides[0] + j * strides[1]
        tl.store(x, tl.load(x) + 1)

    def loads(strides, **options):
        ptx = compile_kernel(kernel, {"x_ptr": "*fp32", "strides": strides}, {"BLOCK": 32}, **options).ptx
        return set(re.findall(r"ld\.global\S*", ptx))

    assert loads(("i32", 1), divisible=["strides"]) == {"ld.global.v4.b32"}
    assert loads(("i32", 1)) == loads(("i32", "i32"), divisible=["strides"]) == {"ld.global.b32"}
    with pytest.raises(KernelError, match="strides has type 'float'"):
        loads(("i32", "float"))


@pytest.mark.parametrize("arch, instruction, buffers", [(90, "wgmma.mma_async", 3), (80, "mma.sync", 2)])
def test_tensor_cores(arch, instruction, buffers):
    kernel = matmul(64, 32, arch=arch, num_stages=3).check()
    assert kernel.tensor_core_instructions == kernel.ptx.count(f"{instruction}.") > 0
    tiles = 2 * 64 * 32 * 2  # bytes of a tile of a and one of b; on sm_80 one of the stages is in registers
    assert buffers * tiles <= kernel.shared_bytes < buffers * tiles + 1024
    assert f"{kernel.shared_bytes / 1024:.0f} KiB of" in str(kernel)


@triton.jit
def normalize_kernel(x_ptr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i)
    tl.store(x_ptr + i, x / tl.sum(x, axis=0))


def test_spills_are_counted_and_refused():
    compile_kernel(normalize_kernel, {"x_ptr": "*fp32"}, {"BLOCK": 2048}, num_warps=1, arch=80).check()
    kernel = compile_kernel(normalize_kernel, {"x_ptr": "*fp32"}, {"BLOCK": 8192}, num_warps=1, arch=80)
    said = assembled(kernel)
    said = re.search(r"(\d+) bytes stack frame, (\d+) .* stores, (\d+) .* loads", said)
    stack, stores, loads = map(int, said.groups())
    assert kernel.stack_bytes == stack > 0
    assert max(stores, loads) / 4 < kernel.spills <= (stores + loads) / 4  # both count, and move 4 bytes or more each
    assert f"{kernel.spills} spill instructions ({kernel.stack_bytes} bytes of stack)" in str(kernel)
    with pytest.raises(KernelError, match="normalize_kernel has more values than registers on sm_80: .* larger"):
        kernel.check()


def test_shared_memory_beyond_the_limit_is_refused():
    kernel = matmul(64, 128, num_stages=6)
    assert kernel.shared_bytes > 163 * 1024
    kernel.check()
    on_a100 = matmul(64, 128, num_stages=7, arch=80)
    with pytest.raises(KernelError, match=f"needs {on_a100.shared_bytes} bytes of shared memory, but sm_80 has 166912"):
        on_a100.check()


# ---- What the interpreter lets pass, and no GPU runs.


@triton.jit
def changes_type(x_ptr):
    total = 0
    for _ in range(4):
        total += 1.5
    tl.store(x_ptr, total)


@triton.jit
def assigns_in_a_branch(x_ptr, n):
    if n > 3:
        value = 1.0
    tl.store(x_ptr, value)


@triton.jit
def asks_a_block(x_ptr):
    if tl.load(x_ptr + tl.arange(0, 16)) > 0:
        tl.store(x_ptr, 1.0)


@triton.jit
def broken_helper(x):
    # the line that is told
    return x + tl.arange(0, 100)


@triton.jit
def uses_broken_helper(x_ptr):
    tl.store(x_ptr + tl.arange(0, 128), broken_helper(1.0))


@triton.jit
def uses_a_plain_global(x_ptr):
    tl.store(x_ptr, PLAIN)


def plain():
    return 1.0


@triton.jit
def calls_plain_python(x_ptr):
    tl.store(x_ptr, plain())


@pytest.mark.parametrize(
    "kernel, function, line, reason",
    [
        (changes_type, changes_type, "for _ in", "Loop-carried variable total has initial type int32 but"),
        (assigns_in_a_branch, assigns_in_a_branch, "tl.store", "value is not defined"),
        (asks_a_block, asks_a_block, "if tl.load", "Boolean value of Tensor with more than one value is ambiguous"),
        (uses_broken_helper, broken_helper, "arange", "arange's range must be a power of 2"),
        (uses_a_plain_global, uses_a_plain_global, "PLAIN", "Cannot access global variable PLAIN"),
        (calls_plain_python, None, None, "Unsupported function referenced: <function plain"),
    ],
)
def test_compile_errors_tell_the_line(kernel, function, line, reason):
    import inspect

    types = {"x_ptr": "*fp32"} | ({"n": "i32"} if "n" in inspect.signature(kernel.fn).parameters else {})
    with pytest.raises(KernelError) as caught:
        compile_kernel(kernel, types)
    where = f"{kernel.fn.__name__}: "
    if function:
        lines, first = inspect.getsourcelines(function.fn)
        (number,) = [first + k for k, text in enumerate(lines) if line in text]
        where = f"{function.fn.__name__}, line {number} `{lines[number - first].strip()}`: "
    assert str(caught.value).startswith(where + reason) and "\n" not in str(caught.value)


def test_dot_with_too_small_k():
    with pytest.raises(KernelError, match=r"matmul_kernel, line \d+ `total \+= tl.dot\(a, b\)`: .*K >= 16"):
        matmul(64, 8)


# ---- Arguments.


@pytest.mark.parametrize(
    "types, constants, options, says",
    [
        (SCALE_TYPES, {}, {}, "this is not so for stride"),
        (SCALE_TYPES, {"stride": 1, "other": 2}, {}, "this is not so for other"),
        (SCALE_TYPES | {"stride": "i32"}, {"stride": 1}, {}, "this is not so for stride"),
        (SCALE_TYPES, {"stride": 1}, {"divisible": ["stride"]}, "divisible in signature; this is not so for stride"),
        (SCALE_TYPES | {"n": "int"}, {"stride": 1}, {}, "scale_kernel: n has type 'int'; write 'fp32', 'i32', ..."),
        (SCALE_TYPES | {"n": "*fp32*"}, {"stride": 1}, {}, "n has type '*fp32*'"),
        (SCALE_TYPES, {"stride": 1}, {"arch": 75}, "arch is 75; it must be one of 80, 90"),
    ],
)
def test_arguments_that_cannot_be(types, constants, options, says):
    with pytest.raises(KernelError) as caught:
        compile_kernel(scale_kernel, types, constants, **options)
    assert says in str(caught.value)


def test_not_a_kernel():
    with pytest.raises(KernelError, match="'scale' is not a kernel; pass the function that @triton.jit decorates"):
        compile_kernel("scale", {})


def test_compiler_that_takes_too_long_is_stopped_and_the_next_call_works():
    @triton.jit
    def unrolled(x_ptr):
        for i in tl.static_range(10**7):
            tl.store(x_ptr + i, i)

    with pytest.raises(KernelError, match="^unrolled: ran out of time; "):
        compile_kernel(unrolled, {"x_ptr": "*i32"}, timeout=0.3)
    compile_kernel(scale_kernel, SCALE_TYPES, {"stride": 1}).check()


def test_also_where_triton_interprets(monkeypatch):
    from triton.runtime.interpreter import InterpretedFunction

    module._worker().stop()
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    kernel = InterpretedFunction(scale_kernel.fn)
    monkeypatch.setitem(globals(), "scaled", InterpretedFunction(scaled.fn))
    assert compile_kernel(kernel, SCALE_TYPES, {"stride": 1}).check().registers > 0
    assert compile_kernel(scale_kernel.fn, SCALE_TYPES, {"stride": 1}).check().registers > 0
