"""A KV cache in 8, 4 or 2 bits: old tokens quantised, the newest ones in full precision."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from slmlab.kv.checks import check_append, check_truncate
from slmlab.kv.quantized_blocks import QuantizedBlocks
from slmlab.kv.shape import CacheShape
from slmlab.models.fields import check_whole
from slmlab.models.placement import check_device, check_dtype
from slmlab.quant.grid import FP16_LARGEST

BITS = (8, 4, 2)
PER = ("channel", "token")


class QuantizedCache:
    """KIVI (Liu et al. 2024, arXiv:2402.02750): keys in groups along one channel, values in groups
    along one token, each group with an fp16 scale and an fp16 minimum. ``keys_per`` and
    ``values_per`` turn that, so that the choice can be measured.

    A few key channels are large in every token; a group per channel gives them a scale of their
    own, a group per token makes their neighbours share it. Values have no such channels, and
    attention mixes whole tokens, so a group per token keeps one token's error in that token.

    The newest ``residual`` tokens at least stay as they came. Once ``residual + group_size`` of
    those are held, the oldest ``group_size`` are quantised. A pass attends before it quantises:
    its own tokens count in full precision, so one long prefill is exact, and what quantising
    costs shows in the passes that follow.

    Args:
        config: the model's sizes: a ``ModelConfig``, or any object with Hugging Face names.
        bits: of a code: 8, 4 or 2.
        group_size: tokens that are quantised at a time, and values that share a scale. Where it
            does not divide ``head_dim``, the last group of each token is shorter.
        residual: tokens that always stay in full precision.
        keys_per, values_per: "channel" or "token", the side along which a group of each runs.
        value_bits: bits of a value's code where they are to differ from a key's; None: ``bits``.
        batch: sequences that run side by side.
        dtype, device: of the keys and values that come in and go out.

    Attributes:
        length: tokens stored.

    Raises:
        ValueError: other bits, sizes below 1, a dtype or device that cannot be used, an append of
            another model's layers, shape or dtype, or of numbers that fp16 cannot hold.
        TypeError: sizes that are not ints, no torch.dtype, no device.
    """

    def __init__(
        self,
        config: Any,
        bits: int = 4,
        group_size: int = 32,
        residual: int = 32,
        *,
        keys_per: str = "channel",
        values_per: str = "token",
        value_bits: int | None = None,
        batch: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        _check_bits("bits", bits)
        value_bits = bits if value_bits is None else _check_bits("value_bits", value_bits)
        check_whole("group_size", group_size)
        check_whole("residual", residual, at_least=0)
        check_whole("batch", batch)
        for name, per in (("keys_per", keys_per), ("values_per", values_per)):
            if per not in PER:
                raise ValueError(f"{name}={per!r} must be 'channel' or 'token'")
        check_dtype(dtype)
        device = check_device(device)
        self._shape = shape = CacheShape.of(config)
        self._batch, self._dtype = batch, dtype
        self._layers = []
        for _ in range(shape.layers):
            keys, values = (
                QuantizedBlocks(
                    per, width, group_size, (batch, shape.kv_heads), shape.head_dim, device
                )
                for per, width in ((keys_per, bits), (values_per, value_bits))
            )
            empty = torch.empty(
                (batch, shape.kv_heads, 0, shape.head_dim), dtype=dtype, device=device
            )
            self._layers.append(_Layer(keys, values, empty, residual))
        self.length = 0

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store this pass's keys and values; return everything the layer may attend to.

        Args:
            layer: 0 .. layers - 1, called in order within one forward pass.
            k, v: (batch, kv_heads, T, head_dim).

        Returns:
            keys, values: (batch, kv_heads, length + T, head_dim) of the cache's dtype, in order:
            dequantised tokens, those in full precision, the new ones.
        """
        end = self.length + check_append(layer, k, v, self._shape, self._batch, self._dtype)
        for name, tensor in (("keys", k), ("values", v)):
            # Now, not when they are quantised passes later; the comparison fails for NaN too.
            if tensor.numel() and not (largest := tensor.abs().amax().item()) <= FP16_LARGEST:
                raise ValueError(
                    f"layer {layer} appends {name} up to {largest:g}, beyond fp16's {FP16_LARGEST:g}"
                    ", in which scales and minima are kept: use a cache in full precision"
                )
        store = self._layers[layer]
        if store.length != self.length:  # a pass stopped half-way, after this layer had appended
            store.truncate(self.length)
        seen = store.append(k.detach(), v.detach())
        if layer == self._shape.layers - 1:
            self.length = end
        return seen

    def truncate(self, n: int) -> None:
        """Keep the first ``n`` tokens. Where ``n`` lies within a quantised group, what is kept of
        that group returns to the tokens in full precision, with the error it has by then."""
        check_truncate(n, self.length)
        for store in self._layers:
            store.truncate(n)
        self.length = n

    @property
    def quantized_length(self) -> int:
        """Tokens that are in few bits; the other ``length - quantized_length`` are not."""
        return min(store.keys.tokens for store in self._layers)

    @property
    def bits_per_value(self) -> float:
        """Bits that a quantised number takes, over keys and values: code, its share of the
        metadata, padding."""
        store = self._layers[0]
        return (store.keys.bits_per_value + store.values.bits_per_value) / 2

    @property
    def nbytes(self) -> int:
        """Bytes allocated: codes and metadata, and the tokens in full precision. Nothing is
        reserved ahead, and nothing dropped stays allocated."""
        return sum(store.nbytes for store in self._layers)


def _check_bits(name: str, bits: int) -> int:
    if check_whole(name, bits) not in BITS:
        raise ValueError(f"{name}={bits} is not one of 8, 4 and 2")
    return bits


class _Layer:
    """Quantised blocks and, behind them, the newest tokens as they came."""

    def __init__(
        self, keys: QuantizedBlocks, values: QuantizedBlocks, empty: Tensor, residual: int
    ) -> None:
        self.keys, self.values = keys, values
        self.new_keys = self.new_values = empty  # (batch, kv_heads, newest, head_dim)
        self.residual = residual

    @property
    def length(self) -> int:
        return self.keys.tokens + self.new_keys.shape[2]

    @property
    def nbytes(self) -> int:
        newest = self.new_keys.nbytes + self.new_values.nbytes
        return self.keys.nbytes + self.values.nbytes + newest

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        new_keys = torch.cat([self.new_keys, k], dim=2)
        new_values = torch.cat([self.new_values, v], dim=2)
        seen = self._behind(self.keys, new_keys), self._behind(self.values, new_values)
        size = self.keys.group_size
        full = max(0, new_keys.shape[2] - self.residual) // size * size
        if full:
            self.keys.add(new_keys[:, :, :full])
            self.values.add(new_values[:, :, :full])
            # Cloned: a view would keep the memory of what is quantised now.
            new_keys, new_values = new_keys[:, :, full:].clone(), new_values[:, :, full:].clone()
        self.new_keys, self.new_values = new_keys, new_values
        return seen

    def _behind(self, blocks: QuantizedBlocks, newest: Tensor) -> Tensor:
        if not blocks.tokens:
            return newest
        return torch.cat([blocks.dequantize().to(newest.dtype), newest], dim=2)

    def truncate(self, n: int) -> None:
        kept = n - self.keys.tokens
        if kept >= 0:
            self.new_keys = self.new_keys[:, :, :kept].clone()
            self.new_values = self.new_values[:, :, :kept].clone()
            return
        whole, part = divmod(n, self.keys.group_size)
        dtype = self.new_keys.dtype
        self.new_keys = self.keys.dequantize(whole)[:, :, :part].to(dtype, copy=True)
        self.new_values = self.values.dequantize(whole)[:, :, :part].to(dtype, copy=True)
        self.keys.keep(whole)
        self.values.keep(whole)
