"""The exercises of lesson 01, in the order in which a learner meets them."""

from slmlab.checking import Exercise
from slmlab.lessons.anatomy.apply_rope import APPLY_ROPE
from slmlab.lessons.anatomy.arithmetic_intensity import ARITHMETIC_INTENSITY
from slmlab.lessons.anatomy.bytes_per_token import BYTES_PER_TOKEN
from slmlab.lessons.anatomy.choose_deployment import CHOOSE_DEPLOYMENT
from slmlab.lessons.anatomy.decode_ceiling import DECODE_CEILING
from slmlab.lessons.anatomy.parameter_count import PARAMETER_COUNT
from slmlab.lessons.anatomy.rms_norm import RMS_NORM
from slmlab.lessons.anatomy.top_p_repair import TOP_P_REPAIR

EXERCISES: tuple[Exercise, ...] = (
    PARAMETER_COUNT,
    RMS_NORM,
    APPLY_ROPE,
    BYTES_PER_TOKEN,
    ARITHMETIC_INTENSITY,
    TOP_P_REPAIR,
    DECODE_CEILING,
    CHOOSE_DEPLOYMENT,
)
