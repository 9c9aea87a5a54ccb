"""Checks of chapter 14."""

from minim1.course.checking import Exercise

EXERCISES: tuple[Exercise, ...] = ()
