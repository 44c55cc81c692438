"""Train the RootSIFT models that the library ships, on generated landmarks only.

    python scripts/train_rootsift.py --out runs/rootsift

Stages: draw landmarks (training and validation), extract, fit the global descriptor, shortlist, train the
full-precision teacher and distil the binary student from it with src/train.py, write the weights and the log.
Finished stages are skipped and interrupted ones resumed, so that the command can be repeated. The test
landmarks of `ames demo` are of another split, which nothing here reads.
"""

from __future__ import annotations

import argparse
import json
import platform
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ames_retrieval.door  # noqa: F401 - sees to it that what follows is this library
from ames.backbones.rootsift import RootSift
from ames.backbones.vlad import Vlad
from ames.datasets.landmarks.build import Parameters, make_landmarks
from ames.datasets.layout import DatasetFolder
from ames.datasets.lists import read_list
from ames.descriptors.local import DescriptorFile, write_globals
from ames.extraction.pipeline import extract
from ames.io.console import run_script
from ames.models.checkpoints import load_model, save_weights
from ames.pipelines.prepare import make_shortlist
from ames.training.logging.journal import journal_path, read_journal
from ames.weights.files import read_weights

TRAIN = Path(__file__).parents[1] / "src" / "train.py"
WORDS = ["experiment=landmarks-train", "dataset@val_dataset=landmarks-val", "val_dataset.protocols=[medium]"]
WORDS += ["val_freq=4", "resume=auto"]


def main() -> None:
    args = parse()
    train = DatasetFolder(args.out / "landmarks-train", "rootsift")
    val = DatasetFolder(args.out / "landmarks-val", "rootsift")
    size = (args.width * 3 // 4, args.width)
    common: dict[str, Any] = {"easy": 4, "hard": 6, "seed": args.seed, "size": size}
    counts = {"landmarks": args.landmarks, "distractors": args.distractors, "junk": 0}
    make_landmarks(train.path, Parameters("train", **counts, **common), workers=args.workers)
    counts = {"landmarks": args.val_landmarks, "distractors": args.val_distractors, "junk": 2}
    make_landmarks(val.path, Parameters("val", **counts, **common), workers=args.workers)
    prepare(train, val, args)

    log: dict[str, Any] = {"arguments": {k: str(v) for k, v in vars(args).items() if k != "out"}}
    log["machine"] = {"torch": torch.__version__, "processor": platform.machine()}
    teacher = args.out / "rootsift_ames.pt"
    words = ["model.binarized=false", f"epochs={args.epochs}"]
    log["rootsift_ames"] = trained(teacher, words, args)
    words = [f"epochs={args.student_epochs}", f'teacher="{teacher}"', f'start_from="{teacher}"']
    log["rootsift_ames_dist"] = trained(args.out / "rootsift_ames_dist.pt", words, args)
    (args.out / "training.json").write_text(json.dumps(log, indent=1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--landmarks", type=int, default=600, help="of training, 10 views each")
    parser.add_argument("--distractors", type=int, default=600)
    parser.add_argument("--val-landmarks", type=int, default=40)
    parser.add_argument("--val-distractors", type=int, default=500)
    parser.add_argument("--width", type=int, default=512, help="of the landscape pictures, in pixels")
    parser.add_argument("--desc-num", type=int, default=400, help="local descriptors stored per image")
    parser.add_argument("--global-dim", type=int, default=256, help="of the global descriptors")
    parser.add_argument("--epochs", type=int, default=16, help="of the teacher")
    parser.add_argument("--student-epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes that draw and extract")
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="more for both calls of src/train.py")
    return parser.parse_args()


def prepare(train: DatasetFolder, val: DatasetFolder, args: argparse.Namespace) -> None:
    """Local descriptors; the global model, fitted on every second training image; globals; shortlists."""
    splits = [(train, ""), (val, "query"), (val, "gallery")]
    for folder, split in splits:
        names = [item.path for item in read_list(folder.image_list(split))]
        if not folder.local(split).exists():
            extract(
                folder.path,
                names,
                RootSift(),
                folder.stem(split),
                kinds=["local"],
                desc_num=args.desc_num,
                workers=args.workers,
            )
    weights = args.out / "rootsift_global.safetensors"
    if not weights.exists():
        images = [x for row, x in enumerate(read_images(train.local())) if row % 2 == 0]
        Vlad.fit(images, dim=args.global_dim, seed=args.seed).save(weights)
    vlad = Vlad.load(weights)
    for folder, split in splits:
        if not folder.vectors(split).exists():
            vectors = np.stack([vlad.encode(x) for x in read_images(folder.local(split))])
            write_globals(folder.vectors(split), vectors)
    make_shortlist(train, training=True)
    make_shortlist(val)


def read_images(path: Path) -> Iterator[np.ndarray]:
    """Yield the real descriptors of each image, float32 [N_i, 128]."""
    file = DescriptorFile(path)
    for row in range(len(file)):
        local = file.read([row])[0]
        yield local.descriptors[local.valid].float().numpy()


def trained(path: Path, words: list[str], args: argparse.Namespace) -> dict[str, Any]:
    """Train a model with src/train.py, write its weights as fp16 beside it, and return what the log holds."""
    sys.argv = [str(TRAIN), *WORDS, f'data_root="{args.out}"', f'model_path="{path}"', f"seed={args.seed}"]
    sys.argv += [f'hydra.run.dir="{path.with_suffix("")}-run"', *words, *args.words]
    runpy.run_path(str(TRAIN), run_name="__main__")
    model, about = load_model(path), read_weights(path).about
    shipped = {key: about[key] for key in ("backbone", "blend", "seed") if key in about}
    save_weights(
        path.with_suffix(".safetensors"),
        model,
        half=True,
        provenance=shipped | {"trained_on": "generated landmarks"},
    )
    epochs = [record for record in read_journal(journal_path(path)) if record["kind"] == "epoch"]
    return {"model": model.arguments, "words": sys.argv[1:], "epochs": epochs, "chosen": about.get("blend")}


if __name__ == "__main__":
    run_script("train_rootsift", main)
