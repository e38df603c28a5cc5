"""`slmlab lab` and `slmlab update`: what is copied, what is kept, what is reported."""

import json
import os
from pathlib import Path

import pytest

from slmlab.cli.workspace import deliver
from tests.cli.trees import (
    EXERCISE,
    LESSON,
    actions,
    bare,
    edit,
    make_workbook,
    notebook,
    run,
    version,
    visible,
)


def test_first_delivery_is_byte_for_byte_but_for_outputs(root: Path, work: Path) -> None:
    files = version(1) | {"notebooks/picture.png": b"\x89PNG\r\n"}
    delivery = deliver(make_workbook(root, files), work, replace=False)
    assert set(actions(delivery).values()) == {"added"}
    assert visible(work) == set(files)
    assert (work / "notebooks/picture.png").read_bytes() == files["notebooks/picture.png"]
    assert all((work / name).read_bytes() == bare(files[name]) for name in (LESSON, EXERCISE))
    assert b"delivered" in (root / LESSON).read_bytes()  # the source keeps its outputs
    assert (work / LESSON).stat().st_mode & 0o777 == 0o644


def test_hidden_files_and_checkpoints_are_not_delivered(root: Path, work: Path) -> None:
    workbook = make_workbook(root, version(1))
    (root / "notebooks/.ipynb_checkpoints").mkdir()
    (root / "notebooks/.ipynb_checkpoints/x.ipynb").write_bytes(b"{}")
    (root / "notebooks/.hidden").write_bytes(b"")
    deliver(workbook, work)
    assert visible(work) == {LESSON, EXERCISE}


def test_unedited_files_are_replaced(root: Path, work: Path) -> None:
    deliver(make_workbook(root, version(1)), work)
    delivery = deliver(make_workbook(root, version(2)), work)
    assert set(actions(delivery).values()) == {"replaced"}
    assert all((work / name).read_bytes() == bare(data) for name, data in version(2).items())
    assert visible(work) == {LESSON, EXERCISE}


def test_lab_again_adds_new_lessons_and_changes_nothing_else(root: Path, work: Path) -> None:
    deliver(make_workbook(root, version(1)), work)
    files = version(2) | {"notebooks/02_quantization.ipynb": notebook("two")}
    delivery = deliver(make_workbook(root, files), work, replace=False)
    assert actions(delivery) == {
        LESSON: "waiting",
        EXERCISE: "waiting",
        "notebooks/02_quantization.ipynb": "added",
    }
    assert (work / LESSON).read_bytes() == bare(version(1)[LESSON])


@pytest.mark.parametrize("name", [LESSON, EXERCISE])
def test_an_edited_file_stays_and_the_new_version_lies_beside(
    root: Path, work: Path, name: str
) -> None:
    deliver(make_workbook(root, version(1)), work)
    edit(work / name, "my thoughts")
    mine = (work / name).read_bytes()
    delivery = deliver(make_workbook(root, version(2)), work)
    assert actions(delivery)[name] == "kept"
    assert (work / name).read_bytes() == mine
    beside = (work / name).with_suffix(".new.ipynb")
    assert beside.read_bytes() == bare(version(2)[name])
    assert any(beside.name in outcome.note for outcome in delivery.outcomes)
    again = deliver(make_workbook(root, version(2)), work)
    assert set(actions(again).values()) == {"current"}
    # an untouched offer is refreshed, an edited one is not
    deliver(make_workbook(root, version(3)), work)
    assert beside.read_bytes() == bare(version(3)[name])
    edit(beside, "thoughts on the new one")
    deliver(make_workbook(root, version(4)), work)
    assert b"thoughts on the new one" in beside.read_bytes()
    second = (work / name).with_suffix(".new-2.ipynb")
    assert second.read_bytes() == bare(version(4)[name])
    assert (work / name).read_bytes() == mine


def test_an_offer_that_was_run_keeps_its_outputs(root: Path, work: Path) -> None:
    deliver(make_workbook(root, version(1)), work)
    edit(work / LESSON, "mine")
    deliver(make_workbook(root, version(2)), work)
    run((work / LESSON).with_suffix(".new.ipynb"), "a figure of mine")
    deliver(make_workbook(root, version(3)), work)
    assert b"a figure of mine" in (work / LESSON).with_suffix(".new.ipynb").read_bytes()
    assert (work / LESSON).with_suffix(".new-2.ipynb").read_bytes() == bare(version(3)[LESSON])


def test_a_deleted_offer_is_not_made_twice(root: Path, work: Path) -> None:
    deliver(make_workbook(root, version(1)), work)
    edit(work / LESSON, "mine")
    deliver(make_workbook(root, version(2)), work)
    beside = (work / LESSON).with_suffix(".new.ipynb")
    beside.unlink()
    deliver(make_workbook(root, version(2)), work)
    assert not beside.exists()


def test_taking_the_offer_ends_the_edit(root: Path, work: Path) -> None:
    deliver(make_workbook(root, version(1)), work)
    edit(work / LESSON, "mine")
    deliver(make_workbook(root, version(2)), work)
    os.replace((work / LESSON).with_suffix(".new.ipynb"), work / LESSON)
    delivery = deliver(make_workbook(root, version(3)), work)
    assert actions(delivery)[LESSON] == "replaced"
    assert (work / LESSON).read_bytes() == bare(version(3)[LESSON])


def test_undoing_an_edit_makes_the_file_replaceable_again(root: Path, work: Path) -> None:
    deliver(make_workbook(root, version(1)), work)
    edit(work / LESSON, "mine")
    deliver(make_workbook(root, version(2)), work)
    (work / LESSON).write_bytes(version(1)[LESSON])
    deliver(make_workbook(root, version(2)), work)
    assert (work / LESSON).read_bytes() == bare(version(2)[LESSON])


def test_a_lesson_that_was_run_is_replaced_and_its_outputs_are_kept_beside(
    root: Path, work: Path
) -> None:
    deliver(make_workbook(root, version(1)), work)
    run(work / LESSON, "312 tokens/s on my machine")
    ran = (work / LESSON).read_bytes()
    assert actions(deliver(make_workbook(root, version(1)), work))[LESSON] == "current"
    assert (work / LESSON).read_bytes() == ran
    delivery = deliver(make_workbook(root, version(2)), work)
    assert actions(delivery)[LESSON] == "replaced"
    assert (work / LESSON).read_bytes() == bare(version(2)[LESSON])
    previous = (work / LESSON).with_suffix(".previous.ipynb")
    assert previous.read_bytes() == ran
    assert any(previous.name in outcome.note for outcome in delivery.outcomes)
    run(work / LESSON, "another figure")
    deliver(make_workbook(root, version(3)), work)
    assert previous.read_bytes() == ran
    assert b"another figure" in (work / LESSON).with_suffix(".previous-2.ipynb").read_bytes()


def test_an_exercise_that_was_run_is_kept(root: Path, work: Path) -> None:
    deliver(make_workbook(root, version(1)), work)
    run(work / EXERCISE, "Not started")
    delivery = deliver(make_workbook(root, version(2)), work)
    assert actions(delivery)[EXERCISE] == "kept"
    assert b"Not started" in (work / EXERCISE).read_bytes()
    assert (work / EXERCISE).with_suffix(".new.ipynb").read_bytes() == bare(version(2)[EXERCISE])


def test_saving_or_clearing_outputs_is_no_edit(root: Path, work: Path) -> None:
    deliver(make_workbook(root, version(1)), work)
    content = json.loads((work / LESSON).read_bytes())
    for cell in content["cells"]:
        cell["outputs"] = []
    content["metadata"]["language_info"] = {"name": "python"}
    (work / LESSON).write_text(json.dumps(content))
    delivery = deliver(make_workbook(root, version(2)), work)
    assert actions(delivery)[LESSON] == "replaced"
    assert visible(work) == {LESSON, EXERCISE}


def test_new_outputs_upstream_are_no_news(root: Path, work: Path) -> None:
    deliver(make_workbook(root, version(1)), work)
    refreshed = version(1) | {
        LESSON: notebook("lesson v1", "print(1)", outputs=("delivered later",))
    }
    assert set(actions(deliver(make_workbook(root, refreshed), work)).values()) == {"current"}
    assert (work / LESSON).read_bytes() == bare(version(1)[LESSON])
    run(work / LESSON, "mine")
    deliver(make_workbook(root, version(1)), work)
    assert b"mine" in (work / LESSON).read_bytes()
    assert visible(work) == {LESSON, EXERCISE}


def test_a_deleted_file_comes_back_only_when_asked_for(root: Path, work: Path) -> None:
    deliver(make_workbook(root, version(1)), work)
    (work / EXERCISE).unlink()
    assert actions(deliver(make_workbook(root, version(2)), work))[EXERCISE] == "deleted"
    assert actions(deliver(make_workbook(root, version(2)), work, replace=False))[EXERCISE] == (
        "deleted"
    )
    assert not (work / EXERCISE).exists()
    delivery = deliver(make_workbook(root, version(2)), work, restore=True)
    assert actions(delivery)[EXERCISE] == "restored"
    assert (work / EXERCISE).read_bytes() == bare(version(2)[EXERCISE])


def test_a_retired_lesson_stays_with_the_learner(root: Path, work: Path) -> None:
    deliver(make_workbook(root, version(1)), work)
    delivery = deliver(make_workbook(root, {LESSON: version(1)[LESSON]}), work)
    assert actions(delivery) == {LESSON: "current", EXERCISE: "retired"}
    assert (work / EXERCISE).exists()


def test_files_that_were_there_before_are_the_learners(root: Path, work: Path) -> None:
    (work / "notebooks").mkdir(parents=True)
    (work / LESSON).write_bytes(notebook("something of mine"))
    deliver(make_workbook(root, version(1)), work)
    assert (work / LESSON).read_bytes() == notebook("something of mine")
    assert (work / LESSON).with_suffix(".new.ipynb").read_bytes() == bare(version(1)[LESSON])
