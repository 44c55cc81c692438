"""The words and the body of a request, read within limits."""

from __future__ import annotations

import asyncio
import re

from starlette.requests import ClientDisconnect, Request

from ames.web.refusals import Refusal

SECONDS = 60.0  # in which a body has to arrive
_BOX = re.compile(r"-?\d{1,6}(?:\.\d{1,6})?(?:,-?\d{1,6}(?:\.\d{1,6})?){3}")


async def read_body(request: Request, limit: int, seconds: float = SECONDS) -> bytes:
    """Return the body. Refusal: 413 for more than ``limit`` bytes, before they are read; 408 if late."""
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared) > limit:
        raise _too_large(limit)
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise _too_large(limit)
                parts.append(part)
    except TimeoutError:
        raise Refusal(408, "the photo did not arrive in time", {"Connection": "close"}) from None
    except ClientDisconnect:
        raise Refusal(499, "the client has left") from None
    return b"".join(parts)


def whole(request: Request, name: str, default: int, most: int) -> int:
    """Return a whole number of the address, from 1 to ``most``; Refusal (400) for anything else."""
    text = request.query_params.get(name, str(default))
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= most:
        raise Refusal(400, f"{name}: give a whole number from 1 to {most:,}")
    return int(text)


def box_of(request: Request) -> tuple[float, ...] | None:
    """Return x1, y1, x2, y2 in pixels of the upright photo; None: all of it. Refusal (400) for no box."""
    text = request.query_params.get("box", "")
    if not text:
        return None
    if not _BOX.fullmatch(text):
        raise Refusal(400, "box: give four numbers, left,top,right,bottom in pixels")
    left, top, right, bottom = (float(side) for side in text.split(","))
    if left >= right or top >= bottom:
        raise Refusal(400, "box: right must be more than left, and bottom more than top")
    return left, top, right, bottom


def _too_large(limit: int) -> Refusal:
    size = f"{limit / (1 << 20):.3g} MB"
    return Refusal(413, f"the photo is larger than {size}", {"Connection": "close"})
