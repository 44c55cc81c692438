"""Good files of every kind that the library reads, and what is asked of a damaged copy.

A kind writes its files into a folder once. A case damages one of them in a folder of links to the others, and
asks every question of that file; an AmesError is an answer, and the other questions are asked all the same.
"""

import contextlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import torch

from ames.backbones import make_backbone
from ames.backbones.detector import SpatialAttention, load_detector, save_detector
from ames.database.build import Source, compress
from ames.database.index import search_database
from ames.database.store import Database
from ames.datasets.boxes import read_boxes
from ames.datasets.ground_truth import load_ground_truth
from ames.datasets.images import UnreadableImage, read_image
from ames.datasets.landmarks.build import Parameters, described, is_finished
from ames.datasets.layout import DatasetFolder
from ames.datasets.lists import read_list, read_training_list
from ames.descriptors.local import DescriptorFile, GlobalFile, write_globals
from ames.descriptors.merge import merge_parts
from ames.descriptors.vectors import Vectors
from ames.errors import AmesError
from ames.evaluation.evaluate import Scoring, evaluate_run, evaluate_test_set
from ames.evaluation.protocols import Protocol
from ames.evaluation.runs import Run
from ames.evaluation.sweep import Grid
from ames.evaluation.test_set import open_test_set
from ames.extraction.config import ExtractionConfig
from ames.extraction.pipeline import Images, extract, plan_output, run
from ames.extraction.process_pool import PoolExtractor
from ames.global_search.exact import search_blocks
from ames.global_search.shortlist import Shortlist
from ames.inspection.convert import convert
from ames.inspection.inspect import inspect
from ames.models.ames import AMES
from ames.models.chamfer import Chamfer
from ames.models.checkpoints import load_model, save_checkpoint, save_weights
from ames.models.layers.binarization import read_itq
from ames.training.data.neighbours import Neighbours
from ames.training.data.pairs import read_pairs
from ames.training.logging.journal import Journal, read_journal
from ames.training.resuming import Checkpoints
from ames.weights.files import save_state
from fuzz.commands import COMMANDS, YAML, ask_words, ask_yaml
from fuzz.mutation import damaged
from golden import backbones as golden
from golden.data_root import write_local

Question = Callable[[Path], object]
QUERIES, IMAGES, SLOTS, WIDTH, GLOBAL = 3, 12, 4, 8, 6
TINY = {"local_dim": WIDTH, "model_dim": 16, "num_encoder_layers": 1, "dim_feedforward": 16}
PROTOCOLS = (Protocol("own", ("ok",), ("junk",)),)
NAMES = [f"{i}.jpg" for i in range(IMAGES)]


class Files:
    """A kind of files: ``make`` writes them into a folder and returns the questions of each by its name."""

    def __init__(self, make: Callable[[Path], dict[str, list[Question]]]) -> None:
        self._make = make
        self._questions: dict[str, list[Question]] = {}

    def prepare(self, folder: Path) -> None:
        """Also where another process has made the files: the questions are what is wanted then."""
        folder.mkdir(parents=True, exist_ok=True)
        self._questions = self._make(folder)

    def ask(self, folder: Path, work: Path, rng: np.random.Generator) -> None:
        name = list(self._questions)[rng.integers(len(self._questions))]
        for path in folder.iterdir():
            if path.name != name.split("/")[0]:
                (work / path.name).symlink_to(path)
        if "/" in name:
            folder, inner = folder / name.split("/")[0], work / name.split("/")[0]
            inner.mkdir()
            for path in folder.iterdir():
                (inner / path.name).symlink_to(path)
            (work / name).unlink()
        path = work / name
        path.write_bytes(damaged((folder / path.name).read_bytes(), rng))
        answers = []
        for question in self._questions[name]:
            try:
                question(path)
            except (AmesError, UnreadableImage) as error:
                answers.append(error)
        if answers:
            raise AmesError(max(map(str, answers), key=len))


class Words:
    """A kind of words: ``ask(work, rng)`` calls a command with spoilt ones."""

    def __init__(self, ask: Callable[[Path, np.random.Generator], None]) -> None:
        self._ask = ask

    def prepare(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)

    def ask(self, folder: Path, work: Path, rng: np.random.Generator) -> None:
        self._ask(work, rng)


# ---- descriptors ------------------------------------------------------------------------------------


def _local(folder: Path, name: str, images: int = IMAGES, **how) -> Path:
    path = folder / name
    rng = np.random.default_rng(images)
    write_local(path, rng.standard_normal((images, SLOTS, WIDTH)).astype(np.float32), rng, 0, True, **how)
    return path


def _read_all(path: Path) -> None:
    file = DescriptorFile(path)
    file.read(range(min(len(file), 1000)))
    file.read([0] if len(file) else [], 2, locations=False)


def _read_vectors(path: Path) -> None:
    vectors = Vectors.open(path)
    for _ in vectors.blocks():
        pass
    if len(vectors):
        list(search_blocks(vectors, vectors, 3))
        vectors.gather(np.array([0]))


def _descriptors(folder: Path) -> dict[str, list[Question]]:
    _local(folder, "flat.hdf5")
    _local(folder, "full.hdf5", layout="float32", chunks=(3, SLOTS, 5 + WIDTH), compression="gzip")
    _local(folder, "compound.hdf5", layout="compound by image")
    _local(folder, "packed.hdf5", layout="bare", pack=lambda x: np.packbits(x > 0, axis=-1))
    for number in range(2):
        _local(folder, f"part_{number}_local.hdf5", IMAGES // 2)
    merge_parts(folder / "part_local.hdf5", [folder / f"part_{number}_local.hdf5" for number in range(2)])
    with_names = _local(folder, "named.hdf5", chunks=True)
    with h5py.File(with_names, "a") as file:
        file.create_dataset("names", data=NAMES, dtype=h5py.string_dtype())
        file.attrs["provenance"] = json.dumps({"backbone": "rootsift", "max_size": 640})
    vectors = np.random.default_rng(0).standard_normal((IMAGES, GLOBAL)).astype(np.float32)
    write_globals(folder / "global.hdf5", vectors, names=NAMES)
    names = ["flat", "full", "compound", "packed", "part_0_local", "part_local", "named"]
    return {f"{name}.hdf5": [inspect, _read_all] for name in names} | {
        "global.hdf5": [inspect, _read_vectors],
        "part_1_local.hdf5": [inspect, lambda path: _read_all(path.with_name("part_local.hdf5"))],
    }


# ---- a test set and its files -----------------------------------------------------------------------


def _truth() -> dict:
    found = [{"ok": [q, q + 3], "junk": [q + 6], "bbx": [0, 0, 9, 9]} for q in range(QUERIES)]
    return {"imlist": NAMES, "qimlist": NAMES[:QUERIES], "gnd": found}


def _neighbours(queries: int = QUERIES) -> Shortlist:
    ids = np.stack([np.roll(np.arange(IMAGES), -q) for q in range(queries)])
    return Shortlist(ids, np.linspace(1, 0.1, IMAGES, dtype=np.float32) * np.ones((queries, 1)))


def _evaluate(path: Path) -> None:
    model, scoring = Chamfer(local_dim=WIDTH), Scoring(query_count=SLOTS, database_count=SLOTS)
    test = open_test_set(DatasetFolder(path.parent, "mine"), model)
    grid = Grid([5], [0.5], [1.0])
    evaluate_test_set(test, model, PROTOCOLS, scoring, grid).save(path.parent / "out")


def _test_set(ending: str) -> Callable[[Path], dict[str, list[Question]]]:
    def make(folder: Path) -> dict[str, list[Question]]:
        _local(folder, "mine_gallery_local.hdf5")
        _local(folder, "mine_query_local.hdf5", QUERIES)
        truth, shortlist = f"gnd_{folder.name}{ending}", f"nn_mine{'.npz' if ending == '.json' else '.pkl'}"
        found = _neighbours()
        if ending == ".json":
            (folder / truth).write_text(json.dumps(_truth()))
            found.save(folder / shortlist)
        else:
            (folder / truth).write_bytes(pickle.dumps(_truth(), protocol=2))
            (folder / shortlist).write_bytes(pickle.dumps(np.stack([found.similarities, found.ids])))
        # The test set is called after its folder, which is another one in each case.
        return {
            truth: [inspect, load_ground_truth, _as_test_set(truth), _boxes, _convert],
            shortlist: [inspect, Shortlist.load, _as_test_set(truth), _convert, _neighbours_of_training],
            "mine_gallery_local.hdf5": [_as_test_set(truth)],
            "mine_query_local.hdf5": [_as_test_set(truth)],
        }

    return make


def _as_test_set(truth: str) -> Question:
    def ask(path: Path) -> None:
        (path.parent / f"gnd_{path.parent.name}{Path(truth).suffix}").symlink_to(path.parent / truth)
        _evaluate(path)

    return ask


def _boxes(path: Path) -> None:
    read_boxes(str(path), NAMES[:QUERIES], None)


def _convert(path: Path) -> None:
    if path.suffix in (".pkl", ".pt"):
        convert(path, path.parent / ("made.json" if path.name.startswith("gnd") else "made.npz"))


def _neighbours_of_training(path: Path) -> None:
    Neighbours.open(path, images=QUERIES, columns=4).rows(np.arange(QUERIES))


def _published_shortlists(folder: Path) -> dict[str, list[Question]]:
    found = _neighbours(IMAGES)
    array = np.stack([found.similarities.astype(np.float64), found.ids])
    for protocol in (2, 3, 4, 5):
        (folder / f"numpy{protocol}.pkl").write_bytes(pickle.dumps(array, protocol=protocol))
    (folder / "torch.pkl").write_bytes(pickle.dumps(torch.from_numpy(array)))

    def neighbours(path: Path) -> None:
        Neighbours.open(path, images=IMAGES, columns=5).rows(np.arange(IMAGES))

    return {
        name: [inspect, Shortlist.load, neighbours, _convert]
        for name in ("numpy2.pkl", "numpy3.pkl", "numpy4.pkl", "numpy5.pkl", "torch.pkl")
    }


def _lists(folder: Path) -> dict[str, list[Question]]:
    (folder / "list.txt").write_text("\n".join(f"{name},{i % 3},64,48" for i, name in enumerate(NAMES)))
    (folder / "pairs.csv").write_text("query,image,match\n0.jpg,1.jpg,1\n0.jpg,2.jpg,0\n3.jpg,4.jpg,1\n")
    (folder / "boxes.txt").write_text("0,0,5,5\n1,1.5,7,8\n0,0,1e2,3\n")
    return {
        "list.txt": [inspect, read_list, read_training_list],
        "pairs.csv": [lambda path: read_pairs(path, NAMES)],
        "boxes.txt": [_boxes],
    }


def _run(folder: Path) -> dict[str, list[Question]]:
    found = _neighbours()
    (folder / "gnd.json").write_text(json.dumps(_truth()))
    about = {"num_rerank": [5], "lamb": [0.5], "temp": [1.0], "model": "x", "dataset": "y"}
    logits = np.random.default_rng(0).standard_normal(found.ids.shape).astype(np.float32)
    Run(found, logits, folder / "gnd.json", IMAGES, PROTOCOLS, about).save(folder)
    return {"scores.npz": [inspect, lambda path: evaluate_run(Run.load(path.parent))]}


# ---- weights ----------------------------------------------------------------------------------------


def _weights(folder: Path) -> dict[str, list[Question]]:
    torch.manual_seed(0)
    model = AMES(**TINY, binarized=True)
    about = {"backbone": "mine", "lamb": 0.5, "temp": 1.0}
    save_weights(folder / "a.safetensors", model, provenance=about)
    save_checkpoint(folder / "b.pt", model, provenance=about)
    torch.save({"state": model.state_dict(), "optim": {}, "epoch": 3}, folder / "c.pt")
    torch.save({"state": model.state_dict()}, folder / "old.pt", _use_new_zipfile_serialization=False)
    save_detector(folder / "detector.pt", SpatialAttention(WIDTH))
    torch.save({"W": torch.eye(16, 8)}, folder / "itq.pt")
    np.savez(folder / "itq.npz", proj=np.eye(16, 8, dtype=np.float32))
    save_state(folder / "other.safetensors", {"x": torch.ones(3)}, {"of": "nothing"})
    models = ("a.safetensors", "b.pt", "c.pt", "old.pt")
    return {name: [inspect, load_model] for name in models} | {
        "detector.pt": [inspect, load_detector],
        "itq.pt": [inspect, read_itq],
        "itq.npz": [inspect, read_itq],
        "other.safetensors": [inspect],
    }


def _training(folder: Path) -> dict[str, list[Question]]:
    (folder / "states").mkdir(exist_ok=True)
    settings = {"epochs": 2}
    state = {"model": AMES(**TINY).state_dict(), "step": 5, "rng": torch.arange(9)}
    Checkpoints(folder / "states", resume=True).save(state, settings, 5)
    journal = Journal(folder / "model.jsonl")
    journal.begin(0)
    for step in range(1, 9):
        journal.write({"kind": "step", "step": step, "loss": 1 / step, "lr": 1e-4})
    journal.write({"kind": "epoch", "step": 8, "epoch": 1, "map": 30.5})
    journal.close()
    return {
        "states/state-000000005.pt": [
            lambda path: Checkpoints(path.parent, resume=True).latest(settings),
            inspect,
        ],
        "model.jsonl": [read_journal],
    }


# ---- databases --------------------------------------------------------------------------------------


def _database(factory: str) -> Callable[[Path], dict[str, list[Question]]]:
    def make(folder: Path) -> dict[str, list[Question]]:
        made = folder / "db"
        if not made.exists():
            vectors = np.random.default_rng(0).standard_normal((IMAGES, GLOBAL)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            write_globals(folder / "x_global.hdf5", vectors)
            local = DescriptorFile(_local(folder, "x_local.hdf5"))
            torch.manual_seed(0)
            source = Source(local, GlobalFile(folder / "x_global.hdf5"), NAMES)
            compress(source, AMES(**TINY, binarized=True).eval(), made, desc_num=2, factory=factory)
        return {f"db/{path.name}": [_use] for path in sorted(made.iterdir()) if path.is_file()}

    return make


def _use(path: Path) -> None:
    inspect(path.parent)
    database = Database(path.parent)
    database.read(range(len(database)))
    search_database(database, np.eye(GLOBAL, dtype=np.float32)[:2], 3)
    database.verify()


class Stopped(PoolExtractor):
    """As if somebody had pressed Ctrl-C at the first image."""

    def chunks(self, *_):
        raise KeyboardInterrupt
        yield


PARAMETERS = Parameters("test", 2, 1, 1, 1, 1, 0, (64, 96))


def _extract_by(images: Images, kind: type[PoolExtractor]) -> None:
    extractor = kind(make_backbone("rootsift"), ExtractionConfig(desc_num=5, workers=0))
    run(images, extractor, plan_output(images.root / "x", images, extractor, kinds=["local"]))


def _unfinished(folder: Path) -> dict[str, list[Question]]:
    """An extraction that was broken off, and a data set of drawn landmarks."""
    for number in range(3):
        picture = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    state = folder / "x.partial.json"
    if not state.exists():
        images = Images(folder, ["0.png", "1.png", "2.png"])
        with contextlib.suppress(KeyboardInterrupt):
            _extract_by(images, Stopped)
    (folder / "set").mkdir(exist_ok=True)
    (folder / "set" / "dataset.json").write_text(json.dumps(described(PARAMETERS)))

    def go_on(path: Path) -> None:
        images = Images(path.parent, ["0.png", "1.png", "2.png"])
        _extract_by(images, PoolExtractor)

    return {
        "x.partial.json": [go_on],
        "x_local.hdf5.partial": [go_on],
        "set/dataset.json": [lambda path: is_finished(path.parent, described(PARAMETERS))],
    }


# ---- files of other projects ------------------------------------------------------------------------


def _converted(path: Path) -> None:
    convert(path, path.parent / ("book.npz" if path.name.startswith("book") else "made"))


def _others(folder: Path) -> dict[str, list[Question]]:
    """Files of hloc, the asmk package, DINOv2 and GLDv2."""
    rng = np.random.default_rng(0)
    for name in ("local.h5", "global.h5"):
        with h5py.File(folder / name, "w", libver="latest" if name == "local.h5" else None) as file:
            for i in range(4):
                image = file.create_group(f"db/{i}.jpg")
                image["image_size"] = np.array([64, 48])
                if name == "global.h5":
                    image["global_descriptor"] = rng.standard_normal(GLOBAL).astype(np.float16)
                    continue
                image["keypoints"] = (rng.random((SLOTS, 2)) * 40).astype(np.float16)
                image["descriptors"] = rng.standard_normal((WIDTH, SLOTS)).astype(np.float16)
                image["scores"] = rng.random(SLOTS).astype(np.float16)
    vectors = rng.standard_normal((9, WIDTH)).astype(np.float32)
    features = {"vecs": vectors, "imids": np.arange(9) // 3, "qvecs": vectors[:2], "qimids": np.arange(2)}
    book = {"type": "Codebook", "params": {"size": 9}, "state": {"centroids": vectors}}
    (folder / "features.pkl").write_bytes(pickle.dumps(features))
    (folder / "book.pkl").write_bytes(pickle.dumps(book))
    shapes = golden.dinov2(width=8, layers=1)
    network = {f"backbone.{name}": x for name, x in golden.state(shapes, 0).items()}
    torch.save({"teacher": network | {"dino_head.x": torch.ones(3)}}, folder / "teacher.pth")
    (folder / "train.csv").write_text("id,url,landmark_id\n" + "0123456789abcdef,http://x/a.jpg,7\n" * 3)
    names = ("local.h5", "global.h5", "features.pkl", "book.pkl")
    return {name: [inspect, _converted] for name in names} | {
        "teacher.pth": [inspect],
        "train.csv": [inspect, read_list, read_training_list],
    }


# ---- images -----------------------------------------------------------------------------------------


def _images(folder: Path) -> dict[str, list[Question]]:
    rng = np.random.default_rng(0)
    photo = cv2.GaussianBlur(rng.integers(0, 256, (48, 64, 3), np.uint8), (0, 0), 2)
    kinds = [".jpg", ".png", ".webp", ".bmp", ".tif", ".gif", ".avif", ".jp2"]
    found: dict[str, list[Question]] = {}
    for ending in kinds:
        if cv2.haveImageWriter(f"x{ending}"):
            (folder / f"x{ending}").write_bytes(cv2.imencode(ending, photo)[1].tobytes())
            found[f"x{ending}"] = [read_image]
    progressive = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    (folder / "p.jpg").write_bytes(cv2.imencode(".jpg", photo, progressive)[1].tobytes())
    return found | {"p.jpg": [read_image, _extract]}


def _extract(path: Path) -> None:
    extract(path.parent, [path.name], make_backbone("rootsift"), path.parent / "x")


KINDS: dict[str, Files | Words] = {
    "descriptors": Files(_descriptors),
    "test set": Files(_test_set(".json")),
    "published test set": Files(_test_set(".pkl")),
    "published shortlists": Files(_published_shortlists),
    "lists": Files(_lists),
    "run": Files(_run),
    "weights": Files(_weights),
    "training": Files(_training),
    "database of SQ4": Files(_database("SQ4")),
    "database of fp16": Files(_database("SQfp16")),
    "files of other projects": Files(_others),
    "images": Files(_images),
    "what is unfinished": Files(_unfinished),
    "commands": Words(lambda work, rng: ask_words(COMMANDS, work, rng)),
    "YAML": Words(lambda work, rng: ask_yaml(YAML, work, rng)),
}
