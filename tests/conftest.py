"""Shared by all tests: one torch thread, and a tokenizer, model, text and recipe so small that training takes a second."""

import json

import pytest
import torch

from minim1.config import M1Config
from minim1.data.tokenizer import Tokenizer
from minim1.model.decoder import MiniM1
from minim1.tasks import SYMBOLS

torch.set_num_threads(1)
VOCAB = 420  # 15 control tokens, the task symbols, 256 bytes, some merges


def pytest_addoption(parser) -> None:
    parser.addoption("--soak", action="store_true", help="with tests/trust: try far more of everything, and store how much")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """The models here are so small that a second thread only gets in the way (and spins)."""
    torch.set_num_threads(1)


def source_text(number: int) -> str:
    """Some text that looks like code, another for each number."""
    lines = [f"def add_{number}_{i}(left, right):\n    return left + right * {number * i}\n" for i in range(40)]
    return "\n".join(lines)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    made = Tokenizer.train([source_text(n) for n in range(3)], VOCAB, SYMBOLS)
    assert made.vocab_size == VOCAB
    return made


def tiny_config(**fields) -> M1Config:
    """One lightning and one softmax layer, blocks of 8, so that short rows have several blocks."""
    sizes = dict(
        vocab_size=VOCAB, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, attn_type_list=(0, 1), num_local_experts=3, num_experts_per_tok=2,
        block_size=8,
    )
    return M1Config(**(sizes | fields))


@pytest.fixture(scope="session")
def make_model():
    """make_model(seed=0, parts=..., **config fields) -> MiniM1."""

    def make(seed: int = 0, parts=None, **fields) -> MiniM1:
        return MiniM1(tiny_config(**fields), *([] if parts is None else [parts]), seed=seed)

    return make


@pytest.fixture(scope="session")
def write_notebook():
    """write_notebook(path, *cells): code cells, or markdown where a cell starts with "# "; returns the path."""

    def write(path, *cells):
        path.parent.mkdir(parents=True, exist_ok=True)
        kinds = ["markdown" if cell.startswith("# ") else "code" for cell in cells]
        content = [{"cell_type": kind, "metadata": {}, "source": cell.splitlines(keepends=True)} for kind, cell in zip(kinds, cells)]
        path.write_text(json.dumps({"cells": content, "nbformat": 4, "nbformat_minor": 5}), encoding="utf-8")
        return path

    return write


@pytest.fixture
def model(make_model) -> MiniM1:
    return make_model()


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory):
    """A folder of text files, enough for the vocabulary of the tiny model."""
    folder = tmp_path_factory.mktemp("corpus")
    for number in range(8):
        (folder / f"module_{number}.txt").write_text(source_text(number), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_recipe(corpus_folder):
    """The smoke recipe, smaller still: all three stages in about a second."""
    from dataclasses import replace

    from minim1.train.settings import Mixture
    from minim1.train.recipes import smoke

    base, mixture = smoke(), Mixture(1, {"pair": 1, "add": 1, "sort": 1, "recall": 1}, 128)
    return replace(
        base, name="tiny", model=tiny_config(), corpus=str(corpus_folder), eval_problems=2, eval_windows=2,
        pretrain=replace(base.pretrain, steps=4, save_every=2), pretrain_mixture=mixture,
        sft=replace(base.sft, steps=3, save_every=2), sft_mixture=mixture,
        rl=replace(base.rl, steps=2, prompts_per_rollout=2, samples_per_prompt=3, max_new_tokens=12, overlong_buffer=6),
    )


@pytest.fixture(scope="session")
def tiny_run(tiny_recipe, tmp_path_factory):
    """A finished run of `tiny_recipe` with its report; treat as read-only."""
    from minim1.report.card import write_report
    from minim1.train import pipeline
    from minim1.workers import Workers

    out = tmp_path_factory.mktemp("runs") / "tiny"
    pipeline.run(Workers(), pipeline.Job(recipe=tiny_recipe, out=str(out), quiet=True))
    write_report(out)
    return out
