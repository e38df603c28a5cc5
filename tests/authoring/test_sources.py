"""Reading sources: marks, links and limits."""

from pathlib import Path

import pytest

from authoring.assignments import BLANK_BODY
from authoring.build import build, check
from authoring.failure import BuildError
from tests.authoring.tree import EXERCISES, LESSON, TOPIC, built, make_tree, source_path


def test_blanks_lose_the_solution_and_solutions_lose_the_markers(tmp_path: Path) -> None:
    root = make_tree(tmp_path)
    build(root)
    blank, solved = built(root, "exercises").cells[3], built(root, "solutions").cells[3]
    assert blank.source == (
        '@exercise("fake.double")\ndef double(x: int) -> int:\n    """Twice x."""\n    '
        + BLANK_BODY
    )
    assert solved.source.endswith("    secret = 2\n    return secret * x")
    for folder in ("exercises", "solutions"):
        text = (root / folder / f"{TOPIC}.ipynb").read_text()
        assert "SOLUTION" not in text
    assert "secret" not in (root / "exercises" / f"{TOPIC}.ipynb").read_text()


def test_the_decorator_makes_the_cell_nbgraders_solution_cell(tmp_path: Path) -> None:
    root = make_tree(tmp_path)
    build(root)
    for folder in ("exercises", "solutions"):
        cell = built(root, folder).cells[3]
        assert cell.metadata.slmlab == {"exercise": "fake.double"}
        assert cell.metadata.nbgrader == {
            "grade": False,
            "grade_id": "fake-double",
            "locked": False,
            "schema_version": 3,
            "solution": True,
            "task": False,
        }
    assert built(root, "exercises").cells[3].metadata.deletable is False


def test_nbgrader_metadata_written_by_hand_gives_the_same_notebook(tmp_path: Path) -> None:
    header = (
        '# %% nbgrader={"grade": false, "grade_id": "fake-double", "locked": false, '
        '"schema_version": 3, "solution": true, "task": false}\n@exercise'
    )
    short = make_tree(tmp_path / "short")
    written = make_tree(tmp_path / "long", exercises=EXERCISES.replace("# %%\n@exercise", header))
    build(short)
    build(written)
    for folder in ("exercises", "solutions"):
        assert built(short, folder).cells == built(written, folder).cells


def test_a_link_to_an_exercise_finds_its_cell(tmp_path: Path) -> None:
    root = make_tree(tmp_path)
    build(root)
    link = f"[the exercise](../exercises/{TOPIC}.ipynb#cell-id=07-x004)"
    assert link in built(root).cells[0].source
    assert built(root, "exercises").cells[3].id == "07-x004"


def test_the_limit_is_twenty_five_code_cells_a_lesson(tmp_path: Path) -> None:
    make_tree(tmp_path, "# %%\n1\n\n" * 25, None)
    assert build(tmp_path)
    source_path(tmp_path).write_text("# %%\n1\n\n" * 26)
    with pytest.raises(BuildError, match="26 code cells"):
        build(tmp_path)


@pytest.mark.parametrize(
    ("lesson", "exercises", "sentence"),
    [
        (LESSON.replace("fake.double", "fake.treble"), EXERCISES, "'fake.treble'"),
        (LESSON + '\n# %%\n@exercise("fake.x")\ndef f(): ...\n', EXERCISES, "holds no blank"),
        (LESSON, EXERCISES.replace("    ### END SOLUTION\n", ""), "one region between"),
        (LESSON, EXERCISES.replace('@exercise("fake.double")\n', ""), "one region between"),
        (LESSON, EXERCISES.replace("### BEGIN", "### START"), "one region between"),
        (LESSON, EXERCISES.replace("    ### END", "    ### BEGIN SOLUTION\n    ### END"), "own"),
        (LESSON, EXERCISES.replace("### BEGIN", "# BEGIN"), "one region between"),
        (LESSON, EXERCISES.replace("# Twice the", "# BEGIN SOLUTION the"), "cell 07-x003"),
        (LESSON, EXERCISES.replace("fake.double", "Double"), "must look like 'topic.name'"),
        (LESSON, EXERCISES + EXERCISES.split("\n\n# %%\n")[-2].join(["\n# %%\n", ""]), "twice"),
        (LESSON, "# %%\n1\n", "no exercise cell"),
    ],
)
def test_a_source_that_cannot_be_built_says_why_and_where(
    tmp_path: Path, lesson: str, exercises: str, sentence: str
) -> None:
    root = make_tree(tmp_path, lesson, exercises)
    with pytest.raises(BuildError, match=sentence) as error:
        build(root)
    assert f"authoring/{TOPIC}/" in str(error.value)


def test_two_topics_may_not_share_a_number(tmp_path: Path) -> None:
    make_tree(tmp_path)
    (tmp_path / "authoring" / "07_other").mkdir()
    with pytest.raises(BuildError, match="share a number"):
        build(tmp_path)


def test_folders_that_are_no_topics_are_left_alone(tmp_path: Path) -> None:
    make_tree(tmp_path, LESSON, EXERCISES)
    (tmp_path / "authoring" / "__pycache__").mkdir()
    (tmp_path / "authoring" / "build.py").write_text("")
    assert len(build(tmp_path)) == 3


@pytest.mark.parametrize("file", ["lesson.py", "exercises.py"])
def test_a_source_in_another_encoding_is_named(tmp_path: Path, file: str) -> None:
    build(make_tree(tmp_path))
    path = source_path(tmp_path, file)
    path.write_bytes(path.read_bytes() + "# größer\n".encode("latin-1"))
    with pytest.raises(BuildError, match=rf"authoring/{TOPIC}/{file} is not UTF-8 text"):
        build(tmp_path)
    assert any(f"{file} is not UTF-8 text" in sentence for sentence in check(tmp_path))


def test_lesson_prose_may_name_the_marks(tmp_path: Path) -> None:
    make_tree(tmp_path, LESSON.replace("# # A", "# # BEGIN SOLUTION marks a"))
    assert len(build(tmp_path)) == 3
