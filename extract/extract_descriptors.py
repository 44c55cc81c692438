"""Extracts the descriptors of one split of a data set, with the paper's arguments.

python extract/extract_descriptors.py --dataset D --backbone rootsift --save_path data --data_path P
    --split _gallery --file_name test_gallery.txt --desc_type local,global
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from ames.arguments import OneLineParser, run_script
from ames.backbones import NAMES, make_backbone
from ames.data.folder import DatasetFolder
from ames.data.images import read_list
from ames.errors import AmesError
from ames.extraction import extract


def main() -> None:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dataset", required=True, help="name of the data set's folder")
    parser.add_argument("--backbone", required=True, help="rootsift")
    parser.add_argument("--save_path", type=Path, required=True, help="files go to SAVE_PATH/DATASET")
    parser.add_argument("--data_path", type=Path, required=True, help="the list's paths start here")
    parser.add_argument("--split", default="", choices=("", "_gallery", "_query"))
    parser.add_argument(
        "--file_name", required=True, help="the list of images, in DATA_PATH or SAVE_PATH/DATASET"
    )
    parser.add_argument(
        "--desc_type", default="local,global", help="local, global, or local,global (default)"
    )
    parser.add_argument(
        "--pretrained", action="store_true", help="accepted; backbones always have their weights"
    )
    parser.add_argument("--desc_num", type=int, default=400, help="local descriptors an image")
    parser.add_argument("--num_workers", type=int, default=0)
    args = parser.parse_args()
    kinds = set(args.desc_type.split(","))
    if not kinds <= {"local", "global"}:
        raise AmesError(f"--desc_type {args.desc_type!r}: give local, global or local,global")
    if args.backbone not in NAMES:
        raise AmesError(f"--backbone {args.backbone}: not there yet; there are: {', '.join(NAMES)}")
    if args.desc_num < 1 or args.num_workers < 0:
        raise AmesError("--desc_num must be at least 1, --num_workers at least 0")
    folder = DatasetFolder(args.save_path / args.dataset, args.backbone)
    split = args.split.removeprefix("_")
    lists = [args.data_path / args.file_name, folder.path / args.file_name]
    names = [item.path for item in read_list(next((x for x in lists if x.is_file()), lists[0]))]
    done = extract(
        args.data_path,
        names,
        make_backbone(args.backbone),
        local=folder.local(split) if "local" in kinds else None,
        vectors=folder.vectors(split) if "global" in kinds else None,
        count=args.desc_num,
        workers=args.num_workers,
    )
    print(done.summary())


if __name__ == "__main__":
    run_script("extract_descriptors", main)
