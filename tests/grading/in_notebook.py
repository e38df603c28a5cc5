"""A cell that behaves as a wrong implementation does, and what the notebook says of a cell."""

from __future__ import annotations

import linecache
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from slmlab.checking import Exercise, Report, check, execute, make_cases
from slmlab.checking.failure import Failure


def literal(value: Any) -> str:
    """Python text of a plain value, exact to the last bit."""
    if isinstance(value, torch.Tensor):
        wide = value.to(torch.float32) if value.dtype in (torch.bfloat16, torch.float16) else value
        numbers = literal(wide.flatten().tolist())
        return f"torch.tensor({numbers}, dtype={value.dtype}).reshape({tuple(value.shape)})"
    if isinstance(value, np.ndarray):
        numbers = literal(value.flatten().tolist())
        return f"np.array({numbers}, dtype='{value.dtype}').reshape({value.shape})"
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{literal(k)}: {literal(v)}' for k, v in value.items())}}}"
    if isinstance(value, (list, tuple)):
        inside = "".join(f"{literal(item)}, " for item in value)
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    if value is None or type(value) in (bool, int, float, str):
        return repr(value)
    raise TypeError(type(value).__name__)


def replayed(exercise: Exercise, implementation: Callable[..., Any], seed: int) -> str | None:
    """A cell that behaves as an implementation does on this seed's cases; None for no data."""
    cases = make_cases(exercise, seed)
    lines = ["import numpy as np, torch", "from slmlab import exercise", "calls = []"]
    lines += [f"@exercise({exercise.id!r})"]
    lines += [f"def answer({', '.join(cases[0].arguments)}):", "    calls.append(0)"]
    for place, execution in enumerate(execute(implementation, cases)):
        if isinstance(execution.failure, Failure):
            act = f"raise {_builtin(execution.failure.type_name)}({execution.failure.message!r})"
        else:
            try:
                act = f"return {literal(execution.output)}"
            except TypeError:
                return None
        lines.append(f"    if len(calls) == {place + 1}: {act}")
    return "\n".join(lines)


def _builtin(name: str) -> str:
    return name if name in dir(__import__("builtins")) else "RuntimeError"


def in_the_notebook(exercise: Exercise, source: str, seed: int, before: str = "") -> Report:
    """What `check` says of the same cell run in this process; `before` is run first."""
    found: dict[str, Any] = {}

    def register(name: str) -> Callable[[Any], Any]:
        def keep(function: Any) -> Any:
            found[name] = function
            return function

        return keep

    text = source.replace("from slmlab import exercise", "")
    name = f"<{exercise.id}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(before, space)
    space["exercise"] = register
    exec(compile(text, name, "exec"), space)
    return check(exercise, found[exercise.id], seed)
