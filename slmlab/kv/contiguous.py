"""The plainest KV cache: one preallocated block, filled from the left."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from slmlab.kv.checks import check_append, check_truncate
from slmlab.kv.shape import CacheShape
from slmlab.kv.storage import allocate_pair
from slmlab.models.fields import check_whole
from slmlab.models.placement import check_device, check_dtype


class ContiguousCache:
    """Keys and values of all layers, room for ``max_length`` tokens reserved up front.

    Appending writes in place and returns views, so no token is ever copied twice. ``length``
    advances when the last layer has appended: within one forward pass every layer writes at
    the same offset.

    Args:
        config: the model's sizes: a ``ModelConfig``, or any object with Hugging Face names.
        batch: sequences that run side by side.
        max_length: tokens a sequence can hold.
        dtype, device: of the stored keys and values.

    Attributes:
        length: tokens stored.
        bytes_copied: bytes that appending has written so far, each token once a layer.

    Raises:
        ValueError: sizes below 1, a dtype or device that cannot be used, an append past
            ``max_length`` or of another model's layers, shape or dtype.
        TypeError: sizes that are not ints, no torch.dtype, no device.
    """

    def __init__(
        self,
        config: Any,
        batch: int = 1,
        *,
        max_length: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        check_whole("batch", batch)
        check_whole("max_length", max_length)
        check_dtype(dtype)
        device = check_device(device)
        self._shape = CacheShape.of(config)
        shape = (self._shape.layers, batch, self._shape.kv_heads, max_length, self._shape.head_dim)
        self._keys, self._values = allocate_pair(shape, dtype, device, "max_length")
        self._batch, self._dtype = batch, dtype
        self.max_length = max_length
        self.length = 0
        self.bytes_copied = 0

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store this pass's keys and values; return everything the layer may attend to.

        Args:
            layer: 0 .. layers - 1, called in order within one forward pass.
            k, v: (batch, kv_heads, T, head_dim).

        Returns:
            keys, values: (batch, kv_heads, length + T, head_dim), views into the cache.
        """
        end = self.length + check_append(layer, k, v, self._shape, self._batch, self._dtype)
        if end > self.max_length:
            raise ValueError(
                f"max_length={self.max_length} is too small: this pass ends at token {end}; "
                "make the cache larger or truncate it first"
            )
        self._keys[layer, :, :, self.length : end] = k
        self._values[layer, :, :, self.length : end] = v
        self.bytes_copied += k.nbytes + v.nbytes
        if layer == self._shape.layers - 1:
            self.length = end
        return self._keys[layer, :, :, :end], self._values[layer, :, :, :end]

    def truncate(self, n: int) -> None:
        """Keep the first ``n`` tokens; what follows is overwritten by the next append."""
        check_truncate(n, self.length)
        self.length = n

    @property
    def nbytes(self) -> int:
        """Bytes reserved, used or not."""
        return self._keys.nbytes + self._values.nbytes
