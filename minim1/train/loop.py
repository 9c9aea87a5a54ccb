"""How does it learn from text? One loop for pretraining and SFT: batch, loss over the global token count, step."""

import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
from tqdm.auto import tqdm

from minim1.data.packing import Batch
from minim1.errors import Interrupted
from minim1.model.moe import expert_load
from minim1.parts import Parts
from minim1.train.checkpoint import RunFolder
from minim1.train.losses import LossOutput
from minim1.train.optim import Optimizer
from minim1.train.settings import StageConfig
from minim1.workers import Workers


class StopSignal:
    """Ctrl-C, or SIGTERM from whoever runs the machine, asks for a stop after the current step; a second one stops at once.

    A process that ignores Ctrl-C is a worker: another one decides when it stops, and ends it by SIGTERM.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "StopSignal":
        self.previous = {}
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            self.previous = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _ask(self, *_) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def __exit__(self, *_) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)


class Stage:
    """What all stages share: resume, a progress line, metrics, saving, stopping. A stage writes `advance`.

    `after_step(step, model, write)` is called after every step, e.g. to evaluate or to `write(text)` a sample above
    the progress line; what it returns is added to that step's record.
    """

    name = "stage"

    def __init__(
        self, model, config, *, parts: Parts = Parts(), run: RunFolder | None = None, workers: Workers = Workers(),
        after_step: Callable | None = None, updates: int = 1, quiet: bool = False,
    ) -> None:
        self.model, self.config, self.parts, self.run, self.workers = model, config, parts, run, workers
        self.after_step, self.quiet = after_step, quiet
        self.device = next(model.parameters()).device
        self.optimizer = Optimizer(
            model, config.optim, config.steps * updates, schedule=parts.schedule, workers=workers
        )
        self.progress = {"tokens": 0, "seconds": 0.0}

    def advance(self, step: int) -> dict[str, float]:
        """Do step `step` (from 0); returns its metrics, with `tokens` processed."""
        raise NotImplementedError

    def fit(self) -> None:
        """Train to the end, from the last save if there is one.

        Raises: Interrupted after Ctrl-C (saved), Diverged on NaN or Inf (the step not taken), UserError when another run
        writes into the folder.
        """
        with self.run.lock() if self.run is not None and self.workers.main else nullcontext():
            self._fit()

    def _fit(self) -> None:
        start = 0
        if self.run is not None:
            start, saved = self.run.resume(self.model, self.optimizer)
            self.progress.update(saved)
            if self.workers.main:
                self.run.go_on_from(start, self.model)
        self.model.train()
        bar = tqdm(
            total=self.config.steps, initial=start, desc=self.name, disable=self.quiet or not self.workers.main,
            dynamic_ncols=True, mininterval=0.5,
        )
        with bar, StopSignal() as stop:
            for step in range(start, self.config.steps):
                began = time.perf_counter()
                metrics = self.advance(step)
                seconds = time.perf_counter() - began
                self.progress["tokens"] += int(metrics["tokens"])
                self.progress["seconds"] += seconds
                record = {"stage": self.name, "step": step + 1, **metrics, "total_tokens": self.progress["tokens"],
                          "tokens_per_second": metrics["tokens"] / seconds, "seconds": self.progress["seconds"]}
                if self.after_step is not None:
                    record |= self.after_step(step + 1, self.model, partial(bar.write, file=sys.stderr)) or {}
                self._record(step + 1, record, bar)
                stopping = self._anyone(stop.asked)
                if stopping or (step + 1) % self.config.save_every == 0 or step + 1 == self.config.steps:
                    self._save(step + 1)
                if stopping:
                    raise Interrupted(
                        f"{self.name} stopped after step {step + 1} of {self.config.steps}"
                        + (f", saved in {self.run.path}" if self.run else "")
                    )

    def _record(self, step: int, record: dict, bar) -> None:
        if not self.workers.main:
            return
        bar.set_postfix_str(self.line(record), refresh=False)
        bar.update(1)
        if self.run is not None and (step % self.config.log_every == 0 or step == self.config.steps or step == 1):
            self.run.log({key: _rounded(value) for key, value in record.items()})

    def line(self, record: dict) -> str:
        """The progress line's figures."""
        return f"loss {record['loss']:.3f}, {record['tokens_per_second']:,.0f} tokens/s"

    def _save(self, step: int) -> None:
        if self.run is not None and self.workers.main:
            self.run.save(self.model, self.optimizer, step, self.progress)

    def _anyone(self, asked: bool) -> bool:
        return bool(self.workers.max(torch.tensor(float(asked), device=self.device)))


def _rounded(value):
    return float(f"{value:.6g}") if isinstance(value, float) else value


class Trainer(Stage):
    """Pretraining and SFT: `batch_at(step) -> Batch`, every worker takes its share of the rows.

    The loss is divided by the targets of the whole step, so that any split into micro-batches and workers gives
    the same gradient (the balance loss, a product of means, is averaged over micro-batches instead).
    """

    def __init__(self, model, batch_at: Callable[[int], Batch], config: StageConfig, *, name="pretrain", **shared):
        super().__init__(model, config, **shared)
        self.batch_at, self.name = batch_at, name

    def advance(self, step: int) -> dict[str, float]:
        batch = self.batch_at(step)
        total = batch.num_targets
        mine = batch.slice(slice(self.workers.rank, None, self.workers.size)).to(self.device)
        rows = self.config.micro_rows
        pieces = [mine.slice(slice(at, at + rows)) for at in range(0, len(mine.input_ids), rows)]
        shares = len(batch.input_ids)
        metrics = self.optimizer.step(step, pieces, lambda piece: self._loss(piece, total, shares))
        return {**metrics, "tokens": int((batch.document_ids >= 0).sum())}

    def _loss(self, piece: Batch, total_tokens: int, total_rows: int) -> LossOutput:
        out = self.model(piece.input_ids, document_ids=piece.document_ids, positions=piece.positions)
        lm = self.parts.lm_loss(out.logits, piece.input_ids, piece.mask, total_tokens=total_tokens)
        weight = len(piece.input_ids) / total_rows
        entropy = expert_load(out.expert_ids, self.model.config.num_local_experts, piece.document_ids >= 0)[1]
        loss = lm.loss + self.model.config.router_aux_loss_coef * weight * out.aux_loss
        metrics = {"loss": lm.loss.detach(), **lm.metrics}
        metrics |= {"aux_loss": weight * out.aux_loss.detach(), "load_entropy": weight * entropy.mean()}
        return LossOutput(loss, metrics)
