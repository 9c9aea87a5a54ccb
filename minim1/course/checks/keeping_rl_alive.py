"""Checks of chapter 13."""

from minim1.course.checking import Exercise

EXERCISES: tuple[Exercise, ...] = ()
