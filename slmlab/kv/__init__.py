"""Floor 1: KV caches. Each follows the protocol that :mod:`slmlab.models.cache` states."""

from slmlab.kv.accounting import kv_bytes
from slmlab.kv.batch import PagedBatch
from slmlab.kv.concatenating import ConcatenatingCache
from slmlab.kv.contiguous import ContiguousCache
from slmlab.kv.paged import PagedCache
from slmlab.kv.pool import BlockPool, OutOfBlocks
from slmlab.kv.prefix import PrefixIndex, block_hash, block_hashes
from slmlab.kv.quantized import QuantizedCache
from slmlab.kv.shape import CacheShape
from slmlab.kv.transformers_cache import as_transformers_cache
from slmlab.kv.window import SlidingWindowCache

__all__ = [
    "BlockPool",
    "CacheShape",
    "ConcatenatingCache",
    "ContiguousCache",
    "OutOfBlocks",
    "PagedBatch",
    "PagedCache",
    "PrefixIndex",
    "QuantizedCache",
    "SlidingWindowCache",
    "as_transformers_cache",
    "block_hash",
    "block_hashes",
    "kv_bytes",
]
