"""Does stopping answers that repeat themselves make RL cheaper and calmer? (report §3.2)

    python -m minim1.report.experiments.repetition     # eight minutes on one core; into report/results/repetition.json

M1 stops a rollout when 3,000 tokens in a row each had a probability above 0.99. The recipe's rule here is 48 tokens,
`RLConfig`'s own, and it can save something only where answers run on. So answers may take 128 tokens, not the recipe's
72: an endless one costs up to 80 more without the rule. Two settings, each with and without the rule and otherwise
equal; with the same seed they begin with the same weights and ask the same prompts:

"large step": from the SFT model, CISPO at the learning rate of which `policies` knew already that it goes wrong. Nobody
put anything in. In the pilot, seed 100, answers ran on but the rule never acted: they were not sure of themselves.

"planted": so loops are *put in* before RL, with 20 steps of fine-tuning in which one demonstration in four, once its
first try has failed, writes `⟨wait⟩` to the end. RL then has the recipe's learning rate. (In the pilot a loop that
repeats the failed try was not learned within 60 steps; this one was, and with the rule it was run for 6 batches, to see
that it acts.)

16 prompts x 8 answers, 16 updates, 10 rollout batches: a quarter of the recipe's batch, to keep it cheap. A stopped
answer earns nothing, but it is short: the penalty for answers near the limit spares it. What the rule would do is
counted without it, too, so that one can see whether there was anything to stop.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from minim1.data.packing import Batch, pack_documents, step_seed
from minim1.data.tokenizer import Tokenizer
from minim1.generation import Rollout, Sampling
from minim1.report.experiments import Experiment, policies, runner, sft
from minim1.report.experiments.windows import repetition_stop
from minim1.tasks import get_task
from minim1.tasks.base import Demonstration, Problem
from minim1.tasks.pair import NO, WAIT
from minim1.train.batches import demonstration_ids
from minim1.train.checkpoint import load
from minim1.train.loop import Trainer
from minim1.train.rl import RLTrainer
from minim1.train.settings import OptimConfig, RLConfig, StageConfig

ROLLOUTS, PROMPTS, SAMPLES, TOKENS, WINDOW = 10, 16, 8, 128, RLConfig.repetition_window
PLANT = {"steps": 20, "documents": 16, "one in": 4}


@dataclass(frozen=True)
class Arm:
    """RL's learning rate, whether loops are planted before, whether the rule acts."""

    learning_rate: float
    planted: bool
    rule: bool


RATES = {"large step": policies.ARMS["cispo, large step"].learning_rate, "planted": RLConfig().optim.learning_rate}
ARMS = {f"{setting}, {how}": Arm(rate, setting == "planted", how == "with")
        for setting, rate in RATES.items() for how in ("without", "with")}


def looping(tokenizer: Tokenizer, number: int) -> tuple[list[int], list[int]]:
    """ids and mask of a demonstration; where the first try fails, one in PLANT["one in"] never gets further."""
    task = get_task("pair")
    problem = task.sample(number)
    first = task.demonstrate(problem, number).reasoning[0][0].split(WAIT)[0]
    if number % PLANT["one in"] or not first.endswith(NO):
        return sft.document(tokenizer, sft.Arm(), problem, number)
    endless = Demonstration(problem.prompt, [(first + WAIT * (TOKENS - 8), True)], None)
    return demonstration_ids(tokenizer, endless, supervise_all=False)


def plant(model, tokenizer: Tokenizer, seed: int, steps: int = PLANT["steps"]) -> None:
    """Fine-tune a model in place until it sometimes loops."""
    def batch(step: int) -> Batch:
        numbers = [step_seed(seed, step, f"plant/{i}") for i in range(PLANT["documents"])]
        return pack_documents([looping(tokenizer, n) for n in numbers], sft.LENGTH, pad_id=tokenizer.pad_id)

    config = StageConfig(steps=steps, optim=OptimConfig(learning_rate=sft.LEARNING_RATE), seed=seed)
    Trainer(model, batch, config, name="plant", quiet=True).fit()


class Watched(RLTrainer):
    """RL that keeps the gradient norm of each update and counts the answers that the rule would stop."""

    def __init__(self, *given, window: int, **shared) -> None:
        super().__init__(*given, **shared)
        self.window = window
        self.norms: list[float] = []
        self.seen: dict[str, float] = {}
        step = self.optimizer.step

        def noted(*given) -> dict[str, float]:
            metrics = step(*given)
            self.norms.append(metrics["grad_norm"])
            return metrics

        self.optimizer.step = noted

    def advance(self, step: int) -> dict:
        self.norms = []
        return {**super().advance(step), **self.seen, "grad_norms": self.norms}

    def _rollout(self, problems: Sequence[Problem], sampling: Sampling) -> Rollout:
        began = time.process_time()
        rollout = super()._rollout(problems, sampling)
        self.seen = {"rollout_seconds": time.process_time() - began, **runaway(rollout, self.window)}
        return rollout


def runaway(rollout: Rollout, window: int) -> dict[str, float]:
    """Share of the answers that a rule of this window stops, and share of all tokens that come after its stop.

    An answer that ends by itself right where the rule would stop it is not counted; what the rule has stopped already
    is, with nothing after it.
    """
    lengths = rollout.mask.sum(1)
    first = rollout.mask.byte().argmax(1, keepdim=True) + torch.arange(int(lengths.max()))
    sure = rollout.logprobs.exp().gather(1, first.clamp(max=rollout.mask.shape[1] - 1))
    kept = repetition_stop(sure, lengths, window=window)
    stopped = (kept < lengths) | torch.tensor([finish == "repetition" for finish in rollout.finish])
    return {"looping": stopped.double().mean().item(), "after_stop": ((lengths - kept).sum() / lengths.sum()).item()}


def train(arm: str, seed: int, rollouts: int = ROLLOUTS, *, prompts: int = PROMPTS, samples: int = SAMPLES,
          tokens: int = TOKENS, updates: int = 16, window: int = WINDOW, planting: int = PLANT["steps"]) -> list[dict]:
    """RL in an arm of ARMS; one record per rollout batch.

    Returns: records with "rollout" (from 1), "tokens" (generated), "seconds" and "rollout_seconds" (processor time of
        the batch, and of its answers alone), "stopped" and "unfinished" (share ended by the rule, and by the limit),
        "looping" and "after_stop" (see `runaway`), "reward" (of the verifier), "length" (mean, tokens), "entropy"
        (nats) and "grad_norms", one for each update.
    """
    (model, tokenizer, _), how = load("shipped/sft"), ARMS[arm]
    if how.planted:
        plant(model, tokenizer, seed, planting)
    optim = OptimConfig(learning_rate=how.learning_rate, weight_decay=0.0, warmup=0.0, decay=0.0)
    config = RLConfig(
        steps=rollouts, optim=optim, prompts_per_rollout=prompts, samples_per_prompt=samples, max_new_tokens=tokens,
        updates_per_rollout=updates, repetition_window=window if how.rule else 0, seed=seed,
    )
    trainer = Watched(model, tokenizer, config, window=window, quiet=True)
    records = []
    for step in range(rollouts):
        began = time.process_time()
        metrics = trainer.advance(step)
        records.append({
            "rollout": step + 1, "seconds": time.process_time() - began, "stopped": metrics["repetition_share"],
            "unfinished": metrics["unfinished_share"], "entropy": metrics.get("entropy", 0.0),
            **{name: metrics[name] for name in (
                "tokens", "rollout_seconds", "looping", "after_stop", "reward", "length", "grad_norms")},
        })
    return records


def run(arm: str, seed: int, scale: str) -> list[dict]:
    """`train` at a scale."""
    if scale == "smoke":
        return train(arm, seed, 1, prompts=4, samples=2, tokens=32, updates=2, window=8, planting=1)
    return train(arm, seed)


EXPERIMENT = Experiment(
    "repetition", {arm: range(3) for arm in ARMS}, run,
    {"rollouts": ROLLOUTS, "prompts": PROMPTS, "samples": SAMPLES, "tokens": TOKENS, "window": WINDOW, "rates": RATES,
     "plant": PLANT},
    alone=True,
)

if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
