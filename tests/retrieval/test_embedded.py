"""A collection whose global vectors an embedder makes: of its photos by one side, of queries by the other."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch

from ames.cli.main import main
from ames.descriptors.vectors import Vectors
from ames.embedders.checkpoints import save_embedders
from ames.errors import AmesError
from ames.extraction.extractor import Extractor
from ames.pipelines.own_set import open_own_set
from ames.retrieval.indexing import index_photos
from ames.retrieval.retriever import Retriever
from helpers import embedders, photos

SCENES = range(6)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six photos, an embedder of two sides, and a collection without any."""
    root = tmp_path_factory.mktemp("data")
    for seed in SCENES:
        photos.save(root / "photos" / f"{seed}.png", photos.scene(seed))
    photos.save(root / "query.png", photos.scene(3, view=1))
    embedders.save_pair(root / "pair.pt")
    Retriever.build(root / "plain", root / "photos")
    return root


@pytest.fixture
def made(data, tmp_path):
    """A copy of the embedder, and a collection that was built with it."""
    shutil.copy(data / "pair.pt", tmp_path / "pair.pt")
    return Retriever.build(tmp_path / "db", data / "photos", embedder=tmp_path / "pair.pt")


def test_photos_take_the_gallery_side_and_queries_the_query_side(data, made):
    hits = made.search(data / "query.png", k=6)
    query = Extractor("rootsift", embedder=data / "pair.pt", side="query")(data / "query.png").vector
    gallery = Extractor("rootsift", embedder=data / "pair.pt", side="gallery")
    for hit in hits:
        vector = gallery(data / "photos" / hit.name).vector
        assert hit.global_ == pytest.approx(float(query @ vector), abs=2e-3)  # stored as fp16
    assert {hit.name for hit in hits} == {f"{seed}.png" for seed in SCENES}
    pixels = embedders.network().inputs
    with torch.no_grad():
        wanted = embedders.network()(pixels.tensor([pixels.fit(cv2.imread(str(data / "query.png")))]))[0]
    np.testing.assert_allclose(query, wanted.numpy(), atol=1e-6)


def test_the_model_re_ranks_what_the_embedder_found(data, made):
    found = {hit.name: hit for hit in made.search(data / "query.png", k=6)}
    plain = {hit.name: hit for hit in Retriever.open(data / "plain").search(data / "query.png", k=6)}
    assert found.keys() == plain.keys()
    for name, hit in found.items():
        assert hit.local == pytest.approx(plain[name].local, abs=1e-4)  # local features are the same
        fused = made.reranker.fusion.fuse(np.float32(hit.global_), np.float32(hit.local))
        assert hit.score == pytest.approx(float(fused), abs=1e-6)
    assert max(found.values(), key=lambda hit: hit.local).name == "3.png"


def test_released_files_ask_their_collection(data, tmp_path):
    """Their space is in their names, which the copies do not have."""
    files = [tmp_path / f"cub-{sizes}-resnet10-16-gem-w.pth" for sizes in ("448r", "S224r-T448r")]
    for seed, path in enumerate(files):
        torch.save(embedders.network(seed, width=1.0).state_dict(), path)
    sides = {"embedder": files[0], "query_embedder": files[1]}
    Retriever.build(tmp_path / "db", data / "photos", **sides)
    hits = Retriever.open(tmp_path / "db").search(data / "query.png", k=6)
    query, gallery = (Extractor("rootsift", embedder=path) for path in reversed(files))
    vector = query(data / "query.png").vector
    for hit in hits:
        wanted = float(vector @ gallery(data / "photos" / hit.name).vector)
        assert hit.global_ == pytest.approx(wanted, abs=2e-3)  # stored as fp16
    photos.save(tmp_path / "more.png", photos.scene(9))
    index = Retriever.open(tmp_path / "db")
    assert index.add(tmp_path / "more.png") == 1


def test_the_collection_keeps_its_embedder(data, made, tmp_path):
    before = made.search(data / "query.png", k=6)
    (tmp_path / "pair.pt").unlink()
    moved = shutil.move(tmp_path / "db", tmp_path / "elsewhere")
    again = Retriever.open(moved)
    assert again.search(data / "query.png", k=6) == before
    photos.save(tmp_path / "new" / "9.png", photos.scene(9))
    assert again.add(tmp_path / "new") == 1
    hit = next(x for x in again.search(data / "query.png", k=7) if x.name == "9.png")
    query, gallery = (
        Extractor("rootsift", embedder=data / "pair.pt", side=side) for side in ("query", "gallery")
    )
    wanted = query(data / "query.png").vector @ gallery(tmp_path / "new" / "9.png").vector
    assert hit.global_ == pytest.approx(float(wanted), abs=3e-3)


def test_an_exchanged_or_missing_embedder_is_one_line(data, made, tmp_path):
    copy = tmp_path / "db" / "gallery-pair.pt"
    embedders.save_pair(copy, seed=50)
    with pytest.raises(
        AmesError, match=r"gallery-pair.pt: is not the embedder that the collection was built"
    ):
        Retriever.open(tmp_path / "db")
    copy.unlink()
    with pytest.raises(AmesError, match=r"gallery-pair.pt: missing; the collection is not whole"):
        Retriever.open(tmp_path / "db")


def test_features_of_another_space_are_refused(data, made, tmp_path):
    embedders.save_pair(tmp_path / "other.pt", seed=60)
    image = data / "query.png"
    with pytest.raises(AmesError, match=r"the query: its vectors are of no embedder, those of .* of space"):
        made.search(Extractor("rootsift")(image))
    other = Extractor("rootsift", embedder=tmp_path / "other.pt", side="query")(image)
    with pytest.raises(AmesError, match=r"the query: its vectors are of space .*: they cannot be compared"):
        made.search(other)
    with pytest.raises(AmesError, match=r"those of .* of no embedder"):
        Retriever.open(data / "plain").search(other)
    words = ["--images", image, "-o", tmp_path / "q", "--backbone", "rootsift", "--workers", 0]
    assert main(["extract", *map(str, words)]) == 0
    with pytest.raises(AmesError, match=r"q_global.hdf5: its vectors are of no embedder"):
        made.search_features(Vectors.open(tmp_path / "q_global.hdf5"), other.local)
    own = Extractor("rootsift", embedder=data / "pair.pt", side="query")(image)
    assert made.search(own, k=6) == made.search(image, k=6)


def test_two_files_of_one_space(data, tmp_path):
    query, gallery = embedders.network(), embedders.mixer()
    space = save_embedders(tmp_path / "g.pt", {"gallery": gallery})
    save_embedders(tmp_path / "q.pt", {"query": query}, space=space)
    save_embedders(tmp_path / "x.pt", {"query": query})
    options = {"embedder": tmp_path / "g.pt", "query_embedder": tmp_path / "q.pt"}
    made = Retriever.build(tmp_path / "db", data / "photos", **options)
    assert made.database.space == space
    assert {path.name for path in (tmp_path / "db").glob("*.pt")} == {"gallery-g.pt", "query-q.pt"}
    assert len(made.search(data / "query.png", k=3)) == 3
    for wrong, message in (
        ({"query_embedder": tmp_path / "x.pt"}, "are of two spaces"),
        ({"query_embedder": None}, "holds the gallery side alone"),
        ({"side": "query"}, "leave side out"),
        ({"embedder": None}, "query_embedder: give the embedder of the photos, too"),
    ):
        with pytest.raises(AmesError, match=message):
            Retriever.build(tmp_path / "no", data / "photos", **options | wrong)
    assert not (tmp_path / "no").exists()


def test_indexing_brings_a_collection_up_to_date_with_its_embedder(data, tmp_path, capsys):
    shutil.copytree(data / "photos", tmp_path / "photos")
    words = ["index", str(tmp_path / "photos"), "-o", str(tmp_path / "db")]
    assert main([*words, "--embedder", str(data / "pair.pt"), "--workers", "0", "--preset", "rootsift"]) == 0
    photos.save(tmp_path / "photos" / "9.png", photos.scene(9))
    assert main([*words, "--workers", "0"]) == 0
    shutil.copy(data / "pair.pt", tmp_path / "renamed.pt")
    assert main([*words, "--workers", "0", "--embedder", str(tmp_path / "renamed.pt")]) == 0
    assert "1 added" in capsys.readouterr().out
    made = Retriever.open(tmp_path / "db")
    assert len(made) == 7
    direct = Retriever.build(tmp_path / "direct", tmp_path / "photos", embedder=data / "pair.pt")
    wanted = {hit.name: hit.global_ for hit in direct.search(data / "query.png", k=7)}
    for hit in made.search(data / "query.png", k=7):
        assert hit.global_ == pytest.approx(wanted[hit.name], abs=1e-3)
    assert main(["search", str(tmp_path / "db"), str(data / "query.png"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)[0]["hits"]) == 7
    embedders.save_pair(tmp_path / "other.pt", seed=70)
    with pytest.raises(AmesError, match="was built with another embedder; give a new folder"):
        index_photos(tmp_path / "photos", tmp_path / "db", embedder=tmp_path / "other.pt")


def test_a_collection_without_embedder_says_nothing_of_one(data):
    said = json.loads((data / "plain" / "retriever.json").read_text())
    assert not {"query_embedder", "embedders"} & said.keys()
    assert not {"embedder", "side"} & said["extraction"].keys()
    with pytest.raises(AmesError, match="was built with another embedder; give a new folder"):
        Retriever.build(data / "plain", data / "photos", embedder=data / "pair.pt")


def test_an_own_evaluation_asks_with_the_query_side(data, tmp_path):
    for number in range(2):
        for view in range(3):
            photos.save(tmp_path / "photos" / f"{number}" / f"{view}.png", photos.scene(number, view))
    index_photos(tmp_path / "photos", tmp_path / "db", embedder=data / "pair.pt", workers=0)
    query, gallery = (
        Extractor("rootsift", embedder=data / "pair.pt", side=side) for side in ("query", "gallery")
    )
    with open_own_set(tmp_path / "db", tmp_path / "photos") as own:
        asked = query([question.path for question in own.questions.asked]).vector
        held = gallery([tmp_path / "photos" / name for name in own.index.database.names]).vector
        wanted = np.take_along_axis(asked @ held.T, own.shortlist.ids, 1)
        np.testing.assert_allclose(own.shortlist.similarities, wanted, atol=3e-3)
