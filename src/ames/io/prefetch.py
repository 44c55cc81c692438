"""Read ahead in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(submit: Callable[[Item], Future[Result]], items: Iterable[Item], reach: int) -> Iterator[Result]:
    """Results of submitted items, in order; at most ``reach`` items are ahead of whoever iterates.

    Iteration that is broken off cancels what has not begun.
    """
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(submit(item))
            if len(waiting) > reach:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def ahead(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, *, reach: int | None = None
) -> Iterator[Result]:
    """``function`` of every item, in order; ``workers`` threads are at most ``reach`` items ahead of whoever
    iterates (None: one each); 0 workers: none.

    ``items`` are drawn in the thread that iterates. What ``function`` raises is raised here, in its place in
    the order. Iteration that is broken off ends the threads, after what they have begun.
    """
    if not workers:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from in_order(lambda item: pool.submit(function, item), items, max(workers, reach or 0))
