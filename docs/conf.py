"""The documentation site: ``make docs`` builds these pages and the reference of the public names."""

import re
import tomllib
from pathlib import Path

from pygments.lexers.special import TextLexer

ROOT = Path(__file__).parents[1]

project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["name"]
author = "the ames authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "ames"
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "exclude-members": "__init__, __new__"}
add_module_names = False
suppress_warnings = ["misc.highlighting_failure"]  # a shell line with "..." in it is no Python


def _links(app, name, source):
    """Links that are right in the repository, made right on the site, whose first page is the README."""
    if name == "index":
        readme = (ROOT / "README.md").read_text()
        readme = (
            readme.replace("](docs/", "](").replace("[docs/", "[").replace("](CHANGELOG.md", "](changelog.md")
        )
        source[0] = source[0].replace("README", readme)
    if name == "changelog":
        source[0] = (ROOT / "CHANGELOG.md").read_text().replace("](docs/", "](")
    source[0] = re.sub(r"\]\(\.\./README\.md", "](index.md", source[0])


def setup(app):
    app.connect("source-read", _links)
    app.add_lexer("mermaid", TextLexer)  # a drawing of the flow, which is readable as text
