"""What `import slmlab` finds while answers are graded: nothing of the package, and no answer.

`@exercise(id)` notes the function for the grader. The other names of the workbook are there, so that
a cell that shows a hint or stores a prediction runs, and do nothing. Answers use torch, numpy and
the standard library.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any

__version__ = "0"
__all__ = [
    "load",
    "exercise",
    "hint",
    "progress",
    "predict",
    "measured",
    "checking",
    "data",
    "deploy",
    "distill",
    "generation",
    "grading",
    "kernels",
    "kv",
    "lessons",
    "measure",
    "models",
    "quant",
    "serving",
    "speculative",
    "training",
    "widgets",
]
_ABSENT = (
    "{} is not there while answers are graded: answers use torch, numpy and the standard library."
)


def register(exercise_id: Any, function: Any) -> None:
    """Set by the worker."""


def exercise(id: Any = None, *others: Any, **options: Any) -> Any:
    """Decorator: notes the function under this id, gives it back unchanged, and never raises."""

    def decorate(function: Any = None) -> Any:
        with contextlib.suppress(Exception):
            register(id, function)
        return function

    return id if callable(id) else decorate


def hint(*arguments: Any, **options: Any) -> None:
    """Does nothing."""


def predict(*arguments: Any, **options: Any) -> None:
    """Does nothing."""


def measured(*arguments: Any, **options: Any) -> None:
    """Does nothing."""


def progress(*arguments: Any, **options: Any) -> None:
    """Does nothing."""


class _Placeholder:
    """Every attribute, item and call of it is the same object; it holds nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(_ABSENT.format("slmlab"))
        return self

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self

    def __getitem__(self, key: Any) -> Any:
        return self

    def __iter__(self) -> Any:
        return iter(())

    def __bool__(self) -> bool:
        return False

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: Any) -> None:
        """Lets an exception through."""


# What a learner reads whose function returns one: "you return placeholder for slmlab (...)".
_Placeholder.__name__ = "placeholder for slmlab (which is not there while answers are graded)"
_placeholder = _Placeholder()


def __getattr__(name: str) -> Any:
    if name in __all__:
        return _placeholder
    raise AttributeError(f"module 'slmlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _NoRooms:
    """Refuses `import slmlab.room` with a sentence."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        if name.startswith("slmlab."):
            raise ModuleNotFoundError(_ABSENT.format(name), name=name)


sys.meta_path.insert(0, _NoRooms)
