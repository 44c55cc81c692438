"""Search with a query image: the global index, then re-ranking."""
