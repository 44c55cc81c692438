"""The fusions that the mixer is compared with, each against its formula on one image's real vectors."""

from dataclasses import replace

import pytest
import torch

from ames.embedders.fusion import AttentiveSum, Concatenation, Mlp, Orthogonal, mean
from ames.errors import AmesError
from helpers.feature_sets import SPECS, drawn, longer, rows, seeded, without

KINDS = [Mlp, AttentiveSum, Orthogonal, Concatenation]


def made(kind, specs=SPECS, **options):
    torch.manual_seed(0)
    sizes = {} if kind is Concatenation else {"dim": 8}
    return seeded(kind(features=specs, **sizes | options))


def unit(x):
    return x / x.norm()


def projected(embedder, features, image):
    """Projected real vectors of one image, by feature."""
    found = {}
    for spec in embedder.features:
        layer = embedder.project[spec.name]
        found[spec.name] = rows(features, spec.name, image) @ layer.weight.T + layer.bias
    return found


def linear(layer, x):
    return x @ layer.weight.T + layer.bias


def mlp(embedder, features, image):
    sets = projected(embedder, features, image).values()
    joined = torch.cat([x.mean(0) if len(x) else torch.zeros(8) for x in sets])
    return unit(linear(embedder.mlp[2], linear(embedder.mlp[0], joined).clamp(min=0)))


def attentive(embedder, features, image):
    means = [x.mean(0).tanh() for x in projected(embedder, features, image).values() if len(x)]
    scores = torch.stack([linear(embedder.weight, x)[0] for x in means])
    shares = scores.exp() / scores.exp().sum()
    return unit(sum(share * x for share, x in zip(shares, means, strict=True)))


def orthogonal(embedder, features, image):
    sets, kinds = projected(embedder, features, image), {x.name: x.kind for x in embedder.features}
    first = [x for name, x in sets.items() if kinds[name] == "global"] or [*sets.values()]
    others = [x for name, x in sets.items() if kinds[name] == "local"] or [*sets.values()]
    whole = torch.cat(first).sum(0)
    axis = unit(whole)
    rest = [x - (x @ axis) * axis for x in torch.cat(others)]
    return unit(linear(embedder.join, torch.cat((whole, sum(rest) / len(rest)))))


def concatenation(embedder, features, image):
    parts = []
    for spec in embedder.features:
        x = rows(features, spec.name, image)
        parts.append(unit(x.mean(0)) if len(x) else torch.zeros(spec.width))
    return unit(torch.cat(parts))


FORMULAS = dict(zip(KINDS, (mlp, attentive, orthogonal, concatenation), strict=True))
CHOICES = {
    "all": SPECS,
    "globals": [SPECS[2], SPECS[0]],
    "locals": [SPECS[1]],
}


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("choice", CHOICES)
def test_each_is_its_formula(kind, choice):
    embedder, features = made(kind, CHOICES[choice]), drawn()
    found = embedder(features)
    for image in range(4):
        wanted = FORMULAS[kind](embedder, features, image)
        torch.testing.assert_close(found[image], wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_an_image_may_lack_a_feature_but_not_all(kind):
    embedder, features = made(kind), drawn()
    less = without(features, "a_global", 2)
    wanted = FORMULAS[kind](embedder, less, 2)
    torch.testing.assert_close(embedder(less)[2], wanted, rtol=1e-4, atol=1e-5)
    none = without(without(less, "b_local", 2), "c_global", 2)
    found = embedder(none)
    assert not found[2].any()
    assert found.norm(dim=-1).tolist() == pytest.approx([1, 1, 0, 1])


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_order_padding_and_descriptors_beyond_the_count_do_not_matter(kind):
    embedder, features = made(kind), drawn()
    wanted, local = embedder(features), features["b_local"]
    order = torch.tensor([3, 1, 0, 2])
    moved = replace(local, descriptors=local.descriptors[:, order], valid=local.valid[:, order])
    noise = replace(local, descriptors=torch.where(local.valid[..., None], local.descriptors, 50.0))
    for changed in (moved, noise):
        torch.testing.assert_close(embedder(features | {"b_local": changed}), wanted)
    whole, more = (features | {"b_local": longer(features, "b_local", n)} for n in (0, 3))
    torch.testing.assert_close(embedder(more), embedder(whole))


@pytest.mark.parametrize("kind", [Mlp, AttentiveSum, Orthogonal])
def test_every_weight_learns_even_beside_an_image_without_features(kind):
    embedder, features = made(kind).train(), drawn()
    for name in features:
        features = without(features, name, 1)
    (embedder(features) * torch.randn(4, 8)).sum().backward()
    for name, x in embedder.named_parameters():
        assert x.grad.isfinite().all(), name
        constant = kind is AttentiveSum and name == "weight.bias"  # all shares change alike
        assert bool(x.grad.abs().max() > 1e-7) != constant, name


def test_a_concatenation_s_product_is_the_mean_of_the_cosines():
    embedder, features = made(Concatenation), drawn(2)
    a, b = embedder(features)
    cosines = []
    for spec in embedder.features:
        one, other = (unit(rows(features, spec.name, image).mean(0)) for image in range(2))
        cosines.append(float(one @ other))
    assert float(a @ b) == pytest.approx(sum(cosines) / 3, abs=1e-6)
    assert embedder.dim == 6 + 5 + 3
    assert not [*embedder.parameters()]
    assert embedder.device == torch.device("cpu")


def test_the_mean_of_nothing_is_zero():
    x = torch.tensor([[[2.0], [4.0], [9.0]], [[1.0], [1.0], [1.0]]])
    valid = torch.tensor([[True, True, False], [False] * 3])
    assert mean(x, valid).tolist() == [[3.0], [0.0]]


@pytest.mark.parametrize("kind", KINDS)
def test_arguments_rebuild_it(kind):
    embedder = made(kind, **{"hidden": 5} if kind is Mlp else {})
    again = kind(**embedder.arguments)
    again.load_state_dict(embedder.state_dict())
    assert again.arguments == embedder.arguments
    assert again.side == "gallery"
    with torch.no_grad():
        assert torch.equal(again.eval()(drawn()), embedder(drawn()))


@pytest.mark.parametrize("kind", KINDS)
def test_features_that_do_not_fit_are_one_line(kind):
    embedder, features = made(kind), drawn()
    with pytest.raises(AmesError, match=r"'b_local', which is missing \(given: a_global, c_global\)"):
        embedder({name: x for name, x in features.items() if name != "b_local"})
    with pytest.raises(AmesError, match="feature 'a_global' is 3-d, the embedder takes 6-d"):
        embedder(features | {"a_global": features["c_global"]})
    with pytest.raises(AmesError, match=r"\(given: none\)"):
        embedder({})


def test_wrong_sizes_are_one_line():
    with pytest.raises(AmesError, match="hidden is 0: give a whole number of at least 1"):
        made(Mlp, hidden=0)
    for kind in KINDS[:3]:
        with pytest.raises(AmesError, match="dim is 0: give a whole number of at least 1"):
            made(kind, dim=0)
