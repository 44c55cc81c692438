"""A model that starts as a soft matcher finds the likes of a descriptor before any training."""

import pytest
import torch

from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.models.locore import Locore
from ames.models.rrt import RRT

D, COUNT = 96, 30


def descriptors(*shape, seed=0):
    return torch.nn.functional.normalize(
        torch.randn(*shape, D, generator=torch.Generator().manual_seed(seed)), dim=-1
    )


def captured(owner, name, call):
    """The arguments of ``owner.name`` in a call."""
    seen, original = [], getattr(owner, name)

    def recording(*args):
        seen.append(args)
        return original(*args)

    setattr(owner, name, recording)
    call()
    return seen[0]


def weights(query, key, heads):
    """Attention [S, S], the mean over the heads, of queries and keys [S, d]."""
    q, k = (x.unflatten(-1, (heads, -1)).transpose(0, 1) for x in (query, key))
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1).mean(0)


@pytest.mark.parametrize("pre_norm", [True, False])
@torch.no_grad()
def test_a_descriptor_of_a_pair_finds_its_copy_in_the_other_image(pre_norm):
    torch.manual_seed(0)
    model = RRT(
        local_dim=D,
        global_dim=D,
        model_dim=64,
        nhead=2,
        num_layers=3,
        scales=0,
        normalize_before=pre_norm,
        init="matching",
    ).eval()
    model.fit_projection(descriptors(500, seed=1))
    one, order = descriptors(1, COUNT), torch.randperm(COUNT)
    whole = descriptors(1, seed=2)
    query = LocalFeatures.from_descriptors(one, vector=whole)
    other = LocalFeatures.from_descriptors(one[:, order], vector=whole)
    x, _ = captured(model.encoder, "first", lambda: model.pairs(query, other))
    layer = model.encoder.stack[0]
    before = layer.norm1(x[0]) if pre_norm else x[0]
    projected = torch.nn.functional.linear(before, layer.self_attn.in_proj_weight)
    found = weights(projected[:, :64], projected[:, 64:128], 2)
    extra = model.extra_slots
    first, second = 1 + extra, 1 + extra + COUNT + 1 + extra  # of the descriptors of either image
    # A descriptor that lies along the mark may find itself.
    right = (
        found[first : first + COUNT].argmax(-1) - second == order.argsort(),
        found[second:].argmax(-1) - first == order,
    )
    assert all(x.float().mean() >= 0.8 for x in right)


def made(**changes):
    sizes = {"hidden": 64, "nhead": 2, "num_layers": 3, "intermediate": 64, "attention_window": 24}
    lists = {"local_count": COUNT, "window": 3, "max_position_embeddings": 130}
    arguments = {"local_dim": D, "global_dim": D, "scales": 0, **sizes, **lists, "init": "matching"}
    return Locore(**arguments | changes)


@torch.no_grad()
def test_a_descriptor_of_a_list_finds_its_copy_in_the_query_then_its_own_image():
    torch.manual_seed(0)
    model = made().eval()
    model.fit_projection(descriptors(500, seed=1))
    order = torch.randperm(COUNT)
    query = descriptors(1, COUNT)
    images = torch.stack((query[0, order], *descriptors(2, COUNT, seed=3)))[None]
    call = lambda: model.score(  # noqa: E731
        LocalFeatures.from_descriptors(query, vector=descriptors(1, seed=4)),
        LocalFeatures.from_descriptors(images, vector=descriptors(1, 3, seed=5)),
    )
    x, *_ = captured(model.longformer, "forward", call)
    x = model.longformer.embeddings(x)[0]
    first, second = (layer.attention["self"] for layer in model.longformer.layers[:2])
    slots = model.slots + 1
    places = slots + 1 + torch.arange(COUNT)  # of the first candidate's descriptors
    found = weights(first.query(x), first.key(x), 2)
    assert torch.equal(found[places].argmax(-1), 1 + order)
    own = weights(second.query(x), second.key(x), 2).unflatten(1, (4, slots)).sum(-1)
    assert torch.equal(own.argmax(-1), torch.arange(4).repeat_interleave(slots))


def test_what_a_soft_matcher_needs():
    with pytest.raises(AmesError, match="init 'matching' needs at least 2 layers"):
        made(num_layers=1)
    with pytest.raises(AmesError, match="at least 16 dimensions a head, has 8"):
        made(nhead=8)
    with pytest.raises(AmesError, match="needs one projection of the descriptors: set a hidden other than"):
        made(hidden=D)
    with pytest.raises(ValueError, match="init 'random' is none of paper, matching"):
        made(init="random")
    with pytest.raises(ValueError, match="init 'random' is none of paper, matching"):
        RRT(init="random")
    with pytest.raises(ValueError, match="init 'matching' is for landmarks, variant gld"):
        RRT(variant="sop", init="matching")
