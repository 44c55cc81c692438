"""Files: written whole, locked, fetched, and read safely; progress."""
