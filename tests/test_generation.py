"""Generation against the plain forward pass, and its stop rules on rigged models."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn

from minim1.errors import UserError
from minim1.generation import Sampling, generate, sample_token
from minim1.model.decoder import Output
from minim1.train.losses import token_logprobs

PROMPTS = [[1, 5, 300, 41, 17], [1, 77], [1, 5, 300, 41, 17, 99, 98, 97, 96, 95, 94], [2]]


def sharp(model, factor=6.0):
    """The tiny model with confident predictions: an untrained one is uniform, which hides mistakes."""
    with torch.no_grad():
        model.lm_head.weight *= factor
        model.model.embed_tokens.weight *= 3
    return model


class Rigged(nn.Module):
    """The next token depends on the last alone, by a table of logits (V, V); without memory but with a cache."""

    class Cache:
        def __init__(self):
            self.fed, self.kept = [], []

        def repeat(self, times):
            return self

        def select(self, rows):
            self.kept.append(int(rows.sum()))
            return self

    def __init__(self, table):
        super().__init__()
        self.table = nn.Parameter(torch.as_tensor(table, dtype=torch.float32))
        self.cache, self.modes = None, []

    def new_cache(self):
        self.cache = self.Cache()
        return self.cache

    def new_step(self):
        return lambda ids, cache: self(ids.unsqueeze(1), cache=cache).logits[:, -1]

    def forward(self, ids, *, document_ids=None, cache=None, last_only=False):
        self.modes.append(self.training)
        cache.fed.append(tuple(ids.shape))
        return Output(self.table[ids[:, -1:]], torch.zeros(()), torch.zeros(0))


def chain(*path, size=8, logit=30.0):
    """A table under which each token of the path is followed by the next, almost certainly."""
    table = torch.zeros(size, size)
    for here, there in zip(path, path[1:]):
        table[here, there] = logit
    return table


# ------------------------------------------------------------------------------------------- against the full forward


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_sampled_logprobs_are_those_of_training(make_model, temperature):
    """Unequal prompts, several samples, rows that stop early and leave the batch."""
    model = sharp(make_model())
    sampling = Sampling(max_new_tokens=24, temperature=temperature, samples_per_prompt=4, stop_ids=tuple(range(0, 420, 9)),
                        seed=3)
    rollout = generate(model, PROMPTS, sampling)
    lengths = {len(ids) for ids in rollout.completions}
    assert len(lengths) > 3 and min(lengths) < 10 and "stop" in rollout.finish  # so the batch shrank on the way
    logits = model(rollout.input_ids, document_ids=rollout.document_ids).logits.detach()
    expected = token_logprobs(logits, rollout.input_ids, temperature)
    assert (rollout.logprobs - expected)[rollout.mask].abs().max() < 1e-5
    assert (rollout.logprobs[~rollout.mask] == 0).all()
    assert len({tuple(ids) for ids in rollout.completions}) > 8


def test_with_top_p_they_are_those_of_the_truncated_distribution(make_model):
    model = sharp(make_model())
    rollout = generate(model, PROMPTS, Sampling(max_new_tokens=10, top_p=0.7, samples_per_prompt=2, seed=1))
    logits = model(rollout.input_ids, document_ids=rollout.document_ids).logits.detach()
    compared = 0
    for row, t in rollout.mask.nonzero().tolist():
        p = logits[row, t - 1].double().softmax(-1)
        order = p.argsort(descending=True)
        size = int((p[order].cumsum(0) < 0.7).sum()) + 1  # the smallest set that reaches 0.7
        inside = order[:size].tolist()
        token = int(rollout.input_ids[row, t])
        assert token in inside
        assert rollout.logprobs[row, t].item() == pytest.approx(math.log(p[token] / p[inside].sum()), abs=1e-4)
        compared += size > 1
    assert compared > 20


def test_greedy_is_the_argmax_of_full_forwards(make_model):
    model = sharp(make_model())
    rollout = generate(model, PROMPTS, Sampling(max_new_tokens=12, temperature=0))
    for prompt, completion in zip(PROMPTS, rollout.completions):
        ids = list(prompt)
        for _ in range(12):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        assert completion == ids[len(prompt):]


def test_the_rollout_holds_prompt_answer_and_padding(make_model):
    model = sharp(make_model())
    rollout = generate(model, PROMPTS, Sampling(max_new_tokens=9, samples_per_prompt=2, stop_ids=tuple(range(0, 420, 5))))
    width = rollout.input_ids.shape[1]
    assert {tuple(getattr(rollout, name).shape) for name in ("input_ids", "mask", "logprobs", "document_ids")} == {(8, width)}
    assert rollout.mask.dtype == torch.bool and rollout.logprobs.dtype == torch.float32
    for row in range(8):
        prompt, completion = PROMPTS[row // 2], rollout.completions[row]
        start, end = len(prompt), len(prompt) + len(completion)
        assert rollout.input_ids[row, :end].tolist() == prompt + completion
        assert rollout.mask[row].tolist() == [start <= t < end for t in range(width)]
        assert rollout.document_ids[row].tolist() == [0 if t < end else -1 for t in range(width)]
    assert max(len(PROMPTS[r // 2]) + len(c) for r, c in enumerate(rollout.completions)) == width


def test_the_answers_to_a_prompt_do_not_depend_on_the_other_prompts(make_model):
    model = sharp(make_model())
    together = generate(model, PROMPTS, Sampling(max_new_tokens=8, temperature=0)).completions
    alone = [generate(model, [prompt], Sampling(max_new_tokens=8, temperature=0)).completions[0] for prompt in PROMPTS]
    assert together == alone


def test_generations_may_interleave(make_model):
    model, inner = sharp(make_model()), []
    first, second = Sampling(max_new_tokens=8, seed=1), Sampling(max_new_tokens=5, seed=2)

    def meanwhile(_):
        inner.append(generate(model, PROMPTS[2:], second).completions)

    outer = generate(model, PROMPTS[:2], first, on_token=meanwhile)
    assert outer.completions == generate(model, PROMPTS[:2], first).completions
    assert len(inner) == 8 and all(found == generate(model, PROMPTS[2:], second).completions for found in inner)


def test_the_same_seed_gives_the_same_answers_whatever_happened_before(make_model):
    model, sampling = sharp(make_model()), Sampling(max_new_tokens=8, samples_per_prompt=3, seed=5)
    first = generate(model, PROMPTS, sampling)
    torch.manual_seed(99), torch.rand(7)
    global_state = torch.get_rng_state()
    again = generate(model, PROMPTS, sampling)
    assert torch.equal(global_state, torch.get_rng_state())  # and the global generator is left alone
    assert torch.equal(first.input_ids, again.input_ids) and torch.equal(first.logprobs, again.logprobs)
    assert generate(model, PROMPTS, replace(sampling, seed=6)).completions != first.completions


def test_prompts_are_not_mutated(make_model):
    prompts = [list(prompt) for prompt in PROMPTS]
    generate(make_model(), prompts, Sampling(max_new_tokens=3, samples_per_prompt=2))
    assert prompts == PROMPTS


# ------------------------------------------------------------------------------------------- sampling


def test_samples_follow_the_distribution():
    """Pearson's chi-square; 27.9 is exceeded by chance once in 100,000 (4 degrees of freedom); the seed is fixed."""
    probabilities = torch.tensor([0.5, 0.25, 0.15, 0.07, 0.03])
    for temperature in (1.0, 2.0):
        expected = (probabilities.log() / temperature).softmax(-1) * 20_000
        ids, logprobs = sample_token(
            probabilities.log().expand(20_000, 5), temperature=temperature, generator=torch.Generator().manual_seed(0)
        )
        counts = torch.bincount(ids, minlength=5)
        assert ((counts - expected).square() / expected).sum() < 27.9
        assert torch.allclose(logprobs, (expected / 20_000).log()[ids], atol=1e-5)


def test_sampled_sequences_follow_the_chain():
    table = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3], [0.25, 0.25, 0.5]])
    rollout = generate(Rigged(table.log()), [[0]], Sampling(max_new_tokens=3, samples_per_prompt=8000, seed=1))
    counts = Counter(map(tuple, rollout.completions))
    chi = 0.0
    for a in range(3):
        for b in range(3):
            for c in range(3):
                expected = 8000 * float(table[0, a] * table[a, b] * table[b, c])
                chi += (counts[a, b, c] - expected) ** 2 / expected
    assert chi < 62  # 26 degrees of freedom: once in 10,000


def test_rows_are_drawn_independently():
    ids, _ = sample_token(torch.zeros(64, 50), generator=torch.Generator().manual_seed(0))
    assert len(ids.unique()) > 25


def test_top_p_keeps_the_smallest_set_that_reaches_it():
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log().expand(4000, 4)
    for top_p, support in ((0.39, {0}), (0.4 - 1e-6, {0}), (0.41, {0, 1}), (0.69, {0, 1}), (0.75, {0, 1, 2}), (0.95, {0, 1, 2, 3})):
        ids, logprobs = sample_token(logits, top_p=top_p, generator=torch.Generator().manual_seed(0))
        assert set(ids.tolist()) == support
        kept = sum([0.4, 0.3, 0.2, 0.1][i] for i in support)
        assert logprobs[ids == 0][0].exp().item() == pytest.approx(0.4 / kept, rel=1e-4)


def test_top_p_never_leaves_nothing():
    ids, logprobs = sample_token(torch.tensor([[9.0, 0.0, 0.0]]), top_p=1e-9, generator=torch.Generator().manual_seed(0))
    assert ids.tolist() == [0] and logprobs.item() == pytest.approx(0, abs=1e-6)


def test_impossible_tokens_are_never_drawn():
    logits = torch.full((5000, 6), -math.inf)
    logits[:, [1, 4]] = 0.0
    ids, logprobs = sample_token(logits, generator=torch.Generator().manual_seed(2))
    assert set(ids.tolist()) == {1, 4} and logprobs.isfinite().all()


@pytest.mark.parametrize("uniform, token", [(0.0, 1), (1 - 2**-24, 4)])  # the smallest and the largest torch.rand
def test_also_at_the_edges_of_the_uniform_draw(uniform, token, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.full(shape, uniform))
    logits = torch.tensor([[-math.inf, 0.0, -math.inf, 0.3, 0.1, -math.inf]])
    assert sample_token(logits)[0].tolist() == [token]


def test_temperature_zero_reports_the_untempered_probability():
    ids, logprobs = sample_token(torch.tensor([[0.0, 1.0, 0.5]]), temperature=0)
    assert ids.tolist() == [1]
    assert logprobs.item() == pytest.approx(torch.tensor([0.0, 1.0, 0.5]).log_softmax(-1)[1].item())


def test_the_sampler_is_asked_with_the_contract_of_the_part():
    calls = []

    def sampler(logits, *, temperature, top_p, generator):
        calls.append((tuple(logits.shape), temperature, top_p, type(generator)))
        return torch.full((len(logits),), 3), torch.full((len(logits),), -0.5)

    sampling = Sampling(max_new_tokens=2, temperature=0.9, top_p=0.8, samples_per_prompt=2)
    rollout = generate(Rigged(torch.zeros(5, 5)), [[1], [2]], sampling, sampler=sampler)
    assert calls == [((4, 5), 0.9, 0.8, torch.Generator)] * 2
    assert rollout.completions == [[3, 3]] * 4 and rollout.logprobs[rollout.mask].tolist() == [-0.5] * 8


# ------------------------------------------------------------------------------------------- stop rules


def test_a_stop_token_ends_an_answer_and_belongs_to_it():
    rollout = generate(Rigged(chain(1, 2, 3, 4)), [[1], [2], [3]], Sampling(max_new_tokens=6, stop_ids=(4, 0)))
    assert rollout.completions[0] == [2, 3, 4] and rollout.completions[1] == [3, 4] and rollout.completions[2] == [4]
    assert rollout.finish == ["stop"] * 3
    assert rollout.mask.sum(1).tolist() == [3, 2, 1]


def test_without_a_stop_an_answer_is_as_long_as_allowed():
    rollout = generate(Rigged(chain(1, 2, 1)), [[1]], Sampling(max_new_tokens=5, stop_ids=(7,)))
    assert rollout.completions == [[2, 1, 2, 1, 2]] and rollout.finish == ["length"]


def test_finished_rows_leave_the_batch_and_decoding_stops_with_the_last():
    model = Rigged(chain(1, 2, 3, 4, 5, 0, logit=60))
    generate(model, [[1], [5], [4], [3]], Sampling(max_new_tokens=50, stop_ids=(0,)))
    assert [rows for rows, _ in model.cache.fed] == [4, 3, 2, 1, 1]  # the prompts, then those still running
    assert model.cache.kept == [3, 2, 1]


def test_confident_repetition_is_cut():
    """M1's rule (report §3.2): so many consecutive tokens, each with probability > 0.99."""
    table = chain(1, 2, 2)
    table[3, [3, 4]] = table[4, [3, 4]] = 30.0  # one or the other: never certain, never cut
    sampling = Sampling(max_new_tokens=20, repetition_window=6, seed=0)
    rollout = generate(Rigged(table), [[1], [3]], sampling)
    assert rollout.finish == ["repetition", "length"]
    assert rollout.completions[0] == [2] * 6 and len(rollout.completions[1]) == 20
    assert rollout.mask[0].sum() == 6
    assert generate(Rigged(table), [[1]], Sampling(max_new_tokens=20)).finish == ["length"]  # switched off


def test_an_uncertain_token_starts_the_count_again():
    table = chain(1, 2, 3, 4, 5, 1)
    table[3, 4] = 1.0  # one uncertain token in each round of five
    rollout = generate(Rigged(table), [[1]], Sampling(max_new_tokens=30, repetition_window=6, seed=1), sampler=_greedy)
    assert rollout.finish == ["length"]
    assert generate(
        Rigged(table), [[1]], Sampling(max_new_tokens=30, repetition_window=4, seed=1), sampler=_greedy
    ).finish == ["repetition"]


def _greedy(logits, **_):
    return sample_token(logits, temperature=0)


def test_a_stop_token_wins_over_repetition():
    rollout = generate(Rigged(chain(1, 2, 3)), [[1]], Sampling(max_new_tokens=9, repetition_window=2, stop_ids=(3,)))
    assert rollout.finish == ["stop"] and rollout.completions == [[2, 3]]


THINK, CLOSE, END = 5, 6, 7


def thinker():
    """<think> 1 2 1 2 ... for ever; after </think> it says 3 and ends."""
    table = chain(THINK, 1, 2, 1)
    table[CLOSE, 3] = table[3, END] = table[0, THINK] = 30.0
    return table


def test_the_budget_closes_the_thinking_by_force():
    sampling = Sampling(max_new_tokens=20, stop_ids=(END,), think_id=THINK, end_think_id=CLOSE, thinking_budget=4)
    rollout = generate(Rigged(thinker()), [[0]], sampling)
    assert rollout.completions == [[THINK, 1, 2, 1, 2, CLOSE, 3, END]] and rollout.finish == ["stop"]
    forced = 1 + rollout.completions[0].index(CLOSE)
    assert [t for t in range(1, 9) if not rollout.mask[0, t]] == [forced]
    assert rollout.logprobs[0, forced] == 0


@pytest.mark.parametrize("budget", [0, 1, 3])
def test_the_budget_counts_the_tokens_between_the_tags(budget):
    sampling = Sampling(max_new_tokens=20, stop_ids=(END,), think_id=THINK, end_think_id=CLOSE, thinking_budget=budget)
    completion = generate(Rigged(thinker()), [[0]], sampling).completions[0]
    assert completion.index(CLOSE) - 1 == budget


def test_thinking_that_closes_itself_is_left_alone():
    table = thinker()
    table[2, 1], table[2, CLOSE] = 0.0, 30.0
    sampling = Sampling(max_new_tokens=20, stop_ids=(END,), think_id=THINK, end_think_id=CLOSE, thinking_budget=2)
    rollout = generate(Rigged(table), [[0]], sampling)
    assert rollout.completions == [[THINK, 1, 2, CLOSE, 3, END]]
    assert rollout.mask[0, 1:].all()


def test_an_answer_that_opens_no_thinking_is_never_closed():
    sampling = Sampling(max_new_tokens=12, stop_ids=(END,), think_id=THINK, end_think_id=CLOSE, thinking_budget=3)
    rollout = generate(Rigged(chain(1, 2, 1)), [[1]], sampling)
    assert CLOSE not in rollout.completions[0] and rollout.mask[0, 1:].all()


def test_thinking_opened_by_the_prompt_counts_too():
    sampling = Sampling(max_new_tokens=20, stop_ids=(END,), think_id=THINK, end_think_id=CLOSE, thinking_budget=3)
    rollout = generate(Rigged(thinker()), [[0, THINK]], sampling)
    assert rollout.completions == [[1, 2, 1, CLOSE, 3, END]]
    closed = generate(Rigged(thinker()), [[0, THINK, 1, CLOSE]], sampling)
    assert closed.completions == [[3, END]]


def test_budgets_are_counted_row_by_row():
    sampling = Sampling(max_new_tokens=20, stop_ids=(END,), think_id=THINK, end_think_id=CLOSE, thinking_budget=2)
    rollout = generate(Rigged(thinker()), [[3], [0], [0, THINK, 1, CLOSE], [0, THINK]], sampling)
    assert rollout.completions == [[END], [THINK, 1, 2, CLOSE, 3, END], [3, END], [1, 2, CLOSE, 3, END]]


def test_new_tokens_of_the_first_row_are_streamed():
    seen = []
    rollout = generate(
        Rigged(chain(1, 2, 3, 4)), [[1], [3]], Sampling(max_new_tokens=9, stop_ids=(4,)), on_token=seen.append
    )
    assert seen == rollout.completions[0] == [2, 3, 4]


# ------------------------------------------------------------------------------------------- manners


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_is_put_back(training):
    model = Rigged(torch.zeros(4, 4)).train(training)
    generate(model, [[1]], Sampling(max_new_tokens=2))
    assert model.training is training and model.modes == [False, False]


@pytest.mark.parametrize("training", [True, False])
def test_also_after_an_exception(training):
    model = Rigged(torch.zeros(4, 4)).train(training)

    def broken(logits, **_):
        raise RuntimeError("a programming error")

    with pytest.raises(RuntimeError, match="a programming error"):
        generate(model, [[1]], Sampling(), sampler=broken)
    assert model.training is training


def test_no_graph_is_built(make_model):
    assert not generate(make_model(), [[1]], Sampling(max_new_tokens=2)).logprobs.requires_grad


@pytest.mark.parametrize("prompts", [[], [[]], [[1, 2], []]])
def test_an_empty_prompt_is_refused(make_model, prompts):
    with pytest.raises(UserError, match="prompt"):
        generate(make_model(), prompts, Sampling())


@pytest.mark.parametrize("wrong", [
    dict(temperature=-0.1), dict(temperature=math.nan), dict(top_p=0.0), dict(top_p=1.1), dict(top_p=-1.0),
    dict(max_new_tokens=0), dict(samples_per_prompt=0), dict(thinking_budget=3),
    dict(thinking_budget=3, end_think_id=CLOSE), dict(thinking_budget=-1, think_id=THINK, end_think_id=CLOSE),
    dict(repetition_window=-1),
])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Sampling(**wrong)


def test_the_public_name_stays_a_function():
    """A module of the same name would take its place in the package as soon as anything imports it."""
    import importlib

    import minim1

    for name, home in minim1._HOMES.items():
        importlib.import_module(f"minim1.{home}")
        assert not isinstance(getattr(minim1, name), type(minim1)), f"minim1.{name} is a module"
