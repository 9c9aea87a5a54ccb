"""Checks of chapter 11."""

from minim1.course.checking import Exercise

EXERCISES: tuple[Exercise, ...] = ()
