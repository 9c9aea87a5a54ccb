"""Does AdamW need a smaller eps, and a shorter memory of squares, when gradients are tiny? (report §3.2)

    python -m minim1.report.experiments.adam           # four minutes on one core; into report/results/adam.json

M1's gradients in RL lay between 1e-18 and 1e-5, most below 1e-14, and those of neighbouring steps hardly agreed. A
small fresh model learns demonstrations of the pair-sum task here, one row of `DOCUMENTS` of them a step so that
neighbouring gradients agree little, with the whole loss multiplied by a constant: "unscaled" by 1, "scaled" by 1e-11,
which puts nine in ten gradients below 1e-14 and half of the first step's at 1e-15, in a range from about 1e-17 to 1e-13
(seed 100, whose gradients were the only thing looked at before the settings were fixed). A model cannot tell the
difference, but AdamW can, through eps. For beta2 the constant changes, around the same 1e-11: "between steps" each step
draws it anew from 1e-13 to 1e-9, evenly in the exponent; "over time" it falls evenly in the exponent, from 1e-10 to
1e-12.

Arms differ in eps (1e-8, torch's default, or 1e-15), beta2 (0.999, the default, or 0.95) and the constant. Learning
rate `RATE`, constant; no weight decay, so that a step is AdamW's alone; no clipping to a norm, which would rescale the
unscaled arms and no others. Arms of one seed begin with the same weights and see the same documents.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from statistics import fmean

import torch
from torch import Tensor

from minim1.config import preset
from minim1.data.packing import Batch, pack_documents, step_seed
from minim1.data.tokenizer import Tokenizer
from minim1.model.decoder import MiniM1
from minim1.report.experiments import Experiment, runner, sft
from minim1.tasks import get_task
from minim1.train.files import SHIPPED
from minim1.train.losses import LossOutput, next_token_loss
from minim1.train.optim import Optimizer
from minim1.train.schedule import warmup_stable_decay
from minim1.train.settings import OptimConfig

STEPS, EVERY, DOCUMENTS, RATE = 150, 30, 8, 3e-3
SMALL = 1e-11


def between_steps(step: int, steps: int, seed: int) -> float:
    """SMALL times 1e-2 to 1e2, evenly in the exponent, drawn anew for every step."""
    generator = torch.Generator().manual_seed(step_seed(seed, step, "scale"))
    return SMALL * 10 ** (4 * torch.rand((), generator=generator).item() - 2)


SCALES: dict[str, Callable[[int, int, int], float]] = {  # of (step, steps, seed)
    "unscaled": lambda step, steps, seed: 1.0,
    "scaled": lambda step, steps, seed: SMALL,
    "between steps": between_steps,
    "over time": lambda step, steps, seed: SMALL * 10 ** (1 - 2 * step / (steps - 1)),
}


@dataclass(frozen=True)
class Arm:
    """What the loss is multiplied by (a name of SCALES), and AdamW's eps and beta2."""

    scale: str
    eps: float = 1e-15
    beta2: float = 0.95

    @property
    def name(self) -> str:
        return f"{self.scale}, eps {self.eps:.0e}, beta2 {self.beta2:g}"

ARMS = {arm.name: arm for arm in (
    *(Arm(scale, eps, beta2) for scale, eps, beta2 in product(("unscaled", "scaled"), (1e-15, 1e-8), (0.95, 0.999))),
    *(Arm(scale, beta2=beta2) for scale, beta2 in product(("between steps", "over time"), (0.95, 0.999))),
)}


def make_model(vocabulary: int, seed: int) -> MiniM1:
    """A fresh model of a preset's kind, four layers with softmax last, 48 wide."""
    config = replace(
        preset("nano"), vocab_size=vocabulary, hidden_size=48, intermediate_size=48, num_hidden_layers=4,
        attn_type_list=(0, 0, 0, 1), num_attention_heads=4, head_dim=12, rotary_dim=6,
    )
    return MiniM1(config, seed=seed)


def make_batch(tokenizer: Tokenizer, seed: int, step: int) -> Batch:
    """DOCUMENTS demonstrations of train problems, packed."""
    numbers = [step_seed(seed, step, f"adam/{i}") for i in range(DOCUMENTS)]
    problems = [get_task("pair").sample(number) for number in numbers]
    documents = [sft.document(tokenizer, sft.Arm(), problem, number) for problem, number in zip(problems, numbers)]
    return pack_documents(documents, sft.LENGTH, pad_id=tokenizer.pad_id)


class Watched:
    """An `Optimizer` whose steps are measured: how far the weights moved, what the gradients are like."""

    def __init__(self, model: MiniM1, arm: Arm, seed: int, steps: int) -> None:
        config = OptimConfig(learning_rate=RATE, betas=(0.9, arm.beta2), eps=arm.eps, weight_decay=0.0,
                             clip=float("inf"), warmup=0.0, decay=0.0)
        self.optimizer = Optimizer(model, config, steps, schedule=warmup_stable_decay)
        self.model, self.factor = model, lambda step: SCALES[arm.scale](step, steps, seed)
        self.updates: list[float] = []  # root mean square of the weights' change / learning rate
        self.cosines: list[float] = []  # of the gradients of this step and the one before
        self.below: list[float] = []  # share of the gradients (0 left out) whose size is below 1e-14
        self.first: Tensor | None = None  # sizes of the first step's gradients, 0 left out
        self.direction: Tensor | None = None

    def step(self, number: int, batch: Batch) -> None:
        before = self.weights()
        self.optimizer.step(number, [batch], lambda batch: self._loss(batch, self.factor(number)))
        self.updates.append((self.weights() - before).square().mean().sqrt().item() / RATE)
        sizes = self.optimizer.gradient.abs()
        sizes = sizes[sizes > 0]
        self.first = sizes if self.first is None else self.first
        self.below.append((sizes < 1e-14).double().mean().item())
        direction = self.optimizer.gradient / self.optimizer.gradient.norm()
        if self.direction is not None:
            self.cosines.append((self.direction @ direction).item())
        self.direction = direction

    def weights(self) -> Tensor:
        """All of them, (N,)."""
        return torch.cat([p.detach().flatten() for _, p in self.optimizer.named])

    def _loss(self, batch: Batch, factor: float) -> LossOutput:
        out = self.model(batch.input_ids, document_ids=batch.document_ids, positions=batch.positions)
        output = next_token_loss(out.logits, batch.input_ids, batch.mask, total_tokens=batch.num_targets)
        auxiliary = self.model.config.router_aux_loss_coef * out.aux_loss
        return LossOutput(factor * (output.loss + auxiliary), output.metrics)


def train(arm: str | Arm, seed: int, steps: int = STEPS, *, every: int = EVERY, count: int = 64) -> dict:
    """Train the fresh model of a seed, and what was seen on the way.

    Returns: "steps" and "heldout": after how many steps, and the held-out loss then (nats per token of the assistant,
        `count` problems, never multiplied); "update": root mean square of the weights' change in a step, as a multiple
        of the learning rate, mean over the steps; "moved": share of the weights that differ from their first value in
        the end; "gradients": {"1%", "50%", "99%"}: quantiles of the first step's, 0 left out; "below": share of all
        steps' below 1e-14; "cosine": between gradients of neighbouring steps, mean over the second half.
    """
    arm = ARMS[arm] if isinstance(arm, str) else arm
    tokenizer = Tokenizer.from_file(SHIPPED / "tokenizer.json")
    model = make_model(tokenizer.vocab_size, seed)
    watched = Watched(model, arm, seed, steps)
    start, curve = watched.weights(), []
    for step in range(steps + 1):
        if step % every == 0 or step == steps:
            model.eval()
            curve.append((step, sft.heldout_loss(model, tokenizer, count=count)))
            model.train()
        if step < steps:
            watched.step(step, make_batch(tokenizer, seed, step))
    sizes = watched.first.sort().values
    return {
        "steps": [step for step, _ in curve], "heldout": [loss for _, loss in curve], "update": fmean(watched.updates),
        "moved": (watched.weights() != start).double().mean().item(),
        "gradients": {f"{q}%": sizes[len(sizes) * q // 100].item() for q in (1, 50, 99)},
        "below": fmean(watched.below), "cosine": fmean(watched.cosines[len(watched.cosines) // 2 :]),
    }


def learned(value: dict) -> float:
    """By how much the held-out loss fell, nats per token."""
    return value["heldout"][0] - value["heldout"][-1]


def run(arm: str, seed: int, scale: str) -> dict:
    """`train` at a scale."""
    return train(arm, seed, 6, every=3, count=8) if scale == "smoke" else train(arm, seed)


EXPERIMENT = Experiment(
    "adam", {arm: range(3) for arm in ARMS}, run,
    {"steps": STEPS, "documents": DOCUMENTS, "rate": RATE, "small": SMALL},
)

if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
