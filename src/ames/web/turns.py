"""One request is computed at a time, in the order of arrival; a bounded number waits."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from ames.web.refusals import Refusal

T = TypeVar("T")
_LONGEST = 60  # seconds that a client is told to wait at most


class Turns:
    """A thread and its queue. bound: requests that are computed or wait."""

    def __init__(self, bound: int, name: str) -> None:
        self.bound, self.held = bound, 0
        self._seconds = 0.1  # that a request takes, a running mean
        self._turn = asyncio.Lock()  # first come, first served
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place in the queue during the block. Refusal (503) where it is full."""
        if self.held >= self.bound:
            wait = min(max(1, math.ceil(self.held * self._seconds)), _LONGEST)
            raise Refusal(503, "the server is busy; try again in a moment", {"Retry-After": str(wait)})
        self.held += 1
        try:
            yield
        finally:
            self.held -= 1

    async def run(
        self, work: Callable[..., T], *words: Any, left: Callable[[], Awaitable[bool]] | None = None
    ) -> T:
        """Return ``work(*words)``, called in the thread when its turn has come.

        left: whether nobody waits for the result any more; then nothing is computed (Refusal).
        """
        async with self._turn:
            if left is not None and await left():
                raise Refusal(499, "the client has left")
            begun = time.perf_counter()
            result = await asyncio.get_running_loop().run_in_executor(self._thread, work, *words)
            self._seconds += 0.2 * (time.perf_counter() - begun - self._seconds)
            return result

    def close(self) -> None:
        """Begin nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)
