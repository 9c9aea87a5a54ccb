"""Chapter 16's capstone: train a mini-M1 of the learner's own parts, measure its milestones, and lay it beside ours."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from minim1.data.corpus import encode_corpus, load_corpus
from minim1.data.packing import heldout_windows
from minim1.errors import UserError
from minim1.evaluate import answer, heldout_problems, score, task_sampling
from minim1.model.moe import expert_load
from minim1.parts import Parts, learners_own
from minim1.report.card import report_card, to_markdown
from minim1.report.experiments import stored
from minim1.train.checkpoint import RunFolder, load
from minim1.train.files import find_run, read_json, write_whole
from minim1.train.recipes import FAMILIES, STAGES, recipe
from minim1.train.rl import RLTrainer
from minim1.train.settings import OptimConfig, RLConfig

FORMAT_BAR, RECALL_BAR, BUSIEST_BAR, GAP_BAR = 0.95, 0.95, 0.45, 1e-3


@dataclass(frozen=True)
class Milestone:
    """What only right code reaches: a name, what was measured, and whether that is enough."""

    name: str
    measured: str
    bar: str
    reached: bool


# ---------------------------------------------------------------- training


def train(out: str | Path, *, parts: str | Path | None = None, preset: str = "nano", seed: int = 0,
          say: Callable[[str], None] = print, every: float = 2.0) -> Path:
    """Train a whole run in a process of its own, or go on with the one in `out`; interrupting saves.

    Args: out: run folder; parts: folder of the learner's notebooks, whose parts are used (None: ours); preset: recipe;
        say: receives a line on the state of the run whenever there is news, looked for every `every` seconds.
    Returns: the run folder. Raises: UserError with what the command said when it fails.
    """
    out = Path(out)
    command = [sys.executable, "-m", "minim1", "train", "--preset", preset, "--seed", str(seed), "--out", str(out),
               "--quiet", "--json"]
    command += [] if parts is None else ["--parts", str(parts)]
    command += ["--resume"] if any((out / stage / "run.json").exists() for stage in STAGES) else []
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    said = ""
    try:
        while process.poll() is None:
            if (news := state_of(out, preset)) != said:
                say(said := news)
            time.sleep(every)
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.wait()
        say(f"{state_of(out, preset)}: saved; run this again to go on")
        raise
    if process.returncode:
        raise UserError(process.stderr.read().strip().splitlines()[-1])
    say(state_of(out, preset))
    return out


def state_of(out: str | Path, preset: str = "nano") -> str:
    """One line on a run: "pretrain 800 of 800, sft 280 of 280, rl 12 of 32; 9 minutes of training"."""
    asked, lines, seconds = recipe(preset), [], 0.0
    for stage in STAGES:
        records = RunFolder(Path(out) / stage).metrics()
        if records:
            lines.append(f"{stage} {records[-1]['step']} of {getattr(asked, stage).steps}")
            seconds += records[-1]["seconds"]
    return f"{', '.join(lines) or 'preparing the text'}; {seconds / 60:.0f} minutes of training"


def line() -> Callable[[str], None]:
    """`say` for a notebook: one line of output that is replaced by the next one."""
    from IPython.display import display

    shown = []

    def say(text: str) -> None:
        if shown:
            shown[0].update(Line(text))
        else:
            shown.append(display(Line(text), display_id=True))

    return say


class Line(str):
    """A text that is displayed without quotes."""

    __repr__ = str.__str__


def who_wrote_what(folder: str | Path) -> dict[str, str]:
    """Field of `Parts` -> "yours, NOTEBOOK" or "the package's", for the notebooks in a folder (which may be missing)."""
    own = learners_own(folder, strict=False) if Path(folder).is_dir() else {}
    place = lambda name: Path(own[name].rpartition(":")[0]).name  # noqa: E731
    return {name: f"yours, {place(name)}" if name in own else "the package's" for name in Parts.__dataclass_fields__}


# ---------------------------------------------------------------- milestones


def milestones(run: str | Path, parts: Parts = Parts(), *, rollouts: int = 3, seeds=range(3), problems: int = 192,
               windows: int = 64, prompts: int = 32) -> list[Milestone]:
    """What a run's models can do, by properties and by learning; the last one trains `rollouts` batches for each seed.

    Args: run: a finished run folder, or "shipped"; parts: with which the models run; problems: held-out ones for each
        of the RL measurements; windows: of held-out text for the balance; prompts: of a rollout batch.
    """
    model, tokenizer, _ = load(run, parts=parts)
    sft = load(f"{run}/sft", parts=parts)
    evaluated = read_json(find_run(f"{run}/sft") / "eval.json")
    return [
        decodes(model), remembers(evaluated), balanced(model, tokenizer, windows), keeps_format(evaluated),
        learns(sft, parts, rollouts, seeds, problems, prompts),
    ]


@torch.no_grad()
def decodes(model, length: int = 192) -> Milestone:
    """Token by token on the cache equals all at once; what lightning layers keep does not grow."""
    model.eval()
    ids = torch.randint(model.config.vocab_size, (1, length), generator=torch.Generator().manual_seed(0))
    cache, kept, logits = model.new_cache(), [], []
    for at in range(length):
        logits.append(model(ids[:, at:at + 1], cache=cache).logits)
        kept.append(sum(t.nbytes for layer, kind in zip(cache.layers, model.config.attn_type_list) if kind == 0
                        for t in layer.tensors()))
    expected = model(ids).logits
    gap = float((torch.cat(logits, 1) - expected).abs().max() / expected.abs().max())
    flat = kept[0] == kept[-1]
    return Milestone("decoding equals reading at once, in constant memory",
                     f"differs by {gap:.0e}; lightning layers keep {kept[0] / 1024:.0f}, then {kept[-1] / 1024:.0f} KiB",
                     f"below {GAP_BAR:g}, and the same", gap < GAP_BAR and flat)


def remembers(evaluated: dict) -> Milestone:
    """Single-record recall of held-out problems after SFT."""
    right = evaluated["families"]["recall"]["accuracy"]
    return Milestone("a record is found again", f"{right:.3f} of recall problems", f"at least {RECALL_BAR}", right >= RECALL_BAR)


@torch.no_grad()
def balanced(model, tokenizer, windows: int) -> Milestone:
    """The busiest expert's share of the work on held-out text, in the worst layer: with four experts 0.25 is even, 0.5 the most."""
    rows = heldout_windows(encode_corpus(load_corpus("stdlib").heldout, tokenizer), 128, windows)
    out = model(rows.input_ids, document_ids=rows.document_ids, positions=rows.positions)
    busiest = float(expert_load(out.expert_ids, model.config.num_local_experts)[0].max())
    return Milestone("experts share the work", f"the busiest one has {busiest:.2f} of it in the worst layer",
                     f"at most {BUSIEST_BAR}", busiest <= BUSIEST_BAR)


def keeps_format(evaluated: dict) -> Milestone:
    """The share of answers in exact format after SFT, in the worst family."""
    worst = min(evaluated["families"][family]["parts"]["format"] for family in FAMILIES)
    return Milestone("answers keep the format after SFT", f"{worst:.3f} in the worst family", f"at least {FORMAT_BAR}", worst >= FORMAT_BAR)


def learns(sft, parts: Parts, rollouts: int, seeds, problems: int, prompts: int) -> Milestone:
    """RL from the SFT model raises the held-out accuracy of pair-sum with every seed, by more than twice its error."""
    rises = [rise(sft, parts, rollouts, seed, problems, prompts) for seed in seeds]
    up = [after.accuracy - before.accuracy > 2 * (before.error**2 + after.error**2) ** 0.5 for before, after in rises]
    said = ", ".join(f"{before.accuracy:.2f} to {after.accuracy:.2f}" for before, after in rises)
    return Milestone("RL raises the reward with every seed", said, f"{len(up)} of {len(up)} up", all(up))


def rise(sft, parts: Parts, rollouts: int, seed: int, problems: int, prompts: int):
    """Scores before and after a few rollout batches at the recipe's learning rate, constant."""
    model = type(sft.model)(sft.model.config, parts)
    model.load_state_dict(sft.model.state_dict())
    optim = OptimConfig(learning_rate=6e-5, weight_decay=0.0, warmup=0.0, decay=0.0)
    config = RLConfig(steps=rollouts, optim=optim, prompts_per_rollout=prompts, seed=seed)
    trainer = RLTrainer(model, sft.tokenizer, config, parts=parts, quiet=True)
    asked = heldout_problems("pair", problems)
    judge = lambda at: score("pair", answer(  # noqa: E731
        model, sft.tokenizer, asked, task_sampling(sft.tokenizer, max_new_tokens=72, seed=at)))
    before = judge(2 * seed)
    for step in range(rollouts):
        trainer.advance(step)
    return before, judge(2 * seed + 1)


# ---------------------------------------------------------------- beside ours


def beside_ours(run: str | Path) -> list[tuple[str, float, tuple[float, float], bool]]:
    """(figure, yours, our band, inside) for the report card of a run of the recipe `nano`.

    The band is our range over three seeds, stretched on both sides by its width: three seeds say little about the tails.
    """
    ours, mine = stored("nano")["cards"], report_card(run)
    scores = lambda stage, family, name="accuracy": (  # noqa: E731
        lambda card: card["stages"][stage]["families"][family][name])
    figures = {f"{family}, accuracy after {stage.upper()}": scores(stage, family)
               for stage, family in (("sft", "pair"), *(("rl", family) for family in FAMILIES))}
    figures["pair, thinking tokens after RL"] = scores("rl", "pair", "thinking")
    figures["held-out text, bits per byte"] = lambda card: card["stages"]["rl"]["bits_per_byte"]
    rows = []
    for name, pick in figures.items():
        low, high = min(map(pick, ours)), max(map(pick, ours))
        low, high = low - (high - low), high + (high - low)
        high = min(high, 1.0) if "accuracy" in name else high
        rows.append((name, pick(mine), (low, high), low <= pick(mine) <= high))
    return rows


def page(run: str | Path, work: str | Path, reached: list[Milestone], rows: list) -> Path:
    """Write `capstone.md` into a run folder: who wrote what, milestones, figures beside ours, the report card.

    Args: work: the folder of the learner's notebooks; reached: what `milestones` gave; rows: what `beside_ours` gave.
    Returns: the file.
    """
    lines = ["# My mini-M1", "", "| part | written by |", "| --- | --- |"]
    lines += [f"| `{part}` | {author} |" for part, author in who_wrote_what(work).items()]
    lines += ["", "| milestone | measured | bar | |", "| --- | --- | --- | --- |"]
    lines += [f"| {m.name} | {m.measured} | {m.bar} | {'reached' if m.reached else 'not reached'} |" for m in reached]
    if rows:
        lines += ["", "| figure | mine | band of three seeds | |", "| --- | ---: | --- | --- |"]
        lines += [f"| {name} | {value:.3f} | {low:.3f} to {high:.3f} | {'inside' if inside else 'outside'} |"
                  for name, value, (low, high), inside in rows]
    text = "\n".join([*lines, "", to_markdown(report_card(run)).replace("# ", "## ", 1), ""])
    path = Path(run) / "capstone.md"
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))
    return path
