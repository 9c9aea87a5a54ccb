"""Whose code is it? `Parts`: every function a learner can replace, with the package's own as defaults."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from minim1 import learner
from minim1.data.packing import pack_documents
from minim1.errors import UserError
from minim1.generation import sample_token
from minim1.model.parts import ModelParts
from minim1.tasks import verifier_reward
from minim1.train.losses import cispo_loss, group_advantages, next_token_loss
from minim1.train.schedule import warmup_stable_decay


@dataclass(frozen=True)
class Parts(ModelParts):
    """The functions of model and training; the contract of each is the docstring of its default.

    >>> Parts(policy_loss=my_cispo)            # doctest: +SKIP
    >>> Parts.from_learner("work/")            # doctest: +SKIP
    """

    pack: Callable = pack_documents
    lm_loss: Callable = next_token_loss
    schedule: Callable = warmup_stable_decay
    sampler: Callable = sample_token
    advantages: Callable = group_advantages
    policy_loss: Callable = cispo_loss
    rewards: Sequence[Callable] = (verifier_reward,)

    @classmethod
    def from_learner(cls, folder: str | Path = "work/") -> "Parts":
        """The parts that the notebooks in a folder define and no longer leave open; the others are the package's.

        A learner's function bears the part's name (`lightning`, `router`, ...); `reward` gives `rewards`.
        Raises: UserError for a folder that is not there, or a part whose cell cannot be read.
        """
        return cls(**{field: find_part(field, where) for field, where in learners_own(folder).items()})

    def describe(self) -> dict[str, str]:
        """Who wrote what: field -> "work/04_lightning_attention.ipynb, cell 12" or the module of the function."""
        parts = {field.name: [getattr(self, field.name)] for field in fields(self)} | {"rewards": self.rewards}
        return {name: ", ".join(map(learner.origin, functions)) for name, functions in parts.items()}


def learners_own(folder: str | Path = "work/", *, strict: bool = True) -> dict[str, str]:
    """Field of `Parts` -> "notebook:function", for the parts that the learner wrote; the first notebook counts.

    Raises: UserError for a folder that is not there; if strict, also for a part in a cell that does not parse, or that
        calls a function which is still a stub.
    """
    notebooks, found = learner.notebooks(folder), {}
    for field in fields(Parts):
        name = "reward" if field.name == "rewards" else field.name
        for notebook in notebooks:
            try:
                if field.name not in found and notebook.written(name):
                    found[field.name] = f"{notebook.path}:{name}"
                    _refuse_stubs(notebook, name)
            except UserError:
                if strict:
                    raise
    return found


def _refuse_stubs(notebook: learner.Notebook, name: str) -> None:
    if stubs := notebook.unwritten(name):
        raise UserError(f"your {name} ({notebook.where(name)}) calls {stubs[0]}, which is still to be written "
                        f"({notebook.where(stubs[0])}); write that first")


def find_part(field: str, where: str):
    """The value of a field of `Parts` from "module:function" or "notebook.ipynb:function".

    Raises: UserError for an unknown field, or a function that is not there.
    """
    if field not in {f.name for f in fields(Parts)}:
        raise UserError(f"unknown part {field!r}; choose one of {', '.join(f.name for f in fields(Parts))}")
    module, _, name = where.rpartition(":")
    if module.endswith(".ipynb"):
        found = learner.Notebook(module).function(name)
    else:
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError, TypeError) as error:
            raise UserError(f"part {field}={where!r} was not found ({error}); expected module:function") from None
    if not callable(found):
        raise UserError(f"part {field}={where!r} is a {type(found).__name__}; expected a function")
    return (found,) if field == "rewards" else found
