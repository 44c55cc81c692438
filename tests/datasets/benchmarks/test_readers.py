"""Published files of benchmarks as lists and ground truth, and what is refused."""

import json

import numpy as np
import pytest

from ames.config.benchmarks import benchmark
from ames.datasets.benchmarks.benchmark_lists import check_images
from ames.datasets.benchmarks.readers import READERS, read_lists_of
from ames.datasets.benchmarks.writer import write_benchmark_lists
from ames.datasets.ground_truth import load_ground_truth
from ames.errors import AmesError
from helpers import benchmark_archives as archives
from helpers import class_archives
from helpers.class_archives import write


def read(name, root):
    found = benchmark(name)
    return read_lists_of(found.reader, root, found.files, skip_self=found.skip_self)


def truth(lists):
    return [{key: ids.tolist() for key, ids in query.items()} for query in lists.truth]


@pytest.mark.parametrize("suffix", [".json", ".pkl"])
def test_revisited(tmp_path, suffix):
    found = read("roxford5k", archives.revisited(tmp_path / "x", suffix=suffix))
    assert found.queries == ["jpg/all_souls_9.jpg", "jpg/christ_9.jpg"]
    assert found.gallery == [f"jpg/{name}.jpg" for name in archives.GND["imlist"]]
    assert truth(found) == [{k: v for k, v in query.items() if k != "bbx"} for query in archives.GND["gnd"]]
    assert found.boxes.tolist() == [[1, 2, 30, 40], [5, 6, 70, 80]]


def test_lists_beside_a_ground_truth_give_the_paths(tmp_path):
    bare = {"gnd": archives.GND["gnd"]}
    root = archives.revisited(tmp_path, bare)
    with pytest.raises(AmesError, match=r"gnd_roxford5k.json: names no images; put test_query.txt and"):
        read("roxford5k", root)
    write(root / "test_query.txt", "a/1.jpg,0,10,10\na/2.jpg,0,10,10")
    write(root / "test_gallery.txt", "b/1.jpg\nb/2.jpg\nb/3.jpg\nb/4.jpg\n")
    assert read("roxford5k", root).gallery == ["b/1.jpg", "b/2.jpg", "b/3.jpg", "b/4.jpg"]
    write(root / "test_gallery.txt", "b/1.jpg\nb/2.jpg\nb/3.jpg\n")
    with pytest.raises(AmesError, match="query 1, junk: 3 is outside of imlist, which has 3 names"):
        read("roxford5k", root)
    archives.revisited(root)
    with pytest.raises(AmesError, match="imlist has 4 names, but the gallery 3 images"):
        read("roxford5k", root)
    write(root / "test_gallery.txt", "x/all_souls_1.jpg\nx/christ_1.jpg\nx/oxford_2.jpg\nx/oxford_1.jpg\n")
    write(root / "test_query.txt", "y/all_souls_9.jpg\ny/christ_9.jpg\n")
    with pytest.raises(AmesError, match=r"test_gallery.txt: image 2 is 'x/oxford_2.jpg', but 'oxford_1' in"):
        read("roxford5k", root)


def test_distractors_come_behind_the_gallery(tmp_path):
    archives.revisited(tmp_path / "roxford5k")
    with pytest.raises(AmesError, match=r"revisitop1m.txt: no such file; give the folder that holds both"):
        read("roxford5k+1m", tmp_path)
    write(tmp_path / "revisitop1m" / "revisitop1m.txt", "0/a.jpg\n1/b.jpg\n")
    found = read("roxford5k+1m", tmp_path)
    assert found.gallery[0] == "roxford5k/jpg/all_souls_1.jpg"
    assert list(found.distractors) == ["revisitop1m/jpg/0/a.jpg", "revisitop1m/jpg/1/b.jpg"]
    write_benchmark_lists(tmp_path / "out", found)
    lines = (tmp_path / "out" / "test_gallery.txt").read_text().splitlines()
    assert lines == [*found.gallery, *found.distractors]
    assert load_ground_truth(tmp_path / "out" / "gnd_out.json").imlist == found.gallery


def test_instre_of_matlab(tmp_path):
    found = read("instre", archives.instre_mat(tmp_path))
    assert truth(found) == [{"ok": [0, 2]}, {"ok": [1]}]
    assert found.boxes.tolist() == [[10, 20, 110, 220], [1, 1, 50, 60]]
    assert (found.queries[0], found.gallery[2]) == ("INSTRE-S1/01a_x/009.jpg", "INSTRE-M/01/003.jpg")
    (tmp_path / "gnd_instre.mat").write_bytes(b"none")
    with pytest.raises(AmesError, match=r"gnd_instre.mat: not a ground truth that scipy reads"):
        read("instre", tmp_path)


def test_gldv2(tmp_path):
    root = archives.gldv2(tmp_path)
    found = read("gldv2-test", root)
    assert found.queries == [
        "test/c/c/c/cccccccccccccccc.jpg",
        "test/a/a/a/aaaaaaaaaaaaaaaa.jpg",
    ]  # public first
    assert found.gallery[1] == "index/1/0/a/10a1b2c3d4e5f607.jpg"
    assert truth(found) == [{"ok": [1]}, {"ok": [0, 2]}]
    assert "1 private queries, 750 are published" in found.notes[0]
    assert found.notes[1] == "1 queries of the usage Ignored are left out"
    (root / "test.csv").unlink()
    assert "test.csv: not there, so that the queries" in read("gldv2-test", root).notes[0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["aaaaaaaaaaaaaaaa,ffffffffffffffff,Public"], "image ffffffffffffffff is not in index.csv"),
        (["eeeeeeeeeeeeeeee,00a1b2c3d4e5f607,Public"], "query eeeeeeeeeeeeeeee is not in test.csv"),
        (["aaaaaaaaaaaaaaaa,00a1b2c3d4e5f607,Open"], "line 2 is not id,images,Usage"),
        (["aaaaaaaaaaaaaaaa,00A,Public"], "line 2 is not id,images,Usage"),
        (["aaaaaaaaaaaaaaaa,00a1b2c3d4e5f607,Public"] * 2, r"query 2 \(test/a/a/a/.*\) is query 1, too"),
        (["aaaaaaaaaaaaaaaa,None,Ignored"], "lists no query"),
    ],
)
def test_what_gldv2_refuses(tmp_path, rows, message):
    with pytest.raises(AmesError, match=message) as raised:
        read("gldv2-test", archives.gldv2(tmp_path, solution=rows))
    assert len(str(raised.value).splitlines()) == 1


def test_met(tmp_path):
    found = read("met", archives.met(tmp_path))
    assert found.gallery == ["images/MET/7/0.jpg", "images/MET/9/0.jpg", "images/MET/7/1.jpg"]
    assert (found.query_labels, found.gallery_labels) == (["7", ""], ["7", "9", "7"])
    assert truth(found) == [{"ok": [0, 2]}, {"ok": []}]
    assert found.notes == ["1 query has no MET_id: of no class, distractors"]
    assert read("met-val", tmp_path).queries == ["images/test_met/1.jpg"]
    path = tmp_path / "ground_truth" / "testset.json"
    path.write_text(json.dumps([{"MET_id": 8, "path": "a.jpg"}]))
    with pytest.raises(AmesError, match=r"has the MET_id 8, of no image of MET_database.json"):
        read("met", tmp_path)
    path.write_text(json.dumps([{"MET_id": 7}]))
    with pytest.raises(AmesError, match="image 0 has no path"):
        read("met", tmp_path)
    path.write_text(json.dumps([{"MET_id": 7, "path": "\ud800.jpg"}]))
    with pytest.raises(AmesError, match=r"query 1 \('images/\\ud800.jpg'\) has no path that a list can hold"):
        read("met", tmp_path)
    path.write_text("{}")
    with pytest.raises(AmesError, match="not a list of images"):
        read("met", tmp_path)
    (tmp_path / "ground_truth" / "MET_database.json").write_text('[{"path": "a.jpg"}]')
    with pytest.raises(AmesError, match="image 0 has id None; expected a number"):
        read("met", tmp_path)


def test_ilias(tmp_path):
    found = read("ilias", archives.ilias(tmp_path))
    assert found.gallery == [
        "bold_bimp_000/pos/P000_00.jpg",
        "bold_bimp_000/pos/P000_01.jpg",
        "zippy_zoot_999/pos/P999_00.jpg",
    ]
    assert truth(found) == [{"ok": [0, 1]}, {"ok": [2]}]
    assert list(found.distractors) == ["0000/aa", "0000/bb"]
    assert list(read("mini-ilias", tmp_path).distractors) == ["0000/aa"]
    (tmp_path / "image_ids" / "distractor_ids.txt.gz").write_bytes(b"\x1f\x8bdamaged")
    with pytest.raises(AmesError, match="cannot be read as a list of images"):
        list(read("ilias", tmp_path).distractors)
    (tmp_path / "image_ids" / "distractor_ids.txt.gz").unlink()
    assert "the gallery has the positives alone" in read("ilias", tmp_path).notes[0]
    write(tmp_path / "image_ids" / "image_query_ids.txt", "other_1/query/Q.jpg,x\n")
    with pytest.raises(
        AmesError, match=r"no positive of positive_ids.txt is of the object of other_1/query/Q"
    ):
        read("ilias", tmp_path)
    write(tmp_path / "image_ids" / "image_query_ids.txt", "Q.jpg,x\n")
    with pytest.raises(AmesError, match=r"'Q.jpg' is no id OBJECT/FOLDER/IMAGE"):
        read("ilias", tmp_path)


def test_places_by_names_and_by_a_table(tmp_path):
    found = read("pitts30k", archives.places(tmp_path / "names"))
    positives = dict(zip(found.queries, truth(found), strict=True))
    first, second = sorted(found.gallery)
    assert first.endswith("@p1@.jpg")
    assert {name.split("@q")[1][0]: x["ok"] for name, x in positives.items()} == {
        "1": [found.gallery.index(first)],  # exactly 25 m
        "2": [],  # 25.1 m
        "3": [found.gallery.index(second)],
    }
    root = tmp_path / "table"
    write(root / "queries.csv", "path,easting,northing\nq1.jpg,25,0\nq2.jpg,0,25.1\n")
    write(root / "database.csv", "path,easting,northing\nd1.jpg,0,0\nd2.jpg,-1e3,0\n")
    assert truth(read("vpr", root)) == [{"ok": [0]}, {"ok": []}]
    write(root / "queries.csv", "path,easting,northing\nq1.jpg,25,north\n")
    with pytest.raises(AmesError, match=r"queries.csv: line 2: '25', 'north' is no position in metres"):
        read("vpr", root)
    for pair in ("25,nan", "nan,25", "1e300,0", "0,-inf"):
        write(root / "queries.csv", f"path,easting,northing\nq1.jpg,{pair}\n")
        with pytest.raises(AmesError, match="is no position in metres"):
            read("vpr", root)
    write(root / "queries.csv", "path,easting\nq1.jpg,25\n")
    with pytest.raises(AmesError, match="its first line is not path,easting,northing"):
        read("vpr", root)
    with pytest.raises(AmesError, match=r"images/test/queries: no such folder, and .* has no queries.csv"):
        read("tokyo247", tmp_path)
    archives.touch(tmp_path / "names", "images/test/queries/photo.jpg")
    with pytest.raises(AmesError, match=r"photo.jpg: its name has no position; expected @EASTING@NORTHING@"):
        read("pitts30k", tmp_path / "names")


def test_queries_among_the_others(tmp_path):
    write(tmp_path / "test_query.txt", "a/1.jpg,7\nb/1.jpg,9\n")
    write(tmp_path / "test_gallery.txt", "a/1.jpg,7\na/2.jpg,7\nb/1.jpg,9\n")
    found = read("sop-1k", tmp_path)
    assert truth(found) == [{"ok": [1], "junk": [0]}, {"ok": [], "junk": [2]}]
    write(tmp_path / "test_query.txt", "a/3.jpg,7\n")
    with pytest.raises(AmesError, match=r"query a/3.jpg is not in the gallery, but queries are searched for"):
        read("sop-1k", tmp_path)
    (tmp_path / "test_query.txt").unlink()
    with pytest.raises(AmesError, match=r"needs test_query.txt and test_gallery.txt"):
        read("sop-1k", tmp_path)


@pytest.mark.parametrize(
    ("name", "folder"), [("rp2k", "test"), ("instre-s1", "INSTRE-S1"), ("instre-s1", ".")]
)
def test_a_folder_a_class(tmp_path, name, folder):
    root = tmp_path / "x"
    archives.touch(root / folder, "one/1.jpg", "one/2.jpg", "two/1.jpg", "loose.jpg")
    write(root / folder / "one" / "1.txt", "1 2 3 4")
    found = read(name, root)
    before = "" if folder == "." else f"{folder}/"
    assert found.queries == found.gallery == [before + x for x in ("one/1.jpg", "one/2.jpg", "two/1.jpg")]
    assert truth(found) == [{"ok": [1], "junk": [0]}, {"ok": [0], "junk": [1]}, {"ok": [], "junk": [2]}]
    assert found.notes[-1].startswith("1 image directly in ")
    assert ("every image is a query" in found.notes[0]) == (name == "rp2k")


def test_sets_with_classes(tmp_path):
    found = read("sop", class_archives.sop(tmp_path / "sop"))
    assert truth(found) == [{"ok": [1], "junk": [0]}, {"ok": [0], "junk": [1]}, {"ok": [], "junk": [2]}]
    found = read("inshop", class_archives.inshop(tmp_path / "inshop"))
    assert truth(found) == [{"ok": [0]}, {"ok": [1]}]
    assert found.gallery[0] == "img/MEN/Denim/id_02/01_2_side.jpg"
    assert truth(read("cub", class_archives.cub(tmp_path / "cub")))[2] == {"ok": [], "junk": [2]}
    class_archives.cars_mat(tmp_path / "cars" / "cars_annos.mat")
    assert truth(read("cars196", tmp_path / "cars")) == [{"ok": [], "junk": [n]} for n in range(2)]


def test_a_query_in_a_gallery_that_is_apart(tmp_path):
    write(tmp_path / "test_query.txt", "a/1.jpg,7\n")
    write(tmp_path / "test_gallery.txt", "a/1.jpg,7\na/2.jpg,7\n")
    with pytest.raises(AmesError, match=r"query a/1.jpg is in the gallery, too, where it would find itself"):
        read_lists_of("lists", tmp_path, {}, skip_self=False)


def test_what_every_reader_refuses(tmp_path):
    with pytest.raises(AmesError, match="reader 'gldv3' does not exist; did you mean gldv2"):
        read_lists_of("gldv3", tmp_path, {}, skip_self=False)
    with pytest.raises(AmesError, match="reader 'gnd': file 'thruth' does not exist; did you mean truth"):
        read_lists_of("gnd", tmp_path, {"thruth": "x"}, skip_self=False)
    with pytest.raises(AmesError, match="reader 'met' needs the file 'database'"):
        read_lists_of("met", tmp_path, {}, skip_self=False)
    with pytest.raises(AmesError, match=r"none: no such folder"):
        read_lists_of("gnd", tmp_path / "none", {"truth": "x"}, skip_self=False)
    with pytest.raises(AmesError, match=r"no ground truth exists; looked for .*x.json, .*x.pkl, .*x.mat"):
        read_lists_of("gnd", tmp_path, {"truth": "x"}, skip_self=False)
    assert set(READERS) == {"gnd", "lists", "folder", "classes", "met", "gldv2", "ilias", "places"}


def test_images_are_looked_for(tmp_path):
    found = read("roxford5k", archives.revisited(tmp_path))
    assert [note.split(":")[0] for note in check_images(found)] == ["query", "gallery"]
    archives.touch(tmp_path, *found.queries, *found.gallery)
    assert check_images(found) == []
    (tmp_path / found.gallery[2]).unlink()
    with pytest.raises(
        AmesError, match=r"1 image of the gallery list is missing \(first: jpg/oxford_1.jpg\)"
    ):
        check_images(found)


def test_files_are_written_together_or_not_at_all(tmp_path):
    found = read("met", archives.met(tmp_path / "met"))
    out = tmp_path / "out"
    assert write_benchmark_lists(out, found)
    assert sorted(path.name for path in out.iterdir()) == [
        "gnd_out.json",
        "test_gallery.txt",
        "test_query.txt",
    ]
    assert (out / "test_query.txt").read_text() == "images/test_met/1.jpg,7\nimages/test_noart/2.jpg\n"
    back = load_ground_truth(out / "gnd_out.json")
    assert [query["ok"].tolist() for query in back.queries] == [[0, 2], []]
    assert not write_benchmark_lists(out, found)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    other = read("roxford5k", archives.revisited(tmp_path / "other"))
    with pytest.raises(
        AmesError, match=r"test_query.txt: exists and has another content; name another folder"
    ):
        write_benchmark_lists(out, other)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert write_benchmark_lists(out, other, overwrite=True)
    assert load_ground_truth(out / "gnd_out.json").boxes.tolist() == other.boxes.tolist()
    (tmp_path / "file").write_text("")
    with pytest.raises(AmesError, match="file: cannot be written"):
        write_benchmark_lists(tmp_path / "file", other)


def test_names_that_a_list_can_hold(tmp_path):
    archives.touch(tmp_path / "test", " one/1.jpg", "one, two/1.jpg")
    found = read("rp2k", tmp_path)
    write_benchmark_lists(tmp_path / "out", found)
    write_benchmark_lists(tmp_path / "out", found)
    again = read("rp2k", tmp_path / "out")
    assert (again.gallery, again.gallery_labels) == (found.gallery, found.gallery_labels)
    assert np.all([len(query["junk"]) == 1 for query in again.truth])
