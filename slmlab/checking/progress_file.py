"""The progress file: one JSON file that several kernels may write at once.

A lock file beside it makes every change read, change and replace as one step.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import filelock

from slmlab.checking.logbook import Logbook, NewerSchema, now
from slmlab.checking.progress_storage import (
    ENVIRONMENT,
    MEND,
    CorruptProgress,
    EmptyFile,
    ProgressError,
    cannot,
    check_plain,
    expanded,
    is_nowhere,
    parse,
    progress_path,
    remove_stale,
    resolved,
    write,
)
from slmlab.checking.runner import OUTCOMES, Outcome

__all__ = ["ENVIRONMENT", "CorruptProgress", "ProgressError", "ProgressFile", "progress_path"]

LOCK_SECONDS = 30.0
UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)


class ProgressFile:
    """Reads and changes one progress file; holds no state between calls.

    os.devnull in its place records nothing: it reads empty and is never written.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        # Resolved, because os.replace would turn a symbolic link into a plain file.
        self.path = resolved(Path(path) if path is not None else progress_path(), MEND)

    def read(self) -> Logbook:
        """The logbook, empty where there is no file yet.

        Raises CorruptProgress after moving a damaged file aside, ProgressError otherwise. Where no
        lock can be made because nothing may be written there, the file is read without one.
        """
        if is_nowhere(self.path):
            return Logbook()
        try:
            with self._locked():
                return self._read()
        except ProgressError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno in UNWRITABLE:
                return self.peek()
            raise

    def peek(self) -> Logbook:
        """The logbook as it lies there, without the lock: a write replaces the file as a whole.

        Raises ProgressError where it cannot be read; a damaged file stays where it is.
        """
        if is_nowhere(self.path):
            return Logbook()
        try:
            return self._parsed()
        except OSError as error:
            raise cannot("use", self.path, error, MEND) from error
        except NewerSchema as error:
            raise self._newer(error) from None
        except ProgressError:
            raise
        except ValueError as error:
            raise ProgressError(f"{self.path} is damaged: {error}. {MEND}.") from None

    def update(self, change: Callable[[Logbook], Logbook]) -> Logbook:
        """Applies `change` to the current contents and stores the result; returns it.

        Raises as read() does; nothing is written then.
        """
        if is_nowhere(self.path):
            return change(Logbook())
        with self._locked():
            logbook = change(self._read())
            write(self.path, logbook)
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

        Raises ValueError where the file exists and overwrite is False, ProgressError where it
        cannot be written.
        """
        target = resolved(expanded(path, "Choose another path"), "Choose another path")
        if target == self.path:
            raise ValueError(f"path: {target} is the progress file itself; choose another name.")
        if target.exists() and not overwrite:
            raise ValueError(f"path: {target} exists; choose another name or pass overwrite=True.")
        logbook = self.read()
        mend = "Choose a file in a folder that you may write to"
        try:
            check_plain(target, mend)
            write(target, logbook)
        except OSError as error:
            raise cannot("write", target, error, mend) from None
        return target

    def import_from(self, path: str | os.PathLike[str]) -> Logbook:
        """Merges an exported file into this one; nothing here gets worse.

        Raises ProgressError where the file is missing or not a sound export; nothing changes then.
        """
        source = expanded(path, "Check the path")
        try:
            other = parse(source)
        except NewerSchema as error:
            raise ProgressError(f"{source}: {error}. Update slmlab, then import again.") from None
        except OSError as error:
            raise cannot("read", source, error, "Check the path") from None
        except ValueError as error:
            raise ProgressError(
                f"{source} is not a slmlab progress export: {error}. "
                "Export it again; your progress here is unchanged."
            ) from None
        return self.update(lambda logbook: logbook.merged(other))

    def require(self, name: str) -> None:
        """Raises ValueError, with close names, where nothing is recorded under `name`."""
        _require(self.read(), name)

    def reset(self, name: str | None = None) -> Logbook:
        """Forgets one exercise or prediction, or everything where `name` is None.

        Raises ValueError where nothing is recorded under `name`.
        """

        def change(logbook: Logbook) -> Logbook:
            if name is None:
                return Logbook()
            _require(logbook, name)
            return Logbook(
                {key: item for key, item in logbook.exercises.items() if key != name},
                {key: item for key, item in logbook.predictions.items() if key != name},
            )

        return self.update(change)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock = filelock.FileLock(f"{self.path}.lock", timeout=LOCK_SECONDS)
        try:
            # Before the lock, so that no lock file is made beside a device.
            check_plain(self.path, MEND)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except filelock.Timeout:
            raise ProgressError(
                f"{self.path}: another program has held the lock for {LOCK_SECONDS:.0f} s. "
                "Stop the other kernel, then run this again."
            ) from None
        except NotImplementedError:
            raise ProgressError(
                f"Cannot use {self.path}: its file system knows no locks. {MEND}."
            ) from None
        except OSError as error:
            raise cannot("use", self.path, error, MEND) from error
        try:
            yield
        except OSError as error:
            raise cannot("use", self.path, error, MEND) from error
        finally:
            lock.release()

    def _read(self) -> Logbook:
        # Only the holder of the lock writes, so a temporary file seen here has lost its writer.
        remove_stale(self.path)
        try:
            return self._parsed()
        except NewerSchema as error:
            raise self._newer(error) from None
        except ProgressError:
            raise
        except ValueError as error:
            aside = self._move_aside()
            raise CorruptProgress(
                f"{self.path} is damaged: {error}. It is kept as {aside.name} in the same folder, "
                "and the next use starts a fresh file. If you have an export, import it; "
                f"or mend {aside.name} and import that."
            ) from None

    def _parsed(self) -> Logbook:
        check_plain(self.path, MEND)
        try:
            return parse(self.path)
        except (FileNotFoundError, EmptyFile):
            return Logbook()

    def _newer(self, error: NewerSchema) -> ProgressError:
        return ProgressError(
            f"{self.path}: {error}. Update slmlab, or set {ENVIRONMENT} to another file."
        )

    def _move_aside(self) -> Path:
        number = 1
        while (aside := Path(f"{self.path}.corrupt-{number}")).exists():
            number += 1
        os.replace(self.path, aside)
        return aside


def _require(logbook: Logbook, name: str) -> None:
    known = {*logbook.exercises, *logbook.predictions}
    if name not in known:
        near = get_close_matches(str(name), sorted(known), n=3)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ValueError(f"Nothing is recorded for {name!r}.{hint}")
