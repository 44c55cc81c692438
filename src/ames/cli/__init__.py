"""The command ``ames``: argparse only."""
