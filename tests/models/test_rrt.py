"""RRT: figures of the released matchers, their files, what must not change a score, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ames.errors import AmesError, NotFiniteError
from ames.features import LocalFeatures
from ames.models import registry
from ames.models.checkpoints import load_model
from ames.models.load import build_model
from ames.models.load import load_model as load_by_name
from ames.models.rrt import RRT
from ames.reranking.scorer import PairScorer
from golden import rebuild, rrt
from twins.released_rrt import ReleasedRRT

TINY = {"model_dim": 16, "nhead": 4, "num_layers": 2, "dim_feedforward": 32, "local_dim": 16}
LANDMARKS, PRODUCTS = rrt.CASES["gld"], rrt.CASES["sop"]
name_of = {"ids": lambda case: case["name"]}


def made(variant="gld", **arguments):
    torch.manual_seed(0)
    return RRT(variant=variant, **TINY | ({"global_dim": 24} if variant == "gld" else {}) | arguments).eval()


def images(count, slots, seed=0, width=16):
    generator = torch.Generator().manual_seed(seed)
    return LocalFeatures.from_descriptors(
        torch.randn(count, slots, width, generator=generator),
        scale=torch.randint(0, 7, (count, slots), generator=generator),
        vector=torch.randn(count, 24, generator=generator),
        positions=torch.rand(count, slots, 2, generator=generator),
    )


def near(found, expected, atol=2e-5):
    torch.testing.assert_close(found, torch.as_tensor(expected), atol=atol, rtol=0)


# ---- figures of the released code -----------------------------------------------------------------


@pytest.mark.parametrize("case", LANDMARKS, **name_of)
@torch.inference_mode()
def test_figures_of_the_released_landmark_matcher(case):
    model, (query, database) = rrt.model(case, "gld"), rrt.landmark_pairs(case)
    masks = (None, None) if not case["masks"] else (~query.valid, ~database.valid)
    found = model(
        query.descriptors,
        database.descriptors,
        src_mask=masks[0],
        tgt_mask=masks[1],
        src_global=query.vector,
        tgt_global=database.vector,
        src_scales=query.scale,
        tgt_scales=database.scale,
    )
    near(found, case["logits"])
    near(model.pairs(query, database), case["logits"])
    token = model.class_token(model.tokens(query), model.tokens(database))
    near(token[0, :6], case["class_token_first6"])
    near(ReleasedRRT(model)(model.tokens(query), model.tokens(database)), case["logits"])


@pytest.mark.parametrize("case", PRODUCTS, **name_of)
@torch.inference_mode()
def test_figures_of_the_released_product_matcher(case):
    model, (query, database) = rrt.model(case, "sop"), rrt.maps(case)
    near(model(query, database), case["logits"])
    near(model.cells[0, :8], case["position_first_first8"])
    near(model.cells[-1, -8:], case["position_last_last8"])
    flat = [LocalFeatures.from_descriptors(x.flatten(2).transpose(1, 2)) for x in (query, database)]
    near(model.pairs(*flat), case["logits"])
    near(ReleasedRRT(model)(*map(model.tokens, flat)), case["logits"])


@pytest.mark.parametrize("variant", ["gld", "sop"])
def test_figures_of_a_released_training_step(variant):
    case = rrt.CASES[f"train_step_{variant}"]
    model = rrt.model(case, variant).train()
    anchors = None
    if variant == "gld":
        anchor, positive, negative = rrt.landmark_triplets(case)
    else:
        maps = [x.flatten(2).transpose(1, 2) for x in rrt.maps(case)]
        maps.append(rebuild.descriptors(maps[0].shape, case["seed"] + 9))
        anchors = maps[0].requires_grad_()
        anchor, positive, negative = map(LocalFeatures.from_descriptors, maps)
    logits = model.pairs(LocalFeatures.cat([anchor, anchor]), LocalFeatures.cat([positive, negative]))
    near(logits.detach(), case["logits_positive"] + case["logits_negative"])
    labels = (torch.arange(len(logits)) < case["batch"]).float()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
    assert loss.item() == pytest.approx(case["loss"], rel=1e-4)
    loss.backward()
    gradients = {name: x.grad for name, x in model.named_parameters()}
    assert _length(gradients.values()) == pytest.approx(case["grad_norm_total"], rel=1e-4)
    for name, norm in case["grad_norms"].items():
        assert gradients[name].norm().item() == pytest.approx(norm, rel=1e-4), name
    if anchors is not None:
        assert anchors.grad.norm().item() == pytest.approx(case["anchor_map_grad_norm"], rel=1e-4)


def _length(tensors):
    return torch.stack([x.norm() for x in tensors]).norm().item()


# ---- published files --------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "tensors", "size"), [("gld", 78, 2_243_201), ("sop", 75, 1_979_777)])
def test_defaults_are_the_released_sizes(variant, tensors, size):
    model = RRT(variant=variant)
    assert len(model.state_dict()) == tensors
    assert sum(x.numel() for x in model.parameters()) == size
    assert (model.code_bytes, model.extra_slots) == (256, int(variant == "gld"))
    assert (model.reads_vector, model.reads_scale) == (variant == "gld",) * 2


@pytest.mark.parametrize(
    ("case", "variant"), [*((x, "gld") for x in LANDMARKS), *((x, "sop") for x in PRODUCTS)]
)
def test_a_released_file_is_recognized(tmp_path, caplog, case, variant):
    state = rebuild.state(rrt.shapes(case, variant), case["seed"])
    content = state
    if variant == "sop":  # the matcher is a part of a network, whose other layers have names of the same kind
        others = {"classifier.weight": torch.zeros(5, 4), "conv1.weight": torch.zeros(2, 3, 7, 7)}
        content = {f"matcher.{name}": x for name, x in state.items()} | others
    torch.save({"state": content, "optim": {}}, tmp_path / "r50.pt")
    unseen = {"nhead": 4, "activation": case.get("activation", "relu")}
    unseen |= {"map_size": [case["height"], case["width"]]} if variant == "sop" else {}
    model = load_model(tmp_path / "r50.pt", **unseen)
    assert model.arguments.items() >= rrt.arguments(case, variant).items()
    assert all(torch.equal(x, state[name]) for name, x in model.state_dict().items())
    assert ("only its tensors matcher.* are read, not 2 others" in caplog.text) == (variant == "sop")


def test_options_are_recognized_too(tmp_path):
    for options in ({"scales": 0, "local_dim": 12}, {"variant": "sop", "local_dim": 12}):
        model = made(**options)
        assert any(name.startswith("remap_local.") for name in model.state_dict())
        assert "scale_encoder.weight" not in model.state_dict()
        torch.save({"state": model.state_dict()}, tmp_path / "x.pt")
        assert load_model(tmp_path / "x.pt").arguments == model.arguments


@pytest.mark.parametrize("name", [name for name, row in registry.MODELS.items() if row.kind == "RRT"])
def test_a_row_reads_the_authors_file_from_the_folder(tmp_path, name):
    row = registry.MODELS[name]
    with pytest.raises(AmesError, match=f"{name}: no file .*: take {row.weights} from https://") as error:
        load_by_name(name, folder=tmp_path)
    assert "\n" not in str(error.value)
    model = build_model(name)
    state = model.state_dict()
    file = tmp_path / row.weights.split("/")[-1]
    sop = model.variant == "sop"
    torch.save({"state": {f"matcher.{key}": x for key, x in state.items()} if sop else state}, file)
    assert torch.equal(load_by_name(name, folder=tmp_path).classifier.weight, model.classifier.weight)
    torch.save({"state": RRT(variant="gld" if sop else "sop").state_dict()}, file)
    with pytest.raises(AmesError, match=f"not the weights of {name}: .*weight"):
        load_by_name(name, folder=tmp_path)


# ---- what must not change a score -------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["gld", "sop"])
@torch.inference_mode()
def test_positions_place_cells_in_any_order(variant):
    model = made(variant, map_size=[3, 4])
    row, column = torch.arange(12) // 4, torch.arange(12) % 4
    centers = torch.stack(((row + 0.5) / 3, (column + 0.5) / 4), -1).expand(2, 12, 2)
    query, database = replace(images(2, 12), positions=None), replace(images(2, 12, 1), positions=centers)
    expected = model.pairs(query, replace(database, positions=None))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    turned = LocalFeatures(*(getattr(database, name)[:, order] for name in ("descriptors", "valid")))
    turned = replace(turned, vector=database.vector, scale=database.scale[:, order])
    placed = replace(turned, positions=centers[:, order])
    near(model.pairs(query, placed), expected, 1e-5)
    differs = (model.pairs(query, turned) - expected).abs().max() > 1e-3
    assert differs == (variant == "sop")


@pytest.mark.parametrize("normalize_before", [False, True])
@torch.inference_mode()
def test_scores_of_a_scorer_are_those_of_pairs_one_by_one(normalize_before):
    model = made(normalize_before=normalize_before)
    query, database = images(2, 9), images(5, 8, 1)
    valid = torch.arange(8) < torch.tensor([8, 3, 0, 5, 8])[:, None]
    database = replace(database, valid=valid)
    rows = np.array([0, 1, 0, 1, 0]), np.array([4, 3, 2, 1, 0])
    scorer = PairScorer(model)
    found = torch.from_numpy(scorer.score(scorer.queries(query), database, *rows))
    stored = model.expand(model.compress(database))
    alone = [
        model.pairs_tokens(model.tokens(query[i : i + 1]), stored[j : j + 1].trim_padding())
        for i, j in zip(*rows, strict=True)
    ]
    near(found, torch.cat(alone), 1e-5)
    assert found.std() > 1e-3


@torch.inference_mode()
def test_scales_and_the_global_vector_count_and_its_length_does_not():
    model, query, database = made(), images(2, 9), images(2, 8, 1)
    expected = model.pairs(query, database)
    near(model.pairs(replace(query, scale=query.scale.double()), database), expected, 1e-6)
    assert (model.pairs(replace(query, scale=6 - query.scale), database) - expected).abs().min() > 1e-4
    assert (model.pairs(replace(query, vector=-query.vector), database) - expected).abs().min() > 1e-4
    assert (model.pairs(database, query) - expected).abs().min() > 1e-4  # segments tell the sides apart
    without = made(scales=0)
    assert not without.reads_scale
    near(without.pairs(replace(query, scale=None), database), without.pairs(query, database), 0)


@pytest.mark.parametrize("variant", ["gld", "sop"])
def test_what_decides_codes_is_in_the_fingerprint(variant):
    model = made(variant)
    known = model.fingerprint()
    with torch.no_grad():
        model.seg_encoder.weight.add_(1)  # of scoring alone
    assert model.fingerprint() == known
    other = made(variant, map_size=[2, 6]) if variant == "sop" else made(scales=6)
    assert other.fingerprint() != known


# ---- what is refused --------------------------------------------------------------------------------


def test_what_a_landmark_matcher_reads_must_be_there():
    model, local = made(), images(2, 5)
    for changed, said in (
        ({"vector": None}, "RRT reads a global descriptor of each image: none was given"),
        ({"vector": local.vector[:, :9]}, "global descriptors are 9-d, this model takes 24-d"),
        ({"scale": None}, "RRT reads the scale of each descriptor: none was given"),
        ({"scale": local.scale + 7}, r"a descriptor has scale \d+: give the index of a scale, 0 ... 6"),
        ({"scale": local.scale - 7}, r"a descriptor has scale -\d+: give the index"),
        ({"scale": local.scale + 0.25}, r"a descriptor has scale \d.25: give the index"),
        ({"scale": local.scale * torch.nan}, "a descriptor has scale nan: give the index"),
    ):
        with pytest.raises(AmesError, match=said):
            model.tokens(replace(local, **changed))
    padded = replace(local, scale=local.scale.masked_fill(torch.arange(5) == 4, 99))
    assert model.tokens(replace(padded, valid=torch.arange(5).expand(2, 5) < 4)).valid.sum() == 2 * 5
    broken = replace(local, vector=local.vector.clone())
    broken.vector[1, 3] = torch.inf
    with pytest.raises(NotFiniteError, match="image 1"):
        model.tokens(broken)


def test_more_descriptors_than_cells():
    model = made("sop", map_size=[2, 2])
    local = replace(images(2, 5), positions=None)
    with pytest.raises(AmesError, match="5 descriptors of an image without positions, but 2 x 2 cells"):
        model.tokens(local)
    model.tokens(replace(local, valid=torch.arange(5).expand(2, 5) < 4))
    with pytest.raises(AmesError, match=r"maps are \[1, 16, 3, 2\]; expected"):
        model(torch.zeros(1, 16, 3, 2), torch.zeros(1, 16, 3, 2))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"variant": "cub"}, "variant 'cub' is none of gld, sop"),
        ({"activation": "tanh"}, "activation 'tanh' is none of relu, gelu"),
        ({"map_size": [7]}, r"map_size is \[7\]: give rows and columns"),
        ({"map_size": 7}, "map_size is 7: give rows and columns"),
        ({"scales": -1}, "scales is -1: give a whole number of at least 0"),
        ({"variant": "sop", "model_dim": 18, "nhead": 2}, "a multiple of 4: model_dim 18"),
        ({"nhead": 3}, "model_dim 128 is not a multiple of nhead 3"),
    ],
)
def test_arguments(arguments, said):
    with pytest.raises(ValueError, match=said):
        RRT(**arguments)
