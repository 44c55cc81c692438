"""A person's truth as it is written: folders, both forms of CSV, wrong input; splits by objects."""

import pytest

from ames.datasets.components import components
from ames.datasets.photo_truth import connected, read_truth, split, write_part
from ames.errors import AmesError
from helpers import photos


def write(path, text, **how):
    path.write_text(text, **how)
    return path


def test_components_are_ordered_by_their_first_nodes():
    assert components(7, [(5, 1), (3, 4), (1, 6), (4, 3)]) == [[0], [1, 5, 6], [2], [3, 4]]
    assert components(0, []) == []


def test_queries_that_share_answers_are_one_object():
    pairs = [("q1", "a"), ("q2", "b"), ("q3", "a"), ("lone", ""), ("b", "c")]
    assert connected(pairs) == ["q1", "q2", "q1", "lone", "q2"]


def test_a_folder_has_an_object_per_sub_folder(tmp_path):
    for name in ("b/1.png", "b/deep/2.png", "a/3.png", "distractors/4.png", "top.png"):
        photos.save(tmp_path / name, photos.plain())
    truth = read_truth(tmp_path)
    found = {name: [row.photo for row in rows] for name, rows in truth.objects().items()}
    root = tmp_path.resolve()
    assert found == {"a": [f"{root}/a/3.png"], "b": [f"{root}/b/1.png", f"{root}/b/deep/2.png"]}
    (tmp_path / "flat").mkdir()
    photos.save(tmp_path / "flat" / "x.png", photos.plain())
    with pytest.raises(AmesError, match="no images in sub-folders"):
        read_truth(tmp_path / "flat")


def test_csv_as_spreadsheets_write_it(tmp_path):
    text = '\ufeffquery , answer\r\n"q, 1.jpg",a.jpg\r\n\r\nnone.jpg,\r\n'
    truth = read_truth(write(tmp_path / "t.csv", text, encoding="utf-8", newline=""))
    assert [tuple(row) for row in truth.rows] == [("q, 1.jpg", "a.jpg", 2), ("none.jpg", "", 4)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "its first line is ''; expected photo,object or query,answer"),
        ("a.jpg,x\n", "its first line is 'a.jpg,x'; expected photo,object or query,answer"),
        ("photo,object\n", "has no row after its first line"),
        ("photo,object\na.jpg\n", "line 2: 1 fields; expected 2 (photo,object)"),
        ("photo,object\na.jpg,\n", "line 2: a field is empty"),
        ("photo,object\na.jpg,x\nb.jpg,x\na.jpg,x\n", "line 4: a.jpg is again in line 2; remove one"),
        (
            "photo,object\na.jpg,x\na.jpg,y\n",
            "line 3: a.jpg is of 'y', and of 'x' in line 2; give query,answer",
        ),
        ("query,answer\na,b,c\n", "line 2: 3 fields; expected 2 (query,answer)"),
        ("query,answer\n,b\n", "line 2: the query is empty"),
        ("query,answer\na,a\n", "line 2: a is its own answer"),
        ("query,answer\na,b\na,b\n", "line 3: repeats line 2"),
        ("query,answer\na,b\na,\n", "line 3: a has an answer, and a row without one"),
    ],
)
def test_wrong_csv_is_one_line_that_names_the_place(tmp_path, text, message):
    path = write(tmp_path / "t.csv", text)
    with pytest.raises(AmesError) as error:
        read_truth(path)
    assert str(error.value).startswith(f"{path}: {message}")


def test_a_split_shares_no_object_and_is_read_again(tmp_path):
    rows = [f"{of}{i}.jpg,{of}" for of in "abcdefg" for i in range(3)]
    truth = read_truth(write(tmp_path / "t.csv", "photo,object\n" + "\n".join(rows)))
    parts = split(truth, [0.3, 0.7], seed=3)
    objects = [{row.other for row in part} for part in parts]
    assert [len(x) for x in objects] == [2, 5]
    assert not objects[0] & objects[1]
    assert sorted(row.photo for part in parts for row in part) == sorted(row.photo for row in truth.rows)
    assert split(truth, [0.3, 0.7], seed=3) == parts != split(truth, [0.3, 0.7], seed=4)
    again = read_truth(write_part(tmp_path / "parts" / "one.csv", truth, parts[0]))
    assert [row[:2] for row in again.rows] == [row[:2] for row in parts[0]]
    for shares, message in (([0.5, 0.6], "sum to 1"), ([1.5, -0.5], "above 0"), ([0.1] * 10, "too few")):
        with pytest.raises(AmesError, match=message):
            split(truth, shares)


def test_a_split_of_queries_keeps_answers_together_and_files_findable(tmp_path):
    photos.save(tmp_path / "q1.jpg", photos.plain())
    text = "query,answer\nq1.jpg,a/1.jpg\nq2.jpg,a/1.jpg\nq3.jpg,b/1.jpg\nlone.jpg,\n"
    truth = read_truth(write(tmp_path / "t.csv", text))
    assert list(truth.objects()) == ["lone.jpg", "q1.jpg", "q3.jpg"]
    path = write_part(tmp_path / "elsewhere" / "part.csv", truth, truth.objects()["q1.jpg"])
    whole = tmp_path.resolve() / "q1.jpg"
    assert path.read_text() == f"query,answer\n{whole},a/1.jpg\nq2.jpg,a/1.jpg\n"
