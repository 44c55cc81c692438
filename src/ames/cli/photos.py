"""Commands for a folder of photos: ``ames index``, ``ames search``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ames.cli.options import add_collection, add_examples, add_output, add_workers, box, tell_progress
from ames.io.console import add_device, check_device, positive

TOP = 10


def register(commands: Any) -> None:
    """Add the commands to the sub-parsers of ``ames``."""
    index = commands.add_parser(
        "index",
        help="make a folder of photos searchable, or bring its collection up to date",
        description="Make a collection of the photos below a folder. A second call adds new photos, drops "
        "deleted ones and updates changed ones; after an interruption, it resumes.",
    )
    add = index.add_argument
    add("photos", type=Path, help="folder of photos, searched with its sub-folders")
    add("-o", "--out", type=Path, required=True, metavar="DB", help="folder of the collection")
    add(
        "--preset",
        help="what photos are described with: aliked, rootsift, dinov2, cvnet, a model of ames models, or a "
        "checkpoint (default: aliked where it is installed, else rootsift)",
    )
    add("--backbone", help="with a checkpoint: the backbone that it was trained on")
    add("--desc-num", type=positive, help="local descriptors stored per photo (default: the model's, 50)")
    add("--embedder", type=Path, help="a file whose gallery side gives the global vectors")
    add("--query-embedder", type=Path, help="the query side's (default: the same file)")
    add("--rehash", action="store_true", help="read all files, also unchanged ones")
    add_output(index)
    add_workers(index)
    add_device(index)
    add_examples(
        index,
        "ames index PHOTOS -o photos.db",
        "ames index PHOTOS -o photos.db --preset dinov2 --device cuda",
    )
    index.set_defaults(run=_index)
    _register_search(commands)


def _register_search(commands: Any) -> None:
    search = commands.add_parser(
        "search",
        help="search a collection with a photo, or with a folder of photos",
        description="Search a collection that ames index made. The score blends global and local similarity.",
    )
    add_collection(search)
    search.add_argument("query", type=Path, help="a photo, or a folder of photos")
    search.add_argument("--box", type=box, metavar="X1,Y1,X2,Y2", help="search for this part, in pixels")
    search.add_argument("--top", type=positive, default=TOP, help=f"results per query ({TOP})")
    search.add_argument(
        "--cascade", metavar="NAME", help="re-rank in stages: a name of conf/cascades, or FILE.yaml"
    )
    search.add_argument("-o", "--out", type=Path, metavar="PAGE", help="write a page of results, .html")
    add_output(search)
    add_device(search)
    add_examples(
        search,
        "ames search photos.db query.jpg --top 5",
        "ames search photos.db query.jpg --box 40,60,300,280 --json",
        "ames search photos.db QUERIES -o report.html",
    )
    search.set_defaults(run=_search)


def _index(args: argparse.Namespace) -> None:
    from ames.database.store import Database
    from ames.io.text import counted, size_text
    from ames.models.registry import preset_model
    from ames.retrieval.indexing import index_photos

    check_device(args.device)
    tell_progress(args)
    given = {key: getattr(args, key) for key in ("backbone", "desc_num", "embedder", "query_embedder")}
    options: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    changes = index_photos(
        args.photos,
        args.out,
        None if args.preset is None else preset_model(args.preset),
        device=args.device,
        workers=args.workers,
        rehash=args.rehash,
        **options,
    )
    database = Database(args.out)
    for line in changes.trouble():
        print(line, file=sys.stderr)
    if args.json:
        held = {"photos": len(database), "bytes_per_photo": round(database.bytes_per_image)}
        print(json.dumps(held | vars(changes), indent=1))
    elif not args.quiet:
        size = size_text(database.bytes_per_image * len(database))
        made_by = database.manifest.model["name"]
        print(f"{args.out}: {changes.summary()}; {counted(len(database), 'photo')}, {size}, {made_by}")


def _search(args: argparse.Namespace) -> None:
    from ames.pipelines.search import search_photos, write_page

    check_device(args.device)
    tell_progress(args)
    answers = search_photos(
        args.database, args.query, box=args.box, k=args.top, device=args.device, cascade=args.cascade
    )
    page = args.out and write_page(answers, args.out, title=f"{args.query} in {args.database}")
    if args.json:
        print(json.dumps([answer.as_dict() for answer in answers], indent=1))
    elif page:
        print(page)
    else:
        print("\n\n".join(answer.text() for answer in answers))
