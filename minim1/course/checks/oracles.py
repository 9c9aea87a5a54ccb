"""What the exercises should give, as sums over pairs in fp64.

Written apart from `minim1.model` on purpose: a mistake there must not make a right answer fail, nor a wrong one pass.
All functions take tensors of any float dtype and return fp64; gradients flow. B batch, T time, H heads, D head dim.
"""

import torch
from torch import Tensor


def double(*tensors: Tensor) -> list[Tensor]:
    return [x.double() for x in tensors]


def pair_weights(slopes: Tensor, length: int) -> Tensor:
    """(H, T, T): exp(-s (i - j)) where j <= i, else 0."""
    time = torch.arange(length, dtype=torch.float64)
    distance = time.view(-1, 1) - time
    weights = torch.exp(-slopes.double().view(-1, 1, 1) * distance.clamp(min=0))
    return torch.where(distance >= 0, weights, 0.0)


def since_start(slopes: Tensor, length: int) -> Tensor:
    """(T, H): exp(-s (i + 1)), what is left at token i, counted from 0, of a state that was there before token 0."""
    return torch.exp(-(torch.arange(length, dtype=torch.float64) + 1).view(-1, 1) * slopes.double())


def intra(q: Tensor, k: Tensor, v: Tensor, slopes: Tensor) -> Tensor:
    """o_i = sum over j <= i of exp(-s (i - j)) (q_i . k_j) v_j. (B, T, H, D) x 3, (H,) -> (B, T, H, D_v)."""
    return pairs(q, k, v, pair_weights(slopes, q.shape[1]))


def pairs(q: Tensor, k: Tensor, v: Tensor, weights: Tensor) -> Tensor:
    """o_i = sum over all j of w_ij (q_i . k_j) v_j, with weights (H, T, T), right or wrong ones."""
    q, k, v = double(q, k, v)
    return torch.einsum("bihd,bjhd,hij,bjhe->bihe", q, k, weights, v)


def inter(q: Tensor, state: Tensor, slopes: Tensor) -> Tensor:
    """o_i = exp(-s (i + 1)) q_i S. (B, T, H, D), (B, H, D, D_v), (H,) -> (B, T, H, D_v)."""
    q, state = double(q, state)
    return torch.einsum("bihd,ih,bhde->bihe", q, since_start(slopes, q.shape[1]), state)


def carried(k: Tensor, v: Tensor, state: Tensor, slopes: Tensor) -> Tensor:
    """exp(-s T) S + sum over j of exp(-s (T - 1 - j)) k_j v_j. -> (B, H, D, D_v)."""
    k, v, state = double(k, v, state)
    length = k.shape[1]
    left = torch.exp(-(length - 1 - torch.arange(length, dtype=torch.float64)).view(-1, 1) * slopes.double())
    kept = torch.exp(-slopes.double() * length).view(-1, 1, 1)
    return kept * state + torch.einsum("bjhd,jh,bjhe->bhde", k, left, v)


def attention(q: Tensor, k: Tensor, v: Tensor, slopes: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Output and last state of one document; `state` None is zero. Shapes as in `minim1.lightning_attention`."""
    state = zero_state(k, v) if state is None else state
    return intra(q, k, v, slopes) + inter(q, state, slopes), carried(k, v, state, slopes)


def zero_state(k: Tensor, v: Tensor) -> Tensor:
    return torch.zeros(k.shape[0], k.shape[2], k.shape[3], v.shape[3], dtype=torch.float64)


def documents(ids: list[int]) -> list[list[int]]:
    """Positions of each document of one row: maximal runs of equal ids once padding (-1) is deleted.

    >>> documents([4, 4, -1, 4, 9, -1])
    [[0, 1, 3], [4]]
    """
    found, previous = [], None
    for position, number in enumerate(ids):
        if number < 0:
            continue
        if number != previous:
            found.append([])
        found[-1].append(position)
        previous = number
    return found


def packed(q: Tensor, k: Tensor, v: Tensor, slopes: Tensor, state: Tensor | None, document_ids: Tensor):
    """`attention` on every document by itself; the first one of a row starts from `state`."""
    state = zero_state(k, v) if state is None else state.double()
    rows, ends = [], []
    for row, ids in enumerate(document_ids.tolist()):
        end = state[row : row + 1]
        out = torch.zeros(1, len(ids), v.shape[2], v.shape[3], dtype=torch.float64)
        for number, at in enumerate(documents(ids)):
            start = end if number == 0 else torch.zeros_like(end)
            piece, end = attention(*(x[row : row + 1, at] for x in (q, k, v)), slopes, start)
            out = out.index_put((torch.tensor(0), torch.tensor(at)), piece[0])
        rows.append(out)
        ends.append(end)
    return torch.cat(rows), torch.cat(ends)


def slopes(num_heads: int, layer: int, num_layers: int) -> Tensor:
    """2^(-8h/H) (1 - l/(L-1) + 1e-5), h = 1..H, for a power of two H; factor 1 + 1e-5 for one layer. (H,)."""
    factor = (1 - layer / (num_layers - 1) if num_layers > 1 else 1) + 1e-5
    heads = torch.arange(1, num_heads + 1, dtype=torch.float64)
    return torch.exp2(-8 * heads / num_heads) * factor


def half_life(slopes: Tensor, fraction: float = 0.5) -> Tensor:
    """Tokens until exp(-s t) = fraction; slopes above 0. (H,) -> (H,)."""
    return torch.tensor(fraction, dtype=torch.float64).log() / -slopes.double()
