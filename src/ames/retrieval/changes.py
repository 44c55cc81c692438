"""What a call of ``ames.index_photos`` did to a collection."""

from __future__ import annotations

from dataclasses import dataclass, field

from ames.io.text import printable


@dataclass(frozen=True)
class Changes:
    """What a call of ``index_photos`` did: numbers of photos, and which photos need a look.

    unreadable: name -> why. without_features: readable, but no search finds them. notes: on other files.
    """

    added: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    without_features: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """Return one line."""
        counts = {"added": self.added, "updated": self.updated, "deleted": self.deleted}
        counts |= {"unchanged": self.unchanged, "unreadable": len(self.unreadable)}
        return ", ".join(f"{n:,} {what}" for what, n in counts.items() if n) or "nothing to do"

    def trouble(self) -> list[str]:
        """Return lines about files that no search finds: all that are unreadable, and why."""
        lines = [f"{printable(name)}: {why}" for name, why in self.unreadable.items()]
        empty = map(printable, self.without_features)
        lines += [f"{name}: has no features that a search could find" for name in empty]
        return lines + self.notes
