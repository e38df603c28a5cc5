"""The exercises of lesson 04, in the order in which a learner meets them."""

from slmlab.checking import Exercise
from slmlab.lessons.kv_cache.cache_bytes import CACHE_BYTES
from slmlab.lessons.kv_cache.choose_bits import CHOOSE_BITS
from slmlab.lessons.kv_cache.concat_repair import CONCAT_REPAIR
from slmlab.lessons.kv_cache.context_fits import CONTEXT_FITS
from slmlab.lessons.kv_cache.quantize_cache import QUANTIZE_CACHE
from slmlab.lessons.kv_cache.rewind_repair import REWIND_REPAIR
from slmlab.lessons.kv_cache.window_repair import WINDOW_REPAIR

EXERCISES: tuple[Exercise, ...] = (
    CACHE_BYTES,
    CONTEXT_FITS,
    CONCAT_REPAIR,
    REWIND_REPAIR,
    WINDOW_REPAIR,
    QUANTIZE_CACHE,
    CHOOSE_BITS,
)
