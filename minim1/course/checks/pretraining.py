"""Checks of chapter 08."""

from minim1.course.checking import Exercise

EXERCISES: tuple[Exercise, ...] = ()
