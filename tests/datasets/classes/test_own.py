"""Own labels: a folder with a sub-folder a class, and CSV files."""

import pytest

from ames.datasets.classes.own import ClassRule
from ames.datasets.classes.readers import read_class_set
from ames.errors import AmesError
from helpers.class_archives import write


def photos(root, *names):
    for name in names:
        write(root / name, "an image by its suffix")
    return root


def six_classes(root):
    return photos(root, *(f"{name}/{view}.jpg" for name in "abcdef" for view in range(2)))


def refused(kind, root, message, rule=None):
    with pytest.raises(AmesError, match=message) as raised:
        read_class_set(kind, root, rule)
    assert len(str(raised.value).splitlines()) == 1


def test_whole_classes_of_a_folder_train_or_test(tmp_path):
    six_classes(tmp_path)
    write(tmp_path / "a" / "deeper" / "2.jpg", "x")
    found = read_class_set("folder", tmp_path, ClassRule(share=0.5, seed=1))
    trained, tested = set(found.train.labels), set(found.query.labels)
    assert (len(trained), len(tested), trained | tested) == (3, 3, set("abcdef"))
    assert not trained & tested
    every = found.train.paths + found.query.paths
    assert sorted(every) == sorted([*(f"{x}/{y}.jpg" for x in "abcdef" for y in (0, 1)), "a/deeper/2.jpg"])
    labels = found.train.labels + found.query.labels
    assert all(path[0] == label for path, label in zip(every, labels, strict=True))
    assert found.gallery is None


def test_the_seed_draws_the_classes(tmp_path):
    six_classes(tmp_path)
    drawn = [
        tuple(read_class_set("folder", tmp_path, ClassRule(seed=seed)).train.paths) for seed in range(10)
    ]
    assert len(set(drawn)) > 3
    assert drawn[0] == tuple(read_class_set("folder", tmp_path).train.paths)  # the default


def test_one_split_alone(tmp_path):
    six_classes(tmp_path)
    tested = read_class_set("folder", tmp_path, ClassRule(share=0))
    trained = read_class_set("folder", tmp_path, ClassRule(share=1))
    assert (tested.train, len(tested.query)) == (None, 12)
    assert (trained.query, len(trained.train)) == (None, 12)


def test_images_without_a_class_are_left_out(tmp_path):
    six_classes(tmp_path)
    photos(tmp_path, "loose.jpg", "readme.txt")
    found = read_class_set("folder", tmp_path)
    assert "loose.jpg" not in found.train.paths + found.query.paths
    assert any("readme.txt" in note for note in found.notes)
    assert f"1 image directly in {tmp_path}, of no class, left out" in found.notes


def test_wrong_folders(tmp_path):
    refused("folder", tmp_path / "none", "no such folder")
    photos(tmp_path / "flat", "a.jpg")
    refused("folder", tmp_path / "flat", "no images in sub-folders; expected one sub-folder a class")
    photos(tmp_path / "splits", "train/a/1.jpg", "test/b/1.jpg")
    refused("folder", tmp_path / "splits", "its sub-folders are test, train, splits and no classes")
    photos(tmp_path / "one", "a/1.jpg", "a/2.jpg")
    refused("folder", tmp_path / "one", "1 class, too few for a share of 0.5; give 0 or 1")
    with pytest.raises(AmesError, match=r"share of classes that train is 1.5: give 0 to 1"):
        ClassRule(share=1.5)


def test_a_csv_file_without_splits(tmp_path):
    rows = "".join(f'"{x}, {y}.jpg",{x}\n' for x in "abcd" for y in range(2))
    path = write(tmp_path / "labels.csv", "path,label\n" + rows)
    found = read_class_set("csv", path, ClassRule(share=0.25))
    assert found.root == tmp_path
    assert (len(found.train), len(found.query)) == (2, 6)
    label = found.train.labels[0]
    assert found.train.paths == [f"{label}, 0.jpg", f"{label}, 1.jpg"]


def test_a_csv_file_with_splits(tmp_path):
    path = write(tmp_path / "x.csv", "path,label,split\na.jpg,1,train\nb.jpg,2,test\nc.jpg,2,test\n")
    found = read_class_set("csv", path)
    assert (found.train.paths, found.query.paths, found.gallery) == (["a.jpg"], ["b.jpg", "c.jpg"], None)
    write(path, "path,label,split\nb.jpg,2,query\nc.jpg,2,gallery\nd.jpg,3,gallery\n")
    found = read_class_set("csv", path)
    assert (found.train, found.query.paths) == (None, ["b.jpg"])
    assert (found.gallery.paths, found.gallery.labels) == (["c.jpg", "d.jpg"], ["2", "3"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg,1\n", "its first line is 'a.jpg,1'; expected path,label or path,label,split"),
        ("", "its first line is ''"),
        ("path,label\n", "lists no image|0 classes"),
        ("path,label\na.jpg\n", "line 2: 1 fields; expected 2"),
        ("path,label\na.jpg,1,2\n", "line 2: 3 fields; expected 2"),
        ("path,label,split\na.jpg,1,val\n", "line 2: split 'val'; choose one of train, test, query, gallery"),
        ("path,label,split\na.jpg,1,\n", "line 2: split ''"),
        ("path,label,split\na.jpg,,train\n", "line 2: label '' is empty"),
        ("path,label,split\n,1,train\n", "line 2: path '' is empty"),
        (
            "path,label,split\na.jpg,1,test\n\na.jpg,2,test\n",
            "line 4: a.jpg has the label '2', and '1' in line 2",
        ),
        ("path,label,split\na.jpg,1,test\nb.jpg,1,gallery\n", "has images of test, and of query or gallery"),
        ("path,label,split\na.jpg,1,query\n", "has images of query and none of gallery; call them test"),
        ("path,label,split\na.jpg,1,gallery\n", "no image is a query"),
        ("path,label,split\na.jpg,1,query\nb.jpg,2,gallery\n", "no class of a query is in the gallery"),
        ('path,label\n"a.jpg,1\n', "a double quote that is not closed"),
    ],
)
def test_wrong_csv_files(tmp_path, text, message):
    refused("csv", write(tmp_path / "x.csv", text), message)


def test_a_rule_beside_splits(tmp_path):
    path = write(tmp_path / "x.csv", "path,label,split\na.jpg,1,train\nb.jpg,2,test\n")
    refused("csv", path, "has a column of splits; leave the share of classes and the seed out", ClassRule())
    refused("csv", tmp_path / "none.csv", "none.csv: no such list of labels")
