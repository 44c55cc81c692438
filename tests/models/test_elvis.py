"""ELViS: figures of the released code, the padding policy, stored codes, what training learns from."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.models.checkpoints import load_model
from ames.models.elvis import ELViS
from ames.models.load import load
from ames.models.registry import MODELS, SHIPPED, released_files
from ames.training.losses import pair_losses
from ames.weights import released
from golden import rebuild
from helpers.servers import serve
from twins.released_elvis import ReleasedELViS

GOLDEN = json.loads((Path(rebuild.__file__).parent / "elvis.json").read_text())
PADDING = GOLDEN["padding"]


def by_name(case):
    return case["name"]


def shapes(case):
    """Name -> shape of every tensor of a published file of these dimensions."""
    dims = {768: case["local_dim"], 16: case.get("embed_dim", 16), 64: case.get("proj_dim", 64)}
    released = GOLDEN["released_shapes"]
    return {name: tuple(dims.get(x, x) for x in shape) for name, shape in released.items()}


def model_of(case, **changes):
    given = {name: case[name] for name in ("local_dim", "embed_dim", "proj_dim") if name in case}
    if "sh_iter" in case:
        given |= {"sinkhorn_iterations": case["sh_iter"], "regularization": 1 / case["sh_temp"]}
    model = ELViS(**given | changes).eval()
    model.load_state_dict(rebuild.state(shapes(case), case["seed"]))
    return model


def inputs(case):
    """Descriptors of both images."""
    return rebuild.related(
        case["batch"], case["query_desc"], case["db_desc"], case["local_dim"], case["seed"]
    )


def paddings(case):
    """Published masks (True = padding) of both images, or None."""
    size, seed, masks = case["batch"], case["seed"], case["masks"]
    query = ~rebuild.valid(size, case["query_desc"], seed) if masks is True else None
    return query, ~rebuild.valid(size, case["db_desc"], seed + 1) if masks else None


def features(x, padding=None):
    return LocalFeatures.from_descriptors(x, None if padding is None else ~padding)


def close(found, expected, atol=GOLDEN["tolerance"]):
    torch.testing.assert_close(found, torch.as_tensor(expected), atol=atol, rtol=0)


# ---- figures of the released code -----------------------------------------------------------------


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=by_name)
@torch.inference_mode()
def test_figures_of_the_released_code(case):
    model, (query, database), masks = model_of(case), inputs(case), paddings(case)
    score = model(query, masks[0], database, masks[1])
    close(score, case["vote_score"])
    if "training_logit" in case:
        close(model.logits(score), case["training_logit"], atol=GOLDEN["tolerance_training_logit"])


@pytest.mark.parametrize("case", GOLDEN["cases"][:5], ids=by_name)
@torch.inference_mode()
def test_votes_of_the_released_code(case):
    model, best = model_of(case), torch.tensor(case["row_max_first6"])
    close(torch.sigmoid(model.f(best[:, None]))[:, 0], case["votes_first6"])


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=by_name)
def test_a_published_state_loads_strictly(case):
    model = ELViS(**model_of(case).arguments)
    assert {name: tuple(x.shape) for name, x in model.state_dict().items()} == shapes(case)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=by_name)
@torch.inference_mode()
def test_the_twin_of_the_benchmark_computes_as_the_released_code(case):
    (query, database), masks = inputs(case), paddings(case)
    masks = [
        x.new_zeros(x.shape[:2], dtype=torch.bool) if m is None else m
        for x, m in zip((query, database), masks, strict=True)
    ]
    close(ReleasedELViS(model_of(case))(query, masks[0], database, masks[1]), case["vote_score"])


@pytest.mark.parametrize(("width", "parameters"), [(768, 115_604), (1024, 148_372), (1152, 164_756)])
def test_defaults_are_the_paper_s(width, parameters):
    model = ELViS(local_dim=width)
    assert sum(x.numel() for x in model.parameters()) == parameters
    assert (model.code_bytes, model.code_bits) == (256, None)
    assert (ELViS(binarized=True).code_bytes, ELViS(binarized=True).code_bits) == (16, 128)


@pytest.mark.parametrize("case", GOLDEN["train_step"], ids=by_name)
def test_a_training_step_of_the_released_code(case):
    model = model_of(case).train()
    (anchor, positive), size, seed = inputs(case), case["batch"], case["seed"]
    negative = rebuild.descriptors((size, case["db_desc"], case["local_dim"]), seed + 9)
    counts, masks = (case["query_desc"], case["db_desc"], case["db_desc"]), [None] * 3
    if case["masks"]:
        masks = [~rebuild.valid(size, count, seed + i) for i, count in enumerate(counts, 1)]
    logits = torch.cat(
        [
            model.logits(model(anchor, masks[0], x, mask))
            for x, mask in zip((positive, negative), masks[1:], strict=True)
        ]
    )
    labels = (torch.arange(2 * size) < size).float()
    close(
        logits.detach(),
        case["logits_positive"] + case["logits_negative"],
        atol=GOLDEN["tolerance_training_logit"],
    )
    loss, near = F.binary_cross_entropy_with_logits(logits, labels), GOLDEN["train_tolerance_relative"]
    assert loss.item() == pytest.approx(case["loss"], rel=near)
    assert ((logits > 0) == (labels > 0)).float().mean().item() == case["accuracy"]
    loss.backward()
    norms = {name: x.grad.norm().item() for name, x in model.named_parameters()}
    assert norms == pytest.approx(case["grad_norms"], rel=near)
    if not case["masks"]:  # then slots are real descriptors, and the library learns from the same
        sides = features(anchor).map(lambda x: x.repeat(2, *[1] * (x.ndim - 1)))
        losses = pair_losses(model, sides, features(torch.cat((positive, negative))), labels)
        assert losses.loss.item() == pytest.approx(case["loss"], rel=near)


# ---- padding --------------------------------------------------------------------------------------


def padded():
    """Query, database and database with padding of the golden case, as published tensors."""
    query, database = inputs(PADDING)
    extra, seed = PADDING["extra_padding"], PADDING["seed"]
    more = rebuild.descriptors((len(database), extra, PADDING["local_dim"]), seed + 1)
    mask = torch.arange(database.shape[1] + extra) >= database.shape[1]
    return query, database, torch.cat((database, more), 1), mask.expand(len(database), -1)


@pytest.mark.parametrize(("iterations", "suffix"), [(10, ""), (500, "_500_iterations")])
@torch.inference_mode()
def test_forward_counts_slots_as_published(iterations, suffix):
    model, (query, database, longer, mask) = model_of(PADDING, sinkhorn_iterations=iterations), padded()
    close(model(query, None, database), PADDING["vote_score" + suffix])
    close(model(query, None, longer, mask), PADDING["vote_score_padded" + suffix])


@torch.inference_mode()
def test_scores_count_real_descriptors():
    model, (query, database, longer, mask) = model_of(PADDING), padded()
    close(model.pairs(features(query), features(database)), PADDING["vote_score"])
    close(model.pairs(features(query), features(longer, mask)), PADDING["vote_score"])
    close(
        model.training_logits(features(query), features(longer, mask)),
        model.logits(model(query, None, database)),
    )


@torch.inference_mode()
def test_unequal_counts_in_a_batch_score_as_images_one_by_one():
    case = GOLDEN["cases"][3]
    model, images, masks = model_of(case), inputs(case), paddings(case)
    query, database = (features(x, mask) for x, mask in zip(images, masks, strict=True))
    together = model.pairs(query, database)
    for i in range(case["batch"]):
        alone = [x[i : i + 1].trim_padding() for x in (query, database)]
        close(model.pairs(*alone), together[i : i + 1], atol=1e-5)
        close(model(alone[0].descriptors, None, alone[1].descriptors), together[i : i + 1], atol=1e-5)


@pytest.mark.parametrize("slots", [0, 5])
def test_an_image_without_descriptors_has_no_votes(slots):
    model = ELViS(local_dim=16)
    full = features(rebuild.descriptors((2, 6, 16), 1))
    empty = features(torch.zeros(2, slots, 16), torch.ones(2, slots, dtype=torch.bool))
    for query, database in ((empty, full), (full, empty), (empty, empty)):
        score = model.pairs(query, database)
        assert torch.equal(score, torch.zeros(2))
        model.training_logits(query, database).sum().backward()
    assert all(x.grad is None or x.grad.isfinite().all() for x in model.parameters())


# ---- the score ------------------------------------------------------------------------------------


@torch.inference_mode()
def test_a_score_lies_between_nothing_and_all_votes():
    case = GOLDEN["cases"][1]
    model, images, masks = model_of(case), inputs(case), paddings(case)
    query, database = (features(x, mask) for x, mask in zip(images, masks, strict=True))
    score = model.pairs(query, database)
    assert (score > 0).all()
    assert (score < query.counts + database.counts).all()


@torch.inference_mode()
def test_the_length_of_descriptors_matters():
    model, (query, database) = model_of(GOLDEN["cases"][0]), inputs(GOLDEN["cases"][0])
    assert not torch.allclose(
        model.pairs(features(7 * query), features(database)),
        model.pairs(features(query), features(database)),
        atol=1e-3,
    )


@torch.inference_mode()
def test_codes_score_as_descriptors():
    case = GOLDEN["cases"][3]
    model, (query, database) = model_of(case), [features(x) for x in inputs(case)]
    codes = model.compress(database)
    assert codes.descriptors.dtype == torch.float16
    length = model.expand(codes).descriptors.norm(dim=-1)
    close(length, torch.ones_like(length), atol=1e-6)
    close(
        model.pairs_tokens(model.tokens(query), model.expand(codes)), model.pairs(query, database), atol=2e-3
    )
    binary = ELViS(local_dim=768, binarized=True).eval()
    codes = binary.compress(database)
    assert codes.descriptors.shape == (3, 45, 16)
    stored = binary.pairs_tokens(binary.tokens(query), binary.expand(codes))
    assert torch.equal(stored, binary.pairs(query, database))


@pytest.mark.parametrize("binarized", [False, True])
def test_gradients_reach_every_parameter(binarized):
    torch.manual_seed(0)
    model = ELViS(local_dim=32, binarized=binarized).train()
    query, database = (features(x) for x in rebuild.related(4, 9, 7, 32, 1))
    model.training_logits(query, database).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("binarized", [False, True])
def test_the_projection_starts_from_data(binarized):
    x = rebuild.descriptors((500, 160), 3)
    model = ELViS(local_dim=160, binarized=binarized)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    model.fit_projection(x)
    changed = {name for name, x in model.state_dict().items() if not torch.equal(x, before[name])}
    assert changed == ({"remap_local.0.W"} if binarized else {"remap_local.0.weight", "remap_local.0.bias"})
    assert model.tokens(features(x[None])).descriptors.isfinite().all()


# ---- files and errors -----------------------------------------------------------------------------


@pytest.mark.parametrize("binarized", [False, True])
def test_tensors_show_the_arguments(binarized):
    model = ELViS(local_dim=48, embed_dim=8, proj_dim=24, binarized=binarized)
    found = ELViS.arguments_of(model.state_dict())
    assert ELViS(**found).arguments == model.arguments
    assert ELViS.arguments_of({"mtc_token": torch.zeros(8)}) is None


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server with the models' folder beside that of AMES; two models are there, one under a wrong name."""
    model = ELViS(local_dim=1024)
    folder = tmp_path / "site" / "public" / "elvis" / "networks"
    folder.mkdir(parents=True)
    content = {"state": model.state_dict(), "optim": {}, "epoch": 9}
    for name in ("dinov3_elvis_gld", "siglip2_elvis_gld"):
        torch.save(content, folder / f"{name}.pt")
    with serve(tmp_path / "site") as found:
        monkeypatch.setattr(released, "BASE", f"{found.url}public/ames/")
        yield model


def test_released_weights_lie_beside_those_of_ames(server, tmp_path):
    found = load("dinov3_elvis_gld", folder=tmp_path / "weights", backbone="dinov3")
    assert found.about == {"backbone": "dinov3-l", "blend": {"lamb": 0.5, "temp": 0.5}}
    files = (
        tmp_path / "weights" / "dinov3_elvis_gld.pt",
        tmp_path / "site/public/elvis/networks/dinov3_elvis_gld.pt",
    )
    for same in (found.model, *map(load_model, files)):
        assert isinstance(same, ELViS)
        assert all(torch.equal(x, server.state_dict()[name]) for name, x in same.state_dict().items())


def test_a_file_of_another_variant_is_one_line(server, tmp_path):
    complaint = r"remap_local.0.weight is \(128, 1024\), this model's is \(128, 1152\)"
    with pytest.raises(AmesError, match=f"not the weights of siglip2_elvis_gld: {complaint}"):
        load("siglip2_elvis_gld", folder=tmp_path / "weights")
    with pytest.raises(AmesError, match="trained on dinov3-l descriptors, not on dinov2"):
        load("dinov3_elvis_gld", folder=tmp_path / "weights", backbone="dinov2")


def test_the_rows_of_the_table():
    rows = {name: row for name, row in MODELS.items() if row.kind == "ELViS" and row.weights != SHIPPED}
    assert {name: row.arguments["local_dim"] for name, row in rows.items()} == {
        "dinov2_elvis_gld": 768,
        "dinov2_elvis_sop": 768,
        "dinov3_elvis_gld": 1024,
        "siglip2_elvis_gld": 1152,
    }
    for name, row in rows.items():
        assert released_files()[name] == [f"../elvis/networks/{name}.pt"]
        assert (row.query_desc_num, row.db_desc_num, row.licence) == (600, 600, "Apache-2.0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"regularization": 0.0}, "regularization 0.0 is not above 0"),
        ({"sinkhorn_iterations": 0}, "sinkhorn_iterations is 0: give a whole number of at least 1"),
        ({"binarized": 1}, "binarized is 1: give true or false"),
    ],
)
def test_values_that_make_no_model(arguments, message):
    with pytest.raises(ValueError, match=message):
        ELViS(**arguments)


def test_wrong_input_is_one_line():
    model = ELViS(local_dim=32)
    with pytest.raises(AmesError, match="descriptors are 8-d, this model takes 32-d"):
        model.tokens(features(torch.zeros(2, 3, 8)))
    with pytest.raises(ValueError, match="tgt_local is missing"):
        model(torch.zeros(1, 3, 32))
