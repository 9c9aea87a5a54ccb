"""The report card, the comparison of seeds and the shipped model, on run folders written by hand."""

import json

import pytest

from minim1.errors import UserError
from minim1.report import card, seeds
from minim1.report.ship import LIMIT
from minim1.train.checkpoint import load
from minim1.train.files import SHIPPED

FAMILIES = ("pair", "add")


def write_run(folder, *, seed=0, accuracy=0.5, steps=3, learning_rate=1e-3):
    for index, stage in enumerate(("pretrain", "sft", "rl")):
        path = folder / stage
        path.mkdir(parents=True)
        recipe = {"name": "nano", "seed": seed, **{s: {"seed": seed, "learning_rate": learning_rate} for s in card.STAGES}}
        run = {"format": 1, "stage": stage, "recipe": recipe, "corpus": {"source": "stdlib", "python": "CPython 3.11"},
               "workers": 2, "device": "cpu", "versions": {"machine": "Linux", "torch": "2"}}
        (path / "run.json").write_text(json.dumps(run))
        records = [{"step": n, "loss": 3.0 - n, "reward": n / 10, "thinking": n, "clipped_share": 0.0, "entropy": 1.0,
                    "seconds": 30.0 * n, "total_tokens": 100 * n} for n in range(1, steps + 1)]
        (path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
        score = {"problems": 8, "accuracy": accuracy + index / 10, "error": 0.1, "thinking": 5.0 + index, "parts": {}}
        said = {"family": "pair", "prompt": "⟨pair⟩", "completion": "<think>\n⟨1⟩\n</think>\n⟨2⟩<end_of_sentence>\n", "reward": 1.0}
        result = {"stage": stage, "bits_per_byte": 1.75, "families": {f: score for f in FAMILIES}, "answers": [said], "seconds": 2.0}
        (path / "eval.json").write_text(json.dumps(result))
    return folder


def test_card_gathers_all_stages(tmp_path):
    result = card.write_report(write_run(tmp_path / "run"))
    assert list(result["stages"]) == ["pretrain", "sft", "rl"]
    assert result["training_seconds"] == 3 * 90.0 and result["evaluation_seconds"] == 6.0
    assert json.loads((tmp_path / "run/report.json").read_text()) == result
    page = (tmp_path / "run/report.md").read_text()
    assert "| pair (8 problems) | 0.500 ± 0.100 (5.0) | 0.600 ± 0.100 (6.0) | 0.700 ± 0.100 (7.0) |" in page
    assert "- RL (right): `(⟨1⟩) ⟨2⟩`" in page


def test_an_unfinished_run_has_the_stages_it_has(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "rl/eval.json").unlink()
    assert list(card.report_card(run)["stages"]) == ["pretrain", "sft"]
    with pytest.raises(UserError, match="no evaluated stage"):
        card.report_card(tmp_path)


def test_the_plot_shows_every_curve_of_every_run(tmp_path):
    pytest.importorskip("plotly")
    drawn = card.figure([card.curves(write_run(tmp_path / str(seed), seed=seed)) for seed in (0, 1)])
    assert len(drawn.data) == 2 * sum(len(lines) for *_, lines in card.PANELS)
    reward = next(line for line in drawn.data if line.name == "RL reward")
    assert list(reward.x) == [1, 2, 3] and list(reward.y) == [0.1, 0.2, 0.3]


def test_seeds_give_median_and_range(tmp_path):
    runs = [write_run(tmp_path / str(seed), seed=seed, accuracy=a) for seed, a in ((0, 0.2), (1, 0.5), (2, 0.3))]
    result = seeds.gather(runs)
    assert result["seeds"] == [0, 1, 2]
    assert "| `pair`, accuracy | 0.300 [0.200, 0.500] | 0.400 [0.300, 0.600] | 0.500 [0.400, 0.700] |" in seeds.to_markdown(result)


def test_runs_of_different_recipes_are_not_compared(tmp_path):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", seed=1, learning_rate=2e-3)]
    with pytest.raises(UserError, match="different recipes"):
        seeds.gather(runs)


def test_the_shipped_model_loads_and_is_small():
    model, tokenizer, run = load("shipped")
    assert model.config.vocab_size == tokenizer.vocab_size and run["recipe"]["name"] == "nano"
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < LIMIT
    stages = [json.loads(line)["stage"] for line in (SHIPPED / "metrics.jsonl").read_text().splitlines()]
    assert set(stages) == {"pretrain", "sft", "rl"}
