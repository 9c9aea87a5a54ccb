"""Scores, thinking length, held-out problems, and bits per byte against a direct computation."""

import math

import pytest
import torch

from minim1.data.corpus import encode_corpus
from minim1.data.packing import heldout_windows
from minim1.errors import UserError
from minim1.evaluate import (
    Answer, answer, bits_per_byte, evaluate, heldout_problems, pass_at_k, prompt_ids, score, task_sampling,
    thinking_length,
)
from minim1.generation import Rollout
from minim1.tasks import TASKS, format_completion, get_task, held_out
from minim1.tasks.base import Problem, Verdict
from minim1.workers import Workers

FAMILIES = list(TASKS)


@pytest.fixture
def teacher(tokenizer, monkeypatch):
    """Replaces generation: `teacher["text"](prompt text) -> completion text`, in the chat's control tokens."""
    said = {}

    def generate(model, prompts, sampling, **_):
        completions = []
        for prompt in prompts:
            thinking, reply, stop = said["text"](tokenizer.decode(prompt))
            ids = [tokenizer.think_id, *tokenizer.encode(thinking), tokenizer.end_think_id, *tokenizer.encode(reply)]
            completions += [ids + [tokenizer.eos_id] * stop] * sampling.samples_per_prompt
        empty = torch.zeros(0)
        return Rollout(empty, empty, empty, empty, completions, ["stop"] * len(completions))

    monkeypatch.setattr("minim1.evaluate.generate", generate)
    return said


# ------------------------------------------------------------------------------------------- thinking and scores


def test_thinking_is_counted_between_the_tags(tokenizer):
    think, close, eos = tokenizer.think_id, tokenizer.end_think_id, tokenizer.eos_id
    assert thinking_length(tokenizer, [think, 50, 51, 52, close, 60, eos]) == 3
    assert thinking_length(tokenizer, [think, close, 60, eos]) == 0
    assert thinking_length(tokenizer, [think, 50, 51]) == 2  # never closed: to the end
    assert thinking_length(tokenizer, [50, think, 51, close]) == 0  # does not open with it
    assert thinking_length(tokenizer, []) == 0
    assert thinking_length(tokenizer, torch.tensor([think, 50, close]).tolist()) == 1


def verdicts(*pairs):
    problem = Problem("add", "", "", "", "", 1, {})
    return [Answer(problem, "", Verdict(reward, parts), thinking, "stop") for reward, thinking, parts in pairs]


def test_a_score_is_made_of_means():
    got = score("add", verdicts((1.0, 4, {"format": 1.0}), (0.0, 8, {"format": 1.0, "tries": 3.0}),
                                (0.0, 0, {"format": 0.0}), (0.0, 0, {"format": 0.0})))
    assert (got.family, got.problems, got.accuracy, got.thinking) == ("add", 4, 0.25, 3.0)
    assert got.error == pytest.approx(math.sqrt(0.25 * 0.75 / 4))
    assert got.parts == {"format": 0.5, "tries": 3.0}  # a part that does not apply is no zero


@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_a_certain_result_has_no_error(reward):
    assert score("add", verdicts((reward, 0, {}))).error == 0


# ------------------------------------------------------------------------------------------- problems


@pytest.mark.parametrize("family", FAMILIES)
def test_heldout_problems_are_held_out_and_repeatable(family):
    problems = heldout_problems(family, 40)
    assert all(held_out(problem.key) for problem in problems) and len({p.prompt for p in problems}) > 20
    assert [p.prompt for p in problems] == [p.prompt for p in heldout_problems(family, 40)]
    assert [p.prompt for p in problems[:5]] == [p.prompt for p in heldout_problems(family, 5)]
    assert [p.prompt for p in problems] != [p.prompt for p in heldout_problems(family, 40, seed=1)]
    seen = {get_task(family).sample(seed).key for seed in range(300)}
    assert seen.isdisjoint(problem.key for problem in problems)


def test_difficulty_reaches_the_problems():
    assert {p.difficulty for p in heldout_problems("add", 4, difficulty=5)} == {5}
    with pytest.raises(UserError, match="difficulty"):
        heldout_problems("add", 1, difficulty=99)
    with pytest.raises(UserError, match="nonsense"):
        heldout_problems("nonsense", 1)


def test_the_prompt_ends_with_the_assistants_header(tokenizer):
    text = tokenizer.decode(prompt_ids(tokenizer, "⟨add⟩1+2="))
    assert text == (
        "<begin_of_document><beginning_of_sentence>user name=user\n⟨add⟩1+2=<end_of_sentence>\n"
        "<beginning_of_sentence>ai name=MiniMax AI\n"
    )


def test_answers_are_judged_on_their_own_problem(tokenizer, teacher):
    problems = [problem for family in FAMILIES for problem in heldout_problems(family, 2)]
    right = {problem.prompt: problem for problem in problems[::2]}

    def say(prompt):
        known = next((p for text, p in right.items() if text in prompt), None)
        return (known.trace, known.answer, True) if known else ("", "⟨no⟩", True)

    teacher["text"] = say
    answers = answer(None, tokenizer, problems, task_sampling(tokenizer, samples_per_prompt=2))
    assert [a.problem for a in answers] == [p for p in problems for _ in range(2)]
    assert [a.verdict.reward for a in answers] == [1.0, 1.0, 0.0, 0.0] * len(FAMILIES)
    assert answers[0].completion == format_completion(problems[0].trace, problems[0].answer)
    assert answers[0].thinking == len(tokenizer.encode(problems[0].trace))
    assert answer(None, tokenizer, [], task_sampling(tokenizer)) == []


def test_an_answer_that_spells_the_tags_earns_nothing(tokenizer, teacher):
    problem = heldout_problems("add", 1)[0]
    teacher["text"] = lambda prompt: (f"</think>\n{problem.answer}<end_of_sentence>\n", "", False)
    assert answer(None, tokenizer, [problem], task_sampling(tokenizer))[0].verdict.reward == 0


def test_evaluate_scores_every_family(tokenizer, teacher):
    teacher["text"] = lambda prompt: ("", "0", True)
    scores = evaluate(None, tokenizer, FAMILIES, count=3)
    assert {name: (s.family, s.problems, s.accuracy) for name, s in scores.items()} == {
        name: (name, 3, 0.0) for name in FAMILIES
    }


def test_evaluation_is_repeatable_and_really_samples(make_model, tokenizer):
    model = make_model()
    sampling = task_sampling(tokenizer, max_new_tokens=4)
    problems = heldout_problems("sort", 3)
    texts = [a.completion for a in answer(model, tokenizer, problems, sampling)]
    assert texts == [a.completion for a in answer(model, tokenizer, problems, sampling)] and len(set(texts)) == 3
    first = evaluate(model, tokenizer, ["sort"], count=3, sampling=sampling)
    assert first == evaluate(model, tokenizer, ["sort"], count=3, sampling=sampling)


# ------------------------------------------------------------------------------------------- bits per byte


TEXTS = ["def f(x):\n    return x + 12\n" * 3, "für alle ⟨3⟩ und ∑ 🎈\n" * 4]


def test_bits_per_byte_equals_a_direct_computation(make_model, tokenizer):
    model = make_model()
    with torch.no_grad():
        model.lm_head.weight *= 10
    stream = encode_corpus(TEXTS, tokenizer)
    length = 16
    windows = heldout_windows(stream, length)
    nats, size = 0.0, 0
    for start in range(0, len(stream.ids) - length + 1, length):
        ids, documents = stream.ids[start : start + length].tolist(), stream.documents[start : start + length].tolist()
        for document in sorted(set(documents)):  # every document of the window on its own, token by token
            piece = [i for i, d in zip(ids, documents) if d == document]
            logprobs = model(torch.tensor([piece])).logits.detach().double()[0].log_softmax(-1)
            for t in range(1, len(piece)):
                nats -= float(logprobs[t - 1, piece[t]])
                size += 0 if piece[t] < 15 else len(tokenizer._bytes[piece[t]])
    assert size > 100
    for rows in (1, 3, 32):
        assert bits_per_byte(model, tokenizer, windows, rows=rows) == pytest.approx(nats / math.log(2) / size, rel=1e-5)


def test_a_uniform_model_needs_log2_v_bits_for_each_token(make_model, tokenizer):
    model = make_model()
    with torch.no_grad():
        model.lm_head.weight.zero_()
    text = "for i in range(10):\n    print(i)\n"
    ids = tokenizer.encode(text)
    stream = encode_corpus([text], tokenizer)  # <begin> text <end>
    got = bits_per_byte(model, tokenizer, heldout_windows(stream, len(stream.ids)))
    assert got == pytest.approx(math.log2(tokenizer.vocab_size) * (len(ids) + 1) / len(text.encode()), rel=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_bits_per_byte_puts_the_mode_back(make_model, tokenizer, training, monkeypatch):
    model = make_model().train(training)
    windows = heldout_windows(encode_corpus(TEXTS, tokenizer), 16)
    bits_per_byte(model, tokenizer, windows)
    assert model.training is training
    monkeypatch.setattr(model, "forward", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bits_per_byte(model, tokenizer, windows)
    assert model.training is training


def test_a_worker_without_windows_takes_part(make_model, tokenizer):
    """Of five workers with three windows two have none; here each is asked for its share alone."""
    class Alone(Workers):
        def sum(self, tensor):
            shares.append(tensor.clone())
            return torch.ones_like(tensor)

    model, shares = make_model(), []
    windows = heldout_windows(encode_corpus(TEXTS, tokenizer), 16, 3)
    for rank in range(5):
        bits_per_byte(model, tokenizer, windows, workers=Alone(rank, 5))
    nats, size = torch.stack(shares).sum(0).tolist()
    assert [bool(share.any()) for share in shares] == [True, True, True, False, False]
    assert nats / math.log(2) / size == pytest.approx(bits_per_byte(model, tokenizer, windows), rel=1e-6)


# ------------------------------------------------------------------------------------------- pass@k


def test_pass_at_k_counts_the_choices_that_hold_a_right_answer():
    for samples, k in ((5, 2), (9, 9), (12, 1)):
        expected = [1 - math.comb(samples - c, k) / math.comb(samples, k) for c in range(samples + 1)]
        assert pass_at_k(torch.arange(samples + 1), samples, k).tolist() == pytest.approx(expected, abs=1e-14)


def test_pass_at_k_of_many_samples_does_not_overflow():
    assert pass_at_k(torch.tensor([0, 1, 19_999]), 20_000, 10_000).tolist() == pytest.approx([0, 0.5, 1], abs=1e-12)


@pytest.mark.parametrize("k", [0, 5])
def test_pass_at_k_says_which_k_there_are(k):
    with pytest.raises(UserError, match=f"k is {k}.* 1 to 4"):
        pass_at_k(torch.tensor([1]), 4, k)
