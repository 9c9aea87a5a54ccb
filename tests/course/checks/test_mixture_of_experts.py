"""The checks of chapter 07 accept what is right, whoever wrote it, and say what is wrong with what is not."""

import re

import pytest
import torch
import torch.nn.functional as F

import minim1
import minim1.model.moe as package
from minim1.course.checking import run_check
from minim1.course.checks import find
from minim1.course.checks import mixture_of_experts as checks
from minim1.report.experiments import balance
from tests.mutants import SEEDS, run
from tests.mutants.chapter_07 import MUTANTS

IDS = [exercise.id for exercise in checks.EXERCISES]


@pytest.mark.parametrize("name", ["dispatch", "dispatch_by_loop", "dispatch_by_sort", "dispatch_dense"])
def test_every_dispatch_of_the_package_passes_the_check_of_the_part(name):
    result = run_check(find("7.2"), getattr(package, name), SEEDS)
    assert result.status == "passed", result


def by_tokens(x, weights, expert_ids, w1, w2, w3):
    rows = []
    for n, ids in enumerate(expert_ids.tolist()):
        answers = [F.linear(F.silu(F.linear(x[n], w1[e])) * F.linear(x[n], w3[e]), w2[e]) for e in ids]
        rows.append(sum(weight.to(x.dtype) * answer for weight, answer in zip(weights[n], answers)))
    return torch.stack(rows)


def smallest_first(logits, k, *, replay=None):
    """Another order of the experts, and the softmax of the report's Eq. 1, with -inf at all others."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    ids = logits.to(wide).argsort(-1)[:, -k:] if replay is None else replay
    masked = torch.full_like(logits, float("-inf"), dtype=wide).scatter(1, ids, logits.to(wide).gather(1, ids))
    return masked.softmax(-1).gather(1, ids), ids


def masked_balance(logits, expert_ids, valid=None):
    """Padding multiplied away instead of cut out."""
    p = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)
    valid = torch.ones(len(p), dtype=torch.bool) if valid is None else valid
    count = valid.sum().clamp(min=1)
    load = sum(((expert_ids == e) & valid[:, None]).sum() * (p[:, e] * valid).sum() for e in range(p.shape[1]))
    return p.shape[1] * load / (count * count * expert_ids.shape[1])


def with_lists(expert_ids, num_experts, capacity):
    flat = expert_ids.flatten().tolist()
    return torch.tensor([flat[:c].count(e) < capacity for c, e in enumerate(flat)]).view(expert_ids.shape)


@pytest.mark.parametrize("exercise_id, function", [
    ("7.1", smallest_first), ("7.2", by_tokens), ("7.3", masked_balance), ("7.4", with_lists),
])
def test_other_right_ways_pass(exercise_id, function):
    result = run_check(find(exercise_id), function, SEEDS)
    assert result.status == "passed", result


def test_the_loopless_version_of_the_explanation_passes(notebook):
    [text] = ["".join(c["source"]) for c in notebook["cells"] if "drop_at_once" in "".join(c["source"])]
    [code] = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    space = {"F": F}
    exec(code, space)
    result = run_check(find("7.4"), space["drop_at_once"], SEEDS)
    assert result.status == "passed", result


def test_a_broken_package_changes_no_verdict(solutions, monkeypatch):
    for name in ("top_k_router", "dispatch", "dispatch_by_sort", "dispatch_by_loop", "load_balancing_loss"):
        monkeypatch.setattr(package, name, lambda *a, **options: 1 / 0)
    assert [run_check(find(i), solutions[find(i).name]).status for i in IDS] == ["passed"] * 4


@pytest.mark.parametrize("exercise_id", IDS)
def test_bad_answers_get_a_sentence(exercise_id, solutions):
    right = solutions[find(exercise_id).name]

    def spoilt(change):
        return lambda *a, **options: _each(change, right(*a, **options))

    for function, words in (
        (lambda *a, **options: None, "None"), (None, "None"), ("text", "str"), (lambda: 1, "TypeError"),
        (lambda *a, **options: "text", "str"), (lambda *a, **options: 1 / 0, "ZeroDivisionError"),
        (spoilt(lambda x: x * torch.nan), "NaN|float32"), (spoilt(lambda x: x.unsqueeze(0)), "shape"),
        (spoilt(lambda x: x.tolist()), "list|float"), (spoilt(lambda x: x.int()), "int32"),
    ):
        result = run_check(find(exercise_id), function, SEEDS)
        assert result.status == "wrong" and re.search(words, result.sentence), (words, result)
        assert "\n" not in result.sentence


def _each(change, value):
    return tuple(change(x) for x in value) if isinstance(value, tuple) else change(value)


@pytest.mark.parametrize("exercise_id", IDS)
def test_mutants_are_rejected_and_at_least_three_mistakes_have_their_own_sentence(exercise_id, notebook):
    results = {mutant.name: run(exercise_id, mutant, notebook) for mutant in MUTANTS[exercise_id]}
    assert [name for name, result in results.items() if result.status != "wrong"] == []
    general = ("is not as expected", "raised", "has shape", "No gradient", "returned", " is float")
    own = {r.sentence for r in results.values() if not any(words in r.sentence for words in general)}
    assert len(own) >= 8, own


def test_learners_parts_train_the_model_as_the_packages_do(solutions):
    own = minim1.Parts(**{name: solutions[name] for name in ("router", "dispatch", "balance_loss")})
    config = minim1.M1Config(vocab_size=32, hidden_size=16, intermediate_size=8, num_hidden_layers=2,
                             num_attention_heads=2, num_key_value_heads=1, head_dim=8)
    ids = torch.arange(24).view(2, 12)
    documents = torch.tensor([[0] * 9 + [-1] * 3, [0] * 5 + [1] * 7])
    gradients = []
    for parts in (minim1.Parts(), own):
        model = minim1.MiniM1(config, parts)
        out = model(ids, document_ids=documents)
        (out.logits.square().mean() + out.aux_loss).backward()
        gradients.append([p.grad for p in model.parameters()])
    for expected, found in zip(*gradients):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


# ---------------------------------------------------------------- the stored experiment


def test_the_stored_result_holds_what_the_chapter_says():
    stored = balance.stored()

    def last(name):
        return [run[-1] for run in stored["layer"][name]]

    def used(records):
        return [sum(share > 0.01 for share in record["load"]) for record in records]

    assert max(used(last("no balance loss"))) <= 3 and min(used(last("coefficient 0.1"))) >= 5
    pairs = zip(last("no balance loss"), last("0.1 from half-way"), last("coefficient 0.1"))
    assert all(max(without["loss"], late["loss"]) > with_it["loss"] for without, late, with_it in pairs)
    assert min(used([run[-1] for run in stored["control"]])) >= 7
    losses = {name: [run[-1]["loss"] for run in runs] for name, runs in stored["model"].items()}
    assert max(losses["no balance loss"]) < min(losses["coefficient 0.1"])
    assert stored["settings"]["layer_seeds"] == list(balance.LAYER_SEEDS) and stored["versions"]["torch"]


def test_the_experiment_runs_and_its_records_are_shares():
    records = balance.train_layer(0, 0.1, begin=0.5, steps=4, every=2)
    assert [record["step"] for record in records] == [2, 4]
    assert all(abs(sum(record["load"]) - 1) < 1e-3 for record in records)
    assert records == balance.train_layer(0, 0.1, begin=0.5, steps=4, every=2)
    assert records[0] == balance.train_layer(0, 0.0, steps=2, every=2)[0]  # the loss had not begun


def test_a_model_of_the_experiment_takes_a_step():
    [record] = balance.train_model(0, 0.1, steps=1, every=1)
    assert len(record["load"]) == 2 and abs(sum(record["load"][0]) - 1) < 1e-3
