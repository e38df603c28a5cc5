"""Where progress lies and how its bytes are read and replaced; the locking stands elsewhere.

A write goes to a temporary file in the same folder and is moved into place, so a killed process
leaves the old file. Nothing but a plain file is ever read as progress, renamed or replaced.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

from slmlab.checking.logbook import Logbook, from_json

ENVIRONMENT = "SLMLAB_PROGRESS"
MAX_BYTES = 16 * 1024 * 1024
MEND = f"Set {ENVIRONMENT} to a file that you may write to"


class ProgressError(ValueError):
    """The progress file cannot be read or written; the message names the file and the mend."""


class CorruptProgress(ProgressError):
    """The progress file was damaged; it has been moved aside and a fresh one can be started."""


class EmptyFile(ValueError):
    """The file holds no bytes but white space, so there is nothing in it to lose."""


def progress_path() -> Path:
    """SLMLAB_PROGRESS, else progress.json in the user's data folder.

    Raises ProgressError where it begins with ~name and there is no such user.
    """
    chosen = os.environ.get(ENVIRONMENT, "").strip()
    if chosen:
        return expanded(chosen, MEND)
    import platformdirs

    return Path(platformdirs.user_data_dir("slmlab", appauthor=False)) / "progress.json"


def expanded(path: str | os.PathLike[str], mend: str) -> Path:
    """The path with ~ replaced; raises ProgressError where no home folder is known for it."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ProgressError(f"Cannot use {path}: there is no such home folder. {mend}.") from None


def resolved(path: Path, mend: str) -> Path:
    """The absolute path without symbolic links; raises ProgressError where they form a loop."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        # A loop is a RuntimeError before Python 3.13, a null byte a ValueError.
        said = "its symbolic links form a loop" if isinstance(error, RuntimeError) else error
        raise ProgressError(f"Cannot use {str(path)!r}: {said}. {mend}.") from None


def is_nowhere(path: Path) -> bool:
    """True for os.devnull: the wish that nothing be recorded."""
    try:
        return path == Path(os.devnull) or os.path.samefile(path, os.devnull)
    except OSError:
        return False


def check_plain(path: Path, mend: str) -> None:
    """Raises ProgressError where `path` exists and is no plain file (a folder, a device, a pipe).

    Raises OSError where it cannot be looked at.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "not a plain file"
        raise ProgressError(f"Cannot use {path}: it is {what}. {mend}.")


def cannot(verb: str, path: Path, error: OSError, mend: str) -> ProgressError:
    """The error for an operating system's refusal."""
    return ProgressError(f"Cannot {verb} {path}: {error.strerror or error}. {mend}.")


def remove_stale(path: Path) -> None:
    """Removes temporary files beside `path` whose writer has died; the caller holds the lock."""
    for stale in path.parent.glob(f".{_glob_escape(path.name)}.*.tmp"):
        stale.unlink(missing_ok=True)


def _glob_escape(name: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)


def parse(path: Path) -> Logbook:
    """Reads one file; EmptyFile for one without contents, ValueError for one that is damaged."""
    with path.open("rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES // 2**20} MB")
    if not raw.strip():
        raise EmptyFile("it is empty")
    try:
        data = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique_keys)
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not valid JSON in line {error.lineno} ({error.msg})") from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    return from_json(data)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        raise ValueError("a key appears twice")
    return data


def write(path: Path, logbook: Logbook) -> None:
    """Replaces `path` as a whole: either the old or the new contents survive a crash."""
    text = json.dumps(logbook.to_json(), indent=1, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
