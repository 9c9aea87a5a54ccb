"""Put a trained run into the package as the model that `load("shipped")` and `minim1 chat` use; for maintainers.

    python -c "from minim1.report.ship import ship; ship('runs/nano')"
    python -c "from minim1.report.ship import ship_stage; ship_stage('runs/nano', 'sft')"     # load("shipped/sft")
"""

import json
import shutil
from pathlib import Path

import torch

from minim1.errors import UserError
from minim1.report.card import report_card
from minim1.train.checkpoint import RunFolder, load, save_model
from minim1.train.files import SHIPPED, write_json
from minim1.train.recipes import STAGES

LIMIT = 5_000_000  # bytes


def ship(run: str | Path, target: Path = SHIPPED) -> int:
    """Write the RL model in bf16 (routers fp32, as M1's own checkpoint), tokenizer, settings, card and whole log.

    Returns the bytes written. Raises: UserError above 5 MB.
    """
    run = Path(run)
    target.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "run.json"):
        shutil.copyfile(run / "rl" / name, target / name)
    save_model(load(run / "rl").model, target, dtype=torch.bfloat16)
    write_json(target / "report.json", report_card(run))
    with open(target / "metrics.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(r) + "\n" for stage in STAGES for r in RunFolder(run / stage).metrics())
    return _size(target)


def ship_stage(run: str | Path, stage: str, target: Path | None = None) -> int:
    """Write the model as it is after an earlier stage, from which chapters fine-tune; in bf16, without its log.

    Returns the bytes written. Raises: UserError above 5 MB.
    """
    run, target = Path(run), target or SHIPPED / stage
    target.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "run.json", "eval.json"):
        shutil.copyfile(run / stage / name, target / name)
    save_model(load(run / stage).model, target, dtype=torch.bfloat16)
    return _size(target)


def _size(target: Path) -> int:
    size = sum(path.stat().st_size for path in target.iterdir() if path.is_file())
    if size > LIMIT:
        raise UserError(f"the shipped model has {size} bytes; it must stay below {LIMIT}, ship a smaller one")
    return size
