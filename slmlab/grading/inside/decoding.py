"""Bytes -> plain data, in the layout of layout.py. Nothing that comes is trusted."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import numpy as np
from safetensors.numpy import load as _load

from .layout import (
    DOUBLE,
    ENTRIES,
    HEADER,
    MAX_ARRAYS,
    MAX_BYTES,
    MAX_DEPTH,
    MAX_DIMENSIONS,
    MAX_ENTRY,
    MAX_ITEMS,
    MAX_MARKS,
    MAX_SAME_HASH,
    SMALL,
    TORCH_DTYPES,
)


class Reader:
    """Reads one message; `opaque` is the class Opaque of the values.py in use."""

    def __init__(self, opaque: type) -> None:
        self.opaque = opaque
        self.items = 0
        self.text = b""
        self.read_text = 0
        self.entries: dict[str, np.ndarray] = {}
        self.read_entries = 0

    def message(self, content: bytes) -> Any:
        if not HEADER.size <= len(content) <= MAX_BYTES:
            raise ValueError(f"A message of {len(content):,} bytes.")
        (length,) = HEADER.unpack_from(content)
        end = HEADER.size + length
        json_text = content[HEADER.size : end]
        if len(json_text) < length:
            raise ValueError("The message ends inside its JSON text.")
        marks = sum(json_text.count(mark) for mark in (b",", b"[", b"{"))
        if marks > MAX_MARKS or b"{" in json_text:
            raise ValueError("The JSON text is not one of ours.")
        try:
            tree = json.loads(json_text.decode("ascii"), parse_constant=_refuse)
        except UnicodeDecodeError:
            raise ValueError("The JSON text is not ASCII.") from None
        self.load(content[end:], sum(json_text.count(mark) for mark in (b'["n",', b'["p",')))
        value = self.value(tree, 0)
        if self.read_text < len(self.text) or self.read_entries < len(self.entries):
            raise ValueError("The message holds bytes that no value uses.")
        return value

    def load(self, content: bytes, arrays: int) -> None:
        if not content:
            return
        # Before safetensors makes an object of each entry, also of those that no array uses.
        (header,) = ENTRIES.unpack_from(content.ljust(ENTRIES.size, b"\xff"))
        if arrays > MAX_ARRAYS or header > MAX_ENTRY * (arrays + 1):
            raise ValueError(f"{header:,} bytes about the entries of {arrays:,} arrays.")
        try:
            self.entries = dict(_load(content))
        except Exception as error:
            # safetensors has an exception of its own, and others for dtypes that numpy lacks.
            raise ValueError(f"Not a safetensors file: {type(error).__name__}.") from None
        for entry in self.entries.values():
            if entry.dtype != np.uint8 or entry.ndim != 1:
                raise ValueError("An entry of the safetensors file is not U8 of one dimension.")
        if "text" in self.entries:
            self.text = self.entries.pop("text").tobytes()

    def value(self, node: Any, depth: int) -> Any:
        self.items += 1
        if depth > MAX_DEPTH or self.items > MAX_ITEMS:
            raise ValueError("The message is nested too deeply or has too many items.")
        if type(node) is not list:
            if type(node) is int and not -SMALL <= node < SMALL:
                raise ValueError("An int of more than 64 bits as a JSON number.")
            return node
        if not node or type(node[0]) is not str:
            raise ValueError("A list that does not begin with its letter.")
        letter, *rest = node
        if letter in ("l", "t", "z", "d"):
            return self.container(letter, [self.value(item, depth + 1) for item in rest])
        if letter in ("n", "p") and len(rest) == 3:
            return self.array(letter, *rest)
        if letter == "c" and len(rest) == 2:
            return complex(self.real(rest[0]), self.real(rest[1]))
        if letter not in ("i", "f", "s", "b", "o") or len(rest) != 1:
            raise ValueError(f"Nothing is written as {letter[:20]!r} with {len(rest)} parts.")
        if letter == "o":
            return self.opaque(self.string(rest[0]))
        if letter == "i":
            return _big(rest[0])
        if letter == "f":
            return self.real(node)
        content = self.characters(rest[0])
        return content if letter == "b" else content.decode("utf-8", "surrogatepass")

    def container(self, letter: str, items: list[Any]) -> Any:
        if letter == "l":
            return items
        if letter == "t":
            return tuple(items)
        if not items:
            return frozenset() if letter == "z" else {}
        keys = items if letter == "z" else items[::2]
        if letter == "d" and len(items) % 2:
            raise ValueError("A dict whose last key has no value.")
        try:
            hashes = Counter(map(hash, keys))
        except TypeError:
            raise ValueError("A key that cannot be hashed.") from None
        if max(hashes.values()) > MAX_SAME_HASH:
            raise ValueError("Too many keys of one hash.")
        result: Any = (
            frozenset(keys) if letter == "z" else dict(zip(keys, items[1::2], strict=True))
        )
        if len(result) < len(keys):
            raise ValueError("A key that stands twice.")
        return result

    def real(self, node: Any) -> float:
        if type(node) is float:
            return node
        if type(node) is list and len(node) == 2 and node[0] == "f" and type(node[1]) is str:
            content = bytes.fromhex(node[1])
            if len(content) == DOUBLE.size:
                return float(DOUBLE.unpack(content)[0])
        raise ValueError("A float that is none.")

    def string(self, node: Any) -> str:
        found = self.value(node, MAX_DEPTH)
        if type(found) is not str:
            raise ValueError("A text that is none.")
        return found

    def characters(self, length: Any) -> bytes:
        start = self.read_text
        if type(length) is not int or not 0 <= length <= len(self.text) - start:
            raise ValueError("A text longer than what came.")
        self.read_text += length
        return self.text[start : self.read_text]

    def array(self, letter: str, dtype: Any, shape: Any, order: Any) -> Any:
        flat = self.entries.get(str(self.read_entries))
        self.read_entries += 1
        if flat is None or type(dtype) is not str:
            raise ValueError("An array whose bytes are missing.")
        if not _are_sizes(shape) or not _are_sizes(order) or len(shape) > MAX_DIMENSIONS:
            raise ValueError("A shape that is none.")
        order = order or list(range(len(shape)))
        if sorted(order) != list(range(len(shape))):
            raise ValueError("An order of dimensions that is none.")
        stored = [shape[axis] for axis in order]
        build = _numpy_array if letter == "n" else _torch_tensor
        return build(dtype, stored, sorted(range(len(order)), key=order.__getitem__), flat)


def _numpy_array(name: str, shape: list[int], back: list[int], flat: np.ndarray) -> np.ndarray:
    if len(name) > 4 or name[:1] not in ("<", ">", "|") or name[1:2] not in tuple("biufc"):
        raise ValueError(f"No dtype of numpy: {name[:20]!r}.")
    try:
        dtype = np.dtype(name)
    except TypeError:
        raise ValueError(f"No dtype of numpy: {name!r}.") from None
    if dtype.kind not in "biufc":
        raise ValueError(f"No dtype of numpy: {name!r}.")
    _check_bytes(flat, shape, dtype.itemsize, dtype.kind == "b")
    if not flat.size:
        return np.empty(shape, dtype).transpose(back)
    return np.array(flat, copy=True).view(dtype).reshape(shape).transpose(back)


def _torch_tensor(name: str, shape: list[int], back: list[int], flat: np.ndarray) -> Any:
    import torch

    if name not in TORCH_DTYPES or not hasattr(torch, name):
        raise ValueError(f"No dtype of torch: {name[:20]!r}.")
    dtype = getattr(torch, name)
    _check_bytes(flat, shape, dtype.itemsize, name == "bool")
    try:
        if not flat.size:
            return torch.empty(shape, dtype=dtype).permute(back)
        return torch.from_numpy(np.array(flat, copy=True)).view(dtype).reshape(shape).permute(back)
    except RuntimeError as error:
        # Sizes beside a zero may still multiply to more than torch can count.
        raise ValueError(f"A shape that torch does not take: {error}.") from None


def _check_bytes(flat: np.ndarray, shape: list[int], itemsize: int, is_bool: bool) -> None:
    if math.prod(shape) * itemsize != flat.size:
        raise ValueError(f"{flat.size} bytes for the shape {tuple(shape)}.")
    if is_bool and flat.size and flat.max() > 1:
        raise ValueError("A bool that is neither 0 nor 1.")


def _are_sizes(sizes: Any) -> bool:
    return type(sizes) is list and all(type(n) is int and 0 <= n < SMALL for n in sizes)


def _big(node: Any) -> int:
    if type(node) is not str or not node.isascii() or not node.lstrip("-").isalnum():
        raise ValueError("An int that is none.")
    return int(node, 16)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON.")
