"""Can it look a pair up? Small lightning, softmax and mixed networks on associative recall, in two settings.

A row holds pairs of a key and a value, one pair a token, and then keys alone; at each of those the network must say
the value that this key had. Keys differ within a row, pairs and order are drawn anew for every row.

    python -m minim1.report.experiments.recall [--out FILE.json]
    python -m minim1.report.experiments.recall --add "LL, D = 16"      one network more, into the stored result
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minim1.config import M1Config
from minim1.model.decoder import MiniM1
from minim1.report.experiments import RESULTS, read_result, write_result

KEYS, VALUES, QUERIES = 64, 16, 32  # possible keys and values; keys asked for in a row
ASK = VALUES  # in the place of a value: this token is a question
SEEDS = [10, 11, 12]
OUT = RESULTS / "recall.json"


@dataclass(frozen=True)
class Setting:
    """One network and task. layers: "L" lightning, "S" softmax, bottom first; pairs: in each row."""

    layers: str
    pairs: int
    hidden_size: int
    head_dim: int
    postnorm: bool
    learning_rate: float
    steps: int
    batch: int = 64


def _tight(layers: str, pairs: int = 48, steps: int = 500, head_dim: int = 8) -> Setting:
    return Setting(layers, pairs, hidden_size=32, head_dim=head_dim, postnorm=False, learning_rate=1e-2, steps=steps)


def _roomy(layers: str, postnorm: bool = True) -> Setting:
    return Setting(layers, 32, hidden_size=64, head_dim=16, postnorm=postnorm, learning_rate=4e-3, steps=300)


SETTINGS = {  # the first three of each are the question; what follows tests the explanation
    "tight": {"LL": _tight("LL"), "LS": _tight("LS"), "SS": _tight("SS"),
              "LL, 12 pairs": _tight("LL", pairs=12), "LL, 2000 steps": _tight("LL", steps=2000),
              "LL, D = 16": _tight("LL", head_dim=16)},
    "roomy": {"LLLL": _roomy("LLLL"), "LLLS": _roomy("LLLS"), "SSSS": _roomy("SSSS"),
              "SSSS, pre-norm": _roomy("SSSS", postnorm=False)},
}


class PairEmbedding(nn.Module):
    """The vector of a pair is its key's plus its value's; of a question, its key's plus that of asking."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.keys, self.values = nn.Embedding(KEYS, hidden_size), nn.Embedding(VALUES + 1, hidden_size)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.keys(input_ids // (VALUES + 1)) + self.values(input_ids % (VALUES + 1))


def make_model(setting: Setting, seed: int) -> MiniM1:
    """A dense MiniM1 of four heads, with an embedding that holds two things in one token, and a head of the values."""
    torch.manual_seed(seed)
    config = M1Config(
        vocab_size=KEYS * (VALUES + 1), hidden_size=setting.hidden_size, intermediate_size=setting.hidden_size,
        num_hidden_layers=len(setting.layers), attn_type_list=tuple(int(kind == "S") for kind in setting.layers),
        num_attention_heads=4, num_key_value_heads=4, head_dim=setting.head_dim, postnorm=setting.postnorm,
        num_local_experts=1, num_experts_per_tok=1,
    )
    model = MiniM1(config, seed=seed)
    model.model.embed_tokens = PairEmbedding(setting.hidden_size)
    model.lm_head = nn.Linear(setting.hidden_size, VALUES, bias=False)
    return model


def make_rows(setting: Setting, generator: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
    """input_ids (count, pairs + QUERIES), and the values to be said at the last QUERIES tokens."""
    keys = torch.rand(count, KEYS, generator=generator).argsort(1)[:, : setting.pairs]
    values = torch.randint(0, VALUES, keys.shape, generator=generator)
    asked = torch.randint(0, setting.pairs, (count, QUERIES), generator=generator)
    pairs, questions = keys * (VALUES + 1) + values, keys.gather(1, asked) * (VALUES + 1) + ASK
    return torch.cat([pairs, questions], dim=1), values.gather(1, asked)


def learn(setting: Setting, seed: int, *, every: int = 25, say: Callable = lambda step, accuracy: None) -> list:
    """Train a network -> [(step, accuracy)] on fresh rows, 4,096 answers each time; chance is 1/16."""
    model, generator = make_model(setting, seed), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=setting.learning_rate, betas=(0.9, 0.95))
    curve = []
    for step in range(setting.steps + 1):
        if step % every == 0:
            curve.append((step, _accuracy(model, setting, generator)))
            say(*curve[-1])
        input_ids, values = make_rows(setting, generator, setting.batch)
        loss = F.cross_entropy(model(input_ids).logits[:, -QUERIES:].flatten(0, 1), values.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return curve


@torch.no_grad()
def _accuracy(model: MiniM1, setting: Setting, generator: torch.Generator) -> float:
    input_ids, values = make_rows(setting, generator, 128)
    return (model(input_ids).logits[:, -QUERIES:].argmax(-1) == values).double().mean().item()


def main() -> None:
    from minim1.report.bench.command import machine
    from minim1.train.checkpoint import versions

    parser = argparse.ArgumentParser(prog="python -m minim1.report.experiments.recall", description=__doc__)
    parser.add_argument("--add", choices=[rival for rivals in SETTINGS.values() for rival in rivals], metavar="NETWORK",
                        help="run this one alone, with the stored seeds, and put it into the stored result")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    here = {"machine": machine("cpu"), "versions": versions(), "threads": 1}
    if arguments.add is None:
        result = {"format": 1, **here, "seeds": SEEDS, "settings": {}, "curves": {}, "seconds": {}, "added": {}}
    else:
        result = read_result(arguments.out)
        result.setdefault("added", {})[arguments.add] = here
    chosen = [(name, rival, setting) for name, rivals in SETTINGS.items() for rival, setting in rivals.items()
              if arguments.add in (None, rival)]
    runs = {(name, rival): [] for name, rival, _ in chosen}
    for seed in result["seeds"]:
        for name, rival, setting in chosen:
            begun = time.perf_counter()
            curve = learn(setting, seed)
            runs[name, rival].append(([[s, round(a, 4)] for s, a in curve], round(time.perf_counter() - begun, 1)))
            print(f"seed {seed}, {name}, {rival}: {curve[-1][1]:.2f}", flush=True)
            curves, seconds = zip(*runs[name, rival])
            for key, value in (("settings", asdict(setting)), ("curves", curves), ("seconds", seconds)):
                result[key].setdefault(name, {})[rival] = value
            write_result(arguments.out, result)


if __name__ == "__main__":
    main()
