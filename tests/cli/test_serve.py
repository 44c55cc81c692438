"""The words of ``ames serve``; tests/web has what it serves."""

import logging
import sys

import pytest

from ames.cli.main import main
from ames.web.refusals import Refusal
from ames.web.server import Place, listening
from ames.web.worker import Worker
from helpers import serving


@pytest.fixture(autouse=True)
def log():
    """The command writes the library's log to this test's stderr, which is closed after it."""
    logger = logging.getLogger("ames")
    handlers, level = logger.handlers[:], logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


def refused(capsys, message, *words):
    """Checks status 2 and the one line on stderr."""
    capsys.readouterr()  # what was said before
    try:
        status = main(["serve", *map(str, words)])
    except SystemExit as end:
        status = end.code
    said = capsys.readouterr()
    assert status == 2
    assert (said.out, len(said.err.splitlines())) == ("", 1), said.err
    assert message in said.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "-1"], "'-1' is not a whole number of 0 or more"),
        (["--port", "70000"], "port 70000: give a number from 0 to 65535"),
        (["--queue", "0"], "'0' is not a whole number of 1 or more"),
        (["--max-upload-mb", "x"], "'x' is not a whole number of 1 or more"),
        (["--host", "no such host", "--port", "0"], "host no such host: this machine has no such address"),
        (["--host", "203.0.113.9", "--port", "0"], "203.0.113.9, port 0: cannot listen"),
        (["--device", "abacus"], "--device abacus: cannot be used here"),
        (["--port", "0"], "no database (no manifest.json)"),
    ],
)
def test_wrong_words_are_one_line(tmp_path, capsys, words, message):
    refused(capsys, message, tmp_path, "-q", *words)


def test_a_port_in_use(tmp_path, capsys):
    with listening(Place(port=0)) as taken:
        port = taken.getsockname()[1]
        message = f"port {port} of 127.0.0.1 is in use: give another --port, or 0 for any free one"
        refused(capsys, message, tmp_path, "--port", port)


def test_a_collection_of_unknown_photos_is_refused(tmp_path, capsys):
    (serving.collection(tmp_path, 1) / "photos.json").unlink()
    refused(capsys, "not made by ames index", tmp_path / "photos.db", "--port", "0", "-q")


def test_what_has_to_be_installed(tmp_path, capsys, monkeypatch):
    for name in [
        name for name in sys.modules if name.split(".")[0] == "starlette" or name.startswith("ames.web")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette", None)
    refused(capsys, "starlette is not installed: pip install 'ames-retrieval[serve]'", tmp_path)


def test_what_cannot_be_loaded_is_one_line_before_any_request(tmp_path, capsys, monkeypatch):
    folder = serving.collection(tmp_path, 1)

    def dead(*_):
        raise Refusal(503, "the server cannot start a process that decodes photos")

    monkeypatch.setattr(Worker, "start", dead)
    refused(capsys, "ames serve: the server cannot start a process", folder, "--port", "0", "-q")
