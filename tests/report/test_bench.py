"""`minim1 bench`: turns, ratios and refusals on clocks and peers made up for it, and its benchmarks at tiny sizes."""

import argparse
import json
import re
import sys
import time

import pytest
import torch

from minim1.errors import UserError
from minim1.model.lightning import decay_slopes, lightning_attention, lightning_recurrent
from minim1.report.bench import attention, command, experts, figure, harness, roofline
from minim1.report.bench.harness import (
    Comparison, Entry, Options, Skip, Timing, compare, crossover, expected_seconds, interleave, refused, relative_error,
)

QUICK = Options(quick=True, seconds=0.0)


@pytest.fixture(scope="module", autouse=True)
def short_samples():
    """Times mean nothing here, so none needs to last."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness, "SAMPLE_SECONDS", 1e-5)
        yield


class Clock:
    """A clock that only entries move; `cost` seconds a call, or what `cost(calls so far)` says."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def __call__(self):
        return self.now

    def entry(self, name, cost):
        def run():
            self.log.append(name)
            self.now += cost(self.log.count(name)) if callable(cost) else cost

        return run


# ---------------------------------------------------------------- taking turns


def test_every_round_times_everyone_once_and_another_begins():
    clock = Clock()
    timings = interleave({n: clock.entry(n, 1.0) for n in "abc"}, repeats=4, seconds=1e9, clock=clock)
    assert "".join(clock.log) == "abc" + "abc" "bca" "cab" "abc"  # warm-up, then the rounds
    assert {name: timing.repeats for name, timing in timings.items()} == {"a": 4, "b": 4, "c": 4}


def test_a_timing_has_the_median_and_the_extremes_of_the_rounds_without_the_warm_up():
    clock = Clock()
    costs = [90.0, 1.0, 5.0, 2.0]
    timing = interleave({"a": clock.entry("a", lambda n: costs[n - 1])}, repeats=3, clock=clock)["a"]
    assert timing == Timing(2.0, 1.0, 5.0, 3, (1.0, 5.0, 2.0))


@pytest.mark.parametrize("seconds, rounds", [(0.0, 3), (5.5, 5), (6.5, 6), (1e9, 8)])
def test_no_round_begins_when_the_time_is_spent_but_three_are_done(seconds, rounds):
    clock = Clock()
    timings = interleave({"a": clock.entry("a", 1.0)}, repeats=8, seconds=seconds, clock=clock)
    assert timings["a"].repeats == rounds  # one second of it is the warm-up


def test_short_calls_are_repeated_within_a_sample_and_the_time_is_that_of_one(monkeypatch):
    monkeypatch.setattr(harness, "SAMPLE_SECONDS", 0.02)
    clock = Clock()
    timings = interleave({"a": clock.entry("a", 1e-3), "b": clock.entry("b", 0.5)}, repeats=3, clock=clock)
    assert timings["a"].median == pytest.approx(1e-3) and timings["b"].median == pytest.approx(0.5)
    first, others = re.fullmatch("a+b(a+)bb(a+)b", "".join(clock.log)).groups()  # 0.5 s of b need no repetition
    assert 20 <= len(first) < 60 and len(others) == 2 * len(first)  # a sample of a lasts 20 ms


def test_warm_up_calls_are_as_many_as_asked_for():
    clock = Clock()
    interleave({"a": clock.entry("a", 1.0)}, repeats=3, warmup=4, clock=clock)
    assert len(clock.log) == 4 + 3


def comparison(length, ours, peer, which="forward", benchmark="attention", **fields):
    timings = {"minim1": Timing.of(ours), "SDPA": Timing.of(peer)}
    case = {"pass": which, "batch": 1, "length": length, "heads": 2, "dim": 16}
    return Comparison(benchmark, case, "minim1", timings, {}, {}, "tokens", length, **fields)


def test_ratios_are_of_medians_and_their_spread_of_one_round_each():
    found = comparison(64, [2.0, 1.0, 4.0], [20.0, 3.0, 4.0]).ratios()
    assert found == {"SDPA": {"median": 2.0, "low": 1.0, "high": 10.0}}


def test_a_comparison_without_ours_has_no_ratios():
    assert Comparison("x", {}, "ours", {"peer": Timing.of([1.0])}, {}, {}, "tokens").ratios() == {}


def test_the_rate_counts_what_one_call_does():
    stored = comparison(64, [0.5], [2.0]).to_json()
    assert stored["rates"] == {"minim1": 128.0, "SDPA": 32.0} and json.loads(json.dumps(stored))


# ---------------------------------------------------------------- the same numbers, or no number


def entry(value, error=0.0):
    return Entry(lambda: value, lambda result: error if result is value else 1.0)


def run(entries, **options):
    options = Options(quick=True, seconds=0.0, **options)
    return compare("made up", {"size": 1}, entries, ours="ours", options=options, limit=1e-3, unit="calls")


def test_a_peer_that_computes_something_else_is_not_timed():
    done = run({"ours": entry(1, 1e-4), "good": entry(2, 1e-4), "bad": entry(3, 0.25), "nan": entry(4, float("nan"))})
    assert set(done.timings) == {"ours", "good"} and set(done.ratios()) == {"good"}
    assert done.skipped["bad"] == "wrong: error 2e-01 against fp64, limit 1e-03"
    assert done.skipped["nan"].startswith("wrong")
    assert done.errors["bad"] == 0.25


def test_ours_that_computes_something_else_refuses_the_comparison():
    with pytest.raises(UserError, match=r"made up .*size.* is not compared: ours is wrong: error 5e-01"):
        run({"ours": entry(1, 0.5), "good": entry(2)})


def test_a_peer_that_cannot_run_is_skipped_with_its_reason():
    def missing():
        raise Skip("nothing is installed")

    def broken():
        raise ValueError("first line\nsecond")

    def greedy():
        raise torch.OutOfMemoryError("lots")

    zero = lambda result: 0.0  # noqa: E731
    done = run({"ours": entry(1), "a": Entry(missing, zero), "b": Entry(broken, zero), "c": Entry(greedy, zero)})
    assert done.skipped == {"a": "nothing is installed", "b": "failed: ValueError: first line", "c": "out of memory"}
    assert set(done.timings) == {"ours"}


def test_a_bug_of_ours_is_no_reason_but_a_traceback():
    with pytest.raises(ZeroDivisionError):
        run({"ours": Entry(lambda: 1 / 0, lambda result: 0.0)})


def test_a_call_over_the_limit_is_left_out():
    slow = Entry(lambda: time.sleep(0.02), lambda result: 0.0)
    done = run({"ours": entry(1), "slow": slow}, call_limit=0.01)
    assert done.skipped["slow"].startswith("too slow") and set(done.timings) == {"ours"}


def test_relative_error_of_numbers_shapes_and_nan():
    truth = torch.tensor([3.0, 4.0])
    assert relative_error(torch.tensor([3.0, 4.5]), truth) == pytest.approx(0.1)
    assert relative_error(torch.tensor([3.0, float("nan")]), truth) == float("inf")
    with pytest.raises(UserError, match=r"shape \(1,\); expected \(2,\)"):
        relative_error(torch.ones(1), truth)
    assert refused({"ours": 0.0, "peer": float("inf")}, "ours", 1.0, "x").keys() == {"peer"}


@pytest.mark.parametrize("ratios, found", [
    ({64: 0.5, 128: 0.9, 256: 1.5, 512: 3.0}, 256),
    ({512: 3.0, 64: 1.2, 128: 0.9, 256: 1.5}, 256),  # faster at 64 does not count: slower again at 128
    ({64: 1.5, 128: 2.0}, 64),
    ({64: 1.5, 128: 1.0}, None),
    ({}, None),
])
def test_the_crossover_is_where_ours_begins_to_stay_faster(ratios, found):
    assert crossover(ratios) == found


def test_crossovers_are_those_of_each_pass():
    done = [comparison(64, [2.0], [1.0]), comparison(128, [2.0], [3.0])]
    done += [comparison(64, [2.0], [3.0], "forward+backward"), comparison(128, [2.0], [3.0], "forward+backward")]
    done += [comparison(256, [2.0], [1.0], benchmark="experts")]
    assert command.crossovers(done) == {"forward": 128, "forward+backward": 64}


def test_expected_seconds_goes_on_as_it_grew():
    assert expected_seconds([], 10) == 0.0
    assert expected_seconds([(10, 2.0)], 40) == 8.0  # linear, where nothing else is known
    assert expected_seconds([(10, 1.0), (20, 4.0)], 40) == pytest.approx(16.0)
    assert expected_seconds([(10, 1.0), (20, 4.0), (21, 4.2)], 42) == pytest.approx(4.2 * 2**1.934, rel=1e-3)
    assert expected_seconds([(10, 2.0), (20, 1.0)], 40) == 2.0  # never less than linear


# ---------------------------------------------------------------- attention


def test_the_truth_is_the_recurrence():
    """Both where all positions are compared and where some are."""
    for length in (70, 1100):
        given = attention.problem(length, Options(quick=True))
        q, k, v = (x.detach().double().requires_grad_() for x in (given.q, given.k, given.v))
        out, _ = lightning_recurrent(q, k, v, given.slopes)
        expected = (out.detach(), *torch.autograd.grad(out, (q, k, v), given.grad.double()))
        rows, truth = attention.lightning_truth(given)
        assert (len(rows), rows[0], rows[-1]) == (70 if length == 70 else 64, 0, length - 1)
        for found, full in zip(truth, expected, strict=True):
            assert relative_error(found, full[:, rows]) < 1e-12


def test_the_truth_of_softmax_attention_is_all_pairs():
    given = attention.problem(90, Options(quick=True))
    q, k, v = (x.detach().double().requires_grad_() for x in (given.q, given.k, given.v))
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / 16**0.5
    scores = scores.masked_fill(torch.ones(90, 90).triu(1).bool(), float("-inf"))
    out = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v)
    expected = (out.detach(), *torch.autograd.grad(out, (q, k, v), given.grad.double()))
    rows, truth = attention.softmax_truth(given)
    assert rows.tolist() == list(range(26, 90))
    for found, full in zip(truth, expected, strict=True):
        assert relative_error(found, full[:, rows]) < 1e-12


def test_q_k_v_are_views_of_one_activated_projection():
    given = attention.problem(8, Options())
    assert given.q.shape == (1, 8, 8, 64) and given.q.stride() == given.v.stride() == (8 * 8 * 192, 8 * 192, 192, 1)
    assert given.k.data_ptr() - given.q.data_ptr() == 64 * 4
    assert given.q.min() > -0.3  # as silu leaves it
    assert torch.equal(given.slopes, decay_slopes(8, 0, 8))


class AlwaysOpen(torch.nn.Module):
    def forward(self, hidden):
        return torch.tensor(float("inf"))  # its sigmoid is 1


def test_the_hf_loop_is_that_of_the_hf_module():
    """Bit for bit, with the module's projections, norm and gate made to do nothing."""
    pytest.importorskip("transformers")
    from transformers.models.minimax.configuration_minimax import MiniMaxConfig
    from transformers.models.minimax.modeling_minimax import MiniMaxLightningAttention

    heads, dim = 2, 8
    config = MiniMaxConfig(
        hidden_size=16, num_attention_heads=heads, num_key_value_heads=heads, head_dim=dim, num_hidden_layers=2,
        layer_types=["linear_attention", "full_attention"],
    )
    assert config.block_size == 256
    module = MiniMaxLightningAttention(config, layer_idx=0)
    nothing = torch.nn.Identity()
    module.qkv_proj = module.act_fn = module.norm = module.out_proj = nothing
    module.output_gate = AlwaysOpen()
    loop = attention.hf_loop(module.slope_rate.flatten(), torch.float32)
    for length in (1, 200, 256, 300, 600):
        hidden = torch.nn.functional.silu(torch.randn(2, length, heads * 3 * dim)).requires_grad_()
        q, k, v = hidden.view(2, length, heads, 3 * dim).split(dim, dim=-1)
        theirs, _ = module(hidden, None, None)
        ours = loop(q, k, v).reshape(2, length, heads * dim)
        assert torch.equal(ours, theirs)
        grad = torch.randn_like(ours)
        assert torch.equal(*(torch.autograd.grad(x, hidden, grad)[0] for x in (ours, theirs)))


def results(mine=None, lengths=(64, 160), **options):
    options = Options(quick=True, seconds=0.0, lengths=lengths, mine=mine, **options)
    return list(attention.benchmark(options))


def test_attention_compares_both_passes_at_every_length():
    done = results()
    assert [(c.case["length"], c.case["pass"]) for c in done] == [
        (length, which) for length in (64, 160) for which in ("forward", "forward+backward")
    ]
    for c in done:
        assert set(c.timings) == {"minim1", "chunked", "HF loop", "SDPA"}
        assert set(c.skipped) == {"fla chunk", "fla fused"} and all(c.skipped.values())
        assert all(0 < error < 2e-6 for error in c.errors.values()) and c.amount == c.case["length"]


def test_only_the_peers_asked_for_are_run():
    options = Options(quick=True, seconds=0.0, lengths=(64,))
    assert all(set(c.timings) == {"minim1", "SDPA"} for c in attention.benchmark(options, peers=("SDPA",)))


def test_a_learners_right_function_is_in_the_table():
    def right(q, k, v, slopes):
        return lightning_attention(q, k, v, slopes, backend="quadratic")

    assert all(c.ratios()["mine"]["median"] > 0 for c in results(right, lengths=(64,)))


def undecayed(q, k, v, slopes):
    return lightning_attention(q, k, v, 0.9 * slopes)


def wrong_in_the_middle(q, k, v, slopes):
    out, state = lightning_attention(q, k, v, slopes)
    return out * torch.where(torch.arange(q.shape[1]) == 77, 1.1, 1.0).view(1, -1, 1, 1), state


def wrong_gradient(q, k, v, slopes):
    return lightning_attention(q, k.detach() + 0 * k, v, slopes)


def crash(q, k, v, slopes):
    raise KeyError("oops")


def no_state(q, k, v, slopes):
    return lightning_attention(q, k, v, slopes)[0].mean(-1)


def in_place(q, k, v, slopes):
    with torch.no_grad():
        k.mul_(2)
    return lightning_attention(q, k, v, slopes)


@pytest.mark.parametrize("mine, passes, reason", [
    (undecayed, 2, "wrong: error"),
    (wrong_in_the_middle, 2, "wrong: error"),
    (wrong_gradient, 1, "wrong: error 1e+00"),
    (crash, 2, "failed: KeyError: 'oops'"),
    (no_state, 2, "failed: "),
    (in_place, 2, "wrong: it changes its inputs in place"),
])
def test_a_learners_wrong_function_is_a_row_and_no_crash(mine, passes, reason):
    done = results(mine, lengths=(160,))
    assert all({"minim1", "HF loop"} <= set(c.timings) for c in done)
    told = [c.skipped["mine"] for c in done if "mine" in c.skipped]
    assert len(told) == passes and all(text.startswith(reason) for text in told), told


def test_what_would_be_too_slow_is_not_even_tried():
    calls = []

    def slow(q, k, v, slopes):
        calls.append(q.shape[1])
        time.sleep(2e-4 * q.shape[1])
        return lightning_attention(q, k, v, slopes)

    first, *others = results(slow, lengths=(40, 2000), call_limit=0.2)
    assert "mine" in first.timings and 2000 not in calls
    assert [c.skipped.get("mine") for c in others[1:]] == ["too slow: one call would last longer than 0 s"] * 2


# ---------------------------------------------------------------- experts


def test_experts_compare_all_forms_with_all_gradients():
    forward, both = experts.benchmark(QUICK)
    assert [forward.case["pass"], both.case["pass"]] == ["forward", "forward+backward"]
    for c in (forward, both):
        assert set(c.timings) == {"minim1", "loop", "HF eager", "grouped_mm"} and c.skipped == {}
        assert all(0 < error < 2e-6 for error in c.errors.values())


def test_every_gradient_of_the_experts_is_checked(monkeypatch):
    """A peer that is wrong in the gradient of one input alone is caught."""
    names = ("x", "weights", "w1", "w2", "w3")

    def spoilt(which):
        def make(inputs, expert_ids):
            call, leaves, split = experts._grouped(inputs, expert_ids)
            return call, leaves, lambda gradients: [g * (1.01 if n == which else 1) for g, n in zip(gradients, names)]

        return make

    monkeypatch.setattr(experts, "PEERS", {name: spoilt(name) for name in names})
    forward, both = experts.benchmark(QUICK)
    assert set(forward.timings) == {"minim1", *names} and set(both.timings) == {"minim1"}


def test_the_hf_peer_is_the_modules_own_loop(monkeypatch):
    def no_grouped(*arguments, **others):
        raise AssertionError("grouped")

    monkeypatch.setattr(torch.nn.functional, "grouped_mm", no_grouped)
    monkeypatch.setattr(torch, "_grouped_mm", no_grouped)
    forward, _ = experts.benchmark(QUICK)
    assert "HF eager" in forward.timings
    assert forward.skipped == {"grouped_mm": "failed: AssertionError: grouped"}


def test_missing_peers_are_skipped_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers.models.minimax.modeling_minimax", None)
    monkeypatch.delattr(torch.nn.functional, "grouped_mm")
    for c in experts.benchmark(QUICK):
        assert c.skipped["HF eager"] == "transformers with MiniMax is not installed"
        assert "has no grouped_mm" in c.skipped["grouped_mm"] and "minim1" in c.timings


# ---------------------------------------------------------------- roofline


def test_flop_and_bytes_are_those_of_the_block_form():
    forward = roofline.count("forward", tokens=100, heads=3, dim=64, element_size=2, block=64)
    assert forward["flops"] == 100 * 3 * 32768 and forward["bytes"] == 4 * 100 * 3 * 64 * 2
    both = roofline.count("forward+backward", 1, 1, 128, 2, 64)
    assert both["flops"] == 98304 + 245760  # D = 128, C = 64: 4 and 10 times (C D + D^2)
    assert (both["bytes"], both["bytes_triton"]) == (11 * 256, 16 * 256)


def test_the_nearer_bound_and_the_shares():
    cost = roofline.count("forward", 64, 2, 16, 4, roofline.BLOCK["cpu"])
    done = [comparison(64, [2.0], [3.0]), comparison(64, [2.0], [3.0], benchmark="experts")]
    peaks = {"matmul_flops": float(cost["flops"]), "batched_flops": cost["flops"] / 2, "bandwidth": cost["bytes"] * 4.0}
    page = roofline.page(peaks, done, Options())
    (row,) = page["rows"]  # least possible: 1 s of arithmetic, 0.25 s of memory; it took 2 s
    assert (row["of_matmul"], row["of_batched"], row["of_bandwidth"]) == (0.5, 1.0, 0.125)
    assert (row["bound"], row["of_bound"]) == ("arithmetic", 0.5)
    slow_memory = peaks | {"bandwidth": cost["bytes"] / 1.5}
    (row,) = roofline.page(slow_memory, done, Options())["rows"]
    assert (row["bound"], row["of_bound"]) == ("memory", 0.75)
    assert "| forward | 64 | 2e+03 |" in roofline.to_markdown(page)


def test_the_roofline_alone_times_attention_itself():
    page = roofline.benchmark(QUICK)
    assert [(row["length"], row["pass"]) for row in page["rows"]] == [
        (length, which) for length in (64, 160) for which in ("forward", "forward+backward")
    ]
    assert page["peaks"]["bandwidth"] > 0 and all(0 < row["of_bound"] for row in page["rows"])


def test_rates_are_of_bytes_read_and_written_and_two_flop_for_a_multiply_add(monkeypatch):
    def one_second(entries, **settings):
        return {name: Timing.of([1.0, 2.0]) for name in entries}

    monkeypatch.setattr(roofline, "interleave", one_second)
    peaks = roofline.measure(QUICK)
    assert peaks["copy_bytes_per_second"] == {1: 2 << 20, 4: 8 << 20} and peaks["bandwidth"] == 8 << 20
    assert peaks["matmul_flops"] == 2 * 256**3 and peaks["batched_flops"] == 2 * 16 * 64**3


# ---------------------------------------------------------------- the verb


def bench(folder, *words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    command.run(parser.parse_args([*words, "--out", str(folder)] if folder else list(words)))


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The folder of a quick run of three benchmarks."""
    folder = tmp_path_factory.mktemp("bench")
    bench(folder, "attention", "experts", "roofline", "--quick", "--seconds", "0")
    return folder


def test_the_stored_result_says_what_ran_where(stored):
    result = json.loads((stored / "bench.json").read_text(encoding="utf-8"))
    assert set(result) == {
        "format", "date", "machine", "versions", "settings", "comparisons", "crossover", "roofline", "skipped",
        "refused", "seconds",
    }
    assert set(result["machine"]) == {"os", "python", "cpu", "cores", "memory_gb", "gpu", "gpu_memory_gb"}
    assert set(result["versions"]) == {"minim1", "torch", "triton", "transformers", "fla", "trl", "numpy"}
    assert result["versions"]["torch"] == torch.__version__ and result["machine"]["cores"] >= 1
    expected = {"device": "cpu", "dtype": "float32", "threads": 1, "quick": True, "seconds": 0.0, "mine": None}
    assert expected.items() <= result["settings"].items()
    assert [c["benchmark"] for c in result["comparisons"]] == ["attention"] * 4 + ["experts"] * 2
    for c in result["comparisons"]:
        assert set(c["timings"]) == {c["ours"], *c["ratios"]} == set(c["errors"]) == set(c["rates"])
        for timing in c["timings"].values():
            assert 0 < timing["low"] <= timing["median"] <= timing["high"]
            assert timing["repeats"] == len(timing["samples"]) == 3
    assert set(result["crossover"]) == {"forward", "forward+backward"}
    measured = [c["timings"]["minim1"]["median"] for c in result["comparisons"][:4]]
    assert [row["seconds"] for row in result["roofline"]["rows"]] == measured  # not measured once more
    assert result["skipped"] == result["refused"] == {}


def test_the_tables_have_every_number(stored):
    text = (stored / "bench.md").read_text(encoding="utf-8")
    assert text.count("| HF loop |") == 4 and "| HF eager |" in text and "## roofline" in text
    assert "needs CUDA" in text and "its numbers mean little" in text
    assert max(len(line) for line in text.splitlines() if line.startswith("|")) < 160


def test_the_figure_is_drawn_or_skipped_by_name(stored, capsys, monkeypatch):
    pytest.importorskip("plotly")
    assert "<html" in (stored / "attention.html").read_text(encoding="utf-8")[:200]
    assert "HF loop" in (stored / "attention.txt").read_text(encoding="utf-8")
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    (stored / "bench.md").unlink()
    bench(None, "--plot", str(stored / "bench.json"))
    assert capsys.readouterr().out.endswith("bench.md\nNo figure: plotly is not installed\n")
    assert "| HF loop |" in (stored / "bench.md").read_text(encoding="utf-8")


def test_the_figure_shows_time_per_token_of_each():
    made = {"comparisons": [comparison(n, [n * 2e-6], [n * n * 1e-6]).to_json() for n in (128, 64)]}
    assert figure.curves(made)["forward"] == {
        "minim1": [(64, pytest.approx(2.0)), (128, pytest.approx(2.0))],
        "SDPA": [(64, pytest.approx(64.0)), (128, pytest.approx(128.0))],
    }
    made |= {"machine": {"gpu": None, "cpu": "Z80"}, "settings": {"dtype": "float32", "threads": 1}}
    assert "on Z80 (float32" in figure.alt_text(made)
    assert "Forward, SDPA: 64 µs per token at 64 tokens, 128 at 128." in figure.alt_text(made)
    looks = figure.STYLES.values()
    assert {name for name in (attention.OURS, "mine", *attention.PEERS)} == set(figure.STYLES)
    assert len({marker for _, marker, _ in looks}) == len({colour for colour, *_ in looks}) == len(figure.STYLES)


def test_labels_at_the_ends_of_lines_do_not_overlap():
    lines = {name: [(64, value)] for name, value in (("a", 10.0), ("b", 10.1), ("c", 1000.0))}
    heights = [height for *_, height in figure._labels(lines, [10.0, 1000.0])]
    assert all(b - a > 0.1 for a, b in zip(heights, heights[1:])) and heights[0] == 1.0


def test_json_is_alone_on_stdout(tmp_path, capsys):
    bench(tmp_path, "experts", "--quick", "--json", "--seconds", "0")
    said = capsys.readouterr()
    assert json.loads(said.out)["comparisons"][0]["benchmark"] == "experts" and "HF eager" in said.err
    assert not (tmp_path / "attention.html").exists()


def test_a_reason_is_said_once(capsys):
    said = set()
    texts = [command.to_text(c, said) for c in results(lengths=(64,))]
    assert "fla chunk    skipped: needs CUDA" in texts[0] and "fla" not in texts[1]


def test_a_refused_benchmark_does_not_stop_the_others(tmp_path, monkeypatch):
    def wrong(x, *others):
        return torch.zeros_like(x).requires_grad_()

    monkeypatch.setattr(experts, "dispatch_by_sort", wrong)
    with pytest.raises(UserError, match="experts .* is not compared: minim1 is wrong"):
        bench(tmp_path, "experts", "attention", "--quick", "--seconds", "0", "--lengths", "64")
    result = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    assert set(result["refused"]) == {"experts"} and {c["benchmark"] for c in result["comparisons"]} == {"attention"}
    assert "experts was refused" in (tmp_path / "bench.md").read_text(encoding="utf-8")


def test_a_run_that_is_cut_off_keeps_what_it_has(tmp_path, monkeypatch):
    def benchmark(options):
        yield from experts.benchmark(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(attention, "benchmark", benchmark)
    with pytest.raises(KeyboardInterrupt):
        bench(tmp_path, "attention", "--quick", "--seconds", "0")
    assert len(json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))["comparisons"]) == 2


def test_a_benchmark_that_cannot_run_at_all_is_skipped_by_name(tmp_path, monkeypatch):
    def benchmark(options):
        raise Skip("no such thing here")
        yield

    monkeypatch.setattr(experts, "benchmark", benchmark)
    bench(tmp_path, "experts", "--quick")
    assert json.loads((tmp_path / "bench.json").read_text())["skipped"] == {"experts": "no such thing here"}


@pytest.mark.parametrize("file", ["learners_own.py", "learners_own.ipynb"])
def test_mine_is_found_in_the_folder_we_are_in(tmp_path, monkeypatch, file):
    source = ("from minim1.model.lightning import lightning_chunked\ndef fast(q, k, v, slopes):\n"
              "    return lightning_chunked(q, k, v, 2 * slopes)\n")
    if file.endswith(".ipynb"):
        source = json.dumps({"cells": [{"cell_type": "code", "source": source}]})
    (tmp_path / file).write_text(source)
    mine = f"{file.removesuffix('.py')}:fast"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    bench(tmp_path, "attention", "--quick", "--seconds", "0", "--lengths", "64", "--mine", mine)
    result = json.loads((tmp_path / "bench.json").read_text())
    assert all(c["skipped"]["mine"].startswith("wrong: error") for c in result["comparisons"])
    assert result["settings"]["mine"] == mine


@pytest.mark.parametrize("words, sentence", [
    (["speed"], "unknown benchmark 'speed'; choose among attention"),
    (["--device", "tpu"], "--device is 'tpu'; choose auto, cpu or cuda"),
    (["--dtype", "int8"], "--dtype is 'int8'; choose"),
    (["--threads", "0"], "--threads is 0; it must be at least 1"),
    (["--seconds", "-1"], "--seconds is -1.0"),
    (["--lengths", "64", "0"], "--lengths has 0; a length is at least 1"),
    (["--mine", "no_such_module:f"], "part lightning='no_such_module:f' was not found"),
    (["--mine", "math"], "part lightning='math' was not found"),
    (["--mine", "math:pi"], "part lightning='math:pi' is a float; expected a function"),
    (["--plot", "no_such.json"], "no_such.json cannot be read as a stored result"),
])
def test_a_mistake_is_one_sentence(tmp_path, words, sentence):
    with pytest.raises(UserError, match=sentence.replace("(", r"\(")) as caught:
        bench(tmp_path / "out", *words)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_a_result_of_another_kind_is_not_drawn(tmp_path):
    (tmp_path / "other.json").write_text("[1]")
    with pytest.raises(UserError, match="is not a result of this version"):
        bench(None, "--plot", str(tmp_path / "other.json"))


def test_flop_are_counted_for_the_blocks_that_are_used():
    from inspect import signature

    from minim1.model.lightning import lightning_attention

    assert roofline.BLOCK["cpu"] == signature(lightning_attention).parameters["block_size"].default
