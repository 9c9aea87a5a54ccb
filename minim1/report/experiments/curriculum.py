"""When do the general tasks come in? RL on reasoning and on three other families, mixed in different orders.

    python -m minim1.report.experiments.curriculum   # seven minutes on two cores; writes report/results/curriculum.json

M1's RL began with reasoning that rules verify and mixed general tasks in by and by, with weights that are not published
(M1 report §4.3). Here reasoning is `pair`, and general tasks are `add`, `sort` and `recall`. M1's have a model as their
judge and ours have rules too, so what is tested is the order of the tasks, not their rewards.

Every arm starts from `load("shipped/sft")` and has 16 rollouts of 16 problems with 16 answers each. Those with general
tasks see the same 208 problems of reasoning and the same 48 of the others: only their order differs (`GENERAL`).
"reasoning alone" has 256 of reasoning: what does it forget? "reasoning first, then general" has the 48 at the end: what
do they overwrite? The weights of "reasoning first, then mixed" rise in a straight line over the second half.

Fixed before any arm was run: the learning rate and the updates of 32 answers are those of `policies`, where `pair` was
learnt within 80 such updates, here ten rollouts. `sort` has four letters and `recall` three records, of which the SFT
model (on seed 100) gets 14 % and 70 % right, and `add` its usual three digits, 98 %: something to gain, something to
lose. Every fourth rollout all four families are asked.
"""

from collections.abc import Sequence

from minim1.data.packing import step_seed
from minim1.evaluate import answer, heldout_problems, score, task_sampling
from minim1.report.experiments import Experiment, runner
from minim1.report.experiments.policies import RATE
from minim1.tasks import get_task
from minim1.tasks.base import Problem
from minim1.train.checkpoint import load
from minim1.train.rl import RLTrainer
from minim1.train.settings import OptimConfig, RLConfig

REASONING = "pair"
DIFFICULTY = {"pair": 4, "add": 3, "sort": 4, "recall": 3}
OTHERS = tuple(family for family in DIFFICULTY if family != REASONING)
PROMPTS, SAMPLES, UPDATES = 16, 16, 8
GENERAL = {  # arm -> how many of the 16 problems of each rollout are general
    "reasoning alone": [0] * 16,
    "mixed from the start": [3] * 16,
    "reasoning first, then mixed": [0] * 8 + [1, 3, 4, 5, 7, 8, 9, 11],
    "reasoning first, then general": [0] * 13 + [16] * 3,
}
EVERY = 4  # rollouts between evaluations
ASKED = {family: 256 if family == REASONING else 128 for family in DIFFICULTY}


def problems(general: Sequence[int], step: int, seed: int, prompts: int = PROMPTS) -> list[Problem]:
    """The problems of rollout `step`, the first `general[step]` of them general, families in turn.

    Each kind is numbered over all rollouts: whatever the order, the same number is the same problem.
    """
    before, count = sum(general[:step]), general[step]
    names = [OTHERS[n % len(OTHERS)] for n in range(before, before + count)] + [REASONING] * (prompts - count)
    numbers = [*range(before, before + count), *range(step * prompts - before, (step + 1) * prompts - before - count)]
    kinds = ["general"] * count + [REASONING] * (prompts - count)
    return [get_task(name).sample(step_seed(seed, number, f"curriculum/{kind}"), DIFFICULTY[name])
            for name, number, kind in zip(names, numbers, kinds)]


class Ordered(RLTrainer):
    """`RLTrainer` on the problems of a plan, an entry of `GENERAL`."""

    def __init__(self, *given, general: Sequence[int], **shared) -> None:
        super().__init__(*given, **shared)
        self.general = general

    def _problems(self, step: int) -> list[Problem]:
        return problems(self.general, step, self.config.seed, self.config.prompts_per_rollout)


def accuracies(model, tokenizer, seed: int, asked: dict[str, int]) -> dict[str, float]:
    """Right answers to held-out problems, by family."""
    sampling = task_sampling(tokenizer, max_new_tokens=72, seed=seed)
    return {family: score(family, answer(model, tokenizer, heldout_problems(
        family, count, difficulty=DIFFICULTY[family]), sampling)).accuracy for family, count in asked.items()}


def train(general: Sequence[int], seed: int, *, samples: int = SAMPLES, updates: int = UPDATES, every: int = EVERY,
          asked: dict[str, int] = ASKED) -> list[dict]:
    """RL by a plan; [{"rollout", "accuracy" by family}], the first before any learning."""
    model, tokenizer, _ = load("shipped/sft")
    optim = OptimConfig(learning_rate=RATE, weight_decay=0.0, warmup=0.0, decay=0.0)
    config = RLConfig(steps=len(general), optim=optim, prompts_per_rollout=PROMPTS, samples_per_prompt=samples,
                      updates_per_rollout=updates, seed=seed)
    trainer = Ordered(model, tokenizer, config, general=general, quiet=True)
    records = []
    for done in range(len(general) + 1):
        if done:
            trainer.advance(done - 1)
        if done % every == 0:
            found = accuracies(model, tokenizer, 1000 * seed + done, asked)
            records.append({"rollout": done, "accuracy": found})
    return records


def run(arm: str, seed: int, scale: str) -> list[dict]:
    """`train` at a scale."""
    if scale == "smoke":
        return train(GENERAL[arm][-1:], seed, samples=2, updates=1, every=1, asked=dict.fromkeys(DIFFICULTY, 4))
    return train(GENERAL[arm], seed)


EXPERIMENT = Experiment(
    "curriculum", {arm: range(3) for arm in GENERAL}, run,
    {"general": GENERAL, "difficulty": DIFFICULTY, "prompts": PROMPTS, "samples": SAMPLES, "updates": UPDATES,
     "rate": RATE, "asked": ASKED},
)

if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
