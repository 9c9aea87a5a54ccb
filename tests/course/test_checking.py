"""The engine of the checks: every layer has its sentence, nothing reaches stderr, and only strict mode raises."""

import sys
import warnings

import numpy as np
import pytest
import torch

from minim1 import learner
from minim1.course import checking
from minim1.course.checking import CheckFailed, Exercise, check, run_check, yours_or_ours
from minim1.course.comparing import compare, describe_difference

EARLY = "The weights are one token too early."


def body(probe):
    x, slopes = probe.random(2, probe.size(4, 9), 3, 3), probe.slopes(3)
    out = probe.call(x, slopes)
    probe.close("output", out, decayed(x, slopes), mistakes={EARLY: lambda: decayed(x, slopes, first=0)})
    probe.gradients(lambda x: probe.call(x, slopes), {"x": x}, lambda x: decayed(x, slopes))
    probe.require(probe.call(x[:, :1], slopes).shape[1] == 1, "edge case", "One token must give one output.")


def decayed(x, slopes, first=1):
    """x_t exp(-s (t + 1)), in fp64."""
    time = torch.arange(x.shape[1], dtype=torch.float64) + first
    return x.double() * torch.exp(-slopes.double() * time.view(-1, 1)).view(1, -1, slopes.shape[0], 1)


def right(x, slopes):
    time = torch.arange(x.shape[1]) + 1
    return x * torch.exp(-slopes * time.view(-1, 1)).unsqueeze(-1)


def early(x, slopes):
    return right(x, slopes) * torch.exp(slopes).unsqueeze(-1)


def stub(x, slopes):
    raise NotImplementedError("exercise 9.1")


def in_place(x, slopes):
    with torch.no_grad():
        x.mul_(2)
    return right(x, slopes)


def crash(x, slopes):
    return x @ slopes.reshape(7, 7)


EXERCISE = Exercise("9.1", "decay_tokens", "Decay", body, lambda: right)


@pytest.fixture(autouse=True)
def one_exercise(monkeypatch):
    import minim1.course.checks

    monkeypatch.setattr(minim1.course.checks, "exercises", lambda: {"9.1": EXERCISE})


def verdict(function, seeds=(0, 1)):
    return run_check(EXERCISE, function, seeds)


def test_a_right_function_passes_with_every_quantity_graded():
    result = verdict(right)
    assert result.status == "passed" and [row.name for row in result.rows] == ["output", "gradient of x"]
    assert {row.grade for row in result.rows} <= {"exact", "close"} and all(row.digits >= 5 for row in result.rows)
    assert "test_checking.py, line" in result.where


def test_a_blank_one_is_not_started():
    assert verdict(stub).status == "not started" and "not started" in str(verdict(stub))


@pytest.mark.parametrize("function, layer, words", [
    (early, "value", EARLY),
    (lambda x, s: None, "type", "is None"),
    (lambda x, s: (x, s), "type", "a tuple of 2"),
    (lambda x, s: list(right(x, s)), "type", "torch.stack or torch.cat"),
    (lambda x, s: right(x, s) * 1.0001, "value", "1 + 1.0e-04 times"),
    (lambda x, s: np.zeros(3), "type", "ndarray"),
    (lambda x, s: right(x, s).long(), "type", "int64"),
    (lambda x, s: right(x, s).transpose(1, 2), "shape", "axes 1 and 2 are swapped"),
    (lambda x, s: right(x, s)[:, 2:], "shape", "tokens missing: 2"),
    (lambda x, s: right(x, s).bfloat16().float(), "value", "as if computed in half precision"),
    (lambda x, s: right(x, s).sum(-1), "shape", "should have 4 axes, not 3"),
    (lambda x, s: right(x, s).log(), "finite", "NaN or infinite"),
    (lambda x, s: -right(x, s), "value", "sign is wrong everywhere"),
    (lambda x, s: right(x, s) / 8, "value", "0.125 times"),
    (lambda x, s: 0 * right(x, s), "value", "0 everywhere"),
    (lambda x, s: right(x, s) * torch.tensor([1, 2, 1]).view(3, 1), "value", "it differs for head 1 only, of 3"),
    (lambda x, s: right(x, s) + (torch.arange(x.shape[1]) > 2).view(-1, 1, 1), "value", "tokens 0 to 2 agree, from token 3 on"),
    (lambda x, s: right(x, s) + (torch.arange(x.shape[1]) > 0).view(-1, 1, 1), "value", "token 0 agrees, from token 1 on"),
    (lambda x, s: right(x, s).detach(), "gradient", "No gradient flows"),
    (lambda x, s: right(x, s).detach() + 0 * x, "gradient", "gradient of x is not as expected: it is 0 everywhere"),
    (in_place, "property", "changed its input `x` in place"),
    (lambda x, s: right(x, s) if x.shape[1] > 1 else x[:, :0], "edge case", "One token must give one output"),
    (crash, "error", "RuntimeError: shape '[7, 7]' is invalid for input of size 3 in line"),
    (lambda x, s: undefined, "error", "NameError"),  # noqa: F821
    (lambda x, s: sys.exit(3), "error", "SystemExit"),
    (lambda x: x, "error", "TypeError"),
    (7, "type", "is an int, expected a function"),
    (None, "type", "None, expected a function"),
])
def test_every_mistake_has_its_sentence(function, layer, words):
    result = verdict(function)
    assert (result.status, result.layer) == ("wrong", layer)
    assert words in result.sentence and "\n" not in result.sentence, result.sentence


def test_a_failing_backward_pass_is_a_sentence():
    def spoiled(x, slopes):
        out = right(x, slopes)
        square = out * out
        out.mul_(1)
        return square / square.detach() * out.detach()

    assert "backward pass through decay_tokens fails: a tensor that it needs was changed in place" in verdict(spoiled).sentence


def test_a_long_message_is_cut_between_words():
    def wordy(x, slopes):
        raise ValueError("shape " * 100)

    assert "shape shape …" in verdict(wordy).sentence


def test_a_blank_helper_from_another_exercise_is_named():
    def calls_another(x, slopes):
        raise NotImplementedError("exercise 9.0")

    assert "exercise 9.0, which is not written yet" in verdict(calls_another).sentence


def test_torchs_own_not_implemented_is_no_stub():
    def unsupported(x, slopes):
        raise NotImplementedError("\"exp\" not implemented for 'Half'")

    assert verdict(unsupported).status == "wrong"


def test_only_hidden_seeds_catch_what_knows_the_visible_case():
    lengths = set()

    def visible_only(x, slopes):
        lengths.add(x.shape[1]) if recording else None
        return right(x, slopes) if x.shape[1] in lengths else torch.zeros_like(x)

    recording = True
    assert verdict(visible_only, (0,)).status == "passed"
    recording = False
    assert verdict(visible_only, (0,)).status == "passed" and verdict(visible_only, (0, 1, 2, 3)).status == "wrong"


def test_inputs_depend_on_the_seed_alone():
    drawn = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        drawn.append(checking.Probe(EXERCISE, right, 3).random(5))
    assert torch.equal(*drawn) and not torch.equal(drawn[0], checking.Probe(EXERCISE, right, 4).random(5))


def test_the_visible_check_never_raises_and_strict_does(capsys):
    check("9.1", early)
    check("9.1", None)
    check("nine", right)
    said = capsys.readouterr()
    assert EARLY in said.out and "choose one of 9.1" in said.out and said.err == ""
    with pytest.raises(CheckFailed, match="too early"):
        check("9.1", early, strict=True)
    with pytest.raises(CheckFailed, match="not started"):
        check("9.1", stub, strict=True)
    check("9.1", right, strict=True, seeds=(1, 2))
    assert "passed with seeds 1, 2" in capsys.readouterr().out


def test_nothing_reaches_stderr(capsys):
    def noisy(x, slopes):
        warnings.warn("deprecated")
        print("hello", file=sys.stderr)
        return right(x, slopes)

    check("9.1", noisy)
    check("9.1", noisy, strict=True)
    said = capsys.readouterr()
    assert said.err == "" and "deprecated" in said.out and "passed" in said.out


def test_the_packages_own_function_is_refused(capsys):
    from minim1 import decay_slopes

    check("9.1", decay_slopes)
    assert "is the package's own (minim1.model.lightning), not yours" in capsys.readouterr().out
    with pytest.raises(CheckFailed):
        check("9.1", decay_slopes, strict=True)


def test_yours_or_ours_says_which(capsys):
    assert yours_or_ours("9.1", stub) is right and "minim1's own, because yours is not started" in capsys.readouterr().out
    assert yours_or_ours("9.1", early) is right and "because yours is wrong" in capsys.readouterr().out

    def mine(x, slopes):
        return right(x, slopes)

    assert yours_or_ours("9.1", mine) is mine and "yours [" in capsys.readouterr().out


def test_grades():
    expected = torch.tensor([1.0, 3.0], dtype=torch.float64) / 3
    assert compare("x", expected.float(), expected).grade == "exact"
    assert compare("x", expected.float() + 1e-6, expected).grade == "close"
    off = compare("x", expected.float() + 1e-3, expected)
    assert off.grade == "off" and off.digits == 2
    assert compare("x", torch.tensor([torch.inf]), torch.tensor([torch.inf], dtype=torch.float64)).grade == "exact"
    assert compare("x", torch.tensor([torch.inf, 2]), torch.tensor([torch.inf, 1])).grade == "off"
    assert compare("x", torch.zeros(2), torch.ones(2)).digits == 0 and compare("x", torch.ones(2), torch.zeros(2)).grade == "off"


def test_swapped_axes_of_a_state_are_named():
    state = torch.randn(2, 3, 4, 4)
    assert "last two axes are swapped" in describe_difference(state.mT, state)


def test_an_infinite_entry_among_finite_ones_is_described():
    said = describe_difference(torch.tensor([1.0, torch.inf, 9.0]), torch.tensor([1.0, torch.inf, 3.0]))
    assert "head 2" in said and "9, expected 3" in said


@pytest.mark.parametrize("wrong, words", [
    ([15], "it differs for token 15 only, of 24. The first difference is at index (0, 15): False, expected True."),
    ([*range(1, 20), *range(21, 24)], "it agrees for token 0, 20 only, of 24."),
    (range(8, 24), "tokens 0 to 7 agree, from token 8 on (counted from 0) it differs."),
    (range(8, 20), "it differs for 12 of 24 tokens, first for token 8 (counted from 0)."),
])
def test_the_shorter_list_of_places_is_given_and_never_cut(wrong, words):
    mask = torch.ones(1, 24, dtype=torch.bool)
    mask[0, ::2] = False
    value = mask.clone()
    value[0, list(wrong)] ^= True
    assert words in describe_difference(value, mask, "BT")
    assert "max difference" not in str(compare("mask", value, mask))


def test_exchanged_and_missing_results_are_named():
    def two(probe):
        probe.pair(probe.call(), ("out", "state"), [(2, 5), (2, 3)])

    exercise = Exercise("9.2", "two", "Two", two, lambda: right)
    for function, words in ((lambda: (torch.ones(2, 3), torch.ones(2, 5)), "have changed places: end with `return out, state`"),
                            (lambda: (torch.ones(2, 5), None), "None in the place of `state`"),
                            (lambda: torch.ones(2, 5), "one tensor of shape (2, 5); expected (out, state)")):
        assert words in run_check(exercise, function).sentence
    assert run_check(exercise, lambda: (torch.ones(2, 5), torch.ones(2, 3))).status == "passed"


# ---------------------------------------------------------------- what is no tensor of numbers


def told(body, function, status="wrong"):
    result = run_check(Exercise("9.2", "answer", "Answer", body, lambda: function), function)
    assert result.status == status, result
    return result


@pytest.mark.parametrize(
    "value, expected, words",
    [
        (8, 4, "it is 8, expected 4"),
        ("4", 4, "a str, expected a number"),
        (True, 4, "a bool, expected a number"),
        (float("nan"), 4, "NaN, expected 4"),
        (1, True, "an int, expected True or False"),
        ([1, 5], [1, 2], "entry 1 (counted from 0) is 5, expected 2"),
        ([1], [1, 2], "it has 1 entry, expected 2; as far as both go, they agree."),
        ([1, 2, 2], [1, 2], "it has 3 entries, expected 2; as far as both go, they agree."),
        ([2], [1, 2], "it has 1 entry, expected 2; entry 0 (counted from 0) is 2, expected 1."),
        ([], [1, 2], "it has 0 entries, expected 2."),
        ([1, float("nan")], [1, 2], "entry 1 (counted from 0) is NaN, expected 2."),
        (torch.tensor([1, 2]), [1, 2], "of shape (2,), expected a list: `.tolist()` makes one of a tensor."),
        (range(1, 3), [1, 2], "a range, expected a list: `list(...)` makes one of it."),
        ({1: 2}, [1, 2], "a dict, expected a list."),
        (torch.tensor(4), 4, "expected a number: `.item()` takes it out of the tensor."),
        (None, [1, 2], "None, expected a list: does the function end with `return`?"),
        ("one two", "one to", "comes 'wo', expected 'o'"),
        ("one", "one more", "comes its end, expected ' more'"),
        (None, "one", "None, expected a text (str): does the function end with `return`?"),
        ([0, 4], [0, 3], "You counted from 1."),
    ],
)
def test_plain_values_are_told_apart(value, expected, words):
    result = told(lambda probe: probe.equal("answer", probe.call(), expected, mistakes={"You counted from 1.": [0, 4]}),
                  lambda: value)
    assert words in result.sentence


@pytest.mark.parametrize("value, expected", [(4.0, 4), ((1, (2, 3)), [1, [2, 3]]), ("", ""), ([], ()), (False, False)])
def test_equal_plain_values_pass(value, expected):
    result = told(lambda probe: probe.equal("answer", probe.call(), expected), lambda: value, "passed")
    assert [row.grade for row in result.rows] == ["exact"] and "difference" not in str(result)


@pytest.mark.parametrize("dtype, words", [(torch.int64, ""), (torch.int32, "int32, expected int64"),
                                          (torch.float32, "float32, expected int64")])
def test_whole_numbers_must_be_equal(dtype, words):
    expected = torch.tensor([1000, 2000])
    body = lambda probe: probe.close("ids", probe.call(), expected)  # noqa: E731
    result = told(body, lambda: expected.to(dtype), "wrong" if words else "passed")
    assert words in result.sentence
    told(body, lambda: expected + 1)  # one in a thousand is no rounding


# ---------------------------------------------------------------- kernels

KERNELS = '''
import triton
import triton.language as tl

@triton.jit
def right(x, out, N, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at, mask=at < N), mask=at < N)

@triton.jit
def unmasked(x, out, N, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at))

@triton.jit
def blank(x, out, N, BLOCK: tl.constexpr):
    raise NotImplementedError("exercise 9.2")

@triton.jit
def other(x, out, N, BLOCK: tl.constexpr):
    raise NotImplementedError("exercise 9.1")

@triton.jit
def calls_another(x, out, N, BLOCK: tl.constexpr):
    other(x, out, N, BLOCK)
'''


def copies(probe):
    x, out = probe.random(7), torch.full((7,), torch.nan)
    probe.launch((2,), x, out, 7, BLOCK=4)
    probe.close("copy", out, x.double())


def kernel(name):
    pytest.importorskip("triton")
    return learner.functions({"cells": [{"cell_type": "code", "source": KERNELS}]})[name]


@pytest.mark.parametrize("name, status, words", [
    ("right", "passed", ""), ("blank", "not started", ""), ("unmasked", "wrong", "loads outside of x at element offset 7"),
    ("calls_another", "wrong", "calls the function of exercise 9.1, which is not written yet"),
])
def test_kernels_are_launched_safely(name, status, words):
    result = told(copies, kernel(name), status)
    assert words in result.sentence and result.where.startswith("notebook, cell 1")


def test_what_is_no_kernel_is_told():
    assert "put @triton.jit above" in told(copies, torch.nn.Identity()).sentence


def test_without_triton_nothing_is_said_of_a_kernel_but_a_stub_is_one(monkeypatch):
    found = kernel("unmasked"), kernel("blank")
    monkeypatch.setattr("minim1.course.safe_kernel.available", lambda: "Triton is not installed here.")
    assert told(copies, found[0], "not checked").sentence == "Triton is not installed here."
    told(copies, found[1], "not started")
