"""Floor 4: how the embedded models are made. ``slmlab train`` is the command."""

from slmlab.training.pretrain import train
from slmlab.training.recipe import Recipe, load_recipe

__all__ = ["Recipe", "load_recipe", "train"]
