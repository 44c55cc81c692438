"""What every model refuses: NaN and infinity in a descriptor (not in padding), and sides that do not fit."""

import re

import pytest
import torch

from ames.errors import AmesError, NotFiniteError
from ames.features import LocalFeatures
from ames.models.ames import AMES
from ames.models.base import FromZero, Similarity, constructor_arguments
from ames.models.chamfer import Chamfer

WIDTH = 16
SIZES = {"local_dim": WIDTH, "model_dim": 16, "num_encoder_layers": 2, "dim_feedforward": 32}
MODELS = {
    "full": lambda: AMES(**SIZES),
    "binary": lambda: AMES(**SIZES, binarized=True),
    "chamfer": lambda: Chamfer(local_dim=WIDTH),
}
WRONG = [
    (AMES, {"binarized": "maybe"}, "binarized is 'maybe': give true or false"),
    (AMES, {"binarized": 1}, "binarized is 1: give true or false"),
    (AMES, {"normalize_before": None}, "normalize_before is None: give true or false"),
    (AMES, {"model_dim": "64"}, "model_dim is '64': give a whole number of at least 1"),
    (AMES, {"model_dim": 64.0}, "model_dim is 64.0: give a whole number of at least 1"),
    (AMES, {"local_dim": None}, "local_dim is None: give a whole number of at least 1"),
    (AMES, {"nhead": True}, "nhead is True: give a whole number of at least 1"),
    (AMES, {"nhead": 3}, "model_dim 128 is not a multiple of nhead 3"),
    (AMES, {"num_encoder_layers": 0}, "num_encoder_layers is 0: give a whole number of at least 1"),
    (AMES, {"dim_feedforward": -16}, "dim_feedforward is -16: give a whole number of at least 1"),
    (AMES, {"activation": 1}, "activation is 1: give a word"),
    (AMES, {"activation": "tanh"}, "activation 'tanh' is none of relu, gelu"),
    (AMES, {"init": None}, "init is None: give a word"),
    (Chamfer, {"local_dim": 0}, "local_dim is 0: give a whole number of at least 1"),
    (Chamfer, {"local_dim": "128"}, "local_dim is '128': give a whole number of at least 1"),
    (Chamfer, {"symmetric": "no"}, "symmetric is 'no': give true or false"),
]
VALUES = [float("nan"), float("inf"), -float("inf"), 1e30]  # the last one's square is not finite
models = pytest.mark.parametrize("name", MODELS)


def made(name):
    torch.manual_seed(0)
    return MODELS[name]().eval()


def images(count=4, slots=5, seed=0):
    """The last slot of each image is padding."""
    generator = torch.Generator().manual_seed(seed)
    valid = torch.arange(slots).expand(count, slots) < slots - 1
    return LocalFeatures.from_descriptors(torch.randn(count, slots, WIDTH, generator=generator), valid)


def spoiled(local, image, slot, value):
    descriptors = local.descriptors.clone()
    descriptors[image, slot, 3] = value
    return local.with_descriptors(descriptors)


@pytest.mark.parametrize(("kind", "arguments", "message"), WRONG)
def test_an_argument_of_another_type_or_range_is_refused(kind, arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        kind(**arguments)


def test_a_whole_number_may_be_as_small_as_its_default_and_none_where_that_is_allowed():
    class Model(Similarity):
        def __init__(self, *, registers: int = 0, scale: float = 1.0, width: int | None = None) -> None:
            arguments = constructor_arguments(locals())
            super().__init__()
            self.arguments = arguments

    class Other(Model):
        """Another constructor, which passes on what it likes."""

        def __init__(self, kind: str) -> None:
            super().__init__(registers=3)
            self.kind = kind

    assert Model().arguments == {"registers": 0, "scale": 1.0, "width": None}
    assert Model(scale=2, width=3).arguments == {"registers": 0, "scale": 2, "width": 3}
    assert Other("x").arguments["registers"] == 3
    for arguments, message in (
        ({"registers": -1}, "registers is -1: give a whole number of at least 0"),
        ({"scale": float("nan")}, "scale is nan: give a number"),
        ({"scale": "1"}, "scale is '1': give a number"),
        ({"width": 0}, "width is 0: give a whole number of at least 1"),
    ):
        with pytest.raises(AmesError, match=message):
            Model(**arguments)


def test_a_whole_number_may_be_none_at_all_where_its_type_says_so():
    class Model(Similarity):
        def __init__(self, *, scales: FromZero = 7) -> None:
            arguments = constructor_arguments(locals())
            super().__init__()
            self.arguments = arguments

    assert Model(scales=0).arguments == {"scales": 0}
    for value in (-1, True, 1.0):
        with pytest.raises(AmesError, match=f"^scales is {value}: give a whole number of at least 0$"):
            Model(scales=value)


@torch.inference_mode()
def test_plain_descriptors_keep_their_lengths_and_are_checked_too():
    model, local = made("chamfer"), images()
    assert torch.equal(model.plain(local, torch.float32), local.descriptors)
    padding = spoiled(local, 2, 4, float("nan"))
    assert model.plain(padding, torch.float32).isfinite().all()
    with pytest.raises(NotFiniteError, match="the descriptors of image 2 hold"):
        model.plain(spoiled(local, 2, 1, float("nan")), torch.float32)
    with pytest.raises(AmesError, match="descriptors are 8-d, this model takes 16-d"):
        model.plain(LocalFeatures.from_descriptors(torch.ones(4, 5, 8)), torch.float32)


@models
@pytest.mark.parametrize("value", VALUES)
@torch.inference_mode()
def test_a_descriptor_that_is_not_finite_is_refused_at_every_door(name, value):
    model, other = made(name), images(seed=1)
    bad = spoiled(images(), 2, 1, value)
    for door in (
        lambda: model.tokens(bad),
        lambda: model.compress(bad),
        lambda: model.pairs(bad, other),
        lambda: model.pairs(other, bad),
        lambda: model.score(bad, other.reshape(4, 1)),
        lambda: model.score(other, bad.reshape(4, 1)),
    ):
        with pytest.raises(
            NotFiniteError, match="the descriptors of image 2 hold values that are not finite"
        ):
            door()
    with pytest.raises(NotFiniteError, match="the descriptors of image 0 hold"):
        model.tokens(bad[2])


@models
@pytest.mark.parametrize("value", VALUES)
@torch.inference_mode()
def test_padding_may_hold_anything(name, value):
    model, query, database = made(name), images(), images(seed=1)
    expected = model.pairs(query, database)
    filled = [spoiled(side, 2, 4, value) for side in (query, database)]
    assert torch.equal(model.pairs(*filled), expected)
    stored = model.expand(model.compress(filled[1]))
    assert torch.equal(
        model.pairs_tokens(model.tokens(query), stored),
        model.pairs_tokens(model.tokens(query), model.expand(model.compress(database))),
    )


@pytest.mark.parametrize("name", ["full", "chamfer"])
@torch.inference_mode()
def test_codes_that_are_not_finite(name):
    model = made(name)
    codes = model.compress(images())
    assert model.expand(spoiled(codes, 1, 4, float("nan"))).descriptors.isfinite().all()  # padding
    with pytest.raises(NotFiniteError, match="the descriptors of image 1 hold"):
        model.expand(spoiled(codes, 1, 0, float("nan")))


@torch.inference_mode()
def test_codes_of_another_kind():
    full, binary = made("full"), made("binary")
    for model, codes, said in (
        (
            full,
            binary.compress(images()),
            r"codes are torch.uint8 of width 2; this model's are 16 numbers each",
        ),
        (binary, full.compress(images()), r"codes are torch.float16 of width 16; this model's are 2 bytes"),
        (full, images().trim(3).map(lambda x: x[..., :8] if x.ndim > 2 else x), "torch.float32 of width 8"),
    ):
        with pytest.raises(AmesError, match=said):
            model.expand(codes)


@torch.inference_mode()
def test_the_published_forward_and_training_pass_them_on():
    bad, model = spoiled(images(), 2, 1, float("nan")), made("full")
    assert model(bad.descriptors, ~bad.valid, bad.descriptors).isnan().tolist() == [False, False, True, False]
    assert model.train().pairs(bad, images()).isnan().tolist() == [False, False, True, False]
    assert made("binary").train().pairs(bad, images()).isnan().tolist() == [False, False, True, False]


@models
@torch.inference_mode()
def test_sides_that_do_not_fit(name):
    model, query, database = made(name), images(), images(seed=1)
    narrow = LocalFeatures.from_descriptors(torch.ones(4, 5, 8))
    for door, said in (
        (lambda: model.score(query, database[:3].reshape(3, 1)), "4 query images, but database images for 3"),
        (lambda: model.score(query[:1], database.reshape(2, 2)), "1 query images, but database images for 2"),
        (lambda: model.pairs(query[:1], database), "1 query images, but database images for 4"),
        (lambda: model.pairs_tokens(model.tokens(query), model.tokens(database[:2])), "4 query images, but"),
        (lambda: model.score(query, database), r"\[4, 5, 16\] and \[4, 5, 16\]; expected \[B, N, D\] and"),
        (lambda: model.pairs(query[0], database), r"\[5, 16\] and \[4, 5, 16\]; expected \[P, N, D\] and"),
        (lambda: model.tokens(narrow), "descriptors are 8-d, this model takes 16-d"),
        (lambda: model.pairs(query, narrow), "query descriptors are 16-d, those of database images 8-d"),
    ):
        with pytest.raises(AmesError, match=said):
            door()
    with pytest.raises(AmesError, match="query descriptors are 16-d, those of database images 8-d"):
        Chamfer().pairs(query, narrow)  # takes any width, but one
