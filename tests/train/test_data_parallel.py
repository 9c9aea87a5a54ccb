"""Two gloo workers give what one process gives, and fail in one sentence when one of them fails."""

import os
import signal
import time

import pytest
import torch

from minim1 import workers
from minim1.data.packing import Batch, pack_documents
from minim1.data.tokenizer import Tokenizer
from minim1.errors import UserError
from minim1.evaluate import bits_per_byte, evaluate, task_sampling
from minim1.model.decoder import MiniM1
from minim1.tasks import SYMBOLS
from minim1.train.loop import Trainer
from minim1.train.rl import Experience, RLTrainer
from minim1.train.settings import OptimConfig, RLConfig, StageConfig
from minim1.workers import Workers

INTERRUPT = signal.getsignal(signal.SIGINT)  # when this module is imported, in a worker before its function is called

# eps 1e-8: with 1e-15 the sign of a gradient that is zero but for rounding would move its weight by a full step.
OPTIM = OptimConfig(learning_rate=1e-3, eps=1e-8)


def tiny(config, seed=0):
    return MiniM1(config, seed=seed)


def rows(count):
    """A batch of `count` rows: packed documents of unequal length, padding, targets in a part of them."""
    generator = torch.Generator().manual_seed(count)

    def batch_at(step):
        documents = []
        for index in range(3 * count):
            length = int(torch.randint(2, 9, (1,), generator=generator))
            ids = torch.randint(20, 400, (length,), generator=generator).tolist()
            documents.append((ids, [int(index % 4 != 0)] * length))
        packed = [pack_documents(documents[3 * i : 3 * i + 3], 24, pad_id=0).slice([0]) for i in range(count)]
        return Batch.cat(packed)

    return batch_at


def experience(count, width=14):
    generator = torch.Generator().manual_seed(7)
    mask, documents = torch.zeros(count, width, dtype=torch.bool), torch.full((count, width), -1)
    for row in range(count):
        end = width - 2 * (row % 4)
        documents[row, :end] = 0
        mask[row, 4:end] = True
    advantages = torch.randn(count, 1, generator=generator).expand(count, width)
    old = -2.0 - torch.rand(count, width, generator=generator)
    return Experience(torch.randint(20, 400, (count, width), generator=generator), documents, old, advantages, mask)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def fit_text(config, shared, count):
    model = tiny(config)
    trainer = Trainer(model, rows(count), StageConfig(steps=3, optim=OPTIM, micro_rows=2), workers=shared, quiet=True)
    metrics = [trainer.advance(step) for step in range(3)]
    return weights(model), metrics[0]


def fit_rl(config, shared, count):
    model = tiny(config)
    settings = RLConfig(steps=2, optim=OPTIM, updates_per_rollout=1, micro_rows=2)
    trainer = RLTrainer(model, small_tokenizer(), settings, workers=shared, quiet=True)
    everything = experience(count)
    for step in range(2):
        mine = everything.rows(torch.arange(count)[shared.rank :: shared.size])
        metrics = trainer._learn(step, mine)
        if step == 0:
            first = metrics
    return weights(model), first


def small_tokenizer():
    return Tokenizer.train(["def f(x):\n    return x\n" * 5], 400, SYMBOLS)


def evaluated(config, shared):
    model, tokenizer = tiny(config), small_tokenizer()
    sampling = task_sampling(tokenizer, max_new_tokens=3, temperature=0)
    scores = evaluate(model, tokenizer, ["add", "sort"], count=5, sampling=sampling, workers=shared)
    return scores, bits_per_byte(model, tokenizer, rows(5)(0), workers=shared)


def everything(shared: Workers, config) -> dict:
    found = {
        "text": fit_text(config, shared, 5), "one row": fit_text(config, shared, 1),
        "rl": fit_rl(config, shared, 5), "rl, one row": fit_rl(config, shared, 1),
        "evaluation": evaluated(config, shared),
        "ranks": shared.gather(shared.rank), "share": shared.gather(shared.share(list("abcde"))),
        "sum": shared.sum(torch.tensor([1.0, shared.rank])).tolist(), "max": shared.max(torch.tensor([shared.rank])).tolist(),
        "threads": shared.gather(torch.get_num_threads()), "ignored": shared.gather(INTERRUPT is signal.SIG_IGN),
    }
    found["all weights"] = shared.gather(found["text"][0])
    return found


@pytest.fixture(scope="module")
def config(make_model):
    # no balance loss: it is a product of means, so only the language model loss is independent of the split
    return make_model(vocab_size=400, router_aux_loss_coef=0.0).config


@pytest.fixture(scope="module")
def both(config):
    return everything(Workers(), config), workers.run(2, everything, config)


@pytest.mark.parametrize("what", ["text", "one row", "rl", "rl, one row"])
def test_weights_and_metrics_equal_those_of_one_process(both, what):
    """5 rows are shared 3 to 2; of 1 row the second worker has none, and takes part all the same."""
    (alone, metrics), (together, shared_metrics) = both[0][what], both[1][what]
    assert (alone - together).abs().max() < 1e-6
    assert metrics.keys() == shared_metrics.keys()
    for name, value in metrics.items():
        if name in ("aux_loss", "load_entropy"):  # means of micro-batches
            continue
        assert shared_metrics[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_the_steps_did_something(both, config):
    start = weights(tiny(config))
    for what in ("text", "one row", "rl", "rl, one row"):
        assert (both[0][what][0] - start).abs().max() > 1e-4


def test_all_workers_end_with_the_same_weights(both):
    first, second = both[1]["all weights"]
    assert torch.equal(first, second)


def test_evaluation_is_shared(both):
    assert both[0]["evaluation"][0] == both[1]["evaluation"][0]
    assert both[0]["evaluation"][1] == pytest.approx(both[1]["evaluation"][1], rel=1e-6)


def test_what_workers_exchange(both):
    alone, together = both
    assert together["ranks"] == [0, 1] and alone["ranks"] == [0]
    assert together["share"] == [["a", "c", "e"], ["b", "d"]] and alone["share"] == [list("abcde")]
    assert together["sum"] == [2.0, 1.0] and together["max"] == [1] and alone["sum"] == [1.0, 0.0]
    assert together["threads"] == [1, 1]


def test_ctrl_c_is_worker_0s_affair_from_the_first_moment_on(both):
    """A terminal sends it to all processes, also to one that is still importing torch."""
    assert both[1]["ignored"] == [False, True]


def mistake_of_the_first(shared: Workers):
    if shared.main:
        raise UserError("the disk is full")
    shared.sum(torch.ones(1))  # would wait for ever


def mistake_of_all(shared: Workers):
    raise UserError("the same everywhere")


def mistake_of_the_second(shared: Workers):
    if not shared.main:
        raise UserError("only here")
    shared.sum(torch.ones(1))


def error_of_the_second(shared: Workers):
    if not shared.main:
        raise KeyError("a programming error")
    shared.sum(torch.ones(1))


@pytest.mark.parametrize("function, sentence", [
    (mistake_of_the_first, "the disk is full"), (mistake_of_the_second, "only here"), (mistake_of_all, "the same"),
])
def test_a_users_mistake_is_told_once_and_at_once(function, sentence, capfd):
    began = time.perf_counter()
    with pytest.raises(UserError, match=sentence):
        workers.run(2, function)
    assert time.perf_counter() - began < 20
    assert capfd.readouterr().err == ""  # the other worker says nothing


def test_a_programming_error_of_another_worker_is_shown_and_ends_the_run(capfd):
    began = time.perf_counter()
    with pytest.raises(RuntimeError, match="another worker failed"):
        workers.run(2, error_of_the_second)
    assert time.perf_counter() - began < 20
    shown = capfd.readouterr().err
    assert shown.count("Traceback") == 1 and "a programming error" in shown


def test_one_worker_stays_in_this_process():
    assert workers.run(1, lambda shared, value: (os.getpid(), shared, value), 3) == (os.getpid(), Workers(), 3)


def test_default_count():
    assert 1 <= workers.default_count(torch.device("cpu")) <= 4
    assert workers.default_count(torch.device("cuda")) == 1
