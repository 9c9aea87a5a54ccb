"""Experiments and their runner: what is stored, what is added to it, and what is refused, on made-up experiments.

All but one test run their units in threads of this process instead of new processes, which would each import torch.
"""

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from minim1.errors import UserError
from minim1.report import experiments
from minim1.report.experiments import (
    Experiment,
    add,
    begin,
    head,
    missing,
    read_result,
    rounded,
    runner,
    seeds,
    values,
)

PLACE = {"date": "2026-01-01", "machine": {"cpu": "any"}, "versions": {"torch": "2"}, "threads": 1}
ELSEWHERE = PLACE | {"date": "2026-01-02"}


def value(arm: str, seed: int, scale: str) -> dict:
    """What a unit of these experiments gives, when all is well."""
    return {"arm": arm, "seed": seed, "scale": scale, "tenth": seed + 0.1}


def process(arm: str, seed: int, scale: str) -> int:
    return os.getpid()


def made(name="made", arms=None, run=value, **given) -> Experiment:
    return Experiment(name, {"a": range(2), "b": range(2)} if arms is None else arms, run, **given)


@pytest.fixture
def threads(monkeypatch):
    """One thread runs the units, and their values come back in that order."""
    monkeypatch.setattr(runner, "ProcessPoolExecutor", lambda count, **_: ThreadPoolExecutor(1))
    monkeypatch.setattr(runner, "as_completed", list)
    monkeypatch.setattr(runner, "provenance", lambda **_: dict(PLACE))
    monkeypatch.setattr(runner, "measure", lambda run, *unit: (run(*unit), 2.04))


def run(made_up, folder: Path, scale="cpu", **given) -> dict:
    """The result of one experiment, quietly."""
    return runner.run([made_up], scale, folder, say=lambda text: None, **given)[made_up.name]


class Counted:
    """A run function that notes its units."""

    def __init__(self, of=value) -> None:
        self.of, self.units = of, []

    def __call__(self, arm, seed, scale):
        self.units.append((arm, seed))
        return self.of(arm, seed, scale)


# ---------------------------------------------------------------- one result


def test_units_of_a_seed_come_together_and_only_those_that_lack():
    plan = made(arms={"a": range(3), "b": [0, 2], "c": [1]})
    result = begin(plan, "cpu", Path("nowhere.json"))
    assert list(missing(plan, result)) == [("a", 0), ("b", 0), ("a", 1), ("c", 1), ("a", 2), ("b", 2)]
    add(result, "a", 1, 1.0, 0.1, PLACE)
    add(result, "b", 0, 1.0, 0.1, PLACE)
    assert list(missing(plan, result)) == [("a", 0), ("c", 1), ("a", 2), ("b", 2)]
    assert list(missing(plan, result, [1, 7])) == [("b", 1), ("c", 1), ("a", 7), ("b", 7), ("c", 7)]
    assert list(missing(plan, result, [])) == []


def test_other_seeds_are_not_for_an_experiment_without_chance():
    plan = made(arms={"a": [0]}, chance=False)
    assert list(missing(plan, begin(plan, "cpu", Path("nowhere.json")), [5, 6])) == [("a", 0)]


def test_seeds_are_read_in_the_order_of_numbers():
    result = begin(made(), "cpu", Path("nowhere.json"))
    for seed in (10, 9, 2):
        add(result, "a", seed, seed / 2, 0.1, PLACE)
    add(result, "b", 11, 0, 0.1, ELSEWHERE)
    assert values(result, "a") == [1.0, 4.5, 5.0]
    assert values(result, "nothing of it") == []
    assert seeds(result) == [2, 9, 10, 11]


def test_a_unit_says_where_it_ran_and_each_place_is_kept_once():
    result = begin(made(), "cpu", Path("nowhere.json"))
    for seed, place in enumerate((PLACE, ELSEWHERE, dict(PLACE))):
        add(result, "a", seed, 0, 1.26, place)
    assert result["places"] == [PLACE, ELSEWHERE]
    assert result["units"]["a"] == {"0": {"seconds": 1.3, "place": 0}, "1": {"seconds": 1.3, "place": 1},
                                    "2": {"seconds": 1.3, "place": 0}}
    assert head(result) == PLACE and head(result) is not result["places"][0]


def test_floats_are_rounded_at_any_depth_and_nothing_else():
    assert rounded({1: [(0.123456, True), None], "b": 123456, "c": "0.123456"}) == {
        "1": [[0.12346, True], None], "b": 123456, "c": "0.123456"}
    assert rounded(1.234567e-9) == 1.2346e-9


def test_scales_are_stored_apart():
    assert [made().path(Path("x"), scale).name for scale in ("cpu", "smoke", "gpu")] == [
        "made.json", "made-smoke.json", "made-gpu.json"]


@pytest.mark.parametrize("other, scale, said", [
    (made("other"), "cpu", 'its experiment is "made", here it is "other"'),
    (made(settings={"steps": 9}), "cpu", 'its settings is {"steps": 8}, here it is {"steps": 9}'),
    (made(settings={"steps": 8}), "smoke", 'its scale is "cpu", here it is "smoke"'),
])
def test_a_result_of_another_version_is_not_added_to(tmp_path, other, scale, said):
    path = tmp_path / "made.json"
    experiments.write_result(path, begin(made(settings={"steps": 8}), "cpu", path))
    with pytest.raises(UserError) as refused:
        begin(other, scale, path)
    assert said in str(refused.value) and "move the file away" in str(refused.value)


def test_settings_are_compared_as_json_has_them(tmp_path):
    """Tuples come back as lists, and numbers that are keys as text."""
    plan, path = made(settings={"edges": (0.0, 1.0), "by layer": {7: 2}}), tmp_path / "made.json"
    experiments.write_result(path, begin(plan, "cpu", path))
    assert begin(plan, "cpu", path)["settings"] == {"edges": [0.0, 1.0], "by layer": {"7": 2}}


# ---------------------------------------------------------------- runs


def test_a_run_goes_on_with_what_is_missing(tmp_path, threads):
    first, second = Counted(), Counted()
    run(made(run=first), tmp_path, seeds=[1])
    result = run(made(run=second), tmp_path)
    assert first.units == [("a", 1), ("b", 1)]
    assert second.units == [("a", 0), ("b", 0)]
    assert result == read_result(tmp_path / "made.json")
    assert values(result, "b") == [value("b", seed, "cpu") for seed in (0, 1)]
    assert result["units"]["b"]["0"] == {"seconds": 2.0, "place": 0}


def test_nothing_is_run_or_written_when_nothing_is_missing(tmp_path, threads):
    run(made(), tmp_path)
    before, again = (tmp_path / "made.json").stat().st_mtime_ns, Counted()
    run(made(run=again), tmp_path)
    assert not again.units and (tmp_path / "made.json").stat().st_mtime_ns == before


def test_a_unit_that_fails_ends_the_run_and_the_finished_ones_stay(tmp_path, threads):
    def fails(arm, seed, scale):
        if (arm, seed) == ("a", 1):
            raise FloatingPointError("the loss is not finite")
        return value(arm, seed, scale)

    tried, mended = Counted(fails), Counted()
    with pytest.raises(FloatingPointError, match="not finite"):
        run(made(run=tried), tmp_path)
    kept = read_result(tmp_path / "made.json")
    assert kept["runs"]["a"] == {"0": value("a", 0, "cpu")}
    assert kept["runs"]["b"]["0"] == value("b", 0, "cpu")
    run(made(run=mended), tmp_path)
    assert ("a", 1) in mended.units and ("a", 0) not in mended.units


def test_every_unit_is_on_disk_before_the_next_is_waited_for(tmp_path, threads):
    stored = []
    runner.run([made()], "cpu", tmp_path, say=lambda text: stored.append(
        [(arm, seed) for arm, runs in read_result(tmp_path / "made.json")["runs"].items() for seed in runs]))
    assert [len(units) for units in stored] == [1, 2, 3, 4]


def test_smoke_runs_each_arm_once(tmp_path, threads):
    counted = Counted()
    result = run(made(arms={"a": range(3), "b": [2, 4]}, run=counted), tmp_path, "smoke")
    assert counted.units == [("a", 0), ("b", 2)]
    assert result["scale"] == "smoke" and (tmp_path / "made-smoke.json").exists()


def test_smoke_runs_nothing_when_each_arm_has_run(tmp_path, threads):
    run(made(), tmp_path, "smoke")
    again = Counted()
    run(made(run=again), tmp_path, "smoke")
    assert not again.units


def test_chosen_seeds_are_all_run_at_smoke(tmp_path, threads):
    counted = Counted()
    run(made(arms={"a": range(3)}, run=counted), tmp_path, "smoke", seeds=[5, 6])
    assert counted.units == [("a", 5), ("a", 6)]


def test_units_that_are_timed_run_alone_and_last(tmp_path, monkeypatch, threads):
    monkeypatch.setattr(runner, "ProcessPoolExecutor", lambda count, **_: ThreadPoolExecutor(count))
    together, order = threading.Barrier(2, timeout=10), []

    def meets(arm, seed, scale):
        together.wait()  # fails unless two of them run at once
        order.append("together")

    running = threading.Lock()

    def timed(arm, seed, scale):
        assert running.acquire(blocking=False)
        order.append("alone")
        running.release()

    runner.run([made("timed", {"a": range(3)}, timed, alone=True), made("meets", {"a": range(2)}, meets)], "cpu", tmp_path,
               processes=2, say=lambda text: None)
    assert order == ["together"] * 2 + ["alone"] * 3


def test_progress_names_the_unit_and_counts(tmp_path, threads):
    said = []
    runner.run([made(arms={"a": [3, 4]})], "cpu", tmp_path, say=said.append)
    assert [line.split(";")[0] for line in said] == ["[1/2] made: a, seed 3, 2 s", "[2/2] made: a, seed 4, 2 s"]
    assert said[-1].endswith("about 0 min left")


def test_processes_run_the_units_and_time_them(tmp_path):
    """The real pool: its processes are not this one, and import what they run by its module."""
    found = runner.run([made("one", {"a": [0]}, process), made("two", {"a": [0]}, process, alone=True)], "cpu", tmp_path,
                       processes=1, say=lambda text: None)
    assert all(values(result, "a")[0] not in (os.getpid(), None) for result in found.values())
    assert found["one"]["units"]["a"]["0"]["seconds"] >= 0
    assert {"date", "machine", "versions", "threads"} == set(head(found["one"]))


# ---------------------------------------------------------------- what is refused, before anything runs


def refused(folder, made_up, scale="cpu"):
    """The sentence with which a run is refused; no unit runs."""
    counted = Counted()
    experiment = Experiment(made_up.name, made_up.arms, counted, made_up.settings)
    with pytest.raises(UserError) as problem:
        run(experiment, folder, scale)
    assert not counted.units
    return str(problem.value)


def test_settings_of_another_version_are_refused_with_a_remedy(tmp_path, threads):
    run(made(settings={"steps": 8}), tmp_path)
    before = (tmp_path / "made.json").read_text()
    sentence = refused(tmp_path, made(settings={"steps": 9}))
    assert "made.json was written by another version" in sentence and "--results" in sentence
    assert (tmp_path / "made.json").read_text() == before


def test_long_settings_are_cut_in_the_sentence(tmp_path, threads):
    run(made(settings={"list": list(range(100))}), tmp_path)
    assert len(refused(tmp_path, made(settings={"list": list(range(99))}))) < 400


def test_a_result_of_one_experiment_that_cannot_be_added_to_stops_them_all(tmp_path, threads):
    run(made("second", settings={"steps": 8}), tmp_path)
    counted = Counted()
    with pytest.raises(UserError, match="second.json"):
        runner.run([made("first", run=counted), made("second")], "cpu", tmp_path)
    assert not counted.units and not (tmp_path / "first.json").exists()


def test_broken_json_is_refused_with_a_remedy(tmp_path, threads):
    run(made(), tmp_path)
    path = tmp_path / "made.json"
    path.write_text(path.read_text()[:50])
    sentence = refused(tmp_path, made())
    assert f"{path} cannot be read" in sentence and "move it away" in sentence


def test_a_folder_that_cannot_be_made_is_refused_with_a_remedy(tmp_path, threads):
    (tmp_path / "file").write_text("")
    assert "choose another folder with --results" in refused(tmp_path / "file" / "results", made())


def test_a_folder_that_cannot_be_written_to_is_refused_with_a_remedy(tmp_path, threads, monkeypatch):
    monkeypatch.setattr(runner.os, "access", lambda path, mode: False)  # no mode of a folder stops root
    assert f"{tmp_path} cannot be written to" in refused(tmp_path, made())


# ---------------------------------------------------------------- the command of a module


def test_the_command_of_an_experiment_runs_the_given_seeds(tmp_path, threads, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["made", "--seeds", "4", "--results", str(tmp_path)])
    runner.main(made(), "What is made?")
    path = tmp_path / "made.json"
    assert seeds(json.loads(path.read_text())) == [4]
    assert capsys.readouterr().out == f"stored in {path}\n"


def test_the_command_says_in_a_sentence_what_is_wrong(tmp_path, threads, monkeypatch, capsys):
    (tmp_path / "made.json").write_text("{")
    monkeypatch.setattr("sys.argv", ["made", "--results", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        runner.main(made(), "What is made?")
    assert ended.value.code == 2
    assert "made.json cannot be read" in capsys.readouterr().err


def test_an_interrupted_command_ends_quietly_and_keeps_what_is_finished(tmp_path, threads, monkeypatch, capsys):
    def interrupted(arm, seed, scale):
        if seed == 1:
            raise KeyboardInterrupt
        return value(arm, seed, scale)

    monkeypatch.setattr("sys.argv", ["made", "--results", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        runner.main(made(run=interrupted), "What is made?")
    assert ended.value.code == 130
    assert seeds(read_result(tmp_path / "made.json")) == [0]
    assert "Traceback" not in capsys.readouterr().err
