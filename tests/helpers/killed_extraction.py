"""What extraction/test_writer.py kills: python killed_extraction.py ROOT OUT SECONDS-AN-IMAGE [CHUNK]."""

import sys
import time
from pathlib import Path

from ames.datasets.finding import find_images
from ames.extraction.batched import BatchedExtractor
from ames.extraction.config import ExtractionConfig
from ames.extraction.pipeline import Images, plan_output, run
from helpers.brightness import Brightness


class Slow(Brightness):
    """Takes its time, so that there is some to be killed in."""

    def maps(self, images):
        time.sleep(float(sys.argv[3]) * len(images))
        return super().maps(images)


def extractor(network, **options):
    config = ExtractionConfig(desc_num=9, workers=2, batch_size=3, **options)
    return BatchedExtractor(network, config)


def extract(root, out, network, *, chunk=14, **options):
    images, source = Images(root, find_images(root).names), extractor(network, **options)
    return run(images, source, plan_output(out / "x", images, source), chunk=chunk)


if __name__ == "__main__":
    extract(Path(sys.argv[1]), Path(sys.argv[2]), Slow())
