"""Extracts the descriptors of one split of a data set, with the paper's arguments.

python extract/extract_descriptors.py --dataset D --backbone rootsift --save_path data --data_path P
    --split _gallery --file_name test_gallery.txt
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from ames.backbones import make_backbone
from ames.data.folder import DatasetFolder
from ames.data.images import read_list
from ames.errors import AmesError
from ames.extraction import extract


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dataset", required=True, help="name of the data set's folder")
    parser.add_argument("--backbone", required=True, help="rootsift")
    parser.add_argument("--save_path", type=Path, required=True, help="files go to SAVE_PATH/DATASET")
    parser.add_argument("--data_path", type=Path, required=True, help="the list's paths start here")
    parser.add_argument("--split", default="", choices=("", "_gallery", "_query"))
    parser.add_argument(
        "--file_name", required=True, help="the list of images, in DATA_PATH or SAVE_PATH/DATASET"
    )
    parser.add_argument("--desc_num", type=int, default=400, help="local descriptors an image")
    parser.add_argument("--num_workers", type=int, default=0)
    args = parser.parse_args()
    folder = DatasetFolder(args.save_path / args.dataset, args.backbone)
    split = args.split.removeprefix("_")
    lists = [args.data_path / args.file_name, folder.path / args.file_name]
    names = [item.path for item in read_list(next((x for x in lists if x.is_file()), lists[0]))]
    done = extract(
        args.data_path,
        names,
        make_backbone(args.backbone),
        local=folder.local(split),
        vectors=folder.vectors(split),
        count=args.desc_num,
        workers=args.num_workers,
    )
    print(done.summary())


if __name__ == "__main__":
    try:
        main()
    except AmesError as error:
        print(f"extract_descriptors: {error}", file=sys.stderr)
        sys.exit(2)
