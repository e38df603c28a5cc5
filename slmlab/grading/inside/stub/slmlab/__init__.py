"""What `import slmlab` finds while answers are graded: nothing of the package, and no answer.

`@exercise(id)` notes the function for the grader. The other names of the workbook are there, so that
a cell that shows a hint or stores a prediction runs, and do nothing. Answers use torch, numpy and
the standard library.
"""

from __future__ import annotations

import contextlib
from types import ModuleType
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
ABSENT = (
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


class Placeholder:
    """Every attribute, item, call and sum of it is the same object; it holds nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return self

    def _same(self, *arguments: Any, **options: Any) -> Any:
        return self

    __call__ = __getitem__ = __enter__ = _same
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __pow__ = __rpow__ = _same
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _same
    __matmul__ = __rmatmul__ = __neg__ = __pos__ = __abs__ = __round__ = _same

    def _false(self, *arguments: Any) -> bool:
        return False

    __bool__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = _false

    def __setitem__(self, key: Any, value: Any) -> None:
        """Keeps nothing."""

    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __float__(self) -> float:
        return 0.0

    def __int__(self) -> int:
        return 0

    def __format__(self, wanted: str) -> str:
        return str(self)

    def __exit__(self, *error: Any) -> None:
        """Lets an exception through."""

    def __mro_entries__(self, bases: Any) -> tuple[type, ...]:
        """A class that inherits from one inherits nothing."""
        return ()


class AbsentModule(Placeholder, ModuleType):
    """Stands for a package that is not here; its parts are objects of `parts`, which are no modules."""

    parts: Any = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return self.parts

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self.parts


class _Foreign(Placeholder):
    """A part of another package. A loop over it would leave out its body without a word."""

    def __iter__(self) -> Any:
        raise TypeError(f"nothing to loop over: this is a {type(self).__name__}")

    def __len__(self) -> int:
        raise TypeError(f"no length: this is a {type(self).__name__}")

    def __float__(self) -> float:
        raise TypeError(f"no number: this is a {type(self).__name__}")

    def __int__(self) -> int:
        raise TypeError(f"no number: this is a {type(self).__name__}")


def _part(name: str, kind: type = Placeholder) -> Any:
    # What a learner reads whose function returns one: "you return placeholder for slmlab (...)".
    told = f"placeholder for {name} (which is not there while answers are graded)"
    return type(told, (kind,), {})()


_placeholder = _part("slmlab")


def absent_module(name: str) -> ModuleType:
    """A module of that name that does nothing; slmlab.checking has the functions of this one."""
    module = AbsentModule(name)
    top = name.partition(".")[0]
    module.parts = _placeholder if top == __name__ else _part(top, _Foreign)
    if name == f"{__name__}.checking":
        for function in (exercise, hint, predict, measured, progress):
            setattr(module, function.__name__, function)
    return module


def __getattr__(name: str) -> Any:
    if name in __all__:
        return _placeholder
    raise AttributeError(f"module 'slmlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
