"""How many bytes a KV cache takes."""

from __future__ import annotations

from typing import Any

from slmlab.kv.shape import CacheShape
from slmlab.models.fields import check_whole

BYTES_PER_VALUE = {"float32": 4, "float16": 2, "bfloat16": 2, "float8": 1, "int8": 1}


def kv_bytes(config: Any, tokens: int, batch: int = 1, dtype: str = "float16") -> int:
    """Bytes of keys and values for ``batch`` sequences of ``tokens`` tokens.

    Two tensors (keys, values) a layer, one vector of ``head_dim`` a KV head and token. Query
    heads do not count: they share the KV heads (Ainslie et al. 2023, arXiv:2305.13245). A
    layer with a sliding window stores at most the window.

    Args:
        config: any object with Hugging Face attribute names; a missing one means absent.
        dtype: float32, float16, bfloat16, float8 or int8 (stored values only, no scales).

    Raises:
        ValueError: an unknown dtype, negative tokens, batch below 1, a config without sizes, with
            impossible ones, or with layer_types for another number of layers.
        TypeError: a count that is not an int.
    """
    if not isinstance(dtype, str) or dtype not in BYTES_PER_VALUE:
        raise ValueError(f"dtype {dtype!r} is unknown; use one of {', '.join(BYTES_PER_VALUE)}")
    check_whole("tokens", tokens, at_least=0)
    check_whole("batch", batch)
    shape = CacheShape.of(config)
    stored = sum(min(tokens, window) if window else tokens for window in shape.layer_windows)
    return 2 * stored * batch * shape.kv_heads * shape.head_dim * BYTES_PER_VALUE[dtype]
