"""The drawing of the M1 block: every part has its box, what is lit or the learner's own is drawn and said."""

import base64
import dataclasses
import re
import xml.etree.ElementTree as ET

import pytest

from minim1.course.drawing import BOXES, HEIGHT, LIT, WIDTH, block, describe, draw
from minim1.errors import UserError
from minim1.parts import Parts

PARTS = [box.part for box in BOXES if box.part]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def shown(monkeypatch):
    found = []
    monkeypatch.setattr("IPython.display.display", lambda data, **options: found.append((data, options)))
    return found


def texts(svg):
    return ["".join(node.itertext()) for node in ET.fromstring(svg).iter(f"{SVG}text")]


def test_the_boxes_are_the_fields_of_parts():
    assert sorted(PARTS) == sorted(field.name for field in dataclasses.fields(Parts))
    assert {part for part in PARTS if any(text.startswith(part) for text in texts(draw((), ())))} == set(PARTS)


def test_boxes_stay_inside_and_apart():
    for box in BOXES:
        assert box.x >= 4 and box.y >= 12 and box.x + box.width <= WIDTH - 4 and box.y + box.height <= HEIGHT - 4
        for other in BOXES:
            apart = (box.x + box.width < other.x or other.x + other.width < box.x
                     or box.y + box.height < other.y or other.y + other.height < box.y)
            assert box is other or apart, (box.title, other.title)


@pytest.mark.parametrize("part", PARTS)
def test_a_lit_part_differs_by_more_than_colour(part):
    def attributes(svg, name):
        return re.findall(rf'{name}="([^"]+)"', svg)

    plain, lit = draw((), ()), draw((part,), ())
    assert attributes(lit, "stroke-width").count("4") >= 1 and "4" not in attributes(plain, "stroke-width")
    assert attributes(lit, "font-weight").count("700") == attributes(plain, "font-weight").count("700") + 2
    assert LIT in lit and LIT not in plain
    assert f"({part})" in describe((part,), ())


def test_what_is_the_learners_own_is_marked_and_said():
    svg = draw((), ("router", "lightning"))
    assert texts(svg).count("yours") == 2 and "yours" not in texts(draw((), ()))
    said = ET.fromstring(svg).find(f"{SVG}desc").text
    assert said.endswith("Already yours: top-2 router (router), lightning attention (lightning).")


def test_it_is_one_picture_with_a_name_to_a_screen_reader():
    root = ET.fromstring(draw(("lm_loss",), ()))
    assert root.get("role") == "img" and root.find(f"{SVG}title").text
    assert root.find(f"{SVG}desc").text == describe(("lm_loss",), ())
    ids = [node.get("id") for node in root.iter() if node.get("id")]
    assert root.get("aria-labelledby").split() == ids[:2]


def test_block_displays_the_drawing_with_its_alt_text(shown, tmp_path):
    block(lit=["lightning"], folder=tmp_path / "none")
    (data, options), = shown
    alt = describe(("lightning",), ())
    assert data["text/plain"] == alt and options == {"raw": True}
    image = ET.fromstring(data["text/html"].removesuffix(">") + "/>")
    kind, content = image.get("src").split(",")
    assert (image.tag, image.get("alt"), kind) == ("img", alt, "data:image/svg+xml;base64")
    assert base64.b64decode(content).decode() == draw(("lightning",), ())


def test_the_drawing_needs_nothing_from_elsewhere():
    assert "http" not in draw(PARTS, PARTS).replace('xmlns="http://www.w3.org/2000/svg"', "")


@pytest.mark.parametrize("status, marked", [("passed", True), ("wrong", False)])
def test_progress_decides_what_is_yours(shown, tmp_path, monkeypatch, status, marked):
    monkeypatch.setattr("minim1.course.progress.known", lambda folder: {"4.4": status, "4.1": "passed"})
    block(folder=tmp_path)
    assert ("Already yours: lightning attention (lightning)." in shown[0][0]["text/plain"]) is marked


def test_an_empty_folder_marks_nothing(shown, tmp_path):
    block("lightning", folder=tmp_path)
    assert "yours" not in shown[0][0]["text/plain"]


@pytest.mark.parametrize("lit", ["lightening", ["lightning", "norm"]])
def test_an_unknown_part_is_named(lit):
    with pytest.raises(UserError, match="is no part; choose from embedding"):
        block(lit)


def test_a_box_that_is_no_part_can_be_lit_by_its_title():
    assert draw(("RMSNorm",), ()).count('stroke-width="4"') == 3
    assert "Lit up: RMSNorm, lightning attention (lightning)." in describe(("RMSNorm", "lightning"), ())
