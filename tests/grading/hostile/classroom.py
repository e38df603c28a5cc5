"""A class of hostile students on a host that watches, graded by `slmlab grade` as one batch."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from slmlab.checking import make_cases, registry
from slmlab.checking.runner import expected
from slmlab.grading.records import Grade, Limits
from slmlab.grading.stored import grade_of
from tests.grading.class_of import hand_in, notebook_text
from tests.grading.hostile.attack import (
    ATTACKS,
    EXERCISES,
    TARGET,
    Attack,
    Link,
    Pipe,
    around,
    honest,
)

SEED = 20_261
REPOSITORY = Path(__file__).parents[3]
VARIABLE = "SLMLAB_CANARY"


@dataclass
class Host:
    """What must not be reached, read or written. Its secrets are drawn anew for each run."""

    folder: Path
    secret: str = field(default_factory=lambda: "secret-" + secrets.token_hex(12))
    marker: str = field(default_factory=lambda: "hx" + secrets.token_hex(5))
    sockets: dict[str, socket.socket] = field(default_factory=dict)

    @property
    def submissions(self) -> Path:
        return self.folder / "submissions"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def canary(self) -> Path:
        return self.folder / "outside" / "canary.txt"

    def known(self, limits: Limits) -> dict[str, object]:
        """Everything a submission is told: where all is, and nothing of what is in it."""
        exercise = registry.get(TARGET)
        cases = make_cases(exercise, SEED)
        answer = max((tuple(t.flatten().tolist()) for t in expected(exercise, cases)), key=len)
        return {
            "memory_mb": limits.memory_mb,
            "masked": [byte ^ 85 for byte in answer],
            "submissions": str(self.submissions),
            "victim": str(self.submissions / "victim" / "homework.ipynb"),
            "out": str(self.out),
            "canary": str(self.canary),
            "outside": str(self.canary.parent),
            "repository": str(REPOSITORY),
            "variable": VARIABLE,
            "marker": self.marker,
            "grader": os.getpid(),
            "tcp": self.sockets["tcp"].getsockname()[1],
            "udp": self.sockets["udp"].getsockname()[1],
            "abstract": self.marker,
            "unix": str(self.folder / "u"),
        }

    def listen(self, stack: contextlib.ExitStack) -> None:
        """Opens the sockets that a submission must not reach."""
        kinds: dict[str, tuple[int, int, Any]] = {
            "tcp": (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            "udp": (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            "abstract": (socket.AF_UNIX, socket.SOCK_STREAM, "\0" + self.marker),
            "unix": (socket.AF_UNIX, socket.SOCK_STREAM, str(self.folder / "u")),
        }
        for name, (family, kind, address) in kinds.items():
            made = self.sockets[name] = stack.enter_context(socket.socket(family, kind))
            made.bind(address)
            made.setblocking(False)
            if kind == socket.SOCK_STREAM:
                made.listen(16)

    def reached(self) -> list[str]:
        """Names of the sockets to which something came."""
        found = []
        for name, one in self.sockets.items():
            with contextlib.suppress(BlockingIOError):
                if name == "udp":
                    one.recv(100)
                else:
                    one.accept()[0].close()
                found.append(name)
        return found

    def files(self) -> dict[str, str]:
        """Every file that must stay as it is, with its hash or where it leads."""
        found = {}
        for top in (self.submissions, self.canary.parent):
            for path in sorted(top.rglob("*")):
                if path.is_symlink():
                    found[str(path)] = os.readlink(path)
                elif path.is_file():
                    found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    def left_behind(self) -> list[str]:
        """Processes that carry the marker, and files of that name."""
        processes = []
        for process in psutil.process_iter(["name", "pid"]):
            if process.info["name"] == self.marker:
                processes.append(f"process {process.info['pid']}")
        folders = (self.folder, self.out, self.canary.parent, "/tmp", "/var/tmp", "/dev/shm")
        return processes + [
            str(path) for folder in folders if (path := Path(folder) / self.marker).exists()
        ]


@dataclass(frozen=True)
class Graded:
    """The batch when it is over."""

    host: Host
    limits: Limits
    grades: dict[str, Grade]
    table: list[str]
    said: str
    seconds: float
    before: dict[str, str]

    def texts(self) -> Iterator[tuple[str, str]]:
        """Every file that the grader wrote, with its text."""
        for path in sorted(self.host.out.rglob("*")):
            if path.is_file():
                yield path.name, path.read_text(encoding="utf-8")


def write_class(host: Host, limits: Limits, attacks: dict[str, Attack]) -> None:
    """The folder of submissions, with an honest victim whose text holds a secret."""
    host.canary.parent.mkdir()
    host.canary.write_text(host.secret, encoding="utf-8")
    told = f"\nimport json\nKNOWN = json.loads({json.dumps(host.known(limits))!r})"
    hand_in(host.submissions, "victim", around(honest(first=f"# {host.secret}")))
    for attack in attacks.values():
        handed = attack.build()
        if isinstance(handed, str):
            handed = around(handed)
        if isinstance(handed, list):
            handed = {"homework.ipynb": notebook_text([handed[0] + told, *handed[1:]])}
        place = host.submissions / attack.name
        place.mkdir(parents=True)
        for name, content in handed.items():
            if isinstance(content, Link):
                (place / name).symlink_to(content.to)
            elif isinstance(content, Pipe):
                os.mkfifo(place / name)
            else:
                data = content if isinstance(content, bytes) else content.encode()
                (place / name).write_bytes(data)


def grade_class(
    folder: Path, limits: Limits, hurry: float = 1, attacks: dict[str, Attack] = ATTACKS
) -> Graded:
    """Writes the class, grades it in a process of its own, and reads what that wrote.

    hurry   the multiplier on the times of those who wait for their end anyway
    """
    host = Host(folder)
    with contextlib.ExitStack() as stack:
        host.listen(stack)
        write_class(host, limits, attacks)
        before = host.files()
        command = [sys.executable, "-m", "slmlab.cli", "grade", str(host.submissions)]
        command += ["--out", str(host.out), "--exercises", ",".join(EXERCISES)]
        command += ["--seed", str(SEED), "--jobs", "1"]
        for name, value in limits.to_json().items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        if hurry < 1:
            factors = host.folder / "multipliers.csv"
            rows = [f"{attack.name},{hurry}" for attack in attacks.values() if attack.hurried]
            factors.write_text("\n".join(["student,multiplier", *rows]), encoding="utf-8")
            command += ["--time-multiplier", str(factors)]
        start = time.monotonic()
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=os.environ | {VARIABLE: host.secret, "OMP_NUM_THREADS": "1"},
        )
        seconds = time.monotonic() - start
        assert done.returncode == 0, done.stderr
        assert host.reached() == []
    table = (host.out / "grades.csv").read_text(encoding="utf-8").splitlines()
    found = [
        grade_of(path.read_text(encoding="utf-8"))
        for path in (host.out / "submissions").glob("*/grade.json")
    ]
    grades = {grade.student: grade for grade in found}
    return Graded(host, limits, grades, table, done.stdout, seconds, before)
