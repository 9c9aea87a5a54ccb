"""Checks of chapter 15."""

from minim1.course.checking import Exercise

EXERCISES: tuple[Exercise, ...] = ()
