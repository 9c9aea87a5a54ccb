"""What has stayed? `quiz("03")`: a chapter's questions, from quizzes/03.toml, as HTML that needs no kernel.

The file, three to five questions with exactly one right option each:

    [[question]]
    text = "What does `state` hold after token t?"

    [[question.option]]
    text = "The sum of all keys"
    feedback = "Keys alone cannot give the values back."

    [[question.option]]
    text = "The decayed sum of k vᵀ"
    right = true
    feedback = "One matrix per head, whatever the length."

Texts are plain; `code` in backquotes is set as code. Maths is written in Unicode.
"""

import html
import re
import tomllib
from pathlib import Path

from minim1.errors import UserError

FOLDER = Path(__file__).parent / "quizzes"


def quiz(chapter: str) -> None:
    """Display the questions of a chapter ("03"): open an option to see whether it is right, and why."""
    from IPython.display import display

    questions = load(FOLDER / f"{chapter}.toml")
    display({"text/html": to_html(questions), "text/plain": to_text(questions)}, raw=True)


def load(path: Path) -> list[dict]:
    """The questions of a file: [{"text", "options": [{"text", "feedback", "right"}]}].

    Raises `UserError` unless there are 3-5 questions, each with at least two options that all have feedback and
    one that is right.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path.name} does not exist; chapters with a quiz are {_chapters(path.parent)}") from None
    except OSError as error:
        raise UserError(f"{path.name} cannot be read ({error.strerror}); make it a file that you may read") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path.name} is not TOML ({error})") from None
    entries = found.get("question", [])
    if not isinstance(entries, list) or not 3 <= len(entries) <= 5 or set(found) - {"question"}:
        raise UserError(f"{path.name} must hold 3 to 5 [[question]] and nothing else")
    return [_question(f"{path.name}, question {number}", entry) for number, entry in enumerate(entries, start=1)]


def _question(where: str, entry) -> dict:
    tables = isinstance(entry, dict) and entry.get("option")
    if not isinstance(tables, list) or set(entry) != {"text", "option"} or len(tables) < 2:
        raise UserError(f"{where} must have `text` and at least two [[question.option]], and nothing else")
    options = []
    for number, option in enumerate(tables, start=1):
        if not isinstance(option, dict):
            raise UserError(f"{where}, option {number} is {option!r}; it must be a table [[question.option]]")
        if unknown := set(option) - {"text", "feedback", "right"}:
            raise UserError(f"{where}, option {number} has {min(unknown)!r}; only text, feedback and right are known")
        for key in ("text", "feedback"):
            _must_be_text(f"{where}, option {number}: {key}", option.get(key))
        if not isinstance(option.get("right", False), bool):
            raise UserError(f"{where}, option {number}: right is {option['right']!r}; it must be true or left out")
        options.append({"right": False, **option})
    _must_be_text(f"{where}: text", entry["text"])
    if (right := sum(option["right"] for option in options)) != 1:
        raise UserError(f"{where} has {right} options with right = true; exactly one must be right")
    return {"text": entry["text"], "options": options}


def _must_be_text(what: str, value) -> None:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{what} is {value!r}; it must be a text that is not empty")


def _chapters(folder: Path) -> str:
    return ", ".join(sorted(path.stem for path in folder.glob("*.toml"))) or "(none)"


def to_html(questions: list[dict]) -> str:
    """Plain HTML: works by keyboard, in a stored notebook, before it is trusted."""
    lines = ["<p>Choose an answer to see what it is worth: click it, or go to it with Tab and press Enter.</p>"]
    for number, question in enumerate(questions, start=1):
        lines.append(f"<p><br><strong>{number}. {_markup(question['text'])}</strong></p>")
        for option in question["options"]:
            verdict = "Right." if option["right"] else "No."
            lines.append(
                f"<details><summary>{_markup(option['text'])}</summary>"
                f"<blockquote><strong>{verdict}</strong> {_markup(option['feedback'])}</blockquote></details>"
            )
    return "\n".join(lines)


def to_text(questions: list[dict]) -> str:
    """For a terminal: the questions and their options, without the answers."""
    lines = []
    for number, question in enumerate(questions, start=1):
        lines.append(f"{number}. {question['text']}")
        lines += [f"   {letter}) {option['text']}" for letter, option in zip("abcdefghij", question["options"])]
    return "\n".join(lines)


def _markup(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text.strip(), quote=False))
