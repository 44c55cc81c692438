"""Training: the teacher by cross-entropy, the binary student by distillation."""

from ames.training.recipe import Recipe
from ames.training.trainer import fit

__all__ = ["Recipe", "fit"]
