"""The exercises of lesson 02, in the order in which a learner meets them."""

from slmlab.checking import Exercise
from slmlab.lessons.quantization.absmax_int8 import ABSMAX_INT8
from slmlab.lessons.quantization.affine_int8 import AFFINE_INT8
from slmlab.lessons.quantization.choose_group import CHOOSE_GROUP
from slmlab.lessons.quantization.file_size import FILE_SIZE
from slmlab.lessons.quantization.nf4_codes import NF4_CODES
from slmlab.lessons.quantization.nf4_levels import NF4_LEVELS
from slmlab.lessons.quantization.pack_int4 import PACK_INT4
from slmlab.lessons.quantization.unpack_repair import UNPACK_REPAIR

EXERCISES: tuple[Exercise, ...] = (
    ABSMAX_INT8,
    AFFINE_INT8,
    PACK_INT4,
    FILE_SIZE,
    NF4_LEVELS,
    NF4_CODES,
    UNPACK_REPAIR,
    CHOOSE_GROUP,
)
