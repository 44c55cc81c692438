"""Training: one loop (``Trainer``) for every task (``Task``, one file each in ``ames.training.tasks``)."""

from ames.training.recipe import Recipe
from ames.training.task import Task, Validation
from ames.training.trainer import Trainer

__all__ = ["Recipe", "Task", "Trainer", "Validation"]
