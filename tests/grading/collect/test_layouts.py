"""Whose notebook it is, in every layout that submissions are downloaded in."""

import hashlib
import os
import unicodedata
import zipfile
from pathlib import Path

import pytest

from slmlab.grading.collect import collect
from slmlab.grading.records import Submission
from tests.grading.collect.handing_in import IDS, cell, notebook, notebook_3, put, zipped

RIGHT, WRONG = notebook(cell(IDS[0], "return 'right'")), notebook(cell(IDS[0], "return 'wrong'"))
OLD, NEW = 1_700_000_000.0, 1_700_001_000.0


def by_name(folder: Path, exercises: tuple[str, ...] | None = None) -> dict[str, Submission]:
    found = collect(folder, exercises)
    names = [each.student for each in found]
    assert len(set(names)) == len(names)
    assert names == sorted(names, key=lambda name: (name.casefold(), name))
    return {each.student: each for each in found}


def text(submission: Submission) -> str:
    assert submission.problem is None, submission.problem
    return "\n".join(each.source for each in submission.cells)


def test_a_folder_a_zip_and_a_notebook_a_student(tmp_path: Path) -> None:
    put(tmp_path / "zoe" / "02.ipynb", RIGHT)
    put(tmp_path / "zoe" / "data.csv", b"1,2")
    zipped(tmp_path / "Bob Smith.zip", {"hw/02.ipynb": RIGHT})
    put(tmp_path / "anna.m.ipynb", RIGHT)
    put(tmp_path / "README.md", b"read me")
    put(tmp_path / "roster.csv", b"name")
    found = by_name(tmp_path)
    assert list(found) == ["anna.m", "Bob Smith", "zoe"]
    assert [each.source for each in found.values()] == [
        "anna.m.ipynb",
        "Bob Smith.zip/hw/02.ipynb",
        "zoe/02.ipynb",
    ]
    for each in found.values():
        assert each.sha256 == hashlib.sha256(RIGHT).hexdigest()
        assert each.flags == ()
        assert [(c.number, c.source) for c in each.cells] == [(1, cell(IDS[0], "return 'right'"))]
    assert found["zoe"].cells[0].notebook == "02.ipynb"
    assert found["Bob Smith"].cells[0].notebook == "hw/02.ipynb"
    assert found["anna.m"].cells[0].notebook == "anna.m.ipynb"


def test_canvas(tmp_path: Path) -> None:
    # the clock says the opposite of what Canvas' file numbers say: it is the time of unpacking
    put(tmp_path / "doejane_1234_9001_hw.ipynb", WRONG, NEW)
    put(tmp_path / "doejane_1234_9002_hw-1.ipynb", RIGHT, OLD)
    put(tmp_path / "doejane_77_9003_hw.ipynb", RIGHT)
    put(tmp_path / "roekim_LATE_5678_9004_hw.ipynb", RIGHT)
    zipped(tmp_path / "muellerjo_99_9005_work.zip", {"02.ipynb": RIGHT})
    put(tmp_path / "nobody_11_text.html", b"<p>here it is</p>")
    put(tmp_path / "nobody_12_9006_hw.pdf", b"%PDF")
    put(tmp_path / "two_13_9007_first.ipynb", WRONG, NEW)
    put(tmp_path / "two_13_9008_second.ipynb", RIGHT, OLD)
    found = by_name(tmp_path)
    assert set(found) == {
        *("doejane_1234", "doejane_77", "roekim_5678", "muellerjo_99"),
        *("nobody_11", "nobody_12", "two_13"),
    }
    assert "right" in text(found["doejane_1234"])
    assert found["doejane_1234"].flags == ("2 submissions, latest taken",)
    assert found["doejane_77"].flags == ()
    assert found["roekim_5678"].flags == ("late",)
    assert "right" in text(found["muellerjo_99"])
    assert "right" in text(found["two_13"]) and "wrong" not in text(found["two_13"])
    assert found["two_13"].flags == ("2 submissions, latest taken",)
    assert "is no notebook" in (found["nobody_11"].problem or "")
    assert "hw.pdf is no notebook" in (found["nobody_12"].problem or "")


def test_canvas_gives_two_lessons_of_one_student(tmp_path: Path) -> None:
    put(tmp_path / "doejane_1234_9002_10_b.ipynb", notebook(cell(IDS[1])))
    put(tmp_path / "doejane_1234_9003_2_a.ipynb", notebook(cell(IDS[0])))
    (found,) = collect(tmp_path)
    assert found.flags == ()
    assert [each.source for each in found.cells] == [cell(IDS[1]), cell(IDS[0])]


def test_moodle(tmp_path: Path) -> None:
    put(tmp_path / "Ana Núñez_12345_assignsubmission_file_" / "hw.ipynb", RIGHT)
    put(tmp_path / "Ana Núñez_12345_assignsubmission_onlinetext_" / "onlinetext.html", b"<p>")
    zipped(tmp_path / "O'Hara, Tim_12_assignsubmission_file_" / "hw.zip", {"02.ipynb": RIGHT})
    put(tmp_path / "Flat One_13_assignsubmission_file_hw.ipynb", RIGHT)
    found = by_name(tmp_path)
    assert set(found) == {"Ana Núñez_12345", "O'Hara, Tim_12", "Flat One_13"}
    assert all("right" in text(each) and not each.flags for each in found.values())


def test_github_classroom(tmp_path: Path) -> None:
    root = tmp_path / "hw-2-submissions"
    for user in ("octo-cat", "octo-dog"):
        put(root / f"hw-2-{user}" / "02_quantization.ipynb", RIGHT)
        put(root / f"hw-2-{user}" / ".git" / "HEAD", b"ref")
        put(root / f"hw-2-{user}" / ".git" / "hidden.ipynb", WRONG)
        put(root / f"hw-2-{user}" / "README.md", b"#")
    found = by_name(root)
    assert set(found) == {"octo-cat", "octo-dog"}
    assert found["octo-cat"].source == "hw-2-octo-cat/02_quantization.ipynb"
    os.rename(root, tmp_path / "elsewhere")
    assert set(by_name(tmp_path / "elsewhere")) == {"hw-2-octo-cat", "hw-2-octo-dog"}


def test_a_clone_of_the_workbook_with_its_published_solutions(tmp_path: Path) -> None:
    put(tmp_path / "ann" / "exercises" / "02.ipynb", WRONG)
    put(tmp_path / "ann" / "solutions" / "02.ipynb", RIGHT)
    put(tmp_path / "ann" / "notebooks" / "02.ipynb", notebook("import slmlab"))
    put(tmp_path / "bob" / "solutions" / "02.ipynb", RIGHT)
    found = by_name(tmp_path, IDS)
    assert "right" not in text(found["ann"])
    assert found["ann"].flags == (
        "1 notebook without these exercises left out",
        "solutions/ left out",
    )
    assert "right" in text(found["bob"])


@pytest.mark.parametrize("wrapped", [True, False])
def test_all_of_it_in_one_zip(tmp_path: Path, wrapped: bool) -> None:
    before = "class-7/" if wrapped else ""
    inner = zipped(tmp_path / "inner.zip", {"02.ipynb": RIGHT}).read_bytes()
    members = {
        f"{before}anna/02.ipynb": RIGHT,
        f"{before}bob.ipynb": RIGHT,
        f"{before}cleo.zip": inner,
        f"{before}dan/hw.zip": inner,
        f"__MACOSX/{before}._bob.ipynb": b"\x00\x05",
    }
    if wrapped:
        del members[f"{before}bob.ipynb"]
    found = by_name(zipped(tmp_path / "class-7.zip", members))
    assert set(found) == {"anna", "cleo", "dan"} | (set() if wrapped else {"bob"})
    assert all("right" in text(each) for each in found.values())


def test_two_submissions_of_one_student_the_latest_is_taken(tmp_path: Path) -> None:
    put(tmp_path / "anna" / "hw.ipynb", WRONG, OLD)
    zipped(tmp_path / "anna.zip", {"hw.ipynb": RIGHT}, NEW)
    put(tmp_path / "bob" / "first.ipynb", RIGHT, NEW)
    put(tmp_path / "bob" / "second.ipynb", WRONG, OLD)
    put(tmp_path / "cleo" / "attempt 1" / "hw.ipynb", WRONG, OLD)
    put(tmp_path / "cleo" / "attempt 2" / "hw.ipynb", RIGHT, NEW)
    put(tmp_path / "dan" / "hw.ipynb", RIGHT, OLD)
    put(tmp_path / "dan" / "copy.ipynb", RIGHT, NEW)
    for each in (found := by_name(tmp_path)).values():
        assert "right" in text(each) and "wrong" not in text(each), each.student
    assert {name: each.flags for name, each in found.items()} == {
        "anna": ("2 submissions, latest taken",),
        "bob": ("2 submissions, latest taken",),
        "cleo": ("2 submissions, latest taken",),
        "dan": (),
    }


def test_two_of_the_same_time_are_both_read(tmp_path: Path) -> None:
    put(tmp_path / "anna" / "hw.ipynb", WRONG, OLD)
    put(tmp_path / "anna" / "work" / "hw.ipynb", RIGHT, OLD + 1)
    put(tmp_path / "bob.ipynb", WRONG, OLD)
    put(tmp_path / "bob" / "hw.ipynb", RIGHT, OLD)
    for each in by_name(tmp_path).values():
        assert "right" in text(each) and "wrong" in text(each)


def test_composed_and_decomposed_letters_are_one_student(tmp_path: Path) -> None:
    composed = unicodedata.normalize("NFC", "zoë")
    put(tmp_path / composed / "hw.ipynb", WRONG, OLD)
    put(tmp_path / unicodedata.normalize("NFD", "zoë") / "hw.ipynb", RIGHT, NEW)
    (found,) = collect(tmp_path)
    assert found.student == composed
    assert found.flags == ("2 submissions, latest taken",)
    assert "right" in text(found)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("line\nbreak", "line%0Abreak"),
        ("\u202egnp.exe", "%E2%80%AEgnp.exe"),
        (os.fsdecode(b"caf\xe9"), "caf%E9"),
        ("愛\u200d子 🙂", "愛%E2%80%8D子 🙂"),
        ("=cmd()", "=cmd()"),
        (" ", " "),
    ],
)
def test_names_that_cannot_be_printed(tmp_path: Path, name: str, shown: str) -> None:
    put(tmp_path / name / "hw.ipynb", RIGHT)
    (found,) = collect(tmp_path)
    assert found.student == shown
    assert found.source == f"{shown}/hw.ipynb"
    assert "right" in text(found)


def test_several_lessons_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    put(tmp_path / "anna" / "10_b.ipynb", notebook(cell(IDS[1])), OLD)
    put(tmp_path / "anna" / "2_a.ipynb", notebook(cell(IDS[0])), NEW)
    (found,) = collect(tmp_path)
    assert [each.notebook for each in found.cells] == ["2_a.ipynb", "10_b.ipynb"]
    assert found.source == "anna" and found.flags == ()
    hashes = [
        hashlib.sha256((tmp_path / "anna" / name).read_bytes()).hexdigest() + f"  anna/{name}\n"
        for name in ("2_a.ipynb", "10_b.ipynb")
    ]
    assert found.sha256 == hashlib.sha256("".join(hashes).encode()).hexdigest()


def test_only_notebooks_with_the_graded_exercises_count(tmp_path: Path) -> None:
    put(tmp_path / "anna" / "a.ipynb", notebook(cell(IDS[0])))
    put(tmp_path / "anna" / "b.ipynb", notebook(cell(IDS[1])))
    put(tmp_path / "bob" / "b.ipynb", notebook("print('nothing named')"))
    found = by_name(tmp_path, (IDS[1],))
    assert text(found["anna"]) == cell(IDS[1])
    assert found["anna"].flags == ("1 notebook without these exercises left out",)
    assert text(found["bob"]) == "print('nothing named')"


def test_format_3_and_metadata_of_other_editors(tmp_path: Path) -> None:
    put(tmp_path / "old.ipynb", notebook_3(cell(IDS[0]), "x = 1"))
    content = notebook(cell(IDS[0])).replace(
        b'"metadata": {}', b'"metadata": {"id": "x7", "outputId": "y", "vscode": {"id": 1}}'
    )
    put(tmp_path / "colab.ipynb", b"\xef\xbb\xbf" + content)
    found = by_name(tmp_path)
    assert found["old"].flags == ("nbformat 3",)
    assert [(each.number, each.source) for each in found["old"].cells] == [
        (0, cell(IDS[0])),
        (1, "x = 1"),
    ]
    assert text(found["colab"]) == cell(IDS[0])
    assert found["colab"].flags == ()


def test_caches_of_tools_are_left_out(tmp_path: Path) -> None:
    put(tmp_path / "anna" / "hw.ipynb", RIGHT, OLD)
    for place in (".ipynb_checkpoints", "__MACOSX", "venv/lib", "node_modules", "__pycache__"):
        put(tmp_path / "anna" / place / "hw.ipynb", WRONG, NEW)
    put(tmp_path / "anna" / "._hw.ipynb", WRONG, NEW)
    put(tmp_path / ".ipynb_checkpoints" / "x.ipynb", WRONG)
    put(tmp_path / ".DS_Store", b"\x00")
    (found,) = collect(tmp_path)
    assert text(found) == cell(IDS[0], "return 'right'") and found.flags == ()


def test_two_runs_give_the_same_list(tmp_path: Path) -> None:
    for name in ("b", "a", "C", "é", "10", "9"):
        put(tmp_path / name / "hw.ipynb", RIGHT)
    assert collect(tmp_path) == collect(tmp_path)
    assert [each.student for each in collect(tmp_path)] == ["10", "9", "a", "b", "C", "é"]


def test_nothing_to_collect_is_an_error_that_names_the_path_and_the_mend(tmp_path: Path) -> None:
    put(tmp_path / "empty" / ".hidden")
    put(tmp_path / "a.txt", b"x")
    put(tmp_path / "bad.zip", b"not a zip")
    with zipfile.ZipFile(tmp_path / "none.zip", "w"):
        pass
    for name, words in (
        ("absent", "does not exist"),
        ("empty", "holds no submission: put a folder"),
        ("a.txt", "neither a folder nor a zip"),
        ("bad.zip", "is no zip"),
        ("none.zip", "holds no submission"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            collect(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(TypeError, match="exercises must be a sequence"):
        collect(tmp_path, "start.softmax")
