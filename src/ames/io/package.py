"""Where the files of conf/ are: in an installed package, or at the top of a clone."""

from pathlib import Path

_PACKAGED = Path(__file__).parents[1] / "conf"
CONF = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[3] / "conf"
