"""The doctor: complete and quick on this machine, and unshaken on ill ones."""

import builtins
import importlib.metadata
import json
import os
import subprocess
import sys
import time
import types

import pytest

from minim1 import doctor


@pytest.fixture(scope="module")
def found():
    start = time.perf_counter()
    found = doctor.report("PASSIVE")
    assert time.perf_counter() - start < 10, "the doctor promises an answer within ten seconds"
    return found


@pytest.fixture(autouse=True)
def short_measurement(monkeypatch, found):  # `found` first: that one measures in full
    monkeypatch.setattr(doctor, "MATMUL_SECONDS", 0.001)


def test_report_is_json_and_names_what_it_must(found):
    assert json.loads(json.dumps(found)) == found
    assert {"python", "os", "versions", "device", "matmul_gflops", "cores", "memory_gb", "free_disk_gb",
            "omp_wait_policy", "folder_writable", "licences", "expectation", "problems", "notes",
            "ok"} <= set(found)
    assert found["versions"]["torch"] == importlib.metadata.version("torch")
    assert found["device"]["kind"] in ("cpu", "cuda")
    assert 0 < found["matmul_gflops"] < 1e7
    assert 1 <= found["cores"] <= os.cpu_count()
    assert found["omp_wait_policy"] == "PASSIVE"
    assert "Apache-2.0" in found["licences"]["project"] and "PSF" in found["licences"]["text"]


def test_format_shows_every_finding(found):
    text = doctor.format_report({**found, "problems": ["It is broken: repair it."], "ok": False})
    assert found["python"] in text and found["versions"]["torch"] in text
    assert found["expectation"] in text
    assert "PROBLEM   It is broken: repair it." in text
    assert text.endswith("1 to repair")
    assert doctor.format_report({**found, "problems": [], "ok": True}).endswith("ready")


def test_without_any_package(monkeypatch):
    """On a bare Python: nothing raises, and each missing package is named with the remedy."""
    real_import = builtins.__import__

    def no_torch(name, *arguments, **options):
        if name == "torch":
            raise ImportError("No module named 'torch'")
        return real_import(name, *arguments, **options)

    def no_version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(builtins, "__import__", no_torch)
    monkeypatch.setattr(doctor.metadata, "version", no_version)
    found = doctor.report()
    assert not found["ok"] and found["device"] is None and found["matmul_gflops"] is None
    problem = next(sentence for sentence in found["problems"] if "torch" in sentence)
    assert "tokenizers" in problem and "pip install" in problem
    assert any("plotly" in note for note in found["notes"])
    assert "unknown" in doctor.format_report(found)


def test_missing_course_packages_are_a_note_not_a_problem(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: None if name in doctor.COURSE else "1.0")
    found = doctor.report()
    assert not any("jupyterlab" in problem for problem in found["problems"])
    assert any("jupyterlab" in note and "pip install" in note for note in found["notes"])


def test_torch_that_does_not_import_is_told_with_its_reason(monkeypatch):
    monkeypatch.setattr(doctor, "_import_torch", lambda: (None, "libcudart.so: no such file"))
    found = doctor.report()
    assert not found["ok"]
    assert any("libcudart.so" in problem and ".venv" in problem for problem in found["problems"])
    assert doctor.format_report(found)


def test_device_that_fails_does_not_stop_the_report(monkeypatch):
    def fail(torch):
        raise RuntimeError("driver in use")

    monkeypatch.setattr(doctor, "_device", fail)
    found = doctor.report()
    assert found["device"] is None and "unknown" in doctor.format_report(found)


def test_cuda_is_named_with_its_memory_and_the_preset_small(monkeypatch):
    card = types.SimpleNamespace(name="GeForce", total_memory=8_000_000_000)
    fake = types.SimpleNamespace(
        cuda=types.SimpleNamespace(is_available=lambda: True, device_count=lambda: 1,
                                   get_device_properties=lambda index: card),
        get_num_threads=lambda: 4)
    monkeypatch.setattr(doctor, "_import_torch", lambda: (fake, None))
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "triton" else "1.0")
    found = doctor.report()
    assert found["device"]["kind"] == "cuda"
    assert "GeForce, 8.0 GB" in doctor.format_report(found)
    assert "small" in found["expectation"]
    assert any("Triton" in note for note in found["notes"])


def test_driver_without_a_cuda_torch_is_noted(found):
    ill = {**found, "nvidia_driver": True, "device": {**found["device"], "kind": "cpu"}}
    assert any("sees no CUDA device" in note for note in doctor._notes(ill))
    assert not any("sees no CUDA" in note for note in doctor._notes({**ill, "nvidia_driver": False}))


def test_unwritable_folder_is_a_problem(monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    found = doctor.report()
    assert not found["folder_writable"] and not found["ok"]
    assert any(os.getcwd() in problem for problem in found["problems"])


def test_folder_check_leaves_nothing_behind(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert doctor._folder_writable()
    assert list(tmp_path.iterdir()) == []


def test_full_disk_and_missing_sources_are_problems(found):
    assert any("0.20 GB" in problem for problem in doctor._problems({**found, "free_disk_gb": 0.2}, None))
    assert any("standard library" in problem
               for problem in doctor._problems({**found, "standard_library_text": False}, None))
    healthy = {**found, "free_disk_gb": None, "standard_library_text": True, "folder_writable": True}
    assert doctor._problems(healthy, None) == []  # an unknown disk is not a full one


@pytest.mark.parametrize("policy, told", [(None, True), ("ACTIVE", True), ("PASSIVE", False), ("passive", False)])
def test_wait_policy_is_noted_unless_passive(found, policy, told):
    on_cpu = {**found, "omp_wait_policy": policy, "device": {**found["device"], "kind": "cpu"}}
    assert any("OMP_WAIT_POLICY" in note for note in doctor._notes(on_cpu)) == told


def test_cores_are_those_of_this_process(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5, 7}, raising=False)
    assert doctor._cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert doctor._cores() == 1


def test_expectation_names_a_time_only_where_one_was_measured(monkeypatch):
    monkeypatch.setattr(doctor, "MEASURED_TRAIN", {"nano": "It took 8 minutes on two cores."})
    assert doctor.expectation(1, False) == \
        "`train` takes the preset nano on 1 CPU core. It took 8 minutes on two cores."
    assert doctor.expectation(2, True) == "`train` takes the preset small on the GPU."


def test_only_torch_is_imported():
    """The report looks versions up; it does not import the heavy notebook packages."""
    code = ("import sys; from minim1 import doctor; doctor.report(); "
            "sys.exit(bool({'plotly', 'jupyterlab', 'ipywidgets', 'transformers'} & set(sys.modules)))")
    root = os.path.dirname(os.path.dirname(doctor.__file__))
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0
