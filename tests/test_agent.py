"""The agent's loop: turns, tools, users, limits; and the rows that RL trains on."""

import torch

from minim1.agent import Dialogue, demonstrated, drive, errand_dialogue, read_turn, run_episodes
from minim1.data.chat import encode_chat, render_chat
from minim1.evaluate import task_sampling
from minim1.tasks.errands import ERRANDS
from minim1.tasks.tools import format_turn, lookup_tool
from minim1.train.agent import AgentTrainer
from minim1.train.losses import token_logprobs
from minim1.train.settings import RLConfig

QUESTION = {"role": "user", "content": "follow a"}
CALL = {"name": "lookup", "arguments": {"key": "a"}}


def scripted(*turns):
    left = list(turns)
    return lambda messages: left.pop(0)


def test_calls_are_answered_until_the_answer():
    dialogue = Dialogue([QUESTION], [lookup_tool({"a": "1"})])
    drive(scripted(format_turn(calls=[CALL, CALL]), format_turn("1")), dialogue)
    assert dialogue.finish == "answer" and dialogue.steps == 2
    assert dialogue.messages[2] == {"role": "tool", "content": [{"name": "lookup", "text": "1"}] * 2}


def test_a_block_without_a_call_is_told_so():
    dialogue = Dialogue([QUESTION])
    drive(
        scripted("<think>\n\n</think>\n<tool_calls>\nnonsense\n</tool_calls><end_of_sentence>\n", format_turn("1")),
        dialogue,
    )
    assert [result.ok for result in dialogue.results] == [False] and "No call could be read" in dialogue.messages[2][
        "content"
    ][0]["text"]


def test_steps_and_cut_turns_end_it():
    assert drive(lambda messages: format_turn(calls=[CALL]), Dialogue([QUESTION], max_steps=3)).steps == 3
    assert drive(lambda messages: "<think>\nhm", Dialogue([QUESTION])).finish == "length"
    assert (
        drive(lambda messages: format_turn("?"), Dialogue([QUESTION], user=lambda words: "no", max_steps=4)).finish
        == "steps"
    )


def test_what_stands_in_thinking_is_no_call():
    turn, called = read_turn(format_turn("42", thinking="<tool_calls>\n{}\n</tool_calls>"))
    assert turn["content"] == "42" and not called


def test_rows_hold_the_whole_conversation(tokenizer, model):
    """Sampled tokens are marked, kept as they were, and scored by the model as they were drawn."""
    dialogues = [Dialogue([QUESTION], max_steps=3, user=lambda words: "go on") for _ in range(3)]
    sampling = task_sampling(tokenizer, max_new_tokens=30, seed=1)
    stop = tokenizer.eos_id

    def often_stops(logits, **options):
        from minim1.generation import sample_token

        logits = logits.clone()
        logits[:, stop] += 4
        return sample_token(logits, **options)

    rows = run_episodes(model, tokenizer, dialogues, sampling, sampler=often_stops)
    assert max(d.steps for d in dialogues) > 1
    for row, dialogue in enumerate(dialogues):
        real = rows.document_ids[row] == 0
        text = tokenizer.decode(rows.input_ids[row][real].tolist())
        answers = sum(m["role"] == "user" for m in dialogue.messages) - 1 - (dialogue.finish == "steps")
        assert text.count("go on") == answers  # what was said after the last turn is not read any more
        assert rows.mask[row].sum() > 0 and (rows.logprobs[row][~rows.mask[row]] == 0).all()
    again = run_episodes(model, tokenizer, [Dialogue([QUESTION], max_steps=1) for _ in range(2)], sampling)
    model.eval()
    with torch.no_grad():
        logits = model(again.input_ids, document_ids=again.document_ids).logits
    assert torch.allclose(token_logprobs(logits, again.input_ids)[again.mask], again.logprobs[again.mask], atol=1e-4)


def test_a_demonstration_is_the_conversation_that_the_loop_makes(tokenizer):
    problem = ERRANDS["chain"].sample(0, 2)
    encoded = encode_chat(tokenizer, demonstrated(problem))
    assert tokenizer.decode(encoded.ids) == render_chat(demonstrated(problem))
    said = tokenizer.decode([i for i, learnt in zip(encoded.ids, encoded.mask) if learnt])
    assert said.count("lookup") == 2 and "tool result" not in said and said.count("<end_of_sentence>") == 3
    replayed = scripted(
        *[format_turn(m["content"], m.get("tool_calls", ())) for m in demonstrated(problem) if m["role"] == "assistant"]
    )
    assert drive(replayed, errand_dialogue(problem)).messages == demonstrated(problem)


def test_rl_runs_with_the_tool_in_the_loop(tokenizer, make_model):
    config = RLConfig(
        steps=1,
        families=("product", "chain"),
        prompts_per_rollout=2,
        samples_per_prompt=3,
        updates_per_rollout=2,
        max_new_tokens=12,
        overlong_buffer=0,
        repetition_window=0,
    )
    trainer = AgentTrainer(make_model(), tokenizer, config, max_steps=2, quiet=True)
    metrics = trainer.advance(0)
    assert {"reward", "call_share", "valid_calls", "turns"} - metrics.keys() <= {"valid_calls"} and metrics[
        "tokens"
    ] > 0
