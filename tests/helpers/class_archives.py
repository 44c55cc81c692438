"""Small archives of class-labelled data sets, as the published ones are laid out."""

import numpy as np

GLDV2 = {"7": ["00a1b2c3d4e5f607", "10a1b2c3d4e5f607"], "31": ["fedcba9876543210"]}


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def cub(root):
    """Classes 1, 100 (training), 101 and 200; the last image of the list is of class 1 again."""
    names = ["001.Auk/a_1.jpg", "100.Tern/b_1.jpg", "101.Jay/c_1.jpg", "101.Jay/c_2.jpg", "200.Wren/d_1.jpg"]
    write(root / "images.txt", "".join(f"{n} {x}\n" for n, x in enumerate([*names, "001.Auk/a_2.jpg"], 1)))
    return root


def sop(root):
    header = "image_id class_id super_class_id path\n"
    write(root / "Ebay_train.txt", f"{header}1 1 1 bicycle_final/1_0.JPG\n2 1 1 bicycle_final/1_1.JPG\n")
    rows = ["3 11319 1 lamp_final/3_0.JPG", "4 11319 1 lamp_final/3_1.JPG", "5 11320 1 sofa_final/4_0.JPG"]
    write(root / "Ebay_test.txt", header + "\n".join(rows) + "\n")
    return root


def inshop(root, *, said=5):
    """Columns are padded with spaces, as in the published file."""
    rows = [
        "img/WOMEN/Tees/id_01/01_1_front.jpg    id_01    train",
        "img/MEN/Denim/id_02/01_1_front.jpg     id_02    query",
        "img/MEN/Denim/id_02/01_2_side.jpg      id_02    gallery",
        "img/WOMEN/Tees/id_03/02_1_front.jpg    id_03    query",
        "img/WOMEN/Tees/id_03/02_3_back.jpg     id_03    gallery",
    ]
    head = f"{said}\nimage_name item_id evaluation_status\n"
    write(root / "Eval" / "list_eval_partition.txt", head + "\n".join(rows) + "\n")
    return root


def gldv2(root):
    """train_clean.csv, and train.csv with one image more, whose address has commas."""
    rows = "".join(f"{landmark},{' '.join(images)}\n" for landmark, images in GLDV2.items())
    write(root / "train_clean.csv", "landmark_id,images\n" + rows)
    whole = [f'{image},"http://x/a,b.jpg",{landmark}\n' for landmark, x in GLDV2.items() for image in x]
    write(root / "train.csv", "id,url,landmark_id\n" + "".join(whole) + "ffffffffffffffff,http://x/y.jpg,9\n")
    return root


CARS = [
    ("car_ims/000001.jpg", 1),
    ("car_ims/000002.jpg", 98),
    ("car_ims/000003.jpg", 99),
    ("car_ims/4.jpg", 196),
]


def cars_mat(path, cars=CARS, *, order=("path", "x1", "y1", "x2", "y2", "class", "test")):
    """A MATLAB 5 file with ``annotations``, a row of structures; order: of its fields."""
    from scipy.io import savemat

    table = np.zeros((1, len(cars)), [(name, object) for name in order])
    for place, (name, label) in enumerate(cars):
        values = {"path": name, "class": np.uint8(label), "test": np.uint8(0)}
        table[0, place] = tuple(values.get(key, np.uint16(5)) for key in order)
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"annotations": table, "class_names": np.array(["a", "b"], object)})
    return path
