"""Ten realistic faults, each in one part, and ten properties of which each catches one of them: chapter 16's bug hunt.

A property is a test that needs no reference: it asks the parts for something that must be true of any right ones, such
as "decoding equals reading at once". `holds(parts)` gives None, or one sentence with what it saw. The faults are of the
kind that people ship: shapes are right, training goes on, the loss goes down.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from minim1.config import M1Config
from minim1.errors import UserError
from minim1.model.decoder import MiniM1
from minim1.parts import Parts

CONFIG = M1Config(vocab_size=64, hidden_size=32, intermediate_size=32, num_attention_heads=4, num_key_value_heads=2,
                  head_dim=8, rotary_dim=4, num_hidden_layers=4, attn_type_list=(0, 1, 0, 1), block_size=8)
TOLERANCE = 1e-4  # of the largest value: far above the rounding of fp32, far below any of these faults


@dataclass(frozen=True)
class Fault:
    """`part` is the field of `Parts` that is wrong, `function` what stands there, `caught_by` the property's name."""

    part: str
    function: Callable
    caught_by: str
    story: str

    @property
    def parts(self) -> Parts:
        """The package's parts with this one wrong."""
        return replace(Parts(), **{self.part: self.function})


# ---------------------------------------------------------------- properties


def _model(parts: Parts) -> tuple[MiniM1, Tensor]:
    """A small model with these parts, and two rows of ids (2, 24)."""
    return MiniM1(CONFIG, parts, seed=3).eval(), torch.randint(64, (2, 24), generator=torch.Generator().manual_seed(5))


def gap(found: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest expected value; infinite where `found` is not finite.

    >>> gap(torch.tensor([1.0, 2.5]), torch.tensor([1.0, 2.0]))
    0.25
    """
    if not torch.isfinite(found).all():
        return float("inf")
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-12))


def _unless_equal(found: Tensor, expected: Tensor, sentence: str) -> str | None:
    seen = gap(found, expected)
    return None if seen <= TOLERANCE else sentence.format(f"{seen:.1e}")


@torch.no_grad()
def sees_no_future(parts: Parts) -> str | None:
    """Another last token changes no earlier logits."""
    model, ids = _model(parts)
    other = ids.clone()
    other[:, -1] = (ids[:, -1] + 1) % 64
    return _unless_equal(model(other).logits[:, :-1], model(ids).logits[:, :-1],
                         "another last token changes the logits before it by {} of the largest")


@torch.no_grad()
def documents_apart(parts: Parts) -> str | None:
    """Two documents in one row are read as each alone."""
    model, ids = _model(parts)
    together = model(ids, document_ids=torch.arange(24).ge(10).long().expand(2, -1)).logits
    alone = torch.cat([model(ids[:, :10]).logits, model(ids[:, 10:]).logits], dim=1)
    return _unless_equal(together, alone, "the second document in a row differs by {} from the same alone")


@torch.no_grad()
def pieces_are_the_whole(parts: Parts) -> str | None:
    """A row that is read in two pieces on a cache gives the logits of the row read at once."""
    model, ids = _model(parts)
    cache = model.new_cache()
    pieces = torch.cat([model(ids[:, :14], cache=cache).logits, model(ids[:, 14:], cache=cache).logits], dim=1)
    return _unless_equal(pieces, model(ids).logits, "read in two pieces the logits differ by {} from those at once")


@torch.no_grad()
def place_matters(parts: Parts) -> str | None:
    """Scores depend on how far apart two tokens are, and on that alone: shifting all positions changes nothing."""
    model, ids = _model(parts)
    places = torch.arange(24).expand(2, -1)
    shifted = _unless_equal(model(ids, positions=places + 7).logits, model(ids, positions=places).logits,
                            "shifting every position by 7 changes the logits by {}")
    same = gap(model(ids, positions=torch.zeros_like(places)).logits, model(ids, positions=places).logits)
    return shifted or (None if same > TOLERANCE else "putting all tokens at one position changes nothing")


def weights_are_shares(parts: Parts) -> str | None:
    """The router's weights are positive and sum to 1 for every token."""
    logits = torch.randn(40, 8, generator=torch.Generator().manual_seed(1))
    weights, _ = parts.router(logits, 2)
    low, high = float(weights.sum(-1).min()), float(weights.sum(-1).max())
    fine = float(weights.min()) >= 0 and abs(low - 1) < TOLERANCE and abs(high - 1) < TOLERANCE
    return None if fine else f"the weights of a token sum to between {low:.2f} and {high:.2f}"


@torch.no_grad()
def tokens_have_no_order(parts: Parts) -> str | None:
    """Experts know no order: what is done with permuted tokens is the permuted result."""
    draw = torch.Generator().manual_seed(2)
    x, order = torch.randn(40, 16, generator=draw), torch.randperm(40, generator=draw)
    liking = torch.rand(40, 4, generator=draw) + torch.tensor([0.8, 0.0, 0.0, 0.0])  # expert 0 is busy
    weights, ids = torch.rand(40, 2, generator=draw), liking.topk(2).indices
    w1, w3, w2 = (torch.randn(4, *shape, generator=draw) for shape in ((8, 16), (8, 16), (16, 8)))
    there = parts.dispatch(x[order], weights[order], ids[order], w1, w2, w3)
    return _unless_equal(there, parts.dispatch(x, weights, ids, w1, w2, w3)[order],
                         "the same tokens in another order get results that differ by {}")


def balance_ignores_padding(parts: Parts) -> str | None:
    """The balance loss of a batch does not change when padding is added to it."""
    draw = torch.Generator().manual_seed(4)
    logits = torch.randn(60, 4, generator=draw)
    logits[40:] += torch.tensor([3.0, 0, 0, 0])
    ids, valid = logits.topk(2).indices, torch.arange(60) < 40
    padded = parts.balance_loss(logits, ids, valid)
    return _unless_equal(padded, parts.balance_loss(logits[:40], ids[:40], valid[:40]),
                         "20 padded tokens change the balance loss by {} of its value")


def micro_batches_add_up(parts: Parts) -> str | None:
    """The losses of two micro-batches of different length sum to the loss of both at once."""
    draw = torch.Generator().manual_seed(6)
    logits, ids = torch.randn(2, 20, 16, generator=draw), torch.randint(16, (2, 20), generator=draw)
    mask = torch.ones(2, 20, dtype=torch.bool)
    mask[:, 0], mask[1, 6:] = False, False
    total = float(mask.sum())
    split = sum(parts.lm_loss(logits[i:i + 1], ids[i:i + 1], mask[i:i + 1], total_tokens=total).loss for i in range(2))
    return _unless_equal(split, parts.lm_loss(logits, ids, mask, total_tokens=total).loss,
                         "two micro-batches give a loss that differs by {} from that of both at once")


def draws_what_it_says(parts: Parts) -> str | None:
    """The sampler's log-probabilities are those of the distribution that it draws from, at another temperature too."""
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0]).expand(20_000, -1)
    ids, logprobs = parts.sampler(logits, temperature=0.5, generator=torch.Generator().manual_seed(7))
    said = torch.zeros(4).scatter(0, ids, logprobs.exp())
    seen = torch.bincount(ids, minlength=4) / len(ids)
    worst = float((said - seen).abs()[seen > 0].max())
    return None if worst < 0.02 else f"a token is drawn {worst:.2f} more or less often than its log-probability says"


def update_knows_ratios_only(parts: Parts) -> str | None:
    """The policy gradient depends on old and new log-probabilities through their difference alone."""
    draw = torch.Generator().manual_seed(8)
    logprobs, advantages = -torch.rand(3, 9, generator=draw), torch.randn(3, 1, generator=draw).expand(3, 9)
    old, mask = logprobs + 0.1 * torch.randn(3, 9, generator=draw), torch.ones(3, 9, dtype=torch.bool)

    def gradient(shift: float) -> Tensor:
        new = (logprobs + shift).requires_grad_()
        parts.policy_loss(new, old + shift, advantages, mask, total_tokens=27, total_sequences=3).loss.backward()
        return new.grad

    return _unless_equal(gradient(-2.0), gradient(0.0),
                         "less probable tokens with the same ratios get a gradient that differs by {}")


PROPERTIES = {property.__name__: property for property in (
    sees_no_future, documents_apart, pieces_are_the_whole, place_matters, weights_are_shares, tokens_have_no_order,
    balance_ignores_padding, micro_batches_add_up, draws_what_it_says, update_knows_ratios_only,
)}


# ---------------------------------------------------------------- faults

_right = Parts()


def _attention_one_ahead(q, k, v, *, mask=None):
    queries, keys = q.shape[1], k.shape[1]
    if mask is None:
        mask = torch.ones(1, queries, keys, dtype=torch.bool, device=q.device).tril(keys - queries)
    return _right.attention(q, k, v, mask=torch.cat([mask[:, 1:], mask[:, -1:]], dim=1))


def _lightning_one_document(q, k, v, slopes, *, state=None, document_ids=None):
    padding = None if document_ids is None else torch.where(document_ids < 0, -1, 0)
    return _right.lightning(q, k, v, slopes, state=state, document_ids=padding)


def _lightning_stale_state(q, k, v, slopes, *, state=None, document_ids=None):
    out, last = _right.lightning(q, k, v, slopes, document_ids=document_ids)
    if state is not None:
        out = out + torch.einsum("bthd,bhde->bthe", q, state.to(q.dtype))
        last = last + torch.exp(-slopes * q.shape[1]).view(-1, 1, 1) * state
    return out, last


def _rope_places_in_pairs(x, positions, *, rotary_dim, theta):
    return _right.rope(x, positions // 2 * 2 + 1, rotary_dim=rotary_dim, theta=theta)


def _router_without_renormalising(logits, k, *, replay=None):
    _, ids = _right.router(logits, k, replay=replay)
    return logits.float().softmax(-1).gather(-1, ids), ids


def _dispatch_with_a_full_bus(x, weights, expert_ids, w1, w2, w3):
    seats = max(1, int(1.25 * expert_ids.numel() / len(w1)))
    taken = F.one_hot(expert_ids.flatten(), len(w1)).cumsum(0).gather(1, expert_ids.flatten().unsqueeze(1))
    return _right.dispatch(x, torch.where(taken.view_as(weights) <= seats, weights, 0), expert_ids, w1, w2, w3)


def _balance_with_padding(logits, expert_ids, valid=None):
    return _right.balance_loss(logits, expert_ids, None)


def _loss_of_its_own_mean(logits, input_ids, mask, *, total_tokens):
    return _right.lm_loss(logits, input_ids, mask, total_tokens=max(1.0, float(mask.sum())))


def _sampler_untempered(logits, *, temperature=1.0, top_p=1.0, generator=None):
    ids, _ = _right.sampler(logits, temperature=temperature, top_p=top_p, generator=generator)
    return ids, logits.float().log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)


def _cispo_through_the_weight(logprobs, old_logprobs, advantages, mask, *, total_tokens, total_sequences, max_weight=5.0):
    exact = _right.policy_loss(logprobs, old_logprobs, advantages, mask, total_tokens=total_tokens,
                               total_sequences=total_sequences, max_weight=max_weight)
    weight = (logprobs - old_logprobs).exp().clamp(max=max_weight)
    loss = -(torch.where(mask, weight * advantages * logprobs, 0.0)).sum() / total_tokens
    return replace(exact, loss=loss)


FAULTS = (
    Fault("attention", _attention_one_ahead, "sees_no_future",
          "the mask's diagonal is one too far: every token sees the next one, and the loss looks wonderful"),
    Fault("lightning", _lightning_one_document, "documents_apart",
          "the state is not reset between documents: a packed row leaks, although softmax layers are masked"),
    Fault("lightning", _lightning_stale_state, "pieces_are_the_whole",
          "the state that comes in is read without decay: the longer the piece, the more wrong"),
    Fault("rope", _rope_places_in_pairs, "place_matters",
          "positions are rounded to pairs: two tokens one apart may look two apart, or not apart at all"),
    Fault("router", _router_without_renormalising, "weights_are_shares",
          "the chosen probabilities are not divided by their sum: the layer's output shrinks where the router is unsure"),
    Fault("dispatch", _dispatch_with_a_full_bus, "tokens_have_no_order",
          "an expert takes a limited number of tokens, first come first served: what a token gets depends on the others"),
    Fault("balance_loss", _balance_with_padding, "balance_ignores_padding",
          "padding counts: short documents teach the router to balance nothing"),
    Fault("lm_loss", _loss_of_its_own_mean, "micro_batches_add_up",
          "the mean over each micro-batch: tokens of short documents count more, and accumulation changes the gradient"),
    Fault("sampler", _sampler_untempered, "draws_what_it_says",
          "drawn at a temperature, recorded without it: every ratio in RL is off from the first update on"),
    Fault("policy_loss", _cispo_through_the_weight, "update_knows_ratios_only",
          "the importance weight is not detached: rare tokens get another, and often opposite, gradient"),
)


def matrix() -> dict[str, dict[str, str | None]]:
    """Every property asked of every fault: {fault's story: {property: None or its sentence}}."""
    return {fault.story: {name: ask(fault.parts) for name, ask in PROPERTIES.items()} for fault in FAULTS}


# ---------------------------------------------------------------- the hunt

_ORDER = (4, 7, 1, 9, 0, 5, 8, 3, 6, 2)  # in which the sick parts are handed out: not that of the properties


def sick(number: int) -> Parts:
    """Parts of which one is wrong, 1 to 10; the order is not that of the properties.

    Raises: UserError for another number.
    """
    return _fault(number).parts


def accuse(number: int, part: str) -> str:
    """What `sick(number)` has to say to the charge that its `part` is the wrong one."""
    fault = _fault(number)
    if part not in Parts.__dataclass_fields__:
        raise UserError(f"there is no part {part!r}; choose one of {', '.join(Parts.__dataclass_fields__)}")
    if part != fault.part:
        return f"{number}: not {part}, which is as it should be."
    return f"{number}: yes, {part}: {fault.story}."


def _fault(number: int) -> Fault:
    if number not in range(1, len(FAULTS) + 1):
        raise UserError(f"there is no sick model {number!r}; choose one from 1 to {len(FAULTS)}")
    return FAULTS[_ORDER[number - 1]]
