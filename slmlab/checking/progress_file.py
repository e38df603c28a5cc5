"""The progress file: one JSON file that several kernels may write at once.

A lock file beside it makes every change read, change and replace as one step. A write goes to a
temporary file in the same folder and is moved into place, so a killed process leaves the old file.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import filelock

from slmlab.checking.logbook import Logbook, NewerSchema, from_json, now
from slmlab.checking.runner import OUTCOMES, Outcome

ENVIRONMENT = "SLMLAB_PROGRESS"
LOCK_SECONDS = 30.0
MAX_BYTES = 16 * 1024 * 1024


class ProgressError(ValueError):
    """The progress file cannot be read or written; the message names the file and the mend."""


class CorruptProgress(ProgressError):
    """The progress file was damaged; it has been moved aside and a fresh one can be started."""


def progress_path() -> Path:
    """SLMLAB_PROGRESS, else progress.json in the user's data folder."""
    chosen = os.environ.get(ENVIRONMENT, "").strip()
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_data_dir("slmlab", appauthor=False)) / "progress.json"


class ProgressFile:
    """Reads and changes one progress file; holds no state between calls."""

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        # Resolved, because os.replace would turn a symbolic link into a plain file.
        self.path = (Path(path) if path is not None else progress_path()).resolve()

    def read(self) -> Logbook:
        """The logbook, empty where there is no file yet.

        Raises CorruptProgress after moving a damaged file aside, ProgressError otherwise.
        """
        with self._locked():
            return self._read()

    def update(self, change: Callable[[Logbook], Logbook]) -> Logbook:
        """Applies `change` to the current contents and stores the result; returns it.

        Raises as read() does; nothing is written then.
        """
        with self._locked():
            logbook = change(self._read())
            _write(self.path, logbook)
            return logbook

    def record_outcome(self, exercise_id: str, outcome: Outcome, credit: float) -> Logbook:
        """Adds one check; a check of a blank counts as no attempt.

        Raises ValueError for an unknown outcome or a credit outside 0..1.
        """
        if outcome not in OUTCOMES:
            raise ValueError(f"outcome={outcome!r}: use one of {', '.join(OUTCOMES)}.")
        if not 0.0 <= credit <= 1.0:
            raise ValueError(f"credit={credit!r} must lie between 0 and 1.")

        def change(logbook: Logbook) -> Logbook:
            old = logbook.exercise(exercise_id)
            new = replace(
                old,
                outcome=outcome,
                credit=float(credit),
                attempts=old.attempts + (outcome != "unattempted"),
                passed_at=now() if outcome == "passed" else None,
            )
            return logbook.with_exercise(exercise_id, old.merged(new))

        return self.update(change)

    def record_hint(self, exercise_id: str, rung: int) -> Logbook:
        """Notes that a rung (1..3) has been shown."""
        if type(rung) is not int or not 1 <= rung <= 3:
            raise ValueError(f"rung={rung!r}: a hint ladder has rungs 1, 2 and 3.")

        def change(logbook: Logbook) -> Logbook:
            old = logbook.exercise(exercise_id)
            new = replace(old, hint_rung=max(old.hint_rung, rung))
            return logbook.with_exercise(exercise_id, new)

        return self.update(change)

    def export_to(self, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Writes everything to one file and returns its path.

        Raises ValueError where the file exists and overwrite is False.
        """
        target = Path(path).expanduser().resolve()
        if target == self.path:
            raise ValueError(f"path: {target} is the progress file itself; choose another name.")
        if target.exists() and not overwrite:
            raise ValueError(f"path: {target} exists; choose another name or pass overwrite=True.")
        logbook = self.read()
        try:
            _write(target, logbook)
        except OSError as error:
            raise _cannot("write", target, error, "Choose a folder that you may write to") from None
        return target

    def import_from(self, path: str | os.PathLike[str]) -> Logbook:
        """Merges an exported file into this one; nothing here gets worse.

        Raises ProgressError where the file is missing or not a sound export; nothing changes then.
        """
        source = Path(path).expanduser()
        try:
            other = _parse(source)
        except NewerSchema as error:
            raise ProgressError(f"{source}: {error}. Update slmlab, then import again.") from None
        except OSError as error:
            raise _cannot("read", source, error, "Check the path") from None
        except ValueError as error:
            raise ProgressError(
                f"{source} is not a slmlab progress export: {error}. "
                "Export it again; your progress here is unchanged."
            ) from None
        return self.update(lambda logbook: logbook.merged(other))

    def reset(self, name: str | None = None) -> Logbook:
        """Forgets one exercise or prediction, or everything where `name` is None.

        Raises ValueError where nothing is recorded under `name`.
        """

        def change(logbook: Logbook) -> Logbook:
            if name is None:
                return Logbook()
            known = {*logbook.exercises, *logbook.predictions}
            if name not in known:
                near = get_close_matches(str(name), sorted(known), n=3)
                hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
                raise ValueError(f"Nothing is recorded for {name!r}.{hint}")
            return Logbook(
                {key: item for key, item in logbook.exercises.items() if key != name},
                {key: item for key, item in logbook.predictions.items() if key != name},
            )

        return self.update(change)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock = filelock.FileLock(f"{self.path}.lock", timeout=LOCK_SECONDS)
        mend = f"Set {ENVIRONMENT} to a file that you may write to"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except filelock.Timeout:
            raise ProgressError(
                f"{self.path}: another program has held the lock for {LOCK_SECONDS:.0f} s. "
                "Stop the other kernel, then run this again."
            ) from None
        except OSError as error:
            raise _cannot("use", self.path, error, mend) from None
        try:
            yield
        except OSError as error:
            raise _cannot("use", self.path, error, mend) from None
        finally:
            lock.release()

    def _read(self) -> Logbook:
        # Only the holder of the lock writes, so a temporary file seen here has lost its writer.
        for stale in self.path.parent.glob(f".{_glob_escape(self.path.name)}.*.tmp"):
            stale.unlink(missing_ok=True)
        try:
            return _parse(self.path)
        except FileNotFoundError:
            return Logbook()
        except NewerSchema as error:
            raise ProgressError(
                f"{self.path}: {error}. Update slmlab, or set {ENVIRONMENT} to another file."
            ) from None
        except ValueError as error:
            aside = self._move_aside()
            raise CorruptProgress(
                f"{self.path} is damaged: {error}. It is kept as {aside.name} in the same folder. "
                "Run this again to go on with a fresh file; if you have an export, import it; "
                f"or mend {aside.name} and import that."
            ) from None

    def _move_aside(self) -> Path:
        number = 1
        while (aside := Path(f"{self.path}.corrupt-{number}")).exists():
            number += 1
        os.replace(self.path, aside)
        return aside


def _cannot(verb: str, path: Path, error: OSError, mend: str) -> ProgressError:
    return ProgressError(f"Cannot {verb} {path}: {error.strerror or error}. {mend}.")


def _glob_escape(name: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)


def _parse(path: Path) -> Logbook:
    with path.open("rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES // 2**20} MB")
    if not raw.strip():
        raise ValueError("it is empty")
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


def _write(path: Path, logbook: Logbook) -> None:
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
