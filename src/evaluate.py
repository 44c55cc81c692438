"""Evaluate a model on a test set: python src/evaluate.py data_root=DIR [key=value ...] [--multirun]."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

import ames_retrieval.door  # noqa: F401 - sees to it that what follows is this library
from ames.config import evaluation as door
from ames.config.launch import launch, run
from ames.config.models import trained_model
from ames.config.values import optional_path, several
from ames.evaluation.evaluate import evaluate_folder, objective, readable
from ames.evaluation.protocols import left_out
from ames.reporting.tables import format_table


def evaluate(config: DictConfig) -> float:
    test = door.read_dataset(config, "test_dataset")
    folder = door.dataset_folder(config, test)
    protocols, scoring = door.protocols(test), door.scoring(config, test)
    model, name, fusion = trained_model(config, config.model_path)
    num_rerank = several(test, "num_rerank")
    out = door.run_folder()
    results = evaluate_folder(
        folder,
        model,
        protocols,
        scoring,
        out=out,
        num_rerank=num_rerank,
        **door.fusion_grid(test, fusion),
        description=name,
        files=door.test_files(test) | {"database": optional_path(config, "database")},
        choice=door.chooser(config, model, num_rerank),
    )
    rows = [{"num_rerank": 0, "lamb": None, "temp": None} | results["initial"], *results["rows"]]
    print(f"{name} on {test.name}, {scoring.query_count} x {scoring.database_count} descriptors (%)")
    print(format_table(readable(rows)))
    for line in left_out(results["queries"]):
        print(line)
    if results["chosen"]:
        print(f"chosen on {results['chosen']['val_dataset']}:")
        print(format_table(readable([results["chosen"]])))
    print(f"results: {out / 'results.json'}")
    return objective(results)


@hydra.main(config_path="../conf", config_name="test", version_base="1.3")
def main(config: DictConfig) -> float:
    return run("evaluate", evaluate, config)


if __name__ == "__main__":
    launch("evaluate", main)
