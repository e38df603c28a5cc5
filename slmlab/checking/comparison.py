"""When is an answer right: within a tolerance, exactly, or by keeping an invariant.

A comparison sees plain data only (see values.py). A list and a tuple count as the same thing,
because an answer that travelled through JSON comes back as lists.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .values import (
    Opaque,
    as_array,
    count_numbers,
    dtype_name,
    is_array,
    is_number,
    type_name,
)

RETURNED_NONE = "Your function returned None: is a return missing?"
NONE_ELSEWHERE = "Your function returned None, which is right in other cases and not in this one."


def none_sentence(wanted: Iterable[Any]) -> str:
    """What to say of an answer that is None and wrong, given the right answers of all cases."""
    return NONE_ELSEWHERE if any(answer is None for answer in wanted) else RETURNED_NONE


@dataclass(frozen=True)
class Difference:
    """The first place where two plain values differ, and in what: type, keys, length, ..."""

    kind: str  # none, type, keys, length, shape, dtype, value
    path: str
    wanted: Any
    yours: Any


class Comparison(ABC):
    """Decides whether an output is right, and whether two outputs are the same answer."""

    @abstractmethod
    def problem(self, arguments: dict[str, Any], wanted: Any, yours: Any) -> str | None:
        """None where `yours` is right, else one sentence."""

    @abstractmethod
    def difference(self, wanted: Any, yours: Any) -> Difference | None:
        """The first difference between two plain outputs, None where they are the same answer."""

    @abstractmethod
    def agrees(self, wanted: np.ndarray, yours: np.ndarray) -> np.ndarray:
        """Elementwise agreement of two arrays of one shape, bool."""

    @abstractmethod
    def ignoring_dtype(self) -> Comparison:
        """The same comparison with the dtype of arrays left out."""


@dataclass(frozen=True)
class _ByValue(Comparison):
    """Shared by Close and Exact: walk the structure, compare the numbers at the leaves."""

    def problem(self, arguments: dict[str, Any], wanted: Any, yours: Any) -> str | None:
        # A wrong number further down matters more than a dtype at the first leaf.
        found = self.ignoring_dtype().difference(wanted, yours) or self.difference(wanted, yours)
        return None if found is None else difference_sentence(found)

    def difference(self, wanted: Any, yours: Any) -> Difference | None:
        return _walk(wanted, yours, "", self)

    def scalar_agrees(self, wanted: Any, yours: Any) -> bool:
        """Whether two Python numbers are the same answer."""
        raise NotImplementedError

    def checks_dtype(self) -> bool:
        """Whether arrays must agree in dtype."""
        raise NotImplementedError


@dataclass(frozen=True)
class Close(_ByValue):
    """|yours - wanted| <= atol + rtol * |wanted|, elementwise; NaN equals NaN.

    Shapes must agree, and dtypes of arrays too unless dtype=False. A whole number may be returned
    as an int where a float is meant.
    """

    rtol: float = 1e-5
    atol: float = 1e-6
    dtype: bool = True

    def __post_init__(self) -> None:
        for name in ("rtol", "atol"):
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and math.isfinite(value) and value >= 0):
                raise ValueError(f"Close({name}={value!r}): pass a finite number of at least 0.")

    def agrees(self, wanted: np.ndarray, yours: np.ndarray) -> np.ndarray:
        wide = complex if "c" in (wanted.dtype.kind, yours.dtype.kind) else float
        with np.errstate(all="ignore"):
            return np.asarray(
                np.isclose(
                    yours.astype(wide),
                    wanted.astype(wide),
                    rtol=self.rtol,
                    atol=self.atol,
                    equal_nan=True,
                )
            )

    def scalar_agrees(self, wanted: Any, yours: Any) -> bool:
        try:
            wide = complex if complex in (type(wanted), type(yours)) else float
            return bool(self.agrees(np.asarray(wide(wanted)), np.asarray(wide(yours))).all())
        except OverflowError:
            # An int beyond float's range can only be compared as an int.
            return bool(wanted == yours)

    def checks_dtype(self) -> bool:
        return self.dtype

    def ignoring_dtype(self) -> Close:
        return replace(self, dtype=False)


@dataclass(frozen=True)
class Exact(_ByValue):
    """Equal to the last bit; NaN equals NaN. A float is not accepted where an int is meant."""

    dtype: bool = True

    def agrees(self, wanted: np.ndarray, yours: np.ndarray) -> np.ndarray:
        same = np.asarray(wanted == yours)
        if wanted.dtype.kind in "fc" and yours.dtype.kind in "fc":
            same = same | (np.isnan(wanted) & np.isnan(yours))
        return same

    def scalar_agrees(self, wanted: Any, yours: Any) -> bool:
        if type(wanted) is int and type(yours) is not int:
            return False
        return bool(wanted == yours or (wanted != wanted and yours != yours))

    def checks_dtype(self) -> bool:
        return self.dtype

    def ignoring_dtype(self) -> Exact:
        return replace(self, dtype=False)


@dataclass(frozen=True)
class Invariant(Comparison):
    """Any output that keeps the invariant is right.

    `check(arguments, output)` returns None where it holds, else the sentence that says what broke.
    `match` compares a learner's output with a mistake's output.
    """

    check: Callable[[dict[str, Any], Any], str | None]
    match: Comparison = field(default_factory=Close)

    def __post_init__(self) -> None:
        if not callable(self.check):
            raise TypeError("Invariant(check): pass a function (arguments, output) -> str | None.")

    def problem(self, arguments: dict[str, Any], wanted: Any, yours: Any) -> str | None:
        # Nothing returned must never pass, even where the check forgets to look.
        if yours is None and wanted is not None:
            return RETURNED_NONE
        if isinstance(yours, Opaque):
            return difference_sentence(Difference("type", "", wanted, yours))
        try:
            message = self.check(copy.deepcopy(arguments), copy.deepcopy(yours))
        except Exception as error:
            found = self.match.difference(wanted, yours)
            if found is not None and found.kind != "value":
                return difference_sentence(found)
            return f"The answer could not be checked ({type(error).__name__}: {error})."
        if message is not None and not isinstance(message, str):
            raise TypeError(
                f"Invariant check returned {type(message).__name__}: return None or a sentence."
            )
        return message

    def difference(self, wanted: Any, yours: Any) -> Difference | None:
        return self.match.difference(wanted, yours)

    def agrees(self, wanted: np.ndarray, yours: np.ndarray) -> np.ndarray:
        return self.match.agrees(wanted, yours)

    def ignoring_dtype(self) -> Invariant:
        return replace(self, match=self.match.ignoring_dtype())


def _walk(wanted: Any, yours: Any, path: str, rule: _ByValue) -> Difference | None:
    def differ(kind: str) -> Difference:
        return Difference(kind, path, wanted, yours)

    if yours is None and wanted is not None:
        return differ("none")
    if isinstance(yours, Opaque) or isinstance(wanted, Opaque):
        return differ("type")
    if is_array(wanted):
        if type_name(wanted) != type_name(yours):
            return differ("type")
        if tuple(wanted.shape) != tuple(yours.shape):
            return differ("shape")
        if not rule.agrees(as_array(wanted), as_array(yours)).all():
            return differ("value")
        if rule.checks_dtype() and dtype_name(wanted) != dtype_name(yours):
            return differ("dtype")
        return None
    if is_number(wanted):
        if not is_number(yours):
            return differ("type")
        if rule.scalar_agrees(wanted, yours):
            return None
        return differ("type" if wanted == yours else "value")
    if isinstance(wanted, (list, tuple)):
        if not isinstance(yours, (list, tuple)):
            return differ("type")
        if len(wanted) != len(yours):
            return differ("length")
        pairs = [(f"{path}[{i}]", w, y) for i, (w, y) in enumerate(zip(wanted, yours, strict=True))]
    elif isinstance(wanted, dict):
        if not isinstance(yours, dict):
            return differ("type")
        if set(wanted) != set(yours):
            return differ("keys")
        pairs = [(f"{path}[{k!r}]", w, yours[k]) for k, w in wanted.items()]
    else:
        if type(wanted) is not type(yours):
            return differ("type")
        return None if wanted == yours else differ("value")
    found = (_walk(w, y, deeper, rule) for deeper, w, y in pairs)
    return next((difference for difference in found if difference is not None), None)


def difference_sentence(found: Difference) -> str:
    """One sentence for a learner about a difference; the numbers are shown elsewhere."""
    where = f"At {found.path}: " if found.path else ""
    wanted, yours = found.wanted, found.yours
    if found.kind == "none" or yours is None:
        return f"At {found.path} your answer holds None." if found.path else RETURNED_NONE
    if found.kind == "type":
        return where + _type_sentence(wanted, yours)
    if found.kind == "keys":
        missing = sorted(map(repr, set(wanted) - set(yours)))
        extra = sorted(map(repr, set(yours) - set(wanted)))
        parts = [f"missing {', '.join(missing)}"] if missing else []
        parts += [f"not asked for {', '.join(extra)}"] if extra else []
        return f"{where}the keys of your dict differ: {'; '.join(parts)}."
    if found.kind == "length":
        return f"{where}you return {len(yours)} items, wanted {len(wanted)}."
    if found.kind == "shape":
        return (
            f"{where}your answer has shape {tuple(yours.shape)}, wanted {tuple(wanted.shape)}."
            + _shape_hint(wanted, yours)
        )
    if found.kind == "dtype":
        return (
            f"{where}your numbers are right, the dtype is not: "
            f"{dtype_name(yours)}, wanted {dtype_name(wanted)}."
        )
    return f"{where}the value differs."


def _type_sentence(wanted: Any, yours: Any) -> str:
    you, want = type_name(yours), type_name(wanted)
    if is_number(wanted) and is_number(yours) and wanted == yours:
        return f"the number is right, its type is not: you return the {you} {yours}, wanted {want}."
    if is_array(yours) and is_number(wanted) and count_numbers(yours) == 1:
        return f"you return a {you} with one number, wanted {want}: .item() turns it into one."
    if you == "generator":
        return f"you return a generator, wanted {want}: nothing has been computed yet."
    if you in ("function", "method", "builtin_function_or_method"):
        return f"you return a function, wanted {want}: was it meant to be called?"
    return f"you return {you}, wanted {want}."


def _shape_hint(wanted: Any, yours: Any) -> str:
    have, want = tuple(yours.shape), tuple(wanted.shape)
    if len(want) >= 2 and have == want[::-1]:
        return " It is transposed."
    if [n for n in have if n != 1] == [n for n in want if n != 1]:
        return " The sizes agree but for an axis of length 1: is a keepdim missing or too much?"
    return ""
