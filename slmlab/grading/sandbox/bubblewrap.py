"""The command line of bubblewrap, with every path that is visible inside.

An allow-list: the system's libraries and programs, Python itself, the packages of packages.py, and
the project's own files that run inside. The root is read-only and so is /dev; there is no place
where the server could write.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import slmlab.checking
import slmlab.grading.inside
from slmlab.grading.sandbox import packages

ANSWERING = ("execution.py", "values.py", "failure.py", "comparison.py")
HOME, SITE = "/grader", "/site"
_SYSTEM = (
    "/usr/bin",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/share/zoneinfo",
)
_SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives")
NOBODY = 65534
# One thread, also because unshare() takes no process of several; and one order of sets on every run.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
}
PYTHON_OPTIONS = ("-s", "-P", "-B")


@dataclass(frozen=True)
class Layout:
    """What a sandbox is made of on this machine; see open_sandbox for the options."""

    program: str
    version: str
    inside: Path
    python: str
    arguments: tuple[str, ...]
    preload: bool = True


def find(inside: Path | None = None, preload: bool = True) -> Layout | None:
    """The layout, None where bubblewrap is not installed or does not start."""
    program = shutil.which("bwrap")
    if program is None:
        return None
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.search(r"\d[\d.]*", answer.stdout)
    folder = inside or inside_folder()
    python = os.path.realpath(sys.executable)
    visible = [*_system(), *_python(python), *_site(), *_own(folder)]
    visible = [*_parents(visible), *visible]
    found = version.group() if version else "unknown"
    return Layout(program, found, folder, python, tuple(visible), preload)


def inside_folder() -> Path:
    """The files that run inside."""
    return Path(slmlab.grading.inside.__file__).parent


def answering_files() -> dict[str, Path]:
    """The files of slmlab.checking by which a call is made inside as in the notebook."""
    folder = Path(slmlab.checking.__file__).parent
    return {name: folder / name for name in ANSWERING if (folder / name).exists()}


def command(layout: Layout, descriptor: int, as_root: bool, proc: bool = True) -> list[str]:
    """The command that starts the fork server, its control socket at `descriptor`.

    To be started with ENVIRONMENT and nothing else: bubblewrap hands its own on.

    as_root   without a user namespace: each child becomes a real unprivileged user, because a limit
              on processes counts no process of root
    proc      False where the kernel refuses a fresh /proc
    """
    if as_root:
        spaces = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
        kept = ["CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_KILL"]
    else:
        spaces = ["--unshare-all", "--uid", str(NOBODY), "--gid", str(NOBODY)]
        kept = ["CAP_SYS_ADMIN", "CAP_SETPCAP"]
    capabilities = [part for name in kept for part in ("--cap-add", name)]
    return [
        *(layout.program, *spaces, "--cap-drop", "ALL", *capabilities),
        *("--die-with-parent", "--new-session"),
        *layout.arguments,
        *(("--proc", "/proc") if proc else ("--dir", "/proc")),
        *("--dev", "/dev", "--dir", "/tmp", "--remount-ro", "/dev", "--remount-ro", "/"),
        *("--chdir", "/", layout.python, *PYTHON_OPTIONS, "-c"),
        start_code(HOME, SITE, descriptor, confined=True, preload=layout.preload),
    ]


def start_code(home: str, site: str, descriptor: int, *, confined: bool, preload: bool) -> str:
    """The Python code that starts the server; `home` holds the package inside.

    site   a folder of packages besides Python's own, "" for none
    """
    return (
        f"import sys; sys.path[:0] = [{home!r}]; sys.path += {[site] if site else []!r}; "
        f"from inside.server import start; start({descriptor}, {confined}, {preload})"
    )


def _parents(arguments: list[str]) -> list[str]:
    """Makes the folders above every target: those that bubblewrap adds itself are root's alone."""
    targets = [arguments[at + 2] for at, word in enumerate(arguments) if word == "--ro-bind"]
    above = {str(folder) for target in targets for folder in Path(target).parents} - {"/"}
    inside_a_target = {folder for folder in above if folder.startswith(("/usr/", *targets))}
    return [part for folder in sorted(above - inside_a_target) for part in ("--dir", folder)]


def _system() -> list[str]:
    arguments = []
    for path in (*_SYSTEM, *_SYSTEM_FILES):
        if os.path.exists(path):
            arguments += ["--ro-bind", path, path]
    for name in ("/bin", "/lib", "/lib32", "/lib64"):
        if os.path.islink(name):
            arguments += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            arguments += ["--ro-bind", name, name]
    # Python's packages of the system are as foreign as any other.
    return arguments + _cover(Path("/usr"))


def _python(executable: str) -> list[str]:
    """Python's own program and library, with every folder of installed packages covered."""
    prefix = Path(sys.base_prefix)
    if prefix == Path("/usr"):
        return []
    bound = [path for path in (prefix / "lib", prefix / "lib64") if path.is_dir()]
    arguments = []
    for path in (*bound, Path(executable)):
        arguments += ["--ro-bind", str(path), str(path)]
    return arguments + _cover(prefix)


def _cover(prefix: Path) -> list[str]:
    """An empty folder over every site-packages and dist-packages that is visible."""
    folders = {
        str(folder)
        for pattern in ("lib*/python*/site-packages", "lib*/python*/dist-packages")
        for folder in prefix.glob(pattern)
        if folder.is_dir() and not folder.is_symlink() and not folder.parent.is_symlink()
    }
    return [
        part for folder in sorted(folders) for part in ("--tmpfs", folder, "--remount-ro", folder)
    ]


def _site() -> list[str]:
    found = packages.entries(packages.closure().values())
    return [
        part for name, path in found.items() for part in ("--ro-bind", str(path), f"{SITE}/{name}")
    ]


def _own(inside: Path) -> list[str]:
    # Entry by entry, because nothing can be added to a folder that is bound read-only.
    paths = {item.name: item for item in sorted(inside.iterdir()) if item.name != "__pycache__"}
    paths |= {f"answering/{name}": path for name, path in answering_files().items()}
    return [
        part
        for name, path in paths.items()
        for part in ("--ro-bind", str(path), f"{HOME}/inside/{name}")
    ]
