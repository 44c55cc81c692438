"""Neighbours to batches: what an anchor may be paired with, triplets, reading."""
