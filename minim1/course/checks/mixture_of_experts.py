"""Checks of chapter 07."""

EXERCISES = []
