"""Random histories of a work folder: upstream changes, edits, runs, deletions, crashes.

A history may begin under an older slmlab, which delivered notebooks with their outputs.

The invariant needs no model of `deliver`: whatever text or output of the learner's was in the
folder before an update is in the folder after it, and edited files are byte for byte the same.
"""

import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slmlab.cli import workspace
from slmlab.cli.cleared import cleared
from slmlab.cli.fingerprint import fingerprint
from slmlab.cli.workbook import MANIFEST_NAME
from slmlab.cli.workspace import deliver
from tests.cli.trees import bare, edit, make_workbook, notebook, run

NAMES = ("notebooks/01_anatomy.ipynb", "exercises/01_anatomy.ipynb")


class History:
    """One learner, one work folder, one upstream; `act` does one thing that can happen."""

    def __init__(self, older: bool) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(os, "fsync", lambda handle: None)  # no power is cut here
        self.older = older
        if older:
            self.patch.setattr(workspace, "cleared", lambda name, data: data)
        self.work = self.folder / "my work ü"
        self.versions = dict.fromkeys(NAMES, 1)
        self.refreshed = dict.fromkeys(NAMES, 1)
        self.past: dict[str, int] = {}
        self.marks = 0
        self.deleted: set[str] = set()
        self.manifest_lost = False
        self.maybe_deleted: set[str] = set()
        self.manifest_is_current = True
        self.bring(replace=True, restore=False)

    def end(self) -> None:
        self.patch.undo()
        shutil.rmtree(self.folder, ignore_errors=True)

    def upstream(self) -> dict[str, bytes]:
        return {
            name: notebook(
                f"# {name} v{number}",
                f"print({number})",
                outputs=(f"upstream v{self.refreshed[name]}",),
            )
            for name, number in self.versions.items()
        }

    def present(self) -> dict[str, bytes]:
        return {
            path.relative_to(self.work).as_posix(): path.read_bytes()
            for path in sorted(self.work.rglob("*.ipynb"))
        }

    def new_mark(self, kind: str) -> str:
        self.marks += 1
        return f"{kind}-{self.marks}-{kind}"

    @staticmethod
    def marked(data: bytes) -> set[str]:
        return set(re.findall(r"TEXT-\d+-TEXT|OUTPUT-\d+-OUTPUT", data.decode()))

    def act(self, action: str, pick: int) -> None:
        """Do `action`; `pick` chooses the file and the variant. What cannot happen is skipped."""
        name = NAMES[pick % 2]
        files = sorted(self.present())
        offers = [file for file in files if ".new" in file]
        if action == "publish":
            self.publish(NAMES if pick % 3 == 0 else (name,))
            self.bring(replace=pick % 5 != 0, restore=pick % 7 == 0)
        elif action == "refresh":
            self.refreshed[name] += 1
            self.bring(replace=True, restore=False)
        elif action == "upgrade" and self.older:
            self.upgrade()
        elif action == "retire" and len(self.versions) > 1:
            self.retire(pick)
        elif action in ("edit", "run", "delete") and files:
            self.touch(files[pick % len(files)], action)
        elif action in ("edit offer", "run offer") and offers:
            self.touch(offers[pick % len(offers)], action.split()[0])
        elif action == "take":
            self.take_the_offer(name)
        elif action == "crash":
            self.publish(NAMES)
            self.bring_and_crash(1 + pick % 6)
        elif action == "lose":
            self.lose_the_manifest((b"", b"{", b'{"version": 1, "files": [1]}', None)[pick % 4])

    def publish(self, chosen: tuple[str, ...]) -> None:
        for name in chosen:
            self.versions[name] = self.versions.get(name, self.past.get(name, 0)) + 1

    def upgrade(self) -> None:
        self.older = False
        self.patch.setattr(workspace, "cleared", cleared)
        self.bring(replace=True, restore=False)

    def retire(self, pick: int) -> None:
        # a lesson that comes back under its old name continues with its next version
        gone = sorted(self.versions)[pick % len(self.versions)]
        self.past[gone] = self.versions.pop(gone)

    def touch(self, name: str, what: str) -> None:
        path = self.work / name
        if what == "edit":
            edit(path, self.new_mark("TEXT"))
        elif what == "run":
            run(path, self.new_mark("OUTPUT"))
        else:
            path.unlink()
            if name in NAMES:
                # a deletion that the manifest cannot tell from "never delivered" may be undone
                (self.deleted if self.manifest_is_current else self.maybe_deleted).add(name)

    def take_the_offer(self, name: str) -> None:
        offer = (self.work / name).with_suffix(".new.ipynb")
        if offer.exists():
            os.replace(offer, self.work / name)
            self.deleted.discard(name)
            self.maybe_deleted.discard(name)

    def lose_the_manifest(self, content: bytes | None) -> None:
        path = self.work / MANIFEST_NAME
        if content is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(content)
        self.manifest_lost = True
        self.manifest_is_current = False
        self.maybe_deleted |= self.deleted
        self.deleted.clear()

    def bring(self, replace: bool, restore: bool) -> None:
        before = self.present()
        workbook = make_workbook(self.folder / "repo", self.upstream(), checkout=True)
        deliver(workbook, self.work, replace=replace, restore=restore)
        self.manifest_is_current = True
        after = self.present()
        self.nothing_of_the_learners_is_lost(before, after)
        if restore:
            self.deleted -= set(self.versions)
            self.maybe_deleted -= set(self.versions)
        assert not self.deleted & set(after), "a deleted file came back"
        for name, data in self.upstream().items():
            if name not in after:
                assert name in self.deleted | self.maybe_deleted, f"{name} was not delivered"
                continue
            untouched = not self.marked(after[name]) and not self.manifest_lost
            if replace and untouched:
                wanted = data if self.older else bare(data)
                assert fingerprint(name, after[name]) == fingerprint(name, wanted), name
        deliver(workbook, self.work, replace=replace)
        assert self.present() == after, "a second run changed something"

    def bring_and_crash(self, step: int) -> None:
        before = self.present()
        workbook = make_workbook(self.folder / "repo", self.upstream(), checkout=True)
        real, calls = os.replace, []

        def crash(source, target):
            calls.append(target)
            if len(calls) >= step:
                raise OSError(28, "No space left on device", str(target))
            real(source, target)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "replace", crash)
            try:
                deliver(workbook, self.work)
                self.manifest_is_current = True
            except OSError:
                self.manifest_is_current = False
        self.nothing_of_the_learners_is_lost(before, self.present())
        assert not list(self.work.rglob("*.tmp"))

    def nothing_of_the_learners_is_lost(
        self, before: dict[str, bytes], after: dict[str, bytes]
    ) -> None:
        for name, data in before.items():
            marks = self.marked(data)
            begun = marks and name.startswith("exercises/")
            if begun or any(mark.startswith("TEXT") for mark in marks):
                assert after[name] == data, f"{name} is the learner's and changed"
            if marks:
                assert data in after.values(), f"{marks} of {name} are gone"


# Weights: most of a history is versions coming in over what the learner does.
ACTIONS = (
    ["publish"] * 5
    + ["edit", "run", "run offer", "edit offer"] * 2
    + ["delete", "take", "refresh", "retire", "crash", "crash", "lose", "upgrade"]
)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    st.booleans(),
    st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 419)), min_size=12, max_size=25),
)
def test_no_history_loses_anything_of_the_learners(
    older: bool, trace: list[tuple[str, int]]
) -> None:
    history = History(older)
    try:
        for action, pick in trace:
            history.act(action, pick)
    finally:
        history.end()
