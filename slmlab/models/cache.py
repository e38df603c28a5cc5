"""The cache protocols that the decoder expects; slmlab.kv follows them."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor


class Cache(Protocol):
    """What the decoder needs of a KV cache.

    ``append`` stores one layer's new keys and values, (B, KV, T, D) each, and returns the keys
    and values to attend to, (B, KV, S, D): the S newest tokens, ending with the T given. Layers
    append in order; ``length`` counts stored tokens and advances after the last layer.

    ``layer_windows`` is optional: one entry a layer, in place of the config's, for a cache that
    keeps less than the model could see.
    """

    length: int

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]: ...

    def truncate(self, n: int) -> None: ...

    @property
    def nbytes(self) -> int: ...


class BatchCache(Protocol):
    """A cache of several sequences, whose new tokens lie end to end in one row.

    It attends itself, as only it knows whose token is whose: q (1, H, T, D), k and v (1, KV, T, D)
    -> (1, H, T, D), where T counts the new tokens of all sequences. ``length`` counts stored tokens,
    ``positions`` (T,) are the rotary positions of the new ones.
    """

    length: int
    positions: Tensor

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor: ...


AnyCache = Cache | BatchCache


def stored_tokens(cache: Any) -> int:
    """Tokens that a cache holds; 0 without one. TypeError for an object that is no cache."""
    if cache is None:
        return 0
    if not hasattr(cache, "length") or not (hasattr(cache, "append") or hasattr(cache, "attend")):
        raise TypeError(
            f"cache must have append and length, as slmlab.kv's caches do; got "
            f"{type(cache).__name__}"
        )
    return int(cache.length)
