"""A work folder in trouble: corrupt manifests, crashes half-way, folders that cannot be used."""

import os
from pathlib import Path

import pytest

from slmlab.cli.fingerprint import fingerprint
from slmlab.cli.manifest import load_manifest, write_atomic
from slmlab.cli.workbook import MANIFEST_NAME, Workbook, default_work_folder, find_workbook
from slmlab.cli.workspace import deliver
from tests.cli.trees import (
    EXERCISE,
    LESSON,
    actions,
    bare,
    edit,
    make_workbook,
    run,
    version,
    visible,
)

CORRUPT = [
    b"",
    b"{",
    b"\xff\xfe\x00",
    b"[]",
    b'{"version": 99, "files": {}}',
    b'{"version": 1, "files": []}',
    b'{"version": 1, "files": {"notebooks/00_start_here.ipynb": {"delivered": 3}}}',
    b'{"version": 1, "files": {"notebooks/00_start_here.ipynb": {"surprise": ""}}}',
    b'{"version": 1, "files": {"notebooks/00_start_here.ipynb": {"delivered": {"a": [1]}}}}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("content", CORRUPT, ids=range(len(CORRUPT)))
def test_a_corrupt_manifest_loses_nothing(root: Path, work: Path, content: bytes) -> None:
    deliver(make_workbook(root, version(1)), work)
    edit(work / EXERCISE, "mine")
    run(work / LESSON, "my output")
    before = {name: (work / name).read_bytes() for name in (LESSON, EXERCISE)}
    (work / MANIFEST_NAME).write_bytes(content)
    delivery = deliver(make_workbook(root, version(2)), work)
    assert delivery.manifest_was_unreadable
    assert actions(delivery) == {LESSON: "kept", EXERCISE: "kept"}
    assert before == {name: (work / name).read_bytes() for name in before}
    assert (work / ".slmlab-manifest.unreadable.json").read_bytes() == content
    again = deliver(make_workbook(root, version(2)), work)
    assert not again.manifest_was_unreadable
    assert set(actions(again).values()) == {"current"}


@pytest.mark.parametrize("step", range(1, 7))
def test_a_crash_half_way_leaves_every_file_whole(
    root: Path, work: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    deliver(make_workbook(root, version(1)), work)
    edit(work / EXERCISE, "mine")
    run(work / LESSON, "my output")
    before = {name: (work / name).read_bytes() for name in (LESSON, EXERCISE)}
    real, calls = os.replace, []

    def crash(source, target):
        calls.append(target)
        if len(calls) == step:
            raise OSError(28, "No space left on device", str(target))
        real(source, target)

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="No space left"):
        deliver(make_workbook(root, version(2)), work)
    monkeypatch.undo()
    whole = {*before.values(), *map(bare, version(2).values())}
    for name in visible(work):
        assert not name.endswith(".tmp")
        assert (work / name).read_bytes() in whole
    deliver(make_workbook(root, version(2)), work)
    kept = {(work / name).read_bytes() for name in visible(work)}
    assert set(before.values()) <= kept
    assert (work / LESSON).read_bytes() == bare(version(2)[LESSON])
    assert (work / EXERCISE).with_suffix(".new.ipynb").read_bytes() == bare(version(2)[EXERCISE])
    assert len(visible(work)) == 4  # no second .new or .previous


def test_crash_test_covers_every_write(
    root: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the parametrisation above must not end before the writes do
    deliver(make_workbook(root, version(1)), work)
    edit(work / EXERCISE, "mine")
    run(work / LESSON, "my output")
    real, calls = os.replace, []

    def count(source, target):
        calls.append(target)
        real(source, target)

    monkeypatch.setattr(os, "replace", count)
    deliver(make_workbook(root, version(2)), work)
    # manifest, manifest before the offer, offer, previous, lesson, manifest
    assert len(calls) == 6


def test_a_first_delivery_that_crashed_goes_on(
    root: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace

    def crash(source, target):
        if str(target).endswith("00_start_here.ipynb"):
            raise OSError(5, "Input/output error", str(target))
        real(source, target)

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError):
        deliver(make_workbook(root, version(1)), work)
    monkeypatch.undo()
    # the file that crashed counts as never delivered, the others as delivered, by a newer version
    deliver(make_workbook(root, version(2)), work)
    assert visible(work) == {LESSON, EXERCISE}
    assert all((work / name).read_bytes() == bare(data) for name, data in version(2).items())


@pytest.mark.parametrize("inside", ["notebooks", "notebooks/work", "exercises/a/b", ".git", "."])
def test_a_work_folder_among_the_sources_is_refused(root: Path, inside: str) -> None:
    workbook = make_workbook(root, version(1))
    (root / ".git").mkdir()
    before = visible(root)
    with pytest.raises(ValueError, match="choose another folder"):
        deliver(workbook, root / inside)
    assert visible(root) == before


def test_a_link_back_to_the_sources_is_refused(root: Path, work: Path) -> None:
    workbook = make_workbook(root, version(1))
    work.mkdir()
    (work / "notebooks").symlink_to(root / "notebooks", target_is_directory=True)
    with pytest.raises(ValueError, match="lies inside"):
        deliver(workbook, work)


def test_inside_an_installed_package_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "site-packages/slmlab/_workbook"
    workbook = make_workbook(root, version(1), checkout=False)
    with pytest.raises(ValueError, match="lies inside"):
        deliver(workbook, root.parent / "work")


@pytest.mark.parametrize("obstacle", ["", "notebooks"])
def test_a_file_where_a_folder_goes_is_one_clear_error(
    root: Path, work: Path, obstacle: str
) -> None:
    path = work / obstacle if obstacle else work
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("not a folder")
    with pytest.raises(ValueError, match="is a file, not a folder"):
        deliver(make_workbook(root, version(1)), work / "deeper" if not obstacle else work)
    assert path.read_text() == "not a folder"


def test_a_folder_where_a_lesson_goes_is_one_clear_error(root: Path, work: Path) -> None:
    (work / LESSON).mkdir(parents=True)
    with pytest.raises(ValueError, match="is a folder where a lesson goes"):
        deliver(make_workbook(root, version(1)), work)


def test_a_copy_inside_the_checkout_is_untracked(root: Path) -> None:
    deliver(make_workbook(root, version(1)), root / "my copy")
    assert (root / "my copy/.gitignore").read_text() == "*\n"


def test_a_copy_elsewhere_is_the_learners_to_track(root: Path, work: Path) -> None:
    deliver(make_workbook(root, version(1)), work)
    assert not (work / ".gitignore").exists()


def test_default_folder(tmp_path: Path) -> None:
    root, home = tmp_path / "repo", tmp_path / "home"
    (root / "notebooks").mkdir(parents=True)
    home.mkdir()
    clone, installed = Workbook(root, checkout=True), Workbook(root, checkout=False)
    assert default_work_folder(clone, root) == root / "work"
    assert default_work_folder(clone, root / "notebooks") == root / "work"
    assert default_work_folder(clone, home) == home / "slmlab-work"
    assert default_work_folder(installed, home) == home / "slmlab-work"
    (home / MANIFEST_NAME).write_text("{}")
    assert default_work_folder(installed, home) == home


def test_find_workbook(tmp_path: Path) -> None:
    package = tmp_path / "slmlab"
    package.mkdir()
    with pytest.raises(ValueError, match="lessons are missing"):
        find_workbook(package)
    (package / "_workbook/notebooks").mkdir(parents=True)
    assert find_workbook(package) == Workbook(package / "_workbook", checkout=False)
    (tmp_path / "notebooks").mkdir()
    assert find_workbook(package) == Workbook(tmp_path, checkout=True)


def test_write_atomic_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source, target):
        raise KeyboardInterrupt

    (tmp_path / "x").write_bytes(b"old")
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "x", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_manifest_round_trip(root: Path, work: Path) -> None:
    deliver(make_workbook(root, version(1)), work)
    manifest = load_manifest(work)
    lesson = fingerprint(LESSON, version(1)[LESSON])
    assert manifest.entries[LESSON].delivered == {lesson.source: [""]}
    assert manifest.entries[LESSON].base == lesson.source
