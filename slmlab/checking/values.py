"""Turns whatever a function returned into plain data that nobody else controls.

A learner's object may carry a lying ``__eq__`` or alias an input, so nothing is compared before it
has passed through :func:`plain`: the result is a copy made of built-in types only, read with the
built-in types' own methods. torch is looked up in ``sys.modules`` and never imported here: a value
can only be a tensor if somebody has imported torch already.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_DEPTH = 20
MAX_ITEMS = 200_000
SCALARS = (bool, int, float, complex, str, bytes)


@dataclass(frozen=True)
class Opaque:
    """Stands for a value that is not data (a generator, a function, an instance of a class)."""

    type_name: str


def is_tensor(value: object) -> bool:
    """True for a torch tensor, False without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and issubclass(type(value), torch.Tensor)


def is_array(value: object) -> bool:
    """True for a numpy array or a torch tensor."""
    return issubclass(type(value), np.ndarray) or is_tensor(value)


def is_number(value: object) -> bool:
    """True for a Python int, float or complex; a bool is not a number here."""
    return type(value) in (int, float, complex)


class _TooLarge(Exception):
    """More items than MAX_ITEMS were met."""


def plain(value: Any) -> Any:
    """Returns a detached copy of `value` made of trusted types.

    Scalars of numpy become Python's, subclasses of built-in types become the built-in type, tensors
    and arrays are copied (device: CPU), and everything else becomes :class:`Opaque`: a list that
    holds itself too, and a structure of more than MAX_ITEMS items (one list that stands at many
    places counts at each).
    """
    try:
        return _Copier().copy(value, 0)
    except _TooLarge:
        return Opaque(f"{type(value).__name__} of more than {MAX_ITEMS} items")


class _Copier:
    """One walk through a value: how many items it has met, and which containers it stands in."""

    def __init__(self) -> None:
        self.met = 0
        self.inside: set[int] = set()

    def copy(self, value: Any, depth: int) -> Any:
        kind = type(value)
        self.met += 1
        if self.met > MAX_ITEMS:
            raise _TooLarge
        if not issubclass(kind, (list, tuple, dict, set, frozenset)):
            return _leaf(value)
        if id(value) in self.inside:
            return Opaque(f"{kind.__name__} that holds itself")
        if depth >= MAX_DEPTH:
            return Opaque(f"{kind.__name__} nested deeper than {MAX_DEPTH}")
        self.inside.add(id(value))
        try:
            return self._container(value, kind, depth + 1)
        finally:
            self.inside.discard(id(value))

    def _container(self, value: Any, kind: type, depth: int) -> Any:
        # The methods are called on the built-in class, so an override in a subclass has no say.
        if issubclass(kind, list):
            return [self.copy(item, depth) for item in list.__iter__(value)]
        if issubclass(kind, tuple):
            return tuple(self.copy(item, depth) for item in tuple.__iter__(value))
        if issubclass(kind, dict):
            return {self._key(k, depth): self.copy(v, depth) for k, v in dict.items(value)}
        if kind in (set, frozenset):
            return frozenset(self._key(item, depth) for item in value)
        return Opaque(kind.__name__)

    def _key(self, value: Any, depth: int) -> Any:
        result = self.copy(value, depth)
        try:
            hash(result)
        except TypeError:
            return Opaque(type(value).__name__)
        return result


def _leaf(value: Any) -> Any:
    kind = type(value)
    if value is None or kind in SCALARS or kind is Opaque:
        return value
    if issubclass(kind, np.generic):
        return _numpy_scalar(value)
    if issubclass(kind, np.ndarray):
        array = np.array(value, copy=True, subok=False)
        return array if array.dtype.kind in "biufc" else Opaque(f"array of dtype {array.dtype}")
    if is_tensor(value):
        return _tensor(value)
    if issubclass(kind, int):
        return int.__int__(value)
    if issubclass(kind, float):
        return float.__float__(value)
    if issubclass(kind, str):
        return str.__str__(value)
    return Opaque(kind.__name__)


def _numpy_scalar(value: np.generic) -> Any:
    item = np.generic.item(value)
    if type(item) in SCALARS:
        return item
    return float(item) if isinstance(item, np.floating) else Opaque(type(value).__name__)


def _tensor(value: Any) -> Any:
    torch = sys.modules["torch"]
    if type(value) not in (torch.Tensor, torch.nn.Parameter):
        return Opaque(type(value).__name__)
    if value.is_nested or value.is_quantized:
        return Opaque(f"{'nested' if value.is_nested else 'quantized'} torch.Tensor")
    try:
        # An attribute set on the instance (t.detach = ...) must not be asked.
        dense = torch.Tensor.to_dense(torch.Tensor.detach(value))
        copied = dense.to("cpu", copy=True).resolve_conj().resolve_neg().contiguous()
        as_array(copied)
        return copied
    except Exception:
        # torch refuses what it has no kernel for with exceptions of many types.
        return Opaque(f"{value.layout} tensor on {value.device}")


def as_array(value: Any) -> np.ndarray:
    """The numbers of a plain number, array or tensor; bfloat16 becomes float32 and
    complex32 complex64, without loss."""
    if is_tensor(value):
        torch = sys.modules["torch"]
        if value.dtype.is_floating_point and value.dtype not in (torch.float32, torch.float64):
            value = value.to(torch.float32)
        elif value.dtype == torch.complex32:
            value = value.to(torch.complex64)
        return np.asarray(value.numpy())
    return np.asarray(value)


def type_name(value: Any) -> str:
    """How a sentence names the type of a plain value."""
    if value is None:
        return "None"
    if type(value) is Opaque:
        return value.type_name
    if is_tensor(value):
        return "torch.Tensor"
    return "numpy.ndarray" if is_array(value) else type(value).__name__


def dtype_name(value: Any) -> str:
    """The dtype of a plain array or tensor: "float32", "int8"."""
    return str(value.dtype).removeprefix("torch.")


def count_numbers(value: Any) -> int:
    """How many numbers a plain value holds; text counts its length, so that short is small."""
    if is_array(value):
        return int(as_array(value).size)
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, dict):
        return sum(count_numbers(item) for item in value.values())
    if isinstance(value, (list, tuple, frozenset)):
        return sum(count_numbers(item) for item in value)
    return 1


def leaves(value: Any, path: str = "") -> list[tuple[str, Any]]:
    """All leaves of a plain value with their paths, for example ("['codes'][0]", 3)."""
    if isinstance(value, dict):
        return [leaf for k, v in value.items() for leaf in leaves(v, f"{path}[{k!r}]")]
    if isinstance(value, (list, tuple)):
        return [leaf for i, v in enumerate(value) for leaf in leaves(v, f"{path}[{i}]")]
    return [(path, value)]
