"""Puts back what the worker needs of the interpreter after each cell.

A learner's change to builtins or to these modules lasts for the cell that makes it. Changes to torch,
numpy and everything else stay, as they do in a notebook.
"""

from __future__ import annotations

import builtins
import sys
from types import ModuleType

SHIELDED = (
    "contextlib",
    "copy",
    "dis",
    "inspect",
    "io",
    "json",
    "json.encoder",
    "linecache",
    "os",
    "pathlib",
    "signal",
    "struct",
    "sysconfig",
)


class Pristine:
    """A copy of the names in builtins, in SHIELDED and in this package, as they are now."""

    def __init__(self) -> None:
        package = __name__.rpartition(".")[0] + "."
        names = [*SHIELDED, *(name for name in sys.modules if name.startswith(package))]
        modules: list[ModuleType] = [sys.modules[name] for name in names if name in sys.modules]
        self._saved = [(vars(module), dict(vars(module))) for module in (builtins, *modules)]
        self._main = sys.modules["__main__"]
        self._modules = sys.modules
        self._depth = sys.getrecursionlimit()
        self._update, self._getlimit = dict.update, sys.getrecursionlimit
        self._setlimit = sys.setrecursionlimit

    def restore(self) -> None:
        """Names that have other values or are gone get theirs back; new names stay.

        It calls nothing by a name of its module: a cell may have put something else there.
        """
        for now, before in self._saved:
            self._update(now, before)
        self._modules["__main__"] = self._main
        if self._getlimit() < self._depth:
            self._setlimit(self._depth)
