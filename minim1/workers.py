"""Data-parallel workers: each takes a share of the rows, gradients are summed once per step.

On a CPU two single-threaded workers beat two threads: a small model spends its time in many short operations,
at whose ends threads wait for each other, while workers meet once per step and lose little when something
else uses a core.
"""

import ctypes
import os
import signal
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import connection

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from minim1.errors import UserError

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h of glibc
MISTAKE = "mistake.txt"  # where a worker leaves a UserError, in case worker 0 does not meet the same one


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


def keep_memory() -> None:
    """Let glibc keep freed memory instead of returning it to the system after every large tensor.

    A training step frees and asks for the same sizes again; each return costs page faults (nano on two cores:
    an eighth to a fifth of a step). Elsewhere than on glibc this does nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**27)):
        mallopt(option, value)


def default_count(device: torch.device) -> int:
    """One worker per available CPU core up to 4, or 1 with an accelerator."""
    if device.type != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, 4))


def run(count: int, function: Callable, *args, timeout: float = 1800):
    """Call `function(workers, *args)` in `count` workers and return what worker 0, this process, returns.

    The other workers are processes of their own with one thread each. `function` must be importable (a
    module-level function) and `args` picklable. `timeout`: seconds that one waits for another before it fails.
    """
    if count == 1:
        return function(Workers(), *args)
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        context = mp.get_context("spawn")
        others = [
            context.Process(target=_worker, args=(rank, count, folder, timeout, function, args), daemon=True)
            for rank in range(1, count)
        ]
        start(others)
        try:
            _meet(0, count, folder, timeout)
            return function(Workers(0, count), *args)
        except BaseException as error:
            if lost := isinstance(error, RuntimeError):  # perhaps a closed connection: let a failing worker end
                connection.wait([process.sentinel for process in others], timeout=2)
                for process in others:
                    process.join(timeout=0.5)
            failed = any(process.exitcode for process in others)
            killed = [rank for rank, process in enumerate(others, 1) if (process.exitcode or 0) < 0]
            for process in others:
                process.terminate()  # it may wait for this one for ever
            if lost and os.path.exists(mistake := os.path.join(folder, MISTAKE)):
                with open(mistake, encoding="utf-8") as file:
                    raise UserError(file.read()) from None
            if lost and killed:
                number = -others[killed[0] - 1].exitcode
                raise UserError(
                    f"worker {killed[0]} of {count} was ended from outside (signal {number}), perhaps for want of memory; what "
                    "was saved is intact: go on with --resume, if need be with fewer --workers or --micro-rows"
                ) from None
            if lost and failed:
                raise RuntimeError("another worker failed; its traceback is above") from error
            raise
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()
            torch.set_num_threads(threads)
            for process in others:
                process.join(timeout=10)
                if process.is_alive():
                    process.terminate()


@dataclass(frozen=True)
class Launched:
    """What `torchrun` told this process: its rank among `size`, and its rank on this machine."""

    rank: int
    size: int
    local_rank: int


def launched(environment: Mapping[str, str]) -> Launched | None:
    """How `torchrun` started this process; None if it did not."""
    if "TORCHELASTIC_RUN_ID" not in environment:
        return None
    return Launched(*(int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))


@contextmanager
def join(process: Launched, device: str) -> Iterator[Workers]:
    """Be one of the processes that `torchrun` started; device: where its model is, such as "cpu" or "cuda:1"."""
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    elif process.size > 1:
        torch.set_num_threads(1)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo")
    try:
        yield Workers(process.rank, process.size)
        dist.barrier()  # torchrun would end the others with the first that has trouble on its way out
    finally:
        dist.destroy_process_group()


def start(processes) -> None:
    """Start processes that ignore Ctrl-C from their first moment on: the one that starts them decides when to stop."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_main_thread else None
    try:
        for process in processes:
            process.start()  # inherits what is ignored
    finally:
        if previous is not None:
            signal.signal(signal.SIGINT, previous)


def _meet(rank: int, count: int, folder: str, timeout: float) -> None:
    torch.set_num_threads(1)
    meeting = f"file:///{os.path.join(folder, 'meeting').lstrip('/')}"
    wait = timedelta(seconds=timeout)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count, timeout=wait)


def _worker(rank: int, count: int, folder: str, timeout: float, function: Callable, args: tuple) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _meet(rank, count, folder, timeout)
    try:
        function(Workers(rank, count), *args)
    except UserError as mistake:
        with open(os.path.join(folder, MISTAKE), "w", encoding="utf-8") as file:
            file.write(str(mistake))
        raise SystemExit(2) from None
    except Exception:
        traceback.print_exc()
        os._exit(1)  # do not wait for collectives that will never complete
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
