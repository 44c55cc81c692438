"""A collection that is searched in stages."""

import numpy as np
import pytest

from ames.cli.main import main
from ames.errors import AmesError
from ames.models.code_chamfer import CodeChamfer
from ames.models.load import load_model
from ames.reranking.fusion import Fusion
from ames.reranking.reranker import Reranker
from ames.retrieval.retriever import Retriever
from ames.retrieval.stages import Stages
from helpers import photos

CASCADE = """descriptors: rootsift
stages:
- {model: chamfer, codes_of: rootsift_ames_dist, num_rerank: 6, lamb: 0.1, temp: 3.0}
- {model: rootsift_ames_dist, num_rerank: 3, lamb: 0.2, temp: 0.5}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(8):
        photos.save(folder / "photos" / f"{seed}.jpg", photos.scene(seed))
    (folder / "fast.yaml").write_text(CASCADE)
    photos.save(folder / "query.png", photos.scene(3, view=1))
    Retriever.build(folder / "index", folder / "photos", "rootsift_ames_dist")
    return folder


def test_the_stages_are_re_rankers_in_a_row(made):
    index = Retriever.open(made / "index", cascade=made / "fast.yaml")
    features = index.extract(made / "query.png")
    hits = index.search(features, k=3)
    found = index._index.search(np.asarray(features.vector)[None], 6)
    ids, similarities = found.ids[0], found.similarities[0]
    cheap = Reranker(
        CodeChamfer(load_model("rootsift_ames_dist")), Fusion(0.1, 3.0), desc_num=(200, 50)
    ).rank(features, index.database, similarities, ids=ids)
    best = [int(hit.id) for hit in cheap[:3]]
    exact = Reranker("rootsift_ames_dist", Fusion(0.2, 0.5)).rank(
        features, index.database, [float(similarities[list(ids).index(i)]) for i in best], ids=best
    )
    assert [hit.id for hit in hits] == [hit.id for hit in exact]
    assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in exact])
    assert hits[0].name == "3.jpg"
    assert hits.scored == 3
    several = index.search_features(
        np.stack([features.vector] * 2), features.local.map(lambda x: x.expand(2, *x.shape)), k=3
    )
    assert several.ids.tolist() == [[hit.id for hit in hits]] * 2


def test_what_a_cascade_does_not_take(made):
    index = Retriever.open(made / "index", cascade=str(made / "fast.yaml"))
    assert len(index.search(made / "query.png")) == 3  # of 10, as many as the last stage takes
    with pytest.raises(AmesError, match="k 0 is outside"):
        index.search(made / "query.png", k=0)
    with pytest.raises(AmesError, match="a cascade says how many candidates it takes"):
        index.search(made / "query.png", k=2, num_rerank=5)
    with pytest.raises(AmesError, match="a cascade says how many candidates it takes"):
        index.search(made / "query.png", k=2, budget_ms=5)
    with pytest.raises(AmesError, match="at least one stage"):
        Stages([])


def test_a_cascade_of_another_model_is_refused(made):
    (made / "other.yaml").write_text(CASCADE.replace("rootsift_ames_dist", "rootsift_elvis_binary"))
    with pytest.raises(AmesError, match=r"cascade other, stage 1 \(chamfer\): .*made by another projection"):
        Retriever.open(made / "index", cascade=made / "other.yaml")
    with pytest.raises(AmesError, match="cascade 'nonesuch' does not exist"):
        Retriever.open(made / "index", cascade="nonesuch")


def test_two_collections_do_not_share_a_model(made):
    """One of them may be opened on another device."""
    first, second = (Retriever.open(made / "index", cascade=made / "fast.yaml").stages for _ in range(2))
    for one, other in zip(first.stages, second.stages, strict=True):
        assert one.reranker.model is not other.reranker.model


def test_the_command(made, capsys):
    words = ["search", str(made / "index"), str(made / "query.png"), "--top", "2"]
    assert main([*words, "--cascade", str(made / "fast.yaml")]) == 0
    assert "3.jpg" in capsys.readouterr().out
    assert main([*words, "--cascade", "nonesuch"]) == 2
    assert "cascade 'nonesuch' does not exist" in capsys.readouterr().err
