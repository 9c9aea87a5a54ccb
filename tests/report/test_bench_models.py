"""Whole models in the benchmark: the same weights, the same numbers, the same work for all."""

import sys
from copy import deepcopy
from dataclasses import replace
from itertools import cycle
from types import SimpleNamespace

import pytest
import torch

from minim1.config import preset
from minim1.errors import UserError
from minim1.model.decoder import MiniM1
from minim1.report.bench import models
from minim1.report.bench.harness import Options, Skip
from minim1.report.bench.models import QUICK, DenseGPT, Gradients, Training

OPTIONS = Options(quick=True, seconds=0.0)
KEYS = ["parameters", "active", "dense parameters", "dense active"]


@pytest.fixture
def model():
    return MiniM1(QUICK, seed=1)


@pytest.fixture
def hf(model):
    pytest.importorskip("transformers.models.minimax")
    return models.hf_model(model)


def tokens(batch, length, seed=0):
    return models.random_ids(QUICK, batch, length, OPTIONS, seed)


def update(before, after):
    """All weights' changes as one vector."""
    return torch.cat([(after[name] - before[name]).flatten() for name in sorted(before)])


# ------------------------------------------------------------------------------------------- the same weights


def test_transformers_gets_our_weights(model, hf):
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():  # norms too: 1 everywhere proves nothing
            parameter.mul_(1 + 0.3 * torch.rand(parameter.shape, generator=random))
    other = models.hf_model(model)
    ids = tokens(2, 70)
    with torch.no_grad():
        found, expected = other(ids).logits, model(ids).logits
        assert (hf(ids).logits - expected).abs().max() > 0.1  # of the weights before
    torch.testing.assert_close(found, expected, atol=1e-5 * expected.abs().max().item(), rtol=0)
    assert other.config.block_size == 256 and other.config._attn_implementation == "sdpa"
    assert models.hf_model(model, 64).model.layers[0].self_attn.block_size == 64


def test_weights_are_copies(model, hf):
    before = model(tokens(1, 9)).logits
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.zero_()
    assert torch.equal(model(tokens(1, 9)).logits, before)


def test_weights_that_do_not_fit_are_a_reason_to_leave_out(model, monkeypatch):
    pytest.importorskip("transformers.models.minimax")
    monkeypatch.setattr(models, "hf_names", lambda tensors: {"model.strange.weight": torch.zeros(1)})
    with pytest.raises(Skip, match="strange"):
        models.hf_model(model)


def test_the_truth_runs_other_forms_than_those_timed(model):
    exact = models.in_fp64(model)
    assert exact.parts.lightning is not model.parts.lightning and exact.parts.dispatch is not model.parts.dispatch
    logits = exact(tokens(2, 40)).logits
    assert logits.dtype == torch.float64
    torch.testing.assert_close(model(tokens(2, 40)).logits.double(), logits, atol=1e-5, rtol=1e-5)


def test_the_whole_head_is_rotated_and_the_preset_is_kept():
    for device, name in (("cpu", "nano"), ("cuda", "small")):
        found, config = models.model_config(Options(device=device))
        assert found == name and config == replace(preset(name), rotary_dim=preset(name).head_dim)
    assert QUICK.rotary_dim == QUICK.head_dim


# ------------------------------------------------------------------------------------------- the dense model


@pytest.mark.parametrize("config", [QUICK, preset("nano"), preset("small")], ids=["tiny", "nano", "small"])
def test_the_dense_model_has_as_many_active_parameters(config):
    with torch.device("meta"):
        dense = DenseGPT.like(config, 64)
    hidden, layers, width = config.hidden_size, config.num_hidden_layers, dense.blocks[0].up.weight.shape[0]
    active = layers * (4 * hidden**2 + 2 * hidden * width + 2 * hidden) + hidden
    assert dense.active_parameters() == active
    found = models.sizes(config, dense)
    assert found["dense active"] == active == pytest.approx(found["active"], rel=0.02)
    assert len(dense.blocks) == layers and dense.head.weight.shape == (config.vocab_size, hidden)
    assert found["dense parameters"] == active + (2 * config.vocab_size + 64) * hidden
    assert hidden // dense.blocks[0].heads == config.head_dim
    assert found["parameters"] == sum(p.numel() for p in MiniM1(config).parameters()) > found["active"]


def test_the_dense_model_is_causal_and_knows_positions():
    dense, ids = DenseGPT.like(QUICK, 20), tokens(1, 20)
    changed = ids.clone()
    changed[0, 12] = (changed[0, 12] + 1) % QUICK.vocab_size
    before, after = dense(ids), dense(changed)
    torch.testing.assert_close(before[:, :12], after[:, :12])
    assert (before - after)[:, 12:].abs().amax(-1).min() > 1e-6
    same = dense(torch.full((1, 6), 7))
    assert (same[0, 0] - same[0, 5]).abs().max() > 1e-6


def test_the_dense_model_decodes_what_it_computes_without_cache():
    dense, prompts = DenseGPT.like(QUICK, 30), tokens(3, 9)
    with torch.no_grad():
        for parameter in dense.parameters():
            parameter.mul_(3)  # small weights make flat distributions
    ids, logprobs = dense.generate(prompts, 15, temperature=0.0)
    expected = prompts
    for step in range(15):
        distribution = dense(expected)[:, -1].log_softmax(-1)
        best = distribution.max(-1)
        torch.testing.assert_close(logprobs[:, step], best.values, atol=1e-5, rtol=1e-5)
        expected = torch.cat([expected, best.indices[:, None]], 1)
    assert torch.equal(ids, expected)
    sampled = dense.generate(prompts, 15)[0]
    assert torch.equal(sampled[:, :9], prompts) and not torch.equal(sampled, ids)


# ------------------------------------------------------------------------------------------- training


def test_a_training_step_leads_to_the_same_weights(model, hf):
    ids = tokens(2, 48)
    ours, theirs = (
        Training(net, loss, ids, OPTIONS) for net, loss in ((model, models.our_loss), (hf, models.hf_loss))
    )
    start = models.hf_names({name: p.detach().clone() for name, p in model.named_parameters()})
    for _ in range(2):
        losses = ours.step(), theirs.step()
        assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-6)
    found = update(start, models.hf_names(dict(model.named_parameters())))
    expected = update(start, dict(hf.named_parameters()))
    assert found.abs().median() > 1e-5
    assert (found - expected).norm() < 1e-3 * expected.norm()


def test_a_step_is_the_clipped_gradient_through_adamw(model):
    training = Training(model, lambda net, ids: 3 * models.our_loss(net, ids), tokens(2, 12), OPTIONS)
    for _ in range(2):  # the second step has forgotten the gradient of the first
        fresh = torch.cat([g.flatten() for g in training.gradients().by_name.values()])
        training.step()
        found = torch.cat([p.grad.flatten() for p in model.parameters()])
        assert fresh.norm() > 1.5
        torch.testing.assert_close(found, fresh / fresh.norm(), atol=1e-6, rtol=1e-3)
    assert isinstance(training.optimizer, torch.optim.AdamW) and training.optimizer.defaults["fused"]


def test_both_have_the_same_balance_loss():
    pytest.importorskip("transformers.models.minimax")
    ids, found = tokens(2, 30), {}
    for coefficient in (0.0, 2.0):
        model = MiniM1(replace(QUICK, router_aux_loss_coef=coefficient), seed=1)
        found[coefficient] = models.our_loss(model, ids).item()
        assert models.hf_loss(models.hf_model(model), ids).item() == pytest.approx(found[coefficient], rel=1e-6)
    assert found[2.0] - found[0.0] == pytest.approx(2.0 * model(ids).aux_loss.item(), rel=1e-5)
    assert found[2.0] - found[0.0] > 2.0


def test_losses_are_those_of_the_next_token(model):
    ids = tokens(2, 7)
    for net, loss in ((MiniM1(replace(QUICK, router_aux_loss_coef=0.0), seed=1), models.our_loss),
                      (DenseGPT.like(QUICK, 7), models.dense_loss)):
        out = net(ids)
        logprobs = getattr(out, "logits", out).log_softmax(-1)
        expected = -sum(logprobs[row, t, ids[row, t + 1]] for row in range(2) for t in range(6)) / 12
        assert loss(net, ids).item() == pytest.approx(expected.item(), rel=1e-5)


def test_gradients_are_compared_by_name(model):
    exact = Training(models.in_fp64(model), models.our_loss, tokens(1, 9), OPTIONS).gradients()
    own = Training(model, models.our_loss, tokens(1, 9), OPTIONS).gradients()
    assert 0 < own.error(exact) < 1e-5
    for change in ({"lm_head.weight": 2 * own.by_name["lm_head.weight"]}, {"model.norm.weight": torch.zeros(32)}):
        assert Gradients(own.loss, own.by_name | change).error(exact) > 1e-3
    assert Gradients(own.loss * 1.01, own.by_name).error(exact) == pytest.approx(0.01, rel=0.01)
    with pytest.raises(UserError, match="parameters"):
        own.error(exact.as_hf())


def test_a_quick_comparison_of_training_steps(monkeypatch):
    pytest.importorskip("transformers.models.minimax")
    made, original = [], models.hf_model

    def recorded(model, **settings):
        made.append(settings)
        return original(model, **settings)

    monkeypatch.setattr(models, "hf_model", recorded)
    found = list(models.benchmark_train(OPTIONS))
    assert made == [{}, {"block_size": 64}] * 2
    assert [list(c.case) for c in found] == [["model", "batch", "length", *KEYS]] * 2
    assert found[0].amount == found[1].amount == 160 and found[0].case["batch"] == 2
    for comparison in found:
        assert comparison.benchmark == "train" and comparison.ours == "minim1" and comparison.skipped == {}
        assert list(comparison.timings) == ["minim1", "HF", "HF block 64", "dense"]
        assert all(0 < error < 1e-5 for error in comparison.errors.values()) and len(comparison.errors) == 4


def test_a_step_of_another_model_does_not_count(model):
    """The check of the timed step itself: it starts where the others start."""
    makers = models.training_entries(model, DenseGPT.like(QUICK, 9), tokens(1, 9), OPTIONS)
    entry = makers["minim1"]()
    loss = entry.run()
    assert entry.error(loss) < 1e-5 and entry.error(loss * 1.2) == entry.error(loss * float("nan")) == float("inf")


def test_float16_is_not_trained():
    from minim1.report.bench import rl_step

    for benchmark in (models.benchmark_train, rl_step.benchmark):
        with pytest.raises(Skip, match="float16"):
            next(benchmark(replace(OPTIONS, dtype=torch.float16)))


def test_bfloat16_is_checked_in_fp32_and_trained_under_autocast(model):
    given = model, DenseGPT.like(QUICK, 9), tokens(1, 9)
    makers = models.training_entries(*given, replace(OPTIONS, dtype=torch.bfloat16))
    for name in ("minim1", "dense"):
        plain = models.training_entries(*deepcopy(given), OPTIONS)[name]().run()
        entry = makers[name]()
        loss = entry.run()
        assert entry.error(loss) < 1e-5 and loss.item() != plain.item() == pytest.approx(loss.item(), rel=0.02)


# ------------------------------------------------------------------------------------------- generation


def test_greedy_answers_are_the_same_tokens(model, hf):
    prompts = tokens(5, 11)
    ids, logprobs = models.our_writer(model)(prompts, 20, 0.0)
    other, theirs = models.hf_writer(hf.eval())(prompts, 20, 0.0)
    assert ids.shape == (5, 31) and torch.equal(ids, other) and torch.equal(ids[:, :11], prompts)
    assert len(ids[:, 11:].unique()) > 10
    torch.testing.assert_close(logprobs, theirs, atol=1e-5, rtol=1e-5)


def test_greedy_error_sees_other_tokens_and_other_probabilities(model):
    def shifted(prompts, new_tokens, temperature):
        ids, logprobs = write(prompts, new_tokens, temperature)
        return ids, logprobs * 1.01

    def second_best(prompts, new_tokens, temperature):
        ids = prompts
        for _ in range(new_tokens):
            ids = torch.cat([ids, logits(ids)[:, -1].topk(2).indices[:, 1:]], 1)
        chosen = logits(ids)[:, -new_tokens - 1 : -1].log_softmax(-1).gather(-1, ids[:, -new_tokens:, None])
        return ids, chosen.squeeze(-1).float()

    exact, write = models.in_fp64(model), models.our_writer(model)
    logits, few = (lambda ids: exact(ids).logits), tokens(3, 8)
    assert models.greedy_error(write, logits, few) < 1e-5
    assert models.greedy_error(shifted, logits, few) == pytest.approx(0.01, rel=0.01)
    with torch.no_grad():
        assert models.greedy_error(second_best, logits, few) > 0.05


def test_sampling_is_from_the_whole_distribution_and_complete(model, hf):
    prompts, dense = tokens(8, 6), DenseGPT.like(QUICK, 90)
    writers = (
        (models.our_writer(model), lambda ids: model(ids).logits), (models.dense_writer(dense), dense),
        (models.hf_writer(hf.eval()), lambda ids: hf(ids).logits),
    )
    for write, logits in writers:
        ids = write(prompts, 80, 1.0)[0]
        assert ids.shape == (8, 86)
        with torch.no_grad():
            true = logits(ids)[:, 5:-1].softmax(-1)
        chosen = true.gather(-1, ids[:, 6:, None])
        outside = true.masked_fill(true >= true.topk(50).values[..., -1:], 0).sum(-1).mean()  # mass beyond the 50 best
        drawn = (true > chosen).sum(-1).ge(50).float().mean()
        assert drawn == pytest.approx(outside.item(), abs=0.08) and outside > 0.2
        entry = models._sampling_entry(write, 1e-7, prompts, 80)
        assert entry.error(entry.run()) == 1e-7
        assert entry.error(ids[:, :-1]) == entry.error(ids.roll(1, dims=0)) == float("inf")


def test_a_quick_comparison_of_generation():
    pytest.importorskip("transformers.models.minimax")
    found = list(models.benchmark_generate(OPTIONS))
    assert [list(c.case) for c in found] == [["model", "batch", "prompt", "new", *KEYS]] * 2
    assert [c.amount for c in found] == [24, 48]
    for comparison in found:
        assert comparison.benchmark == "generate" and comparison.skipped == {}
        assert list(comparison.timings) == ["minim1", "HF", "dense"]
        assert all(error < 1e-5 for error in comparison.errors.values()) and len(comparison.errors) == 3


def test_generation_in_bfloat16_is_checked_before_rounding(model):
    options = replace(OPTIONS, dtype=torch.bfloat16)
    makers = models.writer_makers(model, DenseGPT.like(QUICK, 30), tokens(2, 8), options)
    for name in ("minim1", "dense"):
        write, error = makers[name]()
        assert error < 1e-5 and write(tokens(2, 8), 12, 1.0)[0].shape == (2, 20)
    assert next(model.parameters()).dtype == torch.float32  # what HF's weights are copied from


# ------------------------------------------------------------------------------------------- peers that are missing


def test_transformers_may_be_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    for benchmark, peers in ((models.benchmark_train, ["HF", "HF block 64"]), (models.benchmark_generate, ["HF"])):
        comparison = next(benchmark(OPTIONS))
        assert list(comparison.skipped) == peers and "transformers" in comparison.skipped["HF"]
        assert list(comparison.timings) == ["minim1", "dense"]


def test_a_peer_that_fails_is_left_out_but_ours_may_not():
    def fail():
        raise RuntimeError("no such thing\nmore")

    found = models.gather({"HF": fail, "minim1": lambda: 1})
    assert found == ({"minim1": 1}, {"HF": "failed: RuntimeError: no such thing"})
    with pytest.raises(RuntimeError):
        models.gather({"minim1": fail})


# ------------------------------------------------------------------------------------------- the RL step


@pytest.fixture(scope="module")
def trl_step():
    """All that the benchmark makes, at quick sizes, with a reward that keeps what it saw."""
    pytest.importorskip("trl")
    from contextlib import ExitStack

    from minim1.report.bench import rl_step
    from minim1.train.rl import RLTrainer

    seen = {"minim1": [], "TRL": []}

    def reward(who):
        def record(prompts, completions, **columns):
            seen[who].append((list(prompts), columns.get("completion_ids")))
            return rl_step.spelled_reward(prompts, completions)

        return record

    with ExitStack() as stack:
        _, model, tokenizer = rl_step.starting_point(OPTIONS)
        config = rl_step.step_config(OPTIONS)
        start = deepcopy(model)
        ours = rl_step.our_trainer(model, tokenizer, config)
        ours.parts = replace(ours.parts, rewards=(reward("minim1"),))
        prompts = [problem.prompt for step in range(3) for problem in ours._problems(step)]
        ids = [rl_step.prompt_ids(tokenizer, prompt) for prompt in prompts]
        experience = rl_step.made_up_experience(model, ids, config.max_new_tokens)
        trl = rl_step.trl_trainer(model, tokenizer, config, ids, reward("TRL"), OPTIONS, stack)
        yield SimpleNamespace(**locals())


def test_policy_losses_agree(trl_step, monkeypatch):
    rl_step, made = trl_step.rl_step, trl_step.experience
    exact = rl_step.exact_loss(models.in_fp64(trl_step.start), made)
    assert rl_step.our_loss(trl_step.start, made).error(exact) < 1e-5
    assert rl_step.trl_loss(trl_step.trl, made).error(exact.as_hf()) < 1e-5
    assert trl_step.trl.aux_loss_enabled  # again: only the comparison goes without
    monkeypatch.setattr(trl_step.trl, "epsilon_high", 4.5)  # the cap matters in this experience, and the error shows it
    assert rl_step.trl_loss(trl_step.trl, made).error(exact.as_hf()) > 1e-3
    monkeypatch.setattr(rl_step, "MAX_WEIGHT", 4.5)
    assert rl_step.our_loss(trl_step.start, made).error(exact) > 1e-3
    lengths = made.mask.sum(1)
    assert lengths.min() < lengths.max() == trl_step.config.max_new_tokens  # padding takes part


def test_steps_do_the_same_work(trl_step):
    """Both: prompts of the same tokens in the same order, answers of full length, as many updates on as many rows."""
    rl_step, config, seen = trl_step.rl_step, trl_step.config, trl_step.seen
    answers = config.prompts_per_rollout * config.samples_per_prompt
    rows, threads, original = [], set(), trl_step.trl._compute_loss

    def recorded(model, inputs):
        rows.append(len(inputs["completion_ids"]))
        threads.add(torch.get_num_threads())
        return original(model, inputs)

    trl_step.trl._compute_loss = recorded
    steps = rl_step.TrlSteps(trl_step.trl, config.updates_per_rollout)
    for step in range(2):
        steps.advance()
        metrics = trl_step.ours.advance(step)
        assert metrics["updates"] == config.updates_per_rollout and metrics["trained_tokens"] == answers * 8
        assert trl_step.trl.state.global_step == (step + 1) * config.updates_per_rollout
        assert rows == [answers // config.updates_per_rollout] * config.updates_per_rollout * (step + 1)
        (ours, _), (theirs, lengths) = seen["minim1"][step], seen["TRL"][step]
        assert len(seen["TRL"]) == step + 1 and [len(ids) for ids in lengths] == [8] * answers
        expected = trl_step.prompts[2 * step : 2 * step + 2]
        assert ours == [prompt for prompt in expected for _ in range(config.samples_per_prompt)]
        read = trl_step.trl.processing_class(theirs)["input_ids"]
        assert read == [rl_step.prompt_ids(trl_step.tokenizer, prompt) for prompt in ours]
    steps.close()
    assert threads == {torch.get_num_threads()}  # its thread has no more of them than ours
    assert not steps.thread.is_alive() and len(seen["TRL"]) == 2 and trl_step.trl.state.global_step == 4
    before, after = dict(trl_step.start.named_parameters()), dict(trl_step.model.named_parameters())
    assert update(before, after).norm() > 0
    assert update(models.hf_names(before), dict(trl_step.trl.model.named_parameters())).norm() > 0


def test_settings_of_trl_are_ours(trl_step):
    config, args, trl = trl_step.config, trl_step.trl.args, trl_step.trl
    assert (args.loss_type, trl.epsilon_high, args.beta, args.num_iterations) == ("cispo", 5.0, 0.0, 1)
    assert config.policy_options == {"max_weight": 5.0}
    assert args.max_grad_norm == config.optim.clip and args.learning_rate == config.optim.learning_rate
    assert args.weight_decay == config.optim.weight_decay and args.optim == "adamw_torch_fused"
    assert (trl.temperature, trl.top_k, trl.top_p) == (config.temperature, 0, 1.0)
    assert not args.mask_truncated_completions and not args.gradient_checkpointing
    assert min(trl.eos_token_ids) >= trl_step.model.config.vocab_size  # no answer can end
    assert trl.router_aux_loss_coef * 2 == trl_step.model.config.router_aux_loss_coef  # theirs is ours x 2 experts


def test_an_error_in_the_loop_of_trl_reaches_the_caller():
    pytest.importorskip("transformers")
    from minim1.report.bench.rl_step import TrlSteps

    def train():
        raise RuntimeError("inside")

    steps = TrlSteps(SimpleNamespace(train=train, add_callback=lambda callback: None), 2)
    with pytest.raises(RuntimeError, match="inside"):
        steps.advance()
    steps.close()
    assert not steps.thread.is_alive()


def test_a_quick_comparison_of_rl_steps(capfd):
    pytest.importorskip("trl")
    from minim1.report.bench import rl_step

    (comparison,) = rl_step.benchmark(OPTIONS)
    assert comparison.benchmark == "rl" and comparison.skipped == {} and comparison.amount == 64
    assert list(comparison.timings) == ["minim1", "TRL"]
    assert all(error < 1e-5 for error in comparison.errors.values()) and len(comparison.errors) == 2
    assert comparison.case.keys() == {"model", "prompts", "samples", "updates", "prompt", "new", "parameters", "active"}
    assert capfd.readouterr().out == ""


def test_answers_of_trl_that_end_early_do_not_count(monkeypatch):
    pytest.importorskip("trl")
    from minim1.report.bench import rl_step

    class OneIsShort(rl_step.Recorder):
        def __call__(self, prompts, completions, **columns):
            rewards = super().__call__(prompts, completions, **columns)
            self.lengths[-1] -= 1
            return rewards

    monkeypatch.setattr(rl_step, "Recorder", OneIsShort)
    (comparison,) = rl_step.benchmark(OPTIONS)
    assert comparison.skipped["TRL"].startswith("wrong") and list(comparison.timings) == ["minim1"]


def test_trl_may_be_missing(monkeypatch):
    from minim1.report.bench import rl_step

    monkeypatch.setitem(sys.modules, "trl", None)
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(Dataset=None))
    pytest.importorskip("transformers")
    (comparison,) = rl_step.benchmark(OPTIONS)
    assert comparison.skipped == {"TRL": "trl is not installed"} and list(comparison.timings) == ["minim1"]


def test_steps_that_were_cut_short_do_not_count():
    """Answers that ended early, or updates left out, are less work."""
    from minim1.report.bench import rl_step

    _, model, tokenizer = rl_step.starting_point(OPTIONS)
    config = rl_step.step_config(OPTIONS)
    trainer = rl_step.our_trainer(model, tokenizer, config)
    ids = [rl_step.prompt_ids(tokenizer, problem.prompt) for problem in trainer._problems(0)]
    entry = rl_step.our_entry(trainer, rl_step.made_up_experience(model, ids, 8))
    metrics = entry.run()
    assert entry.error(metrics) < 1e-5
    for wrong in ({"updates": 1}, {"trained_tokens": 63}):
        assert entry.error(metrics | wrong) == float("inf")


def test_no_answer_of_ours_ends_early(trl_step):
    """Not even one that consists of the tokens that end answers elsewhere."""
    def stubborn(logits, **settings):
        return torch.full(logits.shape[:1], 8), torch.zeros(len(logits))

    trainer = trl_step.rl_step.our_trainer(deepcopy(trl_step.start), trl_step.tokenizer, trl_step.config)
    trainer.parts = replace(trainer.parts, sampler=stubborn)
    assert trl_step.tokenizer.decode([8]) == "<end_of_sentence>\n"
    assert trainer.advance(0)["length"] == trl_step.config.max_new_tokens


def test_prompts_of_several_lengths_are_refused(monkeypatch):
    from minim1.report.bench import rl_step

    original, extra = rl_step.prompt_ids, cycle([[], [1]])
    monkeypatch.setattr(rl_step, "prompt_ids", lambda *given: original(*given) + next(extra))
    with pytest.raises(UserError, match=r"\[10, 11\] tokens.*one length"):
        next(rl_step.benchmark(OPTIONS))
