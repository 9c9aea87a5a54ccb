"""The claims: the rows, the rules behind their verdicts, the command and the page."""

import importlib
import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from minim1.errors import UserError
from minim1.report import claims
from minim1.report.claims import arithmetic, command, page, policy
from minim1.report.experiments import RESULTS, Experiment, add, begin, missing, policies, write_result

ROWS = claims.rows()


def test_every_row_of_the_plan_is_there_once():
    assert [row.number for row in ROWS] == list(range(1, 26))
    assert len({row.name for row in ROWS}) == 25
    assert set(claims.STRONGEST) <= {row.name for row in ROWS}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_has_a_committed_result_a_verdict_and_a_picture(row):
    results = {name: begin(claims.experiment(name), "cpu", RESULTS / f"{name}.json") for name in row.experiments}
    for name, result in results.items():
        assert not list(missing(claims.experiment(name), result)), f"{name} is not complete"
    finding = row.assess(results)
    assert finding.verdict in claims.VERDICTS and finding.sentence.endswith(".")
    assert all(measured.values for measured in finding.measured)
    drawn = json.loads(row.draw(results).to_json())
    assert any(len(trace.get("y", trace.get("x", ()))) for trace in drawn["data"]) and row.alt.endswith(".")
    for name in row.experiments:  # where chance is involved: at least three seeds
        if claims.experiment(name).chance:
            assert max(map(len, claims.experiment(name).arms.values())) >= 3, name


@pytest.mark.parametrize("name", ["recall", "policies"])
def test_arms_beside_the_claims_are_stored_but_not_asked_for_by_a_claim(name):
    whole = importlib.import_module(f"minim1.report.experiments.{name}").EXPERIMENT
    result = begin(whole, "cpu", RESULTS / f"{name}.json")
    assert not list(missing(whole, result)), "a chapter shows all arms"
    assert set(whole.beside) == set(whole.arms) - set(claims.experiment(name).arms) != set()
    result["runs"] = {arm: runs for arm, runs in result["runs"].items() if arm not in whole.beside}
    for row in (row for row in ROWS if row.experiments == (name,)):
        assert row.assess({name: result}).verdict == _finding(row).verdict
        assert row.draw({name: result}).data


def test_one_claim_at_least_does_not_hold_and_no_verdict_is_everywhere():
    stored = {row.name: _finding(row).verdict for row in ROWS}
    assert stored["flops"] == "does not follow from the published numbers" and stored["parameters"] == "exact"
    assert len(set(stored.values())) >= 4


def _finding(row):
    return row.assess({name: json.loads((RESULTS / f"{name}.json").read_text()) for name in row.experiments})


# ---------------------------------------------------------------- rules


def _run(accuracies, **fields):
    groups = {name: [100, 0] for name in ("all", "positive", "wait", "positive wait", "positive first wait")}
    records = [{"rollout": n, "accuracy": a, "thinking": 5 + 20 * a, "entropy": 0.5, "by_update": [groups],
                "by_old_probability": [[1, 0]] * 6, **fields} for n, a in enumerate(accuracies)]
    return records


def _policies(dapo, cispo, grpo, **fields):
    runs = {}
    for loss, curves in (("dapo", dapo), ("cispo", cispo), ("grpo", grpo)):
        for how in ("", ", 1 update", ", 4 updates", ", recipe's rate", ", large step"):
            runs[f"{loss}{how}"] = {str(seed): _run(curve, **fields) for seed, curve in enumerate(curves)}
    return {"policies": {"runs": runs}}


FAST, SLOW, LOW = [0.2, 0.7, 0.8, 0.8], [0.2, 0.4, 0.7, 0.8], [0.2, 0.3, 0.4, 0.5]


@pytest.mark.parametrize("dapo, grpo, said", [
    (SLOW, LOW, "holds"), (SLOW, FAST, "partly"), (FAST, LOW, "not at this scale"),
])
def test_cispo_holds_only_if_it_is_twice_as_fast_and_grpo_ends_worse(dapo, grpo, said):
    slow = [0.2, 0.2, 0.7, 0.8] if dapo is SLOW else dapo
    assert policy._cispo(_policies([slow] * 3, [FAST] * 3, [grpo] * 3)).verdict == said


def test_steps_are_interpolated_and_none_where_a_level_is_never_reached():
    assert policies.steps_to(_run([0.2, 0.4, 0.8]), 0.6) == 24.0
    assert policies.steps_to(_run([0.2, 0.3]), 0.6) is None


@pytest.mark.parametrize("clipped, said", [(50, "holds"), (4, "not at this scale")])
def test_clipping_holds_only_if_waits_are_clipped_far_more_often(clipped, said):
    groups = {"all": [1000, 10], "positive": [500, 10], "wait": [100, clipped], "positive wait": [100, clipped],
              "positive first wait": [100, clipped]}
    found = policy._clipping(_policies([FAST] * 3, [FAST] * 3, [FAST] * 3, by_update=[groups] * 16))
    assert found.verdict == said
    assert found.measured[0].median == pytest.approx(clipped / 100 / (10 / 500))


def test_entropy_that_doubles_is_not_calm():
    results = _policies([FAST] * 3, [FAST] * 3, [FAST] * 3)
    assert policy._entropy(results).verdict == "holds"
    results["policies"]["runs"]["cispo, recipe's rate"]["1"][2]["entropy"] = 1.2
    assert policy._entropy(results).verdict == "partly"


def test_growth_needs_both_to_rise():
    assert policy._growth(_policies([FAST] * 3, [FAST] * 3, [FAST] * 3)).verdict == "holds"
    assert policy._growth(_policies([FAST] * 3, [FAST[::-1]] * 3, [FAST] * 3)).verdict == "not at this scale"


def test_the_published_speed_up_is_read_off_the_curves():
    times, peak = policy.published_speed_up()
    assert (round(times, 1), peak) == (2.1, 34.4)


def test_flops_would_hold_if_a_quarter_were_met(monkeypatch):
    monkeypatch.setattr(arithmetic.flops, "ratio", lambda name, tokens, **_: 0.25)
    assert arithmetic._flops({}).verdict == "holds"
    monkeypatch.setattr(arithmetic.flops, "ratio", lambda name, tokens, **_: 0.30)
    assert arithmetic._flops({}).verdict == "does not follow from the published numbers"


def test_parameters_are_exact_only_to_the_byte(monkeypatch):
    monkeypatch.setattr(arithmetic, "INDEX_BYTES", arithmetic.INDEX_BYTES + 1)
    assert arithmetic._parameters({}).verdict == "partly"


# ---------------------------------------------------------------- the command


def _arguments(**given):
    plain = dict(name=None, stored=False, scale=None, seeds=None, results=None, page=None, pictures=False, json=True)
    return SimpleNamespace(**(plain | given))


def test_stored_claims_as_json_need_no_run(capsys):
    command.run(_arguments(stored=True), "cpu")
    found = json.loads(capsys.readouterr().out)["claims"]
    assert len(found) == 25 and [each["id"] for each in found[:5]] == list(claims.STRONGEST)
    for each in found:
        assert {"id", "verdict", "median", "range", "seeds"} <= set(each)
        assert each["range"][0] <= each["median"] <= each["range"][1]


@pytest.mark.parametrize("given, said", [
    ({"name": "nonsense"}, "there is no claim 'nonsense'"), ({"name": "26"}, "there is no claim '26'"),
    ({"seeds": [-1]}, "--seeds has -1"),
])
def test_a_wrong_request_is_one_sentence(given, said):
    with pytest.raises(UserError, match=said):
        command.run(_arguments(**given), "cpu")


def test_a_missing_or_foreign_result_is_named_with_a_remedy(tmp_path):
    with pytest.raises(UserError, match="recall.json is not there; run it"):
        command.run(_arguments(name="recall", stored=True, results=tmp_path), "cpu")
    result = json.loads((RESULTS / "recall.json").read_text())
    write_result(tmp_path / "recall.json", result | {"format": 1})
    with pytest.raises(UserError, match="another version: its format is 1, here it is 2; move the file away"):
        command.run(_arguments(name="recall", results=tmp_path), "cpu")


def _experiment(name, arms, **given):
    return Experiment(name, arms, run=None, **given)


def test_what_is_missing_comes_before_more_seeds(tmp_path):
    one, two = _experiment("one", {"a": range(2), "b": range(2)}), _experiment("two", {"a": range(2)})
    place = {"date": "2026-01-01", "machine": {}, "versions": {}, "threads": 1}
    result = begin(two, "cpu", two.path(tmp_path))
    for seed in range(2):
        add(result, "a", seed, 1.0, 0.1, place)
    write_result(two.path(tmp_path), result)
    assert command._plan([one, two], tmp_path, "cpu", None) == [([one], None), ([two], [])]
    assert command._plan([two], tmp_path, "cpu", None) == [([two], [2, 3, 4])]
    result = begin(one, "cpu", one.path(tmp_path))
    for arm, seed in (("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2)):
        add(result, arm, seed, 1.0, 0.1, place)
    write_result(one.path(tmp_path), result)
    assert command._plan([one], tmp_path, "cpu", None) == [([one], [2])], "a seed that was begun is finished first"


# ---------------------------------------------------------------- the page


def test_the_page_leads_with_the_strongest_and_has_each_claim(tmp_path):
    rows = [row for row in ROWS if not row.experiments]
    answers = [(row, row.assess({}), {}) for row in rows]
    written = page.write_page(answers, tmp_path, "cpu")
    text = (tmp_path / "claims.md").read_text(encoding="utf-8")
    order = [text.index(f"## {row.number}. ") for row, _, _ in page.ordered(answers)]
    assert order == sorted(order) and "## 1. " in text[order[0] : order[0] + 6]
    assert "smoke" not in text and [path.name for path in written] == ["claims.md", "claims.html"]
    shown = (tmp_path / "claims.html").read_text(encoding="utf-8")
    assert shown.count("<figure") == len(rows) and "<script src" not in shown


def test_a_smoke_page_says_that_it_means_nothing(tmp_path):
    row = claims.row("flops")
    assert "mean nothing" in page.to_markdown([(row, row.assess({}), {})], "smoke", {})


def test_text_of_a_claim_cannot_break_the_page():
    row = replace(claims.row("flops"), claim="<b>bold</b>")
    assert "<b>bold</b>" not in page.to_html([(row, row.assess({}), {})], "cpu")


# ---------------------------------------------------------------- all of it, cut short


def test_all_claims_run_at_smoke(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-m", "minim1", "claims", "--scale", "smoke", "--results", str(tmp_path / "results"),
         "--page", str(tmp_path / "page")], capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr[-3000:]
    text = (tmp_path / "page" / "claims.md").read_text(encoding="utf-8")
    assert all(f"## {row.number}. " in text for row in ROWS) and "A smoke run" in text


# ---------------------------------------------------------------- what is committed


@pytest.fixture(scope="module")
def committed():
    found = []
    for row in ROWS:
        results = {name: json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in row.experiments}
        found.append((row, row.assess(results), results))
    return found


def test_the_committed_page_says_what_the_committed_results_say(committed):
    folder = RESULTS / "claims"
    pictures = {row.name: f"{row.name}.svg" for row, _, _ in committed}
    assert all((folder / name).exists() for name in pictures.values())
    assert (folder / "claims.md").read_text(encoding="utf-8") == page.to_markdown(committed, "cpu", pictures), (
        "again: python3 go.py claims --stored --pictures --page minim1/report/results/claims")


def test_the_readme_says_the_same(committed):
    readme = (RESULTS.parents[2] / "README.md").read_text(encoding="utf-8")
    for row, finding, _ in committed:
        assert f"| {row.number} | {row.claim} | {finding.verdict} |" in readme, row.name
