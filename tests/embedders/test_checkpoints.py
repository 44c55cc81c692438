"""Embedders on disk: what comes back, sides and spaces that do not fit, released files, damaged ones."""

import json

import pytest
import torch

from ames.embedders.base import check_one_space
from ames.embedders.checkpoints import fingerprint, load_embedder, load_pair, save_embedders, sides_of
from ames.embedders.fusion import AttentiveSum, Concatenation, Mlp, Orthogonal
from ames.embedders.mixer import Mixer
from ames.embedders.network import GlobalNetwork
from ames.errors import AmesError
from ames.weights.files import read_weights
from helpers.feature_sets import SPECS, drawn, seeded

IMAGES = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
FUSIONS = {
    "mixer": lambda: Mixer(features=SPECS, dim=8, heads=2, layers=1),
    "mlp": lambda: Mlp(features=SPECS, dim=8, hidden=5),
    "attentive": lambda: AttentiveSum(features=SPECS, dim=8),
    "orthogonal": lambda: Orthogonal(features=SPECS, dim=8),
    "concatenation": lambda: Concatenation(features=SPECS),
}


def network(seed=0, **options):
    torch.manual_seed(seed)
    return GlobalNetwork(**{"trunk": "resnet10", "width": 0.125, "dim": 8, "size": 32} | options).eval()


def fusion(seed=0, name="mixer"):
    torch.manual_seed(seed)
    return seeded(FUSIONS[name]())


def one_line(call, message):
    with pytest.raises(AmesError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.fixture
def both(tmp_path):
    save_embedders(tmp_path / "both.pt", {"gallery": fusion(), "query": network()}, provenance={"epochs": 3})
    return tmp_path / "both.pt"


@torch.no_grad()
def test_both_sides_come_back(both):
    query, gallery = load_embedder(both, "query"), load_embedder(both, "gallery")
    torch.testing.assert_close(query(IMAGES), network()(IMAGES))
    torch.testing.assert_close(gallery(drawn()), fusion()(drawn()))
    assert (query.side, gallery.side) == ("query", "gallery")
    assert query.space == gallery.space
    assert not query.training
    assert not gallery.training
    assert query.inputs.size == 32
    assert sides_of(both) == ("gallery", "query")
    assert read_weights(both).about["epochs"] == 3
    check_one_space(*load_pair(both))
    one_line(lambda: load_embedder(both), "holds the sides gallery and query: say which, query or gallery")
    one_line(lambda: load_embedder(both, "both"), "side 'both' is none of query, gallery")


@torch.no_grad()
@pytest.mark.parametrize("name", ["mixer", "mlp", "attentive", "orthogonal"])
def test_every_fusion_comes_back(name, tmp_path):
    save_embedders(tmp_path / "x.pt", {"gallery": fusion(name=name)})
    found = load_embedder(tmp_path / "x.pt")
    assert type(found) is type(fusion(name=name))
    torch.testing.assert_close(found(drawn()), fusion(name=name)(drawn()))


def test_one_side_is_the_one_that_is_meant(tmp_path):
    path = tmp_path / "x.pt"
    save_embedders(path, {"query": network()})
    assert load_embedder(path).side == "query"
    assert sides_of(path) == ("query",)
    one_line(
        lambda: load_embedder(path, "gallery"), "x.pt: holds the query side alone; give the gallery side's"
    )
    one_line(lambda: load_pair(path), "holds the query side alone")


@torch.no_grad()
def test_one_network_serves_as_either_side(tmp_path):
    path = tmp_path / "x.pt"
    save_embedders(path, {"both": network()})
    for side in ("query", "gallery", None):
        assert load_embedder(path, side).side == "both"
    query, gallery = load_pair(path)
    assert torch.equal(query(IMAGES), gallery(IMAGES))
    assert sides_of(path) == ("both",)


def test_spaces_of_two_trainings_are_refused(both, tmp_path):
    save_embedders(tmp_path / "other.pt", {"gallery": fusion(1), "query": network()})
    one_line(
        lambda: load_pair(both, tmp_path / "other.pt"), r"of two spaces \(\w+ and \w+\): their vectors cannot"
    )
    save_embedders(tmp_path / "wide.pt", {"gallery": Mixer(features=SPECS, dim=16, heads=2)})
    one_line(
        lambda: load_pair(both, tmp_path / "wide.pt"),
        "the query side gives 8-d vectors, the gallery side 16-d",
    )


def test_the_space_is_that_of_the_gallery_s_weights_or_what_is_given(both, tmp_path):
    """The second of two stages keeps the first one's, in whichever file."""
    save_embedders(tmp_path / "first.pt", {"gallery": fusion()})
    load_pair(both, tmp_path / "first.pt")
    space = save_embedders(
        tmp_path / "later.pt", {"query": network(5)}, space=load_embedder(both, "query").space
    )
    assert space == load_embedder(tmp_path / "later.pt").space
    load_pair(tmp_path / "later.pt", both)


@pytest.mark.parametrize("sides", [{}, {"both": 1, "query": 1}, {"left": 1}])
def test_sides_that_are_none_are_a_mistake_of_the_program(sides, tmp_path):
    with pytest.raises(ValueError, match="give query, gallery or both"):
        save_embedders(tmp_path / "x.pt", {name: network() for name in sides})


# ---- released files --------------------------------------------------------------------------------------

STUDENT, TEACHER = "cub-S224r-T448r-resnet50-512-gem-w.pth", "cub-448r-resnet50-512-gem-w.pth"


def released(path, counts=True):
    """A file as RAML's authors wrote theirs, of a smaller ResNet."""
    state = {k: x for k, x in raml().state_dict().items() if counts or not k.endswith("num_batches_tracked")}
    meta = {"architecture": "resnet10", "pooling": "gem", "whitening": True, "outputdim": 12}
    torch.save({"meta": meta | {"mean": [0.485, 0.456, 0.406]}, "state_dict": state}, path)
    return path


def raml():
    torch.manual_seed(4)
    return GlobalNetwork(trunk="resnet10", dim=12).eval()


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "size"),
    [(STUDENT, 224), (TEACHER, 448), ("sop-224r-resnet50-512-gem-w.pth", 224), ("mine.pth", 448)],
)
@pytest.mark.parametrize("counts", [True, False])
def test_a_released_file_of_raml_is_read(name, size, counts, tmp_path):
    path = released(tmp_path / name, counts)
    found = load_embedder(path, "query")
    assert (found.inputs.size, found.inputs.resize, found.dim, found.side) == (size, "crop", 12, "both")
    assert found.arguments["trunk"] == "resnet10"
    torch.testing.assert_close(found(IMAGES), raml()(IMAGES))
    assert not found.training
    assert sides_of(path) == ("both",)


def test_a_released_student_lives_in_its_teacher_s_space(tmp_path):
    for name in (STUDENT, TEACHER, "sop-448r-resnet50-512-gem-w.pth", "a.pth"):
        released(tmp_path / name)
    query, gallery = load_pair(tmp_path / STUDENT, tmp_path / TEACHER)
    assert query.space == gallery.space == "cub-448r-resnet50-512-gem-w"
    assert (query.inputs.size, gallery.inputs.size) == (224, 448)
    for other in ("sop-448r-resnet50-512-gem-w.pth", "a.pth"):
        one_line(lambda other=other: load_pair(tmp_path / STUDENT, tmp_path / other), "of two spaces")
    load_pair(tmp_path / "a.pth")


def test_a_released_file_of_no_known_resnet_is_one_line(tmp_path):
    state = raml().state_dict()
    state |= {k.replace("backbone.4.0", "backbone.4.1"): x for k, x in state.items() if "backbone.4.0" in k}
    torch.save({"meta": {}, "state_dict": state}, tmp_path / "x.pth")
    one_line(
        lambda: load_embedder(tmp_path / "x.pth"), r"a ResNet of \(2, 1, 1, 1\) blocks, which is none of"
    )


# ---- other files -----------------------------------------------------------------------------------------


def test_files_without_an_embedder_are_one_line(tmp_path):
    torch.save({"state": {"a": torch.zeros(2)}}, tmp_path / "x.pt")
    one_line(
        lambda: load_embedder(tmp_path / "x.pt"), r"x.pt: holds no embedder \(ames train-embedder writes"
    )
    one_line(lambda: sides_of(tmp_path / "x.pt"), "holds no embedder")
    one_line(lambda: load_embedder(tmp_path / "none.pt"), "none.pt: no such checkpoint")
    (tmp_path / "text.pt").write_text("text")
    one_line(lambda: load_embedder(tmp_path / "text.pt"), "text.pt: not a checkpoint")


def damaged(path, change):
    """The file with its description changed in place."""
    content = torch.load(path, weights_only=True)
    about = json.loads(content["about"])
    change(about["embedder"])
    torch.save(content | {"about": json.dumps(about)}, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.pop("sides"), "holds no embedder"),
        (lambda x: x.update(sides=[]), "holds no embedder"),
        (lambda x: x.update(sides={}), "an embedder without a side or a space"),
        (lambda x: x.pop("space"), "an embedder without a side or a space"),
        (lambda x: x["sides"].update(gallery=3), r"cannot be built \(no arguments\)"),
        (lambda x: x["sides"]["gallery"].pop("arguments"), r"cannot be built \(no arguments\)"),
        (
            lambda x: x["sides"]["gallery"].pop("class"),
            "an embedder of class None, which is none of GlobalNet",
        ),
        (lambda x: x["sides"]["gallery"].update({"class": ["Mixer"]}), r"an embedder of class \['Mixer'\]"),
        (lambda x: x["sides"]["gallery"].update({"class": "Mlp"}), "cannot be built .*unexpected keyword"),
        (lambda x: x["sides"]["gallery"]["arguments"].pop("features"), "cannot be built .*features"),
        (lambda x: x["sides"]["gallery"]["arguments"].update(features=5), "cannot be built .*features"),
        (lambda x: x["sides"]["gallery"]["arguments"].update(heads=0), "cannot be built .*heads is 0"),
        (lambda x: x["sides"]["gallery"]["arguments"].update(dropout=7), "cannot be built .*dropout"),
        (
            lambda x: x["sides"]["gallery"]["arguments"].update(dim=16),
            r"weights of another model: token is \(8,\)",
        ),
        (
            lambda x: x["sides"]["gallery"]["arguments"].update(layers=2),
            "weights of another model: it lacks layers.1",
        ),
    ],
)
def test_a_damaged_description_is_one_line(both, change, message):
    damaged(both, change)
    one_line(lambda: load_embedder(both, "gallery"), f"both.pt: .*{message}")


def test_what_an_embedder_computes_has_a_fingerprint(both):
    found = fingerprint(load_embedder(both, "query"))
    assert found == fingerprint(network())
    assert len(found) == 12
    others = [network(1), network(size=64), network(resize="long"), fusion()]
    assert len({found, *map(fingerprint, others)}) == 5
    assert fingerprint(fusion(name="attentive")) != fingerprint(fusion(name="orthogonal"))
