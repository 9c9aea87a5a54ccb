"""The classroom, with the real nbgrader: release, hand-ins, autograde, feedback, export; and what `make` refuses."""

import csv
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.course import hand_ins

from minim1.course import classroom
from minim1.course.checks import EXERCISES, of_chapter
from minim1.course.notebooks import read, root, to_text
from minim1.errors import UserError

NAMES = hand_ins.names()
SHORT, LONG = "03", "04"  # each student hands in one chapter; every exercise: test_exercises.py
PRIVATE = "check({id!r}, {name}, strict=True, seeds=(4711,))  # the teacher's own"
SHORTCUT = "\n\ndef check(*arguments, **options):\n    pass\n"  # a hand-in may have a `check` of its own


def full(chapter: str) -> int:
    return sum(sum(exercise.points) for exercise in of_chapter(chapter))


# ---------------------------------------------------------------- students


def blank(path: Path) -> None:
    """Handed in as it was handed out."""
    release = path.parents[3] / "release" / path.parent.name / path.name
    path.parent.mkdir(parents=True)
    path.write_bytes(release.read_bytes())


def tampering(path: Path) -> None:
    """Nothing solved; tests made to pass, and `check` to do nothing."""
    exercises = of_chapter(SHORT)
    tests = {hand_ins.cell_id(exercise.id, piece): "pass" for exercise in exercises for piece in ("check", "hidden")}
    first = exercises[0]
    stub = f"def {first.name}(*arguments):\n    raise NotImplementedError('exercise {first.id}')"
    hand_ins.hand_in(path, SHORT, {first.id: stub + SHORTCUT}, solved=False, other=tests)


def noisy(path: Path) -> None:
    """All right, with warnings and prints, also to stderr."""
    hand_ins.hand_in(path, LONG, {exercise.id: hand_ins.noisy(exercise.id) for exercise in of_chapter(LONG)})


def hard_coded(path: Path) -> None:
    """Right on the inputs of the visible checks only."""
    hand_ins.hand_in(path, LONG, hand_ins.hard_coded(LONG, path.parents[3] / "scratch"))


def stumbling(path: Path) -> None:
    """All right but the last exercise, whose function raises; and the cell of the first one is there twice."""
    first, *_, last = of_chapter(LONG)
    crash = f"def {last.name}(*arguments, **options):\n    raise RuntimeError('the learner stumbled')"
    notebook = read(hand_ins.hand_in(path, LONG, {last.id: crash}))
    cells, copied = notebook["cells"], hand_ins.cell_id(first.id, "solution")
    at = next(index for index, cell in enumerate(cells) if cell["id"] == copied)
    cells.insert(at, cells[at] | {"id": "copied", "source": "# a first try"})
    path.write_text(to_text(notebook), encoding="utf-8")


STUDENTS = {  # -> chapter, points
    blank: (SHORT, 0),
    tampering: (SHORT, 0),
    noisy: (LONG, full(LONG)),
    hard_coded: (LONG, sum(exercise.points[0] for exercise in of_chapter(LONG))),
    stumbling: (LONG, full(LONG) - sum(of_chapter(LONG)[-1].points)),
}


# ---------------------------------------------------------------- the way of a course


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course from its release to its grades, made once; treat as read-only."""
    folder = tmp_path_factory.mktemp("class") / "course"
    private = tmp_path_factory.mktemp("private")
    for exercise in EXERCISES.values():
        (private / f"{exercise.id}.py").write_text(PRIVATE.format(id=exercise.id, name=exercise.name), encoding="utf-8")
    assert classroom.make(folder, list(NAMES), private) == list(NAMES.values())
    nbgrader(folder, "generate_assignment", "--assignment=*")
    for student, (chapter, _) in STUDENTS.items():
        student(folder / "submitted" / student.__name__ / NAMES[chapter] / f"{NAMES[chapter]}.ipynb")
    nbgrader(folder, "autograde", "--assignment=*")
    nbgrader(folder, "generate_feedback", "--assignment=*")
    nbgrader(folder, "export")
    return folder


def nbgrader(folder: Path, *words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "nbgrader", *words], cwd=folder, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(root())})
    assert done.returncode == 0, done.stderr[-3000:]


def test_release_is_the_exercise_notebook(course):
    """Cell by cell: same stubs, no solutions, no hidden tests, nothing of the teacher's."""
    for name in NAMES.values():
        release = read(course / "release" / name / f"{name}.ipynb")
        exercise = read(root() / "exercises" / f"{name}.ipynb")
        assert [cell["source"].strip() for cell in release["cells"]] == [cell["source"] for cell in exercise["cells"]]


def test_everyone_gets_the_points_deserved(course):
    with open(course / "grades.csv", encoding="utf-8") as file:
        rows = {(row["student_id"], row["assignment"]): row for row in csv.DictReader(file)}
    for student, (chapter, points) in STUDENTS.items():
        row = rows[student.__name__, NAMES[chapter]]
        assert (float(row["score"]), float(row["max_score"])) == (points, full(chapter)), row


def test_feedback_says_what_is_wrong_and_shows_no_hidden_test(course):
    texts = {}
    for student, (chapter, _) in STUDENTS.items():
        page = course / "feedback" / student.__name__ / NAMES[chapter] / f"{NAMES[chapter]}.html"
        texts[student] = page.read_text(encoding="utf-8")
        assert "Score:" in texts[student]
        assert "HIDDEN TESTS" not in texts[student] and "the teacher" not in texts[student]
    assert "not started" in texts[blank] and "the learner stumbled" in texts[stumbling]


def test_a_source_that_the_teacher_changed_is_kept(course, tmp_path):
    changed = course / "source" / NAMES[SHORT] / f"{NAMES[SHORT]}.ipynb"
    before = changed.read_bytes()
    said = []
    classroom.make(course, [SHORT], say=said.append)  # without the private tests: another source
    assert changed.read_bytes() == before
    assert len(said) == 1 and f"{changed} was kept" in said[0] and "move it away" in said[0]
    said.clear()
    fresh = tmp_path / "fresh"
    classroom.make(fresh, [SHORT])
    classroom.make(fresh, [SHORT], say=said.append)
    assert said == []


# ---------------------------------------------------------------- the teacher's page


def test_the_teachers_page_has_every_exercise_with_its_points_and_minutes():
    page = (root() / "solutions" / "README.md").read_text(encoding="utf-8")
    rows = []
    for chapter in NAMES:
        exercises, minutes = of_chapter(chapter), 0
        for exercise in exercises:
            card = re.search(r"Difficulty (\d) of 5 · about (\d+) minutes", hand_ins.text(exercise.id, "card"))
            rows.append((exercise.id, f"`{exercise.name}`", *map(str, exercise.points), *card.groups()))
            minutes += int(card[2])
            assert f"\n- **{exercise.id}** " in page, f"where do they stumble in {exercise.id}?"
        points = [sum(exercise.points[i] for exercise in exercises) for i in (0, 1)]
        rows.append((f"**{chapter}**", "", *(f"**{n}**" for n in points), "", f"**{minutes}**"))
    table = page.partition("| ---: |\n")[2].partition("\n\n")[0]
    assert [tuple(map(str.strip, line.strip("|").split("|"))) for line in table.splitlines()] == rows


# ---------------------------------------------------------------- collecting; mistakes


def test_files_of_a_learning_platform_are_collected(tmp_path):
    settings = {"get_config": lambda: Settings()}
    exec(classroom.CONFIG, settings)
    pattern = settings["c"].FileNameCollectorPlugin.named_regexp
    name = next(iter(NAMES.values()))
    for path in (f"/c/extracted/s-17.b_{name}.ipynb", f"C:\\c\\extracted\\s-17.b_{name}.ipynb"):
        assert re.match(pattern, path).groupdict() == {"student_id": "s-17.b", "file_id": name}


class Settings:
    def __getattr__(self, name):
        made = self.__dict__[name] = Settings()
        return made


@pytest.mark.parametrize(("file", "text", "sentence"), [
    ("9.9.py", "", "belongs to no exercise"),
    (f"{next(iter(EXERCISES))}.py", "assert (", "is not Python"),
    (f"{next(iter(EXERCISES))}.py", "### END HIDDEN TESTS", "leave the line out"),
])
def test_private_tests_that_cannot_be_are_refused(file, text, sentence, tmp_path):
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / file).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=sentence):
        classroom.make(tmp_path / "course", None, tmp_path / "private")
    assert not (tmp_path / "course").exists()


def test_folders_and_chapters_that_cannot_be_are_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="inside of the repository"):
        classroom.make(root() / "course")
    with pytest.raises(UserError, match="inside of the repository"):
        classroom.make(tmp_path / "course", None, root() / "tests")
    with pytest.raises(UserError, match="no folder"):
        classroom.make(tmp_path / "course", None, tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        classroom.make(tmp_path / "file")
    with pytest.raises(UserError, match="chapter '99' has no exercises"):
        classroom.make(tmp_path / "course", ["99"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'minim1\[teach\]'"):
        classroom.make(tmp_path / "course")
