"""What extraction/test_writer.py kills: python killed_extraction.py ROOT OUT SECONDS-AN-IMAGE [CHUNK]."""

import sys
import time
from pathlib import Path

from ames.backbones.selection import Selection
from ames.datasets.finding import find_images
from ames.extraction.batched import BatchedExtractor, NetworkOptions
from ames.extraction.pipeline import Images, Target, run
from helpers.brightness import Brightness


class Slow(Brightness):
    """Takes its time, so that there is some to be killed in."""

    def maps(self, images):
        time.sleep(float(sys.argv[3]) * len(images))
        return super().maps(images)


def source(network):
    return BatchedExtractor(network, Selection(9), options=NetworkOptions(workers=2, batch=3))


def extract(root, out, network, *, chunk=14, **options):
    target = Target(
        out / "x_local.hdf5",
        out / "x_global.hdf5",
        errors=out / "x.errors.csv",
        keep=True,
        chunk=chunk,
        **options,
    )
    return run(Images(root, find_images(root).names), source(network), target)


if __name__ == "__main__":
    extract(Path(sys.argv[1]), Path(sys.argv[2]), Slow())
