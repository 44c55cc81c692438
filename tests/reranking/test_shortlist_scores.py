"""Re-ranking: small cases worked out by hand, and how often a model and a file are asked."""

import numpy as np
import pytest
import torch

from ames.datasets.ground_truth import GroundTruth
from ames.descriptors.local import DescriptorFile, create_local
from ames.errors import AmesError
from ames.evaluation.protocols import EASY, HARD, MEDIUM
from ames.evaluation.sweep import needed
from ames.features import LocalFeatures
from ames.global_search.shortlist import Shortlist
from ames.models.ames import AMES
from ames.models.base import PairSimilarity
from ames.models.chamfer import Chamfer
from ames.reranking.fusion import Fusion, junk_behind, rerank
from ames.reranking.scorer import ComputeConfig, PairScorer
from ames.reranking.shortlist_scores import score_shortlist


def shortlist_of(*rows):
    ids = np.array(rows)
    return Shortlist(ids, np.tile(np.linspace(1, 0.1, ids.shape[1], dtype=np.float32), (len(ids), 1)))


def test_junk_and_empty_entries_move_behind():
    ids = np.array([[5, 2, 9, 7, -1, 3], [1, 2, 3, 4, 5, 6]])
    columns = junk_behind(ids, [np.array([2, 7]), np.array([], dtype=int)])
    assert np.take_along_axis(ids, columns, 1).tolist() == [[5, 9, 3, 2, 7, -1], [1, 2, 3, 4, 5, 6]]


def test_junk_is_behind_before_the_cut():
    shortlist = shortlist_of([5, 2, 9, 7])
    logits = np.float32([[0, np.nan, 1, 2]])
    ranking = rerank(shortlist, logits, [np.array([2])], num_rerank=2, fusion=Fusion(0.0, 1.0))
    assert ranking.tolist() == [[9, 5, 7, 2]]  # 5 and 9 are re-ranked, 7 keeps its place, 2 is junk
    ranking = rerank(shortlist, logits, [np.array([2])], num_rerank=3, fusion=Fusion(0.0, 1.0))
    assert ranking.tolist() == [[7, 9, 5, 2]]


def test_ties_keep_the_order_of_the_shortlist():
    shortlist = shortlist_of([4, 3, 2, 1, 0])
    logits = np.float32([[1, 2, 1, 2, 1]])
    ranking = rerank(shortlist, logits, [np.array([], int)], num_rerank=5, fusion=Fusion(0.0, 1.0))
    assert ranking.tolist() == [[3, 1, 4, 2, 0]]


def test_empty_entries_stay_last():
    shortlist = Shortlist(np.array([[4, -1, 2]]), np.float32([[0.1, 9, 0.2]]))
    logits = np.float32([[-5, np.nan, 5]])
    ranking = rerank(shortlist, logits, [np.array([], int)], num_rerank=3, fusion=Fusion(0.5, 1.0))
    assert ranking.tolist() == [[2, 4, -1]]


def test_an_entry_that_was_not_scored_is_no_silent_last():
    shortlist = shortlist_of([1, 0])
    with pytest.raises(ValueError, match="not scored"):
        rerank(
            shortlist, np.float32([[1, np.nan]]), [np.array([], int)], num_rerank=2, fusion=Fusion(0.5, 1.0)
        )


def test_fusion_is_equation_6():
    s, x = np.float32([0.3, 0.9, -0.2]), np.float32([2, -1, 0])
    for lamb, gamma in ((0.0, 1.0), (0.55, 0.3), (1.0, 5.0)):
        expected = lamb * s + (1 - lamb) / (1 + np.exp(-gamma * x))
        np.testing.assert_allclose(Fusion(lamb, gamma).fuse(s, x), expected, atol=1e-6)
    extreme = Fusion(0.0, 20.0).fuse(np.zeros(2), np.float32([-1e4, 1e4]))
    assert extreme.tolist() == [0, 1]


def test_needed_is_exactly_the_union():
    rng = np.random.default_rng(0)
    queries = [
        dict(zip(("easy", "hard", "junk"), np.split(rng.permutation(20)[:9], 3), strict=True))
        for _ in range(4)
    ]
    truth = GroundTruth(queries, [str(i) for i in range(20)], list("abcd"))
    ids = np.stack([rng.permutation(20)[:15] for _ in range(4)])
    ids[0, 3] = -1
    shortlist = shortlist_of(*ids)
    protocols, ks = (EASY, MEDIUM, HARD), (3, 6)
    expected = np.zeros(ids.shape, bool)
    junk_keys = {EASY: ("junk", "hard"), MEDIUM: ("junk",), HARD: ("junk", "easy")}
    for q, query in enumerate(queries):
        for protocol in protocols:
            junk = np.concatenate([query[key] for key in junk_keys[protocol]])
            kept = [c for c in range(15) if ids[q, c] >= 0 and ids[q, c] not in junk]
            rest = [c for c in range(15) if ids[q, c] >= 0 and c not in kept]
            expected[q, (kept + rest)[: max(ks)]] = True
    np.testing.assert_array_equal(needed(shortlist, truth, protocols, ks), expected)


class Recorder(PairSimilarity):
    """Logit = 100 * query's number + gallery image's number, which its descriptors hold; notes each pair."""

    code_bytes = 4

    def __init__(self):
        super().__init__()
        self.pairs_seen, self.compressed, self.widest = [], [], 0

    def tokens(self, local):
        return local

    def compress(self, local):
        self.compressed += local.descriptors[:, 0, 0].tolist()
        return local

    def expand(self, codes):
        return codes

    def score_encoded(self, query, database):
        found = 100 * query.descriptors[:, 0, 0] + database.descriptors[:, 0, 0]
        self.pairs_seen += found.tolist()
        self.widest = max(self.widest, len(found))
        return found


def numbered(path, images, slots=3):
    with create_local(path, images=images, slots=slots, width=2) as write_row:
        for row in range(images):
            write_row(row, LocalFeatures.from_descriptors(torch.full((1 + row % slots, 2), float(row))))
    return DescriptorFile(path)


@pytest.fixture
def files(tmp_path):
    return numbered(tmp_path / "q.hdf5", 4), numbered(tmp_path / "g.hdf5", 30)


def test_a_pair_is_scored_once_and_a_gallery_image_read_once(files, monkeypatch):
    queries, gallery = files
    monkeypatch.setattr(
        "ames.reranking.shortlist_scores._BLOCK_SLOTS", 4 * gallery.slots
    )  # several reads of a small gallery
    monkeypatch.setattr("ames.reranking.shortlist_scores._QUERY_SLOTS", 99)
    read = []
    original = DescriptorFile.read

    def counted(self, rows, count=None, **options):
        if self is gallery:
            read.extend(int(row) for row in rows)
        return original(self, rows, count, **options)

    monkeypatch.setattr(DescriptorFile, "read", counted)
    rng = np.random.default_rng(0)
    ids = np.stack([rng.permutation(30)[:12] for _ in range(4)])
    ids[1, 5] = -1
    shortlist, mask = shortlist_of(*ids), rng.random(ids.shape) < 0.6
    mask[2] = False  # a query without any candidate
    model = Recorder()
    logits = score_shortlist(
        PairScorer(model, ComputeConfig(batch_size=5)), queries, gallery, shortlist.where(mask)
    )
    wanted = mask & (ids >= 0)
    expected = np.where(wanted, 100 * np.arange(4)[:, None] + ids, np.nan)
    np.testing.assert_array_equal(logits, expected.astype(np.float32))
    assert sorted(model.pairs_seen) == sorted(expected[wanted].tolist())
    assert read == sorted(set(ids[wanted].tolist()))  # once each, in the order of the file
    assert model.compressed == read
    assert model.widest <= 5


def test_without_a_mask_every_entry_is_scored(files):
    ids = np.array([[3, -1], [4, 5], [6, 7], [8, 9]])
    logits = score_shortlist(PairScorer(Recorder()), *files, shortlist_of(*ids))
    np.testing.assert_array_equal(logits[:2], [[3, np.nan], [104, 105]])


def test_nothing_to_score(files):
    shortlist = shortlist_of([-1, -1], [-1, -1], [-1, -1], [-1, -1])
    assert np.isnan(score_shortlist(PairScorer(Recorder()), *files, shortlist)).all()
    shortlist = shortlist_of([1, 2], [1, 2], [1, 2], [1, 2])
    assert np.isnan(
        score_shortlist(PairScorer(Recorder()), *files, shortlist.where(np.zeros((4, 2), bool)))
    ).all()


@pytest.mark.parametrize("binarized", [False, True])
def test_scores_are_the_model_s_own(tmp_path, binarized):
    """Images of unequal counts, one without descriptors, in small chunks, against one pair at a time."""
    torch.manual_seed(0)
    model = AMES(local_dim=8, model_dim=8, num_encoder_layers=2, dim_feedforward=16, binarized=binarized)
    model.eval()
    counts = {"q": [4, 2, 6], "g": [6, 3, 0, 5, 1]}
    files = []
    for name, sizes in counts.items():
        with create_local(tmp_path / name, images=len(sizes), slots=6, width=8, dtype="float32") as write_row:
            for row, size in enumerate(sizes):
                write_row(row, LocalFeatures.from_descriptors(torch.randn(size, 8)))
        files.append(DescriptorFile(tmp_path / name))
    ids = np.array([[4, 3, 2, 1, 0], [0, 1, 2, 3, 4], [2, 0, 4, 1, 3]])
    logits = score_shortlist(
        PairScorer(model, ComputeConfig(batch_size=2)),
        *files,
        shortlist_of(*ids),
        query_count=5,
        database_count=4,
    )
    with torch.inference_mode():
        for q, row in enumerate(ids):
            query = files[0].read([q], 5)
            for column, image in enumerate(row):
                candidate = model.compress(files[1].read([image], 4))
                score = model.pairs_tokens(model.tokens(query), model.expand(candidate))
                assert logits[q, column] == pytest.approx(float(score), abs=1e-5)


def test_an_image_without_descriptors_is_the_least_similar(tmp_path):
    with create_local(tmp_path / "x", images=3, slots=4, width=8) as write_row:
        for row in (0, 2):
            write_row(row, LocalFeatures.from_descriptors(torch.ones(3, 8)))
    file = DescriptorFile(tmp_path / "x")
    logits = score_shortlist(PairScorer(Chamfer(local_dim=8)), file, file, shortlist_of(*[[0, 1, 2]] * 3))
    assert logits[0].tolist() == pytest.approx([1, -1, 1], abs=1e-4)
    assert logits[1].tolist() == [-1, -1, -1]


def test_a_score_that_is_not_finite_is_an_error(files):
    class Broken(Recorder):
        def score_encoded(self, query, database):
            return super().score_encoded(query, database) * float("nan")

    with pytest.raises(AmesError, match=r"q.hdf5 \(query 0\), .*g.hdf5 \(image 1\): their score is nan"):
        score_shortlist(PairScorer(Broken()), *files, shortlist_of(*[[1, 2]] * 4))
