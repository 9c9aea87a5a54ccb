"""Checks of chapter 10."""

from minim1.course.checking import Exercise

EXERCISES: tuple[Exercise, ...] = ()
