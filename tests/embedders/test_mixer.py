"""The mixer against a transformer written by hand, and what must not matter to it."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from ames.embedders.features import FeatureSpec
from ames.embedders.mixer import Mixer
from ames.errors import AmesError
from helpers.feature_sets import SPECS, drawn, longer, rows, seeded, without

HEADS = 2


def mixer(**options):
    torch.manual_seed(0)
    return seeded(Mixer(**{"features": SPECS, "dim": 8, "heads": HEADS, "layers": 2} | options))


def attention(x, state, layer):
    """Softmax attention of all tokens [S, d] to all tokens, head by head."""
    name = f"layers.{layer}.self_attn"
    q, k, v = (x @ state[f"{name}.in_proj_weight"].T + state[f"{name}.in_proj_bias"]).chunk(3, -1)
    parts = []
    for a, b, c in zip(*(y.chunk(HEADS, -1) for y in (q, k, v)), strict=True):
        parts.append(torch.softmax(a @ b.T / math.sqrt(a.shape[1]), -1) @ c)
    return torch.cat(parts, -1) @ state[f"{name}.out_proj.weight"].T + state[f"{name}.out_proj.bias"]


def norm(x, state, name):
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    return x * state[f"{name}.weight"] + state[f"{name}.bias"]


def forward(x, state, layer):
    name = f"layers.{layer}.linear"
    x = x @ state[f"{name}1.weight"].T + state[f"{name}1.bias"]
    x = 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
    return x @ state[f"{name}2.weight"].T + state[f"{name}2.bias"]


def by_hand(made, features, image):
    """The vector of one image from its real vectors alone."""
    state = made.state_dict()
    tokens = [state["token"][None]]
    for spec in made.features:
        weight, bias = (state[f"project.{spec.name}.{x}"] for x in ("weight", "bias"))
        tokens.append(rows(features, spec.name, image) @ weight.T + bias)
    x = torch.cat(tokens)
    for layer in range(made.arguments["layers"]):
        one, two = (f"layers.{layer}.norm{n}" for n in (1, 2))
        if made.arguments["pre_norm"]:
            x = x + attention(norm(x, state, one), state, layer)
            x = x + forward(norm(x, state, two), state, layer)
        else:
            x = norm(x + attention(x, state, layer), state, one)
            x = norm(x + forward(x, state, layer), state, two)
    first = norm(x[0], state, "norm") if made.arguments["pre_norm"] else x[0]
    return first / first.norm()


@pytest.mark.parametrize("options", [{}, {"pre_norm": True}, {"layers": 1, "feedforward": 5}])
@pytest.mark.parametrize("training", [False, True])  # torch has a path of its own for evaluation
def test_it_is_a_transformer_with_a_fusion_token(options, training):
    made, features = mixer(dropout=0.0, **options).train(training), drawn()
    with torch.set_grad_enabled(training):
        found = made(features).detach()
    for image in range(4):
        torch.testing.assert_close(found[image], by_hand(made, features, image), rtol=1e-4, atol=1e-5)


def test_the_order_of_features_and_of_vectors_does_not_matter():
    made, features = mixer(), drawn()
    with torch.no_grad():
        wanted = made(features)
        turned = {name: features[name] for name in reversed(features)}
        torch.testing.assert_close(made(turned), wanted)
        order = torch.tensor([2, 0, 3, 1])
        local = features["b_local"]
        moved = replace(local, descriptors=local.descriptors[:, order], valid=local.valid[:, order])
        torch.testing.assert_close(made(features | {"b_local": moved}), wanted)
        other = mixer(features=SPECS[::-1])  # the same weights under the same names
        other.load_state_dict(made.state_dict())
        torch.testing.assert_close(other(features), wanted)


def test_padding_does_not_matter():
    made, features = mixer(), drawn()
    local = features["b_local"]
    noise = torch.where(local.valid[..., None], local.descriptors, 1e3)
    with torch.no_grad():
        wanted = made(features)
        torch.testing.assert_close(made(features | {"b_local": replace(local, descriptors=noise)}), wanted)
        longer = mixer(features=[SPECS[0], SPECS[1] | {"count": None}, SPECS[2]])
        torch.testing.assert_close(longer(features | {"b_local": local.pad(9)}), wanted)
        for image in range(4):  # alone, as short as it is
            one = {name: x[image : image + 1].trim_padding() for name, x in features.items()}
            torch.testing.assert_close(made(one)[0], wanted[image])


def test_an_image_may_lack_a_feature_but_not_all():
    made, features = mixer(), drawn()
    less = without(features, "a_global", 2)
    with torch.no_grad():
        found = made(less)
        torch.testing.assert_close(found[2], by_hand(made, less, 2), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(found[2], made(features)[2])
        none = without(without(less, "b_local", 2), "c_global", 2)
        found = made(none)
    assert not found[2].any()
    assert found.norm(dim=-1).tolist() == pytest.approx([1, 1, 0, 1])


def test_more_descriptors_than_its_count_are_cut():
    made, features = mixer(), drawn()
    whole, more = (features | {"b_local": longer(features, "b_local", n)} for n in (0, 3))
    with torch.no_grad():
        torch.testing.assert_close(made(more), made(whole))


def test_dropout_is_for_training_alone():
    made, features = mixer(dropout=0.5), drawn()
    with torch.no_grad():
        assert torch.equal(made(features), made(features))
        made.train()
        assert not torch.equal(made(features), made(features))


def test_every_weight_learns_and_16_bits_come_near():
    made, features = mixer(dropout=0.0).train(), drawn()
    (made(features) * torch.randn(4, 8)).sum().backward()
    assert all(x.grad is not None and bool(x.grad.any()) for x in made.parameters())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = made(features)
    assert found.dtype == torch.float32
    assert F.cosine_similarity(found, made(features)).min() > 0.999
    half = {name: replace(x, descriptors=x.descriptors.half()) for name, x in features.items()}
    torch.testing.assert_close(made(half), made(features), rtol=0.01, atol=0.01)


def test_arguments_rebuild_it():
    made = mixer(dropout=0.3, feedforward=7, pre_norm=True)
    again = Mixer(**made.arguments)
    again.load_state_dict(made.state_dict())
    assert again.arguments == made.arguments
    assert again.features == tuple(FeatureSpec(**x) for x in SPECS)
    assert (made.dim, made.side) == (8, "gallery")
    assert made.arguments["features"] == [x | {"backbone": None} for x in SPECS]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "dim 8 is not divisible by 3 heads"),
        ({"heads": 0}, "heads is 0: give a whole number of at least 1"),
        ({"layers": 0}, "layers is 0: give a whole number of at least 1"),
        ({"feedforward": 0}, "feedforward is 0: give a whole number of at least 1"),
        ({"dim": 8.0}, "dim is 8.0: give a whole number"),
        ({"pre_norm": "no"}, "pre_norm is 'no': give true or false"),
        ({"features": []}, "features none: give at least one, each of its own name"),
    ],
)
def test_wrong_arguments_are_one_line(options, message):
    with pytest.raises(AmesError, match=message):
        mixer(**options)
