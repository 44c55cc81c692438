"""Blocks that models share: attention, binarization, initialization."""
