"""Bring lessons and exercises into a learner's work folder without ever losing an edit.

Notebooks arrive without outputs (see `cleared`): the first numbers in a learner's copy are the
learner's. What happens to a file of which slmlab has a new version:

- Its cells hold only delivered text and it was not run: it is replaced.
- A lesson with delivered text that the learner ran: it is replaced, and the run copy stays beside
  it as NAME.previous.ipynb, because its outputs are the learner's.
- Edited text, or an exercise that was run: it stays, and the new version is written beside it as
  NAME.new.ipynb. That copy is under the same rule: once edited, it is never written again.
- Deleted by the learner: it stays deleted unless `restore` is asked for.
- A file that has the new text already keeps the learner's outputs. Outputs that an older slmlab
  delivered are nobody's: such a copy, not edited nor run, is replaced by the one without.

Nothing is ever deleted. Without a readable manifest nothing counts as delivered, so that every
file that differs from the new version is treated as edited.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from slmlab.cli.cleared import cleared
from slmlab.cli.fingerprint import Fingerprint, fingerprint, sha256
from slmlab.cli.manifest import Entry, Manifest, load_manifest, write_atomic
from slmlab.cli.workbook import Workbook, check_work_folder


@dataclass(frozen=True)
class Outcome:
    """What happened to one file: `name` is its relative posix path, `note` a sentence or "".

    action: added, restored, replaced, kept, current, waiting, deleted or retired.
    """

    name: str
    action: str
    note: str = ""


@dataclass(frozen=True)
class Delivery:
    """The outcomes of one run, and whether the folder's manifest had to be set aside."""

    outcomes: tuple[Outcome, ...]
    manifest_was_unreadable: bool

    def count(self, *actions: str) -> int:
        """How many files had one of `actions`."""
        return sum(outcome.action in actions for outcome in self.outcomes)


@dataclass(frozen=True)
class _File:
    """One delivered file, its place in the work folder and its entry in the manifest."""

    name: str
    data: bytes
    mark: Fingerprint
    target: Path
    entry: Entry

    def own_outputs(self, mine: Fingerprint) -> bool:
        """Whether the copy with fingerprint `mine` holds outputs that nobody delivered."""
        return mine.outputs not in ("", *self.entry.delivered.get(mine.source, ()))

    def intend(self) -> None:
        """Note that this version is about to be written."""
        outputs = self.entry.delivered.setdefault(self.mark.source, [])
        if self.mark.outputs not in outputs:
            outputs.append(self.mark.outputs)

    def write(self) -> None:
        write_atomic(self.target, self.data)
        self.record()

    def record(self) -> None:
        # What an older slmlab delivered is gone from here: the same outputs are now a run's.
        self.entry.delivered[self.mark.source] = [self.mark.outputs]
        self.entry.base = self.mark.source
        self.entry.file = sha256(self.data)


def _beside(target: Path, label: str) -> Iterator[Path]:
    """NAME.label.ipynb, NAME.label-2.ipynb, ... without end."""
    yield target.with_name(f"{target.stem}.{label}{target.suffix}")
    number = 2
    while True:
        yield target.with_name(f"{target.stem}.{label}-{number}{target.suffix}")
        number += 1


def _keep_previous(target: Path, data: bytes) -> Path:
    """Put the learner's run copy `data` beside `target`; a copy that is there is never touched."""
    for path in _beside(target, "previous"):
        if not path.exists():
            write_atomic(path, data)
            return path
        if path.read_bytes() == data:
            return path
    raise AssertionError("unreachable: the names do not end")


def _offer(file: _File, work: Path, manifest: Manifest) -> Path:
    """Write the new version beside an edited file, over an untouched earlier offer at most."""
    for path in _beside(file.target, "new"):
        name = path.relative_to(work).as_posix()
        offer = _File(name, file.data, file.mark, path, manifest.entry(name))
        if path.exists():
            there = fingerprint(name, path.read_bytes())
            if there.source == file.mark.source:
                return path
            if there.source not in offer.entry.delivered or offer.own_outputs(there):
                continue
        offer.intend()
        manifest.save(work)
        offer.write()
        return path
    raise AssertionError("unreachable: the names do not end")


def _deliver_missing(file: _File, restore: bool) -> Outcome:
    if file.entry.file and not restore:
        return Outcome(file.name, "deleted", "you deleted it; `slmlab update --restore` brings it")
    action = "restored" if file.entry.file else "added"
    file.write()
    return Outcome(file.name, action)


def _update_present(file: _File, work: Path, manifest: Manifest, replace: bool) -> Outcome:
    data = file.target.read_bytes()
    mine = fingerprint(file.name, data)
    entry, new = file.entry, file.mark
    edited, ran = mine.source not in entry.delivered, file.own_outputs(mine)
    untouchable = edited or (ran and file.name.startswith("exercises/"))
    note = "edited by you" if edited else ""
    if mine.source == new.source:
        saved = entry.file == sha256(file.data) and not mine.outputs
        if ran or data == file.data or saved:
            file.record()
            return Outcome(file.name, "current")
    elif untouchable and new.source in (entry.base, entry.offered):
        entry.file = sha256(file.data)
        return Outcome(file.name, "current", note)
    if not replace:
        return Outcome(file.name, "waiting", "`slmlab update` brings the new version")
    if untouchable:
        beside = _offer(file, work, manifest)
        entry.offered, entry.file = new.source, sha256(file.data)
        why = "you edited it" if edited else "you ran it"
        return Outcome(file.name, "kept", f"{why}; the new version is {beside.name}")
    note = f"the copy that you ran is {_keep_previous(file.target, data).name}" if ran else ""
    file.write()
    return Outcome(file.name, "replaced", note)


def deliver(
    workbook: Workbook, work: Path, *, replace: bool = True, restore: bool = False
) -> Delivery:
    """Bring the files of `workbook` into the folder `work`, by the rules above.

    replace: False only adds files that were never delivered (`slmlab lab`). restore: bring back
    files that the learner deleted. Raises ValueError for a folder that cannot be used, OSError
    where the system refuses; every file is whole then, and running again goes on.
    """
    check_work_folder(workbook, work)
    work.mkdir(parents=True, exist_ok=True)
    work = work.resolve()
    if workbook.checkout and work.is_relative_to(workbook.root.resolve()):
        ignore = work / ".gitignore"  # a copy anywhere in the checkout stays untracked
        if not ignore.exists():
            write_atomic(ignore, b"*\n")
    manifest = load_manifest(work)
    unreadable = manifest.unreadable
    files = []
    for name, path in workbook.files().items():
        data = cleared(name, path.read_bytes())
        mark = fingerprint(name, data)
        files.append(_File(name, data, mark, work / name, manifest.entry(name)))
    outcomes = []
    retired = set(manifest.entries) - {file.name for file in files}
    for file in files:
        if file.target.is_dir():
            raise ValueError(f"{file.target} is a folder where a lesson goes: move it away.")
        file.intend()
    # The intention is on disk before the first file is: after a crash half-way the next run
    # knows the files that were written and does not take them for edits.
    manifest.save(work)
    for file in files:
        if file.target.exists():
            outcomes.append(_update_present(file, work, manifest, replace))
        else:
            outcomes.append(_deliver_missing(file, restore))
    manifest.save(work)
    outcomes += [
        Outcome(name, "retired", "no longer part of the workbook; yours to keep or delete")
        for name in sorted(retired)
        if ".new" not in Path(name).stem and (work / name).exists()
    ]
    return Delivery(tuple(outcomes), unreadable)
