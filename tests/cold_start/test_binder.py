"""Lessons 00 and 01 run in what Binder gives: one core and 2 GB, from a cold start."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch
from nbformat import NotebookNode

from tests.cold_start.binder import LIMIT_BYTES, Binder, binder
from tests.cold_start.lessons import LESSONS

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="RLIMIT_DATA, affinity and VmHWM as they are used are Linux's"
)
cpu_torch = pytest.mark.skipif(
    torch.version.cuda is not None,
    reason="Binder has torch's CPU build; the CUDA build that is installed here takes more memory",
)
each_lesson = pytest.mark.parametrize("lesson", [path.stem for path in LESSONS])

KERNEL_BYTES = 1_200_000_000  # what we promise of a lesson
# The one thing that may stand on stderr of a cold start; it is said only where it takes long.
FONT_CACHE = "Matplotlib is building the font cache; this may take a moment.\n"


@dataclass(frozen=True)
class ColdStart:
    """server: still running, with the kernel of every lesson. peaks: bytes, without later tests'.

    kernels: lesson -> process id. shown: lesson -> the notebook with this run's outputs.
    """

    server: Binder
    peaks: dict[int, int]
    kernels: dict[str, int]
    shown: dict[str, NotebookNode]


@pytest.fixture(scope="module")
def cold_start() -> Iterator[ColdStart]:
    # Not tmp_path: pytest keeps that, and the compiled modules are large.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        (home / "notebooks").mkdir()
        for path in LESSONS:
            shutil.copy(path, home / "notebooks")
        with binder(home) as server:
            kernels, shown = {}, {}
            for path in LESSONS:
                kernel, notebook = server.run(f"notebooks/{path.name}")
                kernels[path.stem] = server.process_of(kernel).pid
                shown[path.stem] = notebook
            yield ColdStart(server, dict(server.peaks), kernels, shown)


@each_lesson
def test_every_cell_runs(cold_start: ColdStart, lesson: str) -> None:
    cells = [cell for cell in cold_start.shown[lesson].cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    assert [o.evalue for o in outputs if o.output_type == "error"] == []
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    # Red text frightens, and a server that drops outputs for their rate says so there.
    noise = [o.text for o in outputs if o.output_type == "stream" and o.name == "stderr"]
    assert set(noise) <= {FONT_CACHE}


@cpu_torch
@each_lesson
def test_the_kernel_of_a_lesson_stays_within_our_promise(
    cold_start: ColdStart, lesson: str
) -> None:
    peak = cold_start.peaks[cold_start.kernels[lesson]]
    assert 100_000_000 < peak < KERNEL_BYTES, f"{peak / 1e6:.0f} MB"


@cpu_torch
def test_the_server_and_the_kernels_of_both_lessons_fit_together(cold_start: ColdStart) -> None:
    # JupyterLab keeps the kernel of lesson 00 when a learner opens lesson 01.
    assert len(cold_start.peaks) == 1 + len(LESSONS)
    total = sum(cold_start.peaks.values())
    assert total < LIMIT_BYTES, {
        pid: f"{peak / 1e6:.0f} MB" for pid, peak in cold_start.peaks.items()
    }


def test_the_server_and_every_kernel_have_one_core_and_the_limit(cold_start: ColdStart) -> None:
    processes = cold_start.server.processes()
    assert {process.pid for process in processes} >= cold_start.peaks.keys()
    cores = {tuple(process.cpu_affinity()) for process in processes}
    assert [len(each) for each in cores] == [1]
    limits = {process.rlimit(psutil.RLIMIT_DATA) for process in processes}
    assert limits == {(LIMIT_BYTES, LIMIT_BYTES)}


def test_a_cell_that_asks_for_more_than_the_limit_fails(cold_start: ColdStart) -> None:
    kernel = cold_start.server.start_kernel("notebooks/too_much.ipynb")
    _, within = kernel.run("held = bytearray(200_000_000)")
    _, beyond = kernel.run("held = bytearray(2_200_000_000)")
    kernel.leave()
    assert within == []
    assert [output.get("ename") for output in beyond] == ["MemoryError"]
