"""What transformers asks of a cache, answered by one of ours. Imported on first use only.

transformers sees a cache as a list of layers; ours advance together, so every layer answers from
the same ``length``. A mask is made before the layers run: it takes the number of keys that
``update`` is going to return, and the position of the first of them.
"""

from __future__ import annotations

from typing import Any, NoReturn

from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class CachedLayer(CacheLayerMixin):
    """One layer of a wrapped cache. ``window``: tokens that a query sees, None for all."""

    is_croppable = True
    supports_early_init = False

    def __init__(self, cache: Any, layer: int) -> None:
        super().__init__()
        self.cache = cache
        self.layer = layer
        windows = getattr(cache, "layer_windows", None)
        self.window: int | None = windows[layer] if windows else None
        self.is_sliding = self.window is not None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the wrapped cache exists."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append (batch, kv_heads, T, head_dim); what to attend to, as the wrapped cache says."""
        return self.cache.append(self.layer, key_states, value_states)

    def get_seq_length(self) -> int:
        return self.cache.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many keys ``update`` returns for this many new tokens, and where the first stands.

        Raises:
            ValueError: several tokens at a time, over a window that the model does not know of
                and that does not hold them all: its causal mask would show them too much.
        """
        past = self.cache.length
        if self.window is None:
            return past + query_length, 0
        narrowed = getattr(self.cache, "narrowed", False)
        if narrowed and query_length > 1 and past + query_length > self.window:
            raise ValueError(
                f"window={self.window} is narrower than the model's own attention, and the model "
                f"makes the mask: {query_length} tokens after {past} would see more than the "
                "window. Feed one token at a time (generate takes prefill_chunk_size=1), or use "
                "slmlab's Decoder"
            )
        kept = min(past, self.window - 1)
        return kept + query_length, past - kept

    def get_max_length(self) -> int:
        """Tokens that the layer can hold, -1 where nothing limits them."""
        if self.window is not None:
            return self.window
        return getattr(self.cache, "max_length", -1)

    get_max_cache_shape = get_max_length  # its name in earlier versions of transformers


class TransformersCache(Cache):
    """A wrapped cache; ``cache`` is the one inside. Made by `as_transformers_cache`."""

    def __init__(self, cache: Any) -> None:
        windows = getattr(cache, "layer_windows", None) or ()
        layers: list[Any] = [CachedLayer(cache, layer) for layer in range(len(windows))]
        super().__init__(layers=layers)
        self.cache = cache
        self._open = False  # a pass has begun and not moved the length yet

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if layer_idx == 0:
            unfinished, self._open = self._open, True
            if unfinished:
                self._open = False
                raise ValueError(
                    "the last pass did not reach the cache's last layer: it stopped half-way, or the "
                    "cache was made for another number of layers than this model's; make it with "
                    "the model's config, or run the pass again"
                )
        # A cache that states no windows does not say how many layers it has; the model does.
        while len(self.layers) <= layer_idx:
            self.layers.append(CachedLayer(self.cache, len(self.layers)))
        before = self.cache.length
        seen = super().update(key_states, value_states, layer_idx, *args, **kwargs)
        if self.cache.length != before:
            self._open = False
        return seen

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens stored, also before the model's first pass over a cache that was filled earlier."""
        return self.cache.length

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self._layer(layer_idx).get_mask_sizes(query_length)

    def get_max_length(self, layer_idx: int | None = None) -> int:
        if layer_idx is not None or not self.layers:
            return self._layer(layer_idx or 0).get_max_length()
        limits = [layer.get_max_length() for layer in self.layers]
        return -1 if -1 in limits else max(limits)

    def _layer(self, layer_idx: int) -> CachedLayer:
        known: list[Any] = self.layers
        return known[layer_idx] if layer_idx < len(known) else CachedLayer(self.cache, layer_idx)

    @property
    def is_initialized(self) -> bool:
        return self.cache.length > 0

    def crop(self, tokens_to_remove: int) -> None:
        """Take the newest ``-tokens_to_remove`` tokens back, as assisted generation does.

        A positive number is the length to keep: the meaning it had in earlier versions of
        transformers, which refuses it by now.
        """
        keep = tokens_to_remove if tokens_to_remove > 0 else self.cache.length + tokens_to_remove
        self.cache.truncate(keep)
        self._open = False

    def reset(self) -> None:
        """Forget everything."""
        self._open = False
        if hasattr(self.cache, "clear"):
            self.cache.clear()
        else:
            self.cache.truncate(0)

    def reorder_cache(self, beam_idx: Tensor) -> NoReturn:
        self._refuse("reorder its rows (beam search)")

    def batch_repeat_interleave(self, repeats: int) -> NoReturn:
        self._refuse("repeat its rows")

    def batch_select_indices(self, indices: Tensor) -> NoReturn:
        self._refuse("drop rows")

    def _refuse(self, what: str) -> NoReturn:
        raise ValueError(
            f"{type(self.cache).__name__} cannot {what}: its batch is fixed; use greedy decoding "
            "or sampling, or transformers' DynamicCache"
        )
