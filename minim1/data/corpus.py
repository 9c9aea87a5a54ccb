"""Real text without a download: the interpreter's own standard library, or any folder of text."""

import errno
import hashlib
import json
import os
import platform
import stat
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor

from minim1.data.tokenizer import Tokenizer
from minim1.errors import UserError

_LEFT_OUT = {  # folders: tests, generated tables and texts, installed packages
    "test", "tests", "idle_test", "encodings", "site-packages", "dist-packages", "__pycache__", "_bundled",
    "pydoc_data",
}  # fmt: skip


@dataclass(frozen=True)
class Corpus:
    """Texts to train on, texts held out, and `info`: where they come from and what they hash to.

    `info` has source, python, files, skipped, train_documents, heldout_documents, train_bytes,
    heldout_bytes, sha256 (over all names and contents) and licence.
    """

    train: list[str]
    heldout: list[str]
    info: dict


class TokenStream(NamedTuple):
    """Documents end to end: `ids` (N,) int32 tokens, `documents` (N,) int32 index of the document
    that each token belongs to."""

    ids: Tensor
    documents: Tensor


def load_corpus(spec: str) -> Corpus:
    """`stdlib_corpus()` for "stdlib", else `folder_corpus(spec)`."""
    return stdlib_corpus() if spec == "stdlib" else folder_corpus(spec)


def stdlib_corpus() -> Corpus:
    """The .py files of the running interpreter's standard library, without tests, encodings and
    installed packages; about 1 in 20 is held out, by the MD5 of its path.

    Files that are not UTF-8 are skipped. The text depends on the interpreter: never compare bits
    per byte across different ``info["sha256"]``. Raises `UserError` when there are no sources.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    documents, skipped = [], 0
    for path in sorted(root.rglob("*.py"), key=lambda p: p.relative_to(root).as_posix()):
        name = path.relative_to(root).as_posix()
        if _LEFT_OUT.intersection(name.split("/")[:-1]):
            continue
        try:
            documents.append((name, _read(path, binary=True).decode("utf-8")))
        except UnicodeDecodeError:
            skipped += 1
    if not documents:
        raise UserError(
            f"This Python has no standard-library sources in {root}; give a folder of text instead of stdlib."
        )
    splits = [int(hashlib.md5(name.encode()).hexdigest(), 16) % 20 == 0 for name, _ in documents]
    return _corpus(documents, splits, len(documents), skipped, "stdlib", "PSF-2.0 (the Python licence)")


def folder_corpus(path, heldout_share: float = 0.05) -> Corpus:
    """All UTF-8 text files below a folder, or one file. Each file is a document; of a .jsonl file
    each line is one, its ``"text"`` field. Hidden names are left out; files with NUL bytes count
    as binary and are skipped (``info["skipped"]``), but for .jsonl.

    Only what lies in the folder is read. A link to a file in it is read like a file; a link that leads out
    of it, or nowhere, is refused, since what it gives is not what was downloaded. Links to folders in it are
    left out (what they hold is read where it lies), and so are FIFOs, sockets and devices. A path that is
    itself a link is followed.

    Held out by hash: of the relative path, or of a line's text; each split has at least one
    document. Raises `UserError` for a missing path, such a link, a file or folder that cannot be read or
    changes meanwhile, nothing but empty or binary files, bytes that are not UTF-8 (file and offset named),
    a bad JSON line, and less than two documents.
    """
    root = Path(path)
    if not 0 < heldout_share < 1:
        raise UserError(f"heldout_share is {heldout_share}, but must lie between 0 and 1; 0.05 is usual.")
    if not os.path.exists(path):
        raise UserError(f"The text folder {str(path)!r} does not exist; check the path.")
    base = root.parent if root.is_file() else root
    names = [root.name] if root.is_file() else sorted(file.relative_to(root).as_posix() for file in _files(root))
    documents, keys, skipped = [], [], 0
    for name in names:
        file, lines = base / name, name.lower().endswith(".jsonl")
        data = _read(file, binary=lines)
        if data is None:
            skipped += 1
            continue
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{file} is not UTF-8 at byte {error.start} (0x{data[error.start]:02x}); convert it to UTF-8 "
                "or remove it."
            ) from None
        if lines:
            for number, line in enumerate(text.split("\n"), 1):
                if line.strip() and (document := _json_line(line, file, number)):
                    documents.append((f"{name}:{number}", document))
                    keys.append(document)
        elif text:
            documents.append((name, text))
            keys.append(name)
    if len(set(keys)) < 2:
        raise UserError(
            f"{root} has {len(names)} files ({skipped} binary) with {len(set(keys))} different documents of "
            "text, but one to train on and one to hold out are needed; add UTF-8 text."
        )
    hashes = [int(hashlib.md5(key.encode(errors="surrogateescape")).hexdigest(), 16) for key in keys]
    cut = min(max(int(heldout_share * 2**128), min(hashes) + 1), max(hashes))
    return _corpus(documents, [h < cut for h in hashes], len(names) - skipped, skipped, str(root), "the user's own")


def encode_corpus(texts, tokenizer: Tokenizer) -> TokenStream:
    """The tokens of all texts in order, each as ``<begin_of_document> text <end_of_document>``."""
    pieces, texts = [np.zeros(0, np.int32)], list(texts)
    for i in range(0, len(texts), 64):  # in parts: Python lists of ids take 10 times the room
        for ids in tokenizer.encode_batch(texts[i : i + 64]):
            pieces.append(np.array([tokenizer.bod_id, *ids, tokenizer.eod_id], np.int32))
    documents = np.repeat(np.arange(len(texts), dtype=np.int32), [len(piece) for piece in pieces[1:]])
    return TokenStream(torch.from_numpy(np.concatenate(pieces)), torch.from_numpy(documents))


def _files(root: Path) -> Iterator[Path]:
    """The files below a folder, by the rules of `folder_corpus`, in any order."""
    home = os.path.realpath(root)
    for folder, folders, files in os.walk(root, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(folder, name) for name in folders + files if not name.startswith(".")):
            if path.is_symlink():
                target = Path(os.path.realpath(path))
                if not (target.is_relative_to(home) and target.exists()):
                    where = "nowhere" if target.is_relative_to(home) else f"out of {root}, to {target}"
                    raise UserError(f"{path} is a link that leads {where}; put a copy in its place (cp -L) or remove it.")
            if path.is_file():
                yield path


def _read(file: Path, binary: bool = False) -> bytes | None:
    """The bytes of a file; None where there are NUL bytes among them, unless it may be `binary`."""
    try:
        before = file.stat()
        if not stat.S_ISREG(before.st_mode):  # it was one when the folder was listed; a FIFO would be waited for
            raise OSError(errno.EINVAL, "it is no file any more", file)
        with open(file, "rb") as opened:
            if not binary and b"\0" in opened.read(2**16):  # the rest may be long
                return None
            opened.seek(0)
            data = opened.read()
        after = file.stat()
    except OSError as error:
        _refuse(error)
    if (before.st_ino, before.st_size, before.st_mtime_ns) != (after.st_ino, after.st_size, after.st_mtime_ns):
        raise UserError(f"{file} changed while it was read; start again when nothing writes to it any more.")
    return data if binary or b"\0" not in data else None


def _refuse(error: OSError) -> NoReturn:
    raise UserError(f"{error.filename} cannot be read ({error.strerror}); make it readable or remove it.") from error


def _json_line(line: str, file: Path, number: int) -> str:
    try:
        text = json.loads(line)["text"]
        text.encode()  # no lone surrogates
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f'{file}, line {number}: this is not a JSON object with a "text" string '
            f"({type(error).__name__}: {error}); correct or remove the line."
        ) from None
    return text


def _corpus(documents, heldout, files: int, skipped: int, source: str, licence: str) -> Corpus:
    digest = hashlib.sha256()
    for name, text in documents:
        data = text.encode()
        digest.update(f"{name}\0{len(data)}\0".encode(errors="surrogateescape") + data)
    train = [text for (_, text), out in zip(documents, heldout) if not out]
    held = [text for (_, text), out in zip(documents, heldout) if out]
    return Corpus(train, held, {
        "source": source,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "files": files,
        "skipped": skipped,
        "train_documents": len(train),
        "heldout_documents": len(held),
        "train_bytes": sum(len(text.encode()) for text in train),
        "heldout_bytes": sum(len(text.encode()) for text in held),
        "sha256": digest.hexdigest(),
        "licence": licence,
    })  # fmt: skip
