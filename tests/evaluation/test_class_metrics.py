"""Recall@k, mAP and MAP@R of images with classes: cases by hand, a twin of loops, the library's search."""

import dataclasses

import numpy as np
import pytest

from ames.descriptors import vectors as vectors_module
from ames.descriptors.vectors import Vectors
from ames.errors import AmesError
from ames.evaluation.class_metrics import evaluate_classes
from ames.evaluation.class_protocol import ClassProtocol
from ames.evaluation.class_ranks import class_ranks
from ames.global_search.exact import search

EVERY = ("trapezoid", "rectangle", "at-r")
ALONE = ClassProtocol("alone", (1, 2, 4), EVERY, cutoff=3)
APART = dataclasses.replace(ALONE, name="apart", skip_self=False)


def at_angles(*degrees):
    """Vectors [n, 2] on the circle: the nearer their angles, the more similar."""
    angles = np.deg2rad(np.array(degrees, float))
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def quarters(rng, count):
    """Vectors [count, 4] of ±1/2: their products are exact, and many are equal."""
    return (rng.integers(0, 2, (count, 4)) - 0.5).astype(np.float32)


def naive(queries, gallery, own, others, protocol):
    """recall, map and the number of queries without a positive, by loops over whole rankings."""
    hits, without = dict.fromkeys(protocol.recall_at, 0), 0
    found = {rule: [] for rule in protocol.average_precision}
    for q, query in enumerate(queries):
        pairs = []
        for i, image in enumerate(gallery):
            similarity = sum(float(a) * float(b) for a, b in zip(query, image, strict=True))
            if not any(query) or not any(image):
                similarity = -1.0
            if not (protocol.skip_self and i == q):
                pairs.append((-similarity, i))
        right = [others[i] == own[q] for _, i in sorted(pairs)]
        for k in hits:
            hits[k] += any(right[:k])
        total = sum(right)
        if total == 0:
            without += 1
            continue
        for rule, values in found.items():
            values.append(naive_average_precision(right, total, rule, protocol.cutoff))
    return (
        {k: 100 * n / len(queries) for k, n in hits.items()},
        {rule: 100 * sum(values) / len(values) for rule, values in found.items()},
        without,
    )


def naive_average_precision(right, total, rule, cutoff):
    last = {"trapezoid": len(right), "rectangle": cutoff or len(right), "at-r": total}[rule]
    divisor, score, seen = min(total, last), 0.0, 0
    for place, one in enumerate(right[:last], 1):
        if one:
            before = seen / (place - 1) if place > 1 else 1.0
            seen += 1
            score += (before + seen / place) / 2 if rule == "trapezoid" else seen / place
    return score / divisor


# ---- by hand --------------------------------------------------------------------------------------------


def test_a_gallery_apart_by_hand():
    """Query at 0°: the gallery in order is a, b, a, a, b; query of c: none of its class."""
    gallery, labels = at_angles(10, 20, 30, 40, 50), ["a", "b", "a", "a", "b"]
    found = evaluate_classes(at_angles(0, 60, 0), gallery, ["a", "a", "c"], labels, APART)
    # Ranks of a from 0°: 0, 2, 3. From 60° the order is b, a, a, b, a: ranks 1, 2, 4.
    first = np.mean([1, 2 / 3, 3 / 4]), (1 + 2 / 3) / 3, (1 + 2 / 3) / 3
    second = np.mean([1 / 2, 2 / 3, 3 / 5]), (1 / 2 + 2 / 3) / 3, (1 / 2 + 2 / 3) / 3
    trapezoid = (
        (1 + (1 / 2 + 2 / 3) / 2 + (2 / 3 + 3 / 4) / 2) / 3,
        ((0 + 1 / 2) / 2 + (1 / 2 + 2 / 3) / 2 + (2 / 4 + 3 / 5) / 2) / 3,
    )
    assert found.map["trapezoid"] == pytest.approx(100 * np.mean(trapezoid))
    assert found.map["rectangle"] == pytest.approx(100 * np.mean([first[1], second[1]]))
    assert found.map["at-r"] == pytest.approx(100 * np.mean([first[2], second[2]]))
    assert found.recall == pytest.approx({1: 100 / 3, 2: 200 / 3, 4: 200 / 3})
    assert found.first.tolist() == [0, 1, -1]
    assert (found.num_queries, found.num_without) == (3, 1)
    assert np.isnan(found.aps["at-r"][2])


def test_map_at_r_is_not_average_precision():
    """R = 2, ranks 0 and 2: only the first is among the first two."""
    found = evaluate_classes(at_angles(0), at_angles(1, 2, 3), [1], [1, 0, 1], APART)
    assert found.map == pytest.approx(
        {"at-r": 50, "rectangle": 100 * (1 + 2 / 3) / 2, "trapezoid": 100 * (1 + (1 / 2 + 2 / 3) / 2) / 2}
    )


def test_the_cutoff_divides_where_there_are_more_positives():
    found = evaluate_classes(at_angles(0), at_angles(1, 2, 3, 4, 5), [1], [1, 1, 1, 1, 1], APART)
    assert found.map["rectangle"] == pytest.approx(100)  # 3 hits of min(5, 3)
    whole = dataclasses.replace(APART, cutoff=None)
    assert evaluate_classes(at_angles(0), at_angles(1, 2), [1], [0, 1], whole).map["rectangle"] == 50


def test_the_image_itself_is_removed_by_its_number_and_a_copy_counts():
    """Images 0 and 1 are copies of each other, of two classes: each finds the other first."""
    vectors, labels = at_angles(0, 0, 20, 25), [0, 1, 0, 1]
    found = evaluate_classes(vectors, vectors, labels, labels, ALONE)
    # 0: 1, 2 (right), 3. 1: 0, 2, 3 (right). 2: 3, 0 (right; as near as 1, of a smaller id), 1.
    # 3: 2, 0, 1 (right).
    assert found.first.tolist() == [1, 2, 1, 2]
    assert found.recall == {1: 0, 2: 50, 4: 100}
    same = evaluate_classes(vectors, vectors, [0, 0, 1, 1], [0, 0, 1, 1], ALONE)
    assert same.recall[1] == 100


@pytest.mark.parametrize(("labels", "rank"), [([1, 0, 0], 0), ([0, 1, 0], 1), ([0, 0, 1], 2)])
def test_of_equal_similarities_the_smaller_id_comes_first(labels, rank):
    gallery = at_angles(30, 30, 30)
    found = evaluate_classes(at_angles(0), gallery, [1], labels, APART)
    assert found.first.tolist() == [rank]
    assert search(at_angles(0), gallery).ids.tolist() == [[0, 1, 2]]  # the rule of the library's search


def test_classes_with_a_single_image_count_in_recall_alone():
    vectors, labels = at_angles(0, 5, 90), ["x", "x", "alone"]
    found = evaluate_classes(vectors, vectors, labels, labels, ALONE)
    assert found.recall == pytest.approx({1: 200 / 3, 2: 200 / 3, 4: 200 / 3})
    assert found.map == pytest.approx(dict.fromkeys(EVERY, 100))
    assert found.num_without == 1


def test_no_query_with_a_positive_has_no_map():
    vectors = at_angles(0, 5)
    found = evaluate_classes(vectors, vectors, [0, 1], [0, 1], ALONE)
    assert all(np.isnan(value) for value in found.map.values())
    assert found.recall == {1: 0, 2: 0, 4: 0}


def test_queries_of_another_network():
    """The student sees image 0 among those of the other class; the gallery is the teacher's."""
    teacher, student = at_angles(0, 10, 100, 115), at_angles(105, 10, 100, 115)
    labels = [0, 0, 1, 1]
    assert evaluate_classes(teacher, teacher, labels, labels, ALONE).first.tolist() == [0, 0, 0, 0]
    assert evaluate_classes(student, teacher, labels, labels, ALONE).first.tolist() == [2, 0, 0, 0]


# ---- the twin -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [ALONE, APART, dataclasses.replace(APART, cutoff=None)])
@pytest.mark.parametrize("block_bytes", [1, 200, 1 << 28])
def test_agrees_with_loops(protocol, block_bytes, monkeypatch):
    """Vectors with many ties, copies, zero vectors, and classes of one image; blocks of any size."""
    rng = np.random.default_rng(7)
    monkeypatch.setattr(vectors_module, "_BLOCK", 4 * 13)  # 13 gallery images at a time
    monkeypatch.setitem(class_ranks.__kwdefaults__, "block_bytes", block_bytes)
    for _ in range(8):
        gallery, others = quarters(rng, 40), rng.integers(0, 12, 40)
        gallery[rng.integers(0, 40, 2)] = 0
        if protocol.skip_self:
            queries, own = gallery.copy(), others
            queries[::3] = quarters(rng, 14)  # another network
        else:
            queries, own = quarters(rng, 25), rng.integers(0, 15, 25)
            queries[3] = 0
        found = evaluate_classes(queries, gallery, own, others, protocol)
        recall, mean, without = naive(queries.tolist(), gallery.tolist(), own, others, protocol)
        assert found.recall == pytest.approx(recall)
        assert found.map == pytest.approx(mean)
        assert found.num_without == without


@pytest.mark.parametrize("skip_self", [True, False])
def test_ranks_are_those_of_the_search(skip_self):
    rng = np.random.default_rng(3)
    gallery, classes = quarters(rng, 60), rng.integers(0, 8, 60)
    gallery = np.concatenate([gallery, rng.standard_normal((60, 4)).astype(np.float32)])
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    gallery[[5, 70]] = 0
    classes = np.concatenate([classes, rng.integers(0, 8, 60)])
    ids = search(gallery, gallery, skip_self=skip_self).ids
    searched = Vectors.of(gallery)
    found = list(class_ranks(searched, searched, classes, classes, skip_self=skip_self))
    for query, ranks in enumerate(found):
        assert ranks.tolist() == np.flatnonzero(classes[ids[query]] == classes[query]).tolist()


def test_labels_may_be_text_or_numbers_and_vectors_of_any_length():
    rng = np.random.default_rng(1)
    gallery, labels = rng.standard_normal((30, 6)).astype(np.float32), rng.integers(0, 5, 30)
    plain = evaluate_classes(gallery, gallery, labels, labels, ALONE)
    names = [f"class {label}" for label in labels]
    again = evaluate_classes(3 * gallery.astype(np.float64), gallery, names, names, ALONE)
    assert again.map == pytest.approx(plain.map)
    assert again.recall == plain.recall


# ---- errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queries": at_angles(0, 5, 9)}, r"queries: 3 vectors, but query labels of shape \[2\]"),
        ({"gallery": at_angles(0)}, r"gallery: 1 vectors, but gallery labels of shape \[2\]"),
        (
            {"gallery": np.eye(2, 3, dtype=np.float32)},
            "queries: 2-d global descriptors, those of gallery are 3-d",
        ),
        ({"query_labels": [0, 1], "protocol": ALONE}, "'alone' searches for each image among the others"),
        ({"query_labels": [7, 8]}, "no class of a query is in the gallery"),
        ({"query_labels": ["0", "0"]}, "labels of queries and of the gallery are numbers and text"),
        ({"queries": np.zeros((0, 2), np.float32), "query_labels": []}, "queries: there is no query"),
        ({"queries": np.full((2, 2), np.nan, np.float32)}, "queries: the vector of image 0 is not finite"),
        ({"gallery": np.full((2, 2), np.inf, np.float32)}, "gallery: the vector of image 0 is not finite"),
        ({"queries": np.zeros((2, 2), int)}, "expected float"),
    ],
)
def test_wrong_input_is_one_line(change, message):
    arguments = {"queries": at_angles(0, 5), "gallery": at_angles(1, 6), "protocol": APART}
    arguments |= {"query_labels": [0, 0], "gallery_labels": [0, 0]} | change
    with pytest.raises(AmesError, match=message) as raised:
        evaluate_classes(**arguments)
    assert len(str(raised.value).splitlines()) == 1
