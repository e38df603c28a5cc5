"""Plain data -> bytes, in the layout of layout.py.

This runs beside the learner's code: what it needs of other modules it holds under private names,
taken before any of that code can have put its own in their place.
"""

from __future__ import annotations

import math
import sys
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any

import numpy as np
from safetensors.numpy import save as _save

from .layout import (
    DOUBLE,
    HEADER,
    MARKS,
    MAX_ARRAYS,
    MAX_BYTES,
    MAX_DEPTH,
    MAX_ITEMS,
    SHORT,
    SMALL,
    TORCH_DTYPES,
)

_frombuffer, _ascontiguous, _finite = np.frombuffer, np.ascontiguousarray, math.isfinite
_ndarray, _uint8 = np.ndarray, np.dtype(np.uint8)
_NOTHING = np.empty(0, np.uint8)


class Writer:
    """Writes one message; `opaque` is the class Opaque of the values.py in use."""

    def __init__(self, opaque: type) -> None:
        self.opaque = opaque
        self.items = 0
        self.text = bytearray()
        self.entries: dict[str, np.ndarray] = {}

    def message(self, value: Any) -> bytes:
        json_text = self.node(value, 0).encode("ascii")
        if self.text:
            self.entries["text"] = _frombuffer(self.text, _uint8)
        content = HEADER.pack(len(json_text)) + json_text
        if self.entries:
            content += _save(self.entries)
        if len(content) > MAX_BYTES:
            raise ValueError(f"value: {len(content):,} bytes; at most {MAX_BYTES:,} can travel.")
        return content

    def node(self, value: Any, depth: int) -> str:
        self.items += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"value: nested deeper than {MAX_DEPTH}.")
        if self.items > MAX_ITEMS:
            raise ValueError(f"value: more than {MAX_ITEMS:,} items.")
        kind = type(value)
        if value is None:
            return "null"
        if kind is bool:
            return "true" if value else "false"
        if kind is int:
            return repr(value) if -SMALL <= value < SMALL else f'["i","{value:x}"]'
        if kind is float:
            return self.real(value)
        if kind is complex:
            return f'["c",{self.real(value.real)},{self.real(value.imag)}]'
        if kind is str:
            return self.string(value)
        if kind is bytes:
            self.text += value
            return f'["b",{len(value)}]'
        if kind is self.opaque:
            return f'["o",{self.string(value.type_name)}]'
        if kind is list or kind is tuple or kind is frozenset:
            letter = "l" if kind is list else "t" if kind is tuple else "z"
            return self.sequence(letter, value, depth)
        if kind is dict:
            return self.sequence("d", (item for pair in value.items() for item in pair), depth)
        if kind is _ndarray:
            return self.array(value)
        torch = sys.modules.get("torch")
        if torch is not None and kind is torch.Tensor:
            return self.tensor(torch, value)
        raise TypeError(f"value: {kind.__name__} is not plain data.")

    def sequence(self, letter: str, items: Any, depth: int) -> str:
        return f'["{letter}"' + "".join([f",{self.node(item, depth + 1)}" for item in items]) + "]"

    def real(self, value: float) -> str:
        return repr(value) if _finite(value) else f'["f","{DOUBLE.pack(value).hex()}"]'

    def string(self, value: str) -> str:
        # Short texts without marks stand in the JSON. A pair of lone surrogates would come back
        # from there as one character.
        if len(value) <= SHORT and value.isascii() and MARKS.isdisjoint(value):
            return _quoted(value)
        content = value.encode("utf-8", "surrogatepass")
        self.text += content
        return f'["s",{len(content)}]'

    def array(self, value: np.ndarray) -> str:
        if value.dtype.kind not in "biufc":
            raise TypeError(f"value: a numpy array of dtype {value.dtype} is not plain data.")
        order = _order(value.strides)
        flat = _ascontiguous(value.transpose(order)).reshape(-1).view(_uint8)
        return self.entry("n", value.dtype.str, value.shape, order, flat)

    def tensor(self, torch: Any, value: Any) -> str:
        name = str(value.dtype).removeprefix("torch.")
        if name not in TORCH_DTYPES or value.layout != torch.strided or value.is_quantized:
            raise TypeError(f"value: a {value.layout} tensor of {value.dtype} is not plain data.")
        if value.requires_grad or value.device.type != "cpu":
            raise TypeError("value: a tensor must be on the CPU and detached from its gradient.")
        order = _order(value.stride())
        if not value.numel():
            return self.entry("p", name, value.shape, order, _NOTHING)
        # clone() and not contiguous(): a single number may have the stride 0 and count as such.
        packed = value.resolve_conj().resolve_neg().permute(order)
        packed = packed.clone(memory_format=torch.contiguous_format)
        flat = packed.reshape(-1).view(torch.uint8).numpy()
        return self.entry("p", name, value.shape, order, flat)

    def entry(self, letter: str, dtype: str, shape: Any, order: list[int], flat: np.ndarray) -> str:
        if len(self.entries) >= MAX_ARRAYS:
            raise ValueError(f"value: more than {MAX_ARRAYS:,} arrays.")
        self.entries[str(len(self.entries))] = flat
        kept = order if order != sorted(order) else []
        sizes = ",".join(map(str, shape))
        return f'["{letter}","{dtype}",[{sizes}],[{",".join(map(str, kept))}]]'


def _order(strides: Any) -> list[int]:
    """Dimensions from the largest stride to the smallest; equal ones stay in place."""
    return sorted(range(len(strides)), key=lambda axis: -abs(strides[axis]))
