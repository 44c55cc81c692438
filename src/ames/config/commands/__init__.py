"""The Hydra commands: what src/*.py and ``ames train`` and its like call."""
