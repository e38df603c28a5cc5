"""One notebook open in JupyterLab: run it, edit it, read what it shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import nbformat
from nbformat import NotebookNode

from tests.browser.chromium import Browser
from tests.browser.server import Lab

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"

_READY = "() => window.jupyterapp?.commands.hasCommand('notebook:run-all-cells')"
_IDLE = """() => {
  const context = window.jupyterapp.shell.currentWidget?.sessionContext;
  return context?.isReady && context.session?.kernel?.status === 'idle';
}"""
_COMMAND = """([name, options]) => {
  window.slmlabFinished = false;
  const done = () => { window.slmlabFinished = true; };
  window.jupyterapp.commands.execute(name, options).then(done, done);
}"""
_MODEL = "() => window.jupyterapp.shell.currentWidget.content.model.sharedModel.toJSON()"
_RENDERED = """() => {
  const outputs = [...document.querySelectorAll('.jp-OutputArea-output')];
  return outputs.every((output) => output.hasChildNodes()
    && [...output.querySelectorAll('img')].every((picture) => picture.complete));
}"""
# While a theme loads, a veil with the logo lies over the page.
_THEME_IS = """(name) => document.body.dataset.jpThemeName === name
  && !document.getElementById('jupyterlab-splash')"""


class NotebookPage:
    """A page with one notebook in front. Every wait has the context's timeout."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def run_all(self) -> None:
        """Run all cells; returns when the last one ended or one failed."""
        self._command("notebook:run-all-cells")

    def theme(self, name: str) -> None:
        """Switch JupyterLab's theme, as its settings menu does."""
        self._command("apputils:change-theme", {"theme": name})
        self.page.wait_for_function(_THEME_IS, arg=name)

    def model(self) -> NotebookNode:
        """The notebook as JupyterLab holds it now, with its outputs."""
        return nbformat.from_dict(self.page.evaluate(_MODEL))

    def cell(self, cell_id: str) -> Locator:
        """The cell in the page; all of them are there, in order, because windowing is off."""
        ids = [cell.id for cell in self.model().cells]
        return self.page.locator(".jp-Notebook .jp-Cell").nth(ids.index(cell_id))

    def write(self, cell_id: str, source: str) -> None:
        """Replace the cell's text through its editor."""
        self.cell(cell_id).locator(".cm-content").click()
        self.page.keyboard.press("ControlOrMeta+A")
        self.page.keyboard.insert_text(source)
        (cell,) = (cell for cell in self.model().cells if cell.id == cell_id)
        assert cell.source == source, f"the editor made of it:\n{cell.source}"

    def run(self, cell_id: str) -> str:
        """Run one cell with Ctrl+Enter; the text of its new outputs."""
        before = self._execution_count(cell_id)
        self.cell(cell_id).locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")
        # The count is set by the kernel's reply, and idle comes after all outputs.
        self.page.wait_for_function(
            """([id, before]) => window.jupyterapp.shell.currentWidget.content.model.sharedModel
              .cells.some((cell) => cell.id === id && ![before, null].includes(cell.execution_count))""",
            arg=[cell_id, before],
        )
        self.page.wait_for_function(_IDLE)
        self.page.wait_for_function(_RENDERED)
        return " ".join(self.cell(cell_id).locator(".jp-Cell-outputArea").inner_text().split())

    def _execution_count(self, cell_id: str) -> int | None:
        (cell,) = (cell for cell in self.model().cells if cell.id == cell_id)
        count: int | None = cell.execution_count
        return count

    def _command(self, name: str, options: dict[str, Any] | None = None) -> None:
        # evaluate() would wait for the promise without a timeout.
        self.page.evaluate(_COMMAND, [name, options or {}])
        self.page.wait_for_function("() => window.slmlabFinished")
        self.page.wait_for_function(_RENDERED)


@contextmanager
def open_notebook(browser: Browser, lab: Lab, path: str) -> Iterator[NotebookPage]:
    """The notebook at `path` of the work folder in a page of its own, its kernel started."""
    page = browser.context.new_page()
    try:
        page.goto(f"{lab.url}/lab/tree/{path}?reset&token={lab.token}")
        page.wait_for_function(_READY)
        page.wait_for_function(_IDLE)
        assert page.evaluate("() => window.jupyterapp.shell.currentWidget.context.path") == path
        yield NotebookPage(page)
    finally:
        page.close()
