"""`slmlab lab` as a learner starts it, in a home folder of its own, and its sure end."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

import slmlab

START_SECONDS = 300

# What the person who runs the tests has set must not reach the learner's server.
_DROPPED = (
    "COV_",
    "IPYTHON",
    "JPY_",
    "JUPYTER",
    "MPL",
    "OMP_NUM",
    "PYTEST",
    "PYTHON",
    "SLMLAB",
    "XDG_",
)
# A server that is orphaned after all (pytest was killed) lets its kernels go and ends by itself.
_ENDS_ALONE = (
    "--MappingKernelManager.cull_idle_timeout=600",
    "--MappingKernelManager.cull_interval=60",
    "--ServerApp.shutdown_no_activity_timeout=600",
)


@dataclass(frozen=True)
class Lab:
    """A running server: its address and token, the work folder, the learner's progress file."""

    url: str
    token: str
    work: Path
    progress: Path
    log: Path


@contextmanager
def running_lab(folder: Path) -> Iterator[Lab]:
    """`slmlab lab` on a fresh work folder under `folder`; after it nothing of it runs any more."""
    home, work, progress = folder / "home", folder / "work", folder / "progress.json"
    _write_settings(home / "config")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(_DROPPED)}
    environment |= {
        "HOME": str(home),
        "PYTHONPATH": str(
            Path(slmlab.__file__).parents[1]
        ),  # the server's slmlab is the tests' own
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "SLMLAB_PROGRESS": str(progress),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    port, token = _free_port(), secrets.token_hex(16)
    lab = Lab(f"http://127.0.0.1:{port}", token, work, progress, folder / "log.txt")
    command = [sys.executable, "-m", "slmlab.cli", "lab", str(work), "--no-browser"]
    command += [f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}"]
    # window.jupyterapp: the tests wait for the state of the application, not for seconds.
    # readonly: the default extension manager asks the package index.
    command += ["--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly"]
    command += _ENDS_ALONE
    with lab.log.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_for(lab, process)
        yield lab
    finally:
        _end(process)


def _write_settings(config: Path) -> None:
    """All cells stand in the page at once; by default those out of sight have no outputs there."""
    tracker = (
        config / "lab/user-settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings"
    )
    tracker.parent.mkdir(parents=True)
    tracker.write_text(json.dumps({"windowingMode": "none"}))


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def _wait_for(lab: Lab, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None, f"slmlab lab ended:\n{lab.log.read_text()}"
        assert time.monotonic() < deadline, f"slmlab lab does not answer:\n{lab.log.read_text()}"
        with suppress(OSError):
            urllib.request.urlopen(f"{lab.url}/api/status?token={lab.token}", timeout=10).close()
            return
        time.sleep(0.2)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kernels are sessions of their own, so the group's end alone would leave them."""
    descendants: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        descendants = psutil.Process(process.pid).children(recursive=True)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for left in psutil.wait_procs(descendants, timeout=5)[1]:
            with suppress(psutil.NoSuchProcess):
                left.kill()
