"""Every test starts from the same seeds, one thread, and a progress file of its own."""

import os
import random
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# The seeded slice draws the same examples on every run. HYPOTHESIS_PROFILE=prove searches for new
# ones, as in `HYPOTHESIS_PROFILE=prove make pytest`.
settings.register_profile("ci", derandomize=True, max_examples=25, deadline=None, database=None)
settings.register_profile("prove", max_examples=500, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def own_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the progress of the person who runs it."""
    monkeypatch.setenv("SLMLAB_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.delenv("SLMLAB_STRICT", raising=False)
    monkeypatch.delenv("SLMLAB_MODEL", raising=False)


@pytest.fixture(autouse=True)
def same_seeds() -> None:
    """Seed what is loaded; a test of the package's import time must not load torch through this."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
        sys.modules["torch"].set_num_threads(1)
