"""How much memory at once? `peak_bytes(call)`, on the CPU and on a GPU."""

import contextlib
import os
from collections.abc import Callable, Iterator
from itertools import accumulate

import torch


def peak_bytes(call: Callable[[], object], device: str = "cpu") -> int:
    """The most bytes that tensors made by `call` on the device hold at one time, its result among them.

    On a CPU from PyTorch's profiler, which records each allocation and release, also those inside of fused functions;
    on a GPU from its allocator.

    >>> peak_bytes(lambda: torch.zeros(1000).clone())  # both, 4 bytes a number
    8000
    """
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with _silent(), torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        call()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(accumulate(changes), default=0)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """The profiler writes notes to descriptor 2, where notebooks would show them."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
