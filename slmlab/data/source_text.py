"""What to keep of a Python file: its docstrings, or its source without the licence."""

from __future__ import annotations

import ast
import inspect
import re
import warnings
from itertools import groupby

MAXIMUM_NON_ASCII = 0.02


def is_mostly_ascii(text: str) -> bool:
    """Whether at most 2% of the characters lie outside ASCII."""
    ascii_characters = len(text.encode("ascii", "ignore"))
    return len(text) - ascii_characters <= MAXIMUM_NON_ASCII * len(text)


def tidy(text: str) -> str:
    """LF line ends, no blanks at the end of a line, no empty lines at either end."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(line.rstrip() for line in lines).strip("\n")


def docstrings(source: str) -> str:
    """All docstrings of a module in order of appearance, cleaned, a blank line between them.

    Returns "" for source that does not parse.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's source
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return ""
    found: dict[int, str] = {}
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            if text is not None:
                found[node.body[0].lineno] = tidy(inspect.cleandoc(text))
        # Definitions stand in blocks of statements only; skipping expressions halves the time.
        for block in ("body", "orelse", "handlers", "finalbody", "cases"):
            below = getattr(node, block, None)
            if isinstance(below, list):
                pending += below
    unique = dict.fromkeys(found[line] for line in sorted(found))
    return "\n\n".join(text for text in unique if text)


def clean_source(source: str) -> str:
    """Source without licence comments, with LF line ends and no trailing blanks; tabs stay.

    A licence comment is a run of unindented comment lines that mentions a copyright or a licence.
    """
    kept: list[str] = []
    for is_comment, run in groupby(tidy(source).split("\n"), key=_starts_with_hash):
        lines = list(run)
        if not (is_comment and _LICENCE.search("\n".join(lines))):
            kept += lines
    return "\n".join(kept).strip("\n")


def _starts_with_hash(line: str) -> bool:
    return line.startswith("#")


_LICENCE = re.compile("copyright|licen[sc]e", re.IGNORECASE)
