"""Extract descriptors as Hydra's jobs: what src/extract.py does."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from ames.config.extraction import extract
from ames.config.launch import CONF, launch, run


@hydra.main(config_path=CONF, config_name="extract", version_base="1.3")
def main(config: DictConfig) -> None:
    run("extract", extract, config)


def start() -> None:
    """Run the command with the words of ``sys.argv``."""
    launch("extract", main)
