"""Mixture of experts: who is asked (router), how tokens get there (dispatch), and how the load stays even.

N tokens, C hidden, E experts, K experts per token, F width of an expert.
Experts are SwiGLU, w2(SiLU(w1 x) * w3 x), stored stacked: w1, w3 (E, F, C) and w2 (E, C, F).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from minim1.model.precision import at_least_fp32


FEW = 256  # tokens times experts up to which dispatch_dense is the faster one (measured on a CPU)


def top_k_router(logits: Tensor, k: int, *, replay: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k largest of the softmax over experts, renormalised to sum 1 (MiniMax-01 report Eq. 1; M1's code).

    Args:
        logits: (N, E), any float dtype; computed in fp32 (fp64 stays).
        k: experts per token.
        replay: (N, K) expert ids to use instead of choosing, e.g. those of a rollout; gradients still reach
            the logits through the weights.
    Returns:
        weights (N, K) summing to 1, fp32 (or fp64), and expert ids (N, K) int64.

    >>> top_k_router(torch.tensor([[0.0, 0.0, -9.0]]), 2)[0].tolist()
    [[0.5, 0.5]]
    """
    logits = at_least_fp32(logits)
    expert_ids = logits.topk(k, dim=-1).indices if replay is None else replay
    return logits.gather(-1, expert_ids).softmax(-1), expert_ids  # = softmax over E, taken and renormalised


def dispatch_by_loop(x, weights, expert_ids, w1, w2, w3) -> Tensor:
    """Each expert picks its tokens: the definition. Same contract as `dispatch_by_sort`."""
    out = torch.zeros_like(x)
    for expert, (a, b, c) in enumerate(zip(w1.unbind(), w2.unbind(), w3.unbind())):
        token, slot = (expert_ids == expert).nonzero(as_tuple=True)
        out = out.index_add(0, token, _swiglu(x[token], a, b, c) * weights[token, slot].unsqueeze(-1).to(x.dtype))
    return out


def dispatch_by_sort(x, weights, expert_ids, w1, w2, w3) -> Tensor:
    """Send tokens to their experts and combine: the contract of the part `dispatch`. No token is dropped.

    Token copies are sorted by expert, so that each expert multiplies one contiguous slice.

    Args: x (N, C); weights (N, K); expert_ids (N, K) int64; w1, w3 (E, F, C); w2 (E, C, F).
    Returns: (N, C), sum over k of weights[:, k] * expert_k(x).
    """
    per_token = expert_ids.shape[1]
    flat = expert_ids.flatten()
    order = flat.argsort(stable=True)  # token copies, grouped by expert
    counts = torch.bincount(flat, minlength=w1.shape[0]).tolist()
    pieces = x.index_select(0, order // per_token).split(counts)  # whose backward is faster than x[...]'s
    experts = zip(pieces, w1.unbind(), w2.unbind(), w3.unbind())  # unbind: w1[e] would cost O(E^2) in backward
    done = torch.cat([_swiglu(piece, a, b, c) for piece, a, b, c in experts if len(piece)])
    back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    return (done.index_select(0, back).view(*expert_ids.shape, -1) * weights.unsqueeze(-1).to(done.dtype)).sum(1)


def dispatch_dense(x, weights, expert_ids, w1, w2, w3) -> Tensor:
    """Every expert runs on every token, weighted by 0 where it was not chosen. Same contract as `dispatch_by_sort`.

    E / K times the arithmetic, but a handful of operations: right for the few tokens of a decoding step.
    """
    share = weights.new_zeros(len(x), len(w1)).scatter_add(1, expert_ids, weights).to(x.dtype)  # (N, E)
    hidden = F.silu(F.linear(x, w1.flatten(0, 1))) * F.linear(x, w3.flatten(0, 1))
    hidden = hidden.view(len(x), *w1.shape[:2]) * share.unsqueeze(-1)  # (N, E, F)
    return torch.bmm(hidden.transpose(0, 1), w2.mT).sum(0)


def dispatch(x, weights, expert_ids, w1, w2, w3) -> Tensor:
    """`dispatch_by_sort`, or `dispatch_dense` where tokens are few: the package's own part `dispatch`."""
    few = len(x) * len(w1) <= FEW
    return (dispatch_dense if few else dispatch_by_sort)(x, weights, expert_ids, w1, w2, w3)


def _swiglu(x: Tensor, w1: Tensor, w2: Tensor, w3: Tensor) -> Tensor:
    return F.linear(F.silu(F.linear(x, w1)) * F.linear(x, w3), w2)


def load_balancing_loss(logits: Tensor, expert_ids: Tensor, valid: Tensor | None = None) -> Tensor:
    """E * sum over experts of f_e * m_e: the contract of the part `balance_loss`; 1.0 is balanced, whatever K.

    f_e is the share of token copies sent to expert e (no gradient), m_e the mean router probability. MiniMax-01's
    form (report §2.1) is this / E^2, M1's and HF's config form is this * K.

    Args: logits (N, E); expert_ids (N, K); valid (N,) bool, False for padding, which does not count.

    >>> load_balancing_loss(torch.zeros(4, 2), torch.tensor([[0], [1], [0], [1]])).item()
    1.0
    """
    probabilities = at_least_fp32(logits).softmax(-1)
    experts = logits.shape[-1]
    chosen = F.one_hot(expert_ids, experts).sum(1).to(probabilities.dtype)  # (N, E)
    if valid is not None:
        probabilities, chosen = probabilities * valid.unsqueeze(-1), chosen * valid.unsqueeze(-1)
    tokens = len(logits) if valid is None else valid.sum().clamp(min=1)
    share = chosen.sum(0) / (tokens * expert_ids.shape[1])
    return experts * (share * probabilities.sum(0) / tokens).sum()


def expert_load(expert_ids: Tensor, num_experts: int, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Share of token copies per expert and its entropy relative to a uniform load (1.0 = even), per layer.

    Args: expert_ids (L, B, T, K) as in `Output`; valid (B, T) bool. Returns: load (L, E), entropy (L,), both fp32.
    """
    chosen = F.one_hot(expert_ids, num_experts).sum(-2).float()  # (L, B, T, E)
    if valid is not None:
        chosen = chosen * valid.unsqueeze(-1)
    load = chosen.sum((1, 2))
    load = load / load.sum(-1, keepdim=True).clamp(min=1)
    entropy = -torch.xlogy(load, load).sum(-1)
    return load, entropy / math.log(num_experts) if num_experts > 1 else torch.ones_like(entropy)
