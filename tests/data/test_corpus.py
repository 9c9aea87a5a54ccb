"""Corpora are deterministic, leave out what they should, and name what is wrong with a file."""

import hashlib
import json

import pytest
import torch

from minim1.data import corpus as corpus_module
from minim1.data.corpus import encode_corpus, folder_corpus, load_corpus, stdlib_corpus
from minim1.data.tokenizer import Tokenizer
from minim1.errors import UserError


@pytest.fixture
def write(tmp_path):
    """Write files: a dict of relative path -> str or bytes."""

    def write(files):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return tmp_path

    return write


MODULES = {f"pkg/m{i}.py": f"x = {i}\n" for i in range(60)}
EXCLUDED = ["test/a.py", "unittest/test/a.py", "json/tests/a.py", "idlelib/idle_test/a.py", "encodings/cp1.py",
            "site-packages/torch.py", "dist-packages/x.py", "__pycache__/c.py", "ensurepip/_bundled/p.py",
            "pydoc_data/topics.py", "notes.txt", "pkg/native.so"]  # fmt: skip


def test_stdlib_on_a_small_library(write, monkeypatch):
    files = {**MODULES, **dict.fromkeys(EXCLUDED, "wrong = 1\n"), "contest.py": "ok = 1\n", "latin.py": b"# \xe9\n"}
    root = write(files)
    monkeypatch.setattr(corpus_module.sysconfig, "get_paths", lambda: {"stdlib": str(root)})
    first = stdlib_corpus()
    names = sorted([*MODULES, "contest.py"])
    out = [n for n in names if int(hashlib.md5(n.encode()).hexdigest(), 16) % 20 == 0]
    assert 0 < len(out) < 10
    assert first.heldout == [files[n] for n in out]
    assert first.train == [files[n] for n in names if n not in out]
    assert first.info["files"] == 61 and first.info["skipped"] == 1
    assert first.info["train_bytes"] == sum(map(len, first.train))
    assert first.info["heldout_bytes"] == sum(map(len, first.heldout))
    assert "Python" in first.info["licence"] and first.info["python"].split()[1].count(".") == 2
    assert stdlib_corpus() == first
    (root / "contest.py").write_text("ok = 2\n")  # a content changes the hash
    changed = stdlib_corpus().info["sha256"]
    (root / "contest.py").rename(root / "content.py")  # a name too
    assert len({first.info["sha256"], changed, stdlib_corpus().info["sha256"]}) == 3


def test_stdlib_without_sources(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_module.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(UserError, match="no standard-library sources"):
        stdlib_corpus()


def test_the_real_standard_library():
    corpus = load_corpus("stdlib")
    assert corpus.info["train_bytes"] > 4e6 and corpus.info["heldout_bytes"] > 1e5
    assert corpus.info["train_documents"] == len(corpus.train) > 300


def test_folder_takes_text_of_any_kind(write):
    files = {f"sub/{i}.md": f"text {i} ü\n" for i in range(40)}
    root = write({**files, "image.png": b"\x89PNG\0\0", ".git/config": "hidden", "sub/.hidden": "hidden", "empty.txt": ""})
    corpus = folder_corpus(root, heldout_share=0.25)
    assert sorted(corpus.train + corpus.heldout) == sorted(files.values())
    assert 3 <= len(corpus.heldout) <= 20
    assert corpus.info["skipped"] == 1 and corpus.info["files"] == 41
    assert folder_corpus(root, heldout_share=0.25) == corpus == folder_corpus(str(root), 0.25)
    fewer = folder_corpus(root, heldout_share=0.1)
    assert set(fewer.heldout) < set(corpus.heldout)  # a document's split depends on its own hash


@pytest.mark.parametrize("share", [1e-9, 0.5, 1 - 1e-9])
def test_both_splits_have_a_document(write, share):
    corpus = folder_corpus(write({"a.txt": "one", "b.txt": "two"}), heldout_share=share)
    assert len(corpus.train) == len(corpus.heldout) == 1


def test_jsonl(write):
    texts = [f"line {i}\u2028\n" for i in range(30)]
    lines = [json.dumps({"text": text, "other": 1}, ensure_ascii=False) for text in texts]
    root = write({"data/all.jsonl": "\r\n".join(lines) + '\n\n{"text": ""}\n'})
    corpus = folder_corpus(root, heldout_share=0.3)
    assert sorted(corpus.train + corpus.heldout) == sorted(texts) and len(corpus.heldout) > 1
    assert load_corpus(str(root / "data" / "all.jsonl")).info["train_documents"] > 20
    # the split follows the text of the line, so equal lines stay together
    doubled = folder_corpus(write({"data/all.jsonl": "\n".join(lines * 2)}), heldout_share=0.3)
    assert set(doubled.heldout) == set(corpus.heldout) and not set(doubled.heldout) & set(doubled.train)


@pytest.mark.parametrize("files, message", [
    ({}, "0 files"),
    ({"a.bin": b"\0", "b.bin": b"x\0"}, r"2 files \(2 binary\)"),
    ({"only.txt": "text"}, "1 different documents"),
    ({"all.jsonl": '{"text": "same"}\n{"text": "same"}'}, "1 different documents"),
    ({"a.txt": "fine", "sub/b.txt": b"caf\xe9 au lait"}, r"b\.txt is not UTF-8 at byte 3 \(0xe9\)"),
    ({"a.jsonl": '{"text": "x"}\n\n{"text": '}, r"a\.jsonl, line 3"),
    ({"a.jsonl": '{"text": "x"}\n{"body": "x"}'}, r"a\.jsonl, line 2.*KeyError"),
    ({"a.jsonl": '{"text": 5}'}, r"a\.jsonl, line 1"),
    ({"a.jsonl": '["text"]'}, r"a\.jsonl, line 1"),
    ({"a.jsonl": r'{"text": "\ud800"}'}, r"a\.jsonl, line 1.*surrogate"),
])  # fmt: skip
def test_unusable_folders_get_one_sentence(write, files, message):
    with pytest.raises(UserError, match=message):
        folder_corpus(write(files))


def test_unusable_arguments(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_corpus(str(tmp_path / "nowhere"))
    for share in (0, 1, -0.1, float("nan")):
        with pytest.raises(UserError, match="between 0 and 1"):
            folder_corpus(tmp_path, heldout_share=share)


def test_encode_corpus():
    tokenizer = Tokenizer.train(["a b c"], 280)
    texts = ["a b", "", "ünï"] + [f"{i} <think>" for i in range(100)]
    stream = encode_corpus(iter(texts), tokenizer)
    assert stream.ids.dtype == stream.documents.dtype == torch.int32
    assert stream.documents.unique_consecutive().tolist() == list(range(103))
    for i, text in enumerate(texts):
        ids = stream.ids[stream.documents == i].tolist()
        assert (ids[0], ids[-1]) == (tokenizer.bod_id, tokenizer.eod_id)
        assert tokenizer.decode(ids[1:-1]) == text
    assert tokenizer.byte_lengths[stream.ids.long()].sum() == sum(len(text.encode()) for text in texts)
    assert encode_corpus([], tokenizer).ids.shape == (0,)
