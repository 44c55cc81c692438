"""Commands that make and change databases: ``ames compress | append | delete | compact``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ames.arguments import check_device, positive
from ames.errors import AmesError


def register(commands: Any) -> None:
    """Adds the commands to the sub-parsers of ``ames``."""
    compress = commands.add_parser(
        "compress",
        help="a compact database from descriptors: about a kilobyte an image",
        description="Makes a database from descriptor files; an interrupted call goes on when called again.",
    )
    _source(compress)
    compress.add_argument("--model", type=Path, help="checkpoint (default: the shipped binary one)")
    compress.add_argument("--desc-num", type=positive, default=50, help="local descriptors an image (50)")
    compress.add_argument("--global-factory", default="SQfp16", help="FAISS factory of --global (SQfp16)")
    compress.add_argument("-o", "--out", type=Path, required=True, help="the folder of the database")
    compress.set_defaults(run=_compress)

    append = commands.add_parser("append", help="add images to a database, all or none")
    append.add_argument("database", type=Path)
    _source(append)
    append.add_argument("--model", type=Path, help="the one that made the database (default: shipped)")
    append.set_defaults(run=_append)

    delete = commands.add_parser("delete", help="delete images of a database by name")
    delete.add_argument("database", type=Path)
    delete.add_argument("names", nargs="*", help="of the images")
    delete.add_argument("--list", type=Path, help="a file with a name a line")
    delete.set_defaults(run=_delete)

    compact = commands.add_parser("compact", help="give back the space of deleted images")
    compact.add_argument("database", type=Path)
    compact.set_defaults(run=_compact)


def _source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("descriptors", type=Path, help="local descriptors, HDF5")
    parser.add_argument("--global", dest="vectors", type=Path, help="global descriptors of the same images")
    parser.add_argument("--list", type=Path, help="lines path[,label,...]: names, where the file has none")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (cpu)")


def _compress(args: argparse.Namespace) -> None:
    from ames.database.build import compress

    check_device(args.device)
    source = _open(args)
    model, name = _model(args.model, source.local)
    database = compress(
        source,
        model,
        args.out,
        desc_num=args.desc_num,
        factory=args.global_factory,
        model_name=name,
        device=args.device,
    )
    print(summary(database))


def _append(args: argparse.Namespace) -> None:
    from ames.database.build import append
    from ames.database.store import Database

    check_device(args.device)
    source = _open(args)
    model, _ = _model(args.model, source.local)
    added = append(source, model, args.database, device=args.device)
    print(f"{added:,} images added; {summary(Database(args.database))}")


def _delete(args: argparse.Namespace) -> None:
    from ames.data.images import read_list
    from ames.database.store import Database
    from ames.database.writer import writing

    names = [*args.names, *([item.path for item in read_list(args.list)] if args.list else [])]
    if not names:
        raise AmesError("no name given: give names, or --list FILE")
    with writing(args.database) as writer:
        gone = writer.delete(names)
    print(f"{gone:,} images deleted; {summary(Database(args.database))}")


def _compact(args: argparse.Namespace) -> None:
    from ames.database.store import Database
    from ames.database.writer import writing

    with writing(args.database) as writer:
        gone = writer.compact()
    print(f"{gone:,} rows given back; {summary(Database(args.database))}")


def summary(database: Any) -> str:
    """Size of a database in one line."""
    kind = f"{database.slots} x {database.width} {'bits' if database.codes == 'bits' else 'fp16'}"
    size = f"{len(database):,} images, {database.bytes_per_image:,.1f} bytes each, everything included"
    return f"{database.path}: {size} ({kind}, {database.manifest.global_bytes} global)"


def _open(args: argparse.Namespace) -> Any:
    from ames.data.descriptors import DescriptorFile, GlobalFile
    from ames.data.images import read_list
    from ames.database.build import Source

    names = None if args.list is None else [item.path for item in read_list(args.list)]
    vectors = None if args.vectors is None else GlobalFile(args.vectors)
    return Source(DescriptorFile(args.descriptors), vectors, names)


def _model(path: Path | None, local: Any) -> tuple[Any, str]:
    from ames.checkpoints import load_model
    from ames.data.descriptors import check_backbone
    from ames.weights import SHIPPED, path_of

    if path is None:
        backbone = local.provenance.get("backbone")
        name = f"{backbone}_ames_dist"
        if name not in SHIPPED:
            raise AmesError(
                f"no model is shipped for the descriptors of {local.path}: give --model CHECKPOINT"
            )
        path = path_of(name)
    model = load_model(path)
    if not local.packed:
        check_backbone(local, width=model.local_dim, backbone=None)
    return model, Path(path).name
