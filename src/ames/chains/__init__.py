"""Chains of steps, search result → search result: first search, expansion, re-ranking, cascades."""
