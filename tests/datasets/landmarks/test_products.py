"""Generated products: the same pictures each time, lists that agree, nothing half-written."""

import itertools
import json

import cv2
import numpy as np
import pytest

from ames.cli.main import main
from ames.datasets.landmarks import products
from ames.datasets.landmarks.plan import Parameters, generator
from ames.datasets.landmarks.products import ProductSet, draw_product, make_products, render_product
from ames.datasets.lists import read_list, read_training_list
from ames.errors import AmesError

SMALL = {"products": 3, "views": 4, "side": 64}


def make(folder, split="train", *, workers=0, **changes):
    return make_products(folder, ProductSet(split, **SMALL | changes), workers=workers)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    return make(tmp_path_factory.mktemp("products") / "train")


def test_the_same_bytes_for_any_number_of_workers(train, tmp_path):
    assert contents(make(tmp_path / "again", workers=2)) == contents(train)


def test_the_pictures_are_what_is_listed(train):
    names = {f"images/product_{n:05}_{view:03}.jpg" for n in range(3) for view in range(1, 5)}
    assert {*contents(train)} == names | {"train.txt", "dataset.json"}
    listed = read_list(train / "train.txt")
    assert {x.path for x in listed} == names
    assert all(int(x.label) == int(x.path.split("_")[1]) for x in listed)
    assert [x.path for x in listed] != sorted(names)  # shuffled
    assert np.bincount(read_training_list(train / "train.txt").labels).tolist() == [4, 4, 4]
    for name in names:
        assert cv2.imread(str(train / name)).shape == (64, 64, 3)
    content = {"kind": "products", "split": "train", "seed": 0} | SMALL
    assert json.loads((train / "dataset.json").read_text()) == content


@pytest.mark.parametrize("split", ["val", "test"])
def test_every_picture_of_a_test_set_asks_for_the_others(split, tmp_path):
    folder = make(tmp_path / "x", split)
    queries, gallery = (read_list(folder / f"test_{name}.txt") for name in ("query", "gallery"))
    assert queries == gallery
    assert len({x.path for x in queries}) == 12
    assert not (folder / "train.txt").exists()


def pictures(folder):
    return [cv2.imread(str(x)).astype(float) for x in sorted((folder / "images").iterdir())]


def test_splits_and_seeds_draw_other_products(train, tmp_path):
    drawn = []
    for split, seed in (("train", 0), ("val", 0), ("test", 0), ("train", 1)):
        for number in range(2):
            wanted = ProductSet(split, **SMALL, seed=seed)
            drawn.append(cv2.resize(draw_product(wanted.generator(number, 0))[0], (64, 64)).astype(float))
    for one, other in itertools.combinations(drawn, 2):
        assert np.abs(one - other).mean() > 10
    sets = [pictures(train), pictures(make(tmp_path / "val", "val")), pictures(make(tmp_path / "s", seed=1))]
    for one, other in itertools.combinations(sets, 2):
        assert all(np.abs(a - b).mean() > 1 for a in one for b in other)


def test_products_share_no_source_of_chance_with_landmarks():
    """Nor the shuffle of their list, which has the number before the first product's."""
    landmarks = Parameters("train", 1, 1, 1, 0, 0)
    products_ = ProductSet("train", **SMALL)
    drawn = {products_.generator(number, 0).integers(1 << 60) for number in (-1, 0, 1)}
    numbers = [0, 1, 1_000_000, 2_000_000, 3_000_000, 4_000_000]
    drawn |= {generator(landmarks, number, 0).integers(1 << 60) for number in numbers}
    assert len(drawn) == 9


def test_more_products_or_views_do_not_change_those_there_were(train, tmp_path):
    before = contents(train)
    for folder in (make(tmp_path / "a", products=4), make(tmp_path / "b", views=5)):
        found = contents(folder)
        assert all(found[name] == x for name, x in before.items() if name.startswith("images/"))


def test_views_of_a_product_show_it_from_several_sides():
    product, mask = draw_product(np.random.default_rng(0))
    assert product.dtype == mask.dtype == np.uint8
    assert {*np.unique(mask).tolist()} <= {0, 255}
    views = [render_product(product, mask, np.random.default_rng(n), 96) for n in range(4)]
    assert {(x.shape, x.dtype) for x in views} == {((96, 96, 3), np.dtype(np.uint8))}
    for one, other in itertools.combinations(views, 2):
        assert np.abs(one.astype(float) - other).mean() > 5


# ---- the folder ------------------------------------------------------------------------------------------


def test_a_finished_set_is_left_alone(train, monkeypatch):
    monkeypatch.setattr(products, "draw_product", lambda *_: pytest.fail("drawn again"))
    before = contents(train)
    assert make(train) == train
    assert contents(train) == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"views": 5}, "views=4 not 5"),
        ({"seed": 2}, "seed=0 not 2"),
        ({"split": "val"}, "split='train' not 'val'"),
    ],
)
def test_a_set_of_other_parameters_is_refused(train, changes, said):
    with pytest.raises(
        AmesError, match=rf"holds a dataset of other parameters \({said}\); name a new folder"
    ):
        make(train, **changes)


def test_other_folders_are_refused(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x.txt").write_text("x")
    with pytest.raises(AmesError, match="is not empty and holds no dataset"):
        make(tmp_path / "full")
    (tmp_path / "full" / "dataset.json").write_text('{"kind": "landmarks"}')
    with pytest.raises(AmesError, match=r"other parameters \(kind='landmarks' not 'products'"):
        make(tmp_path / "full")
    (tmp_path / "file").write_text("x")
    with pytest.raises(AmesError, match="is not a folder"):
        make(tmp_path / "file")
    assert sorted(x.name for x in tmp_path.iterdir()) == ["file", "full"]


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    left = [2]
    encode = cv2.imencode

    def failing(*given):
        left[0] -= 1
        return (False, None) if left[0] < 0 else encode(*given)

    monkeypatch.setattr(cv2, "imencode", failing)
    with pytest.raises(OSError, match=r"product_00000_003.jpg: OpenCV could not encode"):
        make(tmp_path / "x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "dev"}, "split 'dev' is none of train, val, test"),
        ({"products": 0}, "products=0 must be at least 1"),
        ({"views": 1}, "views=1 must be at least 2"),
        ({"side": 31}, "side=31 must be at least 32"),
        ({"seed": -1}, "seed=-1 must be at least 0"),
    ],
)
def test_impossible_sets_are_one_line(changes, message):
    with pytest.raises(AmesError, match=message):
        ProductSet(**{"split": "train"} | SMALL | changes)


def test_the_command_makes_the_set_and_says_where(train, tmp_path, capsys):
    folder = tmp_path / "x"
    words = ["--split", "train", "--products", "3", "--views", "4", "--side", "64", "--workers", "0"]
    assert main(["products", str(folder), *words]) == 0
    assert capsys.readouterr().out.strip() == str(folder)
    assert contents(folder) == contents(train)
    assert main(["products", str(folder), "--split", "val", "--workers", "0"]) == 2
    assert "holds a dataset of other parameters" in capsys.readouterr().err
