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
    """A command in this process says what the library logs on its own stderr, or is quiet, to its end."""
    log = logging.getLogger("ames")
    handlers, level = log.handlers[:], log.level
    yield
    log.handlers[:] = handlers
    log.setLevel(level)
