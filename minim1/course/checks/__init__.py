"""The one table of exercises: what the learner writes, how it is checked, what it is worth, and which part it is."""

from functools import cache
from importlib import import_module

from minim1.course.checking import Exercise
from minim1.errors import UserError

CHAPTERS = {  # chapters with exercises -> module of their checks; the notebooks are NN_<module>.ipynb
    "01": "text_and_tokens", "02": "softmax_attention", "03": "linear_attention", "04": "lightning_attention",
    "05": "write_the_kernel", "06": "hybrid_block", "07": "mixture_of_experts",
    "08": "pretraining", "09": "long_context", "10": "supervised_fine_tuning", "11": "reinforcement_learning",
    "12": "cispo", "13": "keeping_rl_alive", "14": "tools_and_agents", "15": "serving", "16": "capstone",
}


@cache
def exercises() -> dict[str, Exercise]:
    """Every exercise by its id, in the order of the course."""
    found = {}
    for module in CHAPTERS.values():
        for exercise in import_module(f"minim1.course.checks.{module}").EXERCISES:
            found[exercise.id] = exercise
    return found


def find(exercise_id: str) -> Exercise:
    """Raises: UserError for an id that no exercise has."""
    if exercise_id not in exercises():
        raise UserError(f"there is no exercise {exercise_id!r}; choose one of {', '.join(exercises())}")
    return exercises()[exercise_id]


def of_chapter(chapter: str) -> list[Exercise]:
    """The exercises of a chapter such as "04"."""
    return [exercise for exercise in exercises().values() if exercise.chapter == chapter]


def __getattr__(name: str):
    if name == "EXERCISES":  # made on first use, since the modules of the chapters import this package
        return exercises()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
