"""Run folders: written whole or not at all, read back bitwise, and refused in one sentence when they are something else."""

import ast
import errno
import json
import os
import re
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import minim1
from minim1.errors import UserError
from minim1.report.ship import ship_stage
from minim1.train import checkpoint
from minim1.train.checkpoint import RunFolder, from_checkpoint, load, save_model, to_checkpoint
from minim1.train.files import SHIPPED, find_run, write_whole
from minim1.train.losses import LossOutput
from minim1.train.optim import Optimizer
from minim1.train.settings import OptimConfig


def parameters(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def optimiser(model):
    return Optimizer(model, OptimConfig(), 100, schedule=lambda step, total, **shape: 1.0)


def take_step(model, optimizer, step=0):
    ids = torch.randint(400, (2, 9), generator=torch.Generator().manual_seed(step))
    optimizer.step(step, [ids], lambda x: LossOutput(model(x).logits.square().mean(), {}))


@pytest.fixture
def saved(make_model, tokenizer, tmp_path):
    """(folder, model, optimizer) of a run saved after two steps."""
    model, folder = make_model(seed=3), RunFolder(tmp_path / "run")
    optimizer = optimiser(model)
    folder.create({"stage": "pretrain"}, tokenizer)
    for step in range(2):
        take_step(model, optimizer, step)
    folder.save(model, optimizer, 2, {"tokens": 5, "seconds": 1.5})
    return folder, model, optimizer


def contents(folder):
    """Of all files but the second name of the last save."""
    return {path.name: path.read_bytes() for path in folder.path.iterdir() if path.name != "previous.safetensors"}


# ------------------------------------------------------------------------------------------- round trips


def test_a_model_comes_back_bitwise(saved, tokenizer):
    folder, model, _ = saved
    loaded = load(folder.path)
    assert same(parameters(loaded.model), parameters(model)) and loaded.model.config == model.config
    assert loaded.tokenizer.encode("def f(x):") == tokenizer.encode("def f(x):")
    assert loaded.run["stage"] == "pretrain" and loaded.run["format"] == 1
    ids = torch.arange(30, 42).view(1, -1)
    assert torch.equal(loaded.model(ids).logits, model(ids).logits)


def test_a_run_comes_back_bitwise(saved, make_model):
    folder, model, optimizer = saved
    other = make_model(seed=99)
    resumed = optimiser(other)
    assert folder.saved_step() == 2
    assert folder.resume(other, resumed) == (2, {"tokens": 5, "seconds": 1.5})
    assert same(parameters(other), parameters(model)) and same(resumed.state(), optimizer.state())
    take_step(model, optimizer, 2), take_step(other, resumed, 2)
    assert same(parameters(other), parameters(model))


def test_a_run_folder_holds_what_is_promised(saved):
    folder = saved[0]
    assert set(contents(folder)) == {
        "config.json", "model.safetensors", "tokenizer.json", "state.safetensors", "run.json", "metrics.jsonl"
    }
    assert {"python", "torch", "minim1", "machine"} <= folder.settings["versions"].keys()
    assert folder.settings["format"] == json.loads((folder.path / "config.json").read_text())["format"] == 1


def test_an_unsaved_run_starts_at_zero(make_model, tokenizer, tmp_path):
    folder, model = RunFolder(tmp_path / "new"), make_model()
    folder.create({}, tokenizer)
    assert folder.saved_step() is None and folder.resume(model, optimiser(model)) == (0, {})


def test_the_same_run_gives_the_same_bytes(saved, tmp_path):
    folder, model, optimizer = saved
    for name in ("model.safetensors", "state.safetensors"):
        written = set()
        for _ in range(6):
            folder.save(model, optimizer, 2, {"tokens": 5, "seconds": 1.5})
            written.add((folder.path / name).read_bytes())
        assert len(written) == 1


def test_tensors_have_m1s_names(saved, make_model):
    names = set(load_file(saved[0].path / "model.safetensors"))
    layer = ["input_layernorm", "post_attention_layernorm", "block_sparse_moe.gate"]
    layer += [f"block_sparse_moe.experts.{e}.{w}" for e in range(3) for w in ("w1", "w2", "w3")]
    lightning = ["self_attn.qkv_proj", "self_attn.output_gate", "self_attn.norm", "self_attn.out_proj"]
    softmax = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
    expected = ["model.embed_tokens", "model.norm", "lm_head"]
    expected += [f"model.layers.0.{name}" for name in layer + lightning]
    expected += [f"model.layers.1.{name}" for name in layer + softmax]
    assert names == {f"{name}.weight" for name in expected}
    shapes = {name: tuple(t.shape) for name, t in load_file(saved[0].path / "model.safetensors").items()}
    assert shapes["model.layers.0.block_sparse_moe.experts.2.w1.weight"] == (16, 16)


def test_experts_are_split_in_order_and_joined_again(make_model):
    tensors = parameters(make_model(num_local_experts=12))  # more than ten: "10" must not sort before "2"
    split = to_checkpoint(tensors)
    stacked = tensors["model.layers.0.block_sparse_moe.experts.w2"]
    assert torch.equal(split["model.layers.0.block_sparse_moe.experts.10.w2.weight"], stacked[10])
    assert same(from_checkpoint(split), tensors)
    assert same(from_checkpoint(dict(reversed(split.items()))), tensors)


def test_a_bf16_model_keeps_its_routers_in_fp32(make_model, tokenizer, tmp_path):
    model = make_model(seed=2)
    tokenizer.save(tmp_path / "tokenizer.json")
    save_model(model, tmp_path, torch.bfloat16)
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        assert tensor.dtype == (torch.float32 if name.endswith(".gate.weight") else torch.bfloat16), name
    loaded = load(tmp_path)
    for name, p in loaded.model.named_parameters():
        original = dict(model.named_parameters())[name]
        expected = original if name.endswith(".gate.weight") else original.bfloat16().float()
        assert p.dtype == torch.float32 and torch.equal(p, expected), name
    with safe_open(str(tmp_path / "model.safetensors"), framework="pt") as file:
        assert file.metadata()["format"] == "pt"  # transformers refuses a file without


def test_saving_leaves_the_model_as_it_was(saved):
    folder, model, optimizer = saved
    before, versions = parameters(model), {name: p._version for name, p in model.named_parameters()}
    folder.save(model, optimizer, 3, {})
    assert same(parameters(model), before) and versions == {name: p._version for name, p in model.named_parameters()}


# ------------------------------------------------------------------------------------------- whole or not at all


def test_a_failing_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    path.write_text("old")

    def half(part):
        part.write_text("ne")
        raise OSError(errno.EIO, "input/output error")

    with pytest.raises(UserError, match="intact"):
        write_whole(path, half)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_nobody_ever_sees_half_a_file(tmp_path):
    path = tmp_path / "file.json"
    path.write_text("old")

    def slow(part):
        part.write_text("ne")
        assert path.read_text() == "old" and part.parent == path.parent  # one file system: the rename is atomic
        part.write_text("new")

    write_whole(path, slow)
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_write_that_is_interrupted_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    path.write_text("old")

    def interrupted(part):
        part.write_text("ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, interrupted)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [
    OSError(errno.ENOSPC, "No space left on device"),
    checkpoint.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
])
def test_a_full_disk_loses_nothing(saved, monkeypatch, error):
    folder, model, optimizer = saved
    before = contents(folder)
    take_step(model, optimizer, 2)

    def full(tensors, path, **_):
        Path(path).write_bytes(b"as far as it went")
        raise error

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(UserError, match="disk is full") as mistake:
        folder.save(model, optimizer, 3, {})
    assert "state.safetensors" in str(mistake.value) and contents(folder) == before


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_may_show_late(saved, monkeypatch, call):
    folder, model, optimizer = saved
    before = contents(folder)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.os, call, full)
    with pytest.raises(UserError, match="disk is full"):
        folder.save(model, optimizer, 3, {})
    assert contents(folder) == before


def test_no_space_for_the_log(saved, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(UserError, match="metrics.jsonl.*space"):
        saved[0].log({"step": 1})


def test_a_folder_that_cannot_be_made(tokenizer, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="--out"):
        RunFolder(tmp_path / "file" / "run").create({}, tokenizer)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_disk_that_is_really_full(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    path.write_text("old")

    def write(part):
        part.symlink_to("/dev/full")
        part.write_text("new " * 5000)

    with pytest.raises(UserError, match="disk is full"):
        write_whole(path, write)
    assert path.read_text() == "old"


# ------------------------------------------------------------------------------------------- damaged and foreign


def test_truncated_files_are_refused(saved, make_model):
    folder = saved[0]
    for name, read in reading(folder, make_model):
        whole = (folder.path / name).read_bytes()
        for size in (0, 1, 7, 8, 100, len(whole) // 2, len(whole) - 1):
            (folder.path / name).write_bytes(whole[:size])
            with pytest.raises(UserError, match=name.replace(".", r"\.")):
                read()
        (folder.path / name).write_bytes(whole)
        read()


def reading(folder, make_model):
    def resume():
        model = make_model()
        folder.saved_step()
        return folder.resume(model, optimiser(model))

    return [("model.safetensors", lambda: load(folder.path)), ("state.safetensors", resume)]


@pytest.mark.parametrize("bit", [0, 4])
def test_a_flipped_bit_in_a_header_never_ends_in_a_traceback(saved, make_model, bit):
    """Some flips are harmless (a blank, the name of a metadata key); none may surprise."""
    folder = saved[0]
    for name, read in reading(folder, make_model):
        path, refused = folder.path / name, 0
        whole = path.read_bytes()
        size = 8 + struct.unpack("<Q", whole[:8])[0]
        positions = [*range(8), *range(8, 80, 3), *range(80, size, 149)]
        for position in positions:
            flipped = bytearray(whole)
            flipped[position] ^= 1 << bit
            path.write_bytes(flipped)
            try:
                read()
            except UserError as mistake:
                assert name in str(mistake) and "\n" not in str(mistake)
                refused += 1
        path.write_bytes(whole)
        assert refused > len(positions) / 2


@pytest.mark.parametrize("name", ["model.safetensors", "state.safetensors"])
@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 a pickled checkpoint", b"{}", os.urandom(3000), b"\xff" * 64])
def test_something_else_is_refused(saved, make_model, name, data):
    folder = saved[0]
    (folder.path / name).write_bytes(data)
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        dict(reading(folder, make_model))[name]()


def sealed(tensors, **note):
    return {"minim1": json.dumps({**note, "sha256": checkpoint.seal(tensors, note)})}


@pytest.mark.parametrize("metadata", [
    lambda _: None, lambda _: {"format": "pt"}, lambda _: {"minim1": "not json"}, lambda _: {"minim1": "[]"},
    lambda _: {"minim1": '{"format": 1, "step": 1, "progress": {}}'}, lambda tensors: sealed(tensors, format=1),
    lambda tensors: sealed(tensors, format=2, step=1, progress={}),
])
def test_a_state_of_another_program_or_format_is_refused(saved, make_model, metadata):
    folder = saved[0]
    path = folder.path / "state.safetensors"
    tensors = load_file(path)
    save_file(tensors, path, metadata=metadata(tensors))
    with pytest.raises(UserError, match=r"state\.safetensors"):
        folder.saved_step()
    model = make_model()
    before = parameters(model)
    with pytest.raises(UserError, match=r"state\.safetensors"):
        folder.resume(model, optimiser(model))
    assert same(parameters(model), before)


@pytest.mark.parametrize("change", ["missing", "unknown", "shape", "one expert less", "ragged experts", "odd expert name", "m1's text model"])
def test_another_architecture_is_refused(saved, change):
    folder = saved[0]
    path = folder.path / "model.safetensors"
    tensors = load_file(path)
    expert = "model.layers.1.block_sparse_moe.experts.2.w1.weight"
    if change == "missing":
        del tensors["model.norm.weight"]
    elif change == "unknown":
        tensors["model.layers.0.self_attn.bias"] = torch.zeros(3)
    elif change == "shape":
        tensors["lm_head.weight"] = torch.zeros(421, 16)
    elif change == "one expert less":
        del tensors[expert]
    elif change == "ragged experts":
        tensors[expert] = torch.zeros(17, 16)
    elif change == "odd expert name":
        tensors["model.layers.1.block_sparse_moe.experts.gate_up_proj"] = tensors.pop(expert)
    else:
        tensors = {"transformer.wte.weight": torch.zeros(4, 4)}
    checkpoint.write_tensors(path, tensors, {})
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load(folder.path)


def test_a_state_of_another_architecture_leaves_the_model_alone(saved, make_model):
    other = make_model(hidden_size=24)
    before = parameters(other)
    with pytest.raises(UserError, match=r"state\.safetensors"):
        saved[0].resume(other, optimiser(other))
    assert same(parameters(other), before)


@pytest.mark.parametrize("name, text, words", [
    ("config.json", "{", "config.json"), ("config.json", "[]", "config.json"), ("config.json", None, "config.json"),
    ("config.json", '{"format": 2}', "config.json was changed"), ("config.json", '{"hidden_size": 16}', "config.json was changed"),
    ("run.json", '{"format": 99}', "99"), ("run.json", "half of", "run.json"), ("run.json", "[1]", "run.json"),
    ("run.json", b"\xff\xfe", "run.json"),
    ("tokenizer.json", None, "tokenizer.json"), ("tokenizer.json", "{}", "tokenizer.json"),
    ("tokenizer.json", b"\x00\x01", "tokenizer.json"),
])
def test_a_broken_companion_file_is_named(saved, name, text, words):
    path = saved[0].path / name
    if text is None:
        path.unlink()
    else:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=re.escape(words)):
        load(saved[0].path)


def test_a_tokenizer_of_another_vocabulary_is_refused(saved, tokenizer):
    from minim1.data.tokenizer import Tokenizer

    Tokenizer.train(["abc abc"], 280, ["⟨7⟩"]).save(saved[0].path / "tokenizer.json")
    with pytest.raises(UserError, match="tokenizer.json"):
        load(saved[0].path)


@pytest.mark.parametrize("path, stage", [("shipped", "rl"), ("shipped/sft", "sft"), ("shipped/pretrain", "pretrain")])
def test_models_of_the_package_are_those_of_their_stage(path, stage):
    assert load(path).run["stage"] == stage
    assert find_run(path) == SHIPPED.parent / path


def test_shipping_a_stage_keeps_its_weights_and_evaluation(tiny_run, tmp_path):
    assert ship_stage(tiny_run, "sft", tmp_path / "sft") == sum(p.stat().st_size for p in (tmp_path / "sft").iterdir())
    before, after = (load(folder).model.state_dict() for folder in (Path(tiny_run) / "sft", tmp_path / "sft"))
    assert all(torch.equal(after[name].bfloat16(), tensor.bfloat16()) for name, tensor in before.items())
    assert (tmp_path / "sft" / "eval.json").exists() and load(tmp_path / "sft").run["stage"] == "sft"


def test_where_a_run_is_looked_for(saved, tmp_path):
    folder = saved[0]
    assert find_run(folder.path) == folder.path and find_run(str(folder.path)) == folder.path
    whole = tmp_path / "all"
    for stage in ("pretrain", "sft", "rl"):
        (whole / stage).mkdir(parents=True)
        shutil.copy(folder.path / "model.safetensors", whole / stage)
        assert find_run(whole) == whole / stage  # the last one there
    with pytest.raises(UserError, match="nowhere"):
        find_run(tmp_path / "nowhere")
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        find_run(tmp_path)
    with pytest.raises(UserError, match="not a folder"):
        find_run(folder.path / "config.json")


def test_nothing_is_ever_pickled():
    """Loading a checkpoint must not be able to run code. (safe_kernel.py runs the user's own code, in its own child.)"""
    found = []
    for path in Path(minim1.__file__).parent.rglob("*.py"):
        if path.name == "safe_kernel.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Call):
                names = [ast.unparse(node.func)]
            found += [(path.name, n) for n in names if re.search(r"\b(pickle|dill|joblib|shelve|marshal|torch\.load|torch\.save|np\.load)\b", n)]
    assert found == []


# ------------------------------------------------------------------------------------------- metrics


def test_metrics_come_back_and_a_half_written_last_line_does_not_matter(saved):
    folder = saved[0]
    for step in (1, 2, 3):
        folder.log({"step": step, "loss": 0.5})
    with open(folder.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')
    assert [record["step"] for record in folder.metrics()] == [1, 2, 3]
    folder.go_on_from(2, saved[1])
    folder.log({"step": 3, "loss": 0.25})
    assert folder.metrics() == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.5}, {"step": 3, "loss": 0.25}]


def test_a_run_without_metrics_has_none(tmp_path):
    assert RunFolder(tmp_path / "none").metrics() == []


def test_creating_a_run_again_starts_its_log_anew(saved, tokenizer):
    saved[0].log({"step": 1})
    saved[0].create({}, tokenizer)
    assert saved[0].metrics() == []
