"""Commands that make and change databases: ``ames choose-codec | compress | append | delete | compact``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ames.errors import AmesError
from ames.io.console import add_device, check_device, positive
from ames.io.text import counted


def register(commands: Any) -> None:
    """Add the commands to the sub-parsers of ``ames``."""
    compress = commands.add_parser(
        "compress",
        help="a compact database from descriptors: about a kilobyte an image",
        description="Make a database from descriptor files; the same call resumes after an interruption.",
    )
    _source(compress)
    compress.add_argument("--model", help="name or checkpoint (default: the shipped binary one)")
    compress.add_argument("--desc-num", type=positive, default=50, help="local descriptors per image (50)")
    compress.add_argument("--global-factory", default="SQfp16", help="FAISS factory of --global (SQfp16)")
    compress.add_argument("-o", "--out", type=Path, required=True, help="the folder of the database")
    compress.set_defaults(run=_compress)

    append = commands.add_parser("append", help="add images to a database, all or none")
    append.add_argument("database", type=Path)
    _source(append)
    append.add_argument("--model", help="the one that made the database (default: shipped)")
    append.set_defaults(run=_append)

    delete = commands.add_parser("delete", help="delete images of a database by name")
    delete.add_argument("database", type=Path)
    delete.add_argument("names", nargs="*", help="of the images")
    delete.add_argument("--list", type=Path, help="lines path[,label,...]: names; quoted where with a comma")
    delete.set_defaults(run=_delete)

    compact = commands.add_parser("compact", help="give back the space of deleted images")
    compact.add_argument("database", type=Path)
    compact.set_defaults(run=_compact)

    choose = commands.add_parser(
        "choose-codec",
        help="which global code and how many local descriptors fit a number of bytes",
        description="Measure codes of your global descriptors against exact search.",
    )
    choose.add_argument("vectors", type=Path, help="global descriptors, HDF5")
    choose.add_argument("--queries", type=Path, help="others to search with (default: a sample of the same)")
    choose.add_argument("--bytes-per-image", type=positive, default=1024, help="all included (1024)")
    choose.add_argument("--desc-bytes", type=positive, default=16, help="of a local code (16)")
    choose.add_argument("--min-local-desc", type=positive, default=50, help="local descriptors at least (50)")
    choose.add_argument("--factories", nargs="+", help="of FAISS (default: some that suit)")
    choose.add_argument("--sample", type=positive, default=500, help="queries (500)")
    choose.add_argument("--json", type=Path, help="file for the metrics")
    choose.set_defaults(run=_choose_codec)


def _source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("descriptors", type=Path, help="local descriptors, HDF5")
    parser.add_argument("--global", dest="vectors", type=Path, help="global descriptors of the same images")
    parser.add_argument("--list", type=Path, help="lines path[,label,...]: names, where the file has none")
    add_device(parser)


def _compress(args: argparse.Namespace) -> None:
    from ames.database.build import compress, finished
    from ames.database.writer import FINISHED

    check_device(args.device)
    source = _open(args)
    model, name = _model(args.model, source.local)
    before = finished(args.out)
    database = compress(
        source,
        model,
        args.out,
        desc_num=args.desc_num,
        factory=args.global_factory,
        model_name=name,
        device=args.device,
    )
    note = ""
    if database.manifest.generation == before:
        note = "; is there already, of the same descriptors and settings"
        if before != database.manifest.source.get(FINISHED):
            note += ", and has been changed since: left as it is"
    print(f"{summary(database)}{note}")


def _append(args: argparse.Namespace) -> None:
    from ames.database.build import append
    from ames.database.store import Database

    check_device(args.device)
    source = _open(args)
    model, _ = _model(args.model, source.local)
    added = append(source, model, args.database, device=args.device)
    told = (
        f"{counted(added, 'image')} added"
        if added
        else "nothing to add, it holds these images with these codes"
    )
    print(f"{told}; {summary(Database(args.database))}")


def _delete(args: argparse.Namespace) -> None:
    from ames.database.store import Database
    from ames.database.writer import writing
    from ames.datasets.lists import read_list

    names = [*args.names, *([item.path for item in read_list(args.list)] if args.list else [])]
    if not names:
        raise AmesError("no name given: give names, or --list FILE")
    with writing(args.database) as writer:
        gone = writer.delete(names)
    told = f"{counted(gone, 'image')} deleted"
    if not gone:
        told = "nothing to delete, an earlier call has deleted them"
    print(f"{told}; {summary(Database(args.database))}")


def _compact(args: argparse.Namespace) -> None:
    from ames.database.store import Database
    from ames.database.writer import writing

    with writing(args.database) as writer:
        before, gone = writer.manifest.generation, writer.compact()
    database = Database(args.database)
    told = f"{counted(gone, 'row')} given back"
    if database.manifest.generation == before:
        told = "nothing to give back"
    print(f"{told}; {summary(database)}")


def _choose_codec(args: argparse.Namespace) -> None:
    from ames.descriptors.vectors import Vectors
    from ames.global_search.choose_code import FACTORIES, measure, pick
    from ames.io.atomic import atomic_file
    from ames.reporting.tables import format_table

    vectors, queries = Vectors.open(args.vectors), None
    if args.queries is not None:
        asked = Vectors.open(args.queries)
        asked.check_searchable(vectors)
        queries = asked.all()
    found, left_out = measure(
        vectors.all(), queries, factories=args.factories or FACTORIES, sample=args.sample
    )
    rows = [
        {"factory": m.factory, "bytes": m.bytes}
        | {f"recall@{k}": 100 * share for k, share in m.recall.items()}
        | {"queries/s": m.queries_per_second, "build s": m.build_seconds}
        for m in found
    ]
    if rows:
        print(format_table(rows))
    for factory, reason in left_out.items():
        print(f"left out: {factory}: {reason}")
    chosen = pick(
        found,
        bytes_per_image=args.bytes_per_image,
        desc_bytes=args.desc_bytes,
        min_local_desc=args.min_local_desc,
    )
    print(
        f"ames compress ... --global-factory {chosen.factory} --desc-num {chosen.desc_num}   "
        f"(about {chosen.bytes_per_image} bytes per image)"
    )
    if args.json is not None:
        with atomic_file(args.json) as file:
            file.write(json.dumps({"rows": rows, "pick": vars(chosen)}, indent=1).encode())


def summary(database: Any) -> str:
    """Size of a database in one line."""
    kind = f"{database.slots} x {database.width} {'bits' if database.codes == 'bits' else 'fp16'}"
    count, each = counted(len(database), "image"), f"{database.bytes_per_image:,.1f} bytes each"
    size = f"{count}, {each}, everything included"
    return f"{database.path}: {size} ({kind}, {database.manifest.global_bytes} global)"


def _open(args: argparse.Namespace) -> Any:
    from ames.database.build import Source
    from ames.datasets.lists import read_list
    from ames.descriptors.local import DescriptorFile, GlobalFile

    names = None if args.list is None else [item.path for item in read_list(args.list)]
    vectors = None if args.vectors is None else GlobalFile(args.vectors)
    return Source(DescriptorFile(args.descriptors), vectors, names)


def _model(path: str | None, local: Any) -> tuple[Any, str]:
    from ames.descriptors.local import check_backbone
    from ames.models.load import load
    from ames.models.registry import shipped_for

    path = path or shipped_for(local.provenance.get("backbone"), binarized=True)
    if path is None:
        raise AmesError(f"no model is shipped for the descriptors of {local.path}: give --model MODEL")
    found = load(path)
    if not local.packed:
        check_backbone(local, width=found.model.local_dim, backbone=found.about.get("backbone"))
    return found.model, found.name
