"""A network from an image to a vector: the released head's figures, its parts by hand, its modes."""

import math

import pytest
import torch

from ames.embedders.network import GlobalNetwork
from ames.embedders.pooling import GeM, unit
from ames.errors import AmesError
from golden import raml

HEADS = raml.CASES["head"]
SMALL = {"trunk": "resnet10", "width": 0.125, "dim": 6, "size": 32}


def network(**options):
    torch.manual_seed(2)
    return GlobalNetwork(**SMALL | options)


@pytest.mark.parametrize("case", HEADS, ids=lambda case: f"seed {case['seed']}")
def test_the_head_is_the_released_one(case):
    maps, state = raml.head(case)
    made = GlobalNetwork(trunk="shufflenet_v2", width=0.5, dim=case["dim"], p=case["p"])
    made.whiten = torch.nn.Linear(case["channels"], case["dim"])
    made.whiten.load_state_dict(state)
    pooled = unit(made.pool(maps))
    assert pooled[0, :6].tolist() == pytest.approx(case["pooled_first6"], abs=1e-5)
    found = made.describe(maps)
    for row, wanted in zip(found, case["vector_first6"], strict=True):
        assert row[:6].tolist() == pytest.approx(wanted, abs=1e-5)
    assert found.norm(dim=-1).tolist() == pytest.approx(case["vector_norms"], abs=1e-6)


def test_gem_is_its_formula():
    x = torch.tensor([[[[1.0, 2.0], [3.0, -4.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    wanted = ((1 + 8 + 27 + 1e-18) / 4) ** (1 / 3)
    assert GeM(3.0)(x)[0].tolist() == pytest.approx([wanted, 1e-6], rel=1e-4)
    assert float(GeM(1.0)(x)[0, 0].detach()) == pytest.approx((1 + 2 + 3 + 1e-6) / 4)
    assert [*GeM(2.5).state_dict()] == ["p"]
    assert GeM(2.5).p.tolist() == [2.5]


def test_unit_adds_to_the_norm():
    assert unit(torch.tensor([3.0, 4.0])).tolist() == pytest.approx([3 / (5 + 1e-6), 4 / (5 + 1e-6)])
    assert unit(torch.zeros(2)).tolist() == [0, 0]


@pytest.mark.parametrize("options", [{}, {"dim": None}, {"reduce": 10}, {"reduce": 10, "dim": None}])
def test_the_vector_is_the_trunk_s_map_through_the_parts(options):
    made, images = network(**options).eval(), torch.rand(3, 3, 64, 96)
    with torch.no_grad():
        maps = made.backbone(images)
        if "reduce" in options:
            weight, bias = made.reduce.weight[:, :, 0, 0], made.reduce.bias
            maps = (torch.einsum("oc,bchw->bohw", weight, maps) + bias[:, None, None]).clamp(min=0)
        wanted = maps.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3)
        wanted = wanted / (wanted.norm(dim=1, keepdim=True) + 1e-6)
        if made.whiten is not None:
            wanted = wanted @ made.whiten.weight.T + made.whiten.bias
            wanted = wanted / (wanted.norm(dim=1, keepdim=True) + 1e-6)
        torch.testing.assert_close(made(images), wanted)
    channels = options.get("reduce", 64)  # of the trunk: 512 / 8
    assert made.dim == wanted.shape[1] == (channels if "dim" in options else 6)


def test_images_of_a_batch_do_not_matter_to_each_other():
    made, images = network().eval(), torch.rand(4, 3, 40, 33)
    with torch.no_grad():
        whole = made(images)
        torch.testing.assert_close(torch.cat([made(images[i : i + 1]) for i in range(4)]), whole)
        assert made(images[:0]).shape == (0, 6)


def test_powers_are_computed_in_32_bits():
    """Whatever computes the trunk: 100^3 is beyond fp16, and 16 bits of a vector are few."""
    made, maps = network().eval(), 100 * torch.rand(2, 64, 3, 3)
    with torch.no_grad():
        wanted = made.describe(maps)
        with torch.autocast("cpu", torch.bfloat16):
            found = made.describe(maps)
            assert made(torch.rand(1, 3, 32, 32)).dtype == torch.float32
    assert torch.equal(found, wanted)


def test_statistics_can_be_frozen_while_weights_learn():
    made, images = network(), torch.rand(4, 3, 32, 32)
    made.frozen_statistics = True
    before = {name: x.clone() for name, x in made.state_dict().items()}
    made.train()
    vectors = made(images)
    vectors.sum().backward()
    after = made.state_dict()
    kept = [name for name in after if "running" in name or "num_batches" in name]
    assert kept
    assert all(torch.equal(after[name], before[name]) for name in kept)
    assert all(x.grad is not None for x in made.parameters())
    torch.testing.assert_close(vectors.detach(), made.eval()(images).detach())
    made.frozen_statistics = False
    made.train()(images)
    name = "backbone.1.running_mean"
    assert not torch.equal(made.state_dict()[name], before[name])


def test_parameters_have_the_names_of_released_files():
    names = {*network(trunk="resnet50", width=0.125).state_dict()}
    assert {"pool.p", "whiten.weight", "whiten.bias", "backbone.0.weight", "backbone.1.bias"} <= names
    assert {
        "backbone.4.0.conv3.weight",
        "backbone.7.2.bn3.running_var",
        "backbone.5.0.downsample.0.weight",
    } <= names
    assert {name.split(".")[0] for name in names} == {"backbone", "pool", "whiten"}


def test_arguments_rebuild_it():
    made = network(reduce=5, p=2.0, resize="long")
    again = GlobalNetwork(**made.arguments)
    again.load_state_dict(made.state_dict())
    assert again.arguments == made.arguments
    assert again.inputs == made.inputs
    assert again.inputs.resize == "long"
    assert made.side == "both"
    assert made.space is None
    assert made.device == torch.device("cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, "dim is 0: give a whole number of at least 1"),
        ({"reduce": "5"}, "reduce is '5': give a whole number"),
        ({"p": math.nan}, "p is nan: give a number"),
        ({"p": 0.0}, "p 0.0 of GeM must be above 0"),
        ({"size": 4}, "size 4: give at least 8 pixels"),
        ({"resize": "wide"}, "resize 'wide' is none of"),
        ({"trunk": "resnet9"}, "trunk 'resnet9' does not exist"),
    ],
)
def test_wrong_arguments_are_one_line(options, message):
    with pytest.raises(AmesError, match=message):
        network(**options)
