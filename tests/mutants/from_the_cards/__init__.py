"""Right and wrong solutions written from the exercise cards alone, before their author had seen the checks.

Each module has `MUTANTS`, exercise id -> [(name, source, "right" or "wrong")]. The sources are many and terse: most are
patches of a right solution. Some that are called wrong turned out to be equal to a right one within the tolerance.
"""

import importlib
import pkgutil
from functools import cache


@cache
def written() -> dict[str, list[tuple[str, str, str]]]:
    """Exercise id -> its solutions, of all modules here."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        found |= importlib.import_module(f"{__name__}.{module.name}").MUTANTS
    return found


class Cards(dict):
    """What a module gathers its solutions in; `MUTANTS = Cards()`."""

    def add(self, exercise_id: str, name: str, kind: str, source: str) -> None:
        self.setdefault(exercise_id, []).append((name, source.strip("\n") + "\n", kind))

    def family(self, exercise_id: str, base: str, items: list[tuple[str, ...]]) -> None:
        """Patches of one source: (name, kind, old, new, old, new, ...); each `old` must be there, once replaced."""
        for name, kind, *pairs in items:
            source = base
            for old, new in zip(pairs[::2], pairs[1::2]):
                assert old in source, (exercise_id, name, old)
                source = source.replace(old, new, 1)
            assert source != base or name == "base", (exercise_id, name)
            self.add(exercise_id, name, kind, source)
