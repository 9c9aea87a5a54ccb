"""Runs the units of experiments in processes of one thread each, and stores each as soon as it is done.

    python -m minim1.report.experiments.NAME [--seeds 0 1] [--results DIR] [--scale smoke]       an experiment alone
    minim1 claims                                                                                 those behind the claims
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

from minim1.errors import UserError
from minim1.report.experiments import RESULTS, Experiment, add, begin, missing, provenance, write_result


def run(experiments: Sequence[Experiment], scale: str, folder: Path = RESULTS, *, seeds: Sequence[int] | None = None,
        processes: int | None = None, say: Callable[[str], None] | None = None) -> dict[str, dict]:
    """Run what is missing of the experiments at a scale; their results by name.

    Args: folder: where results are and go; seeds: instead of each experiment's own; processes: default one for each of
        at most two cores, and one for a GPU. Ctrl-C ends it; finished units are stored.
    Raises: UserError for a result in `folder` that cannot be added to, before anything runs.
    """
    say = say or (lambda text: print(text, file=sys.stderr, flush=True))
    if scale == "smoke" and seeds is None:  # each arm once: to see that it works
        experiments = [replace(e, arms={arm: own[:1] for arm, own in e.arms.items()}) for e in experiments]
    paths = {e.name: e.path(folder, scale) for e in experiments}
    results = {e.name: begin(e, scale, paths[e.name]) for e in experiments}
    units = [(e, arm, seed) for e in experiments for arm, seed in missing(e, results[e.name], seeds)]
    if not units:
        return results
    _writable(folder)
    place = provenance(device="cuda" if scale == "gpu" else "cpu")
    done, begun = 0, time.perf_counter()

    def keep(experiment: Experiment, arm: str, seed: int, value: object, seconds: float) -> None:
        nonlocal done
        done += 1
        result = results[experiment.name] = begin(experiment, scale, paths[experiment.name])  # another run may add, too
        add(result, arm, seed, value, seconds, place)
        write_result(paths[experiment.name], result)
        left = (time.perf_counter() - begun) / done * (len(units) - done)
        say(f"[{done}/{len(units)}] {experiment.name}: {arm}, seed {seed}, {seconds:.0f} s; about {left / 60:.0f} min left")

    count = processes or (1 if scale == "gpu" else min(2, os.cpu_count() or 1))
    before = set(multiprocessing.active_children())
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"), initializer=_quiet_worker) as pool:
        waiting = {pool.submit(measure, e.run, arm, seed, scale): (e, arm, seed) for e, arm, seed in units if not e.alone}
        try:
            for future in as_completed(list(waiting)):
                value = future.result()
                keep(*waiting.pop(future), *value)
            for e, arm, seed in (unit for unit in units if unit[0].alone):
                keep(e, arm, seed, *pool.submit(measure, e.run, arm, seed, scale).result())
        except BaseException as stopped:
            for future, unit in waiting.items():
                if future.done() and not future.cancelled() and not future.exception():
                    keep(*unit, *future.result())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - before:
                process.terminate()
            if isinstance(stopped, BrokenProcessPool):
                raise UserError("a process ended by itself, perhaps for want of memory; what was finished is stored, so run "
                                "it again") from None
            raise
    return results


def measure(function: Callable, arm: str, seed: int, scale: str) -> tuple[object, float]:
    """The value of a unit, and the seconds of processor time that it took (of the clock on a GPU)."""
    import torch

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    clock = time.perf_counter if scale == "gpu" else time.process_time
    began = clock()
    children = _children_seconds()
    value = function(arm, seed, scale)
    return value, clock() - began + (_children_seconds() - children if scale != "gpu" else 0.0)


def _children_seconds() -> float:
    """Processor time of this process's own children that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def main(experiment: Experiment, about: str) -> None:
    """The command of one experiment's module; about: its docstring."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", help="instead of its own")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--scale", choices=("smoke", "cpu", "gpu"), default="cpu")
    given = parser.parse_args()
    try:
        run([experiment], given.scale, given.results, seeds=given.seeds)
    except UserError as problem:
        parser.error(str(problem))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    print(f"stored in {experiment.path(given.results, given.scale)}")


def _quiet_worker() -> None:
    """Ctrl-C is the parent's to handle: workers are ended by it."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise UserError(f"{folder} cannot be made ({problem.strerror}); choose another folder with --results") from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"{folder} cannot be written to; choose another folder with --results")
