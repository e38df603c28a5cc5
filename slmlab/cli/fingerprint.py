"""What counts as an edit of a file: the text of its cells, not what running it left behind."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Fingerprint:
    """Two sha256 hex digests of one file.

    source: cell types, texts and attachments, in order. Cells without text do not count: running
        the last cell with Shift-Enter adds one. Outputs, execution counts, cell ids and metadata
        do not count either.
    outputs: the outputs of all code cells; "" where there are none (as delivered), and for other
        files.
    A file that is no readable notebook is its bytes.
    """

    source: str
    outputs: str


def sha256(data: bytes) -> str:
    """The sha256 of `data`, in hex."""
    return hashlib.sha256(data).hexdigest()


def _digest(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True, ensure_ascii=True).encode())


def _joined(value: Any) -> Any:
    """`value` with every list of lines joined: both spellings are legal in a notebook."""
    if isinstance(value, list):
        if value and all(isinstance(line, str) for line in value):
            return "".join(value)
        return [_joined(item) for item in value]
    if isinstance(value, dict):
        return {key: _joined(item) for key, item in value.items()}
    return value


def _output(output: dict[str, Any]) -> Any:
    volatile = ("execution_count", "metadata", "transient")
    return _joined({key: item for key, item in output.items() if key not in volatile})


def fingerprint(name: str, data: bytes) -> Fingerprint:
    """The fingerprint of the file `name` (only its suffix matters) with the content `data`."""
    if not name.endswith(".ipynb"):
        return Fingerprint(sha256(data), "")
    try:
        source, outputs = [], []
        for cell in json.loads(data.decode("utf-8"))["cells"]:
            text = "".join(cell["source"])
            attachments = cell.get("attachments") or {}
            if text.strip() or attachments:
                source.append((cell["cell_type"], text, attachments))
            outputs += [_output(output) for output in cell.get("outputs") or ()]
        return Fingerprint(_digest(source), _digest(outputs) if outputs else "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Fingerprint("bytes:" + sha256(data), "")
