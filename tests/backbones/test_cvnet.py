"""CVNet against the released code's figures, and a deep ResNet's file against one layer by layer."""

import pickle

import pytest
import torch
import torch.nn.functional as F

from ames.backbones.cvnet import CvNet
from ames.backbones.pooling import gem, regional_gem
from ames.backbones.selection import Selection, select
from ames.errors import AmesError
from golden import backbones as golden

FIGURES = golden.FIGURES["cvnet"]
R50, R101 = (3, 4, 6, 3), (3, 4, 23, 3)


@pytest.fixture(scope="module")
def state():
    return golden.state(golden.cvnet(R50), 3)


@pytest.fixture(scope="module")
def file(state, tmp_path_factory):
    """A file as CVNet's authors lay theirs out: a training checkpoint."""
    path = tmp_path_factory.mktemp("cvnet") / "r50.pyth"
    content = {f"module.encoder_q.{name}": x for name, x in state.items()}
    content |= {"module.encoder_k.head.fc.bias": torch.zeros(2048), "module.queue": torch.zeros(4, 4)}
    torch.save({"epoch": 3, "cfg": "A: 1", "model_state": content}, path)
    return path


@torch.no_grad()
def test_the_released_codes_figures(tmp_path):
    content = golden.state(golden.cvnet(R101), FIGURES["seed"])
    torch.save({"model_state": {f"encoder_q.{name}": x for name, x in content.items()}}, tmp_path / "r101.pt")
    network = CvNet("cvnet", weights=tmp_path / "r101.pt")
    local, vector, weight = network.maps(golden.image(FIGURES["seed"], 96, 128))
    assert list(local.shape) == FIGURES["local_shape"]
    assert weight is None
    found = {
        "global_first8": vector[0, :8],
        "global_norm": vector.norm(),
        "local_first8": local.flatten()[:8],
        "local_norm": local.norm(),
        "local_min": local.min(),
    }
    for name, x in found.items():
        torch.testing.assert_close(x, torch.tensor(FIGURES[name]), rtol=FIGURES["tolerance"], atol=0)


@torch.no_grad()
def test_a_checkpoint_of_training_is_read_and_noted(file, state, tmp_path):
    network = CvNet("cvnet-r50", weights=file)
    x = golden.image(4, 50, 33)
    local, vector, _ = network.maps(x)
    assert local.shape == (1, 1024, 4, 3)
    assert vector.shape == (1, 2048)
    noted = pickle.loads(pickle.dumps(network)).provenance()
    assert noted["backbone"] == "cvnet-r50"
    assert noted["weights"].startswith("r50.pyth sha256 ")
    assert noted["scales"] == [0.7071, 1.0, 1.4142]

    # bare names, counts of batches left out, as a plain dict of tensors
    bare = {name: x for name, x in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(bare, tmp_path / "bare.pt")
    again = CvNet("cvnet-r50", weights=tmp_path / "bare.pt").maps(x)
    assert torch.equal(again.local, local)
    assert torch.equal(again.vector, vector)

    # the first tensor that does not fit is named as the file has it
    del bare["s3.b6.f.b_bn.running_var"]
    torch.save(bare, tmp_path / "bare.pt")
    with pytest.raises(AmesError, match=r"it lacks s3\.b6\.f\.b_bn\.running_var \(256,\)"):
        CvNet("cvnet-r50", weights=tmp_path / "bare.pt")
    with pytest.raises(AmesError, match=r"it lacks s3\.b7\.f\.a\.weight \(256, 1024, 1, 1\)"):
        CvNet("cvnet", weights=file)


def test_centers_are_those_of_the_receptive_fields():
    found = CvNet.centers(None, 2, 3, 32, 48)
    assert found.shape == (2, 3, 2)
    assert found[1, 2].tolist() == [16, 32]
    # DELF's boxes: from 16 i - 145, over 291 pixels
    box = torch.tensor([16 * 1 - 145, 16 * 1 - 145 + 290])
    assert found[1, 0, 0] == box.float().mean()


def test_random_weights_come_from_their_seed():
    one, same = (CvNet("cvnet-r50", weights=None, seed=4) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert one.provenance()["weights"] == "random seed 4"
    assert one.channels == "bgr"


def test_the_smaller_network_is_not_fetched():
    with pytest.raises(AmesError, match="cvnet-r50: no address of its weights is known"):
        CvNet("cvnet-r50")


class Least(torch.nn.Module):
    """A ReLU from another value than 0."""

    def forward(self, x):
        return torch.maximum(x, torch.tensor(0.014))


def with_relu_p(network):
    """The network with ReLU-P where the authors have it: behind each block of the first three stages, and
    inside of those of the first.
    """
    stages = network.network.encoder.stages
    for block in (x for stage in stages[:3] for x in stage.layers):
        block.activation = Least()
    for block in stages[0].layers:
        block.layer[0].activation = block.layer[1].activation = Least()
    return network


def stages_with_relu(network, image):
    stages = network.network.encoder.stages
    local = stages[2](stages[1](stages[0](network.network.embedder(image))))
    return stages[3](local.relu())


@torch.no_grad()
def test_superglobal_s_vector_is_the_pooling_of_all_scales(file):
    plain, network, changed = (CvNet("cvnet-r50", weights=file) for _ in range(3))
    network.superglobal = True
    images = [golden.image(4, 64, 96), golden.image(5, 96, 128)]
    scales = [network.maps(x) for x in images]
    selection = Selection(10, vector="superglobal")
    _, vector = select(scales, [torch.zeros(*x.local.shape[2:], 2) for x in scales], selection)
    body = with_relu_p(changed).network
    units, without = [], []
    for image in images:
        deep = body.encoder(body.embedder(image)).last_hidden_state
        flat = stages_with_relu(plain, image)
        for found, last in ((units, deep), (without, flat)):
            whole = gem(regional_gem(last))
            found.append(F.normalize(network.fc(F.normalize(whole, dim=-1)), dim=-1))
    torch.testing.assert_close(vector, F.normalize(torch.stack(units).amax(0), dim=-1))
    assert not torch.allclose(vector, F.normalize(torch.stack(without).amax(0), dim=-1), atol=1e-4)
    torch.testing.assert_close(scales[0].local, plain.maps(images[0]).local)
    assert not torch.allclose(scales[0].vector, plain.maps(images[0]).vector, atol=1e-2)
    assert "pooling" in network.provenance()  # files of the earlier pooling are others
    assert "pooling" not in plain.provenance()
