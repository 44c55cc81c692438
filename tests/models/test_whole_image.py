"""A model that reads a global vector and scales gets them, wherever images come from."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from ames.backbones.base import ImageFeatures
from ames.database.build import Source, compress
from ames.descriptors.local import DescriptorFile, GlobalFile, create_local, write_globals
from ames.descriptors.merge import merge_parts
from ames.errors import AmesError
from ames.evaluation.evaluate import Scoring, evaluate_test_set
from ames.evaluation.protocols import REVISITED
from ames.evaluation.sweep import Grid
from ames.evaluation.test_set import open_test_set
from ames.features import LocalFeatures
from ames.global_search.shortlist import Shortlist
from ames.models.locore import Locore
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


# ---- what files and codes hold ---------------------------------------------------------------------------


def pair_matcher(variant="gld"):
    torch.manual_seed(0)
    sizes = {"local_dim": D, "global_dim": D, "model_dim": D, "nhead": 2, "num_layers": 2}
    model = RRT(**sizes, dim_feedforward=8, scales=0, variant=variant, map_size=[2, 3])
    return model.eval()


def list_matcher(**changes):
    torch.manual_seed(0)
    sizes = {"hidden": D, "num_layers": 2, "nhead": 2, "intermediate": 8, "attention_window": 8}
    inputs = {"local_dim": D, "global_dim": D, "local_count": 3, "window": 9, "scales": 0}
    model = Locore(**sizes | inputs | changes)
    return model.eval()


@pytest.mark.parametrize("made", [pair_matcher, list_matcher])
def test_a_number_of_descriptors_does_not_count_the_global_token(made):
    model, query, database = made(), images(1, 5)[0], images()
    plain = Reranker(model, desc_num=(3, 2))
    codes = model.compress(database)
    expected = plain.score(query, database)
    assert plain.score(query, codes).tolist() == pytest.approx(expected.tolist(), abs=3e-3)
    assert np.abs(Reranker(model, desc_num=(3, 1)).score(query, codes) - expected).max() > 3e-3


def test_a_file_without_positions_has_none(tmp_path):
    local = images()
    path = tmp_path / "x_local.hdf5"
    with create_local(path, images=IMAGES, slots=SLOTS, width=D, dtype="float32") as put:
        for row in range(IMAGES):
            put(row, replace(local[row], scale=None, weight=None, vector=None))
    file = DescriptorFile(path)
    assert file.missing == {"positions", "scale", "weight"}
    read = file.read(range(IMAGES))
    assert (read.positions, read.scale, read.weight) == (None, None, None)
    scorer = PairScorer(pair_matcher("sop"))
    with torch.no_grad():
        expected = [scorer.model.pairs(read[i : i + 1], read[:1]).item() for i in range(IMAGES)]
    found = score_shortlist(scorer, file, file, Shortlist(np.zeros((IMAGES, 1), int), np.ones((IMAGES, 1))))
    assert found[:, 0].tolist() == pytest.approx(expected, abs=1e-3)


def test_merged_files_keep_what_is_missing(tmp_path):
    for number, scale in enumerate((True, False)):
        with create_local(tmp_path / f"x_local_{number}.hdf5", images=1, slots=SLOTS, width=D) as put:
            local = images(1)[0]
            put(0, local if scale else replace(local, scale=None))
    for copy in (False, True):
        target = tmp_path / "x_local.hdf5"
        target.unlink(missing_ok=True)
        merge_parts(target, [tmp_path / f"x_local_{i}.hdf5" for i in (0, 1)], copy=copy)
        assert DescriptorFile(target).missing == {"positions", "scale"}


def test_global_descriptors_of_other_images_are_refused(tmp_path):
    local, vectors = write(tmp_path, "a", images(2))
    for path, names in ((local, "ab"), (vectors, "ba")):
        with h5py.File(path, "a") as file:
            file.create_dataset("names", data=list(names))
    with pytest.raises(AmesError, match=r"not of the images of .*: image 0 is 'b', there 'a'"):
        DescriptorFile(local).with_vectors(vectors)
    write_globals(vectors, images(2).vector.numpy())
    with pytest.raises(AmesError, match=r"a_global\.hdf5: global descriptors are 8-d, the model takes 5-d"):
        DescriptorFile(local).with_vectors(vectors, width=5)


@pytest.mark.parametrize("made", [lambda: pair_matcher("sop"), list_matcher])
def test_padding_between_descriptors_changes_no_score(made, tmp_path):
    model, local = made(), images(2)
    local = replace(local, valid=torch.ones_like(local.valid), positions=torch.rand(2, SLOTS, 2))
    gap = local.valid.clone()
    gap[0, 1] = False
    with_gap = replace(local, valid=gap)
    moved = with_gap.real_first()
    assert moved.valid.tolist() == [[True] * 3 + [False], [True] * 4]
    assert torch.equal(moved.positions[0, :3], local.positions[0, [0, 2, 3]])
    assert torch.equal(moved.positions[1], local.positions[1])
    scores = [Reranker(model).score(local[1], x) for x in (with_gap, moved)]
    assert scores[0].tolist() == pytest.approx(scores[1].tolist(), abs=1e-5)


def test_candidates_are_alike():
    query, (one, other) = images(1)[0], images(2)
    rerank = Reranker(pair_matcher())
    with pytest.raises(AmesError, match="candidate 1 and candidate 0: one of them has vector"):
        rerank.score(query, [one, replace(other, vector=None)])
    with pytest.raises(AmesError, match="candidate 1 has a global descriptor of width 3, candidate 0 8"):
        rerank.score(query, [one, replace(other, vector=torch.zeros(3))])
    with pytest.raises(ValueError, match=r"vector is \(3, 8\): give one for each of \(2,\) images"):
        replace(images(2), vector=torch.zeros(3, 8))


def test_positions_are_shares():
    local = replace(images(2), positions=torch.full((2, SLOTS, 2), 300.0))
    with pytest.raises(AmesError, match=r"positions are not all in \[0, 1\]: give shares"):
        pair_matcher("sop").tokens(local)


def test_a_cache_and_a_fingerprint_know_the_arguments(tmp_path):
    file = DescriptorFile(write(tmp_path, "a", images(2))[0])
    keys = set()
    for size in ([2, 3], [3, 2]):
        model = RRT(variant="sop", local_dim=D, model_dim=D, nhead=2, num_layers=1, map_size=size)
        model.load_state_dict(RRT(**model.arguments | {"map_size": [2, 3]}).state_dict())
        keys.add(scores_key(PairScorer(model), (file, file), (None, None)))
    assert len(keys) == 2
    models = [list_matcher(global_dim=width, max_position_embeddings=80) for width in (None, D)]
    models[1].load_state_dict(models[0].state_dict())
    assert models[0].fingerprint() != models[1].fingerprint()
