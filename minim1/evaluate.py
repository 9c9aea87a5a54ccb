"""How good is it? Accuracy and thinking length per family on held-out problems, and bits per byte of held-out text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from minim1.data.chat import encode_chat
from minim1.data.packing import Batch, step_seed
from minim1.data.tokenizer import Tokenizer
from minim1.errors import UserError
from minim1.generation import Sampling, generate
from minim1.tasks import get_task
from minim1.tasks.base import Problem, Verdict
from minim1.train.losses import token_logprobs
from minim1.workers import Workers


@dataclass(frozen=True)
class Answer:
    """A problem, what the model wrote, what the verifier said; thinking counts the tokens between the tags."""

    problem: Problem
    completion: str
    verdict: Verdict
    thinking: int
    finish: str


@dataclass(frozen=True)
class Score:
    """Accuracy in [0, 1] with its standard error, mean thinking length in tokens, and means of the verdicts' parts."""

    family: str
    problems: int
    accuracy: float
    error: float
    thinking: float
    parts: dict[str, float] = field(default_factory=dict)


def prompt_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The ids of a task's prompt in the chat template: no system sentence, and the assistant's header at the end."""
    messages = [{"role": "system", "content": None}, {"role": "user", "content": prompt}]
    return encode_chat(tokenizer, messages, add_generation_prompt=True).ids


def task_sampling(tokenizer: Tokenizer, **settings) -> Sampling:
    """`Sampling` with this tokenizer's stop and thinking ids."""
    tags = dict(think_id=tokenizer.think_id, end_think_id=tokenizer.end_think_id)
    return Sampling(stop_ids=(tokenizer.eos_id,), **tags, **settings)


def thinking_length(tokenizer: Tokenizer, ids: Sequence[int]) -> int:
    """Tokens between `<think>` and `</think>`, or to the end when it never closes.

    An answer that opens no thinking has length 0.
    """
    ids = list(ids)
    if not ids or ids[0] != tokenizer.think_id:
        return 0
    return (ids.index(tokenizer.end_think_id) if tokenizer.end_think_id in ids else len(ids)) - 1


def heldout_problems(family: str, count: int, *, seed: int = 0, difficulty: int | None = None) -> list[Problem]:
    """`count` held-out problems of a family; the same for the same arguments."""
    task = get_task(family)
    return [task.sample(step_seed(seed, i, f"eval/{family}"), difficulty, split="heldout") for i in range(count)]


def answer(model, tokenizer: Tokenizer, problems: Sequence[Problem], sampling: Sampling) -> list[Answer]:
    """Let the model answer problems, one sampled answer per problem (or `samples_per_prompt` in a row)."""
    if not problems:
        return []
    prompts = [prompt_ids(tokenizer, problem.prompt) for problem in problems]
    rollout = generate(model, prompts, sampling)
    answers = []
    for row, (ids, finish) in enumerate(zip(rollout.completions, rollout.finish)):
        problem = problems[row // sampling.samples_per_prompt]
        text = tokenizer.decode_completion(ids)
        verdict = get_task(problem.family).verify(problem, text)
        answers.append(Answer(problem, text, verdict, thinking_length(tokenizer, ids), finish))
    return answers


def score(family: str, answers: Sequence[Answer]) -> Score:
    """Summary of a family's answers."""
    right = [a.verdict.reward for a in answers]
    accuracy = sum(right) / len(right)
    names = sorted({name for a in answers for name in a.verdict.parts})
    parts = {}
    for name in names:
        values = [a.verdict.parts[name] for a in answers if name in a.verdict.parts]
        parts[name] = sum(values) / len(values)
    error = math.sqrt(max(accuracy * (1 - accuracy), 0) / len(right))
    return Score(family, len(right), accuracy, error, sum(a.thinking for a in answers) / len(right), parts)


def pass_at_k(right: torch.Tensor, samples: int, k: int) -> torch.Tensor:
    """The probability that at least one of k answers is right, estimated without bias from `samples` answers a problem.

    1 - C(n-c, k) / C(n, k) as a product of k fractions (Chen et al. 2021, arXiv 2107.03374).

    Args: right (P,), how many of a problem's answers are right; k, 1 to `samples`, else UserError. Returns: (P,) fp64.

    >>> pass_at_k(torch.tensor([0, 1, 2, 4]), 4, 2).round(decimals=4).tolist()
    [0.0, 0.5, 0.8333, 1.0]
    """
    if not 1 <= k <= samples:
        raise UserError(f"k is {k}, but must be from 1 to {samples}, the answers a problem; lower k or sample more")
    drawn = torch.arange(k, dtype=torch.float64, device=right.device)
    wrong_left = samples - right.double()[:, None] - drawn  # once none is left a factor is 0, whatever follows
    return 1 - (wrong_left / (samples - drawn)).prod(dim=1)


def evaluate(
    model, tokenizer: Tokenizer, families: Sequence[str], *, count: int = 256, seed: int = 0,
    difficulty: int | None = None, sampling: Sampling | None = None, workers: Workers = Workers(),
) -> dict[str, Score]:
    """Score every family on `count` held-out problems, shared among workers."""
    sampling = sampling or task_sampling(tokenizer, max_new_tokens=64)
    scores = {}
    for family in families:
        problems = workers.share(heldout_problems(family, count, seed=seed, difficulty=difficulty))
        drawn = replace(sampling, seed=step_seed(seed, workers.rank, f"answers/{family}"))
        parts = workers.gather(answer(model, tokenizer, problems, drawn))
        scores[family] = score(family, [a for part in parts for a in part])
    return scores


@torch.no_grad()
def bits_per_byte(
    model, tokenizer: Tokenizer, windows: Batch, *, rows: int = 32, workers: Workers = Workers()
) -> float:
    """Cross-entropy of the targets of `windows` in bits, divided by the bytes they stand for.

    Windows start without context, so this overstates what a long context would give.
    """
    training, device = model.training, next(model.parameters()).device
    model.eval()
    sizes = torch.as_tensor(tokenizer.byte_lengths, device=device)
    total = torch.zeros(2, dtype=torch.float64)  # nats, bytes
    mine = windows.slice(slice(workers.rank, None, workers.size))
    try:
        for start in range(0, len(mine.input_ids), rows):
            batch = mine.slice(slice(start, start + rows)).to(device)
            logits = model(batch.input_ids, document_ids=batch.document_ids, positions=batch.positions).logits
            logprobs = token_logprobs(logits, batch.input_ids)
            total[0] -= float((logprobs * batch.mask).sum())
            total[1] += float((sizes[batch.input_ids] * batch.mask).sum())
    finally:
        model.train(training)
    nats, count = workers.sum(total).tolist()
    return nats / math.log(2) / count
