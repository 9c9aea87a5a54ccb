"""Checks of chapter 07: router, dispatch, balance loss and capacity, the first three of them parts of the model.

N tokens, C hidden, E experts, K experts per token, F width of an expert. The oracles are dense sums in fp64.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from minim1.course.checking import Exercise, Probe

OVERFLOW = "With logits in the hundreds the {} NaN or infinite: exp of such a number overflows, so use softmax, or " \
           "subtract the largest logit of each token first."
FROZEN = "The gradient lacks that of the denominator: the sum over the chosen experts depends on the logits too, " \
         "do not detach it."
STALE = "A second call with other inputs gives the result for the first: something was kept between calls."


def choices(probe: Probe, tokens: int, experts: int, k: int, *, favour: float = 0.0) -> Tensor:
    """(N, K) int64: different experts for each token, in any order; `favour` makes those of small number busy."""
    liking = probe.random(tokens, experts) - favour * torch.arange(experts)
    ids = liking.topk(k, dim=1).indices
    order = probe.random(tokens, k).argsort(dim=1)
    return ids.gather(1, order)


# 7.1


def chosen_of(ids: Tensor, experts: int) -> Tensor:
    """(N, E) bool: which experts each token asks."""
    return torch.zeros(len(ids), experts, dtype=torch.bool).scatter(1, ids, True)


def shares_of(logits: Tensor, chosen: Tensor) -> Tensor:
    """(N, E) fp64: the softmax over all experts, set to 0 where not chosen, divided by what is left."""
    logits = logits.double()
    return logits.masked_fill(~chosen, float("-inf")).softmax(1)


def largest(logits: Tensor, k: int) -> Tensor:
    """(N, E) bool: the k largest of each row."""
    return logits.argsort(dim=1, descending=True).argsort(dim=1) < k


def router(probe: Probe) -> None:
    tokens, experts, k = 2 * probe.size(3, 5) + 1, probe.size(6, 9), 3
    logits = 2 * probe.random(tokens, experts)
    chosen = largest(logits, k)
    shares, ids = routed(probe, logits, k)
    probe.close("choice of experts", chosen_of(ids, experts), chosen, axes="NE", mistakes=choice_mistakes(logits, k))
    probe.close("weight of each expert", shares, shares_of(logits, chosen), axes="NE",
                mistakes=weight_mistakes(logits, chosen, ids))
    for name, count in (("1 expert per token", 1), (f"all {experts} experts", experts)):
        shares, _ = routed(probe, logits, count)
        probe.close(f"weight for {name}", shares, shares_of(logits, largest(logits, count)), axes="NE")
    other = logits.flip(1)
    shares, _ = routed(probe, other, k)
    probe.close("weight of each expert in a second call", shares, shares_of(other, largest(other, k)), axes="NE",
                layer="property", mistakes={STALE: shares_of(logits, chosen)})
    probe.gradients(
        lambda logits: routed(probe, logits, k)[0], {"logits": logits}, lambda logits: shares_of(logits, chosen),
        mistakes={"The gradient is that of a softmax over all experts that was not renormalised.":
                  lambda logits: logits.softmax(1) * chosen,
                  FROZEN: lambda logits: frozen_sum(logits.exp(), chosen),
                  FROZEN + " ": lambda logits: frozen_sum(logits.softmax(1), chosen)},
    )
    replayed(probe, tokens, experts, k)
    precise(probe, logits, k)
    one, great, near = logits[:1], logits * 200, 100 + logits.argsort(1).argsort(1) * 0.01
    _, ids = routed(probe, near, k)
    probe.require(torch.equal(chosen_of(ids, experts), largest(near, k)), "property",
                  "Among logits around 100 that differ by a hundredth the wrong ones are chosen: compare them in "
                  "float32, not in half precision or after rounding.")
    shares, _ = routed(probe, one, k)
    probe.close("weight of each expert, 1 token", shares, shares_of(one, chosen[:1]), axes="NE", layer="edge case")
    shares, _ = routed(probe, great, k)
    probe.close("weight of each expert, large logits", shares, shares_of(great, chosen), axes="NE", layer="edge case")


def frozen_sum(scores: Tensor, chosen: Tensor) -> Tensor:
    """`shares_of`, from exponentials or probabilities, without a gradient through the denominator."""
    kept = scores * chosen
    return kept / kept.sum(1, keepdim=True).detach()


def routed(probe: Probe, logits: Tensor, k: int, **options) -> tuple[Tensor, Tensor]:
    """Call, and look at types, shapes and ids -> the weights at their experts' places (N, E), and the ids."""
    shape, experts = (len(logits), k), logits.shape[1]
    weights, ids = probe.pair(probe.call(logits, k, **options), ("weights", "expert_ids"))
    swapped = all(isinstance(x, Tensor) for x in (weights, ids)) and \
        not weights.is_floating_point() and ids.is_floating_point()
    probe.require(not swapped, "type", "The results have changed places: end with `return weights, expert_ids`.")
    double = logits.dtype == torch.float64
    if isinstance(weights, Tensor) and weights.is_floating_point():
        wanted = torch.float64 if double else torch.float32
        said = str(weights.dtype).removeprefix("torch."), str(logits.dtype).removeprefix("torch.")
        probe.require(weights.dtype == wanted, "type",
                      f"The weights are {said[0]} for {said[1]} logits: compute in float32, or in float64 where the "
                      "logits are float64, and return the weights like that.")
        sizes = tuple(weights.shape)
        probe.require(sizes != (len(logits), experts) or k == experts, "shape", "The weights have a column for each "
                      f"of the {experts} experts, expected {k}: return those of the k chosen experts only.")
        probe.require(sizes[:-1] != (len(logits),) or sizes[-1] == k, "shape",
                      f"The weights have {sizes[-1]} columns, expected {k}: k is an argument, here {k}.")
        probe.require(weights.isfinite().all() or logits.abs().max() < 100, "finite", OVERFLOW.format("weights are"))
    probe.tensor("tensor of weights", weights, shape=shape, axes="NK")
    probe.tensor("tensor of expert ids", ids, shape=shape, dtype=torch.int64, axes="NK")
    probe.require(((ids >= 0) & (ids < experts)).all(), "value",
                  f"Some expert ids are not between 0 and {experts - 1}: with {experts} experts an id is a column of "
                  "the logits.")
    probe.require((chosen_of(ids, experts).sum(1) == k).all(), "value",
                  f"Some token has the same expert twice: its {k} ids must all be different.")
    return torch.zeros(len(logits), experts, dtype=weights.dtype).scatter(1, ids, weights), ids


def choice_mistakes(logits: Tensor, k: int) -> dict[str, Tensor]:
    wanted = "each row of the logits belongs to one token, whose k largest are chosen."
    fixed = torch.zeros_like(logits, dtype=torch.bool)
    fixed[:, :k] = True
    return {
        f"The smallest logits are chosen: {wanted}": largest(-logits, k),
        f"The logits farthest from 0 are chosen, whatever their sign: {wanted}": largest(logits.abs(), k),
        f"Every token has experts 0 to {k - 1}: {wanted}": fixed,
        f"Every token has the experts of the first token: {wanted}": largest(logits, k)[:1].expand_as(logits),
        f"Every token has the experts that are largest on average: {wanted}":
            largest(logits.mean(0, keepdim=True), k).expand_as(logits),
        f"The choice is made after a softmax over the tokens: {wanted}": largest(logits.softmax(0), k),
        "The ids are ranks: argsort gives positions in order, so take its first k columns and do not sort them again.":
            chosen_of(logits.argsort(1).argsort(1)[:, :k], logits.shape[1]),
    }


def weight_mistakes(logits: Tensor, chosen: Tensor, ids: Tensor) -> dict[str, Tensor]:
    """`ids` in the learner's order, to know weights that stand beside other ids."""
    logits = logits.double()
    right, full, k = shares_of(logits, chosen), logits.softmax(1), ids.shape[1]
    in_order = right.gather(1, ids)
    kept = full * chosen

    def placed(weights: Tensor) -> Tensor:
        return torch.zeros_like(right).scatter(1, ids, weights)

    exchanged = "The weights stand beside other experts' ids: column j of the weights belongs to column j of " \
                "expert_ids, so reorder both or none."
    return {
        "The weights do not sum to 1: they are the probabilities among all experts; divide them by their sum over the "
        "chosen ones.": kept,
        "The weights do not sum to 1: they are logits; take the softmax over those of the chosen experts.":
            logits * chosen,
        "The weights are logits divided by their sum: take the softmax.":
            placed(logits.gather(1, ids) / logits.gather(1, ids).sum(1, keepdim=True)),
        "All weights of a token are the same: an expert's weight is its share of the probability of those chosen.":
            chosen / k,
        "All weights are 1: an expert's weight is its share of the probability of those chosen.": chosen.double(),
        "The weights come from sigmoids: the experts of a token compete in a softmax.":
            placed(logits.sigmoid().gather(1, ids) / logits.sigmoid().gather(1, ids).sum(1, keepdim=True)),
        "The weights are sigmoids, each by itself: the experts of a token compete in a softmax.":
            logits.sigmoid() * chosen,
        "There is a softmax of a softmax: divide the probabilities by their sum, or take one softmax over the chosen "
        "logits.": shares_of(full, chosen),
        "There is a second softmax, of the weights: they sum to 1 already.": placed(in_order.softmax(1)),
        "The softmax runs over the tokens: it must run over the experts, the last axis.":
            logits.softmax(0) * chosen,
        "The softmax runs over the tokens: it must run over the experts, the last axis (yours is then renormalised).":
            placed(logits.softmax(0).gather(1, ids) / logits.softmax(0).gather(1, ids).sum(1, keepdim=True)),
        "The chosen logits go through a softmax over the tokens: dim must be the last axis, the experts of a token.":
            placed(logits.gather(1, ids).softmax(0)),
        "The weights are divided by the sum of all tokens' weights: each token's own weights sum to 1.":
            kept / kept.sum(),
        "The weights are divided by k: the probabilities of the chosen experts are divided by their own sum.":
            kept / k,
        "The weights are divided by their largest, so that they do not sum to 1: divide by their sum.":
            kept / kept.amax(1, keepdim=True),
        "The weights are divided by their length (root of the sum of squares): divide by their sum.":
            kept / kept.norm(dim=1, keepdim=True),
        exchanged: placed(in_order.flip(1)),
        exchanged + " ": placed(in_order.sort(1).values),
        exchanged + "  ": placed(in_order.sort(1, descending=True).values),
        exchanged + "   ": placed(right[chosen].view(len(right), k)),
        "The logits are divided by the root of the number of experts: the router has no scale.":
            shares_of(logits / logits.shape[1] ** 0.5, chosen),
        "The weights follow -logits: the larger logit has the larger weight.": shares_of(-logits, chosen),
        "The exponential has base 2: use softmax.": shares_of(logits * 0.6931471805599453, chosen),
    }


def replayed(probe: Probe, tokens: int, experts: int, k: int) -> None:
    logits, replay = 2 * probe.random(tokens, experts), choices(probe, tokens, experts, k)
    asked, own = chosen_of(replay, experts), largest(logits, k)
    own_ids = logits.topk(k, dim=1).indices
    shares, ids = routed(probe, logits, k, replay=replay)
    probe.close("tensor of expert ids with replay", ids, replay, axes="NK", mistakes={
        "`replay` is not used: when it is given, nothing is chosen, and its ids are returned.": own_ids,
        "`replay` comes back in another order: return its ids as they stand.": replay.sort(1).values,
        "`replay` comes back in another order: return its ids as they stand (yours are sorted by logit).":
            replay.gather(1, logits.gather(1, replay).argsort(1, descending=True)),
    } if not torch.equal(ids, replay) else None)
    own_weights = shares_of(logits, own).gather(1, own_ids)
    full = logits.double().softmax(1)
    probe.close("weight of each expert with replay", shares, shares_of(logits, asked), axes="NE", mistakes={
        "With `replay` the weights are still those of the router's own choice: use the replayed experts' logits.":
            torch.zeros_like(full).scatter(1, replay, own_weights),
        "With `replay` the weights are not renormalised: those of the replayed experts must sum to 1.": full * asked,
        "With `replay` the probabilities are divided by the sum over the router's own choice: divide by the sum over "
        "the replayed experts.": full * asked / (full * own).sum(1, keepdim=True),
        "With `replay` all weights of a token are the same: they still follow the logits.": asked / k,
        **weight_mistakes(logits, asked, replay),
    })
    probe.gradients(
        lambda **given: routed(probe, *given.values(), k, replay=replay)[0], {"logits with replay": logits},
        lambda **given: shares_of(*given.values(), asked),
    )
    hopeless = logits.clone()
    hopeless[:, 0] += 400  # so that all others have probability 0 in fp32
    others = 1 + choices(probe, tokens, experts - 1, k)
    weights, _ = probe.pair(probe.call(hopeless, k, replay=others), ("weights", "expert_ids"))
    nothing = "Where `replay` names experts whose probability rounds to 0, the weights are {}: take the softmax over " \
              "their logits alone, in which the others do not occur."
    probe.require(weights.isfinite().all(), "edge case", nothing.format("NaN, 0/0"))
    shares, _ = routed(probe, hopeless, k, replay=others)
    right = shares_of(hopeless, chosen_of(others, experts))
    probe.close("weight of replayed experts of probability 0", shares, right, axes="NE", layer="edge case",
                mistakes={nothing.format("0 and do not sum to 1"): torch.zeros_like(right),
                          nothing.format("all the same"): (right > 0) / k})


def precise(probe: Probe, logits: Tensor, k: int) -> None:
    """bf16 logits give the fp32 weights of those very numbers; fp64 stays. No two logits of a token are equal."""
    tokens, experts = logits.shape
    spaced = logits.argsort(1).argsort(1) * 0.5 - 1
    half = spaced.bfloat16()
    shares, _ = routed(probe, half, k)
    rough = "Computed in half precision: the weights are right in the first digits only; convert the logits to " \
            "float32 before the softmax."
    chosen = largest(half, k)
    right = shares_of(half, chosen)
    in_half = shares_of(half, chosen).bfloat16()
    probe.require((shares - right).abs().max() < 1e-5 or (shares - right).abs().max() > 2e-2, "property", rough)
    probe.close("weight of each expert, bfloat16 logits", shares, right, axes="NE", layer="property",
                mistakes={rough: in_half})
    doubled = logits.double()
    shares, _ = routed(probe, doubled, k)
    probe.require(not torch.equal(shares, shares.float().double()), "property",
                  "The weights for float64 logits have the digits of float32 only: float64 stays float64 all the way.")
    probe.close("weight of each expert in float64", shares, shares_of(doubled, largest(doubled, k)), axes="NE",
                layer="property")


# 7.2


def answers(x: Tensor, w1: Tensor, w2: Tensor, w3: Tensor, gate: Callable = torch.nn.functional.silu) -> Tensor:
    """(E, N, C) fp64: what every expert makes of every token."""
    x, w1, w2, w3 = (t.double() for t in (x, w1, w2, w3))
    hidden = gate(torch.einsum("nc,efc->enf", x, w1)) * torch.einsum("nc,efc->enf", x, w3)
    return torch.einsum("enf,ecf->enc", hidden, w2)


def combined(every: Tensor, weights: Tensor, ids: Tensor) -> Tensor:
    """(N, C): the answers of each token's experts, weighted and summed."""
    picked = every[ids, torch.arange(len(ids)).view(-1, 1)]  # (N, K, C)
    return (weights.double().unsqueeze(-1) * picked).sum(1)


def dispatched(x: Tensor, weights: Tensor, ids: Tensor, w1: Tensor, w2: Tensor, w3: Tensor) -> Tensor:
    return combined(answers(x, w1, w2, w3), weights, ids)


def problem(probe: Probe, tokens: int, experts: int, k: int, dtype=torch.float32, hidden: int = 5, width: int = 7):
    """x, weights (positive, sum 1), expert_ids, w1, w2, w3."""
    return (
        probe.random(tokens, hidden, dtype=dtype), probe.random(tokens, k).softmax(1),
        choices(probe, tokens, experts, k), probe.random(experts, width, hidden, dtype=dtype),
        probe.random(experts, hidden, width, dtype=dtype), probe.random(experts, width, hidden, dtype=dtype),
    )


def dispatch(probe: Probe) -> None:
    tokens, experts, k = 2 * probe.size(4, 6) + 1, 6, 3
    given = problem(probe, tokens, experts, k)
    x, weights, ids, w1, w2, w3 = given
    out = probe.call(*given)
    probe.tensor("output", out, shape=x.shape, dtype=x.dtype, axes="NC")
    probe.close(f"output of {tokens} tokens", out, dispatched(*given), axes="NC", mistakes=dispatch_mistakes(*given))
    other = (x.flip(0), weights.flip(0), choices(probe, tokens, experts, k), w1, w2, w3)
    probe.close("output of a second call", probe.call(*other), dispatched(*other), axes="NC", layer="property",
                mistakes={STALE: lambda: dispatched(*given),
                          "A second call sends tokens where those of the first went: something was kept between calls.":
                          lambda: dispatched(other[0], other[1], ids, w1, w2, w3)})
    floats = {"x": x, "weights": weights, "w1": w1, "w2": w2, "w3": w3}
    probe.gradients(
        lambda x, weights, w1, w2, w3: probe.call(x, weights, ids, w1, w2, w3), floats,
        lambda x, weights, w1, w2, w3: dispatched(x, weights, ids, w1, w2, w3),
    )
    doubled = [t.double() if t.is_floating_point() else t for t in given]
    probe.tensor("output for float64 inputs", probe.call(*doubled), shape=x.shape, dtype=torch.float64, axes="NC")
    probe.close("output in float64", probe.call(*doubled), dispatched(*doubled), axes="NC", layer="property",
                tolerance=2e-5)
    uneven(probe, x, w1, w2, w3)
    for count in (1, experts):
        special = problem(probe, tokens, experts, count)
        probe.close(f"output for K = {count}", probe.call(*special), dispatched(*special), axes="NC",
                    layer="edge case", mistakes=dispatch_mistakes(*special))
    more = problem(probe, tokens, experts + 3, k)
    probe.close(f"output for {experts + 3} experts", probe.call(*more), dispatched(*more), axes="NC", layer="edge case",
                mistakes={f"Only experts 0 to {experts - 1} answer, here there are {experts + 3}: E is w1.shape[0].":
                          lambda: combined(answers(more[0], *more[3:]), more[1] * (more[2] < experts), more[2])})
    one = problem(probe, 1, experts, k)
    probe.close("output of 1 token", probe.call(*one), dispatched(*one), axes="NC", layer="edge case")
    low = problem(probe, tokens, experts, k, torch.bfloat16)
    out = probe.call(*low)
    said = str(getattr(out, "dtype", "")).removeprefix("torch.")
    probe.require(not isinstance(out, Tensor) or out.dtype == torch.bfloat16, "edge case",
                  f"With x and the experts in bfloat16 and weights in float32 the output is {said}: bring the weighted "
                  "answers, or their sum, back to x.dtype.")
    probe.close("output in bfloat16, of 2 to 3 digits", out, dispatched(*low), axes="NC", layer="edge case",
                tolerance=4e-2)


def uneven(probe: Probe, x: Tensor, w1: Tensor, w2: Tensor, w3: Tensor) -> None:
    """Experts without tokens, first, last and in between, and one expert with all of them."""
    tokens = len(x)
    weights = probe.random(tokens, 2).softmax(1)
    few = torch.tensor([1, 4])[probe.random(tokens, 2).argsort(1)]
    given = x, weights, few, w1, w2, w3
    probe.close("output where 4 of 6 experts get no token", probe.call(*given), dispatched(*given), axes="NC",
                layer="edge case", mistakes=dispatch_mistakes(*given))
    probe.gradients(
        lambda **given: probe.call(x, weights, few, *given.values()),
        {f"{name}, 4 of 6 idle": w for name, w in (("w1", w1), ("w2", w2), ("w3", w3))},
        lambda **given: dispatched(x, weights, few, *given.values()),
    )
    for expert in (0, 5):
        given = x, weights[:, :1], torch.full((tokens, 1), expert), w1, w2, w3
        probe.close(f"output where all go to expert {expert} (of 0 to 5)", probe.call(*given), dispatched(*given),
                    axes="NC", layer="edge case")


def dispatch_mistakes(x, weights, ids, w1, w2, w3) -> dict[str, Callable]:
    """What each mistake would give; K may be anything."""
    functional = torch.nn.functional
    tokens, k = ids.shape
    x, weights = x.double(), weights.double()
    flat = ids.flatten()
    every = answers(x, w1, w2, w3)
    right = combined(every, weights, ids)

    def with_weights(other: Tensor) -> Callable:
        return lambda: combined(every, other, ids)

    def with_gate(gate: Callable) -> Callable:
        return lambda: combined(answers(x, w1, w2, w3, gate), weights, ids)

    ranked = ids.argsort(1)
    one, none = torch.zeros_like(weights), torch.zeros_like(weights)
    last, first = one.scatter(1, ranked[:, -1:], 1), none.scatter(1, ranked[:, :1], 1)
    slots = torch.arange(k)
    plain = lambda z: z  # noqa: E731
    overwritten = "Only one expert's answer arrives at each token: those of its others are overwritten, so add them " \
                  "up (`out[token] += ...`, or index_add)."
    return sorted_mistakes(every, weights, ids) | {
        "The weights are not used: each answer must be multiplied by its weight.":
            with_weights(torch.ones_like(weights)),
        "The answers are averaged without their weights: multiply each by its own.":
            with_weights(torch.ones_like(weights) / k),
        "The weights of a token's experts are exchanged: column j of weights belongs to column j of expert_ids.":
            with_weights(weights.flip(1)),
        "The weights count twice: once is enough.": with_weights(weights**2),
        overwritten: with_weights(weights * last),
        overwritten + " ": with_weights(weights * first),
        overwritten + "  ": with_weights(weights * (slots == k - 1)),
        "All answers of a token have the weight of its first: column j of weights belongs to column j of expert_ids.":
            with_weights(weights[:, :1].expand_as(weights)),
        "An expert without tokens shifts those behind it: `unique` leaves out whom nobody asks, so count with "
        "bincount(minlength=E).": lambda: combined(every, weights, flat.unique(return_inverse=True)[1].view_as(ids)),
        "The copies take the wrong tokens: with expert_ids.flatten(), copy c belongs to token c // K, yours to c // E.":
            lambda: (every[flat, torch.arange(tokens * k) // len(every)].view(tokens, k, -1)
                     * weights.unsqueeze(-1)).sum(1),
        "The answers are cut into K rows of N: with expert_ids.flatten(), a token's K copies are neighbours, so "
        "view(N, K, C).": lambda: (every[flat, torch.arange(tokens * k) // k].view(k, tokens, -1)
                                   * weights.T.unsqueeze(-1)).sum(0),
        "Only the first of each token's experts is asked: sum over all K columns.":
            with_weights(weights * (slots == 0)),
        "Only two of each token's experts are asked: K is expert_ids.shape[1], here another number.":
            with_weights(weights * (slots < 2)),
        "The copies take the wrong tokens: with expert_ids.flatten(), copy c belongs to token c // K, yours to c % N.":
            lambda: (every[flat, torch.arange(tokens * k) % tokens].view(tokens, k, -1) * weights.unsqueeze(-1)).sum(1),
        "The copies take the wrong tokens: with expert_ids.flatten(), copy c belongs to token c // K, yours to c % K.":
            lambda: (every[flat, torch.arange(tokens * k) % k % tokens].view(tokens, k, -1)
                     * weights.unsqueeze(-1)).sum(1),
        "The gate is missing: W1 x must pass SiLU before it is multiplied with W3 x.": with_gate(plain),
        "The gate is a ReLU: SwiGLU uses SiLU, z * sigmoid(z).": with_gate(torch.relu),
        "The gate is a GELU: SwiGLU uses SiLU, z * sigmoid(z).": with_gate(functional.gelu),
        "The gate is a sigmoid: SiLU is z * sigmoid(z).": with_gate(torch.sigmoid),
        "The gate is a tanh: SwiGLU uses SiLU, z * sigmoid(z).": with_gate(torch.tanh),
        "w1 and w3 are exchanged: SiLU belongs to W1 x.": lambda: combined(answers(x, w3, w2, w1), weights, ids),
        "SiLU is applied to W3 x too: it belongs to W1 x alone.": lambda: combined(
            torch.einsum("enf,ecf->enc", functional.silu(torch.einsum("nc,efc->enf", x, w1.double()))
                         * functional.silu(torch.einsum("nc,efc->enf", x, w3.double())), w2.double()), weights, ids),
        "The ids of each token are sorted and its weights are not: column j of weights belongs to column j of "
        "expert_ids.": lambda: combined(every, weights, ids.sort(1).values),
        "SiLU covers the product: it belongs to W1 x alone, which then multiplies W3 x.": lambda: combined(
            torch.einsum("enf,ecf->enc", functional.silu(torch.einsum("nc,efc->enf", x, w1.double())
                         * torch.einsum("nc,efc->enf", x, w3.double())), w2.double()), weights, ids),
        "W3 is not used: the hidden values are SiLU(W1 x) * (W3 x).": lambda: combined(
            torch.einsum("enf,ecf->enc", functional.silu(torch.einsum("nc,efc->enf", x, w1.double())), w2.double()),
            weights, ids),
        "SiLU(W1 x) and W3 x are added: they are multiplied.": lambda: combined(
            torch.einsum("enf,ecf->enc", functional.silu(torch.einsum("nc,efc->enf", x, w1.double()))
                         + torch.einsum("nc,efc->enf", x, w3.double()), w2.double()), weights, ids),
        "The weight multiplies the token before the expert sees it: an expert is not linear, weigh its answer.":
            lambda: sum(weights[:, j : j + 1] * 0 + answers(weights[:, j : j + 1] * x, w1, w2, w3)[
                ids[:, j], torch.arange(tokens)] for j in range(k)),
        "The token itself is added: the block around the experts does that, return the weighted sum alone.":
            lambda: x + right,
        "Every expert answers every token with weight 1: only the K of expert_ids do.": lambda: every.sum(0),
        "All tokens go to the experts of the first token.": lambda: combined(every, weights, ids[:1].expand_as(ids)),
        "The experts are counted backwards: id e belongs to w1[e], w2[e], w3[e].":
            lambda: combined(every.flip(0), weights, ids),
        "The experts are counted from 1: id e belongs to w1[e], w2[e], w3[e].":
            lambda: combined(every.roll(1, 0), weights, ids),
        "Only expert 0's answers are there: does `return` stand inside the loop?": with_weights(weights * (ids == 0)),
        "The last expert is left out: there are w1.shape[0] of them.":
            lambda: combined(every, weights * (ids < len(w1) - 1), ids),
        "The first expert is left out: ids count from 0.": lambda: combined(every, weights * (ids > 0), ids),
        "The last token is left out.": lambda: right * (torch.arange(tokens) < tokens - 1).view(-1, 1),
        "The output is divided by K: the weights already sum to 1.": lambda: right / k,
    }


def sorted_mistakes(every: Tensor, weights: Tensor, ids: Tensor) -> dict[str, Callable]:
    """What goes wrong when copies are sorted; equal ids may come in either order, as argsort is stable or not."""
    tokens, k = ids.shape
    flat, found = ids.flatten(), {}
    for number, order in enumerate((flat.argsort(), flat.argsort(stable=True))):
        done = every[flat[order], order // k]  # (N K, C), grouped by expert
        back, end = order.argsort(), "." + number * " "

        def made(rows: Tensor = done[back], by_copy: Tensor = weights.flatten()) -> Callable:
            return lambda: (rows * by_copy.view(-1, 1)).view(tokens, k, -1).sum(1)

        found |= {
            "The answers are not brought back to their tokens: after sorting, row r of the answers belongs to copy "
            "order[r], so undo the order before summing over K" + end: made(done),
            "The answers, with their weights, are not brought back to their tokens: after sorting, row r belongs to "
            "copy order[r], so undo the order before summing over K" + end: made(done, weights.flatten()[order]),
            "The answers are reordered by `order` once more: what undoes a sorting is its inverse, "
            "order.argsort()" + end: made(done[order]),
            "The weights are in the order of the experts, these answers in that of the tokens: sort both, or "
            "none" + end: made(by_copy=weights.flatten()[order]),
            "The weights are reordered, but not as the answers are: both must be in the order of the tokens, or both "
            "in that of the experts" + end: made(by_copy=weights.flatten()[back]),
            "The weights are in the order of the tokens, the answers still in that of the experts when they are "
            "multiplied: sort both, or none" + end: made((done * weights.view(-1, 1))[back], torch.ones(tokens * k)),
        }
    return found


# 7.3


def balance(logits: Tensor, ids: Tensor, valid: Tensor | None = None) -> Tensor:
    """E * sum of f_e * m_e in fp64."""
    load, mean = load_and_mean(logits, ids, valid)
    return logits.shape[1] * (load * mean).sum()


def load_and_mean(logits: Tensor, ids: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """f and m, (E,) each; the rows where valid is False are cut out."""
    keep = torch.ones(len(ids), dtype=torch.bool) if valid is None else valid
    logits, ids = logits.double()[keep], ids[keep]
    counts = (ids.unsqueeze(-1) == torch.arange(logits.shape[1])).double().sum((0, 1))
    return counts / counts.sum(), logits.softmax(1).mean(0)


def balance_loss(probe: Probe) -> None:
    tokens, experts, k = 2 * probe.size(5, 8) + 1, probe.size(5, 7), 3
    logits, ids = 1.5 * probe.random(tokens, experts), choices(probe, tokens, experts, k, favour=0.3)
    scalar(probe, "loss", probe.call(logits, ids), balance(logits, ids), mistakes=balance_mistakes(logits, ids))
    other, others = logits.flip(1), experts - 1 - ids.flip(0)
    scalar(probe, "loss of a second call", probe.call(other, others), balance(other, others),
           mistakes={STALE: balance(logits, ids), **balance_mistakes(other, others),
                     "In a second call f is that of the first: something was kept between calls.":
                     experts * (load_and_mean(logits, ids)[0] * load_and_mean(other, others)[1]).sum()})
    probe.gradients(lambda logits: probe.call(logits, ids), {"logits": logits}, lambda logits: balance(logits, ids),
                    mistakes={"The gradient is that of f times f: f_e is a count, without gradient, and m_e the mean "
                              "probability.": lambda logits: experts * load_and_mean(logits, ids)[1].square().sum()})
    for count in (1, 2, 4):
        even = torch.arange(4 * count).view(-1, count) % 4
        scalar(probe, f"loss of an even load, K = {count}", probe.call(torch.zeros(4, 4), even),
                       torch.tensor(1.0).double(), layer="property", mistakes={
            f"With an even load and K = {count} the loss is {count}, not 1: the shares f must sum to 1, so divide the "
            f"counts by N * K.": torch.tensor(float(count)).double()} if count > 1 else None)
    sure = torch.zeros(tokens, experts)
    sure[:, 1] = 200
    value = probe.call(sure, torch.ones(tokens, 1, dtype=torch.int64))
    probe.require(not isinstance(value, Tensor) or value.isfinite().all(), "finite", OVERFLOW.format("loss is"))
    scalar(probe, "loss where one expert gets everything", value, torch.tensor(experts).double(), layer="property")
    padded(probe, logits, ids)
    doubled = logits.double()
    scalar(probe, "loss for float64 logits", probe.call(doubled, ids), balance(doubled, ids), layer="property")
    half = logits.bfloat16()
    scalar(probe, "loss for bfloat16 logits", probe.call(half, ids), balance(half, ids), layer="property")
    first = choices(probe, tokens, 3, 2)
    scalar(probe, f"loss where only 3 of {experts} experts are asked", probe.call(logits, first),
           balance(logits, first), layer="edge case")
    many = 1.5 * probe.random(701, experts), choices(probe, 701, experts, k, favour=0.3)
    scalar(probe, "loss of 701 tokens", probe.call(*many), balance(*many), layer="edge case")
    scalar(probe, "loss of 1 token", probe.call(logits[:1], ids[:1]), balance(logits[:1], ids[:1]), layer="edge case")


def scalar(probe: Probe, name: str, value, expected: Tensor, *, layer: str = "value", mistakes=None) -> None:
    """A tensor without dimensions, float32 unless the name says float64."""
    dtype = torch.float64 if "float64" in name else torch.float32
    probe.require(not isinstance(value, Tensor) or value.shape != () or value.isfinite(), "finite",
                  f"The {name} is NaN or infinite: look for a division by zero, or the logarithm of 0.")
    value = probe.tensor(name, value, shape=(), axes="")
    if "bfloat16" in name:
        probe.require(value.dtype == dtype, layer, "For bfloat16 logits the loss is "
                      f"{str(value.dtype).removeprefix('torch.')}: compute in float32, or small differences are lost.")
        rough = (value.double() - expected).abs() < 0.02 * expected.abs()
        wrong = (value.double() - expected).abs() > 2e-5 * expected.abs()
        probe.require(not (rough and wrong), layer, "For bfloat16 logits the loss is right in the first digits only: "
                      "convert the logits to float32 before the softmax.")
    probe.tensor(name, value, shape=(), dtype=dtype, axes="")
    tolerance = 2e-5 if value.dtype == torch.float64 else None
    probe.close(name, value, expected.detach(), layer=layer, mistakes=mistakes, axes="", tolerance=tolerance)


def padded(probe: Probe, logits: Tensor, ids: Tensor) -> None:
    tokens, experts = logits.shape
    valid = torch.arange(tokens) % 3 != 1
    valid[-2:] = False
    load, mean = load_and_mean(logits, ids, valid)
    all_load, all_mean = load_and_mean(logits, ids)
    share = valid.double().mean()
    scalar(probe, "loss with padding", probe.call(logits, ids, valid), balance(logits, ids, valid), layer="property",
           mistakes=zeroed(logits, ids, valid) | {
        "`valid` is not used: padding must count neither in f nor in m.": balance(logits, ids),
        "Padding still counts in f, the shares of token copies.": experts * (all_load * mean).sum(),
        "Padding still counts in m, the mean probabilities.": experts * (load * all_mean).sum(),
        "Padding has probability 0, but still counts in f and in the number of tokens: cut the rows out, as in "
        "x[valid].": share * experts * (all_load * mean).sum(),
        "Sums without padding are divided by all N tokens: divide by the number of valid ones, in f and in m.":
            share**2 * balance(logits, ids, valid),
        "A sum without padding is divided by all N tokens, in f or in m: divide by the number of valid ones.":
            share * balance(logits, ids, valid),
        "Padding is kept and the rest left out: `valid` is True at tokens that count.": balance(logits, ids, ~valid),
        "The whole loss is multiplied by the share of valid tokens: leave padding out of the sums instead.":
            share * balance(logits, ids),
    })
    scalar(probe, "loss with valid all True", probe.call(logits, ids, torch.ones(tokens, dtype=torch.bool)),
           balance(logits, ids), layer="property")
    probe.gradients(lambda **given: probe.call(*given.values(), ids, valid), {"logits with padding": logits},
                    lambda **given: balance(*given.values(), ids, valid))
    nobody = torch.zeros(tokens, dtype=torch.bool)
    leaf = logits.clone().requires_grad_()
    value = probe.call(leaf, ids, nobody)
    sentence = "If everything is padding the {} NaN: nothing is divided by nothing; divide by at least 1."
    probe.require(not isinstance(value, (int, float)) or value != value, "type",
                  f"If everything is padding your function returns the number {value}: return a tensor without "
                  "dimensions, in the dtype of the loss.")
    probe.require(not isinstance(value, Tensor) or not value.isnan().any(), "edge case", sentence.format("loss is"))
    scalar(probe, "loss where all is padding", value, torch.zeros((), dtype=torch.float64), layer="edge case")
    if value.requires_grad:
        (gradient,) = probe.backward(lambda: torch.autograd.grad(value, leaf, allow_unused=True))
        probe.require(gradient is None or not gradient.isnan().any(), "edge case", sentence.format("gradient is"))


def zeroed(logits: Tensor, ids: Tensor, valid: Tensor) -> dict[str, Tensor]:
    """Padding multiplied by 0, in f (its ids become 0), in m (its logits become 0), or in both."""
    experts, column, found = logits.shape[1], valid.view(-1, 1), {}
    load, mean = load_and_mean(logits, ids, valid)
    all_load, all_mean = load_and_mean(logits, ids)
    zero_load, zero_mean = load_and_mean(logits * column, ids * column)
    share = valid.double().mean()
    wrong_loads, wrong_means = (zero_load, zero_load / share), (zero_mean, zero_mean / share)
    both = [(f, m) for f in wrong_loads for m in wrong_means]
    only_f = [(f, m) for f in wrong_loads for m in (mean, mean * share, all_mean)]
    only_m = [(f, m) for f in (load, load * share, all_load) for m in wrong_means]
    for which, pairs in (("An id of padding set to 0 still counts, as expert 0", only_f),
                         ("Logits of padding set to 0 still count, with probabilities of 1/E", only_m),
                         ("Padding set to 0 still counts, ids as expert 0 and logits as probabilities of 1/E", both)):
        for number, (f, m) in enumerate(pairs):
            found[f"{which}: cut the rows out, as in x[valid]." + number * " "] = experts * (f * m).sum()
    return found


def balance_mistakes(logits: Tensor, ids: Tensor) -> dict[str, Callable | Tensor]:
    tokens, experts = logits.shape
    k, right = ids.shape[1], balance(logits, ids)
    load, mean = load_and_mean(logits, ids)
    own_load, _ = load_and_mean(logits, logits.topk(k, dim=1).indices)
    own_first, _ = load_and_mean(logits, logits.topk(1, dim=1).indices)
    first, _ = load_and_mean(logits, ids[:, :1])
    last, _ = load_and_mean(logits, ids[:, -1:])
    chosen = chosen_of(ids, experts)
    asked = logits.double().softmax(1) * chosen
    weights = shares_of(logits, chosen).mean(0)
    over_tokens = logits.double().softmax(0).mean(0)
    return {
        f"The loss is K = {k} times too large: f are shares of all N * K token copies and sum to 1; do yours sum to K?":
            k * right,
        f"The loss is E = {experts} times too small: the factor E is missing, or the products are averaged where they "
        "should be summed.": right / experts,
        f"The loss is E^2 = {experts**2} times too small: it is E times the sum; the sum divided by E (as in the "
        "MiniMax-01 report), or the mean of the products, is another form.": right / experts**2,
        "There are E^2 where E belongs.": right * experts,
        "f comes from the k largest logits: use the expert_ids that are given.": experts * (own_load * mean).sum(),
        "f comes from the largest logit: use the expert_ids that are given, all K of them.":
            experts * (own_first * mean).sum(),
        "Only the first column of expert_ids is counted: all K copies of a token count.":
            experts * (first * mean).sum(),
        "Only the first column of expert_ids is counted: all K copies of a token count (and yours is divided by K).":
            experts * (first * mean).sum() / k,
        "Only the last column of expert_ids is counted: all K copies of a token count.": experts * (last * mean).sum(),
        "m has no softmax: it is the mean probability of each expert, yours the mean logit.":
            experts * (load * logits.double().mean(0)).sum(),
        "m is the mean renormalised weight: it is the mean over tokens of the softmax over all E experts.":
            experts * (load * weights).sum(),
        "m counts an expert's probability only where it was chosen: use the softmax over all E experts of all tokens.":
            experts * (load * asked.mean(0)).sum(),
        "The products are averaged: first average f and m over the tokens, each by itself, then multiply.":
            experts * asked.sum() / (tokens * k),
        "The products are averaged: first average f and m over the tokens, each by itself, then multiply (and f by "
        "N * K).": experts * asked.sum() / tokens,
        "f adds up probabilities of the experts asked: it counts copies, each as 1.":
            experts * (asked.mean(0) * mean).sum(),
        "f adds up probabilities of the experts asked: it counts copies, each as 1 (and yours sums to 1).":
            experts * (asked.sum(0) / asked.sum() * mean).sum(),
        "f adds up the weights of the experts asked: it counts copies, each as 1.": experts * (weights * mean).sum(),
        "The softmax runs over the tokens: probabilities are over the experts, the last axis.":
            experts * (load * over_tokens).sum(),
        "m comes from sigmoids: it is the mean of the softmax over the experts.":
            experts * (load * logits.double().sigmoid().mean(0)).sum(),
        "f is multiplied by itself: one factor is the share of copies, the other the mean probability.":
            experts * load.square().sum(),
        "m is multiplied by itself: one factor is the share of copies, the other the mean probability.":
            experts * mean.square().sum(),
        "m is summed over the tokens: it is a mean, divide by N.": tokens * right,
        "f is a count: it is a share, divide by N * K.": tokens * k * right,
        "The loss measures how far it is from balance: it should be 1 when balanced, not 0 (leave the 1 in).":
            right - 1,
        "The sign is wrong: the loss grows with imbalance.": -right,
    }


# 7.4


def kept_copies(ids: Tensor, capacity: int) -> Tensor:
    """(N, K) bool: fewer than `capacity` earlier copies (row by row) name the same expert."""
    flat = ids.flatten()
    earlier = (flat.view(-1, 1) == flat).tril(-1).sum(1)
    return (earlier < capacity).view(ids.shape)


def drop_tokens(probe: Probe) -> None:
    tokens, experts, k = 2 * probe.size(6, 9) + 1, 5, 3
    ids = choices(probe, tokens, experts, k, favour=0.4)
    capacity = tokens // 5  # less than a single column asks of the busiest, so that a count by column drops too
    same_kept(probe, f"mask of kept copies, capacity {capacity}", ids, experts, capacity)
    same_kept(probe, "mask for the card's example", torch.tensor([[0, 1], [2, 0], [0, 2]]), 3, 2)
    same_kept(probe, "mask of kept copies in a second call", ids.flip(0), experts, 3)
    for size in (1, 0, tokens + 5):
        same_kept(probe, f"mask of kept copies, capacity {size}", ids, experts, size, "edge case")
    same_kept(probe, "mask where some experts are named by nobody", ids + 7, experts + 9, capacity,
              "edge case")
    many = choices(probe, 301, experts, k)
    same_kept(probe, "mask of kept copies, 301 tokens", many, experts, 150, "edge case")
    one = choices(probe, tokens, 4, 1, favour=0.5)
    same_kept(probe, "mask of kept copies, K = 1", one, 4, 2, "edge case")
    same_kept(probe, "mask of kept copies, 1 token", ids[:1], experts, 1, "edge case")


def same_kept(probe: Probe, name: str, ids: Tensor, experts: int, capacity: int, layer: str = "value") -> None:
    kept = probe.call(ids, experts, capacity)
    if isinstance(kept, Tensor) and kept.dtype != torch.bool:
        probe.tensor(name, kept, shape=ids.shape, dtype=kept.dtype, axes="NK")  # says NaN
        probe.require(False, "type", f"The result is {str(kept.dtype).removeprefix('torch.')}, expected bool: True "
                                     "where a copy is kept, such as a comparison gives.")
    right = kept_copies(ids, capacity)
    tokens, k = ids.shape
    fair = isinstance(kept, Tensor) and kept.shape == right.shape and torch.equal(
        ids[kept].bincount(minlength=experts), ids[right].bincount(minlength=experts))
    flat, busy = ids.flatten(), torch.zeros(experts).index_add(0, ids.flatten(), torch.ones(ids.numel()))
    probe.close(name, kept, right, layer=layer, axes="NK", mistakes={
        "Nothing is dropped: an expert keeps the first `capacity` copies that name it (if you count with cumsum: along "
        "the right axis?).": torch.ones_like(right),
        "Everything is dropped: an expert with more copies than room still keeps the first `capacity` that name it.":
            torch.zeros_like(right),
        "True and False have changed places: kept copies are True.": ~right,
        "One copy too many is kept for each expert: with `capacity` earlier copies it is full already.":
            kept_copies(ids, capacity + 1),
        "One copy too few is kept for each expert: it has room for `capacity` of them.":
            kept_copies(ids, capacity - 1),
        "The last copies are kept: an expert serves the first `capacity` that name it.":
            kept_copies(ids.flatten().flip(0).view(-1, k), capacity).flatten().flip(0).view(tokens, k),
        "All first slots are served before any second slot: a token's slots are served together, before the next "
        "token's.": kept_copies(ids.T.contiguous(), capacity).T,
        "Each column has a capacity of its own: all copies that name an expert share its room.":
            torch.cat([kept_copies(ids[:, j : j + 1], capacity) for j in range(k)], dim=1),
        "A token loses all its experts where one is full: only that copy is dropped.":
            right.all(1, keepdim=True).expand_as(right),
        "A token keeps all its copies where one is kept: each copy is served by itself.":
            right.any(1, keepdim=True).expand_as(right),
        "The capacity is that of all experts together: each has room for `capacity` copies of its own.":
            (torch.arange(tokens * k) < capacity).view(tokens, k),
        "The first `capacity` tokens are kept whole: count, for each expert, the copies that name it.":
            (torch.arange(tokens) < capacity).view(-1, 1).expand(tokens, k),
        "The room is counted in tokens, not in copies: an expert is full after `capacity` copies that name it, "
        "however many tokens have passed.":
            (torch.arange(tokens) < capacity * experts / k).view(-1, 1).expand(tokens, k),
        "After the first dropped copy all others are dropped too: the other experts still have room.":
            (torch.cumsum(~right.flatten(), 0) == 0).view(tokens, k),
        "Once any expert is full, copies that name others are dropped too: each expert has its own room.":
            ((flat.view(-1, 1) == torch.arange(experts)).cumsum(0).amax(1) <= capacity).view(tokens, k),
        "The result belongs to expert_ids transposed: flatten them row by row.":
            kept_copies(ids.T.contiguous(), capacity).flatten().view(tokens, k),
        "The result belongs to the ids of each token in sorted order: column j is about expert_ids[:, j].":
            kept_copies(ids.sort(1).values, capacity),
        "The mask is in the order of the sorted copies: bring it back with order.argsort().":
            right.flatten()[flat.argsort(stable=True)].view(tokens, k),
        "All copies of an overfull expert are dropped: it keeps the first `capacity` of them.":
            (busy[flat] <= capacity).view(tokens, k),
        "Each expert keeps the right number of copies, but not the first: in a sorting, only argsort(stable=True) "
        "keeps the order of the tokens.": kept if fair else ~right,
    })


# What stands in for a learner's function


def _router_reference():
    from minim1.model.moe import top_k_router

    return top_k_router


def _dispatch_reference():
    from minim1.model.moe import dispatch_by_sort

    return dispatch_by_sort


def _balance_reference():
    from minim1.model.moe import load_balancing_loss

    return load_balancing_loss


def _drop_reference(expert_ids, num_experts, capacity):
    named = torch.nn.functional.one_hot(expert_ids.flatten(), num_experts)  # (N K, E)
    place = (named.cumsum(0) * named).sum(1)  # 1 for the first copy that names its expert
    return (place <= capacity).view(expert_ids.shape)


EXERCISES = (
    Exercise("7.1", "router", "Router", router, _router_reference, points=(1, 2), part="router"),
    Exercise("7.2", "dispatch", "Dispatch and combine", dispatch, _dispatch_reference, points=(1, 3), part="dispatch"),
    Exercise("7.3", "balance_loss", "Balance loss", balance_loss, _balance_reference, points=(1, 2),
             part="balance_loss"),
    Exercise("7.4", "drop_tokens", "Capacity", drop_tokens, lambda: _drop_reference),
)
