"""Run folders: weights, state to resume from, tokenizer, config, settings and metrics, each written whole or not at all.

    config.json  model.safetensors  tokenizer.json     the model, for `load` and for export
    state.safetensors                                  weights, optimiser and step: one file, one rename, one truth
    previous.safetensors                               the save before it, should that one be damaged
    run.json  metrics.jsonl                            settings and versions; one JSON object per logged step

Files are written under a temporary name, flushed, then renamed. The safetensors files carry a sha256 of all that they
hold, the model's also of the config and tokenizer beside it: what was cut short or changed is never loaded. Nothing is
ever pickled.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import sys
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import torch
from filelock import AcquireReturnProxy, FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minim1.config import FORMAT, M1Config
from minim1.data.tokenizer import Tokenizer
from minim1.errors import UserError
from minim1.model.decoder import MiniM1
from minim1.model.parts import ModelParts
from minim1.train.files import SHIPPED, find_run, make_folder, read_json, write_json, write_whole  # noqa: F401

COMPANIONS = ("config.json", "tokenizer.json")
_EXPERTS = ".block_sparse_moe.experts."
_EXPERT = re.compile(rf"(.*){re.escape(_EXPERTS)}(\d{{1,5}})\.(\w+)\.weight")


class Loaded(NamedTuple):
    """A run folder read back."""

    model: MiniM1
    tokenizer: Tokenizer
    run: dict  # run.json: settings, versions, stage


def seal(tensors: dict[str, Tensor], note: dict) -> str:
    """The sha256 of names, dtypes, shapes and bytes of tensors, and of a note (JSON) without its own `sha256`."""
    said = {name: value for name, value in note.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"\0{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def write_tensors(path: Path, tensors: dict[str, Tensor], note: dict) -> None:
    """Write a safetensors file whole, with a note and its seal; the same tensors and note give the same bytes."""
    sealed = json.dumps({**note, "sha256": seal(tensors, note)}, sort_keys=True)

    def write(part: Path) -> None:
        save_file(tensors, part, metadata={"format": "pt", "minim1": sealed})  # transformers wants the first
        with open(part, "rb+") as file:  # the library leaves the order of the two to chance
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
            file.seek(8)
            file.write(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(size))

    write_whole(path, write)


def read_tensors(path: Path, *, sealed: bool = False) -> tuple[dict[str, Tensor], dict]:
    """Tensors and note of a safetensors file; the seal is checked where there is one; with `sealed` there must be.

    Raises: UserError when the file is missing, cut short, changed or something else.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; expected a run folder made by `minim1 train`") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path} is not a whole safetensors file ({error}); it is damaged or something else: "
            "use another checkpoint"
        ) from None
    try:
        note = json.loads(metadata.get("minim1", "{}"))
    except (ValueError, RecursionError):
        note = None
    if not isinstance(note, dict) or "sha256" in note and note["sha256"] != seal(tensors, note):
        raise UserError(f"{path} is damaged: it is not what its sha256 was made of; use another checkpoint")
    if sealed and "sha256" not in note:
        raise UserError(
            f"{path} carries no sha256 of its own; it is damaged or was not written by minim1: use another checkpoint, or "
            "bring this one in by `minim1 import`"
        )
    return tensors, note


def _json_sha256(path: Path) -> str:
    """Of what a JSON file says: line ends and indentation do not count."""
    return hashlib.sha256(json.dumps(read_json(path), sort_keys=True).encode()).hexdigest()


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
        whole = sorted(parts) == list(range(len(parts))) and len({part.shape for part in parts.values()}) == 1
        if whole:  # else it is left out: the architecture is another
            joined[name] = torch.stack([parts[expert] for expert in sorted(parts)])
    return joined


def save_model(model: MiniM1, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write config.json and model.safetensors under M1's names; routers stay fp32 whatever `dtype` (as M1's).

    The model file vouches for the config, and for the tokenizer.json that is there.
    """
    tensors = {
        name: tensor.detach().cpu().to(torch.float32 if name.endswith(".gate.weight") else dtype).contiguous()
        for name, tensor in to_checkpoint(dict(model.named_parameters())).items()
    }
    write_whole(folder / "config.json", model.config.save)
    beside = {name: _json_sha256(folder / name) for name in COMPANIONS if (folder / name).exists()}
    write_tensors(folder / "model.safetensors", tensors, beside)


def read_model_file(folder: Path) -> dict[str, Tensor]:
    """The weights of a run folder under in-memory names.

    Raises: UserError for a damaged or foreign file, and when config or tokenizer beside it are not what they were.
    """
    path = folder / "model.safetensors"
    tensors, note = read_tensors(path, sealed=True)
    for name in COMPANIONS:
        if name in note and note[name] != _json_sha256(folder / name):
            raise UserError(
                f"{folder / name} was changed after {path.name} had been saved beside it; restore the file of this run"
            )
    return from_checkpoint(tensors)


def check_weights(model: MiniM1, tensors: dict[str, Tensor], source: Path) -> None:
    """Raise UserError unless names and shapes of tensors (in-memory names) are exactly the model's."""
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


def load_weights(model: MiniM1, tensors: dict[str, Tensor], source: Path) -> None:
    """Copy tensors (in-memory names) into the model; names and shapes must match exactly."""
    check_weights(model, tensors, source)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[name])


def load(path: str | Path = "shipped", *, parts: ModelParts = ModelParts(), device="cpu") -> Loaded:
    """Model (fp32), tokenizer and run.json of a run folder, of the last stage in it, or of a shipped model (`find_run`).

    Raises: UserError for a missing, damaged or foreign checkpoint.
    """
    folder = find_run(path)
    tensors = read_model_file(folder)
    config = M1Config.load(folder / "config.json")
    run = read_json(folder / "run.json") if (folder / "run.json").exists() else {}
    if run.get("format", FORMAT) != FORMAT:
        raise UserError(f"{folder} has format {run['format']!r}; this version of minim1 reads format {FORMAT}")
    with torch.device("meta"):  # a config may ask for more memory than there is
        check_weights(MiniM1(config), tensors, folder / "model.safetensors")
    model = MiniM1(config, parts)
    load_weights(model, tensors, folder / "model.safetensors")
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


def _standing(path: Path, note: dict) -> tuple[int, dict]:
    """(step, progress) in the note of a state file."""
    try:
        found, step, progress = note["format"], int(note["step"]), dict(note["progress"])
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} is damaged or was not written by minim1; start a new run in another folder") from None
    if found != FORMAT:
        raise UserError(f"{path} has format {found!r}; this version of minim1 reads format {FORMAT}")
    return step, progress


def _second_name(existing: Path, path: Path) -> None:
    """Another name for a file, or a copy where the file system has one name for each."""
    path.unlink(missing_ok=True)
    try:
        os.link(existing, path)
    except OSError:
        shutil.copyfile(existing, path)


class RunFolder:
    """One stage's folder: created once, saved to at any step, resumed exactly."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def lock(self) -> AcquireReturnProxy:
        """Hold it while writing here (`with run.lock():`); the system lets go of it when the process ends, however.

        Raises: UserError when another process holds it.
        """
        make_folder(self.path)
        try:
            return FileLock(self.path / ".lock").acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"another run is writing into {self.path} at this moment; wait for its end, or choose another folder with --out"
            ) from None

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
        found = self._newest()
        return None if found is None else found[2]

    def _newest(self) -> tuple[Path, dict[str, Tensor], int, dict] | None:
        """Path, tensors, step and progress of the newest save that is whole; None without any."""
        mistakes = []
        for name in ("state.safetensors", "previous.safetensors"):
            path = self.path / name
            if not path.exists():
                continue
            try:
                tensors, note = read_tensors(path, sealed=True)
                step, progress = _standing(path, note)
            except UserError as mistake:
                mistakes.append(mistake)
                continue
            if mistakes:
                print(f"minim1: {mistakes[0]}; the save before it is whole: step {step}", file=sys.stderr)
            return path, tensors, step, progress
        if mistakes:
            raise mistakes[0]
        return None

    def save(self, model: MiniM1, optimizer, step: int, progress: dict) -> None:
        """Save everything after `step` steps: first the state (the truth), then the model file."""
        tensors = {f"model.{name}": p.detach().cpu() for name, p in model.named_parameters()}
        tensors |= {f"optimizer.{name}": t.detach().cpu().contiguous() for name, t in optimizer.state().items()}
        note = {"format": FORMAT, "step": step, "progress": progress}
        self._keep_previous()
        write_tensors(self.path / "state.safetensors", tensors, note)
        save_model(model, self.path)

    def _keep_previous(self) -> None:
        """A second name for the last save, so that there is a whole one at every moment."""
        state = self.path / "state.safetensors"
        if state.exists():
            write_whole(self.path / "previous.safetensors", partial(_second_name, state))

    def resume(self, model: MiniM1, optimizer) -> tuple[int, dict]:
        """Put the newest whole save back into model and optimiser; returns (steps done, progress); (0, {}) without one."""
        found = self._newest()
        if found is None:
            return 0, {}
        path, tensors, step, progress = found
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

    def go_on_from(self, step: int, model: MiniM1) -> None:
        """Make the folder what it was after `step`, of which `model` was just resumed.

        Records of later steps, which will be done again, are dropped, half-written files too; the model file may be one
        save behind.
        """
        for part in self.path.glob(".*.part"):
            part.unlink()
        if step:
            save_model(model, self.path)
        kept = "".join(json.dumps(record) + "\n" for record in self.metrics() if record["step"] <= step)
        write_whole(self.path / "metrics.jsonl", lambda part: part.write_text(kept, encoding="utf-8"))
