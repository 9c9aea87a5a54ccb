"""The three helpers that say what a document is, against the plainest loops."""

import random

import torch

from minim1.model.documents import attention_mask, document_positions, document_runs


def loops(row):
    """Runs and positions of a row of ids, one token at a time."""
    runs, positions, last, run, position = [], [], None, -1, 0
    for name in row:
        if name < 0:
            runs.append(-1)
            positions.append(0)
            continue
        if name != last:
            run, position, last = run + 1, 0, name
        runs.append(run)
        positions.append(position)
        position += 1
    return runs, positions


def random_rows(length, count=60):
    rng = random.Random(length)
    few = [[rng.choice([-1, 0, 1]) for _ in range(length)] for _ in range(count)]
    many = [[rng.choice([-1, -1, 5, 5, 5, 9, 1000]) for _ in range(length)] for _ in range(count)]
    runs = [sorted(rng.choice([0, 3, 4]) for _ in range(length)) for _ in range(count)]
    return torch.tensor([*few, *many, *runs, [-1] * length, [2] * length, list(range(length))])


def test_runs_and_positions():
    for length in (1, 2, 3, 12):
        ids = random_rows(length)
        runs = document_runs(ids)
        positions = document_positions(runs)
        expected = [loops(row) for row in ids.tolist()]
        assert runs.dtype == positions.dtype == torch.int64
        assert runs.tolist() == [a for a, _ in expected]
        assert positions.tolist() == [b for _, b in expected]
        assert torch.equal(document_positions(torch.where(runs < 0, runs, runs + 3)), positions)  # any first number


def test_narrow_integers():
    ids = torch.tensor([[7, 7, -1, 3]], dtype=torch.int32)
    assert document_runs(ids).tolist() == [[0, 0, -1, 1]] and document_runs(ids).dtype == torch.int64


def test_mask():
    ids = random_rows(9, count=15)
    runs = document_runs(ids)
    for queries in (1, 4, 9):
        mask = attention_mask(runs[:, -queries:], runs)
        assert mask.dtype == torch.bool and mask.shape == (len(ids), queries, 9)
        for row, b in zip(runs.tolist(), mask.tolist()):
            for i in range(queries):
                t = 9 - queries + i
                assert b[i] == [j <= t and row[j] == row[t] >= 0 for j in range(9)]
