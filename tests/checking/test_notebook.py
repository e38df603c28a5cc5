"""The decorator and the dashboard, in plain Python and in a real IPython."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from slmlab.checking import (
    CheckFailed,
    ProgressFile,
    exercise,
    hint,
    progress,
    registered,
    registry,
)
from tests.checking.fake_topic import BYTES, EXERCISES, INT8, absmax_int8, cache_bytes, one_scale

ROOT = Path(__file__).resolve().parents[2]


def blank(w: torch.Tensor) -> torch.Tensor:
    raise NotImplementedError


def test_the_function_comes_back_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    assert exercise(INT8)(absmax_int8) is absmax_int8
    assert exercise(INT8)(one_scale) is one_scale
    said = capsys.readouterr().out
    assert "[+] passed" in said and "[x] wrong" in said and "whole matrix" in said
    record = ProgressFile().read().exercise(INT8)
    assert (record.outcome, record.attempts) == ("passed", 2)


def test_partial_credit_is_stored() -> None:
    exercise(INT8)(lambda w: absmax_int8(w) * (1 if w.shape[0] < 5 else 0))
    record = ProgressFile().read().exercise(INT8)
    assert record.outcome == "wrong" and record.credit == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("function", "word"),
    [(blank, "not started"), (one_scale, "wrong"), (lambda w: 1 / 0, "error")],
)
def test_strict_raises_for_anything_but_passed(
    function: Any, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLMLAB_STRICT", "1")
    with pytest.raises(CheckFailed, match=word):
        exercise(INT8)(function)
    exercise(INT8)(absmax_int8)
    monkeypatch.setenv("SLMLAB_STRICT", "0")
    exercise(INT8)(function)


def test_misuse_of_the_decorator() -> None:
    with pytest.raises(TypeError, match=r'@exercise\("topic\.name"\)'):
        exercise(absmax_int8)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Did you mean"):
        exercise("fake.absmax")
    with pytest.raises(TypeError, match="not over a class"):
        exercise(INT8)(dict)
    with pytest.raises(TypeError, match="not over int"):
        exercise(INT8)(3)  # type: ignore[type-var]


def test_an_edit_in_place_is_a_note_not_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    def edits(w: torch.Tensor) -> torch.Tensor:
        codes = absmax_int8(w)
        w.zero_()
        return codes

    exercise(INT8)(edits)
    said = capsys.readouterr().out
    assert "[+] passed" in said and "edits `w` in place" in said


def test_damage_is_told_and_the_result_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(os.environ["SLMLAB_PROGRESS"])
    path.write_text("garbage")
    exercise(INT8)(absmax_int8)
    said = capsys.readouterr().out
    assert "[+] passed" in said and "progress.json.corrupt-1" in said
    assert ProgressFile().read().exercise(INT8).outcome == "passed"


def test_a_file_that_cannot_be_written_does_not_hide_the_result(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SLMLAB_PROGRESS", str(tmp_path))
    assert exercise(INT8)(absmax_int8) is absmax_int8
    said = capsys.readouterr().out
    assert "[+] passed" in said and "SLMLAB_PROGRESS" in said


@pytest.fixture
def only_fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: [])


def test_the_dashboard_counts(only_fake: None, capsys: pytest.CaptureFixture[str]) -> None:
    exercise(INT8)(absmax_int8)
    exercise(BYTES)(lambda config, tokens: cache_bytes(config, tokens) * (tokens > 1))
    capsys.readouterr()
    with registered("empty", ()):
        panel = progress()
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "1 of 2 exercises passed."
    assert said[1].startswith("empty  [--------------------] 0 of 0")
    assert "[##########----------] 1 of 2 passed, 4.3 of 5 points" in said[2]
    assert said[2].endswith("points, 0 hints used") and "rung" not in panel.html
    for shown in ("1 hint used", "2 hints used"):
        hint(INT8)
        capsys.readouterr()
        progress()
        assert capsys.readouterr().out.splitlines()[-1].endswith(f"points, {shown}")
    assert "width:50%" in panel.html and "50 percent passed" in panel.html


def test_a_broken_topic_is_a_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from importlib.metadata import EntryPoint

    point = EntryPoint("broken", "slmlab_no_such_pack:EXERCISES", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    progress()
    said = capsys.readouterr().out
    assert "could not be loaded" in said and "fake" in said


def test_importing_loads_no_torch_and_no_pyplot() -> None:
    code = (
        "import slmlab.checking, sys;"
        "print(sorted({'torch', 'matplotlib', 'IPython', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


CELLS = (
    (
        "from slmlab.checking import *\nfrom tests.checking.fake_topic import EXERCISES\n"
        "register('fake', EXERCISES)",
        None,
    ),
    (
        "@exercise('fake.cache_bytes')\ndef cache_bytes(config, tokens):\n"
        "    total = 0\n    return tokens / total",
        "in line 4 of cache_bytes: <code>return tokens / total</code>",
    ),
    ("hint('fake.cache_bytes')", "Hint 1 of 3"),
    ("predict('x', 3)", "your prediction is 3"),
    ("measured('x', 4)", "within a factor of 2"),
    ("progress()", "exercises passed"),
    ("ask(Question('Why?', 'So.'))", "<details"),
)


def test_in_a_kernel_each_call_shows_one_panel() -> None:
    import nbformat
    from nbclient import NotebookClient

    cells = [nbformat.v4.new_code_cell(source) for source, _ in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    resources = {"metadata": {"path": str(ROOT)}}
    NotebookClient(
        notebook, timeout=300, startup_timeout=300, kernel_name="python3", resources=resources
    ).execute()
    for cell, (source, words) in zip(notebook.cells, CELLS, strict=True):
        if words is None:
            assert cell.outputs == [], source
            continue
        assert [output.output_type for output in cell.outputs] == ["display_data"], source
        assert words in cell.outputs[0].data["text/html"], source
        assert cell.outputs[0].data["text/plain"].strip(), source


def test_both_exercises_of_the_fake_topic_are_there() -> None:
    assert [item.id for item in EXERCISES] == [INT8, BYTES]
