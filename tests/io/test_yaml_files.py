"""YAML files of conf/ and of one's own."""

import pytest

from ames.errors import AmesError
from ames.io.yaml_files import load_yaml, named_file, names_in


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", r"x.yaml: not YAML \("),
        ("a: 1\nb: {c: 1, c: 2}", r"x.yaml: not YAML \(the key 'c' stands twice below line 2\)"),
        ("a: 1\na: 2", "the key 'a' stands twice below line 1"),
        ("a: 2026-13-45", "not YAML"),
        ("? [1]\n: 2", "not YAML"),
        ("!!python/object/apply:os.system ['true']", "not YAML"),
        ("[" * 5000, "not YAML"),
    ],
)
def test_files_that_are_refused(tmp_path, text, message):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(AmesError, match=message):
        load_yaml(tmp_path / "x.yaml")


def test_files_that_are_read(tmp_path):
    (tmp_path / "x.yaml").write_text("a: &a {b: 1}\nc: {<<: *a, d: [1, ü]}")
    assert load_yaml(tmp_path / "x.yaml") == {"a": {"b": 1}, "c": {"b": 1, "d": [1, "ü"]}}
    (tmp_path / "x.yaml").write_bytes(b"\xff")
    with pytest.raises(AmesError, match="not YAML"):
        load_yaml(tmp_path / "x.yaml")


def test_names(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").touch()
    assert names_in(tmp_path) == ["one", "two"]
    assert named_file(tmp_path, "two", "thing") == tmp_path / "two.yaml"
    assert named_file(tmp_path, "else/where.yml", "thing").name == "where.yml"
    for wrong in ("on", "../one", "one.txt"):
        with pytest.raises(AmesError, match=f"thing '{wrong}' does not exist; "):
            named_file(tmp_path, wrong, "thing")
