"""The course's verbs: check, progress, lab, build, classroom. Each is imported when it is used."""

import json
import sys
from pathlib import Path

from minim1.errors import UserError

DAY = 86400  # seconds


def add_verbs(verbs) -> None:
    """Add them to the `argparse` subparsers of the command."""
    verb = verbs.add_parser("check", help="check the exercises in work/ as graded; exit code 1 unless all pass")
    verb.add_argument("words", nargs="*", metavar="WHAT",
                      help="a chapter (04), an exercise (4.2) or the path of a notebook; default: all in work/")
    _verdict_arguments(verb)
    verb.set_defaults(function=_check)

    verb = verbs.add_parser("progress", help="which exercises are done, and which parts of the model are yours")
    _verdict_arguments(verb)
    verb.set_defaults(function=_progress)

    verb = verbs.add_parser("lab", help="copy missing exercises to work/, open JupyterLab; -- before its options")
    verb.add_argument("--reset", metavar="NN", help="only a fresh copy of exercises NN; yours stays beside it")
    verb.add_argument("arguments", nargs="*", help="for JupyterLab; default: the first chapter")
    verb.set_defaults(function=_lab)

    from minim1.course import classroom, notebooks

    verb = verbs.add_parser("build", help="for those who write the course: exercises from solutions, chapters executed")
    notebooks.add_arguments(verb)
    verb.set_defaults(function=notebooks.run)

    verb = verbs.add_parser("classroom", help="for teachers: an nbgrader course of the exercises")
    classroom.add_arguments(verb)
    verb.set_defaults(function=classroom.run)


def _verdict_arguments(verb) -> None:
    verb.add_argument("--seconds", type=float, default=60.0, metavar="S", help="limit for one exercise; default: 60")
    verb.add_argument("--json", action="store_true")


def _check(arguments) -> int:
    from minim1.course.checking import MARKS
    from minim1.course.progress import select, to_json

    tasks = select(arguments.words, _work())
    missing = [notebook for _, notebook in tasks if isinstance(notebook, Path)]
    if missing and (arguments.words or len(missing) == len(tasks)):
        raise UserError(f"work/{missing[0].name} is not there; `python3 go.py lab` copies the exercises to work/")
    tasks = [(exercise, notebook) for exercise, notebook in tasks if not isinstance(notebook, Path)]
    results = []
    for result in _verdicts(tasks, arguments):
        results.append(result)
        if not arguments.json:
            print(_verdict(result), flush=True)
    counts = {status: sum(result.status == status for result in results) for status in MARKS}
    problems = _problems(tasks)
    if arguments.json:
        _print_json({"exercises": [to_json(result) for result in results], **counts, "problems": problems})
    else:
        unchecked = f", {counts['not checked']} not checked" if counts["not checked"] else ""
        print("\n".join([*problems, f"{counts['passed']} of {len(results)} passed, {counts['wrong']} wrong, "
                                    f"{counts['not started']} not started{unchecked}"]))
    return 0 if counts["passed"] == len(results) else 1


def _progress(arguments) -> None:
    from minim1.course.progress import select, to_json

    tasks = select([], _work())
    results = list(_verdicts(tasks, arguments))
    parts, problems = _parts(results), _problems(tasks)
    if arguments.json:
        _print_json({"exercises": [to_json(result) for result in results], "parts": parts, "problems": problems})
        return
    for title, of_chapter in _chapters(results).items():
        print(f"{title}: {sum(result.status == 'passed' for result in of_chapter)} of {len(of_chapter)} done")
        for result in of_chapter:
            sentence = f": {result.sentence}" if result.sentence else ""
            status = "done" if result.status == "passed" else result.status
            print(f"  {result.mark} {result.exercise.id} {result.exercise.name:18} {status}{sentence}")
    print(f"Parts of the model and its training: {sum(part['yours'] for part in parts)} of {len(parts)} are yours")
    for part in parts:
        whose = "minim1" if not part["yours"] else "yours, wrong" if part["status"] == "wrong" else "yours"
        print(f"  {part['part']:13} {whose:13} {part['where']}")
    print("\n".join(problems), end="\n" if problems else "")


def _verdicts(tasks, arguments):
    from minim1.course.progress import verdicts

    if not 0 < arguments.seconds <= DAY:
        raise UserError(f"--seconds is {arguments.seconds:g}; it must be above 0 and at most {DAY}")
    return verdicts(tasks, _work(), arguments.seconds)


def _verdict(result) -> str:
    """As in the notebook, except that there is no cell to run again."""
    if result.status != "not started":
        return str(result)
    place = f" [{result.where}]" if result.where else f". {result.sentence}"
    return f"{result.mark} {result.exercise.id} {result.exercise.name}: not started{place}"


def _problems(tasks) -> list[str]:
    """Cells that do not parse, one sentence each."""
    opened = {notebook.path: notebook for _, notebook in tasks if not isinstance(notebook, Path)}
    return [problem for notebook in opened.values() for problem in notebook.problems]


def _chapters(results) -> dict[str, list]:
    """Results by the title of their chapter, "04 lightning attention"."""
    from minim1.course.checks import CHAPTERS

    return {
        f"{chapter} {name.replace('_', ' ')}": [result for result in results if result.exercise.chapter == chapter]
        for chapter, name in CHAPTERS.items()
    }


def _parts(results) -> list[dict]:
    """Every part: whose it is, where it stands, and the verdict on its exercise, if it has one."""
    from minim1.learner import Notebook
    from minim1.parts import Parts, learners_own

    own = learners_own(_work(), strict=False) if _work().is_dir() else {}
    places = {part: where.rpartition(":") for part, where in own.items()}
    described = Parts().describe() | {part: Notebook(path).where(name) for part, (path, _, name) in places.items()}
    exercises = {result.exercise.part: result for result in results if result.exercise.part}
    return [
        {"part": part, "yours": part in own, "where": where,
         "exercise": exercises[part].exercise.id if part in exercises else None,
         "status": exercises[part].status if part in exercises else None}
        for part, where in described.items()
    ]


def _lab(arguments) -> None:
    from minim1.course import notebooks, work

    folder = notebooks.root()
    said = [work.reset(folder, arguments.reset)] if arguments.reset is not None else work.prepare(folder)
    for sentence in said:
        print(f"minim1: {sentence}", file=sys.stderr)
    if arguments.reset is None:
        work.lab(folder, arguments.arguments)


def _work() -> Path:
    from minim1.course import notebooks

    return notebooks.root() / "work"


def _print_json(value: dict) -> None:
    print(json.dumps(value, ensure_ascii=False))
