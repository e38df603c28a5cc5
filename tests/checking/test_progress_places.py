"""Places that cannot hold progress: devices, folders, loops, no such user, read-only."""

import errno
import os
import stat
from pathlib import Path
from typing import Any

import filelock
import pytest

from slmlab.checking import (
    CorruptProgress,
    ProgressError,
    ProgressFile,
    calibration_plot,
    exercise,
    hint,
    measured,
    predict,
    progress,
)
from slmlab.checking.logbook import Logbook
from slmlab.checking.progress_file import progress_path
from tests.checking.fake_topic import INT8, absmax_int8

POSIX = pytest.mark.skipif(os.name != "posix", reason="devices, pipes and links of POSIX")
ANYTHING = b"not progress at all"


def use(monkeypatch: pytest.MonkeyPatch, place: Path | str) -> None:
    monkeypatch.setenv("SLMLAB_PROGRESS", str(place))


@POSIX
@pytest.mark.parametrize("linked", [False, True])
def test_nothing_is_recorded_in_the_null_device(
    linked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: Any) -> None:
        raise AssertionError(f"{paths} would be renamed")

    monkeypatch.setattr(os, "replace", refuse)
    place = Path(os.devnull)
    if linked:
        place = tmp_path / "link.json"
        place.symlink_to(os.devnull)
    store = ProgressFile(place)
    assert store.record_outcome("a.b", "passed", 1.0).exercise("a.b").outcome == "passed"
    assert store.read() == store.peek() == Logbook()
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    assert not Path(f"{os.devnull}.lock").exists()


@POSIX
@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
def test_only_a_plain_file_is_touched(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path("/dev/zero") if kind == "device" else tmp_path / kind / "it"
    if kind != "device":
        place.parent.mkdir()
    if kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    before = place.lstat()

    def refuse(*paths: Any) -> None:
        raise AssertionError(f"{paths} would be renamed")

    monkeypatch.setattr(os, "replace", refuse)
    store, good = ProgressFile(place), ProgressFile(tmp_path / "good.json")
    for call in (store.read, store.peek, lambda: store.record_hint("a.b", 1)):
        with pytest.raises(ProgressError, match=f"{place}.*Set SLMLAB_PROGRESS") as caught:
            call()
        assert not isinstance(caught.value, CorruptProgress)
    with pytest.raises(ProgressError, match="Choose a file"):
        good.export_to(place, overwrite=True)
    after = place.lstat()
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)
    assert not Path(f"{place}.lock").exists()


@POSIX
def test_paths_that_lead_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = tmp_path / "loop.json"
    loop.symlink_to(loop)
    store = ProgressFile(tmp_path / "good.json")
    for place in (str(loop), "~no-such-user-here/p.json"):
        use(monkeypatch, place)
        with pytest.raises(ProgressError, match="Set SLMLAB_PROGRESS"):
            ProgressFile().read()
        with pytest.raises(ProgressError):
            store.export_to(place)
        with pytest.raises(ProgressError, match="Check the path"):
            store.import_from(place)
    with pytest.raises(ProgressError, match="no such home folder"):
        progress_path()
    with pytest.raises(ProgressError, match="Cannot use"):
        ProgressFile("a\0b")


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> ProgressFile:
    """The learner's file with one exercise in it, where no lock can be made any more."""
    store = ProgressFile()
    store.record_outcome(INT8, "passed", 1.0)

    def refuse(self: Any, *_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    return store


def test_a_read_only_place_can_be_read(read_only: ProgressFile) -> None:
    assert read_only.read().exercise(INT8).outcome == "passed"
    with pytest.raises(ProgressError, match="Read-only"):
        read_only.record_hint(INT8, 1)
    read_only.path.write_bytes(ANYTHING)
    with pytest.raises(ProgressError, match="damaged"):
        read_only.read()
    assert read_only.path.read_bytes() == ANYTHING


def lesson(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What each call of a lesson says."""
    calls: dict[str, Any] = {
        "exercise": lambda: exercise(INT8)(absmax_int8),
        "hint": lambda: hint(INT8),
        "hint again": lambda: hint(INT8),
        "predict": lambda: predict("speed", 3.0, "tok/s"),
        "measured": lambda: measured("speed", 6.0),
        "progress": progress,
        "plot": calibration_plot,
    }
    said = {}
    for name, call in calls.items():
        capsys.readouterr()
        call()
        said[name] = capsys.readouterr().out
    return said


def check_lesson(said: dict[str, str]) -> None:
    for name, words in {
        "exercise": "[+] passed",
        "hint": "Hint 1 of 3",
        "hint again": "Hint 2 of 3",
        "predict": "your prediction is 3 tok/s",
        "measured": "you predicted 3 tok/s, measured 6 tok/s",
        "progress": "exercises passed",
    }.items():
        assert words in said[name], name


@POSIX
@pytest.mark.parametrize("kind", ["folder", "loop", "no user", "under a file"])
def test_a_broken_place_stops_no_lesson(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / f"{kind}.json"
    if kind == "folder":
        place.mkdir()
    elif kind == "loop":
        place.symlink_to(place)
    elif kind == "under a file":
        place.write_text("")
        place = place / "progress.json"
    use(monkeypatch, "~no-such-user-here/p.json" if kind == "no user" else place)
    said = lesson(capsys)
    check_lesson(said)
    for name, text in said.items():
        assert "Progress: Cannot use" in text and "Set SLMLAB_PROGRESS" in text, name
    assert "only until this kernel stops" in said["predict"]


def test_a_read_only_place_stops_no_lesson(
    read_only: ProgressFile, capsys: pytest.CaptureFixture[str]
) -> None:
    before = read_only.path.read_bytes()
    said = lesson(capsys)
    check_lesson(said)
    assert "Read-only" in said["predict"] and "Read-only" in said["measured"]
    assert "Progress:" not in said["progress"]
    assert read_only.path.read_bytes() == before


def test_what_was_kept_is_stored_when_the_place_is_mended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "p.json"
    use(monkeypatch, place)
    place.mkdir()
    predict("speed", 3.0)
    place.rmdir()
    capsys.readouterr()
    assert measured("speed", 6.0).ratio == 2.0
    assert "Progress:" not in capsys.readouterr().out
    assert ProgressFile().read().prediction("speed").measured == 6.0


@pytest.mark.parametrize("call", ["predict", "measured", "progress", "plot", "hint", "exercise"])
def test_damage_is_told_once_and_a_fresh_file_takes_over(
    call: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(os.environ["SLMLAB_PROGRESS"])
    path.write_bytes(ANYTHING)
    calls: dict[str, Any] = {
        "predict": lambda: predict("x", 3.0),
        "measured": lambda: measured("x", 3.0),
        "progress": progress,
        "plot": calibration_plot,
        "hint": lambda: hint(INT8),
        "exercise": lambda: exercise(INT8)(absmax_int8),
    }
    calls[call]()
    said = capsys.readouterr().out
    assert said.count("is damaged") == 1 and "progress.json.corrupt-1" in said
    assert Path(f"{path}.corrupt-1").read_bytes() == ANYTHING
    calls[call]()
    assert "damaged" not in capsys.readouterr().out
