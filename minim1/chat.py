"""Talk to a model in a terminal: the answer streams, thinking is shown apart from it."""

import itertools
import re
import sys
from dataclasses import dataclass

from minim1.data.chat import encode_chat
from minim1.data.packing import step_seed
from minim1.data.tokenizer import Tokenizer
from minim1.errors import UserError
from minim1.evaluate import task_sampling
from minim1.generation import generate
from minim1.tasks import TASKS, get_task
from minim1.tasks.base import Problem

HELP = f"""\
Type a message, a problem such as ⟨add⟩123+456=, or a command:
  /{' /'.join(TASKS)}     a held-out problem of that family; the verifier judges the answer
  /think on|off           let the model think first, or answer at once
  /budget N|off           close the thinking after N tokens
  /help  /quit"""


@dataclass
class Settings:
    temperature: float = 1.0
    max_new_tokens: int = 96
    thinking: bool = True
    budget: int | None = None
    seed: int = 0


_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # what a terminal obeys instead of showing it


class Printer:
    """Streams ids as text: thinking dimmed (or in brackets where the output is no terminal), then the answer."""

    def __init__(self, tokenizer: Tokenizer, stream) -> None:
        self.tokenizer, self.stream = tokenizer, stream
        self.dim, self.plain = ("\x1b[2m", "\x1b[0m") if stream.isatty() else ("[thinking] ", "\n[answer] ")
        self.ids: list[int] = []
        self.shown = 0

    def __call__(self, token: int) -> None:
        if token == self.tokenizer.think_id:
            self._write(self.dim)
        elif token == self.tokenizer.end_think_id:
            self.finish()
            self._write(("\n" if self.stream.isatty() else "") + self.plain)
        elif token != self.tokenizer.eos_id:
            self.ids.append(token)
            text = self.tokenizer.decode(self.ids)
            if not text.endswith("\ufffd"):  # wait for the rest of a character
                self._show(text[self.shown :])
                self.shown = len(text)

    def finish(self) -> None:
        """Show what still waits for the rest of a character."""
        self._show(self.tokenizer.decode(self.ids)[self.shown :])
        self.ids, self.shown = [], 0

    def _show(self, text: str) -> None:
        self._write(_COMMANDS.sub(lambda found: f"\\x{ord(found[0]):02x}", text))

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


def reply(model, tokenizer: Tokenizer, messages: list[dict], settings: Settings, stream=None) -> str:
    """Stream the next assistant turn and return it as text, tags included."""
    ids = encode_chat(tokenizer, messages, add_generation_prompt=True).ids
    forced = [] if settings.thinking else [tokenizer.think_id, tokenizer.end_think_id]
    sampling = task_sampling(
        tokenizer, max_new_tokens=settings.max_new_tokens, temperature=settings.temperature,
        thinking_budget=settings.budget if settings.thinking else None, seed=settings.seed,
    )
    printer = Printer(tokenizer, stream) if stream else None
    rollout = generate(model, [ids + forced], sampling, on_token=printer)
    if stream:
        printer.finish()
        stream.write("\x1b[0m\n" if stream.isatty() else "\n")
    return tokenizer.decode_completion(forced + rollout.completions[0])


def solve(model, tokenizer: Tokenizer, problem: Problem, settings: Settings, stream) -> None:
    """Show a problem, stream the answer, say what the verifier thinks of it."""
    stream.write(f"{problem.prompt}\n")
    messages = [{"role": "system", "content": None}, {"role": "user", "content": problem.prompt}]
    verdict = get_task(problem.family).verify(problem, reply(model, tokenizer, messages, settings, stream))
    stream.write("The verifier says: right.\n" if verdict.reward == 1 else "The verifier says: wrong.\n")


def chat(model, tokenizer: Tokenizer, settings: Settings, lines=None, stream=None) -> None:
    """Read lines until the end or /quit; each is a command, a problem or a message, and starts afresh.

    The small models here learn single turns, so earlier turns are not shown to them.
    """
    stream = stream or sys.stdout
    lines = lines if lines is not None else _typed()
    stream.write(HELP + "\n")
    for turn, line in enumerate(lines):
        settings.seed += 1
        word, _, rest = line.strip().partition(" ")
        if word in ("/quit", "/exit"):
            return
        if word == "/help":
            stream.write(HELP + "\n")
        elif word == "/think" and rest in ("on", "off"):
            settings.thinking = rest == "on"
        elif word == "/budget" and (rest == "off" or re.fullmatch("[0-9]{1,9}", rest)):
            settings.budget = None if rest == "off" else int(rest)
        elif word.startswith("/") and word[1:] in TASKS:
            seed = step_seed(settings.seed, turn, "chat")
            solve(model, tokenizer, get_task(word[1:]).sample(seed, split="heldout"), settings, stream)
        elif word.startswith("/"):
            stream.write(f"Unknown command {line.strip()!r}; /help lists them.\n")
        elif word:
            messages = [{"role": "system", "content": None}, {"role": "user", "content": line.strip()}]
            try:
                reply(model, tokenizer, messages, settings, stream)
            except UserError as mistake:  # e.g. bytes that are no text; the conversation goes on
                stream.write(f"{mistake}\n")


def _typed():
    for _ in itertools.count():
        try:
            yield input("> ")
        except (EOFError, KeyboardInterrupt):
            return
