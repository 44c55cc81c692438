"""The scorer: the model's own scores whatever the chunks, devices and formats; memory that runs out."""

import numpy as np
import pytest
import torch

from ames.errors import AmesError, NotFiniteError
from ames.features import LocalFeatures
from ames.models.ames import AMES
from ames.models.chamfer import Chamfer
from ames.precision import Rates, int8_is_exact
from ames.reranking import scorer as scoring
from ames.reranking.scorer import PRECISIONS, ComputeConfig, PairScorer, _split
from golden import rebuild

CASES = rebuild.cases("forward.json")
TINY = {"local_dim": 16, "model_dim": 16, "num_encoder_layers": 2, "dim_feedforward": 32}
QUERIES, IMAGES, SLOTS = 3, 7, 6
PAIRS = np.array([(q, i) for i in range(IMAGES) for q in range(QUERIES) if (q + i) % 3]).T


def made(**arguments):
    torch.manual_seed(0)
    return AMES(**TINY, **arguments).eval()


def images(count, seed, padded=True):
    valid = rebuild.valid(count, SLOTS, seed) if padded else None
    return LocalFeatures.from_descriptors(rebuild.descriptors((count, SLOTS, 16), seed), valid)


def scores(model, *, padded=True, pairs=PAIRS, **compute):
    scorer = PairScorer(model, ComputeConfig(**compute))
    return scorer.score(scorer.queries(images(QUERIES, 1, padded)), images(IMAGES, 2, padded), *pairs)


@torch.inference_mode()
def one_by_one(model, padded=True, pairs=PAIRS):
    """Each pair alone, through nothing but the model's interface."""
    queries, database = images(QUERIES, 1, padded), images(IMAGES, 2, padded)
    database = model.expand(model.compress(database))
    return np.array(
        [
            model.pairs_tokens(
                model.tokens(queries[q : q + 1].trim_padding()), database[i : i + 1].trim_padding()
            ).item()
            for q, i in pairs.T
        ]
    )


MODELS = pytest.mark.parametrize(
    "model",
    [made, lambda: made(binarized=True), lambda: Chamfer(local_dim=16)],
    ids=["full", "binary", "chamfer"],
)


@MODELS
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("batch_size", [None, 1, 4])
def test_scores_are_the_model_s_own(model, padded, batch_size):
    found = scores(model(), padded=padded, batch_size=batch_size)
    np.testing.assert_allclose(found, one_by_one(model(), padded), atol=1e-5)
    assert found.dtype == np.float32
    assert found.std() > 1e-4


@MODELS
def test_several_devices_share_the_images(model):
    for devices in (("cpu", "cpu"), ("cpu",) * 9):  # more devices than images, too
        np.testing.assert_allclose(scores(model(), devices=devices), one_by_one(model()), atol=1e-5)


def test_shares_are_whole_images_of_about_as_many_pairs():
    rows = np.repeat([0, 1, 2, 3], [5, 1, 4, 2])
    for parts in (1, 2, 3, 4, 9):
        shares = _split(rows, parts)
        assert len(shares) == parts
        assert np.concatenate(shares).tolist() == list(range(12))
        named = [image for share in shares for image in set(rows[share])]
        assert sorted(named) == sorted(set(named))
    assert [len(share) for share in _split(rows, 2)] == [6, 6]
    assert [len(share) for share in _split(rows[:0], 3)] == [0, 0, 0]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_figures_of_the_released_code(case):
    """The golden scores, every pair a query and an image of their own."""
    arguments = rebuild.arguments(case)
    model = AMES(**arguments)
    model.load_state_dict(rebuild.state(rebuild.shapes(**arguments), case["seed"]))
    size, n, m, seed = case["batch"], case["query_desc"], case["db_desc"], case["seed"]
    sides = rebuild.related(size, n, m, case["local_dim"], seed)
    masks = (None, None)
    if case["masks"]:
        masks = rebuild.valid(size, n, seed), rebuild.valid(size, m, seed + 1)
    query, database = (LocalFeatures.from_descriptors(x, mask) for x, mask in zip(sides, masks, strict=True))
    scorer = PairScorer(model)
    found = scorer.score(scorer.queries(query), database, np.arange(size), np.arange(size))
    np.testing.assert_allclose(found, case["similarity_logits"], atol=2e-5)


@pytest.mark.parametrize("model", [made, lambda: made(binarized=True)], ids=["full", "binary"])
def test_codes_score_as_the_descriptors_that_they_came_from(model):
    scorer = PairScorer(model())
    local = images(IMAGES, 2)
    queries = scorer.queries(images(QUERIES, 1))
    with torch.inference_mode():
        codes = scorer.model.compress(local)
    expected = scorer.score(queries, local, *PAIRS)
    np.testing.assert_array_equal(scorer.score(queries, codes, *PAIRS), expected)


@pytest.mark.skipif(not int8_is_exact(), reason="8-bit products overflow on this processor")
def test_int8_is_near_fp32_and_scores_a_pair_as_it_does_many(monkeypatch):
    monkeypatch.setattr("ames.precision.measured", lambda dtype: Rates(8e11, 1e11))
    found, exact = scores(made(), precision="int8"), scores(made())
    assert 0 < np.abs(found - exact).max() < 0.02
    for pair in (0, 5):
        alone = scores(made(), precision="int8", pairs=PAIRS[:, pair : pair + 1])
        assert alone[0] == pytest.approx(found[pair], abs=1e-5)
    lanes = [scores(made(), precision="int8", lanes=count) for count in (1, 4)]
    assert np.array_equal(*lanes)


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
@pytest.mark.parametrize("binarized", [False, True])
def test_other_number_formats_are_near(precision, binarized):
    model = made(binarized=binarized)
    found = scores(model, precision=precision)
    expected = one_by_one(model)
    tolerance = 1e-5 if precision == "tf32" else 0.03
    np.testing.assert_allclose(found, expected, atol=tolerance)
    assert (np.abs(found - expected).max() > 1e-5) == (precision != "tf32")  # it did compute in it
    assert next(model.parameters()).dtype == torch.float32  # the caller's model is left as it was


def test_the_setting_for_products_is_put_back():
    before = torch.get_float32_matmul_precision()
    scores(made(), precision="tf32")
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("padded", [False, True])
def test_scores_are_the_same_bits_for_any_number_of_lanes(padded, precision):
    before = torch.get_num_threads()
    found = [scores(made(), padded=padded, precision=precision, lanes=lanes) for lanes in (1, 2, 4)]
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])
    assert torch.get_num_threads() == before


class Recorder(Chamfer):
    """Notes the numbers of descriptors of each call, and runs out of memory above some pairs."""

    def __init__(self, most=10**9, error=None):
        super().__init__(local_dim=16)
        self.most, self.calls = most, []
        self.error = error or torch.OutOfMemoryError("CUDA out of memory")

    def score_encoded(self, query, database):
        if len(query.valid) > self.most:
            raise self.error
        self.calls.append((len(query.valid), query.size, database.size, bool(query.valid.all())))
        return super().score_encoded(query, database)


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=["cuda", "cpu", "python"])
@pytest.mark.parametrize("most", [1, 2, 5])
def test_chunks_are_halved_where_memory_runs_out(most, error):
    model = Recorder(most, error)
    np.testing.assert_allclose(scores(model), one_by_one(Chamfer(local_dim=16)), atol=1e-5)
    assert sum(call[0] for call in model.calls) == PAIRS.shape[1]  # none twice


def test_a_pair_that_does_not_fit_is_an_error():
    with pytest.raises(
        AmesError, match="a single pair does not fit the memory of cpu: use fewer descriptors"
    ):
        scores(Recorder(0))


def test_other_errors_are_not_taken_for_want_of_memory():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        scores(Recorder(0, RuntimeError("shapes cannot be multiplied")))


def test_pairs_of_equal_counts_go_together_and_padding_is_cut(monkeypatch):
    monkeypatch.setitem(scoring._CPU_TOKENS, torch.float32, 40)
    model = Recorder()
    scores(model)
    counts = [images(n, seed).counts for n, seed in ((QUERIES, 1), (IMAGES, 2))]
    longest = counts[0].max().item(), counts[1].max().item()
    assert model.calls[0][1] == longest[0]
    assert max(call[2] for call in model.calls) == longest[1]
    assert min(call[1] for call in model.calls) < longest[0]  # shorter ones are not padded to the longest
    for pairs, n, m, _ in model.calls:
        assert pairs == 1 or pairs * (n + m + 1) <= 40


def test_without_padding_no_chunk_needs_a_mask():
    model = Recorder()
    scores(model, padded=False)
    assert all(whole for *_, whole in model.calls)


def test_nothing_to_score():
    assert scores(made(), pairs=np.zeros((2, 0), int)).shape == (0,)


@pytest.mark.parametrize(
    ("query_rows", "image_rows", "message"),
    [
        ([0, 1], [0, 1, 2], "2 query_rows, but 3 image_rows"),
        ([0, 3], [0, 1], "query_rows: there is no image 3 among 3"),
        ([0, -1], [0, 1], "query_rows: there is no image -1 among 3"),
        ([0, 1], [0, 7], "image_rows: there is no image 7 among 7"),
        ([0.0, 1.0], [0, 1], r"query_rows are float64 \[2\]; expected int"),
        ([[0, 1]], [[0, 1]], r"query_rows are int64 \[1, 2\]; expected int"),
    ],
)
def test_pairs_that_are_none(query_rows, image_rows, message):
    with pytest.raises(AmesError, match=message):
        scores(made(), pairs=(np.array(query_rows), np.array(image_rows)))


def test_images_of_another_shape():
    scorer = PairScorer(made())
    with pytest.raises(AmesError, match=r"queries are \[6, 16\]; expected \[images, descriptors, width\]"):
        scorer.queries(images(QUERIES, 1)[0])
    queries = scorer.queries(images(QUERIES, 1))
    with pytest.raises(AmesError, match=r"database images are \[6, 16\]; expected"):
        scorer.score(queries, images(IMAGES, 2)[0], *PAIRS)
    with pytest.raises(AmesError, match="descriptors are 8-d, this model takes 16-d"):
        scorer.score(queries, LocalFeatures.from_descriptors(torch.ones(IMAGES, 4, 8)), *PAIRS)
    with pytest.raises(AmesError, match=r"give what PairScorer.queries returned, one for each device"):
        PairScorer(made(), ComputeConfig(devices=("cpu", "cpu"))).score(queries, images(IMAGES, 2), *PAIRS)
    any_width = PairScorer(Chamfer())
    with pytest.raises(AmesError, match="queries are 16-d, database images 8-d"):
        any_width.score(
            any_width.queries(images(QUERIES, 1)),
            LocalFeatures.from_descriptors(torch.ones(IMAGES, 4, 8)),
            *PAIRS,
        )


@MODELS
@pytest.mark.parametrize("devices", [("cpu",), ("cpu", "cpu")])
def test_an_image_that_is_not_finite_is_named_by_its_number(monkeypatch, model, devices):
    monkeypatch.setitem(scoring._CPU_TOKENS, torch.float32, 2 * (SLOTS + 1))
    scorer = PairScorer(model(), ComputeConfig(devices=devices))
    local = images(IMAGES, 2, padded=False)
    local.descriptors[5, 3, 2] = float("nan")
    with pytest.raises(NotFiniteError, match="the descriptors of image 5 hold") as raised:
        scorer.queries(local)
    assert raised.value.image == 5
    with pytest.raises(NotFiniteError, match="the descriptors of image 5 hold"):
        scorer.score(scorer.queries(images(QUERIES, 1)), local, *PAIRS)
    without = PAIRS[:, PAIRS[1] != 5]  # what nothing asks for may be anything
    if devices == ("cpu",):
        without = without[:, without[1] < 5]
        assert np.isfinite(scorer.score(scorer.queries(images(QUERIES, 1)), local, *without)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp8"}, "precision 'fp8' is none of fp32, tf32, bf16, fp16, int8"),
        ({"precision": "int8", "devices": ("cpu", "cuda")}, "int8 is for CPUs: give bf16 or fp16 on a GPU"),
        ({"devices": ()}, "no device given"),
        ({"batch_size": 0}, "batch_size 0 is below 1"),
        ({"lanes": 0}, "lanes 0 is below 1"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(AmesError, match=message):
        ComputeConfig(**options)


def test_precisions_are_those_that_the_configuration_names():
    assert set(PRECISIONS) == {"fp32", "tf32", "bf16", "fp16", "int8"}


@pytest.mark.slow
def test_compiled_scores_are_the_same():
    np.testing.assert_allclose(scores(made(), compile=True), one_by_one(made()), atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", sorted(PRECISIONS.keys() - {"int8"}))
def test_a_gpu_scores_as_the_cpu(precision):
    found = scores(made(), devices=("cuda",), precision=precision)
    np.testing.assert_allclose(found, one_by_one(made()), atol=1e-4 if precision == "fp32" else 0.03)
