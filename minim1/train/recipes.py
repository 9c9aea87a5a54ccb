"""What is trained on what, for how long: the settings of a whole run, by preset. All numbers here are ours."""

from dataclasses import dataclass, field, replace

from minim1.config import M1Config, preset
from minim1.errors import UserError
from minim1.train.settings import Mixture, OptimConfig, RLConfig, StageConfig

STAGES = ("pretrain", "sft", "rl")
FAMILIES = ("pair", "add", "sort", "recall")


@dataclass(frozen=True)
class Recipe:
    """A run: the model, its text, three stages, and how it is evaluated after each."""

    name: str
    model: M1Config
    corpus: str = "stdlib"
    seed: int = 0
    pretrain: StageConfig = field(default_factory=StageConfig)
    pretrain_mixture: Mixture = field(default_factory=Mixture)
    sft: StageConfig = field(default_factory=StageConfig)
    sft_mixture: Mixture = field(default_factory=Mixture)
    rl: RLConfig = field(default_factory=RLConfig)
    policy_loss: str = "cispo"
    eval_problems: int = 512
    eval_windows: int = 512
    sample_every: int = 100  # steps of pretraining and SFT between printed samples; RL: a tenth of it


def nano(seed: int = 0) -> Recipe:
    """Ten minutes on two CPU cores."""
    return Recipe(
        name="nano", model=preset("nano"), seed=seed,
        pretrain=StageConfig(steps=800, optim=OptimConfig(learning_rate=3e-3), seed=seed),
        pretrain_mixture=Mixture(6, {"pair": 40, "add": 18, "sort": 6, "recall": 16}, 256),
        sft=StageConfig(steps=280, optim=OptimConfig(learning_rate=1.5e-3), seed=seed),
        sft_mixture=Mixture(2, {"pair": 64, "add": 20, "sort": 10, "recall": 16}, 256),
        rl=RLConfig(steps=32, seed=seed),
    )


def small(seed: int = 0) -> Recipe:
    """One GPU of 8 GB or more, in bf16; planned for at most half an hour, not yet run on a GPU."""
    bf16 = {"autocast": "bfloat16"}
    return Recipe(
        name="small", model=preset("small"), seed=seed,
        pretrain=StageConfig(steps=3000, optim=OptimConfig(learning_rate=1e-3, **bf16), micro_rows=32, seed=seed),
        pretrain_mixture=Mixture(24, {"pair": 56, "add": 40, "sort": 24, "recall": 24}, 256),
        sft=StageConfig(steps=500, optim=OptimConfig(learning_rate=5e-4, **bf16), micro_rows=32, seed=seed),
        sft_mixture=Mixture(4, {"pair": 96, "add": 48, "sort": 24, "recall": 48}, 256),
        rl=RLConfig(
            steps=60, seed=seed, prompts_per_rollout=64,
            optim=OptimConfig(learning_rate=3e-5, weight_decay=0.0, decay=1.0, **bf16),
        ),
    )


def smoke(seed: int = 0) -> Recipe:
    """Seconds: `nano` cut short, to see every part move; it learns next to nothing."""
    full = nano(seed)
    tiny = M1Config(hidden_size=32, intermediate_size=32, num_attention_heads=4, head_dim=8)
    return replace(
        full, name="smoke", model=tiny, eval_problems=8, eval_windows=8, sample_every=10,
        pretrain=replace(full.pretrain, steps=6, save_every=3, log_every=1),
        pretrain_mixture=Mixture(2, {"pair": 4, "add": 2, "sort": 2, "recall": 2}, 128),
        sft=replace(full.sft, steps=4, save_every=2, log_every=1),
        sft_mixture=Mixture(1, {"pair": 4, "add": 2, "sort": 2, "recall": 2}, 128),
        rl=replace(full.rl, steps=2, prompts_per_rollout=4, samples_per_prompt=4, updates_per_rollout=2, save_every=1),
    )


RECIPES = {"nano": nano, "small": small, "smoke": smoke}


def recipe(name: str, seed: int = 0) -> Recipe:
    """The recipe of a preset; `UserError` lists the names."""
    if name not in RECIPES:
        raise UserError(f"no recipe for preset {name!r}; choose one of {', '.join(RECIPES)}")
    return RECIPES[name](seed)
