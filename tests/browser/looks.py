"""What a screenshot or a text of the page must have to be read: contrast, and a place in view."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from slmlab.widgets.plot_style import contrast

if TYPE_CHECKING:
    from playwright.sync_api import Page

# WCAG 2.2, success criterion 1.4.3: text and its background.
TEXT_CONTRAST = 4.5

# Each text of an output with its colour and the first opaque background behind it.
_TEXTS = """() => {
  const found = new Map();
  for (const area of document.querySelectorAll('.jp-OutputArea-output')) {
    const walker = document.createTreeWalker(area, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const node = walker.currentNode, text = node.textContent.trim();
      if (!text || !node.parentElement.checkVisibility()) continue;
      let behind = node.parentElement;
      const paint = (element) => getComputedStyle(element).backgroundColor;
      while (behind && /^(transparent|rgba\\(.*, 0\\))$/.test(paint(behind)))
        behind = behind.parentElement;
      const key = [getComputedStyle(node.parentElement).color, behind ? paint(behind) : 'rgb(255, 255, 255)'];
      found.set(key.join(' on '), [...key, text]);
    }
  }
  return [...found.values()];
}"""
# Whatever sticks out of its output, or makes the output scroll sideways.
_CUT_OFF = """() => {
  const cut = [];
  for (const area of document.querySelectorAll('.jp-OutputArea-output')) {
    const edge = area.getBoundingClientRect().right + 1;
    for (const part of area.querySelectorAll('img, select, table, .widget-inline-hbox'))
      if (part.checkVisibility() && part.getBoundingClientRect().right > edge)
        cut.push(part.outerHTML.slice(0, 80));
    if (area.scrollWidth > area.clientWidth + 1)
      cut.push(`scrolls: ${area.textContent.slice(0, 80)}`);
  }
  return cut;
}"""


def legible_share(png: bytes) -> float:
    """Share of the pixels that stand out from the most common colour as text must, 0 .. 1."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=np.uint32)
    packed = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    codes, counts = np.unique(packed, return_counts=True)
    background = f"#{codes[counts.argmax()]:06X}"
    legible = [contrast(f"#{code:06X}", background) >= TEXT_CONTRAST for code in codes]
    return float(counts[legible].sum() / counts.sum())


def faint_texts(page: Page) -> list[str]:
    """Texts of the outputs whose contrast with their background is too low, with both colours."""
    return [
        f"{text[:60]!r}: {ink} on {behind}"
        for ink, behind, text in page.evaluate(_TEXTS)
        if contrast(css_hex(ink), css_hex(behind)) < TEXT_CONTRAST
    ]


def cut_off(page: Page) -> list[str]:
    """The beginning of every part of an output that does not fit into the page's width."""
    parts: list[str] = page.evaluate(_CUT_OFF)
    return parts


def css_hex(colour: str) -> str:
    """'rgb(1, 2, 3)', or 'rgba(...)' without regard to its transparency, as '#010203'."""
    numbers = colour.removeprefix("rgba(").removeprefix("rgb(").rstrip(")").split(",")
    return "#" + "".join(f"{int(number):02X}" for number in numbers[:3])
