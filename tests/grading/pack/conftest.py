"""A pack fresh from the template, for each test to break."""

from pathlib import Path

import pytest

from slmlab.grading.pack import new_pack


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    root = tmp_path / "my-drills"
    new_pack(root)
    return root


@pytest.fixture(autouse=True)
def own_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "progress.json"
    monkeypatch.setenv("SLMLAB_PROGRESS", str(path))
    monkeypatch.setenv("COLUMNS", "160")
    return path
