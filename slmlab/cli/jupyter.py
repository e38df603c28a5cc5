"""Start JupyterLab on lesson 00 in a work folder."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from slmlab.cli.workbook import FIRST_LESSON

# With one of these the learner chooses the start page or the root folder, so ours stays away.
_OWN_START = (
    "root_dir=",
    "root-dir=",
    "notebook-dir",
    "notebook_dir",
    "preferred-dir",
    "default_url",
)

# A first-time learner, perhaps offline, is not asked about news and updates of JupyterLab.
_QUIET_CONFIG = Path(__file__).with_name("jupyter_config")


def split_lab_arguments(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """DIR and LAB_ARGS from the words after ``slmlab lab``.

    The first word is DIR unless it is an option; the rest goes to JupyterLab unchanged, with or
    without one ``--`` before it.
    """
    words = list(arguments)
    directory = None
    if words and not words[0].startswith("-"):
        directory = words.pop(0)
    if words and words[0] == "--":
        words.pop(0)
    return directory, words


def jupyter_command(
    work: Path, lab_arguments: Sequence[str], *, root_user: bool
) -> tuple[list[str], list[str]]:
    """The command that starts JupyterLab in `work`, and a sentence for each thing it adds.

    `root_user` tells whether this process is root: JupyterLab refuses to start then without
    ``--allow-root``, and containers run as root.
    """
    # -P keeps a learner's random.py in the work folder from shadowing the standard library's.
    command = [sys.executable, "-P", "-m", "jupyterlab"]
    notes = []
    chosen = any(mark in word for word in lab_arguments for mark in _OWN_START)
    if (work / FIRST_LESSON).exists() and not chosen:
        command.append(f"--LabApp.default_url=/lab/tree/{FIRST_LESSON}")
    if root_user and not any("allow-root" in w or "allow_root" in w for w in lab_arguments):
        command.append("--allow-root")
        notes.append("Running as root, so JupyterLab is started with --allow-root.")
    return [*command, *lab_arguments], notes


def lab_environment(environment: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """`environment` with our settings of JupyterLab after the learner's own, and one OpenMP thread
    unless the learner chose; a sentence about that."""
    paths = [environment.get("JUPYTER_CONFIG_PATH", ""), str(_QUIET_CONFIG)]
    environment = {**environment, "JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, paths))}
    if environment.get("OMP_NUM_THREADS"):
        return environment, []
    return {**environment, "OMP_NUM_THREADS": "1"}, [
        "Kernels use one thread (OMP_NUM_THREADS=1): timings are steadier. Set it to change that."
    ]


def require_jupyterlab() -> None:
    """Raise ImportError with the mend where JupyterLab is not installed."""
    if importlib.util.find_spec("jupyterlab") is None:
        raise ImportError(
            f"JupyterLab is not installed for {sys.executable}: "
            f"run {sys.executable} -m pip install jupyterlab"
        )


def start(command: Sequence[str], work: Path, environment: dict[str, str]) -> int:
    """Run `command` in `work` and return its exit code.

    On POSIX it takes the place of this process, so that Ctrl-C and signals reach it directly. On
    Windows, where exec would detach it from the terminal, this process waits.
    """
    os.chdir(work)
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "posix":
        os.execve(command[0], list(command), environment)
    process = subprocess.Popen(list(command), env=environment)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # the server received it too and asks its own question
