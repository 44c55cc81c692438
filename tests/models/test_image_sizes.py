"""How image sizes come to the models that measure in pixels: files, test sets, extractors, databases."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from ames.backbones.base import ImageFeatures
from ames.backbones.rootsift import RootSift
from ames.database.build import Source, compress
from ames.database.store import Database
from ames.descriptors.local import DescriptorFile, GlobalFile, create_local, write_globals
from ames.errors import AmesError
from ames.evaluation.evaluate import Scoring, score_once
from ames.evaluation.protocols import MEDIUM
from ames.evaluation.test_set import open_test_set
from ames.extraction.base import ImageRegion
from ames.extraction.batched import BatchedExtractor
from ames.extraction.config import ExtractionConfig
from ames.extraction.extractor import Extractor
from ames.extraction.process_pool import PoolExtractor
from ames.features import LocalFeatures
from ames.models.mutual_nearest import MutualNearest
from ames.models.spatial import SpatialVerification
from ames.reranking.fusion import Fusion
from ames.reranking.reranker import Reranker
from ames.reranking.score_cache import scores_key
from ames.reranking.scorer import PairScorer
from ames.retrieval.retriever import Retriever
from helpers import photos
from helpers.brightness import Brightness
from helpers.small_sets import made

SIZE = torch.tensor([600.0, 800.0])


def one(count=4, **rest):
    return LocalFeatures.from_descriptors(torch.randn(count, 8), positions=torch.rand(count, 2), **rest)


# ---- the features and the files ---------------------------------------------------------------------


def test_features_carry_the_size_as_one_array_an_image():
    sized = one(image_size=SIZE)
    batch = LocalFeatures.stack([sized, replace(one(6), image_size=SIZE * 2)])
    assert batch.image_size.tolist() == [[600, 800], [1200, 1600]]
    assert batch[[1]].trim(2).pad(9).image_size.tolist() == [[1200, 1600]]
    assert batch.reshape(2, 1).image_size.shape == (2, 1, 2)
    assert LocalFeatures.stack([sized, one()]).image_size is None
    with pytest.raises(ValueError, match=r"image_size is \(2, 2\): give 2 numbers for each of \(\) images"):
        one(image_size=torch.ones(2, 2))
    with pytest.raises(AmesError, match="one of them has image_size, the other none"):
        Reranker(SpatialVerification()).score(sized, [one(), sized])


def test_a_file_with_sizes(tmp_path):
    made(tmp_path / "set", queries=3, gallery=20)
    file = DescriptorFile(tmp_path / "set" / "rootsift_query_local.hdf5")
    assert file.read([0]).image_size is None
    file.with_sizes(np.array([[1, 2], [3, 4], [5, 6]]))
    for locations in (True, False):
        assert file.read([2, 0, 2], locations=locations).image_size.tolist() == [[5, 6], [1, 2], [5, 6]]
    with pytest.raises(AmesError, match=r"3 images, but their sizes are \[2, 2\]"):
        file.with_sizes(np.ones((2, 2)))
    with pytest.raises(AmesError, match=r"the size of image 1 is \[0.0, 4.0\]: give pixels"):
        file.with_sizes(np.array([[1, 2], [0, 4], [5, 6]]))


def test_saved_scores_of_other_sizes_are_not_taken(tmp_path):
    made(tmp_path / "set", queries=3, gallery=20)
    query, gallery = (
        DescriptorFile(tmp_path / "set" / f"rootsift_{x}_local.hdf5") for x in ("query", "gallery")
    )
    scorer = PairScorer(SpatialVerification())
    keys = {scores_key(scorer, (query, gallery), (5, 5))}
    for side in (1, 2):
        query.with_sizes(np.full((3, 2), side))
        keys.add(scores_key(scorer, (query, gallery), (5, 5)))
    assert len(keys) == 3


# ---- test sets --------------------------------------------------------------------------------------


def test_a_test_set_takes_sizes_from_its_lists(tmp_path):
    folder = made(tmp_path / "set", queries=3, gallery=20)
    model = SpatialVerification(distance=3.0)
    lists = {split: folder.image_list(split) for split in ("query", "gallery")}
    lists["query"].write_text("".join(f"q{i}.jpg,0,{800 + i},{600 + i}\n" for i in range(3)))
    test = open_test_set(folder, model)
    assert test.queries.sizes.tolist() == [[600, 800], [601, 801], [602, 802]]
    assert test.gallery.sizes is None  # it reads the query's alone
    lists["gallery"].write_text("".join(f"g{i}.jpg,0,100,50\n" for i in range(20)))
    both = open_test_set(folder, SpatialVerification(estimator="fundamental-usac"))
    assert both.gallery.sizes.tolist() == [[50, 100]] * 20
    assert open_test_set(folder, MutualNearest()).queries.sizes is None
    scoring = Scoring(query_count=5, database_count=5)
    scores = score_once(scoring, model, test, [MEDIUM], 10, Fusion(2e-5, 1e-3)).scores
    known = scores[~np.isnan(scores)]
    assert set(np.unique(known)) <= {0, 3, 4, 5}
    assert known.max() >= 4


def test_a_test_set_takes_sizes_from_its_images(tmp_path):
    folder = made(tmp_path / "set", queries=3, gallery=20)
    model = SpatialVerification(distance=3.0)
    assert open_test_set(folder, model).queries.sizes is None
    for place, size in (("jpg/q{}.jpg", 30), ("q{}.jpg", 40)):  # without a list, names of the ground truth
        folder.image_list("query").write_text("".join(f"q{i}.jpg\n" for i in range(3)))
        for i in range(3):
            photos.save(folder.path / place.format(i), photos.scene(i, size=(size, 60 + i)))
        test = open_test_set(folder, model)
        assert test.queries.sizes.tolist() == [[size, 60], [size, 61], [size, 62]]


def test_without_any_size_an_evaluation_says_what_to_give(tmp_path):
    folder = made(tmp_path / "set", queries=3, gallery=20)
    scoring = Scoring(query_count=5, database_count=5)
    test = open_test_set(folder, SpatialVerification(distance=3.0))
    with pytest.raises(AmesError, match=r"height and width of each query image .*nominal_size=1024"):
        scoring(SpatialVerification(distance=3.0), test, [MEDIUM], [10])
    assert scoring(SpatialVerification(distance=3.0, nominal_size=1024), test, [MEDIUM], [10])


# ---- extractors, databases, collections -------------------------------------------------------------


def test_extractors_know_the_size_of_the_whole_photo(tmp_path):
    photo = photos.scene(3, size=(96, 128))
    photos.save(tmp_path / "x.png", photo)
    extract = Extractor("rootsift")
    assert extract(tmp_path / "x.png").local.image_size.tolist() == [96, 128]
    several = extract([photo, cv2.rotate(photo, cv2.ROTATE_90_CLOCKWISE)]).local
    assert several.image_size.tolist() == [[96, 128], [128, 96]]


def test_of_a_box_too(tmp_path):
    photo = photos.scene(3, size=(96, 128))
    ((found,),) = PoolExtractor(RootSift(), ExtractionConfig(workers=0)).chunks(
        [ImageRegion(photo, (64, 48, 128, 96))], 1
    )
    assert found.local.image_size.tolist() == [96, 128]
    # Locations are shares of the same whole.
    assert (found.local.positions >= 0.5).all()


def test_a_network_s_features_know_it_too():
    photo = photos.scene(3, size=(96, 128))
    ((found,),) = BatchedExtractor(Brightness()).chunks([ImageRegion(photo, (64, 48, 128, 96))], 1)
    assert found.local.image_size.tolist() == [96, 128]


def test_photos_are_verified_by_a_reranker():
    extract, reranker = Extractor("rootsift", desc_num=60), Reranker("spatial")
    query = extract(photos.scene(2, view=1)[..., ::-1])
    hits = reranker.rank(query, [extract(photos.scene(seed)[..., ::-1]) for seed in range(4)])
    assert hits[0].id == 2
    assert hits[0].local > 2 * hits[1].local


def test_a_compact_database_is_verified(tmp_path):
    """Codes hold places, so that nothing but the query's size is missing, which an extractor gives."""
    extract = Extractor("rootsift", desc_num=60)
    found = [extract(photos.scene(seed)[..., ::-1]) for seed in range(5)]
    with create_local(tmp_path / "g_local.hdf5", images=5, slots=60, width=128) as write:
        for row, image in enumerate(found):
            write(row, image.local)
    write_globals(tmp_path / "g_global.hdf5", np.stack([x.vector for x in found]))
    source = Source(DescriptorFile(tmp_path / "g_local.hdf5"), GlobalFile(tmp_path / "g_global.hdf5"))
    model = SpatialVerification(local_dim=128)
    database = compress(source, model, tmp_path / "db", desc_num=50)
    assert (database.codes, database.width) == ("float16", 130)
    retriever = Retriever(Database(tmp_path / "db"), Reranker(model, Fusion(2e-5, 1e-3)))
    query = extract(photos.scene(2, view=1)[..., ::-1])
    hits = retriever.search(query, k=5)
    assert hits[0].id == 2
    direct = Reranker(model, desc_num=(600, 50)).score(query, [x.local for x in found])
    assert {hit.id: hit.local for hit in hits} == dict(enumerate(direct))
    batch = retriever.search_features(query.vector, query.local, k=1)
    assert batch.ids.tolist() == [[2]]
    with pytest.raises(AmesError, match="needs the height and width of each query image"):
        retriever.search(ImageFeatures(replace(query.local, image_size=None), query.vector), k=1)


def test_a_database_needs_a_model_that_knows_the_width(tmp_path):
    with create_local(tmp_path / "x_local.hdf5", images=1, slots=4, width=8) as write:
        write(0, one())
    for model in (SpatialVerification(), MutualNearest()):
        with pytest.raises(AmesError, match="a database needs one that knows it, local_dim=8"):
            compress(Source(DescriptorFile(tmp_path / "x_local.hdf5")), model, tmp_path / "db", desc_num=4)
