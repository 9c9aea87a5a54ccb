"""Checks of chapter 02."""

EXERCISES = []
