"""Evaluate a model on a test set: python src/evaluate.py data_root=DIR [key=value ...] [--multirun]."""

import ames_retrieval.door  # noqa: F401 - sees to it that what follows is this library
from ames.config.commands.evaluate import start

if __name__ == "__main__":
    start()
