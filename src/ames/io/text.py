"""Numbers as text for people."""

from __future__ import annotations


def counted(count: int, thing: str) -> str:
    """A number of things: 1 image, 2 images."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def size_text(size: float) -> str:
    """Bytes for people: 5.1 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
