"""Without a sandbox, for --unsafe-no-sandbox: limits and a process group, and nothing else.

A stranger's code can then read this user's files, use the network, and leave processes behind that
started a session of their own. The same server runs, so grades are the same for honest work.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from slmlab.grading.sandbox import bubblewrap

KIND = "none"


class Folder:
    """A temporary folder of the shape that the sandbox shows: inside/, with answering/ in it."""

    def __init__(self, inside: Path | None = None, preload: bool = True) -> None:
        self._preload = preload
        self._folder = tempfile.TemporaryDirectory(prefix="slmlab-unsafe-")
        self.path = Path(self._folder.name)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(inside or bubblewrap.inside_folder(), self.path / "inside", ignore=ignored)
        answering = self.path / "inside" / "answering"
        answering.mkdir()
        for name, source in bubblewrap.answering_files().items():
            shutil.copyfile(source, answering / name)

    def command(self, descriptor: int) -> list[str]:
        """The command line that starts the server with this user's rights."""
        code = bubblewrap.start_code(
            str(self.path), "", descriptor, confined=False, preload=self._preload
        )
        return [sys.executable, *bubblewrap.PYTHON_OPTIONS, "-c", code]

    def close(self) -> None:
        """Removes the folder."""
        self._folder.cleanup()
