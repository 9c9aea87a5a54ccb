"""Long and odd generation is right, or refused in a sentence."""

import io
import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minim1.agent import Dialogue, run_episodes
from minim1.chat import Printer, Settings, chat, reply
from minim1.evaluate import task_sampling
from minim1.errors import UserError
from minim1.generation import Sampling, generate, left_pad, sample_token
from minim1.model.int8 import to_int8
from minim1.tasks.tools import lookup_tool

LENGTHS = (1, 2, 7, 8, 9, 31, 64, 65, 300)  # blocks hold 8 tokens


def prompts_of(lengths, vocabulary=420):
    generator = torch.Generator().manual_seed(sum(lengths))
    return [torch.randint(0, vocabulary, (n,), generator=generator).tolist() for n in lengths]


@pytest.fixture(scope="module", params=["lightning and softmax", "softmax", "lightning", "dense", "pre-norm", "int8"])
def odd_model(make_model, request):
    """Models with sharp predictions: untrained ones are uniform, which hides mistakes."""
    shapes = {"softmax": dict(attn_type_list=(1, 1)), "lightning": dict(attn_type_list=(0, 0)),
              "dense": dict(num_local_experts=1, num_experts_per_tok=1), "pre-norm": dict(postnorm=False)}  # fmt: skip
    model = make_model(**shapes.get(request.param, {})).eval()
    with torch.no_grad():
        model.lm_head.weight *= 6
        model.model.embed_tokens.weight *= 3
    return to_int8(model) if request.param == "int8" else model


def saying(*script):
    """A sampler that says the ids of the script in every row, one after the other, again and again."""
    said = []

    def sampler(logits, **_):
        said.append(script[len(said) % len(script)])
        return torch.full((len(logits),), said[-1]), torch.full((len(logits),), -0.5)

    return sampler


def at_a_quantile(logits, **_):
    """Sampling with a draw that is always the same: rows cannot depend on how many there are."""
    probabilities = logits.float().softmax(-1)
    ids = (probabilities.cumsum(-1) < 0.6180339).sum(-1, keepdim=True).clamp(max=logits.shape[-1] - 1)
    return ids.squeeze(-1), probabilities.gather(-1, ids).log().squeeze(-1)


# ------------------------------------------------------------------------------------------- rows do not see each other


def greedy(logits, **_):
    return sample_token(logits, temperature=0)


@pytest.mark.parametrize("sampler", [greedy, at_a_quantile])
def test_a_batch_of_very_different_lengths_equals_each_row_alone(odd_model, sampler):
    prompts, settings = prompts_of(LENGTHS), Sampling(max_new_tokens=12, stop_ids=tuple(range(0, 420, 10)))
    together = generate(odd_model, prompts, settings, sampler=sampler)
    assert {"stop", "length"} >= set(together.finish) and len({tuple(c) for c in together.completions}) > 4
    for row, prompt in enumerate(prompts):
        alone = generate(odd_model, [prompt], settings, sampler=sampler)
        assert alone.completions[0] == together.completions[row] and alone.finish[0] == together.finish[row]
        size = len(prompt) + len(alone.completions[0])
        assert (alone.logprobs[0] - together.logprobs[row, :size]).abs().max() < 1e-4


def test_left_padding_equals_no_padding(odd_model):
    """Of the prompt's logits, and of those after three tokens more, fed one by one."""
    prompts, more = prompts_of(LENGTHS), [5, 17, 300]
    with torch.no_grad():
        cache, step, (ids, documents) = odd_model.new_cache(), odd_model.new_step(), left_pad(prompts, "cpu")
        padded = [odd_model(ids, document_ids=documents, cache=cache, last_only=True).logits[:, -1]]
        padded += [step(torch.full((len(prompts),), token), cache) for token in more]
        for row, prompt in enumerate(prompts):
            for count, logits in enumerate(padded):
                plain = odd_model(torch.tensor([prompt + more[:count]])).logits[0, -1]
                assert (logits[row] - plain).abs().max() < 2e-5 * plain.abs().max()


@pytest.mark.parametrize("place", ["first", "last", "inside", "only"])
def test_pad_ids_in_a_prompt_are_tokens_like_others(odd_model, place):
    odd = {"first": [0, 0, 5, 6], "last": [5, 6, 0, 0], "inside": [5, 0, 0, 6], "only": [0, 0, 0, 0]}[place]
    settings = Sampling(max_new_tokens=6, temperature=0)
    together = generate(odd_model, [odd, *prompts_of((9, 2))], settings).completions[0]
    with torch.no_grad():
        for at, token in enumerate(together):
            assert int(odd_model(torch.tensor([odd + together[:at]])).logits[0, -1].argmax()) == token
        first, other = (odd_model(torch.tensor([ids])).logits[0, -1] for ids in (odd, [5, 6]))
    assert not torch.allclose(first, other, atol=1e-3)  # so they are seen


# ------------------------------------------------------------------------------------------- refused in a sentence


@pytest.mark.parametrize("prompts, words", [
    ([], "got 0 prompts"), ([[]], "got 1 prompts, at least one of them empty"),
    ([[1], [], [2]], "every prompt needs a token"),
    ([[1, 420]], "the id 420 is outside the vocabulary of 420 tokens; encode with"),
    ([[1], [-1]], "the id -1 is outside"), ([[2**70]], "the id 1180591620717411303424 is outside"),
])  # fmt: skip
def test_prompts_that_cannot_be_read(model, prompts, words):
    with pytest.raises(UserError, match=words):
        generate(model, prompts, Sampling(max_new_tokens=2))


@pytest.mark.parametrize("wrong", [dict(stop_ids=(8, -1)), dict(stop_ids=(2**70,)),
                                   dict(thinking_budget=0, think_id=9, end_think_id=420)])  # fmt: skip
def test_settings_with_ids_that_the_model_has_not(model, wrong):
    with pytest.raises(UserError, match="is outside the vocabulary of 420 tokens"):
        generate(model, [[1]], Sampling(max_new_tokens=2, **wrong))


def test_a_prompt_and_its_answer_fit_into_the_context_or_are_refused(make_model):
    model = make_model(max_position_embeddings=20)
    assert len(generate(model, [[5] * 15], Sampling(max_new_tokens=5)).completions[0]) == 5
    for length, new in ((16, 5), (20, 1), (500, 5), (1, 20), (1, 10**9)):
        words = f"prompt of {length} tokens and max_new_tokens = {new} do not fit .* context of 20"
        with pytest.raises(UserError, match=words):
            generate(model, [[5], [5] * length], Sampling(max_new_tokens=new))
    assert len(model(torch.full((1, 50), 5)).logits[0]) == 50  # the network itself would go on: whoever asks it may


def test_a_chat_that_is_longer_than_the_context_goes_on_after_the_sentence(make_model, tokenizer):
    model, stream = make_model(max_position_embeddings=64), io.StringIO()
    chat(model, tokenizer, Settings(max_new_tokens=12), ["x" * 500, "hello"], stream)
    assert stream.getvalue().count("do not fit into the context of 64 tokens") == 1 and stream.getvalue().endswith("\n")


@pytest.mark.parametrize("name", ["temperature", "top_p"])
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_settings_that_are_no_numbers_are_refused(name, value):
    with pytest.raises(UserError, match="expected a finite temperature"):
        Sampling(**{name: value})


@pytest.mark.parametrize("number", ["9" * 5000, "9999999999", "٣", "²", "0x1", "1 2"])
def test_budgets_that_are_no_number_of_tokens_are_unknown_commands(tokenizer, number):
    stream, settings = io.StringIO(), Settings()
    chat(None, tokenizer, settings, [f"/budget {number}"], stream)
    assert "Unknown command" in stream.getvalue() and settings.budget is None


# ------------------------------------------------------------------------------------------- short and extreme


def test_one_new_token(odd_model):
    rollout = generate(odd_model, prompts_of((3, 9)), Sampling(max_new_tokens=1, samples_per_prompt=2))
    assert [len(c) for c in rollout.completions] == [1] * 4 and rollout.finish == ["length"] * 4
    assert rollout.mask.sum(1).tolist() == [1] * 4 and rollout.input_ids.shape == (4, 10)


def test_a_stop_token_may_be_the_first(model):
    rollout = generate(model, [[1], [2, 3, 4]], Sampling(max_new_tokens=9, stop_ids=(8,)), sampler=saying(8))
    assert rollout.completions == [[8], [8]] and rollout.finish == ["stop", "stop"] and rollout.mask.sum() == 2


@pytest.mark.parametrize("steps", [1, 2, 5, 9])
def test_all_rows_may_end_at_once(model, steps):
    script, settings = [7] * (steps - 1) + [8], Sampling(max_new_tokens=9, stop_ids=(8,))
    rollout = generate(model, prompts_of((1, 5, 20)), settings, sampler=saying(*script))
    assert rollout.completions == [script] * 3 and rollout.finish == ["stop"] * 3


@pytest.mark.parametrize("budget", [0, 1, 10**9])
def test_budgets_from_none_to_more_than_there_is(model, tokenizer, budget):
    settings = task_sampling(tokenizer, max_new_tokens=6, thinking_budget=budget)
    for prompt in ([1], [1, tokenizer.think_id]):
        rollout = generate(model, [prompt], settings, sampler=saying(tokenizer.think_id, 50, 51))
        spoken = [tokenizer.think_id, 50, 51] * 2
        if budget < 9:
            at = budget + (len(prompt) == 1)
            assert rollout.completions[0][: at + 1] == [*spoken[:at], tokenizer.end_think_id]
            assert not rollout.mask[0, len(prompt) + at] and rollout.logprobs[0, len(prompt) + at] == 0
        else:
            assert rollout.completions[0] == spoken and rollout.mask[0, len(prompt):].all()


def test_a_forced_token_is_not_one_that_the_model_was_sure_of(model, tokenizer):
    """M1's repetition rule counts tokens that the model drew; the closing tag of a spent budget starts it again."""

    def sure(logits, **_):
        return torch.full((len(logits),), 50), torch.zeros(len(logits))

    settings = task_sampling(tokenizer, max_new_tokens=20, thinking_budget=3, repetition_window=4)
    rollout = generate(model, [[1, tokenizer.think_id]], settings, sampler=sure)
    assert rollout.completions == [[*[50] * 3, tokenizer.end_think_id, *[50] * 4]] and rollout.finish == ["repetition"]


@pytest.mark.parametrize("names", [["temperature"], ["top_p"], ["temperature", "top_p"]], ids=" and ".join)
@pytest.mark.parametrize("tiny", [1e-6, 1e-30, 1e-50, 5e-324])
def test_a_tiny_temperature_or_top_p_is_greedy(odd_model, names, tiny):
    prompts = prompts_of((4, 11))
    drawn = generate(odd_model, prompts, Sampling(max_new_tokens=8, **dict.fromkeys(names, tiny)))
    assert drawn.completions == generate(odd_model, prompts, Sampling(max_new_tokens=8, temperature=0)).completions
    assert drawn.logprobs.abs().max() < 1e-5  # certain, and finite


@pytest.mark.parametrize("temperature", [1e6, 1e30, 1.7e308])
def test_a_huge_temperature_is_uniform(odd_model, temperature):
    settings = Sampling(max_new_tokens=8, temperature=temperature, samples_per_prompt=4)
    rollout = generate(odd_model, prompts_of((4, 11)), settings)
    assert (rollout.logprobs[rollout.mask] + math.log(420)).abs().max() < 1e-3
    impossible = torch.tensor([[-math.inf, 0.0, 1.0]]).expand(300, 3)
    assert set(sample_token(impossible, temperature=temperature)[0].tolist()) == {1, 2}


# ------------------------------------------------------------------------------------------- characters in pieces


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_an_answer_may_stop_within_a_character(model, tokenizer, cut):
    """Text shows one sign for the rest that never came; the ids are kept as they were."""
    balloon = tokenizer.encode("🎈")
    assert len(balloon) == 4
    ids = [*tokenizer.encode("ab"), *balloon[:cut]]
    for stop in ([], [tokenizer.eos_id]):
        settings = Sampling(max_new_tokens=len(ids + stop), stop_ids=(8,))
        rollout = generate(model, [[1]], settings, sampler=saying(*ids, *stop))
        assert rollout.completions == [ids + stop]
        assert tokenizer.decode(ids) == "ab\ufffd"
        assert tokenizer.decode_completion(ids + stop) == "ab\ufffd" + "<end_of_sentence>\n" * len(stop)
    assert tokenizer.decode(ids + balloon[cut:]) == "ab🎈"


class Screen(io.StringIO):
    def isatty(self):
        return True


BYTES = st.binary(max_size=8) | st.text(max_size=4).map(str.encode)


@given(st.lists(st.integers(15, 419), max_size=20), BYTES, st.text(max_size=5))
def test_what_is_streamed_is_always_a_beginning_of_what_is_decoded(tokenizer, tally, ids, pieces, text):
    """With ordinary tokens, whole characters or not, nothing is shown that is taken back, and nothing is lost."""
    ids = [*ids, *(tokenizer._bytes.index(bytes([b])) for b in pieces), *tokenizer.encode(text), *ids[:3]]
    stream, whole = io.StringIO(), tokenizer.decode(ids)
    shown = whole.translate({code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code not in (9, 10)})
    printer = Printer(tokenizer, stream)
    for token in ids:
        printer(token)
        assert shown.startswith(stream.getvalue())
    printer.finish()
    assert stream.getvalue() == shown
    tally("fuzz cases")


def test_no_answer_commands_the_terminal(tokenizer):
    """Neither by escape sequences nor by returning to the beginning of a line."""
    hostile, stream = tokenizer.encode("\x1b[2J\x1b]0;title\x07 a\r\x9b31m\x08\x7f b\tc\n"), Screen()
    printer = Printer(tokenizer, stream)
    for token in [tokenizer.think_id, *hostile, tokenizer.end_think_id, *hostile, tokenizer.eos_id]:
        printer(token)
    printer.finish()
    left = stream.getvalue().replace("\x1b[2m", "", 1).replace("\x1b[0m", "", 1)
    assert not set(left) & set("\x1b\x07\r\x9b\x08\x7f") and left.count("\\x1b[2J") == 2 and left.count("b\tc\n") == 2


def test_a_reply_streams_what_it_returns_to_the_last_broken_character(model, tokenizer, monkeypatch):
    ids = [*tokenizer.encode("a"), *tokenizer.encode("é")[:1]]
    monkeypatch.setattr("minim1.chat.generate", partial(generate, sampler=saying(*ids)))
    stream = io.StringIO()
    text = reply(model, tokenizer, [{"role": "user", "content": "x"}], Settings(max_new_tokens=2), stream)
    assert text == "a\ufffd" and stream.getvalue() == "a\ufffd\n"


# ------------------------------------------------------------------------------------------- conversations without end

def call_ids(tokenizer):
    t = tokenizer
    block = t.encode('{"name": "lookup", "arguments": {"key": "k"}}\n')
    return [t.think_id, t.end_think_id, t.tool_calls_id, *block, t.end_tool_calls_id, t.eos_id]


def dialogues(count=2, **options):
    question = [{"role": "system", "content": None}, {"role": "user", "content": "go"}]
    return [Dialogue(list(question), [lookup_tool({"k": "v"})], **options) for _ in range(count)]


def test_a_loop_of_calls_ends_at_its_last_step(make_model, tokenizer):
    script = call_ids(tokenizer)
    sampling, options = task_sampling(tokenizer, max_new_tokens=len(script)), {"sampler": saying(*script)}
    rows = run_episodes(make_model(), tokenizer, dialogues(max_steps=5), sampling, **options)
    assert rows.finish == ["steps"] * 2 and all(d.steps == 5 and len(d.results) == 5 for d in rows.dialogues)
    assert rows.mask.sum(1).tolist() == [5 * len(script)] * 2


@pytest.mark.parametrize("context, max_tokens", [(4096, 200), (200, 4096)])
def test_a_loop_of_calls_ends_where_a_row_is_too_long(make_model, tokenizer, context, max_tokens):
    """By its own limit, or where a turn would not fit into the context: never by an error in the midst of a rollout."""
    script, model = call_ids(tokenizer), make_model(max_position_embeddings=context)
    options = dict(sampler=saying(*script), declare=False, max_tokens=max_tokens)
    rows = run_episodes(model, tokenizer, dialogues(), task_sampling(tokenizer, max_new_tokens=len(script)), **options)
    assert rows.finish == ["length"] * 2 and all(1 < d.steps < 20 for d in rows.dialogues)
    read = int(rows.mask.nonzero()[:, 1].max()) + 1  # up to the last token that was sampled
    assert 200 - 2 * len(script) < read <= (200 + len(script) if context > 200 else 200)


def test_turns_that_are_cut_off_end_their_conversation(model, tokenizer):
    sampling = task_sampling(tokenizer, max_new_tokens=4)
    rows = run_episodes(model, tokenizer, dialogues(), sampling, sampler=saying(*call_ids(tokenizer)), declare=False)
    assert rows.finish == ["length"] * 2 and not any(d.results for d in rows.dialogues)


@pytest.mark.parametrize("count, samples", [(0, 1), (2, 2)])
def test_no_dialogue_and_several_samples_of_one_are_refused(model, tokenizer, count, samples):
    with pytest.raises(UserError, match=f"got {count} dialogues and samples_per_prompt = {samples}"):
        run_episodes(model, tokenizer, dialogues(count), task_sampling(tokenizer, samples_per_prompt=samples))
