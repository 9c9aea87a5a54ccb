"""What the tests of every chapter's checks need: the notebook with the solutions, and the functions in it."""

import pytest
from tests.mutants import solution_notebook

from minim1.learner import functions


@pytest.fixture(scope="module")
def notebook(request):
    """The solutions of the chapter whose checks the test module imports as `checks`."""
    return solution_notebook(request.module.checks.EXERCISES[0].id)


@pytest.fixture(scope="module")
def solutions(notebook):
    return functions(notebook)
