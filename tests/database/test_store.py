"""Databases: what they hold is what the model would have computed, and every change is seen as a whole."""

import json
import re
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from ames.database import build
from ames.database.build import Source, append, compress
from ames.database.index import open_index, search_database
from ames.database.manifest import Manifest
from ames.database.segment import HEADER_BYTES
from ames.database.store import Database
from ames.database.writer import Writer, writing
from ames.descriptors.local import DescriptorFile, GlobalFile, create_local, write_globals
from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.global_search.shortlist import Shortlist
from ames.inspection import inspect as inspection
from ames.models.chamfer import Chamfer
from ames.reranking.fusion import Fusion
from ames.reranking.reranker import Reranker
from ames.reranking.scorer import PairScorer
from ames.reranking.shortlist_scores import score_shortlist
from ames.retrieval.retriever import Retriever
from helpers.commands import ROOT
from helpers.databases import SLOTS, WIDTH, database, model, source, state


@pytest.mark.parametrize("binarized", [True, False])
def test_scores_are_those_of_the_descriptors(tmp_path, binarized):
    made_by = model(binarized=binarized)
    made = source(tmp_path)
    db = compress(made, made_by, tmp_path / "db", desc_num=4)
    assert db.codes == ("bits" if binarized else "float16")
    queries = source(tmp_path / "q", 3, seed=1, vectors=False).local
    ids = np.stack([np.random.default_rng(q).permutation(20) for q in range(3)])
    shortlist = Shortlist(ids, np.zeros(ids.shape, np.float32))
    scorer = PairScorer(made_by)
    expected = score_shortlist(scorer, queries, made.local, shortlist, database_count=4)
    found = score_shortlist(scorer, queries, db, shortlist)
    np.testing.assert_array_equal(found, expected)
    fewer = score_shortlist(scorer, queries, db, shortlist, database_count=2)
    np.testing.assert_array_equal(
        fewer, score_shortlist(scorer, queries, made.local, shortlist, database_count=2)
    )
    assert not np.array_equal(fewer, found)


@torch.inference_mode()
def test_what_is_read_is_what_the_model_compresses(tmp_path):
    db, made = database(tmp_path)
    rows = [7, 3, 3, 10, 19]
    local = made.local.read(rows, 4)
    codes = model().compress(local)
    found = db.read(rows)
    assert torch.equal(found.valid, local.valid)
    assert torch.equal(found.descriptors[found.valid], codes.descriptors[found.valid])
    assert not found.descriptors[~found.valid].any()
    assert db.read(rows, 2).size == 2
    assert db.names == made.local.names
    assert len(db) == 20
    assert db.provenance == made.local.provenance


def test_padding_between_descriptors_goes_behind_them(tmp_path):
    import h5py

    from golden.data_root import laid_out

    rng = np.random.default_rng(0)
    metadata = np.zeros((2, SLOTS, 5), np.float32)
    metadata[0, [0, 2], 3] = 1
    descriptors = rng.standard_normal((2, SLOTS, 16)).astype(np.float32)
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["features"] = laid_out(metadata, descriptors, "float32")
    db = compress(Source(DescriptorFile(tmp_path / "x.hdf5")), model(), tmp_path / "db", desc_num=SLOTS)
    with torch.inference_mode():
        expected = model().compress(
            LocalFeatures.from_descriptors(torch.from_numpy(descriptors[0, [1, 3, 4, 5]]))
        )
    assert torch.equal(db.read([0]).descriptors[0, :4], expected.descriptors)
    assert db.read([0]).valid.sum() == 4
    assert db.names == ["0", "1"]


def test_the_documented_reader_reads_it(tmp_path):
    """The ten lines of docs/database.md, as they are."""
    db, _ = database(tmp_path)
    text = (ROOT / "docs" / "database.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    scope = {"folder": str(tmp_path / "db")}
    exec(code, scope)
    assert len(code.strip().splitlines()) <= 16
    assert scope["names"] == db.names
    np.testing.assert_array_equal(scope["codes"], db.read(range(20)).descriptors.numpy())
    np.testing.assert_array_equal(scope["counts"], db.read(range(20)).counts.numpy())


def test_append_delete_compact(tmp_path):
    db, _ = database(tmp_path)
    before = state(db)
    more = source(tmp_path, 5, seed=9, prefix="new")
    assert append(more, model(), tmp_path / "db") == 5
    both = Database(tmp_path / "db")
    assert state(both) == before | {n: v for n, v in state(both).items() if n.startswith("new")}
    assert len(both) == 25
    assert state(db) == before  # an open database is a snapshot

    with writing(tmp_path / "db") as writer:
        assert writer.delete(["image 3.jpg", "new 0.jpg", "image 3.jpg"]) == 2
    left = Database(tmp_path / "db")
    assert state(left) == {k: v for k, v in state(both).items() if k not in ("image 3.jpg", "new 0.jpg")}
    assert left.rows == 25
    size = left.bytes_per_image

    more = source(tmp_path, 2, seed=3, prefix="third")
    append(more, model(), tmp_path / "db")  # behind deleted ones
    third = Database(tmp_path / "db")
    assert len(third) == 25
    with writing(tmp_path / "db") as writer:
        assert writer.compact() == 2
    small = Database(tmp_path / "db")
    assert state(small) == state(third)
    assert small.names == third.names
    assert (len(small), small.rows) == (25, 25)
    assert len(small.segments) == 1
    assert small.bytes_per_image < size
    assert state(third) == state(small)  # readers that were there before read on
    small.verify()
    files = {path.name for path in (tmp_path / "db").iterdir()}
    assert files == small.manifest.files | {"manifest.json", "lock"}


def test_a_name_may_come_again_once_it_is_deleted(tmp_path):
    database(tmp_path)
    again = source(tmp_path, 1, seed=5, names=["image 3.jpg"], prefix="again")
    with pytest.raises(AmesError, match=r"holds 'image 3.jpg' already; nothing was added"):
        append(again, model(), tmp_path / "db")
    with writing(tmp_path / "db") as writer:
        writer.delete(["image 3.jpg"])
    append(again, model(), tmp_path / "db")
    assert Database(tmp_path / "db").names.count("image 3.jpg") == 1


def test_deleting_what_is_not_there_deletes_nothing(tmp_path):
    db, _ = database(tmp_path)
    with writing(tmp_path / "db") as writer, pytest.raises(AmesError, match="no image 'gone' in it; nothing"):
        writer.delete(["image 1.jpg", "gone"])
    assert state(Database(tmp_path / "db")) == state(db)


def test_everything_may_be_deleted_and_added_anew(tmp_path):
    db, made = database(tmp_path)
    with writing(tmp_path / "db") as writer:
        assert writer.delete(db.names) == 20
        assert writer.compact() == 20
    empty = Database(tmp_path / "db")
    assert (len(empty), empty.names) == (0, [])
    assert empty.read([]).descriptors.shape == (0, 4, 2)
    assert open_index(empty).search(np.ones((1, 8), np.float32), 3).ids.shape == (1, 0)
    append(made, model(), tmp_path / "db")
    assert state(Database(tmp_path / "db")) == state(db)


# ---- search --------------------------------------------------------------------------------------------


def test_global_search_finds_what_exact_search_finds(tmp_path):
    db, made = database(tmp_path)
    vectors = made.vectors.read()
    found = open_index(db).search(vectors[:10], 3)
    similarity = vectors[:10] @ vectors.T
    assert found.ids[:, 0].tolist() == list(range(10))
    np.testing.assert_allclose(found.similarities, -np.sort(-similarity, 1)[:, :3], atol=2e-3)
    with writing(tmp_path / "db") as writer:
        writer.delete(["image 4.jpg"])
    left = Database(tmp_path / "db")
    again = open_index(left).search(vectors[4:5], 5)
    assert "image 4.jpg" not in [left.names[i] for i in again.ids[0]]
    assert left.names[open_index(left).search(vectors[5:6], 1).ids[0, 0]] == "image 5.jpg"


def test_retrieval_blends_both_scores(tmp_path):
    db, made = database(tmp_path)
    query = source(tmp_path / "q", 2, seed=7)
    scorer, fusion = PairScorer(model()), Fusion(0.3, 2.0)
    vectors, local = query.vectors.read()[:1], query.local.read([0])
    retriever = Retriever(db, Reranker(scorer.model, fusion))
    found = retriever.search_features(vectors, local, k=4, num_rerank=8)
    shortlist = open_index(db).search(vectors, 8)
    logits = score_shortlist(scorer, query.local, made.local, shortlist, database_count=4)
    scores = 0.3 * shortlist.similarities + 0.7 / (1 + np.exp(-2.0 * logits))
    best = np.argsort(-scores[0], kind="stable")[:4]
    assert found.ids[0].tolist() == shortlist.ids[0][best].tolist()
    np.testing.assert_allclose(found.similarities[0], scores[0][best], atol=1e-6)
    codes = scorer.model.compress(local)
    coded = retriever.search_features(vectors, codes, k=4, num_rerank=8)
    assert np.array_equal(coded.ids, found.ids)  # queries of a file of ``ames extract --pack``
    np.testing.assert_allclose(coded.similarities, found.similarities, atol=1e-6)


@pytest.fixture
def retriever(tmp_path):
    """With vectors [20, 8] and local descriptors [20, 6, 16] of its own images."""
    db, made = database(tmp_path)
    return (
        Retriever(db, Reranker(model(), Fusion(0.3, 2.0))),
        made.vectors.read(),
        made.local.read(range(20)),
    )


def test_a_single_query_needs_no_batch(retriever):
    retriever, vectors, local = retriever
    expected = retriever.search_features(vectors[3:4], local[3:4], k=4)
    for vector, features in ((vectors[3], local[3]), (vectors[3], local[3:4]), (vectors[3:4], local[3])):
        found = retriever.search_features(vector, features, k=4)
        assert np.array_equal(found.ids, expected.ids)
        assert np.array_equal(found.similarities, expected.similarities)
    assert expected.ids.shape == (1, 4)
    assert expected.ids[0, 0] == 3


def test_queries_that_do_not_fit_together(retriever):
    retriever, vectors, local = retriever
    wide = LocalFeatures.from_descriptors(torch.ones(2, 3, 8))
    for vectors_, local_, said in (
        (vectors[:2], local[:9], "2 global vectors, but local descriptors of 9 images"),
        (vectors[:9], local[:2], "9 global vectors, but local descriptors of 2 images"),
        (vectors[None], local, r"global vectors are \[1, 20, 8\], local descriptors \[20, 6, 16\]; expected"),
        (vectors[:2, :5], local[:2], r"queries are \(2, 5\), the database's vectors \(n, 8\)"),
        (vectors[:2], wide, "descriptors are 8-d, this model takes 16-d"),
    ):
        with pytest.raises(AmesError, match=said):
            retriever.search_features(vectors_, local_, k=1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_queries_that_are_not_finite(retriever, value):
    retriever, vectors, local = retriever
    bad = vectors[:3].copy()
    bad[1, 4] = value
    for call in (
        lambda: retriever.search_features(bad, local[:3]),
        lambda: search_database(retriever.database, bad, 5),
        lambda: open_index(retriever.database).search(bad, 5),
    ):
        with pytest.raises(AmesError, match="the vector of query 1 is not finite"):
            call()
    local.descriptors[2, 0, 0] = value
    with pytest.raises(AmesError, match="the local descriptors of query 2 hold values that are not finite"):
        retriever.search_features(vectors[:3], local[:3])
    with pytest.raises(
        AmesError, match="the local descriptors of query 2 hold"
    ):  # also where nothing is found
        retriever.search_features(np.zeros_like(vectors[:3]), local[:3])


def test_lengths_of_global_vectors_do_not_matter(tmp_path, caplog):
    db, made = database(tmp_path)
    unit = made.vectors.read()
    lengths = np.random.default_rng(0).uniform(0.01, 200, (20, 1)).astype(np.float32)
    write_globals(tmp_path / "raw.hdf5", unit * lengths)
    raw = Source(made.local, GlobalFile(tmp_path / "raw.hdf5"))
    with caplog.at_level("WARNING"):
        other = compress(raw, model(), tmp_path / "raw", desc_num=4)
    said = [x.message for x in caplog.records if "not of unit length" in x.message]
    assert len(said) == 1
    assert said[0].startswith(str(tmp_path / "raw.hdf5"))
    queries = unit[:5] * 50
    expected = open_index(db).search(unit[:5], 20)
    found = open_index(other).search(queries, 20)
    np.testing.assert_allclose(found.similarities, expected.similarities, atol=2e-3)
    assert np.array_equal(found.ids[:, :3], expected.ids[:, :3])
    assert found.similarities.max() < 1.001
    assert (found.ids[:, -1] == -1).all()  # the image without keypoints, whose vector is zero


def test_a_database_of_raw_vectors_is_refused(tmp_path, monkeypatch):
    """As earlier versions made them: what such codes give are no cosines."""
    db, made = database(tmp_path)
    db_source = {k: v for k, v in db.manifest.source.items() if k != "similarity"}
    replace(db.manifest, source=db_source).save(tmp_path / "db")
    assert open_index(Database(tmp_path / "db")).search(made.vectors.read()[:1], 1).ids.tolist() == [[0]]
    for place in ("database.build", "global_search.codes"):
        monkeypatch.setattr(f"ames.{place}.unit", lambda vectors, name: vectors)
    write_globals(tmp_path / "raw.hdf5", 40 * made.vectors.read())
    raw = Source(made.local, GlobalFile(tmp_path / "raw.hdf5"))
    old = compress(raw, model(), tmp_path / "raw", desc_num=4)
    replace(old.manifest, source=db_source).save(tmp_path / "raw")
    monkeypatch.undo()
    said = "its global codes are of vectors of length 40, .* compress the descriptors again"
    with pytest.raises(AmesError, match=said):
        open_index(Database(tmp_path / "raw"))
    with pytest.raises(AmesError, match=said):
        append(source(tmp_path, 2, prefix="more"), model(), tmp_path / "raw")


# ---- what is refused -------------------------------------------------------------------------------------


def test_a_model_that_did_not_make_it(tmp_path):
    db, _ = database(tmp_path)
    other = model(seed=1)
    for call in (
        lambda: db.check_model(other),
        lambda: Retriever(db, Reranker(other, Fusion(0, 1))),
        lambda: append(source(tmp_path, 2, prefix="new"), other, tmp_path / "db"),
        lambda: db.check_model(model(binarized=False)),
    ):
        with pytest.raises(AmesError, match="made by another projection"):
            call()
    retrained = model()
    with torch.no_grad():
        retrained.classifier.weight.zero_()
    db.check_model(retrained)  # the same projection reads the same codes
    assert retrained.fingerprint() == model().fingerprint()


def contents(folder):
    """Every file of a folder, and when it was written."""
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


def test_the_same_build_again_writes_nothing(tmp_path):
    db, made = database(tmp_path)
    before = contents(tmp_path / "db")
    again = compress(made, model(), tmp_path / "db", desc_num=4)
    assert (again.manifest, contents(tmp_path / "db")) == (db.manifest, before)
    append(source(tmp_path, 2, seed=9, prefix="new"), model(), tmp_path / "db")
    assert len(compress(made, model(), tmp_path / "db", desc_num=4)) == 22  # left as it is


def test_what_differs_from_the_build_is_named(tmp_path):
    _, made = database(tmp_path)
    before, other = contents(tmp_path / "db"), source(tmp_path / "other", seed=4)
    renamed = Source(made.local, made.vectors, [f"{i}" for i in range(20)])

    the_model = model()

    def again(source=made, model=the_model, desc_num=4, factory="SQfp16"):
        return lambda: compress(source, model, tmp_path / "db", desc_num=desc_num, factory=factory)

    for call, what in (
        (again(desc_num=3), "descriptors per image: there 4, now 3"),
        (again(factory="SQ8"), "global factory: there SQfp16, now SQ8"),
        (again(model=model(seed=1)), "the model's projection is another"),
        (again(renamed), "other names of the images"),
        (again(Source(made.local)), "global factory: there SQfp16, now None"),
        (again(other), "image_local.hdf5 has changed since"),
    ):
        with pytest.raises(
            AmesError,
            match=rf"db: already holds a database that was made with other settings \({what}\); give",
        ):
            call()
    assert contents(tmp_path / "db") == before
    manifest = Manifest.load(tmp_path / "db")
    old = {key: value for key, value in manifest.source.items() if key not in ("names", "similarity")}
    replace(manifest, source=old).save(tmp_path / "db")
    with pytest.raises(AmesError, match="by an earlier version, which did not note of what"):
        again()()


def test_images_that_are_there_are_not_added_twice(tmp_path):
    database(tmp_path)
    more = source(tmp_path, 5, seed=9, prefix="new")
    assert append(more, model(), tmp_path / "db") == 5
    before = contents(tmp_path / "db")
    assert append(more, model(), tmp_path / "db") == 0
    others = source(tmp_path / "others", 5, seed=10, prefix="new")
    some = Source(more.local, more.vectors, [*more.local.names[:4], "else.jpg"])
    moved = Source(more.local, others.vectors)
    for other in (others, some, moved):
        with pytest.raises(AmesError, match=r"holds 'new \d.jpg' already; nothing was added"):
            append(other, model(), tmp_path / "db")
    assert contents(tmp_path / "db") == before


def test_deleting_and_compacting_again_write_nothing(tmp_path):
    database(tmp_path)
    names = ["image 3.jpg", "image 7.jpg"]
    for compacted in (False, True):
        for expected in (0, 0) if compacted else (2, 0):
            with writing(tmp_path / "db") as writer:
                assert writer.delete(names) == expected
        with writing(tmp_path / "db") as writer:
            assert writer.compact() == (0 if compacted else 2)
            before = contents(tmp_path / "db")
            assert writer.compact() == 0
        assert contents(tmp_path / "db") == before
    with writing(tmp_path / "db") as writer, pytest.raises(AmesError, match=r"no image 'image 3.jpg' in it"):
        writer.delete(names[:1])  # not what was deleted
    assert len(Database(tmp_path / "db")) == 18


def test_databases_are_not_written_over(tmp_path):
    _, made = database(tmp_path)
    with pytest.raises(AmesError, match="already holds a database"):
        compress(made, model(), tmp_path / "db", desc_num=3)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    with pytest.raises(AmesError, match=r"holds other files \(letter.txt\); give a new folder"):
        compress(made, model(), tmp_path / "other", desc_num=4)
    assert (tmp_path / "other" / "letter.txt").read_text() == "dear"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"desc_num": SLOTS + 1}, "holds 6 descriptors per image, 7 asked for"),
        ({"factory": "nonsense"}, "nonsense"),
    ],
)
def test_arguments_that_make_no_database(tmp_path, change, message):
    made = source(tmp_path)
    with pytest.raises(AmesError, match=message):
        compress(made, model(), tmp_path / "db", **{"desc_num": 4} | change)


def test_sources_that_do_not_fit(tmp_path):
    made, fewer = source(tmp_path), source(tmp_path / "fewer", 7)
    with pytest.raises(AmesError, match="7 images, but 20 in"):
        Source(made.local, fewer.vectors).checked()
    with pytest.raises(AmesError, match="3 names for the 20 images"):
        Source(made.local, names=["a", "b", "c"]).checked()
    with pytest.raises(AmesError, match="the name 'a' comes twice"):
        Source(fewer.local, names=["a", "b", "c", "a", "d", "e", "f"]).checked()
    database(tmp_path / "with")
    with pytest.raises(AmesError, match="has global descriptors"):
        append(source(tmp_path, 2, vectors=False, prefix="n"), model(), tmp_path / "with" / "db")


def test_parts_that_name_other_images(tmp_path):
    made = source(tmp_path)
    names = [*made.local.names[:3], "else.jpg", *made.local.names[4:]]
    write_globals(tmp_path / "else.hdf5", made.vectors.read(), names=names)
    with pytest.raises(AmesError, match=r"image 3 is 'else.jpg', there 'image 3.jpg'"):
        compress(Source(made.local, GlobalFile(tmp_path / "else.hdf5")), model(), tmp_path / "db", desc_num=4)


def test_names_that_cannot_be_stored(tmp_path):
    made = source(tmp_path, 2)
    with pytest.raises(AmesError, match="is not UTF-8; give other names"):
        Source(made.local, names=["a\udcff", "b"]).checked()
    with h5py.File(made.local.path, "r+") as file:
        file["names"][0] = b"a\xff"
    with pytest.raises(AmesError, match="names are not UTF-8"):
        DescriptorFile(made.local.path)
    with h5py.File(made.local.path, "r+") as file:
        del file["names"]
        file["names"] = "one text"
    assert DescriptorFile(made.local.path).names is None


def test_global_vectors_that_are_none(tmp_path):
    db, _ = database(tmp_path)
    more = source(tmp_path, 2, prefix="more")
    write_globals(more.vectors.path, np.full((2, 8), np.nan))
    with pytest.raises(
        AmesError, match=r"more_global.hdf5: the vector of 'more 0.jpg' \(row 0\) is not finite"
    ):
        append(more, model(), tmp_path / "db")
    assert state(Database(tmp_path / "db")) == state(db)
    write_globals(more.vectors.path, np.zeros((2, 0)))
    with pytest.raises(AmesError, match=r"expected float \(images, width\)"):
        GlobalFile(more.vectors.path)


def test_descriptors_of_another_backbone_are_not_added(tmp_path):
    made = {}
    for name in ("dinov2", "rootsift"):
        path = tmp_path / f"{name}.hdf5"
        with create_local(
            path, images=1, slots=SLOTS, width=WIDTH, names=[name], provenance={"backbone": name}
        ):
            pass
        made[name] = Source(DescriptorFile(path))
    compress(made["dinov2"], model(), tmp_path / "db", desc_num=4)
    with pytest.raises(AmesError, match=r'other ones than .*db \(backbone: there "dinov2", now "rootsift"\)'):
        append(made["rootsift"], model(), tmp_path / "db")


def test_what_was_added_while_waiting_for_the_lock_is_seen(tmp_path, monkeypatch):
    database(tmp_path)
    more = source(tmp_path, 2, prefix="more")

    def after_another(folder):
        monkeypatch.setattr(build, "writing", writing)
        append(more, model(), folder)
        return writing(folder)

    monkeypatch.setattr(build, "writing", after_another)
    assert append(more, model(), tmp_path / "db") == 0
    assert len(Database(tmp_path / "db")) == 22


def test_a_snapshot_outlives_a_compaction(tmp_path):
    db, _ = database(tmp_path)
    with writing(tmp_path / "db") as writer:
        writer.delete(db.names[:3])
    left = Database(tmp_path / "db")
    with writing(tmp_path / "db") as writer:
        writer.compact()
    left.verify()
    assert left.bytes_per_image > left.image_bytes
    assert inspection.about_database(left)["file_bytes"] > 17 * left.image_bytes


@pytest.mark.parametrize("name", ["segment-anything.pth", "film.mkv.part", "deleted-mails.txt", "codec"])
def test_files_of_the_user_stay(tmp_path, name):
    _, made = database(tmp_path)
    (tmp_path / "db" / name).write_text("dear")
    with writing(tmp_path / "db") as writer:
        writer.delete(made.local.names[:1])
    assert (tmp_path / "db" / name).read_text() == "dear"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / name).write_text("dear")
    with pytest.raises(AmesError, match="holds other files"):
        compress(made, model(), tmp_path / "other", desc_num=4)
    assert (tmp_path / "other" / name).read_text() == "dear"


@pytest.mark.parametrize(
    ("factory", "why"), [("nonsense", "could not parse"), ("PCA999,SQ8", "cannot be fitted")]
)
def test_a_factory_that_cannot_be_fitted_leaves_no_folder(tmp_path, factory, why):
    made = source(tmp_path)
    with pytest.raises(AmesError, match=f"global factory '{factory}'.*{why}"):
        compress(made, model(), tmp_path / "db", desc_num=4, factory=factory)
    assert not (tmp_path / "db").exists()


def test_a_build_that_holds_nothing_may_begin_otherwise(tmp_path, monkeypatch):
    made = source(tmp_path)

    def stopped(*_):
        raise AmesError("stopped")

    with monkeypatch.context() as broken:
        broken.setattr(Writer, "add_file", stopped)
        with pytest.raises(AmesError, match="stopped"):
            compress(made, model(), tmp_path / "db", desc_num=4, factory="SQ4")
    assert (tmp_path / "db" / "manifest.json").exists()
    db = compress(made, model(), tmp_path / "db", desc_num=3, factory="SQ8")
    assert (len(db), db.slots, db.manifest.factory) == (20, 3, "SQ8")


def test_places_that_cannot_be_a_database(tmp_path):
    made = source(tmp_path)
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(AmesError, match="cannot be made a folder"):
            compress(made, model(), out, desc_num=4)
    (tmp_path / "odd" / "manifest.json").mkdir(parents=True)
    with pytest.raises(AmesError, match=r"manifest.json: cannot be read"):
        Database(tmp_path / "odd")


def test_descriptors_that_are_not_finite_or_of_another_width(tmp_path):
    path = tmp_path / "x.hdf5"
    with create_local(path, images=3, slots=4, width=16) as write_row:
        for row in range(3):
            x = torch.ones(2, 16)
            x[0, 0] = float("nan") if row == 2 else 1
            write_row(row, LocalFeatures.from_descriptors(x))
    with pytest.raises(AmesError, match=r"the descriptors of '2' \(row 2\) hold values that are not finite"):
        compress(Source(DescriptorFile(path)), model(), tmp_path / "db", desc_num=4)
    with create_local(tmp_path / "y.hdf5", images=3, slots=4, width=8):
        pass
    with pytest.raises(AmesError, match="descriptors are 8-d, but the model takes 16-d"):
        compress(Source(DescriptorFile(tmp_path / "y.hdf5")), model(), tmp_path / "db2", desc_num=4)


def test_images_that_are_not_there(tmp_path):
    db, _ = database(tmp_path)
    for row in (-1, 20):
        with pytest.raises(AmesError, match=f"holds 20 images, there is no image {row}"):
            db.read([0, row])


def test_folders_that_hold_no_database(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("none", "no such folder"),
        ("empty", "no database"),
        ("file", "a file; a database is"),
    ):
        with pytest.raises(AmesError, match=message):
            Database(tmp_path / name)


# ---- damage ----------------------------------------------------------------------------------------------


def damaged(path, position, flip=1):
    data = bytearray(path.read_bytes())
    data[position] ^= flip
    path.write_bytes(data)


def test_a_flipped_bit_anywhere_is_found(tmp_path):
    db, _ = database(tmp_path)
    folder = tmp_path / "db"
    for name in sorted(db.manifest.files | {"manifest.json"}):
        whole = (folder / name).read_bytes()
        step = max(1, len(whole) // 60)
        for position in range(0, len(whole), step):
            if name.endswith(".rows") and 48 <= position < HEADER_BYTES:
                continue  # zeros behind the header that mean nothing
            damaged(folder / name, position, 16)
            with pytest.raises(AmesError, match=r"damaged|version|not a seg|not the man|bytes, sh"):
                Database(folder).verify()
            (folder / name).write_bytes(whole)
    Database(folder).verify()


def test_a_damaged_image_is_an_error_where_it_is_read_and_others_are_not(tmp_path):
    db, _ = database(tmp_path)
    path = tmp_path / "db" / db.manifest.segments[0].name
    damaged(path, HEADER_BYTES + 3 * db.image_bytes + 12)
    again = Database(tmp_path / "db")
    again.read([0, 1, 2, 4])
    with pytest.raises(AmesError, match=r"row 3 is damaged \(its checksum is wrong\); restore the file"):
        again.read([1, 3])


def test_files_that_are_cut_off_or_missing(tmp_path):
    db, _ = database(tmp_path)
    for name in db.manifest.files | {"manifest.json"}:
        path = tmp_path / "db" / name
        whole = path.read_bytes()
        for size in (0, 10, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:size])
            with pytest.raises(AmesError):
                Database(tmp_path / "db").verify()
        path.unlink()
        with pytest.raises(AmesError, match=r"missing|no database"):
            Database(tmp_path / "db").verify()
        path.write_bytes(whole)
    Database(tmp_path / "db").verify()


def test_other_versions_are_named(tmp_path):
    db, _ = database(tmp_path)
    manifest = tmp_path / "db" / "manifest.json"
    whole = manifest.read_text()
    manifest.write_text(json.dumps(json.loads(whole) | {"version": 2}))
    with pytest.raises(AmesError, match="version 2 of the format, this library reads 1"):
        Database(tmp_path / "db")
    manifest.write_text(whole)
    damaged(tmp_path / "db" / db.manifest.segments[0].name, 8, 3)
    with pytest.raises(AmesError, match="version 2 of the format, this library reads 1"):
        Database(tmp_path / "db")


def test_codes_that_a_database_cannot_hold_are_refused_before_anything_is_written(tmp_path):
    made = source(tmp_path / "x", 3)
    with pytest.raises(AmesError, match=r"Chamfer makes codes of torch.float32"):
        compress(made, Chamfer(), tmp_path / "db", desc_num=2)
    assert not (tmp_path / "db").exists()
