"""The capstone: a run is trained and resumed in a process of its own, its milestones can fail, and the page holds it all."""

import json

import pytest
import torch

import minim1
from minim1.course import capstone
from minim1.errors import UserError
from minim1.report import faults
from minim1.report.experiments import stored
from minim1.train.checkpoint import RunFolder
from minim1.train.files import SHIPPED, read_json


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    said = []
    out = capstone.train(tmp_path_factory.mktemp("capstone") / "run", preset="smoke", say=said.append, every=0.2)
    assert said[-1].startswith("pretrain 6 of 6, sft 4 of 4, rl 2 of 2")
    return out


def test_a_finished_run_is_not_trained_again(run):
    before, said = RunFolder(run / "rl").metrics(), []
    capstone.train(run, preset="smoke", say=said.append, every=0.2)
    assert RunFolder(run / "rl").metrics() == before


def test_what_the_command_refuses_is_said(run):
    with pytest.raises(UserError, match="repeat the options"):
        capstone.train(run, preset="smoke", seed=1, say=lambda text: None, every=0.2)


def test_the_page_names_authors_milestones_and_figures(run, tmp_path):
    reached = [capstone.Milestone("a record is found again", "0.986", "at least 0.95", True)]
    page = capstone.page(run, tmp_path / "no work", reached, [("pair", 0.5, (0.1, 0.4), False)])
    text = page.read_text(encoding="utf-8")
    for words in ("| `lightning` | the package's |", "| a record is found again | 0.986 | at least 0.95 | reached |",
                  "| pair | 0.500 | 0.100 to 0.400 | outside |", "Report card: smoke"):
        assert words in text


def test_a_model_that_forgets_to_decay_does_not_reach_the_first_milestone():
    wrong = next(fault.parts for fault in faults.FAULTS if fault.caught_by == "pieces_are_the_whole")
    assert capstone.decodes(minim1.load("shipped").model, length=48).reached
    assert not capstone.decodes(minim1.load("shipped", parts=wrong).model, length=48).reached


def test_recall_and_format_are_read_from_the_evaluation():
    evaluated = read_json(SHIPPED / "sft" / "eval.json")
    assert capstone.remembers(evaluated).reached and capstone.keeps_format(evaluated).reached
    evaluated["families"]["recall"]["accuracy"] = evaluated["families"]["sort"]["parts"]["format"] = 0.9
    assert not capstone.remembers(evaluated).reached and not capstone.keeps_format(evaluated).reached


@torch.no_grad()
def test_collapsed_experts_do_not_reach_the_third():
    model, tokenizer, _ = minim1.load("shipped")
    assert capstone.balanced(model, tokenizer, 8).reached
    for layer in model.model.layers:
        layer.block_sparse_moe.gate.weight.zero_()  # ties: the same two experts for every token
    assert not capstone.balanced(model, tokenizer, 8).reached


def test_learning_with_the_wrong_sign_does_not_reach_the_last(monkeypatch):
    rises = iter([(0.2, 0.8), (0.2, 0.25)])

    def rise(*given):
        low, high = next(rises)
        made = lambda accuracy: type("Score", (), {"accuracy": accuracy, "error": 0.03})()  # noqa: E731
        return made(low), made(high)

    monkeypatch.setattr(capstone, "rise", rise)
    assert not capstone.learns(None, None, 1, range(2), 8, 4).reached


def test_our_own_runs_lie_in_the_band(monkeypatch):
    for card in stored("nano")["cards"]:
        monkeypatch.setattr(capstone, "report_card", lambda run, card=card: card)
        assert all(inside for *_, inside in capstone.beside_ours("a run"))


def test_a_line_replaces_the_one_before(monkeypatch):
    shown = []

    class Handle:
        def update(self, value):
            shown[-1] = repr(value)

    monkeypatch.setattr("IPython.display.display", lambda value, display_id: shown.append(repr(value)) or Handle())
    say = capstone.line()
    say("one")
    say("two")
    assert shown == ["two"]


def test_who_wrote_what_knows_the_learners_notebooks(tmp_path):
    cell = {"cell_type": "code", "source": "def schedule(step, total_steps):\n    return 1.0\n", "metadata": {}, "outputs": []}
    (tmp_path / "08_pretraining.ipynb").write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    wrote = capstone.who_wrote_what(tmp_path)
    assert wrote["schedule"] == "yours, 08_pretraining.ipynb" and wrote["router"] == "the package's"
    assert set(wrote) == set(minim1.Parts.__dataclass_fields__)
