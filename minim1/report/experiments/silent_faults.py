"""Does a wrong part show in the loss? A small model trained with each fault of chapter 16's bug hunt.

    python -m minim1.report.experiments.silent_faults     # minutes on one core; into report/results/silent_faults.json

Text and worked problems, packed into rows of 128 tokens, 2,048 tokens a step, AdamW at 3e-3: a fifth of the recipe `nano`
in width and steps, fixed before the first run. Each model is then read once more with the right parts, on fresh rows:
that is what its weights are worth. Faults of decoding and RL are left out, since no loss of pretraining passes them.
"""

import torch

from minim1.config import M1Config
from minim1.data.corpus import encode_corpus, load_corpus
from minim1.data.packing import Batch
from minim1.model.decoder import MiniM1
from minim1.parts import Parts
from minim1.report.experiments import Experiment, head, runner, seeds, values
from minim1.report.experiments import stored as stored_result
from minim1.report.faults import FAULTS
from minim1.train.batches import Batches
from minim1.train.checkpoint import load
from minim1.train.settings import Mixture

STEPS = 120
CONFIG = M1Config(hidden_size=48, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4, head_dim=12,
                  num_key_value_heads=2, rotary_dim=6, attn_type_list=(0, 1, 0, 1), num_local_experts=4)
ARMS = ("none", "attention", "lightning", "rope", "router", "dispatch", "balance_loss", "lm_loss")  # the part at fault


def parts_of(arm: str) -> Parts:
    """The package's parts, or those with the first fault in a part."""
    return Parts() if arm == "none" else next(fault.parts for fault in FAULTS if fault.part == arm)


def rows(seed: int) -> Batches:
    """`batch_at(step)`: 4 rows of text, and 12 rows' worth of worked additions and pair-sum lines."""
    tokenizer = load("shipped").tokenizer
    stream = encode_corpus(load_corpus("stdlib").train[:60], tokenizer)
    return Batches("pretrain", tokenizer, stream, Mixture(4, {"add": 12, "pair": 16}, 128), seed=seed)


def loss_of(model: MiniM1, batch: Batch, parts: Parts, micro_rows: int = 4):
    """The mean next-token loss of a batch in micro-batches, as `Trainer` sums them, and the balance losses' mean."""
    pieces = [batch.slice(slice(at, at + micro_rows)) for at in range(0, len(batch.input_ids), micro_rows)]
    total, balance = 0.0, 0.0
    for piece in pieces:
        out = model(piece.input_ids, document_ids=piece.document_ids, positions=piece.positions)
        total += parts.lm_loss(out.logits, piece.input_ids, piece.mask, total_tokens=batch.num_targets).loss
        balance += out.aux_loss / len(pieces)
    return total, balance


def train(arm: str = "none", seed: int = 0, steps: int = STEPS, *, every: int = 10) -> dict:
    """{"loss": [(step, mean of the last `every` losses as the run sees them)], "right": loss with the right parts}."""
    parts, batches = parts_of(arm), rows(seed)
    model = MiniM1(CONFIG, parts, seed=seed)
    adam = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), eps=1e-15, weight_decay=0.1)
    seen, curve = [], []
    for step in range(steps):
        total, balance = loss_of(model, batches(step), parts)
        adam.zero_grad()
        (total + CONFIG.router_aux_loss_coef * balance).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        seen.append(float(total.detach()))
        if (step + 1) % every == 0:
            curve.append((step + 1, sum(seen[-every:]) / every))
    honest = MiniM1(CONFIG, seed=seed)
    honest.load_state_dict(model.state_dict())
    with torch.no_grad():
        right = [float(loss_of(honest, batches(steps + extra), Parts())[0]) for extra in range(8)]
    return {"loss": curve, "right": sum(right) / len(right)}


def arranged(result: dict) -> dict:
    """A result as chapter 16 reads it: "runs", {arm: [what `train` gives for each seed]}, and where it was measured."""
    return {**head(result), **result["settings"], "seeds": seeds(result),
            "runs": {arm: values(result, arm) for arm in result["runs"]}}


def stored() -> dict:
    """The committed result, `arranged`."""
    return arranged(stored_result("silent_faults"))


def run(arm: str, seed: int, scale: str) -> dict:
    """`train` at a scale."""
    return train(arm, seed, 2, every=1) if scale == "smoke" else train(arm, seed)


EXPERIMENT = Experiment("silent_faults", {arm: range(3) for arm in ARMS}, run, {"steps": STEPS})

if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
