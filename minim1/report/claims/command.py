"""The verb `minim1 claims`: run what is behind one claim or all, and say what follows.

    minim1 claims                        all claims: what is missing is run, a few hours on two cores from nothing
    minim1 claims recall                 one, by name or number; when its own seeds are there, three more are run
    minim1 claims --stored [--json]      what the committed results say; nothing is run
    minim1 claims recall --results runs/again        from nothing, beside the committed results
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from minim1.errors import UserError

SCALES = ("smoke", "cpu", "gpu")
MORE = 3  # seeds that a further run of a complete experiment adds


def add_arguments(parser) -> None:
    """The options of the verb, for an `argparse` parser; `run` takes what it parses."""
    parser.add_argument("name", nargs="?", help="name or number of a claim; default: all")
    parser.add_argument("--stored", action="store_true", help="what the stored results say, running nothing")
    parser.add_argument("--scale", choices=SCALES, help="default: MINIM1_SCALE, else gpu with CUDA, cpu without")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="N", help="run these instead of those that are missing")
    parser.add_argument("--results", type=Path, metavar="DIR",
                        help="where results are and go; default: the package's own, for smoke runs/claims-smoke")
    parser.add_argument("--page", type=Path, metavar="DIR", help="where the page goes; default: runs/claims")
    parser.add_argument("--pictures", action="store_true", help="also an SVG of each claim beside the page (minim1[build])")
    parser.add_argument("--json", action="store_true", help="the claims as JSON on stdout, no page")


def run(arguments, scale: str) -> None:
    """Do what the command line asks for, at a scale."""
    from minim1.report import claims
    from minim1.report.claims import page
    from minim1.report.experiments import RESULTS, runner

    if arguments.seeds is not None and min(arguments.seeds) < 0:
        raise UserError(f"--seeds has {min(arguments.seeds)}; a seed is at least 0")
    rows = [claims.row(arguments.name)] if arguments.name else claims.rows()
    folder = arguments.results or (Path("runs/claims-smoke") if scale == "smoke" else RESULTS)
    experiments = [claims.experiment(name) for name in dict.fromkeys(name for row in rows for name in row.experiments)]
    if arguments.stored:
        results = {e.name: _stored(e, folder, scale) for e in experiments}
    else:
        results = {}
        for group, seeds in _plan(experiments, folder, scale, arguments.seeds):
            results |= runner.run(group, scale, folder, seeds=seeds)
    answers = []
    for row in rows:
        behind = {name: results[name] for name in row.experiments}
        answers.append((row, row.assess(behind), behind))
    if arguments.json:
        print(json.dumps({"scale": scale, "claims": [page.to_json(answer) for answer in page.ordered(answers)]}))
        return
    for row, finding, _ in page.ordered(answers):
        first = finding.measured[0]
        print(f"{row.number:2} {row.name:11} {finding.verdict}\n   {first.what}: {first}\n   {finding.sentence}")
    written = page.write_page(answers, arguments.page or Path("runs/claims"), scale, pictures=arguments.pictures)
    print(f"The page: {written[-1]}", file=sys.stderr)


def _plan(experiments: Sequence, folder: Path, scale: str, seeds: Sequence[int] | None) -> list[tuple[list, object]]:
    """What to run with which seeds: what is missing; only when nothing is, more seeds of everything."""
    from minim1.report.experiments import begin, missing

    if seeds is not None or scale == "smoke":
        return [(experiments, seeds)]
    found = {e.name: begin(e, scale, e.path(folder, scale)) for e in experiments}
    complete = [e for e in experiments if not list(missing(e, found[e.name]))]
    if len(complete) < len(experiments):
        return [([e for e in experiments if e not in complete], None), (complete, [])]
    return [([e], _further(e, found[e.name])) for e in experiments]


def _further(experiment, result: dict) -> list[int]:
    """Seeds that were begun and not finished, else the next few."""
    from minim1.report.experiments import missing, seeds

    own = {seed for chosen in experiment.arms.values() for seed in chosen}
    begun = [s for s in seeds(result) if s not in own and list(missing(experiment, result, [s]))]
    return begun or [max(seeds(result)) + 1 + more for more in range(MORE)]


def _stored(experiment, folder: Path, scale: str) -> dict:
    from minim1.report.experiments import begin, missing

    path = experiment.path(folder, scale)
    if not path.exists():
        raise UserError(f"{path} is not there; run it: minim1 claims --scale {scale}")
    result = begin(experiment, scale, path)
    if scale != "smoke" and (lacking := len(list(missing(experiment, result)))):
        raise UserError(f"{path} is not finished: {lacking} runs are missing; run them: minim1 claims --scale {scale}")
    return result
