"""Memory of a decode: growing keys and values in softmax layers, a state of constant size in lightning layers.

B batch, S tokens so far, H heads, KV key/value heads, D head dim. All state of a generation lives in one
`DecodeCache`, none in the model, so two generations never interleave.
"""

import torch
from torch import Tensor

from minim1.config import LIGHTNING, M1Config
from minim1.errors import UserError
from minim1.model.documents import document_runs


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
    """What `MiniM1` remembers between calls: `layers`, the document run of every position, and positions.

    Rows may hold padding anywhere and several documents; without `document_ids` new tokens continue the
    newest document of their row.
    """

    def __init__(self, config: M1Config) -> None:
        self.layers = [LinearState() if kind == LIGHTNING else KVCache() for kind in config.attn_type_list]
        self.runs: Tensor | None = None  # (B, S), -1 at padding
        self.length = 0
        self.position: Tensor | None = None  # (B,) position of the next token in its document
        self.ragged = False  # whether any padding or second document was ever fed

    def extend(self, input_ids: Tensor, document_ids: Tensor | None) -> Tensor:
        """Register new tokens (B, T) before the layers see them; returns their runs (B, T)."""
        if self.runs is not None and len(self.runs) != len(input_ids):
            raise UserError(
                f"the cache holds {len(self.runs)} rows, input_ids {len(input_ids)}; "
                "select or repeat the cache's rows, or start a new cache"
            )
        newest = input_ids.new_zeros(len(input_ids), 1)
        if self.ragged:
            newest = self.runs[:, : self.length].amax(dim=1, keepdim=True).clamp(min=0)
        if document_ids is None:
            runs = newest.expand_as(input_ids)
        else:
            runs = document_runs(document_ids)
            runs = torch.where(runs >= 0, runs + newest, -1)  # the first document continues the newest one
            self.ragged = True
        end = self.length + input_ids.shape[1]
        self.runs = _room(self.runs, runs, self.length, end)
        self.runs[:, self.length : end] = runs
        self.length = end
        return runs

    def repeat(self, times: int) -> "DecodeCache":
        """Every row `times` times in a row (row r becomes rows r*times ... ), in place: one prefill, many samples."""
        if self.runs is not None:
            rows = torch.arange(self.runs.shape[0], device=self.runs.device)
            self.select(rows.repeat_interleave(times))
        return self

    def select(self, rows: Tensor) -> "DecodeCache":
        """Keep (reorder, copy) rows by index (R,) or bool mask (B,), in place: drop finished answers, follow beams."""
        for layer in self.layers:
            layer.select(rows)
        if self.runs is not None:
            self.runs = self.runs[rows]
        if self.position is not None:
            self.position = self.position[rows]
        return self

    def reset(self) -> "DecodeCache":
        """Forget everything, in place."""
        self.layers = [type(layer)() for layer in self.layers]
        self.runs, self.position, self.length, self.ragged = None, None, 0, False
        return self

    def nbytes(self) -> int:
        """Bytes held for the tokens so far: constant for lightning layers, growing for softmax layers."""
        return sum(t.numel() * t.element_size() for layer in self.layers for t in layer.tensors())
