"""Does a router collapse without the balance loss, what does that cost, and does the loss repair it?

    python -m minim1.report.experiments.balance        # minutes on one core; writes minim1/report/results/balance.json

Two settings. `train_layer`: one layer of experts learns a map for each of several kinds of input, which share a large
component; there collapse is costly. `train_model`: a small MiniM1 reads Python, with a fast router; there it is not.
Both were chosen with seeds 100 and 101, so that collapse happens; the stored seeds begin at 0.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from minim1.config import M1Config
from minim1.data.corpus import encode_corpus, load_corpus
from minim1.model.decoder import MiniM1
from minim1.model.moe import dispatch, expert_load, load_balancing_loss, top_k_router
from minim1.report.experiments import Experiment, head, runner, values
from minim1.report.experiments import stored as stored_result
from minim1.train.batches import Batches
from minim1.train.checkpoint import load
from minim1.train.losses import next_token_loss
from minim1.train.settings import Mixture

EXPERTS, PER_TOKEN = 8, 2
ARMS = {  # name -> (coefficient, share of the steps after which it counts)
    "no balance loss": (0.0, 0.0), "coefficient 0.01": (0.01, 0.0), "coefficient 0.1": (0.1, 0.0),
    "0.1 from half-way": (0.1, 0.5),
}
CONTROL = "nothing shared"  # of the layer's inputs, and no balance loss
LAYER_SEEDS, LAYER_STEPS = range(5), 2000
MODEL_SEEDS, MODEL_STEPS = range(3), 300


def kinds_of_input(seed: int, *, hidden: int = 16, common: float = 3.0) -> Callable[[int], tuple[Tensor, Tensor]]:
    """`batch(n)` -> inputs and targets, (n, C) each, of a task with eight kinds of input.

    An input is the centre of its kind, plus noise, plus a vector that all inputs share (`common` times a normal one);
    its target is what the matrix of its kind makes of it, the shared vector left out.
    """
    draw = torch.Generator().manual_seed(seed)
    centres, shared = torch.randn(8, hidden, generator=draw), common * torch.randn(hidden, generator=draw)
    maps = torch.randn(8, hidden, hidden, generator=draw) / hidden**0.5

    def batch(n: int) -> tuple[Tensor, Tensor]:
        kind = torch.randint(8, (n,), generator=draw)
        x = centres[kind] + 0.3 * torch.randn(n, hidden, generator=draw)
        return x + shared, torch.einsum("nij,nj->ni", maps[kind], x)

    return batch


def train_layer(seed: int, coefficient: float, *, begin: float = 0.0, steps: int = LAYER_STEPS, every: int = 50,
                common: float = 3.0, hidden: int = 16, width: int = 8) -> list[dict]:
    """One layer of 8 SwiGLU experts, top 2, on `kinds_of_input`. Adam, learning rate 0.01, 256 inputs a step.

    Args: coefficient of the balance loss, which counts after the share `begin` of the steps.
    Returns: records {"step", "loss": mean squared error over the last `every` steps, "load": (E,) shares of the last}.
    """
    batch, draw = kinds_of_input(seed, hidden=hidden, common=common), torch.Generator().manual_seed(1000 + seed)

    def matrix(*shape: int) -> Tensor:
        return (torch.randn(shape, generator=draw) / shape[-1] ** 0.5).requires_grad_()

    gate, w1, w3 = matrix(EXPERTS, hidden), matrix(EXPERTS, width, hidden), matrix(EXPERTS, width, hidden)
    w2 = matrix(EXPERTS, hidden, width)
    adam, records, losses = torch.optim.Adam([gate, w1, w2, w3], lr=0.01), [], []
    for step in range(steps):
        x, y = batch(256)
        logits = x @ gate.T
        weights, expert_ids = top_k_router(logits, PER_TOKEN)
        loss = F.mse_loss(dispatch(x, weights, expert_ids, w1, w2, w3), y)
        balance = coefficient * load_balancing_loss(logits, expert_ids) if step >= begin * steps else 0.0
        adam.zero_grad()
        (loss + balance).backward()
        adam.step()
        losses.append(loss.item())
        if (step + 1) % every == 0:
            records.append(_record(step + 1, losses[-every:], _load(expert_ids)))
    return records


def train_model(seed: int, coefficient: float, *, begin: float = 0.0, steps: int = MODEL_STEPS, every: int = 15,
                text: Callable | None = None) -> list[dict]:
    """A MiniM1 of two layers reads 1,024 tokens of Python a step. AdamW, learning rate 0.01, for the routers 0.1.

    Args: as for `train_layer`; text: `batch_at(step)`, default `python_text(seed)`.
    Returns: records {"step", "loss": mean next-token loss over the last `every` steps, "load": [(E,) for each layer]}.
    """
    text = text or python_text(seed)
    model = MiniM1(M1Config(
        hidden_size=48, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, head_dim=12, rotary_dim=6,
        attn_type_list=(0, 1), num_local_experts=EXPERTS, num_experts_per_tok=PER_TOKEN,
    ), seed=seed)
    routers = [p for name, p in model.named_parameters() if name.endswith("moe.gate.weight")]
    others = [p for name, p in model.named_parameters() if not name.endswith("moe.gate.weight")]
    groups = [{"params": others}, {"params": routers, "lr": 0.1}]
    adam = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95), eps=1e-15, weight_decay=0.1)
    records, losses = [], []
    for step in range(steps):
        batch = text(step)
        out = model(batch.input_ids, document_ids=batch.document_ids, positions=batch.positions)
        loss = next_token_loss(out.logits, batch.input_ids, batch.mask, total_tokens=batch.num_targets).loss
        adam.zero_grad()
        (loss + (coefficient if step >= begin * steps else 0.0) * out.aux_loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        losses.append(loss.item())
        if (step + 1) % every == 0:
            load = expert_load(out.expert_ids, EXPERTS)[0]
            records.append(_record(step + 1, losses[-every:], load))
    return records


def python_text(seed: int) -> Callable:
    """`batch_at(step)`: 16 rows of 64 tokens from 60 files of Python's own library."""
    tokenizer = load("shipped").tokenizer
    stream = encode_corpus(load_corpus("stdlib").train[:60], tokenizer)
    return Batches("pretrain", tokenizer, stream, Mixture(16, {}, 64), seed=seed)


def entropy(load: Tensor) -> Tensor:
    """Of shares (..., E), relative to an even load: 1.0 is even, 0.0 one expert alone.

    >>> entropy(torch.tensor([0.5, 0.5, 0.0, 0.0])).item()
    0.5
    """
    load = torch.as_tensor(load)
    return -torch.xlogy(load, load).sum(-1) / torch.tensor(float(load.shape[-1])).log()


def run(arm: str, seed: int, scale: str) -> list[dict]:
    """The records of an arm: "layer, ..." or "model, ..." and a name of `ARMS`, or "layer, nothing shared"."""
    kind, name = arm.split(", ", 1)
    coefficient, begin = ARMS.get(name, ARMS["no balance loss"])
    short = {"steps": 2, "every": 1} if scale == "smoke" else {}
    if kind == "model":
        return train_model(seed, coefficient, begin=begin, **short)
    return train_layer(seed, coefficient, begin=begin, common=0.0 if name == CONTROL else 3.0, **short)


def arranged(result: Mapping) -> dict:
    """A result as chapter 07 reads it: {"layer": {arm: [records of a seed, ...]}, "model": the same, "control", ...}.

    "control" is the layer's first arm again, on inputs that share nothing.
    """
    settings = {"arms": result["settings"]["arms"], "layer_seeds": list(LAYER_SEEDS), "model_seeds": list(MODEL_SEEDS)}
    return {**head(result), "settings": settings, "control": values(result, f"layer, {CONTROL}"),
            **{kind: {name: values(result, f"{kind}, {name}") for name in ARMS} for kind in ("layer", "model")}}


def stored() -> dict:
    """The committed result, arranged."""
    return arranged(stored_result("balance"))


def _record(step: int, losses: list[float], load: Tensor) -> dict:
    return {"step": step, "loss": round(sum(losses) / len(losses), 5), "load": _rounded(load)}


def _rounded(load: Tensor) -> list:
    return [_rounded(row) for row in load] if load.ndim > 1 else [round(share, 4) for share in load.tolist()]


def _load(expert_ids: Tensor) -> Tensor:
    return torch.bincount(expert_ids.flatten(), minlength=EXPERTS) / expert_ids.numel()


EXPERIMENT = Experiment(
    "balance", {**{f"layer, {name}": LAYER_SEEDS for name in (*ARMS, CONTROL)},
                **{f"model, {name}": MODEL_SEEDS for name in ARMS}}, run,
    {"arms": ARMS, "layer_steps": LAYER_STEPS, "model_steps": MODEL_STEPS},
)

if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
