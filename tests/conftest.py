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
def a_command_leaves_the_log_as_it_was():
    """``--quiet`` of one test would hide what another one waits for."""
    logger = logging.getLogger("ames")
    level, handlers = logger.level, list(logger.handlers)
    yield
    logger.setLevel(level)
    logger.handlers = handlers
