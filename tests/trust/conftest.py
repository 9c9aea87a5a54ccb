"""Trust is counted: every test here says how much it tried.

    python3 go.py test tests/trust            minutes, with every other test
    python3 go.py test tests/trust --soak     far more of everything; stores the counts in report/results/trust.json
"""

import time
from collections import Counter

import pytest
import torch
from hypothesis import HealthCheck, settings

from minim1.report.experiments import RESULTS, provenance, write_result

COUNTS, BEGAN = pytest.StashKey[Counter](), pytest.StashKey[float]()


def pytest_configure(config) -> None:
    config.stash[COUNTS], config.stash[BEGAN] = Counter(), time.time()
    slow_is_fine = dict(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("everyday", max_examples=60, derandomize=True, **slow_is_fine)
    settings.register_profile("soak", max_examples=400, **slow_is_fine)
    settings.load_profile("soak" if config.getoption("--soak") else "everyday")


@pytest.fixture(autouse=True)
def denormal_numbers():
    """Training switches them off for its thread; hypothesis makes them up, and is right to wonder where they are."""
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def tries(request):
    """tries(everyday, soak) -> how often a test that draws by chance tries."""
    return lambda everyday, soak: soak if request.config.getoption("--soak") else everyday


@pytest.fixture(scope="session")
def tally(request):
    """tally("escapes tried") counts one of a kind, tally("escapes tried", 7) seven."""

    def count(what: str, many: int = 1) -> None:
        request.config.stash[COUNTS][what] += many

    return count


def pytest_sessionfinish(session, exitstatus) -> None:
    """Only a soak of everything, without a failure, becomes the stored result."""
    config = session.config
    whole = [argument.rstrip("/").endswith("tests/trust") for argument in config.args] == [True]
    if config.getoption("--soak") and exitstatus == 0 and whole and not config.getoption("keyword"):
        place = provenance()
        counts = dict(sorted(config.stash[COUNTS].items()))
        write_result(RESULTS / "trust.json", {**place, "seconds": round(time.time() - config.stash[BEGAN]), "counts": counts})
