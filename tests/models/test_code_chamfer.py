"""Chamfer similarity of a model's tokens, from its codes."""

import numpy as np
import pytest
import torch

from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.models.code_chamfer import CodeChamfer
from ames.models.load import load_model
from ames.models.rrt import RRT
from helpers import databases


def chamfer(query, database):
    """The definition, with loops."""
    total = 0.0
    for x in query:
        total += max(float(x @ y / np.linalg.norm(x) / np.linalg.norm(y)) for y in database)
    return total / len(query)


@pytest.mark.parametrize("binarized", [True, False])
def test_scores_are_those_of_the_models_tokens(binarized):
    base = databases.model(binarized=binarized)
    model = CodeChamfer(base).eval()
    generator = torch.Generator().manual_seed(3)
    query = LocalFeatures.from_descriptors(torch.randn(2, 5, databases.WIDTH, generator=generator))
    images = LocalFeatures.from_descriptors(torch.randn(2, 4, databases.WIDTH, generator=generator))
    with torch.inference_mode():
        found = model.pairs_tokens(model.tokens(query), model.expand(model.compress(images))).numpy()
        x = base.tokens(query).descriptors.numpy()
        y = base.expand(base.compress(images)).descriptors.numpy()
    assert found == pytest.approx([chamfer(x[i], y[i]) for i in range(2)], abs=1e-5)


def test_a_database_of_the_model_serves_both(tmp_path):
    database, _ = databases.database(tmp_path)
    model = CodeChamfer(databases.model())
    database.check_model(model)
    assert model.fingerprint() == databases.model().fingerprint()
    assert (model.code_bytes, model.code_bits) == (databases.model().code_bytes, 16)
    with pytest.raises(AmesError, match="made by another projection"):
        database.check_model(CodeChamfer(databases.model(seed=1)))


def test_a_model_that_reads_more_than_descriptors_is_refused():
    with pytest.raises(AmesError, match="its codes alone have no Chamfer"):
        CodeChamfer(RRT(global_dim=8, num_layers=1))
    assert CodeChamfer(load_model("rootsift_elvis")).base.local_dim == 128
