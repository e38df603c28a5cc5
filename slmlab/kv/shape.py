"""What a KV cache needs to know of a model: how many vectors, how wide, how far back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from slmlab.models.fields import check_whole


@dataclass(frozen=True)
class CacheShape:
    """The sizes of the keys and values that one token leaves behind.

    ``layer_windows``: one entry a layer, None for full attention, else the tokens that a query
    sees, itself included.
    """

    layers: int
    kv_heads: int
    head_dim: int
    layer_windows: tuple[int | None, ...]

    @classmethod
    def of(cls, config: Any) -> Self:
        """Read a ``ModelConfig`` or any object with Hugging Face attribute names; a missing one
        means absent.

        Query heads do not count: they share the KV heads (Ainslie et al. 2023, arXiv:2305.13245).

        Raises:
            ValueError: a config without sizes, with impossible ones, or with layer_types for
                another number of layers.
            TypeError: a size that is not an int.
        """
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
        return cls(layers, kv_heads, head_dim, tuple(_windows(config, layers)))


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
