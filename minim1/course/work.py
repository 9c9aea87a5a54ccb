"""The learner's place: work/ holds their copies of exercises/, which no update ever touches.

`work/.copied.json` holds the hash of the exercise that each copy was made from, so that a newer one can be announced.
"""

import datetime
import hashlib
import json
import os
import shutil
from pathlib import Path

from minim1.errors import UserError
from minim1.learner import read_file

COPIED = ".copied.json"
MOST_BYTES = 4_000_000  # of a record


def prepare(folder: Path) -> list[str]:
    """Copy what is missing from exercises/ to work/, overwriting nothing; returns sentences for all that is to be said.

    Args: folder: the repository.
    Raises: UserError where there are no exercises.
    """
    copied, said = _copied(folder), []
    for source in _exercises(folder):
        own, now = folder / "work" / source.name, _hash(source)
        if not own.exists():
            _copy(source, folder)
            said.append(f"work/{own.name} is your copy of exercises/{own.name}.")
        elif copied.get(own.name, now) != now:
            chapter = own.name.split("_")[0]
            said.append(f"exercises/{own.name} has changed since your copy was made; go on with yours, or start from "
                        f"the new one with `python3 go.py lab --reset {chapter}`, which keeps yours beside it.")
    return said


def reset(folder: Path, chapter: str) -> str:
    """Put a fresh copy of a chapter's exercise into work/; the old one stays beside it under another name.

    Raises: UserError for a chapter that has no exercises.
    """
    sources = {source.name.split("_")[0]: source for source in _exercises(folder)}
    source = sources.get(Path(chapter).name.split("_")[0].zfill(2))
    if source is None:
        raise UserError(f"there are no exercises of chapter {chapter!r}; choose one of {', '.join(sources)}")
    own, kept = folder / "work" / source.name, "there was none before"
    if own.exists():
        old = _free_name(own)
        own.rename(old)
        kept = f"yours is now work/{old.name}; if it is open in JupyterLab, choose File, Reload Notebook from Disk"
    _copy(source, folder)
    return f"work/{own.name} is a fresh copy, and {kept}."


def lab(folder: Path, arguments: list[str]) -> None:
    """Open JupyterLab on the folder, by default with the first chapter; returns when it is shut down."""
    try:
        from jupyterlab.labapp import main
    except ImportError:
        raise UserError("JupyterLab is not installed for this Python; start it with `python3 go.py lab`") from None
    os.chdir(folder)
    first = next(iter(sorted(folder.glob("chapters/*.ipynb"))), None)
    if not arguments and first:
        arguments = [f"--LabApp.default_url=/lab/tree/chapters/{first.name}"]
    main(argv=arguments)


def _exercises(folder: Path) -> list[Path]:
    found = sorted((folder / "exercises").glob("*.ipynb"))
    if not found:
        raise UserError(f"{folder / 'exercises'} holds no notebooks; get the course's repository and start go.py there")
    return found


def _copy(source: Path, folder: Path) -> None:
    """Copy an exercise to where none is, whole or not at all, and remember which it was."""
    work = folder / "work"
    new = work / f".{source.name}.new"
    try:
        work.mkdir(exist_ok=True)
        new.unlink(missing_ok=True)  # a link there would be written through
        shutil.copyfile(source, new)
        new.rename(work / source.name)
        write_json(work / COPIED, _copied(folder) | {source.name: _hash(source)})
    except OSError as error:
        raise UserError(f"work/{source.name} could not be written ({error.strerror}); make room for it, and a folder "
                        "work/ that you may write to") from None


def _copied(folder: Path) -> dict[str, str]:
    found = read_json(folder / "work" / COPIED)
    return {name: value for name, value in found.items() if isinstance(value, str)}


def _free_name(path: Path) -> Path:
    """ "04_x.2026-11-21-1.ipynb": the dot keeps it out of what counts as the learner's notebooks."""
    number, today = 1, datetime.date.today().isoformat()
    while (free := path.with_name(f"{path.stem}.{today}-{number}.ipynb")).exists():
        number += 1
    return free


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_json(path: Path) -> dict:
    """What `write_json` wrote; {} where there is nothing, or nothing that can be read."""
    try:
        found = json.loads(read_file(path, MOST_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: Path, value: dict) -> None:
    """Write whole or not at all."""
    new, text = path.with_name(f"{path.name}.new"), json.dumps(value, indent=1) + "\n"
    new.unlink(missing_ok=True)  # a link there would be written through
    new.write_text(text, encoding="utf-8")
    new.replace(path)
