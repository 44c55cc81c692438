"""LOCORE: figures of the released code, padding, lists, training, and weights of others."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ames.errors import AmesError, NotFiniteError
from ames.features import LocalFeatures
from ames.models import registry
from ames.models.checkpoints import load_model as load_file
from ames.models.load import load_model
from ames.models.locore import MODES, Locore
from ames.reranking.fusion import Fusion
from ames.reranking.list_scorer import ListScorer
from ames.reranking.windows import ROUTES, Windows, rank_by_windows
from ames.weights.files import save_state
from golden import locore as golden
from golden import rebuild
from twins.released_locore import ReleasedLocore

CASES = rebuild.cases("locore.json")
REST = json.loads((Path(golden.__file__).parent / "locore.json").read_text())
SMALL = {
    "local_dim": 12,
    "global_dim": 10,
    "hidden": 16,
    "num_layers": 2,
    "nhead": 2,
    "intermediate": 24,
    "local_count": 5,
    "window": 4,
    "attention_window": 8,
    "max_position_embeddings": 40,
}
cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])


def made(seed=0, **changes):
    """A small model whose tokens differ enough for its scores to."""
    torch.manual_seed(seed)
    model = Locore(**SMALL | changes).eval()
    with torch.no_grad():
        for x in model.parameters():
            x += 0.2 * torch.randn_like(x)
    return model


def golden_model(case, **changes):
    model = Locore(**golden.arguments(case) | changes).eval()
    model.load_state_dict(golden.state(case))
    return model


def images(*leading, count=5, seed=0, padded=True):
    """Features of random images: descriptors, scales, global descriptors."""
    generator = torch.Generator().manual_seed(seed)
    kept = torch.randint(1, count + 1, leading, generator=generator)
    valid = torch.arange(count) < (kept[..., None] if padded else count)
    return LocalFeatures(
        torch.randn(*leading, count, 12, generator=generator),
        valid.expand(*leading, count),
        scale=torch.randint(0, 3, (*leading, count), generator=generator).float(),
        vector=torch.randn(*leading, 10, generator=generator),
    )


def close(found, expected, atol=1e-5, rtol=1e-5):
    found, expected = torch.as_tensor(found), torch.as_tensor(expected)
    torch.testing.assert_close(found, expected, atol=atol, rtol=rtol)


def last_real(logits, candidates, extra):
    """[B, K]: of logits [B, K, slots, ...] those of each candidate's last descriptor."""
    place = (candidates.lengths + extra - 1).clamp(min=0)
    return logits.gather(2, place[..., None])[..., 0]


# ---- figures of the released code -----------------------------------------------------------------


@cases
def test_figures_of_the_released_code(case):
    model = golden_model(case)
    loss, logits = model(**golden.inputs(case), labels=torch.tensor(case["labels"]))
    for read, figures in ((logits[..., 1], "scores"), (logits.softmax(-1)[..., 1], "softmax_scores")):
        read = read[:, :, :-1]
        found = {
            "max-start": read[..., 0],
            "max-end": read[..., -1],
            "max-sum": read.sum(-1),
            "max-prod": read.prod(-1),
        }
        for mode, expected in case[figures].items():
            close(found[mode], expected, atol=1e-4, rtol=1e-4 if mode == "max-prod" else 0)
    close(loss, case["loss"], atol=0, rtol=1e-5)
    loss.backward()
    norms = {name: x.grad.norm() for name, x in model.named_parameters() if x.grad is not None}
    close(torch.stack([*norms.values()]).norm(), case["grad_norm_total"], atol=0, rtol=1e-5)
    for name, expected in case["grad_norms"].items():
        close(norms[name], expected, atol=0, rtol=1e-5)


@torch.inference_mode()
def test_the_order_of_the_candidates_matters():
    case = CASES[REST["reversed_list"]["case"]]
    given = golden.inputs(case)
    turned = {name: (x[0], x[1].flip(1)) for name, x in given.items()}
    logits = golden_model(case)(**turned)[1].flip(1)
    close(logits[:, :, -2, 1], REST["reversed_list"]["max_end"], atol=1e-4)


@pytest.mark.parametrize("case", REST["sliding_window"], ids=lambda case: case["name"])
@pytest.mark.parametrize("route", ROUTES)
@torch.inference_mode()
def test_orders_of_sliding_windows(case, route):
    model, given, expected = golden_model(case), golden.inputs(case), case["orders"][route]
    seen = []

    def score(columns):
        rows = torch.arange(len(columns))[:, None]
        logits = model(**{name: (x[0], x[1][rows, columns]) for name, x in given.items()})[1]
        seen.append(logits[:, :, -2, 1].numpy())
        return seen[-1]

    windows, fusion = Windows(route=route, stride=case["stride"]), Fusion(case["alpha"], case["temp"])
    assert windows.starts(case["candidates"], case["window"]) == expected["starts"]
    order = rank_by_windows(score, golden.similarities(case), fusion, window=case["window"], windows=windows)
    close(seen[0][0], np.float32(expected["first_window_logits"]), atol=1e-4)
    assert order.tolist() == expected["order"]


@cases
def test_scores_are_the_published_ones_of_padding_of_zeros(case):
    given = golden.inputs(case)
    masks = given.get("masks") or [torch.zeros(x.shape[:-1], dtype=torch.bool) for x in given["locals_"]]
    scales = given.get("scales") or [torch.zeros(x.shape) for x in masks]
    vectors = given.get("globals_") or (None, None)
    sides = [  # as files hold them: padding, zeros, behind the descriptors
        LocalFeatures(
            x.masked_fill(mask[..., None], 0), ~mask, scale=scale.masked_fill(mask, 0).float(), vector=vector
        ).real_first()
        for x, mask, scale, vector in zip(given["locals_"], masks, scales, vectors, strict=True)
    ]
    given["locals_"], given["scales"] = (
        [getattr(x, name) for x in sides] for name in ("descriptors", "scale")
    )
    given["masks"] = [~x.valid for x in sides]
    with torch.inference_mode():
        model = golden_model(case)
        logits = model(**given)[1][:, :, :-1, 1]
        last = last_real(logits, sides[1], model.extra_slots)
        expected = logits[..., 0], last, logits.sum(-1), logits.prod(-1)
        for mode, figures in zip(MODES, expected, strict=True):
            model = golden_model(case, score_mode=mode)
            close(model.score(*sides), figures, atol=1e-4, rtol=1e-4)
            if not case["masks"]:
                close(model.score(*sides), case["scores"][mode], atol=1e-4, rtol=1e-4)


@cases
def test_a_published_state_has_these_names(case):
    found = {name: tuple(x.shape) for name, x in Locore(**golden.arguments(case)).state_dict().items()}
    assert found == golden.shapes(case)


@pytest.mark.parametrize(
    ("changes", "tensors", "parameters"), [({}, 273, 110_257_154), ({"num_layers": 6}, 141, 57_099_266)]
)
def test_sizes_of_the_published_models(changes, tensors, parameters):
    with torch.device("meta"):
        model = Locore(**changes)
    assert len(model.state_dict()) == tensors
    assert sum(x.numel() for x in model.parameters()) == parameters
    assert model.code_bytes * (model.local_count + model.extra_slots) == 75_264


# ---- attention in bands ---------------------------------------------------------------------------


@pytest.mark.parametrize("candidates", [1, 30, 70])
@pytest.mark.parametrize("padded", [False, True])
@torch.inference_mode()
def test_bands_are_dense_attention(candidates, padded):
    model = made(window=70, max_position_embeddings=600, attention_window=90)
    query, many = images(2, padded=padded), images(2, candidates, seed=1, padded=padded)
    sides = [model._filled(model.tokens(x)) for x in (query, many)]
    expected = ReleasedLocore(model)(*sides)
    close(model.token_logits(*sides), expected)
    assert expected[..., 1].std() > 0.1
    last = last_real(expected[..., 1], many, 1)
    for mode, found in zip(MODES, (expected[:, :, 0, 1], last), strict=False):
        model.score_mode = mode
        close(model.score(query, many), found)


# ---- images and lists -----------------------------------------------------------------------------


@torch.inference_mode()
def test_padding_is_a_descriptor_of_zeros_whatever_it_holds():
    model, query, many = made(), images(1), images(1, 4, count=7, seed=1)
    many = many.trim(3)
    expected = model.score(query, many)
    longer = many.pad(9)
    longer.descriptors[~longer.valid] = torch.nan
    longer.scale[~longer.valid] = 77
    close(model.score(query, longer), expected)
    codes = model.compress(longer)
    assert codes.descriptors.shape == (1, 4, 6, 16)
    assert codes.valid[..., 0].all()
    codes.descriptors[~codes.valid] = torch.nan
    stored = model.score_tokens(model.tokens(query), model.expand(codes))
    close(stored, expected, atol=2e-2)
    close(model.score_tokens(model.tokens(query), model.expand(codes.trim(4))), stored)
    published = model(
        *zip(
            *(
                (x.descriptors.masked_fill(~x.valid[..., None], 0), ~x.valid, x.scale * x.valid, x.vector)
                for x in (query.pad(5), many.pad(5))
            ),
            strict=True,
        )
    )
    close(expected, last_real(published[1][..., 1], many, 1))


@torch.inference_mode()
def test_the_last_place_of_an_image_with_few_descriptors_says_nothing_of_it():
    model, query, many = made(), images(1), images(1, 4, seed=1)
    many.valid[0, 1, 3:] = False
    other = replace(many, descriptors=torch.randn_like(many.descriptors))
    places = [model.token_logits(model.tokens(query), model.tokens(x))[0, 1, -2, 1] for x in (many, other)]
    vectors = replace(other, vector=torch.randn_like(other.vector))
    third = model.token_logits(model.tokens(query), model.tokens(vectors))[0, 1, -2, 1]
    close(places[1], places[0])  # what the released code scores by
    close(third, places[0])
    scores = [model.score(query, x)[0, 1] for x in (many, other, vectors)]
    assert min((scores[i] - scores[j]).abs() for i, j in ((0, 1), (0, 2), (1, 2))) > 0.01


@torch.inference_mode()
def test_a_list_may_be_shorter_and_not_longer():
    model, query = made(), images(1)
    for count in (0, 1, 3):
        assert model.score(query, images(1, count, seed=1)).shape == (1, count)
    with pytest.raises(AmesError, match="a list of 5 is longer than the model's 4"):
        ListScorer(model).score(query, images(1, 5, seed=1))
    with pytest.raises(AmesError, match="a list of 5 candidates is longer than the model's 4: use windows"):
        model.score(query, images(1, 5, seed=1))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"vector": None}, "Locore reads a global descriptor of each image: none was given"),
        ({"vector": torch.zeros(1, 9)}, "global descriptors are 9-d, this model takes 10-d"),
        ({"scale": None}, "Locore reads the scale of each descriptor: none was given"),
        (
            {"scale": torch.full((1, 5), 3)},
            r"a descriptor has scale 3: give the index of a scale, 0 \.\.\. 2",
        ),
        ({"scale": torch.full((1, 5), 0.5)}, r"a descriptor has scale 0\.5: give"),
        ({"scale": torch.full((1, 5), torch.nan)}, "a descriptor has scale nan: give"),
    ],
)
def test_what_else_an_image_needs(broken, message):
    local = images(1, padded=False)
    with pytest.raises(AmesError, match=message):
        made().tokens(
            LocalFeatures(
                local.descriptors, local.valid, **{"scale": local.scale, "vector": local.vector} | broken
            )
        )


def test_a_global_descriptor_that_is_not_finite_names_its_image():
    local = images(3)
    local.vector[2, 4] = torch.inf
    with pytest.raises(NotFiniteError) as error:
        made().tokens(local)
    assert error.value.image == 2


@torch.inference_mode()
def test_without_global_token_and_scales():
    model = made(global_dim=None, scales=0)
    assert (model.reads_vector, model.reads_scale, model.extra_slots) == (False, False, 0)
    bare = LocalFeatures.from_descriptors(images(1, 4).descriptors)
    tokens = model.tokens(bare)
    close(tokens.descriptors, model.local_to_lm(bare.descriptors))
    assert model.score(bare.map(lambda x: x[:, 0]), bare).isfinite().all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score_mode": "max"}, "score_mode 'max' is none of max-start, max-end, max-sum, max-prod"),
        ({"nhead": 3}, "hidden 16 is not a multiple of nhead 3"),
        ({"attention_window": 9}, "attention_window 9 is odd"),
        (
            {"window": 5},
            "a list of 5 candidates of 6 tokens needs 44 positions, max_position_embeddings is 40",
        ),
    ],
)
def test_arguments_that_do_not_fit(changes, message):
    with pytest.raises(AmesError, match=message):
        Locore(**SMALL | changes)


# ---- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("kept", [False, True])
def test_binary_cross_entropy_of_all_tokens_is_the_loss(count, kept):
    model = made(activation_checkpointing=kept).train()
    query, many = images(2), images(2, count, seed=1)
    labels = torch.tensor([[0.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]])[:, :count]
    logits = model.list_logits(query, many)
    assert logits.shape == (2, count, 7)
    F.binary_cross_entropy_with_logits(logits, labels[..., None].expand_as(logits)).backward()
    found = {name: x.grad for name, x in model.named_parameters()}
    model.zero_grad()
    other = made()
    both = other.token_logits(other.tokens(query), other.tokens(many))
    target = labels.long()[..., None].expand(both.shape[:-1])
    F.cross_entropy(both.flatten(0, 2), target.flatten()).backward()
    for name, x in other.named_parameters():
        if name.endswith("pad_embedding"):
            assert x.grad is None
        else:
            close(found[name], x.grad, atol=1e-7)


# ---- weights of others ----------------------------------------------------------------------------


@cases
def test_the_arguments_of_a_published_file(case):
    found = Locore.arguments_of(golden.state(case))
    shown = golden.arguments(case)
    names = {"local_dim", "hidden", "num_layers", "intermediate", "max_position_embeddings", "global_dim"}
    assert {name: found[name] for name in names} == {name: shown[name] for name in names}
    assert (found.get("bottleneck"), found["scales"]) == (shown["bottleneck"], 3)
    assert Locore.arguments_of({"mtc_token": torch.zeros(3)}) is None


def test_heads_and_a_global_token_that_no_tensor_shows():
    with torch.device("meta"):
        base = Locore()
        found = Locore.arguments_of(base.state_dict())
    assert (found["local_dim"], found["hidden"], found["num_layers"]) == (768, 768, 12)
    assert not {"global_dim", "nhead"} & set(found)
    assert base.arguments["nhead"] == 12
    assert Locore(**SMALL | {"hidden": 64, "nhead": None}).arguments["nhead"] == 2


def test_a_published_file_is_recognized(tmp_path):
    case = CASES[4]
    save_state(tmp_path / "model.safetensors", golden.state(case), {})
    given = golden.arguments(case)
    told = ("nhead", "local_count", "window", "attention_window", "layer_norm_eps")
    model = load_file(tmp_path / "model.safetensors", **{name: given[name] for name in told})
    close(model(**golden.inputs(case))[1][:, :, -2, 1], case["scores"]["max-end"], atol=1e-4)
    with pytest.raises(AmesError, match="its hidden is 32, not 64"):
        load_file(tmp_path / "model.safetensors", hidden=64)
    lacking = golden.state(case)
    del lacking["language_model.longformer.encoder.layer.1.attention.self.key_global.bias"]
    save_state(tmp_path / "other.safetensors", lacking, {})
    message = (
        r"other.safetensors: weights of another model: it lacks .*layer.1.attention.self.key_global.bias"
    )
    with pytest.raises(AmesError, match=message):
        load_file(tmp_path / "other.safetensors", window=6, local_count=5)


def test_the_published_base_is_taken_from_the_folder_of_weights(tmp_path, monkeypatch):
    name, case = "locore_dinov2_base", CASES[4]
    row = registry.MODELS[name]
    message = "take model.safetensors from https://huggingface.co/vislang/locore_dinov2_base"
    with pytest.raises(AmesError, match=re.escape(message)):
        load_model(name, folder=tmp_path)
    save_state(tmp_path / "model.safetensors", golden.state(case), {})
    monkeypatch.setitem(registry.MODELS, name, replace(row, arguments=golden.arguments(case)))
    model = load_model(name, folder=tmp_path)
    close(model(**golden.inputs(case))[1][:, :, -2, 1], case["scores"]["max-end"], atol=1e-4)
    other = golden.arguments(case) | {"hidden": 64}
    monkeypatch.setitem(registry.MODELS, name, replace(row, arguments=other))
    message = r"not the weights of locore_dinov2_base: .*sep_embedding is \(32,\), this model's is \(64,\)"
    with pytest.raises(AmesError, match=message):
        load_model(name, folder=tmp_path)


def text_model(prefix="longformer."):
    """Tensors of a text model of 3 layers and 8 positions, under the names of its files."""
    case = {**CASES[0], "hidden": 16, "layers": 3, "max_position_embeddings": 10}
    parts = (f"{golden.ENCODER}encoder.", f"{golden.ENCODER}embeddings.")
    ours = {name: x for name, x in golden.state(case).items() if name.startswith(parts)}
    found = {name.replace(golden.ENCODER, prefix): x for name, x in ours.items()}
    others = (f"{prefix}embeddings.word_embeddings.weight", f"{prefix}pooler.dense.bias", "lm_head.bias")
    return found | {name: torch.zeros(50) for name in others}


@pytest.mark.parametrize("prefix", ["longformer.", ""])
def test_start_from_a_text_model(prefix):
    model, state = made(intermediate=48), text_model(prefix)
    kept = model.longformer.sep_embedding.clone()
    model.start_from_longformer(state)
    own = model.longformer.state_dict()
    for name in ("encoder.layer.1.attention.self.value_global.weight", "encoder.layer.0.output.dense.bias"):
        assert torch.equal(own[name], state[prefix + name])
    name = "embeddings.position_embeddings.weight"
    positions = state[prefix + name]
    assert torch.equal(own[name], torch.cat((positions, *[positions[2:]] * 4))[:40])
    assert torch.equal(own["sep_embedding"], kept)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda x: x.pop("longformer.encoder.layer.1.output.dense.bias"),
            "it lacks encoder.layer.1.output.dense.bias",
        ),
        (
            lambda x: x.pop("longformer.embeddings.position_embeddings.weight"),
            "it lacks embeddings.position_emb",
        ),
        (
            lambda x: x.update({"longformer.embeddings.LayerNorm.bias": torch.ones(3)}),
            r"LayerNorm.bias is \(3,\)",
        ),
        (
            lambda x: x.update({"longformer.embeddings.position_embeddings.weight": torch.ones(2, 16)}),
            "no table of",
        ),
        (lambda x: x.clear(), "it lacks "),
    ],
)
def test_a_text_model_that_does_not_fit(spoil, message):
    model, state = made(intermediate=48), text_model()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    spoil(state)
    with pytest.raises(AmesError, match=message):
        model.start_from_longformer(state, source="text.bin")
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
