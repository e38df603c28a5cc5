"""A figure that looks the same wherever it is shown: any backend, no display, light or dark page."""

from __future__ import annotations

import base64
import io
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from slmlab.widgets.plot_style import STYLE, lesson_style, wrapped

PIXELS_PER_POINT_SIZE = 1.6


class CardFigure(Figure):
    """A matplotlib Figure in the lessons' style that a notebook shows once, as PNG.

    alt: what the picture says, in one sentence; it stands in for the picture in text output.
    It is not registered with pyplot, so a cell that returns it shows it once and leaves nothing
    open, with or without the inline backend.
    """

    def __init__(self, *args: Any, alt: str = "", **kwargs: Any) -> None:
        with lesson_style():
            super().__init__(*args, **kwargs)
        FigureCanvasAgg(self)
        self.alt = alt
        self.draws = 0

    def draw(self, renderer: RendererBase) -> None:
        """Draw in the style: matplotlib makes ticks as late as here, from the settings of now."""
        self.draws += 1
        with matplotlib.rc_context(STYLE):
            super().draw(renderer)

    def png(self, scale: float = PIXELS_PER_POINT_SIZE) -> bytes:
        """The figure as PNG, ``scale`` times its size of 100 pixels an inch."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=100 * scale)
        return buffer.getvalue()

    def set_message(self, message: str) -> Text:
        """Write the plot's one message above it, from the card's left edge, wrapped to fit."""
        with lesson_style():
            # No y with a layout engine: given one, it would leave no room for the title.
            place = (
                {"y": 1 - 0.1 / self.get_figheight()} if self.get_layout_engine() is None else {}
            )
            return self.suptitle(
                wrapped(message),
                x=0.1 / self.get_figwidth(),
                ha="left",
                va="top",
                fontsize=11,
                weight="bold",
                **place,
            )

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        width, height = (round(100 * inches) for inches in self.get_size_inches())
        text = base64.b64encode(self.png()).decode("ascii")
        data = {"image/png": text, "text/plain": self.alt or repr(self)}
        return data, {"image/png": {"width": width, "height": height, "alt": self.alt}}


def lesson_figure(
    width: float = 7.2, height: float = 4.2, *, alt: str = "", layout: str | None = "constrained"
) -> tuple[CardFigure, Axes]:
    """A figure and its axes in the lessons' style, in inches of 100 pixels.

    Return the figure from the cell, or pass it to IPython's ``display``. Raises ValueError for a
    size that is not positive.
    """
    for name, value in (("width", width), ("height", height)):
        if not 0 < value <= 40:
            raise ValueError(f"{name} must lie in 0 .. 40 inches, got {value}")
    figure = CardFigure(figsize=(width, height), layout=layout, alt=alt)
    with lesson_style():
        return figure, figure.add_subplot()
