"""Zips that mean harm, are broken, or are only odd."""

import io
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from slmlab.grading.collect import archive, collect, student, trimming
from slmlab.grading.collect.archive import ArchiveError, list_archive
from slmlab.grading.records import Submission
from tests.grading.collect.handing_in import IDS, cell, notebook, put, zipped

GOOD, OTHER = notebook(cell(IDS[0])), notebook(cell(IDS[0], "return 2"))


def row(tmp_path: Path) -> Submission:
    put(tmp_path / "neighbour" / "hw.ipynb", GOOD)
    before = sorted(path for path in tmp_path.rglob("*"))
    found = {each.student: each for each in collect(tmp_path)}
    assert sorted(path for path in tmp_path.rglob("*")) == before, "something was unpacked"
    assert set(found) == {"anna", "neighbour"}
    assert found["neighbour"].problem is None
    return found["anna"]


@pytest.mark.parametrize(
    "name", ["../hw.ipynb", "a/../../hw.ipynb", "/etc/hw.ipynb", "C:\\hw.ipynb", "..\\hw.ipynb"]
)
def test_paths_that_lead_out(tmp_path: Path, name: str) -> None:
    zipped(tmp_path / "anna.zip", {name: GOOD})
    assert (row(tmp_path).problem or "").endswith("has a path that leads out of the zip.")
    zipped(tmp_path / "anna.zip", {name: GOOD, "work\\own.ipynb": OTHER})
    found = row(tmp_path)
    assert found.source == "anna.zip/work/own.ipynb"
    assert [flag.endswith("leads out of the zip") for flag in found.flags] == [True]


def test_a_member_that_is_a_link(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "anna.zip", "w") as made:
        link = zipfile.ZipInfo("hw.ipynb")
        link.create_system = 3
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        made.writestr(link, str(put(tmp_path / "neighbour" / "hw.ipynb", GOOD)))
    assert row(tmp_path).problem == "anna.zip/hw.ipynb is a link, which is not followed."


def test_two_members_of_one_name(tmp_path: Path) -> None:
    with (
        pytest.warns(UserWarning, match="Duplicate name"),
        zipfile.ZipFile(tmp_path / "anna.zip", "w") as made,
    ):
        made.writestr("hw.ipynb", GOOD)
        made.writestr("hw.ipynb", OTHER)
    found = row(tmp_path)
    assert [each.source for each in found.cells] == [cell(IDS[0], "return 2")]
    assert found.flags == ("anna.zip/hw.ipynb stands in the zip twice, last one taken",)


def test_a_zip_in_a_folder_is_opened_and_a_zip_in_that_is_not(tmp_path: Path) -> None:
    inner = zipped(tmp_path / "x" / "inner.zip", {"hw.ipynb": GOOD}).read_bytes()
    (tmp_path / "x" / "inner.zip").unlink()
    (tmp_path / "x").rmdir()
    put(tmp_path / "anna" / "outer.zip", inner)
    assert row(tmp_path).source == "anna/outer.zip/hw.ipynb"
    zipped(tmp_path / "anna" / "outer.zip", {"inner.zip": inner})
    reason = "anna/outer.zip/inner.zip is a zip inside a zip, which is not opened."
    assert row(tmp_path).problem == reason


def _encrypted(data: bytes) -> bytes:
    """The same zip with the flag "encrypted" set in both lists."""
    changed = bytearray(data)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = changed.find(mark)
        changed[place + offset] |= 1
    return bytes(changed)


def _damaged(data: bytes) -> bytes:
    place = data.find(b"hw.ipynb") + 60
    return data[:place] + bytes(byte ^ 0x55 for byte in data[place : place + 8]) + data[place + 8 :]


def _wrong_sum(data: bytes) -> bytes:
    changed = bytearray(data)
    for mark, offset in ((b"PK\x03\x04", 14), (b"PK\x01\x02", 16)):
        changed[changed.find(mark) + offset] ^= 0xFF
    return bytes(changed)


def _unknown_method(data: bytes) -> bytes:
    changed = bytearray(data)
    for mark, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        place = changed.find(mark) + offset
        changed[place : place + 2] = struct.pack("<H", 77)
    return bytes(changed)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_encrypted, "hw.ipynb is encrypted"),
        (_damaged, "hw.ipynb is damaged"),
        (_wrong_sum, "hw.ipynb is damaged"),
        (_unknown_method, "hw.ipynb is damaged"),
        (lambda data: data[:-30], "is no zip"),
        (lambda data: data[: len(data) // 2], "is no zip"),
        (lambda data: b"", "is no zip"),
        (lambda data: b"PK\x05\x06" + b"\xff" * 18, "lists more than"),
        (lambda data: data[:-6] + b"\xff" * 6, "anna.zip"),
    ],
)
def test_broken_ones(tmp_path: Path, change, words: str) -> None:
    path = zipped(tmp_path / "anna.zip", {"hw.ipynb": GOOD})
    path.write_bytes(change(path.read_bytes()))
    found = row(tmp_path)
    assert words in (found.problem or ""), found.problem
    assert found.cells == ()


def test_a_bomb_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(student, "MAX_READ", 30 << 20)
    zipped(tmp_path / "anna.zip", {f"{n}.ipynb": b" " * (20 << 20) for n in range(4)})
    pieces: list[int] = []
    real = trimming._Scanner.more

    def counted(self: trimming._Scanner) -> bool:
        pieces.append(1)
        return real(self)

    monkeypatch.setattr(trimming._Scanner, "more", counted)
    found = row(tmp_path)
    assert found.problem is not None
    assert any("is too large" in flag for flag in (found.problem, *found.flags))
    assert len(pieces) < 40, "pieces of 1 MB: the limit is for all notebooks together"


def test_a_bomb_of_spaces_is_no_notebook_and_fills_no_memory(tmp_path: Path) -> None:
    zipped(tmp_path / "anna.zip", {"hw.ipynb": b" " * (40 << 20)})
    assert "holds more than 8 MB besides its outputs" in (row(tmp_path).problem or "")


def test_a_zip_inside_the_zip_of_the_class_is_copied_up_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(student, "MAX_ARCHIVE_BYTES", 1 << 20)
    inner = zipped(tmp_path / "inner.zip", {"hw.ipynb": GOOD}).read_bytes()
    large = inner + b"\0" * (3 << 20)
    found = collect(zipped(tmp_path / "class.zip", {"anna.zip": large, "bob.zip": inner}))
    assert [each.problem for each in found] == ["anna.zip is larger than 1 MB.", None]


def test_a_list_of_millions_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_LIST_BYTES", 10_000)
    small, large = io.BytesIO(), io.BytesIO()
    for file, count in ((small, 50), (large, 500)):
        with zipfile.ZipFile(file, "w") as made:
            for number in range(count):
                made.writestr(f"{number}.txt", b"")
    assert len(list_archive(small, (), 0.0)) == 50
    with pytest.raises(ArchiveError, match="lists more than"):
        list_archive(large, (), 0.0)


def _large_format(data: bytes, length: int | None = None) -> bytes:
    """The same zip with the second record of ZIP64 (APPNOTE 4.3.14), which overrides the first."""
    place = data.rfind(b"PK\x05\x06")
    count, size, offset = struct.unpack("<HLL", data[place + 10 : place + 20])
    record = struct.pack(
        "<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, length or size, offset
    )
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, place, 1)
    return data[:place] + record + locator + data[place:]


def test_a_long_list_in_the_large_format_is_not_read(tmp_path: Path) -> None:
    data = zipped(tmp_path / "a.zip", {"hw.ipynb": GOOD}).read_bytes()
    assert len(list_archive(io.BytesIO(_large_format(data)), (), 0.0)) == 1
    with pytest.raises(ArchiveError, match="lists more than"):
        list_archive(io.BytesIO(_large_format(data, 1 << 30)), (), 0.0)


def test_times_that_no_calendar_knows(tmp_path: Path) -> None:
    path = zipped(tmp_path / "anna.zip", {"hw.ipynb": GOOD})
    data = bytearray(path.read_bytes())
    place = data.find(b"PK\x01\x02")
    data[place + 12 : place + 16] = b"\xff\xff\x00\x00"
    path.write_bytes(data)
    assert row(tmp_path).problem is None
