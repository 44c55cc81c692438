"""Evaluate a cascade on a test set: ``ames evaluate cascade=NAME``."""

from __future__ import annotations

import json
from typing import Any

from omegaconf import DictConfig

from ames.chains.cascade import Cascade, load_cascade
from ames.chains.chain import Chain
from ames.chains.search_steps import Stored
from ames.config import evaluation as door
from ames.config.launch import given_words
from ames.config.values import optional_path
from ames.errors import AmesError
from ames.evaluation.chains import ChainResult, evaluate_chain, open_chain_set
from ames.evaluation.evaluate import objective, readable
from ames.evaluation.protocols import left_out, query_counts
from ames.evaluation.sweep import evaluate_initial, metrics
from ames.io.atomic import atomic_file
from ames.reporting.tables import format_table

_SAID = ("num_rerank", "lamb", "temp", "query_desc_num", "db_desc_num", "windows")


def evaluate_in_stages(config: DictConfig) -> float:
    """Evaluate the cascade of a configuration; write ``results.json`` and return what a sweeper maximizes.

    AmesError for words that the cascade decides itself, and where it is for other descriptors.
    """
    cascade = load_cascade(str(config.cascade))
    _check_words()
    if cascade.descriptors != config.desc_name:
        raise AmesError(
            f"cascade {cascade.name}: for {cascade.descriptors} descriptors, not {config.desc_name}: give "
            f"descriptors={cascade.descriptors}"
        )
    test = door.read_dataset(config, "test_dataset")
    folder, protocols = door.dataset_folder(config, test), door.protocols(test)
    files = door.test_files(test)
    if files["shortlist"] == "database":
        raise AmesError("nn_file=database: a cascade takes a shortlist of a file: leave the word out")
    opened = open_chain_set(
        folder,
        ground_truth=files["ground_truth"],
        distractors=files["distractors"],
        database=optional_path(config, "database"),
    )
    chain = Chain(cascade.name, (Stored(file=files["shortlist"]), *cascade.stages))
    compute, cache = door.compute(config, test), optional_path(config, "score_cache")
    found = evaluate_chain(chain, opened, protocols, compute=compute, score_cache=cache)
    results = _results(cascade, found, opened.ground_truth, str(test.name))
    results["precision"] = compute.precision
    out = door.run_folder()
    with atomic_file(out / "results.json") as file:
        file.write(json.dumps(results, indent=1).encode())
    rows = [{"cascade": "-"} | results["initial"], *results["rows"]]
    print(f"{cascade.name} on {test.name} (%)")
    print(format_table(readable(rows)))
    for line in left_out(results["queries"]):
        print(line)
    print(
        f"results: {out / 'results.json'} (a cascade has no scores.npz: ames report reads those of one model)"
    )
    return objective(results)


def _results(cascade: Cascade, found: ChainResult, truth: Any, dataset: str) -> dict[str, Any]:
    protocols = list(found.results)
    stages = [f"{step.num_rerank} by {step.codes_of or step.model}" for step in cascade.stages]
    row = {"cascade": cascade.name, "stages": ", ".join(stages)} | metrics(found.results)
    row["seconds"] = round(found.state.online, 3) if found.state.timed else None
    return {
        "dataset": dataset,
        "cascade": cascade.name,
        "queries": query_counts(truth, protocols),
        "initial": metrics(evaluate_initial(found.first, truth, protocols)),
        "rows": [row],
        "chosen": None,
    }


def _check_words() -> None:
    for word in given_words():
        group, _, key = word.key_or_group.rpartition(".")
        if key in _SAID or word.key_or_group in ("model_path", "model") or group == "model":
            raise AmesError(f"{word.input_line}: the cascade says it itself; leave the word out")
        if "val_dataset" in (word.package, word.key_or_group.split(".")[0]):
            raise AmesError(f"{word.input_line}: nothing is chosen for a cascade; leave the word out")
