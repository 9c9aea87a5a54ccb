"""The bug hunt: right parts have all properties, every fault is caught by the one made for it, and is a fault of one part."""

from dataclasses import fields

import pytest
import torch

from minim1.report import faults
from minim1.errors import UserError
from minim1.parts import Parts

CAUGHT = [pytest.param(fault, id=fault.caught_by) for fault in faults.FAULTS]


@pytest.mark.parametrize("name", faults.PROPERTIES)
def test_right_parts_have_every_property(name):
    assert faults.PROPERTIES[name](Parts()) is None


@pytest.mark.parametrize("fault", CAUGHT)
def test_a_fault_is_caught_by_its_property_in_one_sentence_with_a_number(fault):
    said = faults.PROPERTIES[fault.caught_by](fault.parts)
    assert said and "\n" not in said and any(letter.isdigit() for letter in said)


def test_every_property_catches_one_fault_of_its_own():
    assert sorted(fault.caught_by for fault in faults.FAULTS) == sorted(faults.PROPERTIES)


@pytest.mark.parametrize("fault", CAUGHT)
def test_a_fault_is_wrong_in_one_part_only(fault):
    wrong = [field.name for field in fields(Parts) if getattr(fault.parts, field.name) is not getattr(Parts(), field.name)]
    assert wrong == [fault.part]


def test_a_gap_is_relative_and_infinite_for_nan():
    expected = torch.tensor([1.0, -4.0])
    assert faults.gap(torch.tensor([1.0, -3.0]), expected) == 0.25
    assert faults.gap(torch.tensor([1.0, float("nan")]), expected) == float("inf")


def test_the_sick_are_all_ten_and_know_which_accusation_is_true():
    parts = {fault.part for fault in faults.FAULTS}
    guilty = {n: [part for part in sorted(parts) if "yes" in faults.accuse(n, part)] for n in range(1, 11)}
    assert all(len(found) == 1 for found in guilty.values())
    stories = {faults.accuse(n, found[0]).partition(": ")[2] for n, found in guilty.items()}
    assert len(stories) == 10
    for number, [part] in guilty.items():
        assert getattr(faults.sick(number), part) is not getattr(Parts(), part)


@pytest.mark.parametrize("number", [0, 11, "1", None])
def test_other_numbers_are_refused(number):
    with pytest.raises(UserError, match="from 1 to 10"):
        faults.sick(number)


def test_an_unknown_part_is_refused():
    with pytest.raises(UserError, match="no part 'attn'"):
        faults.accuse(1, "attn")
