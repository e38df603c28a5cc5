"""A spec that breaks the rules is refused where it is written."""

from dataclasses import replace
from typing import Any

import pytest

from slmlab.checking import Case, Mistake
from tests.checking.fake_topic import EXERCISES

GOOD = EXERCISES[0]


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("id", "no_dot", ValueError),
        ("id", "Two.Words", ValueError),
        ("id", "a.b.c", ValueError),
        ("id", 3, TypeError),
        ("title", " ", ValueError),
        ("points", 0, ValueError),
        ("points", 2.0, TypeError),
        ("points", True, TypeError),
        ("minutes", 0, ValueError),
        ("difficulty", 4, ValueError),
        ("cases", [], TypeError),
        ("reference", None, TypeError),
        ("compare", "close", TypeError),
        ("mistakes", GOOD.mistakes[:2], ValueError),
        ("mistakes", list(GOOD.mistakes), TypeError),
        ("mistakes", (*GOOD.mistakes, GOOD.mistakes[0]), ValueError),
        ("mistakes", ("a", "b", "c"), TypeError),
        ("hints", ("one", "two"), ValueError),
        ("hints", ("one", "two", ""), ValueError),
        ("alternatives", (), ValueError),
        ("alternatives", (3,), TypeError),
        ("unit", None, TypeError),
    ],
)
def test_bad_fields_are_named(field: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=field.rstrip("s")):
        replace(GOOD, **{field: value})


def test_bad_mistakes_and_cases() -> None:
    with pytest.raises(TypeError, match="implementation"):
        Mistake("a", "b", None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="sentence"):
        Mistake("a", "", print)
    with pytest.raises(TypeError, match="variants must be a tuple"):
        Mistake("a", "b", print, variants=print)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="variants must be a function"):
        Mistake("a", "b", print, variants=(None,))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="arguments"):
        Case([1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="parameter name"):
        Case({"a b": 1})


def test_the_topic_is_the_first_half_of_the_id() -> None:
    assert GOOD.topic == "fake"
