"""A run that is killed (SIGKILL) at any moment goes on from its last save and ends as if nothing had happened.

The runs are those of the pipeline, all three stages, saved after every step, each in a process of its own.
"""

import itertools
import json
import multiprocessing
import os
import random
import signal
import time
from dataclasses import replace

import pytest
import torch

from minim1.train import checkpoint, pipeline
from minim1.train.checkpoint import RunFolder, load, read_model_file, read_tensors
from minim1.workers import Workers

STAGES = ("pretrain", "sft", "rl")
TIMES = {"seconds", "tokens_per_second"}
pytestmark = pytest.mark.skipif(os.name != "posix", reason="SIGKILL and fork servers are POSIX")


@pytest.fixture(scope="module")
def processes():
    """A context whose processes begin with everything imported: half a minute for a hundred of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["minim1.train.pipeline", "pytest"])
    return context


@pytest.fixture(scope="module")
def recipe(tiny_recipe):
    """Saved after every step."""
    stages = {name: replace(getattr(tiny_recipe, name), save_every=1, log_every=1) for name in STAGES}
    return replace(tiny_recipe, **stages)


def job(recipe, out):
    return pipeline.Job(recipe=recipe, out=str(out), quiet=True, resume=(out / "pretrain" / "run.json").exists())


def train(the_job, told) -> None:
    """A run that appends a line to the file `told` after each save that has returned."""
    torch.set_num_threads(1)
    save = RunFolder.save

    def saved(folder, model, optimizer, step, progress):
        save(folder, model, optimizer, step, progress)
        with open(told, "a") as file:
            file.write(f"{folder.path.name} {step}\n")

    RunFolder.save = saved
    pipeline.run(Workers(), the_job)


def ends(out) -> dict:
    """All that a run leaves and that does not depend on the clock."""
    found = {}
    for stage in STAGES:
        folder = RunFolder(out / stage)
        evaluation = json.loads((folder.path / "eval.json").read_text())
        del evaluation["seconds"]
        records = [{name: value for name, value in record.items() if name not in TIMES} for record in folder.metrics()]
        found[stage] = (read_model_file(folder.path), read_tensors(folder.path / "state.safetensors")[0], evaluation, records)
    return found


def assert_same(left, right) -> None:
    for stage in STAGES:
        for mine, others in zip(left[stage][:2], right[stage][:2], strict=True):
            assert mine.keys() == others.keys() and all(torch.equal(mine[name], others[name]) for name in mine)
        assert left[stage][2:] == right[stage][2:]


def assert_nothing_lost(out, told, floor: dict[str, int]) -> None:
    """Every save that was reported is there, or a later one; whatever bears a checkpoint's name is whole."""
    reported = dict(line.split() for line in told.read_text().splitlines()) if told.exists() else {}
    for stage, step in reported.items():
        found = RunFolder(out / stage).saved_step()
        assert found is not None and found >= max(int(step), floor.get(stage, 0))
        floor[stage] = found
    for path in out.rglob("*.safetensors"):
        if not path.name.startswith("."):
            read_tensors(path, sealed=True)
            if path.name == "model.safetensors":
                load(path.parent)


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory):
    """What a run ends with that nothing disturbed, and the seconds it takes."""
    out, began = tmp_path_factory.mktemp("whole"), time.perf_counter()
    pipeline.run(Workers(), job(recipe, out))
    return ends(out), time.perf_counter() - began


def test_killed_at_random_moments(processes, recipe, whole, tmp_path, tries, tally, capfd):
    expected, seconds = whole
    kills, rng, run, patience = 0, random.Random(0), 0, 1.2 * seconds
    while kills < tries(6, 100):
        out, told, floor = tmp_path / str(run), tmp_path / f"told {run}", {}
        while True:
            process = processes.Process(target=train, args=(job(recipe, out), told))
            process.start()
            process.join(timeout=rng.uniform(0.05, patience))
            if process.exitcode is not None:
                assert process.exitcode == 0
                patience *= 0.7
                break
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
            tally("kills survived")
            before = dict(floor)
            assert_nothing_lost(out, told, floor)
            if floor == before:  # on a busy machine it might never get further
                patience *= 1.3
        assert_same(ends(out), expected)
        assert not list(out.rglob("*.part"))
        run += 1
    assert "Traceback" not in capfd.readouterr().err


def die_at(the_job, told, point: int) -> None:
    """A run that kills itself at the nth of the points of its saves: in the middle of a file, and before and after each
    step by which it becomes the truth."""
    passed = itertools.count()

    def perhaps_die() -> None:
        if next(passed) == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(function):
        def wrapped(*given, **named):
            perhaps_die()
            value = function(*given, **named)
            perhaps_die()
            return value
        return wrapped

    def in_two_parts(tensors, path, **named):
        save_file(tensors, path, **named)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        perhaps_die()
        path.write_bytes(data)

    save_file = checkpoint.save_file
    checkpoint.save_file = around(in_two_parts)
    for name in ("fsync", "replace", "link"):
        setattr(os, name, around(getattr(os, name)))
    RunFolder.log = around(RunFolder.log)
    train(the_job, told)


def test_killed_at_every_point_of_its_saves(processes, recipe, whole, tmp_path, tries, tally):
    """One run, killed again and again a little later; everyday at some of the points."""
    point, step, run, finished = 0, tries(41, 4), 0, False
    while not finished:
        out, told = tmp_path / str(run), tmp_path / f"told {run}"
        process = processes.Process(target=die_at, args=(job(recipe, out), told, point))
        process.start()
        process.join(timeout=120)
        finished = process.exitcode == 0
        if not finished:
            assert process.exitcode == -signal.SIGKILL
            tally("saves interrupted")
            assert_nothing_lost(out, told, {})
            pipeline.run(Workers(), job(recipe, out))
        assert_same(ends(out), whole[0])
        assert not list(out.rglob("*.part"))
        point, run = point + step, run + 1
    assert run > tries(3, 25)
