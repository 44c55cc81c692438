"""The documentation site builds without a warning, and its reference has every public name."""

import re

import ames
from helpers.commands import ROOT


def test_the_site_builds_without_a_warning(tmp_path, capfd):
    from sphinx.cmd.build import main

    words = ["-q", "-W", "--keep-going", "-b", "html", "-d", str(tmp_path / "trees"), str(ROOT / "docs")]
    assert main([*words, str(tmp_path / "site")]) == 0, capfd.readouterr().err
    reference = (tmp_path / "site" / "api.html").read_text()
    for name in set(ames.__all__) - {"__version__"}:
        assert re.search(rf'<dt [^>]*id="ames\.[\w.]*\.{name}"', reference), name
    first = (tmp_path / "site" / "index.html").read_text()
    assert "python.html" in first
    assert "docs/python.md" not in first
