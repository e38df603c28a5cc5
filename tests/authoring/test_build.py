"""Idempotence, kept outputs and staleness of the notebook pipeline, on a throw-away tree."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from authoring import build as build_module
from authoring.build import build, check, main
from authoring.failure import BuildError
from tests.authoring.tree import EXERCISES, LESSON, TOPIC, built, make_tree, snapshot, source_path


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree that was built and executed once; tests work on copies."""
    root = make_tree(tmp_path_factory.mktemp("tree"))
    build(root, run=True)
    return root


@pytest.fixture
def tree(executed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(executed, tmp_path / "tree")


def test_one_topic_gives_three_notebooks_with_fixed_ids_and_no_jupytext_metadata(
    tree: Path,
) -> None:
    names = [f"{folder}/{TOPIC}.ipynb" for folder in ("exercises", "notebooks", "solutions")]
    assert sorted(snapshot(tree)) == names
    assert [cell.id for cell in built(tree).cells] == ["07-001", "07-002", "07-003"]
    for folder in ("exercises", "solutions"):
        ids = [cell.id for cell in built(tree, folder).cells]
        assert ids == ["07-x001", "07-x002", "07-x003", "07-x004", "07-x005"]
    for folder in ("notebooks", "exercises", "solutions"):
        metadata = built(tree, folder).metadata
        assert set(metadata) == {"kernelspec", "language_info", "slmlab"}
        assert metadata.kernelspec.name == "python3"
        assert metadata.slmlab.source.startswith(f"authoring/{TOPIC}/")


def test_an_executed_lesson_carries_its_outputs_and_the_hash_they_came_from(tree: Path) -> None:
    lesson = built(tree)
    assert lesson.cells[1].outputs[0].text == "the answer is 42\n"
    assert [cell.get("execution_count") for cell in lesson.cells] == [None, 1, 2]
    assert lesson.metadata.slmlab.executed_sha256 == lesson.metadata.slmlab.source_sha256
    assert all("execution" not in cell.metadata for cell in lesson.cells)
    assert "executed_sha256" not in built(tree, "exercises").metadata.slmlab


def test_a_second_build_writes_nothing_and_a_fresh_tree_is_not_stale(tree: Path) -> None:
    before = snapshot(tree)
    assert build(tree) == []
    assert build(tree, run=True) == []
    assert snapshot(tree) == before
    assert check(tree) == []
    assert not list(tree.rglob("*.part"))


def test_without_execution_outputs_stay_where_the_source_is_unchanged(tree: Path) -> None:
    clock = built(tree).cells[2].outputs[0].data["text/plain"]
    source_path(tree).write_text(LESSON.replace("# %%\nnumber", "# %%\nx = 1\n\n# %%\nnumber", 1))
    build(tree)
    cells = built(tree).cells
    assert [cell.id for cell in cells] == ["07-001", "07-002", "07-003", "07-004"]
    assert cells[1].outputs == [] and cells[1].execution_count is None
    assert cells[2].outputs[0].text == "the answer is 42\n"
    assert cells[3].outputs[0].data["text/plain"] == clock
    assert cells[3].execution_count == cells[3].outputs[0].execution_count == 3


def test_equal_cells_keep_their_outputs_in_order(tmp_path: Path) -> None:
    counter = "# %%\ncount = 0\n\n# %%\ncount += 1; count\n\n# %%\ncount += 1; count\n"
    root = make_tree(tmp_path, counter, None)
    build(root, run=True)
    source_path(root).write_text("# %% [markdown]\n# A heading\n\n" + counter)
    build(root)
    shown = [c.outputs[0].data["text/plain"] for c in built(root).cells[1:] if c.outputs]
    assert shown == ["1", "2"]


def test_an_edited_source_is_stale_until_it_is_built_and_executed(tree: Path) -> None:
    source_path(tree).write_text(LESSON.replace("6 * 7", "6 * 8"))
    [sentence] = check(tree)
    assert "is older than" in sentence and f"notebooks/{TOPIC}.ipynb" in sentence
    build(tree)
    [sentence] = check(tree)
    assert "outputs of an older" in sentence
    build(tree, run=True)
    assert check(tree) == []
    assert built(tree).cells[1].outputs[0].text == "the answer is 48\n"


def test_a_source_edited_while_it_runs_is_stale_afterwards(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source_path(tree).write_text(LESSON.replace("6 * 7", "6 * 8"))
    run = build_module.execute

    def edited_meanwhile(*arguments: Any) -> None:
        run(*arguments)
        source_path(tree).write_text(LESSON.replace("6 * 7", "6 * 9"))

    monkeypatch.setattr(build_module, "execute", edited_meanwhile)
    build(tree, run=True)
    monkeypatch.undo()
    build(tree)
    [sentence] = check(tree)
    assert "outputs of an older" in sentence


def test_only_what_is_stale_runs_again_unless_forced(tree: Path) -> None:
    clock = built(tree).cells[2].outputs[0].data["text/plain"]
    solutions = source_path(tree, "exercises.py")
    solutions.write_text(EXERCISES.replace("Twice the argument", "Two times the argument"))
    build(tree, run=True)
    assert built(tree).cells[2].outputs[0].data["text/plain"] == clock
    build(tree, run=True, force=[TOPIC])
    assert built(tree).cells[2].outputs[0].data["text/plain"] != clock


@pytest.mark.parametrize(
    ("folder", "old", "new"),
    [
        ("notebooks", "6 * 7", "6 * 9"),
        ("exercises", "07-x004", "07-x009"),
        ("solutions", '"fake-double"', '"fake-treble"'),
    ],
)
def test_a_notebook_edited_by_hand_is_reported(tree: Path, folder: str, old: str, new: str) -> None:
    path = tree / folder / f"{TOPIC}.ipynb"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    [sentence] = check(tree)
    assert sentence.startswith(f"{folder}/{TOPIC}.ipynb is not what")
    build(tree)
    if folder == "notebooks":
        build(tree, run=True, force=["all"])
    assert check(tree) == []


def test_missing_broken_and_orphaned_notebooks_are_reported(tree: Path) -> None:
    (tree / "notebooks" / f"{TOPIC}.ipynb").unlink()
    (tree / "exercises" / f"{TOPIC}.ipynb").write_text("not JSON")
    (tree / "solutions" / "08_gone.ipynb").write_text("{}")
    sentences = check(tree)
    assert [sentence.split()[0] for sentence in sentences] == [
        f"notebooks/{TOPIC}.ipynb",
        f"exercises/{TOPIC}.ipynb",
        "solutions/08_gone.ipynb",
    ]


def test_a_failing_cell_names_itself_and_leaves_the_notebook_as_it_was(tree: Path) -> None:
    before = snapshot(tree)
    source_path(tree).write_text(LESSON.replace("6 * 7", "6 / 0"))
    with pytest.raises(BuildError, match=r"lesson\.py, cell 07-002 raises ZeroDivisionError"):
        build(tree, run=True)
    assert snapshot(tree) == before


def test_windows_line_ends_do_not_make_a_notebook_stale(tree: Path) -> None:
    path = source_path(tree)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert check(tree) == []


def test_kernels_run_strict_with_a_progress_file_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLMLAB_PROGRESS", "mine.json")
    lesson = (
        "# %%\nimport os\nprint(os.environ['SLMLAB_STRICT'], os.environ['OMP_NUM_THREADS'])\n"
        "print(os.path.basename(os.getcwd()))\n"
        "print(os.environ['SLMLAB_PROGRESS'] == 'mine.json')\n"
    )
    root = make_tree(tmp_path, lesson, None)
    build(root, run=True)
    assert built(root).cells[0].outputs[0].text == "1 1\nnotebooks\nFalse\n"


def test_the_command_line_refuses_what_it_would_ignore(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--check", "--execute"], ["--force", "all"]):
        with pytest.raises(SystemExit) as error:
            main(arguments)
        assert error.value.code == 2
        assert "--" in capsys.readouterr().err


def test_an_unknown_topic_is_refused(tree: Path) -> None:
    with pytest.raises(BuildError, match="no topic 99_none"):
        build(tree, run=True, force=["99_none"])
