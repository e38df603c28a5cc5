"""JupyterLab as Binder starts it: one core, 2 GB, a home folder in which nothing was ever run."""

import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import nbformat
import psutil
from nbformat import NotebookNode

from tests.cold_start.kernel import Kernel

LIMIT_BYTES = 2_000_000_000  # mybinder.org's "2G" is 2 GiB; this is the stricter reading
WAIT_SECONDS = 300

# Nothing else of the person or the machine that runs the tests reaches the server.
_KEPT = ("PATH", "LD_LIBRARY_PATH", "TMPDIR")


class Binder:
    """A running server whose root folder is the home folder, as on Binder.

    peaks: process id -> highest resident size in bytes, of the server and all that it started.
    """

    def __init__(self, process: psutil.Popen, home: Path, token: str) -> None:
        self.peaks: dict[int, int] = {}
        self._process = process
        self._token = token
        self._server = _address(process, home).rstrip("/")
        self._http = httpx.Client(
            base_url=self._server,
            headers={"Authorization": f"token {token}"},
            timeout=WAIT_SECONDS,
            trust_env=False,
        )

    def processes(self) -> list[psutil.Process]:
        """The server and what it started and still runs."""
        return [self._process, *self._process.children(recursive=True)]

    def process_of(self, kernel: Kernel) -> psutil.Process:
        """The process of `kernel`."""
        [found] = [one for one in self.processes() if kernel.identifier in str(one.cmdline())]
        return found

    def start_kernel(self, path: str) -> Kernel:
        """A kernel for the notebook at `path`."""
        wanted = {"path": path, "name": "", "type": "notebook", "kernel": {"name": "python3"}}
        session = self._http.post("/api/sessions", json=wanted).raise_for_status().json()
        return Kernel(self._server, self._token, session["kernel"]["id"], WAIT_SECONDS)

    def run(self, path: str) -> tuple[Kernel, NotebookNode]:
        """What a browser does with the notebook at `path`: open it, run it until a cell fails, save.

        The notebook holds what this run showed: a cell that did not run has neither outputs nor a
        count. The kernel stays, as it does when a learner goes on to the next lesson.
        """
        self._http.get(f"/lab/tree/{path}").raise_for_status()
        model = self._http.get(f"/api/contents/{path}").raise_for_status().json()
        notebook = nbformat.from_dict(model["content"])
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for cell in cells:
            cell.update(outputs=[], execution_count=None)
        kernel = self.start_kernel(path)
        for cell in cells:
            cell.execution_count, cell.outputs = kernel.run(cell.source)
            self._note_peaks()
            if any(output.output_type == "error" for output in cell.outputs):
                break
        kernel.leave()
        saved = {"type": "notebook", "format": "json", "content": notebook}
        self._http.put(f"/api/contents/{path}", json=saved).raise_for_status()
        self._note_peaks()
        return kernel, notebook

    def _note_peaks(self) -> None:
        # After every cell: slmlab.measure.peak_memory sets the kernel's record back to the present.
        for process in self.processes():
            peak = max(_peak_bytes(process.pid), self.peaks.get(process.pid, 0))
            self.peaks[process.pid] = peak


@contextmanager
def binder(home: Path) -> Iterator[Binder]:
    """A server for the files in `home`, stopped at the end with all its kernels."""
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    environment.update(
        HOME=str(home),
        LANG="C.UTF-8",
        JUPYTER_RUNTIME_DIR=str(home / "runtime"),
        # Binder's image has its modules compiled. Here every process that comes first compiles
        # them, torch included: more memory than on Binder, and affordable (about 12 s in all).
        PYTHONPYCACHEPREFIX=str(home / "compiled"),
        CUDA_VISIBLE_DEVICES="",  # Binder has no GPU
    )
    token = secrets.token_hex(16)
    confined = [
        *(sys.executable, str(Path(__file__).with_name("confined.py"))),
        *(str(max(os.sched_getaffinity(0))), str(LIMIT_BYTES)),
    ]
    jupyter = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        *("--ip=127.0.0.1", "--port=0", f"--IdentityProvider.token={token}"),
    ]
    log = home / "server.log"
    with log.open("wb") as output:
        process = psutil.Popen(
            [*confined, *jupyter], cwd=home, env=environment, stdout=output, stderr=output
        )
    try:
        yield Binder(process, home, token)
    finally:
        everything = [process]
        with suppress(psutil.NoSuchProcess):  # a server that ended by itself has said why
            everything += process.children(recursive=True)
            process.terminate()
        _, alive = psutil.wait_procs(everything, timeout=30)
        for left in alive:
            left.kill()


def _address(process: psutil.Popen, home: Path) -> str:
    """Where the server listens: it writes that down when it is ready."""
    deadline = time.monotonic() + WAIT_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        for file in (home / "runtime").glob("jpserver-*.json"):
            with suppress(json.JSONDecodeError):
                return str(json.loads(file.read_text())["url"])
        time.sleep(0.2)
    raise RuntimeError(f"no server:\n{(home / 'server.log').read_text()}")


def _peak_bytes(pid: int) -> int:
    """Not getrusage's: Linux lets a child begin with the peak of the process that started it."""
    with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
