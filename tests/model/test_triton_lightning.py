"""The Triton form equals the sum that defines lightning attention: outputs, states and all gradients.

Triton runs a kernel on a GPU or, when TRITON_INTERPRET=1 is set before it is imported, in an interpreter on the CPU.
So the tests marked `kernel` run in two places: under `pytest -m gpu` on a GPU, and elsewhere in a second pytest
process on this same file, with that variable, which `test_in_the_interpreter` starts.

    MINIM1_RECORD_TRITON=minim1/model/triton_tested.json pytest -m gpu tests/model/test_triton_lightning.py

adds what has passed on the GPU at hand to the table of what backend="auto" may choose.
"""

import doctest
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_lightning_forms import documents_of, ids_padded_anywhere, ids_padded_right, ids_without_padding, reference

from minim1.errors import UserError
from minim1.model import triton_lightning
from minim1.model.lightning import lightning_chunked
from minim1.model.triton_lightning import Tiling, document_chunks, lightning_triton, why_not

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPES = [torch.float32, torch.float16] + [torch.bfloat16] * (not INTERPRETED)
NAMES = [str(dtype).removeprefix("torch.") for dtype in DTYPES]
DIMS = [16, 32, 48, 64, 80, 128]
# M1's slowest head, its fastest of 8 and of 64, two that forget at once (exp(200) overflows), one that keeps all.
SLOPES = torch.tensor([2**-8 * 1e-5, 0.5, 0.917, 8.0, 200.0, 0.0])
# Of the norm of a head's result: forward, gradients. In half precision that is less than 2.5 times the error of
# `lightning_chunked`, which rounds its output only (2.1e-4, 1.7e-3); here factors of products are rounded too.
TOLERANCE = {torch.float32: (2e-6, 5e-6), torch.float16: (5e-4, 5e-4), torch.bfloat16: (4e-3, 4e-3)}

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


def kernel(test):
    """Mark of a test that runs the kernel."""
    if INTERPRETED:
        return test
    here = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA or the interpreter")
    return pytest.mark.gpu(here(test))


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
def test_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", __file__, "-q", "--tb=short", "-p", "no:cacheprovider", "--durations=5"]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout.splitlines()[-1]


@pytest.fixture(autouse=True)
def loops(monkeypatch):
    """Triton 3.6's interpreter takes an array of one number for a loop's bound, which NumPy 2.4 no longer does."""
    if INTERPRETED:
        from triton.runtime import interpreter

        patched = interpreter._patch_lang_tensor

        def patch(tensor, *others):
            patched(tensor, *others)
            tensor.__index__ = lambda self: self.handle.data.item()

        monkeypatch.setattr(interpreter, "_patch_lang_tensor", patch)


@pytest.fixture(autouse=True)
def loud():
    """What overflows or is undefined in the interpreter, which computes with numpy, raises."""
    with np.errstate(over="raise", invalid="raise"):
        yield


def made(batch, length, dim, value_dim, dtype=torch.float32, slopes=SLOPES, seed=0):
    """q, k, v, state and weights of out and state for a loss: fp64 numbers that `dtype` can hold, on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    heads = len(slopes)
    tokens, states = (batch, length, heads), (batch, heads, dim, value_dim)
    shapes = [(*tokens, dim), (*tokens, dim), (*tokens, value_dim), states, (*tokens, value_dim), states]
    return [
        torch.randn(shape, generator=generator).to(torch.float32 if shape == states else dtype).double()
        for shape in shapes
    ]


def on_device(x, dtype):
    """A copy where the kernel runs: tokens (B, T, H, D) in `dtype`, states in fp32."""
    return x.detach().to(DEVICE, dtype).requires_grad_()


def run(tensors, dtype, slopes=SLOPES, ids=None, carried=True, form=lightning_triton):
    """out, state, dq, dk, dv, dstate of a form."""
    *tokens, state, out_weight, state_weight = tensors
    leaves = [on_device(x, dtype) for x in tokens] + [on_device(state, torch.float32)] * carried
    ids = None if ids is None else ids.to(DEVICE)
    out, final = form(*leaves[:3], slopes.to(DEVICE), state=leaves[3] if carried else None, document_ids=ids)
    assert out.dtype == dtype and final.dtype == torch.float32
    weights = [out_weight.to(DEVICE, dtype), state_weight.to(DEVICE, torch.float32)]
    return [out, final, *torch.autograd.grad([out, final], leaves, weights)]


def exact(tensors, slopes=SLOPES, ids=None, carried=True):
    """The same, by autograd of the definition in fp64."""
    *tokens, state, out_weight, state_weight = tensors
    leaves = [x.clone().requires_grad_() for x in [*tokens, state]]
    out, final = reference(*leaves[:3], slopes, leaves[3] if carried else None, ids)
    loss = (out * out_weight).sum() + (final * state_weight).sum()
    return [out, final, *torch.autograd.grad(loss, leaves[: 3 + carried])]


PARTS = ["out", "state", "dq", "dk", "dv", "dstate"]
HEADS_AT = [2, 1, 2, 2, 2, 1]


def errors(found, expected):
    """Per tensor, the largest error of a head, relative to the norm of that head's result."""
    result = {}
    for name, at, a, b in zip(PARTS, HEADS_AT, found, expected):
        assert a.shape == b.shape
        a, b = (x.detach().cpu().double().movedim(at, 0).flatten(1) for x in (a, b))
        result[name] = ((a - b).norm(dim=1) / (b.norm(dim=1) + 1e-30)).max().item()  # exp(-200) is 0 in fp32
    return result


def check(found, expected, dtype):
    off = errors(found, expected)
    forward, gradients = TOLERANCE[dtype]
    wrong = {name: e for name, e in off.items() if not e <= (forward if name in ("out", "state") else gradients)}
    assert not wrong, f"{dtype}: relative errors {wrong}, all: {off}"


def ids_across_chunks(length):
    """Documents that end at, before and after multiples of 64, and padding at such places."""
    t = torch.arange(length)
    borders = torch.tensor([[64, 128], [63, 66], [100, 101], [65, 190]])
    ids = (t >= borders[:, :1]).int() + (t >= borders[:, 1:]).int()
    hidden = torch.stack([t < 0, (t > 30) & (t < 130), t < 64, t >= 180])
    return torch.where(hidden, -1, ids)


KINDS = {"one": lambda length: None, "packed": ids_without_padding, "right": ids_padded_right,
         "anywhere": ids_padded_anywhere, "long": ids_across_chunks}
FEW = [1, 5]  # of the slopes: the interpreter takes a millisecond or more a chunk


@kernel
@pytest.mark.parametrize(
    "length, dim, value_dim, kind, carried",
    [
        (1, 16, 16, "one", False), (1, 128, 48, "one", True), (1, 5, 3, "anywhere", True),
        (15, 48, 128, "one", True), (15, 16, 16, "packed", False), (16, 64, 64, "one", False),
        (16, 32, 80, "right", True), (21, 16, 16, "anywhere", True),
        (63, 32, 16, "one", True), (64, 80, 80, "one", True), (64, 16, 16, "one", False), (65, 48, 48, "one", True),
        (200, 128, 128, "one", True), (200, 16, 64, "long", True), (200, 64, 32, "long", False),
        (3 * 64 + 7, 80, 16, "one", False),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES, ids=NAMES)
def test_equals_the_definition(dtype, length, dim, value_dim, kind, carried):
    """Outputs, final state and all gradients; lengths, head dims, documents and carried states."""
    if INTERPRETED and dtype != torch.float32 and (length < 63 or dim < 48):
        pytest.skip("in half precision the interpreter runs a few of these only")
    ids = KINDS[kind](length)
    slopes = SLOPES if ids is None else SLOPES[FEW]
    tensors = made(2 if ids is None else len(ids), length, dim, value_dim, dtype, slopes)
    found = run(tensors, dtype, slopes, ids, carried)
    check(found, exact(tensors, slopes, ids, carried), dtype)
    if ids is not None:
        assert all((x[(ids < 0).to(DEVICE)] == 0).all() for x in (found[0], *found[2:5])), "padding must give 0"
        empty = (ids < 0).all(1)
        assert torch.equal(found[1].cpu()[empty], tensors[3].float()[empty] * carried)  # what came in goes out
        if carried:
            assert torch.equal(found[5].cpu()[empty], tensors[5].float()[empty])


@kernel
@pytest.mark.parametrize("chunk, columns", [(16, 16), (16, 32), (32, 32), (64, 32)])
def test_any_tiling(chunk, columns, monkeypatch):
    """A GPU takes smaller tiles than the interpreter: several blocks of columns, chunks of 16 and 32."""
    monkeypatch.setattr(triton_lightning, "choose_tiling", lambda *_: Tiling(chunk, columns, 8, 1))
    tensors, slopes = made(2, 70, 48, 80, slopes=SLOPES[[2]]), SLOPES[[2]]
    for ids in (None, ids_across_chunks(70)[:2]):
        check(run(tensors, torch.float32, slopes, ids), exact(tensors, slopes, ids), torch.float32)


@kernel
@pytest.mark.parametrize("used", ["out", "state"])
@pytest.mark.parametrize("kind", ["one", "long"])
def test_gradients_when_only_the_output_or_only_the_state_is_used(kind, used):
    ids, slopes = KINDS[kind](70), SLOPES[FEW]
    tensors = made(4, 70, 16, 32, slopes=slopes)
    tensors[5 if used == "out" else 4].zero_()
    expected = exact(tensors, slopes, ids)
    leaves = [on_device(x, torch.float32) for x in tensors[:4]]
    ids = None if ids is None else ids.to(DEVICE)
    result = lightning_triton(*leaves[:3], slopes.to(DEVICE), state=leaves[3], document_ids=ids)
    which = ["out", "state"].index(used)
    weight = tensors[4 + which].float().to(DEVICE)
    found = list(torch.autograd.grad(result[which], leaves, weight, allow_unused=True))
    if used == "state":
        assert found[0] is None  # the state does not depend on q
        found[0] = torch.zeros_like(leaves[0])
    check([*result, *found], expected, torch.float32)


@kernel
@pytest.mark.parametrize("wanted, runs", [("", 1), ("q", 2), ("k", 2), ("v", 2), ("s", 2), ("vs", 2), ("qkvs", 4)])
def test_only_the_gradients_that_are_asked_for_are_computed(wanted, runs, monkeypatch):
    calls = []
    original = triton_lightning.run_kernel
    monkeypatch.setattr(triton_lightning, "run_kernel", lambda *a, **o: calls.append(o) or original(*a, **o))
    tensors = made(1, 5, 16, 16, slopes=SLOPES[FEW])
    leaves = [on_device(x, torch.float32).requires_grad_(name in wanted) for name, x in zip("qkvs", tensors)]
    out, final = lightning_triton(*leaves[:3], SLOPES[FEW].to(DEVICE), state=leaves[3])
    if wanted:
        (out.sum() + final.sum()).backward()
    assert len(calls) == runs
    assert [x.grad is not None for x in leaves] == [name in wanted for name in "qkvs"]
    assert sum(call.get("keep", True) for call in calls) == 1 + ("s" in wanted)


def fused_projection(batch, length, heads, width, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, length, heads, width, generator=generator).to(DEVICE, dtype).requires_grad_()


@kernel
def test_strided_inputs_are_read_where_they_are(monkeypatch):
    """Also states and gradients: transposed, or one number expanded, as out.sum() makes them. Inputs are left alone."""
    slopes = SLOPES[FEW].to(DEVICE)
    fused = fused_projection(2, 70, 2, 64)
    q, k, v = fused[..., :16], fused[..., 16:32], fused[..., 32::2]
    state = made(2, 1, 16, 16, slopes=slopes)[3].to(DEVICE, torch.float32).transpose(-1, -2).requires_grad_()
    ids = ids_across_chunks(70)[:2].to(DEVICE)
    before = fused.detach().clone(), state.detach().clone()
    read, original = [], triton_lightning.launch

    def launch(q, k, v, *rest, **options):
        read.append([x.data_ptr() for x in (q, k, v)])
        return original(q, k, v, *rest, **options)

    monkeypatch.setattr(triton_lightning, "launch", launch)

    def results(q, k, v, state, ids):
        out, final = lightning_triton(q, k, v, slopes, state=state, document_ids=ids)
        return [out, final, *torch.autograd.grad(out.sum() + 2 * final.sum(), (q, k, v, state))]

    found = results(q, k, v, state, ids.T.contiguous().T)
    assert read[0] == [x.data_ptr() for x in (q, k, v)], "nothing is copied"
    plain = [x.detach().contiguous().requires_grad_() for x in (q, k, v, state)]
    assert all(torch.equal(a, b) for a, b in zip(found, results(*plain, ids)))
    assert torch.equal(fused, before[0]) and torch.equal(state, before[1])
    lightning_triton(q, k, v, slopes)[0].square().sum().backward()
    assert fused.grad.isfinite().all() and (fused.grad[..., 1:32] != 0).any()


@kernel
@pytest.mark.parametrize("axis", [0, 1, 2], ids=["row", "token", "head"])
def test_tensors_of_more_than_2_to_the_31_elements(axis):
    """Rows, tokens or heads 4 GB apart, of which only those pages are touched; an offset of 32 bits would wrap."""
    shape = [(3, 2, 1, 16), (1, 65, 1, 16), (1, 2, 3, 16)][axis]
    strides = [16, 16, 16, 1]
    strides[axis] = 2**31 // (shape[axis] - 1)
    for other in {0, 1, 2} - {axis}:
        strides[other] = 16 if shape[other] > 1 else 0
    storage = torch.empty(2**31 + 64, dtype=torch.float16, device=DEVICE)
    q = storage.as_strided(shape, strides)
    k, v = (torch.randn(shape).to(DEVICE, torch.float16) for _ in range(2))
    q.copy_(k + v)
    slopes = SLOPES[[1] * shape[2]].to(DEVICE)
    for far in range(3):
        order = [q if at == far else x for at, x in enumerate((k, v, k))]
        near = [x.contiguous() for x in order]
        assert all(torch.equal(a, b) for a, b in zip(lightning_triton(*order, slopes), lightning_triton(*near, slopes)))


@kernel
def test_everything_is_written():
    """Fresh memory holds NaN here: whatever the kernel leaves out shows."""
    memory = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        assert torch.empty(3).isnan().all()
        for ids in (None, ids_padded_anywhere(20)[[0, 3, 4, 9]]):
            found = run(made(4, 20, 48, 80, slopes=SLOPES[FEW]), torch.float32, SLOPES[FEW], ids)
            assert all(x.isfinite().all() for x in found)
    finally:
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = memory


@kernel
def test_garbage_stays_in_its_document():
    """And in padding it goes nowhere: everything else is bit for bit what it is without."""
    slopes = SLOPES[FEW]
    ids = torch.tensor([[0] * 40 + [1] * 5 + [-1] * 3 + [1] * 25 + [2] * 7, [3, -1] * 20 + [4] * 40])
    clean = run(made(2, 80, 16, 16, slopes=slopes), torch.float32, slopes, ids)
    nan, inf = float("nan"), float("inf")
    for bad, spoiled in [(nan, 0), (nan, 1), (nan, 2), (nan, 4), (nan, -1), (inf, 1), (inf, -1)]:
        hit, tensors = ids == spoiled, made(2, 80, 16, 16, slopes=slopes)
        for x in (*tensors[:3], tensors[4]):
            x[hit] = bad
        if spoiled == 0:  # the first document's: its state is carried in
            tensors[3][0] = bad
        if spoiled == 2:  # the last document's: its state is handed on
            tensors[5][0] = bad
        with np.errstate(all="ignore"):
            found = run(tensors, torch.float32, slopes, ids)
        reached = {"state": {2: [0], 4: [1]}, "dstate": {0: [0]}}  # rows whose state belongs to the document
        for name, a, b in zip(PARTS, found, clean):
            same = ~hit if name not in reached else [row not in reached[name].get(spoiled, []) for row in range(2)]
            assert torch.equal(a[same], b[same]), f"{name} with {bad} in document {spoiled}"
        assert (found[0][hit].isfinite().all() and (found[0][hit] == 0).all()) == (spoiled == -1)


@kernel
@pytest.mark.parametrize("pieces", [(1, 69), (64, 1, 5), (20, 30, 20)])
def test_any_split_with_carried_state_equals_the_whole(pieces):
    """As decoding and prompts in pieces do; the gradient goes through the carried states."""
    slopes = SLOPES[FEW]
    tensors = made(2, 70, 16, 32, slopes=slopes)
    ids = ids_across_chunks(70)[2:].clamp(max=0)  # one document a row; a piece cannot see a change of documents
    expected = exact(tensors, slopes, ids)

    def in_pieces(q, k, v, slopes, *, state, document_ids):
        outputs = []
        for q, k, v, part in zip(*(x.split(pieces, 1) for x in (q, k, v, document_ids))):
            out, state = lightning_triton(q, k, v, slopes, state=state, document_ids=part)
            outputs.append(out)
        return torch.cat(outputs, 1), state

    check(run(tensors, torch.float32, slopes, ids, form=in_pieces), expected, torch.float32)


@kernel
def test_a_slow_head_stays_accurate_over_many_chunks(monkeypatch):
    """exp(-s n) is so near to 1 that its rounding, the same in every chunk, would add up to about 1e-6 here."""
    monkeypatch.setattr(triton_lightning, "choose_tiling", lambda *_: Tiling(16, 16, 8, 1))
    slopes = torch.tensor([5e-6, 0.003])
    q, k, v = (torch.nn.functional.silu(x) for x in made(1, 4096, 16, 16, slopes=slopes)[:3])
    found = lightning_triton(*(x.to(DEVICE, torch.float32) for x in (q, k, v)), slopes.to(DEVICE))
    expected = lightning_chunked(*(x.float().double() for x in (q, k, v)), slopes)
    assert max(errors(found, expected).values()) < 6e-7


@kernel
def test_second_derivatives_are_refused():
    q = torch.ones(1, 2, 1, 16, device=DEVICE, requires_grad=True)
    out, _ = lightning_triton(q, q, q, torch.ones(1, device=DEVICE))
    (gradient,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@kernel
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("dtype", DTYPES, ids=NAMES)
def test_head_dim(dtype, dim):
    """What backend="auto" asks for: this dtype and head dim, on a GPU long and strided too; entered in the table."""
    if INTERPRETED and dim != 48 and dtype == torch.float16:
        pytest.skip("in half precision the interpreter runs one of these only")
    slopes = SLOPES[[1, 2, 5]]
    tensors, ids = made(1, 100, dim, dim, dtype, slopes), ids_across_chunks(100)[:1]
    for document_ids in (None, ids):
        check(run(tensors, dtype, slopes, document_ids), exact(tensors, slopes, document_ids), dtype)
    if INTERPRETED:
        return
    parts = fused_projection(2, 4096, 6, 3 * dim, dtype).split(dim, -1)
    slopes, weights = SLOPES.to(DEVICE), torch.randn(2, 4096, 6, dim, device=DEVICE).to(dtype)
    state_weights = torch.randn(2, 6, dim, dim, device=DEVICE)
    for document_ids in (None, torch.arange(4096, device=DEVICE).expand(2, -1) // 300):
        results = []
        for form, kind in ((lightning_triton, dtype), (lightning_chunked, torch.float64)):
            leaves = [x.to(kind) for x in parts]  # of this dtype already: the views themselves
            out, final = form(*leaves, slopes, document_ids=document_ids)
            given = [weights.to(out.dtype), state_weights.to(final.dtype)]
            results.append([out, final, *torch.autograd.grad([out, final], leaves, given, retain_graph=True)])
        check(*results, dtype)
    record(dtype, dim)


def record(dtype, dim):
    """Add this GPU, dtype and head dim to the table that MINIM1_RECORD_TRITON names."""
    path = os.environ.get("MINIM1_RECORD_TRITON")
    if path:
        row = {"capability": list(torch.cuda.get_device_capability()), "torch": torch.__version__,
               "triton": importlib.import_module("triton").__version__,
               "dtype": str(dtype).removeprefix("torch."), "head_dim": dim}
        rows = json.loads(Path(path).read_text()) if Path(path).exists() else []
        rows = sorted((*(old for old in rows if old != row), row), key=lambda row: json.dumps(row, sort_keys=True))
        Path(path).write_text("[\n" + ",\n".join(f"  {json.dumps(row)}" for row in rows) + "\n]\n")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_the_cpu_never_waits_for_the_gpu():
    q, k, v, state = (on_device(x, torch.float32) for x in made(4, 100, 16, 16)[:4])
    ids, slopes = ids_across_chunks(100).to(DEVICE), SLOPES.to(DEVICE)
    for mode in ("default", "error"):  # the first round compiles, which may wait
        torch.cuda.set_sync_debug_mode(mode)
        try:
            out, final = lightning_triton(q, k, v, slopes, state=state, document_ids=ids)
            torch.autograd.grad([out, final], (q, k, v, state), [out.detach(), final.detach()])
        finally:
            torch.cuda.set_sync_debug_mode("default")


# ---- What needs no kernel.


@pytest.mark.parametrize("chunk", [1, 4, 16, 64])
@pytest.mark.parametrize("length", [1, 16, 70])
@pytest.mark.parametrize("kind", ["packed", "right", "anywhere", "long"])
def test_chunks_hold_every_real_token_once_and_never_two_documents(kind, length, chunk):
    ids = KINDS[kind](length)
    order, starts, fresh, counts = document_chunks(ids, chunk)
    assert {x.dtype for x in (order, starts, fresh, counts)} == {torch.int32}
    for row, *of_row in zip(ids.tolist(), order.tolist(), starts.tolist(), fresh.tolist(), counts.tolist()):
        places, begin, new, count = of_row
        found = [places[begin[c] : begin[c + 1]] for c in range(count)]
        documents = documents_of(row)
        expected = [at[i : i + chunk] for at in documents for i in range(0, len(at), chunk)]
        assert found == expected
        heads = {at[0] for at in documents[1:]}
        assert new == [int(c < count and found[c][0] in heads) for c in range(length + 1)]
        assert sorted(places) == list(range(length)) and len(begin) == length + 1


def test_examples_in_the_docstrings():
    result = doctest.testmod(triton_lightning)
    assert result.attempted and not result.failed


def ones(dtype=torch.float32, dim=16, device="cpu"):
    return torch.ones(1, 2, 1, dim, dtype=dtype, device=device)


@needs_triton
@pytest.mark.parametrize(
    "q, k, v, words",
    [
        (ones(torch.float64), ones(torch.float64), ones(torch.float64), ["float64", "float32, bfloat16 or float16"]),
        (ones(torch.int32), ones(torch.int32), ones(torch.int32), ["int32", "float32, bfloat16 or float16"]),
        (ones(), ones(), ones(torch.float16), ["float32", "float16", "one dtype"]),
        (ones(), ones(torch.float16), ones(), ["float32", "float16", "one dtype"]),
        (ones(), ones(), ones(device="meta"), ["cpu", "meta", "one device"]),
        (ones(dim=129), ones(dim=129), ones(), ["129 and 16", "1 to 128", "backend='auto'"]),
        (ones(), ones(), ones(dim=256), ["16 and 256", "1 to 128"]),
        (ones(dim=0), ones(dim=0), ones(), ["0 and 16", "1 to 128"]),
        (ones(torch.bfloat16), ones(torch.bfloat16), ones(torch.bfloat16), ["bfloat16", "float32, float16 or a GPU"])
        if INTERPRETED else (ones(), ones(), ones(), ["on cpu", "CUDA", "TRITON_INTERPRET=1", "backend='auto'"]),
    ],
)
def test_what_cannot_run_is_named_with_the_remedy(q, k, v, words):
    reason = why_not(q, k, v)
    with pytest.raises(UserError) as error:
        lightning_triton(q, k, v, torch.ones(1))
    assert str(error.value) == f"backend 'triton' cannot run: {reason}"
    assert all(word in reason for word in words), reason
    assert "\n" not in reason and ". " not in reason


@kernel
def test_what_can_run():
    for dtype in DTYPES:
        for dim in (1, 128):
            assert why_not(*[ones(dtype, dim, DEVICE)] * 3) is None


def test_triton_is_not_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"Triton is not installed; install minim1\[triton\]"):
        lightning_triton(ones(), ones(), ones(), torch.ones(1))


def test_the_table_of_what_passed_on_a_gpu(tmp_path, monkeypatch):
    rows = json.loads(triton_lightning.TESTED.read_text(encoding="utf-8"))
    assert all(row.keys() == {"capability", "torch", "triton", "dtype", "head_dim"} for row in rows)
    table = tmp_path / "tested.json"
    versions = {"torch": "2.11", "triton": "3.6"}
    table.write_text(json.dumps([
        {"capability": [9, 0], "dtype": "bfloat16", "head_dim": 64, **versions},
        {"capability": [8, 0], "dtype": "float16", "head_dim": 128, **versions},
    ]))
    monkeypatch.setattr(triton_lightning, "TESTED", table)
    triton_lightning._tested.cache_clear()
    try:
        assert triton_lightning.tested_on_gpu(torch.bfloat16, 64, (9, 0))
        assert triton_lightning.tested_on_gpu(torch.float16, 128, (8, 0))
        for other in ((torch.float16, 64, (9, 0)), (torch.bfloat16, 128, (9, 0)), (torch.bfloat16, 64, (8, 0)),
                      (torch.float64, 64, (9, 0))):
            assert not triton_lightning.tested_on_gpu(*other)
    finally:
        triton_lightning._tested.cache_clear()
