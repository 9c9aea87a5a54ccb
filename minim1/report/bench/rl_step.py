"""One RL step, from prompts to the last of its updates: ours against TRL's `GRPOTrainer` with loss_type="cispo".

A step is what `RLTrainer.advance` does: sample a rollout batch, reward it, and pass over it once in several updates.
Both start from the same weights (TRL trains transformers' MiniMax), answer the same prompts, sample answers of the same
full length at temperature 1, call the same reward function and take the same number of updates on as many sequences
each, with the same cap on the importance weight. What differs is theirs and stays: TRL computes the old
log-probabilities in a pass of its own, where ours are the sampler's.
"""

import contextlib
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from minim1.data.tokenizer import Tokenizer
from minim1.errors import UserError
from minim1.evaluate import prompt_ids
from minim1.model.count import count
from minim1.model.decoder import MiniM1
from minim1.parts import Parts
from minim1.report.bench.harness import LIMITS, OURS, Comparison, Entry, Options, Skip, compare, gather
from minim1.report.bench.models import Gradients, hf_model, in_fp64, model_config
from minim1.train.files import SHIPPED
from minim1.train.losses import cispo_loss, token_logprobs
from minim1.train.rl import Experience, RLTrainer
from minim1.train.settings import OptimConfig, RLConfig

MAX_WEIGHT = 5.0  # cap on the importance weight; TRL calls it epsilon_high
ROLLOUTS = 32  # rollout batches with prompts of their own; TRL then begins again


def benchmark(options: Options) -> Iterator[Comparison]:
    """One comparison: seconds of a whole step. TRL is left out by name where it is missing."""
    if options.dtype == torch.float16:
        raise Skip("training in float16 would need loss scaling; use bfloat16")
    name, model, tokenizer = starting_point(options)
    config = step_config(options)
    ours = our_trainer(model, tokenizer, config)
    prompts = [problem.prompt for step in range(ROLLOUTS) for problem in ours._problems(step)]
    ids = [prompt_ids(tokenizer, prompt) for prompt in prompts]
    lengths = {len(prompt) for prompt in ids}
    if len(lengths) > 1:  # HF decodes padded rows wrongly
        raise UserError(f"the prompts have {sorted(lengths)} tokens; this benchmark needs prompts of one length")
    experience = made_up_experience(model, ids[:16], config.max_new_tokens)
    sizes, answers = count(model.config), config.prompts_per_rollout * config.samples_per_prompt
    case = {
        "model": name, "prompts": config.prompts_per_rollout, "samples": config.samples_per_prompt,
        "updates": config.updates_per_rollout, "prompt": lengths.pop(), "new": config.max_new_tokens,
        "parameters": sizes["parameters"], "active": sizes["active_parameters"],
    }
    with contextlib.ExitStack() as stack:
        peers = {"TRL": lambda: trl_entry(model, tokenizer, config, ids, experience, options, stack)}
        made, skipped = gather({OURS: lambda: our_entry(ours, experience), **peers})
        yield compare(
            "rl", case, made, ours=OURS, options=options, limit=LIMITS[torch.float32], unit="tokens",
            amount=answers * config.max_new_tokens, skipped=skipped,
        )


def starting_point(options: Options) -> tuple[str, MiniM1, Tokenizer]:
    """The model's name, the model with random weights, and the shipped tokenizer, without a way to end an answer."""
    name, config = model_config(options)
    tokenizer = Tokenizer.from_file(SHIPPED / "tokenizer.json")
    tokenizer.eos_id = tokenizer.vocab_size  # no such token: every answer has its full length
    return name, MiniM1(replace(config, vocab_size=tokenizer.vocab_size), seed=1).to(options.device), tokenizer


def step_config(options: Options) -> RLConfig:
    """8 prompts x 8 answers of 64 tokens in 4 updates; `quick`: 2 x 4 answers of 8 tokens in 2 updates."""
    prompts, samples, updates, new = (2, 4, 2, 8) if options.quick else (8, 8, 4, 64)
    autocast = "bfloat16" if options.dtype == torch.bfloat16 else None
    optim = OptimConfig(learning_rate=1e-4, weight_decay=0.0, warmup=0.0, decay=0.0, autocast=autocast)
    return RLConfig(
        steps=1_000_000, optim=optim, prompts_per_rollout=prompts, samples_per_prompt=samples,
        updates_per_rollout=updates, max_new_tokens=new, overlong_buffer=0, repetition_window=0,
        policy_options={"max_weight": MAX_WEIGHT},
    )


def spelled_reward(prompts, completions, **columns) -> list[float]:
    """A number in [0, 1) that depends on all bytes of an answer: cheap, and no group has equal rewards.

    >>> spelled_reward(None, ["ab", "ba", "b"])
    [0.93, 0.92, 0.98]
    """
    return [sum(i * byte for i, byte in enumerate(text.encode(), 1)) % 100 / 100 for text in completions]


# ---------------------------------------------------------------- ours


def our_trainer(model: MiniM1, tokenizer: Tokenizer, config: RLConfig) -> RLTrainer:
    return RLTrainer(model, tokenizer, config, parts=Parts(rewards=(spelled_reward,)), quiet=True)


def our_entry(trainer: RLTrainer, experience: Experience) -> Entry:
    config = trainer.config
    error = our_loss(trainer.model, experience).error(exact_loss(in_fp64(trainer.model), experience))
    steps = iter(range(config.steps))
    answers = config.prompts_per_rollout * config.samples_per_prompt

    def check(metrics: dict) -> float:
        complete = metrics["updates"] == config.updates_per_rollout
        complete &= metrics["trained_tokens"] == answers * config.max_new_tokens
        return error if complete else float("inf")

    trainer.model.train()
    return Entry(lambda: trainer.advance(next(steps)), check)


# ---------------------------------------------------------------- TRL


def trl_entry(model, tokenizer, config, ids, experience, options, stack) -> Entry:
    """TRL's step, checked on `experience`; what it starts ends with `stack`."""
    reward = Recorder(spelled_reward)
    trainer = trl_trainer(model, tokenizer, config, ids, reward, options, stack)
    error = trl_loss(trainer, experience).error(exact_loss(in_fp64(model), experience).as_hf())
    steps = TrlSteps(trainer, config.updates_per_rollout)
    stack.callback(steps.close)

    def check(_) -> float:
        return error if set(reward.lengths) == {config.max_new_tokens} else float("inf")

    return Entry(steps.advance, check)


class Recorder:
    """A reward function that remembers how many tokens the last answers had (TRL tells reward functions)."""

    def __init__(self, reward: Callable) -> None:
        self.reward, self.lengths, self.__name__ = reward, [], reward.__name__

    def __call__(self, prompts, completions, **columns) -> list[float]:
        self.lengths = [len(ids) for ids in columns["completion_ids"]]
        return self.reward(prompts, completions, **columns)


def trl_trainer(model, tokenizer, config, ids, reward, options, stack):
    """A `GRPOTrainer` that does what `config` says to our RLTrainer; logs, saves and shows nothing.

    Raises Skip where a package is missing, and when its tokenizer reads a prompt otherwise.
    """
    try:
        from datasets import Dataset
        from transformers import PreTrainedTokenizerFast, PrinterCallback
        from transformers.utils import logging
        from trl import GRPOConfig, GRPOTrainer
    except ImportError as missing:
        raise Skip(f"{missing.name or missing} is not installed") from None
    stack.callback(logging.set_verbosity, logging.get_verbosity())
    logging.set_verbosity_error()
    stack.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore", FutureWarning)  # about settings that these libraries give each other
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    tokenizer.save(Path(folder) / "tokenizer.json")
    theirs = PreTrainedTokenizerFast(  # an end that the model, without a logit for it, cannot emit
        tokenizer_file=str(Path(folder) / "tokenizer.json"), pad_token="<pad>", eos_token="<never>"
    )
    texts = [tokenizer.decode(prompt) for prompt in ids]
    if theirs(texts)["input_ids"] != ids:
        raise Skip("transformers reads the prompts as other tokens")
    answers, updates = config.prompts_per_rollout * config.samples_per_prompt, config.updates_per_rollout
    settings = GRPOConfig(
        output_dir=folder, use_cpu=options.device == "cpu", bf16=options.dtype == torch.bfloat16,
        loss_type="cispo", epsilon_high=MAX_WEIGHT, beta=0.0, scale_rewards="group", num_iterations=1,
        num_generations=config.samples_per_prompt, steps_per_generation=updates, gradient_accumulation_steps=1,
        per_device_train_batch_size=answers // updates, max_completion_length=config.max_new_tokens,
        mask_truncated_completions=False, temperature=config.temperature, top_k=0, top_p=1.0,
        learning_rate=config.optim.learning_rate, weight_decay=config.optim.weight_decay,
        adam_beta1=config.optim.betas[0], adam_beta2=config.optim.betas[1], adam_epsilon=config.optim.eps,
        max_grad_norm=config.optim.clip, lr_scheduler_type="constant", optim="adamw_torch_fused",
        max_steps=config.steps, shuffle_dataset=False, gradient_checkpointing=False, use_vllm=False,
        report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
    )
    trainer = GRPOTrainer(
        hf_model(model), reward_funcs=reward, args=settings, train_dataset=Dataset.from_dict({"prompt": texts}),
        processing_class=theirs,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


class TrlSteps:
    """TRL's own training loop, unchanged, in a thread that waits after the last update of each rollout batch."""

    def __init__(self, trainer, updates: int) -> None:
        from transformers import TrainerCallback

        steps = self

        class Pause(TrainerCallback):
            def on_step_end(self, args, state, control, **objects):
                if state.global_step % updates == 0:
                    steps.finished.release()
                    steps.wanted.acquire()
                    control.should_training_stop = steps.closing

        trainer.add_callback(Pause())
        self.trainer, self.closing, self.problem = trainer, False, None
        self.wanted, self.finished = threading.Semaphore(0), threading.Semaphore(0)
        self.thread = threading.Thread(target=self._train, daemon=True)

    def _train(self) -> None:
        try:
            self.trainer.train()
        except BaseException as problem:  # belongs to whoever waits for the step
            self.problem = problem
        self.finished.release()

    def advance(self) -> None:
        """One step. The first call also starts the loop."""
        self.wanted.release() if self.thread.ident else self.thread.start()
        self.finished.acquire()
        if self.problem is not None:
            raise self.problem

    def close(self) -> None:
        """End the loop."""
        self.closing = True
        self.wanted.release()
        if self.thread.ident:
            self.thread.join()


# ---------------------------------------------------------------- the same numbers


def made_up_experience(model: MiniM1, prompts: list[list[int]], new_tokens: int) -> Experience:
    """Random answers of unequal length, advantages, and old log-probabilities so far off that the cap matters."""
    random = torch.Generator().manual_seed(3)
    start, rows = len(prompts[0]), len(prompts)
    lengths = torch.randint(1, new_tokens + 1, (rows, 1), generator=random)
    lengths[0] = new_tokens
    answers = torch.randint(model.config.vocab_size, (rows, new_tokens), generator=random)
    input_ids = torch.cat([torch.tensor(prompts), answers], 1)
    position = torch.arange(start + new_tokens)
    document_ids = torch.where(position < start + lengths, 0, -1)
    with torch.no_grad():
        device = next(model.parameters()).device
        logprobs = token_logprobs(model(input_ids.to(device)).logits, input_ids.to(device)).cpu()
    made = Experience(
        input_ids, document_ids, logprobs - 2 * torch.randn(logprobs.shape, generator=random),
        (0.5 + torch.randn(rows, 1, generator=random)).expand_as(logprobs), (position >= start) & (document_ids >= 0),
    )
    return Experience(*(getattr(made, name).to(device) for name in Experience.__dataclass_fields__))


def our_loss(model: MiniM1, made: Experience) -> Gradients:
    """Our CISPO loss on `made`, without the balance loss."""
    logprobs = token_logprobs(model(made.input_ids, document_ids=made.document_ids).logits, made.input_ids)
    output = cispo_loss(
        logprobs, made.old_logprobs, made.advantages, made.mask, total_tokens=int(made.mask.sum()),
        total_sequences=len(made.mask), max_weight=MAX_WEIGHT,
    )
    return Gradients.of(output.loss, model)


def trl_loss(trainer, made: Experience) -> Gradients:
    """TRL's loss on the same, without its balance loss."""
    start = int(made.mask.int().argmax(1).amin())
    real = (made.document_ids >= 0).long()
    updates = trainer.args.steps_per_generation
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    balance, trainer.aux_loss_enabled = trainer.aux_loss_enabled, False
    loss = trainer._compute_loss(trainer.model, {
        "prompt_ids": made.input_ids[:, :start], "prompt_mask": real[:, :start],
        "completion_ids": made.input_ids[:, start:], "completion_mask": real[:, start:],
        "advantages": made.advantages[:, 0], "old_per_token_logps": made.old_logprobs[:, start:],
        "num_items_in_batch": made.mask.sum() * updates,  # TRL divides by the mean over the updates of a rollout batch
    })
    trainer.aux_loss_enabled = balance
    return Gradients.of(loss, trainer.model)


def exact_loss(model: MiniM1, made: Experience) -> Gradients:
    """The definition: - sum over sampled tokens of sg(min(r, cap)) A log pi / tokens."""
    logits = model(made.input_ids, document_ids=made.document_ids).logits
    chosen = logits[:, :-1].log_softmax(-1).gather(-1, made.input_ids[:, 1:, None]).squeeze(-1)
    weight = torch.exp(chosen - made.old_logprobs[:, 1:]).clamp(max=MAX_WEIGHT).detach()
    mask = made.mask[:, 1:]
    return Gradients.of(-(weight * made.advantages[:, 1:] * chosen)[mask].sum() / mask.sum(), model)
