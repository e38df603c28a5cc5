"""A linear layer whose weight is stored in few bits."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from slmlab.quant.kernels import MOST_ROWS, Kernel, choose_kernel, reference
from slmlab.quant.scheme import Scheme
from slmlab.quant.tensor import QuantizedTensor, quantize_tensor

_PARTS = ("packed", "scales", "zero_points", "absmax_blocks")


class KeepsDtypes(nn.Module):
    """A module whose buffers keep their dtype when ``.to(dtype)`` or ``.half()`` change its
    parameters': a stored scale must not be rounded again."""

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """What ``.to()`` and its kin call."""
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, old in before.items():
            new = self._buffers[name]
            if old is not None and new is not None and new.dtype != old.dtype:
                self._buffers[name] = old.to(new.device)
        return self


def rows_of(x: Tensor, features: int) -> Tensor:
    """Inputs (..., in) of a layer as rows (rows, in), checked: codes times integers, or rounded
    to integers again, would be wrong numbers without an error."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = getattr(x, "dtype", type(x).__name__)
        raise TypeError(f"x must be a floating-point tensor, not {kind}: use x.float()")
    if x.shape[-1:] != (features,):
        raise ValueError(f"x has shape {tuple(x.shape)}, this layer takes (..., {features})")
    return x.reshape(-1, features)


class QuantizedLinear(KeepsDtypes):
    """Computes as ``nn.Linear`` with ``weight.dequantize()`` would; x's dtype in, the same out.

    Up to ``MOST_ROWS`` rows (decoding) go through the kernel that `choose_kernel` finds, more of
    them, and any that need gradients, through the exact `reference`. The kernel is prepared at
    the first such call and may hold a copy of the codes in its own layout (``kernel_nbytes``);
    ``nbytes`` counts what is stored. ``exact = True`` on an instance keeps to the reference.

    Buffers: those of ``QuantizedTensor.stored()``; ``.to(dtype)`` and ``.half()`` leave their
    dtypes alone, as fp16 scales must not be rounded to bfloat16.
    """

    exact = False
    packed: Tensor
    scales: Tensor
    zero_points: Tensor | None
    absmax_blocks: Tensor | None

    def __init__(self, weight: QuantizedTensor, bias: Tensor | None = None) -> None:
        super().__init__()
        if not isinstance(weight, QuantizedTensor):
            raise TypeError(
                f"weight must be a QuantizedTensor, not {type(weight).__name__}: use "
                "quantize_tensor, or QuantizedLinear.from_linear"
            )
        self.out_features, self.in_features = weight.shape
        self.scheme = weight.scheme
        if bias is not None and tuple(bias.shape) != (self.out_features,):
            raise ValueError(
                f"bias must have shape (out,) = ({self.out_features},), not {tuple(bias.shape)}"
            )
        stored = weight.stored()
        for name in _PARTS:
            self.register_buffer(name, stored.get(name))
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self._kernel: Kernel | None = None
        self._prepared = False

    @classmethod
    def from_linear(cls, linear: nn.Linear, scheme: str | Scheme) -> Self:
        """Quantise the weight of ``linear`` by rounding to nearest; its bias is copied as it is.

        Raises as `quantize_tensor`; ValueError for a QuantizedLinear, TypeError for no Linear.
        """
        check_linear(linear)
        bias = None if linear.bias is None else linear.bias.detach().clone()
        return cls(quantize_tensor(linear.weight, scheme), bias).train(linear.training)

    @property
    def weight(self) -> QuantizedTensor:
        """The stored weight, a view of the buffers."""
        return QuantizedTensor(
            self.scheme,
            (self.out_features, self.in_features),
            self.packed,
            self.scales,
            self.absmax_blocks,
            self.zero_points,
        )

    @property
    def nbytes(self) -> int:
        """Bytes stored: codes, metadata and bias."""
        return self.weight.nbytes + (0 if self.bias is None else self.bias.nbytes)

    @property
    def kernel(self) -> Kernel | None:
        """The product that few rows go through, prepared now if it was not; None: `reference`."""
        if not self._prepared:
            self._kernel, self._prepared = choose_kernel(self.weight), True
        return self._kernel

    @property
    def kernel_nbytes(self) -> int:
        """Bytes that the kernel holds beside the stored ones; 0 before its first use."""
        return 0 if self._kernel is None else self._kernel.nbytes

    def forward(self, x: Tensor) -> Tensor:
        rows = rows_of(x, self.in_features)
        kernel = None
        if len(rows) <= MOST_ROWS and not self.exact:
            kernel = self._kernel if self._prepared else self.kernel
        if kernel is None or (x.requires_grad and torch.is_grad_enabled()):
            product = reference(rows, self.weight)
        else:
            product = kernel.multiply(rows.to(torch.bfloat16)).to(x.dtype)
        if self.bias is not None:
            product = product + self.bias.to(x.dtype)
        return product.view(*x.shape[:-1], self.out_features)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self._kernel, self._prepared = None, False
        return self

    def __getstate__(self) -> dict[str, Any]:
        """What copy.deepcopy copies: all but the kernel, which reads this layer's own memory."""
        return {**self.__dict__, "_kernel": None, "_prepared": False}

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._kernel, self._prepared = None, False

    def extra_repr(self) -> str:
        bias = self.bias is not None
        return f"{self.in_features}, {self.out_features}, scheme={self.scheme.name}, bias={bias}"


def check_linear(linear: nn.Module) -> None:
    """ValueError for a layer that is quantised already, TypeError for no ``nn.Linear``."""
    if isinstance(linear, QuantizedLinear):
        raise ValueError(f"linear is quantised already ({linear.scheme.name})")
    if not isinstance(linear, nn.Linear):
        raise TypeError(f"linear must be an nn.Linear, not {type(linear).__name__}")
