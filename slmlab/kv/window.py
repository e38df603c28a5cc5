"""A KV cache that forgets: a ring buffer of the newest tokens, for sliding-window attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from slmlab.kv.checks import check_append, check_truncate
from slmlab.kv.shape import CacheShape
from slmlab.kv.storage import allocate_pair
from slmlab.models.fields import check_whole
from slmlab.models.placement import check_device, check_dtype

LayerWindows = tuple[int | None, ...]


class SlidingWindowCache:
    """Keys and values of the tokens that a window still sees, and of ``slack`` more.

    A query sees ``window`` tokens, itself included (Beltagy et al. 2020, arXiv:2004.05150;
    Mistral 7B, arXiv:2310.06825), so ``window - 1`` earlier ones are enough to go on. The other
    ``slack`` allow going back: after ``truncate`` the window before the new end is still whole.

    A chunk is handed out together with what its first token sees before any of it is evicted, so
    a chunk may be longer than the ring. ``length`` counts every token ever appended, and rotary
    positions follow it: what leaves the ring does not move what stays.

    Args:
        config: the model's sizes: a ``ModelConfig``, or any object with Hugging Face names.
        window: tokens that a query sees in every layer, at most what the model's own window
            allows; None takes the config's window of each layer.
        slack: tokens that ``truncate`` can take back once older ones were evicted.
        batch: sequences that run side by side.
        max_length: tokens that layers with full attention can hold; needed only by a model that
            mixes both kinds of layer, and without effect in windowed ones.
        dtype, device: of the stored keys and values.

    Attributes:
        length: tokens appended and not taken back.
        layer_windows: tokens that a query sees in each layer, None for all of them; the decoder
            masks with these in place of the config's.
        narrowed: whether a layer sees less than the model itself would let it see.

    Raises:
        ValueError: sizes below 1, a window above the model's own, no window at all, a missing
            ``max_length``, a dtype or device that cannot be used, an append of another model's
            layers, shape or dtype.
        TypeError: sizes that are not ints, no torch.dtype, no device.
    """

    def __init__(
        self,
        config: Any,
        window: int | None = None,
        slack: int = 16,
        batch: int = 1,
        *,
        max_length: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        check_whole("slack", slack, at_least=0)
        check_whole("batch", batch)
        check_dtype(dtype)
        device = check_device(device)
        self._shape = CacheShape.of(config)
        self.layer_windows = _layer_windows(self._shape.layer_windows, window)
        self.narrowed = self.layer_windows != self._shape.layer_windows
        if max_length is not None:
            check_whole("max_length", max_length)
        elif None in self.layer_windows:
            raise ValueError(
                f"max_length is needed: layer {self.layer_windows.index(None)} attends to every "
                "token and has to hold them all; pass max_length=, or window= for every layer"
            )
        self._batch, self._dtype = batch, dtype
        self._slack, self._max_length = slack, max_length
        self._rings = []
        for seen in self.layer_windows:
            room = (max_length or 0) if seen is None else seen - 1 + slack
            block = (batch, self._shape.kv_heads, room, self._shape.head_dim)
            pair = allocate_pair(block, dtype, device, "max_length" if seen is None else "window")
            self._rings.append(_Ring(pair, seen))
        self.length = 0

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store this pass's keys and values; return everything the layer may attend to.

        Args:
            layer: 0 .. layers - 1, called in order within one forward pass.
            k, v: (batch, kv_heads, T, head_dim).

        Returns:
            keys, values: (batch, kv_heads, min(length, window - 1) + T, head_dim), oldest first;
            length + T of them in a layer with full attention.
        """
        end = self.length + check_append(layer, k, v, self._shape, self._batch, self._dtype)
        if None in self.layer_windows and self._max_length and end > self._max_length:
            raise ValueError(
                f"max_length={self._max_length} is too small: this pass ends at token {end}; "
                "make the cache larger or truncate it first"
            )
        ring = self._rings[layer]
        if self.length < ring.earliest:
            raise ValueError(
                f"layer {layer} has evicted tokens that this pass needs: an earlier pass of more "
                f"than slack={self._slack} tokens stopped half-way; call clear() and start over"
            )
        seen = ring.append(k, v, at=self.length)
        if layer == self._shape.layers - 1:
            self.length = end
        return seen

    def truncate(self, n: int) -> None:
        """Keep the first ``n`` tokens: any ``n`` before the first eviction, later at most ``slack``
        tokens back from the furthest point that was reached.

        Going back does not bring evicted tokens home, so tokens appended after a ``truncate`` add
        to what can be taken back only once they pass that furthest point.

        Raises:
            ValueError: an ``n`` above ``length``, or one whose window has lost tokens.
        """
        check_truncate(n, self.length)
        earliest = max(ring.earliest for ring in self._rings)
        if n < earliest:
            raise ValueError(
                f"n={n} is too far back: of length={self.length} tokens, slack={self._slack} keeps "
                f"enough to return to {earliest} at the earliest; make the cache with a larger "
                "slack, or call clear() and start over"
            )
        self.length = n

    def clear(self) -> None:
        """Forget everything: the next token is the first. ``truncate(0)`` cannot do this once
        tokens were evicted, since it promises to keep what it returns to."""
        for ring in self._rings:
            ring.oldest = 0
        self.length = 0

    @property
    def nbytes(self) -> int:
        """Bytes reserved; they do not grow with ``length``."""
        return sum(ring.keys.nbytes + ring.values.nbytes for ring in self._rings)


class _Ring:
    """One layer's tokens: position p lies in slot p % room, so it evicts position p - room."""

    def __init__(self, pair: tuple[Tensor, Tensor], window: int | None) -> None:
        self.keys, self.values = pair  # (batch, kv_heads, room, head_dim) each
        self.room = self.keys.shape[2]
        self.window = window
        self.oldest = 0  # every position from here to the end is in its slot

    @property
    def earliest(self) -> int:
        """The first length to which this layer can return.

        A query there looks back over window - 1 tokens, all of which must be in their slots. While
        nothing was evicted that is any length.
        """
        return self.oldest + self.window - 1 if self.window and self.oldest else 0

    def append(self, k: Tensor, v: Tensor, at: int) -> tuple[Tensor, Tensor]:
        """What the tokens from position ``at`` on may attend to; then they are stored."""
        end = at + k.shape[2]
        if self.window is None:
            self.keys[:, :, at:end], self.values[:, :, at:end] = k, v
            return self.keys[:, :, :end], self.values[:, :, :end]
        past = self._slots(max(0, at - self.window + 1), at)
        keys = torch.cat([*(self.keys[:, :, slots] for slots in past), k], dim=2)
        values = torch.cat([*(self.values[:, :, slots] for slots in past), v], dim=2)
        taken = max(0, k.shape[2] - self.room)  # these would be evicted by their own chunk
        for slots in self._slots(at + taken, end):
            count = slots.stop - slots.start
            self.keys[:, :, slots] = k[:, :, taken : taken + count]
            self.values[:, :, slots] = v[:, :, taken : taken + count]
            taken += count
        # Rewriting positions behind the furthest point evicts nothing more: `oldest` stays.
        self.oldest = max(self.oldest, end - self.room)
        return keys, values

    def _slots(self, start: int, end: int) -> list[slice]:
        """The slots of positions ``start`` to ``end``, in order: one slice, or two around the end."""
        if start == end:
            return []
        first, count = start % self.room, end - start
        if first + count <= self.room:
            return [slice(first, first + count)]
        return [slice(first, self.room), slice(0, first + count - self.room)]


def _layer_windows(own: LayerWindows, window: int | None) -> LayerWindows:
    """The windows to keep, given the model's ``own``."""
    if window is None:
        if set(own) == {None}:
            raise ValueError(
                "window is needed: the config has none of its own; pass window=, or use "
                "ContiguousCache to keep every token"
            )
        return own
    check_whole("window", window)
    narrowest = min((seen for seen in own if seen is not None), default=window)
    if window > narrowest:
        raise ValueError(
            f"window={window} is wider than the model's own, {narrowest}: pass a smaller one, or "
            "None to keep what the model sees"
        )
    return (window,) * len(own)
