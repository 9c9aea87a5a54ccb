"""What the model reads: tokenizer and chat template, corpora, packed batches."""

from minim1.data.chat import Encoded, encode_chat, parse_tool_calls, render_chat
from minim1.data.corpus import Corpus, TokenStream, encode_corpus, folder_corpus, load_corpus, stdlib_corpus
from minim1.data.packing import Batch, heldout_windows, pack_documents, step_seed, text_rows
from minim1.data.tokenizer import Tokenizer

__all__ = [
    "Batch", "Corpus", "Encoded", "TokenStream", "Tokenizer", "encode_chat", "encode_corpus", "folder_corpus",
    "heldout_windows", "load_corpus", "pack_documents", "parse_tool_calls", "render_chat", "step_seed",
    "stdlib_corpus", "text_rows",
]  # fmt: skip
