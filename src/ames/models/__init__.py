"""Similarity of a query and candidates from local features."""
