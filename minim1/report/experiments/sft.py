"""What does a fine-tuned model learn from which tokens, how often does it reflect, and what does sampling more find?

    python -m minim1.report.experiments.sft        # minutes on one core; into report/results/sft.json

Two parts. `train` fine-tunes the model that comes out of pretraining, once for each arm and seed; arms differ in what
is supervised and in the demonstrator's habits, nothing else. `count_right` samples many answers to the same problems
from the shipped models after SFT and after RL: what pass@k is estimated from, beside a blind guess and the model that
fine-tuning starts from. Three settings were cut after the arm
"as shipped" had been seen with larger ones: 60 steps to 40, 48 and 16 documents a step to 32 and 8, 96 problems to 64.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from minim1.data.packing import Batch, pack_documents, step_seed
from minim1.data.tokenizer import Tokenizer
from minim1.evaluate import (
    answer,
    evaluate,
    heldout_problems,
    prompt_ids,
    task_sampling,
)
from minim1.model.decoder import MiniM1
from minim1.report.experiments import Experiment, head, runner, values
from minim1.report.experiments import stored as stored_result
from minim1.tasks import get_task
from minim1.tasks.base import Problem
from minim1.tasks.pair import NO, WAIT, PairDemonstrator
from minim1.train.batches import demonstration_ids
from minim1.train.checkpoint import load
from minim1.train.loop import Trainer
from minim1.train.losses import next_token_loss
from minim1.train.settings import OptimConfig, StageConfig

STEPS, EVERY, LENGTH, LEARNING_RATE = 40, 10, 256, 1.5e-3
DOCUMENTS = {"pair": 32, "add": 8}  # a step
PROBLEMS, SAMPLES = 64, 64  # of `count_right`
SAMPLED = {  # name -> model, temperature
    "after SFT": ("shipped/sft", 1.0), "after SFT, temperature 0.5": ("shipped/sft", 0.5), "after RL": ("shipped", 1.0),
}


@dataclass(frozen=True)
class Arm:
    """Which tokens carry loss, and the habits of the demonstrator.

    supervise: "assistant" (all that it must emit, less the segments marked as not supervised), "no end" (less the
        `<end_of_sentence>` too) or "all its segments" (none left out).
    """

    supervise: str = "assistant"
    p_wait: float = 0.05


ARMS = {
    "as shipped": Arm(), "without the end": Arm("no end"), "every wait": Arm("all its segments"),
    "frequent wait": Arm(p_wait=0.5),
}


def document(tokenizer: Tokenizer, arm: Arm, problem: Problem, seed: int) -> tuple[list[int], list[int]]:
    """ids and mask of a demonstration of this problem, as the arm wants them."""
    task = get_task(problem.family)
    habits = [PairDemonstrator(p_wait=arm.p_wait)] if problem.family == "pair" else []
    shown = task.demonstrate(problem, seed, *habits)
    if arm.supervise == "all its segments":
        shown = replace(shown, reasoning=[(text, True) for text, _ in shown.reasoning])
    ids, mask = demonstration_ids(tokenizer, shown, supervise_all=False)
    if arm.supervise == "no end":
        mask = [int(m and i != tokenizer.eos_id) for i, m in zip(ids, mask)]
    return ids, mask


def batches(tokenizer: Tokenizer, arm: Arm, seed: int) -> Callable[[int], Batch]:
    """`batch(step)`: packed demonstrations of train problems; two arms with one seed see the same problems."""
    def batch(step: int) -> Batch:
        documents = []
        for family, count in DOCUMENTS.items():
            for i in range(count):
                number = step_seed(seed, step, f"sft/{family}/{i}")
                documents.append(document(tokenizer, arm, get_task(family).sample(number), number))
        return pack_documents(documents, LENGTH, pad_id=tokenizer.pad_id)

    return batch


@torch.no_grad()
def heldout_loss(model: MiniM1, tokenizer: Tokenizer, family: str = "pair", *, count: int = 128) -> float:
    """Nats per token of the assistant, in demonstrations of held-out problems that are the same for all arms."""
    documents = [document(tokenizer, Arm(), p, i) for i, p in enumerate(heldout_problems(family, count))]
    batch = pack_documents(documents, LENGTH, pad_id=tokenizer.pad_id)
    out = model(batch.input_ids, document_ids=batch.document_ids, positions=batch.positions)
    return next_token_loss(out.logits, batch.input_ids, batch.mask, total_tokens=batch.num_targets).loss.item()


@torch.no_grad()
def after_first_miss(model: MiniM1, tokenizer: Tokenizer, *, count: int = 128) -> float:
    """The model's mean probability of `⟨wait⟩` right after a first try that failed, on held-out problems."""
    task, (wait,), rows = get_task("pair"), tokenizer.encode(WAIT), []
    for seed, problem in enumerate(heldout_problems("pair", count)):
        first = task.demonstrate(problem, seed).reasoning[0][0].split(WAIT)[0]
        if first.endswith(NO):
            rows.append(prompt_ids(tokenizer, problem.prompt) + [tokenizer.think_id] + tokenizer.encode(first))
    return model(torch.tensor(rows)).logits[:, -1].softmax(-1)[:, wait].mean().item()


def answers(model: MiniM1, tokenizer: Tokenizer, *, count: int = 128) -> dict[str, float]:
    """Accuracy, share in the right format and thinking length on held-out problems of each family, at temperature 1."""
    model.eval()
    found = {}
    for family, score in evaluate(model, tokenizer, tuple(DOCUMENTS), count=count).items():
        found |= {f"{family}_accuracy": score.accuracy, f"{family}_format": score.parts["format"],
                  f"{family}_thinking": score.thinking}
    return found


def train(
    arm: Arm, seed: int, *, steps: int = STEPS, every: int = EVERY, count: int = 128
) -> tuple[MiniM1, list[dict]]:
    """Fine-tune `load("shipped/pretrain")`: the model, and a record of the held-out loss and the probability of a first
    `⟨wait⟩` at step 0 and after `every` steps; the last one has `answers` too."""
    start = load("shipped/pretrain")
    model, records = start.model, []

    def look(step: int, model: MiniM1, write: Callable | None = None) -> None:
        if step % every == 0 or step == steps:
            model.eval()
            records.append({"step": step, "heldout_loss": heldout_loss(model, start.tokenizer),
                            "p_wait": after_first_miss(model, start.tokenizer)})
            model.train()

    look(0, model)
    config = StageConfig(steps=steps, optim=OptimConfig(learning_rate=LEARNING_RATE), seed=seed)
    Trainer(model, batches(start.tokenizer, arm, seed), config, name="sft", after_step=look, quiet=True).fit()
    records[-1] |= answers(model, start.tokenizer, count=count)
    return model, records


def count_right(path: str, *, temperature: float = 1.0, problems: int = PROBLEMS, samples: int = SAMPLES,
                seed: int = 0) -> list[int]:
    """Of `samples` answers to each of `problems` held-out pair problems, how many are right."""
    loaded = load(path)
    loaded.model.eval()
    right: list[int] = []
    sampling = task_sampling(loaded.tokenizer, max_new_tokens=64, temperature=temperature, samples_per_prompt=samples)
    asked = heldout_problems("pair", problems)
    for start in range(0, problems, 8):
        drawn = replace(sampling, seed=step_seed(seed, start, f"pass@k/{temperature}"))
        answers = answer(loaded.model, loaded.tokenizer, asked[start : start + 8], drawn)
        rewards = torch.tensor([a.verdict.reward for a in answers]).view(-1, samples)
        right += rewards.sum(1).int().tolist()
    return right


def share_of_pairs(problems: int = PROBLEMS) -> list[float]:
    """For each problem of `count_right`, the share of its pairs of numbers that are right: a blind guess's pass@1."""
    shares = []
    for problem in heldout_problems("pair", problems):
        numbers, target = problem.data["numbers"], problem.data["target"]
        pairs = [(a, b) for i, a in enumerate(numbers) for b in numbers[:i]]
        shares.append(sum((a + b) % 12 == target for a, b in pairs) / len(pairs))
    return shares


def arranged(result: dict) -> dict:
    """A result as chapter 10 reads it: {"arms": {arm: [records of each seed]}, "right": {name of SAMPLED: `count_right`},
    "guess": `share_of_pairs`, "before": `answers` before SFT}, the settings, and where it was measured."""
    once = {name: values(result, name)[0] for name in (*SAMPLED, "guess", "before")}
    return {**head(result), **result["settings"], "arms": {name: values(result, name) for name in ARMS},
            "right": {name: once[name] for name in SAMPLED}, "guess": once["guess"], "before": once["before"]}


def stored() -> dict:
    """The committed result, `arranged`."""
    return arranged(stored_result("sft"))


def run(arm: str, seed: int, scale: str) -> list[dict] | list[int] | list[float] | dict[str, float]:
    """An arm of ARMS: the records of `train`; of SAMPLED: `count_right`; "guess": `share_of_pairs`; "before": `answers`."""
    smoke = scale == "smoke"
    if arm == "guess":
        return share_of_pairs(8 if smoke else PROBLEMS)
    if arm == "before":
        start = load("shipped/pretrain")
        return answers(start.model, start.tokenizer, count=4 if smoke else 128)
    if arm in SAMPLED:
        path, temperature = SAMPLED[arm]
        sizes = {"problems": 8, "samples": 2} if smoke else {}
        return count_right(path, temperature=temperature, seed=seed, **sizes)
    return train(ARMS[arm], seed, **({"steps": 1, "every": 1, "count": 4} if smoke else {}))[1]


EXPERIMENT = Experiment(
    "sft", {arm: range(3) for arm in ARMS} | {arm: [0] for arm in (*SAMPLED, "guess", "before")}, run,
    {"steps": STEPS, "samples": SAMPLES},
)

if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
