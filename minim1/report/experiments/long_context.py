"""How far back, and at what price? Prefill of long inputs measured, and needles asked for beyond the trained length.

    python -m minim1.report.experiments.long_context       # ten minutes; writes report/results/long_context.json

"prefill": a pure lightning network and the same with one softmax layer in eight read tokens in pieces; seconds and
bytes of the cache. "memory": bytes of the cache and the most held at once, for these two and for a twin whose layers
are all softmax; at lengths of seconds, since the formula that is checked there gives those at a million. "needles":
small hybrids learn to say the values of eight records among filler, then the same in longer rows, with half or all of
each head turned by RoPE, and after a second stage of longer rows with the base kept or raised. "shipped": the shipped
model is asked for all records of a text that filler has made longer.

The network that reads is as narrow as it can be, so that a million tokens take one core seconds: how the price grows
is the question, not how high it is. Pieces are large for lightning layers, which only save calls by it, and small for
softmax layers, whose scores are piece x context. Processor time, one thread.
"""

import argparse
import inspect
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from minim1.config import LIGHTNING, SOFTMAX, M1Config
from minim1.model.cache import DecodeCache
from minim1.model.count import BF16, FP32, count
from minim1.model.decoder import MiniM1
from minim1.report.bench.peak import peak_bytes
from minim1.report.experiments import Experiment, runner, values
from minim1.report.experiments import stored as stored_result

# Prefill

PURE, HYBRID, TWIN = "LLLLLLLL", "LLLLLLLS", "SSSSSSSS"  # "L" lightning, "S" softmax, bottom first
PIECES = {PURE: 8192, HYBRID: 512}  # tokens at a time
MILLION = 2**20
READ = {"smoke": {PURE: 2**15, HYBRID: 2**11}, "cpu": {PURE: MILLION, HYBRID: 2**17},
        "gpu": {PURE: MILLION, HYBRID: MILLION}}
HELD = {"smoke": (512, 1024), "cpu": (2048, 4096, 8192), "gpu": (2048, 4096, 8192)}  # lengths of "memory"
HELD_PIECE = 512


def narrow_config(layers: str) -> M1Config:
    return M1Config(
        vocab_size=256, hidden_size=16, intermediate_size=16, num_hidden_layers=len(layers), num_attention_heads=1,
        num_key_value_heads=1, head_dim=16, attn_type_list=_kinds(layers), num_local_experts=1, num_experts_per_tok=1,
    )


def narrow_model(layers: str) -> MiniM1:
    """An untrained network of one head, 16 numbers wide, dense: what it says is nothing, what it costs is the point."""
    return MiniM1(narrow_config(layers)).eval()


def cache_bytes(layers: str, tokens: int) -> int:
    """What the cache of such a network holds after so many tokens, in fp32, by arithmetic."""
    found = count(narrow_config(layers))
    return tokens * found["kv_cache_bytes_per_token"] * FP32 // BF16 + found["lightning_state_bytes"]


def _kinds(layers: str) -> tuple[int, ...]:
    return tuple(SOFTMAX if kind == "S" else LIGHTNING for kind in layers)


@torch.no_grad()
def read(model: MiniM1, tokens: int, piece: int, device: str = "cpu") -> Iterator[tuple[int, float, DecodeCache]]:
    """Prefill random tokens in pieces; at 1, 2, 4, ... pieces: tokens so far, seconds so far, the cache.

    On a CPU seconds are those of the processor, so that other programs count little; on a GPU those of the clock.
    """
    clock = time.process_time if device == "cpu" else time.perf_counter
    generator, cache, seconds, due = torch.Generator().manual_seed(0), model.new_cache(), 0.0, piece
    for start in range(0, tokens, piece):
        ids = torch.randint(model.config.vocab_size, (1, min(piece, tokens - start)), generator=generator).to(device)
        begun = clock()
        model(ids, cache=cache, last_only=True).logits.sum().item()  # the sum is what makes a GPU wait
        seconds += clock() - begun
        if cache.length >= due or cache.length == tokens:
            due *= 2
            yield cache.length, seconds, cache


def fit_quadratic(points: Sequence[Sequence[float]]) -> tuple[float, float]:
    """(a, b) of seconds = a n + b n^2 for points (n, seconds), by least squares of the relative error.

    >>> [round(x, 6) for x in fit_quadratic([(1, 5.0), (2, 14.0), (3, 27.0)])]
    [3.0, 2.0]
    """
    n, seconds = torch.tensor([point[:2] for point in points], dtype=torch.float64).T
    columns = torch.stack([n / seconds, n**2 / seconds], dim=1)
    return tuple(torch.linalg.lstsq(columns, torch.ones_like(n).unsqueeze(1)).solution.flatten().tolist())


def measure_prefill(layers: str, scale: str = "cpu") -> list[tuple[int, float, int]]:
    """(tokens, seconds, bytes of the cache) at doubling lengths."""
    device = "cuda" if scale == "gpu" else "cpu"
    model, piece = narrow_model(layers).to(device), PIECES[layers]
    next(read(model, piece, piece, device))  # to warm up
    reading = read(model, READ[scale][layers], piece, device)
    return [(tokens, seconds, cache.nbytes()) for tokens, seconds, cache in reading]


def measure_memory(model: MiniM1, tokens: int) -> tuple[int, int, int]:
    """(tokens, bytes of the cache, most bytes held at once while reading them in pieces of HELD_PIECE)."""
    caches = []
    peak = peak_bytes(lambda: caches.extend(cache for _, _, cache in read(model, tokens, HELD_PIECE)))
    return tokens, caches[-1].nbytes(), peak


# Needles beyond the trained length

KEYS, VALUES, FILLER, NEEDLES = 16, 8, 32, 8
QUESTION, FIRST_FILLER = KEYS * VALUES, KEYS * VALUES + KEYS  # ids: records, then questions, then filler
TRAINED, STAGED, LENGTHS = 64, 256, (64, 128, 256, 512, 1024, 2048)
STEPS, ROWS, STAGE_STEPS, STAGE_ROWS, LEARNING_RATE = 150, 32, 30, 8, 4e-3
BASE, RAISED = 128.0, 128.0 * 22  # M1 raised its base 500-fold for 16 times the length; this is 500^(1/2) for 4 times
ARMS = {"half turned": ("LLLS", 8), "all turned": ("LLLS", 16), "pure lightning": ("LLLL", 0)}
SEEDS = (10, 11, 12)


def needle_rows(generator: torch.Generator, tokens: int, count: int) -> tuple[Tensor, Tensor]:
    """input_ids (count, tokens + NEEDLES): records among filler, a question for each; and the records asked for."""
    keys = torch.rand(count, KEYS, generator=generator).argsort(1)[:, :NEEDLES]
    records = keys * VALUES + torch.randint(VALUES, keys.shape, generator=generator)
    filler = FIRST_FILLER + torch.randint(FILLER, (count, tokens), generator=generator)
    places = torch.rand(count, tokens, generator=generator).argsort(1)[:, :NEEDLES]
    order = torch.rand(count, NEEDLES, generator=generator).argsort(1)
    row = torch.cat([filler.scatter(1, places, records), QUESTION + keys.gather(1, order)], dim=1)
    return row, records.gather(1, order)


def needle_config(layers: str, rotary_dim: int, base: float = BASE) -> M1Config:
    return M1Config(
        vocab_size=FIRST_FILLER + FILLER, hidden_size=64, intermediate_size=64, num_hidden_layers=len(layers),
        attn_type_list=_kinds(layers), num_attention_heads=4,
        num_key_value_heads=4, head_dim=16, rotary_dim=rotary_dim, rope_theta=base, num_local_experts=1,
        num_experts_per_tok=1,
    )


def train_needles(model: MiniM1, generator: torch.Generator, tokens: int, rows: int, steps: int) -> MiniM1:
    """Adam with a short warm-up and a linear way down to 0; the loss is on the answers to the questions."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) / 20) * (1 - step / steps))
    for _ in range(steps):
        input_ids, records = needle_rows(generator, tokens, rows)
        loss = F.cross_entropy(model(input_ids).logits[:, -NEEDLES:].flatten(0, 1), records.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model


@torch.no_grad()
def needle_accuracy(model: MiniM1, seed: int, lengths: Sequence[int] = LENGTHS, rows: int = 16) -> list[float]:
    """Share of right answers at each length, on new rows; a guess among the values of the right key gives 1/8."""
    generator = torch.Generator().manual_seed(10_000 + seed)
    shares = []
    for tokens in lengths:
        input_ids, records = needle_rows(generator, tokens, rows)
        said = model(input_ids).logits[:, -NEEDLES:].argmax(-1)
        shares.append(round((said == records).double().mean().item(), 4))
    return shares


def with_base(model: MiniM1, base: float) -> MiniM1:
    """A copy of the model whose RoPE has another base."""
    copy = MiniM1(replace(model.config, rope_theta=base))
    copy.load_state_dict(model.state_dict())
    return copy


def learn_needles(arm: str, seed: int, *, steps: int = STEPS, stage_steps: int = STAGE_STEPS, asked: int = 16,
                  ) -> dict[str, list[float]]:
    """Accuracies after rows of TRAINED and, from there on (with RoPE), of STAGED with the base kept or raised."""
    layers, rotary_dim = ARMS[arm]
    model = MiniM1(needle_config(layers, rotary_dim), seed=seed)
    train_needles(model, torch.Generator().manual_seed(seed), TRAINED, ROWS, steps)
    found = {"trained short": needle_accuracy(model, seed, rows=asked)}
    for name, base in (("second stage", BASE), ("second stage, base raised", RAISED)) if rotary_dim else ():
        copy = with_base(model, base)
        train_needles(copy, torch.Generator().manual_seed(1000 + seed), STAGED, STAGE_ROWS, stage_steps)
        found[name] = needle_accuracy(copy, seed, rows=asked)
    return found


# The shipped model

TEXTS, RECORDS, FILLERS = 24, 5, (0, 8, 16, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class Haystack:
    """Token ids of a text with records among filler, how a question is written, and what is right: key -> value."""

    text: list[int]
    questions: dict[str, list[int]]
    records: dict[str, str]


def haystack(tokenizer, seed: int, filler: int, records: int = RECORDS) -> Haystack:
    """A recall problem of the course with `filler` tokens of Python code before, between and after its records."""
    from minim1.evaluate import heldout_problems, prompt_ids
    from minim1.tasks.base import symbol

    problem = heldout_problems("recall", 1, seed=seed, difficulty=records)[0]
    ids = prompt_ids(tokenizer, problem.prompt)
    start = ids.index(tokenizer.encode(symbol("recall"))[0]) + 1
    code = tokenizer.encode(inspect.getsource(argparse))
    code = code[(197 * seed) % 5000:][:filler]
    gap = -(-filler // (records + 1)) if filler else 0
    text = ids[:start]
    for index in range(records + 1):
        text = text + code[index * gap : (index + 1) * gap] + ids[start + index : start + index + 1] * (index < records)
    end = ids[start + records + 1 :]
    questions = {key: tokenizer.encode(symbol(f"{key}?")) + end for key in problem.data["records"]}
    return Haystack(text, questions, dict(problem.data["records"]))


@torch.no_grad()
def ask(model: MiniM1, tokenizer, hay: Haystack, piece: int = 512) -> dict[str, tuple[str, str]]:
    """Read the text once, in pieces, and ask for every key from copies of that cache.

    Returns key -> (the answer in its own words, "" where it is none; the likeliest of eight values after `<think>`).
    """
    from minim1.tasks.base import parse_completion, symbol
    from minim1.tasks.recall import VALUES as DIGITS

    cache = model.new_cache()
    for ids in torch.tensor([hay.text]).split(piece, dim=1):
        model(ids, cache=cache, last_only=True)
    cache.repeat(len(hay.questions))
    logits = model(torch.tensor(list(hay.questions.values())), cache=cache, last_only=True).logits[:, -1]
    step, said, answers = model.new_step(), [], {}
    for _ in range(10):  # <think>, a record, </think>, a digit, the end
        said.append(logits.argmax(-1))
        if len(said) == 1:  # the model's own first token may be another; for the choice it is given this one
            given = torch.full_like(said[0], tokenizer.think_id)
            choices = [[tokenizer.encode(symbol(f"{key}:{digit}"))[0] for digit in DIGITS] for key in hay.questions]
            logits = step(given, cache)
            chosen = logits.gather(1, torch.tensor(choices)).argmax(-1).tolist()
            if not said[0].eq(given).all():
                return {key: ("", DIGITS[index]) for key, index in zip(hay.questions, chosen)}
        else:
            logits = step(said[-1], cache)
    for key, row, index in zip(hay.questions, torch.stack(said, dim=1).tolist(), chosen):
        end = row.index(tokenizer.eos_id) + 1 if tokenizer.eos_id in row else len(row)
        answers[key] = parse_completion(tokenizer.decode_completion(row[:end])).answer, DIGITS[index]
    return answers


def measure_shipped(texts: int = TEXTS, fillers: Sequence[int] = FILLERS) -> dict[int, dict[str, list[list[int]]]]:
    """For each length of filler: which records of every text were right in words, and as a choice of eight."""
    from minim1.train.checkpoint import load

    shipped, found = load("shipped"), {}
    for filler in fillers:
        words, choices = [], []
        for seed in range(texts):
            hay = haystack(shipped.tokenizer, seed, filler)
            answers = ask(shipped.model, shipped.tokenizer, hay)
            words.append([int(answers[key][0] == value) for key, value in hay.records.items()])
            choices.append([int(answers[key][1] == value) for key, value in hay.records.items()])
        found[filler] = {"words": words, "choices": choices}
    return found


# Together


def run(arm: str, seed: int, scale: str) -> object:
    """What an arm measures: "prefill LAYERS", "memory LAYERS", "needles ARM" or "shipped"."""
    part, _, which = arm.partition(" ")
    if part == "prefill":
        return measure_prefill(which, scale)
    if part == "memory":
        return [measure_memory(narrow_model(which), tokens) for tokens in HELD[scale]]
    if part == "needles":
        return learn_needles(which, seed, **({"steps": 2, "stage_steps": 1, "asked": 1} if scale == "smoke" else {}))
    return measure_shipped(1, FILLERS[:2]) if scale == "smoke" else measure_shipped()


def arranged(result: Mapping) -> dict:
    """A result by its parts: "prefill", "needles" and "shipped", each with where it ran, its settings and values."""
    def part(first: str, names: Sequence[str], **found: object) -> dict:
        place = result["places"][next(iter(result["units"][first].values()))["place"]]
        return {**place, **{name: result["settings"][name] for name in names}, **found}

    needles = tuple(f"needles {arm}" for arm in ARMS)
    return {
        "prefill": part(f"prefill {PURE}", ("pieces",), points={
            layers: values(result, f"prefill {layers}")[0] for layers in PIECES}),
        "needles": part(needles[0], ("trained", "staged", "steps", "stage_steps", "base", "raised", "lengths"),
                        seeds=sorted(map(int, result["runs"][needles[0]])),
                        runs={arm: values(result, name) for arm, name in zip(ARMS, needles)}),
        "shipped": part("shipped", ("texts", "records"), right=values(result, "shipped")[0]),
    }


def stored() -> dict:
    """The committed result, arranged."""
    return arranged(stored_result("long_context"))


EXPERIMENT = Experiment(
    "long_context",
    {**{f"prefill {layers}": (0,) for layers in PIECES},
     **{f"memory {layers}": (0,) for layers in (PURE, HYBRID, TWIN)},
     **{f"needles {arm}": SEEDS for arm in ARMS}, "shipped": (0,)},
    run,
    {"pieces": PIECES, "memory_piece": HELD_PIECE, "trained": TRAINED, "staged": STAGED, "steps": STEPS,
     "stage_steps": STAGE_STEPS, "base": BASE, "raised": RAISED, "lengths": LENGTHS,
     "texts": TEXTS, "records": RECORDS},
    alone=True,
)

if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
