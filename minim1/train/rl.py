"""How does it learn from reward? Rollouts, group-relative advantages, several off-policy updates per rollout batch.

prompts -> generate -> rewards -> advantages -> updates. P prompts, G samples per prompt, R = P G rows, T time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minim1.data.packing import step_seed
from minim1.data.tokenizer import Tokenizer
from minim1.errors import UserError
from minim1.evaluate import prompt_ids, task_sampling, thinking_length
from minim1.generation import Rollout, Sampling, generate
from minim1.model.decoder import Output
from minim1.tasks import get_task
from minim1.tasks.base import Problem
from minim1.tasks.rewards import overlong_penalty
from minim1.train.loop import Stage
from minim1.train.losses import LossOutput, token_logprobs_and_entropy
from minim1.train.settings import RLConfig


@dataclass(frozen=True)
class Experience:
    """Rows that carry a signal: input_ids, document_ids, old_logprobs, advantages, mask, all (R, T)."""

    input_ids: Tensor
    document_ids: Tensor
    old_logprobs: Tensor
    advantages: Tensor
    mask: Tensor

    def rows(self, index: Tensor) -> "Experience":
        """Some rows, cut to the longest of them."""
        picked = [getattr(self, name)[index] for name in Experience.__dataclass_fields__]
        width = int((picked[1] >= 0).sum(1).max()) if len(index) else 1
        return Experience(*(tensor[:, :width] for tensor in picked))


def pack_rows(input_ids: Tensor, real: Tensor, room: int = 512) -> tuple[Tensor, Tensor, Tensor]:
    """Put right-padded sequences one after the other into fewer rows of at most `room` tokens (or one sequence).

    Args: input_ids, real (R, T), real False at padding.
    Returns: ids and document_ids (B, N), and where (tokens,): the place of each real token in them, counted row by row.

    >>> ids = torch.tensor([[1, 2, 0], [3, 0, 0], [4, 5, 6]])
    >>> [x.tolist() for x in pack_rows(ids, ids > 0, room=4)]
    [[[1, 2, 3], [4, 5, 6]], [[0, 0, 1], [2, 2, 2]], [0, 1, 2, 3, 4, 5]]
    """
    used, places = [0], []  # tokens in each row; row and offset of each sequence
    for length in real.sum(1).tolist():
        if used[-1] and used[-1] + length > room:
            used.append(0)
        places.append((len(used) - 1, used[-1]))
        used[-1] += length
    width = max(used)
    starts = [row * width + offset for row, offset in places]
    time = torch.arange(real.shape[1], device=real.device)
    where = (torch.tensor(starts, device=real.device).unsqueeze(1) + time)[real]
    number = torch.arange(len(real), device=real.device).unsqueeze(1).expand_as(real)[real]
    ids = input_ids.new_zeros(len(used) * width).index_put((where,), input_ids[real])
    documents = torch.full_like(ids, -1).index_put((where,), number)
    return ids.view(-1, width), documents.view(-1, width), where


class RLTrainer(Stage):
    """CISPO, or any policy loss of the same contract, on verifiable tasks. One step is one rollout batch.

    Old log-probabilities are the sampler's; the first update of every rollout batch, before any weight has moved,
    therefore measures the mismatch between sampling and training (report §3.2 and Fig. 3).
    """

    name = "rl"

    def __init__(self, model, tokenizer: Tokenizer, config: RLConfig, **shared) -> None:
        super().__init__(model, config, updates=config.updates_per_rollout, **shared)
        self.tokenizer = tokenizer
        if config.prompts_per_rollout < self.workers.size:
            raise UserError(
                f"prompts_per_rollout is {config.prompts_per_rollout} for {self.workers.size} workers; "
                "every worker needs a prompt: take fewer --workers"
            )
        for family in config.families:
            get_task(family)
        self.sampling = dict(
            max_new_tokens=config.max_new_tokens, temperature=config.temperature,
            samples_per_prompt=config.samples_per_prompt, repetition_window=config.repetition_window,
        )

    def advance(self, step: int) -> dict[str, float]:
        problems = self.workers.share(self._problems(step))
        seed = step_seed(self.config.seed, step, f"rollout/{self.workers.rank}")
        sampling = task_sampling(self.tokenizer, seed=seed, **self.sampling)
        with self.optimizer.autocast():
            rollout = self._rollout(problems, sampling)
        rewards, statistics = self._judge(problems, rollout)
        advantages = self.parts.advantages(rewards.view(len(problems), -1)).flatten()
        experience = self._experience(rollout, advantages.to(self.device))
        metrics = self._learn(step, experience)
        return {**metrics, **self._averages(statistics)}

    def _rollout(self, problems: Sequence[Problem], sampling: Sampling) -> Rollout:
        """`samples_per_prompt` answers to each problem, neighbouring rows; agents act in several turns here instead."""
        prompts = [prompt_ids(self.tokenizer, problem.prompt) for problem in problems]
        return generate(self.model, prompts, sampling, sampler=self.parts.sampler)

    def _problems(self, step: int) -> list[Problem]:
        """The prompts of a step, families in turn: a pure function of (seed, step), train split only."""
        families = self.config.families
        return [
            get_task(families[i % len(families)]).sample(step_seed(self.config.seed, step, f"problem/{i}"))
            for i in range(self.config.prompts_per_rollout)
        ]

    def _judge(self, problems: Sequence[Problem], rollout: Rollout) -> tuple[Tensor, dict[str, list[float]]]:
        """Rewards (R,) fp32, and lists of what to average and log."""
        repeated = [problem for problem in problems for _ in range(self.config.samples_per_prompt)]
        completions = [self.tokenizer.decode_completion(ids) for ids in rollout.completions]
        total = [0.0] * len(completions)
        for reward in self.parts.rewards:
            values = reward([p.prompt for p in repeated], completions, problem=repeated)
            total = [sum_ + (value or 0.0) for sum_, value in zip(total, values, strict=True)]
        lengths = [len(ids) for ids in rollout.completions]
        late = [overlong_penalty(n, self.config.max_new_tokens, self.config.overlong_buffer) for n in lengths]
        statistics: dict[str, list[float]] = {
            "reward": total,
            "overlong_penalty": late,
            "length": [float(n) for n in lengths],
            "thinking": [float(thinking_length(self.tokenizer, ids)) for ids in rollout.completions],
            "repetition_share": [float(finish == "repetition") for finish in rollout.finish],
            "unfinished_share": [float(finish == "length") for finish in rollout.finish],
        }
        for problem, completion in zip(repeated, completions):
            for name, value in get_task(problem.family).verify(problem, completion).parts.items():
                statistics.setdefault(f"{problem.family}/{name}", []).append(float(value))
        return torch.tensor([r + p for r, p in zip(total, late)]), statistics

    def _experience(self, rollout: Rollout, advantages: Tensor) -> Experience:
        """Rows of groups with reward variance (dynamic sampling without refill), each token with its advantage."""
        kept = (advantages.view(-1, self.config.samples_per_prompt) != 0).any(1)
        index = kept.repeat_interleave(self.config.samples_per_prompt).nonzero().squeeze(1)
        return Experience(
            rollout.input_ids[index], rollout.document_ids[index], rollout.logprobs[index],
            advantages[index].unsqueeze(1).expand_as(rollout.logprobs[index]), rollout.mask[index],
        )

    def _learn(self, step: int, experience: Experience) -> dict[str, float]:
        """One pass over the experience in `updates_per_rollout` mini-batches of whole sequences."""
        updates, rows = self.config.updates_per_rollout, len(experience.input_ids)
        order = torch.randperm(rows, generator=torch.Generator().manual_seed(step_seed(self.config.seed, step, "order")))
        chunks = [experience.rows(index.to(self.device)) for index in order.tensor_split(updates)]
        totals = torch.tensor([[float(c.mask.sum()), float(len(c.mask))] for c in chunks], device=self.device)
        totals = self.workers.sum(totals).tolist()
        collected: dict[str, list[float]] = {}
        for number, (chunk, (tokens, sequences)) in enumerate(zip(chunks, totals)):
            if sequences == 0:
                continue
            pieces = [chunk.rows(i) for i in torch.arange(len(chunk.mask), device=self.device).split(
                self.config.micro_rows)] if len(chunk.mask) else []
            metrics = self.optimizer.step(
                step * updates + number, pieces,
                lambda piece: self._loss(piece, tokens, sequences, measure_mismatch=number == 0),
            )
            for name, value in metrics.items():
                collected.setdefault(name, []).append(value)
        averages = {
            name: max(values) if name.endswith("_max") else sum(values) / len(values)
            for name, values in collected.items()
        }
        return {"loss": 0.0, **averages, "trained_tokens": sum(tokens for tokens, _ in totals),
                "updates": len(collected.get("loss", []))}

    def _loss(self, piece: Experience, tokens: float, sequences: float, *, measure_mismatch: bool) -> LossOutput:
        out, logprobs, entropy = self._score(piece)
        output = self.parts.policy_loss(
            logprobs, piece.old_logprobs, piece.advantages, piece.mask,
            total_tokens=tokens, total_sequences=sequences, **self.config.policy_options,
        )
        weight = len(piece.mask) / sequences
        loss = output.loss + self.model.config.router_aux_loss_coef * weight * out.aux_loss
        with torch.no_grad():
            metrics = {"loss": output.loss.detach(), **output.metrics, "entropy": (entropy * piece.mask).sum() / tokens}
            if measure_mismatch:
                gap = (logprobs - piece.old_logprobs).abs() * piece.mask
                metrics |= {"mismatch": gap.sum() / tokens, "mismatch_max": gap.max()}
        return LossOutput(loss, metrics)

    def _score(self, piece: Experience) -> tuple[Output, Tensor, Tensor]:
        """The model's output on a piece, log-probabilities and entropies (R, T); packed where padding would cost more."""
        real = piece.document_ids >= 0
        ids, documents, where = pack_rows(piece.input_ids, real)
        if ids.numel() > 0.8 * real.numel():
            ids, documents, where = piece.input_ids, None if real.all() else piece.document_ids, None
        out = self.model(ids, document_ids=documents)
        logprobs, entropy = token_logprobs_and_entropy(out.logits, ids, self.config.temperature)
        if where is None:
            return out, logprobs, entropy
        unpack = lambda values: torch.zeros(  # noqa: E731
            real.shape, dtype=values.dtype, device=real.device).masked_scatter(real, values.flatten()[where])
        return out, unpack(logprobs), unpack(entropy)

    def _averages(self, statistics: dict[str, list[float]]) -> dict[str, float]:
        """Means over all workers; `tokens` is the number of sampled tokens, `reward_flat_share` of groups dropped."""
        size = self.config.samples_per_prompt
        rewards = [r + p for r, p in zip(statistics["reward"], statistics["overlong_penalty"])]
        groups = [rewards[at : at + size] for at in range(0, len(rewards), size)]
        statistics = {**statistics, "reward_flat_share": [float(len(set(group)) == 1) for group in groups]}
        sums: dict[str, list[float]] = {}
        for part in self.workers.gather({name: (sum(v), len(v)) for name, v in statistics.items()}):
            for name, (value, count) in part.items():
                old = sums.setdefault(name, [0.0, 0])
                sums[name] = [old[0] + value, old[1] + count]
        means = {name: value / count for name, (value, count) in sums.items() if count}
        return {**means, "tokens": int(sums["length"][0])}

    def line(self, record: dict) -> str:
        return (
            f"reward {record['reward']:.2f}, thinking {record['thinking']:.0f} tokens, "
            f"ratio <= {record.get('ratio_max', 1):.1f}"
        )
