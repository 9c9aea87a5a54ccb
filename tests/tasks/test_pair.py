"""Pair-sum search: what is right, what the demonstrator does, what the parts say."""

import re
from statistics import mean

import pytest

from minim1.errors import UserError
from minim1.tasks import PairDemonstrator, Problem, TASKS, format_completion

PAIR = TASKS["pair"]


def fixed(numbers=(3, 8, 10, 1), target=9):
    """8 + 1 is the only pair of the default numbers that gives 9."""
    data = {"numbers": numbers, "target": target}
    return Problem("pair", "", "", "", "", len(numbers), data)


def write(*numbers):
    return "".join(f"⟨{n}⟩" for n in numbers)


def parts(thinking, answer=write(8, 1), problem=fixed()):
    return PAIR.verify(problem, format_completion(thinking, answer)).parts


def numbers_in(text):
    return [int(n) for n in re.findall("⟨(\\d+)⟩", text)]


@pytest.mark.parametrize("answer, reward, form", [
    (write(8, 1), 1, 1), (write(1, 8), 1, 1),
    (write(3, 8), 0, 1),                                  # wrong sum
    (write(4, 5), 0, 1), (write(6, 3), 0, 1), (write(3, 6), 0, 1),   # right sum, not both listed
    (write(8), 0, 0), (write(8, 1, 8), 0, 0), (write(8, 13), 0, 0), ("⟨=8⟩⟨=1⟩", 0, 0),
    ("⟨08⟩⟨1⟩", 0, 0), ("⟨٨⟩⟨1⟩", 0, 0), ("81", 0, 0), (write(8, 1) + "⟨yes⟩", 0, 0),
])
def test_reward(answer, reward, form):
    verdict = PAIR.verify(fixed(), format_completion("⟨8⟩⟨1⟩⟨9⟩⟨yes⟩", answer))
    assert (verdict.reward, verdict.parts["correct"], verdict.parts["format"]) == (reward, reward, form)


def test_one_number_cannot_be_used_twice():
    problem = fixed(target=4)
    assert PAIR.verify(problem, format_completion("", write(8, 8))).reward == 0
    assert PAIR.verify(problem, format_completion("", write(3, 1))).reward == 1


def test_the_sum_is_modulo_twelve():
    assert PAIR.verify(fixed(target=6), format_completion("", write(10, 8))).reward == 1


def test_parts_of_a_good_search():
    thinking = "⟨3⟩⟨10⟩⟨1⟩⟨no⟩⟨wait⟩⟨8⟩⟨1⟩⟨9⟩⟨yes⟩"
    assert parts(thinking) == {"format": 1, "correct": 1, "tries": 2, "repeats": 0, "waits": 1, "valid": 1,
                               "sums": 1, "verdicts": 1, "wait_after_first_no": 1}


def test_parts_of_bad_searches():
    once = parts("⟨3⟩⟨10⟩⟨1⟩⟨no⟩", write(3, 10))
    assert (once["correct"], once["tries"], once["waits"], once["wait_after_first_no"]) == (0, 1, 0, 0)
    again = parts("⟨3⟩⟨10⟩⟨1⟩⟨no⟩⟨wait⟩⟨10⟩⟨3⟩⟨1⟩⟨no⟩⟨wait⟩⟨3⟩⟨10⟩⟨1⟩⟨no⟩")
    assert (again["tries"], again["repeats"], again["waits"]) == (3, 2, 2)
    sloppy = parts("⟨3⟩⟨10⟩⟨2⟩⟨no⟩⟨wait⟩⟨8⟩⟨4⟩⟨0⟩⟨yes⟩⟨wait⟩⟨8⟩⟨8⟩⟨9⟩⟨yes⟩⟨wait⟩⟨8⟩⟨1⟩⟨9⟩⟨no⟩")
    assert (sloppy["valid"], sloppy["sums"], sloppy["verdicts"]) == (0.5, 0.5, 0.5)
    assert parts("⟨8⟩⟨1⟩⟨9⟩⟨yes⟩").get("wait_after_first_no") is None
    late = parts("⟨3⟩⟨10⟩⟨1⟩⟨no⟩⟨8⟩⟨1⟩⟨9⟩⟨no⟩⟨wait⟩⟨8⟩⟨1⟩⟨9⟩⟨yes⟩")
    assert (late["wait_after_first_no"], late["tries"]) == (0, 1)  # two tries in one are none
    nothing = parts("hm")
    assert nothing["tries"] == 0 and not nothing.keys() & {"valid", "sums", "verdicts", "wait_after_first_no"}


def test_parts_of_a_search_that_was_cut():
    cut = PAIR.verify(fixed(), "<think>\n⟨3⟩⟨10⟩⟨1⟩⟨no⟩⟨wait⟩⟨8⟩⟨1⟩")
    assert cut.reward == cut.parts["format"] == 0
    assert (cut.parts["tries"], cut.parts["waits"], cut.parts["wait_after_first_no"]) == (1, 1, 1)
    assert "wait_after_first_no" not in PAIR.verify(fixed(), "<think>\n⟨3⟩⟨10⟩⟨1⟩⟨no⟩").parts


def test_the_verdict_is_about_the_written_sum():
    assert parts("⟨3⟩⟨10⟩⟨9⟩⟨yes⟩")["verdicts"] == 1 and parts("⟨3⟩⟨10⟩⟨9⟩⟨no⟩")["verdicts"] == 0


def test_what_a_prompt_looks_like():
    for difficulty in PAIR.difficulties:
        for seed in range(200):
            problem = PAIR.sample(seed, difficulty)
            assert problem.prompt == f"⟨pair⟩{write(*problem.data['numbers'])}⟨={problem.data['target']}⟩"
            assert len(set(problem.data["numbers"])) == difficulty
            tries = problem.trace.split("⟨wait⟩")
            measured = PAIR.verify(problem, format_completion(problem.trace, problem.answer)).parts
            assert measured["tries"] == len(tries) and measured["repeats"] == 0
            assert measured["valid"] == measured["sums"] == measured["verdicts"] == 1
            assert [t.endswith("⟨yes⟩") for t in tries] == [False] * (len(tries) - 1) + [True]
            assert tries[-1].startswith(problem.answer)


def demonstrations(count=6000, difficulty=4, **settings):
    for seed in range(count):
        problem = PAIR.sample(seed, difficulty)
        shown = PAIR.demonstrate(problem, seed, PairDemonstrator(**settings))
        yield problem, shown, PAIR.verify(problem, format_completion(shown.thinking, shown.answer))


def test_every_demonstration_is_sound():
    for problem, shown, verdict in demonstrations(3000):
        assert shown.prompt == problem.prompt and verdict.parts["format"] == 1
        assert verdict.parts["valid"] == verdict.parts["sums"] == verdict.parts["verdicts"] == 1
        assert verdict.parts["repeats"] == 0 and verdict.parts["waits"] == verdict.parts["tries"] - 1
        last = shown.thinking.split("⟨wait⟩")[-1]
        assert last.startswith(shown.answer) and last.endswith("⟨yes⟩" if verdict.reward else "⟨no⟩")


def test_the_first_wait_is_rare_wherever_it_carries_loss():
    first, unsupervised, missed = [], 0, 0
    for _, shown, verdict in demonstrations():
        silent = [text for text, supervised in shown.reasoning if not supervised]
        missed += "wait_after_first_no" in verdict.parts
        if silent:
            assert silent == ["⟨wait⟩"] and shown.reasoning[1] == ("⟨wait⟩", False) and verdict.reward == 1
            assert "⟨wait⟩" not in shown.reasoning[0][0]
            unsupervised += 1
        elif "wait_after_first_no" in verdict.parts:
            first.append(verdict.parts["wait_after_first_no"])
    assert mean(first) == pytest.approx(0.05, abs=0.012)
    assert unsupervised / missed == pytest.approx(0.5, abs=0.025)


def test_the_lazy_demonstrator_is_right_about_one_time_in_five():
    rewards = [verdict.reward for _, _, verdict in demonstrations(long_share=0.0)]
    assert 0.19 < mean(rewards) < 0.25
    assert all(len(shown.reasoning) == 1 for _, shown, _ in demonstrations(500, long_share=0.0))


def test_who_has_gone_on_once_keeps_going_on():
    later = [v.parts for _, _, v in demonstrations(3000, p_wait=1.0, long_share=0.0)]
    gave_up = [p["correct"] == 0 for p in later]
    first = sum("wait_after_first_no" in p for p in later)
    misses = sum(p["tries"] - p["correct"] for p in later) - first
    assert sum(gave_up) / misses == pytest.approx(0.1, abs=0.02)
    assert all(p["correct"] for p in (v.parts for _, _, v in demonstrations(300, p_wait=1.0, p_continue=1.0)))
    never = [v.parts for _, _, v in demonstrations(300, p_wait=0.0, long_share=0.0)]
    assert all(p["waits"] == 0 for p in never)


def test_a_demonstrator_with_a_good_eye_starts_with_a_hit():
    assert all(v.parts["tries"] == v.reward == 1 for _, _, v in demonstrations(200, p_good=1.0))


def test_pairs_are_tried_in_random_order():
    """Neither the place in the prompt nor the order of the two numbers tells what is tried first."""
    places = [tuple(p.data["numbers"].index(n) for n in numbers_in(s.thinking)[:2]) for p, s, _ in demonstrations(3000)]
    assert len(set(places)) == 12
    assert max(places.count(pair) for pair in set(places)) < 3000 / 12 * 1.4


def test_practice_is_arithmetic_without_search():
    hits = []
    for seed in range(1500):
        document = PAIR.practice(seed)
        problem = PAIR.sample(seed)
        assert document.answer is None and document.reasoning == [(document.thinking, True)]
        lines = document.thinking.split("⟨;⟩")
        assert len(lines) == 7
        for line in lines:
            measured = parts(line, problem=problem)
            assert measured["tries"] == measured["valid"] == measured["sums"] == measured["verdicts"] == 1
            hits.append(line.endswith("⟨yes⟩"))
    assert mean(hits) == pytest.approx(0.35, abs=0.02)


@pytest.mark.parametrize("setting", ["p_wait", "p_continue", "long_share", "p_good"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_probabilities_are_checked(setting, value):
    with pytest.raises(UserError, match=f"{setting} is .*between 0 and 1"):
        PairDemonstrator(**{setting: value})
