"""The evaluation sets that stand for themselves have the same bytes on every Python we support."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.test_evaluation import PINNED

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ("3.11", "3.12", "3.13")
# Only the standard library is there: `-S` leaves out every installed package.
PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
from slmlab.data import evaluation_set
print(json.dumps({f"{n} {s}": evaluation_set(n, s).sha256 for n, s in json.loads(sys.argv[2])}))
"""


def interpreter(version: str) -> str | None:
    """A Python of this version that runs: on PATH, this one, or one that pyenv keeps."""
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    kept = sorted(str(path) for path in pyenv.glob(f"{version}.*/bin/python3"))
    for candidate in (shutil.which(f"python{version}"), *kept):
        # A name on PATH may be a shim that ends in an error.
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
            return candidate
    return None


@pytest.mark.parametrize("version", VERSIONS)
def test_same_bytes(version: str) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    command = [python, "-I", "-S", "-c", PROGRAM, str(ROOT), json.dumps(list(PINNED))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {f"{n} {s}": sha for (n, s), sha in PINNED.items()}
