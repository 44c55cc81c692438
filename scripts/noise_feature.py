"""Write noise as global descriptors: the ablation of a fusion that reads a useless feature.

python scripts/noise_feature.py DIR/rootsift_gallery_global.hdf5 DIR/noise_gallery_global.hdf5 [--dim 512]

The new file has the images of the first one, by number and name. A vector depends on the seed and the name
alone (without names: the number), so that an image has the same noise in the files of queries and gallery.
"""

from __future__ import annotations

import argparse
import zlib
from pathlib import Path

import numpy as np

from ames.descriptors.local import GlobalFile, write_globals
from ames.errors import AmesError
from ames.io.console import OneLineParser, natural, positive, run_script


def noise(names: list[str], dim: int, seed: int) -> np.ndarray:
    """Return unit vectors float32 [n, dim] in random directions, one per name."""
    rows = [np.random.default_rng([seed, zlib.crc32(x.encode())]).standard_normal(dim) for x in names]
    vectors = np.array(rows, np.float32).reshape(-1, dim)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _parser() -> OneLineParser:
    parser = OneLineParser(prog="noise_feature", description=__doc__)
    parser.add_argument("like", type=Path, help="a file of global descriptors of the images")
    parser.add_argument("out", type=Path, help="the file to write")
    parser.add_argument("--dim", type=positive, default=512, help="(512)")
    parser.add_argument("--seed", type=natural, default=0, help="(0)")
    return parser


def main(args: argparse.Namespace) -> None:
    """Write the file; an existing one is kept."""
    if args.out.exists():
        raise AmesError(f"{args.out}: exists already; remove it first")
    like = GlobalFile(args.like)
    names = like.names or [str(row) for row in range(len(like))]
    write_globals(args.out, noise(names, args.dim, args.seed), names=like.names)
    print(f"{args.out}: noise of {args.dim} dimensions for {len(names)} images")


if __name__ == "__main__":
    given = _parser().parse_args()
    run_script("noise_feature", lambda: main(given))
