"""A course folder for nbgrader: what a teacher hands out, collects and grades.

    python3 go.py classroom ../course                       every chapter that has exercises
    python3 go.py classroom ../course --chapters 04 --private ../hidden

The folder gets `nbgrader_config.py` and, for each chapter, an assignment with the notebook of solutions/ and its tests:
`source/04_lightning_attention/04_lightning_attention.ipynb`. All else is nbgrader's; solutions/README.md says how.

nbgrader gives a graded cell no points when something reaches its stderr, and all its points when nothing is raised. So
hidden tests import `check` afresh, in case a hand-in has a `check` of its own, and the settings end endless loops.

Grading runs the code of hand-ins, with the rights of who grades and no cage: an account or a container of its own is the
place for it. Nothing else in a hand-in acts: file names, metadata, outputs and HTML are data, here and in a browser.
"""

import ast
import importlib.util
from collections.abc import Callable
from pathlib import Path

from minim1.course.notebooks import ANSWER, PIECE_ID, complete, normalise, read, root, to_text
from minim1.errors import UserError

BEGIN, END = "### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS"
CONFIG = '''\
"""nbgrader's settings for this course. Yours to change: `minim1 classroom` never overwrites this file."""

import os
import sys

from minim1.course import classroom

# Hand-ins are run in processes that inherit these.
os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]  # where nbgrader's helpers are
os.environ["MINIM1_SCALE"] = "smoke"  # cells without points take seconds
os.environ["OMP_NUM_THREADS"] = "1"

c = get_config()
classroom.configure(c)  # stubs as in exercises/; hidden tests stay out of the feedback
c.CourseDirectory.course_id = "minim1"
c.Execute.timeout = 60  # seconds for one cell; then it is interrupted and gets no points
c.Execute.iopub_timeout = 60  # seconds for its output to arrive, on a busy machine
# Files that a learning platform gives out: STUDENT_04_lightning_attention.ipynb
c.FileNameCollectorPlugin.named_regexp = classroom.FILE_NAMES
'''
# A student's name becomes a folder: it begins with a letter or a digit, and holds no markup and no wildcards.
FILE_NAMES = r'.*[/\\](?P<student_id>[^\W_][^/\\<>&"*?\[\]\x00-\x1f\x7f]*?)_(?P<file_id>\d\d_[a-z_]+)\.ipynb$'
TAGS = ["a", "abbr", "b", "blockquote", "br", "code", "del", "details", "div", "em", "h1", "h2", "h3", "h4", "h5", "h6",
        "hr", "i", "li", "ol", "p", "pre", "span", "strong", "sub", "summary", "sup", "table", "tbody", "td", "th", "thead",
        "tr", "ul"]
SHOWN = ("text/plain", "image/png", "image/jpeg")  # kinds of output


def add_arguments(parser) -> None:
    """The options of the verb `classroom`, for an `argparse` parser; `run` takes what it parses."""
    parser.add_argument("folder", metavar="FOLDER", help="the course folder to make or to complete, such as ../course")
    parser.add_argument("--chapters", nargs="+", metavar="NN", help="such as 03 04; default: all")
    parser.add_argument("--private", metavar="DIR",
                        help="folder with hidden tests of your own: 4.2.py is added to those of exercise 4.2")


def run(arguments) -> None:
    """Do what the command line asks for, and say what was written and what was kept."""
    private = None if arguments.private is None else Path(arguments.private)
    assignments = make(Path(arguments.folder), arguments.chapters, private, say=print)
    print(f"Next: cd {arguments.folder}; nbgrader generate_assignment {assignments[0]}. "
          "The whole way is in solutions/README.md.")


def make(folder: Path, chapters: list[str] | None = None, private: Path | None = None,
         say: Callable[[str], None] = lambda text: None) -> list[str]:
    """Write what is missing in a course folder -> names of its assignments.

    A file that is there and differs is kept, and said so. Raises UserError for a folder inside of the repository, an
    unknown chapter, private tests that belong to no exercise or are no Python, and without nbgrader.
    """
    if importlib.util.find_spec("nbgrader") is None:
        raise UserError("nbgrader is not installed; bring it with: pip install 'minim1[teach]'")
    for place in filter(None, (folder, private)):
        if place.resolve().is_relative_to(root()):
            raise UserError(f"{place} lies inside of the repository, where names, grades and hidden tests could get "
                            "published; choose a folder outside of it, such as ../course")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; choose a folder, new or made by this verb")
    paths = _solutions(chapters)
    tests = {} if private is None else private_tests(private)
    files = {folder / "nbgrader_config.py": CONFIG}
    for path in paths:
        notebook = source(read(path), tests, f"solutions/{path.name}")
        files[folder / "source" / path.stem / path.name] = to_text(notebook)
    for file, text in files.items():
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8", newline="\n")
            say(f"{file} written")
        elif file.read_bytes() != text.encode():
            say(f"{file} was kept, since it differs from what would be written: move it away to get the new one")
    return [path.stem for path in paths]


def _solutions(chapters: list[str] | None) -> list[Path]:
    found = {path.stem[:2]: path for path in sorted((root() / "solutions").glob("[0-9][0-9]_*.ipynb"))}
    if not found:
        raise UserError(f"{root()} has no solutions/ to make a course of; start go.py in a clone of the repository")
    for chapter in chapters or ():
        if chapter not in found:
            raise UserError(f"chapter {chapter!r} has no exercises; choose among {', '.join(found)}")
    return [found[chapter] for chapter in dict.fromkeys(chapters or found)]


def private_tests(folder: Path) -> dict[str, str]:
    """Exercise id -> text of a teacher's hidden tests, from files such as `4.2.py`.

    Raises UserError for a file that names no exercise or is no Python, and where there is no such folder.
    """
    from minim1.course.checks import EXERCISES

    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; expected one with hidden tests in files such as 4.2.py")
    found = {}
    for file in sorted(folder.glob("*.py")):
        if file.stem not in EXERCISES:
            raise UserError(f"{file} belongs to no exercise; name it after one of {', '.join(EXERCISES)}")
        try:
            ast.parse(text := file.read_text(encoding="utf-8"), file.name)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # ValueError: not even text
            raise UserError(f"{file} is not Python ({str(error) or 'nested too deeply'}); mend it") from None
        if "HIDDEN TESTS" in text:
            raise UserError(f"{file} has a line with HIDDEN TESTS in it, which nbgrader would take for the end of the "
                            "region; leave the line out")
        found[file.stem] = text.strip()
    return found


def source(solutions: dict, private: dict[str, str] | None = None, where: str = "notebook") -> dict:
    """The notebook of an assignment: that of solutions/ without its explanations, and with private hidden tests."""
    made = normalise(complete(solutions, where))
    made["cells"] = [cell for cell in made["cells"] if not cell["source"].startswith(ANSWER)]
    for cell in made["cells"]:
        cell["source"] = cell["source"].replace(BEGIN, f"{BEGIN}\nfrom minim1.course import check")
        piece = PIECE_ID.fullmatch(cell["id"])
        if piece and piece[1] == "hidden" and (text := (private or {}).get(_exercise(cell["id"]))):
            cell["source"] = cell["source"].replace(END, f"{text}\n{END}")
    return made


def _exercise(id: str) -> str:
    """
    >>> _exercise("4-2-hidden")
    '4.2'
    """
    return ".".join(id.split("-")[:2])


def markdown(text: str) -> str:
    """Markdown as HTML with harmless tags only; others are shown as they are written.

    >>> markdown("*a* <script>b</script>")
    '<p><em>a</em> &lt;script&gt;b&lt;/script&gt;</p>\\n'
    """
    import bleach
    from nbconvert.filters import markdown2html

    text = text.replace("attachment:", "")  # pictures are not shown; nbconvert gives up on one that is not there
    return bleach.clean(markdown2html(text), tags=TAGS, attributes={"a": ["href"]})


def configure(c) -> None:
    """What `nbgrader_config.py` leaves to us: steps of nbgrader's that say too little or too much, give up, or trust."""
    from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor, Preprocessor
    from nbgrader.converters import Autograde, GenerateAssignment
    from nbgrader.nbgraderformat import MetadataValidator
    from nbgrader.preprocessors import ClearHiddenTests, ClearSolutions, DeduplicateIds, GetGrades

    validator = MetadataValidator()

    class Stubs(ClearSolutions):
        """A stub says which exercise it is, as in exercises/."""

        def preprocess_cell(self, cell, resources, cell_index):
            name = cell.metadata.get("nbgrader", {}).get("grade_id", "")
            if PIECE_ID.fullmatch(name):
                self.code_stub = {"python": f'raise NotImplementedError("exercise {_exercise(name)}")'}
            return super().preprocess_cell(cell, resources, cell_index)

    class Copies(DeduplicateIds):
        """Of a copied cell the last copy counts; nbgrader's empty metadata on the others would stop the whole class, and
        so would what a learner wrote there."""

        def preprocess_cell(self, cell, resources, cell_index):
            self._drop_broken(cell)
            cell, resources = super().preprocess_cell(cell, resources, cell_index)
            self._drop_broken(cell)
            return cell, resources

        def _drop_broken(self, cell):
            try:
                validator.validate_cell(cell)
            except Exception:  # of another version, of another type: whatever it stumbles over
                cell.metadata.pop("nbgrader", None)

    class HideTests(ClearHiddenTests):
        """Feedback says what a hidden test found; nbgrader's would show the test, and again in the traceback."""

        def preprocess_cell(self, cell, resources, cell_index):
            if cell.metadata.get("nbgrader", {}).get("grade"):
                for output in cell.get("outputs", ()):
                    if output.output_type == "error":
                        output.traceback = [f"{output.ename}: {output.evalue}"]
            return super().preprocess_cell(cell, resources, cell_index)

    class Plain(Preprocessor):
        """The pages of a teacher's browser run nothing of a hand-in's: of outputs, texts and pictures stay."""

        def preprocess(self, nb, resources):
            nb.metadata = {"language_info": {"name": "python"}}
            return super().preprocess(nb, resources)

        def preprocess_cell(self, cell, resources, cell_index):
            cell.metadata = {key: value for key, value in cell.metadata.items() if key == "nbgrader"}
            for output in cell.get("outputs", ()):
                if "data" in output:
                    output.data = {kind: text for kind, text in output.data.items() if kind in SHOWN}
                    output.metadata = {}
            if "outputs" in cell:
                cell.outputs = [output for output in cell.outputs if output.get("data") != {}]
            return cell, resources

    def steps(converter, name: str, old: type, new: type) -> list:
        return [new if step is old else step for step in converter.class_traits()[name].default()]

    c.GenerateAssignment.preprocessors = steps(GenerateAssignment, "preprocessors", ClearSolutions, Stubs)
    c.Autograde.sanitize_preprocessors = steps(Autograde, "sanitize_preprocessors", DeduplicateIds, Copies)
    c.HTMLExporter.preprocessors = [Plain]  # of feedback and of the formgrader
    c.HTMLExporter.filters = {"markdown2html": markdown}
    c.GenerateFeedback.preprocessors = [GetGrades, HideTests, CSSHTMLHeaderPreprocessor]
