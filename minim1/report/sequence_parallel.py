"""A sequence cut over several processes: who has to wait for whom? (MiniMax-01 report §3.2, LASP+.)

Each rank holds one piece of the sequence and computes it as if nothing stood before it. What is missing is the state
that the earlier pieces would have left, and it enters at the end, by one product:

  `chain`    LASP: rank r waits for the state of rank r - 1, adds its own and sends it on. N - 1 waits in a row.
  `gathered` LASP+: every rank publishes (state, decay) of its piece once, in one all-gather, and folds those of the
             ranks before it by itself. One exchange, whatever N; each rank receives N - 1 states instead of one.

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
    """out (B, T, H, D_v) and state (B, H, D_k, D_v) of the whole sequence; by rank process ids, piece lengths and bytes
    received; exchanges: how many had to happen one after another."""

    out: Tensor
    state: Tensor
    processes: list[int]
    lengths: list[int]
    received: list[int]
    exchanges: int


class Link:
    """What a rank says to the others, counted: `received` bytes, and `exchanges` that had to happen in a row before it
    knew what it knows. Every message carries its sender's count, so that the longest chain is counted, not assumed."""

    def __init__(self, group: Workers) -> None:
        self.rank, self.size, self.exchanges, self.received = group.rank, group.size, 0, 0

    def send(self, numbers: Tensor, to: int) -> None:
        dist.send(self._counted(numbers), dst=to)

    def receive(self, like: Tensor, source: int) -> Tensor:
        message = like.new_empty(like.numel() + 1)
        dist.recv(message, src=source)
        return self._open([message], foreign=1)[0].view_as(like)

    def all_gather(self, numbers: Tensor) -> list[Tensor]:
        """The flat numbers of every rank."""
        own = self._counted(numbers)
        messages = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(messages, own)
        return self._open(messages, foreign=self.size - 1)

    def _counted(self, numbers: Tensor) -> Tensor:
        return torch.cat([numbers.flatten(), numbers.new_tensor([self.exchanges])])

    def _open(self, messages: list[Tensor], foreign: int) -> list[Tensor]:
        self.exchanges = 1 + max(self.exchanges, *(int(message[-1]) for message in messages))
        numbers = [message[:-1] for message in messages]
        self.received += foreign * numbers[0].nbytes
        return numbers


def chain(link: Link, own: Tensor, decay: Tensor) -> Tensor:
    """The state before this rank's piece, handed from rank to rank (LASP).

    Args: own (B, H, D_k, D_v), the state that this piece leaves when it starts from zero; decay (H,) over its length.
    """
    before = link.receive(own, link.rank - 1) if link.rank > 0 else torch.zeros_like(own)
    if link.rank < link.size - 1:
        link.send(decay.view(-1, 1, 1) * before + own, link.rank + 1)
    return before


def gathered(link: Link, own: Tensor, decay: Tensor) -> Tensor:
    """The same from one all-gather of all pieces' (state, decay) (LASP+)."""
    before = torch.zeros_like(own)
    for message in link.all_gather(torch.cat([own.flatten(), decay.to(own.dtype)]))[: link.rank]:
        state, decay = message[: own.numel()].view_as(own), message[own.numel() :]
        before = decay.view(-1, 1, 1) * before + state
    return before


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
        link = Link(group)
        before = exchange(link, own, decay)
        mended = out + torch.einsum("bthd,th,bhde->bthe", q, q_decay, before)
        end = decay.view(-1, 1, 1) * before + own
        everyone = group.gather((mended, end, os.getpid(), link.received, link.exchanges))
        outs, ends, processes, received, exchanges = map(list, zip(*everyone))
        lengths = [piece.shape[1] for piece in outs]
        results[name] = Result(torch.cat(outs, 1), ends[-1], processes, lengths, received, max(exchanges))
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
