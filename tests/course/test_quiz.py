"""Quizzes: what a file must hold, and HTML that works without a kernel."""

import re
import sys
from html.parser import HTMLParser

import pytest

from minim1.course import quiz
from minim1.course.quiz import FOLDER, load, to_html, to_text
from minim1.errors import UserError

QUESTION = '''
[[question]]
text = "Is `a < b` & <b>true</b>?"
[[question.option]]
text = "yes, `state`"
right = true
feedback = "Since 1 < 2."
[[question.option]]
text = "no"
feedback = "Look at `b` again."
'''


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "07.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.text = [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.open += [] if tag == "br" else [tag]
        self.seen.append((tag, *attributes))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_every_option_opens_to_its_feedback(written):
    page = to_html(load(written(QUESTION * 3)))
    tags = Tags(page)
    assert tags.seen.count(("details",)) == tags.seen.count(("summary",)) == 6
    assert page.count("<strong>Right.</strong> Since 1") == 3 and page.count("<strong>No.</strong> Look at") == 3
    assert "1. Is" in tags.text and "3. Is" in tags.text


def test_texts_are_escaped_and_backquotes_become_code(written):
    tags = Tags(to_html(load(written(QUESTION * 3))))
    assert "Is a < b & <b>true</b>?" in tags.text and ("b",) not in tags.seen
    assert tags.seen.count(("code",)) == 9
    assert all(len(tag) == 1 for tag in tags.seen), "attributes may be dropped from a notebook that is not trusted"


def test_a_terminal_gets_the_questions_and_no_answers(written):
    text = to_text(load(written(QUESTION * 3)))
    assert text.count("Is `a < b`") == 3 and "2. Is" in text and text.endswith("   b) no")
    assert "Since 1 < 2" not in text and "Look at" not in text


@pytest.mark.parametrize("old, new, sentence", [
    (QUESTION, QUESTION * 2, "must hold 3 to 5"),
    (QUESTION, QUESTION * 6, "must hold 3 to 5"),
    (QUESTION, "title = 'x'" + QUESTION * 3, "nothing else"),
    (QUESTION, "question = 3", "must hold 3 to 5"),
    (QUESTION, "question = ['a', 'b', 'c']", "question 1 must have"),
    ("right = true\n", "", "question 1 has 0 options with right"),
    ('text = "no"', 'text = "no"\nright = true', "question 1 has 2 options with right"),
    ("right = true", "right = 1", "option 1: right is 1"),
    ('feedback = "Look at `b` again."', "", "question 1, option 2: feedback is None"),
    ('text = "no"', 'text = " "', "question 1, option 2: text is ' '"),
    ('text = "no"', 'text = "no"\nwhy = "x"', "option 2 has 'why'"),
    ("text = \"Is `a < b` & <b>true</b>?\"\n", "", "question 1 must have `text`"),
    ('[[question.option]]\ntext = "no"\nfeedback = "Look at `b` again."', "", "at least two"),
    ("[[question]]", "[[question", "is not TOML"),
])
def test_what_is_wrong_is_named(written, old, new, sentence):
    text = QUESTION.replace(old, new, 1)
    assert text != QUESTION
    with pytest.raises(UserError, match=re.escape(sentence)) as caught:
        load(written(text if old == QUESTION else text + QUESTION * 2))
    assert str(caught.value).startswith("07.toml")


def test_a_chapter_without_quiz_is_told_which_have_one():
    with pytest.raises(UserError, match="99.toml does not exist; chapters with a quiz are"):
        quiz("99")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_the_quizzes_of_the_course(path):
    questions = load(path)
    right = [next(i for i, option in enumerate(question["options"]) if option["right"]) for question in questions]
    assert len(set(right)) > 1, "the right answer is always in the same place"
    Tags(to_html(questions))


def test_quiz_displays_html_and_text(monkeypatch, written):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **options: shown.append(data))
    monkeypatch.setattr(sys.modules["minim1.course.quiz"], "FOLDER", written(QUESTION * 3).parent)
    quiz("07")
    assert shown[0].keys() == {"text/html", "text/plain"}
