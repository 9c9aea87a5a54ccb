"""Which policy loss learns how fast, and whose tokens does the clip throw away? Short RL runs from the SFT model.

    python -m minim1.report.experiments.policies       # under an hour on two cores; what is stored is not run again

Every arm starts from `load("shipped/sft")` and gets the same prompts for the same seed. The settings were fixed before
any arm was compared: the recipe's batch (32 prompts x 16 answers, 16 updates), a constant learning rate of 2e-5, a third
of the recipe's, so that the rise takes several rollouts (chosen with CISPO and DAPO on seed 100), each loss with the
bounds of its paper. CISPO, DAPO and PPO differ in the clip alone; GRPO also averages within each answer.

How old may answers get? With 16 updates a batch the last update learns from a policy 15 steps old, as M1's did; the arms
with 4 and 1 keep the size of an update, the number of updates and of tokens, and draw smaller batches more often. Two
more rates: the recipe's own, and "large step", 15 times as large, where training is known to break.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from minim1.evaluate import answer, heldout_problems, score, task_sampling
from minim1.parts import Parts
from minim1.report.experiments import Experiment, runner
from minim1.report.experiments import stored as stored_result
from minim1.tasks.pair import WAIT
from minim1.train.checkpoint import load
from minim1.train.losses import policy_loss as named_loss
from minim1.train.rl import RLTrainer
from minim1.train.settings import OptimConfig, RLConfig
from minim1.workers import keep_memory

ROLLOUTS, RATE = 12, 2e-5


@dataclass(frozen=True)
class Arm:
    """A policy loss, its learning rate and options, and the bounds by which `clipped` counts (CISPO's: DAPO's).

    updates: into how many a rollout batch is split; it has two prompts for each, so that an update is always one of 32
    answers, and 16 updates are 12 x 16 optimiser steps as 1 is: what differs is how old the answers are.
    """

    loss: str
    learning_rate: float = RATE
    updates: int = 16
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
    "cispo, large step, cap 1.28": Arm("cispo", 15 * RATE, options={"max_weight": 1.28}),
    **{f"{loss}, {says}": Arm(loss, eps_high=0.2 if loss == "grpo" else 0.28, **how)
       for says, how in (("1 update", {"updates": 1}), ("4 updates", {"updates": 4}),
                         ("recipe's rate", {"learning_rate": 3 * RATE})) for loss in ("cispo", "dapo", "grpo")},
}
GROUPS = ("all", "positive", "wait", "positive wait", "positive first wait")
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
    device: str = "cpu", on_rollout: Callable[[dict], None] | None = None,
) -> list[dict]:
    """RL on the pair-sum family from the SFT model; one record per rollout batch, the first before any learning.

    Args: arm: a name in `ARMS` or an `Arm`; policy_loss: instead of the arm's; prompts, samples, updates: size of a
        rollout batch and into how many updates it is split, where the arm has 16 of them (see `Arm`); problems: how many held-out ones are evaluated each time;
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
    model.to(device)
    optim = OptimConfig(learning_rate=arm.learning_rate, weight_decay=0.0, warmup=0.0, decay=0.0)
    batches = 16 // arm.updates  # in one record
    config = RLConfig(
        steps=rollouts * batches, optim=optim, prompts_per_rollout=max(1, prompts // batches), samples_per_prompt=samples,
        updates_per_rollout=max(1, updates // batches), policy_options=dict(arm.options), seed=seed,
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
    for rollout in range(rollouts):
        note(rollout + 1, _together([trainer.advance(rollout * batches + i) for i in range(batches)]))
    return records


def _together(batches: list[dict]) -> dict:
    """The metrics of several rollout batches as those of one: counts are added, the rest averaged."""
    found = {}
    for name in dict.fromkeys(name for batch in batches for name in batch):  # one without any signal lacks some
        values = [batch[name] for batch in batches if name in batch]
        if name == "by_update":
            found[name] = [update for updates in values for update in updates]
        elif name == "by_old_probability":
            found[name] = [[sum(counts) for counts in zip(*each)] for each in zip(*values)]
        elif name.endswith("tokens"):
            found[name] = sum(values)
        else:
            found[name] = max(values) if name.endswith("_max") else sum(values) / len(values)
    return found


def clipped_share(records: list[dict], group: str = "all", *, first: int = 1, last: int = ROLLOUTS) -> float:
    """Of the tokens of a group in rollouts first..last: the share that the clip took out of the gradient."""
    counts = [update[group] for r in records if first <= r["rollout"] <= last for update in r["by_update"]]
    return sum(clipped for _, clipped in counts) / max(1, sum(tokens for tokens, _ in counts))


def rollouts_to(records: list[dict], accuracy: float) -> int | None:
    """The first rollout after which the held-out accuracy is at least this; None if it never is."""
    return next((r["rollout"] for r in records if r["accuracy"] >= accuracy), None)


def steps_to(records: Sequence[dict], accuracy: float) -> float | None:
    """Optimiser steps, 16 a rollout batch, until held-out accuracy is first reached, interpolated between batches.

    >>> steps_to([{"rollout": 0, "accuracy": 0.2}, {"rollout": 1, "accuracy": 0.6}], 0.5)
    12.0
    """
    for before, after in zip(records, records[1:]):
        if after["accuracy"] >= accuracy > before["accuracy"]:
            part = (accuracy - before["accuracy"]) / (after["accuracy"] - before["accuracy"])
            return round(16 * (before["rollout"] + part * (after["rollout"] - before["rollout"])), 6)
    return None


def stored() -> dict:
    """The committed result: {"runs": {arm: {seed as text: records}}, "settings", "places", "units"}."""
    return stored_result("policies")


def run(arm: str, seed: int, scale: str) -> list[dict]:
    """`train` at a scale."""
    if scale == "smoke":
        return train(arm, seed, 1, prompts=16, samples=2, problems=8)
    if scale == "gpu":
        return train(arm, seed, prompts=64, problems=1024, device="cuda")
    keep_memory()  # as `minim1 rl` does
    return train(arm, seed)


COMPARED = tuple(f"{loss}{how}" for how in ("", ", 1 update") for loss in ("cispo", "dapo", "grpo"))
LONGEST_FIRST = sorted(ARMS, key=lambda arm: ARMS[arm].updates)  # two processes then end at nearly the same time
EXPERIMENT = Experiment(
    "policies", {arm: range(5 if arm in COMPARED else 3) for arm in LONGEST_FIRST}, run,
    {"rollouts": ROLLOUTS, "groups": GROUPS, "old_probability": OLD_PROBABILITY, "rate": RATE},
    beside=["ppo", *(arm for arm in ARMS if "large step" in arm)],
)

if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
