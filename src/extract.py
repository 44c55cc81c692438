"""Extract descriptors as Hydra's jobs: python src/extract.py images=DIR out=OUT [key=value] [--multirun]."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

import ames_retrieval.door  # noqa: F401 - sees to it that what follows is this library
from ames.config.extraction import extract
from ames.config.launch import launch, run


@hydra.main(config_path="../conf", config_name="extract", version_base="1.3")
def main(config: DictConfig) -> None:
    run("extract", extract, config)


if __name__ == "__main__":
    launch("extract", main)
