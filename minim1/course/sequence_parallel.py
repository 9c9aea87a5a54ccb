"""One sequence cut over several processes: who has to wait for whom? (MiniMax-01 report §3, LASP+.)

Each rank holds one piece of the sequence and computes it as if nothing stood before it. What is missing is the state
that the earlier pieces would have left, and it enters at the end, by one product:

  `chain`    LASP: rank r waits for the state of rank r - 1, adds its own and sends it on. N - 1 waits in a row.
  `gathered` LASP+: every rank publishes (state, decay) of its piece once, in one all-gather, and folds those of the
             ranks before it by itself. One exchange, whatever N; each rank receives N states instead of one.

B batch, T time, H heads, D head dim. Real processes and real `torch.distributed` (gloo), on one machine.
"""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from minim1 import workers
from minim1.errors import UserError
from minim1.model.lightning import lightning_attention
from minim1.workers import Workers

TIMEOUT = 60.0  # seconds that a rank waits for another before it gives up


@dataclass(frozen=True)
class Result:
    """out (B, T, H, D_v) and state (B, H, D_k, D_v) of the whole sequence; process ids and piece lengths by rank;
    exchanges: how many had to happen one after another."""

    out: Tensor
    state: Tensor
    processes: list[int]
    lengths: list[int]
    exchanges: int


def chain(group: Workers, own: Tensor, decay: Tensor) -> tuple[Tensor, int]:
    """The state before this rank's piece, handed from rank to rank (LASP).

    Args: own (B, H, D_k, D_v), the state that this piece leaves when it starts from zero; decay (H,) over its length.
    Returns: the state before this piece, and the number of exchanges made before it was known.
    """
    before = torch.zeros_like(own)
    if group.rank > 0:
        dist.recv(before, src=group.rank - 1)
    if group.rank < group.size - 1:
        dist.send(decay.view(-1, 1, 1) * before + own, dst=group.rank + 1)
    return before, group.rank


def gathered(group: Workers, own: Tensor, decay: Tensor) -> tuple[Tensor, int]:
    """The same from one all-gather of all pieces' (state, decay) (LASP+)."""
    message = torch.cat([own.flatten(), decay.to(own.dtype)])
    messages = [torch.empty_like(message) for _ in range(group.size)]
    dist.all_gather(messages, message)
    before = torch.zeros_like(own)
    for message in messages[: group.rank]:
        state, decay = message[: own.numel()].view_as(own), message[own.numel() :]
        before = decay.view(-1, 1, 1) * before + state
    return before, 1


FORMS = {"LASP": chain, "LASP+": gathered}


def attend(group: Workers, q: Tensor, k: Tensor, v: Tensor, slopes: Tensor) -> dict[str, Result]:
    """Lightning attention of the whole sequence, of which each rank computes one piece, with either form of exchange.

    Every process gets the same q, k, v (B, T, H, D), as a demonstration may, and takes its own piece of them.
    """
    q, k, v = (x.tensor_split(group.size, dim=1)[group.rank] for x in (q, k, v))
    out, own = lightning_attention(q, k, v, slopes)  # nobody is waited for
    decay = torch.exp(-slopes * q.shape[1])
    q_decay = torch.exp(-slopes * torch.arange(1, q.shape[1] + 1).unsqueeze(-1))  # (T, H)
    results = {}
    for name, exchange in FORMS.items():
        before, exchanges = exchange(group, own, decay)
        mended = out + torch.einsum("bthd,th,bhde->bthe", q, q_decay, before)
        end = decay.view(-1, 1, 1) * before + own
        outs, ends, processes, counts = zip(*group.gather((mended, end, os.getpid(), exchanges)))
        results[name] = Result(torch.cat(outs, 1), ends[-1], list(processes), [x.shape[1] for x in outs], max(counts))
    return results


def run(q: Tensor, k: Tensor, v: Tensor, slopes: Tensor, *, ranks: int = 2) -> dict[str, Result]:
    """Cut q, k, v (B, T, H, D) over `ranks` processes, this one included, and compute lightning attention together.

    Returns: "LASP" and "LASP+" -> the result of the same processes with that exchange.
    Raises: UserError for fewer than two ranks, or more than tokens.

    >>> x = torch.ones(1, 4, 1, 1)
    >>> run(x, x, x, torch.zeros(1))["LASP+"].out.flatten().tolist()         # doctest: +SKIP
    [1.0, 2.0, 3.0, 4.0]
    """
    if not 2 <= ranks <= q.shape[1]:
        raise UserError(f"ranks is {ranks}; expected 2 to {q.shape[1]}, the number of tokens")
    return workers.run(ranks, attend, q, k, v, slopes, timeout=TIMEOUT)
