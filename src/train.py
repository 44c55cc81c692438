"""Train a model: python src/train.py data_root=DIR [teacher=CHECKPOINT] [key=value ...].

On several GPUs or machines: torchrun --nproc-per-node N src/train.py data_root=DIR ...
"""

import ames_retrieval.door  # noqa: F401 - sees to it that what follows is this library
from ames.config.commands.train import start

if __name__ == "__main__":
    start()
