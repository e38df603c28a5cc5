"""What the trusted side and the worker tell each other, as bytes.

In goes one request: the cells, the inputs of each exercise, the seed. Out come, cell by cell::

    {"cell": 3, "state": "start"}
    {"answer": "quant.absmax", "cell": 3, "case": 0, "execution": Execution(...)}   one a case
    {"cell": 3, "state": "ran", "message": "", "printed": "...", "seconds": 0.1}    or raised, timeout

Case 0 begins a new answer: a cell may define an exercise twice. A case that is not answered in time
has no message, and none follows for its cell but the state. Both sides make the messages here, with
the classes of the execution.py in use there; what :meth:`Messages.read` returns has the right types
and sizes, and nothing else about it is known to be true.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from .codec import Codec
from .layout import MAX_BYTES

ENDS = ("ran", "raised", "timeout")
MAX_TEXT = 2000  # letters of what was printed, of a cell's message, of each part of a failure
MAX_CHANGED = 100
MAX_ITEMS = 500_000  # of all answers of a submission: what they take of the grader's memory


@dataclass(frozen=True)
class Work:
    """A request as it arrives: sources of the cells, inputs by exercise id, the seed."""

    cells: tuple[str, ...]
    cases: dict[str, tuple[Any, ...]]
    seed: int


class Messages:
    """Makes and reads messages; `answering` is the module execution.py in use."""

    def __init__(self, answering: Any) -> None:
        self._case = answering.Case
        self._execution = answering.Execution
        self._failure = answering.Failure
        self._opaque = answering.Opaque
        self.codec = Codec(answering.Opaque)

    def request(self, cells: tuple[str, ...], cases: dict[str, Any], seed: int) -> bytes:
        """The request; cases: exercise id -> cases.

        Raises TypeError where an input is not plain data, ValueError where it is too large.
        """
        inputs = {name: tuple(case.arguments for case in items) for name, items in cases.items()}
        return self.codec.encode((tuple(cells), inputs, seed))

    def read_request(self, content: bytes) -> Work:
        """What :meth:`request` was given; ValueError for other bytes."""
        value = self.codec.decode(content)
        if not _has_types(value, (tuple, dict, int)):
            raise ValueError("Not a request.")
        cells, inputs, seed = value
        if not all(type(cell) is str for cell in cells):
            raise ValueError("A cell of the request is no text.")
        try:
            cases = {
                name: tuple(self._case(arguments) for arguments in items)
                for name, items in inputs.items()
            }
        except TypeError as error:
            raise ValueError(f"A case of the request is none: {error}.") from None
        return Work(cells, cases, seed)

    def start(self, cell: int) -> bytes:
        """A cell begins."""
        return self.codec.encode({"cell": cell, "state": "start"})

    def end(self, cell: int, state: str, message: str, printed: str, seconds: float) -> bytes:
        """A cell, with the exercises that it defines, has ended."""
        told = {"cell": cell, "state": state, "message": message[:MAX_TEXT]}
        return self.codec.encode(told | {"printed": printed[:MAX_TEXT], "seconds": seconds})

    def answer(
        self,
        exercise_id: str,
        cell: int,
        case: int,
        execution: Any,
        most: int = MAX_BYTES,
        items: int = MAX_ITEMS,
    ) -> bytes:
        """What one call did; an Opaque stands for an output that makes it more than `most` bytes
        or more than `items` items (bytes of text and arrays are none)."""
        told = {"answer": exercise_id, "cell": cell, "case": case}
        with contextlib.suppress(TypeError, ValueError, MemoryError):
            parts = self._parts(execution, execution.output)
            content = self.codec.encode(told | {"execution": parts})
            if len(content) <= most and self.codec.items <= items:
                return content
        output = self._opaque(f"{type(execution.output).__name__} that is too large")
        return self.codec.encode(told | {"execution": self._parts(execution, output)})

    def read(self, content: bytes) -> dict[str, Any]:
        """One of the three messages, with an Execution under "execution".

        Raises ValueError for any other bytes, and nothing else.
        """
        value = self.codec.decode(content)
        if type(value) is not dict:
            raise ValueError("Not a message.")
        if "answer" in value:
            _check(value, answer=str, cell=int, case=int, execution=tuple)
            return value | {"execution": self._read_execution(value["execution"])}
        if len(value) == 2:
            _check(value, cell=int, state=str)
            if value["state"] != "start":
                raise ValueError("Not the start of a cell.")
            return value
        _check(value, cell=int, state=str, message=str, printed=str, seconds=float)
        if value["state"] not in ENDS or not 0 <= value["seconds"] < 1e9:
            raise ValueError("Not the end of a cell.")
        return value

    def _parts(self, execution: Any, output: Any) -> tuple[Any, ...]:
        failure = execution.failure
        told = None
        if failure is not None:
            names = ("type_name", "message", "function", "line", "code")
            parts = (getattr(failure, name) for name in names)
            told = tuple(part[:MAX_TEXT] if type(part) is str else part for part in parts)
        changed = tuple(execution.changed)[:MAX_CHANGED]
        return (output, told, execution.unattempted, changed, execution.printed[:MAX_TEXT])

    def _read_execution(self, parts: tuple[Any, ...]) -> Any:
        if len(parts) != 5:
            raise ValueError("Not an execution.")
        output, told, unattempted, changed, printed = parts
        if not _has_types((unattempted, changed, printed), (bool, tuple, str)):
            raise ValueError("Not an execution.")
        if len(changed) > MAX_CHANGED or len(printed) > MAX_TEXT:
            raise ValueError("An execution of more text than there can be.")
        if not all(type(name) is str and len(name) <= MAX_TEXT for name in changed):
            raise ValueError("A name of a changed argument is none.")
        failure = None if told is None else self._read_failure(told)
        if output is not None and (failure is not None or unattempted):
            raise ValueError("An execution with an output and with a reason for having none.")
        return self._execution(output, failure, unattempted, changed, printed)

    def _read_failure(self, told: Any) -> Any:
        if type(told) is not tuple or len(told) != 5:
            raise ValueError("Not a failure.")
        type_name, message, function, line, code = told
        texts: list[Any] = [
            type_name,
            message,
            *(text for text in (function, code) if text is not None),
        ]
        if not all(type(text) is str and len(text) <= MAX_TEXT for text in texts):
            raise ValueError("A failure with a text that is none, or too long.")
        if line is not None and (type(line) is not int or not 0 <= line < 2**31):
            raise ValueError("A failure with a line that is none.")
        return self._failure(type_name, message, function, line, code)


def _has_types(values: Any, types: tuple[type, ...]) -> bool:
    return (
        type(values) is tuple
        and len(values) == len(types)
        and all(type(value) is kind for value, kind in zip(values, types, strict=True))
    )


def _check(message: dict[Any, Any], /, **types: type) -> None:
    """Raises ValueError unless the message has exactly these fields, and its counts are counts."""
    if set(message) != set(types):
        raise ValueError("A message with other fields than it should have.")
    for name, kind in types.items():
        value: Any = message[name]
        if type(value) is not kind:
            raise ValueError(f"A message whose {name} is none.")
        if isinstance(value, int) and not 0 <= value < 2**31:
            raise ValueError(f"A message whose {name} is no count.")
        if isinstance(value, str) and len(value) > MAX_TEXT:
            raise ValueError(f"A message whose {name} is too long.")
