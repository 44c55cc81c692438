"""The released code's figures from every layout and from the pickles; codes score as what they code."""

import numpy as np
import pytest
import torch

from ames.datasets.ground_truth import load_ground_truth
from ames.descriptors.local import DescriptorFile
from ames.errors import AmesError
from ames.evaluation.protocols import HARD, MEDIUM
from ames.evaluation.sweep import Grid, Reranked, needed, sweep
from ames.features import LocalFeatures
from ames.global_search.shortlist import Shortlist
from ames.models.ames import AMES
from ames.models.chamfer import Chamfer
from ames.models.checkpoints import load_model
from ames.reranking.scorer import PairScorer
from ames.reranking.shortlist_scores import score_shortlist
from golden import data_root, rebuild

FULL, BINARY = rebuild.cases("evaluate.json")
TOLERANCE = 0.02  # mAP points
PROTOCOLS = (MEDIUM, HARD)


def checkpoint(path, case):
    """A checkpoint as the released ones are, read with nothing but its path."""
    wanted = rebuild.arguments(case["model"])
    state = rebuild.state(rebuild.shapes(**wanted), case["model"]["seed"])
    torch.save({"state": state, "optim": {}, "epoch": 0}, path)
    return load_model(path)


def packer(model):
    """Descriptors -> codes of the binary model."""

    def pack(x):
        local = LocalFeatures.from_descriptors(torch.from_numpy(x))
        with torch.inference_mode():
            return model.compress(local).descriptors.numpy()

    return pack


def scores(folder, model, case, queries=None):
    """Ground truth, shortlist, and logits of what the rows of a case need; queries: from another folder."""
    truth = load_ground_truth(folder.find_ground_truth())
    shortlist = Shortlist.load(folder.find_shortlist(), gallery_size=len(truth.imlist))
    files = DescriptorFile((queries or folder).local("query")), DescriptorFile(folder.local("gallery"))
    mask = needed(shortlist, truth, PROTOCOLS, {row["num_rerank"] for row in case["rows"]})
    logits = score_shortlist(
        PairScorer(model),
        *files,
        shortlist.where(mask),
        query_count=case["query_desc_num"],
        database_count=case["db_desc_num"],
    )
    return truth, shortlist, logits


def assert_golden(case, truth, shortlist, logits):
    grid = {key: sorted({row[key] for row in case["rows"]}) for key in ("num_rerank", "lamb", "temp")}
    rows = sweep(Reranked(shortlist, logits, truth, PROTOCOLS), Grid(**grid))
    found = {(row["num_rerank"], row["lamb"], row["temp"]): row for row in rows}
    for row in case["rows"]:
        mine = found[row["num_rerank"], row["lamb"], row["temp"]]
        for key in ("M_map", "H_map"):
            assert mine[key] == pytest.approx(row[key], abs=TOLERANCE), (row, key)


@pytest.mark.parametrize(
    ("layout", "storage"),
    [
        ("float32", {}),
        ("compound", {}),
        ("compound by image", {}),
        ("compound", {"chunks": (64, 12), "compression": "gzip"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_the_released_code_s_figures_from_every_layout(tmp_path, layout, storage):
    folder = data_root.make(tmp_path, FULL, layout=layout, pickles=True, **storage)
    assert folder.find_shortlist().suffix == folder.find_ground_truth().suffix == ".pkl"
    model = checkpoint(tmp_path / "dinov2_ames.pt", FULL)
    assert_golden(FULL, *scores(folder, model, FULL))


def test_the_released_code_s_figures_from_packed_codes(tmp_path):
    """Codes in place of descriptors, in the gallery, in the queries, in both: the very same scores."""
    model = checkpoint(tmp_path / "dinov2_ames_dist.pt", BINARY)
    plain = data_root.make(tmp_path / "plain", BINARY, layout="compound", pickles=True)
    by_image = data_root.make(
        tmp_path / "image", BINARY, layout="compound by image", pack=packer(model), pickles=True
    )
    packed = data_root.make(tmp_path / "packed", BINARY, layout="compound", pack=packer(model), pickles=True)
    expected = scores(plain, model, BINARY)
    assert_golden(BINARY, *expected)
    for gallery, queries in ((packed, packed), (by_image, plain), (plain, by_image)):
        np.testing.assert_array_equal(scores(gallery, model, BINARY, queries)[2], expected[2])


# ---- packed files and the models that take them -------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    """A binary model, unpadded descriptors of it, and their codes in the bare layout."""
    torch.manual_seed(0)
    model = AMES(local_dim=8, model_dim=16, num_encoder_layers=1, dim_feedforward=16, binarized=True).eval()
    x = np.random.default_rng(0).standard_normal((5, 6, 8)).astype(np.float32)
    for name, layout, pack in (("plain", "float32", None), ("bare", "bare", packer(model))):
        data_root.write_local(tmp_path / name, x, np.random.default_rng(1), 1, False, layout, pack)
    return model, DescriptorFile(tmp_path / "plain"), DescriptorFile(tmp_path / "bare")


SHORTLIST = Shortlist(np.tile(np.arange(5), (5, 1)), np.ones((5, 5), np.float32))


def test_bits_without_metadata(files):
    model, plain, bare = files
    expected = score_shortlist(PairScorer(model), plain, plain, SHORTLIST, query_count=5, database_count=3)
    for queries, gallery in ((bare, bare), (bare, plain), (plain, bare)):
        found = score_shortlist(
            PairScorer(model), queries, gallery, SHORTLIST, query_count=5, database_count=3
        )
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (AMES(local_dim=8, model_dim=8, num_encoder_layers=1, dim_feedforward=8), "takes no packed bits"),
        (AMES(local_dim=16, model_dim=8, num_encoder_layers=1, binarized=True), "but the model takes 8;"),
        (Chamfer(local_dim=16), "takes no packed bits"),
    ],
    ids=["full precision", "other bits", "chamfer"],
)
@pytest.mark.parametrize("side", ["queries", "gallery"])
def test_bits_of_another_model(files, model, message, side):
    _, plain, bare = files
    pair = (bare, plain) if side == "queries" else (plain, bare)
    with pytest.raises(AmesError, match=f"bare: holds descriptors packed to 16 bits, .*{message}"):
        score_shortlist(PairScorer(model), *pair, SHORTLIST)
