"""Checks of chapter 06."""

EXERCISES = []
