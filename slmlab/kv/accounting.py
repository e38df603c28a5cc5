"""How many bytes a KV cache takes."""

from __future__ import annotations

from typing import Any

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
    layers, heads = _field(config, "num_hidden_layers"), _field(config, "num_attention_heads")
    if layers is None or heads is None:
        raise ValueError("config needs num_hidden_layers and num_attention_heads")
    kv_heads, head_dim = _field(config, "num_key_value_heads"), _field(config, "head_dim")
    if kv_heads is None:
        kv_heads = heads
    if head_dim is None:
        hidden_size = _field(config, "hidden_size")
        if hidden_size is None:
            raise ValueError("config needs head_dim, or hidden_size to divide by the heads")
        head_dim = check_whole(
            "config field hidden_size / num_attention_heads", hidden_size // heads
        )
    stored = sum(min(tokens, window) if window else tokens for window in _windows(config, layers))
    return 2 * stored * batch * kv_heads * head_dim * BYTES_PER_VALUE[dtype]


def _field(config: Any, name: str) -> int | None:
    """A size that the config states, checked; None where it does not."""
    value = getattr(config, name, None)
    return None if value is None else check_whole(f"config field {name}", value)


def _windows(config: Any, layers: int) -> list[int | None]:
    """Window of each layer, from our ``layer_windows`` or Hugging Face's fields."""
    own = getattr(config, "layer_windows", None)
    if own:
        windows = [None if w is None else check_whole("config field layer_windows", w) for w in own]
        return _one_a_layer("layer_windows", windows, layers)
    if getattr(config, "use_sliding_window", True) is False:
        return [None] * layers
    window = _field(config, "sliding_window")
    types = getattr(config, "layer_types", None)
    if window is None or types is None:
        return [window] * layers
    windows = [window if kind == "sliding_attention" else None for kind in types]
    return _one_a_layer("layer_types", windows, layers)


def _one_a_layer(name: str, windows: list[int | None], layers: int) -> list[int | None]:
    if len(windows) != layers:
        raise ValueError(
            f"config field {name} names {len(windows)} layers, num_hidden_layers says {layers}"
        )
    return windows
