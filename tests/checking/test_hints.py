"""The ladder goes up one rung a call, remembers, and says when it ends."""

import os
from pathlib import Path

import pytest

from slmlab.checking import ProgressFile, hint
from tests.checking.fake_topic import EXERCISES, INT8

HINTS = EXERCISES[0].hints


def rung() -> int:
    return ProgressFile().read().exercise(INT8).hint_rung


def test_the_ladder(capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2, 3):
        hint(INT8)
        said = capsys.readouterr().out
        assert f"Hint {number} of 3" in said and HINTS[number - 1] in said
        assert "last hint" not in said
        assert rung() == number
    hint(INT8)
    said = capsys.readouterr().out
    assert HINTS[2] in said and "That was the last hint" in said


def test_a_rung_of_choice(capsys: pytest.CaptureFixture[str]) -> None:
    hint(INT8, rung=2)
    assert HINTS[1] in capsys.readouterr().out and rung() == 2
    hint(INT8, rung=1)
    assert HINTS[0] in capsys.readouterr().out and rung() == 2
    hint(INT8)
    assert HINTS[2] in capsys.readouterr().out


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"Did you mean 'fake\.absmax_int8'"):
        hint("fake.absmax_int")
    for bad in (0, 4):
        with pytest.raises(ValueError, match=f"rung={bad}"):
            hint(INT8, rung=bad)
    for wrong in (1.0, "1", True):
        with pytest.raises(TypeError, match="rung"):
            hint(INT8, rung=wrong)  # type: ignore[arg-type]
    assert rung() == 0


def test_a_damaged_progress_file_does_not_hide_the_hint(
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = Path(os.environ["SLMLAB_PROGRESS"])
    path.write_text("{")
    hint(INT8)
    said = capsys.readouterr().out
    assert HINTS[0] in said and "is damaged" in said
    assert rung() == 1 and Path(f"{path}.corrupt-1").read_text() == "{"


def test_hints_are_escaped_in_html() -> None:
    assert "<" not in HINTS[0]
    assert "<strong>Hint 1 of 3 for fake.absmax_int8" in hint(INT8).html
