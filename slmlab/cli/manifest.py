"""The record of what was delivered to a work folder: work/.slmlab-manifest.json."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slmlab.cli.workbook import MANIFEST_NAME

_VERSION = 1


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader finds the old file or the new one, both whole.

    A temporary file in the same folder takes the place of `path` in one step; it does not stay
    behind where that fails. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".slmlab-", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files that only their owner reads; a copied lesson is an ordinary file
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


@dataclass
class Entry:
    """What one file of the work folder has been given.

    delivered: source digest -> outputs digests, of every version written or about to be written.
        A file whose source is among these holds no text of the learner's. The outputs digest is ""
        except where an older slmlab delivered a notebook with its outputs.
    file: sha256 of the last version considered for it, byte for byte; "" before the first.
    base: source digest of the version that the learner's copy started from.
    offered: source digest of the version last written beside an edited copy.
    """

    delivered: dict[str, list[str]] = field(default_factory=dict)
    file: str = ""
    base: str = ""
    offered: str = ""


@dataclass
class Manifest:
    """The entries of a work folder by relative posix path.

    unreadable: a manifest was there and could not be used, so that nothing is known about the
    folder and every file in it is the learner's.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    unreadable: bool = False

    def entry(self, name: str) -> Entry:
        """The entry of `name`, made empty where there is none."""
        return self.entries.setdefault(name, Entry())

    def save(self, work: Path) -> None:
        """Write the manifest into `work`. An unreadable one is set aside first, not lost."""
        path = work / MANIFEST_NAME
        if self.unreadable and path.exists():
            os.replace(path, path.with_name(".slmlab-manifest.unreadable.json"))
        files = {name: vars(entry) for name, entry in sorted(self.entries.items())}
        text = json.dumps({"version": _VERSION, "files": files}, indent=1)
        write_atomic(path, text.encode())
        self.unreadable = False


def _entry(value: Any) -> Entry:
    entry = Entry(**value)
    if not all(isinstance(outputs, list) for outputs in entry.delivered.values()):
        raise TypeError("outputs are not a list")
    outputs = [text for digests in entry.delivered.values() for text in digests]
    plain = [entry.file, entry.base, entry.offered, *entry.delivered, *outputs]
    if not all(isinstance(text, str) for text in plain):
        raise TypeError("a digest is not text")
    return entry


def load_manifest(work: Path) -> Manifest:
    """The manifest of `work`; an empty one where there is none, or where it cannot be used."""
    try:
        content = json.loads((work / MANIFEST_NAME).read_text(encoding="utf-8"))
        if content["version"] != _VERSION:
            raise ValueError("another version")
        return Manifest({name: _entry(value) for name, value in content["files"].items()})
    except (FileNotFoundError, NotADirectoryError):
        return Manifest()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Manifest(unreadable=True)
