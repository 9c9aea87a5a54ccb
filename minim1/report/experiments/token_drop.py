"""How many token copies find no room: each expert-parallel group with a capacity of its own, or all groups with one?

    python -m minim1.report.experiments.token_drop     # seconds on one core; writes report/results/token_drop.json

In training MiniMax-01 gives every expert room for `factor` times its even share of the token copies and drops what is
more; its global router first gathers from all groups how many copies wait for each expert, and applies the capacity to
the sum (MiniMax-01 report §2.1). Nothing is trained here. Eight groups route their tokens, and the same choices are
counted both ways, with the same room in all. That pooling never drops more is certain, since what one group has too
much another may have room for; how much it saves depends on how the groups differ, which the arms vary:

"random, skew S": the router's own rule (32 experts, top 2, as M1) on normal logits, to which every group adds a
preference of its own for each expert, normal too with standard deviation S; over many groups the load is even. S = 0
leaves chance alone, S = 1 makes a group's preference as strong as what differs from token to token.
"model, a kind of text each": the shipped model (4 experts, top 2) reads, in each group, one family of problems or one
file of Python. "model, dealt at random": the same tokens, dealt to the groups at random.

The capacity factor and the groups of MiniMax-01 are not published: factors 1 to 2, eight groups and these skews are
ours, chosen before any count. A seed draws logits, problems and files anew.
"""

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from minim1.data.corpus import load_corpus
from minim1.evaluate import heldout_problems
from minim1.model.moe import top_k_router
from minim1.report.experiments import Experiment, runner
from minim1.tasks import TASKS
from minim1.train.checkpoint import load

GROUPS, TOKENS, ROW = 8, 1024, 128  # tokens of a group; the shipped model reads them in rows
EXPERTS, PER_TOKEN = 32, 2  # of the random router
FACTORS = tuple(round(1 + n / 10, 1) for n in range(11))
SKEWS = (0.0, 0.5, 1.0)
OWN_TEXT, DEALT = "model, a kind of text each", "model, dealt at random"


def copies(expert_ids: Tensor, experts: int) -> Tensor:
    """How many copies each group sends to each expert: expert_ids (G, ...) -> (G, E)."""
    return torch.stack([group.flatten().bincount(minlength=experts) for group in expert_ids])


def dropped_share(counts: Tensor, factor: float) -> float:
    """Share of all copies that are dropped: counts (G, E), where every group has a capacity of its own.

    >>> dropped_share(torch.tensor([[4, 0], [0, 4]]), 1.0), dropped_share(torch.tensor([[4, 4]]), 1.0)
    (0.5, 0.0)
    """
    capacity = factor * counts.sum(1, keepdim=True) / counts.shape[1]
    return ((counts - capacity).clamp(min=0).sum() / counts.sum()).item()


def drop_rates(counts: Tensor, factors: Sequence[float] = FACTORS) -> dict[str, list[float]]:
    """For each factor the share dropped with a capacity for each group ("local") and with one for all ("global")."""
    return {"local": [dropped_share(counts, factor) for factor in factors],
            "global": [dropped_share(counts.sum(0, keepdim=True), factor) for factor in factors]}


def random_routing(seed: int, skew: float, tokens: int = TOKENS) -> Tensor:
    """expert_ids (G, tokens, PER_TOKEN) of groups with preferences of their own."""
    draw = torch.Generator().manual_seed(seed)
    preference = skew * torch.randn(GROUPS, 1, EXPERTS, generator=draw)
    logits = preference + torch.randn(GROUPS, tokens, EXPERTS, generator=draw)
    return top_k_router(logits.flatten(0, 1), PER_TOKEN)[1].view(GROUPS, tokens, PER_TOKEN)


@torch.no_grad()
def model_routing(seed: int, tokens: int = TOKENS) -> Tensor:
    """expert_ids (L, G, tokens, K) of the shipped model; groups 0 to 3 read problems, the others a Python file each."""
    shipped, draw = load("shipped"), random.Random(seed)
    files = [text for text in load_corpus("stdlib").heldout if len(text) > 8 * tokens]
    texts = ["".join(p.prompt + p.trace for p in heldout_problems(family, tokens // 4, seed=seed)) for family in TASKS]
    texts += draw.sample(files, GROUPS - len(texts))
    rows = [torch.tensor(shipped.tokenizer.encode(text)[:tokens]).view(-1, ROW) for text in texts]
    routed = [shipped.model(group).expert_ids.flatten(1, 2) for group in rows]  # (L, tokens, K) each
    return torch.stack(routed, dim=1)


def dealt(expert_ids: Tensor, seed: int) -> Tensor:
    """The same tokens in other groups, at random: (L, G, N, K) -> (L, G, N, K)."""
    flat = expert_ids.flatten(1, 2)
    return flat[:, torch.randperm(flat.shape[1], generator=torch.Generator().manual_seed(seed))].view_as(expert_ids)


def run(arm: str, seed: int, scale: str) -> dict[str, list[float]]:
    """The drop rates of an arm, for each of `FACTORS`; of the model: means over its layers."""
    tokens = ROW if scale == "smoke" else TOKENS
    if arm.startswith("random"):
        return drop_rates(copies(random_routing(seed, float(arm.split()[-1]), tokens), EXPERTS))
    routed = model_routing(seed, tokens)
    routed, experts = dealt(routed, seed) if arm == DEALT else routed, load("shipped").model.config.num_local_experts
    layers = [drop_rates(copies(layer, experts)) for layer in routed]
    return {name: torch.tensor([rates[name] for rates in layers]).mean(0).tolist() for name in layers[0]}


EXPERIMENT = Experiment(
    "token_drop", {arm: range(5) for arm in (*(f"random, skew {skew}" for skew in SKEWS), OWN_TEXT, DEALT)}, run,
    {"factors": FACTORS, "groups": GROUPS, "tokens": TOKENS, "experts": EXPERTS, "per_token": PER_TOKEN},
)

if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
