"""The files of a folder on disk. Links are not followed and only regular files are opened."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from slmlab.grading.collect.entries import Entry, left_out, shown

MAX_FILES = 50_000
MAX_DEPTH = 40

LINK = "is a link, which is not followed"


def list_folder(root: Path) -> list[Entry]:
    """Every file under `root`, links and empty folders too, hidden names left out.

    Raises OSError only where `root` itself cannot be listed. What cannot be read further down is
    an entry with a trouble.
    """
    found: list[Entry] = []
    with os.scandir(root) as items:
        children = [item for item in items if not left_out(item.name)]
    for item in children:
        found += _list_one(item)
    return found


def _list_one(top: os.DirEntry[str]) -> list[Entry]:
    found: list[Entry] = []
    waiting: list[tuple[os.DirEntry[str], tuple[str, ...]]] = [(top, ())]
    while waiting:
        item, parents = waiting.pop()
        parts = (*parents, shown(item.name))
        try:
            info = item.stat(follow_symlinks=False)
        except OSError as error:
            found.append(Entry(parts, 0.0, trouble=unread(error)))
            continue
        if item.is_symlink() or _is_junction(item):
            found.append(Entry(parts, info.st_mtime, trouble=LINK))
        elif stat.S_ISDIR(info.st_mode):
            children, trouble = _children(item.path, len(parts))
            if trouble or not children:
                found.append(Entry(parts, info.st_mtime, trouble=trouble, is_folder=True))
            waiting += [(child, parts) for child in children]
        elif stat.S_ISREG(info.st_mode):
            found.append(Entry(parts, info.st_mtime, info.st_size, _opener(item.path)))
        else:
            found.append(Entry(parts, info.st_mtime, trouble="is no regular file"))
        if len(found) > MAX_FILES:
            parts = (shown(top.name),)
            trouble = f"holds more than {MAX_FILES:,} files; the rest is not looked at"
            return [*found, Entry(parts, 0.0, trouble=trouble, is_folder=True)]
    return found


def _children(path: str, depth: int) -> tuple[list[os.DirEntry[str]], str]:
    if depth > MAX_DEPTH:
        return [], f"lies more than {MAX_DEPTH} folders deep"
    try:
        with os.scandir(path) as items:
            return [item for item in items if not left_out(item.name)], ""
    except OSError as error:
        return [], unread(error)


def _is_junction(item: os.DirEntry[str]) -> bool:
    # Windows' second kind of link; Python tells it from a folder since 3.12
    return bool(getattr(item, "is_junction", lambda: False)())


def _opener(path: str) -> Callable[[], BinaryIO]:
    def open_() -> BinaryIO:
        # What was a file a moment ago may be a link or a pipe now: a pipe would block for ever.
        flags = os.O_RDONLY
        for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
            flags |= getattr(os, name, 0)
        file = os.fdopen(os.open(path, flags), "rb")
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise OSError(errno.EINVAL, "is no regular file")
        return file

    return open_


def unread(error: OSError) -> str:
    """Why a file or folder was not read, as a clause."""
    return f"cannot be read ({error.strerror or error})"
