"""What importing and loading cost."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

import slmlab
from slmlab.models.loading import EMBEDDED

HEAVY = ("torch", "numpy", "transformers", "matplotlib", "ipywidgets", "IPython")
MEMORY_LIMIT_BYTES = 600 * 10**6


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True
    )
    return done.stdout.strip()


def test_import_is_light() -> None:
    loaded = run("import sys, slmlab; print(' '.join(sys.modules))").split()
    assert "slmlab" in loaded
    assert not set(HEAVY) & set(loaded)


def test_every_public_name_resolves() -> None:
    for name in slmlab.__all__:
        assert getattr(slmlab, name) is not None
    assert set(slmlab.__all__) <= set(dir(slmlab))
    with pytest.raises(AttributeError, match="no attribute 'quantum'"):
        slmlab.quantum  # noqa: B018


@pytest.mark.skipif(not (EMBEDDED / "tiny").is_dir(), reason="no embedded model in this checkout")
def test_loading_and_generating_stays_small() -> None:
    # In a process of its own, and not by getrusage: its peak survives exec, and would be pytest's.
    peak = run(
        "import slmlab, torch\n"
        "from slmlab.measure import peak_memory\n"
        "torch.set_num_threads(1)\n"
        "work = lambda: slmlab.load('tiny').generate('def main(', max_new_tokens=100)\n"
        "print(peak_memory(work).peak_bytes)"
    )
    assert 50 * 10**6 < int(peak) < MEMORY_LIMIT_BYTES


@pytest.mark.slow
def test_import_takes_less_than_300_milliseconds() -> None:
    start = [sys.executable, "-c", "pass"]
    load = [sys.executable, "-c", "import slmlab"]
    seconds = []
    for command in (start, load) * 5:
        begin = time.perf_counter()
        subprocess.run(command, check=True)
        seconds.append(time.perf_counter() - begin)
    assert min(seconds[1::2]) - min(seconds[0::2]) < 0.3
