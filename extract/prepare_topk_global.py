"""Makes the shortlist of a data set from its global descriptors, with the paper's arguments.

python extract/prepare_topk_global.py --dataset D --desc_name rootsift --data_root DIR [--shortlist_size 1600]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from ames.arguments import OneLineParser, run_script
from ames.data.folder import DatasetFolder
from ames.errors import AmesError
from ames.preparation import make_shortlist


def main() -> None:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dataset", required=True, help="name of the data set's folder")
    parser.add_argument("--desc_name", required=True, help="rootsift")
    parser.add_argument("--data_root", type=Path, required=True)
    parser.add_argument("--shortlist_size", type=int, help="entries a query (default: the whole gallery)")
    args = parser.parse_args()
    folder = DatasetFolder(args.data_root / args.dataset, args.desc_name)
    if args.shortlist_size is not None and args.shortlist_size < 1:
        raise AmesError(f"--shortlist_size {args.shortlist_size}: give at least 1")
    training = not folder.vectors("gallery").exists()
    print(make_shortlist(folder, training=training, size=args.shortlist_size))


if __name__ == "__main__":
    run_script("prepare_topk_global", main)
