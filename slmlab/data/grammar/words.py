"""Word lists, written as one line of text."""

from __future__ import annotations


def words(text: str) -> tuple[str, ...]:
    """The words of `text` in order. Raises ValueError if one stands there twice."""
    found = tuple(text.split())
    if len(set(found)) != len(found):
        raise ValueError(f"A word stands twice in {text!r}: a list of options needs distinct ones.")
    return found
