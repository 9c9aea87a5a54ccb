"""The notebooks: their bytes (`form`), exercises from solutions (`exercises`), running a chapter (`chapters`), and
the verb that does and checks all of it (`build`)."""

from minim1.course.notebooks.build import add_arguments, build, chapter_problems, run, solution_problems
from minim1.course.notebooks.chapters import code_hash, environment, execute, stage, words
from minim1.course.notebooks.exercises import ANSWER, SOLUTION, blank, complete, cut, leaks
from minim1.course.notebooks.form import PIECE_ID, normalise, read, root, to_text

__all__ = [
    "ANSWER", "PIECE_ID", "SOLUTION", "add_arguments", "blank", "build", "chapter_problems", "code_hash", "complete", "cut",
    "environment", "execute", "leaks", "normalise", "read", "root", "run", "solution_problems", "stage", "to_text", "words",
]
