"""Can a case's inputs be handed to a sandbox: are they made of plain data as they stand?

:func:`~slmlab.checking.values.plain` turns a numpy scalar into Python's and a set into a frozenset,
so a learner's function would meet another value than the reference did. A case must be written so
that nothing has to be turned.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from slmlab.checking.execution import Case
from slmlab.checking.values import MAX_DEPTH, SCALARS, Opaque, is_tensor, plain


def case_problem(cases: Sequence[Case]) -> str | None:
    """What in these inputs is not plain data, and the mend; None where all of it is.

    For example "case 0: x is int64, which is not plain data; write int(...)".
    """
    for place, case in enumerate(cases):
        for name, value in case.arguments.items():
            found = _problem(value, name, 0)
            if found is not None:
                return f"case {place}: {found}"
    return None


def _problem(value: Any, path: str, depth: int) -> str | None:
    kind = type(value)
    if value is None or kind in SCALARS:
        return None
    if depth >= MAX_DEPTH:
        return f"{path} is nested deeper than {MAX_DEPTH}; make it flatter"
    if kind in (list, tuple):
        inner = [(item, f"{path}[{place}]") for place, item in enumerate(value)]
    elif kind is frozenset:
        inner = [(item, f"an item of {path}") for item in value]
    elif kind is dict:
        inner = [(key, f"a key of {path}") for key in value]
        inner += [(item, f"{path}[{key!r}]") for key, item in value.items()]
    else:
        return _leaf_problem(value, path)
    found = (_problem(item, where, depth + 1) for item, where in inner)
    return next((problem for problem in found if problem is not None), None)


def _leaf_problem(value: Any, path: str) -> str | None:
    kind = type(value)
    mend = ""
    if is_tensor(value):
        return _tensor_problem(value, path)
    if kind is np.ndarray and type(plain(value)) is not Opaque:
        return None
    if isinstance(value, np.generic):
        item = value.item()
        mend = f"write {type(item).__name__}(...)" if type(item) in SCALARS else ""
    elif isinstance(value, set):
        mend = "write a sorted list or a frozenset"
    elif isinstance(value, range):
        mend = "write list(...)"
    what = f"array of dtype {value.dtype}" if kind is np.ndarray else kind.__name__
    mend = mend or "write it with numbers, text, lists, dicts, arrays or tensors"
    return f"{path} is {what}, which is not plain data; {mend}"


def _tensor_problem(value: Any, path: str) -> str | None:
    torch = sys.modules["torch"]
    if value.requires_grad:
        name = type(value).__name__
        return f"{path} is a {name} with requires_grad, which is not plain data; write .detach()"
    if type(value) is not torch.Tensor or type(plain(value)) is Opaque:
        return f"{path} is {type(value).__name__}, which is not plain data; write a torch.Tensor"
    if value.device.type != "cpu" or value.layout != torch.strided:
        return f"{path} is a tensor on {value.device}, {value.layout}; write .to_dense().cpu()"
    return None
