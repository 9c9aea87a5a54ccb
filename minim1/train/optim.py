"""One optimiser step, shared by pretraining, SFT and RL: sum gradients, check, clip, AdamW."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from minim1.errors import UserError
from minim1.train.settings import OptimConfig
from minim1.workers import Workers


class Diverged(UserError):
    """NaN or Inf in a loss or gradient: the step was not taken."""


class Optimizer:
    """AdamW over one flat gradient buffer, so that workers exchange one tensor and clipping is one operation."""

    def __init__(self, model, config: OptimConfig, total_steps: int, *, schedule: Callable, workers=Workers()) -> None:
        self.model, self.config, self.total_steps = model, config, total_steps
        self.schedule, self.workers = schedule, workers
        self.named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        parameters = [p for _, p in self.named]
        self.gradient = torch.zeros(sum(p.numel() for p in parameters), device=parameters[0].device)
        for p, view in zip(parameters, self.gradient.split([p.numel() for p in parameters])):
            p.grad = view.view_as(p)
        decayed = [p for p in parameters if p.ndim > 1]
        plain = [p for p in parameters if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.adamw = torch.optim.AdamW(
            groups, lr=config.learning_rate, betas=config.betas, eps=config.eps, fused=True
        )

    def step(self, number: int, micro_batches: Iterable, loss: Callable) -> dict[str, float]:
        """Take optimiser step `number` (from 0) on the summed gradient of `loss(micro_batch) -> LossOutput`.

        Returns metrics summed (`*_max`: maximised) over micro-batches and workers, with `grad_norm` and `lr`.
        Raises `Diverged`, before any weight changes, when the loss or gradient is not finite.
        """
        self.gradient.zero_()
        sums: dict[str, Tensor] = {}
        for micro_batch in micro_batches:
            with self.autocast():
                output = loss(micro_batch)
            output.loss.backward()
            for name, value in output.metrics.items():
                join = torch.maximum if name.endswith("_max") else torch.add
                sums[name] = join(sums[name], value.float()) if name in sums else value.float()
        metrics = self._reduce(sums)
        self.workers.sum(self.gradient)
        norm = float(self.gradient.norm())
        if not math.isfinite(norm) or not all(math.isfinite(value) for value in metrics.values()):
            raise Diverged(
                f"step {number}: the loss or gradient is not finite (gradient norm {norm}, "
                f"loss {metrics.get('loss', float('nan')):.4g}); this step was not taken, "
                "the last saved state is intact: resume from it with a smaller learning rate"
            )
        if norm > self.config.clip:
            self.gradient.mul_(self.config.clip / (norm + 1e-6))
        rate = self.config.learning_rate * self.schedule(
            number, self.total_steps, warmup=self.config.warmup, decay=self.config.decay, final=self.config.final
        )
        for group in self.adamw.param_groups:
            group["lr"] = rate
        self.adamw.step()
        return {**metrics, "grad_norm": norm, "lr": rate}

    def autocast(self):
        """The context in which the model runs, in training and in rollouts alike."""
        device = self.gradient.device.type
        dtype = getattr(torch, self.config.autocast or "bfloat16")
        return torch.autocast(device, dtype=dtype, enabled=self.config.autocast is not None)

    def _reduce(self, sums: dict[str, Tensor]) -> dict[str, float]:
        """Metrics over all workers; a worker without any micro-batch takes part with what the others have."""
        names = sorted(set().union(*self.workers.gather(list(sums))))
        largest = [name for name in names if name.endswith("_max")]
        added = [name for name in names if name not in largest]
        zero = torch.zeros((), device=self.gradient.device)
        values = {}
        for group, reduce in ((added, self.workers.sum), (largest, self.workers.max)):
            if group:
                stacked = reduce(torch.stack([sums.get(name, zero) for name in group]))
                values.update(zip(group, stacked.tolist()))
        return values

    def state(self) -> dict[str, Tensor]:
        """Moments by parameter name: `exp_avg.NAME`, `exp_avg_sq.NAME`, and `adamw_step`."""
        tensors = {}
        for name, p in self.named:
            for key, value in self.adamw.state.get(p, {}).items():
                if key == "step":
                    tensors["adamw_step"] = value.reshape(1).clone()
                else:
                    tensors[f"{key}.{name}"] = value
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Undo `state`. Raises KeyError for a missing tensor."""
        if not tensors:
            return
        for name, p in self.named:
            self.adamw.state[p] = {
                "step": tensors["adamw_step"].reshape(()).clone(),
                **{key: tensors[f"{key}.{name}"].to(p.device).clone() for key in ("exp_avg", "exp_avg_sq")},
            }
