"""Commands about models: ``ames models``, ``ames check-preset``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ames.io.console import add_device, check_device


def register(commands: Any) -> None:
    """Add the commands to the sub-parsers of ``ames``."""
    models = commands.add_parser("models", help="list the models that go by a name")
    models.set_defaults(run=_models)

    check = commands.add_parser(
        "check-preset",
        help="which descriptors a model was trained on: raw or projected",
        description="Score known matching and other photos with raw and with projected descriptors.",
    )
    check.add_argument("name", help="of ames models")
    check.add_argument(
        "--images",
        type=Path,
        metavar="PAIRS",
        help="folder with one sub-folder per object, or a list PHOTO,PHOTO,same|different "
        "(default: generated landmarks)",
    )
    check.add_argument("--weights", help="of the backbone: a file, a folder, or random")
    check.add_argument("--detector", type=Path, help="file of the feature detector")
    add_device(check)
    check.set_defaults(run=_check)


def _models(_: argparse.Namespace) -> None:
    from ames.models.registry import MODELS, SHIPPED
    from ames.reporting.tables import format_table

    rows = []
    for name, entry in MODELS.items():
        elsewhere = "downloaded" if entry.home is None else "at its authors'"
        where = {None: "none", SHIPPED: "in the package"}.get(entry.weights, elsewhere)
        blend = entry.fusion or {}
        rows.append(
            {
                "name": name,
                "class": entry.kind,
                "backbone": entry.backbone or entry.takes or "any",
                "query x database": f"{entry.query_desc_num} x {entry.db_desc_num}",
                "lamb": f"{blend['lamb']:g}" if blend else "-",
                "temp": f"{blend['temp']:g}" if blend else "-",
                "weights": where,
                "licence": entry.licence,
            }
        )
    print(format_table(rows))


def _check(args: argparse.Namespace) -> None:
    from ames.pipelines.check_preset import check_preset
    from ames.reporting.tables import format_table

    check_device(args.device)
    given = {"weights": args.weights, "detector": args.detector}
    options = {key: value for key, value in given.items() if value is not None}
    rows, conclusion = check_preset(args.name, args.images, device=args.device, **options)
    print(format_table(rows))
    print(conclusion)
