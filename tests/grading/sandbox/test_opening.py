"""Where there is no sandbox, it says so with the mend, before any submission is read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from slmlab.grading.records import Limits
from slmlab.grading.sandbox import SandboxUnavailable, bubblewrap, open_sandbox, opening, packages
from tests.grading.sandbox.asking import run
from tests.grading.sandbox.conftest import LIMITS, opened

REPOSITORY = Path(__file__).resolve().parents[3]
ORDINARY = """
import os
from slmlab.grading.records import Limits, Request
from slmlab.grading.sandbox import open_sandbox
with open_sandbox(Limits(processes=4), preload=False) as sandbox:
    code = '''
import os
made = 0
try:
    while made < 100:
        os.fork() or __import__("time").sleep(60)
        made += 1
except OSError:
    print(made, os.getuid(), os.getpid())
'''
    print(sandbox.description["user_namespace"], sandbox.run(Request((code,), {}, 0)).cells[0].printed)
"""


def program(folder: Path, script: str) -> str:
    """A bwrap that does what a script says, on a PATH of its own."""
    path = folder / "bwrap"
    path.write_text(
        f'#!/bin/sh\nif [ "$1" = --version ]; then echo bubblewrap 9.9; exit; fi\n{script}\n'
    )
    path.chmod(0o755)
    return str(path)


def test_no_bubblewrap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SandboxUnavailable, match="apt install bubblewrap") as caught:
        open_sandbox()
    assert "--unsafe-no-sandbox" in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_other_systems(monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    monkeypatch.setattr(sys, "platform", system)
    with pytest.raises(SandboxUnavailable, match=r"Linux.*WSL 2.*Docker"):
        open_sandbox()


def test_windows_cannot_do_without_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_has_fork", lambda: False)
    with pytest.raises(SandboxUnavailable, match="WSL 2"):
        open_sandbox(unsafe=True)


@pytest.mark.parametrize(
    ("said", "mend"),
    [
        ("bwrap: setting up uid map: Permission denied", "apparmor_restrict_unprivileged_userns"),
        ("bwrap: Creating new namespace failed: Operation not permitted", "--cap-add SYS_ADMIN"),
        ("bwrap: something new", "something new"),
    ],
)
def test_refused_namespaces(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, mend: str
) -> None:
    monkeypatch.setattr(
        bubblewrap.shutil, "which", lambda name: program(tmp_path, f"echo '{said}' >&2; exit 1")
    )
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SandboxUnavailable) as caught:
        open_sandbox()
    assert said in str(caught.value) and mend in str(caught.value)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_fresh_proc_may_be_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opened().close()  # the skip, where there is none
    script = (
        'for word in "$@"; do if [ "$word" = --proc ]; then '
        'echo "bwrap: Can\'t mount proc on /newroot/proc: Operation not permitted" >&2; exit 1; fi; done\n'
        f'exec {shutil.which("bwrap")} "$@"'
    )
    path = program(tmp_path, script)
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda name: path)
    with open_sandbox(LIMITS, preload=False) as sandbox:
        assert run(sandbox, "print(1)").cells[0].printed == "1\n"


def test_arguments() -> None:
    with pytest.raises(TypeError, match="Limits"):
        open_sandbox({"cell_seconds": 1})  # type: ignore[arg-type]


def test_as_an_ordinary_user(tmp_path: Path) -> None:
    """Root runs this as nobody; an ordinary user has run all the others."""
    if os.geteuid() != 0:
        pytest.skip("the other tests run as an ordinary user already")
    opened().close()
    ordinary = {"user": 65534, "group": 65534, "extra_groups": [], "cwd": "/"}
    options = {"capture_output": True, "text": True, "env": {"PYTHONPATH": str(REPOSITORY), "PATH": os.environ["PATH"]}}  # fmt: skip
    try:
        reach = subprocess.run([sys.executable, "-c", "import slmlab"], **ordinary, **options)  # type: ignore[call-overload]
    except OSError as error:
        pytest.skip(f"an ordinary user cannot start this Python: {error}")
    if reach.returncode:
        pytest.skip(f"an ordinary user cannot read this checkout: {reach.stderr[-200:]}")
    done = subprocess.run([sys.executable, "-B", "-c", ORDINARY], **ordinary, **options)  # type: ignore[call-overload]
    assert done.stdout.split() == ["True", "3", "65534", "1"], done.stderr


def test_without_a_sandbox() -> None:
    with open_sandbox(LIMITS, unsafe=True, preload=False) as sandbox:
        assert sandbox.description["kind"] == "none"
        transcript = run(
            sandbox,
            "import os\nif os.fork() == 0:\n    import time; time.sleep(600)",
            "print(sorted(os.environ), os.path.isdir('/proc/self'))",
            "x = bytearray(b'1') * (1 << 30)",
            "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [14])\nwhile True: pass",
            "print(len(os.listdir('/')) > 0)",
            limits=Limits(cell_seconds=0.4, memory_mb=256),
        )
        assert sandbox._server is not None
        server = sandbox._server.pid
        assert [child.pid for child in psutil.Process(server).children(recursive=True)] == []
    assert transcript.ended == "finished"
    states = [cell.status for cell in transcript.cells]
    assert states == ["ran", "ran", "raised", "timeout", "ran"], transcript.cells
    assert "PATH" in transcript.cells[1].printed and "PYTEST" not in transcript.cells[1].printed
    assert not psutil.pid_exists(server)


def test_the_allow_list_of_packages() -> None:
    found = packages.closure()
    assert {"torch", "numpy", "safetensors"} <= set(found)
    assert not {"slmlab", "transformers", "pytest", "nbgrader"} & set(found)
    assert packages.closure(["slmlab"]) == {}
    assert packages.closure(["no-such-package"]) == {}
    names = packages.entries(found.values())
    assert {"torch", "numpy", "safetensors", "typing_extensions.py"} <= set(names)
    # The shared folder of compiled modules would show other packages' code.
    assert "__pycache__" not in names
    assert all(path.exists() for path in names.values())
