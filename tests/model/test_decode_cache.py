"""Decoding on the cache equals the full forward, however a row is padded, packed, cut, copied or reordered."""

import dataclasses

import pytest
import torch

from minim1.config import M1Config
from minim1.model.cache import DecodeCache
from minim1.model.decoder import MiniM1

CONFIG = M1Config(
    vocab_size=37, hidden_size=24, intermediate_size=14, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, head_dim=8, attn_type_list=(0, 1, 0, 1), num_local_experts=5, num_experts_per_tok=2,
)


@pytest.fixture(scope="module")
def model():
    with torch.no_grad():
        yield MiniM1(CONFIG).double()


def tokens(*shape, seed=0):
    return torch.randint(37, shape, generator=torch.Generator().manual_seed(seed))


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


def feed(model, cache, ids, pieces, documents=None):
    """Logits of all tokens, fed in pieces of the given lengths."""
    documents = [None] * len(pieces) if documents is None else documents.split(pieces, 1)
    parts = [model(x, cache=cache, document_ids=d).logits for x, d in zip(ids.split(pieces, 1), documents)]
    return torch.cat(parts, 1)


@pytest.mark.parametrize(
    "pieces",
    [(1,) * 20, (12,) + (1,) * 8, (7, 6, 7), (1, 19), (19, 1), (20,), (1, 1, 10, 1, 7)],
    ids=lambda pieces: "+".join(map(str, pieces[:4])),
)
def test_any_pieces_equal_the_full_forward(model, pieces):
    ids = tokens(3, 20)
    close(feed(model, model.new_cache(), ids, pieces), model(ids).logits)


def test_beyond_the_first_buffer(model):
    """Keys and values outgrow their buffer (64, then 128) without loss."""
    ids = tokens(1, 150)
    cache = model.new_cache()
    close(feed(model, cache, ids, (60,) + (1,) * 10 + (50,) + (1,) * 30), model(ids).logits)
    assert cache.layers[1].keys.shape[1] == 256 and cache.length == 150  # doubled, so that T steps copy O(T)


def test_fp32_decode():
    small = MiniM1(CONFIG).requires_grad_(False)
    ids = tokens(2, 40)
    torch.testing.assert_close(
        feed(small, small.new_cache(), ids, (30,) + (1,) * 10), small(ids).logits, atol=1e-4, rtol=0
    )


def ragged(side):
    """Three rows of real lengths 9, 4 and 1 in a width of 9: ids, document ids, and the rows themselves."""
    rows = [tokens(1, n, seed=n) for n in (9, 4, 1)]
    ids, documents = tokens(3, 9, seed=77), torch.full((3, 9), -1)  # padding holds any token
    for b, row in enumerate(rows):
        n = row.shape[1]
        at = {"left": slice(9 - n, 9), "right": slice(0, n), "middle": slice((9 - n) // 2, (9 - n) // 2 + n)}[side]
        ids[b, at], documents[b, at] = row[0], 6
    return ids, documents, rows


@pytest.mark.parametrize("pieces", [(9,), (3, 6), (1,) * 9], ids=["whole", "pieces", "steps"])
@pytest.mark.parametrize("side", ["left", "right", "middle"])
def test_ragged_prompts_then_decode(model, side, pieces):
    """Padded prompts, then answers token by token and in a piece: each row as if it were alone and unpadded."""
    ids, documents, rows = ragged(side)
    cache = model.new_cache()
    prompt = feed(model, cache, ids, pieces, documents)
    answers = tokens(3, 8, seed=5)
    found = feed(model, cache, answers, (1, 1, 1, 4, 1))
    for b, row in enumerate(rows):
        alone = model(torch.cat([row, answers[b : b + 1]], 1)).logits[0]
        close(prompt[b, documents[b] >= 0], alone[: row.shape[1]])
        close(found[b], alone[row.shape[1] :])


def test_finished_rows_feed_padding(model):
    """A row whose answer has ended is fed -1: it stays as it was, and the others are not disturbed."""
    ids, documents, rows = ragged("left")
    cache = model.new_cache()
    model(ids, document_ids=documents, cache=cache)
    answers = tokens(3, 6, seed=5)
    alive = torch.tensor([[0, 0, 0, 0, 0, 0], [0, 0, -1, -1, -1, 0], [-1, 0, -1, 0, -1, 0]])
    found = feed(model, cache, answers, (1,) * 6, alive)
    for b, row in enumerate(rows):
        real = alive[b] >= 0
        alone = model(torch.cat([row, answers[b : b + 1, real]], 1)).logits[0]
        close(found[b, real], alone[row.shape[1] :])


def test_packed_documents_through_the_cache(model):
    """Cut inside documents; the newest one goes on by default, with its own positions."""
    ids = tokens(2, 24)
    documents = torch.tensor([[5] * 3 + [9] * 8 + [5] * 13, [1] * 10 + [-1] * 2 + [1] * 2 + [0] * 10])
    pieces = (2, 5, 2, 6, 9)  # borders of row 0 at 3 and 11, of row 1 at 14
    cache = model.new_cache()
    found = feed(model, cache, ids, pieces, documents)
    real = documents >= 0
    close(found[real], model(ids, document_ids=documents).logits[real])
    more = tokens(2, 3, seed=4)
    found = feed(model, cache, more, (1, 2))
    close(found[0], model(torch.cat([ids[:1, 11:], more[:1]], 1)).logits[0, 13:])
    close(found[1], model(torch.cat([ids[1:, 14:], more[1:]], 1)).logits[0, 10:])


def test_rotary_positions_count_within_documents(model):
    """Relative rotary would forgive an offset, so look at the positions themselves."""
    seen = []
    layer = model.model.layers[1].self_attn
    rope, layer.rope = layer.rope, lambda x, at, **options: seen.append(at.tolist()) or rope(x, at, **options)
    try:
        cache = model.new_cache()
        documents = torch.tensor([[-1, 4, 4, 8], [4, 4, 4, 4], [-1, -1, -1, -1]])
        model(tokens(3, 4), document_ids=documents, cache=cache)
        model(tokens(3, 1), cache=cache)
        model(tokens(3, 3), document_ids=torch.tensor([[8, 3, 3], [-1, 4, -1], [-1, 0, 0]]), cache=cache)
        model(tokens(3, 1), document_ids=torch.tensor([[-1], [-1], [5]]), cache=cache)
        model(tokens(3, 2), cache=cache)
        model(tokens(3, 1), cache=cache, positions=torch.tensor([[50], [60], [70]]))
    finally:
        layer.rope = rope
    assert seen[::2] == [
        [[0, 0, 1, 0], [0, 1, 2, 3], [0, 0, 0, 0]],
        [[1], [4], [0]],
        [[2, 0, 1], [0, 5, 0], [0, 1, 2]],
        [[0], [0], [3]],
        [[2, 3], [6, 7], [4, 5]],
        [[50], [60], [70]],
    ]


@pytest.mark.parametrize("side", ["none", "left", "right"])
def test_repeat_and_select_equal_recomputation(model, side):
    ids, documents, rows = ragged("left" if side == "none" else side)
    if side == "none":
        documents, rows = None, list(ids.split(1))
    cache = model.new_cache()
    model(ids, document_ids=documents, cache=cache)
    assert cache.repeat(2) is cache
    prompts = [rows[b] for b in (0, 0, 1, 1, 2, 2)]
    answers = tokens(6, 3, seed=6)
    found = feed(model, cache, answers, (1, 2))
    for b in range(6):
        alone = model(torch.cat([prompts[b], answers[b : b + 1]], 1)).logits[0]
        close(found[b], alone[-3:])
    histories = [torch.cat([prompts[b], answers[b : b + 1]], 1) for b in range(6)]
    for choice in (torch.tensor([5, 1, 1, 3]), torch.tensor([True, False, True, True])):  # beams, then finished rows
        cache.select(choice)
        kept = choice.nonzero().flatten() if choice.dtype == torch.bool else choice
        histories = [histories[int(b)] for b in kept]
        more = tokens(len(kept), 1, seed=9)
        found = model(more, cache=cache).logits
        histories = [torch.cat([h, more[b : b + 1]], 1) for b, h in enumerate(histories)]
        for b, history in enumerate(histories):
            close(found[b, -1], model(history).logits[0, -1])


def test_rows_are_copies_after_select(model):
    """Two children of one row do not write into each other."""
    cache = model.new_cache()
    ids = tokens(1, 5)
    model(ids, cache=cache)
    cache.repeat(2)
    answers = torch.tensor([[3], [4]])
    for _ in range(2):
        found = model(answers, cache=cache).logits
    for b in range(2):
        close(found[b, 0], model(torch.cat([ids, answers[b : b + 1], answers[b : b + 1]], 1)).logits[0, -1])


def test_two_generations_do_not_interleave(model):
    a, b = tokens(1, 12, seed=1), tokens(2, 12, seed=2)
    first, second = model.new_cache(), model.new_cache()
    outputs = [[], []]
    for t in range(12):
        for ids, cache, out in ((a, first, outputs[0]), (b, second, outputs[1])):
            out.append(model(ids[:, t : t + 1], cache=cache).logits)
    close(torch.cat(outputs[0], 1), model(a).logits)
    close(torch.cat(outputs[1], 1), model(b).logits)


def test_reset(model):
    cache = model.new_cache()
    model(tokens(3, 5), document_ids=torch.tensor([[0, 0, -1, 1, 1]] * 3), cache=cache)
    assert cache.reset() is cache and cache.nbytes() == 0 and cache.length == 0
    ids = tokens(2, 9)
    close(feed(model, cache, ids, (4, 5)), model(ids).logits)


def test_empty_cache():
    cache = DecodeCache(CONFIG)
    assert cache.nbytes() == 0
    cache.repeat(4).select(torch.tensor([0, 1]))
    assert cache.nbytes() == 0


def test_bytes():
    """Lightning is constant, softmax linear, in the numbers that `count` promises; two kinds of layers each."""
    for kinds, state, per_token in (
        ((0, 0, 0, 0), 4 * 4 * 8 * 8 * 4, 0),
        ((1, 1, 1, 1), 0, 4 * 2 * 2 * 8 * 4),
        (CONFIG.attn_type_list, 2 * 4 * 8 * 8 * 4, 2 * 2 * 2 * 8 * 4),
    ):
        model = MiniM1(dataclasses.replace(CONFIG, attn_type_list=kinds))  # fp32
        cache, length = model.new_cache(), 0
        with torch.no_grad():
            for step in (1, 1, 30, 1, 100):
                model(tokens(3, step), cache=cache)
                length += step
                assert cache.nbytes() == 3 * (state + length * per_token)
    half = MiniM1(CONFIG).bfloat16()
    cache = half.new_cache()
    with torch.no_grad():
        half(tokens(1, 10), cache=cache)
    assert cache.nbytes() == 2 * 4 * 8 * 8 * 4 + 10 * 2 * 2 * 2 * 8 * 2  # states stay fp32, keys and values do not
    assert {layer.state.dtype for layer in cache.layers[::2]} == {torch.float32}


def test_last_only_and_expert_ids(model):
    ids, cache = tokens(2, 8), model.new_cache()
    out = model(ids, cache=cache, last_only=True)
    full = model(ids)
    close(out.logits, full.logits[:, -1:])
    assert torch.equal(out.expert_ids, full.expert_ids)
    step = model(tokens(2, 1, seed=3), cache=cache)
    assert torch.equal(step.expert_ids[:, :, 0], model(torch.cat([ids, tokens(2, 1, seed=3)], 1)).expert_ids[:, :, -1])
