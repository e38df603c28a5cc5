"""Whatever a learner can move in an output, how it is moved, and what that changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import ElementHandle, Page

EFFECT_SECONDS = 60

_KINDS = ".noUi-handle, select, input, textarea, button"
_BOX = ".widget-inline-hbox, .widget-inline-vbox"
_NAME = f"""(control) => {{
  const box = control.closest('{_BOX}');
  return (box?.querySelector('.widget-label')?.textContent || control.textContent).trim();
}}"""
_KIND = """(control) => control.matches('.noUi-handle') ? 'slider'
  : control.matches('input') ? control.type : control.tagName.toLowerCase()"""
# What the cell shows, without the controls: a slider that moves is not yet an effect.
_SHOWN = f"""(control) => {{
  const shown = control.closest('.jp-Cell-outputArea').cloneNode(true);
  for (const part of shown.querySelectorAll('{_KINDS}')) (part.closest('{_BOX}') ?? part).remove();
  const pictures = [...shown.querySelectorAll('img')].map((picture) => picture.src);
  return {{words: shown.textContent, pictures: pictures.join(' ')}};
}}"""


@dataclass(frozen=True)
class Control:
    """One control of the page under the name that stands beside it."""

    name: str
    kind: str
    handle: ElementHandle

    def move(self) -> Callable[[], None]:
        """Move it; returns the way back."""
        if self.kind == "slider":
            low, now, high = (
                float(self.handle.get_attribute(f"aria-value{name}") or "nan")
                for name in ("min", "now", "max")
            )
            assert low < high, f"{self.name!r} has one position"
            keys = ("ArrowRight", "ArrowLeft") if now < high else ("ArrowLeft", "ArrowRight")
            self.handle.focus()
            self.handle.press(keys[0])
            return lambda: self.handle.press(keys[1])
        if self.kind == "select":
            at, count = self.handle.evaluate("(list) => [list.selectedIndex, list.options.length]")
            assert count > 1, f"{self.name!r} offers one choice"
            # Neighbours may agree (two formats of 4.5 bits a weight); the far end does not.
            self._select(0 if at else count - 1)
            return lambda: self._select(at)
        if self.kind in ("checkbox", "button"):
            self.handle.click()
            return self.handle.click
        raise AssertionError(f"{self.name!r}: teach this test how to move {self.kind!r}")

    def shown(self) -> dict[str, str]:
        """Under "words" and "pictures" what the output shows that the control stands in."""
        shown: dict[str, str] = self.handle.evaluate(_SHOWN)
        return shown

    def _select(self, index: int) -> None:
        self.handle.select_option(index=index)


def controls(page: Page) -> list[Control]:
    """Every control in the outputs of the notebook, in reading order."""
    widgets = f".jp-OutputArea-output .jupyter-widgets :is({_KINDS})"
    found = [handle for handle in page.query_selector_all(widgets) if handle.is_visible()]
    return [Control(h.evaluate(_NAME), h.evaluate(_KIND), h) for h in found]


def effect_missing(page: Page, control: Control) -> str:
    """Moves the control and moves it back. "" where words and pictures changed and came back,
    else what did not."""
    before = control.shown()
    back = control.move()
    still = _waited_in_vain(page, control, before, "!==")
    back()
    if still:
        return f"{control.name!r} was moved and the {still} stayed"
    if other := _waited_in_vain(page, control, before, "==="):
        return f"{control.name!r} was moved back and the {other} did not follow"
    return ""


def _waited_in_vain(page: Page, control: Control, before: dict[str, str], how: str) -> str:
    from playwright.sync_api import TimeoutError as NothingHappened

    for part in filter(before.get, before):
        try:
            page.wait_for_function(
                f"([control, part, before]) => ({_SHOWN})(control)[part] {how} before",
                arg=[control.handle, part, before[part]],
                timeout=1000 * EFFECT_SECONDS,
            )
        except NothingHappened:
            return part
    return ""
