"""The gradient does not depend on how its rows are split: micro-batches, processes of torchrun, PyTorch's DDP and FSDP2."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import splits
import torch
from safetensors.torch import load_file

from minim1.train.checkpoint import RunFolder, read_model_file
from minim1.workers import Workers

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")


@pytest.fixture(scope="module")
def alone():
    return splits.every_way(Workers())


@pytest.fixture(scope="module")
def whole(tokenizer, tmp_path_factory):
    """Nine steps of one process."""
    folder = tmp_path_factory.mktemp("whole")
    RunFolder(folder).create({"stage": "pretrain"}, tokenizer)
    splits.go_on(folder, 9, Workers())
    return read_model_file(folder)


def assert_equal(found, expected) -> None:
    scale = expected.abs().max().item()
    assert scale > 1e-3  # a difference of nothings proves nothing
    assert (found - expected).abs().max().item() <= 1e-5 * scale


def test_micro_batches(alone, tally):
    for kind in ("reading", "reinforcement"):
        expected = alone[f"{kind}, {splits.ROWS} rows at once"]
        for micro_rows in splits.MICRO_ROWS[:-1]:
            assert_equal(alone[f"{kind}, {micro_rows} rows at once"], expected)
            tally("splits compared")


def test_processes_and_a_run_that_changes_their_number(alone, whole, tokenizer, tmp_path, tries, tally):
    """Three steps of one process, three of several, three of one again: the weights of nine steps of one."""
    for size in tries((2,), (2, 3, 4)):
        run = tmp_path / "run"
        shutil.rmtree(run, ignore_errors=True)
        RunFolder(run).create({"stage": "pretrain"}, tokenizer)
        splits.go_on(run, 3, Workers())
        subprocess.run([*TORCHRUN, str(size), str(Path(splits.__file__)), str(tmp_path)], check=True, timeout=300)
        splits.go_on(run, 9, Workers())
        found = load_file(tmp_path / f"{size}.safetensors")
        assert len(found) == 2 * (len(splits.MICRO_ROWS) + 2)
        for name, gradient in found.items():
            assert_equal(gradient, alone[f"{name.partition(',')[0]}, {splits.ROWS} rows at once"])
            tally("splits compared")
        steps = [record["step"] for record in RunFolder(run).metrics()]
        assert steps == list(range(1, 10))
        for name, tensor in read_model_file(run).items():
            torch.testing.assert_close(tensor, whole[name], atol=2e-4, rtol=0)


def test_torchrun_starts_the_command_as_it_is(corpus_folder, tiny_recipe, tmp_path):
    """One card on stdout, one run on disk; a mistake is said once."""
    tiny_recipe.model.save(tmp_path / "config.json")
    command = [*TORCHRUN, "2", "-m", "minim1", "pretrain", "--preset", "smoke", "--config", str(tmp_path / "config.json"),
               "--corpus", str(corpus_folder), "--out", str(tmp_path / "run"), "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert json.loads(ran.stdout)["stages"]
    assert RunFolder(tmp_path / "run" / "pretrain").settings["workers"] == 2
    again = subprocess.run([*command, "--workers", "2"], capture_output=True, text=True, timeout=300)
    assert again.returncode != 0
    assert again.stderr.count("minim1: --workers is 2, but torchrun has started 2 processes already") == 1
