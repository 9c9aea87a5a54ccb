"""Whatever a kernel does, `safe_launch` either gives the right numbers or says in one sentence what is wrong.

Every report is provoked by a kernel that really does it; after each, a correct kernel must still run.
"""

import ctypes
import inspect
import os
import signal
import threading
import time

import pytest
import torch

pytest.importorskip("triton")
import triton
import triton.language as tl

from minim1.course import safe_kernel
from minim1.course.safe_kernel import KernelError, safe_launch

FACTOR = 3
SHIFT = tl.constexpr(0.5)
WEIGHTS = torch.ones(4)
NAN = float("nan")


# ---- Correct kernels.


@triton.jit
def scaled(x):
    return x * FACTOR


@triton.jit
def add_kernel(x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr = 256):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i, mask=i < n)  # where masked, i may point anywhere
    y = tl.load(y_ptr + i, mask=i < n)
    tl.store(out_ptr + i, scaled(x) + y + SHIFT, mask=i < n)


@triton.jit
def copy_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + i, tl.load(x_ptr + i, mask=i < n, other=0), mask=i < n)


@triton.jit
def matmul_kernel(
    a_ptr, b_ptr, out_ptr, M, N, K, a_row, a_col, b_row, b_col, out_row, out_col, BLOCK: tl.constexpr
):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None]
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, K, BLOCK):
        k = start + tl.arange(0, BLOCK)
        a = tl.load(a_ptr + i * a_row + k[None, :] * a_col, mask=(i < M) & (k[None, :] < K), other=0)
        b = tl.load(b_ptr + k[:, None] * b_row + j * b_col, mask=(k[:, None] < K) & (j < N), other=0)
        total += tl.dot(a, b)
    tl.store(out_ptr + i * out_row + j * out_col, total, mask=(i < M) & (j < N))


@triton.jit
def softmax_kernel(x_ptr, out_ptr, columns, BLOCK: tl.constexpr):
    row, j = tl.program_id(0), tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * columns + j, mask=j < columns, other=float("-inf"))
    e = tl.exp(x - tl.max(x, axis=0))
    tl.store(out_ptr + row * columns + j, e / tl.sum(e, axis=0), mask=j < columns)


def assert_alive():
    """A correct kernel runs and gives the right numbers."""
    x, y, out = torch.randn(1000), torch.randn(1000), torch.full((1000,), NAN)
    safe_launch(add_kernel, (4,), x, y, out, 1000)
    torch.testing.assert_close(out, 3 * x + y + 0.5)


def report(kernel, grid, *args, **options) -> str:
    """The sentence that a launch ends with; no tensor may have changed, and the next launch must work."""
    before = [x.clone() if isinstance(x, torch.Tensor) else x for x in args]
    with pytest.raises(KernelError) as caught:
        safe_launch(kernel, grid, *args, **options)
    for new, old in zip(args, before):
        assert not isinstance(new, torch.Tensor) or torch.equal(new, old)
    assert_alive()
    message = str(caught.value)
    assert "\n" not in message
    return message


def at(kernel, text) -> str:
    """How a report begins that is about the line of `kernel` with `text` in it."""
    lines, first = inspect.getsourcelines(kernel.fn)
    (number,) = [first + k for k, line in enumerate(lines) if text in line]
    return f"{kernel.fn.__name__}, line {number} `{lines[number - first].strip()}`: "


def worker():
    return safe_kernel._worker()


def test_vector_add_takes_along_its_helper_and_constants():
    assert_alive()


def test_second_launch_is_in_the_same_process():
    process, x = worker().process.pid, torch.ones(4)
    safe_launch(copy_kernel, (1,), x, x, 4, BLOCK=4, timeout=0.2)
    time.sleep(0.3)  # its time is over, but so is the kernel
    assert_alive()
    assert worker().process.pid == process


def test_only_tensors_that_were_written_come_back(monkeypatch):
    answers, ask = [], safe_kernel.Worker.ask
    monkeypatch.setattr(safe_kernel.Worker, "ask", lambda *args: answers.append(ask(*args)) or answers[-1])
    safe_launch(copy_kernel, (1,), torch.ones(4), torch.zeros(4), 4, BLOCK=4)
    assert answers[0][0] == {1}


def test_kernels_of_one_name_do_not_mix():
    def first():
        @triton.jit
        def kernel(x_ptr):
            tl.store(x_ptr + 1, 1.0)

        return kernel

    def second():
        @triton.jit
        def kernel(x_ptr):
            tl.store(x_ptr + 2, 2.0)

        return kernel

    x = torch.zeros(3)
    for kernel in (first(), second()):
        safe_launch(kernel, (1,), x)
    assert x.tolist() == [0, 1, 2]
    assert report(first(), (1,), torch.zeros(1)).startswith(at(first(), "x_ptr + 1"))


def test_grid_may_be_a_function_of_the_arguments_and_launch_options_are_ignored():
    x, out = torch.randn(100), torch.full((100,), NAN)
    grid = lambda meta: (triton.cdiv(meta["n"], meta["BLOCK"]),)
    safe_launch(copy_kernel, grid, x, out_ptr=out, n=100, BLOCK=16, num_warps=8, num_stages=3)
    assert torch.equal(out, x)


@pytest.mark.parametrize("kind", ["JITFunction", "InterpretedFunction", "plain"])
def test_what_triton_made_of_the_kernel_does_not_matter(kind):
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    make = {"JITFunction": JITFunction, "InterpretedFunction": InterpretedFunction, "plain": lambda function: function}
    x, out = torch.randn(20), torch.full((20,), NAN)
    safe_launch(make[kind](copy_kernel.fn), (1,), x, out, 20, BLOCK=32)
    assert torch.equal(out, x)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool"])
def test_dtypes(dtype):
    dtype = getattr(torch, dtype)
    x, out = torch.randn(50).mul(40).to(dtype), torch.zeros(60, dtype=dtype)
    safe_launch(copy_kernel, (4,), x, out, 50, BLOCK=16)
    assert torch.equal(out[:50], x) and not out[50:].any()


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float16, 1e-2)])
def test_matmul_of_strided_views(dtype, tolerance):
    a = torch.randn(30, 40, dtype=dtype).t()[1:]  # (39, 30), columns contiguous
    b = torch.randn(30, 3, 25, dtype=dtype)[:, 1]  # as q, k, v in one projection
    room = torch.full((40, 60), 7.0)
    out = room[1:, 2:52:2]
    safe_launch(matmul_kernel, (3, 2), a, b, out, 39, 25, 30, *a.stride(), *b.stride(), *out.stride(), BLOCK=16)
    torch.testing.assert_close(out, a.float() @ b.float(), atol=tolerance, rtol=tolerance)
    out.fill_(7.0)
    assert (room == 7).all()  # nothing beside the view has changed


def test_softmax_with_other():
    x, out = torch.randn(5, 20), torch.full((5, 20), NAN)
    safe_launch(softmax_kernel, (5,), x, out, 20, BLOCK=32)
    torch.testing.assert_close(out, x.softmax(-1))


@triton.jit
def interleave(x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    source = tl.where(i % 2 == 0, x_ptr + i // 2, y_ptr + i // 2)
    tl.store(out_ptr + i, tl.load(source, mask=i < n), mask=i < n)


@triton.jit
def rows_kernel(x, out, M, N, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    column = tl.arange(0, COLUMNS)
    for n in range(ROWS):
        row = tl.program_id(0) * ROWS + n
        there = (column < N) & (row < M)  # in the interpreter ints, not bools
        tl.store(out + row * N + column, tl.load(x + row * N + column, mask=there), mask=there)


def test_a_mask_of_ints_is_a_mask():
    x, out = torch.randn(11, 20), torch.zeros(11, 20)
    safe_launch(rows_kernel, (2,), x, out, 11, 20, ROWS=8, COLUMNS=32)
    assert torch.equal(out, x)


@triton.jit
def sum_kernel(x, out, n, BLOCK: tl.constexpr, ZERO: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tile = tl.load(x + i, mask=i < n, other=0) if ZERO else tl.load(x + i, mask=i < n)
    tl.store(out, tl.sum(tile, axis=0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int32])
def test_what_is_masked_without_other_is_nan_where_there_is_one(dtype):
    x, out = torch.ones(5, dtype=dtype), torch.zeros(1, dtype=dtype)
    safe_launch(sum_kernel, (1,), x, out, 5, BLOCK=8, ZERO=True)
    assert out.item() == 5
    safe_launch(sum_kernel, (1,), x, out, 5, BLOCK=8, ZERO=False)
    assert out.isnan().item() if dtype.is_floating_point else out.item() == 5
    safe_launch(sum_kernel, (1,), x[:4], out, 4, BLOCK=4, ZERO=False)
    assert out.item() == 4


def test_a_tile_has_no_single_truth():
    @triton.jit
    def joins_by_and(x, n):
        i = tl.arange(0, 4)
        tl.store(x + i, 1.0, mask=0 <= i and i < n)

    @triton.jit
    def compares_in_a_chain(x, n):
        i = tl.arange(0, 4)
        tl.store(x + i, 1.0, mask=0 <= i < n)

    @triton.jit
    def asks_a_number(x, n):
        if tl.program_id(0) == 0 and n > 2:
            tl.store(x, 1.0)

    for kernel in (joins_by_and, compares_in_a_chain):
        assert "a tile has many; put each comparison in brackets, and join them with & or |" in report(
            kernel, (1,), torch.zeros(3), 3)
    x = torch.zeros(3)
    safe_launch(asks_a_number, (2,), x, 3)
    assert x.tolist() == [1, 0, 0]


def test_lanes_in_two_tensors():
    x, y, out = torch.arange(4.0), torch.arange(4.0) + 10, torch.zeros(8)
    safe_launch(interleave, (1,), x, y, out, 8, 8)
    assert out.tolist() == [0, 10, 1, 11, 2, 12, 3, 13]
    message = report(interleave, (1,), x, y[:3], out, 8, 8)
    assert "outside of y_ptr at element offset 3; y_ptr has shape (3,)" in message and "1 of 8 lanes" in message


def test_views_of_one_storage_share_it():
    @triton.jit
    def cumulative(here_ptr, next_ptr):
        i = tl.program_id(0)
        tl.store(next_ptr + i, tl.load(here_ptr + i) + tl.load(next_ptr + i))  # read by the next program

    x = torch.ones(10)
    safe_launch(cumulative, (9,), x[:-1], x[1:])
    assert x.tolist() == list(range(1, 11))


def test_tensors_that_need_gradients_and_expanded_ones():
    @triton.jit
    def last_wins(x_ptr, out_ptr):
        tl.store(out_ptr, tl.load(x_ptr + 2) + tl.program_id(0))

    x, out = torch.nn.Parameter(torch.arange(3.0)), torch.zeros(1)
    safe_launch(last_wins, (4,), x, out.expand(6))
    assert out.item() == 5


def test_atomics_inside():
    @triton.jit
    def count(out_ptr, lock_ptr):
        tl.atomic_add(out_ptr + tl.program_id(0) % 2, 1.0)
        tl.atomic_cas(lock_ptr, 0, 7)

    out, lock = torch.zeros(2), torch.zeros(1, dtype=torch.int32)
    safe_launch(count, (5,), out, lock)
    assert out.tolist() == [3, 2] and lock.item() == 7


def test_block_pointers_and_descriptors():
    @triton.jit
    def by_block(x_ptr, out_ptr, n, BLOCK: tl.constexpr, CHECK: tl.constexpr):
        block = tl.make_block_ptr(x_ptr, (n,), (1,), (tl.program_id(0) * BLOCK,), (BLOCK,), (0,))
        x = tl.load(block, boundary_check=(0,)) if CHECK else tl.load(block)
        tl.make_tensor_descriptor(out_ptr, (n,), (1,), (BLOCK,)).store([tl.program_id(0) * BLOCK], x)

    x, out = torch.randn(20), torch.full((20,), NAN)
    safe_launch(by_block, (2,), x, out, 20, 16, True)
    assert torch.equal(out, x)
    message = report(by_block, (2,), x, out, 20, 16, False)
    assert "program (1, 0, 0) loads outside of x_ptr at element offset 20" in message


def test_changed_globals_and_closures_are_seen(monkeypatch):
    def times(factor):
        @triton.jit
        def kernel(x_ptr):
            tl.store(x_ptr, tl.load(x_ptr) * factor)

        return kernel

    x = torch.ones(1)
    safe_launch(times(2), (1,), x)
    safe_launch(times(5), (1,), x)
    assert x.item() == 10
    monkeypatch.setitem(globals(), "FACTOR", 4)
    out = torch.zeros(1)
    safe_launch(add_kernel, (1,), torch.ones(1), torch.ones(1), out, 1)
    assert out.item() == 5.5


def test_a_kernels_own_names_are_not_the_notebooks():
    @triton.jit
    def shadow(x_ptr):
        WEIGHTS = 2.0  # a tensor out there
        tl.store(x_ptr, WEIGHTS)

    x = torch.zeros(1)
    safe_launch(shadow, (1,), x)
    assert x.item() == 2


def test_prints_arrive_but_not_without_end(capsys):
    @triton.jit
    def talk(x_ptr, times):
        print("program", tl.program_id(0))
        tl.device_print("value", tl.load(x_ptr))
        for _ in range(times):
            print("again and again")

    safe_launch(talk, (2,), torch.full((1,), 4.5), 0)
    words = capsys.readouterr().out.replace(":", "").split()  # Triton's versions differ in the colon
    assert words == "program [0] (0, 0, 0) value [4.5] program [1] (1, 0, 0) value [4.5]".split()
    safe_launch(talk, (1,), torch.ones(1), 5000)
    assert 10_000 < len(capsys.readouterr().out) < 21_000


# ---- Accesses outside.


@triton.jit
def unmasked_load(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i)
    tl.store(out_ptr + i, x, mask=i < n)


@triton.jit
def unmasked_store(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i, mask=i < n)
    tl.store(out_ptr + i, x)


@triton.jit
def load_at(x_ptr, out_ptr, offset):
    tl.store(out_ptr, tl.load(x_ptr + offset))


@triton.jit
def load_rows(x_ptr, out_ptr, stride, ROWS: tl.constexpr):
    i = tl.arange(0, ROWS)
    tl.store(out_ptr + i, tl.load(x_ptr + i * stride))


@triton.jit
def add_atomically(x_ptr, out_ptr):
    i = tl.arange(0, 8)
    tl.atomic_add(out_ptr + i, tl.load(x_ptr), mask=i < 6)


@triton.jit
def swap_atomically(x_ptr, out_ptr):
    tl.atomic_cas(out_ptr + 4, tl.load(x_ptr), 1.0)


@triton.jit
def through_an_address(x_ptr, out_ptr, address):
    tl.store(out_ptr, tl.load(tl.cast(address.to(tl.int64), tl.pointer_type(tl.float32))))


@triton.jit
def read_wide(x_ptr, out_ptr):
    tl.store(out_ptr, tl.load(tl.cast(x_ptr, tl.pointer_type(tl.float64)) + 1).to(tl.float32))


def test_load_without_mask():
    x, out = torch.randn(1000), torch.zeros(1000)
    message = report(unmasked_load, (4,), x, out, 1000, BLOCK=256)  # programs 0 to 2 wrote, but that is not kept
    assert message == at(unmasked_load, "tl.load") + (
        "program (3, 0, 0) loads outside of x_ptr at element offset 1000; x_ptr has shape (1000,), elements at offsets "
        "0 to 999; 24 of 256 lanes are outside; mask them, or correct the offsets"
    )


def test_store_without_mask():
    message = report(unmasked_store, (4,), torch.randn(40, 25), torch.zeros(20, 50), 1000, BLOCK=256)
    assert message.startswith(at(unmasked_store, "tl.store") + "program (3, 0, 0) stores outside of out_ptr at element")
    assert "offset 1000; out_ptr has shape (20, 50), elements at offsets 0 to 999; 24 of 256 lanes are" in message


def test_wrong_stride():
    message = report(load_rows, (1,), torch.randn(8, 5), torch.zeros(8), 6, 8)
    assert "loads outside of x_ptr at element offset 42; x_ptr has shape (8, 5)" in message
    assert "offsets 0 to 39; 1 of 8 lanes are" in message


@triton.jit
def store_at(x_ptr, out_ptr, offset):
    tl.store(out_ptr + offset, tl.load(x_ptr))


@pytest.mark.parametrize("offset", [-1, -1000, 10**12, -(10**12), 2**31 - 1])
def test_offsets_far_and_negative(offset):
    x, out = torch.randn(10, dtype=torch.float16), torch.zeros(5)
    message = report(load_at, (1,), x, out, offset)
    assert f"loads outside of x_ptr at element offset {offset}; x_ptr has shape (10,)" in message
    assert "1 of 1 lanes" in message
    message = report(store_at, (1,), x, out, offset)  # between the two tensors, or far from both
    assert f"stores outside of out_ptr at element offset {offset}; out_ptr has shape (5,)" in message


def test_outside_of_a_view_is_outside_even_in_its_storage_and_in_another_argument():
    storage = torch.randn(20)
    x, out = storage[:10], storage[10:]
    message = report(load_at, (1,), x, out, 10)
    assert "outside of x_ptr at element offset 10; x_ptr has shape (10,), elements at offsets 0 to 9;" in message
    assert "outside of x_ptr at element offset -1;" in report(load_at, (1,), storage[10:], storage[:10], -1)


def test_gap_of_a_strided_view():
    x, out = torch.randn(4, 8)[:, :3], torch.zeros(1)
    safe_launch(load_at, (1,), x, out, 26)
    assert out.item() == x[3, 2]
    message = report(load_at, (1,), x, out, 11)
    assert "outside of x_ptr at element offset 11; x_ptr has shape (4, 3), elements at offsets 0 to 26, with" in message
    assert "gaps, as its strides are (8, 1); 1 of 1" in message


def test_atomics_outside():
    message = report(add_atomically, (1,), torch.ones(1), torch.zeros(4))
    assert message.startswith(at(add_atomically, "atomic_add") + "program (0, 0, 0) does an atomic outside of out_ptr")
    assert "at element offset 4" in message and "2 of 6 lanes" in message
    message = report(swap_atomically, (1,), torch.ones(1), torch.zeros(4))
    assert message.startswith(at(swap_atomically, "atomic_cas") + "program (0, 0, 0) does an atomic outside of out_ptr")


@pytest.mark.parametrize("address", [0, 12345, 2**62])
def test_pointer_into_nothing(address):
    message = report(through_an_address, (1,), torch.ones(1), torch.zeros(1), address)
    assert message.startswith(at(through_an_address, "tl.load") + "program (0, 0, 0) loads outside of ")


def test_wide_access_may_not_reach_over_the_end():
    out = torch.zeros(1)
    safe_launch(read_wide, (1,), torch.zeros(4), out)
    message = report(read_wide, (1,), torch.ones(3), out)
    assert "loads outside of x_ptr at element offset 2; x_ptr has shape (3,)" in message


def test_empty_tensor():
    out = torch.zeros(1)
    safe_launch(copy_kernel, (1,), torch.ones(0), out, 0, BLOCK=16)
    assert "x_ptr has shape (0, 3), no elements" in report(load_at, (1,), torch.ones(0, 3), out, 0)


def imports_one_by_one():
    """A kernel that does not say tl.load is right."""
    from triton.language import exp, load, sum as total

    @triton.jit
    def kernel(x_ptr, out_ptr):
        tl.store(out_ptr, exp(total(load(x_ptr + tl.arange(0, 4)), 0)))

    out = torch.zeros(1)
    safe_launch(kernel, (1,), torch.arange(4.0), out)
    torch.testing.assert_close(out, torch.tensor([6.0]).exp())


# ---- Everything else that goes wrong in a kernel.


@triton.jit
def needs_a_power_of_two(x_ptr):
    i = tl.arange(0, 100)
    tl.store(x_ptr + i, 0.0)


@triton.jit
def broken_helper(x):
    return x + undefined_name  # noqa: F821


@triton.jit
def uses_broken_helper(x_ptr):
    tl.store(x_ptr, broken_helper(1.0))


@triton.jit
def casts_a_loop_variable(x_ptr):
    for i in range(3):
        tl.store(x_ptr + i.to(tl.int64), 1.0)


@triton.jit
def uses_a_tensor_out_there(x_ptr):
    tl.store(x_ptr, tl.load(WEIGHTS))


@triton.jit
def dots_bfloat16(x_ptr):
    a = tl.zeros((16, 16), tl.float32).to(tl.bfloat16)
    tl.store(x_ptr, tl.sum(tl.dot(a, a)))


@triton.jit
def endless(x_ptr):
    while True:
        pass


@triton.jit
def asserts(x_ptr, n: tl.constexpr):
    tl.static_assert(n > 3, "n is too small")


def test_exception_tells_the_line():
    message = report(needs_a_power_of_two, (1,), torch.zeros(128))
    assert message.startswith(at(needs_a_power_of_two, "arange") + "program (0, 0, 0) raised ValueError: arange's")


def test_exception_tells_the_line_of_the_helper():
    message = report(uses_broken_helper, (1,), torch.zeros(1))
    assert message.startswith(at(broken_helper, "undefined") + "program (0, 0, 0) raised NameError: ")


def test_assertion():
    assert "raised AssertionError: n is too small" in report(asserts, (1,), torch.zeros(1), 2)


def test_interpreter_traps_have_a_remedy():
    message = report(casts_a_loop_variable, (1,), torch.zeros(4))
    assert message.startswith(at(casts_a_loop_variable, ".to(")) and message.endswith("write tl.cast(i, tl.int64)")


def test_tensor_as_a_global():
    message = report(uses_a_tensor_out_there, (1,), torch.zeros(1))
    assert message.startswith("uses_a_tensor_out_there uses WEIGHTS, a Tensor of the notebook")
    assert message.endswith("pass WEIGHTS as an argument")


def test_argument_that_triton_has_no_type_for():
    x = torch.zeros(4)
    message = report(copy_kernel, (1,), x.to(torch.complex64), x, 4, BLOCK=4)
    assert message.startswith("copy_kernel: it raised KeyError: 'complex64'")  # before any program ran


def test_lambda_has_no_definition_to_take_along():
    double = lambda x: 2 * x

    @triton.jit
    def kernel(x_ptr):
        tl.store(x_ptr, double(tl.load(x_ptr)))

    assert "there is no source of <lambda>; define it with def" in report(kernel, (1,), torch.zeros(1))


def test_bfloat16_is_refused_with_the_remedy():
    message = report(copy_kernel, (1,), torch.zeros(4, dtype=torch.bfloat16), torch.zeros(4), 4, BLOCK=4)
    assert message.startswith("copy_kernel: x_ptr is bfloat16, which") and "x_ptr.float() or x_ptr.half()" in message
    message = report(dots_bfloat16, (1,), torch.zeros(1))
    assert message.startswith(at(dots_bfloat16, "tl.dot")) and "tl.dot of bfloat16" in message


def test_endless_loop_is_ended_and_its_line_told():
    assert_alive()
    process, start = worker().process.pid, time.monotonic()
    message = report(endless, (1,), torch.zeros(1), timeout=0.5)
    assert message.startswith(f"endless, line {inspect.getsourcelines(endless.fn)[1] + 2} `while True:`: ") or (
        message.startswith(at(endless, "pass"))
    )
    assert "`: program (0, 0, 0) ran out of time; " in message
    assert time.monotonic() - start < 4 and worker().process.pid == process  # no need for a new one


def test_endless_loop_that_catches_everything_is_killed(monkeypatch):
    def stubborn():
        while True:
            try:
                while True:
                    pass
            except BaseException:
                pass

    @triton.jit
    def kernel(x_ptr):
        stubborn()

    monkeypatch.setattr(safe_kernel, "GRACE", 0.5)
    assert_alive()
    process = worker().process
    assert "kernel was still running after 0.2 s" in report(kernel, (1,), torch.zeros(1), timeout=0.2)
    assert process.poll() is not None


def crash():
    ctypes.string_at(0)


def leave():
    os._exit(3)


@triton.jit
def crashes(x_ptr):
    tl.store(x_ptr, 1.0)
    crash()


@triton.jit
def leaves(x_ptr):
    leave()


def test_crash_of_the_process():
    message = report(crashes, (1,), torch.zeros(1))
    assert message.startswith("crashes crashed the process that it ran in (killed by SIGSEGV); ")
    assert "(exit code 3)" in report(leaves, (1,), torch.zeros(1))


def test_process_that_died_between_launches_is_replaced():
    assert_alive()
    worker().connection.close()  # as when the notebook is killed
    assert worker().process.wait(20) == 0
    imports_one_by_one()  # a first launch is the harder one for it
    assert_alive()


def test_interrupt_stops_the_kernel_and_the_next_launch_works():
    assert_alive()
    process = worker().process
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        safe_launch(endless, (1,), torch.zeros(1), timeout=20)
    assert process.poll() is not None
    assert_alive()
    assert os.getpgid(worker().process.pid) != os.getpgid(0)  # Jupyter's interrupt goes to the notebook's whole group


@pytest.mark.parametrize(
    "arguments, says",
    [
        (lambda x: (copy_kernel, (1,), x, x, 4), "copy_kernel(x_ptr, out_ptr, n, BLOCK): missing a required"),
        (lambda x: (copy_kernel, (1,), x, x, 4, 4, 4), "copy_kernel(x_ptr, out_ptr, n, BLOCK): too many positional"),
        (lambda x: (copy_kernel, 4, x, x, 4, 4), "copy_kernel: the grid is 4; it must be a tuple of one to three"),
        (lambda x: (copy_kernel, (1, 0), x, x, 4, 4), "the grid is (1, 0)"),
        (lambda x: (copy_kernel, (1, 1, 1, 1), x, x, 4, 4), "the grid is (1, 1, 1, 1)"),
        (lambda x: (copy_kernel, (0.5,), x, x, 4, 4), "the grid is (0.5,)"),
        (lambda x: (3, (1,), x), "3 is not a kernel; pass the function that @triton.jit decorates"),
    ],
)
def test_launches_that_cannot_be(arguments, says):
    assert says in report(*arguments(torch.zeros(4)))


# ---- In a notebook.

CELLS = [
    """
import torch, triton, triton.language as tl
from minim1.course import safe_kernel
from minim1.course.compile_kernel import compile_kernel
from minim1.course.safe_kernel import safe_launch
""",
    """
@triton.jit
def half(x):
    return x / 2

@triton.jit
def kernel(x_ptr, n, BLOCK: tl.constexpr, MASK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i, mask=i < (n if MASK else BLOCK))
    tl.store(x_ptr + i, half(x), mask=i < n)
""",
    """
x = torch.arange(10.0)
try:
    safe_launch(kernel, (1,), x, 10, 16, MASK=False)
except Exception as error:
    print(type(error).__name__, error)
""",
    "safe_launch(kernel, (1,), x, 10, 16, MASK=True); print(x.tolist())",
    "print(compile_kernel(kernel, {'x_ptr': '*fp32', 'n': 'i32'}, {'BLOCK': 256, 'MASK': True}).check())",
    "print(safe_kernel._worker().process.pid)",
]


def test_in_a_jupyter_notebook(tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in CELLS])
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    _, _, broken, correct, compiled, process = [
        "".join(output.get("text", "") for output in cell.outputs if output.get("name") == "stdout")
        for cell in notebook.cells
    ]
    line = "kernel, line 8 `x = tl.load(x_ptr + i, mask=i < (n if MASK else BLOCK))`: "
    assert broken.startswith(f"KernelError {line}program (0, 0, 0) loads outside of x_ptr at element offset 10; ")
    assert correct.strip() == str([n / 2 for n in range(10)])
    assert compiled.startswith("sm_90: ")
    with pytest.raises(ProcessLookupError):  # it went with the notebook, and left no zombie
        os.kill(int(process), 0)
