"""Evaluate a model on a test set: what src/evaluate.py and ``ames evaluate`` do."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from ames.config import evaluation as door
from ames.config.commands.cascade import evaluate_in_stages
from ames.config.launch import CONF, launch, run
from ames.config.models import trained_model
from ames.config.values import optional_path
from ames.evaluation.evaluate import counts_used, evaluate_test_set, objective, readable
from ames.evaluation.protocols import left_out
from ames.evaluation.test_set import open_test_set
from ames.reporting.tables import format_table


def evaluate(config: DictConfig) -> float:
    if config.cascade is not None:
        return evaluate_in_stages(config)
    test = door.read_dataset(config, "test_dataset")
    folder = door.dataset_folder(config, test)
    protocols, scoring = door.protocols(test), door.scoring(config, test)
    door.say_idle_gpus(config)
    model, name, fusion = trained_model(config, config.model_path)
    grid = door.grid(test, fusion)
    out = door.run_folder()
    choice = door.chooser(config, model, grid.num_rerank)
    opened = open_test_set(folder, model, **door.test_files(test), database=optional_path(config, "database"))
    evaluation = evaluate_test_set(opened, model, protocols, scoring, grid, description=name, choice=choice)
    results = evaluation.save(out)
    rows = [{"num_rerank": 0, "lamb": None, "temp": None} | results["initial"], *results["rows"]]
    print(f"{name} on {test.name}, {counts_used(results)} descriptors (%)")
    print(format_table(readable(rows)))
    for line in left_out(results["queries"]):
        print(line)
    if results["chosen"]:
        print(f"chosen on {results['chosen']['val_dataset']}:")
        print(format_table(readable([results["chosen"]])))
    print(f"results: {out / 'results.json'}")
    return objective(results)


@hydra.main(config_path=CONF, config_name="test", version_base="1.3")
def main(config: DictConfig) -> float:
    return run("evaluate", evaluate, config)


def start() -> None:
    """Run the command with the words of ``sys.argv``."""
    launch("evaluate", main)
