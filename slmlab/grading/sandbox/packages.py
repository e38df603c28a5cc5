"""Which installed files the sandbox may see: an allow-list of distributions.

torch, numpy, safetensors, IPython and what they require, entry by entry. Everything else that is
installed stays out, slmlab and every exercise pack first of all: they hold the references.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath

ALLOWED = ("torch", "numpy", "safetensors", "ipython")
NEVER = ("slmlab",)
_NAME = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")


def closure(names: Iterable[str] = ALLOWED) -> dict[str, Distribution]:
    """The installed distributions that `names` require, themselves included, by normalised name.

    Requirements of extras are left out; one for another system or Python is met where it happens to
    be installed.
    """
    found: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        name = _normal(waiting.pop())
        if name in found or name in NEVER:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue
        for requirement in found[name].requires or ():
            match = _NAME.match(requirement)
            if match and not re.search(r";.*\bextra\b", requirement):
                waiting.append(match.group(1))
    return found


def entries(distributions: Iterable[Distribution]) -> dict[str, Path]:
    """Name under the site folder -> path on this machine, for all files of the distributions.

    A package is one entry. A module that is a single file is bound with its own compiled file: the
    shared __pycache__ holds other distributions' code.
    """
    found: dict[str, Path] = {}
    for item in distributions:
        for name in sorted(_top_names(item)):
            path = Path(str(item.locate_file(name)))
            if path.exists():
                found.setdefault(name, path)
    return found


def _top_names(item: Distribution) -> set[str]:
    record = item.read_text("RECORD")
    if record is None:
        # Installed by a system's package manager, without a list of files.
        return set((item.read_text("top_level.txt") or "").split())
    names = set()
    for line in record.splitlines():
        path = PurePosixPath(line.split(",")[0].strip('"'))
        if not path.parts or path.is_absolute() or ".." in path.parts:
            continue
        if path.parts[0] != "__pycache__":
            names.add(path.parts[0])
        elif len(path.parts) == 2 and f".{sys.implementation.cache_tag}." in path.name:
            names.add(str(path))
    return names - {"__pycache__"}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
