"""The tests that a peer is given: the cases and the expected values of our specs, as literals."""

from __future__ import annotations

import math
from typing import Any

import torch

from slmlab.checking import Close, Exercise, Invariant, make_cases
from slmlab.checking.runner import expected

SAME = """
def same(yours, wanted, rtol, atol):
    if wanted is None or yours is None:
        return wanted is yours
    if isinstance(wanted, torch.Tensor):
        return (isinstance(yours, torch.Tensor) and yours.shape == wanted.shape
                and yours.dtype == wanted.dtype
                and bool(torch.isclose(yours.double(), wanted.double(), rtol=rtol, atol=atol).all()))
    if isinstance(wanted, (list, tuple)):
        return (isinstance(yours, (list, tuple)) and len(yours) == len(wanted)
                and all(same(y, w, rtol, atol) for y, w in zip(yours, wanted)))
    return math.isclose(yours, wanted, rel_tol=rtol, abs_tol=atol)
""".strip()


def literal(value: Any) -> str:
    """Python text of a tensor, number, None, list, tuple or dict, exact to the last bit."""
    if isinstance(value, torch.Tensor):
        numbers = literal(value.flatten().tolist())
        return f"torch.tensor({numbers}, dtype={value.dtype}).reshape({tuple(value.shape)})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k!r}: {literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        inside = "".join(f"{literal(item)}, " for item in value)
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    if value is None or type(value) in (bool, int, float, str):
        return repr(value)
    raise TypeError(f"literal(value): a {type(value).__name__} has no text here.")


def asserts_of(exercise: Exercise, function: str, seed: int) -> str:
    """Asserts for every case of the seed, with what they need before them."""
    cases = make_cases(exercise, seed)
    # A peer has no invariants: the reference's answer is wanted, as close as the spec's own match.
    rule = exercise.compare.match if isinstance(exercise.compare, Invariant) else exercise.compare
    close = rule if isinstance(rule, Close) else None
    rtol, atol = (close.rtol, close.atol) if close else (0.0, 0.0)
    lines = ["import math", "import torch", SAME]
    for case, wanted in zip(cases, expected(exercise, cases), strict=True):
        call = f"{function}(**{literal(case.arguments)})"
        lines.append(f"assert same({call}, {literal(wanted)}, {rtol}, {atol})")
    return "\n".join(lines)
