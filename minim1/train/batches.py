"""What each step reads: batches of pretraining and SFT as pure functions of (seed, step)."""

from collections.abc import Callable

from minim1.data.chat import encode_chat
from minim1.data.corpus import TokenStream
from minim1.data.packing import Batch, pack_documents, step_seed, text_rows
from minim1.data.tokenizer import Tokenizer
from minim1.tasks import get_task
from minim1.tasks.base import Demonstration
from minim1.train.settings import Mixture


def demonstration_ids(tokenizer: Tokenizer, demonstration: Demonstration, *, supervise_all: bool):
    """(ids, mask) of a demonstration in the chat template; `supervise_all` makes the prompt a target too."""
    messages = [
        {"role": "system", "content": None},
        {"role": "user", "content": demonstration.prompt},
        {"role": "assistant", "reasoning": demonstration.reasoning, "content": demonstration.answer},
    ]
    encoded = encode_chat(tokenizer, messages)
    return encoded.ids, [1] * len(encoded.ids) if supervise_all else encoded.mask


class Batches:
    """`batches(step) -> Batch`. `stage` is "pretrain" (practice documents, every token a target) or "sft"
    (demonstrations, targets are the assistant's tokens); both read text beside them, and both only train splits."""

    def __init__(
        self, stage: str, tokenizer: Tokenizer, stream: TokenStream, mixture: Mixture, *,
        seed: int = 0, pack: Callable = pack_documents,
    ) -> None:
        self.stage, self.tokenizer, self.stream, self.mixture = stage, tokenizer, stream, mixture
        self.seed, self.pack = seed, pack

    def __call__(self, step: int) -> Batch:
        mixture, rows = self.mixture, []
        if mixture.text_rows:
            rows.append(text_rows(
                self.stream, seed=step_seed(self.seed, 0, f"{self.stage}/text"), step=step, rows=mixture.text_rows,
                length=mixture.length,
            ))
        documents = [
            self._document(family, step, i) for family, count in mixture.documents.items() for i in range(count)
        ]
        if documents:
            rows.append(self.pack(documents, mixture.length, pad_id=self.tokenizer.pad_id))
        return Batch.cat(rows)

    def _document(self, family: str, step: int, index: int):
        task, seed = get_task(family), step_seed(self.seed, step, f"{self.stage}/{family}/{index}")
        if self.stage == "pretrain":
            return demonstration_ids(self.tokenizer, task.practice(seed), supervise_all=True)
        return demonstration_ids(self.tokenizer, task.demonstrate(task.sample(seed), seed), supervise_all=False)
