"""Documents in a batch: what "packed" and "padding" mean, once, for both kinds of attention.

B batch, T time. `document_ids` (B, T) integers: a document is a maximal run of equal ids, and -1 marks
padding. Padding is transparent: the result on the other tokens is the same as if it were deleted, so that
left, right and inner padding, and any split of a row into pieces, all agree.
"""

import torch
from torch import Tensor


def document_runs(document_ids: Tensor) -> Tensor:
    """Number the documents of each row 0, 1, 2, ... in order; padding stays -1.

    Args: document_ids (B, T) integers. Returns: (B, T) int64, non-decreasing over real tokens.

    >>> document_runs(torch.tensor([[7, 7, -1, 7, 3, 7]]))
    tensor([[ 0,  0, -1,  0,  1,  2]])
    """
    time = torch.arange(document_ids.shape[1], device=document_ids.device)
    real = document_ids >= 0
    last_real = torch.where(real, time, -1).cummax(dim=1).values  # index of the newest real token up to t
    before = torch.cat([torch.full_like(last_real[:, :1], -1), last_real[:, :-1]], dim=1)
    previous_id = document_ids.gather(1, before.clamp(min=0))
    starts = real & (before >= 0) & (document_ids != previous_id)
    return torch.where(real, starts.long().cumsum(dim=1), -1)


def real_first(real: Tensor) -> Tensor:
    """Each row's places where a mask is True, in order, and then those where it is False. (B, T) bool -> (B, T) int64.

    >>> real_first(torch.tensor([[False, True, False, True]]))
    tensor([[1, 3, 0, 2]])
    """
    return (~real).to(torch.uint8).argsort(dim=1, stable=True)


def document_positions(runs: Tensor) -> Tensor:
    """Position of each token in its document, counted from 0; padding gets 0. (B, T) -> (B, T) int64.

    >>> document_positions(torch.tensor([[0, 0, -1, 0, 1]]))
    tensor([[0, 1, 0, 2, 0]])
    """
    real = runs >= 0
    count = real.long().cumsum(dim=1)  # real tokens up to and including t
    before = torch.cat([torch.full_like(runs[:, :1], -1), runs.cummax(dim=1).values[:, :-1]], dim=1)
    starts = real & (runs > before)
    start_count = torch.where(starts, count, 0).cummax(dim=1).values
    return torch.where(real, count - start_count, 0)


def attention_mask(query_runs: Tensor, key_runs: Tensor) -> Tensor:
    """Which keys each query may see: earlier or equal, same document, not padding.

    Args: query_runs (B, T), key_runs (B, S); the queries are the last T of the S positions.
    Returns: (B, T, S) bool.
    """
    queries, keys = query_runs.shape[1], key_runs.shape[1]
    same = query_runs.unsqueeze(2) == key_runs.unsqueeze(1)
    allowed = same & (key_runs >= 0).unsqueeze(1)
    if queries == 1:
        return allowed
    return allowed & torch.ones(queries, keys, dtype=torch.bool, device=key_runs.device).tril(keys - queries)


def finite(*tensors: Tensor) -> bool:
    """Whether no tensor holds NaN or Inf. One pass each; a sum that overflows also counts as not finite."""
    return all(bool(x.detach().sum().isfinite()) for x in tensors)


def one_by_one(form, q: Tensor, k: Tensor, v: Tensor, state: Tensor, runs: Tensor) -> tuple[Tensor, Tensor]:
    """`form(q, k, v, state, None)` on every document by itself: slow, but what is in one cannot reach another.

    Args: q, k, v (B, T, H, D); state (B, H, D_k, D_v) of the first documents; runs (B, T), -1 at padding.
    Returns: out (B, T, H, D_v), 0 at padding, and the state after each row's last document.
    """
    out, ends = q.new_zeros(*q.shape[:3], v.shape[3]), []
    for row, numbers in enumerate(runs):
        end, fresh = state[row : row + 1], torch.zeros_like(state[row : row + 1])
        for number in range(int(numbers.max()) + 1):
            at = (numbers == number).nonzero().squeeze(1)
            piece, end = form(*(x[row : row + 1, at] for x in (q, k, v)), fresh if number else end, None)
            out = out.index_put((torch.tensor(row), at), piece[0])
        ends.append(end)
    return out, torch.cat(ends)
