"""Control groups in folders that look like the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from slmlab.grading.records import Limits
from slmlab.grading.sandbox import cgroup


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A version 2 hierarchy in which this process stands at /user/grader."""
    own = tmp_path / "user" / "grader"
    own.mkdir(parents=True)
    for folder, controllers in (
        (tmp_path, "memory pids"),
        (tmp_path / "user", "memory pids"),
        (own, ""),
    ):
        (folder / "cgroup.controllers").write_text("memory pids")
        (folder / "cgroup.subtree_control").write_text(controllers)
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    monkeypatch.setattr(cgroup, "_membership", lambda: ["0::/user/grader"])
    return tmp_path


def test_version_2_is_made_where_the_controllers_are(tree: Path) -> None:
    group = cgroup.ControlGroup.create()
    assert group is not None and group.version == 2
    (folder,) = group.folders
    assert folder.parent == tree / "user"  # a group with processes hands no controllers on
    for name in ("memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cgroup.procs"):
        (folder / name).touch()
    (folder / "memory.events").write_text("low 0\noom_kill 2\n")
    (folder / "memory.current").write_text(str(5 << 20))
    assert group.limit(Limits(memory_mb=100, tmp_mb=8, processes=9))
    assert (folder / "memory.max").read_text() == str((100 + 8 + cgroup.HEADROOM_MB) << 20)
    assert (folder / "pids.max").read_text() == "9"
    assert group.add(123) and (folder / "cgroup.procs").read_text() == "123"
    assert group.used_mb() == 5
    assert not group.killed()
    (folder / "memory.events").write_text("low 0\noom_kill 3\n")
    assert group.killed()


def test_no_controllers_no_group(tree: Path) -> None:
    for folder in (tree, tree / "user"):
        (folder / "cgroup.subtree_control").write_text("cpu")
    assert cgroup.ControlGroup.create() is None


def test_a_refused_limit_is_told(tree: Path) -> None:
    group = cgroup.ControlGroup.create()
    assert group is not None
    assert not group.limit(Limits())  # the files are not there
    assert not group.add(1)
    group.close()
    assert not any(folder.exists() for folder in group.folders)


def test_close_waits_no_longer_than_it_must(tree: Path) -> None:
    group = cgroup.ControlGroup.create()
    assert group is not None
    group.close()
    group.close()


def test_groups_of_killed_graders_are_removed(tree: Path) -> None:
    dead, alive = tree / "user" / "slmlab-99999999-aa", tree / "user" / "slmlab-1-bb"
    for folder in (dead, alive):
        folder.mkdir()
    group = cgroup.ControlGroup.create()
    assert group is not None
    assert not dead.exists() and alive.exists()
    group.close()
