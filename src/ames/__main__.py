"""``python -m ames``."""

import sys

from ames.cli.main import main

sys.exit(main())
