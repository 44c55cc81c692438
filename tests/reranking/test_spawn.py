"""What is handed to worker processes works there under the start method spawn (the only one on Windows)."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch

from ames.descriptors.local import DescriptorFile, create_local
from ames.features import LocalFeatures
from ames.global_search.shortlist import Shortlist
from ames.models.ames import AMES
from ames.reranking.scorer import PairScorer
from ames.reranking.shortlist_scores import score_shortlist

QUERIES, GALLERY, SLOTS, WIDTH = 4, 9, 6, 16


def score(model, queries, gallery, shortlist, mask):
    torch.set_num_threads(1)
    return score_shortlist(
        PairScorer(model), queries, gallery, shortlist.where(mask), query_count=5, database_count=4
    )


@pytest.fixture(scope="module")
def pool():
    """Two spawned workers, which import everything once."""
    with ProcessPoolExecutor(2, get_context("spawn")) as workers:
        yield workers


@pytest.mark.parametrize("binarized", [False, True])
def test_two_spawned_workers_score_as_none(tmp_path, pool, binarized):
    rng = np.random.default_rng(0)
    files = []
    for name, images in (("query", QUERIES), ("gallery", GALLERY)):
        path = tmp_path / f"{name}.hdf5"
        with create_local(path, images=images, slots=SLOTS, width=WIDTH) as write_row:
            for row in range(images):
                count = int(rng.integers(1, SLOTS + 1))
                write_row(
                    row, LocalFeatures.from_descriptors(torch.from_numpy(rng.standard_normal((count, WIDTH))))
                )
        files.append(DescriptorFile(path))
    files[1].read([0])  # opened here: what is open must not travel
    torch.manual_seed(0)
    model = AMES(local_dim=WIDTH, model_dim=16, num_encoder_layers=2, dim_feedforward=32, binarized=binarized)
    ids = np.stack([rng.permutation(GALLERY) for _ in range(QUERIES)])
    shortlist = Shortlist(ids, np.zeros(ids.shape, np.float32))
    half = np.zeros(ids.shape, bool)
    half[::2] = True
    jobs = [pool.submit(score, model.eval(), *files, shortlist, mask) for mask in (half, ~half)]
    spawned = np.where(half, *(job.result() for job in jobs))
    alone = score(model.eval(), *files, shortlist, half | ~half)
    assert np.isfinite(alone).all()
    np.testing.assert_allclose(spawned, alone, rtol=0, atol=1e-6)  # other candidates trim to other lengths
