"""SigLIP's image tower against transformers' own model, from folders with and without the text tower."""

import pickle

import pytest
import torch
import transformers

from ames.backbones.siglip2 import SigLip2
from ames.errors import AmesError
from golden import backbones as golden

SETTINGS = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 64,
}
TEXT = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 3}


def tiny():
    return transformers.SiglipVisionConfig(**SETTINGS)


@pytest.fixture(scope="module")
def network():
    return SigLip2("siglip2-b", weights=None, config=tiny(), attention=True, seed=3)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 112), (112, 16)])
def test_maps_are_what_transformers_gives(network, height, width):
    x = torch.cat([golden.image(i, height, width) for i in range(2)])
    expected = network.network(x, interpolate_pos_encoding=True)
    local, vector, weight = network.maps(x)
    rows, columns = height // 16, width // 16
    assert local.shape == (2, 48, rows, columns)
    assert weight.shape == (2, rows, columns)
    for row, col in ((0, columns - 1), (rows - 1, 0)):
        assert torch.equal(local[..., row, col], expected.last_hidden_state[:, row * columns + col])
    assert torch.equal(vector, expected.pooler_output)
    torch.testing.assert_close(weight.sum((1, 2)), torch.ones(2))


@torch.no_grad()
@pytest.mark.parametrize("whole", [True, False], ids=["both towers", "image tower"])
def test_a_folder(tmp_path, whole):
    vision = SETTINGS | {"model_type": "siglip_vision_model"}
    if whole:
        text = TEXT | {"vocab_size": 20, "max_position_embeddings": 4}
        model = transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision))
    else:
        model = transformers.SiglipVisionModel(tiny())
    model.eval().save_pretrained(tmp_path)
    network = pickle.loads(pickle.dumps(SigLip2("siglip2-b", weights=tmp_path, config=tiny())))
    x = golden.image(4, 48, 80)
    tower = model.vision_model if whole else model
    expected = tower(x, interpolate_pos_encoding=True)
    local, vector, weight = network.maps(x)
    assert torch.equal(local.flatten(2).transpose(1, 2), expected.last_hidden_state)
    assert torch.equal(vector, expected.pooler_output)
    assert weight is None
    noted = network.provenance()
    assert (noted["backbone"], noted["long_side"], noted["multiple"]) == ("siglip2-b", 64, 16)


def test_a_single_file_is_not_read(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "x.pt")
    with pytest.raises(AmesError, match="weights of SigLip2 are read from a Hugging Face folder"):
        SigLip2("siglip2-b", weights=tmp_path / "x.pt", config=tiny())
