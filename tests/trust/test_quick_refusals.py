"""A slip is told before anything slow happens: within two seconds, most of them before torch is imported."""

import subprocess
import sys
import time

import pytest

AT_ONCE = [  # (command, words of the sentence): nothing of torch is needed to see it
    ("train --bogus", "--bogus"),
    ("trian", "trian"),
    ("train --preset nano-nano", "nano-nano"),
    ("train --rl-steps 0", "steps"),
    ("train --sft-learning-rate 3", "learning rate"),
    ("train --loss cipso", "cipso"),
    ("train --families pear", "pear"),
    ("train --workers 0", "--workers"),
    ("train --device gpu", "gpu"),
    ("rl --from nowhere", "nowhere"),
    ("sft", "--from"),
    ("eval nowhere", "nowhere"),
    ("eval shipped --problems 0", "--problems"),
    ("eval shipped --families pear", "pear"),
    ("chat nowhere", "nowhere"),
    ("chat --budget x", "budget"),
    ("export nowhere --to hf --out x", "nowhere"),
    ("export shipped --to gguf --out x", "gguf"),
]
WITH_TORCH = [
    ("train --device cuda", "cuda"), ("train --corpus nowhere", "nowhere"), ("claims 99", "99"), ("check 99.1", "99.1"),
    ("count --preset huge", "huge"), ("bench rl --mine nothing:there", "nothing"), ("report nowhere", "nowhere"),
    ("import nowhere --out x", "nowhere"),
    ("train --part policy_loss=nowhere:mine", "nowhere"), ("train --config nowhere.json", "nowhere.json"),
]


def told(command: str, tmp_path):
    began = time.perf_counter()
    ran = subprocess.run([sys.executable, "-X", "importtime", "-m", "minim1", *command.split()], capture_output=True, text=True,
                         cwd=tmp_path, timeout=60)
    seconds = time.perf_counter() - began
    loaded = {line.rpartition("|")[2].strip() for line in ran.stderr.splitlines() if line.startswith("import time:")}
    said = [line for line in ran.stderr.splitlines() if not line.startswith("import time:")]
    return ran, loaded, said, seconds


@pytest.mark.parametrize("command, words", AT_ONCE)
def test_at_once(command, words, tmp_path, tally):
    ran, loaded, said, _ = told(command, tmp_path)
    assert ran.returncode == 2 and len(said) == 1 and said[0].startswith("minim1: ") and words in said[0]
    assert "torch" not in loaded and ran.stdout == "" and not list(tmp_path.iterdir())
    tally("slips told at once")


@pytest.mark.parametrize("command, words", WITH_TORCH)
def test_soon(command, words, tmp_path, tally):
    if command.endswith("cuda") and __import__("torch").cuda.is_available():
        pytest.skip("this machine has one")
    ran, loaded, said, _ = told(command, tmp_path)
    assert ran.returncode == 2 and len(said) == 1 and said[0].startswith("minim1: ") and words in said[0]
    assert not loaded & {"plotly", "ipywidgets", "transformers", "trl"} and not list(tmp_path.iterdir())
    tally("slips told at once")


def test_two_seconds(tmp_path):
    """The quicker of two, against the time that an import of torch takes here and now, since a busy machine is slower."""
    def seconds(command):
        began = time.perf_counter()
        subprocess.run(command, capture_output=True, cwd=tmp_path, timeout=60)
        return time.perf_counter() - began

    torch = min(seconds([sys.executable, "-c", "import torch"]) for _ in range(2))
    for command in ("train --preset nano-nano", "chat nowhere"):
        assert min(seconds([sys.executable, "-m", "minim1", *command.split()]) for _ in range(2)) < max(0.7 * torch, 1.0)
    late = min(seconds([sys.executable, "-m", "minim1", "train", "--corpus", "nowhere"]) for _ in range(2))
    assert late < max(3 * torch, 2.0)  # what else it imports may take as long again where the machine is busy
