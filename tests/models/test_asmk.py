"""ASMK as a pair model: the scores of the inverted file and of the released code, its codes, its codebook."""

import numpy as np
import pytest
import torch

from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.local_search.codebook import Codebook
from ames.local_search.inverted_file import InvertedFile
from ames.models.asmk import ASMK, FUSION, asmk_from_codebook
from ames.models.checkpoints import load_model, save_weights
from ames.models.load import load
from ames.reranking.fusion import Fusion
from ames.reranking.reranker import Reranker
from golden import asmk

SINGLE = [case for case in asmk.CASES if case["db_assign"] == 1]


def model_of(case, binary, **changes):
    same = {name: case[name] for name in ("words", "query_assign", "alpha", "threshold")}
    model = ASMK(local_dim=case["dim"], binary=binary, **same | changes).eval()
    model.centroids.copy_(torch.from_numpy(asmk.codebook(case).centroids))
    return model


def scores(model, queries, images):
    """float [Q, n], of queries [Q, N, D] and database images [n, M, D], as they are stored."""
    with torch.inference_mode():
        stored = model.expand(model.compress(images))
        lists = stored.map(lambda x: x.expand(len(queries.valid), *x.shape))
        return model.score_tokens(model.tokens(queries), lists)


@pytest.mark.parametrize("binary", [False, True], ids=["real", "binary"])
@pytest.mark.parametrize("case", SINGLE, ids=lambda case: case["name"])
def test_scores_of_the_released_code_and_of_the_inverted_file(case, binary):
    model, kernel = model_of(case, binary), asmk.kernel(case, binary)
    images, queries = map(asmk.local, asmk.image_sets(case))
    found = scores(model, queries, images)
    expected = torch.tensor(case["binary" if binary else "real"]["scores"])
    torch.testing.assert_close(found, expected, atol=1e-5 if binary else 1e-3, rtol=0)  # fp16 codes
    index = InvertedFile(asmk.codebook(case), kernel)
    index.add(images)
    own = np.stack([*index.scores(queries)])
    np.testing.assert_allclose(found, own, atol=1e-6 if binary else 1e-3)
    if case["query_assign"] == 1:  # tokens of both sides are then the same, without codes
        lists = images.map(lambda x: x.expand(len(queries.valid), *x.shape))
        torch.testing.assert_close(model.score(queries, lists), expected, atol=1e-5, rtol=0)


def test_bits_of_dimensions_alone():
    case = next(case for case in SINGLE if case["dim"] % 32)
    images, queries = map(asmk.local, asmk.image_sets(case))
    index = InvertedFile(asmk.codebook(case), asmk.kernel(case, True, released_padding=False))
    index.add(images)
    found = scores(model_of(case, True, released_padding=False), queries, images)
    np.testing.assert_allclose(found, np.stack([*index.scores(queries)]), atol=1e-6)


@pytest.mark.parametrize("binary", [False, True], ids=["real", "binary"])
def test_a_code_is_a_word_and_its_vector(binary):
    """Two descriptors share word 1, one has word 0; words are in rising order."""
    model = ASMK(words=5000, local_dim=10, query_assign=1, binary=binary).eval()
    model.centroids.zero_()
    model.centroids[:, 0] = 1e3  # far away
    model.centroids[4999], model.centroids[7] = torch.eye(10)[1], torch.eye(10)[2]
    x = torch.zeros(1, 4, 10)
    x[0, 0, 1], x[0, 0, 3] = 1, 0.5  # in word 4999: residual 0.5 of axis 3
    x[0, 1, 2], x[0, 1, 9] = 1, 2  # in word 7: residual 2 of axis 9
    x[0, 2, 1], x[0, 2, 3], x[0, 2, 4] = 1, 0.5, -1  # in word 4999
    valid = torch.tensor([[True, True, True, False]])
    codes = model.compress(LocalFeatures(x, valid))
    assert codes.valid.tolist() == [[True, True, False, False]]
    if binary:
        assert model.code_bytes == 6
        # 4999 = 135 + 19 * 256; the sum of residuals is above 0 in dimension 3, and in 9.
        assert codes.descriptors[0, :2].tolist() == [[7, 0, 0, 0, 0, 64], [135, 19, 0, 0, 16, 0]]
    else:
        assert model.code_bytes == 24
        expected = torch.zeros(2, 12)
        expected[0, 9], expected[0, 11] = 1, 7
        expected[1, 3], expected[1, 4] = 0.5**0.5, -(0.5**0.5)
        expected[1, 10], expected[1, 11] = 4, 903
        torch.testing.assert_close(codes.descriptors[0, :2].float(), expected, atol=1e-3, rtol=0)
    tokens = model.expand(codes)
    assert tokens.descriptors[0, :2, 10].tolist() == [-8, -5000]
    encoded = model.encode(tokens)
    assert encoded.descriptors[0, :2, 10].tolist() == [7, 4999]


def test_scores_are_0_without_a_common_word_and_1_of_the_same_image():
    model = ASMK(words=8, local_dim=8, query_assign=1, binary=False).eval()
    model.centroids.copy_(torch.eye(8))
    image = LocalFeatures.from_descriptors(1.5 * torch.eye(8)[None, :3])
    other = LocalFeatures.from_descriptors(1.5 * torch.eye(8)[None, 4:7])
    torch.testing.assert_close(model.pairs(image, image), torch.ones(1), atol=1e-4, rtol=0)
    assert model.pairs(image, other).tolist() == [0]
    nothing = LocalFeatures.from_descriptors(torch.empty(1, 0, 8))
    assert model.pairs(nothing, image).tolist() == model.pairs(image, nothing).tolist() == [0]


def test_codes_of_another_codebook_are_refused():
    codes = ASMK(words=300, local_dim=8, query_assign=1).compress(
        LocalFeatures.from_descriptors(torch.from_numpy(asmk.drawn((1, 200, 8), 1)))
    )
    with pytest.raises(AmesError, match=r"a code names word .* the codebook has 5"):
        ASMK(words=5, local_dim=8).expand(codes)


def test_a_codebook_is_made_of_data_and_kept(tmp_path):
    x = asmk.unit(asmk.drawn((300, 12), 1))
    model = ASMK(words=20, local_dim=12)
    model.fit_projection(torch.from_numpy(x), seed=3)
    codebook = Codebook.train(x, 20, seed=3)
    np.testing.assert_array_equal(model.centroids, codebook.centroids)
    path = codebook.save(tmp_path / "x.npz")
    made = asmk_from_codebook(path, binary=False, alpha=2.0)
    assert made.arguments["words"] == 20
    assert made.kernel.alpha == 2
    assert made.fingerprint() != model.fingerprint()
    save_weights(tmp_path / "x.safetensors", made, provenance={"blend": FUSION, "backbone": "rootsift"})
    found = load(tmp_path / "x.safetensors", backbone="rootsift")
    np.testing.assert_array_equal(found.model.centroids, codebook.centroids)
    assert found.model.arguments == made.arguments
    assert Reranker(tmp_path / "x.safetensors").fusion == Fusion(0.3, 400.0)
    assert load_model(tmp_path / "x.safetensors").fingerprint() == made.fingerprint()
    with pytest.raises(AmesError, match="19 descriptors are too few for 20 words"):
        model.fit_projection(torch.from_numpy(x[:19]))


@pytest.mark.parametrize("wrong", [{"words": 4}, {"words": 3_000_000}, {"alpha": -1.0}, {"threshold": 2.0}])
def test_arguments_that_are_refused(wrong):
    with pytest.raises(AmesError, match=next(iter(wrong))):
        ASMK(local_dim=8, **wrong)
