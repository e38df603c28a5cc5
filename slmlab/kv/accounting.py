"""How many bytes a KV cache takes."""

from __future__ import annotations

from typing import Any

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
        ValueError: an unknown dtype, negative tokens, batch below 1, a config without sizes.
    """
    if dtype not in BYTES_PER_VALUE:
        raise ValueError(f"dtype {dtype!r} is unknown; use one of {', '.join(BYTES_PER_VALUE)}")
    if tokens < 0 or batch < 1:
        raise ValueError(f"tokens={tokens} must be at least 0 and batch={batch} at least 1")
    layers = getattr(config, "num_hidden_layers", None)
    heads = getattr(config, "num_attention_heads", None)
    if layers is None or heads is None:
        raise ValueError("config needs num_hidden_layers and num_attention_heads")
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    stored = sum(min(tokens, window or tokens) for window in _windows(config, layers))
    return 2 * stored * batch * kv_heads * head_dim * BYTES_PER_VALUE[dtype]


def _windows(config: Any, layers: int) -> list[int | None]:
    """Window of each layer, from our ``layer_windows`` or Hugging Face's fields."""
    own = getattr(config, "layer_windows", None)
    if own:
        return list(own)
    window = getattr(config, "sliding_window", None)
    if window is None or getattr(config, "use_sliding_window", True) is False:
        return [None] * layers
    types = getattr(config, "layer_types", None)
    if types is None:
        return [window] * layers
    return [window if kind == "sliding_attention" else None for kind in types]
