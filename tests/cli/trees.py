"""Tiny workbooks for the tests, and what a learner does to a copy of one."""

import json
from pathlib import Path

from slmlab.cli.manifest import MANIFEST_NAME
from slmlab.cli.workbook import Workbook
from slmlab.cli.workspace import Delivery


def notebook(*texts: str, outputs: tuple[str, ...] = (), metadata: dict | None = None) -> bytes:
    """A notebook with one code cell a text; the first cells get one stream output each."""
    cells: list[dict] = []
    for number, text in enumerate(texts):
        shown = [
            {"output_type": "stream", "name": "stdout", "text": [output]}
            for output in outputs[number : number + 1]
        ]
        cells.append(
            {
                "cell_type": "code",
                "id": f"00-{number:03d}",
                "metadata": {},
                "execution_count": None,
                "source": text.splitlines(keepends=True),
                "outputs": shown,
            }
        )
    content = {"cells": cells, "metadata": metadata or {}, "nbformat": 4, "nbformat_minor": 5}
    return (json.dumps(content, indent=1) + "\n").encode()


def bare(data: bytes) -> bytes:
    """The notebook `data` as it is to be delivered, by a way of its own: no outputs, no counts."""
    content = json.loads(data)
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
    return (json.dumps(content, indent=1) + "\n").encode()


def make_workbook(root: Path, files: dict[str, bytes], *, checkout: bool = True) -> Workbook:
    """A workbook under `root` that holds exactly `files`."""
    for folder in ("notebooks", "exercises"):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for path in (root / folder).iterdir():
            path.unlink()
    for name, data in files.items():
        (root / name).write_bytes(data)
    return Workbook(root, checkout=checkout)


def edit(path: Path, text: str) -> None:
    """Add a cell with `text`, as a learner does."""
    content = json.loads(path.read_bytes())
    content["cells"].append(
        {"cell_type": "markdown", "id": "mine", "metadata": {}, "source": [text]}
    )
    path.write_text(json.dumps(content))


def run(path: Path, output: str) -> None:
    """Run every cell and save: outputs, counts, metadata, and the empty cell at the end."""
    content = json.loads(path.read_bytes())
    for count, cell in enumerate(content["cells"]):
        cell["metadata"] = {"execution": {"iopub.status.busy": str(count)}}
        if cell["cell_type"] == "code":
            cell["execution_count"] = count
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": output}]
    content["cells"].append(
        {
            "cell_type": "code",
            "id": f"empty-{len(content['cells'])}",
            "metadata": {},
            "execution_count": None,
            "source": [],
            "outputs": [],
        }
    )
    content["metadata"] = {"kernelspec": {"name": "python3"}, "widgets": {}}
    path.write_text(json.dumps(content))


LESSON, EXERCISE = "notebooks/00_start_here.ipynb", "exercises/01_anatomy.ipynb"


def version(number: int) -> dict[str, bytes]:
    return {
        LESSON: notebook(f"lesson v{number}", "print(1)", outputs=("delivered",)),
        EXERCISE: notebook(f"exercise v{number}", "raise NotImplementedError"),
    }


def actions(delivery: Delivery) -> dict[str, str]:
    return {outcome.name: outcome.action for outcome in delivery.outcomes}


def visible(work: Path) -> set[str]:
    found = {path.relative_to(work).as_posix() for path in work.rglob("*") if path.is_file()}
    return found - {MANIFEST_NAME}
