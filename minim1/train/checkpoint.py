"""Run folders: weights, state to resume from, tokenizer, config, settings and metrics, each written whole or not at all.

    config.json  model.safetensors  tokenizer.json     the model, for `load` and for export
    state.safetensors                                  weights, optimiser and step: one file, one rename, one truth
    run.json  metrics.jsonl                            settings and versions; one JSON object per logged step

Files are written under a temporary name, flushed, then renamed. Nothing is ever pickled.
"""

import errno
import json
import os
import platform
import re
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minim1.config import FORMAT, M1Config
from minim1.data.tokenizer import Tokenizer
from minim1.errors import UserError
from minim1.model.decoder import MiniM1
from minim1.model.parts import ModelParts

SHIPPED = Path(__file__).parent.parent / "shipped"
_EXPERTS = ".block_sparse_moe.experts."
_EXPERT = re.compile(rf"(.*){re.escape(_EXPERTS)}(\d+)\.(\w+)\.weight")


class Loaded(NamedTuple):
    """A run folder read back."""

    model: MiniM1
    tokenizer: Tokenizer
    run: dict  # run.json: settings, versions, stage


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write(temporary)` and rename the result to `path`; on failure `path` is as it was."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        reason = "the disk is full; free some space" if full else str(error)
        raise UserError(f"could not write {path}: {reason}; what was saved before is intact") from error
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the run folder {path} ({error}); choose another with --out") from None


def write_json(path: Path, value) -> None:
    text = json.dumps(value, indent=2) + "\n"
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> dict:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; expected a run folder made by `minim1 train`") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable JSON ({error}); restore it or train again") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a {type(value).__name__}, not an object; restore it or train again")
    return value


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file; `UserError` when it is missing, cut short or something else."""
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; expected a run folder made by `minim1 train`") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path} is not a whole safetensors file ({error}); it is damaged or something else: "
            "use another checkpoint"
        ) from None


def to_checkpoint(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """In-memory names to M1's: stacked experts (E, ...) are split, `experts.w1` -> `experts.0.w1.weight`, ..."""
    split = {}
    for name, tensor in tensors.items():
        prefix, found, matrix = name.partition(_EXPERTS)
        if found:
            for expert, part in enumerate(tensor.unbind()):
                split[f"{prefix}{_EXPERTS}{expert}.{matrix}.weight"] = part.contiguous()
        else:
            split[name] = tensor
    return split


def from_checkpoint(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Undo `to_checkpoint`."""
    joined, experts = {}, {}
    for name, tensor in tensors.items():
        if found := _EXPERT.fullmatch(name):
            experts.setdefault(f"{found[1]}{_EXPERTS}{found[3]}", {})[int(found[2])] = tensor
        else:
            joined[name] = tensor
    for name, parts in experts.items():
        if len({part.shape for part in parts.values()}) == 1:  # else it is left out: the architecture is another
            joined[name] = torch.stack([parts[expert] for expert in sorted(parts)])
    return joined


def save_model(model: MiniM1, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write config.json and model.safetensors under M1's names; routers stay fp32 whatever `dtype` (as M1's)."""
    tensors = {
        name: tensor.detach().cpu().to(torch.float32 if name.endswith("gate.weight") else dtype).contiguous()
        for name, tensor in to_checkpoint(dict(model.named_parameters())).items()
    }
    write_whole(folder / "model.safetensors", lambda part: save_file(tensors, part, metadata={"format": "pt"}))
    write_whole(folder / "config.json", model.config.save)


def load_weights(model: MiniM1, tensors: dict[str, Tensor], source: Path) -> None:
    """Copy tensors (in-memory names) into the model; names and shapes must match exactly."""
    parameters = dict(model.named_parameters())
    for name in sorted(set(parameters) ^ set(tensors)):
        what = "lacks" if name in parameters else "has an unknown tensor"
        raise UserError(f"{source} {what} {name}; it belongs to another architecture than its config.json")
    for name, parameter in parameters.items():
        if tensors[name].shape != parameter.shape:
            raise UserError(
                f"{source}: {name} has shape {tuple(tensors[name].shape)}, "
                f"config.json asks for {tuple(parameter.shape)}; use the config of this checkpoint"
            )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def find_run(path: str | Path) -> Path:
    """The run folder meant by a path: itself, the last stage inside it (rl, sft, pretrain), or one in the package.

    In the package are "shipped", the model after RL, and what it looks like earlier: "shipped/sft", "shipped/pretrain".
    """
    folder = SHIPPED.parent / path if Path(path).parts[:1] == ("shipped",) else Path(path)
    if not folder.is_dir():
        raise UserError(f"{path} is not a folder; give a run folder, or 'shipped' for the model in the package")
    for candidate in (folder, *(folder / stage for stage in ("rl", "sft", "pretrain"))):
        if (candidate / "model.safetensors").exists():
            return candidate
    raise UserError(f"{path} holds no model.safetensors; give a run folder made by `minim1 train`, or 'shipped'")


def load(path: str | Path = "shipped", *, parts: ModelParts = ModelParts(), device="cpu") -> Loaded:
    """Model (fp32), tokenizer and run.json of a run folder, of the last stage in it, or of a shipped model (`find_run`).

    Raises: UserError for a missing, damaged or foreign checkpoint.
    """
    folder = find_run(path)
    config = M1Config.load(folder / "config.json")
    run = read_json(folder / "run.json") if (folder / "run.json").exists() else {}
    if run.get("format", FORMAT) != FORMAT:
        raise UserError(f"{folder} has format {run['format']!r}; this version of minim1 reads format {FORMAT}")
    model = MiniM1(config, parts)
    tensors, _ = read_tensors(folder / "model.safetensors")
    load_weights(model, from_checkpoint(tensors), folder / "model.safetensors")
    tokenizer = Tokenizer.from_file(folder / "tokenizer.json")
    if tokenizer.vocab_size != config.vocab_size:
        raise UserError(
            f"{folder / 'tokenizer.json'} has {tokenizer.vocab_size} tokens, the model beside it {config.vocab_size}; "
            "restore the tokenizer of this run"
        )
    return Loaded(model.to(device), tokenizer, run)


def versions() -> dict[str, str]:
    """What a result depends on besides the seed."""
    return {
        "minim1": metadata.version("minim1") if _installed("minim1") else "source",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def _installed(name: str) -> bool:
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False


def _note(path: Path, metadata: dict[str, str]) -> tuple[int, dict]:
    """(step, progress) in the metadata of a state file."""
    try:
        note = json.loads(metadata["minim1"])
        found, step, progress = note["format"], int(note["step"]), dict(note["progress"])
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} is damaged or was not written by minim1; start a new run in another folder") from None
    if found != FORMAT:
        raise UserError(f"{path} has format {found!r}; this version of minim1 reads format {FORMAT}")
    return step, progress


class RunFolder:
    """One stage's folder: created once, saved to at any step, resumed exactly."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def create(self, settings: dict, tokenizer: Tokenizer) -> None:
        """Start a run here: settings and versions to run.json, the tokenizer beside it, an empty metrics.jsonl."""
        make_folder(self.path)
        write_whole(self.path / "tokenizer.json", tokenizer.save)
        write_whole(self.path / "metrics.jsonl", lambda part: part.write_text("", encoding="utf-8"))
        write_json(self.path / "run.json", {"format": FORMAT, **settings, "versions": versions()})

    @property
    def settings(self) -> dict:
        return read_json(self.path / "run.json")

    def saved_step(self) -> int | None:
        """Steps done at the last save, or None."""
        path = self.path / "state.safetensors"
        if not path.exists():
            return None
        return _note(path, read_tensors(path)[1])[0]

    def save(self, model: MiniM1, optimizer, step: int, progress: dict) -> None:
        """Save everything after `step` steps: first the state (the truth), then the model file."""
        tensors = {f"model.{name}": p.detach().cpu() for name, p in model.named_parameters()}
        tensors |= {f"optimizer.{name}": t.detach().cpu().contiguous() for name, t in optimizer.state().items()}
        note = {"minim1": json.dumps({"format": FORMAT, "step": step, "progress": progress})}
        write_whole(self.path / "state.safetensors", lambda part: save_file(tensors, part, metadata=note))
        save_model(model, self.path)

    def resume(self, model: MiniM1, optimizer) -> tuple[int, dict]:
        """Put the last save back into model and optimiser; returns (steps done, progress); (0, {}) without one."""
        path = self.path / "state.safetensors"
        if not path.exists():
            return 0, {}
        tensors, metadata = read_tensors(path)
        step, progress = _note(path, metadata)
        pick = lambda prefix: {  # noqa: E731
            name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)
        }
        load_weights(model, pick("model."), path)
        try:
            optimizer.load_state(pick("optimizer."))
        except KeyError as missing:
            raise UserError(f"{path} lacks {missing} of the optimiser; it is damaged: start a new run") from None
        return step, progress

    def log(self, record: dict) -> None:
        """Append one line to metrics.jsonl."""
        try:
            with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise UserError(f"could not write {self.path / 'metrics.jsonl'}: {error}; free some space") from None

    def metrics(self) -> list[dict]:
        """All logged records; a half-written last line is left out."""
        path = self.path / "metrics.jsonl"
        records = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return records

    def forget_after(self, step: int) -> None:
        """Drop the records of later steps, which will be done again."""
        kept = "".join(json.dumps(record) + "\n" for record in self.metrics() if record["step"] <= step)
        write_whole(self.path / "metrics.jsonl", lambda part: part.write_text(kept, encoding="utf-8"))
