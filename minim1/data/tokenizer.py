"""Text and token ids: a byte-level BPE that is lossless on any UTF-8 string.

Report: MiniMax-01 §4.1.2 (byte-level BPE with a pre-tokenizer). Ids run in this order:

1. *control tokens*, one for each whole marker of M1's chat template, newline included. Only the
   template and the model emit them: text that merely spells a marker stays ordinary text. (M1
   itself writes some of these markers, such as ``<think>``, as plain text.)
2. *task symbols*, such as ``⟨3⟩``: readable text that anyone may type, one token each.
3. the 256 bytes, then the merges. Each digit is a token of its own.
"""

import json
import re
from itertools import groupby
from pathlib import Path

import torch
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Library

from minim1.errors import UserError

_HEADER = "<beginning_of_sentence>"
CONTROL = (  # the order is the ids
    "<pad>", "<begin_of_document>", "<end_of_document>",
    f"{_HEADER}system ai_setting=MiniMax AI\n", f"{_HEADER}system tool_setting=tools\n",
    f"{_HEADER}user name=user\n", f"{_HEADER}ai name=MiniMax AI\n", f"{_HEADER}tool name=tools\n",
    "<end_of_sentence>\n", "<think>\n", "\n</think>\n",
    "<tools>\n", "</tools>\n", "<tool_calls>\n", "</tool_calls>",
)  # fmt: skip
HEADER_IDS = {"system": 3, "tool_setting": 4, "user": 5, "assistant": 6, "tool": 7}
_MARKER = re.compile(  # the "<" of anything that looks like a marker
    "<(?=(?:pad|begin_of_document|end_of_document|beginning_of_sentence|end_of_sentence"
    "|/?think|/?tools|/?tool_calls)>)"
)


def _byte_alphabet() -> dict[str, int]:
    """Character -> byte of the GPT-2 alphabet, in which every byte is one printable character."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    pairs = [(chr(byte), byte) for byte in printable]
    return dict(pairs + [(chr(256 + i), byte) for i, byte in enumerate(others)])


def _blank() -> Library:
    """A byte-level BPE that has learnt nothing."""
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ])  # fmt: skip
    library.decoder = decoders.ByteLevel()
    return library


def _is_ours(library: Library) -> bool:
    """Whether a tokenizer differs from one that has learnt nothing only by task symbols, vocabulary and merges.

    With anything else in its file a text could be cut short, changed, or become a control token.
    """
    found, blank = json.loads(library.to_str()), json.loads(_blank().to_str())
    reserved = [token["content"] for token in found["added_tokens"]]
    vocabulary, alphabet = library.get_vocab(), _byte_alphabet().keys()
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    blank["added_tokens"] = [
        {"id": i, "content": text, **plain, "special": i < len(CONTROL)} for i, text in enumerate(reserved)
    ]
    blank["model"] |= {name: found["model"].get(name) for name in ("vocab", "merges")}
    return (
        found == blank
        and reserved[: len(CONTROL)] == list(CONTROL)
        and sorted(vocabulary.values()) == list(range(len(vocabulary)))
        and vocabulary.keys() >= alphabet
        and all(set(text) <= alphabet for text in vocabulary.keys() - set(reserved))
    )


class Tokenizer:
    """Text -> ids and back. Make one with `train` or `from_file`.

    `vocab_size`; the ids below; `byte_lengths` (V,) int64: how many bytes of UTF-8 text each token
    stands for, 0 for control tokens, which are no part of a text (for bits per byte).

    >>> tokenizer = Tokenizer.train(["to be or not to be"] * 9, 280, task_symbols=["⟨7⟩"])
    >>> tokenizer.decode(tokenizer.encode("⟨7⟩ <think> 10 ünïcode\\0"))
    '⟨7⟩ <think> 10 ünïcode\\x00'
    >>> tokenizer.decode_completion([tokenizer.think_id, *tokenizer.encode("</think>")])
    '<think>\\n&lt;/think>'
    """

    pad_id, bod_id, eod_id = 0, 1, 2
    eos_id, think_id, end_think_id = 8, 9, 10
    tools_id, end_tools_id, tool_calls_id, end_tool_calls_id = 11, 12, 13, 14

    def __init__(self, library: Library):
        """Wrap a `tokenizers` tokenizer as `train` makes it; others go through `from_file`."""
        self._library = library
        # A second instance that does not know the control tokens: no text can reach them.
        spec = json.loads(library.to_str())
        spec["added_tokens"] = spec["added_tokens"][len(CONTROL) :]
        self._encoder = Library.from_str(json.dumps(spec))
        self.task_symbols = tuple(token["content"] for token in spec["added_tokens"])
        self.vocab_size: int = library.get_vocab_size()
        alphabet, reserved = _byte_alphabet(), len(CONTROL) + len(self.task_symbols)
        tokens = [library.id_to_token(i) for i in range(self.vocab_size)]
        self._bytes = [token.encode() for token in tokens[:reserved]]
        self._bytes += [bytes(alphabet[character] for character in t) for t in tokens[reserved:]]
        lengths = [len(piece) for piece in self._bytes]
        lengths[: len(CONTROL)] = [0] * len(CONTROL)
        self.byte_lengths = torch.tensor(lengths)

    @classmethod
    def train(cls, texts, vocab_size: int, task_symbols=()) -> "Tokenizer":
        """Learn merges from an iterable of strings; the same texts give the same vocabulary.

        The result has at most `vocab_size` tokens; fewer when the texts have no more pairs to
        merge. Raises `UserError` when `vocab_size` has no room for the reserved tokens and the
        bytes, and for a task symbol that is empty, repeated or not one the library can decode.
        """
        symbols = list(task_symbols)
        needed = len(CONTROL) + len(symbols) + 256
        if vocab_size < needed:
            raise UserError(
                f"vocab_size is {vocab_size}, but {len(CONTROL)} control tokens, {len(symbols)} task "
                f"symbols and 256 bytes need at least {needed}; raise it."
            )
        for i, symbol in enumerate(symbols):
            if not symbol or symbol in symbols[:i] or symbol in CONTROL:
                raise UserError(
                    f"The task symbol {symbol!r} is empty, repeated or a control token, but each must be "
                    "a text of its own; rename it."
                )
        library = _blank()
        library.train_from_iterator(texts, trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[AddedToken(t, special=True, normalized=False) for t in (*CONTROL, *symbols)],
            initial_alphabet=sorted(_byte_alphabet()),
            show_progress=False,
        ))  # fmt: skip
        spec = json.loads(library.to_str())
        for token in spec["added_tokens"][len(CONTROL) :]:
            token["special"] = False  # the trainer makes every reserved token special
        library = Library.from_str(json.dumps(spec))
        for symbol in symbols:  # e.g. "é" is also the alphabet's character for the byte 0xE9
            if library.decode([library.token_to_id(symbol)]) != symbol:
                raise UserError(
                    f"The task symbol {symbol!r} consists of characters that byte-level BPE uses for "
                    "bytes; put it in brackets, such as ⟨…⟩."
                )
        return cls(library)

    @classmethod
    def from_file(cls, path) -> "Tokenizer":
        """Read a `tokenizer.json` that `save` wrote. Raises `UserError` when the file is missing,
        damaged, or a tokenizer of something else."""
        path = Path(path)
        try:
            library = Library.from_str(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(
                f"The tokenizer {path} cannot be read ({error.strerror}); give the path of a tokenizer.json."
            ) from error
        except Exception as error:  # the library raises bare Exception
            raise UserError(
                f"{path} is not a readable tokenizer.json ({error}); restore it or train a new one."
            ) from error
        if not _is_ours(library):
            raise UserError(
                f"{path} is a tokenizer, but not one of minim1 (whose first {len(CONTROL)} tokens are M1's "
                "template); use the tokenizer.json of a minim1 run."
            )
        return cls(library)

    def save(self, path) -> None:
        """Write a `tokenizer.json`; `transformers.PreTrainedTokenizerFast(tokenizer_file=path)` reads it.
        (That class, like the library itself, does turn spelled-out markers into control tokens.)"""
        Path(path).write_bytes(self._library.to_str(pretty=True).encode())

    def encode(self, text: str) -> list[int]:
        """The ids of a text; never a control token. `decode` gives exactly the text back."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts) -> list[list[int]]:
        """`encode` for each of the texts, on all cores. Raises `UserError` for text that is not
        valid Unicode (a lone surrogate), which no UTF-8 tokenizer can represent."""
        texts = list(texts)
        try:
            encodings = self._encoder.encode_batch_fast(texts, add_special_tokens=False)
        except TypeError:
            for text in filter(lambda text: isinstance(text, str), texts):
                try:
                    text.encode()
                except UnicodeEncodeError as error:
                    raise UserError(
                        f"The text has a lone surrogate {text[error.start]!r} at character {error.start}, "
                        "which UTF-8 cannot hold; remove it."
                    ) from None
            raise
        return [encoding.ids for encoding in encodings]

    def decode(self, ids) -> str:
        """The text of the ids; control tokens appear as their text. Bytes that are not valid UTF-8
        (a model may cut a character in two) become U+FFFD. Raises `UserError` for ids outside the vocabulary."""
        ids = list(ids)
        if ids and not 0 <= min(ids) <= max(ids) < self.vocab_size:
            raise UserError(
                f"The ids reach from {min(ids)} to {max(ids)}, but this tokenizer has only 0 to {self.vocab_size - 1}; "
                "decode with the tokenizer of the model that wrote them."
            )
        return b"".join(self._bytes[i] for i in ids).decode("utf-8", errors="replace")

    def decode_completion(self, ids) -> str:
        """As `decode`, but ordinary tokens cannot pose as a marker.

        Wherever a run of ordinary tokens spells one, such as ``</think>``, its ``<`` becomes
        ``&lt;``; so each marker in the result is one that was emitted as a control token.
        """
        text = ""
        for control, run in groupby(ids, key=lambda i: i < len(CONTROL)):
            piece = self.decode(run)
            text += piece if control else _MARKER.sub("&lt;", piece)
        return text

    def header_id(self, role: str) -> int:
        """The control token that opens a sentence of this role: "system", "tool_setting", "user",
        "assistant" or "tool"."""
        return HEADER_IDS[role]
