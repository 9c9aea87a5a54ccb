"""The terminal: thinking apart from the answer, characters that arrive in pieces, commands."""

import io

import pytest
import torch

from minim1 import chat
from minim1.chat import Printer, Settings, reply, solve
from minim1.evaluate import heldout_problems
from minim1.generation import Rollout
from minim1.tasks import TASKS, held_out


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def scripted(tokenizer, monkeypatch):
    """`scripted["says"] = [ids]` is what the model says next; `scripted["asked"]` holds (prompt ids, sampling)."""
    script = {"says": [], "asked": []}

    def generate(model, prompts, sampling, *, on_token=None):
        script["asked"].append((list(prompts[0]), sampling))
        ids = script["says"].pop(0) if script["says"] else [tokenizer.eos_id]
        for token in ids:
            if on_token is not None:
                on_token(token)
        empty = torch.zeros(0)
        return Rollout(empty, empty, empty, empty, [ids], ["stop"])

    monkeypatch.setattr(chat, "generate", generate)
    return script


def turn(tokenizer, thinking, answer, stop=True):
    ids = [tokenizer.think_id, *tokenizer.encode(thinking), tokenizer.end_think_id, *tokenizer.encode(answer)]
    return ids + [tokenizer.eos_id] * stop


def printed(tokenizer, ids, stream=None):
    """What is on the screen after each token."""
    stream = stream or io.StringIO()
    printer, screens = Printer(tokenizer, stream), []
    for token in ids:
        printer(token)
        screens.append(stream.getvalue())
    printer.finish()
    return screens, stream.getvalue()


# ------------------------------------------------------------------------------------------- streaming


def test_thinking_is_shown_apart_from_the_answer(tokenizer):
    _, text = printed(tokenizer, turn(tokenizer, "carry the one", "42"))
    assert text == "[thinking] carry the one\n[answer] 42"


def test_a_terminal_dims_the_thinking(tokenizer):
    _, text = printed(tokenizer, turn(tokenizer, "carry", "42"), Terminal())
    assert text == "\x1b[2mcarry\n\x1b[0m42"


def test_an_answer_without_thinking_has_no_tags(tokenizer):
    assert printed(tokenizer, [*tokenizer.encode("42"), tokenizer.eos_id])[1] == "42"


def test_text_appears_token_by_token(tokenizer):
    ids = tokenizer.encode("return left")
    screens, text = printed(tokenizer, ids)
    assert len(ids) > 2 and text == "return left"
    assert [len(screen) for screen in screens] == sorted({len(screen) for screen in screens})  # grows with every token


def test_a_character_in_pieces_appears_when_it_is_whole(tokenizer):
    ids = tokenizer.encode("a🎈∑z")
    assert len(ids) > 6  # the balloon takes four tokens here
    screens, text = printed(tokenizer, ids)
    assert text == "a🎈∑z" and not any("\ufffd" in screen for screen in screens)
    assert set(screens) == {"a", "a🎈", "a🎈∑", "a🎈∑z"}


def test_a_character_that_stays_in_pieces_is_shown_at_the_end(tokenizer):
    half = tokenizer.encode("🎈")[:2]
    think, close = tokenizer.think_id, tokenizer.end_think_id
    _, text = printed(tokenizer, [think, *tokenizer.encode("a"), *half, close, *tokenizer.encode("b"), *half])
    assert text == "[thinking] a\ufffd\n[answer] b\ufffd"


def test_broken_bytes_in_the_middle_do_not_stop_the_stream(tokenizer):
    half = tokenizer.encode("🎈")[:2]
    assert printed(tokenizer, [*half, *tokenizer.encode("ok")])[1] == "\ufffdok"


# ------------------------------------------------------------------------------------------- replies


def user(text):
    return [{"role": "system", "content": None}, {"role": "user", "content": text}]


def test_a_reply_is_streamed_and_returned(tokenizer, scripted):
    scripted["says"] = [turn(tokenizer, "hm", "42")]
    stream = io.StringIO()
    text = reply(None, tokenizer, user("hi"), Settings(), stream)
    assert text == "<think>\nhm\n</think>\n42<end_of_sentence>\n" and stream.getvalue() == "[thinking] hm\n[answer] 42\n"
    ids, sampling = scripted["asked"][0]
    assert tokenizer.decode(ids).endswith("hi<end_of_sentence>\n<beginning_of_sentence>ai name=MiniMax AI\n")
    assert sampling.stop_ids == (tokenizer.eos_id,) and sampling.thinking_budget is None


def test_answering_at_once_closes_the_thinking_in_the_prompt(tokenizer, scripted):
    scripted["says"] = [[*tokenizer.encode("42"), tokenizer.eos_id]]
    text = reply(None, tokenizer, user("hi"), Settings(thinking=False, budget=9))
    ids, sampling = scripted["asked"][0]
    assert ids[-2:] == [tokenizer.think_id, tokenizer.end_think_id] and sampling.thinking_budget is None
    assert text == "<think>\n\n</think>\n42<end_of_sentence>\n"


def test_settings_reach_the_sampler(tokenizer, scripted):
    reply(None, tokenizer, user("hi"), Settings(temperature=0.25, max_new_tokens=7, budget=5, seed=11))
    sampling = scripted["asked"][0][1]
    assert (sampling.temperature, sampling.max_new_tokens, sampling.thinking_budget, sampling.seed) == (0.25, 7, 5, 11)


def test_the_verifier_judges_a_problem(tokenizer, scripted):
    problem = heldout_problems("add", 1)[0]
    for answer, word in ((problem.answer, "right"), ("0", "wrong")):
        scripted["says"] = [turn(tokenizer, problem.trace, answer)]
        stream = io.StringIO()
        solve(None, tokenizer, problem, Settings(), stream)
        assert stream.getvalue().startswith(problem.prompt) and f"The verifier says: {word}." in stream.getvalue()


def test_the_real_model_streams_what_it_returns(make_model, tokenizer):
    stream = io.StringIO()
    text = reply(make_model(), tokenizer, user("⟨add⟩1+2="), Settings(max_new_tokens=12, seed=4), stream)
    assert text and stream.getvalue().endswith("\n")


# ------------------------------------------------------------------------------------------- conversation


def talk(tokenizer, *lines, settings=None):
    stream, settings = io.StringIO(), settings or Settings()
    chat.chat(None, tokenizer, settings, lines, stream)
    return stream.getvalue(), settings


def test_it_begins_with_help_and_ends_with_quit(tokenizer, scripted):
    text, _ = talk(tokenizer, "/quit", "never read")
    assert "/quit" in text and all(f"/{name}" in text for name in TASKS) and scripted["asked"] == []
    assert talk(tokenizer, "/exit", "never read")[0] == text == talk(tokenizer)[0]


def test_a_line_is_a_message_and_an_empty_one_is_nothing(tokenizer, scripted):
    scripted["says"] = [turn(tokenizer, "", "first"), turn(tokenizer, "", "second")]
    text, _ = talk(tokenizer, "", "hello ", "   ", "again")
    assert text.index("first") < text.index("second")
    prompts = [tokenizer.decode(ids) for ids, _ in scripted["asked"]]
    assert len(prompts) == 2 and "hello<end_of_sentence>" in prompts[0]
    assert "hello" not in prompts[1] and "again<end_of_sentence>" in prompts[1]  # every turn starts afresh


def test_the_same_message_twice_may_be_answered_differently(tokenizer, scripted):
    talk(tokenizer, "hello", "hello")
    first, second = (sampling.seed for _, sampling in scripted["asked"])
    assert first != second


@pytest.mark.parametrize("family", list(TASKS))
def test_a_family_gives_heldout_problems(tokenizer, scripted, family, monkeypatch):
    problems = []

    def solved(model, tokenizer, problem, settings, stream):
        problems.append(problem)
        return solve(model, tokenizer, problem, settings, stream)

    monkeypatch.setattr(chat, "solve", solved)
    text, _ = talk(tokenizer, *[f"/{family}"] * 6)
    assert {problem.family for problem in problems} == {family} and all(held_out(p.key) for p in problems)
    assert len({problem.prompt for problem in problems}) > 3 and text.count("The verifier says") == 6


def test_commands_change_the_settings(tokenizer, scripted):
    _, settings = talk(tokenizer, "/think off", "/budget 12")
    assert (settings.thinking, settings.budget) == (False, 12)
    _, settings = talk(tokenizer, "/think on", "/budget off", settings=settings)
    assert (settings.thinking, settings.budget) == (True, None)
    talk(tokenizer, "/budget 3", "hi")
    assert scripted["asked"][-1][1].thinking_budget == 3


@pytest.mark.parametrize("line", ["/nonsense", "/think", "/think maybe", "/budget", "/budget -1", "/budget x", "/", "/pairs"])
def test_an_unknown_command_is_said_to_be_unknown(tokenizer, scripted, line):
    text, settings = talk(tokenizer, line)
    assert f"Unknown command {line!r}" in text and scripted["asked"] == []
    assert (settings.thinking, settings.budget) == (True, None)


def test_help_again(tokenizer, scripted):
    assert talk(tokenizer, "/help")[0].count("/quit") == 2


def test_typing_ends_with_the_end_of_the_input_or_ctrl_c(monkeypatch):
    for error in (EOFError, KeyboardInterrupt):
        answers = iter(["one", "two"])

        def typed(prompt):
            for line in answers:
                return line
            raise error

        monkeypatch.setattr("builtins.input", typed)
        assert list(chat._typed()) == ["one", "two"]


def test_a_line_that_is_no_unicode_does_not_end_the_conversation(tokenizer, scripted):
    """Undecodable bytes on stdin arrive as lone surrogates."""
    scripted["says"] = [turn(tokenizer, "", "still here")]
    text, _ = talk(tokenizer, "caf\udce9", "hello")
    assert "surrogate" in text and "still here" in text
