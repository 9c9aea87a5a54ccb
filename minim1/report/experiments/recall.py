"""Can it look a pair up? Small lightning, softmax and mixed networks on associative recall, in two settings.

A row holds pairs of a key and a value, one pair a token, and then keys alone; at each of those the network must say
the value that this key had. Keys differ within a row, pairs and order are drawn anew for every row.

    python -m minim1.report.experiments.recall     # half an hour on two quiet cores; writes report/results/recall.json

The last two settings ask how many softmax layers M1's pattern needs: none, one in eight, one in four or all of eight
layers, all else as in the first two but for what time allows, the same for every network of a setting: in the tight one
500 steps as there, of half as many rows, in the roomy one 125. (A first run of the tight one had 150 steps of 64 rows;
with its first seed nothing but pure softmax had begun to learn, which says nothing about patterns.)
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minim1.config import M1Config
from minim1.model.decoder import MiniM1
from minim1.report.experiments import Experiment, head, runner, seeds, values
from minim1.report.experiments import stored as stored_result

KEYS, VALUES, QUERIES = 64, 16, 32  # possible keys and values; keys asked for in a row
ASK = VALUES  # in the place of a value: this token is a question
SEEDS = (10, 11, 12)
PATTERNS = {"none": "LLLLLLLL", "1 in 8": "LLLLLLLS", "1 in 4": "LLLSLLLS", "all": "SSSSSSSS"}  # softmax layers


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


def _tight(layers: str, pairs: int = 48, steps: int = 500, head_dim: int = 8, batch: int = 64) -> Setting:
    return Setting(layers, pairs, hidden_size=32, head_dim=head_dim, postnorm=False, learning_rate=1e-2, steps=steps,
                   batch=batch)


def _roomy(layers: str, postnorm: bool = True, steps: int = 300) -> Setting:
    return Setting(layers, 32, hidden_size=64, head_dim=16, postnorm=postnorm, learning_rate=4e-3, steps=steps)


SETTINGS = {  # the first three of "tight" and "roomy" are the question; what follows tests the explanation
    "tight": {"LL": _tight("LL"), "LS": _tight("LS"), "SS": _tight("SS"),
              "LL, 12 pairs": _tight("LL", pairs=12), "LL, 2000 steps": _tight("LL", steps=2000),
              "LL, D = 16": _tight("LL", head_dim=16)},
    "roomy": {"LLLL": _roomy("LLLL"), "LLLS": _roomy("LLLS"), "SSSS": _roomy("SSSS"),
              "SSSS, pre-norm": _roomy("SSSS", postnorm=False)},
    "tight, eight layers": {name: _tight(layers, batch=32) for name, layers in PATTERNS.items()},
    "roomy, eight layers": {name: _roomy(layers, steps=125) for name, layers in PATTERNS.items()},
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


def run(arm: str, seed: int, scale: str) -> dict:
    """One network of `SETTINGS`, named "setting: network" -> {"setting": its numbers, "curve": [(step, accuracy)]}."""
    setting, every = _arms()[arm], 25
    if scale == "smoke":
        setting, every = replace(setting, steps=2, batch=4), 2
    return {"setting": asdict(setting), "curve": learn(setting, seed, every=every)}


def arranged(result: Mapping) -> dict:
    """A result as chapter 06 reads it: "seeds", "settings" and "curves", {setting: {network: [curve of each seed]}}."""
    found = {**head(result), "seeds": seeds(result), "settings": {}, "curves": {}}
    for arm in _arms():
        name, rival = arm.split(": ")
        if runs := values(result, arm):
            found["settings"].setdefault(name, {})[rival] = runs[0]["setting"]
            found["curves"].setdefault(name, {})[rival] = [each["curve"] for each in runs]
    return found


def stored() -> dict:
    """The committed result, arranged."""
    return arranged(stored_result("recall"))


def _arms() -> dict[str, Setting]:
    """Every network of every setting, by the name of its unit."""
    return {f"{name}: {rival}": setting for name, rivals in SETTINGS.items() for rival, setting in rivals.items()}


EXPERIMENT = Experiment(
    "recall", {arm: SEEDS for arm in _arms()}, run, {"keys": KEYS, "values": VALUES, "queries": QUERIES},
    beside=[arm for arm in _arms() if "eight layers" not in arm and arm not in ("tight: LL", "tight: LS")])

if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
