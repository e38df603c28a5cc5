"""One file of what was handed in, on disk or inside a zip, and how its name is shown."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

# Folders that no student wrote: tools' copies, caches, other people's packages.
LEFT_OUT = frozenset({"__MACOSX", "__pycache__", "node_modules", "site-packages", "venv"})


@dataclass(frozen=True)
class Entry:
    """One file, or a folder that holds nothing.

    parts     its path from the folder of submissions, as shown: NFC, without unprintable letters
    time      seconds since the epoch, of its last change
    size      bytes, as stored in the file system or in the zip's list (not to be trusted)
    open      gives its bytes; None where `trouble` says why they are not read
    trouble   a clause without subject: "is a link, which is not followed"
    zipped_in parts of the zip that holds it; () for one on disk or in the zip of the whole class
    """

    parts: tuple[str, ...]
    time: float
    size: int = 0
    open: Callable[[], BinaryIO] | None = None
    trouble: str = ""
    is_folder: bool = False
    zipped_in: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The last part."""
        return self.parts[-1]

    @property
    def path(self) -> str:
        """All parts, joined by a slash."""
        return "/".join(self.parts)

    @property
    def suffix(self) -> str:
        """ ".ipynb", in lower case; "" where the name has none."""
        stem, dot, last = self.name.rpartition(".")
        return f".{last.lower()}" if dot and stem else ""

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return self.name[: len(self.name) - len(self.suffix)]


def shown(name: str) -> str:
    """`name` in NFC; what cannot be printed becomes %XX a byte, so that two names stay two.

    That covers control characters, letters that turn the direction of text, and bytes of a file
    name that are no UTF-8.
    """
    text = unicodedata.normalize("NFC", name)
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    # a byte that is no UTF-8 arrives as a lone surrogate, and leaves as that byte
    data = letter.encode(
        "utf-8", "surrogateescape" if "\udc80" <= letter <= "\udcff" else "surrogatepass"
    )
    return "".join(f"%{byte:02X}" for byte in data)


def left_out(name: str) -> bool:
    """True for hidden files and for the folders of LEFT_OUT."""
    return name.startswith(".") or name in LEFT_OUT


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key in which 2_x comes before 10_x, and which never compares a number with text."""
    key: list[tuple[int, int, str]] = []
    digits = ""
    for letter in unicodedata.normalize("NFC", text).casefold():
        if letter in "0123456789" and len(digits) < 18:
            digits += letter
            continue
        if digits:
            key.append((0, int(digits), ""))
            digits = ""
        key.append((1, 0, letter))
    if digits:
        key.append((0, int(digits), ""))
    return tuple(key)
