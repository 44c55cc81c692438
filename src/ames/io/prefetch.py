"""Read ahead in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, *, reach: int | None = None
) -> Iterator[Result]:
    """``function`` of every item, in order; ``workers`` threads are at most ``reach`` items ahead of whoever
    iterates (None: one each); 0 workers: none.

    ``items`` are drawn in the thread that iterates. What ``function`` raises is raised here, in its place in
    the order. Iteration that is broken off ends the threads, after what they have begun.

    Threads, not processes: copying from a file lets the model go on, nothing has to be sent, and it works
    from any script on any system.
    """
    if not workers:
        yield from map(function, items)
        return
    waiting: deque[Future[Result]] = deque()
    reach = max(workers, reach or 0)
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > reach:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
