"""What is bound into the sandbox imports nothing that would have to be bound with it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.grading.inside.host import ANSWERING, PACKAGE

INSIDE = PACKAGE / "grading" / "inside"
THEIRS = {*sys.stdlib_module_names, "numpy", "torch", "safetensors"}
LAZY = {"IPython", "traitlets"}  # in cells.py, by a function, when a cell needs them


def imports(path: Path) -> Iterator[str]:
    """Top-level names that a file imports; ".name" for what stands beside it, "..name" above."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from ("." * node.level + name for name in names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module).split(".")[0]


@pytest.mark.parametrize("path", sorted(INSIDE.rglob("*.py")), ids=lambda path: path.name)
def test_inside_imports_itself_only(path: Path) -> None:
    siblings = {f".{other.stem}" for other in INSIDE.glob("*.py")}
    lazy = LAZY if path.name == "cells.py" else set()
    assert set(imports(path)) <= THEIRS | siblings | lazy


@pytest.mark.parametrize("name", ANSWERING)
def test_the_files_that_answer_import_each_other_only(name: str) -> None:
    found = set(imports(PACKAGE / "checking" / f"{name}.py"))
    assert found <= THEIRS | {f".{other}" for other in ANSWERING}
