"""Data-parallel workers: each takes a share of the rows, gradients are summed once per step.

On a CPU two single-threaded workers beat two threads: a small model spends its time in many short operations,
at whose ends threads wait for each other, while workers meet once per step and lose little when something
else uses a core.
"""

import os
import signal
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from minim1.errors import UserError


@dataclass(frozen=True)
class Workers:
    """One of `size` workers; `Workers()` is a process on its own."""

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        return self.rank == 0

    def share(self, items):
        """The items (rows of a tensor, entries of a list) that this worker handles."""
        return items[self.rank :: self.size]

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over workers, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def max(self, tensor: Tensor) -> Tensor:
        """Maximum over workers, in place."""
        if self.size > 1:
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor

    def gather(self, value) -> list:
        """The picklable value of every worker, by rank."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value)
        return values


def default_count(device: torch.device) -> int:
    """One worker per available CPU core up to 4, or 1 with an accelerator."""
    if device.type != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, 4))


def run(count: int, function: Callable, *args):
    """Call `function(workers, *args)` in `count` workers and return what worker 0, this process, returns.

    The other workers are processes of their own with one thread each. `function` must be importable (a
    module-level function) and `args` picklable.
    """
    if count == 1:
        return function(Workers(), *args)
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file:///{os.path.join(folder, 'meeting').lstrip('/')}"
        context = mp.get_context("spawn")
        others = [
            context.Process(target=_worker, args=(rank, count, meeting, function, args), daemon=True)
            for rank in range(1, count)
        ]
        for process in others:
            process.start()
        try:
            torch.set_num_threads(1)
            dist.init_process_group("gloo", init_method=meeting, rank=0, world_size=count)
            return function(Workers(0, count), *args)
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()
            torch.set_num_threads(threads)
            for process in others:
                process.join(timeout=10)
                if process.is_alive():
                    process.terminate()


def _worker(rank: int, count: int, meeting: str, function: Callable, args: tuple) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # worker 0 decides when to stop
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count)
    try:
        function(Workers(rank, count), *args)
    except UserError:  # worker 0 meets the same mistake and reports it
        raise SystemExit(2) from None
    except Exception:
        traceback.print_exc()
        os._exit(1)  # do not wait for collectives that will never complete
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
