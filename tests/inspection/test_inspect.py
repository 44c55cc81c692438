"""What a file is, in figures that show what is wrong with it; and one image in two files."""

import json
import pickle

import numpy as np
import pytest
import torch

from ames.cli.main import main
from ames.datasets.ground_truth import load_ground_truth
from ames.descriptors.local import create_local, write_globals
from ames.errors import AmesError
from ames.features import LocalFeatures
from ames.global_search.shortlist import Shortlist
from ames.inspection.compare import CLOSE, DIFFERENT, MAPPED, SAME, compare
from ames.inspection.convert import convert
from ames.inspection.inspect import inspect
from ames.models.ames import AMES
from ames.models.checkpoints import load_model, save_checkpoint, save_weights
from ames.weights.files import read_weights
from golden.data_root import laid_out, write_local

TINY = {"local_dim": 12, "model_dim": 16, "num_encoder_layers": 2, "dim_feedforward": 24}
GND = {
    "imlist": ["a", "b", "c"],
    "qimlist": ["q", "r"],
    "gnd": [
        {"bbx": [0, 0, 5, 5], "easy": [0, 2], "hard": [], "junk": [1]},
        {"bbx": [0, 0, 5, 5], "easy": [], "hard": [], "junk": []},
    ],
}
NEIGHBOURS = np.array([[[0.9, 0.5, 0.1], [0.8, 0.2, 0.1]], [[0, 2, 1], [1, 2, 0]]])


def pickled(path, content):
    path.write_bytes(pickle.dumps(content))
    return path


def published_weights(path, **changes):
    torch.save({"state": AMES(**TINY | changes).state_dict(), "optim": {}, "epoch": 3}, path)
    return path


def has(found, **expected):
    assert {key: found[key] for key in expected} == expected


# ---- local and global descriptors -------------------------------------------------------------------


def test_local_descriptors(tmp_path):
    with create_local(
        tmp_path / "x.hdf5", images=40, slots=4, width=8, names=[f"{i}.jpg" for i in range(40)],
        provenance={"backbone": "rootsift", "max_size": 640},
    ) as write_row:  # fmt: skip
        for row in range(39):
            x = torch.nn.functional.normalize(torch.randn(2, 8), dim=-1)
            write_row(row, LocalFeatures.from_descriptors(x, positions=torch.rand(2, 2), scale=torch.ones(2)))
    found = inspect(tmp_path / "x.hdf5")
    assert list(found)[:3] == ["file", "kind", "file_bytes"]
    has(found, kind="local descriptors", layout="flat", images=40, slots=4, width=8, dtype="float16")
    has(found, bytes_per_image=4 * 13 * 2, backbone="rootsift", has_names=True, storage="contiguous")
    has(found, images_read=40, images_without_descriptors=1, padding=round(1 - 78 / 160, 4), rows=78)
    has(found, nan_rows=0, zero_rows=0, normalized=True, locations="shares of height and width", scales=1)
    has(found, weights_fall="not in the file", descriptors_per_image={"mean": 1.95, "min": 0, "max": 2})
    assert found["provenance"]["max_size"] == 640
    assert found["norms"]["mean"] == pytest.approx(1, abs=1e-3)
    assert inspect(tmp_path / "x.hdf5", sample=10)["images_read"] == 10
    json.dumps(found, allow_nan=False)


def test_what_is_wrong_shows(tmp_path):
    metadata, x = np.zeros((3, 4, 5), np.float32), np.full((3, 4, 8), 2, np.float32)
    metadata[..., :2], metadata[..., 4] = 700, np.arange(4)  # pixels; weights rise
    x[1, 2], x[2, 0, 3] = 0, np.nan
    write = {"compound": laid_out(metadata, x, "compound"), "codes": np.full((3, 4, 2), 15, np.uint8)}
    import h5py

    for name, data in write.items():
        with h5py.File(tmp_path / f"{name}.hdf5", "w") as file:
            file.create_dataset("features", data=data, chunks=True, compression="gzip")
    found = inspect(tmp_path / "compound.hdf5")
    has(found, layout="compound", locations="pixels", weights_fall=False, nan_rows=1, zero_rows=1)
    has(found, normalized=False, padding=0, rows=12, backbone=None)
    assert found["storage"].endswith("gzip")
    assert found["norms"]["min"] == pytest.approx(2 * 8**0.5, abs=1e-3)
    found = inspect(tmp_path / "codes.hdf5")
    has(found, layout="packed bits without metadata", width=16, bytes_per_image=8, ones=0.5)
    assert "locations" not in found


def test_global_descriptors(tmp_path):
    write_globals(tmp_path / "g.hdf5", np.eye(3, 4))
    has(inspect(tmp_path / "g.hdf5"), kind="global descriptors", images=3, width=4, normalized=True, rows=3)
    write_globals(tmp_path / "g.hdf5", np.eye(3, 4), names=["a", "b", "c"], provenance={"backbone": "cvnet"})
    found = inspect(tmp_path / "g.hdf5")
    has(found, backbone="cvnet", has_names=True)
    assert found["provenance"]["backbone"] == "cvnet"


# ---- everything else --------------------------------------------------------------------------------


def test_shortlists_and_scores(tmp_path):
    path = pickled(tmp_path / "nn.pkl", torch.tensor(NEIGHBOURS).float())
    found = inspect(path)
    has(found, kind="shortlist", queries=2, entries=3, highest_id=2, best_first=True, first_is_self=1.0)
    has(found, stored_as="Tensor of torch.float32", empty_entries=0)
    shortlist = Shortlist(np.array([[0, -1]]), np.float32([[0.25, 0]]), {"descriptors": "dinov2"})
    found = inspect(shortlist.save(tmp_path / "nn.npz"))
    has(
        found,
        empty_entries=1,
        meta={"descriptors": "dinov2"},
        similarities=dict.fromkeys(("mean", "min", "max"), 0.25),
    )
    np.savez(
        tmp_path / "scores.npz", ids=shortlist.ids, similarities=shortlist.similarities, logits=[[-3, np.nan]]
    )
    has(inspect(tmp_path / "scores.npz"), kind="scores", scored=1, logits={"mean": -3, "min": -3, "max": -3})


def test_repeated_entries_are_counted_not_refused(tmp_path):
    twice = np.array([[4, 4, -1, -1], [0, 2, 2, 2]])
    ones = np.ones(twice.shape, np.float32)
    has(inspect(pickled(tmp_path / "nn.pkl", np.stack((ones, twice)))), kind="shortlist", repeated_entries=3)
    np.savez(tmp_path / "nn.npz", ids=twice, similarities=ones, meta=np.array("{}"))
    has(inspect(tmp_path / "nn.npz"), kind="shortlist", repeated_entries=3, best_first=True)
    np.savez(tmp_path / "scores.npz", ids=twice, similarities=ones, logits=ones)
    has(inspect(tmp_path / "scores.npz"), kind="scores", repeated_entries=3)


def test_ground_truths_and_lists(tmp_path):
    found = inspect(pickled(tmp_path / "gnd.pkl", GND))
    has(found, kind="ground truth", queries=2, gallery_images=3, boxes=True)
    assert found["queries_without"] == {"easy": 1, "hard": 2, "junk": 1}
    (tmp_path / "gnd.json").write_text(json.dumps(GND))
    assert inspect(tmp_path / "gnd.json")["images_per_query"] == found["images_per_query"]
    (tmp_path / "list.txt").write_text("a.jpg,7,640,480\nb.jpg,7,640,480\nc.jpg,8,1,1")
    has(inspect(tmp_path / "list.txt"), kind="list of images", images=3, labelled=3, labels=2, first="a.jpg")


def test_weights(tmp_path):
    found = inspect(published_weights(tmp_path / "ames.pt"))
    has(found, kind="checkpoint of AMES", nan_tensors=0, about={})
    assert found["model"] == TINY | {"normalize_before": False, "binarized": False}
    assert "cannot be seen" in found["model_from"]
    save_weights(tmp_path / "x.safetensors", AMES(**TINY), provenance={"backbone": "cvnet"})
    has(inspect(tmp_path / "x.safetensors"), model_from="the file", about={"backbone": "cvnet"})
    torch.save({"W": torch.zeros(24, 16)}, tmp_path / "itq.pt")
    np.savez(tmp_path / "itq.npz", proj=np.zeros((24, 16)))
    for name in ("itq.pt", "itq.npz"):
        has(inspect(tmp_path / name), kind="ITQ projection", width=24, bits=16)
    torch.save({"encoder_q.x": torch.zeros(2)}, tmp_path / "other.pt")
    has(inspect(tmp_path / "other.pt"), kind="weights", tensors=1, first=["encoder_q.x"])


def test_a_detector(tmp_path):
    state = {"conv1.weight": torch.ones(4, 4, 1, 1), "conv2.weight": torch.ones(1, 4, 1, 1)}
    state |= {"conv1.bias": torch.ones(4), "conv2.bias": torch.ones(1)}
    state |= {f"bn.{name}": torch.ones(4) for name in ("weight", "bias", "running_mean", "running_var")}
    torch.save({"state": state}, tmp_path / "dinov2_detector.pt")
    has(inspect(tmp_path / "dinov2_detector.pt"), kind="feature detector", width=4, about={})
    torch.save({"state": state, "about": '{"backbone": "dinov2"}'}, tmp_path / "mine.pt")
    has(inspect(tmp_path / "mine.pt"), about={"backbone": "dinov2"})


# ---- one image in two files -------------------------------------------------------------------------


def two_files(tmp_path, first, second, places=None, other_places=None, layout="float32"):
    """Image 1 of each file holds the given descriptors [n, D] at the places [n, 2]."""
    import h5py

    rng = np.random.default_rng(5)
    paths = tmp_path / "a.hdf5", tmp_path / "b.hdf5"
    shared = rng.random((len(first), 2))
    for path, x, positions in ((paths[0], first, places), (paths[1], second, other_places)):
        metadata = np.zeros((2, len(x), 5), np.float32)
        metadata[1, :, :2] = shared[: len(x)] if positions is None else positions
        with h5py.File(path, "w") as file:
            file.create_dataset("features", data=laid_out(metadata, np.stack((x, x)), layout))
    return paths


def clustered(seed, n=60, width=32):
    """Descriptors of a few kinds, as an image's are."""
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal((6, width))[rng.integers(0, 6, n)] + 0.3 * rng.standard_normal((n, width))
    ).astype(np.float32)


def test_the_same_features(tmp_path):
    x = clustered(0)
    order = np.random.default_rng(1).permutation(60)
    positions = np.random.default_rng(2).random((60, 2))
    found = compare(
        *two_files(tmp_path, x, 3 * x[order].astype(np.float16), positions, positions[order]), "1"
    )
    has(found, verdict=SAME, locations=1.0, descriptors=[60, 60], rows=[1, 1])
    assert found["cosine"]["median"] > 0.999
    found = compare(*two_files(tmp_path, x, x[:20], positions, positions[:20]), "1")  # fewer kept
    has(found, verdict=SAME, locations=1.0, descriptors=[60, 20])


def test_small_differences(tmp_path):
    x = clustered(0)
    noise = 0.3 * np.random.default_rng(3).standard_normal(x.shape)
    has(compare(*two_files(tmp_path, x, x + noise), "1"), verdict=CLOSE, locations=1.0)


def test_raw_against_projected(tmp_path):
    x = clustered(0)
    found = compare(*two_files(tmp_path, x, x @ np.random.default_rng(4).standard_normal((32, 32))), "1")
    has(found, verdict=MAPPED, locations=1.0)
    assert abs(found["cosine"]["median"]) < 0.5 < found["structure"]
    assert "projected" in found["text"]
    found = compare(*two_files(tmp_path, x, x @ np.random.default_rng(4).standard_normal((32, 16))), "1")
    has(found, verdict=MAPPED, width=[32, 16], cosine=None)


def test_other_features_at_the_same_places(tmp_path):
    """A grid of patches has the same places in every image."""
    has(compare(*two_files(tmp_path, clustered(0), clustered(7)), "1"), verdict=DIFFERENT, locations=1.0)


def test_other_places(tmp_path):
    x, rng = clustered(0), np.random.default_rng(8)
    has(compare(*two_files(tmp_path, x, x, rng.random((60, 2)), rng.random((60, 2))), "1"), verdict=DIFFERENT)
    pixels = 700 * rng.random((60, 2))
    has(compare(*two_files(tmp_path, x, x, pixels, pixels.round(1)), "1"), verdict=SAME)
    found = compare(*two_files(tmp_path, x, x, pixels), "1")
    has(found, verdict=DIFFERENT, locations=0.0, cosine=None)


def test_codes_without_places(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (9, 4)).astype(np.uint8)
    has(compare(*two_files(tmp_path, x, x, layout="bare"), "0"), verdict=SAME, locations=None, width=[32, 32])
    has(compare(*two_files(tmp_path, x, x[::-1], layout="bare"), "0"), verdict=DIFFERENT)


def test_images_by_name(tmp_path):
    for name, images in (("a.hdf5", ["x", "y"]), ("b.hdf5", ["y", "z"])):
        with create_local(tmp_path / name, images=2, slots=4, width=8, names=images) as write_row:
            for row, image in enumerate(images):
                torch.manual_seed(ord(image))
                write_row(
                    row,
                    LocalFeatures.from_descriptors(
                        torch.randn(4, 8), positions=torch.rand(4, 2), scale=torch.ones(4)
                    ),
                )
    files = tmp_path / "a.hdf5", tmp_path / "b.hdf5"
    has(compare(*files, "y"), verdict=SAME, rows=[1, 0])
    has(compare(*files, "0", "1"), verdict=DIFFERENT, rows=[0, 1])
    with pytest.raises(AmesError, match=r"b.hdf5: no image 'x', the file has no image of that name"):
        compare(*files, "x")
    with pytest.raises(AmesError, match=r"a.hdf5: no row 2, it has 2 images"):
        compare(*files, "2")


def test_images_without_descriptors(tmp_path):
    write_local(tmp_path / "a.hdf5", np.ones((1, 4, 8), np.float32), np.random.default_rng(0), 0, False)
    with create_local(tmp_path / "b.hdf5", images=1, slots=4, width=8):
        pass
    a, b = tmp_path / "a.hdf5", tmp_path / "b.hdf5"
    has(compare(a, b, "0"), verdict=DIFFERENT, descriptors=[4, 0])
    has(compare(b, b, "0"), verdict=SAME, descriptors=[0, 0])


# ---- conversion ---------------------------------------------------------------------------------------


def test_convert(tmp_path):
    path, what = convert(pickled(tmp_path / "nn_dinov2.pkl", torch.tensor(NEIGHBOURS)))
    assert (path, what) == (tmp_path / "nn_dinov2.npz", "shortlist of 2 queries, 3 entries each")
    assert Shortlist.load(path).ids.tolist() == [[0, 2, 1], [1, 2, 0]]
    path, _ = convert(tmp_path / "nn_dinov2.pkl", tmp_path / "out" / "short.npz", columns=1)
    assert Shortlist.load(path).ids.tolist() == [[0], [1]]
    path, what = convert(pickled(tmp_path / "gnd_x.pkl", GND))
    assert (path, what) == (tmp_path / "gnd_x.json", "ground truth of 2 queries")
    assert load_ground_truth(path).imlist == ["a", "b", "c"]


@pytest.mark.parametrize("binarized", [False, True])
def test_convert_a_checkpoint(tmp_path, binarized):
    source = published_weights(tmp_path / "dinov2_ames.pt", binarized=binarized)
    path, what = convert(source)
    assert path == tmp_path / "dinov2_ames.safetensors"
    assert what.startswith("weights, ")
    before, after = load_model(source).state_dict(), load_model(path).state_dict()
    assert all(torch.equal(x, after[name]) for name, x in before.items())
    assert read_weights(path).about["model"]["binarized"] == binarized
    save_checkpoint(tmp_path / "mine.pt", AMES(**TINY, nhead=4), provenance={"backbone": "cvnet"})
    about = read_weights(convert(tmp_path / "mine.pt")[0]).about
    assert (about["model"]["nhead"], about["backbone"], about["converted_from"]) == (4, "cvnet", "mine.pt")


def test_what_is_converted_already_stays(tmp_path):
    files = [pickled(tmp_path / "nn.pkl", torch.tensor(NEIGHBOURS)), pickled(tmp_path / "gnd.pkl", GND)]
    files += [published_weights(tmp_path / "dinov2_ames.pt", binarized=True)]
    for source in files:
        path, what = convert(source)
        before = path.stat().st_mtime_ns, path.read_bytes()
        assert convert(source) == (path, f"{what}; exists already")
        assert (path.stat().st_mtime_ns, path.read_bytes()) == before
    with pytest.raises(AmesError, match=r"nn.npz: exists, and is not what nn.pkl gives; move it away"):
        convert(tmp_path / "nn.pkl", columns=1)
    assert len(list(tmp_path.iterdir())) == 6


def test_what_is_not_converted(tmp_path):
    source = pickled(tmp_path / "gnd.pkl", GND)
    (tmp_path / "gnd.json").write_text("mine")
    with pytest.raises(AmesError, match=r"gnd.json: exists"):
        convert(source)
    assert (tmp_path / "gnd.json").read_text() == "mine"
    with pytest.raises(AmesError, match=r"x.npz: gnd.pkl becomes a .json file"):
        convert(source, tmp_path / "x.npz")
    with pytest.raises(AmesError, match=r"only .pkl, .pt, .pth, .hdf5 and .h5 files are converted"):
        convert(tmp_path / "x.txt")
    with pytest.raises(AmesError, match=r"x.hdf5: no such file"):
        convert(tmp_path / "x.hdf5")
    with pytest.raises(AmesError, match=r"not a shortlist: .* found a list"):
        convert(pickled(tmp_path / "list.pkl", [1]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gnd.json", "gnd.pkl", "list.pkl"]


# ---- the commands -------------------------------------------------------------------------------------


def test_the_commands(tmp_path, capsys):
    source = pickled(tmp_path / "nn.pkl", torch.tensor(NEIGHBOURS))
    assert main(["convert", str(source)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'nn.npz'}: shortlist of 2 queries, 3 entries each\n"
    assert main(["inspect", str(source)]) == 0
    assert "kind                       shortlist\n" in capsys.readouterr().out
    assert main(["inspect", "--json", str(tmp_path / "nn.npz")]) == 0
    assert json.loads(capsys.readouterr().out)["meta"] == {"converted_from": "nn.pkl"}
    a, b = two_files(tmp_path, clustered(0), clustered(0))
    assert main(["inspect", str(a), "--against", str(b), "--image", "1"]) == 0
    out = capsys.readouterr().out
    assert "verdict                    same\n" in out
    assert "cosine                     median 1, mean 1, min 1\n" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["inspect", "none.pkl"], "none.pkl: no such file"),
        (["inspect", "x.jpg"], "the ending '.jpg' is none of .hdf5"),
        (["inspect", "x.npz"], "x.npz: broken, or not an .npz file"),
        (["inspect", "x.hdf5"], "not a readable HDF5 file"),
        (["inspect", "x.hdf5", "--against", "x.hdf5"], "--against needs --image"),
        (["inspect", "x.hdf5", "--image", "3"], "--image and --against-image need --against"),
        (["convert", "none.pkl"], "no such file"),
        (["convert", "x.pkl"], "not a pickle, or a damaged one"),
        (["convert", "x.pkl", "--columns", "0"], "--columns 0: give at least 1"),
    ],
)
def test_one_line_for_what_is_wrong(tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    for name in ("x.jpg", "x.npz", "x.hdf5", "x.pkl"):
        (tmp_path / name).write_text("text")
    assert main(words) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1, err
    assert message in err
