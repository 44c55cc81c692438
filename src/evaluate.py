"""Evaluates a model on a test set: python src/evaluate.py data_root=DIR [key=value ...] [--multirun]."""

from __future__ import annotations

import hydra
import numpy as np
from omegaconf import DictConfig

from ames import config as door
from ames.data.folder import DatasetFolder
from ames.evaluation import evaluate_folder
from ames.report import format_table


def evaluate(config: DictConfig) -> float:
    test = config.test_dataset
    folder = DatasetFolder(door.data_folder(config, test.name), config.desc_name)
    model, name = door.trained_model(config, config.model_path)
    out = door.run_folder()
    results = evaluate_folder(
        folder,
        model.to(door.device(config)),
        door.protocols(test),
        out=out,
        query_count=door.whole(test, "query_desc_num"),
        database_count=door.whole(test, "db_desc_num"),
        num_rerank=door.several(test, "num_rerank"),
        lamb=door.several(test, "lamb"),
        temp=door.several(test, "temp"),
        batch_size=door.whole(test, "batch_size"),
        device=door.device(config),
        description=name,
    )
    rows = [{"num_rerank": 0, "lamb": None, "temp": None} | results["initial"], *results["rows"]]
    print(f"{name} on {folder.name}, {results['query_desc_num']} x {results['db_desc_num']} descriptors (%)")
    print(format_table([{k: v for k, v in row.items() if not isinstance(v, dict)} for row in rows]))
    print(f"results: {out / 'results.json'}")
    columns = ("M_map", "H_map", "map")
    maps = [[np.nan if row[k] is None else row[k] for k in columns if k in row] for row in results["rows"]]
    return float(np.max(np.mean(maps, axis=1)))


@hydra.main(config_path="../conf", config_name="test", version_base="1.3")
def main(config: DictConfig) -> float:
    return door.run("evaluate", lambda: evaluate(config))


if __name__ == "__main__":
    door.launch("evaluate", main)
