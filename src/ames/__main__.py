"""`python -m ames`."""

import sys

from ames.cli import main

sys.exit(main())
