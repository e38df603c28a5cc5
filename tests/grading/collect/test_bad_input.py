"""Whatever is handed in: a row with a reason, and the others' rows beside it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from slmlab.grading.collect import collect, folder, student
from slmlab.grading.records import Submission
from tests.grading.collect.handing_in import IDS, as_json, cell, notebook, put, zipped

GOOD = notebook(cell(IDS[0]))


def row(tmp_path: Path, name: str = "anna") -> Submission:
    """The row of `name`; a neighbour's stands there unharmed."""
    put(tmp_path / "neighbour" / "hw.ipynb", GOOD)
    found = {each.student: each for each in collect(tmp_path)}
    assert set(found) == {name, "neighbour"}
    assert found["neighbour"].problem is None and len(found["neighbour"].cells) == 1
    assert all(each.isprintable() for each in (name, found[name].problem or "", *found[name].flags))
    return found[name]


BAD = {
    "empty file": (b"", "is an empty file"),
    "not JSON": (b"print('hello')", "is not JSON"),
    "cut short": (GOOD[:-20], "is not JSON"),
    "not UTF-8": (b'{"cells": ["\xff\xfe\xff"]}', "is not JSON"),
    "binary": (bytes(range(256)), "is not JSON"),
    "deep": (b"[" * 100_000, "nested too deeply"),
    "long number": (b'{"cells": [], "nbformat": ' + b"9" * 9999 + b"}", "is not JSON"),
    "a list": (b"[1, 2]", "is JSON but no notebook"),
    "a text": (b'"cells"', "is JSON but no notebook"),
    "no cells": (as_json(nbformat=4), "no list of cells"),
    "cells are a dict": (as_json(nbformat=4, cells={}), "no list of cells"),
    "nbformat 5": (as_json(nbformat=5, cells=[]), "nbformat 5"),
    "nbformat 2": (as_json(nbformat=2, worksheets=[]), "nbformat 2"),
    "format 3 without sheets": (as_json(nbformat=3, cells=[]), "no list of cells"),
    "no code": (as_json(nbformat=4, cells=[{"cell_type": "markdown", "source": "x"}]), "no code"),
    "no cell": (as_json(nbformat=4, cells=[]), "holds no code cell"),
    "only outputs": (as_json(nbformat=4, outputs=[]), "no list of cells"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_notebook(tmp_path: Path, kind: str) -> None:
    data, words = BAD[kind]
    put(tmp_path / "anna" / "hw.ipynb", data)
    found = row(tmp_path)
    assert found.problem is not None and words in found.problem
    assert found.problem.startswith("anna/hw.ipynb ") and found.problem.endswith(".")
    assert found.cells == ()


def test_a_broken_notebook_beside_a_good_one_is_a_flag(tmp_path: Path) -> None:
    put(tmp_path / "anna" / "a.ipynb", b"nothing")
    put(tmp_path / "anna" / "b.ipynb", GOOD)
    found = row(tmp_path)
    assert found.problem is None and len(found.cells) == 1
    assert found.source == "anna/b.ipynb"
    assert [flag.split(":")[0] for flag in found.flags] == [
        "anna/a.ipynb is not JSON, so no notebook"
    ]


def test_odd_cells_are_left_out_and_counted_but_keep_the_places_of_the_others(
    tmp_path: Path,
) -> None:
    cells = [
        None,
        {"cell_type": "code"},
        {"cell_type": "code", "source": ["x = 1\n", "y = 2"]},
        {"cell_type": "code", "source": [1]},
        {"cell_type": ["code"], "source": "z"},
        {"cell_type": "code", "source": "def broken(:\n\x00"},
        {"cell_type": "code", "source": "s = '\ud83d'"},
    ]
    put(tmp_path / "anna" / "hw.ipynb", json.dumps({"cells": cells, "nbformat": "4"}).encode())
    found = row(tmp_path)
    assert [(each.number, each.source) for each in found.cells] == [
        (2, "x = 1\ny = 2"),
        (5, "def broken(:\n\x00"),
        (6, "s = '\N{REPLACEMENT CHARACTER}'"),
    ]
    assert found.flags == ("no nbformat, read as 4", "4 malformed cells left out")


def test_something_else_than_a_notebook(tmp_path: Path) -> None:
    put(tmp_path / "anna" / "hw.py", b"print()")
    assert row(tmp_path).problem == "anna/hw.py is no notebook: hand in the .ipynb file."
    put(tmp_path / "anna" / "hw.rar", b"Rar!")
    assert (row(tmp_path).problem or "").startswith("anna/hw.rar is not opened")


def test_a_script_in_a_flat_folder(tmp_path: Path) -> None:
    put(tmp_path / "anna.py", b"print()")
    assert row(tmp_path).problem == "anna.py is no notebook: hand in the .ipynb file."


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "anna").mkdir()
    assert row(tmp_path).problem == "anna is empty: hand in the .ipynb file."
    put(tmp_path / "anna" / ".ipynb_checkpoints" / "hw.ipynb", GOOD)
    (tmp_path / "anna" / "work" / "inner").mkdir(parents=True)
    assert row(tmp_path).problem == "anna is empty: hand in the .ipynb file."


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = put(tmp_path / "outside" / "secret.ipynb", GOOD)
    root = tmp_path / "in"
    put(root / "anna" / "own.ipynb", notebook("own = 1"))
    os.symlink(outside, root / "anna" / "hw.ipynb")
    os.symlink(root / "neighbour", root / "anna" / "folder")
    os.symlink(root, root / "anna" / "loop")
    found = row(root)
    assert [each.source for each in found.cells] == ["own = 1"]
    assert len(found.flags) == 3
    assert all(flag.endswith("is a link, which is not followed") for flag in found.flags)


@pytest.mark.parametrize("name", ["dan.ann", "dan.ann.ipynb"])
def test_a_link_in_place_of_a_submission(tmp_path: Path, name: str) -> None:
    outside = put(tmp_path / "outside" / "secret.ipynb", GOOD)
    (tmp_path / "in").mkdir()
    os.symlink(outside if name.endswith("ipynb") else outside.parent, tmp_path / "in" / name)
    assert row(tmp_path / "in", "dan.ann").problem == f"{name} is a link, which is not followed."


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    (tmp_path / "anna").mkdir()
    os.mkfifo(tmp_path / "anna" / "hw.ipynb")
    assert row(tmp_path).problem == "anna/hw.ipynb is no regular file."


@pytest.mark.parametrize("swap", ["link", "pipe", "gone"])
def test_a_file_that_changes_its_kind_after_it_was_listed(tmp_path: Path, swap: str) -> None:
    path = put(tmp_path / "anna" / "hw.ipynb", GOOD)
    (entry,) = folder.list_folder(tmp_path)
    path.unlink()
    if swap == "link":
        path.symlink_to(put(tmp_path / "other.ipynb", GOOD))
    elif swap == "pipe":
        os.mkfifo(path)
    assert entry.open is not None
    with pytest.raises(OSError):
        entry.open().read()


def test_files_and_folders_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # patched, because these tests may run as a user whom no permission stops
    put(tmp_path / "anna" / "hw.ipynb", GOOD)
    put(tmp_path / "closed" / "hw.ipynb", GOOD)
    real_open, real_scan = os.open, os.scandir

    def opening(path: str, *rest: int) -> int:
        if "anna" in str(path):
            raise PermissionError(13, "Permission denied", path)
        return real_open(path, *rest)

    def scanning(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return real_scan(path)

    monkeypatch.setattr(folder.os, "open", opening)
    monkeypatch.setattr(folder.os, "scandir", scanning)
    found = {each.student: each.problem for each in collect(tmp_path)}
    assert found == {
        "anna": "anna/hw.ipynb cannot be read (Permission denied).",
        "closed": "closed cannot be read (Permission denied).",
    }


def test_folders_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "anna" / "/".join(["d"] * 60) / "hw.ipynb", GOOD)
    assert "folders deep" in (row(tmp_path).problem or "")
    monkeypatch.setattr(folder, "MAX_FILES", 20)
    for number in range(30):
        put(tmp_path / "anna" / f"{number}.txt")
    assert "holds more than 20 files" in (row(tmp_path).problem or "")


def test_an_error_that_nobody_thought_of_costs_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from slmlab.grading.collect import gather

    real = gather.read_student

    def failing(student: str, *rest: object) -> Submission:
        if student == "anna":
            raise MemoryError
        return real(student, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(gather, "read_student", failing)
    put(tmp_path / "anna" / "hw.ipynb", GOOD)
    assert row(tmp_path).problem == "anna could not be read (MemoryError)."


def test_too_many_notebooks_and_too_much_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = {"cell_type": "code", "source": "x = 1\n" * 400_000}
    put(tmp_path / "anna" / "hw.ipynb", as_json(nbformat=4, cells=[code]))
    assert "more than 2 MB of code" in (row(tmp_path).problem or "")
    (tmp_path / "anna" / "hw.ipynb").unlink()
    monkeypatch.setattr(student, "MAX_NOTEBOOKS", 5)
    zipped(tmp_path / "anna.zip", {f"{n}.ipynb": notebook(f"x = {n}") for n in range(8)})
    found = row(tmp_path)
    assert len(found.cells) == 5
    assert len(found.flags) == 3


LARGE = """
import resource, sys
from slmlab.grading.collect import collect
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
(found,) = collect(sys.argv[1])
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(len(found.cells), found.problem, (after - before) // 1024)
"""


@pytest.mark.parametrize(
    ("copies", "packed"),
    [
        (60, False),
        pytest.param(130, False, marks=pytest.mark.slow),
        pytest.param(130, True, marks=pytest.mark.slow),
    ],
)
def test_200_mb_of_outputs_are_read_in_little_memory(
    tmp_path: Path, copies: int, packed: bool
) -> None:
    output = {"output_type": "stream", "name": "stdout", "text": ["0123456789\n"] * 100_000}
    empty = GOOD.replace(b'"outputs": []', b'"outputs": [%s]')
    assert empty != GOOD
    text = json.dumps(output).encode()
    data = empty % b", ".join([text] * copies)
    assert len(data) > copies * 1_600_000
    if packed:
        zipped(tmp_path / "in" / "anna.zip", {"hw.ipynb": data})
    else:
        put(tmp_path / "in" / "anna" / "hw.ipynb", data)
    del data
    done = subprocess.run(
        [sys.executable, "-c", LARGE, str(tmp_path / "in")],
        capture_output=True,
        text=True,
        check=True,
    )
    cells, problem, megabytes = done.stdout.split()
    assert (cells, problem) == ("1", "None")
    assert int(megabytes) < 40, megabytes


def test_thousands_of_cells_are_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(student, "MAX_CELLS", 10)
    put(tmp_path / "anna" / "hw.ipynb", notebook(*[cell(IDS[0])] * 11))
    found = row(tmp_path)
    assert found.cells == () and "holds 11 code cells" in (found.problem or "")
