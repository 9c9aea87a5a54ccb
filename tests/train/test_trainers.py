"""What the loops do with batches, rollouts, rewards and parts."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from minim1.data.corpus import encode_corpus
from minim1.data.packing import Batch, pack_documents
from minim1.errors import UserError
from minim1.generation import sample_token
from minim1.parts import Parts
from minim1.tasks import TASKS, held_out, verifier_reward
from minim1.train import rl as rl_module
from minim1.train.batches import Batches, demonstration_ids
from minim1.train.loop import Trainer
from minim1.train.losses import LossOutput, cispo_loss, group_advantages, grpo_loss, next_token_loss
from minim1.train.optim import Diverged
from minim1.train.rl import Experience, RLTrainer, pack_rows
from minim1.train.schedule import warmup_stable_decay
from minim1.train.settings import Mixture, OptimConfig, RLConfig, StageConfig
from minim1.workers import Workers

FAMILIES = tuple(TASKS)


def parameters(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def some_rows(step, count=5, length=24):
    """Rows of packed documents of unequal length; the last row has no target."""
    generator = torch.Generator().manual_seed(step)
    rows = []
    for row in range(count):
        documents = []
        for size in torch.randint(2, 10, (2,), generator=generator).tolist():
            ids = torch.randint(20, 400, (size,), generator=generator).tolist()
            documents.append((ids, [int(row < count - 1)] * size))
        rows.append(pack_documents(documents, length, pad_id=0))
    return Batch.cat(rows)


# ------------------------------------------------------------------------------------------- supervised


@pytest.fixture
def stream(tokenizer):
    return encode_corpus(["def f(x):\n    return x + 1\n" * 30, "class A:\n    pass\n" * 30], tokenizer)


def test_batches_are_a_pure_function_of_seed_and_step(tokenizer, stream):
    for stage, text_rows in (("pretrain", 2), ("sft", 2), ("pretrain", 0), ("sft", 0)):
        mixture = Mixture(text_rows, {name: 2 for name in FAMILIES}, 96)
        batches = Batches(stage, tokenizer, stream, mixture, seed=1)
        first = batches(5)
        batches(0), batches(6)
        for other, equal in ((batches(5), True), (Batches(stage, tokenizer, stream, mixture, seed=1)(5), True),
                             (batches(4), False), (Batches(stage, tokenizer, stream, mixture, seed=2)(5), False)):
            assert torch.equal(first.input_ids, other.input_ids) is equal
        assert first.input_ids.shape[1] == 96 and first.num_targets > 0


def test_sft_supervises_the_assistant_only_and_pretraining_everything(tokenizer):
    task = TASKS["add"]
    demonstration = task.demonstrate(task.sample(0), 0)
    ids, mask = demonstration_ids(tokenizer, demonstration, supervise_all=False)
    start = ids.index(tokenizer.think_id)
    assert mask == [0] * start + [1] * (len(ids) - start) and ids[-1] == tokenizer.eos_id
    assert demonstration_ids(tokenizer, demonstration, supervise_all=True) == (ids, [1] * len(ids))


def test_training_never_reads_a_heldout_problem(tokenizer, stream, monkeypatch):
    keys = []
    for task in TASKS.values():
        def recorded(*args, _sample=task.sample, **kwargs):
            problem = _sample(*args, **kwargs)
            keys.append(problem.key)
            return problem

        monkeypatch.setattr(task, "sample", recorded)
    mixture = Mixture(0, {name: 6 for name in FAMILIES}, 128)
    for stage in ("pretrain", "sft"):
        for step in range(4):
            Batches(stage, tokenizer, stream, mixture)(step)
    assert len(keys) == 2 * 4 * 6 * len(FAMILIES) and not any(held_out(key) for key in keys)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_any_micro_batches_give_the_gradient_of_the_whole(make_model, rows):
    whole, parts = make_model(router_aux_loss_coef=0.0), make_model(router_aux_loss_coef=0.0)
    optim = OptimConfig(clip=1e9, learning_rate=0.0)
    one = Trainer(whole, some_rows, StageConfig(steps=1, micro_rows=64, optim=optim), quiet=True)
    many = Trainer(parts, some_rows, StageConfig(steps=1, micro_rows=rows, optim=optim), quiet=True)
    expected, found = one.advance(0), many.advance(0)
    torch.testing.assert_close(many.optimizer.gradient, one.optimizer.gradient, atol=1e-6, rtol=1e-4)
    for name in ("loss", "tokens", "grad_norm"):
        assert found[name] == pytest.approx(expected[name], rel=1e-4)
    assert expected["tokens"] == int((some_rows(0).document_ids >= 0).sum())


def test_the_loss_is_the_mean_over_the_targets_of_the_step(make_model):
    model, batch = make_model(), some_rows(0)
    metrics = Trainer(model, some_rows, StageConfig(steps=1, micro_rows=2, optim=OptimConfig(learning_rate=0.0)),
                      quiet=True).advance(0)
    logits = model(batch.input_ids, document_ids=batch.document_ids, positions=batch.positions).logits
    expected = next_token_loss(logits, batch.input_ids, batch.mask, total_tokens=batch.num_targets).loss
    assert metrics["loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert metrics["aux_loss"] > 0.9 and 0 < metrics["load_entropy"] <= 1


def test_the_balance_loss_takes_part(make_model):
    gradients = []
    for coefficient in (0.0, 10.0):
        trainer = Trainer(make_model(router_aux_loss_coef=coefficient), some_rows, StageConfig(steps=1), quiet=True)
        trainer.advance(0)
        gradients.append(trainer.optimizer.gradient.clone())
    assert (gradients[0] - gradients[1]).abs().max() > 1e-4


def test_training_lowers_the_loss(make_model):
    trainer = Trainer(make_model(), lambda step: some_rows(0), StageConfig(steps=25, optim=OptimConfig(learning_rate=1e-2)),
                      quiet=True)
    losses = [trainer.advance(step)["loss"] for step in range(25)]
    assert losses[-1] < 0.7 * losses[0]


def test_nan_weights_stop_the_stage_and_leave_them(make_model):
    model = make_model()
    with torch.no_grad():
        model.lm_head.weight[7, 3] = math.nan
    before = parameters(model)
    with pytest.raises(Diverged):
        Trainer(model, some_rows, StageConfig(steps=2), quiet=True).fit()
    assert all(torch.equal(p.isnan(), before[n].isnan()) and torch.equal(p.nan_to_num(), before[n].nan_to_num())
               for n, p in model.named_parameters())


def test_after_step_sees_every_step_and_adds_to_the_record(make_model, capfd):
    seen = []

    def after_step(step, model, write):
        seen.append((step, model.training))
        write("a sample")

    Trainer(make_model(), some_rows, StageConfig(steps=2), after_step=after_step).fit()
    shown = capfd.readouterr()
    assert seen == [(1, True), (2, True)]
    assert shown.out == "" and shown.err.count("a sample") == 2 and "loss" in shown.err  # stdout belongs to reports


def test_quiet_is_quiet(make_model, capfd):
    Trainer(make_model(), some_rows, StageConfig(steps=1), quiet=True).fit()
    assert capfd.readouterr() == ("", "")


# ------------------------------------------------------------------------------------------- RL


def odd_length(prompts, completions, **columns):
    """A reward that varies within groups even for an untrained model."""
    return [float(len(text) % 2) for text in completions]


SMALL = RLConfig(
    steps=3, prompts_per_rollout=4, samples_per_prompt=4, updates_per_rollout=3, max_new_tokens=8, overlong_buffer=0,
    families=("pair", "add"), optim=OptimConfig(learning_rate=1e-3, weight_decay=0.0),
)


def rl(model, tokenizer, parts=Parts(rewards=(odd_length,)), **changes):
    return RLTrainer(model, tokenizer, replace(SMALL, **changes), parts=parts, quiet=True)


def test_rollouts_use_the_train_split_only_and_families_in_turn(make_model, tokenizer):
    trainer = rl(make_model(), tokenizer, prompts_per_rollout=40)
    problems = [problem for step in range(5) for problem in trainer._problems(step)]
    assert not any(held_out(problem.key) for problem in problems)
    assert [p.family for p in problems[:4]] == ["pair", "add", "pair", "add"]
    assert len({p.prompt for p in problems}) > 150
    assert [p.prompt for p in trainer._problems(2)] == [p.prompt for p in problems[80:120]]


def test_a_step_updates_several_times_and_starts_on_policy(make_model, tokenizer):
    model = make_model()
    before = parameters(model)
    metrics = rl(model, tokenizer).advance(0)
    assert metrics["updates"] == 3 and not same(before, parameters(model))
    assert metrics["mismatch"] < 1e-6 and metrics["mismatch_max"] < 1e-5  # the first update: nothing has moved yet
    assert metrics["ratio_max"] > 1 + 1e-6  # the later ones are off-policy
    assert {"loss", "kl", "clipped_share", "ratio", "entropy", "reward", "length", "thinking", "grad_norm", "lr",
            "repetition_share", "reward_flat_share", "trained_tokens", "tokens"} <= metrics.keys()
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics["entropy"] == pytest.approx(math.log(420), rel=0.05)


def test_the_temperature_is_that_of_the_rollout(make_model, tokenizer):
    """Log-probabilities at another temperature than the sampler's would look like a huge mismatch."""
    assert rl(make_model(), tokenizer, temperature=0.5).advance(0)["mismatch_max"] < 1e-5


def test_micro_batches_of_rl_give_the_gradient_of_the_whole(make_model, tokenizer):
    found = []
    for rows in (1, 3, 128):
        model = make_model(router_aux_loss_coef=0.0)
        trainer = rl(model, tokenizer, micro_rows=rows, updates_per_rollout=1)
        metrics = trainer.advance(0)
        found.append((trainer.optimizer.gradient.clone(), metrics["loss"], metrics["ratio_max"]))
    for gradient, loss, ratio in found[:-1]:
        torch.testing.assert_close(gradient, found[-1][0], atol=1e-6, rtol=1e-3)
        assert loss == pytest.approx(found[-1][1], rel=1e-3, abs=1e-6) and ratio == pytest.approx(found[-1][2], rel=1e-4)


def test_groups_without_variance_are_dropped(make_model, tokenizer):
    rewards = [1.0, 0.0, 1.0, 1.0, *[1.0] * 4, *[0.3] * 4, 0.0, 0.5, 0.0, 1.0]
    asked = []

    def loss(logprobs, old, advantages, mask, **totals):
        asked.append((len(mask), int(mask.sum()), totals))
        return cispo_loss(logprobs, old, advantages, mask, **totals)

    parts = Parts(rewards=(lambda prompts, completions, **columns: rewards,), policy_loss=loss)
    metrics = rl(make_model(), tokenizer, parts, updates_per_rollout=1).advance(0)
    assert [rows for rows, _, _ in asked] == [8] and metrics["reward_flat_share"] == 0.5
    assert asked[0][2] == {"total_tokens": asked[0][1], "total_sequences": 8}
    assert metrics["trained_tokens"] == asked[0][1] < metrics["tokens"]
    assert metrics["reward"] == pytest.approx(sum(rewards) / 16)


def test_when_all_groups_are_flat_nothing_happens(make_model, tokenizer, tmp_path):
    from minim1.train.checkpoint import RunFolder

    model, run = make_model(), RunFolder(tmp_path)
    before = parameters(model)
    run.create({}, tokenizer)
    config = replace(SMALL, steps=2)
    flat = Parts(rewards=(lambda prompts, completions, **columns: [0.25] * len(completions),))
    RLTrainer(model, tokenizer, config, parts=flat, run=run).fit()  # with its progress line
    assert same(before, parameters(model))
    records = run.metrics()
    assert [r["updates"] for r in records] == [0, 0] and records[0]["reward_flat_share"] == 1.0
    assert records[0]["reward"] == 0.25 and run.saved_step() == 2


def test_without_a_signal_old_momentum_does_not_move_the_weights(make_model, tokenizer):
    flat = []

    def reward(prompts, completions, **columns):
        return [0.0 if flat else float(len(text) % 2) for text in completions]

    model = make_model()
    trainer = rl(model, tokenizer, Parts(rewards=(reward,)))
    assert trainer.advance(0)["updates"] == 3
    before = parameters(model)
    flat.append(True)
    assert trainer.advance(1)["updates"] == 0 and same(before, parameters(model))


def test_a_flat_share_counts_the_overlong_penalty(make_model, tokenizer):
    """Rewards are equal, but some answers are punished for their length: such a group is not flat."""
    lengths = iter([8, 8, 8, 8, 5, 8, 8, 8] * 2)

    class Rollouts(RLTrainer):
        def _judge(self, problems, rollout):
            cut = replace(rollout, completions=[ids[: next(lengths)] for ids in rollout.completions])
            return super()._judge(problems, cut)

    parts = Parts(rewards=(lambda prompts, completions, **columns: [0.0] * len(completions),))
    trainer = Rollouts(make_model(), tokenizer, replace(SMALL, overlong_buffer=4), parts=parts, quiet=True)
    metrics = trainer.advance(0)
    assert metrics["reward_flat_share"] == 0.5 and metrics["trained_tokens"] > 0
    assert metrics["overlong_penalty"] == pytest.approx(-(14 * 1.0 + 2 * 0.25) / 16)


def test_a_reward_function_that_raises_is_a_programming_error(make_model, tokenizer):
    def broken(prompts, completions, **columns):
        return [completions[99]]

    model = make_model()
    with pytest.raises(IndexError):
        rl(model, tokenizer, Parts(rewards=(broken,))).advance(0)
    assert model.training


def test_a_reward_function_of_another_length_is_refused(make_model, tokenizer):
    short = Parts(rewards=(lambda prompts, completions, **columns: [1.0] * (len(completions) - 4),))
    with pytest.raises(ValueError):
        rl(make_model(), tokenizer, short).advance(0)


def test_rewards_add_up_and_none_does_not_apply(make_model, tokenizer):
    calls = []

    def some(prompts, completions, **columns):
        calls.append((prompts, completions, columns))
        return [1.0 if i % 2 else None for i in range(len(completions))]

    def constant(prompts, completions, **columns):
        return [0.5] * len(completions)

    trainer = rl(make_model(), tokenizer, Parts(rewards=(some, constant)))
    metrics = trainer.advance(0)
    assert metrics["reward"] == pytest.approx(0.5 + 0.5)
    prompts, completions, columns = calls[0]
    assert len(prompts) == len(completions) == len(columns["problem"]) == 16
    assert prompts == [problem.prompt for problem in columns["problem"]]
    assert prompts == [p.prompt for p in trainer._problems(0) for _ in range(4)]


def test_workers_sample_different_answers(make_model, tokenizer):
    """Each worker has its own random stream; and together they see the problems of one."""
    alone = rl(make_model(), tokenizer)
    problems = alone._problems(3)
    shares = [Workers(rank, 2).share(problems) for rank in range(2)]
    assert sorted(p.prompt for share in shares for p in share) == sorted(p.prompt for p in problems)


@pytest.mark.parametrize("wrong", [
    dict(temperature=0.0), dict(samples_per_prompt=1), dict(updates_per_rollout=0), dict(prompts_per_rollout=0),
])
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        replace(SMALL, **wrong)


def test_unknown_families_and_too_few_prompts_are_refused_at_once(make_model, tokenizer):
    with pytest.raises(UserError, match="nonsense"):
        rl(make_model(), tokenizer, families=("nonsense",))
    with pytest.raises(UserError, match="prompts_per_rollout"):  # a worker without a prompt would wait for ever
        RLTrainer(make_model(), tokenizer, replace(SMALL, prompts_per_rollout=1), workers=Workers(1, 2), quiet=True)


# ------------------------------------------------------------------------------------------- parts


def recording():
    """Parts that note their calls and then do what the defaults do."""
    calls = {}

    def note(name, function):
        def noted(*args, **kwargs):
            calls.setdefault(name, []).append((args, kwargs))
            return function(*args, **kwargs)
        return noted

    defaults = dict(
        pack=pack_documents, lm_loss=next_token_loss, schedule=warmup_stable_decay, sampler=sample_token,
        advantages=group_advantages, policy_loss=cispo_loss,
    )
    noted = {name: note(name, function) for name, function in defaults.items()}
    model_parts = {
        name: note(name, getattr(Parts(), name))
        for name in ("lightning", "attention", "rope", "router", "dispatch", "balance_loss")
    }
    rewards = (note("rewards", odd_length), note("more rewards", verifier_reward))
    return Parts(**noted, **model_parts, rewards=rewards), calls


def test_the_parts_are_what_is_called(make_model, tokenizer, stream):
    parts, calls = recording()
    model = make_model(parts=parts)
    batches = Batches("pretrain", tokenizer, stream, Mixture(1, {"add": 2}, 64), pack=parts.pack)
    Trainer(model, batches, StageConfig(steps=2), parts=parts, quiet=True).fit()
    assert [len(calls.pop(name)) for name in ("pack", "lm_loss", "schedule")] == [2, 2, 2]
    assert {"lightning", "attention", "rope", "router", "dispatch", "balance_loss"} == calls.keys()
    rl(model, tokenizer, parts, steps=1).fit()
    assert {name: len(calls[name]) for name in ("schedule", "advantages", "policy_loss", "rewards", "more rewards")} == {
        "schedule": 3, "advantages": 1, "policy_loss": 3, "rewards": 1, "more rewards": 1
    }
    assert len(calls["sampler"]) == 8
    (rewards,), options = calls["advantages"][0]
    assert rewards.shape == (4, 4) and not options
    args, options = calls["policy_loss"][0]
    assert len(args) == 4 and args[3].dtype == torch.bool and {x.shape for x in args} == {args[0].shape}
    assert set(options) == {"total_tokens", "total_sequences"}
    assert [args[:2] for args, _ in calls["schedule"]] == [(0, 3), (1, 3), (2, 3)]


def test_options_reach_the_policy_loss(make_model, tokenizer):
    seen = []

    def loss(*args, max_weight, **totals):
        seen.append(max_weight)
        return cispo_loss(*args, max_weight=max_weight, **totals)

    rl(make_model(), tokenizer, Parts(rewards=(odd_length,), policy_loss=loss), policy_options={"max_weight": 2.5}).advance(0)
    assert seen == [2.5] * 3


def test_a_part_may_report_no_metrics(make_model, tokenizer, capfd):
    """A learner's loss is a LossOutput with a loss; metrics are a courtesy."""
    def lm_loss(logits, input_ids, mask, *, total_tokens):
        return LossOutput(next_token_loss(logits, input_ids, mask, total_tokens=total_tokens).loss)

    def bare(*args, **totals):
        return LossOutput(cispo_loss(*args, **totals).loss)

    Trainer(make_model(), some_rows, StageConfig(steps=1), parts=Parts(lm_loss=lm_loss)).fit()
    RLTrainer(make_model(), tokenizer, replace(SMALL, steps=1), parts=Parts(policy_loss=bare, rewards=(odd_length,))).fit()
    assert "loss" in capfd.readouterr().err


@pytest.mark.parametrize("policy_loss", [cispo_loss, grpo_loss])
def test_answers_are_packed_and_train_as_if_padded(make_model, tokenizer, policy_loss, monkeypatch):
    """Unequal answers share rows: fewer tokens, the same loss, metrics and gradient."""
    trainer, model = rl(make_model(), tokenizer, Parts(policy_loss=policy_loss)), make_model().double()
    trainer.model = model
    generator = torch.Generator().manual_seed(3)
    lengths = torch.tensor([40, 9, 3, 17, 2, 25, 8])
    time = torch.arange(40)
    documents = torch.where(time < lengths[:, None], 0, -1)
    ids = torch.randint(20, 400, documents.shape, generator=generator).masked_fill(documents < 0, 0)
    old = -3 - torch.rand(documents.shape, generator=generator, dtype=torch.float64)
    piece = Experience(ids, documents, old, old.cos(), (documents == 0) & (time > 1))
    seen, results = [], []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda ids, **o: seen.append(tuple(ids.shape)) or forward(ids, **o))
    for pack in (pack_rows, lambda ids, real: (torch.zeros(real.numel()), None, None)):
        monkeypatch.setattr(rl_module, "pack_rows", partial(pack, room=50) if pack is pack_rows else pack)
        model.zero_grad()
        output = trainer._loss(piece, 100.0, 7.0, measure_mismatch=True)
        output.loss.backward()
        results.append((output.loss, output.metrics, [p.grad.clone() for p in model.parameters()]))
    assert seen == [(3, 49), (7, 40)]  # 40+9, 3+17+2+25, 8
    torch.testing.assert_close(results[0], results[1], atol=1e-10, rtol=1e-9)


def test_answers_of_one_length_are_not_packed(make_model, tokenizer, monkeypatch):
    model, shapes = make_model(), []
    trainer, forward = rl(model, tokenizer), model.forward
    monkeypatch.setattr(model, "forward", lambda ids, **o: shapes.append(tuple(ids.shape)) or forward(ids, **o))
    ids = torch.full((4, 10), 30)
    flat = torch.zeros(4, 10)
    trainer._loss(Experience(ids, torch.zeros_like(ids), flat, flat, ids > 0), 40.0, 4.0, measure_mismatch=False)
    assert shapes == [(4, 10)]
