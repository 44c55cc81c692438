"""Where Hydra stops: from its tree to plain arguments."""
