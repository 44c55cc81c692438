"""Shortlist and model to scores: scorer, shortlist scores, score cache."""
