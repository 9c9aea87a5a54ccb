"""Checks of chapter 12."""

from minim1.course.checking import Exercise

EXERCISES: tuple[Exercise, ...] = ()
