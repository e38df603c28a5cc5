"""Floor 1: KV caches. Each follows the protocol that :mod:`slmlab.models.decoder` states."""

from slmlab.kv.accounting import kv_bytes
from slmlab.kv.contiguous import ContiguousCache

__all__ = ["ContiguousCache", "kv_bytes"]
