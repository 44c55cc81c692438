"""Train an embedder: python src/train_embedder.py data_root=DIR [method=NAME] [key=value ...].

On several GPUs or machines: torchrun --nproc-per-node N src/train_embedder.py data_root=DIR ...
"""

import ames_retrieval.door  # noqa: F401 - sees to it that what follows is this library
from ames.config.commands.train_embedder import start

if __name__ == "__main__":
    start()
