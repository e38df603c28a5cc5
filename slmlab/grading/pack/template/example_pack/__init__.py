"""The exercises of this pack, in the order of the handout."""

from slmlab.checking import Exercise

from .clip_norm import CLIP_NORM
from .running_mean import RUNNING_MEAN

EXERCISES: tuple[Exercise, ...] = (RUNNING_MEAN, CLIP_NORM)
