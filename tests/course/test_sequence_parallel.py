"""A sequence cut over processes gives what one process gives, whoever waits for whom."""

import time

import pytest
import torch

from minim1 import decay_slopes, lightning_attention, workers
from minim1.course import sequence_parallel
from minim1.errors import UserError


@pytest.fixture(scope="module")
def inputs():
    random = torch.Generator().manual_seed(0)
    return *torch.randn(3, 2, 61, 4, 8, generator=random).unbind(0), decay_slopes(4, 1, 8)


@pytest.mark.parametrize("ranks", [2, 3])
def test_both_forms_equal_one_process_and_exchange_as_often_as_they_say(inputs, ranks):
    started = time.monotonic()
    results = sequence_parallel.run(*inputs, ranks=ranks)
    assert time.monotonic() - started < 60
    out, state = lightning_attention(*inputs)
    for name, exchanges in (("LASP", ranks - 1), ("LASP+", 1)):
        result = results[name]
        torch.testing.assert_close(result.out, out, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(result.state, state, rtol=1e-4, atol=1e-4)
        assert result.exchanges == exchanges and sum(result.lengths) == 61
        assert len(set(result.processes)) == ranks


def test_nothing_is_left_running_and_the_threads_are_as_before(inputs):
    torch.set_num_threads(1)
    sequence_parallel.run(*(x[:, :5] for x in inputs[:3]), inputs[3], ranks=2)
    assert torch.get_num_threads() == 1 and not torch.distributed.is_initialized()


def wait_for_rank_one(group):
    if group.rank == 1:
        raise UserError("rank 1 cannot")
    torch.distributed.recv(torch.zeros(1), src=1)


def test_a_rank_that_fails_ends_the_others():
    started = time.monotonic()
    with pytest.raises((UserError, RuntimeError)):
        workers.run(2, wait_for_rank_one, timeout=10)
    assert time.monotonic() - started < 40


def wait_for_ever(group):
    if group.rank == 0:
        torch.distributed.recv(torch.zeros(1), src=1)
    time.sleep(30)


def test_a_rank_that_never_answers_is_given_up():
    started = time.monotonic()
    with pytest.raises(RuntimeError):
        workers.run(2, wait_for_ever, timeout=2)
    assert time.monotonic() - started < 25


@pytest.mark.parametrize("ranks", [0, 1, 62])
def test_too_few_or_too_many_ranks_are_refused(inputs, ranks):
    with pytest.raises(UserError, match=f"ranks is {ranks}; expected 2 to 61"):
        sequence_parallel.run(*inputs, ranks=ranks)
