"""The naive KV cache: every step builds its tensors anew, and copies all it already held."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from slmlab.kv.checks import check_append, check_truncate
from slmlab.kv.shape import CacheShape
from slmlab.models.fields import check_whole
from slmlab.models.placement import check_device, check_dtype


class ConcatenatingCache:
    """Keys and values of all layers, joined with ``torch.cat`` at every append.

    It reserves nothing, and pays for that in copies: T appends of one token write
    1 + 2 + ... + T tokens, where ``ContiguousCache`` writes T. Compare their ``bytes_copied``.

    Args:
        config: the model's sizes: a ``ModelConfig``, or any object with Hugging Face names.
        batch: sequences that run side by side.
        dtype, device: of the stored keys and values.

    Attributes:
        length: tokens stored.
        bytes_copied: bytes that appending has written so far, old tokens and new ones.

    Raises:
        ValueError: sizes below 1, a dtype or device that cannot be used, an append of another
            model's layers, shape or dtype.
        TypeError: sizes that are not ints, no torch.dtype, no device.
    """

    def __init__(
        self,
        config: Any,
        batch: int = 1,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        check_whole("batch", batch)
        check_dtype(dtype)
        self._shape = CacheShape.of(config)
        empty = torch.empty(
            (batch, self._shape.kv_heads, 0, self._shape.head_dim),
            dtype=dtype,
            device=check_device(device),
        )
        self._keys = [empty] * self._shape.layers
        self._values = [empty] * self._shape.layers
        self._batch, self._dtype = batch, dtype
        self.length = 0
        self.bytes_copied = 0

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store this pass's keys and values; return everything the layer may attend to.

        Args:
            layer: 0 .. layers - 1, called in order within one forward pass.
            k, v: (batch, kv_heads, T, head_dim).

        Returns:
            keys, values: (batch, kv_heads, length + T, head_dim), new tensors.
        """
        end = self.length + check_append(layer, k, v, self._shape, self._batch, self._dtype)
        # A pass that stopped half-way left tokens behind `length` in its first layers.
        keys = torch.cat([self._keys[layer][:, :, : self.length], k], dim=2)
        values = torch.cat([self._values[layer][:, :, : self.length], v], dim=2)
        self._keys[layer], self._values[layer] = keys, values
        self.bytes_copied += keys.nbytes + values.nbytes
        if layer == self._shape.layers - 1:
            self.length = end
        return keys, values

    def truncate(self, n: int) -> None:
        """Keep the first ``n`` tokens and give the memory of the others back."""
        check_truncate(n, self.length)
        self._keys = [keys[:, :, :n].clone() for keys in self._keys]
        self._values = [values[:, :, :n].clone() for values in self._values]
        self.length = n

    @property
    def nbytes(self) -> int:
        """Bytes of the tokens held."""
        return sum(tensor.nbytes for tensor in self._keys + self._values)
