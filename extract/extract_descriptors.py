"""Extract the descriptors of one split of a data set, with the paper's arguments.

python extract/extract_descriptors.py --dataset D --backbone rootsift --save_path data --data_path P
    --split _gallery --file_name test_gallery.txt --desc_type local,global

The same command resumes after an interruption. `ames extract` can do more.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import ames_retrieval.door  # noqa: F401 - sees to it that what follows is this library
from ames.backbones import NAMES, is_backbone
from ames.datasets.boxes import read_boxes
from ames.datasets.layout import DatasetFolder
from ames.datasets.lists import read_list
from ames.errors import AmesError
from ames.extraction.config import ExtractionConfig
from ames.extraction.factory import build_extractor
from ames.extraction.pipeline import Images, plan_output, run
from ames.io.console import OneLineParser, check_device, run_script


def parse() -> argparse.Namespace:
    """Read the published command's words."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--dataset", required=True, help="name of the data set's folder")
    add("--backbone", required=True, help=", ".join(NAMES))
    add("--save_path", type=Path, required=True, help="files go to SAVE_PATH/DATASET")
    add("--data_path", type=Path, required=True, help="the list's paths start here")
    add("--split", default="", choices=("", "_gallery", "_query"))
    add("--file_name", required=True, help="the list of images, in DATA_PATH or SAVE_PATH/DATASET")
    add("--desc_type", default="local,global", help="local, global, or local,global (default)")
    add("--pretrained", action="store_true", help="accepted; backbones always have their weights")
    add("--desc_num", type=int, help="local descriptors per image (of keypoints 400, of maps 700)")
    add("--num_workers", type=int, default=0)
    add("--weights", help="of a network, a file or a folder (default: the published ones)")
    add("--detector", type=Path, help="a network's feature detector, <backbone>_detector.pt")
    add("--projected", action="store_true", help="the detector's descriptors, not the raw ones")
    add("--image_size", type=int, help="long side of an image in pixels (the network's)")
    add("--batch_size", type=int, default=8)
    add("--device", default="cpu", help="cpu, cuda, ...")
    add("--gnd_file", help="a ground truth with the boxes that queries are cut to")
    add("--overwrite", action="store_true", help="replace existing files")
    return parser.parse_args()


def main() -> None:
    args = parse()
    kinds = set(args.desc_type.split(","))
    if not kinds <= {"local", "global"}:
        raise AmesError(f"--desc_type {args.desc_type!r}: give local, global or local,global")
    if not is_backbone(args.backbone):
        raise AmesError(f"--backbone {args.backbone}: not there yet; there are: {', '.join(NAMES)}")
    config = ExtractionConfig(
        backbone=args.backbone,
        desc_num=args.desc_num,
        workers=args.num_workers,
        weights=args.weights,
        detector=args.detector,
        descriptors="projected" if args.projected else "raw",
        vector="cls" if "global" in kinds or args.backbone == "rootsift" else "none",
        long_side=args.image_size,
        coordinates="published",
        batch_size=args.batch_size,
        device=args.device,
        overwrite=args.overwrite,
    )
    check_device(args.device)
    folder = DatasetFolder(args.save_path / args.dataset, args.backbone)
    split = args.split.removeprefix("_")
    lists = [args.data_path / args.file_name, folder.path / args.file_name]
    names = [item.path for item in read_list(next((x for x in lists if x.is_file()), lists[0]))]
    boxes = None if args.gnd_file is None else read_boxes(str(folder.file(args.gnd_file)), names, None)
    images = Images(args.data_path, names, boxes)
    extractor = build_extractor(config)
    endings = [x if x == "local" else folder.vector_kind(split) for x in ("local", "global") if x in kinds]
    plan = plan_output(folder.stem(split), images, extractor, kinds=endings)
    print(run(images, extractor, plan).summary())


if __name__ == "__main__":
    run_script("extract_descriptors", main)
