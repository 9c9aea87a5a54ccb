"""How does it answer? Batched sampling on the decode cache: stop rules, repetition truncation, thinking budget.

R rows (prompts times samples), T time, V vocabulary. The model is anything with `forward(ids, document_ids=,
cache=, last_only=)`, `new_cache()` and `new_step()`; all state of a generation is in its cache.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from minim1.errors import UserError


@dataclass(frozen=True)
class Sampling:
    """How to sample.

    M1 recommends temperature 1.0 and top_p 0.95 (README §3). `repetition_window` is M1's stop rule (report
    §3.2: 3,000 consecutive tokens each with probability > 0.99); 0 switches it off. `thinking_budget` closes an
    open `<think>` by force after that many tokens; forced tokens are not supervised and have log-probability 0.
    """

    max_new_tokens: int = 64
    temperature: float = 1.0  # 0: greedy
    top_p: float = 1.0
    samples_per_prompt: int = 1
    stop_ids: tuple[int, ...] = ()
    repetition_window: int = 0
    repetition_probability: float = 0.99
    thinking_budget: int | None = None
    think_id: int | None = None
    end_think_id: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf or not 0 < self.top_p <= 1:
            raise UserError(
                f"temperature is {self.temperature} and top_p {self.top_p}; "
                "expected a finite temperature >= 0 and 0 < top_p <= 1"
            )
        if self.max_new_tokens < 1 or self.samples_per_prompt < 1:
            raise UserError(
                f"max_new_tokens is {self.max_new_tokens} and samples_per_prompt {self.samples_per_prompt}; "
                "both must be at least 1"
            )
        if self.repetition_window < 0 or (self.thinking_budget or 0) < 0:
            raise UserError(
                f"repetition_window is {self.repetition_window} and thinking_budget {self.thinking_budget}; "
                "neither can be negative"
            )
        if self.thinking_budget is not None and None in (self.think_id, self.end_think_id):
            raise UserError("thinking_budget is set without think_id and end_think_id; give the ids of the tags")


@dataclass(frozen=True)
class Rollout:
    """Prompts with their sampled answers, one row each, padded on the right.

    input_ids (R, T) int64; mask (R, T) bool, True at sampled tokens; logprobs (R, T) fp32 of the sampling
    distribution, 0 where mask is False; document_ids (R, T), 0 for real tokens and -1 for padding;
    completions: the new ids of each row, stop token included; finish: "stop", "length" or "repetition".
    """

    input_ids: Tensor
    mask: Tensor
    logprobs: Tensor
    document_ids: Tensor
    completions: list[list[int]] = field(repr=False)
    finish: list[str] = field(repr=False)


def sample_token(
    logits: Tensor, *, temperature: float = 1.0, top_p: float = 1.0, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Draw one token per row: the contract of the part `sampler`.

    Args: logits (R, V); temperature 0 takes the largest; top_p keeps the smallest set of tokens whose
        probability reaches top_p and renormalises.
    Returns: ids (R,) int64 and their log-probabilities (R,) fp32 under the distribution drawn from
        (at temperature 0: under the untempered softmax).

    >>> sample_token(torch.tensor([[0.0, 9.0]]), temperature=0)[0]
    tensor([1])
    """
    logits = logits.float()
    if temperature not in (0, 1):
        logits = logits / min(max(temperature, 1e-30), 1e30)  # beyond, fp32 has inf, and inf / inf is no number
    probabilities = logits.softmax(-1)
    if temperature == 0:
        ids = logits.argmax(-1, keepdim=True)
    else:
        if top_p < 1:
            ordered, order = probabilities.sort(dim=-1, descending=True)
            outside = ordered.cumsum(-1) - ordered >= top_p  # the mass before this token suffices
            outside[:, 0] = False  # also where fp32 takes top_p for 0
            logits = logits.masked_fill(torch.zeros_like(outside).scatter(-1, order, outside), -torch.inf)
            probabilities = logits.softmax(-1)
        cumulative = probabilities.cumsum(-1)  # inverse transform: torch.multinomial takes several times as long
        uniform = torch.rand(len(logits), 1, generator=generator, device=logits.device)
        ids = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True).clamp(max=logits.shape[-1] - 1)
    return ids.squeeze(-1), probabilities.gather(-1, ids).log().squeeze(-1)


def context_length(model) -> float:
    """How many tokens a row may have: `max_position_embeddings`; no limit for a model without a config.

    The network itself would go on, but its config does not vouch for what it says there (to try it, call the model).
    """
    return model.config.max_position_embeddings if hasattr(model, "config") else math.inf


def _check(model, prompts: Sequence[Sequence[int]], sampling: Sampling) -> None:
    if not prompts or not all(map(len, prompts)):
        raise UserError(f"got {len(prompts)} prompts, at least one of them empty; every prompt needs a token")
    longest, room = max(map(len, prompts)), context_length(model)
    if longest + sampling.max_new_tokens > room:
        raise UserError(
            f"a prompt of {longest} tokens and max_new_tokens = {sampling.max_new_tokens} do not fit into the context of "
            f"{room} tokens; shorten the prompt or lower max_new_tokens"
        )
    size = model.config.vocab_size if hasattr(model, "config") else 2**63
    forced = () if sampling.thinking_budget is None else (sampling.end_think_id,)
    bounds = [*((ids, size) for ids in (*prompts, forced)), (sampling.stop_ids, 2**63)]  # a stop may be one that never comes
    wrong = next((i for ids, end in bounds for i in ids if not 0 <= i < end), None)
    if wrong is not None:
        raise UserError(
            f"the id {wrong} is outside the vocabulary of {size} tokens; encode with this model's own tokenizer"
        )


def left_pad(prompts: Sequence[Sequence[int]], device) -> tuple[Tensor, Tensor | None]:
    """Prompts as one (P, T) tensor, padded on the left, and their document ids (None when all have one length)."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts], device=device)
    if all(len(prompt) == longest for prompt in prompts):
        return ids, None
    pads = torch.tensor([longest - len(p) for p in prompts], device=device)
    time = torch.arange(longest, device=device)
    return ids, torch.where(time >= pads.unsqueeze(1), 0, -1)


@torch.no_grad()
def generate(
    model,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    sampler: Callable = sample_token,
    on_token: Callable[[int], None] | None = None,
) -> Rollout:
    """Sample `samples_per_prompt` answers to each prompt of token ids; rows of a prompt are neighbours.

    Each prompt is read once; finished rows leave the batch. `on_token` receives the newest id of row 0.
    The model is in eval mode meanwhile and put back afterwards.
    Raises: UserError, for no prompt, an empty one, an id outside the vocabulary, or a prompt that leaves no room for
        `max_new_tokens` in the model's context.
    """
    _check(model, prompts, sampling)
    training, device = model.training, next(model.parameters()).device
    model.eval()
    try:
        cache = model.new_cache()
        ids, document_ids = left_pad(prompts, device)
        logits = model(ids, document_ids=document_ids, cache=cache, last_only=True).logits[:, -1]
        if sampling.samples_per_prompt > 1:
            cache.repeat(sampling.samples_per_prompt)
            logits = logits.repeat_interleave(sampling.samples_per_prompt, dim=0)
        return _decode(model, prompts, logits, cache, sampling, sampler, on_token)
    finally:
        model.train(training)


def _decode(model, prompts, logits, cache, sampling, sampler, on_token) -> Rollout:
    rows, device, feed = len(logits), logits.device, model.new_step()
    generator = torch.Generator(device=device).manual_seed(sampling.seed)
    new = torch.zeros(rows, sampling.max_new_tokens, dtype=torch.long, device=device)
    logprobs = torch.zeros(rows, sampling.max_new_tokens, device=device)
    sampled = torch.zeros(rows, sampling.max_new_tokens, dtype=torch.bool, device=device)
    lengths = torch.full((rows,), sampling.max_new_tokens, device=device)
    repeated = torch.zeros(rows, dtype=torch.bool, device=device)
    stops = torch.tensor(sampling.stop_ids, dtype=torch.long, device=device)
    alive = torch.arange(rows, device=device)  # rows of `new` that the cache still holds
    running = torch.ones(rows, dtype=torch.bool, device=device)  # of those: not finished
    spent = torch.tensor([_spent(prompt, sampling) for prompt in prompts], device=device)
    spent = spent.repeat_interleave(sampling.samples_per_prompt)
    confident = torch.zeros(rows, dtype=torch.long, device=device)  # consecutive near-certain tokens
    for step in range(sampling.max_new_tokens):
        ids, logprob = sampler(logits, temperature=sampling.temperature, top_p=sampling.top_p, generator=generator)
        drawn = running.clone()
        if sampling.thinking_budget is not None:
            forced = (spent >= sampling.thinking_budget) & (ids != sampling.end_think_id)
            ids, logprob = torch.where(forced, sampling.end_think_id, ids), torch.where(forced, 0.0, logprob)
            drawn &= ~forced
            opened = (spent < 0) & (ids == sampling.think_id)
            spent = torch.where(opened, 0, torch.where(ids == sampling.end_think_id, -1, spent + (spent >= 0)))
        new[alive, step] = torch.where(running, ids, 0)
        logprobs[alive, step] = torch.where(drawn, logprob, 0.0)
        sampled[alive, step] = drawn
        if on_token is not None and bool(running[0]) and int(alive[0]) == 0:
            on_token(int(ids[0]))
        ended = (ids.unsqueeze(1) == stops).any(1)
        if sampling.repetition_window:  # a forced token is none that the model was sure of
            confident = torch.where(drawn & (logprob.exp() > sampling.repetition_probability), confident + 1, 0)
            looping = (confident >= sampling.repetition_window) & ~ended
            repeated[alive] |= looping & running
            ended |= looping
        lengths[alive] = torch.where(ended & running, step + 1, lengths[alive])
        running &= ~ended
        left = int(running.sum())
        if left == 0 or step + 1 == sampling.max_new_tokens:
            break
        if left <= 0.8 * len(alive):  # drop finished rows from the batch
            cache.select(running)
            alive, ids, spent, confident = alive[running], ids[running], spent[running], confident[running]
            running = running[running]
        logits = feed(ids, cache)
    return _rollout(prompts, sampling, new, logprobs, sampled, lengths.tolist(), repeated.tolist())


def _spent(prompt, sampling) -> int:
    """Tokens since a `<think>` that a prompt leaves open; -1 when it leaves none open."""
    spent = -1
    for token in prompt:
        if token == sampling.end_think_id:
            spent = -1
        elif spent >= 0 or token == sampling.think_id:
            spent += 1
    return spent


def _rollout(prompts, sampling, new, logprobs, sampled, lengths, repeated) -> Rollout:
    repeat = sampling.samples_per_prompt
    starts = [len(prompt) for prompt in prompts for _ in range(repeat)]
    width = max(start + length for start, length in zip(starts, lengths))
    shape, device = (len(starts), width), new.device
    input_ids = torch.zeros(shape, dtype=torch.long, device=device)
    mask = torch.zeros(shape, dtype=torch.bool, device=device)
    padded = torch.zeros(shape, device=device)
    document_ids = torch.full(shape, -1, dtype=torch.long, device=device)
    completions, finish = [], []
    for row, (start, length) in enumerate(zip(starts, lengths)):
        end = start + length
        input_ids[row, :start] = torch.tensor(prompts[row // repeat], device=device)
        input_ids[row, start:end] = new[row, :length]
        mask[row, start:end] = sampled[row, :length]
        padded[row, start:end] = logprobs[row, :length]
        document_ids[row, :end] = 0
        completions.append(new[row, :length].tolist())
        stopped = completions[-1][-1] in sampling.stop_ids
        finish.append("stop" if stopped else "repetition" if repeated[row] else "length")
    return Rollout(input_ids, mask, padded, document_ids, completions, finish)
