"""Train the models that the library ships for one backbone, on photographed and drawn pictures.

    python scripts/fetch_photographs.py --out photographs
    python scripts/train_shipped.py --backbone aliked --photos photographs --out runs/shipped
    python scripts/train_shipped.py --backbone rootsift --photos photographs --out runs/shipped

Stages: generate pictures, fit the global descriptor, extract, shortlist, train with src/train.py, write the
weights and the log. Training pictures: landmarks made of photographs, and drawn ones, in one list. Validation
pictures: landmarks made of other photographs. Models: ELViS, full precision and binary; AMES, full precision,
and binary distilled from it.
Finished stages are skipped and interrupted ones resumed, so that the command can be repeated; all backbones
share the pictures. The test landmarks of `ames demo` are of another split, which nothing here reads.
"""

from __future__ import annotations

import argparse
import json
import platform
import runpy
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ames_retrieval.door  # noqa: F401 - sees to it that what follows is this library
from ames.backbones import COMPOSITIONS, NETWORKS
from ames.backbones.base import KeypointBackbone, MapBackbone
from ames.backbones.composed import Composed
from ames.backbones.rootsift import RootSift
from ames.backbones.vlad import Vlad
from ames.backbones.whitening import Whitening
from ames.datasets.landmarks.build import make_landmarks
from ames.datasets.landmarks.plan import Parameters
from ames.datasets.layout import DatasetFolder
from ames.datasets.lists import read_list
from ames.descriptors.local import DescriptorFile, read_globals, write_globals
from ames.extraction.base import BaseExtractor
from ames.extraction.batched import BatchedExtractor
from ames.extraction.config import ExtractionConfig
from ames.extraction.pipeline import Images, plan_output, run
from ames.extraction.process_pool import PoolExtractor
from ames.io.atomic import atomic_file
from ames.io.console import OneLineParser, run_script
from ames.models.checkpoints import load_model, save_weights
from ames.pipelines.prepare import extract_split, make_shortlist
from ames.training.logging.journal import journal_path, read_journal
from ames.weights.files import read_weights

TRAIN = Path(__file__).parents[1] / "src" / "train.py"
WORDS = ["experiment=landmarks-train", "dataset@val_dataset=landmarks-val", "val_dataset.protocols=[medium]"]
WORDS += ["val_freq=2", "resume=auto"]
BACKBONES = ("rootsift", *COMPOSITIONS)


def main() -> None:
    args = parse()
    train = DatasetFolder(args.out / "landmarks-train", args.backbone)
    val = DatasetFolder(args.out / "landmarks-val", args.backbone)
    parts = generate(train, val, args)
    prepare(train, val, args)

    log: dict[str, Any] = {
        "arguments": {k: str(v) for k, v in vars(args).items() if k not in ("out", "photos")}
    }
    log["machine"] = {"torch": torch.__version__, "processor": platform.machine(), "device": args.device}
    log["pictures"] = {str(part.relative_to(args.out)): described(part) for part in (*parts, val.path)}
    for name, words in plan(args).items():
        log[name] = trained(args.out / f"{name}.pt", words, args)
    (args.out / f"{args.backbone}_training.json").write_text(json.dumps(log, indent=1))


def parse() -> argparse.Namespace:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backbone", choices=BACKBONES, required=True)
    parser.add_argument("--photos", type=Path, required=True, help="a folder of photographs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--landmarks", type=int, default=520, help="of training, 10 views each")
    parser.add_argument("--distractors", type=int, default=700)
    parser.add_argument("--drawn", type=int, default=600, help="drawn training landmarks, and distractors")
    parser.add_argument("--val-landmarks", type=int, default=60)
    parser.add_argument("--val-distractors", type=int, default=500)
    parser.add_argument("--width", type=int, default=512, help="of the landscape pictures, in pixels")
    parser.add_argument("--desc-num", type=int, default=400, help="local descriptors stored per image")
    parser.add_argument("--global-dim", type=int, default=256, help="of the global descriptors")
    parser.add_argument("--epochs", type=int, default=8, help="of AMES, the teacher")
    parser.add_argument("--student-epochs", type=int, default=3)
    parser.add_argument("--elvis-epochs", type=int, default=8, help="of each of both forms")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes that draw and extract")
    parser.add_argument("--device", default="cpu", help="of networks; training takes a GPU unless cpu=true")
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="more for all calls of src/train.py")
    return parser.parse_args()


def generate(train: DatasetFolder, val: DatasetFolder, args: argparse.Namespace) -> list[Path]:
    """The pictures of both sets; return the folders that the training list joins."""
    size = (args.width * 3 // 4, args.width)
    common: dict[str, Any] = {"easy": 4, "hard": 6, "seed": args.seed, "size": size}

    def make(folder: Path, split: str, landmarks: int, distractors: int, photos: Path | None) -> Path:
        junk = 0 if split == "train" else 2
        parameters = Parameters(split, landmarks, distractors=distractors, junk=junk, **common)
        make_landmarks(folder, parameters, workers=args.workers, photos=photos)
        return folder

    make(val.path, "val", args.val_landmarks, args.val_distractors, args.photos)
    parts = [make(train.path / "photographed", "train", args.landmarks, args.distractors, args.photos)]
    if args.drawn:
        parts.append(make(train.path / "drawn", "train", args.drawn, args.drawn, None))
    with atomic_file(train.image_list()) as file:
        file.write("".join(map(joined, parts)).encode())
    return parts


def joined(part: Path) -> str:
    """The training list of a set below the folder of the joined list; its labels are no other set's."""
    name = part.name
    return "".join(f"{name}/{x.path},{name}-{x.label}\n" for x in read_list(part / "train.txt"))


def described(folder: Path) -> Any:
    """What the generator recorded of a set."""
    return json.loads((folder / "dataset.json").read_text())


# ---- descriptors ----------------------------------------------------------------------------------


def prepare(train: DatasetFolder, val: DatasetFolder, args: argparse.Namespace) -> None:
    """Local descriptors, the global model and its vectors, shortlists of both sets."""
    weights = args.out / f"{args.backbone}_global.safetensors"
    splits = [(train, ""), (val, "query"), (val, "gallery")]
    if args.backbone == "rootsift":
        with_vlad(splits, weights, args)
    else:
        with_whitening(splits, weights, args)
    make_shortlist(train, training=True)
    make_shortlist(val)


def with_vlad(splits: list[tuple[DatasetFolder, str]], weights: Path, args: argparse.Namespace) -> None:
    """RootSIFT, and VLAD of it, fitted on every second training image."""
    extractor = PoolExtractor(RootSift(), config(args))
    for folder, split in splits:
        run_kinds(folder, split, extractor, ["local"])
    if not weights.exists():
        images = [x for row, x in enumerate(read_images(splits[0][0].local())) if row % 2 == 0]
        Vlad.fit(images, dim=args.global_dim, seed=args.seed).save(weights)
    vlad = Vlad.load(weights)
    for folder, split in splits:
        if not folder.vectors(split).exists():
            vectors = np.stack([vlad.encode(x) for x in read_images(folder.local(split))])
            write_globals(folder.vectors(split), vectors)


def with_whitening(splits: list[tuple[DatasetFolder, str]], weights: Path, args: argparse.Namespace) -> None:
    """A network's keypoints, and another one's vectors, whitened by those of all training images."""
    made_of = COMPOSITIONS[args.backbone]
    local, vector = NETWORKS[made_of.local](made_of.local), NETWORKS[made_of.vector](made_of.vector)
    assert isinstance(local, KeypointBackbone)
    assert isinstance(vector, MapBackbone)
    if not weights.exists():
        own = DatasetFolder(splits[0][0].path, vector.name)
        run_kinds(
            own, "", BatchedExtractor(vector, replace(config(args), vector=made_of.pooling)), ["global"]
        )
        Whitening.fit(read_globals(own.vectors()), dim=args.global_dim).save(weights)
    whitening = Whitening.load(weights)
    backbone = Composed(args.backbone, local, vector, pooling=made_of.pooling, whitening=whitening)
    extractor = BatchedExtractor(backbone, config(args))
    for folder, split in splits:
        print(extract_split(folder, split, extractor).summary(), flush=True)


def config(args: argparse.Namespace) -> ExtractionConfig:
    return ExtractionConfig(desc_num=args.desc_num, workers=args.workers, device=args.device)


def run_kinds(folder: DatasetFolder, split: str, extractor: BaseExtractor, kinds: list[str]) -> None:
    """Extract files of these kinds, or find them complete."""
    names = [item.path for item in read_list(folder.image_list(split))]
    images = Images(folder.path, names)
    found = run(images, extractor, plan_output(folder.stem(split), images, extractor, kinds=kinds))
    print(found.summary(), flush=True)


def read_images(path: Path) -> Iterator[np.ndarray]:
    """Yield the real descriptors of each image, float32 [N_i, D]."""
    file = DescriptorFile(path)
    for row in range(len(file)):
        local = file.read([row])[0]
        yield local.descriptors[local.valid].float().numpy()


# ---- training -------------------------------------------------------------------------------------


def plan(args: argparse.Namespace) -> dict[str, list[str]]:
    """The models by name, and what src/train.py is told of each; a student comes after its teacher."""
    name = args.backbone
    teacher = f'"{args.out / f"{name}_ames.pt"}"'
    elvis = ["model=elvis", "lr=1e-3", f"epochs={args.elvis_epochs}"]
    student = [f"epochs={args.student_epochs}", f"teacher={teacher}", f"start_from={teacher}"]
    return {
        f"{name}_elvis": [*elvis, "model.binarized=false"],
        f"{name}_elvis_binary": [*elvis, "model.binarized=true"],
        f"{name}_ames": ["model.binarized=false", f"epochs={args.epochs}"],
        f"{name}_ames_dist": ["model.binarized=true", *student],
    }


def trained(path: Path, words: list[str], args: argparse.Namespace) -> dict[str, Any]:
    """Train a model with src/train.py, write its weights as fp16 beside it, and return what the log holds."""
    sys.argv = [str(TRAIN), *WORDS, f"descriptors={args.backbone}", f'data_root="{args.out}"']
    sys.argv += [f'model_path="{path}"', f"seed={args.seed}", f'hydra.run.dir="{path.with_suffix("")}-run"']
    sys.argv += [*words, *args.words]
    runpy.run_path(str(TRAIN), run_name="__main__")
    model, about = load_model(path), read_weights(path).about
    shipped = {key: about[key] for key in ("backbone", "blend", "seed") if key in about}
    source = "pictures generated from photographs" + (" and drawings" if args.drawn else "")
    save_weights(
        path.with_suffix(".safetensors"), model, half=True, provenance=shipped | {"trained_on": source}
    )
    epochs = [record for record in read_journal(journal_path(path)) if record["kind"] == "epoch"]
    return {"model": model.arguments, "words": sys.argv[1:], "epochs": epochs, "chosen": about.get("blend")}


if __name__ == "__main__":
    run_script("train_shipped", main)
