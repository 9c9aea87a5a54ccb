"""Checks of chapter 09."""

from minim1.course.checking import Exercise

EXERCISES: tuple[Exercise, ...] = ()
