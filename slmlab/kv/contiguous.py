"""The plainest KV cache: one preallocated block, filled from the left."""

from __future__ import annotations

import torch
from torch import Tensor

from slmlab.models.config import ModelConfig
from slmlab.models.fields import check_whole
from slmlab.models.placement import check_device, check_dtype


class ContiguousCache:
    """Keys and values of all layers, room for ``max_length`` tokens reserved up front.

    Appending writes in place and returns views, so no token is ever copied twice. ``length``
    advances when the last layer has appended: within one forward pass every layer writes at
    the same offset.

    Args:
        config: the model's sizes.
        batch: sequences that run side by side.
        max_length: tokens a sequence can hold.
        dtype, device: of the stored keys and values.

    Raises:
        ValueError: sizes below 1, a dtype or device that cannot be used, an append past
            ``max_length`` or of another model's layers, shape or dtype.
        TypeError: sizes that are not ints, no torch.dtype, no device.
    """

    def __init__(
        self,
        config: ModelConfig,
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
        shape = (
            config.num_hidden_layers,
            batch,
            config.num_key_value_heads,
            max_length,
            config.head_dim,
        )  # (layers, batch, kv_heads, time, head_dim)
        self._keys = torch.empty(shape, dtype=dtype, device=device)
        self._values = torch.empty(shape, dtype=dtype, device=device)
        self._sizes = (batch, config.num_key_value_heads, config.head_dim)
        self._last_layer = config.num_hidden_layers - 1
        self.max_length = max_length
        self.length = 0

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store this pass's keys and values; return everything the layer may attend to.

        Args:
            layer: 0 .. layers - 1, called in order within one forward pass.
            k, v: (batch, kv_heads, T, head_dim).

        Returns:
            keys, values: (batch, kv_heads, length + T, head_dim), views into the cache.
        """
        for name, tensor in (("k", k), ("v", v)):
            if not isinstance(tensor, Tensor):
                raise TypeError(f"{name} must be a tensor, not {type(tensor).__name__}")
        batch, kv_heads, head_dim = self._sizes
        if (
            k.dim() != 4
            or k.shape != (batch, kv_heads, k.shape[-2], head_dim)
            or k.shape != v.shape
            or not 0 <= layer <= self._last_layer
        ):
            raise ValueError(
                f"layer {layer} appends keys {tuple(k.shape)} and values {tuple(v.shape)}, this "
                f"cache takes layers 0 to {self._last_layer} and (batch, kv_heads, T, head_dim) = "
                f"({batch}, {kv_heads}, T, {head_dim}): make it with this model's config and batch"
            )
        if k.dtype != self._keys.dtype or v.dtype != self._keys.dtype:
            raise ValueError(
                f"layer {layer} appends {k.dtype} to a cache of {self._keys.dtype}: make it with "
                "dtype=model.dtype"
            )
        end = self.length + k.shape[2]
        if end > self.max_length:
            raise ValueError(
                f"max_length={self.max_length} is too small: this pass ends at token {end}; "
                "make the cache larger or truncate it first"
            )
        self._keys[layer, :, :, self.length : end] = k
        self._values[layer, :, :, self.length : end] = v
        if layer == self._last_layer:
            self.length = end
        return self._keys[layer, :, :, :end], self._values[layer, :, :, :end]

    def truncate(self, n: int) -> None:
        """Keep the first ``n`` tokens; what follows is overwritten by the next append."""
        if isinstance(n, bool) or not isinstance(n, int):
            raise TypeError(f"n must be an int, not {n!r}")
        if not 0 <= n <= self.length:
            raise ValueError(f"n={n} must lie between 0 and the cache's length {self.length}")
        self.length = n

    @property
    def nbytes(self) -> int:
        """Bytes reserved, used or not."""
        return self._keys.nbytes + self._values.nbytes
