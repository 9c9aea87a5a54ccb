"""The experiment of chapter 09, at sizes of seconds."""

import torch

import minim1
from minim1.report.experiments import long_context as experiment


def test_reading_in_pieces_counts_what_the_caches_hold():
    pure, hybrid = (
        [(tokens, cache.nbytes()) for tokens, _, cache in experiment.read(experiment.narrow_model(layers), 96, 16)]
        for layers in (experiment.PURE, experiment.HYBRID)
    )
    assert [tokens for tokens, _ in pure] == [16, 32, 64, 96]
    assert len({held for _, held in pure}) == 1
    assert [held - 7 * 4 * 16 * 16 for _, held in hybrid] == [2 * 16 * 4 * tokens for tokens, _ in hybrid]


def test_a_fit_finds_both_parts():
    linear, quadratic = experiment.fit_quadratic([(n, 3e-6 * n + 2e-9 * n * n) for n in (512, 4096, 65536)])
    assert abs(linear - 3e-6) < 1e-12 and abs(quadratic - 2e-9) < 1e-15


def test_every_question_of_a_row_asks_for_a_record_in_it():
    rows, records = experiment.needle_rows(torch.Generator().manual_seed(0), 40, 5)
    for row, wanted in zip(rows.tolist(), records.tolist()):
        keys = [token - experiment.QUESTION for token in row[40:]]
        assert sorted(token for token in row[:40] if token < experiment.QUESTION) == sorted(wanted)
        assert [record // experiment.VALUES for record in wanted] == keys and len(set(keys)) == experiment.NEEDLES


def test_a_haystack_has_all_records_and_as_much_filler_as_asked_for():
    tokenizer = minim1.load("shipped").tokenizer
    bare, long = (experiment.haystack(tokenizer, 3, filler) for filler in (0, 50))
    assert len(long.text) == len(bare.text) + 50
    places = [long.text.index(token) for token in bare.text[-5:]]
    assert places == sorted(places) and long.records == bare.records


def test_the_shipped_model_returns_every_record_of_its_own_kind_of_prompt():
    shipped = minim1.load("shipped")
    hay = experiment.haystack(shipped.tokenizer, 0, 0)
    said = experiment.ask(shipped.model, shipped.tokenizer, hay)
    assert said == {key: (value, value) for key, value in hay.records.items()}


def test_another_base_is_another_model_with_the_same_weights():
    model = minim1.MiniM1(experiment.needle_config("LS", 8))
    other = experiment.with_base(model, 999.0)
    assert other.config.rope_theta == 999.0 and torch.equal(other.lm_head.weight, model.lm_head.weight)
