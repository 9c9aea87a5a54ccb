"""Checks of chapter 16."""

from minim1.course.checking import Exercise

EXERCISES: tuple[Exercise, ...] = ()
