"""How does an agent learn from reward? RL whose rollouts are conversations with tools."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from minim1.agent import Episodes, errand_dialogue, run_episodes
from minim1.generation import Sampling
from minim1.tasks.base import Problem
from minim1.train.rl import RLTrainer


class AgentTrainer(RLTrainer):
    """`RLTrainer` on errands (`RLConfig.families`, e.g. ("product",)): tools run inside the rollout.

    The reward judges the last turn and counts for every token that the model sampled, in all turns of the conversation;
    `max_new_tokens` is that of one turn. `max_steps`: turns at most; `declare`: show the tools' schemas to the model.
    """

    def __init__(self, *arguments, max_steps: int = 8, declare: bool = False, **shared) -> None:
        super().__init__(*arguments, **shared)
        self.max_steps, self.declare = max_steps, declare

    def _rollout(self, problems: Sequence[Problem], sampling: Sampling) -> Episodes:
        times = sampling.samples_per_prompt
        dialogues = [errand_dialogue(p, max_steps=self.max_steps) for p in problems for _ in range(times)]
        return run_episodes(
            self.model,
            self.tokenizer,
            dialogues,
            replace(sampling, samples_per_prompt=1),
            declare=self.declare,
            sampler=self.parts.sampler,
        )

    def _judge(self, problems: Sequence[Problem], rollout: Episodes) -> tuple[Tensor, dict[str, list[float]]]:
        """As for single turns; adds the shares of conversations with a call and of calls that could be run."""
        rewards, statistics = super()._judge(problems, rollout)
        results = [dialogue.results for dialogue in rollout.dialogues]
        statistics["length"] = rollout.mask.sum(1).double().tolist()
        statistics["call_share"] = [float(bool(found)) for found in results]
        statistics["valid_calls"] = [float(result.ok) for found in results for result in found]
        statistics["turns"] = [float(dialogue.steps) for dialogue in rollout.dialogues]
        return rewards, statistics
