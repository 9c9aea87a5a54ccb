"""Can an output window grow during RL, and do the wrong answers fill it first? M1's stages at toy scale (report §5).

    python -m minim1.report.experiments.windows        # ten minutes on one core; into report/results/windows.json

RL on the pair-sum family from the SFT model, with windows of 40 to 80 tokens where M1's had 40K to 80K. The window
grows through `stage_gate`. Two arms: "plain", CISPO as everywhere in this course; "with the fixes", the report's three
against pattern collapse. All settings were fixed before the first run; thresholds and mixture of losses are ours.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from minim1.report.experiments import Experiment, runner
from minim1.report.experiments import stored as stored_result
from minim1.train.checkpoint import load
from minim1.train.rl import Experience, RLTrainer
from minim1.train.settings import OptimConfig, RLConfig

WINDOWS = (40, 48, 56, 64, 72, 80)  # tokens; M1's, in thousands (report §5)
ROLLOUTS, PATIENCE = 12, 2  # batches; so a window stays for 2 * PATIENCE of them at least


@dataclass(frozen=True)
class Arm:
    """repetition_window, gradient clip, cap on the weight, and the share of the loss that is averaged per answer."""

    repetition_window: int = 0
    clip: float = 1.0
    max_weight: float = 5.0
    per_answer: float = 0.0


ARMS = {"plain": Arm(), "with the fixes": Arm(repetition_window=24, clip=0.5, max_weight=2.0, per_answer=0.5)}


def stage_gate(
    perplexities: Sequence[float], lengths: Tensor, window: int, *,
    patience: int = 3, tolerance: float = 0.02, closeness: float = 0.9,
) -> tuple[bool, float, float]:
    """May the length window grow? Perplexity has converged, and the longest outputs come near it (report §5).

    Args: perplexities of the rollout batches of this stage, oldest first; lengths (R,) of the newest outputs; window.
    Returns: (move_on, change, p99). change: of the mean of the last `patience` perplexities against the mean of those
        before, relative; infinite while there are fewer than 2 * patience. p99: 99th percentile of the lengths.
        move_on: change <= tolerance and p99 >= closeness * window. The report prints no thresholds.

    >>> stage_gate([4.0] * 4, torch.tensor([40, 40]), 40, patience=2)
    (True, 0.0, 40.0)
    """
    p99 = torch.quantile(lengths.double(), 0.99).item()
    if len(perplexities) < 2 * patience:
        return False, math.inf, p99
    old = sum(perplexities[-2 * patience : -patience]) / patience
    change = abs(sum(perplexities[-patience:]) / patience - old) / old
    return change <= tolerance and p99 >= closeness * window, change, p99


def repetition_stop(probabilities: Tensor, lengths: Tensor, *, window: int = 3000, threshold: float = 0.99) -> Tensor:
    """After how many tokens each row stops when `window` consecutive probabilities > threshold stop it (report §3.2).

    Args: probabilities (B, T); lengths (B,) int64, tokens of each row.
    Returns: (B,) int64, tokens kept: `lengths` where it never stops.

    >>> repetition_stop(torch.ones(1, 9), torch.tensor([9]), window=4).tolist()
    [4]
    """
    real = torch.arange(probabilities.shape[1]) < lengths.unsqueeze(1)
    kept, run = lengths.clone(), torch.zeros_like(lengths)
    for t, sure in enumerate(((probabilities > threshold) & real).unbind(1)):
        run = torch.where(sure, run + 1, 0)
        kept = torch.where(run >= window, kept.clamp(max=t + 1), kept)
    return kept


class Staged(RLTrainer):
    """RL whose window starts at the first of `windows` and grows when `stage_gate` says so."""

    def __init__(self, *given, arm: Arm, windows: Sequence[int] = WINDOWS, **shared) -> None:
        super().__init__(*given, **shared)
        self.arm, self.windows, self.stage, self.perplexities = arm, windows, 0, []
        self._open(windows[0])

    def _open(self, window: int) -> None:
        self.config = replace(self.config, max_new_tokens=window)
        self.sampling["max_new_tokens"] = window

    def advance(self, step: int) -> dict:
        window, metrics = self.config.max_new_tokens, super().advance(step)
        self.perplexities.append(self.seen["perplexity"])
        move_on, change, p99 = stage_gate(self.perplexities, self.lengths, window, patience=PATIENCE)
        if move_on and self.stage + 1 < len(self.windows):
            self.stage, self.perplexities = self.stage + 1, []
            self._open(self.windows[self.stage])
        change = None if math.isinf(change) else change
        return {**metrics, **self.seen, "window": window, "p99": p99, "change": change, "moved_on": move_on}

    def _judge(self, problems, rollout):
        rewards, statistics = super()._judge(problems, rollout)
        right = torch.tensor(statistics["reward"]) > 0
        self.lengths = torch.tensor(statistics["length"])
        self.seen = describe(rollout, right)
        return rewards, statistics

    def _loss(self, piece: Experience, tokens: float, sequences: float, **options):
        """Averaged per token, and in part per answer: that is a factor on the advantages of each answer."""
        per_answer = tokens / sequences / piece.mask.sum(1, keepdim=True).clamp(min=1)
        factor = 1 - self.arm.per_answer + self.arm.per_answer * per_answer
        return super()._loss(replace(piece, advantages=piece.advantages * factor), tokens, sequences, **options)


def describe(rollout, right: Tensor) -> dict[str, float]:
    """Who writes how much, and how surely: means over right and wrong answers, and over the parts of the long ones.

    Returns: perplexity of all sampled tokens; `length_right`, `length_wrong`; `cut_right`, `cut_wrong`: shares of them
        that end at the window; `stopped`: share of all ended by the repetition rule; `head_perplexity` and
        `tail_perplexity`: of the first and the last quarter of the answers that end at the window (0 without any).
    """
    mask, cut = rollout.mask, torch.tensor([finish == "length" for finish in rollout.finish])
    lengths = mask.sum(1)
    place = mask.cumsum(1) / lengths.unsqueeze(1)  # (R, T), in (0, 1]

    def perplexity(chosen: Tensor) -> float:
        return (-rollout.logprobs[chosen]).mean().exp().item() if chosen.any() else 0.0

    def mean(values: Tensor, chosen: Tensor) -> float:
        return values[chosen].double().mean().item() if chosen.any() else 0.0

    ended = mask & cut.unsqueeze(1)
    return {
        "perplexity": perplexity(mask),
        "length_right": mean(lengths, right), "length_wrong": mean(lengths, ~right),
        "cut_right": mean(cut, right), "cut_wrong": mean(cut, ~right),
        "stopped": sum(finish == "repetition" for finish in rollout.finish) / len(rollout.finish),
        "head_perplexity": perplexity(ended & (place <= 0.25)), "tail_perplexity": perplexity(ended & (place > 0.75)),
    }


def train(
    arm: str = "plain", seed: int = 0, rollouts: int = ROLLOUTS, *, prompts: int = 8, samples: int = 16,
    updates: int = 16, windows: Sequence[int] = WINDOWS, on_rollout: Callable[[dict], None] | None = None,
) -> list[dict]:
    """RL with a growing window from the SFT model; one record for each rollout batch.

    Returns: records with "rollout" (from 1), "window", "p99", "change" (None while there are too few), "moved_on" (of
        `stage_gate`, after this batch), "success", "length", "entropy", "grad_norm", and what `describe` says.
    """
    model, tokenizer, _ = load("shipped/sft")
    settings = ARMS[arm]
    config = RLConfig(
        steps=rollouts, prompts_per_rollout=prompts, samples_per_prompt=samples, updates_per_rollout=updates, seed=seed,
        optim=OptimConfig(learning_rate=6e-5, weight_decay=0.0, warmup=0.0, decay=0.0, clip=settings.clip),
        policy_options={"max_weight": settings.max_weight}, repetition_window=settings.repetition_window,
        max_new_tokens=windows[0], overlong_buffer=8,
    )
    trainer = Staged(model, tokenizer, config, arm=settings, windows=windows, quiet=True)
    kept = ("window", "p99", "change", "moved_on", "length", "entropy", "grad_norm", *DESCRIBED)
    records = []
    for step in range(rollouts):
        metrics = trainer.advance(step)
        records.append({"rollout": step + 1, "success": metrics["reward"], **{name: metrics.get(name) for name in kept}})
        if on_rollout is not None:
            on_rollout(records[-1])
    return records


DESCRIBED = ("perplexity", "length_right", "length_wrong", "cut_right", "cut_wrong", "stopped", "head_perplexity",
             "tail_perplexity")


def stored() -> dict:
    """The committed result: {"runs": {arm: {seed as text: records}}, "settings", "places", "units"}."""
    return stored_result("windows")


def run(arm: str, seed: int, scale: str) -> list[dict]:
    """`train` at a scale."""
    if scale == "smoke":
        return train(arm, seed, 2, prompts=2, samples=4, updates=2, windows=(12, 16))
    return train(arm, seed)


EXPERIMENT = Experiment(
    "windows", {arm: range(3) for arm in ARMS}, run,
    {"arms": {name: asdict(arm) for name, arm in ARMS.items()}, "windows": WINDOWS, "rollouts": ROLLOUTS},
)

if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
