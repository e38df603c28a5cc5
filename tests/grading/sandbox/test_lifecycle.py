"""Servers that die, graders that die, and what is left behind: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch

from slmlab.grading.records import Request
from slmlab.grading.sandbox import Sandbox, open_sandbox, processes
from tests.grading.sandbox.asking import ask, run
from tests.grading.sandbox.conftest import LIMITS, opened

REPOSITORY = Path(__file__).resolve().parents[3]
GRADER = """
import sys, threading
from slmlab.grading.records import Limits, Request
from slmlab.grading.sandbox import open_sandbox
sandbox = open_sandbox(Limits(cell_seconds=60), preload=False)
work = Request(("import os, time\\nos.fork()\\ntime.sleep(600)",), {}, 0)
threading.Thread(target=sandbox.run, args=(work,), daemon=True).start()
print(sandbox._server.pid, flush=True)
threading.Event().wait()
"""


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def gone(pids: list[int], seconds: float = 20) -> bool:
    """True where none of them runs any more within a generous time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        alive = [pid for pid in pids if psutil.pid_exists(pid)]
        if all(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE for pid in alive):
            return True
        time.sleep(0.05)
    return False


def inner_server(sandbox: Sandbox) -> int:
    assert sandbox._server is not None
    return processes.tree(sandbox._server.pid)[-1].pid


def test_a_dead_server_is_replaced(usual: Sandbox) -> None:
    assert ask(usual, "print(json.dumps(1))") == 1
    dead = inner_server(usual)
    os.kill(dead, signal.SIGKILL)
    assert gone([dead])
    assert ask(usual, "print(json.dumps(2))") == 2
    assert inner_server(usual) != dead


def test_a_server_that_dies_in_a_run_costs_no_grade(usual: Sandbox) -> None:
    run(usual, "x = 1")
    assert usual._server is not None
    victim = usual._server.pid
    killer = threading.Timer(0.7, os.kill, (victim, signal.SIGKILL))
    killer.start()
    transcript = run(usual, "import time; time.sleep(1.5)", "print('end')")
    killer.join()
    assert transcript.ended == "finished"
    assert transcript.cells[1].printed == "end\n"
    assert usual._server.pid != victim


def test_nothing_is_left_after_close() -> None:
    with opened() as warm_up:
        run(warm_up, "x = 1")
    before = descriptors()
    sandbox = opened()
    during = descriptors()
    for _ in range(5):
        run(sandbox, "import os; os.fork()", "import os; os._exit(1)")
    assert descriptors() == during
    assert sandbox._server is not None
    pids = [process.pid for process in processes.tree(sandbox._server.pid)]
    assert len(pids) >= 2
    folders = [folder for group in [sandbox._group] if group for folder in group.folders]
    assert all(folder.is_dir() for folder in folders)
    sandbox.close()
    sandbox.close()
    assert descriptors() == before
    assert gone(pids)
    assert not any(folder.exists() for folder in folders)
    assert not [child for child in psutil.Process().children() if child.pid in pids]
    with pytest.raises(ValueError, match="closed"):
        sandbox.run(Request((), {}, 0))


def test_the_death_of_the_grader_ends_all() -> None:
    opened().close()  # the skip, where there is none
    with subprocess.Popen(
        [sys.executable, "-c", GRADER], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    ) as grader:
        assert grader.stdout is not None
        root = int(grader.stdout.readline())
        deadline = time.monotonic() + 20
        while len(processes.tree(root)) < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        pids = [process.pid for process in processes.tree(root)]
        grader.kill()
    assert len(pids) >= 4  # bubblewrap twice, the server, the submission
    assert gone(pids)


def test_one_submission_never_sees_another(sandbox: Sandbox) -> None:
    leave = """
        import socket
        with open("/tmp/answers", "w") as file: file.write("mine")
        left = socket.socket(socket.AF_UNIX)
        left.bind("\\0left"); left.listen()
        import numpy; numpy.mine = 1
        if os.fork() == 0:
            import time; time.sleep(60)
        print(json.dumps("left"))
    """
    look = """
        import socket, numpy
        found = [os.path.exists("/tmp/answers"), hasattr(numpy, "mine"), os.getpid()]
        try:
            socket.socket(socket.AF_UNIX).connect("\\0left"); found.append(True)
        except OSError:
            found.append(False)
        print(json.dumps(found))
    """
    assert ask(sandbox, leave) == "left"
    assert ask(sandbox, look) == [False, False, 1, False]


def test_arguments_of_run(usual: Sandbox) -> None:
    with pytest.raises(TypeError, match="Request"):
        usual.run(["x = 1"])  # type: ignore[arg-type]
    assert run(usual, "x = 1", limits=LIMITS.scaled(2)).ended == "finished"


def test_torch_is_loaded_once_seeded_and_in_one_order() -> None:
    code = "import torch\nprint(torch.get_num_threads(), torch.rand(3).tolist(), {'a', 'b', 'c'})"
    opened().close()  # the skip, where there is none
    with open_sandbox(LIMITS) as warm:
        assert set(warm.description["inside"]) == {"python", "torch", "numpy"}
        loaded = run(warm, "import sys\nprint('torch' in sys.modules)").cells[0].printed
        first, second = (run(warm, code).cells[0].printed for _ in range(2))
    assert loaded == "True\n"
    order = subprocess.run(
        [sys.executable, "-c", "print({'a', 'b', 'c'})"],
        env={"PYTHONHASHSEED": "0"}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert first == second == f"1 {torch.manual_seed(7) and torch.rand(3).tolist()} {order}"
