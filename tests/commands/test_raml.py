"""RAML by the command: its configurations, a teacher and a student on a few photos, and mistakes."""

import pytest
from hydra import compose, initialize_config_dir

from ames.embedders.checkpoints import load_embedder, load_pair
from ames.training.logging.journal import read_journal
from ames.training.tasks.metric_triplets import TripletRecipe
from ames.training.tasks.raml import RamlRecipe
from ames.weights.files import read_weights
from helpers.commands import ROOT, refused, run_script
from helpers.photos import broken
from helpers.small_networks import CLASSES, IMAGES, write_photos

SCRIPT = ROOT / "src" / "train_embedder.py"
SMALL = [
    "train_dataset.desc_dir=photos",
    "dataset@val_dataset=own",
    "val_dataset.desc_dir=photos",
    "network.trunk=resnet10",
    "network.width=0.125",
    "dim=8",
    "batch_norm=trained",
    "epochs=2",
    "cpu=true",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data root with the photos and lists of path,label; image 0 is broken. teacher.pt is beside them."""
    root = tmp_path_factory.mktemp("root")
    write_photos(root / "photos")
    broken(root / "photos")
    names = ["cut.jpg", *(f"{i}.png" for i in range(1, IMAGES))]
    text = "".join(f"{name},{i % CLASSES}\n" for i, name in enumerate(names))
    for name in ("train", "test_query", "test_gallery"):
        (root / "photos" / f"{name}.txt").write_text(text)
    done = run_script(SCRIPT, *words(root, "raml_teacher", "teacher.pt", "network.size=64"), cwd=root)
    assert done.returncode == 0, done.stderr
    return root


def words(root, method, out, *more):
    chosen = [f"method={method}", f"data_root={root}", f"model_path={root / out}", *SMALL, *more]
    return [*chosen, f"hydra.run.dir={root / 'run'}"]


def records(root, name):
    return [x for x in read_journal(root / f"{name}-journal.jsonl") if x["kind"] == "epoch"]


def test_a_teacher_and_a_student_are_trained_and_validated(root):
    teacher = records(root, "teacher")
    assert [x["epoch"] for x in teacher] == [1, 2]
    assert all(x["unreadable"] >= 1 for x in teacher)
    student = words(root, "raml", "student.pt", f"teacher={root / 'teacher.pt'}", "network.size=32")
    done = run_script(SCRIPT, *student, "views=2", "accumulate=2", cwd=root)
    assert done.returncode == 0, done.stderr
    assert "24 images of 6 classes; 2 batches and 1 steps per epoch" in done.stdout
    assert f"{root / 'photos' / 'cut.jpg'}: left out: cut off" in done.stdout + done.stderr
    for record in records(root, "student"):
        assert {"loss", "absolute", "across", "within", "val_map", "val_map_symmetric"} <= record.keys()
    query, gallery = load_pair(root / "student.pt")
    assert (query.inputs.size, gallery.inputs.size) == (32, 64)
    alone = load_embedder(root / "teacher.pt", "gallery")
    assert gallery.space == alone.space
    assert read_weights(root / "student.pt").about["variant"] == "ts_aug"


def composed(method, *more):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("embedder", [f"method={method}", "data_root=x", *more])


@pytest.mark.parametrize(
    ("method", "lr", "lam_1", "lam_2"),
    [
        ("raml", 1.7579e-4, 0.7482, 0.6778),
        ("raml_cub", 1.4025e-4, 0.7718, 0.6684),
        ("raml_cars196", 1.1692e-4, 0.6371, 0.7731),
    ],
)
def test_published_rates_and_weights(method, lr, lam_1, lam_2):
    config = composed(method)
    assert (config.lr, config.lam_1, config.lam_2) == (lr, lam_1, lam_2)
    assert (config.network.trunk, config.network.size, config.network.dim) == ("resnet50", 224, 512)
    assert composed(method, "network=shufflenet_v2").network.trunk == "shufflenet_v2"


@pytest.mark.parametrize(("method", "recipe"), [("raml", RamlRecipe), ("raml_teacher", TripletRecipe)])
def test_defaults_are_those_of_the_recipe(method, recipe):
    config, usual = composed(method), recipe()
    for name in recipe.__annotations__.keys() | {"lr", "epochs", "schedule", "weight_decay", "accumulate"}:
        tree = config.train_dataset if name == "batch_size" else config
        assert tree[name] == getattr(usual, name), name


def test_a_student_may_start_from_a_network(root):
    start = [f"start_from={root / 'teacher.pt'}", "network.size=32", "views=2", "accumulate=2", "lr=1e-12"]
    student = words(root, "raml", "from.pt", f"teacher={root / 'teacher.pt'}", *start, "epochs=1")
    done = run_script(SCRIPT, *student, cwd=root)
    assert done.returncode == 0, done.stderr
    query, gallery = load_pair(root / "from.pt")
    found, wanted = query.whiten.weight, gallery.whiten.weight
    assert float((found - wanted).abs().max().detach()) < 1e-6


def test_mistakes_are_one_line(root):
    def said(method, *more):
        return refused(SCRIPT, *words(root, method, "x.pt", *more), cwd=root)

    teacher = f"teacher={root / 'teacher.pt'}"
    assert "teacher is missing: give the file of the gallery side" in said("raml")
    assert "random weights" in said("raml", teacher, "batch_norm=frozen")
    assert "leave trunk_weights out" in said(
        "raml", teacher, f"start_from={root / 'teacher.pt'}", "trunk_weights=x.pt"
    )
    assert "give equal dim" in said("raml", teacher, "dim=16")
    assert "an epoch of 2 batches has no step of 25" in said("raml", teacher, "train_dataset.batch_size=10")
    assert "desc_num_sampling pair is of triplets" in said(
        "raml_teacher", "train_dataset.desc_num_sampling=pair"
    )
