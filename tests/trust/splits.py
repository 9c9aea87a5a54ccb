"""What the processes of `test_splits` compute: one gradient, by every way of splitting its rows; run by torchrun.

    torchrun --nproc_per_node 2 tests/trust/splits.py FOLDER
"""

import os
import sys
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from minim1 import workers
from minim1.config import M1Config
from minim1.data.packing import Batch
from minim1.model.decoder import MiniM1
from minim1.train.checkpoint import RunFolder
from minim1.train.loop import Trainer
from minim1.train.losses import cispo_loss, next_token_loss, token_logprobs
from minim1.train.rl import Experience, RLTrainer
from minim1.train.settings import OptimConfig, RLConfig, StageConfig
from minim1.workers import Workers

ROWS, TIME, VOCAB = 7, 24, 60
MICRO_ROWS = (1, 2, 3, ROWS)
OPTIM = OptimConfig(clip=1e9)  # the gradient itself is compared


def model(**fields) -> MiniM1:
    """The balance loss is off: it is a product of means, and one over fewer rows is another loss."""
    sizes = dict(
        vocab_size=VOCAB, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, head_dim=8,
        num_key_value_heads=1, attn_type_list=(0, 1), num_local_experts=3, block_size=8, router_aux_loss_coef=0.0,
    )
    return MiniM1(M1Config(**sizes | fields), seed=1)


def batch() -> Batch:
    """Rows of very different lengths, and one without any target."""
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(3, VOCAB, (ROWS, TIME), generator=generator)
    lengths = torch.tensor([TIME, 3, 17, 8, TIME, 5, 11]).unsqueeze(1)
    real = torch.arange(TIME) < lengths
    targets = real & (torch.rand(ROWS, TIME, generator=generator) < 0.7)
    targets[:, 0] = targets[2] = False
    positions = torch.arange(TIME).expand(ROWS, TIME)
    return Batch(ids, targets, torch.where(real, 0, -1), torch.where(real, positions, 0))


def experience() -> Experience:
    """The same rows as sampled answers, from a policy that is somewhat older."""
    rows, generator = batch(), torch.Generator().manual_seed(6)
    old = token_logprobs(model()(rows.input_ids, document_ids=rows.document_ids).logits, rows.input_ids).detach()
    old = (old + 0.3 * torch.randn(old.shape, generator=generator)) * rows.mask
    advantages = torch.randn(ROWS, 1, generator=generator).expand(ROWS, TIME)
    return Experience(rows.input_ids, rows.document_ids, old, advantages, rows.mask)


def reading(shared: Workers, micro_rows: int) -> torch.Tensor:
    """The gradient of the language-model loss, flat, as `Trainer` sums it."""
    trainer = Trainer(model(), lambda step: batch(), StageConfig(optim=OPTIM, micro_rows=micro_rows), workers=shared)
    trainer.advance(0)
    return trainer.optimizer.gradient


def reinforcement(shared: Workers, micro_rows: int) -> torch.Tensor:
    """The gradient of CISPO, flat, as `RLTrainer` sums it over each worker's rollouts."""
    config = RLConfig(optim=OPTIM, updates_per_rollout=1, micro_rows=micro_rows, prompts_per_rollout=shared.size)
    trainer = RLTrainer(model(), None, config, workers=shared)
    trainer._learn(0, experience().rows(torch.arange(ROWS)[shared.rank :: shared.size]))
    return trainer.optimizer.gradient


def sharded(net: MiniM1, size: int) -> MiniM1:
    """PyTorch's FSDP2: each process keeps a part of every parameter."""
    mesh = init_device_mesh("cpu", (size,))
    for layer in net.model.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(net, mesh=mesh)


def by_torch(shared: Workers, kind: str, engine: str) -> torch.Tensor:
    """The same gradients by PyTorch's own engines, DDP and FSDP2, which average where sums are asked for."""
    net = model()
    rows, wrapped = batch(), DistributedDataParallel(net) if engine == "DDP" else sharded(net, shared.size)
    mine = slice(shared.rank, None, shared.size)
    part = rows.slice(mine)
    logits = wrapped(part.input_ids, document_ids=part.document_ids).logits
    if kind == "reading":
        loss = next_token_loss(logits, part.input_ids, part.mask, total_tokens=rows.num_targets).loss
    else:
        drawn = experience().rows(torch.arange(ROWS)[mine])
        width = drawn.mask.shape[1]
        logprobs = token_logprobs(logits, part.input_ids)[:, :width]
        loss = cispo_loss(logprobs, drawn.old_logprobs, drawn.advantages, drawn.mask, total_tokens=rows.num_targets,
                          total_sequences=ROWS).loss
    (shared.size * loss).backward()
    gradients = (p.grad.full_tensor() if engine == "FSDP2" else p.grad for p in net.parameters())
    return torch.cat([gradient.flatten() for gradient in gradients])


def every_way(shared: Workers) -> dict[str, torch.Tensor]:
    """Name of a split -> gradient."""
    found = {}
    for kind, gradient in (("reading", reading), ("reinforcement", reinforcement)):
        for micro_rows in MICRO_ROWS:
            found[f"{kind}, {micro_rows} rows at once"] = gradient(shared, micro_rows).clone()
        if shared.size > 1:
            found |= {f"{kind}, {engine}": by_torch(shared, kind, engine) for engine in ("DDP", "FSDP2")}
    return found


class EnoughError(Exception):
    """The processes end here, after a save."""


def go_on(folder: Path, until: int, shared: Workers) -> None:
    """A run of nine steps that is saved after every third, from its last save up to the save of step `until`."""
    def stop(step, model, write):
        if step > until:
            raise EnoughError

    config = StageConfig(steps=9, micro_rows=2, save_every=3, log_every=1)
    trainer = Trainer(
        model(), lambda step: batch(), config, run=RunFolder(folder), workers=shared, quiet=True, after_step=stop)
    with suppress(EnoughError):
        trainer.fit()


if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    with workers.join(workers.launched(os.environ), "cpu") as shared:
        found = every_way(shared)
        go_on(out / "run", 6, shared)
        if shared.main:
            save_file(found, out / f"{shared.size}.safetensors")
