"""Only a right answer in the exact frame earns anything, whether a completion comes as text or as a model's ids."""

import math
import re
import sys
import time
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minim1.data.chat import encode_chat, render_chat
from minim1.data.tokenizer import CONTROL, Tokenizer
from minim1.errors import UserError
from minim1.tasks import TASKS, format_completion, parse_completion, reasoning_gym_task
from minim1.tasks.errands import ERRANDS

FAMILIES = {**TASKS, **ERRANDS}
THINK, CLOSE, END = Tokenizer.think_id, Tokenizer.end_think_id, Tokenizer.eos_id


def right_answers(problem) -> set[str]:
    """The right answers, worked out anew from what the prompt shows (a chain's table is only in the tool)."""
    shown, numbers = problem.prompt, [int(n) for n in re.findall("[0-9]+", problem.prompt)]
    symbols = re.findall("⟨([^⟩]+)⟩", shown)
    match problem.family:
        case "add":
            return {str(numbers[0] + numbers[1])}
        case "product":
            return {str(numbers[0] * numbers[1])}
        case "sort":
            return {"".join(f"⟨{letter}⟩" for letter in sorted(symbols[1:]))}
        case "recall":
            return {dict(record.split(":") for record in symbols[1:-1])[symbols[-1][0]]}
        case "pair":
            *listed, target = numbers
            return {f"⟨{a}⟩⟨{b}⟩" for a in listed for b in listed if a != b and (a + b) % 12 == target}
        case "chain":
            key = str(numbers[0])
            while not key.startswith("="):
                key = problem.data["table"][key]
            return {key[1:]}


def as_text(pieces) -> str:
    """Control ids and texts as one text, in which a spelled marker is as good as a real one."""
    return "".join(CONTROL[piece] if isinstance(piece, int) else piece for piece in pieces)


def as_ids(tokenizer, pieces) -> str:
    """The same as a model's ids would give it."""
    ids = [i for piece in pieces for i in ([piece] if isinstance(piece, int) else tokenizer.encode(piece))]
    return tokenizer.decode_completion(ids)


def judged(task, problem, text: str):
    """The verdict, which is always finite and quick (measured in time of this thread)."""
    began = time.thread_time()
    verdict = task.verify(problem, text)
    assert time.thread_time() - began < 0.1
    assert math.isfinite(sum(verdict.parts.values()))
    assert verdict.reward in (0.0, 1.0) and verdict.reward == verdict.parts["correct"]
    return verdict


# ------------------------------------------------------------------------------------------- properties

PROBLEMS = st.sampled_from(list(FAMILIES.values())).flatmap(lambda task: st.builds(
    lambda seed, difficulty, split: (task, task.sample(seed, difficulty, split=split)),
    st.integers(-(2**63), 2**63), st.sampled_from(task.difficulties), st.sampled_from(("train", "heldout", "all")),
))  # fmt: skip
ODD = "0123456789⟨⟩⟨abcp;=+-. \n\t\r\0٣３³𝟛Ⅲ\u00a0\u200b\u200f\u202e\u2028\ufeffАаＡ<>&"


@given(PROBLEMS, st.text(alphabet=ODD, max_size=30))
def test_every_right_answer_earns_and_the_shown_one_is_right(tokenizer, tally, drawn, thinking):
    task, problem = drawn
    assert problem.answer in right_answers(problem)
    assert judged(task, problem, format_completion(problem.trace, problem.answer)).reward == 1
    for answer in right_answers(problem):
        assert judged(task, problem, as_ids(tokenizer, [THINK, thinking, CLOSE, answer, END])).reward == 1
        assert task.verify(problem, format_completion(thinking, answer)).parts["format"] == 1
    tally("fuzz cases")


@given(PROBLEMS, st.integers(0, 100), st.sampled_from(ODD) | st.characters(exclude_categories=["Cs"]) | st.just(""), st.booleans())
def test_one_other_character_is_another_answer(tokenizer, tally, drawn, place, character, insert):
    """Another in the place of one, one more, or one less."""
    task, problem = drawn
    place %= len(problem.answer) + insert
    changed = problem.answer[:place] + character + problem.answer[place + (not insert):]
    expected = float(changed in right_answers(problem))
    for text in (as_ids(tokenizer, [THINK, "", CLOSE, changed, END]), format_completion("", changed)):
        assert judged(task, problem, text).reward == expected
    tally("fuzz cases")
    tally("verifier attacks refused", 2 * (not expected))


@given(PROBLEMS, st.lists(st.integers(0, 419), max_size=40))
def test_any_ids(tokenizer, tally, drawn, ids):
    """The reward is 1 exactly for think, ordinary tokens, close, a right answer, end."""
    task, problem = drawn
    right = [CLOSE, *tokenizer.encode(problem.answer), END]
    for row in (ids, [THINK, *ids, END], [THINK, CLOSE, *ids, END], [THINK, *ids, *right]):
        verdict = judged(task, problem, tokenizer.decode_completion(row))
        if verdict.reward:
            close = row.index(CLOSE)
            assert (row[0], row[-1], row.count(THINK), row.count(CLOSE), row.count(END)) == (THINK, END, 1, 1, 1)
            assert tokenizer.decode(row[close + 1 : -1]) in right_answers(problem)
    tally("fuzz cases")


SPELLED = st.lists(st.sampled_from([*CONTROL, "<think>", "</think>", "\n", "7", "⟨", "<end_of_sentence>"])).map("".join)


@given(PROBLEMS, st.text() | SPELLED)
def test_any_text(tally, drawn, text):
    task, problem = drawn
    good, bare = format_completion(text, problem.answer), format_completion("", text)
    for whole in (text, good, bare, text + bare, good + text):
        verdict, parsed = judged(task, problem, whole), parse_completion(whole)
        assert verdict.reward == float(parsed.well_formed and parsed.answer in right_answers(problem))
        assert not parsed.well_formed or whole == format_completion(parsed.thinking, parsed.answer)
    tally("fuzz cases")


# ------------------------------------------------------------------------------------------- the catalogue

SPACES = [
    *" \t\n\r\v\f\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2003\u2007\u2009\u200a\u2028\u2029\u202f\u205f\u3000",
    "\r\n",  # and all of these white
    *"\u200b\u200c\u200d\u2060\ufeff\xad\u180e\ufe0f\u034f",  # of no width
    *"\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",  # of direction
    *"\0\x08\x1b\x7f\u0301\u20e3\U000e0031",  # others that do not show
]  # fmt: skip
DIGITS = ["٠١٢٣٤٥٦٧٨٩", "۰۱۲۳۴۵۶۷۸۹", "०१२३४५६७८९", "０１２３４５６７８９", "⁰¹²³⁴⁵⁶⁷⁸⁹", "₀₁₂₃₄₅₆₇₈₉", "𝟎𝟏𝟐𝟑𝟒𝟓𝟔𝟕𝟖𝟗",
    "⓪①②③④⑤⑥⑦⑧⑨", "OlZEASGTBg"]
LETTERS = ["ABCDEFGHIJKLMNOP", "ａｂｃｄｅｆｇｈｉｊｋｌｍｎｏｐ", "аbсdеfghіјklmnор", "𝐚𝐛𝐜𝐝𝐞𝐟𝐠𝐡𝐢𝐣𝐤𝐥𝐦𝐧𝐨𝐩"]


def disguises(answer: str):
    """Texts that are not the answer, but that a lenient reader would take for it, or that hold it."""
    for space in SPACES:
        yield from (space + answer, answer + space, space + answer + space, answer + 3 * space)
        yield answer[:1] + space + answer[1:]
    for alphabet, plain in [(a, "0123456789") for a in DIGITS] + [(a, "abcdefghijklmnop") for a in LETTERS]:
        yield answer.translate(str.maketrans(plain, alphabet))
    for first, last in ("〈〉", "〈〉", "<>", "‹›", "()", "[]", "⟪⟫"):
        yield answer.replace("⟨", first).replace("⟩", last)
    signs, ends = "+ - − -- ± 0 00 0x 0b = ~ $ # '", ".0 . , ; e0 E+0 % ! _ j L ' 0 /1 *1 ²"
    yield from (*(sign + answer for sign in signs.split()), *(answer + end for end in ends.split()))
    twice = ("{0}{0}", "{0}\n{0}", "{0} {0}", "{0},{0}", "{0}⟨;⟩{0}", "{0}/*{0}*/", "<a>{0}</a>", "&lt;think>{0}")
    quoted = ("The answer is {0}", "**{0}**", "\\boxed{{{0}}}", "({0})", '"{0}"', "`{0}`", "{0}<!-- -->", "{{0}}")
    yield from (form.format(answer) for form in (*twice, *quoted, "%s", ".*", ""))
    yield from (answer.replace("⟨", "⟨0"), answer.replace("⟨", "⟨="), answer.upper(), answer.title())
    yield from (answer[:-1], answer[1:], answer[::-1] + answer)
    yield from (*(f"⟨{a}⟩⟨{b}⟩" for a in range(13) for b in range(13)), *map(str, range(100)))
    yield from ("9" * 10**5, "0" * 10**5 + answer, answer + "0" * 10**5, answer * 10**4)
    yield from ("⟨" * 10**5, "⟨a⟩" * 30_000 + "!", " " * 10**5)
    for marker in CONTROL:  # spelled; as text they are real ones
        yield from (marker + answer, answer + marker, answer + marker.strip())


def frames(trace: str, answer: str):
    """Completions around a right answer whose frame is wrong."""
    good = [THINK, trace, CLOSE, answer, END]
    yield from ([], [answer], [answer, END], [THINK, trace + answer, CLOSE, END], [THINK, trace, answer, END])
    yield from (good[:-1], good[1:], [answer, *good], ["\n", *good], [" ", *good], [*good, answer], [*good, "\n"])
    yield from ([answer, THINK, trace, CLOSE, END], [THINK, *good], good * 2, [THINK, CLOSE, *good], [*good[:3], *good])
    yield from ([*good[:3], CLOSE, answer, END], [*good, END], [*good, " "], [END, *good], [THINK, answer, END])
    yield from ([THINK, trace, CLOSE, END, answer, END], [THINK, trace, CLOSE, "x", END, answer])
    yield from ([THINK, END, CLOSE, answer, END], [THINK, trace, END, *good], [CLOSE, trace, THINK, answer, END])
    yield from ([THINK, THINK, trace, CLOSE, CLOSE, answer, END], [THINK, trace, CLOSE, answer, THINK, CLOSE, END])
    yield from (["<think>" + trace, CLOSE, answer, END], ["<think>", trace, "</think>", answer, END])
    yield from ([*good[:4], "<end_of_sentence>"], ["<|think|>\n", *good[1:]], [CONTROL[THINK].upper(), *good[1:]])
    yield from (good[:3] + [control, answer, END] for control in range(len(CONTROL)))
    yield from (good[:4] + [control, END] for control in range(len(CONTROL)))
    yield from ([control, *good] for control in range(len(CONTROL)))
    yield from ([*good, control] for control in range(len(CONTROL)))
    others = (1, *range(3, 11))  # no other turn in the thinking
    yield from ([THINK, trace, control, CLOSE, answer, END] for control in others)
    yield from (["\n" * n, THINK, trace, CLOSE, answer, END] for n in (2, 10**5))
    yield from ([THINK] * n + [trace, CLOSE, answer, END] for n in (2, 10**4))
    yield from ([THINK, trace] + [CLOSE] * n + [answer, END] for n in (2, 10**4))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_catalogue_earns_nothing(tokenizer, tally, tries, family):
    task, refused = FAMILIES[family], 0
    for seed in range(tries(3, 20)):
        problem = task.sample(seed, task.difficulties[-1 - seed % len(task.difficulties)], split="all")
        right = right_answers(problem)
        answers = [[THINK, problem.trace, CLOSE, text, END] for text in disguises(problem.answer) if text not in right]
        for pieces in (*answers, *frames(problem.trace, problem.answer)):
            for text in (as_text(pieces), as_ids(tokenizer, pieces)):
                assert judged(task, problem, text).reward == 0, pieces
                refused += 1
    assert refused > 1000
    tally("verifier attacks refused", refused)


@pytest.mark.parametrize("family", FAMILIES)
def test_spelled_markers_in_the_thinking_are_text_from_ids_and_markers_from_text(tokenizer, tally, family):
    task = FAMILIES[family]
    problem = task.sample(0)
    for marker in [*CONTROL, *(text.strip() for text in CONTROL)]:
        pieces = [THINK, f"{marker}{problem.answer}", CLOSE, problem.answer, END]
        assert judged(task, problem, as_ids(tokenizer, pieces)).reward == 1
        only = [THINK, f"hm{marker}{problem.answer}{CONTROL[END]}", CLOSE, END]
        for text in (as_text(only), as_ids(tokenizer, only)):
            assert judged(task, problem, text).reward == 0
            tally("verifier attacks refused")


# ------------------------------------------------------------------------------------------- no text is a special token

TEXTS = st.text() | st.lists(st.sampled_from([
    *CONTROL, *(c.strip() for c in CONTROL), "<", ">", "</", "think", "\n", "⟨7⟩", "⟨wait⟩", " ", "Ġ", "Ċ", "\ufeff",
    "|", "<|im_end|>", "7",
]) | st.text(max_size=2)).map("".join)  # fmt: skip


@given(TEXTS)
def test_no_text_is_encoded_as_a_control_token(tokenizer, tally, text):
    ids = tokenizer.encode(text)
    assert all(i >= len(CONTROL) for i in ids) and tokenizer.decode(ids) == text
    shown = tokenizer.decode_completion(ids)
    assert not any(marker.strip() in shown for marker in CONTROL)
    tally("fuzz cases")


@given(*[TEXTS] * 7)
def test_no_message_writes_a_turn(tokenizer, tally, system, user, thinking, answer, key, name, result):
    """The control tokens of a conversation are those of the template, whatever the messages say."""

    def conversation(*texts):
        system, user, thinking, answer, key, name, result = texts
        return [
            {"role": "system", "content": "S" + system}, {"role": "user", "content": [{"text": user}, {"text": user}]},
            {"role": "assistant", "content": answer, "reasoning": [(thinking, True), (thinking, False)],
             "tool_calls": [{"name": name, "arguments": {key: result}}]},
            {"role": "tool", "content": [{"name": name, "text": result}, {"text": result}]},
            {"role": "assistant", "content": answer, "reasoning": thinking},
        ]  # fmt: skip

    options = {"tools": [{"name": name, "description": result}], "add_generation_prompt": True}
    texts = (system, user, thinking, answer, key, name, result)
    encoded = encode_chat(tokenizer, conversation(*texts), **options)
    plain = encode_chat(tokenizer, conversation(*"aaaaaaa"), **options)
    control = [[(i, on) for i, on in zip(*each) if i < len(CONTROL)] for each in (encoded, plain)]
    assert control[0] == control[1]
    assert tokenizer.decode(encoded.ids) == render_chat(conversation(*texts), **options)
    tally("fuzz cases")


# ------------------------------------------------------------------------------------------- another package's judges


class Judged:
    """A dataset of one problem, to be judged in another way by each subclass."""

    def __init__(self, seed, size):
        self.seed = seed

    def __getitem__(self, index):
        return {"question": f"{self.seed}?", "answer": "7"}


class Evaluating(Judged):
    def score_answer(self, answer, entry):
        return float(eval(answer) == 7)


class Parsing(Judged):
    def score_answer(self, answer, entry):
        sympy = entry["sympy"]
        return float(sympy.parse_expr(answer) == 7)


class Handing(Judged):
    def score_answer(self, answer, entry):
        return Evaluating(0, 1).score_answer(answer, entry)


class Odd(Judged):
    def score_answer(self, answer, entry):
        return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "none": None, "7": 1}.get(answer, 0)


@pytest.fixture
def gym(monkeypatch):
    datasets = {kind.__name__.lower(): kind for kind in (Evaluating, Parsing, Handing, Odd)}
    package, factory = types.ModuleType("reasoning_gym"), types.ModuleType("reasoning_gym.factory")
    package.create_dataset, factory.DATASETS = lambda name, **config: datasets[name](**config), datasets
    monkeypatch.setitem(sys.modules, "reasoning_gym", package)
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", factory)


@pytest.mark.parametrize("name, by", [("evaluating", "eval"), ("parsing", "parse_expr"), ("handing", "score_answer")])
def test_a_judge_that_would_run_the_answer_is_refused(gym, tally, name, by):
    with pytest.raises(UserError, match=f"{name}.* uses {by}, which could run a model's answer as a program"):
        reasoning_gym_task(name)
    tally("verifier attacks refused")


@pytest.mark.parametrize("partial_credit", [False, True])
def test_a_score_that_is_no_number_is_no_reward(gym, tally, partial_credit):
    task = reasoning_gym_task("odd", partial_credit=partial_credit)
    problem = task.sample(0)
    assert task.verify(problem, format_completion("", "7")).reward == 1
    for answer in ("nan", "inf", "-inf", "none"):
        verdict = task.verify(problem, format_completion("", answer))
        assert verdict.reward == 0 and math.isfinite(sum(verdict.parts.values())) and verdict.parts["refused"] == 1
        tally("verifier attacks refused")


@pytest.mark.parametrize("name", [
    "binary_matrix", "countdown", "intermediate_integration", "n_queens", "polynomial_multiplication", "puzzle24",
    "simple_integration", "spiral_matrix", "string_insertion",
])  # fmt: skip
def test_the_real_judges_that_evaluate_are_refused(name):
    pytest.importorskip("reasoning_gym")
    with pytest.raises(UserError, match="as a program"):
        reasoning_gym_task(name)


@pytest.mark.parametrize("name", ["chain_sum", "leg_counting", "gcd", "word_sorting", "propositional_logic"])
def test_the_catalogue_earns_nothing_from_the_real_judges(tokenizer, name):
    """Their judges may be lenient about the answer; the frame is ours."""
    pytest.importorskip("reasoning_gym")
    task = reasoning_gym_task(name)
    problem = task.sample(0)
    for pieces in frames("hm", problem.answer or "7"):
        for text in (as_text(pieces), as_ids(tokenizer, pieces)):
            if not parse_completion(text).well_formed:
                assert task.verify(problem, text).reward == 0
