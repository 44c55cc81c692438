"""Training: the teacher by cross-entropy, the binary student by distillation."""

from ames.training.fit import fit
from ames.training.recipe import Recipe

__all__ = ["Recipe", "fit"]
