"""Folders that the tests of the work folder share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "repo"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "a work folder, größer 作"
