"""A model that reads a global vector and scales gets them, wherever images come from."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from ames.backbones.base import ImageFeatures
from ames.database.build import Source, compress
from ames.descriptors.local import DescriptorFile, GlobalFile, create_local, write_globals
from ames.errors import AmesError
from ames.evaluation.evaluate import Scoring, evaluate_test_set
from ames.evaluation.protocols import REVISITED
from ames.evaluation.sweep import Grid
from ames.evaluation.test_set import open_test_set
from ames.features import LocalFeatures
from ames.global_search.shortlist import Shortlist
from ames.models.rrt import RRT
from ames.reranking.fusion import Fusion
from ames.reranking.reranker import Reranker
from ames.reranking.score_cache import scores_key
from ames.reranking.scorer import PairScorer
from ames.reranking.shortlist_scores import score_shortlist
from ames.retrieval.retriever import Retriever
from ames.training.data.loader import TripletLoader
from ames.training.tasks.pairwise import PairwiseRecipe
from helpers.small_sets import made
from helpers.small_training import fit, loader, same, weights
from helpers.whole_image import WholeImage

IMAGES, SLOTS, D = 9, 4, 8


def images(count=IMAGES, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: torch.from_numpy(rng.standard_normal(shape).astype(np.float32))  # noqa: E731
    scale = torch.from_numpy(rng.integers(0, 3, (count, SLOTS)).astype(np.float32))
    valid = torch.arange(SLOTS) < torch.from_numpy(rng.integers(1, SLOTS + 1, count))[:, None]
    weight = torch.arange(SLOTS, 0, -1).float().expand(count, SLOTS)
    return LocalFeatures(draw(count, SLOTS, D), valid, scale=scale, weight=weight, vector=draw(count, D))


def write(folder, name, local):
    path, vectors = folder / f"{name}_local.hdf5", folder / f"{name}_global.hdf5"
    with create_local(path, images=len(local.valid), slots=SLOTS, width=D, dtype="float32") as put:
        for row in range(len(local.valid)):
            put(row, local[row])
    write_globals(vectors, local.vector.numpy())
    return path, vectors


@torch.no_grad()
def direct(model, query, database):
    """float [Q, I]."""
    stored = model.expand(model.compress(database))
    rows = [
        model.score_tokens(model.tokens(query[i : i + 1]), stored.map(lambda x: x[None]))
        for i in range(len(query.valid))
    ]
    return torch.cat(rows).numpy()


def test_a_file_gives_the_vector_of_each_image(tmp_path):
    local = images()
    path, vectors = write(tmp_path, "x", local)
    file = DescriptorFile(path).with_vectors(vectors)
    rows = [4, 0, 4]
    found = file.read(rows, 2)
    assert torch.equal(found.vector, local.vector[rows])
    assert torch.equal(found.scale, local.scale[rows][:, :2])
    assert torch.equal(file.read(rows, 2, locations=False).vector, local.vector[rows])
    with h5py.File(tmp_path / "packed.hdf5", "w") as other:
        other.create_dataset("features", data=local.vector.numpy(), chunks=(2, D), compression="gzip")
    assert np.array_equal(GlobalFile(tmp_path / "packed.hdf5").gather(np.array(rows)), local.vector[rows])
    write_globals(tmp_path / "few.hdf5", local.vector[:3].numpy())
    with pytest.raises(AmesError, match=r"few.hdf5: 3 images, but 9 in .*x_local.hdf5"):
        DescriptorFile(path).with_vectors(tmp_path / "few.hdf5")


def test_scores_of_a_shortlist(tmp_path):
    model, query, local = WholeImage(), images(3, 1), images()
    queries, gallery = (
        DescriptorFile(path).with_vectors(vectors)
        for path, vectors in (write(tmp_path, "q", query), write(tmp_path, "g", local))
    )
    shortlist = Shortlist(np.tile(np.arange(IMAGES), (3, 1)), np.zeros((3, IMAGES), np.float32))
    scores = score_shortlist(PairScorer(model), queries, gallery, shortlist)
    np.testing.assert_allclose(scores, direct(model, query, local), atol=1e-5)
    plain = DescriptorFile(queries.path), gallery
    scorer = PairScorer(model)
    keys = [scores_key(scorer, files, (None, None)) for files in ((queries, gallery), plain)]
    assert keys[0] != keys[1]
    with pytest.raises(AmesError, match="reads a global descriptor"):
        score_shortlist(scorer, *plain, shortlist)


def test_a_database_has_a_slot_more(tmp_path):
    model, query, local = WholeImage(), images(3, 1), images()
    path, vectors = write(tmp_path, "g", local)
    queries = DescriptorFile(write(tmp_path, "q", query)[0]).with_vectors(tmp_path / "q_global.hdf5")
    with pytest.raises(AmesError, match="WholeImage reads a global descriptor of each image: give --global"):
        compress(Source(DescriptorFile(path)), model, tmp_path / "db", desc_num=3)
    assert not (tmp_path / "db").exists()
    source = Source(DescriptorFile(path), GlobalFile(vectors))
    database = compress(source, model, tmp_path / "db", desc_num=3)
    assert (database.slots, database.manifest.code_bytes) == (4, 16)
    shortlist = Shortlist(np.tile(np.arange(IMAGES), (3, 1)), np.zeros((3, IMAGES), np.float32))
    for count in (2, 3):
        scores = score_shortlist(PairScorer(model), queries, database, shortlist, database_count=count)
        np.testing.assert_allclose(scores, direct(model, query, local.trim(count)), atol=1e-5)
    retriever = Retriever.open(tmp_path / "db", model, fusion=Fusion(0.0, 1.0))
    found = retriever.search_features(query.vector.numpy(), query, k=IMAGES)
    best = direct(model, query, local.trim(3))
    assert found.ids[:, 0].tolist() == best.argmax(1).tolist()
    one = ImageFeatures(query[0], query.vector[0].numpy())
    assert retriever.search(one, 1)[0].id == best[0].argmax()


def test_the_reranker_takes_the_vector_of_what_was_extracted():
    model, query, local = WholeImage(), images(1, 1), images()
    bare = lambda x: LocalFeatures(x.descriptors, x.valid, scale=x.scale)  # noqa: E731
    one = ImageFeatures(bare(query[0]), query.vector[0].numpy())
    many = [ImageFeatures(bare(local[i]), local.vector[i].numpy()) for i in range(IMAGES)]
    expected = direct(model, query, local)[0]
    np.testing.assert_allclose(Reranker(model).score(one, many), expected, atol=1e-5)
    together = ImageFeatures(bare(local), local.vector.numpy())
    np.testing.assert_allclose(Reranker(model).score(one, together), expected, atol=1e-5)
    with pytest.raises(AmesError, match="reads a global descriptor"):
        Reranker(model).score(bare(query[0]), many)


def test_evaluation_reads_the_global_files(tmp_path):
    folder, model = made(tmp_path), WholeImage()
    with pytest.raises(AmesError, match=r"rootsift_query_global\.hdf5"):
        open_test_set(folder, model)
    rng = np.random.default_rng(0)
    for split, count in (("query", 6), ("gallery", 150)):
        write_globals(folder.vectors(split), rng.standard_normal((count, 8)).astype(np.float32))
    test_set = open_test_set(folder, model)
    assert test_set.queries.vectors is not None
    scoring = Scoring(query_count=5, database_count=5)
    evaluate_test_set(test_set, model, REVISITED, scoring, Grid([100], [0.0], [1.0])).save(tmp_path / "run")
    logits = np.load(tmp_path / "run" / "scores.npz")["logits"]
    queries, gallery = test_set.queries.read(range(6)), test_set.gallery.read(range(150))
    expected = np.take_along_axis(direct(model, queries, gallery), test_set.shortlist.ids, 1)
    there = np.isfinite(logits)
    assert there.sum() >= 600
    np.testing.assert_allclose(logits[there], expected[there], atol=1e-4)


@pytest.mark.parametrize("spread", [False, True])
def test_training_reads_vectors_and_scales(tmp_path, spread):
    local = images(32)
    path, vectors = write(tmp_path, "t", local)
    file = DescriptorFile(path).with_vectors(vectors)
    triplets = loader(file)
    triplets = TripletLoader(
        triplets.sampler, file, triplets=8, count=SLOTS, scales=True, workers=2 if spread else 0
    )
    (batch, *_) = triplets.epoch(0)
    rows = batch.images[0]
    assert torch.equal(batch.anchor.vector, local.vector[rows])
    assert torch.equal(batch.anchor.scale, local.scale[rows])
    model = WholeImage()
    before = weights(model)
    fit(model, triplets, PairwiseRecipe(epochs=1, lr=0.1, min_desc=2, max_desc=SLOTS))
    assert not same(before, weights(model))
    other = DescriptorFile(path)
    assert TripletLoader(triplets.sampler, other, triplets=8, count=SLOTS).settings() != triplets.settings()


@pytest.mark.parametrize("variant", ["gld", "sop"])
def test_rrt_from_files_databases_and_in_training(tmp_path, variant):
    torch.manual_seed(0)
    size = {"local_dim": D, "global_dim": D, "model_dim": 16, "num_layers": 2, "dim_feedforward": 32}
    model = RRT(variant=variant, **size, map_size=[2, 3]).eval()
    query, local = (
        replace(x, positions=(torch.randint(0, 3, (*x.valid.shape, 2)) + 0.5) / torch.tensor([2, 3]) % 1)
        for x in (images(3, 1), images(32))
    )
    path, vectors = write(tmp_path, "g", local)
    gallery = DescriptorFile(path).with_vectors(vectors)
    queries = DescriptorFile(write(tmp_path, "q", query)[0]).with_vectors(tmp_path / "q_global.hdf5")
    shortlist = Shortlist(np.tile(np.arange(32), (3, 1)), np.zeros((3, 32), np.float32))
    database = compress(Source(DescriptorFile(path), GlobalFile(vectors)), model, tmp_path / "db", desc_num=3)
    assert (database.slots, database.manifest.code_bytes) == (3 + (variant == "gld"), 32)
    scorer, expected = PairScorer(model), direct(model, query, local)
    assert expected.std() > 1e-2
    np.testing.assert_allclose(score_shortlist(scorer, queries, gallery, shortlist), expected, atol=1e-5)
    scores = score_shortlist(scorer, queries, database, shortlist, database_count=3)
    np.testing.assert_allclose(scores, direct(model, query, local.trim(3)), atol=1e-5)
    sampler = loader(gallery).sampler
    triplets = TripletLoader(sampler, gallery, triplets=8, count=SLOTS, scales=model.reads_locations)
    before = weights(model)
    fit(model, triplets, PairwiseRecipe(epochs=1, lr=0.01, min_desc=2, max_desc=SLOTS))
    assert not same(before, weights(model))
