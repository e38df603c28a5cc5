"""Floor 1: KV caches. Each follows the protocol that :mod:`slmlab.models.cache` states."""

from slmlab.kv.accounting import kv_bytes
from slmlab.kv.batch import PagedBatch
from slmlab.kv.contiguous import ContiguousCache
from slmlab.kv.paged import PagedCache
from slmlab.kv.pool import BlockPool, OutOfBlocks
from slmlab.kv.prefix import PrefixIndex, block_hash, block_hashes
from slmlab.kv.shape import CacheShape

__all__ = [
    "BlockPool",
    "CacheShape",
    "ContiguousCache",
    "OutOfBlocks",
    "PagedBatch",
    "PagedCache",
    "PrefixIndex",
    "block_hash",
    "block_hashes",
    "kv_bytes",
]
