"""Chapter 00: its figures say what they draw, and the runs that they draw are those that the text speaks of."""

import pytest

import minim1
from minim1.course.figures import meet_the_model as figures
from minim1.course.quiz import FOLDER, load
from minim1.evaluate import Score, answer, heldout_problems, task_sampling

pytest.importorskip("plotly")
NANO = figures.stored("nano")


def texts(fig):
    return [annotation.text for annotation in fig.layout.annotations]


def test_the_shipped_model_is_the_first_seed_of_the_stored_runs():
    assert figures.shipped_report() == NANO["cards"][0]
    assert [r["step"] for r in figures.shipped_log("rl")] == NANO["curves"][0]["rl"]["step"]


def test_a_run_that_was_not_made_is_said_to_be_missing_and_nothing_is_drawn():
    assert figures.stored("no-such-run") is None
    fig = figures.two_runs(NANO, None)
    assert figures.NOT_YET in texts(fig)
    assert all(y is None for trace in fig.data if trace.xaxis in ("x2", "x4", "x6") for y in trace.y)


def test_a_run_that_was_made_is_drawn_beside_the_other():
    fig = figures.two_runs(NANO, NANO)
    assert figures.NOT_YET not in texts(fig)
    left, right = ([t.y for t in fig.data if (t.xaxis in ("x2", "x4", "x6")) == side] for side in (False, True))
    assert left == right and len(left) == 4 * len(NANO["seeds"])


def test_a_thought_has_a_try_in_each_row_and_is_cut_where_the_budget_ends():
    symbols, problem = "9 1 10 no wait 6 1 7 yes".split(), heldout_problems("pair", 1)[0]
    for budget in (0, 4, 7, 99):
        fig = figures.thought(problem, symbols, budget, "6 1", True)
        kept, cut, said = fig.data
        assert list(kept.text) == symbols[:budget] and list(cut.text) == symbols[budget:]
        assert [*kept.y, *cut.y] == [0] * 5 + [1] * 4 and [*kept.x, *cut.x] == [0, 1, 2, 3, 4, 0, 1, 2, 3]
        assert "6 1, right" in said.text[0] and fig.layout.title.text == "numbers 7 1 9 6, target 7"


def test_an_answer_that_does_not_end_is_cut_and_its_verdict_stays_in_the_picture():
    problem = heldout_problems("pair", 1)[0]
    said = figures.thought(problem, ["9", "1"], 2, "6 no wait " * 20, False).data[-1].text[0]
    assert "6 no wait" in said and said.endswith("…, wrong") and len(said) < 45


def test_budgets_that_end_a_try_are_the_line_and_guesses_stand_over_as_many_tries():
    scores = {budget: Score("pair", 10, budget / 100, 0.1, budget) for budget in (0, 4, 5, 9, 12)}
    guess, whole, waits, others = figures.budgets(scores, {"guess": [0.2, 0.4]}).data
    assert (list(guess.x), list(whole.x), list(waits.x), list(others.x)) == ([4, 9], [0, 4, 9], [5], [12])
    assert list(whole.y) == [0, 0.04, 0.09] and list(whole.error_y.array) == [0.1, 0.1, 0.1]


def test_the_two_models_are_drawn_layer_by_layer_and_expert_by_expert():
    m1, ours = minim1.preset("m1-456b"), minim1.preset("nano")
    fig = figures.two_models(m1, ours, (1_000_000, 256))
    sizes = [len(trace.x) for trace in fig.data]
    assert sizes == [70, 10, 2, 30, 7, 1, 2, 2]
    numbers = ("456.1 billion", "45.9 billion", "1,000,000 tokens", "1.5 million", "256 tokens")
    assert all(number in " ".join(texts(fig)) for number in numbers)


def test_a_thought_that_is_cut_is_the_beginning_of_the_whole_one():
    shipped = minim1.load("shipped")
    problem = heldout_problems("pair", 3)[2]

    def thinking(budget):
        sampling = task_sampling(shipped.tokenizer, max_new_tokens=64, thinking_budget=budget)
        return answer(shipped.model, shipped.tokenizer, [problem], sampling)[0].completion.partition("\n</think>")[0]

    whole = thinking(None)
    assert all(whole.startswith(thinking(budget)) and thinking(budget) != whole for budget in (0, 4, 6))


def test_every_right_answer_about_the_press_says_where_it_stands():
    press = [question for question in load(FOLDER / "00.toml") if question["text"].startswith("An article wrote")]
    assert len(press) == 3
    for question in press:
        right = next(option for option in question["options"] if option["right"])
        assert "M1 report" in right["feedback"]
