"""The frame of a completion, and the catalogue of tricks that must earn nothing."""

import time

import pytest

from minim1.tasks import TASKS, format_completion, parse_completion

END = "<end_of_sentence>\n"


def test_parse_takes_a_completion_apart():
    assert parse_completion(format_completion("a\nb", "c d")) == ("a\nb", "c d", True)
    assert parse_completion(format_completion("", "")) == ("", "", True)


@pytest.mark.parametrize("text, thinking", [
    ("", ""),
    ("42", ""),
    ("<think>hm\n</think>\n42" + END, ""),                       # no line break after the tag
    (" <think>\nhm\n</think>\n42" + END, ""),                    # something before it
    ("<think>\nhm", "hm"),                                       # cut while thinking
    ("<think>\nhm\n</think>\n42", "hm"),                         # cut before the end
    ("<think>\nhm\n</think>\n42<end_of_sentence>", "hm"),        # no line break after the end
    ("<think>\nhm\n</think>\n42" + END + "x", "hm"),             # text after the end
    ("<think>\nhm\n</think>\n42" + END + END, "hm"),             # two ends
    ("<think>\nhm\n</think>\n42\n</think>\n43" + END, "hm"),     # two answers
    ("<think>\nhm\n</think>\n<think>\nhm\n</think>\n42" + END, "hm"),
    ("<think>\n<think>\nhm\n</think>\n42" + END, "<think>\nhm"),
    ("<think>\nh</think>m\n</think>\n42" + END, "h</think>m"),
    ("<think>\nhm<end_of_sentence>\n\n</think>\n42" + END, "hm<end_of_sentence>\n"),
    ("<think>\nhm<beginning_of_sentence>\n</think>\n42" + END, "hm<beginning_of_sentence>"),
    ("<think>\nhm<begin_of_document>\n</think>\n42" + END, "hm<begin_of_document>"),
    ("<think>\n</think>\n42" + END, "</think>\n42" + END),        # one line break for two tags
    ("<think>\nhm</think>42" + END, "hm</think>42" + END),
    ("&lt;think>\nhm\n&lt;/think>\n42" + END, ""),               # spelled, not spoken
    ("<think>\nhm\n&lt;/think>\n42" + END, "hm\n&lt;/think>\n42" + END),
])
def test_ill_formed(text, thinking):
    parsed = parse_completion(text)
    assert parsed == (thinking, "", False)


def test_spelled_tags_in_the_thinking_are_only_text():
    text = format_completion("&lt;/think> is how one stops", "42")
    assert parse_completion(text) == ("&lt;/think> is how one stops", "42", True)


def tricks(trace, answer):
    """Completions that hold the right answer somewhere, or look as if they did."""
    good = format_completion(trace, answer)
    wide = str.maketrans("0123456789abcdefghijklmnop", "０１２３４５６７８９ａｂｃｄｅｆｇｈｉｊｋｌｍｎｏｐ")
    arabic = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")
    answers = {
        "empty": "", "blank": " ", "before": " " + answer, "after": answer + " ",
        "newline before": "\n" + answer, "newline after": answer + "\n", "return": answer + "\r",
        "tab": "\t" + answer, "no-break space": answer + "\u00a0", "nul": answer + "\0",
        "zero width": answer + "\u200b", "mark": "\ufeff" + answer, "twice": answer * 2,
        "list": f"{answer},{answer}", "lines": f"{answer}\n{answer}", "sentence": f"The answer is {answer}.",
        "quoted": f'"{answer}"', "box": f"\\boxed{{{answer}}}", "bold": f"**{answer}**",
        "leading zero": "0" + answer, "zero in symbol": answer.replace("⟨", "⟨0"), "plus": "+" + answer,
        "minus": "-" + answer, "decimal": answer + ".0", "exponent": answer + "e0", "underscore": answer + "_0",
        "wide": answer.translate(wide), "arabic": answer.translate(arabic), "upper": answer.upper(),
        "brackets": answer.replace("⟨", "〈").replace("⟩", "〉"),
        "ascii brackets": answer.replace("⟨", "<").replace("⟩", ">"),
        "entity": answer.replace("⟨", "&lang;"), "spelled tag": "&lt;think>" + answer,
        "spelled end": answer + "&lt;end_of_sentence>", "pattern": ".*", "trace": trace, "huge": answer * 5000,
        "nothing real": "⟨wait⟩", "thinking again": f"<think>\n{trace}\n</think>\n{answer}",
        "target symbols": answer.replace("⟨", "⟨="), "hidden end": answer + END + answer,
    }
    yield from ((name, format_completion(trace, a), a == answer) for name, a in answers.items())
    frames = {
        "nothing": "", "answer alone": answer, "answer and end": answer + END,
        "answer in the thinking": format_completion(trace + answer, ""),
        "only thinking": f"<think>\n{trace}{answer}{END}", "no end": good.removesuffix(END),
        "no last newline": good.removesuffix("\n"), "more after the end": good + answer,
        "newline after the end": good + "\n", "twice": good * 2, "space first": " " + good,
        "newline first": "\n" + good, "no think": good.removeprefix("<think>\n"),
        "closed early": good.replace("<think>\n", "<think>\n\n</think>\n", 1),
        "opened twice": "<think>\n" + good, "closed twice": good.replace("\n</think>\n", "\n</think>\n\n</think>\n"),
        "upper tags": good.replace("think", "THINK"), "carriage returns": good.replace("\n", "\r\n"),
        "spelled tags": good.replace("<", "&lt;"), "thinking tag": good.replace("think>", "thinking>"),
        "user turn": good + "<beginning_of_sentence>user name=user\n",
        "tight": good.replace("\n", ""), "end in the thinking": good.replace("\n</think>", END + "\n</think>"),
    }
    yield from ((name, text, text == good) for name, text in frames.items())


@pytest.mark.parametrize("family", TASKS)
def test_no_trick_earns_anything(family):
    task, tried = TASKS[family], 0
    for seed in range(40):
        problem = task.sample(seed, task.difficulties[seed % len(task.difficulties)], split="all")
        for name, text, harmless in tricks(problem.trace, problem.answer):
            if not harmless:  # a replacement that found nothing to replace
                verdict = task.verify(problem, text)
                assert verdict.reward == 0 and verdict.parts["correct"] == 0, (name, text, problem)
                tried += 1
    assert tried > 40 * 50


@pytest.mark.parametrize("family", TASKS)
def test_the_answer_to_another_problem_is_wrong(family):
    task = TASKS[family]
    for seed in range(100):
        one, other = task.sample(seed), task.sample(seed + 1000)
        assert task.verify(one, format_completion("", other.answer)).reward == task.is_right(one, other.answer)
    near = {"add": lambda a: str(int(a) + 1), "sort": lambda a: a[3:] + a[:3], "recall": lambda a: str(int(a) % 8 + 1)}
    if family in near:
        for seed in range(100):
            problem = task.sample(seed)
            verdict = task.verify(problem, format_completion(problem.trace, near[family](problem.answer)))
            assert verdict.reward == 0 and verdict.parts["format"] == 1


@pytest.mark.parametrize("family", TASKS)
def test_long_completions_are_judged_quickly(family):
    task = TASKS[family]
    problem = task.sample(0)
    start = time.perf_counter()
    for text in (problem.trace * 20_000, "⟨" * 300_000, problem.answer * 50_000, "<think>\n" * 20_000):
        assert task.verify(problem, format_completion(text, text)).reward == 0
        assert task.verify(problem, text).reward == 0
    assert time.perf_counter() - start < 3
