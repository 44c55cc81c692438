"""Numbers as people read them."""


def size_text(size: float) -> str:
    """Bytes for people: 5.1 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
