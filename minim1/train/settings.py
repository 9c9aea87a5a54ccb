"""How long, how fast, on what: the settings of training. Nothing here needs torch, so that a wrong one is told at once."""

from dataclasses import dataclass, field

from minim1.errors import UserError

POLICY_LOSSES = ("cispo", "grpo", "dapo", "ppo", "reinforce")


@dataclass(frozen=True)
class OptimConfig:
    """AdamW as M1 uses it (betas 0.9/0.95, eps 1e-15: report §3.2; weight decay 0.1: MiniMax-01 report §4.2).

    With gradients around 1e-14 an eps of 1e-8 would throttle every update to nothing. The shares of warm-up and
    decay are ours.
    """

    learning_rate: float = 3e-3
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-15
    weight_decay: float = 0.1
    clip: float = 1.0  # largest global gradient norm
    warmup: float = 0.03
    decay: float = 0.5
    final: float = 0.05
    autocast: str | None = None  # "bfloat16" or None


@dataclass(frozen=True)
class StageConfig:
    """Length and rhythm of a stage. `micro_rows` rows go through the model at once, on each worker."""

    steps: int = 1000
    optim: OptimConfig = field(default_factory=OptimConfig)
    micro_rows: int = 64
    save_every: int = 200
    log_every: int = 10
    seed: int = 0


@dataclass(frozen=True)
class Mixture:
    """One step's reading: `text_rows` windows of text and so many documents of each family, in rows of `length`."""

    text_rows: int = 12
    documents: dict[str, int] = field(default_factory=lambda: {"pair": 28, "add": 20, "sort": 6, "recall": 10})
    length: int = 256


@dataclass(frozen=True)
class RLConfig:
    """A stage of `steps` rollout batches, each used for `updates_per_rollout` optimiser steps.

    From the report: 16 updates per rollout batch, no KL term, groups without reward variance dropped, an overlong
    penalty (report §3.1), truncation of repetitions (§3.2). Learning rate, group size, temperature and the cap on
    the importance weight are unpublished: ours.
    """

    steps: int = 32
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(learning_rate=6e-5, weight_decay=0.0, decay=1.0))
    families: tuple[str, ...] = ("pair",)
    prompts_per_rollout: int = 32
    samples_per_prompt: int = 16
    updates_per_rollout: int = 16
    policy_options: dict = field(default_factory=dict)  # keywords of the policy loss, e.g. {"max_weight": 5.0}
    temperature: float = 1.0
    max_new_tokens: int = 72
    overlong_buffer: int = 16
    repetition_window: int = 48
    micro_rows: int = 128
    save_every: int = 10
    log_every: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise UserError(f"temperature is {self.temperature}; RL samples, so it must be above 0")
        if self.samples_per_prompt < 2:
            raise UserError(
                f"samples_per_prompt is {self.samples_per_prompt}; advantages compare answers, so at least 2"
            )
        if not 0 <= self.overlong_buffer <= self.max_new_tokens:
            raise UserError(
                f"overlong_buffer is {self.overlong_buffer}; it must lie between 0 and max_new_tokens = {self.max_new_tokens}"
            )
        if self.updates_per_rollout < 1 or self.prompts_per_rollout < 1:
            raise UserError(
                f"prompts_per_rollout is {self.prompts_per_rollout} and updates_per_rollout {self.updates_per_rollout}; "
                "both must be at least 1"
            )


def check_policy_loss(name: str) -> None:
    """Raise UserError, which lists the names, for another."""
    if name not in POLICY_LOSSES:
        raise UserError(f"unknown policy loss {name!r}; choose one of {', '.join(POLICY_LOSSES)}")
