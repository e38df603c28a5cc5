"""Delivered notebooks hold no outputs, and differ from the stored ones in nothing else."""

import json
from pathlib import Path

import nbformat
import pytest

from slmlab.cli import workspace
from slmlab.cli.cleared import cleared
from slmlab.cli.fingerprint import fingerprint
from slmlab.cli.workbook import find_workbook
from slmlab.cli.workspace import deliver
from tests.cli.trees import bare, edit, make_workbook, notebook, run

LESSON, EXERCISE = "notebooks/00_start_here.ipynb", "exercises/01_anatomy.ipynb"
STORED = {
    LESSON: notebook("lesson", "print(1)", outputs=("an answer",)),
    EXERCISE: notebook("exercise", outputs=("another answer",)),
}


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A work folder that an older slmlab filled, outputs and all."""
    work = tmp_path / "work"
    with monkeypatch.context() as patch:
        patch.setattr(workspace, "cleared", lambda name, data: data)
        deliver(make_workbook(tmp_path / "repo", STORED), work)
    assert (work / LESSON).read_bytes() == STORED[LESSON]
    return work


def bring(work: Path, files: dict[str, bytes] = STORED) -> dict[str, str]:
    delivery = deliver(make_workbook(work.parent / "repo", files), work)
    return {outcome.name: outcome.action for outcome in delivery.outcomes}


def test_every_lesson_of_the_workbook(tmp_path: Path) -> None:
    workbook = find_workbook()
    deliver(workbook, tmp_path)
    for name, path in workbook.files().items():
        data = (tmp_path / name).read_bytes()
        if not name.endswith(".ipynb"):
            assert data == path.read_bytes()
            continue
        wanted = nbformat.reads(path.read_text("utf-8"), as_version=nbformat.NO_CONVERT)
        for cell in wanted.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        text = nbformat.writes(wanted, version=nbformat.NO_CONVERT) + "\n"
        assert data == text.encode(), name
        nbformat.validate(nbformat.reads(text, as_version=4))


def test_what_holds_no_outputs_is_returned_byte_for_byte() -> None:
    plain = b'{"cells": [ {"cell_type": "markdown", "source": "x"} ]}'
    for data in (plain, b"{", b"[]", b"\xff", b'{"cells": 3}', b"[" * 100_000, notebook("x")):
        assert cleared("a.ipynb", data) == data
    assert cleared("a.json", STORED[LESSON]) == STORED[LESSON]


def test_counts_go_and_letters_stay() -> None:
    content = json.loads(notebook("größer 作 \u2028", outputs=("x",)))
    content["cells"][0]["execution_count"] = 7
    data = json.dumps(content, ensure_ascii=False, indent=1).encode()
    content["cells"][0].update(outputs=[], execution_count=None)
    assert cleared("a.ipynb", data) == json.dumps(content, ensure_ascii=False, indent=1).encode()
    assert fingerprint("a.ipynb", data).source == fingerprint("a.ipynb", bare(data)).source


def test_outputs_of_an_older_delivery_are_replaced(older: Path) -> None:
    assert bring(older) == {LESSON: "replaced", EXERCISE: "replaced"}
    assert all((older / name).read_bytes() == bare(data) for name, data in STORED.items())
    assert len(list(older.rglob("*.ipynb"))) == 2
    assert set(bring(older).values()) == {"current"}


def test_an_older_delivery_that_was_run_or_edited_stays(older: Path) -> None:
    run(older / LESSON, "mine")
    edit(older / EXERCISE, "my answer")
    before = {name: (older / name).read_bytes() for name in STORED}
    bring(older)
    assert before == {name: (older / name).read_bytes() for name in STORED}


def test_the_same_outputs_after_a_run_are_the_learners(older: Path) -> None:
    bring(older)
    for name, data in STORED.items():
        (older / name).write_bytes(data)  # a run that prints what the author's printed
    assert set(bring(older).values()) == {"current"}
    assert all((older / name).read_bytes() == data for name, data in STORED.items())
    newer = {LESSON: notebook("lesson 2"), EXERCISE: notebook("exercise 2")}
    assert bring(older, newer) == {LESSON: "replaced", EXERCISE: "kept"}
    previous = (older / LESSON).with_suffix(".previous.ipynb")
    assert previous.read_bytes() == STORED[LESSON]
    assert (older / EXERCISE).read_bytes() == STORED[EXERCISE]
