"""Chapter 10: unusual right solutions pass, and the experiment's arms differ in what they say they differ in."""

import math

import pytest
import torch

from minim1.course.checking import run_check
from minim1.course.checks import find
from minim1.evaluate import heldout_problems
from minim1.report.experiments import sft
from minim1.tasks.pair import WAIT


def by_places(segments):
    """Exercise 10.1 without a loop over tokens."""
    ids = [token for tokens, _ in segments for token in tokens]
    signs = torch.tensor([bool(sign) for tokens, sign in segments for _ in tokens], dtype=torch.bool)
    place, tokens = torch.arange(len(ids)), torch.tensor(ids, dtype=torch.int64)

    def last(token):
        found = torch.where(tokens == token, place, -1)
        return torch.cat([torch.tensor([-1]), found.cummax(0).values[:-1]]) if ids else found

    return ids, ((last(6) > last(8)) & signs).int().tolist()


def with_lgamma(right, samples, k):
    """Exercise 10.3 in logarithms."""
    def log_choose(n, k):
        return torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)

    n, k = (torch.tensor(x, dtype=torch.float64) for x in (samples, k))
    return 1 - (log_choose(n - right, k) - log_choose(n, k)).exp()


def with_whole_numbers(right, samples, k):
    return torch.tensor([1 - math.comb(samples - c, k) / math.comb(samples, k) for c in right.tolist()]).double()


@pytest.mark.parametrize("exercise, function", [("10.1", by_places), ("10.3", with_lgamma)])
def test_unusual_right_solutions_pass(exercise, function):
    result = run_check(find(exercise), function, (0, 1, 2))
    assert result.status == "passed", result.sentence


def test_whole_numbers_turned_into_fp32_on_the_way_are_found():
    assert "few digits" in run_check(find("10.3"), with_whole_numbers).sentence


def test_arms_differ_in_the_loss_of_one_token(tokenizer):
    (wait,) = tokenizer.encode(WAIT)
    documents = {name: [] for name in sft.ARMS}
    for seed, problem in enumerate(heldout_problems("pair", 40)):
        for name, arm in sft.ARMS.items():
            documents[name].append(sft.document(tokenizer, arm, problem, seed))
    lost = {name: {ids[t] for (ids, mask), (_, other) in zip(documents["as shipped"], documents[name])
                   for t in range(len(ids)) if mask[t] != other[t]} for name in ("without the end", "every wait")}
    assert lost == {"without the end": {tokenizer.eos_id}, "every wait": {wait}}
    assert [ids for ids, _ in documents["every wait"]] == [ids for ids, _ in documents["as shipped"]]
