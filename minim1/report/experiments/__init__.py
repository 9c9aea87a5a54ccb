"""Experiments whose results the chapters show; each is run by `python -m minim1.report.experiments.NAME`."""
