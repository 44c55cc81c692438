"""Numbers as text for people."""

from __future__ import annotations


def size_text(size: float) -> str:
    """Bytes for people: 5.1 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def printable(name: str) -> str:
    """Return a name as a terminal may show it: one with control characters as an ASCII literal."""
    return name if name.isprintable() else ascii(name)


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number before words that agree with it: 1 file is, 2,000 files are. many: None: ``one`` and an s."""
    return f"1 {one}" if number == 1 else f"{number:,} {many or one + 's'}"
