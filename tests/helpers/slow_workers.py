"""What extraction/test_process_pool.py breaks off: python slow_workers.py FOLDER OUT NOTES."""

import sys
import time
from pathlib import Path

import ames.extraction.factory
from ames.backbones.rootsift import RootSift
from ames.cli.main import main


class Noting(RootSift):
    """Leaves a file in ``notes`` for each image that it begins, and takes ``seconds`` for it."""

    def __init__(self, notes, seconds):
        super().__init__()
        self.notes, self.seconds = Path(notes), seconds

    def extract(self, image, count):
        (self.notes / str(time.monotonic_ns())).touch()
        time.sleep(self.seconds)
        return super().extract(image, count)


if __name__ == "__main__":
    ames.extraction.factory.make_backbone = lambda name, **options: Noting(sys.argv[3], 0.5)
    sys.exit(main(["extract", "--images", sys.argv[1], "-o", sys.argv[2], "--workers", "1"]))
