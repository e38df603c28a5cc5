"""The exercises of lesson 07, in the order in which a learner meets them."""

from slmlab.checking import Exercise
from slmlab.lessons.distillation.choose_k import CHOOSE_K
from slmlab.lessons.distillation.gradient import GRADIENT
from slmlab.lessons.distillation.keep_layers import KEEP_LAYERS
from slmlab.lessons.distillation.on_policy import ON_POLICY
from slmlab.lessons.distillation.padding import PADDING
from slmlab.lessons.distillation.soft_targets import SOFT_TARGETS
from slmlab.lessons.distillation.step_repair import STEP_REPAIR
from slmlab.lessons.distillation.stored_logits import STORED_LOGITS
from slmlab.lessons.distillation.top_k import TOP_K
from slmlab.lessons.distillation.two_modes import TWO_MODES

EXERCISES: tuple[Exercise, ...] = (
    SOFT_TARGETS,
    GRADIENT,
    PADDING,
    TWO_MODES,
    TOP_K,
    STORED_LOGITS,
    CHOOSE_K,
    KEEP_LAYERS,
    ON_POLICY,
    STEP_REPAIR,
)
