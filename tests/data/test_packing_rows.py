"""Packing loses and splits nothing; the text of a step is a pure function of its arguments."""

import random

import pytest
import torch

from minim1.data import packing
from minim1.data.corpus import TokenStream
from minim1.data.packing import Batch, heldout_windows, pack_documents, step_seed, text_rows
from minim1.errors import UserError

FIELDS = ("input_ids", "mask", "document_ids", "positions")


def same(a, b):
    return all(torch.equal(getattr(a, f), getattr(b, f)) for f in FIELDS)


def random_documents(seed, count, longest):
    """Documents whose tokens are all different, so that each can be found again."""
    rng, token = random.Random(seed), iter(range(1, 10**6))
    sizes = [rng.randint(1, longest) for _ in range(count)]
    return [([next(token) for _ in range(n)], [rng.randint(0, 1) for _ in range(n)]) for n in sizes]


def unpack(batch, pad_id):
    """The documents of a batch as {first token: (ids, mask)}, checking every invariant."""
    found = {}
    for row in range(batch.input_ids.shape[0]):
        ids, mask, documents, positions = (getattr(batch, f)[row] for f in FIELDS)
        padding = documents == -1
        assert (ids[padding] == pad_id).all() and not mask[padding].any() and (positions[padding] == 0).all()
        for number in documents[~padding].unique().tolist():
            at = (documents == number).nonzero().flatten()
            assert (at.diff() == 1).all()  # in one piece
            assert positions[at].tolist() == list(range(len(at)))
            found[int(ids[at[0]])] = (ids[at].tolist(), mask[at].int().tolist())
    return found


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_lost_or_split(seed):
    documents = random_documents(seed, count=60, longest=32)
    batch = pack_documents(documents, 32, pad_id=0)
    expected = {ids[0]: (ids, [0, *mask[1:]]) for ids, mask in documents}
    assert unpack(batch, 0) == expected
    assert batch.num_targets == sum(sum(mask[1:]) for _, mask in documents)
    for field, dtype in zip(FIELDS, (torch.int64, torch.bool, torch.int64, torch.int64), strict=True):
        assert getattr(batch, field).dtype == dtype
        assert getattr(batch, field).shape == (batch.input_ids.shape[0], 32)
    assert same(batch, pack_documents(iter(documents), 32, pad_id=0))


def test_best_fit():
    sizes = [3, 6, 2, 5, 4]  # decreasing best fit fills two rows of 10 exactly: 6+4 and 5+3+2
    documents = [(list(range(10 * n, 11 * n)), [1] * n) for n in sizes]
    batch = pack_documents(documents, 10, pad_id=0)
    assert (batch.document_ids >= 0).all() and batch.input_ids.shape == (2, 10)
    assert batch.document_ids.tolist() == [[0] * 6 + [1] * 4, [0] * 5 + [1] * 3 + [2] * 2]
    # of the rows with room (5 and 3 tokens), the fuller one is taken
    batch = pack_documents([([1] * n, [1] * n) for n in (7, 5, 3, 2)], 10, pad_id=0)
    assert batch.document_ids[0].tolist() == [0] * 7 + [1] * 3


def test_rows_are_few():
    documents = random_documents(1, count=300, longest=40)
    batch = pack_documents(documents, 64, pad_id=0)
    tokens = sum(len(ids) for ids, _ in documents)
    assert batch.input_ids.shape[0] <= tokens / 64 * 1.05 + 1


def test_exact_fit_and_too_long():
    assert pack_documents([([1, 2, 3], [1, 1, 1])], 3, pad_id=0).mask.tolist() == [[False, True, True]]
    with pytest.raises(UserError, match="4 tokens.*holds 3.*raise the length"):
        pack_documents([([1], [1]), ([1, 2, 3, 4], [1] * 4)], 3, pad_id=0)
    with pytest.raises(ValueError, match="mask has 1"):
        pack_documents([([1, 2], [1])], 3, pad_id=0)
    assert pack_documents([], 3, pad_id=0).input_ids.shape == (0, 3)


def test_batch_operations():
    batch = pack_documents(random_documents(3, count=20, longest=8), 8, pad_id=0)
    rows = batch.input_ids.shape[0]
    assert same(Batch.cat([batch.slice(slice(0, 2)), batch.slice(range(2, rows))]), batch)
    assert same(batch.slice([1, 0]), batch.slice(torch.tensor([1, 0])))
    assert same(batch.to("cpu"), batch)
    assert batch.to("meta").input_ids.device.type == "meta"


def stream_of(sizes):
    """A stream in which each token is its own place."""
    documents = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)).int()
    return TokenStream(torch.arange(len(documents), dtype=torch.int32), documents)


STREAM = stream_of([5, 1, 40, 23, 2, 2, 64, 33, 30, 7])  # 207 tokens


def epoch_of(stream, length, rows, seed, epoch):
    """All windows of an epoch, as the sorted list of their places."""
    windows = max(1, (len(stream.ids) - length + 1) // length)
    numbers = range(epoch * windows, (epoch + 1) * windows)
    first, last = numbers[0] // rows, numbers[-1] // rows
    batches = [text_rows(stream, seed=seed, step=s, rows=rows, length=length) for s in range(first, last + 1)]
    places = Batch.cat(batches).input_ids[numbers[0] - first * rows :][:windows]
    return places


@pytest.mark.parametrize("rows", [1, 3, 40])  # 40 rows: several epochs in one step
@pytest.mark.parametrize("length", [16, 1, 23, 207, 150])
def test_each_epoch_visits_every_window_once(length, rows):
    phases = set()
    for epoch in range(4):
        places = epoch_of(STREAM, length, rows, seed=5, epoch=epoch)
        assert (places[:, 1:] - places[:, :-1] == 1).all()
        visited = places.flatten().sort().values
        assert (visited.diff() == 1).all()  # each place once, without a gap
        assert 207 - len(visited) < 2 * length - (length > 1)
        phases.add(int(visited[0]))
    if length in (16, 23, 150):
        assert len(phases) > 1  # another cut in another epoch


def test_order_is_shuffled_and_differs_between_epochs_and_seeds():
    orders = [epoch_of(STREAM, 8, 4, seed, epoch)[:, 0] // 8 for seed in (0, 1) for epoch in (0, 1)]
    assert all(not torch.equal(order, order.sort().values) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 4


def test_text_rows_are_pure():
    def draw(step):
        packing._epoch.cache_clear()
        return text_rows(STREAM, seed=3, step=step, rows=5, length=12)

    later, earlier = draw(9), draw(2)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert same(draw(2), earlier) and same(draw(9), later) and not same(earlier, later)
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is left alone


def test_text_rows_know_their_documents():
    for step in range(20):
        batch = text_rows(STREAM, seed=0, step=step, rows=4, length=20)
        assert torch.equal(batch.document_ids, STREAM.documents[batch.input_ids].long())
        for row in range(4):
            position = 0
            for t in range(20):
                begins = t == 0 or batch.document_ids[row, t] != batch.document_ids[row, t - 1]
                position = 0 if begins else position + 1
                assert batch.positions[row, t] == position
                assert bool(batch.mask[row, t]) == (not begins)
        assert batch.input_ids.dtype == batch.document_ids.dtype == batch.positions.dtype == torch.int64


def test_heldout_windows():
    batch = heldout_windows(STREAM, 16)
    assert batch.input_ids.tolist() == [list(range(16 * i, 16 * i + 16)) for i in range(207 // 16)]
    assert not batch.mask[:, 0].any() and batch.num_targets == 12 * 15 - (STREAM.documents[:192].diff() != 0)[
        [i for i in range(191) if i % 16 != 15]].sum()  # fmt: skip
    few = heldout_windows(STREAM, 16, max_windows=4)
    assert few.input_ids[:, 0].tolist() == [0, 48, 96, 144]  # evenly spread
    assert same(heldout_windows(STREAM, 16, max_windows=100), batch)
    assert heldout_windows(STREAM, 23).input_ids.flatten().tolist() == list(range(207))  # nothing left over
    assert heldout_windows(STREAM, 207).input_ids.shape == (1, 207)


def test_text_shorter_than_a_window():
    for function in (heldout_windows, lambda s, n: text_rows(s, seed=0, step=0, rows=1, length=n)):
        with pytest.raises(UserError, match="207 tokens.*208"):
            function(STREAM, 208)


def test_step_seed():
    seeds = [step_seed(s, t, p) for s in range(5) for t in range(200) for p in ("text", "tasks")]
    assert len(set(seeds)) == len(seeds) and all(0 <= s < 2**63 for s in seeds)
    assert step_seed(1, 11, "x") != step_seed(11, 1, "x")
    assert step_seed(0, 0, "text") == 5899858692414405708  # the same on every machine
