"""Files that are written whole or not at all, and the folders in which runs are found. Nothing here needs torch."""

import errno
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError

from minim1.errors import UserError

SHIPPED = Path(__file__).parent.parent / "shipped"


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write(temporary)` and rename the result to `path`; on failure `path` is as it was."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        reason = "the disk is full; free some space" if full else str(error)
        raise UserError(f"could not write {path}: {reason}; what was saved before is intact") from error
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make renames in it last through a power cut, where the system can."""
    with suppress(OSError):  # Windows opens no folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


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
    except (ValueError, RecursionError) as error:  # also numbers of 5,000 digits, brackets without end
        raise UserError(f"{path} is not readable JSON ({error}); restore it or train again") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a {type(value).__name__}, not an object; restore it or train again")
    return value


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
