"""Every lesson and one exercise in JupyterLab, as a learner's browser shows them.

One module, so that pytest-xdist starts one server and one browser.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from slmlab.checking import get, make_cases
from slmlab.checking.logbook import ExerciseRecord, from_json
from slmlab.checking.registry import exercises
from slmlab.widgets.plot_style import contrast
from tests.browser import chromium
from tests.browser.controls import controls, effect_missing
from tests.browser.looks import css_hex, cut_off, faint_texts, legible_share
from tests.browser.page import WIDGET_VIEW, NotebookPage, open_notebook
from tests.browser.server import Lab, running_lab
from tests.notebooks.repository import ROOT, exercise_cells, read

pytestmark = pytest.mark.skipif(bool(chromium.missing()), reason=chromium.missing())

# Lesson -> the controls of its widget, in their order.
LESSONS: dict[str, list[str]] = {
    "00_start_here": [],
    "01_anatomy_and_roofline": [
        "model",
        "weights stored as",
        "context (tokens)",
        "batch (sequences)",
        "device",
    ],
    "02_quantization": ["code (bits)", "group (weights)", "zero points"],
    "03_calibrated_quantization": ["budget (bits a weight)"],
    "04_kv_cache": [
        "model",
        "weights",
        "cache (number)",
        "window (a layer)",
        "context (tokens)",
        "conversations",
    ],
    "05_paged_serving": ["pool (blocks)", "forward pass"],
    "06_speculative_decoding": ["text", "draft length (tokens)", "round"],
    "07_distillation": ["prompt", "divergence", "temperature T"],
}
THEMES = {"JupyterLab Light": "light", "JupyterLab Dark": "dark"}
EXERCISE, MISTAKE = "start.softmax", "temperature multiplied"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture(scope="module")
def browser(lab: Lab) -> Iterator[chromium.Browser]:
    with chromium.browser(lab.url, timeout_seconds=300) as opened:
        yield opened


@pytest.fixture(scope="module", params=LESSONS)
def lesson(
    lab: Lab, browser: chromium.Browser, request: pytest.FixtureRequest
) -> Iterator[tuple[str, NotebookPage]]:
    """(name, page) of a lesson in which all cells were run."""
    with open_notebook(browser, lab, f"notebooks/{request.param}.ipynb") as page:
        assert not any(cell.get("outputs") for cell in page.model().cells), "delivered with outputs"
        page.run_all()
        yield request.param, page


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("SLMLAB_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_all_cells_run_and_every_output_is_in_the_page(
    lesson: tuple[str, NotebookPage], browser: chromium.Browser
) -> None:
    name, page = lesson
    notebook = page.model()
    sources = read(ROOT / "notebooks" / f"{name}.ipynb")
    assert [cell.source for cell in notebook.cells] == [cell.source for cell in sources.cells]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        failed = [f"{o.ename}: {o.evalue}" for o in cell.outputs if o.output_type == "error"]
        assert not failed or "raises-exception" in cell.metadata.get("tags", ()), failed
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))

    data = [output.get("data", {}) for cell in code for output in cell.outputs]
    pictures = sum("image/png" in forms and WIDGET_VIEW not in forms for forms in data)
    views = sum(WIDGET_VIEW in forms for forms in data)
    areas = page.page.locator(".jp-OutputArea-output")
    widgets = areas.locator(":scope > .jupyter-widgets")
    if views:
        widgets.last.wait_for()
    assert widgets.count() == views
    shown = areas.locator(":scope.jp-RenderedImage img").evaluate_all(
        "(pictures) => pictures.filter((picture) => picture.naturalWidth > 0).length"
    )
    assert shown == pictures
    assert not browser.refused, "the page asks the network"


def test_every_control_has_an_effect(lesson: tuple[str, NotebookPage]) -> None:
    name, page = lesson
    found = controls(page.page)
    assert [control.name for control in found] == LESSONS[name]
    trouble = "; ".join(filter(None, (effect_missing(page.page, control) for control in found)))
    assert not trouble, trouble


def test_folded_answers_open(lesson: tuple[str, NotebookPage]) -> None:
    _, page = lesson
    answers = page.page.locator(".jp-Notebook details").all()
    assert len(answers) >= 4  # the model answer and three interview questions
    for details in answers:
        folded = details.inner_text()
        details.locator("summary").click()
        assert len(details.inner_text()) > len(folded) + 20, folded


def test_both_themes_can_be_read(lesson: tuple[str, NotebookPage], screenshots: Path) -> None:
    name, page = lesson
    look_in_both_themes(page, screenshots, name)


def look_in_both_themes(page: NotebookPage, folder: Path, name: str) -> None:
    """Plots, panels and widgets stand out from the page, every text reads, nothing is cut off."""
    outputs = page.page.locator(".jp-OutputArea-output:not(.jp-RenderedText)").all()
    assert outputs
    backgrounds = {}
    try:
        for theme, short in THEMES.items():
            page.theme(theme)
            light, backgrounds[short] = page.page.evaluate(
                """() => [document.body.dataset.jpThemeLight,
                  getComputedStyle(document.querySelector('.jp-Notebook')).backgroundColor]"""
            )
            assert light == str(short == "light").lower()
            page.page.screenshot(path=folder / f"{name}-{short}.png")
            # Editors take their height when they first come into view: nothing moves after this.
            for output in outputs:
                output.scroll_into_view_if_needed()
            for number, output in enumerate(outputs):
                path = folder / f"{name}-{short}-{number:02d}.png"
                assert legible_share(output.screenshot(path=path)) > 0.003, path.name
            assert not faint_texts(page.page), short
            assert not cut_off(page.page), short
    finally:
        page.theme("JupyterLab Light")
    assert contrast(css_hex(backgrounds["light"]), css_hex(backgrounds["dark"])) > 10


def test_an_exercise_wrong_then_right(
    lab: Lab, browser: chromium.Browser, screenshots: Path
) -> None:
    spec, path = get(EXERCISE), "exercises/00_start_here.ipynb"
    (mistake,) = (m for m in spec.mistakes if m.name == MISTAKE)
    solution = exercise_cells(read(ROOT / "solutions" / Path(path).name))[EXERCISE].source
    with open_notebook(browser, lab, path) as page:
        notebook = page.model()
        setup = next(cell.id for cell in notebook.cells if cell.cell_type == "code")
        blank = exercise_cells(notebook)[EXERCISE]
        dashboard = next(cell.id for cell in notebook.cells if cell.source == "progress()")
        page.run(setup)
        assert "not started" in page.run(blank.id)
        assert passed_in_topic(page, dashboard) == 0

        page.write(blank.id, with_body(blank.source, mistake.implementation))
        answer = page.run(blank.id)
        assert "\u2717 wrong" in answer and "Smallest case" in answer
        said = [m.name for m in spec.mistakes if plain(m.sentence) in answer]
        assert said == [MISTAKE]
        assert passed_in_topic(page, dashboard) == 0
        assert recorded(lab).outcome == "wrong"
        look_in_both_themes(page, screenshots, "wrong")

        page.write(blank.id, solution)
        answer = page.run(blank.id)
        cases = len(make_cases(spec, 0))
        assert "\u2713 passed" in answer and f"{cases} of {cases} cases" in answer
        assert "wrong" not in answer and plain(mistake.sentence) not in answer
        assert passed_in_topic(page, dashboard) == 1
        assert recorded(lab).outcome == "passed" and recorded(lab).attempts == 2
        look_in_both_themes(page, screenshots, "passed")


def passed_in_topic(page: NotebookPage, dashboard: str) -> int:
    """How many exercises of the topic are passed as the progress cell shows it."""
    topic = EXERCISE.split(".")[0]
    found = re.search(rf"\b{topic} (\d+) of {len(exercises(topic))}\b", page.run(dashboard))
    assert found
    return int(found[1])


def recorded(lab: Lab) -> ExerciseRecord:
    """What the learner's progress file says about the exercise."""
    return from_json(json.loads(lab.progress.read_text("utf-8"))).exercise(EXERCISE)


def plain(sentence: str) -> str:
    """A sentence as the page shows it: `code` has lost its backticks."""
    return " ".join(sentence.replace("`", "").split())


def with_body(blank: str, implementation: Callable[..., Any]) -> str:
    """The blank cell with the statements of `implementation` where it raises."""
    (function,) = ast.parse(textwrap.dedent(inspect.getsource(implementation))).body
    assert isinstance(function, ast.FunctionDef)
    statements = "\n".join(ast.unparse(statement) for statement in function.body)
    (hole,) = re.findall(r"^ +raise NotImplementedError.*$", blank, re.MULTILINE)
    return blank.replace(hole, textwrap.indent(statements, "    "))
