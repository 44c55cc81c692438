"""Look at, compare and convert files."""
