"""A linear layer whose weight is stored in few bits."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from slmlab.quant.kernels import MOST_ROWS, Kernel, choose_kernel, reference
from slmlab.quant.scheme import Scheme
from slmlab.quant.tensor import QuantizedTensor, quantize_tensor

_PARTS = ("packed", "scales", "zero_points", "absmax_blocks")


class QuantizedLinear(nn.Module):
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
        if isinstance(linear, QuantizedLinear):
            raise ValueError(f"linear is quantised already ({linear.scheme.name})")
        if not isinstance(linear, nn.Linear):
            raise TypeError(f"linear must be an nn.Linear, not {type(linear).__name__}")
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
        if x.shape[-1] != self.in_features:
            raise ValueError(f"x has {x.shape[-1]} features, this layer takes {self.in_features}")
        rows = x.reshape(-1, self.in_features)
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
        """What ``.to()`` and its kin call: buffers change their device, never their dtype."""
        before = {name: getattr(self, name) for name in _PARTS}
        super()._apply(fn, recurse)
        for name, tensor in before.items():
            if tensor is not None:
                setattr(self, name, tensor.to(getattr(self, name).device))
        self._kernel, self._prepared = None, False
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._kernel, self._prepared = None, False

    def extra_repr(self) -> str:
        bias = self.bias is not None
        return f"{self.in_features}, {self.out_features}, scheme={self.scheme.name}, bias={bias}"
