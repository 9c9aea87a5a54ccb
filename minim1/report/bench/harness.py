"""How a comparison is timed, checked and stored.

Ours and its peers run in one process and take turns: round 1 times each of them once, round 2 again in another order,
and so on. A machine that slows down for a while then slows all of them, and the ratio of two times of one round stays
what it is. Medians over rounds, with the smallest and the largest beside them.

A benchmark is a module with `benchmark(options) -> Iterator[Comparison]`; see `Options` and `Comparison`.
"""

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from minim1.errors import UserError

OURS = "minim1"  # the name of this package's entry in every comparison
SAMPLE_SECONDS = 0.02  # one sample lasts at least this long: shorter calls are repeated within it
FEWEST_ROUNDS = 3
LIMITS = {torch.float64: 1e-5, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 3e-2}
"""Largest relative error against fp64 with which an entry still counts as computing the same (HF's fp64 rounds to
fp32 in places, hence 1e-5 there)."""


class Skip(Exception):
    """A peer that cannot run here; the message says why in a few words, e.g. "trl is not installed"."""


@dataclass(frozen=True)
class Options:
    """What the user asked for; every benchmark gets the same."""

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    lengths: tuple[int, ...] | None = None  # sequence lengths; None: the benchmark's own
    quick: bool = False  # sizes so small that everything runs in seconds; its numbers mean little
    mine: Callable | None = None  # a learner's function with the contract of `lightning_attention`
    seconds: float = 20.0  # for one comparison; then no further round begins, but three are always done
    call_limit: float = 60.0  # seconds: an entry whose single call would last longer is left out
    threads: int = 1


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: median, smallest (`low`) and largest (`high`) of `repeats` rounds, all in `samples`."""

    median: float
    low: float
    high: float
    repeats: int
    samples: tuple[float, ...] = ()

    @classmethod
    def of(cls, samples: Iterable[float]) -> "Timing":
        """
        >>> Timing.of([3.0, 1.0, 2.0])
        Timing(median=2.0, low=1.0, high=3.0, repeats=3, samples=(3.0, 1.0, 2.0))
        """
        samples = tuple(samples)
        return cls(statistics.median(samples), min(samples), max(samples), len(samples), samples)


@dataclass(frozen=True)
class Comparison:
    """Ours and its peers on one case.

    benchmark: its name, e.g. "attention"; case: what was run, e.g. {"pass": "forward", "length": 2048};
    ours: which of the names in `timings` is this package's. errors: relative error of each against fp64.
    skipped: {name: why it did not run or does not count}. unit, amount: one call does `amount` of `unit`
    (e.g. 2048 "tokens"). memory: bytes that one call of each needs beside its inputs, where the device tells (CUDA).
    """

    benchmark: str
    case: dict
    ours: str
    timings: dict[str, Timing]
    errors: dict[str, float]
    skipped: dict[str, str]
    unit: str
    amount: float = 1.0
    memory: dict[str, int] = field(default_factory=dict)

    def ratios(self) -> dict[str, dict[str, float]]:
        """How many times faster ours is: {peer: {"median", "low", "high"}}; empty if ours could not run.

        "median" is median(peer) / median(ours); "low" and "high" are the extremes of peer / ours within one round.
        """
        ratios, ours = {}, self.timings.get(self.ours)
        for name, timing in self.timings.items():
            if ours and name != self.ours:
                paired = [theirs / own for theirs, own in zip(timing.samples, ours.samples, strict=True)]
                ratios[name] = {"median": timing.median / ours.median, "low": min(paired), "high": max(paired)}
        return ratios

    def to_json(self) -> dict:
        """Everything as plain numbers, with `ratios` and the `rates` (`unit` per second)."""
        rates = {name: self.amount / timing.median for name, timing in self.timings.items()}
        return asdict(self) | {"ratios": self.ratios(), "rates": rates}


def interleave(
    entries: dict[str, Callable[[], object]], *, repeats: int = 5, warmup: int = 1, seconds: float = 20.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time each entry once in every round, rotating the order by one from round to round.

    `warmup` calls of each come first and do not count; calls that are short are repeated within a sample, as often
    as it takes to last `SAMPLE_SECONDS`. No round begins after `seconds` (everything included), but
    `FEWEST_ROUNDS` are done whatever they cost, or `repeats` if that is less. `entries` are called without
    arguments; what they return is dropped. On CUDA the device is synchronised around each sample.

    >>> sorted(interleave({"a": lambda: None, "b": lambda: None}, repeats=3))
    ['a', 'b']
    """
    begun = clock()
    calls = {}
    for name, entry in entries.items():
        spent = 0.0
        for _ in range(warmup):
            spent = seconds_of(entry, 1, clock)
        calls[name] = 1 if spent > 10 * SAMPLE_SECONDS else _calls_per_sample(entry, clock)
    samples = {name: [] for name in entries}
    order = list(entries)
    gc.freeze()  # whatever lives now is not searched for garbage again and again while the clock runs
    try:
        for done in range(repeats):
            if done >= FEWEST_ROUNDS and clock() - begun >= seconds:
                break
            gc.collect()
            for name in order:
                samples[name].append(seconds_of(entries[name], calls[name], clock) / calls[name])
            order = order[1:] + order[:1]
    finally:
        gc.unfreeze()
    return {name: Timing.of(values) for name, values in samples.items()}


def _calls_per_sample(entry: Callable, clock: Callable) -> int:
    calls = 1
    while (spent := seconds_of(entry, calls, clock)) < SAMPLE_SECONDS:
        calls = max(2 * calls, min(16 * calls, round(1.2 * calls * SAMPLE_SECONDS / max(spent, 1e-9))))
    return calls


def seconds_of(entry: Callable[[], object], calls: int = 1, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of that many calls in a row, to the end of their work on the GPU."""
    synchronize()
    begun = clock()
    for _ in range(calls):
        entry()
    synchronize()
    return clock() - begun


def synchronize() -> None:
    """Wait for the GPU, if one is in use: its launches return before the work is done."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def relative_error(value: Tensor, truth: Tensor) -> float:
    """||value - truth|| / ||truth|| (Frobenius), in fp64. Not finite anywhere: infinite.

    >>> relative_error(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 0.0]))
    1.3333333333333333
    """
    if value.shape != truth.shape:
        raise UserError(f"a result has shape {tuple(value.shape)}; expected {tuple(truth.shape)}")
    truth = truth.to("cpu", torch.float64)
    error = ((value.detach().to("cpu", torch.float64) - truth).norm() / truth.norm()).item()
    return error if error == error else float("inf")


def largest_error(values: Iterable[Tensor], truths: Iterable[Tensor]) -> float:
    """The largest `relative_error` of several results, e.g. of the gradients of q, k and v."""
    return max(relative_error(value, truth) for value, truth in zip(values, truths, strict=True))


def refused(errors: dict[str, float], ours: str, limit: float, what: str) -> dict[str, str]:
    """{name: reason} of the peers that compute something else: their times would mean nothing.

    Raises UserError when it is ours that is wrong: then there is nothing to compare.

    >>> refused({"ours": 1e-7, "peer": 0.3}, "ours", 1e-4, "attention")
    {'peer': 'wrong: error 3e-01 against fp64, limit 1e-04'}
    """
    wrong = {
        name: f"wrong: error {error:.0e} against fp64, limit {limit:.0e}"
        for name, error in errors.items() if not error <= limit
    }
    if ours in wrong:
        raise UserError(f"{what} is not compared: {ours} is {wrong[ours]}")
    return wrong


def gather(makers: dict[str, Callable]) -> tuple[dict, dict[str, str]]:
    """By name what could be made, and why the rest could not; ours may not fail."""
    entries, skipped = {}, {}
    for name, make in makers.items():
        try:
            entries[name] = make()
        except Skip as reason:
            skipped[name] = str(reason)
        except Exception as problem:  # somebody else's code, in a version nobody has tried
            if name == OURS:
                raise
            skipped[name] = f"failed: {type(problem).__name__}: {problem}".splitlines()[0]
    return entries, skipped


@dataclass(frozen=True)
class Entry:
    """One of those compared: `run()` is one call, `error(result)` the relative error of what it returned."""

    run: Callable[[], object]
    error: Callable[[object], float]


def compare(
    benchmark: str, case: dict, entries: dict[str, Entry], *, ours: str, options: Options, limit: float, unit: str,
    amount: float = 1.0, skipped: dict[str, str] | None = None,
) -> Comparison:
    """Check every entry once, leave out those that are wrong, too slow or cannot run, and time the others in turns.

    `limit` is the largest error that still counts as the same numbers. `skipped` are peers that were left out
    before. A peer may raise anything: the first line is kept as the reason. Ours may only run out of memory.
    """
    errors, memory, skipped = {}, {}, dict(skipped or {})
    for name, entry in entries.items():
        try:
            errors[name], memory[name] = _check(entry, options)
        except Skip as reason:
            skipped[name] = str(reason)
        except torch.OutOfMemoryError:
            skipped[name] = "out of memory"
        except Exception as problem:  # somebody else's code, on a machine nobody has tried
            if name == ours:
                raise
            skipped[name] = f"failed: {type(problem).__name__}: {problem}".splitlines()[0]
    skipped |= refused(errors, ours, limit, f"{benchmark} {case}")
    runs = {name: entry.run for name, entry in entries.items() if name not in skipped}
    timings = interleave(runs, repeats=3 if options.quick else 11, seconds=options.seconds) if ours in runs else {}
    memory = {name: peak for name, peak in memory.items() if peak}
    return Comparison(benchmark, case, ours, timings, errors, skipped, unit, amount, memory)


def _check(entry: Entry, options: Options) -> tuple[float, int]:
    """Error, and bytes that one call needs beside its inputs (0 where the device does not tell)."""
    on_cuda, before = options.device == "cuda", 0
    if on_cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    result = []
    spent = seconds_of(lambda: result.append(entry.run()))
    peak = torch.cuda.max_memory_allocated() - before if on_cuda else 0
    if spent > options.call_limit:
        raise Skip(f"too slow: one call took {spent:.0f} s, the limit is {options.call_limit:.0f} s")
    return entry.error(result[0]), peak


def expected_seconds(history: list[tuple[int, float]], length: int) -> float:
    """What a call at `length` will cost, from (length, seconds) of shorter ones: growth goes on as between the last
    and one at most half as long, and is at least linear. 0 if nothing is known. For leaving out, never a result.

    >>> expected_seconds([(1, 1.0), (2, 4.0)], 4)
    16.0
    """
    if not history:
        return 0.0
    last, seconds = history[-1]
    power = 1.0
    if earlier := [(n, t) for n, t in history if 2 * n <= last]:
        n, t = earlier[-1]
        power = max(1.0, math.log(seconds / t) / math.log(last / n))
    return seconds * (length / last) ** power


def crossover(ratios: dict[int, float]) -> int | None:
    """The smallest length from which on ours is faster (ratio above 1) at all that were measured; None if never.

    >>> crossover({64: 1.1, 128: 0.8, 256: 1.2, 512: 2.0})
    256
    """
    found = None
    for length in sorted(ratios, reverse=True):
        if ratios[length] <= 1:
            break
        found = length
    return found
