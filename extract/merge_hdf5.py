"""Merge the parts of a data set's descriptor files into one virtual file each, with the paper's arguments.

python extract/merge_hdf5.py --dataset D --desc_name dinov2 --data_root DIR [--parts 5] [--copy]

Parts are <desc>[_gallery|_query]_local_<i>.hdf5 (or ..._<i>_local.hdf5), numbered from 0 or 1 without a gap,
and the same with cls or global in place of local. The merged file is beside them and names them without a
folder, so that all can be moved together.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import ames_retrieval.door  # noqa: F401 - sees to it that what follows is this library
from ames.datasets.layout import DatasetFolder
from ames.descriptors.merge import find_parts, merge_parts
from ames.errors import AmesError
from ames.io.console import OneLineParser, run_script


def main() -> None:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dataset", required=True, help="name of the data set's folder")
    parser.add_argument("--desc_name", required=True, help="dinov2, cvnet, rootsift ...")
    parser.add_argument("--data_root", type=Path, required=True)
    parser.add_argument("--parts", type=int, help="how many there must be (default: as many as there are)")
    parser.add_argument("--copy", action="store_true", help="copy them into one file, for which they may go")
    args = parser.parse_args()
    folder = DatasetFolder(args.data_root / args.dataset, args.desc_name)
    if not folder.path.is_dir():
        raise AmesError(f"{folder.path}: no such folder")
    targets = [make(split) for split in ("", "gallery", "query") for make in (folder.local, folder.vectors)]
    found = {target: find_parts(target, expected=args.parts) for target in targets}  # all checked first
    found = {target: parts for target, parts in found.items() if parts}
    if not found:
        raise AmesError(f"{folder.path}: no parts {folder.local().stem}_<i>.hdf5 of any split")
    for target, parts in found.items():
        print(f"{target}: {merge_parts(target, parts, copy=args.copy)} images of {len(parts)} parts")


if __name__ == "__main__":
    run_script("merge_hdf5", main)
