"""What may be stored as an output, without starting a kernel."""

import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output

from authoring.failure import BuildError
from authoring.outputs import clean_outputs, keep_outputs

WIDGET = "application/vnd.jupyter.widget-view+json"


def notebook_with(*outputs: NotebookNode, tags: tuple[str, ...] = ()) -> NotebookNode:
    cell = new_code_cell("x", id="07-002", outputs=list(outputs), metadata={"tags": list(tags)})
    cell.metadata["execution"] = {"iopub.execute_input": "2026-01-01"}
    return new_notebook(cells=[cell])


def printed(text: str, name: str = "stdout") -> NotebookNode:
    return new_output("stream", name=name, text=text)


def test_known_places_become_names(tmp_path: Path) -> None:
    root = tmp_path / "clone"
    text = f"{root}/notebooks {sys.prefix}/bin {Path.home()}/x {tempfile.gettempdir()}/y"
    notebook = notebook_with(printed(text))
    clean_outputs(notebook, root)
    shown = notebook.cells[0].outputs[0].text
    assert shown == "<workbook>/notebooks <environment>/bin ~/x <temporary>/y"


def test_a_longer_name_that_starts_like_a_known_place_is_not_cut(tmp_path: Path) -> None:
    notebook = notebook_with(printed(f"ratio{tmp_path}-wide"))
    clean_outputs(notebook, tmp_path)
    assert "<workbook>" not in notebook.cells[0].outputs[0].text


@pytest.mark.parametrize("path", ["/home/someone/data", "/Users/ann/x", "C:\\Users\\ann\\x"])
def test_another_path_of_a_machine_is_refused(tmp_path: Path, path: str) -> None:
    html = new_output("display_data", data={"text/html": f"<b>{path}</b>"})
    for output in (printed(f"see {path}"), html):
        with pytest.raises(BuildError, match="07-002 prints"):
            clean_outputs(notebook_with(output), tmp_path)


@pytest.mark.parametrize("text", ["tokens/home/x", "https://example.org/home/x", "and/or", "1/2"])
def test_text_that_is_no_path_passes(tmp_path: Path, text: str) -> None:
    notebook = notebook_with(printed(text))
    clean_outputs(notebook, tmp_path)
    assert notebook.cells[0].outputs[0].text == text


def test_stderr_is_refused_unless_the_cell_is_tagged(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"07-002 writes to stderr \('careful'\)"):
        clean_outputs(notebook_with(printed("careful\n", "stderr")), tmp_path)
    clean_outputs(notebook_with(printed("careful\n", "stderr"), tags=("stderr",)), tmp_path)


def test_timing_goes_and_counts_follow_the_order(tmp_path: Path) -> None:
    result = new_output("execute_result", data={"text/plain": "1"}, execution_count=17)
    notebook = notebook_with(result)
    clean_outputs(notebook, tmp_path)
    cell = notebook.cells[0]
    assert "execution" not in cell.metadata
    assert cell.execution_count == cell.outputs[0].execution_count == 1


def test_a_widget_needs_the_tag_and_leaves_its_static_picture(tmp_path: Path) -> None:
    def shown(*extra: str) -> NotebookNode:
        data = {WIDGET: {"model_id": "a"}, "text/plain": "VBox()", **dict.fromkeys(extra, "png")}
        return new_output("display_data", data=data)

    with pytest.raises(BuildError, match="nbval-ignore-output"):
        clean_outputs(notebook_with(shown()), tmp_path)
    bare = notebook_with(shown(), tags=("nbval-ignore-output",))
    clean_outputs(bare, tmp_path)
    assert bare.cells[0].outputs[0].data == {"text/plain": "Run this cell to move the controls."}
    pictured = notebook_with(shown("image/png"), tags=("nbval-ignore-output",))
    clean_outputs(pictured, tmp_path)
    assert set(pictured.cells[0].outputs[0].data) == {"text/plain", "image/png"}


def test_too_large_an_output_is_refused(tmp_path: Path) -> None:
    clean_outputs(notebook_with(printed("x" * 290_000)), tmp_path)
    with pytest.raises(BuildError, match="KB of output"):
        clean_outputs(notebook_with(printed("x" * 300_001)), tmp_path)


@given(st.lists(st.sampled_from("abcd")), st.lists(st.sampled_from("abcd")))
def test_kept_outputs_belong_to_an_equal_source_and_none_is_used_twice(
    old: list[str], new: list[str]
) -> None:
    before = new_notebook(
        cells=[
            new_code_cell(source, execution_count=1, outputs=[printed(f"{source}{index}")])
            for index, source in enumerate(old)
        ]
    )
    after = new_notebook(cells=[new_code_cell(source) for source in new])
    keep_outputs(after, before)
    kept = [(cell.source, cell.outputs[0].text) for cell in after.cells if cell.outputs]
    assert all(text.startswith(source) for source, text in kept)
    assert len(set(kept)) == len(kept)
    for source in set(new):
        expected = min(old.count(source), new.count(source))
        assert sum(name == source for name, _ in kept) == expected
