"""Listed pairs: what the list may say, and what is drawn of it."""

from collections import Counter

import numpy as np
import pytest

from ames.errors import AmesError
from ames.training.data import pairs
from ames.training.data.neighbours import Neighbours
from ames.training.data.pairs import ListedPairs, read_pairs
from ames.training.data.sampler import TripletSampler, describe

NAMES = ["a.jpg", "b.jpg", "c, d.jpg", "e.jpg", "f.jpg", "g.jpg"]
A, B, C, E, F, G = range(6)


def listed(folder, text):
    path = folder / "pairs.csv"
    path.write_text(text)
    return path


def read(folder, text, names=NAMES):
    return read_pairs(listed(folder, text), names)


def counts(candidates, anchor, count=6000, **options):
    """How often each image is the positive and the negative of an anchor."""
    sampler = TripletSampler(candidates, **options)
    drawn = sampler.draw(np.full(count, anchor), np.random.default_rng(0))
    return Counter(drawn[0].tolist()), Counter(drawn[1:].reshape(-1).tolist())


def evenly(found, images, count=6000):
    expected = count / len(images)
    return set(found) == set(images) and all(abs(n - expected) < 5 * expected**0.5 for n in found.values())


@pytest.mark.parametrize("header", ["", "query,image,match\n", "Query, Image, Match\n"])
def test_a_list_with_and_without_a_header(tmp_path, header):
    found = read(tmp_path, f'{header}a.jpg,"c, d.jpg",1\n\na.jpg,e.jpg,0\ne.jpg,b.jpg, 1\n')
    assert found.queries.tolist() == [A, A, E]
    assert found.images.tolist() == [C, E, B]
    assert found.match.tolist() == [True, False, True]
    assert found.first.tolist() == [0, 1, 2, 3, 4, 5]


def test_positives_and_negatives_are_drawn_evenly_from_the_list(tmp_path):
    table = ["a.jpg,b.jpg,1", "a.jpg,e.jpg,0", "a.jpg,f.jpg,1", "a.jpg,g.jpg,0", "b.jpg,e.jpg,1"]
    candidates = ListedPairs(read(tmp_path, "\n".join(table)))
    positives, negatives = counts(candidates, A)
    assert evenly(positives, [B, F])
    assert evenly(negatives, [E, G])
    assert TripletSampler(candidates).anchors.tolist() == [A, B]
    assert TripletSampler(candidates, min_positives=2).anchors.tolist() == [A]
    with pytest.raises(AmesError, match="at most 2 positives and 3 negatives in the list of pairs"):
        TripletSampler(candidates, min_positives=3)


def test_without_negatives_any_image_that_does_not_match(tmp_path):
    # g is listed with a as its match: neither is drawn against the other.
    candidates = ListedPairs(read(tmp_path, "a.jpg,b.jpg,1\ng.jpg,a.jpg,1\n"))
    assert evenly(counts(candidates, A)[1], [C, E, F])
    assert evenly(counts(candidates, G)[1], [B, C, E, F])
    said = TripletSampler(candidates).statistics
    assert (said["queries"], said["of_list"], said["of_neighbours"], said["of_all"]) == (2, 0, 0, 2)
    drawn = TripletSampler(candidates, negatives=3).draw(np.full(30, A), np.random.default_rng(0))
    assert all(set(x) == {C, E, F} for x in drawn[1:].T.tolist())


def near(rows):
    """Neighbours (image, similarity) of some images."""
    ids, similarities = np.full((6, 5), -1), np.zeros((6, 5))
    for image, found in rows.items():
        for column, (other, similarity) in enumerate(found):
            ids[image, column], similarities[image, column] = other, similarity
    return Neighbours.from_arrays(ids, similarities)


def test_without_negatives_the_neighbours_that_do_not_match(tmp_path):
    text = "a.jpg,b.jpg,1\ng.jpg,a.jpg,1\ng.jpg,e.jpg,0\ne.jpg,f.jpg,1\n"
    neighbours = near({A: [(A, 1), (G, 0.9), (E, 0.5), (B, 0.5), (F, 0.25)], G: [(B, 0.9)], E: [(F, 0.9)]})
    candidates = ListedPairs(read(tmp_path, text), neighbours=neighbours, similarity_power=1)
    found = counts(candidates, A)[1]
    assert set(found) == {E, F}
    assert found[E] / 6000 == pytest.approx(2 / 3, abs=0.04)
    assert set(counts(candidates, G)[1]) == {E}  # the list goes before the neighbours
    assert evenly(counts(candidates, E)[1], [A, B, C, G])  # its only neighbour matches
    sampler = TripletSampler(candidates)
    assert [sampler.statistics[x] for x in ("of_list", "of_neighbours", "of_all")] == [1, 1, 1]
    assert describe(sampler.statistics) == (
        "3 valid anchors of 3 queries with 3 matches, of 6 images (0 have too few positives, 0 too few "
        "negatives); an anchor has 1.0 positives and 2.3 negatives on average; negatives: 1 queries have "
        "listed ones, 1 neighbours, 1 any image"
    )
    farther = ListedPairs(read(tmp_path, text), neighbours=neighbours, max_similarity=0.4)
    assert set(counts(farther, A)[1]) == {F}
    assert TripletSampler(farther).statistics["near_duplicates"] == 1  # those that match are none
    with pytest.raises(AmesError, match="shortlist of 6 images, but 7 in the list"):
        ListedPairs(read(tmp_path, text, [*NAMES, "h.jpg"]), neighbours=neighbours)


def test_a_share_of_the_negatives_is_any_image_that_does_not_match(tmp_path):
    candidates = ListedPairs(read(tmp_path, "a.jpg,b.jpg,1\na.jpg,e.jpg,0\n"))
    assert evenly(counts(candidates, A, hard_negative_fraction=0.0)[1], [C, E, F, G])
    assert counts(candidates, A, hard_negative_fraction=0.5)[1][E] / 6000 == pytest.approx(
        0.5 + 0.5 / 4, abs=0.04
    )


def test_a_path_listed_twice_is_its_first_row(tmp_path):
    names = [*NAMES, "b.jpg", "a.jpg"]
    found = read(tmp_path, "a.jpg,b.jpg,1\n", names)
    assert found.first.tolist() == [0, 1, 2, 3, 4, 5, B, A]
    candidates = ListedPairs(found)
    assert evenly(counts(candidates, A)[1], [C, E, F, G])
    said = TripletSampler(candidates).statistics
    assert said["duplicates"] == 2
    ids = np.tile([6, 7, E], (8, 1))
    neighbours = Neighbours.from_arrays(ids, np.ones(ids.shape))
    assert set(counts(ListedPairs(found, neighbours=neighbours), A)[1]) == {E}


def test_what_is_listed_again_is_counted(tmp_path):
    found = read(tmp_path, "a.jpg,b.jpg,1\na.jpg,b.jpg,1\na.jpg,a.jpg,1\nb.jpg,a.jpg,1\n")
    assert found.queries.tolist() == [A, B]
    assert (found.selves, found.again) == (1, 1)
    text = describe(TripletSampler(ListedPairs(found)).statistics)
    assert "1 pairs of an image and itself left out; 1 pairs listed again" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the list names no pair"),
        ("query,image,match\n", "the list names no pair"),
        ("a.jpg,b.jpg,1\n\na.jpg,x.jpg,0\n", r"line 3: x.jpg is not in the list of images"),
        ("a.jpg,b.jpg,1\na.jpg,e.jpg,yes\n", "line 2 is 'a.jpg,e.jpg,yes': give query,image,match"),
        ("a.jpg,b.jpg\n", "line 1 is 'a.jpg,b.jpg': give query,image,match"),
        ("a.jpg,a.jpg,0\n", r"line 1 says that a.jpg does not match itself"),
        ("a.jpg,b.jpg,1\na.jpg,b.jpg,0\n", r"line 2 gives a.jpg and b.jpg the match 0, line 1 1: remove"),
        (
            "a.jpg,b.jpg,0\ne.jpg,f.jpg,1\nb.jpg,a.jpg,1\n",
            r"line 3 gives b.jpg and a.jpg the match 1, line 1 0",
        ),
    ],
)
def test_errors_name_the_line(tmp_path, text, message):
    path = listed(tmp_path, text)
    with pytest.raises(AmesError, match=message) as error:
        read_pairs(path, NAMES)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_many_pairs_against_a_plain_loop(tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "_ROWS_AT_ONCE", 3)
    rng = np.random.default_rng(0)
    names = [f"{i}.jpg" for i in range(40)]
    match = {}
    for q, i in rng.integers(0, 40, (150, 2)).tolist():
        if q != i and (i, q) not in match and (q, i) not in match:
            match[q, i] = int(rng.random() < 0.6)
    found = read(tmp_path, "\n".join(f"{q}.jpg,{i}.jpg,{m}" for (q, i), m in match.items()), names)
    ids = rng.integers(-1, 40, (40, 6))
    candidates = ListedPairs(found, neighbours=Neighbours.from_arrays(ids, rng.uniform(-0.5, 1, ids.shape)))
    similarities = candidates.neighbours.rows(slice(None))[1]
    survey = candidates.scan()
    for place, q in enumerate(survey.anchors.tolist()):
        positives = {i for (a, i), m in match.items() if a == q and m}
        negatives = {i for (a, i), m in match.items() if a == q and not m}
        matches = positives | {a for (a, i), m in match.items() if i == q and m} | {q}
        if not negatives:
            best = {}
            for i, s in zip(ids[q].tolist(), similarities[q], strict=True):
                best.setdefault(i, s)
            negatives = {i for i, s in best.items() if s > 0 and i >= 0 and i not in matches}
        weighted = candidates.candidates_for(np.array([q]))
        assert set(weighted.ids[weighted.positive > 0].tolist()) == positives
        assert set(weighted.ids[weighted.negative > 0].tolist()) == negatives
        assert survey.positives[place] == len(positives)
        assert survey.negatives[place] == (len(negatives) or 40 - len(matches))
        others = candidates.sample_other(np.full(200, q), rng.random(200), np.empty((0, 200), int))
        assert set(others.tolist()) <= set(range(40)) - matches
        assert len(set(others.tolist())) > 20


def test_with_the_power_0_neighbours_are_alike_and_empty_entries_none(tmp_path):
    ids = np.array([[A, F, G, -1, E]] * 6)
    neighbours = Neighbours.from_arrays(ids, np.array([[1, 0.9, 0.1, 0.5, 0]] * 6))
    candidates = ListedPairs(read(tmp_path, "a.jpg,b.jpg,1"), neighbours=neighbours, similarity_power=0)
    assert evenly(counts(candidates, A)[1], [F, G])
