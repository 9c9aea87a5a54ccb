"""Checks of chapter 05."""

EXERCISES = []
