"""Small test sets whose figures are not all the same."""

import numpy as np

from ames.cli.main import main
from ames.datasets.ground_truth import GroundTruth, save_ground_truth
from ames.datasets.layout import DatasetFolder
from ames.datasets.lists import write_names
from ames.global_search.shortlist import Shortlist
from golden import data_root
from helpers import photos

REVISITED_KEYS = {"easy": 2, "hard": 3, "junk": 2}


def made(path, *, keys=REVISITED_KEYS, queries=6, gallery=150, distractors=0, seed=0):
    """A test set of small descriptors in which right images have noisy copies."""
    rng = np.random.default_rng(seed)
    folder = DatasetFolder(path, "rootsift")
    local = {"query": rng.standard_normal((queries, 5, 8)).astype(np.float32)}
    local["gallery"] = rng.standard_normal((gallery + distractors, 5, 8)).astype(np.float32)
    truth, similarities = [], rng.random((queries, gallery + distractors)).astype(np.float32)
    for query in range(queries):
        drawn, start, found = rng.permutation(gallery), 0, {}
        for key, count in keys.items():
            found[key] = np.sort(drawn[start : start + count])
            start += count
        right = drawn[: start - keys.get("junk", 0)]
        local["gallery"][right] = local["query"][query] + 0.5 * rng.standard_normal((len(right), 5, 8))
        similarities[query, right] += 0.3
        truth.append(found)
    names = [[f"{kind}{i}" for i in range(n)] for kind, n in (("g", gallery), ("q", queries))]
    save_ground_truth(folder.ground_truth, GroundTruth(truth, *names))
    order = np.argsort(-similarities, axis=1, kind="stable")
    Shortlist(order, np.take_along_axis(similarities, order, 1)).save(folder.shortlist)
    for split, x in local.items():
        data_root.write_local(folder.local(split), x, rng, 1, padded=False)
    return folder


def prepared_photos(folder):
    """A test set of photos with RootSIFT's files: eight scenes, two of which are asked for."""
    gallery = [f"g{seed}.png" for seed in range(8)]
    for seed, name in enumerate(gallery):
        photos.save(folder / name, photos.scene(seed))
    for seed in (2, 5):
        photos.save(folder / f"q{seed}.png", photos.scene(seed, view=1))
    write_names(folder / "test_gallery.txt", gallery)
    write_names(folder / "test_query.txt", ["q2.png", "q5.png"])
    truth = [{"ok": np.array([seed]), "junk": np.array([], int)} for seed in (2, 5)]
    save_ground_truth(folder / f"gnd_{folder.name}.json", GroundTruth(truth, gallery, ["q2.png", "q5.png"]))
    assert main(["prepare", str(folder), "--backbone", "rootsift", "--workers", "0"]) == 0
