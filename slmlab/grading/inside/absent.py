"""Stands in for packages that are not in the sandbox, so that an import in a cell does not end it.

A handout's first cell often imports matplotlib or a room of slmlab beside torch. There such an
import gives a module that does nothing, and only what uses it fails. All other code still sees an
ImportError: torch and IPython, which try what they can do without; functions; and a cell's own
`try: import ... except ImportError`.
"""

from __future__ import annotations

import ast
import linecache
import sys
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType
from typing import Any

ROOMS = "slmlab"
_getframe, _getlines, _parse, _walk = sys._getframe, linecache.getlines, ast.parse, ast.walk


class Absent:
    """The last finder. `stub`: the stub package, `namespace`: that of the cells."""

    def __init__(self, stub: Any, namespace: dict[str, Any]) -> None:
        self._stub = stub
        self._namespace = namespace
        self._given: dict[str, ModuleType] = {}
        sys.meta_path.append(self)  # type: ignore[arg-type]

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """A spec for what a cell imports and nobody has found; asked by Python."""
        top, _, rest = name.partition(".")
        if top == ROOMS:
            known = rest.partition(".")[0] in self._stub.__all__
            if known and self._is_asked_by_a_cell():
                return ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]
            raise ModuleNotFoundError(self._stub.ABSENT.format(name), name=name)
        mine = top in self._given if rest else not top.startswith("_")
        if not mine or top in sys.builtin_module_names or not self._is_asked_by_a_cell():
            return None
        return ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module that does nothing."""
        module: ModuleType = self._stub.absent_module(spec.name)
        self._given[spec.name] = module
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is to be run."""

    def forget(self) -> str:
        """To be called after each cell: a sentence on what it was given, "" for nothing.

        The modules leave sys.modules, so that nobody else takes them for the real ones.
        """
        given = self._given
        self._given = {}
        for name, module in given.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
        names = sorted(name for name in given if name.rpartition(".")[0] not in given)
        if not names:
            return ""
        are, them = ("is", "it") if len(names) == 1 else ("are", "them")
        return (
            f"{', '.join(names)} {are} not there while answers are graded: what uses {them} fails."
        )

    def _is_asked_by_a_cell(self) -> bool:
        """Whether a statement of the cell itself imports, one that does not reckon with failure."""
        frame: FrameType | None = _getframe(2)
        while frame is not None and frame.f_code.co_filename.startswith(
            "<frozen importlib._bootstrap"
        ):
            frame = frame.f_back
        if frame is None or frame.f_globals is not self._namespace:
            return False
        if frame.f_code.co_name != "<module>":
            return False
        try:
            tree = _parse("".join(_getlines(frame.f_code.co_filename)))
        except SyntaxError:
            return True
        return not any(
            node.body[0].lineno <= frame.f_lineno <= (node.body[-1].end_lineno or 0)
            for node in _walk(tree)
            if isinstance(node, ast.Try) and node.handlers
        )
