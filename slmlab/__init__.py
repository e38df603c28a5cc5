"""slmlab: a workbook and helper package for small language models.

Rooms load on first use, so that ``import slmlab`` is quick and needs no torch::

    import slmlab
    lm = slmlab.load("tiny")
    print(lm.generate("def main(", max_new_tokens=32))
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_ROOMS = (
    "checking",
    "data",
    "distill",
    "generation",
    "grading",
    "kv",
    "lessons",
    "measure",
    "models",
    "quant",
    "serving",
    "speculative",
    "training",
    "widgets",
)
_NAMES = {
    "load": "slmlab.generation",
    "exercise": "slmlab.checking",
    "hint": "slmlab.checking",
    "progress": "slmlab.checking",
    "predict": "slmlab.checking",
    "measured": "slmlab.checking",
}

__all__ = [*_NAMES, *_ROOMS]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"slmlab.{name}")
    if name in _NAMES:
        return getattr(import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'slmlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
