"""LASP and LASP+ over real processes, for chapter 04; the code is in `minim1/report/sequence_parallel.py`."""

from minim1.report.sequence_parallel import FORMS, Result, attend, chain, gathered, run

__all__ = ["FORMS", "Result", "attend", "chain", "gathered", "run"]
