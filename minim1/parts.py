"""Whose code is it? `Parts`: every function a learner can replace, with the package's own as defaults."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from minim1.data.packing import pack_documents
from minim1.generate import sample_token
from minim1.model.parts import ModelParts
from minim1.tasks import verifier_reward
from minim1.train.losses import cispo_loss, group_advantages, next_token_loss
from minim1.train.schedule import warmup_stable_decay


@dataclass(frozen=True)
class Parts(ModelParts):
    """The functions of model and training; the contract of each is the docstring of its default.

    >>> Parts(policy_loss=my_cispo)            # doctest: +SKIP
    """

    pack: Callable = pack_documents
    lm_loss: Callable = next_token_loss
    schedule: Callable = warmup_stable_decay
    sampler: Callable = sample_token
    advantages: Callable = group_advantages
    policy_loss: Callable = cispo_loss
    rewards: Sequence[Callable] = (verifier_reward,)
