"""Our model, tasks and reward in TRL: `GRPOTrainer` with loss_type="cispo" trains an exported run, on the CPU.

    python -m minim1.report.with_trl [--run RUN] [--steps N]         needs the extra `bench`

What moves: the weights and the chat template (`minim1 export --to hf`), problems as a `datasets.Dataset` with a column
`problem` of text from which each is drawn again by its seed, and the verifier as a reward function. It reads the
`completion_ids`: TRL's texts lack the control tokens, and cannot tell them from markers that the model spells out.
What TRL saves comes back by `interop.read_model`, and is judged here, on held-out problems, like any run.

Two things to know. TRL's `epsilon_high` is CISPO's absolute cap, our `max_weight`; unset it is 0.2. And transformers
decodes prompts that are padded on the left wrongly, so the prompts of a dataset must have one length, as those of a
family at one difficulty have.
"""

import argparse
import json
import tempfile
import time
import warnings
from pathlib import Path

from minim1.data.tokenizer import Tokenizer
from minim1.errors import UserError
from minim1.evaluate import evaluate, prompt_ids
from minim1.interop import export, read_model
from minim1.tasks import get_task, verifier_reward
from minim1.train.checkpoint import load

MAX_WEIGHT = 5.0  # ours; TRL's epsilon_high


def as_dataset(family: str, count: int, tokenizer: Tokenizer):
    """A `datasets.Dataset` of `count` training problems: `prompt` as messages, `problem` as JSON (see `as_problem`).

    Raises: UserError when the prompts differ in length.
    """
    from datasets import Dataset

    named = [{"family": family, "seed": seed, "split": "train"} for seed in range(count)]
    prompts = [as_problem(json.dumps(name)).prompt for name in named]
    lengths = {len(prompt_ids(tokenizer, prompt)) for prompt in prompts}
    if len(lengths) > 1:
        raise UserError(f"prompts of {family} have {sorted(lengths)} tokens; choose a family whose prompts have one length")
    return Dataset.from_dict({
        "prompt": [[{"role": "system", "content": None}, {"role": "user", "content": prompt}] for prompt in prompts],
        "problem": [json.dumps(name) for name in named],
    })


def as_problem(text: str):
    """The `Problem` that a `problem` column names.

    >>> as_problem('{"family": "add", "seed": 3, "split": "train"}') == get_task("add").sample(3)
    True
    """
    name = json.loads(text)
    return get_task(name["family"]).sample(name["seed"], split=name["split"])


def as_reward(tokenizer: Tokenizer):
    """The verifier for TRL."""

    def verified(prompts, completions, *, completion_ids, problem, **columns) -> list[float]:
        texts = [tokenizer.decode_completion(ids) for ids in completion_ids]
        return verifier_reward(prompts, texts, problem=[as_problem(text) for text in problem])

    return verified


def train(run: str, steps: int, *, family: str = "pair", problems: int = 128, prompts: int = 8, samples: int = 8,
          updates: int = 4, learning_rate: float = 1e-4, new_tokens: int = 72) -> dict:
    """Train with TRL: `steps` rollout batches of prompts x samples, each in a number of updates.

    Returns: accuracy on `problems` held-out problems before and after, TRL's mean reward of each rollout batch, by how
    much weights moved at most, and seconds of the training. Raises: UserError where TRL is not installed.
    """
    if steps < 1:
        raise UserError(f"--steps is {steps}; it must be at least 1")
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
        from trl import GRPOConfig, GRPOTrainer
    except ImportError as missing:
        raise UserError(f"{missing.name or missing} is not installed; pip install 'minim1[bench]'") from None
    model, tokenizer, _ = load(run)
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about settings that these libraries give each other
        folder = export(run, Path(scratch) / "hf")
        settings = GRPOConfig(
            output_dir=scratch, use_cpu=True, bf16=False, loss_type="cispo", epsilon_high=MAX_WEIGHT, beta=0.0,
            scale_rewards="group", num_generations=samples, steps_per_generation=updates, gradient_accumulation_steps=1,
            per_device_train_batch_size=prompts * samples // updates, max_completion_length=new_tokens,
            mask_truncated_completions=False, temperature=1.0, top_k=0, top_p=1.0, learning_rate=learning_rate,
            weight_decay=0.0, adam_beta1=0.9, adam_beta2=0.95, adam_epsilon=1e-15, lr_scheduler_type="constant",
            max_steps=steps * updates, gradient_checkpointing=False, logging_steps=1, report_to="none",
            save_strategy="no", disable_tqdm=True, seed=0,
        )
        trainer = GRPOTrainer(
            AutoModelForCausalLM.from_pretrained(folder), reward_funcs=as_reward(tokenizer), args=settings,
            train_dataset=as_dataset(family, prompts * steps, tokenizer),
            processing_class=AutoTokenizer.from_pretrained(folder),
        )
        trainer.remove_callback(PrinterCallback)
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
        trainer.save_model(Path(scratch) / "trained")
        trained = read_model(Path(scratch) / "trained")
        logs = [log["reward"] for log in trainer.state.log_history if "reward" in log]
    moved = max((a - b).abs().max().item() for a, b in zip(model.parameters(), trained.parameters()))
    before, after = (evaluate(net, tokenizer, [family], count=problems)[family].accuracy for net in (model, trained))
    return {"before": before, "after": after, "rewards": logs, "moved": moved, "seconds": seconds}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train an exported run with TRL's GRPOTrainer (CISPO) on the pair task.")
    parser.add_argument("--run", default="shipped/sft", help="run folder; default: the shipped model before RL")
    parser.add_argument("--steps", type=int, default=8, metavar="N", help="rollout batches")
    arguments = parser.parse_args(argv)
    try:
        found = train(arguments.run, arguments.steps)
    except UserError as mistake:
        parser.error(str(mistake))
    print("TRL's mean reward by rollout batch:", " ".join(f"{reward:.3f}" for reward in found["rewards"]))
    print(f"held-out accuracy {found['before']:.3f} before, {found['after']:.3f} after {found['seconds']:.0f} s")
    print(f"largest change of a weight: {found['moved']:.2e}")


if __name__ == "__main__":
    main()
