"""The examples in the docstrings of `minim1.data` are true."""

import doctest

import pytest

from minim1.data import chat, packing, tokenizer


@pytest.mark.parametrize("module", [chat, packing, tokenizer], ids=lambda module: module.__name__)
def test_examples(module):
    result = doctest.testmod(module)
    assert result.attempted > 0 and result.failed == 0
