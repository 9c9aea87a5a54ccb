"""Documents to rows: batches in which each token knows its document, as a pure function of the step.

B rows, T time, N tokens of a stream. There is no iterator to save or to resume: the batch of a
step depends on (seed, step) alone.
"""

import hashlib
from bisect import bisect_left, insort
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from minim1.data.corpus import TokenStream
from minim1.errors import UserError


@dataclass(frozen=True)
class Batch:
    """Rows of packed documents. All tensors are (B, T); entry t belongs to token t.

    `input_ids` int64. `mask` bool: the token is a target, to be predicted from the tokens before
    it; the first token of a document never is. `document_ids` int64: equal within a document,
    changing from one to the next, -1 for padding. `positions` int64: from 0 in every document; 0
    for padding.
    """

    input_ids: Tensor
    mask: Tensor
    document_ids: Tensor
    positions: Tensor

    @property
    def num_targets(self) -> int:
        """How many tokens are targets."""
        return int(self.mask.sum())

    def to(self, device) -> "Batch":
        """The batch on another device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def slice(self, rows) -> "Batch":
        """Some of the rows: a slice, a list or an index tensor."""
        return self._map(lambda tensor: tensor[rows])

    @staticmethod
    def cat(batches) -> "Batch":
        """The rows of several batches of the same T, one after the other."""
        batches = list(batches)
        return Batch(*(torch.cat([getattr(b, name) for b in batches]) for name in Batch.__dataclass_fields__))

    def _map(self, function) -> "Batch":
        return Batch(*(function(getattr(self, name)) for name in Batch.__dataclass_fields__))


def step_seed(seed: int, step: int, purpose: str) -> int:
    """A seed of 63 bits for what is random in a step; different purposes are independent.

    >>> step_seed(0, 7, "text") == step_seed(0, 7, "text") != step_seed(0, 7, "rollout")
    True
    """
    digest = hashlib.sha256(f"{seed}/{step}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def pack_documents(documents, length: int, *, pad_id: int) -> Batch:
    """Pack documents into rows of T = `length`, none split, by best-fit decreasing.

    Args: documents: pairs (ids, mask) of equally long lists, as `encode_chat` gives them. Within a
    row the documents are numbered 0, 1, 2, ... Returns a batch of as many rows as needed; the same
    documents give the same rows. Raises `UserError` for a document longer than `length`.

    >>> batch = pack_documents([([5, 6], [0, 1]), ([7, 8, 9], [1, 1, 1])], 6, pad_id=0)
    >>> batch.input_ids.tolist(), batch.document_ids.tolist()
    ([[7, 8, 9, 5, 6, 0]], [[0, 0, 0, 1, 1, -1]])
    """
    documents = list(documents)
    rows: list[list] = []
    room: list[tuple[int, int]] = []  # (free tokens, row), sorted
    for ids, mask in sorted(documents, key=lambda document: -len(document[0])):  # a stable sort
        size = len(ids)
        if size > length:
            raise UserError(
                f"A document has {size} tokens, but a row holds {length}; raise the length or shorten the document."
            )
        if size != len(mask):
            raise ValueError(f"ids has {size} entries, but mask has {len(mask)}")
        at = bisect_left(room, (size, -1))
        if at == len(room):
            rows.append([])
            free, row = length, len(rows) - 1
        else:
            free, row = room.pop(at)
        rows[row].append((ids, mask))
        insort(room, (free - size, row))

    shape = (len(rows), length)
    input_ids, document_ids = torch.full(shape, pad_id), torch.full(shape, -1)
    targets, positions = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.int64)
    for row, packed in enumerate(rows):
        start = 0
        for number, (ids, mask) in enumerate(packed):
            end = start + len(ids)
            input_ids[row, start:end] = torch.tensor(ids)
            targets[row, start:end] = torch.tensor(mask, dtype=torch.bool)
            targets[row, start : start + 1] = False
            document_ids[row, start:end] = number
            positions[row, start:end] = torch.arange(end - start)
            start = end
    return Batch(input_ids, targets, document_ids, positions)


def text_rows(stream: TokenStream, *, seed: int, step: int, rows: int, length: int) -> Batch:
    """The text of a step: `rows` windows of T = `length` from the stream, all of them targets
    except the first token of a window and of a document.

    Windows come in a random order, each once per epoch; each epoch cuts the stream at another
    phase, so that only the less than 2 T tokens around its ends are left out. Raises `UserError`
    when the stream is shorter than a window.
    """
    windows, spare = _count_windows(stream, length)
    starts = []
    for number in range(step * rows, (step + 1) * rows):
        order, phase = _epoch(windows, min(spare, length - 1), seed, number // windows)
        starts.append(int(order[number % windows]) * length + phase)
    return _windows(stream, torch.tensor(starts, dtype=torch.int64), length)


def heldout_windows(stream: TokenStream, length: int, max_windows: int | None = None) -> Batch:
    """Non-overlapping windows of T = `length` for evaluation, in order; with `max_windows` that
    many, evenly spread. The rest shorter than a window is left out. Raises as `text_rows`."""
    windows, spare = _count_windows(stream, length)
    windows += spare // length
    count = min(windows, max_windows or windows)
    starts = torch.tensor([i * windows // count * length for i in range(count)])
    return _windows(stream, starts, length)


def _count_windows(stream: TokenStream, length: int) -> tuple[int, int]:
    """How many windows fit at any phase, and how many tokens they leave."""
    size = len(stream.ids)
    if size < length:
        raise UserError(
            f"The text has {size} tokens, but one window needs {length}; give more text or a shorter length."
        )
    windows = max(1, (size - length + 1) // length)
    return windows, size - windows * length


@lru_cache(maxsize=8)
def _epoch(windows: int, max_phase: int, seed: int, epoch: int) -> tuple[Tensor, int]:
    generator = torch.Generator().manual_seed(step_seed(seed, epoch, "text order"))
    phase = step_seed(seed, epoch, "text phase") % (max_phase + 1)
    return torch.randperm(windows, generator=generator), phase


def _windows(stream: TokenStream, starts: Tensor, length: int) -> Batch:
    time = torch.arange(length)
    index = starts[:, None] + time
    document_ids = stream.documents[index].long()
    first = torch.ones_like(document_ids, dtype=torch.bool)
    first[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
    start_of_document = torch.where(first, time, 0).cummax(dim=1).values
    return Batch(stream.ids[index].long(), ~first, document_ids, time - start_of_document)
