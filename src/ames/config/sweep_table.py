"""One table over the jobs of a Hydra sweep, whatever launcher ran them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from ames.evaluation.evaluate import counts_used, readable
from ames.evaluation.protocols import left_out
from ames.evaluation.runs import RESULTS
from ames.io.atomic import atomic_file
from ames.reporting.tables import format_table


class SweepTable(Callback):
    """When a sweep ends, prints the rows of its jobs' results.json as one table, kept as table.txt.

    It reads files, so that jobs may run anywhere; results that were there before the sweep are left out.
    """

    def __init__(self) -> None:
        self._before: dict[Path, int] = {}

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        self._before = _found(Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        found = [path for path, time in _found(folder).items() if self._before.get(path) != time]
        if not found:
            return
        results = {path: json.loads(path.read_text()) for path in sorted(found, key=_number)}
        table = "\n".join([format_table(build_table(results)), *_left_out(results.values())])
        with atomic_file(folder / "table.txt") as file:
            file.write(f"{table}\n".encode())
        print(f"{len(found)} jobs in {folder}\n{table}")


def build_table(jobs: Mapping[Path, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of several results.json, each with its job and data set; the same columns in all."""
    rows = []
    for path, results in jobs.items():
        head = {"job": path.parent.name} | {key: results[key] for key in ("dataset", "model", "shortlist")}
        head["desc_num"] = counts_used(results)
        rows += [head | row for row in readable(results["rows"])]
        if results["chosen"]:
            rows.append(head | {"job": f"{path.parent.name} (chosen)"} | readable([results["chosen"]])[0])
    columns = dict.fromkeys(key for row in rows for key in row)
    return [{key: row.get(key) for key in columns} for row in rows]


def _left_out(jobs: Iterable[dict[str, Any]]) -> list[str]:
    """What the metrics of each data set leave out, once; results of earlier versions do not say it."""
    said = [f"{x['dataset']}: {line}" for x in jobs for line in left_out(x.get("queries", {}))]
    return list(dict.fromkeys(said))


def _found(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob(f"**/{RESULTS}")}


def _number(path: Path) -> tuple[bool, int, str]:
    """Job 10 after job 9; folders whose names are no numbers last, by name."""
    name = path.parent.name
    return not name.isdigit(), int(name) if name.isdigit() else 0, str(path)
