"""Outputs fit to commit: no path of this machine, no noise, no timing, no size that hurts a clone."""

import json
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from authoring.failure import BuildError

MAX_OUTPUT_BYTES = 300_000
IGNORE_TAGS = {"nbval-ignore-output", "nbval-skip"}
STDERR_TAG = "stderr"

_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_WIDGET_TEXT = "Run this cell to move the controls."
# The look-behind starts a match only where a word starts: without it a long line costs its square.
_CELL_FILE = re.compile(r"(?<![^\s\"'(])[^\s\"'(]*ipykernel_\d+[\\/]\d+\.py")
_FOREIGN_PATH = re.compile(
    r"(?<![\w.~/-])(?<!<workbook>)(?<!<environment>)(?<!<temporary>)"
    r"(?:/(?:home|Users|root|tmp|work|private|var/folders)/|[A-Z]:\\+Users\\+)[^\s\"'<]+"
)


def keep_outputs(notebook: NotebookNode, committed: NotebookNode | None) -> None:
    """Give each code cell of `notebook` the outputs of the committed cell with the same source.

    Equal sources are matched in order, so that an inserted cell moves ids but loses no output.
    """
    if committed is None:
        return
    stored: dict[str, list[NotebookNode]] = defaultdict(list)
    for cell in committed.cells:
        if cell.cell_type == "code" and cell.execution_count is not None:
            stored[cell.source].append(cell)
    for count, cell in enumerate(_code_cells(notebook), start=1):
        if stored[cell.source]:
            cell.outputs = stored[cell.source].pop(0).outputs
            _set_count(cell, count)


def clean_outputs(notebook: NotebookNode, root: Path) -> None:
    """Make the outputs of an executed notebook independent of this machine, in place.

    `root` is the repository. Raises BuildError, naming the cell, for what cannot be mended here:
    stderr text without the tag "stderr", a widget that nbval would compare, a path that is not the
    repository's, the environment's, the home's or the temporary folder's, more than 300 KB.
    """
    replace = _path_replacer(root)
    for count, cell in enumerate(_code_cells(notebook), start=1):
        _set_count(cell, count)
        for name in ("execution", "ExecuteTime", "collapsed", "scrolled"):
            cell.metadata.pop(name, None)
        for output in cell.outputs:
            _check_stderr(cell, output)
            _drop_widget_view(cell, output)
            _rewrite_text(output, replace)
        cell.outputs = [output for output in cell.outputs if output.get("data") != {}]
        _check_paths(cell)
        size = len(json.dumps(cell.outputs))
        if size > MAX_OUTPUT_BYTES:
            raise BuildError(
                f"cell {cell.id}: {size // 1000} KB of output; show at most "
                f"{MAX_OUTPUT_BYTES // 1000} KB: fewer points, a smaller figure, less text."
            )


def _code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _set_count(cell: NotebookNode, count: int) -> None:
    cell.execution_count = count
    for output in cell.outputs:
        if output.output_type == "execute_result":
            output.execution_count = count


def _check_stderr(cell: NotebookNode, output: NotebookNode) -> None:
    noisy = output.output_type == "stream" and output.name == "stderr"
    if noisy and STDERR_TAG not in cell.metadata.get("tags", []):
        first = output.text.strip().split("\n")[0][:120]
        raise BuildError(
            f"cell {cell.id} writes to stderr ('{first}'): silence it, or tag the cell "
            f'"{STDERR_TAG}" where the reader should see it.'
        )


def _drop_widget_view(cell: NotebookNode, output: NotebookNode) -> None:
    # A view without its model shows an error box; the model's ids are random on every run.
    data = output.get("data", {})
    if _WIDGET_VIEW not in data:
        return
    if not IGNORE_TAGS & set(cell.metadata.get("tags", [])):
        raise BuildError(f'cell {cell.id} shows a widget: give it the tag "nbval-ignore-output".')
    del data[_WIDGET_VIEW]
    if set(data) == {"text/plain"}:
        data["text/plain"] = _WIDGET_TEXT


def _text_slots(output: NotebookNode) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every piece of text in `output`; base64 images are not text."""
    if output.output_type == "stream":
        yield output, "text"
    elif output.output_type == "error":
        yield output, "evalue"
        yield from ((output.traceback, index) for index in range(len(output.traceback)))
    for mime, value in output.get("data", {}).items():
        if isinstance(value, str) and not (mime.startswith("image/") and "svg" not in mime):
            yield output.data, mime


def _rewrite_text(output: NotebookNode, replace: Callable[[str], str]) -> None:
    for container, key in _text_slots(output):
        container[key] = replace(container[key])


def _path_replacer(root: Path) -> Callable[[str], str]:
    places = {
        root: "<workbook>",
        Path(sys.prefix): "<environment>",
        Path(tempfile.gettempdir()): "<temporary>",
        Path.home(): "~",
    }
    named = {str(form): name for path, name in places.items() for form in (path, path.resolve())}
    # The longest first: the repository usually lies inside the home folder.
    patterns = [
        (re.compile(rf"(?<![\w.]){re.escape(path)}(?![\w-])"), named[path])
        for path in sorted(named, key=len, reverse=True)
        if len(Path(path).parts) > 1
    ]

    def replace(text: str) -> str:
        text = _CELL_FILE.sub("<cell>", text)
        for pattern, name in patterns:
            text = pattern.sub(name, text)
        return text

    return replace


def _check_paths(cell: NotebookNode) -> None:
    for output in cell.outputs:
        for container, key in _text_slots(output):
            found = _FOREIGN_PATH.search(container[key])
            if found:
                raise BuildError(
                    f"cell {cell.id} prints {found[0]}, a path of this machine: print a name or a "
                    "relative path."
                )
