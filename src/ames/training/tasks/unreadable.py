"""Tasks that learn from images, of which some cannot be read: how many an epoch leaves out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeVar

from ames.training.task import Batch, Model, Task


class PhotoBatchLike(Protocol):
    """left_out: images of the whole batch that could not be read."""

    @property
    def left_out(self) -> int: ...


B = TypeVar("B", bound=PhotoBatchLike)


class PhotoTask(Task[Model, Batch]):
    """Counts the images that an epoch leaves out: ``unreadable`` of its record, and of the task's state."""

    unreadable = 0

    def counted(self, batches: Iterable[B], start: int) -> Iterator[B]:
        """Yield the batches of an epoch, from batch ``start`` on, and count what they leave out."""
        if start == 0:
            self.unreadable = 0
        for batch in batches:
            self.unreadable += batch.left_out
            yield batch

    def epoch_metrics(self) -> dict[str, float]:
        return {"unreadable": float(self.unreadable)} if self.unreadable else {}

    def state_dict(self) -> dict[str, Any]:
        return {"unreadable": self.unreadable}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.unreadable = state["unreadable"]
