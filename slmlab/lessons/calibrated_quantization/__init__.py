"""The exercises of lesson 03, in the order in which a learner meets them."""

from slmlab.checking import Exercise
from slmlab.lessons.calibrated_quantization.allocate_bits import ALLOCATE_BITS
from slmlab.lessons.calibrated_quantization.awq_search import AWQ_SEARCH
from slmlab.lessons.calibrated_quantization.gptq_column import GPTQ_COLUMN
from slmlab.lessons.calibrated_quantization.gptq_memory import GPTQ_MEMORY
from slmlab.lessons.calibrated_quantization.honest_clip import HONEST_CLIP
from slmlab.lessons.calibrated_quantization.salient_channels import SALIENT_CHANNELS
from slmlab.lessons.calibrated_quantization.smoothquant_fold import SMOOTHQUANT_FOLD

EXERCISES: tuple[Exercise, ...] = (
    SALIENT_CHANNELS,
    AWQ_SEARCH,
    GPTQ_COLUMN,
    GPTQ_MEMORY,
    SMOOTHQUANT_FOLD,
    ALLOCATE_BITS,
    HONEST_CLIP,
)
