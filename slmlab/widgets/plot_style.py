"""The look of every lesson plot: an opaque card, five colours, and a second cue for each colour.

Why a card: text on a transparent figure would need a contrast of 4.5:1 against a white page and
against a dark one (#111111). No grey has it; the best reaches 4.34:1. Lines need 3:1 only, and the
colours below have that on white, on #111111 and on the card alike.
Contrast as in WCAG 2.2, success criteria 1.4.3 (text, 4.5:1) and 1.4.11 (graphics, 3:1).
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.rcsetup import cycler
from matplotlib.text import Annotation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CARD = "#FFFFFF"
INK = "#222222"
GRID = "#D9D9D9"
LIGHT_PAGE, DARK_PAGE = "#FFFFFF", "#111111"
TITLE_CHARACTERS = 76


@dataclass(frozen=True)
class Series:
    """One colour with its second cues: the marker, the hatch and the line style."""

    name: str
    colour: str
    marker: str
    hatch: str
    line: Any


# Okabe and Ito, "Color Universal Design" (2008). Vermilion, purple and orange are darkened until
# they read on white; sky blue and yellow cannot be, and black is the ink.
SERIES = (
    Series("blue", "#0072B2", "o", "", "-"),
    Series("vermilion", "#C24E00", "^", "///", "--"),
    Series("green", "#009E73", "s", "\\\\\\", "-."),
    Series("purple", "#B8679A", "D", "...", ":"),
    Series("amber", "#B98500", "v", "xxx", (0, (5, 1, 1, 1, 1, 1))),
)

# Typed Any: the stubs spell out every setting of one matplotlib version.
STYLE: Any = {
    "figure.facecolor": CARD,
    "figure.edgecolor": CARD,
    "figure.dpi": 100,
    "savefig.facecolor": CARD,
    "savefig.edgecolor": CARD,
    "savefig.transparent": False,
    "axes.facecolor": CARD,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "lines.linewidth": 2.0,
    "lines.markersize": 7.5,
    "hatch.linewidth": 0.8,
    "legend.frameon": False,
    "axes.prop_cycle": cycler(
        color=[s.colour for s in SERIES],
        marker=[s.marker for s in SERIES],
        linestyle=[s.line for s in SERIES],
    ),
}


@contextmanager
def lesson_style() -> Iterator[None]:
    """Inside, matplotlib draws in the lessons' style; what was set before comes back after.

    Text that is drawn later than it was made keeps the style only in a `CardFigure`; with
    pyplot, show the figure inside the ``with`` block.
    """
    with matplotlib.rc_context(STYLE):
        yield


def _linear(channel: int) -> float:
    value = channel / 255
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def _channels(colour: str) -> tuple[int, int, int]:
    if not isinstance(colour, str):
        raise TypeError(f"colour must be a str such as '#0072B2', got {type(colour).__name__}")
    digits = colour.removeprefix("#")
    if len(digits) != 6 or not all(c in "0123456789abcdefABCDEF" for c in digits):
        raise ValueError(f"colour {colour!r} must have the form '#0072B2'")
    return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2) of '#RRGGBB', 0 black .. 1 white."""
    red, green, blue = (_linear(channel) for channel in _channels(colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    """Contrast ratio (WCAG 2.2) of two colours '#RRGGBB', 1 .. 21. Raises ValueError for others."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def text_colour(colour: str, background: str = CARD, ratio: float = 4.5) -> str:
    """``colour`` darkened just enough to be read as text: ``ratio``:1 on a light ``background``."""
    channels = _channels(colour)
    for percent in range(100, -1, -4):
        darker = "#" + "".join(f"{channel * percent // 100:02X}" for channel in channels)
        if contrast(darker, background) >= ratio:
            return darker
    raise ValueError(f"background {background!r} is too dark for dark text: use {CARD!r}")


def wrapped(title: str, characters: int = TITLE_CHARACTERS) -> str:
    """A title broken into lines that fit the width of a lesson figure."""
    return "\n".join(textwrap.wrap(title, characters))


def label_axes(axes: Axes, x: str, x_unit: str, y: str = "", y_unit: str = "") -> None:
    """Name the axes with their units, as in "context (tokens)". An empty name leaves an axis bare."""
    for name, unit, setter in ((x, x_unit, axes.set_xlabel), (y, y_unit, axes.set_ylabel)):
        if name:
            if not unit:
                raise ValueError(f"axis {name!r} needs a unit: a count has one too, such as tokens")
            setter(f"{name} ({unit})")


def label_at_end(line: Line2D, text: str, gap_points: float = 6.0) -> Annotation:
    """Write ``text`` at the last point of ``line``, in its colour made dark enough to read.

    Direct labels need no legend. Raises ValueError for a line without points or axes.
    """
    axes: Any = line.axes
    points: Any = line.get_xydata()
    if axes is None or len(points) == 0:
        raise ValueError("line must hold at least one point and stand in axes: plot it first")
    label: Annotation = axes.annotate(
        text,
        tuple(points[-1]),
        xytext=(gap_points, 0),
        textcoords="offset points",
        ha="left",
        va="center",
        color=text_colour(to_hex(line.get_color())),
        annotation_clip=False,
    )
    return label


def spread(positions: list[float], gap: float, low: float, high: float) -> list[float]:
    """``positions`` moved as little as needed so that each two are ``gap`` apart, in low .. high.

    The order stays. Where low .. high is too short for the gap, labels share it evenly.
    """
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    if len(order) > 1:
        gap = min(gap, (high - low) / (len(order) - 1))
    moved = [0.0] * len(positions)
    floor = low
    for index in order:
        moved[index] = max(positions[index], floor)
        floor = moved[index] + gap
    ceiling = high
    for index in reversed(order):
        moved[index] = min(moved[index], ceiling)
        ceiling = moved[index] - gap
    return moved
