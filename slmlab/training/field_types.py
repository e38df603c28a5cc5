"""Types of the fields of a recipe, which come from a file that anybody may have written."""

from __future__ import annotations

from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "str | None": (str, type(None)),
    "int": (int,),
    "int | None": (int, type(None)),
    "float": (float, int),
    "bool": (bool,),
    "dict[str, int]": (dict,),
}


def check_type(name: str, value: Any, annotation: str) -> None:
    """Raises TypeError unless ``value`` has the annotated type."""
    # bool is an int to isinstance, and never the number that a recipe means
    if isinstance(value, bool) != (annotation == "bool") or not isinstance(
        value, _TYPES[annotation]
    ):
        wanted = "a table of counts" if annotation.startswith("dict") else annotation
        raise TypeError(f"{name} must be {wanted}, got {value!r}")
