"""AMES: figures of the released code, invariances, stored codes, and the contract of its constructor."""

import socket

import pytest
import torch

from ames.features import LocalFeatures
from ames.models.ames import AMES
from golden import rebuild

CASES = rebuild.cases("forward.json")
TINY = {"local_dim": 32, "model_dim": 16, "num_encoder_layers": 2, "dim_feedforward": 32}
VARIANTS = [
    pytest.param({"binarized": False}, id="full precision"),
    pytest.param({"binarized": True}, id="binary"),
    pytest.param({"normalize_before": True, "activation": "gelu"}, id="pre-norm"),
]


def made(seed=0, **arguments):
    torch.manual_seed(seed)
    return AMES(**TINY, **arguments).eval()


def batch(count, slots, seed, valid=None):
    """Features [count, slots, 32], not normalized."""
    return LocalFeatures.from_descriptors(rebuild.descriptors((count, slots, 32), seed), valid)


def published_forward(model, query, database, **rest):
    """``forward`` with its published polarity, True = padding."""
    return model(query.descriptors, ~query.valid, database.descriptors, ~database.valid, **rest)


# ---- figures of the released code -----------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
@torch.inference_mode()
def test_figures_of_the_released_code(case):
    arguments = rebuild.arguments(case)
    model = AMES(**arguments).eval()
    model.load_state_dict(rebuild.state(rebuild.shapes(**arguments), case["seed"]))
    size, n, m, seed = case["batch"], case["query_desc"], case["db_desc"], case["seed"]
    query, database = rebuild.related(size, n, m, case["local_dim"], seed)
    masks = (None, None)
    if case["masks"]:
        masks = (~rebuild.valid(size, n, seed), ~rebuild.valid(size, m, seed + 1))
    logits, tokens = model(query, masks[0], database, masks[1], return_logits=True)
    torch.testing.assert_close(logits, torch.tensor(case["similarity_logits"]), atol=2e-5, rtol=0)
    assert tokens.shape == (size, 1 + n + m, case["model_dim"])
    torch.testing.assert_close(tokens[0, 0, :8], torch.tensor(case["match_token"]), atol=2e-5, rtol=0)
    if case["token_norms"] is not None:
        norms = tokens.flatten(1).norm(dim=1)
        torch.testing.assert_close(norms, torch.tensor(case["token_norms"]), atol=0, rtol=2e-6)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_published_state_loads_strictly(case):
    arguments = rebuild.arguments(case)
    model = AMES(**arguments)
    wanted = rebuild.shapes(**arguments)
    assert {name: tuple(x.shape) for name, x in model.state_dict().items()} == wanted
    model.load_state_dict(rebuild.state(wanted, 0), strict=True)


@pytest.mark.parametrize(("binarized", "tensors"), [(False, 97), (True, 98)])
def test_defaults_are_the_paper_s(binarized, tensors):
    model = AMES(binarized=binarized)
    assert len(model.state_dict()) == tensors
    assert (model.local_dim, model.model_dim, model.code_bytes) == (768, 128, 16 if binarized else 256)
    assert 2.0e6 < sum(x.numel() for x in model.parameters()) < 2.2e6


# ---- what must not change the score ---------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
@torch.inference_mode()
def test_order_of_descriptors_does_not_matter(variant):
    model, query, database = made(**variant), batch(3, 9, 1), batch(3, 7, 2)
    expected = model.pairs(query, database)
    turned = (query.with_descriptors(query.descriptors.flip(1)), database.map(lambda x: x.roll(3, 1)))
    torch.testing.assert_close(model.pairs(*turned), expected, atol=1e-5, rtol=0)
    assert expected.std() > 1e-3


@pytest.mark.parametrize("variant", VARIANTS)
@torch.inference_mode()
def test_amount_and_content_of_padding_do_not_matter(variant):
    model, query, database = made(**variant), batch(3, 9, 1), batch(3, 7, 2)
    expected = model.pairs(query, database)
    for n, m in ((12, 7), (9, 8), (20, 30)):
        padded = query.pad(n), database.pad(m)
        torch.testing.assert_close(model.pairs(*padded), expected, atol=1e-5, rtol=0)
        filled = [
            side.with_descriptors(torch.where(side.valid[..., None], side.descriptors, 5.0))
            for side in padded
        ]
        torch.testing.assert_close(model.pairs(*filled), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS)
@torch.inference_mode()
def test_unequal_counts_in_a_batch_score_as_images_one_by_one(variant):
    model = made(**variant)
    query = batch(4, 9, 1, rebuild.valid(4, 9, 5))
    database = batch(4, 7, 2, rebuild.valid(4, 7, 6))
    together = model.pairs(query, database)
    for i in range(4):
        alone = model.pairs(query[i : i + 1].trim_padding(), database[i : i + 1].trim_padding())
        torch.testing.assert_close(alone, together[i : i + 1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("absent", ["query", "database", "both"])
@torch.inference_mode()
def test_a_mask_may_be_absent(absent):
    model = made()
    query = batch(3, 9, 1, None if absent != "database" else rebuild.valid(3, 9, 5))
    database = batch(3, 7, 2, None if absent != "query" else rebuild.valid(3, 7, 6))
    masks = [None if side.valid.all() else ~side.valid for side in (query, database)]
    assert sum(mask is None for mask in masks) == (2 if absent == "both" else 1)
    found = model(query.descriptors, masks[0], database.descriptors, masks[1])
    torch.testing.assert_close(found, published_forward(model, query, database), atol=1e-6, rtol=0)


@torch.inference_mode()
def test_a_mask_of_numbers_means_the_same():
    model, query = made(), batch(3, 9, 1, rebuild.valid(3, 9, 5))
    database = batch(3, 7, 2)
    found = model(query.descriptors, (~query.valid).float(), database.descriptors)
    torch.testing.assert_close(found, published_forward(model, query, database), atol=1e-6, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("slots", [0, 5])
@torch.inference_mode()
def test_an_image_without_descriptors_has_a_finite_score(variant, slots):
    model, full = made(**variant), batch(2, 6, 1)
    empty = batch(2, slots, 2, torch.zeros(2, slots, dtype=torch.bool))
    for query, database in ((empty, full), (full, empty), (empty, empty)):
        assert model.pairs(query, database).isfinite().all()


@torch.inference_mode()
def test_the_length_of_descriptors_does_not_matter():
    model, query, database = made(), batch(2, 6, 1), batch(2, 5, 2)
    longer = query.with_descriptors(7 * query.descriptors)
    torch.testing.assert_close(model.pairs(longer, database), model.pairs(query, database))


@torch.inference_mode()
def test_descriptors_in_half_precision_are_taken():
    model, query, database = made(), batch(2, 6, 1), batch(2, 5, 2)
    half = model.pairs(query.to(dtype=torch.float16), database.to(dtype=torch.float16))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, model.pairs(query, database), atol=5e-3, rtol=0)


# ---- codes of a database --------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
@torch.inference_mode()
def test_binary_codes_score_bit_for_bit_as_descriptors(training):
    model = made(binarized=True)
    query, database = batch(4, 9, 1), batch(4, 7, 2, rebuild.valid(4, 7, 6))
    codes = model.train(training).compress(database)
    assert codes.descriptors.dtype == torch.uint8
    assert codes.descriptors.shape == (4, 7, model.code_bytes)
    model.eval()
    assert torch.equal(
        model.pairs_tokens(model.tokens(query), model.expand(codes)), model.pairs(query, database)
    )


@torch.inference_mode()
def test_full_precision_codes_score_as_forward_in_evaluation():
    model = made()
    query, database = batch(4, 9, 1), batch(4, 7, 2, rebuild.valid(4, 7, 6))
    codes = model.compress(database)
    assert codes.descriptors.dtype == torch.float16
    assert codes.descriptors.shape[-1] * 2 == model.code_bytes
    found = model.pairs_tokens(model.tokens(query), model.expand(codes))
    assert torch.equal(found, published_forward(model, query, database))
    assert not torch.equal(found, model.pairs(query, database))  # the rounding is there


@torch.inference_mode()
def test_only_evaluation_rounds_the_database_tokens():
    model, query, database = made(), batch(4, 9, 1), batch(4, 7, 2)
    exact = model.pairs(query, database)
    assert torch.equal(published_forward(model.train(), query, database), exact)
    assert not torch.equal(published_forward(model.eval(), query, database), exact)


@pytest.mark.parametrize("binarized", [False, True])
@torch.inference_mode()
def test_score_is_pairs_in_a_loop(binarized):
    model = made(binarized=binarized)
    query = batch(3, 9, 1, rebuild.valid(3, 9, 5))
    candidates = batch(12, 7, 2, rebuild.valid(12, 7, 6)).reshape(3, 4)
    scores = model.score(query, candidates)
    assert scores.shape == (3, 4)
    for b in range(3):
        for k in range(4):
            alone = model.pairs(query[b : b + 1], candidates[b, k : k + 1])
            torch.testing.assert_close(scores[b, k : k + 1], alone, atol=1e-5, rtol=0)


# ---- the contract ---------------------------------------------------------------------------------


@pytest.mark.parametrize("binarized", [False, True])
def test_building_touches_neither_network_nor_disk(binarized, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a model was built with the network or the disk")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    for init in ("paper", "matching"):
        AMES(**TINY, binarized=binarized, init=init)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("init", ["paper", "matching"])
def test_gradients_reach_every_parameter(variant, init):
    model = made(init=init, **variant).train()
    query = batch(4, 9, 1, rebuild.valid(4, 9, 5))
    database = batch(4, 7, 2, rebuild.valid(4, 7, 6))
    logits, tokens = published_forward(model, query, database, return_logits=True)
    (logits.sum() + tokens.square().sum() + tokens[..., 0].sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_an_unknown_argument_is_refused():
    with pytest.raises(TypeError, match="num_layers"):
        AMES(num_layers=3)


def test_arguments_are_given_by_name():
    with pytest.raises(TypeError, match="positional"):
        AMES(768)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": "tanh"}, "'tanh' is none of relu, gelu"),
        ({"init": "zeros"}, "'zeros' is none of paper, matching"),
        ({"model_dim": 12, "binarized": True}, "model_dim 12 % 8"),
        ({"nhead": 3}, "model_dim 16 is not a multiple of nhead 3"),
    ],
)
def test_values_that_make_no_model(arguments, message):
    with pytest.raises(ValueError, match=message):
        AMES(**TINY | arguments)


def test_descriptors_of_another_width():
    model = made()
    for call in (model.tokens, model.compress):
        with pytest.raises(ValueError, match="descriptors are 8-d, this model takes 32-d"):
            call(LocalFeatures.from_descriptors(torch.zeros(2, 3, 8)))


def test_forward_needs_two_images():
    with pytest.raises(ValueError, match="tgt_local is missing"):
        made()(torch.zeros(1, 3, 32))
