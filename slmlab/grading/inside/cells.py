"""Runs the code cells of a notebook, one by one, in one module named __main__.

A plain Python cell needs no IPython. One that does not compile and looks like a magic is translated
by IPython's own rules, and IPython is imported only then.
"""

from __future__ import annotations
import __future__

import ast
import inspect
import linecache
import re
import sys
import types
from collections.abc import Callable
from types import CodeType, TracebackType
from typing import Any

MAX_LINE = 120
# What only IPython understands: %magic, !shell, help?, prompts, a cell that is indented as a whole.
_SPECIAL = re.compile(r"\A[ \t]|^[ \t]*(?:[%!?]|>>> |In \[)|\?[ \t]*$|=[ \t]*[%!]", re.MULTILINE)
_FUTURES = 0
for _name in __future__.all_feature_names:
    _FUTURES |= getattr(__future__, _name).compiler_flag
_compile, _exec, _eval = compile, exec, eval


def file_name(place: int) -> str:
    """What a traceback calls the cell at this place: the first is "cell 1"."""
    return f"cell {place + 1}"


class Cells:
    """The namespace of a notebook.

    It is registered as sys.modules["__main__"], so that pickle, dataclasses and inspect find what
    the cells define.
    """

    def __init__(self) -> None:
        self.module = types.ModuleType("__main__")
        self.module.__dict__.update(get_ipython=self.shell, display=_display)
        sys.modules["__main__"] = self.module
        self._flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self._shell: Any = None

    def run(self, place: int, source: str) -> None:
        """Runs one cell; raises whatever it raises, SyntaxError among others."""
        name = file_name(place)
        _remember(name, source)
        if "IPython" in source and "get_ipython" in source:
            self.shell()  # IPython's own get_ipython() gives None where there is none yet
        try:
            code = self._compiled(source, name)
        except SyntaxError:
            if not _SPECIAL.search(source):
                raise
            source = self._translated(source)
            _remember(name, source)
            code = self._compiled(source, name)
        # As in IPython, `from __future__ import ...` holds for the cells that follow.
        self._flags |= code.co_flags & _FUTURES
        namespace = self.module.__dict__
        if code.co_flags & inspect.CO_COROUTINE:
            import asyncio

            asyncio.run(_eval(code, namespace))
        else:
            _exec(code, namespace)

    def shell(self) -> Any:
        """IPython's shell on this namespace, made by the first call; what get_ipython() gives."""
        if self._shell is None:
            self._shell = _make_shell(self.module)
        return self._shell

    def _compiled(self, source: str, name: str) -> CodeType:
        code: CodeType = _compile(source, name, "exec", self._flags, dont_inherit=True)
        return code

    def _translated(self, source: str) -> str:
        translated: str = self.shell().transform_cell(source)
        return translated


def _remember(name: str, source: str) -> None:
    """Lets inspect.getsource and tracebacks show the cell; no time means: never check a file."""
    lines = source.splitlines(keepends=True)
    linecache.cache[name] = (len(source), None, lines, name)


def _make_shell(module: types.ModuleType) -> Any:
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    class Shell(InteractiveShell):
        """A magic whose package is not here (matplotlib) says so and does not end the cell."""

        def run_line_magic(self, magic_name: str, line: str, _stack_depth: int = 1) -> Any:
            try:
                return super().run_line_magic(magic_name, line, _stack_depth + 1)
            except (ImportError, NotImplementedError) as error:
                print(f"%{magic_name}: {error}")

    config = Config()
    config.HistoryManager.enabled = False
    # A shell takes these over for itself.
    before = sys.displayhook, sys.excepthook
    shell = Shell.instance(user_module=module, user_ns=module.__dict__, config=config)
    sys.displayhook, sys.excepthook = before
    return shell


def _display(*objects: object, **options: object) -> None:
    """display() of a notebook without a screen."""
    for item in objects:
        print(repr(item))


def describe_error(error: BaseException, describe: Callable[..., Any]) -> str:
    """One line: the exception and where in the cells it arose.

    describe: failure.describe of the answering package.
    """
    failure = describe(error, None)
    text: str = failure.type_name + (f": {failure.message}" if failure.message else "")
    place = where(error.__traceback__)
    return text if place is None or isinstance(error, SyntaxError) else f"{text} ({place})"


def where(trace: TracebackType | None) -> str | None:
    """The innermost place in a cell: "cell 3, line 2: `x = y`"; None where there is none."""
    found = None
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if re.fullmatch(r"cell \d+", name):
            line = linecache.getline(name, trace.tb_lineno).strip()
            code = line if len(line) <= MAX_LINE else line[: MAX_LINE - 3] + "..."
            found = f"{name}, line {trace.tb_lineno}" + (f": `{code}`" if code else "")
        trace = trace.tb_next
    return found
