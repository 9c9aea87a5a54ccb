"""Why turn only half of each head? One attention layer, trained on short rows and asked on longer ones.

Every token of a row has a value, a few also have a name, and at the end names are asked for. The layer learns two
things at once: by *content*, the value of the token with that name, wherever it stands; by *place*, at every token, the
value of the one before. Longer rows hold as many names among more tokens without one.

    python -m minim1.report.experiments.partial_rope     # minutes on one core; writes report/results/partial_rope.json
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minim1.model.softmax import rotary, softmax_attention
from minim1.report.experiments import Experiment, head, runner, seeds, values
from minim1.report.experiments import stored as stored_result

NAMES, VALUES, NAMED = 32, 8, 8  # possible names and values; named tokens in a row, and questions at its end
WIDTH, HEADS, HEAD_DIM = 64, 4, 16
TRAINED, LENGTHS = 32, (32, 64, 128, 256, 512)  # tokens before the questions: in training, and when asked
STEPS, ROWS, LEARNING_RATE = 300, 64, 1e-2


@dataclass(frozen=True)
class Arm:
    """Dims of each head that turn, and the base of their frequencies."""

    rotary_dim: int
    theta: float


# With base 64 the slowest pair of 16 dims turns by about 1 radian in 32 tokens, as M1's with base 10,000 in 8,192.
ARMS = {"no dims turn": Arm(0, 64.0), "half of the dims": Arm(8, 64.0), "all dims": Arm(16, 64.0),
        "all dims, base 10,000": Arm(16, 10_000.0)}


class OneLayer(nn.Module):
    """Embeddings, one softmax attention, and a readout for each of the two questions."""

    def __init__(self, arm: Arm) -> None:
        super().__init__()
        self.arm = arm
        self.names, self.values = nn.Embedding(NAMES + 1, WIDTH), nn.Embedding(VALUES, WIDTH)
        self.asked, self.qkv = nn.Embedding(NAMES, WIDTH), nn.Linear(WIDTH, 3 * HEADS * HEAD_DIM, bias=False)
        self.content, self.place = (nn.Linear(HEADS * HEAD_DIM, VALUES) for _ in range(2))

    def forward(
        self, names: Tensor, values: Tensor, asked: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """names, values (B, T), asked (B, NAMED) -> logits (B, NAMED, VALUES) and (B, T - 1, VALUES).

        mask (B, T + NAMED, T + NAMED) bool, True where a token may look; None: causal.
        """
        x = torch.cat([self.names(names) + self.values(values), self.asked(asked)], dim=1)
        x = F.rms_norm(x, (WIDTH,))
        q, k, v = self.qkv(x).view(*x.shape[:2], HEADS, 3 * HEAD_DIM).chunk(3, dim=-1)
        positions = torch.arange(x.shape[1]).expand(x.shape[:2])
        q, k = (rotary(y, positions, rotary_dim=self.arm.rotary_dim, theta=self.arm.theta) for y in (q, k))
        out = softmax_attention(q, k, v, mask=mask).flatten(2)
        tokens = names.shape[1]
        return self.content(out[:, tokens:]), self.place(out[:, 1:tokens])


def make_rows(generator: torch.Generator, tokens: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """names (B, T), NAMES where there is none; values (B, T); asked and the answers (B, NAMED)."""
    values = torch.randint(VALUES, (ROWS, tokens), generator=generator)
    places = torch.rand(ROWS, tokens, generator=generator).argsort(1)[:, :NAMED]
    given = torch.rand(ROWS, NAMES, generator=generator).argsort(1)[:, :NAMED]
    names = torch.full((ROWS, tokens), NAMES).scatter(1, places, given)
    which = torch.randint(NAMED, (ROWS, NAMED), generator=generator)
    return names, values, given.gather(1, which), values.gather(1, places.gather(1, which))


def learn(arm: Arm, seed: int, *, steps: int = STEPS) -> OneLayer:
    """Train one layer on fresh rows of TRAINED tokens."""
    torch.manual_seed(seed)
    model, generator = OneLayer(arm), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) / 20) * (1 - step / steps))
    for _ in range(steps):
        names, values, asked, answers = make_rows(generator, TRAINED)
        content, place = model(names, values, asked)
        loss = F.cross_entropy(content.flatten(0, 1), answers.flatten())
        loss = loss + F.cross_entropy(place.flatten(0, 1), values[:, :-1].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model


@torch.no_grad()
def accuracy(
    model: OneLayer, seed: int, lengths: Sequence[int] = LENGTHS, window: int | None = None
) -> dict[str, list[float]]:
    """Share of right answers by content and by place for each length, on 64 new rows; chance is 1/8.

    window: a token sees only so many last ones, itself included; None: all before it.
    """
    generator, found = torch.Generator().manual_seed(10_000 + seed), {"content": [], "place": []}
    for tokens in lengths:
        names, values, asked, answers = make_rows(generator, tokens)
        total = tokens + NAMED
        near = torch.ones(ROWS, total, total, dtype=torch.bool).tril().triu(1 - (window or total))
        content, place = model(names, values, asked, near)
        for name, logits, right in (("content", content, answers), ("place", place, values[:, :-1])):
            found[name].append((logits.argmax(-1) == right).double().mean().item())
    return found


def run(arm: str, seed: int, scale: str) -> dict[str, list[float]]:
    """`accuracy` of a layer that has learned, at a scale."""
    if scale == "smoke":
        return accuracy(learn(ARMS[arm], seed, steps=2), seed, LENGTHS[:2])
    return accuracy(learn(ARMS[arm], seed), seed)


def arranged(result: Mapping) -> dict:
    """A result as chapter 02 reads it: settings, "seeds", and "accuracy": {arm: {task: [one list for each seed]}}."""
    shares = {arm: {task: [each[task] for each in values(result, arm)] for task in ("content", "place")}
              for arm in ARMS}
    return {**head(result), **result["settings"], "seeds": seeds(result), "accuracy": shares}


def stored() -> dict:
    """The committed result, arranged."""
    return arranged(stored_result("partial_rope"))


EXPERIMENT = Experiment(
    "partial_rope", {arm: range(10, 15) for arm in ARMS}, run,
    {"steps": STEPS, "trained": TRAINED, "lengths": LENGTHS, "arms": {name: asdict(arm) for name, arm in ARMS.items()}},
)

if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
