"""Handouts of chosen exercises: the workbook's own cells, blank, in order, with a date."""

import hashlib
import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbgrader import nbgraderformat
from typer.testing import CliRunner

from slmlab.checking import registry
from slmlab.cli.main import app
from slmlab.cli.workbook import find_workbook
from slmlab.grading import inside
from slmlab.grading.choose import assigned_exercises
from slmlab.grading.collect import collect, flags_of
from slmlab.grading.collect.named import ids_in
from slmlab.grading.pack import open_pack, read_due, release
from slmlab.grading.pack.cutting import _WITHOUT_CHECKS
from slmlab.grading.pack.due import due_words

ROOT = find_workbook().root
WORKBOOK = sorted((ROOT / "exercises").glob("*.ipynb"))
DUE = datetime(2026, 5, 1, 18, 0)
IDS = [
    name
    for path in WORKBOOK
    for name in ids_in(
        "\n".join(
            "".join(cell["source"])
            for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
            if cell["cell_type"] == "code"
        )
    )
]


def read(path: Path) -> list[dict[str, Any]]:
    notebook = nbgraderformat.read(path, as_version=4)  # nbgrader's own reader checks its metadata
    nbformat.validate(notebook)
    return list(notebook.cells)


def by_id(folder: str, name: str) -> dict[str, dict[str, Any]]:
    return {cell["id"]: cell for cell in read(ROOT / folder / name)}


def ids_of(cells: list[dict[str, Any]]) -> list[str]:
    return [
        name for cell in cells if cell["cell_type"] == "code" for name in ids_in(cell["source"])
    ]


def test_chosen_exercises_of_two_lessons(tmp_path: Path) -> None:
    wanted = ["quantization.unpack_repair", "kv.bytes", "quantization.absmax_int8"]
    made = release(wanted, tmp_path, DUE, workbook=WORKBOOK, title="Week 1")
    order = ["quantization.absmax_int8", "quantization.unpack_repair", "kv.bytes"]
    assert [item.id for item in made.exercises] == order
    names = ["02_quantization.ipynb", "04_kv_cache.ipynb", "assignment.json"]
    assert [path.name for path in made.files] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    found = []
    for name in names[:2]:
        first, *cells = read(tmp_path / name)
        theirs = by_id("exercises", name)
        assert "**Due: Friday, 1 May 2026, 18:00.**" in first["source"]
        assert first["source"].startswith("# Week 1: ")
        for cell in cells:
            if cell["id"].endswith("x001"):  # the lesson's title and its count are gone
                assert theirs[cell["id"]]["source"].endswith(cell["source"])
            else:
                assert cell == theirs[cell["id"]], "a cell is not the workbook's"
        places = list(theirs)
        assert [cell["id"] for cell in cells] == sorted(
            (cell["id"] for cell in cells), key=places.index
        )
        found += ids_of(cells)
    assert found == order
    sources = "\n".join(cell["source"] for cell in read(tmp_path / names[0]))
    assert "def unpack_as_found" in sources, "what an exercise needs comes along"
    assert "Eight exercises" not in sources
    content = json.loads((tmp_path / "assignment.json").read_text())
    specs = [registry.get(name) for name in order]
    assert [entry["id"] for entry in content["exercises"]] == order
    assert [entry["points"] for entry in content["exercises"]] == [item.points for item in specs]
    assert content["points"] == made.points == sum(item.points for item in specs)
    assert content["due"] == "2026-05-01T18:00"
    assert content["versions"]["slmlab"]
    for name, digest in content["notebooks"].items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("exercise_id", IDS)
def test_every_exercise_can_be_handed_out_alone(tmp_path: Path, exercise_id: str) -> None:
    made = release([exercise_id], tmp_path, DUE, workbook=WORKBOOK)
    cells = json.loads(made.files[0].read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells]
    code = [text for text, cell in zip(texts, cells) if cell["cell_type"] == "code"]
    assert ids_in("\n".join(code)) == [exercise_id]
    title = registry.get(exercise_id).title
    assert any(text.startswith("## ") for text in texts), "its question is missing"
    assert texts[0].count(title) == 1
    assert any("import exercise" in text for text in code)


def test_what_comes_back_solved_is_found_in_the_order_of_the_assignment(tmp_path: Path) -> None:
    release(["paging", "start", "kv.bytes"], tmp_path / "out", DUE, workbook=WORKBOOK)
    ids = assigned_exercises(tmp_path / "out" / "assignment.json")
    assert list(ids) == [
        "start.softmax",
        "kv.bytes",
        *(item.id for item in registry.exercises("paging")),
    ]
    for path in (tmp_path / "out").glob("*.ipynb"):
        content = json.loads(path.read_text(encoding="utf-8"))
        solved = by_id("solutions", path.name)
        for cell in content["cells"]:
            if "nbgrader" in cell["metadata"]:
                cell["source"] = solved[cell["id"]]["source"]
        target = tmp_path / "in" / "anna" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(content))
    (found,) = collect(tmp_path / "in", ids)
    assert flags_of(found, ids) == {} and found.flags == ()


def test_the_same_release_twice_is_the_same(tmp_path: Path) -> None:
    for name in ("a", "b"):
        release(["kv"], tmp_path / name, DUE, workbook=WORKBOOK)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_a_pack_that_is_not_installed(pack: Path, tmp_path: Path) -> None:
    with open_pack(pack) as opened:
        made = release(
            ["my_drills", "start.softmax"], tmp_path / "out", DUE, workbook=WORKBOOK, packs=[opened]
        )
    assert [item.id for item in made.exercises] == [
        "start.softmax",
        "my_drills.running_mean",
        "my_drills.clip_norm",
    ]
    cells = read(tmp_path / "out" / "my_drills.ipynb")
    blanks = [cell for cell in cells if cell["cell_type"] == "code" and ids_in(cell["source"])]
    for cell in blanks:
        assert "NotImplementedError" in cell["source"] and "torch." not in cell["source"]
        assert cell["metadata"]["nbgrader"]["solution"] is True
        assert cell["metadata"]["deletable"] is False
    assert "SOLUTION" not in (tmp_path / "out" / "my_drills.ipynb").read_text()
    content = json.loads((tmp_path / "out" / "assignment.json").read_text())
    assert content["versions"]["my-drills"] == "0.1.0"


def test_without_the_pack_functions_run_unchecked_and_in_the_sandbox_nothing_changes(
    pack: Path, tmp_path: Path
) -> None:
    source = _WITHOUT_CHECKS.format(topics=["my_drills"])
    with open_pack(pack):
        namespace: dict[str, Any] = {"exercise": "ours"}
        exec(source, namespace)
    assert namespace["exercise"] == "ours"
    exec(source, namespace)
    assert namespace["exercise"]("my_drills.clip_norm")(len) is len
    (tmp_path / "cell.py").write_text(
        f"from slmlab import exercise\nbefore = exercise\n{source}\nassert exercise is before\n"
        "import slmlab\nprint(slmlab.__file__)"
    )
    stub = Path(inside.__file__).parent / "stub"
    done = subprocess.run(
        [sys.executable, str(tmp_path / "cell.py")],
        env=os.environ | {"PYTHONPATH": str(stub)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith(str(stub))


def test_refusals(pack: Path, tmp_path: Path) -> None:
    def refused(words: str, wanted: list[str], **options: Any) -> None:
        usual: dict[str, Any] = {"workbook": WORKBOOK, "out": tmp_path / "out", "due": DUE}
        with pytest.raises(ValueError, match=words):
            release(wanted, **(usual | options))

    refused("IDS is empty", [])
    refused("Did you mean 'kv.bytes'", ["kv.byte"])
    refused("No handout has a cell for kv.bytes", ["kv.bytes"], workbook=[])
    refused("is a file", ["kv.bytes"], out=pack / "README.md")
    handout = pack / "handout.py"
    text = handout.read_text()
    handout.write_text(
        text.replace("    ### BEGIN SOLUTION\n", "").replace("    ### END SOLUTION\n", "")
    )
    with open_pack(pack) as opened:
        refused("clip_norm is not blank", ["my_drills.clip_norm"], packs=[opened])
    assert not (tmp_path / "out").exists()
    release(["start"], tmp_path / "out", DUE, workbook=WORKBOOK)
    refused("holds 00_start_here.ipynb, assignment.json already", ["start"])
    release(["start"], tmp_path / "out", DUE, workbook=WORKBOOK, overwrite=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2026-05-01", "Friday, 1 May 2026, 23:59"),
        ("2026-12-31T08:05", "Thursday, 31 December 2026, 08:05"),
        ("2024-02-29 18:00+02:00", "Thursday, 29 February 2024, 18:00 (UTC+02:00)"),
    ],
)
def test_dates(text: str, words: str) -> None:
    assert due_words(read_due(text)) == words


@pytest.mark.parametrize("text", ["", "tomorrow", "1.5.2026", "2026-02-30", "20260501", "2026-05"])
def test_no_dates(text: str) -> None:
    with pytest.raises(ValueError, match="--due"):
        read_due(text)


def test_the_command(pack: Path, tmp_path: Path) -> None:
    def call(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, ["release", *arguments])
        assert result.exit_code == code, result.output
        return result.output

    out = tmp_path / "out"
    options = ["--out", str(out), "--due", "2026-05-01"]
    shown = call(
        "kv.bytes,start", "my_drills", "--pack", str(pack), *options, "--hand-in", "Push it."
    )
    assert "4 exercises" in shown
    assert "Push it." in read(out / "my_drills.ipynb")[0]["source"]
    assert "already" in call("start", *options, code=1)
    assert "--due" in call("start", "--out", str(out), "--due", "soon", code=1)
    assert registry.topics().count("my_drills") == 0
