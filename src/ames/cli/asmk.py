"""Commands of search by visual words: ``ames codebook | asmk``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ames.cli.options import add_examples
from ames.errors import AmesError
from ames.io.console import natural, positive


def register(commands: Any) -> None:
    """Add the commands to the sub-parsers of ``ames``."""
    codebook = commands.add_parser(
        "codebook",
        help="visual words of local descriptors, for ASMK",
        description="Cluster local descriptors into visual words. Take those of another data set than "
        "the one to search.",
    )
    add = codebook.add_argument
    add("descriptors", type=Path, help="local descriptors, HDF5")
    add("-o", "--out", type=Path, required=True, help="file of the codebook, .npz")
    add("--words", type=positive, default=65536, help="number of words (65536)")
    add("--images", type=positive, help="images to draw, without repetition (default: all)")
    add("--desc-num", type=positive, default=1000, help="strongest descriptors of each image (1000)")
    add("--iterations", type=positive, default=10, help="of k-means (10)")
    add("--seed", type=natural, default=0, help="of what is drawn (0)")
    add("--model", type=Path, help="also write the re-ranker of these words: .safetensors, or .pt")
    add("--real", action="store_true", help="with --model: real vectors, not signs")
    add("--overwrite", action="store_true", help="replace a codebook of another file or other settings")
    add_examples(
        codebook,
        "ames codebook data/sfm/how_local.hdf5 -o codebook.npz --images 20000",
        "ames codebook train_local.hdf5 -o words.npz --words 4096 --model asmk.safetensors",
    )
    codebook.set_defaults(run=_codebook)
    _register_asmk(commands)


def _register_asmk(commands: Any) -> None:
    asmk = commands.add_parser(
        "asmk",
        help="shortlists by local descriptors: ASMK with an inverted file",
        description="Search a test set by ASMK; write FOLDER/nn_asmk.npz. A shortlist of the same files and "
        "settings is kept.",
    )
    add = asmk.add_argument
    add("folder", type=Path, help="a test set with NAME_query_local.hdf5, NAME_gallery_local.hdf5")
    add("--name", required=True, help="of the descriptor files")
    add("--codebook", type=Path, required=True, help="of ames codebook")
    add("-k", type=positive, default=1000, help="entries of a shortlist (1000)")
    add("--real", action="store_true", help="compare real vectors, not signs")
    add("--half", action="store_true", help="with --real: keep them as float16")
    add("--query-assign", type=positive, default=5, help="words of a query descriptor (5)")
    add("--db-assign", type=positive, default=1, help="words of a database descriptor (1)")
    add("--alpha", type=float, default=3.0, help="exponent of a similarity (3)")
    add("--threshold", type=float, default=0.0, help="similarities below it count nothing (0)")
    add("--idf", action="store_true", help="frequent words weigh less")
    add("--query-desc-num", type=positive, help="strongest descriptors of a query (default: all)")
    add("--db-desc-num", type=positive, help="strongest descriptors of a database image (default: all)")
    add("--index", type=Path, metavar="FILE", help="also write the inverted file")
    add("--overwrite", action="store_true", help="replace a shortlist of other settings")
    add_examples(asmk, "ames asmk data/roxford5k --name how --codebook codebook.npz --index how.ivf")
    asmk.set_defaults(run=_asmk)


def _codebook(args: argparse.Namespace) -> None:
    from ames.descriptors.local import DescriptorFile
    from ames.local_search.codebook import Codebook, train_codebook

    _check_names(args)
    file = DescriptorFile(args.descriptors)
    drawn = {"images": args.images, "count": min(args.desc_num, file.slots)}
    if args.out.exists() and not args.overwrite:
        made = Codebook.load(args.out)  # AmesError where it is something else
        _check_same(args, made.meta, min(args.images or len(file), len(file)), drawn["count"])
        print(f"{args.out}: is there already, of the same file and settings")
    else:
        made = train_codebook(file, args.words, **drawn, seed=args.seed, iterations=args.iterations)
        about = made.meta["trained_on"]
        print(
            f"{made.save(args.out)}: {made.words} words of {made.width} dimensions, from "
            f"{about['descriptors']} descriptors of {about['images']} images"
        )
    if args.model is not None:
        _save_model(args, made.meta["trained_on"]["backbone"])


def _check_same(args: argparse.Namespace, meta: Any, images: int, count: int) -> None:
    """AmesError unless an existing codebook is what this call would make."""
    trained = meta.get("trained_on") or {}
    there = (meta.get("words"), meta.get("seed"), meta.get("iterations"))
    there += tuple(trained.get(key) for key in ("file", "images", "count"))
    wanted = (args.words, args.seed, args.iterations, args.descriptors.name, images, count)
    if there != wanted:
        raise AmesError(f"{args.out}: a codebook of another file or other settings; --overwrite replaces it")


def _check_names(args: argparse.Namespace) -> None:
    """AmesError for names that cannot be written, before clustering takes its time."""
    if args.out.suffix != ".npz":
        raise AmesError(f"{args.out}: a codebook is saved as .npz: give a name that ends in .npz")
    if args.model is not None and args.model.suffix not in (".safetensors", ".pt"):
        raise AmesError(f"--model {args.model}: give a name that ends in .safetensors or .pt")
    if args.real and args.model is None:
        raise AmesError("--real is of the re-ranker: give --model")


def _save_model(args: argparse.Namespace, backbone: str | None) -> None:
    from ames.models.asmk import FUSION, asmk_from_codebook
    from ames.models.checkpoints import save_checkpoint, save_weights

    model = asmk_from_codebook(args.out, binary=not args.real)
    about: dict[str, object] = {"blend": FUSION} | ({"backbone": backbone} if backbone else {})
    save = save_weights if args.model.suffix == ".safetensors" else save_checkpoint
    save(args.model, model, provenance=about)
    print(
        f"{args.model}: {model.code_bytes} bytes a word; lambda {FUSION['lamb']:g}, gamma {FUSION['temp']:g}"
    )


def _asmk(args: argparse.Namespace) -> None:
    from ames.datasets.layout import DatasetFolder
    from ames.global_search.asmk import AsmkSearch, make
    from ames.local_search.kernel import Kernel

    kernel = Kernel(
        binary=not args.real,
        alpha=args.alpha,
        threshold=args.threshold,
        query_assign=args.query_assign,
        db_assign=args.db_assign,
        idf=args.idf,
    )
    if args.half and not args.real:
        raise AmesError("--half is of real vectors: give --real")
    counts = {"query_count": args.query_desc_num, "database_count": args.db_desc_num}
    search = AsmkSearch(kernel=kernel, k=args.k, half=args.half, **counts)
    folder = DatasetFolder(args.folder, args.name)
    path, made = make(folder, args.codebook, search, index=args.index, overwrite=args.overwrite)
    if made is None:
        print(f"{path}: is there already, of the same files and settings")
        return
    print(f"{path}: of {len(made)} images, {made.bytes_per_image:,.0f} bytes each in the inverted file")
    if args.index is not None:
        print(args.index)
