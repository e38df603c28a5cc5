"""Read the notebook that an earlier build wrote, whatever has happened to it since."""

from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from authoring.failure import BuildError


def read_committed(path: Path, name: str) -> NotebookNode | None:
    """The notebook at `path`; None where there is none, or where the file is no valid notebook.

    Raises BuildError, with `name`, for what a build could not replace: a folder, a file that cannot
    be read.
    """
    if path.is_dir():
        raise BuildError(f"{name} is a folder where a notebook goes: move it away.")
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BuildError(f"{name} cannot be read ({error.strerror}): mend its rights.") from None
    try:
        notebook = nbformat.reads(text.decode("utf-8"), as_version=4)
        nbformat.validate(notebook)
    except Exception:  # nbformat meets damage as AttributeError, KeyError, TypeError and others
        return None
    return notebook


def stamp(notebook: NotebookNode) -> dict[str, Any]:
    """What the build noted in the notebook's metadata; empty where that is something else."""
    noted = notebook.metadata.get("slmlab")
    return dict(noted) if isinstance(noted, dict) else {}
