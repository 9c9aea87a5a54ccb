"""Every form of lightning attention equals the sum that defines it, forward and backward.

The reference below knows nothing of the package's code: it cuts each row into documents and evaluates
o_t = sum over j <= t of exp(-s (t - j)) (q_t . k_j) v_j in fp64.
"""

from unittest import mock

import pytest
import torch

from minim1.errors import UserError
from minim1.model import fast_lightning, lightning
from minim1.model.lightning import (
    lightning_attention, lightning_chunked, lightning_fast, lightning_quadratic, lightning_recurrent, lightning_step,
)

BLOCK, DIM, VALUE_DIM = 16, 5, 3
# The fastest and the slowest head of M1, one that forgets at once (exp(200) overflows), one between, one that keeps all.
SLOPES = torch.tensor([0.917004 * 1.00001, 2**-8 * 1e-5, 200.0, 0.1, 0.0])
LENGTHS = [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7]
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}


def chunked(q, k, v, slopes, **options):
    return lightning_chunked(q, k, v, slopes, block_size=BLOCK, **options)


def fast(q, k, v, slopes, **options):
    return lightning_fast(q, k, v, slopes, block_size=BLOCK, **options)


def fast_in_short_pieces(q, k, v, slopes, **options):
    """Rows are cut into pieces that stay in cache; here of one block each."""
    with mock.patch.object(fast_lightning, "PIECE", 1):
        return fast(q, k, v, slopes, **options)


def stepwise(q, k, v, slopes, *, state=None, document_ids=None):
    """One token at a time through the public entry, as decoding does."""
    outputs = []
    for t in range(q.shape[1]):
        ids = None if document_ids is None else document_ids[:, t : t + 1]
        out, state = lightning_attention(
            q[:, t : t + 1], k[:, t : t + 1], v[:, t : t + 1], slopes, state=state, document_ids=ids
        )
        outputs.append(out)
    return torch.cat(outputs, 1), state


FORMS = {"recurrent": lightning_recurrent, "quadratic": lightning_quadratic, "chunked": chunked, "fast": fast,
         "fast, short pieces": fast_in_short_pieces}


def documents_of(row):
    """Positions of each document of a row of ids: maximal runs of equal ids once padding is struck out."""
    found, last = [], None
    for t, name in enumerate(row):
        if name >= 0:
            if name != last:
                found.append([])
            found[-1].append(t)
            last = name
    return found


def reference(q, k, v, slopes, state=None, document_ids=None):
    q, k, v, slopes = (x.double() for x in (q, k, v, slopes))
    batch, length, heads, dim = q.shape
    if state is None:
        state = q.new_zeros(batch, heads, dim, v.shape[-1])
    state = state.double()
    rows, states = [], []
    for b in range(batch):
        documents = [list(range(length))] if document_ids is None else documents_of(document_ids[b].tolist())
        out, final = q.new_zeros(length, heads, v.shape[-1]), state[b]
        for number, at in enumerate(documents):
            n = len(at)
            steps = torch.arange(n).double()
            distance = steps[:, None] - steps
            pairs = torch.einsum("ihd,jhd->hij", q[b, at], k[b, at])
            pairs = pairs * torch.exp(-slopes[:, None, None] * distance.clamp(min=0)) * (distance >= 0)
            values = torch.einsum("hij,jhe->ihe", pairs, v[b, at])
            remains = torch.exp(-slopes * (n - 1 - steps)[:, None])  # (n, H)
            final_here = torch.einsum("jh,jhd,jhe->hde", remains, k[b, at], v[b, at])
            if number == 0:  # the carried state belongs to the first document
                since = torch.exp(-slopes * (steps + 1)[:, None])
                values = values + torch.einsum("ih,ihd,hde->ihe", since, q[b, at], state[b])
                final_here = final_here + torch.exp(-slopes * n)[:, None, None] * state[b]
            out, final = out.index_add(0, torch.tensor(at), values), final_here
        rows.append(out)
        states.append(final)
    return torch.stack(rows), torch.stack(states)


def inputs(batch, length, dtype=torch.float64, seed=0, heads=len(SLOPES)):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, length, heads, DIM)] * 2 + [(batch, length, heads, VALUE_DIM), (batch, heads, DIM, VALUE_DIM)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def ids_without_padding(length):
    """One document, several with gaps in their ids and ids that return, all of length 1, changes at block borders."""
    return torch.tensor([
        [4] * length,
        [(7, 2, 900, 2, 0)[t * 5 // length] for t in range(length)],
        [t * 3 for t in range(length)],
        [t // BLOCK % 2 for t in range(length)],
        [int(t >= BLOCK - 1) + int(t >= BLOCK + 1) for t in range(length)],
    ])


def ids_padded_right(length):
    ids = ids_without_padding(length)
    keep = torch.tensor([length, length // 2, length - 1, min(length, BLOCK), 0])  # the last row is all padding
    return torch.where(torch.arange(length) < keep[:, None], ids, -1)


def ids_padded_anywhere(length):
    ids = torch.cat([ids_without_padding(length), ids_without_padding(length)])
    t = torch.arange(length)
    hidden = torch.stack([
        t < length // 2,  # left, half a row
        t >= length - 1,
        t % 3 == 1,  # inside documents, and on their borders
        t < BLOCK,  # a whole block
        t >= 0,  # the whole row
        (t >= 2) & (t < BLOCK + 3),  # inner, longer than a block; the same document on both sides
        t % 2 == 0,
        t == 0,
        (t < 3) | (t > length - 4),
        t < 0,
    ])
    return torch.where(hidden, -1, ids)


DOCUMENTS = {
    "none": lambda length: None, "packed": ids_without_padding, "right": ids_padded_right, "any": ids_padded_anywhere,
}


def difference(found, expected):
    """Largest error relative to the scale of the expected tensor."""
    assert found.shape == expected.shape
    return ((found.double() - expected).abs().max() / expected.abs().max().clamp(min=1)).item()


@pytest.mark.parametrize("carried", [False, True], ids=["fresh", "carried"])
@pytest.mark.parametrize("kind", DOCUMENTS)
@pytest.mark.parametrize("length", LENGTHS)
def test_all_forms_equal_the_definition(length, kind, carried):
    """Outputs, final states and all gradients, the state's included, in fp64 and fp32."""
    document_ids = DOCUMENTS[kind](length)
    batch = 2 if document_ids is None else len(document_ids)
    exact = [x.requires_grad_() for x in inputs(batch, length)]
    out, state = reference(*exact[:3], SLOPES, exact[3] if carried else None, document_ids)
    weights = torch.randn_like(out), torch.randn_like(state)
    wanted = exact if carried else exact[:3]
    gradients = torch.autograd.grad((out * weights[0]).sum() + (state * weights[1]).sum(), wanted)
    forms = {**FORMS, "steps": stepwise} if kind in ("none", "right") and length <= BLOCK + 1 else FORMS
    for dtype, tolerance in TOLERANCE.items():
        for name, form in forms.items():
            if name == "steps" and kind == "right":  # one document a row: a step cannot see a change of document
                continue
            q, k, v, s = (x.detach().to(dtype).requires_grad_() for x in exact)
            found, found_state = form(q, k, v, SLOPES, state=s if carried else None, document_ids=document_ids)
            assert found.dtype == found_state.dtype == dtype
            loss = (found * weights[0].to(dtype)).sum() + (found_state * weights[1].to(dtype)).sum()
            found_gradients = torch.autograd.grad(loss, (q, k, v, s) if carried else (q, k, v))
            errors = [difference(found, out), difference(found_state, state)]
            errors += [difference(a, b) for a, b in zip(found_gradients, gradients)]
            assert max(errors) <= tolerance, f"{name} in {dtype}: out, state, gradients of q, k, v, s are off by {errors}"
            if document_ids is not None:
                assert (found[document_ids < 0] == 0).all(), f"{name}: padding must give 0"


@pytest.mark.parametrize("block", [1, 2, 7, 64, 1000])
def test_any_block_length(block):
    q, k, v, state = inputs(10, 37)
    ids = ids_padded_anywhere(37)
    expected = reference(q, k, v, SLOPES, state, ids)
    found = lightning_attention(q, k, v, SLOPES, state=state, document_ids=ids, block_size=block)
    assert max(map(difference, found, expected)) < 1e-10


@pytest.mark.parametrize("form", [*FORMS, "steps"])
def test_padding_is_transparent_to_decoding(form):
    """One document per row, padding anywhere, token by token or at once: the same as with the padding deleted."""
    length = BLOCK + 5
    q, k, v, state = inputs(10, length)
    ids = ids_padded_anywhere(length).clamp(max=0)
    run = {**FORMS, "steps": stepwise}[form]
    out, final = run(q, k, v, SLOPES, state=state, document_ids=ids)
    for b in range(10):
        real = ids[b] >= 0
        assert (out[b, ~real] == 0).all()
        if not real.any():
            assert torch.equal(final[b], state[b])
            continue
        alone = run(*(x[b : b + 1, real] for x in (q, k, v)), SLOPES, state=state[b : b + 1])
        assert difference(out[b, real], alone[0][0]) < 1e-10 and difference(final[b], alone[1][0]) < 1e-10


@pytest.mark.parametrize("backend", ["auto", "fast", "chunked", "quadratic", "recurrent"])
@pytest.mark.parametrize("pieces", [(1, 54), (54, 1), (16, 16, 23), (15, 1, 1, 17, 21), (7,) * 7 + (6,)])
def test_any_split_with_carried_state_equals_the_whole(pieces, backend):
    """Also where a piece ends inside padding, and with gradients through the carried states."""
    length = sum(pieces)
    ids = ids_padded_anywhere(length).clamp(max=0)  # one document; a split between two would need a reset
    ids[9] = 10 + torch.arange(length) * 3 // length  # three, whose borders (19, 37) are in no list of pieces
    exact = [x.requires_grad_() for x in inputs(10, length)]
    whole, final = reference(*exact[:3], SLOPES, exact[3], ids)
    weights = torch.randn_like(whole), torch.randn_like(final)
    gradients = torch.autograd.grad((whole * weights[0]).sum() + (final * weights[1]).sum(), exact)
    state, outputs = exact[3], []
    for q, k, v, part in zip(*(x.split(pieces, 1) for x in (*exact[:3], ids))):
        out, state = lightning_attention(
            q, k, v, SLOPES, state=state, document_ids=part, backend=backend, block_size=BLOCK
        )
        outputs.append(out)
    out = torch.cat(outputs, 1)
    found = torch.autograd.grad((out * weights[0]).sum() + (state * weights[1]).sum(), exact)
    assert max(difference(a, b) for a, b in zip((out, state, *found), (whole, final, *gradients))) < 1e-10


def test_step_is_one_line_of_the_recurrence():
    q, k, v, state = inputs(3, 1)
    real = torch.tensor([True, False, True])
    out, updated = lightning_step(q, k, v, SLOPES, state, real)
    expected = reference(q, k, v, SLOPES, state)
    assert difference(out[real], expected[0][real]) < 1e-12 and difference(updated[real], expected[1][real]) < 1e-12
    assert torch.equal(updated[1], state[1]) and (out[1] == 0).all()


def test_one_token_with_a_state_takes_the_step(monkeypatch):
    called = []
    monkeypatch.setattr(lightning, "lightning_step", lambda *a, **o: called.append(1) or lightning_step(*a, **o))
    q, k, v, state = inputs(1, 1)
    lightning_attention(q, k, v, SLOPES, state=state)
    assert called == [1]
    lightning_attention(q, k, v, SLOPES, state=state, backend="recurrent")
    assert called == [1]


@pytest.mark.parametrize("backend", ["fast", "chunked", "quadratic", "recurrent"])
def test_long_and_undecayed_stays_accurate_in_fp32(backend):
    q, k, v, _ = inputs(1, 700)
    expected = reference(q, k, v, SLOPES)
    found = lightning_attention(q.float(), k.float(), v.float(), SLOPES, backend=backend)
    assert all(difference(a, b) < 1e-4 for a, b in zip(found, expected))


@pytest.mark.parametrize("backend", ["fast", "chunked", "quadratic", "recurrent", "auto"])
def test_bf16_inputs_keep_an_fp32_state(backend):
    q, k, v, _ = inputs(2, 40, torch.bfloat16)
    expected = reference(q, k, v, SLOPES)
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out, state = lightning_attention(q, k, v, SLOPES, backend=backend)
            assert out.dtype == torch.bfloat16 and state.dtype == torch.float32
            assert difference(out, expected[0]) < 5e-3  # the rounding of the output
            assert difference(state, expected[1]) < 1e-5  # nothing inside was rounded to bf16
            one, state = lightning_attention(q[:, :1], k[:, :1], v[:, :1], SLOPES, state=state, backend=backend)
            assert one.dtype == torch.bfloat16 and state.dtype == torch.float32


@pytest.mark.parametrize("backend", ["fast", "chunked", "quadratic", "recurrent"])
def test_non_contiguous_inputs(backend):
    """Views of a fused projection, as the model passes them, and transposed ones; inputs are left as they were."""
    generator = torch.Generator().manual_seed(1)
    fused = torch.randn(2, 21, len(SLOPES), 3 * DIM, generator=generator)
    q, k, v = fused.split(DIM, -1)
    v = v.transpose(1, 2).contiguous().transpose(1, 2)[..., ::2]
    ids = ids_padded_anywhere(21)[[0, 5]]
    state = torch.randn(2, len(SLOPES), v.shape[-1], DIM, generator=generator).transpose(-1, -2)
    before = fused.clone(), state.clone()
    found = lightning_attention(q, k, v, SLOPES, state=state, document_ids=ids.T.contiguous().T, backend=backend)
    expected = lightning_attention(
        q.contiguous(), k.contiguous(), v.contiguous(), SLOPES, state=state.contiguous(), document_ids=ids,
        backend=backend,
    )
    assert all(torch.equal(a, b) for a, b in zip(found, expected))
    assert torch.equal(fused, before[0]) and torch.equal(state, before[1])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("form", [*FORMS, "steps"])
def test_garbage_in_padding_goes_nowhere(form, bad):
    """0 * NaN is NaN: padding must be replaced, not multiplied away."""
    length = BLOCK + 6
    q, k, v, state = inputs(10, length)
    ids = ids_padded_anywhere(length)
    if form == "steps":
        ids = ids.clamp(max=0)
    run = {**FORMS, "steps": stepwise}[form]
    expected = run(q, k, v, SLOPES, state=state, document_ids=ids)
    for x in (q, k, v):
        x[ids < 0] = bad
    for x in (q, k, v, state):
        x.requires_grad_()
    found = run(q, k, v, SLOPES, state=state, document_ids=ids)
    assert all(torch.equal(a, b) for a, b in zip(found, expected))
    gradients = torch.autograd.grad(found[0].sum() + found[1].sum(), (q, k, v, state))
    assert all(x[ids >= 0].isfinite().all() for x in gradients[:3]) and gradients[3].isfinite().all()


@pytest.mark.parametrize("form", FORMS)
def test_nan_stays_in_its_row_and_does_not_travel_back(form):
    q, k, v, state = inputs(2, 40)
    expected, _ = FORMS[form](q, k, v, SLOPES, state=state)
    q[0, 20], k[0, 20], v[0, 20] = (torch.full_like(x[0, 20], float("nan")) for x in (q, k, v))
    found, final = FORMS[form](q, k, v, SLOPES, state=state)
    assert torch.equal(found[1], expected[1]) and final[1].isfinite().all()
    assert found[0, 20:].isnan().all()
    if form == "recurrent":
        assert torch.equal(found[0, :20], expected[0, :20])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("form", FORMS)
def test_nan_stays_in_its_document(form, bad):
    """Outputs, states and gradients of the row's other documents are what they are without it: 0 * NaN is NaN."""
    q, k, v, state = inputs(2, 40)
    ids = torch.stack([torch.arange(40) // 10, torch.arange(40) // 20])
    ids[0, 5:7] = -1  # padding before it, and after it at the end of the row
    ids[0, 37:] = -1
    poisoned = (torch.arange(40) >= 10) & (torch.arange(40) < 20) & (torch.arange(2) == 0)[:, None]
    for name in "qkv":
        clean = dict(q=q, k=k, v=v, state=state)
        dirty = {key: x.clone() for key, x in clean.items()}
        dirty[name][0, 13] = bad
        results = []
        for tensors in (clean, dirty):
            tensors = {key: x.requires_grad_() for key, x in tensors.items()}
            out, final = FORMS[form](slopes=SLOPES, document_ids=ids, **tensors)
            weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
            gradients = torch.autograd.grad((out * weight).sum() + final.sum(), list(tensors.values()))
            results.append((out[~poisoned], final, *(x[~poisoned] for x in gradients[:3]), gradients[3]))
            if tensors is dirty:
                assert not out[poisoned].isfinite().all()
        for a, b in zip(*results):
            torch.testing.assert_close(b, a, atol=1e-12, rtol=0)


@pytest.mark.parametrize("form", ["fast", "fast, short pieces"])
def test_a_bad_gradient_stays_in_its_document(form):
    """The loss of one document may be NaN: the forward pass cannot know."""
    q, k, v, state = (x.requires_grad_() for x in inputs(1, 40))
    out, final = FORMS[form](q, k, v, SLOPES, state=state, document_ids=torch.arange(40)[None] // 20)
    gradient = torch.ones_like(out)
    clean = torch.autograd.grad((out, final), (q, k, v, state), (gradient, final.detach()), retain_graph=True)
    gradient = torch.where(torch.arange(40).view(1, 40, 1, 1) < 20, float("nan"), gradient)
    found = torch.autograd.grad((out, final), (q, k, v, state), (gradient, final.detach()))
    assert not found[0][:, :20].isfinite().all() and not found[3].isfinite().all()
    for a, b in zip(found[:3], clean):
        torch.testing.assert_close(a[:, 20:], b[:, 20:], atol=1e-12, rtol=0)


@pytest.mark.parametrize("dim", [16, 32, 48, 64, 80, 128])
def test_head_dims_and_lengths(dim):
    """fp32 error against fp64 wherever speed is compared: at most 2e-6 relative forward, 5e-6 for gradients."""
    generator = torch.Generator().manual_seed(dim)
    slopes = torch.tensor([0.5, 2**-8, 2**-8 * 1e-5, 200.0])
    for length in (1, 15, 16, 63, 64, 65, 200):
        fused = torch.randn(1, length, 4, 3 * dim, generator=generator)
        exact = [x.double().requires_grad_() for x in fused.split(dim, -1)]
        weight = torch.randn(1, length, 4, dim, generator=generator)
        out, state = reference(*exact, slopes)
        wanted = (out, state, *torch.autograd.grad((out * weight).sum(), exact))
        for backend in ("fast", "chunked"):
            inputs = [x.requires_grad_() for x in fused.detach().split(dim, -1)]
            out, state = lightning_attention(*inputs, slopes, backend=backend)
            found = (out, state, *torch.autograd.grad((out * weight).sum(), inputs))
            errors = [((a - b).norm() / b.norm()).item() for a, b in zip(found, wanted)]
            assert max(errors[:2]) <= 2e-6 and max(errors) <= 5e-6, f"{backend}, {length} tokens: {errors}"


def test_nothing_quadratic_hides_in_the_backward_of_the_fast_form():
    """Eight times the tokens save eight times the numbers, and no tensor of a piece grows with the length."""
    def saved(length):
        q, k, v, _ = inputs(1, length, torch.float32)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            fast_in_short_pieces(q.requires_grad_(), k, v, SLOPES)
        return sum(sizes)

    assert saved(8 * 320) <= 8 * saved(320)


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(k=torch.zeros(2, 4, 5, 6)), ["(2, 4, 5, 5)", "(2, 4, 5, 6)", "expected (B, T, H, D)"]),
        (dict(v=torch.zeros(2, 3, 5, 5)), ["(2, 3, 5, 5)", "expected (B, T, H, D)"]),
        (dict(q=torch.zeros(2, 4, 5), k=torch.zeros(2, 4, 5), v=torch.zeros(2, 4, 5)), ["(2, 4, 5)", "(B, T, H, D)"]),
        (dict(q=torch.zeros(2, 0, 5, 5), k=torch.zeros(2, 0, 5, 5), v=torch.zeros(2, 0, 5, 5)),
         ["(2, 0, 5, 5)", "at least one token"]),
        (dict(q=torch.zeros(2, 4, 5, 5, dtype=torch.long)), ["torch.int64, torch.float32", "convert"]),
        (dict(v=torch.zeros(2, 4, 5, 5).bfloat16()), ["torch.bfloat16", "one floating-point dtype"]),
        (dict(k=torch.zeros(2, 4, 5, 5, device="meta")), ["cpu", "meta", "move"]),
        (dict(state=torch.zeros(2, 5, 5, 5, device="meta")), ["cpu", "meta", "move"]),
        (dict(slopes=torch.zeros(4)), ["(4,)", "expected (5,)", "one for each head"]),
        (dict(slopes=torch.zeros(5, 1, 1)), ["(5, 1, 1)", "expected (5,)"]),
        (dict(state=torch.zeros(2, 5, 5)), ["(2, 5, 5)", "(B, H, D_k, D_v) = (2, 5, 5, 5)"]),
        (dict(state=torch.zeros(1, 5, 5, 5)), ["(1, 5, 5, 5)", "(2, 5, 5, 5)"]),
        (dict(document_ids=torch.zeros(2, 5, dtype=torch.long)), ["(2, 5)", "expected (B, T) = (2, 4)"]),
        (dict(backend="flash"), ["'flash'", "auto, recurrent, quadratic, chunked, fast, triton"]),
        (dict(backend="triton"), ["backend 'triton' cannot run", "backend='auto'"]),
        (dict(block_size=0), ["block_size is 0", "at least 1"]),
    ],
)
def test_mistakes_are_named_with_their_remedy(change, words):
    arguments = dict(q=torch.zeros(2, 4, 5, 5), k=torch.zeros(2, 4, 5, 5), v=torch.zeros(2, 4, 5, 5), slopes=SLOPES)
    with pytest.raises(UserError) as error:
        lightning_attention(**{**arguments, **change})
    assert all(word in str(error.value) for word in words), error.value
