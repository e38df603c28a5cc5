"""Any of this room's caches as ``past_key_values`` of a transformers model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slmlab.kv.transformers_layers import TransformersCache


def as_transformers_cache(cache: Any) -> TransformersCache:
    """Wrap a cache, so that a transformers model fills it and attends to what it returns.

    ``model(ids, past_key_values=as_transformers_cache(cache))`` and ``model.generate`` work as
    with transformers' own caches. The tokens land in ``cache`` itself: its ``length``, ``nbytes``
    and counters go on counting, and ``truncate`` may be called on it between two passes.

    The model makes its own masks, from its config. So a ``SlidingWindowCache`` with a window below
    the model's own takes one token at a time once the window is full
    (``generate(..., prefill_chunk_size=1)``); the model's own window takes chunks of any size.

    Beam search, which copies and reorders rows, is refused, and so is a model whose layers share
    or compress what they cache: the caches here hold one key and one value a KV head and token.

    Args:
        cache: made with the model's config, batch and dtype. One cache serves one text (or one
            batch) until its ``truncate`` or the wrapper's ``reset``.

    Raises:
        TypeError: no cache of this protocol.
    """
    needed = ("append", "truncate", "length", "nbytes")
    missing = [name for name in needed if not hasattr(cache, name)]
    if missing:
        raise TypeError(
            f"cache must have append, truncate, length and nbytes, as slmlab.kv's caches do; "
            f"{type(cache).__name__} lacks {', '.join(missing)}"
        )
    # transformers takes seconds to import, and only this function needs it.
    from slmlab.kv.transformers_layers import TransformersCache

    return TransformersCache(cache)
