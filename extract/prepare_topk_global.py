"""Make the shortlist of a data set from its global descriptors, with the paper's arguments.

python extract/prepare_topk_global.py --dataset D --desc_name dinov2 --data_root DIR [--shortlist_size 1600]

A data set without a query file is a training set: its images are searched among themselves. With
--distractors revisitop1m those images follow the gallery, and the shortlist is written to DIR/D+1m.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import ames_retrieval.door  # noqa: F401 - sees to it that what follows is this library
from ames.datasets.layout import DatasetFolder
from ames.errors import AmesError
from ames.global_search.build import Source, existing, make, make_superglobal
from ames.global_search.exact import BLOCK
from ames.global_search.superglobal import Reranking
from ames.io.console import OneLineParser, add_device, check_device, natural, positive, run_script

MILLION = "revisitop1m"  # the distractors that the published names call +1M


def main() -> None:
    args = _parser().parse_args()
    check_device(args.device)
    folder = DatasetFolder(args.data_root / args.dataset, args.desc_name)
    given = {"top": args.top_m, "neighbours": args.neighbours, "beta": args.beta}
    settings = Reranking(**{key: value for key, value in given.items() if value is not None})
    if args.rerank is None and any(x is not None for x in given.values()):
        raise AmesError("--top_m, --neighbours and --beta are for --rerank superglobal")
    source = Source(
        folder=folder,
        training=not folder.vectors("gallery").exists(),
        more=[_vectors(args.data_root, name, args.desc_name) for name in args.distractors],
        target=_target(folder, args.distractors),
        kind=args.format,
    )
    if args.rerank is not None and source.training:
        raise AmesError(f"--rerank: {folder.vectors('gallery')} is not there; only test sets are re-ranked")
    kept = existing(source)
    path = make(
        source, size=args.shortlist_size, skip_self=args.skip_self, device=args.device, block=args.block
    )
    print(path, flush=True)
    there = [path] if kept == path else []
    if args.rerank is not None:
        reranked = source.place.path / f"nn_superglobal.{source.kind}"
        there += [reranked] if reranked.is_file() else []
        print(make_superglobal(source, path, settings, device=args.device))
    for file in there:  # stdout is paths, for scripts
        print(f"{file}: is there already", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--dataset", required=True, help="name of the data set's folder")
    add("--desc_name", required=True, help="dinov2, cvnet, rootsift ...")
    add("--data_root", type=Path, required=True)
    add("--shortlist_size", type=positive, help="entries per query (the whole gallery; 300 in training)")
    add("--skip_self", action="store_true", help="training images do not find themselves")
    add(
        "--distractors",
        nargs="+",
        default=[],
        metavar="NAME",
        help="data sets below --data_root, or .hdf5 files, that follow the gallery",
    )
    add("--format", choices=("npz", "pkl"), default="npz", help="pkl: as published")
    add_device(parser)
    add("--block", type=positive, default=BLOCK, help=f"queries at a time ({BLOCK})")
    add("--rerank", choices=("superglobal",), help="writes nn_superglobal too")
    add("--top_m", type=positive, help="entries per query that are re-ranked (400)")
    add("--neighbours", type=natural, help="K of the re-ranking (9)")
    add("--beta", type=float, help="their weight (0.15)")
    return parser


def _vectors(root: Path, name: str, descriptors: str) -> Path:
    """The global descriptors of some distractors."""
    if Path(name).suffix == ".hdf5":
        return Path(name)
    folder = DatasetFolder(root / name, descriptors)
    places = [folder.vectors(split) for split in ("", "gallery")]
    for place in places:
        if place.is_file():
            return place
    raise AmesError(f"--distractors {name}: neither {places[0]} nor {places[1]} is there")


def _target(folder: DatasetFolder, distractors: list[str]) -> DatasetFolder | None:
    """The folder of the larger gallery, beside the data set's own."""
    if not distractors:
        return None
    ends = ["1m" if name == MILLION else Path(name).stem for name in distractors]
    return DatasetFolder(folder.path.with_name("+".join([folder.name, *ends])), folder.descriptors)


if __name__ == "__main__":
    run_script("prepare_topk_global", main)
