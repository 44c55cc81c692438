"""Being here, this file puts ``tests/`` on the path: every test may import ``golden.rebuild``."""
