"""Real text without a download: the interpreter's own standard library, or any folder of text."""

import hashlib
import json
import platform
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

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
            documents.append((name, path.read_bytes().decode("utf-8")))
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
    as binary and are skipped (``info["skipped"]``).

    Held out by hash: of the relative path, or of a line's text; each split has at least one
    document. Raises `UserError` for a missing path, nothing but empty or binary files, bytes that
    are not UTF-8 (file and offset named), a bad JSON line, and less than two documents.
    """
    root = Path(path)
    if not 0 < heldout_share < 1:
        raise UserError(f"heldout_share is {heldout_share}, but must lie between 0 and 1; 0.05 is usual.")
    if not root.exists():
        raise UserError(f"The text folder {root} does not exist; check the path.")
    base = root.parent if root.is_file() else root
    files = [root] if root.is_file() else [p for p in root.rglob("*") if p.is_file()]
    names = sorted(p.relative_to(base).as_posix() for p in files)
    if root.is_dir():
        names = [n for n in names if not any(part.startswith(".") for part in n.split("/"))]
    documents, keys, skipped = [], [], 0
    for name in names:
        file = base / name
        try:
            data = file.read_bytes()
        except OSError as error:
            raise UserError(f"{file} cannot be read ({error.strerror}); make it readable or remove it.") from error
        if b"\0" in data:
            skipped += 1
            continue
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{file} is not UTF-8 at byte {error.start} (0x{data[error.start]:02x}); convert it to UTF-8 "
                "or remove it."
            ) from None
        if name.lower().endswith(".jsonl"):
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
