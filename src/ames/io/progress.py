"""Show the progress of long work: a bar, or one line per minute in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from tqdm import tqdm

_SAID_EVERY = 60.0  # seconds between two lines

Tick = Callable[[int], None]


@contextmanager
def progress(what: str, total: int, unit: str, *, done: int = 0) -> Iterator[Tick]:
    """Yield a function that adds to what is done of ``total``; ``done`` were done before."""
    began = said = time.monotonic()
    n = 0
    with tqdm(total=total, initial=done, desc=what, unit=f" {unit}", disable=None) as bar:

        def tick(more: int) -> None:
            nonlocal said, n
            n += more
            bar.update(more)
            now = time.monotonic()
            if bar.disable and now - said > _SAID_EVERY and n:
                said = now
                rate = n / (now - began)
                left = timedelta(seconds=round(max(0, total - done - n) / rate))
                line = f"{what}: {done + n:,} of {total:,} {unit}, {rate:,.1f} {unit}/s, {left} left"
                print(line, file=sys.stderr, flush=True)

        yield tick
