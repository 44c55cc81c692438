"""Train a feature detector: python src/train_detector.py data_root=DIR desc_name=NAME [key=value ...].

On several GPUs or machines: torchrun --nproc-per-node N src/train_detector.py data_root=DIR ...
"""

import ames_retrieval.door  # noqa: F401 - sees to it that what follows is this library
from ames.config.commands.train_detector import start

if __name__ == "__main__":
    start()
