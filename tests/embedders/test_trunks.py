"""Trunks against the published networks: sizes, names of tensors, and values of another implementation."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from ames.embedders.checkpoints import load_trunk
from ames.embedders.mobilenet_v2 import InvertedResidual, rounded
from ames.embedders.network import GlobalNetwork
from ames.embedders.shufflenet_v2 import Unit
from ames.embedders.trunks import TRUNKS, build_trunk
from ames.errors import AmesError

# Parameters without the classifier, and channels of the last map, as published.
PUBLISHED = {
    "resnet18": (11_176_512, 512),
    "resnet50": (23_508_032, 2048),
    "mobilenet_v2": (2_223_872, 1280),
    "shufflenet_v2": (1_253_604, 1024),
}


def seeded(module, seed=1):
    """Values that differ between layers, statistics of normalizations among them; in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, x in module.state_dict().items():
        if name.endswith("running_var"):
            x.copy_(1 + 0.5 * torch.rand(x.shape, generator=generator))
        elif x.is_floating_point() and x.ndim == 1:
            x.copy_(name.endswith("weight") + 0.1 * torch.randn(x.shape, generator=generator))
    return module.eval()


def built(name, width=1.0):
    torch.manual_seed(0)
    return seeded(build_trunk(name, width).module)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_sizes_are_the_published_ones(name):
    parameters, channels = PUBLISHED[name]
    trunk = build_trunk(name)
    assert sum(x.numel() for x in trunk.module.parameters()) == parameters
    assert trunk.channels == channels
    assert (trunk.mean, trunk.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.no_grad():
        assert trunk.module(torch.randn(2, 3, 64, 97)).shape == (2, channels, 2, 4)  # a cell has 32 pixels


@pytest.mark.parametrize("name", ["resnet10", "resnet18", "mobilenet_v2", "shufflenet_v2"])
@pytest.mark.parametrize("width", [0.25, 1.5])
def test_a_width_scales_the_channels(name, width):
    trunk = build_trunk(name, width)
    whole = build_trunk(name)
    with torch.no_grad():
        assert trunk.module.eval()(torch.randn(1, 3, 32, 32)).shape == (1, trunk.channels, 1, 1)
    sizes = [sum(x.numel() for x in y.module.parameters()) for y in (trunk, whole)]
    assert (sizes[0] < sizes[1]) == (width < 1)
    if name.startswith("resnet"):
        assert trunk.channels == width * whole.channels


def test_the_weights_come_from_torch_s_random_state():
    a, b = (built("shufflenet_v2", 0.5) for _ in range(2))
    assert all(torch.equal(x, b.state_dict()[name]) for name, x in a.state_dict().items())


# ---- values ----------------------------------------------------------------------------------------------


def of_resnet(name):
    """The name in transformers' ResNet of one of our tensors."""
    if name[0] in "01":
        layer = "convolution" if name[0] == "0" else "normalization"
        return f"embedder.embedder.{layer}{name[1:]}"
    stage, block, layer, *rest = name.split(".")
    if layer == "downsample":
        layer, rest = f"shortcut.{('convolution', 'normalization')[int(rest[0])]}", rest[1:]
    else:
        kind, number = re.fullmatch(r"(conv|bn)(\d)", layer).groups()
        layer = f"layer.{int(number) - 1}.{'convolution' if kind == 'conv' else 'normalization'}"
    return ".".join([f"encoder.stages.{int(stage) - 4}.layers.{block}", layer, *rest])


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet_computes_what_another_implementation_computes(name):
    transformers = pytest.importorskip("transformers")
    basic = {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]}
    other = transformers.ResNetModel(transformers.ResNetConfig(**basic if name == "resnet18" else {})).eval()
    ours, images = built(name), torch.rand(2, 3, 70, 96)
    other.load_state_dict({of_resnet(key): x for key, x in ours.state_dict().items()}, strict=True)
    with torch.no_grad():
        wanted = other(images).last_hidden_state
        torch.testing.assert_close(ours(images), wanted, rtol=1e-4, atol=1e-4 * float(wanted.max()))


def test_mobilenet_computes_what_another_implementation_computes():
    transformers = pytest.importorskip("transformers")
    config = transformers.MobileNetV2Config(tf_padding=False, layer_norm_eps=1e-5)
    other = transformers.MobileNetV2Model(config, add_pooling_layer=False).eval()
    ours, images = built("mobilenet_v2"), torch.rand(2, 3, 70, 96)
    pairs = zip(other.state_dict(), ours.state_dict().values(), strict=True)  # both in the order of layers
    other.load_state_dict(dict(pairs), strict=True)
    with torch.no_grad():
        wanted = other(images).last_hidden_state
        torch.testing.assert_close(ours(images), wanted, rtol=1e-4, atol=1e-4 * float(wanted.max()))


def test_shufflenet_s_units_pass_one_half_and_put_channels_of_both_side_by_side():
    torch.manual_seed(0)
    unit, x = seeded(Unit(12, 12, 1)), torch.randn(2, 12, 5, 5)
    with torch.no_grad():
        found = unit(x)
        assert torch.equal(found[:, 0::2], x[:, :6])
        torch.testing.assert_close(found[:, 1::2], unit.branch2(x[:, 6:]))
        down = seeded(Unit(12, 20, 2))
        found = down(x)
        assert found.shape == (2, 20, 3, 3)
        torch.testing.assert_close(found[:, 0::2], down.branch1(x))
        torch.testing.assert_close(found[:, 1::2], down.branch2(x))


def test_an_inverted_residual_adds_its_input_where_both_are_alike():
    x = torch.randn(1, 8, 6, 6)
    for outputs, stride, adds in ((8, 1, True), (8, 2, False), (16, 1, False)):
        block = seeded(InvertedResidual(8, outputs, stride, 6))
        with torch.no_grad():
            torch.testing.assert_close(block(x), block.conv(x) + x if adds else block.conv(x))


def test_channels_of_a_width_are_multiples_of_8():
    """Of MobileNetV2 at 0.35 and 1.4, as published."""
    assert [rounded(0.35 * x) for x in (32, 16, 24, 32, 64, 96, 160, 320)] == [16, 8, 8, 16, 24, 32, 56, 112]
    assert [rounded(1.4 * x) for x in (32, 16, 24, 32, 64, 96, 160, 320)] == [
        48,
        24,
        32,
        48,
        88,
        136,
        224,
        448,
    ]


# ---- files -----------------------------------------------------------------------------------------------


def torchvision_s(trunk, name):
    """The name in torchvision's files of one of our tensors."""
    if trunk == "mobilenet_v2":
        return f"features.{name}"
    part, _, rest = name.partition(".")
    parts = {"0": "conv1", "1": "bn1"} | {str(n): f"layer{n - 3}" for n in range(4, 8)}
    if trunk == "shufflenet_v2":
        parts = {"0": "conv1", "2": "stage2", "3": "stage3", "4": "stage4", "5": "conv5"}
    return f"{parts[part]}.{rest}"


# Some tensors of torchvision's files, by hand, and how many a file has beside the classifier's.
KNOWN = {
    "resnet18": (
        120,
        {
            "conv1.weight": (64, 3, 7, 7),
            "bn1.running_mean": (64,),
            "layer1.0.conv1.weight": (64, 64, 3, 3),
            "layer2.0.downsample.0.weight": (128, 64, 1, 1),
            "layer2.0.downsample.1.num_batches_tracked": (),
            "layer4.1.bn2.bias": (512,),
        },
    ),
    "mobilenet_v2": (
        312,
        {
            "features.0.0.weight": (32, 3, 3, 3),
            "features.1.conv.0.0.weight": (32, 1, 3, 3),
            "features.1.conv.1.weight": (16, 32, 1, 1),
            "features.2.conv.0.0.weight": (96, 16, 1, 1),
            "features.17.conv.2.weight": (320, 960, 1, 1),
            "features.17.conv.3.running_var": (320,),
            "features.18.0.weight": (1280, 320, 1, 1),
        },
    ),
    "shufflenet_v2": (
        336,
        {
            "conv1.0.weight": (24, 3, 3, 3),
            "stage2.0.branch1.0.weight": (24, 1, 3, 3),
            "stage2.0.branch1.2.weight": (58, 24, 1, 1),
            "stage2.0.branch2.0.weight": (58, 24, 1, 1),
            "stage2.0.branch2.5.weight": (58, 58, 1, 1),
            "stage3.7.branch2.3.weight": (116, 1, 3, 3),
            "conv5.0.weight": (1024, 464, 1, 1),
        },
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_file_of_torchvision_s_names_is_read(name, tmp_path):
    other = built(name)
    file = {torchvision_s(name, key): x.clone() for key, x in other.state_dict().items()}
    count, shapes = KNOWN[name]
    assert len(file) == count
    assert {key: tuple(file[key].shape) for key in shapes} == shapes
    file |= {"fc.weight": torch.zeros(7, 3), "fc.bias": torch.zeros(7), "classifier.1.bias": torch.zeros(7)}
    torch.save(file, tmp_path / "file.pth")
    torch.manual_seed(9)
    network = GlobalNetwork(trunk=name, dim=4)
    head = network.whiten.weight.clone()
    load_trunk(network, tmp_path / "file.pth")
    found = network.backbone.state_dict()
    assert all(torch.equal(x, found[key]) for key, x in other.state_dict().items())
    assert torch.equal(network.whiten.weight, head)


def test_older_files_without_counts_and_files_of_embedders_are_read(tmp_path):
    other = built("resnet18")
    whole = other.state_dict()
    bare = {key: x for key, x in whole.items() if not key.endswith("num_batches_tracked")}
    for prefix, state in (
        ("backbone.", bare),
        ("query.backbone.", whole),
        ("", bare),
        ("both.backbone.", bare),
    ):
        more = {} if not prefix else {f"{prefix.removesuffix('backbone.')}whiten.bias": torch.zeros(2)}
        torch.save({f"{prefix}{key}": x for key, x in state.items()} | more, tmp_path / "file.pt")
        network = GlobalNetwork(trunk="resnet18", dim=4)
        load_trunk(network, tmp_path / "file.pt")
        found = network.backbone.state_dict()
        assert all(torch.equal(x, found[key]) for key, x in bare.items()), prefix


def test_a_file_of_another_network_is_one_line(tmp_path):
    torch.save(built("resnet18").state_dict(), tmp_path / "file.pt")
    with pytest.raises(AmesError, match=r"file.pt: weights of another model: it lacks 0.0.weight") as error:
        load_trunk(GlobalNetwork(trunk="mobilenet_v2", dim=4), tmp_path / "file.pt")
    assert "\n" not in str(error.value)
    with pytest.raises(AmesError, match=r"0.weight is \(64, 3, 7, 7\), this model's is \(16, 3, 7, 7\)"):
        load_trunk(GlobalNetwork(trunk="resnet18", width=0.25, dim=4), tmp_path / "file.pt")


# ---- backbones of the library ----------------------------------------------------------------------------


def test_a_backbone_of_the_library_is_a_trunk():
    trunk = build_trunk("efficientnet-lite0")
    assert trunk.channels == 1280
    assert trunk.mean == (127 / 255,) * 3
    assert not trunk.bgr
    assert all(x.requires_grad for x in trunk.module.parameters())
    for module in trunk.module.modules():  # random weights without normalization: maps would be zeros
        if isinstance(module, nn.Conv2d):
            module.weight.data.mul_(4)
    maps = trunk.module.train()(torch.rand(1, 3, 64, 64))
    assert maps.shape == (1, 1280, 2, 2)
    maps.sum().backward()
    first = next(trunk.module.parameters())
    assert float(first.grad.abs().max()) > 0


def test_channels_of_a_backbone_that_takes_blue_first_are_told_in_rgb():
    pytest.importorskip("transformers")
    trunk = build_trunk("cvnet-r50")
    assert trunk.bgr
    assert trunk.mean == pytest.approx((0.485, 0.456, 0.406))
    network = GlobalNetwork(trunk="cvnet-r50", dim=4, size=32)
    image = torch.tensor([10, 20, 30], dtype=torch.uint8).expand(1, 8, 8, 3).numpy()  # blue, green, red
    blue, _, red = network.inputs.tensor(image)[0, :, 0, 0].tolist()
    assert blue == pytest.approx((10 / 255 - 0.406) / 0.225, rel=1e-5)
    assert red == pytest.approx((30 / 255 - 0.485) / 0.229, rel=1e-5)


def test_a_trunk_of_patches_takes_whole_patches():
    pytest.importorskip("transformers")
    for options in ({"size": 230}, {"size": 224, "resize": "long"}):
        with pytest.raises(
            AmesError, match="multiples of 14: give resize=crop or square, and a size such as 224"
        ):
            GlobalNetwork(trunk="dinov2-s", dim=4, **options)
    with torch.no_grad():
        made = GlobalNetwork(trunk="dinov2-s", dim=4, size=28).eval()
        assert made(made.inputs.tensor([made.inputs.fit(np.zeros((40, 50, 3), np.uint8))])).shape == (1, 4)


def test_wrong_trunks_are_one_line():
    with pytest.raises(AmesError, match="trunk 'resnet51' does not exist; did you mean resnet50"):
        build_trunk("resnet51")
    with pytest.raises(AmesError, match=r"width 9 is outside 0.05 ... 4"):
        build_trunk("resnet18", 9)
    with pytest.raises(AmesError, match="its channels are those of the published network; leave width out"):
        build_trunk("efficientnet-lite0", 0.5)
    with pytest.raises(AmesError, match="its weights are read from a file of trunk_weights"):
        build_trunk("resnet18", weights="published")
    assert {"resnet50", "mobilenet_v2", "shufflenet_v2", "efficientnet-lite0", "dinov2"} <= {*TRUNKS}
