"""Searches with embedders' vectors on a test set, of images and of stored features, by a naive search."""

import json

import numpy as np
import pytest
import torch

from ames.datasets.images import read_image
from ames.descriptors.local import write_globals
from ames.embedders.fusion import Mlp
from ames.embedders.network import GlobalNetwork
from ames.errors import AmesError
from ames.evaluation.embedded_search import EmbeddedSearch, embed_stored, feature_files
from ames.evaluation.protocols import LEAVE_ONE_OUT
from helpers.photos import broken, save, scene

IMAGES, CLASSES = 9, 3
NAMES = [f"{i}.png" for i in range(IMAGES)]
LABELS = [i % CLASSES for i in range(IMAGES)]
FEATURES = [{"name": "a_global", "kind": "global", "width": 4, "count": 1, "backbone": "mine"}]


def write_list(path, names=NAMES, labels=LABELS):
    path.write_text("".join(f"{name},{label}\n" for name, label in zip(names, labels, strict=True)))


def write_vectors(folder, part, seed, names=NAMES, backbone="mine"):
    vectors = np.random.default_rng(seed).standard_normal((len(names), 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    write_globals(folder / f"a_{part}_global.hdf5", vectors, names=names, provenance={"backbone": backbone})


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(NAMES):
        save(tmp_path / name, scene(LABELS[i], view=i // CLASSES, size=(40, 48)))
    for part, seed in (("query", 0), ("gallery", 0)):
        write_list(tmp_path / f"test_{part}.txt")
        write_vectors(tmp_path, part, seed)
    return tmp_path


def network():
    torch.manual_seed(0)
    return GlobalNetwork(trunk="resnet10", width=0.125, dim=8, size=32).eval()


def fusion(features=FEATURES):
    torch.manual_seed(1)
    return Mlp(features=features, dim=8)


def opened(folder, protocols=(LEAVE_ONE_OUT,), **options):
    return EmbeddedSearch.open(folder, protocols, **options)


def precision(ranks, positives):
    """Average precision by trapezoids, as of the revisited benchmarks."""
    found = 0.0
    for number, rank in enumerate(ranks):
        before = 1.0 if rank == 0 else number / rank
        found += (before + (number + 1) / (rank + 1)) / 2 / positives
    return found


def naive(queries, gallery, same):
    """(mAP, recall at 1) of a search by labels, in percent."""
    scores, hits = [], []
    for row, query in enumerate(queries):
        order = [i for i in np.argsort(-(gallery @ query), kind="stable") if not (same and i == row)]
        right = [LABELS[i] == LABELS[row] for i in order]
        scores.append(precision(np.flatnonzero(right), sum(right)))
        hits.append(right[0])
    return 100 * np.mean(scores), 100 * np.mean(hits)


def test_by_labels_a_query_does_not_find_itself(folder):
    test, made = opened(folder), network()
    vectors = [made(made.inputs.tensor([made.inputs.fit(read_image(folder / name))])) for name in NAMES]
    wanted = torch.cat(vectors).detach().numpy()
    for split in ("query", "gallery"):
        np.testing.assert_allclose(test.vectors(made, split), wanted, atol=1e-5)
    found = test.metrics(made, made)
    assert (found["val_map"], found["val_recall_1"]) == pytest.approx(naive(wanted, wanted, True))


def test_one_side_of_images_and_one_of_stored_features(folder):
    test, query, gallery = opened(folder), network(), fusion()
    a, b = test.vectors(query, "query"), test.vectors(gallery, "gallery")
    assert b.shape == (IMAGES, 8)
    found = test.metrics(query, gallery)
    assert (found["val_map"], found["val_recall_1"]) == pytest.approx(naive(a, b, True))
    assert not gallery.eval().training


def test_stored_features_are_fused_in_evaluation_mode_piece_by_piece(folder):
    test, made = opened(folder), fusion().train()
    found = test.vectors(made, "gallery")
    assert made.training
    ((_, stored),) = test._stored.items()
    with torch.no_grad():
        np.testing.assert_allclose(found, made.eval()(stored.read(np.arange(IMAGES))).numpy(), atol=1e-6)
    np.testing.assert_array_equal(embed_stored(made, stored), found)


def test_a_ground_truth_has_its_protocols_and_boxes(folder):
    box = [4, 6, 40, 30]
    gnd = [{"ok": [(i + 3) % IMAGES], "junk": [i], "bbx": box} for i in range(IMAGES)]
    (folder / f"gnd_{folder.name}.json").write_text(
        json.dumps({"imlist": NAMES, "qimlist": NAMES, "gnd": gnd})
    )
    test, made = opened(folder), network()
    image = read_image(folder / NAMES[0])[box[1] : box[3], box[0] : box[2]]
    wanted = made(made.inputs.tensor([made.inputs.fit(image)])).detach().numpy()[0]
    np.testing.assert_allclose(test.vectors(made, "query")[0], wanted, atol=1e-5)
    found, scores = test.metrics(made, made), []
    a, b = test.vectors(made, "query"), test.vectors(made, "gallery")
    for row, query in enumerate(a):
        order = [i for i in np.argsort(-(b @ query), kind="stable") if i != row]
        scores.append(precision([order.index((row + 3) % IMAGES)], 1))
    assert found["val_map"] == pytest.approx(100 * np.mean(scores))


def test_images_that_cannot_be_read_are_counted_in_the_log(folder, caplog):
    broken(folder)
    for split in ("query", "gallery"):
        write_list(folder / f"test_{split}.txt", ["cut.jpg", *NAMES[1:7], "empty.jpg", NAMES[8]])
    test = opened(folder)
    for _ in range(2):
        found = test.vectors(network(), "gallery")
    assert len(caplog.records) == 1
    assert np.flatnonzero(~found.any(1)).tolist() == [0, 7]
    assert "2 of 9 images of the gallery list have no vector; the first: cut.jpg: cut off" in caplog.text


def test_mistakes_are_found_before_anything_is_computed(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with pytest.raises(AmesError, match="none of the 9 listed images exists"):
        opened(folder, images=elsewhere).prepare(network(), "query")
    test = opened(folder)
    with pytest.raises(AmesError, match=r"b_gallery_global.hdf5: no such file"):
        test.prepare(fusion([FEATURES[0] | {"name": "b_global"}]), "gallery")
    with pytest.raises(AmesError, match="made by backbone 'mine', but the embedder learned from 'other'"):
        test.prepare(fusion([FEATURES[0] | {"backbone": "other"}]), "gallery")
    write_vectors(folder, "query", 0, NAMES[:5])
    with pytest.raises(AmesError, match=r"a_query_global.hdf5: 5 images, but 9 in .*test_query.txt"):
        test.prepare(fusion(), "query")
    write_vectors(folder, "query", 0, [NAMES[1], NAMES[0], *NAMES[2:]])
    with pytest.raises(AmesError, match=r"test_query.txt: image 1 is '1.png', there '0.png'"):
        test.prepare(fusion(), "query")
    with pytest.raises(AmesError, match="feature 'a_global' is 4-d, the embedder takes 5-d"):
        test.vectors(fusion([FEATURES[0] | {"width": 5}]), "gallery")


def test_lists_without_labels_need_a_ground_truth(folder):
    (folder / "test_query.txt").write_text("\n".join(NAMES))
    with pytest.raises(AmesError, match=r"no ground truth exists; looked for .*gnd_"):
        opened(folder)
    with pytest.raises(AmesError, match=r"no ground truth exists; looked for .*other"):
        opened(folder, ground_truth="other.json")


def test_files_of_features_are_named_by_split(folder):
    test = fusion()
    assert feature_files(folder, test.features, "query") == {"a_global": folder / "a_query_global.hdf5"}
    local = fusion([{"name": "x_local", "kind": "local", "width": 3}])
    assert feature_files(folder, local.features) == {"x_local": folder / "x_local.hdf5"}
