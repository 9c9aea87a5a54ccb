"""Memory of a decode: growing keys and values in softmax layers, a state of constant size in lightning layers.

B batch, S tokens so far, H heads, KV key/value heads, D head dim. All state of a generation lives in one
`DecodeCache`, none in the model, so two generations never interleave.
"""

import torch
from torch import Tensor

from minim1.config import LIGHTNING, M1Config
from minim1.errors import UserError
from minim1.model.documents import attention_mask, document_positions, document_runs


class LinearState:
    """Running state of one lightning layer: (B, H, D, D) fp32, or None before the first token."""

    def __init__(self) -> None:
        self.state: Tensor | None = None

    def tensors(self) -> list[Tensor]:
        return [] if self.state is None else [self.state]

    def select(self, rows: Tensor) -> None:
        self.state = None if self.state is None else self.state[rows]


class KVCache:
    """Keys and values (B, S, KV, D) of one softmax layer in a buffer that doubles when full."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.length = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add k, v (B, T, KV, D); return all (B, S, KV, D) as views."""
        end = self.length + k.shape[1]
        self.keys, self.values = _room(self.keys, k, self.length, end), _room(self.values, v, self.length, end)
        self.keys[:, self.length : end], self.values[:, self.length : end] = k, v
        self.length = end
        return self.keys[:, :end], self.values[:, :end]

    def tensors(self) -> list[Tensor]:
        return [] if self.keys is None else [self.keys[:, : self.length], self.values[:, : self.length]]

    def select(self, rows: Tensor) -> None:
        if self.keys is not None:
            self.keys, self.values = self.keys[rows], self.values[rows]


def _room(buffer: Tensor | None, new: Tensor, used: int, end: int) -> Tensor:
    if buffer is not None and buffer.shape[1] >= end:
        return buffer
    grown = new.new_empty(new.shape[0], max(end, 64 if buffer is None else 2 * buffer.shape[1]), *new.shape[2:])
    if buffer is not None:
        grown[:, :used] = buffer[:, :used]
    return grown


class DecodeCache:
    """What `MiniM1` remembers between calls: `layers`, and which tokens of a row belong together.

    Rows may hold padding anywhere and several documents; without `document_ids` new tokens continue the
    newest document of their row. While no call has brought document_ids, only the length is kept.
    """

    def __init__(self, config: M1Config) -> None:
        self.layers = [LinearState() if kind == LIGHTNING else KVCache() for kind in config.attn_type_list]
        self._forget()

    def _forget(self) -> None:
        self.length = 0
        self.runs: Tensor | None = None  # (B, S) document of every token, -1 at padding; None: one document a row
        self.newest: Tensor | None = None  # (B, 1) document of the newest token
        self.position: Tensor | None = None  # (B, 1) position of the next token in it

    @property
    def rows(self) -> int | None:
        """Rows held, None before the first token."""
        return next((layer.tensors()[0].shape[0] for layer in self.layers if layer.tensors()), None)

    def extend(self, input_ids: Tensor, document_ids: Tensor | None) -> tuple[Tensor | None, Tensor]:
        """Register new tokens (B, T) before the layers see them.

        Returns: their runs (B, T), or None as long as every row is one document without padding, and positions (B, T).
        """
        rows, length = input_ids.shape
        if self.rows not in (None, rows):
            raise UserError(
                f"the cache holds {self.rows} rows, input_ids {rows}; "
                "select or repeat the cache's rows, or start a new cache"
            )
        end, time = self.length + length, torch.arange(length, device=input_ids.device)
        if document_ids is None and self.runs is None:
            positions = (self.length + time).expand(rows, -1)
            self.length = end
            return None, positions
        if self.runs is None:
            self.runs, self.newest = (input_ids.new_zeros(rows, n, dtype=torch.long) for n in (self.length, 1))
            self.position = self.newest + self.length
        if document_ids is None:
            runs, positions = self.newest.expand(-1, length), self.position + time
            self.position = self.position + length
        else:
            runs = document_runs(document_ids)
            runs = torch.where(runs >= 0, runs + self.newest, -1)  # the first document continues the newest one
            positions = document_positions(runs) + self.position * (runs == self.newest)
            self.newest = torch.maximum(self.newest, runs.amax(1, keepdim=True))
            after = torch.where(runs == self.newest, positions + 1, 0).amax(1, keepdim=True)
            self.position = torch.where((runs >= 0).any(1, keepdim=True), after, self.position)
        self.runs = _room(self.runs, runs, self.length, end)
        self.runs[:, self.length : end] = runs
        self.length = end
        return runs, positions

    def mask(self, runs: Tensor | None) -> Tensor | None:
        """What the tokens of the last `extend` may see: (B, T, S) bool, or None for plain causal order."""
        return None if runs is None else attention_mask(runs, self.runs[:, : self.length])

    def repeat(self, times: int) -> "DecodeCache":
        """Every row `times` times in a row (row r becomes rows r*times ... ), in place: one prefill, many samples."""
        if self.rows is not None:
            rows = torch.arange(self.rows, device=self.layers[0].tensors()[0].device)
            self.select(rows.repeat_interleave(times))
        return self

    def select(self, rows: Tensor) -> "DecodeCache":
        """Keep (reorder, copy) rows by index (R,) or bool mask (B,), in place: drop finished answers, follow beams."""
        for layer in self.layers:
            layer.select(rows)
        if self.runs is not None:
            self.runs, self.newest, self.position = self.runs[rows], self.newest[rows], self.position[rows]
        return self

    def reset(self) -> "DecodeCache":
        """Forget everything, in place."""
        self.layers = [type(layer)() for layer in self.layers]
        self._forget()
        return self

    def nbytes(self) -> int:
        """Bytes held for the tokens so far: constant for lightning layers, growing for softmax layers."""
        return sum(t.numel() * t.element_size() for layer in self.layers for t in layer.tensors())
