"""Checks of chapter 01."""

EXERCISES = []
