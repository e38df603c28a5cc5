"""Notebook cells that nbval collects run in the environment that the build used.

This stands at the root because hooks of tests/conftest.py do not reach notebooks/ and solutions/.
"""

import os
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from nbval.plugin import IPyNbCell

from authoring.environment import kernel_environment, warm_font_cache

# One scratch folder a notebook: no notebook sees another's progress, none the learner's own.
_scratch: dict[Path, tempfile.TemporaryDirectory[str]] = {}


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Around a notebook cell, os.environ is the kernel's; nbval starts the kernel inside this."""
    if not isinstance(item, IPyNbCell):
        return (yield)
    if item.path not in _scratch:
        warm_font_cache()
        _scratch[item.path] = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    with _environment(kernel_environment(Path(_scratch[item.path].name))):
        return (yield)


@contextmanager
def _environment(wanted: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
