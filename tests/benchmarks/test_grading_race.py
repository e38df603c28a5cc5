"""The grading race runs, its last line has what the issue asks for, and its parts are right."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import psutil
import pytest
import torch

from benchmarks import grading_race
from benchmarks._grading_class import (
    WRONG,
    bare,
    blanked,
    draw_class,
    exercise_of,
    function_of,
    lesson_cells,
    spoiled,
)
from benchmarks._grading_hostile import HOSTILE
from benchmarks._grading_process import Stopped, call
from benchmarks._grading_rounds import Entry, peak_mb, rate, ratio, seconds_for
from benchmarks._grading_tests import asserts_of, literal
from benchmarks._grading_ways import quantization_exercises
from slmlab.checking import check
from slmlab.grading.sandbox import SandboxUnavailable, open_sandbox

SOLVED = {name: cell for cell in lesson_cells() if (name := exercise_of(cell))}


def space(cell: str) -> dict[str, Any]:
    """The names after a cell without slmlab has run."""
    found: dict[str, Any] = {"torch": torch, "Tensor": torch.Tensor, "math": math}
    exec(bare(cell), found)
    return found


@pytest.mark.slow  # nbgrader starts a kernel with torch a submission: a minute and more
def test_a_short_race(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        open_sandbox(preload=False).close()
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    grading_race.main(["--short"])
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])
    ours, nbgrader = measured["graders"]["slmlab"], measured["graders"]["nbgrader"]
    assert measured["students"] == {"all": 4, "honest": 3, "hostile": 1}
    assert ours["not_right"] == {"honest": [], "mixed": []}
    assert ours["hostile"] == {"equal_to_everything": "right"}
    assert nbgrader["not_right"] == {"honest": []}
    assert nbgrader["hostile"] == {"equal_to_everything": "wrong"}
    assert nbgrader["ours_over_it"]["honest"]["ratio"] > 0
    assert ours["peak_mb"] > 100 and nbgrader["peak_mb"] > 100
    assert (measured["graders"]["otter"] is None) == bool(measured["left_out"].get("otter"))


@pytest.mark.parametrize("exercise", quantization_exercises(), ids=lambda item: item.id)
def test_solutions_pass_and_wrong_ones_do_not(exercise) -> None:
    solved = SOLVED[exercise.id]
    for cell, passes in ((solved, True), (spoiled(solved), False), (blanked(solved), False)):
        names = space(cell)
        report = check(exercise, names[function_of(cell)], 8)
        assert (report.outcome == "passed") == passes
        # What a peer asserts says the same.
        try:
            exec(asserts_of(exercise, function_of(cell), 8), names)
            accepted = True
        except (AssertionError, NotImplementedError):
            accepted = False
        assert accepted == passes


def test_the_class_is_drawn_from_the_seed() -> None:
    handed = draw_class(100, len(HOSTILE), 8)
    assert handed == draw_class(100, len(HOSTILE), 8) != draw_class(100, len(HOSTILE), 9)
    assert len({one.name for one in handed}) == 100
    kinds = [one.kind for one in handed]
    assert [kinds.count(kind) for kind in ("right", "wrong", "hostile")] == [44, 44, len(HOSTILE)]
    for one in handed:
        wrong = [name for name, passes in one.passes.items() if not passes]
        assert set(one.passes) == set(WRONG)
        assert len(wrong) == {"right": 0, "wrong": 3}.get(one.kind, len(wrong))


def test_a_literal_is_the_value() -> None:
    value: dict[str, Any] = {
        "w": torch.tensor([[1e-9, math.inf], [-0.1, 3.0]]),
        "n": [1, None, (2.5,)],
        "b": True,
    }
    found = eval(literal(value), {"torch": torch, "float": float})
    assert torch.equal(found.pop("w"), value.pop("w")) and found == value
    with pytest.raises(TypeError, match="set"):
        literal({1})


def test_time_for_a_larger_class_counts_the_start_once(tmp_path) -> None:
    small, large = (
        Entry(None, tmp_path, [None] * count, seconds)  # type: ignore[arg-type, list-item]
        for count, seconds in ((2, [7.0, 9.0]), (10, [23.0, 8.0]))
    )
    # Two seconds each and three for the start; then a round that was disturbed.
    assert seconds_for(100, small, large) == pytest.approx([203.0, 80.0])
    assert rate(100, [50, 100, 200]) == {"median": 60, "low": 30, "high": 120, "n": 3}
    assert ratio([1, 2, 4], [10, 30, 30]) == {"ratio": 15, "low": 7.5, "high": 15, "n": 3}


def test_a_grader_that_does_not_end_is_ended(tmp_path) -> None:
    alone = "import os, time; os.setsid(); open('pid', 'w').write(str(os.getpid())); time.sleep(99)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {alone!r}])"
    with pytest.raises(Stopped):
        call([sys.executable, "-c", code], tmp_path, 5)
    pid = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    with pytest.raises(RuntimeError, match="ended with 7"):
        call([sys.executable, "-c", "import sys; sys.exit(7)"], tmp_path, 60)


def test_memory_of_children_is_seen() -> None:
    code = "import time; x = bytearray(b'1') * (200 << 20); time.sleep(1)"
    assert peak_mb(lambda: call([sys.executable, "-c", code], grading_race.Path("/"), 60)) > 200
