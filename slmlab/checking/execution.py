"""Calls one implementation on cases and keeps what it did as plain data.

Nothing here knows an expected value. A grader's sandbox holds this file, values.py, failure.py and
comparison.py, and nothing else of slmlab, so that a call is made there by the same code as in the
notebook. For this reason these four import each other relatively, and no other room.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .comparison import Exact
from .failure import Failure, describe, is_unattempted, signature_failure
from .values import Opaque, plain

__all__ = ["MAX_PRINTED", "BoundedText", "Case", "Execution", "Failure", "Opaque", "execute"]

MAX_PRINTED = 2000


@dataclass(frozen=True)
class Case:
    """One call: keyword arguments of plain data, torch tensors or numpy arrays."""

    arguments: dict[str, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.arguments, dict):
            raise TypeError("Case(arguments): pass a dict of keyword arguments.")
        for name in self.arguments:
            if not (isinstance(name, str) and name.isidentifier()):
                raise ValueError(f"Case(arguments): {name!r} is not a parameter name.")


@dataclass(frozen=True)
class Execution:
    """What one call did: a plain output, or a failure, or nothing attempted."""

    output: Any = None
    failure: Failure | None = None
    unattempted: bool = False
    changed: tuple[str, ...] = ()  # names of arguments that were edited in place
    printed: str = ""


class BoundedText(io.StringIO):
    """Keeps the first MAX_PRINTED characters, so that an endless print costs no memory."""

    def write(self, text: str, /) -> int:
        room = MAX_PRINTED - self.tell()
        if room > 0:
            super().write(text[:room])
        return len(text)

    def close(self) -> None:
        """Stays open: what the learner's code closes, the check still reads."""


def execute(implementation: Callable[..., Any], cases: Sequence[Case]) -> tuple[Execution, ...]:
    """Calls the implementation once per case, each time with its own deep copy of the inputs."""
    return tuple(_execute_one(implementation, case) for case in cases)


def _execute_one(implementation: Callable[..., Any], case: Case) -> Execution:
    bad_signature = signature_failure(implementation, case.arguments)
    if bad_signature is not None:
        return Execution(failure=bad_signature)
    arguments = copy.deepcopy(case.arguments)
    printed = BoundedText()
    output: Any = None
    failure: Failure | None = None
    try:
        with contextlib.redirect_stdout(printed):
            output = implementation(**arguments)
        output = plain(output)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # SystemExit, GeneratorExit and asyncio's CancelledError are no Exception.
        if is_unattempted(error, implementation):
            return Execution(unattempted=True, printed=printed.getvalue())
        failure = describe(error, implementation)
    return Execution(
        output=output if failure is None else None,
        failure=failure,
        changed=_changed(case.arguments, arguments),
        printed=printed.getvalue(),
    )


def _changed(before: dict[str, Any], after: dict[str, Any]) -> tuple[str, ...]:
    rule = Exact()
    pairs = ((name, plain(value), plain(after[name])) for name, value in before.items())
    return tuple(
        name
        for name, old, new in pairs
        if (found := rule.difference(old, new)) is not None and not isinstance(found.wanted, Opaque)
    )
