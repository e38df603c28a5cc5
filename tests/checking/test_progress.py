"""The progress file: two writers at once, killed writers, damage, export, import, reset."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import filelock
import pytest
from hypothesis import HealthCheck, given, settings

from slmlab.checking import CorruptProgress, ProgressError, ProgressFile
from slmlab.checking.logbook import ExerciseRecord, Logbook
from slmlab.checking.progress_file import progress_path
from tests.checking.test_logbook import logbooks

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def store(tmp_path: Path) -> ProgressFile:
    return ProgressFile(tmp_path / "here" / "progress.json")


def start(*arguments: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "tests.checking.writer", *arguments]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})


def rows(store: ProgressFile) -> dict[str, ExerciseRecord]:
    return dict(store.read().exercises)


def test_two_processes_at_once_lose_nothing(store: ProgressFile) -> None:
    count = 60
    writers = [start("many", str(store.path), topic, str(count)) for topic in ("left", "right")]
    assert [writer.wait(timeout=600) for writer in writers] == [0, 0]
    found = rows(store)
    wanted = {f"{topic}.e{i}" for topic in ("left", "right") for i in range(count)}
    assert set(found) == {*wanted, "shared.one"}
    assert all(found[key].outcome == "passed" for key in wanted)
    assert all(found[key].hint_rung == 1 + int(key.split(".e")[1]) % 3 for key in wanted)
    assert found["shared.one"].attempts == 2 * count
    assert [p.name for p in store.path.parent.iterdir() if p.suffix == ".tmp"] == []


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_process_killed_before_the_replace_leaves_the_old_file(store: ProgressFile) -> None:
    store.record_outcome("kept.one", "passed", 1.0)
    before = store.path.read_bytes()
    assert start("die", str(store.path)).wait(timeout=60) == -signal.SIGKILL
    left = [p for p in store.path.parent.iterdir() if p.suffix == ".tmp"]
    assert len(left) == 1 and b"dying.one" in left[0].read_bytes()
    assert store.path.read_bytes() == before
    assert set(rows(store)) == {"kept.one"}
    assert not left[0].exists()
    store.record_outcome("later.one", "passed", 1.0)
    assert set(rows(store)) == {"kept.one", "later.one"}


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize("delay", [0.0, 0.003, 0.011])
def test_a_process_killed_anywhere_keeps_what_it_stored(store: ProgressFile, delay: float) -> None:
    told = Path(f"{store.path}.told")
    writer = start("busy", str(store.path))
    deadline = time.monotonic() + 300
    while not told.exists() or not told.read_text():
        assert time.monotonic() < deadline and writer.poll() is None
        time.sleep(0.01)
    time.sleep(delay)
    writer.kill()
    writer.wait()
    said = int(told.read_text() or 0)
    assert rows(store)["busy.one"].attempts >= max(said, 1)


DAMAGE = {
    "cut short": b'{"schema": 1, "exercises": {"a.b"',
    "empty": b"",
    "binary": b"\xff\xfe\x00\x01",
    "a list": b"[]",
    "no schema": b"{}",
    "NaN": b'{"schema": 1, "exercises": {}, "predictions": {"p": NaN}}',
    "bad record": b'{"schema": 1, "exercises": {"a.b": 3}, "predictions": {}}',
    "deep": b"[" * 100_000,
    "twice": b'{"schema": 1, "schema": 1, "exercises": {}, "predictions": {}}',
    "long int": b'{"schema": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("raw", [raw for raw in DAMAGE.values() if raw])
def test_damage_is_named_and_kept_aside(store: ProgressFile, raw: bytes) -> None:
    store.path.parent.mkdir()
    for number in (1, 2):
        store.path.write_bytes(raw)
        with pytest.raises(CorruptProgress) as caught:
            store.record_outcome("a.b", "passed", 1.0)
        message = str(caught.value)
        assert str(store.path) in message and f"progress.json.corrupt-{number}" in message
        assert "import" in message and "\n" not in message
        assert Path(f"{store.path}.corrupt-{number}").read_bytes() == raw
        assert not store.path.exists()
    store.record_outcome("a.b", "passed", 1.0)
    assert rows(store)["a.b"].outcome == "passed"


@pytest.mark.parametrize("raw", [b"", b" \n"])
def test_an_empty_file_is_a_fresh_one(store: ProgressFile, raw: bytes) -> None:
    store.path.parent.mkdir()
    store.path.write_bytes(raw)
    assert store.read() == Logbook() and store.path.read_bytes() == raw
    store.record_outcome("a.b", "passed", 1.0)
    assert set(rows(store)) == {"a.b"}
    assert {p.name for p in store.path.parent.iterdir()} <= {"progress.json", "progress.json.lock"}


def test_a_newer_file_is_left_alone(store: ProgressFile) -> None:
    store.path.parent.mkdir()
    store.path.write_text('{"schema": 99}')
    with pytest.raises(ProgressError, match="Update slmlab"):
        store.record_outcome("a.b", "passed", 1.0)
    assert store.path.read_text() == '{"schema": 99}'
    assert {p.name for p in store.path.parent.iterdir()} <= {"progress.json", "progress.json.lock"}


def test_a_folder_in_its_place_is_one_sentence(store: ProgressFile) -> None:
    store.path.mkdir(parents=True)
    with pytest.raises(ProgressError, match="SLMLAB_PROGRESS"):
        store.read()
    assert store.path.is_dir()


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ProgressError, match="SLMLAB_PROGRESS"):
        ProgressFile(tmp_path / "file" / "progress.json").read()


def test_a_held_lock_ends_in_a_sentence(
    store: ProgressFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The name slmlab.checking.progress is the dashboard; the module is in sys.modules.
    monkeypatch.setattr(sys.modules[ProgressFile.__module__], "LOCK_SECONDS", 0.05)
    store.path.parent.mkdir()
    with filelock.FileLock(f"{store.path}.lock"), pytest.raises(ProgressError, match="lock"):
        store.read()


def test_the_best_stays(store: ProgressFile) -> None:
    store.record_outcome("a.b", "unattempted", 0.0)
    assert store.read().exercise("a.b").attempts == 0
    store.record_outcome("a.b", "wrong", 0.5)
    store.record_outcome("a.b", "passed", 1.0)
    passed_at = store.read().exercise("a.b").passed_at
    store.record_outcome("a.b", "error", 0.0)
    record = store.read().exercise("a.b")
    assert (record.outcome, record.credit, record.attempts) == ("passed", 1.0, 3)
    assert passed_at is not None and record.passed_at == passed_at


def test_export_and_import(store: ProgressFile, tmp_path: Path) -> None:
    store.record_outcome("a.b", "passed", 1.0)
    exported = store.export_to(tmp_path / "mine.json")
    with pytest.raises(ValueError, match="overwrite=True"):
        store.export_to(exported)
    with pytest.raises(ValueError, match="itself"):
        store.export_to(store.path, overwrite=True)
    other = ProgressFile(tmp_path / "other.json")
    other.record_outcome("a.c", "wrong", 0.25)
    other.import_from(exported)
    other.import_from(exported)
    assert rows(other)["a.b"] == rows(store)["a.b"] and rows(other)["a.c"].credit == 0.25


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mine=logbooks, theirs=logbooks)
def test_import_is_the_merge(mine: Logbook, theirs: Logbook, tmp_path: Path) -> None:
    here, there = ProgressFile(tmp_path / "here.json"), ProgressFile(tmp_path / "there.json")
    here.update(lambda _: mine)
    there.update(lambda _: theirs)
    here.import_from(there.export_to(tmp_path / "export.json", overwrite=True))
    assert here.read() == mine.merged(theirs)


@pytest.mark.parametrize("raw", DAMAGE.values(), ids=DAMAGE)
def test_a_bad_import_changes_nothing(store: ProgressFile, tmp_path: Path, raw: bytes) -> None:
    store.record_outcome("a.b", "passed", 1.0)
    before, bad = store.path.read_bytes(), tmp_path / "bad.json"
    bad.write_bytes(raw)
    with pytest.raises(ProgressError, match=r"bad\.json is not a slmlab progress export"):
        store.import_from(bad)
    assert store.path.read_bytes() == before and bad.read_bytes() == raw


def test_a_missing_import_and_a_newer_one(store: ProgressFile, tmp_path: Path) -> None:
    with pytest.raises(ProgressError, match=r"nowhere\.json.*Check the path"):
        store.import_from(tmp_path / "nowhere.json")
    (tmp_path / "new.json").write_text('{"schema": 2}')
    with pytest.raises(ProgressError, match="Update slmlab"):
        store.import_from(tmp_path / "new.json")


def test_reset_one_and_all(store: ProgressFile) -> None:
    for name in ("a.one", "a.two"):
        store.record_outcome(name, "passed", 1.0)
    with pytest.raises(ValueError, match=r"Did you mean 'a\.one'"):
        store.reset("a.on")
    assert set(store.reset("a.one").exercises) == {"a.two"}
    assert set(rows(store)) == {"a.two"}
    store.reset()
    assert store.read() == Logbook()


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("record_outcome", ("a.b", "great", 1.0)),
        ("record_outcome", ("a.b", "passed", 1.5)),
        ("record_hint", ("a.b", 0)),
        ("record_hint", ("a.b", 4)),
    ],
)
def test_bad_arguments(store: ProgressFile, call: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError):
        getattr(store, call)(*arguments)
    assert not store.path.exists()


def test_the_path_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SLMLAB_PROGRESS", str(tmp_path / "x.json"))
    assert progress_path() == tmp_path / "x.json"
    monkeypatch.setenv("SLMLAB_PROGRESS", "  ")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert progress_path().name == "progress.json" and progress_path().parent.name == "slmlab"


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "real.json")
    ProgressFile(link).record_outcome("a.b", "passed", 1.0)
    assert link.is_symlink()
    assert "a.b" in json.loads((tmp_path / "real.json").read_text())["exercises"]
