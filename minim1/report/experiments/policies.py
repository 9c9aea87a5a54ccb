"""Which policy loss learns how fast, and whose tokens does the clip throw away? Short RL runs from the SFT model.

    python -m minim1.report.experiments.policies       # half an hour on two cores; writes report/results/policies.json

Every arm starts from `load("shipped/sft")` and gets the same prompts for the same seed. The settings were fixed before
any arm was compared: the recipe's batch (32 prompts x 16 answers, 16 updates), a constant learning rate of 2e-5, a third
of the recipe's, so that the rise takes several rollouts (chosen with CISPO and DAPO on seed 100), each loss with the
bounds of its paper. The arms "large step" take 15 times that rate. CISPO, DAPO and PPO differ in the clip alone; GRPO
also averages within each answer. A run that was interrupted goes on: finished (arm, seed) pairs are kept.
"""

import argparse
import datetime
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path

import torch

from minim1.evaluate import answer, heldout_problems, score, task_sampling
from minim1.parts import Parts
from minim1.report.bench.command import machine, versions
from minim1.report.experiments import RESULTS, read_result, write_result
from minim1.tasks.pair import WAIT
from minim1.train.checkpoint import load
from minim1.train.losses import policy_loss as named_loss
from minim1.train.optim import OptimConfig
from minim1.train.rl import RLConfig, RLTrainer

RESULT = RESULTS / "policies.json"
SEEDS, ROLLOUTS = range(3), 12
RATE = 2e-5


@dataclass(frozen=True)
class Arm:
    """A policy loss, its learning rate and options, and the bounds by which `clipped` counts (CISPO's: DAPO's)."""

    loss: str
    learning_rate: float = RATE
    options: dict = field(default_factory=dict)
    eps_low: float = 0.2
    eps_high: float = 0.28


ARMS = {
    "cispo": Arm("cispo"),
    "dapo": Arm("dapo"),
    "grpo": Arm("grpo", eps_high=0.2),
    "ppo": Arm("ppo", eps_high=0.2),
    "cispo, large step": Arm("cispo", 15 * RATE),
    "dapo, large step": Arm("dapo", 15 * RATE),
    "cispo, large step, cap 1.28": Arm("cispo", 15 * RATE, {"max_weight": 1.28}),
}
GROUPS = ("all", "positive", "wait", "positive wait", "positive first wait")  # the last is not in the committed runs
OLD_PROBABILITY = (0.0, 0.01, 0.03, 0.1, 0.3, 0.9, 1.0)  # edges of the bins of `by_old_probability`


class Watched(RLTrainer):
    """Counts, in every update, which sampled tokens a clip with the arm's bounds takes out of the gradient."""

    def __init__(self, *given, arm: Arm, **shared) -> None:
        super().__init__(*given, **shared)
        self.arm, self.wait_id = arm, self.tokenizer.encode(WAIT)[0]
        self.by_update: list[dict[str, list[int]]] = []
        self.by_old_probability = [[0, 0] for _ in OLD_PROBABILITY[1:]]

    def advance(self, step: int) -> dict:
        self.by_update, self.by_old_probability = [], [[0, 0] for _ in OLD_PROBABILITY[1:]]
        metrics = super().advance(step)
        return {**metrics, "by_update": self.by_update, "by_old_probability": self.by_old_probability}

    def _score(self, piece):
        scored = super()._score(piece)
        self._count(piece, scored[1].detach())
        return scored

    def _count(self, piece, logprobs) -> None:
        ratio, positive, arm = (logprobs - piece.old_logprobs).exp(), piece.advantages > 0, self.arm
        clipped = piece.mask & torch.where(positive, ratio > 1 + arm.eps_high, ratio < 1 - arm.eps_low)
        wait = piece.mask & (piece.input_ids == self.wait_id)
        first = wait & positive & (wait.cumsum(1) == 1)  # of the answer
        groups = (piece.mask, piece.mask & positive, wait, wait & positive, first)
        self.by_update.append({
            name: [int(group.sum()), int((group & clipped).sum())] for name, group in zip(GROUPS, groups)
        })
        old = piece.old_logprobs.exp()
        for at, (low, high) in enumerate(zip(OLD_PROBABILITY, OLD_PROBABILITY[1:])):
            inside = piece.mask & positive & (old > low) & (old <= high)
            self.by_old_probability[at][0] += int(inside.sum())
            self.by_old_probability[at][1] += int((inside & clipped).sum())


def train(
    arm: str | Arm = "cispo", seed: int = 0, rollouts: int = ROLLOUTS, *, policy_loss: Callable | None = None,
    prompts: int = 32, samples: int = 16, updates: int = 16, problems: int = 256,
    on_rollout: Callable[[dict], None] | None = None,
) -> list[dict]:
    """RL on the pair-sum family from the SFT model; one record per rollout batch, the first before any learning.

    Args: arm: a name in `ARMS` or an `Arm`; policy_loss: instead of the arm's; prompts, samples, updates: size of a
        rollout batch and into how many updates it is split; problems: how many held-out ones are evaluated each time;
        on_rollout: called with each record as soon as there is one.
    Returns: records with "rollout" (0: the SFT model), "accuracy" (held-out, sampled), "wait" (share of <wait> after a
        first failed try), "thinking" (tokens); from the first rollout on also "reward", "entropy" (nats), "ratio_max",
        "grad_norm", "tokens", "trained_tokens", and two counts [tokens, clipped]: "by_update": one {group: count} for
        each update, groups `GROUPS`, "positive" being tokens of answers with positive advantage; "by_old_probability":
        one count for each bin of `OLD_PROBABILITY`, of positive tokens, over all updates. `clipped` means: PPO's clip
        with the arm's bounds gives them no gradient (CISPO itself drops none; its count says what DAPO would have dropped).
    """
    arm = ARMS[arm] if isinstance(arm, str) else arm
    model, tokenizer, _ = load("shipped/sft")
    optim = OptimConfig(learning_rate=arm.learning_rate, weight_decay=0.0, warmup=0.0, decay=0.0)
    config = RLConfig(
        steps=rollouts, optim=optim, prompts_per_rollout=prompts, samples_per_prompt=samples, updates_per_rollout=updates,
        policy_options=dict(arm.options), seed=seed,
    )
    parts = Parts(policy_loss=policy_loss or named_loss(arm.loss))
    trainer = Watched(model, tokenizer, config, arm=arm, parts=parts, quiet=True)
    asked = heldout_problems("pair", problems)
    records = []

    def note(rollout: int, metrics: dict) -> None:
        drawn = answer(model, tokenizer, asked, task_sampling(tokenizer, max_new_tokens=72, seed=1000 * seed + rollout))
        result = score("pair", drawn)
        kept = ("reward", "entropy", "ratio_max", "grad_norm", "tokens", "trained_tokens", "by_update", "by_old_probability")
        records.append({
            "rollout": rollout, "accuracy": result.accuracy, "wait": result.parts.get("wait_after_first_no", 0.0),
            "thinking": result.thinking, **{name: metrics[name] for name in kept if name in metrics},
        })
        if on_rollout is not None:
            on_rollout(records[-1])

    note(0, {})
    for step in range(rollouts):
        note(step + 1, trainer.advance(step))
    return records


def clipped_share(records: list[dict], group: str = "all", *, first: int = 1, last: int = ROLLOUTS) -> float:
    """Of the tokens of a group in rollouts first..last: the share that the clip took out of the gradient."""
    counts = [update[group] for r in records if first <= r["rollout"] <= last for update in r["by_update"]]
    return sum(clipped for _, clipped in counts) / max(1, sum(tokens for tokens, _ in counts))


def rollouts_to(records: list[dict], accuracy: float) -> int | None:
    """The first rollout after which the held-out accuracy is at least this; None if it never is."""
    return next((r["rollout"] for r in records if r["accuracy"] >= accuracy), None)


def stored() -> dict:
    """The committed result: {"runs": {arm: {seed as text: records}}, "settings", "machine", "versions", "date"}."""
    return read_result(RESULT)


def _one(name: str, seed: int, rollouts: int) -> tuple[str, int, list[dict]]:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    return name, seed, [_rounded(record) for record in train(name, seed, rollouts)]


def _rounded(record: dict) -> dict:
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in record.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--rollouts", type=int, default=ROLLOUTS)
    arguments = parser.parse_args()
    found = read_result(arguments.out) if arguments.out.exists() else {"runs": {}}
    found |= {
        "format": 1, "date": datetime.date.today().isoformat(), "machine": machine("cpu"), "versions": versions(),
        "settings": {"arms": {name: asdict(arm) for name, arm in ARMS.items()}, "rollouts": arguments.rollouts,
                     "groups": GROUPS, "old_probability": OLD_PROBABILITY, "threads": 1},
    }
    missing = [
        (name, seed) for seed in arguments.seeds for name in arguments.arms if str(seed) not in found["runs"].get(name, {})
    ]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(_one, *task, arguments.rollouts) for task in missing]):
            name, seed, records = done.result()
            found["runs"].setdefault(name, {})[str(seed)] = records
            write_result(arguments.out, found)
            print(f"{name}, seed {seed}: accuracy {[r['accuracy'] for r in records]}", file=sys.stderr)
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
