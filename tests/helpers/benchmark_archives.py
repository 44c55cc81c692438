"""Small archives of benchmarks, as the published ones are laid out."""

import gzip
import json
import pickle

import numpy as np

from helpers.class_archives import write

GLDV2_INDEX = ["00a1b2c3d4e5f607", "10a1b2c3d4e5f607", "20a1b2c3d4e5f607"]
GLDV2_TEST = ["aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb", "cccccccccccccccc", "dddddddddddddddd"]
GND = {
    "imlist": ["all_souls_1", "christ_1", "oxford_1", "oxford_2"],
    "qimlist": ["all_souls_9", "christ_9"],
    "gnd": [
        {"bbx": [1.0, 2.0, 30.0, 40.0], "easy": [0], "hard": [2], "junk": []},
        {"bbx": [5.0, 6.0, 70.0, 80.0], "easy": [], "hard": [1], "junk": [3]},
    ],
}


def touch(root, *names):
    for name in names:
        write(root / name, "image")


def revisited(root, content=GND, suffix=".json"):
    root.mkdir(parents=True, exist_ok=True)
    path = root / f"gnd_roxford5k{suffix}"
    path.write_bytes(json.dumps(content).encode() if suffix == ".json" else pickle.dumps(content))
    return root


def instre_mat(root):
    """Iscen's layout: a row of structures, ids from 1, a box in a row of its own."""
    from scipy.io import savemat

    gnd = np.zeros((1, 2), [("ok", object), ("bbx", object)])
    gnd[0, 0] = (np.array([[1, 3]], np.uint16), np.array([[10, 20, 110, 220]], np.uint16))
    gnd[0, 1] = (np.array([[2]], np.uint16), np.array([[1, 1, 50, 60]], np.uint16))
    names = ["INSTRE-S1/01a_x/001.jpg", "INSTRE-S2/01_y/002.jpg", "INSTRE-M/01/003.jpg"]
    queries = ["INSTRE-S1/01a_x/009.jpg", "INSTRE-S2/01_y/008.jpg"]
    cells = {}
    for key, values in (("imlist", names), ("qimlist", queries)):
        cells[key] = np.empty((1, len(values)), object)
        cells[key][0] = values
    root.mkdir(parents=True, exist_ok=True)
    savemat(root / "gnd_instre.mat", cells | {"gnd": gnd})
    return root


def gldv2(root, *, solution=None):
    write(root / "index.csv", "id\n" + "".join(f"{x}\n" for x in GLDV2_INDEX))
    write(root / "test.csv", "id\n" + "".join(f"{x}\n" for x in GLDV2_TEST))
    rows = [
        f"{GLDV2_TEST[0]},{GLDV2_INDEX[2]} {GLDV2_INDEX[0]},Private",
        f"{GLDV2_TEST[1]},None,Ignored",
        f"{GLDV2_TEST[2]},{GLDV2_INDEX[1]},Public",
    ]
    text = "\n".join(["id,images,Usage", *(rows if solution is None else solution)])
    write(root / "retrieval_solution_v2.1.csv", text + "\n")
    return root


def met(root):
    database = [
        {"id": 7, "path": "MET/7/0.jpg"},
        {"id": 9, "path": "MET/9/0.jpg"},
        {"id": 7, "path": "MET/7/1.jpg"},
    ]
    test = [{"MET_id": 7, "path": "test_met/1.jpg"}, {"path": "test_noart/2.jpg"}]
    for name, rows in (("MET_database", database), ("testset", test), ("valset", test[:1])):
        write(root / "ground_truth" / f"{name}.json", json.dumps(rows))
    return root


def ilias(root):
    write(
        root / "image_ids" / "image_query_ids.txt",
        "bold_bimp_000/query/Q000_00.jpg,captured\nzippy_zoot_999/query/Q999_00.jpg,web\n",
    )
    write(
        root / "image_ids" / "positive_ids.txt",
        "zippy_zoot_999/pos/P999_00.jpg,0.5,3\nbold_bimp_000/pos/P000_01.jpg,0.2,1\n"
        "bold_bimp_000/pos/P000_00.jpg,0.1,0\n",
    )
    with gzip.open(root / "image_ids" / "distractor_ids.txt.gz", "wt") as file:
        file.write("0000/aa\n0000/bb\n")
    write(root / "image_ids" / "mini_ilias_yfcc100m_ids.txt", "0000/aa\n")
    return root


def places(root, folder="images/test"):
    """Two places 100 m apart; a query at 25 m of the first, one at 25.1 m, one at neither."""
    for name in ("@500000.0@4470000.0@17@T@@@p1@.jpg", "@500100.00@4470000.00@17@T@@@p2@.jpg"):
        touch(root / folder / "database", name)
    for name in ("@500025@4470000@17@T@q1@.jpg", "@500000@4470025.1@17@T@q2@.jpg", "@500100@4470000@q3@.jpg"):
        touch(root / folder / "queries", name)
    return root
