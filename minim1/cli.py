"""One entry point: `minim1 VERB`. The only module that reads the command line and the environment."""

import argparse
import dataclasses
import json
import os
import shlex
import sys
import time
from pathlib import Path

from minim1.errors import Interrupted, UserError
from minim1.report.bench import command
from minim1.report.claims import command as claims


def main(argv: list[str] | None = None) -> int:
    """Run a verb; returns the exit code: 0, or what the verb says; 2 for a user's mistake (one sentence on stderr), 130
    after Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a console that cannot show a character shows ? for it
    try:
        arguments = parser().parse_args(argv)
        if _rank() and not hasattr(arguments, "resume"):
            return 0  # torchrun started several of a verb that one process does
        code = arguments.function(arguments)
        sys.stdout.flush()
        return code or 0
    except Interrupted as stop:
        if _rank():
            return 130
        again = shlex.join(argv if "--resume" in argv else [*argv, "--resume"])
        print(f"minim1: {stop}; go on with: python3 go.py {again}", file=sys.stderr)
        return 130
    except UserError as mistake:
        if _rank():
            time.sleep(1)  # the first process says the same, and when it ends torchrun ends this one
        print(f"minim1: {mistake}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        why = str(error).partition("\n")[0] or type(error).__name__
        how = ("take less --micro-rows or --workers; what was saved is intact: go on with --resume"
               if hasattr(arguments, "resume") else "ask for less at once")
        print(f"minim1: the memory of this machine is not enough ({why}); {how}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        how = "; go on from the last save, if there was one, with --resume" if hasattr(arguments, "resume") else ""
        print(f"minim1: stopped at once{how}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # e.g. `| head`: what is left to say goes nowhere, also at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _rank() -> int:
    """This process among those that torchrun started; 0 if it did not."""
    return int(os.environ["RANK"]) if "TORCHELASTIC_RUN_ID" in os.environ else 0


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(said in str(error) for said in ("out of memory", "can't allocate memory"))


DEVICES = ("auto", "cpu", "cuda", "mps")


class Parser(argparse.ArgumentParser):
    """argparse, except that a mistake is one sentence like any other."""

    def error(self, message: str):
        raise UserError(f"{message}; see {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    top = Parser(prog="minim1", description="Build, train and talk to a scaled-down MiniMax-M1.")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    _training(verbs.add_parser("train", help="everything: pretraining, SFT, RL, report card"), ("pretrain", "sft", "rl"))
    _training(verbs.add_parser("pretrain", help="pretraining alone"), ("pretrain",))
    for stage, what in (("sft", "supervised fine-tuning"), ("rl", "reinforcement learning")):
        verb = verbs.add_parser(stage, help=f"{what} of a trained model")
        verb.add_argument("--from", dest="start_from", required=True, metavar="RUN", help="run folder to start from")
        _training(verb, (stage,))

    verb = verbs.add_parser("eval", help="accuracy and thinking length on held-out problems, bits per byte")
    _run_argument(verb)
    verb.add_argument("--families", nargs="+", metavar="NAME", help="default: all")
    verb.add_argument("--problems", type=int, default=256, metavar="N")
    verb.add_argument("--difficulty", type=int, metavar="N", help="of the problems; default: each family's own")
    verb.add_argument("--temperature", type=float, default=1.0)
    verb.add_argument("--max-new-tokens", type=int, default=64, metavar="N")
    verb.add_argument("--budget", type=int, metavar="N", help="close the thinking after N tokens")
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--text", action="store_true", help="also bits per byte of the held-out standard library")
    verb.add_argument("--json", action="store_true")
    verb.set_defaults(function=_eval)

    verb = verbs.add_parser("chat", help="talk to a model")
    _run_argument(verb)
    verb.add_argument("--prompt", help="one message instead of a conversation")
    verb.add_argument("--temperature", type=float, default=1.0)
    verb.add_argument("--max-new-tokens", type=int, default=96, metavar="N")
    verb.add_argument("--budget", type=int, metavar="N", help="close the thinking after N tokens")
    verb.add_argument("--no-think", action="store_true", help="answer at once")
    verb.add_argument("--seed", type=int, default=0)
    verb.set_defaults(function=_chat)

    verb = verbs.add_parser("count", help="parameters, active parameters, checkpoint and cache bytes")
    verb.add_argument("--preset", default=None, metavar="NAME", help="nano, small or m1-456b")
    verb.add_argument("--config", metavar="FILE", help="a config.json instead of a preset")
    verb.add_argument("--json", action="store_true")
    verb.set_defaults(function=_count)

    verb = verbs.add_parser("report", help="write the report card of a run again, or compare runs that differ in the seed")
    verb.add_argument("runs", nargs="+", metavar="RUN")
    verb.add_argument("--out", metavar="FILE", help="where to keep the comparison, as JSON")
    verb.add_argument("--json", action="store_true")
    verb.set_defaults(function=_report)

    verb = verbs.add_parser("export", help="write a model for other programs, in the format of transformers or of MiniMax-M1")
    verb.add_argument("run", nargs="?", default="shipped", help="run folder; default: the model in the package")
    verb.add_argument("--to", required=True, choices=("hf", "m1"), help="for transformers, or for what runs MiniMax-M1")
    verb.add_argument("--out", required=True, metavar="DIR", help="new folder")
    verb.add_argument("--dtype", default="fp32", choices=("fp32", "bf16"), help="of the weights")
    verb.set_defaults(function=_export)

    verb = verbs.add_parser("import", help="make a run folder of an exported model")
    verb.add_argument("folder", metavar="DIR", help="what export wrote, or what transformers saved of it")
    verb.add_argument("--out", required=True, metavar="RUN", help="new run folder")
    verb.set_defaults(function=_import)

    verb = verbs.add_parser("bench", help="time ours against other implementations, after checking that both agree")
    command.add_arguments(verb)
    verb.set_defaults(function=command.run)

    verb = verbs.add_parser("claims", help="what the M1 report says, what we measure, and the verdict")
    claims.add_arguments(verb)
    verb.set_defaults(function=_claims)

    verb = verbs.add_parser("doctor", help="what this machine has, and what to expect")
    verb.add_argument("--json", action="store_true")
    verb.set_defaults(function=_doctor)

    from minim1.course.command import add_verbs  # the course stands on the core, which knows it here only

    add_verbs(verbs)
    return top


def _run_argument(verb) -> None:
    verb.add_argument("run", nargs="?", default="shipped", help="run folder; default: the model in the package")
    _parts_argument(verb)


def _parts_argument(verb) -> None:
    verb.add_argument("--parts", metavar="DIR", help="use every part that the notebooks in DIR define, such as work/")


def _training(verb, stages: tuple[str, ...]) -> None:
    verb.add_argument("--preset", metavar="NAME", help="nano, small or smoke; default: small with CUDA, else nano")
    verb.add_argument("--config", metavar="FILE", help="a config.json of your own instead of the preset's model")
    verb.add_argument("--out", metavar="DIR", help="run folder; default: runs/PRESET")
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--corpus", default="stdlib", metavar="DIR", help="folder of text or JSONL files")
    verb.add_argument("--resume", action="store_true", help="go on with the run in the folder")
    verb.add_argument("--workers", type=int, metavar="N", help="processes that share the rows; default: one per core")
    verb.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    _parts_argument(verb)
    verb.add_argument("--part", action="append", default=[], metavar="NAME=MODULE:FUNCTION",
                      help="use your own part; also NAME=NOTEBOOK.ipynb:FUNCTION")
    verb.add_argument("--quiet", action="store_true", help="no progress, no samples")
    verb.add_argument("--json", action="store_true", help="the report card as JSON on stdout")
    verb.add_argument("--bf16", action="store_true", help="autocast to bfloat16; weights and LM head stay fp32")
    verb.add_argument("--micro-rows", type=int, metavar="N", help="rows at once; less needs less memory, same gradient")
    for stage in stages:
        prefix = f"--{stage}-" if len(stages) > 1 else "--"
        verb.add_argument(f"{prefix}steps", dest=f"{stage}_steps", type=int, metavar="N",
                          help="rollout batches" if stage == "rl" else f"steps of {stage}")
        verb.add_argument(f"{prefix}learning-rate", dest=f"{stage}_learning_rate", type=float, metavar="X",
                          help=f"largest learning rate of {stage}")
    if "rl" in stages:
        verb.add_argument("--loss", default="cispo", metavar="NAME", help="cispo, grpo, dapo, ppo or reinforce")
        verb.add_argument("--families", nargs="+", metavar="NAME", help="task families of RL; default: pair")
    verb.set_defaults(function=_train, stages=stages)


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[name]:
        raise UserError(f"device {name!r} is not available here; use --device cpu")
    return name


def _check_options(arguments) -> None:
    """Settings that no model is needed to judge, before torch is imported: a slip is told at once."""
    from minim1.tasks import get_task
    from minim1.train.files import find_run
    from minim1.train.recipes import recipe
    from minim1.train.settings import check_policy_loss

    chosen = recipe(arguments.preset or "nano", arguments.seed)
    for stage in arguments.stages:
        _stage(getattr(chosen, stage), stage, arguments)
    for family in getattr(arguments, "families", None) or ():
        get_task(family)
    if "rl" in arguments.stages:
        check_policy_loss(arguments.loss)
    if arguments.workers is not None and arguments.workers < 1:
        raise UserError(f"--workers is {arguments.workers}; it must be at least 1")
    if arguments.device not in DEVICES:
        raise UserError(f"unknown device {arguments.device!r}; choose {', '.join(DEVICES)}")
    if getattr(arguments, "start_from", None) is not None:
        find_run(arguments.start_from)


def _train(arguments) -> None:
    _check_options(arguments)
    from minim1 import workers
    from minim1.report.card import to_markdown, write_report
    from minim1.train import pipeline

    import torch

    process = workers.launched(os.environ)
    device = _device(arguments.device)
    if process and device == "cuda":
        device = f"cuda:{process.local_rank}"
    job = _job(arguments, device)
    count = arguments.workers if arguments.workers is not None else workers.default_count(torch.device(device))
    if process and arguments.workers is not None:
        raise UserError(f"--workers is {count}, but torchrun has started {process.size} processes already; leave it out")
    first = process is None or process.rank == 0
    if first:  # others would find what it has begun
        _check_out(job, arguments)
    out = Path(job.out)
    log = lambda text: None if arguments.quiet or not first else print(text, file=sys.stderr)  # noqa: E731
    count = process.size if process else count
    log(f"Training {job.recipe.name} into {out} on {device} with {count} worker(s); Ctrl-C saves and stops.")
    if process:
        with workers.join(process, device) as shared:
            pipeline.run(shared, job)
    else:
        workers.run(count, pipeline.run, job)
    if not first:
        return
    card = write_report(out)
    print(json.dumps(card) if arguments.json else to_markdown(card))
    log(f"Report card: {out / 'report.md'}. Talk to it: python3 go.py chat {out}")


def _job(arguments, device: str):
    """The job that the command line describes."""
    from minim1.config import M1Config
    from minim1.parts import Parts
    from minim1.train import pipeline
    from minim1.train.files import find_run
    from minim1.train.recipes import recipe

    start = getattr(arguments, "start_from", None)
    name = arguments.preset or ("small" if device.startswith("cuda") else "nano")
    chosen = dataclasses.replace(recipe(name, arguments.seed), corpus=arguments.corpus)
    if start is not None:
        start = str(find_run(start))
    if start is not None or arguments.config:
        path = arguments.config or Path(start) / "config.json"
        chosen = dataclasses.replace(chosen, model=M1Config.load(path))
    for stage in arguments.stages:
        chosen = dataclasses.replace(chosen, **{stage: _stage(getattr(chosen, stage), stage, arguments)})
    if "rl" in arguments.stages:
        families = {"families": tuple(arguments.families)} if arguments.families else {}
        chosen = dataclasses.replace(
            chosen, policy_loss=arguments.loss, rl=dataclasses.replace(chosen.rl, **families)
        )
    parts = [] if arguments.parts is None else list(_learners_own(arguments.parts, Parts, arguments.quiet).items())
    if arguments.part and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # the installed command's path lacks it; workers inherit the path
    for text in arguments.part:
        field, equals, where = text.partition("=")
        if not equals or ":" not in where:
            raise UserError(f"--part is {text!r}; expected NAME=MODULE:FUNCTION, e.g. policy_loss=mine:my_cispo")
        parts.append((field, where))
    job = pipeline.Job(
        recipe=chosen, out=arguments.out or f"runs/{name}", stages=arguments.stages, start_from=start,
        resume=arguments.resume, device=device, parts=tuple(parts), quiet=arguments.quiet,
    )
    pipeline.check(job)
    return job


def _stage(config, stage: str, arguments):
    """A stage's settings with what the command line says of them."""
    rate = getattr(arguments, f"{stage}_learning_rate")
    if rate is not None and not 0 < rate < 1:
        raise UserError(f"{stage} has learning rate {rate}; it must be above 0 and below 1")
    said = {"steps": getattr(arguments, f"{stage}_steps"), "micro_rows": arguments.micro_rows}
    for name, value in said.items():
        if value is not None and value < 1:
            raise UserError(f"{stage} has {name} = {value}; it must be at least 1")
    optim = {"learning_rate": rate, "autocast": "bfloat16" if arguments.bf16 else None}
    given = lambda values: {name: value for name, value in values.items() if value is not None}  # noqa: E731
    return dataclasses.replace(config, **given(said), optim=dataclasses.replace(config.optim, **given(optim)))


def _check_out(job, arguments) -> None:
    """Never train into a folder that holds another run by accident."""
    out = Path(job.out)
    begun = any((out / stage / "run.json").exists() for stage in job.stages)
    if begun and not job.resume:
        raise UserError(f"{out} already holds a run; go on with it by --resume, or choose another folder with --out")
    if job.resume and not begun:
        raise UserError(f"{out} holds no run to resume; leave --resume out to start one")


def _load(arguments):
    from minim1.train.files import find_run

    find_run(arguments.run)  # before torch is imported
    from minim1.model.parts import ModelParts
    from minim1.parts import find_part
    from minim1.train.checkpoint import load

    own = {} if arguments.parts is None else _learners_own(arguments.parts, ModelParts)
    return load(arguments.run, parts=ModelParts(**{field: find_part(field, where) for field, where in own.items()}))


def _learners_own(folder: str, kind: type, quiet: bool = False) -> dict[str, str]:
    """The learner's parts of a kind, as `--part` would name them; says which, since silence could mean none."""
    from minim1.parts import learners_own

    known = {field.name for field in dataclasses.fields(kind)}
    own = {field: where for field, where in learners_own(folder).items() if field in known}
    if not quiet:
        said = ", ".join(f"{field} from {where.rpartition(':')[0]}" for field, where in own.items())
        print(f"minim1: yours in {folder}: {said or 'none yet'}; all other parts are the package's.", file=sys.stderr)
    return own


def _eval(arguments) -> None:
    from minim1.tasks import get_task
    from minim1.train.recipes import FAMILIES

    families = arguments.families or list(FAMILIES)
    for family in families:
        get_task(family)
    if arguments.problems < 1:
        raise UserError(f"--problems is {arguments.problems}; it must be at least 1")
    model, tokenizer, _ = _load(arguments)
    from minim1.data.corpus import encode_corpus, load_corpus
    from minim1.data.packing import heldout_windows
    from minim1.evaluate import bits_per_byte, evaluate, task_sampling

    sampling = task_sampling(
        tokenizer, max_new_tokens=arguments.max_new_tokens, temperature=arguments.temperature,
        thinking_budget=arguments.budget,
    )
    scores = evaluate(model, tokenizer, families, count=arguments.problems, seed=arguments.seed,
                      difficulty=arguments.difficulty, sampling=sampling)
    result = {"run": arguments.run, "families": {name: dataclasses.asdict(s) for name, s in scores.items()}}
    if arguments.text:
        corpus = load_corpus("stdlib")
        windows = heldout_windows(encode_corpus(corpus.heldout, tokenizer), 256)
        result |= {"bits_per_byte": bits_per_byte(model, tokenizer, windows), "corpus": corpus.info}
    if arguments.json:
        print(json.dumps(result))
        return
    for name, s in scores.items():
        print(f"{name:8} {s.accuracy:.3f} ± {s.error:.3f} of {s.problems} problems, thinking {s.thinking:.1f} tokens")
    if arguments.text:
        print(f"text     {result['bits_per_byte']:.3f} bits per byte ({result['corpus']['python']})")


def _chat(arguments) -> None:
    model, tokenizer, _ = _load(arguments)
    from minim1 import chat

    settings = chat.Settings(arguments.temperature, arguments.max_new_tokens, not arguments.no_think, arguments.budget,
                             arguments.seed)
    if arguments.prompt is None:
        chat.chat(model, tokenizer, settings)
        return
    messages = [{"role": "system", "content": None}, {"role": "user", "content": arguments.prompt}]
    chat.reply(model, tokenizer, messages, settings, sys.stdout)


def _count(arguments) -> None:
    from minim1.config import M1Config, preset
    from minim1.model.count import count, format_count

    if arguments.preset and arguments.config:
        raise UserError("--preset and --config are both given; choose one")
    config = M1Config.load(arguments.config) if arguments.config else preset(arguments.preset or "nano")
    result = count(config)
    print(json.dumps(result) if arguments.json else format_count(result))


def _report(arguments) -> None:
    from minim1.report import card, seeds
    from minim1.train.files import write_json

    if len(arguments.runs) == 1:
        result, text = card.write_report(arguments.runs[0]), card.to_markdown
    else:
        result, text = seeds.gather([Path(run) for run in arguments.runs]), seeds.to_markdown
    if arguments.out:
        write_json(Path(arguments.out), result)
    print(json.dumps(result) if arguments.json else text(result))


def _export(arguments) -> None:
    from minim1.train.files import find_run

    find_run(arguments.run)  # a slip is told before torch is imported
    from minim1 import interop

    print(interop.export(arguments.run, arguments.out, arguments.to, arguments.dtype))


def _import(arguments) -> None:
    from minim1 import interop

    print(interop.bring_in(arguments.folder, arguments.out))


def _claims(arguments) -> None:
    from minim1.course.scale import scale

    stored = "cpu" if arguments.stored else None  # what is committed was measured at this scale
    claims.run(arguments, arguments.scale or stored or scale().name)


def _doctor(arguments) -> None:
    from minim1 import doctor

    found = doctor.report(os.environ.get("OMP_WAIT_POLICY"))
    print(json.dumps(found) if arguments.json else doctor.format_report(found))
