"""What went wrong inside a learner's function, told from the learner's own code only."""

from __future__ import annotations

import dis
import inspect
import linecache
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

MAX_MESSAGE = 300


@dataclass(frozen=True)
class Failure:
    """An exception (type_name, message, the last line of the learner's own) or a bad signature."""

    type_name: str
    message: str
    function: str | None = None
    line: int | None = None
    code: str | None = None

    @property
    def sentence(self) -> str:
        """The failure in one sentence."""
        if self.type_name == "signature":
            return self.message
        text = f"Your code raised {self.type_name}"
        text += f": {self.message.rstrip('.')}" if self.message else ""
        if self.line is not None:
            text += f", in line {self.line} of {self.function}"
            text += f": `{self.code}`" if self.code else ""
        return text + "."


def signature_failure(function: Callable[..., Any], arguments: dict[str, Any]) -> Failure | None:
    """A Failure where the keyword arguments do not fit the function, None where they do."""
    try:
        signature = inspect.signature(function)
    except Exception:
        # A callable may compute its own __signature__; what it raises says nothing of its answer.
        return None
    try:
        signature.bind(**arguments)
    except TypeError as error:
        name = _attribute(function, "__name__") or "the function"
        call = ", ".join(f"{key}=..." for key in arguments)
        return Failure(
            "signature",
            f"The check calls {name}({call}), and yours is {name}{_short(signature)}: {error}. "
            "Keep the parameter names of the exercise.",
        )
    return None


def _short(signature: inspect.Signature) -> str:
    names = []
    for parameter in signature.parameters.values():
        stars = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}
        names.append(stars.get(parameter.kind.name, "") + parameter.name)
    return f"({', '.join(names)})"


def describe(error: BaseException, function: Callable[..., Any]) -> Failure:
    """The Failure for an exception that `function` raised."""
    name = type(error).__name__
    frame, line = _last_own_frame(error.__traceback__, function)
    if isinstance(error, RecursionError):
        message = "the function calls itself without end"
    else:
        message = _message(error)
    if frame is None:
        return Failure(name, message)
    code = linecache.getline(frame.f_code.co_filename, line, frame.f_globals).strip()
    return Failure(name, message, frame.f_code.co_name, line, code[:MAX_MESSAGE] or None)


def is_unattempted(error: BaseException, function: Callable[..., Any]) -> bool:
    """True where a `raise NotImplementedError` statement was reached, the mark of a blank.

    torch raises the same exception for a missing kernel; there the innermost Python instruction is
    a call and not a raise.
    """
    if not isinstance(error, NotImplementedError):
        return False
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or not _is_own(trace.tb_frame.f_code.co_filename, function):
        return False
    return any(
        item.offset == trace.tb_lasti and item.opname == "RAISE_VARARGS"
        for item in dis.get_instructions(trace.tb_frame.f_code)
    )


def _message(error: BaseException) -> str:
    try:
        text = str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return "(its message cannot be printed)"
    text = " ".join(text.split())
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 3] + "..."


def _last_own_frame(
    trace: TracebackType | None, function: Callable[..., Any]
) -> tuple[FrameType | None, int]:
    found: tuple[FrameType | None, int] = (None, 0)
    while trace is not None:
        if _is_own(trace.tb_frame.f_code.co_filename, function):
            found = (trace.tb_frame, trace.tb_lineno)
        trace = trace.tb_next
    return found


def _attribute(function: Callable[..., Any], name: str) -> Any:
    """An attribute, None where there is none or where it raises."""
    try:
        return getattr(function, name, None)
    except Exception:
        return None


def _is_own(filename: str, function: Callable[..., Any]) -> bool:
    """False for the standard library, installed packages and slmlab itself."""
    if filename == getattr(_attribute(function, "__code__"), "co_filename", None):
        return True
    if filename.startswith("<frozen"):
        return False
    path = Path(filename)
    return not any(path.is_relative_to(root) for root in _installed())


def _installed() -> set[str]:
    """The folders whose code is nobody's answer.

    sysconfig does not know of packages that stand elsewhere, as they do for a user's own site, on
    Colab and in a grader's sandbox, so the folders that hold numpy and torch are asked as well.
    """
    roots = {sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    roots.add(str(Path(__file__).resolve().parent.parent))
    for name in ("numpy", "torch"):
        file = getattr(sys.modules.get(name), "__file__", None)
        if isinstance(file, str):
            roots.add(str(Path(file).parent.parent))
    return {root for root in roots if root}
