"""The checks of chapter 02 accept what is right, whoever wrote it, and say what is wrong with what is not."""

import math
import re

import pytest
import torch
import torch.nn.functional as F

import minim1.model.softmax as package
from minim1.course.checking import run_check
from minim1.course.checks import find
from minim1.course.checks import softmax_attention as checks
from minim1.course.figures import softmax_attention as figures
from minim1.report.experiments import partial_rope
from tests.mutants import SEEDS, Mutant, run
from tests.mutants.chapter_02 import MUTANTS

IDS = [exercise.id for exercise in checks.EXERCISES]


def fused(q, k, v, *, mask=None):
    queries, keys = q.shape[1], k.shape[1]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    seen = torch.ones(1, queries, keys, dtype=torch.bool).tril(keys - queries) if mask is None else mask
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None], enable_gqa=True)
    return torch.where(seen.any(-1)[:, None, :, None], out, 0).transpose(1, 2)


def cleaned(q, k, v, *, mask=None):
    """-inf, NaN where nothing is seen, and nan_to_num before the sum."""
    batch, queries, heads, dim = q.shape
    q = q.view(batch, queries, k.shape[2], -1, dim)
    scores = torch.einsum("btkgd,bskd->bkgts", q, k) * dim**-0.5
    if mask is None:
        mask = (torch.arange(k.shape[1]) <= torch.arange(queries)[:, None] + k.shape[1] - queries).expand(batch, -1, -1)
    weights = scores.masked_fill(~mask[:, None, None], -math.inf).softmax(-1).nan_to_num()
    return torch.einsum("bkgts,bskd->btkgd", weights, v).reshape(batch, queries, heads, dim)


def one_by_one(q, k, v, *, mask=None):
    """Loops, and a running maximum and sum as in FlashAttention."""
    before, group, rows = k.shape[1] - q.shape[1], q.shape[2] // k.shape[2], []
    for b in range(q.shape[0]):
        for i in range(q.shape[1]):
            for h in range(q.shape[2]):
                top, total, value = torch.tensor(-math.inf, dtype=q.dtype), 0 * q[b, i, h, 0], 0 * q[b, i, h]
                for j in range(k.shape[1]):
                    if j > i + before if mask is None else not mask[b, i, j]:
                        continue
                    score = q[b, i, h] @ k[b, j, h // group] / q.shape[3] ** 0.5
                    new = torch.maximum(top, score.detach())
                    old, weight = torch.exp(top - new), torch.exp(score - new)
                    total, value, top = total * old + weight, value * old + weight * v[b, j, h // group], new
                rows.append(value / total if total > 0 else value)
    return torch.stack(rows).view(q.shape)


def by_complex_numbers(x, positions, *, rotary_dim, theta):
    wide = x if x.dtype == torch.float64 else x.float()
    half = rotary_dim // 2
    exponents = torch.arange(half, dtype=wide.dtype) / half
    angles = positions[..., None, None] / torch.tensor(theta, dtype=wide.dtype) ** exponents
    points = torch.complex(wide[..., :half].contiguous(), wide[..., half:rotary_dim].contiguous())
    points = points * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([points.real, points.imag, wide[..., rotary_dim:]], -1).to(x.dtype)


def by_rotate_half(x, positions, *, rotary_dim, theta):
    """As in `transformers`: x cos + rotate_half(x) sin, with tables twice as wide."""
    if not rotary_dim:
        return x.clone()
    dtype = torch.promote_types(x.dtype, torch.float32)
    inverse = 1.0 / (theta ** (torch.arange(0, rotary_dim, 2).to(dtype) / rotary_dim))
    angles = torch.einsum("bt,i->bti", positions.to(dtype), inverse)
    cos, sin = (torch.cat([table, table], -1).unsqueeze(2) for table in (angles.cos(), angles.sin()))
    part, rest = x[..., :rotary_dim], x[..., rotary_dim:]
    first, second = part.chunk(2, -1)
    return torch.cat([(part * cos + torch.cat([-second, first], -1) * sin).type_as(x), rest], -1)


def in_a_new_buffer(q, k, v, keys, values):
    grown = [old.new_empty(old.shape[0], old.shape[1] + 1, *old.shape[2:]) for old in (keys, values)]
    for new, old, token in zip(grown, (keys, values), (k, v)):
        new[:, :-1], new[:, -1:] = old, token
    return [fused(q, *grown), *grown]


def by_a_loop(attn_type_list, num_key_value_heads, head_dim, bytes_per_number):
    total = 0
    for kind in attn_type_list:
        total += (kind == 1) * (head_dim + head_dim) * num_key_value_heads * bytes_per_number
    return total


@pytest.mark.parametrize("exercise_id, function", [
    ("2.1", fused), ("2.1", cleaned), ("2.1", one_by_one), ("2.2", by_complex_numbers), ("2.2", by_rotate_half),
    ("2.3", in_a_new_buffer), ("2.4", by_a_loop),
])
def test_right_but_unusual_solutions_pass(exercise_id, function):
    result = run_check(find(exercise_id), function, SEEDS[:2])
    assert result.status == "passed", result


def test_a_broken_package_changes_no_verdict(solutions, notebook, monkeypatch):
    wrong = Mutant("", "/ q.shape[-1] ** 0.5", "")
    before = run("2.1", wrong, notebook)
    for name in ("softmax_attention", "rotary"):
        monkeypatch.setattr(package, name, lambda *a, **options: 1 / 0)
        monkeypatch.setattr(checks, name, lambda *a, **options: 1 / 0)
    assert [run_check(find(i), solutions[find(i).name]).status for i in IDS] == ["passed"] * 4
    after = run("2.1", wrong, notebook)
    assert (after.status, after.sentence) == ("wrong", before.sentence)


@pytest.mark.parametrize("exercise_id", IDS)
def test_bad_answers_get_a_sentence(exercise_id, solutions):
    right = solutions[find(exercise_id).name]

    def spoilt(change):
        def function(*arguments, **options):
            value = right(*arguments, **options)
            return tuple(change(x) for x in value) if isinstance(value, tuple) else change(value)
        return function

    bad = [
        (lambda *a, **options: None, "None"), (None, "None"), ("text", "str"), (lambda: 1, "TypeError"),
        (lambda *a, **options: "text", "str"), (lambda *a, **options: 1 / 0, "ZeroDivisionError"),
        (spoilt(lambda x: x * math.nan), "NaN"), (spoilt(lambda x: [x]), "list"),
    ]
    if exercise_id != "2.4":
        bad += [(spoilt(lambda x: x.long()), "int64"), (spoilt(lambda x: x[..., :1]), "shape"),
                (spoilt(lambda x: x.unsqueeze(0)), "shape"), (spoilt(lambda x: x.detach()), "cut off")]
    for function, words in bad:
        result = run_check(find(exercise_id), function, SEEDS)
        assert result.status == "wrong" and re.search(words, result.sentence), (words, result)
        assert "\n" not in result.sentence


@pytest.mark.parametrize("exercise_id", IDS)
def test_mutants_are_rejected_and_at_least_three_mistakes_have_their_own_sentence(exercise_id, notebook):
    results = {mutant.name: run(exercise_id, mutant, notebook) for mutant in MUTANTS[exercise_id]}
    assert [name for name, result in results.items() if result.status != "wrong"] == []
    general = ("is not as expected", "raised", "has shape", "No gradient", "returned", " is float")
    own = {r.sentence for r in results.values() if not any(words in r.sentence for words in general)}
    assert len(own) >= (8 if find(exercise_id).part else 3), own


@pytest.mark.parametrize("exercise_id, name, words", [
    ("2.1", "queries are the first", "taken for the first T positions"),
    ("2.1", "nan_to_num after adding -inf: no gradient", "the gradient of q, k is NaN"),
    ("2.1", "the whole output nan_to_num, -inf filled in: v gets no gradient", "set the weights to 0, not the output"),
    ("2.1", "a small number beside the sum", "sum to a little less than 1"),
    ("2.1", "-inf times the mask", "Every query gives NaN"),
    ("2.1", "-inf times the mask that is given", "0 · (-inf) is NaN: use `masked_fill`"),
    ("2.1", "NaN filled in place", "changed in place, as by `x[...] = 0`"),
    ("2.1", "inputs reshaped", "q, k and v were reshaped to (B, H, T, D)"),
    ("2.1", "own causal mask turned round, -inf", checks.INVERTED),
    ("2.1", "own causal mask turned round", checks.INVERTED),
    ("2.1", "the first token sees nothing, -inf", "The first query alone gives NaN"),
    ("2.1", "mask transposed", "The mask is transposed"),
    ("2.1", "largest of all keys subtracted", "The largest score of all keys, seen or not, is subtracted"),
    ("2.1", "not transposed back", "(B, T, H, D)"),
    ("2.2", "pairs of neighbours, put back as such", "The pairs are neighbours"),
    ("2.2", "angles in the dtype of x", "For bf16 inputs"),
    ("2.2", "rest is lost", "put the rest, x[..., rotary_dim:], behind them"),
    ("2.3", "keys for values", "call attention(q, keys, values)"),
    ("2.3", "copies for each query head", "the cache keeps the key/value heads"),
    ("2.3", "the new token joins twice", "(B, S + 1, KV, D): tokens too many: 1"),
    ("2.3", "results in another order", "The results have changed places: end with `return out, keys, values`."),
    ("2.4", "bf16 always", "use bytes_per_number"),
    ("2.4", "one layer in eight", "An eighth of the layers is counted"),
    ("2.4", "a tensor", "`int(...)` makes one of it"),
])
def test_a_mistake_is_called_by_its_name(exercise_id, name, words, notebook):
    [mutant] = [mutant for mutant in MUTANTS[exercise_id] if mutant.name == name]
    assert words in run(exercise_id, mutant, notebook).sentence


def test_the_oracle_of_attention_is_a_loop_over_queries():
    q, k, v = (torch.randn(2, n, heads, 5, dtype=torch.float64) for n, heads in ((4, 6), (7, 2), (7, 2)))
    torch.testing.assert_close(checks.attended(q, k, v), one_by_one(q, k, v), atol=1e-13, rtol=0)
    mask = torch.rand(2, 4, 7) > 0.5
    mask[0, 1] = False
    torch.testing.assert_close(checks.attended(q, k, v, mask), one_by_one(q, k, v, mask=mask), atol=1e-13, rtol=0)


def test_the_variants_of_the_figure_differ_from_m1_in_what_they_are_called():
    assert [figures.cache_bytes(*variant, tokens=1) // 40_960 for variant in figures.VARIANTS.values()] == [1, 8, 8, 64]


def test_the_stored_experiment_is_the_one_that_the_module_describes():
    stored = figures.committed()
    assert stored["arms"] == {name: vars(arm) for name, arm in partial_rope.ARMS.items()}
    assert (stored["lengths"], stored["trained"]) == (list(partial_rope.LENGTHS), partial_rope.TRAINED)
    assert all(len(runs) == len(stored["seeds"]) for arm in stored["accuracy"].values() for runs in arm.values())


def test_a_window_hides_what_is_farther_away():
    torch.manual_seed(0)
    layer = partial_rope.OneLayer(partial_rope.ARMS["all dims"])
    everything = partial_rope.accuracy(layer, 0, (32,))
    assert partial_rope.accuracy(layer, 0, (32,), window=40) == everything
    assert partial_rope.accuracy(layer, 0, (32,), window=1) != everything


def test_questions_of_the_experiment_have_one_right_answer():
    names, values, asked, answers = partial_rope.make_rows(torch.Generator().manual_seed(0), 32)
    found = names[:, None] == asked[:, :, None]
    assert (found.sum(-1) == 1).all() and (names < partial_rope.NAMES).sum(1).eq(partial_rope.NAMED).all()
    assert torch.equal((values[:, None] * found).sum(-1), answers)
