"""Scores kept while scoring goes on: found again by the same call, and by no other."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ames.descriptors.local import DescriptorFile, create_local
from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.global_search.shortlist import Shortlist
from ames.models.ames import AMES
from ames.models.chamfer import Chamfer
from ames.reranking.score_cache import ScoreCache, scores_key
from ames.reranking.scorer import ComputeConfig, PairScorer
from ames.reranking.shortlist_scores import score_shortlist

QUERIES, GALLERY = 3, 40


def write(path, images, seed):
    generator = torch.Generator().manual_seed(seed)
    with create_local(path, images=images, slots=4, width=8) as write_row:
        for row in range(images):
            write_row(row, LocalFeatures.from_descriptors(torch.randn(4, 8, generator=generator)))
    return DescriptorFile(path)


@pytest.fixture
def files(tmp_path):
    return write(tmp_path / "q.hdf5", QUERIES, 0), write(tmp_path / "g.hdf5", GALLERY, 1)


@pytest.fixture
def shortlist():
    ids = np.stack([np.random.default_rng(q).permutation(GALLERY)[:20] for q in range(QUERIES)])
    return Shortlist(ids, np.zeros(ids.shape, np.float32))


class Counted(Chamfer):
    """Chamfer that counts its pairs and stops after some."""

    def __init__(self, most=10**9):
        super().__init__(local_dim=8)
        self.most, self.pairs_seen = most, 0

    def score_encoded(self, query, database):
        if self.pairs_seen >= self.most:
            raise KeyboardInterrupt
        self.pairs_seen += len(query.valid)
        return super().score_encoded(query, database)


def test_what_was_kept_is_found(tmp_path):
    kept = ScoreCache(tmp_path / "new" / "folder", "key")
    assert len(kept) == 0
    kept.append(np.array([0, 2, 2]), np.array([7, 5, 9]), np.float32([0.5, -1, 2]))
    kept.append(np.array([1]), np.array([7]), np.float32([3]))
    again = ScoreCache(tmp_path / "new" / "folder", "key")
    assert len(again) == 4
    ids = np.array([[7, 5, -1], [9, 7, 3], [9, 8, 5]])
    nan = np.nan
    np.testing.assert_array_equal(again.get(ids), [[0.5, nan, nan], [nan, 3, nan], [2, nan, -1]])
    assert len(ScoreCache(tmp_path / "new" / "folder", "other")) == 0
    again.clear()
    assert not list((tmp_path / "new" / "folder").iterdir())


def test_a_record_that_a_crash_cut_off_is_left_out(tmp_path):
    ScoreCache(tmp_path, "key").append(np.arange(3), np.arange(3), np.zeros(3))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    again = ScoreCache(tmp_path, "key")
    assert len(again) == 2
    again.append(np.array([2]), np.array([2]), np.ones(1))
    assert len(ScoreCache(tmp_path, "key")) == 3


def test_an_interrupted_call_continues(tmp_path, files, shortlist, monkeypatch):
    monkeypatch.setattr("ames.reranking.shortlist_scores._BLOCK_SLOTS", 20)
    expected = score_shortlist(PairScorer(Chamfer(local_dim=8)), *files, shortlist)
    stopped = Counted(most=25)
    with pytest.raises(KeyboardInterrupt):
        score_shortlist(PairScorer(stopped), *files, shortlist, cache=ScoreCache(tmp_path / "kept", "key"))
    kept = ScoreCache(tmp_path / "kept", "key")
    assert 0 < len(kept) <= stopped.pairs_seen
    rest = Counted()
    found = score_shortlist(PairScorer(rest), *files, shortlist, cache=kept)
    np.testing.assert_array_equal(found, expected)
    assert rest.pairs_seen == expected.size - len(kept)
    nothing = Counted(most=0)
    whole = score_shortlist(
        PairScorer(nothing), *files, shortlist, cache=ScoreCache(tmp_path / "kept", "key")
    )
    np.testing.assert_array_equal(whole, expected)


SCRIPT = """
import sys, time
from pathlib import Path
import numpy as np
sys.path.insert(0, {tests!r})
import test_score_cache as t
from ames.descriptors.local import DescriptorFile
folder = Path({folder!r})
class Slow(t.Counted):
    def score_encoded(self, query, database):
        time.sleep(0.02)
        return super().score_encoded(query, database)
import ames.reranking.shortlist_scores
ames.reranking.shortlist_scores._BLOCK_SLOTS = 8
ids = np.load(folder / "ids.npy")
shortlist = t.Shortlist(ids, np.zeros(ids.shape, np.float32))
files = DescriptorFile(folder / "q.hdf5"), DescriptorFile(folder / "g.hdf5")
t.score_shortlist(t.PairScorer(Slow()), *files, shortlist, cache=t.ScoreCache(folder / "kept", "key"))
"""


def test_a_killed_process_leaves_what_it_had(tmp_path, files, shortlist):
    np.save(tmp_path / "ids.npy", shortlist.ids)
    script = SCRIPT.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    while process.poll() is None and len(ScoreCache(tmp_path / "kept", "key")) < 9:
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = ScoreCache(tmp_path / "kept", "key")
    assert 9 <= len(kept) < shortlist.ids.size
    rest = Counted()
    found = score_shortlist(PairScorer(rest), *files, shortlist, cache=kept)
    np.testing.assert_array_equal(found, score_shortlist(PairScorer(Chamfer(local_dim=8)), *files, shortlist))
    assert rest.pairs_seen == found.size - len(kept)


def test_scores_that_another_call_forgets_meanwhile(tmp_path, monkeypatch):
    gone = tmp_path / "key-1.scores"
    monkeypatch.setattr(type(tmp_path), "glob", lambda folder, pattern: [gone])
    assert len(ScoreCache(tmp_path, "key")) == 0


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AmesError, match="cannot be written"):
        ScoreCache(tmp_path / "file" / "kept", "key").append(np.arange(1), np.arange(1), np.zeros(1))


def test_the_key_is_of_all_that_the_scores_depend_on(tmp_path, files):
    def key(model=None, compute=None, files=files, **counts):
        counts = {"query_count": 4, "database_count": 3} | counts
        scorer = PairScorer(model or Chamfer(local_dim=8), compute)
        return scores_key(scorer, files, tuple(counts.values()))

    def ames(seed=0, **arguments):
        torch.manual_seed(seed)
        return AMES(local_dim=8, model_dim=8, num_encoder_layers=1, dim_feedforward=8, **arguments)

    assert key() == key()
    assert key(ames()) == key(ames())
    changed = [
        key(),
        key(query_count=3),
        key(database_count=4),
        key(Chamfer(local_dim=8, symmetric=True)),
        key(compute=ComputeConfig(precision="bf16")),
        key(ames()),
        key(ames(seed=1)),
        key(ames(nhead=4)),
        key(ames(activation="gelu")),
        key(files=files[::-1]),
    ]
    os.utime(files[1].path, ns=(1, 1))
    changed.append(key())
    assert len(set(changed)) == len(changed)
    same = ComputeConfig(batch_size=3, devices=("cpu", "cpu"))
    assert key(compute=same) == key(compute=replace(same, batch_size=None))
