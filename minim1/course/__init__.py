"""The course: its checks and figures, and what lets a learner write GPU kernels without a GPU and without fear.

What a notebook imports:

>>> from minim1.course import block, check, explore, quiz, scale, show, style, yours_or_ours
"""

import importlib

# At once, and both are light: a function that is named like its module would else depend on who imported what before.
from minim1.course.quiz import quiz
from minim1.course.scale import scale

_HOMES = {  # public name -> module; imported on first use
    "check": "checking", "yours_or_ours": "checking",
    "show": "look", "style": "look", "shades": "look", "COLOURS": "look",
    "explore": "widgets",
    "block": "drawing",
}
__all__ = sorted([*_HOMES, "quiz", "scale"])


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'minim1.course' has no attribute {name!r}")
    return getattr(importlib.import_module(f"minim1.course.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
