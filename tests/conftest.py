"""What every test has."""

import logging
import os

import pytest

# Tests find the same files whether or not the learned features' weights are installed; processes inherit it.
os.environ["AMES_BACKBONE"] = "rootsift"


@pytest.fixture(autouse=True)
def every_format_is_fast(monkeypatch):
    """What is tested is the same on every processor: none falls back to fp32, unless a test says so."""
    from ames import precision as formats

    monkeypatch.setattr(formats, "measured", lambda dtype: formats.Rates(1.0, 1.0))


@pytest.fixture(autouse=True)
def the_log_is_as_it_was():
    """A command in this process says what is logged on its own stderr, or is quiet, to its end: no longer."""
    logs = [logging.getLogger(name) for name in (None, "ames")]
    for log in logs:  # a fixture of a whole module may have called one
        log.handlers[:] = [one for one in log.handlers if not _writes_to_nothing(one)]
    before = [(log, log.handlers[:], log.level) for log in logs]
    yield
    for log, handlers, level in before:
        log.handlers[:] = handlers
        log.setLevel(level)


def _writes_to_nothing(handler):
    return getattr(getattr(handler, "stream", None), "closed", False)
