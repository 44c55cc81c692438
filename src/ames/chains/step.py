"""A step of a chain: what it needs, what it gives, and its settings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ames.chains.state import Files, State

# What can be known between two steps, in words of messages.
VECTORS = "global descriptors"
LOCAL = "local descriptors"
SHORTLIST = "a shortlist"
COSINES = "a shortlist with cosines of the global descriptors"
RANKING = "a re-ranked list"
OTHER = "local descriptors of another data set"


@dataclass(frozen=True, kw_only=True)
class Step(ABC):
    """One step. Subclasses are frozen dataclasses: their fields are the settings in a configuration.

    needs: of each tuple, one of the facts must hold before. gives, drops: facts that hold, or no longer
    hold, after it. first: it makes a shortlist, and must not follow a step that has made one.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[tuple[str, ...], ...]] = ()
    gives: ClassVar[tuple[str, ...]] = ()
    drops: ClassVar[tuple[str, ...]] = ()
    first: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, state: State) -> State:
        """Return the state after this step. AmesError where files do not fit it."""

    def needed(self) -> Collection[tuple[str, ...]]:
        """Return what must hold before, by the settings."""
        return self.needs

    def check(self, files: Files) -> None:  # noqa: B027 - most steps have nothing to check
        """AmesError where the settings do not fit the files, before anything runs."""

    def reads(self, files: Files) -> list[Path]:
        """Return the files besides descriptors that the result depends on, as they are after ``check``."""
        return []

    def prepare(self, files: Files) -> None:  # noqa: B027 - most steps have nothing to prepare
        """Do what is done once for all data sets and kept, such as training a codebook."""
