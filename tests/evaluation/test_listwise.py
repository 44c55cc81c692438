"""A list-wise model in evaluation: a list for each protocol and length, scored once, stored and resumed."""

import h5py
import numpy as np
import pytest

from ames.descriptors.local import DescriptorFile
from ames.errors import AmesError
from ames.evaluation.evaluate import Scoring, choose, evaluate_run, evaluate_test_set
from ames.evaluation.protocols import HARD, MEDIUM, REVISITED, evaluate
from ames.evaluation.runs import Run
from ames.evaluation.sweep import Grid, junk_ids
from ames.evaluation.test_set import open_test_set
from ames.global_search.shortlist import Shortlist
from ames.reranking.fusion import Fusion
from ames.reranking.list_scorer import ListScorer
from ames.reranking.windows import Windows
from helpers import small_sets
from helpers.listwise import ToyList

GRID = Grid([4, 11], [0.2, 0.8], [0.5, 3.0])
WINDOWS = Windows(route="start-to-end-to-start", stride=3)


@pytest.fixture
def opened(tmp_path):
    """A model that reads six candidates, and a test set."""
    folder = small_sets.made(tmp_path / "set", gallery=40)
    model = ToyList(local_dim=8, window=6, price=0.05)
    return model, open_test_set(folder, model)


def scoring(**options):
    return Scoring(query_count=5, database_count=4, windows=WINDOWS, **options)


def by_hand(model, test, protocol, k, fusion):
    """The ranking of every query, written out."""
    scorer = ListScorer(model)
    queries, gallery = (DescriptorFile(file.path) for file in (test.queries, test.gallery))
    rankings = []
    for query, junk in enumerate(junk_ids(test.ground_truth, protocol)):
        ids, similarities = test.shortlist.ids[query], test.shortlist.similarities[query]
        behind = np.isin(ids, junk)
        order = np.concatenate((np.flatnonzero(~behind), np.flatnonzero(behind)))
        ids, similarities = ids[order], similarities[order]
        head, near = ids[:k].copy(), similarities[:k].copy()
        for start in WINDOWS.starts(k, 6):
            part = slice(start, start + 6)
            images = gallery.read(head[part], 4).map(lambda x: x[None])
            logits = scorer.score(queries.read([query], 5), images)[0]
            best = np.argsort(-fusion.fuse(near[part], logits), kind="stable")
            head[part], near[part] = head[part][best], near[part][best]
        rankings.append(np.concatenate((head, ids[k:])))
    return np.stack(rankings)


def test_every_row_is_the_one_by_hand(opened):
    model, test = opened
    rows = evaluate_test_set(test, model, REVISITED, scoring(), GRID).results["rows"]
    assert len(rows) == 8
    for row in rows:
        fusion = Fusion(row["lamb"], row["temp"])
        for protocol, key in ((MEDIUM, "M_map"), (HARD, "H_map")):
            ranking = by_hand(model, test, protocol, row["num_rerank"], fusion)
            expected = evaluate(ranking, test.ground_truth, protocol).map
            assert row[key] == pytest.approx(expected, abs=1e-3), row
    assert len({row["M_map"] for row in rows}) > 2  # the combinations are different


def test_a_list_is_scored_once_and_lists_of_protocols_are_their_own(opened, monkeypatch):
    model, test = opened
    seen = []
    score = ListScorer.score

    def watched(self, queries, candidates):
        seen.append((queries.descriptors.numpy().tobytes(), candidates.descriptors.numpy().tobytes()))
        return score(self, queries, candidates)

    monkeypatch.setattr(ListScorer, "score", watched)
    short = Grid([4], [0.2, 0.5, 0.8], [0.5, 3.0])
    evaluation = evaluate_test_set(test, model, (MEDIUM, HARD), scoring(), short)
    assert len(seen) == len(set(seen))  # whatever the fusion
    lists = {
        (query, tuple(np.concatenate((ids[~np.isin(ids, junk)], ids[np.isin(ids, junk)]))[:4]))
        for protocol in (MEDIUM, HARD)
        for query, (ids, junk) in enumerate(
            zip(test.shortlist.ids, junk_ids(test.ground_truth, protocol), strict=True)
        )
    }
    assert len(test.shortlist.ids) < len(seen) == len(lists)
    assert set(evaluation.run.scores.known) == {(query, *ids) for query, ids in lists}


def test_a_finished_run_answers_what_it_scored(opened, tmp_path):
    model, test = opened
    results = evaluate_test_set(test, model, REVISITED, scoring(), GRID).save(tmp_path / "run")
    run = Run.load(tmp_path / "run")
    assert evaluate_run(run)[1:] == results["rows"]
    # A list that fits the model was scored whole: every fusion follows from it. Windows do not.
    other = evaluate_run(run, num_rerank=[4], lamb=[0.55], temp=[1.0])[1]
    assert (
        other
        == evaluate_test_set(test, model, REVISITED, scoring(), Grid([4], [0.55], [1.0])).results["rows"][0]
    )
    with pytest.raises(
        AmesError, match="a list of 6 was not scored: the run scored what it re-ranks up to 11"
    ):
        evaluate_run(run, num_rerank=[11], lamb=[0.0], temp=[20.0])


def test_an_interrupted_call_resumes_with_its_scores(opened, tmp_path, monkeypatch):
    model, test = opened
    whole = evaluate_test_set(test, model, REVISITED, scoring(), GRID).results["rows"]
    calls = []
    score = ListScorer.score

    def counted(self, *sides):
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        calls.append(1)
        return score(self, *sides)

    monkeypatch.setattr(ListScorer, "score", counted)
    kept = scoring(score_cache=tmp_path / "cache")
    stop_at = 15
    with pytest.raises(KeyboardInterrupt):
        evaluate_test_set(test, model, REVISITED, kept, GRID)
    stop_at = None
    again = evaluate_test_set(test, model, REVISITED, kept, GRID)
    assert again.results["rows"] == whole
    total = len(again.run.scores.known)
    assert len(calls) == total  # 15 of them before the interruption
    again.save(tmp_path / "run")
    assert not list((tmp_path / "cache").iterdir())


def test_a_validation_split_chooses(opened):
    model, test = opened
    choice = choose(test, model, (MEDIUM,), scoring(), num_rerank=[4])
    rows = evaluate_test_set(test, model, (MEDIUM,), scoring(), Grid([4])).results["rows"]
    assert choice.reached == pytest.approx(max(row["M_map"] for row in rows), abs=0.5)
    assert choice.metrics["val_map"] == pytest.approx(choice.reached)


def test_entries_that_are_missing_stay_behind(opened):
    model, test = opened
    ids, similarities = test.shortlist.ids.copy(), test.shortlist.similarities
    ids[0, 7:], ids[1, :] = -1, -1
    object.__setattr__(test, "shortlist", Shortlist(ids, similarities))
    rows = evaluate_test_set(test, model, REVISITED, scoring(), Grid([11], [0.5], [1.0])).results["rows"]
    assert np.isfinite(rows[0]["M_map"])


def test_descriptors_that_are_not_finite_name_their_image(opened):
    model, test = opened
    row = int(test.shortlist.ids[0, 0])
    with h5py.File(test.gallery.path, "r+") as file:
        features = file["features"][row]
        features[..., -1] = np.nan
        file["features"][row] = features
    test = open_test_set(test.folder, model)
    with pytest.raises(AmesError, match=rf"gallery_local.hdf5: the descriptors of image {row}.* hold values"):
        evaluate_test_set(test, model, REVISITED, scoring(), GRID)
