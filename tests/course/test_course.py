"""What notebooks import from `minim1.course`."""

import doctest
import importlib
import subprocess
import sys

import pytest

import minim1.course


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_importing_the_course_is_light():
    heavy = {"torch", "numpy", "plotly", "ipywidgets", "IPython", "nbformat"}
    done = run(f"import sys, minim1.course; print(sorted({heavy} & set(sys.modules)))")
    assert done.stdout.strip() == "[]", done


@pytest.mark.parametrize("name", ["quiz", "scale"])
def test_a_function_named_like_its_module_is_the_function(name):
    done = run(f"import minim1.course.{name}; from minim1.course import {name}; print(callable({name}))")
    assert done.stdout.strip() == "True", done


def test_every_public_name_is_there_and_documented():
    assert set(minim1.course.__all__) <= set(dir(minim1.course))
    for name in set(minim1.course.__all__) - {"COLOURS"}:
        assert callable(getattr(minim1.course, name)) and getattr(minim1.course, name).__doc__, name
    with pytest.raises(AttributeError, match="nothing"):
        minim1.course.nothing


@pytest.mark.parametrize("name", ["look", "scale"])
def test_the_examples_are_true(name):
    pytest.importorskip("plotly")
    result = doctest.testmod(importlib.import_module(f"minim1.course.{name}"))
    assert result.attempted and not result.failed
