"""Checkpoints that were cut short or changed are refused, and the save before them is used."""

import random
import struct

import pytest
import torch

from minim1.errors import UserError
from minim1.train.checkpoint import RunFolder, load, read_tensors, save_model, write_tensors
from minim1.train.files import read_json, write_json
from minim1.train.losses import LossOutput
from minim1.train.optim import Optimizer
from minim1.train.settings import OptimConfig

FILES = ("model.safetensors", "state.safetensors", "config.json", "tokenizer.json")


@pytest.fixture
def saved(make_model, tokenizer, tmp_path):
    """A run saved after one step and after two, and the weights of both."""
    model, folder, weights = make_model(seed=3), RunFolder(tmp_path / "run"), {}
    optimizer = make_optimizer(model)
    folder.create({"stage": "pretrain"}, tokenizer)
    for step in (1, 2):
        ids = torch.randint(400, (2, 9), generator=torch.Generator().manual_seed(step))
        optimizer.step(step, [ids], lambda x: LossOutput(model(x).logits.square().mean(), {}))
        folder.save(model, optimizer, step, {"tokens": 7 * step})
        weights[step] = {name: p.detach().clone() for name, p in model.named_parameters()}
    return folder, weights


def make_optimizer(model):
    return Optimizer(model, OptimConfig(), 100, schedule=lambda step, total, **shape: 1.0)


def loads(folder) -> dict:
    return dict(load(folder.path).model.named_parameters())


def resumes(folder, make_model) -> tuple[int, dict]:
    model = make_model()
    step, progress = folder.resume(model, make_optimizer(model))
    assert progress == ({"tokens": 7 * step} if step else {})
    return step, dict(model.named_parameters())


def same(left, right) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def places(data: bytes, name: str, rng: random.Random, count: int):
    """Places in a file: half of them in the header, where there is one."""
    header = 8 + struct.unpack("<Q", data[:8])[0] if name.endswith(".safetensors") else len(data)
    return [rng.randrange(header if i % 2 else len(data)) for i in range(count)]


@pytest.mark.parametrize("name", FILES)
def test_cut_short_anywhere(saved, make_model, name, tries, tally):
    folder, weights = saved
    path, rng = folder.path / name, random.Random(name)
    whole = path.read_bytes()
    for place in places(whole, name, rng, tries(50, 1000)):
        path.write_bytes(whole[:place])
        assert_refused_or_harmless(folder, weights, make_model, name)
        tally("truncations refused")
    path.write_bytes(whole)
    assert same(loads(folder), weights[2])


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_anywhere(saved, make_model, name, tries, tally):
    folder, weights = saved
    path, rng = folder.path / name, random.Random(name)
    whole = path.read_bytes()
    for place in places(whole, name, rng, tries(100, 2000)):
        changed = bytearray(whole)
        changed[place] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        assert_refused_or_harmless(folder, weights, make_model, name)
        tally("flipped bits refused")
    path.write_bytes(whole)


def assert_refused_or_harmless(folder, weights, make_model, name) -> None:
    """Never other weights than those saved: a sentence that names the file, or a change that says the same (a blank)."""
    try:
        if name == "state.safetensors":
            step, found = resumes(folder, make_model)
            assert step in (1, 2) and same(found, weights[step])
        else:
            assert same(loads(folder), weights[2])
    except UserError as mistake:
        assert name in str(mistake) and "\n" not in str(mistake)
        assert name != "state.safetensors", "the save before it is whole"


def test_a_damaged_save_is_told_and_the_one_before_it_used(saved, make_model, capsys):
    folder, weights = saved
    state = folder.path / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-1])
    step, found = resumes(folder, make_model)
    assert step == 1 and same(found, weights[1])
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "state.safetensors" in said and "the save before it is whole: step 1" in said


def test_when_both_saves_are_damaged_it_is_refused(saved, make_model):
    folder, _ = saved
    for name in ("state.safetensors", "previous.safetensors"):
        (folder.path / name).write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"state\.safetensors"):
        resumes(folder, make_model)


def test_a_seal_cannot_be_left_out(saved):
    from safetensors.torch import load_file, save_file

    path = saved[0].path / "model.safetensors"
    save_file(load_file(path), path, metadata={})
    with pytest.raises(UserError, match="no sha256.*import"):
        load(saved[0].path)


def test_a_config_that_asks_for_more_than_there_is_is_refused_before_memory_is_taken(saved):
    folder = saved[0]
    config = read_json(folder.path / "config.json")
    tensors = read_tensors(folder.path / "model.safetensors")[0]
    for change in ({"hidden_size": 2**18, "intermediate_size": 2**18}, {"vocab_size": 2**24}, {"num_local_experts": 4096}):
        write_json(folder.path / "config.json", {**config, **change})
        write_tensors(folder.path / "model.safetensors", tensors, {})  # by somebody who can make seals
        with pytest.raises(UserError, match=r"config\.json"):
            load(folder.path)


def test_a_tokenizer_of_another_run_is_noticed(saved, tmp_path):
    """Of the same size, so that nothing else could notice."""
    path = saved[0].path / "tokenizer.json"
    text = path.read_text(encoding="utf-8")
    assert text.count("⟨wait⟩") == 2
    path.write_text(text.replace("⟨wait⟩", "⟨wane⟩"), encoding="utf-8")
    with pytest.raises(UserError, match=r"tokenizer\.json was changed"):
        load(saved[0].path)


def test_line_ends_do_not_count(saved):
    for name in ("config.json", "tokenizer.json"):
        path = saved[0].path / name
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    load(saved[0].path)


def test_after_a_kill_between_state_and_model_both_agree_again(saved, make_model):
    """The last save of a stage is not followed by another that would mend the model file."""
    folder, weights = saved
    model = make_model(seed=9)
    (folder.path / ".model.safetensors.part").write_bytes(b"half")
    save_model(model, folder.path)  # another model, as an older save would be
    step, progress = folder.resume(model, make_optimizer(model))
    folder.go_on_from(step, model)
    assert same(loads(folder), weights[2]) and not list(folder.path.glob(".*.part"))
