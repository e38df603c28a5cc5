"""A fork server of the simplest kind, for tests of the worker: no sandbox, one submission at a time.

It builds the folder that the sandbox sees (the package `inside` with `answering` beside its files)
and starts Python on it isolated, so that slmlab itself cannot be imported there.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from slmlab.checking import execution as answering
from slmlab.grading.inside import frames
from slmlab.grading.inside.messages import Messages

PACKAGE = Path(answering.__file__).parent.parent
ANSWERING = ("execution", "values", "failure", "comparison")
MESSAGES = Messages(answering)

SERVER = """
import json, os, socket, sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
sys.dont_write_bytecode = True
import numpy, torch
from inside import worker
torch.set_num_threads(1)
control = socket.socket(fileno=int(sys.argv[3]))
os.environ.clear()
os.environ["HOME"] = sys.argv[4]
os.chdir(sys.argv[4])
while True:
    content, descriptors, _, _ = socket.recv_fds(control, 4096, 2)
    if not content:
        break
    child = os.fork()
    if child == 0:
        control.close()
        try:
            worker.main(*descriptors, json.loads(content))
            os._exit(0)
        except BaseException as error:
            print("worker:", type(error).__name__, error, file=sys.__stderr__, flush=True)
            os._exit(70)
    for descriptor in descriptors:
        os.close(descriptor)
    control.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
"""


class Host:
    """One Python process with torch loaded; run() forks a worker in it."""

    def __init__(self, folder: Path) -> None:
        grader, home = folder / "grader", folder / "home"
        home.mkdir()
        inside = grader / "inside"
        shutil.copytree(PACKAGE / "grading" / "inside", inside)
        (inside / "answering").mkdir()
        (inside / "answering" / "__init__.py").touch()
        for name in ANSWERING:
            shutil.copy(PACKAGE / "checking" / f"{name}.py", inside / "answering")
        (folder / "server.py").write_text(SERVER, encoding="utf-8")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        paths = (grader, sysconfig.get_path("purelib"), theirs.fileno(), home)
        command = [sys.executable, "-I", "-S", str(folder / "server.py"), *map(str, paths)]
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()
        self.control = ours

    def run(
        self,
        cells: list[str],
        cases: dict[str, Any] | None = None,
        seconds: float = 10,
        seed: int = 0,
        **limits: Any,
    ) -> tuple[list[dict[str, Any]], int]:
        """(all messages of one submission, the exit status of its process)."""
        request = MESSAGES.request(tuple(cells), cases or {}, seed)
        read_end, write_request = os.pipe()
        read_answers, write_end = os.pipe()
        told = json.dumps({"cell_seconds": seconds, **limits}).encode()
        socket.send_fds(self.control, [told], [read_end, write_end])
        os.close(read_end)
        os.close(write_end)
        frames.send(write_request, request)
        os.close(write_request)
        reader = frames.FrameReader(read_answers, 1 << 28)
        messages = []
        try:
            while (content := reader.read(60)) is not None:
                messages.append(MESSAGES.read(content))
        finally:
            os.close(read_answers)
            status = int(self.control.recv(64))
        return messages, status

    def close(self) -> None:
        self.control.close()
        self.process.wait(30)


def ends(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last message of each cell."""
    return [message for message in messages if message.get("state", "start") != "start"]


def executions(messages: list[dict[str, Any]], exercise_id: str) -> list[Any]:
    """What the calls of one exercise did, in order."""
    return [message["execution"] for message in messages if message.get("answer") == exercise_id]
