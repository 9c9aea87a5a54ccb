"""Interrupted and resumed equals never interrupted: bitwise, for every stage, and for a whole run."""

import json
import math
import os
import shutil
import signal
from dataclasses import replace

import pytest
import torch

from minim1.data.corpus import encode_corpus
from minim1.errors import Interrupted, UserError
from minim1.parts import Parts
from minim1.train import pipeline
from minim1.train.batches import Batches
from minim1.train.checkpoint import RunFolder, load, read_tensors
from minim1.train.loop import StopSignal, Trainer
from minim1.train.losses import LossOutput, next_token_loss
from minim1.train.optim import Diverged
from minim1.train.rl import RLTrainer
from minim1.train.settings import Mixture, OptimConfig, RLConfig, StageConfig
from minim1.workers import Workers

TIMES = {"seconds", "tokens_per_second"}


def odd_length(prompts, completions, **columns):
    """A reward that varies within groups even for an untrained model."""
    return [float(len(text) % 2) for text in completions]


def press_ctrl_c(at):
    """An `after_step` that sends the real signal during step `at`."""
    def after_step(step, model, write):
        if step == at:
            signal.raise_signal(signal.SIGINT)

    return after_step


@pytest.fixture(params=["pretrain", "sft", "rl"])
def build(request, make_model, tokenizer):
    """build(folder, seed=0, **shared) -> a fresh stage of seven steps."""
    stream = encode_corpus(["def f(x):\n    return x + 1\n" * 30, "class A:\n    pass\n" * 30], tokenizer)

    def make(folder, seed=0, **shared):
        model, run = make_model(seed=seed), RunFolder(folder)
        if run.saved_step() is None:
            run.create({"stage": request.param}, tokenizer)
        shared = dict(run=run, quiet=True, parts=Parts(rewards=(odd_length,))) | shared
        if request.param == "rl":
            config = RLConfig(
                steps=7, prompts_per_rollout=2, samples_per_prompt=3, updates_per_rollout=2, max_new_tokens=8,
                overlong_buffer=0, save_every=3, optim=OptimConfig(learning_rate=1e-3),
            )
            return RLTrainer(model, tokenizer, config, **shared)
        batches = Batches(request.param, tokenizer, stream, Mixture(1, {"add": 1, "sort": 1}, 96), seed=1)
        config = StageConfig(steps=7, micro_rows=2, save_every=3, log_every=1)
        return Trainer(model, batches, config, name=request.param, **shared)

    return make


def everything(stage):
    """Weights, moments, progress and metrics, without what depends on the clock."""
    tensors = {name: p.detach().clone() for name, p in stage.model.named_parameters()} | stage.optimizer.state()
    records = [{k: v for k, v in record.items() if k not in TIMES} for record in stage.run.metrics()]
    return tensors, stage.progress["tokens"], records


def assert_same(left, right):
    assert left[0].keys() == right[0].keys()
    assert all(torch.equal(left[0][name], right[0][name]) for name in left[0])
    assert left[1:] == right[1:]


@pytest.mark.parametrize("at", [1, 4, 6])
def test_resumed_equals_uninterrupted(build, tmp_path, at):
    whole = build(tmp_path / "whole")
    whole.fit()
    first = build(tmp_path / "parts", after_step=press_ctrl_c(at))
    with pytest.raises(Interrupted, match=f"after step {at} of 7.*{tmp_path / 'parts'}"):
        first.fit()
    assert first.run.saved_step() == at and len(first.run.metrics()) == at
    second = build(tmp_path / "parts", seed=77)  # nothing of the fresh model may survive
    second.fit()
    assert_same(everything(whole), everything(second))
    assert len(second.run.metrics()) == 7
    on_disk = [read_tensors(tmp_path / run / "state.safetensors")[0] for run in ("whole", "parts")]
    assert all(torch.equal(on_disk[0][name], on_disk[1][name]) for name in on_disk[0] | on_disk[1])


def test_a_crash_loses_only_the_steps_since_the_last_save(build, tmp_path):
    """Power cut at step 5: saved at 3, logged up to 5; the log must not hold steps twice."""
    class Crash(Exception):
        pass

    def after_step(step, model, write):
        if step == 6:
            raise Crash

    whole, first = build(tmp_path / "whole"), build(tmp_path / "parts", after_step=after_step)
    whole.fit()
    with pytest.raises(Crash):
        first.fit()
    assert first.run.saved_step() == 3 and len(first.run.metrics()) == 5
    with open(tmp_path / "parts" / "metrics.jsonl", "a") as file:
        file.write('{"stage": "half a li')
    second = build(tmp_path / "parts", seed=5)
    second.fit()
    assert_same(everything(whole), everything(second))


def test_a_finished_stage_is_not_trained_again(build, tmp_path):
    stage = build(tmp_path / "run")
    stage.fit()
    again = build(tmp_path / "run", seed=3)
    again.advance = None  # any call would fail
    again.fit()
    assert_same(everything(stage), everything(again))


def test_ctrl_c_in_the_last_step_stops_too(build, tmp_path):
    """Otherwise the next stage would begin although the user asked to stop."""
    stage = build(tmp_path / "run", after_step=press_ctrl_c(7))
    with pytest.raises(Interrupted, match="step 7 of 7"):
        stage.fit()
    assert stage.run.saved_step() == 7


def test_the_handler_of_ctrl_c_is_put_back(build, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted):
        build(tmp_path / "run", after_step=press_ctrl_c(1)).fit()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_stops_at_once():
    with pytest.raises(KeyboardInterrupt), StopSignal() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.asked
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_ctrl_c_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignal() as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop.asked
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_without_a_folder_an_interrupt_says_so(make_model):
    from minim1.data.packing import pack_documents

    batch = pack_documents([([20, 21, 22], [1, 1, 1])], 4, pad_id=0)
    trainer = Trainer(make_model(), lambda step: batch, StageConfig(steps=3), after_step=press_ctrl_c(1), quiet=True)
    with pytest.raises(Interrupted) as stop:
        trainer.fit()
    assert "step 1 of 3" in str(stop.value) and "saved" not in str(stop.value)


@pytest.mark.parametrize("build", ["pretrain"], indirect=True)
def test_nan_keeps_the_last_good_checkpoint(build, tmp_path):
    poison = []

    def lm_loss(logits, input_ids, mask, *, total_tokens):
        out = next_token_loss(logits, input_ids, mask, total_tokens=total_tokens)
        return LossOutput(out.loss * (math.nan if poison else 1.0), out.metrics)

    def after_step(step, model, write):
        if step == 4:
            poison.append(step)

    stage = build(tmp_path / "run", parts=Parts(lm_loss=lm_loss), after_step=after_step)
    with pytest.raises(Diverged, match="step 4"):
        stage.fit()
    assert stage.run.saved_step() == 3 and load(tmp_path / "run").model is not None
    assert all(p.isfinite().all() for p in stage.model.parameters())  # four good steps, and not the fifth
    whole = build(tmp_path / "whole")
    whole.fit()
    second = build(tmp_path / "run", seed=1)
    second.fit()  # without the poison
    assert_same(everything(whole), everything(second))


# ------------------------------------------------------------------------------------------- the whole pipeline


def job(recipe, out, **changes):
    return pipeline.Job(recipe=recipe, out=str(out), quiet=True, **changes)


def results(out):
    found = {}
    for stage in ("pretrain", "sft", "rl"):
        evaluation = json.loads((out / stage / "eval.json").read_text())
        del evaluation["seconds"]
        found[stage] = (evaluation, read_tensors(out / stage / "model.safetensors")[0])
    return found


@pytest.mark.parametrize("stage, at", [("sft", 1), ("rl", 2)])
def test_a_whole_run_interrupted_anywhere_ends_the_same(tiny_recipe, tiny_run, tmp_path, monkeypatch, stage, at):
    build = pipeline.build_stage

    def interrupted(name, *args):
        made = build(name, *args)
        if name == stage:
            made.after_step = press_ctrl_c(at)
        return made

    monkeypatch.setattr(pipeline, "build_stage", interrupted)
    with pytest.raises(Interrupted, match=stage):
        pipeline.run(Workers(), job(tiny_recipe, tmp_path))
    assert not (tmp_path / stage / "eval.json").exists()
    monkeypatch.undo()
    pipeline.run(Workers(), job(tiny_recipe, tmp_path, resume=True))
    expected, found = results(tiny_run), results(tmp_path)
    for name in expected:
        assert found[name][0] == expected[name][0]
        assert all(torch.equal(found[name][1][key], tensor) for key, tensor in expected[name][1].items())


def test_a_failed_evaluation_loses_nothing(tiny_recipe, tmp_path, monkeypatch):
    """Save first, evaluate then: others lost finished runs to an evaluation that ran out of memory."""
    def failing(*_, **__):
        raise MemoryError

    monkeypatch.setattr(pipeline, "evaluate", failing)
    with pytest.raises(MemoryError):
        pipeline.run(Workers(), job(tiny_recipe, tmp_path, stages=("pretrain",)))
    monkeypatch.undo()
    assert RunFolder(tmp_path / "pretrain").saved_step() == tiny_recipe.pretrain.steps
    pipeline.run(Workers(), job(tiny_recipe, tmp_path, stages=("pretrain",), resume=True))
    assert (tmp_path / "pretrain" / "eval.json").exists()


def test_stages_of_their_own_start_from_a_run(tiny_recipe, tiny_run, tmp_path):
    """sft --from pretrain, then rl --from sft, equal the stages of one run."""
    for stage, start in (("sft", tiny_run / "pretrain"), ("rl", tmp_path / "sft" / "sft")):
        pipeline.run(Workers(), job(tiny_recipe, tmp_path / stage, stages=(stage,), start_from=str(start)))
        expected = read_tensors(tiny_run / stage / "model.safetensors")[0]
        found = read_tensors(tmp_path / stage / stage / "model.safetensors")[0]
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_another_seed_is_another_run(tiny_recipe, tiny_run, tmp_path):
    other = replace(tiny_recipe, seed=1, pretrain=replace(tiny_recipe.pretrain, seed=1))
    pipeline.run(Workers(), job(other, tmp_path, stages=("pretrain",)))
    expected = read_tensors(tiny_run / "pretrain" / "model.safetensors")[0]
    found = read_tensors(tmp_path / "pretrain" / "model.safetensors")[0]
    assert any(not torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_run_does_not_go_on_with_other_text(tiny_recipe, tmp_path, corpus_folder):
    """Its batches would no longer be a function of seed and step."""
    text = shutil.copytree(corpus_folder, tmp_path / "text")
    recipe = replace(tiny_recipe, corpus=str(text))
    pipeline.run(Workers(), job(recipe, tmp_path / "out", stages=("pretrain",)))
    before = (tmp_path / "out" / "pretrain" / "state.safetensors").read_bytes()
    with open(text / "module_3.txt", "a") as file:
        file.write("one line more\n")
    with pytest.raises(UserError, match="other text"):
        pipeline.run(Workers(), job(recipe, tmp_path / "out", resume=True))
    assert (tmp_path / "out" / "pretrain" / "state.safetensors").read_bytes() == before
    assert not (tmp_path / "out" / "sft" / "run.json").exists()


def test_the_run_records_what_it_depended_on(tiny_run, tiny_recipe):
    settings = RunFolder(tiny_run / "rl").settings
    assert settings["corpus"]["sha256"] and settings["corpus"]["python"] and settings["workers"] == 1
    assert settings["recipe"]["seed"] == tiny_recipe.seed and settings["stage"] == "rl" and settings["device"] == "cpu"


# ------------------------------------------------------------------------------------------- text that does not do


def test_too_little_text_for_the_vocabulary_leaves_no_trap(tiny_recipe, tmp_path, corpus_folder):
    """The tokenizer of a failed attempt must not be taken for that of the next."""
    few = tmp_path / "few"
    few.mkdir()
    for number in range(3):
        (few / f"{number}.txt").write_text(f"a{number}")
    with pytest.raises(UserError, match="more text"):
        pipeline.run(Workers(), job(replace(tiny_recipe, corpus=str(few)), tmp_path / "out", stages=("pretrain",)))
    pipeline.run(Workers(), job(tiny_recipe, tmp_path / "out", stages=("pretrain",)))


def test_too_little_heldout_text_is_noticed_before_training(tiny_recipe, tmp_path, corpus_folder):
    folder = tmp_path / "text"
    folder.mkdir()
    lines = (corpus_folder / "module_0.txt").read_text().split("\n\n")
    for number, line in enumerate(lines * 3):  # many short documents: the held-out ones fill no window
        (folder / f"{number:03}.txt").write_text(line)
    recipe = replace(tiny_recipe, corpus=str(folder), pretrain_mixture=replace(tiny_recipe.pretrain_mixture, length=400),
                     sft_mixture=replace(tiny_recipe.sft_mixture, length=400))
    with pytest.raises(UserError, match="window"):
        pipeline.run(Workers(), job(recipe, tmp_path / "out", stages=("pretrain",)))
    assert not os.path.exists(tmp_path / "out" / "pretrain" / "run.json")
