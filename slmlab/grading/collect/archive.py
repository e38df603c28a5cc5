"""The members of a zip, read in memory: nothing is unpacked to disk and no name is trusted.

A path that leaves the archive cannot write anywhere here; such a member is still left out, because
whoever made it did not hand in homework.
"""

from __future__ import annotations

import dataclasses
import io
import os
import stat
import struct
import time
import zipfile
from collections.abc import Callable
from typing import IO, Any, BinaryIO

from slmlab.grading.collect.entries import Entry, left_out, shown
from slmlab.grading.collect.folder import LINK, MAX_DEPTH

MAX_LIST_BYTES = 4 << 20  # the list of members; an entry takes at least 46 bytes of it

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")


class ArchiveError(ValueError):
    """Why a zip is not read, as a clause without subject."""


def list_archive(file: IO[bytes], parents: tuple[str, ...], moment: float) -> list[Entry]:
    """Every file in the zip `file`, in the order of its list; hidden names are left out.

    parents   parts of the path of the zip itself
    moment    time of the zip, for members without a valid one of their own

    The file must stay open as long as members are read. Raises ArchiveError where it is no zip, or
    its list of members is damaged or unreasonably long.
    """
    _check_list(file)
    try:
        archive = zipfile.ZipFile(file)
        members = archive.infolist()
    except Exception as error:  # zipfile lets errors of struct, codecs and others through
        raise ArchiveError(f"is no zip that can be read ({_words(error)})") from None
    found: dict[tuple[str, ...], Entry] = {}
    twice: set[tuple[str, ...]] = set()
    for member in members:
        entry = _entry(archive, member, parents, moment)
        if entry is None:
            continue
        if entry.parts in found:
            twice.add(entry.parts)
        entry = dataclasses.replace(entry, zipped_in=parents)
        found[entry.parts] = entry  # as unzip does: the last of one name stays
    note = "stands in the zip twice, last one taken"
    notes = [Entry(parts, moment, trouble=note, is_folder=True) for parts in sorted(twice)]
    return [*found.values(), *notes]


def _check_list(file: IO[bytes]) -> None:
    """Refuse a list of members that would fill memory before the first of them is looked at."""
    try:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - _END.size - 65535)
        file.seek(start)
        tail = file.read()
        file.seek(0)
    except OSError as error:
        raise ArchiveError(f"cannot be read ({error.strerror or error})") from None
    place = tail.rfind(b"PK\x05\x06")
    if place < 0 or len(tail) - place < _END.size:
        raise ArchiveError("is no zip that can be read (it has no list of members)")
    length = _END.unpack_from(tail, place)[5]
    large = place - 20 - _END64.size
    if tail[place - 20 : place - 16] == b"PK\x06\x07" and large >= 0:
        length = _END64.unpack_from(tail, large)[8]
    if length > MAX_LIST_BYTES:
        raise ArchiveError(f"lists more than {MAX_LIST_BYTES // 46:,} files")


def _entry(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, parents: tuple[str, ...], moment: float
) -> Entry | None:
    # The name as stored: zipfile cuts at a NUL, and Windows' tools write backslashes.
    raw = member.filename.replace("\\", "/")
    steps = [step for step in raw.split("/") if step not in ("", ".")]
    if not steps or any(left_out(step) for step in steps if step != ".."):
        return None
    parts = (*parents, *(shown(step) for step in steps))
    when = _time(member, moment)
    mode = member.external_attr >> 16
    if raw.startswith("/") or steps[0].endswith(":") or ".." in steps:
        return Entry(parts, when, trouble="has a path that leads out of the zip")
    if len(steps) > MAX_DEPTH:
        return Entry(parts[: MAX_DEPTH + len(parents)], when, trouble="lies too many folders deep")
    if stat.S_ISLNK(mode):
        return Entry(parts, when, trouble=LINK)
    if member.is_dir():
        return Entry(parts, when, is_folder=True)
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return Entry(parts, when, trouble="is no regular file")
    if member.flag_bits & 0x1:
        return Entry(parts, when, trouble="is encrypted")
    return Entry(parts, when, member.file_size, _opener(archive, member))


def _opener(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Callable[[], BinaryIO]:
    def open_() -> BinaryIO:
        try:
            stream = archive.open(member)
        except Exception as error:
            raise ArchiveError(f"is damaged ({_words(error)})") from None
        return io.BufferedReader(_Member(stream))

    return open_


class _Member(io.RawIOBase):
    """A member's bytes; every way in which a damaged one fails becomes ArchiveError."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        try:
            data = self._stream.read(len(buffer))
        except Exception as error:  # zlib.error, EOFError, BadZipFile, NotImplementedError, ...
            raise ArchiveError(f"is damaged ({_words(error)})") from None
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _time(member: zipfile.ZipInfo, moment: float) -> float:
    try:
        return time.mktime((*member.date_time, 0, 0, -1))
    except (ValueError, OverflowError):
        return moment


def _words(error: Exception) -> str:
    said = error.strerror if isinstance(error, OSError) else error
    text = shown(" ".join(str(said).split()))[:100]
    return text or type(error).__name__
