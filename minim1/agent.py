"""How does it act? The loop of an agent: it writes, its calls are run, the results are appended, it writes again.

A `Dialogue` is one conversation with tools, and perhaps a user who answers; it knows nothing of models. `drive` runs
one with any function that writes turns, `run_episodes` runs many with a model and keeps the sampled tokens, so that RL
can train on them: they are never decoded and encoded again, and what tools and users said is not supervised.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from minim1.data.chat import encode_chat, parse_tool_calls
from minim1.data.packing import step_seed
from minim1.data.tokenizer import Tokenizer
from minim1.errors import UserError
from minim1.generation import Rollout, Sampling, context_length, generate
from minim1.tasks.base import ANSWER, END, THINK, Problem
from minim1.tasks.errands import ERRANDS
from minim1.tasks.tools import BLOCK, Tool, ToolResult, format_turn, run_call

NO_CALL = "error: No call could be read; write one JSON object with name and arguments on each line."


@dataclass
class Dialogue:
    """A conversation: `messages` grow with each `hear`; `finish` is None until it is over.

    Args: messages to begin with; tools on offer; user: called with the agent's words, gives the user's next ones or
        None to end (without a user, the agent's first words are its answer); max_steps: turns of the agent (40 in the
        TAU-bench runs of the M1 report, Table 2).
    finish: "answer"; "steps" after max_steps turns; "length" when a turn was cut off.
    """

    messages: list[dict]
    tools: Sequence[Tool] = ()
    user: Callable[[str], str | None] | None = None
    max_steps: int = 40
    steps: int = 0
    results: list[ToolResult] = field(default_factory=list)
    finish: str | None = None

    def hear(self, completion: str) -> list[dict]:
        """Take the agent's turn, from `<think>` to the end of its sentence; returns the messages that answer it.

        An empty list means that the conversation is over.
        """
        turn, called = read_turn(completion)
        self.messages.append(turn)
        self.steps += 1
        if not completion.endswith(END):
            self.finish = "length"
            return []
        if called:
            results = [run_call(self.tools, call) for call in turn.get("tool_calls", ())]
            results = results or [ToolResult("", NO_CALL, False)]
            self.results += results
            heard = {"role": "tool", "content": [{"name": r.name, "text": r.text} for r in results]}
        else:
            words = self.user(turn["content"]) if self.user else None
            heard = None if words is None else {"role": "user", "content": words}
            self.finish = "answer" if heard is None else None
        if heard is not None:
            self.messages.append(heard)
            self.finish = "steps" if self.steps >= self.max_steps else None
        return [] if self.finish else [heard]


def read_turn(completion: str) -> tuple[dict, bool]:
    """A turn as a message for `render_chat`, and whether it has a block of calls (which may hold none that is valid).

    >>> read_turn("<think>\\nhm\\n</think>\\n42<end_of_sentence>\\n")
    ({'role': 'assistant', 'content': '42', 'reasoning': 'hm'}, False)
    """
    text, turn = completion.removesuffix(END), {"role": "assistant", "content": ""}
    if text.startswith(THINK):
        thinking, closed, text = text[len(THINK) :].partition(ANSWER)
        turn["reasoning"] = thinking
        text = text if closed else ""
    words, block, _ = text.partition(BLOCK)
    turn["content"] = words.strip()
    if block and (calls := parse_tool_calls(text)):
        turn["tool_calls"] = calls
    return turn, bool(block)


def drive(respond: Callable[[list[dict]], str], dialogue: Dialogue) -> Dialogue:
    """Let `respond(messages) -> completion` act until the conversation is over."""
    while dialogue.finish is None:
        dialogue.hear(respond(dialogue.messages))
    return dialogue


@dataclass(frozen=True)
class Episodes(Rollout):
    """Conversations of a model as one `Rollout`: mask True at the tokens it sampled, in all turns of a row.

    completions: the last turn of each row; finish: that of the dialogue.
    """

    dialogues: list[Dialogue] = field(default_factory=list, repr=False)


@dataclass
class _Row:
    ids: list[int]
    mask: list[bool]
    logprobs: list[float]
    last: list[int] = field(default_factory=list)

    def add(self, ids, mask=None, logprobs=None) -> None:
        self.ids += ids
        self.mask += mask or [False] * len(ids)
        self.logprobs += logprobs or [0.0] * len(ids)


def run_episodes(
    model,
    tokenizer: Tokenizer,
    dialogues: Sequence[Dialogue],
    sampling: Sampling,
    *,
    declare: bool = True,
    max_tokens: int = 4096,
    sampler: Callable | None = None,
) -> Episodes:
    """Let a model act in all dialogues at once, one turn of each at a time; the dialogues are changed.

    Args: sampling: of each turn, with the tokenizer's stop ids, and samples_per_prompt 1; declare: show the tools'
        schemas to the model (they cost tokens); max_tokens: a row that is longer is cut off, finish "length", and one
        whose next turn would not fit into the model's context.
    Raises: UserError, for no dialogues, more than one sample, or first messages too long for the context.
    """
    if not dialogues or sampling.samples_per_prompt != 1:
        raise UserError(
            f"got {len(dialogues)} dialogues and samples_per_prompt = {sampling.samples_per_prompt}; "
            "expected at least one dialogue, and one sample: give a dialogue for each sample"
        )
    options = {} if sampler is None else {"sampler": sampler}
    rows, longest = [], min(max_tokens, context_length(model) - sampling.max_new_tokens)
    for dialogue in dialogues:
        tools = [tool.declare() for tool in dialogue.tools] if declare else None
        ids = encode_chat(tokenizer, dialogue.messages, tools=tools, add_generation_prompt=True).ids
        rows.append(_Row(ids, [False] * len(ids), [0.0] * len(ids)))
    turn, alive = 0, list(range(len(rows)))
    while alive:
        drawn = replace(sampling, seed=step_seed(sampling.seed, turn, "turn"))
        rollout = generate(model, [rows[i].ids for i in alive], drawn, **options)
        for place, i in enumerate(alive):
            start, row = len(rows[i].ids), rows[i]
            row.last = rollout.completions[place]
            cut = slice(start, start + len(row.last))
            row.add(row.last, rollout.mask[place, cut].tolist(), rollout.logprobs[place, cut].tolist())
            heard = dialogues[i].hear(tokenizer.decode_completion(row.last))
            if heard:
                system = {"role": "system", "content": None}
                row.add(encode_chat(tokenizer, [system, *heard], add_generation_prompt=True).ids[1:])
                if len(row.ids) > longest:
                    dialogues[i].finish = "length"
        alive = [i for i in alive if dialogues[i].finish is None]
        turn += 1
    return _episodes(rows, dialogues, next(model.parameters()).device)


def _episodes(rows: list[_Row], dialogues: Sequence[Dialogue], device) -> Episodes:
    width = max(len(row.ids) for row in rows)
    pad = lambda values, fill: values + [fill] * (width - len(values))  # noqa: E731
    return Episodes(
        input_ids=torch.tensor([pad(row.ids, 0) for row in rows], device=device),
        mask=torch.tensor([pad(row.mask, False) for row in rows], device=device),
        logprobs=torch.tensor([pad(row.logprobs, 0.0) for row in rows], device=device),
        document_ids=torch.tensor([pad([0] * len(row.ids), -1) for row in rows], device=device),
        completions=[row.last for row in rows],
        finish=[d.finish for d in dialogues],
        dialogues=list(dialogues),
    )


def errand_dialogue(problem: Problem, *, max_steps: int = 40) -> Dialogue:
    """The conversation in which an errand is run: no system sentence, as in all tasks here."""
    messages = [{"role": "system", "content": None}, {"role": "user", "content": problem.prompt}]
    return Dialogue(messages, ERRANDS[problem.family].tools(problem), max_steps=max_steps)


def demonstrated(problem: Problem, *, call: bool = True) -> list[dict]:
    """The messages of an errand run by its demonstrator; without `call` it gives the answer at once, from its head."""
    dialogue = errand_dialogue(problem)

    def respond(messages: list[dict]) -> str:
        results = [result.text for result in dialogue.results]
        next_call = ERRANDS[problem.family].next_call(problem, results) if call else None
        return format_turn(calls=[next_call]) if next_call else format_turn(problem.answer)

    return drive(respond, dialogue).messages
