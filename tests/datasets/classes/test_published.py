"""Published lists, as small archives: what is read, and one line for whatever is wrong in them."""

from contextlib import suppress

import numpy as np
import pytest

from ames.datasets.classes.class_set import ClassSplit, differences
from ames.datasets.classes.readers import PUBLISHED, read_class_set
from ames.errors import AmesError
from fuzz.mutation import damaged
from helpers import class_archives as archives
from helpers.class_archives import write

FILES = {
    "cub": (archives.cub, ["images.txt"]),
    "sop": (archives.sop, ["Ebay_train.txt", "Ebay_test.txt"]),
    "inshop": (archives.inshop, ["Eval/list_eval_partition.txt"]),
    "gldv2-clean": (archives.gldv2, ["train_clean.csv", "train.csv"]),
}


def pairs(split):
    return list(zip(split.paths, split.labels, strict=True))


def test_cub(tmp_path):
    found = read_class_set("cub", archives.cub(tmp_path))
    assert found.root == tmp_path
    assert pairs(found.train) == [
        ("images/001.Auk/a_1.jpg", "001.Auk"),
        ("images/100.Tern/b_1.jpg", "100.Tern"),
        ("images/001.Auk/a_2.jpg", "001.Auk"),
    ]
    assert pairs(found.query) == [
        ("images/101.Jay/c_1.jpg", "101.Jay"),
        ("images/101.Jay/c_2.jpg", "101.Jay"),
        ("images/200.Wren/d_1.jpg", "200.Wren"),
    ]
    assert found.gallery is None


def test_sop(tmp_path):
    found = read_class_set("sop", archives.sop(tmp_path))
    assert pairs(found.train) == [("bicycle_final/1_0.JPG", "1"), ("bicycle_final/1_1.JPG", "1")]
    assert found.query.labels == ["11319", "11319", "11320"]
    assert found.query.paths[2] == "sofa_final/4_0.JPG"
    assert found.gallery is None


def test_inshop(tmp_path):
    found = read_class_set("inshop", archives.inshop(tmp_path))
    assert pairs(found.train) == [("img/WOMEN/Tees/id_01/01_1_front.jpg", "id_01")]
    assert found.query.labels == found.gallery.labels == ["id_02", "id_03"]
    assert found.gallery.paths[0] == "img/MEN/Denim/id_02/01_2_side.jpg"
    (tmp_path / "Img" / "img").mkdir(parents=True)
    again = read_class_set("inshop", tmp_path)
    assert again.gallery.paths == [f"Img/{path}" for path in found.gallery.paths]


def test_gldv2_clean(tmp_path):
    found = read_class_set("gldv2-clean", archives.gldv2(tmp_path))
    assert pairs(found.train) == [
        ("0/0/a/00a1b2c3d4e5f607.jpg", "7"),
        ("1/0/a/10a1b2c3d4e5f607.jpg", "7"),
        ("f/e/d/fedcba9876543210.jpg", "31"),
    ]
    assert (found.query, found.gallery, found.notes) == (None, None, [])
    (tmp_path / "train").mkdir()
    (tmp_path / "train.csv").unlink()
    again = read_class_set("gldv2-clean", tmp_path)
    assert again.train.paths[0] == "train/0/0/a/00a1b2c3d4e5f607.jpg"
    assert "is not compared with it" in again.notes[0]


def test_windows_line_ends_and_a_mark_at_the_start_do_not_matter(tmp_path):
    for kind, (make, names) in FILES.items():
        plain = read_class_set(kind, make(tmp_path / kind))
        for name in names:
            path = tmp_path / kind / name
            path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
        again = read_class_set(kind, tmp_path / kind)
        assert {k: pairs(v) for k, v in again.splits().items()} == {
            k: pairs(v) for k, v in plain.splits().items()
        }


# ---- what is wrong ------------------------------------------------------------------------------------


HEAD = "image_id class_id super_class_id path"
WRONG = [
    ("cub", "images.txt", None, "images.txt: no such file; give the folder CUB_200_2011"),
    ("cub", "images.txt", "1 001.Auk/a.jpg\nb.jpg\n", "line 2: 'b.jpg' is not 'NUMBER CLASS.NAME/IMAGE'"),
    ("cub", "images.txt", "1 Auk/a.jpg\n", "line 1: '1 Auk/a.jpg' is not"),
    ("cub", "images.txt", "1 001.Auk/a.jpg\n", "lists no image of the split 'query'"),
    ("cub", "images.txt", "\n", "lists no image"),
    (
        "cub",
        "images.txt",
        "1 001.Auk/a.jpg\n\n2 001.Auk/a.jpg\n",
        "line 3: images/001.Auk/a.jpg is listed again, first in line 1; remove one",
    ),
    ("cub", "images.txt", "1 001.Auk/a\0.jpg", "not a text file (zero bytes in line 1: UTF-16?)"),
    ("sop", "Ebay_test.txt", None, "Ebay_test.txt: no such file; give the folder Stanford_Online_Products"),
    ("sop", "Ebay_test.txt", "3 4 5 a.jpg\n", "line 1: '3 4 5 a.jpg' is not the names of the columns"),
    ("sop", "Ebay_test.txt", f"{HEAD}\n", "lists no image of the split 'query'"),
    ("sop", "Ebay_test.txt", "", "Ebay_test.txt: line 1: '' is not the names of the columns"),
    ("sop", "Ebay_test.txt", f"{HEAD}\n3 4 5\n", "Ebay_test.txt: line 2: '3 4 5' is not"),
    ("sop", "Ebay_test.txt", f"{HEAD}\n3 x 5 a.jpg\n", "Ebay_test.txt: line 2: '3 x 5 a.jpg' is not"),
    (
        "sop",
        "Ebay_test.txt",
        f"{HEAD}\n3 2 1 bicycle_final/1_1.JPG\n",
        "Ebay_test.txt: line 2: bicycle_final/1_1.JPG has the label '2', and '1' in ",
    ),
    (
        "sop",
        "Ebay_test.txt",
        f"{HEAD}\n3 1 1 bicycle_final/1_1.JPG\n",
        "is in the split 'query', and in 'train' in ",
    ),
    ("inshop", "Eval/list_eval_partition.txt", None, "no such file; give the folder of the In-Shop"),
    ("inshop", "Eval/list_eval_partition.txt", "image_name\n", "line 1: 'image_name' is not the number"),
    ("gldv2-clean", "train_clean.csv", "landmark_id,images\n7,abc\n", "line 2: '7,abc' is not 'LANDMARK,ID"),
    ("gldv2-clean", "train_clean.csv", "landmark_id,images\n7,\n", "line 2: '7,' is not 'LANDMARK,ID"),
    ("gldv2-clean", "train_clean.csv", "landmark_id,images\n", "lists no image"),
    ("gldv2-clean", "train.csv", "id,url,landmark_id\nfedcba9876543210,http://x,32\n", "is of landmark 32"),
    ("gldv2-clean", "train.csv", "id,url,landmark_id\n", "lacks 3 images of train_clean.csv (first: 00a1b2"),
    ("gldv2-clean", "train.csv", "id,url,landmark_id\nx,y\n", "line 2: 'x,y' is not 'ID,URL,LANDMARK'"),
]


@pytest.mark.parametrize(("kind", "name", "text", "message"), WRONG)
def test_one_line_for_what_is_wrong(tmp_path, kind, name, text, message):
    FILES[kind][0](tmp_path)
    (tmp_path / name).unlink() if text is None else write(tmp_path / name, text)
    with pytest.raises(AmesError) as raised:
        read_class_set(kind, tmp_path)
    assert message in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(("said", "count"), [(6, "6"), (52712, "52,712"), (4, "4")])
def test_the_number_in_the_first_line_of_inshop_is_checked(tmp_path, said, count):
    with pytest.raises(AmesError, match=f"its first line says {count} images, and 5 follow: the file is cut"):
        read_class_set("inshop", archives.inshop(tmp_path, said=said))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("query", "test", "line 4: .* is not 'IMAGE ITEM train|query|gallery'"),
        ("gallery", "query", "lists no image of the split 'gallery'"),
        ("gallery", "train", "lists no image of the split 'gallery'"),
    ],
)
def test_a_list_of_inshop_whose_splits_are_wrong(tmp_path, old, new, message):
    path = archives.inshop(tmp_path) / "Eval" / "list_eval_partition.txt"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(AmesError, match=message):
        read_class_set("inshop", tmp_path)


def test_no_class_of_a_query_in_the_gallery(tmp_path):
    path = archives.inshop(tmp_path) / "Eval" / "list_eval_partition.txt"
    lines = [x.replace("id_0", "id_9") if x.endswith("gallery") else x for x in path.read_text().splitlines()]
    path.write_text("\n".join(lines))
    with pytest.raises(
        AmesError, match="no class of a query is in the gallery, so that nothing can be found"
    ):
        read_class_set("inshop", tmp_path)


def test_unknown_kinds_and_rules_for_published_sets(tmp_path):
    from ames.datasets.classes.own import ClassRule

    with pytest.raises(AmesError, match="'cubs' does not exist; did you mean cub"):
        read_class_set("cubs", tmp_path)
    with pytest.raises(AmesError, match="cub has published splits; a share of classes is for folder and csv"):
        read_class_set("cub", archives.cub(tmp_path), ClassRule())


@pytest.mark.parametrize("kind", FILES)
def test_damaged_lists_are_read_or_refused(tmp_path, kind):
    make, names = FILES[kind]
    rng = np.random.default_rng(0)
    for _ in range(100):
        name = names[rng.integers(len(names))]
        path = make(tmp_path) / name
        path.write_bytes(damaged(path.read_bytes(), rng))
        with suppress(AmesError):
            found = read_class_set(kind, tmp_path)
            assert all(len(x.paths) == len(x.labels) > 0 for x in found.splits().values())


def test_a_line_says_where_a_set_is_not_the_published_one(tmp_path):
    found = read_class_set("cub", archives.cub(tmp_path))
    assert differences(found, {"train": (3, 2), "query": (3, 2)}) == []
    assert differences(found, {"train": (5864, 100), "query": (3, 2), "gallery": (1, 1)}) == [
        "train: 3 images of 2 classes were read, 5,864 of 100 are published: this is a subset, or another "
        "version",
        "gallery: 0 images of 0 classes were read, 1 of 1 are published: this is a subset, or another "
        "version",
    ]
    assert ClassSplit().count_classes() == 0


def test_every_published_kind_has_an_archive_here():
    assert set(PUBLISHED) == {*FILES, "cars196"}  # that one: test_cars.py
