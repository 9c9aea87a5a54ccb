"""Chapter 03: the package's own functions pass the checks, whatever stands in their place, and mistakes get their sentence."""

import pytest
import torch

import minim1
from minim1.course.checking import run_check
from minim1.course.checks import find, oracles
from minim1.model import lightning
from tests import mutants
from tests.mutants.chapter_03 import MUTANTS

SEEDS = (0, 1, 2, 3)


def verdict(exercise_id, function):
    return run_check(find(exercise_id), function, SEEDS)


def quadratic(q, k, v, slopes):
    weights = oracles.pair_weights(slopes, q.shape[1]).to(q.dtype)
    return torch.einsum("bihd,bjhd,hij,bjhe->bihe", q, k, weights, v)


def recurrent(q, k, v, slopes, state=None):
    out, end = oracles.attention(q, k, v, slopes, state)
    return out.to(q.dtype), end.to(q.dtype)


def slopes(num_heads, layer, num_layers):
    return oracles.slopes(num_heads, layer, num_layers).float()


RIGHT = {"3.1": quadratic, "3.2": recurrent, "3.3": slopes,
         "3.4": lambda slopes, fraction=0.5: -torch.tensor(fraction, dtype=slopes.dtype).log() / slopes}


@pytest.mark.parametrize("backend", ["recurrent", "quadratic", "chunked", "fast"])
def test_every_form_of_the_package_passes_as_quadratic_and_as_recurrent(backend):
    def form(q, k, v, slopes, state=None):
        return minim1.lightning_attention(q, k, v, slopes, state=state, backend=backend)

    for result in (verdict("3.1", lambda *inputs: form(*inputs)[0]), verdict("3.2", form)):
        assert result.status == "passed", result


def test_the_slopes_of_the_package_pass():
    assert verdict("3.3", minim1.decay_slopes).status == "passed"


@pytest.mark.parametrize("exercise_id", RIGHT)
def test_what_stands_in_for_the_learner_passes(exercise_id):
    assert verdict(exercise_id, find(exercise_id).reference()).status == "passed"


@pytest.mark.parametrize("exercise_id", RIGHT)
def test_a_broken_package_changes_no_verdict(exercise_id, monkeypatch):
    for name in ("decay_slopes", "lightning_attention", "lightning_recurrent", "lightning_quadratic", "lightning_chunked"):
        monkeypatch.setattr(lightning, name, lambda *inputs, **options: pytest.fail("a check called the package"))
    assert verdict(exercise_id, RIGHT[exercise_id]).status == "passed"
    assert verdict(exercise_id, lambda *inputs, **options: torch.zeros(2)).status == "wrong"


@pytest.mark.parametrize("exercise_id", RIGHT)
@pytest.mark.parametrize("given", [
    None, "text", torch.tensor(torch.nan), torch.ones(1, 2), torch.ones(4).long(), (1, 2), [None, None], (None, None),
])
def test_a_useless_answer_gets_a_sentence(exercise_id, given):
    result = verdict(exercise_id, lambda *inputs, **options: given)
    assert result.status == "wrong" and result.layer in ("type", "shape", "finite")
    assert result.sentence[-1] in ".?" and "\n" not in result.sentence


@pytest.mark.parametrize("exercise_id", RIGHT)
def test_nan_is_found_where_it_stands(exercise_id):
    def spoiled(*inputs, **options):
        result = RIGHT[exercise_id](*inputs, **options)
        x = result[0] if isinstance(result, tuple) else result
        x = torch.where(torch.arange(x.numel()).view(x.shape) == x.numel() - 1, torch.nan, x)
        return (x, *result[1:]) if isinstance(result, tuple) else x

    result = verdict(exercise_id, spoiled)
    assert result.layer == "finite" and "NaN" in result.sentence


def test_the_same_inputs_whoever_draws_random_numbers():
    drawn = []
    for _ in range(2):
        torch.rand(7)
        verdict("3.1", lambda q, k, v, slopes: drawn.append(q) or quadratic(q, k, v, slopes))
    half = len(drawn) // 2
    assert all(torch.equal(a, b) for a, b in zip(drawn[:half], drawn[half:]))


@pytest.mark.parametrize("exercise_id", RIGHT)
def test_every_mutant_is_rejected_and_three_mistakes_and_more_have_their_own_sentence(exercise_id):
    notebook = mutants.solution_notebook(exercise_id)
    results = {mutant.name: mutants.run(exercise_id, mutant, notebook) for mutant in MUTANTS[exercise_id]}
    assert [name for name, result in results.items() if result.status != "wrong"] == []
    general = ("is not as expected", "raised", "has shape", "No gradient", "returned", " is float", " is a list")
    own = {result.sentence for result in results.values() if not any(words in result.sentence for words in general)}
    assert len(own) >= 3


def test_overflow_above_the_diagonal_is_named():
    def overflowing(q, k, v, slopes):
        time = torch.arange(q.shape[1], dtype=q.dtype)
        distance = time[:, None] - time
        weights = torch.exp(-slopes.to(q.dtype)[:, None, None] * distance) * (distance >= 0)
        return torch.einsum("bihd,bjhd,hij,bjhe->bihe", q, k, weights, v)

    result = verdict("3.1", overflowing)
    assert result.layer == "edge case" and "150 tokens" in result.sentence


def test_slow_heads_are_not_forgiven_the_detour_over_exp():
    result = verdict("3.4", lambda s, fraction=0.5: torch.tensor(fraction).log() / torch.exp(-s).log())
    assert result.layer == "edge case" and "slope" in result.sentence
