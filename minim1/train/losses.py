"""Pure loss functions. B batch, T time, V vocabulary, P prompts, G rollouts per prompt.

Every (B, T) tensor aligns with `input_ids`: entry t belongs to token t, log p(ids[t] | ids[<t]); entry 0 is 0
and masked. Nothing is mutated. Losses are divided by totals of the *whole* optimiser step (over micro-batches
and workers), so that micro-batches add up to the same gradient however the step is split.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from minim1.errors import UserError
from minim1.train.settings import check_policy_loss


@dataclass(frozen=True)
class LossOutput:
    """loss: scalar with gradient. metrics: detached scalars; they add up over micro-batches, `*_max` take the maximum."""

    loss: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


def token_logprobs(logits: Tensor, input_ids: Tensor, temperature: float = 1.0) -> Tensor:
    """log p(ids[t] | ids[<t]) at a temperature. (B, T, V), (B, T) -> (B, T) fp32; entry 0 is 0.

    >>> token_logprobs(torch.zeros(1, 2, 4), torch.tensor([[0, 3]])).exp().tolist()
    [[1.0, 0.25]]
    """
    return token_logprobs_and_entropy(logits, input_ids, temperature, entropy=False)[0]


def token_logprobs_and_entropy(
    logits: Tensor, input_ids: Tensor, temperature: float = 1.0, *, entropy: bool = True
) -> tuple[Tensor, Tensor | None]:
    """`token_logprobs`, and the entropy in nats of the distribution each token was drawn from, without gradient, (B, T).

    >>> token_logprobs_and_entropy(torch.zeros(1, 2, 4), torch.tensor([[0, 3]]))[1].tolist()
    [[0.0, 1.3862943649291992]]
    """
    scaled = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if temperature != 1.0:
        scaled = scaled / temperature
    # The logits are not cut, since the backward of a slice copies them. What follows the last token is not known: any id.
    distribution = scaled.log_softmax(-1)
    logprobs = distribution.gather(-1, input_ids.roll(-1, dims=1).unsqueeze(-1)).squeeze(-1)
    logprobs = F.pad(logprobs[:, :-1], (1, 0))
    if not entropy:
        return logprobs, None
    with torch.no_grad():
        entropies = -torch.linalg.vecdot(distribution.exp(), distribution)
    return logprobs, F.pad(entropies[:, :-1], (1, 0))


def next_token_loss(logits: Tensor, input_ids: Tensor, mask: Tensor, *, total_tokens: float) -> LossOutput:
    """Cross-entropy over masked tokens / total_tokens: the contract of the part `lm_loss`.

    Args: logits (B, T, V); input_ids, mask (B, T), mask True at targets; total_tokens: targets of the whole step.

    >>> next_token_loss(torch.zeros(1, 2, 4), torch.tensor([[0, 3]]), torch.tensor([[0, 1]]), total_tokens=1).loss.item()
    1.3862943649291992
    """
    loss = -torch.where(mask.bool(), token_logprobs(logits, input_ids), 0.0).sum() / total_tokens
    return LossOutput(loss, {"loss": loss.detach()})


def group_advantages(rewards: Tensor) -> Tensor:
    """(R - mean) / (std + 1e-6) within each group: the contract of the part `advantages` (report Eq. 2).

    Population standard deviation; a group whose rewards are all equal gets exactly 0. (P, G) -> (P, G).

    >>> group_advantages(torch.tensor([[1.0, 0.0], [1.0, 1.0]])).round(decimals=3).tolist()
    [[1.0, -1.0], [0.0, 0.0]]
    """
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    std = centred.square().mean(dim=1, keepdim=True).sqrt()
    flat = rewards.amax(dim=1, keepdim=True) == rewards.amin(dim=1, keepdim=True)
    return torch.where(flat, 0.0, centred / (std + 1e-6))


def _sampled(mask: Tensor, *tensors: Tensor) -> list[Tensor]:
    """The tensors with 0 wherever no token was sampled: what stands at padding may be anything, and inf * 0 is NaN."""
    return [torch.where(mask, tensor, 0.0) for tensor in tensors]


def _policy_metrics(ratio: Tensor, clipped: Tensor, mask: Tensor, total_tokens: float) -> dict[str, Tensor]:
    ratio = ratio.detach()
    log_ratio = ratio.log()
    return {
        "ratio": (ratio * mask).sum() / total_tokens,
        "ratio_max": (ratio * mask).amax(),
        "clipped_share": (clipped & mask).sum() / total_tokens,
        "kl": (((ratio - 1) - log_ratio) * mask).sum() / total_tokens,  # k3 estimate of KL(old || new)
    }


def cispo_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, *,
    total_tokens: float, total_sequences: float, max_weight: float = 5.0,
) -> LossOutput:
    """CISPO: REINFORCE with a capped, detached importance weight; no token loses its gradient (report Eq. 4-5).

        loss = - sum sg(min(r, max_weight)) * A * log pi / total_tokens,   r = pi / pi_old

    `max_weight` is the *absolute* cap. The name CISPO goes with incompatible conventions:

        ours       max_weight   = cap                       report   1 + eps_high        (value unpublished)
        TRL        epsilon_high = cap (0.2 if unset!)       verl     1 + clip_ratio_high, and a lower bound

    There is no lower bound (report §3.1: none in effect). Normalised by tokens over the whole step (the report's
    normaliser is the group's; ours is the step's, as in TRL).

    Args: logprobs, old_logprobs, advantages (B, T); mask (B, T) bool, True at sampled tokens.
    Raises: UserError for a cap below 1, which would shrink even on-policy weights.
    """
    if not max_weight >= 1:
        raise UserError(f"max_weight is {max_weight}; it caps the ratio itself (1 + eps_high), so it must be at least 1")
    logprobs, old_logprobs, advantages = _sampled(mask, logprobs, old_logprobs, advantages)
    ratio = (logprobs - old_logprobs).exp().detach()
    weight = ratio.clamp(max=max_weight)
    loss = -(weight * advantages * logprobs).sum() / total_tokens
    return LossOutput(loss, _policy_metrics(ratio, ratio > max_weight, mask, total_tokens))


def reinforce_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, *,
    total_tokens: float, total_sequences: float,
) -> LossOutput:
    """REINFORCE without importance weights: - sum A log pi / total_tokens. Right on-policy only."""
    logprobs, old_logprobs, advantages = _sampled(mask, logprobs, old_logprobs, advantages)
    ratio = (logprobs - old_logprobs).exp()
    loss = -(advantages * logprobs).sum() / total_tokens
    return LossOutput(loss, _policy_metrics(ratio, torch.zeros_like(mask), mask, total_tokens))


def _clipped_surrogate(logprobs, old_logprobs, advantages, mask, eps_low, eps_high) -> tuple[Tensor, Tensor, Tensor]:
    """PPO's min(r A, clip(r, 1 - eps_low, 1 + eps_high) A) per token; the ratio; which tokens lost their gradient."""
    logprobs, old_logprobs, advantages = _sampled(mask, logprobs, old_logprobs, advantages)
    ratio = (logprobs - old_logprobs).exp()
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(1 - eps_low, 1 + eps_high) * advantages)
    clipped = ((advantages > 0) & (ratio > 1 + eps_high)) | ((advantages < 0) & (ratio < 1 - eps_low))
    return surrogate, ratio, clipped


def ppo_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, *,
    total_tokens: float, total_sequences: float, eps_low: float = 0.2, eps_high: float = 0.2,
) -> LossOutput:
    """PPO's clipped surrogate, without critic or KL, normalised by tokens (report Eq. 1)."""
    surrogate, ratio, clipped = _clipped_surrogate(logprobs, old_logprobs, advantages, mask, eps_low, eps_high)
    return LossOutput(-surrogate.sum() / total_tokens, _policy_metrics(ratio, clipped, mask, total_tokens))


def dapo_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, *,
    total_tokens: float, total_sequences: float, eps_low: float = 0.2, eps_high: float = 0.28,
) -> LossOutput:
    """DAPO's objective: PPO's surrogate with a higher upper bound, normalised by tokens (arXiv 2503.14476)."""
    return ppo_loss(
        logprobs, old_logprobs, advantages, mask, total_tokens=total_tokens, total_sequences=total_sequences,
        eps_low=eps_low, eps_high=eps_high,
    )


def grpo_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, *,
    total_tokens: float, total_sequences: float, eps_low: float = 0.2, eps_high: float = 0.2,
) -> LossOutput:
    """GRPO: PPO's surrogate averaged within each sequence, then over sequences (report Eq. 2)."""
    surrogate, ratio, clipped = _clipped_surrogate(logprobs, old_logprobs, advantages, mask, eps_low, eps_high)
    per_sequence = surrogate.sum(1) / mask.sum(1).clamp(min=1)
    loss = -per_sequence.sum() / total_sequences
    return LossOutput(loss, _policy_metrics(ratio, clipped, mask, total_tokens))


def policy_loss(name: str):
    """The policy loss of a name; `UserError` lists the names."""
    check_policy_loss(name)
    return globals()[f"{name}_loss"]
