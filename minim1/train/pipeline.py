"""From text to a reasoning model: pretraining, SFT, RL, an evaluation after each; every stage resumes.

A run's folder holds `tokenizer.json` and a run folder for each stage, `pretrain/ sft/ rl/`, each with an
`eval.json`. The functions here run in every worker; worker 0 alone writes.
"""

import dataclasses
import json
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from minim1.data.corpus import Corpus, TokenStream, encode_corpus, load_corpus
from minim1.data.packing import heldout_windows
from minim1.data.tokenizer import Tokenizer
from minim1.errors import UserError
from minim1.evaluate import answer, bits_per_byte, evaluate, heldout_problems, task_sampling
from minim1.generation import Sampling, generate
from minim1.model.decoder import MiniM1
from minim1.parts import Parts, find_part
from minim1.tasks import SYMBOLS, get_task
from minim1.train.batches import Batches
from minim1.train.checkpoint import RunFolder, load_weights, read_model_file
from minim1.train.files import make_folder, read_json, write_json, write_whole
from minim1.train.loop import Stage, Trainer
from minim1.train.losses import policy_loss
from minim1.train.recipes import FAMILIES, STAGES, Recipe
from minim1.train.rl import RLTrainer
from minim1.workers import Workers, keep_memory


@dataclass(frozen=True)
class Job:
    """What a worker needs to know; `parts` are pairs (field, "module:function" or "notebook.ipynb:function")."""

    recipe: Recipe
    out: str
    stages: tuple[str, ...] = STAGES
    start_from: str | None = None  # run folder whose weights the first stage starts from
    resume: bool = False
    device: str = "cpu"
    parts: tuple[tuple[str, str], ...] = ()
    quiet: bool = False


@dataclass(frozen=True)
class Text:
    """The text of a run in tokens, its tokenizer, and where it comes from."""

    tokenizer: Tokenizer
    train: TokenStream
    heldout: TokenStream
    info: dict


def run(workers: Workers, job: Job) -> None:
    """Do the stages of a job, each from where it stands.

    Raises: UserError when another run writes into the same folder.
    """
    with RunFolder(job.out).lock() if workers.main else nullcontext():
        _run(workers, job)


def _run(workers: Workers, job: Job) -> None:
    torch.set_flush_denormal(True)  # decays underflow; denormal numbers are slow
    keep_memory()
    parts, out = resolve_parts(job), Path(job.out)
    text = prepare_text(workers, job)
    model = MiniM1(job.recipe.model, parts, seed=job.recipe.seed).to(job.device)
    if job.start_from is not None:
        load_weights(model, read_model_file(Path(job.start_from)), Path(job.start_from))
    for name in job.stages:
        folder = RunFolder(out / name)
        if workers.main and folder.saved_step() is None:
            folder.create(settings(job, name, text, workers), text.tokenizer)
        workers.gather(None)  # nobody reads the folder before it exists
        if folder.settings.get("corpus", {}).get("sha256") != text.info["sha256"]:
            raise UserError(
                f"{folder.path} was started on other text than {text.info['source']} holds now ({text.info['python']}); "
                "restore the text, or start a new run in another folder with --out"
            )
        stage = build_stage(name, model, text, job, parts, folder, workers)
        stage.fit()
        evaluate_stage(name, model, text, job, folder, workers)


def check(job: Job) -> None:
    """Raise `UserError` for what can be known to be wrong before any worker starts."""
    resolve_parts(job)
    for family in job.recipe.rl.families:
        get_task(family)
    if job.recipe.corpus != "stdlib":
        load_corpus(job.recipe.corpus)
    for stage in job.stages:
        folder = RunFolder(Path(job.out) / stage)
        if job.resume and (folder.path / "run.json").exists():
            asked = json.loads(json.dumps({"recipe": dataclasses.asdict(job.recipe), "parts": dict(job.parts)}))
            _refuse_difference(folder.path, {key: folder.settings.get(key) for key in asked}, asked)


def _refuse_difference(folder: Path, saved, asked, where: str = "") -> None:
    """Resuming with other settings than the run was started with would make a run that nobody can repeat."""
    if isinstance(saved, dict) and isinstance(asked, dict):
        for key in sorted(saved.keys() | asked.keys(), key=lambda key: (key != "name", key)):  # the preset says most
            _refuse_difference(folder, saved.get(key), asked.get(key), f"{where}.{key}" if where else key)
    elif saved != asked:
        raise UserError(
            f"{folder} was started with {where} = {saved!r}, this command has {asked!r}; "
            "repeat the options of the first command, or choose another folder with --out"
        )


def resolve_parts(job: Job) -> Parts:
    """The parts of a job: the recipe's policy loss, then the replacements asked for."""
    asked = {field: find_part(field, where) for field, where in job.parts}
    return Parts(**({"policy_loss": policy_loss(job.recipe.policy_loss)} | asked))


def prepare_text(workers: Workers, job: Job) -> Text:
    """Corpus, tokenizer (the run's if it has one, else trained and saved) and token streams."""
    corpus: Corpus = load_corpus(job.recipe.corpus)
    path = Path(job.out) / "tokenizer.json"
    source = Path(job.start_from) / "tokenizer.json" if job.start_from else path
    if workers.main and not source.exists():
        tokenizer = Tokenizer.train(corpus.train, job.recipe.model.vocab_size, SYMBOLS)
        _check_vocabulary(tokenizer, job)
        make_folder(path.parent)
        write_whole(path, tokenizer.save)
    workers.gather(None)
    tokenizer = Tokenizer.from_file(source)
    _check_vocabulary(tokenizer, job)
    train, heldout = encode_corpus(corpus.train, tokenizer), encode_corpus(corpus.heldout, tokenizer)
    for stream in (train, heldout):
        heldout_windows(stream, job.recipe.pretrain_mixture.length, 1)  # raises where not even one window fits
    return Text(tokenizer, train, heldout, corpus.info)


def _check_vocabulary(tokenizer: Tokenizer, job: Job) -> None:
    if tokenizer.vocab_size != job.recipe.model.vocab_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} tokens but the model {job.recipe.model.vocab_size}; "
            "use a model of that vocabulary, or more text to train the tokenizer on"
        )


def settings(job: Job, stage: str, text: Text, workers: Workers) -> dict:
    """What run.json records."""
    return {
        "stage": stage, "recipe": dataclasses.asdict(job.recipe), "corpus": text.info,
        "parts": dict(job.parts), "workers": workers.size, "device": job.device,
        "threads": torch.get_num_threads(),
    }


def build_stage(name, model, text: Text, job: Job, parts: Parts, folder: RunFolder, workers: Workers) -> Stage:
    """The trainer of a stage."""
    recipe = job.recipe
    shared = dict(parts=parts, run=folder, workers=workers, quiet=job.quiet)
    every = recipe.sample_every if name != "rl" else max(1, recipe.sample_every // 10)
    shared["after_step"] = None if job.quiet else sampler_of(name, text, every, workers)
    if name == "rl":
        return RLTrainer(model, text.tokenizer, recipe.rl, **shared)
    config, mixture = getattr(recipe, name), getattr(recipe, f"{name}_mixture")
    batches = Batches(name, text.tokenizer, text.train, mixture, seed=recipe.seed, pack=parts.pack)
    return Trainer(model, batches, config, name=name, **shared)


def sampler_of(stage: str, text: Text, every: int, workers: Workers):
    """Prints what the model writes as it learns: a line of text in pretraining, an answer to a held-out problem."""

    def show(step: int, model, write) -> None:
        if step % every or not workers.main:
            return
        family = FAMILIES[step // every % len(FAMILIES)] if stage != "rl" else "pair"
        problem = heldout_problems(family, 1, seed=step)[0]
        said = answer(model, text.tokenizer, [problem], task_sampling(text.tokenizer, seed=step))[0]
        mark = "right" if said.verdict.reward == 1 else "wrong"
        write(f"  {stage} {step}: {problem.prompt} -> {one_line(said.completion)}  [{mark}]")
        if stage == "pretrain":
            start = [text.tokenizer.bod_id, *text.tokenizer.encode("def ")]
            ids = generate(model, [start], Sampling(max_new_tokens=24, temperature=0.7, seed=step)).completions[0]
            write(f"  {stage} {step}: {'def ' + text.tokenizer.decode(ids)!r}")

    return show


def one_line(completion: str) -> str:
    """A completion on one line: the thinking in parentheses, then the answer."""
    return (
        completion.replace("<think>\n", "(").replace("\n</think>\n", ") ").replace("<end_of_sentence>\n", "").replace("\n", " ")
    )


def evaluate_stage(name: str, model, text: Text, job: Job, folder: RunFolder, workers: Workers) -> None:
    """Write `eval.json`: accuracy and thinking per family, bits per byte, and some answers; once per stage."""
    path = folder.path / "eval.json"
    if path.exists():
        return
    began, recipe = time.perf_counter(), job.recipe
    sampling = task_sampling(text.tokenizer, max_new_tokens=recipe.rl.max_new_tokens)
    scores = evaluate(
        model, text.tokenizer, FAMILIES, count=recipe.eval_problems, seed=recipe.seed, sampling=sampling, workers=workers
    )
    windows = heldout_windows(text.heldout, recipe.pretrain_mixture.length, recipe.eval_windows)
    bits = bits_per_byte(model, text.tokenizer, windows, workers=workers)
    if not workers.main:
        return
    problems = [problem for family in FAMILIES for problem in heldout_problems(family, 3, seed=recipe.seed)]
    answers = answer(model, text.tokenizer, problems, replace(sampling, seed=recipe.seed))
    write_json(path, {
        "stage": name, "bits_per_byte": bits, "families": {f: dataclasses.asdict(s) for f, s in scores.items()},
        "answers": [
            {"family": a.problem.family, "prompt": a.problem.prompt, "completion": a.completion, "reward": a.verdict.reward}
            for a in answers
        ],
        "seconds": time.perf_counter() - began,
    })


def stage_result(folder: Path) -> dict:
    """eval.json of a finished stage, with the seconds and tokens its training took."""
    records = RunFolder(folder).metrics()
    last = records[-1] if records else {}
    return {**read_json(folder / "eval.json"), "training_seconds": last.get("seconds"), "tokens": last.get("total_tokens")}
