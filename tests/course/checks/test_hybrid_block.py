"""The checks of chapter 06 accept what is right and name what is not; the stored experiment is that of the code."""

import re
from dataclasses import asdict, replace

import pytest
import torch

import minim1.model.decoder as decoder
from minim1.config import hybrid_pattern, preset
from minim1.course.checking import run_check
from minim1.course.checks import hybrid_block as checks
from minim1.model.count import count
from minim1.report.experiments import begin, missing, recall, write_result
from tests.mutants import SEEDS, Mutant, run
from tests.mutants.chapter_06 import MUTANTS

EXERCISES = {exercise.id: exercise for exercise in checks.EXERCISES}
TENSORS = ("6.1", "6.2")


@pytest.mark.parametrize("exercise_id", EXERCISES)
def test_mutants_are_rejected_and_at_least_three_mistakes_have_their_own_sentence(exercise_id, notebook):
    results = {mutant.name: run(exercise_id, mutant, notebook) for mutant in MUTANTS[exercise_id]}
    assert [name for name, result in results.items() if result.status != "wrong"] == []
    general = ("not as expected", "raised", "has shape", "No gradient", "returned", " is float", " is a ")
    own = {r.sentence for r in results.values() if not any(words in r.sentence for words in general)}
    assert len(own) >= 3, own


@pytest.mark.parametrize("exercise_id", TENSORS)
def test_bad_tensors_get_a_sentence(exercise_id, solutions):
    right = solutions[EXERCISES[exercise_id].name]
    for change, words in (
        (lambda x: None, "None"), (lambda x: x * torch.nan, "NaN"), (lambda x: x.long(), "int64"),
        (lambda x: x[..., :1], "shape"), (lambda x: x.tolist(), "list"), (lambda x: x.detach(), "cut off"),
    ):
        result = run_check(EXERCISES[exercise_id], lambda *a, **options: change(right(*a, **options)), SEEDS)
        assert result.status == "wrong" and re.search(words, result.sentence), (words, result)
        assert "\n" not in result.sentence


@pytest.mark.parametrize("exercise_id", ["6.3", "6.4"])
def test_bad_numbers_get_a_sentence(exercise_id, solutions):
    right = solutions[EXERCISES[exercise_id].name]
    for change, words in (
        (lambda x: None, "end with `return`"), (lambda x: str(x), "str"), (lambda x: {1: x}, "dict"),
        (lambda x: torch.tensor(x), r"\.(tolist|item)\(\)"),
    ):
        result = run_check(EXERCISES[exercise_id], lambda *a, **options: change(right(*a, **options)), SEEDS)
        assert result.status == "wrong" and re.search(words, result.sentence), (words, result)


def test_a_norm_called_twice_is_told_apart_from_a_wrong_value(notebook):
    twice = Mutant("", "kept = y if", "kept = norm(h) if")
    assert "The result is right, but `norm` was called 2 times: call it exactly once" in run("6.2", twice, notebook).sentence
    textbook = Mutant("", source="def residual(h, norm, sublayer, alpha, beta, postnorm=True):\n"
                                 "    return norm(alpha * h + beta * sublayer(h))\n")
    assert "The norm comes last, as in the textbook" in run("6.2", textbook, notebook).sentence


def test_unusual_right_answers_pass():
    def gated(x, out, norm_weight, gate_weight, out_weight, eps=1e-6):
        o = torch.cat(out.unbind(2), dim=-1)
        o = o * torch.rsqrt((o * o).sum(-1, keepdim=True) / o.shape[-1] + eps) * norm_weight
        return torch.einsum("bti,ci->btc", o / (1 + torch.exp(-(x @ gate_weight.mT))), out_weight)

    def residual(h, norm, sublayer, alpha, beta, postnorm=True):
        normed = norm(h)
        return torch.add(sublayer(normed).mul(beta), normed if postnorm else h, alpha=alpha)

    def layer_pattern(num_layers, every=8):
        return tuple(([0] * (every - 1) + [1]) * num_layers)[:num_layers]

    def cache_bytes(attn_type_list, length, **sizes):
        total = 0
        for kind in attn_type_list:
            if kind:
                numbers = length * sizes["num_key_value_heads"] * 2 * sizes["head_dim"]
                total += numbers * sizes.get("bytes_per_number", 2)
            else:
                total += 4 * sizes["head_dim"] ** 2 * sizes["num_attention_heads"]
        return total

    for exercise, function in zip(checks.EXERCISES, (gated, residual, layer_pattern, cache_bytes)):
        result = run_check(exercise, function, SEEDS)
        assert result.status == "passed", result


def test_a_broken_package_changes_no_verdict(solutions, monkeypatch):
    monkeypatch.setattr(decoder, "_rms_norm", lambda *a: 1 / 0)
    monkeypatch.setattr(checks, "hybrid_pattern", lambda *a: 1 / 0)
    for exercise in checks.EXERCISES:
        assert run_check(exercise, solutions[exercise.name]).status == "passed"


@pytest.mark.parametrize("every", [1, 2, 8, 80])
def test_pattern_and_bytes_are_the_packages(every, solutions):
    config = replace(preset("m1-456b"), attn_type_list=hybrid_pattern(80, every))
    assert tuple(solutions["layer_pattern"](80, every)) == config.attn_type_list
    sizes = {name: getattr(config, name) for name in ("num_attention_heads", "num_key_value_heads", "head_dim")}
    for length in (0, 1, 1_000_000):
        found = solutions["cache_bytes"](config.attn_type_list, length, **sizes)
        assert found == count(config, length)["cache_bytes"]


# ---------------------------------------------------------------- the stored experiment


def test_the_stored_experiment_has_the_settings_of_the_code():
    stored = recall.stored()
    assert stored["settings"] == {name: {rival: asdict(setting) for rival, setting in rivals.items()}
                                  for name, rivals in recall.SETTINGS.items()}
    for name, rivals in recall.SETTINGS.items():
        for rival, setting in rivals.items():
            curves = stored["curves"][name][rival]
            assert len(curves) == len(stored["seeds"]) == 3
            assert all(curve[-1][0] == setting.steps for curve in curves)
    assert stored["versions"]["torch"] and stored["machine"]["cpu"]


def test_a_network_is_added_to_what_is_stored(tmp_path):
    result = begin(recall.EXPERIMENT, "cpu", recall.EXPERIMENT.path())
    new = result["runs"].pop("tight: LL, D = 16")
    write_result(recall.EXPERIMENT.path(tmp_path), result)
    found = begin(recall.EXPERIMENT, "cpu", recall.EXPERIMENT.path(tmp_path))
    assert list(missing(recall.EXPERIMENT, found)) == [("tight: LL, D = 16", int(seed)) for seed in new]
    unit = recall.run("tight: LL, D = 16", 0, "smoke")
    assert unit["setting"]["head_dim"] == 16 and [step for step, _ in unit["curve"]] == [0, 2]


def test_rows_can_be_answered_from_their_pairs():
    setting = recall.SETTINGS["tight"]["LL"]
    rows, answers = recall.make_rows(setting, torch.Generator().manual_seed(0), 3)
    for row, wanted in zip(rows.tolist(), answers.tolist()):
        tokens = [divmod(number, recall.VALUES + 1) for number in row]
        pairs, questions = dict(tokens[: setting.pairs]), tokens[setting.pairs :]
        assert len(pairs) == setting.pairs and len(questions) == recall.QUERIES
        assert [pairs[key] for key, value in questions if value == recall.ASK] == wanted


def test_learning_is_repeatable_and_beats_chance():
    setting = replace(recall.SETTINGS["tight"]["SS"], pairs=4, batch=16, steps=60)
    first, again = (recall.learn(setting, 0, every=60) for _ in range(2))
    assert first == again
    assert first[-1][1] > 2 / recall.VALUES > first[0][1]
