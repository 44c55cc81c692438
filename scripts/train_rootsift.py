"""Train the RootSIFT models that the library ships, on generated landmarks only.

    python scripts/train_rootsift.py --out runs/rootsift

Stages: draw landmarks (training and validation), fit the global descriptor, extract, shortlist, train the
full-precision teacher, distil the binary student, choose lambda and gamma on the validation landmarks,
write the weights and the log. Finished stages are skipped, so that an interrupted run can be called again.
The test landmarks of `ames demo` are of another split, which nothing here reads.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ames_retrieval.door  # noqa: F401 - sees to it that what follows is this library
from ames.backbones.rootsift import RootSift
from ames.backbones.vlad import Vlad
from ames.datasets.ground_truth import load_ground_truth
from ames.datasets.landmarks.build import make_landmarks
from ames.datasets.layout import DatasetFolder
from ames.datasets.lists import read_labels, read_list
from ames.descriptors.local import DescriptorFile, write_globals
from ames.errors import AmesError
from ames.evaluation.protocols import MEDIUM, REVISITED
from ames.evaluation.sweep import evaluate_initial, evaluate_oracle, evaluate_reranked, needed, tune
from ames.extraction.pipeline import extract
from ames.models.ames import AMES
from ames.models.base import PairSimilarity
from ames.models.chamfer import Chamfer
from ames.models.checkpoints import arguments, load_model, save_weights
from ames.pipelines.prepare import make_shortlist
from ames.reranking.scorer import ComputeConfig, PairScorer
from ames.reranking.shortlist_scores import score_shortlist
from ames.search.shortlist import Shortlist
from ames.training import Recipe, fit
from ames.training.data.candidates import LabelledNeighbours
from ames.training.data.loader import TripletLoader
from ames.training.data.neighbours import Neighbours
from ames.training.data.sampler import TripletSampler
from ames.training.distributed import Ranks

SIZE: dict[str, Any] = {
    "local_dim": 128,
    "model_dim": 128,
    "nhead": 2,
    "num_encoder_layers": 3,
    "dim_feedforward": 256,
}
DESCRIPTORS = 400  # stored an image
NUM_RERANK = 100
# What the validation looks at: the counts of the demo.
QUERY_DESC, DB_DESC = 200, 50


def main() -> None:
    args = parse()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("faiss").setLevel(logging.WARNING)
    torch.manual_seed(args.seed)
    train = DatasetFolder(args.out / "landmarks-train", "rootsift")
    val = DatasetFolder(args.out / "landmarks-val", "rootsift")
    common = {"seed": args.seed, "workers": args.workers}
    make_landmarks(
        train.path, split="train", landmarks=args.landmarks, easy=4, hard=6, junk=0, distractors=600, **common
    )
    make_landmarks(val.path, split="val", landmarks=40, easy=4, hard=6, junk=2, distractors=500, **common)
    prepare(train, val, args)

    validation = Validation(val)
    print(f"validation landmarks: {validation.bounds()}")
    log: dict[str, Any] = {"arguments": {k: str(v) for k, v in vars(args).items() if k != "out"}}
    log["machine"] = {"torch": torch.__version__, "processor": platform.machine(), "device": args.device}
    teacher = trained(args, "rootsift_ames", train, validation, log)
    trained(args, "rootsift_ames_dist", train, validation, log, teacher=teacher)
    (args.out / "training.json").write_text(json.dumps(log, indent=1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--landmarks", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=16, help="of the teacher")
    parser.add_argument("--student-epochs", type=int, default=8)
    parser.add_argument("--triplets", type=int, default=32, help="a batch")
    parser.add_argument("--max-desc", type=int, default=128, help="descriptors an image in training")
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes that draw and extract")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
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
                desc_num=DESCRIPTORS,
                workers=args.workers,
            )
    weights = args.out / "rootsift_global.safetensors"
    if not weights.exists():
        images = [x for row, x in enumerate(descriptors_of(DescriptorFile(train.local()))) if row % 2 == 0]
        Vlad.fit(images, seed=args.seed).save(weights)
    vlad = Vlad.load(weights)
    for folder, split in splits:
        if not folder.vectors(split).exists():
            file = DescriptorFile(folder.local(split))
            write_globals(folder.vectors(split), np.stack([vlad.encode(x) for x in descriptors_of(file)]))
    make_shortlist(train, training=True)
    make_shortlist(val)


def descriptors_of(file: DescriptorFile) -> Iterator[np.ndarray]:
    """The real descriptors of each image, float32 [N_i, 128]."""
    for row in range(len(file)):
        local = file.read([row])[0]
        yield local.descriptors[local.valid].float().numpy()


class Validation:
    """Medium mAP on the validation landmarks, and the choice of lambda and gamma there."""

    def __init__(self, folder: DatasetFolder) -> None:
        self.ground_truth = load_ground_truth(folder.ground_truth)
        self.shortlist = Shortlist.load(folder.shortlist)
        self.queries = DescriptorFile(folder.local("query"))
        self.gallery = DescriptorFile(folder.local("gallery"))

    def bounds(self) -> dict[str, object]:
        """Medium mAP of the global ranking, of a perfect re-ranking, and of Chamfer with its blend."""
        found = {
            "global": evaluate_initial(self.shortlist, self.ground_truth, (MEDIUM,)),
            "perfect": evaluate_oracle(self.shortlist, self.ground_truth, (MEDIUM,), NUM_RERANK),
        }
        figures: dict[str, object] = {name: round(x[MEDIUM].map, 2) for name, x in found.items()}
        chamfer = Chamfer(local_dim=128)
        return figures | {f"chamfer at {n}": self(chamfer, n) for n in (DB_DESC, QUERY_DESC)}

    def scores(self, model: PairSimilarity, device: str, database_count: int) -> np.ndarray:
        mask = needed(self.shortlist, self.ground_truth, REVISITED, [NUM_RERANK])
        return score_shortlist(
            PairScorer(model, ComputeConfig(devices=(device,))),
            self.queries,
            self.gallery,
            self.shortlist,
            mask=mask,
            query_count=QUERY_DESC,
            database_count=database_count,
        )

    def __call__(self, model: PairSimilarity, database_count: int = DB_DESC) -> dict[str, float]:
        device = next((x.device.type for x in model.parameters()), "cpu")
        fusion, _ = tune(
            self.shortlist,
            logits := self.scores(model, device, database_count),
            self.ground_truth,
            (MEDIUM,),
            num_rerank=NUM_RERANK,
        )
        results = evaluate_reranked(
            self.shortlist, logits, self.ground_truth, REVISITED, num_rerank=NUM_RERANK, fusion=fusion
        )
        figures = {f"{p.name}_map": round(r.map, 2) for p, r in results.items()}
        return figures | {"val_map": figures["medium_map"]} | fusion.to_keys()


def trained(
    args: argparse.Namespace,
    name: str,
    train: DatasetFolder,
    validation: Validation,
    log: dict[str, Any],
    teacher: AMES | None = None,
) -> AMES:
    """Train one model unless its weights are there already; returns it in evaluation mode."""
    path = args.out / f"{name}.safetensors"
    if path.exists():
        return load_model(path).to(args.device)
    descriptors = DescriptorFile(train.local())
    labels = read_labels(train.image_list())
    neighbours = Neighbours.open(train.shortlist, images=len(labels))
    sampler = TripletSampler(LabelledNeighbours(neighbours, labels), min_positives=2)
    loader = TripletLoader(sampler, descriptors, triplets=args.triplets, count=args.max_desc, seed=args.seed)
    sample = descriptors.read(np.arange(0, len(descriptors), 5), 60)
    sample_descriptors = sample.descriptors[sample.valid]
    model = AMES(**SIZE, binarized=teacher is not None, init="matching")
    model.fit_projection(sample_descriptors, seed=args.seed)
    if teacher is not None:
        model.start_from(teacher.cpu(), sample_descriptors)
    recipe = Recipe(
        epochs=args.epochs if teacher is None else args.student_epochs,
        lr=args.lr,
        max_desc=args.max_desc,
        warmup=50,
        clip=1.0,
        val_freq=4,
        seed=args.seed,
    )
    print(f"{name}: {len(sampler.anchors)} valid anchors of {len(labels)}, {len(loader)} batches an epoch")
    start = validation(model.eval())
    print(f"{name}: before training {start}")
    history = fit(
        model,
        loader,
        recipe,
        out=args.out / f"{name}.pt",
        teacher=teacher,
        ranks=Ranks(torch.device(args.device)),
        validate=validation,
    )
    log[name] = {"model": arguments(model), "recipe": vars(recipe), "before": start, "epochs": history}
    log[name]["chosen"] = chosen = {key: history[-1][key] for key in ("lamb", "temp")}
    about = {"backbone": "rootsift", "blend": chosen, "seed": args.seed, "trained_on": "generated landmarks"}
    save_weights(path, model.cpu(), half=True, provenance=about)
    return load_model(path).to(args.device)


if __name__ == "__main__":
    try:
        main()
    except AmesError as error:
        raise SystemExit(f"train_rootsift: {error}") from None
