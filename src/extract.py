"""Extract descriptors as Hydra's jobs: python src/extract.py images=DIR out=OUT [key=value] [--multirun]."""

import ames_retrieval.door  # noqa: F401 - sees to it that what follows is this library
from ames.config.commands.extract import start

if __name__ == "__main__":
    start()
