"""Answers that say no: a status and one line for a person, as JSON, without a path of this machine."""

from __future__ import annotations

import logging

from starlette.requests import Request
from starlette.responses import JSONResponse

from ames.errors import AmesError, first_line

log = logging.getLogger(__name__)


class Refusal(Exception):  # noqa: N818 - it is an answer
    """A request that gets no result: its status, one line of text, and headers of the answer."""

    def __init__(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.status, self.text, self.headers = status, text, headers


def refusal_answer(refusal: Refusal) -> JSONResponse:
    """Return the answer of a refusal."""
    return JSONResponse({"error": refusal.text}, refusal.status, refusal.headers)


def of_library(error: AmesError) -> Refusal:
    """Return what a browser is told of the library's error: its text, unless that may name a file here."""
    text = first_line(error)
    if "/" not in text and "\\" not in text:
        return Refusal(422, text)
    log.error("%s", text)
    return Refusal(500, "the collection cannot be read; the server's terminal says why")


async def on_refusal(_: Request, error: Exception) -> JSONResponse:
    """Starlette's handler of a ``Refusal``."""
    assert isinstance(error, Refusal)
    return refusal_answer(error)


async def on_library_error(_: Request, error: Exception) -> JSONResponse:
    """Starlette's handler of an AmesError."""
    assert isinstance(error, AmesError)
    return refusal_answer(of_library(error))


async def on_unknown_place(_: Request, error: Exception) -> JSONResponse:
    """Starlette's handler of an address, or a method, that does not exist."""
    status = getattr(error, "status_code", 404)
    text = "this address takes another method" if status == 405 else "no such address"
    return refusal_answer(Refusal(status, text, getattr(error, "headers", None)))


async def on_defect(_: Request, error: Exception) -> JSONResponse:
    """Starlette's handler of anything else: the traceback goes to the terminal only."""
    return refusal_answer(Refusal(500, "the server failed; its terminal says why"))
