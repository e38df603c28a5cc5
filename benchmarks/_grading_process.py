"""Runs a grader's command with a deadline, and ends all that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil


class Stopped(RuntimeError):
    """A grader did not come to an end within its time."""


def call(command: list[str], folder: Path, seconds: float) -> str:
    """What the command wrote. Everything that it started is ended with it.

    Raises Stopped after `seconds`, RuntimeError where it ends with another status than 0 or 1 or
    by a signal.
    """
    # nbgrader starts alembic by its name.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PATH": path},
        start_new_session=True,
    )
    below: list[psutil.Process] = []
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        # A notebook's kernel has a session of its own.
        with contextlib.suppress(psutil.Error):
            below = psutil.Process(process.pid).children(recursive=True)
        raise Stopped(f"it did not end within {seconds:g} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for one in below:
            with contextlib.suppress(psutil.Error):
                one.kill()
        process.wait()
        psutil.wait_procs(below, timeout=10)
    if process.returncode not in (0, 1):
        raise RuntimeError(f"{command[:4]} ended with {process.returncode}: {said[-500:]}")
    return said
